/*
 * JSON in a script: the quick reader and writer of a VM against the way over a value tree. What the
 * quick one takes the other takes too, and both give the same value, kind by kind, and the same
 * text.
 */
#include "vm_state.h"

static void written(lua_State *L)
{
    cleanup_value struct value tree = {0};
    cleanup_buf struct buf quick = BUF_INIT;
    cleanup_buf struct buf slow = BUF_INIT;
    struct error err = {0};

    bool done = vm_json_write(L, lua_gettop(L), &quick);
    int status = vm_to_value(L, lua_gettop(L), &tree, &err);
    check_result(status, &err);
    check(!done || status == 0);
    if (!done)
        return;
    value_to_json(&tree, TEXT_SORTED, &slow);
    check(quick.len == slow.len && memcmp(quick.data, slow.data, quick.len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct vm vm;
    static unsigned runs;
    struct value start = {0};
    cleanup_value struct value slow = {0};
    cleanup_value struct value quick = {0};
    struct error err = {0};

    if (!vm.main) {
        value_set_map(&start);
        value_put_string(&start, "mode", "check");
        vm_state_open(&vm, &start);
    }
    lua_State *L = vm.main;
    lua_settop(L, 0);
    cleanup_free char *text = mem_strndup((const char *)data, size);
    bool taken = vm_json_read(L, text, size);
    int status = value_from_json(text, size, "fuzz", NULL, &slow, &err);
    check(!taken || status == 0);
    check(lua_gettop(L) == (int)taken);
    if (taken) {
        check(vm_to_value(L, 1, &quick, &err) == 0);
        cleanup_buf struct buf a = BUF_INIT;
        cleanup_buf struct buf b = BUF_INIT;
        value_to_json(&quick, TEXT_SORTED, &a);
        value_to_json(&slow, TEXT_SORTED, &b);
        /* An empty map and an empty list are told apart; nulls of a map stay. */
        check(a.len == b.len && memcmp(a.data, b.data, a.len) == 0);
        written(L);
    }
    if (status == 0) {
        lua_settop(L, 0);
        vm_push_value(L, &slow);
        written(L);
    }
    lua_settop(L, 0);
    if (++runs % 256 == 0)
        lua_gc(L, LUA_GCCOLLECT);
    return 0;
}
