/* mlhost replay: a stage of a run again, from its tape. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cmd/cmd.h"
#include "cmd/tapes.h"
#include "run/debug.h"
#include "run/text.h"
#include "run/worker.h"

struct words {
    const char *try, *timeout, *save, *until, *at;
    bool list, json, quiet, debug;
};

static void put_text(const char *text, size_t len)
{
    cleanup_buf struct buf line = BUF_INIT;

    text_harmless_lines(text, len, &line);
    puts(line.data ? line.data : "");
}

static void put_json(const struct value *v)
{
    cleanup_buf struct buf text = BUF_INIT;

    text_json(v, 0, &text);
    puts(text.data);
}

static void on_event(void *ctx, struct value *event)
{
    const struct words *words = ctx;
    const char *t = value_get_string(event, "t", "");
    const struct value *text = value_get(event, "text");

    if (words->json)
        put_json(event);
    else if (!words->quiet && text && text->kind == VALUE_STRING &&
             (strcmp(t, "output") == 0 || strcmp(t, "log") == 0))
        put_text(text->as.string.data, text->as.string.len);
}

static void show(const struct replay_result *result)
{
    cleanup_buf struct buf text = BUF_INIT;

    tapes_explain(result, &text);
    put_text(text.data, text.len);
}

static void show_json(const struct replay_result *r)
{
    cleanup_value struct value out = {0};

    value_set_map(&out);
    value_put_string(&out, "t", "replay");
    value_put_string(&out, "outcome", replay_outcome_name(r->outcome));
    value_put_int(&out, "calls", (int64_t)r->calls);
    value_put_int(&out, "told", (int64_t)r->told);
    value_copy(value_put(&out, "then"), &r->then);
    value_copy(value_put(&out, "now"), &r->now);
    if (r->where.kind == VALUE_MAP)
        value_copy(value_put(&out, "where"), &r->where);
    put_json(&out);
}

/* ---- --list: what is on a tape ---- */

static const struct tape_entry *reply_to(const struct tape *tape, size_t call)
{
    for (size_t i = 0; i < tape->count; i++) {
        if (tape->items[i].kind == TAPE_REPLY && tape->items[i].call == call)
            return &tape->items[i];
    }
    return NULL;
}

static int list_calls(const char *path, const struct words *words, struct error *err)
{
    struct tape tape;

    if (tape_load(path, "", &tape, err) < 0)
        return -1;
    for (size_t i = 0; i < tape.count; i++) {
        const struct tape_entry *entry = &tape.items[i];
        cleanup_buf struct buf line = BUF_INIT;
        if (words->json) {
            put_json(&entry->frame);
            continue;
        }
        if (entry->kind != TAPE_CALL)
            continue;
        const struct tape_entry *reply = reply_to(&tape, entry->call);
        int64_t from = value_get_int(&entry->frame, "us", 0);
        const struct value *error = reply ? value_get(&reply->frame, "error") : NULL;
        buf_printf(&line, "%5zu  %10.1f ms", entry->call + 1, (double)from / 1000);
        if (reply)
            buf_printf(&line, " %+10.1f ms  ",
                       (double)(value_get_int(&reply->frame, "us", from) - from) / 1000);
        else
            buf_puts(&line, "    no answer  ");
        buf_printf(&line, "%s  ", value_get_string(&entry->frame, "at", "?"));
        tapes_call_text(&entry->frame, &line);
        if (error)
            buf_printf(&line, "  -> error %s: %s", value_get_string(error, "code", ""),
                       value_get_string(error, "message", ""));
        put_text(line.data, line.len);
    }
    tape_free(&tape);
    return 0;
}

/* ---- the command ---- */

/* --until FILE:LINE, --at N */
static int parse_stops(const struct words *words, struct replay *spec, char **file,
                       struct error *err)
{
    const char *colon = words->until ? strrchr(words->until, ':') : NULL;
    char *end = NULL;

    spec->debug = words->debug || words->until || words->at;
    if (words->until) {
        long line = colon ? strtol(colon + 1, &end, 10) : 0;
        if (!colon || colon == words->until || end == colon + 1 || *end || line < 1)
            return error_set(err, ERR_USAGE,
                             "--until must be FILE:LINE, such as ci.lua:31, not '%s'",
                             words->until);
        *file = mem_strndup(words->until, (size_t)(colon - words->until));
        spec->until_file = *file;
        spec->until_line = (int)line;
    }
    if (words->at) {
        long call = strtol(words->at, &end, 10);
        if (end == words->at || *end || call < 1 || call > INT_MAX) {
            error_set(err, ERR_USAGE, "--at must be the number of a call, not '%s'", words->at);
            return error_hint(err, "--list shows the calls with their numbers");
        }
        spec->until_call = (int)call;
    }
    return spec->debug ? debugger_possible(err) : 0;
}

static int replay(const struct words *words, const char *run, const char *stage, struct error *err)
{
    struct tapes tapes = {0};
    struct replay_result result = {0};
    struct replay stops = {0};
    cleanup_free char *until_file = NULL;
    int64_t timeout = 0;
    int status = -1;
    const char *path = NULL;
    struct loop *loop = NULL;

    if (words->timeout && duration_parse(words->timeout, &timeout, err) < 0)
        return error_wrap(err, "--timeout");
    if (parse_stops(words, &stops, &until_file, err) < 0)
        return -1;
    if (tapes_open(run, words->try != NULL, &tapes, err) == 0 && words->save)
        status = replay_save(tapes.dir, tapes.config.workspace, words->save, err);
    else if (tapes.dir)
        path = tapes_find(&tapes, stage, words->try, err);
    if (path && words->list) {
        status = list_calls(path, words, err);
    } else if (path && (loop = loop_new(err))) {
        struct replay spec = {.config = &tapes.config,
                              .script = tapes.script,
                              .blobs = tapes.blobs,
                              .path = path,
                              .timeout_ns = timeout,
                              .event = on_event,
                              .ctx = (void *)words,
                              .debug = stops.debug,
                              .until_file = stops.until_file,
                              .until_line = stops.until_line,
                              .until_call = stops.until_call};
        if (tapes.changed && !words->json)
            printf("the script has changed since it was recorded\n");
        status = replay_run(loop, &spec, &result, err);
        if (status == 0) {
            if (words->json)
                show_json(&result);
            else
                show(&result);
            status = result.outcome > REPLAY_CUT;
        }
    }
    replay_result_free(&result);
    if (loop) {
        worker_settle(loop);
        loop_free(loop);
    }
    tapes_close(&tapes);
    return status;
}

static int run(int argc, char **argv);

const struct command cmd_replay = {
    .name = "replay",
    .summary = "run a recorded stage again, without effects",
    .help =
        "usage: mlhost replay RUN [STAGE] [options]\n\n"
        "Runs a stage of an earlier run against what was recorded of it: each call gets the answer "
        "that it got then, so\n"
        "that nothing happens outside, and hours take milliseconds. The script and its modules are "
        "taken as they are\n"
        "now; where an edited one asks something else than the tape holds, the replay stops and "
        "says so. RUN is a run\n"
        "(the beginning of its id, or `latest`), or a folder made by --save; STAGE can be left out "
        "where there is one.\n\n"
        "  --until FILE:LINE      stop there in the debugger; --at N: before the Nth call\n"
        "  --debug                stop in the debugger at errors nobody catches and at "
        "breakpoint()\n"
        "  --list                 show the calls on the tape, and do nothing\n"
        "  --try N                the tape of the Nth try (default: the newest); `always` for that "
        "block\n"
        "  --timeout DURATION     of computing (default 60s)\n"
        "  --save FOLDER          copy the run's tapes there, for mlhost test --tape; paths of the "
        "workspace become\n"
        "                         /workspace in them\n"
        "  --quiet                not what the stage prints\n"
        "  --json                 events and outcome as JSON lines\n\n"
        "exit status: 0 the same (or the same as far as the tape of a stage that died goes), 1 "
        "not, 2 usage\n\n"
        "examples:\n  mlhost replay latest train\n  mlhost replay 20260131-120000-123f3a train "
        "--list\n",
    .run = run,
};

static int run(int argc, char **argv)
{
    struct words words = {0};
    const struct option_spec options[] = {
        {"until", OPTION_TEXT, &words.until},     {"at", OPTION_TEXT, &words.at},
        {"debug", OPTION_FLAG, &words.debug},     {"try", OPTION_TEXT, &words.try},
        {"timeout", OPTION_TEXT, &words.timeout}, {"save", OPTION_TEXT, &words.save},
        {"list", OPTION_FLAG, &words.list},       {"json", OPTION_FLAG, &words.json},
        {"quiet,q", OPTION_FLAG, &words.quiet},   {.name = NULL}};
    struct error err = {0};
    int count = options_parse(&cmd_replay, options, argc, argv);

    if (count < 0)
        return count == -2 ? 0 : 2;
    if (count < 2 || count > 3) {
        error_set(&err, ERR_USAGE, "replay takes a run and a stage");
        error_hint(&err, "mlhost replay latest STAGE; mlhost runs lists the runs");
        return command_fail(&err);
    }
    int status = replay(&words, argv[1], count > 2 ? argv[2] : NULL, &err);
    return status < 0 ? command_fail(&err) : status;
}
