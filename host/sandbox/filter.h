/* System-call filters: tables of names (profiles.c) -> BPF programs, compiled once per process and
 * kept. */
#ifndef MLHOST_SANDBOX_FILTER_H
#define MLHOST_SANDBOX_FILTER_H

#include <linux/filter.h>
#include <stddef.h>

#include "base/error.h"

enum filter {
    FILTER_VM,             /* a dozen calls */
    FILTER_COMMAND,        /* which calls by name; unknown ones are ENOSYS, as on an older kernel */
    FILTER_COMMAND_ONLINE, /* arguments; stacked on FILTER_COMMAND */
    FILTER_COMMAND_OFFLINE, /* the same without network */
    FILTER_COMMAND_HOST,    /* on the host's own files: no programs that run as somebody else */
    FILTER_COUNT
};

/* The program, kept for the life of the process (and of its forks); NULL with an error when it
 * cannot be compiled. Thread-safe. */
const struct sock_fprog *filter_program(enum filter filter, struct error *err);
/* Installs it in this process, for good. Async-signal-safe. -1 and errno. */
int filter_install(const struct sock_fprog *program);

/* ---- the tables, also read by doctor ---- */

struct profile_call {
    const char *name;
    const char *why;
};
/* Ends with a NULL name. */
extern const struct profile_call profile_vm_allowed[];
extern const struct profile_call
    profile_vm_sanitizer[];                   /* what the sanitizers' runtime needs besides */
extern const char *const profile_vm_killed[]; /* never legitimate: the attempt ends the process */
extern const char *const profile_command_allowed[];
extern const char *const profile_command_denied[]; /* EPERM instead of ENOSYS */

#endif
