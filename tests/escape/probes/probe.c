/*
 * probe ATTEMPT [ARGUMENT]: one attempt to get out of a command's sandbox. Prints "ESCAPED" and
 * ends with 1 when it worked, else prints why not and ends with 0.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_alg.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/vm_sockets.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *argument = "";

/* Each returns what the call returned: below 0 it was refused. */

static int can_read(const char *path)
{
    char byte;
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    return fd < 0 ? -1 : read(fd, &byte, 1) < 0 ? -1 : 0;
}

static int can_write(const char *path)
{
    return open(path, O_WRONLY | O_CREAT, 0600);
}

static int read_file(void)
{
    return can_read(argument);
}
static int write_file(void)
{
    return can_write(argument);
}
static int truncate_file(void)
{
    return truncate(argument, 0);
}
static int open_truncate(void)
{
    return open(argument, O_WRONLY | O_TRUNC);
}
static int append_file(void)
{
    return open(argument, O_WRONLY | O_APPEND);
}
static int unlink_file(void)
{
    return unlink(argument);
}
static int rename_file(void)
{
    return rename(argument, "dist/stolen");
}
static int chmod_file(void)
{
    return chmod(argument, 0777);
}

static int through(const char *format)
{
    char path[4096];
    snprintf(path, sizeof path, format, argument);
    return can_read(path);
}

static int proc_root(void)
{
    return through("/proc/self/root%s");
}
static int proc_one_root(void)
{
    return through("/proc/1/root%s");
}
static int proc_parent_root(void)
{
    char path[4096];
    snprintf(path, sizeof path, "/proc/%d/root%s", (int)getppid(), argument);
    return can_read(path);
}
static int dots(void)
{
    return through("dist/../../../../../../../../..%s");
}

static int hard_link(void)
{
    unlink("dist/hard");
    return link(argument, "dist/hard") < 0 ? -1 : can_read("dist/hard");
}

static int soft_link(void)
{
    unlink("dist/soft");
    return symlink(argument, "dist/soft") < 0 ? -1 : can_read("dist/soft");
}

static int path_descriptor(void)
{
    char path[64];
    int fd = open(argument, O_PATH);
    if (fd < 0)
        return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return can_read(path);
}

static int handle(void)
{
    struct {
        struct file_handle head;
        char bytes[128];
    } h = {.head.handle_bytes = 128};
    int mount;
    int fd = open("/", O_RDONLY | O_DIRECTORY);
    if (name_to_handle_at(AT_FDCWD, argument, &h.head, &mount, 0) < 0)
        return -1;
    return open_by_handle_at(fd, &h.head, O_RDONLY);
}

static int parent_environment(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", (int)getppid());
    return can_read(path);
}
static int parent_memory(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", (int)getppid());
    return open(path, O_RDWR);
}
static int one_environment(void)
{
    return can_read("/proc/1/environ");
}
static int trace_parent(void)
{
    return (int)ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}
static int trace_me(void)
{
    return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}
static int read_parent(void)
{
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    return (int)process_vm_readv(getppid(), &here, 1, &there, 1, 0);
}
/* The keeper passes signals on to us: what must not be is that it ends. */
static int kill_parent(void)
{
    pid_t parent = getppid();
    signal(SIGTERM, SIG_IGN);
    if (kill(parent, SIGKILL) < 0)
        return -1;
    usleep(200000);
    errno = EPERM;
    return getppid() == parent ? -1 : 0;
}
static int stop_parent(void)
{
    pid_t parent = getppid();
    char path[64], text[512] = "";
    if (kill(parent, SIGSTOP) < 0)
        return -1;
    usleep(100000);
    snprintf(path, sizeof path, "/proc/%d/stat", (int)parent);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        return -1;
    kill(parent, SIGCONT);
    errno = EPERM;
    return strstr(text, ") T ") ? 0 : -1;
}

static int new_user_namespace(void)
{
    return unshare(CLONE_NEWUSER);
}
static int new_mount_namespace(void)
{
    return unshare(CLONE_NEWNS);
}
static int new_net_namespace(void)
{
    return unshare(CLONE_NEWNET);
}
static int cloned_namespace(void)
{
    return (int)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
}
static int clone3_namespace(void)
{
    uint64_t args[8] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    return (int)syscall(SYS_clone3, args, sizeof args);
}
static int enter_namespace(void)
{
    int fd = open("/proc/1/ns/mnt", O_RDONLY);
    return fd < 0 ? -1 : setns(fd, 0);
}
static int mount_tmpfs(void)
{
    return mount("none", "dist", "tmpfs", 0, NULL);
}
static int mount_bind(void)
{
    return mount("/", "dist", NULL, MS_BIND, NULL);
}
static int unmount(void)
{
    return umount2("/proc", MNT_DETACH);
}
static int unmount_state(void)
{
    return umount2(".mlhost", MNT_DETACH);
}
static int new_mount_api(void)
{
    return (int)syscall(SYS_fsopen, "tmpfs", 0);
}
static int tree_of_mounts(void)
{
    return (int)syscall(SYS_open_tree, AT_FDCWD, "/", 1);
}
static int change_root(void)
{
    return chroot("dist");
}
static int pivot(void)
{
    return (int)syscall(SYS_pivot_root, "dist", "dist");
}

static int bpf(void)
{
    uint64_t attr[16] = {1, 4, 4, 1};
    return (int)syscall(SYS_bpf, 0, attr, sizeof attr);
}
static int performance_events(void)
{
    struct perf_event_attr attr = {.size = sizeof attr, .exclude_kernel = 1};
    return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
}
static int user_faults(void)
{
    return (int)syscall(SYS_userfaultfd, 1);
}
static int io_uring(void)
{
    struct io_uring_params params = {0};
    return (int)syscall(SYS_io_uring_setup, 4, &params);
}
static int key_add(void)
{
    return (int)syscall(SYS_add_key, "user", "x", "y", 1, -3);
}
static int key_control(void)
{
    return (int)syscall(SYS_keyctl, 0, -3, 0);
}
static int fan_notify(void)
{
    return (int)syscall(SYS_fanotify_init, 0, 0);
}
static int kernel_log(void)
{
    return (int)syscall(SYS_syslog, 10, NULL, 0);
}
static int load_module(void)
{
    return (int)syscall(SYS_finit_module, 0, "", 0);
}
static int kexec(void)
{
    return (int)syscall(SYS_kexec_load, 0, 0, NULL, 0);
}
static int swap_on(void)
{
    return (int)syscall(SYS_swapon, "dist", 0);
}
static int set_clock(void)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    return settimeofday(&now, NULL);
}
static int host_name(void)
{
    return sethostname("x", 1);
}
static int restart_machine(void)
{
    return (int)syscall(SYS_reboot, 0, 0, 0, NULL);
}
static int io_ports(void)
{
    return (int)syscall(SYS_ioperm, 0, 1, 1);
}

static int run_memory(void)
{
    int fd = (int)syscall(SYS_memfd_create, "x", 0);
    if (fd < 0)
        return -1;
    int from = open("/bin/true", O_RDONLY);
    char bytes[65536];
    for (ssize_t n; (n = read(from, bytes, sizeof bytes)) > 0;)
        if (write(fd, bytes, (size_t)n) != n)
            return -1;
    pid_t pid = fork();
    if (pid == 0) {
        char *const words[] = {(char *)"true", NULL};
        syscall(SYS_execveat, fd, "", words, NULL, AT_EMPTY_PATH);
        _exit(99);
    }
    int status;
    waitpid(pid, &status, 0);
    errno = EPERM;
    return status == 0 ? 0 : -1;
}
static int run_descriptor(void)
{
    int fd = open("/bin/true", O_RDONLY);
    char *const words[] = {(char *)"true", NULL};
    pid_t pid = fork();
    if (pid == 0) {
        syscall(SYS_execveat, fd, "", words, NULL, AT_EMPTY_PATH);
        _exit(99);
    }
    int status;
    waitpid(pid, &status, 0);
    errno = EPERM;
    return status == 0 ? 0 : -1;
}
static int executable_data(void)
{
    return personality(0x0400000);
}
static int other_architecture(void)
{
#ifdef __x86_64__
    pid_t pid = fork();
    if (pid == 0) {
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory"); /* getpid of i386 */
        _exit(result > 0 ? 7 : 99);
    }
    int status;
    waitpid(pid, &status, 0);
    errno = EPERM;
    return WIFEXITED(status) && WEXITSTATUS(status) == 7 ? 0 : -1;
#else
    errno = ENOSYS;
    return -1;
#endif
}

static int family(int domain, int type, int protocol)
{
    return socket(domain, type, protocol);
}
static int tcp(void)
{
    return family(AF_INET, SOCK_STREAM, 0);
}
static int udp(void)
{
    return family(AF_INET, SOCK_DGRAM, 0);
}
static int tcp6(void)
{
    return family(AF_INET6, SOCK_STREAM, 0);
}
static int packets(void)
{
    return family(AF_PACKET, SOCK_RAW, 0);
}
static int raw(void)
{
    return family(AF_INET, SOCK_RAW, 1);
}
static int netlink(void)
{
    return family(AF_NETLINK, SOCK_RAW, 0);
}
static int vsock(void)
{
    return family(AF_VSOCK, SOCK_STREAM, 0);
}
static int crypto(void)
{
    return family(AF_ALG, SOCK_SEQPACKET, 0);
}
static int hidden_family(void)
{
    return (int)syscall(SYS_socket, (long)(UINT64_C(1) << 32 | AF_INET), SOCK_STREAM, 0);
}

static int connect_path(const char *path, size_t len, int type)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type, 0);
    if (fd < 0)
        return -1;
    memcpy(to.sun_path, path, len);
    return connect(fd, (struct sockaddr *)&to, (socklen_t)(sizeof to.sun_family + len));
}
static int unix_socket(void)
{
    return connect_path(argument, strlen(argument) + 1, SOCK_STREAM);
}
static int abstract_socket(void)
{
    char name[108] = "";
    size_t len = strlen(argument);
    memcpy(name + 1, argument, len);
    return connect_path(name, len + 1, SOCK_STREAM);
}

static int type_keys(void)
{
    char key = 'x';
    int fd = open("/dev/tty", O_RDWR);
    int here = ioctl(0, TIOCSTI, &key);
    return here == 0 ? 0 : fd < 0 ? -1 : ioctl(fd, TIOCSTI, &key);
}
static int descriptors(void)
{
    for (int fd = 3; fd < 256; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            return 0;
    }
    errno = EBADF;
    return -1;
}
static int device_node(void)
{
    return mknod("dist/device", S_IFCHR | 0600, makedev(1, 1));
}
static int kernel_memory(void)
{
    return open("/dev/mem", O_RDONLY);
}
static int kernel_messages(void)
{
    return open("/dev/kmsg", O_RDONLY);
}
static int disk(void)
{
    static const char *const names[] = {"/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/dm-0"};
    for (size_t i = 0; i < 4; i++) {
        if (open(names[i], O_RDONLY) >= 0)
            return 0;
    }
    return -1;
}
static int kernel_setting(void)
{
    return open("/proc/sys/kernel/core_pattern", O_WRONLY);
}
static int trigger(void)
{
    return open("/proc/sysrq-trigger", O_WRONLY);
}
static int control_group(void)
{
    static const char *const files[] = {
        "/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/pids/cgroup.procs",
        "/sys/fs/cgroup/unified/cgroup.procs", "/sys/fs/cgroup/cgroup.procs"};
    for (size_t i = 0; i < 4; i++) {
        if (open(files[i], O_WRONLY) >= 0)
            return 0;
    }
    return -1;
}

static int make(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0700);
    if (fd >= 0)
        close(fd);
    return fd;
}
static int setuid_mode(void)
{
    return make("dist/s1") < 0 ? -2 : chmod("dist/s1", 04755);
}
static int setgid_mode(void)
{
    return make("dist/s2") < 0 ? -2 : chmod("dist/s2", 02755);
}
static int setuid_descriptor(void)
{
    int fd = open("dist/s3", O_WRONLY | O_CREAT, 0700);
    return fd < 0 ? -2 : fchmod(fd, 04755);
}
static int setuid_at(void)
{
    return make("dist/s4") < 0 ? -2 : fchmodat(AT_FDCWD, "dist/s4", 06755, 0);
}
static int setuid_born(void)
{
    unlink("dist/s5");
    return open("dist/s5", O_WRONLY | O_CREAT, 04755);
}
static int become_root(void)
{
    return getuid() == 0 ? (errno = EPERM, -1) : setuid(0);
}
static int gain_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{~0u, ~0u, 0}, {~0u, ~0u, 0}};
    return (int)syscall(SYS_capset, &head, data);
}
static int new_privileges(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0);
}
static int core_limit(void)
{
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    return setrlimit(RLIMIT_CORE, &unlimited);
}
static int environment_secret(void)
{
    errno = ENOENT;
    return getenv(argument) ? 0 : -1;
}
static int see_processes(void)
{
    errno = ESRCH;
    return kill(atoi(argument), 0) == 0 ? 0 : -1;
}

static const struct {
    const char *name;
    int (*attempt)(void);
} attempts[] = {
#define A(name)                                                                                    \
    {                                                                                              \
#name, name                                                                                \
    }
    A(read_file),
    A(write_file),
    A(truncate_file),
    A(open_truncate),
    A(append_file),
    A(unlink_file),
    A(rename_file),
    A(chmod_file),
    A(proc_root),
    A(proc_one_root),
    A(proc_parent_root),
    A(dots),
    A(hard_link),
    A(soft_link),
    A(path_descriptor),
    A(handle),
    A(parent_environment),
    A(parent_memory),
    A(one_environment),
    A(trace_parent),
    A(trace_me),
    A(read_parent),
    A(kill_parent),
    A(stop_parent),
    A(new_user_namespace),
    A(new_mount_namespace),
    A(new_net_namespace),
    A(cloned_namespace),
    A(clone3_namespace),
    A(enter_namespace),
    A(mount_tmpfs),
    A(mount_bind),
    A(unmount),
    A(unmount_state),
    A(new_mount_api),
    A(tree_of_mounts),
    A(change_root),
    A(pivot),
    A(bpf),
    A(performance_events),
    A(user_faults),
    A(io_uring),
    A(key_add),
    A(key_control),
    A(fan_notify),
    A(kernel_log),
    A(load_module),
    A(kexec),
    A(swap_on),
    A(set_clock),
    A(host_name),
    A(restart_machine),
    A(io_ports),
    A(run_memory),
    A(run_descriptor),
    A(executable_data),
    A(other_architecture),
    A(tcp),
    A(udp),
    A(tcp6),
    A(packets),
    A(raw),
    A(netlink),
    A(vsock),
    A(crypto),
    A(hidden_family),
    A(unix_socket),
    A(abstract_socket),
    A(type_keys),
    A(descriptors),
    A(device_node),
    A(kernel_memory),
    A(kernel_messages),
    A(disk),
    A(kernel_setting),
    A(trigger),
    A(control_group),
    A(setuid_mode),
    A(setgid_mode),
    A(setuid_descriptor),
    A(setuid_at),
    A(setuid_born),
    A(become_root),
    A(gain_capabilities),
    A(new_privileges),
    A(core_limit),
    A(environment_secret),
    A(see_processes),
};

int main(int argc, char **argv)
{
    if (argc > 2)
        argument = argv[2];
    for (size_t i = 0; argc > 1 && i < sizeof attempts / sizeof *attempts; i++) {
        if (strcmp(attempts[i].name, argv[1]) != 0)
            continue;
        errno = 0;
        int got = attempts[i].attempt();
        if (got < -1) {
            printf("cannot be tried: %s\n", strerror(errno));
            return 2;
        }
        printf(got >= 0 ? "ESCAPED\n" : "refused: %s\n", strerror(errno));
        return got >= 0;
    }
    for (size_t i = 0; argc < 2 && i < sizeof attempts / sizeof *attempts; i++)
        puts(attempts[i].name);
    return argc < 2 ? 0 : 3;
}
