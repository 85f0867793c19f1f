/*
 * A broker for unit tests of primitives: the call_* functions over plain memory. Secrets and
 * handles are real objects with ids; policy is two variables. The program's own broker is not
 * linked in.
 */
#ifndef MLHOST_TESTS_FAKE_CALL_H
#define MLHOST_TESTS_FAKE_CALL_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "broker/primitive.h"
#include "loop/http.h"

struct broker {
    struct http *http;
    const struct value *config; /* of every service */
    const char *unix_socket;
    const char *profile;
    bool deny_net;
    int net_asked;
    struct {
        void *object;
        void (*drop)(void *);
        char *bytes;
        size_t len;
    } things[256];
    size_t count;
    struct buf masked; /* every secret, a line each */
};

void call_service(struct call *call, const char *service, struct service_target *out)
{
    (void)service;
    *out = (struct service_target){call->broker->config, call->broker->unix_socket,
                                   call->broker->profile};
}

int call_daemon(struct call *call, char **socket, char **url, struct error *err)
{
    (void)socket;
    (void)url;
    (void)call;
    return error_set(err, ERR_UNAVAILABLE, "there is no daemon in a unit test");
}

int call_allow_net(struct call *call, const char *host, int port, struct error *err)
{
    (void)call;
    return error_set(err, ERR_DENIED, "a unit test may not connect to %s:%d", host, port);
}

void call_log(struct call *call, const char *level, const char *format, ...)
{
    (void)call;
    (void)level;
    (void)format;
}

char *call_kubeconfig(struct call *call, bool *stages)
{
    (void)call;
    *stages = false;
    return mem_strdup(getenv("KUBECONFIG"));
}

int call_command(struct call *call, const struct value *args, const struct sandbox_policy *limits,
                 int64_t deadline, size_t keep, struct exec_result *ran, struct error *err)
{
    (void)call;
    (void)args;
    (void)limits;
    (void)deadline;
    (void)keep;
    (void)ran;
    return error_set(err, ERR_DENIED, "a unit test may not run commands");
}

int call_allow_exec(struct call *call, const char *const *argv, struct error *err)
{
    (void)call;
    return error_set(err, ERR_DENIED, "a unit test may not run %s", argv[0]);
}

struct http *call_http(struct call *call, struct error *err)
{
    (void)err;
    return call->broker->http;
}

int call_http_allow(void *ctx, const char *host, int port, const char *address, struct error *err)
{
    struct call *call = ctx;

    (void)address;
    call->broker->net_asked++;
    if (call->broker->deny_net)
        return error_set(err, ERR_DENIED, "net %s:%d is not granted", host, port);
    return 0;
}

void call_handle_new(struct call *call, const char *type, void *object, void (*drop)(void *),
                     struct value *out)
{
    struct broker *b = call->broker;

    b->things[b->count].object = object;
    b->things[b->count].drop = drop;
    value_set_handle(out, type, b->count++);
}

void *call_handle(struct call *call, const struct value *v, const char *type, struct error *err)
{
    if (!v || v->kind != VALUE_HANDLE || strcmp(v->as.handle.type, type) != 0) {
        error_set(err, ERR_USAGE, "not a handle of type %s", type);
        return NULL;
    }
    return call->broker->things[v->as.handle.id].object;
}

void call_secret_new(struct call *call, const char *bytes, size_t len, struct value *out)
{
    struct broker *b = call->broker;

    buf_append(&b->masked, bytes, len);
    buf_putc(&b->masked, '\n');
    b->things[b->count].bytes = mem_strndup(bytes, len);
    b->things[b->count].len = len;
    value_set_handle(out, "secret", b->count++);
}

const char *call_secret(struct call *call, const struct value *v, size_t *len, struct error *err)
{
    if (v && v->kind == VALUE_STRING) {
        *len = v->as.string.len;
        return v->as.string.data;
    }
    if (v && v->kind == VALUE_HANDLE && strcmp(v->as.handle.type, "secret") == 0) {
        *len = call->broker->things[v->as.handle.id].len;
        return call->broker->things[v->as.handle.id].bytes;
    }
    error_set(err, ERR_USAGE, "neither a text nor a secret");
    return NULL;
}

char *call_config_text(struct call *call, const struct value *v, bool secret, struct error *err)
{
    const char *env = value_get_string(v, "env", NULL);
    const char *text = value_text(v, NULL);
    struct value handle = {0};

    if (env && !(text = getenv(env)))
        error_set(err, ERR_NOT_FOUND, "the variable %s is not set", env);
    if (text && secret)
        call_secret_new(call, text, strlen(text), &handle);
    return mem_strdup(text);
}

char *call_path(struct call *call, const char *path, enum access access, struct error *err)
{
    (void)call;
    (void)access;
    (void)err;
    return mem_strdup(path);
}

int call_open(const char *resolved, int flags, unsigned mode, struct error *err)
{
    int fd = open(resolved, flags | O_CLOEXEC, mode);

    return fd < 0 ? error_errno(err, errno, "%s", resolved) : fd;
}

int call_read(const char *resolved, size_t limit, struct buf *out, struct error *err)
{
    return file_read(AT_FDCWD, resolved, limit, out, err);
}

const char *call_workspace(struct call *call)
{
    (void)call;
    return "/tmp";
}

const char *call_state_dir(struct call *call)
{
    (void)call;
    return "/tmp/.mlhost";
}

void call_progress(struct call *call, const char *label, int64_t done, int64_t total,
                   const char *unit)
{
    (void)call;
    (void)label;
    (void)done;
    (void)total;
    (void)unit;
}

static inline void broker_end(struct broker *b)
{
    for (size_t i = 0; i < b->count; i++) {
        if (b->things[i].drop)
            b->things[i].drop(b->things[i].object);
        free(b->things[i].bytes);
    }
    b->count = 0;
    buf_free(&b->masked);
}

#endif
