/* Questions of stages that the supervisor answers: approvals, and what earlier runs came to. */
#ifndef MLHOST_RUN_ASK_H
#define MLHOST_RUN_ASK_H

#include "run/engine.h"

/* An `ask` event of a slot's worker. */
void run_ask(struct slot *slot, const struct value *event);
/* The slot's worker is gone: its questions are nobody's. */
void run_ask_forget(struct slot *slot);
/* Is there a question on the screen? */
bool run_asks(const struct run *run);
/* The terminal is free again: shows the question that waits. */
void run_ask_resume(struct run *run);
/* The run has ended. */
void run_ask_end(struct run *run);

#endif
