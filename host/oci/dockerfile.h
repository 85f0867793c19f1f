/*
 * Dockerfiles as data: the grammar of docs.docker.com/reference/dockerfile, with parser directives,
 * heredocs and every flag.
 */
#ifndef MLHOST_OCI_DOCKERFILE_H
#define MLHOST_OCI_DOCKERFILE_H

#include "base/value.h"

#define DOCKERFILE_LIMIT (1u << 20)

/*
 * *out becomes
 *
 *   { escape = "\\", syntax = "docker/dockerfile:1"?,
 *     check = { skip = [ "rule", .. ], error = bool }?,         the directive # check=
 *     comments = [ { line, text } ],                            text without "#", trimmed
 *     instructions = [ {
 *       line, end_line,            from 1; end_line is that of the last heredoc's end
 *       keyword = "COPY",          upper case
 *       written = "Copy",          as it stands in the file
 *       flags = { from = "build", link = true, exclude = [ .. ], mount = [ .. ] },
 *       text = "a b /c",           behind the flags; lines joined
 *       words = [ .. ],            split at spaces, or the items of the JSON form
 *       json = bool,
 *       heredocs = [ { word = "<<-EOF", name = "EOF", text, expand = bool, line } ]?,
 *       empty_line = line?,        an empty line within a continued one (deprecated)
 *       trigger = { .. }?,         ONBUILD: the instruction in it
 *       stage = 0..,               -1 before the first FROM
 *     } ] }
 *
 * RUN: flags.mount is an array of texts ("type=cache,target=/c"), flags.network and flags.security
 * are texts, checked. A heredoc's text ends with a line end, <<- has lost its tabs; `expand` is
 * false when the name was quoted, and means nothing to RUN, whose shell sees to it: a command that
 * is a heredoc alone (words[0] == heredocs[0].word and nothing else) is the text of a script, any
 * other gets "\n" text name for each heredoc behind its own text.
 *
 * Flags that may be repeated are arrays, switches are booleans, all else is text, not expanded.
 *
 * problems NULL: the first error ends it (ERR_INVALID, "source:line: ...", then the line and a
 * caret). Else each is put there as { line, column, message, hint }, and the rest is still read.
 */
int dockerfile_parse(const char *text, size_t len, const char *source, struct value *out,
                     struct value *problems, struct error *err);
/* The text of an ONBUILD as one instruction, which gets `line`, its stage being 0. */
int dockerfile_parse_trigger(const char *text, const char *source, int line, struct value *out,
                             struct error *err);

/* A variable's value, or NULL when it is not set. */
typedef const char *dockerfile_lookup_fn(void *ctx, const char *name, size_t len);

#define DOCKERFILE_RAW_QUOTES 1u /* quotes are characters like others: the text of a heredoc */
/* $x ${x} ${x:-y} ${x-y} ${x:+y} ${x+y} ${x:?y} ${x?y} ${x#p} ${x##p} ${x%p} ${x%%p} ${x/p/y}
 * ${x//p/y} (p: "*" and "?"), quotes removed, no expansion in single quotes. Allocated; NULL with
 * an error (without place: the caller knows the line). */
char *dockerfile_expand(const char *word, char escape, unsigned flags, dockerfile_lookup_fn *lookup,
                        void *ctx, struct error *err);
/* Splits at spaces outside of quotes; quotes stay. Appends strings to the array *out. */
int dockerfile_split(const char *text, char escape, struct value *out, struct error *err);

#endif
