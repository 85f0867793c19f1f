/*
 * What a child does between clone and exec, in order. System calls only: see plan.h.
 *
 * The order is not free: mounts need the capabilities that `user` gives up; Landlock forbids mounts
 * and needs no_new_privs; the filter comes last because it would forbid the rest.
 */
#include "sandbox/cgroup.h"
#include "sandbox/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/landlock.h"

#define STATUS_FD 4

static bool confined(const struct plan *plan)
{
    return plan->policy->syscalls != SANDBOX_SYSCALLS_NONE;
}

/* ---- before the keeper ---- */

static int step_signals(struct plan *plan)
{
    (void)plan;
    /* All are blocked since before the clone, so no handler of the parent has run here. Errors:
     * KILL, STOP, and the two that the C library keeps for itself. */
    for (int signo = 1; signo <= SIGRTMAX; signo++) {
        struct sigaction plain = {.sa_handler = SIG_DFL};
        sigaction(signo, &plain, NULL);
    }
    return 0;
}

static int step_parent(struct plan *plan)
{
    struct pollfd parent = {.fd = plan->parent_fd, .events = POLLIN};
    int signo = SIGKILL;

    if (!plan->policy->die_with_parent)
        return 0;
    if (plan->keeper && !(plan->namespaces & SANDBOX_NS_PID))
        signo = KEEPER_PARENT_GONE;
    if (prctl(PR_SET_PDEATHSIG, signo) < 0)
        return -1;
    /* It may have ended before that; getppid() would be 0 in a new pid namespace. */
    if (plan->parent_fd >= 0 && poll(&parent, 1, 0) == 1)
        _exit(127);
    return 0;
}

static int write_file(struct plan *plan, const char *path, const char *text)
{
    plan->detail = path;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    int saved = errno;
    close(fd);
    errno = saved;
    if (n < 0)
        return -1;
    plan->detail = NULL;
    return 0;
}

static int step_namespaces(struct plan *plan)
{
    if (!plan->by_fork || plan->namespaces == 0)
        return 0; /* the clone made them */
    return unshare((int)sandbox_clone_flags(plan->namespaces));
}

/* This process is still a copy of the caller: what of its environment the command does not get is
 * wiped before anybody may look. */
static void forget_environment(const struct plan *plan)
{
    for (char **entry = environ; !plan->policy->fn && entry && *entry; entry++) {
        bool given = !plan->policy->env;
        for (char *const *one = plan->policy->env; !given && *one; one++)
            given = *one == *entry;
        if (!given)
            explicit_bzero(*entry, strlen(*entry));
    }
}

/* Tells the parent that it may; hears that it has. */
static int wait_for_map(int fd)
{
    char done = 0;
    ssize_t n;

    if (write(fd, "m", 1) != 1)
        return -1;
    while ((n = read(fd, &done, 1)) < 0 && errno == EINTR)
        continue;
    if (n == 1)
        return 0;
    errno = EPERM; /* the parent has the reason */
    return -1;
}

static int step_user_map(struct plan *plan)
{
    if (!(plan->namespaces & SANDBOX_NS_USER))
        return 0;
    forget_environment(plan);
    /* The files belong to root in a process that cannot be dumped, as the caller may be. */
    if (prctl(PR_SET_DUMPABLE, 1) < 0)
        return -1;
    if (plan->map_fd >= 0)
        return wait_for_map(plan->map_fd) < 0 ? -1 : prctl(PR_SET_DUMPABLE, 0);
    if (write_file(plan, "/proc/self/setgroups", "deny") < 0 && errno != ENOENT)
        return -1;
    if (write_file(plan, "/proc/self/uid_map", plan->uid_map) < 0 ||
        write_file(plan, "/proc/self/gid_map", plan->gid_map) < 0)
        return -1;
    return prctl(PR_SET_DUMPABLE, 0);
}

static int step_hostname(struct plan *plan)
{
    const char *name = plan->policy->hostname;

    if (!name || !(plan->namespaces & SANDBOX_NS_UTS))
        return 0;
    return sethostname(name, strlen(name));
}

static int step_mounts(struct plan *plan)
{
    return rootfs_detach(plan);
}

static int step_root(struct plan *plan)
{
    return rootfs_enter(plan);
}

static int step_attach(struct plan *plan)
{
    mode_t mask = umask(0);
    int rc = rootfs_attach(plan);
    umask(mask);
    return rc;
}

/* ---- in the command itself ---- */

static int step_session(struct plan *plan)
{
    if (!plan->policy->new_terminal_session)
        return 0;
    return setsid() < 0 && errno != EPERM ? -1 : 0; /* EPERM: it leads one already */
}

/* Every descriptor that is kept is first moved out of the way of the numbers they shall have. */
static int step_descriptors(struct plan *plan)
{
    int *const from[5] = {&plan->stdio[0], &plan->stdio[1], &plan->stdio[2], &plan->keep_fd,
                          &plan->status_fd};

    for (int i = 0; i < 5; i++) {
        if (*from[i] < 0)
            continue;
        int fd = fcntl(*from[i], F_DUPFD_CLOEXEC, 10);
        if (fd < 0)
            return -1;
        *from[i] = fd;
    }
    for (int i = 0; i < 5; i++) {
        if (*from[i] < 0)
            close(i);
        else if (dup3(*from[i], i, i == STATUS_FD ? O_CLOEXEC : 0) < 0)
            return -1;
    }
    plan->status_fd = STATUS_FD;
    return close_range(STATUS_FD + 1, ~0u, 0);
}

static int step_limits(struct plan *plan)
{
    const struct sandbox_policy *policy = plan->policy;

    if (plan->seal_self)
        return 0;
    if (confined(plan) && limit_set(RLIMIT_CORE, 0, 0) < 0)
        return -1;
    if (policy->cpu_seconds &&
        limit_set(RLIMIT_CPU, policy->cpu_seconds, policy->cpu_seconds + 1) < 0)
        return -1;
    if (policy->file_size && limit_set(RLIMIT_FSIZE, policy->file_size, policy->file_size) < 0)
        return -1;
    if (policy->open_files && limit_set(RLIMIT_NOFILE, policy->open_files, policy->open_files) < 0)
        return -1;
    if (plan->process_limit &&
        limit_set(RLIMIT_NPROC, plan->process_limit, plan->process_limit) < 0)
        return -1;
#ifdef MLHOST_SANITIZED
    if (policy->fn) /* terabytes of shadow memory */
        return 0;
#endif
    /* Private writable memory, not address space: what a library maps and never touches costs
     * nothing in a container, either. */
    return policy->memory ? limit_set(RLIMIT_DATA, policy->memory, policy->memory) : 0;
}

/* What a root inside keeps: enough to own, install and drop privileges; nothing that reaches
 * outside. */
#define KEPT_CAPABILITIES                                                                          \
    (1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER | 1u << CAP_FSETID |              \
     1u << CAP_KILL | 1u << CAP_SETGID | 1u << CAP_SETUID | 1u << CAP_NET_BIND_SERVICE)

static int drop_bounding(uint32_t kept)
{
    for (unsigned cap = 0; cap < 64; cap++) {
        if (cap < 32 && (kept >> cap & 1))
            continue;
        /* EINVAL: past the kernel's last. EPERM: we have none to lose. */
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EINVAL && errno != EPERM)
            return -1;
    }
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return 0;
}

static int keep_capabilities(uint32_t kept)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    if (syscall(SYS_capget, &header, data) < 0)
        return -1;
    data[0].permitted &= kept;
    data[0].effective = data[0].permitted;
    data[0].inheritable = data[1].inheritable = 0;
    data[1].permitted = data[1].effective = 0;
    return (int)syscall(SYS_capset, &header, data);
}

/* Where there is only one id, setgroups is forbidden, and root keeps what it has. */
static int take_groups(const struct sandbox_policy *policy)
{
    if (geteuid() == policy->uid && getegid() == policy->gid && !policy->groups)
        return 0;
    return syscall(SYS_setgroups, policy->group_count, policy->groups) < 0 ? -1 : 0;
}

static int step_user(struct plan *plan)
{
    const struct sandbox_policy *policy = plan->policy;

    const uint32_t kept = KEPT_CAPABILITIES | policy->more_capabilities;

    if (confined(plan) && drop_bounding(kept) < 0)
        return -1;
    /* The caller's other groups are nobody's inside. */
    if (policy->subids && plan->namespaces & SANDBOX_NS_USER && syscall(SYS_setgroups, 0, NULL) < 0)
        return -1;
    if (policy->set_user)
        umask(022);
    if (policy->set_user && !(plan->namespaces & SANDBOX_NS_USER) && take_groups(policy) < 0)
        return -1;
    if (policy->set_user && !(plan->namespaces & SANDBOX_NS_USER) &&
        (geteuid() != policy->uid || getegid() != policy->gid || getuid() != policy->uid)) {
        /* Raw calls: the library's wrappers would talk to threads that do not exist here. */
        if (syscall(SYS_setresgid, policy->gid, policy->gid, policy->gid) < 0 ||
            syscall(SYS_setresuid, policy->uid, policy->uid, policy->uid) < 0)
            return -1;
    }
    if (!confined(plan))
        return 0;
    return keep_capabilities(geteuid() == 0 ? kept : 0);
}

/* Changing the user has cleared it; and the keeper, where there is one, is the parent now. */
static int step_parent_again(struct plan *plan)
{
    if (!plan->policy->die_with_parent)
        return 0;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return -1;
    if (plan->keeper && getppid() != plan->keeper_pid)
        _exit(127);
    return 0;
}

static int step_cgroup(struct plan *plan)
{
    return plan->policy->group ? cgroup_enter(plan->policy->group) : 0;
}

static int step_directory(struct plan *plan)
{
    const char *cwd = plan->policy->cwd;

    if (!cwd)
        return plan->policy->root ? chdir("/") : 0;
    plan->detail = cwd;
    if (chdir(cwd) < 0)
        return -1;
    plan->detail = NULL;
    return 0;
}

static int step_no_new_privs(struct plan *plan)
{
    if (!confined(plan) || plan->seal_self || plan->policy->gain_privileges)
        return 0;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static int enter_landlock(struct plan *plan)
{
    const struct sandbox_policy *policy = plan->policy;
    const struct landlock_rules rules = {
        .files = policy->landlock,
        .devices = true,
        .net = !policy->net_allowed,
        .read_paths = policy->read_paths,
        .read_count = policy->read_count,
        .write_paths = policy->write_paths,
        .write_count = policy->write_count,
    };

    if (landlock_enter(&rules, &plan->detail) < 0)
        return -1;
    return 0;
}

static int install_filters(struct plan *plan)
{
    for (size_t i = 0; i < plan->filter_count; i++) {
        if (filter_install(plan->filters[i]) < 0)
            return -1;
    }
    return 0;
}

/* Without no_new_privs the kernel takes rules and filters only from who has CAP_SYS_ADMIN: before
 * the step `user`, whose calls the filter of commands allows. */
static bool early(const struct plan *plan)
{
    return confined(plan) && plan->policy->gain_privileges;
}

static bool late(const struct plan *plan)
{
    return confined(plan) && !plan->seal_self && !plan->policy->gain_privileges;
}

static int step_landlock_early(struct plan *plan)
{
    return early(plan) ? enter_landlock(plan) : 0;
}

static int step_seccomp_early(struct plan *plan)
{
    return early(plan) ? install_filters(plan) : 0;
}

static int step_landlock(struct plan *plan)
{
    return late(plan) ? enter_landlock(plan) : 0;
}

static int step_seccomp(struct plan *plan)
{
    return late(plan) ? install_filters(plan) : 0;
}

static int step_exec(struct plan *plan)
{
    const struct sandbox_policy *policy = plan->policy;
    sigset_t none;
    int error = ENOENT;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (policy->fn) {
        if (confined(plan))
            namespaces_forget();
        close(plan->status_fd);
        _exit(policy->fn(policy->fn_ctx, plan->keep_fd < 0 ? -1 : 3));
    }
    for (size_t i = 0; i < plan->candidate_count; i++) {
        execve(plan->candidates[i], policy->argv, policy->env);
        if (errno != ENOENT && errno != ENOTDIR) {
            error = errno;
            plan->detail = plan->candidates[i];
            if (errno != EACCES)
                break;
        }
    }
    errno = error;
    return -1;
}

const struct step sandbox_steps[] = {
    {"signals", step_signals, 0, NULL},
    {"parent", step_parent, 0, NULL},
    {"cgroup", step_cgroup, SANDBOX_LAYER_CGROUP, NULL},
    {"namespaces", step_namespaces, 0, "mlhost doctor tells which namespaces this user can have"},
    {"user map", step_user_map, 0, "user namespaces may be restricted here: mlhost doctor"},
    {"hostname", step_hostname, 0, NULL},
    {"mounts", step_mounts, 0,
     "the path must exist and be readable by this user; mlhost doctor tells what can be mounted"},
    {"root", step_root, 0, "the new root must be a folder that this user may enter"},
    {"attach", step_attach, 0,
     "each mount's target must be a place inside the new root that can be made"},
    {"protect", rootfs_protect, 0, NULL},
    {"keeper", keeper_split, 0, "the limit of processes may be reached: ulimit -u"},
    {"session", step_session, 0, NULL},
    {"descriptors", step_descriptors, 0, "the limit of open files may be reached: ulimit -n"},
    {"limits", step_limits, SANDBOX_LAYER_RLIMITS, NULL},
    {"landlock first", step_landlock_early, SANDBOX_LAYER_LANDLOCK, NULL},
    {"seccomp first", step_seccomp_early, SANDBOX_LAYER_SECCOMP, NULL},
    {"user", step_user, 0, "only root, or a user namespace, can change to another user"},
    {"directory", step_directory, 0, "the working folder must exist inside the sandbox"},
    {"parent again", step_parent_again, 0, NULL},
    {"no_new_privs", step_no_new_privs, 0, NULL},
    {"landlock", step_landlock, SANDBOX_LAYER_LANDLOCK, NULL},
    {"seccomp", step_seccomp, SANDBOX_LAYER_SECCOMP, NULL},
    {"exec", step_exec, 0, NULL},
    {NULL, NULL, 0, NULL},
};

static void report(const struct plan *plan, int step, int error, bool failed)
{
    struct report report = {.step = step, .error = error, .failed = failed};

    if (plan->detail)
        memcpy(report.detail, plan->detail, strnlen(plan->detail, sizeof report.detail - 1));
    ssize_t n = write(plan->status_fd, &report, sizeof report); /* below PIPE_BUF: whole or not */
    (void)n;
}

_Noreturn void steps_run(struct plan *plan)
{
    for (int i = 0; sandbox_steps[i].name; i++) {
        const struct step *step = &sandbox_steps[i];
        plan->detail = NULL;
        if (step->run(plan) == 0)
            continue;
        bool optional = step->layer && !(plan->policy->required & step->layer);
        report(plan, i, errno, !optional);
        if (!optional)
            break;
    }
    _exit(127);
}
