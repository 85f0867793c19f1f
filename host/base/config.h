/*
 * mlhost.yaml and what it means. Looked for in the workspace (the folder given, else upwards from
 * the current one to the first that holds mlhost.yaml or .git, else the current folder).
 *
 *   profile: local                 # which of the profiles below is active; --profile and
 * MLHOST_PROFILE override profiles: azure: registry: { url: https://acme.azurecr.io, auth: { type:
 * basic, username: u, password: { env: ACR_PASSWORD } } } mlflow:   { url:
 * https://mlflow.acme.example, auth: { type: bearer, token: { env: MLFLOW_TRACKING_TOKEN } } }
 *       kubeflow: { url: https://kf.acme.example/pipeline, namespace: team-a,
 *                   auth: { type: azure_ad, tenant: T, client_id: C, client_secret: { env: S },
 * scope: api://kf/.default } } k8s: { kubeconfig: kube.yaml, context: prod } (or url, auth, ca,
 * client_cert, client_key, namespace) seldon: { ingress: https://models.acme.example, gateway:
 * istio, host: NAME, namespaces: { qa: QA, prod: PROD } } permissions: { read: [..], write: [..],
 * net: [..], exec: [..], env:
 * [..] }   # upper bound for scripts jobs: 4
 *
 * The profile `local` needs no entry: its services are in the program. A service that a named
 * profile leaves out is not configured (an error that says so when used), except that the usual
 * variables of that service still count.
 */
#ifndef MLHOST_BASE_CONFIG_H
#define MLHOST_BASE_CONFIG_H

#include "base/value.h"

struct config {
    char *workspace;   /* absolute */
    char *file;        /* absolute path of mlhost.yaml, or NULL */
    char *state;       /* absolute: <workspace>/.mlhost, or MLHOST_STATE */
    char *profile;     /* name of the active profile */
    struct value root; /* the whole document, validated */
};

/* profile_override and workspace may be NULL. Unknown keys, wrong types and unknown profiles are
 * errors with file:line:column, the allowed names and the near miss. */
int config_load(const char *workspace, const char *profile_override, struct config *out,
                struct error *err);
void config_free(struct config *config);
/* The active profile's map for a service ("registry" "mlflow" "kubeflow" "azdo" "azureml"
 * "databricks" "k8s" "seldon"), or NULL. */
const struct value *config_service(const struct config *config, const char *service);
bool config_is_local(const struct config *config); /* the active profile is the embedded default */

/* The candidate nearest to `name` by edit distance, or NULL when none is near: "did you
 * mean ...". */
const char *near_miss(const char *name, const char *const *candidates, size_t count);

#endif
