#include "broker/mask.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct pattern {
    char *data;
    size_t len;
};

struct masker {
    pthread_rwlock_t lock;
    struct pattern *patterns; /* longest first */
    size_t count;
    bool first[256]; /* bytes with which a pattern begins */
};

struct masker *masker_new(void)
{
    struct masker *masker = mem_alloc(sizeof *masker);
    pthread_rwlock_init(&masker->lock, NULL);
    return masker;
}

void masker_free(struct masker *masker)
{
    if (!masker)
        return;
    for (size_t i = 0; i < masker->count; i++) {
        explicit_bzero(masker->patterns[i].data, masker->patterns[i].len);
        free(masker->patterns[i].data);
    }
    free(masker->patterns);
    pthread_rwlock_destroy(&masker->lock);
    free(masker);
}

/* ---- the forms of a secret ---- */

static void add_pattern(struct masker *masker, const char *data, size_t len)
{
    size_t at = 0;

    if (len < MASK_SHORTEST)
        return;
    for (size_t i = 0; i < masker->count; i++) {
        if (masker->patterns[i].len == len && memcmp(masker->patterns[i].data, data, len) == 0)
            return;
        if (masker->patterns[i].len >= len)
            at = i + 1;
    }
    masker->patterns = mem_array(masker->patterns, masker->count + 1, sizeof *masker->patterns);
    memmove(masker->patterns + at + 1, masker->patterns + at,
            (masker->count - at) * sizeof *masker->patterns);
    masker->patterns[at] = (struct pattern){mem_strndup(data, len), len};
    masker->count++;
    masker->first[(unsigned char)data[0]] = true;
}

/*
 * Base64 text of anything that holds the secret contains the digits that depend on the secret's
 * bits alone. Which these are depends on how many bytes (modulo 3) stand before it.
 */
static void add_base64(struct masker *masker, const unsigned char *secret, size_t len,
                       const char *last_two)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

    for (size_t before = 0; before < 3; before++) {
        cleanup_buf struct buf text = BUF_INIT;
        size_t first = (8 * before + 5) / 6, end = 8 * (before + len) / 6;
        for (size_t digit = first; digit < end; digit++) {
            size_t bit = 6 * digit - 8 * before;
            unsigned pair =
                (unsigned)secret[bit / 8] << 8 | (bit / 8 + 1 < len ? secret[bit / 8 + 1] : 0u);
            unsigned value = pair >> (10 - bit % 8) & 63u;
            buf_putc(&text, value < 62 ? digits[value] : last_two[value - 62]);
        }
        add_pattern(masker, text.data ? text.data : "", text.len);
        if (text.data)
            explicit_bzero(text.data, text.len);
    }
}

static void add_url(struct masker *masker, const unsigned char *secret, size_t len, const char *hex,
                    bool plus)
{
    cleanup_buf struct buf text = BUF_INIT;

    for (size_t i = 0; i < len; i++) {
        unsigned char c = secret[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     (c && strchr("-_.~", c));
        if (plain) {
            buf_putc(&text, (char)c);
        } else if (c == ' ' && plus) {
            buf_putc(&text, '+');
        } else {
            buf_putc(&text, '%');
            buf_putc(&text, hex[c >> 4]);
            buf_putc(&text, hex[c & 15]);
        }
    }
    add_pattern(masker, text.data, text.len);
}

static void add_json(struct masker *masker, const unsigned char *secret, size_t len, bool slash,
                     bool del)
{
    cleanup_buf struct buf text = BUF_INIT;

    for (size_t i = 0; i < len; i++) {
        unsigned char c = secret[i];
        if (c == '"' || c == '\\' || (slash && c == '/'))
            buf_printf(&text, "\\%c", c);
        else if (c == '\n')
            buf_puts(&text, "\\n");
        else if (c == '\r')
            buf_puts(&text, "\\r");
        else if (c == '\t')
            buf_puts(&text, "\\t");
        else if (c < 0x20 || (del && c == 0x7f)) /* DEL: as our own writer has it */
            buf_printf(&text, "\\u%04x", c);
        else
            buf_putc(&text, (char)c);
    }
    add_pattern(masker, text.data, text.len);
}

static void add_forms(struct masker *masker, const unsigned char *secret, size_t len)
{
    add_pattern(masker, (const char *)secret, len);
    add_base64(masker, secret, len, "+/");
    add_base64(masker, secret, len, "-_");
    add_url(masker, secret, len, "0123456789ABCDEF", false);
    add_url(masker, secret, len, "0123456789abcdef", false);
    add_url(masker, secret, len, "0123456789ABCDEF", true);
    add_json(masker, secret, len, false, false);
    add_json(masker, secret, len, true, false);
    add_json(masker, secret, len, false, true);
}

void masker_add(struct masker *masker, const void *secret, size_t len)
{
    const char *text = secret;

    if (len < MASK_SHORTEST)
        return;
    pthread_rwlock_wrlock(&masker->lock);
    add_forms(masker, secret, len);
    if (memchr(text, '\n', len)) {
        for (size_t at = 0; at < len;) {
            const char *newline = memchr(text + at, '\n', len - at);
            size_t line = newline ? (size_t)(newline - text) - at : len - at;
            size_t kept = line && text[at + line - 1] == '\r' ? line - 1 : line;
            if (kept >= 8) /* "}" and the like are no secrets */
                add_forms(masker, (const unsigned char *)text + at, kept);
            at += line + 1;
        }
    }
    pthread_rwlock_unlock(&masker->lock);
}

/* ---- looking for them ---- */

/* Length of the longest pattern at text; 0: none. */
static size_t match(const struct masker *masker, const char *text, size_t len)
{
    if (!masker->first[(unsigned char)text[0]])
        return 0;
    for (size_t i = 0; i < masker->count; i++) {
        const struct pattern *p = &masker->patterns[i];
        if (p->len <= len && memcmp(p->data, text, p->len) == 0)
            return p->len;
    }
    return 0;
}

/* May text, with more bytes to come, begin a pattern? */
static bool begins(const struct masker *masker, const char *text, size_t len)
{
    if (!masker->first[(unsigned char)text[0]])
        return false;
    for (size_t i = 0; i < masker->count; i++) {
        if (masker->patterns[i].len > len && memcmp(masker->patterns[i].data, text, len) == 0)
            return true;
    }
    return false;
}

/* Masks text; with `open` the end that may begin a pattern is left: returns the bytes consumed. */
static size_t scan(struct masker *masker, const char *text, size_t len, bool open, struct buf *out)
{
    size_t at = 0, plain = 0;

    pthread_rwlock_rdlock(&masker->lock);
    size_t longest = masker->count ? masker->patterns[0].len : 0;
    while (at < len) {
        size_t found = match(masker, text + at, len - at);
        /* A longer one may still come: "abcd" now, "abcdef" with the next piece. */
        if (open && len - at < longest && begins(masker, text + at, len - at))
            break;
        if (!found) {
            at++;
            continue;
        }
        buf_append(out, text + plain, at - plain);
        buf_puts(out, "***");
        at += found;
        plain = at;
    }
    pthread_rwlock_unlock(&masker->lock);
    buf_append(out, text + plain, at - plain);
    return at;
}

void mask_text(struct masker *masker, const char *text, size_t len, struct buf *out)
{
    scan(masker, text, len, false, out);
}

void mask_stream(struct masker *masker, struct buf *tail, const char *data, size_t len,
                 struct buf *out)
{
    buf_append(tail, data, len);
    if (tail->len)
        buf_consume(tail, scan(masker, tail->data, tail->len, true, out));
}

void mask_stream_end(struct masker *masker, struct buf *tail, struct buf *out)
{
    if (tail->len)
        scan(masker, tail->data, tail->len, false, out);
    buf_clear(tail);
}

/* Did masking change anything? */
static bool mask_bytes(struct masker *masker, const char *data, size_t len, struct buf *out)
{
    buf_clear(out);
    mask_text(masker, data, len, out);
    return out->len != len || (len && memcmp(out->data, data, len) != 0);
}

/* Two keys that become the same one: the later value stays. */
static void mask_keys(struct masker *masker, struct value *map)
{
    cleanup_buf struct buf key = BUF_INIT;
    cleanup_value struct value masked = {0};
    bool clean = true;

    for (size_t i = 0; clean && i < map->as.map.count; i++)
        clean = !mask_bytes(masker, map->as.map.pairs[i].key, map->as.map.pairs[i].key_len, &key);
    if (clean)
        return;
    value_set_map(&masked);
    for (size_t i = 0; i < map->as.map.count; i++) {
        struct value_pair *pair = &map->as.map.pairs[i];
        mask_bytes(masker, pair->key, pair->key_len, &key);
        value_move(value_put_n(&masked, key.data ? key.data : "", key.len), &pair->value);
    }
    value_move(map, &masked);
}

void mask_value(struct masker *masker, struct value *v)
{
    if (masker->count == 0)
        return;
    if (v->kind == VALUE_STRING) {
        cleanup_buf struct buf text = BUF_INIT;
        if (mask_bytes(masker, v->as.string.data, v->as.string.len, &text)) {
            value_free(v);
            value_set_bytes(v, text.data ? text.data : "", text.len);
        }
    } else if (v->kind == VALUE_ARRAY) {
        for (size_t i = 0; i < v->as.array.count; i++)
            mask_value(masker, &v->as.array.items[i]);
    } else if (v->kind == VALUE_MAP) {
        mask_keys(masker, v);
        for (size_t i = 0; i < v->as.map.count; i++)
            mask_value(masker, &v->as.map.pairs[i].value);
    }
}
