/* Who may what, and what a denial says. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/internal.h"
#include "base/mem.h"
#include "check.h"

static struct value lists(const char *json)
{
    struct value v = {0};
    struct error err = {0};
    ok(value_from_json(json, strlen(json), "test", NULL, &v, &err), err);
    return v;
}

static struct policy *make(const char *asked_json, const char *bound_json)
{
    struct value asked = lists(asked_json), bound = {0};
    struct error err = {0};
    if (bound_json)
        bound = lists(bound_json);
    struct policy *p = policy_new(&asked, bound_json ? &bound : NULL, "/srv/space", &err);
    if (!p)
        fail_msg("%s", err.message);
    value_free(&asked);
    value_free(&bound);
    return p;
}

static void allowed(struct policy *p, enum permission kind, const char *what)
{
    struct error err = {0};
    ok(policy_check(p, kind, what, &err), err);
}

static void denied(struct policy *p, enum permission kind, const char *what, const char *hint)
{
    struct error err = {0};
    fails(policy_check(p, kind, what, &err), err, ERR_DENIED, "may not");
    holds(err.hint, hint);
}

static void test_default_deny(void **state)
{
    struct policy *p = make("{}", NULL);
    (void)state;
    policy_name(p, "stage 'x'");
    allowed(p, PERM_READ, "/srv/space/a/b");
    allowed(p, PERM_READ, "/srv/space");
    denied(p, PERM_READ, "/srv/space2", "{ read = { \"/srv/space2\" } }  to stage 'x'");
    denied(p, PERM_WRITE, "/srv/space/a", "{ write = { \"a\" } }");
    denied(p, PERM_EXEC, "flake8", "add  permissions = { exec = { \"flake8\" } }  to stage 'x'");
    denied(p, PERM_NET, "host:443", "net");
    denied(p, PERM_ENV, "HOME", "env");
    policy_free(p);
}

static void test_paths(void **state)
{
    struct policy *p = make("{\"read\":[\"/data\"],\"write\":[\"build/./x\",\"/tmp/out/\"]}", NULL);
    (void)state;
    allowed(p, PERM_READ, "/data/x");
    denied(p, PERM_READ, "/database", "read");
    allowed(p, PERM_WRITE, "/srv/space/build/x/y");
    denied(p, PERM_WRITE, "/srv/space/build", "write");
    allowed(p, PERM_WRITE, "/tmp/out/a");
    allowed(p, PERM_READ, "/tmp/out/a"); /* what may be written may be read */
    policy_free(p);
}

static void test_net(void **state)
{
    struct policy *p = make(
        "{\"net\":[\"api.example.com\",\"*.blob.example.net\",\"db:5432\",\"10.0.0.1:*\"]}", NULL);
    (void)state;
    allowed(p, PERM_NET, "api.example.com:443");
    allowed(p, PERM_NET, "API.example.com:80");
    denied(p, PERM_NET, "xapi.example.com:443", "net");
    denied(p, PERM_NET, "api.example.com.evil.org:443", "net");
    allowed(p, PERM_NET, "a.blob.example.net:443");
    denied(p, PERM_NET, "blob.example.net:443", "net");
    allowed(p, PERM_NET, "db:5432");
    denied(p, PERM_NET, "db:5433", "net");
    allowed(p, PERM_NET, "10.0.0.1:9");
    policy_free(p);
}

static void test_names(void **state)
{
    struct policy *p =
        make("{\"exec\":[\"git\",\"/usr/bin/ruff\"],\"env\":[\"BUILD_*\",\"TOKEN\"]}", NULL);
    (void)state;
    allowed(p, PERM_EXEC, "git");
    denied(p, PERM_EXEC, "/srv/space/git", "exec");
    allowed(p, PERM_EXEC, "/usr/bin/ruff");
    denied(p, PERM_EXEC, "ruff", "exec");
    allowed(p, PERM_ENV, "BUILD_ID");
    denied(p, PERM_ENV, "TOKEN2", "env");
    policy_free(p);
}

static void test_bound(void **state)
{
    struct policy *p =
        make("{\"exec\":[\"git\",\"sh\"],\"net\":[\"*\"]}", "{\"exec\":[\"git\",\"ruff\"]}");
    (void)state;
    allowed(p, PERM_EXEC, "git");
    denied(p, PERM_EXEC, "sh", "or run with --allow-exec sh");
    denied(p, PERM_EXEC, "ruff", "add  permissions = { exec = { \"ruff\" } }");
    denied(p, PERM_NET, "x:1", "permissions.net in mlhost.yaml");
    policy_grant(p, PERM_WRITE, "/srv/space/out");
    allowed(p, PERM_WRITE, "/srv/space/out/x");
    struct value v = {0};
    struct buf json = BUF_INIT;
    policy_to_value(p, &v);
    value_to_json(&v, TEXT_SORTED, &json);
    assert_string_equal(json.data, "{\"ci\":[],\"env\":[],\"exec\":[\"git\"],\"net\":[],\"read\":["
                                   "\".\"],\"write\":[\"out\"]}");
    buf_free(&json);
    value_free(&v);
    policy_free(p);
}

static void test_bad_lists(void **state)
{
    static const struct {
        const char *json, *text;
    } cases[] = {
        {"{\"exce\":[]}", "unknown kind 'exce' (did you mean 'exec'?)"},
        {"{\"exec\":\"git\"}", "exec must be a list"},
        {"{\"exec\":[1]}", "exec must be a list of texts"},
        {"{\"write\":[\"../x\"]}", "has '..' in it"},
        {"\"all\"", "must be a map, not string"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct value v = lists(cases[i].json[0] == '"' ? "[\"all\"]" : cases[i].json);
        struct error err = {0};
        if (cases[i].json[0] == '"') {
            value_free(&v);
            value_set_string(&v, "all");
        }
        struct policy *p = policy_new(&v, NULL, "/w", &err);
        assert_null(p);
        holds(err.message, cases[i].text);
        value_free(&v);
    }
}

/* Links and ".." are resolved before anything is compared. */
static void test_resolve(void **state)
{
    char folder[] = "/tmp/mlhost-resolve-XXXXXX";
    struct error err = {0};
    (void)state;
    assert_non_null(mkdtemp(folder));
    cleanup_free char *in = path_join(folder, "in"), *link = path_join(folder, "in/link"),
                      *dead = path_join(folder, "in/dead");
    assert_int_equal(mkdir(in, 0777), 0);
    assert_int_equal(symlink("/etc", link), 0);
    assert_int_equal(symlink("/no/such/place", dead), 0);
    static const struct {
        const char *path, *wanted;
    } cases[] = {
        {"a", "IN/a"},       {"./a/../b/./c", NULL}, {"link/passwd", "/etc/passwd"},
        {"link/../x", "/x"}, {"a/b/c", "IN/a/b/c"},  {"", "IN"},
        {"/", "/"},          {"../in/z", "IN/z"},    {"x/../../y", NULL},
        {"dead", NULL},      {"dead/x", NULL},       {"/etc/../tmp", "/tmp"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cleanup_free char *got = resolve_path(in, cases[i].path, &err);
        if (!cases[i].wanted) {
            if (got)
                fail_msg("%s -> %s", cases[i].path, got);
            continue;
        }
        cleanup_free char *wanted = strncmp(cases[i].wanted, "IN", 2) == 0
                                        ? mem_printf("%s%s", in, cases[i].wanted + 2)
                                        : mem_strdup(cases[i].wanted);
        if (!got || strcmp(got, wanted) != 0)
            fail_msg("%s -> %s, not %s", cases[i].path, got ? got : err.message, wanted);
    }
    cleanup_free char *through = path_join(folder, "in/link/passwd");
    fails(open_resolved(through, 0, 0, &err) < 0 ? -1 : 0, err, ERR_IO, "passwd");
    ok(dir_remove(folder, &err), err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_deny), cmocka_unit_test(test_paths),
        cmocka_unit_test(test_net),          cmocka_unit_test(test_names),
        cmocka_unit_test(test_bound),        cmocka_unit_test(test_bad_lists),
        cmocka_unit_test(test_resolve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
