/*
 * Whole builds: a Dockerfile over a small context with a file, folders, links that lead out, an
 * archive and a .dockerignore. Every FROM of an image is answered with the same small one.
 *
 * What is built can be loaded and unpacked, below its folder; the same input gives the same config
 * and content; nothing from outside of the context is in it; what the reader of Dockerfiles refuses
 * is not built.
 */
#include "fuzz.h"

#include "folder.h"
#include "oci/build.h"
#include "oci/dockerfile.h"
#include "oci/manifest.h"
#include "oci/unpack.h"

static struct store *store;
static struct digest base;

static const char *at(const char *name)
{
    static char path[4096];

    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    return path;
}

static int resolve(void *ctx, const char *reference, struct digest *manifest, struct error *err)
{
    (void)ctx;
    if (strstr(reference, "none"))
        return error_set(err, ERR_NOT_FOUND, "there is no %s", reference);
    *manifest = base;
    return 0;
}

static int build(const char *text, size_t len, struct build_result *out, struct error *err)
{
    cleanup_free char *context = mem_strdup(at("context"));
    cleanup_free char *dockerfile = mem_strdup(at("Dockerfile"));
    struct build_spec spec = {.store = store,
                              .context = context,
                              .dockerfile = dockerfile,
                              .label = "Dockerfile",
                              .epoch = 5,
                              .resolve = resolve};

    fuzz_file("Dockerfile", text, len);
    return oci_build(&spec, out, err);
}

static void prepare(void)
{
    static const char first[] =
        "FROM scratch\nCOPY a.txt /etc/base\nENV PATH=/bin V=v\nWORKDIR /w\n";
    struct error err = {0};
    struct build_result built;

    check(dir_make(at("context/dir/sub"), &err) == 0 && dir_make(at("context/skip"), &err) == 0);
    fuzz_file("outside", "outside of the context", 22);
    fuzz_file("context/a.txt", "a", 1);
    fuzz_file("context/dir/b.txt", "b", 1);
    fuzz_file("context/dir/sub/c", "c", 1);
    fuzz_file("context/skip/d", "d", 1);
    fuzz_file("context/.dockerignore", "skip/*\n!skip/e\n", 15);
    check(symlink("../outside", at("context/out")) == 0);
    check(symlink("dir", at("context/link")) == 0);
    store = store_open_at(at("store"), false, &err);
    check(store && build(first, strlen(first), &built, &err) == 0);
    base = built.manifest;
}

static void look(const struct build_result *built)
{
    cleanup_value struct value manifest = {0};
    cleanup_value struct value config = {0};
    cleanup_free char *target = mem_strdup(at("target"));
    struct error err = {0};

    check(oci_manifest_load(store, built->manifest.text, &manifest, NULL, &err) == 0);
    check(oci_config_load(store, &manifest, &config, &err) == 0);
    check(value_count(value_get(&manifest, "layers")) >= built->layers);
    /* A user may take names that no file system has. */
    int status = oci_unpack(store, built->manifest.text, target, NULL, &err);
    check_result(status, &err);
    check(err.code != ERR_DIGEST);
    check(dir_remove(target, &err) == 0);
    cleanup_buf struct buf outside = BUF_INIT;
    check(file_read(AT_FDCWD, at("outside"), 100, &outside, &err) == 0 && outside.len == 22);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_value struct value parsed = {0};
    struct error err = {0}, problem = {0};
    struct build_result one, two;

    if (!store)
        prepare();
    int readable =
        dockerfile_parse((const char *)data, size, "Dockerfile", &parsed, NULL, &problem);
    int status = build((const char *)data, size, &one, &err);
    check_result(status, &err);
    check(status < 0 || readable == 0);
    if (status < 0)
        return 0;
    check(build((const char *)data, size, &two, &err) == 0);
    check(strcmp(one.config.text, two.config.text) == 0); /* with the digests of what is in it */
    look(&one);
    return 0;
}
