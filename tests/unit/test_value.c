/* The tagged tree and its three forms: frames, JSON, YAML. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/value.h"

static void parse(const char *yaml, struct value *out)
{
    struct error err = {0};

    ok(value_from_yaml(yaml, strlen(yaml), "test.yaml", NULL, false, out, &err), err);
}

static void maps_keep_order_and_find_many_keys(void **state)
{
    (void)state;
    cleanup_value struct value map = {0};
    char key[16];

    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "k%d", i);
        value_put_int(&map, key, i);
    }
    value_put_int(&map, "k7", 700);
    assert_int_equal(value_count(&map), 500);
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(value_get_int(&map, key, -1), i == 7 ? 700 : i);
        assert_string_equal(map.as.map.pairs[i].key, key);
    }
    assert_null(value_get(&map, "k500"));
    assert_true(value_remove(&map, "k0"));
    assert_false(value_remove(&map, "k0"));
    assert_int_equal(value_get_int(&map, "k499", -1), 499);
}

static void frames_round_trip(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_value struct value v = {0}, back = {0};
    cleanup_buf struct buf bytes = BUF_INIT;

    parse("{a: [1, -2.5, true, null, 'x'], b: {c: 9007199254740993}}", &v);
    value_set_handle(value_put(&v, "h"), "secret", 42);
    value_set_bytes(value_put(&v, "nul"), "a\0b", 3);
    frame_append(&v, &bytes);
    frame_append(&v, &bytes);
    assert_int_equal(frame_take(&bytes, &back, &err), 1);
    assert_true(value_equal(&v, &back));
    value_free(&back);
    /* A frame in pieces is not there until its last byte is. */
    cleanup_buf struct buf part = BUF_INIT;
    for (size_t i = 0; i + 1 < bytes.len; i++) {
        buf_append(&part, bytes.data + i, 1);
        assert_int_equal(frame_take(&part, &back, &err), 0);
    }
    buf_append(&part, bytes.data + bytes.len - 1, 1);
    assert_int_equal(frame_take(&part, &back, &err), 1);
    assert_true(value_equal(&v, &back));
}

static void broken_frames_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_value struct value v = {0};
    static const struct {
        const char *bytes;
        size_t len;
        const char *says;
    } cases[] = {
        {"", 0, "ends in the middle"},
        {"z", 1, "unknown tag"},
        {"s\xff\xff\xff\x7f", 5, "middle of a string"},
        {"a\xff\xff\xff\x7f", 5, "count that its length cannot hold"},
        {"m\x01\0\0\0\xff\0\0\0n", 10, "middle of a key"},
        {"nn", 2, "bytes after"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        fails(value_decode(cases[i].bytes, cases[i].len, &v, &err), err, ERR_INVALID,
              cases[i].says);
    cleanup_buf struct buf deep = BUF_INIT;
    for (int i = 0; i < 300; i++)
        buf_append(&deep, "a\1\0\0\0", 5);
    buf_putc(&deep, 'n');
    fails(value_decode(deep.data, deep.len, &v, &err), err, ERR_INVALID, "nested too deeply");
    cleanup_buf struct buf huge = BUF_INIT;
    buf_append(&huge, "\xff\xff\xff\xff", 4);
    fails(frame_take(&huge, &v, &err), err, ERR_INVALID, "at most");
}

static void json_round_trips_and_names_the_place_of_an_error(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_value struct value v = {0}, back = {0};
    cleanup_buf struct buf text = BUF_INIT;
    const char *json = "{\"b\":[1,2.0,0.1,\"\\u00e9\\n\\u0000\"],\"a\":null,\"c\":-1e300}";

    ok(value_from_json(json, strlen(json), "x.json", NULL, &v, &err), err);
    value_to_json(&v, TEXT_SORTED, &text);
    assert_string_equal(text.data,
                        "{\"a\":null,\"b\":[1,2.0,0.1,\"\xc3\xa9\\n\\u0000\"],\"c\":-1e+300}");
    ok(value_from_json(text.data, text.len, "x.json", NULL, &back, &err), err);
    assert_true(value_equal(&v, &back));
    value_free(&back);
    fails(value_from_json("{\n \"a\": }", 9, "x.json", NULL, &back, &err), err, ERR_INVALID,
          "x.json:2:");
    fails(value_from_json("{\"a\":1,\"a\":2}", 13, "x.json", NULL, &back, &err), err, ERR_INVALID,
          "duplicate");
    struct text_limits small = {.depth = 2};
    fails(value_from_json("[[[[1]]]]", 9, "x.json", &small, &back, &err), err, ERR_TOO_LARGE,
          "nested deeper");
    struct value inf;
    value_set_real(&inf, -INFINITY);
    buf_clear(&text);
    value_to_json(&inf, 0, &text);
    assert_string_equal(text.data, "\"-Infinity\"");
}

/* A script's bytes and keys may be anything; a journal must be read again. */
static void json_is_always_json(void **state)
{
    struct value v = {0}, back;
    struct buf text = BUF_INIT;
    struct error err;

    (void)state;
    value_set_bytes(value_put(&v, "bytes"), "\xff\xc3\xa9\xe2\x82", 5);
    value_set_int(value_put_n(&v, "a\0b", 3), 1);
    value_put_int(&v, "\xfe", 2);
    value_put_int(&v, "\xff", 3);
    value_to_json(&v, TEXT_SORTED, &text);
    ok(value_from_json(text.data, text.len, "x", NULL, &back, &err), err);
    assert_string_equal(value_get_string(&back, "bytes", ""),
                        "\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd");
    assert_int_equal(value_get_int(&back,
                                   "a\xef\xbf\xbd"
                                   "b",
                                   0),
                     1);
    assert_int_equal(value_get_int(&back, "\xef\xbf\xbd", 0), 3);
    value_free(&v);
    value_free(&back);
    buf_free(&text);
}

static void yaml_follows_the_core_schema(void **state)
{
    (void)state;
    cleanup_value struct value v = {0};

    parse("int: 12\nhex: 0x1F\noct: 0o17\nreal: 1.5\nexp: 1e3\ninf: -.inf\nyes: yes\ntrue: "
          "True\nnull: ~\n"
          "text: '12'\ndate: 2026-01-01\nversion: 1.2.3\nsign: '+'\nplus: +\nempty:\nblock: |\n  "
          "a\n  b\nfold: >\n  a\n  b\n"
          "anchor: &x [1, {k: v}]\nalias: *x\nbig: 123456789012345678901234567890\n",
          &v);
    assert_int_equal(value_get_int(&v, "int", 0), 12);
    assert_int_equal(value_get_int(&v, "hex", 0), 31);
    assert_int_equal(value_get_int(&v, "oct", 0), 15);
    assert_true(value_get(&v, "exp")->kind == VALUE_REAL && value_get_real(&v, "exp", 0) > 999);
    assert_true(isinf(value_get_real(&v, "inf", 0)));
    assert_string_equal(value_get_string(&v, "yes", ""), "yes");
    assert_true(value_get_bool(&v, "true", false));
    assert_int_equal(value_get(&v, "null")->kind, VALUE_NIL);
    assert_int_equal(value_get(&v, "empty")->kind, VALUE_NIL);
    assert_string_equal(value_get_string(&v, "text", ""), "12");
    assert_string_equal(value_get_string(&v, "date", ""), "2026-01-01");
    assert_string_equal(value_get_string(&v, "version", ""), "1.2.3");
    assert_string_equal(value_get_string(&v, "plus", ""), "+");
    assert_string_equal(value_get_string(&v, "block", ""), "a\nb\n");
    assert_string_equal(value_get_string(&v, "fold", ""), "a b\n");
    assert_true(value_equal(value_get(&v, "anchor"), value_get(&v, "alias")));
    assert_int_equal(value_get(&v, "big")->kind, VALUE_REAL);
}

static void yaml_bombs_and_mistakes_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_value struct value v = {0};
    cleanup_buf struct buf bomb = BUF_INIT;

    buf_puts(&bomb, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 12; i++) {
        buf_printf(&bomb, "a%d: &a%d [", i, i);
        for (int j = 0; j < 10; j++)
            buf_printf(&bomb, "%s*a%d", j ? ", " : "", i - 1);
        buf_puts(&bomb, "]\n");
    }
    fails(value_from_yaml(bomb.data, bomb.len, "b.yaml", NULL, false, &v, &err), err, ERR_TOO_LARGE,
          "b.yaml:");
    fails(value_from_yaml("a: 1\nb: [1,\n", 12, "b.yaml", NULL, false, &v, &err), err, ERR_INVALID,
          "b.yaml:");
    fails(value_from_yaml("a: 1\na: 2\n", 10, "b.yaml", NULL, false, &v, &err), err, ERR_INVALID,
          "b.yaml:2:1: duplicate key 'a'");
    fails(value_from_yaml("*x", 2, "b.yaml", NULL, false, &v, &err), err, ERR_INVALID,
          "unknown alias");
    fails(value_from_yaml("a\n---\nb\n", 8, "b.yaml", NULL, false, &v, &err), err, ERR_INVALID,
          "second document");
    cleanup_buf struct buf deep = BUF_INIT;
    for (int i = 0; i < 1000; i++)
        buf_putc(&deep, '[');
    fails(value_from_yaml(deep.data, deep.len, "b.yaml", NULL, false, &v, &err), err, ERR_TOO_LARGE,
          "nested");
    ok(value_from_yaml("a\n---\nb\n", 8, "b.yaml", NULL, true, &v, &err), err);
    assert_int_equal(value_count(&v), 2);
}

/* An alias costs what it copies: text, values and levels; so does an anchor in an anchor. */
static void yaml_aliases_cost_what_they_copy(void **state)
{
    static const struct text_limits limits = {.bytes = 20000, .depth = 50, .nodes = 3000};
    struct buf text = BUF_INIT;
    struct value v;
    struct error err;

    (void)state;
    buf_printf(&text, "- &a x%0*d\n", 9000, 1);
    for (int i = 0; i < 100; i++)
        buf_puts(&text, "- *a\n");
    fails(value_from_yaml(text.data, text.len, "b.yaml", &limits, false, &v, &err), err,
          ERR_TOO_LARGE, "b.yaml:");
    buf_clear(&text);
    buf_puts(&text, "- &a0 [x]\n");
    for (int i = 0; i < 60; i++)
        buf_printf(&text, "- &a%d [*a%d]\n", i + 1, i);
    fails(value_from_yaml(text.data, text.len, "b.yaml", &limits, false, &v, &err), err,
          ERR_TOO_LARGE, "nested too deeply");
    buf_clear(&text);
    for (int i = 0; i < 40; i++)
        buf_printf(&text, "&a%d [", i);
    for (int i = 0; i < 1000; i++)
        buf_puts(&text, "x,");
    for (int i = 0; i < 40; i++)
        buf_putc(&text, ']');
    fails(value_from_yaml(text.data, text.len, "b.yaml", &limits, false, &v, &err), err,
          ERR_TOO_LARGE, "b.yaml:");
    buf_clear(&text); /* ten thousand names are found as quickly as ten */
    for (int i = 0; i < 10000; i++)
        buf_printf(&text, "- &a%d x\n- *a%d\n", i, i / 2);
    ok(value_from_yaml(text.data, text.len, "b.yaml", NULL, false, &v, &err), err);
    value_free(&v);
    buf_free(&text);
}

static void same_after_yaml(struct value *v)
{
    struct buf text = BUF_INIT;
    struct value back = {0};

    value_to_yaml(v, &text);
    parse(text.data, &back);
    assert_true(value_equal(v, &back));
    value_free(&back);
    value_free(v);
    buf_free(&text);
}

static void yaml_writes_what_it_can_read(void **state)
{
    struct value v = {0};
    char key[3000];

    (void)state;
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    value_set_map(&v);
    value_put_string(&v, key, "a key of more than 1024 characters");
    value_put_string(&v, "c1",
                     "\xc2\x80\xc2\x85 \xe2\x80\xa8\xe2\x80\xa9 \xef\xbb\xbf\xef\xbf\xbe");
    value_put_real(&v, "infinite", -INFINITY);
    value_set_bytes(value_put(&v, "zero"), "a\0b", 3);
    value_set_int(value_put_n(&v, "a\0b", 3), 1);
    value_set_int(value_put_n(&v, "a\0c", 3), 2);
    same_after_yaml(&v);
}

static void yaml_written_is_yaml_read(void **state)
{
    (void)state;
    cleanup_value struct value v = {0}, back = {0};
    cleanup_buf struct buf text = BUF_INIT;

    parse("{a: ['yes', '1e3', '0x1', 'x: y', '', ' lead', 'trail ', \"l1\\nl2\", '- x', 'null', "
          "'~', 'a#b'], "
          "b: {c: [], d: {}, e: [[1, [2]], {f: g}]}, 'k: 1': -0.5, t: true, n: null}",
          &v);
    value_to_yaml(&v, &text);
    parse(text.data, &back);
    assert_true(value_equal(&v, &back));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_keep_order_and_find_many_keys),
        cmocka_unit_test(frames_round_trip),
        cmocka_unit_test(broken_frames_are_refused),
        cmocka_unit_test(json_round_trips_and_names_the_place_of_an_error),
        cmocka_unit_test(json_is_always_json),
        cmocka_unit_test(yaml_follows_the_core_schema),
        cmocka_unit_test(yaml_bombs_and_mistakes_are_refused),
        cmocka_unit_test(yaml_aliases_cost_what_they_copy),
        cmocka_unit_test(yaml_writes_what_it_can_read),
        cmocka_unit_test(yaml_written_is_yaml_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
