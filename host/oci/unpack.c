#include "oci/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/inflate.h"
#include "oci/manifest.h"
#include "oci/path_set.h"
#include "oci/unpack_internal.h"

#define DEFAULT_BYTES   (UINT64_C(64) << 30)
#define DEFAULT_ENTRIES UINT64_C(4000000)
#define WHITEOUT        ".wh."
#define OPAQUE          ".wh..wh..opq"

/* A text of a header: as bytes, or, where this locale has no such characters, as the UTF-8 that it
 * is. */
#define HEADER_TEXT(entry, field)                                                                  \
    (archive_entry_##field(entry) ? archive_entry_##field(entry)                                   \
                                  : archive_entry_##field##_utf8(entry))

struct unpacker {
    struct unpack_place place;
    bool whiteouts;
    bool as_root;
    bool overlay, attributes;
    uint64_t bytes_left, entries_left;
    int64_t deadline;
    const struct cancel *cancel;
    struct inflater *inflater;
    struct path_set made; /* by this layer: whiteouts concern the layers below only */
    char *folder;  /* the one that the last entry was in, and its descriptor: it leads there */
    int folder_fd; /* until something is removed */
    bool folder_stale;
    struct error *err; /* of the read callback, which libarchive calls */
    bool read_failed;
};

static int go_on(const struct unpacker *unpacker, struct error *err)
{
    if (cancelled(unpacker->cancel))
        return error_set(err, ERR_CANCELLED, "unpacking was cancelled");
    if (unpacker->deadline && deadline_passed(unpacker->deadline))
        return error_set(err, ERR_TIMEOUT, "unpacking took too long");
    return 0;
}

static la_ssize_t read_piece(struct archive *archive, void *ctx, const void **data)
{
    struct unpacker *unpacker = ctx;

    (void)archive;
    ssize_t got = go_on(unpacker, unpacker->err) == 0
                      ? inflater_next(unpacker->inflater, data, unpacker->err)
                      : -1;
    if (got < 0)
        unpacker->read_failed = true;
    return got;
}

static void leave_folder(struct unpacker *unpacker)
{
    if (!unpacker->folder)
        return;
    close(unpacker->folder_fd);
    free(unpacker->folder);
    unpacker->folder = NULL;
}

/* The descriptor of the folder of `path`, made where it is not there; valid until the next call. */
static int enter_folder(struct unpacker *unpacker, const char *path, const char **leaf)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;

    if (unpacker->folder && !unpacker->folder_stale && strlen(unpacker->folder) == len &&
        memcmp(unpacker->folder, path, len) == 0) {
        *leaf = slash ? slash + 1 : path;
        return unpacker->folder_fd;
    }
    leave_folder(unpacker);
    int fd = unpack_parent(&unpacker->place, path, true, leaf);
    if (fd < 0)
        return -1;
    unpacker->folder = mem_strndup(path, len);
    unpacker->folder_fd = fd;
    unpacker->folder_stale = false;
    return fd;
}

/* Removes what is in an entry's place. Names may lead elsewhere then. */
static int make_room(struct unpacker *unpacker, int parent, const char *leaf)
{
    unpacker->folder_stale = true;
    return unpack_remove(parent, leaf);
}

static bool made_keep(void *ctx, const char *path)
{
    return path_set_has(ctx, path);
}

static bool is_folder(struct unpacker *unpacker, const char *path)
{
    const char *leaf;
    struct stat st;
    cleanup_close int parent = unpack_parent(&unpacker->place, path, false, &leaf);

    return parent >= 0 && fstatat(parent, leaf, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISDIR(st.st_mode);
}

/* `emptied`: a folder of which only what this layer has itself stays; or NULL, then folder/leaf is
 * removed. */
static int remove_lower(struct unpacker *unpacker, const char *emptied, const char *folder,
                        const char *leaf)
{
    if (unpacker->overlay)
        return emptied ? unpack_overlay_opaque(&unpacker->place, emptied)
                       : unpack_overlay_whiteout(&unpacker->place, folder, leaf);
    if (emptied)
        return unpack_clear(unpacker->place.root, emptied, made_keep, &unpacker->made);
    cleanup_close int parent = unpack_open_dir(&unpacker->place, folder, false);
    return parent >= 0 ? unpack_remove(parent, leaf) : 0;
}

/* 1: the entry was a whiteout and is dealt with. */
static int whiteout(struct unpacker *unpacker, const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/');
    const char *leaf = slash ? slash + 1 : path;

    if (!unpacker->whiteouts || strncmp(leaf, WHITEOUT, strlen(WHITEOUT)) != 0)
        return 0;
    unpacker->folder_stale = true;
    cleanup_free char *folder = slash ? mem_strndup(path, (size_t)(slash - path)) : mem_strdup(".");
    const char *hidden = leaf + strlen(WHITEOUT);
    if (!*hidden || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0)
        return error_set(err, ERR_INVALID,
                         "the layer holds the whiteout '%.200s', which names nothing", path);
    cleanup_free char *gone = slash ? mem_printf("%s/%s", folder, hidden) : mem_strdup(hidden);
    bool opaque = strcmp(leaf, OPAQUE) == 0, own = path_set_has(&unpacker->made, gone);
    if (own && !is_folder(unpacker, gone))
        return 1;
    if (remove_lower(unpacker, opaque ? folder : own ? gone : NULL, folder, hidden) != 0)
        return error_errno(err, errno, "cannot do what the whiteout %s says", path);
    return 1;
}

static int write_file(struct unpacker *unpacker, struct archive *archive, int fd, const char *path,
                      struct error *err)
{
    const void *data;
    size_t len;
    la_int64_t offset, end = 0, written = 0;
    int status;

    while ((status = archive_read_data_block(archive, &data, &len, &offset)) == ARCHIVE_OK) {
        if (go_on(unpacker, err) != 0)
            return -1;
        if (len > unpacker->bytes_left) {
            error_set(err, ERR_TOO_LARGE, "the image's files are larger than allowed, at %s", path);
            return error_hint(err, "the limit is there to stop layers that unpack without end");
        }
        unpacker->bytes_left -= len;
        if (offset != end && lseek(fd, offset, SEEK_SET) < 0)
            return error_errno(err, errno, "cannot write %s", path);
        if (fd_write_all(fd, data, len, err) != 0)
            return error_wrap(err, "%s", path);
        end = offset + (la_int64_t)len;
        if (len)
            written = end;
    }
    if (status != ARCHIVE_EOF)
        return unpacker->read_failed
                   ? -1
                   : error_set(err, ERR_INVALID, "%s: %s", path, archive_error_string(archive));
    if (end != written && ftruncate(fd, end) < 0) /* ends with a hole */
        return error_errno(err, errno, "cannot write %s", path);
    return 0;
}

static int make_hardlink(struct unpacker *unpacker, const char *to, int parent, const char *leaf,
                         const char *path, struct error *err)
{
    const char *to_leaf;
    cleanup_free char *clean = unpack_clean(to, err);

    if (!clean)
        return -1;
    if (strcmp(clean, path) == 0)
        return 0;
    cleanup_close int to_parent = unpack_parent(&unpacker->place, clean, false, &to_leaf);
    if (to_parent < 0)
        return error_errno(err, errno, "%s is a link to %s", path, clean);
    if (linkat(to_parent, to_leaf, parent, leaf, 0) < 0 &&
        (errno != EEXIST || make_room(unpacker, parent, leaf) != 0 ||
         linkat(to_parent, to_leaf, parent, leaf, 0) < 0))
        return error_errno(err, errno, "cannot link %s to %s", path, clean);
    return 0;
}

/* Owner, mode and time of what was just made as parent/leaf; fd: of a file, else -1. */
static int set_attributes(struct unpacker *unpacker, struct archive_entry *entry, int parent,
                          const char *leaf, int fd, const char *path, struct error *err)
{
    mode_t type = archive_entry_filetype(entry);
    /* What runs from an unpacked image runs without the means to gain privileges; others on this
     * machine shall not either. */
    mode_t mode = archive_entry_perm(entry);

    if (!unpacker->attributes)
        mode &= ~(mode_t)(S_ISUID | S_ISGID);

    if (unpacker->as_root) {
        uid_t uid = (uid_t)archive_entry_uid(entry);
        gid_t gid = (gid_t)archive_entry_gid(entry);
        int status =
            fd >= 0 ? fchown(fd, uid, gid) : fchownat(parent, leaf, uid, gid, AT_SYMLINK_NOFOLLOW);
        if (status < 0 && errno != EPERM && errno != EINVAL)
            return error_errno(err, errno, "cannot set the owner of %s", path);
    }
    if (type == AE_IFLNK)
        return 0;
    if (!unpacker->as_root)
        mode |= type == AE_IFDIR ? 0700 : 0400;
    if ((fd >= 0 ? fchmod(fd, mode) : fchmodat(parent, leaf, mode, 0)) < 0)
        return error_errno(err, errno, "cannot set the mode of %s", path);
    if (unpacker->attributes && unpack_attributes(entry, parent, leaf) != 0)
        return error_errno(err, errno, "cannot set the extended attributes of %s", path);
    if (fd >= 0) {
        struct timespec times[2] = {{0, UTIME_OMIT},
                                    {archive_entry_mtime(entry), archive_entry_mtime_nsec(entry)}};
        futimens(fd, times);
    }
    return 0;
}

static int make_file(struct unpacker *unpacker, struct archive *archive,
                     struct archive_entry *entry, int parent, const char *leaf, const char *path,
                     struct error *err)
{
    static const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    cleanup_close int fd = openat(parent, leaf, flags, 0600);

    if (fd < 0 && errno == EEXIST && make_room(unpacker, parent, leaf) == 0)
        fd = openat(parent, leaf, flags, 0600);
    if (fd < 0)
        return error_errno(err, errno, "cannot make %s", path);
    if (write_file(unpacker, archive, fd, path, err) != 0)
        return -1;
    return set_attributes(unpacker, entry, parent, leaf, fd, path, err);
}

/* 1: made, 0: left out. */
static int make_node(struct unpacker *unpacker, struct archive_entry *entry, int parent,
                     const char *leaf, const char *path, struct error *err)
{
    mode_t type = archive_entry_filetype(entry);
    struct stat st;

    if (type == AE_IFDIR) {
        if (mkdirat(parent, leaf, 0700) == 0)
            return 1;
        bool there = fstatat(parent, leaf, &st, AT_SYMLINK_NOFOLLOW) == 0;
        if (there && S_ISDIR(st.st_mode))
            return 1;
        if (make_room(unpacker, parent, leaf) != 0 || mkdirat(parent, leaf, 0700) < 0)
            return error_errno(err, errno, "cannot make the folder %s", path);
        /* Removed and there again: nothing of the layers below is in it. */
        if (unpacker->overlay && there && S_ISCHR(st.st_mode) &&
            unpack_overlay_opaque(&unpacker->place, path) != 0)
            return error_errno(err, errno, "cannot mark %s as new", path);
        return 1;
    }
    if (type == AE_IFLNK) {
        const char *to = HEADER_TEXT(entry, symlink);
        if (!to || (symlinkat(to, parent, leaf) < 0 &&
                    (errno != EEXIST || make_room(unpacker, parent, leaf) != 0 ||
                     symlinkat(to, parent, leaf) < 0)))
            return error_errno(err, errno, "cannot make the link %s", path);
        return 1;
    }
    if (make_room(unpacker, parent, leaf) != 0)
        return error_errno(err, errno, "cannot replace %s", path);
    switch (type) {
    case AE_IFIFO:
        return mknodat(parent, leaf, S_IFIFO | 0600, 0) == 0
                   ? 1
                   : error_errno(err, errno, "cannot make %s", path);
    case AE_IFCHR:
    case AE_IFBLK:
        /* Who may not make devices (a user, a container) gets the image without them; sandboxes
         * bring their own /dev. */
        return unpacker->as_root &&
               mknodat(parent, leaf, type | 0600, archive_entry_rdev(entry)) == 0;
    default:
        return 0;
    }
}

static int unpack_entry(struct unpacker *unpacker, struct archive *archive,
                        struct archive_entry *entry, struct error *err)
{
    const char *name = HEADER_TEXT(entry, pathname);
    const char *link = HEADER_TEXT(entry, hardlink);
    const char *leaf;

    if (!name)
        return error_set(err, ERR_INVALID, "the layer holds an entry without a name");
    if (unpacker->entries_left-- == 0)
        return error_set(err, ERR_TOO_LARGE, "the image has more entries than allowed");
    cleanup_free char *path = unpack_clean(name, err);
    if (!path)
        return -1;
    if (strcmp(path, ".") == 0)
        return 0;
    int dealt_with = whiteout(unpacker, path, err);
    if (dealt_with != 0)
        return dealt_with < 0 ? -1 : 0;
    int parent = enter_folder(unpacker, path, &leaf);
    if (parent < 0)
        return error_errno(err, errno, "cannot make the folder of %s", path);
    int made = 1;
    if (link) {
        if (make_hardlink(unpacker, link, parent, leaf, path, err) != 0)
            return -1;
    } else if (archive_entry_filetype(entry) == AE_IFREG) {
        if (make_file(unpacker, archive, entry, parent, leaf, path, err) != 0)
            return -1;
    } else {
        made = make_node(unpacker, entry, parent, leaf, path, err);
        if (made < 0 || (made && set_attributes(unpacker, entry, parent, leaf, -1, path, err) != 0))
            return -1;
    }
    if (made)
        path_set_add(&unpacker->made, path);
    return 0;
}

static int unpack_stream(struct unpacker *unpacker, struct error *err)
{
    struct archive *archive = archive_read_new();
    struct archive_entry *entry;
    int status = ARCHIVE_FATAL, result = -1;

    if (!archive)
        return error_set(err, ERR_MEMORY, "no memory to read a layer");
    archive_read_support_format_tar(archive);
    archive_read_support_format_empty(archive);
    unpacker->err = err;
    if (archive_read_open(archive, unpacker, NULL, read_piece, NULL) == ARCHIVE_OK) {
        while ((status = archive_read_next_header(archive, &entry)) == ARCHIVE_OK ||
               status == ARCHIVE_WARN)
            if (unpack_entry(unpacker, archive, entry, err) != 0)
                goto out;
    }
    if (status == ARCHIVE_EOF && !unpacker->read_failed)
        result = 0;
    else if (!unpacker->read_failed)
        error_set(err, ERR_INVALID, "the layer is no readable tar archive: %s",
                  archive_error_string(archive));
out:
    archive_read_free(archive);
    return result;
}

static int check_digest(const char *what, const struct digest *have, const char *wanted,
                        struct error *err)
{
    if (!wanted || strcmp(have->text, wanted) == 0)
        return 0;
    return error_set(err, ERR_DIGEST, "the layer's %s is %s, expected was %s", what, have->text,
                     wanted);
}

/* inflater: freed. */
static int unpack_layer(struct unpacker *unpacker, struct inflater *inflater, const char *digest,
                        const char *diff_id, struct error *err)
{
    struct digest file, stream;

    unpacker->inflater = inflater;
    int status = unpack_stream(unpacker, err);
    if (status == 0)
        status = inflater_finish(unpacker->inflater, &file, &stream, err);
    if (status == 0 && ((!diff_id && check_digest("digest", &file, digest, err) != 0) ||
                        check_digest("diff id", &stream, diff_id, err) != 0))
        status = -1;
    inflater_free(unpacker->inflater);
    unpacker->inflater = NULL;
    path_set_free(&unpacker->made);
    leave_folder(unpacker);
    return status;
}

static void unpacker_init(struct unpacker *unpacker, const struct unpack_options *options)
{
    static const struct unpack_options none;

    if (!options)
        options = &none;
    *unpacker = (struct unpacker){
        .place = {.root = -1, .below = options->below},
        .whiteouts = true,
        .as_root = geteuid() == 0,
        .bytes_left = options->max_bytes ? options->max_bytes : DEFAULT_BYTES,
        .entries_left = options->max_entries ? options->max_entries : DEFAULT_ENTRIES,
        .deadline = options->deadline,
        .cancel = options->cancel,
        .overlay = options->overlay,
        .attributes = options->overlay || options->attributes,
    };
}

int oci_unpack_layer(int layer_fd, int target_dirfd, const char *digest, const char *diff_id,
                     bool whiteouts, const struct unpack_options *options, struct error *err)
{
    struct unpacker unpacker;

    unpacker_init(&unpacker, options);
    unpacker.place.root = target_dirfd;
    unpacker.whiteouts = whiteouts;
    int status =
        unpack_layer(&unpacker, inflater_new(layer_fd, digest && !diff_id), digest, diff_id, err);
    if (options && options->implied)
        *options->implied = unpacker.place.implied;
    return status;
}

int oci_unpack_from(unpack_source_fn *source, void *ctx, const struct value *manifest,
                    const struct value *config, const char *target,
                    const struct unpack_options *options, struct error *err)
{
    struct unpacker unpacker;

    if (mkdir(target, 0755) < 0) {
        if (errno != EEXIST)
            return error_errno(err, errno, "cannot make the folder %s", target);
        if (rmdir(target) < 0 || mkdir(target, 0755) < 0)
            return error_errno(err, errno, "cannot unpack into %s", target);
    }
    cleanup_close int root = open(target, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (root < 0)
        return error_errno(err, errno, "cannot open %s", target);
    unpacker_init(&unpacker, options);
    unpacker.place.root = root;
    const struct value *layers = value_get(manifest, "layers");
    const struct value *ids = value_path(config, "rootfs.diff_ids");
    for (size_t i = 0; i < value_count(layers); i++) {
        const char *digest = value_get_string(value_at(layers, i), "digest", "");
        const char *diff_id = value_text(value_at(ids, i), NULL);
        struct inflater *inflater = source(ctx, digest, !diff_id, err);
        if (!inflater || unpack_layer(&unpacker, inflater, digest, diff_id, err) != 0) {
            error_wrap(err, "layer %zu", i + 1);
            dir_remove(target, NULL);
            return -1;
        }
    }
    return 0;
}

struct stored {
    struct store *store;
    int fd;
};

static struct inflater *stored_layer(void *ctx, const char *digest, bool whole, struct error *err)
{
    struct stored *stored = ctx;

    if (stored->fd >= 0)
        close(stored->fd);
    stored->fd = store_blob_open(stored->store, digest, NULL, err);
    return stored->fd < 0 ? NULL : inflater_new(stored->fd, whole);
}

int oci_unpack(struct store *store, const char *manifest_digest, const char *target,
               const struct unpack_options *options, struct error *err)
{
    cleanup_value struct value manifest = {0};
    cleanup_value struct value config = {0};
    struct stored stored = {store, -1};

    if (oci_manifest_load(store, manifest_digest, &manifest, NULL, err) != 0 ||
        oci_config_load(store, &manifest, &config, err) != 0)
        return -1;
    int status = oci_unpack_from(stored_layer, &stored, &manifest, &config, target, options, err);
    if (stored.fd >= 0)
        close(stored.fd);
    return status == 0 ? 0 : error_wrap(err, "%s", manifest_digest);
}
