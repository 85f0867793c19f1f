#include "oci/build_run_mount.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/config.h"
#include "base/mem.h"
#include "base/size.h"

#define TMPFS_LIMIT ((uint64_t)1 << 40)

static const char *const kind_names[] = {"bind", "cache", "tmpfs", "secret"};
#define ON(kind) (1u << RUN_MOUNT_##kind)
#define ANY      (ON(BIND) | ON(CACHE) | ON(TMPFS) | ON(SECRET))

enum key {
    KEY_TYPE,
    KEY_TARGET,
    KEY_SOURCE,
    KEY_FROM,
    KEY_READ_ONLY,
    KEY_READ_WRITE,
    KEY_ID,
    KEY_SHARING,
    KEY_MODE,
    KEY_UID,
    KEY_GID,
    KEY_SIZE,
    KEY_ENV,
    KEY_REQUIRED,
};
static const struct {
    const char *name;
    enum key key;
    unsigned kinds; /* that know it */
    bool flag;      /* may stand without a value */
} keys[] = {
    {"type", KEY_TYPE, ANY, false},
    {"target", KEY_TARGET, ANY, false},
    {"dst", KEY_TARGET, ANY, false},
    {"destination", KEY_TARGET, ANY, false},
    {"source", KEY_SOURCE, ON(BIND) | ON(CACHE) | ON(SECRET), false},
    {"src", KEY_SOURCE, ON(BIND) | ON(CACHE) | ON(SECRET), false},
    {"from", KEY_FROM, ON(BIND) | ON(CACHE), false},
    {"readonly", KEY_READ_ONLY, ON(BIND) | ON(CACHE), true},
    {"ro", KEY_READ_ONLY, ON(BIND) | ON(CACHE), true},
    {"readwrite", KEY_READ_WRITE, ON(BIND) | ON(CACHE), true},
    {"rw", KEY_READ_WRITE, ON(BIND) | ON(CACHE), true},
    {"id", KEY_ID, ON(CACHE) | ON(SECRET), false},
    {"sharing", KEY_SHARING, ON(CACHE), false},
    {"mode", KEY_MODE, ON(CACHE) | ON(SECRET), false},
    {"uid", KEY_UID, ON(CACHE) | ON(SECRET), false},
    {"gid", KEY_GID, ON(CACHE) | ON(SECRET), false},
    {"size", KEY_SIZE, ON(TMPFS), false},
    {"env", KEY_ENV, ON(SECRET), false},
    {"required", KEY_REQUIRED, ON(SECRET), true},
};
#define KEYS (sizeof keys / sizeof *keys)

static void mount_free(struct run_mount *mount)
{
    free(mount->target);
    free(mount->from);
    free(mount->source);
    free(mount->id);
    free(mount->env);
}

void run_mounts_free(struct run_mounts *mounts)
{
    for (size_t i = 0; i < mounts->count; i++)
        mount_free(&mounts->items[i]);
    free(mounts->items);
    *mounts = (struct run_mounts){0};
}

/* One field of a line of comma separated values: "a,b" in quotes is one, "" in them a quote. */
static const char *next_field(const char *at, struct buf *field)
{
    buf_clear(field);
    buf_puts(field, "");
    if (*at != '"') {
        size_t len = strcspn(at, ",");
        buf_append(field, at, len);
        return at + len;
    }
    for (at++; *at; at++) {
        if (*at == '"' && at[1] != '"')
            return at + 1;
        at += *at == '"';
        buf_putc(field, *at);
    }
    return NULL;
}

static int key_find(const char *name, size_t len, struct error *err)
{
    const char *names[KEYS];
    cleanup_free char *text = mem_strndup(name, len);

    for (size_t i = 0; i < KEYS; i++) {
        names[i] = keys[i].name;
        if (strcasecmp(keys[i].name, text) == 0)
            return (int)i;
    }
    const char *near = near_miss(text, names, KEYS);
    error_set(err, ERR_INVALID, "unknown key '%s'", text);
    return near ? error_hint(err, "did you mean %s?", near)
                : error_hint(err, "keys: type, target, source, from, readonly, readwrite, id, "
                                  "sharing, mode, uid, gid, size, env, required");
}

static int parse_bool(const char *text, bool *out, struct error *err)
{
    static const char *const yes[] = {"1", "t", "true"}, *const no[] = {"0", "f", "false"};

    for (size_t i = 0; i < 3; i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *out = strcasecmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return error_set(err, ERR_INVALID, "'%s' must be true or false", text);
}

static int parse_number(const char *text, int base, unsigned long limit, unsigned long *out,
                        struct error *err)
{
    char *end;

    errno = 0;
    *out = strtoul(text, &end, base);
    if (!*text || *text == '-' || *text == '+' || *end || errno || *out > limit)
        return error_set(err, ERR_INVALID, "'%s' must be %s", text,
                         base == 8 ? "an octal number, such as 0755" : "a number");
    return 0;
}

static int parse_kind(const char *text, struct run_mount *mount, struct error *err)
{
    for (size_t i = 0; i < sizeof kind_names / sizeof *kind_names; i++) {
        if (strcasecmp(text, kind_names[i]) == 0) {
            mount->kind = (enum run_mount_kind)i;
            return 0;
        }
    }
    if (strcasecmp(text, "ssh") == 0) {
        error_set(err, ERR_UNSUPPORTED, "type=ssh is not supported");
        return error_hint(err, "fetch in a stage before the build, or pass a deploy key or token "
                               "with type=secret");
    }
    error_set(err, ERR_INVALID, "unknown type '%s'", text);
    return error_hint(err, "types: bind, cache, tmpfs, secret");
}

static int parse_sharing(const char *text, enum run_sharing *out, struct error *err)
{
    static const char *const names[] = {"shared", "private", "locked"};

    for (size_t i = 0; i < 3; i++) {
        if (strcasecmp(text, names[i]) == 0) {
            *out = (enum run_sharing)i;
            return 0;
        }
    }
    return error_set(err, ERR_INVALID, "'%s' must be shared, private or locked", text);
}

static int parse_size(const char *text, uint64_t *out, struct error *err)
{
    if (size_parse(text, out, err) != 0)
        return -1;
    return *out <= TMPFS_LIMIT ? 0 : error_set(err, ERR_INVALID, "'%s' is too large", text);
}

/* "a/../b//c" below `folder` -> "/.../b/c"; no way leads above the root. */
static char *clean_path(const char *folder, const char *path)
{
    cleanup_free char *whole =
        *path == '/' ? mem_strdup(path) : mem_printf("%s/%s", folder ? folder : "", path);
    struct buf clean = BUF_INIT;

    for (const char *at = whole; *at;) {
        size_t len = strcspn(at, "/");
        if (len == 2 && at[0] == '.' && at[1] == '.') {
            while (clean.len && clean.data[--clean.len] != '/')
                ;
        } else if (len && !(len == 1 && *at == '.')) {
            buf_putc(&clean, '/');
            buf_append(&clean, at, len);
        }
        at += len + (at[len] == '/');
    }
    if (!clean.len)
        buf_putc(&clean, '/');
    clean.data[clean.len] = '\0';
    return buf_steal(&clean);
}

struct parsing {
    struct run_mount mount;
    unsigned seen; /* bits of enum key */
    const char *folder;
    run_expand_fn *expand;
    void *ctx;
};

static void keep(char **slot, char **text)
{
    free(*slot);
    *slot = steal_ptr(text);
}

static int parse_field(struct parsing *parsing, const char *field, struct error *err)
{
    struct run_mount *mount = &parsing->mount;
    size_t len = strcspn(field, "=");
    int row = key_find(field, len, err);
    unsigned long number = 0;
    bool yes = true;
    int status = 0;

    if (row < 0)
        return -1;
    if (!field[len] && !keys[row].flag)
        return error_set(err, ERR_INVALID, "'%s' needs a value: %s=...", field, keys[row].name);
    if (keys[row].key == KEY_FROM && strchr(field, '$')) {
        error_set(err, ERR_INVALID, "from cannot hold a variable");
        return error_hint(err, "name it as a stage: FROM %s AS tools", field + len + 1);
    }
    cleanup_free char *text =
        field[len] ? parsing->expand(parsing->ctx, field + len + 1, err) : mem_strdup("true");
    if (!text)
        return -1;
    parsing->seen |= 1u << keys[row].key;
    switch (keys[row].key) {
    case KEY_TYPE:
        status = parse_kind(text, mount, err);
        break;
    case KEY_TARGET:
        keep(&mount->target, &text);
        break;
    case KEY_SOURCE:
        keep(&mount->source, &text);
        break;
    case KEY_FROM:
        keep(&mount->from, &text);
        break;
    case KEY_ID:
        keep(&mount->id, &text);
        break;
    case KEY_ENV:
        keep(&mount->env, &text);
        break;
    case KEY_READ_ONLY:
    case KEY_READ_WRITE:
        status = parse_bool(text, &yes, err);
        mount->read_only = yes == (keys[row].key == KEY_READ_ONLY);
        break;
    case KEY_REQUIRED:
        status = parse_bool(text, &mount->required, err);
        break;
    case KEY_SHARING:
        status = parse_sharing(text, &mount->sharing, err);
        break;
    case KEY_MODE:
        status = parse_number(text, 8, 07777, &number, err);
        mount->mode = (mode_t)number;
        break;
    case KEY_UID:
        status = parse_number(text, 10, UINT32_MAX - 1, &number, err);
        mount->uid = (uint32_t)number;
        break;
    case KEY_GID:
        status = parse_number(text, 10, UINT32_MAX - 1, &number, err);
        mount->gid = (uint32_t)number;
        break;
    case KEY_SIZE:
        status = parse_size(text, &mount->size, err);
        break;
    }
    return status == 0 ? 0 : error_wrap(err, "%s", keys[row].name);
}

static int check_keys(const struct parsing *parsing, struct error *err)
{
    for (size_t i = 0; i < KEYS; i++) {
        if ((parsing->seen >> keys[i].key & 1) && !(keys[i].kinds >> parsing->mount.kind & 1))
            return error_set(err, ERR_INVALID, "type=%s does not know the key %s",
                             kind_names[parsing->mount.kind], keys[i].name);
    }
    return 0;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static int finish_secret(struct parsing *parsing, struct error *err)
{
    struct run_mount *mount = &parsing->mount;

    if (!mount->id) /* `source` is an older name of id */
        mount->id = mount->source   ? mem_strdup(mount->source)
                    : mount->target ? mem_strdup(last_part(mount->target))
                                    : NULL;
    if (!mount->id || !*mount->id)
        return error_set(err, ERR_INVALID, "type=secret needs id=... or target=...");
    if (!mount->target && !mount->env)
        mount->target = mem_printf("/run/secrets/%s", last_part(mount->id));
    if (mount->env && (!*mount->env || strchr(mount->env, '=')))
        return error_set(err, ERR_INVALID, "env: '%s' is no name of a variable", mount->env);
    if (!(parsing->seen & 1u << KEY_MODE))
        mount->mode = 0400;
    mount->read_only = true;
    return 0;
}

static int finish(struct parsing *parsing, struct error *err)
{
    struct run_mount *mount = &parsing->mount;

    if (check_keys(parsing, err) != 0)
        return -1;
    if (mount->kind == RUN_MOUNT_SECRET) {
        if (finish_secret(parsing, err) != 0)
            return -1;
    } else if (!mount->target || !*mount->target) {
        return error_set(err, ERR_INVALID, "type=%s needs target=/...", kind_names[mount->kind]);
    }
    if (mount->target) {
        char *clean = clean_path(parsing->folder, mount->target);
        keep(&mount->target, &clean);
        if (strcmp(mount->target, "/") == 0)
            return error_set(err, ERR_INVALID, "target cannot be /");
    }
    if (mount->kind == RUN_MOUNT_CACHE) {
        if (!mount->id)
            mount->id = mem_strdup(mount->target);
        if (!(parsing->seen & 1u << KEY_MODE))
            mount->mode = 0755;
    }
    if (mount->kind == RUN_MOUNT_BIND &&
        !(parsing->seen & (1u << KEY_READ_ONLY | 1u << KEY_READ_WRITE)))
        mount->read_only = true;
    char *source = mount->kind == RUN_MOUNT_SECRET
                       ? mem_strdup("")
                       : clean_path("", mount->source ? mount->source : "/");
    memmove(source, source + (*source == '/'), strlen(source + (*source == '/')) + 1);
    keep(&mount->source, &source);
    return 0;
}

static int parse_one(const char *text, struct parsing *parsing, struct error *err)
{
    cleanup_buf struct buf field = BUF_INIT;

    for (const char *at = text;;) {
        at = next_field(at, &field);
        if (!at || (*at && *at != ','))
            return error_set(err, ERR_INVALID, "a quoted field must end with \" before the comma");
        if (!field.len)
            return error_set(err, ERR_INVALID, "an empty field; write key=value,key=value");
        if (parse_field(parsing, field.data, err) != 0)
            return -1;
        if (!*at++)
            break;
    }
    return finish(parsing, err);
}

int run_mounts_parse(const struct value *flag, const char *folder, run_expand_fn *expand, void *ctx,
                     struct run_mounts *out, struct error *err)
{
    bool several = flag && flag->kind == VALUE_ARRAY;
    size_t count = several ? value_count(flag) : flag && flag->kind == VALUE_STRING ? 1 : 0;

    *out = (struct run_mounts){.items = mem_array(NULL, count + 1, sizeof *out->items)};
    for (size_t i = 0; i < count; i++) {
        const char *text = value_text(several ? value_at(flag, i) : flag, "");
        struct parsing parsing = {.folder = folder, .expand = expand, .ctx = ctx};
        if (parse_one(text, &parsing, err) != 0) {
            mount_free(&parsing.mount);
            run_mounts_free(out);
            return error_wrap(err, "--mount=%s", text);
        }
        out->items[out->count++] = parsing.mount;
    }
    return 0;
}
