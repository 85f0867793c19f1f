#include "service/k8s_config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <curl/curl.h>
#include <openssl/evp.h>

#include "base/config.h"
#include "base/mem.h"

#define CONFIG_LIMIT (4u << 20)
#define CA_LIMIT     (1u << 20)
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
    cleanup_value struct value seen = {0}; /* map: name -> true */

    value_set_map(&seen);
    for (size_t i = 0; i < value_count(to); i++)
        value_put_bool(&seen, value_get_string(value_at(to, i), "name", ""), true);
    for (size_t i = 0; i < value_count(from); i++) {
        const struct value *entry = value_at(from, i);
        const char *name = value_get_string(entry, "name", "");
        if (value_get(&seen, name))
            continue;
        value_put_bool(&seen, name, true);
        struct value *added = value_push(to);
        value_copy(added, entry);
        struct value *body = value_get(added, inner);
        if (body)
            absolute(body, folder);
    }
}

static int merge_file(const char *path, bool from_script, struct value *out, struct error *err)
{
    static const char *const inner[] = {"cluster", "user", "context"};
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value doc = {0};
    cleanup_free char *folder = mem_strdup(path);
    char *slash = strrchr(folder, '/');

    int rc = from_script ? call_read(path, CONFIG_LIMIT, &text, err)
                         : file_read(AT_FDCWD, path, CONFIG_LIMIT, &text, err);
    if (rc < 0)
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

int k8s_config_load(const char *paths, bool from_script, struct value *out, struct error *err)
{
    int found = 0;

    value_set_map(out);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        value_set_array(value_put(out, lists[i]));
    /* A script's is one path, and was looked at as one. */
    for (const char *at = paths; *at; at += *at == ':') {
        size_t len = from_script ? strlen(at) : strcspn(at, ":");
        cleanup_free char *path = mem_strndup(at, len);
        struct error problem = {0};
        at += len;
        if (!len)
            continue;
        if (merge_file(path, from_script, out, &problem) == 0) {
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

char *k8s_text_file(struct rest_client *client, const void *bytes, size_t len, const char *what,
                    struct error *err)
{
    int fd = memfd_create("kubeconfig", MFD_CLOEXEC);

    if (fd < 0) {
        error_errno(err, errno, "memory for %s", what);
        return NULL;
    }
    rest_client_keep(client, NULL, fd);
    if (fd_write_all(fd, bytes, len, err) < 0) {
        error_wrap(err, "memory for %s", what);
        return NULL;
    }
    return mem_printf("/proc/self/fd/%d", fd);
}

unsigned char *k8s_base64_decode(const char *text, size_t *out_len)
{
    size_t len = 0, padding = 0;
    cleanup_free char *plain = mem_alloc(strlen(text) + 1);

    for (const char *at = text; *at; at++) { /* broken into lines, as block scalars have it */
        if (*at != '\n' && *at != '\r')
            plain[len++] = *at;
    }
    while (padding < 2 && padding < len && plain[len - 1 - padding] == '=')
        padding++;
    /* EVP_DecodeBlock skips blanks at the ends, and takes '=' for a zero wherever it stands. */
    if (len == 0 || len % 4 || len > INT_MAX || strcspn(plain, " \t=") != len - padding)
        return NULL;
    unsigned char *bytes = mem_alloc(len / 4 * 3 + 1);
    int decoded = EVP_DecodeBlock(bytes, (const unsigned char *)plain, (int)len);
    explicit_bzero(plain, len);
    if (decoded < (int)padding) {
        free(bytes);
        return NULL;
    }
    *out_len = (size_t)decoded - padding;
    return bytes;
}

static char *data_file(struct rest_client *client, const char *base64, const char *what,
                       struct error *err)
{
    size_t len;
    cleanup_free unsigned char *bytes = k8s_base64_decode(base64, &len);

    if (!bytes) {
        error_set(err, ERR_INVALID, "%s of the kubeconfig is no base64", what);
        return NULL;
    }
    char *path = k8s_text_file(client, bytes, len, what, err);
    explicit_bzero(bytes, len);
    return path;
}

/* ---- one context ---- */

/* Whom it is for. What a script's own kubeconfig says is the script's word: it needs permissions.
 */
struct use {
    struct call *call;
    struct rest_client *client;
    bool from_script;
};

/* A file that the kubeconfig names; *out stays NULL when it names none. */
static int named_file(const struct use *use, const struct value *from, const char *key, char **out,
                      struct error *err)
{
    const char *path = value_get_string(from, key, NULL);

    if (!path || !*path)
        return 0;
    *out = use->from_script ? call_path(use->call, path, ACCESS_READ, err) : mem_strdup(path);
    return *out ? 0 : error_wrap(err, "%s of the kubeconfig", key);
}

/* Of a script's kubeconfig: as it is now, so that no link can take the file's place before curl
 * opens it. */
static int script_file(const struct use *use, const struct value *from, const char *key, char **out,
                       struct error *err)
{
    cleanup_free char *path = NULL;
    cleanup_buf struct buf bytes = BUF_INIT;

    if (named_file(use, from, key, &path, err) < 0)
        return -1;
    if (!path)
        return 0;
    if (call_read(path, CA_LIMIT, &bytes, err) < 0)
        return error_wrap(err, "%s of the kubeconfig", key);
    *out = k8s_text_file(use->client, bytes.data ? bytes.data : "", bytes.len, key, err);
    return *out ? 0 : -1;
}

/* KEY-data before KEY, as kubectl has it. */
static int material(const struct use *use, const struct value *from, const char *key, char **out,
                    struct error *err)
{
    cleanup_free char *data_key = mem_printf("%s-data", key);
    const char *data = value_get_string(from, data_key, NULL);

    if (!data || !*data)
        return use->from_script ? script_file(use, from, key, out, err)
                                : named_file(use, from, key, out, err);
    *out = data_file(use->client, data, data_key, err);
    return *out ? 0 : -1;
}

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

/* A proxy sees where the requests go, and all of them when there is no TLS. */
static int allow_proxy(struct call *call, struct rest_client *client, struct error *err)
{
    CURLU *url = curl_url();
    char *host = NULL, *port = NULL;
    int rc = -1;

    /* Without a port curl takes one by the kind of the proxy: what is checked must be what is
     * used. */
    if (url &&
        curl_url_set(url, CURLUPART_URL, client->proxy,
                     CURLU_NON_SUPPORT_SCHEME | CURLU_GUESS_SCHEME) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_PORT, &port, 0) == CURLUE_OK)
        rc = call_allow_net(call, host, atoi(port), err);
    else
        error_set(err, ERR_INVALID, "it is not of the form http://host:port");
    if (rc == 0) {
        client->proxy_host = mem_strdup(host);
        client->proxy_port = atoi(port);
    }
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(url);
    return rc < 0 ? error_wrap(err, "proxy-url of the kubeconfig") : 0;
}

static int use_cluster(const struct use *use, const struct value *cluster, struct error *err)
{
    struct rest_client *client = use->client;
    const char *server = value_get_string(cluster, "server", NULL);
    size_t scheme = !server                               ? 0
                    : strncmp(server, "https://", 8) == 0 ? 8
                    : strncmp(server, "http://", 7) == 0  ? 7
                                                          : 0;

    if (!scheme || !server[scheme] || server[scheme] == '/')
        return error_set(err, ERR_INVALID, "the cluster's server is '%s', no http(s) address",
                         server ? server : "");
    free(client->url);
    client->url = mem_strdup(server);
    for (size_t len = strlen(client->url); len && client->url[len - 1] == '/';)
        client->url[--len] = '\0';
    rest_client_set_host(client);
    if (!client->host)
        return error_set(err, ERR_INVALID, "the cluster's server '%s' names no host", server);
    client->insecure = value_get_bool(cluster, "insecure-skip-tls-verify", false);
    client->proxy = mem_strdup(value_get_string(cluster, "proxy-url", NULL));
    client->tls_name = mem_strdup(value_get_string(cluster, "tls-server-name", NULL));
    if (use->from_script && (call_allow_net(use->call, client->host, client->port, err) < 0 ||
                             (client->proxy && allow_proxy(use->call, client, err) < 0)))
        return -1;
    return material(use, cluster, "certificate-authority", &client->ca, err);
}

/* spec.cluster of what a plugin is told. The CA's bytes are in it, wherever the kubeconfig has
 * them. */
static int cluster_info(const struct value *cluster, const char *ca, struct value *out,
                        struct error *err)
{
    static const char *const same[] = {"server", "tls-server-name", "insecure-skip-tls-verify",
                                       "proxy-url"};
    const struct value *extension =
        named(value_get(cluster, "extensions"), "client.authentication.k8s.io/exec");
    cleanup_buf struct buf bytes = BUF_INIT;

    value_set_map(out);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        if (value_get(cluster, same[i]))
            value_copy(value_put(out, same[i]), value_get(cluster, same[i]));
    }
    if (value_get(extension, "extension"))
        value_copy(value_put(out, "config"), value_get(extension, "extension"));
    if (!ca)
        return 0;
    if (file_read(AT_FDCWD, ca, CA_LIMIT, &bytes, err) < 0)
        return error_wrap(err, "certificate-authority of the kubeconfig");
    cleanup_free unsigned char *text = mem_alloc(4 * ((bytes.len + 2) / 3) + 1);
    EVP_EncodeBlock(text, (const unsigned char *)(bytes.len ? bytes.data : ""), (int)bytes.len);
    value_put_string(out, "certificate-authority-data", (const char *)text);
    return 0;
}

static int use_plugin(const struct use *use, const struct value *cluster, const struct value *exec,
                      struct error *err)
{
    struct auth *auth = &use->client->auth;

    auth->kind = AUTH_EXEC;
    auth->exec = mem_alloc(sizeof *auth->exec);
    value_copy(auth->exec, exec);
    if (auth->exec->kind != VALUE_MAP)
        return error_set(err, ERR_INVALID, "user.exec of the kubeconfig is no map");
    value_remove(auth->exec, "cluster");
    if (value_get_bool(exec, "provideClusterInfo", false) &&
        cluster_info(cluster, use->client->ca, value_put(auth->exec, "cluster"), err) < 0)
        return -1;
    return k8s_exec_credential(use->call, use->client, err);
}

static int use_user(const struct use *use, const struct value *cluster, const struct value *user,
                    struct error *err)
{
    struct auth *auth = &use->client->auth;
    const char *token = value_get_string(user, "token", NULL);
    const char *file = value_get_string(user, "tokenFile", NULL);
    const char *name = value_get_string(user, "username", NULL);

    if (material(use, user, "client-certificate", &use->client->client_cert, err) < 0 ||
        material(use, user, "client-key", &use->client->client_key, err) < 0)
        return -1;
    if (value_get(user, "auth-provider")) {
        error_set(err, ERR_UNSUPPORTED,
                  "auth-provider of a kubeconfig is gone from Kubernetes since 1.26");
        return error_hint(err, "use a credential plugin: kubelogin convert-kubeconfig, or `user: "
                               "{ exec: ... }`");
    }
    if (file && *file) { /* read anew for each request; it wins over `token` */
        auth->kind = AUTH_BEARER;
        return named_file(use, user, "tokenFile", &auth->token_file, err);
    }
    if (token && *token) {
        auth->kind = AUTH_BEARER;
        auth->token = secret_copy(use->call, token);
    } else if (name && *name) {
        auth->kind = AUTH_BASIC;
        auth->user = mem_strdup(name);
        auth->password = secret_copy(use->call, value_get_string(user, "password", ""));
    } else if (value_get(user, "exec")) {
        return use_plugin(use, cluster, value_get(user, "exec"), err);
    }
    return 0;
}

int k8s_config_use(struct call *call, const struct value *config, const char *context,
                   bool from_script, bool own_auth, struct rest_client *client, char **namespace,
                   struct error *err)
{
    const struct use use = {.call = call, .client = client, .from_script = from_script};
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
    cluster = value_get(cluster, "cluster");
    if (use_cluster(&use, cluster, err) < 0)
        return -1;
    if (!user || own_auth)
        return 0;
    char *origin = mem_printf("the kubeconfig's user '%s'", user_name);
    rest_client_keep(client, origin, -1);
    client->auth = (struct auth){.origin = origin, .from_script = from_script};
    return use_user(&use, cluster, value_get(user, "user"), err);
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
