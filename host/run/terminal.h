/*
 * A person at a prompt, or a file of lines in their place: reading with history, completion and
 * editing where there is a terminal, and talking to who evaluates by frames (docs/architecture.md).
 * Of the REPL and of the debugger.
 */
#ifndef MLHOST_RUN_TERMINAL_H
#define MLHOST_RUN_TERMINAL_H

#include <signal.h>
#include <stdbool.h>

#include "base/value.h"

struct edit;
struct terminal {
    int fd; /* the socket to who evaluates */
    bool tty, colour;
    struct buf in;
    struct edit *edit;
    const char *const *commands; /* ":help" ..., completed here; NULL at the end; NULL: none */
    /* Words with this beginning that may follow a command of ours; may be NULL. */
    void (*words)(void *ctx, const char *command, const char *beginning,
                  void (*add)(void *list, const char *word), void *list);
    /* What comes while something else is waited for. -1 ends the wait with TERMINAL_OVER. */
    int (*other)(void *ctx, struct value *frame);
    void *ctx;
};

/* Ctrl-C so far; whoever waits sets it to 0 first. */
extern volatile sig_atomic_t terminal_interrupts;

enum { TERMINAL_GONE = -1, TERMINAL_OVER = -2, TERMINAL_STUCK = -3 };

/* Sets tty and colour; hears SIGINT from here on. */
void terminal_init(struct terminal *t);
/* Begins with editing, if this is a terminal; the history is a file in the folder state. */
void terminal_open(struct terminal *t, const char *state);
void terminal_close(struct terminal *t);
/* Allocated, without its newline. NULL at the end of input, "\003" after Ctrl-C. */
char *terminal_line(struct terminal *t, const char *prompt);
void terminal_remember(struct terminal *t, const char *text);
/* \1 and a letter mark kinds of tokens (lua/prelude/pretty.lua); all else is data. */
void terminal_show(const struct terminal *t, const char *text, size_t len);
/* Shows an event of a broker: output, log and issue. */
void terminal_event(const struct terminal *t, const struct value *event);
/* A frame { t, text }. */
void terminal_send(struct terminal *t, const char *type, const char *text);
void terminal_send_frame(struct terminal *t, const struct value *frame);
/* Frames until one of type `wanted`, which goes to *out: 0. The first Ctrl-C meanwhile is passed
 * on, the second one gives TERMINAL_STUCK. TERMINAL_GONE: the socket has ended. */
int terminal_wait(struct terminal *t, const char *wanted, struct value *out);
/* Handles what has come already. 0, or as terminal_wait. */
int terminal_poll(struct terminal *t);

#endif
