/*
 * The runner's process: one Lua state (lua/local/runner/main.lua), one event loop, a thread per job
 * that is running.
 *
 * host.start(kind, spec) -> number     "exec", "digest", "unpack": on a thread; "timer": { ms }
 * host.wait() -> number, result        the next job that has ended; or "cancel", level
 * host.cancel(number)                  a running "exec" is ended, a "timer" rings now
 */
#include "local/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/mem.h"
#include "local/lua_service.h"

struct runner;

struct job {
    struct job *next;
    struct runner *runner;
    int64_t number;
    char kind[16];
    struct value spec, result;
    struct cancel cancel;
    pthread_t thread;
    struct loop_watch *timer; /* for timers, which have no thread */
    bool done;
};

struct runner {
    struct loop *loop;
    struct job *jobs;
    int64_t last;
    int cancel_level, told_level;
    struct loop_watch *lifeline;
};

static struct runner *runner_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

/* ---- jobs ---- */

static void job_ended(void *ctx)
{
    struct job *job = ctx;

    job->done = true;
}

static void timer_rings(void *ctx)
{
    struct job *job = ctx;

    loop_end(job->timer);
    job->timer = NULL;
    job->done = true;
}

static void *work(void *ctx)
{
    struct job *job = ctx;

    if (strcmp(job->kind, "exec") == 0)
        runner_job_exec(&job->spec, &job->cancel, &job->result);
    else if (strcmp(job->kind, "digest") == 0)
        runner_job_digest(&job->spec, &job->result);
    else
        runner_job_unpack(&job->spec, &job->result);
    loop_post(job->runner->loop, job_ended, job);
    return NULL;
}

static void job_free(struct job *job)
{
    value_free(&job->spec);
    value_free(&job->result);
    cancel_end(&job->cancel);
    mem_cleanup(&job);
}

static int job_begin(struct runner *runner, struct job *job, struct error *err)
{
    if (strcmp(job->kind, "timer") == 0) {
        int64_t at = deadline_in(value_get_int(&job->spec, "ms", 0) * NS_PER_MS);
        job->timer = loop_timer(runner->loop, at, timer_rings, job);
        return 0;
    }
    if (strcmp(job->kind, "exec") != 0 && strcmp(job->kind, "digest") != 0 &&
        strcmp(job->kind, "unpack") != 0)
        return error_set(err, ERR_INTERNAL, "unknown kind of job '%s'", job->kind);
    int status = pthread_create(&job->thread, NULL, work, job);
    return status ? error_errno(err, status, "cannot start a thread") : 0;
}

static int host_start(lua_State *L)
{
    struct runner *runner = runner_of(L);
    const char *kind = luaL_checkstring(L, 1);
    struct error err = {0};
    struct value spec = {0};

    luaL_checktype(L, 2, LUA_TTABLE);
    if (lua_to_value(L, 2, &spec, &err) < 0)
        return luaL_error(L, "%s", err.message);
    struct job *job = mem_alloc(sizeof *job);
    job->runner = runner;
    job->number = ++runner->last;
    snprintf(job->kind, sizeof job->kind, "%s", kind);
    value_move(&job->spec, &spec);
    if (cancel_init(&job->cancel) < 0)
        error_errno(&err, errno, "cannot make an eventfd");
    else if (job_begin(runner, job, &err) == 0) {
        job->next = runner->jobs;
        runner->jobs = job;
        lua_pushinteger(L, job->number);
        return 1;
    }
    job_free(job);
    return luaL_error(L, "%s", err.message);
}

static struct job **find_done(struct runner *runner)
{
    for (struct job **at = &runner->jobs; *at; at = &(*at)->next) {
        if ((*at)->done)
            return at;
    }
    return NULL;
}

static int host_wait(lua_State *L)
{
    struct runner *runner = runner_of(L);
    struct error err = {0};

    for (;;) {
        if (runner->cancel_level > runner->told_level) {
            runner->told_level = runner->cancel_level;
            lua_pushliteral(L, "cancel");
            lua_pushinteger(L, runner->told_level);
            return 2;
        }
        struct job **at = find_done(runner);
        if (at) {
            struct job *job = *at;
            *at = job->next;
            if (strcmp(job->kind, "timer") != 0)
                pthread_join(job->thread, NULL);
            lua_pushinteger(L, job->number);
            lua_push_value(L, &job->result);
            job_free(job);
            return 2;
        }
        if (loop_step(runner->loop, DEADLINE_NONE, &err) < 0)
            return luaL_error(L, "%s", err.message);
    }
}

static int host_cancel(lua_State *L)
{
    struct runner *runner = runner_of(L);
    lua_Integer number = luaL_checkinteger(L, 1);

    for (struct job *job = runner->jobs; job; job = job->next) {
        if (job->number != number || job->done)
            continue;
        cancel_raise(&job->cancel);
        if (job->timer)
            timer_rings(job);
    }
    return 0;
}

/* ---- the outside: SIGTERM, and the end of the serve process ---- */

static void asked_to_stop(void *ctx)
{
    struct runner *runner = ctx;

    if (runner->cancel_level < 2)
        runner->cancel_level++;
}

static void lifeline_readable(void *ctx, int fd, uint32_t events)
{
    struct runner *runner = ctx;
    char ignored[256];

    (void)events;
    if (read(fd, ignored, sizeof ignored) > 0)
        return;
    loop_end(runner->lifeline);
    runner->lifeline = NULL;
    runner->cancel_level = 2;
}

/* ---- the state ---- */

static int host_now(lua_State *L)
{
    (void)L;
    lua_pushinteger(L, clock_wall_ms());
    return 1;
}

static void set_closure(lua_State *L, struct runner *runner, const char *name,
                        lua_CFunction function)
{
    lua_pushlightuserdata(L, runner);
    lua_pushcclosure(L, function, 1);
    lua_setfield(L, -2, name);
}

/* The table `host` of main.lua. state: "<state>", the folder above local/. */
static void push_host(lua_State *L, struct runner *runner, const char *state)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    lua_newtable(L);
    set_closure(L, runner, "start", host_start);
    set_closure(L, runner, "wait", host_wait);
    set_closure(L, runner, "cancel", host_cancel);
    set_closure(L, runner, "now", host_now);
    lua_pushstring(L, state);
    lua_pushcclosure(L, runner_image, 1);
    lua_setfield(L, -2, "image");
    lua_pushinteger(L, processors > 0 ? processors : 1);
    lua_setfield(L, -2, "processors");
    lua_pushstring(L, state);
    lua_setfield(L, -2, "state");
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "overlays");
    runner_push_fs(L);
    lua_setfield(L, -2, "fs");
}

struct call {
    struct runner *runner;
    const char *state, *kubeflow, *run_id;
};

/* require "local.runner.main" (host, kubeflow, run_id) */
static int run_main(lua_State *L)
{
    const struct call *call = lua_touserdata(L, 1);

    lua_getglobal(L, "require");
    lua_pushliteral(L, "local.runner.main");
    lua_call(L, 1, 1);
    push_host(L, call->runner, call->state);
    lua_pushstring(L, call->kubeflow);
    lua_pushstring(L, call->run_id);
    lua_call(L, 3, 1);
    return 1;
}

static int with_traceback(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static int run(const struct call *call, struct error *err)
{
    lua_State *L = lua_service_state(NULL, err);

    if (!L)
        return -1;
    lua_pushcfunction(L, with_traceback);
    lua_pushcfunction(L, run_main);
    lua_pushlightuserdata(L, (void *)call);
    if (lua_pcall(L, 1, 1, -3) != LUA_OK)
        error_set(err, ERR_INTERNAL, "%s", lua_tostring(L, -1));
    else if (strcmp(lua_tostring(L, -1), "SUCCEEDED") != 0)
        error_set(err, ERR_FAILED, "the run ended as %s", lua_tostring(L, -1));
    int status = err->code ? -1 : 0;
    lua_close(L);
    return status;
}

int mlh_task_runner_main(const char *kubeflow, const char *run_id, struct error *err)
{
    cleanup_free char *state = mem_strdup(kubeflow);
    struct runner runner = {0};

    /* <state>/local/kubeflow */
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(state, '/');
        if (!slash || slash == state)
            return error_set(err, ERR_USAGE, "%s is not the folder of an embedded Kubeflow service",
                             kubeflow);
        *slash = '\0';
    }
    runner.loop = loop_new(err);
    if (!runner.loop)
        return -1;
    fcntl(3, F_SETFD, FD_CLOEXEC); /* the lock is this process's, not its tasks' */
    loop_signal(runner.loop, SIGTERM, asked_to_stop, &runner);
    loop_signal(runner.loop, SIGINT, asked_to_stop, &runner);
    runner.lifeline = loop_fd(runner.loop, 0, EPOLLIN, lifeline_readable, &runner);
    const struct call call = {
        .runner = &runner, .state = state, .kubeflow = kubeflow, .run_id = run_id};
    int status = run(&call, err);
    loop_free(runner.loop);
    return status;
}
