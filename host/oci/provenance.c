#include "oci/provenance.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/module.h"
#include "oci/manifest.h"

#define WITHHELD "<withheld>"

/* ---- arguments ---- */

static bool holds_word(const char *name, const char *word)
{
    size_t len = strlen(word);

    for (; *name; name++)
        if (strncasecmp(name, word, len) == 0)
            return true;
    return false;
}

/* Secrets do not belong into build arguments; some put them there all the same. */
static bool looks_secret(const char *name)
{
    static const char *const words[] = {"password", "passwd",      "passphrase", "secret",
                                        "token",    "credential",  "api_key",    "apikey",
                                        "auth",     "private_key", "access_key"};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (holds_word(name, words[i]))
            return true;
    return false;
}

static bool is_proxy(const char *name)
{
    size_t len = strlen(name);

    return len > 6 && strcasecmp(name + len - 6, "_proxy") == 0;
}

static void put_args(struct value *out, const struct value *args)
{
    struct value *list = value_put(out, "args");

    value_set_map(list);
    for (size_t i = 0; args && args->kind == VALUE_MAP && i < args->as.map.count; i++) {
        const struct value_pair *pair = &args->as.map.pairs[i];
        if (!is_proxy(pair->key))
            value_put_string(list, pair->key,
                             looks_secret(pair->key) ? WITHHELD : value_text(&pair->value, ""));
    }
}

/* ---- the context ---- */

int context_dir_hash(struct context *context, char out[65], struct error *err)
{
    cleanup_free const struct context_file **files =
        mem_alloc((context->count + 1) * sizeof(struct context_file *));
    struct digest digest;
    size_t count = 0;

    for (size_t i = 0; i < context->count; i++)
        if (S_ISREG(context->files[i].mode))
            files[count++] = &context->files[i];
    if (context_digest_all(context, files, count, err) != 0)
        return -1;
    struct hasher *hasher = hasher_new();
    for (size_t i = 0; i < count; i++) { /* sorted by path, as the hash wants them */
        if (context_digest(context, files[i], &digest, err) != 0) {
            hasher_drop(hasher);
            return -1;
        }
        cleanup_free char *line = mem_printf("%s  %s\n", digest.text + 7, files[i]->path);
        hasher_update(hasher, line, strlen(line));
    }
    hasher_finish(hasher, &digest);
    memcpy(out, digest.text + 7, 65);
    return 0;
}

/* ---- the statement ---- */

static struct value *put_map(struct value *map, const char *key)
{
    struct value *inner = value_put(map, key);

    value_set_map(inner);
    return inner;
}

static struct value *push_map(struct value *array)
{
    struct value *map = value_push(array);

    value_set_map(map);
    return map;
}

static void put_digest(struct value *map, const char *digest)
{
    value_put_string(put_map(map, "digest"), "sha256", digest + 7);
}

static void put_dependencies(struct value *definition, const struct value *materials)
{
    struct value *list = value_put(definition, "resolvedDependencies");

    value_set_array(list);
    for (size_t i = 0; i < value_count(materials); i++) {
        const struct value *material = value_at(materials, i);
        const char *uri = value_get_string(material, "uri", NULL),
                   *digest = value_get_string(material, "digest", NULL),
                   *hash = value_get_string(material, "dirHash", NULL);
        struct value *out = push_map(list);
        value_put_string(out, "name", value_get_string(material, "name", NULL));
        value_put_string(out, "uri", uri);
        if (digest)
            put_digest(out, digest);
        if (hash)
            value_put_string(put_map(out, "digest"), "dirHash", hash);
    }
}

static void put_when(struct value *metadata, const char *key, int64_t ms)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (!ms)
        return;
    time_print(ms, &text);
    value_put_string(metadata, key, text.data);
}

void oci_provenance(const struct provenance_spec *spec, struct value *out)
{
    const struct build_spec *build = spec->build;

    value_set_map(out);
    value_put_string(out, "_type", "https://in-toto.io/Statement/v1");
    struct value *subjects = value_put(out, "subject");
    value_set_array(subjects);
    struct value *subject = push_map(subjects);
    value_put_string(subject, "name", spec->name ? spec->name : "image");
    put_digest(subject, spec->image->text);
    value_put_string(out, "predicateType", PROVENANCE_TYPE);
    struct value *predicate = put_map(out, "predicate");

    struct value *definition = put_map(predicate, "buildDefinition");
    value_put_string(definition, "buildType", PROVENANCE_BUILD);
    struct value *external = put_map(definition, "externalParameters");
    value_put_string(external, "dockerfile", build->label);
    value_put_string(external, "context", spec->context);
    value_put_string(external, "target", build->target);
    put_args(external, build->args);
    if (value_count(build->labels))
        value_copy(value_put(external, "labels"), build->labels);
    struct value *internal = put_map(definition, "internalParameters");
    value_set_printf(value_put(internal, "platform"), "linux/%s", oci_architecture());
    value_put_int(internal, "epoch", build->epoch);
    value_put_bool(internal, "network", build->network);
    put_dependencies(definition, spec->materials);

    struct value *details = put_map(predicate, "runDetails");
    struct value *builder = put_map(details, "builder");
    value_put_string(builder, "id", spec->builder ? spec->builder : PROVENANCE_BUILDER);
    value_put_string(put_map(builder, "version"), "mlhost", mlhost_version);
    struct value *metadata = put_map(details, "metadata");
    value_put_string(metadata, "invocationId", spec->invocation);
    put_when(metadata, "startedOn", spec->started_ms);
    put_when(metadata, "finishedOn", spec->finished_ms);
}
