/* registry.*: images from and to files, and indexes. What lua/registry/copy.lua is made of. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/layout.h"
#include "oci/manifest.h"
#include "oci/primitives.h"

#define IMAGES_MAX 1000

static int kind_of(const char *name, enum layout_kind *kind, struct error *err)
{
    static const char *const names[] = {[LAYOUT_FOLDER] = "oci",
                                        [LAYOUT_ARCHIVE] = "oci-archive",
                                        [LAYOUT_DOCKER] = "docker-archive"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0) {
            *kind = (enum layout_kind)i;
            return 0;
        }
    return error_set(err, ERR_USAGE,
                     "'%s' is no kind of layout: oci, oci-archive or docker-archive", name);
}

/* Everything but the descriptor. */
static int begin(struct call *call, const struct value *args, struct store *store,
                 struct layout *layout, struct error *err)
{
    *layout = (struct layout){.store = store,
                              .fd = -1,
                              .name = value_get_string(args, "path", ""),
                              .tag = value_get_string(args, "tag", NULL),
                              .deadline = call->deadline,
                              .cancel = call->cancel};
    return kind_of(value_get_string(args, "kind", ""), &layout->kind, err);
}

/* registry.read_layout(kind, path, tag?) -> { digest }: an image of a layout into the build cache.
 * digest: of the manifest or index that it names. */
int prim_registry_read_layout(struct call *call, const struct value *args, struct value *out,
                              struct error *err)
{
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_free char *path =
        store ? call_path(call, value_get_string(args, "path", ""), ACCESS_READ, err) : NULL;
    struct layout layout;
    struct digest digest;

    if (!path || begin(call, args, store, &layout, err) != 0)
        return -1;
    bool folder = layout.kind == LAYOUT_FOLDER;
    cleanup_close int fd = call_open(path, O_RDONLY | (folder ? O_DIRECTORY : 0), 0, err);
    if (fd < 0)
        return -1;
    layout.fd = fd;
    if (layout_read(&layout, &digest, err) != 0)
        return -1;
    value_set_map(out);
    value_put_string(out, "digest", digest.text);
    return 0;
}

/* A new archive beside the old one, which it replaces once it is whole. */
static int write_archive(struct layout *layout, const char *path, const char *digest,
                         struct error *err)
{
    cleanup_free char *part = mem_printf("%s.part", path);
    cleanup_close int fd = call_open(part, O_WRONLY | O_CREAT | O_TRUNC, 0644, err);

    if (fd < 0)
        return -1;
    layout->fd = fd;
    if (layout_write(layout, digest, err) == 0 && rename(part, path) == 0)
        return 0;
    if (err && !err->code)
        error_errno(err, errno, "cannot rename %s", part);
    unlink(part);
    return -1;
}

static int write_folder(struct layout *layout, const char *path, const char *digest,
                        struct error *err)
{
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return error_errno(err, errno, "cannot make the folder %s", layout->name);
    cleanup_close int fd = call_open(path, O_RDONLY | O_DIRECTORY, 0, err);
    if (fd < 0)
        return -1;
    layout->fd = fd;
    return layout_write(layout, digest, err);
}

/* registry.write_layout(digest, kind, path, tag?): an image of the build cache into a layout. */
int prim_registry_write_layout(struct call *call, const struct value *args, struct value *out,
                               struct error *err)
{
    const char *digest = value_get_string(args, "digest", "");
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_free char *path =
        store ? call_path(call, value_get_string(args, "path", ""), ACCESS_WRITE, err) : NULL;
    struct layout layout;

    if (!path || begin(call, args, store, &layout, err) != 0)
        return -1;
    if ((layout.kind == LAYOUT_FOLDER ? write_folder : write_archive)(&layout, path, digest, err) !=
        0)
        return -1;
    value_set_map(out);
    value_put_string(out, "digest", digest);
    return 0;
}

static int add_image(struct store *store, const char *digest, struct value *list, struct error *err)
{
    cleanup_value struct value manifest = {0}, config = {0};
    static const char *const keys[] = {"architecture", "os", "variant", "os.version"};
    struct digest own;
    uint64_t size;

    if (oci_manifest_load(store, digest, &manifest, &own, err) != 0 ||
        oci_config_load(store, &manifest, &config, err) != 0)
        return -1;
    store_blob_exists(store, own.text, &size);
    struct value *entry = value_push(list);
    value_set_map(entry);
    value_put_string(entry, "mediaType", value_get_string(&manifest, "mediaType", OCI_MANIFEST));
    value_put_string(entry, "digest", own.text);
    value_put_int(entry, "size", (int64_t)size);
    struct value *platform = value_put(entry, "platform");
    value_set_map(platform);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        value_put_string(platform, keys[i], value_get_string(&config, keys[i], NULL));
    return 0;
}

/* registry.compose_index(images, annotations?) -> { digest, manifest }: an index of images of the
 * build cache, which their digests name, each with the platform of its config. */
int prim_registry_compose_index(struct call *call, const struct value *args, struct value *out,
                                struct error *err)
{
    const struct value *images = value_get(args, "images"),
                       *annotations = value_get(args, "annotations");
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_value struct value index = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct digest digest;

    if (!store)
        return -1;
    if (value_count(images) > IMAGES_MAX)
        return error_set(err, ERR_TOO_LARGE, "an index of %zu images", value_count(images));
    value_set_map(&index);
    value_put_int(&index, "schemaVersion", 2);
    value_put_string(&index, "mediaType", OCI_INDEX);
    struct value *list = value_put(&index, "manifests");
    value_set_array(list);
    for (size_t i = 0; i < value_count(images); i++)
        if (add_image(store, value_text(value_at(images, i), ""), list, err) != 0)
            return -1;
    if (value_count(annotations))
        value_copy(value_put(&index, "annotations"), annotations);
    value_to_json(&index, 0, &text);
    if (store_blob_put(store, text.data, text.len, &digest, err) != 0)
        return -1;
    value_set_map(out);
    value_put_string(out, "digest", digest.text);
    value_move(value_put(out, "manifest"), &index);
    return 0;
}
