/* A primitive's view of its call: arguments, errors, permissions, the run. */
#include "embed/call.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

static const enum error_code codes[] = {
    [MLHOST_USAGE] = ERR_USAGE,
    [MLHOST_INVALID] = ERR_INVALID,
    [MLHOST_NOT_FOUND] = ERR_NOT_FOUND,
    [MLHOST_EXISTS] = ERR_EXISTS,
    [MLHOST_DENIED] = ERR_DENIED,
    [MLHOST_UNAUTHORIZED] = ERR_UNAUTHORIZED,
    [MLHOST_FORBIDDEN] = ERR_FORBIDDEN,
    [MLHOST_CONFLICT] = ERR_CONFLICT,
    [MLHOST_TIMEOUT] = ERR_TIMEOUT,
    [MLHOST_CANCELLED] = ERR_CANCELLED,
    [MLHOST_UNAVAILABLE] = ERR_UNAVAILABLE,
    [MLHOST_RATE_LIMITED] = ERR_RATE_LIMITED,
    [MLHOST_TOO_LARGE] = ERR_TOO_LARGE,
    [MLHOST_IO] = ERR_IO,
    [MLHOST_UNSUPPORTED] = ERR_UNSUPPORTED,
    [MLHOST_FAILED] = ERR_FAILED,
    [MLHOST_INTERNAL] = ERR_INTERNAL,
};

int embed_perform(struct call *call, const struct value *args, struct value *out, struct error *err)
{
    const struct mlhost_primitive *primitive = call->row->data;
    const char *name = primitive->name;
    struct mlhost_call view = {.call = call, .args = args, .result = out};

    if (primitive->fn(&view, primitive->data) == 0)
        return 0;
    if (view.error.code == ERR_NONE)
        error_set(&view.error, ERR_INTERNAL, "%s failed without saying why", name);
    if (!view.error.service[0])
        snprintf(view.error.service, sizeof view.error.service, "%.*s", (int)strcspn(name, "."),
                 name);
    *err = view.error;
    return -1;
}

/* ---- arguments ---- */

const struct mlhost_value *mlhost_arg(struct mlhost_call *call, const char *name)
{
    const struct value *v = value_get(call->args, name);

    return v && v->kind != VALUE_NIL ? (const struct mlhost_value *)v : NULL;
}

bool mlhost_arg_given(struct mlhost_call *call, const char *name)
{
    return mlhost_arg(call, name) != NULL;
}

const char *mlhost_arg_string(struct mlhost_call *call, const char *name, const char *otherwise)
{
    return mlhost_string(mlhost_arg(call, name), NULL, otherwise);
}

int64_t mlhost_arg_int(struct mlhost_call *call, const char *name, int64_t otherwise)
{
    return mlhost_int(mlhost_arg(call, name), otherwise);
}

double mlhost_arg_number(struct mlhost_call *call, const char *name, double otherwise)
{
    return mlhost_number(mlhost_arg(call, name), otherwise);
}

bool mlhost_arg_bool(struct mlhost_call *call, const char *name, bool otherwise)
{
    return mlhost_bool(mlhost_arg(call, name), otherwise);
}

const char *mlhost_arg_secret(struct mlhost_call *call, const char *name, size_t *len)
{
    const struct value *v = value_get(call->args, name);
    size_t unused;

    if (!v) {
        error_set(&call->error, ERR_USAGE, "argument '%s' is missing", name);
        return NULL;
    }
    return call_secret(call->call, v, len ? len : &unused, &call->error);
}

/* ---- failing ---- */

int mlhost_fail(struct mlhost_call *call, enum mlhost_code code, const char *format, ...)
{
    va_list args;
    size_t at = (size_t)code;

    call->error = (struct error){0};
    va_start(args, format);
    error_setv(&call->error, at > 0 && at < sizeof codes / sizeof *codes ? codes[at] : ERR_INTERNAL,
               format, args);
    va_end(args);
    return -1;
}

int mlhost_hint(struct mlhost_call *call, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(call->error.hint, sizeof call->error.hint, format, args);
    va_end(args);
    return -1;
}

int mlhost_retryable(struct mlhost_call *call, int status)
{
    call->error.retryable = true;
    call->error.status = status;
    return -1;
}

/* ---- permissions ---- */

char *mlhost_allow_read(struct mlhost_call *call, const char *path)
{
    return call_path(call->call, path, ACCESS_READ, &call->error);
}

char *mlhost_allow_write(struct mlhost_call *call, const char *path)
{
    return call_path(call->call, path, ACCESS_WRITE, &call->error);
}

int mlhost_allow_net(struct mlhost_call *call, const char *host, int port)
{
    return call_allow_net(call->call, host, port, &call->error);
}

int mlhost_allow_env(struct mlhost_call *call, const char *name)
{
    return call_allow_env(call->call, name, &call->error);
}

int mlhost_allow_exec(struct mlhost_call *call, const char *command)
{
    const char *argv[] = {command, NULL};

    return call_allow_exec(call->call, argv, &call->error);
}

/* ---- results and the run ---- */

struct mlhost_value *mlhost_result(struct mlhost_call *call)
{
    return (struct mlhost_value *)call->result;
}

void mlhost_set_secret(struct mlhost_call *call, struct mlhost_value *value, const char *bytes,
                       size_t len)
{
    value_free((struct value *)value);
    call_secret_new(call->call, bytes, len, (struct value *)value);
}

int64_t mlhost_time_left_ms(struct mlhost_call *call)
{
    return deadline_left_ms(call->call->deadline);
}

int mlhost_cancel_fd(struct mlhost_call *call)
{
    return call->call->cancel->fd;
}

bool mlhost_cancelled(struct mlhost_call *call)
{
    return cancelled(call->call->cancel);
}

void mlhost_log(struct mlhost_call *call, const char *level, const char *format, ...)
{
    static const char *const levels[] = {"debug", "info", "warning", "error"};
    const char *known = "info";
    char text[4096];
    va_list args;

    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (strcmp(levels[i], level) == 0)
            known = levels[i];
    }
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    call_log(call->call, known, "%s", text);
}

void mlhost_progress(struct mlhost_call *call, const char *label, int64_t done, int64_t total,
                     const char *unit)
{
    call_progress(call->call, label, done, total, unit ? unit : "");
}

const char *mlhost_workspace(struct mlhost_call *call)
{
    return call_workspace(call->call);
}

const char *mlhost_run_id(struct mlhost_call *call)
{
    return call_run_id(call->call);
}

const char *mlhost_stage(struct mlhost_call *call)
{
    return call_stage(call->call);
}
