/* Calls to the broker, and the scheduler of the tasks that wait for its replies. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/mem.h"
#include "vm/state.h"

#define TASK "mlhost.task"

/* ---- frames ---- */

void vm_send(struct vm *vm, const struct value *frame)
{
    buf_clear(&vm->out);
    frame_append(frame, &vm->out);
    if (fd_write_all(vm->fd, vm->out.data, vm->out.len, NULL) < 0)
        _exit(VM_EXIT_PROTOCOL);
    if (vm->out.room > 1u << 20)
        buf_free(&vm->out);
}

/* Reads one frame from the socket. */
static void receive(struct vm *vm, struct value *out)
{
    struct error err = {0};
    int taken;

    while ((taken = frame_take(&vm->in, out, &err)) == 0) {
        char *room = buf_reserve(&vm->in, 16384);
        vm->waiting = 1;
        ssize_t got = read(vm->fd, room, vm->in.room - vm->in.len - 1);
        vm->waiting = 0;
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            _exit(VM_EXIT_PROTOCOL);
        vm->in.len += (size_t)got;
    }
    if (taken < 0)
        _exit(VM_EXIT_PROTOCOL);
}

void vm_receive(struct vm *vm, struct value *out)
{
    size_t count = value_count(&vm->early);

    value_free(out);
    if (!count) {
        receive(vm, out);
        return;
    }
    struct value *frames = vm->early.as.array.items;
    value_move(out, &frames[0]);
    memmove(frames, frames + 1, (count - 1) * sizeof *frames);
    vm->early.as.array.count--;
}

bool vm_deliver(struct vm *vm, struct value *frame)
{
    uint64_t id = (uint64_t)value_get_int(frame, "id", 0);

    for (struct task *t = vm->tasks; t; t = t->next) {
        if (id && t->waits_for == id) {
            t->waits_for = 0;
            t->has_reply = true;
            value_move(&t->reply, frame);
            return true;
        }
    }
    return false;
}

/* Anything that is no reply is a request for a model: it waits until its turn comes. */
static void stash(struct vm *vm, struct value *frame)
{
    vm_debug_frame(vm, frame);
    if (vm->handler == LUA_NOREF || strcmp(value_get_string(frame, "t", ""), "request") != 0)
        return;
    if (vm->stash_count == vm->stash_room) {
        vm->stash_room = vm->stash_room ? 2 * vm->stash_room : 16;
        vm->stash = mem_array(vm->stash, vm->stash_room, sizeof *vm->stash);
    }
    vm->stash[vm->stash_count] = (struct value){0};
    value_move(&vm->stash[vm->stash_count++], frame);
}

static bool unstash(struct vm *vm, struct value *out)
{
    if (!vm->stash_count)
        return false;
    value_move(out, &vm->stash[0]);
    memmove(vm->stash, vm->stash + 1, --vm->stash_count * sizeof *vm->stash);
    return true;
}

/* Pushes the result in vm->frame, or raises its error. */
static int finish_call(lua_State *L)
{
    struct vm *vm = vm_of(L);
    const struct value *error = value_get(&vm->frame, "error");
    struct error err = {0};

    if (vm->stop) {
        vm->stop = 0;
        vm->told = 1;
        error_set(&err, ERR_CANCELLED, vm->cancelled ? "cancelled" : "interrupted");
        return vm_raise(L, &err);
    }
    if (error) {
        if (strcmp(value_get_string(error, "code", ""), "timeout") == 0)
            vm_time_answered(vm);
        error_set(&err, error_code_from_name(value_get_string(error, "code", "internal")), "%s",
                  value_get_string(error, "message", "unknown error"));
        error_hint(&err, "%s", value_get_string(error, "hint", ""));
        err.status = (int)value_get_int(error, "status", 0);
        err.retryable = value_get_bool(error, "retryable", false);
        strncpy(err.service, value_get_string(error, "service", ""), sizeof err.service - 1);
        value_free(&vm->frame);
        vm_push_raised(L, &err);
        return vm_debug_answered(L) ? 1 : lua_error(L);
    }
    struct value *ok = value_get(&vm->frame, "ok");
    if (ok)
        vm_push_value(L, ok);
    else
        lua_pushnil(L);
    value_free(&vm->frame);
    return 1;
}

/* Sends a call (or a say, with *id NULL). Takes *args. */
static int request(lua_State *L, const char *t, const char *name, struct value *args, uint64_t *id,
                   struct error *err)
{
    struct vm *vm = vm_of(L);
    cleanup_value struct value frame = {0};
    char place[220];

    value_set_map(&frame);
    value_put_string(&frame, "t", t);
    if (id) {
        *id = ++vm->next_id;
        value_put_int(&frame, "id", (int64_t)*id);
    }
    value_put_string(&frame, "name", name);
    if (vm_debug_stopped(vm)) /* typed, not the script's */
        value_put_bool(&frame, "debug", true);
    if (vm->told) /* else it was on its way when the stop came, and is to end with it */
        value_put_bool(&frame, "late", true);
    value_move(value_put(&frame, "args"), args);
    vm_where(L, place, sizeof place);
    value_put_string(&frame, "at", place);
    buf_clear(&vm->out);
    value_encode(&frame, &vm->out);
    if (vm->out.len > FRAME_MAX) {
        error_set(err, ERR_TOO_LARGE, "%s: the arguments are larger than 64 MiB", name);
        return error_hint(err, "write large data to a file, and pass the file's path");
    }
    vm_send(vm, &frame);
    return 0;
}

static int wait_now(lua_State *L, uint64_t id)
{
    struct vm *vm = vm_of(L);

    for (;;) {
        vm_receive(vm, &vm->frame);
        if ((uint64_t)value_get_int(&vm->frame, "id", 0) == id)
            return finish_call(L);
        if (!vm_deliver(vm, &vm->frame))
            stash(vm, &vm->frame);
    }
}

/* A replay with a debugger may stop before its Nth call. */
static void count_call(lua_State *L)
{
    struct vm *vm = vm_of(L);
    char reason[48];

    if (vm_debug_stopped(vm) || ++vm->calls != vm->until_call)
        return;
    snprintf(reason, sizeof reason, "call %lld", (long long)vm->calls);
    vm_debug_break(L, reason);
}

int vm_call_now(lua_State *L, const char *name, struct value *args)
{
    struct error err = {0};
    uint64_t id;

    count_call(L);
    if (request(L, "call", name, args, &id, &err) < 0)
        return vm_raise(L, &err);
    return wait_now(L, id);
}

void vm_ask_clock(lua_State *L)
{
    struct vm *vm = vm_of(L);
    uint64_t id = ++vm->next_id;

    value_put_int(&vm->frame, "id", (int64_t)id);
    vm_send(vm, &vm->frame);
    if (vm->early.kind == VALUE_NIL)
        value_set_array(&vm->early);
    for (;;) {
        value_free(&vm->frame);
        receive(vm, &vm->frame);
        if ((uint64_t)value_get_int(&vm->frame, "id", 0) == id)
            break;
        value_move(value_push(&vm->early), &vm->frame);
    }
    finish_call(L);
}

static int call_resumed(lua_State *L, int status, lua_KContext context)
{
    struct vm *vm = vm_of(L);

    (void)status;
    (void)context;
    vm->task->has_reply = false;
    value_move(&vm->frame, &vm->task->reply);
    return finish_call(L);
}

/* Arguments of call and say at index 2: a map by name. */
static int arguments(lua_State *L, const char *name, struct value *args, struct error *err)
{
    if (lua_isnoneornil(L, 2)) {
        value_set_map(args);
        return 0;
    }
    return vm_to_value(L, 2, args, err) < 0 ? error_wrap(err, "%s", name) : 0;
}

/* call(name, args) -> result; raises an error object */
static int host_call(lua_State *L)
{
    struct vm *vm = vm_of(L);
    const char *name = luaL_checkstring(L, 1);
    struct value args = {0};
    struct error err = {0};
    uint64_t id;

    count_call(L);
    if (arguments(L, name, &args, &err) < 0 || request(L, "call", name, &args, &id, &err) < 0) {
        value_free(&args);
        return vm_raise(L, &err);
    }
    if (vm->task && L == vm->task->L && lua_isyieldable(L)) {
        vm->task->waits_for = id;
        return lua_yieldk(L, 0, 0, call_resumed);
    }
    return wait_now(L, id);
}

/* say(name, args): one way */
static int host_say(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    struct value args = {0};
    struct error err = {0};

    if (arguments(L, name, &args, &err) < 0 || request(L, "say", name, &args, NULL, &err) < 0) {
        value_free(&args);
        return vm_raise(L, &err);
    }
    return 0;
}

/* signature(name) -> its "args" text, or nil */
static int host_signature(lua_State *L)
{
    struct vm *vm = vm_of(L);
    const char *name = luaL_checkstring(L, 1);
    size_t low = 0, high = vm->signature_count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(name, vm->signatures[middle]->name);
        if (order == 0) {
            lua_pushstring(L, vm->signatures[middle]->args);
            lua_pushstring(L, vm->signatures[middle]->returns);
            lua_pushstring(L, vm->signatures[middle]->doc);
            return 3;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return 0;
}

/* signatures(prefix) -> list of names that begin with it */
static int host_signatures(lua_State *L)
{
    struct vm *vm = vm_of(L);
    size_t len;
    const char *wanted = luaL_optlstring(L, 1, "", &len);
    lua_Integer n = 0;

    lua_newtable(L);
    for (size_t i = 0; i < vm->signature_count; i++) {
        if (strncmp(vm->signatures[i]->name, wanted, len) == 0) {
            lua_pushstring(L, vm->signatures[i]->name);
            lua_rawseti(L, -2, ++n);
        }
    }
    return 1;
}

/* ---- tasks ---- */

/* Makes a task of the function and its arguments on top of L, which it takes off; pushes
 * the task. */
static struct task *new_task(lua_State *L, int count)
{
    struct vm *vm = vm_of(L);
    struct task *task = lua_newuserdatauv(L, sizeof *task, 1);

    *task = (struct task){.arguments = count, .parent = vm->task};
    luaL_setmetatable(L, TASK);
    task->L = lua_newthread(L);
    *(uintptr_t *)lua_getextraspace(task->L) |= 1;
    lua_setiuservalue(L, -2, 1);
    lua_pushvalue(L, -1);
    task->anchor = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_insert(L, -(count + 2));
    if (!lua_checkstack(task->L, count + 1))
        luaL_error(L, "too many arguments");
    lua_xmove(L, task->L, count + 1);
    struct task **end = &vm->tasks;
    while (*end)
        end = &(*end)->next;
    *end = task;
    return task;
}

static void drop_task(lua_State *L, struct task *task)
{
    for (struct task **at = &vm_of(L)->tasks; *at; at = &(*at)->next) {
        if (*at == task) {
            *at = task->next;
            break;
        }
    }
    value_free(&task->reply);
    luaL_unref(L, LUA_REGISTRYINDEX, task->anchor);
    task->anchor = LUA_NOREF;
}

static void step(struct vm *vm, lua_State *L, struct task *task)
{
    int results;

    vm->task = task;
    vm->current = task->L;
    task->joins = NULL;
    vm_time_renew(task->L);
    int count = task->started ? 0 : task->arguments;
    task->started = true;
    int status = lua_resume(task->L, L, count, &results);
    vm->task = NULL;
    vm->current = L;
    if (status == LUA_YIELD)
        return;
    task->done = true;
    task->failed = status != LUA_OK;
}

/* ---- requests of a model server: a task each ---- */

static void start_request(struct vm *vm, lua_State *L)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->handler);
    vm_push_value(L, &vm->frame);
    struct task *task = new_task(L, 1);
    task->request = value_get_int(&vm->frame, "id", 0);
    task->own = luaL_ref(L, LUA_REGISTRYINDEX);
    value_free(&vm->frame);
}

/* The handler catches what scripts raise; what escapes it is memory that ran out, or a fault. */
static void end_request(struct vm *vm, lua_State *L, struct task *task)
{
    int own = task->own;

    if (task->failed) {
        struct value frame = {0};
        value_set_map(&frame);
        value_put_string(&frame, "t", "response");
        value_put_int(&frame, "id", task->request);
        value_put_int(&frame, "status", 500);
        value_put_string(&frame, "body",
                         "{\"error\":\"the model ran out of memory\",\"status\":{\"code\":-1,"
                         "\"reason\":\"MICROSERVICE_INTERNAL_ERROR\",\"status\":1,"
                         "\"info\":\"the model ran out of memory\"}}");
        vm_send(vm, &frame);
        value_free(&frame);
    }
    drop_task(L, task);
    luaL_unref(L, LUA_REGISTRYINDEX, own);
}

/* serve(handler): never returns; handler(frame) runs as a task of its own for each request. */
static int serve(lua_State *L)
{
    struct vm *vm = vm_of(L);

    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    if (!vm->task || L != vm->task->L)
        return luaL_error(L, "serve: only the main task may");
    vm->handler = luaL_ref(L, LUA_REGISTRYINDEX);
    vm->task->waits_for = WAITS_FOR_REQUESTS;
    return lua_yield(L, 0);
}

static struct task *runnable(struct vm *vm, bool *waiting)
{
    *waiting = false;
    for (struct task *t = vm->tasks; t; t = t->next) {
        if (t->done)
            continue;
        if (t->waits_for)
            *waiting = true;
        else if (!t->joins || t->joins->done)
            return t;
    }
    return NULL;
}

bool vm_run(struct vm *vm, lua_State *L, int count, lua_State **thread)
{
    struct task *goal = new_task(L, count);
    bool waiting;

    while (!goal->done) {
        struct task *next = runnable(vm, &waiting);
        if (next) {
            step(vm, L, next);
            if (next->done && next->request)
                end_request(vm, L, next);
        } else if (waiting) {
            if (!unstash(vm, &vm->frame))
                vm_receive(vm, &vm->frame);
            if (vm->handler != LUA_NOREF &&
                strcmp(value_get_string(&vm->frame, "t", ""), "request") == 0)
                start_request(vm, L);
            else
                vm_deliver(vm, &vm->frame);
        } else {
            lua_pushliteral(goal->L, "all branches wait for each other");
            goal->done = goal->failed = true;
        }
    }
    *thread = goal->L;
    /* The task's userdata stays on L's stack, so the thread does. */
    drop_task(L, goal);
    return !goal->failed;
}

/* spawn(fn, ...) -> task */
static int host_spawn(lua_State *L)
{
    if (vm_debug_stopped(vm_of(L)))
        return luaL_error(L, "parallel() needs a script that runs: call the function itself here");
    luaL_checktype(L, 1, LUA_TFUNCTION);
    new_task(L, lua_gettop(L) - 1);
    return 1;
}

static int join_resumed(lua_State *L, int status, lua_KContext context)
{
    struct task *task = luaL_checkudata(L, 1, TASK);

    (void)status;
    (void)context;
    int count = task->failed ? 1 : lua_gettop(task->L);
    luaL_checkstack(L, count, "results");
    drop_task(L, task);
    lua_xmove(task->L, L, count);
    return task->failed ? lua_error(L) : count;
}

/* join(task) -> its results; raises its error. Once per task. */
static int host_join(lua_State *L)
{
    struct vm *vm = vm_of(L);
    struct task *task = luaL_checkudata(L, 1, TASK);

    lua_settop(L, 1);
    if (task->anchor == LUA_NOREF)
        return luaL_error(L, "this branch was joined before");
    if (task->done)
        return join_resumed(L, LUA_YIELD, 0);
    if (!vm->task || L != vm->task->L || !lua_isyieldable(L))
        return luaL_error(L, "parallel() cannot wait inside a coroutine of your own, a metamethod "
                             "or a sort function");
    vm->task->joins = task;
    return lua_yieldk(L, 0, 0, join_resumed);
}

/* in_time() -> true while the deadline has not passed */
static int host_in_time(lua_State *L)
{
    struct vm *vm = vm_of(L);

    lua_pushboolean(L, vm->time == TIME_LEFT);
    return 1;
}

/* near(name, list of names) -> the nearest, or nil */
static int host_near(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    const char *names[256];
    size_t count = 0;

    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_checkstack(L, 258, "names");
    for (lua_Integer i = 1; count < 256 && lua_rawgeti(L, 2, i) == LUA_TSTRING; i++)
        names[count++] = lua_tostring(L, -1);
    lua_pushstring(L, near_miss(name, names, count)); /* NULL gives nil */
    return 1;
}

/* duration(text or seconds) -> seconds, or nil and what is wrong */
static int host_duration(lua_State *L)
{
    struct error err = {0};
    int64_t ns;

    if (lua_type(L, 1) == LUA_TNUMBER && lua_tonumber(L, 1) >= 0) {
        lua_settop(L, 1);
        return 1;
    }
    if (lua_type(L, 1) != LUA_TSTRING) {
        lua_pushnil(L);
        lua_pushfstring(L, "a duration is a text such as \"90s\" or a number of seconds, not %s",
                        luaL_typename(L, 1));
        return 2;
    }
    if (duration_parse(lua_tostring(L, 1), &ns, &err) < 0) {
        lua_pushnil(L);
        lua_pushstring(L, err.message);
        return 2;
    }
    lua_pushnumber(L, (lua_Number)ns / (lua_Number)NS_PER_S);
    return 1;
}

static int host_where(lua_State *L)
{
    char place[220];

    vm_where(L, place, sizeof place);
    lua_pushstring(L, place);
    return 1;
}

void vm_open_host(lua_State *L)
{
    static const luaL_Reg functions[] = {{"call", host_call},
                                         {"say", host_say},
                                         {"signature", host_signature},
                                         {"signatures", host_signatures},
                                         {"spawn", host_spawn},
                                         {"join", host_join},
                                         {"serve", serve},
                                         {"in_time", host_in_time},
                                         {"where", host_where},
                                         {"near", host_near},
                                         {"duration", host_duration},
                                         {"handler", vm_message_handler},
                                         {NULL, NULL}};

    luaL_newmetatable(L, TASK);
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
