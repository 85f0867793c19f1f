/*
 * JSON. What is read and written is the same value again, down to the kinds of its numbers; the
 * text of a text is that text; the limits hold. The quick reader of a VM agrees with this one:
 * fuzz_lua.c.
 */
#include "fuzz.h"

static const struct text_limits small = {.bytes = 1 << 16, .depth = 64, .nodes = 20000};

static void count(const struct value *v, size_t depth, size_t *nodes)
{
    check(++*nodes <= small.nodes && depth <= small.depth);
    for (size_t i = 0; v->kind == VALUE_ARRAY && i < v->as.array.count; i++)
        count(&v->as.array.items[i], depth + 1, nodes);
    for (size_t i = 0; v->kind == VALUE_MAP && i < v->as.map.count; i++)
        count(&v->as.map.pairs[i].value, depth + 1, nodes);
}

static void again(const struct value *v, unsigned flags)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value back = {0};
    struct error err = {0};

    value_to_json(v, flags, &text);
    check(text.len == strlen(text.data)); /* NUL is \u0000 */
    check(value_from_json(text.data, text.len, "again", NULL, &back, &err) == 0);
    if (flags & TEXT_SORTED) {
        cleanup_buf struct buf twice = BUF_INIT;
        check(value_equal(v, &back));
        value_to_json(&back, flags, &twice);
        check(twice.len == text.len && memcmp(twice.data, text.data, text.len) == 0);
    } else {
        check(same_value(v, &back));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_value struct value v = {0};
    struct error err = {0};
    size_t nodes = 0;

    int status = value_from_json((const char *)data, size, "fuzz", &small, &v, &err);
    check_result(status, &err);
    if (status < 0) {
        check(v.kind == VALUE_NIL && strncmp(err.message, "fuzz:", 5) == 0);
        return 0;
    }
    count(&v, 0, &nodes);
    again(&v, 0);
    again(&v, TEXT_SORTED);
    again(&v, TEXT_SORTED | TEXT_PRETTY);
    return 0;
}
