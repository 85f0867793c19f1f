/*
 * RUN of a user who may not mount: the job in a process with a user namespace, in which that user
 * is root and has the ids that /etc/subuid and /etc/subgid give it. All that touches files of these
 * owners happens there: unpacking layers, the command, making its layer.
 *
 * mlhost build-step: one frame comes in, { store, durable, deadline_ms, job }; frames go out,
 * { stream, data } for each piece of output, and at last { layer } or { error }.
 */
#include <errno.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/strings.h"
#include "oci/build_run_internal.h"
#include "oci/store_internal.h"
#include "sandbox/sandbox.h"
#include "sandbox/subids.h"

#define END_MS   15000 /* what it gets to end its command and to clean up */
#define STEP_MAX FRAME_MAX

const char *run_user_name(void)
{
    static _Thread_local char name[64];
    char room[16384];
    struct passwd entry, *found = NULL;

    if (getpwuid_r(getuid(), &entry, room, sizeof room, &found) == 0 && found)
        snprintf(name, sizeof name, "%s", found->pw_name);
    else
        snprintf(name, sizeof name, "%u", getuid());
    return name;
}

/* ---- the side of the build ---- */

struct following {
    const struct run_setting *setting;
    struct buf frames;
    struct value end; /* the last frame: layer or error */
    bool nonsense;
    char said[512]; /* on standard error: why it could not even begin */
};

static void take_frame(struct following *following, struct value *frame)
{
    const struct value *data = value_get(frame, "data");

    if (value_get(frame, "layer") || value_get(frame, "error"))
        value_move(&following->end, frame);
    else if (data && data->kind == VALUE_STRING && following->setting->output)
        following->setting->output(following->setting->ctx, (int)value_get_int(frame, "stream", 1),
                                   data->as.string.data, data->as.string.len);
    value_free(frame);
}

static void on_frames(void *ctx, int stream, const char *data, size_t len)
{
    struct following *following = ctx;
    struct value frame = {0};
    int status = 0;

    if (stream == 2) {
        snprintf(following->said, sizeof following->said, "%.*s", (int)(len > 500 ? 500 : len),
                 data);
        return;
    }
    buf_append(&following->frames, data, len);
    while (!following->nonsense && (status = frame_take(&following->frames, &frame, NULL)) == 1)
        take_frame(following, &frame);
    following->nonsense = following->nonsense || status < 0;
    if (following->nonsense)
        buf_clear(&following->frames);
}

static int take_layer(const struct value *layer, struct layer_result *out)
{
    snprintf(out->digest.text, sizeof out->digest.text, "%s",
             value_get_string(layer, "digest", ""));
    snprintf(out->diff_id.text, sizeof out->diff_id.text, "%s",
             value_get_string(layer, "diff_id", ""));
    out->size = (uint64_t)value_get_int(layer, "size", 0);
    out->tar_size = (uint64_t)value_get_int(layer, "tar_size", 0);
    out->entries = (size_t)value_get_int(layer, "entries", 0);
    return 0;
}

static int take_error(const struct value *error, struct error *err)
{
    const char *hint = value_get_string(error, "hint", "");

    error_set(err, error_code_from_name(value_get_string(error, "code", "")), "%s",
              value_get_string(error, "message", ""));
    return *hint ? error_hint(err, "%s", hint) : -1;
}

static int take_end(struct following *following, const struct exec_result *result,
                    struct layer_result *out, struct error *err)
{
    const struct value *layer = value_get(&following->end, "layer"),
                       *error = value_get(&following->end, "error");

    if (layer)
        return take_layer(layer, out);
    if (error)
        return take_error(error, err);
    if (result->cancelled)
        return error_set(err, ERR_CANCELLED, "the build was cancelled");
    if (result->timed_out)
        return error_set(err, ERR_TIMEOUT, "the build took too long");
    error_set(err, ERR_CRASHED, "the process of the command ended without a result (status %d)",
              result->status);
    return following->said[0] ? error_hint(err, "it said: %s", following->said) : -1;
}

/* Nothing of this process's environment is for a build but what it needs to find itself. */
static void take_environment(struct strings *env)
{
    static const char *const names[] = {"PATH",   "MLHOST_MODULE_PATH", "TMPDIR",
                                        "LC_ALL", "ASAN_OPTIONS",       "LD_LIBRARY_PATH"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *text = getenv(names[i]);
        if (text)
            strings_add(env, mem_printf("%s=%s", names[i], text));
    }
    strings_add(env, mem_strdup("LANG=C.UTF-8"));
}

static bool has_end(int64_t deadline)
{
    return deadline && deadline != DEADLINE_NONE;
}

static void put_request(const struct run_setting *setting, const struct value *job,
                        struct buf *input)
{
    struct value request = {0};

    value_set_map(&request);
    value_put_string(&request, "store", setting->store->root);
    value_put_bool(&request, "durable", setting->store->durable);
    value_put_int(&request, "deadline_ms",
                  has_end(setting->deadline) ? deadline_left_ms(setting->deadline) : -1);
    struct value *slot = value_put(&request, "job");
    *slot = *job; /* lent: no second copy of its secrets */
    frame_append(&request, input);
    value_set_nil(value_get(&request, "job"));
    value_free(&request);
}

int run_job_as_user(const struct run_setting *setting, const struct value *job,
                    struct layer_result *out, struct error *err)
{
    char *const argv[] = {(char *)"mlhost", (char *)"build-step", NULL};
    cleanup_strings struct strings env = {0};
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    struct following following = {.setting = setting};
    struct exec_result result = {0};
    struct buf input = BUF_INIT;
    struct subids subids;

    *out = (struct layer_result){0};
    take_environment(&env);
    put_request(setting, job, &input);
    policy.syscalls = SANDBOX_SYSCALLS_NONE;
    policy.namespaces = SANDBOX_NS_USER;
    policy.required = SANDBOX_LAYER_NAMESPACES;
    policy.subids = subids_find(&subids, NULL) ? &subids : NULL;
    policy.set_user = true; /* root inside */
    policy.net_allowed = true;
    policy.file = "/proc/self/exe";
    policy.argv = argv;
    policy.env = env.items;
    policy.cwd = "/";
    struct exec_spec exec = {.policy = &policy,
                             .input = input.data,
                             .input_len = input.len,
                             .output = on_frames,
                             .output_ctx = &following,
                             .keep = 1,
                             .grace_ms = END_MS,
                             /* Its own comes first: then it cleans up. */
                             .deadline = has_end(setting->deadline)
                                             ? setting->deadline + END_MS * NS_PER_MS
                                             : DEADLINE_NONE,
                             .cancel = setting->cancel};
    int status = exec_run(&exec, &result, err);
    if (status == 0)
        status = take_end(&following, &result, out, err);
    explicit_bzero(input.data, input.len);
    buf_free(&input);
    buf_free(&following.frames);
    value_free(&following.end);
    exec_result_free(&result);
    return status;
}

/* ---- the side of the command ---- */

static struct cancel step_cancel;

static void on_signal(int signo)
{
    (void)signo;
    cancel_raise(&step_cancel);
}

static void send_frame(int fd, const struct value *frame)
{
    cleanup_buf struct buf bytes = BUF_INIT;

    frame_append(frame, &bytes);
    (void)fd_write_all(fd, bytes.data, bytes.len, NULL); /* nobody there: the build has ended */
}

static void on_output(void *ctx, int stream, const char *data, size_t len)
{
    cleanup_value struct value frame = {0};

    value_set_map(&frame);
    value_put_int(&frame, "stream", stream);
    value_set_bytes(value_put(&frame, "data"), data, len);
    send_frame(*(int *)ctx, &frame);
}

static int read_request(int in, struct value *out, struct error *err)
{
    struct buf bytes = BUF_INIT;
    int status;

    while ((status = frame_take(&bytes, out, err)) == 0) {
        if (bytes.len > STEP_MAX)
            break;
        ssize_t n = read(in, buf_reserve(&bytes, 65536), 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        bytes.len += (size_t)n;
    }
    if (bytes.data)
        explicit_bzero(bytes.data, bytes.room);
    buf_free(&bytes);
    return status == 1  ? 0
           : status < 0 ? -1
                        : error_set(err, ERR_INVALID, "the request was cut off");
}

static void put_end(struct value *end, int status, const struct layer_result *layer,
                    const struct error *err)
{
    value_set_map(end);
    struct value *map = value_put(end, status == 0 ? "layer" : "error");
    value_set_map(map);
    if (status == 0) {
        value_put_string(map, "digest", layer->digest.text);
        value_put_string(map, "diff_id", layer->diff_id.text);
        value_put_int(map, "size", (int64_t)layer->size);
        value_put_int(map, "tar_size", (int64_t)layer->tar_size);
        value_put_int(map, "entries", (int64_t)layer->entries);
        return;
    }
    value_put_string(map, "code", error_code_name(err->code));
    value_put_string(map, "message", err->message);
    value_put_string(map, "hint", err->hint);
}

static int step(int in, int out, struct layer_result *layer, struct error *err)
{
    cleanup_value struct value request = {0};

    if (read_request(in, &request, err) != 0)
        return -1;
    int64_t ms = value_get_int(&request, "deadline_ms", -1);
    const struct value *job = value_get(&request, "job");
    cleanup_store struct store *store = store_open_at(
        value_get_string(&request, "store", ""), value_get_bool(&request, "durable", false), err);
    if (!store)
        return -1;
    const struct run_setting setting = {.store = store,
                                        .output = on_output,
                                        .ctx = &out,
                                        .deadline = ms < 0 ? 0 : deadline_in(ns_of_ms(ms)),
                                        .cancel = &step_cancel};
    return run_job(&setting, job, layer, err);
}

int mlh_build_step_main(int in, int out)
{
    struct sigaction raise_it = {.sa_handler = on_signal, .sa_flags = SA_RESTART},
                     ignore = {.sa_handler = SIG_IGN};
    cleanup_value struct value end = {0};
    struct layer_result layer = {0};
    struct error err = {0};

    if (cancel_init(&step_cancel) < 0)
        return 1;
    sigaction(SIGTERM, &raise_it, NULL);
    sigaction(SIGINT, &raise_it, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    int status = step(in, out, &layer, &err);
    put_end(&end, status, &layer, &err);
    send_frame(out, &end);
    return status == 0 ? 0 : 1;
}
