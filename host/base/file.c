/* Files and folders: the small helpers that buf.h declares. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

int file_read(int dirfd, const char *path, size_t limit, struct buf *out, struct error *err)
{
    cleanup_close int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return error_errno(err, errno, "cannot open %s", path);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_errno(err, errno, "cannot read %s", path);
    if (S_ISDIR(st.st_mode))
        return error_set(err, ERR_INVALID, "%s is a folder, a file is needed", path);
    size_t start = out->len;
    for (;;) {
        size_t room = 64 * 1024;
        if (S_ISREG(st.st_mode) && (size_t)st.st_size > out->len - start)
            room = (size_t)st.st_size - (out->len - start) + 1;
        if (room > limit - (out->len - start) + 1)
            room = limit - (out->len - start) + 1;
        ssize_t n = read(fd, buf_reserve(out, room), room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "cannot read %s", path);
        if (n == 0)
            return 0;
        out->len += (size_t)n;
        out->data[out->len] = '\0';
        if (out->len - start > limit)
            return error_set(err, ERR_TOO_LARGE, "%s is larger than %zu bytes", path, limit);
    }
}

int fd_write_all(int fd, const void *data, size_t len, struct error *err)
{
    const char *from = data;

    while (len) {
        ssize_t n = write(fd, from, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "cannot write");
        from += n;
        len -= (size_t)n;
    }
    return 0;
}

int file_write(int dirfd, const char *path, const void *data, size_t len, bool sync,
               struct error *err)
{
    static atomic_uint serial;
    cleanup_free char *temporary =
        mem_printf("%s.%ld.%u.tmp", path, (long)getpid(), atomic_fetch_add(&serial, 1));
    cleanup_close int fd =
        openat(dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);

    if (fd < 0)
        return error_errno(err, errno, "cannot create %s", temporary);
    if (fd_write_all(fd, data, len, err) < 0) {
        error_wrap(err, "%s", path);
        goto undo;
    }
    if (sync && fsync(fd) < 0) {
        error_errno(err, errno, "cannot sync %s", path);
        goto undo;
    }
    if (renameat(dirfd, temporary, dirfd, path) < 0) {
        error_errno(err, errno, "cannot replace %s", path);
        goto undo;
    }
    return 0;
undo:
    unlinkat(dirfd, temporary, 0);
    return -1;
}

int dir_make(const char *path, struct error *err)
{
    cleanup_free char *copy = mem_strdup(path);
    struct stat st;

    for (char *p = copy + 1; *copy; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char end = *p;
        *p = '\0';
        if (mkdir(copy, 0777) < 0 && errno != EEXIST) {
            /* Some mounts answer EROFS or EACCES for a folder that is there. */
            int why = errno;
            if (stat(copy, &st) < 0 || !S_ISDIR(st.st_mode))
                return error_errno(err, why, "cannot make folder %s", copy);
        }
        *p = end;
        if (!end)
            break;
    }
    if (stat(path, &st) < 0)
        return error_errno(err, errno, "cannot make folder %s", path);
    if (!S_ISDIR(st.st_mode))
        return error_errno(err, ENOTDIR, "cannot make folder %s", path);
    return 0;
}

/* A folder of ours whose mode keeps even us out, such as an overlay's work folder or what a task
 * left behind. */
static int open_closed(int dirfd, const char *name)
{
    char link[40];
    cleanup_close int fd = openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (fd < 0 || chmod(link, 0700) < 0)
        return -1;
    return openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static int remove_under(int dirfd, const char *name, const char *shown, struct error *err)
{
    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return error_errno(err, errno, "cannot remove %s", shown);
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == EACCES)
        fd = open_closed(dirfd, name);
    if (fd < 0)
        return error_errno(err, errno, "cannot remove %s", shown);
    struct stat st;
    if (fstat(fd, &st) == 0 && !(st.st_mode & S_IWUSR))
        (void)fchmod(
            fd,
            0700); /* entries of a read-only folder cannot be removed; what fails then says so */
    DIR *dir = fdopendir(fd);
    if (!dir) {
        int why = errno;
        close(fd);
        return error_errno(err, why, "cannot remove %s", shown);
    }
    int status = 0;
    struct dirent *entry;
    while (status == 0 && (entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        cleanup_free char *below = path_join(shown, entry->d_name);
        status = remove_under(fd, entry->d_name, below, err);
    }
    closedir(dir);
    if (status == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return error_errno(err, errno, "cannot remove %s", shown);
    return status;
}

int dir_remove(const char *path, struct error *err)
{
    return remove_under(AT_FDCWD, path, path, err);
}

char *path_join(const char *a, const char *b)
{
    if (b[0] == '/')
        return mem_strdup(b);
    size_t len = strlen(a);
    return mem_printf("%s%s%s", a, len && a[len - 1] == '/' ? "" : "/", b);
}
