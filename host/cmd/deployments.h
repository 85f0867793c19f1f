/* What is deployed on the embedded Seldon, read from its files: also when nobody serves. */
#ifndef MLHOST_CMD_DEPLOYMENTS_H
#define MLHOST_CMD_DEPLOYMENTS_H

#include "base/config.h"

/* An array of { namespace, name, state, predictors: [names] }, sorted. */
void deployments_read(const struct config *config, struct value *out);
/* A line each. */
void deployments_print(const struct value *list, const char *url, struct buf *out);

#endif
