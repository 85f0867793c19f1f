/*
 * A stage again, from its tape (broker/tape.h): in the same sandbox, without effects, in the time
 * that computing takes.
 */
#ifndef MLHOST_RUN_REPLAY_H
#define MLHOST_RUN_REPLAY_H

#include "base/config.h"
#include "broker/tape.h"
#include "loop/loop.h"

#define REPLAY_TIMEOUT_NS (60 * NS_PER_S)

enum replay_outcome {
    REPLAY_SAME,     /* asked the same, came to the same */
    REPLAY_CUT,      /* asked the same as far as the tape goes: the stage had died there */
    REPLAY_DIFFERS,  /* asked the same, came to something else */
    REPLAY_DIVERGED, /* asked something else */
    REPLAY_STUCK     /* did not ask what the tape holds next, and did not end */
};
/* "same" "cut" "differs" "diverged" "stuck" */
const char *replay_outcome_name(enum replay_outcome outcome);

struct replay {
    const struct config *config;
    const char *script; /* absolute: as it is now */
    const char *blobs, *path;
    int64_t timeout_ns; /* of computing; 0: REPLAY_TIMEOUT_NS */
    /* What the stage says meanwhile: events as docs/architecture.md lists them. May be NULL. */
    void (*event)(void *ctx, struct value *event);
    void *ctx;
    /* A session in the debugger where the script comes to a line or a call (the others 0), raises
     * an error that nobody catches, or calls breakpoint(). */
    bool debug;
    const char *until_file;
    int until_line, until_call;
};

/* What a stage came to: { ok = value } or { error = { code, message, file, line ... } }, or
 * { skipped = reason }. */
struct replay_result {
    enum replay_outcome outcome;
    size_t calls, told; /* on the tape; of them asked for */
    struct value then, now;
    struct value where; /* diverged: { call, asked = { name, at, args }, held? } */
};
void replay_result_free(struct replay_result *result);

/* -1 when there is no such tape, or nothing could be started. */
int replay_run(struct loop *loop, const struct replay *replay, struct replay_result *out,
               struct error *err);

/* The tapes of a run's folder: an array of { stage, try ("1", "2" ... or "always"), path }, in the
 * order of their recording; of each stage the newest try only, unless all. */
int replay_list(const char *dir, bool all, struct value *out, struct error *err);
/* A copy of a run's newest tapes that can be kept with the project: plan.json, stages/, blobs/. The
 * workspace's own path becomes "/workspace" in it. ERR_EXISTS. */
int replay_save(const char *dir, const char *workspace, const char *to, struct error *err);

#endif
