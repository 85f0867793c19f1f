#include "oci/build_run_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/mem.h"
#include "oci/build_run_mount.h"

#define LOOK_MS     20
#define PRIVATE_MAX 1000 /* builds at once with a private cache of the same id */

static int made(int status, const char *path, struct error *err)
{
    return status < 0 && errno != EEXIST
               ? error_errno(err, errno, "cannot make the folder %s", path)
               : 0;
}

/* The lock file of folder cache.<name>; -1 with an error. */
static int open_lock(const char *folder, struct error *err)
{
    cleanup_free char *path = path_join(folder, "lock");

    if (made(mkdir(folder, 0700), folder, err) != 0)
        return -1;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return fd < 0 ? error_errno(err, errno, "cannot open %s", path) : fd;
}

static int wait_lock(int fd, int how, int64_t deadline, const struct cancel *cancel,
                     struct error *err)
{
    while (flock(fd, how | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return error_errno(err, errno, "cannot lock a cache");
        if (cancelled(cancel))
            return error_set(err, ERR_CANCELLED, "the build was cancelled");
        if (deadline && deadline_passed(deadline))
            return error_set(err, ERR_TIMEOUT, "another build has the cache");
        poll(NULL, 0, LOOK_MS);
    }
    return 0;
}

/* The first private one that nobody has. */
static int take_private(const char *base, char **folder, struct error *err)
{
    for (int n = 0; n < PRIVATE_MAX; n++) {
        cleanup_free char *path = n ? mem_printf("%s.%d", base, n) : mem_strdup(base);
        cleanup_close int fd = open_lock(path, err);
        if (fd < 0)
            return -1;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            *folder = steal_ptr(&path);
            return steal_fd(&fd);
        }
    }
    return error_set(err, ERR_TOO_LARGE, "more than %d builds use a private cache of this id",
                     PRIVATE_MAX);
}

/* Mode and owner are those of whoever makes it. */
static int make_data(struct run_cache *cache, const struct value *spec, struct error *err)
{
    struct stat st;

    if (made(mkdir(cache->work, 0700), cache->work, err) != 0)
        return -1;
    if (lstat(cache->folder, &st) == 0)
        return 0;
    cleanup_free char *part = mem_printf("%s.part", cache->folder);
    if (made(mkdir(part, 0700), part, err) != 0)
        return -1;
    uid_t uid = (uid_t)value_get_int(spec, "uid", 0);
    gid_t gid = (gid_t)value_get_int(spec, "gid", 0);
    if (((uid || gid) && chown(part, uid, gid) < 0) ||
        chmod(part, (mode_t)value_get_int(spec, "mode", 0755)) < 0)
        return error_errno(err, errno, "cannot give the cache to %u:%u", uid, gid);
    if (rename(part, cache->folder) < 0 && errno != EEXIST && errno != ENOTEMPTY &&
        lstat(cache->folder, &st) < 0)
        return error_errno(err, errno, "cannot make %s", cache->folder);
    return 0;
}

int run_cache_open(const char *root, const struct value *spec, int64_t deadline,
                   const struct cancel *cancel, struct run_cache *out, struct error *err)
{
    int64_t sharing = value_get_int(spec, "sharing", RUN_SHARED);
    const char *name = value_get_string(spec, "name", "");
    struct digest digest;

    *out = (struct run_cache){.lock = -1};
    digest_bytes(name, strlen(name), &digest);
    cleanup_free char *base = mem_printf("%s/cache.%.32s", root, digest.text + strlen("sha256:"));
    cleanup_free char *folder = NULL;
    if (sharing == RUN_PRIVATE) {
        out->lock = take_private(base, &folder, err);
        if (out->lock < 0)
            return -1;
    } else {
        folder = steal_ptr(&base);
        out->lock = open_lock(folder, err);
        if (out->lock < 0 || wait_lock(out->lock, sharing == RUN_LOCKED ? LOCK_EX : LOCK_SH,
                                       deadline, cancel, err) != 0)
            return -1;
    }
    out->folder = path_join(folder, "data");
    out->work = path_join(folder, "work");
    return make_data(out, spec, err);
}

void run_cache_end(struct run_cache *cache)
{
    if (cache->lock >= 0)
        close(cache->lock);
    free(cache->folder);
    free(cache->work);
    *cache = (struct run_cache){.lock = -1};
}
