/* mlhost task-runner: internal; the serve process starts one per Kubeflow run. */
#include <stdio.h>

#include "base/module.h"
#include "cmd/cmd.h"

static int run(int argc, char **argv);

const struct command cmd_task_runner = {
    .name = "task-runner",
    .summary = "run one run of the embedded Kubeflow Pipelines",
    .help = "usage: mlhost task-runner RUN_ID FOLDER\n\n"
            "Internal: runs the tasks of a run that the embedded Kubeflow service has made. FOLDER "
            "is the service's\n"
            "(.mlhost/local/kubeflow). Ends when the run has ended, on SIGTERM, or when standard "
            "input ends.\n\n"
            "exit status: 0 succeeded, 1 failed\n\n"
            "example: mlhost task-runner 0b8f6c1e-6a3e-4d0f-9f5c-7a5f0a4f2f10 "
            "/home/me/project/.mlhost/local/kubeflow\n",
    .run = run,
    .internal = true,
};

static int run(int argc, char **argv)
{
    static const struct option_spec none[] = {{0}};
    int (*task_runner_main)(const char *kubeflow, const char *run_id, struct error *err);
    struct error err = {0};

    int words = options_parse(&cmd_task_runner, none, argc, argv);
    if (words < 0)
        return words == -2 ? 0 : 2;
    if (words != 3) {
        fputs(cmd_task_runner.help, stderr);
        return 2;
    }
    *(void **)&task_runner_main = module_symbol(MODULE_SERVE, "mlh_task_runner_main", &err);
    if (!task_runner_main || task_runner_main(argv[2], argv[1], &err) < 0)
        return command_fail(&err);
    return 0;
}
