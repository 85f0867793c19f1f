#include "base/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

#define PIECE (256u * 1024)

struct hasher {
    EVP_MD_CTX *context;
    enum digest_kind kind;
};

/* OpenSSL without SHA-2 or without memory: as with malloc, there is nothing sensible left to do
 * (base/mem.h). */
static void must(int done)
{
    if (done != 1) {
        static const char text[] = "mlhost: SHA-2 is not to be had from OpenSSL\n";
        ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
        (void)ignored;
        _exit(70);
    }
}

struct hasher *hasher_new_of(enum digest_kind kind)
{
    struct hasher *hasher = mem_alloc(sizeof *hasher);
    const EVP_MD *algorithm = kind == DIGEST_SHA512 ? EVP_sha512() : EVP_sha256();

    hasher->kind = kind;
    hasher->context = EVP_MD_CTX_new();
    must(hasher->context && EVP_DigestInit_ex(hasher->context, algorithm, NULL) == 1);
    return hasher;
}

struct hasher *hasher_new(void)
{
    return hasher_new_of(DIGEST_SHA256);
}

enum digest_kind hasher_kind(const struct hasher *hasher)
{
    return hasher->kind;
}

void hasher_update(struct hasher *hasher, const void *data, size_t len)
{
    must(EVP_DigestUpdate(hasher->context, data, len));
}

void hasher_finish(struct hasher *hasher, struct digest *out)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    must(EVP_DigestFinal_ex(hasher->context, sum, &len));
    memcpy(out->text, hasher->kind == DIGEST_SHA512 ? "sha512:" : "sha256:", 7);
    for (unsigned i = 0; i < len; i++) {
        out->text[7 + 2 * i] = hex[sum[i] >> 4];
        out->text[8 + 2 * i] = hex[sum[i] & 15];
    }
    out->text[7 + 2 * len] = '\0';
    hasher_drop(hasher);
}

void hasher_drop(struct hasher *hasher)
{
    if (!hasher)
        return;
    EVP_MD_CTX_free(hasher->context);
    free(hasher);
}

void digest_bytes_of(enum digest_kind kind, const void *data, size_t len, struct digest *out)
{
    struct hasher *hasher = hasher_new_of(kind);

    hasher_update(hasher, data, len);
    hasher_finish(hasher, out);
}

void digest_bytes(const void *data, size_t len, struct digest *out)
{
    digest_bytes_of(DIGEST_SHA256, data, len, out);
}

int digest_file_of(enum digest_kind kind, int fd, struct digest *out, uint64_t *size,
                   struct error *err)
{
    cleanup_free char *piece = mem_alloc(PIECE);
    struct hasher *hasher = hasher_new_of(kind);
    uint64_t total = 0;

    for (;;) {
        ssize_t n = read(fd, piece, PIECE);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            hasher_drop(hasher);
            return error_errno(err, errno, "cannot read");
        }
        if (n == 0)
            break;
        hasher_update(hasher, piece, (size_t)n);
        total += (uint64_t)n;
    }
    hasher_finish(hasher, out);
    if (size)
        *size = total;
    return 0;
}

int digest_file(int fd, struct digest *out, uint64_t *size, struct error *err)
{
    return digest_file_of(DIGEST_SHA256, fd, out, size, err);
}

enum digest_kind digest_kind(const char *text)
{
    enum digest_kind kind = !text                              ? DIGEST_NONE
                            : strncmp(text, "sha256:", 7) == 0 ? DIGEST_SHA256
                            : strncmp(text, "sha512:", 7) == 0 ? DIGEST_SHA512
                                                               : DIGEST_NONE;
    size_t hex = kind == DIGEST_SHA512 ? 128 : 64;

    if (kind == DIGEST_NONE || strspn(text + 7, "0123456789abcdef") != hex || text[7 + hex])
        return DIGEST_NONE;
    return kind;
}

bool digest_valid(const char *text)
{
    return digest_kind(text) == DIGEST_SHA256;
}

void hmac_sha256(const void *key, size_t key_len, const void *data, size_t len, uint8_t out[32])
{
    unsigned out_len = 32;

    must(HMAC(EVP_sha256(), key, (int)key_len, data, len, out, &out_len) != NULL);
}
