/*
 * RUN --mount=...: what is understood stays inside of the image and of where it comes from, and has
 * all that its kind needs. /etc/subuid: a range is one of 32 bits.
 */
#include "fuzz.h"

#include "oci/build_run_mount.h"
#include "sandbox/subids.h"

static char *expand(void *ctx, const char *word, struct error *err)
{
    (void)ctx;
    if (*word == '!') {
        error_set(err, ERR_INVALID, "not set");
        return NULL;
    }
    return mem_strdup(word);
}

static bool climbs(const char *path)
{
    for (const char *at = path; *at;) {
        size_t len = strcspn(at, "/");
        if ((len == 2 && at[0] == '.' && at[1] == '.') || (len == 1 && *at == '.') ||
            (len == 0 && at != path))
            return true;
        at += len + (at[len] == '/');
    }
    return false;
}

static void check_mount(const struct run_mount *mount)
{
    check(mount->target || (mount->kind == RUN_MOUNT_SECRET && mount->env));
    if (mount->target)
        check(mount->target[0] == '/' && mount->target[1] && !climbs(mount->target));
    check(mount->source && mount->source[0] != '/' && !climbs(mount->source));
    check(mount->mode <= 07777);
    if (mount->kind == RUN_MOUNT_SECRET)
        check(mount->id && *mount->id &&
              (!mount->env || (*mount->env && !strchr(mount->env, '='))));
    if (mount->kind == RUN_MOUNT_CACHE)
        check(mount->id && mount->sharing <= RUN_LOCKED);
    if (mount->kind == RUN_MOUNT_TMPFS)
        check(!mount->from && mount->size <= UINT64_C(1) << 40);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_free char *text = mem_strndup((const char *)data, size);
    cleanup_value struct value flag = {0};
    struct run_mounts mounts;
    struct subid_range range;
    struct error err = {0};

    value_set_string(&flag, text);
    int status = run_mounts_parse(&flag, "/work", expand, NULL, &mounts, &err);
    check((status == 0) == (err.code == ERR_NONE));
    if (status == 0) {
        check(mounts.count == 1);
        check_mount(&mounts.items[0]);
        run_mounts_free(&mounts);
    }
    if (subids_parse(text, "user", 1000, &range))
        check(range.count && (uint64_t)range.first + range.count <= UINT32_MAX);
    return 0;
}
