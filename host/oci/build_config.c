/* Instructions that change nothing but the config. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/build_internal.h"
#include "oci/dockerfile.h"

typedef int config_fn(struct builder *builder, struct stage *stage, const struct value *instruction,
                      struct error *err);

static struct value *map_of(struct value *config, const char *key)
{
    struct value *map = value_get(config, key);

    if (!map || map->kind != VALUE_MAP)
        value_set_map(map = value_put(config, key));
    return map;
}

static void set_env(struct stage *stage, const char *name, const char *text)
{
    struct value *env = value_get(&stage->config, "Env");
    size_t len = strlen(name);

    if (!env || env->kind != VALUE_ARRAY)
        value_set_array(env = value_put(&stage->config, "Env"));
    struct value *slot = NULL;
    for (size_t i = 0; !slot && i < value_count(env); i++) {
        const char *pair = value_text(value_at(env, i), "");
        if (strncmp(pair, name, len) == 0 && pair[len] == '=')
            slot = value_at(env, i);
    }
    if (slot)
        value_free(slot);
    else
        slot = value_push(env);
    value_set_printf(slot, "%s=%s", name, text);
}

/* k=v k="v w" ..., or k and the rest of the line. Values are expanded with what held before the
 * instruction. */
static int pairs(struct builder *builder, struct stage *stage, const struct value *instruction,
                 struct value *out, struct error *err)
{
    const char *text = value_get_string(instruction, "text", ""),
               *keyword = value_get_string(instruction, "keyword", "");
    cleanup_value struct value words = {0};

    value_set_map(out);
    value_set_array(&words);
    if (dockerfile_split(text, builder->escape, &words, err) != 0)
        return -1;
    const char *first = value_text(value_at(&words, 0), "");
    if (!strchr(first, '=')) {
        const char *rest = text + strcspn(text, " \t");
        rest += strspn(rest, " \t");
        if (!*rest) {
            error_set(err, ERR_INVALID, "%s %s has no value", keyword, first);
            return error_hint(err, "%s name=value", keyword);
        }
        cleanup_free char *name = stage_expand(builder, stage, first, err);
        char *value = name ? stage_expand(builder, stage, rest, err) : NULL;
        if (!value)
            return -1;
        value_take_string(value_put(out, name), value);
        return 0;
    }
    for (size_t i = 0; i < value_count(&words); i++) {
        const char *word = value_text(value_at(&words, i), "");
        const char *equals = strchr(word, '=');
        if (!equals || equals == word)
            return error_set(err, ERR_INVALID, "%s: '%s' is not of the form name=value", keyword,
                             word);
        cleanup_free char *key = mem_strndup(word, (size_t)(equals - word));
        cleanup_free char *name = stage_expand(builder, stage, key, err);
        char *value = name ? stage_expand(builder, stage, equals + 1, err) : NULL;
        if (!value)
            return -1;
        value_take_string(value_put(out, name), value);
    }
    return 0;
}

static int do_env(struct builder *builder, struct stage *stage, const struct value *instruction,
                  struct error *err)
{
    cleanup_value struct value map = {0};

    if (pairs(builder, stage, instruction, &map, err) != 0)
        return -1;
    for (size_t i = 0; i < map.as.map.count; i++)
        set_env(stage, map.as.map.pairs[i].key, value_text(&map.as.map.pairs[i].value, ""));
    return 0;
}

static int do_label(struct builder *builder, struct stage *stage, const struct value *instruction,
                    struct error *err)
{
    cleanup_value struct value map = {0};

    if (pairs(builder, stage, instruction, &map, err) != 0)
        return -1;
    struct value *labels = map_of(&stage->config, "Labels");
    for (size_t i = 0; i < map.as.map.count; i++)
        value_put_string(labels, map.as.map.pairs[i].key,
                         value_text(&map.as.map.pairs[i].value, ""));
    return 0;
}

static int do_maintainer(struct builder *builder, struct stage *stage,
                         const struct value *instruction, struct error *err)
{
    (void)builder, (void)err;
    free(stage->author);
    stage->author = mem_strdup(value_get_string(instruction, "text", ""));
    return 0;
}

/* The exec form as it is; the shell form behind the shell. */
static void command(struct stage *stage, const struct value *instruction, struct value *out)
{
    if (value_get_bool(instruction, "json", false)) {
        value_copy(out, value_get(instruction, "words"));
        return;
    }
    const struct value *shell = value_get(&stage->config, "Shell");
    value_set_array(out);
    for (size_t i = 0; i < value_count(shell); i++)
        value_push_string(out, value_text(value_at(shell, i), ""));
    if (!value_count(shell)) {
        value_push_string(out, "/bin/sh");
        value_push_string(out, "-c");
    }
    value_push_string(out, value_get_string(instruction, "text", ""));
}

static int do_cmd(struct builder *builder, struct stage *stage, const struct value *instruction,
                  struct error *err)
{
    (void)builder, (void)err;
    struct value words = {0};
    command(stage, instruction, &words);
    value_move(value_put(&stage->config, "Cmd"), &words);
    stage->cmd_set = true;
    return 0;
}

static int do_entrypoint(struct builder *builder, struct stage *stage,
                         const struct value *instruction, struct error *err)
{
    (void)builder, (void)err;
    struct value words = {0};
    command(stage, instruction, &words);
    value_move(value_put(&stage->config, "Entrypoint"), &words);
    if (!stage->cmd_set) /* what the base would have passed to its own entry point */
        value_remove(&stage->config, "Cmd");
    return 0;
}

static int do_shell(struct builder *builder, struct stage *stage, const struct value *instruction,
                    struct error *err)
{
    (void)builder, (void)err;
    struct value words = {0};
    value_copy(&words, value_get(instruction, "words"));
    value_move(value_put(&stage->config, "Shell"), &words);
    return 0;
}

static int do_user(struct builder *builder, struct stage *stage, const struct value *instruction,
                   struct error *err)
{
    char *user = stage_expand(builder, stage, value_get_string(instruction, "text", ""), err);

    if (!user)
        return -1;
    value_take_string(value_put(&stage->config, "User"), user);
    return 0;
}

#define SIGNAL_MAX 64

static bool is_signal(const char *text)
{
    const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
    char *end;

    if (isdigit((unsigned char)*text)) {
        unsigned long number = strtoul(text, &end, 10);
        return !*end && number >= 1 && number <= SIGNAL_MAX;
    }
    for (int i = 1; i <= SIGNAL_MAX; i++)
        if (sigabbrev_np(i) && strcasecmp(sigabbrev_np(i), name) == 0)
            return true;
    if (strncasecmp(name, "RTMIN", 5) != 0 && strncasecmp(name, "RTMAX", 5) != 0)
        return strcasecmp(name, "IOT") == 0 || strcasecmp(name, "CLD") == 0;
    if (!name[5])
        return true;
    unsigned long offset = strtoul(name + 6, &end, 10);
    return name[5] == (toupper((unsigned char)name[3]) == 'I' ? '+' : '-') &&
           isdigit((unsigned char)name[6]) && !*end && offset <= 15;
}

static int do_stopsignal(struct builder *builder, struct stage *stage,
                         const struct value *instruction, struct error *err)
{
    char *name = stage_expand(builder, stage, value_get_string(instruction, "text", ""), err);

    if (!name)
        return -1;
    if (!is_signal(name)) {
        error_set(err, ERR_INVALID, "STOPSIGNAL: '%.40s' is no signal", name);
        free(name);
        return error_hint(err, "SIGTERM and the like, or a number from 1 to %d", SIGNAL_MAX);
    }
    value_take_string(value_put(&stage->config, "StopSignal"), name);
    return 0;
}

/* Words, each with variables expanded, as keys of a map of empty maps: what EXPOSE and VOLUME have
 * in the config. */
static int keys(struct builder *builder, struct stage *stage, const struct value *instruction,
                struct value *out, struct error *err)
{
    const struct value *words = value_get(instruction, "words");

    value_set_array(out);
    for (size_t i = 0; i < value_count(words); i++) {
        char *word = stage_expand(builder, stage, value_text(value_at(words, i), ""), err);
        if (!word)
            return -1;
        value_take_string(value_push(out), word);
    }
    return 0;
}

static int do_volume(struct builder *builder, struct stage *stage, const struct value *instruction,
                     struct error *err)
{
    cleanup_value struct value list = {0};

    if (keys(builder, stage, instruction, &list, err) != 0)
        return -1;
    for (size_t i = 0; i < value_count(&list); i++) {
        const char *path = value_text(value_at(&list, i), "");
        if (!*path)
            return error_set(err, ERR_INVALID, "VOLUME: a path is empty");
        value_set_map(value_put(map_of(&stage->config, "Volumes"), path));
    }
    return 0;
}

/* One port or a range of them, as ExposedPorts has it. */
static int expose_port(struct stage *stage, const char *text, struct error *err)
{
    char *end;
    unsigned long from = strtoul(text, &end, 10), to = from;

    if (*end == '-' && isdigit((unsigned char)end[1]))
        to = strtoul(end + 1, &end, 10);
    cleanup_free char *protocol = mem_strdup(*end == '/' ? end + 1 : "tcp");
    for (char *c = protocol; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    if (!isdigit((unsigned char)*text) || (*end && *end != '/') || from < 1 || to > 65535 ||
        to < from ||
        (strcmp(protocol, "tcp") != 0 && strcmp(protocol, "udp") != 0 &&
         strcmp(protocol, "sctp") != 0)) {
        error_set(err, ERR_INVALID, "EXPOSE: '%.60s' is no port", text);
        return error_hint(
            err, "a port from 1 to 65535, or a range of them, and perhaps /tcp, /udp or /sctp");
    }
    for (unsigned long port = from; port <= to; port++) {
        cleanup_free char *key = mem_printf("%lu/%s", port, protocol);
        value_set_map(value_put(map_of(&stage->config, "ExposedPorts"), key));
    }
    return 0;
}

/* A variable may hold several ports. */
static int expose(struct stage *stage, const char *text, struct error *err)
{
    for (text += strspn(text, " \t"); *text; text += strspn(text, " \t")) {
        size_t len = strcspn(text, " \t");
        cleanup_free char *port = mem_strndup(text, len);
        if (expose_port(stage, port, err) != 0)
            return -1;
        text += len;
    }
    return 0;
}

static int do_expose(struct builder *builder, struct stage *stage, const struct value *instruction,
                     struct error *err)
{
    cleanup_value struct value list = {0};

    if (keys(builder, stage, instruction, &list, err) != 0)
        return -1;
    for (size_t i = 0; i < value_count(&list); i++) {
        if (expose(stage, value_text(value_at(&list, i), ""), err) != 0)
            return -1;
    }
    return 0;
}
static int do_healthcheck(struct builder *builder, struct stage *stage,
                          const struct value *instruction, struct error *err)
{
    static const struct {
        const char *flag, *key;
    } durations[] = {
        {"interval", "Interval"},
        {"timeout", "Timeout"},
        {"start-period", "StartPeriod"},
        {"start-interval", "StartInterval"},
    };
    const char *text = value_get_string(instruction, "text", "");
    const struct value *flags = value_get(instruction, "flags");
    struct value check = {0}, *test;

    (void)builder;
    value_set_map(&check);
    value_set_array(test = value_put(&check, "Test"));
    if (strcasecmp(text, "NONE") == 0) {
        value_push_string(test, "NONE");
    } else if (strncasecmp(text, "CMD", 3) == 0 && isspace((unsigned char)text[3])) {
        cleanup_value struct value words = {0};
        const char *rest = text + 3 + strspn(text + 3, " \t");
        bool exec = *rest == '[' &&
                    value_from_json(rest, strlen(rest), "HEALTHCHECK", NULL, &words, NULL) == 0;
        value_push_string(test, exec ? "CMD" : "CMD-SHELL");
        for (size_t i = 0; exec && i < value_count(&words); i++)
            value_push_string(test, value_text(value_at(&words, i), ""));
        if (!exec)
            value_push_string(test, rest);
    } else {
        value_free(&check);
        error_set(err, ERR_INVALID, "HEALTHCHECK needs CMD or NONE");
        return error_hint(err, "HEALTHCHECK CMD command, or HEALTHCHECK NONE");
    }
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        const char *given = value_get_string(flags, durations[i].flag, NULL);
        int64_t ns;
        if (given && duration_parse(given, &ns, err) != 0) {
            value_free(&check);
            return error_wrap(err, "HEALTHCHECK --%s", durations[i].flag);
        }
        if (given && ns != 0 && ns < 1000000) {
            value_free(&check);
            return error_set(err, ERR_INVALID, "HEALTHCHECK --%s=%.40s is less than 1ms",
                             durations[i].flag, given);
        }
        if (given && ns)
            value_put_int(&check, durations[i].key, ns);
    }
    const char *retries = value_get_string(flags, "retries", NULL);
    if (retries && strtol(retries, NULL, 10) > 0)
        value_put_int(&check, "Retries", strtol(retries, NULL, 10));
    value_move(value_put(&stage->config, "Healthcheck"), &check);
    return 0;
}

static int do_onbuild(struct builder *builder, struct stage *stage, const struct value *instruction,
                      struct error *err)
{
    struct value *list = value_get(&stage->config, "OnBuild");
    const struct value *heredocs = value_get(instruction, "heredocs");
    struct buf text = BUF_INIT;

    (void)builder, (void)err;
    buf_puts(&text, value_get_string(instruction, "text", ""));
    for (size_t i = 0; i < value_count(heredocs); i++)
        buf_printf(&text, "\n%s%s", value_get_string(value_at(heredocs, i), "text", ""),
                   value_get_string(value_at(heredocs, i), "name", ""));
    if (!list)
        value_set_array(list = value_put(&stage->config, "OnBuild"));
    value_take_string(value_push(list), buf_steal(&text));
    return 0;
}

static const struct {
    const char *keyword;
    config_fn *fn;
} table[] = {
    {"ARG", build_arg},
    {"CMD", do_cmd},
    {"ENTRYPOINT", do_entrypoint},
    {"ENV", do_env},
    {"EXPOSE", do_expose},
    {"HEALTHCHECK", do_healthcheck},
    {"LABEL", do_label},
    {"MAINTAINER", do_maintainer},
    {"ONBUILD", do_onbuild},
    {"SHELL", do_shell},
    {"STOPSIGNAL", do_stopsignal},
    {"USER", do_user},
    {"VOLUME", do_volume},
};

int build_config(struct builder *builder, struct stage *stage, const struct value *instruction,
                 struct error *err)
{
    const char *keyword = value_get_string(instruction, "keyword", "");

    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(table[i].keyword, keyword) != 0)
            continue;
        if (table[i].fn(builder, stage, instruction, err) != 0)
            return -1;
        stage_history(builder, stage, instruction, true);
        return 1;
    }
    return 0;
}
