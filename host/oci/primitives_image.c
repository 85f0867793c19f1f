/* registry.*: images as data, and layers of one's own. What lua/registry/edit.lua is made of. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/build.h"
#include "oci/image_export.h"
#include "oci/image_layer.h"
#include "oci/manifest.h"
#include "oci/inflate.h"
#include "oci/primitives.h"
#include "oci/remote_stream.h"

#define LAYERS_MAX 10000

/* registry.load(ref? | digest?) -> { ref, digest, manifest, config }: an image in the build cache,
 * with its manifest and its whole config as data. ref is fetched; digest is there already. */
int prim_registry_load(struct call *call, const struct value *args, struct value *out,
                       struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_value struct value manifest = {0}, config = {0};
    const char *ref = value_get_string(args, "ref", NULL),
               *known = value_get_string(args, "digest", NULL);
    struct digest digest, own;

    if (!store)
        return -1;
    if (!ref == !known)
        return error_set(err, ERR_USAGE, "registry.load: either ref or digest is needed");
    if (ref && (script_reference(call, ref, &reference, err) != 0 ||
                fetch_image(call, store, &reference, &digest, err) != 0))
        return -1;
    if (oci_manifest_load(store, known ? known : digest.text, &manifest, &own, err) != 0 ||
        oci_config_load(store, &manifest, &config, err) != 0)
        return -1;
    value_set_map(out);
    if (ref)
        value_take_string(value_put(out, "ref"), image_reference_text(&reference));
    value_put_string(out, "digest", own.text);
    value_move(value_put(out, "manifest"), &manifest);
    value_move(value_put(out, "config"), &config);
    return 0;
}

static void describe(const struct layer_result *layer, struct value *out)
{
    value_set_map(out);
    value_put_string(out, "mediaType", OCI_LAYER_GZIP);
    value_put_string(out, "digest", layer->digest.text);
    value_put_int(out, "size", (int64_t)layer->size);
    value_put_string(out, "diff_id", layer->diff_id.text);
}

static int begin(struct call *call, struct store *store, struct image_layer *spec,
                 struct error *err)
{
    bool given;

    *spec =
        (struct image_layer){.store = store, .deadline = call->deadline, .cancel = call->cancel};
    return build_epoch(NULL, &spec->epoch, &given, err);
}

/* A repository that gets a layer while it is made. */
struct receiver {
    struct image_reference reference;
    struct remote *remote;
    struct remote_streams *streams; /* NULL: nobody */
};

static int receiver_begin(struct receiver *receiver, struct call *call, const char *ref,
                          struct error *err)
{
    if (!ref)
        return 0;
    if (script_reference(call, ref, &receiver->reference, err) != 0)
        return -1;
    receiver->remote = remote_new(call, receiver->reference.host, err);
    if (!receiver->remote)
        return -1;
    receiver->streams = remote_streams_new(receiver->remote, receiver->reference.name);
    return 0;
}

static void receiver_end(struct receiver *receiver)
{
    remote_streams_free(receiver->streams); /* which waits */
    remote_free(receiver->remote);
    image_reference_free(&receiver->reference);
}
#define cleanup_receiver __attribute__((cleanup(receiver_end)))

/* registry.layer(path, to?, push?) -> { mediaType, digest, size, diff_id }: a folder, or a tar
 * archive, as a layer in the build cache. push: a reference, whose repository gets it on the way.
 * to: where a folder's files go in the image; an archive names its places itself. */
int prim_registry_layer(struct call *call, const struct value *args, struct value *out,
                        struct error *err)
{
    const char *given = value_get_string(args, "path", ""),
               *to = value_get_string(args, "to", NULL);
    cleanup_free char *path = call_path(call, given, ACCESS_READ, err);
    cleanup_store struct store *store = path ? cache_store(call, err) : NULL;
    cleanup_receiver struct receiver receiver = {0};
    struct image_layer spec;
    struct layer_result layer;
    struct stat st;

    if (!store || begin(call, store, &spec, err) != 0 ||
        receiver_begin(&receiver, call, value_get_string(args, "push", NULL), err) != 0)
        return -1;
    if (receiver.streams)
        spec.watcher = remote_streams_watcher(receiver.streams);
    cleanup_close int fd = call_open(path, O_RDONLY, 0, err);
    if (fd < 0)
        return -1;
    bool folder = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
    if ((folder ? image_layer_folder(&spec, path, to, &layer, err)
                : image_layer_tar(&spec, fd, given, &layer, err)) != 0)
        return -1;
    describe(&layer, out);
    return 0;
}

/* An image of the build cache, as export wants it. */
static int open_image(struct call *call, struct store *store, const char *digest,
                      struct value *manifest, struct image_export *spec, struct error *err)
{
    if (oci_manifest_load(store, digest, manifest, NULL, err) != 0)
        return -1;
    *spec = (struct image_export){.store = store,
                                  .layers = value_get(manifest, "layers"),
                                  .deadline = call->deadline,
                                  .cancel = call->cancel};
    return 0;
}

/* registry.export(digest, to) -> { bytes }: the files of an image of the build cache, as a
 * container would see them, in one tar archive. */
int prim_registry_export(struct call *call, const struct value *args, struct value *out,
                         struct error *err)
{
    cleanup_free char *to = call_path(call, value_get_string(args, "to", ""), ACCESS_WRITE, err);
    cleanup_store struct store *store = to ? cache_store(call, err) : NULL;
    cleanup_value struct value manifest = {0};
    struct image_export spec;
    struct stat st;

    if (!store ||
        open_image(call, store, value_get_string(args, "digest", ""), &manifest, &spec, err) != 0)
        return -1;
    cleanup_close int fd = call_open(to, O_WRONLY | O_CREAT | O_TRUNC, 0644, err);
    if (fd < 0 || image_export(&spec, fd, err) != 0)
        return -1;
    value_set_map(out);
    value_put_int(out, "bytes", fstat(fd, &st) == 0 ? st.st_size : 0);
    return 0;
}

/* registry.squash(digest) -> { mediaType, digest, size, diff_id }: one layer that holds what all
 * layers of an image of the build cache add up to. */
int prim_registry_squash(struct call *call, const struct value *args, struct value *out,
                         struct error *err)
{
    const char *digest = value_get_string(args, "digest", "");
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_value struct value manifest = {0};
    struct image_export from;
    struct image_layer spec;
    struct layer_result layer;

    if (!store || begin(call, store, &spec, err) != 0 ||
        open_image(call, store, digest, &manifest, &from, err) != 0)
        return -1;
    cleanup_close int fd = store_scratch(store, err);
    if (fd < 0 || image_export(&from, fd, err) != 0)
        return -1;
    lseek(fd, 0, SEEK_SET);
    if (image_layer_tar(&spec, fd, digest, &layer, err) != 0)
        return -1;
    describe(&layer, out);
    return 0;
}

static int check_layer(struct store *store, const char *digest, const char *diff_id,
                       struct error *err)
{
    struct digest file, stream;

    cleanup_close int fd = store_blob_open(store, digest, NULL, err);
    if (fd < 0)
        return -1;
    struct inflater *inflater = inflater_new(fd, true);
    int status = inflater_finish(inflater, &file, &stream, err);
    inflater_free(inflater);
    if (status != 0)
        return error_wrap(err, "layer %s", digest);
    if (strcmp(file.text, digest) != 0)
        return error_set(err, ERR_DIGEST, "layer %s: its bytes are %s", digest, file.text);
    return strcmp(stream.text, diff_id) == 0
               ? 0
               : error_set(err, ERR_DIGEST, "layer %s: its diff id is %s, the config says %s",
                           digest, stream.text, diff_id);
}

/* registry.verify(digest) -> { layers, bytes }: reads an image of the build cache again: every blob
 * has its digest, every layer its diff id. */
int prim_registry_verify(struct call *call, const struct value *args, struct value *out,
                         struct error *err)
{
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_value struct value manifest = {0}, config = {0};
    int64_t bytes = 0;

    if (!store ||
        oci_manifest_load(store, value_get_string(args, "digest", ""), &manifest, NULL, err) != 0 ||
        oci_config_load(store, &manifest, &config, err) != 0)
        return -1;
    const struct value *layers = value_get(&manifest, "layers"),
                       *ids = value_path(&config, "rootfs.diff_ids");
    for (size_t i = 0; i < value_count(layers); i++) {
        const struct value *layer = value_at(layers, i);
        if (cancelled(call->cancel))
            return error_set(err, ERR_CANCELLED, "checking was cancelled");
        if (check_layer(store, value_get_string(layer, "digest", ""),
                        value_text(value_at(ids, i), ""), err) != 0)
            return -1;
        bytes += value_get_int(layer, "size", 0);
    }
    value_set_map(out);
    value_put_int(out, "layers", (int64_t)value_count(layers));
    value_put_int(out, "bytes", bytes);
    return 0;
}

/* A list of layers as a script may give it: only what a descriptor has, all of it in the store. */
static int take_layers(struct store *store, const struct value *given, struct value *out,
                       struct error *err)
{
    value_set_array(out);
    if (value_count(given) > LAYERS_MAX)
        return error_set(err, ERR_TOO_LARGE, "an image of %zu layers", value_count(given));
    for (size_t i = 0; i < value_count(given); i++) {
        const struct value *from = value_at(given, i);
        const char *digest = value_get_string(from, "digest", "");
        uint64_t size;
        if (!store_blob_exists(store, digest, &size))
            return error_set(err, ERR_NOT_FOUND, "layer %zu, %.80s, is not in the build cache",
                             i + 1, digest);
        struct value *to = value_push(out);
        value_set_map(to);
        value_put_string(to, "mediaType", value_get_string(from, "mediaType", OCI_LAYER_GZIP));
        value_put_string(to, "digest", digest);
        value_put_int(to, "size", (int64_t)size);
        if (value_get(from, "annotations"))
            value_copy(value_put(to, "annotations"), value_get(from, "annotations"));
    }
    return 0;
}

/* registry.compose(config, layers, annotations?) -> { digest, config, size, layers }: an image in
 * the build cache of a whole config and layers that are there. */
int prim_registry_compose(struct call *call, const struct value *args, struct value *out,
                          struct error *err)
{
    const struct value *config = value_get(args, "config");
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_value struct value layers = {0};
    struct build_result result;

    if (!store || take_layers(store, value_get(args, "layers"), &layers, err) != 0)
        return -1;
    size_t ids = value_count(value_path(config, "rootfs.diff_ids"));
    if (ids != value_count(&layers))
        return error_set(err, ERR_USAGE, "the config has %zu diff ids, the image %zu layers", ids,
                         value_count(&layers));
    if (build_write_image(store, config, &layers, value_get(args, "annotations"), &result, err) !=
        0)
        return -1;
    value_set_map(out);
    value_put_string(out, "digest", result.manifest.text);
    value_put_string(out, "config", result.config.text);
    value_put_int(out, "layers", (int64_t)result.layers);
    value_put_int(out, "size", (int64_t)result.size);
    return 0;
}

/* registry.platform() -> { os, architecture } */
int prim_registry_platform(struct call *call, const struct value *args, struct value *out,
                           struct error *err)
{
    (void)call, (void)args, (void)err;
    value_set_map(out);
    value_put_string(out, "os", "linux");
    value_put_string(out, "architecture", oci_architecture());
    return 0;
}
