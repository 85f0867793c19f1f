/* The store, references, manifests, and unpacking what was made to break out. */
#include "check.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "oci/build.h"
#include "oci/layer.h"
#include "oci/manifest.h"
#include "oci/reference.h"
#include "oci/tree.h"
#include "oci/unpack.h"

static char work[64];
static struct store *store;

static char *in(const char *name)
{
    static char paths[8][256];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", work, name);
    return path;
}

static int set_up(void **state)
{
    struct error err = {0};

    (void)state;
    snprintf(work, sizeof work, "/tmp/mlhost-store-XXXXXX");
    if (!mkdtemp(work))
        return -1;
    store = store_open_at(in("store"), true, &err);
    return store ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    store_close(store);
    return dir_remove(work, NULL);
}

static void grammar(void **state)
{
    static const char *const good[] = {"a",    "a/b",  "a.b",         "a_b",
                                       "a__b", "a--b", "mlhost/base", "0/1"};
    static const char *const bad[] = {"",       "/a",        "a/",  "a//b", "..",
                                      "a/../b", "A",         "a_",  "_a",   "a..b",
                                      "a___b",  "a/_tags/x", "a b", "-a",   "a/.b"};

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(store_name_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (store_name_valid(bad[i]))
            fail_msg("'%s' passed", bad[i]);
    assert_true(store_tag_valid("v1.0-x_Y"));
    assert_false(store_tag_valid("../x"));
    assert_false(store_tag_valid(".x"));
    assert_false(store_tag_valid("a/b"));
    assert_false(store_tag_valid(""));
    assert_false(digest_valid("sha256:ABC"));
    assert_false(
        digest_valid("sha256:../../../../../../../../../../../../../../../../../../../../../../x"));
}

static void uploads(void **state)
{
    struct error err = {0};
    struct digest want, got;
    cleanup_buf struct buf text = BUF_INIT;

    (void)state;
    digest_bytes("hello world", 11, &want);
    struct upload *upload = store_blob_begin(store, &err);
    ok(store_blob_write(upload, "hello ", 6, &err), err);
    cleanup_free char *id = mem_strdup(store_upload_id(upload));
    assert_null(store_blob_resume(store, id, &err)); /* two at a time would mix their bytes */
    assert_int_equal(err.code, ERR_CONFLICT);
    store_blob_park(upload);
    /* Another process, which has not seen the first half. */
    struct store *other = store_open_at(in("store"), true, &err);
    upload = store_blob_resume(other, id, &err);
    assert_non_null(upload);
    assert_int_equal(store_upload_size(upload), 6);
    ok(store_blob_write(upload, "world", 5, &err), err);
    ok(store_blob_commit(upload, want.text, &got, &err), err);
    store_close(other);
    assert_string_equal(want.text, got.text);
    ok(store_blob_read(store, want.text, 100, &text, &err), err);
    assert_string_equal(text.data, "hello world");
    assert_null(store_blob_resume(store, "../../etc/passwd", &err));
    assert_null(store_blob_resume(store, id, &err));
}

static void mismatch_keeps_nothing(void **state)
{
    struct error err = {0};
    struct digest other, is;

    (void)state;
    digest_bytes("other", 5, &other);
    digest_bytes("these", 5, &is);
    struct upload *upload = store_blob_begin(store, &err);
    ok(store_blob_write(upload, "these", 5, &err), err);
    fails(store_blob_commit(upload, other.text, NULL, &err), err, ERR_DIGEST, is.text);
    holds(err.message, other.text);
    assert_false(store_blob_exists(store, other.text, NULL));
    assert_false(store_blob_exists(store, is.text, NULL));
}

static void manifests_and_tags(void **state)
{
    struct error err = {0};
    struct digest config, digest, found;
    cleanup_value struct value tags = {0};
    cleanup_value struct value names = {0};
    cleanup_free char *type = NULL;
    cleanup_free char *lacking = NULL;

    (void)state;
    ok(store_blob_put(store, "{}", 2, &config, &err), err);
    cleanup_free char *text = mem_printf("{\"schemaVersion\":2,\"mediaType\":\"" OCI_MANIFEST
                                         "\",\"config\":{\"mediaType\":"
                                         "\"x\",\"digest\":\"%s\",\"size\":2},\"layers\":[]}",
                                         config.text);
    ok(store_manifest_put(store, "team/x", "v2", OCI_MANIFEST, text, strlen(text), false, &digest,
                          &err),
       err);
    ok(store_tag_set(store, "team/x", "v1", digest.text, &err), err);
    ok(store_manifest_get(store, "team/x", "v1", NULL, &type, &found, &err), err);
    assert_string_equal(found.text, digest.text);
    assert_string_equal(type, OCI_MANIFEST);
    ok(store_tags(store, "team/x", &tags, &err), err);
    assert_int_equal(value_count(&tags), 2);
    assert_string_equal(value_text(value_at(&tags, 0), ""), "v1");
    ok(store_repositories(store, &names, &err), err);
    assert_int_equal(value_count(&names), 1);
    assert_string_equal(value_text(value_at(&names, 0), ""), "team/x");
    fails(store_manifest_get(store, "team/y", digest.text, NULL, NULL, NULL, &err), err,
          ERR_NOT_FOUND, "team/y");
    fails(store_tag_resolve(store, "team/x", "v3", &found, &err), err, ERR_NOT_FOUND, "team/x:v3");
    lacking = mem_printf(
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:%064d\",\"size\":2},\"layers\":[]}",
        0);
    fails(store_manifest_put(store, "a", "t", OCI_MANIFEST, lacking, strlen(lacking), false, NULL,
                             &err),
          err, ERR_NOT_FOUND, "not in the registry");
    fails(store_manifest_put(store, "a", config.text, OCI_MANIFEST, text, strlen(text), false, NULL,
                             &err),
          err, ERR_DIGEST, config.text);
    ok(store_manifest_delete(store, "team/x", digest.text, &err), err);
    fails(store_tag_resolve(store, "team/x", "v1", &found, &err), err, ERR_NOT_FOUND, "v1");
}

static void references(void **state)
{
    static const struct {
        const char *text, *host, *name, *tag;
    } cases[] = {
        {"debian", "docker.io", "library/debian", "latest"},
        {"team/x:1", "docker.io", "team/x", "1"},
        {"localhost/x", "localhost", "x", "latest"},
        {"localhost:5000/a/b:v", "localhost:5000", "a/b", "v"},
        {"acme.azurecr.io/x", "acme.azurecr.io", "x", "latest"},
        {"index.docker.io/team/x", "docker.io", "team/x", "latest"},
        {"mlhost.local/mlhost/base:t", "mlhost.local", "mlhost/base", "t"},
    };
    static const char *const bad[] = {"",       "UPPER",    "a:b:c", "a@sha256:12", "a//b",
                                      "x/../y", "host.io/", "a b",   "a:"};
    struct error err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cleanup_image_reference struct image_reference reference = {0};
        ok(image_reference_parse(cases[i].text, NULL, &reference, &err), err);
        assert_string_equal(reference.host, cases[i].host);
        assert_string_equal(reference.name, cases[i].name);
        assert_string_equal(reference.tag, cases[i].tag);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cleanup_image_reference struct image_reference reference = {0};
        fails(image_reference_parse(bad[i], NULL, &reference, &err), err, ERR_INVALID,
              "no image reference");
    }
    assert_true(host_is_loopback("127.0.0.1:5000"));
    assert_false(host_is_loopback("localhost.example.org"));
}

/* ---- layers that others made ---- */

struct made {
    const char *path;
    mode_t type, mode;
    const char *link, *hard, *text;
};

/* An image of one layer with these entries, as anybody could write it. */
static void image_of(const struct made *entries, size_t count, struct build_result *out)
{
    struct error err = {0};
    struct archive *archive = archive_write_new();
    cleanup_buf struct buf tar = BUF_INIT;
    cleanup_value struct value config = {0};
    cleanup_value struct value layers = {0};
    struct digest digest;
    size_t used = 0;

    archive_write_set_format_pax(archive);
    archive_write_add_filter_none(archive);
    archive_write_open_memory(archive, buf_reserve(&tar, 1 << 20), 1 << 20, &used);
    for (size_t i = 0; i < count; i++) {
        struct archive_entry *entry = archive_entry_new();
        archive_entry_set_pathname(entry, entries[i].path);
        archive_entry_set_filetype(entry, entries[i].type);
        archive_entry_set_perm(entry, entries[i].mode);
        if (entries[i].link)
            archive_entry_set_symlink(entry, entries[i].link);
        if (entries[i].hard)
            archive_entry_set_hardlink(entry, entries[i].hard);
        size_t len = entries[i].text ? strlen(entries[i].text) : 0;
        archive_entry_set_size(entry, (la_int64_t)len);
        assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
        if (len)
            archive_write_data(archive, entries[i].text, len);
        archive_entry_free(entry);
    }
    archive_write_free(archive);
    ok(store_blob_put(store, tar.data, used, &digest, &err), err);
    value_set_array(&layers);
    struct value *descriptor = value_push(&layers);
    value_set_map(descriptor);
    value_put_string(descriptor, "mediaType", "application/vnd.oci.image.layer.v1.tar");
    value_put_string(descriptor, "digest", digest.text);
    value_put_int(descriptor, "size", (int64_t)used);
    value_set_map(&config);
    struct value *rootfs = value_put(&config, "rootfs");
    value_set_map(rootfs);
    struct value *ids = value_put(rootfs, "diff_ids");
    value_set_array(ids);
    value_push_string(ids, digest.text);
    ok(build_write_image(store, &config, &layers, NULL, out, &err), err);
}
#define IMAGE(out, ...)                                                                            \
    do {                                                                                           \
        const struct made list_[] = {__VA_ARGS__};                                                 \
        image_of(list_, sizeof list_ / sizeof *list_, out);                                        \
    } while (0)

static void no_way_out(void **state)
{
    struct build_result image;
    struct error err;

    (void)state;
    IMAGE(&image, {"../evil", S_IFREG, 0644, NULL, NULL, "x"});
    fails(oci_unpack(store, image.manifest.text, in("a"), NULL, &err), err, ERR_INVALID,
          "leads out");
    assert_int_not_equal(access(in("evil"), F_OK), 0);
    assert_int_not_equal(access(in("a"), F_OK), 0); /* nothing is left of it */

    IMAGE(&image, {"dir", S_IFLNK, 0777, "..", NULL, NULL},
          {"dir/evil", S_IFREG, 0644, NULL, NULL, "x"});
    ok(oci_unpack(store, image.manifest.text, in("b"), NULL, &err), err);
    assert_int_not_equal(access(in("evil"), F_OK), 0);

    IMAGE(&image, {"abs", S_IFLNK, 0777, work, NULL, NULL},
          {"abs/evil", S_IFREG, 0644, NULL, NULL, "x"});
    ok(oci_unpack(store, image.manifest.text, in("c"), NULL, &err), err);
    assert_int_not_equal(access(in("evil"), F_OK), 0);

    IMAGE(&image, {"h", S_IFREG, 0644, NULL, "../store/uploads", NULL});
    fails(oci_unpack(store, image.manifest.text, in("d"), NULL, &err), err, ERR_INVALID,
          "leads out");

    /* A link, then a file of the same name: the link is replaced, what it names is not written to.
     */
    assert_int_equal(mkdir(in("victim"), 0755), 0);
    ok(file_write(AT_FDCWD, in("victim/f"), "safe", 4, false, &err), err);
    cleanup_free char *victim = mem_strdup(in("victim/f"));
    IMAGE(&image, {"f", S_IFLNK, 0777, victim, NULL, NULL},
          {"f", S_IFREG, 0644, NULL, NULL, "evil"});
    ok(oci_unpack(store, image.manifest.text, in("e"), NULL, &err), err);
    cleanup_buf struct buf text = BUF_INIT;
    ok(file_read(AT_FDCWD, victim, 100, &text, &err), err);
    assert_string_equal(text.data, "safe");

    IMAGE(&image, {"s", S_IFREG, 06755, NULL, NULL, "x"});
    ok(oci_unpack(store, image.manifest.text, in("g"), NULL, &err), err);
    struct stat st;
    assert_int_equal(stat(in("g/s"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
}

static void limits(void **state)
{
    struct build_result image;
    struct error err;
    struct unpack_options options = {.max_bytes = 3};

    (void)state;
    IMAGE(&image, {"a", S_IFREG, 0644, NULL, NULL, "four"});
    fails(oci_unpack(store, image.manifest.text, in("a"), &options, &err), err, ERR_TOO_LARGE,
          "larger than allowed");
    options = (struct unpack_options){.max_entries = 1};
    IMAGE(&image, {"a", S_IFREG, 0644, NULL, NULL, "x"}, {"b", S_IFREG, 0644, NULL, NULL, "x"});
    fails(oci_unpack(store, image.manifest.text, in("b"), &options, &err), err, ERR_TOO_LARGE,
          "more entries");
}

static void damaged_layer(void **state)
{
    struct build_result image;
    struct error err;
    cleanup_value struct value manifest = {0};

    (void)state;
    IMAGE(&image, {"a", S_IFREG, 0644, NULL, NULL, "text"});
    ok(oci_manifest_load(store, image.manifest.text, &manifest, NULL, &err), err);
    cleanup_free char *path = store_blob_path(
        store, value_get_string(value_at(value_get(&manifest, "layers"), 0), "digest", ""));
    cleanup_close int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "X", 1, 512), 1); /* in the file's content: the tar is still one */
    fails(oci_unpack(store, image.manifest.text, in("a"), NULL, &err), err, ERR_DIGEST,
          "expected was");
    assert_int_not_equal(access(in("a"), F_OK), 0);
}

/* Two layers by our own writer, the second with whiteouts. */
static void whiteouts(void **state)
{
    static const struct made layers[2][6] = {
        {{"a", S_IFREG, 0644, NULL, NULL, "a"},
         {"d", S_IFDIR, 0755, NULL, NULL, NULL},
         {"d/old", S_IFREG, 0644, NULL, NULL, "o"},
         {"e", S_IFDIR, 0755, NULL, NULL, NULL},
         {"e/x", S_IFREG, 0644, NULL, NULL, "x"},
         {"keep", S_IFREG, 0644, NULL, NULL, "k"}},
        {{".wh.a", S_IFREG, 0644, NULL, NULL, ""},
         {"d/.wh..wh..opq", S_IFREG, 0644, NULL, NULL, ""},
         {"d/new", S_IFREG, 0644, NULL, NULL, "n"},
         {".wh.e", S_IFREG, 0644, NULL, NULL, ""},
         {"keep", S_IFREG, 0600, NULL, NULL, "K"},
         {"long/"
          "0123456789012345678901234567890123456789012345678901234567890123456789/"
          "0123456789012345678901234567890123456789012345678901234567890123456789/"
          "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"
          "89"
          "0123456789012345678901234567890123456789",
          S_IFREG, 0644, NULL, NULL, "long"}},
    };
    cleanup_value struct value list = {0};
    cleanup_value struct value config = {0};
    struct build_result image;
    struct error err = {0};
    struct tree tree = {0};

    (void)state;
    value_set_array(&list);
    value_set_map(&config);
    struct value *rootfs = value_put(&config, "rootfs");
    value_set_map(rootfs);
    struct value *ids = value_put(rootfs, "diff_ids");
    value_set_array(ids);
    for (size_t l = 0; l < 2; l++) {
        struct layer_result result;
        struct layer *layer = layer_new(store, 0, NULL, &err);
        for (size_t i = 0; i < 6; i++) {
            struct layer_entry entry = {
                .path = layers[l][i].path, .mode = layers[l][i].type | layers[l][i].mode, .fd = -1};
            entry.data = layers[l][i].text;
            entry.size = layers[l][i].text ? strlen(layers[l][i].text) : 0;
            ok(layer_add(layer, &entry, &err), err);
        }
        ok(layer_finish(layer, &result, &err), err);
        struct value *descriptor = value_push(&list);
        value_set_map(descriptor);
        value_put_string(descriptor, "mediaType", OCI_LAYER_GZIP);
        value_put_string(descriptor, "digest", result.digest.text);
        value_put_int(descriptor, "size", (int64_t)result.size);
        value_push_string(ids, result.diff_id.text);
        cleanup_close int fd = store_blob_open(store, result.digest.text, NULL, &err);
        ok(tree_add_layer(&tree, fd, &err), err);
    }
    ok(build_write_image(store, &config, &list, NULL, &image, &err), err);
    ok(oci_unpack(store, image.manifest.text, in("out"), NULL, &err), err);
    static const struct {
        const char *path;
        bool there;
    } paths[] = {{"a", false}, {"d/old", false}, {"d/new", true},
                 {"e", false}, {"e/x", false},   {"keep", true}};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        cleanup_free char *path = mem_printf("out/%s", paths[i].path);
        assert_int_equal(access(in(path), F_OK) == 0, paths[i].there);
        assert_int_equal(tree_get(&tree, paths[i].path) != NULL, paths[i].there);
    }
    cleanup_free char *deep = mem_printf("%s/out/%s", work, layers[1][5].path);
    assert_int_equal(access(deep, F_OK), 0);
    tree_free(&tree);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(grammar),
        TEST(uploads),
        TEST(mismatch_keeps_nothing),
        TEST(manifests_and_tags),
        TEST(references),
        TEST(no_way_out),
        TEST(limits),
        TEST(damaged_layer),
        TEST(whiteouts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
