/* Unpacked layers and images that nobody used for a while. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/store_gc.h"

#define MOUNTS_LIMIT (4u << 20) /* bytes of one process's list of mounts */
#define DEPTH_MAX    256        /* a descriptor each */

static bool folder_name(const char *name)
{
    size_t len = strlen(name);

    return len >= 32 && len <= 64 && strspn(name, "0123456789abcdef") == len;
}

/* Every process has a list of mounts of its own: a task's or a build step's are in nobody else's.
 * Which lists could not be read belong to users whose processes do not use our folders. */
static void read_mounts(struct buf *out)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;

    while (processes && (entry = readdir(processes))) {
        if (strspn(entry->d_name, "0123456789") != strlen(entry->d_name))
            continue;
        cleanup_free char *path = mem_printf("/proc/%s/mountinfo", entry->d_name);
        cleanup_buf struct buf mounts = BUF_INIT;
        if (file_read(AT_FDCWD, path, MOUNTS_LIMIT, &mounts, NULL) == 0 &&
            !(out->len && memmem(out->data, out->len, mounts.data, mounts.len)))
            buf_append(out, mounts.data, mounts.len);
    }
    if (processes)
        closedir(processes);
}

/* Bytes on disk below a folder. */
static uint64_t folder_size(int at, const char *name, int depth)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    struct stat st;
    uint64_t total = 0;

    if (!folder) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    while (depth < DEPTH_MAX && (entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        total += S_ISDIR(st.st_mode)
                     ? folder_size(fd, entry->d_name, depth + 1)
                     : (uint64_t)st.st_blocks * 512 / (st.st_nlink ? st.st_nlink : 1);
    }
    closedir(folder);
    return total;
}

/* 1 gone (or would be), 0 stays. */
static int collect(int root, const char *root_path, const char *name, time_t cutoff,
                   const struct buf *mounts, bool dry_run, uint64_t *bytes, struct error *err)
{
    cleanup_free char *lock_name = mem_printf("%s.lock", name),
                      *part = mem_printf("%s/%s.part", root_path, name),
                      *part_name = mem_printf("%s.part", name);
    struct stat st;

    if (mounts->len && memmem(mounts->data, mounts->len, name, strlen(name)))
        return 0;
    cleanup_close int lock =
        openat(root, lock_name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0)
        return error_errno(err, errno, "cannot open %s/%s", root_path, lock_name);
    /* Somebody is at it. */
    if (flock(lock, LOCK_EX | LOCK_NB) < 0)
        return 0;
    if (fstat(lock, &st) < 0 || st.st_mtime >= cutoff)
        return 0;
    *bytes = folder_size(root, name, 0);
    if (dry_run)
        return 1;
    /* First away from its name: half a folder must never be found under it. */
    if (dir_remove(part, err) != 0)
        return -1;
    if (renameat(root, name, root, part_name) < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "cannot move %s/%s", root_path, name);
    return dir_remove(part, err) == 0 ? 1 : -1;
}

int store_gc_folders(const char *root, const char *kind, const struct store_gc_options *options,
                     struct store_gc_count *out, struct error *err)
{
    int64_t grace = options->grace_s < STORE_GC_MIN_S ? STORE_GC_MIN_S : options->grace_s;
    time_t cutoff = time(NULL) - (time_t)grace;
    cleanup_buf struct buf mounts = BUF_INIT;
    DIR *folder = opendir(root);
    struct dirent *entry;
    int status = 0;

    if (!folder)
        return errno == ENOENT ? 0 : error_errno(err, errno, "cannot list %s", root);
    read_mounts(&mounts);
    while (status >= 0 && (entry = readdir(folder))) {
        uint64_t bytes = 0;
        if (!folder_name(entry->d_name))
            continue;
        if (store_gc_stopped(options, err) != 0) {
            status = -1;
            break;
        }
        status = collect(dirfd(folder), root, entry->d_name, cutoff, &mounts, options->dry_run,
                         &bytes, err);
        if (status <= 0)
            continue;
        out->count++;
        out->bytes += bytes;
        if (options->each)
            options->each(options->ctx, kind, entry->d_name, bytes);
    }
    closedir(folder);
    return status < 0 ? -1 : 0;
}
