/* ENV, ARG and what every build knows: who sees which variable. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "oci/build_internal.h"
#include "oci/dockerfile.h"
#include "oci/manifest.h"

const char *stage_env(const struct stage *stage, const char *name, size_t len)
{
    const struct value *env = value_get(&stage->config, "Env");

    for (size_t i = value_count(env); i-- > 0;) {
        const char *pair = value_text(value_at(env, i), "");
        if (strncmp(pair, name, len) == 0 && pair[len] == '=')
            return pair + len + 1;
    }
    return NULL;
}

/* What every build knows, as BuildKit has it. */
static const char *predefined(const struct builder *builder, const char *name)
{
    static char platform[32];

    if (strcmp(name, "TARGETOS") == 0 || strcmp(name, "BUILDOS") == 0)
        return "linux";
    if (strcmp(name, "TARGETARCH") == 0 || strcmp(name, "BUILDARCH") == 0)
        return oci_architecture();
    if (strcmp(name, "TARGETVARIANT") == 0 || strcmp(name, "BUILDVARIANT") == 0)
        return "";
    if (strcmp(name, "TARGETSTAGE") == 0)
        return builder->spec->target ? builder->spec->target : "default";
    if (strcmp(name, "TARGETPLATFORM") != 0 && strcmp(name, "BUILDPLATFORM") != 0)
        return NULL;
    snprintf(platform, sizeof platform, "linux/%s", oci_architecture());
    return platform;
}

struct scope {
    struct builder *builder;
    struct stage *stage;
};

static const char *lookup(void *ctx, const char *name, size_t len)
{
    struct scope *scope = ctx;
    cleanup_free char *key = mem_strndup(name, len);

    if (scope->stage) {
        const char *env = stage_env(scope->stage, name, len);
        return env ? env : value_get_string(&scope->stage->args, key, NULL);
    }
    const char *global = value_get_string(&scope->builder->globals, key, NULL);
    return global ? global : predefined(scope->builder, key);
}

char *stage_expand(struct builder *builder, struct stage *stage, const char *word,
                   struct error *err)
{
    struct scope scope = {builder, stage};

    return dockerfile_expand(word, builder->escape, 0, lookup, &scope, err);
}

char *stage_expand_text(struct builder *builder, struct stage *stage, const char *text,
                        struct error *err)
{
    struct scope scope = {builder, stage};

    return dockerfile_expand(text, builder->escape, DOCKERFILE_RAW_QUOTES, lookup, &scope, err);
}

int build_arg(struct builder *builder, struct stage *stage, const struct value *instruction,
              struct error *err)
{
    cleanup_value struct value words = {0};

    value_set_array(&words);
    if (dockerfile_split(value_get_string(instruction, "text", ""), builder->escape, &words, err) !=
        0)
        return -1;
    for (size_t i = 0; i < value_count(&words); i++) {
        const char *word = value_text(value_at(&words, i), "");
        size_t len = strcspn(word, "=");
        cleanup_free char *name = mem_strndup(word, len);
        if (!isalpha((unsigned char)*name) && *name != '_')
            return error_set(err, ERR_INVALID, "ARG: '%s' is no name of a variable", name);
        cleanup_free char *text =
            word[len] ? stage_expand(builder, stage, word + len + 1, err) : NULL;
        if (word[len] && !text)
            return -1;
        const struct value *given = value_get(builder->spec->args, name);
        const char *chosen = given ? value_text(given, "") : text;
        if (!chosen && stage)
            chosen = value_get_string(&builder->globals, name, predefined(builder, name));
        if (given)
            value_put_bool(&builder->used_args, name, true);
        struct value *slot = value_put(stage ? &stage->args : &builder->globals, name);
        if (chosen)
            value_set_string(slot, chosen);
    }
    return 0;
}
