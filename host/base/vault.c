#include "base/vault.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"

#define CHUNK ((size_t)64 << 10)

struct chunk {
    struct chunk *next;
    char *data;
    size_t size, used;
    bool mapped;
};

struct vault {
    struct chunk *chunks;
};

struct vault *vault_new(void)
{
    return mem_alloc(sizeof(struct vault));
}

void vault_free(struct vault *vault)
{
    struct chunk *next;

    for (struct chunk *chunk = vault ? vault->chunks : NULL; chunk; chunk = next) {
        next = chunk->next;
        explicit_bzero(chunk->data, chunk->used);
        if (chunk->mapped)
            munmap(chunk->data, chunk->size);
        else
            free(chunk->data);
        free(chunk);
    }
    free(vault);
}

/* Each protection is a layer of its own: a kernel that refuses one does not cost the others. */
static struct chunk *chunk_new(size_t size)
{
    struct chunk *chunk = mem_alloc(sizeof *chunk);
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    chunk->size = size;
    chunk->mapped = pages != MAP_FAILED;
    if (!chunk->mapped) {
        chunk->data = mem_alloc(size); /* which ends the process when there is none either */
        return chunk;
    }
    (void)madvise(pages, size, MADV_DONTDUMP);
    (void)madvise(pages, size, MADV_WIPEONFORK);
    (void)mlock(pages, size);
    chunk->data = pages;
    return chunk;
}

char *vault_copy(struct vault *vault, const void *bytes, size_t len)
{
    struct chunk *chunk = vault->chunks;

    if (!chunk || chunk->size - chunk->used <= len) {
        chunk = chunk_new((len + CHUNK) / CHUNK * CHUNK);
        chunk->next = vault->chunks;
        vault->chunks = chunk;
    }
    char *copy = chunk->data + chunk->used;
    chunk->used += len + 1;
    if (len)
        memcpy(copy, bytes, len);
    copy[len] = '\0';
    return copy;
}
