/* The OCI distribution API, v1.1: which call it is, errors, lists. */
#include "local/registry.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define MAX_PAGE 10000

struct registry *registry_of(const struct request *rq)
{
    return rq->service->state;
}

struct registry_request *registry_request_of(const struct request *rq)
{
    return rq->local;
}

void registry_refuse(struct request *rq, int status, const char *code, const char *format, ...)
{
    cleanup_value struct value body = {0};
    struct buf message = BUF_INIT;
    va_list args;

    value_set_map(&body);
    struct value *errors = value_put(&body, "errors");
    value_set_array(errors);
    struct value *error = value_push(errors);
    value_set_map(error);
    value_put_string(error, "code", code);
    va_start(args, format);
    buf_vprintf(&message, format, args);
    va_end(args);
    value_take_string(value_put(error, "message"), buf_steal(&message));
    answer_json(rq, status, &body);
}

void registry_refuse_error(struct request *rq, const char *not_found, const struct error *err)
{
    switch (err->code) {
    case ERR_NOT_FOUND:
        registry_refuse(rq, 404, not_found, "%s", err->message);
        break;
    case ERR_DIGEST:
        registry_refuse(rq, 400, "DIGEST_INVALID", "%s", err->message);
        break;
    case ERR_INVALID:
        registry_refuse(rq, 400, "MANIFEST_INVALID", "%s", err->message);
        break;
    case ERR_CONFLICT:
        registry_refuse(rq, 409, "BLOB_UPLOAD_INVALID", "%s", err->message);
        break;
    case ERR_TOO_LARGE:
        registry_refuse(rq, 413, "SIZE_INVALID", "%s", err->message);
        break;
    default:
        registry_refuse(rq, 500, "UNKNOWN", "%s", err->message);
        break;
    }
}

/* ---- which call ---- */

/* <name>/manifests/<ref>, <name>/blobs/<digest>, <name>/blobs/uploads/[<id>], <name>/tags/list,
 * <name>/referrers/<digest>: read from the end, since a component of a name may itself be "blobs".
 */
static enum registry_kind take_apart(const char *rest, char **name, const char **reference)
{
    size_t len = strlen(rest);
    const char *last = rest + len;

    if (len == 0)
        return REGISTRY_PING;
    if (strcmp(rest, "_catalog") == 0)
        return REGISTRY_CATALOG;
    while (last > rest && last[-1] != '/')
        last--;
    if (last <= rest + 1)
        return REGISTRY_UNKNOWN;
    const char *word = last - 1; /* the component before the last one: [word, last - 1) */
    while (word > rest && word[-1] != '/')
        word--;
    size_t word_len = (size_t)(last - 1 - word);
    *reference = last;
    const char *end = word; /* the name is [rest, end - 1) */
    enum registry_kind kind = REGISTRY_UNKNOWN;
    if (word_len == 7 && memcmp(word, "uploads", 7) == 0 && word - rest >= 7 &&
        memcmp(word - 6, "blobs/", 6) == 0) {
        kind = *last ? REGISTRY_UPLOAD : REGISTRY_UPLOADS;
        end = word - 6;
    } else if (word_len == 5 && memcmp(word, "blobs", 5) == 0) {
        kind = strcmp(last, "uploads") == 0 ? REGISTRY_UPLOADS : REGISTRY_BLOB;
    } else if (word_len == 9 && memcmp(word, "manifests", 9) == 0) {
        kind = REGISTRY_MANIFEST;
    } else if (word_len == 9 && memcmp(word, "referrers", 9) == 0) {
        kind = REGISTRY_REFERRERS;
    } else if (word_len == 4 && memcmp(word, "tags", 4) == 0 && strcmp(last, "list") == 0) {
        kind = REGISTRY_TAGS;
    }
    if (kind != REGISTRY_UNKNOWN && end > rest)
        *name = mem_strndup(rest, (size_t)(end - 1 - rest));
    return *name ? kind : REGISTRY_UNKNOWN;
}

static void refuse_method(struct request *rq)
{
    registry_refuse(rq, 405, "UNSUPPORTED", "%s is not possible here", rq->method);
}

static void begin(struct request *rq)
{
    struct registry_request *call = mem_alloc(sizeof *call);

    rq->local = call;
    answer_header(rq, "Docker-Distribution-API-Version", "registry/2.0");
    call->kind = take_apart(rq->rest, &call->name, &call->reference);
    if (call->kind == REGISTRY_UNKNOWN)
        registry_refuse(rq, 404, "UNSUPPORTED", "the registry has nothing at %s", rq->raw_path);
    else if (call->name && !store_name_valid(call->name))
        registry_refuse(rq, 400, "NAME_INVALID",
                        "'%s' is no repository name: lower-case letters, digits, '.', '_', '-' "
                        "between them, '/'",
                        call->name);
    else if (call->kind == REGISTRY_UPLOAD || call->kind == REGISTRY_UPLOADS)
        registry_upload_begin(rq);
}

static void data(struct request *rq, const void *bytes, size_t len)
{
    struct registry_request *call = rq->local;
    struct error err = {0};

    if (call->upload) {
        if (store_blob_write(call->upload, bytes, len, &err) < 0) {
            /* Half a chunk on a full disk would only keep it full. */
            store_blob_rewind(call->upload, call->size_before);
            registry_refuse_error(rq, "BLOB_UPLOAD_UNKNOWN", &err);
        }
    } else if (call->kind == REGISTRY_MANIFEST) {
        if (len > STORE_MANIFEST_LIMIT - rq->body.len)
            registry_refuse(rq, 413, "SIZE_INVALID", "a manifest may have up to %u bytes",
                            STORE_MANIFEST_LIMIT);
        else
            buf_append(&rq->body, bytes, len);
    }
}

void registry_page(struct request *rq, const char *key, const struct value *all)
{
    const struct registry_request *call = rq->local;
    const char *last = request_query(rq, "last"), *end = NULL;
    int64_t limit = request_query_int(rq, "n", MAX_PAGE, INT64_MAX), taken = 0;
    cleanup_value struct value body = {0};

    if (limit < 0) {
        registry_refuse(rq, 400, "PAGINATION_NUMBER_INVALID", "n must be a number");
        return;
    }
    if (limit > MAX_PAGE)
        limit = MAX_PAGE;
    value_set_map(&body);
    if (call->name)
        value_put_string(&body, "name", call->name);
    struct value *page = value_put(&body, key);
    value_set_array(page);
    for (size_t i = 0; i < value_count(all); i++) {
        const char *item = value_text(value_at(all, i), "");
        if (last && strcmp(item, last) <= 0)
            continue;
        if (taken == limit) {
            if (end)
                answer_headerf(rq, "Link", "<%s?n=%lld&last=%s>; rel=\"next\"", rq->raw_path,
                               (long long)limit, end);
            break;
        }
        value_push_string(page, item);
        end = item;
        taken++;
    }
    answer_json(rq, 200, &body);
}

static void tags(struct request *rq)
{
    const struct registry_request *call = rq->local;
    cleanup_value struct value all = {0};
    struct error err = {0};

    if (store_tags(registry_of(rq)->store, call->name, &all, &err) < 0)
        registry_refuse_error(rq, "NAME_UNKNOWN", &err);
    else
        registry_page(rq, "tags", &all);
}

static void catalog(struct request *rq)
{
    cleanup_value struct value all = {0};
    struct error err = {0};

    if (store_repositories(registry_of(rq)->store, &all, &err) < 0)
        registry_refuse_error(rq, "NAME_UNKNOWN", &err);
    else
        registry_page(rq, "repositories", &all);
}

static void handle(struct request *rq)
{
    const struct registry_request *call = rq->local;
    bool get = strcmp(rq->method, "GET") == 0 || strcmp(rq->method, "HEAD") == 0;

    switch (call->kind) {
    case REGISTRY_BLOB:
        registry_blob(rq);
        return;
    case REGISTRY_MANIFEST:
        registry_manifest(rq);
        return;
    case REGISTRY_UPLOAD:
    case REGISTRY_UPLOADS:
        registry_upload_finish(rq);
        return;
    default:
        break;
    }
    if (!get)
        refuse_method(rq);
    else if (call->kind == REGISTRY_PING)
        answer(rq, 200, "application/json", "{}", 2);
    else if (call->kind == REGISTRY_CATALOG)
        catalog(rq);
    else if (call->kind == REGISTRY_TAGS)
        tags(rq);
    else
        registry_referrers(rq);
}

static void end(struct request *rq)
{
    struct registry_request *call = rq->local;

    if (!call)
        return;
    if (call->upload && call->keep)
        store_blob_park(call->upload);
    else
        store_blob_abort(call->upload);
    free(call->name);
    free(call);
}

static void close_service(struct service *service)
{
    struct registry *registry = service->state;

    store_close(registry->store);
    free(registry->root);
    free(registry);
}

struct service *registry_open(const struct local_host *host, struct error *err)
{
    static const char *const prefixes[] = {"/v2/", NULL};
    struct registry *registry = mem_alloc(sizeof *registry);

    registry->service = (struct service){.name = "registry",
                                         .prefixes = prefixes,
                                         .begin = begin,
                                         .data = data,
                                         .handle = handle,
                                         .end = end,
                                         .close = close_service,
                                         .state = registry};
    registry->root = mem_printf("%s/registry", host->state);
    registry->store = store_open_at(registry->root, true, err);
    if (!registry->store) {
        close_service(&registry->service);
        return NULL;
    }
    return &registry->service;
}
