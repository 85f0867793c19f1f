/* The options that `run`, `plan` and `check` share. */
#ifndef MLHOST_CMD_OPERATOR_H
#define MLHOST_CMD_OPERATOR_H

#include "cmd/cmd.h"
#include "run/bound.h"

struct operator_options {
    const char *profile, *policy;
    struct option_list allow[PERM_COUNT], deny[PERM_COUNT];
    bool allow_degraded;
};

/* Their rows for option_spec tables; o is a struct operator_options. */
#define OPERATOR_OPTIONS(o)                                                                        \
    {"profile", OPTION_TEXT, &(o).profile}, {"policy", OPTION_TEXT, &(o).policy},                  \
        {"allow-read", OPTION_REPEAT, &(o).allow[PERM_READ]},                                      \
        {"allow-write", OPTION_REPEAT, &(o).allow[PERM_WRITE]},                                    \
        {"allow-net", OPTION_REPEAT, &(o).allow[PERM_NET]},                                        \
        {"allow-exec", OPTION_REPEAT, &(o).allow[PERM_EXEC]},                                      \
        {"allow-env", OPTION_REPEAT, &(o).allow[PERM_ENV]},                                        \
        {"allow-ci", OPTION_REPEAT, &(o).allow[PERM_CI]},                                          \
        {"deny-read", OPTION_REPEAT, &(o).deny[PERM_READ]},                                        \
        {"deny-write", OPTION_REPEAT, &(o).deny[PERM_WRITE]},                                      \
        {"deny-net", OPTION_REPEAT, &(o).deny[PERM_NET]},                                          \
        {"deny-exec", OPTION_REPEAT, &(o).deny[PERM_EXEC]},                                        \
        {"deny-env", OPTION_REPEAT, &(o).deny[PERM_ENV]},                                          \
        {"deny-ci", OPTION_REPEAT, &(o).deny[PERM_CI]},                                            \
    {                                                                                              \
        "allow-degraded", OPTION_FLAG, &(o).allow_degraded                                         \
    }
#define OPERATOR_HELP                                                                              \
    "  --profile NAME         the profile of mlhost.yaml to use (default: local, or "              \
    "MLHOST_PROFILE)\n"                                                                            \
    "  --allow-read PATTERN   let scripts have this when they ask; also -write, -net, -exec, "     \
    "-env, -ci.\n"                                                                                 \
    "                         With any of these, what is not allowed here or in mlhost.yaml is "   \
    "denied\n"                                                                                     \
    "  --deny-read PATTERN    never let scripts have this; also -write, -net, -exec, -env, -ci\n"  \
    "  --policy FILE          a YAML file with the permissions, instead of those in mlhost.yaml; " \
    "it must lie\n"                                                                                \
    "                         outside of the workspace\n"                                          \
    "  --allow-degraded       run although this kernel lacks a layer of the sandbox\n"

/* Takes what is in the options' lists. */
int operator_bound(struct operator_options *o, const struct config *config, struct value *bound,
                   bool *has, struct error *err);

#endif
