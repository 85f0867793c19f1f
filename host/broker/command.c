/* Commands with the script's rights: what exec.run and a script's own credential plugins share. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strings.h"
#include "broker/exec_view.h"
#include "broker/internal.h"
#include "loop/exec.h"

extern char **environ;

/* Shorter ones are words, too: a user's name, a host. */
#define SECRET_WORD 8

static int secret_argument(size_t number, struct error *err)
{
    error_set(err, ERR_DENIED,
              "exec: argument %zu is a secret; every user of the machine sees arguments", number);
    return error_hint(err, "pass it as env = { NAME = secret } or input = secret");
}

static int take_argv(struct call *call, const struct value *args, struct strings *argv,
                     struct error *err)
{
    const struct value *list = value_get(args, "argv");

    for (size_t i = 0; i < value_count(list); i++) {
        const struct value *word = value_at(list, i);
        if (word->kind == VALUE_HANDLE ||
            (word->kind == VALUE_STRING && masker_holds(call->broker->masker, word->as.string.data,
                                                        word->as.string.len, SECRET_WORD)))
            return secret_argument(i + 1, err);
        if (word->kind == VALUE_INT) {
            strings_add(argv, mem_printf("%lld", (long long)word->as.integer));
            continue;
        }
        if (word->kind != VALUE_STRING)
            return error_set(err, ERR_USAGE, "exec: argument %zu is a %s, not a text", i + 1,
                             value_kind_name(word));
        if (strlen(word->as.string.data) != word->as.string.len)
            return error_set(err, ERR_USAGE, "exec: argument %zu has a NUL byte in it", i + 1);
        strings_add(argv, mem_strdup(word->as.string.data));
    }
    return argv->count ? 0 : error_set(err, ERR_USAGE, "exec: no command");
}

/* Loaders and interpreters read these; a grant of a variable is no grant of code. */
static bool hijacks(const char *name)
{
    static const char *const prefixes[] = {"LD_",      "BASH_ENV", "ENV=",        "PYTHONSTARTUP",
                                           "PERL5OPT", "RUBYOPT",  "NODE_OPTIONS"};

    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}

/* PATH, language, HOME and TMPDIR; what the script was granted; what it gives itself. */
static int take_env(struct call *call, const struct value *args, const char *tmp,
                    struct strings *env, struct error *err)
{
    static const char *const plain[] = {"PATH", "LANG", "LC_ALL", "LC_CTYPE",
                                        "TZ",   "TERM", "USER",   "LOGNAME"};
    const struct value *given = value_get(args, "env");
    struct error unused;

    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        const char *text = getenv(plain[i]);
        if (!value_get(given, plain[i]) && text)
            strings_add(env, mem_printf("%s=%s", plain[i], text));
    }
    for (char **entry = environ; *entry; entry++) {
        cleanup_free char *name = mem_strndup(*entry, strcspn(*entry, "="));
        bool done = value_get(given, name) || hijacks(*entry);
        for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
            done = done || strcmp(plain[i], name) == 0;
        if (!done && call_allow_env(call, name, &unused) == 0)
            strings_add(env, mem_strdup(*entry));
    }
    if (!getenv("PATH") && !value_get(given, "PATH"))
        strings_add(env, mem_strdup("PATH=/usr/local/bin:/usr/bin:/bin"));
    if (tmp && !value_get(given, "TMPDIR"))
        strings_add(env, mem_printf("TMPDIR=%s", tmp));
    if (tmp && !value_get(given, "HOME"))
        strings_add(env, mem_printf("HOME=%s", tmp));
    for (size_t i = 0; given && i < value_count(given); i++) {
        const struct value_pair *pair = &given->as.map.pairs[i];
        size_t len;
        if (pair->key[0] == '\0' || strchr(pair->key, '=') || strlen(pair->key) != pair->key_len)
            return error_set(err, ERR_USAGE, "exec: '%s' is not a variable's name", pair->key);
        if (hijacks(pair->key))
            return error_set(err, ERR_DENIED,
                             "exec: the variable %s makes programs load other code", pair->key);
        const char *text = call_secret(call, &pair->value, &len, err);
        if (!text)
            return error_wrap(err, "exec: env.%s", pair->key);
        strings_add(env, mem_printf("%s=%s", pair->key, text));
    }
    return 0;
}

/* Where commands, libraries and their settings are: readable to every command. */
static const char *const system_paths[] = {"/usr",
                                           "/bin",
                                           "/sbin",
                                           "/lib",
                                           "/lib32",
                                           "/lib64",
                                           "/libx32",
                                           "/opt",
                                           "/etc",
                                           "/proc",
                                           "/sys/devices/system/cpu",
                                           "/sys/fs/cgroup",
                                           "/dev/urandom",
                                           "/dev/random",
                                           "/dev/zero",
                                           "/run/systemd/resolve",
                                           "/var/lib/ca-certificates"};
static const char *const system_writes[] = {"/dev/null", "/dev/tty", "/dev/ptmx", "/dev/pts",
                                            "/dev/shm"};

static void take_paths(struct call *call, const char *tmp, struct strings *reads,
                       struct strings *writes)
{
    cleanup_value struct value lists = {0};
    const char *workspace = call_workspace(call);

    for (size_t i = 0; i < sizeof system_paths / sizeof *system_paths; i++)
        strings_add(reads, mem_strdup(system_paths[i]));
    for (size_t i = 0; i < sizeof system_writes / sizeof *system_writes; i++)
        strings_add(writes, mem_strdup(system_writes[i]));
    policy_to_value(call->broker->policy, &lists);
    const struct value *granted = value_get(&lists, "read");
    for (size_t i = 0; i < value_count(granted); i++)
        strings_add(reads, path_join(workspace, value_text(value_at(granted, i), "")));
    granted = value_get(&lists, "write");
    for (size_t i = 0; i < value_count(granted); i++)
        strings_add(writes, path_join(workspace, value_text(value_at(granted, i), "")));
    if (tmp)
        strings_add(writes, mem_strdup(tmp));
}

bool call_has_net(struct call *call)
{
    cleanup_value struct value lists = {0};

    policy_to_value(call->broker->policy, &lists);
    return value_count(value_get(&lists, "net")) > 0;
}

static void output(void *ctx, int stream, const char *data, size_t len)
{
    call_output(ctx, stream, data, len);
}

int call_command(struct call *call, const struct value *args, const struct sandbox_policy *limits,
                 int64_t deadline, size_t keep, struct exec_result *ran, struct error *err)
{
    cleanup_strings struct strings argv = {0}, env = {0}, reads = {0}, writes = {0};
    cleanup_exec_view struct exec_view view = {0};
    struct sandbox_policy policy = *limits;
    const struct value *input = value_get(args, "input");
    const char *out_dir = call_out_dir(call);
    cleanup_free char *tmp = out_dir ? mem_printf("%s/.tmp", out_dir) : NULL;
    cleanup_free char *cwd = NULL;
    struct exec_spec spec = {
        .policy = &policy, .deadline = deadline, .cancel = call->cancel, .keep = keep};
    bool net = call_has_net(call);

    if (take_argv(call, args, &argv, err) < 0 ||
        call_allow_exec(call, (const char *const *)argv.items, err) < 0)
        return -1;
    if (tmp && dir_make(tmp, err) < 0)
        return error_wrap(err, "exec");
    if (take_env(call, args, tmp, &env, err) < 0)
        return -1;
    cwd = call_path(call, value_get_string(args, "cwd", "."), ACCESS_READ, err);
    if (!cwd)
        return error_wrap(err, "exec: cwd");
    if (input && input->kind != VALUE_NIL) {
        spec.input = call_secret(call, input, &spec.input_len, err);
        if (!spec.input)
            return error_wrap(err, "exec: input");
    }
    take_paths(call, tmp, &reads, &writes);
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.namespaces = SANDBOX_NS_USER | SANDBOX_NS_PID | SANDBOX_NS_MOUNT | SANDBOX_NS_IPC |
                        (net ? 0u : SANDBOX_NS_NET);
    policy.required = call->broker->spec->allow_degraded ? 0u : SANDBOX_REQUIRED_COMMAND;
    exec_view_make(call, &view);
    policy.mounts = view.mounts;
    policy.mount_count = view.count;
    policy.mounts_hide = true;
    policy.root_read_only = true; /* Landlock does not see chmod, chown and times */
    policy.landlock = true;
    policy.read_paths = (const char *const *)reads.items;
    policy.read_count = reads.count;
    policy.write_paths = (const char *const *)writes.items;
    policy.write_count = writes.count;
    policy.net_allowed = net;
    policy.argv = argv.items;
    policy.env = env.items;
    policy.cwd = cwd;
    if (!value_get_bool(args, "quiet", false)) {
        spec.output = output;
        spec.output_ctx = call;
    }
    return exec_run(&spec, ran, err);
}
