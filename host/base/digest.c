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
};

/* OpenSSL without SHA-256 or without memory: as with malloc, there is nothing sensible left to do
 * (base/mem.h). */
static void must(int done)
{
    if (done != 1) {
        static const char text[] = "mlhost: SHA-256 is not to be had from OpenSSL\n";
        ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
        (void)ignored;
        _exit(70);
    }
}

struct hasher *hasher_new(void)
{
    struct hasher *hasher = mem_alloc(sizeof *hasher);

    hasher->context = EVP_MD_CTX_new();
    must(hasher->context && EVP_DigestInit_ex(hasher->context, EVP_sha256(), NULL) == 1);
    return hasher;
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
    memcpy(out->text, "sha256:", 7);
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

void digest_bytes(const void *data, size_t len, struct digest *out)
{
    struct hasher *hasher = hasher_new();

    hasher_update(hasher, data, len);
    hasher_finish(hasher, out);
}

int digest_file(int fd, struct digest *out, uint64_t *size, struct error *err)
{
    cleanup_free char *piece = mem_alloc(PIECE);
    struct hasher *hasher = hasher_new();
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

bool digest_valid(const char *text)
{
    if (!text || strncmp(text, "sha256:", 7) != 0)
        return false;
    return strlen(text) == 71 && strspn(text + 7, "0123456789abcdef") == 64;
}

void hmac_sha256(const void *key, size_t key_len, const void *data, size_t len, uint8_t out[32])
{
    unsigned out_len = 32;

    must(HMAC(EVP_sha256(), key, (int)key_len, data, len, out, &out_len) != NULL);
}
