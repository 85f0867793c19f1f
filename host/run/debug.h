/*
 * The debugger's terminal: `break` events of workers whose spec has `debug`, one session at a time.
 *
 * The prompt is a process of its own, so that the other stages go on while somebody thinks. It is
 * started at the first break and lives as long as the debugger; between sessions it reads nothing.
 * Input that is no terminal is a file of lines; at its end the script goes on without a debugger.
 */
#ifndef MLHOST_RUN_DEBUG_H
#define MLHOST_RUN_DEBUG_H

#include "run/worker.h"

struct debugger;
struct debugger_handler {
    /* What a user wants of the host: "abort" (end the worker's stage), "retry" (begin it anew),
     * "quit" (end everything), "kill" (the script does not hear an interrupt). May be NULL: then
     * the worker is cancelled, or killed. */
    void (*action)(void *ctx, struct worker *worker, const char *what);
    /* The terminal is taken (nothing else may write there), or free again. May be NULL. */
    void (*terminal)(void *ctx, bool taken);
    void *ctx;
};

/* ERR_USAGE where nobody could answer: standard input is neither a terminal nor a pipe or file, or
 * this is a build agent's job. */
int debugger_possible(struct error *err);
struct debugger *debugger_new(struct loop *loop, const struct config *config,
                              const struct debugger_handler *handler);
/* To be called with each event of a worker. True: it was the debugger's (or its session has shown
 * it), and nobody else has to look at it. name: for the prompt, a stage's. */
bool debugger_event(struct debugger *debugger, struct worker *worker, const char *name,
                    const struct value *event);
/* The worker has ended. */
void debugger_forget(struct debugger *debugger, struct worker *worker);
/* Somebody sits at the prompt: Ctrl-C is theirs. */
bool debugger_busy(const struct debugger *debugger);
/* While it is held, no session begins: the terminal is another's. */
void debugger_hold(struct debugger *debugger, bool held);
void debugger_free(struct debugger *debugger); /* NULL is allowed */

#endif
