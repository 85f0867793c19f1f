#include "sandbox/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * The kernel's names and values, up to ABI 7; the distribution's header stops at ABI 2. The syscall
 * numbers are the same on all architectures.
 */
#define CALL_CREATE_RULESET 444
#define CALL_ADD_RULE       445
#define CALL_RESTRICT_SELF  446

#define CREATE_RULESET_VERSION 1u
#define RULE_PATH_BENEATH      1

#define FS_EXECUTE    (UINT64_C(1) << 0)
#define FS_WRITE_FILE (UINT64_C(1) << 1)
#define FS_READ_FILE  (UINT64_C(1) << 2)
#define FS_READ_DIR   (UINT64_C(1) << 3)
#define FS_TRUNCATE   (UINT64_C(1) << 14)
#define FS_IOCTL_DEV  (UINT64_C(1) << 15)

#define NET_BIND_TCP        (UINT64_C(1) << 0)
#define NET_CONNECT_TCP     (UINT64_C(1) << 1)
#define SCOPE_ABSTRACT_UNIX (UINT64_C(1) << 0)
#define SCOPE_SIGNAL        (UINT64_C(1) << 1)

struct ruleset {
    uint64_t handled_fs, handled_net, scoped;
};
struct path_rule {
    uint64_t allowed;
    int32_t parent;
} __attribute__((packed));

int landlock_abi(void)
{
    long abi = syscall(CALL_CREATE_RULESET, NULL, 0, CREATE_RULESET_VERSION);
    return abi < 0 ? 0 : (int)abi;
}

static uint64_t all_file_rights(int abi)
{
    if (abi >= 5)
        return (UINT64_C(1) << 16) - 1; /* .. IOCTL_DEV */
    if (abi >= 3)
        return (UINT64_C(1) << 15) - 1; /* .. TRUNCATE */
    if (abi == 2)
        return (UINT64_C(1) << 14) - 1; /* .. REFER */
    return (UINT64_C(1) << 13) - 1;
}

static size_t ruleset_size(int abi)
{
    return abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
}

static int allow(int ruleset, const char *path, uint64_t rights)
{
    struct stat st;
    int fd = open(path, O_PATH | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == EACCES ? 0 : -1;
    int rc = fstat(fd, &st);
    if (rc == 0) {
        if (!S_ISDIR(st.st_mode)) /* rights on directories are an error for a file */
            rights &= FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV;
        struct path_rule rule = {.allowed = rights, .parent = fd};
        rc = (int)syscall(CALL_ADD_RULE, ruleset, RULE_PATH_BENEATH, &rule, 0);
    }
    int saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

static int allow_all(int ruleset, const struct landlock_rules *rules, uint64_t handled,
                     const char **failed)
{
    static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random",
                                          "/dev/urandom"};
    const uint64_t reading = FS_EXECUTE | FS_READ_FILE | FS_READ_DIR;

    for (size_t i = 0; rules->devices && i < sizeof devices / sizeof *devices; i++) {
        *failed = devices[i];
        if (allow(ruleset, devices[i], handled & (FS_READ_FILE | FS_WRITE_FILE | FS_TRUNCATE)) < 0)
            return -1;
    }
    for (size_t i = 0; i < rules->read_count; i++) {
        *failed = rules->read_paths[i];
        if (allow(ruleset, rules->read_paths[i], handled & reading) < 0)
            return -1;
    }
    for (size_t i = 0; i < rules->write_count; i++) {
        *failed = rules->write_paths[i];
        if (allow(ruleset, rules->write_paths[i], handled) < 0)
            return -1;
    }
    *failed = NULL;
    return 0;
}

int landlock_enter(const struct landlock_rules *rules, const char **failed_path)
{
    int abi = landlock_abi();
    struct ruleset set = {0};

    *failed_path = NULL;
    if (abi == 0) {
        errno = ENOSYS;
        return -1;
    }
    if (rules->files)
        set.handled_fs = all_file_rights(abi);
    if (rules->net && abi >= 4)
        set.handled_net = NET_BIND_TCP | NET_CONNECT_TCP;
    if (abi >= 6)
        set.scoped = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL;
    if (!set.handled_fs && !set.handled_net && !set.scoped)
        return 0;
    int ruleset = (int)syscall(CALL_CREATE_RULESET, &set, ruleset_size(abi), 0);
    if (ruleset < 0)
        return -1;
    int rc = rules->files ? allow_all(ruleset, rules, set.handled_fs, failed_path) : 0;
    if (rc == 0)
        rc = (int)syscall(CALL_RESTRICT_SELF, ruleset, 0);
    int saved = errno;
    close(ruleset);
    errno = saved;
    return rc < 0 ? -1 : 1;
}
