#include "oci/remote_list.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/remote_header.h"

#define PAGE        1000 /* the most that ECR gives */
#define PAGES_MAX   10000
#define ITEMS_MAX   100000
#define EMPTY_PAGES 16 /* in a row: a list that leads nowhere */

static int take_page(struct remote *remote, const struct http_response *response, const char *path,
                     const char *key, size_t limit, struct value *out, size_t *came,
                     struct error *err)
{
    cleanup_value struct value page = {0};

    if (value_from_json(response->body.data ? response->body.data : "", response->body.len, path,
                        NULL, &page, err) != 0)
        return error_wrap(err, "%s", remote->host);
    const struct value *list = value_get(&page, key);
    if (page.kind != VALUE_MAP || (list && list->kind != VALUE_ARRAY && list->kind != VALUE_NIL))
        return error_set(err, ERR_INVALID, "%s%s: the reply has no list '%s'", remote->host, path,
                         key);
    *came = value_count(list); /* null is what some registries say of none */
    for (size_t i = 0; i < *came && value_count(out) < limit; i++) {
        const char *text = value_text(value_at(list, i), NULL);
        if (!text)
            return error_set(err, ERR_INVALID, "%s%s: '%s' holds something that is no text",
                             remote->host, path, key);
        value_push_string(out, text);
    }
    return 0;
}

int remote_list(struct remote *remote, const char *scope, const char *path, const char *key,
                size_t limit, const char *last, struct value *out, struct error *err)
{
    cleanup_buf struct buf first = BUF_INIT;
    size_t most = limit && limit < ITEMS_MAX ? limit : ITEMS_MAX, empty = 0;

    buf_printf(&first, "%s?n=%zu", path, most < PAGE ? most : PAGE);
    if (last) {
        buf_puts(&first, "&last=");
        url_escape(last, strlen(last), &first);
    }
    cleanup_free char *url = mem_strdup(first.data);
    value_set_array(out);
    for (int page = 0; url && page < PAGES_MAX && value_count(out) < most; page++) {
        cleanup_response struct http_response response = {0};
        struct http_request request = HTTP_REQUEST_INIT;
        size_t came = 0;
        request.url = url;
        request.follow = true;
        if (remote_send(remote, scope, &request, &response, err) != 0)
            return -1;
        if (response.status != 200) {
            cleanup_free char *what = mem_printf("%s%s", remote->host, path);
            return remote_refused(remote, &request, &response, what, err);
        }
        if (take_page(remote, &response, path, key, most, out, &came, err) != 0)
            return -1;
        empty = came ? 0 : empty + 1;
        cleanup_free char *next = link_next(&response.headers);
        char *where = next && empty < EMPTY_PAGES ? location_resolve(response.url, next) : NULL;
        bool same = where && strcmp(where, response.url) == 0;
        free(url);
        url = where;
        if (same)
            return error_set(err, ERR_INVALID, "%s%s: the next page is the same one again",
                             remote->host, path);
    }
    return 0;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(value_text(a, ""), value_text(b, ""));
}

int remote_catalog(struct remote *remote, size_t limit, const char *last, struct value *out,
                   struct error *err)
{
    if (remote_list(remote, "registry:catalog:*", "/v2/_catalog", "repositories", limit, last, out,
                    err) != 0) {
        if (err && (err->code == ERR_UNAUTHORIZED || err->code == ERR_DENIED ||
                    err->code == ERR_NOT_FOUND))
            error_hint(err, "many registries (Docker Hub, ghcr.io) show nobody all repositories");
        return -1;
    }
    if (value_count(out))
        qsort(out->as.array.items, value_count(out), sizeof *out->as.array.items, compare_texts);
    return 0;
}

/* ---- taking away ---- */

static int delete_at(struct remote *remote, const char *name, const char *url, const char *what,
                     int *status, struct error *err)
{
    cleanup_free char *scope = mem_printf("repository:%s:pull,delete", name);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    request.method = "DELETE";
    request.url = url;
    *status = 0;
    if (remote_send(remote, scope, &request, &response, err) != 0)
        return error_wrap(err, "%s", what);
    *status = response.status;
    if (response.status >= 200 && response.status <= 204)
        return 0;
    remote_refused(remote, &request, &response, what, err);
    if (err && response.status == 405)
        err->code = ERR_UNSUPPORTED;
    return -1;
}

static const char no_deletes[] =
    "this registry does not delete by this API; docker-registry does with REGISTRY_STORAGE_"
    "DELETE_ENABLED=true, hosted ones (Docker Hub, ghcr.io) have means of their own";

int remote_delete(struct remote *remote, const char *name, const char *digest, struct error *err)
{
    cleanup_free char *url = mem_printf("/v2/%s/manifests/%s", name, digest);
    cleanup_free char *what = mem_printf("%s/%s@%s", remote->host, name, digest);
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value manifest = {0};
    int status;

    /* What it refers to is known only as long as it is there. */
    if (remote_manifest(remote, name, digest, &text, NULL, NULL, err) != 0)
        return -1;
    if (value_from_json(text.data ? text.data : "", text.len, what, NULL, &manifest, NULL) != 0)
        value_set_map(&manifest);
    const char *subject = value_get_string(value_get(&manifest, "subject"), "digest", NULL);
    if (delete_at(remote, name, url, what, &status, err) != 0)
        return status == 405 || status == 400 ? error_hint(err, "%s", no_deletes) : -1;
    return subject && digest_valid(subject)
               ? remote_forget_referrer(remote, name, subject, digest, err)
               : 0;
}

/* Azure's registries take tags away by an API of their own. */
static bool is_azure(const struct remote *remote)
{
    static const char suffix[] = ".azurecr.io";
    size_t len = strlen(remote->base_host);

    return len >= sizeof suffix &&
           strcmp(remote->base_host + len - (sizeof suffix - 1), suffix) == 0;
}

int remote_untag(struct remote *remote, const char *name, const char *tag, struct error *err)
{
    cleanup_free char *url = is_azure(remote) ? mem_printf("/acr/v1/%s/_tags/%s", name, tag)
                                              : mem_printf("/v2/%s/manifests/%s", name, tag);
    cleanup_free char *what = mem_printf("%s/%s:%s", remote->host, name, tag);
    int status;

    if (delete_at(remote, name, url, what, &status, err) == 0)
        return 0;
    if (status != 405 && status != 400)
        return -1;
    if (err)
        err->code = ERR_UNSUPPORTED;
    return error_hint(err,
                      "this registry does not delete tags; registry.delete \"%s/%s:%s\" deletes "
                      "the manifest, with all of its tags",
                      remote->host, name, tag);
}

int remote_delete_blob(struct remote *remote, const char *name, const char *digest,
                       struct error *err)
{
    cleanup_free char *url = mem_printf("/v2/%s/blobs/%s", name, digest);
    cleanup_free char *what = mem_printf("%s/%s: blob %s", remote->host, name, digest);
    int status;

    if (delete_at(remote, name, url, what, &status, err) == 0)
        return 0;
    if (status == 405 || status == 400)
        return error_hint(err, "%s", no_deletes);
    return -1;
}
