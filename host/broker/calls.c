/* Calls of the VM: each runs on a worker thread, its reply is written when it is there. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "broker/internal.h"

#define WORKERS_MAX 16
#define WAITING_MAX 4096

struct job {
    struct job *next;
    struct broker *broker;
    uint64_t id;
    const struct primitive *row;
    struct value args;
    bool late;            /* the script had heard of a stop when it called */
    struct cancel *typed; /* typed at the debugger: the call's own cancel, and no deadline */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct job *first, **last;
    size_t waiting, workers, idle;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

void broker_tell_locked(struct broker *broker, uint64_t id, struct value *frame)
{
    cleanup_buf struct buf out = BUF_INIT;

    value_put_string(frame, "t", "reply");
    value_put_int(frame, "id", (int64_t)id);
    frame_append(frame, &out);
    if (out.len > FRAME_MAX) {
        struct error large = {0};
        buf_clear(&out);
        value_remove(frame, "ok");
        error_set(&large, ERR_TOO_LARGE, "the reply is larger than 64 MiB");
        error_into_value(&large, value_put(frame, "error"));
        frame_append(frame, &out);
    }
    recorder_reply(broker, id, frame);
    for (size_t at = 0; at < out.len;) {
        ssize_t n = send(broker->vm_fd, out.data + at, out.len - at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* the VM is gone, which the loop sees */
        at += (size_t)n;
    }
}

static void reply(struct broker *broker, uint64_t id, struct value *ok, const struct error *err)
{
    cleanup_value struct value frame = {0};

    value_set_map(&frame);
    if (err)
        error_into_value(err, value_put(&frame, "error"));
    else
        value_move(value_put(&frame, "ok"), ok);
    pthread_mutex_lock(&broker->vm_lock);
    if (!broker->player || !player_holds(broker, id, &frame))
        broker_tell_locked(broker, id, &frame);
    pthread_mutex_unlock(&broker->vm_lock);
}

/* "timeout" among the arguments bounds any call that has one. */
static int call_deadline(struct broker *broker, bool typed, const struct value *args,
                         int64_t *deadline, struct error *err)
{
    const struct value *timeout = value_get(args, "timeout");
    int64_t ns = 0;

    if (typed)
        *deadline = DEADLINE_NONE;
    else if (broker->stopping || deadline_passed(broker->deadline))
        *deadline = broker->hard_deadline;
    else /* with a debugger the deadline moves: pause.c ends the call */
        *deadline = broker->spec->debug ? DEADLINE_NONE : broker->deadline;
    if (!timeout || timeout->kind == VALUE_NIL)
        return 0;
    if (timeout->kind == VALUE_STRING) {
        if (duration_parse(timeout->as.string.data, &ns, err) < 0)
            return error_wrap(err, "timeout");
    } else if (timeout->kind == VALUE_INT && timeout->as.integer >= 0) {
        ns =
            timeout->as.integer > INT64_MAX / NS_PER_S ? INT64_MAX : timeout->as.integer * NS_PER_S;
    } else if (timeout->kind == VALUE_REAL && timeout->as.real >= 0 && timeout->as.real < 1e9) {
        ns = (int64_t)(timeout->as.real * (double)NS_PER_S);
    } else {
        return error_set(err, ERR_USAGE, "timeout must be a duration such as \"90s\", or seconds");
    }
    *deadline = deadline_min(*deadline, deadline_in(ns));
    return 0;
}

static int perform(struct broker *broker, const struct primitive *row, bool late,
                   struct cancel *typed, const struct value *args, struct value *out,
                   struct error *err)
{
    struct call call = {.broker = broker, .row = row};
    primitive_fn *fn = row->fn;

    /* A call that was on its way when the stop came ends with it; clean-up has its own time. */
    call.cancel = broker->stopping && late ? broker->late_cancel : broker->cancel;
    if (signature_check(&row->sign, args, err) < 0 ||
        call_deadline(broker, typed != NULL, args, &call.deadline, err) < 0)
        return -1;
    if (typed)
        call.cancel = typed;
    if (!fn) {
        void *symbol = module_symbol(row->module, row->symbol, err);
        if (!symbol)
            return -1;
        /* ISO C knows no cast between object and function pointers. */
        memcpy(&fn, &symbol, sizeof fn);
    }
    int rc = fn(&call, args, out, err);
    if (rc < 0 && err->code == ERR_CANCELLED && broker->time_over && !broker->stopping && !typed)
        err->code = ERR_TIMEOUT; /* pause.c ended it at the stage's deadline */
    return rc;
}

static void run(struct job *job)
{
    struct value out = {0};
    struct error err = {0};

    if (perform(job->broker, job->row, job->late, job->typed, &job->args, &out, &err) < 0)
        reply(job->broker, job->id, NULL, &err);
    else
        reply(job->broker, job->id, &out, NULL);
    value_free(&out);
    value_free(&job->args);
    free(job);
}

static void *worker(void *ctx)
{
    (void)ctx;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (!pool.first) {
            pool.idle++;
            pthread_cond_wait(&pool.more, &pool.lock);
            pool.idle--;
        }
        struct job *job = pool.first;
        pool.first = job->next;
        pool.waiting--;
        pthread_mutex_unlock(&pool.lock);
        run(job);
        pthread_mutex_lock(&pool.lock);
    }
    return NULL;
}

static int enqueue(struct job *job, struct error *err)
{
    int failed = 0;

    pthread_mutex_lock(&pool.lock);
    if (pool.waiting >= WAITING_MAX) {
        pthread_mutex_unlock(&pool.lock);
        return error_set(err, ERR_TOO_LARGE, "more than %d calls at once", WAITING_MAX);
    }
    if (!pool.first)
        pool.last = &pool.first;
    *pool.last = job;
    pool.last = &job->next;
    pool.waiting++;
    if (pool.idle < pool.waiting && pool.workers < WORKERS_MAX) {
        pthread_t thread;
        failed = pthread_create(&thread, NULL, worker, NULL);
        if (failed == 0) {
            pthread_detach(thread);
            pool.workers++;
        }
    }
    pthread_cond_signal(&pool.more);
    bool nobody = failed && pool.workers == 0;
    pthread_mutex_unlock(&pool.lock);
    return nobody ? error_errno(err, failed, "cannot start a thread") : 0;
}

/* The tapes' side of a frame; true when the one that is played has an answer to it. */
static bool is_played(struct broker *broker, struct value *frame, bool one_way)
{
    if (one_way)
        return broker->player && player_is_quiet(broker);
    if (broker->recorder && !value_get_bool(frame, "debug", false)) {
        pthread_mutex_lock(&broker->vm_lock);
        recorder_call(broker, frame);
        pthread_mutex_unlock(&broker->vm_lock);
    }
    return broker->player && player_call(broker, frame) == PLAY_TOLD;
}

void calls_take(struct broker *broker, struct value *frame)
{
    const char *name = value_get_string(frame, "name", "");
    uint64_t id = (uint64_t)value_get_int(frame, "id", 0);
    bool one_way = strcmp(value_get_string(frame, "t", ""), "say") == 0;
    const struct primitive *row = primitive_find(name);
    struct error err = {0};

    if (is_played(broker, frame, one_way)) {
        value_free(frame);
        return;
    }
    if (!row || (one_way && !row->one_way)) {
        error_set(&err, ERR_USAGE, "there is no primitive '%s'", name);
        if (!one_way)
            reply(broker, id, NULL, &err);
    } else if (row->one_way) {
        /* In order, on this thread: they only pass something on. */
        struct value out = {0}, *args = value_get(frame, "args");
        if (args && args->kind == VALUE_MAP && (strcmp(name, "event.log") == 0))
            value_put_string(args, "at", value_get_string(frame, "at", ""));
        int failed =
            perform(broker, row, value_get_bool(frame, "late", false), NULL, args, &out, &err);
        if (failed && one_way) {
            struct call call = {.broker = broker, .row = row};
            call_log(&call, "error", "%s", err.message);
        } else if (!one_way) {
            reply(broker, id, failed ? NULL : &out, failed ? &err : NULL);
        }
        value_free(&out);
    } else {
        struct job *job = mem_alloc(sizeof *job);
        struct value *args = value_get(frame, "args");
        *job = (struct job){.broker = broker,
                            .id = id,
                            .row = row,
                            .late = value_get_bool(frame, "late", false),
                            .typed = broker->paused_at ? broker->typed_cancel : NULL};
        if (args)
            value_move(&job->args, args);
        else
            value_set_map(&job->args);
        if (enqueue(job, &err) < 0)
            reply(broker, id, NULL, &err);
    }
    value_free(frame);
}
