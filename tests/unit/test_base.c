/* Errors, buffers, files, durations, signatures, near misses, configuration. */
#include "check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/mem.h"
#include "base/signature.h"

static void errors_wrap_and_map_to_exit_codes(void **state)
{
    (void)state;
    struct error err = {0};

    error_set(&err, ERR_NOT_FOUND, "no %s", "file");
    error_wrap(&err, "stage '%s'", "build");
    error_hint(&err, "after %s", err.message);
    assert_string_equal(err.message, "stage 'build': no file");
    assert_string_equal(err.hint, "after stage 'build': no file");
    error_set(&err, ERR_TIMEOUT, "again: %s", err.message);
    assert_string_equal(err.message, "again: stage 'build': no file");
    assert_string_equal(err.hint, "");
    assert_int_equal(error_exit_code(ERR_TIMEOUT), 3);
    assert_int_equal(error_exit_code(ERR_DENIED), 4);
    assert_int_equal(error_exit_code(ERR_INVALID), 2);
    assert_int_equal(error_exit_code(ERR_CANCELLED), 130);
    for (int code = ERR_NONE; code <= ERR_INTERNAL; code++)
        assert_int_equal(error_code_from_name(error_code_name((enum error_code)code)), code);
}

static void durations_are_read_and_printed(void **state)
{
    (void)state;
    struct error err = {0};
    int64_t ns;
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {
        {"500ms", 500},    {"30s", 30000}, {"5m", 300000}, {"1h30m", 5400000},
        {"2d", 172800000}, {"1.5s", 1500}, {"7", 7000},
    };
    static const char *const bad[] = {"", "s", "5 m", "5x", "-3s", "1h-2m", "nan", "1e400s"};

    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        ok(duration_parse(good[i].text, &ns, &err), err);
        assert_int_equal(ns / NS_PER_MS, good[i].ms);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        fails(duration_parse(bad[i], &ns, &err), err, ERR_INVALID, "is not a duration");
    cleanup_buf struct buf text = BUF_INIT;
    duration_print(185 * NS_PER_S, &text);
    assert_string_equal(text.data, "3 min 05 s");
    assert_int_equal(deadline_left_ms(DEADLINE_NONE), INT64_MAX);
    assert_true(deadline_passed(deadline_in(-1)));
}

static void files_are_bounded_and_replaced_at_once(void **state)
{
    (void)state;
    struct error err = {0};
    char dir[] = "/tmp/mlhost-test-XXXXXX";
    cleanup_buf struct buf text = BUF_INIT;

    assert_non_null(mkdtemp(dir));
    cleanup_free char *deep = path_join(dir, "a/b/c");
    ok(dir_make(deep, &err), err);
    cleanup_free char *file = path_join(deep, "f");
    ok(file_write(AT_FDCWD, file, "hello", 5, true, &err), err);
    ok(file_write(AT_FDCWD, file, "hello again", 11, false, &err), err);
    ok(file_read(AT_FDCWD, file, 11, &text, &err), err);
    assert_string_equal(text.data, "hello again");
    buf_clear(&text);
    fails(file_read(AT_FDCWD, file, 10, &text, &err), err, ERR_TOO_LARGE, "larger than 10");
    fails(file_read(AT_FDCWD, deep, 10, &text, &err), err, ERR_INVALID, "is a folder");
    cleanup_free char *link = path_join(dir, "link");
    assert_int_equal(symlink("/etc", link), 0);
    ok(dir_remove(dir, &err), err);
    assert_int_equal(access(dir, F_OK), -1);
    assert_int_equal(access("/etc/passwd", F_OK), 0);
    ok(dir_remove(dir, &err), err);
}

static void arguments_are_checked_by_their_signature(void **state)
{
    (void)state;
    struct error err = {0};
    static const struct signature sign = {"registry.push",
                                          "image:image to:string? jobs:int? auth:secret?", "", ""};
    cleanup_value struct value args = {0};

    value_set_map(&args);
    fails(signature_check(&sign, &args, &err), err, ERR_USAGE, "'image' (image) is missing");
    value_set_handle(value_put(&args, "image"), "image", 1);
    ok(signature_check(&sign, &args, &err), err);
    value_put_string(&args, "to", "x");
    value_set_handle(value_put(&args, "auth"), "secret", 1);
    ok(signature_check(&sign, &args, &err), err);
    value_put_string(&args, "jobs", "2");
    fails(signature_check(&sign, &args, &err), err, ERR_USAGE, "'jobs' must be int, not string");
    value_remove(&args, "jobs");
    value_put_int(&args, "job", 2);
    fails(signature_check(&sign, &args, &err), err, ERR_USAGE, "did you mean 'jobs'?");
    holds(err.hint, "to:string?");
}

static int load_text(const char *text, struct config *config, struct error *err)
{
    char dir[] = "/tmp/mlhost-test-XXXXXX";

    assert_non_null(mkdtemp(dir));
    cleanup_free char *file = path_join(dir, "mlhost.yaml");
    assert_int_equal(file_write(AT_FDCWD, file, text, strlen(text), false, err), 0);
    int status = config_load(dir, NULL, config, err);
    struct error ignored;
    dir_remove(dir, &ignored);
    return status;
}

static void configuration_mistakes_name_file_line_and_allowed_words(void **state)
{
    (void)state;
    struct error err = {0};
    struct config config = {0};
    static const struct {
        const char *text, *says, *hint;
    } bad[] = {
        {"profile: azure\n", "unknown profile 'azure'", "local"},
        {"profiles:\n  a:\n    mlflo:\n      url: x\n",
         "mlhost.yaml:3: unknown key 'mlflo' in a (did you mean 'mlflow'?)", "registry"},
        {"profiles:\n  a:\n    mlflow:\n      auth: { type: bearr }\n", "unknown type 'bearr'",
         "azure_ad"},
        {"jobs: many\n", "mlhost.yaml:1: 'jobs' must be a positive whole number", ""},
        {"permissions:\n  exec: git\n", "mlhost.yaml:2: 'exec' must be a list", ""},
        {"a: [\n", "not YAML", ""},
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fails(load_text(bad[i].text, &config, &err), err, ERR_INVALID, bad[i].says);
        holds(err.hint, bad[i].hint);
    }
    ok(load_text("profile: team\nprofiles:\n  team:\n    mlflow: { url: 'http://x' }\n", &config,
                 &err),
       err);
    assert_string_equal(config.profile, "team");
    assert_false(config_is_local(&config));
    assert_string_equal(value_get_string(config_service(&config, "mlflow"), "url", ""), "http://x");
    assert_null(config_service(&config, "registry"));
    config_free(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_wrap_and_map_to_exit_codes),
        cmocka_unit_test(durations_are_read_and_printed),
        cmocka_unit_test(files_are_bounded_and_replaced_at_once),
        cmocka_unit_test(arguments_are_checked_by_their_signature),
        cmocka_unit_test(configuration_mistakes_name_file_line_and_allowed_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
