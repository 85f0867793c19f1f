/* To a registry: blobs that it lacks, then the manifest. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/manifest.h"
#include "oci/remote.h"
#include "oci/remote_upload.h"
#include "oci/workers.h"

#define BLOB_ATTEMPTS   3
#define KNOWN_MANIFESTS 256 /* that are looked through for repositories to mount from */

struct push {
    struct remote *remote;
    struct store *store;
    const char *name;
    const struct value *from;
    struct value known; /* where blobs may be besides: digest -> repository */
    char *scope, *label;
    const struct value **blobs; /* descriptors */
    int64_t total;
    _Atomic int64_t done;
    atomic_size_t sent;
    _Atomic uint64_t bytes;
};

/* ---- where a blob may be already ---- */

/* The repositories of this registry that images of the build cache came from or went to: digest of
 * a blob -> name. A base image's layers are mounted from there instead of being sent. */
static void know_repositories(struct push *push)
{
    struct image_reference host = {.host = push->remote->host, .name = (char[]){"x"}};
    cleanup_free char *sample = image_reference_cache_name(&host);
    cleanup_value struct value names = {0};
    size_t prefix = strlen(sample), left = KNOWN_MANIFESTS;

    value_set_map(&push->known);
    if (prefix < 2 || store_repositories(push->store, &names, NULL) != 0)
        return;
    prefix -= 1;
    for (size_t i = 0; i < value_count(&names) && left; i++) {
        const char *cached = value_text(value_at(&names, i), "");
        cleanup_value struct value manifests = {0};
        if (strncmp(cached, sample, prefix) != 0 || strcmp(cached + prefix, push->name) == 0 ||
            store_manifests(push->store, cached, &manifests, NULL) != 0)
            continue;
        for (size_t k = 0; k < value_count(&manifests) && left; k++, left--) {
            cleanup_buf struct buf text = BUF_INIT;
            cleanup_value struct value manifest = {0};
            if (store_blob_read(push->store, value_text(value_at(&manifests, k), ""),
                                STORE_MANIFEST_LIMIT, &text, NULL) != 0 ||
                oci_manifest_parse(text.data, text.len, cached, &manifest, NULL) != 0)
                continue;
            const struct value *layers = value_get(&manifest, "layers");
            for (size_t n = 0; n < value_count(layers); n++)
                value_put_string(&push->known, value_get_string(value_at(layers, n), "digest", ""),
                                 cached + prefix);
        }
    }
}

/* The repository to mount a blob from, or NULL: what the caller named, else what the cache knows.
 */
static const char *mount_source(const struct push *push, const char *digest)
{
    const char *from = value_text(value_at(push->from, 0), NULL);

    if (!from)
        from = value_get_string(&push->known, digest, NULL);
    return from && strcmp(from, push->name) != 0 ? from : NULL;
}

struct meter {
    struct push *push;
    int64_t seen;
};

static void on_progress(void *ctx, int64_t sent, int64_t send_total, int64_t got, int64_t get_total)
{
    struct meter *meter = ctx;

    (void)send_total, (void)got, (void)get_total;
    int64_t delta = sent - meter->seen;
    meter->seen = sent;
    int64_t done = atomic_fetch_add(&meter->push->done, delta) + delta;
    if (delta)
        call_progress(meter->push->remote->call, meter->push->label, done, meter->push->total, "B");
}

static char *what_blob(const struct push *push, const char *digest)
{
    return mem_printf("%s/%s: blob %s", push->remote->host, push->name, digest);
}

/* 1 there, 0 not, -1. */
static int has_blob(struct push *push, const char *digest, struct error *err)
{
    cleanup_free char *url = mem_printf("/v2/%s/blobs/%s", push->name, digest);
    cleanup_free char *what = what_blob(push, digest);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    request.method = "HEAD";
    request.url = url;
    request.follow = true;
    if (remote_send(push->remote, push->scope, &request, &response, err) != 0)
        return error_wrap(err, "%s", what);
    if (response.status == 200)
        return 1;
    return response.status == 404 ? 0
                                  : remote_refused(push->remote, &request, &response, what, err);
}

static int send_blob(struct push *push, const char *digest, struct remote_upload *upload, int fd,
                     uint64_t size, struct error *err)
{
    struct meter meter = {.push = push};

    if (remote_upload_file(push->remote, push->name, upload, digest, fd, size, on_progress, &meter,
                           err) != 0) {
        atomic_fetch_sub(&push->done, meter.seen);
        return -1;
    }
    atomic_fetch_add(&push->done, (int64_t)size - meter.seen);
    return 0;
}

static int push_once(struct push *push, const struct value *descriptor, struct error *err)
{
    const char *digest = value_get_string(descriptor, "digest", "");
    cleanup_upload struct remote_upload upload = {0};
    uint64_t size;

    int there = has_blob(push, digest, err);
    if (there != 0) {
        atomic_fetch_add(&push->done, value_get_int(descriptor, "size", 0));
        return there < 0 ? -1 : 0;
    }
    int mounted = remote_upload_begin(push->remote, push->name, digest, mount_source(push, digest),
                                      &upload, err);
    if (mounted != 0) {
        atomic_fetch_add(&push->done, value_get_int(descriptor, "size", 0));
        return mounted < 0 ? -1 : 0;
    }
    cleanup_close int fd = store_blob_open(push->store, digest, &size, err);
    if (fd < 0) {
        error_hint(err, "the build cache is not complete: build or pull the image again");
        return -1;
    }
    if (send_blob(push, digest, &upload, fd, size, err) != 0) {
        /* What the registry has of it is of no use to anybody. */
        remote_upload_cancel(push->remote, push->name, &upload);
        return -1;
    }
    atomic_fetch_add(&push->sent, 1);
    atomic_fetch_add(&push->bytes, size);
    return 0;
}

static int push_blob(void *ctx, size_t index, struct error *err)
{
    struct push *push = ctx;
    struct error problem = {0};

    for (int attempt = 1;; attempt++) {
        problem = (struct error){0};
        if (push_once(push, push->blobs[index], &problem) == 0)
            return 0;
        /* What the client has repeated already, as often as it makes sense, is not repeated here.
         */
        bool again = problem.retryable || problem.code == ERR_UNAVAILABLE;
        if (attempt == BLOB_ATTEMPTS || !again || cancelled(push->remote->call->cancel) ||
            deadline_passed(push->remote->call->deadline))
            break;
    }
    if (err)
        *err = problem;
    return -1;
}

/* *noted: the registry has taken its subject into its list of referrers. */
static int put_manifest(struct push *push, const char *ref, const struct buf *text,
                        const char *media_type, const char *digest, bool *noted, struct error *err)
{
    cleanup_free char *url = mem_printf("/v2/%s/manifests/%s", push->name, ref);
    cleanup_free char *what = mem_printf("%s/%s:%s", push->remote->host, push->name, ref);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    request.method = "PUT";
    request.url = url;
    request.body = text->data;
    request.body_len = text->len;
    http_header_add(&request.headers, "Content-Type", media_type);
    int status = remote_send(push->remote, push->scope, &request, &response, err);
    http_headers_free(&request.headers);
    if (status != 0)
        return error_wrap(err, "%s", what);
    if (response.status != 201 && response.status != 200)
        return remote_refused(push->remote, &request, &response, what, err);
    *noted = http_header_get(&response.headers, "OCI-Subject") != NULL;
    const char *stored = http_header_get(&response.headers, "Docker-Content-Digest");
    if (stored && digest_valid(stored) && strcmp(stored, digest) != 0) {
        error_set(err, ERR_DIGEST, "%s: the registry stored the manifest as %s, it was %s", what,
                  stored, digest);
        return error_hint(
            err,
            "a proxy or the registry rewrites manifests: images pushed this way cannot be trusted");
    }
    return 0;
}

static int push_blobs(struct push *push, const struct value *manifest, struct error *err)
{
    const struct value *layers = value_get(manifest, "layers");
    cleanup_free const struct value **blobs = mem_alloc((value_count(layers) + 1) * sizeof *blobs);
    size_t count = 0;

    for (size_t i = 0; i <= value_count(layers); i++) {
        const struct value *descriptor =
            i ? value_at(layers, i - 1) : value_get(manifest, "config");
        const char *digest = value_get_string(descriptor, "digest", "");
        bool twice = value_get(descriptor, "urls") != NULL; /* layers of elsewhere stay there */
        for (size_t k = 0; k < count && !twice; k++)
            twice = strcmp(value_get_string(blobs[k], "digest", ""), digest) == 0;
        if (twice)
            continue;
        blobs[count++] = descriptor;
        push->total += value_get_int(descriptor, "size", 0);
    }
    push->blobs = blobs;
    return workers_run(count, push_blob, push, err);
}

static int push_document(struct push *push, const char *digest, const char *ref, int level,
                         struct push_result *out, struct error *err)
{
    cleanup_value struct value manifest = {0};
    cleanup_buf struct buf text = BUF_INIT;

    if (level > LEVELS_MAX)
        return error_set(err, ERR_INVALID, "%s: too many nested indexes", digest);
    if (store_blob_read(push->store, digest, STORE_MANIFEST_LIMIT, &text, err) != 0 ||
        oci_manifest_parse(text.data ? text.data : "", text.len, digest, &manifest, err) != 0)
        return -1;
    const struct value *children = value_get(&manifest, "manifests");
    bool index = oci_is_index(&manifest);
    for (size_t i = 0; index && i < value_count(children); i++) {
        const char *child = value_get_string(value_at(children, i), "digest", "");
        if (push_document(push, child, child, level + 1, out, err) != 0)
            return -1;
    }
    if (!index) {
        out->blobs += value_count(value_get(&manifest, "layers")) + 1;
        if (push_blobs(push, &manifest, err) != 0)
            return -1;
    }
    const char *type = value_get_string(&manifest, "mediaType", index ? OCI_INDEX : OCI_MANIFEST);
    bool noted = false;
    if (put_manifest(push, ref, &text, type, digest, &noted, err) != 0)
        return -1;
    return !noted && value_get(&manifest, "subject")
               ? remote_note_referrer(push->remote, push->name, &manifest, digest, text.len, err)
               : 0;
}

/* How many blobs an image has: nothing but a number to show. */
static size_t count_blobs(struct store *store, const char *digest)
{
    cleanup_value struct value manifest = {0};

    return oci_manifest_load(store, digest, &manifest, NULL, NULL) == 0
               ? value_count(value_get(&manifest, "layers")) + 1
               : 0;
}

int remote_push_whole(struct remote *remote, struct store *store, const char *digest,
                      const char *name, const char *tag, const struct value *from,
                      struct push_result *out, struct error *err)
{
    struct digest there;

    *out = (struct push_result){0};
    memcpy(out->digest.text, digest, strlen(digest) + 1);
    int known = remote_resolve(remote, name, tag, &there, err);
    if (known < 0)
        return -1;
    if (known && strcmp(there.text, digest) == 0) {
        out->skipped = true;
        out->blobs = count_blobs(store, digest);
        return 0;
    }
    struct push push = {.remote = remote,
                        .store = store,
                        .name = name,
                        .from = from,
                        .scope = mem_printf("repository:%s:pull,push", name),
                        .label = mem_printf("push %s:%s", name, tag)};
    know_repositories(&push);
    int status = push_document(&push, digest, tag, 0, out, err);
    out->sent = push.sent;
    out->bytes = push.bytes;
    value_free(&push.known);
    free(push.scope);
    free(push.label);
    return status;
}

int remote_push(struct remote *remote, struct store *store, const char *digest, const char *name,
                const char *tag, const struct value *from, struct push_result *out,
                struct error *err)
{
    cleanup_value struct value manifest = {0};
    struct digest own;

    if (oci_manifest_load(store, digest, &manifest, &own, err) != 0)
        return -1;
    return remote_push_whole(remote, store, own.text, name, tag, from, out, err);
}
