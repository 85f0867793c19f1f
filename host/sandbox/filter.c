#include "sandbox/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#ifndef TIOCLINUX
#define TIOCLINUX 0x541C
#endif

static struct sock_fprog programs[FILTER_COUNT];
static pthread_mutex_t programs_lock = PTHREAD_MUTEX_INITIALIZER;

/* Younger than the libseccomp we build with; the numbers are the same on every architecture. */
static const struct {
    const char *name;
    int number;
} young_calls[] = {
    {"cachestat", 451},  {"fchmodat2", 452},  {"map_shadow_stack", 453},
    {"futex_wake", 454}, {"futex_wait", 455}, {"futex_requeue", 456},
    {"mseal", 462},
};

static int call_number(const char *name)
{
    int number = seccomp_syscall_resolve_name(name);

    if (number >= 0)
        return number;
    for (size_t i = 0; i < sizeof young_calls / sizeof *young_calls; i++) {
        const char *a = young_calls[i].name, *b = name;
        while (*a && *a == *b)
            a++, b++;
        if (*a == *b)
            return young_calls[i].number;
    }
    return -1; /* this architecture has no such call */
}

static int add(scmp_filter_ctx ctx, uint32_t action, const char *name)
{
    int number = call_number(name);
    return number < 0 ? 0 : seccomp_rule_add(ctx, action, number, 0);
}

static int add_if(scmp_filter_ctx ctx, uint32_t action, const char *name,
                  struct scmp_arg_cmp condition)
{
    int number = call_number(name);
    return number < 0 ? 0 : seccomp_rule_add(ctx, action, number, 1, condition);
}

static int fill_vm(scmp_filter_ctx ctx)
{
    int rc = 0;

    for (const struct profile_call *call = profile_vm_allowed; call->name && rc == 0; call++) {
        if (call_number(call->name) == call_number("mmap"))
            rc = add_if(ctx, SCMP_ACT_ALLOW, "mmap", SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
        else
            rc = add(ctx, SCMP_ACT_ALLOW, call->name);
    }
#ifdef MLHOST_SANITIZED
    for (const struct profile_call *call = profile_vm_sanitizer; call->name && rc == 0; call++)
        rc = add(ctx, SCMP_ACT_ALLOW, call->name);
#endif
    for (const char *const *name = profile_vm_killed; *name && rc == 0; name++)
        rc = add(ctx, SCMP_ACT_KILL_PROCESS, *name);
    return rc;
}

static int fill_command(scmp_filter_ctx ctx)
{
    int rc = 0;

    for (const char *const *name = profile_command_allowed; *name && rc == 0; name++)
        rc = add(ctx, SCMP_ACT_ALLOW, *name);
    for (const char *const *name = profile_command_denied; *name && rc == 0; name++)
        rc = add(ctx, SCMP_ACT_ERRNO(EPERM), *name);
    return rc;
}

static bool family_allowed(unsigned family, bool online)
{
    if (family == AF_UNIX)
        return true;
    return online && (family == AF_INET || family == AF_INET6 || family == AF_NETLINK);
}

/* Conditions compare all 64 bits while the kernel looks at 32 of an int: mask, so that high bits
 * hide nothing. */
#define LOW32 UINT64_C(0xffffffff)

static int fill_arguments(scmp_filter_ctx ctx, bool online)
{
    static const uint64_t namespaces[] = {CLONE_NEWNS,  CLONE_NEWCGROUP, CLONE_NEWUTS,
                                          CLONE_NEWIPC, CLONE_NEWUSER,   CLONE_NEWPID,
                                          CLONE_NEWNET};
    const uint32_t deny = SCMP_ACT_ERRNO(EPERM);
    int rc = 0;

    for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces && rc == 0; i++)
        rc = add_if(ctx, deny, "clone", SCMP_A0(SCMP_CMP_MASKED_EQ, namespaces[i], namespaces[i]));
    for (unsigned family = 0; family <= 63 && rc == 0; family++) {
        if (!family_allowed(family, online))
            rc = add_if(ctx, deny, "socket", SCMP_A0(SCMP_CMP_MASKED_EQ, LOW32, family));
    }
    /* beyond the known families: any of the bits 6..31 */
    for (unsigned bit = 6; bit < 32 && rc == 0; bit++)
        rc = add_if(ctx, deny, "socket",
                    SCMP_A0(SCMP_CMP_MASKED_EQ, UINT64_C(1) << bit, UINT64_C(1) << bit));
    /* Landlock does not see sockets in the file system before ABI 9: /run/docker.sock and
     * its like. */
    if (rc == 0 && !online)
        rc = add(ctx, deny, "connect");
    if (rc == 0) /* keystrokes into the terminal of whoever started us */
        rc = add_if(ctx, deny, "ioctl", SCMP_A1(SCMP_CMP_MASKED_EQ, LOW32, TIOCSTI));
    if (rc == 0)
        rc = add_if(ctx, deny, "ioctl", SCMP_A1(SCMP_CMP_MASKED_EQ, LOW32, TIOCLINUX));
    /* programs that are on no disk: no path rule can refuse them */
    if (rc == 0)
        rc = add_if(ctx, deny, "memfd_create", SCMP_A1(SCMP_CMP_MASKED_EQ, MFD_NOEXEC_SEAL, 0));
    if (rc == 0)
        rc = add_if(ctx, deny, "execveat",
                    SCMP_A4(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH));
    if (rc == 0) /* READ_IMPLIES_EXEC */
        rc = add_if(ctx, deny, "personality", SCMP_A0(SCMP_CMP_MASKED_EQ, 0x0400000, 0x0400000));
    return rc;
}

/* A program that is made setuid here would be one to everybody on the machine. */
static int fill_host(scmp_filter_ctx ctx)
{
    static const uint64_t bits[] = {S_ISUID, S_ISGID};
    const uint32_t deny = SCMP_ACT_ERRNO(EPERM);
    int rc = 0;

    for (size_t i = 0; i < 2 && rc == 0; i++) {
        const uint64_t bit = bits[i];
        const struct {
            const char *name;
            struct scmp_arg_cmp mode;
        } calls[] = {{"chmod", SCMP_A1(SCMP_CMP_MASKED_EQ, bit, bit)},
                     {"fchmod", SCMP_A1(SCMP_CMP_MASKED_EQ, bit, bit)},
                     {"fchmodat", SCMP_A2(SCMP_CMP_MASKED_EQ, bit, bit)},
                     {"fchmodat2", SCMP_A2(SCMP_CMP_MASKED_EQ, bit, bit)},
                     {"creat", SCMP_A1(SCMP_CMP_MASKED_EQ, bit, bit)},
                     {"mknod", SCMP_A1(SCMP_CMP_MASKED_EQ, bit, bit)},
                     {"mknodat", SCMP_A2(SCMP_CMP_MASKED_EQ, bit, bit)}};
        for (size_t k = 0; k < sizeof calls / sizeof *calls && rc == 0; k++)
            rc = add_if(ctx, deny, calls[k].name, calls[k].mode);
        /* The mode counts only where a file is made. */
        if (rc == 0)
            rc = seccomp_rule_add(ctx, deny, SCMP_SYS(open), 2,
                                  SCMP_A1(SCMP_CMP_MASKED_EQ, O_CREAT, O_CREAT),
                                  SCMP_A2(SCMP_CMP_MASKED_EQ, bit, bit));
        if (rc == 0)
            rc = seccomp_rule_add(ctx, deny, SCMP_SYS(openat), 2,
                                  SCMP_A2(SCMP_CMP_MASKED_EQ, O_CREAT, O_CREAT),
                                  SCMP_A3(SCMP_CMP_MASKED_EQ, bit, bit));
    }
    return rc;
}

static uint32_t otherwise(enum filter filter)
{
    switch (filter) {
    case FILTER_VM:
        return SCMP_ACT_ERRNO(EPERM);
    case FILTER_COMMAND:
        return SCMP_ACT_ERRNO(ENOSYS);
    default:
        return SCMP_ACT_ALLOW;
    }
}

static int fill(scmp_filter_ctx ctx, enum filter filter)
{
    switch (filter) {
    case FILTER_VM:
        return fill_vm(ctx);
    case FILTER_COMMAND:
        return fill_command(ctx);
    case FILTER_COMMAND_ONLINE:
        return fill_arguments(ctx, true);
    case FILTER_COMMAND_HOST:
        return fill_host(ctx);
    default:
        return fill_arguments(ctx, false);
    }
}

/* The program's bytes, by way of a memory file: libseccomp writes to descriptors only. */
static int export_program(scmp_filter_ctx ctx, struct sock_fprog *program)
{
    /* Sealed against execution: the only kind that a program inside our own command filter may
     * make. */
    cleanup_close int fd = memfd_create("filter", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    struct stat st;

    if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
        fd = memfd_create("filter", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = seccomp_export_bpf(ctx, fd);
    if (rc < 0)
        return rc;
    if (fstat(fd, &st) < 0)
        return -errno;
    size_t size = (size_t)st.st_size, count = size / sizeof(struct sock_filter);
    if (count == 0 || count > BPF_MAXINSNS)
        return -E2BIG;
    struct sock_filter *code = mem_alloc(size);
    if (pread(fd, code, size, 0) != (ssize_t)size) {
        free(code);
        return -EIO;
    }
    program->filter = code;
    program->len = (unsigned short)count;
    return 0;
}

static int compile(enum filter filter, struct sock_fprog *program)
{
    scmp_filter_ctx ctx = seccomp_init(otherwise(filter));

    if (!ctx)
        return -ENOMEM;
    /* Another architecture's numbers (i386 by int 0x80, x32) mean other calls: never let them
     * through. */
    int rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (rc == 0 && filter == FILTER_COMMAND)
        seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* binary tree; a speed matter only */
    if (rc == 0)
        rc = fill(ctx, filter);
    if (rc == 0)
        rc = export_program(ctx, program);
    seccomp_release(ctx);
    return rc;
}

const struct sock_fprog *filter_program(enum filter filter, struct error *err)
{
    int rc = 0;

    pthread_mutex_lock(&programs_lock);
    if (!programs[filter].filter)
        rc = compile(filter, &programs[filter]);
    pthread_mutex_unlock(&programs_lock);
    if (rc < 0) {
        error_errno(err, -rc, "cannot compile a system-call filter");
        return NULL;
    }
    return &programs[filter];
}

int filter_install(const struct sock_fprog *program)
{
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, program);
}
