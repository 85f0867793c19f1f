#include "service/k8s_config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/config.h"
#include "base/mem.h"

#define CONFIG_LIMIT (4u << 20)
#define ACCOUNT      "/var/run/secrets/kubernetes.io/serviceaccount"

/* ---- reading and merging ---- */

static const char *const lists[] = {"clusters", "users", "contexts"};
/* Keys of a cluster or user that name a file, relative to the kubeconfig. */
static const char *const file_keys[] = {"certificate-authority", "client-certificate", "client-key",
                                        "tokenFile"};

static const struct value *named(const struct value *list, const char *name)
{
    for (size_t i = 0; i < value_count(list); i++) {
        if (strcmp(value_get_string(value_at(list, i), "name", ""), name) == 0)
            return value_at(list, i);
    }
    return NULL;
}

static void absolute(struct value *entry, const char *folder)
{
    for (size_t i = 0; i < sizeof file_keys / sizeof *file_keys; i++) {
        const char *path = value_get_string(entry, file_keys[i], NULL);
        if (path && *path && *path != '/') {
            cleanup_free char *whole = path_join(folder, path);
            value_put_string(entry, file_keys[i], whole);
        }
    }
    /* A plugin beside the kubeconfig: "./login"; a bare name is looked for in PATH. */
    struct value *exec = value_get(entry, "exec");
    const char *command = value_get_string(exec, "command", NULL);
    if (command && *command != '/' && strchr(command, '/')) {
        cleanup_free char *whole = path_join(folder, command);
        value_put_string(exec, "command", whole);
    }
}

static void merge_list(struct value *to, const struct value *from, const char *inner,
                       const char *folder)
{
    for (size_t i = 0; i < value_count(from); i++) {
        const struct value *entry = value_at(from, i);
        if (named(to, value_get_string(entry, "name", "")))
            continue;
        struct value *added = value_push(to);
        value_copy(added, entry);
        struct value *body = value_get(added, inner);
        if (body)
            absolute(body, folder);
    }
}

static int merge_file(const char *path, struct value *out, struct error *err)
{
    static const char *const inner[] = {"cluster", "user", "context"};
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value doc = {0};
    cleanup_free char *folder = mem_strdup(path);
    char *slash = strrchr(folder, '/');

    if (file_read(AT_FDCWD, path, CONFIG_LIMIT, &text, err) < 0)
        return -1;
    if (!text.len)
        return 0;
    if (value_from_yaml(text.data, text.len, path, NULL, false, &doc, err) < 0)
        return -1;
    if (doc.kind == VALUE_NIL)
        return 0;
    if (doc.kind != VALUE_MAP || strcmp(value_get_string(&doc, "kind", "Config"), "Config") != 0) {
        error_set(err, ERR_INVALID, "%s is no kubeconfig", path);
        return error_hint(err, "kind: Config, with clusters, users and contexts, is needed");
    }
    if (slash)
        *slash = '\0';
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        const struct value *list = value_get(&doc, lists[i]);
        if (list && list->kind != VALUE_ARRAY && list->kind != VALUE_NIL)
            return error_set(err, ERR_INVALID, "%s: %s must be a list, not %s", path, lists[i],
                             value_kind_name(list));
        merge_list(value_get(out, lists[i]), list, inner[i], slash ? folder : ".");
    }
    const char *current = value_get_string(&doc, "current-context", "");
    if (*current && !value_get(out, "current-context"))
        value_put_string(out, "current-context", current);
    return 0;
}

int k8s_config_load(const char *paths, struct value *out, struct error *err)
{
    int found = 0;

    value_set_map(out);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        value_set_array(value_put(out, lists[i]));
    for (const char *at = paths; *at; at += *at == ':') {
        size_t len = strcspn(at, ":");
        cleanup_free char *path = mem_strndup(at, len);
        struct error problem = {0};
        at += len;
        if (!len)
            continue;
        if (merge_file(path, out, &problem) == 0) {
            found++;
        } else if (problem.code != ERR_NOT_FOUND) {
            *err = problem;
            return -1;
        }
    }
    if (found)
        return 0;
    error_set(err, ERR_NOT_FOUND, "there is no kubeconfig at %s", paths);
    return error_hint(err, "set KUBECONFIG, or profiles.<name>.k8s.kubeconfig in mlhost.yaml");
}

/* ---- data that stands in the file itself ---- */

static char *nameless_file(const void *bytes, size_t len, const char *what, struct error *err)
{
    int fd = memfd_create("kubeconfig", MFD_CLOEXEC);

    if (fd < 0 || fd_write_all(fd, bytes, len, err) < 0) {
        error_errno(err, errno, "memory for %s", what);
        return NULL;
    }
    return mem_printf("/proc/self/fd/%d", fd);
}

char *k8s_text_file(const char *text, const char *what, struct error *err)
{
    return nameless_file(text, strlen(text), what, err);
}

char *k8s_data_file(const char *base64, const char *what, struct error *err)
{
    size_t len = strlen(base64);
    cleanup_free unsigned char *bytes = mem_alloc(len / 4 * 3 + 4);
    int decoded = EVP_DecodeBlock(bytes, (const unsigned char *)base64, (int)len);
    size_t padding = len > 1 && base64[len - 1] == '=' ? 1 + (base64[len - 2] == '=') : 0;

    if (decoded < (int)padding || len % 4) {
        error_set(err, ERR_INVALID, "%s of the kubeconfig is no base64", what);
        return NULL;
    }
    char *path = nameless_file(bytes, (size_t)decoded - padding, what, err);
    explicit_bzero(bytes, (size_t)decoded);
    return path;
}

/* KEY-data before KEY, as kubectl has it. */
static int material(const struct value *from, const char *key, char **out, struct error *err)
{
    cleanup_free char *data_key = mem_printf("%s-data", key);
    const char *data = value_get_string(from, data_key, NULL);

    free(*out);
    *out = NULL;
    if (data && *data) {
        *out = k8s_data_file(data, data_key, err);
        return *out ? 0 : -1;
    }
    *out = mem_strdup(value_get_string(from, key, NULL));
    return 0;
}

/* ---- one context ---- */

static int missing(const char *what, const char *name, const struct value *list, struct error *err)
{
    const char *names[64];
    cleanup_buf struct buf known = BUF_INIT;
    size_t count = 0;

    for (size_t i = 0; i < value_count(list) && count < 64; i++) {
        names[count] = value_get_string(value_at(list, i), "name", "");
        buf_printf(&known, "%s%s", count ? ", " : "", names[count]);
        count++;
    }
    const char *near = near_miss(name, names, count);
    error_set(err, ERR_NOT_FOUND, "the kubeconfig has no %s '%s'", what, name);
    if (near)
        return error_hint(err, "did you mean '%s'? It has %s", near, known.data);
    return error_hint(err, "it has %s", known.len ? known.data : "none");
}

static int use_cluster(const struct value *cluster, struct rest_client *client, struct error *err)
{
    const char *server = value_get_string(cluster, "server", NULL);

    if (!server || (strncmp(server, "https://", 8) != 0 && strncmp(server, "http://", 7) != 0))
        return error_set(err, ERR_INVALID, "the cluster's server is '%s', no http(s) address",
                         server ? server : "");
    free(client->url);
    client->url = mem_strdup(server);
    for (size_t len = strlen(client->url); len && client->url[len - 1] == '/';)
        client->url[--len] = '\0';
    client->insecure = value_get_bool(cluster, "insecure-skip-tls-verify", false);
    client->proxy = mem_strdup(value_get_string(cluster, "proxy-url", NULL));
    client->tls_name = mem_strdup(value_get_string(cluster, "tls-server-name", NULL));
    return material(cluster, "certificate-authority", &client->ca, err);
}

static int use_user(struct call *call, const struct value *user, struct rest_client *client,
                    struct error *err)
{
    struct auth *auth = &client->auth;
    const char *token = value_get_string(user, "token", NULL);
    const char *file = value_get_string(user, "tokenFile", NULL);
    const char *name = value_get_string(user, "username", NULL);

    *auth = (struct auth){.origin = "the kubeconfig"};
    if (material(user, "client-certificate", &client->client_cert, err) < 0 ||
        material(user, "client-key", &client->client_key, err) < 0)
        return -1;
    if (value_get(user, "auth-provider")) {
        error_set(err, ERR_UNSUPPORTED,
                  "auth-provider of a kubeconfig is gone from Kubernetes since 1.26");
        return error_hint(err, "use a credential plugin: kubelogin convert-kubeconfig, or `user: "
                               "{ exec: ... }`");
    }
    if (file && *file) { /* read anew for each request; it wins over `token` */
        auth->kind = AUTH_BEARER;
        auth->token_file = mem_strdup(file);
    } else if (token && *token) {
        auth->kind = AUTH_BEARER;
        auth->token = secret_copy(call, token);
    } else if (name && *name) {
        auth->kind = AUTH_BASIC;
        auth->user = mem_strdup(name);
        auth->password = secret_copy(call, value_get_string(user, "password", ""));
    } else if (value_get(user, "exec")) {
        auth->kind = AUTH_EXEC;
        auth->exec = mem_alloc(sizeof *auth->exec);
        value_copy(auth->exec, value_get(user, "exec"));
        return k8s_exec_credential(call, client, err);
    }
    return 0;
}

int k8s_config_use(struct call *call, const struct value *config, const char *context,
                   struct rest_client *client, char **namespace, struct error *err)
{
    const char *name = context ? context : value_get_string(config, "current-context", NULL);

    if (!name) {
        error_set(err, ERR_INVALID, "the kubeconfig has no current-context");
        return error_hint(err,
                          "kubectl config use-context NAME, or k8s.connect { context = NAME }");
    }
    const struct value *chosen = named(value_get(config, "contexts"), name);
    if (!chosen)
        return missing("context", name, value_get(config, "contexts"), err);
    const struct value *inner = value_get(chosen, "context");
    const char *cluster_name = value_get_string(inner, "cluster", "");
    const char *user_name = value_get_string(inner, "user", "");
    const struct value *cluster = named(value_get(config, "clusters"), cluster_name);
    const struct value *user = named(value_get(config, "users"), user_name);
    if (!cluster)
        return missing("cluster", cluster_name, value_get(config, "clusters"), err);
    if (!user && *user_name)
        return missing("user", user_name, value_get(config, "users"), err);
    *namespace = mem_strdup(value_get_string(inner, "namespace", NULL));
    if (use_cluster(value_get(cluster, "cluster"), client, err) < 0)
        return -1;
    return user ? use_user(call, value_get(user, "user"), client, err) : 0;
}

/* https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/ */
bool k8s_in_cluster(struct rest_client *client, char **namespace)
{
    const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
    cleanup_buf struct buf text = BUF_INIT;
    struct error ignored = {0};

    if (!host || !*host || !port || !*port || access(ACCOUNT "/token", R_OK) < 0)
        return false;
    free(client->url);
    client->url = strchr(host, ':') ? mem_printf("https://[%s]:%s", host, port)
                                    : mem_printf("https://%s:%s", host, port);
    client->ca = mem_strdup(ACCOUNT "/ca.crt");
    client->auth = (struct auth){.kind = AUTH_BEARER,
                                 .token_file = mem_strdup(ACCOUNT "/token"),
                                 .origin = "the pod's service account"};
    if (file_read(AT_FDCWD, ACCOUNT "/namespace", 4096, &text, &ignored) == 0 && text.len)
        *namespace = mem_strndup(text.data, strcspn(text.data, "\r\n"));
    return true;
}
