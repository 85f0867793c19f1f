/* Behind include/mlhost/mlhost.h: what a primitive of an embedding program sees of its call. */
#ifndef MLHOST_EMBED_CALL_H
#define MLHOST_EMBED_CALL_H

#include "broker/primitive.h"
#include "mlhost/mlhost.h"

struct mlhost_call {
    struct call *call;
    const struct value *args;
    struct value *result;
    struct error error; /* why it fails, should it fail */
};

/* The function of every row that mlhost_register makes; the row's data is its struct
 * mlhost_primitive. */
int embed_perform(struct call *call, const struct value *args, struct value *out,
                  struct error *err);

#endif
