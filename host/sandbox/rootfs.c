/*
 * The root file system, by the mount API of Linux 5.12: every mount is first made detached, while
 * the host's paths are in view, and attached after the root has changed. So a link inside an image
 * can lead nowhere but into the image.
 */
#include "sandbox/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEVICE_SPACE "67108864" /* of /dev, in which /dev/shm lies */

const char *const sandbox_devices[DEVICE_COUNT] = {"/dev/null", "/dev/zero", "/dev/full",
                                                   "/dev/random", "/dev/urandom"};

static int close_keeping_errno(int fd)
{
    int saved = errno;

    close(fd);
    errno = saved;
    return -1;
}

static int new_mount(const char *type, const char *const *options, unsigned attributes)
{
    int fs = fsopen(type, FSOPEN_CLOEXEC);

    if (fs < 0)
        return -1;
    for (; *options; options += 2) {
        if (fsconfig(fs, FSCONFIG_SET_STRING, options[0], options[1], 0) < 0)
            return close_keeping_errno(fs);
    }
    if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return close_keeping_errno(fs);
    int mount_fd = fsmount(fs, FSMOUNT_CLOEXEC, attributes);
    close_keeping_errno(fs);
    return mount_fd;
}

static int clone_tree(const char *source, uint64_t attributes)
{
    struct mount_attr attr = {.attr_set = attributes};
    int fd = open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

    if (fd >= 0 && attributes &&
        mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr) < 0)
        return close_keeping_errno(fd);
    return fd;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno != EINTR)
            return -1;
        data += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* One file of a file system of its own. Only of what is attached can a part be cloned, before Linux
 * 6.15: for that moment it lies over the root-to-be, which in this namespace nobody else sees. */
static int file_tree(const struct plan *plan, const struct sandbox_mount *file)
{
    static const char *const options[] = {"mode", "0755", NULL};
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    const char *place = plan->policy->root;
    int fs = new_mount("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);

    if (fs < 0)
        return -1;
    int fd = openat(fs, "file", O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        return close_keeping_errno(fs);
    int status = write_all(fd, file->data, file->len) < 0 || fchown(fd, file->uid, file->gid) < 0 ||
                         fchmod(fd, file->mode) < 0
                     ? -1
                     : 0;
    close_keeping_errno(fd);
    if (status < 0 || move_mount(fs, "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return close_keeping_errno(fs);
    int tree = open_tree(fs, "file", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    close_keeping_errno(fs);
    int saved = errno;
    umount2(place, MNT_DETACH);
    errno = saved;
    if (tree >= 0 && mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
        return close_keeping_errno(tree);
    return tree;
}

/* A detached copy of the mount at `source`, or of a path in it that no link leads to. */
static int open_below(const char *source, const char *sub)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC,
                           .resolve =
                               RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};

    if (!sub || !*sub)
        return open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    int folder = open(source, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return -1;
    int at = (int)syscall(SYS_openat2, folder, sub, &how, sizeof how);
    close_keeping_errno(folder);
    if (at < 0)
        return -1;
    int fd = open_tree(at, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    close_keeping_errno(at);
    return fd;
}

/* The old mount call, since overlays take several lower folders by fsconfig only from 6.5 on. It is
 * laid over the lower folder itself, which in this namespace nobody else sees. */
static int overlay_tree(const struct plan *plan, const struct tree *tree)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    unsigned long flags = MS_NODEV | (plan->policy->gain_privileges ? 0 : MS_NOSUID);

    if (tree->several && chdir(tree->source) < 0)
        return -1;
    if (mount("overlay", tree->source, "overlay", flags, tree->options) < 0)
        return -1;
    int fd = open_below(tree->source, tree->mount ? tree->mount->sub : NULL);
    int saved = errno;
    umount2(tree->source, MNT_DETACH);
    errno = saved;
    if (fd >= 0 && tree->mount && tree->mount->read_only &&
        mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
        return close_keeping_errno(fd);
    return fd;
}

static int open_devices(struct plan *plan)
{
    static const char *const pts[] = {"mode", "0620", "ptmxmode", "0666", NULL};

    plan->terminals = new_mount("devpts", pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    for (int i = 0; i < DEVICE_COUNT; i++) {
        plan->devices[i] = clone_tree(sandbox_devices[i], MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
        if (plan->devices[i] < 0) {
            plan->detail = sandbox_devices[i];
            return -1;
        }
    }
    return 0;
}

static int open_masks(struct plan *plan)
{
    for (int i = 0; i < MASK_COUNT; i++) {
        plan->masks[i] = clone_tree("/dev/null", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
        if (plan->masks[i] < 0)
            return -1;
    }
    return 0;
}

static int open_one(struct plan *plan, struct tree *tree)
{
    const char *const tmpfs[] = {"mode", "1777", tree->size[0] ? "size" : NULL, tree->size, NULL};
    static const char *const dev[] = {"mode", "0755", "size", DEVICE_SPACE, NULL};
    static const char *const none[] = {NULL};

    switch (tree->kind) {
    case MOUNT_BIND_RO:
        return clone_tree(tree->source, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    case MOUNT_BIND_RW:
        return clone_tree(tree->source, tree == &plan->root && plan->policy->gain_privileges
                                            ? MOUNT_ATTR_NODEV
                                            : MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    case MOUNT_TMPFS:
        return new_mount("tmpfs", tmpfs, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    case MOUNT_PROC:
        if (open_masks(plan) < 0)
            return -1;
        return new_mount("proc", none, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    case MOUNT_DEV:
        return open_devices(plan) < 0
                   ? -1
                   : new_mount("tmpfs", dev, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    case MOUNT_OVERLAY:
        return overlay_tree(plan, tree);
    case MOUNT_FILE:
        return file_tree(plan, tree->mount);
    }
    errno = EINVAL;
    return -1;
}

static int detach_tree(struct plan *plan, struct tree *tree)
{
    struct stat st;

    plan->detail = tree->source ? tree->source : tree->target;
    tree->fd = open_one(plan, tree);
    if (tree->fd < 0)
        return tree->optional ? 0 : -1;
    if (fstat(tree->fd, &st) < 0)
        return -1;
    tree->directory = S_ISDIR(st.st_mode);
    plan->detail = NULL;
    return 0;
}

int rootfs_detach(struct plan *plan)
{
    if (!(plan->namespaces & SANDBOX_NS_MOUNT))
        return 0;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -1;
    if (plan->policy->root && detach_tree(plan, &plan->root) < 0)
        return -1;
    for (size_t i = 0; i < plan->tree_count; i++) {
        if (detach_tree(plan, &plan->trees[i]) < 0)
            return -1;
    }
    return 0;
}

int rootfs_enter(struct plan *plan)
{
    if (!plan->policy->root)
        return 0;
    plan->detail = plan->policy->root;
    if (plan->chroot_only)
        return chroot(plan->policy->root) < 0 ? -1 : chdir("/");
    if (move_mount(plan->root.fd, "", AT_FDCWD, plan->policy->root, MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
        fchdir(plan->root.fd) < 0)
        return -1;
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        if (umount2(".", MNT_DETACH) < 0)
            return -1;
    } else if (errno != EINVAL || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0) {
        return -1; /* EINVAL: the machine runs from an initramfs, which cannot be pivoted away */
    }
    if (chdir("/") < 0)
        return -1;
    plan->detail = NULL;
    return 0;
}

/* Makes the place for a mount: the folders on the way, and a folder or an empty file at the end. */
static int make_place(char *path, bool directory)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int rc = mkdir(path, 0755);
        *slash = '/';
        if (rc < 0 && errno != EEXIST && errno != EROFS)
            return -1;
    }
    if (directory)
        return mkdir(path, 0755) < 0 && errno != EEXIST && errno != EROFS ? -1 : 0;
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno == EEXIST || errno == EROFS ? 0 : -1;
    close(fd);
    return 0;
}

static int attach_devices(struct plan *plan)
{
    static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"},
                                           {"/proc/self/fd/0", "/dev/stdin"},
                                           {"/proc/self/fd/1", "/dev/stdout"},
                                           {"/proc/self/fd/2", "/dev/stderr"}};

    for (int i = 0; i < DEVICE_COUNT; i++) {
        plan->detail = sandbox_devices[i];
        int fd = open(sandbox_devices[i], O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
        if (fd < 0)
            return -1;
        close(fd);
        if (move_mount(plan->devices[i], "", AT_FDCWD, sandbox_devices[i],
                       MOVE_MOUNT_F_EMPTY_PATH) < 0)
            return -1;
    }
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        if (symlink(links[i][0], links[i][1]) < 0)
            return -1;
    }
    if (mkdir("/dev/shm", 0755) < 0 || chmod("/dev/shm", 01777) < 0)
        return -1;
    /* A set of terminals of its own. */
    if (plan->terminals >= 0 &&
        (mkdir("/dev/pts", 0755) < 0 || symlink("pts/ptmx", "/dev/ptmx") < 0 ||
         move_mount(plan->terminals, "", AT_FDCWD, "/dev/pts", MOVE_MOUNT_F_EMPTY_PATH) < 0))
        return -1;
    plan->detail = NULL;
    return 0;
}

/* Root inside is root to the kernel when there is no user namespace, and the machine's settings
 * belong to root: /proc/sys/kernel/core_pattern names a program that the kernel runs outside of all
 * this. Only Landlock would keep a command from them, and not every command is under its rules. */
static int protect_proc(struct plan *plan, int proc)
{
    static const char *const fixed[] = {"sys", "sysrq-trigger", "irq",  "bus",
                                        "fs",  "acpi",          "scsi", "asound"};
    static const char *const masked[MASK_COUNT] = {"kcore",      "keys",        "latency_stats",
                                                   "timer_list", "timer_stats", "sched_debug"};
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                                          MOUNT_ATTR_NOEXEC};

    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        plan->detail = fixed[i];
        int fd = open_tree(proc, fixed[i], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (fd < 0 && errno == ENOENT)
            continue;
        if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0 ||
            move_mount(fd, "", proc, fixed[i], MOVE_MOUNT_F_EMPTY_PATH) < 0)
            return -1;
    }
    for (int i = 0; i < MASK_COUNT; i++) {
        plan->detail = masked[i];
        if (move_mount(plan->masks[i], "", proc, masked[i], MOVE_MOUNT_F_EMPTY_PATH) < 0 &&
            errno != ENOENT)
            return -1;
    }
    plan->detail = NULL;
    return 0;
}

/* Without a mount namespace, in a root of our own: folders instead of mounts. */
static int make_plain_places(struct plan *plan)
{
    for (size_t i = 0; i < plan->tree_count; i++) {
        struct tree *tree = &plan->trees[i];
        plan->detail = tree->target;
        if (make_place(tree->target, true) < 0)
            return -1;
        if (tree->kind == MOUNT_TMPFS && chmod(tree->target, 01777) < 0)
            return -1;
    }
    plan->detail = NULL;
    return 0;
}

int rootfs_attach(struct plan *plan)
{
    const struct sandbox_policy *policy = plan->policy;

    if (plan->chroot_only)
        return make_plain_places(plan);
    if (!(plan->namespaces & SANDBOX_NS_MOUNT))
        return 0;
    if (!policy->root && policy->root_read_only) {
        struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
        if (mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof attr) < 0)
            return -1;
    }
    for (size_t i = 0; i < plan->tree_count; i++) {
        struct tree *tree = &plan->trees[i];
        if (tree->fd < 0)
            continue;
        plan->detail = tree->target;
        if (tree->may_go && access(tree->target, F_OK) < 0)
            continue;
        if (make_place(tree->target, tree->directory) < 0 ||
            move_mount(tree->fd, "", AT_FDCWD, tree->target, MOVE_MOUNT_F_EMPTY_PATH) < 0) {
            if (!tree->optional && !(tree->may_go && errno == ENOENT))
                return -1;
        } else if ((tree->kind == MOUNT_DEV && attach_devices(plan) < 0) ||
                   (tree->kind == MOUNT_PROC && !tree->optional &&
                    protect_proc(plan, tree->fd) < 0)) {
            return -1;
        }
    }
    plan->detail = NULL;
    return 0;
}

int rootfs_protect(struct plan *plan)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};

    if (!plan->policy->root || !plan->policy->root_read_only || plan->chroot_only)
        return 0;
    return mount_setattr(AT_FDCWD, "/", 0, &attr, sizeof attr);
}
