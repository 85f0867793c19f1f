/*
 * Masking. The input is lines: two secrets, then text around them; the second byte cuts. No secret
 * is in what comes out, in any form that masking knows, and a stream comes out the same however it
 * is cut.
 */
#include "fuzz.h"

#include <openssl/evp.h>

#include "base/utf8.h"
#include "broker/mask.h"

/* A secret out of stars and fewer may come together again around a mask. */
static bool usable(const char *secret)
{
    return strlen(secret) >= MASK_SHORTEST && !strchr(secret, '*');
}

static void stream(struct masker *masker, const struct buf *text, size_t cut,
                   const struct buf *whole)
{
    cleanup_buf struct buf pieces = BUF_INIT;
    cleanup_buf struct buf tail = BUF_INIT;

    cut = cut % 32 + 1;
    for (size_t at = 0; at < text->len; at += cut) {
        size_t left = text->len - at;
        mask_stream(masker, &tail, text->data + at, left < cut ? left : cut, &pieces);
    }
    mask_stream_end(masker, &tail, &pieces);
    check(tail.len == 0);
    check(whole->len == pieces.len && memcmp(whole->data, pieces.data, whole->len) == 0);
}

/* The secret inside other bytes, as base64 shows it: none of the digits that depend on it alone. */
static void base64(struct masker *masker, const char *before, const char *secret, const char *after)
{
    cleanup_free char *plain =
        mem_printf("%.*s%s%s", (int)(strlen(before) % 4), before, secret, after);
    size_t len = strlen(plain), ahead = strlen(before) % 4;
    cleanup_free unsigned char *text = mem_alloc(len * 4 / 3 + 8);
    cleanup_buf struct buf masked = BUF_INIT;
    size_t first = (8 * ahead + 5) / 6, end = 8 * (ahead + strlen(secret)) / 6;

    int encoded = EVP_EncodeBlock(text, (const unsigned char *)plain, (int)len);
    mask_text(masker, (const char *)text, (size_t)encoded, &masked);
    if (end - first >= MASK_SHORTEST)
        check(!has_bytes(&masked, text + first, end - first));
}

static void in_json(struct masker *masker, const char *text, const char *secret)
{
    cleanup_buf struct buf json = BUF_INIT;
    cleanup_buf struct buf quoted = BUF_INIT;
    cleanup_buf struct buf masked = BUF_INIT;

    for (size_t i = 0, bytes; secret[i]; i += bytes)
        if (!(bytes = utf8_length(secret + i, strlen(secret + i))))
            return; /* what is written depends on what stands beside it */
    json_print_text(text, strlen(text), &json);
    json_print_text(secret, strlen(secret), &quoted);
    mask_text(masker, json.data, json.len, &masked);
    check(!has_bytes(&masked, quoted.data + 1, quoted.len - 2));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_buf struct buf whole = BUF_INIT;
    char *lines[4];

    if (size < 2 || size > 1024)
        return 0;
    cleanup_free char *input = mem_strndup((const char *)data + 1, size - 1);
    cut_lines(input, lines, 4);
    if (!usable(lines[0]))
        return 0;
    struct masker *masker = masker_new();
    masker_add(masker, lines[0], strlen(lines[0]));
    if (usable(lines[1]))
        masker_add(masker, lines[1], strlen(lines[1]));
    buf_printf(&text, "%s%s%s%s", lines[2], lines[0], lines[3], lines[1]);
    mask_text(masker, text.data, text.len, &whole);
    check(!has_bytes(&whole, lines[0], strlen(lines[0])));
    if (usable(lines[1]))
        check(!has_bytes(&whole, lines[1], strlen(lines[1])));
    stream(masker, &text, data[0], &whole);
    in_json(masker, text.data, lines[0]);
    masker_free(masker);

    masker = masker_new(); /* alone: the other's forms would cut into these */
    masker_add(masker, lines[0], strlen(lines[0]));
    base64(masker, lines[1], lines[0], lines[2]);
    masker_free(masker);
    return 0;
}
