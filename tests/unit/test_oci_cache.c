/* The cache of layers: what is a hit, what is none, and what it must never take for the same. */
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "oci/build.h"
#include "oci/build_cache.h"
#include "oci/context.h"
#include "oci/layer.h"
#include "oci/manifest.h"
#include "oci/tree.h"
#include "oci/unpack.h"

static char work[64];

static char *in(const char *name)
{
    static char paths[8][256];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", work, name);
    return path;
}

/* Files of an hour ago: a file that was written this moment is no safe witness of anything. */
static void age(const char *name, time_t seconds)
{
    struct timespec times[2] = {{time(NULL) - seconds, 1}, {time(NULL) - seconds, 1}};

    assert_int_equal(utimensat(AT_FDCWD, in(name), times, AT_SYMLINK_NOFOLLOW), 0);
}

static void put(const char *name, const char *text)
{
    struct error err = {0};
    cleanup_free char *folder = mem_strdup(in(name));

    *strrchr(folder, '/') = '\0';
    ok(dir_make(folder, &err), err);
    ok(file_write(AT_FDCWD, in(name), text, strlen(text), false, &err), err);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(work, sizeof work, "/tmp/mlhost-cache-XXXXXX");
    return mkdtemp(work) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return dir_remove(work, NULL);
}

static int cached; /* instructions that the last build found */
static void on_log(void *ctx, const char *level, const char *text)
{
    (void)ctx, (void)level;
    cached += strncmp(text, "CACHED ", 7) == 0;
}

static struct digest build_with(const char *dockerfile, enum build_caching caching, int64_t epoch)
{
    struct error err = {0};
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);
    struct build_result result;

    put("Dockerfile", dockerfile);
    struct build_spec spec = {.store = store,
                              .context = in("ctx"),
                              .dockerfile = in("Dockerfile"),
                              .label = "Dockerfile",
                              .log = on_log,
                              .epoch = epoch,
                              .caching = caching};
    cached = 0;
    ok(oci_build(&spec, &result, &err), err);
    return result.manifest;
}

static struct digest build(const char *dockerfile)
{
    return build_with(dockerfile, BUILD_CACHE_USE, 0);
}

static void content(const struct digest *manifest, const char *name, const char *wanted)
{
    struct error err = {0};
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_free char *path = mem_printf("out/%s", name);

    ok(dir_remove(in("out"), &err), err);
    ok(oci_unpack(store, manifest->text, in("out"), NULL, &err), err);
    ok(file_read(AT_FDCWD, in(path), 65536, &text, &err), err);
    assert_int_equal(text.len, strlen(wanted));
    assert_memory_equal(text.data, wanted, text.len);
}

/* ---- entries ---- */

static void key_of(const char *text, struct digest *out)
{
    struct cache_key *key = cache_key_new("test");

    cache_key_text(key, "text", text);
    cache_key_finish(key, out);
}

static void entries(void **state)
{
    struct error err = {0};
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);
    struct cached_layer layer = {.size = 5}, found;
    struct digest key, other;

    (void)state;
    ok(store_blob_put(store, "layer", 5, &layer.digest, &err), err);
    digest_bytes("tar", 3, &layer.diff_id);
    key_of("a", &key);
    key_of("b", &other);
    assert_int_equal(build_cache_get(store, &key, &found), 0);
    ok(build_cache_put(store, &key, &layer, &err), err);
    assert_int_equal(build_cache_get(store, &other, &found), 0);
    assert_int_equal(build_cache_get(store, &key, &found), 1);
    assert_int_equal(found.kind, CACHED_LAYER);
    assert_string_equal(found.digest.text, layer.digest.text);
    assert_string_equal(found.diff_id.text, layer.diff_id.text);
    assert_string_equal(found.media_type, OCI_LAYER_GZIP);
    assert_int_equal(found.size, 5);

    ok(build_cache_put(store, &other, &(struct cached_layer){.kind = CACHED_EMPTY}, &err), err);
    assert_int_equal(build_cache_get(store, &other, &found), 1);
    assert_int_equal(found.kind, CACHED_EMPTY);

    /* The blob decides, not the entry. */
    layer.size = 6;
    ok(build_cache_put(store, &key, &layer, &err), err);
    assert_int_equal(build_cache_get(store, &key, &found), 0);
    layer.size = 5;
    ok(build_cache_put(store, &key, &layer, &err), err);
    assert_int_equal(build_cache_get(store, &key, &found), 1);
    ok(store_blob_delete(store, layer.digest.text, &err), err);
    assert_int_equal(build_cache_get(store, &key, &found), 0);
}

/* Whatever a full disk or another program left there. */
static void broken_entries(void **state)
{
#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    static const char *const texts[] = {
        "",
        "\n",
        "layer",
        "layer\n",
        "empty",
        "empty x\n",
        "seen \n\n",
        "layer " OCI_LAYER_GZIP " sha256:" HEX " 5\n",
        "layer " OCI_LAYER_GZIP " sha256:" HEX " 5 sha256:" HEX,
        "layer " OCI_LAYER_GZIP " sha256:" HEX " 5x sha256:" HEX "\n",
        "layer " OCI_LAYER_GZIP " sha256:" HEX " 99999999999999999999999 sha256:" HEX "\n",
        "layer text/plain sha256:" HEX " 5 sha256:" HEX "\n",
        "layer " OCI_LAYER_GZIP " ../../etc/passwd 5 sha256:" HEX "\n",
        "layer " OCI_LAYER_GZIP " sha256:" HEX " 5 sha256:" HEX " more\n",
        "later " OCI_LAYER_GZIP " sha256:" HEX " 5 sha256:" HEX "\n",
    };
    struct error err = {0};
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);
    struct cached_layer found;
    struct digest key;

    (void)state;
    key_of("a", &key);
    cleanup_free char *name = mem_printf("store/build/%s", key.text + 7);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        put(name, texts[i]);
        assert_int_equal(build_cache_get(store, &key, &found), 0);
    }
    ok(file_write(AT_FDCWD, in(name), "empty\0\n", 7, false, &err), err);
    assert_int_equal(build_cache_get(store, &key, &found), 0);
    put(name, "empty\n");
    assert_int_equal(build_cache_get(store, &key, &found), 1);
}

/* Two lists of fields are one key only when they are one list. */
static void keys(void **state)
{
    static const char *const fields[][4] = {
        {"a", "b", "c", "d"}, {"a", "bc", "", "d"},  {"ab", "", "c", "d"},
        {"a", "b", "cd", ""}, {"a", NULL, "c", "d"}, {"a", "b", "c", NULL},
    };
    struct digest digests[6];

    (void)state;
    for (size_t i = 0; i < 6; i++) {
        struct cache_key *key = cache_key_new("test");
        for (size_t j = 0; j < 4; j++)
            cache_key_text(key, "f", fields[i][j]);
        cache_key_finish(key, &digests[i]);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(digests[i].text, digests[j].text);
    }
    struct cache_key *a = cache_key_new("x"), *b = cache_key_new("y");
    cache_key_finish(a, &digests[0]);
    cache_key_finish(b, &digests[1]);
    assert_string_not_equal(digests[0].text, digests[1].text);
}

static void pruning(void **state)
{
    struct error err = {0};
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);
    struct cached_layer layer = {.size = 4}, found;
    struct digest key[5];

    (void)state;
    for (int i = 0; i < 5; i++) {
        char text[8];
        snprintf(text, sizeof text, "key%d", i);
        key_of(text, &key[i]);
        ok(store_blob_put(store, text, 4, &layer.digest, &err), err);
        layer.diff_id = layer.digest;
        ok(build_cache_put(store, &key[i], &layer, &err), err);
        cleanup_free char *name = mem_printf("store/build/%s", key[i].text + 7);
        age(name, 1000 * (i + 1));
    }
    put("store/build/half-written.1.tmp", "lay");
    age("store/build/half-written.1.tmp", 2 * 24 * 3600);
    assert_int_equal(build_cache_prune(store, 1000000, 100, UINT64_MAX), 1);
    assert_int_equal(build_cache_prune(store, 4500, 100, UINT64_MAX), 1);
    assert_int_equal(build_cache_get(store, &key[4], &found), 0);
    assert_int_equal(build_cache_prune(store, 1000000, 3, UINT64_MAX), 1);
    assert_int_equal(build_cache_get(store, &key[3], &found), 0);
    assert_int_equal(build_cache_prune(store, 1000000, 3, 8), 1);
    assert_int_equal(build_cache_get(store, &key[2], &found), 0);
    assert_int_equal(build_cache_get(store, &key[1], &found), 1);
    /* A layer that two entries name counts once. */
    ok(build_cache_put(store, &key[2], &found, &err), err);
    assert_int_equal(build_cache_prune(store, 1000000, 3, 8), 0);
    assert_true(store_blob_exists(store, layer.digest.text, NULL));
}

/* ---- builds ---- */

#define COPY_ALL "FROM scratch\nCOPY . /app/\n"

static void copies(void **state)
{
    (void)state;
    put("ctx/a", "one");
    put("ctx/dir/b", "two");
    struct digest first = build(COPY_ALL);
    assert_int_equal(cached, 0);
    struct digest second = build(COPY_ALL);
    assert_int_equal(cached, 1);
    assert_string_equal(first.text, second.text);

    /* Other times, other inodes: the same content. */
    put("ctx/a", "one");
    second = build(COPY_ALL);
    assert_int_equal(cached, 1);
    assert_string_equal(first.text, second.text);
    assert_int_equal(chmod(in("ctx/a"), 0640), 0);
    second = build(COPY_ALL);
    assert_int_equal(cached, 1);
    /* What comes before in the stage changes nothing, for it is not in the layer. */
    build("FROM scratch\nLABEL x=y\nENV A=b\nCOPY . /app/\n");
    assert_int_equal(cached, 1);
    build("FROM scratch AS base\nCOPY ./ /app\n");
    assert_int_equal(cached, 1);

    static const char *const others[] = {
        "FROM scratch\nCOPY . /opt/\n",
        "FROM scratch\nCOPY --chown=1:1 . /app/\n",
        "FROM scratch\nCOPY --chmod=600 . /app/\n",
        "FROM scratch\nCOPY a /app/\n",
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        build(others[i]);
        assert_int_equal(cached, 0);
    }
    build_with(COPY_ALL, BUILD_CACHE_USE, 1000);
    assert_int_equal(cached, 0);

    put("ctx/a", "One"); /* the same size */
    second = build(COPY_ALL);
    assert_int_equal(cached, 0);
    content(&second, "app/a", "One");
    assert_int_equal(chmod(in("ctx/a"), 0755), 0);
    build(COPY_ALL);
    assert_int_equal(cached, 0);
    assert_int_equal(rename(in("ctx/a"), in("ctx/c")), 0);
    build(COPY_ALL);
    assert_int_equal(cached, 0);
    assert_int_equal(symlink("c", in("ctx/link")), 0);
    build(COPY_ALL);
    assert_int_equal(cached, 0);
    assert_int_equal(unlink(in("ctx/link")), 0);
    assert_int_equal(symlink("dir/b", in("ctx/link")), 0);
    build(COPY_ALL);
    assert_int_equal(cached, 0);
    build(COPY_ALL);
    assert_int_equal(cached, 1);
    /* Back to what there was. */
    assert_int_equal(unlink(in("ctx/link")), 0);
    assert_int_equal(rename(in("ctx/c"), in("ctx/a")), 0);
    put("ctx/a", "one");
    second = build(COPY_ALL);
    assert_int_equal(cached, 1);
    assert_string_equal(first.text, second.text);
}

/* The clock of a file can be set back, but not that of its inode. */
static void hidden_change(void **state)
{
    struct timespec times[2] = {{1000, 5}, {1000, 5}};

    (void)state;
    put("ctx/a", "one");
    assert_int_equal(utimensat(AT_FDCWD, in("ctx/a"), times, 0), 0);
    build(COPY_ALL);
    build(COPY_ALL);
    assert_int_equal(cached, 1);
    cleanup_close int fd = open(in("ctx/a"), O_WRONLY);
    assert_int_equal(pwrite(fd, "ONE", 3, 0), 3);
    assert_int_equal(utimensat(AT_FDCWD, in("ctx/a"), times, 0), 0);
    struct digest second = build(COPY_ALL);
    assert_int_equal(cached, 0);
    content(&second, "app/a", "ONE");
}

static void lost_blob(void **state)
{
    struct error err = {0};
    cleanup_value struct value manifest = {0};

    (void)state;
    put("ctx/a", "one");
    struct digest first = build(COPY_ALL);
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);
    ok(oci_manifest_load(store, first.text, &manifest, NULL, &err), err);
    const char *layer = value_get_string(value_at(value_get(&manifest, "layers"), 0), "digest", "");
    ok(store_blob_delete(store, layer, &err), err);
    struct digest second = build(COPY_ALL);
    assert_int_equal(cached, 0);
    assert_string_equal(first.text, second.text);
    assert_true(store_blob_exists(store, layer, NULL));
    cleanup_free char *path = store_blob_path(store, layer);
    assert_int_equal(truncate(path, 10), 0);
    second = build(COPY_ALL);
    assert_int_equal(cached, 0);
    content(&second, "app/a", "one");
}

static void archive(void)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        execlp("tar", "tar", "-C", in("ctx"), "-cf", in("ctx/t.tar"), "x", (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void stages_and_archives(void **state)
{
    static const char dockerfile[] = "FROM scratch AS a\nCOPY x /x\nFROM scratch\nWORKDIR /w\n"
                                     "COPY --from=a /x /y\nADD t.tar /t/\n";
    (void)state;
    put("ctx/x", "one");
    archive();
    struct digest first = build(dockerfile);
    assert_int_equal(cached, 0);
    struct digest second = build(dockerfile);
    assert_int_equal(cached, 4);
    assert_string_equal(first.text, second.text);
    put("ctx/x", "two");
    second = build(dockerfile);
    assert_int_equal(cached, 2); /* WORKDIR and ADD */
    content(&second, "y", "two");
    content(&second, "t/x", "one");
    archive();
    second = build(dockerfile);
    assert_int_equal(cached, 3);
    content(&second, "t/x", "two");
}

static void not_asked(void **state)
{
    (void)state;
    put("ctx/a", "one");
    build_with(COPY_ALL, BUILD_CACHE_OFF, 0);
    assert_int_equal(access(in("store/build"), F_OK), -1);
    build_with(COPY_ALL, BUILD_CACHE_RENEW, 0);
    build_with(COPY_ALL, BUILD_CACHE_RENEW, 0);
    assert_int_equal(cached, 0);
    build_with(COPY_ALL, BUILD_CACHE_OFF, 0);
    assert_int_equal(cached, 0);
    build(COPY_ALL);
    assert_int_equal(cached, 1);
}

/* ---- digests of files ---- */

static struct digest digest_of(const char *name, bool expect_known)
{
    struct error err = {0};
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);
    struct context *context = context_list(in("ctx"), NULL, &err);
    struct digest digest;

    assert_non_null(context);
    context_settle(context);
    context_remember(context, store);
    const struct context_file *file = context_find(context, name);
    assert_non_null(file);
    assert_int_equal(context_digest_known(context, file), expect_known);
    ok(context_digest(context, file, &digest, &err), err);
    context_known_save(context);
    context_free(context);
    return digest;
}

static char *only_index(void)
{
    DIR *folder = opendir(in("store/build/files"));
    char *path = NULL;

    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.') {
            assert_null(path);
            path = mem_printf("%s/store/build/files/%s", work, entry->d_name);
        }
    closedir(folder);
    return path;
}

static void known_files(void **state)
{
    struct error err = {0};
    struct digest right;

    (void)state;
    put("ctx/a", "one");
    put("ctx/b", "other");
    digest_bytes("one", 3, &right);
    assert_string_equal(digest_of("a", false).text, right.text);
    assert_string_equal(digest_of("a", true).text, right.text);
    digest_of("b", false);
    assert_string_equal(digest_of("a", true).text, right.text);

    /* A damaged index is none, wherever the damage is. */
    cleanup_free char *index = only_index();
    cleanup_buf struct buf whole = BUF_INIT;
    ok(file_read(AT_FDCWD, index, 65536, &whole, &err), err);
    for (size_t i = 0; i < whole.len; i += 7) {
        whole.data[i] ^= 1;
        ok(file_write(AT_FDCWD, index, whole.data, whole.len, false, &err), err);
        whole.data[i] ^= 1;
        assert_string_equal(digest_of("a", false).text, right.text);
        ok(file_write(AT_FDCWD, index, whole.data, i, false, &err), err);
        assert_string_equal(digest_of("a", false).text, right.text);
    }
    ok(file_write(AT_FDCWD, index, whole.data, whole.len, false, &err), err);
    assert_string_equal(digest_of("a", true).text, right.text);

    put("ctx/a", "two");
    digest_bytes("two", 3, &right);
    assert_string_equal(digest_of("a", false).text, right.text);
    assert_string_equal(digest_of("a", true).text, right.text);
}

/* What was written within the same tick as it was looked at may change without a trace. */
static void settled(void **state)
{
    const int64_t now = INT64_C(1700000000000000000);
    static const struct {
        int64_t modified_ago, changed_ago;
        bool settled;
    } cases[] = {
        {1000000001, 900000001, true},
        {1, 900000001, false},
        {900000001, 1, false},
        {-5, -5, false}, /* clocks differ */
        {3600000000001, 20000001, false},
        {3600000000001, 40000001, true},
        {1000000000, 1000000000, false}, /* whole seconds: it counts in them */
        {3000000000, 3000000000, true},
        {3000000000, 1000000000, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct context context = {.listed_ns = now};
        struct context_file file = {.modified_ns = now - cases[i].modified_ago,
                                    .changed_ns = now - cases[i].changed_ago};
        assert_int_equal(context_settled(&context, &file), cases[i].settled);
    }
}

/* ---- lists of layers ---- */

static void make_layer(struct store *store, bool second, struct layer_result *out)
{
    static uint8_t noise[300000];
    struct error err = {0};
    const struct layer_entry first_entries[] = {
        {.path = "d", .mode = S_IFDIR | 0750, .uid = 3},
        {.path = "d/gone", .mode = S_IFREG | 0644},
        {.path = "d/noise", .mode = S_IFREG | 0600, .data = noise, .size = sizeof noise, .gid = 9},
        {.path = "d/second", .mode = S_IFREG | 0600, .hard = true, .link = "d/noise"},
        {.path = "link", .mode = S_IFLNK | 0777, .link = "d/noise"},
        {.path = "old/x", .mode = S_IFREG | 0644},
    };
    const struct layer_entry second_entries[] = {
        {.path = "d/.wh.gone", .mode = S_IFREG | 0644},
        {.path = "n", .mode = S_IFREG | 0600, .data = noise, .size = sizeof noise},
        {.path = "old/.wh..wh..opq", .mode = S_IFREG | 0644},
    };
    uint32_t random = 1;
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
    struct layer *layer = layer_new(store, 0, NULL, &err);
    assert_non_null(layer);
    for (size_t i = 0; i < (second ? 3 : 6); i++)
        ok(layer_add(layer, second ? &second_entries[i] : &first_entries[i], &err), err);
    ok(layer_finish(layer, out, &err), err);
}

static char *tree_text(const struct tree *tree)
{
    cleanup_buf struct buf text = BUF_INIT;
    size_t count;
    const struct tree_node **nodes = tree_sorted(tree, &count);

    for (size_t i = 0; i < count; i++)
        buf_printf(&text, "%s %o %u %u %s %s %d %zu\n", nodes[i]->path, nodes[i]->mode,
                   nodes[i]->uid, nodes[i]->gid, nodes[i]->link ? nodes[i]->link : "-",
                   nodes[i]->origin ? nodes[i]->origin : "-", nodes[i]->layer,
                   (size_t)nodes[i]->size);
    free(nodes);
    return buf_steal(&text);
}

static char *listed(struct store *store, const struct layer_result layers[2])
{
    struct error err = {0};
    struct tree tree = {0};

    for (size_t i = 0; i < 2; i++)
        ok(tree_add_blob(&tree, store, layers[i].digest.text, &err), err);
    char *text = tree_text(&tree);
    tree_free(&tree);
    return text;
}

static void layer_lists(void **state)
{
    struct error err = {0};
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);
    struct layer_result layers[2];
    struct tree tree = {0};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        make_layer(store, i == 1, &layers[i]);
        cleanup_close int fd = store_blob_open(store, layers[i].digest.text, NULL, &err);
        ok(tree_add_layer(&tree, fd, &err), err);
    }
    cleanup_free char *wanted = tree_text(&tree);
    tree_free(&tree);
    holds(wanted, "d/second 100600 0 9 - d/noise 0 300000");
    assert_null(strstr(wanted, "gone"));
    assert_null(strstr(wanted, "old/x"));
    for (int i = 0; i < 2; i++) {
        cleanup_free char *text = listed(store, layers);
        assert_string_equal(text, wanted);
    }
    cleanup_free char *name =
        mem_printf("%s/store/build/trees/%s", work, layers[0].digest.text + 7);
    cleanup_free char *blob = store_blob_path(store, layers[0].digest.text);
    cleanup_buf struct buf list = BUF_INIT;
    ok(file_read(AT_FDCWD, name, 65536, &list, &err), err);
    /* It is the list that is read: zeros of the same size are no layer. */
    ok(file_write(AT_FDCWD, blob, "", 0, false, &err), err);
    assert_int_equal(truncate(blob, (off_t)layers[0].size), 0);
    cleanup_free char *by_list = listed(store, layers);
    assert_string_equal(by_list, wanted);
    assert_int_equal(unlink(blob), 0);
    make_layer(store, false, &layers[0]);
    /* Damaged anywhere, it is none. */
    for (size_t i = 0; i < list.len; i += 11) {
        list.data[i] ^= 4;
        ok(file_write(AT_FDCWD, name, list.data, list.len, false, &err), err);
        list.data[i] ^= 4;
        cleanup_free char *text = listed(store, layers);
        assert_string_equal(text, wanted);
        ok(file_write(AT_FDCWD, name, list.data, i, false, &err), err);
        cleanup_free char *again = listed(store, layers);
        assert_string_equal(again, wanted);
    }
}

/* ---- SOURCE_DATE_EPOCH ---- */

static void epochs(void **state)
{
    static const struct {
        const char *env, *arg; /* NULL: not set */
        int64_t epoch;
        bool given;
    } good[] = {
        {NULL, NULL, 0, false}, {"", NULL, 0, false},
        {"0", NULL, 0, true},   {"1700000000", NULL, 1700000000, true},
        {"5", "6", 6, true},    {"5", "", 0, false},
        {"bad", "7", 7, true},  {NULL, "253402300799", INT64_C(253402300799), true},
        {NULL, "007", 7, true},
    };
    static const char *const bad[] = {"abc", "-1",  "+1",           " 1",
                                      "1 ",  "1.5", "1e9",          "0x10",
                                      "١",   "1\n", "253402300800", "99999999999999999999"};
    struct error err = {0};
    int64_t epoch;
    bool given;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cleanup_value struct value args = {0};
        unsetenv("SOURCE_DATE_EPOCH");
        if (good[i].env)
            setenv("SOURCE_DATE_EPOCH", good[i].env, 1);
        if (good[i].arg)
            value_put_string(&args, "SOURCE_DATE_EPOCH", good[i].arg);
        ok(build_epoch(&args, &epoch, &given, &err), err);
        assert_int_equal(epoch, good[i].epoch);
        assert_int_equal(given, good[i].given);
        /* The environment's is a build argument, for an ARG of that name. */
        if (good[i].given)
            assert_string_equal(value_get_string(&args, "SOURCE_DATE_EPOCH", ""),
                                good[i].arg ? good[i].arg : good[i].env);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cleanup_value struct value args = {0};
        setenv("SOURCE_DATE_EPOCH", bad[i], 1);
        fails(build_epoch(NULL, &epoch, &given, &err), err, ERR_INVALID, "of the environment");
        unsetenv("SOURCE_DATE_EPOCH");
        value_put_string(&args, "SOURCE_DATE_EPOCH", bad[i]);
        fails(build_epoch(&args, &epoch, &given, &err), err, ERR_INVALID, "args.SOURCE_DATE_EPOCH");
        holds(err.hint, "git log");
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(entries),   TEST(broken_entries), TEST(keys),      TEST(pruning),
        TEST(copies),    TEST(hidden_change),  TEST(lost_blob), TEST(stages_and_archives),
        TEST(not_asked), TEST(known_files),    TEST(settled),   TEST(layer_lists),
        TEST(epochs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
