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
/* Shared: what is found stays until it is released (close). Exclusive: nobody puts a manifest or
 * counts on a blob meanwhile. -1 when somebody held the other for a minute. */
int store_lock(struct store *store, bool exclusive, struct error *err);
/* A small file, whole or not at all; what a writer who died leaves is in uploads/ only, where
 * nobody takes it for a tag. */
int store_write(struct store *store, const char *path, const char *text, struct error *err);
/* file_read within the store. The store makes no links: where one was planted there is nothing. */
int store_read(struct store *store, const char *path, size_t limit, struct buf *out,
               struct error *err);
/* Relative to the store; no link is followed at the end. */
bool store_file_exists(struct store *store, const char *path);
void store_file_remove(struct store *store, const char *path);

#endif
