/* The cache of layers, as the stages of a build use it. */
#include <string.h>

#include "base/mem.h"
#include "oci/build_internal.h"
#include "oci/build_run_mount.h"
#include "oci/manifest.h"

bool build_cache_reads(const struct build_spec *spec)
{
    return spec->caching == BUILD_CACHE_USE;
}

bool build_cache_writes(const struct build_spec *spec)
{
    return spec->caching != BUILD_CACHE_OFF;
}

void stage_add_layer(struct builder *builder, struct stage *stage, const struct value *instruction,
                     const struct cached_layer *layer, bool cached)
{
    bool empty = layer->kind != CACHED_LAYER;

    if (cached)
        builder_log(builder, "info", "CACHED %s %s", value_get_string(instruction, "keyword", ""),
                    value_get_string(instruction, "text", ""));
    if (!empty) {
        struct value *descriptor = value_push(&stage->layers);
        value_set_map(descriptor);
        value_put_string(descriptor, "mediaType",
                         layer->media_type ? layer->media_type : OCI_LAYER_GZIP);
        value_put_string(descriptor, "digest", layer->digest.text);
        value_put_int(descriptor, "size", (int64_t)layer->size);
        value_push_string(&stage->diff_ids, layer->diff_id.text);
    }
    stage_history(builder, stage, instruction, empty);
}

void stage_mix(const struct stage *stage, struct cache_key *key)
{
    for (size_t i = 0; i < value_count(&stage->layers); i++)
        if (i < stage->base_layers)
            cache_key_text(key, "base",
                           value_get_string(value_at(&stage->layers, i), "digest", ""));
        else
            cache_key_text(key, "layer", value_text(value_at(&stage->diff_ids, i), ""));
}

struct cached_layer cached_layer_of(const struct layer_result *result)
{
    return (struct cached_layer){.kind = result->entries ? CACHED_LAYER : CACHED_EMPTY,
                                 .media_type = OCI_LAYER_GZIP,
                                 .digest = result->digest,
                                 .diff_id = result->diff_id,
                                 .size = result->size};
}

static void note_used(struct builder *builder, const struct digest *key,
                      const struct cached_layer *layer)
{
    struct value *used = builder->spec->used;

    if (!used)
        return;
    struct value *entry = value_push(used);
    value_set_map(entry);
    value_put_string(entry, "key", key->text);
    if (layer->kind != CACHED_LAYER)
        return;
    value_put_string(entry, "layer", layer->digest.text);
    value_put_string(entry, "diffId", layer->diff_id.text);
    value_put_int(entry, "size", (int64_t)layer->size);
    value_put_string(entry, "mediaType", layer->media_type ? layer->media_type : OCI_LAYER_GZIP);
}

int stage_find(struct builder *builder, const struct digest *key, struct cached_layer *out)
{
    const struct build_spec *spec = builder->spec;

    if (!build_cache_reads(spec))
        return 0;
    int found = build_cache_get(spec->store, key, out);
    if (!found && spec->find && spec->find(spec->find_ctx, key, out) == 1) {
        found = 1;
        build_cache_put(spec->store, key, out, NULL); /* else it is asked for again */
    }
    if (found)
        note_used(builder, key, out);
    return found;
}

int stage_keep(struct builder *builder, const struct value *instruction, const struct digest *key,
               const struct cached_layer *layer, struct error *err)
{
    bool mounts = value_count(value_path(instruction, "flags.mount")) > 0;

    if (!build_cache_writes(builder->spec) ||
        (mounts && builder->context && !context_unchanged(builder->context)))
        return 0;
    note_used(builder, key, layer);
    return build_cache_put(builder->spec->store, key, layer, err);
}

/* ---- RUN ---- */

/* Not where it stands. */
static void mix_instruction(struct cache_key *key, const struct value *instruction)
{
    static const char *const fields[] = {"text", "words", "json", "flags"};
    const struct value *heredocs = value_get(instruction, "heredocs");

    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        cache_key_value(key, fields[i], value_get(instruction, fields[i]));
    for (size_t i = 0; i < value_count(heredocs); i++) {
        cache_key_value(key, "word", value_get(value_at(heredocs, i), "word"));
        cache_key_value(key, "heredoc", value_get(value_at(heredocs, i), "text"));
    }
}

/* ENV beats ARG. An ARG counts from its line on, whether the command uses it or not: nobody can
 * tell. */
static void mix_variables(struct cache_key *key, const struct stage *stage)
{
    cleanup_value struct value args = {0};

    value_set_map(&args);
    for (size_t i = 0; stage->args.kind == VALUE_MAP && i < stage->args.as.map.count; i++) {
        const struct value_pair *pair = &stage->args.as.map.pairs[i];
        if (pair->value.kind == VALUE_STRING && !stage_env(stage, pair->key, pair->key_len))
            value_copy(value_put(&args, pair->key), &pair->value);
    }
    cache_key_value(key, "env", value_get(&stage->config, "Env"));
    cache_key_value(key, "args", &args);
}

/* Permissions as COPY has them, so that another umask is no other context. */
static int mix_context(struct builder *builder, struct cache_key *key, const char *below,
                       struct error *err)
{
    struct context *context = builder_context(builder, err);
    size_t len = strlen(below);

    for (size_t i = 0; context && i < context->count; i++) {
        const struct context_file *file = &context->files[i];
        struct digest digest;
        if (len && (strncmp(file->path, below, len) != 0 ||
                    (file->path[len] != '/' && file->path[len] != '\0')))
            continue;
        cache_key_text(key, "path", file->path);
        cache_key_text(key, "link", file->link);
        cache_key_text(key, "kind", S_ISDIR(file->mode) ? "d" : file->mode & 0111 ? "x" : "f");
        if (!S_ISREG(file->mode))
            continue;
        if (context_digest(context, file, &digest, err) != 0)
            return -1;
        cache_key_text(key, "content", digest.text);
    }
    return context ? 0 : -1;
}

static int mix_mount(struct builder *builder, struct stage *stage, struct cache_key *key,
                     const struct run_mount *mount, struct error *err)
{
    struct stage image = {0};

    if (mount->kind != RUN_MOUNT_BIND && !mount->from)
        return 0;
    if (!mount->from)
        return mix_context(builder, key, mount->source, err);
    struct stage *from = builder_stage(builder, mount->from);
    int status = 0;
    if (!from)
        status = builder_image(builder, mount->from, &image, err);
    else if (from >= stage)
        status = error_set(err, ERR_INVALID,
                           "--mount=from=%s: that stage comes later, or is this "
                           "one",
                           mount->from);
    else
        status = builder_build(builder, from, err);
    if (status == 0)
        stage_mix(from ? from : &image, key);
    stage_free(&image);
    return status;
}

struct expanding {
    struct builder *builder;
    struct stage *stage;
};

static char *expand(void *ctx, const char *word, struct error *err)
{
    struct expanding *expanding = ctx;

    return stage_expand(expanding->builder, expanding->stage, word, err);
}

int build_run_key(struct builder *builder, struct stage *stage, const struct value *instruction,
                  struct digest *out, struct error *err)
{
    struct expanding expanding = {builder, stage};
    cleanup_run_mounts struct run_mounts mounts = {0};

    if (run_mounts_parse(value_path(instruction, "flags.mount"),
                         value_get_string(&stage->config, "WorkingDir", "/"), expand, &expanding,
                         &mounts, err) != 0)
        return -1;
    struct cache_key *key = cache_key_new("run");
    cache_key_text(key, "platform", oci_architecture());
    cache_key_number(key, "epoch", builder->spec->epoch);
    cache_key_number(key, "clamp", builder->spec->clamp);
    cache_key_number(key, "network", builder->spec->network);
    stage_mix(stage, key);
    mix_instruction(key, instruction);
    mix_variables(key, stage);
    cache_key_value(key, "shell", value_get(&stage->config, "Shell"));
    cache_key_value(key, "user", value_get(&stage->config, "User"));
    cache_key_value(key, "folder", value_get(&stage->config, "WorkingDir"));
    int status = 0;
    for (size_t i = 0; status == 0 && i < mounts.count; i++)
        status = mix_mount(builder, stage, key, &mounts.items[i], err);
    cache_key_finish(key, out);
    return status;
}
