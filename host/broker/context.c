/* What primitives may ask of their broker (primitive.h). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/environment.h"
#include "base/mem.h"
#include "broker/internal.h"
#include "loop/http.h"

/* ---- paths ---- */

/*
 * The longest part that exists is resolved by the kernel, links included; what does not exist yet
 * is appended as it is, and may not go upwards. So the result has no links and no "..", and a
 * prefix of it is a folder above it.
 */
char *resolve_path(const char *workspace, const char *path, struct error *err)
{
    cleanup_free char *whole = path_join(workspace, path);
    cleanup_buf struct buf rest = BUF_INIT;
    char resolved[PATH_MAX];

    if (strlen(whole) >= PATH_MAX) {
        error_set(err, ERR_INVALID, "path of more than %d bytes", PATH_MAX);
        return NULL;
    }
    while (!realpath(whole, resolved)) {
        if (errno != ENOENT && errno != ENOTDIR) {
            error_errno(err, errno, "%s", path);
            return NULL;
        }
        struct stat status;
        if (lstat(whole, &status) == 0 && S_ISLNK(status.st_mode)) {
            error_set(err, ERR_NOT_FOUND, "%s: a link that leads nowhere", path);
            return NULL;
        }
        size_t len = strlen(whole);
        while (len > 1 && whole[len - 1] == '/')
            whole[--len] = '\0';
        char *slash = strrchr(whole, '/');
        if (!slash || (slash == whole && len == 1)) {
            error_set(err, ERR_NOT_FOUND, "%s: cannot be resolved", path);
            return NULL;
        }
        const char *name = slash + 1;
        if (strcmp(name, "..") == 0) {
            error_set(err, ERR_NOT_FOUND, "%s: '..' below a folder that does not exist", path);
            return NULL;
        }
        if (strcmp(name, ".") != 0) {
            cleanup_free char *tail = mem_strdup(rest.data ? rest.data : "");
            buf_clear(&rest);
            buf_printf(&rest, "/%s%s", name, tail);
        }
        slash[slash == whole] = '\0';
    }
    return mem_printf("%s%s", strcmp(resolved, "/") == 0 && rest.len ? "" : resolved,
                      rest.data ? rest.data : "");
}

int open_resolved(const char *path, int flags, unsigned mode, struct error *err)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
                           .mode = flags & O_CREAT ? mode : 0,
                           .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);

    if (fd < 0 && errno == ENOSYS)
        fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, mode);
    return fd < 0 ? error_errno(err, errno, "%s", path) : fd;
}

int call_open(const char *resolved, int flags, unsigned mode, struct error *err)
{
    return open_resolved(resolved, flags, mode, err);
}

int call_read(const char *resolved, size_t limit, struct buf *out, struct error *err)
{
    cleanup_close int fd = open_resolved(resolved, O_RDONLY | O_NONBLOCK, 0, NULL);
    struct stat status;
    ssize_t n = 1;

    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(err, errno, "%s", resolved);
    if (!S_ISREG(status.st_mode))
        return error_set(err, ERR_INVALID, "%s: is no ordinary file", resolved);
    while (n && out->len <= limit) {
        size_t room = limit + 1 - out->len < 65536 ? limit + 1 - out->len : 65536;
        n = read(fd, buf_reserve(out, room), room);
        if (n < 0 && errno != EINTR)
            return error_errno(err, errno, "%s", resolved);
        out->len += n > 0 ? (size_t)n : 0;
        out->data[out->len] = '\0';
    }
    if (out->len > limit)
        return error_set(err, ERR_TOO_LARGE, "%s: larger than %zu bytes", resolved, limit);
    return 0;
}

char *call_path(struct call *call, const char *path, enum access access, struct error *err)
{
    struct broker *broker = call->broker;

    if (!path || !path[0]) {
        error_set(err, ERR_USAGE, "an empty path");
        return NULL;
    }
    char *resolved = resolve_path(broker->spec->config->workspace, path, err);
    if (!resolved)
        return NULL;
    if (policy_check(broker->policy, access == ACCESS_WRITE ? PERM_WRITE : PERM_READ, resolved,
                     err) < 0) {
        free(resolved);
        return NULL;
    }
    return resolved;
}

/* ---- permissions ---- */

int call_allow_net(struct call *call, const char *host, int port, struct error *err)
{
    cleanup_free char *what = strchr(host, ':') && host[0] != '['
                                  ? mem_printf("[%s]:%d", host, port)
                                  : mem_printf("%s:%d", host, port);
    const struct policy *policy = call->broker->policy;
    if (policy_check(policy, PERM_NET, what, err) < 0)
        return -1;
    return address_kind(host) == ADDRESS_NONE ? 0
                                              : policy_check_address(policy, host, host, port, err);
}

int call_http_allow(void *ctx, const char *host, int port, const char *address, struct error *err)
{
    const struct call *call = ctx;

    if (call_allow_net(ctx, host, port, err) < 0)
        return -1;
    return address ? policy_check_address(call->broker->policy, host, address, port, err) : 0;
}

int call_allow_exec(struct call *call, const char *const *argv, struct error *err)
{
    if (!argv[0] || !argv[0][0])
        return error_set(err, ERR_USAGE, "an empty command");
    cleanup_free char *path =
        strchr(argv[0], '/') ? resolve_path(call->broker->spec->config->workspace, argv[0], err)
                             : mem_strdup(argv[0]);
    cleanup_buf struct buf words = BUF_INIT;
    if (!path)
        return -1;
    buf_puts(&words, path);
    for (size_t i = 1; argv[i]; i++)
        buf_printf(&words, "%c%s", PATTERN_WORD, argv[i]);
    return policy_check(call->broker->policy, PERM_EXEC, words.data, err);
}

int call_allow_env(struct call *call, const char *name, struct error *err)
{
    return policy_check(call->broker->policy, PERM_ENV, name, err);
}

/* ---- secrets and handles ---- */

const char *call_secret(struct call *call, const struct value *v, size_t *len, struct error *err)
{
    size_t unused;

    if (!len)
        len = &unused;
    if (v && v->kind == VALUE_STRING) {
        *len = v->as.string.len;
        return v->as.string.data;
    }
    if (v && v->kind == VALUE_HANDLE) {
        const char *bytes = handle_get(&call->broker->handles, v->as.handle.id, "secret", len);
        if (bytes)
            return bytes;
        error_set(err, ERR_USAGE, "a handle that names no secret of this stage");
        return NULL;
    }
    error_set(err, ERR_USAGE, "a text or a secret is needed, not %s", value_kind_name(v));
    return NULL;
}

void call_secret_new(struct call *call, const char *bytes, size_t len, struct value *out)
{
    masker_add(call->broker->masker, bytes, len);
    if (len && len < MASK_SHORTEST && !call->broker->short_told) {
        call->broker->short_told = true;
        call_log(call, "warning",
                 "a secret of %zu bytes: fewer than %d are not masked in logs and reports", len,
                 MASK_SHORTEST);
    }
    value_set_handle(out, "secret", handle_add_secret(&call->broker->handles, bytes, len));
}

char *call_config_text(struct call *call, const struct value *v, bool secret, struct error *err)
{
    const char *name = value_get_string(v, "env", NULL), *file = value_get_string(v, "file", NULL);
    char *text = NULL;

    if (!v || v->kind == VALUE_NIL)
        return NULL;
    if (v->kind == VALUE_STRING) {
        text = mem_strdup(v->as.string.data);
    } else if (name) {
        bool unmapped;
        text = mem_strdup(environment_get(name, &unmapped));
        if (unmapped) {
            error_set(err, ERR_NOT_FOUND,
                      "the environment variable %s, which mlhost.yaml names, is %s: Azure DevOps "
                      "knows no variable of that name",
                      name, getenv(name));
            error_hint(err, "define it in the pipeline, or in a variable group that it uses");
            return NULL;
        }
        if (!text) {
            error_set(err, ERR_NOT_FOUND,
                      "the environment variable %s, which mlhost.yaml names, is not set", name);
            error_hint(err, "set it before mlhost is started");
            return NULL;
        }
    } else if (file) {
        cleanup_buf struct buf content = BUF_INIT;
        cleanup_free char *path = path_join(call->broker->spec->config->workspace, file);
        if (file_read(AT_FDCWD, path, 1u << 20, &content, err) < 0) {
            error_wrap(err, "a file that mlhost.yaml names");
            return NULL;
        }
        while (content.len &&
               (content.data[content.len - 1] == '\n' || content.data[content.len - 1] == '\r'))
            content.data[--content.len] = '\0';
        text = buf_steal(&content);
    } else {
        error_set(err, ERR_INVALID,
                  "a value in mlhost.yaml must be a text, { env: NAME } or { file: PATH }, not %s",
                  value_kind_name(v));
        return NULL;
    }
    if (secret)
        masker_add(call->broker->masker, text, strlen(text));
    return text;
}

void call_handle_new(struct call *call, const char *type, void *object, void (*drop)(void *),
                     struct value *out)
{
    (void)drop; /* the process ends before it forgets one */
    value_set_handle(out, type, handle_add(&call->broker->handles, type, object));
}

void *call_handle(struct call *call, const struct value *v, const char *type, struct error *err)
{
    void *object = v && v->kind == VALUE_HANDLE
                       ? handle_get(&call->broker->handles, v->as.handle.id, type, NULL)
                       : NULL;

    if (!object)
        error_set(err, ERR_USAGE, "a handle of type '%s' is needed, not %s", type,
                  value_kind_name(v));
    return object;
}

/* ---- reports ---- */

void call_log(struct call *call, const char *level, const char *format, ...)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct value event = {0};
    va_list args;

    va_start(args, format);
    buf_vprintf(&text, format, args);
    va_end(args);
    value_set_map(&event);
    value_put_string(&event, "t", "log");
    value_put_string(&event, "level", level);
    value_put_string(&event, "text", text.data ? text.data : "");
    broker_event(call->broker, &event);
}

void call_output(struct call *call, int stream, const char *data, size_t len)
{
    broker_output(call->broker, stream, data, len);
}

void call_progress(struct call *call, const char *label, int64_t done, int64_t total,
                   const char *unit)
{
    struct value event = {0};

    value_set_map(&event);
    value_put_string(&event, "t", "progress");
    value_put_string(&event, "label", label);
    value_put_int(&event, "done", done);
    value_put_int(&event, "total", total);
    value_put_string(&event, "unit", unit ? unit : "");
    broker_event(call->broker, &event);
}

void call_event(struct call *call, const char *kind, struct value *event)
{
    if (event->kind != VALUE_MAP) {
        value_free(event);
        value_set_map(event);
    }
    value_put_string(event, "t", kind);
    broker_event(call->broker, event);
}

/* ---- services and places ---- */

void call_service(struct call *call, const char *service, struct service_target *out)
{
    const struct broker_spec *spec = call->broker->spec;

    *out = (struct service_target){.config = config_service(spec->config, service),
                                   .profile = spec->config->profile};
    if (config_is_local(spec->config))
        out->unix_socket = spec->local_socket;
}

int call_daemon(struct call *call, char **socket, char **url, struct error *err)
{
    struct value question = {0};
    cleanup_value struct value answer = {0};

    value_set_map(&question);
    value_put_string(&question, "kind", "daemon");
    if (broker_ask(call, &question, &answer, err) < 0)
        return error_wrap(err, "the embedded services that outlive a run");
    const char *path = value_get_string(&answer, "socket", NULL);
    if (!path) {
        error_set(err, ERR_UNAVAILABLE, "the embedded services that outlive a run: %s",
                  value_get_string(&answer, "by", "they cannot be started"));
        return error_hint(err, "mlhost serve --background starts them; --status tells of them");
    }
    *socket = mem_strdup(path);
    *url = mem_strdup(value_get_string(&answer, "url", NULL));
    return 0;
}

struct http *call_http(struct call *call, struct error *err)
{
    struct broker *broker = call->broker;
    struct http *(*make)(struct error *);

    pthread_mutex_lock(&broker->http_lock);
    if (!broker->http) {
        void *symbol = module_symbol(MODULE_IO, "http_new", err);
        if (symbol) {
            memcpy(&make, &symbol, sizeof make);
            broker->http = make(err);
        }
    }
    struct http *http = broker->http;
    pthread_mutex_unlock(&broker->http_lock);
    return http;
}

const char *call_workspace(struct call *call)
{
    return call->broker->spec->config->workspace;
}

const char *call_state_dir(struct call *call)
{
    return call->broker->spec->config->state;
}

const char *call_out_dir(struct call *call)
{
    struct broker *broker = call->broker;

    if (!broker->spec->out_dir)
        return NULL;
    pthread_mutex_lock(&broker->out_lock);
    if (!broker->out_dir_made)
        broker->out_dir_made = dir_make(broker->spec->out_dir, NULL) == 0;
    pthread_mutex_unlock(&broker->out_lock);
    return broker->spec->out_dir;
}

const char *call_run_id(struct call *call)
{
    return call->broker->spec->run_id;
}

const char *call_stage(struct call *call)
{
    return call->broker->spec->stage;
}
