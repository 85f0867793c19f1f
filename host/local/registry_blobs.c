/*
 * Blobs and uploads. Blobs are shared by all repositories of the store, so a mount is a look
 * whether the blob is there, and DELETE of a blob takes it from all of them.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "local/registry.h"

/* ---- blobs ---- */

/* bytes=a-b, a- or -n of `size` bytes: 1 and the range; 0 when the header is none of these (the
 * whole is sent); -1 when nothing of it is there. */
static int read_range(const char *header, uint64_t size, uint64_t *from, uint64_t *len)
{
    char *end;

    if (!header || strncmp(header, "bytes=", 6) != 0 || strchr(header, ','))
        return 0;
    header += 6;
    if (*header == '-' && isdigit((unsigned char)header[1])) {
        uint64_t n = strtoull(header + 1, &end, 10);
        if (*end)
            return 0;
        if (n == 0 || size == 0)
            return -1;
        *len = n < size ? n : size;
        *from = size - *len;
        return 1;
    }
    if (!isdigit((unsigned char)*header))
        return 0;
    uint64_t first = strtoull(header, &end, 10), to = UINT64_MAX;
    if (*end != '-')
        return 0;
    if (end[1]) {
        if (!isdigit((unsigned char)end[1]))
            return 0;
        to = strtoull(end + 1, &end, 10);
        if (*end || to < first)
            return 0;
    }
    if (first >= size)
        return -1;
    if (to >= size)
        to = size - 1;
    *from = first;
    *len = to - first + 1;
    return 1;
}

static void get_blob(struct request *rq, const char *digest)
{
    struct error err = {0};
    uint64_t size, from = 0, len;
    cleanup_close int fd = store_blob_open(registry_of(rq)->store, digest, &size, &err);

    if (fd < 0) {
        registry_refuse_error(rq, "BLOB_UNKNOWN", &err);
        return;
    }
    len = size;
    int range = strcmp(rq->method, "GET") == 0
                    ? read_range(request_header(rq, "Range"), size, &from, &len)
                    : 0;
    answer_header(rq, "Accept-Ranges", "bytes");
    if (range < 0) {
        answer_headerf(rq, "Content-Range", "bytes */%llu", (unsigned long long)size);
        registry_refuse(rq, 416, "SIZE_INVALID", "the blob has %llu bytes",
                        (unsigned long long)size);
        return;
    }
    answer_header(rq, "Docker-Content-Digest", digest);
    answer_headerf(rq, "ETag", "\"%s\"", digest);
    if (range)
        answer_headerf(rq, "Content-Range", "bytes %llu-%llu/%llu", (unsigned long long)from,
                       (unsigned long long)(from + len - 1), (unsigned long long)size);
    answer_file(rq, range ? 206 : 200, "application/octet-stream", steal_fd(&fd), from, len);
}

void registry_blob(struct request *rq)
{
    const char *digest = registry_request_of(rq)->reference;
    struct error err = {0};

    if (!digest_valid(digest))
        registry_refuse(rq, 400, "DIGEST_INVALID",
                        "'%s' is no digest: sha256:<64 lower-case hexadecimal digits>", digest);
    else if (strcmp(rq->method, "GET") == 0 || strcmp(rq->method, "HEAD") == 0)
        get_blob(rq, digest);
    else if (strcmp(rq->method, "DELETE") != 0)
        registry_refuse(rq, 405, "UNSUPPORTED", "%s is not possible for a blob", rq->method);
    else if (store_blob_delete(registry_of(rq)->store, digest, &err) < 0)
        registry_refuse_error(rq, "BLOB_UNKNOWN", &err);
    else
        answer(rq, 202, NULL, "", 0);
}

/* ---- uploads ---- */

static void created(struct request *rq, const char *digest)
{
    answer_headerf(rq, "Location", "/v2/%s/blobs/%s", registry_request_of(rq)->name, digest);
    answer_header(rq, "Docker-Content-Digest", digest);
    answer(rq, 201, NULL, "", 0);
}

/* Location and Range of an upload that goes on; "0-0" is what registries say of an empty one. */
static void upload_headers(struct request *rq, const struct upload *upload)
{
    uint64_t size = store_upload_size(upload);

    answer_headerf(rq, "Location", "/v2/%s/blobs/uploads/%s", registry_request_of(rq)->name,
                   store_upload_id(upload));
    answer_headerf(rq, "Range", "0-%llu", (unsigned long long)(size ? size - 1 : 0));
    answer_header(rq, "Docker-Upload-UUID", store_upload_id(upload));
}

/* A chunk must begin where the upload ends. */
static bool range_fits(struct request *rq, const struct upload *upload)
{
    const char *range = request_header(rq, "Content-Range");
    char *end;

    if (!range)
        return true;
    if (strncmp(range, "bytes ", 6) == 0)
        range += 6;
    uint64_t from = strtoull(range, &end, 10);
    uint64_t to = *end == '-' ? strtoull(end + 1, NULL, 10) : 0;
    if (isdigit((unsigned char)*range) && *end == '-' && from == store_upload_size(upload) &&
        (rq->length == LENGTH_UNKNOWN || rq->length == to - from + 1))
        return true;
    upload_headers(rq, upload);
    registry_refuse(rq, 416, "BLOB_UPLOAD_INVALID",
                    "the chunk '%s' does not begin at byte %llu, or has another length", range,
                    (unsigned long long)store_upload_size(upload));
    return false;
}

static bool digest_given(struct request *rq)
{
    const char *digest = request_query(rq, "digest");

    if (digest && digest_valid(digest))
        return true;
    registry_refuse(rq, 400, "DIGEST_INVALID",
                    "?digest=%s: sha256:<64 lower-case hexadecimal digits> is needed",
                    digest ? digest : "");
    return false;
}

void registry_upload_begin(struct request *rq)
{
    struct registry_request *call = rq->local;
    struct store *store = registry_of(rq)->store;
    const char *mount = request_query(rq, "mount");
    struct error err = {0};

    if (call->kind == REGISTRY_UPLOADS) {
        if (strcmp(rq->method, "POST") != 0) {
            registry_refuse(rq, 405, "UNSUPPORTED", "an upload starts with POST");
        } else if (mount && digest_valid(mount) && store_blob_exists(store, mount, NULL)) {
            created(rq, mount);
        } else if (!request_query(rq, "digest") || digest_given(rq)) {
            call->upload = store_blob_begin(store, &err);
            if (!call->upload)
                registry_refuse_error(rq, "BLOB_UPLOAD_UNKNOWN", &err);
        }
        return;
    }
    bool patch = strcmp(rq->method, "PATCH") == 0, put = strcmp(rq->method, "PUT") == 0;
    if (!patch && !put && strcmp(rq->method, "GET") != 0 && strcmp(rq->method, "DELETE") != 0) {
        registry_refuse(rq, 405, "UNSUPPORTED", "%s is not possible for an upload", rq->method);
        return;
    }
    if (put && !digest_given(rq))
        return;
    call->keep = true;
    call->upload = store_blob_resume(store, call->reference, &err);
    if (!call->upload) {
        if (err.code == ERR_INVALID)
            err.code = ERR_NOT_FOUND;
        registry_refuse_error(rq, "BLOB_UPLOAD_UNKNOWN", &err);
    } else if (patch || put) {
        range_fits(rq, call->upload);
    }
}

static void commit(struct request *rq)
{
    struct registry_request *call = rq->local;
    struct digest digest;
    struct error err = {0};

    if (store_blob_commit(steal_ptr(&call->upload), request_query(rq, "digest"), &digest, &err) < 0)
        registry_refuse_error(rq, "BLOB_UPLOAD_UNKNOWN", &err);
    else
        created(rq, digest.text);
}

void registry_upload_finish(struct request *rq)
{
    struct registry_request *call = rq->local;

    if (strcmp(rq->method, "PUT") == 0 ||
        (call->kind == REGISTRY_UPLOADS && request_query(rq, "digest"))) {
        commit(rq);
    } else if (strcmp(rq->method, "DELETE") == 0) {
        store_blob_abort(steal_ptr(&call->upload));
        answer(rq, 204, NULL, "", 0);
    } else {
        /* The next request may come before this one's end is seen: let go of the upload first. */
        upload_headers(rq, call->upload);
        store_blob_park(steal_ptr(&call->upload));
        answer(rq, strcmp(rq->method, "GET") == 0 ? 204 : 202, NULL, "", 0);
    }
}
