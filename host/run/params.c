#include "run/params.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/mem.h"

#define PARAMS_FILE_MAX (1u << 20)

static const char *const types[] = {"string", "int", "number", "bool", "list"};

/* A declaration is a table with one of the known keys; anything else is the default itself. */
static bool is_spec(const struct value *v)
{
    static const char *const keys[] = {"type", "default", "choices", "required", "description"};

    if (v->kind != VALUE_MAP)
        return false;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (value_get(v, keys[i]))
            return true;
    }
    return v->as.map.count == 0;
}

static const char *type_of(const struct value *declared)
{
    const struct value *otherwise = is_spec(declared) ? value_get(declared, "default") : declared;
    const char *type = is_spec(declared) ? value_get_string(declared, "type", NULL) : NULL;

    if (type)
        return type;
    switch (otherwise ? otherwise->kind : VALUE_NIL) {
    case VALUE_BOOL:
        return "bool";
    case VALUE_INT:
        return "int";
    case VALUE_REAL:
        return "number";
    case VALUE_ARRAY:
        return "list";
    default:
        return "string";
    }
}

static int not_a(const char *name, const char *type, const char *text, struct error *err)
{
    static const struct {
        const char *type, *forms;
    } forms[] = {{"int", "a whole number"},
                 {"number", "a number"},
                 {"bool", "true or false"},
                 {"list", "a,b,c or a JSON array"}};

    error_set(err, ERR_USAGE, "parameter '%s' must be of type %s, not '%s'", name, type, text);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (strcmp(forms[i].type, type) == 0)
            error_hint(err, "give %s: --param %s=...", forms[i].forms, name);
    }
    return -1;
}

static int list_from_text(const char *name, const char *text, struct value *out, struct error *err)
{
    if (text[0] == '[') {
        struct error parse = {0};
        if (value_from_json(text, strlen(text), name, NULL, out, &parse) < 0 ||
            out->kind != VALUE_ARRAY)
            return not_a(name, "list", text, err);
        return 0;
    }
    value_set_array(out);
    while (*text) {
        size_t len = strcspn(text, ",");
        value_set_bytes(value_push(out), text, len);
        text += len + (text[len] == ',');
    }
    return 0;
}

static int from_text(const char *name, const char *type, const char *text, struct value *out,
                     struct error *err)
{
    char *end = NULL;

    errno = 0;
    if (strcmp(type, "string") == 0) {
        value_set_string(out, text);
    } else if (strcmp(type, "int") == 0) {
        long long n = strtoll(text, &end, 10);
        if (errno || end == text || *end)
            return not_a(name, type, text, err);
        value_set_int(out, n);
    } else if (strcmp(type, "number") == 0) {
        double d = strtod(text, &end);
        if (errno || end == text || *end || !isfinite(d))
            return not_a(name, type, text, err);
        value_set_real(out, d);
    } else if (strcmp(type, "bool") == 0) {
        bool yes = strcmp(text, "true") == 0 || strcmp(text, "yes") == 0 || strcmp(text, "1") == 0;
        if (!yes && strcmp(text, "false") != 0 && strcmp(text, "no") != 0 && strcmp(text, "0") != 0)
            return not_a(name, type, text, err);
        value_set_bool(out, yes);
    } else {
        return list_from_text(name, text, out, err);
    }
    return 0;
}

static int check_type(const char *name, const char *type, const struct value *v, struct error *err)
{
    bool fits = (strcmp(type, "string") == 0 && v->kind == VALUE_STRING) ||
                (strcmp(type, "int") == 0 && v->kind == VALUE_INT) ||
                (strcmp(type, "number") == 0 && (v->kind == VALUE_INT || v->kind == VALUE_REAL)) ||
                (strcmp(type, "bool") == 0 && v->kind == VALUE_BOOL) ||
                (strcmp(type, "list") == 0 && v->kind == VALUE_ARRAY);
    if (fits)
        return 0;
    cleanup_buf struct buf text = BUF_INIT;
    value_to_json(v, 0, &text);
    return not_a(name, type, text.data, err);
}

static int check_choices(const char *name, const struct value *choices, const struct value *v,
                         struct error *err)
{
    cleanup_buf struct buf allowed = BUF_INIT;
    cleanup_buf struct buf given = BUF_INIT;

    if (value_count(choices) == 0)
        return 0;
    for (size_t i = 0; i < value_count(choices); i++) {
        if (value_equal(value_at(choices, i), v))
            return 0;
        if (i)
            buf_puts(&allowed, ", ");
        value_to_json(value_at(choices, i), 0, &allowed);
    }
    value_to_json(v, 0, &given);
    error_set(err, ERR_USAGE, "parameter '%s' is %s; allowed: %s", name, given.data, allowed.data);
    if (v->kind == VALUE_STRING) {
        const char *names[64];
        size_t count = 0;
        for (size_t i = 0; i < value_count(choices) && count < 64; i++) {
            if (value_at(choices, i)->kind == VALUE_STRING)
                names[count++] = value_at(choices, i)->as.string.data;
        }
        const char *near = near_miss(v->as.string.data, names, count);
        if (near)
            error_hint(err, "did you mean '%s'?", near);
    }
    return -1;
}

static int unknown(const struct value *declared, const char *name, struct error *err)
{
    const char *names[256];
    size_t count = 0;
    cleanup_buf struct buf list = BUF_INIT;

    for (size_t i = 0; i < value_count(declared) && count < 256 && declared->kind == VALUE_MAP;
         i++) {
        names[count] = declared->as.map.pairs[i].key;
        buf_printf(&list, "%s%s", count ? ", " : "", names[count]);
        count++;
    }
    const char *near = near_miss(name, names, count);
    error_set(err, ERR_USAGE, "the pipeline has no parameter '%s'", name);
    if (near)
        error_hint(err, "did you mean '%s'?", near);
    else if (count)
        error_hint(err, "it has: %s", list.data);
    else
        error_hint(err, "declare it: pipeline \"name\" { params = { %s = \"default\" } }", name);
    return -1;
}

static int check_known(const struct value *declared, const char *const *texts, size_t count,
                       const struct value *file, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        const char *equals = strchr(texts[i], '=');
        if (!equals || equals == texts[i]) {
            error_set(err, ERR_USAGE, "--param %s: a parameter is written name=value", texts[i]);
            error_hint(err, "--param epochs=20");
            return -1;
        }
        cleanup_free char *name = mem_strndup(texts[i], (size_t)(equals - texts[i]));
        if (!value_get(declared, name))
            return unknown(declared, name, err);
    }
    for (size_t i = 0; file && file->kind == VALUE_MAP && i < file->as.map.count; i++) {
        if (!value_get(declared, file->as.map.pairs[i].key))
            return unknown(declared, file->as.map.pairs[i].key, err);
    }
    return 0;
}

static int resolve_one(const char *name, const struct value *declared, const char *text,
                       const struct value *given, struct value *out, struct error *err)
{
    bool spec = is_spec(declared);
    const char *type = type_of(declared);
    bool known = false;
    struct value v = {0};

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        known = known || strcmp(types[i], type) == 0;
    if (!known) {
        error_set(err, ERR_INVALID, "parameter '%s': unknown type '%s'", name, type);
        return error_hint(err, "types are string, int, number, bool and list");
    }
    const struct value *otherwise = spec ? value_get(declared, "default") : declared;
    if (text) {
        if (from_text(name, type, text, &v, err) < 0)
            return -1;
    } else if (given) {
        value_copy(&v, given);
    } else if (otherwise && otherwise->kind != VALUE_NIL) {
        value_copy(&v, otherwise);
    } else if (spec && value_get_bool(declared, "required", false)) {
        error_set(err, ERR_USAGE, "parameter '%s' (%s) is required", name, type);
        return error_hint(err, "give it: --param %s=...", name);
    } else {
        return 0;
    }
    if (check_type(name, type, &v, err) < 0 ||
        (spec && check_choices(name, value_get(declared, "choices"), &v, err) < 0)) {
        value_free(&v);
        return -1;
    }
    value_move(value_put(out, name), &v);
    return 0;
}

int params_resolve(const struct value *declared, const char *const *texts, size_t count,
                   const struct value *file, struct value *out, struct error *err)
{
    value_set_map(out);
    if (check_known(declared, texts, count, file, err) < 0)
        return -1;
    for (size_t i = 0; declared && declared->kind == VALUE_MAP && i < declared->as.map.count; i++) {
        const struct value_pair *pair = &declared->as.map.pairs[i];
        const char *text = NULL;
        for (size_t k = 0; k < count; k++) {
            if (strncmp(texts[k], pair->key, pair->key_len) == 0 && texts[k][pair->key_len] == '=')
                text = texts[k] + pair->key_len + 1;
        }
        if (resolve_one(pair->key, &pair->value, text, value_get(file, pair->key), out, err) < 0) {
            value_free(out);
            return -1;
        }
    }
    return 0;
}

int params_file(const char *path, struct value *out, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    size_t len = strlen(path);
    int rc;

    if (file_read(AT_FDCWD, path, PARAMS_FILE_MAX, &text, err) < 0)
        return -1;
    if (len > 5 && strcmp(path + len - 5, ".json") == 0)
        rc = value_from_json(text.data, text.len, path, NULL, out, err);
    else
        rc = value_from_yaml(text.data ? text.data : "", text.len, path, NULL, false, out, err);
    if (rc < 0)
        return -1;
    if (out->kind != VALUE_MAP) {
        value_free(out);
        error_set(err, ERR_USAGE, "%s: must be a map of parameter: value", path);
        return -1;
    }
    return 0;
}
