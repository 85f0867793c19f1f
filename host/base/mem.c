#include "base/mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static _Noreturn void out_of_memory(void)
{
    static const char message[] = "mlhost: out of memory\n";

    if (write(STDERR_FILENO, message, sizeof message - 1) < 0)
        _exit(70);
    _exit(70);
}

void *mem_alloc(size_t size)
{
    void *block = calloc(1, size ? size : 1);

    if (!block)
        out_of_memory();
    return block;
}

void *mem_resize(void *block, size_t size)
{
    void *moved = realloc(block, size ? size : 1);

    if (!moved)
        out_of_memory();
    return moved;
}

void *mem_array(void *block, size_t count, size_t item_size)
{
    size_t size;

    if (__builtin_mul_overflow(count, item_size, &size))
        out_of_memory();
    return mem_resize(block, size);
}

static size_t pages(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t whole;

    if (__builtin_add_overflow(size, page - 1, &whole))
        out_of_memory();
    return whole / page * page;
}

void *mem_pages(void *block, size_t old_size, size_t size)
{
    if (!size) {
        if (block)
            munmap(block, pages(old_size));
        return NULL;
    }
    void *got =
        block ? mremap(block, pages(old_size), pages(size), MREMAP_MAYMOVE)
              : mmap(NULL, pages(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED)
        out_of_memory();
    return got;
}

void mem_unshare(void *block, size_t size)
{
    if (block)
        (void)madvise(block, pages(size), MADV_DONTFORK);
}

char *mem_strndup(const char *text, size_t len)
{
    char *copy = mem_alloc(len + 1);

    if (len)
        memcpy(copy, text, len);
    return copy;
}

char *mem_strdup(const char *text)
{
    return text ? mem_strndup(text, strlen(text)) : NULL;
}

char *mem_printf(const char *format, ...)
{
    va_list args;
    char *text = NULL;

    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        out_of_memory();
    va_end(args);
    return text;
}

void mem_cleanup(void *pointer_to_pointer)
{
    free(*(void **)pointer_to_pointer);
}

void fd_cleanup(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    errno = saved;
}

void file_cleanup(void *file)
{
    FILE *open_file = *(FILE **)file;

    if (open_file)
        fclose(open_file);
}

int steal_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}
