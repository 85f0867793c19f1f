/* Breakpoints, steps, and the line hook of both. */
#include <stdio.h>
#include <string.h>

#include "vm/debug.h"

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

void debug_settle_points(struct debug *debug, const char *file, const char *text, size_t len)
{
    for (int i = 0; i < debug->point_count; i++) {
        if (is_file(file, debug->points[i].file))
            debug->points[i].line = line_with_code(text, len, debug->points[i].line);
    }
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
        return debug_depth(L) <= debug->depth - (debug->pace == PACE_FINISH);
    return !on_stack(vm, debug->thread); /* it has yielded or ended: on with who had resumed it */
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
        debug->depth = debug_depth(frame->L) - frame->level;
        debug->task = vm->task;
    } else if (pace != 0) {
        debug->pace = PACE_STEP; /* stopped before any line has run */
        debug->task = vm->task;
    }
    return 0;
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

const luaL_Reg debug_step_functions[] = {{"go", go}, {"point", session_point}, {NULL, NULL}};
