/* mlhost plan: what a script would do. */
#include <stdio.h>

#include "cmd/operator.h"
#include "run/graph.h"
#include "run/plan.h"
#include "run/text.h"
#include "run/worker.h"

struct words {
    struct operator_options operator_;
    bool json, mermaid, permissions, strict;
};

/* Exit status 4 when --strict and something that is asked for is not granted. */
static int show_permissions(const struct plan *plan, const struct graph *graph,
                            const struct config *config, const struct value *bound,
                            const struct words *words, struct buf *text, struct error *err)
{
    cleanup_value struct value list = {0};
    bool all = true;

    if (plan_permissions_json(plan, graph, config, bound, &list, err) < 0)
        return -1;
    if (words->json) {
        text_json(&list, TEXT_PRETTY, text);
        buf_putc(text, '\n');
    } else {
        plan_permissions_text(&list, text);
    }
    for (size_t i = 0; i < value_count(&list); i++) {
        const struct value *entry = value_at(&list, i);
        all = all && value_get_bool(entry, "granted", false) && !value_get(entry, "part");
    }
    return words->strict && !all ? 4 : 0;
}

static int show(struct loop *loop, const struct config *config, const char *script,
                struct words *words, struct error *err)
{
    struct plan plan = {0};
    struct graph graph = {0};
    cleanup_value struct value bound = {0};
    cleanup_buf struct buf text = BUF_INIT;
    bool has = false;

    /* Before the script is loaded, which could do nothing about it anyway. */
    int rc = operator_bound(&words->operator_, config, &bound, &has, err);
    if (rc == 0)
        rc = plan_load(loop, config, script, words->operator_.allow_degraded, &plan, err);
    if (rc == 0)
        rc = graph_build(&plan.doc, plan.shown, &graph, NULL, err);
    const struct value *limit = has ? &bound : NULL;
    if (rc == 0 && words->permissions) {
        rc = show_permissions(&plan, &graph, config, limit, words, &text, err);
    } else if (rc == 0 && words->mermaid) {
        plan_mermaid(&graph, &text);
    } else if (rc == 0 && words->json) {
        cleanup_value struct value doc = {0};
        rc = plan_json(&plan, &graph, config, limit, &doc, err);
        if (rc == 0)
            text_json(&doc, TEXT_PRETTY, &text);
        buf_putc(&text, '\n');
    } else if (rc == 0) {
        rc = plan_text(&plan, &graph, config, limit, &text, err);
    }
    if (rc >= 0 && text.len)
        text_print(stdout, text.data);
    graph_free(&graph);
    plan_free(&plan);
    return rc;
}

static int run(int argc, char **argv);

const struct command cmd_plan = {
    .name = "plan",
    .summary = "show the stages of a pipeline script and what they may do",
    .help =
        "usage: mlhost plan SCRIPT [options]\n\n"
        "Loads the script with no permission at all and shows its stages: needs, matrix cells, "
        "limits, and the\n"
        "permissions that would hold.\n\n"
        "  --permissions          what each stage asks for, whether it is granted, and by whom\n"
        "  --strict               with --permissions: end with 4 when something is not granted\n"
        "  --json                 as JSON\n"
        "  --mermaid              as a Mermaid flowchart\n" OPERATOR_HELP
        "\nexit status: 0, or 2 when the script is not valid\n\n"
        "examples:\n  mlhost plan pipelines/ci.lua --mermaid\n"
        "  mlhost plan pipelines/ci.lua --permissions --policy /etc/mlhost/policy.yaml\n",
    .run = run,
};

static int run(int argc, char **argv)
{
    struct words w = {0};
    const struct option_spec options[] = {{"json", OPTION_FLAG, &w.json},
                                          {"mermaid", OPTION_FLAG, &w.mermaid},
                                          {"permissions", OPTION_FLAG, &w.permissions},
                                          {"strict", OPTION_FLAG, &w.strict},
                                          OPERATOR_OPTIONS(w.operator_),
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
    int rc = loop ? config_load(NULL, w.operator_.profile, &config, &err) : -1;
    if (rc == 0)
        rc = show(loop, &config, argv[1], &w, &err);
    config_free(&config);
    if (loop) {
        worker_settle(loop);
        loop_free(loop);
    }
    return rc < 0 ? command_fail(&err) : rc;
}
