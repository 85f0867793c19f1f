/* A command of the program: `mlhost <name> ...`. One file per command under host/cmd, one row in
 * cmd.c. */
#ifndef MLHOST_CMD_CMD_H
#define MLHOST_CMD_CMD_H

#include <stdbool.h>

#include "base/error.h"

struct command {
    const char *name;
    const char *summary;               /* one line, for `mlhost help` */
    const char *help;                  /* usage, options, exit codes, at least one example */
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit status */
    bool internal;                     /* not listed */
};

extern const struct command *const commands[];
const struct command *command_find(const char *name);

/* Options. Each command lists its own; `--help` is understood everywhere. Errors name the near miss
 * and exit with 2. */
enum option_kind { OPTION_FLAG, OPTION_TEXT, OPTION_REPEAT };
struct option_spec {
    const char *name; /* "jobs": --jobs N or --jobs=N; a one-letter alias as "jobs,j" */
    enum option_kind kind;
    void *to; /* bool *, const char **, struct option_list * */
};
struct option_list {
    const char **items;
    int count;
};
/* Leaves the positional words in argv[1..return value). -1 after having printed what is wrong. -2:
 * help was printed. */
int options_parse(const struct command *command, const struct option_spec *specs, int argc,
                  char **argv);

/* "mlhost: <message>\n  hint: <hint>\n" on stderr; returns the exit status of the error's code. */
int command_fail(const struct error *err);

#endif
