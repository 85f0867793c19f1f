/* Objects as rows: what kubectl shows (Accept: application/json;as=Table). */
#ifndef MLHOST_LOCAL_K8S_TABLE_H
#define MLHOST_LOCAL_K8S_TABLE_H

#include "base/value.h"
#include "local/k8s_resources.h"

enum k8s_rows { K8S_ROWS_BARE, K8S_ROWS_METADATA, K8S_ROWS_OBJECT };
/* The query's includeObject: "None", "Metadata" (also when it is NULL), "Object". */
enum k8s_rows k8s_rows_of(const char *include_object);

/*
 * A meta.k8s.io/v1 Table. objects: an array, or one object. metadata: of the list, or NULL: that of
 * the one object.
 */
void k8s_table(const struct k8s_resource *resource, const struct value *objects,
               const struct value *metadata, enum k8s_rows rows, struct value *out);

#endif
