/* A script's plan: what `pipeline` and `stage` said, as data. The script runs with no permission to
 * get it. */
#ifndef MLHOST_RUN_PLAN_H
#define MLHOST_RUN_PLAN_H

#include "base/config.h"
#include "loop/loop.h"

#define PLAN_TIMEOUT_NS (30 * NS_PER_S)
#define PLAN_SCRIPT_MAX (8u << 20)

struct plan {
    char *script;         /* absolute */
    char *shown;          /* as the user gave it */
    struct value doc;     /* { pipeline = {...}, stages = [...] } */
    const char *name;     /* of the pipeline */
    uint64_t fingerprint; /* of the script's text: did it change since? */
};

/* ERR_USAGE when the script cannot be read, ERR_INVALID with file:line when it is not right. */
int plan_load(struct loop *loop, const struct config *config, const char *script,
              bool allow_degraded, struct plan *out, struct error *err);
void plan_free(struct plan *plan);
/* Drops what a graph has taken out of the stages; what they ask for stays. */
void plan_slim(struct plan *plan);
uint64_t plan_fingerprint(const char *text, size_t len); /* of a script's text */
/* Runs the script in mode "check" instead; findings { level, message, file, line, column, rule }
 * are appended. */
int plan_check(struct loop *loop, const struct config *config, const char *script,
               bool allow_degraded, struct value *findings, struct error *err);

/* Writes a run's plan.json: { run, script, shown, fingerprint, profile, params, plan }. */
int plan_store(const struct plan *plan, const struct config *config, const struct value *params,
               const char *id, const char *dir, struct error *err);

/* The permissions that a stage asks for: the pipeline's and its own, merged. spec may be NULL. */
void plan_permissions(const struct plan *plan, const struct value *stage_spec, struct value *out);

/* The plan for people: stages in order with needs, cells, limits and effective permissions. bound
 * may be NULL. */
struct graph;
int plan_text(const struct plan *plan, const struct graph *graph, const struct config *config,
              const struct value *bound, struct buf *out, struct error *err);
void plan_mermaid(const struct graph *graph, struct buf *out);
/* What each stage asks for and what came of it: an array of { stage, kind, pattern, asked (where:
 * "pipeline", or file:line of the stage), granted, by, part?, except? }, see policy_explain. */
int plan_permissions_json(const struct plan *plan, const struct graph *graph,
                          const struct config *config, const struct value *bound, struct value *out,
                          struct error *err);
void plan_permissions_text(const struct value *list, struct buf *out);
/* { pipeline, script, params, timeout_ms, stages [{ name, needs, cells, timeout_ms, retries,
 * permissions ... }] } */
int plan_json(const struct plan *plan, const struct graph *graph, const struct config *config,
              const struct value *bound, struct value *out, struct error *err);

#endif
