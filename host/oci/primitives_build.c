/* registry.*: what happens on this machine. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/size.h"
#include "oci/base_image.h"
#include "oci/build.h"
#include "oci/build_cache_remote.h"
#include "oci/build_fetch.h"
#include "oci/context.h"
#include "oci/dockerfile.h"
#include "oci/manifest.h"
#include "oci/primitives.h"
#include "oci/remote_stream.h"

struct resolving {
    struct call *call;
    struct store *store;
    int64_t epoch;
    const struct value *secrets; /* as the script gave them, or NULL */
};

static int build_base(struct store *store, int64_t epoch, struct build_result *result, char tag[17],
                      struct error *err)
{
    cleanup_free char *io = module_file(MODULE_IO, err);
    cleanup_free char *model = io ? module_file(MODULE_MODEL, err) : NULL;
    const char *const modules[] = {io, model, NULL};
    char program[PATH_MAX];

    if (!model)
        return -1;
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);
    if (len < 0)
        return error_errno(err, errno, "cannot find the program's own file");
    program[len] = '\0';
    if (base_image_build(store, program, modules, epoch, result, tag, err) == 0)
        return 0;
    if (err && err->code == ERR_NOT_FOUND && strstr(program, " (deleted)"))
        error_hint(err, "the program was replaced while it runs: start again");
    return -1;
}

/* "mlhost/base", with or without mlhost.local, and without a tag: this program, whatever its
 * version. */
static bool is_own_base(const struct image_reference *reference, const char *text)
{
    return strcmp(reference->name, BASE_IMAGE_NAME) == 0 && !reference->digest &&
           !strchr(text, ':') &&
           (strcmp(reference->host, LOCAL_REGISTRY) == 0 ||
            strcmp(reference->host, DOCKER_HUB) == 0);
}

static int resolve(void *ctx, const char *text, struct digest *manifest, struct error *err)
{
    struct resolving *resolving = ctx;
    cleanup_image_reference struct image_reference reference = {0};
    struct build_result result;
    char tag[17];

    if (image_reference_parse(text, DOCKER_HUB, &reference, err) != 0)
        return -1;
    if (is_own_base(&reference, text)) {
        if (build_base(resolving->store, resolving->epoch, &result, tag, err) != 0)
            return -1;
        *manifest = result.manifest;
        return 0;
    }
    if (strcmp(reference.name, BASE_IMAGE_NAME) == 0 && strcmp(reference.host, DOCKER_HUB) == 0) {
        free(reference.host);
        reference.host = mem_strdup(LOCAL_REGISTRY);
    }
    /* The tag of a base image is its content's digest: what is here under it is it. */
    if (strcmp(reference.host, LOCAL_REGISTRY) == 0 &&
        strcmp(reference.name, BASE_IMAGE_NAME) == 0 && reference.tag &&
        store_tag_resolve(resolving->store, reference.name, reference.tag, manifest, NULL) == 0)
        return 0;
    return fetch_image(resolving->call, resolving->store, &reference, manifest, err);
}

static int fetch(void *ctx, const char *url, int fd, int64_t *modified, struct error *err)
{
    return build_fetch(((struct resolving *)ctx)->call, url, fd, modified, err);
}

static int clone_repository(void *ctx, const char *url, const char *ref, char **folder,
                            char **commit, struct error *err)
{
    return build_clone(((struct resolving *)ctx)->call, url, ref, folder, commit, err);
}

static void on_log(void *ctx, const char *level, const char *text)
{
    call_log(((struct resolving *)ctx)->call, level, "%s", text);
}

static void on_output(void *ctx, int stream, const char *data, size_t len)
{
    call_output(((struct resolving *)ctx)->call, stream, data, len);
}

#define SECRET_LIMIT (512u << 10)

/* { file = "path" }: what is in the file. */
static int secret_of_file(struct call *call, const struct value *given, struct buf *out,
                          struct error *err)
{
    const char *file = value_get_string(given, "file", NULL);

    if (!file) {
        error_set(err, ERR_USAGE, "it must be a secret, a text or { file = \"path\" }");
        return error_hint(err, "registry.build { secrets = { token = secret.get(\"TOKEN\") } }");
    }
    cleanup_free char *path = call_path(call, file, ACCESS_READ, err);
    return path ? call_read(path, SECRET_LIMIT, out, err) : -1;
}

/* Of all that a secret may be the bytes; masked from now on in whatever the stage says. */
static int on_secret(void *ctx, const char *id, struct buf *out, struct error *err)
{
    struct resolving *resolving = ctx;
    const struct value *given = value_get(resolving->secrets, id);
    cleanup_value struct value handle = {0};
    size_t len = 0;

    if (!given || given->kind == VALUE_NIL)
        return 0;
    if (given->kind == VALUE_MAP) {
        if (secret_of_file(resolving->call, given, out, err) != 0)
            return -1;
    } else {
        const char *bytes = call_secret(resolving->call, given, &len, err);
        if (!bytes)
            return -1;
        buf_append(out, bytes, len);
    }
    if (given->kind != VALUE_HANDLE)
        call_secret_new(resolving->call, out->data ? out->data : "", out->len, &handle);
    return 1;
}

/* Of the commands of RUN: memory and processes, as exec has them. */
static int take_limits(const struct value *args, struct build_spec *spec, struct error *err)
{
    const struct value *memory = value_get(args, "memory");
    int64_t processes = value_get_int(args, "processes", 0);

    if (memory && memory->kind == VALUE_INT && memory->as.integer > 0)
        spec->memory = (uint64_t)memory->as.integer;
    else if (memory && memory->kind != VALUE_NIL &&
             size_parse(value_text(memory, "?"), &spec->memory, err) != 0)
        return error_wrap(err, "memory");
    if (value_get(args, "processes") && processes < 1)
        return error_set(err, ERR_USAGE, "processes must be 1 or more, not %lld",
                         (long long)processes);
    spec->processes = (uint64_t)processes;
    return 0;
}

/* Context and Dockerfile of a call: allowed, absolute. */
static int places(struct call *call, const struct value *args, char **context, char **dockerfile,
                  struct error *err)
{
    const char *given = value_get_string(args, "dockerfile", NULL);

    *context = call_path(call, value_get_string(args, "context", ""), ACCESS_READ, err);
    if (!*context)
        return -1;
    cleanup_free char *own = path_join(*context, "Dockerfile");
    *dockerfile = call_path(call, given ? given : own, ACCESS_READ, err);
    return *dockerfile ? 0 : -1;
}

/* What messages call a file: relative to the workspace when it is below. */
static const char *shown(struct call *call, const char *path)
{
    const char *workspace = call_workspace(call);
    size_t len = strlen(workspace);

    return strncmp(path, workspace, len) == 0 && path[len] == '/' ? path + len + 1 : path;
}

/* Build arguments and labels: texts and numbers; secrets would end up in the image's history. */
static int check_texts(struct value *map, const char *what, struct error *err)
{
    if (!map || map->kind != VALUE_MAP)
        return 0;
    for (size_t i = 0; i < map->as.map.count; i++) {
        struct value *v = &map->as.map.pairs[i].value;
        cleanup_buf struct buf text = BUF_INIT;
        if (v->kind == VALUE_STRING)
            continue;
        if (v->kind != VALUE_INT && v->kind != VALUE_REAL && v->kind != VALUE_BOOL) {
            error_set(err, ERR_USAGE, "%s.%s must be a text, not %s", what,
                      map->as.map.pairs[i].key, value_kind_name(v));
            return v->kind == VALUE_HANDLE
                       ? error_hint(err,
                                    "secrets do not belong into images: everybody who pulls could "
                                    "read them")
                       : -1;
        }
        value_to_json(v, 0, &text);
        value_free(v);
        value_set_bytes(v, text.data, text.len);
    }
    return 0;
}

/*
 * registry.content_tag(context, dockerfile?, args?, salt?) -> tag
 *
 * 16 hexadecimal digits that change when, and only when, what the image would be built of changes:
 * the files of the context that .dockerignore lets through (paths, kinds, contents, executable
 * bits), the Dockerfile, the build arguments (SOURCE_DATE_EPOCH of the environment is one), `salt`,
 * and, where the Dockerfile builds on
 * mlhost/base, this program. The exact rule stands in host/oci/context.h. Tags of other base images
 * count as they are written; pass their digest as `salt` to follow what they name.
 */
int prim_registry_content_tag(struct call *call, const struct value *args, struct value *out,
                              struct error *err)
{
    cleanup_free char *path = NULL;
    cleanup_free char *dockerfile = NULL;
    cleanup_value struct value build_args = {0};
    cleanup_value struct value references = {0};
    cleanup_buf struct buf salt = BUF_INIT;
    char tag[17];
    int64_t epoch;
    bool given;

    if (value_get(args, "args"))
        value_copy(&build_args, value_get(args, "args"));
    if (places(call, args, &path, &dockerfile, err) != 0 ||
        check_texts(&build_args, "args", err) != 0 ||
        build_epoch(&build_args, &epoch, &given, err) != 0 ||
        build_references(dockerfile, shown(call, dockerfile), &build_args, &references, err) != 0)
        return -1;
    buf_puts(&salt, value_get_string(args, "salt", ""));
    for (size_t i = 0; i < value_count(&references); i++) {
        cleanup_image_reference struct image_reference reference = {0};
        const char *text = value_text(value_at(&references, i), "");
        struct build_result base;
        if (image_reference_parse(text, DOCKER_HUB, &reference, NULL) != 0 ||
            !is_own_base(&reference, text))
            continue;
        cleanup_store struct store *store = cache_store(call, err);
        if (!store || build_base(store, epoch, &base, tag, err) != 0)
            return -1;
        buf_printf(&salt, " %s", tag);
    }
    struct context *context = context_list(path, dockerfile, err);
    cleanup_store struct store *known = context ? cache_store(call, NULL) : NULL;
    if (known)
        context_remember(context, known);
    int status = context ? context_tag(context, dockerfile, &build_args,
                                       salt.len ? salt.data : NULL, tag, err)
                         : -1;
    context_known_save(context);
    context_free(context);
    if (status == 0)
        value_set_string(out, tag);
    return status;
}

/* cache = false has no use for the other two. */
static int check_caching(const struct value *args, struct error *err)
{
    const struct value *from = value_get(args, "cache_from");

    if (!value_get_bool(args, "cache", true) && (from || value_get(args, "cache_to"))) {
        error_set(err, ERR_USAGE, "cache = false, and %s is given",
                  from ? "cache_from" : "cache_to");
        return error_hint(err, "no_cache = true makes all layers anew and still keeps them");
    }
    return 0;
}

static int find_layer(void *ctx, const struct digest *key, struct cached_layer *out)
{
    return cache_sources_find(ctx, key, out);
}

static enum build_caching caching_of(const struct value *args)
{
    if (!value_get_bool(args, "cache", true))
        return BUILD_CACHE_OFF;
    return value_get_bool(args, "no_cache", false) ? BUILD_CACHE_RENEW : BUILD_CACHE_USE;
}

/* Where an image goes while it is built. */
struct delivery {
    struct image_reference reference;
    struct remote *remote; /* NULL: nowhere */
    struct remote_streams *streams;
};

static int delivery_begin(struct delivery *delivery, struct call *call, const char *ref,
                          struct error *err)
{
    if (!ref)
        return 0;
    if (script_reference(call, ref, &delivery->reference, err) != 0)
        return -1;
    delivery->remote = remote_new(call, delivery->reference.host, err);
    if (!delivery->remote)
        return -1;
    delivery->streams = remote_streams_new(delivery->remote, delivery->reference.name);
    return 0;
}

static void delivery_end(struct delivery *delivery)
{
    remote_streams_free(delivery->streams);
    remote_free(delivery->remote);
    image_reference_free(&delivery->reference);
}
#define cleanup_delivery __attribute__((cleanup(delivery_end)))

static int deliver(struct delivery *delivery, struct store *store,
                   const struct build_result *result, struct value *out, struct error *err)
{
    size_t sent;
    uint64_t bytes;

    remote_streams_wait(delivery->streams, &sent, &bytes);
    if (push_image(delivery->remote, store, result->manifest.text, &delivery->reference, NULL,
                   false, out, err) != 0)
        return -1;
    /* What went there during the build counts too. */
    value_put_int(out, "sent", value_get_int(out, "sent", 0) + (int64_t)sent);
    value_put_int(out, "bytes", value_get_int(out, "bytes", 0) + (int64_t)bytes);
    return 0;
}

/* The name under which the cache keeps the image too. */
static int keep_name(struct call *call, struct store *store, const struct build_result *result,
                     const char *name, const char *tag, struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_buf struct buf manifest = BUF_INIT;
    cleanup_free char *text = mem_printf("%s:%s", name, tag);

    if (script_reference(call, text, &reference, err) != 0)
        return -1;
    cleanup_free char *cache_name = image_reference_cache_name(&reference);
    if (store_blob_read(store, result->manifest.text, STORE_MANIFEST_LIMIT, &manifest, err) != 0)
        return -1;
    return store_manifest_put(store, cache_name, reference.tag, OCI_MANIFEST, manifest.data,
                              manifest.len, false, NULL, err);
}

/*
 * registry.build(context, dockerfile?, name?, tag?, args?, labels?, target?, cache?, no_cache?,
 *                cache_from?, cache_to?, push?, provenance?) -> { digest, config, name, tag,
 * layers, size, pushed, provenance }
 *
 * Builds into the cache (.mlhost/cache/oci). push: a reference; layers are on their way there while
 * they are made, and `pushed` is what registry.push returns. name and tag: under which the cache
 * keeps it too. Layers that were made before of the same things are taken and logged as CACHED;
 * no_cache makes them all anew, cache = false keeps none of them for later either. cache_from:
 * references that layers of RUN may be taken from, which other machines wrote with cache_to; what
 * they must be trusted with stands in host/oci/build_cache_remote.h. provenance in the reply: the
 * digest of the statement (host/oci/provenance.h) in the build cache; nil when the context is so
 * large that its files were not read for it, unless `provenance` is given: { builder?, invocation?
 * }.
 */
int prim_registry_build(struct call *call, const struct value *args, struct value *out,
                        struct error *err)
{
    const char *name = value_get_string(args, "name", NULL),
               *tag = value_get_string(args, "tag", "latest");
    cleanup_free char *context = NULL;
    cleanup_free char *dockerfile = NULL;
    cleanup_value struct value build_args = {0};
    cleanup_value struct value labels = {0};
    cleanup_value struct value used = {0};
    cleanup_value struct value materials = {0};
    int64_t epoch, started = clock_wall_ms();
    bool given; /* SOURCE_DATE_EPOCH */
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_delivery struct delivery delivery = {0};
    struct build_result result;

    value_set_array(&used);
    value_set_array(&materials);
    if (value_get(args, "args"))
        value_copy(&build_args, value_get(args, "args"));
    if (value_get(args, "labels"))
        value_copy(&labels, value_get(args, "labels"));
    if (!store || delivery_begin(&delivery, call, value_get_string(args, "push", NULL), err) != 0 ||
        places(call, args, &context, &dockerfile, err) != 0 ||
        check_texts(&build_args, "args", err) != 0 || check_texts(&labels, "labels", err) != 0 ||
        build_epoch(&build_args, &epoch, &given, err) != 0 || check_caching(args, err) != 0)
        return -1;
    cleanup_cache_sources struct cache_sources *sources =
        cache_sources_new(call, store, value_get(args, "cache_from"), err);
    if (!sources)
        return -1;
    struct resolving resolving = {call, store, epoch, value_get(args, "secrets")};
    struct build_spec spec = {.store = store,
                              .context = context,
                              .dockerfile = dockerfile,
                              .label = shown(call, dockerfile),
                              .args = &build_args,
                              .labels = &labels,
                              .target = value_get_string(args, "target", NULL),
                              .epoch = epoch,
                              .resolve = resolve,
                              .fetch = fetch,
                              .clone = clone_repository,
                              .log = on_log,
                              .ctx = &resolving,
                              .deadline = call->deadline,
                              .cancel = call->cancel,
                              .network = call_has_net(call),
                              .output = on_output,
                              .secret = on_secret,
                              .clamp = given ? epoch : -1,
                              .caching = caching_of(args),
                              .find = find_layer,
                              .find_ctx = sources,
                              .hash_context = value_get(args, "provenance"),
                              .materials = &materials,
                              .used = &used,
                              .watcher = delivery.streams ? remote_streams_watcher(delivery.streams)
                                                          : NULL};
    struct push_result pushed;
    const char *cache_to = value_get_string(args, "cache_to", NULL);
    if (take_limits(args, &spec, err) != 0 || oci_build(&spec, &result, err) != 0 ||
        (name && keep_name(call, store, &result, name, tag, err) != 0) ||
        (cache_to && build_cache_push(call, store, &used, cache_to, &pushed, err) != 0))
        return -1;
    value_set_map(out);
    if (delivery.remote && deliver(&delivery, store, &result, value_put(out, "pushed"), err) != 0)
        return -1;
    value_put_string(out, "digest", result.manifest.text);
    value_put_string(out, "config", result.config.text);
    if (note_provenance(args, &spec, &result, given ? 0 : started, out, err) != 0)
        return -1;
    value_put_string(out, "name", name);
    value_put_string(out, "tag", name ? tag : NULL);
    value_put_int(out, "layers", (int64_t)result.layers);
    value_put_int(out, "size", (int64_t)result.size);
    return 0;
}

/* registry.base_image() -> { digest, name = "mlhost/base", tag, size }: this program as an image,
 * in the build cache. */
int prim_registry_base_image(struct call *call, const struct value *args, struct value *out,
                             struct error *err)
{
    cleanup_store struct store *store = cache_store(call, err);
    struct build_result result;
    char tag[17];
    int64_t epoch;
    bool given;

    (void)args;
    if (!store || build_epoch(NULL, &epoch, &given, err) != 0 ||
        build_base(store, epoch, &result, tag, err) != 0)
        return -1;
    value_set_map(out);
    value_put_string(out, "digest", result.manifest.text);
    value_put_string(out, "name", BASE_IMAGE_NAME);
    value_put_string(out, "tag", tag);
    value_put_int(out, "size", (int64_t)result.size);
    return 0;
}

/* registry.dockerfile(path) -> { instructions, problems, comments, escape, check?, syntax? }: a
 * Dockerfile as data, for linters (host/oci/dockerfile.h). */
int prim_registry_dockerfile(struct call *call, const struct value *args, struct value *out,
                             struct error *err)
{
    cleanup_free char *path = call_path(call, value_get_string(args, "path", ""), ACCESS_READ, err);
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value problems = {0};

    value_set_array(&problems);
    if (!path || call_read(path, DOCKERFILE_LIMIT, &text, err) != 0 ||
        dockerfile_parse(text.data ? text.data : "", text.len, shown(call, path), out, &problems,
                         err) != 0)
        return -1;
    value_move(value_put(out, "problems"), &problems);
    return 0;
}
