/* mlhost check: what is wrong with a script, all of it, without running a stage. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/operator.h"
#include "run/graph.h"
#include "run/plan.h"
#include "run/worker.h"
#include "run/text.h"

/* "file:line: message" of an error as a finding; an error without a place is the script's own. */
static void finding(struct value *findings, const char *script, const struct error *err)
{
    struct value *to = value_push(findings);
    const char *colon = strchr(err->message, ':');
    char *end = NULL;
    long line = colon ? strtol(colon + 1, &end, 10) : 0;

    value_set_map(to);
    value_put_string(to, "level", "error");
    if (line > 0 && end && *end == ':' && colon > err->message) {
        value_set_bytes(value_put(to, "file"), err->message, (size_t)(colon - err->message));
        value_put_int(to, "line", line);
        value_put_string(to, "message", end + 1 + strspn(end + 1, " "));
    } else {
        value_put_string(to, "file", script);
        value_put_int(to, "line", 1);
        value_put_string(to, "message", err->message);
    }
    value_put_int(to, "column", 1);
    value_put_string(to, "rule", "plan");
    if (err->hint[0])
        value_put_string(to, "hint", err->hint);
}

static bool same(const struct value *a, const struct value *b)
{
    return value_get_int(a, "line", 0) == value_get_int(b, "line", 0) &&
           strcmp(value_get_string(a, "message", ""), value_get_string(b, "message", "")) == 0;
}

static int check_one(struct loop *loop, const struct config *config, const char *script,
                     bool degraded, struct value *findings, struct error *err)
{
    struct plan plan = {0};
    struct graph graph = {0};
    struct error wrong = {0};
    size_t before = value_count(findings);

    if (plan_check(loop, config, script, degraded, findings, &wrong) < 0) {
        if (wrong.code == ERR_USAGE) {
            *err = wrong;
            return -1;
        }
        finding(findings, script, &wrong);
    }
    for (size_t i = before; i < value_count(findings); i++) {
        if (strcmp(value_get_string(value_at(findings, i), "level", "error"), "error") == 0)
            return 0; /* what is wrong in the text makes the plan wrong too: once is enough */
    }
    wrong = (struct error){0};
    if (plan_load(loop, config, script, degraded, &plan, &wrong) < 0) {
        if (wrong.code !=
            ERR_UNSUPPORTED) /* a component's file: there is no plan, and no mistake */
            finding(findings, script, &wrong);
    } else {
        (void)graph_build(&plan.doc, script, &graph, findings, NULL);
    }
    graph_free(&graph);
    plan_free(&plan);
    return 0;
}

static int print(const struct value *findings, bool json)
{
    int errors = 0;
    cleanup_buf struct buf out = BUF_INIT;

    for (size_t i = 0; i < value_count(findings); i++) {
        const struct value *f = value_at(findings, i);
        const char *level = value_get_string(f, "level", "error");
        cleanup_buf struct buf line = BUF_INIT;
        bool again = false;

        for (size_t k = 0; k < i; k++)
            again = again || same(value_at(findings, k), f);
        if (again)
            continue;
        errors += strcmp(level, "error") == 0;
        buf_printf(&line, "%s:%lld:%lld: %s: %s", value_get_string(f, "file", "?"),
                   (long long)value_get_int(f, "line", 1), (long long)value_get_int(f, "column", 1),
                   level, value_get_string(f, "message", ""));
        if (value_get_string(f, "hint", "")[0])
            buf_printf(&line, " (%s)", value_get_string(f, "hint", ""));
        text_harmless(line.data, line.len, &out);
        buf_putc(&out, '\n');
    }
    if (json) {
        buf_clear(&out);
        text_json(findings, TEXT_PRETTY, &out);
        buf_putc(&out, '\n');
    }
    if (out.len)
        fputs(out.data, stdout);
    return errors;
}

static int run(int argc, char **argv);

const struct command cmd_check = {
    .name = "check",
    .summary = "look for mistakes in pipeline scripts",
    .help = "usage: mlhost check SCRIPT... [--json]\n\n"
            "Finds mistakes without running a stage: syntax, unknown globals, unknown keys, "
            "unknown needs, cycles,\n"
            "durations. Each is printed as file:line:column: level: message.\n\n"
            "  --json                 the findings as a JSON array\n" OPERATOR_HELP
            "\nexit status: 0 when there is no error, else 2\n\n"
            "example:\n  mlhost check pipelines/ci.lua pipelines/pr.lua\n",
    .run = run,
};

static int run(int argc, char **argv)
{
    struct operator_options operator_ = {0};
    bool json = false;
    const struct option_spec options[] = {
        {"json", OPTION_FLAG, &json}, OPERATOR_OPTIONS(operator_), {0}};
    struct error err = {0};
    struct config config = {0};
    struct value findings = {0};
    int errors = 0;

    int words = options_parse(&cmd_check, options, argc, argv);
    if (words < 0)
        return words == -2 ? 0 : 2;
    if (words < 2) {
        error_set(&err, ERR_USAGE, "check needs a script");
        error_hint(&err, "mlhost check pipelines/ci.lua");
        return command_fail(&err);
    }
    value_set_array(&findings);
    struct loop *loop = loop_new(&err);
    int rc = loop ? config_load(NULL, operator_.profile, &config, &err) : -1;
    for (int i = 1; i < words && rc == 0; i++)
        rc = check_one(loop, &config, argv[i], operator_.allow_degraded, &findings, &err);
    if (rc == 0)
        errors = print(&findings, json);
    value_free(&findings);
    config_free(&config);
    if (loop) {
        worker_settle(loop);
        loop_free(loop);
    }
    return rc < 0 ? command_fail(&err) : errors ? 2 : 0;
}
