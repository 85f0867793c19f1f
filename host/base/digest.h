/* SHA-256 through OpenSSL's EVP. Part of the io module: the program itself does not
 * link OpenSSL. */
#ifndef MLHOST_BASE_DIGEST_H
#define MLHOST_BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define DIGEST_TEXT 72 /* "sha256:" + 64 hex + NUL */
struct digest {
    char text[DIGEST_TEXT];
};

struct hasher;
struct hasher *hasher_new(void);
void hasher_update(struct hasher *hasher, const void *data, size_t len);
void hasher_finish(struct hasher *hasher, struct digest *out); /* frees the hasher */
void hasher_drop(struct hasher *hasher);

void digest_bytes(const void *data, size_t len, struct digest *out);
int digest_file(int fd, struct digest *out, uint64_t *size, struct error *err);
bool digest_valid(const char *text); /* sha256:<64 lower hex> */
void hmac_sha256(const void *key, size_t key_len, const void *data, size_t len, uint8_t out[32]);

#endif
