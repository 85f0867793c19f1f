/* Garbage collection of a store: what stays, what goes, and who keeps it from going. */
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/build_cache.h"
#include "oci/layer_dirs.h"
#include "oci/store_gc.h"
#include "oci/store_mark.h"

#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_INDEX    "application/vnd.oci.image.index.v1+json"
#define HOUR         3600

static char work[64];
static struct store *store;

static int set_up(void **state)
{
    struct error err = {0};

    (void)state;
    snprintf(work, sizeof work, "/tmp/mlhost-gc-XXXXXX");
    if (!mkdtemp(work))
        return -1;
    store = store_open_at(work, false, &err);
    return store ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    store_close(store);
    return dir_remove(work, NULL);
}

/* Two hours ago. */
static void age(const char *path)
{
    struct timespec now, then[2];

    clock_gettime(CLOCK_REALTIME, &now);
    then[0] = then[1] = (struct timespec){.tv_sec = now.tv_sec - 2 * HOUR};
    assert_int_equal(utimensat(AT_FDCWD, path, then, AT_SYMLINK_NOFOLLOW), 0);
}

static void age_blob(const char *digest)
{
    cleanup_free char *path = store_blob_path(store, digest);
    age(path);
}

static void age_manifest(const char *name, const char *digest)
{
    cleanup_free char *path =
        mem_printf("%s/repositories/%s/_manifests/%s", work, name, digest + 7);
    age(path);
    age_blob(digest);
}

static struct digest blob(const char *text)
{
    struct error err = {0};
    struct digest digest;

    ok(store_blob_put(store, text, strlen(text), &digest, &err), err);
    age_blob(digest.text);
    return digest;
}

/* A manifest with a config of its own and one layer; `subject` may be NULL. */
static struct digest manifest(const char *name, const char *ref, const char *config,
                              const char *layer, const char *subject)
{
    struct error err = {0};
    struct digest inner = blob(config), digest;
    cleanup_free char *more =
        subject ? mem_printf(",\"subject\":{\"digest\":\"%s\",\"size\":1}", subject)
                : mem_strdup("");
    cleanup_free char *text = mem_printf(
        "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MANIFEST
        "\",\"config\":{\"digest\":\"%s\",\"size\":2},\"layers\":[{\"digest\":\"%s\"}]%s}",
        inner.text, layer, more);

    digest_bytes(text, strlen(text), &digest);
    ok(store_manifest_put(store, name, ref ? ref : digest.text, OCI_MANIFEST, text, strlen(text),
                          false, &digest, &err),
       err);
    age_blob(inner.text);
    age_blob(layer);
    age_manifest(name, digest.text);
    return digest;
}

static bool there(const char *digest)
{
    cleanup_free char *path = store_blob_path(store, digest);
    return access(path, F_OK) == 0;
}

static struct store_gc_result collect(bool untagged, bool dry_run)
{
    struct store_gc_options options = {.grace_s = HOUR, .untagged = untagged, .dry_run = dry_run};
    struct store_gc_result result = {0};
    struct error err = {0};

    ok(store_gc(store, &options, &result, &err), err);
    return result;
}

static void blobs(void **state)
{
    struct digest shared = blob("a layer"), loose = blob("garbage"), young;
    struct error err = {0};

    (void)state;
    struct digest kept = manifest("a", "v1", "one", shared.text, NULL);
    ok(store_blob_put_as(store, DIGEST_SHA512, "more", 4, &young, &err), err);
    struct store_gc_result plan = collect(false, true);
    assert_int_equal(plan.blobs.count, 1);
    assert_int_equal(plan.blobs.bytes, strlen("garbage"));
    assert_int_equal(plan.kept.count, 3);
    assert_int_equal(plan.young.count, 1);
    assert_true(there(loose.text));
    struct store_gc_result done = collect(false, false);
    assert_memory_equal(&done, &plan, sizeof plan);
    assert_false(there(loose.text));
    assert_true(there(kept.text) && there(shared.text) && there(young.text));
    /* Looking at a blob is using it. */
    loose = blob("garbage");
    assert_true(store_blob_exists(store, loose.text, NULL));
    assert_int_equal(collect(false, false).blobs.count, 0);
    age_blob(young.text);
    age_blob(loose.text);
    assert_int_equal(collect(false, false).blobs.count, 2);
    ok(store_manifest_delete(store, "a", kept.text, &err), err);
    assert_int_equal(collect(false, false).blobs.count, 3);
}

static void untagged(void **state)
{
    struct error err = {0};
    struct digest layer = blob("layer"), own = blob("layer of nobody else"), index;

    (void)state;
    struct digest first = manifest("a/b", NULL, "first", layer.text, NULL),
                  second = manifest("a/b", NULL, "second", layer.text, NULL),
                  lost = manifest("a/b", NULL, "lost", own.text, NULL),
                  signature = manifest("a/b", NULL, "signature", layer.text, first.text),
                  proof = manifest("a/b", NULL, "of the signature", layer.text, signature.text),
                  orphan = manifest("a/b", NULL, "orphan", layer.text, lost.text);
    cleanup_free char *text =
        mem_printf("{\"schemaVersion\":2,\"mediaType\":\"" OCI_INDEX
                   "\",\"manifests\":[{\"digest\":\"%s\"},{\"digest\":\"%s\"}]}",
                   first.text, second.text);
    ok(store_manifest_put(store, "a/b", "all", OCI_INDEX, text, strlen(text), false, &index, &err),
       err);
    age_manifest("a/b", index.text);
    age_manifest("a/b", first.text);
    age_manifest("a/b", second.text);
    struct store_gc_result result = collect(false, false);
    assert_int_equal(result.manifests.count + result.blobs.count, 0);
    struct store_gc_result plan = collect(true, true);
    assert_int_equal(plan.manifests.count, 2); /* lost and orphan */
    assert_int_equal(plan.blobs.count, 5);     /* these, their configs, the layer */
    result = collect(true, false);
    assert_memory_equal(&result, &plan, sizeof plan);
    assert_false(there(lost.text) || there(orphan.text) || there(own.text));
    assert_true(there(first.text) && there(second.text) && there(signature.text) &&
                there(proof.text) && there(layer.text));
    fails(store_manifest_get(store, "a/b", lost.text, NULL, NULL, NULL, &err), err, ERR_NOT_FOUND,
          "a/b");
    /* An index may not name what the repository has no more. */
    cleanup_free char *later =
        mem_printf("{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"%s\"}]}", lost.text);
    fails(store_manifest_put(store, "a/b", "late", OCI_INDEX, later, strlen(later), false, NULL,
                             &err),
          err, ERR_NOT_FOUND, lost.text);
    ok(store_tag_delete(store, "a/b", "all", &err), err);
    assert_int_equal(collect(true, false).manifests.count, 5);
    assert_int_equal(collect(true, false).kept.count, 0);
}

struct tagging {
    struct digest orphans[2];
    pthread_t thread;
    bool begun;
    int tagged; /* which of the orphans */
    int status;
    struct error err;
    atomic_bool over;
};

static void *tag_it(void *ctx)
{
    struct tagging *tagging = ctx;

    tagging->status =
        store_tag_set(store, "a", "late", tagging->orphans[tagging->tagged].text, &tagging->err);
    tagging->over = true;
    return NULL;
}

/* One of the two is gone, the other is next: somebody tags it. */
static void tag_the_other(void *ctx, const char *kind, const char *name, uint64_t bytes)
{
    struct tagging *tagging = ctx;

    (void)bytes;
    if (strcmp(kind, "manifest") != 0 || tagging->begun)
        return;
    tagging->begun = true;
    tagging->tagged = strstr(name, tagging->orphans[0].text) ? 1 : 0;
    assert_int_equal(pthread_create(&tagging->thread, NULL, tag_it, tagging), 0);
    for (int i = 0; i < 200 && !tagging->over; i++)
        poll(NULL, 0, 1);
}

/* A tag is never left of a manifest that a collection takes. */
static void tagging(void **state)
{
    struct digest layer = blob("layer"), found;
    struct tagging other = {.orphans = {manifest("a", NULL, "one", layer.text, NULL),
                                        manifest("a", NULL, "two", layer.text, NULL)}};
    struct store_gc_options options = {
        .grace_s = HOUR, .untagged = true, .each = tag_the_other, .ctx = &other};
    struct store_gc_result result = {0};
    struct error err = {0};

    (void)state;
    ok(store_gc(store, &options, &result, &err), err);
    assert_true(other.begun);
    assert_int_equal(pthread_join(other.thread, NULL), 0);
    assert_int_equal(result.manifests.count, 2);
    assert_int_equal(other.status, -1);
    assert_int_equal(other.err.code, ERR_NOT_FOUND);
    holds(other.err.message, other.orphans[other.tagged].text);
    fails(store_tag_resolve(store, "a", "late", &found, &err), err, ERR_NOT_FOUND, "a:late");
    layer = blob("layer");
    struct digest kept = manifest("a", NULL, "three", layer.text, NULL);
    ok(store_tag_set(store, "a", "late", kept.text, &err), err);
    assert_int_equal(collect(true, false).manifests.count, 0);
    fails(store_tag_set(store, "b", "late", kept.text, &err), err, ERR_NOT_FOUND, kept.text);
}

struct late {
    struct digest digest;
    atomic_bool go;
};

static void *tag_late(void *ctx)
{
    struct late *late = ctx;
    struct error err = {0};

    while (!late->go)
        sched_yield();
    if (store_tag_set(store, "a", "late", late->digest.text, &err) != 0)
        assert_int_equal(err.code, ERR_NOT_FOUND);
    return NULL;
}

/* Nor of one that is deleted at that moment. */
static void deleting(void **state)
{
    struct digest layer = blob("layer"), found;
    struct error err = {0};

    (void)state;
    for (int i = 0; i < 300; i++) {
        struct late late = {.digest = manifest("a", NULL, "one", layer.text, NULL)};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, tag_late, &late), 0);
        late.go = true;
        for (volatile int spin = i * 1500; spin > 0; spin--)
            ;
        ok(store_manifest_delete(store, "a", late.digest.text, &err), err);
        assert_int_equal(pthread_join(thread, NULL), 0);
        fails(store_tag_resolve(store, "a", "late", &found, &err), err, ERR_NOT_FOUND, "a:late");
    }
}

/* What cannot be read is no reason to take everything for garbage. */
static void unreadable(void **state)
{
    struct digest layer = blob("layer"), image = manifest("x", "v", "config", layer.text, NULL);
    cleanup_free char *path = store_blob_path(store, image.text);
    struct store_gc_options options = {.grace_s = HOUR};
    struct store_gc_result result = {0};
    struct error err = {0};

    (void)state;
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(store_gc(store, &options, &result, &err), -1);
    assert_true(there(layer.text));
}

static void uploads(void **state)
{
    struct error err = {0};

    (void)state;
    struct upload *parked = store_blob_begin(store, &err), *busy = store_blob_begin(store, &err);
    ok(store_blob_write(parked, "12345", 5, &err), err);
    cleanup_free char *idle_path = mem_printf("%s/uploads/%s", work, store_upload_id(parked)),
                      *busy_path = mem_printf("%s/uploads/%s", work, store_upload_id(busy)),
                      *half = mem_printf("%s/uploads/file-0123456789abcdef", work);
    store_blob_park(parked);
    ok(file_write(AT_FDCWD, half, "v", 1, false, &err), err);
    age(idle_path);
    age(busy_path);
    age(half);
    struct store_gc_result result = collect(false, false);
    assert_int_equal(result.uploads.count, 2);
    assert_int_equal(result.uploads.bytes, 6);
    assert_int_equal(access(busy_path, F_OK), 0);
    assert_int_not_equal(access(idle_path, F_OK), 0);
    store_blob_abort(busy);
}

static void build_cache(void **state)
{
    struct error err = {0};
    struct digest key;
    struct cached_layer layer = {.kind = CACHED_LAYER, .digest = blob("built"), .size = 5};

    (void)state;
    layer.diff_id = layer.digest;
    cache_key_finish(cache_key_new("run"), &key);
    ok(build_cache_put(store, &key, &layer, &err), err);
    age_blob(layer.digest.text);
    assert_int_equal(collect(true, false).blobs.count, 0);
    build_cache_prune(store, 0, 0, 0);
    age_blob(layer.digest.text);
    assert_int_equal(collect(true, false).blobs.count, 1);
}

static void folders(void **state)
{
    static const char name[] = "0123456789abcdef0123456789abcdef";
    struct error err = {0};
    cleanup_free char *root = layer_dirs_root(store, &err), *one = mem_printf("%s/%s", root, name),
                      *file = mem_printf("%s/file", one), *lock = mem_printf("%s.lock", one),
                      *other = mem_printf("%s/notes", root);

    (void)state;
    assert_int_equal(mkdir(one, 0700), 0);
    assert_int_equal(mkdir(other, 0700), 0);
    ok(file_write(AT_FDCWD, file, "text", 4, false, &err), err);
    ok(file_write(AT_FDCWD, lock, "", 0, false, &err), err);
    assert_int_equal(collect(false, false).layers.count, 0); /* young */
    age(lock);
    if (mount(one, one, NULL, MS_BIND, NULL) == 0) { /* as root: a mount uses it */
        assert_int_equal(collect(false, false).layers.count, 0);
        assert_int_equal(umount(one), 0);
    }
    assert_int_equal(collect(false, true).layers.count, 1);
    assert_int_equal(access(file, F_OK), 0);
    struct store_gc_result result = collect(false, false);
    assert_int_equal(result.layers.count, 1);
    assert_true(result.layers.bytes >= 4);
    assert_int_not_equal(access(one, F_OK), 0);
    assert_int_equal(access(other, F_OK), 0);
}

/* A blob goes from one repository; from the disk only when no other one needs it. */
static void forgetting(void **state)
{
    struct error err = {0};
    struct digest layer = blob("layer"), alone = blob("alone");

    (void)state;
    manifest("a", "v1", "a", layer.text, NULL);
    manifest("b", "v1", "b", layer.text, NULL);
    ok(store_blob_forget(store, "a", layer.text, &err), err);
    assert_false(store_blob_in(store, "a", layer.text, NULL));
    assert_true(store_blob_in(store, "b", layer.text, NULL));
    fails(store_blob_forget(store, "a", layer.text, &err), err, ERR_NOT_FOUND, layer.text);
    store_blob_claim(store, "a", layer.text);
    assert_true(store_blob_in(store, "a", layer.text, NULL));
    ok(store_blob_forget(store, "a", alone.text, &err), err);
    assert_false(there(alone.text));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(blobs),   TEST(untagged),    TEST(tagging), TEST(deleting),   TEST(unreadable),
        TEST(uploads), TEST(build_cache), TEST(folders), TEST(forgetting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
