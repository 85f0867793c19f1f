/*
 * YAML -> value through libyaml's event parser: YAML 1.2 core schema for plain scalars, `<<` is an
 * ordinary key. Aliases are expanded by copying, and every copied node, byte and level counts, so
 * that a "billion laughs" ends at the limits.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/mem.h"
#include "base/value.h"

#define DEFAULT_BYTES (64u << 20)
#define DEFAULT_DEPTH 200u
#define DEFAULT_NODES 4000000u

struct reader {
    yaml_parser_t parser;
    const char *source;
    size_t depth, nodes, bytes; /* what is left; bytes: of copied text */
    struct value anchors;       /* map: name -> copy */
    struct error *err;
};

static int wrong(struct reader *r, yaml_mark_t at, enum error_code code, const char *what,
                 const char *which)
{
    return error_set(r->err, code, "%s:%zu:%zu: %s%s%s%s", r->source, at.line + 1, at.column + 1,
                     what, which ? " '" : "", which ? which : "", which ? "'" : "");
}

static int next(struct reader *r, yaml_event_t *event)
{
    if (yaml_parser_parse(&r->parser, event))
        return 0;
    yaml_mark_t at = r->parser.problem_mark.line || r->parser.problem_mark.column
                         ? r->parser.problem_mark
                         : r->parser.mark;
    error_set(r->err, ERR_INVALID, "%s:%zu:%zu: not YAML: %s%s%s", r->source, at.line + 1,
              at.column + 1, r->parser.problem ? r->parser.problem : "unreadable",
              r->parser.context ? ", " : "", r->parser.context ? r->parser.context : "");
    return -1;
}

static bool one_of(const char *text, const char *const *words)
{
    for (; *words; words++) {
        if (strcmp(text, *words) == 0)
            return true;
    }
    return false;
}

/* The core schema's resolution of a plain scalar (YAML 1.2.2, section 10.3.2). */
static void resolve(const char *text, size_t len, struct value *out)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const yes[] = {"true", "True", "TRUE", NULL};
    static const char *const no[] = {"false", "False", "FALSE", NULL};
    static const char *const plus_inf[] = {".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", NULL};
    static const char *const minus_inf[] = {"-.inf", "-.Inf", "-.INF", NULL};
    static const char *const nans[] = {".nan", ".NaN", ".NAN", NULL};
    char *end;

    if (one_of(text, nulls)) {
        value_set_nil(out);
        return;
    }
    if (one_of(text, yes) || one_of(text, no)) {
        value_set_bool(out, one_of(text, yes));
        return;
    }
    if (one_of(text, plus_inf) || one_of(text, minus_inf)) {
        value_set_real(out, text[0] == '-' ? -INFINITY : INFINITY);
        return;
    }
    if (one_of(text, nans)) {
        value_set_real(out, NAN);
        return;
    }
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    size_t count = strspn(digits, "0123456789");
    if (count && digits[count] == '\0') {
        errno = 0;
        long long number = strtoll(text, &end, 10);
        if (errno == 0)
            value_set_int(out, number);
        else
            value_set_real(out, strtod(text, NULL));
        return;
    }
    int base = strncmp(text, "0x", 2) == 0 ? 16 : strncmp(text, "0o", 2) == 0 ? 8 : 0;
    if (base && text[2] &&
        text[2 + strspn(text + 2, base == 16 ? "0123456789abcdefABCDEF" : "01234567")] == '\0') {
        errno = 0;
        long long number = strtoll(text + 2, &end, base);
        if (errno == 0) {
            value_set_int(out, number);
            return;
        }
    }
    /* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )? : strtod alone takes
     * "0x1p3", "inf". */
    if (strspn(text, "0123456789+-.eE") == len &&
        (count || (digits[0] == '.' && strspn(digits + 1, "0123456789")))) {
        double number = strtod(text, &end);
        if (*end == '\0') {
            value_set_real(out, number);
            return;
        }
    }
    value_set_bytes(out, text, len);
}

static void scalar(const yaml_event_t *event, struct value *out)
{
    const char *text = (const char *)event->data.scalar.value;
    const char *tag = (const char *)event->data.scalar.tag;
    size_t len = event->data.scalar.length;

    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
        !(tag && strcmp(tag, YAML_STR_TAG) == 0))
        resolve(text, len, out);
    else
        value_set_bytes(out, text, len);
}

struct extent {
    size_t nodes, bytes, depth;
};

static void measure(const struct value *v, size_t depth, struct extent *out)
{
    out->nodes++;
    out->depth = depth > out->depth ? depth : out->depth;
    if (v->kind == VALUE_STRING)
        out->bytes += v->as.string.len;
    for (size_t i = 0; v->kind == VALUE_ARRAY && i < v->as.array.count; i++)
        measure(&v->as.array.items[i], depth + 1, out);
    for (size_t i = 0; v->kind == VALUE_MAP && i < v->as.map.count; i++) {
        out->bytes += v->as.map.pairs[i].key_len;
        measure(&v->as.map.pairs[i].value, depth + 1, out);
    }
}

static int spend(struct reader *r, yaml_mark_t at, size_t nodes, size_t bytes)
{
    if (nodes > r->nodes || bytes > r->bytes)
        return wrong(r, at, ERR_TOO_LARGE,
                     "too many values (aliases count as often as they are used)", NULL);
    r->nodes -= nodes;
    r->bytes -= bytes;
    return 0;
}

/* Anchors in anchors are copies of copies: they are paid for as well. */
static int remember(struct reader *r, yaml_mark_t at, const char *name, const struct value *v)
{
    struct extent size = {0};

    if (!name)
        return 0;
    measure(v, 0, &size);
    if (spend(r, at, size.nodes, size.bytes) < 0)
        return -1;
    value_copy(value_put(&r->anchors, name), v);
    return 0;
}

static int alias(struct reader *r, const yaml_event_t *event, struct value *out, size_t depth)
{
    const char *name = (const char *)event->data.alias.anchor;
    const struct value *anchor = value_get(&r->anchors, name);
    struct extent size = {0};

    if (!anchor)
        return wrong(r, event->start_mark, ERR_INVALID, "unknown alias", name);
    measure(anchor, depth, &size);
    if (size.depth > r->depth)
        return wrong(r, event->start_mark, ERR_TOO_LARGE, "nested too deeply", NULL);
    if (spend(r, event->start_mark, size.nodes, size.bytes) < 0)
        return -1;
    value_copy(out, anchor);
    return 0;
}

static int node(struct reader *r, yaml_event_t *event, struct value *out, size_t depth);

static int sequence(struct reader *r, struct value *out, size_t depth)
{
    value_set_array(out);
    for (;;) {
        yaml_event_t event;
        if (next(r, &event) < 0)
            return -1;
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return 0;
        }
        if (node(r, &event, value_push(out), depth + 1) < 0)
            return -1;
    }
}

static int mapping(struct reader *r, struct value *out, size_t depth)
{
    value_set_map(out);
    for (;;) {
        yaml_event_t event;
        if (next(r, &event) < 0)
            return -1;
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return 0;
        }
        if (event.type != YAML_SCALAR_EVENT) {
            wrong(r, event.start_mark, ERR_INVALID, "a key must be a plain text", NULL);
            yaml_event_delete(&event);
            return -1;
        }
        yaml_mark_t at = event.start_mark;
        size_t before = value_count(out), len = event.data.scalar.length;
        cleanup_free char *key = mem_strndup((const char *)event.data.scalar.value, len);
        yaml_event_delete(&event);
        struct value *slot = value_put_n(out, key, len);
        if (value_count(out) == before)
            return wrong(r, at, ERR_INVALID, "duplicate key", key);
        if (next(r, &event) < 0 || node(r, &event, slot, depth + 1) < 0)
            return -1;
    }
}

/* Takes the event. */
static int node(struct reader *r, yaml_event_t *event, struct value *out, size_t depth)
{
    yaml_mark_t at = event->start_mark;
    const char *name = NULL;
    int status;

    if (depth > r->depth || spend(r, at, 1, 0) < 0) {
        if (depth > r->depth)
            wrong(r, at, ERR_TOO_LARGE, "nested too deeply", NULL);
        yaml_event_delete(event);
        return -1;
    }
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        status = alias(r, event, out, depth);
        break;
    case YAML_SCALAR_EVENT:
        name = (const char *)event->data.scalar.anchor;
        scalar(event, out);
        status = 0;
        break;
    case YAML_SEQUENCE_START_EVENT:
        name = (const char *)event->data.sequence_start.anchor;
        status = sequence(r, out, depth);
        break;
    case YAML_MAPPING_START_EVENT:
        name = (const char *)event->data.mapping_start.anchor;
        status = mapping(r, out, depth);
        break;
    default:
        status = wrong(r, at, ERR_INVALID, "not YAML: unexpected content", NULL);
    }
    if (status == 0)
        status = remember(r, at, name, out);
    yaml_event_delete(event);
    return status;
}

static int documents(struct reader *r, bool all, struct value *out)
{
    if (all)
        value_set_array(out);
    for (size_t seen = 0;;) {
        yaml_event_t event;
        if (next(r, &event) < 0)
            return -1;
        yaml_event_type_t type = event.type;
        yaml_mark_t at = event.start_mark;
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT)
            return 0;
        if (type != YAML_DOCUMENT_START_EVENT)
            continue; /* stream start, document end */
        if (seen++ && !all)
            return wrong(r, at, ERR_INVALID, "a second document, only one is allowed here", NULL);
        if (next(r, &event) < 0 || node(r, &event, all ? value_push(out) : out, 0) < 0)
            return -1;
        value_free(&r->anchors);
    }
}

int value_from_yaml(const char *text, size_t len, const char *source,
                    const struct text_limits *limits, bool all, struct value *out,
                    struct error *err)
{
    size_t bytes = limits && limits->bytes ? limits->bytes : DEFAULT_BYTES;
    struct reader r = {
        .source = source ? source : "YAML",
        .depth = limits && limits->depth ? limits->depth : DEFAULT_DEPTH,
        .nodes = limits && limits->nodes ? limits->nodes : DEFAULT_NODES,
        .bytes = bytes,
        .err = err,
    };

    value_set_nil(out);
    if (len > bytes)
        return error_set(err, ERR_TOO_LARGE, "%s: %zu bytes of YAML, at most %zu are allowed",
                         r.source, len, bytes);
    if (!yaml_parser_initialize(&r.parser))
        return error_set(err, ERR_MEMORY, "%s: no memory for the YAML parser", r.source);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
    int status = documents(&r, all, out);
    yaml_parser_delete(&r.parser);
    value_free(&r.anchors);
    if (status < 0)
        value_free(out);
    return status;
}
