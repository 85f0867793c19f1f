#include "oci/image_layer.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/context.h"
#include "oci/inflate.h"
#include "oci/tar_read.h"
#include "oci/tree.h"

static int go_on(const struct image_layer *spec, struct error *err)
{
    if (cancelled(spec->cancel))
        return error_set(err, ERR_CANCELLED, "making the layer was cancelled");
    if (spec->deadline && deadline_passed(spec->deadline))
        return error_set(err, ERR_TIMEOUT, "making the layer took too long");
    return 0;
}

static int copy_stream(const struct image_layer *spec, struct inflater *from, struct layer *to,
                       struct error *err)
{
    const void *data;
    ssize_t got;

    while ((got = inflater_next(from, &data, err)) > 0)
        if (go_on(spec, err) != 0 || layer_raw(to, data, (size_t)got, err) != 0)
            return -1;
    return got < 0 ? -1 : 0;
}

int image_layer_tar(const struct image_layer *spec, int fd, const char *name,
                    struct layer_result *out, struct error *err)
{
    if (!tar_is_archive(fd)) {
        error_set(err, ERR_INVALID, "%s is no tar archive", name);
        return error_hint(err,
                          "a layer is made of a folder, or of a tar archive: plain, .gz, .zst");
    }
    struct layer *layer = layer_new(spec->store, spec->epoch, spec->watcher, err);
    if (!layer)
        return -1;
    struct inflater *inflater = inflater_new(fd, false);
    int status = copy_stream(spec, inflater, layer, err);
    inflater_free(inflater);
    if (status != 0) {
        layer_drop(layer);
        return error_wrap(err, "%s", name);
    }
    return layer_finish(layer, out, err);
}

static int add_folders(struct layer *layer, const char *path, struct error *err)
{
    for (const char *slash = path; *path; slash++) {
        if (*slash && *slash != '/')
            continue;
        cleanup_free char *folder = mem_strndup(path, (size_t)(slash - path));
        const struct layer_entry entry = {.path = folder, .mode = S_IFDIR | 0755, .fd = -1};
        if (layer_add(layer, &entry, err) != 0)
            return -1;
        if (!*slash)
            break;
    }
    return 0;
}

static int add_file(struct layer *layer, const struct context *context,
                    const struct context_file *file, const char *to, struct error *err)
{
    cleanup_free char *path = *to ? mem_printf("%s/%s", to, file->path) : mem_strdup(file->path);
    bool wide = S_ISDIR(file->mode) || file->mode & 0111;
    struct layer_entry entry = {.path = path,
                                .mode = (file->mode & S_IFMT) | (wide ? 0755 : 0644),
                                .link = file->link,
                                .fd = -1};
    struct stat st;

    if (S_ISLNK(file->mode))
        entry.mode = S_IFLNK | 0777;
    if (!S_ISREG(file->mode))
        return layer_add(layer, &entry, err);
    cleanup_close int fd = context_open(context, file->path, err);
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) < 0)
        return error_set(err, ERR_IO, "cannot read %s", file->path);
    entry.fd = fd;
    entry.size = (uint64_t)st.st_size;
    return layer_add(layer, &entry, err);
}

int image_layer_folder(const struct image_layer *spec, const char *folder, const char *to,
                       struct layer_result *out, struct error *err)
{
    cleanup_free char *prefix = tree_clean(to ? to : "");
    struct context *context = context_list(folder, NULL, err);
    struct layer *layer = context ? layer_new(spec->store, spec->epoch, spec->watcher, err) : NULL;
    int status = layer ? add_folders(layer, prefix, err) : -1;

    if (layer)
        layer_until(layer, spec->deadline, spec->cancel);
    for (size_t i = 0; status == 0 && i < context->count; i++)
        status = add_file(layer, context, &context->files[i], prefix, err);
    context_free(context);
    if (status == 0)
        return layer_finish(layer, out, err);
    layer_drop(layer);
    return -1;
}
