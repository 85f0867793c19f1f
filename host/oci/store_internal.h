/* What store.c and store_refs.c share. */
#ifndef MLHOST_OCI_STORE_INTERNAL_H
#define MLHOST_OCI_STORE_INTERNAL_H

#include <pthread.h>

#include "oci/store.h"

struct parked;

struct store {
    char *root;
    int dir; /* descriptor of root: everything below is named relative to it */
    bool durable;
    pthread_mutex_t lock; /* guards parked */
    struct parked *parked;
};

/* mkdir -p of a relative path below the store. */
int store_make_dirs(struct store *store, const char *path, struct error *err);
/* Relative to the store; no link is followed at the end. */
bool store_file_exists(struct store *store, const char *path);
void store_file_remove(struct store *store, const char *path);

#endif
