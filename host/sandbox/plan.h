/*
 * Inside of the sandbox: what sandbox_spawn() works out in the parent, for steps that run in the
 * child.
 *
 * Between clone and exec the child may hold another thread's locks: everything declared here as a
 * step or called from one uses system calls only, no allocation, no stdio.
 */
#ifndef MLHOST_SANDBOX_PLAN_H
#define MLHOST_SANDBOX_PLAN_H

#include "sandbox/filter.h"
#include "sandbox/sandbox.h"

#define DEVICE_COUNT 5
extern const char *const sandbox_devices[DEVICE_COUNT]; /* null zero full random urandom */
#define MASK_COUNT 6 /* files of /proc that say more about the machine than a command may know */

/* A mount that is made detached, in view of the host's files, and attached inside. */
struct tree {
    enum mount_kind kind;
    const char *source;
    char *target;  /* changed in place and back while folders are made */
    char *options; /* overlay */
    bool several;  /* overlay: its lower folders are named relative to source */
    char size[24]; /* tmpfs */
    bool optional; /* left out where the kernel refuses: a proc that nobody asked for */
    bool may_go;   /* left out when its target is no longer there */
    const struct sandbox_mount *mount;
    int fd; /* in the child; -1: left out */
    bool directory;
};

struct plan {
    const struct sandbox_policy *policy;
    unsigned namespaces; /* SANDBOX_NS_* that will be made */
    bool by_fork;        /* fn without a pid namespace: a plain fork, namespaces by unshare */
    bool keeper;         /* a process of ours above the command: see keeper.c */
    bool chroot_only;    /* a root, but no mount namespace to be had */
    bool seal_self;
    bool overlays_copied; /* overlays cannot be had: the upper folders hold copies */
    struct tree *trees;
    size_t tree_count;
    struct tree root;
    int devices[DEVICE_COUNT]; /* in the child */
    int masks[MASK_COUNT];     /* in the child: one more /dev/null each */
    int terminals;             /* in the child: /dev/pts; -1: the kernel gives none */
    char **candidates;         /* what to try to execute, in order */
    size_t candidate_count;
    char uid_map[48], gid_map[48];
    uint64_t process_limit;
    const struct sock_fprog *filters[3];
    size_t filter_count;
    bool unfiltered;       /* the filter cannot be had, and is not required */
    int stdio[3], keep_fd; /* what becomes 0, 1, 2 and 3 */
    int status_fd, parent_fd;
    int map_fd;         /* where the child hears that its ids are mapped; -1: it maps them itself */
    const char *detail; /* the path that a failing step was at */
    int keeper_pid;
};

/* The last report of a child is the failed one; those before name layers that were left out. */
struct report {
    int step, error;
    bool failed;
    char detail[256];
};
struct step {
    const char *name;
    int (*run)(struct plan *plan); /* 0, or -1 and errno */
    unsigned layer; /* may be left out unless the policy requires this layer; 0: must succeed */
    const char *hint;
};
extern const struct step sandbox_steps[];

/* Runs all steps; does not return. */
_Noreturn void steps_run(struct plan *plan);
/* clone3 (clone where a filter hides it) like fork; the child returns 0. flags: CLONE_NEW*. */
pid_t sandbox_clone(unsigned flags, int *pidfd);
unsigned sandbox_clone_flags(unsigned namespaces);

/* rootfs.c, in order */
int rootfs_detach(struct plan *plan);
int rootfs_enter(struct plan *plan);
int rootfs_attach(struct plan *plan);
int rootfs_protect(struct plan *plan);

/* copy.c: `from` into the folder `to`, unless that has something in it already. In the parent. */
int folder_copy(const char *from, const char *to, struct error *err);

/* keeper.c. How a keeper outside of a pid namespace learns that its parent has ended: a signal that
 * nobody sends by accident. (Inside one it is SIGKILL, which takes all along.) */
#define KEEPER_PARENT_GONE SIGRTMAX
int keeper_split(struct plan *plan);

/* probe.c: which of the wanted namespaces this process can make. Forks probes once, then remembers
 * per effective user. A user namespace is tried along when others need one. */
unsigned namespaces_usable(unsigned wanted);
void namespaces_forget(void); /* a process that has been confined must try again */
bool has_capability(int capability);

/* limits.c */
int limit_set(int resource, uint64_t soft, uint64_t hard);
/* Threads of this real user on the machine, to which RLIMIT_NPROC counts; 0 when unknown. */
uint64_t user_threads(uid_t uid);

#endif
