/* mlhost plan: what a script would do. */
#include <stdio.h>

#include "cmd/operator.h"
#include "run/graph.h"
#include "run/plan.h"
#include "run/worker.h"

static int show(struct loop *loop, const struct config *config, const char *script,
                struct operator_options *operator_, bool json, bool mermaid, struct error *err)
{
    struct plan plan = {0};
    struct graph graph = {0};
    struct value bound = {0};
    cleanup_buf struct buf text = BUF_INIT;
    bool has = false;

    int rc = plan_load(loop, config, script, operator_->allow_degraded, &plan, err);
    if (rc == 0)
        rc = graph_build(&plan.doc, plan.shown, &graph, NULL, err);
    if (rc == 0)
        rc = operator_bound(operator_, config, &bound, &has, err);
    if (rc == 0 && mermaid) {
        plan_mermaid(&graph, &text);
    } else if (rc == 0 && json) {
        struct value doc = {0};
        rc = plan_json(&plan, &graph, config, has ? &bound : NULL, &doc, err);
        if (rc == 0)
            value_to_json(&doc, TEXT_PRETTY, &text);
        buf_putc(&text, '\n');
        value_free(&doc);
    } else if (rc == 0) {
        rc = plan_text(&plan, &graph, config, has ? &bound : NULL, &text, err);
    }
    if (rc == 0)
        fputs(text.data, stdout);
    value_free(&bound);
    graph_free(&graph);
    plan_free(&plan);
    return rc;
}

static int run(int argc, char **argv);

const struct command cmd_plan = {
    .name = "plan",
    .summary = "show the stages of a pipeline script and what they may do",
    .help = "usage: mlhost plan SCRIPT [options]\n\n"
            "Loads the script with no permission at all and shows its stages: needs, matrix cells, "
            "limits, and the\n"
            "permissions that would hold.\n\n"
            "  --json                 as JSON\n"
            "  --mermaid              as a Mermaid flowchart\n" OPERATOR_HELP
            "\nexit status: 0, or 2 when the script is not valid\n\n"
            "example:\n  mlhost plan pipelines/ci.lua --mermaid\n",
    .run = run,
};

static int run(int argc, char **argv)
{
    struct operator_options operator_ = {0};
    bool json = false, mermaid = false;
    const struct option_spec options[] = {{"json", OPTION_FLAG, &json},
                                          {"mermaid", OPTION_FLAG, &mermaid},
                                          OPERATOR_OPTIONS(operator_),
                                          {0}};
    struct error err = {0};
    struct config config = {0};

    int words = options_parse(&cmd_plan, options, argc, argv);
    if (words < 0)
        return words == -2 ? 0 : 2;
    if (words != 2) {
        error_set(&err, ERR_USAGE, "plan takes one script");
        error_hint(&err, "mlhost plan pipelines/ci.lua");
        return command_fail(&err);
    }
    struct loop *loop = loop_new(&err);
    int rc = loop ? config_load(NULL, operator_.profile, &config, &err) : -1;
    if (rc == 0)
        rc = show(loop, &config, argv[1], &operator_, json, mermaid, &err);
    config_free(&config);
    if (loop) {
        worker_settle(loop);
        loop_free(loop);
    }
    return rc < 0 ? command_fail(&err) : 0;
}
