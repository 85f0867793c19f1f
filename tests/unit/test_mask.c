/* Secrets never leave in a form that this looks for, however the text is cut. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "broker/mask.h"
#include "check.h"

static struct buf masked;

static const char *text(struct masker *m, const char *in)
{
    buf_clear(&masked);
    mask_text(m, in, strlen(in), &masked);
    return masked.data ? masked.data : "";
}

static void test_plain(void **state)
{
    struct masker *m = masker_new();
    (void)state;
    assert_string_equal(text(m, "nothing yet"), "nothing yet");
    masker_add(m, "hunter22", 8);
    masker_add(m, "hunter22-long", 13);
    masker_add(m, "abc", 3); /* too short */
    assert_string_equal(text(m, "a hunter22, a hunter22-long, abc"), "a ***, a ***, abc");
    assert_string_equal(text(m, "hunter22hunter22"), "******");
    assert_string_equal(text(m, "hunter2"), "hunter2");
    masker_free(m);
}

static void encode64(const unsigned char *in, size_t len, struct buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < len; i += 3) {
        unsigned v = (unsigned)in[i] << 16 | (i + 1 < len ? (unsigned)in[i + 1] << 8 : 0u) |
                     (i + 2 < len ? in[i + 2] : 0u);
        buf_putc(out, digits[v >> 18]);
        buf_putc(out, digits[v >> 12 & 63]);
        buf_putc(out, i + 1 < len ? digits[v >> 6 & 63] : '=');
        buf_putc(out, i + 2 < len ? digits[v & 63] : '=');
    }
}

/* Whatever stands before and after the secret, at most a few digits of its edges are left of its
 * base64 form. */
static void test_base64_alignments(void **state)
{
    const char *secret = "p@ssw0rd\xff\xfe-tail";
    struct masker *m = masker_new();
    (void)state;
    masker_add(m, secret, strlen(secret));
    for (size_t before = 0; before < 7; before++) {
        for (size_t after = 0; after < 4; after++) {
            struct buf plain = BUF_INIT, code = BUF_INIT;
            for (size_t i = 0; i < before; i++)
                buf_putc(&plain, (char)('a' + i));
            buf_puts(&plain, secret);
            for (size_t i = 0; i < after; i++)
                buf_putc(&plain, 'z');
            encode64((const unsigned char *)plain.data, plain.len, &code);
            const char *out = text(m, code.data);
            holds(out, "***");
            /* 14 bytes are 18 or 19 digits: gone but for those that mix with a neighbour. */
            assert_true(strlen(out) <= code.len - 17 + 3);
            buf_free(&plain);
            buf_free(&code);
        }
    }
    masker_free(m);
}

static void test_other_forms(void **state)
{
    const char *secret = "a b/\"c\"\nd";
    struct masker *m = masker_new();
    (void)state;
    masker_add(m, secret, strlen(secret));
    assert_string_equal(text(m, "x=a%20b%2F%22c%22%0Ad&"), "x=***&");
    assert_string_equal(text(m, "x=a%20b%2f%22c%22%0ad&"), "x=***&");
    assert_string_equal(text(m, "x=a+b%2F%22c%22%0Ad&"), "x=***&");
    assert_string_equal(text(m, "{\"k\":\"a b/\\\"c\\\"\\nd\"}"), "{\"k\":\"***\"}");
    assert_string_equal(text(m, "{\"k\":\"a b\\/\\\"c\\\"\\nd\"}"), "{\"k\":\"***\"}");
    masker_free(m);
}

static void test_lines(void **state)
{
    const char *secret = "-----BEGIN-----\nline-one-of-key\nline-two-of-key\n}\n";
    struct masker *m = masker_new();
    (void)state;
    masker_add(m, secret, strlen(secret));
    assert_string_equal(text(m, "> line-two-of-key <"), "> *** <");
    assert_string_equal(text(m, "}"), "}");
    masker_free(m);
}

/* Every way to cut a text in two or three gives what the whole gives. */
static void test_streams(void **state)
{
    static const char all[] = "start hunter22 mid hunter22-long hunter2 hunter22";
    struct masker *m = masker_new();
    (void)state;
    masker_add(m, "hunter22", 8);
    masker_add(m, "hunter22-long", 13);
    size_t len = strlen(all);
    for (size_t i = 0; i <= len; i++) {
        for (size_t k = i; k <= len; k++) {
            struct buf tail = BUF_INIT, out = BUF_INIT;
            mask_stream(m, &tail, all, i, &out);
            mask_stream(m, &tail, all + i, k - i, &out);
            mask_stream(m, &tail, all + k, len - k, &out);
            mask_stream_end(m, &tail, &out);
            assert_string_equal(out.data, "start *** mid *** hunter2 ***");
            buf_free(&tail);
            buf_free(&out);
        }
    }
    /* What cannot begin a secret is not held back. */
    struct buf tail = BUF_INIT, out = BUF_INIT;
    mask_stream(m, &tail, "prompt> ", 8, &out);
    assert_string_equal(out.data, "prompt> ");
    buf_free(&tail);
    buf_free(&out);
    masker_free(m);
}

static void test_values(void **state)
{
    struct masker *m = masker_new();
    struct value v = {0};
    struct buf json = BUF_INIT;
    (void)state;
    masker_add(m, "hunter22", 8);
    value_set_map(&v);
    value_put_string(&v, "hunter22", "key too");
    value_put_string(&v, "plain", "x hunter22 y");
    struct value *list = value_put(&v, "list");
    value_set_array(list);
    value_push_string(list, "hunter22");
    value_put_int(&v, "n", 7);
    mask_value(m, &v);
    value_to_json(&v, TEXT_SORTED, &json);
    assert_string_equal(json.data,
                        "{\"***\":\"key too\",\"list\":[\"***\"],\"n\":7,\"plain\":\"x *** y\"}");
    buf_free(&json);
    value_free(&v);
    masker_free(m);
    buf_free(&masked);
}

/* ---- forms: each encoder below is written against what the tool of that name prints ---- */

typedef void encoder(const unsigned char *in, size_t len, struct buf *out);

static void url(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        if (in[i] < 0x80 && (isalnum(in[i]) || strchr("-_.~", in[i])))
            buf_putc(out, (char)in[i]);
        else
            buf_printf(out, "%%%02X", in[i]);
    }
}
static void url_lower(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        if (in[i] < 0x80 && (isalnum(in[i]) || strchr("-_.~/!*'()", in[i])))
            buf_putc(out, (char)in[i]);
        else
            buf_printf(out, "%%%02x", in[i]);
    }
}
static void url_form(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        if (in[i] == ' ')
            buf_putc(out, '+');
        else
            url(in + i, 1, out);
    }
}
static void url_all(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++)
        buf_printf(out, "%%%02X", in[i]);
}
static void url_twice(const unsigned char *in, size_t len, struct buf *out)
{
    struct buf once = BUF_INIT;
    url(in, len, &once);
    url((const unsigned char *)once.data, once.len, out);
    buf_free(&once);
}
static void json(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        if (in[i] == '"' || in[i] == '\\')
            buf_printf(out, "\\%c", in[i]);
        else if (in[i] == '\n')
            buf_puts(out, "\\n");
        else if (in[i] == '\t')
            buf_puts(out, "\\t");
        else if (in[i] < 0x20)
            buf_printf(out, "\\u%04x", in[i]);
        else
            buf_putc(out, (char)in[i]);
    }
}
/* As PHP and Python's ensure_ascii: slashes escaped, everything beyond ASCII as \u. */
static void json_ascii(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len;) {
        if (in[i] == '/') {
            buf_puts(out, "\\/");
        } else if (in[i] < 0x80) {
            json(in + i, 1, out);
        } else if (in[i] < 0xe0 && i + 1 < len) {
            buf_printf(out, "\\u%04x", (in[i] & 0x1fu) << 6 | (in[i + 1] & 0x3fu));
            i++;
        } else if (in[i] < 0xf0 && i + 2 < len) {
            buf_printf(out, "\\u%04X",
                       (in[i] & 0x0fu) << 12 | (in[i + 1] & 0x3fu) << 6 | (in[i + 2] & 0x3fu));
            i += 2;
        } else if (i + 3 < len) {
            unsigned code = (in[i] & 7u) << 18 | (in[i + 1] & 0x3fu) << 12 |
                            (in[i + 2] & 0x3fu) << 6 | (in[i + 3] & 0x3fu);
            code -= 0x10000;
            buf_printf(out, "\\u%04x\\u%04x", 0xd800 + (code >> 10), 0xdc00 + (code & 0x3ff));
            i += 3;
        } else {
            buf_putc(out, (char)in[i]);
        }
        i++;
    }
}
static void json_all(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        if (in[i] < 0x80)
            buf_printf(out, "\\u%04X", in[i]);
        else
            buf_putc(out, (char)in[i]);
    }
}
static void json_twice(const unsigned char *in, size_t len, struct buf *out)
{
    struct buf once = BUF_INIT;
    json(in, len, &once);
    json((const unsigned char *)once.data, once.len, out);
    buf_free(&once);
}
static void json_thrice(const unsigned char *in, size_t len, struct buf *out)
{
    struct buf twice = BUF_INIT;
    json_twice(in, len, &twice);
    json((const unsigned char *)twice.data, twice.len, out);
    buf_free(&twice);
}
static void shell(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        if (in[i] == '\'')
            buf_puts(out, "'\\''");
        else
            buf_putc(out, (char)in[i]);
    }
}
static void shell_python(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        if (in[i] == '\'')
            buf_puts(out, "'\"'\"'");
        else
            buf_putc(out, (char)in[i]);
    }
}
/* bash's printf %q, one character at a time, and its $'...' */
static void shell_q(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        if (in[i] == '\n')
            buf_puts(out, "\\n");
        else if (in[i] < 0x20 || in[i] >= 0x80)
            buf_printf(out, "\\%03o", in[i]);
        else if (!isalnum(in[i]) && !strchr("-_./", in[i]))
            buf_printf(out, "\\%c", in[i]);
        else
            buf_putc(out, (char)in[i]);
    }
}
static void c_hex(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++)
        buf_printf(out, "\\x%02x", in[i]);
}
static void html(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        switch (in[i]) {
        case '&':
            buf_puts(out, "&amp;");
            break;
        case '<':
            buf_puts(out, "&lt;");
            break;
        case '>':
            buf_puts(out, "&gt;");
            break;
        case '"':
            buf_puts(out, "&quot;");
            break;
        case '\'':
            buf_puts(out, "&#39;");
            break;
        case '/':
            buf_puts(out, "&#x2F;");
            break;
        default:
            buf_putc(out, (char)in[i]);
        }
    }
}
static void hex(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++)
        buf_printf(out, i && i % 30 == 0 ? "\n%02x" : "%02x", in[i]); /* as xxd -p */
}
static void hex_upper(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++)
        buf_printf(out, i ? ":%02X" : "%02X", in[i]);
}
/* od -An -tx1 */
static void hex_od(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++)
        buf_printf(out, i == 0 ? "%02x" : i % 16 == 0 ? "\n %02x" : " %02x", in[i]);
}
static void hex_spaced(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++)
        buf_printf(out, i ? " %02x" : "%02x", in[i]);
}
static void crlf(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        if (in[i] == '\n' && (i == 0 || in[i - 1] != '\r'))
            buf_putc(out, '\r');
        buf_putc(out, (char)in[i]);
    }
}
/* As grep --color, which marks a part of it. */
static void coloured(const unsigned char *in, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        buf_puts(out, i % 2 ? "\x1b[01;31m\x1b[K" : "\x1b[m");
        buf_putc(out, (char)in[i]);
    }
}
static void raw(const unsigned char *in, size_t len, struct buf *out)
{
    buf_append(out, in, len);
}

static const struct {
    const char *name;
    encoder *encode;
} encoders[] = {{"raw", raw},
                {"url", url},
                {"url, lower case", url_lower},
                {"form", url_form},
                {"url, every byte", url_all},
                {"url, twice", url_twice},
                {"JSON", json},
                {"JSON, ASCII", json_ascii},
                {"JSON, every byte", json_all},
                {"JSON in JSON", json_twice},
                {"JSON in JSON in JSON", json_thrice},
                {"shell", shell},
                {"shlex.quote", shell_python},
                {"printf %q", shell_q},
                {"C", c_hex},
                {"HTML", html},
                {"hex", hex},
                {"hex, upper case", hex_upper},
                {"hex, spaced", hex_spaced},
                {"od", hex_od},
                {"CRLF", crlf},
                {"coloured", coloured}};

static const char *const secrets[] = {
    "hunter22",
    "correct horse battery staple",
    "p@ss/w0rd+\"quoted\"'single'\\back\\\\slash<&>",
    "a.*[b-z]+(c|d)?$^{2}\\d",
    "Gr\xc3\xb6\xc3\x9f"
    "e \xe6\xa8\xa1\xe5\x9e\x8b \xf0\x9f\x9a\x80 key",
    "line one of it\nline two of it\n\tline three",
    "\x01\x02\x1f"
    "bin\x7f\xff\xfe\x80",
    "%41%42+%2F&amp;\\u0041\\n",
    "\\\\\\\\''''''\"\"\"\"\"\"",
    "AccountKey=Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmFyYmF6+/==",
};

static void test_forms(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) {
        struct masker *m = masker_new();
        size_t len = strlen(secrets[i]);
        masker_add(m, secrets[i], len);
        for (size_t k = 0; k < sizeof encoders / sizeof *encoders; k++) {
            struct buf in = BUF_INIT;
            buf_puts(&in, "<x=");
            encoders[k].encode((const unsigned char *)secrets[i], len, &in);
            buf_puts(&in, ";>");
            const char *out = text(m, in.data);
            if (strcmp(out, "<x=***;>") != 0 && strcmp(out, "<x=\x1b[m***;>") != 0)
                fail_msg("%s of '%s': %s -> %s", encoders[k].name, secrets[i], in.data, out);
            buf_free(&in);
        }
        masker_free(m);
    }
}

/* Every form of every secret, cut into two writes at each byte, and written byte by byte. */
static void test_forms_in_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) {
        struct masker *m = masker_new();
        size_t len = strlen(secrets[i]);
        masker_add(m, secrets[i], len);
        for (size_t k = 0; k < sizeof encoders / sizeof *encoders; k++) {
            struct buf in = BUF_INIT;
            buf_puts(&in, "before ");
            encoders[k].encode((const unsigned char *)secrets[i], len, &in);
            buf_puts(&in, "; after");
            cleanup_free char *want = mem_strdup(text(m, in.data));
            for (size_t cut = 0; cut <= in.len + 1; cut++) {
                struct buf tail = BUF_INIT, out = BUF_INIT;
                if (cut <= in.len) {
                    mask_stream(m, &tail, in.data, cut, &out);
                    mask_stream(m, &tail, in.data + cut, in.len - cut, &out);
                } else {
                    for (size_t at = 0; at < in.len; at++)
                        mask_stream(m, &tail, in.data + at, 1, &out);
                }
                mask_stream_end(m, &tail, &out);
                if (strcmp(out.data, want) != 0)
                    fail_msg("%s of '%s', cut at %zu: %s", encoders[k].name, secrets[i], cut,
                             out.data);
                buf_free(&tail);
                buf_free(&out);
            }
            buf_free(&in);
        }
        masker_free(m);
    }
}

/* Base64 as programs print it: lines of 76, of JSON, coloured, of the other alphabet, of a URL. */
static void test_base64_forms(void **state)
{
    static const char *const breaks[] = {"\n", "\r\n    ", "\\n", "\x1b[0m", "", ""};
    struct masker *m = masker_new();
    char secret[200];
    struct buf code = BUF_INIT;
    (void)state;
    for (size_t i = 0; i < sizeof secret; i++)
        secret[i] = (char)(i * 37 + 11);
    masker_add(m, secret, sizeof secret);
    encode64((const unsigned char *)secret, sizeof secret, &code);
    for (int form = 0; form < 6; form++) {
        struct buf in = BUF_INIT;
        for (size_t i = 0; i < code.len; i++) {
            char c = code.data[i];
            bool other = c == '+' || c == '/';
            if (i && i % 76 == 0)
                buf_puts(&in, breaks[form]);
            if (form == 4 && other)
                buf_putc(&in, c == '+' ? '-' : '_');
            else if (form == 5 && other)
                buf_printf(&in, "%%%02X", c);
            else
                buf_putc(&in, c);
        }
        /* The last digit before the padding holds two bits of the secret. */
        const char *out = text(m, in.data);
        if (strncmp(out, "***", 3) != 0 || strlen(out) != 5 || out[4] != '=')
            fail_msg("form %d: %s", form, out);
        buf_free(&in);
    }
    buf_free(&code);
    masker_free(m);
}

/* Of secrets that overlap nothing is left, and a cut one does not show its first half. */
static void test_overlaps_and_cuts(void **state)
{
    struct masker *m = masker_new();
    struct buf in = BUF_INIT, out = BUF_INIT, tail = BUF_INIT;
    (void)state;
    masker_add(m, "abcdefgh", 8);
    masker_add(m, "efghijkl", 8);
    masker_add(m, "ijklmnopqrst", 12);
    assert_string_equal(text(m, "<abcdefghijklmnopqrst>"), "<***>");
    assert_string_equal(text(m, "<abcdefghijkl><efgh>"), "<***><efgh>");
    masker_add(m, "aaaa", 4);
    for (int i = 0; i < 100000; i++)
        buf_putc(&in, 'a');
    assert_string_equal(text(m, in.data), "***");
    for (int i = 0; i < 40; i++)
        mask_stream(m, &tail, in.data, in.len, &out);
    mask_stream_end(m, &tail, &out);
    for (size_t i = 0; i < out.len; i++)
        assert_int_equal(out.data[i], '*');
    buf_free(&in);
    buf_free(&out);
    buf_free(&tail);
    masker_free(m);

    m = masker_new();
    masker_add(m, "0123456789-abcdefghij", 21);
    assert_string_equal(text(m, "message: 0123456789-abc"), "message: ***");
    assert_string_equal(text(m, "message: 012345"), "message: 012345");
    assert_string_equal(text(m, "message: 0123456789-abc!"), "message: 0123456789-abc!");
    masker_free(m);
}

/* A secret as long as they get, whole and in part. */
static void test_long(void **state)
{
    struct masker *m = masker_new();
    struct buf secret = BUF_INIT, in = BUF_INIT, out = BUF_INIT, tail = BUF_INIT;
    (void)state;
    for (unsigned i = 0; secret.len < MASK_LONGEST; i++)
        buf_printf(&secret, "%08x\"", i * 2654435761u);
    secret.len = MASK_LONGEST;
    secret.data[secret.len] = '\0';
    masker_add(m, secret.data, secret.len);
    buf_printf(&in, "<%s>", secret.data);
    assert_string_equal(text(m, in.data), "<***>");
    buf_clear(&in);
    json_twice((const unsigned char *)secret.data, secret.len, &in);
    assert_string_equal(text(m, in.data), "***");
    buf_clear(&in);
    encode64((const unsigned char *)secret.data, secret.len, &in);
    for (size_t at = 0; at < in.len; at += 4000)
        mask_stream(m, &tail, in.data + at, in.len - at < 4000 ? in.len - at : 4000, &out);
    mask_stream_end(m, &tail, &out);
    assert_memory_equal(out.data, "***", 3);
    assert_true(out.len <= 6);
    buf_clear(&in);
    buf_printf(&in, "head: %.*s, and more", 1000, secret.data);
    assert_string_equal(text(m, in.data), "head: ***, and more");
    buf_free(&secret);
    buf_free(&in);
    buf_free(&out);
    buf_free(&tail);
    masker_free(m);
}

/* Escapes alone are no secrets. */
static void test_no_false_ones(void **state)
{
    struct masker *m = masker_new();
    struct buf in = BUF_INIT;
    (void)state;
    masker_add(m, "hunter22", 8);
    for (int i = 0; i < 1000; i++)
        buf_printf(&in, "%% it's \"line\" \\n %d + %d &amp; \x1b[1m%%\x1b[0m\r\n", i, i);
    assert_string_equal(text(m, in.data), in.data);
    masker_add(m, "abc\n", 4); /* three bytes, and where they came from */
    assert_string_equal(text(m, "abc"), "abc");
    buf_free(&in);
    masker_free(m);
}

static void test_tail(void **state)
{
    struct masker *m = masker_new();
    struct buf out = BUF_INIT;
    (void)state;
    masker_add(m, "abababcdefgh-abababcdefgh-0123", 30);
    static const char *const cases[][2] = {
        {"bcdefgh-0123 and", "*** and"},
        {"-abababcdefgh-0123", "***"},
        {"gh-0123 and", "gh-0123 and"},
        {"abababcdefgh-0123x abababcdefgh-abababcdefgh-0123", "***x ***"},
        {"", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buf_clear(&out);
        mask_tail(m, cases[i][0], strlen(cases[i][0]), &out);
        assert_string_equal(out.data ? out.data : "", cases[i][1]);
    }
    buf_free(&out);
    masker_free(m);
}

static void test_holds(void **state)
{
    struct masker *m = masker_new();
    (void)state;
    masker_add(m, "hunter22", 8);
    masker_add(m, "user", 4);
    assert_true(masker_holds(m, "--password=hunter22", 19, 8));
    assert_false(masker_holds(m, "--user=user", 11, 8));
    assert_true(masker_holds(m, "--user=user", 11, 4));
    assert_false(masker_holds(m, "hunter2", 7, 4));
    masker_free(m);
}

/* Keys that many secrets are in, some behind a NUL. */
static void test_keys(void **state)
{
    struct masker *m = masker_new();
    struct value v = {0};
    (void)state;
    masker_add(m, "hunter22", 8);
    value_set_int(value_put_n(&v, "a\0hunter22", 10), 1);
    value_put_int(&v, "a", 2);
    for (int i = 0; i < 20000; i++) {
        char key[32];
        value_put_int(&v, (snprintf(key, sizeof key, "hunter22-%d", i), key), i);
    }
    mask_value(m, &v);
    assert_int_equal(value_count(&v), 20002);
    assert_memory_equal(v.as.map.pairs[0].key, "a\0***", 6);
    assert_int_equal(value_get_int(&v, "a", 0), 2);
    assert_int_equal(value_get_int(&v, "***-19999", 0), 19999);
    value_free(&v);
    masker_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_base64_alignments),
        cmocka_unit_test(test_other_forms),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_forms_in_pieces),
        cmocka_unit_test(test_base64_forms),
        cmocka_unit_test(test_overlaps_and_cuts),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_no_false_ones),
        cmocka_unit_test(test_holds),
        cmocka_unit_test(test_tail),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
