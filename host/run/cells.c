/* What happens to one cell: waiting, attempts, its `always` block, its end. */
#include "run/engine.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "broker/tape.h"
#include "run/ask.h"
#include "run/context.h"

#define ALWAYS_NS           (120 * NS_PER_S) /* budget of an `always` block */
#define ALWAYS_CANCELLED_NS (30 * NS_PER_S)
#define BACKOFF_MAX_NS      (3600 * NS_PER_S)

struct tally_cell *slot_state(const struct slot *slot)
{
    return &slot->run->opt->tally->cells[slot->tally];
}

const struct cell *slot_cell(const struct slot *slot)
{
    return &slot->run->opt->graph->cells[slot->cell];
}

const struct stage *slot_stage(const struct slot *slot)
{
    return &slot->run->opt->graph->stages[slot_cell(slot)->stage];
}

void run_kill(struct run *run)
{
    for (struct slot *slot = run->live; slot; slot = slot->live_next)
        worker_kill(slot->worker);
}

/* Journal first, then everybody else. Takes what is in *event. */
void run_emit(struct run *run, struct value *event, bool journal, bool sync)
{
    if (!value_get(event, "time"))
        value_put_int(event, "time", clock_wall_ms());
    if (journal && run->broken.code == ERR_NONE) {
        struct value line = {0};
        event_redact(event, &line);
        if (journal_write(&run->journal, &line, sync, &run->broken) < 0)
            run_kill(run);
        value_free(&line);
    }
    if (journal && run->broken.code != ERR_NONE) {
        value_free(event); /* what cannot be kept is not said to have happened */
        return;
    }
    tally_event(run->opt->tally, event);
    renderer_event(run->opt->renderer, event);
    value_free(event);
}

void event_new(struct value *event, const char *t, const struct slot *slot)
{
    value_set_map(event);
    value_put_string(event, "t", t);
    if (slot)
        value_put_string(event, "stage", slot_cell(slot)->name);
}

void run_say(void *ctx, const char *level, const char *text)
{
    struct value event = {0};

    event_new(&event, "log", NULL);
    value_put_string(&event, "level", level);
    value_put_string(&event, "text", text);
    run_emit(ctx, &event, false, false);
}

/* Lines that could not be kept: said once, where the others are seen. */
static void log_trouble(struct slot *slot)
{
    cleanup_free char *trouble = steal_ptr(&slot->log.trouble);
    struct value event = {0};

    if (!trouble)
        return;
    event_new(&event, "log", slot);
    value_put_string(&event, "level", "warning");
    value_put_string(&event, "text", trouble);
    run_emit(slot->run, &event, false, false);
}

/* ---- the end of a cell ---- */

static int exit_of(enum cell_status status)
{
    return cell_status_good(status)   ? 0
           : status == CELL_TIMEOUT   ? 3
           : status == CELL_DENIED    ? 4
           : status == CELL_CANCELLED ? 130
                                      : 1;
}

/* A failure that the script allows for: it is shown, and that is all. */
bool cell_allowed(const struct slot *slot, enum cell_status status)
{
    return slot_stage(slot)->allow_failure && (status == CELL_FAILED || status == CELL_TIMEOUT);
}

void cell_end(struct slot *slot, enum cell_status status, const char *reason)
{
    struct run *run = slot->run;
    struct value event = {0};
    int64_t took_ms = slot->started ? (clock_now() - slot->started) / NS_PER_MS : 0;
    bool sync = took_ms >= JOURNAL_CHEAP_MS;

    slot->state = SLOT_DONE;
    run->costly = run->costly || sync;
    if (!cell_status_good(status) && status != CELL_BLOCKED && !cell_allowed(slot, status) &&
        run->exit == 0) {
        run->exit = exit_of(status);
        run->first_bad = slot_cell(slot)->name;
    }
    event_new(&event, "stage_end", slot);
    value_put_string(&event, "status", cell_status_name(status));
    value_put_int(&event, "attempt", slot->attempt);
    value_put_int(&event, "duration_ms", took_ms);
    value_put_string(&event, "reason", reason);
    if (cell_allowed(slot, status))
        value_put_bool(&event, "allowed", true);
    if (status == CELL_OK)
        value_move(value_put(&event, "output"), &slot->output);
    else if (slot->error.kind == VALUE_MAP)
        value_move(value_put(&event, "error"), &slot->error);
    value_free(&slot->output);
    value_free(&slot->error);
    stagelog_close(&slot->log);
    log_trouble(slot);
    run_emit(run, &event, true, sync);
    schedule_ended(slot, status);
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

    bool shown = slot->run->debugger && slot->worker &&
                 debugger_event(slot->run->debugger, slot->worker, slot_cell(slot)->name, event);
    if (strcmp(t, "ask") == 0)
        run_ask(slot, event);
    if (!known)
        return;
    value_move(&own, event);
    value_put_string(&own, "stage", slot_cell(slot)->name);
    value_put_int(&own, "time", clock_wall_ms());
    const char *path = value_get_string(&own, "path", NULL);
    if (path && path[0] != '/') {
        cleanup_free char *whole = path_join(slot->run->opt->config->workspace, path);
        value_put_string(&own, "path", whole);
    }
    if (line) {
        stagelog_event(&slot->log, slot->folder, &own);
        log_trouble(slot);
    }
    if (shown) {
        tally_event(slot->run->opt->tally, &own);
        value_free(&own);
        return;
    }
    slot->run->costly = slot->run->costly || effect;
    run_emit(slot->run, &own, !line && strcmp(t, "progress") != 0, effect);
}

static enum cell_status classify(const struct worker_result *result)
{
    if (result->ok)
        return CELL_OK;
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

static int start_worker(struct slot *slot, const char *mode);

static void on_backoff(void *ctx)
{
    struct slot *slot = ctx;

    loop_end(slot->backoff);
    slot->backoff = NULL;
    slot->state = SLOT_IDLE;
    slot->status = CELL_WAITING;
    value_free(&slot->error);
    schedule_ready(slot);
    run_schedule(slot->run);
}

static bool try_again(struct slot *slot, enum cell_status status)
{
    struct run *run = slot->run;
    const struct stage *stage = slot_stage(slot);
    enum error_code code = error_code_from_name(value_get_string(&slot->error, "code", "failed"));
    struct value event = {0};

    if (run->signals || run->timed_out)
        return false;
    if (!slot->again && ((status != CELL_FAILED && status != CELL_TIMEOUT) || code == ERR_USAGE ||
                         slot->attempt - slot->by_hand > stage->retries))
        return false;
    int64_t delay = slot->again ? 0 : stage->backoff_ns;
    slot->by_hand += slot->again;
    slot->again = false;
    for (int i = 1; i < slot->attempt && delay < BACKOFF_MAX_NS; i++)
        delay *= 2;
    delay = delay < BACKOFF_MAX_NS ? delay : BACKOFF_MAX_NS;
    event_new(&event, "stage_retry", slot);
    value_put_int(&event, "attempt", slot->attempt);
    value_put_int(&event, "delay_ms", delay / NS_PER_MS);
    value_copy(value_put(&event, "error"), &slot->error);
    run_emit(run, &event, true, false);
    stagelog_close(&slot->log); /* any number of stages may wait for their next attempt */
    slot->state = SLOT_BACKOFF;
    slot->backoff = loop_timer(run->opt->loop, deadline_in(delay), on_backoff, slot);
    return true;
}

/* The stage's run is over for good: its `always` block, if any, then its end. */
static void stage_over(struct slot *slot)
{
    struct run *run = slot->run;

    if (slot_stage(slot)->always && run->signals < 2) {
        struct value event = {0};
        event_new(&event, "stage_result", slot);
        value_put_string(&event, "status", cell_status_name(slot->status));
        value_put_int(&event, "attempt", slot->attempt);
        if (slot->status == CELL_OK)
            value_copy(value_put(&event, "output"), &slot->output);
        else
            value_copy(value_put(&event, "error"), &slot->error);
        run_emit(run, &event, true, false);
        if (run->broken.code != ERR_NONE || start_worker(slot, "always") == 0)
            return;
    }
    cell_end(slot, slot->status, NULL);
}

static void always_over(struct slot *slot, struct worker_result *result)
{
    if (!result->ok && slot->status == CELL_OK) {
        slot->status = classify(result);
        value_move(&slot->error, &result->error);
        cleanup_free char *message =
            mem_printf("always: %s", value_get_string(&slot->error, "message", "failed"));
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
    cell_end(slot, slot->status, NULL);
}

static void live_leave(struct slot *slot)
{
    struct slot **at = &slot->run->live;

    while (*at != slot)
        at = &(*at)->live_next;
    *at = slot->live_next;
    slot->live_next = NULL;
    slot->run->running--;
}

static void on_end(void *ctx, struct worker_result *result)
{
    struct slot *slot = ctx;
    struct run *run = slot->run;

    if (run->debugger)
        debugger_forget(run->debugger, slot->worker);
    slot->worker = NULL;
    live_leave(slot);
    run_ask_forget(slot);
    run->untidy = run->untidy || !result->tidy;
    if (run->broken.code != ERR_NONE) {
        slot->state = SLOT_DONE;
        return;
    }
    bool again = slot->again && !run->signals;
    if (slot->state == SLOT_ALWAYS) {
        slot->again = false;
        if (!again || start_worker(slot, "always") < 0)
            always_over(slot, result);
    } else if (result->ok && result->skipped) {
        cell_end(slot, CELL_SKIPPED, result->reason);
    } else {
        slot->status = classify(result);
        value_move(&slot->output, &result->output);
        value_move(&slot->error, &result->error);
        if (!try_again(slot, slot->status))
            stage_over(slot);
    }
    run_schedule(run);
}

/* ---- starting ---- */

static int64_t budget(const struct run *run, const struct slot *slot, bool always)
{
    const struct stage *stage = slot_stage(slot);
    int64_t whole = run->opt->timeout_ns ? run->opt->timeout_ns : run->opt->graph->timeout_ns;

    if (always)
        return run->signals ? ALWAYS_CANCELLED_NS : ALWAYS_NS;
    if (!whole)
        return stage->timeout_ns;
    int64_t left = run->started + run->paused_ns + whole - clock_now();
    left = left > NS_PER_MS ? left : NS_PER_MS;
    return stage->timeout_ns && stage->timeout_ns < left ? stage->timeout_ns : left;
}

/* Output folders of what the stage needs, as far as they have one. */
static void list_inputs(const struct slot *slot, struct value *out)
{
    const struct run *run = slot->run;
    const struct graph *graph = run->opt->graph;
    const struct stage *stage = slot_stage(slot);

    value_set_array(out);
    for (size_t i = 0; i < stage->need_count; i++) {
        const struct stage *need = &graph->stages[stage->needs[i]];
        for (size_t k = 0; k < need->cell_count; k++) {
            size_t cell = need->first_cell + k;
            cleanup_buf struct buf folder = BUF_INIT;
            cell_folder(graph->cells[cell].name, &folder);
            cleanup_free char *path =
                run->opt->from ? mem_printf("%s/runs/%s/stages/%s/out", run->opt->config->state,
                                            run->opt->from->run, folder.data)
                               : path_join(run->slots[cell].folder, "out");
            if (access(path, F_OK) == 0)
                value_push_string(out, path);
        }
    }
}

static int start_worker(struct slot *slot, const char *mode)
{
    struct run *run = slot->run;
    const struct run_options *opt = run->opt;
    bool always = strcmp(mode, "always") == 0;
    struct worker_handler handler = {.event = on_event, .end = on_end, .ctx = slot};
    cleanup_free char *out_dir = path_join(slot->folder, "out");
    cleanup_free char *blobs = path_join(opt->dir, "blobs");
    cleanup_free char *tape = tape_path(slot->folder, mode, slot_state(slot)->starts);
    struct error err = {0};
    struct broker_spec spec = {.config = opt->config,
                               .mode = mode,
                               .script = opt->plan->script,
                               .stage = slot_cell(slot)->name,
                               .run_id = opt->id,
                               .hold_fd = opt->lock,
                               .out_dir = out_dir,
                               .local_socket = services_socket(run->services),
                               .bound = opt->bound,
                               .timeout_ns = budget(run, slot, always),
                               .grace_ns = WORKER_GRACE_NS,
                               .memory_limit = opt->memory_limit,
                               .allow_degraded = opt->allow_degraded,
                               .tape = opt->no_tape ? NULL : tape,
                               .play = always ? NULL : slot->tape,
                               .blobs = blobs,
                               .debug = run->debugger != NULL};

    plan_permissions(opt->plan, slot_stage(slot)->spec, &spec.permissions);
    context_build(opt, slot_cell(slot), opt->from ? opt->from : opt->tally, slot_state(slot),
                  slot->attempt, &spec.context);
    if (always) {
        value_put_string(&spec.context, "status", cell_status_name(slot->status));
        value_copy(value_put(&spec.context, "error"), &slot->error);
        value_copy(value_put(&spec.context, "output"), &slot->output);
    }
    list_inputs(slot, &spec.inputs);
    /* The children inherit the descriptors: nothing buffered may be in them twice. */
    renderer_flush(opt->renderer);
    slot->worker = worker_start(opt->loop, &spec, &handler, &err);
    value_free(&spec.permissions);
    value_free(&spec.context);
    value_free(&spec.inputs);
    if (!slot->worker) {
        value_free(&slot->error);
        error_to_value(&err, &slot->error);
        slot->status = err.code == ERR_DENIED ? CELL_DENIED : CELL_FAILED;
        return -1;
    }
    slot->state = always ? SLOT_ALWAYS : SLOT_RUNNING;
    slot->live_next = run->live;
    run->live = slot;
    run->running++;
    return 0;
}

static void start_stage(struct slot *slot)
{
    const struct tally_cell *state = slot_state(slot);
    struct value event = {0};

    if (!slot->started)
        slot->started = clock_now();
    mem_cleanup(&slot->tape);
    slot->tape = state->died ? tape_path(slot->folder, "stage", state->starts) : NULL;
    slot->attempt++;
    event_new(&event, "stage_start", slot);
    value_put_int(&event, "attempt", slot->attempt);
    run_emit(slot->run, &event, true, false);
    if (slot->run->broken.code == ERR_NONE && start_worker(slot, "stage") < 0)
        cell_end(slot, slot->status, NULL);
}

void cell_start(struct slot *slot)
{
    if (!slot->over) {
        start_stage(slot);
        return;
    }
    if (!slot->started) /* of a resumed run: only the `always` block is left */
        slot->started = clock_now();
    stage_over(slot);
}

void run_cancel(struct run *run, bool timeout)
{
    for (struct slot *slot = run->live; slot; slot = slot->live_next) {
        if (slot->state == SLOT_RUNNING)
            worker_cancel(slot->worker, timeout);
    }
    for (size_t i = 0; i < run->count; i++) {
        struct slot *slot = &run->slots[i];
        if (slot->state != SLOT_BACKOFF)
            continue;
        loop_end(slot->backoff);
        slot->backoff = NULL;
        slot->state = SLOT_IDLE;
        slot->over = true; /* as its last attempt left it */
        schedule_ready(slot);
    }
    run_schedule(run);
}
