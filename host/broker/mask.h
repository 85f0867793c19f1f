/*
 * Secrets in what leaves a broker become "***": as they are, and in the forms that mask_match.h
 * names, and in base64 (each of the three alignments) and hexadecimal digits. Where two overlap,
 * all of both goes. A bound, not a proof: whoever may read a secret can always disguise it
 * otherwise.
 */
#ifndef MLHOST_BROKER_MASK_H
#define MLHOST_BROKER_MASK_H

#include <pthread.h>

#include "base/value.h"

#define MASK_SHORTEST 4           /* bytes; shorter secrets would mask half of the log */
#define MASK_LONGEST  (64u << 10) /* of a longer one the first so many bytes, and its lines */

struct masker;
struct masker *masker_new(void);
void masker_free(struct masker *masker);
/* Thread-safe, as all of these. Of a secret of several lines each line is one too. */
void masker_add(struct masker *masker, const void *secret, size_t len);
/* Does a secret of at least `shortest` bytes stand in the text, as it is? */
bool masker_holds(struct masker *masker, const char *text, size_t len, size_t shortest);
/* Appends text to *out, masked; also what begins a secret and was cut by the text's end. */
void mask_text(struct masker *masker, const char *text, size_t len, struct buf *out);
/* The same of a text that lacks its beginning: what may be the end of a secret goes, too. */
void mask_tail(struct masker *masker, const char *text, size_t len, struct buf *out);
/* Every string under v, map keys included, is masked in place. */
void mask_value(struct masker *masker, struct value *v);

/* A stream whose pieces may cut a secret in two: the end of a piece that may begin one stays in
 * *tail. */
void mask_stream(struct masker *masker, struct buf *tail, const char *data, size_t len,
                 struct buf *out);
/* What is left, masked; the end of the stream. */
void mask_stream_end(struct masker *masker, struct buf *tail, struct buf *out);

#endif
