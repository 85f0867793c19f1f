#include "run/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "run/context.h"
#include "run/debug.h"
#include "run/journal.h"
#include "run/params.h"
#include "run/supervisor.h"
#include "run/worker.h"
#include "run/text.h"

#define RUNS_MAX      50 /* earlier runs that are looked into for outputs */
#define PLAN_FILE_MAX (64u << 20)

/* ---- outputs ---- */

static void note(struct bench *b, const char *cell, const char *status, const struct value *output,
                 const char *run)
{
    struct value event = {0};

    value_set_map(&event);
    value_put_string(&event, "t", "stage_end");
    value_put_string(&event, "stage", cell);
    value_put_string(&event, "status", status);
    if (output)
        value_copy(value_put(&event, "output"), output);
    tally_event(&b->outputs, &event);
    value_free(&event);
    if (b->origin.kind != VALUE_MAP)
        value_set_map(&b->origin);
    value_put_string(&b->origin, cell, run);
}

static void note_cells(struct bench *b)
{
    struct value event = {0};

    value_set_map(&event);
    value_put_string(&event, "t", "run_start");
    struct value *cells = value_put(&event, "cells");
    value_set_array(cells);
    for (size_t i = 0; i < b->graph.cell_count; i++)
        value_push_string(cells, b->graph.cells[i].name);
    tally_event(&b->outputs, &event);
    value_free(&event);
}

static void feed(void *ctx, const struct value *event)
{
    tally_event(ctx, event);
}

static bool is_of_script(const struct bench *b, const char *dir)
{
    cleanup_free char *path = path_join(dir, "plan.json");
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value stored = {0};
    struct error ignored = {0};

    return file_read(AT_FDCWD, path, PLAN_FILE_MAX, &text, &ignored) == 0 &&
           value_from_json(text.data ? text.data : "", text.len, path, NULL, &stored, &ignored) ==
               0 &&
           strcmp(value_get_string(&stored, "script", ""), b->plan.script) == 0;
}

/* What the run came to, for cells of which nothing is known yet (or for all of its cells). */
static void take_outputs(struct bench *b, const char *dir, const char *run, bool all)
{
    cleanup_tally struct tally tally;
    struct error ignored = {0};

    tally_init(&tally);
    if (journal_read(dir, feed, &tally, &ignored) < 0)
        return;
    for (size_t i = 0; i < b->graph.cell_count; i++) {
        const char *cell = b->graph.cells[i].name;
        const struct tally_cell *known = tally_find(&b->outputs, cell);
        const struct tally_cell *there = tally_find(&tally, cell);
        if (there && cell_status_over(there->status) &&
            (all ||
             (cell_status_good(there->status) && !(known && cell_status_good(known->status)))))
            note(b, cell, cell_status_name(there->status),
                 there->status == CELL_OK ? &there->output : NULL, run);
    }
}

static void take_earlier(struct bench *b)
{
    struct value runs = {0};

    run_list(b->config, &runs);
    for (size_t i = 0; i < value_count(&runs) && i < RUNS_MAX; i++) {
        const char *id = value_text(value_at(&runs, i), "");
        cleanup_free char *dir = mem_printf("%s/runs/%s", b->config->state, id);
        if (is_of_script(b, dir))
            take_outputs(b, dir, id, false);
    }
    value_free(&runs);
}

/* ---- loading ---- */

static void unload(struct bench *b)
{
    graph_free(&b->graph);
    plan_free(&b->plan);
    value_free(&b->values);
    b->loaded = false;
}

int bench_load(struct bench *b, struct error *err)
{
    struct loop *loop = loop_new(err);
    bool first = b->outputs.count == 0;

    unload(b);
    if (!loop)
        return -1;
    int rc = plan_load(loop, b->config, b->script, b->allow_degraded, &b->plan, err);
    worker_settle(loop);
    loop_free(loop);
    if (rc < 0 || graph_build(&b->plan.doc, b->plan.shown, &b->graph, NULL, err) < 0 ||
        params_resolve(value_path(&b->plan.doc, "pipeline.params"), b->params, b->param_count, NULL,
                       &b->values, err) < 0) {
        unload(b);
        return -1;
    }
    b->loaded = true;
    if (first)
        tally_init(&b->outputs);
    note_cells(b);
    if (first)
        take_earlier(b);
    return 0;
}

void bench_free(struct bench *b)
{
    unload(b);
    tally_free(&b->outputs);
    value_free(&b->origin);
}

/* ---- looking ---- */

void bench_outputs(const struct bench *b, struct value *out)
{
    value_set_map(out);
    for (size_t i = 0; i < b->graph.stage_count; i++)
        context_output(&b->graph, &b->graph.stages[i], &b->outputs, out);
}

void bench_stages(const struct bench *b, struct buf *out)
{
    for (size_t i = 0; i < b->graph.cell_count; i++) {
        const struct cell *cell = &b->graph.cells[i];
        const struct stage *stage = &b->graph.stages[cell->stage];
        const struct tally_cell *state = tally_find(&b->outputs, cell->name);
        buf_printf(out, "%s", cell->name);
        for (size_t k = 0; k < stage->need_count; k++)
            buf_printf(out, "%s%s", k ? ", " : "  needs ", b->graph.stages[stage->needs[k]].name);
        if (state && cell_status_over(state->status)) {
            const char *run = value_get_string(&b->origin, cell->name, "");
            buf_printf(out, "  %s%s%s", cell_status_name(state->status), *run ? " in run " : "",
                       run);
        }
        buf_putc(out, '\n');
    }
}

/* ---- running ---- */

static int check_needs(const struct bench *b, const struct stage *stage, struct error *err)
{
    for (size_t i = 0; i < stage->need_count; i++) {
        const struct stage *need = &b->graph.stages[stage->needs[i]];
        for (size_t k = 0; k < need->cell_count; k++) {
            const char *name = b->graph.cells[need->first_cell + k].name;
            const struct tally_cell *state = tally_find(&b->outputs, name);
            if (state && cell_status_good(state->status))
                continue;
            error_set(err, ERR_USAGE, "stage '%s' needs '%s', which has no output yet", stage->name,
                      name);
            return error_hint(err, ":run %s", need->name);
        }
    }
    return 0;
}

static const struct stage *find(const struct bench *b, const char *name, struct error *err)
{
    const struct cell *cell = graph_cell(&b->graph, name);
    const struct stage *stage = cell ? &b->graph.stages[cell->stage] : graph_stage(&b->graph, name);
    const char *names[GRAPH_STAGES_MAX];

    if (stage)
        return stage;
    for (size_t i = 0; i < b->graph.stage_count; i++)
        names[i] = b->graph.stages[i].name;
    const char *near = near_miss(name, names, b->graph.stage_count);
    error_set(err, ERR_USAGE, "%s has no stage '%s'", b->plan.shown, name);
    if (near)
        error_hint(err, "did you mean '%s'?", near);
    else
        error_hint(err, ":stages lists them");
    return NULL;
}

static int jobs(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 2;

    return n < 2 ? 2 : n;
}

/* The child: a supervisor of its own, which may end what it has started without ending the REPL's
 * sandbox. */
static int supervise(const struct bench *b, const char *name, const char *id, const char *dir,
                     bool debug)
{
    struct error err = {0};
    int status = 1;
    struct tally tally;

    tally_init(&tally);
    struct loop *loop = loop_new(&err);
    struct renderer *renderer = renderer_new(NULL, &tally, false, false, &err);
    struct run_options options = {.config = b->config,
                                  .loop = loop,
                                  .plan = &b->plan,
                                  .graph = &b->graph,
                                  .params = &b->values,
                                  .bound = b->bound,
                                  .id = id,
                                  .dir = dir,
                                  .tally = &tally,
                                  .from = &b->outputs,
                                  .only = name,
                                  .jobs = jobs(),
                                  .debug = debug,
                                  .allow_degraded = b->allow_degraded,
                                  .renderer = renderer};
    if (!loop || !renderer || run_supervise(&options, &status, &err) < 0) {
        text_print(stderr, err.message);
        fputs("\n", stderr);
        return 1;
    }
    renderer_free(renderer);
    worker_settle(loop);
    loop_free(loop);
    tally_free(&tally);
    return status;
}

static int run_child(const struct bench *b, const char *name, const char *id, const char *dir,
                     bool debug, int *status, struct error *err)
{
    int wait_status;
    pid_t parent = getpid();

    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0)
        return error_errno(err, errno, "fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
            _exit(1);
        syscall(SYS_close_range, 3, ~0u, 0);
        int result = supervise(b, name, id, dir, debug);
        fflush(stdout);
        _exit(result);
    }
    while (waitpid(pid, &wait_status, 0) < 0) {
        if (errno != EINTR) /* Ctrl-C is the run's, which hears it, too */
            return error_errno(err, errno, "waitpid");
    }
    *status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 1;
    return 0;
}

int bench_run(struct bench *b, const char *name, bool debug, int *status, struct error *err)
{
    cleanup_free char *id = NULL, *dir = NULL;

    if (bench_load(b, err) < 0)
        return -1;
    const struct stage *stage = find(b, name, err);
    if (!stage || check_needs(b, stage, err) < 0 || (debug && debugger_possible(err) < 0) ||
        run_create(b->config, &id, &dir, err) < 0 ||
        plan_store(&b->plan, b->config, &b->values, id, dir, err) < 0 ||
        run_child(b, name, id, dir, debug, status, err) < 0)
        return -1;
    take_outputs(b, dir, "", true);
    return 0;
}
