/* value -> YAML, block style. Quotes whatever any YAML 1.1 or 1.2 reader could take for something
 * else than text. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/value.h"

static bool is_word(const char *text)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no",
                                        "on",   "off",  "y",     "n"};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(text, words[i]) == 0)
            return true;
    }
    return false;
}

/* Letters first, then letters, digits and a few harmless signs: everything else is quoted. */
static bool plain(const char *text, size_t len)
{
    if (len == 0 || !isalpha((unsigned char)text[0]) || is_word(text) ||
        strncasecmp(text, "0x", 2) == 0)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (!isalnum(c) && !strchr("_-./ ", c))
            return false;
    }
    return text[len - 1] != ' ';
}

static void put_scalar(const struct value *v, struct buf *out)
{
    if (v->kind == VALUE_STRING && plain(v->as.string.data, v->as.string.len))
        buf_append(out, v->as.string.data, v->as.string.len);
    else
        value_to_json(v, 0, out); /* JSON's scalars are YAML's */
}

static void put_node(const struct value *v, int depth, struct buf *out);

static void put_child(const struct value *v, int depth, struct buf *out)
{
    if ((v->kind == VALUE_MAP || v->kind == VALUE_ARRAY) && value_count(v)) {
        buf_putc(out, '\n');
        put_node(v, depth, out);
    } else {
        buf_putc(out, ' ');
        put_scalar(v, out);
        buf_putc(out, '\n');
    }
}

static void put_node(const struct value *v, int depth, struct buf *out)
{
    if (v->kind == VALUE_MAP && v->as.map.count) {
        for (size_t i = 0; i < v->as.map.count; i++) {
            const struct value_pair *pair = &v->as.map.pairs[i];
            struct value key = {.kind = VALUE_STRING, .as.string = {pair->key, pair->key_len}};
            buf_printf(out, "%*s", depth * 2, "");
            put_scalar(&key, out);
            buf_putc(out, ':');
            put_child(&pair->value, depth + 1, out);
        }
    } else if (v->kind == VALUE_ARRAY && v->as.array.count) {
        for (size_t i = 0; i < v->as.array.count; i++) {
            buf_printf(out, "%*s-", depth * 2, "");
            put_child(&v->as.array.items[i], depth + 1, out);
        }
    } else {
        buf_printf(out, "%*s", depth * 2, "");
        put_scalar(v, out);
        buf_putc(out, '\n');
    }
}

void value_to_yaml(const struct value *v, struct buf *out)
{
    put_node(v, 0, out);
}
