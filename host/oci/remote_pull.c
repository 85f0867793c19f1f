/* From a registry: manifests, tags, whole images. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/manifest.h"
#include "oci/remote.h"
#include "oci/remote_list.h"

#define ACCEPT OCI_MANIFEST ", " OCI_INDEX ", " DOCKER_MANIFEST ", " DOCKER_LIST

static char *pull_scope(const char *name)
{
    return mem_printf("repository:%s:pull", name);
}

int remote_resolve(struct remote *remote, const char *name, const char *ref, struct digest *out,
                   struct error *err)
{
    cleanup_free char *url = mem_printf("/v2/%s/manifests/%s", name, ref);
    cleanup_free char *scope = pull_scope(name);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    request.method = "HEAD";
    request.url = url;
    request.follow = true;
    http_header_add(&request.headers, "Accept", ACCEPT);
    int status = remote_send(remote, scope, &request, &response, err);
    http_headers_free(&request.headers);
    if (status != 0)
        return -1;
    if (response.status == 404)
        return 0;
    if (response.status != 200) {
        cleanup_free char *what = mem_printf("%s/%s:%s", remote->host, name, ref);
        return remote_refused(remote, &request, &response, what, err);
    }
    const char *digest = http_header_get(&response.headers, "Docker-Content-Digest");
    if (digest_valid(digest)) {
        memcpy(out->text, digest, strlen(digest) + 1);
        return 1;
    }
    /* Old servers leave the header out. */
    return remote_manifest(remote, name, ref, NULL, NULL, out, err) == 0 ? 1 : -1;
}

int remote_manifest(struct remote *remote, const char *name, const char *ref, struct buf *text,
                    char **media_type, struct digest *digest, struct error *err)
{
    cleanup_free char *url = mem_printf("/v2/%s/manifests/%s", name, ref);
    cleanup_free char *scope = pull_scope(name);
    cleanup_free char *what =
        mem_printf("%s/%s%s%s", remote->host, name, digest_valid(ref) ? "@" : ":", ref);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;
    struct digest sum;

    request.url = url;
    request.follow = true;
    request.reply_limit = STORE_MANIFEST_LIMIT;
    http_header_add(&request.headers, "Accept", ACCEPT);
    int status = remote_send(remote, scope, &request, &response, err);
    http_headers_free(&request.headers);
    if (status != 0)
        return -1;
    if (response.status != 200)
        return remote_refused(remote, &request, &response, what, err);
    digest_bytes(response.body.data, response.body.len, &sum);
    const char *promised =
        digest_valid(ref) ? ref : http_header_get(&response.headers, "Docker-Content-Digest");
    if (promised && digest_valid(promised) && strcmp(promised, sum.text) != 0) {
        error_set(err, ERR_DIGEST,
                  "%s: the manifest that came has the digest %s, it should have %s", what, sum.text,
                  promised);
        return error_hint(
            err, "the registry's storage, or a proxy on the way, is damaged: nothing was kept");
    }
    const char *said = http_header_get(&response.headers, "Content-Type");
    cleanup_free char *type = said ? mem_strndup(said, strcspn(said, "; ")) : NULL;
    if (type && oci_same_type(response.body.data ? response.body.data : "", response.body.len, type,
                              what, err) != 0)
        return -1;
    if (media_type)
        *media_type = type ? steal_ptr(&type) : mem_strdup(OCI_MANIFEST);
    if (digest)
        *digest = sum;
    if (text)
        buf_append(text, response.body.data, response.body.len);
    return 0;
}

static int compare_tags(const void *a, const void *b)
{
    return strcmp(value_text(a, ""), value_text(b, ""));
}

int remote_tags(struct remote *remote, const char *name, size_t limit, const char *last,
                struct value *out, struct error *err)
{
    cleanup_free char *scope = pull_scope(name);
    cleanup_free char *path = mem_printf("/v2/%s/tags/list", name);

    if (remote_list(remote, scope, path, "tags", limit, last, out, err) != 0)
        return -1;
    /* The specification wants them sorted; not every registry sorts. */
    if (value_count(out))
        qsort(out->as.array.items, value_count(out), sizeof *out->as.array.items, compare_tags);
    return 0;
}

int remote_pull(struct remote *remote, struct store *store, const char *name, const char *ref,
                const char *store_name, const struct pull_watcher *watcher, struct digest *digest,
                struct error *err)
{
    cleanup_free char *wanted = mem_strdup(ref);

    remote->reading = true;
    for (int level = 0; level < 4; level++) {
        cleanup_buf struct buf text = BUF_INIT;
        cleanup_free char *media_type = NULL;
        cleanup_value struct value manifest = {0};
        cleanup_free char *source = mem_printf("%s/%s:%s", remote->host, name, wanted);
        struct digest sum;
        /* What has its digest for a name and is here needs no asking. */
        bool have = digest_valid(wanted) && store_manifest_get(store, store_name, wanted, &text,
                                                               &media_type, &sum, NULL) == 0;
        if (!have && remote_manifest(remote, name, wanted, &text, &media_type, &sum, err) != 0)
            return -1;
        if (oci_manifest_parse(text.data ? text.data : "", text.len, source, &manifest, err) != 0)
            return -1;
        bool index = oci_is_index(&manifest);
        if (!index && remote_fetch_all(remote, store, name, &manifest, watcher, err) != 0)
            return -1;
        const char *own_type = value_get_string(&manifest, "mediaType", media_type);
        if (store_manifest_put(store, store_name, level == 0 ? ref : sum.text, own_type, text.data,
                               text.len, index, NULL, err) != 0)
            return error_wrap(err, "%s", source);
        if (!index) {
            *digest = sum;
            return 0;
        }
        const struct value *descriptor = oci_index_pick(&manifest, source, err);
        if (!descriptor)
            return -1;
        char *next = mem_strdup(value_get_string(descriptor, "digest", ""));
        free(wanted);
        wanted = next;
    }
    return error_set(err, ERR_INVALID, "%s/%s:%s: too many nested indexes", remote->host, name,
                     ref);
}

static int pull_document(struct remote *remote, struct store *store, const char *name,
                         const char *ref, const char *store_name, int level, struct digest *digest,
                         struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_free char *media_type = NULL;
    cleanup_value struct value manifest = {0};
    cleanup_free char *source = mem_printf("%s/%s:%s", remote->host, name, ref);

    if (level > LEVELS_MAX)
        return error_set(err, ERR_INVALID, "%s: too many nested indexes", source);
    if (remote_manifest(remote, name, ref, &text, &media_type, digest, err) != 0 ||
        oci_manifest_parse(text.data ? text.data : "", text.len, source, &manifest, err) != 0)
        return -1;
    const struct value *children = value_get(&manifest, "manifests");
    bool index = oci_is_index(&manifest);
    for (size_t i = 0; index && i < value_count(children); i++) {
        struct digest child;
        const char *next = value_get_string(value_at(children, i), "digest", "");
        if (pull_document(remote, store, name, next, store_name, level + 1, &child, err) != 0)
            return -1;
    }
    if (!index && remote_fetch_all(remote, store, name, &manifest, NULL, err) != 0)
        return -1;
    return store_manifest_put(store, store_name, ref,
                              value_get_string(&manifest, "mediaType", media_type), text.data,
                              text.len, false, NULL, err) == 0
               ? 0
               : error_wrap(err, "%s", source);
}

int remote_pull_whole(struct remote *remote, struct store *store, const char *name, const char *ref,
                      const char *store_name, struct digest *digest, struct error *err)
{
    remote->reading = true;
    return pull_document(remote, store, name, ref, store_name, 0, digest, err);
}
