/* Time. Deadlines are absolute CLOCK_MONOTONIC nanoseconds, so that a wall clock that jumps changes
 * nothing. */
#ifndef MLHOST_BASE_CLOCK_H
#define MLHOST_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

#define NS_PER_MS     INT64_C(1000000)
#define NS_PER_S      INT64_C(1000000000)
#define DEADLINE_NONE INT64_MAX

int64_t ns_of_ms(int64_t ms);             /* saturates: where milliseconds come from elsewhere */
int64_t clock_now(void);                  /* monotonic ns */
int64_t clock_wall_ms(void);              /* Unix time, ms */
int64_t deadline_in(int64_t ns_from_now); /* saturates; DEADLINE_NONE stays */
int64_t deadline_min(int64_t a, int64_t b);
int64_t deadline_left_ms(int64_t deadline); /* rounded up, 0 when passed; INT64_MAX for NONE */
int deadline_poll_ms(int64_t deadline);     /* for poll(2): -1 for NONE, clamped to int */
bool deadline_passed(int64_t deadline);

/* "500ms" "30s" "5m" "1h30m" "2d", or a plain number of seconds. ERR_INVALID names the text and the
 * forms. */
int duration_parse(const char *text, int64_t *ns, struct error *err);
void duration_print(int64_t ns, struct buf *out); /* "1.2 s", "3 min 05 s", "2 h 10 min" */
/* RFC 3339 UTC with milliseconds: 2026-01-31T12:00:00.000Z */
void time_print(int64_t unix_ms, struct buf *out);

#endif
