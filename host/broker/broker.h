/*
 * The process between a VM and the world. Holds credentials and handles, checks policy, runs
 * primitives on worker threads, never runs a line of a script. One broker per stage (also per plan,
 * REPL, component).
 */
#ifndef MLHOST_BROKER_BROKER_H
#define MLHOST_BROKER_BROKER_H

#include "base/config.h"
#include "base/value.h"
#include "broker/policy.h"
#include "sandbox/sandbox.h"

struct model_serving; /* host/model/model.h */

struct broker_spec {
    const struct config *config;
    const char *mode;   /* "plan" "stage" "always" "check" "repl" "component" "test" "model" */
    const char *script; /* path of the main script (absolute); NULL for a bare REPL */
    const char *stage;  /* stage or cell name ("build_images[component=training]"), or NULL */
    const char *run_id;
    int hold_fd;         /* stays open in the broker for as long as it lives: a lock; 0: none */
    const char *out_dir; /* the stage's output folder, or NULL */
    struct value inputs; /* array of output folders of the stages it needs; its commands see
                            these of the state folder, and no more */
    const char *local_socket;  /* unix socket of the embedded services, or NULL */
    struct value context;      /* goes to the VM as cx: params, matrix, needs, attempt ... */
    struct value permissions;  /* asked: of pipeline and stage merged */
    const struct value *bound; /* operator's bound, or NULL */
    uint64_t memory_limit;     /* of the Lua heap, bytes; 0: 512 MiB */
    int64_t timeout_ns;        /* 0: none */
    int64_t grace_ns;          /* for clean-up code after the deadline; 0: 5 s */
    bool allow_degraded;
    const char *tape;  /* file to record to (broker/tape.h), or NULL */
    const char *play;  /* tape of an earlier try to answer from, or NULL */
    const char *blobs; /* folder of large texts of both */
    bool replay;       /* play, and do nothing that is not on the tape; else go on where it ends */
    bool debug;        /* the script stops in the debugger (run/debug.h serves it) */
    const char *until_file; /* with debug: where it is to stop first, or NULL */
    int until_line;
    int until_call;                    /* or at which of its calls, from 1; 0: at none */
    const struct model_serving *model; /* mode "model", when it is to serve */
};

/* Forks the broker, which forks its VM. The parent gets the child and its end of the event socket:
 * frames as docs/architecture.md lists them under "Events". The parent may send { t =
 * "cancel" }. */
int broker_start(const struct broker_spec *spec, struct sandbox_child *child, int *event_fd,
                 struct error *err);

#endif
