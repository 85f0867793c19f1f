/* SeldonMessages: what the executor itself reads and writes of them. */
#include "local/seldon_graph.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

void seldon_message_free(struct seldon_message *message)
{
    buf_free(&message->body);
    value_free(&message->tree);
    http_headers_free(&message->headers);
}

void seldon_message_text(struct seldon_message *message, struct buf *out)
{
    if (message->tree.kind == VALUE_NIL)
        buf_append(out, message->body.data ? message->body.data : "", message->body.len);
    else
        value_to_json(&message->tree, 0, out);
}

/* ---- meta ---- */

static struct value *map_at(struct value *map, const char *key)
{
    struct value *found = value_get(map, key);

    if (found && found->kind == VALUE_MAP)
        return found;
    found = value_put(map, key);
    value_set_map(found);
    return found;
}

void seldon_meta_merge(struct value *message, const struct value *from)
{
    static const char *const maps[] = {"tags", "requestPath", "routing"};
    const struct value *puid = value_get(from, "puid");

    if (!from || from->kind != VALUE_MAP || message->kind != VALUE_MAP)
        return;
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        const struct value *theirs = value_get(from, maps[i]);
        if (!theirs || theirs->kind != VALUE_MAP || !theirs->as.map.count)
            continue;
        struct value *ours = map_at(map_at(message, "meta"), maps[i]);
        for (size_t k = 0; k < theirs->as.map.count; k++) {
            const struct value_pair *pair = &theirs->as.map.pairs[k];
            if (!value_get(ours, pair->key))
                value_copy(value_put_n(ours, pair->key, pair->key_len), &pair->value);
        }
    }
    if (puid && !value_get(map_at(message, "meta"), "puid"))
        value_copy(value_put(map_at(message, "meta"), "puid"), puid);
}

/* ---- data ---- */

static const struct value *first_number(const struct value *list)
{
    while (list && list->kind == VALUE_ARRAY)
        list = value_at(list, 0);
    return list && (list->kind == VALUE_INT || list->kind == VALUE_REAL) ? list : NULL;
}

static double number_of(const struct value *v)
{
    return v->kind == VALUE_INT ? (double)v->as.integer : v->as.real;
}

int seldon_branch(const struct value *reply, int *branch, struct error *err)
{
    const struct value *data = value_get(reply, "data");
    const struct value *number = reply->kind == VALUE_ARRAY ? first_number(reply) : NULL;

    if (!number)
        number = first_number(value_get(data, "ndarray"));
    if (!number)
        number = first_number(value_path(data, "tensor.values"));
    if (!number || !(fabs(number_of(number)) < 1e6))
        return error_set(err, ERR_INVALID,
                         "the router's reply names no branch: data.ndarray [[n]] or a list [n] is "
                         "expected, -1 for all children, -2 for none");
    *branch = (int)number_of(number);
    return 0;
}

/* Adds `from` to `sum`, both of the same shape. */
static int add(struct value *sum, const struct value *from, double factor, struct error *err)
{
    if (sum->kind == VALUE_ARRAY && from->kind == VALUE_ARRAY &&
        value_count(sum) == value_count(from)) {
        for (size_t i = 0; i < value_count(sum); i++) {
            if (add(value_at(sum, i), value_at(from, i), factor, err) < 0)
                return -1;
        }
        return 0;
    }
    if ((sum->kind != VALUE_INT && sum->kind != VALUE_REAL) ||
        (from->kind != VALUE_INT && from->kind != VALUE_REAL))
        return error_set(err, ERR_INVALID,
                         "the children's replies cannot be averaged: they are not numbers of the "
                         "same shape");
    double total = number_of(sum) + number_of(from) * factor;
    value_free(sum);
    value_set_real(sum, total);
    return 0;
}

static struct value *numbers_of(const struct value *message)
{
    struct value *found = value_path(message, "data.ndarray");

    return found ? found : value_path(message, "data.tensor.values");
}

static int scale(struct value *v, double factor, struct error *err)
{
    if (v->kind == VALUE_ARRAY) {
        for (size_t i = 0; i < value_count(v); i++) {
            if (scale(value_at(v, i), factor, err) < 0)
                return -1;
        }
        return 0;
    }
    if (v->kind != VALUE_INT && v->kind != VALUE_REAL)
        return error_set(err, ERR_INVALID, "the children's replies hold a %s, not only numbers",
                         value_kind_name(v));
    double scaled = number_of(v) * factor;
    value_free(v);
    value_set_real(v, scaled);
    return 0;
}

int seldon_average(const struct value *replies, struct value *out, struct error *err)
{
    size_t count = value_count(replies);
    double share = 1.0 / (double)count;

    value_copy(out, value_at(replies, 0));
    struct value *mean = numbers_of(out);
    if (!mean)
        return error_set(err, ERR_INVALID,
                         "the first child's reply has neither data.ndarray nor data.tensor");
    if (scale(mean, share, err) < 0)
        return -1;
    for (size_t i = 1; i < count; i++) {
        const struct value *one = numbers_of(value_at(replies, i));
        if (!one)
            return error_set(err, ERR_INVALID, "the reply of child %zu has no numbers", i + 1);
        if (add(mean, one, share, err) < 0)
            return -1;
    }
    return 0;
}

void seldon_simple_model(struct value *out)
{
    static const double values[] = {0.1, 0.9, 0.5};
    static const char *const names[] = {"class0", "class1", "class2"};

    value_set_map(out);
    struct value *data = map_at(out, "data");
    struct value *list = value_put(data, "names");
    value_set_array(list);
    for (size_t i = 0; i < 3; i++)
        value_push_string(list, names[i]);
    struct value *tensor = map_at(data, "tensor");
    struct value *shape = value_put(tensor, "shape");
    value_set_array(shape);
    value_set_int(value_push(shape), 1);
    value_set_int(value_push(shape), 3);
    struct value *numbers = value_put(tensor, "values");
    value_set_array(numbers);
    for (size_t i = 0; i < 3; i++)
        value_set_real(value_push(numbers), values[i]);
}

void seldon_chain_v2(struct value *message)
{
    struct value *outputs = value_get(message, "outputs");
    struct value inputs = {0};

    if (!outputs)
        return;
    value_move(&inputs, outputs);
    value_remove(message, "outputs");
    value_remove(message, "model_name");
    value_remove(message, "model_version");
    value_move(value_put(message, "inputs"), &inputs);
}
