/*
 * Memory for secrets: left out of core dumps, zero in every process that is forked later, kept from
 * swap as far as the limit on locked memory goes. What is put in stays until the vault is closed.
 */
#ifndef MLHOST_BASE_VAULT_H
#define MLHOST_BASE_VAULT_H

#include <stddef.h>

struct vault;
struct vault *vault_new(void);
void vault_free(struct vault *vault); /* wipes it */
/* A copy of the bytes, with a NUL behind. One thread at a time. */
char *vault_copy(struct vault *vault, const void *bytes, size_t len);

#endif
