/* include/mlhost/mlhost.h as an embedding program uses it: registered primitives, called from
 * scripts. */
#include "stage.h"

#include <mlhost/mlhost.h>

#include "base/module.h"
#include "broker/primitive.h"

/* Every argument back as it was read, and what was not given as its default. */
static int echo(struct mlhost_call *call, void *data)
{
    struct mlhost_value *result = mlhost_result(call);
    const struct mlhost_value *tags = mlhost_arg(call, "tags"), *list = mlhost_arg(call, "list");
    size_t len = 0;

    mlhost_set_map(result);
    mlhost_set_string(mlhost_put(result, "text"), mlhost_arg_string(call, "text", "none"));
    mlhost_set_int(mlhost_put(result, "int"), mlhost_arg_int(call, "int", -1));
    mlhost_set_number(mlhost_put(result, "number"), mlhost_arg_number(call, "number", 0.5));
    mlhost_set_bool(mlhost_put(result, "bool"), mlhost_arg_bool(call, "bool", true));
    mlhost_set_bool(mlhost_put(result, "given"), mlhost_arg_given(call, "tags"));
    mlhost_set_string(mlhost_put(result, "data"), data);
    mlhost_set_string(mlhost_put(result, "where"), mlhost_stage(call));
    mlhost_set_string(mlhost_put(result, "run"), mlhost_run_id(call));
    struct mlhost_value *pairs = mlhost_put(result, "pairs");
    mlhost_set_array(pairs);
    for (size_t i = 0; i < mlhost_count(tags); i++) {
        struct mlhost_value *pair = mlhost_push(pairs);
        mlhost_set_array(pair);
        mlhost_set_string(mlhost_push(pair), mlhost_key_at(tags, i));
        mlhost_set_string(mlhost_push(pair), mlhost_string(mlhost_at(tags, i), &len, "not a text"));
    }
    int64_t sum = 0;
    for (size_t i = 0; i < mlhost_count(list); i++)
        sum += mlhost_int(mlhost_at(list, i), 1000);
    mlhost_set_int(mlhost_put(result, "sum"), sum);
    assert_null(mlhost_at(list, mlhost_count(list)));
    assert_null(mlhost_get(tags, "no such key"));
    assert_int_equal(mlhost_kind(NULL), MLHOST_NIL);
    return 0;
}

static int refuse(struct mlhost_call *call, void *data)
{
    (void)data;
    if (mlhost_arg_bool(call, "silent", false))
        return -1;
    mlhost_fail(call, MLHOST_RATE_LIMITED, "asked %d times", 7);
    mlhost_hint(call, "wait for %d s", 60);
    return mlhost_retryable(call, 429);
}

static int measure(struct mlhost_call *call, void *data)
{
    size_t len = 0;
    const char *bytes = mlhost_arg_secret(call, "key", &len);

    (void)data;
    if (!bytes)
        return -1;
    mlhost_set_map(mlhost_result(call));
    mlhost_set_int(mlhost_put(mlhost_result(call), "length"), (int64_t)len);
    mlhost_set_secret(call, mlhost_put(mlhost_result(call), "twice"), "hunter2hunter2", 14);
    return 0;
}

static int ask(struct mlhost_call *call, void *data)
{
    const char *what = mlhost_arg_string(call, "what", "");
    const char *name = mlhost_arg_string(call, "name", "");

    (void)data;
    if (strcmp(what, "net") == 0)
        return mlhost_allow_net(call, name, 443);
    if (strcmp(what, "env") == 0)
        return mlhost_allow_env(call, name);
    if (strcmp(what, "exec") == 0)
        return mlhost_allow_exec(call, name);
    cleanup_free char *path =
        strcmp(what, "write") == 0 ? mlhost_allow_write(call, name) : mlhost_allow_read(call, name);
    if (!path)
        return -1;
    mlhost_set_string(mlhost_result(call), path);
    return 0;
}

/* Waits as a primitive should: until it is cancelled, or its time is over. */
static int wait_for_end(struct mlhost_call *call, void *data)
{
    struct pollfd fd = {.fd = mlhost_cancel_fd(call), .events = POLLIN};

    (void)data;
    while (!mlhost_cancelled(call) && mlhost_time_left_ms(call) > 0)
        poll(&fd, 1, (int)mlhost_time_left_ms(call));
    return mlhost_fail(call, mlhost_cancelled(call) ? MLHOST_CANCELLED : MLHOST_TIMEOUT,
                       "waited in vain");
}

static char shared[] = "shared";
static const struct mlhost_primitive rows[] = {
    {"example.echo", "text:string? int:int? number:number? bool:bool? tags:map? list:array?",
     "all:map", "what it got", echo, shared},
    {"example.refuse", "silent:bool?", NULL, "always fails", refuse, NULL},
    {"example.measure", "key:secret", "info:map", "how long a secret is", measure, NULL},
    {"example.ask", "what:string name:string", "path:string?", "asks for a permission", ask, NULL},
    {"example.wait", "timeout:duration?", NULL, "waits for its end", wait_for_end, NULL},
};

/* What a rejected row says on stderr. */
static void rejected(const struct mlhost_primitive *row, const char *why)
{
    char said[2048] = "";
    FILE *file = tmpfile();
    int before = dup(2);

    assert_non_null(file);
    dup2(fileno(file), 2);
    int status = mlhost_register(row);
    fflush(stderr);
    dup2(before, 2);
    close(before);
    rewind(file);
    size_t len = fread(said, 1, sizeof said - 1, file);
    fclose(file);
    assert_int_equal(status, -1);
    assert_true(len > 0);
    holds(said, why);
}

static void test_register(void **state)
{
    static const struct mlhost_primitive good = {"example.echo", "", "", "doc", echo, NULL};
    struct mlhost_primitive bad = good;

    (void)state;
    bad.name = "greet";
    rejected(&bad, "'greet' is no name of a primitive");
    bad.name = "Example.echo";
    rejected(&bad, "no name of a primitive");
    bad.name = "example..x";
    rejected(&bad, "no name of a primitive");
    bad = good;
    bad.args = "text:strnig";
    rejected(&bad, "'text:strnig' is no argument (did you mean the type 'string'?)");
    bad.args = "text";
    rejected(&bad, "'text' is no argument");
    bad.args = ":string";
    rejected(&bad, "':string' is no argument");
    bad = good;
    bad.doc = "";
    rejected(&bad, "needs one line of documentation");
    bad = good;
    bad.fn = NULL;
    rejected(&bad, "has no function");
    bad = good;
    bad.name = "fs.read";
    rejected(&bad, "there is a primitive 'fs.read' already");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(mlhost_register(&rows[i]), 0);
    rejected(&good, "there is a primitive 'example.echo' already");
    assert_non_null(primitive_find("example.echo"));
    assert_non_null(primitive_find("fs.read"));
    bad = good;
    bad.name = "example.late";
    rejected(&bad, "comes too late");
    assert_string_equal(mlhost_version_text(), mlhost_version);
}

static void test_arguments_and_results(void **state)
{
    struct stage s;

    (void)state;
    stage_open(&s, "stage");
    stage_do(&s, "local host = require 'host'\n"
                 "local a = host.example.echo { text = 'x', int = 3, number = 2, bool = false, "
                 "tags = { k = 'v' },\n"
                 "  list = { 1, 2, 3.5 } }\n"
                 "local b = host.example.echo()\n"
                 "return { a.text, a.int, a.number, a.bool, a.given, a.pairs, a.sum, a.data, "
                 "a.where, a.run,\n"
                 "  b.text, b.int, b.number, b.bool, b.given, b.pairs, b.sum }");
    assert_string_equal(
        stage_said(&s),
        "[\"x\",3,2.0,false,true,[[\"k\",\"v\"]],1003,\"shared\",\"main\",\"run-1\","
        "\"none\",-1,0.5,true,false,[],0]");
    stage_do(&s, "return require('host').example.echo { itn = 3 }");
    holds(stage_said(&s), "usage: example.echo: unknown argument 'itn' (did you mean 'int'?)");
    stage_do(&s, "return require('host').example.echo { int = 'three' }");
    holds(stage_said(&s), "argument 'int' must be int, not string");
    stage_close(&s);
}

static void test_errors(void **state)
{
    struct stage s;

    (void)state;
    stage_open(&s, "stage");
    stage_do(&s, "local _, e = try(require('host').example.refuse)\n"
                 "return { e.service, e.code, e.message, e.hint, e.status, e.retryable }");
    assert_string_equal(
        stage_said(&s),
        "[\"example\",\"rate_limited\",\"asked 7 times\",\"wait for 60 s\",429,true]");
    stage_do(&s, "require('host').example.refuse(true)");
    holds(stage_said(&s), "internal: example.refuse failed without saying why");
    stage_close(&s);
}

static void test_secrets(void **state)
{
    struct stage s;

    (void)state;
    setenv("MLHOST_TEST_KEY", "swordfish", 1);
    stage_open(&s, "stage");
    struct value *env = value_put(&s.spec.permissions, "env");
    value_set_array(env);
    value_push_string(env, "MLHOST_TEST_KEY");
    stage_do(&s,
             "local secret, host = require 'secret', require 'host'\n"
             "local info = host.example.measure(secret.get 'MLHOST_TEST_KEY')\n"
             "print 'it is hunter2hunter2 and swordfish'\n"
             "return { info.length, secret.is(info.twice), host.example.measure('text').length,\n"
             "  host.example.measure(info.twice).length }");
    assert_string_equal(stage_said(&s), "[9,true,4,14]");
    assert_string_equal(s.out.data, "it is *** and ***\n");
    stage_close(&s);
}

static void test_permissions(void **state)
{
    struct stage s;

    (void)state;
    stage_open(&s, "stage");
    stage_file(&s, "data.txt", "hello");
    stage_do(&s,
             "local ask = require('host').example.ask\n"
             "local out = { (ask('read', 'data.txt'):match '[^/]+$') }\n"
             "for i, what in ipairs { 'read', 'write', 'net', 'env', 'exec' } do\n"
             "  local name = ({ '/etc/passwd', '/etc/passwd', 'example.org', 'HOME', 'ls' })[i]\n"
             "  local _, e = try(ask, what, name)\n"
             "  out[#out + 1] = e.code .. ' ' .. tostring(e.hint:find('permissions = { ' .. what, "
             "1, true) ~= nil)\n"
             "end\n"
             "return out");
    assert_string_equal(
        stage_said(&s),
        "[\"data.txt\",\"denied true\",\"denied true\",\"denied true\",\"denied true\","
        "\"denied true\"]");
    stage_close(&s);
}

static void test_time(void **state)
{
    struct stage s;

    (void)state;
    stage_open(&s, "stage");
    stage_do(&s, "local _, e = try(require('host').example.wait, '50ms')\nreturn e.code");
    assert_string_equal(stage_said(&s), "\"timeout\"");
    assert_in_range(s.elapsed_ms, 45, 5000);
    s.cancel_after_ms = 50;
    stage_do(&s, "require('host').example.wait()");
    holds(stage_said(&s), "cancelled");
    assert_in_range(s.elapsed_ms, 45, 5000);
    stage_close(&s);
}

/* The whole program, twice in one process. */
static void test_run_file(void **state)
{
    static const char *const options[] = {"--output", "plain", "--allow-degraded",
                                          "-P",       "n=4",   NULL};
    char folder[] = "/tmp/mlhost-embed-XXXXXX", before[4096];

    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(folder), 0);
    struct buf script = BUF_INIT;
    buf_puts(&script, "pipeline 'p' { params = { n = 1 } }\n"
                      "stage 's' { run = function(cx)\n"
                      "  local host = require 'host'\n"
                      "  if cx.params.n == 3 then host.example.ask('net', 'example.org') end\n"
                      "  assert(host.example.echo { int = cx.params.n }.int == 4)\n"
                      "end }\n");
    struct error err = {0};
    ok(file_write(AT_FDCWD, "mlhost.yaml", "profile: local\n", 15, false, &err), err);
    ok(file_write(AT_FDCWD, "s.lua", script.data, script.len, false, &err), err);
    assert_int_equal(mlhost_run_file("s.lua", options), 0);
    assert_int_equal(mlhost_run_file("s.lua", NULL), 1);
    assert_int_equal(mlhost_run_file("s.lua", (const char *const[]){"-P", "n=3", NULL}), 4);
    assert_int_equal(mlhost_run_file("nope.lua", NULL), 2);
    buf_free(&script);
    assert_int_equal(chdir(before), 0);
    dir_remove(folder, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_register),    cmocka_unit_test(test_arguments_and_results),
        cmocka_unit_test(test_errors),      cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_permissions), cmocka_unit_test(test_time),
        cmocka_unit_test(test_run_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
