/* Secrets: made and put together here; to the script they are handles. */
#include <stdlib.h>
#include <string.h>

#include "base/environment.h"
#include "base/mem.h"
#include "broker/internal.h"

#define SECRET_MAX (1u << 20) /* bytes of one */

static int secret_get(struct call *call, const struct value *args, struct value *out,
                      struct error *err)
{
    const char *name = value_get_string(args, "name", "");

    if (call_allow_env(call, name, err) < 0)
        return -1;
    const char *text = environment_get(name, NULL);
    if (text)
        call_secret_new(call, text, strlen(text), out);
    return 0;
}

/* A buffer that grows leaves copies of what it held behind: it is made large enough at once. */
static void finish(struct call *call, struct buf *text, struct value *out)
{
    call_secret_new(call, text->data ? text->data : "", text->len, out);
    if (text->data)
        explicit_bzero(text->data, text->room);
}

/* Newlines at the end are the file's, not the secret's. */
static int secret_file(struct call *call, const struct value *args, struct value *out,
                       struct error *err)
{
    const char *shown = value_get_string(args, "path", "");
    cleanup_free char *path = call_path(call, shown, ACCESS_READ, err);
    cleanup_buf struct buf text = BUF_INIT;

    if (!path)
        return error_wrap(err, "secret.file");
    buf_reserve(&text, SECRET_MAX + 65536);
    int failed = call_read(path, SECRET_MAX, &text, err);
    while (text.len && (text.data[text.len - 1] == '\n' || text.data[text.len - 1] == '\r'))
        text.len--;
    if (failed == 0)
        finish(call, &text, out);
    else if (text.data)
        explicit_bzero(text.data, text.room);
    return failed ? error_wrap(err, "secret.file") : 0;
}

/* The bytes of all values, in order. */
static int parts(struct call *call, const struct value *values, const char *who, size_t *total,
                 struct error *err)
{
    *total = 0;
    for (size_t i = 0; i < value_count(values); i++) {
        size_t len;
        if (!call_secret(call, value_at(values, i), &len, err))
            return error_wrap(err, "%s: value %zu", who, i + 1);
        *total += len;
        if (*total > SECRET_MAX)
            return error_set(err, ERR_TOO_LARGE, "%s: a secret has at most %u bytes", who,
                             SECRET_MAX);
    }
    return 0;
}

static int secret_format(struct call *call, const struct value *args, struct value *out,
                         struct error *err)
{
    const struct value *values = value_get(args, "values"), *format = value_get(args, "format");
    const char *at = format->as.string.data, *end = at + format->as.string.len;
    cleanup_buf struct buf text = BUF_INIT;
    size_t next = 0, total, len;

    if (parts(call, values, "secret.format", &total, err) < 0)
        return -1;
    if (format->as.string.len > SECRET_MAX)
        return error_set(err, ERR_TOO_LARGE, "secret.format: a secret has at most %u bytes",
                         SECRET_MAX);
    buf_reserve(&text, total + format->as.string.len + 1);
    for (; at < end; at++) {
        if (*at != '%') {
            buf_putc(&text, *at);
        } else if (at[1] == '%') {
            buf_putc(&text, *at++);
        } else if (at[1] == 's') {
            const struct value *v = value_at(values, next++);
            if (!v)
                return error_set(err, ERR_USAGE,
                                 "secret.format: fewer values than %%s in the format");
            const char *bytes = call_secret(call, v, &len, err);
            buf_append(&text, bytes, len);
            at++;
        } else {
            return error_set(err, ERR_USAGE, "secret.format: only %%s and %%%% are understood");
        }
    }
    if (next < value_count(values))
        return error_set(err, ERR_USAGE, "secret.format: more values than %%s in the format");
    finish(call, &text, out);
    return 0;
}

static int secret_base64(struct call *call, const struct value *args, struct value *out,
                         struct error *err)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    cleanup_buf struct buf text = BUF_INIT;
    size_t len;
    const char *bytes = call_secret(call, value_get(args, "value"), &len, err);
    const unsigned char *s = (const unsigned char *)bytes;

    if (!bytes)
        return error_wrap(err, "secret.base64");
    if (len > SECRET_MAX)
        return error_set(err, ERR_TOO_LARGE, "secret.base64: a secret has at most %u bytes",
                         SECRET_MAX);
    buf_reserve(&text, len / 3 * 4 + 5);
    for (size_t i = 0; i < len; i += 3) {
        unsigned three = (unsigned)s[i] << 16 | (i + 1 < len ? (unsigned)s[i + 1] << 8 : 0u) |
                         (i + 2 < len ? s[i + 2] : 0u);
        buf_putc(&text, digits[three >> 18]);
        buf_putc(&text, digits[three >> 12 & 63]);
        buf_putc(&text, i + 1 < len ? digits[three >> 6 & 63] : '=');
        buf_putc(&text, i + 2 < len ? digits[three & 63] : '=');
    }
    finish(call, &text, out);
    return 0;
}

const struct primitive secret_rows[] = {
    {.sign = {"secret.get", "name:string", "handle:secret?",
              "a secret from an environment variable that was granted"},
     .fn = secret_get},
    {.sign = {"secret.file", "path:path", "handle:secret",
              "a secret from a file that the script may read"},
     .fn = secret_file},
    {.sign = {"secret.format", "format:string values:array", "handle:secret",
              "a new secret of texts and secrets"},
     .fn = secret_format},
    {.sign = {"secret.base64", "value:secret", "handle:secret",
              "a new secret: the base64 form of one"},
     .fn = secret_base64},
    {.sign = {.name = NULL}},
};
