/* registry.collect: what no image needs any more goes from the machine. */
#include "base/mem.h"
#include "oci/primitives.h"
#include "oci/store_gc.h"

static void put_count(struct value *out, const char *key, const struct store_gc_count *count)
{
    struct value *v = value_put(out, key);

    value_set_map(v);
    value_put_int(v, "count", (int64_t)count->count);
    value_put_int(v, "bytes", (int64_t)count->bytes);
}

static void put_store(struct value *out, const char *key, const struct store_gc_result *result)
{
    struct value *v = value_put(out, key);

    value_set_map(v);
    put_count(v, "manifests", &result->manifests);
    put_count(v, "blobs", &result->blobs);
    put_count(v, "uploads", &result->uploads);
    put_count(v, "layers", &result->layers);
    put_count(v, "kept", &result->kept);
    put_count(v, "young", &result->young);
}

static void each(void *ctx, const char *kind, const char *name, uint64_t bytes)
{
    call_log(ctx, "debug", "%s %s, %llu bytes", kind, name, (unsigned long long)bytes);
}

/* registry.collect(dry_run?, untagged?, grace?) -> { registry, cache, images, bytes }. It takes
 * nothing that something leads to, so any script may. */
int prim_registry_collect(struct call *call, const struct value *args, struct value *out,
                          struct error *err)
{
    struct store_gc_options options = {
        .grace_s = value_get_int(args, "grace", STORE_GC_GRACE_S),
        .untagged = value_get_bool(args, "untagged", false),
        .dry_run = value_get_bool(args, "dry_run", false),
        .cancel = call->cancel,
        .deadline = call->deadline,
        .each = each,
        .ctx = call,
    };
    struct image_gc_result result;

    if (options.grace_s < 0) {
        error_set(err, ERR_USAGE, "grace: %lld seconds", (long long)options.grace_s);
        return error_hint(err, "how long what nothing needs stays, e.g. grace = 3600");
    }
    if (image_gc(call_state_dir(call), &options, &result, err) != 0)
        return -1;
    const struct store_gc_result *const stores[] = {&result.registry, &result.cache};
    uint64_t bytes = result.images.bytes;
    for (size_t i = 0; i < 2; i++)
        bytes += stores[i]->blobs.bytes + stores[i]->uploads.bytes + stores[i]->layers.bytes;
    value_set_map(out);
    put_store(out, "registry", &result.registry);
    put_store(out, "cache", &result.cache);
    put_count(out, "images", &result.images);
    value_put_int(out, "bytes", (int64_t)bytes);
    return 0;
}
