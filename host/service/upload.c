/* Uploads that are not plain JSON: a pipeline package as a form, a notebook as base64. And the
 * digest of a text. */
#include "service/rest.h"

#include "base/digest.h"
#include "base/mem.h"
#include "service/client.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PACKAGE_LIMIT  (32u << 20) /* what the Kubeflow Pipelines API server takes */
#define NOTEBOOK_LIMIT (10u << 20) /* what the Databricks workspace import takes */

/* The text of `content`, or of the file `path`. */
static int content_of(struct call *call, const struct value *args, size_t limit, struct buf *out,
                      struct error *err)
{
    const struct value *content = value_get(args, "content");
    const char *path = value_get_string(args, "path", NULL);

    if (content && content->kind == VALUE_STRING) {
        if (content->as.string.len > limit)
            return error_set(err, ERR_TOO_LARGE, "the content is larger than %zu bytes", limit);
        buf_append(out, content->as.string.data, content->as.string.len);
        return 0;
    }
    if (!path)
        return error_set(err, ERR_USAGE, "give `content` or `path`");
    cleanup_free char *file = call_path(call, path, ACCESS_READ, err);
    return file ? call_read(file, limit, out, err) : -1;
}

static void put_query(struct buf *url, const char *name, const char *value)
{
    if (!value || !*value)
        return;
    buf_printf(url, "%c%s=", strchr(url->data, '?') ? '&' : '?', name);
    url_escape(value, strlen(value), url);
}

/* A quoted-string of a multipart header: quotes and line breaks would end it. */
static void put_filename(struct buf *body, const char *name)
{
    for (; *name; name++)
        buf_putc(body, *name == '"' || *name == '\\' || (unsigned char)*name < ' ' ? '_' : *name);
}

/*
 * kubeflow.upload(client, content? | path?, filename?, pipeline_id?, name?, display_name?,
 * description?, namespace?, tags?)
 *   -> the Pipeline (without pipeline_id) or PipelineVersion (with it)
 *
 * POST /apis/v2beta1/pipelines/upload or .../upload_version: a multipart form with the one field
 * `uploadfile`; the server recognises the format by the file name.
 */
int prim_kubeflow_upload(struct call *call, const struct value *args, struct value *out,
                         struct error *err)
{
    struct rest_client *client = rest_client_arg(call, args, err);
    const char *pipeline = value_get_string(args, "pipeline_id", NULL);
    const char *path = value_get_string(args, "path", NULL);
    const char *filename = value_get_string(args, "filename", NULL);
    const struct value *tags = value_get(args, "tags");
    cleanup_buf struct buf content = BUF_INIT;
    cleanup_buf struct buf body = BUF_INIT;
    cleanup_buf struct buf url = BUF_INIT;
    cleanup_buf struct buf tags_text = BUF_INIT;
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;
    uint64_t random[2];

    if (!client || content_of(call, args, PACKAGE_LIMIT, &content, err) != 0)
        return client ? error_wrap(err, "kubeflow.upload") : -1;
    if (!filename)
        filename = path ? (strrchr(path, '/') ? strrchr(path, '/') + 1 : path) : "pipeline.yaml";
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return error_set(err, ERR_IO, "no random numbers");
    cleanup_free char *boundary = mem_printf("mlhost-%016llx%016llx", (unsigned long long)random[0],
                                             (unsigned long long)random[1]);
    buf_printf(&body, "--%s\r\nContent-Disposition: form-data; name=\"uploadfile\"; filename=\"",
               boundary);
    put_filename(&body, filename);
    buf_puts(&body, "\"\r\nContent-Type: application/octet-stream\r\n\r\n");
    buf_append(&body, content.data, content.len);
    buf_printf(&body, "\r\n--%s--\r\n", boundary);

    buf_puts(&url, pipeline ? "/apis/v2beta1/pipelines/upload_version"
                            : "/apis/v2beta1/pipelines/upload");
    put_query(&url, "pipelineid", pipeline);
    put_query(&url, "name", value_get_string(args, "name", NULL));
    put_query(&url, "display_name", value_get_string(args, "display_name", NULL));
    put_query(&url, "description", value_get_string(args, "description", NULL));
    if (!pipeline)
        put_query(&url, "namespace", value_get_string(args, "namespace", NULL));
    if (tags && value_count(tags)) {
        value_to_json(tags, 0, &tags_text);
        put_query(&url, "tags", tags_text.data);
    }
    cleanup_free char *type = mem_printf("multipart/form-data; boundary=%s", boundary);
    request.method = "POST";
    request.url = url.data;
    request.body = body.data;
    request.body_len = body.len;
    http_header_add(&request.headers, "Content-Type", type);
    int result = rest_send(call, client, &request, &response, err);
    http_headers_free(&request.headers);
    if (result == 0)
        result = rest_json(client, &response, out, err);
    return result == 0 ? 0 : error_wrap(err, "kubeflow.upload");
}

/*
 * databricks.import(client, path? | content?, to, format?, language?, overwrite?) -> {}
 *
 * POST /api/2.0/workspace/import (https://docs.databricks.com/api/workspace/workspace/import): the
 * file as base64.
 */
int prim_databricks_import(struct call *call, const struct value *args, struct value *out,
                           struct error *err)
{
    struct rest_client *client = rest_client_arg(call, args, err);
    cleanup_buf struct buf content = BUF_INIT;
    cleanup_buf struct buf body = BUF_INIT;
    cleanup_value struct value map = {0};
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    if (!client || content_of(call, args, NOTEBOOK_LIMIT, &content, err) != 0)
        return client ? error_wrap(err, "databricks.import") : -1;
    char *encoded = mem_alloc(4 * ((content.len + 2) / 3) + 1);
    EVP_EncodeBlock((unsigned char *)encoded,
                    (const unsigned char *)(content.data ? content.data : ""), (int)content.len);
    value_set_map(&map);
    value_put_string(&map, "path", value_get_string(args, "to", ""));
    value_put_string(&map, "format", value_get_string(args, "format", "SOURCE"));
    value_put_string(&map, "language", value_get_string(args, "language", NULL));
    value_put_bool(&map, "overwrite", value_get_bool(args, "overwrite", false));
    value_take_string(value_put(&map, "content"), encoded);
    value_to_json(&map, 0, &body);
    request.method = "POST";
    request.url = "/api/2.0/workspace/import";
    request.body = body.data;
    request.body_len = body.len;
    /* writing the same notebook twice is the same as once, but only when it may overwrite */
    request.repeat =
        value_get_bool(args, "overwrite", false) ? HTTP_REPEAT_ALWAYS : HTTP_REPEAT_SAFE;
    http_header_add(&request.headers, "Content-Type", "application/json");
    int result = rest_send(call, client, &request, &response, err);
    http_headers_free(&request.headers);
    if (result == 0)
        result = rest_json(client, &response, out, err);
    return result == 0 ? 0 : error_wrap(err, "databricks.import");
}

/* hash.sha256(content? | path?) -> 64 hexadecimal digits: of a text, or of a file, which is not
 * read into memory. */
int prim_content_hash(struct call *call, const struct value *args, struct value *out,
                      struct error *err)
{
    const struct value *content = value_get(args, "content");
    const char *path = value_get_string(args, "path", NULL);
    struct digest digest;
    uint64_t size;

    if (content && content->kind == VALUE_STRING) {
        digest_bytes(content->as.string.data, content->as.string.len, &digest);
    } else if (path) {
        cleanup_free char *file = call_path(call, path, ACCESS_READ, err);
        if (!file)
            return -1;
        cleanup_close int fd = call_open(file, O_RDONLY | O_NONBLOCK, 0, err);
        if (fd < 0)
            return error_wrap(err, "cannot read '%s'", path);
        if (digest_file(fd, &digest, &size, err) != 0)
            return error_wrap(err, "%s", path);
    } else {
        return error_set(err, ERR_USAGE, "hash.sha256: give content or path");
    }
    value_set_string(out, strchr(digest.text, ':') + 1);
    return 0;
}
