#include "broker/mask.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/vault.h"
#include "broker/mask_match.h"

#define LINE_SHORTEST 8          /* "}" and the like are no secrets */
#define HELD_MAX      (1u << 20) /* of a stream, while secrets in it overlap without end */
#define ENOUGH        64         /* bytes of a long secret that make one */
#define FILTER_BITS   17
#define SPECIAL       0x100u

struct pattern {
    struct pattern *next; /* of the same kind and first byte */
    const char *data;
    size_t len;
};

/*
 * Most places of a text are passed over by one look at a table: the hash of their four bytes, case
 * and alphabet of base64 folded away, is that of no pattern's first four. Where one of the last two
 * has more than one reading, the first two decide; where one of these has, the patterns that begin
 * with the first one are tried.
 */
struct masker {
    pthread_rwlock_t lock;
    struct vault *vault; /* of the patterns' bytes */
    struct pattern *patterns[MASK_KINDS][256];
    size_t count;
    uint16_t fold[256]; /* SPECIAL, or the byte */
    uint32_t four[(1u << FILTER_BITS) / 32], two[65536 / 32];
};

struct masker *masker_new(void)
{
    struct masker *masker = mem_alloc(sizeof *masker);

    pthread_rwlock_init(&masker->lock, NULL);
    masker->vault = vault_new();
    for (unsigned c = 0; c < 256; c++) {
        masker->fold[c] = mask_fold(MASK_BASE64, (unsigned char)c);
        if (c >= 'A' && c <= 'Z')
            masker->fold[c] = (uint16_t)(c | 0x20);
        if (mask_special((unsigned char)c))
            masker->fold[c] |= SPECIAL;
    }
    return masker;
}

void masker_free(struct masker *masker)
{
    if (!masker)
        return;
    for (int kind = 0; kind < MASK_KINDS; kind++) {
        for (int c = 0; c < 256; c++) {
            for (struct pattern *p = masker->patterns[kind][c], *next; p; p = next) {
                next = p->next;
                free(p);
            }
        }
    }
    vault_free(masker->vault);
    pthread_rwlock_destroy(&masker->lock);
    free(masker);
}

/* ---- the forms of a secret ---- */

static uint32_t hash(uint32_t four)
{
    return four * 2654435761u >> (32 - FILTER_BITS);
}

static bool is_set(const uint32_t *bits, uint32_t bit)
{
    return bits[bit / 32] >> bit % 32 & 1u;
}

static void set(uint32_t *bits, uint32_t bit)
{
    bits[bit / 32] |= 1u << bit % 32;
}

static void add_pattern(struct masker *masker, enum mask_kind kind, const char *data, size_t len)
{
    struct pattern **head = &masker->patterns[kind][(unsigned char)data[0]];

    if (len < MASK_SHORTEST)
        return;
    for (const struct pattern *p = *head; p; p = p->next) {
        if (p->len == len && memcmp(p->data, data, len) == 0)
            return;
    }
    struct pattern *pattern = mem_alloc(sizeof *pattern);
    *pattern =
        (struct pattern){.next = *head, .data = vault_copy(masker->vault, data, len), .len = len};
    *head = pattern;
    masker->count++;
    uint32_t first = 0;
    for (unsigned i = 0; i < 4; i++)
        first |= (masker->fold[(unsigned char)data[i]] & 0xffu) << 8 * i;
    set(masker->four, hash(first));
    set(masker->two, first & 0xffffu);
}

static void add_and_wipe(struct masker *masker, enum mask_kind kind, struct buf *text)
{
    if (!text->data)
        return;
    add_pattern(masker, kind, text->data, text->len);
    explicit_bzero(text->data, text->len);
    text->len = 0;
}

/*
 * Base64 text of anything that holds the secret contains the digits that depend on the secret's
 * bits alone. Which these are depends on how many bytes (modulo 3) stand before it.
 */
static void add_base64(struct masker *masker, const unsigned char *secret, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    cleanup_buf struct buf text = BUF_INIT;

    for (size_t before = 0; before < 3; before++) {
        size_t first = (8 * before + 5) / 6, end = 8 * (before + len) / 6;
        buf_reserve(&text, end); /* at once, so that no copy is left behind */
        for (size_t digit = first; digit < end; digit++) {
            size_t bit = 6 * digit - 8 * before;
            unsigned pair =
                (unsigned)secret[bit / 8] << 8 | (bit / 8 + 1 < len ? secret[bit / 8 + 1] : 0u);
            buf_putc(&text, digits[pair >> (10 - bit % 8) & 63u]);
        }
        add_and_wipe(masker, MASK_BASE64, &text);
    }
}

/* As one number, and byte by byte with something between. */
static void add_hex(struct masker *masker, const unsigned char *secret, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    cleanup_buf struct buf text = BUF_INIT;

    for (int form = 0; form < 3; form++) {
        buf_reserve(&text, 3 * len);
        for (size_t i = 0; i < len; i++) {
            if (i && form)
                buf_putc(&text, form == 1 ? ' ' : ':');
            buf_putc(&text, digits[secret[i] >> 4]);
            buf_putc(&text, digits[secret[i] & 15]);
        }
        add_and_wipe(masker, MASK_HEX, &text);
    }
}

static void add_forms(struct masker *masker, const unsigned char *secret, size_t len)
{
    if (len < MASK_SHORTEST)
        return;
    add_pattern(masker, MASK_TEXT, (const char *)secret, len);
    add_base64(masker, secret, len);
    add_hex(masker, secret, len);
}

/* Each line of a key is as secret as the whole; its marks are not. */
static void add_lines(struct masker *masker, const char *text, size_t len)
{
    for (size_t at = 0; at < len;) {
        const char *newline = memchr(text + at, '\n', len - at);
        size_t line = newline ? (size_t)(newline - text) - at : len - at;
        size_t kept = line && text[at + line - 1] == '\r' ? line - 1 : line;
        if (kept >= LINE_SHORTEST && memcmp(text + at, "-----", 5) != 0)
            add_forms(masker, (const unsigned char *)text + at,
                      kept < MASK_LONGEST ? kept : MASK_LONGEST);
        at += line + 1;
    }
}

void masker_add(struct masker *masker, const void *secret, size_t len)
{
    const char *text = secret;

    /* A newline at the end is where the secret came from, not part of it. */
    size_t kept = len;
    while (kept && (text[kept - 1] == '\n' || text[kept - 1] == '\r'))
        kept--;
    if (kept >= MASK_SHORTEST)
        len = kept;
    if (len < MASK_SHORTEST)
        return;
    pthread_rwlock_wrlock(&masker->lock);
    add_forms(masker, secret, len < MASK_LONGEST ? len : MASK_LONGEST);
    if (memchr(text, '\n', len))
        add_lines(masker, text, len);
    pthread_rwlock_unlock(&masker->lock);
}

/* ---- looking for them ---- */

static void try_patterns(const struct masker *masker, enum mask_kind kind, unsigned char first,
                         const char *text, size_t len, struct mask_match *best)
{
    /* With one reading each, the second byte rules out most of them without a call. */
    unsigned char second = len > 1 ? (unsigned char)text[1] : 0;
    bool plain =
        len > 1 && (unsigned char)text[0] == first && !mask_special(first) && !mask_special(second);

    second = mask_fold(kind, second);
    for (const struct pattern *p = masker->patterns[kind][first]; p; p = p->next) {
        if (plain && (unsigned char)p->data[1] != second)
            continue;
        struct mask_match match = mask_try(kind, p->data, p->len, text, len);
        if (match.len > best->len)
            best->len = match.len;
        best->more = best->more || match.more;
        size_t much = p->len / 2 < ENOUGH ? p->len / 2 : ENOUGH; /* half a secret is one, too */
        if (match.more && match.depth >= LINE_SHORTEST && match.depth >= much)
            best->depth = match.depth;
    }
}

/* The longest secret at text. depth is that of one that the text's end cuts, if much of it is
 * there.
 */
static struct mask_match look(const struct masker *masker, const char *text, size_t len)
{
    struct mask_match best = {0};
    unsigned char c = (unsigned char)text[0];

    for (int kind = 0; kind < MASK_KINDS; kind++) {
        if (!mask_special(c)) {
            try_patterns(masker, (enum mask_kind)kind, mask_fold((enum mask_kind)kind, c), text,
                         len, &best);
            continue;
        }
        struct mask_reading readings[MASK_READINGS];
        bool cut;
        size_t count = mask_readings((enum mask_kind)kind, text, len, readings, &cut);
        best.more = best.more || (cut && c != '\x1b');
        for (size_t i = 0; i < count; i++) {
            bool seen = readings[i].count == 0;
            for (size_t k = 0; k < i; k++)
                seen = seen || (readings[k].count && readings[k].bytes[0] == readings[i].bytes[0]);
            if (!seen)
                try_patterns(masker, (enum mask_kind)kind, readings[i].bytes[0], text, len, &best);
        }
    }
    return best;
}

/* The next place, from `at` on, at which a secret may begin; len: there is none. */
static size_t skip(const struct masker *masker, const char *text, size_t at, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;

    for (; at + 4 <= len; at++) {
        uint32_t a = masker->fold[s[at]], b = masker->fold[s[at + 1]], c = masker->fold[s[at + 2]],
                 d = masker->fold[s[at + 3]];
        if ((a | b) & SPECIAL)
            return at;
        if (!is_set(masker->two, a | b << 8))
            continue;
        if (((c | d) & SPECIAL) || is_set(masker->four, hash(a | b << 8 | c << 16 | d << 24)))
            return at;
    }
    return at;
}

struct cover {
    size_t from, to; /* of the text; overlapping secrets are one */
    size_t plain;    /* written up to here */
};

static void cover_end(struct cover *cover, const char *text, struct buf *out)
{
    if (cover->to <= cover->from)
        return;
    buf_append(out, text + cover->plain, cover->from - cover->plain);
    buf_puts(out, "***");
    cover->plain = cover->to;
    cover->from = cover->to;
}

/* Masks text; with `open` the end that may begin a pattern is left: returns the bytes consumed. */
static size_t scan(struct masker *masker, const char *text, size_t len, bool open, struct buf *out)
{
    struct cover cover = {0};
    size_t at = 0;

    pthread_rwlock_rdlock(&masker->lock);
    if (masker->count == 0)
        at = len;
    for (at = skip(masker, text, at, len); at < len; at = skip(masker, text, at + 1, len)) {
        struct mask_match found = look(masker, text + at, len - at);
        if (found.more && open) {
            /* A longer one may still come: "abcd" now, "abcdef" with the next piece. */
            if (at < cover.to && len - cover.from < HELD_MAX)
                at = cover.from;
            else if (at < cover.to)
                at = cover.to;
            break;
        }
        if (found.more && found.depth)
            found.len = len - at;
        if (!found.len)
            continue;
        if (at >= cover.to) {
            cover_end(&cover, text, out);
            cover.from = at;
        }
        if (at + found.len > cover.to)
            cover.to = at + found.len;
    }
    pthread_rwlock_unlock(&masker->lock);
    if (at > len)
        at = len;
    if (cover.to <= at)
        cover_end(&cover, text, out);
    buf_append(out, text + cover.plain, at - cover.plain);
    return at;
}

void mask_text(struct masker *masker, const char *text, size_t len, struct buf *out)
{
    scan(masker, text, len, false, out);
}

/* The longest end of the pattern (not all of it) with which the text begins: of how far the pattern
 * matches the text at each of its places, what is left at its end (Knuth, Morris, Pratt). */
static size_t end_of(const struct pattern *p, const char *text, size_t len)
{
    size_t most = len < p->len - 1 ? len : p->len - 1, matched = 0;
    cleanup_free size_t *back = mem_array(NULL, most + 1, sizeof *back);

    back[0] = 0;
    for (size_t i = 1; i < most; i++) {
        size_t k = back[i - 1];
        while (k && text[i] != text[k])
            k = back[k - 1];
        back[i] = k + (text[i] == text[k]);
    }
    for (size_t i = p->len - most; most && i < p->len; i++) {
        while (matched && (matched == most || p->data[i] != text[matched]))
            matched = back[matched - 1];
        matched += p->data[i] == text[matched];
    }
    return matched;
}

void mask_tail(struct masker *masker, const char *text, size_t len, struct buf *out)
{
    size_t gone = 0;

    pthread_rwlock_rdlock(&masker->lock);
    for (int kind = 0; kind < MASK_KINDS; kind++) {
        for (int c = 0; c < 256; c++) {
            for (const struct pattern *p = masker->patterns[kind][c]; p; p = p->next) {
                size_t end = end_of(p, text, len);
                if (end >= LINE_SHORTEST && end > gone)
                    gone = end;
            }
        }
    }
    pthread_rwlock_unlock(&masker->lock);
    if (gone)
        buf_puts(out, "***");
    mask_text(masker, text + gone, len - gone, out);
}

void mask_stream(struct masker *masker, struct buf *tail, const char *data, size_t len,
                 struct buf *out)
{
    if (!tail->len) {
        size_t done = scan(masker, data, len, true, out);
        buf_append(tail, data + done, len - done);
        return;
    }
    buf_append(tail, data, len);
    buf_consume(tail, scan(masker, tail->data, tail->len, true, out));
}

void mask_stream_end(struct masker *masker, struct buf *tail, struct buf *out)
{
    if (tail->len)
        scan(masker, tail->data, tail->len, false, out);
    buf_clear(tail);
}

bool masker_holds(struct masker *masker, const char *text, size_t len, size_t shortest)
{
    bool found = false;

    pthread_rwlock_rdlock(&masker->lock);
    for (size_t at = 0; at < len && !found; at++) {
        const struct pattern *p = masker->patterns[MASK_TEXT][(unsigned char)text[at]];
        for (; p && !found; p = p->next)
            found =
                p->len >= shortest && p->len <= len - at && memcmp(p->data, text + at, p->len) == 0;
    }
    pthread_rwlock_unlock(&masker->lock);
    return found;
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
