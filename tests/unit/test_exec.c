/* Commands: output, input, deadlines, whole trees, floods; as the caller, and as nobody when run by
 * root. */
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "loop/exec.h"

static char *const environment[] = {"PATH=/usr/bin:/bin", "LC_ALL=C", NULL};

struct run {
    struct sandbox_policy policy;
    struct exec_spec spec;
    struct exec_result result;
    struct error err;
    char *argv[4];
};

static void prepare(struct run *run, const char *script)
{
    *run = (struct run){.policy = SANDBOX_POLICY_INIT};
    run->argv[0] = (char *)"sh";
    run->argv[1] = (char *)"-c";
    run->argv[2] = (char *)script;
    run->policy.argv = run->argv;
    run->policy.env = environment;
    run->policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    run->spec.policy = &run->policy;
    run->spec.deadline = deadline_in(20 * NS_PER_S);
}

static void go(struct run *run)
{
    ok(exec_run(&run->spec, &run->result, &run->err), run->err);
}

static void shell(struct run *run, const char *script)
{
    prepare(run, script);
    go(run);
}

static int64_t ms(const struct run *run)
{
    return run->result.elapsed_ns / NS_PER_MS;
}

static void output_and_status(void **state)
{
    (void)state;
    struct run run;
    shell(&run, "echo out; echo err >&2; exit 7");
    assert_int_equal(run.result.status, 7);
    assert_string_equal(run.result.out.data, "out\n");
    assert_string_equal(run.result.err.data, "err\n");
    assert_false(run.result.timed_out || run.result.cancelled || run.result.truncated);
    assert_true(run.result.elapsed_ns > 0 && run.result.peak_kib > 0);
    exec_result_free(&run.result);
}

static void death_by_signal(void **state)
{
    (void)state;
    struct run run;
    shell(&run, "kill -SEGV $$");
    assert_int_equal(run.result.status, 128 + SIGSEGV);
    exec_result_free(&run.result);
}

static void only_the_given_environment_and_descriptors(void **state)
{
    (void)state;
    struct run run;
    int extra = dup(1); /* without CLOEXEC: must not get through */
    setenv("MLHOST_TEST_SECRET", "hunter2", 1);
    shell(&run, "env | grep -c SECRET; for f in 3 4 5 6 7 8 9; do test -e /proc/self/fd/$f && echo "
                "open $f; done; :");
    assert_string_equal(run.result.out.data, "0\n");
    unsetenv("MLHOST_TEST_SECRET");
    close(extra);
    exec_result_free(&run.result);
}

static void input_is_fed_while_output_is_read(void **state)
{
    (void)state;
    struct run run;
    const size_t len = 3u << 20; /* more than all pipes together hold */
    char *input = mem_alloc(len);
    memset(input, 'x', len);
    prepare(&run, "cat");
    run.spec.input = input;
    run.spec.input_len = len;
    run.spec.keep = len;
    go(&run);
    assert_int_equal(run.result.status, 0);
    assert_int_equal(run.result.out.len, len);
    assert_memory_equal(run.result.out.data, input, len);
    exec_result_free(&run.result);
    free(input);
}

static void input_that_nobody_reads_is_no_error(void **state)
{
    (void)state;
    struct run run;
    const size_t len = 1u << 20;
    char *input = mem_alloc(len);
    prepare(&run, "exec <&-; sleep 0.1; echo done");
    run.spec.input = input;
    run.spec.input_len = len;
    go(&run);
    assert_string_equal(run.result.out.data, "done\n");
    exec_result_free(&run.result);
    free(input);
}

static void a_missing_command_names_where_it_was_looked_for(void **state)
{
    (void)state;
    struct run run;
    prepare(&run, "");
    run.argv[0] = (char *)"no-such-command-here";
    fails(exec_run(&run.spec, &run.result, &run.err), run.err, ERR_NOT_FOUND,
          "command not found: no-such-command-here");
    holds(run.err.hint, "/usr/bin:/bin");
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing left behind */
}

static void a_file_that_is_no_program(void **state)
{
    (void)state;
    struct run run;
    prepare(&run, "");
    run.argv[0] = (char *)SOURCE_DIR "/CMakeLists.txt";
    assert_int_equal(exec_run(&run.spec, &run.result, &run.err), -1);
    holds(run.err.message, "cannot run");
    holds(run.err.message, "CMakeLists.txt");
    assert_true(run.err.hint[0]);
}

static void the_deadline_asks_first(void **state)
{
    (void)state;
    struct run run;
    prepare(&run, "trap 'echo asked; exit 3' TERM; while :; do sleep 0.02; done");
    run.spec.deadline = deadline_in(200 * NS_PER_MS);
    go(&run);
    assert_true(run.result.timed_out);
    assert_int_equal(run.result.status, 3);
    assert_string_equal(run.result.out.data, "asked\n");
    exec_result_free(&run.result);
}

static void whoever_ignores_the_question_is_killed(void **state)
{
    (void)state;
    struct run run;
    prepare(&run, "trap '' TERM; while :; do sleep 0.02; done");
    run.spec.deadline = deadline_in(100 * NS_PER_MS);
    run.spec.grace_ms = 100;
    go(&run);
    assert_true(run.result.timed_out);
    assert_int_equal(run.result.status, 128 + SIGKILL);
    assert_in_range(ms(&run), 200, 1500);
    exec_result_free(&run.result);
}

static void a_stopped_process_is_killed(void **state)
{
    (void)state;
    struct run run;
    prepare(&run, "trap '' TERM; kill -STOP $$; while :; do kill -STOP $$; done");
    run.spec.deadline = deadline_in(100 * NS_PER_MS);
    run.spec.grace_ms = 100;
    go(&run);
    assert_true(run.result.timed_out);
    assert_in_range(ms(&run), 200, 1500);
    exec_result_free(&run.result);
}

static bool process_with(const char *word)
{
    char command[200];
    snprintf(command, sizeof command, "%s", word);
    FILE *file = NULL;
    bool found = false;
    for (int pid = 2; pid < 4194304 && !found; pid++) {
        char path[64], text[400] = "";
        snprintf(path, sizeof path, "/proc/%d", pid);
        if (pid > 100000 && access(path, F_OK) != 0)
            break; /* machines that have run that long number them densely enough */
        snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
        file = fopen(path, "re");
        if (!file)
            continue;
        size_t n = fread(text, 1, sizeof text - 1, file);
        fclose(file);
        for (size_t i = 0; i < n; i++) {
            if (!text[i])
                text[i] = ' ';
        }
        found = strstr(text, command) != NULL;
    }
    return found;
}

/* A name for the processes of one test, so that they can be found. */
static const char *marked(char *buffer, size_t size, const char *format, unsigned *number)
{
    static unsigned count;
    *number = 1000000u + (unsigned)getpid() * 10 + count++;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(buffer, size, format, *number);
#pragma GCC diagnostic pop
    return buffer;
}

static void a_background_child_does_not_hold_the_end(void **state)
{
    (void)state;
    struct run run;
    char script[200], sleeper[40];
    unsigned number;
    shell(&run, marked(script, sizeof script, "sleep %u & echo started", &number));
    assert_string_equal(run.result.out.data, "started\n");
    assert_true(ms(&run) < 3000);
    snprintf(sleeper, sizeof sleeper, "sleep %u", number);
    assert_false(process_with(sleeper));
    exec_result_free(&run.result);
}

static void daemons_die_with_their_command(void **state)
{
    struct run run;
    char script[300], sleeper[40];
    unsigned number;
    const unsigned namespaces[] = {0, SANDBOX_NS_PID};
    (void)state;
    for (int i = 0; i < 2; i++) {
        prepare(&run, marked(script, sizeof script,
                             "setsid sh -c 'setsid sleep %u & exit' </dev/null >/dev/null 2>&1; "
                             "sleep 0.1; trap '' TERM;"
                             "while :; do sleep 0.02; done",
                             &number));
        run.policy.namespaces = namespaces[i];
        run.spec.deadline = deadline_in(400 * NS_PER_MS);
        run.spec.grace_ms = 50;
        go(&run);
        assert_true(run.result.timed_out);
        snprintf(sleeper, sizeof sleeper, "sleep %u", number);
        assert_false(process_with(sleeper));
        exec_result_free(&run.result);
    }
}

static void count_bytes(void *ctx, int stream, const char *data, size_t len)
{
    (void)data;
    ((size_t *)ctx)[stream - 1] += len;
}

static void a_flood_is_seen_whole_and_kept_bounded(void **state)
{
    (void)state;
    struct run run;
    size_t seen[2] = {0, 0};
    prepare(&run, "head -c 50000000 /dev/zero; echo; echo last");
    run.spec.output = count_bytes;
    run.spec.output_ctx = seen;
    run.spec.keep = 1000;
    go(&run);
    assert_int_equal(seen[0], 50000000 + 6);
    assert_int_equal(run.result.out.len, 1000);
    assert_true(run.result.truncated);
    assert_memory_equal(run.result.out.data + 1000 - 6, "\nlast\n", 6);
    assert_true(run.result.out.room < 1u << 20);
    exec_result_free(&run.result);
}

static void an_endless_flood_ends_at_the_deadline(void **state)
{
    (void)state;
    struct run run;
    prepare(&run, "trap '' TERM; exec yes");
    run.spec.deadline = deadline_in(200 * NS_PER_MS);
    run.spec.grace_ms = 50;
    go(&run);
    assert_true(run.result.timed_out && run.result.truncated);
    assert_true(ms(&run) < 2000);
    exec_result_free(&run.result);
}

static void *raise_soon(void *ctx)
{
    usleep(100000);
    cancel_raise(ctx);
    return NULL;
}

static void cancelling_wakes_the_wait(void **state)
{
    (void)state;
    struct run run;
    struct cancel cancel;
    pthread_t thread;
    assert_int_equal(cancel_init(&cancel), 0);
    prepare(&run, "sleep 100");
    run.spec.cancel = &cancel;
    pthread_create(&thread, NULL, raise_soon, &cancel);
    go(&run);
    pthread_join(thread, NULL);
    assert_true(run.result.cancelled && !run.result.timed_out);
    assert_int_equal(run.result.status, 128 + SIGTERM);
    assert_true(ms(&run) < 2000);
    exec_result_free(&run.result);
    fails(exec_run(&run.spec, &run.result, &run.err), run.err, ERR_CANCELLED, "cancelled");
    cancel_end(&cancel);
}

static void limits_hold(void **state)
{
    (void)state;
    struct run run;
    prepare(&run, "while :; do :; done");
    run.policy.cpu_seconds = 1;
    go(&run);
    assert_int_equal(run.result.status, 128 + SIGXCPU);
    assert_true(run.result.cpu_ns > NS_PER_S / 2);
    exec_result_free(&run.result);

    prepare(&run,
            "f=$(mktemp); head -c 100000 /dev/zero > $f; s=$?; stat -c %s $f; rm $f; exit $s");
    run.policy.file_size = 4096;
    go(&run);
    assert_string_equal(run.result.out.data, "4096\n");
    assert_int_not_equal(run.result.status, 0);
    exec_result_free(&run.result);

    prepare(&run, "head -c 100m /dev/zero | tail -c 90m | wc -c");
    run.policy.memory = 32u << 20;
    go(&run);
    /* Whichever of the three the limit has met. */
    assert_true(!run.result.out.data || strcmp(run.result.out.data, "94371840\n") != 0);
    exec_result_free(&run.result);

    shell(&run, "ulimit -c");
    assert_string_equal(run.result.out.data, "0\n");
    exec_result_free(&run.result);
}

static void *run_many(void *ctx)
{
    int *bad = ctx;
    for (int i = 0; i < 15; i++) {
        struct run run;
        prepare(&run, "echo hello");
        if (exec_run(&run.spec, &run.result, &run.err) < 0 || run.result.status != 0 ||
            !run.result.out.data || strcmp(run.result.out.data, "hello\n") != 0)
            ++*bad;
        free(mem_alloc((size_t)i * 1000 + 1));
        exec_result_free(&run.result);
    }
    return NULL;
}

static void threads_may_run_commands_together(void **state)
{
    (void)state;
    pthread_t threads[4];
    int bad[4] = {0};
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, run_many, &bad[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(bad[0] + bad[1] + bad[2] + bad[3], 0);
}

static void nothing_is_left(void **state)
{
    (void)state;
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

#define ALL_TESTS                                                                                  \
    cmocka_unit_test(output_and_status), cmocka_unit_test(death_by_signal),                        \
        cmocka_unit_test(only_the_given_environment_and_descriptors),                              \
        cmocka_unit_test(input_is_fed_while_output_is_read),                                       \
        cmocka_unit_test(input_that_nobody_reads_is_no_error),                                     \
        cmocka_unit_test(a_missing_command_names_where_it_was_looked_for),                         \
        cmocka_unit_test(a_file_that_is_no_program), cmocka_unit_test(the_deadline_asks_first),    \
        cmocka_unit_test(whoever_ignores_the_question_is_killed),                                  \
        cmocka_unit_test(a_stopped_process_is_killed),                                             \
        cmocka_unit_test(a_background_child_does_not_hold_the_end),                                \
        cmocka_unit_test(daemons_die_with_their_command),                                          \
        cmocka_unit_test(a_flood_is_seen_whole_and_kept_bounded),                                  \
        cmocka_unit_test(an_endless_flood_ends_at_the_deadline),                                   \
        cmocka_unit_test(cancelling_wakes_the_wait), cmocka_unit_test(limits_hold),                \
        cmocka_unit_test(threads_may_run_commands_together), cmocka_unit_test(nothing_is_left)

int main(void)
{
    const struct CMUnitTest tests[] = {ALL_TESTS};
    int failed = 0;

    if (getuid() == 0) {
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            int status = 0;
            if (setgid(65534) < 0 || setuid(65534) < 0)
                _exit(99);
            prctl(PR_SET_DUMPABLE, 1);
            status = cmocka_run_group_tests_name("exec as nobody", tests, NULL, NULL);
            fflush(NULL);
            _exit(status);
        }
        int status = 0;
        waitpid(pid, &status, 0);
        failed += WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    }
    failed += cmocka_run_group_tests_name("exec", tests, NULL, NULL);
    return failed;
}
