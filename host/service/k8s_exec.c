/* Credential plugins: https://kubernetes.io/docs/reference/access-authn-authz/authentication/
 * "client-go credential plugins". */
#include "service/k8s_config.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "loop/exec.h"

#define TIMEOUT    (60 * NS_PER_S)
#define REPLY_MAX  (1u << 20)
#define EARLY      (60 * NS_PER_S) /* before a credential ends it is asked for anew */
#define SHORT_LIFE (10 * 60 * NS_PER_S)

extern char **environ;

struct strings {
    char **items;
    size_t count;
};

static void add(struct strings *list, char *owned)
{
    list->items = mem_array(list->items, list->count + 2, sizeof *list->items);
    list->items[list->count++] = owned;
    list->items[list->count] = NULL;
}

static void strings_free(struct strings *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
}
#define cleanup_strings __attribute__((cleanup(strings_free)))

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
    if (value_get_bool(client->auth.exec, "provideClusterInfo", false)) {
        struct value *cluster = value_put(spec, "cluster");
        value_set_map(cluster);
        value_put_string(cluster, "server", client->url);
        value_put_bool(cluster, "insecure-skip-tls-verify", client->insecure);
    }
    value_to_json(&info, 0, &text);
    return mem_strdup(text.data);
}

static int run(struct call *call, const struct rest_client *client, struct value *out,
               struct error *err)
{
    const struct value *exec = client->auth.exec;
    const char *command = value_get_string(exec, "command", "");
    const char *version = value_get_string(exec, "apiVersion", "client.authentication.k8s.io/v1");
    cleanup_strings struct strings argv = {0}, env = {0};
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    struct exec_result ran = {0};
    struct exec_spec spec = {.policy = &policy,
                             .deadline = deadline_min(call->deadline, deadline_in(TIMEOUT)),
                             .cancel = call->cancel,
                             .keep = REPLY_MAX};

    if (strcmp(version, "client.authentication.k8s.io/v1") != 0 &&
        strcmp(version, "client.authentication.k8s.io/v1beta1") != 0) {
        error_set(err, ERR_UNSUPPORTED, "credential plugin %s: apiVersion '%s'", command, version);
        return error_hint(err, "known: client.authentication.k8s.io/v1 and v1beta1");
    }
    if (strcmp(value_get_string(exec, "interactiveMode", ""), "Always") == 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "credential plugin %s wants to ask somebody (interactiveMode: Always)",
                         command);
    add(&argv, mem_strdup(command));
    const struct value *args = value_get(exec, "args");
    for (size_t i = 0; i < value_count(args); i++)
        add(&argv, mem_strdup(value_text(value_at(args, i), "")));
    if (call_allow_exec(call, (const char *const *)argv.items, err) < 0)
        return error_wrap(err, "the kubeconfig's credential plugin");
    const struct value *given = value_get(exec, "env");
    for (char **entry = environ; *entry; entry++)
        add(&env, mem_strdup(*entry));
    for (size_t i = 0; i < value_count(given); i++)
        add(&env, mem_printf("%s=%s", value_get_string(value_at(given, i), "name", "_"),
                             value_get_string(value_at(given, i), "value", "")));
    cleanup_free char *info = exec_info(client, version);
    add(&env, mem_printf("KUBERNETES_EXEC_INFO=%s", info));
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.net_allowed = true; /* it signs in somewhere, for the operator */
    policy.argv = argv.items;
    policy.env = env.items;
    policy.cwd = call_workspace(call);
    int rc = exec_run(&spec, &ran, err);
    if (rc == 0 && (ran.timed_out || ran.cancelled)) {
        rc = error_set(err, ran.cancelled ? ERR_CANCELLED : ERR_TIMEOUT, "%s",
                       ran.cancelled ? "cancelled" : "it did not end in time");
    } else if (rc == 0 && ran.status != 0) {
        size_t shown = ran.err.len < 500 ? ran.err.len : 500;
        rc = error_set(err, ERR_UNAUTHORIZED, "it ended with status %d: %.*s", ran.status,
                       (int)shown, ran.err.data ? ran.err.data + ran.err.len - shown : "");
    }
    if (rc < 0 && err->code == ERR_NOT_FOUND)
        error_hint(err, "%s", value_get_string(exec, "installHint", "is it installed?"));
    if (rc == 0)
        rc = value_from_json(ran.out.data ? ran.out.data : "", ran.out.len, "its output", NULL, out,
                             err);
    explicit_bzero(ran.out.data ? ran.out.data : (char *)"", ran.out.len);
    exec_result_free(&ran);
    return rc < 0 ? error_wrap(err, "credential plugin %s", command) : 0;
}

/* "2026-01-31T12:00:00Z" -> a deadline; a plugin that names no end is asked again after a while,
 * as client-go does after a 401. */
static int64_t valid_until(const char *text)
{
    struct tm tm = {0};

    if (!text || !strptime(text, "%Y-%m-%dT%H:%M:%S", &tm))
        return deadline_in(SHORT_LIFE);
    int64_t left = ((int64_t)timegm(&tm) * 1000 - clock_wall_ms()) * NS_PER_MS;
    return deadline_in(left > 2 * EARLY ? left - EARLY : left / 2);
}

/* PEM text of a status as a file without a name. */
static int take_pem(const struct value *status, const char *key, char **path, struct error *err)
{
    const char *text = value_get_string(status, key, NULL);

    if (!text || !*text)
        return 0;
    free(*path);
    *path = k8s_text_file(text, key, err);
    return *path ? 0 : -1;
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
    if (take_pem(status, "clientCertificateData", &client->client_cert, err) < 0 ||
        take_pem(status, "clientKeyData", &client->client_key, err) < 0)
        return -1;
    return 0;
}
