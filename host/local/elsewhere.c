/* Stands in for the services that outlive a run where another process of the workspace has them. */
#include <stdlib.h>

#include "base/mem.h"
#include "local/services.h"

static void handle(struct request *rq)
{
    struct error err = {0};

    error_set(&err, ERR_UNAVAILABLE, "the Kubernetes API and Seldon of this workspace are at %s",
              (const char *)rq->service->state);
    error_hint(&err, "use that address, or end it: mlhost serve --stop");
    answer_error(rq, 503, &err);
}

static void close_service(struct service *service)
{
    free(service->state);
    free(service);
}

struct service *elsewhere_open(const char *url)
{
    static const char *const prefixes[] = {"/api/v1/",
                                           "/apis/apps/",
                                           "/apis/machinelearning.seldon.io/",
                                           "/apis/mlops.seldon.io/",
                                           "/openapi/",
                                           "/seldon/",
                                           NULL};
    struct service *service = mem_alloc(sizeof *service);

    *service = (struct service){.name = "elsewhere",
                                .prefixes = prefixes,
                                .handle = handle,
                                .close = close_service,
                                .state = mem_strdup(url)};
    return service;
}
