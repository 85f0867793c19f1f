/*
 * The private modules (mlhost-io.so, mlhost-serve.so, mlhost-model.so, mlhost-edit.so): found in
 * the folder MLHOST_MODULE_PATH, beside the program, in ../lib/mlhost (any multiarch lib folder),
 * or where the build was told to install; loaded on first use, never unloaded. serve brings io
 * along.
 */
#ifndef MLHOST_BASE_MODULE_H
#define MLHOST_BASE_MODULE_H

#include "base/error.h"

enum module { MODULE_CORE, MODULE_IO, MODULE_SERVE, MODULE_MODEL, MODULE_EDIT };

/* The address of an exported function. In a program that holds everything (unit tests) it is found
 * there first. Thread-safe. */
void *module_symbol(enum module module, const char *symbol, struct error *err);
/* The module's file, for those who copy the program (the base image). Allocated; NULL with an
 * error. */
char *module_file(enum module module, struct error *err);

/* "0.1.0+<commit>": of the program; a module of another version is refused. */
extern const char mlhost_version[];

#endif
