#include "sandbox/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "sandbox/subids.h"

/* ---- clone ---- */

static const struct {
    unsigned ns, flag;
    const char *name;
} namespace_kinds[] = {
    {SANDBOX_NS_USER, CLONE_NEWUSER, "user"}, {SANDBOX_NS_PID, CLONE_NEWPID, "pid"},
    {SANDBOX_NS_MOUNT, CLONE_NEWNS, "mount"}, {SANDBOX_NS_NET, CLONE_NEWNET, "net"},
    {SANDBOX_NS_IPC, CLONE_NEWIPC, "ipc"},    {SANDBOX_NS_UTS, CLONE_NEWUTS, "uts"},
};
#define NAMESPACE_KINDS (sizeof namespace_kinds / sizeof *namespace_kinds)

unsigned sandbox_clone_flags(unsigned namespaces)
{
    unsigned flags = 0;

    for (size_t i = 0; i < NAMESPACE_KINDS; i++) {
        if (namespaces & namespace_kinds[i].ns)
            flags |= namespace_kinds[i].flag;
    }
    return flags;
}

struct clone3_args { /* of Linux 5.3 */
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
};

pid_t sandbox_clone(unsigned flags, int *pidfd)
{
    struct clone3_args args = {
        .flags = flags | CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
    };
    long pid = syscall(SYS_clone3, &args, sizeof args);

    /* Filters of containers (ours included) hide clone3, because they cannot look into its
     * arguments. */
    if (pid < 0 && (errno == ENOSYS || errno == EPERM))
        pid = syscall(SYS_clone, flags | CLONE_PIDFD | SIGCHLD, NULL, pidfd, NULL, NULL);
    return (pid_t)pid;
}

/* ---- the plan ---- */

static void plan_free(struct plan *plan)
{
    for (size_t i = 0; i < plan->tree_count; i++) {
        free(plan->trees[i].target);
        free(plan->trees[i].options);
    }
    free(plan->root.options);
    free(plan->trees);
    for (size_t i = 0; i < plan->candidate_count; i++)
        free(plan->candidates[i]);
    free(plan->candidates);
    if (plan->parent_fd >= 0)
        close(plan->parent_fd);
    if (plan->map_fd >= 0)
        close(plan->map_fd);
}
#define cleanup_plan __attribute__((cleanup(plan_free)))

static void name_namespaces(unsigned namespaces, char *out, size_t room)
{
    size_t len = 0;

    out[0] = '\0';
    for (size_t i = 0; i < NAMESPACE_KINDS; i++) {
        if (namespaces & namespace_kinds[i].ns && len < room)
            len += (size_t)snprintf(out + len, room - len, "%s%s", len ? ", " : "",
                                    namespace_kinds[i].name);
    }
}

static int plan_namespaces(struct plan *plan, struct error *err)
{
    const struct sandbox_policy *policy = plan->policy;
    unsigned wanted = policy->namespaces;
    char names[80];

    if (policy->root || policy->mount_count)
        wanted |= SANDBOX_NS_MOUNT;
    if (policy->net_allowed)
        wanted &= ~SANDBOX_NS_NET;
    else if (wanted && !policy->fn)
        wanted |= SANDBOX_NS_NET;
    if (policy->set_user && policy->uid != geteuid() && !has_capability(CAP_SETUID))
        wanted |= SANDBOX_NS_USER;
    if (wanted)
        plan->namespaces = namespaces_usable(wanted);
    unsigned missing = policy->namespaces & wanted & ~plan->namespaces;
    if (missing && policy->required & SANDBOX_LAYER_NAMESPACES) {
        name_namespaces(missing, names, sizeof names);
        error_set(err, ERR_UNSUPPORTED,
                  "sandbox: these namespaces are required and cannot be had: %s", names);
        return error_hint(
            err, "run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone, "
                 "user.max_user_namespaces); mlhost doctor tells more");
    }
    if (plan->namespaces & SANDBOX_NS_MOUNT ||
        (!policy->root && (policy->mount_count == 0 || policy->mounts_hide)))
        return 0;
    for (size_t i = 0; i < policy->mount_count; i++) {
        enum mount_kind kind = policy->mounts[i].kind;
        if (policy->root && kind != MOUNT_BIND_RO && kind != MOUNT_BIND_RW &&
            kind != MOUNT_OVERLAY && kind != MOUNT_FILE)
            continue;
        error_set(err, ERR_UNSUPPORTED,
                  "sandbox: cannot mount %s: this user has no mount namespace",
                  policy->mounts[i].target);
        return error_hint(
            err,
            "run as root or allow user namespaces; in a container add CAP_SYS_ADMIN or a seccomp "
            "profile that permits unshare; mlhost doctor tells more");
    }
    if (!has_capability(CAP_SYS_CHROOT)) {
        error_set(err, ERR_UNSUPPORTED,
                  "sandbox: cannot enter the root %s: neither a mount namespace nor chroot",
                  policy->root);
        return error_hint(err, "run as root or allow user namespaces; mlhost doctor tells more");
    }
    plan->chroot_only = true;
    return 0;
}

static void plan_maps(struct plan *plan)
{
    const struct sandbox_policy *policy = plan->policy;
    unsigned uid = policy->set_user ? policy->uid : policy->root ? 0 : geteuid();
    unsigned gid = policy->set_user ? policy->gid : policy->root ? 0 : getegid();

    snprintf(plan->uid_map, sizeof plan->uid_map, "%u %u 1\n", uid, geteuid());
    snprintf(plan->gid_map, sizeof plan->gid_map, "%u %u 1\n", gid, getegid());
}

#define OPTIONS_LIMIT 4096 /* of mount(2): a page */

/* Colons and commas mean something in an overlay's options. */
static void append_path(struct buf *out, const char *key, const char *path)
{
    buf_puts(out, key);
    for (; *path; path++) {
        if (*path == ':' || *path == ',' || *path == '\\')
            buf_putc(out, '\\');
        buf_putc(out, *path);
    }
}

static char *overlay_options(const struct plan *plan, const struct sandbox_mount *mount)
{
    cleanup_buf struct buf options = BUF_INIT;

    if (!mount->lowers)
        append_path(&options, "lowerdir=", mount->source);
    for (size_t i = 0; mount->lowers && mount->lowers[i]; i++)
        append_path(&options, i ? ":" : "lowerdir=", mount->lowers[i]);
    append_path(&options, ",upperdir=", mount->upper);
    append_path(&options, ",workdir=", mount->work);
    if (plan->namespaces & SANDBOX_NS_USER || sandbox_ids() != SANDBOX_IDS_ALL)
        buf_puts(&options, ",userxattr"); /* has the next two off, and suffers no word of them */
    else if (mount->lowers)               /* its upper folder is read by others than this kernel */
        buf_puts(&options, ",redirect_dir=off,metacopy=off");
    return buf_steal(&options);
}

static int plan_mount(struct plan *plan, const struct sandbox_mount *mount, struct error *err)
{
    bool needs_source = mount->kind == MOUNT_BIND_RO || mount->kind == MOUNT_BIND_RW ||
                        mount->kind == MOUNT_OVERLAY;

    if (!mount->target || mount->target[0] != '/')
        return error_set(err, ERR_INVALID, "sandbox: a mount's target must be absolute: %s",
                         mount->target ? mount->target : "(none)");
    if (needs_source && (!mount->source || mount->source[0] != '/'))
        return error_set(err, ERR_INVALID, "sandbox: the source of mount %s must be absolute",
                         mount->target);
    if (mount->kind == MOUNT_OVERLAY && (!mount->upper || !mount->work))
        return error_set(err, ERR_INVALID, "sandbox: overlay %s needs an upper and a work folder",
                         mount->target);
    if (mount->kind == MOUNT_FILE && !plan->policy->root)
        return error_set(err, ERR_INVALID, "sandbox: file %s needs a root", mount->target);
    if (mount->kind == MOUNT_DEV && strcmp(mount->target, "/dev") != 0)
        return error_set(err, ERR_INVALID, "sandbox: devices go to /dev, not to %s", mount->target);
    if (mount->lowers && plan->overlays_copied) {
        error_set(err, ERR_UNSUPPORTED, "sandbox: no overlay of %s can be had here", mount->source);
        return error_hint(err, "put the state folder on a file system that can hold one: ext4, "
                               "xfs, btrfs or tmpfs, not another overlay");
    }
    bool in_place_of_root = mount->kind == MOUNT_OVERLAY && strcmp(mount->target, "/") == 0;
    struct tree *tree = in_place_of_root ? &plan->root : &plan->trees[plan->tree_count++];
    *tree = (struct tree){.kind = mount->kind,
                          .source = mount->source,
                          .may_go = mount->may_go,
                          .mount = mount,
                          .fd = -1};
    if (!in_place_of_root)
        tree->target = mem_strdup(mount->target);
    if (mount->kind == MOUNT_OVERLAY && plan->overlays_copied) {
        tree->kind = MOUNT_BIND_RW;
        tree->source = mount->upper;
    } else if (mount->kind == MOUNT_OVERLAY) {
        tree->options = overlay_options(plan, mount);
        tree->several = mount->lowers != NULL;
        if (strlen(tree->options) >= OPTIONS_LIMIT)
            return error_set(err, ERR_TOO_LARGE, "sandbox: too many folders in the overlay %s",
                             mount->target);
    }
    if (mount->size)
        snprintf(tree->size, sizeof tree->size, "%llu", (unsigned long long)mount->size);
    return 0;
}

/* Devices can be written to where they are, and could not be opened in a mount of ours. */
static bool can_lie_over(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)) &&
           (strncmp(path, "/dev/", 5) != 0 || strcmp(path, "/dev/shm") == 0);
}

static int plan_mounts(struct plan *plan, struct error *err)
{
    const struct sandbox_policy *policy = plan->policy;
    bool own_proc =
        !policy->root && plan->namespaces & SANDBOX_NS_PID && plan->namespaces & SANDBOX_NS_MOUNT;

    plan->trees =
        mem_array(NULL, policy->mount_count + policy->write_count + 1, sizeof *plan->trees);
    plan->root = (struct tree){.kind = MOUNT_BIND_RW, .source = policy->root, .fd = -1};
    /* On the host's files made read-only, what may be written is laid over itself. */
    for (size_t i = 0; !policy->root && policy->root_read_only && i < policy->write_count; i++) {
        const struct sandbox_mount itself = {.kind = MOUNT_BIND_RW,
                                             .source = policy->write_paths[i],
                                             .target = policy->write_paths[i]};
        if (can_lie_over(policy->write_paths[i]) && plan_mount(plan, &itself, err) < 0)
            return -1;
    }
    if (own_proc) {
        const struct sandbox_mount proc = {.kind = MOUNT_PROC, .target = "/proc"};
        if (plan_mount(plan, &proc, err) < 0)
            return -1;
        plan->trees[plan->tree_count - 1].optional =
            true; /* refused inside containers that hide parts of theirs */
    }
    for (size_t i = 0; i < policy->mount_count; i++) {
        if (plan_mount(plan, &policy->mounts[i], err) < 0)
            return -1;
    }
    return 0;
}

static const char *search_path(const struct sandbox_policy *policy)
{
    for (char *const *entry = policy->env; entry && *entry; entry++) {
        if (strncmp(*entry, "PATH=", 5) == 0)
            return *entry + 5;
    }
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

static void add_candidate(struct plan *plan, char *path)
{
    plan->candidates =
        mem_array(plan->candidates, plan->candidate_count + 1, sizeof *plan->candidates);
    plan->candidates[plan->candidate_count++] = path;
}

static void plan_candidates(struct plan *plan)
{
    const struct sandbox_policy *policy = plan->policy;
    const char *name = policy->file ? policy->file : policy->argv[0];

    if (policy->file || strchr(name, '/')) {
        add_candidate(plan, mem_strdup(name));
        return;
    }
    for (const char *folder = search_path(policy); *folder;) {
        size_t len = strcspn(folder, ":");
        if (len > 0) /* an empty entry would be the working folder: whoever writes there would
                        choose the program */
            add_candidate(plan, mem_printf("%.*s/%s", (int)len, folder, name));
        folder += len + (folder[len] == ':');
    }
}

static int plan_filters(struct plan *plan, struct error *err)
{
    const struct sandbox_policy *policy = plan->policy;

    if (policy->syscalls == SANDBOX_SYSCALLS_NONE)
        return 0;
    if (policy->syscalls == SANDBOX_SYSCALLS_VM)
        plan->filters[plan->filter_count++] = filter_program(FILTER_VM, err);
    else {
        plan->filters[plan->filter_count++] = filter_program(FILTER_COMMAND, err);
        plan->filters[plan->filter_count++] = filter_program(
            policy->net_allowed ? FILTER_COMMAND_ONLINE : FILTER_COMMAND_OFFLINE, err);
        if (!policy->root)
            plan->filters[plan->filter_count++] = filter_program(FILTER_COMMAND_HOST, err);
    }
    for (size_t i = 0; i < plan->filter_count; i++) {
        if (plan->filters[i])
            continue;
        if (policy->required & SANDBOX_LAYER_SECCOMP)
            return -1;
        plan->filter_count = 0; /* half of a filter is none */
        plan->unfiltered = true;
    }
    return 0;
}

static int plan_make(struct plan *plan, struct error *err)
{
    const struct sandbox_policy *policy = plan->policy;

    if (!policy->fn && (!policy->argv || !policy->argv[0] || !policy->env))
        return error_set(err, ERR_USAGE, "sandbox: a command needs argv and env");
    if (!policy->fn && policy->syscalls == SANDBOX_SYSCALLS_VM)
        return error_set(err, ERR_USAGE,
                         "sandbox: the filter for scripts forbids to run a program");
    if (policy->required & SANDBOX_LAYER_CGROUP && !policy->group) {
        error_set(err, ERR_UNSUPPORTED, "sandbox: a cgroup is required and cannot be had");
        return error_hint(
            err, "limits are enforced per process (rlimits); drop cgroup from the required layers");
    }
    plan->seal_self = policy->fn && policy->seal_self;
    if (plan_namespaces(plan, err) < 0)
        return -1;
    plan->by_fork = policy->fn && !(plan->namespaces & SANDBOX_NS_PID);
    plan->keeper = !plan->by_fork;
    plan_maps(plan);
    if (plan_mounts(plan, err) < 0 || plan_filters(plan, err) < 0)
        return -1;
    if (!policy->fn)
        plan_candidates(plan);
    plan->process_limit = policy->processes;
    /* Outside of a user namespace the kernel counts all that the user runs on the machine. */
    if (policy->processes && !(plan->namespaces & SANDBOX_NS_USER))
        plan->process_limit += user_threads(policy->set_user ? policy->uid : getuid());
    if (policy->die_with_parent)
        plan->parent_fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    return 0;
}

/* ---- running it ---- */

static pid_t start(struct plan *plan, int *pidfd)
{
    sigset_t all, before;

    *pidfd = -1;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid =
        plan->by_fork ? fork() : sandbox_clone(sandbox_clone_flags(plan->namespaces), pidfd);
    if (pid == 0)
        steps_run(plan);
    int saved = errno;
    if (pid > 0 && *pidfd < 0)
        *pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return pid;
}

static int exec_error(const struct plan *plan, const struct report *report, struct error *err)
{
    const struct sandbox_policy *policy = plan->policy;
    const char *name = policy->file ? policy->file : policy->argv[0];

    if (report->error != ENOENT) {
        error_errno(err, report->error, "cannot run %s", report->detail[0] ? report->detail : name);
        if (report->error == EACCES)
            error_hint(
                err, "it must be an executable file that the permissions of the stage let it read");
        else if (report->error == ENOEXEC)
            error_hint(
                err,
                "it is no program for this machine; a script needs a first line like #!/bin/sh");
        return -1;
    }
    error_set(err, ERR_NOT_FOUND, "command not found: %s", name);
    if (strchr(name, '/'))
        return error_hint(
            err, "the file%s%s does not exist, or what runs it (its #! line, its loader) does not",
            policy->root ? " in the root " : "", policy->root ? policy->root : "");
    return error_hint(err, "looked in %s%s%s", search_path(policy),
                      policy->root ? " inside the root " : "", policy->root ? policy->root : "");
}

static int step_error(const struct plan *plan, const struct report *report, struct error *err)
{
    const struct step *step = &sandbox_steps[report->step];

    if (strcmp(step->name, "exec") == 0)
        return exec_error(plan, report, err);
    if (report->detail[0])
        error_errno(err, report->error, "sandbox: step '%s': %s", step->name, report->detail);
    else
        error_errno(err, report->error, "sandbox: step '%s'", step->name);
    if (step->layer)
        return error_hint(
            err, "this layer is required: mlhost doctor tells what this machine can enforce; "
                 "--allow-degraded runs without it, and every report says so");
    return step->hint ? error_hint(err, "%s", step->hint) : -1;
}

static bool at_overlay(const struct plan *plan, const struct report *report)
{
    bool found = plan->root.kind == MOUNT_OVERLAY && strcmp(plan->root.source, report->detail) == 0;

    for (size_t i = 0; i < plan->tree_count; i++) {
        const struct tree *tree = &plan->trees[i];
        found = found || (tree->kind == MOUNT_OVERLAY && strcmp(tree->source, report->detail) == 0);
    }
    return found && strcmp(sandbox_steps[report->step].name, "mounts") == 0;
}

/* Reads what the child reports until it has loaded its program or failed. 0: it runs; *left_out are
 * layers that do not hold. */
static int follow(const struct plan *plan, int fd, unsigned *left_out, bool *no_overlay,
                  struct error *err)
{
    struct report report;

    for (;;) {
        ssize_t n = read(fd, &report, sizeof report);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            return 0;
        if (n != sizeof report)
            return error_set(err, ERR_INTERNAL, "sandbox: the child reports nonsense");
        report.detail[sizeof report.detail - 1] = '\0';
        if (report.failed) {
            *no_overlay = at_overlay(plan, &report);
            return step_error(plan, &report, err);
        }
        *left_out |= sandbox_steps[report.step].layer;
    }
}

static unsigned layers(const struct plan *plan)
{
    const struct sandbox_policy *policy = plan->policy;
    unsigned layers = plan->namespaces ? SANDBOX_LAYER_NAMESPACES : 0;

    if (policy->group)
        layers |= SANDBOX_LAYER_CGROUP;
    if (policy->syscalls == SANDBOX_SYSCALLS_NONE || plan->seal_self)
        return layers;
    layers |= SANDBOX_LAYER_RLIMITS;
    if (!plan->unfiltered)
        layers |= SANDBOX_LAYER_SECCOMP;
    if (policy->landlock || !policy->net_allowed)
        layers |= SANDBOX_LAYER_LANDLOCK;
    return layers;
}

/* The child waits in its step `user map`, or has failed before and says so on the status pipe. */
static int map_ids(const struct plan *plan, pid_t pid, int fd, struct error *err)
{
    char ready;
    ssize_t n;

    while ((n = read(fd, &ready, 1)) < 0 && errno == EINTR)
        continue;
    if (n != 1)
        return 0;
    if (subids_map(plan->policy->subids, pid, err) < 0)
        return -1;
    n = send(fd, "d", 1, MSG_NOSIGNAL);
    return 0;
}

static int spawn(const struct sandbox_policy *policy, struct sandbox_child *child, bool copied,
                 bool *no_overlay, struct error *err)
{
    cleanup_plan struct plan plan = {
        .policy = policy, .parent_fd = -1, .map_fd = -1, .overlays_copied = copied};
    cleanup_close int null_fd = -1, status = -1, mapper = -1;
    const int given[3] = {policy->stdin_fd, policy->stdout_fd, policy->stderr_fd};
    unsigned left_out = 0;
    int ends[2], map_ends[2];

    *child = (struct sandbox_child){.pid = -1, .pidfd = -1};
    if (plan_make(&plan, err) < 0)
        return -1;
    if (given[0] < 0 || given[1] < 0 || given[2] < 0) {
        null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null_fd < 0)
            return error_errno(err, errno, "sandbox: cannot open /dev/null");
    }
    for (int i = 0; i < 3; i++)
        plan.stdio[i] = given[i] < 0 ? null_fd : given[i];
    plan.keep_fd = policy->keep_fd;
    if (policy->subids && plan.namespaces & SANDBOX_NS_USER) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, map_ends) < 0)
            return error_errno(err, errno, "sandbox: cannot make a pair of sockets");
        mapper = map_ends[0];
        plan.map_fd = map_ends[1];
    }
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_errno(err, errno, "sandbox: cannot make a pipe");
    status = ends[0];
    plan.status_fd = ends[1];
    child->pid = start(&plan, &child->pidfd);
    int saved = errno;
    close(ends[1]);
    if (plan.map_fd >= 0)
        close(plan.map_fd);
    plan.map_fd = -1;
    if (child->pid < 0) {
        error_errno(err, saved, "sandbox: cannot start a process");
        return error_hint(err, "the limit of processes (ulimit -u) or of memory may be reached");
    }
    if (child->pidfd < 0 || (mapper >= 0 && map_ids(&plan, child->pid, mapper, err) < 0) ||
        follow(&plan, status, &left_out, no_overlay, err) < 0) {
        if (child->pidfd < 0)
            error_errno(err, saved, "sandbox: no pidfd for the child");
        kill(child->pid, SIGKILL);
        while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
            ;
        if (child->pidfd >= 0)
            close(child->pidfd);
        *child = (struct sandbox_child){.pid = -1, .pidfd = -1};
        return -1;
    }
    child->namespaces = plan.namespaces;
    child->enforced = layers(&plan) & ~left_out;
    return 0;
}

int sandbox_spawn(const struct sandbox_policy *policy, struct sandbox_child *child,
                  struct error *err)
{
    struct error why = {0};
    bool no_overlay = false;

    if (spawn(policy, child, false, &no_overlay, &why) == 0)
        return 0;
    if (!no_overlay) {
        if (err)
            *err = why;
        return -1;
    }
    /* An upper folder on a file system that cannot hold one (another overlay, as in most
     * containers), or an old kernel. */
    for (size_t i = 0; i < policy->mount_count; i++) {
        const struct sandbox_mount *mount = &policy->mounts[i];
        if (mount->kind == MOUNT_OVERLAY && !mount->lowers &&
            folder_copy(mount->source, mount->upper, err) < 0)
            return -1;
    }
    return spawn(policy, child, true, &no_overlay, err);
}
