/* Rows of primitives that are a REST endpoint and nothing else: what the tables in broker/rows_*.c
 * are written with. */
#ifndef MLHOST_SERVICE_ROWS_H
#define MLHOST_SERVICE_ROWS_H

#include "broker/primitive.h"
#include "service/rest.h"

/* REST_ROW("mlflow", "create_run", "client:service ...", "run:map", "one line of help", fields of
 * struct endpoint ...) */
#define REST_ROW(service, row_name, row_args, row_returns, row_doc, ...)                           \
    {                                                                                              \
        .sign = {service "." row_name, row_args, row_returns, row_doc}, .module = MODULE_IO,       \
        .symbol = "prim_rest", .data = &(const struct endpoint)                                    \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

#endif
