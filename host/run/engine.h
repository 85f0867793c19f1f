/* Inside the run engine: the state of one run and of its cells. supervisor.c has the run, cells.c
 * what happens to a cell, schedule.c which one is next. */
#ifndef MLHOST_RUN_ENGINE_H
#define MLHOST_RUN_ENGINE_H

#include "run/debug.h"
#include "run/services.h"
#include "run/stagelog.h"
#include "run/supervisor.h"
#include "run/worker.h"

enum slot_state { SLOT_IDLE, SLOT_RUNNING, SLOT_BACKOFF, SLOT_ALWAYS, SLOT_DONE };

struct run;
struct slot {
    struct run *run;
    size_t cell;  /* index in the graph */
    size_t tally; /* index in the tally */
    enum slot_state state;
    bool over;              /* idle, and only its `always` block and its end are left */
    const char *blocked_by; /* the need that did not end well */
    struct slot *live_next; /* of those that have a worker */
    struct worker *worker;
    struct loop_watch *backoff;
    int attempt;
    int by_hand;     /* attempts that were asked for in the debugger */
    bool again;      /* ... and one that is asked for now */
    int64_t started; /* of the first attempt */
    char *folder;    /* stages/<cell> */
    char *tape;      /* of a try that died, to go on from; or NULL */
    struct stagelog log;
    enum cell_status status; /* what the stage came to, while `always` runs */
    struct value output, error;
};

struct prompt; /* of ask.c, like the next */
struct waiting;
struct schedule;
struct run {
    const struct run_options *opt;
    struct journal journal;
    struct services *services;
    struct slot *slots;
    size_t count; /* of cells in the graph; those left out are SLOT_DONE from the start */
    struct schedule *schedule;
    struct slot *live; /* those that have a worker; `running` of them, at most opt->jobs */
    int running;
    int signals;           /* SIGINT and SIGTERM so far */
    bool timed_out;        /* the whole run */
    int exit;              /* of the first stage that did not end well; 0 so far */
    const char *first_bad; /* its name */
    bool costly;           /* something happened that is worth a sync */
    bool untidy;           /* a process may have left others behind */
    int64_t started;
    struct debugger *debugger;    /* NULL: without --debug */
    struct loop_watch *deadline;  /* of the whole run */
    int64_t deadline_at;          /* it stands still while somebody sits in the debugger: */
    int64_t paused_at, paused_ns; /* since when; what has been added so far */
    struct prompt *prompt;        /* NULL until a question is put to the terminal */
    struct waiting *daemon_asked; /* calls that wait for the daemon to start */
    struct loop_watch *daemon_watch;
    struct error broken; /* the journal cannot be written: nothing more may be done */
};

struct tally_cell *slot_state(const struct slot *slot);
const struct cell *slot_cell(const struct slot *slot);
const struct stage *slot_stage(const struct slot *slot);

/* Starts an event { t, stage }; slot may be NULL. */
void event_new(struct value *event, const char *t, const struct slot *slot);
/* Journal first, then everybody else. Takes what is in *event. */
void run_emit(struct run *run, struct value *event, bool journal, bool sync);
/* A notice of the host's own; ctx is the run. */
void run_say(void *ctx, const char *level, const char *text);
/* A cell's end, for good. */
void cell_end(struct slot *slot, enum cell_status status, const char *reason);
/* The next thing that an idle cell does: an attempt, or its `always` block when its stage is over.
 */
void cell_start(struct slot *slot);
/* A failure that the script allows for: it is shown, and that is all. */
bool cell_allowed(const struct slot *slot, enum cell_status status);

/* What may start, from the slots as they are; what happens to a cell costs its dependents, and
 * nothing for all the others. */
struct schedule *schedule_new(struct run *run);
void schedule_free(struct schedule *schedule);
/* An idle cell may start, as soon as there is room. */
void schedule_ready(struct slot *slot);
/* A cell is over. */
void schedule_ended(struct slot *slot, enum cell_status status);
size_t schedule_left(const struct run *run); /* cells that are not over */
/* Starts every cell that may start, ends every cell that never will. */
void run_schedule(struct run *run);
void run_cancel(struct run *run, bool timeout);
void run_kill(struct run *run);

#endif
