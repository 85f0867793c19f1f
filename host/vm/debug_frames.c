/* Frames of a script that has stopped, and their variables by name. */
#include <stdio.h>
#include <string.h>

#include "vm/debug.h"

/* lua_getstack takes as many steps as the level says: the last one is searched, since a stack that
 * has overflown has 200 000. */
int debug_depth(lua_State *L)
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

void debug_collect(struct vm *vm, lua_State *dead, lua_State *L)
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

const luaL_Reg debug_frame_functions[] = {{"info", frame_info},         {"locals", frame_locals},
                                          {"upvalues", frame_upvalues}, {"get", frame_get},
                                          {"set", frame_set},           {NULL, NULL}};
