/* Text from outside, made harmless before a terminal or a build agent reads it. */
#ifndef MLHOST_RUN_TEXT_H
#define MLHOST_RUN_TEXT_H

#include <stdio.h>

#include "base/value.h"

/*
 * One line (no newline) of a child's or a script's output as pure data: "##vso", "##teamcity" and
 * "##[" become "**vso" ... wherever they stand, a line that begins with "::" no longer does, colour
 * sequences are dropped, and every other control character, invalid UTF-8 byte, text-direction
 * control and character without width is written as \xNN or \uNNNN. Tabs stay, and the two joiners
 * that scripts and emoji are written with.
 */
void text_harmless(const char *line, size_t len, struct buf *out);

/* The same for a C string. */
void text_shown(const char *text, struct buf *out);

/* The same, but commands to a build agent stay: of a stage that was granted ci = { "commands" }. */
void text_commands(const char *line, size_t len, struct buf *out);

/* The same for text of several lines: each line is made harmless, newlines stay. */
void text_harmless_lines(const char *text, size_t len, struct buf *out);

/* The same straight to a stream: what a command prints of a script, of errors. */
void text_print(FILE *to, const char *text);

/* A value as JSON that people and agents may read, too: no two # in a row, and what text_harmless
 * shows as \uNNNN is written so. */
void text_json(const struct value *v, int flags, struct buf *out);

/* As Azure DevOps' agent decodes it: % \r \n in data, also ; ] in the values of properties. All
 * else stays: a variable's value is what it is. */
void text_azdo(const char *text, bool property, struct buf *out);

/* Escaped for XML text and attributes; what XML 1.0 cannot hold at all becomes U+FFFD. */
void text_xml(const char *text, struct buf *out);

/* One cell of a Markdown table: | ` < > * _ [ ] escaped, newlines as spaces, at most `limit` bytes
 * (0: no limit). */
void text_markdown(const char *text, size_t limit, struct buf *out);

#endif
