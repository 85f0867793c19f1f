/*
 * Layers that are built: whatever the entries are called and hold, what was packed is what others
 * read back - names, kinds, modes, owners, links, contents -, by their digests, and the same
 * entries give the same tar stream (and, but RARE in host/oci/pack.c, the same gzip bytes).
 */
#include "fuzz.h"

#include <sys/mman.h>

#include "folder.h"
#include "oci/layer.h"
#include "oci/tar_read.h"
#include "oci/tree.h"
#include "oci/unpack.h"

#define MOST 12

struct entries {
    struct layer_entry list[MOST];
    char *names[MOST], *links[MOST];
    size_t count;
};

struct input {
    const uint8_t *at, *end;
};

static unsigned take(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

/* A clean path; "" when there is nothing in the input but slashes and dots. */
static char *take_name(struct input *in)
{
    size_t len = take(in), copies = take(in) % 4 + 1;
    cleanup_buf struct buf text = BUF_INIT;

    if (len > (size_t)(in->end - in->at))
        len = (size_t)(in->end - in->at);
    for (size_t i = 0; i < copies; i++)
        buf_append(&text, in->at, len);
    in->at += len;
    cleanup_free char *whole = mem_strndup(text.data ? text.data : "", text.len);
    return tree_clean(whole);
}

static bool named(const struct entries *e, const char *name)
{
    for (size_t i = 0; i < e->count; i++) {
        size_t len = strlen(e->names[i]);
        if (strncmp(e->names[i], name, len) == 0 && (!name[len] || name[len] == '/'))
            return true;
        len = strlen(name);
        if (strncmp(e->names[i], name, len) == 0 && e->names[i][len] == '/')
            return true;
    }
    return false;
}

static void take_entries(struct input *in, struct entries *e)
{
    static const mode_t kinds[] = {S_IFREG, S_IFDIR, S_IFLNK, S_IFREG, S_IFIFO, S_IFREG};

    while (in->at < in->end && e->count < MOST) {
        unsigned kind = take(in) % 6, mode = take(in), id = take(in);
        char *name = take_name(in);
        char *link = kind == 2 ? take_name(in) : NULL;
        /* A long name cannot be made on a disk; ".wh." is another thing; names do not collide. */
        if (!*name || strstr(name, ".wh.") || named(e, name) || (link && !*link) ||
            strlen(name) > 1000) {
            free(name);
            free(link);
            continue;
        }
        size_t size = take(in) % 40;
        if (size > (size_t)(in->end - in->at))
            size = (size_t)(in->end - in->at);
        e->names[e->count] = name;
        e->links[e->count] = link;
        e->list[e->count++] = (struct layer_entry){.path = name,
                                                   .mode = kinds[kind] | (mode & 0777),
                                                   .uid = id * 77777u,
                                                   .gid = id,
                                                   .link = link,
                                                   .fd = -1,
                                                   .data = in->at,
                                                   .size = kinds[kind] == S_IFREG ? size : 0};
        in->at += size;
    }
}

static int pack(struct store *store, const struct entries *e, struct layer_result *out)
{
    struct error err = {0};
    struct layer *layer = layer_new(store, 7, NULL, &err);

    check(layer);
    for (size_t i = 0; i < e->count; i++)
        check(layer_add(layer, &e->list[i], &err) == 0);
    check(layer_entries(layer) == e->count);
    check(layer_finish(layer, out, &err) == 0);
    check(out->entries == e->count && out->tar_size % 512 == 0);
    return store_blob_open(store, out->digest.text, NULL, &err);
}

static void read_back(int fd, const struct entries *e)
{
    struct error err = {0};
    struct tar_entry entry;
    struct tar_reader *reader = tar_reader_new(fd, &err);

    check(reader);
    for (size_t i = 0; i < e->count; i++) {
        const struct layer_entry *in = &e->list[i];
        char content[64];
        check(tar_reader_next(reader, &entry, &err) == 1);
        check(strcmp(entry.path, in->path) == 0 && entry.mode == in->mode);
        check(entry.uid == in->uid && entry.gid == in->gid && entry.size == in->size);
        check(in->link ? entry.symlink && strcmp(entry.symlink, in->link) == 0 : !entry.symlink);
        cleanup_close int to = memfd_create("content", MFD_CLOEXEC);
        check(tar_reader_copy(reader, to, &err) == (int64_t)in->size);
        check(pread(to, content, sizeof content, 0) == (ssize_t)in->size);
        check(memcmp(content, in->data, in->size) == 0);
    }
    check(tar_reader_next(reader, &entry, &err) == 0);
    tar_reader_free(reader);
}

static void as_tree(int fd, const struct entries *e)
{
    struct tree tree = {0};
    struct error err = {0};

    lseek(fd, 0, SEEK_SET);
    check(tree_add_layer(&tree, fd, &err) == 0);
    for (size_t i = 0; i < e->count; i++) {
        const struct tree_node *node = tree_get(&tree, e->names[i]);
        check(node && node->mode == e->list[i].mode && node->size == e->list[i].size);
    }
    tree_free(&tree);
}

/* Digest and diff id are checked on the way. Some names no file system takes. */
static void unpack(int fd, const struct entries *e, const struct layer_result *result)
{
    cleanup_free char *path = path_join(fuzz_folder(), "target");
    struct error err = {0};
    struct stat st;

    check(dir_make(path, &err) == 0);
    cleanup_close int target = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    lseek(fd, 0, SEEK_SET);
    int status =
        oci_unpack_layer(fd, target, result->digest.text, result->diff_id.text, true, NULL, &err);
    check_result(status, &err);
    check(status == 0 || err.code != ERR_DIGEST);
    for (size_t i = 0; status == 0 && i < e->count; i++) {
        check(fstatat(target, e->names[i], &st, AT_SYMLINK_NOFOLLOW) == 0);
        check((st.st_mode & S_IFMT) == (e->list[i].mode & S_IFMT));
        check(!S_ISREG(st.st_mode) || (uint64_t)st.st_size == e->list[i].size);
    }
    check(dir_remove(path, &err) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct store *store;
    struct input in = {data, data + size};
    struct entries e = {0};
    struct layer_result one = {0}, two = {0};
    struct error err = {0};
    cleanup_free char *root = path_join(fuzz_folder(), "store");

    if (!store)
        store = store_open_at(root, false, &err);
    check(store);
    take_entries(&in, &e);
    cleanup_close int fd = pack(store, &e, &one);
    cleanup_close int other = pack(store, &e, &two);
    check(fd >= 0 && other >= 0 && strcmp(one.diff_id.text, two.diff_id.text) == 0);
    read_back(fd, &e);
    as_tree(fd, &e);
    unpack(fd, &e, &one);
    check(store_blob_delete(store, one.digest.text, &err) == 0);
    if (strcmp(one.digest.text, two.digest.text) != 0)
        check(store_blob_delete(store, two.digest.text, &err) == 0);
    for (size_t i = 0; i < e.count; i++) {
        free(e.names[i]);
        free(e.links[i]);
    }
    return 0;
}
