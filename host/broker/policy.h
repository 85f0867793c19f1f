/*
 * Permissions: what was asked (script), what bounds it (mlhost.yaml, --policy FILE, --allow-*
 * flags), what holds.
 *
 * Patterns. read/write: path prefixes relative to the workspace or absolute; net: host[:port],
 * "*.host"; exec: command names or absolute paths; env: names, trailing "*". Always granted:
 * reading the workspace, writing the stage's output folder, the active profile's services.
 * Everything else is denied unless script AND operator grant it; with no operator bound in
 * mlhost.yaml or flags, what the script declares holds for a workspace the user runs himself.
 */
#ifndef MLHOST_BROKER_POLICY_H
#define MLHOST_BROKER_POLICY_H

#include "base/value.h"

enum permission { PERM_READ, PERM_WRITE, PERM_NET, PERM_EXEC, PERM_ENV, PERM_COUNT };
extern const char *const permission_names[PERM_COUNT];

struct policy; /* effective */

/* asked, bound: maps { read = {..}, write = {..}, net = {..}, exec = {..}, env = {..} }; NULL
 * bound: no bound. */
struct policy *policy_new(const struct value *asked, const struct value *bound,
                          const char *workspace, struct error *err);
void policy_free(struct policy *policy);
/* Who asks, for denials: "stage 'build'". */
void policy_name(struct policy *policy, const char *who);
/* The host's own grants, which no script asks for and no bound takes away. Paths are absolute. */
void policy_grant(struct policy *policy, enum permission kind, const char *pattern);
/* 0: allowed; else ERR_DENIED with what, where, and the line that grants it. */
int policy_check(const struct policy *policy, enum permission kind, const char *what,
                 struct error *err);
void policy_to_value(const struct policy *policy,
                     struct value *out); /* effective lists, for plan and journal */

#endif
