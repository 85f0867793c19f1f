/* A growing byte buffer. data is always NUL-terminated one past len (when not NULL), so text can be
 * used as a C string. */
#ifndef MLHOST_BASE_BUF_H
#define MLHOST_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

struct buf {
    char *data;
    size_t len, room;
};
#define BUF_INIT                                                                                   \
    {                                                                                              \
        NULL, 0, 0                                                                                 \
    }

void buf_append(struct buf *buf, const void *data, size_t len);
void buf_puts(struct buf *buf, const char *text);
void buf_putc(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *buf, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
/* At least `extra` bytes of room after len; returns where to write. Raise len yourself. */
char *buf_reserve(struct buf *buf, size_t extra);
/* Drop the first n bytes. */
void buf_consume(struct buf *buf, size_t n);
void buf_clear(struct buf *buf); /* len = 0, memory stays */
void buf_free(struct buf *buf);
/* The bytes, now the caller's (never NULL); the buffer is empty again. */
char *buf_steal(struct buf *buf);
#define cleanup_buf __attribute__((cleanup(buf_free)))

/* Whole file, at most `limit` bytes (ERR_TOO_LARGE beyond). dirfd may be AT_FDCWD. */
int file_read(int dirfd, const char *path, size_t limit, struct buf *out, struct error *err);
/* Atomic: temporary file beside it, fsync when `sync`, rename. */
int file_write(int dirfd, const char *path, const void *data, size_t len, bool sync,
               struct error *err);
/* All bytes, or an error; retries short writes and EINTR. */
int fd_write_all(int fd, const void *data, size_t len, struct error *err);
/* mkdir -p, mode 0777 less umask. */
int dir_make(const char *path, struct error *err);
/* rm -rf without following links. A missing path is no error. */
int dir_remove(const char *path, struct error *err);
/* a + "/" + b, freshly allocated; b alone when it is absolute. */
char *path_join(const char *a, const char *b);

#endif
