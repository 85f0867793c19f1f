/*
 * Renderers: the same events, for a terminal, a log file, a program or a build agent. They write to
 * descriptor 1 through one buffer that the supervisor flushes once per round of events.
 */
#ifndef MLHOST_RUN_RENDER_H
#define MLHOST_RUN_RENDER_H

#include "run/tally.h"

struct renderer;
struct renderer_kind {
    const char *name;
    bool agent;      /* a build agent may read this: a stage's commands to it pass, if granted */
    int64_t tick_ms; /* how often tick wants to be called; 0: never */
    size_t state_size;
    void (*event)(struct renderer *renderer,
                  const struct value *event); /* the tally has counted it already */
    void (*tick)(struct renderer *renderer);
    /* Shows a yes-or-no question that somebody answers by typing; NULL: it was answered. NULL
     * itself: this renderer's reader cannot be asked. */
    void (*question)(struct renderer *renderer, const char *text);
    void (*hide)(struct renderer *renderer); /* takes away what moves; NULL: nothing does */
    void (*end)(struct renderer *
                    renderer); /* after run_end: `report` is set; prints the summary; frees state */
};

struct renderer {
    const struct renderer_kind *kind;
    const struct tally *tally;
    int fd;
    struct buf out;
    bool quiet;   /* only stages and what is wrong */
    bool verbose; /* debug lines too */
    bool colour;
    bool utf8;
    bool held;          /* the terminal is another's: what there is to say waits */
    const char *report; /* absolute path of report.md, set before end(); NULL: not written */
    const char *junit;  /* that of junit.xml */
    void *state;
};

extern const struct renderer_kind render_tty, render_plain, render_json, render_azdo;

/* name: "tty" "plain" "json" "azdo", or NULL: azdo on an Azure DevOps agent (TF_BUILD), tty on a
 * terminal, else plain. ERR_USAGE for other names. */
struct renderer *renderer_new(const char *name, const struct tally *tally, bool quiet, bool verbose,
                              struct error *err);
void renderer_event(struct renderer *renderer, const struct value *event);
void renderer_flush(struct renderer *renderer);
/* Leaves the terminal to somebody else, or takes it again. */
void renderer_hold(struct renderer *renderer, bool held);
void renderer_free(struct renderer *renderer);

/* ---- shared by the renderers ---- */

/* The line for people that an event makes, harmless and without newline; false when it makes none
 * (or none at this verbosity). */
bool render_line(const struct renderer *renderer, const struct value *event, struct buf *out);
/* "ok  train  12.3 s" ... for a stage_end. */
void render_stage_end(const struct value *event, struct buf *out);
/* The value of a secret variable never leaves except to the agent that is to keep it: *copy is
 * without it. */
void event_redact(const struct value *event, struct value *copy);
/* Columns that text takes (UTF-8 aware, one per character), and the bytes of its first `columns`.
 */
size_t render_columns(const char *text, size_t len);
size_t render_fit(const char *text, size_t len, size_t columns);

#endif
