#include "run/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/daemon.h"

#define LINE_LIMIT    (64u * 1024)
#define ROUND_LIMIT   (1u << 20)     /* bytes read before other watches get their turn */
#define LEAVE_NS      (2 * NS_PER_S) /* between the result and the process's own end */
#define KILL_SLACK_NS (100 * NS_PER_MS)

struct worker {
    struct worker *next;
    struct loop *loop;
    struct worker_handler handler;
    struct sandbox_child child;
    int fd;
    struct loop_watch *fd_watch, *child_watch, *timer;
    struct buf in;
    struct buf line[2];
    struct value result;
    bool commands; /* what is printed may be commands to the build agent */
    bool has_result, garbage;
    bool eager;     /* the result is all that counts */
    bool delivered; /* the handler has it and is gone; only the child is to be reaped */
    bool asked_cancel, cancel_is_timeout, killed, killed_at_deadline;
    int64_t timeout_ns, grace_ns, kill_at;
    int64_t left; /* until kill_at, while the script is in the debugger; 0: it is not */
};

/* Those whose child waitpid(2) still owes us: like the children, a property of the process. */
static struct worker *not_reaped;

static void forget(struct worker *worker)
{
    struct worker **at = &not_reaped;

    while (*at != worker)
        at = &(*at)->next;
    *at = worker->next;
    loop_end(worker->fd_watch);
    loop_end(worker->timer);
    loop_end(worker->child_watch);
    fd_cleanup(&worker->fd);
    fd_cleanup(&worker->child.pidfd);
    value_free(&worker->result);
    buf_free(&worker->in);
    buf_free(&worker->line[0]);
    buf_free(&worker->line[1]);
    free(worker);
}

void error_to_value(const struct error *err, struct value *out)
{
    value_set_map(out);
    if (err->service[0])
        value_put_string(out, "service", err->service);
    value_put_string(out, "code", error_code_name(err->code));
    if (err->status)
        value_put_int(out, "status", err->status);
    value_put_string(out, "message", err->message);
    if (err->hint[0])
        value_put_string(out, "hint", err->hint);
}

void error_from_value(const struct value *v, struct error *err)
{
    const char *file = value_get_string(v, "file", NULL);
    int64_t line = value_get_int(v, "line", 0);
    const char *message = value_get_string(v, "message", "failed without a message");
    cleanup_free char *place =
        file && line > 0 ? mem_printf("%s:%lld: ", file, (long long)line) : mem_strdup("");

    if (strncmp(message, place, strlen(place)) == 0)
        place[0] = '\0';
    error_set(err, error_code_from_name(value_get_string(v, "code", "failed")), "%s%s", place,
              message);
    error_hint(err, "%s", value_get_string(v, "hint", ""));
}

static void kill_tree(struct worker *worker)
{
    worker->killed = true;
    sandbox_kill(&worker->child);
}

static void arm(struct worker *worker, int64_t at)
{
    worker->kill_at = deadline_min(worker->kill_at, at);
    loop_timer_at(worker->timer, worker->kill_at);
}

static void on_timer(void *ctx)
{
    struct worker *worker = ctx;

    if (!worker->has_result && !worker->asked_cancel)
        worker->killed_at_deadline = true;
    kill_tree(worker);
}

static void send_line(struct worker *worker, int stream, bool commands, const char *text,
                      size_t len)
{
    struct value event = {0};

    if (len && text[len - 1] == '\r')
        len--;
    value_set_map(&event);
    value_put_string(&event, "t", "output");
    value_put_int(&event, "stream", stream);
    value_set_bytes(value_put(&event, "text"), text, len);
    if (commands)
        value_put_bool(&event, "commands", true);
    worker->handler.event(worker->handler.ctx, &event);
    value_free(&event);
}

/* A child's bytes come in pieces; a line that never ends is cut. */
static void output(struct worker *worker, const struct value *event)
{
    int stream = value_get_int(event, "stream", 1) == 2 ? 2 : 1;
    struct buf *line = &worker->line[stream - 1];
    const struct value *text = value_get(event, "text");
    bool commands = value_get_bool(event, "commands", false);
    size_t from = 0;

    if (!text || text->kind != VALUE_STRING)
        return;
    buf_append(line, text->as.string.data, text->as.string.len);
    worker->commands = commands;
    for (;;) {
        const char *end = memchr(line->data + from, '\n', line->len - from);
        size_t len = end ? (size_t)(end - line->data) - from : line->len - from;
        if (!end && len < LINE_LIMIT)
            break;
        if (!end || len > LINE_LIMIT) {
            send_line(worker, stream, commands, line->data + from, LINE_LIMIT);
            from += LINE_LIMIT;
            continue;
        }
        send_line(worker, stream, commands, line->data + from, len);
        from += len + 1;
    }
    buf_consume(line, from);
}

static void flush_lines(struct worker *worker)
{
    for (int i = 0; i < 2; i++) {
        if (worker->line[i].len)
            send_line(worker, i + 1, worker->commands, worker->line[i].data, worker->line[i].len);
        buf_clear(&worker->line[i]);
    }
}

/* Time does not count in the debugger. What a cancel has set since holds. */
static void pause_time(struct worker *worker)
{
    if (worker->kill_at == DEADLINE_NONE || worker->left || worker->asked_cancel)
        return;
    worker->left = worker->kill_at - clock_now();
    worker->left = worker->left > 0 ? worker->left : 1;
    worker->kill_at = DEADLINE_NONE;
    loop_timer_at(worker->timer, DEADLINE_NONE);
}

static void resume_time(struct worker *worker)
{
    if (worker->left)
        arm(worker, deadline_in(worker->left));
    worker->left = 0;
}

static void on_frame(struct worker *worker, struct value *frame)
{
    const char *t = value_get_string(frame, "t", "");

    if (worker->has_result)
        return;
    if (strcmp(t, "result") == 0) {
        flush_lines(worker);
        value_move(&worker->result, frame);
        worker->has_result = true;
        arm(worker, deadline_in(LEAVE_NS));
    } else if (strcmp(t, "output") == 0) {
        output(worker, frame);
    } else {
        if (strcmp(t, "break") == 0) {
            flush_lines(worker);
            pause_time(worker);
        } else if (strcmp(t, "resumed") == 0) {
            resume_time(worker);
        }
        worker->handler.event(worker->handler.ctx, frame);
    }
}

/* 1 more may come, 0 end of file, -1 nothing to read now. */
static int read_some(struct worker *worker)
{
    ssize_t got = read(worker->fd, buf_reserve(&worker->in, 65536), 65536);

    if (got < 0)
        return errno == EINTR ? 1 : errno == EAGAIN ? -1 : 0;
    if (got == 0)
        return 0;
    worker->in.len += (size_t)got;
    for (;;) {
        struct value frame = {0};
        struct error err = {0};
        int taken = frame_take(&worker->in, &frame, &err);
        if (taken == 0)
            return 1;
        if (taken < 0) {
            worker->garbage = true;
            kill_tree(worker);
            return 0;
        }
        on_frame(worker, &frame);
        value_free(&frame);
    }
}

static void put_error(struct value *to, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void put_error(struct value *to, enum error_code code, const char *format, ...)
{
    struct error err = {0};
    va_list args;

    va_start(args, format);
    error_setv(&err, code, format, args);
    va_end(args);
    error_to_value(&err, to);
}

/* What to say of a process that ended without its result. */
static void crashed(const struct worker *worker, int wait_status, struct value *error)
{
    if (worker->garbage) {
        put_error(error, ERR_INTERNAL, "the stage's broker sent something that is no frame");
    } else if (worker->killed_at_deadline) {
        cleanup_buf struct buf text = BUF_INIT;
        duration_print(worker->timeout_ns, &text);
        put_error(error, ERR_TIMEOUT, "timed out after %s and did not end by itself; killed",
                  text.data);
    } else if (worker->asked_cancel) {
        put_error(error, worker->cancel_is_timeout ? ERR_TIMEOUT : ERR_CANCELLED,
                  "%s, killed after the grace period",
                  worker->cancel_is_timeout ? "the pipeline timed out" : "cancelled");
    } else if (wait_status >= 0 && WIFSIGNALED(wait_status)) {
        put_error(error, ERR_CRASHED, "the stage's process was ended by signal %d (%s)",
                  WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
    } else if (wait_status >= 0 && WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 70) {
        put_error(error, ERR_MEMORY, "the stage's broker ran out of memory");
    } else {
        put_error(error, ERR_CRASHED, "the stage's process ended without a result (status %d)",
                  wait_status >= 0 ? WEXITSTATUS(wait_status) : -1);
    }
}

static void deliver(struct worker *worker, int wait_status)
{
    struct worker_result result = {0};

    if (worker->delivered)
        return;
    worker->delivered = true;
    flush_lines(worker);
    if (worker->has_result) {
        struct value *error = value_get(&worker->result, "error");
        struct value *ok = value_get(&worker->result, "ok");
        result.skipped = value_get_bool(&worker->result, "skipped", false);
        result.reason = value_get_string(&worker->result, "reason", NULL);
        result.ok = !error || error->kind == VALUE_NIL;
        if (!result.ok)
            value_move(&result.error, error);
        else if (ok)
            value_move(&result.output, ok);
    } else {
        crashed(worker, wait_status, &result.error);
    }
    result.tidy = worker->has_result && !worker->killed;
    result.timed_out =
        worker->killed_at_deadline || (worker->asked_cancel && worker->cancel_is_timeout);
    result.cancelled = worker->asked_cancel && !worker->cancel_is_timeout;
    worker->handler.end(worker->handler.ctx, &result);
    value_free(&result.output);
    value_free(&result.error);
}

static void on_readable(void *ctx, int fd, uint32_t events)
{
    struct worker *worker = ctx;
    size_t rounds = ROUND_LIMIT / 65536;
    int more = 1;

    (void)fd;
    (void)events;
    while (more == 1 && rounds--)
        more = read_some(worker);
    if (more == 0) {
        loop_end(worker->fd_watch);
        worker->fd_watch = NULL;
        arm(worker, deadline_in(LEAVE_NS));
    }
    /* A broker closes the socket by ending, when everything below it is dead: nobody needs to wait
     * until the kernel has taken its memory apart. A plan has nothing below it. */
    if (worker->has_result && (more == 0 || worker->eager))
        deliver(worker, 0);
}

static void on_child(void *ctx, int wait_status)
{
    struct worker *worker = ctx;

    worker->child_watch = NULL;
    while (worker->fd_watch && read_some(worker) == 1)
        ;
    sandbox_kill(&worker->child); /* what the broker may have left behind */
    deliver(worker, wait_status);
    forget(worker);
}

void worker_settle(struct loop *loop)
{
    struct error err = {0};
    struct worker *alive = not_reaped;

    while (alive) {
        for (alive = not_reaped; alive && !alive->fd_watch; alive = alive->next)
            ;
        if (alive && loop_step(loop, DEADLINE_NONE, &err) < 0)
            break;
    }
    while (not_reaped)
        forget(not_reaped);
}

struct worker *worker_start(struct loop *loop, const struct broker_spec *spec,
                            const struct worker_handler *handler, struct error *err)
{
    struct worker *worker = mem_alloc(sizeof *worker);

    worker->loop = loop;
    worker->handler = *handler;
    worker->fd = -1;
    worker->timeout_ns = spec->timeout_ns;
    worker->grace_ns = spec->grace_ns ? spec->grace_ns : WORKER_GRACE_NS;
    worker->kill_at = DEADLINE_NONE;
    (void)sandbox_script_layers(); /* probed once here, known to every broker that is forked
                                    * from us */
    if (broker_start(spec, &worker->child, &worker->fd, err) < 0) {
        free(worker);
        return NULL;
    }
    (void)fcntl(worker->fd, F_SETFL, O_NONBLOCK);
    int pidfd = fcntl(worker->child.pidfd, F_DUPFD_CLOEXEC, 3);
    worker->fd_watch = loop_fd(loop, worker->fd, EPOLLIN, on_readable, worker);
    worker->timer = loop_timer(loop, DEADLINE_NONE, on_timer, worker);
    if (pidfd >= 0)
        worker->child_watch = loop_child(loop, pidfd, on_child, worker);
    if (!worker->fd_watch || !worker->timer || !worker->child_watch) {
        error_errno(err, errno, "watching the stage's process");
        sandbox_kill(&worker->child);
        (void)waitpid(worker->child.pid, NULL, 0);
        loop_end(worker->fd_watch);
        loop_end(worker->timer);
        loop_end(worker->child_watch);
        fd_cleanup(&worker->fd);
        fd_cleanup(&worker->child.pidfd);
        free(worker);
        return NULL;
    }
    worker->next = not_reaped;
    not_reaped = worker;
    if (spec->timeout_ns)
        arm(worker, deadline_in(spec->timeout_ns + worker->grace_ns + KILL_SLACK_NS));
    return worker;
}

/* A broker reads at once and frames are small: a socket that is full belongs to one that hangs. */
static bool send_frame(struct worker *worker, const struct value *frame)
{
    cleanup_buf struct buf bytes = BUF_INIT;

    frame_append(frame, &bytes);
    return send(worker->fd, bytes.data, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT) ==
           (ssize_t)bytes.len;
}

void worker_send(struct worker *worker, const struct value *frame)
{
    if (!worker->has_result && !send_frame(worker, frame))
        worker_kill(worker);
}

void worker_cancel(struct worker *worker, bool timeout)
{
    struct value frame = {0};

    if (worker->asked_cancel || worker->has_result)
        return;
    worker->asked_cancel = true;
    worker->cancel_is_timeout = timeout;
    value_set_map(&frame);
    value_put_string(&frame, "t", "cancel");
    if (!send_frame(worker, &frame))
        sandbox_signal(&worker->child, SIGTERM);
    value_free(&frame);
    arm(worker, deadline_in(worker->grace_ns + KILL_SLACK_NS));
}

void worker_kill(struct worker *worker)
{
    worker->asked_cancel = true;
    kill_tree(worker);
}

struct ask {
    const struct config *config;
    struct loop *loop;
    struct worker *worker;
    void (*on_event)(void *ctx, struct value *event);
    void *ctx;
    struct value *result;
    struct error *err;
    int rc;
};

void worker_answer(const struct config *config, const struct value *question, struct value *out)
{
    struct error err = {0};

    if (strcmp(value_get_string(question, "kind", ""), "daemon") == 0) {
        daemon_answer(config, daemon_ensure(config, &err) < 0 ? &err : NULL, out);
    } else {
        value_set_map(out);
        value_put_string(out, "by", "only `mlhost run` can ask");
    }
    value_put_string(out, "t", "answer");
    value_put_int(out, "id", value_get_int(question, "id", 0));
}

static void ask_event(void *ctx, struct value *event)
{
    struct ask *ask = ctx;

    if (strcmp(value_get_string(event, "t", ""), "ask") == 0) {
        struct value frame = {0};
        worker_answer(ask->config, event, &frame);
        worker_send(ask->worker, &frame);
        value_free(&frame);
    } else if (ask->on_event) {
        ask->on_event(ask->ctx, event);
    }
}

static void ask_end(void *ctx, struct worker_result *result)
{
    struct ask *ask = ctx;

    ask->rc = result->ok ? 0 : -1;
    if (result->ok)
        value_move(ask->result, &result->output);
    else
        error_from_value(&result->error, ask->err);
    loop_stop(ask->loop);
}

int worker_ask(struct loop *loop, const struct broker_spec *spec,
               void (*on_event)(void *ctx, struct value *event), void *ctx, struct value *result,
               struct error *err)
{
    struct ask ask = {.config = spec->config,
                      .loop = loop,
                      .on_event = on_event,
                      .ctx = ctx,
                      .result = result,
                      .err = err,
                      .rc = -1};
    struct worker_handler handler = {.event = ask_event, .end = ask_end, .ctx = &ask};

    struct worker *worker = worker_start(loop, spec, &handler, err);
    if (!worker)
        return -1;
    ask.worker = worker;
    worker->eager = true;
    if (loop_run(loop, err) < 0)
        return -1;
    return ask.rc;
}
