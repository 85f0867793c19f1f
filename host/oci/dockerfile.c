/* Lines, comments, directives and heredocs of a Dockerfile. */
#include "oci/dockerfile.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "oci/dockerfile_internal.h"

#define SHOWN 100 /* columns of a line in an error */

/* ---- errors ---- */

/* Is the place where a word may begin, or end? */
static bool edge(char c)
{
    return !isalnum((unsigned char)c) && c != '_' && c != '-' && c != '.';
}

/* Where `token` stands in the instruction at hand; its start when nowhere. */
static const char *find_token(const struct parser *parser, const char *token, size_t *len)
{
    const char *from = parser->begin;

    *len = token ? strlen(token) : 0;
    while (*len && from < parser->at) {
        const char *found = memmem(from, (size_t)(parser->at - from), token, *len);
        if (!found)
            break;
        bool starts = found == parser->begin || edge(found[-1]) || edge(*token);
        bool ends = found + *len == parser->end || edge(found[*len]) || edge(token[*len - 1]);
        if (starts && ends)
            return found;
        from = found + 1;
    }
    *len = 0;
    return parser->begin;
}

/* The line of `place` with a caret below. */
static void show(const struct parser *parser, const char *place, size_t len, int line,
                 struct buf *out)
{
    const char *start = place, *stop = place;

    while (start > parser->begin && start[-1] != '\n')
        start--;
    while (stop < parser->end && *stop != '\n' && *stop != '\r')
        stop++;
    size_t column = (size_t)(place - start);
    if (column > SHOWN / 2) {
        start = place - SHOWN / 2;
        column = SHOWN / 2;
    }
    size_t shown = (size_t)(stop - start) < SHOWN ? (size_t)(stop - start) : SHOWN;
    buf_printf(out, "\n%5d | ", line);
    for (size_t i = 0; i < shown; i++)
        buf_putc(out, iscntrl((unsigned char)start[i]) ? ' ' : start[i]);
    if (!len)
        return;
    buf_printf(out, "\n      | %*s^", (int)column, "");
    for (size_t i = 1; i < len && column + i < shown; i++)
        buf_putc(out, '~');
}

void dockerfile_problem(struct parser *parser, const char *token, const char *hint,
                        const char *format, ...)
{
    struct error here = {0};
    cleanup_buf struct buf shown = BUF_INIT;
    size_t len;
    va_list args;
    const char *place = find_token(parser, token, &len);
    int line = parser->begin_line, column = 1;

    va_start(args, format);
    error_setv(&here, ERR_INVALID, format, args);
    va_end(args);
    for (const char *c = parser->begin; c < place; c++) {
        column = *c == '\n' ? 1 : column + 1;
        line += *c == '\n';
    }
    if (parser->problems) {
        struct value *item = value_push(parser->problems);
        value_set_map(item);
        value_put_int(item, "line", line);
        value_put_int(item, "column", column);
        value_put_string(item, "message", here.message);
        value_put_string(item, "hint", hint);
        return;
    }
    if (parser->failed)
        return;
    parser->failed = true;
    if (parser->begin < parser->end)
        show(parser, place, len, line, &shown);
    error_set(parser->err, ERR_INVALID, "%s:%d: %s%s", parser->source, line, here.message,
              shown.len ? shown.data : "");
    if (hint)
        error_hint(parser->err, "%s", hint);
}

/* ---- lines ---- */

/* One physical line, without its end. */
static bool next_line(struct parser *parser, const char **start, size_t *len)
{
    if (parser->at >= parser->end)
        return false;
    const char *stop = memchr(parser->at, '\n', (size_t)(parser->end - parser->at));
    const char *next = stop ? stop + 1 : parser->end;
    if (!stop)
        stop = parser->end;
    while (stop > parser->at && stop[-1] == '\r')
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

static void keep_comment(struct parser *parser, const char *text, size_t len)
{
    struct value *item = value_push(parser->comments);
    const char *start = text + 1;
    size_t rest = len - 1;

    trim(&start, &rest);
    value_set_map(item);
    value_put_int(item, "line", parser->line);
    value_set_bytes(value_put(item, "text"), start, rest);
}

/* Takes the escape at the line's end away, and spaces behind it; a doubled one is none. */
static bool continues(const struct parser *parser, const char *start, size_t *len)
{
    size_t end = *len;

    while (end && (start[end - 1] == ' ' || start[end - 1] == '\t'))
        end--;
    if (!end || start[end - 1] != parser->escape || (end >= 2 && start[end - 2] == parser->escape))
        return false;
    *len = end - 1;
    return true;
}

/* An instruction: its lines joined, comments and empty lines in between left out. false at the end
 * of the file. */
static bool logical_line(struct parser *parser, struct buf *out, int *empty_line)
{
    const char *start;
    size_t len;
    bool going_on = false;

    for (;;) {
        const char *before = parser->at;
        if (!next_line(parser, &start, &len))
            break;
        const char *bare = start;
        size_t bare_len = len;
        trim(&bare, &bare_len);
        if (bare_len && *bare == '#') {
            keep_comment(parser, bare, bare_len);
            continue;
        }
        if (!bare_len) {
            if (going_on)
                *empty_line = parser->line;
            continue;
        }
        if (!going_on) {
            parser->begin = before;
            parser->begin_line = parser->line;
            len -= (size_t)(bare - start);
            start = bare;
        } /* else: spaces at the start of a continued line are part of it */
        going_on = continues(parser, start, &len);
        buf_append(out, start, len);
        if (!going_on)
            break;
    }
    while (out->len && isspace((unsigned char)out->data[out->len - 1]))
        out->data[--out->len] = '\0';
    return out->len > 0;
}

/* ---- directives ---- */

static void check_option(struct parser *parser, struct value *check, const char *name,
                         const char *text)
{
    if (strcasecmp(name, "error") == 0) {
        bool on = strcasecmp(text, "true") == 0;
        if (!on && strcasecmp(text, "false") != 0)
            dockerfile_problem(parser, text, "error=true or error=false",
                               "check=error: '%.40s' is neither true nor false", text);
        value_put_bool(check, "error", on);
    } else if (strcasecmp(name, "skip") == 0 || strcasecmp(name, "experimental") == 0) {
        struct value *list = value_put(check, strcasecmp(name, "skip") == 0 ? "skip" : "more");
        value_set_array(list);
        for (const char *at = text; *at; at += *at == ',') {
            const char *rule = at;
            size_t len = strcspn(at, ",");
            at += len;
            trim(&rule, &len);
            if (len)
                value_set_bytes(value_push(list), rule, len);
        }
    } else {
        dockerfile_problem(parser, name, "# check=skip=Rule,Rule;error=true",
                           "the directive check has no '%.40s'", name);
    }
}

/* "skip=A,B;error=true" */
static void directive_check(struct parser *parser, const char *text)
{
    struct value *check = value_put(parser->document, "check");

    value_set_map(check);
    while (*text && !parser->failed) {
        size_t len = strcspn(text, ";");
        const char *part = text;
        size_t part_len = len;
        text += len + (text[len] == ';');
        trim(&part, &part_len);
        cleanup_free char *option = mem_strndup(part, part_len);
        char *equals = strchr(option, '=');
        if (!part_len)
            continue;
        if (!equals) {
            dockerfile_problem(parser, option, "# check=skip=Rule,Rule;error=true",
                               "the directive check: '%.40s' has no value", option);
            continue;
        }
        *equals = '\0';
        check_option(parser, check, option, equals + 1);
    }
}

static void directive(struct parser *parser, const char *key, const char *text)
{
    if (strcasecmp(key, "escape") == 0) {
        if (strlen(text) != 1 || (*text != '\\' && *text != '`'))
            dockerfile_problem(parser, text, "# escape=\\ or # escape=`",
                               "the directive escape must be \\ or `");
        else
            parser->escape = *text;
    } else if (strcasecmp(key, "syntax") == 0) {
        value_put_string(parser->document, "syntax", text);
    } else {
        directive_check(parser, text);
    }
}

/* "# key = text", which nothing but such lines stands before. */
static void directives(struct parser *parser)
{
    static const char *const known[] = {"escape", "syntax", "check"};
    bool seen[3] = {false};
    const char *start;
    size_t len;

    while (parser->at < parser->end && !parser->failed) {
        struct parser before = *parser;
        next_line(parser, &start, &len);
        parser->begin = start;
        parser->begin_line = parser->line;
        trim(&start, &len);
        const char *equals = len && *start == '#' ? memchr(start, '=', len) : NULL;
        const char *name = start + 1, *value = equals ? equals + 1 : NULL;
        size_t name_len = equals ? (size_t)(equals - name) : 0,
               value_len = equals ? len - (size_t)(value - start) : 0, which = 0;
        if (equals) {
            trim(&name, &name_len);
            trim(&value, &value_len);
        }
        cleanup_free char *key = mem_strndup(name, name_len);
        cleanup_free char *text = mem_strndup(value_len ? value : "", value_len);
        while (which < 3 && strcasecmp(key, known[which]) != 0)
            which++;
        if (!equals || which == 3 || !value_len) { /* an ordinary comment, or no comment */
            *parser = before;
            return;
        }
        if (seen[which])
            dockerfile_problem(parser, key, NULL, "the directive %s stands here twice",
                               known[which]);
        seen[which] = true;
        directive(parser, key, text);
    }
}

/* ---- heredocs ---- */

/* "3<<-'EOF'": its name without quotes, or NULL when it is another word. */
static char *heredoc_name(const char *word, char escape, bool *chomp, bool *expand)
{
    cleanup_buf struct buf name = BUF_INIT;
    const char *at = word + strspn(word, "0123456789");
    char quote = '\0';

    if (strncmp(at, "<<", 2) != 0)
        return NULL;
    at += 2;
    *chomp = *at == '-';
    at += *chomp;
    if (!*at || strchr(at, '<'))
        return NULL;
    *expand = true;
    for (; *at; at++) {
        if (quote ? *at == quote : *at == '"' || *at == '\'') {
            quote = quote ? '\0' : *at;
            *expand = false;
        } else if (*at == escape && quote != '\'' && at[1]) {
            buf_putc(&name, *++at);
            *expand = false;
        } else {
            buf_putc(&name, *at);
        }
    }
    return name.len ? buf_steal(&name) : NULL;
}

/* The lines up to the one that is the name. */
static void read_heredoc(struct parser *parser, struct value *heredocs, const char *word,
                         const char *name, bool chomp, bool expand)
{
    cleanup_buf struct buf text = BUF_INIT;
    const char *start;
    size_t len, name_len = strlen(name);
    int line = parser->line + 1;

    for (;;) {
        if (!next_line(parser, &start, &len)) {
            cleanup_free char *hint = mem_printf("end it with a line that is %.60s", name);
            dockerfile_problem(parser, word, hint, "the heredoc %.60s is not closed", name);
            return;
        }
        const char *stop = parser->at;
        while (chomp && len && *start == '\t') {
            start++;
            len--;
        }
        if (len == name_len && memcmp(start, name, len) == 0)
            break;
        buf_append(&text, start, (size_t)(stop - start));
    }
    struct value *item = value_push(heredocs);
    value_set_map(item);
    value_put_string(item, "word", word);
    value_put_string(item, "name", name);
    value_set_bytes(value_put(item, "text"), text.data ? text.data : "", text.len);
    value_put_bool(item, "expand", expand);
    value_put_int(item, "line", line);
}

static void heredocs_of(struct parser *parser, struct value *item)
{
    const struct value *inner = value_get(item, "trigger");
    const char *keyword = value_get_string(inner ? inner : item, "keyword", "");
    const char *text = value_get_string(inner ? inner : item, "text", "");
    cleanup_value struct value words = {0};
    struct value heredocs = {0};

    if ((strcmp(keyword, "RUN") != 0 && strcmp(keyword, "COPY") != 0 &&
         strcmp(keyword, "ADD") != 0) ||
        value_get_bool(inner ? inner : item, "json", false) || !strstr(text, "<<"))
        return;
    value_set_array(&words);
    value_set_array(&heredocs);
    /* Quotes that a shell would see otherwise: then there is no heredoc that we could know. */
    if (dockerfile_split(text, parser->escape, &words, NULL) != 0)
        value_free(&words);
    for (size_t i = 0; i < value_count(&words) && !parser->failed; i++) {
        bool chomp, expand;
        const char *word = value_text(value_at(&words, i), "");
        cleanup_free char *name = heredoc_name(word, parser->escape, &chomp, &expand);
        if (name)
            read_heredoc(parser, &heredocs, word, name, chomp, expand);
    }
    if (value_count(&heredocs)) {
        if (inner)
            value_copy(value_put(value_get(item, "trigger"), "heredocs"), &heredocs);
        value_move(value_put(item, "heredocs"), &heredocs);
    }
    value_free(&heredocs);
}

/* ---- the whole ---- */

static void read_instructions(struct parser *parser)
{
    while (!parser->failed) {
        cleanup_buf struct buf line = BUF_INIT;
        int empty_line = 0;
        if (!logical_line(parser, &line, &empty_line))
            break;
        struct value item = {0};
        value_set_map(&item);
        value_put_int(&item, "line", parser->begin_line);
        if (empty_line)
            value_put_int(&item, "empty_line", empty_line);
        if (dockerfile_instruction(parser, line.data ? line.data : "", &item)) {
            heredocs_of(parser, &item);
            value_put_int(&item, "end_line", parser->line);
            if (!parser->failed)
                dockerfile_check(parser, &item);
            value_move(value_push(parser->instructions), &item);
        }
        value_free(&item);
    }
}

static int parse(const char *text, size_t len, const char *source, bool trigger, struct value *out,
                 struct value *problems, struct error *err)
{
    cleanup_value struct value document = {0};
    struct parser parser = {.at = text,
                            .begin = text,
                            .begin_line = 1,
                            .end = text + len,
                            .source = source,
                            .escape = '\\',
                            .stage = trigger ? 0 : -1,
                            .trigger = trigger,
                            .problems = problems,
                            .document = &document,
                            .err = err};
    char escape[2] = "\\";

    if (len > DOCKERFILE_LIMIT)
        return error_set(err, ERR_TOO_LARGE, "%s: more than %u bytes", source, DOCKERFILE_LIMIT);
    if (memchr(text, '\0', len))
        return error_set(err, ERR_INVALID, "%s: this is no text: it holds a NUL byte", source);
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        parser.at += 3;
    value_set_map(&document);
    /* One slot each, before pointers into the map are kept. */
    value_set_array(value_put(&document, "instructions"));
    value_set_array(value_put(&document, "comments"));
    if (!trigger)
        directives(&parser);
    parser.instructions = value_get(&document, "instructions");
    parser.comments = value_get(&document, "comments");
    read_instructions(&parser);
    if (!parser.failed && parser.stage < 0) {
        parser.begin = parser.end;
        parser.begin_line = parser.line ? parser.line : 1;
        dockerfile_problem(&parser, NULL, "begin with FROM image, or FROM scratch",
                           "there is no FROM");
    }
    if (parser.failed)
        return -1;
    escape[0] = parser.escape;
    value_put_string(&document, "escape", escape);
    value_move(out, &document);
    return 0;
}

int dockerfile_parse(const char *text, size_t len, const char *source, struct value *out,
                     struct value *problems, struct error *err)
{
    return parse(text, len, source, false, out, problems, err);
}

int dockerfile_parse_trigger(const char *text, const char *source, int line, struct value *out,
                             struct error *err)
{
    cleanup_value struct value document = {0};

    if (parse(text, strlen(text), source, true, &document, NULL, err) != 0)
        return -1;
    struct value *instructions = value_get(&document, "instructions");
    if (value_count(instructions) != 1)
        return error_set(err, ERR_INVALID, "%s: '%.60s' is not one instruction", source, text);
    const char *keyword = value_get_string(value_at(instructions, 0), "keyword", "");
    if (!dockerfile_triggers(keyword))
        return error_set(err, ERR_INVALID, "%s: ONBUILD cannot hold %s", source, keyword);
    value_move(out, value_at(instructions, 0));
    value_put_int(out, "line", line);
    return 0;
}
