#include "vm/vm.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "sandbox/sandbox.h"
#include "vm/state.h"

#define DEFAULT_MEMORY (512u << 20)

static int panic(lua_State *L)
{
    (void)L;
    _exit(70);
}

/* ---- the error object's methods ---- */

static int error_text(lua_State *L)
{
    luaL_Buffer b;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_getfield(L, 1, "file");
    lua_getfield(L, 1, "line");
    lua_getfield(L, 1, "service");
    lua_getfield(L, 1, "message");
    lua_getfield(L, 1, "hint");
    luaL_buffinit(L, &b);
    if (lua_isstring(L, 2) && lua_isinteger(L, 3)) {
        lua_pushfstring(L, "%s:%d: ", lua_tostring(L, 2), (int)lua_tointeger(L, 3));
        luaL_addvalue(&b);
    }
    if (lua_isstring(L, 4)) {
        luaL_addstring(&b, lua_tostring(L, 4));
        luaL_addstring(&b, ": ");
    }
    luaL_addstring(&b, lua_isstring(L, 5) ? lua_tostring(L, 5) : "error");
    if (lua_isstring(L, 6)) {
        luaL_addstring(&b, "\n  hint: ");
        luaL_addstring(&b, lua_tostring(L, 6));
    }
    luaL_pushresult(&b);
    return 1;
}

static int error_concat(lua_State *L)
{
    luaL_tolstring(L, 1, NULL);
    luaL_tolstring(L, 2, NULL);
    lua_concat(L, 2);
    return 1;
}

static void open_errors(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"__tostring", error_text}, {"__concat", error_concat}, {NULL, NULL}};

    luaL_newlib(L, methods);
    lua_pushliteral(L, "error");
    lua_setfield(L, -2, "__name");
    lua_pushliteral(L, "error");
    lua_setfield(L, -2, "__metatable");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &vm_error_key);
}

/* new_error{ code =, message =, ... } -> an error object; the table itself */
static int new_error(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &vm_error_key);
    lua_setmetatable(L, 1);
    return 1;
}

/* load(text, chunk name) -> function, or nil and an error object with file and line */
static int load_chunk(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    const char *name = luaL_checkstring(L, 2);

    if (vm_load_text(L, text, len, name) == LUA_OK)
        return 1;
    vm_push_error_object(L, L, -1);
    lua_pushliteral(L, "invalid");
    lua_setfield(L, -2, "code");
    lua_pushnil(L);
    lua_setfield(L, -2, "traceback");
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
}

/* receive() -> the next frame that is no reply (REPL) */
static int receive(lua_State *L)
{
    struct vm *vm = vm_of(L);

    do
        vm_receive(vm, &vm->frame);
    while (strcmp(value_get_string(&vm->frame, "t", ""), "reply") == 0);
    vm->stop = 0;
    vm_push_value(L, &vm->frame);
    value_free(&vm->frame);
    return 1;
}

/* What the broker would take for garbage. */
static bool too_large(struct vm *vm, const struct value *frame)
{
    buf_clear(&vm->out);
    value_encode(frame, &vm->out);
    return vm->out.len > FRAME_MAX;
}

/* emit(frame): to the broker as it is (REPL, models) */
static int emit(lua_State *L)
{
    struct vm *vm = vm_of(L);
    struct error err = {0};

    if (vm_to_value(L, 1, &vm->frame, &err) < 0)
        return vm_raise(L, &err);
    if (too_large(vm, &vm->frame)) {
        value_free(&vm->frame);
        error_set(&err, ERR_TOO_LARGE, "the answer is larger than 64 MiB");
        return vm_raise(L, &err);
    }
    vm_send(vm, &vm->frame);
    value_free(&vm->frame);
    return 0;
}

/* ---- start and end ---- */

int vm_set_up(lua_State *L)
{
    static const luaL_Reg functions[] = {{"new_error", new_error},
                                         {"load", load_chunk},
                                         {"receive", receive},
                                         {"emit", emit},
                                         {NULL, NULL}};
    struct vm *vm = vm_of(L);

    vm_open_environment(L);
    open_errors(L);
    lua_newtable(L);
    vm_open_codec(L);
    vm_open_host(L);
    vm_open_debug(L);
    luaL_setfuncs(L, functions, 0);
    vm_open_modules(L);
    vm_push_value(L, &vm->frame);
    vm_debug_start(L, &vm->frame); /* may load modules through the same frame */
    value_free(&vm->frame);
    lua_pushcfunction(L, vm_require_own);
    lua_pushliteral(L, "boot");
    lua_call(L, 1, 1);
    lua_insert(L, 1); /* boot, internals, start */
    return 3;
}

static void late(const struct vm *vm, struct value *frame)
{
    struct value *error = value_get(frame, "error");

    if (!error) {
        value_remove(frame, "ok");
        error = value_put(frame, "error");
        value_set_map(error);
    }
    value_put_string(error, "code", vm->cancelled ? "cancelled" : "timeout");
    if (!value_get(error, "message"))
        value_put_string(error, "message",
                         vm->cancelled ? "cancelled" : "ended after its deadline");
}

static _Noreturn void finish(struct vm *vm, lua_State *L, bool ok)
{
    struct value frame = {0};
    struct error err = {0};

    value_set_map(&frame);
    value_put_string(&frame, "t", "done");
    if (ok) {
        struct value result = {0};
        if (lua_gettop(L) > 0 && vm_to_value(L, 1, &result, &err) < 0) {
            struct value *error = value_put(&frame, "error");
            value_set_map(error);
            value_put_string(error, "code", "invalid");
            value_set_printf(value_put(error, "message"), "the result: %s", err.message);
            value_put_string(error, "hint", err.hint);
        } else {
            value_move(value_put(&frame, "ok"), &result);
        }
    } else {
        struct value error = {0};
        vm_error_to_value(L, -1, &error);
        value_move(value_put(&frame, "error"), &error);
    }
    if (too_large(vm, &frame)) {
        value_free(&frame);
        value_set_map(&frame);
        value_put_string(&frame, "t", "done");
        struct value *error = value_put(&frame, "error");
        value_set_map(error);
        value_put_string(error, "code", "too_large");
        value_put_string(error, "message", "the result is larger than 64 MiB");
        value_put_string(error, "hint", "write large data to a file (cx.out), and return its path");
    }
    if (vm->time != TIME_LEFT)
        late(vm, &frame);
    value_put_int(&frame, "memory", (int64_t)vm->budget.peak);
    vm_send(vm, &frame);
    _exit(0);
}

/* What the broker knew does not have to be in a process that runs a script: the environment holds
 * credentials. */
static void forget_environment(void)
{
    extern char **environ;

    tzset();
    for (char **entry = environ; *entry; entry++)
        explicit_bzero(*entry, strlen(*entry));
    *environ = NULL;
}

static enum clock clock_of(const char *word)
{
    return strcmp(word, "told") == 0    ? CLOCK_TOLD
           : strcmp(word, "asked") == 0 ? CLOCK_ASKED
                                        : CLOCK_OWN;
}

void vm_main(const struct vm_spec *spec)
{
    static struct vm vm;
    struct error err = {0};
    uint64_t memory = spec->memory_limit ? spec->memory_limit : DEFAULT_MEMORY;
    lua_State *thread;

    vm = (struct vm){.fd = spec->fd,
                     .signatures = spec->signatures,
                     .signature_count = spec->signature_count,
                     .handler = LUA_NOREF,
                     .budget = {.limit = memory}};
    vm_time_prepare(&vm);
    forget_environment();
    if (sandbox_seal(memory, spec->degraded, &err) < 0) {
        cleanup_free char *text =
            mem_printf("the script's process cannot be sealed: %s", err.message);
        struct value frame = {0};
        value_set_map(&frame);
        value_put_string(&frame, "t", "done");
        struct value *error = value_put(&frame, "error");
        value_set_map(error);
        value_put_string(error, "code", error_code_name(err.code));
        value_put_string(error, "message", text);
        value_put_string(error, "hint", err.hint);
        vm_send(&vm, &frame);
        _exit(0);
    }
    vm_receive(&vm, &vm.frame);
    vm.grace_ms = value_get_int(&vm.frame, "grace_ms", 5000);
    vm.override = value_get_bool(&vm.frame, "lua_override", false);
    vm.seed = (uint64_t)value_get_int(&vm.frame, "seed", 0);
    vm.clock = clock_of(value_get_string(&vm.frame, "clock", ""));
    int64_t left = value_get_int(&vm.frame, "deadline_ms", INT64_MAX);

    vm_seed(vm.seed);
    vm.main = lua_newstate(budget_alloc, &vm.budget);
    if (!vm.main)
        _exit(70);
    *(struct vm **)lua_getextraspace(vm.main) = &vm;
    lua_atpanic(vm.main, panic);
    vm.current = vm.main;
    vm_time_start(&vm, left);
    lua_pushcfunction(vm.main, vm_set_up);
    if (lua_pcall(vm.main, 0, 3, 0) != LUA_OK)
        finish(&vm, vm.main, false);
    bool ok = vm_run(&vm, vm.main, 2, &thread);
    finish(&vm, thread, ok);
}
