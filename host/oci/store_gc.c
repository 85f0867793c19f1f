#include "oci/store_gc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/build_cache.h"
#include "oci/store_internal.h"
#include "oci/store_mark.h"

struct gc {
    struct store *store;
    const struct store_gc_options *options;
    struct store_gc_result *out;
    time_t cutoff;          /* what was used after that stays */
    struct path_set needed; /* digests */
};

int store_gc_stopped(const struct store_gc_options *options, struct error *err)
{
    if (cancelled(options->cancel))
        return error_set(err, ERR_CANCELLED, "the collection was cancelled; what is gone is gone");
    if (options->deadline && deadline_passed(options->deadline))
        return error_set(err, ERR_TIMEOUT,
                         "the time for the collection is over; what is gone is gone");
    return 0;
}

static void tell(const struct gc *gc, struct store_gc_count *count, const char *kind,
                 const char *name, uint64_t bytes)
{
    count->count++;
    count->bytes += bytes;
    if (gc->options->each)
        gc->options->each(gc->options->ctx, kind, name, bytes);
}

/* ---- which manifests stay ---- */

struct node {
    char *digest;
    struct path_set names; /* what it names, its subject included */
    uint64_t size;
    bool kept;
};

struct repository {
    struct node *nodes;
    size_t count;
};

static void repository_free(struct repository *repository)
{
    for (size_t i = 0; i < repository->count; i++) {
        free(repository->nodes[i].digest);
        path_set_free(&repository->nodes[i].names);
    }
    free(repository->nodes);
}
#define cleanup_repository __attribute__((cleanup(repository_free)))

static char *marker_path(const char *name, const char *digest)
{
    return mem_printf("repositories/%s/_manifests/%s", name, digest + 7);
}

static int load(const struct gc *gc, const char *name, struct repository *out, struct error *err)
{
    cleanup_value struct value digests = {0};

    if (store_manifests(gc->store, name, &digests, err) != 0)
        return -1;
    out->nodes = mem_array(NULL, value_count(&digests) + 1, sizeof *out->nodes);
    for (size_t i = 0; i < value_count(&digests); i++) {
        struct node *node = &out->nodes[out->count++];
        cleanup_buf struct buf content = BUF_INIT;
        *node = (struct node){.digest = mem_strdup(value_text(value_at(&digests, i), ""))};
        /* What cannot be read must not make its blobs garbage: only a missing blob names nothing.
         */
        struct error problem = {0};
        if (store_blob_read(gc->store, node->digest, STORE_MANIFEST_LIMIT, &content, &problem) ==
            0) {
            store_mark_json(content.data, content.len, &node->names);
            node->size = content.len;
        } else if (problem.code != ERR_NOT_FOUND) {
            if (err)
                *err = problem;
            return error_wrap(err, "%s", name);
        }
    }
    return 0;
}

/* From tags and young manifests to what these name and to what refers to these, until nothing is
 * new. */
static int keep(const struct gc *gc, const char *name, struct repository *repository,
                struct error *err)
{
    struct path_set wanted = {0}, kept = {0};
    cleanup_value struct value tags = {0};
    struct stat st;
    bool again = true;

    if (store_tags(gc->store, name, &tags, err) != 0)
        return -1;
    for (size_t i = 0; i < value_count(&tags); i++) {
        struct digest digest;
        if (store_tag_resolve(gc->store, name, value_text(value_at(&tags, i), ""), &digest, NULL) ==
            0)
            path_set_add(&wanted, digest.text);
    }
    while (again) {
        again = false;
        for (size_t i = 0; i < repository->count; i++) {
            struct node *node = &repository->nodes[i];
            if (node->kept)
                continue;
            cleanup_free char *marker = marker_path(name, node->digest);
            node->kept = path_set_has(&wanted, node->digest) ||
                         (fstatat(gc->store->dir, marker, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                          st.st_mtime >= gc->cutoff);
            for (size_t slot = 0; !node->kept && slot < node->names.room; slot++)
                node->kept =
                    node->names.slots[slot] && path_set_has(&kept, node->names.slots[slot]);
            if (!node->kept)
                continue;
            again = true;
            path_set_add(&kept, node->digest);
            for (size_t slot = 0; slot < node->names.room; slot++)
                if (node->names.slots[slot])
                    path_set_add(&wanted, node->names.slots[slot]);
        }
    }
    path_set_free(&wanted);
    path_set_free(&kept);
    return 0;
}

/* Drops what one repository no longer needs, and marks what it does. */
static int mark_repository(struct gc *gc, const char *name, struct error *err)
{
    cleanup_repository struct repository repository = {0};

    if (store_gc_stopped(gc->options, err) != 0 || load(gc, name, &repository, err) != 0 ||
        (gc->options->untagged && keep(gc, name, &repository, err) != 0))
        return -1;
    for (size_t i = 0; i < repository.count; i++) {
        struct node *node = &repository.nodes[i];
        if (gc->options->untagged && !node->kept) {
            cleanup_free char *full = mem_printf("%s@%s", name, node->digest);
            struct error problem = {0};
            if (!gc->options->dry_run &&
                store_manifest_delete(gc->store, name, node->digest, &problem) != 0) {
                if (problem.code == ERR_NOT_FOUND) /* somebody else has */
                    continue;
                if (err)
                    *err = problem;
                return -1;
            }
            tell(gc, &gc->out->manifests, "manifest", full, node->size);
            continue;
        }
        path_set_add(&gc->needed, node->digest);
        for (size_t slot = 0; slot < node->names.room; slot++)
            if (node->names.slots[slot])
                path_set_add(&gc->needed, node->names.slots[slot]);
    }
    return 0;
}

static void mark_cached(void *ctx, const char *key, const struct cached_layer *layer)
{
    (void)key;
    struct gc *gc = ctx;

    path_set_add(&gc->needed, layer->digest.text);
}

static int mark(struct gc *gc, struct error *err)
{
    cleanup_value struct value names = {0};
    /* While manifests go, nobody may put one that leads to them. */
    bool alone = gc->options->untagged && !gc->options->dry_run;
    cleanup_close int held = alone ? store_lock(gc->store, true, err) : -1;

    if ((alone && held < 0) || store_repositories(gc->store, &names, err) != 0)
        return -1;
    for (size_t i = 0; i < value_count(&names); i++)
        if (mark_repository(gc, value_text(value_at(&names, i), ""), err) != 0)
            return -1;
    build_cache_each(gc->store, mark_cached, gc);
    return 0;
}

/* ---- sweeping ---- */

static DIR *open_folder(int at, const char *path, struct error *err)
{
    int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);

    if (!folder) {
        error_errno(err, errno, "cannot list %s", path);
        if (fd >= 0)
            close(fd);
    }
    return folder;
}

/* 1 gone, 0 somebody used it meanwhile. */
static int remove_blob(const struct gc *gc, int folder, const char *name, struct error *err)
{
    struct stat st;
    cleanup_close int held = store_lock(gc->store, true, err);

    if (held < 0)
        return -1;
    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || st.st_mtime >= gc->cutoff)
        return 0;
    return unlinkat(folder, name, 0) == 0 ? 1 : error_errno(err, errno, "cannot remove %s", name);
}

static int sweep_blobs(struct gc *gc, const char *algorithm, struct error *err)
{
    cleanup_free char *path = mem_printf("blobs/%s", algorithm);
    DIR *folder = open_folder(gc->store->dir, path, err);
    struct dirent *entry;
    struct stat st;
    int status = folder ? 0 : -1;

    while (status == 0 && (entry = readdir(folder))) {
        cleanup_free char *digest = mem_printf("%s:%s", algorithm, entry->d_name);
        if (!digest_kind(digest) ||
            fstatat(dirfd(folder), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        uint64_t size = (uint64_t)st.st_size;
        bool needed = path_set_has(&gc->needed, digest);
        if (needed || st.st_mtime >= gc->cutoff) {
            struct store_gc_count *count = needed ? &gc->out->kept : &gc->out->young;
            count->count++;
            count->bytes += size;
            continue;
        }
        status = store_gc_stopped(gc->options, err);
        int gone = status != 0            ? 0
                   : gc->options->dry_run ? 1
                                          : remove_blob(gc, dirfd(folder), entry->d_name, err);
        if (gone < 0)
            status = -1;
        else if (gone > 0)
            tell(gc, &gc->out->blobs, "blob", digest, size);
    }
    if (folder)
        closedir(folder);
    return status;
}

/* Whoever writes one holds its lock. */
static bool upload_idle(int folder, const char *name)
{
    cleanup_close int fd = openat(folder, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
}

static int sweep_uploads(struct gc *gc, struct error *err)
{
    DIR *folder = open_folder(gc->store->dir, "uploads", err);
    struct dirent *entry;
    struct stat st;

    if (!folder)
        return -1;
    while ((entry = readdir(folder))) {
        if (fstatat(dirfd(folder), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(st.st_mode) || st.st_mtime >= gc->cutoff ||
            !upload_idle(dirfd(folder), entry->d_name))
            continue;
        if (gc->options->dry_run || unlinkat(dirfd(folder), entry->d_name, 0) == 0)
            tell(gc, &gc->out->uploads, "upload", entry->d_name, (uint64_t)st.st_size);
    }
    closedir(folder);
    return 0;
}

/* What hides a blob from a repository has no purpose once the blob is gone. */
static void sweep_hidden(struct gc *gc)
{
    cleanup_value struct value names = {0};

    if (gc->options->dry_run || store_repositories(gc->store, &names, NULL) != 0)
        return;
    for (size_t i = 0; i < value_count(&names); i++) {
        cleanup_free char *path =
            mem_printf("repositories/%s/_deleted", value_text(value_at(&names, i), ""));
        DIR *folder = open_folder(gc->store->dir, path, NULL);
        struct dirent *entry;
        while (folder && (entry = readdir(folder))) {
            cleanup_free char *digest = mem_printf(
                "%s:%s", strlen(entry->d_name) == 128 ? "sha512" : "sha256", entry->d_name);
            cleanup_free char *blob = store_blob_path(gc->store, digest);
            if (blob && access(blob, F_OK) < 0 && errno == ENOENT)
                unlinkat(dirfd(folder), entry->d_name, 0);
        }
        if (folder)
            closedir(folder);
    }
}

int store_gc(struct store *store, const struct store_gc_options *options,
             struct store_gc_result *out, struct error *err)
{
    int64_t grace = options->grace_s < STORE_GC_MIN_S ? STORE_GC_MIN_S : options->grace_s;
    struct gc gc = {
        .store = store, .options = options, .out = out, .cutoff = time(NULL) - (time_t)grace};
    cleanup_free char *layers = path_join(store->root, "layers");
    int status = mark(&gc, err);

    if (status == 0)
        status = sweep_blobs(&gc, "sha256", err);
    if (status == 0)
        status = sweep_blobs(&gc, "sha512", err);
    if (status == 0)
        status = sweep_uploads(&gc, err);
    if (status == 0)
        sweep_hidden(&gc);
    if (status == 0)
        status = store_gc_folders(layers, "layer", options, &out->layers, err);
    path_set_free(&gc.needed);
    return status;
}

static int gc_at(const char *state_dir, const char *folder, bool durable,
                 const struct store_gc_options *options, struct store_gc_result *out,
                 struct error *err)
{
    cleanup_free char *root = path_join(state_dir, folder);

    if (access(root, F_OK) < 0)
        return 0;
    cleanup_store struct store *store = store_open_at(root, durable, err);
    return store && store_gc(store, options, out, err) == 0 ? 0 : -1;
}

int image_gc(const char *state_dir, const struct store_gc_options *options,
             struct image_gc_result *out, struct error *err)
{
    cleanup_free char *images = path_join(state_dir, "local/kubeflow/rootfs");

    *out = (struct image_gc_result){0};
    if (gc_at(state_dir, "local/registry", true, options, &out->registry, err) != 0 ||
        gc_at(state_dir, "cache/oci", false, options, &out->cache, err) != 0)
        return -1;
    return store_gc_folders(images, "image", options, &out->images, err);
}
