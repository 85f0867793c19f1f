#include "oci/build_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/manifest.h"
#include "oci/store_internal.h"

#define FOLDER      "build"
#define TIDIED      FOLDER "/.tidied"
#define ENTRY_LIMIT 512u
#define KEY_PATH    96
#define TOUCH_S     3600 /* how exact the time of the last use is */
#define TIDY_S      (24 * 3600)

static const char zstd_layer[] = "application/vnd.oci.image.layer.v1.tar+zstd";

/* ---- keys ---- */

struct cache_key {
    struct hasher *hasher;
};

static void field_begin(struct cache_key *key, const char *field, char kind, uint64_t len)
{
    cleanup_free char *head = mem_printf("%s%c%" PRIu64, field, kind, len);

    hasher_update(key->hasher, head, strlen(head) + 1);
}

struct cache_key *cache_key_new(const char *kind)
{
    struct cache_key *key = mem_alloc(sizeof *key);

    key->hasher = hasher_new();
    cache_key_text(key, BUILD_CACHE_VERSION, kind);
    return key;
}

void cache_key_bytes(struct cache_key *key, const char *field, const void *data, size_t len)
{
    field_begin(key, field, '=', len);
    hasher_update(key->hasher, data, len);
}

void cache_key_text(struct cache_key *key, const char *field, const char *text)
{
    if (text)
        cache_key_bytes(key, field, text, strlen(text));
    else
        field_begin(key, field, '-', 0);
}

void cache_key_number(struct cache_key *key, const char *field, int64_t number)
{
    cleanup_free char *text = mem_printf("%" PRId64, number);

    cache_key_text(key, field, text);
}

void cache_key_value(struct cache_key *key, const char *field, const struct value *value)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (value)
        value_to_json(value, TEXT_SORTED, &text);
    cache_key_bytes(key, field, text.data ? text.data : "", text.len);
}

void cache_key_finish(struct cache_key *key, struct digest *out)
{
    hasher_finish(key->hasher, out);
    free(key);
}

/* ---- entries ---- */

static bool key_path(const char *digest, char out[KEY_PATH])
{
    if (!digest_valid(digest))
        return false;
    snprintf(out, KEY_PATH, FOLDER "/%s", digest + 7);
    return true;
}

const char *build_cache_layer_type(const char *type)
{
    return strcmp(type, OCI_LAYER_GZIP) == 0 ? OCI_LAYER_GZIP
           : strcmp(type, zstd_layer) == 0   ? zstd_layer
                                             : NULL;
}

/* One word up to the next space or the end of the line; NULL where there is none. */
static char *take_word(char **at)
{
    char *word = *at;
    size_t len = strcspn(word, " \n");

    if (!len)
        return NULL;
    *at = word + len + (word[len] != '\0');
    word[len] = '\0';
    return word;
}

/* Writers are our own, but a disk that was full or a machine that went down leave anything. */
static bool parse(char *line, struct cached_layer *out)
{
    char *kind = take_word(&line), *end;

    *out = (struct cached_layer){.kind = CACHED_LAYER};
    if (!kind)
        return false;
    if (strcmp(kind, "empty") == 0 || strcmp(kind, "seen") == 0) {
        out->kind = *kind == 'e' ? CACHED_EMPTY : CACHED_SEEN;
        return !*line;
    }
    const char *type = take_word(&line), *digest = take_word(&line), *size = take_word(&line),
               *diff_id = take_word(&line);
    if (strcmp(kind, "layer") != 0 || !diff_id || *line || !digest_valid(digest) ||
        !digest_valid(diff_id))
        return false;
    out->media_type = build_cache_layer_type(type);
    errno = 0;
    out->size = strtoull(size, &end, 10);
    memcpy(out->digest.text, digest, strlen(digest) + 1);
    memcpy(out->diff_id.text, diff_id, strlen(diff_id) + 1);
    return out->media_type && !*end && !errno;
}

static bool load(struct store *store, const char *path, struct cached_layer *out)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (file_read(store->dir, path, ENTRY_LIMIT, &text, NULL) != 0 || !text.len ||
        memchr(text.data, '\0', text.len) || text.data[text.len - 1] != '\n')
        return false;
    *buf_reserve(&text, 1) = '\0';
    return parse(text.data, out);
}

void build_cache_touch(struct store *store, const char *path)
{
    struct stat st;

    if (fstatat(store->dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        time(NULL) - st.st_mtime > TOUCH_S)
        utimensat(store->dir, path, NULL, AT_SYMLINK_NOFOLLOW);
}

int build_cache_get(struct store *store, const struct digest *key, struct cached_layer *out)
{
    char path[KEY_PATH];
    uint64_t size;

    if (!key_path(key->text, path) || !load(store, path, out))
        return 0;
    if (out->kind == CACHED_LAYER &&
        (!store_blob_exists(store, out->digest.text, &size) || size != out->size))
        return 0;
    build_cache_touch(store, path);
    return 1;
}

int build_cache_put(struct store *store, const struct digest *key, const struct cached_layer *layer,
                    struct error *err)
{
    cleanup_free char *line = NULL;
    char path[KEY_PATH];

    if (!key_path(key->text, path))
        return error_set(err, ERR_INTERNAL, "'%s' is no key", key->text);
    if (store_make_dirs(store, FOLDER, err) != 0)
        return -1;
    if (layer->kind == CACHED_LAYER)
        line = mem_printf("layer %s %s %" PRIu64 " %s\n",
                          layer->media_type ? layer->media_type : OCI_LAYER_GZIP,
                          layer->digest.text, layer->size, layer->diff_id.text);
    else
        line = mem_strdup(layer->kind == CACHED_EMPTY ? "empty\n" : "seen\n");
    return file_write(store->dir, path, line, strlen(line), false, err);
}

/* ---- pruning ---- */

struct entry {
    char name[65];
    int64_t used;
    struct cached_layer layer;
};

struct listing {
    struct entry *entries;
    size_t count, room;
};

static bool is_key(const char *name)
{
    return strlen(name) == 64 && strspn(name, "0123456789abcdef") == 64;
}

/* What is no entry and old (a writer that was killed) goes at once. */
static void list_one(struct store *store, const char *name, int64_t now, struct listing *list,
                     size_t *gone)
{
    struct entry entry = {0};
    struct stat st;
    cleanup_free char *path = mem_printf(FOLDER "/%s", name);

    if (fstatat(store->dir, path, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
        return;
    if (!is_key(name) || !load(store, path, &entry.layer)) {
        if (now - st.st_mtime > TIDY_S && name[0] != '.')
            *gone += unlinkat(store->dir, path, 0) == 0;
        return;
    }
    memcpy(entry.name, name, sizeof entry.name);
    entry.used = st.st_mtime;
    if (list->count == list->room) {
        list->room = list->room ? list->room * 2 : 64;
        list->entries = mem_array(list->entries, list->room, sizeof *list->entries);
    }
    list->entries[list->count++] = entry;
}

static int compare_used(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    return x->used != y->used ? (x->used < y->used ? 1 : -1) : strcmp(x->name, y->name);
}

/* Latest used first. */
static void list_entries(struct store *store, struct listing *list, size_t *gone)
{
    int fd = openat(store->dir, FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *found;
    int64_t now = time(NULL);

    if (!folder) {
        if (fd >= 0)
            close(fd);
        return;
    }
    while ((found = readdir(folder)))
        list_one(store, found->d_name, now, list, gone);
    closedir(folder);
    if (list->count)
        qsort(list->entries, list->count, sizeof *list->entries, compare_used);
}

/* Old files of a folder beside the entries. */
static size_t prune_folder(struct store *store, const char *path, int64_t max_age_s)
{
    int fd = openat(store->dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *found;
    struct stat st;
    int64_t now = time(NULL);
    size_t gone = 0;

    if (!folder) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    while ((found = readdir(folder)))
        if (fstatat(fd, found->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
            now - st.st_mtime > max_age_s)
            gone += unlinkat(fd, found->d_name, 0) == 0;
    closedir(folder);
    return gone;
}

size_t build_cache_prune(struct store *store, int64_t max_age_s, size_t max_entries,
                         uint64_t max_bytes)
{
    struct listing list = {0};
    int64_t now = time(NULL);
    cleanup_value struct value layers = {0}; /* several entries may name one */
    uint64_t bytes = 0;
    size_t gone = 0;

    value_set_map(&layers);
    list_entries(store, &list, &gone);
    for (size_t i = 0; i < list.count; i++) {
        const struct entry *entry = &list.entries[i];
        cleanup_free char *path = mem_printf(FOLDER "/%s", entry->name);
        if (entry->layer.kind == CACHED_LAYER && !value_get(&layers, entry->layer.digest.text)) {
            value_put_bool(&layers, entry->layer.digest.text, true);
            bytes += entry->layer.size;
        }
        if (i >= max_entries || now - entry->used > max_age_s || bytes > max_bytes)
            gone += unlinkat(store->dir, path, 0) == 0;
    }
    free(list.entries);
    gone += prune_folder(store, BUILD_CACHE_FILES, max_age_s);
    return gone + prune_folder(store, BUILD_CACHE_TREES, max_age_s);
}

void build_cache_tidy(struct store *store)
{
    struct stat st;

    if (fstatat(store->dir, TIDIED, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        time(NULL) - st.st_mtime < TIDY_S)
        return;
    if (store_make_dirs(store, FOLDER, NULL) != 0 ||
        file_write(store->dir, TIDIED, "", 0, false, NULL) != 0)
        return;
    build_cache_prune(store, BUILD_CACHE_MAX_AGE_S, BUILD_CACHE_MAX_ENTRIES, BUILD_CACHE_MAX_BYTES);
}

void build_cache_each(struct store *store, build_cache_each_fn *fn, void *ctx)
{
    struct listing list = {0};
    size_t gone = 0;

    list_entries(store, &list, &gone);
    for (size_t i = 0; i < list.count; i++)
        if (list.entries[i].layer.kind == CACHED_LAYER)
            fn(ctx, list.entries[i].name, &list.entries[i].layer);
    free(list.entries);
}
