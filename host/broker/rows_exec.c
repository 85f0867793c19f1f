/* exec.run: a command, in a sandbox that holds what the stage was granted (command.c). */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/size.h"
#include "broker/internal.h"
#include "loop/exec.h"

/* Of the command's whole tree where control groups can be had, else of each process. */
static int take_limits(const struct value *args, struct sandbox_policy *policy, struct error *err)
{
    const struct value *memory = value_get(args, "memory");
    int64_t processes = value_get_int(args, "processes", COMMAND_PROCESSES);
    double cpus = value_get_real(args, "cpus", 0);

    if (memory && memory->kind == VALUE_INT && memory->as.integer > 0)
        policy->memory = (uint64_t)memory->as.integer;
    else if (memory && memory->kind != VALUE_NIL &&
             size_parse(value_text(memory, "?"), &policy->memory, err) < 0)
        return error_wrap(err, "exec: memory");
    if (processes < 1)
        return error_set(err, ERR_USAGE, "exec: processes must be 1 or more, not %lld",
                         (long long)processes);
    if (!(cpus >= 0 && cpus < 1e6))
        return error_set(err, ERR_USAGE, "exec: cpus must be a number such as 0.5 or 2");
    policy->processes = (uint64_t)processes;
    policy->cpu_milli = (unsigned)(cpus * 1000);
    return 0;
}

/* Masked before it is cut: half a secret is none that could be recognized. */
static int bad_status(struct call *call, const char *name, const struct exec_result *r,
                      struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;

    (r->truncated ? mask_tail : mask_text)(call->broker->masker, r->err.data ? r->err.data : "",
                                           r->err.len, &text);
    size_t shown = text.len < 1000 ? text.len : 1000;
    error_set(err, ERR_FAILED, "exec %s: ended with status %d%s%s", name, r->status,
              shown ? ": " : "", shown ? text.data + text.len - shown : "");
    err->status = r->status;
    return error_hint(err, "check = false returns the status instead of failing");
}

static int over_limit(const char *name, const struct sandbox_policy *limits,
                      const struct exec_result *r, struct error *err)
{
    if (r->out_of_memory) {
        cleanup_buf struct buf size = BUF_INIT;
        size_print(limits->memory, &size);
        error_set(err, ERR_MEMORY, "exec %s: used more than %s of memory", name, size.data);
        return error_hint(err, "give it more: exec { ..., memory = \"4g\" }; what its processes "
                               "share, and files in /dev/shm, count too");
    }
    error_set(err, ERR_FAILED, "exec %s: needed more than %llu processes at once", name,
              (unsigned long long)limits->processes);
    err->status = r->status;
    return error_hint(err, "give it more: exec { ..., processes = 10000 }");
}

/* The script gets what the command printed as it is. Of what lost its beginning it would, when it
 * prints that, tell the end of a secret, which nobody recognizes any more. */
static void put_output(struct call *call, const struct exec_result *r, const struct buf *text,
                       struct value *out)
{
    cleanup_buf struct buf masked = BUF_INIT;

    if (r->truncated && text->len)
        mask_tail(call->broker->masker, text->data, text->len, &masked);
    else
        buf_append(&masked, text->data ? text->data : "", text->len);
    value_set_bytes(out, masked.data ? masked.data : "", masked.len);
}

static int result(struct call *call, const struct value *args, const char *name,
                  const struct sandbox_policy *limits, struct exec_result *r, struct value *out,
                  struct error *err)
{
    if (r->cancelled)
        return error_set(err, ERR_CANCELLED, "exec %s: cancelled", name);
    if (r->timed_out) {
        cleanup_buf struct buf elapsed = BUF_INIT;
        duration_print(r->elapsed_ns, &elapsed);
        return error_set(err, ERR_TIMEOUT, "exec %s: timed out after %s", name, elapsed.data);
    }
    if (r->status != 0 && value_get_bool(args, "check", true))
        return r->out_of_memory || r->out_of_processes ? over_limit(name, limits, r, err)
                                                       : bad_status(call, name, r, err);
    value_set_map(out);
    value_put_int(out, "status", r->status);
    put_output(call, r, &r->out, value_put(out, "out"));
    put_output(call, r, &r->err, value_put(out, "err"));
    value_put_bool(out, "truncated", r->truncated);
    if (r->out_of_memory)
        value_put_bool(out, "out_of_memory", true);
    value_put_int(out, "elapsed_ms", r->elapsed_ns / NS_PER_MS);
    value_put_int(out, "peak_kib", r->peak_kib);
    return 0;
}

static int exec_row(struct call *call, const struct value *args, struct value *out,
                    struct error *err)
{
    struct sandbox_policy limits = SANDBOX_POLICY_INIT;
    struct exec_result ran = {0};

    if (take_limits(args, &limits, err) < 0)
        return -1;
    int failed = call_command(call, args, &limits, call->deadline, 0, &ran, err);
    if (failed == 0)
        failed = result(call, args, value_text(value_at(value_get(args, "argv"), 0), ""), &limits,
                        &ran, out, err);
    exec_result_free(&ran);
    return failed;
}

/* A command that the script may not run is, to it, one that is not there. */
static int find_row(struct call *call, const struct value *args, struct value *out,
                    struct error *err)
{
    const char *name = value_get_string(args, "name", "");
    const char *argv[] = {name, NULL};
    const char *at = getenv("PATH");
    struct error unused;

    (void)err;
    if (!name[0] || strchr(name, '/') || call_allow_exec(call, argv, &unused) < 0)
        return 0;
    for (at = at ? at : "/usr/local/bin:/usr/bin:/bin"; *at; at += *at == ':') {
        size_t len = strcspn(at, ":");
        cleanup_free char *folder = mem_strndup(at, len);
        cleanup_free char *path = path_join(folder, name);
        at += len;
        if (len && access(path, X_OK) == 0) {
            value_take_string(out, steal_ptr(&path));
            return 0;
        }
    }
    return 0;
}

const struct primitive exec_rows[] = {
    {.sign = {"exec.find", "name:string", "path:string?",
              "where a command is that the script may run; nil when it is not installed, or not "
              "granted"},
     .fn = find_row},
    {.sign =
         {"exec.run",
          "argv:array env:map? input:secret? timeout:duration? cwd:path? check:bool? quiet:bool? "
          "memory:any? processes:int? cpus:number?",
          "result:map", "run a command that the permission exec names; no shell in between"},
     .fn = exec_row},
    {.sign = {.name = NULL}},
};
