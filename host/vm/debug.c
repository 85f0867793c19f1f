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
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "vm/state.h"

#define POINTS_MAX   64
#define FRAMES_MAX   200
#define FILE_ROOM    256
#define LEVELS_INNER 1000        /* of a stack that are looked at one by one, from its top */
#define LEVELS_OUTER 100         /* ... and from its bottom */
#define ROOM         (64u << 20) /* memory for a session, beyond the script's budget */
#define BOUND_STEP   100000      /* instructions between two looks at the clock */

enum pace { PACE_RUN, PACE_STEP, PACE_NEXT, PACE_FINISH };

struct frame {
    lua_State *L;
    int level;
    bool first; /* of its thread */
};

struct debug {
    bool off;     /* the user has left for good */
    bool stopped; /* in a session */
    bool interrupted;
    bool told_to_leave; /* while something typed was waited for */
    struct {
        char file[FILE_ROOM];
        int line;
        bool until; /* set by the start frame: it says so, and once only */
    } points[POINTS_MAX];
    int point_count;
    /* A step: where it began. */
    enum pace pace;
    lua_State *thread;
    struct task *task;
    int depth;
    struct frame frames[FRAMES_MAX];
    int frame_count;
    lua_CFunction pcall, xpcall;
    const void *last_error; /* stopped at already; the registry keeps it from being another's */
    int64_t bound;          /* until when the function of bounded() may run */
};

static struct debug the_debug;
static const char session_key, sources_key, error_key, start_key; /* in the registry */

/* ---- breakpoints ---- */

/* The path, or its end from a '/' on. */
static bool is_file(const char *path, const char *file)
{
    size_t have = strlen(path), wanted = strlen(file);

    return have >= wanted && strcmp(path + have - wanted, file) == 0 &&
           (have == wanted || path[have - wanted - 1] == '/');
}

static bool add_point(struct debug *debug, const char *file, int line, bool until)
{
    if (debug->point_count == POINTS_MAX || strlen(file) >= FILE_ROOM)
        return false;
    snprintf(debug->points[debug->point_count].file, FILE_ROOM, "%s", file);
    debug->points[debug->point_count].line = line;
    debug->points[debug->point_count++].until = until;
    return true;
}

static void remove_point(struct debug *debug, int index)
{
    debug->point_count--;
    memmove(debug->points + index, debug->points + index + 1,
            (size_t)(debug->point_count - index) * sizeof debug->points[0]);
}

bool vm_debug_until(struct vm *vm, const char *file, int line)
{
    return vm->debug && add_point(vm->debug, file, line, true);
}

/* ---- who catches an error ---- */

/* Count of the levels on L's stack. lua_getstack takes as many steps as the level says: they are
 * searched, since a stack that has overflown has 200 000. */
static int depth_of(lua_State *L)
{
    lua_Debug ar;
    int there = -1, beyond = 1;

    while (lua_getstack(L, beyond, &ar)) {
        there = beyond;
        beyond *= 2;
    }
    while (beyond - there > 1) {
        int middle = there + (beyond - there) / 2;
        if (lua_getstack(L, middle, &ar))
            there = middle;
        else
            beyond = middle;
    }
    return beyond;
}

enum guard { GUARD_NONE, GUARD_SCRIPT, GUARD_STAGE };

/* The innermost protected call on L's stack: the script's (it catches), or the stage's. In a stack
 * that has overflown, one in its middle is not looked for. */
static enum guard guard_of(const struct debug *debug, lua_State *L)
{
    lua_Debug ar;
    int depth = depth_of(L);

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

/* ---- frames ---- */

static void add_frames(struct debug *debug, lua_State *L)
{
    lua_Debug ar;
    bool first = true;

    for (int level = 0;
         level < LEVELS_INNER && debug->frame_count < FRAMES_MAX && lua_getstack(L, level, &ar);
         level++) {
        lua_getinfo(L, "S", &ar);
        if (ar.what[0] == 'C' || vm_own_chunk(ar.source))
            continue;
        debug->frames[debug->frame_count++] =
            (struct frame){.L = L, .level = level, .first = first};
        first = false;
    }
}

/* The script's frames from the innermost one outwards: through the coroutines that have resumed
 * each other, and the branches that wait. */
static void collect(struct vm *vm, lua_State *dead, lua_State *L)
{
    struct debug *debug = vm->debug;
    const struct resumption *coroutine = vm->resumed;

    debug->frame_count = 0;
    if (dead)
        add_frames(debug, dead);
    add_frames(debug, L);
    for (; coroutine; coroutine = coroutine->below)
        add_frames(debug, coroutine->from);
    for (const struct task *task = vm->task ? vm->task->parent : NULL; task; task = task->parent)
        add_frames(debug, task->L);
}

static struct frame *checked_frame(lua_State *L, lua_Debug *ar)
{
    struct debug *debug = vm_of(L)->debug;
    lua_Integer index = luaL_checkinteger(L, 1);

    luaL_argcheck(L, debug->stopped && index >= 1 && index <= debug->frame_count, 1, "no frame");
    struct frame *frame = &debug->frames[index - 1];
    if (!lua_getstack(frame->L, frame->level, ar) || !lua_checkstack(frame->L, 2))
        luaL_error(L, "the frame is gone");
    return frame;
}

/* info(frame) -> { source, line, name, what, first }, or nil beyond the last */
static int frame_info(lua_State *L)
{
    lua_Debug ar;

    if (luaL_checkinteger(L, 1) > vm_of(L)->debug->frame_count)
        return 0;
    struct frame *frame = checked_frame(L, &ar);
    lua_getinfo(frame->L, "Sln", &ar);
    lua_createtable(L, 0, 6);
    lua_pushstring(L, ar.source);
    lua_setfield(L, -2, "source");
    lua_pushinteger(L, ar.currentline);
    lua_setfield(L, -2, "line");
    lua_pushstring(L, ar.name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, ar.what);
    lua_setfield(L, -2, "what");
    lua_pushinteger(L, ar.linedefined);
    lua_setfield(L, -2, "defined");
    lua_pushboolean(L, frame->first && frame > vm_of(L)->debug->frames);
    lua_setfield(L, -2, "outer");
    return 1;
}

/* Moves the value on top of the frame's thread to L, and adds { name, value = } to the list on
 * top. */
static void list_value(lua_State *L, lua_State *from, const char *name, lua_Integer *n)
{
    lua_xmove(from, L, 1);
    lua_createtable(L, 0, 2);
    lua_insert(L, -2);
    lua_setfield(L, -2, "value");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "name");
    lua_rawseti(L, -2, ++*n);
}

/* locals(frame) -> list of { name, value }, the extra arguments of `...` last */
static int frame_locals(lua_State *L)
{
    lua_Debug ar;
    struct frame *frame = checked_frame(L, &ar);
    const char *name;
    lua_Integer n = 0;

    lua_newtable(L);
    for (int i = 1; (name = lua_getlocal(frame->L, &ar, i)) != NULL; i++) {
        if (name[0] == '(')
            lua_pop(frame->L, 1);
        else
            list_value(L, frame->L, name, &n);
    }
    for (int i = -1; lua_getlocal(frame->L, &ar, i) != NULL; i--) {
        char text[24];
        snprintf(text, sizeof text, "...[%d]", -i);
        list_value(L, frame->L, text, &n);
    }
    return 1;
}

/* upvalues(frame) -> list of { name, value } */
static int frame_upvalues(lua_State *L)
{
    lua_Debug ar;
    struct frame *frame = checked_frame(L, &ar);
    const char *name;
    lua_Integer n = 0;

    lua_newtable(L);
    lua_getinfo(frame->L, "f", &ar);
    lua_xmove(frame->L, L, 1);
    for (int i = 1; (name = lua_getupvalue(L, 2 + 1, i)) != NULL; i++) {
        lua_createtable(L, 0, 2);
        lua_insert(L, -2);
        lua_setfield(L, -2, "value");
        lua_pushstring(L, name);
        lua_setfield(L, -2, "name");
        lua_rawseti(L, 2, ++n);
    }
    lua_settop(L, 2);
    return 1;
}

/* Index of the visible local of that name: the last one declared hides the others. */
static int local_index(const struct frame *frame, const lua_Debug *ar, const char *wanted)
{
    const char *name;
    int found = 0;

    for (int i = 1; (name = lua_getlocal(frame->L, ar, i)) != NULL; i++) {
        lua_pop(frame->L, 1);
        if (strcmp(name, wanted) == 0)
            found = i;
    }
    return wanted[0] == '(' ? 0 : found;
}

/* As for locals, of the function on top of L. */
static int upvalue_index(lua_State *L, const char *wanted)
{
    const char *name;

    for (int i = 1; (name = lua_getupvalue(L, -1, i)) != NULL; i++) {
        lua_pop(L, 1);
        if (strcmp(name, wanted) == 0)
            return i;
    }
    return 0;
}

/* get(frame, name) -> true and the value of the local or upvalue, or false */
static int frame_get(lua_State *L)
{
    lua_Debug ar;
    struct frame *frame = checked_frame(L, &ar);
    const char *name = luaL_checkstring(L, 2);
    int index = local_index(frame, &ar, name);

    lua_pushboolean(L, true);
    if (index) {
        lua_getlocal(frame->L, &ar, index);
        lua_xmove(frame->L, L, 1);
        return 2;
    }
    lua_getinfo(frame->L, "f", &ar);
    lua_xmove(frame->L, L, 1);
    index = upvalue_index(L, name);
    if (index) {
        lua_getupvalue(L, -1, index);
        lua_remove(L, -2);
        return 2;
    }
    lua_pushboolean(L, false);
    return 1;
}

/* set(frame, name, value) -> was there one? */
static int frame_set(lua_State *L)
{
    lua_Debug ar;
    struct frame *frame = checked_frame(L, &ar);
    const char *name = luaL_checkstring(L, 2);
    int index = local_index(frame, &ar, name);

    lua_settop(L, 3);
    if (index) {
        lua_xmove(L, frame->L, 1);
        lua_setlocal(frame->L, &ar, index);
        lua_pushboolean(L, true);
        return 1;
    }
    lua_getinfo(frame->L, "f", &ar);
    lua_xmove(frame->L, L, 1);
    index = upvalue_index(L, name);
    if (index) {
        lua_pushvalue(L, 3);
        lua_setupvalue(L, -2, index);
    }
    lua_pushboolean(L, index != 0);
    return 1;
}

/* ---- steps ---- */

static bool task_lives(const struct vm *vm, const struct task *wanted)
{
    for (const struct task *t = vm->tasks; t; t = t->next) {
        if (t == wanted)
            return !t->done;
    }
    return false;
}

/* Is the thread among those that run now, one inside of the other? */
static bool on_stack(const struct vm *vm, const lua_State *thread)
{
    if (vm->task && vm->task->L == thread)
        return true;
    for (const struct resumption *r = vm->resumed; r; r = r->below) {
        if (r->co == thread || r->from == thread)
            return true;
    }
    return false;
}

/* A new line runs on L: is it where the step was to end? */
static bool arrived(const struct vm *vm, lua_State *L)
{
    const struct debug *debug = vm->debug;

    if (debug->pace == PACE_RUN)
        return false;
    if (debug->task != vm->task && task_lives(vm, debug->task))
        /* Others run because the one that is stepped waits: for them (then one of them is
         * what it has stepped into), or for the host. */
        return debug->pace == PACE_STEP && debug->task->joins;
    if (debug->pace == PACE_STEP)
        return true;
    if (L == debug->thread)
        return depth_of(L) <= debug->depth - (debug->pace == PACE_FINISH);
    return !on_stack(vm, debug->thread); /* it has yielded or ended: on with who had resumed it */
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

static const char *at_point(struct debug *debug, const lua_Debug *ar)
{
    for (int i = 0; i < debug->point_count; i++) {
        if (ar->currentline != debug->points[i].line || ar->source[0] != '@' ||
            !is_file(ar->source + 1, debug->points[i].file))
            continue;
        bool until = debug->points[i].until;
        if (until)
            remove_point(debug, i);
        return until ? "until" : "breakpoint";
    }
    return NULL;
}

static void on_line(lua_State *L, lua_Debug *ar)
{
    struct vm *vm = vm_of(L);

    if (vm->debug->stopped)
        return;
    lua_getinfo(L, "Sl", ar);
    if (vm_own_chunk(ar->source))
        return;
    const char *reason = at_point(vm->debug, ar);
    if (!reason && arrived(vm, L))
        reason = "step";
    if (reason)
        vm_debug_break(L, reason);
}

void vm_debug_hook(lua_State *L)
{
    const struct debug *debug = vm_of(L)->debug;

    if (debug && !debug->stopped && (debug->pace != PACE_RUN || debug->point_count))
        lua_sethook(L, on_line, LUA_MASKLINE, 0);
    else if (lua_gethook(L) == on_line)
        lua_sethook(L, NULL, 0, 0);
}

/* go("continue" | "step" | "next" | "finish" | "off", frame): how it goes on when the session
 * ends. A frame other than the innermost is where `next` and `finish` count from. */
static int go(lua_State *L)
{
    static const char *const names[] = {"continue", "step", "next", "finish", "off", NULL};
    struct vm *vm = vm_of(L);
    struct debug *debug = vm->debug;
    int pace = luaL_checkoption(L, 1, NULL, names);
    lua_Integer index = luaL_optinteger(L, 2, 1);

    debug->pace = PACE_RUN;
    if (pace == 4) {
        debug->off = true;
        debug->point_count = 0;
    } else if (index >= 1 && index <= debug->frame_count) {
        const struct frame *frame = &debug->frames[index - 1];
        debug->pace = (enum pace)pace;
        debug->thread = frame->L;
        debug->depth = depth_of(frame->L) - frame->level;
        debug->task = vm->task;
    } else if (pace != 0) {
        debug->pace = PACE_STEP; /* stopped before any line has run */
        debug->task = vm->task;
    }
    return 0;
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

/* point(file, line) adds a breakpoint -> could it?; point(index) removes one; point() -> list */
static int session_point(lua_State *L)
{
    struct debug *debug = vm_of(L)->debug;

    if (lua_isinteger(L, 1)) {
        lua_Integer index = lua_tointeger(L, 1);
        luaL_argcheck(L, index >= 1 && index <= debug->point_count, 1, "no breakpoint");
        remove_point(debug, (int)index - 1);
        return 0;
    }
    if (lua_isstring(L, 1)) {
        lua_pushboolean(L,
                        add_point(debug, lua_tostring(L, 1), (int)luaL_checkinteger(L, 2), false));
        return 1;
    }
    lua_createtable(L, debug->point_count, 0);
    for (int i = 0; i < debug->point_count; i++) {
        lua_pushfstring(L, "%s:%d", debug->points[i].file, debug->points[i].line);
        lua_rawseti(L, -2, i + 1);
    }
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

/* ---- a session ---- */

/* On the session's thread: the session function, its table, why, and the error object or nil. */
static void push_session(lua_State *L, const char *reason, int error, lua_State *S)
{
    static const luaL_Reg functions[] = {
        {"info", frame_info},         {"locals", frame_locals}, {"upvalues", frame_upvalues},
        {"get", frame_get},           {"set", frame_set},       {"go", go},
        {"receive", session_receive}, {"point", session_point}, {NULL, NULL}};

    lua_rawgetp(S, LUA_REGISTRYINDEX, &session_key);
    luaL_newlib(S, functions);
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
    collect(vm, dead, L);
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

/* The first line from `line` on at which a script can stop: not empty, no comment. */
static int line_with_code(const char *text, size_t len, int line)
{
    const char *end = text + len;
    int at = 1;

    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        stop = stop ? stop : end;
        const char *word = text;
        while (word < stop && strchr(" \t\r", *word))
            word++;
        bool comment = stop - word >= 2 && word[0] == '-' && word[1] == '-';
        if (at >= line && word < stop && !comment)
            return at;
        text = stop + 1;
        at++;
    }
    return line;
}

void vm_debug_keep(lua_State *L, const char *file, const char *text, size_t len)
{
    struct debug *debug = vm_of(L)->debug;

    if (!debug)
        return;
    for (int i = 0; i < debug->point_count; i++) {
        if (is_file(file, debug->points[i].file))
            debug->points[i].line = line_with_code(text, len, debug->points[i].line);
    }
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
    /* Loaded before the script can change the functions that it uses. */
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
