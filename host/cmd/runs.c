/* mlhost runs: the runs of this workspace, newest first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cmd/cmd.h"
#include "run/journal.h"
#include "run/tally.h"
#include "run/text.h"

static void feed(void *ctx, const struct value *event)
{
    tally_event(ctx, event);
}

/* What has become of a run, also of one whose journal does not say so. */
static const char *status_of(const char *dir, const struct tally *tally, const struct error *broken)
{
    if (broken->code == ERR_INVALID)
        return "damaged";
    if (!tally->status)
        return "broken";
    return strcmp(tally->status, "running") == 0 && !run_locked(dir) ? "killed" : tally->status;
}

static void as_value(const char *id, const struct tally *tally, const char *status,
                     struct value *out)
{
    value_set_map(out);
    value_put_string(out, "run", id);
    value_put_string(out, "pipeline", tally->pipeline);
    value_put_string(out, "script", tally->script);
    value_put_string(out, "profile", tally->profile);
    value_put_string(out, "status", status);
    value_put_int(out, "started_ms", tally->started_ms);
    value_put_int(out, "duration_ms", tally->duration_ms);
    struct value *stages = value_put(out, "stages");
    value_set_map(stages);
    for (size_t i = 0; i < tally->count; i++)
        value_put_string(stages, tally->cells[i].name, cell_status_name(tally->cells[i].status));
}

static void row(const char *id, const struct tally *tally, const char *status, struct buf *out)
{
    size_t good = 0;
    cleanup_buf struct buf took = BUF_INIT;

    for (size_t i = 0; i < tally->count; i++)
        good += cell_status_good(tally->cells[i].status);
    cleanup_free char *stages = mem_printf("%zu/%zu", good, tally->count);
    if (tally->duration_ms)
        duration_print(ns_of_ms(tally->duration_ms), &took);
    buf_printf(out, "%-24s %-10s %-8s %-12s %s\n", id, status, stages, took.len ? took.data : "-",
               tally->pipeline ? tally->pipeline : "");
}

static int run(int argc, char **argv);

const struct command cmd_runs = {
    .name = "runs",
    .summary = "list the runs of this workspace",
    .help =
        "usage: mlhost runs [--json] [--limit N]\n\n"
        "Lists runs, newest first: id, state, stages that ended well, duration, pipeline. A run "
        "that was\n"
        "\"killed\" can be resumed; of one that is \"damaged\" the journal was changed.\n\n"
        "  --json                 as a JSON array with the state of every stage\n"
        "  --limit N              at most N runs (default 20)\n\n"
        "example:\n  mlhost runs --limit 5\n",
    .run = run,
};

static int run(int argc, char **argv)
{
    bool json = false;
    const char *limit_text = NULL;
    const struct option_spec options[] = {
        {"json", OPTION_FLAG, &json}, {"limit", OPTION_TEXT, &limit_text}, {0}};
    struct error err = {0};
    struct config config = {0};
    struct value runs = {0}, list = {0};
    cleanup_buf struct buf out = BUF_INIT;

    int words = options_parse(&cmd_runs, options, argc, argv);
    if (words < 0)
        return words == -2 ? 0 : 2;
    char *end = NULL;
    long limit = limit_text ? strtol(limit_text, &end, 10) : 20;
    if (words != 1 || limit < 1 || (end && *end)) {
        error_set(&err, ERR_USAGE,
                  words != 1 ? "runs takes no words" : "--limit must be a number from 1");
        error_hint(&err, "mlhost runs --limit 5");
        return command_fail(&err);
    }
    if (config_load(NULL, NULL, &config, &err) < 0)
        return command_fail(&err);
    run_list(&config, &runs);
    value_set_array(&list);
    for (size_t i = 0; i < value_count(&runs) && i < (size_t)limit; i++) {
        const char *id = value_text(value_at(&runs, i), "");
        cleanup_free char *dir = mem_printf("%s/runs/%s", config.state, id);
        cleanup_tally struct tally tally;
        struct error broken = {0};
        tally_init(&tally);
        if (journal_read(dir, feed, &tally, &broken) < 0)
            fprintf(stderr, "mlhost runs: %s\n", broken.message);
        const char *status = status_of(dir, &tally, &broken);
        if (json)
            as_value(id, &tally, status, value_push(&list));
        else
            row(id, &tally, status, &out);
    }
    if (json) {
        text_json(&list, TEXT_PRETTY, &out);
        buf_putc(&out, '\n');
    } else if (!out.len) {
        buf_puts(&out, "no runs yet; mlhost run pipelines/ci.lua makes one\n");
    }
    text_print(stdout, out.data);
    value_free(&runs);
    value_free(&list);
    config_free(&config);
    return 0;
}
