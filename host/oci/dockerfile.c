#include "oci/dockerfile.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/config.h"
#include "base/mem.h"

static const char *const keywords[] = {
    "ADD",    "ARG",   "CMD",         "COPY",  "ENTRYPOINT", "ENV",
    "EXPOSE", "FROM",  "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD",
    "RUN",    "SHELL", "STOPSIGNAL",  "USER",  "VOLUME",     "WORKDIR",
};
#define KEYWORDS (sizeof keywords / sizeof *keywords)

static const struct {
    const char *keyword;
    const char *flags[8];
} flag_table[] = {
    {"FROM", {"platform"}},
    {"COPY", {"from", "chown", "chmod", "link"}},
    {"ADD", {"chown", "chmod", "link", "checksum", "keep-git-dir"}},
    {"RUN", {"mount", "network", "security"}},
    {"HEALTHCHECK", {"interval", "timeout", "start-period", "start-interval", "retries"}},
};

struct parser {
    const char *at, *end;
    const char *source;
    char escape;
    int line; /* of `at`, from 1 */
    int stage;
    struct value *problems;
    struct error *err;
    struct value *instructions;
    bool failed;
};

static void problem(struct parser *parser, int line, const char *hint, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void problem(struct parser *parser, int line, const char *hint, const char *format, ...)
{
    struct error here = {0};
    va_list args;

    va_start(args, format);
    error_setv(&here, ERR_INVALID, format, args);
    va_end(args);
    if (parser->problems) {
        struct value *item = value_push(parser->problems);
        value_set_map(item);
        value_put_int(item, "line", line);
        value_put_string(item, "message", here.message);
        value_put_string(item, "hint", hint);
        return;
    }
    parser->failed = true;
    error_set(parser->err, ERR_INVALID, "%s:%d: %s", parser->source, line, here.message);
    if (hint)
        error_hint(parser->err, "%s", hint);
}

/* One physical line, without its end. */
static bool next_line(struct parser *parser, const char **start, size_t *len)
{
    if (parser->at >= parser->end)
        return false;
    const char *stop = memchr(parser->at, '\n', (size_t)(parser->end - parser->at));
    const char *next = stop ? stop + 1 : parser->end;
    if (!stop)
        stop = parser->end;
    if (stop > parser->at && stop[-1] == '\r')
        stop--;
    *start = parser->at;
    *len = (size_t)(stop - parser->at);
    parser->at = next;
    parser->line++;
    return true;
}

static void trim(const char **start, size_t *len)
{
    while (*len && isspace((unsigned char)**start)) {
        ++*start;
        --*len;
    }
    while (*len && isspace((unsigned char)(*start)[*len - 1]))
        --*len;
}

/* "# escape=`": only before anything else. */
static void directives(struct parser *parser)
{
    const char *start;
    size_t len;

    while (parser->at < parser->end) {
        struct parser before = *parser;
        next_line(parser, &start, &len);
        trim(&start, &len);
        const char *equals = len && *start == '#' ? memchr(start, '=', len) : NULL;
        if (!equals) {
            *parser = before;
            return;
        }
        const char *key = start + 1, *text = equals + 1;
        size_t key_len = (size_t)(equals - key), text_len = len - (size_t)(text - start);
        trim(&key, &key_len);
        trim(&text, &text_len);
        if (key_len == 6 && strncasecmp(key, "escape", 6) == 0) {
            if (text_len != 1 || (*text != '\\' && *text != '`'))
                problem(parser, parser->line, "# escape=\\ or # escape=`",
                        "the directive escape must be \\ or `");
            else
                parser->escape = *text;
        } else if (!((key_len == 6 && strncasecmp(key, "syntax", 6) == 0) ||
                     (key_len == 5 && strncasecmp(key, "check", 5) == 0))) {
            *parser = before; /* an ordinary comment with "=" in it */
            return;
        }
    }
}

/* An instruction: its lines joined, comments and empty lines in between left out. false at the end
 * of the file. */
static bool logical_line(struct parser *parser, struct buf *out, int *line)
{
    const char *start;
    size_t len;
    bool going_on = false;

    while (next_line(parser, &start, &len)) {
        const char *bare = start;
        size_t bare_len = len;
        trim(&bare, &bare_len);
        if (!bare_len || *bare == '#')
            continue;
        if (!going_on)
            *line = parser->line;
        if (going_on) /* spaces at the start of a continued line are part of it */
            bare_len = (size_t)(bare + bare_len - start), bare = start;
        going_on = bare[bare_len - 1] == parser->escape;
        buf_append(out, bare, bare_len - going_on);
        if (!going_on)
            return true;
    }
    return going_on && out->len;
}

static bool flag_known(const char *keyword, const char *flag)
{
    for (size_t i = 0; i < sizeof flag_table / sizeof *flag_table; i++)
        if (strcmp(flag_table[i].keyword, keyword) == 0)
            for (size_t f = 0; flag_table[i].flags[f]; f++)
                if (strcmp(flag_table[i].flags[f], flag) == 0)
                    return true;
    return false;
}

static bool has_flags(const char *keyword)
{
    for (size_t i = 0; i < sizeof flag_table / sizeof *flag_table; i++)
        if (strcmp(flag_table[i].keyword, keyword) == 0)
            return true;
    return false;
}

/* Takes the leading --key=value words off the text. */
static const char *take_flags(struct parser *parser, const char *keyword, const char *text,
                              int line, struct value *flags)
{
    while (has_flags(keyword) && strncmp(text, "--", 2) == 0) {
        size_t len = strcspn(text, " \t");
        if (len == 2) {
            text += 2;
            break;
        }
        const char *equals = memchr(text, '=', len);
        cleanup_free char *key =
            mem_strndup(text + 2, (equals ? (size_t)(equals - text) : len) - 2);
        cleanup_free char *given = equals
                                       ? mem_strndup(equals + 1, len - (size_t)(equals + 1 - text))
                                       : mem_strdup("true");
        if (!flag_known(keyword, key))
            problem(parser, line,
                    strcmp(keyword, "COPY") == 0 ? "COPY has --from= --chown= --chmod= --link"
                                                 : NULL,
                    "%s has no flag --%s here", keyword, key);
        value_put_string(flags, key, given);
        text += len;
        text += strspn(text, " \t");
    }
    return text;
}

/* ["a", "b"]: the exec form. Anything else is words. */
static void words_of(const char *text, struct value *item)
{
    cleanup_value struct value json = {0};
    struct value words = {0};
    bool strings = *text == '[' &&
                   value_from_json(text, strlen(text), "words", NULL, &json, NULL) == 0 &&
                   json.kind == VALUE_ARRAY;

    for (size_t i = 0; strings && i < value_count(&json); i++)
        strings = value_at(&json, i)->kind == VALUE_STRING;
    value_put_bool(item, "json", strings);
    if (strings) {
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

static void near_keyword(struct parser *parser, int line, const char *word)
{
    const char *near = near_miss(word, keywords, KEYWORDS);
    cleanup_free char *hint =
        near ? mem_printf("did you mean %s?", near)
             : mem_strdup("a line that continues another one needs a \\ before it");

    problem(parser, line, hint, "unknown instruction '%.40s'", word);
}

static void check_shape(struct parser *parser, const struct value *item, const char *keyword,
                        int line)
{
    const struct value *words = value_get(item, "words");
    size_t count = value_count(words);
    const char *text = value_get_string(item, "text", "");

    if (count == 0 && !(value_get_bool(item, "json", false) &&
                        (strcmp(keyword, "CMD") == 0 || strcmp(keyword, "ENTRYPOINT") == 0))) {
        problem(parser, line, NULL, "%s needs an argument", keyword);
        return;
    }
    if (strcmp(keyword, "FROM") == 0) {
        bool named = count == 3 && strcasecmp(value_text(value_at(words, 1), ""), "as") == 0;
        if (count != 1 && !named)
            problem(parser, line, "FROM image, or FROM image AS name",
                    "FROM needs one image, or image AS name");
    } else if (strcmp(keyword, "COPY") == 0 || strcmp(keyword, "ADD") == 0) {
        if (strstr(text, "<<") == text || strstr(text, " <<"))
            problem(parser, line, "put the text into a file of the context",
                    "heredocs are not supported in %s yet", keyword);
        else if (count < 2)
            problem(parser, line, NULL, "%s needs a source and a destination", keyword);
        else if (count > 2) {
            const char *to = value_text(value_at(words, count - 1), "");
            if (!*to || to[strlen(to) - 1] != '/')
                if (!strchr(to, '$') && strcmp(to, ".") != 0)
                    problem(parser, line, "end it with /",
                            "%s of several sources needs a folder as destination, not '%s'",
                            keyword, to);
        }
    } else if (strcmp(keyword, "SHELL") == 0 && !value_get_bool(item, "json", false)) {
        problem(parser, line, "SHELL [\"/bin/sh\", \"-c\"]", "SHELL needs the JSON form");
    }
}

static void instruction(struct parser *parser, const char *text, int line)
{
    char keyword[16] = "";
    size_t len = strcspn(text, " \t");
    cleanup_free char *word = mem_strndup(text, len);
    bool known = false;

    for (size_t i = 0; i < len && i < sizeof keyword - 1; i++)
        keyword[i] = (char)toupper((unsigned char)text[i]);
    for (size_t i = 0; len < sizeof keyword && i < KEYWORDS; i++)
        known |= strcmp(keywords[i], keyword) == 0;
    if (!known) {
        near_keyword(parser, line, len < sizeof keyword ? keyword : word);
        return;
    }
    text += len;
    text += strspn(text, " \t");
    struct value *item = value_push(parser->instructions);
    value_set_map(item);
    value_put_int(item, "line", line);
    value_put_string(item, "keyword", keyword);
    struct value *flags = value_put(item, "flags");
    value_set_map(flags);
    text = take_flags(parser, keyword, text, line, flags);
    if (parser->failed)
        return;
    value_put_string(item, "text", text);
    words_of(text, item);
    if (strcmp(keyword, "FROM") == 0)
        parser->stage++;
    else if (parser->stage < 0 && strcmp(keyword, "ARG") != 0)
        problem(parser, line, "only ARG may stand before FROM", "%s stands before the first FROM",
                keyword);
    value_put_int(item, "stage", parser->stage);
    check_shape(parser, item, keyword, line);
}

int dockerfile_parse(const char *text, size_t len, const char *source, struct value *out,
                     struct value *problems, struct error *err)
{
    cleanup_value struct value document = {0};
    struct parser parser = {.at = text,
                            .end = text + len,
                            .source = source,
                            .escape = '\\',
                            .stage = -1,
                            .problems = problems,
                            .err = err};
    char escape[2] = "\\";

    if (len > DOCKERFILE_LIMIT)
        return error_set(err, ERR_TOO_LARGE, "%s: more than %u bytes", source, DOCKERFILE_LIMIT);
    if (memchr(text, '\0', len))
        return error_set(err, ERR_INVALID, "%s: this is no text: it holds a NUL byte", source);
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        parser.at += 3;
    value_set_map(&document);
    parser.instructions = value_put(&document, "instructions");
    value_set_array(parser.instructions);
    directives(&parser);
    while (!parser.failed) {
        cleanup_buf struct buf line = BUF_INIT;
        int number = 0;
        if (!logical_line(&parser, &line, &number))
            break;
        instruction(&parser, line.data, number);
    }
    if (!parser.failed && parser.stage < 0)
        problem(&parser, parser.line ? parser.line : 1, "begin with FROM image, or FROM scratch",
                "there is no FROM");
    if (parser.failed)
        return -1;
    escape[0] = parser.escape;
    value_put_string(&document, "escape", escape);
    value_move(out, &document);
    return 0;
}
