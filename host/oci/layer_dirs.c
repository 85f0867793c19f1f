#include "oci/layer_dirs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/store_internal.h"
#include "sandbox/sandbox.h"

#define LOOK_MS 20

char *layer_dirs_root(struct store *store, struct error *err)
{
    static const char *const names[] = {[SANDBOX_IDS_ALL] = "layers",
                                        [SANDBOX_IDS_SOME] = "layers-user",
                                        [SANDBOX_IDS_ONE] = "layers-one"};
    const char *name = names[sandbox_ids()];

    if (mkdirat(store->dir, name, 0700) < 0 && errno != EEXIST) {
        error_errno(err, errno, "cannot make the folder %s/%s", store->root, name);
        return NULL;
    }
    return path_join(store->root, name);
}

static void name_of(const char *diff_id, char name[LAYER_DIR_NAME])
{
    snprintf(name, LAYER_DIR_NAME, "%.32s", diff_id + strlen("sha256:"));
}

/* The kernel tells nobody when a lock becomes free but those who block for it, deaf for a cancel:
 * so it is looked at. */
static int lock(int fd, const char *name, const struct unpack_options *options, struct error *err)
{
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return error_errno(err, errno, "cannot lock the layer %s", name);
        if (cancelled(options->cancel))
            return error_set(err, ERR_CANCELLED, "the build was cancelled");
        if (options->deadline && deadline_passed(options->deadline))
            return error_set(err, ERR_TIMEOUT, "another build is still unpacking the layer %s",
                             name);
        poll(NULL, 0, LOOK_MS);
    }
    return 0;
}

static int unpack(struct store *store, const char *root, int folder, const char *name,
                  const char *digest, const char *diff_id, const struct unpack_options *options,
                  struct error *err)
{
    cleanup_free char *part = mem_printf("%s.part", name);
    cleanup_free char *path = path_join(root, part);
    struct unpack_options own = *options;

    own.overlay = true;
    cleanup_close int blob = store_blob_open(store, digest, NULL, err);
    if (blob < 0 || dir_remove(path, err) != 0)
        return -1;
    if (mkdirat(folder, part, 0755) < 0 || fchmodat(folder, part, 0755, 0) < 0)
        return error_errno(err, errno, "cannot make the folder %s", path);
    cleanup_close int to = openat(folder, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (to < 0)
        return error_errno(err, errno, "cannot open %s", path);
    if (oci_unpack_layer(blob, to, digest, diff_id, true, &own, err) != 0) {
        dir_remove(path, NULL);
        return error_wrap(err, "layer %s", digest);
    }
    return renameat(folder, part, folder, name) < 0
               ? error_errno(err, errno, "cannot rename %s", path)
               : 0;
}

int layer_dir_make(struct store *store, const char *root, const char *digest, const char *diff_id,
                   const struct unpack_options *options, char name[LAYER_DIR_NAME],
                   struct error *err)
{
    struct stat st;

    if (!digest_valid(diff_id))
        return error_set(err, ERR_INVALID, "layer %s: '%.80s' is no diff id", digest, diff_id);
    name_of(diff_id, name);
    cleanup_close int folder = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return error_errno(err, errno, "cannot open %s", root);
    cleanup_free char *lock_name = mem_printf("%s.lock", name);
    cleanup_close int held = openat(folder, lock_name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (held < 0)
        return error_errno(err, errno, "cannot open %s/%s", root, lock_name);
    if (lock(held, name, options, err) != 0)
        return -1;
    futimens(held, NULL); /* in use: store_gc_folders leaves it alone */
    return fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0
               ? 0
               : unpack(store, root, folder, name, digest, diff_id, options, err);
}

void layer_dir_adopt(const char *root, const char *diff_id, const char *folder)
{
    char name[LAYER_DIR_NAME];

    name_of(diff_id, name);
    cleanup_free char *to = path_join(root, name);
    (void)renameat2(AT_FDCWD, folder, AT_FDCWD, to, RENAME_NOREPLACE);
}
