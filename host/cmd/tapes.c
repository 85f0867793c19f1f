#include "cmd/tapes.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/journal.h"
#include "run/plan.h"

#define PLAN_FILE_MAX (64u << 20)
#define SHOWN_MAX     200 /* bytes of a call's arguments */

static char *find_dir(const struct config *config, const char *run, struct error *err)
{
    cleanup_free char *plan = path_join(run, "plan.json");
    cleanup_value struct value runs = {0};

    if (access(plan, F_OK) == 0)
        return mem_strdup(run);
    if (strcmp(run, "latest") != 0)
        return run_find(config, run, NULL, err);
    run_list(config, &runs);
    const char *newest = value_text(value_at(&runs, 0), NULL);
    if (newest)
        return run_find(config, newest, NULL, err);
    error_set(err, ERR_USAGE, "there is no run yet");
    error_hint(err, "mlhost run pipelines/ci.lua makes one");
    return NULL;
}

/* A run's plan names its script as an absolute path; a folder that was saved, below /workspace. */
static char *find_script(const struct config *config, const struct value *plan)
{
    static const char saved[] = "/workspace/";
    const char *script = value_get_string(plan, "script", "");

    if (access(script, R_OK) < 0 && strncmp(script, saved, sizeof saved - 1) == 0)
        return path_join(config->workspace, script + sizeof saved - 1);
    return mem_strdup(script);
}

static bool has_changed(const char *script, const struct value *plan)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (file_read(AT_FDCWD, script, PLAN_SCRIPT_MAX, &text, NULL) < 0)
        return true;
    cleanup_free char *now = mem_printf(
        "%016llx", (unsigned long long)plan_fingerprint(text.data ? text.data : "", text.len));
    return strcmp(now, value_get_string(plan, "fingerprint", "")) != 0;
}

int tapes_open(const char *run, bool all, struct tapes *out, struct error *err)
{
    cleanup_value struct value plan = {0};
    cleanup_buf struct buf text = BUF_INIT;

    if (config_load(NULL, NULL, &out->config, err) < 0)
        return -1;
    out->dir = find_dir(&out->config, run, err);
    if (!out->dir)
        return -1;
    cleanup_free char *path = path_join(out->dir, "plan.json");
    if (file_read(AT_FDCWD, path, PLAN_FILE_MAX, &text, err) < 0 ||
        value_from_json(text.data ? text.data : "", text.len, path, NULL, &plan, err) < 0 ||
        replay_list(out->dir, all, &out->list, err) < 0) {
        mem_cleanup(&out->dir);
        out->dir = NULL;
        return -1;
    }
    out->blobs = path_join(out->dir, "blobs");
    out->script = find_script(&out->config, &plan);
    out->changed = has_changed(out->script, &plan);
    return 0;
}

void tapes_close(struct tapes *tapes)
{
    config_free(&tapes->config);
    free(tapes->dir);
    free(tapes->blobs);
    free(tapes->script);
    value_free(&tapes->list);
}

const char *tapes_find(const struct tapes *tapes, const char *stage, const char *try,
                       struct error *err)
{
    cleanup_buf struct buf names = BUF_INIT;
    const char *found = NULL;
    size_t matches = 0;

    for (size_t i = 0; i < value_count(&tapes->list); i++) {
        const struct value *entry = value_at(&tapes->list, i);
        const char *name = value_get_string(entry, "stage", "");
        const char *number = value_get_string(entry, "try", "");
        bool fits = (!stage || strcmp(stage, name) == 0) &&
                    (try ? strcmp(try, number) == 0 : strcmp(number, "always") != 0);
        buf_printf(&names, "%s%s (try %s)", names.len ? ", " : "", name, number);
        if (fits) {
            found = value_get_string(entry, "path", NULL);
            matches++;
        }
    }
    if (matches == 1)
        return found;
    if (value_count(&tapes->list) == 0) {
        error_set(err, ERR_USAGE, "this run was not recorded");
        error_hint(err, "runs are recorded unless --no-tape is given; stages that never started "
                        "have no tape");
    } else if (matches > 1) {
        error_set(err, ERR_USAGE, "which stage? The run has several");
        error_hint(err, "it has: %s", names.data);
    } else {
        error_set(err, ERR_USAGE, "there is no tape of %s%s%s", stage ? stage : "that",
                  try ? ", try " : "", try ? try : "");
        error_hint(err, "there are: %s", names.data);
    }
    return NULL;
}

/* ---- in words ---- */

void tapes_call_text(const struct value *call, struct buf *out)
{
    const struct value *args = value_get(call, "args");
    cleanup_buf struct buf json = BUF_INIT;

    buf_printf(out, "%s ", value_get_string(call, "name", "?"));
    if (args)
        value_to_json(args, 0, &json);
    if (json.len > SHOWN_MAX)
        buf_printf(out, "%.*s...", SHOWN_MAX, json.data);
    else
        buf_puts(out, json.data ? json.data : "");
}

static void side(const char *label, const struct value *call, struct buf *out)
{
    buf_printf(out, "\n  %s ", label);
    if (!call) {
        buf_puts(out, "nothing more");
        return;
    }
    tapes_call_text(call, out);
    buf_printf(out, "   at %s", value_get_string(call, "at", "?"));
}

static void end_text(const char *label, const struct value *end, struct buf *out)
{
    const struct value *error = value_get(end, "error");
    cleanup_buf struct buf json = BUF_INIT;

    buf_printf(out, "\n  %s ", label);
    if (end->kind == VALUE_NIL) {
        buf_puts(out, "no end: the stage died");
    } else if (error) {
        buf_puts(out, "error: ");
        if (value_get_string(error, "file", NULL))
            buf_printf(out, "%s:%lld: ", value_get_string(error, "file", ""),
                       (long long)value_get_int(error, "line", 0));
        buf_puts(out, value_get_string(error, "message", ""));
    } else {
        value_to_json(end, 0, &json);
        buf_printf(out, "%.*s%s", SHOWN_MAX, json.data, json.len > SHOWN_MAX ? "..." : "");
    }
}

void tapes_explain(const struct replay_result *r, struct buf *out)
{
    switch (r->outcome) {
    case REPLAY_SAME:
        buf_printf(out, "same: %zu calls, and the same end", r->calls);
        end_text("end: ", &r->now, out);
        return;
    case REPLAY_CUT:
        buf_printf(out, "same as far as the tape goes: %zu calls; the stage had died there",
                   r->calls);
        break;
    case REPLAY_DIFFERS:
        buf_printf(out, "differs: the same %zu calls, another end", r->calls);
        break;
    case REPLAY_STUCK:
        buf_printf(out, "stuck: the script did not come to call %zu of %zu", r->told + 1, r->calls);
        break;
    case REPLAY_DIVERGED:
        buf_printf(out, "diverged at call %zu of %zu", r->told + 1, r->calls);
        side("the script asks:", value_get(&r->where, "asked"), out);
        side("the tape holds: ", value_get(&r->where, "held"), out);
        return;
    }
    end_text("then:", &r->then, out);
    end_text("now: ", &r->now, out);
}
