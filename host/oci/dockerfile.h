/*
 * Dockerfiles as data. The grammar of docs.docker.com/reference/dockerfile; what is known and not
 * done here (heredocs) is an error that says so.
 */
#ifndef MLHOST_OCI_DOCKERFILE_H
#define MLHOST_OCI_DOCKERFILE_H

#include "base/value.h"

#define DOCKERFILE_LIMIT (1u << 20)

/*
 * *out becomes { escape = "\\", instructions = [ { line, keyword = "COPY", flags = { from = "build"
 * }, text = "a b /c", words = [..] (split at spaces, or the items of the JSON form), json = bool,
 * stage = 0.., } ] }. stage is -1 for what stands before the first FROM. problems NULL: the first
 * error ends it (ERR_INVALID, "source:line: ..."). Else each is put there as { line, rule, message
 * }, and the rest is still read.
 */
int dockerfile_parse(const char *text, size_t len, const char *source, struct value *out,
                     struct value *problems, struct error *err);

/* A variable's value, or NULL when it is not set. */
typedef const char *dockerfile_lookup_fn(void *ctx, const char *name, size_t len);

/* $x ${x} ${x:-y} ${x-y} ${x:+y} ${x+y} ${x:?y} ${x?y}, quotes removed, no expansion in single
 * quotes. Allocated; NULL with an error (without place: the caller knows the line). */
char *dockerfile_expand(const char *word, char escape, dockerfile_lookup_fn *lookup, void *ctx,
                        struct error *err);
/* Splits at spaces outside of quotes; quotes stay. Appends strings to the array *out. */
int dockerfile_split(const char *text, char escape, struct value *out, struct error *err);

#endif
