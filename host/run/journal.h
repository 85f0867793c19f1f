/*
 * .mlhost/runs/<id>/journal.jsonl: one event per line, written before it is acted on.
 *
 * A write(2) is enough for kill -9; power loss needs the sync, which costs milliseconds. So the
 * journal is synced at effects, at the end of the run, and at the end of every stage that took
 * longer than doing it again would cost (JOURNAL_CHEAP_MS). Output, progress and log lines are not
 * journaled: their place is the stage's log.txt.
 */
#ifndef MLHOST_RUN_JOURNAL_H
#define MLHOST_RUN_JOURNAL_H

#include "base/config.h"
#include "base/value.h"

#define JOURNAL_CHEAP_MS 250

/*
 * Two hosts never work on one run: whoever does holds <dir>/lock, which says who it is. Taken
 * before the journal is read. The brokers of a run hold it too, so it is free when the last process
 * of a killed host has ended; that is waited for. ERR_CONFLICT names the host that lives. The
 * descriptor closes on exec.
 */
int run_lock(const char *dir, int *fd, struct error *err);
bool run_locked(const char *dir);

struct journal {
    int fd;
    char *path;
    int64_t seq;
    struct buf line;
};
#define JOURNAL_INIT                                                                               \
    {                                                                                              \
        .fd = -1, .line = BUF_INIT                                                                 \
    }

/* Opens (creates) <dir>/journal.jsonl and cuts off a torn last line. */
int journal_open(struct journal *journal, const char *dir, struct error *err);
/* Gives the event its seq and writes it. */
int journal_write(struct journal *journal, struct value *event, bool sync, struct error *err);
void journal_close(struct journal *journal);

/* Every whole line of a run's journal, in order. A torn last line is left out. Garbage and gaps are
 * ERR_INVALID with the number of the first such line; fn has had every other line then. */
typedef void journal_fn(void *ctx, const struct value *event);
int journal_read(const char *dir, journal_fn *fn, void *ctx, struct error *err);

/* A new, sortable id and its folder: runs/20260131-120000-123f3a. Both allocated. */
int run_create(const struct config *config, char **id, char **dir, struct error *err);
/* The folder of a run id (or of the only run whose id begins with it). Allocated; NULL with
 * ERR_NOT_FOUND. */
char *run_find(const struct config *config, const char *id, char **full_id, struct error *err);
/* All run ids, newest first: an array of strings. */
void run_list(const struct config *config, struct value *out);
/* The folder name of a cell: its name, with what a file name should not hold replaced. */
void cell_folder(const char *cell, struct buf *out);

#endif
