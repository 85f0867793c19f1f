/* The VM's process, and the start frame. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "broker/internal.h"
#include "vm/vm.h"

#define SCRIPT_MAX (8u << 20)

static void wipe(struct value *v)
{
    if (v->kind == VALUE_STRING) {
        explicit_bzero(v->as.string.data, v->as.string.len);
    } else if (v->kind == VALUE_ARRAY) {
        for (size_t i = 0; i < v->as.array.count; i++)
            wipe(&v->as.array.items[i]);
    } else if (v->kind == VALUE_MAP) {
        for (size_t i = 0; i < v->as.map.count; i++)
            wipe(&v->as.map.pairs[i].value);
    }
}

/* Never returns. Everything of the broker that the script's process needs not have is closed or
 * wiped. */
static _Noreturn void vm_process(struct broker *broker, int fd)
{
    size_t count;
    const struct primitive *const *rows = primitive_table(&count);
    const struct signature **signatures = mem_array(NULL, count, sizeof *signatures);
    struct vm_spec spec = {.fd = 3,
                           .signatures = signatures,
                           .signature_count = count,
                           .memory_limit = broker->spec->memory_limit,
                           .degraded = broker->spec->allow_degraded};

    for (size_t i = 0; i < count; i++)
        signatures[i] = &rows[i]->sign;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "mlhost-vm");
    if (fd != 3 && dup2(fd, 3) < 0)
        _exit(70);
    syscall(SYS_close_range, 4, ~0u, 0);
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing >= 0) {
        dup2(nothing, 0);
        dup2(nothing, 1);
#ifndef MLHOST_SANITIZED
        dup2(nothing, 2);
#endif
        close(nothing);
    }
    if (broker->spec->config)
        wipe((struct value *)&broker->spec->config->root);
    vm_main(&spec);
}

/* As users name it: relative to the workspace when it is below. */
static const char *shown(const struct broker *broker, const char *path)
{
    const char *workspace = broker->spec->config->workspace;
    size_t len = strlen(workspace);

    if (strncmp(path, workspace, len) == 0 && path[len] == '/')
        return path + len + 1;
    return path;
}

static int put_script(struct broker *broker, struct value *frame, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    const char *path = broker->spec->script;

    if (!path)
        return 0;
    if (file_read(AT_FDCWD, path, SCRIPT_MAX, &text, err) < 0) {
        if (err->code == ERR_NOT_FOUND)
            return error_set(err, ERR_NOT_FOUND, "there is no script '%s'", shown(broker, path));
        return -1;
    }
    struct value *script = value_put(frame, "script");
    value_set_map(script);
    value_put_string(script, "name", shown(broker, path));
    value_put_string(script, "folder", broker->script_folder);
    value_set_bytes(value_put(script, "text"), text.data ? text.data : "", text.len);
    return 0;
}

/* What a script is to find the same when it is told all again. */
static int put_circumstances(struct broker *broker, struct value *frame, struct error *err)
{
    const struct broker_spec *spec = broker->spec;
    uint64_t seed = 0;

    if (broker->player) {
        value_copy(frame, player_start(broker));
        value_put_string(frame, "clock", "asked");
        value_remove(frame, "debug");
        return 0;
    }
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        return error_errno(err, errno, "getrandom");
    value_set_map(frame);
    value_put_string(frame, "t", "start");
    value_put_string(frame, "mode", spec->mode);
    value_put_string(frame, "stage", spec->stage);
    value_put_string(frame, "out_dir", spec->out_dir);
    value_copy(value_put(frame, "context"), &spec->context);
    value_put_int(frame, "seed", (int64_t)seed);
    if (spec->tape)
        value_put_string(frame, "clock", "told");
    return 0;
}

static int send_start(struct broker *broker, struct error *err)
{
    const struct broker_spec *spec = broker->spec;
    cleanup_value struct value frame = {0};
    cleanup_buf struct buf out = BUF_INIT;

    if (put_circumstances(broker, &frame, err) < 0)
        return -1;
    value_remove(&frame, "deadline_ms"); /* of another time */
    if (broker->deadline != DEADLINE_NONE)
        value_put_int(&frame, "deadline_ms", deadline_left_ms(broker->deadline));
    value_put_int(&frame, "grace_ms", (spec->grace_ns ? spec->grace_ns : 5 * NS_PER_S) / NS_PER_MS);
    value_put_bool(&frame, "lua_override", getenv("MLHOST_LUA_PATH") != NULL);
    if (put_script(broker, &frame, err) < 0)
        return -1;
    if (spec->debug) {
        struct value *debug = value_put(&frame, "debug");
        value_set_map(debug);
        value_put_bool(debug, "enabled", true);
        value_put_string(debug, "until_file", spec->until_file);
        value_put_int(debug, "until_line", spec->until_line);
        value_put_int(debug, "until_call", spec->until_call);
    }
    recorder_start(broker, &frame);
    frame_append(&frame, &out);
    return fd_write_all(broker->vm_fd, out.data, out.len, err);
}

int broker_start_vm(struct broker *broker, struct error *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, errno, "socketpair");
    pid_t pid = fork();
    if (pid < 0) {
        int saved = errno;
        close(pair[0]);
        close(pair[1]);
        return error_errno(err, saved, "cannot start the script's process");
    }
    if (pid == 0)
        vm_process(broker, pair[1]);
    close(pair[1]);
    broker->vm_fd = pair[0];
    broker->vm_pid = pid;
    return send_start(broker, err);
}
