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
#include "oci/tree.h"
#include "oci/unpack_internal.h"
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

/* One folder. *odd: the layer has entries whose folders are not in it, which its lock file tells
 * from then on. */
static int make(struct store *store, const char *root, const char *name, const char *digest,
                const char *diff_id, const struct unpack_options *options, bool *odd,
                struct error *err)
{
    struct unpack_options own = *options;
    struct stat st;

    own.implied = odd;
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
    *odd = fstat(held, &st) == 0 && st.st_size > 0;
    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    if (unpack(store, root, folder, name, digest, diff_id, &own, err) != 0)
        return -1;
    if (*odd && pwrite(held, "odd\n", 4, 0) != 4)
        return error_errno(err, errno, "cannot write %s/%s", root, lock_name);
    return 0;
}

static const char *text_of(const struct value *layers, size_t i, const char *key)
{
    return value_get_string(value_at(layers, i), key, "");
}

static int add_below(struct store *store, const struct value *layers, size_t end,
                     struct tree *below, struct error *err)
{
    for (size_t i = (size_t)below->layers; i < end; i++) {
        cleanup_close int fd = store_blob_open(store, text_of(layers, i, "digest"), NULL, err);
        if (fd < 0 || tree_add_layer(below, fd, err) != 0)
            return error_wrap(err, "layer %s", text_of(layers, i, "digest"));
    }
    return 0;
}

/* Layer i. One that is odd has a folder for each set of layers that it lies on. */
static int make_layer(struct store *store, const char *root, const struct value *layers, size_t i,
                      const struct unpack_options *options, struct tree *below,
                      char name[LAYER_DIR_NAME], struct error *err)
{
    const char *digest = text_of(layers, i, "digest"), *diff_id = text_of(layers, i, "diff_id");
    struct unpack_options own = *options;
    cleanup_buf struct buf chain = BUF_INIT;
    struct digest sum;
    bool odd = false;

    if (!digest_valid(diff_id))
        return error_set(err, ERR_INVALID, "layer %s: '%.80s' is no diff id", digest, diff_id);
    name_of(diff_id, name);
    if (make(store, root, name, digest, diff_id, options, &odd, err) != 0)
        return -1;
    if (!odd || i == 0)
        return 0;
    if (add_below(store, layers, i, below, err) != 0)
        return -1;
    for (size_t k = 0; k <= i; k++)
        buf_printf(&chain, "%s\n", text_of(layers, k, "diff_id"));
    digest_bytes(chain.data, chain.len, &sum);
    name_of(sum.text, name);
    own.below = below;
    return make(store, root, name, digest, diff_id, &own, &odd, err);
}

int layer_dirs_make(struct store *store, const char *root, const struct value *layers,
                    const struct unpack_options *options, struct strings *names, struct error *err)
{
    size_t count = value_count(layers);
    cleanup_value struct value made = {0};
    struct tree below = {0};
    int status = 0;

    value_set_array(&made);
    for (size_t i = 0; status == 0 && i < count; i++) {
        char name[LAYER_DIR_NAME];
        status = make_layer(store, root, layers, i, options, &below, name, err);
        value_push_string(&made, name);
    }
    tree_free(&below);
    for (size_t i = count; status == 0 && i-- > 0;) {
        const char *name = value_text(value_at(&made, i), "");
        cleanup_free char *path = path_join(root, name);
        bool again = false; /* one that lies further up hides itself below */
        for (size_t k = 0; k < names->count && !again; k++)
            again = strcmp(names->items[k], name) == 0;
        if (!again)
            strings_add(names, mem_strdup(name));
        if (unpack_overlay_is_opaque(path))
            break;
    }
    return status;
}

void layer_dir_adopt(const char *root, const char *diff_id, const char *folder)
{
    char name[LAYER_DIR_NAME];

    name_of(diff_id, name);
    cleanup_free char *to = path_join(root, name);
    cleanup_free char *lock_name = mem_printf("%s.lock", to);
    /* Its use is as old as this file (store_gc.h). */
    cleanup_close int used = open(lock_name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (used >= 0)
        futimens(used, NULL);
    (void)renameat2(AT_FDCWD, folder, AT_FDCWD, to, RENAME_NOREPLACE);
}
