/*
 * One policy value -> one child process. The only way in which this program starts anything that is
 * not its own code: a VM, a command of a stage, a task of the runner, a line of an image build, a
 * REPL.
 *
 * sandbox_spawn() prepares everything in the parent (no allocation happens in the child, so threads
 * do not matter), then clones and runs the named steps of sandbox/steps.c in order: limits,
 * session, namespaces, root file system, user, capabilities, no_new_privs, Landlock, seccomp, exec.
 * A step that fails reports its name and errno on a pipe.
 */
#ifndef MLHOST_SANDBOX_SANDBOX_H
#define MLHOST_SANDBOX_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/value.h"

struct cgroup; /* sandbox/cgroup.h */
struct subids; /* sandbox/subids.h */

enum sandbox_syscalls { SANDBOX_SYSCALLS_NONE, SANDBOX_SYSCALLS_VM, SANDBOX_SYSCALLS_COMMAND };

#define SANDBOX_NS_USER  1u
#define SANDBOX_NS_PID   2u
#define SANDBOX_NS_MOUNT 4u
#define SANDBOX_NS_NET   8u
#define SANDBOX_NS_IPC   16u
#define SANDBOX_NS_UTS   32u

/* Layers, as doctor names them; required ones that the kernel lacks are an error, wanted ones are
 * left out. */
#define SANDBOX_LAYER_SECCOMP    1u
#define SANDBOX_LAYER_RLIMITS    2u
#define SANDBOX_LAYER_LANDLOCK   4u
#define SANDBOX_LAYER_NAMESPACES 8u
#define SANDBOX_LAYER_CGROUP     16u

/* Without these no script and no command of one runs, unless the operator says so
 * (--allow-degraded). A command without Landlock would see all files of its user, whatever was
 * granted. */
#define SANDBOX_REQUIRED         (SANDBOX_LAYER_SECCOMP | SANDBOX_LAYER_RLIMITS)
#define SANDBOX_REQUIRED_COMMAND (SANDBOX_REQUIRED | SANDBOX_LAYER_LANDLOCK)

enum mount_kind {
    MOUNT_BIND_RO,
    MOUNT_BIND_RW,
    MOUNT_TMPFS,
    MOUNT_PROC,
    MOUNT_DEV,
    MOUNT_OVERLAY,
    MOUNT_FILE, /* these bytes, read-only, in memory and nowhere else; needs a root */
};
struct sandbox_mount {
    enum mount_kind kind;
    const char *source; /* host path (lower dir for an overlay) */
    const char *target; /* path inside */
    /* overlay: folders that exist. Target "/" puts it in the root's place (its source is
     * policy->root). Where no overlay can be had, an empty upper gets a copy of the source and is
     * mounted instead. */
    const char *upper, *work;
    /* overlay of several folders: their names in `source`, the topmost first, ended by NULL. There
     * is no copy in its place then. */
    const char *const *lowers;
    const char *sub;  /* overlay, not of the root: only this path in it, without links; or NULL */
    bool read_only;   /* overlay */
    uint64_t size;    /* tmpfs bytes */
    bool may_go;      /* left out when its target is no longer there */
    const void *data; /* file: read in the child, so they need not stay */
    size_t len;
    mode_t mode;
    uid_t uid;
    gid_t gid;
};

struct sandbox_policy {
    enum sandbox_syscalls syscalls;
    unsigned namespaces; /* SANDBOX_NS_* wanted */
    unsigned required;   /* SANDBOX_LAYER_* that must be enforced */
    const char *root;    /* new root file system (host path), or NULL: the host's */
    bool root_read_only;
    const struct sandbox_mount *mounts;
    size_t mount_count;
    bool mounts_hide; /* they only hide parts of the host's files: left out where nothing can be
                         mounted */
    const char *hostname;
    /* Landlock; used when landlock is true. Paths that do not exist are skipped. */
    bool landlock;
    const char *const *read_paths;
    size_t read_count; /* read and execute */
    const char *const *write_paths;
    size_t write_count; /* read, write, create, remove */
    bool net_allowed;   /* false: TCP refused by Landlock/seccomp/netns as the kernel can */
    /* limits; 0 keeps the inherited one */
    uint64_t memory, file_size, cpu_seconds, processes, open_files;
    unsigned cpu_milli;         /* thousandths of a processor; only where a group can be made */
    const struct cgroup *group; /* of the whole tree, made by the caller (exec_run); NULL: none */
    uid_t uid;
    gid_t gid;           /* inside; with a user namespace mapped to the caller */
    bool set_user;       /* a program of an image: umask 022, too, whatever the caller's is */
    const gid_t *groups; /* with set_user: the other groups */
    size_t group_count;
    uint32_t more_capabilities; /* bits of 1u << CAP_...: kept by root besides the usual ones */
    /* With a user namespace: root inside is the caller, and the ids from 1 on are those that
     * /etc/subuid and /etc/subgid give it (newuidmap). NULL: one id, that of the caller. */
    const struct subids *subids;
    /* Programs with setuid bits or capabilities in the root's files gain them, as far as the kept
     * capabilities go. Without it none does (no_new_privs). Needs a root of its own, and that the
     * caller has CAP_SYS_ADMIN or gets a user namespace. */
    bool gain_privileges;
    /* what runs: argv for exec, or fn in a forked child (fork mode needs a
     * single-threaded caller) */
    const char *file; /* resolved path; NULL: argv[0] is looked up in env's PATH inside the root */
    char *const *argv;
    char *const *env; /* the whole environment */
    const char *cwd;
    int (*fn)(void *ctx, int keep_fd);
    void *fn_ctx;   /* its return is the exit status; called after all steps. keep_fd is 3 or -1 */
    bool seal_self; /* fn mode: no limits, Landlock and filter yet; fn calls sandbox_seal() once it
                       has set up */
    int stdin_fd, stdout_fd, stderr_fd; /* < 0: /dev/null */
    int keep_fd;                        /* one more fd that survives as number 3; < 0: none */
    bool die_with_parent;               /* with the thread that spawned it, to be exact */
    bool new_terminal_session;          /* setsid */
};
#define SANDBOX_POLICY_INIT                                                                        \
    {                                                                                              \
        .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .keep_fd = -1, .die_with_parent = true,  \
        .new_terminal_session = true                                                               \
    }

struct sandbox_child {
    pid_t pid;
    int pidfd;           /* owned; becomes readable at the end */
    unsigned enforced;   /* SANDBOX_LAYER_* that hold */
    unsigned namespaces; /* SANDBOX_NS_* that it has of its own */
};

/*
 * Returns once the command's program is loaded, or fn is about to be called. The child starts with
 * default signal handlers, no blocked signals, and descriptors 0, 1, 2 and (keep_fd) 3 only.
 *
 * A command runs below a small process of ours, whose pid child->pid is: it passes signals on, ends
 * everything that the command started when the command ends, and exits with its status, or 128 +
 * signal. Wait for it with loop_child or wait4.
 *
 * What a policy asks for and this machine cannot give is left out, see child->enforced, unless
 * `required` names the layer. A normal user gets a user namespace along with any other; the
 * caller's uid is then policy->uid (set_user), 0 (in a root of its own) or itself inside. Without a
 * mount namespace a root is entered by chroot, where allowed, and binds are an error.
 *
 * Errors: ERR_NOT_FOUND (no such command: the hint lists where it was looked for), ERR_UNSUPPORTED
 * (a required layer is missing), else the failing step by name and why.
 */
int sandbox_spawn(const struct sandbox_policy *policy, struct sandbox_child *child,
                  struct error *err);
/* Ends the child and everything it started: SIGKILL (after SIGCONT) to the tree, by pid namespace
 * where there is one, else by walking children; safe for a child that has ended. Does not reap the
 * child itself. */
void sandbox_kill(const struct sandbox_child *child);
/* A polite signal to the child's process group. */
void sandbox_signal(const struct sandbox_child *child, int signo);
/* SIGKILL to every descendant of pid (not pid itself). */
void sandbox_kill_descendants(pid_t pid);
/* fn mode with seal_self: limits, no_new_privs, Landlock with no rights (where the kernel has it),
 * and the VM syscall filter, now. Never undone. memory_limit: of the script; the address space is
 * bounded somewhat above it. 0: not bounded. Afterwards only the calls of docs/sandbox.md work;
 * open descriptors stay usable. -1 when the filter cannot be had, unless degraded: do not run a
 * script then. */
int sandbox_seal(uint64_t memory_limit, bool degraded, struct error *err);

/* May this process mount and become other users, without a user namespace of its own? */
bool sandbox_privileged(void);
/* Which ids there are for this process: all of the machine's, one, or those that somebody gave a
 * user namespace. */
enum sandbox_ids { SANDBOX_IDS_ALL, SANDBOX_IDS_SOME, SANDBOX_IDS_ONE };
enum sandbox_ids sandbox_ids(void);

/* What this kernel and user can enforce, as a map { layer: { available: bool, detail: string } }
 * for doctor. */
void sandbox_probe(struct value *out);
unsigned sandbox_available(void); /* SANDBOX_LAYER_* */
/* Those of SANDBOX_REQUIRED_COMMAND that cannot be had here, by name: "syscall filter, landlock".
 * False: none. */
bool sandbox_missing(struct buf *names);
/* Those of them that hold for a script's process; quick, since it has no use for namespaces. */
unsigned sandbox_script_layers(void);
/* Compiles the filter of scripts now (0.4 ms), so that later forks of this process find that done.
 * Optional. What commands need is made when the first one is started: most stages start none. */
void sandbox_warm(void);

#endif
