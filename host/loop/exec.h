/* Running a command: spawned through sandbox_spawn, output streamed, the whole process tree ended
 * at the deadline. */
#ifndef MLHOST_LOOP_EXEC_H
#define MLHOST_LOOP_EXEC_H

#include "base/buf.h"
#include "base/clock.h"
#include "loop/cancel.h"
#include "sandbox/sandbox.h"

/* stream: 1 stdout, 2 stderr. Pieces as they come, not lines. */
typedef void exec_output_fn(void *ctx, int stream, const char *data, size_t len);

/* The command's program is loaded. pid: of the process above it, see sandbox_spawn. */
typedef void exec_started_fn(void *ctx, pid_t pid);

struct exec_spec {
    struct sandbox_policy
        *policy; /* argv, env, cwd, root file system ... ; its stdio fields are set by exec_run */
    const void *input;
    size_t input_len;
    exec_output_fn *output;
    exec_started_fn *started;
    void *output_ctx; /* of both, which may be NULL */
    size_t keep;      /* bytes of each stream kept in the result (the last ones); 0: 1 MiB */
    int64_t deadline;
    int64_t grace_ms; /* between SIGTERM and SIGKILL of the tree; 0: 2000 */
    const struct cancel *cancel;
};
struct exec_result {
    int status; /* exit status, or 128 + signal */
    bool timed_out, cancelled;
    bool out_of_memory,
        out_of_processes; /* the limit of the whole tree was hit (sandbox/cgroup.h) */
    struct buf out, err;
    bool truncated;
    int64_t elapsed_ns, cpu_ns;
    int64_t peak_kib;
};
void exec_result_free(struct exec_result *result);
/* 0 when the command ran and ended, whatever its status; -1 when it could not be started
 * (ERR_NOT_FOUND with the folders of PATH that were searched, ERR_DENIED ...). Blocks;
 * any thread. */
int exec_run(const struct exec_spec *spec, struct exec_result *result, struct error *err);

#endif
