/*
 * Permissions: what was asked (script), what bounds it (mlhost.yaml, --policy FILE, --allow-* and
 * --deny-* flags), what holds.
 *
 * Patterns: broker/pattern.h. Always granted: reading the workspace, writing the stage's output
 * folder, the active profile's services. Everything else is denied unless script AND operator grant
 * it; with no operator bound in mlhost.yaml or flags, what the script declares holds for a
 * workspace the user runs himself. What the operator denies is denied, whoever grants it.
 *
 * Nobody can be granted the host's own things: its state (.mlhost), of which a stage sees its own
 * output folder and reads those of others, and writing what the operator's bound stands in.
 */
#ifndef MLHOST_BROKER_POLICY_H
#define MLHOST_BROKER_POLICY_H

#include "base/value.h"
#include "broker/pattern.h"

struct policy; /* effective */

/* asked, bound: maps { read = {..}, write = {..}, net = {..}, exec = {..}, env = {..} }; NULL
 * bound: no bound. The bound may have `deny`, such a map; `origin`, see policy_explain; `open`: it
 * only denies; `protect`: paths for policy_protect. ERR_INVALID for a pattern that is none. */
struct policy *policy_new(const struct value *asked, const struct value *bound,
                          const char *workspace, struct error *err);
void policy_free(struct policy *policy);
/* Who asks, for denials: "stage 'build'". */
void policy_name(struct policy *policy, const char *who);
/* The host's own grants, which no script asks for and no bound takes away. Paths are absolute. */
void policy_grant(struct policy *policy, enum permission kind, const char *pattern);
/* The folder of the host's state: absolute. */
void policy_state(struct policy *policy, const char *folder);
/* A file that is never written, nor a folder above it removed: absolute. */
void policy_protect(struct policy *policy, const char *path);
const struct value *policy_protected(const struct policy *policy); /* array of paths */
/* Patterns that the operator denies: an array, or NULL. */
const struct value *policy_denied(const struct policy *policy, enum permission kind);
/* 0: allowed; else ERR_DENIED with what, where, and the line that grants it. A command is its words
 * joined by PATTERN_WORD. */
int policy_check(const struct policy *policy, enum permission kind, const char *what,
                 struct error *err);
/* Where a granted host has led: an address of this machine or of its link needs a grant of its own,
 * so that no name can smuggle it in. */
int policy_check_address(const struct policy *policy, const char *host, const char *address,
                         int port, struct error *err);
/* Effective lists, for commands' sandboxes, plan and journal. Of paths the narrower of what was
 * asked and what is bound. */
void policy_to_value(const struct policy *policy, struct value *out);
/* What was asked, and what came of it: an array of { kind, pattern, granted, by }. `by` names who
 * grants or denies it: bound.origin, a map kind -> list beside the patterns ("mlhost.yaml",
 * "--allow-net"), or what there is without a bound. */
void policy_explain(const struct policy *policy, struct value *out);

#endif
