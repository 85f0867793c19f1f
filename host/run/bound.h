/* What the operator allows: the upper bound of what scripts may be granted. */
#ifndef MLHOST_RUN_BOUND_H
#define MLHOST_RUN_BOUND_H

#include "base/config.h"
#include "broker/policy.h"

struct bound_options {
    const char *policy_file;              /* --policy FILE: replaces mlhost.yaml's permissions */
    const char *const *allow[PERM_COUNT]; /* --allow-read PATTERN ... */
    const char *const *deny[PERM_COUNT];  /* --deny-read PATTERN ... */
    int allow_count[PERM_COUNT], deny_count[PERM_COUNT];
};

/*
 * Starts from the policy file, else from mlhost.yaml's `permissions`, and adds the --allow and
 * --deny patterns: a bound for policy_new, with the origin of each pattern. With neither file and
 * no pattern there is no bound: *has is false. With --allow patterns alone, what they do not name
 * is denied; with denials alone, only these are.
 *
 * ERR_INVALID for a policy file below the workspace: whoever changes the scripts there could change
 * it, too.
 */
int bound_build(const struct config *config, const struct bound_options *options, struct value *out,
                bool *has, struct error *err);

#endif
