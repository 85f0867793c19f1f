#include "run/ask.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/report.h"

/* ---- signals and the whole run's deadline ---- */

static void on_signal(void *ctx)
{
    struct run *run = ctx;

    run->signals++;
    if (run->signals == 1) {
        run_say(run, "warning",
                "cancelling: running stages get 5 s to clean up; once more to kill them now");
        run_cancel(run, false);
    } else {
        run_say(run, "warning", "killing everything");
        run_kill(run);
    }
}

/* Ctrl-C of who sits at the debugger's prompt is for what is evaluated there. */
static void on_interrupt(void *ctx)
{
    const struct run *run = ctx;

    if (!debugger_busy(run->debugger))
        on_signal(ctx);
}

/* ---- the debugger ---- */

static void on_debug(void *ctx, struct worker *worker, const char *what)
{
    struct run *run = ctx;

    if (strcmp(what, "kill") == 0) {
        worker_kill(worker);
    } else if (strcmp(what, "quit") == 0) {
        on_signal(run);
        worker_cancel(worker, false); /* an `always` block, too */
    } else {
        for (size_t i = 0; i < run->count && strcmp(what, "retry") == 0; i++) {
            if (run->slots[i].worker == worker)
                run->slots[i].again = true;
        }
        worker_cancel(worker, false);
    }
}

static void on_terminal(void *ctx, bool taken)
{
    struct run *run = ctx;

    renderer_hold(run->opt->renderer, taken);
    if (taken) {
        run->paused_at = clock_now();
        loop_timer_at(run->deadline, DEADLINE_NONE);
        return;
    }
    int64_t passed = clock_now() - run->paused_at;
    run->paused_ns += passed;
    if (run->deadline_at != DEADLINE_NONE)
        run->deadline_at += passed;
    loop_timer_at(run->deadline, run->deadline_at);
    run_ask_resume(run);
}

static void on_deadline(void *ctx)
{
    struct run *run = ctx;

    run->timed_out = true;
    if (run->exit == 0) {
        run->exit = 3;
        run->first_bad = run->opt->plan->name;
    }
    run_say(run, "error", "the pipeline timed out");
    run_cancel(run, true);
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

    return !only || strcmp(only, cell->name) == 0 ||
           strcmp(only, run->opt->graph->stages[cell->stage].name) == 0;
}

static void make_slots(struct run *run)
{
    const struct graph *graph = run->opt->graph;
    struct tally *tally = run->opt->tally;

    run->count = graph->cell_count;
    run->slots = mem_pages(NULL, 0, run->count * sizeof *run->slots);
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
            slot->over = true;
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
    cleanup_buf struct buf missing = BUF_INIT;
    if (opt->allow_degraded && sandbox_missing(&missing))
        value_put_string(&event, "degraded", missing.data);
    struct value *cells = value_put(&event, "cells");
    value_set_array(cells);
    for (size_t i = 0; i < opt->graph->cell_count; i++) {
        if (chosen(run, &opt->graph->cells[i]))
            value_push_string(cells, opt->graph->cells[i].name);
    }
    run_emit(run, &event, true, false);
}

static void warn_degraded(struct run *run)
{
    struct value event = {0};

    if (!run->opt->tally->degraded)
        return;
    event_new(&event, "issue", NULL);
    value_put_string(&event, "level", "warning");
    value_set_printf(value_put(&event, "message"), "--allow-degraded: the sandbox lacks: %s",
                     run->opt->tally->degraded);
    run_emit(run, &event, true, false);
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
    run_emit(run, &event, run->broken.code == ERR_NONE, run->costly);
}

static void show_end(struct run *run, const char *report, const char *junit)
{
    struct renderer *renderer = run->opt->renderer;

    renderer->report = report;
    renderer->junit = junit;
    renderer->kind->end(renderer);
    renderer_flush(renderer);
    renderer->report = renderer->junit = NULL;
}

/* The journal takes nothing more: what was said to be done is in it, and that is where a resumed
 * run begins. */
static int broken(struct run *run, struct error *err)
{
    if (run->opt->tally->count || run->opt->tally->run) {
        emit_end(run, 1);
        show_end(run, NULL, NULL);
    }
    *err = run->broken;
    cleanup_free char *first = mem_strdup(err->hint[0] ? err->hint : "mend that");
    return error_hint(err, "%s; then mlhost run %s --resume %s goes on from here", first,
                      run->opt->plan->shown, run->opt->id);
}

static int finish(struct run *run, int *status, struct error *err)
{
    const struct run_options *opt = run->opt;
    struct value skipped = {0};
    cleanup_free char *report = path_join(opt->dir, "report.md");
    cleanup_free char *junit = path_join(opt->dir, "junit.xml");

    *status = run->signals ? 130 : run->exit;
    if (run->broken.code == ERR_NONE)
        emit_end(run, *status);
    if (run->broken.code != ERR_NONE)
        return broken(run, err);
    value_set_array(&skipped);
    int rc = report_write(opt->tally, opt->dir, opt->junit, opt->summary, &skipped, err);
    for (size_t i = 0; i < value_count(&skipped); i++) {
        cleanup_free char *text =
            mem_printf("left out of junit.xml: %s", value_text(value_at(&skipped, i), ""));
        run_say(run, "warning", text);
    }
    value_free(&skipped);
    show_end(run, rc == 0 ? report : NULL, rc == 0 ? junit : NULL);
    if (rc < 0) {
        cleanup_free char *first = mem_strdup(err->hint[0] ? err->hint : "mend that");
        error_hint(err,
                   "%s; the run itself is over, and mlhost run %s --resume %s writes its reports",
                   first, opt->plan->shown, opt->id);
    }
    return rc;
}

static void flush(struct run *run)
{
    renderer_flush(run->opt->renderer);
    for (struct slot *slot = run->live; slot; slot = slot->live_next) {
        if (slot->log.pending.len)
            stagelog_flush(&slot->log);
    }
}

static bool over(const struct run *run)
{
    return run->running == 0 && (schedule_left(run) == 0 || run->broken.code != ERR_NONE);
}

static int loop_until_over(struct run *run, struct error *err)
{
    const struct run_options *opt = run->opt;
    int64_t whole = opt->timeout_ns ? opt->timeout_ns : opt->graph->timeout_ns;
    int64_t tick = opt->renderer->kind->tick_ms * NS_PER_MS;
    struct loop_watch *watches[] = {loop_signal(opt->loop, SIGINT, on_interrupt, run),
                                    loop_signal(opt->loop, SIGTERM, on_signal, run),
                                    loop_signal(opt->loop, SIGHUP, on_signal, run)};
    struct debugger_handler handler = {.action = on_debug, .terminal = on_terminal, .ctx = run};
    int rc = 0;

    run->deadline_at = whole ? run->started + whole : DEADLINE_NONE;
    run->deadline = loop_timer(opt->loop, run->deadline_at, on_deadline, run);
    if (opt->debug)
        run->debugger = debugger_new(opt->loop, opt->config, &handler);

    run_schedule(run);
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
    debugger_free(run->debugger);
    run->debugger = NULL;
    loop_end(run->deadline);
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
    run.schedule = schedule_new(&run);
    /* A broker gets its part as a broker_spec. */
    graph_unshare(options->graph);
    tally_unshare(options->tally);
    mem_unshare(run.slots, run.count * sizeof *run.slots);
    if (options->warning)
        run_say(&run, "warning", options->warning);
    warn_degraded(&run);
    if (!config_is_local(options->config) ||
        (run.services = services_open(options->loop, options->config, run_say, &run, err)) != NULL)
        rc = loop_until_over(&run, err);
    run.untidy = run.untidy || rc < 0 || services_started(run.services);
    run_ask_end(&run);
    services_close(run.services);
    if (rc == 0)
        rc = finish(&run, status, err);
    worker_settle(options->loop); /* results may come before their processes have ended */
    if (run.untidy)
        sandbox_kill_descendants(getpid());
    for (size_t i = 0; i < run.count; i++) {
        free(run.slots[i].folder);
        free(run.slots[i].tape);
        value_free(&run.slots[i].output);
        value_free(&run.slots[i].error);
        stagelog_close(&run.slots[i].log);
        free(run.slots[i].log.trouble);
    }
    mem_pages(run.slots, run.count * sizeof *run.slots, 0);
    schedule_free(run.schedule);
    journal_close(&run.journal);
    return rc;
}
