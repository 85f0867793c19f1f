/*
 * Frames between our own processes, of which the VM's may be hostile. What is decoded is encoded to
 * the same bytes (unless a key came twice); a stream of frames is the same however it is cut; what
 * else reads such a value does not mind which one it is.
 */
#include "fuzz.h"

#include "base/signature.h"
#include "broker/mask.h"

static void encoded_again(const struct value *v, size_t size)
{
    cleanup_buf struct buf bytes = BUF_INIT;
    cleanup_value struct value back = {0};
    struct error err = {0};

    value_encode(v, &bytes);
    check(bytes.len <= size);
    check(value_decode(bytes.data, bytes.len, &back, &err) == 0);
    check(same_value(v, &back));
}

/* All frames of a stream that comes in two pieces. */
static int take_all(const char *data, size_t size, size_t cut, struct value *out)
{
    cleanup_buf struct buf in = BUF_INIT;
    struct error err = {0};
    int taken = 0;

    value_set_array(out);
    for (int piece = 0; piece < 2; piece++) {
        if (piece)
            buf_append(&in, data + cut, size - cut);
        else
            buf_append(&in, data, cut);
        struct value one = {0};
        while ((taken = frame_take(&in, &one, &err)) == 1) {
            value_move(value_push(out), &one);
            one = (struct value){0};
        }
        check((taken < 0) == (err.code != ERR_NONE));
        if (taken < 0)
            return -1;
    }
    return 0;
}

static void stream(const char *data, size_t size, size_t cut)
{
    cleanup_value struct value whole = {0};
    cleanup_value struct value pieces = {0};

    int a = take_all(data, size, size, &whole);
    int b = take_all(data, size, cut % (size + 1), &pieces);
    check(a == b && same_value(&whole, &pieces));
}

static bool holds(const struct value *v, const char *text)
{
    bool found =
        v->kind == VALUE_STRING && memmem(v->as.string.data, v->as.string.len, text, strlen(text));

    for (size_t i = 0; v->kind == VALUE_ARRAY && i < v->as.array.count; i++)
        found = found || holds(&v->as.array.items[i], text);
    for (size_t i = 0; v->kind == VALUE_MAP && i < v->as.map.count; i++) {
        const struct value_pair *pair = &v->as.map.pairs[i];
        found = found || memmem(pair->key, pair->key_len, text, strlen(text)) ||
                holds(&pair->value, text);
    }
    return found;
}

/* The secret is nowhere in what goes on to the supervisor. */
static void masked(const struct value *v)
{
    cleanup_value struct value copy = {0};
    struct masker *masker = masker_new();

    value_copy(&copy, v);
    masker_add(masker, "SECR", 4);
    mask_value(masker, &copy);
    check(!holds(&copy, "SECR"));
    masker_free(masker);
}

/* As the journal has it, and `mlhost logs` reads it. */
static void as_json(const struct value *v)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_buf struct buf twice = BUF_INIT;
    cleanup_value struct value back = {0};
    struct error err = {0};

    value_to_json(v, 0, &text);
    check(value_from_json(text.data, text.len, "again", NULL, &back, &err) == 0);
    value_to_json(&back, 0, &twice);
    check(text.len == twice.len && memcmp(text.data, twice.data, text.len) == 0);
}

static void as_arguments(const struct value *v)
{
    static const struct signature signatures[] = {
        {"fuzz.one", "a:string b:int? c:path?", "", ""},
        {"fuzz.two", "a:secret b:map? c:array? d:duration?", "", ""},
        {"fuzz.three", "a:image b:any? c:bool?", "", ""},
    };
    static const char *const needed[] = {"string", "secret", "image"};

    for (size_t i = 0; i < sizeof signatures / sizeof *signatures; i++) {
        struct error err = {0};
        int status = signature_check(&signatures[i], v, &err);
        check_result(status, &err);
        const struct value *a = value_get(v, "a");
        if (status == 0)
            check(a && (strcmp(value_kind_name(a), needed[i]) == 0 || a->kind == VALUE_HANDLE ||
                        (i == 1 && a->kind == VALUE_STRING)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_value struct value v = {0};
    struct error err = {0};

    if (size < 1)
        return 0;
    const char *body = (const char *)data + 1;
    if (data[0] & 1) {
        stream(body, size - 1, data[0]);
        return 0;
    }
    int status = value_decode(body, size - 1, &v, &err);
    check_result(status, &err);
    if (status < 0)
        return 0;
    encoded_again(&v, size - 1);
    masked(&v);
    as_json(&v);
    as_arguments(&v);
    return 0;
}
