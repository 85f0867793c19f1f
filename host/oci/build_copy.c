/* COPY, ADD, WORKDIR: the instructions and their flags. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/build_copy.h"
#include "oci/ignore.h"

static void copy_end(struct copy *copy)
{
    copy_free_items(copy);
    free(copy->nodes);
    free(copy->to);
    free(copy->chmod);
    free(copy->checksum);
    ignore_free(copy->exclude);
    stage_free(&copy->image);
    tree_free(&copy->context_tree);
    tree_free(&copy->empty);
    if (copy->spool >= 0)
        close(copy->spool);
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
    } else if (strchr(name, '$')) {
        error_set(err, ERR_INVALID, "--from=%s: variables have no meaning there", name);
        return error_hint(err, "FROM %s AS other, above, and --from=other", name);
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
               *chmod = value_get_string(flags, "chmod", NULL),
               *checksum = value_get_string(flags, "checksum", NULL);
    const struct value *exclude = value_get(flags, "exclude");

    copy->link = value_get_bool(flags, "link", false);
    copy->parents = value_get_bool(flags, "parents", false);
    copy->unpack = value_get_bool(flags, "unpack", copy->add);
    copy->unpack_given = copy->unpack && value_get(flags, "unpack");
    copy->keep_git = value_get_bool(flags, "keep-git-dir", false);
    copy->target = copy->link ? &copy->empty : &copy->stage->tree;
    if (chown) {
        cleanup_free char *text = stage_expand(copy->builder, copy->stage, chown, err);
        if (!text ||
            build_owner(copy->builder, copy->stage, text, &copy->uid, &copy->gid, err) != 0)
            return error_wrap(err, "--chown=%s", chown);
        copy->owned = true;
    }
    if (chmod) {
        copy->chmod = stage_expand(copy->builder, copy->stage, chmod, err);
        if (!copy->chmod || chmod_check(copy->chmod, err) != 0)
            return -1;
    }
    if (checksum && !(copy->checksum = stage_expand(copy->builder, copy->stage, checksum, err)))
        return -1;
    if (!exclude)
        return 0;
    cleanup_value struct value patterns = {0};
    value_set_array(&patterns);
    for (size_t i = 0; i < value_count(exclude); i++) {
        char *text =
            stage_expand(copy->builder, copy->stage, value_text(value_at(exclude, i), ""), err);
        if (!text)
            return -1;
        value_take_string(value_push(&patterns), text);
    }
    copy->exclude = ignore_patterns(&patterns, "--exclude", err);
    return copy->exclude ? 0 : -1;
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
    copy->to = tree_resolve(copy->target, full, true, err);
    if (!copy->to)
        return -1;
    const struct tree_node *there = tree_get(copy->target, copy->to);
    if (copy->checksum && sources > 1)
        return error_set(err, ERR_INVALID, "--checksum is for one source");
    for (size_t pass = 0; pass < 2; pass++) {
        if (pass == 1)
            copy->to_folder = !*copy->to || copy->parents || names_folder(to) || sources > 1 ||
                              matches > 1 || (there && S_ISDIR(there->mode));
        for (size_t i = 0; i < sources; i++) {
            const char *written = value_text(value_at(words, i), "");
            const struct value *heredoc = heredoc_of(instruction, written);
            if (heredoc) {
                if (pass == 1 && copy_add_heredoc(copy, heredoc, err) != 0)
                    return -1;
                continue;
            }
            cleanup_free char *word = stage_expand(copy->builder, copy->stage, written, err);
            if (!word || (pass == 1 && copy_add_word(copy, word, err) != 0))
                return -1;
            matches += pass == 0 ? copy_count_matches(copy, word) : 0;
        }
    }
    return copy_write(copy, instruction, err);
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
    struct copy copy = {.builder = builder, .stage = stage, .target = &stage->tree, .spool = -1};
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
        copy_folder(&copy, mem_strdup(real));
    int status = copy_write(&copy, instruction, err);
    copy_end(&copy);
    return status;
}
