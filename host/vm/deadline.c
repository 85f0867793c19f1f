/*
 * The end of the time.
 *
 * While a script is healthy there is no hook: one halves the speed of pure Lua. A timer signal
 * marks the deadline. If the script waits for the host then, the broker's reply says "timeout", and
 * the script has the grace period to clean up. If it computes, the signal installs a hook that
 * reports file, line and traceback and ends the process: nothing can catch that. A second signal
 * ends what no hook reaches, such as a pattern that backtracks for ever: with _exit, from the
 * handler. A cancel takes the same way, except that a computing script gets an error first.
 */
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "vm/state.h"

#define C_LOOP_MS 200 /* a C function may take so long after the hook was set */

static struct vm *the_vm; /* for the handlers */
static int64_t limit_ms, deadline_at = DEADLINE_NONE;

static void arm(int64_t ms)
{
    struct itimerval at = {.it_value = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000}};

    if (ms <= 0)
        at.it_value.tv_usec = 1;
    setitimer(ITIMER_REAL, &at, NULL);
}

static _Noreturn void give_up(lua_State *L)
{
    struct vm *vm = vm_of(L);
    struct value frame = {0};
    struct value *error;
    char place[220];
    cleanup_buf struct buf text = BUF_INIT;

    vm->budget.limit = SIZE_MAX;
    vm_where(L, place, sizeof place);
    value_set_map(&frame);
    value_put_string(&frame, "t", "done");
    error = value_put(&frame, "error");
    value_set_map(error);
    value_put_string(error, "code", vm->cancelled ? "cancelled" : "timeout");
    if (vm->cancelled) {
        buf_puts(&text, "cancelled; the clean-up did not end in time");
    } else {
        buf_puts(&text, "timed out after ");
        duration_print(limit_ms * NS_PER_MS, &text);
    }
    value_put_string(error, "message", text.data);
    if (!vm->cancelled)
        value_put_string(error, "hint",
                         "the script was computing; raise `timeout`, or look at this line");
    char *colon = strrchr(place, ':');
    if (colon) {
        *colon = '\0';
        value_put_string(error, "file", place);
        int64_t line = 0;
        for (const char *c = colon + 1; *c; c++)
            line = line * 10 + (*c - '0');
        value_put_int(error, "line", line);
    }
    luaL_traceback(L, L, NULL, 0);
    const char *trace = lua_tostring(L, -1);
    value_put_string(error, "traceback",
                     strncmp(trace, "stack traceback:\n", 17) == 0 ? trace + 17 : trace);
    vm_send(vm, &frame);
    _exit(0);
}

static void hook(lua_State *L, lua_Debug *ar)
{
    struct vm *vm = vm_of(L);
    struct error err = {0};

    if (vm_debug_stopped(vm)) {
        vm_debug_interrupt(L, ar);
        return;
    }
    if (vm->time == TIME_OVER) {
        vm_debug_break(L, "timeout");
        give_up(L);
    }
    lua_sethook(L, NULL, 0, 0);
    vm_debug_hook(L);
    if (!vm->stop)
        return;
    vm->stop = 0;
    vm->told = 1;
    error_set(&err, ERR_CANCELLED, vm->cancelled ? "cancelled" : "interrupted");
    vm_raise(L, &err);
}

static volatile sig_atomic_t grace_given; /* once: clean-up has one budget */

static void begin_grace(void)
{
    arm(the_vm->grace_ms);
    the_vm->time = TIME_GRACE;
    grace_given = 1;
}

static void set_hook(void)
{
    lua_sethook(the_vm->current, hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

static void on_alarm(int signo)
{
    (void)signo;
    if (the_vm->time == TIME_OVER)
        _exit(VM_EXIT_OVERRUN);
    if (the_vm->time == TIME_LEFT && the_vm->waiting) {
        begin_grace();
        return;
    }
    the_vm->time = TIME_OVER;
    if (the_vm->current)
        set_hook();
    arm(C_LOOP_MS);
}

static void on_stop(int signo)
{
    the_vm->stop = 1;
    if (signo == SIGUSR1) {
        the_vm->cancelled = 1;
        if (the_vm->time == TIME_LEFT)
            begin_grace();
    }
    if (!the_vm->waiting && the_vm->current)
        set_hook();
}

void vm_time_prepare(struct vm *vm)
{
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigset_t none;

    the_vm = vm;
    sigfillset(&action.sa_mask);
    sigaction(SIGALRM, &action, NULL);
    action.sa_handler = on_stop;
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

#define CLOSE_NS (100 * NS_PER_MS) /* the broker's clock and this timer agree to less */

/*
 * The broker may answer "timeout" a moment before the timer here says the same. The script is about
 * to clean up then, and must not be taken for one that computes beyond its deadline. Nor when the
 * timer fired between the reply's arrival and here: a script that computed would not have got here,
 * the hook ends it before its next call.
 */
void vm_time_answered(struct vm *vm)
{
    if (deadline_at == DEADLINE_NONE || clock_now() < deadline_at - CLOSE_NS)
        return;
    vm->waiting = 1; /* a signal from here on sees a script that waits */
    if (!grace_given)
        begin_grace(); /* a hook that was set finds no time over, and goes */
    vm->waiting = 0;
}

void vm_time_start(struct vm *vm, int64_t left_ms)
{
    (void)vm;
    limit_ms = left_ms;
    deadline_at = left_ms == INT64_MAX ? DEADLINE_NONE : deadline_in(left_ms * NS_PER_MS);
    if (left_ms != INT64_MAX)
        arm(left_ms);
}

void vm_time_renew(lua_State *L)
{
    struct vm *vm = vm_of(L);

    if (vm->time == TIME_OVER || vm->stop || vm_debug_interrupted(vm))
        lua_sethook(L, hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
    else if (vm->debug)
        vm_debug_hook(L);
}

static int64_t paused_at;

int64_t vm_time_pause(struct vm *vm)
{
    struct itimerval none = {0}, left = {0};

    (void)vm;
    setitimer(ITIMER_REAL, &none, &left);
    paused_at = clock_now();
    return left.it_value.tv_sec * NS_PER_S + left.it_value.tv_usec * 1000;
}

void vm_time_resume(struct vm *vm, int64_t left_ns)
{
    if (deadline_at != DEADLINE_NONE)
        deadline_at += clock_now() - paused_at;
    if (left_ns && !vm->cancelled) /* a cancel has set a timer of its own */
        arm(left_ns / NS_PER_MS);
}
