/*
 * A primitive: one row of a table and one plain C function `value in -> value or error out`. It
 * never sees a lua_State.
 *
 * Rows stand in the program (broker/rows_*.c), so that stubs, help and permission checks cost no
 * loading; functions named with MODULE_IO are found by symbol in the io module when the first of
 * them is called. A primitive blocks; the broker runs each call on a worker thread, so several
 * calls of one VM overlap. It must respect call->deadline and call->cancel in everything that
 * waits.
 */
#ifndef MLHOST_BROKER_PRIMITIVE_H
#define MLHOST_BROKER_PRIMITIVE_H

#include "base/module.h"
#include "base/signature.h"
#include "base/value.h"
#include "loop/cancel.h"

struct broker;
struct primitive;
struct http;
struct sandbox_policy;
struct exec_result;

struct call {
    struct broker *broker;
    const struct primitive *row;
    int64_t deadline;
    struct cancel *cancel;
};

typedef int primitive_fn(struct call *call, const struct value *args, struct value *out,
                         struct error *err);

struct primitive {
    struct signature sign;
    enum module module;
    primitive_fn *fn;   /* MODULE_CORE */
    const char *symbol; /* MODULE_IO: exported function of that name */
    const void *data;   /* the row's own constant, e.g. a REST endpoint */
    bool one_way;       /* no reply is sent: log, print, progress */
};

/* Each broker/rows_<area>.c exports `const struct primitive <area>_rows[]`, ended by a row without
 * a name. All rows, in name order; *count of them. */
const struct primitive *const *primitive_table(size_t *count);
const struct primitive *primitive_find(const char *name);
/* One more row, which must live on; before the first use of the table, from one thread. ERR_EXISTS,
 * ERR_USAGE. */
int primitive_add(const struct primitive *row, struct error *err);

/* ---- what a primitive may ask of its broker; all thread-safe ---- */

enum access { ACCESS_READ, ACCESS_WRITE };
/* A script's path -> an absolute path that policy allows. Relative paths are below the workspace.
 * ".." and links that lead out are refused; the error's hint is the line that grants it. Returns an
 * allocated string or NULL. */
char *call_path(struct call *call, const char *path, enum access access, struct error *err);
/* What is in a file that call_path has allowed, now or earlier: a link that has come into its way
 * since then is refused. At most `limit` bytes; a NUL follows them. */
int call_read(const char *resolved, size_t limit, struct buf *out, struct error *err);
/* open(2), close-on-exec, of such a path or one beside it, on the same terms. */
int call_open(const char *resolved, int flags, unsigned mode, struct error *err);
int call_allow_net(struct call *call, const char *host, int port, struct error *err);
int call_allow_exec(struct call *call, const char *const *argv, struct error *err);
int call_allow_env(struct call *call, const char *name, struct error *err);
/* Has the stage any of the network? Commands get all of it then, or none. */
bool call_has_net(struct call *call);
/*
 * Runs a command with exactly the script's rights: the policy's exec check, variables, files and
 * net, in namespaces, below Landlock and the syscall filter. `args` are exec.run's: argv, env,
 * input, cwd, quiet. Of `limits` (SANDBOX_POLICY_INIT, and what is limited) only limits count.
 * `keep` and the outcome are exec_run's (loop/exec.h).
 */
#define COMMAND_PROCESSES 4096 /* for limits.processes: a fork bomb meets it, a build does not */
int call_command(struct call *call, const struct value *args, const struct sandbox_policy *limits,
                 int64_t deadline, size_t keep, struct exec_result *ran, struct error *err);
/* http_allow_fn over call_allow_net, for struct http_request.allow; ctx is the call. */
int call_http_allow(void *ctx, const char *host, int port, const char *address, struct error *err);

/* The bytes of a string value or of a secret handle; valid until the broker ends. NULL with an
 * error otherwise. */
const char *call_secret(struct call *call, const struct value *v, size_t *len, struct error *err);
/* Registers bytes as a secret: masked everywhere from now on; *out becomes its handle (of no
 * secret, when there are more than 16 MiB of them). */
void call_secret_new(struct call *call, const char *bytes, size_t len, struct value *out);
/* Resolves a configuration value that may be "text", { env: NAME } or { file: PATH } (config is
 * trusted, not the script); the result is registered as a secret when `secret`. NULL when absent;
 * error when it cannot be read. */
char *call_config_text(struct call *call, const struct value *v, bool secret, struct error *err);

/* Objects that live in the broker and are named by a handle in the VM. */
void call_handle_new(struct call *call, const char *type, void *object, void (*drop)(void *),
                     struct value *out);
void *call_handle(struct call *call, const struct value *v, const char *type, struct error *err);

/* One-way reports towards supervisor and user. level: "debug" "info" "warning" "error". */
void call_log(struct call *call, const char *level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void call_output(struct call *call, int stream, const char *data,
                 size_t len); /* of a child: data, never commands */
void call_progress(struct call *call, const char *label, int64_t done, int64_t total,
                   const char *unit); /* total -1 */
/* Any other event for the journal: { t = kind, ... }. Takes *event. */
void call_event(struct call *call, const char *kind, struct value *event);

/* The active profile's service: its configuration map (may be NULL) and, on the local profile, the
 * unix socket. */
struct service_target {
    const struct value *config; /* endpoint, auth, ca ...; NULL when the profile says nothing */
    const char *unix_socket;    /* the embedded service's; NULL otherwise */
    const char *profile;
};
void call_service(struct call *call, const char *service, struct service_target *out);
/* The workspace's daemon, which has the services that outlive a run (host/run/daemon.h): its unix
 * socket and http address, allocated. Started when it does not run. */
int call_daemon(struct call *call, char **socket, char **url, struct error *err);
/* The operator's kubeconfigs, "a:b"; NULL: there is none. *stages: it is one file that the stage
 * may write, so that it has no more rights than the stage. Allocated. */
char *call_kubeconfig(struct call *call, bool *stages);
struct http *call_http(struct call *call,
                       struct error *err); /* the broker's one client (io module only) */
const char *call_workspace(struct call *call);
const char *call_state_dir(struct call *call); /* .mlhost */
const char *call_out_dir(struct call *call);   /* the stage's output folder; created on demand */
const char *call_run_id(struct call *call);
const char *call_stage(struct call *call);

#endif
