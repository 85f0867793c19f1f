/* The services of the embedded server, one constructor each; serve.c has the list. */
#ifndef MLHOST_LOCAL_SERVICES_H
#define MLHOST_LOCAL_SERVICES_H

#include "local/lua_service.h"

/* OCI distribution API over <state>/registry (host/oci/store.h has the layout). */
struct service *registry_open(const struct local_host *host, struct error *err);
/* The artifact proxy of MLflow, /api/2.0/mlflow-artifacts/artifacts: files under
 * <state>/mlflow/artifacts. */
struct service *artifacts_open(const struct local_host *host, struct error *err);

#endif
