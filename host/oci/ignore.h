/*
 * .dockerignore and the wildcards of COPY, matched as Docker does: Go's filepath.Match per
 * component, "**" for any number of components, "!" takes back, the last line that matches wins, a
 * match of a folder is a match of what is in it.
 */
#ifndef MLHOST_OCI_IGNORE_H
#define MLHOST_OCI_IGNORE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/value.h"

struct ignore;
/* source names the file in errors. NULL: ERR_INVALID with source:line. */
struct ignore *ignore_parse(const char *text, size_t len, const char *source, struct error *err);
/* Patterns by themselves: "#" begins none of the comments, "!" takes back. `what` names them in
 * errors. */
struct ignore *ignore_patterns(const struct value *list, const char *what, struct error *err);
void ignore_free(struct ignore *ignore); /* NULL is allowed */
/* path: relative, clean. NULL ignore: nothing is ignored. */
bool ignore_match(const struct ignore *ignore, const char *path);
/* May something below an ignored folder be let in again? Then the folder must be walked. */
bool ignore_may_reenter(const struct ignore *ignore, const char *folder);

/* 1 match, 0 none, -1 the pattern is malformed ("[" without end, trailing "\"). "*" and "?" do not
 * match "/". */
int wildcard_match(const char *pattern, const char *path);
/* The same, two stars being no more than one: Go's filepath.Match. */
int wildcard_plain(const char *pattern, const char *path);
bool wildcard_has(const char *text); /* is there any of the four special characters? */

#endif
