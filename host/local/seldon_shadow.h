/* Copies of requests for shadow predictors: made in the background, their replies dropped, never in
 * the way of the request itself. */
#ifndef MLHOST_LOCAL_SELDON_SHADOW_H
#define MLHOST_LOCAL_SELDON_SHADOW_H

#include "local/seldon_graph.h"

struct seldon_shadow;

struct seldon_shadow *seldon_shadow_new(struct http *http, struct error *err);
/* Copies what it needs of a prediction's request for each shadow that gets this one. When too much
 * waits already the copy is left out, and counted. */
void seldon_shadow_offer(struct seldon_shadow *shadow, struct seldon_routes *routes,
                         struct seldon_deployment *deployment, const struct http_headers *headers,
                         const struct buf *body);
/* Drops what waits, ends what is under way. */
void seldon_shadow_free(struct seldon_shadow *shadow);

#endif
