/* What the embedded Kubernetes API serves, and how its paths are read. */
#ifndef MLHOST_LOCAL_K8S_RESOURCES_H
#define MLHOST_LOCAL_K8S_RESOURCES_H

#include <stdbool.h>
#include <stddef.h>

struct k8s_resource {
    const char *store; /* "pods", "deployments.apps": the store's name for it */
    const char *group, *version, *plural, *singular, *kind;
    const char *short_name; /* or NULL */
    bool namespaced, status, scale;
    bool custom; /* a custom resource on a real cluster: no strategic merge patch */
};
extern const struct k8s_resource k8s_resources[];
extern const size_t k8s_resource_count;

/* By the store's name; NULL when there is none. */
const struct k8s_resource *k8s_resource_named(const char *store);
/* "v1" or "apps/v1". */
void k8s_api_version(const struct k8s_resource *resource, char *to, size_t size);

/* /api/v1/... or /apis/<group>/<version>/..., after the last of which nothing is left out. */
struct k8s_path {
    const struct k8s_resource *resource; /* NULL: such a resource is not served */
    char group[128], version[32], plural[128];
    char namespace[256];  /* "": none, or all */
    char name[256];       /* "": the collection */
    char subresource[64]; /* "status", "scale", "log", "proxy", "" */
    const char *rest;     /* what follows the subresource, without its slash; into the path */
};
/* False when it is not the path of a resource (discovery, or nothing). */
bool k8s_path_parse(const char *path, struct k8s_path *out);

#endif
