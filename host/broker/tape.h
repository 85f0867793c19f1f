/*
 * The tape of a stage: all that its VM was told from outside, in the order in which it was told.
 *
 * A VM has no source of news but its socket, so one that is told the same again does the same
 * again: `mlhost replay` looks at a stage afterwards, `mlhost run --resume` goes on inside one that
 * died.
 *
 * The file is a row of frames (base/value.h). The first is { t = "tape", version, program, run,
 * stage, attempt, mode, script, fingerprint, time, start }, `start` being the VM's own start frame
 * without the script's text. Then, each with `us` since the start:
 *
 *   call   name, args, at    a call of the VM, when it came
 *   reply  call, ok | error  its answer, when it was sent; `masked`: it held a secret, which the
 *                            tape does not
 *   clock  value             the VM looked at the clock
 *   stop   kind              it was told of a cancel
 *   done   ok | error        how the VM ended
 *
 * A text of TAPE_BLOB bytes or more is kept once for the whole run, as blobs/<sha256> beside the
 * stages, and stands in its frame as { ["$blob"] = "sha256:...", size }. A torn last frame is what
 * a killed host leaves; it is not there.
 */
#ifndef MLHOST_BROKER_TAPE_H
#define MLHOST_BROKER_TAPE_H

#include "base/value.h"

#define TAPE_VERSION 1
#define TAPE_BLOB    (128u << 10)
#define TAPE_MAX     (64u << 20) /* of one file, blobs aside; what comes after is not recorded */

enum tape_kind { TAPE_CALL, TAPE_REPLY, TAPE_CLOCK, TAPE_STOP, TAPE_DONE };

struct tape_entry {
    enum tape_kind kind;
    size_t call;        /* CALL, REPLY: which one, from 0 */
    struct value frame; /* with its blobs as references, see tape_blobs_in */
};

struct tape {
    struct value head;
    struct tape_entry *items;
    size_t count, calls;
    char *blobs; /* folder */
};

/* Reads a whole tape. ERR_NOT_FOUND; ERR_INVALID for what is no tape, or one of another version. */
int tape_load(const char *path, const char *blobs, struct tape *out, struct error *err);
void tape_free(struct tape *tape);
/* Puts the texts back in place of references, at any depth. */
int tape_blobs_in(const char *blobs, struct value *v, struct error *err);
/* Moves large texts into files and leaves references. */
int tape_blobs_out(const char *blobs, struct value *v, struct error *err);

/* <folder>/tape-<attempt>, or tape-always. Allocated. */
char *tape_path(const char *folder, const char *mode, int attempt);

#endif
