/* One container: a thread that runs it to its end (a sandboxed process ends with the thread that
 * started it), and a thread that probes it. */
#include "local/seldon_process.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "local/runner.h"
#include "local/seldon_log.h"

#define STACK      ((size_t)256 << 10)
#define FIRST_MS   20 /* between the first probes; grows by half each time, up to the period */
#define GROW(ms)   ((ms) + (ms) / 2)
#define REPLY_ROOM ((size_t)64 << 10)

struct seldon_process {
    struct seldon_queue *queue;
    struct http *http;
    int64_t id;
    struct value spec;
    struct cancel cancel; /* stops the command */
    struct cancel over;   /* ends the probes */
    pthread_t thread;
    struct seldon_log log;
};

/* ---- probes ---- */

struct probe {
    const struct value *spec; /* NULL: there is none */
    const char *what;
    int64_t next, period, pause;
    int64_t failures, successes; /* in a row */
    bool holds, ever;
};

static void probe_init(struct probe *probe, const struct value *probes, const char *key,
                       const char *what, bool eager)
{
    *probe = (struct probe){.spec = value_get(probes, key), .what = what, .next = DEADLINE_NONE};
    if (!probe->spec)
        return;
    probe->period = value_get_int(probe->spec, "period_ms", 10000) * NS_PER_MS;
    probe->pause = eager ? FIRST_MS * NS_PER_MS : probe->period;
    int64_t delay = eager ? 0 : value_get_int(probe->spec, "delay_ms", 0);
    probe->next = deadline_in(delay * NS_PER_MS);
}

static int connects(int port, struct error *err)
{
    cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return error_errno(err, errno, "cannot connect to port %d", port);
    return 0;
}

static int attempt(const struct seldon_process *process, const struct probe *probe,
                   struct error *err)
{
    const char *path = value_get_string(probe->spec, "path", NULL);
    int port = (int)value_get_int(probe->spec, "port", 0);
    cleanup_free char *url = mem_printf("http://127.0.0.1:%d%s", port, path ? path : "/");
    const struct value *headers = value_get(probe->spec, "headers");
    struct http_request request = HTTP_REQUEST_INIT;
    cleanup_response struct http_response response = {0};
    int64_t timeout = value_get_int(probe->spec, "timeout_ms", 1000);

    if (!path)
        return connects(port, err);
    request.url = url;
    request.proxy = "";
    request.repeat = HTTP_REPEAT_NEVER;
    request.reply_limit = REPLY_ROOM;
    request.deadline = deadline_in(timeout * NS_PER_MS);
    request.cancel = &process->over;
    for (size_t i = 0; i < value_count(headers); i++) {
        const struct value *header = value_at(headers, i);
        http_header_add(&request.headers, value_get_string(header, "name", "X"),
                        value_get_string(header, "value", ""));
    }
    int status = http_perform(process->http, &request, &response, err);
    http_headers_free(&request.headers);
    if (status < 0)
        return -1;
    if (response.status >= 200 && response.status < 400)
        return 0;
    if (value_get_bool(probe->spec, "missing_ok", false) &&
        (response.status == 404 || response.status == 405 || response.status == 501))
        return 0;
    return error_set(err, ERR_UNAVAILABLE, "GET %s answers with status %d", path, response.status);
}

static void tell_text(const struct seldon_process *process, const char *kind,
                      const struct probe *probe, const struct error *why)
{
    struct value event = {0};

    value_set_map(&event);
    value_put_string(&event, "t", kind);
    value_put_int(&event, "id", process->id);
    value_set_printf(value_put(&event, "text"), "%s probe failed: %s", probe->what, why->message);
    seldon_queue_post(process->queue, &event);
}

/* True when the probe's word has changed. */
static bool probe_once(struct seldon_process *process, struct probe *probe, struct error *why)
{
    bool before = probe->holds;

    if (attempt(process, probe, why) == 0) {
        probe->failures = 0;
        probe->ever = true;
        probe->pause = probe->period;
        if (++probe->successes >= value_get_int(probe->spec, "successes", 1))
            probe->holds = true;
    } else {
        probe->successes = 0;
        if (++probe->failures >= value_get_int(probe->spec, "failures", 3))
            probe->holds = false;
        if (!probe->ever && probe->pause < probe->period)
            probe->pause = GROW(probe->pause) < probe->period ? GROW(probe->pause) : probe->period;
    }
    probe->next = deadline_in(probe->pause);
    return before != probe->holds;
}

/* The failures of a startup probe count once its quick tries are over. */
static bool given_up(const struct probe *probe)
{
    return probe->failures >= value_get_int(probe->spec, "failures", 3) &&
           probe->pause >= probe->period;
}

static bool wait_until(struct seldon_process *process, int64_t at)
{
    while (!cancelled(&process->over) && !deadline_passed(at)) {
        struct pollfd over = {.fd = process->over.fd, .events = POLLIN};
        if (poll(&over, 1, deadline_poll_ms(at)) < 0 && errno != EINTR)
            break;
    }
    return !cancelled(&process->over);
}

static void *probes(void *ctx)
{
    struct seldon_process *process = ctx;
    const struct value *all = value_get(&process->spec, "probes");
    struct probe startup, readiness, liveness;

    probe_init(&startup, all, "startup", "Startup", true);
    while (startup.spec && !startup.holds && wait_until(process, startup.next)) {
        struct error why = {0};
        probe_once(process, &startup, &why);
        if (!startup.holds && given_up(&startup)) {
            tell_text(process, "unhealthy", &startup, &why);
            return NULL;
        }
    }
    probe_init(&readiness, all, "readiness", "Readiness", true);
    probe_init(&liveness, all, "liveness", "Liveness", false);
    liveness.holds = true;
    if (!readiness.spec && !cancelled(&process->over))
        seldon_queue_tell(process->queue, "ready", process->id);
    for (;;) {
        struct error why = {0};
        if (!wait_until(process, deadline_min(readiness.next, liveness.next)))
            return NULL;
        if (readiness.spec && deadline_passed(readiness.next)) {
            bool changed = probe_once(process, &readiness, &why);
            if (changed && readiness.holds)
                seldon_queue_tell(process->queue, "ready", process->id);
            else if (changed)
                tell_text(process, "unready", &readiness, &why);
        }
        if (liveness.spec && deadline_passed(liveness.next) &&
            probe_once(process, &liveness, &why) && !liveness.holds) {
            tell_text(process, "unhealthy", &liveness, &why);
            return NULL;
        }
    }
}

/* ---- the command ---- */

static void on_output(void *ctx, int stream, const char *data, size_t len)
{
    struct seldon_process *process = ctx;

    (void)stream;
    seldon_log_write(&process->log, data, len);
}

static void on_started(void *ctx, pid_t pid)
{
    struct seldon_process *process = ctx;
    struct value event = {0};

    value_set_map(&event);
    value_put_string(&event, "t", "started");
    value_put_int(&event, "id", process->id);
    value_put_int(&event, "pid", pid);
    seldon_queue_post(process->queue, &event);
}

static int thread_start(pthread_t *thread, void *(*run)(void *), void *ctx)
{
    pthread_attr_t attributes;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    int status = pthread_create(thread, &attributes, run, ctx);
    pthread_attr_destroy(&attributes);
    return status;
}

static void run(struct seldon_process *process, struct value *event)
{
    struct exec_result result = {0};
    struct error err = {0};
    pthread_t prober;
    int status = thread_start(&prober, probes, process);

    if (status) {
        error_errno(&err, status, "cannot start a thread");
    } else {
        status = runner_exec(&process->spec, &process->cancel, on_output, on_started, process,
                             &result, &err);
        cancel_raise(&process->over);
        pthread_join(prober, NULL);
    }
    if (status) {
        value_put_string(event, "error", err.message);
        value_put_string(event, "hint", err.hint);
        value_put_string(event, "code", error_code_name(err.code));
    }
    value_put_int(event, "status", status ? 128 : result.status);
    exec_result_free(&result);
}

static void *work(void *ctx)
{
    struct seldon_process *process = ctx;
    struct value event = {0};

    value_set_map(&event);
    value_put_string(&event, "t", "exited");
    value_put_int(&event, "id", process->id);
    run(process, &event);
    value_set_bytes(value_put(&event, "text"), process->log.tail, process->log.tail_len);
    seldon_log_close(&process->log);
    seldon_queue_post(process->queue, &event);
    return NULL;
}

static void discard(struct seldon_process *process)
{
    seldon_log_close(&process->log);
    cancel_end(&process->cancel);
    cancel_end(&process->over);
    value_free(&process->spec);
    free(process);
}

struct seldon_process *seldon_process_start(struct seldon_queue *queue, struct http *http,
                                            int64_t id, const struct value *spec, struct error *err)
{
    struct seldon_process *process = mem_alloc(sizeof *process);

    process->queue = queue;
    process->http = http;
    process->id = id;
    process->log.fd = process->cancel.fd = process->over.fd = -1;
    value_copy(&process->spec, spec);
    if (cancel_init(&process->cancel) < 0 || cancel_init(&process->over) < 0) {
        error_errno(err, errno, "cannot make an eventfd");
    } else if (seldon_log_open(&process->log, value_get_string(spec, "log", ""),
                               (uint64_t)value_get_int(spec, "log_limit", 10 << 20), err) == 0) {
        int status = thread_start(&process->thread, work, process);
        if (status == 0)
            return process;
        error_errno(err, status, "cannot start a thread");
    }
    discard(process);
    return NULL;
}

void seldon_process_stop(struct seldon_process *process)
{
    cancel_raise(&process->over);
    cancel_raise(&process->cancel);
}

void seldon_process_free(struct seldon_process *process)
{
    pthread_join(process->thread, NULL);
    discard(process);
}
