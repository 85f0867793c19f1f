/* One instruction of a Dockerfile: its keyword, flags, words, and what it must have. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/config.h"
#include "base/mem.h"
#include "oci/dockerfile_internal.h"

static const char *const keywords[] = {
    "ADD",    "ARG",   "CMD",         "COPY",  "ENTRYPOINT", "ENV",
    "EXPOSE", "FROM",  "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD",
    "RUN",    "SHELL", "STOPSIGNAL",  "USER",  "VOLUME",     "WORKDIR",
};
#define KEYWORDS (sizeof keywords / sizeof *keywords)

enum flag_kind { FLAG_TEXT, FLAG_LIST, FLAG_SWITCH };

#define FLAGS_MAX 8
static const struct {
    const char *keyword;
    struct {
        const char *name;
        enum flag_kind kind;
    } flags[FLAGS_MAX];
} flag_table[] = {
    {"FROM", {{"platform", FLAG_TEXT}}},
    {"COPY",
     {{"from", FLAG_TEXT},
      {"chown", FLAG_TEXT},
      {"chmod", FLAG_TEXT},
      {"link", FLAG_SWITCH},
      {"parents", FLAG_SWITCH},
      {"exclude", FLAG_LIST}}},
    {"ADD",
     {{"chown", FLAG_TEXT},
      {"chmod", FLAG_TEXT},
      {"link", FLAG_SWITCH},
      {"checksum", FLAG_TEXT},
      {"keep-git-dir", FLAG_SWITCH},
      {"unpack", FLAG_SWITCH},
      {"exclude", FLAG_LIST}}},
    {"RUN", {{"mount", FLAG_LIST}, {"network", FLAG_TEXT}, {"security", FLAG_TEXT}}},
    {"HEALTHCHECK",
     {{"interval", FLAG_TEXT},
      {"timeout", FLAG_TEXT},
      {"start-period", FLAG_TEXT},
      {"start-interval", FLAG_TEXT},
      {"retries", FLAG_TEXT}}},
};
#define FLAG_TABLES (sizeof flag_table / sizeof *flag_table)

static bool one_of(const char *word, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(*list, word) == 0)
            return true;
    return false;
}

/* ---- flags ---- */

static void unknown_flag(struct parser *parser, size_t table, const char *key)
{
    const char *names[FLAGS_MAX];
    cleanup_buf struct buf hint = BUF_INIT;
    cleanup_free char *shown = mem_printf("--%s", key);
    size_t count = 0;

    while (count < FLAGS_MAX && flag_table[table].flags[count].name) {
        names[count] = flag_table[table].flags[count].name;
        count++;
    }
    const char *near = near_miss(key, names, count);
    if (near)
        buf_printf(&hint, "did you mean --%s? ", near);
    buf_printf(&hint, "%s has", flag_table[table].keyword);
    for (size_t i = 0; i < count; i++)
        buf_printf(&hint, " --%s%s", names[i],
                   flag_table[table].flags[i].kind == FLAG_SWITCH ? "" : "=");
    dockerfile_problem(parser, shown, hint.data, "%s has no flag --%.40s",
                       flag_table[table].keyword, key);
}

static void keep_flag(struct parser *parser, size_t table, const char *key, const char *given,
                      struct value *flags)
{
    cleanup_free char *shown = mem_printf("--%s", key);
    size_t f = 0;

    while (f < FLAGS_MAX && flag_table[table].flags[f].name &&
           strcmp(flag_table[table].flags[f].name, key) != 0)
        f++;
    if (f == FLAGS_MAX || !flag_table[table].flags[f].name) {
        unknown_flag(parser, table, key);
        return;
    }
    struct value *slot = value_get(flags, key);
    enum flag_kind kind = flag_table[table].flags[f].kind;
    if (slot && kind != FLAG_LIST) {
        dockerfile_problem(parser, shown, "write it once", "--%s stands here twice", key);
    } else if (kind == FLAG_SWITCH) {
        bool on = !given || strcasecmp(given, "true") == 0;
        if (!on && strcasecmp(given, "false") != 0)
            dockerfile_problem(parser, shown, "--flag, --flag=true or --flag=false",
                               "--%s=%.40s: neither true nor false", key, given);
        value_put_bool(flags, key, on);
    } else if (!given) {
        dockerfile_problem(parser, shown, NULL, "--%s needs a value: --%s=...", key, key);
    } else if (kind == FLAG_LIST) {
        if (!slot)
            value_set_array(slot = value_put(flags, key));
        value_push_string(slot, given);
    } else {
        value_put_string(flags, key, given);
    }
}

/* One word without its quotes, up to a space outside of them. */
static const char *flag_word(const char *at, char escape, struct buf *out)
{
    char quote = '\0';

    for (; *at && (quote || (*at != ' ' && *at != '\t')); at++) {
        if (*at == escape && at[1] && quote != '\'') {
            buf_putc(out, *++at);
        } else if (quote ? *at == quote : *at == '"' || *at == '\'') {
            quote = quote ? '\0' : *at;
        } else {
            buf_putc(out, *at);
        }
    }
    return at;
}

/* Takes the leading --key=value words off the text. */
static const char *take_flags(struct parser *parser, const char *keyword, const char *text,
                              struct value *flags)
{
    size_t table = 0;

    while (table < FLAG_TABLES && strcmp(flag_table[table].keyword, keyword) != 0)
        table++;
    while (table < FLAG_TABLES && strncmp(text, "--", 2) == 0 && !parser->failed) {
        cleanup_buf struct buf word = BUF_INIT;
        const char *next = flag_word(text, parser->escape, &word);
        next += strspn(next, " \t");
        if (word.len <= 2)
            return next;
        char *equals = strchr(word.data, '=');
        if (equals)
            *equals = '\0';
        keep_flag(parser, table, word.data + 2, equals ? equals + 1 : NULL, flags);
        text = next;
    }
    return text;
}

/* ---- words ---- */

/* ["a", "b"]: the exec form, where an instruction has one. Anything else is words. */
static void words_of(struct parser *parser, const char *keyword, const char *text,
                     struct value *item)
{
    static const char *const with_json[] = {"ADD", "CMD",   "COPY",   "ENTRYPOINT",
                                            "RUN", "SHELL", "VOLUME", NULL};
    cleanup_value struct value json = {0};
    struct value words = {0};
    bool array = *text == '[' && one_of(keyword, with_json) &&
                 value_from_json(text, strlen(text), "words", NULL, &json, NULL) == 0 &&
                 json.kind == VALUE_ARRAY;

    value_put_bool(item, "json", array);
    for (size_t i = 0; array && i < value_count(&json); i++)
        if (value_at(&json, i)->kind != VALUE_STRING ||
            strlen(value_text(value_at(&json, i), "")) != value_at(&json, i)->as.string.len) {
            dockerfile_problem(parser, NULL, "put each word between \" and \"",
                               "%s: the JSON form holds texts, without NUL, and nothing else",
                               keyword);
            break;
        }
    if (array) {
        value_move(value_put(item, "words"), &json);
        return;
    }
    value_set_array(&words);
    for (const char *at = text + strspn(text, " \t"); *at; at += strspn(at, " \t")) {
        size_t len = strcspn(at, " \t");
        value_set_bytes(value_push(&words), at, len);
        at += len;
    }
    value_move(value_put(item, "words"), &words);
}

static void near_keyword(struct parser *parser, const char *word, const char *upper)
{
    const char *near = near_miss(upper, keywords, KEYWORDS);
    cleanup_free char *hint =
        near ? mem_printf("did you mean %s?", near)
             : mem_strdup("a line that continues another one needs a \\ before it");

    dockerfile_problem(parser, word, hint, "unknown instruction '%.40s'", word);
}

bool dockerfile_instruction(struct parser *parser, const char *text, struct value *item)
{
    size_t len = strcspn(text, " \t\v\f\r");
    cleanup_free char *word = mem_strndup(text, len);
    cleanup_free char *keyword = mem_strdup(word);
    bool known = false;

    for (char *c = keyword; *c; c++)
        *c = (char)toupper((unsigned char)*c);
    for (size_t i = 0; i < KEYWORDS; i++)
        known |= strcmp(keywords[i], keyword) == 0;
    if (!known) {
        near_keyword(parser, word, keyword);
        return false;
    }
    text += len;
    text += strspn(text, " \t\v\f\r");
    value_put_string(item, "keyword", keyword);
    value_put_string(item, "written", word);
    struct value *flags = value_put(item, "flags");
    value_set_map(flags);
    text = take_flags(parser, keyword, text, flags);
    value_put_string(item, "text", text);
    words_of(parser, keyword, text, item);
    if (strcmp(keyword, "FROM") == 0)
        parser->stage++;
    else if (parser->stage < 0 && strcmp(keyword, "ARG") != 0)
        dockerfile_problem(parser, word, "only ARG may stand before FROM",
                           "%s stands before the first FROM", keyword);
    value_put_int(item, "stage", parser->stage);
    if (strcmp(keyword, "ONBUILD") == 0 && *text && !parser->trigger && !parser->failed) {
        struct value inner = {0};
        value_set_map(&inner);
        value_put_int(&inner, "line", parser->begin_line);
        if (!dockerfile_instruction(parser, text, &inner)) {
            value_free(&inner);
            return false;
        }
        value_move(value_put(item, "trigger"), &inner);
    }
    return true;
}

/* ---- what each must have ---- */

typedef void check_fn(struct parser *parser, const struct value *item, const struct value *words,
                      const char *text);

static const char *flag(const struct value *item, const char *name)
{
    return value_get_string(value_get(item, "flags"), name, NULL);
}

static void check_from(struct parser *parser, const struct value *item, const struct value *words,
                       const char *text)
{
    size_t count = value_count(words);
    const char *name = value_text(value_at(words, 2), "");
    bool named = count == 3 && strcasecmp(value_text(value_at(words, 1), ""), "as") == 0;

    (void)item, (void)text;
    if (parser->trigger)
        return; /* an error of its own */
    if (count != 1 && !named) {
        dockerfile_problem(parser, NULL, "FROM image, or FROM image AS name",
                           "FROM needs one image, or image AS name");
    } else if (named && (!isalpha((unsigned char)*name) ||
                         name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                           "0123456789-_.")])) {
        dockerfile_problem(parser, name, "a letter, then letters, digits, - _ .",
                           "'%.60s' is no name for a stage", name);
    }
}

static void check_copy(struct parser *parser, const struct value *item, const struct value *words,
                       const char *text)
{
    size_t count = value_count(words);
    const char *keyword = value_get_string(item, "keyword", "");
    const char *to = value_text(value_at(words, count - 1), "");

    (void)text;
    if (count < 2) {
        dockerfile_problem(parser, NULL, "the last word is where it goes",
                           "%s needs a source and a destination", keyword);
    } else if (count > 2 && (!*to || to[strlen(to) - 1] != '/') && !strchr(to, '$') &&
               strcmp(to, ".") != 0 && strcmp(to, "..") != 0 && *to != '"' && *to != '\'') {
        dockerfile_problem(parser, to, "end it with /",
                           "%s of several sources needs a folder as destination, not '%.60s'",
                           keyword, to);
    } else if (strcmp(keyword, "COPY") == 0 && flag(item, "from") && !*flag(item, "from")) {
        dockerfile_problem(parser, "--from", NULL, "--from= names nothing");
    }
}

static void check_run(struct parser *parser, const struct value *item, const struct value *words,
                      const char *text)
{
    static const char *const networks[] = {"default", "none", "host", NULL}, *const securities[] = {
                                                                                 "sandbox",
                                                                                 "insecure", NULL};
    const char *network = flag(item, "network"), *security = flag(item, "security");

    (void)words, (void)text;
    if (network && !one_of(network, networks))
        dockerfile_problem(parser, "--network", "--network=default, none or host",
                           "--network=%.40s is not known", network);
    else if (security && !one_of(security, securities))
        dockerfile_problem(parser, "--security", "--security=sandbox or insecure",
                           "--security=%.40s is not known", security);
}

static void check_shell(struct parser *parser, const struct value *item, const struct value *words,
                        const char *text)
{
    (void)text;
    if (!value_get_bool(item, "json", false) || !value_count(words))
        dockerfile_problem(parser, NULL, "SHELL [\"/bin/sh\", \"-c\"]",
                           "SHELL needs the JSON form");
}

bool dockerfile_triggers(const char *keyword)
{
    static const char *const refused[] = {"FROM", "MAINTAINER", "ONBUILD", NULL};

    return !one_of(keyword, refused);
}

static void check_onbuild(struct parser *parser, const struct value *item,
                          const struct value *words, const char *text)
{
    const struct value *inner = value_get(item, "trigger");
    const char *keyword = value_get_string(inner, "keyword", "");

    (void)words, (void)text;
    if (parser->trigger)
        return;
    if (!dockerfile_triggers(keyword))
        dockerfile_problem(parser, keyword, "any other instruction may stand there",
                           "ONBUILD cannot hold %s", keyword);
    else if (inner)
        dockerfile_check(parser, inner);
}

static void check_healthcheck(struct parser *parser, const struct value *item,
                              const struct value *words, const char *text)
{
    const char *first = value_text(value_at(words, 0), ""), *retries = flag(item, "retries");
    char *end = NULL;

    (void)text;
    if (strcasecmp(first, "CMD") != 0 && strcasecmp(first, "NONE") != 0) {
        dockerfile_problem(parser, first, "HEALTHCHECK CMD command, or HEALTHCHECK NONE",
                           "HEALTHCHECK needs CMD or NONE");
    } else if (strcasecmp(first, "NONE") == 0 && value_count(words) > 1) {
        dockerfile_problem(parser, first, NULL, "HEALTHCHECK NONE takes nothing more");
    } else if (strcasecmp(first, "CMD") == 0 && value_count(words) == 1) {
        dockerfile_problem(parser, first, NULL, "HEALTHCHECK CMD needs a command");
    } else if (retries) {
        long count = strtol(retries, &end, 10);
        if (end == retries || *end || count < 0 || count > 1000000)
            dockerfile_problem(parser, "--retries", "a whole number, 0 for the default of 3",
                               "--retries=%.40s is no number of retries", retries);
    }
}

/* Words with quotes: are these closed? */
static void check_pairs(struct parser *parser, const struct value *item, const struct value *words,
                        const char *text)
{
    cleanup_value struct value parts = {0};
    struct error problem = {0};
    const char *keyword = value_get_string(item, "keyword", "");

    (void)words;
    value_set_array(&parts);
    if (dockerfile_split(text, parser->escape, &parts, &problem) != 0) {
        dockerfile_problem(parser, NULL, NULL, "%s", problem.message);
        return;
    }
    const char *first = value_text(value_at(&parts, 0), "");
    bool pairs = strcmp(keyword, "ARG") == 0 || strchr(first, '=');
    if (!pairs && value_count(&parts) < 2) {
        cleanup_free char *hint = mem_printf("%s name=value", keyword);
        dockerfile_problem(parser, first, hint, "%s %.60s has no value", keyword, first);
    }
    for (size_t i = 0; pairs && i < value_count(&parts); i++) {
        const char *word = value_text(value_at(&parts, i), "");
        if (*word == '=' || (strcmp(keyword, "ARG") != 0 && !strchr(word, '='))) {
            cleanup_free char *hint =
                mem_printf("%s name=value; a value with spaces needs quotes", keyword);
            dockerfile_problem(parser, word, hint, "%s: '%.60s' is not of the form name=value",
                               keyword, word);
            return;
        }
        if (strcmp(keyword, "ARG") == 0 && !isalpha((unsigned char)*word) && *word != '_') {
            dockerfile_problem(parser, word, NULL, "ARG: '%.60s' is no name of a variable", word);
            return;
        }
    }
}

static const struct {
    const char *keyword;
    check_fn *fn;
} checks[] = {
    {"ADD", check_copy},    {"ARG", check_pairs}, {"COPY", check_copy},
    {"ENV", check_pairs},   {"FROM", check_from}, {"HEALTHCHECK", check_healthcheck},
    {"LABEL", check_pairs}, {"RUN", check_run},   {"ONBUILD", check_onbuild},
    {"SHELL", check_shell},
};

void dockerfile_check(struct parser *parser, const struct value *item)
{
    const struct value *words = value_get(item, "words");
    const char *text = value_get_string(item, "text", ""),
               *keyword = value_get_string(item, "keyword", "");
    bool may_be_empty = value_get_bool(item, "json", false) &&
                        (strcmp(keyword, "CMD") == 0 || strcmp(keyword, "ENTRYPOINT") == 0 ||
                         strcmp(keyword, "SHELL") == 0);

    if (parser->failed)
        return;
    if (!value_count(words) && !may_be_empty) {
        dockerfile_problem(parser, value_get_string(item, "written", NULL), NULL,
                           "%s needs an argument", keyword);
        return;
    }
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        if (strcmp(checks[i].keyword, keyword) == 0)
            checks[i].fn(parser, item, words, text);
}
