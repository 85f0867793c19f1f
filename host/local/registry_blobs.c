/*
 * Blobs and uploads. Blobs are shared by all repositories of the store, so a mount is a look
 * whether the blob is there; DELETE takes it from the repository, and from the disk when no other
 * one has a manifest that names it (store_blob_forget).
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
    struct store *store = registry_of(rq)->store;
    cleanup_close int fd = store_blob_in(store, registry_request_of(rq)->name, digest, NULL)
                               ? store_blob_open(store, digest, &size, &err)
                               : error_set(&err, ERR_NOT_FOUND, "blob %s is not here", digest);

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

    if (!digest_kind(digest))
        registry_refuse(rq, 400, "DIGEST_INVALID", "'%s' is no digest: " REGISTRY_DIGESTS, digest);
    else if (strcmp(rq->method, "GET") == 0 || strcmp(rq->method, "HEAD") == 0)
        get_blob(rq, digest);
    else if (strcmp(rq->method, "DELETE") != 0)
        registry_refuse(rq, 405, "UNSUPPORTED", "%s is not possible for a blob", rq->method);
    else if (store_blob_forget(registry_of(rq)->store, registry_request_of(rq)->name, digest,
                               &err) < 0)
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

/* "a-b", both included; "bytes a-b/c", as HTTP has it, too. */
static bool chunk_range(const char *range, uint64_t *from, uint64_t *to)
{
    char *end;

    if (strncmp(range, "bytes ", 6) == 0)
        range += 6;
    if (!isdigit((unsigned char)*range))
        return false;
    *from = strtoull(range, &end, 10);
    if (*end != '-' || !isdigit((unsigned char)end[1]))
        return false;
    *to = strtoull(end + 1, &end, 10);
    return (*end == '\0' || *end == '/') && *to >= *from && *to < INT64_MAX;
}

/* A chunk must begin where the upload ends, and have the length that it says. */
static void check_range(struct request *rq)
{
    struct registry_request *call = rq->local;
    const char *range = request_header(rq, "Content-Range");
    uint64_t size = store_upload_size(call->upload), from, to;

    if (!range)
        return;
    if (chunk_range(range, &from, &to) && from == size &&
        (rq->length == LENGTH_UNKNOWN || rq->length == to - from + 1)) {
        call->ranged = true;
        call->range_end = to + 1;
        return;
    }
    upload_headers(rq, call->upload);
    registry_refuse(rq, 416, "BLOB_UPLOAD_INVALID",
                    "the chunk '%s' does not begin at byte %llu, or has another length", range,
                    (unsigned long long)size);
}

/* The same for a body whose length was not known before. What came stays: the client asks for the
 * status of the upload and goes on from there. */
static bool chunk_complete(struct request *rq)
{
    const struct registry_request *call = rq->local;

    if (!call->ranged || store_upload_size(call->upload) == call->range_end)
        return true;
    upload_headers(rq, call->upload);
    registry_refuse(rq, 416, "BLOB_UPLOAD_INVALID", "the chunk was to end at byte %llu, not %llu",
                    (unsigned long long)call->range_end,
                    (unsigned long long)store_upload_size(call->upload));
    return false;
}

static bool digest_given(struct request *rq)
{
    const char *digest = request_query(rq, "digest");

    if (digest_kind(digest))
        return true;
    registry_refuse(rq, 400, "DIGEST_INVALID", "?digest=%s: " REGISTRY_DIGESTS " is needed",
                    digest ? digest : "");
    return false;
}

/* With which algorithm the content is going to be named: ?digest=, else ?digest-algorithm=.
 * DIGEST_NONE after having answered. */
static enum digest_kind algorithm_given(struct request *rq)
{
    const char *digest = request_query(rq, "digest"),
               *algorithm = request_query(rq, "digest-algorithm");

    if (digest)
        return digest_given(rq) ? digest_kind(digest) : DIGEST_NONE;
    if (!algorithm || strcmp(algorithm, "sha256") == 0)
        return DIGEST_SHA256;
    if (strcmp(algorithm, "sha512") == 0)
        return DIGEST_SHA512;
    registry_refuse(rq, 400, "DIGEST_INVALID", "?digest-algorithm=%s: sha256 or sha512", algorithm);
    return DIGEST_NONE;
}

/* A blob that another repository has becomes one of this one, too. Without `from` any will do. */
static bool mount_blob(struct request *rq)
{
    struct store *store = registry_of(rq)->store;
    const char *digest = request_query(rq, "mount"), *from = request_query(rq, "from");

    if (!digest_kind(digest) || (from && !store_name_valid(from)) ||
        !(from ? store_blob_in(store, from, digest, NULL) : store_blob_exists(store, digest, NULL)))
        return false;
    store_blob_claim(store, registry_request_of(rq)->name, digest);
    created(rq, digest);
    return true;
}

void registry_upload_begin(struct request *rq)
{
    struct registry_request *call = rq->local;
    struct store *store = registry_of(rq)->store;
    struct error err = {0};

    if (call->kind == REGISTRY_UPLOADS) {
        if (strcmp(rq->method, "POST") != 0) {
            registry_refuse(rq, 405, "UNSUPPORTED", "an upload starts with POST");
        } else if (!mount_blob(rq)) {
            enum digest_kind kind = algorithm_given(rq);
            if (kind != DIGEST_NONE)
                call->upload = store_blob_begin_as(store, kind, &err);
            if (kind != DIGEST_NONE && !call->upload)
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
        call->size_before = store_upload_size(call->upload);
        check_range(rq);
    }
}

static void commit(struct request *rq)
{
    struct registry_request *call = rq->local;
    struct digest digest;
    struct error err = {0};

    if (store_blob_commit(steal_ptr(&call->upload), request_query(rq, "digest"), &digest, &err) < 0)
        registry_refuse_error(rq, "BLOB_UPLOAD_UNKNOWN", &err);
    else {
        store_blob_claim(registry_of(rq)->store, call->name, digest.text);
        created(rq, digest.text);
    }
}

void registry_upload_finish(struct request *rq)
{
    struct registry_request *call = rq->local;

    if (!chunk_complete(rq))
        return;
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
