/* The lock and the record of a workspace's daemon: who is said to run, what a lost or wrong record
 * does, and how one is stopped. The daemons here are children that hold the lock;
 * tests/integration/serve_daemon.py has the real ones. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/module.h"
#include "run/daemon.h"

static char folder[64];
static struct config config;
static struct error err;

static int open_workspace(void **state)
{
    (void)state;
    memcpy(folder, "/tmp/mlhost-daemon-XXXXXX", sizeof "/tmp/mlhost-daemon-XXXXXX");
    assert_non_null(mkdtemp(folder));
    config = (struct config){.workspace = folder, .state = mem_printf("%s/.mlhost", folder)};
    memset(&err, 0, sizeof err);
    return 0;
}

static int close_workspace(void **state)
{
    (void)state;
    dir_remove(folder, NULL);
    free(config.state);
    return 0;
}

static char *place(const char *name)
{
    return mem_printf("%s/local/daemon/%s", config.state, name);
}

static void put_record(const char *text)
{
    cleanup_free char *path = place("daemon.json");
    ok(file_write(AT_FDCWD, path, text, strlen(text), false, &err), err);
}

/* A process that holds the lock and counts as running; how = SIG_IGN: it does not hear SIGTERM. */
static pid_t holder(void (*how)(int), pid_t said, const char *socket)
{
    int pair[2];
    char byte = 0;

    assert_int_equal(pipe(pair), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct sigaction action = {.sa_handler = how};
        struct error failure = {0};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigaction(SIGTERM, &action, NULL);
        int lock = daemon_lock(&config, &failure);
        if (lock < 0 || daemon_record(&config, lock, said ? said : getpid(),
                                      "http://127.0.0.1:4711", socket, &failure) < 0)
            _exit(1);
        (void)!write(pair[1], "+", 1);
        close(pair[1]);
        for (;;)
            pause();
    }
    close(pair[1]);
    assert_int_equal(read(pair[0], &byte, 1), 1);
    close(pair[0]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void nothing_there(void **state)
{
    cleanup_daemon struct daemon daemon;
    struct stat status;

    (void)state;
    daemon_look(&config, &daemon);
    assert_false(daemon.running);
    assert_int_equal(daemon.pid, 0);
    assert_int_equal(daemon.port, 0);
    assert_null(daemon.url);
    assert_null(daemon.socket);
    assert_int_equal(daemon_stop(&config, deadline_in(NS_PER_S), &err), 0);
    assert_int_equal(stat(config.state, &status), -1); /* looking leaves nothing behind */
}

static void locked_is_not_yet_running(void **state)
{
    cleanup_daemon struct daemon before = {0}, after = {0};
    cleanup_free char *path = place("lock");
    cleanup_free char *record = place("daemon.json");
    cleanup_free char *own = place("");
    struct stat status;

    (void)state;
    cleanup_close int lock = daemon_lock(&config, &err);
    assert_true(lock >= 0);
    assert_true(fcntl(lock, F_GETFD) & FD_CLOEXEC);
    daemon_look(&config, &before);
    assert_false(before.running); /* it says nothing of itself yet */
    assert_int_equal(stat(own, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);

    int64_t now = clock_wall_ms();
    ok(daemon_record(&config, lock, 1234, "http://127.0.0.1:4711", "/tmp/x.sock", &err), err);
    assert_int_equal(stat(record, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    daemon_look(&config, &after);
    assert_int_equal(after.pid, 1234);
    assert_int_equal(after.port, 4711);
    assert_string_equal(after.url, "http://127.0.0.1:4711");
    assert_string_equal(after.socket, "/tmp/x.sock");
    assert_string_equal(after.version, mlhost_version);
    assert_true(after.started_ms >= now && after.started_ms <= clock_wall_ms());
    assert_true(after.running);
}

static void one_at_a_time(void **state)
{
    cleanup_daemon struct daemon daemon = {0}, dead = {0};

    (void)state;
    pid_t pid = holder(SIG_DFL, 0, "/tmp/x.sock");
    fails(daemon_lock(&config, &err) < 0, err, ERR_EXISTS, "served already");
    holds(err.hint, "mlhost serve --status");
    daemon_look(&config, &daemon);
    assert_true(daemon.running);
    assert_int_equal(daemon.pid, pid);
    memset(&err, 0, sizeof err);
    ok(daemon_ensure(&config, &err), err); /* it runs: nothing is started */

    end(pid);
    daemon_look(&config, &dead);
    assert_false(dead.running);
    assert_int_equal(dead.port, 4711); /* the next one takes it again */
    cleanup_close int lock = daemon_lock(&config, &err);
    assert_true(lock >= 0);
}

/* The serving process has the lock from the supervising one, and keeps it when that dies. */
static void children_hold_it_too(void **state)
{
    int ready[2], stop[2];
    char byte;
    cleanup_daemon struct daemon during = {0}, after = {0};

    (void)state;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(stop), 0);
    pid_t parent = fork();
    if (parent == 0) {
        struct error failure = {0};
        int lock = daemon_lock(&config, &failure);
        if (lock < 0 ||
            daemon_record(&config, lock, getpid(), "http://127.0.0.1:1", "s", &failure) < 0)
            _exit(1);
        if (fork() == 0) {
            close(stop[1]);
            (void)!write(ready[1], "+", 1);
            (void)!read(stop[0], &byte, 1);
            _exit(0); /* closes ready, too */
        }
        _exit(0);
    }
    close(ready[1]);
    close(stop[0]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    daemon_look(&config, &during);
    assert_true(during.running);
    fails(daemon_lock(&config, &err) < 0, err, ERR_EXISTS, "served already");
    close(stop[1]);
    assert_int_equal(read(ready[0], &byte, 1), 0);
    /* The end of the pipe may be seen before that of the lock: files are closed in their order. */
    for (int64_t deadline = deadline_in(5 * NS_PER_S); !deadline_passed(deadline); usleep(1000)) {
        daemon_free(&after);
        daemon_look(&config, &after);
        if (!after.running)
            break;
    }
    assert_false(after.running);
    close(ready[0]);
}

static void many_at_once(void **state)
{
    enum { MANY = 16 };
    int go[2], won[2], stay[2];
    pid_t pids[MANY];
    char bytes[MANY + 1];
    int winners = 0, ended = 0;

    (void)state;
    assert_int_equal(pipe(go), 0);
    assert_int_equal(pipe(won), 0);
    assert_int_equal(pipe(stay), 0);
    for (int i = 0; i < MANY; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            struct error failure = {0};
            char byte;
            close(go[1]);
            close(stay[1]);
            (void)!read(go[0], &byte, 1);
            int lock = daemon_lock(&config, &failure);
            (void)!write(won[1], lock >= 0 ? "+" : failure.code == ERR_EXISTS ? "-" : "?", 1);
            (void)!read(stay[0], &byte, 1);
            _exit(0);
        }
    }
    close(won[1]);
    close(go[1]);
    while (ended < MANY) {
        ssize_t n = read(won[0], bytes, sizeof bytes - 1);
        assert_true(n > 0);
        bytes[n] = '\0';
        assert_null(strchr(bytes, '?'));
        for (ssize_t i = 0; i < n; i++)
            winners += bytes[i] == '+';
        ended += (int)n;
    }
    assert_int_equal(winners, 1);
    close(stay[1]);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
    close(go[0]);
    close(won[0]);
    close(stay[0]);
}

static void records_that_lie(void **state)
{
    static const char *const lies[] = {
        "", "{", "[]", "7", "null", "{\"pid\":\"x\",\"port\":[]}", "{\"url\":7,\"socket\":null}"};

    (void)state;
    cleanup_close int lock = daemon_lock(&config, &err);
    assert_true(lock >= 0);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        cleanup_daemon struct daemon daemon = {0};
        put_record(lies[i]);
        daemon_look(&config, &daemon);
        assert_false(daemon.running);
        assert_int_equal(daemon.pid, 0);
        assert_int_equal(daemon.port, 0);
        assert_null(daemon.url);
        assert_null(daemon.socket);
    }
}

/* A record outlives its process; the pid may be somebody else's by now. */
static void a_stale_pid_is_left_alone(void **state)
{
    cleanup_free char *text = NULL;
    int status;

    (void)state;
    pid_t bystander = fork();
    if (bystander == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    close(daemon_lock(&config, &err)); /* makes the folder; held by nobody */
    text = mem_printf("{\"pid\":%d,\"port\":1,\"url\":\"http://127.0.0.1:1\",\"socket\":\"s\"}",
                      (int)bystander);
    put_record(text);
    assert_int_equal(daemon_stop(&config, deadline_in(NS_PER_S), &err), 0);
    assert_int_equal(waitpid(bystander, &status, WNOHANG), 0);
    end(bystander);
}

static void stops(void **state)
{
    cleanup_free char *socket = mem_printf("%s/socket", folder);
    int status;

    (void)state;
    ok(file_write(AT_FDCWD, socket, "", 0, false, &err), err);
    pid_t pid = holder(SIG_DFL, 0, socket);
    assert_int_equal(daemon_stop(&config, deadline_in(20 * NS_PER_S), &err), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    assert_int_equal(access(socket, F_OK), -1);
    assert_int_equal(daemon_stop(&config, deadline_in(NS_PER_S), &err), 0);

    pid = holder(SIG_IGN, 0, socket);
    assert_int_equal(daemon_stop(&config, deadline_in(100 * NS_PER_MS), &err), 2);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    cleanup_close int lock = daemon_lock(&config, &err);
    assert_true(lock >= 0);
}

/* Locked, and its pid is none of this machine: what a container's daemon looks like from outside.
 */
static void cannot_be_seen(void **state)
{
    (void)state;
    pid_t gone = fork();
    if (gone == 0)
        _exit(0);
    assert_int_equal(waitpid(gone, NULL, 0), gone);
    pid_t pid = holder(SIG_DFL, gone, "s");
    fails(daemon_stop(&config, deadline_in(100 * NS_PER_MS), &err) < 0, err, ERR_TIMEOUT,
          "cannot be seen");
    holds(err.hint, "container");
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    end(pid);
}

static void listens(void **state)
{
    cleanup_free char *first = NULL;
    cleanup_free char *second = NULL;
    struct stat status;
    int listening = 0;
    socklen_t len = sizeof listening;

    (void)state;
    cleanup_close int one = daemon_listen(&config, &first, &err);
    assert_true(one >= 0);
    assert_int_equal(lstat(first, &status), 0);
    assert_true(S_ISSOCK(status.st_mode));
    /* A dead one's socket stands there: the next one takes the same path. */
    cleanup_close int two = daemon_listen(&config, &second, &err);
    assert_true(two >= 0);
    assert_string_equal(first, second);
    assert_int_equal(getsockopt(two, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len), 0);
    assert_true(listening);
    assert_true(fcntl(two, F_GETFD) & FD_CLOEXEC);
    unlink(second);
}

static void says_how_it_started(void **state)
{
    static const struct {
        const char *text, *message;
    } ends[] = {{"-the port is taken", "the port is taken"}, {"", "ended at once"}};
    int pair[2];

    (void)state;
    assert_int_equal(pipe(pair), 0);
    assert_int_equal(write(pair[1], "+", 1), 1);
    close(pair[1]);
    ok(daemon_started(pair[0], deadline_in(NS_PER_S), &err), err);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        assert_int_equal(pipe(pair), 0);
        assert_int_equal(write(pair[1], ends[i].text, strlen(ends[i].text)), strlen(ends[i].text));
        close(pair[1]);
        fails(daemon_started(pair[0], deadline_in(NS_PER_S), &err), err, ERR_IO, ends[i].message);
    }
    assert_int_equal(pipe(pair), 0);
    fails(daemon_started(pair[0], deadline_in(10 * NS_PER_MS), &err), err, ERR_TIMEOUT,
          "does not get ready");
    close(pair[1]);
}

static void answers_a_broker(void **state)
{
    cleanup_value struct value none = {0}, there = {0}, failed = {0};
    struct error failure = {0};

    (void)state;
    daemon_answer(&config, NULL, &none);
    holds(value_get_string(&none, "by", ""), "ended again");
    assert_null(value_get(&none, "socket"));
    pid_t pid = holder(SIG_DFL, 0, "/tmp/x.sock");
    daemon_answer(&config, NULL, &there);
    assert_string_equal(value_get_string(&there, "socket", ""), "/tmp/x.sock");
    assert_string_equal(value_get_string(&there, "url", ""), "http://127.0.0.1:4711");
    error_set(&failure, ERR_IO, "the port is taken");
    daemon_answer(&config, &failure, &failed);
    assert_string_equal(value_get_string(&failed, "by", ""), "the port is taken");
    assert_null(value_get(&failed, "socket"));
    end(pid);
}

#define one(name) cmocka_unit_test_setup_teardown(name, open_workspace, close_workspace)

int main(void)
{
    const struct CMUnitTest tests[] = {
        one(nothing_there),
        one(locked_is_not_yet_running),
        one(one_at_a_time),
        one(children_hold_it_too),
        one(many_at_once),
        one(records_that_lie),
        one(a_stale_pid_is_left_alone),
        one(stops),
        one(cannot_be_seen),
        one(listens),
        one(says_how_it_started),
        one(answers_a_broker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
