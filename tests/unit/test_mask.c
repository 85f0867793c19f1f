/* Secrets never leave in a form that this looks for, however the text is cut. */
#include <stdio.h>
#include <stdlib.h>

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
        cmocka_unit_test(test_plain),       cmocka_unit_test(test_base64_alignments),
        cmocka_unit_test(test_other_forms), cmocka_unit_test(test_lines),
        cmocka_unit_test(test_streams),     cmocka_unit_test(test_values),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
