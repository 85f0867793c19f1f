/* RUN --mount: what is understood, and what is refused with a reason. */
#include "check.h"

#include <stdio.h>

#include "base/mem.h"
#include "oci/build_run_mount.h"

static char *expand(void *ctx, const char *word, struct error *err)
{
    (void)ctx;
    if (strcmp(word, "$BAD") == 0) {
        error_set(err, ERR_INVALID, "BAD is not set");
        return NULL;
    }
    return mem_strdup(strcmp(word, "$PLACE") == 0 ? "/from/variable" : word);
}

static struct run_mounts parsed;
static struct error err;

static struct run_mount *one(const char *text)
{
    struct value flag = {0};

    run_mounts_free(&parsed);
    value_set_string(&flag, text);
    ok(run_mounts_parse(&flag, "/work", expand, NULL, &parsed, &err), err);
    value_free(&flag);
    assert_int_equal(parsed.count, 1);
    return parsed.items;
}

static int bad(const char *text)
{
    struct value flag = {0};

    run_mounts_free(&parsed);
    value_set_string(&flag, text);
    int status = run_mounts_parse(&flag, "/work", expand, NULL, &parsed, &err);
    value_free(&flag);
    return status;
}

static void kinds_and_defaults(void **state)
{
    (void)state;
    struct run_mount *m = one("target=/src");
    assert_int_equal(m->kind, RUN_MOUNT_BIND);
    assert_string_equal(m->source, "");
    assert_null(m->from);
    assert_true(m->read_only);
    assert_false(one("type=bind,target=/src,rw")->read_only);
    assert_true(one("type=bind,target=/src,rw=false")->read_only);
    m = one("type=bind,from=build,src=/out/../lib,dst=x//./y");
    assert_string_equal(m->from, "build");
    assert_string_equal(m->source, "lib");
    assert_string_equal(m->target, "/work/x/y");

    m = one("type=cache,target=/home/.cache");
    assert_string_equal(m->id, "/home/.cache");
    assert_int_equal(m->mode, 0755);
    assert_int_equal(m->sharing, RUN_SHARED);
    assert_false(m->read_only);
    m = one("type=cache,id=pip,target=/c,sharing=locked,mode=0700,uid=10,gid=20,ro");
    assert_string_equal(m->id, "pip");
    assert_int_equal(m->sharing, RUN_LOCKED);
    assert_int_equal(m->mode, 0700);
    assert_int_equal(m->uid, 10);
    assert_int_equal(m->gid, 20);
    assert_true(m->read_only);

    m = one("type=tmpfs,target=/t,size=16m");
    assert_int_equal(m->size, 16u << 20);

    m = one("type=secret,id=a/key");
    assert_string_equal(m->target, "/run/secrets/key");
    assert_int_equal(m->mode, 0400);
    assert_false(m->required);
    m = one("type=secret,target=/home/.netrc,required");
    assert_string_equal(m->id, ".netrc");
    assert_true(m->required);
    m = one("type=secret,id=token,env=TOKEN");
    assert_null(m->target);
    assert_string_equal(m->env, "TOKEN");
    assert_string_equal(one("type=secret,id=token,env=TOKEN,target=/t")->target, "/t");

    assert_string_equal(one("target=$PLACE")->target, "/from/variable");
    assert_string_equal(one("type=cache,\"target=/a,b\"")->target, "/a,b");
    assert_string_equal(one("type=cache,\"target=/a\"\"b\"")->target, "/a\"b");
    assert_string_equal(one("TYPE=Cache,Target=/../../a")->target, "/a");
}

static void what_is_refused(void **state)
{
    (void)state;
    fails(bad("type=bind"), err, ERR_INVALID, "--mount=type=bind: type=bind needs target=/");
    fails(bad("type=cach,target=/a"), err, ERR_INVALID, "unknown type 'cach'");
    fails(bad("targte=/a"), err, ERR_INVALID, "unknown key 'targte'");
    assert_string_equal(err.hint, "did you mean target?");
    fails(bad("type=ssh"), err, ERR_UNSUPPORTED, "type=ssh");
    fails(bad("type=cache,target=/"), err, ERR_INVALID, "target cannot be /");
    fails(bad("type=cache,target=/a/.."), err, ERR_INVALID, "target cannot be /");
    fails(bad("type=bind,target=/a,mode=0755"), err, ERR_INVALID, "does not know the key mode");
    fails(bad("type=secret,id=a,from=b"), err, ERR_INVALID, "does not know the key from");
    fails(bad("type=tmpfs,target=/a,source=/b"), err, ERR_INVALID, "does not know the key source");
    fails(bad("type=cache,target=/a,sharing=no"), err, ERR_INVALID, "shared, private or locked");
    fails(bad("type=cache,target=/a,mode=79"), err, ERR_INVALID, "octal");
    fails(bad("type=cache,target=/a,mode=10000"), err, ERR_INVALID, "octal");
    fails(bad("type=cache,target=/a,uid=-1"), err, ERR_INVALID, "must be a number");
    fails(bad("type=cache,target=/a,uid=4294967295"), err, ERR_INVALID, "must be a number");
    fails(bad("type=tmpfs,target=/a,size=lots"), err, ERR_USAGE, "size");
    fails(bad("type=bind,target=/a,rw=perhaps"), err, ERR_INVALID, "must be true or false");
    fails(bad("type=bind,from=$X,target=/a"), err, ERR_INVALID, "from cannot hold a variable");
    fails(bad("type=bind,target=$BAD"), err, ERR_INVALID, "BAD is not set");
    fails(bad("type=secret"), err, ERR_INVALID, "needs id=");
    fails(bad("type=secret,id=a,env=A=B"), err, ERR_INVALID, "no name of a variable");
    fails(bad("type=cache,"), err, ERR_INVALID, "an empty field");
    fails(bad(""), err, ERR_INVALID, "an empty field");
    fails(bad("type=cache,\"target=/a"), err, ERR_INVALID, "quoted field");
    fails(bad("type=cache,\"target=/a\"x"), err, ERR_INVALID, "quoted field");
    fails(bad("type=cache,target"), err, ERR_INVALID, "needs a value");
}

static void several(void **state)
{
    struct value flag = {0};

    (void)state;
    run_mounts_free(&parsed);
    ok(run_mounts_parse(NULL, "/", expand, NULL, &parsed, &err), err);
    assert_int_equal(parsed.count, 0);
    run_mounts_free(&parsed);
    value_set_array(&flag);
    value_push_string(&flag, "type=cache,target=/a");
    value_push_string(&flag, "type=tmpfs,target=/b");
    ok(run_mounts_parse(&flag, "/", expand, NULL, &parsed, &err), err);
    assert_int_equal(parsed.count, 2);
    assert_string_equal(parsed.items[1].target, "/b");
    run_mounts_free(&parsed);
    value_push_string(&flag, "type=tmpfs");
    fails(run_mounts_parse(&flag, "/", expand, NULL, &parsed, &err), err, ERR_INVALID, "target");
    assert_int_equal(parsed.count, 0);
    value_free(&flag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds_and_defaults),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(several),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
