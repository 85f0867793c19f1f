/* The executor's series, in the text form of Prometheus:
 * seldon_api_executor_server_requests_seconds and seldon_api_executor_client_requests_seconds
 * (histograms). */
#ifndef MLHOST_LOCAL_SELDON_METRICS_H
#define MLHOST_LOCAL_SELDON_METRICS_H

#include "local/seldon_graph.h"

void seldon_metrics_server(const struct seldon_deployment *deployment,
                           const struct seldon_predictor *predictor, const char *service,
                           const char *method, int code, int64_t ns);
void seldon_metrics_client(const struct seldon_call *call, const struct seldon_node *node,
                           const char *service, int code, int64_t ns);
/* A copy for a shadow that was not made, since its queue was full. */
void seldon_metrics_dropped(const struct seldon_deployment *deployment,
                            const struct seldon_predictor *predictor);
/* The series of one deployment. */
void seldon_metrics_print(const char *namespace, const char *name, struct buf *out);
void seldon_metrics_free(void);

#endif
