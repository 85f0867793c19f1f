/*
 * The debugger's part in the VM: where it stops, frames, variables, steps. The commands are in
 * lua/prelude/debug.lua, the terminal is the supervisor's (run/debug.h).
 *
 * A session runs in a Lua thread of its own: the stopped thread may be in a message handler, in a
 * hook, or at the end of its stack, and is only looked at. Its frames keep their levels meanwhile,
 * since nothing that a session evaluates can resume what is being debugged.
 *
 * What the session may do beyond a script's rights is in the table that only it gets: locals and
 * upvalues of the script's own Lua functions, by name. Slots that the interpreter keeps for itself
 * ("(for state)", temporaries of C functions) are out of reach: it trusts their types.
 */
#include "vm/debug.h"

#include <string.h>

#include "base/clock.h"

#define ROOM       (64u << 20) /* memory for a session, beyond the script's budget */
#define BOUND_STEP 100000      /* instructions between two looks at the clock */

static struct debug the_debug;
static const char session_key, sources_key, error_key, start_key, answer_key; /* in the registry */

/* ---- who catches an error ---- */

enum guard { GUARD_NONE, GUARD_SCRIPT, GUARD_STAGE };

/* The innermost protected call on L's stack: the script's (it catches), or the stage's. In a stack
 * that has overflown, one in its middle is not looked for. */
static enum guard guard_of(const struct debug *debug, lua_State *L)
{
    lua_Debug ar;
    int depth = debug_depth(L);

    for (int level = 0; lua_getstack(L, level, &ar); level++) {
        if (level == LEVELS_INNER && depth - LEVELS_OUTER > level)
            level = depth - LEVELS_OUTER;
        lua_getinfo(L, "f", &ar);
        lua_CFunction fn = lua_tocfunction(L, -1);
        lua_pop(L, 1);
        if (fn && fn == debug->pcall)
            return GUARD_SCRIPT;
        if (!fn || fn != debug->xpcall)
            continue;
        /* xpcall(function, handler, ...) keeps its arguments where they were */
        lua_CFunction handler = NULL;
        if (lua_getlocal(L, &ar, 2)) {
            handler = lua_tocfunction(L, -1);
            lua_pop(L, 1);
        }
        return handler == vm_catch ? GUARD_STAGE : GUARD_SCRIPT;
    }
    return GUARD_NONE;
}

/* Will an error on L end the stage? It goes from a wrapped coroutine to who has resumed it, and
 * from a branch of parallel() to who waits for it. */
static bool uncaught(const struct vm *vm, lua_State *L)
{
    const struct resumption *coroutine = vm->resumed;
    const struct task *task = vm->task;

    for (;;) {
        switch (guard_of(vm->debug, L)) {
        case GUARD_SCRIPT:
            return false;
        case GUARD_NONE:
            if (!coroutine || coroutine->co != L || !coroutine->wrapped)
                return false;
            L = coroutine->from;
            coroutine = coroutine->below;
            break;
        case GUARD_STAGE:
            task = task ? task->parent : NULL;
            if (!task)
                return true;
            L = task->L;
            coroutine = NULL;
            break;
        }
    }
}

bool vm_debug_stopped(const struct vm *vm)
{
    return vm->debug && vm->debug->stopped;
}

void vm_debug_frame(struct vm *vm, const struct value *frame)
{
    if (vm_debug_stopped(vm) && strcmp(value_get_string(frame, "t", ""), "leave") == 0)
        vm->debug->told_to_leave = true;
}

bool vm_debug_interrupted(const struct vm *vm)
{
    return vm->debug && vm->debug->interrupted;
}

void vm_debug_interrupt(lua_State *L, lua_Debug *ar)
{
    struct vm *vm = vm_of(L);
    struct error err = {0};

    vm->debug->interrupted = vm->debug->interrupted || vm->stop;
    vm->stop = 0; /* a cancel is told to the script itself, after the session */
    lua_getinfo(L, "S", ar);
    if (!vm->debug->interrupted || ar->what[0] == 'C' || vm_own_chunk(ar->source))
        return; /* the session's own code, which reports it */
    error_set(&err, ERR_CANCELLED, vm->cancelled ? "cancelled" : "interrupted");
    vm_raise(L, &err);
}

/* ---- the rest of what a session has ---- */

/* receive() -> the next frame for the session; replies go to the branches that wait for them */
static int session_receive(lua_State *L)
{
    struct vm *vm = vm_of(L);

    if (vm->debug->told_to_leave) {
        lua_newtable(L);
        lua_pushliteral(L, "leave");
        lua_setfield(L, -2, "t");
        return 1;
    }
    for (;;) {
        vm_receive(vm, &vm->frame);
        if (strcmp(value_get_string(&vm->frame, "t", ""), "reply") != 0)
            break;
        vm_deliver(vm, &vm->frame);
    }
    if (!vm->cancelled) { /* an interrupt was for what was evaluated */
        vm->stop = vm->told = 0;
        vm->debug->interrupted = false;
        lua_sethook(L, NULL, 0, 0);
    }
    vm_push_value(L, &vm->frame);
    value_free(&vm->frame);
    return 1;
}

static void on_bound(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    if (clock_now() < the_debug.bound)
        return;
    lua_sethook(L, on_bound, LUA_MASKCOUNT, 1); /* whoever catches it gets no further */
    luaL_error(L, "it took too long");
}

/* bounded(seconds, function, ...) -> as pcall; a function that computes longer gets an error. Not
 * a limit for what does not want one: a library function is not ended. */
static int bounded(lua_State *L)
{
    lua_Number seconds = luaL_checknumber(L, 1);
    lua_Hook before = lua_gethook(L);
    int mask = lua_gethookmask(L), count = lua_gethookcount(L);

    luaL_checktype(L, 2, LUA_TFUNCTION);
    the_debug.bound = deadline_in((int64_t)(seconds * (lua_Number)NS_PER_S));
    lua_sethook(L, on_bound, LUA_MASKCOUNT, BOUND_STEP);
    int status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0);
    lua_sethook(L, before, mask, count);
    vm_time_renew(L);
    lua_pushboolean(L, status == LUA_OK);
    lua_replace(L, 1);
    return lua_gettop(L);
}

/* answer(value): what the call that has failed gives instead -> may it? */
static int session_answer(lua_State *L)
{
    struct debug *debug = vm_of(L)->debug;

    lua_settop(L, 1);
    if (debug->may_answer) {
        debug->answered = true;
        lua_rawsetp(L, LUA_REGISTRYINDEX, &answer_key);
    }
    lua_pushboolean(L, debug->may_answer);
    return 1;
}

/* ---- a session ---- */

/* On the session's thread: the session function, its table, why, and the error object or nil. */
static void push_session(lua_State *L, const char *reason, int error, lua_State *S)
{
    static const luaL_Reg functions[] = {
        {"receive", session_receive}, {"answer", session_answer}, {NULL, NULL}};

    lua_rawgetp(S, LUA_REGISTRYINDEX, &session_key);
    luaL_newlib(S, functions);
    luaL_setfuncs(S, debug_frame_functions, 0);
    luaL_setfuncs(S, debug_step_functions, 0);
    lua_rawgetp(S, LUA_REGISTRYINDEX, &sources_key);
    lua_setfield(S, -2, "sources");
    lua_rawgetp(S, LUA_REGISTRYINDEX, &start_key);
    lua_setfield(S, -2, "stage");
    lua_pushstring(S, reason);
    if (error) {
        lua_pushvalue(L, error);
        lua_xmove(L, S, 1);
    } else {
        lua_pushnil(S);
    }
}

static void say_resumed(struct vm *vm)
{
    struct value frame = {0};

    value_set_map(&frame);
    value_put_string(&frame, "t", "resumed");
    vm_send(vm, &frame);
    value_free(&frame);
}

/* Whatever goes wrong in a session, the script goes on. error: index on L, or 0. */
static void stop_here(lua_State *L, lua_State *dead, const char *reason, int error)
{
    struct vm *vm = vm_of(L);
    struct debug *debug = vm->debug;
    int64_t left = vm_time_pause(vm);

    if (vm->stop) {
        vm_time_resume(vm, left);
        return;
    }
    size_t limit = vm->budget.limit;
    if (limit < SIZE_MAX - ROOM)
        vm->budget.limit = limit + ROOM;
    debug->stopped = true;
    debug->told_to_leave = false;
    debug->pace = PACE_RUN;
    debug_collect(vm, dead, L);
    if (lua_checkstack(L, 2)) {
        lua_State *S = lua_newthread(L); /* inherits L's hook */
        lua_sethook(S, NULL, 0, 0);
        push_session(L, reason, error, S);
        vm->current = S;
        if (lua_pcall(S, 3, 0, 0) != LUA_OK)
            debug->pace = PACE_RUN;
        vm->current = L;
        lua_pop(L, 1);
    }
    debug->stopped = debug->interrupted = false;
    if (vm->cancelled) {
        vm->stop = 1;
        vm->told = 0;
    }
    debug->frame_count = 0;
    vm->budget.limit = limit;
    say_resumed(vm);
    vm_time_resume(vm, left);
    vm_time_renew(L);
}

static bool may_stop(const struct vm *vm)
{
    return vm->debug && !vm->debug->stopped && !vm->debug->off && !vm->cancelled;
}

void vm_debug_break(lua_State *L, const char *reason)
{
    if (may_stop(vm_of(L)))
        stop_here(L, NULL, reason, 0);
}

/* The error object on top of L: stops there, unless it has stopped there before. */
static void stop_at_error(lua_State *L, lua_State *dead)
{
    struct debug *debug = vm_of(L)->debug;

    if (lua_topointer(L, -1) == debug->last_error)
        return;
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &error_key);
    debug->last_error = lua_topointer(L, -1);
    stop_here(L, dead, "error", lua_gettop(L));
}

/* The message handler of the stage and its branches: nobody catches what comes here, unless a
 * branch was started inside of a protected call. */
int vm_catch(lua_State *L)
{
    struct vm *vm = vm_of(L);

    vm_push_error_object(L, L, 1);
    if (may_stop(vm) && !vm->stop && uncaught(vm, L))
        stop_at_error(L, NULL);
    return 1;
}

bool vm_debug_answered(lua_State *L)
{
    struct vm *vm = vm_of(L);
    struct debug *debug = vm->debug;

    if (!may_stop(vm) || vm->stop || vm->time != TIME_LEFT || !uncaught(vm, L))
        return false;
    debug->may_answer = true;
    debug->answered = false;
    stop_at_error(L, NULL);
    debug->may_answer = false;
    if (!debug->answered || vm->cancelled)
        return false;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &answer_key);
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &answer_key);
    return true;
}

int vm_debug_require_handler(lua_State *L)
{
    struct vm *vm = vm_of(L);

    if (may_stop(vm) && !vm->stop && uncaught(vm, L)) {
        vm_push_error_object(L, L, 1);
        stop_at_error(L, NULL);
    }
    return 1;
}

bool vm_debug_failed(lua_State *L, lua_State *co)
{
    struct vm *vm = vm_of(L);

    if (!may_stop(vm) || vm->stop || !uncaught(vm, L))
        return false;
    vm_push_error_object(L, co, -1);
    lua_remove(L, -2);
    stop_at_error(L, co);
    return true;
}

/* breakpoint() -> is there a debugger? */
static int host_breakpoint(lua_State *L)
{
    const struct vm *vm = vm_of(L);

    vm_debug_break(L, "breakpoint()");
    lua_pushboolean(L, vm->debug != NULL);
    return 1;
}

void vm_debug_keep(lua_State *L, const char *file, const char *text, size_t len)
{
    struct debug *debug = vm_of(L)->debug;

    if (!debug)
        return;
    debug_settle_points(debug, file, text, len);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &sources_key);
    lua_pushlstring(L, text, len);
    lua_setfield(L, -2, file);
    lua_pop(L, 1);
}

static lua_CFunction global_function(lua_State *L, const char *name)
{
    lua_getglobal(L, name);
    lua_CFunction fn = lua_tocfunction(L, -1);
    lua_pop(L, 1);
    return fn;
}

void vm_debug_start(lua_State *L, const struct value *start)
{
    struct vm *vm = vm_of(L);
    const struct value *asked = value_get(start, "debug"), *script = value_get(start, "script");
    const struct value *text = value_get(script, "text");
    const char *until = value_get_string(asked, "until_file", NULL);

    if (!value_get_bool(asked, "enabled", false))
        return;
    the_debug = (struct debug){.pcall = global_function(L, "pcall"),
                               .xpcall = global_function(L, "xpcall")};
    vm->debug = &the_debug;
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &sources_key);
    lua_pushstring(L, value_get_string(start, "stage", ""));
    lua_rawsetp(L, LUA_REGISTRYINDEX, &start_key);
    if (until)
        vm_debug_until(vm, until, (int)value_get_int(asked, "until_line", 1));
    vm->until_call = value_get_int(asked, "until_call", 0);
    if (text && text->kind == VALUE_STRING)
        vm_debug_keep(L, value_get_string(script, "name", ""), text->as.string.data,
                      text->as.string.len);
    /* Loaded before the script can change the functions that it uses. Last: where modules come from
     * the broker, *start is overwritten. */
    lua_pushcfunction(L, vm_require_own);
    lua_pushliteral(L, "prelude.debug");
    lua_call(L, 1, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &session_key);
}

void vm_open_debug(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"breakpoint", host_breakpoint}, {"catch", vm_catch}, {"bounded", bounded}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
}
