/*
 * The job "digest": one text for the content of a file or folder, whatever its owners and times.
 *
 * A file's is its SHA-256. A folder's is the SHA-256 over one line per entry, sorted by name: kind,
 * mode's x bit, name, and the entry's own digest (a link's is that of its target text). Links are
 * never followed.
 */
#include "local/runner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/mem.h"

#define DEPTH_MAX 100

struct names {
    char **items;
    size_t count;
};

static void names_free(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i]);
    free(names->items);
}
#define cleanup_names __attribute__((cleanup(names_free)))

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int names_read(int dir_fd, struct names *out, struct error *err)
{
    int copy = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);

    if (!dir) {
        fd_cleanup(&copy);
        return error_errno(err, errno, "cannot read a folder of an artifact");
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        out->items = mem_array(out->items, out->count + 1, sizeof *out->items);
        out->items[out->count++] = mem_strdup(entry->d_name);
    }
    closedir(dir);
    if (out->count)
        qsort(out->items, out->count, sizeof *out->items, by_name);
    return 0;
}

static int digest_at(int dir_fd, const char *name, int depth, struct digest *out,
                     struct error *err);

static int digest_folder(int fd, int depth, struct digest *out, struct error *err)
{
    cleanup_names struct names names = {NULL, 0};
    cleanup_buf struct buf lines = BUF_INIT;

    if (depth > DEPTH_MAX)
        return error_set(err, ERR_TOO_LARGE, "an artifact is nested more than %d folders deep",
                         DEPTH_MAX);
    if (names_read(fd, &names, err) < 0)
        return -1;
    for (size_t i = 0; i < names.count; i++) {
        struct digest inner;
        struct stat st;
        if (fstatat(fd, names.items[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
            return error_errno(err, errno, "cannot look at %s of an artifact", names.items[i]);
        if (digest_at(fd, names.items[i], depth + 1, &inner, err) < 0)
            return -1;
        buf_printf(&lines, "%o %d %zu:%s %s\n", (unsigned)(st.st_mode & S_IFMT),
                   (st.st_mode & 0100) != 0, strlen(names.items[i]), names.items[i], inner.text);
    }
    digest_bytes(lines.data ? lines.data : "", lines.len, out);
    return 0;
}

static int digest_at(int dir_fd, const char *name, int depth, struct digest *out, struct error *err)
{
    struct stat st;
    char target[4096];

    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "cannot look at %s", name);
    if (S_ISLNK(st.st_mode)) {
        ssize_t len = readlinkat(dir_fd, name, target, sizeof target);
        if (len < 0)
            return error_errno(err, errno, "cannot read the link %s", name);
        digest_bytes(target, (size_t)len, out);
        return 0;
    }
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        digest_bytes("", 0, out); /* a socket, a pipe: nothing to read */
        return 0;
    }
    cleanup_close int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "cannot open %s", name);
    return S_ISDIR(st.st_mode) ? digest_folder(fd, depth, out, err)
                               : digest_file(fd, out, NULL, err);
}

void runner_job_digest(const struct value *spec, struct value *out)
{
    struct digest digest;
    struct error err = {0};

    value_set_map(out);
    if (digest_at(AT_FDCWD, value_get_string(spec, "path", ""), 0, &digest, &err) < 0)
        value_put_string(out, "error", err.message);
    else
        value_put_string(out, "digest", digest.text);
}
