/* What a script needs of its surroundings: modules, environment, time. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/environment.h"
#include "base/mem.h"
#include "broker/internal.h"

#define MODULE_MAX (8u << 20)

/* ---- modules ---- */

static bool module_name_valid(const char *name)
{
    for (const char *c = name; *c; c++) {
        if (!isalnum((unsigned char)*c) && !strchr("_-./", *c))
            return false;
        if (c[0] == '.' && (c == name || c[1] == '.' || c[1] == '\0' || c[1] == '/'))
            return false;
    }
    return name[0] && name[0] != '/';
}

/* <folder>/<name>.lua or <folder>/<name>/init.lua: 1 found, 0 not there, -1 error. */
static int find_module(struct call *call, const char *folder, const char *name, struct value *out,
                       struct error *err)
{
    static const char *const endings[] = {".lua", "/init.lua"};
    const char *workspace = call_workspace(call);
    size_t len = strlen(workspace);

    for (size_t i = 0; i < 2; i++) {
        cleanup_free char *path = mem_printf("%s/%s%s", folder, name, endings[i]);
        cleanup_buf struct buf text = BUF_INIT;
        if (access(path, F_OK) < 0)
            continue;
        cleanup_free char *allowed = call_path(call, path, ACCESS_READ, err);
        if (!allowed || call_read(allowed, MODULE_MAX, &text, err) < 0)
            return -1;
        value_set_map(out);
        bool inside = strncmp(allowed, workspace, len) == 0 && allowed[len] == '/';
        value_put_string(out, "file", inside ? allowed + len + 1 : allowed);
        value_set_bytes(value_put(out, "text"), text.data ? text.data : "", text.len);
        return 1;
    }
    return 0;
}

/* A module of the program, while MLHOST_LUA_PATH names the folder to take them from. That folder is
 * the operator's. */
static int find_builtin(const char *name, struct value *out, struct error *err)
{
    static const char *const endings[] = {".lua", "/init.lua"};
    const char *folder = getenv("MLHOST_LUA_PATH");

    for (size_t i = 0; folder && i < 2; i++) {
        cleanup_free char *path = mem_printf("%s/%s%s", folder, name, endings[i]);
        cleanup_buf struct buf text = BUF_INIT;
        if (access(path, F_OK) < 0)
            continue;
        if (file_read(AT_FDCWD, path, MODULE_MAX, &text, err) < 0)
            return -1;
        value_set_map(out);
        value_set_printf(value_put(out, "file"), "(mlhost)/%s%s", name, endings[i]);
        value_set_bytes(value_put(out, "text"), text.data ? text.data : "", text.len);
        return 0;
    }
    return 0;
}

static int host_module(struct call *call, const struct value *args, struct value *out,
                       struct error *err)
{
    cleanup_free char *name = mem_strdup(value_get_string(args, "name", ""));
    const char *places[3] = {call->broker->script_folder};
    cleanup_free char *pipelines = path_join(call_workspace(call), "pipelines");
    cleanup_free char *lua = path_join(call_workspace(call), "lua");

    if (!module_name_valid(name))
        return error_set(err, ERR_USAGE, "require: '%s' is not a module's name", name);
    for (char *c = name; *c; c++) {
        if (*c == '.')
            *c = '/';
    }
    if (value_get_bool(args, "builtin", false))
        return find_builtin(name, out, err);
    places[1] = pipelines;
    places[2] = lua;
    for (size_t i = 0; i < 3; i++) {
        int found = places[i] ? find_module(call, places[i], name, out, err) : 0;
        if (found)
            return found < 0 ? -1 : 0;
    }
    error_set(err, ERR_NOT_FOUND, "module '%s' not found", value_get_string(args, "name", ""));
    return error_hint(
        err,
        "looked into the program, beside the script, and in pipelines/ and lua/ of the workspace");
}

/* ---- environment ---- */

static int env_get(struct call *call, const struct value *args, struct value *out,
                   struct error *err)
{
    const char *name = value_get_string(args, "name", "");

    if (call_allow_env(call, name, err) < 0)
        return -1;
    const char *text = environment_get(name, NULL);
    if (text)
        value_set_string(out, text);
    return 0;
}

/* ---- time ---- */

static int time_now(struct call *call, const struct value *args, struct value *out,
                    struct error *err)
{
    (void)call;
    (void)args;
    (void)err;
    value_set_int(out, clock_wall_ms());
    return 0;
}

static int time_sleep(struct call *call, const struct value *args, struct value *out,
                      struct error *err)
{
    const struct value *duration = value_get(args, "duration");
    int64_t ns = 0;

    (void)out;
    if (duration->kind == VALUE_STRING) {
        if (duration_parse(duration->as.string.data, &ns, err) < 0)
            return error_wrap(err, "sleep");
    } else {
        double seconds =
            duration->kind == VALUE_INT ? (double)duration->as.integer : duration->as.real;
        if (!(seconds >= 0 && seconds < 1e9))
            return error_set(err, ERR_USAGE, "sleep: %g seconds are not possible", seconds);
        ns = (int64_t)(seconds * (double)NS_PER_S);
    }
    int64_t until = deadline_in(ns), end = deadline_min(until, call->deadline);
    struct pollfd wait = {.fd = call->cancel->fd, .events = POLLIN};
    while (!deadline_passed(end) && !cancelled(call->cancel)) {
        if (poll(&wait, 1, deadline_poll_ms(end)) < 0 && errno != EINTR)
            return error_errno(err, errno, "sleep");
    }
    if (cancelled(call->cancel))
        return error_set(err, ERR_CANCELLED, "cancelled while sleeping");
    if (until > end)
        return error_set(err, ERR_TIMEOUT, "timed out while sleeping");
    return 0;
}

const struct primitive script_rows[] = {
    {.sign = {"host.module", "name:string builtin:bool?", "module:map?",
              "the text of a module, for require"},
     .fn = host_module},
    {.sign = {"env.get", "name:string", "value:string?",
              "an environment variable that was granted; nil when not set"},
     .fn = env_get},
    {.sign = {"time.now", "", "ms:int", "Unix time in milliseconds"}, .fn = time_now},
    {.sign = {"time.sleep", "duration:duration", "", "wait; ends early when the stage does"},
     .fn = time_sleep},
    {.sign = {.name = NULL}},
};
