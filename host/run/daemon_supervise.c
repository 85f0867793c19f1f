/* The supervising process of a daemon in the background: one child that serves, started anew when
 * it dies, ended when this process is. */
#include "run/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/module.h"
#include "local/serve.h"
#include "sandbox/sandbox.h"

#define STARTER     3
#define BACKOFF_MIN (500 * NS_PER_MS)
#define BACKOFF_MAX (30 * NS_PER_S)
#define STEADY      (60 * NS_PER_S) /* a child that lived so long starts the back-off again */
#define STOP        (30 * NS_PER_S) /* models drain */
#define PORT_FREE   (2 * NS_PER_S)
#define OTHER       (20 * NS_PER_S)
#define LOOK_MS     20
#define LOG_LIMIT   (8 << 20)
#define LOG_KEEP    (1 << 20)
#define LOG_LOOK    (60 * NS_PER_S)

struct supervised {
    const struct config *config;
    char *log, *socket, *url;
    int log_fd, unix_fd, tcp_fd;
    pid_t child;
    bool told; /* the starter knows how it went */
    sigset_t signals;
};

static void tell(struct supervised *s, const char *text)
{
    if (s->told)
        return;
    s->told = true;
    (void)fd_write_all(STARTER, text, strlen(text), NULL);
    close(STARTER);
}

static void note(const struct supervised *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void note(const struct supervised *s, const char *format, ...)
{
    cleanup_buf struct buf line = BUF_INIT;
    time_t now = time(NULL);
    struct tm tm;
    char at[32];
    va_list args;

    gmtime_r(&now, &tm);
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ ", &tm);
    buf_puts(&line, at);
    va_start(args, format);
    buf_vprintf(&line, format, args);
    va_end(args);
    buf_putc(&line, '\n');
    (void)fd_write_all(s->log_fd, line.data, line.len, NULL);
}

/* All writers append, so the file may be cut under them: its end moves to serve.log.1. */
static void bound_log(const struct supervised *s)
{
    struct stat status;

    if (fstat(s->log_fd, &status) < 0 || status.st_size < LOG_LIMIT)
        return;
    cleanup_free char *old = mem_printf("%s.1", s->log);
    cleanup_free char *piece = mem_alloc(LOG_KEEP);
    cleanup_close int from = open(s->log, O_RDONLY | O_CLOEXEC);
    cleanup_close int to = open(old, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t got = from < 0 ? -1 : pread(from, piece, LOG_KEEP, status.st_size - LOG_KEEP);
    if (to >= 0 && got > 0)
        (void)fd_write_all(to, piece, (size_t)got, NULL);
    (void)!ftruncate(s->log_fd, 0);
}

static _Noreturn void serve(const struct supervised *s, int ready, pid_t parent)
{
    struct error err = {0};
    sigset_t none;
    struct serve_spec spec = {.config = s->config,
                              .unix_fd = s->unix_fd,
                              .tcp_fd = s->tcp_fd,
                              .port = -1,
                              .ready_fd = ready,
                              .durable = true,
                              .quiet = true};

    if (!s->told)
        close(STARTER);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    prctl(PR_SET_NAME, "mlhost-serve");
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    void *found = module_symbol(MODULE_SERVE, "mlh_serve_main", &err);
    int (*serve_main)(const struct serve_spec *, struct error *) = NULL;
    memcpy(&serve_main, &found, sizeof serve_main);
    int rc = serve_main ? serve_main(&spec, &err) : -1;
    if (rc < 0) {
        dprintf(2, "mlhost: %s\n", err.message);
        dprintf(ready, "-%s", err.message);
    }
    _exit(rc < 0 ? 1 : 0);
}

/* The serving child's line: it serves, or why it does not. */
static bool read_ready(struct supervised *s, int fd)
{
    char line[1024];
    size_t len = 0;
    ssize_t n;

    while (len < sizeof line - 1 && (n = read(fd, line + len, sizeof line - 1 - len)) != 0) {
        if (n < 0 && errno != EINTR)
            break;
        len += n > 0 ? (size_t)n : 0;
    }
    line[len] = '\0';
    if (strncmp(line, "http://", 7) != 0) {
        note(s, "not ready: %s", len ? line + 1 : "the process ended");
        tell(s, len ? line : "-the services' process ended at once; see serve.log");
        return false;
    }
    note(s, "serving %s, process %d", s->url, (int)s->child);
    tell(s, "+");
    return true;
}

static int start_child(struct supervised *s)
{
    pid_t parent = getpid();
    int pair[2];

    if (pipe2(pair, O_CLOEXEC) < 0)
        return -1;
    s->child = fork();
    if (s->child == 0) {
        close(pair[0]);
        serve(s, pair[1], parent);
    }
    close(pair[1]);
    bool ready = s->child > 0 && read_ready(s, pair[0]);
    close(pair[0]);
    return ready ? 0 : -1;
}

/* The next SIGTERM, SIGINT or SIGCHLD, or 0 at the deadline. */
static int next_signal(const struct supervised *s, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline == DEADLINE_NONE ? LOG_LOOK : deadline - clock_now();
        struct timespec wait = {.tv_sec = left > 0 ? left / NS_PER_S : 0,
                                .tv_nsec = left > 0 ? left % NS_PER_S : 0};
        int signo = sigtimedwait(&s->signals, NULL, &wait);
        if (signo > 0)
            return signo;
        if (errno != EINTR)
            return 0;
    }
}

static bool reaped(struct supervised *s, int *status)
{
    if (s->child <= 0 || waitpid(s->child, status, WNOHANG) != s->child)
        return false;
    s->child = 0;
    return true;
}

static void stop_child(struct supervised *s)
{
    int64_t deadline = deadline_in(STOP);
    int status;

    if (s->child <= 0)
        return;
    kill(s->child, SIGTERM);
    while (!reaped(s, &status)) {
        if (next_signal(s, deadline) == 0 && deadline_passed(deadline)) {
            note(s, "process %d did not end in %lld s: killed", (int)s->child,
                 (long long)(STOP / NS_PER_S));
            sandbox_kill_descendants(s->child);
            kill(s->child, SIGKILL);
            waitpid(s->child, &status, 0);
            break;
        }
    }
}

static int supervise(struct supervised *s)
{
    int64_t backoff = BACKOFF_MIN;
    bool served = false;

    for (;;) {
        int64_t started = clock_now();
        int status = 0;
        served |= start_child(s) == 0;
        while (s->child > 0 && !reaped(s, &status)) {
            int signo = next_signal(s, DEADLINE_NONE);
            if (signo == SIGTERM || signo == SIGINT) {
                stop_child(s);
                note(s, "stopped");
                return 0;
            }
            bound_log(s);
        }
        /* Nobody has been told yet that it serves: the starter has the reason, and may mend it. */
        if (!served)
            return 1;
        if (clock_now() - started > STEADY)
            backoff = BACKOFF_MIN;
        note(s, "the serving process ended (%s %d); again in %lld ms",
             WIFSIGNALED(status) ? "signal" : "status",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
             (long long)(backoff / NS_PER_MS));
        for (int64_t until = deadline_in(backoff); !deadline_passed(until);) {
            int signo = next_signal(s, until);
            if (signo == SIGTERM || signo == SIGINT)
                return 0;
        }
        backoff = backoff * 2 < BACKOFF_MAX ? backoff * 2 : BACKOFF_MAX;
    }
}

/* Both sockets are this process's: while the serving child is started anew, clients wait in the
 * queue instead of being refused, and the address stays what it was. */
static int listen_here(struct supervised *s, int port, struct error *err)
{
    int (*listen_on)(int *port, struct error *err);
    void *symbol = module_symbol(MODULE_SERVE, "server_listen", err);
    cleanup_daemon struct daemon before;

    if (!symbol)
        return -1;
    memcpy(&listen_on, &symbol, sizeof listen_on);
    daemon_look(s->config, &before);
    int last = port ? port : before.port;
    /* What a killed daemon has left behind may hold its port for a moment longer. */
    int64_t until = deadline_in(last ? PORT_FREE : 0);
    while ((s->tcp_fd = listen_on(&last, port ? err : NULL)) < 0 && !deadline_passed(until)) {
        const struct timespec pause = {.tv_nsec = 50 * NS_PER_MS};
        nanosleep(&pause, NULL);
    }
    if (s->tcp_fd < 0 && !port) {
        last = 0;
        s->tcp_fd = listen_on(&last, err);
    }
    if (s->tcp_fd < 0)
        return -1;
    s->url = mem_printf("http://127.0.0.1:%d", last);
    s->unix_fd = daemon_listen(s->config, &s->socket, err);
    return s->unix_fd < 0 ? -1 : 0;
}

/* The lock; or -1 with ERR_EXISTS once somebody else serves, which is as good. While somebody else
 * is only about to, it may yet fail. */
static int lock_or_other(const struct supervised *s, struct error *err)
{
    const struct timespec pause = {.tv_nsec = LOOK_MS * NS_PER_MS};
    int64_t until = deadline_in(OTHER);

    for (;;) {
        cleanup_daemon struct daemon other = {0};
        int lock = daemon_lock(s->config, err);
        if (lock >= 0 || err->code != ERR_EXISTS)
            return lock;
        daemon_look(s->config, &other);
        if (other.running)
            return -1;
        if (deadline_passed(until))
            return error_set(err, ERR_TIMEOUT,
                             "another process has been about to serve for long, and does not");
        nanosleep(&pause, NULL);
    }
}

static int prepare(struct supervised *s, int port, int lock, struct error *err)
{
    s->log = mem_printf("%s/local/daemon/serve.log", s->config->state);
    s->log_fd = open(s->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (s->log_fd < 0)
        return error_errno(err, errno, "%s", s->log);
    dup2(s->log_fd, 1);
    dup2(s->log_fd, 2);
    if (listen_here(s, port, err) < 0)
        return -1;
    return daemon_record(s->config, lock, getpid(), s->url, s->socket, err);
}

int daemon_supervise(const struct config *config, int port)
{
    struct supervised s = {.config = config, .log_fd = -1, .unix_fd = -1, .tcp_fd = -1};
    struct error err = {0};
    int rc = 1;

    prctl(PR_SET_NAME, "mlhost-daemon");
    int lock = lock_or_other(&s, &err);
    if (lock < 0 && err.code == ERR_EXISTS) {
        tell(&s, "+");
        return 0;
    }
    sigemptyset(&s.signals);
    sigaddset(&s.signals, SIGTERM);
    sigaddset(&s.signals, SIGINT);
    sigaddset(&s.signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &s.signals, NULL);
    if (lock < 0 || prepare(&s, port, lock, &err) < 0) {
        cleanup_free char *text = mem_printf("-%s", err.message);
        tell(&s, text);
    } else {
        rc = supervise(&s);
    }
    if (s.socket)
        (void)unlink(s.socket);
    free(s.log);
    free(s.socket);
    free(s.url);
    fd_cleanup(&lock);
    return rc;
}
