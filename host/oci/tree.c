#include "oci/tree.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/tar_read.h"

#define LINKS_MAX 40

char *tree_clean(const char *path)
{
    cleanup_free char *copy = mem_strdup(path);
    struct buf out = BUF_INIT;

    buf_puts(&out, "");
    for (char *save = NULL, *part = strtok_r(copy, "/", &save); part;
         part = strtok_r(NULL, "/", &save)) {
        if (strcmp(part, ".") == 0)
            continue;
        if (strcmp(part, "..") == 0) {
            char *slash = out.len ? strrchr(out.data, '/') : NULL;
            out.len = slash ? (size_t)(slash - out.data) : 0;
            if (out.data)
                out.data[out.len] = '\0';
            continue;
        }
        if (out.len)
            buf_putc(&out, '/');
        buf_puts(&out, part);
    }
    if (!out.len) {
        buf_free(&out);
        return mem_strdup("");
    }
    return buf_steal(&out);
}

static void node_free(struct tree_node *node)
{
    free(node->path);
    free(node->link);
    free(node->origin);
    free(node);
}

void tree_free(struct tree *tree)
{
    for (size_t i = 0; i < tree->room; i++)
        if (tree->slots[i])
            node_free(tree->slots[i]);
    free(tree->slots);
    *tree = (struct tree){0};
}

static size_t slot_of(struct tree_node *const *slots, size_t room, const char *path)
{
    uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */

    for (const char *at = path; *at; at++)
        hash = (hash ^ (unsigned char)*at) * UINT64_C(1099511628211);
    size_t slot = (size_t)hash & (room - 1);
    while (slots[slot] && strcmp(slots[slot]->path, path) != 0)
        slot = (slot + 1) & (room - 1);
    return slot;
}

static struct tree_node *node_of(struct tree *tree, const char *path)
{
    if ((tree->count + 1) * 2 > tree->room) {
        size_t room = tree->room ? tree->room * 2 : 256;
        struct tree_node **slots = mem_alloc(room * sizeof *slots);
        for (size_t i = 0; i < tree->room; i++)
            if (tree->slots[i])
                slots[slot_of(slots, room, tree->slots[i]->path)] = tree->slots[i];
        free(tree->slots);
        tree->slots = slots;
        tree->room = room;
    }
    size_t slot = slot_of(tree->slots, tree->room, path);
    if (!tree->slots[slot]) {
        tree->slots[slot] = mem_alloc(sizeof **tree->slots);
        tree->slots[slot]->path = mem_strdup(path);
        tree->count++;
    }
    return tree->slots[slot];
}

const struct tree_node *tree_get(const struct tree *tree, const char *path)
{
    const struct tree_node *node =
        tree->room ? tree->slots[slot_of(tree->slots, tree->room, path)] : NULL;

    return node && node->mode ? node : NULL;
}

/* Everything below a folder that is not of the layer which is being added. */
static void remove_below(struct tree *tree, const char *path, bool itself)
{
    size_t len = strlen(path);

    for (size_t i = 0; i < tree->room; i++) {
        struct tree_node *node = tree->slots[i];
        if (!node || node->layer == tree->layers)
            continue;
        bool below = !len || (strncmp(node->path, path, len) == 0 && node->path[len] == '/');
        if (below || (itself && strcmp(node->path, path) == 0))
            node->mode = 0;
    }
}

/* Folders that a layer leaves out. */
static void put_parents(struct tree *tree, const char *path)
{
    cleanup_free char *parent = mem_strdup(path);

    for (char *slash = strrchr(parent, '/'); slash; slash = strrchr(parent, '/')) {
        *slash = '\0';
        if (tree_get(tree, parent))
            return;
        struct tree_node *node = node_of(tree, parent);
        node->mode = S_IFDIR | 0755;
        node->uid = node->gid = 0;
        node->layer = tree->layers;
    }
}

static void put(struct tree *tree, const char *path, mode_t mode, uint32_t uid, uint32_t gid,
                const char *link, const char *origin, int layer, uint64_t size)
{
    put_parents(tree, path);
    struct tree_node *node = node_of(tree, path);
    if (S_ISDIR(node->mode) && !S_ISDIR(mode))
        remove_below(tree, path, false);
    char *new_link = mem_strdup(link), *new_origin = mem_strdup(origin);
    free(node->link);
    free(node->origin);
    node->mode = mode;
    node->uid = uid;
    node->gid = gid;
    node->link = new_link;
    node->origin = new_origin;
    node->layer = layer;
    node->size = size;
}

void tree_put(struct tree *tree, const char *path, mode_t mode, uint32_t uid, uint32_t gid,
              const char *link, const char *origin, uint64_t size)
{
    put(tree, path, mode, uid, gid, link, origin, tree->layers, size);
}

void tree_add_entry(struct tree *tree, const struct tar_entry *entry)
{
    const char *slash = strrchr(entry->path, '/');
    const char *leaf = slash ? slash + 1 : entry->path;

    if (strncmp(leaf, ".wh.", 4) == 0) {
        cleanup_free char *folder =
            slash ? mem_strndup(entry->path, (size_t)(slash - entry->path)) : mem_strdup("");
        if (strcmp(leaf, ".wh..wh..opq") == 0) {
            remove_below(tree, folder, false);
        } else {
            cleanup_free char *gone = mem_printf("%s%s%s", folder, *folder ? "/" : "", leaf + 4);
            remove_below(tree, gone, true);
        }
        return;
    }
    if (!entry->hardlink) {
        tree_put(tree, entry->path, entry->mode, entry->uid, entry->gid, entry->symlink, NULL,
                 entry->size);
        return;
    }
    const struct tree_node *to = tree_get(tree, entry->hardlink);
    if (to)
        put(tree, entry->path, to->mode, to->uid, to->gid, to->link,
            to->origin ? to->origin : to->path, to->layer, to->size);
}

int tree_add_seen(struct tree *tree, int fd, tree_seen_fn *seen, void *ctx, struct error *err)
{
    struct tar_entry entry;
    int status;
    struct tar_reader *reader = tar_reader_new(fd, err);

    if (!reader)
        return -1;
    while ((status = tar_reader_next(reader, &entry, err)) > 0) {
        if (!*entry.path)
            continue;
        tree_add_entry(tree, &entry);
        if (seen)
            seen(ctx, &entry);
    }
    tar_reader_free(reader);
    tree->layers++;
    return status;
}

int tree_add_layer(struct tree *tree, int fd, struct error *err)
{
    return tree_add_seen(tree, fd, NULL, NULL, err);
}

char *tree_resolve(const struct tree *tree, const char *path, bool last, struct error *err)
{
    cleanup_free char *rest = tree_clean(path);
    cleanup_free char *done = mem_strdup("");
    int links = 0;

    while (*rest) {
        size_t len = strcspn(rest, "/");
        bool is_last = rest[len] == '\0';
        char *next = mem_printf("%s%s%.*s", done, *done ? "/" : "", (int)len, rest);
        const struct tree_node *node = tree_get(tree, next);
        if (node && S_ISLNK(node->mode) && node->link && (!is_last || last)) {
            if (++links > LINKS_MAX) {
                free(next);
                error_set(err, ERR_INVALID, "/%s goes round in a loop of links", path);
                return NULL;
            }
            cleanup_free char *joined = *node->link == '/'
                                            ? mem_printf("%s%s", node->link, rest + len)
                                            : mem_printf("%s/%s%s", done, node->link, rest + len);
            free(next);
            mem_cleanup(&rest);
            mem_cleanup(&done);
            rest = tree_clean(joined);
            done = mem_strdup("");
            continue;
        }
        free(done);
        done = next;
        char *shorter = mem_strdup(rest + len + !is_last);
        free(rest);
        rest = shorter;
    }
    return steal_ptr(&done);
}

static int compare_nodes(const void *a, const void *b)
{
    return strcmp((*(const struct tree_node *const *)a)->path,
                  (*(const struct tree_node *const *)b)->path);
}

const struct tree_node **tree_sorted(const struct tree *tree, size_t *count)
{
    const struct tree_node **list = mem_alloc((tree->count + 1) * sizeof *list);

    *count = 0;
    for (size_t i = 0; i < tree->room; i++)
        if (tree->slots[i] && tree->slots[i]->mode)
            list[(*count)++] = tree->slots[i];
    qsort(list, *count, sizeof *list, compare_nodes);
    return list;
}

int tree_spool(int layer_fd, struct value *wanted, int to, struct error *err)
{
    struct tar_entry entry;
    int status;
    struct tar_reader *reader = tar_reader_new(layer_fd, err);

    if (!reader)
        return -1;
    while ((status = tar_reader_next(reader, &entry, err)) > 0) {
        struct value *slot =
            entry.hardlink || !S_ISREG(entry.mode) ? NULL : value_get(wanted, entry.path);
        if (!slot)
            continue;
        off_t offset = lseek(to, 0, SEEK_CUR);
        int64_t size = tar_reader_copy(reader, to, err);
        if (size < 0) {
            status = -1;
            break;
        }
        value_free(slot);
        value_set_map(slot);
        value_put_int(slot, "offset", (int64_t)offset);
        value_put_int(slot, "size", size);
        if (entry.attribute_count)
            value_set_map(value_put(slot, "attributes"));
        for (size_t i = 0; i < entry.attribute_count; i++)
            value_set_bytes(value_put(value_get(slot, "attributes"), entry.attributes[i].name),
                            entry.attributes[i].data, entry.attributes[i].len);
    }
    tar_reader_free(reader);
    return status;
}
