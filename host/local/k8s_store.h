/*
 * The objects of the embedded Kubernetes API: in memory, kept as files, told apart by resource
 * ("pods", "deployments.apps", "seldondeployments.machinelearning.seldon.io"), namespace and name.
 *
 * One store per process, made by the API service (kubernetes_open) and used from any thread by it
 * and by the Seldon operator. Each change gets the next number of one counter, which is the
 * object's metadata.resourceVersion and the place of its event in a bounded log: what `watch`
 * reads.
 *
 * The store fills metadata.uid, creationTimestamp, resourceVersion, and generation (of resources
 * with a group, such as deployments.apps; +1 when anything but metadata and status has changed, and
 * when deletionTimestamp appears). Everything else is the callers'.
 *
 * An object is the file <folder>/<resource>/<namespace>/<name>.json ("_" for no namespace), written
 * beside its place, synced and renamed, so that what put has returned for is there after a kill or
 * a power cut. Files are 0600 in folders 0700: there are secrets among them.
 */
#ifndef MLHOST_LOCAL_K8S_STORE_H
#define MLHOST_LOCAL_K8S_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/value.h"

struct k8s_store;

enum k8s_change { K8S_ADDED, K8S_MODIFIED, K8S_DELETED };
struct k8s_event {
    uint64_t version;
    enum k8s_change change;
    char *resource, *namespace, *name;
    struct value object; /* as it was after the change; a deleted one as it was last */
    struct value before; /* as it was before the change; nil for an added one */
};
void k8s_event_free(struct k8s_event *event);

/* Reads what is in `folder` (made when missing). A file that is no object is an error that names
 * it. */
struct k8s_store *k8s_store_open(const char *folder, struct error *err);
void k8s_store_close(struct k8s_store *store);
/* The store of this process, or NULL before kubernetes_open. */
struct k8s_store *k8s_store_here(void);
void k8s_store_set_here(struct k8s_store *store);

/* 1 and *out, or 0 when it is not there. */
int k8s_store_get(struct k8s_store *store, const char *resource, const char *namespace,
                  const char *name, struct value *out);
/* An array of all objects, by namespace and name; namespace NULL: of all. *version: the store's
 * counter at that moment. */
void k8s_store_list(struct k8s_store *store, const char *resource, const char *namespace,
                    struct value *out, uint64_t *version);
/*
 * Creates or replaces; metadata.name (and namespace) say which. `expected`: the resourceVersion
 * that it must have now; 0: any or none; K8S_ABSENT: it must not be there. ERR_EXISTS and
 * ERR_CONFLICT otherwise. An object that equals what is there changes nothing. *out (may be NULL):
 * as stored.
 */
#define K8S_ABSENT UINT64_MAX
int k8s_store_put(struct k8s_store *store, const char *resource, const struct value *object,
                  uint64_t expected, struct value *out, struct error *err);
/* Replaces .status alone, whatever else has changed meanwhile. ERR_NOT_FOUND when it is gone. */
int k8s_store_put_status(struct k8s_store *store, const char *resource, const char *namespace,
                         const char *name, const struct value *status, struct error *err);
/* 1 when it was there. */
int k8s_store_delete(struct k8s_store *store, const char *resource, const char *namespace,
                     const char *name, struct error *err);

/* A time as metadata has it: "2026-01-31T12:00:00Z"; and now. */
void k8s_time(int64_t unix_seconds, char *to, size_t size);
void k8s_time_now(char *to, size_t size);
/* The newest number that was given. */
uint64_t k8s_store_version(struct k8s_store *store);
/* Waits until a number above `after` was given, or the deadline (base/clock.h), or
 * k8s_store_wake: returns the newest number. */
uint64_t k8s_store_wait(struct k8s_store *store, uint64_t after, int64_t deadline);
/* Ends all waits now; for the stop of the server. Later waits return at once. */
void k8s_store_wake(struct k8s_store *store);
/* Whether k8s_store_wake was called: the time to end. */
bool k8s_store_woken(struct k8s_store *store);
/* An eventfd for poll(2): readable after each change (read its 8 bytes to reset it) and for good
 * after k8s_store_wake. Given back, and closed, by unlisten. -1 with an error. */
int k8s_store_listen(struct k8s_store *store, struct error *err);
void k8s_store_unlisten(struct k8s_store *store, int fd);
/*
 * The events above `after` of a resource (NULL: all) and namespace (NULL: all), oldest first, at
 * most `room`; the caller frees each. *next: where to go on. -1 when events above `after` have
 * left the log: the watcher must list anew (410 Gone).
 */
int k8s_store_events(struct k8s_store *store, uint64_t after, const char *resource,
                     const char *namespace, struct k8s_event *events, size_t room, uint64_t *next);

#endif
