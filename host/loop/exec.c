#include "loop/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "sandbox/cgroup.h"

#define KEEP_DEFAULT     ((size_t)1 << 20)
#define GRACE_DEFAULT_MS 2000
#define PIECE            ((size_t)64 << 10)
/* What is still read after the command has ended: a pipe's worth per stream. Whoever holds the pipe
 * open beyond that is none of the command's output. */
#define DRAIN_MAX ((size_t)1 << 20)

enum stage { RUNNING, ASKED, KILLED };

struct run {
    const struct exec_spec *spec;
    struct exec_result *result;
    struct sandbox_child child;
    size_t keep, written;
    int in, streams[2];
    enum stage stage;
    int64_t kill_at;
    char *piece;
};

void exec_result_free(struct exec_result *result)
{
    buf_free(&result->out);
    buf_free(&result->err);
}

/* Keeps the last bytes only; drops in large steps, so that each byte is moved about once. */
static void keep_tail(struct run *run, struct buf *buf, size_t limit)
{
    if (buf->len > limit) {
        buf_consume(buf, buf->len - run->keep);
        run->result->truncated = true;
    }
}

/* One read. True when there may be more. */
static bool take_output(struct run *run, int index)
{
    struct buf *buf = index == 0 ? &run->result->out : &run->result->err;
    ssize_t n = read(run->streams[index], run->piece, PIECE);

    if (n < 0 && errno == EINTR)
        return true;
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) {
        fd_cleanup(&run->streams[index]);
        run->streams[index] = -1;
        return false;
    }
    if (run->spec->output)
        run->spec->output(run->spec->output_ctx, index + 1, run->piece, (size_t)n);
    buf_append(buf, run->piece, (size_t)n);
    keep_tail(run, buf, 2 * run->keep);
    return true;
}

static void close_input(struct run *run)
{
    fd_cleanup(&run->in);
    run->in = -1;
}

/* A command that does not read its input is no error of ours, and no reason to get SIGPIPE. */
static ssize_t write_quietly(int fd, const void *data, size_t len)
{
    const struct timespec now = {0};
    sigset_t pipe_signal, before, pending;

    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    ssize_t n = write(fd, data, len);
    int saved = errno;
    if (n < 0 && saved == EPIPE && !sigismember(&pending, SIGPIPE))
        while (sigtimedwait(&pipe_signal, NULL, &now) < 0 && errno == EINTR)
            ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return n;
}

static void feed(struct run *run)
{
    const char *input = run->spec->input;
    size_t left = run->spec->input_len - run->written;

    ssize_t n = left ? write_quietly(run->in, input + run->written, left) : 0;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        run->written += (size_t)n;
    if (n < 0 || run->written == run->spec->input_len)
        close_input(run);
}

/* SIGTERM first; SIGKILL for the whole tree when the grace period is over. */
static void end_command(struct run *run)
{
    int64_t grace = run->spec->grace_ms > 0 ? run->spec->grace_ms : GRACE_DEFAULT_MS;

    if (run->stage == RUNNING) {
        run->stage = ASKED;
        run->kill_at = deadline_in(grace * NS_PER_MS);
        sandbox_signal(&run->child, SIGTERM);
        sandbox_signal(&run->child, SIGCONT); /* a stopped process gets no other signal */
    } else if (run->stage == ASKED && deadline_passed(run->kill_at)) {
        run->stage = KILLED;
        sandbox_kill(&run->child);
    }
}

static void check_time(struct run *run)
{
    if (run->stage == RUNNING && cancelled(run->spec->cancel)) {
        run->result->cancelled = true;
        end_command(run);
    } else if (run->stage == RUNNING && deadline_passed(run->spec->deadline)) {
        run->result->timed_out = true;
        end_command(run);
    } else if (run->stage == ASKED) {
        end_command(run);
    }
}

static int wait_ms(const struct run *run)
{
    if (run->stage == KILLED)
        return -1;
    return deadline_poll_ms(run->stage == ASKED ? run->kill_at : run->spec->deadline);
}

/* Until the command has ended. */
static int serve(struct run *run, struct error *err)
{
    for (;;) {
        struct pollfd fds[5] = {
            {.fd = run->child.pidfd, .events = POLLIN},
            {.fd = run->streams[0], .events = POLLIN},
            {.fd = run->streams[1], .events = POLLIN},
            {.fd = run->in, .events = POLLOUT},
            {.fd = run->spec->cancel && run->stage == RUNNING ? run->spec->cancel->fd : -1,
             .events = POLLIN},
        };
        check_time(run);
        if (run->stage != RUNNING)
            fds[4].fd = -1;
        if (poll(fds, 5, wait_ms(run)) < 0) {
            if (errno == EINTR)
                continue;
            return error_errno(err, errno, "cannot wait for a command");
        }
        for (int i = 0; i < 2; i++) {
            if (fds[1 + i].revents)
                take_output(run, i);
        }
        if (fds[3].revents)
            feed(run);
        if (fds[0].revents)
            return 0;
    }
}

static void drain(struct run *run)
{
    for (int i = 0; i < 2; i++) {
        for (size_t reads = 0;
             reads < DRAIN_MAX / PIECE && run->streams[i] >= 0 && take_output(run, i);)
            reads++;
    }
    keep_tail(run, &run->result->out, run->keep);
    keep_tail(run, &run->result->err, run->keep);
}

static int64_t time_ns(const struct timeval *time)
{
    return (int64_t)time->tv_sec * NS_PER_S + (int64_t)time->tv_usec * 1000;
}

static int reap(struct run *run, struct error *err)
{
    struct rusage usage;
    int status;

    while (wait4(run->child.pid, &status, 0, &usage) < 0) {
        if (errno != EINTR)
            return error_errno(err, errno, "cannot wait for a command");
    }
    run->result->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    run->result->cpu_ns = time_ns(&usage.ru_utime) + time_ns(&usage.ru_stime);
    run->result->peak_kib = usage.ru_maxrss;
    return 0;
}

struct pipes {
    int ends[3][2]; /* stdin, stdout, stderr */
};

static void pipes_close(struct pipes *pipes)
{
    for (int i = 0; i < 6; i++)
        fd_cleanup(&pipes->ends[i / 2][i % 2]);
}
#define cleanup_pipes __attribute__((cleanup(pipes_close)))

/* Ours do not block; the command's do, as programs expect. */
static int pipes_open(struct pipes *pipes, bool with_input, struct error *err)
{
    for (int i = with_input ? 0 : 1; i < 3; i++) {
        if (pipe2(pipes->ends[i], O_CLOEXEC) < 0) {
            error_errno(err, errno, "cannot make a pipe");
            return error_hint(err, "the limit of open files may be reached: ulimit -n");
        }
        fcntl(pipes->ends[i][i == 0 ? 1 : 0], F_SETFL, O_NONBLOCK);
    }
    return 0;
}

static void run_end(struct run *run)
{
    fd_cleanup(&run->in);
    fd_cleanup(&run->streams[0]);
    fd_cleanup(&run->streams[1]);
    fd_cleanup(&run->child.pidfd);
    mem_cleanup(&run->piece);
}
#define cleanup_run __attribute__((cleanup(run_end)))

static void group_end(struct cgroup *group)
{
    cgroup_close(group, NULL);
}
#define cleanup_group __attribute__((cleanup(group_end)))

int exec_run(const struct exec_spec *spec, struct exec_result *result, struct error *err)
{
    cleanup_pipes struct pipes pipes = {{{-1, -1}, {-1, -1}, {-1, -1}}};
    cleanup_run struct run run = {
        .spec = spec,
        .result = result,
        .child = {.pidfd = -1},
        .keep = spec->keep ? spec->keep : KEEP_DEFAULT,
        .in = -1,
        .streams = {-1, -1},
    };
    const struct cgroup_limits limits = {.memory = spec->policy->memory,
                                         .processes = spec->policy->processes,
                                         .cpu_milli = spec->policy->cpu_milli};
    cleanup_group struct cgroup group = {.procs = {-1, -1, -1}};
    int64_t started = clock_now();

    *result = (struct exec_result){0};
    if (cancelled(spec->cancel))
        return error_set(err, ERR_CANCELLED, "cancelled before the command was started");
    if (pipes_open(&pipes, spec->input_len > 0, err) < 0)
        return -1;
    spec->policy->stdin_fd = pipes.ends[0][0];
    spec->policy->stdout_fd = pipes.ends[1][1];
    spec->policy->stderr_fd = pipes.ends[2][1];
    spec->policy->group = cgroup_open(&limits, &group) ? &group : NULL;
    int spawned = sandbox_spawn(spec->policy, &run.child, err);
    spec->policy->group = NULL;
    if (spawned < 0)
        return -1;
    cgroup_entered(&group);
    run.in = steal_fd(&pipes.ends[0][1]);
    run.streams[0] = steal_fd(&pipes.ends[1][0]);
    run.streams[1] = steal_fd(&pipes.ends[2][0]);
    pipes_close(&pipes); /* the command's ends: only it may keep them open */
    pipes = (struct pipes){{{-1, -1}, {-1, -1}, {-1, -1}}};
    run.piece = mem_alloc(PIECE);
    if (spec->started)
        spec->started(spec->output_ctx, run.child.pid);
    int rc = serve(&run, err);
    if (rc < 0)
        sandbox_kill(&run.child);
    if (reap(&run, err) < 0)
        rc = -1;
    drain(&run);
    struct cgroup_end end = {0};
    cgroup_close(&group, &end);
    result->out_of_memory = end.out_of_memory;
    result->out_of_processes = end.out_of_processes;
    result->elapsed_ns = clock_now() - started;
    return rc;
}
