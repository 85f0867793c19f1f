#include "oci/build_before.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/value.h"

#define DEPTH_MAX 500
#define TICKS_MS  30 /* some of the kernel's clock: two changes in one have the same time */

struct before {
    struct value paths; /* -> state, as bytes; once seen a boolean: is it a folder now? */
};

struct state {
    uint64_t inode;
    int64_t seconds, nanoseconds;
    uint32_t mode, zero;
};

static struct state state_of(const struct stat *st)
{
    return (struct state){.inode = st->st_ino,
                          .seconds = st->st_ctim.tv_sec,
                          .nanoseconds = st->st_ctim.tv_nsec,
                          .mode = st->st_mode};
}

static int take(struct before *before, int fd, const char *path, int depth, struct error *err)
{
    int copy = depth > DEPTH_MAX ? -1 : openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    int status = 0;

    if (!folder) {
        if (copy >= 0)
            close(copy);
        return error_errno(err, depth > DEPTH_MAX ? ELOOP : errno, "cannot read /%s", path);
    }
    while (status == 0 && (entry = readdir(folder))) {
        const char *name = entry->d_name;
        struct stat st;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        cleanup_free char *below = *path ? mem_printf("%s/%s", path, name) : mem_strdup(name);
        if (fstatat(copy, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            status = error_errno(err, errno, "cannot read /%s", below);
            break;
        }
        struct state state = state_of(&st);
        value_set_bytes(value_put(&before->paths, below), &state, sizeof state);
        if (!S_ISDIR(st.st_mode))
            continue;
        cleanup_close int inner =
            openat(copy, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        status = inner < 0 ? error_errno(err, errno, "cannot read /%s", below)
                           : take(before, inner, below, depth + 1, err);
    }
    closedir(folder);
    return status;
}

struct before *before_take(const char *folder, struct error *err)
{
    struct before *before = mem_alloc(sizeof *before);

    value_set_map(&before->paths);
    cleanup_close int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        error_errno(err, errno, "cannot open %s", folder);
    if (fd < 0 || take(before, fd, "", 0, err) != 0) {
        before_free(before);
        return NULL;
    }
    poll(NULL, 0, TICKS_MS);
    return before;
}

void before_free(struct before *before)
{
    if (before)
        value_free(&before->paths);
    free(before);
}

bool before_same(struct before *before, const char *path, const struct stat *st)
{
    struct value *slot = value_get(&before->paths, path);
    struct state now = state_of(st);

    if (!slot || slot->kind != VALUE_STRING)
        return false;
    bool same = memcmp(slot->as.string.data, &now, sizeof now) == 0;
    value_free(slot);
    value_set_bool(slot, S_ISDIR(st->st_mode));
    return same;
}

int before_gone(struct before *before, before_gone_fn *fn, void *ctx)
{
    for (size_t i = 0; i < value_count(&before->paths); i++) {
        const struct value_pair *pair = &before->paths.as.map.pairs[i];
        if (pair->value.kind != VALUE_STRING)
            continue;
        const char *slash = strrchr(pair->key, '/');
        cleanup_free char *above =
            slash ? mem_strndup(pair->key, (size_t)(slash - pair->key)) : mem_strdup("");
        const struct value *folder = value_get(&before->paths, above);
        bool there = !slash || (folder && folder->kind == VALUE_BOOL && folder->as.boolean);
        if (there && fn(ctx, above, slash ? slash + 1 : pair->key) != 0)
            return -1;
    }
    return 0;
}
