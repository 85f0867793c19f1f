#include "local/k8s_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

/* ---- cells ---- */

static const char *text_at(const struct value *object, const char *path, const char *otherwise)
{
    const char *text = value_text(value_path(object, path), "");

    return *text ? text : otherwise;
}

static int64_t number_at(const struct value *object, const char *path)
{
    const struct value *v = value_path(object, path);

    return v && v->kind == VALUE_INT ? v->as.integer : 0;
}

/* "5m", "3h", as kubectl writes ages. */
static void put_age(struct value *cells, const char *time)
{
    struct tm tm = {0};
    struct value *cell = value_push(cells);

    if (!strptime(time, "%Y-%m-%dT%H:%M:%S", &tm)) {
        value_set_string(cell, "<unknown>");
        return;
    }
    int64_t seconds = clock_wall_ms() / 1000 - (int64_t)timegm(&tm);
    if (seconds < 120)
        value_set_printf(cell, "%" PRId64 "s", seconds < 0 ? 0 : seconds);
    else if (seconds < 120 * 60)
        value_set_printf(cell, "%" PRId64 "m", seconds / 60);
    else if (seconds < 48 * 3600)
        value_set_printf(cell, "%" PRId64 "h", seconds / 3600);
    else
        value_set_printf(cell, "%" PRId64 "d", seconds / 86400);
}

static void put_created(struct value *cells, const struct value *object)
{
    put_age(cells, text_at(object, "metadata.creationTimestamp", ""));
}

static void put_int(struct value *cells, int64_t n)
{
    value_set_int(value_push(cells), n);
}

static const char *condition(const struct value *object, const char *type)
{
    const struct value *conditions = value_path(object, "status.conditions");

    for (size_t i = 0; i < value_count(conditions); i++) {
        const struct value *c = value_at(conditions, i);
        if (strcmp(value_get_string(c, "type", ""), type) == 0)
            return value_get_string(c, "status", "Unknown");
    }
    return "";
}

static void only_age(struct value *cells, const struct value *object)
{
    put_created(cells, object);
}

static void pod_cells(struct value *cells, const struct value *pod)
{
    const struct value *statuses = value_path(pod, "status.containerStatuses");
    const char *state = text_at(pod, "status.reason", text_at(pod, "status.phase", "Unknown"));
    int64_t ready = 0, restarts = 0;

    for (size_t i = 0; i < value_count(statuses); i++) {
        const struct value *one = value_at(statuses, i);
        state =
            text_at(one, "state.waiting.reason", text_at(one, "state.terminated.reason", state));
        ready += value_get_bool(one, "ready", false);
        restarts += value_get_int(one, "restartCount", 0);
    }
    if (value_path(pod, "metadata.deletionTimestamp"))
        state = "Terminating";
    value_set_printf(value_push(cells), "%" PRId64 "/%zu", ready,
                     value_count(value_path(pod, "spec.containers")));
    value_push_string(cells, state);
    put_int(cells, restarts);
    put_created(cells, pod);
    value_push_string(cells, text_at(pod, "status.podIP", "<none>"));
    value_push_string(cells, text_at(pod, "spec.nodeName", "<none>"));
}

static void deployment_cells(struct value *cells, const struct value *object)
{
    value_set_printf(value_push(cells), "%" PRId64 "/%" PRId64,
                     number_at(object, "status.readyReplicas"), number_at(object, "spec.replicas"));
    put_int(cells, number_at(object, "status.updatedReplicas"));
    put_int(cells, number_at(object, "status.availableReplicas"));
    put_created(cells, object);
}

static void replica_set_cells(struct value *cells, const struct value *object)
{
    put_int(cells, number_at(object, "spec.replicas"));
    put_int(cells, number_at(object, "status.replicas"));
    put_int(cells, number_at(object, "status.readyReplicas"));
    put_created(cells, object);
}

static void service_cells(struct value *cells, const struct value *object)
{
    const struct value *ports = value_path(object, "spec.ports");
    cleanup_buf struct buf text = BUF_INIT;

    value_push_string(cells, text_at(object, "spec.type", "ClusterIP"));
    value_push_string(cells, text_at(object, "spec.clusterIP", "<none>"));
    value_push_string(cells, text_at(object, "spec.externalName", "<none>"));
    for (size_t i = 0; i < value_count(ports); i++) {
        const struct value *port = value_at(ports, i);
        buf_printf(&text, "%s%" PRId64 "/%s", i ? "," : "", value_get_int(port, "port", 0),
                   value_get_string(port, "protocol", "TCP"));
    }
    value_push_string(cells, text.len ? text.data : "<none>");
    put_created(cells, object);
}

static void namespace_cells(struct value *cells, const struct value *object)
{
    value_push_string(cells, text_at(object, "status.phase", "Active"));
    put_created(cells, object);
}

static void config_map_cells(struct value *cells, const struct value *object)
{
    put_int(cells, (int64_t)(value_count(value_get(object, "data")) +
                             value_count(value_get(object, "binaryData"))));
    put_created(cells, object);
}

static void secret_cells(struct value *cells, const struct value *object)
{
    value_push_string(cells, text_at(object, "type", "Opaque"));
    put_int(cells, (int64_t)value_count(value_get(object, "data")));
    put_created(cells, object);
}

static void account_cells(struct value *cells, const struct value *object)
{
    put_int(cells, (int64_t)value_count(value_get(object, "secrets")));
    put_created(cells, object);
}

static void event_cells(struct value *cells, const struct value *event)
{
    put_age(cells,
            text_at(event, "lastTimestamp", text_at(event, "metadata.creationTimestamp", "")));
    value_push_string(cells, text_at(event, "type", "Normal"));
    value_push_string(cells, text_at(event, "reason", ""));
    cleanup_buf struct buf kind = BUF_INIT;
    buf_puts(&kind, text_at(event, "involvedObject.kind", ""));
    for (size_t i = 0; i < kind.len; i++)
        kind.data[i] =
            (char)(kind.data[i] >= 'A' && kind.data[i] <= 'Z' ? kind.data[i] + 32 : kind.data[i]);
    value_set_printf(value_push(cells), "%s/%s", kind.data ? kind.data : "",
                     text_at(event, "involvedObject.name", ""));
    value_push_string(cells, text_at(event, "message", ""));
}

static void seldon_cells(struct value *cells, const struct value *object)
{
    value_push_string(cells, text_at(object, "status.state", ""));
    put_int(cells, number_at(object, "status.replicas"));
    put_created(cells, object);
}

static void core2_cells(struct value *cells, const struct value *object)
{
    value_push_string(cells, condition(object, "Ready"));
    put_created(cells, object);
}

/* ---- columns ---- */

/* Behind the name. "*" is shown with -o wide only, "#" is a number. */
static const struct kind_of_row {
    const char *store;
    const char *columns[6];
    void (*cells)(struct value *cells, const struct value *object);
    bool unnamed; /* the name is no column */
} kinds[] = {
    {"pods", {"Ready", "Status", "#Restarts", "Age", "*IP", "*Node"}, pod_cells, false},
    {"deployments.apps", {"Ready", "#Up-to-date", "#Available", "Age"}, deployment_cells, false},
    {"replicasets.apps", {"#Desired", "#Current", "#Ready", "Age"}, replica_set_cells, false},
    {"services", {"Type", "Cluster-IP", "External-IP", "Port(s)", "Age"}, service_cells, false},
    {"namespaces", {"Status", "Age"}, namespace_cells, false},
    {"configmaps", {"#Data", "Age"}, config_map_cells, false},
    {"secrets", {"Type", "#Data", "Age"}, secret_cells, false},
    {"serviceaccounts", {"#Secrets", "Age"}, account_cells, false},
    {"events", {"Last Seen", "Type", "Reason", "Object", "Message"}, event_cells, true},
    {"seldondeployments.machinelearning.seldon.io",
     {"State", "#Replicas", "Age"},
     seldon_cells,
     false},
    {"models.mlops.seldon.io", {"Ready", "Age"}, core2_cells, false},
    {"servers.mlops.seldon.io", {"Ready", "Age"}, core2_cells, false},
    {"pipelines.mlops.seldon.io", {"Ready", "Age"}, core2_cells, false},
    {"experiments.mlops.seldon.io", {"Ready", "Age"}, core2_cells, false},
};

static const struct kind_of_row *kind_of(const struct k8s_resource *resource)
{
    static const struct kind_of_row other = {"", {"Age"}, only_age, false};

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].store, resource->store) == 0)
            return &kinds[i];
    }
    return &other;
}

static void put_column(struct value *columns, const char *name, const char *type,
                       const char *format, int64_t priority)
{
    struct value *column = value_push(columns);

    value_set_map(column);
    value_put_string(column, "name", name);
    value_put_string(column, "type", type);
    value_put_string(column, "format", format);
    value_put_string(column, "description", name);
    value_put_int(column, "priority", priority);
}

static void put_columns(struct value *table, const struct kind_of_row *kind)
{
    struct value *columns = value_put(table, "columnDefinitions");

    value_set_array(columns);
    if (!kind->unnamed)
        put_column(columns, "Name", "string", "name", 0);
    for (size_t i = 0; i < 6 && kind->columns[i]; i++) {
        const char *name = kind->columns[i];
        bool wide = *name == '*', number = *name == '#';
        put_column(columns, name + (wide || number), number ? "integer" : "string", "", wide);
    }
}

static void put_row(struct value *rows, const struct kind_of_row *kind, const struct value *object,
                    enum k8s_rows with)
{
    struct value *row = value_push(rows);

    value_set_map(row);
    struct value *cells = value_put(row, "cells");
    value_set_array(cells);
    if (!kind->unnamed)
        value_push_string(cells, text_at(object, "metadata.name", ""));
    kind->cells(cells, object);
    if (with == K8S_ROWS_OBJECT) {
        value_copy(value_put(row, "object"), object);
    } else if (with == K8S_ROWS_METADATA) {
        struct value *partial = value_put(row, "object");
        value_set_map(partial);
        value_put_string(partial, "kind", "PartialObjectMetadata");
        value_put_string(partial, "apiVersion", "meta.k8s.io/v1");
        const struct value *metadata = value_get(object, "metadata");
        if (metadata)
            value_copy(value_put(partial, "metadata"), metadata);
    }
}

enum k8s_rows k8s_rows_of(const char *include_object)
{
    if (include_object && strcmp(include_object, "None") == 0)
        return K8S_ROWS_BARE;
    if (include_object && strcmp(include_object, "Object") == 0)
        return K8S_ROWS_OBJECT;
    return K8S_ROWS_METADATA;
}

void k8s_table(const struct k8s_resource *resource, const struct value *objects,
               const struct value *metadata, enum k8s_rows with, struct value *out)
{
    const struct kind_of_row *kind = kind_of(resource);

    value_set_map(out);
    value_put_string(out, "kind", "Table");
    value_put_string(out, "apiVersion", "meta.k8s.io/v1");
    struct value *own = value_put(out, "metadata");
    value_set_map(own);
    if (metadata) {
        value_free(own);
        value_copy(own, metadata);
    } else {
        value_put_string(own, "resourceVersion", text_at(objects, "metadata.resourceVersion", ""));
    }
    put_columns(out, kind);
    struct value *rows = value_put(out, "rows");
    value_set_array(rows);
    if (objects->kind != VALUE_ARRAY) {
        put_row(rows, kind, objects, with);
        return;
    }
    for (size_t i = 0; i < value_count(objects); i++)
        put_row(rows, kind, value_at(objects, i), with);
}
