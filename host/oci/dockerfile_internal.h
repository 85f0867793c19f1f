/* What the files of the reader of Dockerfiles share: dockerfile.c (lines, directives, heredocs),
 * dockerfile_instruction.c (keywords, flags, what each instruction must have). */
#ifndef MLHOST_OCI_DOCKERFILE_INTERNAL_H
#define MLHOST_OCI_DOCKERFILE_INTERNAL_H

#include "oci/dockerfile.h"

struct parser {
    const char *at, *end;
    const char *source;
    char escape;
    int line;          /* of what stands before `at`, from 1 */
    const char *begin; /* of the instruction at hand, and its line */
    int begin_line;
    int stage;
    bool trigger; /* the text of an ONBUILD */
    struct value *problems;
    struct error *err;
    struct value *document, *instructions, *comments;
    bool failed;
};

/* One error of the instruction at hand. token: what of it is wrong, to show it; may be NULL. */
void dockerfile_problem(struct parser *parser, const char *token, const char *hint,
                        const char *format, ...) __attribute__((format(printf, 4, 5)));

/* The instruction `text` into `item`, all but its heredocs, which `words` name. false: it is none,
 * and that is reported. */
bool dockerfile_instruction(struct parser *parser, const char *text, struct value *item);
/* With heredocs read: has it what it must have? */
void dockerfile_check(struct parser *parser, const struct value *item);

/* May it stand behind ONBUILD? */
bool dockerfile_triggers(const char *keyword);

#endif
