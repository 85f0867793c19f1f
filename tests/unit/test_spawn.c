/* Errors, missing layers, limits of processes, and ends: nothing outlives whoever started it. As
 * the caller and as nobody. */
#include "sandbox_check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

/* ---- errors ---- */

static void errors_name_the_step(void **state)
{
    (void)state;
    struct error err = {0};
    struct sandbox_child child;
    char *argv[] = {(char *)"true", NULL};
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    policy.argv = argv;
    policy.env = environment;
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.cwd = "/no/such/folder";
    fails(sandbox_spawn(&policy, &child, &err), err, ERR_NOT_FOUND,
          "step 'directory': /no/such/folder");
    assert_true(err.hint[0]);
    assert_int_equal(child.pid, -1);
    policy.cwd = NULL;
    policy.required = SANDBOX_LAYER_CGROUP;
    fails(sandbox_spawn(&policy, &child, &err), err, ERR_UNSUPPORTED, "cgroup");
    policy.required = 0;
    policy.argv = NULL;
    fails(sandbox_spawn(&policy, &child, &err), err, ERR_USAGE, "argv");
    const struct sandbox_mount relative = {
        .kind = MOUNT_BIND_RO, .source = "/usr", .target = "usr"};
    policy.argv = argv;
    policy.mounts = &relative;
    policy.mount_count = 1;
    if (have_namespaces())
        fails(sandbox_spawn(&policy, &child, &err), err, ERR_INVALID, "absolute: usr");
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* Inside of a command's filter there are no namespaces to be had: as in a container without
 * privileges. */
static int without_namespaces(void *ctx, int keep_fd)
{
    struct error err = {0};
    struct sandbox_child child;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    char *argv[] = {(char *)"true", NULL};
    const struct sandbox_mount bind = {.kind = MOUNT_BIND_RO, .source = "/usr", .target = "/usr"};
    int status;

    (void)ctx;
    (void)keep_fd;
    if (sandbox_available() & SANDBOX_LAYER_NAMESPACES)
        return 1;
    policy.argv = argv;
    policy.env = environment;
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.namespaces = ALL_NAMESPACES;
    if (sandbox_spawn(&policy, &child, &err) < 0)
        return 2;
    if (waitpid(child.pid, &status, 0) != child.pid || status != 0)
        return 3;
    if (child.namespaces != 0 || !(child.enforced & SANDBOX_LAYER_SECCOMP) ||
        child.enforced & SANDBOX_LAYER_NAMESPACES)
        return 4;
    policy.required = SANDBOX_LAYER_NAMESPACES;
    if (sandbox_spawn(&policy, &child, &err) == 0 || err.code != ERR_UNSUPPORTED ||
        !strstr(err.message, "mount"))
        return 5;
    policy.required = 0;
    policy.root = "/";
    policy.mounts = &bind;
    policy.mount_count = 1;
    if (sandbox_spawn(&policy, &child, &err) == 0 || err.code != ERR_UNSUPPORTED || !err.hint[0])
        return 6;
    return 0;
}

static void what_is_missing_is_left_out_unless_required(void **state)
{
    (void)state;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.fn = without_namespaces;
    policy.net_allowed = true;
    assert_int_equal(run_policy(&policy), 0);
}

/* ---- ends ---- */

static int count_forks(void *ctx, int keep_fd)
{
    int count = 0;
    (void)ctx;
    (void)keep_fd;
    for (; count < 200; count++) {
        pid_t pid = fork();
        if (pid == 0) {
            pause();
            _exit(0);
        }
        if (pid < 0)
            break;
    }
    return count;
}

static void process_counts_are_limited(void **state)
{
    (void)state;
    struct error err = {0};
    struct sandbox_child child;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.fn = count_forks;
    policy.processes = 10;
    policy.namespaces = SANDBOX_NS_PID;
    policy.set_user = true; /* root is not counted */
    policy.uid = policy.gid = geteuid() == 0 ? 4321 : geteuid();
    ok(sandbox_spawn(&policy, &child, &err), err);
    assert_in_range(WEXITSTATUS(finish(&child)), 1, 12);
}

static void a_fork_bomb_ends_at_the_deadline(void **state)
{
    (void)state;
    struct error err = {0};
    struct exec_result result;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    char *argv[] = {(char *)"sh", (char *)"-c",
                    (char *)"trap '' TERM; b() { b | b & }; b; sleep 100", NULL};
    const unsigned namespaces[] = {SANDBOX_NS_PID, 0};
    for (int i = 0; i < 2; i++) {
        const struct exec_spec spec = {.policy = &policy,
                                       .deadline = deadline_in(300 * NS_PER_MS),
                                       .grace_ms = 50,
                                       .keep = 4096};
        policy.argv = argv;
        policy.env = environment;
        policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
        policy.namespaces = namespaces[i];
        policy.processes = 100;
        policy.set_user = true;
        policy.uid = policy.gid = geteuid() == 0 ? 4321 : geteuid();
        ok(exec_run(&spec, &result, &err), err);
        assert_true(result.timed_out || result.status != 0);
        assert_true(result.elapsed_ns < 5 * NS_PER_S);
        exec_result_free(&result);
    }
}

/* Starts a daemon below it, tells its pid, and is killed. */
static pid_t orphaned(unsigned namespaces)
{
    int ends[2];
    pid_t daemon_pid = 0;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t parent = fork();
    if (parent == 0) {
        struct sandbox_child child;
        struct sandbox_policy policy = SANDBOX_POLICY_INIT;
        char *argv[] = {(char *)"sh", (char *)"-c", (char *)"setsid sleep 1000 & sleep 1000", NULL};
        policy.argv = argv;
        policy.env = environment;
        policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
        policy.namespaces = namespaces;
        if (sandbox_spawn(&policy, &child, NULL) < 0)
            _exit(1);
        usleep(50000);
        if (write(ends[1], &child.pid, sizeof child.pid) < 0)
            _exit(1);
        pause();
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &daemon_pid, sizeof daemon_pid), sizeof daemon_pid);
    close(ends[0]);
    kill(parent, SIGKILL);
    waitpid(parent, NULL, 0);
    return daemon_pid;
}

static void nothing_outlives_its_parent(void **state)
{
    (void)state;
    const unsigned namespaces[] = {0, SANDBOX_NS_PID};
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* so that what is left over comes to us, and is seen */
    for (int i = 0; i < 2; i++) {
        pid_t keeper = orphaned(namespaces[i]);
        int64_t end = deadline_in(3 * NS_PER_S);
        int status;
        pid_t pid;
        while ((pid = waitpid(-1, &status, WNOHANG)) != -1) { /* until there is no child at all */
            assert_true(pid == 0 || pid == keeper);
            assert_false(deadline_passed(end));
            usleep(1000);
        }
    }
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

static void killing_is_safe_after_the_end(void **state)
{
    (void)state;
    struct error err = {0};
    struct sandbox_child child;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    char *argv[] = {(char *)"true", NULL};
    policy.argv = argv;
    policy.env = environment;
    ok(sandbox_spawn(&policy, &child, &err), err);
    struct pollfd ended = {.fd = child.pidfd, .events = POLLIN};
    assert_int_equal(poll(&ended, 1, 5000), 1);
    sandbox_kill(&child); /* a zombie */
    assert_int_equal(waitpid(child.pid, NULL, 0), child.pid);
    sandbox_kill(&child); /* gone */
    sandbox_signal(&child, SIGTERM);
    close(child.pidfd);
}

#define T(name) cmocka_unit_test(name)

static int run_all(const char *user)
{
    const struct CMUnitTest tests[] = {
        T(errors_name_the_step),        T(what_is_missing_is_left_out_unless_required),
        T(process_counts_are_limited),  T(a_fork_bomb_ends_at_the_deadline),
        T(nothing_outlives_its_parent), T(killing_is_safe_after_the_end),
    };
    return cmocka_run_group_tests_name(user, tests, NULL, NULL);
}

int main(void)
{
    return as_both_users(run_all);
}
