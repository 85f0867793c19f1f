/*
 * Memory that is there, or a process that ends and says so.
 *
 * The host's own processes are small and bounded; when even they get no memory there is nothing
 * sensible left to do. So these never return NULL: they write "out of memory" to stderr and end the
 * process with status 70, which the supervisor reports as a crash of that one process. Script
 * memory is another matter: see vm/alloc.h (a hard budget).
 */
#ifndef MLHOST_BASE_MEM_H
#define MLHOST_BASE_MEM_H

#include <stddef.h>

void *mem_alloc(size_t size);               /* zeroed */
void *mem_resize(void *block, size_t size); /* realloc; new bytes are not zeroed */
void *mem_array(void *block, size_t count, size_t item_size); /* realloc with overflow check */
char *mem_strdup(const char *text);                           /* NULL stays NULL */
char *mem_strndup(const char *text, size_t len);              /* copies len bytes, adds NUL */
char *mem_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Zeroed pages of their own, for large tables. Grows what was got so (block NULL, old size 0: new);
 * a size of 0 gives it back. */
void *mem_pages(void *block, size_t old_size, size_t size);
/* Children that are forked from now on do not have the pages at all, so that a large table does not
 * make every fork slow. A child that looks there dies. */
void mem_unshare(void *block, size_t size);

/* Frees *pointer_to_pointer: the target of __attribute__((cleanup)). */
void mem_cleanup(void *pointer_to_pointer);
void fd_cleanup(int *fd);      /* closes unless -1; keeps errno */
void file_cleanup(void *file); /* FILE ** */

#define cleanup_free  __attribute__((cleanup(mem_cleanup)))
#define cleanup_close __attribute__((cleanup(fd_cleanup)))
#define cleanup_file  __attribute__((cleanup(file_cleanup)))

/* Takes the value out of a cleanup variable, leaving nothing behind to clean:
 * return steal_ptr(&p). */
#define steal_ptr(pp)                                                                              \
    (__extension__({                                                                               \
        __typeof__(*(pp)) stolen_ = *(pp);                                                         \
        *(pp) = NULL;                                                                              \
        stolen_;                                                                                   \
    }))
int steal_fd(int *fd);

#endif
