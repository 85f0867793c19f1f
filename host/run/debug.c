#include "run/debug.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/debug_prompt.h"

#define WAITING_MAX (4u << 20) /* bytes for a prompt that does not read */

/* A worker whose script has stopped. */
struct stop {
    struct stop *next;
    struct worker *worker;
    struct value frame; /* the break, for the prompt */
};

struct debugger {
    struct loop *loop;
    const struct config *config;
    struct debugger_handler handler;
    struct stop *open, *waiting;
    struct worker *stepping; /* has the terminal as soon as it stops again */
    bool held, off;
    /* the prompt's process */
    pid_t pid;
    int fd;
    struct loop_watch *watch;
    struct buf in, out;
    struct termios termios;
    bool has_termios;
};

int debugger_possible(struct error *err)
{
    const char *agent = getenv("TF_BUILD"), *ci = getenv("CI");
    struct stat status;
    bool there = fstat(STDIN_FILENO, &status) == 0;

    if (there && isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp())
        return 0;
    if ((agent && agent[0]) || (ci && ci[0])) {
        error_set(err, ERR_USAGE, "--debug: nobody sits at a build agent's job");
        return error_hint(err, "mlhost replay RUN STAGE debugs a recorded run, on your machine");
    }
    if (there && (S_ISFIFO(status.st_mode) || S_ISREG(status.st_mode) || S_ISSOCK(status.st_mode)))
        return 0;
    error_set(err, ERR_USAGE, "--debug: there is no terminal in the foreground");
    return error_hint(err, "run it at a terminal, or give the debugger's commands on the standard "
                           "input: echo ':where' | mlhost run ci.lua --debug");
}

/* ---- the prompt's process ---- */

static void close_prompt(struct debugger *d)
{
    loop_end(d->watch);
    d->watch = NULL;
    fd_cleanup(&d->fd);
    d->fd = -1;
    buf_clear(&d->in);
    buf_clear(&d->out);
}

static void end_session(struct debugger *d)
{
    struct stop *stop = d->open;

    if (!stop)
        return;
    d->open = NULL;
    value_free(&stop->frame);
    free(stop);
    if (d->handler.terminal)
        d->handler.terminal(d->handler.ctx, false);
}

static void leave_for_good(struct worker *worker)
{
    struct value frame = {0};

    value_set_map(&frame);
    value_put_string(&frame, "t", "leave");
    value_put_bool(&frame, "off", true);
    worker_send(worker, &frame);
    value_free(&frame);
}

/* Everybody goes on without a debugger. */
static void turn_off(struct debugger *d)
{
    d->off = true;
    d->stepping = NULL;
    if (d->open)
        leave_for_good(d->open->worker);
    end_session(d);
    while (d->waiting) {
        struct stop *first = d->waiting;
        d->waiting = first->next;
        leave_for_good(first->worker);
        value_free(&first->frame);
        free(first);
    }
}

static void act(struct debugger *d, struct worker *worker, const char *what)
{
    if (d->handler.action)
        d->handler.action(d->handler.ctx, worker, what);
    else if (strcmp(what, "kill") == 0)
        worker_kill(worker);
    else
        worker_cancel(worker, false);
}

static void write_out(struct debugger *d)
{
    while (d->out.len) {
        ssize_t n = send(d->fd, d->out.data, d->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        buf_consume(&d->out, (size_t)n);
    }
    if (d->watch)
        loop_fd_events(d->watch, d->out.len ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void to_prompt(struct debugger *d, const struct value *frame)
{
    if (d->fd < 0 || d->out.len > WAITING_MAX)
        return;
    frame_append(frame, &d->out);
    write_out(d);
}

static void on_prompt_frame(struct debugger *d, const struct value *frame)
{
    const char *t = value_get_string(frame, "t", "");

    if (strcmp(t, "off") == 0)
        turn_off(d);
    else if (!d->open)
        return;
    else if (strcmp(t, "kill") == 0)
        act(d, d->open->worker, "kill");
    else
        worker_send(d->open->worker, frame);
}

static void on_prompt(void *ctx, int fd, uint32_t events)
{
    struct debugger *d = ctx;

    write_out(d);
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    ssize_t got = recv(fd, buf_reserve(&d->in, 65536), 65536, MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got <= 0) {
        close_prompt(d);
        turn_off(d);
        return;
    }
    d->in.len += (size_t)got;
    for (;;) {
        struct value frame = {0};
        int taken = frame_take(&d->in, &frame, NULL);
        if (taken > 0)
            on_prompt_frame(d, &frame);
        value_free(&frame);
        if (taken <= 0 || d->fd < 0)
            break;
    }
}

static int start_prompt(struct debugger *d)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    d->has_termios = tcgetattr(STDIN_FILENO, &d->termios) == 0;
    fflush(stdout);
    d->pid = fork();
    if (d->pid == 0)
        debug_prompt(pair[1], d->config->state);
    close(pair[1]);
    d->fd = pair[0];
    if (d->pid > 0)
        d->watch = loop_fd(d->loop, d->fd, EPOLLIN, on_prompt, d);
    if (!d->watch) {
        close_prompt(d);
        return -1;
    }
    return 0;
}

/* ---- sessions ---- */

static void open_next(struct debugger *d)
{
    struct stop **at = &d->waiting;

    if (d->open || d->held || d->off)
        return;
    while (d->stepping && *at && (*at)->worker != d->stepping)
        at = &(*at)->next;
    if (!*at)
        return;
    if (d->fd < 0 && start_prompt(d) < 0) {
        turn_off(d);
        return;
    }
    d->open = *at;
    *at = d->open->next;
    d->stepping = NULL;
    if (d->handler.terminal)
        d->handler.terminal(d->handler.ctx, true);
    to_prompt(d, &d->open->frame);
}

static void add_stop(struct debugger *d, struct worker *worker, const char *name,
                     const struct value *event)
{
    if (d->off) {
        leave_for_good(worker);
        return;
    }
    struct stop *stop = mem_alloc(sizeof *stop), **end = &d->waiting;
    *stop = (struct stop){.worker = worker};
    value_copy(&stop->frame, event);
    value_put_string(&stop->frame, "stage", name);
    while (*end)
        end = &(*end)->next;
    *end = stop;
    open_next(d);
}

/* The prompt may be waiting for keys: as if Ctrl-C had been pressed, it looks up. */
static void say_closed(struct debugger *d)
{
    struct value frame = {0};

    value_set_map(&frame);
    value_put_string(&frame, "t", "closed");
    to_prompt(d, &frame);
    value_free(&frame);
    if (d->pid > 0)
        kill(d->pid, SIGINT);
}

static void drop(struct debugger *d, const struct worker *worker)
{
    for (struct stop **at = &d->waiting; *at;) {
        struct stop *stop = *at;
        if (stop->worker != worker) {
            at = &stop->next;
            continue;
        }
        *at = stop->next;
        value_free(&stop->frame);
        free(stop);
    }
    if (d->open && d->open->worker == worker) {
        say_closed(d);
        end_session(d);
    }
}

static void answered(struct debugger *d, const struct value *event)
{
    struct worker *worker = d->open->worker;
    const char *leave = value_get_string(event, "leave", NULL);

    to_prompt(d, event);
    if (!leave)
        return;
    end_session(d);
    if (strcmp(leave, "step") == 0 || strcmp(leave, "next") == 0 || strcmp(leave, "finish") == 0)
        d->stepping = worker;
    else if (strcmp(leave, "continue") != 0)
        act(d, worker, leave);
    open_next(d);
}

bool debugger_event(struct debugger *d, struct worker *worker, const char *name,
                    const struct value *event)
{
    const char *t = value_get_string(event, "t", "");
    bool open = d->open && d->open->worker == worker;

    if (strcmp(t, "break") == 0) {
        add_stop(d, worker, name, event);
    } else if (strcmp(t, "evaled") == 0 || strcmp(t, "completions") == 0) {
        if (open && strcmp(t, "evaled") == 0)
            answered(d, event);
        else if (open)
            to_prompt(d, event);
    } else if (strcmp(t, "resumed") == 0) {
        drop(d, worker); /* the stage is being ended; else its session is over already */
        open_next(d);
    } else if (open && (strcmp(t, "output") == 0 || strcmp(t, "log") == 0)) {
        cleanup_value struct value line = {0};
        value_copy(&line, event);
        if (strcmp(t, "output") == 0) {
            cleanup_free char *text = mem_printf("%s\n", value_get_string(event, "text", ""));
            value_put_string(&line, "text", text);
        }
        to_prompt(d, &line);
    } else {
        return false;
    }
    return true;
}

void debugger_forget(struct debugger *d, struct worker *worker)
{
    if (d->stepping == worker)
        d->stepping = NULL;
    drop(d, worker);
    open_next(d);
}

bool debugger_busy(const struct debugger *d)
{
    return d && d->open;
}

void debugger_hold(struct debugger *d, bool held)
{
    d->held = held;
    open_next(d);
}

struct debugger *debugger_new(struct loop *loop, const struct config *config,
                              const struct debugger_handler *handler)
{
    struct debugger *d = mem_alloc(sizeof *d);

    *d = (struct debugger){.loop = loop, .config = config, .handler = *handler, .fd = -1};
    return d;
}

/* It ends with its socket, but may be waiting for keys. */
static void end_prompt(struct debugger *d)
{
    const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};

    for (int i = 0; i < 50; i++) {
        if (waitpid(d->pid, NULL, WNOHANG) != 0)
            return;
        kill(d->pid, SIGINT);
        nanosleep(&pause, NULL);
    }
    kill(d->pid, SIGKILL);
    (void)waitpid(d->pid, NULL, 0);
    if (d->has_termios)
        (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &d->termios);
}

void debugger_free(struct debugger *d)
{
    if (!d)
        return;
    turn_off(d);
    close_prompt(d);
    if (d->pid > 0)
        end_prompt(d);
    buf_free(&d->in);
    buf_free(&d->out);
    free(d);
}
