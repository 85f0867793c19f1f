#include "run/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/environment.h"
#include "base/mem.h"
#include "base/module.h"
#include "run/services.h"
#include "sandbox/sandbox.h"

#define RECORD_LIMIT (64u << 10)
#define READY_FD     3
#define START        (30 * NS_PER_S)
#define REST         (15 * NS_PER_S) /* of a serving process without its supervising one */
#define KILL_MS      5000
#define LOOK_MS      20

static char *place(const struct config *config, const char *name)
{
    return mem_printf("%s/local/daemon/%s", config->state, name);
}

void daemon_free(struct daemon *daemon)
{
    mem_cleanup(&daemon->url);
    mem_cleanup(&daemon->socket);
    mem_cleanup(&daemon->version);
}

/* ---- the lock: of the open file, so that it is held as long as any process has it open. Its
 * second byte says that somebody is about to serve, its first that daemon.json is true. ---- */

enum { SERVING, STARTING };

static struct flock byte(int which)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = which, .l_len = 1};
}

/* Looking must not take the lock, or a daemon that starts at that moment would find it taken. */
static bool locked(const struct config *config)
{
    cleanup_free char *path = place(config, "lock");
    cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC);
    struct flock lock = byte(SERVING);

    return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

int daemon_lock(const struct config *config, struct error *err)
{
    cleanup_free char *folder = place(config, "");
    cleanup_free char *path = place(config, "lock");
    struct flock lock = byte(STARTING);

    if (dir_make(folder, err) < 0)
        return -1;
    (void)chmod(folder, 0700);
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(err, errno, "%s", path);
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        if (errno != EAGAIN && errno != EACCES)
            return error_errno(err, errno, "locking %s", path);
        error_set(err, ERR_EXISTS, "the services of this workspace are being served already");
        error_hint(err, "mlhost serve --status tells where; mlhost serve --stop ends them");
        return -1;
    }
    return steal_fd(&fd);
}

/* ---- the record ---- */

void daemon_look(const struct config *config, struct daemon *out)
{
    cleanup_free char *path = place(config, "daemon.json");
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value doc = {0};
    struct error ignored = {0};

    *out = (struct daemon){.running = locked(config)};
    if (file_read(AT_FDCWD, path, RECORD_LIMIT, &text, &ignored) < 0 || !text.len ||
        value_from_json(text.data, text.len, path, NULL, &doc, &ignored) < 0)
        return;
    out->pid = (pid_t)value_get_int(&doc, "pid", 0);
    out->port = (int)value_get_int(&doc, "port", 0);
    out->started_ms = value_get_int(&doc, "started", 0);
    out->url = mem_strdup(value_get_string(&doc, "url", NULL));
    out->socket = mem_strdup(value_get_string(&doc, "socket", NULL));
    out->version = mem_strdup(value_get_string(&doc, "version", NULL));
}

int daemon_record(const struct config *config, int lock_fd, pid_t pid, const char *url,
                  const char *socket, struct error *err)
{
    struct flock lock = byte(SERVING);
    cleanup_free char *path = place(config, "daemon.json");
    cleanup_value struct value doc = {0};
    cleanup_buf struct buf text = BUF_INIT;
    const char *port = strrchr(url, ':');

    value_set_map(&doc);
    value_put_int(&doc, "pid", pid);
    value_put_int(&doc, "port", port ? strtol(port + 1, NULL, 10) : 0);
    value_put_string(&doc, "url", url);
    value_put_string(&doc, "socket", socket);
    value_put_string(&doc, "version", mlhost_version);
    value_put_int(&doc, "started", clock_wall_ms());
    value_to_json(&doc, TEXT_PRETTY, &text);
    mode_t mask = umask(077);
    int status = file_write(AT_FDCWD, path, text.data, text.len, false, err);
    (void)umask(mask);
    if (status < 0)
        return -1;
    return fcntl(lock_fd, F_OFD_SETLK, &lock) < 0 ? error_errno(err, errno, "locking %s", path) : 0;
}

/* A short path that is the same each time: FNV-1a of the workspace's. */
static char *socket_path(const struct config *config)
{
    cleanup_free char *folder = services_folder(config, true);
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (const char *at = config->state; *at; at++)
        hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
    return mem_printf("%s/mlhost-daemon-%016llx.sock", folder, (unsigned long long)hash);
}

int daemon_listen(const struct config *config, char **path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_free char *own = socket_path(config);
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (strlen(own) >= sizeof address.sun_path) {
        error_set(err, ERR_INVALID, "the path of the services' socket is too long: %s", own);
        return error_hint(err, "/tmp/mlhost-%u must be a folder that is yours alone (mode 0700)",
                          (unsigned)getuid());
    }
    memcpy(address.sun_path, own, strlen(own) + 1);
    (void)unlink(own); /* the lock is ours: what stands there is a dead one's */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 128) < 0)
        return error_errno(err, errno, "listening on %s", own);
    *path = steal_ptr(&own);
    return steal_fd(&fd);
}

/* ---- starting ---- */

static _Noreturn void become(const struct config *config, int port, int ready)
{
    cleanup_free char *port_text = mem_printf("%d", port);
    char *const argv[] = {"mlhost",          "serve",     "--supervised",  "--workspace",
                          config->workspace, "--profile", config->profile, "--port",
                          port_text,         NULL};
    sigset_t none;
    struct sigaction plain = {.sa_handler = SIG_DFL};
    int null = open("/dev/null", O_RDWR);

    if (ready != READY_FD)
        dup2(ready, READY_FD);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    fcntl(READY_FD, F_SETFD, 0);
    syscall(SYS_close_range, 4u, ~0u, 0u);
    for (int signo = 1; signo < 32; signo++)
        sigaction(signo, &plain, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* Credentials of the job, and that by which build agents find what a job left behind, to end
     * it. */
    environment_forget();
    (void)umask(022);
    (void)!chdir("/");
    execv("/proc/self/exe", argv);
    dprintf(READY_FD, "-cannot start the program again: %s", strerror(errno));
    _exit(1);
}

int daemon_start(const struct config *config, int port, int *ready, struct error *err)
{
    int pair[2], reaper = 0, status;

    if (pipe2(pair, O_CLOEXEC) < 0)
        return error_errno(err, errno, "a pipe for the services' process");
    fflush(NULL);
    /* A run adopts what its stages leave behind, in order to end it. This one is to be init's. */
    (void)prctl(PR_GET_CHILD_SUBREAPER, &reaper);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 0);
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        if (fork() == 0)
            become(config, port, pair[1]);
        _exit(0);
    }
    int saved = errno;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    (void)prctl(PR_SET_CHILD_SUBREAPER, reaper);
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return error_errno(err, saved, "cannot start the services' process");
    }
    *ready = pair[0];
    return 0;
}

int daemon_started(int ready, int64_t deadline, struct error *err)
{
    char said[1024];
    size_t len = 0;
    cleanup_close int fd = ready;

    while (len < sizeof said - 1) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int n = poll(&wait, 1, deadline_poll_ms(deadline));
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            return error_set(err, ERR_TIMEOUT, "the services' process does not get ready");
        ssize_t got = read(fd, said + len, sizeof said - 1 - len);
        if (got <= 0)
            break;
        len += (size_t)got;
    }
    said[len] = '\0';
    if (said[0] == '+')
        return 0;
    return error_set(err, ERR_IO, "%s", said[0] ? said + 1 : "the services' process ended at once");
}

void daemon_answer(const struct config *config, const struct error *failure, struct value *out)
{
    cleanup_daemon struct daemon daemon = {0};

    value_set_map(out);
    if (!failure)
        daemon_look(config, &daemon);
    if (!failure && daemon.running && daemon.socket) {
        value_put_string(out, "socket", daemon.socket);
        value_put_string(out, "url", daemon.url);
    } else {
        value_put_string(out, "by", failure ? failure->message : "they ended again at once");
    }
}

int daemon_ensure(const struct config *config, struct error *err)
{
    cleanup_daemon struct daemon daemon;
    int ready;

    daemon_look(config, &daemon);
    if (daemon.running)
        return 0;
    if (daemon_start(config, 0, &ready, err) < 0)
        return -1;
    return daemon_started(ready, deadline_in(START), err);
}

/* ---- stopping ---- */

/* SIGTERM, and SIGKILL to the tree at the deadline. 1 ended, 2 had to be killed. */
static int end_process(int pidfd, pid_t pid, int64_t deadline, struct error *err)
{
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    int n;

    if (pidfd_send_signal(pidfd, SIGTERM, NULL, 0) < 0 && errno != ESRCH)
        return error_errno(err, errno, "cannot stop process %d", (int)pid);
    while ((n = poll(&end, 1, deadline_poll_ms(deadline))) < 0 && errno == EINTR)
        continue;
    if (n > 0)
        return 1;
    sandbox_kill_descendants(pid);
    (void)pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
    (void)poll(&end, 1, KILL_MS);
    return 2;
}

/* A serving process whose supervising one was killed ends by itself, and holds the lock until its
 * models have drained. Nobody can be woken by a lock without taking it, hence the looking. */
static bool unlocked(const struct config *config, int64_t deadline)
{
    const struct timespec pause = {.tv_nsec = LOOK_MS * NS_PER_MS};

    while (locked(config)) {
        if (deadline_passed(deadline))
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

/* What a killed one left. With the lock, or it might be the socket of the next one. */
static void remove_socket(const struct config *config, const char *path)
{
    struct error ignored = {0};

    if (!path || access(path, F_OK) < 0)
        return;
    cleanup_close int lock = daemon_lock(config, &ignored);
    if (lock >= 0)
        (void)unlink(path);
}

/* The pid of a record may have been given to another process by now: only with the lock held is it
 * the daemon's, and the pidfd, once open, stays that process's. */
int daemon_stop(const struct config *config, int64_t deadline, struct error *err)
{
    cleanup_daemon struct daemon daemon;
    int how = 1;

    daemon_look(config, &daemon);
    if (!daemon.running)
        return 0;
    cleanup_close int pidfd = daemon.pid > 0 ? pidfd_open(daemon.pid, 0) : -1;
    if (!locked(config))
        return 0;
    if (pidfd >= 0)
        how = end_process(pidfd, daemon.pid, deadline, err);
    if (how < 0)
        return -1;
    if (!unlocked(config, pidfd >= 0 ? deadline_in(REST) : deadline)) {
        error_set(err, ERR_TIMEOUT, "the services are still held by a process that cannot be seen");
        return error_hint(err, "stop it where it was started: it may run in a container");
    }
    remove_socket(config, daemon.socket);
    return how;
}
