/*
 * The VM process: one Lua state, the script, pure Lua modules, one socket. It knows no primitive,
 * only signatures and frames (docs/architecture.md, "Frames between VM and broker").
 */
#ifndef MLHOST_VM_VM_H
#define MLHOST_VM_VM_H

#include "base/signature.h"

struct vm_spec {
    int fd; /* socket to the broker, blocking */
    const struct signature *const *signatures;
    size_t signature_count;
    uint64_t memory_limit;
    bool degraded; /* run without the filter where it cannot be had */
};

/* Seals the process (sandbox_seal), reads the start frame, runs the script, writes the done frame,
 * _exit()s. Runs in a freshly forked, single-threaded process. */
_Noreturn void vm_main(const struct vm_spec *spec);

#endif
