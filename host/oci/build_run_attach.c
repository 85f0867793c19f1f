/* RUN: its mounts, as the job has them. Targets are looked up in the stage's files, so that no link
 * of the image leads a mount elsewhere. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/build_run_internal.h"
#include "oci/store_internal.h"

#define RESOLV_LIMIT (64u << 10)
#define CHUNK        ((size_t)1 << 30)
#define PIECE        ((size_t)64 << 10)

void run_wipe(struct value *v)
{
    if (v->kind == VALUE_STRING && v->as.string.data)
        explicit_bzero(v->as.string.data, v->as.string.len);
    for (size_t i = 0; v->kind == VALUE_ARRAY && i < v->as.array.count; i++)
        run_wipe(&v->as.array.items[i]);
    for (size_t i = 0; v->kind == VALUE_MAP && i < v->as.map.count; i++)
        run_wipe(&v->as.map.pairs[i].value);
    value_free(v);
}

struct value *run_add_mount(struct run *run, const char *kind, const char *target)
{
    struct value *mount = value_push(value_get(&run->job, "mounts"));

    value_set_map(mount);
    value_put_string(mount, "kind", kind);
    value_put_string(mount, "target", target);
    return mount;
}

void run_put_layers(struct value *map, const struct stage *stage)
{
    struct value *layers = value_put(map, "layers");

    value_set_array(layers);
    for (size_t i = 0; i < value_count(&stage->layers); i++) {
        struct value *layer = value_push(layers);
        value_set_map(layer);
        value_put_string(layer, "digest",
                         value_get_string(value_at(&stage->layers, i), "digest", ""));
        value_put_string(layer, "diff_id", value_text(value_at(&stage->diff_ids, i), ""));
    }
}

/* ---- places ---- */

/* Mounts need a place, which the sandbox makes in the upper folder: what the image did not have is
 * taken away again afterwards. Outermost first. */
static void note_stubs(struct run *run, const char *path)
{
    struct value *stubs = value_get(&run->job, "stubs");

    for (const char *at = path; *at;) {
        at += strcspn(at, "/");
        cleanup_free char *part = mem_strndup(path, (size_t)(at - path));
        if (!tree_get(&run->stage->tree, part))
            value_push_string(stubs, part);
        at += *at == '/';
    }
}

/* "/target" with the image's links followed. Allocated. */
static char *place_of(struct run *run, const char *target, struct error *err)
{
    cleanup_free char *real = tree_resolve(&run->stage->tree, target, true, err);

    if (!real)
        return NULL;
    note_stubs(run, real);
    return mem_printf("/%s", real);
}

static int put_place(struct run *run, const char *name, const char *target, struct error *err)
{
    cleanup_free char *place = place_of(run, target, err);

    if (place)
        value_put_string(value_get(&run->job, "places"), name, place);
    return place ? 0 : -1;
}

/* The sandbox has its devices nowhere else. */
static int check_dev(const struct run *run, struct error *err)
{
    const struct tree_node *node = tree_get(&run->stage->tree, "dev");

    if (!node || S_ISDIR(node->mode))
        return 0;
    error_set(err, ERR_INVALID, "/dev of the image is no folder");
    return error_hint(err, "commands get devices there: take a base with a folder of this name");
}

int run_take_places(struct run *run, bool network, struct error *err)
{
    cleanup_buf struct buf resolv = BUF_INIT;

    value_set_map(value_put(&run->job, "places"));
    value_put_string(&run->job, "hosts",
                     "127.0.0.1\tlocalhost build\n::1\tlocalhost ip6-localhost\n");
    if (check_dev(run, err) != 0 || put_place(run, "proc", "proc", err) != 0 ||
        put_place(run, "dev", "dev", err) != 0 || put_place(run, "hosts", "etc/hosts", err) != 0)
        return -1;
    if (!network || file_read(AT_FDCWD, "/etc/resolv.conf", RESOLV_LIMIT, &resolv, NULL) != 0)
        return 0;
    value_put_string(&run->job, "resolv", resolv.data ? resolv.data : "");
    return put_place(run, "resolv", "etc/resolv.conf", err);
}

/* ---- bind: the context ---- */

static bool is_below(const char *path, const char *folder)
{
    size_t len = strlen(folder);

    return len == 0 || (strncmp(path, folder, len) == 0 && (path[len] == '/' || path[len] == '\0'));
}

static int copy_content(int from, int to, const char *path, struct error *err)
{
    ssize_t n;

    while ((n = copy_file_range(from, NULL, to, NULL, CHUNK, 0)) > 0)
        continue;
    if (n == 0)
        return 0;
    cleanup_free char *piece = mem_alloc(PIECE);
    while ((n = read(from, piece, PIECE)) > 0)
        if (fd_write_all(to, piece, (size_t)n, err) != 0)
            return error_wrap(err, "%s", path);
    return n < 0 ? error_errno(err, errno, "cannot read %s", path) : 0;
}

/* Permissions as COPY has them; the times are the context's, for make and its kin. */
static int copy_file(struct context *context, const struct context_file *file, const char *to,
                     struct error *err)
{
    const struct timespec times[2] = {
        {0, UTIME_OMIT},
        {(time_t)(file->modified_ns / NS_PER_S), (long)(file->modified_ns % NS_PER_S)}};
    int status = 0;

    if (S_ISDIR(file->mode))
        return dir_make(to, err) == 0 && chmod(to, 0755) == 0
                   ? 0
                   : error_errno(err, errno, "cannot make %s", to);
    cleanup_free char *folder = mem_strdup(to);
    *strrchr(folder, '/') = '\0';
    if (dir_make(folder, err) != 0)
        return -1;
    if (S_ISLNK(file->mode))
        return symlink(file->link, to) < 0 ? error_errno(err, errno, "cannot make %s", to) : 0;
    mode_t mode = file->mode & 0111 ? 0755 : 0644;
    cleanup_close int from = context_open(context, file->path, err);
    cleanup_close int out = from < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (from < 0)
        return -1;
    if (out < 0 || fchmod(out, mode) < 0)
        status = error_errno(err, errno, "cannot make %s", to);
    if (status == 0)
        status = copy_content(from, out, file->path, err);
    if (status == 0)
        futimens(out, times);
    return status;
}

/* What is at `source` in the context, as a folder of our own: less what .dockerignore leaves out,
 * and nothing that is done to it comes back. Each mount has its own. Allocated. */
static char *copy_context(struct run *run, const char *source, struct error *err)
{
    struct context *context = builder_context(run->builder, err);
    cleanup_free char *parent = mem_printf("%s/contexts", run->builder->spec->store->root);
    bool found = !*source;

    if (!context || store_make_dirs(run->builder->spec->store, "contexts", err) != 0 ||
        (!run->context.path && scratch_dir_make(parent, &run->context, err) != 0))
        return NULL;
    cleanup_free char *folder =
        mem_printf("%s/%zu", run->context.path, value_count(value_get(&run->job, "mounts")));
    if (dir_make(folder, err) != 0)
        return NULL;
    for (size_t i = 0; i < context->count; i++) {
        const struct context_file *file = &context->files[i];
        if (!is_below(file->path, source))
            continue;
        cleanup_free char *to = path_join(folder, file->path);
        found = true;
        if (cancelled(run->builder->spec->cancel)) {
            error_set(err, ERR_CANCELLED, "the build was cancelled");
            return NULL;
        }
        if (copy_file(context, file, to, err) != 0)
            return NULL;
        if (S_ISLNK(file->mode) && strcmp(file->path, source) == 0) {
            error_set(err, ERR_INVALID, "source=%s is a link; name what it leads to", source);
            return NULL;
        }
    }
    if (found)
        return steal_ptr(&folder);
    error_set(err, ERR_NOT_FOUND, "source=%s: no such file or folder", source);
    error_hint(err, "it must be in the build context %s%s%s", context->path,
               context->ignore_file ? ", and not left out by " : "",
               context->ignore_file ? context->ignore_file : "");
    return NULL;
}

static int bind_context(struct run *run, const struct run_mount *mount, const char *target,
                        struct error *err)
{
    cleanup_free char *folder = copy_context(run, mount->source, err);

    if (!folder)
        return -1;
    struct value *to = run_add_mount(run, mount->read_only ? "bind" : "overlay", target);
    value_put_bool(to, "read_only", mount->read_only);
    if (!mount->read_only) {
        value_put_string(to, "folder", folder);
        value_put_string(to, "sub", mount->source);
        return 0;
    }
    cleanup_free char *path =
        *mount->source ? path_join(folder, mount->source) : mem_strdup(folder);
    value_put_string(to, "source", path);
    return 0;
}

/* ---- bind and cache: of stages and images ---- */

/* layers and sub of mount->from -> *to. */
static int put_source(struct run *run, const struct run_mount *mount, struct value *to,
                      struct error *err)
{
    struct builder *builder = run->builder;
    struct stage *from = builder_stage(builder, mount->from), image = {0};
    int status = 0;

    if (from && from >= run->stage)
        return error_set(err, ERR_INVALID, "from=%s: that stage comes later, or is this one",
                         mount->from);
    if (from)
        status = builder_build(builder, from, err);
    else
        status = builder_image(builder, mount->from, from = &image, err);
    if (status == 0)
        status = stage_tree(builder, from, err);
    cleanup_free char *real =
        status == 0 ? tree_resolve(&from->tree, mount->source, true, err) : NULL;
    if (real && *real && !tree_get(&from->tree, real)) {
        status = error_set(err, ERR_NOT_FOUND, "source=/%s: no such file or folder in %s",
                           mount->source, mount->from);
    } else if (real && !value_count(&from->layers)) {
        status = error_set(err, ERR_NOT_FOUND, "from=%s: nothing is in there", mount->from);
    } else if (real) {
        run_put_layers(to, from);
        value_put_string(to, "sub", real);
    } else {
        status = -1;
    }
    stage_free(&image);
    return status;
}

static int bind_image(struct run *run, const struct run_mount *mount, const char *target,
                      struct error *err)
{
    struct value *to = run_add_mount(run, "overlay", target);

    value_put_bool(to, "read_only", mount->read_only);
    return put_source(run, mount, to, err);
}

/* Another beginning is another cache. */
static void put_cache_name(struct value *to, const struct run_mount *mount)
{
    const struct value *layers = value_get(to, "layers");
    cleanup_buf struct buf name = BUF_INIT;

    buf_puts(&name, mount->id);
    for (size_t i = 0; i < value_count(layers); i++)
        buf_printf(&name, "\n%s", value_get_string(value_at(layers, i), "diff_id", ""));
    value_put_string(to, "name", name.data);
}

static int cache(struct run *run, const struct run_mount *mount, const char *target,
                 struct error *err)
{
    struct value *to = run_add_mount(run, "cache", target);

    value_put_int(to, "sharing", mount->sharing);
    value_put_int(to, "mode", mount->mode);
    value_put_int(to, "uid", mount->uid);
    value_put_int(to, "gid", mount->gid);
    value_put_bool(to, "read_only", mount->read_only);
    if (mount->from && strcmp(mount->from, "scratch") != 0 && put_source(run, mount, to, err) != 0)
        return -1;
    put_cache_name(to, mount);
    return 0;
}

/* ---- secrets ---- */

static int no_secret(const struct run_mount *mount, struct error *err)
{
    if (!mount->required)
        return 0; /* the command is to see to it that there is none */
    error_set(err, ERR_NOT_FOUND, "the secret %s was not given", mount->id);
    return error_hint(err, "registry.build { secrets = { [\"%s\"] = ... } }", mount->id);
}

static int secret(struct run *run, const struct run_mount *mount, const char *target,
                  struct error *err)
{
    const struct build_spec *spec = run->builder->spec;
    cleanup_buf struct buf bytes = BUF_INIT;

    int found = spec->secret ? spec->secret(spec->ctx, mount->id, &bytes, err) : 0;
    if (found <= 0)
        return found < 0 ? error_wrap(err, "the secret %s", mount->id) : no_secret(mount, err);
    buf_append(&bytes, "", 0);
    if (!run->masker)
        run->masker = masker_new();
    masker_add(run->masker, bytes.data ? bytes.data : "", bytes.len);
    int status = 0;
    if (mount->env && bytes.len && strlen(bytes.data) != bytes.len)
        status =
            error_set(err, ERR_INVALID,
                      "the secret %s has a NUL byte in it, so it can be no variable", mount->id);
    else if (mount->env)
        run_put_env(run, mount->env, bytes.data ? bytes.data : "");
    if (status == 0 && target) {
        struct value *to = run_add_mount(run, "file", target);
        value_set_bytes(value_put(to, "data"), bytes.data ? bytes.data : "", bytes.len);
        value_put_int(to, "mode", mount->mode);
        value_put_int(to, "uid", mount->uid);
        value_put_int(to, "gid", mount->gid);
    }
    if (bytes.data)
        explicit_bzero(bytes.data, bytes.len);
    return status;
}

/* ---- all of them ---- */

static char *expand(void *ctx, const char *word, struct error *err)
{
    struct run *run = ctx;

    return stage_expand(run->builder, run->stage, word, err);
}

static int take_mount(struct run *run, const struct run_mount *mount, struct error *err)
{
    cleanup_free char *target = mount->target ? place_of(run, mount->target, err) : NULL;

    if (mount->target && !target)
        return -1;
    switch (mount->kind) {
    case RUN_MOUNT_BIND:
        return mount->from ? bind_image(run, mount, target, err)
                           : bind_context(run, mount, target, err);
    case RUN_MOUNT_CACHE:
        return cache(run, mount, target, err);
    case RUN_MOUNT_SECRET:
        return secret(run, mount, target, err);
    case RUN_MOUNT_TMPFS:
        value_put_int(run_add_mount(run, "tmpfs", target), "size", (int64_t)mount->size);
        return 0;
    }
    return -1;
}

int run_take_mounts(struct run *run, struct error *err)
{
    if (run_mounts_parse(value_path(run->instruction, "flags.mount"),
                         value_get_string(&run->stage->config, "WorkingDir", "/"), expand, run,
                         &run->mounts, err) != 0)
        return -1;
    for (size_t i = 0; i < run->mounts.count; i++)
        if (take_mount(run, &run->mounts.items[i], err) != 0)
            return error_wrap(err, "--mount");
    return 0;
}

static char *as_it_is(void *ctx, const char *word, struct error *err)
{
    (void)ctx;
    (void)err;
    return mem_strdup(word);
}

void build_run_references(struct builder *builder, const struct value *instruction,
                          struct value *out)
{
    cleanup_run_mounts struct run_mounts mounts = {0};

    if (run_mounts_parse(value_path(instruction, "flags.mount"), "/", as_it_is, NULL, &mounts,
                         NULL) != 0)
        return; /* the build says what is wrong with it */
    for (size_t i = 0; i < mounts.count; i++) {
        const char *from = mounts.items[i].from;
        if (from && *from && strcmp(from, "scratch") != 0 && !builder_stage(builder, from))
            value_push_string(out, from);
    }
}
