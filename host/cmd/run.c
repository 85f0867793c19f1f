/* mlhost run: options -> a new run, or one that goes on. The work is in host/run/supervisor.c. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/size.h"
#include "cmd/operator.h"
#include "run/debug.h"
#include "run/params.h"
#include "run/supervisor.h"
#include "run/worker.h"

#define PLAN_FILE_MAX (64u << 20)
#define JOBS_MAX      256

struct words {
    struct operator_options operator_;
    struct option_list params, approve;
    const char *params_file, *jobs, *output, *resume, *stage, *from, *junit, *summary, *timeout,
        *memory;
    bool dry_run, quiet, verbose, json, keep_going, no_tape, debug;
};

/* Everything that a run holds on to, so that one place frees it. */
struct session {
    struct config config;
    struct loop *loop;
    struct plan plan;
    struct graph graph;
    struct tally tally, from;
    struct renderer *renderer;
    struct value params, bound, stored;
    char *id, *dir, *script;
    int lock; /* of the run; -1: none yet */
    int64_t seq;
};

static void feed(void *ctx, const struct value *event)
{
    tally_event(ctx, event);
}

static void feed_session(void *ctx, const struct value *event)
{
    struct session *session = ctx;

    session->seq = value_get_int(event, "seq", session->seq);
    tally_event(&session->tally, event);
}

static int read_json(const char *dir, const char *name, struct value *out, struct error *err)
{
    cleanup_free char *path = path_join(dir, name);
    cleanup_buf struct buf text = BUF_INIT;

    if (file_read(AT_FDCWD, path, PLAN_FILE_MAX, &text, err) < 0)
        return -1;
    return value_from_json(text.data ? text.data : "", text.len, path, NULL, out, err);
}

/* The newest run of this script (NULL: of any), or the newest that ended well. */
static char *newest_run(const struct session *session, const char *script, bool successful,
                        struct error *err)
{
    struct value runs = {0};
    char *found = NULL;

    run_list(&session->config, &runs);
    for (size_t i = 0; i < value_count(&runs) && !found; i++) {
        const char *id = value_text(value_at(&runs, i), "");
        cleanup_free char *dir = mem_printf("%s/runs/%s", session->config.state, id);
        struct value stored = {0};
        struct error ignored = {0};
        cleanup_tally struct tally tally;
        tally_init(&tally);
        bool fits = read_json(dir, "plan.json", &stored, &ignored) == 0 &&
                    (!script || strcmp(value_get_string(&stored, "script", ""), script) == 0);
        if (fits && successful)
            fits = journal_read(dir, feed, &tally, &ignored) == 0 &&
                   strcmp(tally.status ? tally.status : "", "ok") == 0;
        if (fits)
            found = mem_strdup(id);
        value_free(&stored);
    }
    value_free(&runs);
    if (!found) {
        error_set(err, ERR_USAGE,
                  successful ? "no run of this script ended well yet"
                             : "there is no run to resume");
        error_hint(err, "mlhost runs lists the runs");
    }
    return found;
}

/* The run that goes on: its folder, journal, script and parameters. */
static int open_old(struct session *session, struct words *words, const char *script,
                    struct error *err)
{
    cleanup_free char *absolute = script ? realpath(script, NULL) : NULL;

    if (words->params.count || words->params_file) {
        error_set(err, ERR_USAGE, "a resumed run keeps its parameters");
        return error_hint(
            err, "leave --param and --params-file out, or start a new run without --resume");
    }
    if (strcmp(words->resume, "latest") == 0) {
        cleanup_free char *id = newest_run(session, absolute, false, err);
        session->dir = id ? run_find(&session->config, id, &session->id, err) : NULL;
    } else {
        session->dir = run_find(&session->config, words->resume, &session->id, err);
    }
    /* Locked first: what another host is still writing is not what the run has come to. */
    if (!session->dir || run_lock(session->dir, &session->lock, err) < 0)
        return -1;
    if (read_json(session->dir, "plan.json", &session->stored, err) < 0) {
        error_wrap(err, "run %s cannot go on", session->id);
        return error_hint(err, "it was ended before it began, or its folder is damaged: start a "
                               "new run");
    }
    if (journal_read(session->dir, feed_session, session, err) < 0) {
        cleanup_free char *stages = path_join(session->dir, "stages");
        if (err->code != ERR_NOT_FOUND || access(stages, F_OK) == 0)
            return -1;
        *err = (struct error){0}; /* ended between its plan and its first event */
    }
    const char *stored = value_get_string(&session->stored, "script", "");
    if (absolute && strcmp(absolute, stored) != 0) {
        error_set(err, ERR_USAGE, "run %s is of %s, not of %s", session->id, stored, script);
        return error_hint(err, "mlhost run --resume %s", session->id);
    }
    session->script =
        mem_strdup(script ? script : value_get_string(&session->stored, "shown", stored));
    if (access(session->script, R_OK) < 0) { /* the shown path was relative to another folder */
        free(session->script);
        session->script = mem_strdup(stored);
    }
    const char *profile = value_get_string(&session->stored, "profile", "local");
    if (!words->operator_.profile && strcmp(profile, session->config.profile) != 0) {
        config_free(&session->config);
        session->config = (struct config){0};
        return config_load(NULL, profile, &session->config, err);
    }
    return 0;
}

/* Whole or not at all: a folder without its plan would be a run that nobody can go on with. */
static int new_run(struct session *session, struct error *err)
{
    if (run_create(&session->config, &session->id, &session->dir, err) < 0)
        return -1;
    if (run_lock(session->dir, &session->lock, err) == 0 &&
        plan_store(&session->plan, &session->config, &session->params, session->id, session->dir,
                   err) == 0)
        return 0;
    (void)dir_remove(session->dir, NULL);
    return -1;
}

static int resolve_params(struct session *session, const struct words *words, struct error *err)
{
    struct value file = {0};
    const struct value *stored = value_get(&session->stored, "params");
    const struct value *declared = value_path(&session->plan.doc, "pipeline.params");

    if (stored) {
        value_copy(&session->params, stored);
        return 0;
    }
    if (words->params_file && params_file(words->params_file, &file, err) < 0)
        return -1;
    int rc = params_resolve(declared, words->params.items, (size_t)words->params.count,
                            words->params_file ? &file : NULL, &session->params, err);
    value_free(&file);
    return rc;
}

static int number_of_jobs(const struct session *session, const struct words *words, int *jobs,
                          struct error *err)
{
    cpu_set_t set;
    long n = value_get_int(&session->config.root, "jobs", 0);

    if (words->jobs) {
        char *end = NULL;
        n = strtol(words->jobs, &end, 10);
        if (end == words->jobs || *end || n < 1 || n > JOBS_MAX) {
            error_set(err, ERR_USAGE, "--jobs must be a number from 1 to %d, not '%s'", JOBS_MAX,
                      words->jobs);
            return -1;
        }
    } else if (n < 1) {
        n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 2;
        n = n < 2 ? 2 : n;
    }
    *jobs = n > JOBS_MAX ? JOBS_MAX : (int)n;
    return 0;
}

/* --stage: it must exist, and what it needs must have ended well in the run whose outputs it gets.
 */
static int choose_stage(struct session *session, const struct words *words, struct error *err)
{
    const struct graph *graph = &session->graph;
    const struct cell *cell = graph_cell(graph, words->stage);
    const struct stage *stage =
        cell ? &graph->stages[cell->stage] : graph_stage(graph, words->stage);

    if (!stage) {
        const char *near = graph_near(graph, words->stage);
        error_set(err, ERR_USAGE, "%s has no stage '%s'", session->plan.shown, words->stage);
        return near ? error_hint(err, "did you mean '%s'?", near)
                    : error_hint(err, "mlhost plan %s lists them", session->plan.shown);
    }
    if (stage->need_count == 0 && !words->from)
        return 0;
    cleanup_free char *newest =
        words->from ? NULL : newest_run(session, session->plan.script, true, err);
    const char *id = words->from ? words->from : newest;
    cleanup_free char *dir = id ? run_find(&session->config, id, NULL, err) : NULL;
    if (!dir) {
        if (!words->from)
            error_hint(err,
                       "stage '%s' needs the outputs of others: run the whole pipeline once, or "
                       "give --from RUN",
                       stage->name);
        return -1;
    }
    if (journal_read(dir, feed, &session->from, err) < 0)
        return -1;
    for (size_t i = 0; i < stage->need_count; i++) {
        const struct stage *need = &graph->stages[stage->needs[i]];
        for (size_t k = 0; k < need->cell_count; k++) {
            const char *name = graph->cells[need->first_cell + k].name;
            const struct tally_cell *state = tally_find(&session->from, name);
            if (state && cell_status_good(state->status))
                continue;
            error_set(err, ERR_USAGE, "stage '%s' needs '%s', which did not end well in run %s",
                      stage->name, name, id);
            return error_hint(err, "give another run with --from, or run the whole pipeline");
        }
    }
    return 0;
}

static int dry_run(const struct session *session, const struct words *words, bool bounded,
                   struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    const struct value *bound = bounded ? &session->bound : NULL;

    if (plan_text(&session->plan, &session->graph, &session->config, bound, &text, err) < 0)
        return -1;
    buf_puts(&text, "\nparameters: ");
    value_to_json(&session->params, 0, &text);
    buf_puts(&text, "\nwould run:\n");
    for (size_t i = 0; i < session->graph.cell_count; i++) {
        const struct cell *cell = &session->graph.cells[i];
        const struct tally_cell *old = tally_find(&session->tally, cell->name);
        const char *stage = session->graph.stages[cell->stage].name;
        if (words->stage && strcmp(words->stage, cell->name) != 0 &&
            strcmp(words->stage, stage) != 0)
            continue;
        buf_printf(&text, "  %s%s\n", cell->name,
                   old && cell_status_good(old->status) ? " (done already)" : "");
    }
    fputs(text.data, stdout);
    return 0;
}

static int prepare(struct session *session, struct words *words, const char *script, bool *bounded,
                   struct error *err)
{
    session->loop = loop_new(err);
    if (!session->loop || config_load(NULL, words->operator_.profile, &session->config, err) < 0)
        return -1;
    if (words->resume && open_old(session, words, script, err) < 0)
        return -1;
    if (!session->script)
        session->script = mem_strdup(script);
    /* Before the script is loaded, which could do nothing about it anyway. */
    if (operator_bound(&words->operator_, &session->config, &session->bound, bounded, err) < 0 ||
        plan_load(session->loop, &session->config, session->script, words->operator_.allow_degraded,
                  &session->plan, err) < 0 ||
        graph_build(&session->plan.doc, session->plan.shown, &session->graph, NULL, err) < 0 ||
        resolve_params(session, words, err) < 0)
        return -1;
    return words->stage ? choose_stage(session, words, err) : 0;
}

static int go(struct session *session, struct words *words, const char *script, struct error *err)
{
    bool bounded = false;
    int jobs = 0, status = 1;
    int64_t timeout = 0;
    uint64_t memory = 0;
    const char *warning = NULL;

    if (words->timeout && duration_parse(words->timeout, &timeout, err) < 0)
        return error_wrap(err, "--timeout");
    if (words->memory && size_parse(words->memory, &memory, err) < 0)
        return error_wrap(err, "--memory");
    if (words->debug && debugger_possible(err) < 0)
        return -1;
    if (words->debug && (words->json || (words->output && strcmp(words->output, "tty") != 0 &&
                                         strcmp(words->output, "plain") != 0)))
        return error_set(err, ERR_USAGE,
                         "--debug goes with --output tty or plain: the prompt "
                         "stands in the middle of it");
    session->renderer = renderer_new(words->json ? "json" : words->output, &session->tally,
                                     words->quiet, words->verbose, err);
    if (!session->renderer || prepare(session, words, script, &bounded, err) < 0 ||
        number_of_jobs(session, words, &jobs, err) < 0)
        return -1;
    if (words->dry_run)
        return dry_run(session, words, bounded, err) < 0 ? -1 : 0;
    if (words->resume) {
        cleanup_free char *now =
            mem_printf("%016llx", (unsigned long long)session->plan.fingerprint);
        if (strcmp(now, value_get_string(&session->stored, "fingerprint", "")) != 0)
            warning = "the script has changed since this run began; stages that were done stay as "
                      "they were";
    } else if (new_run(session, err) < 0) {
        return -1;
    }
    plan_slim(&session->plan);
    struct run_options options = {.config = &session->config,
                                  .loop = session->loop,
                                  .plan = &session->plan,
                                  .graph = &session->graph,
                                  .params = &session->params,
                                  .bound = bounded ? &session->bound : NULL,
                                  .id = session->id,
                                  .dir = session->dir,
                                  .lock = session->lock,
                                  .tally = &session->tally,
                                  .resumed = words->resume != NULL,
                                  .seq = session->seq,
                                  .from = words->stage ? &session->from : NULL,
                                  .only = words->stage,
                                  .jobs = jobs,
                                  .timeout_ns = timeout,
                                  .memory_limit = memory,
                                  .approve = words->approve.items,
                                  .approve_count = words->approve.count,
                                  .keep_going = words->keep_going,
                                  .no_tape = words->no_tape,
                                  .debug = words->debug,
                                  .allow_degraded = words->operator_.allow_degraded,
                                  .renderer = session->renderer,
                                  .junit = words->junit,
                                  .summary = words->summary,
                                  .warning = warning};
    return run_supervise(&options, &status, err) < 0 ? -1 : status;
}

static void end(struct session *session)
{
    renderer_free(session->renderer);
    graph_free(&session->graph);
    plan_free(&session->plan);
    tally_free(&session->tally);
    tally_free(&session->from);
    value_free(&session->params);
    value_free(&session->bound);
    value_free(&session->stored);
    if (session->loop) {
        worker_settle(session->loop);
        loop_free(session->loop);
    }
    if (session->lock >= 0)
        close(session->lock);
    config_free(&session->config);
    free(session->id);
    free(session->dir);
    free(session->script);
}

/* --resume stands alone ("the newest") or before a run's id. */
static void resume_word(int argc, char **argv)
{
    static char newest[] = "--resume=latest";

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0)
            return;
        const char *next = i + 1 < argc ? argv[i + 1] : "";
        size_t digits = strspn(next, "0123456789");
        if (strcmp(argv[i], "--resume") == 0 &&
            (digits == 0 || strspn(next, "0123456789abcdef-") != strlen(next)) &&
            strcmp(next, "latest") != 0)
            argv[i] = newest;
    }
}

static int run(int argc, char **argv);

const struct command cmd_run = {
    .name = "run",
    .summary = "run a pipeline script",
    .help =
        "usage: mlhost run SCRIPT [options]\n"
        "       mlhost run [SCRIPT] --resume [RUN]\n\n"
        "Runs the stages of a pipeline script, each in its own sandbox. State, logs and reports "
        "are kept under\n"
        ".mlhost/runs/<run>/.\n\n"
        "  --param, -P NAME=VALUE a parameter of the pipeline; may be repeated\n"
        "  --params-file FILE     parameters from a YAML or JSON file\n"
        "  --jobs, -j N           at most N stages side by side (default: the processors, at least "
        "2)\n"
        "  --approve NAME         answer the approval NAME (all: every one) with yes beforehand\n"
        "  --keep-going           after a failure, still start stages that do not depend on it\n"
        "  --timeout DURATION     of the whole run (\"30s\", \"5m\", \"1h30m\"); overrides the "
        "pipeline's\n"
        "  --memory SIZE          of each script's Lua heap: \"2g\" (default: 512m)\n"
        "  --resume [RUN]         go on with a run (the newest one): what was done stays done\n"
        "  --stage NAME           only this stage (or cell); what it needs comes from --from\n"
        "  --from RUN             the run whose outputs --stage gets (default: the newest that "
        "ended well)\n"
        "  --debug                stop in the debugger at errors nobody catches and at "
        "breakpoint(); on a terminal, or\n"
        "                         with its commands on the standard input\n"
        "  --dry-run              print the plan and what would run, and stop\n"
        "  --output, -o KIND      tty, plain, json or azdo (default: azdo on an Azure DevOps "
        "agent, tty on a terminal)\n"
        "  --json                 the same as --output json\n"
        "  --quiet, --verbose     less; debug lines too\n"
        "  --no-tape              do not record the stages (mlhost replay, and resuming inside a "
        "stage, need that)\n"
        "  --junit FILE           a copy of the JUnit report\n"
        "  --summary FILE         a copy of the Markdown report\n" OPERATOR_HELP
        "\nexit status: 0 done, 1 a stage failed, 2 usage or invalid script, 3 timed out, 4 "
        "permission denied,\n"
        "130 cancelled. Ctrl-C lets running stages clean up for 5 s; a second one kills them.\n\n"
        "examples:\n  mlhost run pipelines/ci.lua -P upload=version --jobs 4\n  mlhost run "
        "--resume\n",
    .run = run,
};

static int run(int argc, char **argv)
{
    struct words w = {0};
    const struct option_spec options[] = {{"param,P", OPTION_REPEAT, &w.params},
                                          {"params-file", OPTION_TEXT, &w.params_file},
                                          {"jobs,j", OPTION_TEXT, &w.jobs},
                                          {"approve", OPTION_REPEAT, &w.approve},
                                          {"output,o", OPTION_TEXT, &w.output},
                                          {"resume", OPTION_TEXT, &w.resume},
                                          {"stage", OPTION_TEXT, &w.stage},
                                          {"from", OPTION_TEXT, &w.from},
                                          {"dry-run", OPTION_FLAG, &w.dry_run},
                                          {"junit", OPTION_TEXT, &w.junit},
                                          {"summary", OPTION_TEXT, &w.summary},
                                          {"timeout", OPTION_TEXT, &w.timeout},
                                          {"memory", OPTION_TEXT, &w.memory},
                                          {"quiet,q", OPTION_FLAG, &w.quiet},
                                          {"verbose,v", OPTION_FLAG, &w.verbose},
                                          {"json", OPTION_FLAG, &w.json},
                                          {"keep-going,k", OPTION_FLAG, &w.keep_going},
                                          {"no-tape", OPTION_FLAG, &w.no_tape},
                                          {"debug", OPTION_FLAG, &w.debug},
                                          {"keep-going,k", OPTION_FLAG, &w.keep_going},
                                          OPERATOR_OPTIONS(w.operator_),
                                          {0}};
    struct error err = {0};
    struct session session = {.lock = -1};

    resume_word(argc, argv);
    int words = options_parse(&cmd_run, options, argc, argv);
    if (words < 0)
        return words == -2 ? 0 : 2;
    if (words > 2 || (words < 2 && !w.resume)) {
        error_set(&err, ERR_USAGE, words > 2 ? "run takes one script" : "run needs a script");
        error_hint(&err, "mlhost run pipelines/ci.lua");
        return command_fail(&err);
    }
    if ((w.resume && w.stage) || (w.from && !w.stage)) {
        error_set(&err, ERR_USAGE,
                  w.from && !w.stage ? "--from goes with --stage"
                                     : "--resume and --stage exclude each other");
        return command_fail(&err);
    }
    tally_init(&session.tally);
    tally_init(&session.from);
    int status = go(&session, &w, words == 2 ? argv[1] : NULL, &err);
    end(&session);
    free((void *)w.params.items);
    free((void *)w.approve.items);
    return status < 0 ? command_fail(&err) : status;
}
