/* Layers as folders of an overlay: marks of what is removed, folders that are in no entry, and
 * names that must lead nowhere. */
#include "check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/layer.h"
#include "oci/layer_dirs.h"

static char work[64];
static struct store *store;
static char *root;

static int set_up(void **state)
{
    struct error err = {0};

    (void)state;
    snprintf(work, sizeof work, "/tmp/mlhost-dirs-XXXXXX");
    store = mkdtemp(work) ? store_open_at(work, false, &err) : NULL;
    root = store ? layer_dirs_root(store, &err) : NULL;
    return root ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    free(root);
    store_close(store);
    return dir_remove(work, NULL);
}

struct one {
    const char *path;
    mode_t mode;
    uint32_t uid;
    const char *link;
};

/* One more layer on *layers, of entries ended by one without a path. */
static void add(struct value *layers, const struct one *entries)
{
    struct error err = {0};
    struct layer_result result;
    struct layer *layer = layer_new(store, 0, NULL, &err);

    assert_non_null(layer);
    for (; entries->path; entries++) {
        struct layer_entry entry = {.path = entries->path,
                                    .mode = entries->mode,
                                    .uid = entries->uid,
                                    .link = entries->link,
                                    .fd = -1,
                                    .data = "text",
                                    .size = S_ISREG(entries->mode) ? 4 : 0};
        ok(layer_add(layer, &entry, &err), err);
    }
    ok(layer_finish(layer, &result, &err), err);
    if (layers->kind != VALUE_ARRAY)
        value_set_array(layers);
    struct value *item = value_push(layers);
    value_set_map(item);
    value_put_string(item, "digest", result.digest.text);
    value_put_string(item, "diff_id", result.diff_id.text);
}

static int make(const struct value *layers, struct strings *names, struct error *err)
{
    static const struct unpack_options options;

    return layer_dirs_make(store, root, layers, &options, names, err);
}

static bool look(const char *name, const char *path, struct stat *st)
{
    cleanup_free char *at = mem_printf("%s/%s/%s", root, name, path);

    return lstat(at, st) == 0;
}

static const struct one base[] = {{"bin", S_IFLNK | 0777, 0, "usr/bin"},
                                  {"home", S_IFDIR | 0755, 0, NULL},
                                  {"home/app", S_IFDIR | 0700, 1000, NULL},
                                  {"loop", S_IFLNK | 0777, 0, "/loop"},
                                  {"out", S_IFLNK | 0777, 0, "../../../../../../tmp"},
                                  {"srv", S_IFLNK | 0777, 0, "/data/./srv"},
                                  {"usr", S_IFDIR | 0755, 0, NULL},
                                  {"usr/bin", S_IFDIR | 0711, 7, NULL},
                                  {NULL, 0, 0, NULL}};

static void removals(void **state)
{
    static const struct one marks[] = {
        {"etc", S_IFDIR | 0755, 0, NULL},       {"etc/.wh.gone", S_IFREG | 0644, 0, NULL},
        {"new", S_IFDIR | 0755, 0, NULL},       {"new/.wh..wh..opq", S_IFREG | 0644, 0, NULL},
        {"new/file", S_IFREG | 04755, 0, NULL}, {NULL, 0, 0, NULL}};
    cleanup_value struct value layers = {0};
    cleanup_strings struct strings names = {0};
    struct error err = {0};
    struct stat st;
    char mark[2];

    (void)state;
    add(&layers, marks);
    ok(make(&layers, &names, &err), err);
    assert_int_equal(names.count, 1);
    assert_true(look(names.items[0], "etc/gone", &st));
    assert_true(S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0));
    assert_true(look(names.items[0], "new/file", &st));
    assert_int_equal(st.st_mode & 07777, 04755);
    cleanup_free char *path = mem_printf("%s/%s/new", root, names.items[0]);
    assert_int_equal(getxattr(path,
                              geteuid() == 0 ? "trusted.overlay.opaque" : "user.overlay.opaque",
                              mark, sizeof mark),
                     1);
}

static bool is_opaque(const char *name, const char *path)
{
    cleanup_free char *at = mem_printf("%s/%s/%s", root, name, path);
    char mark[2];

    return getxattr(at, geteuid() == 0 ? "trusted.overlay.opaque" : "user.overlay.opaque", mark,
                    sizeof mark) == 1;
}

/* What a layer has and removes, in whichever order, it has; what lies below is gone. */
static void removals_of_what_is_there(void **state)
{
    static const struct one marks[] = {
        {".wh.first", S_IFREG | 0644, 0, NULL}, {"first", S_IFDIR | 0755, 0, NULL},
        {"first/new", S_IFREG | 0644, 0, NULL}, {"then", S_IFDIR | 0755, 0, NULL},
        {"then/new", S_IFREG | 0644, 0, NULL},  {".wh.then", S_IFREG | 0644, 0, NULL},
        {"file", S_IFREG | 0644, 0, NULL},      {".wh.file", S_IFREG | 0644, 0, NULL},
        {"link", S_IFLNK | 0777, 0, "/plain"},  {".wh.link", S_IFREG | 0644, 0, NULL},
        {"plain", S_IFDIR | 0755, 0, NULL},     {NULL, 0, 0, NULL}};
    cleanup_value struct value layers = {0};
    cleanup_strings struct strings names = {0};
    struct error err = {0};
    struct stat st;

    (void)state;
    add(&layers, marks);
    ok(make(&layers, &names, &err), err);
    const char *name = names.items[0];
    assert_true(look(name, "first/new", &st) && look(name, "then/new", &st));
    assert_true(is_opaque(name, "first") && is_opaque(name, "then") && !is_opaque(name, "plain"));
    assert_true(look(name, "file", &st) && S_ISREG(st.st_mode));
    assert_true(look(name, "link", &st) && S_ISLNK(st.st_mode));
}

static void a_layer_that_hides_all(void **state)
{
    static const struct one all[] = {{".wh..wh..opq", S_IFREG | 0644, 0, NULL},
                                     {"alone", S_IFREG | 0644, 0, NULL},
                                     {NULL, 0, 0, NULL}};
    cleanup_value struct value layers = {0};
    cleanup_strings struct strings names = {0};
    struct error err = {0};
    struct stat st;

    (void)state;
    add(&layers, base);
    add(&layers, all);
    ok(make(&layers, &names, &err), err);
    assert_int_equal(names.count, 1);
    assert_true(look(names.items[0], "alone", &st));
}

/* Each would remove something beside the layer's own folder, or the folder itself. */
static void removals_of_nothing(void **state)
{
    static const char *const bad[] = {".wh.", ".wh..", ".wh...", "a/.wh..", "a/.wh...", "a/.wh."};
    struct error err = {0};
    struct stat st;

    (void)state;
    cleanup_free char *kept = mem_printf("%s/kept", root);
    ok(file_write(AT_FDCWD, kept, "text", 4, false, &err), err);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const struct one entries[] = {
            {"a", S_IFDIR | 0755, 0, NULL}, {bad[i], S_IFREG | 0644, 0, NULL}, {NULL, 0, 0, NULL}};
        cleanup_value struct value layers = {0};
        cleanup_strings struct strings names = {0};
        add(&layers, entries);
        fails(make(&layers, &names, &err), err, ERR_INVALID, "names nothing");
        assert_int_equal(lstat(kept, &st), 0);
    }
}

static void folders_without_entries(void **state)
{
    static const struct one odd[] = {{"bin/tool", S_IFREG | 0755, 0, NULL},
                                     {"fresh/deep/file", S_IFREG | 0644, 0, NULL},
                                     {"home/app/project/file", S_IFREG | 0644, 1000, NULL},
                                     {"out/planted", S_IFREG | 0644, 0, NULL},
                                     {"srv/.wh.old", S_IFREG | 0644, 0, NULL},
                                     {NULL, 0, 0, NULL}};
    cleanup_value struct value layers = {0}, alone = {0};
    cleanup_strings struct strings names = {0}, again = {0}, single = {0};
    struct error err = {0};
    struct stat st;

    (void)state;
    if (geteuid() != 0)
        skip();
    add(&layers, base);
    add(&layers, odd);
    add(&alone, odd);
    ok(make(&layers, &names, &err), err);
    assert_int_equal(names.count, 2);
    const char *top = names.items[0];
    assert_false(look(top, "bin", &st)); /* the link below stays in view */
    assert_true(look(top, "usr/bin/tool", &st));
    assert_true(look(top, "usr/bin", &st));
    assert_int_equal(st.st_uid, 7);
    assert_int_equal(st.st_mode & 07777, 0711);
    assert_true(look(top, "home/app", &st));
    assert_int_equal(st.st_uid, 1000);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_true(look(top, "home/app/project", &st));
    assert_int_equal(st.st_uid, 0);
    assert_true(look(top, "fresh/deep", &st));
    assert_true(look(top, "tmp/planted", &st)); /* inside, wherever the link leads */
    assert_int_equal(access("/tmp/planted", F_OK), -1);
    assert_true(look(top, "data/srv/old", &st));
    assert_true(S_ISCHR(st.st_mode));
    /* made once; and on other layers it is another folder */
    ok(make(&layers, &again, &err), err);
    assert_string_equal(again.items[0], top);
    ok(make(&alone, &single, &err), err);
    assert_string_not_equal(single.items[0], top);
    assert_true(look(single.items[0], "bin/tool", &st));
}

static void a_loop_of_links(void **state)
{
    static const struct one odd[] = {{"loop/file", S_IFREG | 0755, 0, NULL}, {NULL, 0, 0, NULL}};
    cleanup_value struct value layers = {0};
    cleanup_strings struct strings names = {0};
    struct error err = {0};

    (void)state;
    add(&layers, base);
    add(&layers, odd);
    fails(make(&layers, &names, &err), err, ERR_IO, "loop/file");
}

static void the_same_layer_twice(void **state)
{
    static const struct one file[] = {{"file", S_IFREG | 0644, 0, NULL}, {NULL, 0, 0, NULL}};
    cleanup_value struct value layers = {0};
    cleanup_strings struct strings names = {0};
    struct error err = {0};

    (void)state;
    add(&layers, file);
    add(&layers, base);
    add(&layers, file);
    ok(make(&layers, &names, &err), err);
    assert_int_equal(names.count, 2);
    value_put_string(value_at(&layers, 1), "diff_id", "sha256:../../x");
    fails(make(&layers, &names, &err), err, ERR_INVALID, "is no diff id");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(removals),
        cmocka_unit_test(removals_of_what_is_there),
        cmocka_unit_test(a_layer_that_hides_all),
        cmocka_unit_test(removals_of_nothing),
        cmocka_unit_test(folders_without_entries),
        cmocka_unit_test(a_loop_of_links),
        cmocka_unit_test(the_same_layer_twice),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
