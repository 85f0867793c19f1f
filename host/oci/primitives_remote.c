/* registry.*: what talks to a registry. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/manifest.h"
#include "oci/primitives.h"
#include "oci/unpack_pull.h"

#define CONFIG_LIMIT (8u << 20)

struct store *cache_store(struct call *call, struct error *err)
{
    cleanup_free char *root = path_join(call_state_dir(call), "cache/oci");

    return store_open_at(root, false, err);
}

int script_reference(struct call *call, const char *text, struct image_reference *out,
                     struct error *err)
{
    cleanup_free char *host = remote_default_host(call);
    cleanup_free char *prefix = image_reference_has_host(text) ? NULL : remote_default_prefix(call);
    cleanup_free char *whole = mem_printf("%s%s%s", prefix ? prefix : "", prefix ? "/" : "", text);

    return image_reference_parse(whole, host, out, err);
}

static const char *ref_of(const struct image_reference *reference)
{
    return reference->digest ? reference->digest : reference->tag;
}

/* Without a net, what was pulled or built before will do; a registry that says "no" is believed. */
static int fetch_kept(struct call *call, struct store *store,
                      const struct image_reference *reference, bool asked,
                      const struct error *problem, struct digest *digest, struct error *err)
{
    cleanup_free char *cache_name = image_reference_cache_name(reference);
    bool nobody = problem->code == ERR_UNAVAILABLE ||
                  (strcmp(reference->host, LOCAL_REGISTRY) == 0 && problem->code == ERR_NOT_FOUND);

    if (nobody &&
        store_manifest_get(store, cache_name, ref_of(reference), NULL, NULL, digest, NULL) == 0) {
        if (asked && problem->code == ERR_UNAVAILABLE)
            call_log(call, "warning", "%s does not answer; using the copy of %s in the build cache",
                     reference->host, reference->name);
        return 0;
    }
    if (err)
        *err = *problem;
    return -1;
}

/* *asked: there was a registry to ask. */
static int fetch_watched(struct call *call, struct store *store,
                         const struct image_reference *reference,
                         const struct pull_watcher *watcher, bool *asked, struct digest *digest,
                         struct error *err)
{
    cleanup_free char *cache_name = image_reference_cache_name(reference);
    cleanup_remote struct remote *remote = remote_new(call, reference->host, err);

    *asked = remote != NULL;
    return remote ? remote_pull(remote, store, reference->name, ref_of(reference), cache_name,
                                watcher, digest, err)
                  : -1;
}

int fetch_image(struct call *call, struct store *store, const struct image_reference *reference,
                struct digest *digest, struct error *err)
{
    struct error problem = {0};
    bool asked;

    return fetch_watched(call, store, reference, NULL, &asked, digest, &problem) == 0
               ? 0
               : fetch_kept(call, store, reference, asked, &problem, digest, err);
}

/* The remote and the parsed argument `ref` of a call. */
static struct remote *remote_of(struct call *call, const struct value *args, const char *key,
                                struct image_reference *reference, struct error *err)
{
    if (script_reference(call, value_get_string(args, key, ""), reference, err) != 0)
        return NULL;
    return remote_new(call, reference->host, err);
}

/* registry.reference(ref) -> { ref, host, name, tag, digest }: what a reference means under the
 * active profile. */
int prim_registry_reference(struct call *call, const struct value *args, struct value *out,
                            struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};

    if (script_reference(call, value_get_string(args, "ref", ""), &reference, err) != 0)
        return -1;
    value_set_map(out);
    value_take_string(value_put(out, "ref"), image_reference_text(&reference));
    value_put_string(out, "host", reference.host);
    value_put_string(out, "name", reference.name);
    value_put_string(out, "tag", reference.tag);
    value_put_string(out, "digest", reference.digest);
    return 0;
}

int push_image(struct remote *remote, struct store *store, const char *digest,
               const struct image_reference *reference, const struct value *from, bool whole,
               struct value *out, struct error *err)
{
    struct image_reference tagged = {
        .host = reference->host, .name = reference->name, .tag = reference->tag};
    struct push_result result;

    if (!reference->tag)
        return error_set(err, ERR_USAGE, "a push needs a tag, not only a digest: %s/%s@%s",
                         reference->host, reference->name, reference->digest);
    if ((whole ? remote_push_whole : remote_push)(remote, store, digest, reference->name,
                                                  reference->tag, from, &result, err) != 0)
        return -1;
    value_set_map(out);
    value_put_string(out, "digest", result.digest.text);
    value_put_bool(out, "skipped", result.skipped);
    value_put_int(out, "blobs", (int64_t)result.blobs);
    value_put_int(out, "sent", (int64_t)result.sent);
    value_put_int(out, "bytes", (int64_t)result.bytes);
    value_take_string(value_put(out, "ref"), image_reference_text(&tagged));
    return 0;
}

/*
 * registry.push(digest, ref, from?, all?) -> { ref, digest, skipped, blobs, sent, bytes }
 *
 * The image with that digest in the build cache goes to ref. skipped: the tag named this image
 * already. from: a repository of the same registry whose blobs may be mounted instead of sent.
 * all: an index goes with all of its images.
 */
int prim_registry_push(struct call *call, const struct value *args, struct value *out,
                       struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_remote struct remote *remote =
        store ? remote_of(call, args, "ref", &reference, err) : NULL;
    cleanup_value struct value from = {0};

    if (!remote)
        return -1;
    value_set_array(&from);
    if (value_get(args, "from"))
        value_push_string(&from, value_get_string(args, "from", ""));
    return push_image(remote, store, value_get_string(args, "digest", ""), &reference, &from,
                      value_get_bool(args, "all", false), out, err);
}

/* registry.pull(ref, all?) -> { ref, digest }: all of the image into the build cache, checked. all:
 * the images of all platforms, where ref names an index. */
int prim_registry_pull(struct call *call, const struct value *args, struct value *out,
                       struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_remote struct remote *remote =
        store ? remote_of(call, args, "ref", &reference, err) : NULL;
    struct digest digest;

    if (!remote)
        return -1;
    cleanup_free char *cache_name = image_reference_cache_name(&reference);
    int status = value_get_bool(args, "all", false)
                     ? remote_pull_whole(remote, store, reference.name, ref_of(&reference),
                                         cache_name, &digest, err)
                     : remote_pull(remote, store, reference.name, ref_of(&reference), cache_name,
                                   NULL, &digest, err);
    if (status != 0)
        return -1;
    value_set_map(out);
    value_take_string(value_put(out, "ref"), image_reference_text(&reference));
    value_put_string(out, "digest", digest.text);
    return 0;
}

/* registry.exists(ref) -> digest, or nil when the registry has no such tag. */
int prim_registry_exists(struct call *call, const struct value *args, struct value *out,
                         struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_remote struct remote *remote = remote_of(call, args, "ref", &reference, err);
    struct digest digest;

    int there =
        remote ? remote_resolve(remote, reference.name, ref_of(&reference), &digest, err) : -1;
    if (there > 0)
        value_set_string(out, digest.text);
    return there < 0 ? -1 : 0;
}

/* registry.manifest(ref) -> { ref, digest, media_type, manifest }: manifest or index, as data. */
int prim_registry_manifest(struct call *call, const struct value *args, struct value *out,
                           struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_remote struct remote *remote = remote_of(call, args, "ref", &reference, err);
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_free char *media_type = NULL;
    cleanup_value struct value manifest = {0};
    struct digest digest;

    if (!remote ||
        remote_manifest(remote, reference.name, ref_of(&reference), &text, &media_type, &digest,
                        err) != 0 ||
        oci_manifest_parse(text.data ? text.data : "", text.len, reference.name, &manifest, err) !=
            0)
        return -1;
    value_set_map(out);
    value_take_string(value_put(out, "ref"), image_reference_text(&reference));
    value_put_string(out, "digest", digest.text);
    value_put_string(out, "media_type", media_type);
    value_move(value_put(out, "manifest"), &manifest);
    return 0;
}

static int read_blob(struct remote *remote, const char *name, const char *digest, struct buf *out,
                     struct error *err)
{
    cleanup_free char *url = mem_printf("/v2/%s/blobs/%s", name, digest);
    cleanup_free char *scope = mem_printf("repository:%s:pull", name);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;
    struct digest sum;

    request.url = url;
    request.follow = true;
    request.reply_limit = CONFIG_LIMIT;
    if (remote_send(remote, scope, &request, &response, err) != 0)
        return -1;
    if (response.status != 200)
        return remote_refused(remote, &request, &response, digest, err);
    digest_bytes(response.body.data, response.body.len, &sum);
    if (strcmp(sum.text, digest) != 0)
        return error_set(err, ERR_DIGEST,
                         "%s/%s: the blob that came has the digest %s, it should have %s",
                         remote->host, name, sum.text, digest);
    buf_append(out, response.body.data, response.body.len);
    return 0;
}

/* registry.inspect(ref) -> { ref, digest, config, layers, size, created, architecture }: without
 * pulling layers. */
int prim_registry_inspect(struct call *call, const struct value *args, struct value *out,
                          struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_remote struct remote *remote = remote_of(call, args, "ref", &reference, err);
    cleanup_free char *wanted = mem_strdup(remote ? ref_of(&reference) : "");
    cleanup_value struct value manifest = {0};
    cleanup_value struct value config = {0};
    cleanup_buf struct buf blob = BUF_INIT;
    struct digest digest;

    if (!remote)
        return -1;
    for (int level = 0;; level++) {
        cleanup_buf struct buf text = BUF_INIT;
        if (remote_manifest(remote, reference.name, wanted, &text, NULL, &digest, err) != 0 ||
            oci_manifest_parse(text.data ? text.data : "", text.len, reference.name, &manifest,
                               err) != 0)
            return -1;
        if (!oci_is_index(&manifest))
            break;
        const struct value *descriptor =
            level < 4 ? oci_index_pick(&manifest, reference.name, err) : NULL;
        if (!descriptor)
            return -1;
        char *next = mem_strdup(value_get_string(descriptor, "digest", ""));
        free(wanted);
        wanted = next;
        value_free(&manifest);
    }
    if (read_blob(remote, reference.name,
                  value_get_string(value_get(&manifest, "config"), "digest", ""), &blob,
                  err) != 0 ||
        value_from_json(blob.data ? blob.data : "", blob.len, "image config", NULL, &config, err) !=
            0)
        return -1;
    value_set_map(out);
    value_take_string(value_put(out, "ref"), image_reference_text(&reference));
    value_put_string(out, "digest", digest.text);
    value_put_string(out, "created", value_get_string(&config, "created", NULL));
    value_put_string(out, "architecture", value_get_string(&config, "architecture", NULL));
    int64_t size = 0;
    const struct value *layers = value_get(&manifest, "layers");
    for (size_t i = 0; i < value_count(layers); i++)
        size += value_get_int(value_at(layers, i), "size", 0);
    value_put_int(out, "size", size);
    value_copy(value_put(out, "layers"), layers);
    const struct value *inner = value_get(&config, "config");
    if (inner)
        value_copy(value_put(out, "config"), inner);
    return 0;
}

/* registry.unpack(ref, to) -> { digest }: the image's files in a new or empty folder. */
int prim_registry_unpack(struct call *call, const struct value *args, struct value *out,
                         struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_free char *to = call_path(call, value_get_string(args, "to", ""), ACCESS_WRITE, err);
    struct unpack_options options = {.deadline = call->deadline, .cancel = call->cancel};
    struct error problem = {0};
    struct digest digest;
    bool asked;

    if (!store || !to ||
        script_reference(call, value_get_string(args, "ref", ""), &reference, err) != 0)
        return -1;
    struct unpack_pull *unpack = unpack_pull_new(store, to, &options);
    int fetched = fetch_watched(call, store, &reference, unpack_pull_watcher(unpack), &asked,
                                &digest, &problem);
    int unpacked = unpack_pull_wait(unpack, fetched == 0, err);
    unpack_pull_free(unpack);
    if (unpacked < 0 ||
        (fetched != 0 && fetch_kept(call, store, &reference, asked, &problem, &digest, err) != 0) ||
        (unpacked == 0 && oci_unpack(store, digest.text, to, &options, err) != 0))
        return -1;
    value_set_map(out);
    value_put_string(out, "digest", digest.text);
    return 0;
}
