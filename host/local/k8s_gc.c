/*
 * What Kubernetes' garbage collector does: an object whose owners (metadata.ownerReferences) are
 * all gone is deleted, and one that waits for a foreground deletion is let go when nothing that
 * blocks it is left. A namespace that is to end goes when all that was in it has gone.
 * Events go after an hour.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "local/k8s_metadata.h"
#include "local/k8s_serve.h"

#define FOREGROUND "foregroundDeletion"
#define BATCH      64

#define EVENT_SECONDS  3600
#define FORGET_SECONDS 60 /* between two looks for old events */

struct k8s_collector {
    struct k8s_store *store;
    pthread_t thread;
};

static void complain(const char *what, const struct value *object, const struct error *err)
{
    fprintf(stderr, "mlhost: kubernetes: %s %s/%s: %s\n", what,
            value_get_string(object, "kind", "?"),
            value_text(value_path(object, "metadata.name"), "?"), err->message);
}

static const struct k8s_resource *resource_of(const char *api_version, const char *kind)
{
    for (size_t i = 0; i < k8s_resource_count; i++) {
        char version[160];
        k8s_api_version(&k8s_resources[i], version, sizeof version);
        /* an owner's version may be another than the one that is served */
        size_t group = strcspn(version, "/"), asked = strcspn(api_version, "/");
        bool same = version[group] ? group == asked && strncmp(version, api_version, group) == 0
                                   : !api_version[asked];
        if (same && strcmp(k8s_resources[i].kind, kind) == 0)
            return &k8s_resources[i];
    }
    return NULL;
}

/* Owners of kinds that are not served here are never taken for gone. */
static bool owner_there(struct k8s_store *store, const struct value *reference,
                        const char *namespace)
{
    const struct k8s_resource *resource = resource_of(value_get_string(reference, "apiVersion", ""),
                                                      value_get_string(reference, "kind", ""));
    cleanup_value struct value owner = {0};

    if (!resource)
        return true;
    return k8s_store_get(store, resource->store, resource->namespaced ? namespace : "",
                         value_get_string(reference, "name", ""), &owner) &&
           strcmp(value_text(value_path(&owner, "metadata.uid"), ""),
                  value_get_string(reference, "uid", "")) == 0;
}

static bool has_finalizers(const struct value *object)
{
    return value_count(value_path(object, "metadata.finalizers")) > 0;
}

/* The object as it is now; false when it has gone, or another one has its name. */
static bool refresh(struct k8s_store *store, const struct k8s_resource *resource,
                    const struct value *object, struct value *now)
{
    return k8s_store_get(store, resource->store,
                         value_text(value_path(object, "metadata.namespace"), ""),
                         value_text(value_path(object, "metadata.name"), ""), now) &&
           strcmp(value_text(value_path(now, "metadata.uid"), ""),
                  value_text(value_path(object, "metadata.uid"), "")) == 0;
}

/* False when somebody else has written meanwhile: look again. */
static bool put_unchanged(struct k8s_store *store, const struct k8s_resource *resource,
                          const struct value *next)
{
    struct error err = {0};

    if (k8s_store_put(store, resource->store, next, k8s_version_of(next), NULL, &err) == 0)
        return true;
    if (err.code == ERR_CONFLICT)
        return false;
    complain("cannot change", next, &err);
    return true;
}

static void remove_object(struct k8s_store *store, const struct k8s_resource *resource,
                          const struct value *object)
{
    struct error err = {0};

    if (k8s_store_delete(store, resource->store,
                         value_text(value_path(object, "metadata.namespace"), ""),
                         value_text(value_path(object, "metadata.name"), ""), &err) < 0)
        complain("cannot delete", object, &err);
}

/* Removed, or marked when it has finalizers. */
static void delete_object(struct k8s_store *store, const struct k8s_resource *resource,
                          const struct value *object)
{
    cleanup_value struct value now = {0};
    char time[32];

    do {
        if (!refresh(store, resource, object, &now))
            return;
        if (!has_finalizers(&now)) {
            remove_object(store, resource, &now);
            return;
        }
        if (value_path(&now, "metadata.deletionTimestamp"))
            return;
        k8s_time_now(time, sizeof time);
        value_put_string(value_get(&now, "metadata"), "deletionTimestamp", time);
        value_put_int(value_get(&now, "metadata"), "deletionGracePeriodSeconds", 0);
    } while (!put_unchanged(store, resource, &now));
}

/* Whether `reference` names the owner with that uid. */
static const struct value *reference_to(const struct value *object, const char *uid)
{
    const struct value *references = value_path(object, "metadata.ownerReferences");

    for (size_t i = 0; i < value_count(references); i++) {
        const struct value *reference = value_at(references, i);
        if (strcmp(value_get_string(reference, "uid", ""), uid) == 0)
            return reference;
    }
    return NULL;
}

/* The dependents of an owner: deleted when it was their last one. With `blocking`: only counts
 * those that are still there and block their owner, deleting all. */
static size_t visit_dependents(struct k8s_store *store, const struct value *owner, bool waiting)
{
    const char *uid = value_text(value_path(owner, "metadata.uid"), "");
    const char *namespace = value_text(value_path(owner, "metadata.namespace"), NULL);
    size_t blocking = 0;

    for (size_t i = 0; i < k8s_resource_count; i++) {
        cleanup_value struct value objects = {0};
        k8s_store_list(store, k8s_resources[i].store, namespace, &objects, NULL);
        for (size_t k = 0; k < value_count(&objects); k++) {
            const struct value *object = value_at(&objects, k);
            const struct value *reference = reference_to(object, uid);
            if (!reference)
                continue;
            const struct value *references = value_path(object, "metadata.ownerReferences");
            const char *within = value_text(value_path(object, "metadata.namespace"), "");
            bool kept = false;
            for (size_t n = 0; n < value_count(references); n++) {
                const struct value *other = value_at(references, n);
                if (other != reference && owner_there(store, other, within))
                    kept = true;
            }
            if (kept)
                continue;
            delete_object(store, &k8s_resources[i], object);
            blocking += waiting && has_finalizers(object) &&
                        value_get_bool(reference, "blockOwnerDeletion", false);
        }
    }
    return blocking;
}

static bool waits_for_dependents(const struct value *object)
{
    const struct value *finalizers = value_path(object, "metadata.finalizers");

    if (!value_path(object, "metadata.deletionTimestamp"))
        return false;
    for (size_t i = 0; i < value_count(finalizers); i++) {
        if (strcmp(value_text(value_at(finalizers, i), ""), FOREGROUND) == 0)
            return true;
    }
    return false;
}

/* Takes the finalizer off; the last one gone, the object goes, too. */
static void let_go(struct k8s_store *store, const struct k8s_resource *resource,
                   const struct value *object)
{
    cleanup_value struct value now = {0};

    do {
        cleanup_value struct value rest = {0};
        if (!refresh(store, resource, object, &now))
            return;
        struct value *finalizers = value_path(&now, "metadata.finalizers");
        value_set_array(&rest);
        for (size_t i = 0; i < value_count(finalizers); i++) {
            if (strcmp(value_text(value_at(finalizers, i), ""), FOREGROUND) != 0)
                value_copy(value_push(&rest), value_at(finalizers, i));
        }
        if (!value_count(&rest)) {
            remove_object(store, resource, &now);
            return;
        }
        value_move(finalizers, &rest);
    } while (!put_unchanged(store, resource, &now));
}

/* All that wait for their dependents. */
static void finish_foreground(struct k8s_store *store)
{
    for (size_t i = 0; i < k8s_resource_count; i++) {
        cleanup_value struct value objects = {0};
        k8s_store_list(store, k8s_resources[i].store, NULL, &objects, NULL);
        for (size_t k = 0; k < value_count(&objects); k++) {
            const struct value *object = value_at(&objects, k);
            if (waits_for_dependents(object) && visit_dependents(store, object, true) == 0)
                let_go(store, &k8s_resources[i], object);
        }
    }
}

/* What is in a namespace: deleted. How many of them wait for a finalizer? */
static size_t empty_namespace(struct k8s_store *store, const char *name)
{
    size_t left = 0;

    for (size_t i = 0; i < k8s_resource_count; i++) {
        cleanup_value struct value objects = {0};
        if (!k8s_resources[i].namespaced)
            continue;
        k8s_store_list(store, k8s_resources[i].store, name, &objects, NULL);
        for (size_t k = 0; k < value_count(&objects); k++) {
            delete_object(store, &k8s_resources[i], value_at(&objects, k));
            left += has_finalizers(value_at(&objects, k));
        }
    }
    return left;
}

static void finish_namespaces(struct k8s_store *store)
{
    cleanup_value struct value namespaces = {0};

    k8s_store_list(store, "namespaces", NULL, &namespaces, NULL);
    for (size_t i = 0; i < value_count(&namespaces); i++) {
        const struct value *namespace = value_at(&namespaces, i);
        const char *name = value_text(value_path(namespace, "metadata.name"), "");
        struct error err = {0};
        if (value_path(namespace, "metadata.deletionTimestamp") &&
            empty_namespace(store, name) == 0 &&
            k8s_store_delete(store, "namespaces", "", name, &err) < 0)
            complain("cannot delete", namespace, &err);
    }
}

/* Orphans that an ended process has left: dependents whose owners are all gone. */
static void sweep(struct k8s_store *store)
{
    for (size_t i = 0; i < k8s_resource_count; i++) {
        cleanup_value struct value objects = {0};
        k8s_store_list(store, k8s_resources[i].store, NULL, &objects, NULL);
        for (size_t k = 0; k < value_count(&objects); k++) {
            const struct value *object = value_at(&objects, k);
            const struct value *references = value_path(object, "metadata.ownerReferences");
            const char *within = value_text(value_path(object, "metadata.namespace"), "");
            bool kept = value_count(references) == 0;
            for (size_t n = 0; n < value_count(references); n++)
                kept = kept || owner_there(store, value_at(references, n), within);
            if (!kept)
                delete_object(store, &k8s_resources[i], object);
        }
    }
    finish_foreground(store);
    finish_namespaces(store);
}

/* Events that were last seen before the hour. */
static void forget_events(struct k8s_store *store)
{
    cleanup_value struct value events = {0};
    char before[32];

    k8s_time(clock_wall_ms() / 1000 - EVENT_SECONDS, before, sizeof before);
    k8s_store_list(store, "events", NULL, &events, NULL);
    for (size_t i = 0; i < value_count(&events); i++) {
        const struct value *event = value_at(&events, i);
        const char *made = value_text(value_path(event, "metadata.creationTimestamp"), "");
        /* times of this form sort as texts */
        if (strcmp(value_get_string(event, "lastTimestamp", made), before) < 0 &&
            strcmp(made, before) < 0)
            delete_object(store, k8s_resource_named("events"), event);
    }
}

static void *collect(void *context)
{
    struct k8s_collector *collector = context;
    struct k8s_store *store = collector->store;
    uint64_t at = k8s_store_version(store);

    sweep(store);
    int64_t forget_at = deadline_in(FORGET_SECONDS * NS_PER_S);
    while (k8s_store_wait(store, at, forget_at), !k8s_store_woken(store)) {
        struct k8s_event events[BATCH];
        bool waiting = false, ending = false;
        if (deadline_passed(forget_at)) {
            forget_events(store);
            forget_at = deadline_in(FORGET_SECONDS * NS_PER_S);
        }
        int count = k8s_store_events(store, at, NULL, NULL, events, BATCH, &at);
        if (count < 0) { /* too slow: look at all */
            at = k8s_store_version(store);
            sweep(store);
            continue;
        }
        for (int i = 0; i < count; i++) {
            if (events[i].change == K8S_DELETED) {
                visit_dependents(store, &events[i].object, false);
                waiting = waiting || value_path(&events[i].object, "metadata.ownerReferences");
                ending = true;
            } else {
                waiting = waiting || waits_for_dependents(&events[i].object);
                ending = ending || value_path(&events[i].object, "metadata.deletionTimestamp");
            }
            k8s_event_free(&events[i]);
        }
        if (waiting)
            finish_foreground(store);
        if (ending)
            finish_namespaces(store);
    }
    return NULL;
}

struct k8s_collector *k8s_collector_start(struct k8s_store *store, struct error *err)
{
    struct k8s_collector *collector = mem_alloc(sizeof *collector);

    collector->store = store;
    int why = pthread_create(&collector->thread, NULL, collect, collector);
    if (why) {
        free(collector);
        error_errno(err, why, "cannot start the garbage collector");
        return NULL;
    }
    return collector;
}

void k8s_collector_stop(struct k8s_collector *collector)
{
    pthread_join(collector->thread, NULL);
    free(collector);
}
