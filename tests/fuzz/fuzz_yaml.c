/*
 * YAML: one document or several. What is read, written and read again is the same value; aliases
 * cannot make more of a text than the limits allow.
 */
#include "fuzz.h"

static const struct text_limits small = {.bytes = 1 << 16, .depth = 64, .nodes = 5000};

static void count(const struct value *v, size_t depth, size_t *nodes, size_t *bytes)
{
    check(++*nodes <= small.nodes && depth <= small.depth);
    if (v->kind == VALUE_STRING)
        *bytes += v->as.string.len;
    for (size_t i = 0; v->kind == VALUE_ARRAY && i < v->as.array.count; i++)
        count(&v->as.array.items[i], depth + 1, nodes, bytes);
    for (size_t i = 0; v->kind == VALUE_MAP && i < v->as.map.count; i++) {
        *bytes += v->as.map.pairs[i].key_len;
        count(&v->as.map.pairs[i].value, depth + 1, nodes, bytes);
    }
}

static void again(const struct value *v)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value back = {0};
    struct error err = {0};

    value_to_yaml(v, &text);
    if (value_from_yaml(text.data, text.len, "again", NULL, false, &back, &err) < 0) {
        fprintf(stderr, "%s\n%.*s\n", err.message, (int)text.len, text.data);
        abort();
    }
    check(same_value(v, &back));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_value struct value all = {0};
    cleanup_value struct value one = {0};
    struct error err = {0}, second = {0};

    int status = value_from_yaml((const char *)data, size, "fuzz", &small, true, &all, &err);
    int single = value_from_yaml((const char *)data, size, "fuzz", &small, false, &one, &second);
    check_result(status, &err);
    check_result(single, &second);
    if (status < 0) {
        check(all.kind == VALUE_NIL && one.kind == VALUE_NIL);
        return 0;
    }
    check((single == 0) == (value_count(&all) <= 1) || second.code == ERR_TOO_LARGE);
    for (size_t i = 0; i < value_count(&all); i++) {
        size_t nodes = 0, bytes = 0;
        count(value_at(&all, i), 0, &nodes, &bytes);
        check(bytes <= 2 * small.bytes);
        again(value_at(&all, i));
    }
    return 0;
}
