/* The job "exec": one attempt of a task, in the sandbox, with its log. */
#include "local/runner.h"

#include <string.h>

#include "base/mem.h"

#define PROCESSES_DEFAULT 32768 /* of a task: Kubernetes' usual limit of a pod is in this order */

struct words {
    char **items;
};

static void words_free(struct words *words)
{
    mem_cleanup(&words->items);
}
#define cleanup_words __attribute__((cleanup(words_free)))

/* The texts stay the spec's. */
static void words_of(const struct value *list, struct words *out)
{
    size_t count = value_count(list);

    out->items = mem_array(NULL, count + 1, sizeof *out->items);
    for (size_t i = 0; i < count; i++)
        out->items[i] = (char *)value_text(value_at(list, i), "");
    out->items[count] = NULL;
}

static int mount_of(const struct value *from, struct sandbox_mount *to, struct error *err)
{
    static const struct {
        const char *name;
        enum mount_kind kind;
    } kinds[] = {{"bind_ro", MOUNT_BIND_RO}, {"bind_rw", MOUNT_BIND_RW},
                 {"tmpfs", MOUNT_TMPFS},     {"proc", MOUNT_PROC},
                 {"dev", MOUNT_DEV},         {"overlay", MOUNT_OVERLAY}};
    const char *kind = value_get_string(from, "kind", "");

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kind, kinds[i].name) != 0)
            continue;
        *to = (struct sandbox_mount){.kind = kinds[i].kind,
                                     .source = value_get_string(from, "source", NULL),
                                     .target = value_get_string(from, "target", NULL),
                                     .upper = value_get_string(from, "upper", NULL),
                                     .work = value_get_string(from, "work", NULL),
                                     .size = (uint64_t)value_get_int(from, "size", 0)};
        return 0;
    }
    return error_set(err, ERR_INTERNAL, "unknown kind of mount '%s'", kind);
}

static void report(const struct exec_result *result, const struct runner_log *log,
                   struct value *out)
{
    value_put_int(out, "status", result->status);
    value_put_bool(out, "out_of_memory", result->out_of_memory);
    value_put_bool(out, "timed_out", result->timed_out);
    value_put_bool(out, "cancelled", result->cancelled);
    value_put_int(out, "elapsed_ms", result->elapsed_ns / NS_PER_MS);
    value_put_int(out, "peak_kib", result->peak_kib);
    value_set_bytes(value_put(out, "tail"), log->tail, log->tail_len);
}

int runner_exec(const struct value *spec, const struct cancel *cancel, exec_output_fn *output,
                exec_started_fn *started, void *ctx, struct exec_result *result, struct error *err)
{
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    cleanup_words struct words argv = {NULL}, env = {NULL};
    const struct value *mounts = value_get(spec, "mounts");
    cleanup_free struct sandbox_mount *list =
        mem_array(NULL, value_count(mounts) + 1, sizeof *list);

    for (size_t i = 0; i < value_count(mounts); i++) {
        if (mount_of(value_at(mounts, i), &list[i], err) < 0)
            return -1;
    }
    words_of(value_get(spec, "argv"), &argv);
    words_of(value_get(spec, "env"), &env);
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.namespaces = SANDBOX_NS_PID | SANDBOX_NS_MOUNT | SANDBOX_NS_IPC | SANDBOX_NS_UTS;
    policy.required = SANDBOX_LAYER_NAMESPACES;
    policy.root = value_get_string(spec, "root", NULL);
    policy.root_read_only = value_get_bool(spec, "read_only", false);
    policy.mounts = list;
    policy.mount_count = value_count(mounts);
    policy.hostname = value_get_string(spec, "hostname", NULL);
    policy.net_allowed = true; /* tasks and models call the services on loopback */
    policy.memory = (uint64_t)value_get_int(spec, "memory", 0);
    policy.processes = PROCESSES_DEFAULT;
    policy.uid = (uid_t)value_get_int(spec, "uid", 0);
    policy.gid = (gid_t)value_get_int(spec, "gid", 0);
    policy.set_user = true;
    policy.argv = argv.items;
    policy.env = env.items;
    policy.cwd = value_get_string(spec, "cwd", "/");
    int64_t timeout = value_get_int(spec, "timeout_ms", -1);
    struct exec_spec exec = {.policy = &policy,
                             .output = output,
                             .started = started,
                             .output_ctx = ctx,
                             .keep = 1,
                             .grace_ms = value_get_int(spec, "grace_ms", 0),
                             .deadline =
                                 timeout < 0 ? DEADLINE_NONE : deadline_in(timeout * NS_PER_MS),
                             .cancel = cancel};
    return exec_run(&exec, result, err);
}

static int run(const struct value *spec, const struct cancel *cancel, struct runner_log *log,
               struct value *out, struct error *err)
{
    struct exec_result result = {0};
    int status = runner_exec(spec, cancel, runner_log_output, NULL, log, &result, err);

    runner_log_close(log); /* what was held back belongs to the tail */
    if (status == 0)
        report(&result, log, out);
    exec_result_free(&result);
    return status;
}

void runner_job_exec(const struct value *spec, const struct cancel *cancel, struct value *out)
{
    struct runner_log log = {.fd = -1};
    struct error err = {0};

    value_set_map(out);
    if (runner_log_open(&log, value_get_string(spec, "log", ""),
                        (uint64_t)value_get_int(spec, "log_limit", 0), value_get(spec, "mask"),
                        &err) < 0 ||
        run(spec, cancel, &log, out, &err) < 0) {
        if (err.code == ERR_CANCELLED) {
            value_put_bool(out, "cancelled", true);
        } else {
            value_put_string(out, "error", err.message);
            value_put_string(out, "hint", err.hint);
            value_put_string(out, "code", error_code_name(err.code));
        }
    }
    runner_log_close(&log);
}
