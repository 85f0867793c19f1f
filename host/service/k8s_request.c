/* One request to a Kubernetes API: any method, any path, the types of content that it tells apart
 * patches by. */
#include "service/k8s_config.h"

#include "base/mem.h"
#include "loop/http_internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define REPLY_LIMIT (64u << 20)

/* A text is sent as it is, everything else as JSON. */
static void put_body(const struct value *body, struct buf *text)
{
    if (!body || body->kind == VALUE_NIL)
        return;
    if (body->kind == VALUE_STRING)
        buf_append(text, body->as.string.data, body->as.string.len);
    else
        value_to_json(body, 0, text);
}

/* A member that is null is one that is not there: the API writes both (API conventions,
 * "Optional vs. Required"), and scripts need not know which. */
void k8s_drop_nulls(struct value *v)
{
    if (v->kind == VALUE_ARRAY) {
        for (size_t i = 0; i < v->as.array.count; i++)
            k8s_drop_nulls(&v->as.array.items[i]);
    } else if (v->kind == VALUE_MAP) {
        for (size_t i = 0; i < v->as.map.count;) {
            struct value_pair *pair = &v->as.map.pairs[i];
            if (pair->value.kind == VALUE_NIL) {
                cleanup_free char *key = mem_strdup(pair->key);
                value_remove(v, key);
            } else {
                k8s_drop_nulls(&pair->value);
                i++;
            }
        }
    }
}

static bool is_json(const struct http_response *response)
{
    const char *type = http_header_get(&response->headers, "Content-Type");

    return type && strstr(type, "json");
}

/*
 * k8s.request(client, method, path, body?, content_type?, accept?, limit?, headers?, check?) -> {
 * status, headers, body }
 *
 *   path          string  with its query: "/api/v1/namespaces/default/pods?limit=500"
 *   body          any     a text as it is, anything else as JSON
 *   content_type  string  default "application/json"
 *   check         bool    false: any status is a reply
 *   limit         int     bytes of the reply, default 64 MiB
 * returns  body: decoded where the reply is JSON, else its text
 * errors   by the reason of the Status object: not_found, exists, conflict, invalid, forbidden ...
 */
int prim_k8s_request(struct call *call, const struct value *args, struct value *out,
                     struct error *err)
{
    struct rest_client *client = rest_client_arg(call, args, err);
    cleanup_buf struct buf body = BUF_INIT;
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;
    const char *method = value_get_string(args, "method", "GET");
    const char *type = value_get_string(args, "content_type", "application/json");
    int64_t limit = value_get_int(args, "limit", 0);

    if (!client)
        return -1;
    put_body(value_get(args, "body"), &body);
    request.method = method;
    request.url = value_get_string(args, "path", "");
    if (request.url[0] != '/')
        return error_set(err, ERR_USAGE, "k8s.request: the path must begin with '/'");
    request.body = body.len ? body.data : NULL;
    request.body_len = body.len;
    request.reply_limit = limit > 0 ? (size_t)limit : REPLY_LIMIT;
    /* Applying or merging the same twice is doing it once; a JSON patch may add twice. */
    bool repeatable = strcmp(type, "application/apply-patch+yaml") == 0 ||
                      strcmp(type, "application/merge-patch+json") == 0;
    request.repeat =
        strcmp(method, "PATCH") == 0 && repeatable ? HTTP_REPEAT_ALWAYS : HTTP_REPEAT_SAFE;
    http_header_add(&request.headers, "Accept",
                    value_get_string(args, "accept", "application/json"));
    if (body.len)
        http_header_add(&request.headers, "Content-Type", type);
    int rc = rest_add_headers(value_get(args, "headers"), &request.headers, err);
    if (rc == 0)
        rc = value_get_bool(args, "check", true)
                 ? rest_send(call, client, &request, &response, err)
                 : rest_exchange(call, client, &request, &response, err);
    http_headers_free(&request.headers);
    if (rc < 0)
        return -1;
    value_set_map(out);
    value_put_int(out, "status", response.status);
    struct value *headers = value_put(out, "headers");
    value_set_map(headers);
    for (size_t i = 0; i < response.headers.count; i++) {
        cleanup_free char *name = mem_strdup(response.headers.items[i].name);
        for (char *at = name; *at; at++)
            *at = (char)tolower((unsigned char)*at);
        value_put_string(headers, name, response.headers.items[i].value);
    }
    if (is_json(&response)) {
        struct value *decoded = value_put(out, "body");
        if (rest_json(client, &response, decoded, err) < 0)
            return -1;
        k8s_drop_nulls(decoded);
        return 0;
    }
    value_set_bytes(value_put(out, "body"), response.body.len ? response.body.data : "",
                    response.body.len);
    return 0;
}
