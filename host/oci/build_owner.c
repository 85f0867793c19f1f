/* Names of users and groups, as the image under construction knows them. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/build_internal.h"

#define TABLE_LIMIT (1u << 20)

int stage_read_file(struct builder *builder, struct stage *stage, const char *path, struct buf *out,
                    struct error *err)
{
    cleanup_value struct value wanted = {0};
    char piece[4096];

    if (stage_tree(builder, stage, err) != 0)
        return -1;
    cleanup_free char *real = tree_resolve(&stage->tree, path, true, err);
    const struct tree_node *node = real ? tree_get(&stage->tree, real) : NULL;
    if (!node || !S_ISREG(node->mode) || node->size > TABLE_LIMIT)
        return error_set(err, ERR_NOT_FOUND, "the image has no %s", path);
    const char *origin = node->origin ? node->origin : node->path;
    cleanup_close int to = store_scratch(builder->spec->store, err);
    cleanup_close int fd = store_blob_open(
        builder->spec->store,
        value_get_string(value_at(&stage->layers, (size_t)node->layer), "digest", ""), NULL, err);
    value_set_map(&wanted);
    value_put(&wanted, origin);
    if (to < 0 || fd < 0 || tree_spool(fd, &wanted, to, err) != 0 || lseek(to, 0, SEEK_SET) < 0)
        return -1;
    for (ssize_t n; (n = read(to, piece, sizeof piece)) > 0;)
        buf_append(out, piece, (size_t)n);
    return 0;
}

const char *table_next(const char *line)
{
    const char *stop = strchr(line, '\n');

    return stop ? stop + 1 : NULL;
}

/* Field `field` (from 0) of the line whose first one is `name`, as a number. */
static int table_lookup(const char *table, const char *name, int field, uint32_t *out)
{
    size_t len = strlen(name);

    for (const char *line = table; line && *line; line = table_next(line)) {
        if (strncmp(line, name, len) != 0 || line[len] != ':')
            continue;
        const char *at = line;
        for (int i = 0; at && i < field; i++)
            at = strpbrk(at, ":\n") && *strpbrk(at, ":\n") == ':' ? strchr(at, ':') + 1 : NULL;
        if (!at || !isdigit((unsigned char)*at))
            return -1;
        *out = (uint32_t)strtoul(at, NULL, 10);
        return 0;
    }
    return -1;
}

/* group: of a user who is known by name, from the same line; may be NULL. */
static int resolve(struct builder *builder, struct stage *stage, const char *name,
                   const char *table, uint32_t *out, uint32_t *group, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    char *end;

    if (isdigit((unsigned char)*name)) {
        unsigned long long id = strtoull(name, &end, 10);
        if (*end || id > UINT32_MAX)
            return error_set(err, ERR_INVALID, "'%s' is neither a name nor a number", name);
        *out = (uint32_t)id;
        if (group)
            *group = *out; /* as Docker has it */
        return 0;
    }
    bool there = stage_read_file(builder, stage, table, &text, NULL) == 0;
    if (!there && strcmp(name, "root") == 0) { /* who is 0 without a table, too */
        *out = 0;
        return 0;
    }
    if (!there || table_lookup(text.data ? text.data : "", name, 2, out) != 0 ||
        (group && table_lookup(text.data, name, 3, group) != 0)) {
        error_set(err, ERR_NOT_FOUND, "'%s' is not in /%s of the image", name, table);
        return error_hint(err, "use the number, or a base image that has the name");
    }
    return 0;
}

int build_owner(struct builder *builder, struct stage *stage, const char *text, uint32_t *uid,
                uint32_t *gid, struct error *err)
{
    size_t len = strcspn(text, ":");
    cleanup_free char *user = mem_strndup(text, len);
    const char *group = text[len] ? text + len + 1 : NULL;

    *uid = *gid = 0;
    if (*user && resolve(builder, stage, user, "etc/passwd", uid, gid, err) != 0)
        return -1;
    return group && *group ? resolve(builder, stage, group, "etc/group", gid, NULL, err) : 0;
}
