#include <stdio.h>

#include "base/module.h"
#include "cmd/cmd.h"

static int run(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("mlhost %s\n", mlhost_version);
    return 0;
}

const struct command cmd_version = {
    .name = "version",
    .summary = "print the version",
    .help = "usage: mlhost version\n\nPrints the version of the program.\n\nexample:\n  mlhost "
            "version\n",
    .run = run,
};
