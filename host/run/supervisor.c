#include "run/supervisor.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/context.h"
#include "run/report.h"
#include "run/services.h"
#include "run/stagelog.h"
#include "run/worker.h"

#define ALWAYS_NS (120 * NS_PER_S)        /* budget of an `always` block */
#define ALWAYS_CANCELLED_NS (30 * NS_PER_S)
#define BACKOFF_MAX_NS (3600 * NS_PER_S)

enum slot_state { SLOT_IDLE, SLOT_RUNNING, SLOT_BACKOFF, SLOT_ALWAYS, SLOT_DONE };

struct run;
struct slot {
    struct run *run;
    size_t cell;                 /* index in the graph */
    size_t tally;                /* index in the tally */
    enum slot_state state;
    struct worker *worker;
    struct loop_watch *backoff;
    int attempt;
    int64_t started;             /* of the first attempt */
    char *folder;                /* stages/<cell> */
    struct stagelog log;
    enum cell_status status;     /* what the stage came to, while `always` runs */
    struct value output, error;
};

struct run {
    const struct run_options *opt;
    struct journal journal;
    struct services *services;
    struct slot *slots;
    size_t count;                /* of cells in the graph; those left out are SLOT_DONE from the start */
    int running;
    int signals;                 /* SIGINT and SIGTERM so far */
    bool timed_out;              /* the whole run */
    int exit;                    /* of the first stage that did not end well; 0 so far */
    const char *first_bad;       /* its name */
    bool costly;                 /* something happened that is worth a sync */
    int64_t started;
    struct error broken;         /* the journal cannot be written: nothing more may be done */
};

static struct tally_cell *state_of(const struct slot *slot)
{
    return &slot->run->opt->tally->cells[slot->tally];
}

static const struct cell *cell_of(const struct slot *slot)
{
    return &slot->run->opt->graph->cells[slot->cell];
}

static const struct stage *stage_of(const struct slot *slot)
{
    return &slot->run->opt->graph->stages[cell_of(slot)->stage];
}

static void kill_all(struct run *run)
{
    for (size_t i = 0; i < run->count; i++) {
        if (run->slots[i].worker)
            worker_kill(run->slots[i].worker);
    }
}

/* Journal first, then everybody else. Takes what is in *event. */
static void emit(struct run *run, struct value *event, bool journal, bool sync)
{
    if (!value_get(event, "time"))
        value_put_int(event, "time", clock_wall_ms());
    if (journal && run->broken.code == ERR_NONE) {
        struct value line = {0};
        event_redact(event, &line);
        int rc = journal_write(&run->journal, &line, sync, &run->broken);
        value_free(&line);
        if (rc < 0) {
            kill_all(run);
        }
    }
    tally_event(run->opt->tally, event);
    renderer_event(run->opt->renderer, event);
    value_free(event);
}

static void event_new(struct value *event, const char *t, const struct slot *slot)
{
    value_set_map(event);
    value_put_string(event, "t", t);
    if (slot)
        value_put_string(event, "stage", cell_of(slot)->name);
}

static void say(void *ctx, const char *level, const char *text)
{
    struct value event = {0};

    event_new(&event, "log", NULL);
    value_put_string(&event, "level", level);
    value_put_string(&event, "text", text);
    emit(ctx, &event, false, false);
}

/* ---- the end of a cell ---- */

static int exit_of(enum cell_status status)
{
    return cell_status_good(status)      ? 0
           : status == CELL_TIMEOUT   ? 3
           : status == CELL_DENIED    ? 4
           : status == CELL_CANCELLED ? 130
                                      : 1;
}

static void end_cell(struct slot *slot, enum cell_status status, const char *reason)
{
    struct run *run = slot->run;
    struct value event = {0};
    int64_t took_ms = slot->started ? (clock_now() - slot->started) / NS_PER_MS : 0;
    bool sync = took_ms >= JOURNAL_CHEAP_MS;

    slot->state = SLOT_DONE;
    run->costly = run->costly || sync;
    if (!cell_status_good(status) && status != CELL_BLOCKED && run->exit == 0) {
        run->exit = exit_of(status);
        run->first_bad = cell_of(slot)->name;
    }
    event_new(&event, "stage_end", slot);
    value_put_string(&event, "status", cell_status_name(status));
    value_put_int(&event, "attempt", slot->attempt);
    value_put_int(&event, "duration_ms", took_ms);
    value_put_string(&event, "reason", reason);
    if (status == CELL_OK)
        value_move(value_put(&event, "output"), &slot->output);
    else if (slot->error.kind == VALUE_MAP)
        value_move(value_put(&event, "error"), &slot->error);
    value_free(&slot->output);
    value_free(&slot->error);
    stagelog_close(&slot->log);
    emit(run, &event, true, sync);
}

/* ---- what a worker says ---- */

static void on_event(void *ctx, struct value *event)
{
    struct slot *slot = ctx;
    const char *t = value_get_string(event, "t", "");
    bool line = strcmp(t, "output") == 0 || strcmp(t, "log") == 0;
    bool effect = strcmp(t, "effect") == 0;
    bool known = line || effect || strcmp(t, "progress") == 0 || strcmp(t, "variable") == 0 ||
                 strcmp(t, "report") == 0 || strcmp(t, "issue") == 0;
    struct value own = {0};

    if (!known)
        return;
    value_move(&own, event);
    value_put_string(&own, "stage", cell_of(slot)->name);
    value_put_int(&own, "time", clock_wall_ms());
    const char *path = value_get_string(&own, "path", NULL);
    if (path && path[0] != '/') {
        cleanup_free char *whole = path_join(slot->run->opt->config->workspace, path);
        value_put_string(&own, "path", whole);
    }
    if (line)
        stagelog_event(&slot->log, slot->folder, &own);
    slot->run->costly = slot->run->costly || effect;
    emit(slot->run, &own, !line && strcmp(t, "progress") != 0, effect);
}

static enum cell_status classify(const struct worker_result *result)
{
    if (result->ok)
        return result->skipped ? CELL_SKIPPED : CELL_OK;
    if (result->timed_out)
        return CELL_TIMEOUT;
    if (result->cancelled)
        return CELL_CANCELLED;
    switch (error_code_from_name(value_get_string(&result->error, "code", "failed"))) {
    case ERR_TIMEOUT:
        return CELL_TIMEOUT;
    case ERR_DENIED:
        return CELL_DENIED;
    case ERR_CANCELLED:
        return CELL_CANCELLED;
    default:
        return CELL_FAILED;
    }
}

static void schedule(struct run *run);
static int start_worker(struct slot *slot, const char *mode);

static void on_backoff(void *ctx)
{
    struct slot *slot = ctx;

    loop_end(slot->backoff);
    slot->backoff = NULL;
    slot->state = SLOT_IDLE;
    slot->status = CELL_WAITING;
    value_free(&slot->error);
    schedule(slot->run);
}

static bool try_again(struct slot *slot, enum cell_status status)
{
    struct run *run = slot->run;
    const struct stage *stage = stage_of(slot);
    struct value event = {0};

    if ((status != CELL_FAILED && status != CELL_TIMEOUT) || slot->attempt > stage->retries || run->signals ||
        run->timed_out)
        return false;
    int64_t delay = stage->backoff_ns;
    for (int i = 1; i < slot->attempt && delay < BACKOFF_MAX_NS; i++)
        delay *= 2;
    delay = delay < BACKOFF_MAX_NS ? delay : BACKOFF_MAX_NS;
    event_new(&event, "stage_retry", slot);
    value_put_int(&event, "attempt", slot->attempt);
    value_put_int(&event, "delay_ms", delay / NS_PER_MS);
    value_copy(value_put(&event, "error"), &slot->error);
    emit(run, &event, true, false);
    slot->state = SLOT_BACKOFF;
    slot->backoff = loop_timer(run->opt->loop, deadline_in(delay), on_backoff, slot);
    return true;
}

/* The stage's run is over for good: its `always` block, if any, then its end. */
static void stage_over(struct slot *slot)
{
    struct run *run = slot->run;

    if (stage_of(slot)->always && slot->status != CELL_SKIPPED && run->signals < 2) {
        struct value event = {0};
        event_new(&event, "stage_result", slot);
        value_put_string(&event, "status", cell_status_name(slot->status));
        value_put_int(&event, "attempt", slot->attempt);
        if (slot->status == CELL_OK)
            value_copy(value_put(&event, "output"), &slot->output);
        else
            value_copy(value_put(&event, "error"), &slot->error);
        emit(run, &event, true, false);
        if (start_worker(slot, "always") == 0)
            return;
    }
    end_cell(slot, slot->status, NULL);
}

static void always_over(struct slot *slot, struct worker_result *result)
{
    if (!result->ok && slot->status == CELL_OK) {
        slot->status = classify(result);
        value_move(&slot->error, &result->error);
        cleanup_free char *message = mem_printf("always: %s", value_get_string(&slot->error, "message", "failed"));
        value_put_string(&slot->error, "message", message);
    } else if (!result->ok) {
        cleanup_free char *text = mem_printf("its always block failed too: %s",
                                             value_get_string(&result->error, "message", ""));
        struct value event = {0};
        event_new(&event, "log", slot);
        value_put_string(&event, "level", "error");
        value_put_string(&event, "text", text);
        on_event(slot, &event);
        value_free(&event);
    }
    end_cell(slot, slot->status, NULL);
}

static void on_end(void *ctx, struct worker_result *result)
{
    struct slot *slot = ctx;
    struct run *run = slot->run;

    slot->worker = NULL;
    run->running--;
    if (slot->state == SLOT_ALWAYS) {
        always_over(slot, result);
    } else {
        slot->status = classify(result);
        value_move(&slot->output, &result->output);
        value_move(&slot->error, &result->error);
        if (!try_again(slot, slot->status))
            stage_over(slot);
    }
    schedule(run);
}

/* ---- starting ---- */

static int64_t budget(const struct run *run, const struct slot *slot, bool always)
{
    const struct stage *stage = stage_of(slot);
    int64_t whole = run->opt->timeout_ns ? run->opt->timeout_ns : run->opt->graph->timeout_ns;

    if (always)
        return run->signals ? ALWAYS_CANCELLED_NS : ALWAYS_NS;
    if (!whole)
        return stage->timeout_ns;
    int64_t left = run->started + whole - clock_now();
    left = left > NS_PER_MS ? left : NS_PER_MS;
    return stage->timeout_ns && stage->timeout_ns < left ? stage->timeout_ns : left;
}

static int start_worker(struct slot *slot, const char *mode)
{
    struct run *run = slot->run;
    const struct run_options *opt = run->opt;
    bool always = strcmp(mode, "always") == 0;
    struct worker_handler handler = {.event = on_event, .end = on_end, .ctx = slot};
    cleanup_free char *out_dir = path_join(slot->folder, "out");
    struct error err = {0};
    struct broker_spec spec = {
        .config = opt->config, .mode = mode, .script = opt->plan->script, .stage = cell_of(slot)->name,
        .run_id = opt->id, .out_dir = out_dir, .local_socket = services_socket(run->services), .bound = opt->bound,
        .timeout_ns = budget(run, slot, always), .grace_ns = WORKER_GRACE_NS, .allow_degraded = opt->allow_degraded};

    plan_permissions(opt->plan, stage_of(slot)->spec, &spec.permissions);
    context_build(opt, cell_of(slot), opt->from ? opt->from : opt->tally, state_of(slot), slot->attempt, &spec.context);
    if (always) {
        value_put_string(&spec.context, "status", cell_status_name(slot->status));
        value_copy(value_put(&spec.context, "error"), &slot->error);
        value_copy(value_put(&spec.context, "output"), &slot->output);
    }
    /* The children inherit the descriptors: nothing buffered may be in them twice. */
    renderer_flush(opt->renderer);
    slot->worker = worker_start(opt->loop, &spec, &handler, &err);
    value_free(&spec.permissions);
    value_free(&spec.context);
    if (!slot->worker) {
        value_free(&slot->error);
        error_to_value(&err, &slot->error);
        slot->status = err.code == ERR_DENIED ? CELL_DENIED : CELL_FAILED;
        return -1;
    }
    slot->state = always ? SLOT_ALWAYS : SLOT_RUNNING;
    run->running++;
    return 0;
}

static void start_stage(struct slot *slot)
{
    struct value event = {0};

    if (!slot->started)
        slot->started = clock_now();
    slot->attempt++;
    event_new(&event, "stage_start", slot);
    value_put_int(&event, "attempt", slot->attempt);
    emit(slot->run, &event, true, false);
    if (start_worker(slot, "stage") < 0)
        end_cell(slot, slot->status, NULL);
}

/* 1 may start, 0 must wait, -1 blocked (*by is the need's cell). */
static int needs_met(const struct run *run, const struct slot *slot, const char **by)
{
    const struct graph *graph = run->opt->graph;
    const struct stage *stage = stage_of(slot);
    bool wait = false;

    if (run->opt->from)
        return 1;
    for (size_t i = 0; i < stage->need_count; i++) {
        const struct stage *need = &graph->stages[stage->needs[i]];
        for (size_t k = 0; k < need->cell_count; k++) {
            const struct slot *other = &run->slots[need->first_cell + k];
            enum cell_status status = state_of(other)->status;
            if (other->state != SLOT_DONE) {
                wait = true;
            } else if (!cell_status_good(status)) {
                *by = cell_of(other)->name;
                return -1;
            }
        }
    }
    return wait ? 0 : 1;
}

/* Ends a cell that will never start; true when it did. */
static bool give_up(struct run *run, struct slot *slot, int met, const char *by)
{
    if (run->signals) {
        end_cell(slot, CELL_CANCELLED, "the run was cancelled");
        return true;
    }
    cleanup_free char *reason = run->timed_out ? mem_strdup("the pipeline timed out")
                                : met < 0      ? mem_printf("needs %s, which did not end well", by)
                                : run->exit && !run->opt->keep_going && slot->attempt == 0
                                    ? mem_printf("not started: %s did not end well (--keep-going goes on)", run->first_bad)
                                    : NULL;
    if (!reason)
        return false;
    end_cell(slot, CELL_BLOCKED, reason);
    return true;
}

static void schedule(struct run *run)
{
    bool changed = true;

    while (changed && run->broken.code == ERR_NONE) {
        changed = false;
        for (size_t i = 0; i < run->count; i++) {
            struct slot *slot = &run->slots[i];
            const char *by = NULL;
            if (slot->state != SLOT_IDLE)
                continue;
            int met = needs_met(run, slot, &by);
            if (give_up(run, slot, met, by)) {
                changed = true;
            } else if (met > 0 && run->running < run->opt->jobs) {
                if (slot->status == CELL_WAITING) {
                    start_stage(slot);
                } else { /* a resumed run: only the `always` block is left */
                    slot->started = clock_now();
                    stage_over(slot);
                }
                changed = true;
            }
        }
    }
}

/* ---- signals and the whole run's deadline ---- */

static void cancel_all(struct run *run, bool timeout)
{
    for (size_t i = 0; i < run->count; i++) {
        struct slot *slot = &run->slots[i];
        if (slot->worker && slot->state == SLOT_RUNNING)
            worker_cancel(slot->worker, timeout);
        if (slot->state == SLOT_BACKOFF) {
            loop_end(slot->backoff);
            slot->backoff = NULL;
            stage_over(slot); /* as its last attempt left it */
        }
    }
    schedule(run);
}

static void on_signal(void *ctx)
{
    struct run *run = ctx;

    run->signals++;
    if (run->signals == 1) {
        say(run, "warning", "cancelling: running stages get 5 s to clean up; once more to kill them now");
        cancel_all(run, false);
    } else {
        say(run, "warning", "killing everything");
        kill_all(run);
    }
}

static void on_deadline(void *ctx)
{
    struct run *run = ctx;

    run->timed_out = true;
    if (run->exit == 0) {
        run->exit = 3;
        run->first_bad = run->opt->plan->name;
    }
    say(run, "error", "the pipeline timed out");
    cancel_all(run, true);
}

/* ---- the whole ---- */

/* A reader of our output that goes away must not end the run. */
static void ignore_broken_pipes(void)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, NULL);
}

static bool chosen(const struct run *run, const struct cell *cell)
{
    const char *only = run->opt->only;

    return !only || strcmp(only, cell->name) == 0 || strcmp(only, run->opt->graph->stages[cell->stage].name) == 0;
}

static void make_slots(struct run *run)
{
    const struct graph *graph = run->opt->graph;
    struct tally *tally = run->opt->tally;

    run->count = graph->cell_count;
    run->slots = mem_alloc((run->count + 1) * sizeof *run->slots);
    for (size_t i = 0; i < run->count; i++) {
        struct slot *slot = &run->slots[i];
        const struct cell *cell = &graph->cells[i];
        struct tally_cell *state = tally_find(tally, cell->name);
        cleanup_buf struct buf folder = BUF_INIT;

        cell_folder(cell->name, &folder);
        *slot = (struct slot){.run = run, .cell = i, .log = STAGELOG_INIT};
        slot->folder = mem_printf("%s/stages/%s", run->opt->dir, folder.data);
        if (!state || !chosen(run, cell)) {
            slot->state = SLOT_DONE;
            continue;
        }
        slot->tally = (size_t)(state - tally->cells);
        if (cell_status_good(state->status)) {
            slot->state = SLOT_DONE;
        } else if (state->result.kind == VALUE_MAP &&
                   strcmp(value_get_string(&state->result, "status", ""), "ok") == 0) {
            slot->status = CELL_OK;
            slot->attempt = (int)value_get_int(&state->result, "attempt", 1);
            const struct value *output = value_get(&state->result, "output");
            if (output)
                value_copy(&slot->output, output);
        }
    }
}

static void emit_start(struct run *run)
{
    const struct run_options *opt = run->opt;
    struct value event = {0};

    event_new(&event, "run_start", NULL);
    value_put_string(&event, "run", opt->id);
    value_put_string(&event, "pipeline", opt->plan->name);
    value_put_string(&event, "script", opt->plan->shown);
    value_put_string(&event, "profile", opt->config->profile);
    value_copy(value_put(&event, "params"), opt->params);
    value_put_bool(&event, "resumed", opt->resumed);
    struct value *cells = value_put(&event, "cells");
    value_set_array(cells);
    for (size_t i = 0; i < opt->graph->cell_count; i++) {
        if (chosen(run, &opt->graph->cells[i]))
            value_push_string(cells, opt->graph->cells[i].name);
    }
    emit(run, &event, true, false);
}

static void emit_end(struct run *run, int status)
{
    struct value event = {0};
    const char *name = status == 0     ? "ok"
                       : status == 3   ? "timeout"
                       : status == 4   ? "denied"
                       : status == 130 ? "cancelled"
                                       : "failed";

    event_new(&event, "run_end", NULL);
    value_put_string(&event, "status", name);
    value_put_int(&event, "exit", status);
    value_put_int(&event, "duration_ms", (clock_now() - run->started) / NS_PER_MS);
    emit(run, &event, true, run->costly);
}

static int finish(struct run *run, int *status, struct error *err)
{
    const struct run_options *opt = run->opt;
    struct value skipped = {0};
    cleanup_free char *report = path_join(opt->dir, "report.md");

    *status = run->signals ? 130 : run->exit;
    emit_end(run, *status);
    if (run->broken.code != ERR_NONE) {
        *err = run->broken;
        return error_hint(err, "is the disk full? mlhost run %s --resume %s goes on from here", opt->plan->shown, opt->id);
    }
    value_set_array(&skipped);
    int rc = report_write(opt->tally, opt->dir, opt->junit, opt->summary, &skipped, err);
    for (size_t i = 0; i < value_count(&skipped); i++) {
        cleanup_free char *text = mem_printf("left out of junit.xml: %s", value_text(value_at(&skipped, i), ""));
        say(run, "warning", text);
    }
    value_free(&skipped);
    opt->renderer->report = rc == 0 ? report : NULL;
    opt->renderer->kind->end(opt->renderer);
    renderer_flush(opt->renderer);
    opt->renderer->report = NULL;
    return rc;
}

static void flush(struct run *run)
{
    renderer_flush(run->opt->renderer);
    for (size_t i = 0; i < run->count; i++) {
        if (run->slots[i].log.pending.len)
            stagelog_flush(&run->slots[i].log);
    }
}

static bool over(const struct run *run)
{
    for (size_t i = 0; i < run->count; i++) {
        if (run->slots[i].worker || (run->slots[i].state != SLOT_DONE && run->broken.code == ERR_NONE))
            return false;
    }
    return true;
}

static int loop_until_over(struct run *run, struct error *err)
{
    const struct run_options *opt = run->opt;
    int64_t whole = opt->timeout_ns ? opt->timeout_ns : opt->graph->timeout_ns;
    int64_t tick = opt->renderer->kind->tick_ms * NS_PER_MS;
    struct loop_watch *watches[] = {
        loop_signal(opt->loop, SIGINT, on_signal, run), loop_signal(opt->loop, SIGTERM, on_signal, run),
        loop_signal(opt->loop, SIGHUP, on_signal, run),
        loop_timer(opt->loop, whole ? run->started + whole : DEADLINE_NONE, on_deadline, run)};
    int rc = 0;

    schedule(run);
    int64_t next_tick = tick ? deadline_in(tick) : DEADLINE_NONE;
    while (rc == 0 && !over(run)) {
        flush(run);
        rc = loop_step(opt->loop, next_tick, err);
        if (tick && deadline_passed(next_tick)) {
            opt->renderer->kind->tick(opt->renderer);
            next_tick = deadline_in(tick);
        }
    }
    flush(run);
    for (size_t i = 0; i < sizeof watches / sizeof watches[0]; i++)
        loop_end(watches[i]);
    return rc < 0 ? -1 : 0;
}

int run_supervise(const struct run_options *options, int *status, struct error *err)
{
    struct run run = {.opt = options, .journal = JOURNAL_INIT, .started = clock_now()};
    int rc = -1;

    if (journal_open(&run.journal, options->dir, err) < 0)
        return -1;
    run.journal.seq = options->seq;
    ignore_broken_pipes();
    /* Orphans of a stage come to us, so that none is left when the run ends. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    emit_start(&run);
    make_slots(&run);
    if (options->warning)
        say(&run, "warning", options->warning);
    if (!config_is_local(options->config) ||
        (run.services = services_open(options->loop, options->config, say, &run, err)) != NULL)
        rc = loop_until_over(&run, err);
    services_close(run.services);
    sandbox_kill_descendants(getpid());
    if (rc == 0)
        rc = finish(&run, status, err);
    for (size_t i = 0; i < run.count; i++) {
        free(run.slots[i].folder);
        value_free(&run.slots[i].output);
        value_free(&run.slots[i].error);
        stagelog_close(&run.slots[i].log);
    }
    free(run.slots);
    journal_close(&run.journal);
    return rc;
}
