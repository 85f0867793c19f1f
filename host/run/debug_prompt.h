/* The process at the debugger's prompt. Its frames, with the supervisor: `break` { stage, text }
 * begins a session, `closed` ends it; `eval`, `complete` and `interrupt` are for the script,
 * `evaled`, `completions`, `output` and `log` come from it; `off` and `kill` are for the
 * supervisor. */
#ifndef MLHOST_RUN_DEBUG_PROMPT_H
#define MLHOST_RUN_DEBUG_PROMPT_H

/* In a fresh fork of the supervisor, which it leaves by _exit. */
_Noreturn void debug_prompt(int fd, const char *state);

#endif
