/* argv -> command: what the program and those that embed it do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/mem.h"
#include "base/module.h"
#include "base/process.h"
#include "cmd/cmd.h"
#include "mlhost/mlhost.h"

const char *mlhost_version_text(void)
{
    return mlhost_version;
}

static void overview(FILE *to)
{
    fputs("mlhost: pipelines of machine-learning projects, written in Lua\n\nusage: mlhost "
          "<command> ...\n\n",
          to);
    for (const struct command *const *c = commands; *c; c++) {
        if (!(*c)->internal)
            fprintf(to, "  %-12s %s\n", (*c)->name, (*c)->summary);
    }
    fputs("\nmlhost <command> --help tells more. Example: mlhost run pipelines/ci.lua\n", to);
}

int mlhost_main(int argc, char **argv)
{
    process_hide();
    if (argc < 2) {
        overview(stderr);
        return 2;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0)
        name = "version";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 ||
        (strcmp(name, "help") == 0 && argc == 2)) {
        overview(stdout);
        return 0;
    }
    const struct command *command = command_find(name);
    if (!command) {
        const char *names[64] = {NULL};
        size_t count = 0;
        for (const struct command *const *c = commands; *c && count < 64; c++)
            names[count++] = (*c)->name;
        const char *near = near_miss(name, names, count);
        fprintf(stderr, "mlhost: unknown command '%s'", name);
        if (near)
            fprintf(stderr, " (did you mean '%s'?)", near);
        fputs("\n  hint: mlhost help lists the commands\n", stderr);
        return 2;
    }
    return command->run(argc - 1, argv + 1);
}

int mlhost_run_file(const char *script, const char *const *options)
{
    size_t count = 0;

    while (options && options[count])
        count++;
    /* Parsing options reorders the words; it does not write into them. */
    cleanup_free char **argv = mem_array(NULL, count + 4, sizeof *argv);
    argv[0] = "mlhost";
    argv[1] = "run";
    argv[2] = (char *)script;
    for (size_t i = 0; i < count; i++)
        argv[3 + i] = (char *)options[i];
    argv[3 + count] = NULL;
    int status = mlhost_main((int)count + 3, argv);
    fflush(stdout);
    return status;
}
