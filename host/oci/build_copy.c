/* COPY, ADD, WORKDIR: the instructions that make a layer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/build_copy.h"
#include "oci/ignore.h"
#include "oci/layer.h"
#include "oci/tar_read.h"

static void copy_end(struct copy *copy)
{
    for (size_t i = 0; i < copy->count; i++) {
        free(copy->items[i].to);
        free(copy->items[i].link);
        free(copy->items[i].from);
    }
    free(copy->items);
    free(copy->nodes);
    free(copy->to);
    stage_free(&copy->image);
    tree_free(&copy->context_tree);
    if (copy->spool >= 0)
        close(copy->spool);
}

/* `to` is freed by the copy. Returns the new item, until the next one. */
static struct item *keep(struct copy *copy, char *to, mode_t mode, uint32_t uid, uint32_t gid)
{
    if (copy->count == copy->room) {
        copy->room = copy->room ? copy->room * 2 : 64;
        copy->items = mem_array(copy->items, copy->room, sizeof *copy->items);
    }
    if (copy->owned) {
        uid = copy->uid;
        gid = copy->gid;
    }
    if (copy->moded && !S_ISLNK(mode))
        mode = (mode & S_IFMT) | copy->mode;
    struct item *item = &copy->items[copy->count];
    *item = (struct item){.to = to, .mode = mode, .uid = uid, .gid = gid, .order = copy->count++};
    return item;
}

static char *join(const char *folder, const char *name)
{
    return mem_printf("%s%s%s", folder, *folder && *name ? "/" : "", name);
}

/* ---- where from ---- */

/* The context as a tree: what git keeps of modes, so that a clone with another umask builds the
 * same image. */
static int context_source(struct copy *copy, struct error *err)
{
    struct context *context = builder_context(copy->builder, err);

    if (!context)
        return -1;
    for (size_t i = 0; i < context->count; i++) {
        const struct context_file *file = &context->files[i];
        mode_t mode = S_ISLNK(file->mode)   ? S_IFLNK | 0777
                      : S_ISDIR(file->mode) ? S_IFDIR | 0755
                                            : S_IFREG | (file->mode & 0111 ? 0755 : 0644);
        tree_put(&copy->context_tree, file->path, mode, 0, 0, file->link, NULL, file->size);
    }
    copy->source = &copy->context_tree;
    return 0;
}

static int stage_source(struct copy *copy, const char *name, struct error *err)
{
    struct stage *stage = builder_stage(copy->builder, name);

    if (stage == copy->stage)
        return error_set(err, ERR_INVALID, "--from=%s: a stage cannot copy from itself", name);
    if (stage && stage > copy->stage)
        return error_set(err, ERR_INVALID, "--from=%s: that stage comes later", name);
    if (stage) {
        if (builder_build(copy->builder, stage, err) != 0)
            return -1;
    } else {
        stage = &copy->image;
        if (builder_image(copy->builder, name, stage, err) != 0)
            return error_wrap(err, "--from=%s", name);
    }
    if (stage_tree(copy->builder, stage, err) != 0)
        return -1;
    copy->from_stage = stage;
    copy->source = &stage->tree;
    return 0;
}

/* ---- what ---- */

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

static int add_node(struct copy *copy, const struct tree_node *node, const char *to,
                    struct error *err)
{
    char *path = tree_resolve(&copy->stage->tree, to, S_ISDIR(node->mode), err);

    if (!path)
        return -1;
    const struct tree_node *there = tree_get(&copy->stage->tree, path);
    /* A folder that is there keeps its owner and mode: /tmp shall not lose its sticky bit. */
    if (S_ISDIR(node->mode) &&
        (!*path || (there && S_ISDIR(there->mode) && !copy->owned && !copy->moded))) {
        free(path);
        return 0;
    }
    if (there && S_ISDIR(there->mode) && !S_ISDIR(node->mode)) {
        error_set(err, ERR_INVALID, "/%s is a folder in the image and %s is none", path,
                  node->path);
        free(path);
        return -1;
    }
    struct item *item = keep(copy, path, node->mode, node->uid, node->gid);
    item->size = node->size;
    item->layer = node->layer;
    item->link = S_ISLNK(node->mode) ? mem_strdup(node->link) : NULL;
    /* Of a stage the name in its layer, until the content is in the spool. */
    if (S_ISREG(node->mode))
        item->from = mem_strdup(node->origin ? node->origin : node->path);
    return 0;
}

static int add_archive(struct copy *copy, const char *path, int fd, struct error *err)
{
    struct tar_entry entry;
    int status;
    struct tar_reader *reader = tar_reader_new(fd, err);

    if (!reader)
        return -1;
    while ((status = tar_reader_next(reader, &entry, err)) > 0) {
        if (!*entry.path)
            continue;
        cleanup_free char *to = join(copy->to, entry.path);
        char *resolved = tree_resolve(&copy->stage->tree, to, S_ISDIR(entry.mode), err);
        if (!resolved) {
            status = -1;
            break;
        }
        struct item *item = keep(copy, resolved, entry.mode, entry.uid, entry.gid);
        item->link = mem_strdup(entry.symlink);
        if (entry.hardlink) {
            cleanup_free char *other = join(copy->to, entry.hardlink);
            const struct item *found = NULL;
            for (size_t i = 0; i + 1 < copy->count && !found; i++)
                if (strcmp(copy->items[i].to, other) == 0)
                    found = &copy->items[i];
            if (!found) {
                status =
                    error_set(err, ERR_INVALID, "%s: %s is a link to nothing", path, entry.path);
                break;
            }
            item->mode = found->mode;
            item->offset = found->offset;
            item->size = found->size;
        } else if (S_ISREG(entry.mode)) {
            item->offset = (uint64_t)lseek(copy->spool, 0, SEEK_CUR);
            int64_t size = tar_reader_copy(reader, copy->spool, err);
            if (size < 0) {
                status = -1;
                break;
            }
            item->size = (uint64_t)size;
        }
    }
    tar_reader_free(reader);
    return status < 0 ? error_wrap(err, "%s", path) : 0;
}

/* ADD unpacks an archive of the context. 1: it was one. */
static int try_archive(struct copy *copy, const struct tree_node *node, struct error *err)
{
    if (!copy->add || copy->from_stage || !S_ISREG(node->mode))
        return 0;
    cleanup_close int fd = context_open(copy->builder->context, node->path, err);
    if (fd < 0)
        return -1;
    if (!tar_is_archive(fd))
        return 0;
    return add_archive(copy, node->path, fd, err) == 0 ? 1 : -1;
}

/* The folder that a folder's content goes to: never the source's owner and mode. New ones have
 * those of --chown, not of --chmod; one that is there stays as it is. */
static int add_destination(struct copy *copy, struct error *err)
{
    const struct tree_node *there = *copy->to ? tree_get(&copy->stage->tree, copy->to) : NULL;
    bool moded = copy->moded;

    if (there && !S_ISDIR(there->mode))
        return error_set(err, ERR_INVALID, "/%s is in the image, and no folder", copy->to);
    if (!*copy->to || there)
        return 0;
    copy->moded = false;
    keep(copy, mem_strdup(copy->to), S_IFDIR | 0755, 0, 0);
    copy->moded = moded;
    return 0;
}

/* One source that exists: a file, or what is in a folder. */
static int add_source(struct copy *copy, const char *path, const char *name, struct error *err)
{
    const struct tree_node *node = *path ? tree_get(copy->source, path) : NULL;
    size_t len = strlen(path);

    if (node && !S_ISDIR(node->mode)) {
        int archive = try_archive(copy, node, err);
        if (archive != 0)
            return archive < 0 ? -1 : 0;
        const char *slash = strrchr(name, '/');
        cleanup_free char *to =
            copy->to_folder ? join(copy->to, slash ? slash + 1 : name) : mem_strdup(copy->to);
        return add_node(copy, node, to, err);
    }
    if (add_destination(copy, err) != 0)
        return -1;
    for (size_t i = 0; i < copy->node_count; i++) {
        const struct tree_node *below = copy->nodes[i];
        if (len && (strncmp(below->path, path, len) != 0 || below->path[len] != '/'))
            continue;
        cleanup_free char *to = join(copy->to, below->path + (len ? len + 1 : 0));
        if (add_node(copy, below, to, err) != 0)
            return -1;
    }
    return 0;
}

static int add_word(struct copy *copy, const char *word, struct error *err)
{
    cleanup_free char *path = tree_clean(word);
    size_t matches = 0;

    if (strstr(word, "://") || strncmp(word, "git@", 4) == 0) {
        error_set(err, ERR_UNSUPPORTED, "%s of a URL is not supported: %s", copy->keyword, word);
        return error_hint(err, "download it in the pipeline, check its digest, and COPY the file");
    }
    if (!wildcard_has(path)) {
        cleanup_free char *real = tree_resolve(copy->source, path, true, err);
        if (!real)
            return -1;
        return *real && !tree_get(copy->source, real) ? missing(copy, word, err)
                                                      : add_source(copy, real, path, err);
    }
    for (size_t i = 0; i < copy->node_count; i++) {
        int found = wildcard_match(path, copy->nodes[i]->path);
        if (found < 0)
            return error_set(err, ERR_INVALID, "the pattern '%s' is malformed", word);
        if (!found)
            continue;
        if (++matches > 1)
            copy->to_folder = true;
        if (add_source(copy, copy->nodes[i]->path, copy->nodes[i]->path, err) != 0)
            return -1;
    }
    return matches ? 0 : missing(copy, word, err);
}

/* The heredoc that a source names, or NULL. */
static const struct value *heredoc_of(const struct value *instruction, const char *word)
{
    const struct value *list = value_get(instruction, "heredocs");

    for (size_t i = 0; i < value_count(list); i++)
        if (strcmp(value_get_string(value_at(list, i), "word", ""), word) == 0)
            return value_at(list, i);
    return NULL;
}

/* Its text as a file, named like the heredoc when the destination is a folder. */
static int add_heredoc(struct copy *copy, const struct value *heredoc, struct error *err)
{
    const char *name = value_get_string(heredoc, "name", ""),
               *text = value_get_string(heredoc, "text", "");
    cleanup_free char *expanded = value_get_bool(heredoc, "expand", false)
                                      ? stage_expand_text(copy->builder, copy->stage, text, err)
                                      : mem_strdup(text);
    cleanup_free char *to = copy->to_folder ? join(copy->to, name) : mem_strdup(copy->to);

    if (!expanded)
        return error_wrap(err, "<<%s", name);
    const struct tree_node node = {
        .path = mem_strdup(name), .mode = S_IFREG | 0644, .size = strlen(expanded)};
    int64_t offset = lseek(copy->spool, 0, SEEK_CUR);
    int status = strchr(name, '/') || strcmp(name, "..") == 0
                     ? error_set(err, ERR_INVALID, "<<%s: that is no name of a file", name)
                     : add_node(copy, &node, to, err);
    free(node.path);
    if (status != 0 || fd_write_all(copy->spool, expanded, strlen(expanded), err) != 0)
        return -1;
    struct item *item = &copy->items[copy->count - 1];
    free(item->from);
    item->from = NULL;
    item->offset = (uint64_t)offset;
    return 0;
}

/* How many files a wildcard names must be known before the first is given its place. */
static size_t count_matches(const struct copy *copy, const char *word)
{
    cleanup_free char *path = tree_clean(word);
    size_t matches = 0;

    for (size_t i = 0; wildcard_has(path) && i < copy->node_count; i++)
        matches += wildcard_match(path, copy->nodes[i]->path) == 1;
    return matches;
}

/* ---- the layer ---- */

static int compare_items(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int order = strcmp(x->to, y->to);

    return order ? order : x->order < y->order ? -1 : x->order > y->order;
}

/* Folders on the way that neither the image nor the layer has; the owner of --chown is theirs too.
 */
static void add_parents(struct copy *copy)
{
    cleanup_value struct value seen = {0};
    size_t count = copy->count;
    bool moded = copy->moded;

    value_set_map(&seen);
    for (size_t i = 0; i < count; i++)
        value_put(&seen, copy->items[i].to);
    copy->moded = false;
    for (size_t i = 0; i < count; i++) {
        cleanup_free char *parent = mem_strdup(copy->items[i].to);
        for (char *slash = strrchr(parent, '/'); slash; slash = strrchr(parent, '/')) {
            *slash = '\0';
            if (value_get(&seen, parent) || tree_get(&copy->stage->tree, parent))
                break;
            value_put(&seen, parent);
            keep(copy, mem_strdup(parent), S_IFDIR | 0755, 0, 0);
        }
    }
    copy->moded = moded;
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
                                .link = item->link,
                                .fd = copy->spool,
                                .offset = item->offset,
                                .size = item->size};
    cleanup_close int fd = -1;

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
        if (i + 1 < copy->count && strcmp(item->to, copy->items[i + 1].to) == 0) {
            free(item->to);
            free(item->link);
            free(item->from);
        } else {
            copy->items[count++] = *item;
        }
    }
    copy->count = count;
}

static int pack_items(struct copy *copy, struct cached_layer *out, struct error *err)
{
    struct layer_result result;

    if (spool_contents(copy, err) != 0)
        return -1;
    struct layer *layer = layer_new(copy->builder->spec->store, copy->builder->spec->epoch, err);
    if (!layer)
        return -1;
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

static int write_layer(struct copy *copy, const struct value *instruction, struct error *err)
{
    bool caching =
        build_cache_reads(copy->builder->spec) || build_cache_writes(copy->builder->spec);
    struct cached_layer layer;
    struct copy_keys keys = {0};

    if (!copy->count) {
        stage_history(copy->builder, copy->stage, instruction, true);
        return 0;
    }
    add_parents(copy);
    sort_items(copy);
    int found = caching ? copy_cached(copy, &keys, &layer, err) : 0;
    if (found < 0)
        return -1;
    if (!found && pack_items(copy, &layer, err) != 0)
        return -1;
    if (build_cache_writes(copy->builder->spec) && copy_keep(copy, &keys, &layer, err) != 0)
        return -1;
    for (size_t i = 0; i < copy->count; i++) {
        const struct item *item = &copy->items[i];
        tree_put(&copy->stage->tree, item->to, item->mode, item->uid, item->gid, item->link, NULL,
                 item->size);
    }
    copy->stage->tree.layers++;
    stage_add_layer(copy->builder, copy->stage, instruction, &layer, found);
    return 0;
}

/* ---- the instructions ---- */

static char *absolute(struct stage *stage, const char *path)
{
    cleanup_free char *joined =
        *path == '/'
            ? mem_strdup(path)
            : mem_printf("%s/%s", value_get_string(&stage->config, "WorkingDir", "/"), path);

    return tree_clean(joined);
}

static bool names_folder(const char *path)
{
    size_t len = strlen(path);

    return len == 0 || path[len - 1] == '/' || strcmp(path, ".") == 0 || strcmp(path, "..") == 0 ||
           (len >= 2 && strcmp(path + len - 2, "/.") == 0);
}

static int parse_flags(struct copy *copy, const struct value *flags, struct error *err)
{
    const char *chown = value_get_string(flags, "chown", NULL),
               *chmod = value_get_string(flags, "chmod", NULL);

    if (value_get(flags, "checksum") || value_get(flags, "keep-git-dir"))
        return error_set(err, ERR_UNSUPPORTED,
                         "--checksum and --keep-git-dir are for URLs, which are not supported");
    if (chown) {
        cleanup_free char *text = stage_expand(copy->builder, copy->stage, chown, err);
        if (!text ||
            build_owner(copy->builder, copy->stage, text, &copy->uid, &copy->gid, err) != 0)
            return error_wrap(err, "--chown=%s", chown);
        copy->owned = true;
    }
    if (chmod) {
        cleanup_free char *text = stage_expand(copy->builder, copy->stage, chmod, err);
        char *end = NULL;
        unsigned long mode = text ? strtoul(text, &end, 8) : 0;
        if (!text || end == text || *end || mode > 07777) {
            error_set(err, ERR_INVALID, "--chmod=%s is no octal mode", chmod);
            return error_hint(err,
                              "--chmod=755 and the like; symbolic modes are not supported yet");
        }
        copy->mode = (mode_t)mode;
        copy->moded = true;
    }
    return 0;
}

static int run_copy(struct copy *copy, const struct value *instruction, struct error *err)
{
    const struct value *words = value_get(instruction, "words"),
                       *flags = value_get(instruction, "flags");
    const char *from = value_get_string(flags, "from", NULL);
    size_t sources = value_count(words) - 1, matches = 0;

    if (parse_flags(copy, flags, err) != 0 || stage_tree(copy->builder, copy->stage, err) != 0 ||
        (from ? stage_source(copy, from, err) : context_source(copy, err)) != 0)
        return -1;
    copy->nodes = tree_sorted(copy->source, &copy->node_count);
    copy->spool = store_scratch(copy->builder->spec->store, err);
    if (copy->spool < 0)
        return -1;
    cleanup_free char *to =
        stage_expand(copy->builder, copy->stage, value_text(value_at(words, sources), ""), err);
    if (!to)
        return -1;
    cleanup_free char *full = absolute(copy->stage, to);
    copy->to = tree_resolve(&copy->stage->tree, full, true, err);
    if (!copy->to)
        return -1;
    const struct tree_node *there = tree_get(&copy->stage->tree, copy->to);
    for (size_t pass = 0; pass < 2; pass++) {
        if (pass == 1)
            copy->to_folder = !*copy->to || names_folder(to) || sources > 1 || matches > 1 ||
                              (there && S_ISDIR(there->mode));
        for (size_t i = 0; i < sources; i++) {
            const char *written = value_text(value_at(words, i), "");
            const struct value *heredoc = heredoc_of(instruction, written);
            if (heredoc) {
                if (pass == 1 && add_heredoc(copy, heredoc, err) != 0)
                    return -1;
                continue;
            }
            cleanup_free char *word = stage_expand(copy->builder, copy->stage, written, err);
            if (!word || (pass == 1 && add_word(copy, word, err) != 0))
                return -1;
            matches += pass == 0 ? count_matches(copy, word) : 0;
        }
    }
    return write_layer(copy, instruction, err);
}

int build_copy(struct builder *builder, struct stage *stage, const struct value *instruction,
               struct error *err)
{
    const char *keyword = value_get_string(instruction, "keyword", "");
    struct copy copy = {.builder = builder,
                        .stage = stage,
                        .keyword = keyword,
                        .add = strcmp(keyword, "ADD") == 0,
                        .spool = -1};
    int status = run_copy(&copy, instruction, err);

    copy_end(&copy);
    return status == 0 ? 0 : error_wrap(err, "%s", keyword);
}

int build_workdir(struct builder *builder, struct stage *stage, const struct value *instruction,
                  struct error *err)
{
    struct copy copy = {.builder = builder, .stage = stage, .spool = -1};
    cleanup_free char *word =
        stage_expand(builder, stage, value_get_string(instruction, "text", ""), err);

    if (!word || stage_tree(builder, stage, err) != 0)
        return -1;
    cleanup_free char *path = absolute(stage, word);
    cleanup_free char *real = tree_resolve(&stage->tree, path, true, err);
    if (!real)
        return -1;
    value_set_printf(value_put(&stage->config, "WorkingDir"), "/%s", path);
    const struct tree_node *node = *real ? tree_get(&stage->tree, real) : NULL;
    if (node && !S_ISDIR(node->mode))
        return error_set(err, ERR_INVALID, "WORKDIR: /%s is in the image, and no folder", real);
    /* New folders belong to USER; one that the image does not know is root here, as in Docker. */
    const char *user = value_get_string(&stage->config, "User", "");
    copy.owned = *user && build_owner(builder, stage, user, &copy.uid, &copy.gid, NULL) == 0;
    if (*real && !node)
        keep(&copy, mem_strdup(real), S_IFDIR | 0755, 0, 0);
    int status = write_layer(&copy, instruction, err);
    copy_end(&copy);
    return status;
}
