#include "oci/build.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/build_internal.h"
#include "oci/dockerfile.h"
#include "oci/manifest.h"

#define SHOWN 100 /* columns of a line in an error */

void builder_log(struct builder *builder, const char *level, const char *format, ...)
{
    cleanup_buf struct buf text = BUF_INIT;
    va_list args;

    if (!builder->spec->log)
        return;
    va_start(args, format);
    buf_vprintf(&text, format, args);
    va_end(args);
    builder->spec->log(builder->spec->ctx, level, text.data ? text.data : "");
}

void stage_free(struct stage *stage)
{
    free(stage->name);
    free(stage->author);
    value_free(&stage->config);
    value_free(&stage->layers);
    value_free(&stage->diff_ids);
    value_free(&stage->history);
    value_free(&stage->args);
    tree_free(&stage->tree);
    *stage = (struct stage){0};
}

/* ---- stages ---- */

struct stage *builder_stage(struct builder *builder, const char *name)
{
    char *end;

    for (size_t i = 0; i < builder->count; i++)
        if (builder->stages[i].name && strcasecmp(builder->stages[i].name, name) == 0)
            return &builder->stages[i];
    if (!isdigit((unsigned char)*name))
        return NULL;
    unsigned long number = strtoul(name, &end, 10);
    return *end == '\0' && number < builder->count ? &builder->stages[number] : NULL;
}

static void stage_init(struct stage *stage)
{
    value_set_map(&stage->config);
    value_set_array(&stage->layers);
    value_set_array(&stage->diff_ids);
    value_set_array(&stage->history);
    value_set_map(&stage->args);
}

/* Docker's names of layers become OCI's: the bytes are the same. */
static const char *oci_layer_type(const char *type)
{
    if (strcmp(type, "application/vnd.docker.image.rootfs.diff.tar.gzip") == 0)
        return OCI_LAYER_GZIP;
    if (strcmp(type, "application/vnd.docker.image.rootfs.diff.tar") == 0)
        return "application/vnd.oci.image.layer.v1.tar";
    return type;
}

int builder_image(struct builder *builder, const char *reference, struct stage *out,
                  struct error *err)
{
    cleanup_value struct value manifest = {0};
    cleanup_value struct value config = {0};
    struct digest digest;

    if (!builder->spec->resolve)
        return error_set(err, ERR_NOT_FOUND, "the image %s is not known", reference);
    if (builder->spec->resolve(builder->spec->ctx, reference, &digest, err) != 0 ||
        oci_manifest_load(builder->spec->store, digest.text, &manifest, NULL, err) != 0 ||
        oci_config_load(builder->spec->store, &manifest, &config, err) != 0)
        return -1;
    builder_note_image(builder, reference, &digest);
    stage_init(out);
    const struct value *inner = value_get(&config, "config");
    if (inner && inner->kind == VALUE_MAP) {
        value_free(&out->config);
        value_copy(&out->config, inner);
    }
    const char *author = value_get_string(&config, "author", NULL);
    out->author = author ? mem_strdup(author) : NULL;
    const struct value *layers = value_get(&manifest, "layers");
    for (size_t i = 0; i < value_count(layers); i++) {
        const struct value *from = value_at(layers, i);
        struct value *to = value_push(&out->layers);
        value_set_map(to);
        value_put_string(to, "mediaType",
                         oci_layer_type(value_get_string(from, "mediaType", OCI_LAYER_GZIP)));
        value_put_string(to, "digest", value_get_string(from, "digest", ""));
        value_put_int(to, "size", value_get_int(from, "size", 0));
    }
    out->base_layers = value_count(&out->layers);
    value_free(&out->diff_ids);
    value_copy(&out->diff_ids, value_path(&config, "rootfs.diff_ids"));
    const struct value *history = value_get(&config, "history");
    if (history && history->kind == VALUE_ARRAY) {
        value_free(&out->history);
        value_copy(&out->history, history);
    }
    return 0;
}

static void copy_stage(struct stage *to, const struct stage *from)
{
    stage_init(to);
    to->author = from->author ? mem_strdup(from->author) : NULL;
    value_free(&to->config);
    value_copy(&to->config, &from->config);
    value_free(&to->layers);
    value_copy(&to->layers, &from->layers);
    value_free(&to->diff_ids);
    value_copy(&to->diff_ids, &from->diff_ids);
    value_free(&to->history);
    value_copy(&to->history, &from->history);
    value_free(&to->args); /* ARGs of a stage are known in those that build on it */
    value_copy(&to->args, &from->args);
    to->base_layers = from->base_layers;
}

void stage_history(struct builder *builder, struct stage *stage, const struct value *instruction,
                   bool empty)
{
    struct value *item = value_push(&stage->history);
    cleanup_free char *text = mem_printf("%s %s", value_get_string(instruction, "keyword", ""),
                                         value_get_string(instruction, "text", ""));

    value_set_map(item);
    value_put_string(item, "created", builder->created);
    value_put_string(item, "created_by", text);
    if (empty)
        value_put_bool(item, "empty_layer", true);
}

int stage_tree(struct builder *builder, struct stage *stage, struct error *err)
{
    for (size_t i = (size_t)stage->tree.layers; i < value_count(&stage->layers); i++) {
        const char *digest = value_get_string(value_at(&stage->layers, i), "digest", "");
        if (tree_add_blob(&stage->tree, builder->spec->store, digest, err) != 0)
            return -1;
    }
    return 0;
}

struct context *builder_context(struct builder *builder, struct error *err)
{
    if (builder->context)
        return builder->context;
    builder->context = context_list(builder->spec->context, builder->spec->dockerfile, err);
    if (!builder->context || builder->spec->caching == BUILD_CACHE_OFF)
        return builder->context;
    context_settle(builder->context);
    context_remember(builder->context, builder->spec->store);
    return builder->context;
}

/* This machine's, under the names that it has. */
static int check_platform(const char *platform, struct error *err)
{
    static const struct {
        const char *name, *usual;
    } names[] = {{"x86_64", "amd64"},
                 {"x86-64", "amd64"},
                 {"aarch64", "arm64"},
                 {"amd64/v1", "amd64"},
                 {"arm64/v8", "arm64"}};

    if (!platform || !*platform || strcasecmp(platform, "linux") == 0)
        return 0;
    const char *architecture = strncasecmp(platform, "linux/", 6) == 0 ? platform + 6 : platform;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(names[i].name, architecture) == 0)
            architecture = names[i].usual;
    if (strcasecmp(architecture, oci_architecture()) == 0)
        return 0;
    error_set(err, ERR_UNSUPPORTED, "--platform=%s cannot be built here", platform);
    return error_hint(err, "this machine builds linux/%s", oci_architecture());
}

static int build_instruction(struct builder *builder, struct stage *stage,
                             const struct value *instruction, struct error *err);

/* What the base wants done in the images that build on it: once, and not in those on top. */
static int fire_triggers(struct builder *builder, struct stage *stage, const char *image, int line,
                         struct error *err)
{
    cleanup_value struct value triggers = {0};
    struct value *list = value_get(&stage->config, "OnBuild");

    if (!list)
        return 0;
    value_move(&triggers, list);
    value_remove(&stage->config, "OnBuild");
    for (size_t i = 0; i < value_count(&triggers); i++) {
        cleanup_value struct value instruction = {0};
        const char *text = value_text(value_at(&triggers, i), "");
        builder_log(builder, "info", "ONBUILD of %s: %s", image, text);
        if (dockerfile_parse_trigger(text, image, line, &instruction, err) != 0 ||
            build_instruction(builder, stage, &instruction, err) != 0)
            return error_wrap(err, "ONBUILD of %s", image);
    }
    return 0;
}

static int build_from(struct builder *builder, struct stage *stage, const struct value *instruction,
                      struct error *err)
{
    const char *platform = value_get_string(value_get(instruction, "flags"), "platform", NULL);
    cleanup_free char *wanted = platform ? stage_expand(builder, NULL, platform, err) : NULL;
    cleanup_free char *image = stage_expand(
        builder, NULL, value_text(value_at(value_get(instruction, "words"), 0), ""), err);

    if (!image || (platform && !wanted) || check_platform(wanted, err) != 0)
        return -1;
    if (!*image) {
        error_set(err, ERR_INVALID, "FROM %s: the image's name is empty",
                  value_get_string(instruction, "text", ""));
        return error_hint(err, "give the ARG a default, or pass args = { NAME = \"image\" }");
    }
    char *name = stage->name;
    stage->name = NULL;
    int status = 0;
    struct stage *earlier = builder_stage(builder, image);
    if (strcmp(image, "scratch") == 0) {
        stage_init(stage);
        struct value *env = value_put(&stage->config, "Env");
        value_set_array(env);
        value_push_string(env, "PATH=" PATH_DEFAULT);
    } else if (earlier && earlier < stage) {
        status = builder_build(builder, earlier, err);
        if (status == 0)
            copy_stage(stage, earlier);
    } else {
        status = builder_image(builder, image, stage, err);
    }
    stage->name = name;
    if (status != 0)
        return -1;
    return fire_triggers(builder, stage, image, (int)value_get_int(instruction, "line", 0), err);
}

static int go_on(struct builder *builder, struct error *err)
{
    if (cancelled(builder->spec->cancel))
        return error_set(err, ERR_CANCELLED, "the build was cancelled");
    if (builder->spec->deadline && deadline_passed(builder->spec->deadline))
        return error_set(err, ERR_TIMEOUT, "the build took too long");
    return 0;
}

static int build_instruction(struct builder *builder, struct stage *stage,
                             const struct value *instruction, struct error *err)
{
    const char *keyword = value_get_string(instruction, "keyword", "");

    if (go_on(builder, err) != 0)
        return -1;
    if (strcmp(keyword, "FROM") == 0)
        return build_from(builder, stage, instruction, err);
    if (strcmp(keyword, "COPY") == 0 || strcmp(keyword, "ADD") == 0)
        return build_copy(builder, stage, instruction, err);
    if (strcmp(keyword, "WORKDIR") == 0)
        return build_workdir(builder, stage, instruction, err);
    if (strcmp(keyword, "RUN") == 0)
        return build_run(builder, stage, instruction, err);
    int done = build_config(builder, stage, instruction, err);
    if (done == 0)
        return error_set(err, ERR_UNSUPPORTED, "%s is not supported", keyword);
    return done > 0 ? 0 : -1;
}

/* "source:line: " before the message, and the line behind it; once, for an error may come out of a
 * stage that this one needs. */
static int place_error(struct builder *builder, const struct value *instruction, struct error *err)
{
    int line = (int)value_get_int(instruction, "line", 0);
    const char *at = builder->text.data;

    if (!err || builder->placed)
        return -1;
    builder->placed = true;
    error_wrap(err, "%s:%d", builder->label, line);
    if (strcmp(value_get_string(instruction, "keyword", ""), "RUN") == 0)
        return -1; /* which says what ran, and what that said */
    for (int i = 1; at && i < line; i++) {
        at = strchr(at, '\n');
        at = at ? at + 1 : NULL;
    }
    size_t len = strlen(err->message), end = at ? strcspn(at, "\r\n") : 0;
    if (end)
        snprintf(err->message + len, sizeof err->message - len, "\n%5d | %.*s", line,
                 (int)(end < SHOWN ? end : SHOWN), at);
    return -1;
}

int builder_build(struct builder *builder, struct stage *stage, struct error *err)
{
    if (stage->done)
        return 0;
    if (stage->busy)
        return error_set(err, ERR_INVALID, "the stages need each other in a circle");
    stage->busy = true;
    for (size_t i = stage->first; i < stage->end; i++) {
        const struct value *instruction = value_at(builder->instructions, i);
        struct error problem = {0};
        if (build_instruction(builder, stage, instruction, &problem) != 0) {
            if (err)
                *err = problem;
            return place_error(builder, instruction, err);
        }
    }
    stage->busy = false;
    stage->done = true;
    return 0;
}

static int load(struct builder *builder, struct error *err)
{
    struct buf *text = &builder->text;

    if (context_read(AT_FDCWD, builder->spec->dockerfile, DOCKERFILE_LIMIT, text, err) != 0)
        return error_hint(
            err,
            "dockerfile names it, relative to the workspace, when it is not <context>/Dockerfile");
    if (dockerfile_parse(text->data ? text->data : "", text->len, builder->label,
                         &builder->dockerfile, NULL, err) != 0)
        return -1;
    struct digest digest;
    digest_bytes(text->data ? text->data : "", text->len, &digest);
    builder_note_file(builder, "dockerfile", NULL, &digest);
    builder->instructions = value_get(&builder->dockerfile, "instructions");
    builder->escape = *value_get_string(&builder->dockerfile, "escape", "\\");
    const char *syntax = value_get_string(&builder->dockerfile, "syntax", "docker/dockerfile");
    if (!strstr(syntax, "docker/dockerfile"))
        builder_log(builder, "warning", "%s: syntax=%s: it is read as an ordinary Dockerfile",
                    builder->label, syntax);
    value_set_map(&builder->globals);
    value_set_map(&builder->used_args);
    for (size_t i = 0; i < value_count(builder->instructions); i++) {
        const struct value *instruction = value_at(builder->instructions, i);
        const struct value *words = value_get(instruction, "words");
        if (value_get_int(instruction, "stage", -1) < 0) {
            if (build_arg(builder, NULL, instruction, err) != 0)
                return place_error(builder, instruction, err);
        } else if (strcmp(value_get_string(instruction, "keyword", ""), "FROM") == 0) {
            builder->stages =
                mem_array(builder->stages, builder->count + 1, sizeof *builder->stages);
            struct stage *stage = &builder->stages[builder->count++];
            *stage = (struct stage){.first = i, .end = i + 1};
            if (value_count(words) == 3)
                stage->name = mem_strdup(value_text(value_at(words, 2), ""));
        } else {
            builder->stages[builder->count - 1].end = i + 1;
        }
    }
    return 0;
}

static void builder_end(struct builder *builder)
{
    for (size_t i = 0; i < builder->count; i++)
        stage_free(&builder->stages[i]);
    free(builder->stages);
    buf_free(&builder->text);
    value_free(&builder->dockerfile);
    value_free(&builder->globals);
    value_free(&builder->used_args);
    context_free(builder->context);
}

int build_write_image(struct store *store, const struct value *config, const struct value *layers,
                      const struct value *annotations, struct build_result *out, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value manifest = {0};

    value_to_json(config, 0, &text);
    if (store_blob_put(store, text.data, text.len, &out->config, err) != 0)
        return -1;
    value_set_map(&manifest);
    value_put_int(&manifest, "schemaVersion", 2);
    value_put_string(&manifest, "mediaType", OCI_MANIFEST);
    struct value *descriptor = value_put(&manifest, "config");
    value_set_map(descriptor);
    value_put_string(descriptor, "mediaType", OCI_CONFIG);
    value_put_string(descriptor, "digest", out->config.text);
    value_put_int(descriptor, "size", (int64_t)text.len);
    value_copy(value_put(&manifest, "layers"), layers);
    if (value_count(annotations))
        value_copy(value_put(&manifest, "annotations"), annotations);
    out->layers = value_count(layers);
    out->size = 0;
    for (size_t i = 0; i < out->layers; i++)
        out->size += (uint64_t)value_get_int(value_at(layers, i), "size", 0);
    buf_clear(&text);
    value_to_json(&manifest, 0, &text);
    return store_blob_put(store, text.data, text.len, &out->manifest, err);
}

static int write_stage(struct builder *builder, struct stage *stage, struct build_result *out,
                       struct error *err)
{
    cleanup_value struct value config = {0};
    const struct value *labels = builder->spec->labels;

    for (size_t i = 0; labels && labels->kind == VALUE_MAP && i < labels->as.map.count; i++) {
        struct value *map = value_get(&stage->config, "Labels");
        if (!map)
            value_set_map(map = value_put(&stage->config, "Labels"));
        value_put_string(map, labels->as.map.pairs[i].key,
                         value_text(&labels->as.map.pairs[i].value, ""));
    }
    value_set_map(&config);
    value_put_string(&config, "created", builder->created);
    if (stage->author)
        value_put_string(&config, "author", stage->author);
    value_put_string(&config, "architecture", oci_architecture());
    value_put_string(&config, "os", "linux");
    value_copy(value_put(&config, "config"), &stage->config);
    struct value *rootfs = value_put(&config, "rootfs");
    value_set_map(rootfs);
    value_put_string(rootfs, "type", "layers");
    value_copy(value_put(rootfs, "diff_ids"), &stage->diff_ids);
    value_copy(value_put(&config, "history"), &stage->history);
    return build_write_image(builder->spec->store, &config, &stage->layers, NULL, out, err);
}

/* Arguments for builders, which no ARG needs to name. */
static bool for_builder(const char *name)
{
    size_t len = strlen(name);

    return strncmp(name, "BUILDKIT_", 9) == 0 || strcmp(name, "SOURCE_DATE_EPOCH") == 0 ||
           (len > 6 && strcasecmp(name + len - 6, "_PROXY") == 0);
}

static void warn_unused(struct builder *builder)
{
    const struct value *args = builder->spec->args;

    for (size_t i = 0; args && args->kind == VALUE_MAP && i < args->as.map.count; i++)
        if (!value_get(&builder->used_args, args->as.map.pairs[i].key) &&
            !for_builder(args->as.map.pairs[i].key))
            builder_log(builder, "warning", "%s: the build argument %s is used by no ARG",
                        builder->label, args->as.map.pairs[i].key);
}

static int builder_begin(struct builder *builder, const struct build_spec *spec, struct error *err)
{
    cleanup_buf struct buf created = BUF_INIT;

    *builder =
        (struct builder){.spec = spec, .label = spec->label ? spec->label : spec->dockerfile};
    time_print(spec->epoch * 1000, &created);
    snprintf(builder->created, sizeof builder->created, "%s", created.data);
    return load(builder, err);
}

int oci_build(const struct build_spec *spec, struct build_result *out, struct error *err)
{
    struct builder builder;
    int status = builder_begin(&builder, spec, err);

    if (status == 0) {
        struct stage *stage = spec->target ? builder_stage(&builder, spec->target)
                                           : &builder.stages[builder.count - 1];
        if (!stage)
            status =
                error_set(err, ERR_NOT_FOUND, "%s has no stage '%s'", builder.label, spec->target);
        else
            status = builder_build(&builder, stage, err);
        if (status == 0)
            status = builder_note_context(&builder, err);
        if (status == 0)
            status = write_stage(&builder, stage, out, err);
        if (status == 0)
            warn_unused(&builder);
        if (build_cache_writes(spec)) {
            context_known_save(builder.context);
            build_cache_tidy(spec->store);
        }
    }
    builder_end(&builder);
    return status;
}

int build_references(const char *dockerfile, const char *label, const struct value *args,
                     struct value *out, struct error *err)
{
    struct build_spec spec = {.dockerfile = dockerfile, .label = label, .args = args};
    struct builder builder;
    int status = builder_begin(&builder, &spec, err);

    value_set_array(out);
    for (size_t i = 0; status == 0 && i < value_count(builder.instructions); i++) {
        const struct value *instruction = value_at(builder.instructions, i);
        const char *keyword = value_get_string(instruction, "keyword", "");
        const char *word = strcmp(keyword, "FROM") == 0
                               ? value_text(value_at(value_get(instruction, "words"), 0), "")
                           : strcmp(keyword, "COPY") == 0
                               ? value_get_string(value_get(instruction, "flags"), "from", NULL)
                               : NULL;
        cleanup_free char *image = word ? stage_expand(&builder, NULL, word, NULL) : NULL;
        if (image && *image && strcmp(image, "scratch") != 0 && !builder_stage(&builder, image))
            value_push_string(out, image);
        if (strcmp(keyword, "RUN") == 0)
            build_run_references(&builder, instruction, out);
    }
    builder_end(&builder);
    return status;
}
