#include "oci/build_changes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/mem.h"

#define DEPTH_MAX  500
#define NAMES_MAX  (64u << 10) /* of one file's attributes, as the kernel has it */
#define VALUE_MAX  (64u << 10)
#define TARGET_MAX 4096
#define BYTES_MAX  (64ull << 30) /* what oci_unpack takes */

/* Another name of a file that has come already. */
struct seen {
    ino_t inode;
    char *path;
};

struct walk {
    const struct changes_spec *spec;
    struct layer *layer;
    struct seen *seen; /* slots of a hash table; path NULL: free */
    size_t seen_count, seen_room;
    int depth;
    /* Folders on the way, from the outside in, that did not change: those from `told` on get their
     * entries when something in them has one. */
    struct unchanged {
        char *path;
        int fd;
    } * above;
    size_t above_count, told;
    uint64_t bytes;
    struct error *err;
};

static int walk_folder(struct walk *walk, int fd, const char *path);

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_free(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

/* What is in a folder, sorted: a layer's order must not be the file system's. */
static int list(int fd, const char *path, char ***names, size_t *count, struct error *err)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = copy < 0 ? NULL : fdopendir(copy);
    size_t room = 0;
    struct dirent *entry;

    *names = NULL;
    *count = 0;
    if (!folder) {
        if (copy >= 0)
            close(copy);
        return error_errno(err, errno, "cannot read /%s", path);
    }
    while ((entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (*count == room) {
            room = room ? room * 2 : 32;
            *names = mem_array(*names, room, sizeof **names);
        }
        (*names)[(*count)++] = mem_strdup(entry->d_name);
    }
    closedir(folder);
    if (*count)
        qsort(*names, *count, sizeof **names, by_name);
    return 0;
}

static bool is_overlay_mark(const char *name)
{
    return strncmp(name, "trusted.", 8) == 0 || strncmp(name, "user.overlay.", 13) == 0;
}

static bool is_kept(const char *name)
{
    return !is_overlay_mark(name) &&
           (strncmp(name, "user.", 5) == 0 || strcmp(name, "security.capability") == 0);
}

static bool is_opaque(int fd)
{
    static const char *const marks[] = {"trusted.overlay.opaque", "user.overlay.opaque"};
    char text[2];

    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (fgetxattr(fd, marks[i], text, sizeof text) == 1 && *text == 'y')
            return true;
    return false;
}

static int by_attribute(const void *a, const void *b)
{
    return strcmp(((const struct layer_attribute *)a)->name,
                  ((const struct layer_attribute *)b)->name);
}

/* fd is an O_PATH descriptor: what it names need not be readable, and must not be opened if it is a
 * FIFO. */
static void attributes_of(int fd, struct layer_attribute **out, size_t *count)
{
    char path[64];

    *out = NULL;
    *count = 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    cleanup_free char *names = mem_alloc(NAMES_MAX);
    ssize_t len = listxattr(path, names, NAMES_MAX);
    for (char *name = names; len > 0 && name < names + len; name += strlen(name) + 1) {
        if (!is_kept(name))
            continue;
        cleanup_free char *data = mem_alloc(VALUE_MAX);
        ssize_t size = getxattr(path, name, data, VALUE_MAX);
        if (size < 0)
            continue; /* removed meanwhile: nothing else can hold one back from its owner */
        *out = mem_array(*out, *count + 1, sizeof **out);
        (*out)[(*count)++] = (struct layer_attribute){mem_strdup(name), data, (size_t)size};
        data = NULL;
    }
    if (*count)
        qsort(*out, *count, sizeof **out, by_attribute);
}

static struct seen *seen_slot(struct seen *slots, size_t room, ino_t inode)
{
    size_t at = (size_t)(inode * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (room - 1);

    while (slots[at].path && slots[at].inode != inode)
        at = (at + 1) & (room - 1);
    return &slots[at];
}

static void seen_grow(struct walk *walk)
{
    size_t room = walk->seen_room ? walk->seen_room * 2 : 64;
    struct seen *slots = mem_alloc(room * sizeof *slots);

    for (size_t i = 0; i < walk->seen_room; i++)
        if (walk->seen[i].path)
            *seen_slot(slots, room, walk->seen[i].inode) = walk->seen[i];
    free(walk->seen);
    walk->seen = slots;
    walk->seen_room = room;
}

/* The path under which this file has come already, or NULL; then it is remembered. */
static const char *other_name(struct walk *walk, const struct stat *st, const char *path)
{
    if (walk->seen_count * 2 >= walk->seen_room)
        seen_grow(walk);
    struct seen *slot = seen_slot(walk->seen, walk->seen_room, st->st_ino);
    if (slot->path)
        return slot->path;
    *slot = (struct seen){st->st_ino, mem_strdup(path)};
    walk->seen_count++;
    return NULL;
}

static void set_from(const struct walk *walk, struct layer_entry *entry, const struct stat *st)
{
    int64_t clamp = walk->spec->clamp;

    entry->uid = st->st_uid;
    entry->gid = st->st_gid;
    entry->own_time = true;
    entry->mtime = clamp >= 0 && st->st_mtime > clamp ? clamp : st->st_mtime;
}

static int tell_above(struct walk *walk)
{
    for (; walk->told < walk->above_count; walk->told++) {
        const struct unchanged *folder = &walk->above[walk->told];
        struct layer_entry entry = {.path = folder->path, .fd = -1};
        struct layer_attribute *attributes;
        struct stat st;
        if (fstat(folder->fd, &st) < 0)
            return error_errno(walk->err, errno, "cannot read /%s", folder->path);
        entry.mode = st.st_mode;
        attributes_of(folder->fd, &attributes, &entry.attribute_count);
        entry.attributes = attributes;
        set_from(walk, &entry, &st);
        int status = layer_add(walk->layer, &entry, walk->err);
        attributes_free(attributes, entry.attribute_count);
        if (status != 0)
            return -1;
    }
    return 0;
}

static int add(struct walk *walk, struct layer_entry *entry, const struct stat *st)
{
    set_from(walk, entry, st);
    return tell_above(walk) == 0 ? layer_add(walk->layer, entry, walk->err) : -1;
}

static int add_file(struct walk *walk, int folder, const char *name, struct layer_entry *entry,
                    const struct stat *st)
{
    const char *same = st->st_nlink > 1 ? other_name(walk, st, entry->path) : NULL;

    if (same) {
        entry->hard = true;
        entry->link = same;
        return add(walk, entry, st);
    }
    cleanup_close int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_errno(walk->err, errno, "cannot read /%s", entry->path);
    entry->fd = fd;
    entry->size = (uint64_t)st->st_size;
    walk->bytes += entry->size;
    if (walk->bytes > BYTES_MAX) {
        error_set(walk->err, ERR_TOO_LARGE, "the layer would hold more than %llu GiB, at /%s",
                  BYTES_MAX >> 30, entry->path);
        return error_hint(walk->err, "holes in files count: remove, in the same RUN, what the "
                                     "image is not to have");
    }
    return add(walk, entry, st);
}

static int add_link(struct walk *walk, int fd, struct layer_entry *entry, const struct stat *st)
{
    char target[TARGET_MAX + 1];
    ssize_t len = readlinkat(fd, "", target, TARGET_MAX);

    if (len < 0)
        return error_errno(walk->err, errno, "cannot read the link /%s", entry->path);
    target[len] = '\0';
    entry->link = target;
    return add(walk, entry, st);
}

static int add_whiteout(struct walk *walk, const char *folder, const char *name)
{
    cleanup_free char *path =
        *folder ? mem_printf("%s/.wh.%s", folder, name) : mem_printf(".wh.%s", name);
    struct layer_entry entry = {.path = path, .mode = S_IFREG | 0644, .fd = -1};

    return tell_above(walk) == 0 ? layer_add(walk->layer, &entry, walk->err) : -1;
}

/* Only what is in it may have changed. */
static int walk_unchanged(struct walk *walk, int folder, const char *name, const char *path)
{
    cleanup_close int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return error_errno(walk->err, errno, "cannot read /%s", path);
    walk->above = mem_array(walk->above, walk->above_count + 1, sizeof *walk->above);
    walk->above[walk->above_count++] = (struct unchanged){mem_strdup(path), fd};
    int status = walk_folder(walk, fd, path);
    free(walk->above[--walk->above_count].path);
    if (walk->told > walk->above_count)
        walk->told = walk->above_count;
    return status;
}

static int add_folder(struct walk *walk, int folder, const char *name, struct layer_entry *entry,
                      const struct stat *st)
{
    cleanup_close int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return error_errno(walk->err, errno, "cannot read /%s", entry->path);
    if (add(walk, entry, st) != 0 ||
        (is_opaque(fd) && add_whiteout(walk, entry->path, ".wh..opq") != 0))
        return -1;
    return walk_folder(walk, fd, entry->path);
}

static int refuse_device(struct walk *walk, const char *path)
{
    error_set(walk->err, ERR_INVALID, "/%s is a device", path);
    return error_hint(walk->err, "layers do not hold devices: whoever runs the image gives it "
                                 "those that it may use");
}

static int walk_one(struct walk *walk, int folder, const char *above, const char *name)
{
    cleanup_free char *path = *above ? mem_printf("%s/%s", above, name) : mem_strdup(name);
    struct layer_entry entry = {.path = path, .fd = -1};
    struct layer_attribute *attributes;
    struct stat st;
    int status;

    cleanup_close int fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_errno(walk->err, errno, "cannot read /%s", path);
    if (walk->spec->before && before_same(walk->spec->before, path, &st))
        return S_ISDIR(st.st_mode) ? walk_unchanged(walk, folder, name, path) : 0;
    if (!walk->spec->before && S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0))
        return add_whiteout(walk, above, name);
    if (S_ISSOCK(st.st_mode))
        return 0;
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
        return refuse_device(walk, path);
    if (strncmp(name, ".wh.", 4) == 0)
        return error_set(walk->err, ERR_INVALID,
                         "/%s: a layer cannot hold this name, it means a removed file", path);
    entry.mode = st.st_mode;
    attributes_of(fd, &attributes, &entry.attribute_count);
    entry.attributes = attributes;
    if (S_ISDIR(st.st_mode))
        status = add_folder(walk, folder, name, &entry, &st);
    else if (S_ISREG(st.st_mode))
        status = add_file(walk, folder, name, &entry, &st);
    else if (S_ISLNK(st.st_mode))
        status = add_link(walk, fd, &entry, &st);
    else
        status = add(walk, &entry, &st);
    attributes_free(attributes, entry.attribute_count);
    return status;
}

static int walk_folder(struct walk *walk, int fd, const char *path)
{
    char **names;
    size_t count;
    int status = list(fd, path, &names, &count, walk->err);

    if (status == 0 && ++walk->depth > DEPTH_MAX)
        status = error_set(walk->err, ERR_TOO_LARGE, "/%s: folders nested too deeply", path);
    for (size_t i = 0; status == 0 && i < count; i++)
        status = walk_one(walk, fd, path, names[i]);
    walk->depth--;
    names_free(names, count);
    return status;
}

static int on_gone(void *ctx, const char *folder, const char *name)
{
    return add_whiteout(ctx, folder, name);
}

int build_changes(const struct changes_spec *spec, struct layer_result *out, struct error *err)
{
    struct walk walk = {.spec = spec, .err = err};

    cleanup_close int fd = open(spec->upper, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "cannot open %s", spec->upper);
    walk.layer = layer_new(spec->store, spec->epoch, spec->watcher, err);
    if (!walk.layer)
        return -1;
    layer_until(walk.layer, spec->deadline, spec->cancel);
    *out = (struct layer_result){0};
    int status = walk_folder(&walk, fd, "");
    if (status == 0 && spec->before)
        status = before_gone(spec->before, on_gone, &walk);
    if (status == 0 && layer_entries(walk.layer)) {
        status = layer_finish(walk.layer, out, err);
        walk.layer = NULL;
    }
    layer_drop(walk.layer);
    for (size_t i = 0; i < walk.seen_room; i++)
        free(walk.seen[i].path);
    free(walk.seen);
    free(walk.above);
    return status;
}
