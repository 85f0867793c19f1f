/* One-way reports of a script: log, print, progress, variables, reports, issues, effects. */
#include <string.h>

#include "base/mem.h"
#include "broker/internal.h"

/* The arguments are the event. The row's data is its kind. */
static int pass_on(struct call *call, const struct value *args, struct value *out,
                   struct error *err)
{
    struct value event = {0};

    (void)out;
    (void)err;
    value_copy(&event, args);
    call_event(call, call->row->data, &event);
    return 0;
}

static int event_log(struct call *call, const struct value *args, struct value *out,
                     struct error *err)
{
    static const char *const levels[] = {"debug", "info", "warning", "error"};
    const char *level = value_get_string(args, "level", "");
    bool known = false;

    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        known = known || strcmp(levels[i], level) == 0;
    if (!known)
        return error_set(err, ERR_USAGE,
                         "event.log: level must be debug, info, warning or error, not '%s'", level);
    return pass_on(call, args, out, err);
}

static int event_print(struct call *call, const struct value *args, struct value *out,
                       struct error *err)
{
    const struct value *text = value_get(args, "text");

    (void)out;
    (void)err;
    call_output(call, 1, text->as.string.data, text->as.string.len);
    return 0;
}

/* A secret's value is registered before the event leaves, and leaves in this one field of this one
 * event: a CI system that is to keep it as a secret variable must be told it. Journal and all other
 * renderers write "***". */
static int event_variable(struct call *call, const struct value *args, struct value *out,
                          struct error *err)
{
    struct value event = {0};
    const struct value *v = value_get(args, "value");
    size_t len;
    const char *text = call_secret(call, v, &len, err);

    (void)out;
    if (!text)
        return error_wrap(err, "set_variable");
    value_copy(&event, args);
    value_remove(&event, "value");
    if (value_get_bool(args, "secret", false) || v->kind == VALUE_HANDLE) {
        masker_add(call->broker->masker, text, len);
        value_put_bool(&event, "secret", true);
        value_put_string(&event, "t", "variable");
        broker_secret_variable(call->broker, &event, text, len);
        return 0;
    }
    value_set_bytes(value_put(&event, "value"), text, len);
    call_event(call, "variable", &event);
    return 0;
}

/* The report's file is named by its resolved path, and must be one that the script may read. */
static int event_report(struct call *call, const struct value *args, struct value *out,
                        struct error *err)
{
    const char *path = value_get_string(args, "path", NULL);
    struct value event = {0};

    (void)out;
    value_copy(&event, args);
    if (path) {
        char *resolved = call_path(call, path, ACCESS_READ, err);
        if (!resolved) {
            value_free(&event);
            return error_wrap(err, "report");
        }
        value_remove(&event, "path");
        value_take_string(value_put(&event, "path"), resolved);
        reports_add(call->broker, &event);
    }
    call_event(call, "report", &event);
    return 0;
}

const struct primitive event_rows[] = {
    {.sign = {"event.log", "level:string text:string at:string?", "",
              "a line with a level in the run's log"},
     .fn = event_log,
     .data = "log",
     .one_way = true},
    {.sign = {"event.print", "text:string", "", "text on the stage's output"},
     .fn = event_print,
     .one_way = true},
    {.sign = {"event.progress", "label:string done:int total:int? unit:string?", "",
              "how far something is"},
     .fn = pass_on,
     .data = "progress",
     .one_way = true},
    {.sign = {"event.variable", "name:string value:secret secret:bool? output:bool?", "",
              "a variable for the CI system that runs mlhost"},
     .fn = event_variable,
     .one_way = true},
    {.sign = {"event.report", "kind:string path:path? text:string? url:string? title:string?", "",
              "a link, a summary or a JUnit file for the run's report"},
     .fn = event_report,
     .one_way = true},
    {.sign = {"event.issue",
              "level:string message:string file:string? line:int? column:int? rule:string? "
              "hint:string?",
              "", "a finding at a place in a file"},
     .fn = pass_on,
     .data = "issue",
     .one_way = true},
    {.sign = {"event.effect", "key:string value:any", "",
              "something outside was made: kept for --resume"},
     .fn = pass_on,
     .data = "effect",
     .one_way = true},
    {.sign = {.name = NULL}},
};
