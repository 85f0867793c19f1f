/* Errors: what a script catches, and what leaves the VM when it does not. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm/state.h"

#define TEXT_MAX 65536 /* of each field that leaves the VM */

/* The host's own Lua is no place that a user can look at. */
static bool own(const char *chunk)
{
    return strncmp(chunk, VM_OWN_FOLDER, sizeof VM_OWN_FOLDER - 1) == 0;
}

bool vm_own_chunk(const char *source)
{
    return source[0] == '@' && own(source + 1);
}

static bool find_place(lua_State *L, char *file, size_t size, int *line)
{
    lua_Debug ar;

    for (int level = 0; lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "Sl", &ar);
        if (ar.currentline < 0 || (ar.source[0] != '@' && ar.source[0] != '=') ||
            own(ar.source + 1))
            continue;
        snprintf(file, size, "%s", ar.source + 1);
        *line = ar.currentline;
        return true;
    }
    return false;
}

void vm_where(lua_State *L, char *out, size_t size)
{
    char file[200];
    int line;

    if (find_place(L, file, sizeof file, &line))
        snprintf(out, size, "%s:%d", file, line);
    else
        out[0] = '\0';
}

/* Length of a "file:line: " prefix of text; 0 without one. */
static size_t prefix(const char *text, size_t *file_len, int *line)
{
    for (const char *colon = strchr(text, ':'); colon; colon = strchr(colon + 1, ':')) {
        if (strchr(text, '\n') && strchr(text, '\n') < colon)
            return 0;
        if (!isdigit((unsigned char)colon[1]))
            continue;
        char *end;
        long number = strtol(colon + 1, &end, 10);
        if (end[0] == ':' && end[1] == ' ' && number < 10000000) {
            *file_len = (size_t)(colon - text);
            *line = (int)number;
            return (size_t)(end + 2 - text);
        }
    }
    return 0;
}

static void set_text(lua_State *L, const char *key, const char *text)
{
    lua_pushstring(L, text);
    lua_setfield(L, -2, key);
}

static void set_place(lua_State *L, lua_State *from)
{
    char file[200];
    int line;

    if (find_place(from, file, sizeof file, &line)) {
        set_text(L, "file", file);
        lua_pushinteger(L, line);
        lua_setfield(L, -2, "line");
    }
}

/* Lines of a traceback that every script has: the base of a coroutine, the host's xpcall, error
 * itself. */
static bool plumbing(const char *line, size_t len)
{
    static const char *const names[] = {"in ?", "'xpcall'", "'error'"};

    if (strncmp(line, "[C]: ", 5) != 0)
        return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t name = strlen(names[i]);
        if (len >= name && memcmp(line + len - name, names[i], name) == 0)
            return true;
    }
    return false;
}

/* The traceback of `from` without the host's own frames and those of C below the script. */
static void push_traceback(lua_State *L, lua_State *from)
{
    luaL_traceback(L, from, NULL, L == from ? 1 : 0);
    const char *text = lua_tostring(L, -1);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (const char *line = text; *line;) {
        size_t len = strcspn(line, "\n");
        const char *name = line + (*line == '\t');
        if (*line == '\t' && !own(name) && !plumbing(name, len - 1)) {
            if (luaL_bufflen(&b))
                luaL_addchar(&b, '\n');
            luaL_addlstring(&b, name, len - 1);
        }
        line += len + (line[len] == '\n');
    }
    luaL_pushresult(&b);
    lua_remove(L, -2);
}

static void push_new(lua_State *L)
{
    lua_createtable(L, 0, 8);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &vm_error_key);
    lua_setmetatable(L, -2);
}

static bool is_object(lua_State *L, int index)
{
    if (!lua_istable(L, index) || !lua_getmetatable(L, index))
        return false;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &vm_error_key);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same;
}

static bool has(lua_State *L, int index, const char *key)
{
    index = lua_absindex(L, index);
    lua_pushstring(L, key);
    bool found = lua_rawget(L, index) != LUA_TNIL;
    lua_pop(L, 1);
    return found;
}

/* A text: its prefix becomes file and line, unless that is a place in the host's own Lua. */
static void from_text(lua_State *L, lua_State *from, int index)
{
    const char *text = lua_tostring(L, index);
    size_t file_len;
    int line;
    size_t skip = prefix(text, &file_len, &line);

    push_new(L);
    if (skip && !own(text)) {
        char file[200];
        int at;
        /* Lua shortens long names to "...end"; the stack has the whole one. */
        if (strncmp(text, "...", 3) == 0 && find_place(from, file, sizeof file, &at)) {
            set_text(L, "file", file);
        } else {
            lua_pushlstring(L, text, file_len);
            lua_setfield(L, -2, "file");
        }
        lua_pushinteger(L, line);
        lua_setfield(L, -2, "line");
    } else {
        set_place(L, from);
    }
    set_text(L, "code", "failed");
    set_text(L, "message", text + skip);
    struct vm *vm = vm_of(L);
    buf_clear(&vm->out);
    if (vm_absent_hint(text + skip, &vm->out))
        set_text(L, "hint", vm->out.data);
}

static void from_table(lua_State *L, lua_State *from, int index)
{
    static const char *const fields[] = {"service", "code",      "status", "message",
                                         "hint",    "retryable", "file",   "line"};

    push_new(L);
    if (has(L, index, "message")) {
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
            lua_pushstring(L, fields[i]);
            lua_rawget(L, index);
            lua_setfield(L, -2, fields[i]);
        }
        if (!has(L, -1, "code"))
            set_text(L, "code", "failed");
    } else {
        set_text(L, "code", "failed");
        luaL_tolstring(L, index, NULL);
        lua_setfield(L, -2, "message");
    }
    if (!has(L, -1, "file"))
        set_place(L, from);
}

void vm_push_error_object(lua_State *L, lua_State *from, int index)
{
    index = lua_absindex(L, index);
    luaL_checkstack(L, 12, "error");
    if (is_object(L, index)) {
        lua_pushvalue(L, index);
        if (!has(L, -1, "file"))
            set_place(L, from);
    } else if (lua_type(L, index) == LUA_TSTRING) {
        from_text(L, from, index);
    } else if (lua_istable(L, index)) {
        from_table(L, from, index);
    } else {
        push_new(L);
        set_text(L, "code", "failed");
        luaL_tolstring(L, index, NULL);
        lua_pushfstring(L, "(error object is %s %s)", luaL_typename(L, index), lua_tostring(L, -1));
        lua_setfield(L, -3, "message");
        lua_pop(L, 1);
        set_place(L, from);
    }
    if (!has(L, -1, "traceback")) {
        push_traceback(L, from);
        lua_setfield(L, -2, "traceback");
    }
}

int vm_message_handler(lua_State *L)
{
    vm_push_error_object(L, L, 1);
    return 1;
}

void vm_push_error(lua_State *L, const struct error *err)
{
    push_new(L);
    if (err->service[0])
        set_text(L, "service", err->service);
    set_text(L, "code", error_code_name(err->code));
    if (err->status) {
        lua_pushinteger(L, err->status);
        lua_setfield(L, -2, "status");
    }
    set_text(L, "message", err->message);
    if (err->hint[0])
        set_text(L, "hint", err->hint);
    lua_pushboolean(L, err->retryable);
    lua_setfield(L, -2, "retryable");
}

void vm_push_raised(lua_State *L, const struct error *err)
{
    vm_push_error(L, err);
    set_place(L, L);
}

int vm_raise(lua_State *L, const struct error *err)
{
    vm_push_raised(L, err);
    lua_error(L);
    abort();
}

/* ---- what leaves the VM ---- */

/* The script may have set any field to anything: only what is of the field's kind leaves. */
static void copy_field(lua_State *L, int index, const char *key, int kind, struct value *out)
{
    size_t len;
    int is_integer;

    lua_pushstring(L, key);
    if (lua_rawget(L, index) == kind && kind == LUA_TSTRING) {
        const char *text = lua_tolstring(L, -1, &len);
        value_set_bytes(value_put(out, key), text, len < TEXT_MAX ? len : TEXT_MAX);
    } else if (lua_type(L, -1) == kind && kind == LUA_TNUMBER) {
        lua_Integer number = lua_tointegerx(L, -1, &is_integer);
        if (is_integer)
            value_put_int(out, key, number);
    } else if (lua_type(L, -1) == kind) {
        value_put_bool(out, key, lua_toboolean(L, -1));
    }
    lua_pop(L, 1);
}

void vm_error_to_value(lua_State *L, int index, struct value *out)
{
    static const struct {
        const char *name;
        int kind;
    } fields[] = {
        {"service", LUA_TSTRING}, {"code", LUA_TSTRING},       {"status", LUA_TNUMBER},
        {"message", LUA_TSTRING}, {"hint", LUA_TSTRING},       {"file", LUA_TSTRING},
        {"line", LUA_TNUMBER},    {"retryable", LUA_TBOOLEAN}, {"traceback", LUA_TSTRING}};
    struct vm *vm = vm_of(L);

    index = lua_absindex(L, index);
    value_free(out);
    value_set_map(out);
    vm->budget.limit = SIZE_MAX; /* the report itself must not fail for want of memory */
    if (is_object(L, index)) {
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
            copy_field(L, index, fields[i].name, fields[i].kind, out);
        if (!value_get(out, "code"))
            value_put_string(out, "code", "failed");
        if (!value_get(out, "message"))
            value_put_string(out, "message", "(error object whose message is no text)");
        return;
    }
    const char *text = lua_type(L, index) == LUA_TSTRING ? lua_tostring(L, index) : "unknown error";
    bool memory = strcmp(text, "not enough memory") == 0;
    value_put_string(out, "code", memory ? "memory" : "failed");
    if (memory) {
        value_put_string(out, "message", "the script has used up its memory");
        value_put_string(out, "hint", "keep large data in files, or raise the limit with --memory");
    } else {
        value_put_string(out, "message", text);
    }
}
