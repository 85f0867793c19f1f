/* A list of texts as exec wants it: ended by NULL. */
#ifndef MLHOST_BASE_STRINGS_H
#define MLHOST_BASE_STRINGS_H

#include <stddef.h>

struct strings {
    char **items; /* NULL while empty */
    size_t count;
};
void strings_add(struct strings *list, char *owned);
/* The texts are wiped, for a variable of an environment may be a secret. */
void strings_free(struct strings *list);
#define cleanup_strings __attribute__((cleanup(strings_free)))

#endif
