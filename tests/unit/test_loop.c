/* The event loop: descriptors, timers, children, signals, posts, and watches that end each other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop/cancel.h"
#include "loop/loop.h"

static struct loop *loop;

static int setup(void **state)
{
    (void)state;
    loop = loop_new(NULL);
    return loop ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(loop);
    return 0;
}

static void stop_at_watchdog(void *ctx)
{
    *(bool *)ctx = true;
    loop_stop(loop);
}

/* Runs until something stops the loop; false when nothing did within two seconds. */
static bool run(void)
{
    struct error err = {0};
    bool late = false;
    struct loop_watch *watchdog =
        loop_timer(loop, deadline_in(2 * NS_PER_S), stop_at_watchdog, &late);
    assert_int_equal(loop_run(loop, &err), 0);
    loop_end(watchdog);
    return !late;
}

struct order {
    int seen[16];
    int count;
    struct loop_watch *again;
};
struct mark {
    struct order *order;
    int number, stop_after;
};

static void mark(void *ctx)
{
    struct mark *m = ctx;
    m->order->seen[m->order->count++] = m->number;
    if (m->order->count == m->stop_after)
        loop_stop(loop);
}

static void timers_fire_in_order(void **state)
{
    (void)state;
    struct order order = {0};
    struct mark marks[9];
    struct loop_watch *watches[9];
    int64_t base = deadline_in(5 * NS_PER_MS);
    const int delays[9] = {7, 3, 8, 1, 5, 2, 6, 4, 0};

    for (int i = 0; i < 9; i++) {
        marks[i] = (struct mark){&order, delays[i], 8};
        watches[i] = loop_timer(loop, base + delays[i] * NS_PER_MS, mark, &marks[i]);
    }
    loop_end(watches[4]); /* the one at 5 */
    assert_true(run());
    const int expected[8] = {0, 1, 2, 3, 4, 6, 7, 8};
    assert_memory_equal(order.seen, expected, sizeof expected);
    for (int i = 0; i < 9; i++) {
        if (i != 4)
            loop_end(watches[i]);
    }
}

static void a_timer_is_not_early(void **state)
{
    (void)state;
    struct order order = {0};
    struct mark m = {&order, 1, 1};
    int64_t at = deadline_in(20 * NS_PER_MS);
    struct loop_watch *timer = loop_timer(loop, at, mark, &m);
    assert_true(run());
    assert_true(clock_now() >= at);
    loop_end(timer);
}

static void rearm(void *ctx)
{
    struct order *order = ctx;
    if (++order->count == 3)
        loop_stop(loop);
    loop_timer_at(order->again, clock_now());
}

static void a_timer_armed_for_the_past_does_not_starve(void **state)
{
    (void)state;
    struct order order = {0};
    order.again = loop_timer(loop, clock_now(), rearm, &order);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(loop_step(loop, DEADLINE_NONE, NULL), 0);
        assert_int_equal(order.count, i); /* once per round */
    }
    loop_timer_at(order.again, DEADLINE_NONE);
    assert_int_equal(loop_step(loop, clock_now(), NULL), 0);
    assert_int_equal(order.count, 3);
    loop_end(order.again);
}

static void step_returns_at_its_deadline(void **state)
{
    (void)state;
    int64_t until = deadline_in(15 * NS_PER_MS);
    assert_int_equal(loop_step(loop, until, NULL), 0);
    assert_true(clock_now() >= until);
}

struct pair {
    struct loop_watch *mine, *other;
    int *calls;
};

static void end_both(void *ctx, int fd, uint32_t events)
{
    struct pair *pair = ctx;
    (void)fd;
    assert_true(events & EPOLLIN);
    ++*pair->calls;
    loop_end(pair->other);
    loop_end(pair->mine);
    loop_stop(loop);
}

static void watches_may_end_each_other(void **state)
{
    (void)state;
    int a[2], b[2], calls = 0;
    assert_int_equal(pipe2(a, O_CLOEXEC) | pipe2(b, O_CLOEXEC), 0);
    assert_int_equal(write(a[1], "x", 1) + write(b[1], "x", 1), 2);
    struct pair one = {.calls = &calls}, two = {.calls = &calls};
    one.mine = two.other = loop_fd(loop, a[0], EPOLLIN, end_both, &one);
    two.mine = one.other = loop_fd(loop, b[0], EPOLLIN, end_both, &two);
    assert_non_null(one.mine);
    assert_non_null(two.mine);
    assert_true(run());
    assert_int_equal(calls, 1); /* both were ready in the same round */
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

static void not_called(void *ctx, int fd, uint32_t events)
{
    (void)ctx;
    (void)fd;
    (void)events;
    fail_msg("called for a descriptor without events");
}

static void regular_files_are_refused(void **state)
{
    (void)state;
    int fd = open(PROGRAM, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    errno = 0;
    assert_null(loop_fd(loop, fd, EPOLLIN, not_called, NULL));
    assert_int_equal(errno, EPERM);
    close(fd);
}

static void got_status(void *ctx, int status)
{
    *(int *)ctx = status;
    loop_stop(loop);
}

static int child_status(int code, int signo)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        if (signo)
            kill(getpid(), signo);
        _exit(code);
    }
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    assert_true(pidfd >= 0);
    assert_non_null(loop_child(loop, pidfd, got_status, &status));
    assert_true(run());
    assert_int_equal(waitpid(pid, NULL, WNOHANG), -1); /* reaped */
    assert_int_equal(fcntl(pidfd, F_GETFD), -1);       /* closed */
    return status;
}

static void children_are_reaped_with_their_status(void **state)
{
    (void)state;
    int status = child_status(42, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    status = child_status(0, SIGKILL);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void a_child_reaped_elsewhere_gives_minus_one(void **state)
{
    (void)state;
    int status = 0;
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_non_null(loop_child(loop, pidfd, got_status, &status));
    assert_true(run());
    assert_int_equal(status, -1);
}

static void count_and_stop(void *ctx)
{
    ++*(int *)ctx;
    loop_stop(loop);
}

static void signals_arrive_as_events_and_the_mask_comes_back(void **state)
{
    (void)state;
    int calls = 0;
    sigset_t mask;
    struct loop_watch *watch = loop_signal(loop, SIGUSR1, count_and_stop, &calls);
    assert_non_null(watch);
    kill(getpid(), SIGUSR1);
    assert_true(run());
    assert_int_equal(calls, 1);
    loop_end(watch);
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    assert_int_equal(sigismember(&mask, SIGUSR1), 0);
}

#define POSTS 1000
struct poster {
    int expected; /* what the next post must carry */
    int bad, count;
};
struct letter {
    struct poster *to;
    int number;
};

static void receive(void *ctx)
{
    struct letter *letter = ctx;
    struct poster *to = letter->to;
    if (letter->number != to->expected++)
        to->bad++;
    free(letter);
    if (++to->count == POSTS)
        loop_stop(loop);
}

static void *send_posts(void *ctx)
{
    for (int i = 0; i < POSTS; i++) {
        struct letter *letter = malloc(sizeof *letter);
        if (!letter)
            abort();
        *letter = (struct letter){ctx, i};
        loop_post(loop, receive, letter);
    }
    return NULL;
}

static void posts_from_a_thread_come_in_order(void **state)
{
    (void)state;
    struct poster poster = {0};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, send_posts, &poster), 0);
    assert_true(run());
    pthread_join(thread, NULL);
    assert_int_equal(poster.bad, 0);
    assert_int_equal(poster.count, POSTS);
}

static void cancel_wakes_every_waiter(void **state)
{
    (void)state;
    struct cancel cancel;
    assert_int_equal(cancel_init(&cancel), 0);
    struct pollfd fds[2] = {{cancel.fd, POLLIN, 0}, {cancel.fd, POLLIN, 0}};
    assert_false(cancelled(&cancel));
    assert_false(cancelled(NULL));
    assert_int_equal(poll(fds, 2, 0), 0);
    cancel_raise(&cancel);
    cancel_raise(&cancel);
    assert_true(cancelled(&cancel));
    assert_int_equal(poll(fds, 2, 0), 2);
    assert_int_equal(poll(fds, 2, 0), 2); /* stays readable */
    cancel_end(&cancel);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(timers_fire_in_order),
        EACH(a_timer_is_not_early),
        EACH(a_timer_armed_for_the_past_does_not_starve),
        EACH(step_returns_at_its_deadline),
        EACH(watches_may_end_each_other),
        EACH(regular_files_are_refused),
        EACH(children_are_reaped_with_their_status),
        EACH(a_child_reaped_elsewhere_gives_minus_one),
        EACH(signals_arrive_as_events_and_the_mask_comes_back),
        EACH(posts_from_a_thread_come_in_order),
        EACH(cancel_wakes_every_waiter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
