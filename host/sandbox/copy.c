/* A copy of a folder, for where an overlay cannot be had: on file systems that share blocks it
 * costs no space either. */
#include "sandbox/plan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

#define DEPTH_MAX 200
#define CHUNK     ((size_t)1 << 30)
#define PIECE     ((size_t)128 << 10)

static void folder_cleanup(DIR **folder)
{
    if (*folder)
        closedir(*folder);
}

static int copy_bytes(int from, int to)
{
    ssize_t n;

    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    while ((n = copy_file_range(from, NULL, to, NULL, CHUNK, 0)) > 0)
        ;
    if (n == 0)
        return 0;
    /* Not between these file systems: both positions are where it stopped. */
    cleanup_free char *piece = mem_alloc(PIECE);
    while ((n = read(from, piece, PIECE)) > 0) {
        if (fd_write_all(to, piece, (size_t)n, NULL) < 0)
            return -1;
    }
    return n < 0 ? -1 : 0;
}

/* Owner before mode: a change of owner clears setuid bits. Only root can give files away. */
static int keep_attributes(int folder, const char *name, const struct stat *st)
{
    const struct timespec times[2] = {st->st_atim, st->st_mtim};

    if (geteuid() == 0 && fchownat(folder, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if (!S_ISLNK(st->st_mode) && fchmodat(folder, name, st->st_mode & 07777, 0) < 0)
        return -1;
    return utimensat(folder, name, times, AT_SYMLINK_NOFOLLOW);
}

static int copy_file(int from_folder, int to_folder, const char *name)
{
    cleanup_close int from = openat(from_folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    cleanup_close int to =
        from < 0 ? -1 : openat(to_folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    return to < 0 ? -1 : copy_bytes(from, to);
}

static int copy_link(int from_folder, int to_folder, const char *name)
{
    char target[4097];
    ssize_t n = readlinkat(from_folder, name, target, sizeof target - 1);

    if (n < 0)
        return -1;
    target[n] = '\0';
    return symlinkat(target, to_folder, name);
}

static int copy_entries(int from_fd, int to_fd, int depth);

static int copy_folder(int from_folder, int to_folder, const char *name, int depth)
{
    if (depth > DEPTH_MAX) {
        errno = ELOOP;
        return -1;
    }
    if (mkdirat(to_folder, name, 0700) < 0)
        return -1;
    cleanup_close int from =
        openat(from_folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    cleanup_close int to = openat(to_folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return from < 0 || to < 0 ? -1 : copy_entries(from, to, depth + 1);
}

static int copy_one(int from_folder, int to_folder, const char *name, int depth)
{
    struct stat st;
    int rc;

    if (fstatat(from_folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if (S_ISREG(st.st_mode))
        rc = copy_file(from_folder, to_folder, name);
    else if (S_ISLNK(st.st_mode))
        rc = copy_link(from_folder, to_folder, name);
    else if (S_ISDIR(st.st_mode))
        rc = copy_folder(from_folder, to_folder, name, depth);
    else
        return 0; /* devices, pipes and sockets are no part of an image's files */
    return rc < 0 ? -1 : keep_attributes(to_folder, name, &st);
}

static int copy_entries(int from_fd, int to_fd, int depth)
{
    __attribute__((cleanup(folder_cleanup))) DIR *folder = fdopendir(dup(from_fd));

    if (!folder)
        return -1;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(folder);
        if (!entry)
            return errno ? -1 : 0;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (copy_one(from_fd, to_fd, entry->d_name, depth) < 0)
            return -1;
    }
}

static bool is_empty(const char *path)
{
    __attribute__((cleanup(folder_cleanup))) DIR *folder = opendir(path);
    int entries = 0;

    while (folder && readdir(folder))
        entries++;
    return entries <= 2;
}

int folder_copy(const char *from, const char *to, struct error *err)
{
    if (!is_empty(to))
        return 0;
    cleanup_close int from_fd = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (from_fd < 0)
        return error_errno(err, errno, "sandbox: cannot open %s", from);
    cleanup_close int to_fd = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (to_fd < 0)
        return error_errno(err, errno, "sandbox: cannot open %s", to);
    if (copy_entries(from_fd, to_fd, 0) == 0)
        return 0;
    return error_errno(err, errno, "sandbox: cannot copy %s to %s, as no overlay can be had here",
                       from, to);
}
