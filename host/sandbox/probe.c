/* What this kernel, this user and this container can enforce: found by trying, in short-lived
 * children. */
#include "sandbox/cgroup.h"
#include "sandbox/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "sandbox/landlock.h"

bool has_capability(int capability)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    if (syscall(SYS_capget, &header, data) < 0)
        return false;
    return data[capability / 32].effective >> (capability % 32) & 1;
}

bool sandbox_privileged(void)
{
    return geteuid() == 0 && has_capability(CAP_SYS_ADMIN) && has_capability(CAP_SETUID);
}

enum sandbox_ids sandbox_ids(void)
{
    unsigned first, outside, count;
    FILE *map = fopen("/proc/self/uid_map", "re");
    enum sandbox_ids ids = SANDBOX_IDS_ALL; /* a kernel without user namespaces has no such file */
    size_t lines = 0;

    while (map && fscanf(map, "%u %u %u", &first, &outside, &count) == 3) {
        if (lines++ == 0)
            ids = count == UINT32_MAX && outside == 0 ? SANDBOX_IDS_ALL
                  : count == 1                        ? SANDBOX_IDS_ONE
                                                      : SANDBOX_IDS_SOME;
        else
            ids = SANDBOX_IDS_SOME;
    }
    if (map)
        fclose(map);
    return ids;
}

/* ---- namespaces ---- */

static bool put_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return false;
    ssize_t n = write(fd, text, strlen(text));
    close(fd);
    return n >= 0;
}

static bool map_self(uid_t uid, gid_t gid)
{
    char uid_map[48], gid_map[48];

    snprintf(uid_map, sizeof uid_map, "0 %u 1\n", uid);
    snprintf(gid_map, sizeof gid_map, "0 %u 1\n", gid);
    prctl(PR_SET_DUMPABLE, 1);
    put_file("/proc/self/setgroups", "deny");
    return put_file("/proc/self/uid_map", uid_map) && put_file("/proc/self/gid_map", gid_map);
}

/* Runs fn in a child that has these namespaces; 0 or the errno of what did not work. */
static int try_in(unsigned namespaces, int (*fn)(void))
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    int pidfd = -1, status;
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = sandbox_clone(sandbox_clone_flags(namespaces), &pidfd);
    int saved = errno;
    if (pid == 0) {
        if (namespaces & SANDBOX_NS_USER && !map_self(uid, gid))
            _exit(errno);
        if (namespaces & SANDBOX_NS_MOUNT && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
            _exit(errno);
        _exit(fn ? fn() : 0);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        return saved;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (pidfd >= 0)
        close(pidfd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

static struct {
    pthread_mutex_t lock;
    bool filled;
    uid_t uid;
    unsigned tried, usable;
} known = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void try_each(unsigned set, unsigned along)
{
    if (try_in(set, NULL) == 0) {
        known.usable |= set;
        return;
    }
    if (along && try_in(along, NULL) != 0)
        return; /* no user namespace: none of the others either */
    known.usable |= along;
    for (unsigned bit = 1; bit <= SANDBOX_NS_UTS; bit <<= 1) {
        if (set & bit && bit != along && try_in(bit | along, NULL) == 0)
            known.usable |= bit;
    }
}

unsigned namespaces_usable(unsigned wanted)
{
    unsigned along = has_capability(CAP_SYS_ADMIN) ? 0 : SANDBOX_NS_USER;

    if (wanted == 0)
        return 0;
    pthread_mutex_lock(&known.lock);
    if (!known.filled || known.uid != geteuid()) {
        known.filled = true;
        known.uid = geteuid();
        known.tried = known.usable = 0;
    }
    unsigned fresh = (wanted | along) & ~known.tried;
    if (fresh) {
        try_each(fresh | along, along);
        known.tried |= fresh;
    }
    unsigned usable = known.usable & (wanted | along);
    pthread_mutex_unlock(&known.lock);
    return usable == along && !(wanted & along) ? 0 : usable;
}

void namespaces_forget(void)
{
    known.filled = false;
}

/* ---- the other layers ---- */

static bool seccomp_usable(void)
{
    uint32_t action = SECCOMP_RET_KILL_PROCESS;
    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

static int overlay_in_tmpfs(void)
{
    if (mount("tmpfs", "/tmp", "tmpfs", 0, NULL) < 0 || mkdir("/tmp/l", 0755) < 0 ||
        mkdir("/tmp/u", 0755) < 0 || mkdir("/tmp/w", 0755) < 0)
        return errno;
    if (mount("overlay", "/tmp/l", "overlay", 0,
              "lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w,userxattr") < 0 &&
        mount("overlay", "/tmp/l", "overlay", 0, "lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w") <
            0)
        return errno;
    return 0;
}

static int mount_api(void)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    int fd = open_tree(AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

    return fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr) < 0
               ? errno
               : 0;
}

unsigned sandbox_script_layers(void)
{
    unsigned layers = SANDBOX_LAYER_RLIMITS;

    if (seccomp_usable())
        layers |= SANDBOX_LAYER_SECCOMP;
    if (landlock_abi() > 0)
        layers |= SANDBOX_LAYER_LANDLOCK;
    return layers;
}

unsigned sandbox_available(void)
{
    unsigned layers = sandbox_script_layers();
    const unsigned useful = SANDBOX_NS_PID | SANDBOX_NS_MOUNT;
    if ((namespaces_usable(useful) & useful) == useful)
        layers |= SANDBOX_LAYER_NAMESPACES;
    if (cgroup_usable(NULL) & CGROUP_MEMORY)
        layers |= SANDBOX_LAYER_CGROUP;
    return layers;
}

bool sandbox_missing(struct buf *names)
{
    static const struct {
        unsigned layer;
        const char *name;
    } required[] = {{SANDBOX_LAYER_SECCOMP, "syscall filter"},
                    {SANDBOX_LAYER_RLIMITS, "rlimits"},
                    {SANDBOX_LAYER_LANDLOCK, "landlock"}};
    unsigned missing = SANDBOX_REQUIRED_COMMAND & ~sandbox_script_layers();

    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        if (missing & required[i].layer)
            buf_printf(names, "%s%s", names->len ? ", " : "", required[i].name);
    }
    return missing != 0;
}

void sandbox_warm(void)
{
    filter_program(FILTER_VM, NULL);
}

/* ---- for doctor ---- */

static void put(struct value *out, const char *name, bool available, const char *detail)
{
    struct value *entry = value_put(out, name);

    value_set_map(entry);
    value_put_bool(entry, "available", available);
    value_put_string(entry, "detail", detail);
}

static void put_errno(struct value *out, const char *name, int error, const char *good)
{
    put(out, name, error == 0, error == 0 ? good : strerror(error));
}

static void put_landlock(struct value *out)
{
    int abi = landlock_abi();
    cleanup_free char *detail = NULL;

    if (abi == 0)
        detail =
            mem_strdup("not in this kernel, or switched off (lsm= on the kernel's command line)");
    else
        detail = mem_printf("ABI %d: files%s%s%s", abi, abi >= 3 ? ", truncation" : "",
                            abi >= 4 ? ", TCP" : "", abi >= 6 ? ", signals, abstract sockets" : "");
    put(out, "landlock", abi > 0, detail);
}

static void put_namespaces(struct value *out)
{
    static const struct {
        const char *name, *gives;
        unsigned ns;
    } kinds[] = {
        {"user namespace", "a normal user can have the others", SANDBOX_NS_USER},
        {"pid namespace", "a command's processes end with it, and see nobody else", SANDBOX_NS_PID},
        {"mount namespace", "root file systems of images, read-only views", SANDBOX_NS_MOUNT},
        {"net namespace", "no network, not even loopback", SANDBOX_NS_NET},
        {"ipc namespace", "shared memory of its own", SANDBOX_NS_IPC},
        {"uts namespace", "host name of its own", SANDBOX_NS_UTS},
    };
    bool privileged = has_capability(CAP_SYS_ADMIN);

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        unsigned along = privileged ? 0 : SANDBOX_NS_USER;
        put_errno(out, kinds[i].name, try_in(kinds[i].ns | along, NULL), kinds[i].gives);
    }
    unsigned mounting = SANDBOX_NS_MOUNT | (privileged ? 0 : SANDBOX_NS_USER);
    put_errno(out, "mount api", try_in(mounting, mount_api), "detached mounts (Linux 5.12)");
    put_errno(out, "overlayfs", try_in(mounting, overlay_in_tmpfs),
              "images are shared, not copied, between tasks");
}

static void put_process_calls(struct value *out)
{
    struct clone3_probe {
        uint64_t words[8];
    } bad = {{0}};
    struct rlimit files = {0};
    cleanup_free char *detail = NULL;

    cleanup_close int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    put(out, "pidfd", pidfd >= 0,
        pidfd >= 0 ? "children are signalled without mix-up of numbers" : strerror(errno));
    /* An exit signal beyond the last is EINVAL where the call exists, so nothing is cloned. */
    bad.words[4] = 255;
    long rc = syscall(SYS_clone3, &bad, sizeof bad);
    if (rc == 0)
        _exit(0);
    put(out, "clone3", rc < 0 && errno == EINVAL,
        rc < 0 && errno == EINVAL ? "in use" : "clone is used instead");
    getrlimit(RLIMIT_NOFILE, &files);
    detail = mem_printf(
        "open files up to %llu; process counts are %s", (unsigned long long)files.rlim_max,
        getuid() == 0 ? "not limited for root outside of a user namespace" : "limited");
    put(out, "rlimits", true, detail);
}

void sandbox_probe(struct value *out)
{
    cleanup_buf struct buf cgroup = BUF_INIT;
    bool groups = cgroup_usable(&cgroup) != 0;

    value_set_map(out);
    put(out, "syscall filter", seccomp_usable(),
        seccomp_usable() ? "seccomp, with KILL_PROCESS"
                         : "seccomp filters are missing or forbidden here");
    put_landlock(out);
    put_namespaces(out);
    put(out, "cgroup", groups, cgroup.data);
    put_process_calls(out);
}
