/*
 * Limits of a whole process tree, where the kernel lets us make control groups: version 2 in a
 * delegated subtree, or the memory, pids and cpu hierarchies of version 1. One group per command.
 * https://docs.kernel.org/admin-guide/cgroup-v2.html
 * https://docs.kernel.org/admin-guide/cgroup-v1/index.html
 *
 * A group is a folder mlhost-<pid>-<n> below this process's own group; those of hosts that died
 * are removed by the next one.
 */
#ifndef MLHOST_SANDBOX_CGROUP_H
#define MLHOST_SANDBOX_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

#define CGROUP_CONTROLLERS 3 /* memory, pids, cpu */

struct cgroup {
    char *folders[CGROUP_CONTROLLERS]; /* of version 2 only the first; NULL: none */
    int procs[CGROUP_CONTROLLERS];     /* cgroup.procs of each, for the child to enter; -1: none */
    bool memory, pids, cpu;            /* what it limits */
};
struct cgroup_limits {
    uint64_t memory;    /* bytes, of all of its processes together, what they share included */
    uint64_t processes; /* processes and threads */
    unsigned cpu_milli; /* thousandths of a processor */
};
struct cgroup_end {
    bool out_of_memory, out_of_processes; /* a limit was hit */
};

/* Which limits can be had, and where; says why not in *why. */
unsigned cgroup_usable(struct buf *why);
#define CGROUP_MEMORY 1u
#define CGROUP_PIDS   2u
#define CGROUP_CPU    4u

/* Makes a group with the limits that are given (not 0) and can be had. False: no group at all. */
bool cgroup_open(const struct cgroup_limits *limits, struct cgroup *out);
/* In the child, with system calls only. */
int cgroup_enter(const struct cgroup *group);
/* In the parent, once the child has entered. */
void cgroup_entered(struct cgroup *group);
/* Kills what is left in it, and removes it. */
void cgroup_close(struct cgroup *group, struct cgroup_end *end);

#endif
