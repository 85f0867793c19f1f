/* The services of the embedded server, one constructor each; serve.c has the list. */
#ifndef MLHOST_LOCAL_SERVICES_H
#define MLHOST_LOCAL_SERVICES_H

#include "local/lua_service.h"

/* OCI distribution API over <state>/registry (host/oci/store.h has the layout). */
struct service *registry_open(const struct local_host *host, struct error *err);
/* The artifact proxy of MLflow, /api/2.0/mlflow-artifacts/artifacts: files under
 * <state>/mlflow/artifacts. */
struct service *artifacts_open(const struct local_host *host, struct error *err);
/* The Kubernetes API over the store of k8s_store.h, which it opens: objects under
 * <state>/kubernetes. Its garbage collector is a thread of this process. */
struct service *kubernetes_open(const struct local_host *host, struct error *err);
/* The embedded Seldon: its operator, the processes of the models, and the ingress under /seldon/.
 * Opened after the Kubernetes API, whose objects it makes real; its close ends all processes. */
struct service *seldon_ingress_open(const struct local_host *host, struct error *err);
/* Says that the Kubernetes API and Seldon are served at `url`, which lives as long: 503. */
struct service *elsewhere_open(const char *url);

#endif
