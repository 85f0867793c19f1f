/* Which files of a source go where, and under which names. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/build_copy.h"
#include "oci/tar_read.h"

static char *join(const char *folder, const char *name)
{
    return mem_printf("%s%s%s", folder, *folder && *name ? "/" : "", name);
}

static int missing(struct copy *copy, const char *word, struct error *err)
{
    error_set(err, ERR_NOT_FOUND, "%s: no such file or folder%s", word,
              copy->from_stage ? " in that image" : "");
    if (!copy->from_stage) {
        const char *ignore = copy->builder->context->ignore_file;
        error_hint(err, "it must be in the build context %s%s%s", copy->builder->context->path,
                   ignore ? ", and not left out by " : "", ignore ? ignore : "");
    }
    return -1;
}

int copy_add_node(struct copy *copy, const struct tree_node *node, const char *to,
                  struct error *err)
{
    bool folder = S_ISDIR(node->mode);
    char *path = tree_resolve(copy->target, to, folder, err);

    if (!path)
        return -1;
    const struct tree_node *there = tree_get(copy->target, path);
    /* A folder that is there keeps its owner and mode: /tmp shall not lose its sticky bit. */
    if (folder && (!*path || (there && S_ISDIR(there->mode) && !copy->owned && !copy->chmod))) {
        free(path);
        return 0;
    }
    if (there && S_ISDIR(there->mode) != folder) {
        error_set(err, ERR_INVALID, "/%s is %s in the image and %s is %s", path,
                  folder ? "no folder" : "a folder", node->path, folder ? "one" : "none");
        free(path);
        return -1;
    }
    struct item *item = copy_item(copy, path, node->mode, node->uid, node->gid);
    item->size = node->size;
    item->layer = node->layer;
    item->link = S_ISLNK(node->mode) ? mem_strdup(node->link) : NULL;
    /* Of a stage the name in its layer, until the content is in the spool. */
    if (S_ISREG(node->mode))
        item->from = mem_strdup(node->origin ? node->origin : node->path);
    return 0;
}

/* ---- archives ---- */

/* The files of an archive by name, for the hard links in it: known from the first link on. */
struct names {
    struct value map;
    size_t first;
    bool known;
};

static void note_name(struct names *names, const char *path, size_t index)
{
    value_put_int(&names->map, path, (int64_t)index);
}

/* Another name of an entry before it. */
static int add_second_name(struct copy *copy, struct names *names, const char *other,
                           struct error *err)
{
    if (!names->known) {
        value_set_map(&names->map);
        for (size_t i = names->first; i + 1 < copy->count; i++)
            note_name(names, copy->items[i].to, i);
        names->known = true;
    }
    cleanup_free char *to = join(copy->to, other);
    cleanup_free char *real = tree_resolve(copy->target, to, false, err);
    int64_t index = real ? value_get_int(&names->map, real, -1) : -1;
    if (index < 0 || S_ISDIR(copy->items[index].mode))
        return real ? error_set(err, ERR_INVALID, "it is a link to nothing") : -1;
    struct item *found = &copy->items[index], *item = &copy->items[copy->count - 1];
    if (!found->group)
        found->group = ++copy->groups;
    item->group = found->group;
    item->mode = found->mode;
    item->uid = found->uid;
    item->gid = found->gid;
    item->link = mem_strdup(found->link);
    item->offset = found->offset;
    item->size = found->size;
    return 0;
}

static int add_entry(struct copy *copy, struct tar_reader *reader, const struct tar_entry *entry,
                     struct names *names, struct error *err)
{
    cleanup_free char *to = join(copy->to, entry->path);
    char *real = tree_resolve(copy->target, to, S_ISDIR(entry->mode), err);

    if (!real)
        return -1;
    struct item *item = copy_item(copy, real, entry->mode, entry->uid, entry->gid);
    if (entry->hardlink) {
        if (add_second_name(copy, names, entry->hardlink, err) != 0)
            return error_wrap(err, "%s", entry->path);
    } else {
        item->link = mem_strdup(entry->symlink);
        attributes_copy(entry->attributes, entry->attribute_count, &item->attributes);
        item->attribute_count = entry->attribute_count;
    }
    if (names->known)
        note_name(names, real, copy->count - 1);
    if (entry->hardlink || !S_ISREG(entry->mode))
        return 0;
    item->offset = (uint64_t)lseek(copy->spool, 0, SEEK_CUR);
    int64_t size = tar_reader_copy(reader, copy->spool, err);
    if (size < 0)
        return -1;
    item->size = (uint64_t)size;
    return 0;
}

int copy_add_archive(struct copy *copy, const char *path, int fd, struct error *err)
{
    struct names names = {.first = copy->count};
    struct tar_entry entry;
    int status;
    struct tar_reader *reader = tar_reader_new(fd, err);

    if (!reader)
        return -1;
    while ((status = tar_reader_next(reader, &entry, err)) > 0)
        if (*entry.path && add_entry(copy, reader, &entry, &names, err) != 0) {
            status = -1;
            break;
        }
    value_free(&names.map);
    tar_reader_free(reader);
    return status < 0 ? error_wrap(err, "%s", path) : 0;
}

/* ADD unpacks an archive of the context. 1: it was one. */
static int try_archive(struct copy *copy, const struct tree_node *node, struct error *err)
{
    if (!copy->unpack || copy->from_stage || !S_ISREG(node->mode))
        return 0;
    cleanup_close int fd = context_open(copy->builder->context, node->path, err);
    if (fd < 0)
        return -1;
    if (!tar_is_archive(fd))
        return 0;
    return copy_add_archive(copy, node->path, fd, err) == 0 ? 1 : -1;
}

/* ---- files and folders ---- */

static bool excluded(const struct copy *copy, const char *path)
{
    return ignore_match(copy->exclude, path);
}

int copy_add_destination(struct copy *copy, struct error *err)
{
    const struct tree_node *there = *copy->to ? tree_get(copy->target, copy->to) : NULL;

    if (there && !S_ISDIR(there->mode))
        return error_set(err, ERR_INVALID, "/%s is in the image, and no folder", copy->to);
    if (*copy->to && !there)
        copy_folder(copy, mem_strdup(copy->to));
    return 0;
}

/* Is it in the folder? "" holds everything. */
static bool is_below(const char *path, const char *folder, size_t len)
{
    return !len || (strncmp(path, folder, len) == 0 && path[len] == '/');
}

/* One source that exists: a file, or what is in a folder. */
static int add_source(struct copy *copy, const char *path, const char *name, struct error *err)
{
    const struct tree_node *node = *path ? tree_get(copy->source, path) : NULL;
    size_t len = strlen(path);

    if (node && !S_ISDIR(node->mode)) {
        const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
        if (excluded(copy, base))
            return 0;
        int archive = try_archive(copy, node, err);
        if (archive != 0)
            return archive < 0 ? -1 : 0;
        cleanup_free char *to = copy->to_folder ? join(copy->to, base) : mem_strdup(copy->to);
        return copy_add_node(copy, node, to, err);
    }
    if (copy_add_destination(copy, err) != 0)
        return -1;
    for (size_t i = 0; i < copy->node_count; i++) {
        const struct tree_node *below = copy->nodes[i];
        const char *rest = below->path + (len ? len + 1 : 0);
        if (!is_below(below->path, path, len) || excluded(copy, rest))
            continue;
        cleanup_free char *to = join(copy->to, rest);
        if (copy_add_node(copy, below, to, err) != 0)
            return -1;
    }
    return 0;
}

/* ---- wildcards ---- */

/* "a/b*c/d" -> "a" with its links followed, and "b*c/d". */
static char *wildcard_folder(const struct copy *copy, const char *path, const char **pattern,
                             struct error *err)
{
    const char *first = path;

    for (const char *at = path; *at; at++) {
        if (*at == '/')
            first = at + 1;
        if (strchr("*?[\\", *at))
            break;
    }
    *pattern = first;
    cleanup_free char *folder = mem_strndup(path, first == path ? 0 : (size_t)(first - path) - 1);
    return tree_resolve(copy->source, folder, true, err);
}

/* 1, 0, -1 with an error, as wildcard_plain. */
static int matches(const char *folder, const char *pattern, const struct tree_node *node,
                   struct error *err)
{
    size_t len = strlen(folder);
    int found = is_below(node->path, folder, len)
                    ? wildcard_plain(pattern, node->path + (len ? len + 1 : 0))
                    : 0;

    return found < 0 ? error_set(err, ERR_INVALID, "the pattern '%.200s' is malformed", pattern)
                     : found;
}

size_t copy_count_matches(const struct copy *copy, const char *word)
{
    cleanup_free char *path = tree_clean(word);
    const char *pattern;
    size_t count = 0;

    if (copy->parents || !wildcard_has(path))
        return 0;
    cleanup_free char *folder = wildcard_folder(copy, path, &pattern, NULL);
    for (size_t i = 0; folder && i < copy->node_count; i++)
        count += matches(folder, pattern, copy->nodes[i], NULL) == 1;
    return count;
}

static int add_wildcard(struct copy *copy, const char *path, const char *word, struct error *err)
{
    const char *pattern;
    cleanup_free char *folder = wildcard_folder(copy, path, &pattern, err);
    size_t count = 0;

    if (!folder)
        return -1;
    for (size_t i = 0; i < copy->node_count; i++) {
        const struct tree_node *node = copy->nodes[i];
        int found = matches(folder, pattern, node, err);
        if (found < 0)
            return -1;
        if (!found)
            continue;
        count++;
        /* A link is what it leads to, as in a source without wildcards; one to nowhere is itself.
         */
        cleanup_free char *real =
            S_ISLNK(node->mode) ? tree_resolve(copy->source, node->path, true, NULL) : NULL;
        const char *from = real && (!*real || tree_get(copy->source, real)) ? real : node->path;
        if (add_source(copy, from, node->path, err) != 0)
            return -1;
    }
    if (!count) /* as in Docker: what may be there or not is written so */
        builder_log(copy->builder, "warning", "%s: nothing matches %s", copy->keyword, word);
    return 0;
}

/* ---- --parents ---- */

/* The folders between `root` and the path, as the source has them, each once. */
static int add_way(struct copy *copy, struct value *seen, const char *path, size_t root,
                   struct error *err)
{
    cleanup_free char *way = mem_strdup(path);

    for (char *slash = strchr(way + root, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const struct tree_node *node = tree_get(copy->source, way);
        if (node && !value_get(seen, way)) {
            cleanup_free char *to = join(copy->to, way + root);
            value_put(seen, way);
            if (copy_add_node(copy, node, to, err) != 0)
                return -1;
        }
        *slash = '/';
    }
    return 0;
}

/* What the pattern names below a folder, with the path from there on. */
static int add_with_parents(struct copy *copy, const char *folder, const char *pattern,
                            size_t *count, struct error *err)
{
    cleanup_value struct value list = {0};
    cleanup_value struct value seen = {0};
    size_t len = strlen(folder), root = len ? len + 1 : 0;
    int status = 0;

    value_set_array(&list);
    value_set_map(&seen);
    value_push_string(&list, pattern);
    struct ignore *wanted = *pattern ? ignore_patterns(&list, copy->keyword, err) : NULL;
    if (*pattern && !wanted)
        return -1;
    for (size_t i = 0; status == 0 && i < copy->node_count; i++) {
        const struct tree_node *node = copy->nodes[i];
        if (!is_below(node->path, folder, len) ||
            (wanted && !ignore_match(wanted, node->path + root)) ||
            excluded(copy, node->path + root))
            continue;
        ++*count;
        cleanup_free char *to = join(copy->to, node->path + root);
        status = add_way(copy, &seen, node->path, root, err);
        if (status == 0 && !value_get(&seen, node->path))
            status = copy_add_node(copy, node, to, err);
        if (S_ISDIR(node->mode))
            value_put(&seen, node->path);
    }
    ignore_free(wanted);
    return status;
}

/* "a/./b/c": what is before the point is left out of the destination. */
static int add_parents_word(struct copy *copy, const char *word, struct error *err)
{
    const char *pivot = strstr(word, "/./");
    cleanup_free char *before = pivot ? mem_strndup(word, (size_t)(pivot - word)) : mem_strdup("");
    cleanup_free char *clean = tree_clean(before);
    cleanup_free char *pattern = tree_clean(pivot ? pivot + 3 : word);
    const char *name;
    size_t count = 0;

    if (copy_add_destination(copy, err) != 0)
        return -1;
    if (!wildcard_has(clean)) {
        cleanup_free char *folder = tree_resolve(copy->source, clean, true, err);
        if (!folder || add_with_parents(copy, folder, pattern, &count, err) != 0)
            return -1;
        return count || wildcard_has(pattern) ? 0 : missing(copy, word, err);
    }
    cleanup_free char *top = wildcard_folder(copy, clean, &name, err);
    for (size_t i = 0; top && i < copy->node_count; i++) {
        int found = matches(top, name, copy->nodes[i], err);
        if (found < 0 ||
            (found && add_with_parents(copy, copy->nodes[i]->path, pattern, &count, err) != 0))
            return -1;
    }
    return top ? 0 : -1;
}

int copy_add_word(struct copy *copy, const char *word, struct error *err)
{
    copy->word++;
    if (copy_is_remote(word))
        return copy_add_remote(copy, word, err);
    if (copy->parents)
        return add_parents_word(copy, word, err);
    cleanup_free char *path = tree_clean(word);
    if (wildcard_has(path))
        return add_wildcard(copy, path, word, err);
    cleanup_free char *real = tree_resolve(copy->source, path, true, err);
    if (!real)
        return -1;
    return *real && !tree_get(copy->source, real) ? missing(copy, word, err)
                                                  : add_source(copy, real, path, err);
}

/* ---- heredocs ---- */

int copy_add_spooled(struct copy *copy, const char *name, mode_t mode, int64_t offset,
                     struct error *err)
{
    cleanup_free char *to = copy->to_folder ? join(copy->to, name) : mem_strdup(copy->to);
    cleanup_free char *path = mem_strdup(name);
    int64_t end = lseek(copy->spool, 0, SEEK_CUR);

    if (copy->to_folder &&
        (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0))
        return error_set(err, ERR_INVALID, "'%.200s' is no name of a file", name);
    const struct tree_node node = {
        .path = path, .mode = S_IFREG | mode, .size = (uint64_t)(end - offset)};
    if (copy_add_node(copy, &node, to, err) != 0)
        return -1;
    struct item *item = &copy->items[copy->count - 1];
    free(item->from);
    item->from = NULL;
    item->offset = (uint64_t)offset;
    return 0;
}

/* Its text as a file, named like the heredoc when the destination is a folder. */
int copy_add_heredoc(struct copy *copy, const struct value *heredoc, struct error *err)
{
    const char *name = value_get_string(heredoc, "name", ""),
               *text = value_get_string(heredoc, "text", "");
    cleanup_free char *expanded = value_get_bool(heredoc, "expand", false)
                                      ? stage_expand_text(copy->builder, copy->stage, text, err)
                                      : mem_strdup(text);
    int64_t offset = lseek(copy->spool, 0, SEEK_CUR);

    if (!expanded || fd_write_all(copy->spool, expanded, strlen(expanded), err) != 0 ||
        copy_add_spooled(copy, name, 0644, offset, err) != 0)
        return error_wrap(err, "<<%s", name);
    return 0;
}
