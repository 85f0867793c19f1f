/* Label and field selectors of the Kubernetes API. */
#ifndef MLHOST_LOCAL_K8S_SELECTOR_H
#define MLHOST_LOCAL_K8S_SELECTOR_H

#include "base/value.h"
#include "local/k8s_resources.h"

struct k8s_selector;

/*
 * labels: "a=b,c==d,e!=f,g in (x,y),h notin (x),i,!j"; fields: "metadata.name=a,status.phase!=b".
 * Either may be NULL or empty. Fields: metadata.name and metadata.namespace of all, and those that
 * the real API knows of pods, events, secrets and namespaces. ERR_INVALID names what is wrong.
 */
struct k8s_selector *k8s_selector_parse(const struct k8s_resource *resource, const char *labels,
                                        const char *fields, struct error *err);
bool k8s_selector_matches(const struct k8s_selector *selector, const struct value *object);
void k8s_selector_free(struct k8s_selector *selector);

#endif
