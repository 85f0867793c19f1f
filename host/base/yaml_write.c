/* value -> YAML, block style. Quotes whatever any YAML 1.1 or 1.2 reader could take for something
 * else than text. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/value.h"

#define KEY_MAX 1000 /* a longer key has to be announced by "?" (YAML 1.2.2, section 7.4.2) */

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
        if (!isalnum(c) && (!c || !strchr("_-./ ", c)))
            return false;
    }
    return text[len - 1] != ' ';
}

/* The character at text that YAML does not take as it is although JSON does, or 0; *bytes of it. */
static unsigned unprintable(const char *text, size_t len, size_t *bytes)
{
    const unsigned char *u = (const unsigned char *)text;

    if (len >= 2 && u[0] == 0xc2 && u[1] < 0xa0) { /* C1 controls, NEL among them */
        *bytes = 2;
        return u[1];
    }
    if (len < 3 || (u[0] != 0xe2 && u[0] != 0xef))
        return 0;
    unsigned code = (u[0] & 0xfu) << 12 | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu);
    *bytes = 3;
    return code == 0x2028 || code == 0x2029 || code == 0xfeff || code >= 0xfffe ? code : 0;
}

static void put_quoted(const char *text, size_t len, struct buf *out)
{
    cleanup_buf struct buf json = BUF_INIT;
    size_t bytes;

    json_print_text(text, len, &json);
    for (size_t i = 0; i < json.len;) {
        unsigned code = unprintable(json.data + i, json.len - i, &bytes);
        if (code) {
            buf_printf(out, "\\u%04x", code);
            i += bytes;
        } else {
            buf_putc(out, json.data[i++]);
        }
    }
}

static void put_text(const char *text, size_t len, struct buf *out)
{
    if (plain(text, len))
        buf_append(out, text, len);
    else
        put_quoted(text, len, out);
}

static void put_scalar(const struct value *v, struct buf *out)
{
    if (v->kind == VALUE_STRING)
        put_text(v->as.string.data, v->as.string.len, out);
    else if (v->kind == VALUE_REAL && !isfinite(v->as.real))
        buf_puts(out, isnan(v->as.real) ? ".nan" : v->as.real > 0 ? ".inf" : "-.inf");
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
            cleanup_buf struct buf key = BUF_INIT;
            put_text(pair->key, pair->key_len, &key);
            buf_printf(out, "%*s%s", depth * 2, "", key.len > KEY_MAX ? "? " : "");
            buf_append(out, key.data, key.len);
            if (key.len > KEY_MAX)
                buf_printf(out, "\n%*s", depth * 2, "");
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
