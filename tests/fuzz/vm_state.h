/* The Lua state of a VM process, as far as a script sees it: environment, modules, codec. What it
 * says goes nowhere, and what it asks is not answered. */
#ifndef MLHOST_TESTS_FUZZ_VM_STATE_H
#define MLHOST_TESTS_FUZZ_VM_STATE_H

#include <fcntl.h>

#include "broker/primitive.h"
#include "fuzz.h"
#include "lua_coverage.h"
#include "vm/state.h"

/* vm: stays where it is until the state is closed. start: the start frame, taken. Leaves boot
 * function, internals and start on the stack. */
static inline lua_State *vm_state_open(struct vm *vm, struct value *start)
{
    size_t count;
    const struct primitive *const *rows = primitive_table(&count);
    const struct signature **signatures = mem_array(NULL, count, sizeof *signatures);

    for (size_t i = 0; i < count; i++)
        signatures[i] = &rows[i]->sign;
    *vm = (struct vm){.fd = open("/dev/null", O_RDWR | O_CLOEXEC),
                      .signatures = signatures,
                      .signature_count = count,
                      .handler = LUA_NOREF,
                      .budget = {.limit = 256u << 20}};
    value_move(&vm->frame, start);
    lua_State *L = vm->main = vm->current = lua_newstate(budget_alloc, &vm->budget);
    *(struct vm **)lua_getextraspace(L) = vm;
    lua_coverage(L);
    lua_pushcfunction(L, vm_set_up);
    if (lua_pcall(L, 0, 3, 0) != LUA_OK) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        abort();
    }
    return L;
}

static inline void vm_state_close(struct vm *vm)
{
    lua_close(vm->main);
    vm->main = NULL;
    close(vm->fd);
    free((void *)vm->signatures);
    value_free(&vm->frame);
    buf_free(&vm->in);
    buf_free(&vm->out);
}

#endif
