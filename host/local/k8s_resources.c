#include "local/k8s_resources.h"

#include <stdio.h>
#include <string.h>

#define SELDON "machinelearning.seldon.io"
#define CORE2  "mlops.seldon.io"

const struct k8s_resource k8s_resources[] = {
    {"namespaces", "", "v1", "namespaces", "namespace", "Namespace", "ns", .status = true},
    {"pods", "", "v1", "pods", "pod", "Pod", "po", .namespaced = true, .status = true},
    {"services", "", "v1", "services", "service", "Service", "svc", .namespaced = true,
     .status = true},
    {"events", "", "v1", "events", "event", "Event", "ev", .namespaced = true},
    {"secrets", "", "v1", "secrets", "secret", "Secret", NULL, .namespaced = true},
    {"configmaps", "", "v1", "configmaps", "configmap", "ConfigMap", "cm", .namespaced = true},
    {"serviceaccounts", "", "v1", "serviceaccounts", "serviceaccount", "ServiceAccount", "sa",
     .namespaced = true},
    {"deployments.apps", "apps", "v1", "deployments", "deployment", "Deployment", "deploy",
     .namespaced = true, .status = true, .scale = true},
    {"replicasets.apps", "apps", "v1", "replicasets", "replicaset", "ReplicaSet", "rs",
     .namespaced = true, .status = true, .scale = true},
    {"seldondeployments." SELDON, SELDON, "v1", "seldondeployments", "seldondeployment",
     "SeldonDeployment", "sdep", .namespaced = true, .status = true, .scale = true, .custom = true},
    {"models." CORE2, CORE2, "v1alpha1", "models", "model", "Model", "mlm", .namespaced = true,
     .status = true, .scale = true, .custom = true},
    {"servers." CORE2, CORE2, "v1alpha1", "servers", "server", "Server", "mls", .namespaced = true,
     .status = true, .scale = true, .custom = true},
    {"pipelines." CORE2, CORE2, "v1alpha1", "pipelines", "pipeline", "Pipeline", "mlp",
     .namespaced = true, .status = true, .custom = true},
    {"experiments." CORE2, CORE2, "v1alpha1", "experiments", "experiment", "Experiment", "mle",
     .namespaced = true, .status = true, .custom = true},
};
const size_t k8s_resource_count = sizeof k8s_resources / sizeof *k8s_resources;

const struct k8s_resource *k8s_resource_named(const char *store)
{
    for (size_t i = 0; i < k8s_resource_count; i++) {
        if (strcmp(k8s_resources[i].store, store) == 0)
            return &k8s_resources[i];
    }
    return NULL;
}

void k8s_api_version(const struct k8s_resource *resource, char *to, size_t size)
{
    snprintf(to, size, "%s%s%s", resource->group, *resource->group ? "/" : "", resource->version);
}

/* Takes the next part of *path; false when there is none, or it does not fit. */
static bool part(const char **path, char *to, size_t size)
{
    size_t len = strcspn(*path, "/");

    if (!len || len >= size)
        return false;
    memcpy(to, *path, len);
    to[len] = '\0';
    *path += len + ((*path)[len] == '/');
    return true;
}

static const struct k8s_resource *find(const struct k8s_path *path)
{
    for (size_t i = 0; i < k8s_resource_count; i++) {
        const struct k8s_resource *resource = &k8s_resources[i];
        if (strcmp(resource->group, path->group) == 0 &&
            strcmp(resource->version, path->version) == 0 &&
            strcmp(resource->plural, path->plural) == 0)
            return resource;
    }
    return NULL;
}

bool k8s_path_parse(const char *path, struct k8s_path *out)
{
    memset(out, 0, sizeof *out);
    if (strncmp(path, "/apis/", 6) == 0) {
        path += 6;
        if (!part(&path, out->group, sizeof out->group))
            return false;
    } else if (strncmp(path, "/api/", 5) == 0) {
        path += 5;
    } else {
        return false;
    }
    if (!part(&path, out->version, sizeof out->version) ||
        !part(&path, out->plural, sizeof out->plural))
        return false;
    if (strcmp(out->plural, "namespaces") == 0 && !*out->group && *path) {
        char name[sizeof out->name], next[sizeof out->plural];
        if (!part(&path, name, sizeof name))
            return false;
        const char *after = path;
        if (!*path || (part(&after, next, sizeof next) && !*after &&
                       (strcmp(next, "status") == 0 || strcmp(next, "finalize") == 0))) {
            memcpy(out->name, name, sizeof out->name);
        } else {
            memcpy(out->namespace, name, sizeof out->namespace);
            if (!part(&path, out->plural, sizeof out->plural))
                return false;
        }
    } else if (strcmp(out->plural, "namespaces") == 0 && *out->group) {
        if (!part(&path, out->namespace, sizeof out->namespace) ||
            !part(&path, out->plural, sizeof out->plural))
            return false;
    }
    if (!*out->name && *path && !part(&path, out->name, sizeof out->name))
        return false;
    if (*path && !part(&path, out->subresource, sizeof out->subresource))
        return false;
    out->rest = path;
    out->resource = find(out);
    return true;
}
