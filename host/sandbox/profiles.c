/* The two system-call profiles, as data. docs/sandbox.md explains them; tests/unit/test_sandbox.c
 * tries them. */
#include "sandbox/filter.h"

const struct profile_call profile_vm_allowed[] = {
    {"read", "replies from the broker, on the one socket"},
    {"write", "requests to the broker"},
    {"brk", "memory of the C library"},
    {"mmap", "memory; never executable"},
    {"munmap", "memory given back"},
    {"mremap", "large blocks that grow"},
    {"madvise", "memory given back by pages"},
    {"clock_gettime", "the clock, where the vDSO has none"},
    {"setitimer", "the script's deadline"},
    {"timer_settime", "the script's deadline"},
    {"rt_sigaction", "the deadline's handler"},
    {"rt_sigprocmask", "the deadline's handler"},
    {"rt_sigreturn", "return from the deadline's handler"},
    {"restart_syscall", "a read that a signal stopped"},
    {"getrandom", "seed of the allocator's own checks"},
    {"exit", "the end"},
    {"exit_group", "the end"},
    {NULL, NULL},
};

const struct profile_call profile_vm_sanitizer[] = {
    {"mprotect", "shadow memory"},
    {"sigaltstack", "stack overflow reports"},
    {"futex", "locks"},
    {"sched_yield", "locks"},
    {"gettid", "reports"},
    {"getpid", "reports"},
    {"tgkill", "abort()"},
    {"close", "reports"},
    {"fstat", "reports"},
    {"newfstatat", "reports"},
    {"readlink", "reports"},
    {"lseek", "reports"},
    {"prctl", "names of mappings"},
    {"getrlimit", "stack bounds"},
    {"prlimit64", "stack bounds"},
    {"sched_getaffinity", "stack bounds"},
    {NULL, NULL},
};

/* clang-format off */
const char *const profile_vm_killed[] = {
    "execve", "execveat", "fork", "vfork", "clone", "clone3", "socket", "connect", "bind",
    "accept", "ptrace", "process_vm_readv", "process_vm_writev", "mount", "umount2", "pivot_root",
    "chroot", "unshare", "setns", "bpf", "io_uring_setup", "io_uring_enter", "keyctl", "add_key",
    "request_key", "init_module", "finit_module", "delete_module", "kexec_load",
    "perf_event_open", "userfaultfd", "memfd_create", "setuid", "setresuid", "capset", NULL,
};
/* clang-format on */

/*
 * Near Docker's default (moby/profiles, default_linux.go), for processes without capabilities. Left
 * out there and here: what changes the machine, other processes' memory, the kernel's rarely tested
 * corners.
 */
/* clang-format off */
const char *const profile_command_allowed[] = {
    /* files */
    "access", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range", "creat",
    "dup", "dup2", "dup3", "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir",
    "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fcntl", "fdatasync", "fgetxattr",
    "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate",
    "futimesat", "getcwd", "getdents", "getdents64", "getxattr", "lchown", "lgetxattr", "link",
    "linkat", "listxattr", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "mkdir",
    "mkdirat", "mknod", "mknodat", "name_to_handle_at", "newfstatat", "open", "openat", "openat2",
    "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead",
    "readlink", "readlinkat", "readv", "removexattr", "rename", "renameat", "renameat2", "rmdir",
    "sendfile", "setxattr", "splice", "stat", "statfs", "statx", "symlink", "symlinkat", "sync",
    "sync_file_range", "syncfs", "tee", "truncate", "umask", "unlink", "unlinkat", "ustat",
    "utime", "utimensat", "utimes", "vmsplice", "write", "writev", "ioctl", "cachestat",
    "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "fanotify_mark",
    "chroot",
    /* memory */
    "brk", "get_mempolicy", "madvise", "map_shadow_stack", "mbind", "membarrier", "memfd_create",
    "memfd_secret", "mincore", "mlock", "mlock2", "mlockall", "mmap", "mprotect", "mremap",
    "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free",
    "pkey_mprotect", "process_mrelease", "remap_file_pages", "set_mempolicy",
    "set_mempolicy_home_node", "shmat", "shmctl", "shmdt", "shmget",
    /* processes and threads */
    "arch_prctl", "capget", "capset", "clone", "execve", "execveat", "exit", "exit_group", "fork",
    "futex", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list",
    "get_thread_area", "getcpu", "getegid", "geteuid", "getgid", "getgroups", "getpgid",
    "getpgrp", "getpid", "getppid", "getpriority", "getresgid", "getresuid", "getrlimit",
    "getrusage", "getsid", "gettid", "getuid", "ioprio_get", "ioprio_set", "kill",
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "modify_ldt",
    "personality", "pidfd_open", "pidfd_send_signal", "prctl", "prlimit64", "rseq",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
    "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity",
    "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp",
    "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsuid", "setgid",
    "setgroups", "setpgid", "setpriority", "setregid", "setresgid", "setresuid", "setreuid",
    "setrlimit", "setsid", "setuid", "sysinfo", "tgkill", "times", "tkill", "uname", "vfork",
    "wait4", "waitid", "waitpid",
    /* signals, time, waiting */
    "adjtimex", "alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "epoll_create",
    "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd",
    "eventfd2", "getitimer", "getrandom", "gettimeofday", "nanosleep", "pause", "poll", "ppoll",
    "pselect6", "restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo",
    "select", "setitimer", "sigaltstack", "signalfd", "signalfd4", "time", "timer_create",
    "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create",
    "timerfd_gettime", "timerfd_settime", "io_cancel", "io_destroy", "io_getevents",
    "io_pgetevents", "io_setup", "io_submit",
    /* between processes, and network (which families: see filter.c) */
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen",
    "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink",
    "msgctl", "msgget", "msgrcv", "msgsnd", "pipe", "pipe2", "recvfrom", "recvmmsg", "recvmsg",
    "semctl", "semget", "semop", "semtimedop", "sendmmsg", "sendmsg", "sendto", "setsockopt",
    "shutdown", "socket", "socketpair", NULL,
};
/* clang-format on */

/* clang-format off */
const char *const profile_command_denied[] = {
    /* namespaces, mounts */
    "unshare", "setns", "mount", "umount2", "pivot_root", "fsopen", "fsconfig", "fsmount",
    "fspick", "move_mount", "open_tree", "mount_setattr", "swapon", "swapoff", "quotactl",
    "quotactl_fd", "open_by_handle_at",
    /* other processes */
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp",
    "move_pages", "migrate_pages",
    /* kernel attack surface without use in a command */
    "io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "perf_event_open",
    "userfaultfd", "keyctl", "add_key", "request_key", "fanotify_init", "lookup_dcookie",
    "nfsservctl", "vhangup", "uselib", "_sysctl", "sysfs", "syslog",
    /* the machine */
    "acct", "reboot", "kexec_load", "kexec_file_load", "init_module", "finit_module",
    "delete_module", "create_module", "get_kernel_syms", "query_module", "settimeofday",
    "clock_settime", "clock_adjtime", "stime", "sethostname", "setdomainname", "iopl", "ioperm",
    NULL,
};
/* clang-format on */
