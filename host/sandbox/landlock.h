/* Landlock: rules on paths, TCP and signals that a process lays on itself. Async-signal-safe
 * throughout. */
#ifndef MLHOST_SANDBOX_LANDLOCK_H
#define MLHOST_SANDBOX_LANDLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 0: the kernel has none, or it is switched off. */
int landlock_abi(void);

struct landlock_rules {
    bool files;   /* restrict files to the paths below */
    bool devices; /* /dev/null and the like stay usable */
    bool net;     /* refuse TCP */
    const char *const *read_paths;
    size_t read_count;
    const char *const *write_paths;
    size_t write_count;
};
/* Needs no_new_privs. Paths that do not exist are skipped. On failure -1 and errno, and
 * *failed_path the path in question or NULL. 1: done; 0: this kernel's ABI has nothing that the
 * rules ask for. */
int landlock_enter(const struct landlock_rules *rules, const char **failed_path);

#endif
