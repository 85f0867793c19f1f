/* What a script learns from the supervisor: a person's approval, and what an earlier run came to.
 */
#include "broker/internal.h"

#include <string.h>

static int approval_ask(struct call *call, const struct value *args, struct value *out,
                        struct error *err)
{
    struct value question = {0};
    cleanup_value struct value answer = {0};
    const char *name = value_get_string(args, "name", "");

    value_set_map(&question);
    value_put_string(&question, "kind", "approval");
    value_put_string(&question, "name", name);
    value_put_string(&question, "question", value_get_string(args, "question", ""));
    if (broker_ask(call, &question, &answer, err) < 0)
        return error_wrap(err, "approval '%s'", name);
    if (!value_get_bool(&answer, "yes", false)) {
        error_set(err, ERR_DENIED, "approval '%s': %s", name,
                  value_get_string(&answer, "by", "refused"));
        return error_hint(err, "--approve %s approves it beforehand", name);
    }
    value_set_map(out);
    value_put_string(out, "by", value_get_string(&answer, "by", ""));
    return 0;
}

static int runs_latest(struct call *call, const struct value *args, struct value *out,
                       struct error *err)
{
    struct value question = {0};
    cleanup_value struct value answer = {0};

    value_set_map(&question);
    value_put_string(&question, "kind", "latest_run");
    value_put_string(&question, "pipeline", value_get_string(args, "pipeline", ""));
    if (broker_ask(call, &question, &answer, err) < 0)
        return error_wrap(err, "runs.latest");
    struct value *run = value_get(&answer, "run");
    if (run)
        value_move(out, run);
    return 0;
}

const struct primitive ask_rows[] = {
    {.sign = {"approval.ask", "name:string question:string timeout:duration?", "answer:map",
              "a person's yes: asked at the terminal, or given before with --approve NAME"},
     .fn = approval_ask},
    {.sign = {"runs.latest", "pipeline:string", "run:map?",
              "the newest run of a pipeline in this workspace that ended well, with its outputs"},
     .fn = runs_latest},
    {.sign = {.name = NULL}},
};
