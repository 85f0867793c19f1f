#include "local/k8s_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/mem.h"

#define OBJECT_LIMIT (64u << 20)
#define NAME_LIMIT   200 /* of a file's name, less than NAME_MAX by the temporary suffix */
#define RESERVE_FILE "version"
#define CLUSTER      "_" /* the namespace of what has none */

char *k8s_file_path(const char *resource, const char *namespace, const char *name)
{
    const char *folder = *namespace ? namespace : CLUSTER;
    struct digest digest;

    if (strlen(name) <= NAME_LIMIT)
        return mem_printf("%s/%s/%s.json", resource, folder, name);
    digest_bytes(name, strlen(name), &digest);
    return mem_printf("%s/%s/%.120s~%s.json", resource, folder, name,
                      digest.text + strlen("sha256:"));
}

/* ---- writing ---- */

/* The folder of path, made; synced with the one above it when it is new. */
static int open_folder(int root, const char *path, const char **last, struct error *err)
{
    cleanup_close int at = fcntl(root, F_DUPFD_CLOEXEC, 0);

    for (;;) {
        size_t len = strcspn(path, "/");
        char part[256];
        if (at < 0)
            return error_errno(err, errno, "cannot open the folder of %s", path);
        if (!path[len]) {
            *last = path;
            return steal_fd(&at);
        }
        if (len >= sizeof part)
            return error_set(err, ERR_INVALID, "%.60s... is too long a name", path);
        memcpy(part, path, len);
        part[len] = '\0';
        if (mkdirat(at, part, 0700) == 0) {
            if (fsync(at) < 0)
                return error_errno(err, errno, "cannot sync the folder of %s", part);
        } else if (errno != EEXIST) {
            return error_errno(err, errno, "cannot make folder %s", part);
        }
        int next = openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(at);
        at = next;
        path += len + 1;
    }
}

static int write_synced(int at, const char *name, const void *data, size_t len, struct error *err)
{
    static atomic_uint serial;
    cleanup_free char *temporary =
        mem_printf("%s.%ld.%u.tmp", name, (long)getpid(), atomic_fetch_add(&serial, 1));
    cleanup_close int fd =
        openat(at, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return error_errno(err, errno, "cannot create %s", temporary);
    if (fd_write_all(fd, data, len, err) < 0) {
        error_wrap(err, "%s", name);
    } else if (fsync(fd) < 0) {
        error_errno(err, errno, "cannot sync %s", name);
    } else if (renameat(at, temporary, at, name) < 0) {
        error_errno(err, errno, "cannot replace %s", name);
    } else if (fsync(at) < 0) {
        return error_errno(err, errno, "cannot sync the folder of %s", name);
    } else {
        return 0;
    }
    unlinkat(at, temporary, 0);
    return -1;
}

int k8s_file_write(int root, const char *path, const struct value *object, struct error *err)
{
    const char *last;
    cleanup_close int at = open_folder(root, path, &last, err);
    cleanup_buf struct buf text = BUF_INIT;

    if (at < 0)
        return -1;
    value_to_json(object, TEXT_PRETTY, &text);
    buf_putc(&text, '\n');
    return write_synced(at, last, text.data, text.len, err);
}

int k8s_file_remove(int root, const char *path, struct error *err)
{
    const char *last;
    cleanup_close int at = open_folder(root, path, &last, err);

    if (at < 0)
        return -1;
    if (unlinkat(at, last, 0) < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "cannot remove %s", path);
    return fsync(at) < 0 ? error_errno(err, errno, "cannot sync the folder of %s", path) : 0;
}

/* ---- the counter ---- */

int k8s_reserve_read(int root, uint64_t *reserve, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct error why = {0};
    char *end;

    *reserve = 0;
    if (file_read(root, RESERVE_FILE, 64, &text, &why) < 0) {
        if (why.code == ERR_NOT_FOUND)
            return 0;
        if (err)
            *err = why;
        return -1;
    }
    errno = 0;
    *reserve = strtoull(text.data ? text.data : "", &end, 10);
    if (errno || !text.len || *end != '\n')
        return error_set(err, ERR_INVALID, "%s does not hold a number", RESERVE_FILE);
    return 0;
}

int k8s_reserve_write(int root, uint64_t reserve, struct error *err)
{
    cleanup_free char *text = mem_printf("%" PRIu64 "\n", reserve);

    return write_synced(root, RESERVE_FILE, text, strlen(text), err);
}

/* ---- reading ---- */

static DIR *list_folder(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (fd >= 0 && !dir)
        close(fd);
    return dir;
}

static void close_list(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}
#define cleanup_dir __attribute__((cleanup(close_list)))

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), n = strlen(end);

    return len > n && strcmp(text + len - n, end) == 0;
}

typedef int (*each_object)(void *context, const char *resource, struct value *object,
                           struct error *err);

static int read_namespace(int at, const char *folder, const char *shown, const char *resource,
                          each_object each, void *context, struct error *err)
{
    cleanup_dir DIR *dir = list_folder(at, folder);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        cleanup_buf struct buf text = BUF_INIT;
        cleanup_value struct value object = {0};
        if (ends_with(entry->d_name, ".tmp")) {
            unlinkat(dirfd(dir), entry->d_name, 0);
            continue;
        }
        if (!ends_with(entry->d_name, ".json"))
            continue;
        cleanup_free char *source =
            mem_printf("%s/%s/%s/%s", shown, resource, folder, entry->d_name);
        if (file_read(dirfd(dir), entry->d_name, OBJECT_LIMIT, &text, err) < 0 ||
            value_from_json(text.data ? text.data : "", text.len, source, NULL, &object, err) < 0 ||
            each(context, resource, &object, err) < 0) {
            error_wrap(err, "%s", source);
            return error_hint(err, "put the file right, or remove it and apply the object again");
        }
    }
    return 0;
}

int k8s_files_read(int root, const char *shown, each_object each, void *context, struct error *err)
{
    cleanup_dir DIR *resources = list_folder(root, ".");
    const struct dirent *resource, *namespace;

    if (!resources)
        return error_errno(err, errno, "cannot list %s", shown);
    while ((resource = readdir(resources))) {
        if (ends_with(resource->d_name, ".tmp")) {
            unlinkat(root, resource->d_name, 0);
            continue;
        }
        cleanup_dir DIR *namespaces =
            resource->d_name[0] == '.' ? NULL : list_folder(root, resource->d_name);
        while (namespaces && (namespace = readdir(namespaces))) {
            if (namespace->d_name[0] != '.' &&
                read_namespace(dirfd(namespaces), namespace->d_name, shown, resource->d_name, each,
                               context, err) < 0)
                return -1;
        }
    }
    return 0;
}
