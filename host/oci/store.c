/* Blobs and uploads. */
#include "oci/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/store_internal.h"

#define ID_LEN 32
/* An upload that nobody took up again is removed after that. */
#define UPLOAD_MAX_AGE_S (24 * 3600)
#define PARKED_MAX       64
/* Blobs that were used that long ago are marked as used again. */
#define USED_AGAIN_S 1
#define LOCK_WAIT_NS (60 * NS_PER_S)
#define LOCK_LOOK_MS 5

/* The running digest of a parked upload, so that the next request of the same process need not read
 * it again. */
struct parked {
    struct parked *next;
    char id[ID_LEN + 1];
    uint64_t size;
    struct hasher *hasher;
};

struct upload {
    struct store *store;
    char id[ID_LEN + 1];
    int fd;
    uint64_t size;
    struct hasher *hasher; /* NULL: the bytes on disk have not been seen by this process */
};

static bool upload_id_valid(const char *id)
{
    return strlen(id) == ID_LEN && strspn(id, "0123456789abcdef") == ID_LEN;
}

int store_make_dirs(struct store *store, const char *path, struct error *err)
{
    cleanup_free char *copy = mem_strdup(path);

    for (char *at = copy;; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        char was = *at;
        *at = '\0';
        if (mkdirat(store->dir, copy, 0777) < 0 && errno != EEXIST)
            return error_errno(err, errno, "cannot make the folder %s/%s", store->root, copy);
        if (!was)
            return 0;
        *at = was;
    }
}

int store_lock(struct store *store, bool exclusive, struct error *err)
{
    int64_t until = deadline_in(LOCK_WAIT_NS);
    /* A descriptor of its own: the lock belongs to the open file, and threads share the store's. */
    cleanup_close int fd = openat(store->dir, "gc.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0666);

    if (fd < 0)
        return error_errno(err, errno, "cannot open %s/gc.lock", store->root);
    while (flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return error_errno(err, errno, "cannot lock %s/gc.lock", store->root);
        if (deadline_passed(until))
            return error_set(err, ERR_TIMEOUT, "%s/gc.lock was held for a minute", store->root);
        poll(NULL, 0, LOCK_LOOK_MS);
    }
    return steal_fd(&fd);
}

int store_write(struct store *store, const char *path, const char *text, struct error *err)
{
    unsigned char random[8];
    uint64_t number;

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return error_errno(err, errno, "cannot get random bytes");
    memcpy(&number, random, sizeof number);
    cleanup_free char *half = mem_printf("uploads/file-%016llx", (unsigned long long)number);
    if (file_write(store->dir, half, text, strlen(text), store->durable, err) != 0)
        return -1;
    if (renameat(store->dir, half, store->dir, path) == 0)
        return 0;
    error_errno(err, errno, "cannot make %s/%s", store->root, path);
    unlinkat(store->dir, half, 0);
    return -1;
}

int store_read(struct store *store, const char *path, size_t limit, struct buf *out,
               struct error *err)
{
    struct stat st;

    if (fstatat(store->dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode))
        return error_set(err, ERR_NOT_FOUND, "%s/%s is a link", store->root, path);
    return file_read(store->dir, path, limit, out, err);
}

/* What O_NOFOLLOW says of a link means that nothing of ours is there. */
static int open_problem(void)
{
    return errno == ELOOP ? ENOENT : errno;
}

bool store_file_exists(struct store *store, const char *path)
{
    struct stat st;

    return fstatat(store->dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

void store_file_remove(struct store *store, const char *path)
{
    unlinkat(store->dir, path, 0);
}

/* Uploads of clients that went away. Problems here are nobody's concern now. */
static void drop_stale_uploads(struct store *store)
{
    int fd = openat(store->dir, "uploads", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    struct stat st;
    time_t now = time(NULL);

    if (!folder) {
        if (fd >= 0)
            close(fd);
        return;
    }
    while ((entry = readdir(folder)))
        if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
            now - st.st_mtime > UPLOAD_MAX_AGE_S)
            unlinkat(fd, entry->d_name, 0);
    closedir(folder);
}

struct store *store_open_at(const char *root, bool durable, struct error *err)
{
    if (dir_make(root, err) != 0)
        return NULL;
    struct store *store = mem_alloc(sizeof *store);
    store->root = mem_strdup(root);
    store->durable = durable;
    pthread_mutex_init(&store->lock, NULL);
    store->dir = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->dir < 0) {
        error_errno(err, errno, "cannot open the image store %s", root);
        store_close(store);
        return NULL;
    }
    if (store_make_dirs(store, "blobs/sha256", err) != 0 ||
        store_make_dirs(store, "blobs/sha512", err) != 0 ||
        store_make_dirs(store, "uploads", err) != 0 ||
        store_make_dirs(store, "repositories", err) != 0) {
        error_hint(err, "is %s writable for you?", root);
        store_close(store);
        return NULL;
    }
    drop_stale_uploads(store);
    return store;
}

struct store *store_open(const char *state_dir, struct error *err)
{
    cleanup_free char *root = path_join(state_dir, "local/registry");

    return store_open_at(root, true, err);
}

void store_close(struct store *store)
{
    if (!store)
        return;
    while (store->parked) {
        struct parked *next = store->parked->next;
        hasher_drop(store->parked->hasher);
        free(store->parked);
        store->parked = next;
    }
    if (store->dir >= 0)
        close(store->dir);
    pthread_mutex_destroy(&store->lock);
    free(store->root);
    free(store);
}

void store_cleanup(struct store **store)
{
    store_close(*store);
}

/* ---- blobs ---- */

#define BLOB_PATH 160
static int blob_path(const char *digest, char out[BLOB_PATH], struct error *err)
{
    enum digest_kind kind = digest_kind(digest);

    if (kind == DIGEST_NONE) {
        error_set(err, ERR_INVALID, "'%.100s' is no digest", digest ? digest : "");
        return error_hint(err, "a digest is sha256: and 64 lower-case hexadecimal digits, or "
                               "sha512: and 128");
    }
    snprintf(out, BLOB_PATH, "blobs/%s/%s", kind == DIGEST_SHA512 ? "sha512" : "sha256",
             digest + 7);
    return 0;
}

char *store_blob_path(struct store *store, const char *digest)
{
    char path[BLOB_PATH];

    return blob_path(digest, path, NULL) == 0 ? path_join(store->root, path) : NULL;
}

/* Without right to write there is no collection either that could take it. */
static bool use_again(struct store *store, const char *path)
{
    cleanup_close int held = store_lock(store, false, NULL);

    (void)held;
    return utimensat(store->dir, path, NULL, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

bool store_blob_exists(struct store *store, const char *digest, uint64_t *size)
{
    char path[BLOB_PATH];
    struct stat st;

    if (blob_path(digest, path, NULL) != 0 ||
        fstatat(store->dir, path, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
        return false;
    if (size)
        *size = (uint64_t)st.st_size;
    return time(NULL) - st.st_mtime <= USED_AGAIN_S || use_again(store, path);
}

int store_blob_open(struct store *store, const char *digest, uint64_t *size, struct error *err)
{
    char path[BLOB_PATH];
    struct stat st;

    if (blob_path(digest, path, err) != 0)
        return -1;
    cleanup_close int fd = openat(store->dir, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) != 0)
        return error_errno(err, open_problem(), "blob %s", digest);
    if (size)
        *size = (uint64_t)st.st_size;
    return steal_fd(&fd);
}

int store_blob_read(struct store *store, const char *digest, size_t limit, struct buf *out,
                    struct error *err)
{
    char path[BLOB_PATH];

    if (blob_path(digest, path, err) != 0)
        return -1;
    return store_read(store, path, limit, out, err);
}

int store_blob_delete(struct store *store, const char *digest, struct error *err)
{
    char path[BLOB_PATH];

    if (blob_path(digest, path, err) != 0)
        return -1;
    if (unlinkat(store->dir, path, 0) < 0)
        return error_errno(err, errno, "blob %s", digest);
    return 0;
}

int store_blob_put_as(struct store *store, enum digest_kind kind, const void *data, size_t len,
                      struct digest *out, struct error *err)
{
    struct digest sum;

    digest_bytes_of(kind, data, len, &sum);
    if (out)
        *out = sum;
    if (store_blob_exists(store, sum.text, NULL))
        return 0;
    struct upload *upload = store_blob_begin_as(store, kind, err);
    if (!upload)
        return -1;
    if (store_blob_write(upload, data, len, err) != 0) {
        store_blob_abort(upload);
        return -1;
    }
    return store_blob_commit(upload, sum.text, NULL, err);
}

int store_blob_put(struct store *store, const void *data, size_t len, struct digest *out,
                   struct error *err)
{
    return store_blob_put_as(store, DIGEST_SHA256, data, len, out, err);
}

int store_scratch(struct store *store, struct error *err)
{
    int fd = openat(store->dir, "uploads", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
        cleanup_free char *name = mem_printf("%s/uploads/scratch-XXXXXX", store->root);
        fd = mkostemp(name, O_CLOEXEC);
        if (fd >= 0)
            unlink(name);
    }
    return fd >= 0 ? fd
                   : error_errno(err, errno, "cannot make a temporary file in %s", store->root);
}

/* ---- uploads ---- */

static void upload_name(const struct upload *upload, char out[64])
{
    snprintf(out, 64, "uploads/%s", upload->id);
}

static void upload_free(struct upload *upload)
{
    if (upload->fd >= 0)
        close(upload->fd);
    hasher_drop(upload->hasher);
    free(upload);
}

/* Two users of one upload would mix their bytes; the lock goes with the descriptor. */
static int upload_lock(struct upload *upload, struct error *err)
{
    if (flock(upload->fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    error_set(err, ERR_CONFLICT, "upload %s is in use by another request", upload->id);
    return error_hint(err, "wait for that one to end, or begin a new upload");
}

struct upload *store_blob_begin(struct store *store, struct error *err)
{
    return store_blob_begin_as(store, DIGEST_SHA256, err);
}

struct upload *store_blob_begin_as(struct store *store, enum digest_kind kind, struct error *err)
{
    struct upload *upload = mem_alloc(sizeof *upload);
    unsigned char random[ID_LEN / 2];
    char path[64];

    upload->store = store;
    upload->fd = -1;
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        error_errno(err, errno, "cannot get random bytes");
        upload_free(upload);
        return NULL;
    }
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(upload->id + 2 * i, 3, "%02x", random[i]);
    upload_name(upload, path);
    upload->fd = openat(store->dir, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (upload->fd < 0) {
        error_errno(err, errno, "cannot make %s/%s", store->root, path);
        upload_free(upload);
        return NULL;
    }
    if (upload_lock(upload, err) != 0) {
        store_blob_abort(upload);
        return NULL;
    }
    upload->hasher = hasher_new_of(kind);
    return upload;
}

const char *store_upload_id(const struct upload *upload)
{
    return upload->id;
}

uint64_t store_upload_size(const struct upload *upload)
{
    return upload->size;
}

int store_upload_fd(const struct upload *upload)
{
    return upload->fd;
}

int store_blob_write(struct upload *upload, const void *data, size_t len, struct error *err)
{
    if (fd_write_all(upload->fd, data, len, err) != 0)
        return error_wrap(err, "upload %s", upload->id);
    if (upload->hasher)
        hasher_update(upload->hasher, data, len);
    upload->size += len;
    return 0;
}

void store_blob_rewind(struct upload *upload, uint64_t size)
{
    hasher_drop(upload->hasher);
    upload->hasher = NULL;
    if (ftruncate(upload->fd, (off_t)size) == 0 && lseek(upload->fd, 0, SEEK_END) >= 0)
        upload->size = size;
}

void store_blob_park(struct upload *upload)
{
    struct store *store = upload->store;

    if (upload->hasher) {
        struct parked *parked = mem_alloc(sizeof *parked);
        memcpy(parked->id, upload->id, sizeof parked->id);
        parked->size = upload->size;
        parked->hasher = upload->hasher;
        upload->hasher = NULL;
        pthread_mutex_lock(&store->lock);
        parked->next = store->parked;
        store->parked = parked;
        struct parked **at = &store->parked;
        for (int count = 0; *at && count < PARKED_MAX; count++)
            at = &(*at)->next;
        struct parked *oldest = *at;
        if (oldest) {
            *at = oldest->next;
            hasher_drop(oldest->hasher);
            free(oldest);
        }
        pthread_mutex_unlock(&store->lock);
    }
    upload_free(upload);
}

/* The running digest of a parked upload, when it is still that of what is on disk. */
static struct hasher *parked_take(struct store *store, const char *id, uint64_t size)
{
    struct hasher *hasher = NULL;

    pthread_mutex_lock(&store->lock);
    for (struct parked **at = &store->parked; *at; at = &(*at)->next) {
        struct parked *parked = *at;
        if (strcmp(parked->id, id) != 0)
            continue;
        *at = parked->next;
        if (parked->size == size)
            hasher = parked->hasher;
        else
            hasher_drop(parked->hasher);
        free(parked);
        break;
    }
    pthread_mutex_unlock(&store->lock);
    return hasher;
}

struct upload *store_blob_resume(struct store *store, const char *id, struct error *err)
{
    char path[64];

    if (!id || !upload_id_valid(id)) {
        error_set(err, ERR_NOT_FOUND, "no such upload");
        return NULL;
    }
    struct upload *upload = mem_alloc(sizeof *upload);
    upload->store = store;
    memcpy(upload->id, id, ID_LEN + 1);
    upload_name(upload, path);
    upload->fd = openat(store->dir, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (upload->fd < 0) {
        error_errno(err, open_problem(), "upload %s", id);
        error_hint(err, "it was finished, aborted, or left alone for a day: begin a new one");
        upload_free(upload);
        return NULL;
    }
    off_t end = upload_lock(upload, err) == 0 ? lseek(upload->fd, 0, SEEK_END) : -1;
    if (end < 0) {
        upload_free(upload);
        return NULL;
    }
    upload->size = (uint64_t)end;
    upload->hasher = parked_take(store, id, upload->size);
    return upload;
}

int store_blob_commit(struct upload *upload, const char *expected, struct digest *out,
                      struct error *err)
{
    struct store *store = upload->store;
    char from[64], to[BLOB_PATH];
    struct digest sum;

    if (expected && blob_path(expected, to, err) != 0)
        goto fail;
    enum digest_kind kind = expected         ? digest_kind(expected)
                            : upload->hasher ? hasher_kind(upload->hasher)
                                             : DIGEST_SHA256;
    if (upload->hasher && hasher_kind(upload->hasher) == kind) {
        hasher_finish(upload->hasher, &sum);
        upload->hasher = NULL;
    } else if (lseek(upload->fd, 0, SEEK_SET) < 0 ||
               digest_file_of(kind, upload->fd, &sum, NULL, err) != 0) {
        goto fail;
    }
    if (expected && strcmp(expected, sum.text) != 0) {
        error_set(err, ERR_DIGEST, "the content has the digest %s, expected was %s", sum.text,
                  expected);
        goto fail;
    }
    if (store->durable && fdatasync(upload->fd) < 0) {
        error_errno(err, errno, "cannot write blob %s", sum.text);
        goto fail;
    }
    upload_name(upload, from);
    blob_path(sum.text, to, NULL);
    futimens(upload->fd, NULL); /* its manifest may come a grace period after now, not after the
                                   last byte */
    if (renameat(store->dir, from, store->dir, to) < 0) {
        error_errno(err, errno, "cannot make blob %s", sum.text);
        goto fail;
    }
    if (out)
        *out = sum;
    upload_free(upload);
    return 0;
fail:
    store_blob_abort(upload);
    return -1;
}

void store_blob_abort(struct upload *upload)
{
    char path[64];

    if (!upload)
        return;
    upload_name(upload, path);
    unlinkat(upload->store->dir, path, 0);
    upload_free(upload);
}
