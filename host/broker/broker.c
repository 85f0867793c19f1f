#include "broker/broker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "broker/internal.h"
#include "sandbox/sandbox.h"

#define GRACE_NS        (5 * NS_PER_S)
#define VM_EXIT_OVERRUN 71

static struct broker the_broker;

/* ---- the end ---- */

/* What is left of the stage dies with it: commands, and whatever they have put in
 * the background. */
static _Noreturn void leave(struct broker *broker)
{
    if (broker->cancel)
        cancel_raise(broker->cancel);
    if (broker->late_cancel)
        cancel_raise(broker->late_cancel);
    broker_model_gone(broker);
    if (!broker->vm_ended && broker->vm_pid > 0)
        kill(broker->vm_pid, SIGKILL);
    sandbox_kill_descendants(getpid());
    /* They are dead; nobody else would ask for what is left of them as long as the run lasts. */
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    _exit(0);
}

static void fail(struct broker *broker, enum error_code code, const char *hint, const char *format,
                 ...) __attribute__((format(printf, 4, 5)));

static void fail(struct broker *broker, enum error_code code, const char *hint, const char *format,
                 ...)
{
    struct error err = {0};
    va_list args;

    va_start(args, format);
    error_setv(&err, code, format, args);
    va_end(args);
    if (hint)
        error_hint(&err, "%s", hint);
    broker_fail(broker, &err);
}

_Noreturn void broker_fail(struct broker *broker, const struct error *err)
{
    struct value frame = {0};

    value_set_map(&frame);
    value_put_string(&frame, "t", "result");
    error_into_value(err, value_put(&frame, "error"));
    pthread_mutex_lock(&broker->vm_lock);
    recorder_done(broker, &frame, true);
    pthread_mutex_unlock(&broker->vm_lock);
    player_report(broker);
    reports_keep(broker);
    broker_result(broker, &frame);
    leave(broker);
}

/* A handle means nothing to another stage, nor to the journal. */
static bool refuse_handle(const struct broker *broker, const struct value *output,
                          struct value *error)
{
    cleanup_buf struct buf place = BUF_INIT;
    const char *type =
        output && strcmp(broker->spec->mode, "stage") == 0 ? handle_within(output, &place) : NULL;
    struct error err = {0};

    if (!type)
        return false;
    error_set(&err, ERR_INVALID, "the stage's output%s%s is a %s, which cannot leave the stage",
              place.len ? ": " : "", place.len ? place.data : "", type);
    error_hint(&err, "each stage that needs it makes its own: secret.get, connect");
    error_into_value(&err, error);
    return true;
}

static void done(struct broker *broker)
{
    struct value frame = {0};
    struct value *error = value_get(&broker->done, "error"), *ok = value_get(&broker->done, "ok");

    value_set_map(&frame);
    value_put_string(&frame, "t", "result");
    if (error) {
        value_move(value_put(&frame, "error"), error);
    } else if (!refuse_handle(broker, value_get(ok, "value"), value_put(&frame, "error"))) {
        value_remove(&frame, "error");
        struct value *value = value_get(ok, "value");
        struct value *to = value_put(&frame, "ok");
        if (value)
            value_move(to, value);
        if (value_get_bool(ok, "skipped", false)) {
            value_put_bool(&frame, "skipped", true);
            value_put_string(&frame, "reason", value_get_string(ok, "reason", ""));
        }
    }
    value_put_int(&frame, "memory", value_get_int(&broker->done, "memory", 0));
    player_report(broker);
    broker_result(broker, &frame);
    leave(broker);
}

static void timed_out(struct broker *broker, const char *how)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (broker->stopping) {
        fail(broker, ERR_CANCELLED, NULL, "cancelled; the script did not end in time");
        return;
    }
    duration_print(broker->spec->timeout_ns, &text);
    fail(broker, ERR_TIMEOUT, "raise `timeout` of the stage or pipeline", "timed out after %s%s",
         text.data, how);
}

/* The VM's process has ended; all it sent has been read. */
static void conclude(struct broker *broker)
{
    int status = broker->vm_status;

    if (broker->has_done)
        done(broker);
    if (broker->model_stuck)
        fail(broker, ERR_TIMEOUT, "raise --timeout, or make the model quicker",
             "a request was not answered in time");
    if (WIFEXITED(status) && WEXITSTATUS(status) == VM_EXIT_OVERRUN)
        timed_out(broker, ": the script was inside one long library function");
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        fail(broker, ERR_CRASHED, "this is an attack, or a fault of mlhost: please report it",
             "the script's process made a system call that it may not make");
    if (WIFSIGNALED(status))
        fail(broker, ERR_CRASHED,
             "a crash of the interpreter; memory limits and deep recursion are usual causes",
             "the script's process was ended by signal %d (%s)", WTERMSIG(status),
             strsignal(WTERMSIG(status)));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 70)
        fail(broker, ERR_MEMORY, "keep large data in files, or raise the limit with --memory",
             "the script's process ran out of memory");
    fail(broker, ERR_CRASHED, NULL, "the script's process ended without a result (status %d)",
         WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* ---- frames ---- */

/* The VM has looked at the clock, or asks what it is to see there. */
static void take_clock(struct broker *broker, const struct value *frame)
{
    const struct value *now = value_path(frame, "args.now");

    if (!now)
        return;
    if (broker->player) {
        player_clock(broker, frame);
        return;
    }
    pthread_mutex_lock(&broker->vm_lock);
    recorder_clock(broker, now);
    pthread_mutex_unlock(&broker->vm_lock);
}

static void on_vm_frame(struct broker *broker, struct value *frame)
{
    const char *t = value_get_string(frame, "t", "");

    if (broker->has_done)
        return; /* nothing counts after it */
    if (strcmp(t, "call") == 0 || strcmp(t, "say") == 0) {
        calls_take(broker, frame);
    } else if (strcmp(t, "done") == 0) {
        pthread_mutex_lock(&broker->vm_lock);
        recorder_done(broker, frame, false);
        pthread_mutex_unlock(&broker->vm_lock);
        value_move(&broker->done, frame);
        broker->has_done = true;
    } else if (strcmp(t, "clock") == 0) {
        take_clock(broker, frame);
    } else if (strcmp(t, "response") == 0) {
        broker_model_reply(broker, frame);
    } else if (strcmp(t, "loaded") == 0) {
        broker_model_loaded(broker);
    } else if (strcmp(t, "evaled") == 0 || strcmp(t, "completions") == 0) {
        broker_event(broker, frame);
    } else if (strcmp(t, "break") == 0 && broker->spec->debug) {
        broker_pause(broker, frame);
    } else if (strcmp(t, "resumed") == 0 && broker->spec->debug) {
        broker_resume(broker, frame);
    }
}

/* 1: more may come; 0: the end; -1: nothing now. */
static int read_vm(struct broker *broker)
{
    char *room = buf_reserve(&broker->vm_in, 65536);
    ssize_t got = recv(broker->vm_fd, room, 65536, MSG_DONTWAIT);
    struct error err = {0};
    int taken;

    if (got < 0)
        return errno == EINTR ? 1 : errno == EAGAIN ? -1 : 0;
    if (got == 0)
        return 0;
    broker->vm_in.len += (size_t)got;
    for (;;) {
        struct value frame = {0};
        taken = frame_take(&broker->vm_in, &frame, &err);
        if (taken <= 0)
            break;
        on_vm_frame(broker, &frame);
        value_free(&frame);
    }
    if (taken < 0)
        fail(broker, ERR_CRASHED, NULL, "the script's process sent garbage: %s", err.message);
    return 1;
}

static void on_vm(void *ctx, int fd, uint32_t events)
{
    struct broker *broker = ctx;

    (void)fd;
    (void)events;
    if (read_vm(broker) == 0) {
        loop_end(broker->vm_watch);
        broker->vm_watch = NULL;
    }
    if (broker->has_done)
        done(broker);
}

static void on_vm_end(void *ctx, int status)
{
    struct broker *broker = ctx;

    broker->vm_child = NULL;
    broker->vm_ended = true;
    broker->vm_status = status;
    while (!broker->has_done && read_vm(broker) == 1)
        ;
    conclude(broker);
}

static void stop(struct broker *broker)
{
    if (broker->stopping)
        return;
    if (broker->spec->model) {
        broker_model_drain(broker);
        return;
    }
    if (strcmp(broker->spec->mode, "repl") == 0)
        leave(broker); /* nothing was promised to be cleaned up */
    int64_t grace = broker->spec->grace_ns ? broker->spec->grace_ns : GRACE_NS;
    bool paused = broker->paused_at != 0;
    if (paused)
        broker_resume(broker, NULL);
    broker->stopping = true;
    broker->hard_deadline = deadline_min(broker->hard_deadline, deadline_in(grace));
    loop_timer_at(broker->timer,
                  deadline_min(broker->hard_deadline, deadline_in(grace)) + BROKER_SLACK_NS);
    pthread_mutex_lock(&broker->vm_lock);
    recorder_stop(broker);
    pthread_mutex_unlock(&broker->vm_lock);
    /* First the signal, so that a call that ends now finds the stop noted. */
    kill(broker->vm_pid, SIGUSR1);
    cancel_raise(broker->cancel);
    if (paused)
        broker_leave_debugger(broker);
}

static void on_event_frame(struct broker *broker, struct value *frame)
{
    const char *t = value_get_string(frame, "t", "");

    if (strcmp(t, "cancel") == 0) {
        stop(broker);
    } else if (strcmp(t, "answer") == 0) {
        asks_answer(frame);
    } else if (strcmp(t, "interrupt") == 0) {
        if (!broker->spec->debug || broker->paused_at) {
            kill(broker->vm_pid, SIGUSR2);
            cancel_renew(broker->paused_at ? &broker->typed_cancel : &broker->cancel);
        }
    } else if (strcmp(t, "eval") == 0 || strcmp(t, "complete") == 0 || strcmp(t, "set") == 0 ||
               (strcmp(t, "leave") == 0 && broker->paused_at)) {
        broker_to_vm(broker, frame);
    }
}

static void on_event(void *ctx, int fd, uint32_t events)
{
    struct broker *broker = ctx;
    char *room = buf_reserve(&broker->event_in, 65536);
    ssize_t got = recv(fd, room, 65536, MSG_DONTWAIT);

    (void)events;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        /* The supervisor is gone. Its stages end, with their clean-up. */
        loop_end(broker->event_watch);
        broker->event_watch = NULL;
        stop(broker);
        return;
    }
    broker->event_in.len += (size_t)got;
    for (;;) {
        struct value frame = {0};
        int taken = frame_take(&broker->event_in, &frame, NULL);
        if (taken > 0)
            on_event_frame(broker, &frame);
        value_free(&frame);
        if (taken <= 0)
            break;
    }
}

static void on_terminate(void *ctx)
{
    stop(ctx);
}

static void on_timer(void *ctx)
{
    timed_out(ctx, "");
}

/* ---- the start ---- */

static void grant(struct broker *broker)
{
    const struct broker_spec *spec = broker->spec;

    if (spec->out_dir) {
        policy_grant(broker->policy, PERM_WRITE, spec->out_dir);
        policy_grant(broker->policy, PERM_READ, spec->out_dir);
    }
    if (broker->script_folder)
        policy_grant(broker->policy, PERM_READ, broker->script_folder);
    if (spec->stage) {
        cleanup_free char *who =
            mem_printf("stage '%.*s'", (int)strcspn(spec->stage, "["), spec->stage);
        policy_name(broker->policy, who);
    } else if (strcmp(spec->mode, "component") == 0) {
        policy_name(broker->policy, "the component");
    } else if (strcmp(spec->mode, "model") == 0) {
        policy_name(broker->policy, "the model");
    } else if (strcmp(spec->mode, "test") == 0) {
        policy_name(broker->policy, "a test");
    }
}

static int prepare(struct broker *broker, struct error *err)
{
    const struct broker_spec *spec = broker->spec;
    int64_t grace = spec->grace_ns ? spec->grace_ns : GRACE_NS;

    broker->deadline = spec->timeout_ns ? deadline_in(spec->timeout_ns) : DEADLINE_NONE;
    broker->hard_deadline =
        broker->deadline == DEADLINE_NONE ? DEADLINE_NONE : deadline_in(spec->timeout_ns + grace);
    if (spec->script) {
        const char *slash = strrchr(spec->script, '/');
        broker->script_folder = slash && slash != spec->script
                                    ? mem_strndup(spec->script, (size_t)(slash - spec->script))
                                    : mem_strdup("/");
    }
    pthread_mutex_init(&broker->vm_lock, NULL);
    pthread_mutex_init(&broker->event_lock, NULL);
    pthread_mutex_init(&broker->http_lock, NULL);
    pthread_mutex_init(&broker->out_lock, NULL);
    pthread_mutex_init(&broker->handles.lock, NULL);
    broker->masker = masker_new();
    broker->cancel = new_cancel();
    broker->late_cancel = new_cancel();
    if (!broker->cancel || !broker->late_cancel)
        return error_errno(err, errno, "eventfd");
    broker->policy = policy_new(&spec->permissions, spec->bound, spec->config->workspace, err);
    if (!broker->policy)
        return -1;
    policy_state(broker->policy, spec->config->state);
    if (spec->config->file)
        policy_protect(broker->policy, spec->config->file);
    grant(broker);
    broker_protect_kubeconfigs(broker);
    if (spec->play && player_open(broker, err) < 0)
        return -1;
    return broker_start_vm(broker, err);
}

static int watch(struct broker *broker, struct error *err)
{
    broker->loop = loop_new(err);
    if (!broker->loop)
        return -1;
    int pidfd = (int)syscall(SYS_pidfd_open, broker->vm_pid, 0);
    if (pidfd < 0)
        return error_errno(err, errno, "pidfd_open");
    broker->timer = loop_timer(broker->loop, DEADLINE_NONE, on_timer, broker);
    if (broker->hard_deadline != DEADLINE_NONE)
        loop_timer_at(broker->timer, broker->hard_deadline + BROKER_SLACK_NS);
    if (broker->spec->debug && broker_pause_init(broker, err) < 0)
        return -1;
    broker->event_watch = loop_fd(broker->loop, broker->event_fd, EPOLLIN, on_event, broker);
    broker->vm_watch = loop_fd(broker->loop, broker->vm_fd, EPOLLIN, on_vm, broker);
    broker->vm_child = loop_child(broker->loop, pidfd, on_vm_end, broker);
    loop_signal(broker->loop, SIGTERM, on_terminate, broker);
    if (!broker->event_watch || !broker->vm_watch || !broker->vm_child)
        return error_errno(err, errno, "epoll");
    return 0;
}

static void send_ready(struct broker *broker)
{
    static const struct {
        unsigned layer;
        const char *name;
    } names[] = {{SANDBOX_LAYER_SECCOMP, "seccomp"},
                 {SANDBOX_LAYER_RLIMITS, "rlimits"},
                 {SANDBOX_LAYER_LANDLOCK, "landlock"}};
    struct value event = {0};
    unsigned layers = sandbox_script_layers();

    value_set_map(&event);
    value_put_string(&event, "t", "ready");
    struct value *list = value_put(&event, "enforced");
    value_set_array(list);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (layers & names[i].layer)
            value_push_string(list, names[i].name);
    }
    broker_event(broker, &event);
}

static _Noreturn void broker_process(const struct broker_spec *spec, int event_fd, pid_t parent)
{
    struct broker *broker = &the_broker;
    struct error err = {0};
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigset_t none;

    /* Out of the terminal's process group: Ctrl-C is the supervisor's, which tells us. */
    setsid();
    prctl(PR_SET_NAME, "mlhost-broker");
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (int signo = 1; signo < 32; signo++)
        sigaction(signo, &plain, NULL);
    plain.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &plain, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (event_fd != 3) {
        dup2(event_fd, 3);
        event_fd = 3;
    }
    fcntl(3, F_SETFD, FD_CLOEXEC);
    broker_model_keep(spec);
    if (spec->hold_fd > 0) /* a high number, see run_lock */
        dup3(spec->hold_fd, BROKER_HOLD, O_CLOEXEC);
    else
        close(BROKER_HOLD);
    syscall(SYS_close_range, BROKER_KEPT, ~0u, 0);
    if (getppid() != parent)
        _exit(0);

    *broker = (struct broker){.spec = spec, .event_fd = event_fd, .vm_fd = -1};
    if (prepare(broker, &err) < 0 || watch(broker, &err) < 0)
        fail(broker, err.code, err.hint[0] ? err.hint : NULL, "%s", err.message);
    send_ready(broker);
    loop_run(broker->loop, &err);
    fail(broker, ERR_INTERNAL, NULL, "event loop: %s", err.message);
    leave(broker);
}

int broker_start(const struct broker_spec *spec, struct sandbox_child *child, int *event_fd,
                 struct error *err)
{
    int pair[2];
    pid_t parent = getpid();

    sandbox_warm(); /* once in this process, for all brokers */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, errno, "socketpair");
    pid_t pid = fork();
    if (pid == 0)
        broker_process(spec, pair[1], parent);
    int saved = errno;
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return error_errno(err, saved, "cannot start a broker");
    }
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        saved = errno;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(pair[0]);
        return error_errno(err, saved, "pidfd_open");
    }
    *child =
        (struct sandbox_child){.pid = pid, .pidfd = pidfd, .enforced = sandbox_script_layers()};
    *event_fd = pair[0];
    return 0;
}
