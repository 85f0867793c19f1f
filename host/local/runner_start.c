/* The serve process's side of runners: see runner.h. Called under the lock of the service's Lua
 * state. */
#include "local/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define END_MS 5000 /* what a runner gets to end its tasks before it is killed */

extern char **environ;

/* Of this process: one lifeline for all runners, and the children to reap. */
static struct {
    int lifeline[2];
    pid_t *children;
    size_t count;
} own = {.lifeline = {-1, -1}};

static void reap(void)
{
    for (size_t i = 0; i < own.count;) {
        if (waitpid(own.children[i], NULL, WNOHANG) == 0)
            i++;
        else
            own.children[i] = own.children[--own.count];
    }
}

/* The held lock, or -1: `wait` false gives up when somebody holds it (errno EWOULDBLOCK). */
static int take_lock(const char *dir, bool wait)
{
    cleanup_free char *path = path_join(dir, "lock");
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    if (fd < 0 || flock(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB) < 0)
        return -1;
    return steal_fd(&fd);
}

static int spawn(const char *dir, const char *id, int lock, pid_t *pid, struct error *err)
{
    cleanup_free char *log = path_join(dir, "runner.log");
    cleanup_free char *kubeflow = mem_strdup(dir);
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;

    /* dir is <kubeflow>/runs/<id> */
    for (int up = 0; up < 2; up++)
        *strrchr(kubeflow, '/') = '\0';
    char *const argv[] = {"mlhost", "task-runner", (char *)id, kubeflow, NULL};
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0); /* a Ctrl-C for the server is not one for its runs */
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, own.lifeline[0], 0);
    posix_spawn_file_actions_addopen(&files, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    posix_spawn_file_actions_adddup2(&files, lock, 3);
    posix_spawn_file_actions_addclosefrom_np(&files, 4);
    int status = posix_spawn(pid, "/proc/self/exe", &files, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return status ? error_errno(err, status, "cannot start the task runner") : 0;
}

static int start(const char *dir, const char *id, struct error *err)
{
    char text[32];
    pid_t pid;

    if (own.lifeline[0] < 0 && pipe2(own.lifeline, O_CLOEXEC) < 0)
        return error_errno(err, errno, "cannot make a pipe");
    reap();
    cleanup_close int lock = take_lock(dir, true);
    if (lock < 0)
        return error_errno(err, errno, "cannot lock %s", dir);
    /* dup2 onto itself would keep close-on-exec. */
    if (lock <= 3) {
        int higher = fcntl(lock, F_DUPFD_CLOEXEC, 10);
        close(lock);
        lock = higher;
    }
    if (spawn(dir, id, lock, &pid, err) < 0)
        return -1;
    int len = snprintf(text, sizeof text, "%d\n", pid);
    if (ftruncate(lock, 0) < 0 || pwrite(lock, text, (size_t)len, 0) < 0) {
        kill(pid, SIGKILL);
        return error_errno(err, errno, "cannot write %s/lock", dir);
    }
    own.children = mem_array(own.children, own.count + 1, sizeof *own.children);
    own.children[own.count++] = pid;
    return 0;
}

static int lua_start(lua_State *L)
{
    struct error err = {0};

    if (start(luaL_checkstring(L, 1), luaL_checkstring(L, 2), &err) < 0) {
        lua_pushnil(L);
        lua_pushstring(L, err.message);
        return 2;
    }
    lua_pushboolean(L, 1);
    return 1;
}

static bool alive(const char *dir)
{
    cleanup_close int lock = take_lock(dir, false);

    return lock < 0 && errno == EWOULDBLOCK;
}

static int lua_alive(lua_State *L)
{
    const char *dir = luaL_checkstring(L, 1);

    reap();
    lua_pushboolean(L, alive(dir));
    return 1;
}

static void wait_end(int pidfd, int64_t ms)
{
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    int64_t until = deadline_in(ms * NS_PER_MS);

    while (poll(&end, 1, deadline_poll_ms(until)) < 0 && errno == EINTR)
        continue;
}

/* Signals the runner of a run, if there is one. The lock that is still held after the pidfd was
 * opened says that the pid is its holder's and not one that was given out again. */
static int lua_stop(lua_State *L)
{
    const char *dir = luaL_checkstring(L, 1);
    bool force = lua_toboolean(L, 2);
    char path[4200], text[32] = "";

    snprintf(path, sizeof path, "%s/lock", dir);
    cleanup_close int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || pread(file, text, sizeof text - 1, 0) <= 0)
        return 0;
    pid_t pid = (pid_t)strtol(text, NULL, 10);
    cleanup_close int pidfd = pid > 0 ? pidfd_open(pid, 0) : -1;
    if (pidfd < 0 || !alive(dir))
        return 0;
    pidfd_send_signal(pidfd, force ? SIGKILL : SIGTERM, NULL, 0);
    if (force)
        wait_end(pidfd, END_MS);
    reap();
    return 0;
}

static int lua_stop_all(lua_State *L)
{
    int64_t until = deadline_in(END_MS * NS_PER_MS);

    (void)L;
    fd_cleanup(&own.lifeline[0]);
    fd_cleanup(&own.lifeline[1]); /* their standard input ends: they cancel everything and end */
    own.lifeline[0] = own.lifeline[1] = -1;
    for (size_t i = 0; i < own.count; i++) {
        cleanup_close int pidfd = pidfd_open(own.children[i], 0);
        if (pidfd < 0)
            continue;
        wait_end(pidfd, deadline_left_ms(until));
        pidfd_send_signal(pidfd, SIGKILL, NULL, 0); /* no effect on what has ended */
        waitpid(own.children[i], NULL, 0);
    }
    mem_cleanup(&own.children);
    own.count = 0;
    return 0;
}

int luaopen_mlh_runner(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"start", lua_start},       {"alive", lua_alive}, {"stop", lua_stop},
        {"stop_all", lua_stop_all}, {NULL, NULL},
    };
    luaL_newlib(L, functions);
    return 1;
}
