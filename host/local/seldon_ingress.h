/* The ingress of the embedded Seldon: the paths under /seldon/, and the Services of its predictors
 * for the API's service proxy. */
#ifndef MLHOST_LOCAL_SELDON_INGRESS_H
#define MLHOST_LOCAL_SELDON_INGRESS_H

#include "local/services.h"

/*
 * Answers a request that goes to a Service by name: of a predictor (its whole graph), or of one of
 * its containers (that process alone). rest: what follows the service's own path, as sent, without
 * the query ("/api/v1.0/predictions"; a missing slash in front is added). 0 when it was answered,
 * -1 when there is no such service.
 */
int seldon_forward(struct request *rq, const char *ns, const char *service, const char *rest);

#endif
