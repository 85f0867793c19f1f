/* Credential plugins: https://kubernetes.io/docs/reference/access-authn-authz/authentication/
 * "client-go credential plugins". */
#include "service/k8s_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/strings.h"
#include "loop/exec.h"

#define TIMEOUT      (60 * NS_PER_S)
#define REPLY_MAX    (1u << 20)
#define INFO         "KUBERNETES_EXEC_INFO"
#define EARLY        (60 * NS_PER_S) /* before a credential ends it is asked for anew */
#define SHORT_LIFE   (10 * 60 * NS_PER_S)
#define LONG_LIFE_MS (INT64_C(365) * 24 * 3600 * 1000)

extern char **environ;

/* What the plugin is told: its own version, that nobody can be asked, and the cluster where the
 * kubeconfig says so. */
static char *exec_info(const struct rest_client *client, const char *version)
{
    cleanup_value struct value info = {0};
    cleanup_buf struct buf text = BUF_INIT;

    value_set_map(&info);
    value_put_string(&info, "apiVersion", version);
    value_put_string(&info, "kind", "ExecCredential");
    struct value *spec = value_put(&info, "spec");
    value_set_map(spec);
    value_put_bool(spec, "interactive", false);
    if (value_get(client->auth.exec, "cluster"))
        value_copy(value_put(spec, "cluster"), value_get(client->auth.exec, "cluster"));
    value_to_json(&info, 0, &text);
    return mem_strdup(text.data);
}

/* The kubeconfig's own variables and INFO are in the place of the environment's. */
static bool gives(const struct value *given, const char *entry)
{
    size_t len = strcspn(entry, "=");

    for (size_t i = 0; i < value_count(given); i++) {
        const char *name = value_get_string(value_at(given, i), "name", "_");
        if (strlen(name) == len && strncmp(name, entry, len) == 0)
            return true;
    }
    return strncmp(entry, INFO "=", sizeof INFO) == 0;
}

/* The plugin's reply. What it printed is a secret, so no message quotes it. */
static int take_reply(const struct exec_result *ran, const char *version, struct value *out,
                      struct error *err)
{
    struct error unquoted = {0};

    if (ran->truncated)
        return error_set(err, ERR_TOO_LARGE, "it printed more than %u bytes", REPLY_MAX);
    if (value_from_json(ran->out.data ? ran->out.data : "", ran->out.len, "its output", NULL, out,
                        &unquoted) < 0 ||
        strcmp(value_get_string(out, "kind", ""), "ExecCredential") != 0)
        return error_set(err, ERR_INVALID, "what it printed is no ExecCredential");
    if (strcmp(value_get_string(out, "apiVersion", ""), version) != 0)
        return error_set(err, ERR_INVALID,
                         "it answered in another apiVersion than the kubeconfig's %s", version);
    return 0;
}

/* As the operator, who named the plugin: with his environment, and the net to sign in. The script
 * needs the permission exec to have it run. */
static int run_for_operator(struct call *call, const struct value *exec, const char *info,
                            int64_t deadline, struct exec_result *ran, struct error *err)
{
    cleanup_strings struct strings argv = {0}, env = {0};
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    struct exec_spec spec = {
        .policy = &policy, .deadline = deadline, .cancel = call->cancel, .keep = REPLY_MAX};
    const struct value *args = value_get(exec, "args"), *given = value_get(exec, "env");

    strings_add(&argv, mem_strdup(value_get_string(exec, "command", "")));
    for (size_t i = 0; i < value_count(args); i++)
        strings_add(&argv, mem_strdup(value_text(value_at(args, i), "")));
    if (call_allow_exec(call, (const char *const *)argv.items, err) < 0)
        return -1;
    for (char **entry = environ; *entry; entry++) {
        if (!gives(given, *entry))
            strings_add(&env, mem_strdup(*entry));
    }
    for (size_t i = 0; i < value_count(given); i++)
        strings_add(&env, mem_printf("%s=%s", value_get_string(value_at(given, i), "name", "_"),
                                     value_get_string(value_at(given, i), "value", "")));
    strings_add(&env, mem_printf(INFO "=%s", info));
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.net_allowed = true;
    policy.argv = argv.items;
    policy.env = env.items;
    policy.cwd = call_workspace(call);
    return exec_run(&spec, ran, err);
}

/* A plugin of a script's kubeconfig is a command of the script's. */
static int run_for_script(struct call *call, const struct value *exec, const char *info,
                          int64_t deadline, struct exec_result *ran, struct error *err)
{
    cleanup_value struct value command = {0};
    struct sandbox_policy limits = SANDBOX_POLICY_INIT;
    const struct value *args = value_get(exec, "args"), *given = value_get(exec, "env");

    value_set_map(&command);
    struct value *argv = value_put(&command, "argv");
    value_set_array(argv);
    value_push_string(argv, value_get_string(exec, "command", ""));
    for (size_t i = 0; i < value_count(args); i++)
        value_push_string(argv, value_text(value_at(args, i), ""));
    struct value *env = value_put(&command, "env");
    value_set_map(env);
    for (size_t i = 0; i < value_count(given); i++)
        value_put_string(env, value_get_string(value_at(given, i), "name", "_"),
                         value_get_string(value_at(given, i), "value", ""));
    value_put_string(env, INFO, info);
    value_put_bool(&command, "quiet", true); /* what it prints is a credential */
    limits.processes = COMMAND_PROCESSES;
    return call_command(call, &command, &limits, deadline, REPLY_MAX, ran, err);
}

/* A program that the script may replace is the script's, whoever names it. */
static bool is_scripts(struct call *call, const struct rest_client *client, const char *command)
{
    struct error unused;

    if (client->auth.from_script || !strchr(command, '/'))
        return client->auth.from_script;
    cleanup_free char *writable = call_path(call, command, ACCESS_WRITE, &unused);
    if (writable)
        call_log(call, "warning",
                 "the credential plugin %s runs with the stage's rights: the stage may write it",
                 command);
    return writable != NULL;
}

static int check_plugin(const struct value *exec, const char *version, struct error *err)
{
    if (strcmp(version, "client.authentication.k8s.io/v1") != 0 &&
        strcmp(version, "client.authentication.k8s.io/v1beta1") != 0) {
        error_set(err, ERR_UNSUPPORTED, "apiVersion '%s'", version);
        return error_hint(err, "known: client.authentication.k8s.io/v1 and v1beta1");
    }
    if (strcmp(value_get_string(exec, "interactiveMode", ""), "Always") == 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "it wants to ask somebody (interactiveMode: Always)");
    return 0;
}

static int judge(const struct exec_result *ran, const char *version, struct value *out,
                 struct error *err)
{
    if (ran->timed_out || ran->cancelled)
        return error_set(err, ran->cancelled ? ERR_CANCELLED : ERR_TIMEOUT, "%s",
                         ran->cancelled ? "cancelled" : "it did not end in time");
    if (ran->status != 0) {
        size_t shown = ran->err.len < 500 ? ran->err.len : 500;
        return error_set(err, ERR_UNAUTHORIZED, "it ended with status %d: %.*s", ran->status,
                         (int)shown, ran->err.data ? ran->err.data + ran->err.len - shown : "");
    }
    return take_reply(ran, version, out, err);
}

static int run(struct call *call, const struct rest_client *client, struct value *out,
               struct error *err)
{
    const struct value *exec = client->auth.exec;
    const char *command = value_get_string(exec, "command", "");
    const char *version = value_get_string(exec, "apiVersion", "client.authentication.k8s.io/v1");
    int64_t deadline = deadline_min(call->deadline, deadline_in(TIMEOUT));
    cleanup_free char *info = exec_info(client, version);
    struct exec_result ran = {0};

    int rc = check_plugin(exec, version, err);
    if (rc == 0)
        rc = is_scripts(call, client, command)
                 ? run_for_script(call, exec, info, deadline, &ran, err)
                 : run_for_operator(call, exec, info, deadline, &ran, err);
    if (rc < 0 && err->code == ERR_NOT_FOUND)
        error_hint(err, "%s", value_get_string(exec, "installHint", "is it installed?"));
    if (rc == 0)
        rc = judge(&ran, version, out, err);
    explicit_bzero(ran.out.data ? ran.out.data : (char *)"", ran.out.len);
    exec_result_free(&ran);
    return rc < 0 ? error_wrap(err, "the kubeconfig's credential plugin %s", command) : 0;
}

int64_t k8s_time_ms(const char *text)
{
    struct tm tm = {0};
    const char *at = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    int hours = 0, minutes = 0;
    char sign = '+';

    if (!at)
        return -1;
    if (*at == '.')
        at += 1 + strspn(at + 1, "0123456789");
    bool utc = (*at == 'Z' || *at == 'z') && !at[1];
    if (!utc && (sscanf(at, "%c%2d:%2d", &sign, &hours, &minutes) != 3 || strlen(at) != 6 ||
                 !strchr("+-", sign)))
        return -1;
    int64_t offset = (hours * 60 + minutes) * 60;
    return ((int64_t)timegm(&tm) - (sign == '-' ? -offset : offset)) * 1000;
}

/* A plugin that names no end is asked again after a while, and after a 401. */
static int64_t valid_until(const char *text)
{
    int64_t end = text ? k8s_time_ms(text) : -1;

    if (end < 0)
        return deadline_in(SHORT_LIFE);
    int64_t left_ms = end - clock_wall_ms();
    int64_t left = (left_ms < LONG_LIFE_MS ? left_ms : LONG_LIFE_MS) * NS_PER_MS;
    return deadline_in(left > 2 * EARLY ? left - EARLY : left / 2);
}

/* PEM text of a status as a file without a name. */
static int take_pem(struct rest_client *client, const struct value *status, const char *key,
                    char **path, struct error *err)
{
    const char *text = value_get_string(status, key, NULL);

    if (!text || !*text)
        return 0;
    char *fresh = k8s_text_file(client, text, strlen(text), key, err);
    if (!fresh)
        return -1;
    rest_client_keep(client, *path, -1);
    *path = fresh;
    return 0;
}

int k8s_exec_credential(struct call *call, struct rest_client *client, struct error *err)
{
    cleanup_value struct value reply = {0};
    struct auth *auth = &client->auth;

    if (run(call, client, &reply, err) < 0)
        return -1;
    const struct value *status = value_get(&reply, "status");
    const char *token = value_get_string(status, "token", NULL);
    if (!token && !value_get_string(status, "clientCertificateData", NULL))
        return error_set(err, ERR_INVALID,
                         "credential plugin %s gave neither a token nor a certificate",
                         value_get_string(auth->exec, "command", ""));
    free(auth->cached);
    auth->cached = token ? secret_copy(call, token) : NULL;
    auth->cached_until = valid_until(value_get_string(status, "expirationTimestamp", NULL));
    if (take_pem(client, status, "clientCertificateData", &client->client_cert, err) < 0 ||
        take_pem(client, status, "clientKeyData", &client->client_key, err) < 0)
        return -1;
    return 0;
}
