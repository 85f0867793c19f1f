/*
 * What a run's events add up to: the state of every cell, links, issues, reports. The one reader of
 * events that the renderers, the reports, `mlhost runs` and --resume share; fed live or from a
 * journal.
 *
 * Events are maps { t, time (Unix ms), stage?, ... }. Besides those of docs/architecture.md, the
 * supervisor makes: run_start    run, pipeline, script, profile, params, cells [names], resumed
 *   stage_start  stage, attempt
 *   stage_retry  stage, attempt, error, delay_ms
 *   stage_result stage, status, output or error: before the stage's `always` runs
 *   stage_end    stage, status, duration_ms, attempt, output, error, reason
 *   run_end      status, exit, duration_ms
 */
#ifndef MLHOST_RUN_TALLY_H
#define MLHOST_RUN_TALLY_H

#include "base/value.h"

enum cell_status {
    CELL_WAITING,
    CELL_RUNNING,
    CELL_OK,
    CELL_SKIPPED, /* both satisfy a need */
    CELL_FAILED,
    CELL_TIMEOUT,
    CELL_DENIED,
    CELL_CANCELLED,
    CELL_BLOCKED, /* never started: something it needs did not end well */
};
/* "waiting" "running" "ok" "skipped" "failed" "timeout" "denied" "cancelled" "blocked" */
const char *cell_status_name(enum cell_status status);
enum cell_status cell_status_from_name(const char *name);
bool cell_status_over(enum cell_status status); /* neither waiting nor running */
bool cell_status_good(enum cell_status status); /* ok or skipped */

#define TALLY_TAIL       15
#define TALLY_ISSUES_MAX 1000

struct tally_cell {
    char *name;
    enum cell_status status;
    int attempt;
    int starts; /* of all tries, those of earlier hosts included: the number of its newest tape */
    bool died;  /* the newest one has no end in the journal, or crashed */
    int64_t started_ms; /* Unix; 0 before it started */
    int64_t started_ns; /* monotonic, for a live view */
    int64_t duration_ms;
    struct value output, error;
    struct value result;   /* the stage_result event when `always` had not ended */
    struct value effects;  /* map key -> value */
    struct value progress; /* the last progress event */
    char *reason;
    char *tail[TALLY_TAIL]; /* ring of the last lines, harmless text */
    size_t tail_next;
    int warnings, errors;
};

struct tally {
    char *run, *pipeline, *script, *profile, *status;
    struct value params;
    int64_t started_ms, duration_ms;
    bool resumed;
    char *degraded; /* required layers of the sandbox that it ran without, by name; NULL: none */
    int exit;
    struct tally_cell *cells;
    size_t count, room;
    size_t over;     /* how many are neither waiting nor running */
    uint32_t *index; /* of twice the room: by the hash of a cell's name, 1 + its place in cells */
    struct value issues; /* arrays of events */
    struct value links, junit, summaries;
    int warnings, errors;
};

void tally_init(struct tally *tally);
void tally_free(struct tally *tally);
#define cleanup_tally __attribute__((cleanup(tally_free)))
/* Children forked from now on have none of it, see mem_unshare. */
void tally_unshare(const struct tally *tally);
void tally_event(struct tally *tally, const struct value *event);
struct tally_cell *tally_find(const struct tally *tally, const char *cell);
/* The last lines, oldest first, each ended by a newline. */
void tally_tail(const struct tally_cell *cell, struct buf *out);

/* "file:line: " of an error value, or nothing. */
void error_place(const struct value *error, struct buf *out);
/*
 * The end of a run for people: each cell that failed with error, hint, place, traceback and last
 * lines; then counts, run id, report, links, and how to resume. `report` is the report's path or
 * NULL.
 */
void tally_summary(const struct tally *tally, const char *report, bool with_tail, struct buf *out);

#endif
