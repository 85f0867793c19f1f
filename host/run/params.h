/* A pipeline's parameters: what the script declares, what the operator gives, what the stages get.
 */
#ifndef MLHOST_RUN_PARAMS_H
#define MLHOST_RUN_PARAMS_H

#include "base/value.h"

/*
 * declared: map name -> default, or name -> { type, default, choices, required, description }.
 * Types: string int number bool list; without one the default's own type, else string. A parameter
 * without default is required only when it says so.
 *
 * texts: "name=value" words of the command line; they win over `file` (a map, or NULL).
 * *out becomes a map with every parameter that has a value. ERR_USAGE names the parameter, the type
 * and the choices.
 */
int params_resolve(const struct value *declared, const char *const *texts, size_t count,
                   const struct value *file, struct value *out, struct error *err);

/* A map from a .json or YAML file. */
int params_file(const char *path, struct value *out, struct error *err);

#endif
