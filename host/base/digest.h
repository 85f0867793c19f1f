/* SHA-256 and SHA-512 through OpenSSL's EVP. Part of the io module: the program itself does not
 * link OpenSSL. */
#ifndef MLHOST_BASE_DIGEST_H
#define MLHOST_BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define DIGEST_TEXT 136 /* "sha512:" + 128 hex + NUL */
struct digest {
    char text[DIGEST_TEXT];
};

enum digest_kind { DIGEST_NONE, DIGEST_SHA256, DIGEST_SHA512 };

struct hasher;
struct hasher *hasher_new(void); /* SHA-256 */
struct hasher *hasher_new_of(enum digest_kind kind);
enum digest_kind hasher_kind(const struct hasher *hasher);
void hasher_update(struct hasher *hasher, const void *data, size_t len);
void hasher_finish(struct hasher *hasher, struct digest *out); /* frees the hasher */
void hasher_drop(struct hasher *hasher);

void digest_bytes(const void *data, size_t len, struct digest *out);
int digest_file(int fd, struct digest *out, uint64_t *size, struct error *err);
/* The same with another algorithm. */
void digest_bytes_of(enum digest_kind kind, const void *data, size_t len, struct digest *out);
int digest_file_of(enum digest_kind kind, int fd, struct digest *out, uint64_t *size,
                   struct error *err);
bool digest_valid(const char *text); /* sha256:<64 lower hex> */
/* What digest the text is: sha256:<64 lower hex> or sha512:<128 lower hex>. NULL is none. */
enum digest_kind digest_kind(const char *text);
void hmac_sha256(const void *key, size_t key_len, const void *data, size_t len, uint8_t out[32]);

#endif
