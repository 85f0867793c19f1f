/* A set of relative paths; adding one adds the folders that lead to it. Zeroed is empty. */
#ifndef MLHOST_OCI_PATH_SET_H
#define MLHOST_OCI_PATH_SET_H

#include <stdbool.h>
#include <stddef.h>

struct path_set {
    char **slots;
    size_t count, room; /* room is a power of two */
};
/* false: it was there already. */
bool path_set_add(struct path_set *set, const char *path);
bool path_set_has(const struct path_set *set, const char *path);
void path_set_free(struct path_set *set);

#endif
