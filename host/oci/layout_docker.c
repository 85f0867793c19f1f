/*
 * The archives of `docker save`: manifest.json names the config and the layers, which are tar
 * archives without compression. manifest.json stands where it likes, so the archive is read twice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/build.h"
#include "oci/inflate.h"
#include "oci/layer.h"
#include "oci/layout_tar.h"
#include "oci/manifest.h"
#include "oci/tree.h"

#define CONFIG_LIMIT (8u << 20)
#define LAYERS_MAX   10000

struct reading {
    const struct layout *layout;
    struct buf manifest; /* manifest.json */
    struct value links;  /* path -> where a link leads */
    struct value layers; /* path -> { digest, size, diff_id }, or true: wanted */
    struct buf config;
    const char *config_path;
};

static int to_buffer(void *ctx, const void *data, size_t len, struct error *err)
{
    (void)err;
    buf_append(ctx, data, len);
    return 0;
}

static int to_layer(void *ctx, const void *data, size_t len, struct error *err)
{
    return layer_raw(ctx, data, len, err);
}

static int look(void *ctx, struct archive *archive, const struct layout_entry_info *entry,
                struct error *err)
{
    struct reading *reading = ctx;

    if (entry->link) {
        /* Old archives have one layer once and links to it: relative to the link's folder. */
        const char *slash = strrchr(entry->path, '/');
        cleanup_free char *from =
            mem_printf("%.*s/%s", slash ? (int)(slash - entry->path) : 0, entry->path, entry->link);
        value_take_string(value_put(&reading->links, entry->path), tree_clean(from));
        return 0;
    }
    if (!entry->file || strcmp(entry->path, "manifest.json") != 0)
        return 0;
    buf_clear(&reading->manifest);
    return layout_tar_data(reading->layout, archive, STORE_MANIFEST_LIMIT, to_buffer,
                           &reading->manifest, err);
}

/* "app:1" is also what it is called with Docker Hub in front. */
static bool same_tag(const char *there, const char *wanted)
{
    static const char *const hub[] = {"", "docker.io/library/", "docker.io/"};

    for (size_t i = 0; i < sizeof hub / sizeof *hub; i++)
        if (strncmp(there, hub[i], strlen(hub[i])) == 0 &&
            strcmp(there + strlen(hub[i]), wanted) == 0)
            return true;
    return false;
}

/* The entry of manifest.json for the tag. */
static const struct value *pick(const struct layout *layout, const struct value *list,
                                struct error *err)
{
    cleanup_buf struct buf have = BUF_INIT;

    for (size_t i = 0; i < value_count(list); i++) {
        const struct value *tags = value_get(value_at(list, i), "RepoTags");
        if (!layout->tag && value_count(list) == 1)
            return value_at(list, i);
        for (size_t k = 0; k < value_count(tags); k++) {
            const char *tag = value_text(value_at(tags, k), "");
            if (layout->tag && same_tag(tag, layout->tag))
                return value_at(list, i);
            buf_printf(&have, "%s%.100s", have.len ? ", " : "", tag);
        }
    }
    if (layout->tag)
        error_set(err, ERR_NOT_FOUND, "there is no image '%s' in it", layout->tag);
    else
        error_set(err, ERR_NOT_FOUND, "%zu images are in it: say which", value_count(list));
    error_hint(err, "it has: %s", have.len ? have.data : "no tags");
    return NULL;
}

static const char *behind_link(const struct reading *reading, const char *path)
{
    return value_get_string(&reading->links, path, path);
}

static int take_layer(struct reading *reading, struct archive *archive, const char *path,
                      struct error *err)
{
    struct layer_result result;
    struct layer *layer = layer_new(reading->layout->store, 0, NULL, err);

    if (!layer)
        return -1;
    if (layout_tar_data(reading->layout, archive, UINT64_MAX, to_layer, layer, err) != 0) {
        layer_drop(layer);
        return -1;
    }
    if (layer_finish(layer, &result, err) != 0)
        return -1;
    struct value *slot = value_put(&reading->layers, path);
    value_set_map(slot);
    value_put_string(slot, "mediaType", OCI_LAYER_GZIP);
    value_put_string(slot, "digest", result.digest.text);
    value_put_int(slot, "size", (int64_t)result.size);
    value_put_string(slot, "diff_id", result.diff_id.text);
    return 0;
}

static int take(void *ctx, struct archive *archive, const struct layout_entry_info *entry,
                struct error *err)
{
    struct reading *reading = ctx;
    const struct value *wanted = value_get(&reading->layers, entry->path);

    if (!entry->file)
        return 0;
    if (strcmp(entry->path, reading->config_path) == 0) {
        buf_clear(
            &reading->config); /* an archive may hold it more than once: the last one counts */
        return layout_tar_data(reading->layout, archive, CONFIG_LIMIT, to_buffer, &reading->config,
                               err);
    }
    return wanted && wanted->kind == VALUE_BOOL ? take_layer(reading, archive, entry->path, err)
                                                : 0;
}

/* The layers in order, each what the config says that it is. */
static int collect(const struct reading *reading, const struct value *names,
                   const struct value *config, struct value *out, struct error *err)
{
    const struct value *ids = value_path(config, "rootfs.diff_ids");

    value_set_array(out);
    if (value_count(ids) != value_count(names))
        return error_set(err, ERR_INVALID, "the config has %zu diff ids, manifest.json %zu layers",
                         value_count(ids), value_count(names));
    for (size_t i = 0; i < value_count(names); i++) {
        cleanup_free char *name = tree_clean(value_text(value_at(names, i), ""));
        const struct value *layer = value_get(&reading->layers, behind_link(reading, name));
        if (!layer || layer->kind != VALUE_MAP)
            return error_set(err, ERR_INVALID, "its layer %.200s is not in it", name);
        if (strcmp(value_get_string(layer, "diff_id", ""), value_text(value_at(ids, i), "")) != 0)
            return error_set(err, ERR_DIGEST, "layer %zu is %s, the config says %s", i + 1,
                             value_get_string(layer, "diff_id", ""),
                             value_text(value_at(ids, i), ""));
        struct value *to = value_push(out);
        value_set_map(to);
        value_put_string(to, "mediaType", OCI_LAYER_GZIP);
        value_put_string(to, "digest", value_get_string(layer, "digest", ""));
        value_put_int(to, "size", value_get_int(layer, "size", 0));
    }
    return 0;
}

/* The config stays byte for byte: its digest is the image's id. */
static int put_image(const struct reading *reading, const struct value *layers,
                     struct digest *digest, struct error *err)
{
    cleanup_value struct value manifest = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct digest config;

    if (store_blob_put(reading->layout->store, reading->config.data, reading->config.len, &config,
                       err) != 0)
        return -1;
    value_set_map(&manifest);
    value_put_int(&manifest, "schemaVersion", 2);
    value_put_string(&manifest, "mediaType", OCI_MANIFEST);
    struct value *descriptor = value_put(&manifest, "config");
    value_set_map(descriptor);
    value_put_string(descriptor, "mediaType", OCI_CONFIG);
    value_put_string(descriptor, "digest", config.text);
    value_put_int(descriptor, "size", (int64_t)reading->config.len);
    value_copy(value_put(&manifest, "layers"), layers);
    value_to_json(&manifest, 0, &text);
    return store_blob_put(reading->layout->store, text.data, text.len, digest, err);
}

static int read_image(struct reading *reading, const struct value *image, struct digest *digest,
                      struct error *err)
{
    const struct value *names = value_get(image, "Layers");
    cleanup_free char *config_path = tree_clean(value_get_string(image, "Config", ""));
    cleanup_value struct value config = {0}, layers = {0};

    if (!*config_path || value_count(names) > LAYERS_MAX)
        return error_set(err, ERR_INVALID, "manifest.json names no config, or too many layers");
    reading->config_path = behind_link(reading, config_path);
    for (size_t i = 0; i < value_count(names); i++) {
        cleanup_free char *name = tree_clean(value_text(value_at(names, i), ""));
        value_put_bool(&reading->layers, behind_link(reading, name), true);
    }
    if (layout_tar_each(reading->layout, take, reading, err) != 0)
        return -1;
    if (!reading->config.len)
        return error_set(err, ERR_INVALID, "its config %.200s is not in it", config_path);
    if (value_from_json(reading->config.data, reading->config.len, config_path, NULL, &config,
                        err) != 0 ||
        collect(reading, names, &config, &layers, err) != 0)
        return -1;
    return put_image(reading, &layers, digest, err);
}

int layout_read_docker(const struct layout *layout, struct digest *digest, struct error *err)
{
    struct reading reading = {.layout = layout, .manifest = BUF_INIT, .config = BUF_INIT};
    cleanup_value struct value list = {0};

    value_set_map(&reading.links);
    value_set_map(&reading.layers);
    int status = layout_tar_each(layout, look, &reading, err);
    if (status == 0 && !reading.manifest.len)
        status = error_set(err, ERR_INVALID, "there is no manifest.json in it");
    if (status == 0)
        status = value_from_json(reading.manifest.data, reading.manifest.len, "manifest.json", NULL,
                                 &list, err);
    const struct value *image = status == 0 ? pick(layout, &list, err) : NULL;
    status = image ? read_image(&reading, image, digest, err) : -1;
    buf_free(&reading.manifest);
    buf_free(&reading.config);
    value_free(&reading.links);
    value_free(&reading.layers);
    return status;
}

/* ---- writing ---- */

/* A layer without its compression, whose size must be known before it is written. */
static int give_layer(const struct layout *layout, struct archive *archive, const char *digest,
                      const char *path, struct error *err)
{
    const void *data;
    ssize_t got;

    cleanup_close int from = store_blob_open(layout->store, digest, NULL, err);
    cleanup_close int spool = from < 0 ? -1 : store_scratch(layout->store, err);
    if (spool < 0)
        return -1;
    struct inflater *inflater = inflater_new(from, false);
    while ((got = inflater_next(inflater, &data, err)) > 0)
        if (layout_go_on(layout, err) != 0 || fd_write_all(spool, data, (size_t)got, err) != 0) {
            got = -1;
            break;
        }
    uint64_t size = inflater_total(inflater);
    inflater_free(inflater);
    if (got < 0)
        return error_wrap(err, "layer %s", digest);
    lseek(spool, 0, SEEK_SET);
    return layout_tar_file(layout, archive, path, spool, size, err);
}

static int give_image(const struct layout *layout, struct archive *archive,
                      const struct value *manifest, const struct value *ids, struct error *err)
{
    const struct value *layers = value_get(manifest, "layers");
    cleanup_value struct value list = {0}, given = {0};
    cleanup_buf struct buf config = BUF_INIT, text = BUF_INIT;
    const char *config_digest = value_get_string(value_get(manifest, "config"), "digest", "");

    if (store_blob_read(layout->store, config_digest, CONFIG_LIMIT, &config, err) != 0)
        return -1;
    cleanup_free char *config_path = mem_printf("%s.json", config_digest + strlen("sha256:"));
    value_set_array(&list);
    value_set_map(&given);
    struct value *entry = value_push(&list);
    value_set_map(entry);
    value_put_string(entry, "Config", config_path);
    struct value *tags = value_put(entry, "RepoTags");
    value_set_array(tags);
    if (layout->tag)
        value_push_string(tags, layout->tag);
    struct value *names = value_put(entry, "Layers");
    value_set_array(names);
    int status = layout_tar_text(archive, config_path, config.data, config.len, err);
    for (size_t i = 0; status == 0 && i < value_count(layers); i++) {
        const char *id = value_text(value_at(ids, i), "sha256:");
        cleanup_free char *path = mem_printf("%s.tar", id + strlen("sha256:"));
        value_push_string(names, path);
        if (value_get(&given, path)) /* the same layer twice is one file */
            continue;
        value_put_bool(&given, path, true);
        status = give_layer(layout, archive, value_get_string(value_at(layers, i), "digest", ""),
                            path, err);
    }
    value_to_json(&list, 0, &text);
    return status == 0 ? layout_tar_text(archive, "manifest.json", text.data, text.len, err) : -1;
}

int layout_write_docker(const struct layout *layout, const char *digest, struct error *err)
{
    cleanup_value struct value manifest = {0}, config = {0};

    if (oci_manifest_load(layout->store, digest, &manifest, NULL, err) != 0 ||
        oci_config_load(layout->store, &manifest, &config, err) != 0)
        return -1;
    struct archive *archive = layout_tar_begin(layout, err);
    if (!archive)
        return -1;
    int status =
        give_image(layout, archive, &manifest, value_path(&config, "rootfs.diff_ids"), err);
    return layout_tar_end(archive, status, err);
}
