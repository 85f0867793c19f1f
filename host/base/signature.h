/* How a primitive is called: the part of its row that VM, help, docs and the broker share. */
#ifndef MLHOST_BASE_SIGNATURE_H
#define MLHOST_BASE_SIGNATURE_H

#include "base/value.h"

/*
 * args: words "name:type", "name:type?" for an optional one. Types: string int number bool map
 * array path duration secret (a string or a secret handle) any, or handle types ("image"). A call
 * from Lua may be positional, or one table with these names; on the wire it is always a map by
 * name.
 */
struct signature {
    const char *name; /* "registry.push" */
    const char *args;
    const char *returns; /* "ref:string", for docs */
    const char *doc;     /* one line for help, docs and completion */
};

/* Checks a map of arguments: unknown names (with the near miss), missing ones, wrong types.
 * ERR_USAGE. */
int signature_check(const struct signature *signature, const struct value *args, struct error *err);

#endif
