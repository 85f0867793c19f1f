/* The entries of COPY, ADD and WORKDIR become a layer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/build_copy.h"

struct item *copy_item(struct copy *copy, char *to, mode_t mode, uint32_t uid, uint32_t gid)
{
    if (copy->count == copy->room) {
        copy->room = copy->room ? copy->room * 2 : 64;
        copy->items = mem_array(copy->items, copy->room, sizeof *copy->items);
    }
    if (copy->owned) {
        uid = copy->uid;
        gid = copy->gid;
    }
    if (copy->chmod && !S_ISLNK(mode))
        mode = chmod_apply(copy->chmod, mode);
    struct item *item = &copy->items[copy->count];
    *item = (struct item){
        .to = to, .mode = mode, .uid = uid, .gid = gid, .word = copy->word, .order = copy->count++};
    return item;
}

void copy_folder(struct copy *copy, char *to)
{
    copy_item(copy, to, S_IFDIR | 0755, 0, 0)->mode = S_IFDIR | 0755;
}

static void free_item(struct item *item)
{
    free(item->to);
    free(item->link);
    free(item->hard);
    free(item->from);
    attributes_free(item->attributes, item->attribute_count);
}

void copy_free_items(struct copy *copy)
{
    for (size_t i = 0; i < copy->count; i++)
        free_item(&copy->items[i]);
    free(copy->items);
    copy->items = NULL;
    copy->count = copy->room = 0;
}

static int compare_items(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int order = strcmp(x->to, y->to);

    return order ? order : x->order < y->order ? -1 : x->order > y->order;
}

/* The folders on the way, for a layer by itself says of every entry where it is: those that the
 * image has, as they are there, and new ones, which the owner of --chown owns, too. */
static int add_parents(struct copy *copy, struct error *err)
{
    cleanup_value struct value seen = {0};
    size_t count = copy->count;

    value_set_map(&seen);
    for (size_t i = 0; i < count; i++)
        value_put(&seen, copy->items[i].to);
    for (size_t i = 0; i < count; i++) {
        cleanup_free char *parent = mem_strdup(copy->items[i].to);
        for (char *slash = strrchr(parent, '/'); slash; slash = strrchr(parent, '/')) {
            *slash = '\0';
            /* With --link, too, folders of the image stay as they are, but what is none gives way.
             */
            const struct tree_node *there = tree_get(&copy->stage->tree, parent);
            if (value_get(&seen, parent))
                break;
            if (there && !S_ISDIR(there->mode) && !copy->link)
                return error_set(err, ERR_INVALID, "/%s is in the image, and no folder", parent);
            value_put(&seen, parent);
            copy_folder(copy, mem_strdup(parent));
            if (there && S_ISDIR(there->mode)) {
                struct item *item = &copy->items[copy->count - 1];
                item->mode = there->mode;
                item->uid = there->uid;
                item->gid = there->gid;
            }
        }
    }
    return 0;
}

/* Extended attributes of a file, out of what tree_spool found. */
static void take_attributes(struct item *item, const struct value *map)
{
    size_t count = map && map->kind == VALUE_MAP ? map->as.map.count : 0;

    if (!count)
        return;
    item->attributes = mem_alloc(count * sizeof *item->attributes);
    for (size_t i = 0; i < count; i++) {
        const struct value_pair *pair = &map->as.map.pairs[i];
        struct layer_attribute *to = &item->attributes[item->attribute_count++];
        to->name = mem_strdup(pair->key);
        to->len = pair->value.as.string.len;
        to->data = mem_alloc(to->len + 1);
        memcpy(to->data, pair->value.as.string.data, to->len);
    }
}

/* Contents of a stage's files: each layer is read once. */
static int spool_contents(struct copy *copy, struct error *err)
{
    const struct tree *tree = copy->source;

    for (int layer = 0; copy->from_stage && layer < tree->layers; layer++) {
        cleanup_value struct value wanted = {0};
        value_set_map(&wanted);
        for (size_t i = 0; i < copy->count; i++)
            if (copy->items[i].from && copy->items[i].layer == layer)
                value_put(&wanted, copy->items[i].from);
        if (!value_count(&wanted))
            continue;
        cleanup_close int fd = store_blob_open(
            copy->builder->spec->store,
            value_get_string(value_at(&copy->from_stage->layers, (size_t)layer), "digest", ""),
            NULL, err);
        if (fd < 0 || tree_spool(fd, &wanted, copy->spool, err) != 0)
            return -1;
        for (size_t i = 0; i < copy->count; i++) {
            const char *from = copy->items[i].layer == layer ? copy->items[i].from : NULL;
            const struct value *slot = from ? value_get(&wanted, from) : NULL;
            if (!slot || slot->kind != VALUE_MAP)
                continue;
            copy->items[i].offset = (uint64_t)value_get_int(slot, "offset", 0);
            copy->items[i].size = (uint64_t)value_get_int(slot, "size", 0);
            take_attributes(&copy->items[i], value_get(slot, "attributes"));
            free(copy->items[i].from);
            copy->items[i].from = NULL;
        }
    }
    return 0;
}

static bool still_same(const struct copy *copy, const struct item *item, int fd)
{
    const struct context_file *file = context_find(copy->builder->context, item->from);
    struct context_file now = {0};
    struct stat st;

    if (!file || fstat(fd, &st) < 0)
        return false;
    context_file_stat(&now, &st);
    return now.size == file->size && now.inode == file->inode &&
           now.modified_ns == file->modified_ns && now.changed_ns == file->changed_ns;
}

static int write_item(struct copy *copy, struct layer *layer, const struct item *item,
                      struct error *err)
{
    struct layer_entry entry = {.path = item->to,
                                .mode = item->mode,
                                .uid = item->uid,
                                .gid = item->gid,
                                .link = item->hard ? item->hard : item->link,
                                .hard = item->hard != NULL,
                                .own_time = item->own_time,
                                .mtime = item->mtime,
                                .attributes = item->attributes,
                                .attribute_count = item->attribute_count,
                                .fd = copy->spool,
                                .offset = item->offset,
                                .size = item->size};
    cleanup_close int fd = -1;

    if (item->hard)
        return layer_add(layer, &entry, err);
    if (S_ISREG(item->mode) && item->from && copy->from_stage)
        return error_set(err, ERR_INTERNAL, "%s was not found in its layer", item->from);
    if (S_ISREG(item->mode) && item->from) {
        struct stat st;
        fd = context_open(copy->builder->context, item->from, err);
        if (fd < 0)
            return -1;
        if (fstat(fd, &st) < 0)
            return error_errno(err, errno, "%s", item->from);
        entry.fd = fd;
        entry.offset = 0;
        entry.size = (uint64_t)st.st_size;
    }
    if (layer_add(layer, &entry, err) != 0)
        return -1;
    copy->unsettled = copy->unsettled || (fd >= 0 && !still_same(copy, item, fd));
    return 0;
}

/* Sorted; of two for one path the later one stays. */
static void sort_items(struct copy *copy)
{
    size_t count = 0;

    qsort(copy->items, copy->count, sizeof *copy->items, compare_items);
    for (size_t i = 0; i < copy->count; i++) {
        struct item *item = &copy->items[i];
        if (i + 1 < copy->count && strcmp(item->to, copy->items[i + 1].to) == 0)
            free_item(item);
        else
            copy->items[count++] = *item;
    }
    copy->count = count;
}

/* Two sources may give one name to a file and to a folder. */
static int check_folders(const struct copy *copy, struct error *err)
{
    for (size_t i = 0; i < copy->count; i++) {
        const char *slash = strrchr(copy->items[i].to, '/');
        struct item key = {
            .to =
                slash ? mem_strndup(copy->items[i].to, (size_t)(slash - copy->items[i].to)) : NULL};
        const struct item *parent = NULL;
        for (size_t low = 0, high = key.to ? copy->count : 0; low < high && !parent;) {
            size_t middle = low + (high - low) / 2;
            int order = strcmp(copy->items[middle].to, key.to);
            if (order == 0)
                parent = &copy->items[middle];
            else if (order < 0)
                low = middle + 1;
            else
                high = middle;
        }
        free(key.to);
        if (parent && !S_ISDIR(parent->mode))
            return error_set(err, ERR_INVALID, "/%s becomes a file and a folder", parent->to);
    }
    return 0;
}

/* Hard links of a stage's files: names with one place in one layer. Of those that one file has in
 * this layer the first is the file. Links of the context are not looked for: what is built of a
 * folder and of its copy is the same. */
static void join_names(struct copy *copy)
{
    cleanup_value struct value places = {0};
    cleanup_value struct value firsts = {0};

    value_set_map(&places);
    value_set_map(&firsts);
    for (size_t i = 0; copy->from_stage && i < copy->count; i++) {
        struct item *item = &copy->items[i];
        if (!S_ISREG(item->mode) || !item->from)
            continue;
        cleanup_free char *place = mem_printf("%zu %d %s", item->word, item->layer, item->from);
        struct value *slot = value_get(&places, place);
        if (!slot) {
            value_put_int(&places, place, (int64_t)i);
            continue;
        }
        struct item *other = &copy->items[slot->as.integer];
        if (!other->group)
            other->group = ++copy->groups;
        item->group = other->group;
    }
    for (size_t i = 0; copy->groups && i < copy->count; i++) {
        struct item *item = &copy->items[i];
        char number[24];
        if (!item->group)
            continue;
        snprintf(number, sizeof number, "%zu", item->group);
        const char *first = value_get_string(&firsts, number, NULL);
        if (first)
            item->hard = mem_strdup(first);
        else
            value_put_string(&firsts, number, item->to);
    }
}

static int pack_items(struct copy *copy, struct cached_layer *out, struct error *err)
{
    struct layer_result result;

    if (spool_contents(copy, err) != 0)
        return -1;
    struct layer *layer = layer_new(copy->builder->spec->store, copy->builder->spec->epoch,
                                    copy->builder->spec->watcher, err);
    if (!layer)
        return -1;
    layer_until(layer, copy->builder->spec->deadline, copy->builder->spec->cancel);
    for (size_t i = 0; i < copy->count; i++)
        if (write_item(copy, layer, &copy->items[i], err) != 0) {
            layer_drop(layer);
            return -1;
        }
    if (layer_finish(layer, &result, err) != 0)
        return -1;
    *out = cached_layer_of(&result);
    return 0;
}

int copy_write(struct copy *copy, const struct value *instruction, struct error *err)
{
    bool caching =
        build_cache_reads(copy->builder->spec) || build_cache_writes(copy->builder->spec);
    struct cached_layer layer;
    struct copy_keys keys = {0};

    if (!copy->count) {
        stage_history(copy->builder, copy->stage, instruction, true);
        return 0;
    }
    if (add_parents(copy, err) != 0)
        return -1;
    sort_items(copy);
    if (check_folders(copy, err) != 0)
        return -1;
    join_names(copy);
    int found = caching ? copy_cached(copy, &keys, &layer, err) : 0;
    if (found < 0)
        return -1;
    if (!found && pack_items(copy, &layer, err) != 0)
        return -1;
    if (build_cache_writes(copy->builder->spec) && copy_keep(copy, &keys, &layer, err) != 0)
        return -1;
    for (size_t i = 0; i < copy->count; i++) {
        const struct item *item = &copy->items[i];
        tree_put(&copy->stage->tree, item->to, item->mode, item->uid, item->gid, item->link,
                 item->hard, item->size);
    }
    copy->stage->tree.layers++;
    stage_add_layer(copy->builder, copy->stage, instruction, &layer, found);
    return 0;
}
