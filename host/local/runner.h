/*
 * The task runner: a process per KFP run (`mlhost task-runner`), whose logic is lua/local/runner.
 * This header is the C below it, in three parts:
 *
 *   start   what the serve process does: start a runner, see whether it lives, stop it
 * (runner_start.c) host    what the runner's Lua state can do: files, jobs on threads, images
 * (runner_fs.c, runner_host.c ...) main    the process itself (runner_main.c)
 *
 * A runner lives exactly as long as the lock on runs/<id>/lock is held: the serve process takes it,
 * and the runner inherits the open file. Its standard input is a pipe whose other end only the
 * serve process holds: its end is the runner's end.
 */
#ifndef MLHOST_LOCAL_RUNNER_H
#define MLHOST_LOCAL_RUNNER_H

#include <lauxlib.h>
#include <lua.h>

#include "base/value.h"
#include "loop/exec.h"
#include "loop/loop.h"

/* The C modules of the Kubeflow service's Lua state: `runner` and `yaml`. */
extern const luaL_Reg kubeflow_libraries[];

/*
 * require "runner":
 *   start(dir, id) -> true | nil, message   starts `mlhost task-runner` for the run whose folder is
 * dir alive(dir) -> bool                      also reaps runners that have ended stop(dir, force)
 * asks it to cancel (SIGTERM), or kills it and waits until it is gone stop_all() ends those that
 * this process started; a few seconds at most
 */
int luaopen_mlh_runner(lua_State *L);
/* require "yaml": decode(text [, source]) -> list of documents | nil, message with line and column
 */
int luaopen_mlh_yaml(lua_State *L);

/* Pushes the table `fs` of runner_fs.c. */
void runner_push_fs(lua_State *L);

/* ---- the log of a task (runner_log.c) ---- */

#define RUNNER_TAIL 1500 /* bytes that are kept for error messages */

/* Appends a task's output to a file: bounded, secrets masked also where they straddle two pieces.
 */
struct runner_log {
    int fd;
    uint64_t left; /* bytes that may still be written */
    bool full;
    const struct value *mask; /* array of texts; NULL: none */
    size_t longest;
    struct buf pending[2]; /* per stream: the end of what came, in which a secret may have begun */
    char tail[RUNNER_TAIL + 1];
    size_t tail_len;
};
int runner_log_open(struct runner_log *log, const char *path, uint64_t limit,
                    const struct value *mask, struct error *err);
void runner_log_output(void *log, int stream, const char *data, size_t len); /* an exec_output_fn */
void runner_log_close(struct runner_log *log);

/* ---- jobs (runner_job_*.c): run on a thread, never touch Lua. `spec` in, `out` a map; failures
 * are out.error. ---- */

void runner_job_exec(const struct value *spec, const struct cancel *cancel, struct value *out);
void runner_job_digest(const struct value *spec, struct value *out);
void runner_job_unpack(const struct value *spec, struct value *out);

/*
 * Runs a command from an unpacked image in the sandbox, until it ends: of tasks, and of the
 * containers of the embedded Seldon.
 *   spec   argv, env: lists of text; root (folder), read_only, mounts { kind, source, target,
 * upper, work, size }, hostname, memory (bytes), uid, gid, cwd, timeout_ms, grace_ms As exec_run;
 * ctx is handed to output and started.
 */
int runner_exec(const struct value *spec, const struct cancel *cancel, exec_output_fn *output,
                exec_started_fn *started, void *ctx, struct exec_result *result, struct error *err);

/* ---- images (runner_image.c) ---- */

/* image(reference, url) -> { name, digest, store, config } | nil, message. Upvalue 1: the folder
 * above local/. url: of the serve process, for the message. */
int runner_image(lua_State *L);

/* `mlhost task-runner`, exported by the serve module: kubeflow is the folder
 * "<state>/local/kubeflow". 0 when the run has succeeded; ERR_FAILED when it has not. */
int mlh_task_runner_main(const char *kubeflow, const char *run_id, struct error *err);

#endif
