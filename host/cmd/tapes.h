/* The tapes of a run, for the commands that play them. */
#ifndef MLHOST_CMD_TAPES_H
#define MLHOST_CMD_TAPES_H

#include "base/config.h"
#include "run/replay.h"

struct tapes {
    struct config config;
    char *dir, *blobs, *script; /* script: absolute, as it is now */
    bool changed;               /* the script, since the run */
    struct value list;          /* of replay_list */
};

/* run: an id, its beginning, "latest", or a folder with a plan.json. all: not only each stage's
 * newest try. *out is to be closed in any case. */
int tapes_open(const char *run, bool all, struct tapes *out, struct error *err);
void tapes_close(struct tapes *tapes);
/* The tape of a stage (NULL: of the only one) and try (NULL: the newest). NULL with an error that
 * lists what there is. Lives as long as *tapes. */
const char *tapes_find(const struct tapes *tapes, const char *stage, const char *try,
                       struct error *err);

/* fs.read {"path":"x"}, cut when it is long. */
void tapes_call_text(const struct value *call, struct buf *out);
/* An outcome in a few lines. */
void tapes_explain(const struct replay_result *result, struct buf *out);

#endif
