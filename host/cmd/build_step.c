/* mlhost build-step: internal; the image builder starts one per RUN of a user who may not mount. */
#include <stdio.h>
#include <unistd.h>

#include "base/module.h"
#include "cmd/cmd.h"

static int run(int argc, char **argv);

const struct command cmd_build_step = {
    .name = "build-step",
    .summary = "run one RUN of an image build",
    .help =
        "usage: mlhost build-step\n\n"
        "Internal: reads one command of an image build from standard input, runs it, and writes "
        "what it says and\n"
        "the layer that it made to standard output, in frames. It is started in a user "
        "namespace.\n\n"
        "exit status: 0 there is a layer, 1 failed\n\n"
        "example: mlhost build-step < request > result\n",
    .run = run,
    .internal = true,
};

static int run(int argc, char **argv)
{
    static const struct option_spec none[] = {{0}};
    int (*build_step_main)(int in, int out);
    struct error err = {0};

    int words = options_parse(&cmd_build_step, none, argc, argv);
    if (words < 0)
        return words == -2 ? 0 : 2;
    if (words != 1) {
        fputs(cmd_build_step.help, stderr);
        return 2;
    }
    *(void **)&build_step_main = module_symbol(MODULE_IO, "mlh_build_step_main", &err);
    if (!build_step_main)
        return command_fail(&err);
    return build_step_main(STDIN_FILENO, STDOUT_FILENO);
}
