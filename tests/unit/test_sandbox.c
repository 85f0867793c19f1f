/*
 * The sandbox from inside: each attempt to get out is made by a real child below the real profile,
 * as the caller and, when that is root, as nobody too.
 */
#include "sandbox_check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/landlock.h"

/* Exit statuses below: 0 is "it worked", else the errno of what did not. */
#define SEAL_FAILED 250

static pid_t outside; /* the test program itself, for those who want to touch it */

static int tried(long rc)
{
    return rc < 0 ? errno : 0;
}

/* ---- attempts ---- */

static int open_file(void)
{
    return tried(open("/etc/hostname", O_RDONLY));
}
static int open_shadow_by_self(void)
{
    return tried(open("/proc/self/root"
                      "/etc/passwd",
                      O_RDONLY));
}
static int create_file(void)
{
    return tried(open("/var/tmp/mlhost-escape", O_CREAT | O_WRONLY, 0600));
}
static int tcp_socket(void)
{
    return tried(socket(AF_INET, SOCK_STREAM, 0));
}
static int udp_socket(void)
{
    return tried(socket(AF_INET6, SOCK_DGRAM, 0));
}
static int netlink_socket(void)
{
    return tried(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
}
static int vsock_socket(void)
{
    return tried(socket(AF_VSOCK, SOCK_STREAM, 0));
}
static int hidden_inet_socket(void) /* the kernel looks at 32 bits, a careless filter at 64 */
{
    return tried(syscall(SYS_socket, (1ul << 32) | AF_INET, SOCK_STREAM, 0));
}
static int unix_connect(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/docker.sock"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return fd < 0 ? errno : tried(connect(fd, (struct sockaddr *)&address, sizeof address));
}
static int do_fork(void)
{
    return tried(fork());
}
static int do_exec(void)
{
    char *argv[] = {(char *)"true", NULL};
    return tried(execve("/bin/true", argv, environ));
}
static int kill_outside(void)
{
    return tried(kill(outside, SIGTERM));
}
static int signal_zero_outside(void)
{
    return tried(kill(outside, 0));
}
static int ptrace_outside(void)
{
    return tried(ptrace(PTRACE_ATTACH, outside, NULL, NULL));
}
static int read_outside(void)
{
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)(uintptr_t)&outside, 1};
    return tried(process_vm_readv(outside, &here, 1, &there, 1, 0));
}
static int do_mount(void)
{
    return tried(mount("tmpfs", "/mnt", "tmpfs", 0, NULL));
}
static int new_mount_api(void)
{
    return tried(fsopen("tmpfs", 0));
}
static int do_unshare(void)
{
    return tried(unshare(CLONE_NEWUSER));
}
static int clone_namespace(void)
{
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    return tried(pid);
}
static int do_setns(void)
{
    return tried(setns(0, 0));
}
static int do_clone3(void)
{
    uint64_t args[8] = {0};
    args[4] = SIGCHLD;
    long pid = syscall(SYS_clone3, args, sizeof args);
    if (pid == 0)
        _exit(0);
    return tried(pid);
}
static int io_uring(void)
{
    struct io_uring_params params = {0};
    return tried(syscall(SYS_io_uring_setup, 4, &params));
}
static int add_key(void)
{
    return tried(syscall(SYS_add_key, "user", "mlhost", "x", 1, -2));
}
static int keyctl(void)
{
    return tried(syscall(SYS_keyctl, 0, -3, 0));
}
static int bpf(void)
{
    return tried(syscall(SYS_bpf, 0, NULL, 0));
}
static int perf(void)
{
    return tried(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
}
static int userfaultfd(void)
{
    return tried(syscall(SYS_userfaultfd, 0));
}
static int memfd(void)
{
    return tried(memfd_create("x", 0));
}
static int memfd_not_executable(void)
{
    return tried(memfd_create("x", 8 /* MFD_NOEXEC_SEAL */));
}
static int exec_descriptor(void)
{
    char *argv[] = {(char *)"true", NULL};
    int fd = open("/usr/bin/true", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? 199 : tried(syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH));
}
static int tiocsti(void)
{
    return tried(ioctl(0, TIOCSTI, "x"));
}
static int hidden_tiocsti(void)
{
    return tried(syscall(SYS_ioctl, 0, (1ul << 32) | TIOCSTI, "x"));
}
static int executable_memory(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED
               ? errno
               : 0;
}
static int unknown_call(void)
{
    return tried(syscall(1000));
}
static int reboot_call(void)
{
    return tried(syscall(SYS_reboot, 0, 0, 0, 0));
}
static int handle_by_name(void)
{
    return tried(syscall(SYS_open_by_handle_at, -1, NULL, 0));
}
#ifdef __x86_64__
static int x32_call(void)
{
    return tried(syscall(0x40000000 + SYS_getpid));
}
static int i386_call(void)
{
    int rc;
    __asm__ volatile("int $0x80" : "=a"(rc) : "a"(20) : "memory"); /* getpid of i386 */
    return rc < 0 ? -rc : 0;
}
#endif

struct attempt {
    const char *name;
    int (*fn)(void);
    int expected; /* errno, KILLED or FINE */
};
#define TRY(fn, expected)                                                                          \
    {                                                                                              \
#fn, fn, expected                                                                          \
    }

static void all_as_expected(struct sandbox_policy *policy, const struct attempt *attempts,
                            size_t count)
{
    int wrong = 0;
    for (size_t i = 0; i < count; i++) {
        policy->fn_ctx = (void *)&attempts[i];
        int got = run_policy(policy);
        if (got != attempts[i].expected) {
            print_error("%s: got %d (%s), expected %d\n", attempts[i].name, got,
                        got > 0 ? strerror(got) : "", attempts[i].expected);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}
#define ALL(policy, attempts)                                                                      \
    all_as_expected(policy, attempts, sizeof(attempts) / sizeof *(attempts))

/* ---- the script's process ---- */

static int sealed(void *ctx, int keep_fd)
{
    const struct attempt *attempt = ctx;
    (void)keep_fd;
    if (sandbox_seal(64u << 20, false, NULL) < 0)
        return SEAL_FAILED;
    return attempt->fn();
}

static struct sandbox_policy vm_policy(void)
{
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    policy.syscalls = SANDBOX_SYSCALLS_VM;
    policy.fn = sealed;
    policy.seal_self = true;
    return policy;
}

static void a_script_cannot_get_out(void **state)
{
    (void)state;
    struct sandbox_policy policy = vm_policy();
    const struct attempt attempts[] = {
        TRY(open_file, EPERM),
        TRY(open_shadow_by_self, EPERM),
        TRY(create_file, EPERM),
        TRY(tcp_socket, KILLED),
        TRY(unix_connect, KILLED),
        TRY(do_fork, KILLED),
        TRY(do_exec, KILLED),
        TRY(ptrace_outside, KILLED),
        TRY(read_outside, KILLED),
        TRY(do_mount, KILLED),
        TRY(do_unshare, KILLED),
        TRY(do_setns, KILLED),
        TRY(do_clone3, KILLED),
        TRY(io_uring, KILLED),
        TRY(add_key, KILLED),
        TRY(keyctl, KILLED),
        TRY(bpf, KILLED),
        TRY(perf, KILLED),
        TRY(userfaultfd, KILLED),
        TRY(memfd, KILLED),
        TRY(executable_memory, EPERM),
        TRY(kill_outside, EPERM),
        TRY(tiocsti, EPERM),
        TRY(unknown_call, EPERM),
#ifdef __x86_64__
        TRY(x32_call, KILLED),
        TRY(i386_call, KILLED),
#endif
    };
    ALL(&policy, attempts);
}

static volatile sig_atomic_t alarmed;
static void on_alarm(int signo)
{
    (void)signo;
    alarmed = 1;
}

static int what_a_script_needs(void *ctx, int keep_fd)
{
    struct sigaction action = {.sa_handler = on_alarm};
    const struct itimerval soon = {.it_value = {.tv_usec = 20000}};
    char reply[8] = "";

    (void)ctx;
    if (sandbox_seal(64u << 20, false, NULL) < 0)
        return SEAL_FAILED;
    if (keep_fd != 3 || write(keep_fd, "call", 4) != 4 || read(keep_fd, reply, sizeof reply) != 5 ||
        strcmp(reply, "back") != 0)
        return 1;
    for (size_t size = 16; size < (16u << 20);
         size *= 4) { /* by brk, then by mmap, then grown by mremap */
        char *block = malloc(size);
        if (!block)
            return 2;
        memset(block, 1, size);
        char *larger = realloc(block, 2 * size);
        if (!larger || larger[size - 1] != 1)
            return 3;
        free(larger);
    }
    if (sigaction(SIGALRM, &action, NULL) < 0 || setitimer(ITIMER_REAL, &soon, NULL) < 0)
        return 4;
    for (int64_t end = deadline_in(2 * NS_PER_S); !alarmed;) {
        if (clock_now() > end)
            return 5;
    }
    return prctl(PR_GET_DUMPABLE) == -1 && errno == EPERM ? 0 : 6;
}

static void a_script_can_work(void **state)
{
    (void)state;
    int ends[2];
    char call[8] = "";
    struct error err = {0};
    struct sandbox_child child;
    struct sandbox_policy policy = vm_policy();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    policy.fn = what_a_script_needs;
    policy.keep_fd = ends[1];
    ok(sandbox_spawn(&policy, &child, &err), err);
    close(ends[1]);
    assert_int_equal(read(ends[0], call, 4), 4);
    assert_string_equal(call, "call");
    assert_int_equal(write(ends[0], "back", 5), 5);
    int got = describe(finish(&child));
#ifdef MLHOST_SANITIZED
    assert_true(got == 0 || got == 6); /* its runtime may ask prctl */
#else
    assert_int_equal(got, 0);
#endif
    close(ends[0]);
}

#ifndef MLHOST_SANITIZED
static int take_too_much(void *ctx, int keep_fd)
{
    (void)ctx;
    (void)keep_fd;
    if (sandbox_seal(16u << 20, false, NULL) < 0)
        return SEAL_FAILED;
    void *volatile memory = malloc((size_t)1 << 30); /* volatile: a compiler may leave it out */
    return memory ? 0 : ENOMEM;
}

static void a_script_s_address_space_is_bounded(void **state)
{
    (void)state;
    struct sandbox_policy policy = vm_policy();
    policy.fn = take_too_much;
    assert_int_equal(run_policy(&policy), ENOMEM);
}
#endif

/* ---- commands ---- */

static int attempted(void *ctx, int keep_fd)
{
    (void)keep_fd;
    return ((const struct attempt *)ctx)->fn();
}

static const char *const readable[] = {"/usr", "/lib", "/lib64", "/bin", "/no/such/path"};

static struct sandbox_policy command_policy(void)
{
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.fn = attempted;
    policy.landlock = true;
    policy.read_paths = readable;
    policy.read_count = sizeof readable / sizeof *readable;
    return policy;
}

static void a_command_cannot_get_out(void **state)
{
    (void)state;
    struct sandbox_policy policy =
        command_policy(); /* no namespaces: the filter and Landlock alone */
    int abi = landlock_abi();
    const struct attempt attempts[] = {
        TRY(tcp_socket, EPERM),
        TRY(udp_socket, EPERM),
        TRY(netlink_socket, EPERM),
        TRY(vsock_socket, EPERM),
        TRY(hidden_inet_socket, EPERM),
        TRY(unix_connect, EPERM),
        TRY(ptrace_outside, EPERM),
        TRY(read_outside, EPERM),
        TRY(do_mount, EPERM),
        TRY(new_mount_api, EPERM),
        TRY(do_unshare, EPERM),
        TRY(clone_namespace, EPERM),
        TRY(do_setns, EPERM),
        TRY(do_clone3, ENOSYS),
        TRY(io_uring, EPERM),
        TRY(add_key, EPERM),
        TRY(keyctl, EPERM),
        TRY(bpf, EPERM),
        TRY(perf, EPERM),
        TRY(userfaultfd, EPERM),
        TRY(memfd, EPERM),
        TRY(exec_descriptor, EPERM),
        TRY(tiocsti, EPERM),
        TRY(hidden_tiocsti, EPERM),
        TRY(reboot_call, EPERM),
        TRY(handle_by_name, EPERM),
        TRY(unknown_call, ENOSYS),
        TRY(do_fork, FINE),
        TRY(memfd_not_executable, FINE),
#ifdef __x86_64__
        TRY(x32_call, KILLED),
        TRY(i386_call, KILLED),
#endif
    };
    const struct attempt by_landlock[] = {TRY(open_file, EACCES), TRY(open_shadow_by_self, EACCES),
                                          TRY(create_file, EACCES)};
    const struct attempt by_scope[] = {TRY(signal_zero_outside, EPERM), TRY(kill_outside, EPERM)};
    ALL(&policy, attempts);
    if (abi >= 1)
        ALL(&policy, by_landlock);
    if (abi >= 6)
        ALL(&policy, by_scope);
}

static void a_command_with_network_has_the_common_families_only(void **state)
{
    (void)state;
    struct sandbox_policy policy = command_policy();
    const struct attempt attempts[] = {TRY(tcp_socket, FINE), TRY(udp_socket, FINE),
                                       TRY(netlink_socket, FINE), TRY(vsock_socket, EPERM)};
    policy.net_allowed = true;
    ALL(&policy, attempts);
}

static int write_where_allowed(void *ctx, int keep_fd)
{
    const char *folder = ctx;
    char path[300];
    (void)keep_fd;
    snprintf(path, sizeof path, "%s/file", folder);
    int fd = open(path, O_CREAT | O_RDWR, 0600);
    if (fd < 0 || write(fd, "x", 1) != 1)
        return errno;
    snprintf(path, sizeof path, "%s/sub", folder);
    if (mkdir(path, 0700) < 0)
        return errno;
    snprintf(path, sizeof path, "%s/sub/../../mlhost-outside", folder);
    fd = open(path, O_CREAT | O_RDWR, 0600);
    if (fd >= 0)
        return 101;
    snprintf(path, sizeof path, "%s/link", folder); /* planted: leads out */
    if (symlink("/etc/hostname", path) < 0)
        return errno;
    if (open(path, O_RDONLY) >= 0)
        return 102;
    return open("/dev/null", O_RDWR) < 0 ? errno : 0;
}

static void granted_paths_and_no_others(void **state)
{
    (void)state;
    char *folder = new_folder();
    const char *const writable[] = {folder};
    struct sandbox_policy policy = command_policy();
    policy.write_paths = writable;
    policy.write_count = 1;
    policy.fn = write_where_allowed;
    policy.fn_ctx = folder;
    if (landlock_abi() > 0)
        assert_int_equal(run_policy(&policy), 0);
    remove_folder(folder);
}

static int what_is_open(void *ctx, int keep_fd)
{
    (void)ctx;
    (void)keep_fd;
    for (int fd = 4; fd < 1024; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            return fd;
    }
    for (int fd = 0; fd < 4; fd++) {
        if (fcntl(fd, F_GETFD) < 0)
            return 100 + fd;
    }
    return 0;
}

static void four_descriptors_and_no_more(void **state)
{
    (void)state;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    int low = dup(0), high = fcntl(0, F_DUPFD, 900);
    policy.fn = what_is_open;
    policy.keep_fd =
        0; /* what it is does not matter; that it also is a source for another number does */
    policy.stdout_fd = low;
    assert_int_equal(run_policy(&policy), 0);
    close(low);
    close(high);
}

/* ---- cost ---- */

static int answer(void *ctx, int keep_fd)
{
    (void)ctx;
    (void)keep_fd;
    return 0;
}

static void what_it_costs(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        unsigned namespaces;
        bool command;
    } kinds[] = {
        {"fork of a script's process", 0, false},
        {"command, no namespaces", 0, true},
        {"command, pid and mount", SANDBOX_NS_PID | SANDBOX_NS_MOUNT, true},
    };
    char *argv[] = {(char *)"/bin/true", NULL};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const int rounds = 30;
        struct sandbox_policy policy = kinds[i].command ? command_policy() : vm_policy();
        policy.namespaces = kinds[i].namespaces;
        policy.net_allowed = true;
        policy.fn = kinds[i].command ? NULL : answer;
        policy.argv = argv;
        policy.env = environment;
        run_policy(&policy);
        int64_t start = clock_now();
        for (int round = 0; round < rounds; round++)
            assert_int_equal(run_policy(&policy), 0);
        print_message("cost: %s: %lld us\n", kinds[i].name,
                      (long long)((clock_now() - start) / rounds / 1000));
    }
}

#define T(name) cmocka_unit_test(name)

static int run_all(const char *user)
{
    const struct CMUnitTest tests[] = {
        T(a_script_cannot_get_out),
        T(a_script_can_work),
#ifndef MLHOST_SANITIZED
        T(a_script_s_address_space_is_bounded),
#endif
        T(a_command_cannot_get_out),
        T(a_command_with_network_has_the_common_families_only),
        T(granted_paths_and_no_others),
        T(four_descriptors_and_no_more),
        T(what_it_costs),
    };
    outside = getpid();
    return cmocka_run_group_tests_name(user, tests, NULL, NULL);
}

int main(void)
{
    return as_both_users(run_all);
}
