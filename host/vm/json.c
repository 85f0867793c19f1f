/*
 * JSON text <-> Lua without a value tree between, for what is in order: what is not (a duplicate
 * key, a number that is too large, anything that must be refused with a good message) is left to
 * the slower way over base/json.c, so there is one place that says what is allowed.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "vm/state.h"

#define DEEPEST 100
#define MOST    4000000u
#define KEYS    64 /* of a map that is written here */

/* ---- text -> Lua; what fails has left nothing behind that lua_settop does not take ---- */

struct text {
    lua_State *L;
    const char *at; /* ends with NUL, which is no JSON */
    unsigned left;  /* values that may still come */
};

static bool read_any(struct text *t, int depth);

static void skip_space(struct text *t)
{
    while (*t->at == ' ' || *t->at == '\n' || *t->at == '\r' || *t->at == '\t')
        t->at++;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool read_number(struct text *t)
{
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const char *start = t->at, *p = start + (*start == '-');
    uint64_t digits = 0;
    int count = 0, exponent = 0;
    bool real = false;

    if (!is_digit(*p) || (*p == '0' && is_digit(p[1])))
        return false;
    for (; is_digit(*p); p++, count++)
        digits = count < 19 ? digits * 10 + (uint64_t)(*p - '0') : digits;
    if (*p == '.') {
        real = true;
        if (!is_digit(*++p))
            return false;
        for (; is_digit(*p); p++, count++, exponent--)
            digits = count < 19 ? digits * 10 + (uint64_t)(*p - '0') : digits;
    }
    if (*p == 'e' || *p == 'E') {
        bool minus = *++p == '-';
        int given = 0;
        real = true;
        p += *p == '-' || *p == '+';
        if (!is_digit(*p))
            return false;
        for (; is_digit(*p); p++)
            given = given < 10000 ? given * 10 + (*p - '0') : given;
        exponent += minus ? -given : given;
    }
    t->at = p;
    if (!real) {
        if (count > 18)
            return false;
        lua_pushinteger(t->L, *start == '-' ? -(lua_Integer)digits : (lua_Integer)digits);
        return true;
    }
    double d;
    if (count <= 19 && digits <= UINT64_C(1) << 53 && exponent >= -22 && exponent <= 22) {
        /* both are exact, so the one operation rounds as strtod does */
        d = exponent < 0 ? (double)digits / tens[-exponent] : (double)digits * tens[exponent];
        d = *start == '-' ? -d : d;
    } else {
        d = strtod(start, NULL);
    }
    if (!isfinite(d))
        return false;
    lua_pushnumber(t->L, d);
    return true;
}

static bool read_text(struct text *t)
{
    const char *start = ++t->at, *p = start;

    while (*p != '"' && *p != '\\' && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x7f)
        p++;
    if (*p != '"')
        return false;
    lua_pushlstring(t->L, start, (size_t)(p - start));
    t->at = p + 1;
    return true;
}

/* How many items a list of scalars has; 0 when that is not seen at once. */
static int count_items(const char *p)
{
    int count = 1;

    for (; *p != ']'; p++) {
        if (*p == ',')
            count++;
        else if (*p == '[' || *p == '{' || *p == '"' || *p == '\0')
            return 0;
    }
    return count;
}

static bool read_list(struct text *t, int depth)
{
    t->at++;
    skip_space(t);
    if (*t->at == ']') {
        t->at++;
        lua_newtable(t->L);
        lua_rawgetp(t->L, LUA_REGISTRYINDEX, &vm_array_key);
        lua_setmetatable(t->L, -2);
        return true;
    }
    lua_createtable(t->L, count_items(t->at), 0);
    for (lua_Integer i = 1;; i++) {
        if (!read_any(t, depth))
            return false;
        lua_rawseti(t->L, -2, i);
        skip_space(t);
        char c = *t->at++;
        if (c == ']')
            return true;
        if (c != ',')
            return false;
    }
}

static bool read_map(struct text *t, int depth)
{
    t->at++;
    lua_createtable(t->L, 0, 4);
    skip_space(t);
    if (*t->at == '}') {
        t->at++;
        return true;
    }
    for (;;) {
        skip_space(t);
        if (*t->at != '"' || !read_text(t))
            return false;
        lua_pushvalue(t->L, -1);
        if (lua_rawget(t->L, -3) != LUA_TNIL)
            return false;
        lua_pop(t->L, 1);
        skip_space(t);
        if (*t->at++ != ':' || !read_any(t, depth))
            return false;
        lua_rawset(t->L, -3);
        skip_space(t);
        char c = *t->at++;
        if (c == '}')
            return true;
        if (c != ',')
            return false;
    }
}

static bool read_any(struct text *t, int depth)
{
    if (t->left-- == 0 || depth >= DEEPEST)
        return false;
    skip_space(t);
    switch (*t->at) {
    case '[':
        return lua_checkstack(t->L, 8) && read_list(t, depth + 1);
    case '{':
        return lua_checkstack(t->L, 8) && read_map(t, depth + 1);
    case '"':
        return read_text(t);
    case 't':
        if (strncmp(t->at, "true", 4) != 0)
            return false;
        t->at += 4;
        lua_pushboolean(t->L, true);
        return true;
    case 'f':
        if (strncmp(t->at, "false", 5) != 0)
            return false;
        t->at += 5;
        lua_pushboolean(t->L, false);
        return true;
    case 'n':
        if (strncmp(t->at, "null", 4) != 0)
            return false;
        t->at += 4;
        lua_pushlightuserdata(t->L, NULL);
        return true;
    default:
        return read_number(t);
    }
}

bool vm_json_read(lua_State *L, const char *text, size_t len)
{
    struct text t = {.L = L, .at = text, .left = MOST};
    int top = lua_gettop(L);

    if (lua_checkstack(L, 8) && read_any(&t, 0)) {
        skip_space(&t);
        if (t.at == text + len)
            return true;
    }
    lua_settop(L, top);
    return false;
}

/* ---- Lua -> text: raw access only, as in codec.c ---- */

static bool write_any(lua_State *L, int index, int depth, struct buf *out);

static bool write_list(lua_State *L, int index, lua_Integer count, int depth, struct buf *out)
{
    buf_putc(out, '[');
    for (lua_Integer i = 1; i <= count; i++) {
        if (i > 1)
            buf_putc(out, ',');
        if (lua_rawgeti(L, index, i) == LUA_TNIL || !write_any(L, index + 1, depth, out))
            return false;
        lua_pop(L, 1);
    }
    buf_putc(out, ']');
    /* nothing else may be in it */
    lua_pushinteger(L, count);
    return lua_next(L, index) == 0;
}

struct key {
    const char *text;
    size_t len;
};

static bool before(const struct key *a, const struct key *b)
{
    int order = memcmp(a->text, b->text, a->len < b->len ? a->len : b->len);

    return order ? order < 0 : a->len < b->len;
}

/* Keys in order, as everything that leaves the VM. */
static bool write_map(lua_State *L, int index, int depth, struct buf *out)
{
    struct key keys[KEYS];
    size_t count = 0;

    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        struct key key;
        if (lua_type(L, -2) != LUA_TSTRING || count == KEYS)
            return false;
        key.text = lua_tolstring(L, -2, &key.len); /* stays: the table has it */
        if (!json_key_fits(key.text, key.len))
            return false;
        size_t at = count++;
        for (; at && before(&key, &keys[at - 1]); at--)
            keys[at] = keys[at - 1];
        keys[at] = key;
    }
    if (!count) {
        bool list = false;
        if (lua_getmetatable(L, index)) {
            lua_rawgetp(L, LUA_REGISTRYINDEX, &vm_array_key);
            list = lua_rawequal(L, -1, -2);
            lua_pop(L, 2);
        }
        buf_puts(out, list ? "[]" : "{}");
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        buf_putc(out, i ? ',' : '{');
        json_print_text(keys[i].text, keys[i].len, out);
        buf_putc(out, ':');
        lua_pushlstring(L, keys[i].text, keys[i].len);
        lua_rawget(L, index);
        if (!write_any(L, index + 1, depth, out))
            return false;
        lua_pop(L, 1);
    }
    buf_putc(out, '}');
    return true;
}

static bool write_any(lua_State *L, int index, int depth, struct buf *out)
{
    char number[NUMBER_ROOM];
    const char *text;
    size_t len;

    switch (lua_type(L, index)) {
    case LUA_TNIL:
    case LUA_TLIGHTUSERDATA:
        buf_puts(out, "null");
        return true;
    case LUA_TBOOLEAN:
        buf_puts(out, lua_toboolean(L, index) ? "true" : "false");
        return true;
    case LUA_TNUMBER:
        if (lua_isinteger(L, index))
            buf_append(out, number, int_print(lua_tointeger(L, index), number));
        else
            json_print_real(lua_tonumber(L, index), out);
        return true;
    case LUA_TSTRING:
        text = lua_tolstring(L, index, &len);
        if (len > FRAME_MAX / 2)
            return false;
        json_print_text(text, len, out);
        return true;
    case LUA_TTABLE:
        len = lua_rawlen(L, index);
        if (depth >= DEEPEST || !lua_checkstack(L, 6))
            return false;
        return len ? write_list(L, index, (lua_Integer)len, depth + 1, out)
                   : write_map(L, index, depth + 1, out);
    default:
        return false;
    }
}

bool vm_json_write(lua_State *L, int index, struct buf *out)
{
    int top = lua_gettop(L);

    lua_pushvalue(L, index); /* so that what is written is always on top */
    bool whole = write_any(L, top + 1, 0, out);
    lua_settop(L, top);
    if (!whole)
        buf_clear(out);
    return whole;
}
