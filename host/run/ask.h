/* Questions of stages that the supervisor answers: approvals, and what earlier runs came to. */
#ifndef MLHOST_RUN_ASK_H
#define MLHOST_RUN_ASK_H

#include "run/engine.h"

/* An `ask` event of a slot's worker. */
void run_ask(struct slot *slot, const struct value *event);
/* The slot's worker is gone: its questions are nobody's. */
void run_ask_forget(struct slot *slot);
/* The run has ended. */
void run_ask_end(struct run *run);

#endif
