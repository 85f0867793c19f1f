#include "run/services.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/environment.h"
#include "base/mem.h"
#include "base/module.h"
#include "local/serve.h"
#include "sandbox/sandbox.h"

#define TRIES   3
#define STOP_NS (5 * NS_PER_S)

struct services {
    struct loop *loop;
    const struct config *config;
    services_say *say;
    void *ctx;
    char *path, *log, *lock;
    int fd, lock_fd;
    struct loop_watch *watch, *child_watch;
    pid_t pid;
    int tries;
    bool closing;
};

char *services_folder(const struct config *config, bool lasting)
{
    const char *runtime = lasting ? NULL : getenv("XDG_RUNTIME_DIR");
    struct stat status;

    if (runtime && runtime[0] == '/' && strlen(runtime) < 60 && access(runtime, W_OK) == 0)
        return mem_strdup(runtime);
    cleanup_free char *folder = mem_printf("/tmp/mlhost-%u", (unsigned)getuid());
    if ((mkdir(folder, 0700) == 0 || errno == EEXIST) && lstat(folder, &status) == 0 &&
        S_ISDIR(status.st_mode) && status.st_uid == getuid() && (status.st_mode & 077) == 0)
        return steal_ptr(&folder);
    return mem_strdup(config->state);
}

/*
 * Sockets of hosts that were killed stay behind. Each has a lock file beside it, which its host
 * holds locked for as long as it lives, wherever it lives: /tmp may be shared by containers that do
 * not see each other's processes.
 */
static void sweep(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;

    if (!dir)
        return;
    while ((entry = readdir(dir))) {
        size_t len = strlen(entry->d_name);
        if (strncmp(entry->d_name, "mlhost-", 7) != 0 || len < 12 ||
            strcmp(entry->d_name + len - 5, ".lock") != 0)
            continue;
        cleanup_close int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
            continue;
        cleanup_free char *name = mem_strndup(entry->d_name, len - 5);
        (void)unlinkat(dirfd(dir), name, 0);
        (void)unlinkat(dirfd(dir), entry->d_name, 0);
    }
    closedir(dir);
}

static _Noreturn void serve(struct services *services, pid_t parent)
{
    struct error err = {0};
    sigset_t none;
    struct serve_spec spec = {.config = services->config,
                              .unix_fd = 3,
                              .tcp_fd = -1,
                              .port = 0,
                              .ready_fd = -1,
                              .quiet = true};
    int null = open("/dev/null", O_RDONLY);
    int log = open(services->log, O_WRONLY | O_CREAT | O_APPEND, 0666);

    setsid(); /* a Ctrl-C at the terminal is for the supervisor, which ends this process last */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    prctl(PR_SET_NAME, "mlhost-serve");
    environment_forget();
    if (null >= 0)
        dup2(null, 0);
    if (log >= 0) {
        dup2(log, 1);
        dup2(log, 2);
    }
    int listening = fcntl(services->fd, F_DUPFD, 10);
    if (listening < 0 || dup2(listening, 3) < 0)
        _exit(1);
    syscall(SYS_close_range, 4u, ~0u, 0u);
    fcntl(3, F_SETFD, FD_CLOEXEC);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);

    void *found = module_symbol(MODULE_SERVE, "mlh_serve_main", &err);
    int (*serve_main)(const struct serve_spec *, struct error *) = NULL;
    memcpy(&serve_main, &found, sizeof serve_main);
    int rc = serve_main ? serve_main(&spec, &err) : -1;
    if (rc < 0)
        dprintf(2, "mlhost: %s\n", err.message);
    _exit(rc < 0 ? 1 : 0);
}

static void on_connect(void *ctx, int fd, uint32_t events);

static void on_end(void *ctx, int wait_status)
{
    struct services *services = ctx;

    services->child_watch = NULL;
    services->pid = 0;
    if (services->closing)
        return;
    bool killed = wait_status >= 0 && WIFSIGNALED(wait_status);
    cleanup_free char *text = mem_printf(
        "the embedded services ended (%s %d)%s; their log: %s", killed ? "signal" : "status",
        killed             ? WTERMSIG(wait_status)
        : wait_status >= 0 ? WEXITSTATUS(wait_status)
                           : -1,
        services->tries < TRIES ? "" : " and are not started again", services->log);
    services->say(services->ctx, "error", text);
    if (services->tries < TRIES) {
        services->watch = loop_fd(services->loop, services->fd, EPOLLIN, on_connect, services);
    } else {
        /* A client must get "connection refused" now, not wait for somebody who will never accept.
         */
        fd_cleanup(&services->fd);
        services->fd = -1;
        (void)unlink(services->path);
    }
}

static void on_connect(void *ctx, int fd, uint32_t events)
{
    struct services *services = ctx;
    pid_t parent = getpid();

    (void)fd;
    (void)events;
    loop_end(services->watch);
    services->watch = NULL;
    services->tries++;
    pid_t pid = fork();
    if (pid == 0)
        serve(services, parent);
    int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (pidfd < 0) {
        services->say(services->ctx, "error", "cannot start the embedded services");
        return;
    }
    services->pid = pid;
    services->child_watch = loop_child(services->loop, pidfd, on_end, services);
    services->say(services->ctx, "debug", "started the embedded services");
}

struct services *services_open(struct loop *loop, const struct config *config, services_say *say,
                               void *ctx, struct error *err)
{
    cleanup_free char *folder = services_folder(config, false);
    cleanup_free char *local = path_join(config->state, "local");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_free char *path = mem_printf("%s/mlhost-%d-%llx.sock", folder, (int)getpid(),
                                         (unsigned long long)clock_now() & 0xffffffu);
    cleanup_free char *lock = mem_printf("%s.lock", path);
    cleanup_close int fd = -1;
    cleanup_close int lock_fd = -1;

    if (strlen(path) >= sizeof address.sun_path) {
        error_set(err, ERR_INVALID, "the path of the services' socket is too long: %s", path);
        error_hint(err, "set XDG_RUNTIME_DIR to a short private folder");
        return NULL;
    }
    if (dir_make(local, err) < 0)
        return NULL;
    sweep(folder);
    lock_fd = open(lock, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock_fd < 0 || flock(lock_fd, LOCK_EX) < 0) {
        error_errno(err, errno, "%s", lock);
        return NULL;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    (void)unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, 128) < 0) {
        error_errno(err, errno, "listening on %s", path);
        return NULL;
    }
    struct services *services = mem_alloc(sizeof *services);
    *services = (struct services){
        .loop = loop, .config = config, .say = say, .ctx = ctx, .fd = steal_fd(&fd)};
    services->path = steal_ptr(&path);
    services->lock = steal_ptr(&lock);
    services->lock_fd = steal_fd(&lock_fd);
    services->log = path_join(local, "serve.log");
    services->watch = loop_fd(loop, services->fd, EPOLLIN, on_connect, services);
    return services;
}

const char *services_socket(const struct services *services)
{
    return services ? services->path : NULL;
}

bool services_started(const struct services *services)
{
    return services && services->tries > 0;
}

void services_close(struct services *services)
{
    struct error err = {0};
    int64_t deadline = deadline_in(STOP_NS);

    if (!services)
        return;
    services->closing = true;
    loop_end(services->watch);
    if (services->pid) {
        (void)kill(services->pid, SIGTERM);
        while (services->pid && !deadline_passed(deadline)) {
            if (loop_step(services->loop, deadline, &err) < 0)
                break;
        }
        if (services->pid) {
            sandbox_kill_descendants(services->pid);
            (void)kill(services->pid, SIGKILL);
            (void)waitpid(services->pid, NULL, 0);
        }
        loop_end(services->child_watch);
    }
    fd_cleanup(&services->fd);
    (void)unlink(services->path);
    (void)unlink(services->lock);
    fd_cleanup(&services->lock_fd);
    free(services->lock);
    free(services->path);
    free(services->log);
    free(services);
}
