/*
 * <service>.connect{ endpoint, auth, ... }: which server, and as whom.
 *
 * Address: the script's endpoint, else the service's usual variable, else the active profile, else
 * (profile local) the embedded service. Credentials: the script's, else the variables', else the
 * profile's. Credentials of variables and profile are the operator's: they go to an address that a
 * script named only when it is the operator's own.
 */
#include "service/client.h"

#include "base/mem.h"
#include "loop/http_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const struct service services[] = {
    /* https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html */
    {.name = "mlflow",
     .url = "MLFLOW_TRACKING_URI",
     .embedded = true,
     .token = "MLFLOW_TRACKING_TOKEN",
     .user = "MLFLOW_TRACKING_USERNAME",
     .password = "MLFLOW_TRACKING_PASSWORD",
     .insecure = "MLFLOW_TRACKING_INSECURE_TLS",
     .ca = "MLFLOW_TRACKING_SERVER_CERT_PATH",
     .client_cert = "MLFLOW_TRACKING_CLIENT_CERT_PATH",
     .experiment = "MLFLOW_EXPERIMENT_NAME",
     .header = "X-MLFLOW-WORKSPACE",
     .header_variable = "MLFLOW_WORKSPACE"},
    /* the SDK's own: kfp/client/client.py, kfp/client/set_volume_credentials.py */
    {.name = "kubeflow",
     .url = "KF_PIPELINES_ENDPOINT",
     .embedded = true,
     .token_file = "KF_PIPELINES_SA_TOKEN_PATH",
     .experiment = "KF_PIPELINES_DEFAULT_EXPERIMENT_NAME"},
    /* https://learn.microsoft.com/azure/devops/pipelines/build/variables; PAT: the Azure CLI
       extension's variable */
    {.name = "azdo",
     .url = "SYSTEM_COLLECTIONURI",
     .token = "SYSTEM_ACCESSTOKEN",
     .pat = "AZURE_DEVOPS_EXT_PAT|AZDO_PAT",
     .tenant = "AZURE_TENANT_ID|AZ_TENANT_ID|AZURESUBSCRIPTION_TENANT_ID",
     .client_id = "AZURE_CLIENT_ID|AZ_CLIENT_ID|AZURESUBSCRIPTION_CLIENT_ID",
     .client_secret = "AZURE_CLIENT_SECRET|AZ_CLIENT_SECRET",
     /* the application id of Azure DevOps itself, the same in every tenant */
     .scope = "499b84ac-1321-427f-aa17-267ca6975798/.default"},
    /* the names that Azure's own SDKs read (EnvironmentCredential) */
    {.name = "azureml",
     .default_url = "https://management.azure.com",
     .tenant = "AZURE_TENANT_ID|AZ_TENANT_ID",
     .client_id = "AZURE_CLIENT_ID|AZ_CLIENT_ID",
     .client_secret = "AZURE_CLIENT_SECRET|AZ_CLIENT_SECRET",
     .subscription = "AZURE_SUBSCRIPTION_ID|AZ_SUBSCRIPTION_ID",
     .scope = "https://management.azure.com/.default"},
    /* https://docs.databricks.com/dev-tools/auth: unified authentication's variables */
    {.name = "databricks", .url = "DATABRICKS_HOST", .token = "DATABRICKS_TOKEN"},
    /* where the profile has no url, a kubeconfig says it */
    {.name = "k8s", .embedded = true, .durable = true},
    {.name = "seldon",
     .url = "SELDON_INGRESS",
     .url_key = "ingress",
     .embedded = true,
     .durable = true},
};

const struct service *service_find(const char *name)
{
    for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++)
        if (strcmp(services[i].name, name) == 0)
            return &services[i];
    return NULL;
}

struct rest_client *rest_client_new(const struct service *service, const char *profile)
{
    struct rest_client *client = mem_alloc(sizeof(*client));

    client->service = service;
    client->profile = mem_strdup(profile);
    client->timeout_ns = 120 * NS_PER_S;
    pthread_mutex_init(&client->lock, NULL);
    return client;
}

struct kept {
    char *text;
    int fd;
};

void rest_client_keep(struct rest_client *client, char *text, int fd)
{
    client->kept = mem_array(client->kept, client->kept_count + 1, sizeof *client->kept);
    client->kept[client->kept_count++] = (struct kept){.text = text, .fd = fd};
}

void rest_client_free(void *object)
{
    struct rest_client *client = object;

    for (size_t i = 0; i < client->kept_count; i++) {
        free(client->kept[i].text);
        if (client->kept[i].fd >= 0)
            close(client->kept[i].fd);
    }
    free(client->kept);
    free(client->url);
    free(client->url_origin);
    free(client->unix_socket);
    free(client->shown_url);
    free(client->profile);
    free(client->host);
    free(client->ca);
    free(client->client_cert);
    free(client->client_key);
    free(client->proxy);
    free(client->proxy_host);
    free(client->tls_name);
    http_headers_free(&client->headers);
    auth_free(&client->auth);
    pthread_mutex_destroy(&client->lock);
    free(client);
}

struct rest_client *rest_client_arg(struct call *call, const struct value *args, struct error *err)
{
    return call_handle(call, value_get(args, "client"), "service", err);
}

const char *rest_client_url(const struct rest_client *client)
{
    return client->url;
}

/* ---- the address ---- */

/* http://host/path/ -> http://host/path; a bare host gets https. Allocated; NULL with an error for
 * other schemes. */
static char *normal_url(const char *text, const char *origin, struct error *err)
{
    size_t len = strlen(text);

    while (len && text[len - 1] == '/')
        len--;
    if (strncasecmp(text, "http://", 7) == 0 || strncasecmp(text, "https://", 8) == 0)
        return mem_strndup(text, len);
    if (len && !strchr(text, ':'))
        return mem_printf("https://%.*s", (int)len, text);
    if (len && !strstr(text, "://") && strchr(text, ':') &&
        strspn(strchr(text, ':') + 1, "0123456789/") > 0)
        return mem_printf("http://%.*s", (int)len, text);
    cleanup_buf struct buf shown = BUF_INIT;
    url_print_safe(text, &shown);
    error_set(err, ERR_INVALID, "%s: '%s' is not an http:// or https:// address", origin,
              shown.len ? shown.data : "");
    if (strncmp(text, "sqlite:", 7) == 0 || strncmp(text, "file:", 5) == 0 || *text == '/')
        error_hint(err,
                   "mlhost talks to a server: run `mlflow server --backend-store-uri %s`, or unset "
                   "%s to use the "
                   "embedded service",
                   text, origin);
    return NULL;
}

/* The address of what operator and environment say, without the script. NULL: not configured (err
 * untouched). */
static char *operator_url(const struct service *service, const struct service_target *target,
                          char **origin, bool *configured_badly, struct error *err)
{
    const char *text = variable(service->url);
    const char *from = service->url;
    const char *key = service->url_key ? service->url_key : "url";
    cleanup_free char *profile_key =
        mem_printf("profiles.%s.%s.%s", target->profile, service->name, key);

    *configured_badly = false;
    if (text && strcmp(text, "databricks") == 0 && variable("DATABRICKS_HOST")) {
        text = variable("DATABRICKS_HOST"); /* MLFLOW_TRACKING_URI=databricks */
        from = "DATABRICKS_HOST";
    }
    if (!text) {
        text = value_get_string(target->config, key, NULL);
        from = profile_key;
    }
    if (!text && service->default_url && (target->config || variable(service->client_secret))) {
        text = service->default_url;
        from = "the service's public address";
    }
    if (!text)
        return NULL;
    char *url = normal_url(text, from, err);
    *configured_badly = !url;
    if (url)
        *origin = mem_strdup(from);
    return url;
}

static int not_configured(const struct service *service, const struct service_target *target,
                          struct error *err)
{
    error_set(err, ERR_NOT_FOUND, "the service '%s' is not configured in the profile '%s'",
              service->name, target->profile);
    if (err)
        snprintf(err->service, sizeof(err->service), "%s", service->name);
    return error_hint(err, "add profiles.%s.%s.%s to mlhost.yaml%s%s%s", target->profile,
                      service->name, service->url_key ? service->url_key : "url",
                      service->url ? ", or set " : "", service->url ? service->url : "",
                      service->embedded ? ", or use the profile local" : "");
}

void rest_client_set_host(struct rest_client *client)
{
    CURLU *url = curl_url();
    char *host = NULL;
    char *port = NULL;

    if (url && curl_url_set(url, CURLUPART_URL, client->url, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK) {
        client->host = mem_strdup(host);
        client->port = atoi(port);
    }
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(url);
}

/* The embedded service: of this run, or the daemon's, which is started when nobody has yet. */
static int set_embedded(struct call *call, struct rest_client *client,
                        const struct service_target *target, struct error *err)
{
    client->url = mem_strdup("http://mlhost.local");
    client->url_origin = mem_strdup("the embedded service");
    client->trusted = true;
    if (client->service->durable)
        return call_daemon(call, &client->unix_socket, &client->shown_url, err);
    client->unix_socket = mem_strdup(target->unix_socket);
    return 0;
}

static int set_address(struct call *call, struct rest_client *client, const struct value *args,
                       const struct service_target *target, char **own_url, struct error *err)
{
    const char *asked = value_get_string(args, "endpoint", NULL);
    bool bad = false;
    cleanup_free char *origin = NULL;

    *own_url = operator_url(client->service, target, &origin, &bad, asked ? NULL : err);
    if (asked) {
        client->url = normal_url(asked, "endpoint", err);
        client->url_origin = mem_strdup("the script");
        client->trusted = *own_url && client->url && url_same_origin(*own_url, client->url);
        if (!client->url)
            return -1;
    } else if (bad) {
        return -1;
    } else if (*own_url) {
        client->url = mem_strdup(*own_url);
        client->url_origin = steal_ptr(&origin);
        client->trusted = true;
    } else if (client->service->embedded && target->unix_socket) {
        if (set_embedded(call, client, target, err) < 0)
            return -1;
    } else {
        return not_configured(client->service, target, err);
    }
    rest_client_set_host(client);
    return 0;
}

/* ---- credentials, TLS, the rest ---- */

int rest_client_own_auth(struct call *call, struct rest_client *client, const struct value *args,
                         bool *given, struct error *err)
{
    const struct value *asked = value_get(args, "auth");
    const struct value *token = value_get(args, "token");

    *given = true;
    if (asked && asked->kind == VALUE_MAP)
        return auth_from_value(call, asked, true, &client->auth, err);
    if (token && token->kind != VALUE_NIL) {
        size_t len;
        const char *bytes = call_secret(call, token, &len, err);
        if (!bytes)
            return -1;
        client->auth = (struct auth){
            .kind = AUTH_BEARER, .token = mem_strndup(bytes, len), .origin = "the script's token"};
        return 0;
    }
    *given = false;
    return 0;
}

static int set_auth(struct call *call, struct rest_client *client, const struct value *args,
                    const struct service_target *target, struct error *err)
{
    bool given;

    if (rest_client_own_auth(call, client, args, &given, err) != 0)
        return -1;
    if (given)
        return 0;
    if (!client->trusted || client->unix_socket)
        return 0;
    if (auth_from_variables(call, client->service, &client->auth, err) != 0)
        return -1;
    if (client->auth.kind == AUTH_NONE && value_get(target->config, "auth"))
        return auth_from_value(call, value_get(target->config, "auth"), false, &client->auth, err);
    return 0;
}

static bool truth(const char *text)
{
    return text && (strcasecmp(text, "true") == 0 || strcmp(text, "1") == 0);
}

/* A path of the profile, relative to the workspace. */
static char *profile_path(struct call *call, const struct value *config, const char *key)
{
    const char *text = value_get_string(config, key, NULL);

    return text ? path_join(call_workspace(call), text) : NULL;
}

static int set_transport(struct call *call, struct rest_client *client,
                         const struct service_target *target, struct error *err)
{
    const struct service *service = client->service;
    const struct value *config = client->trusted ? target->config : NULL;
    const struct value *headers = value_get(config, "headers");
    const char *timeout = value_get_string(config, "timeout", NULL);

    client->timeout_ns = 120 * NS_PER_S;
    if (timeout && duration_parse(timeout, &client->timeout_ns, err) != 0)
        return error_wrap(err, "profiles.%s.%s.timeout", target->profile, service->name);
    if (!client->trusted)
        return 0;
    client->ca = variable(service->ca) ? mem_strdup(variable(service->ca))
                                       : profile_path(call, config, "ca");
    client->client_cert = variable(service->client_cert)
                              ? mem_strdup(variable(service->client_cert))
                              : profile_path(call, config, "client_cert");
    client->client_key = profile_path(call, config, "client_key");
    client->insecure =
        truth(variable(service->insecure)) || value_get_bool(config, "insecure", false);
    client->proxy = mem_strdup(value_get_string(config, "proxy", NULL));
    if (variable(service->header_variable))
        http_header_add(&client->headers, service->header, variable(service->header_variable));
    for (size_t i = 0; headers && headers->kind == VALUE_MAP && i < value_count(headers); i++) {
        struct error problem = {0};
        cleanup_free char *text =
            call_config_text(call, &headers->as.map.pairs[i].value, false, &problem);
        if (!text && problem.code) {
            if (err)
                *err = problem;
            return error_wrap(err, "profiles.%s.%s.headers.%s", target->profile, service->name,
                              headers->as.map.pairs[i].key);
        }
        if (text)
            http_header_add(&client->headers, headers->as.map.pairs[i].key, text);
    }
    return 0;
}

/* What a script may know: names, never credentials. */
static void describe(struct call *call, const struct rest_client *client,
                     const struct service_target *target, struct value *out)
{
    static const char *const names[] = {
        "namespace", "experiment", "organization", "project", "subscription", "resource_group",
        "workspace", "repository", "gateway",      "host",    "context"};
    cleanup_buf struct buf url = BUF_INIT;

    url_print_safe(client->shown_url ? client->shown_url : client->url, &url);
    value_put_string(out, "url", url.data);
    value_put_string(out, "origin", client->url_origin);
    value_put_string(out, "profile", client->profile);
    value_put_bool(out, "embedded", client->unix_socket != NULL);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct value *v = value_get(target->config, names[i]);
        cleanup_free char *text = v ? call_config_text(call, v, false, NULL) : NULL;
        value_put_string(out, names[i], text);
    }
    if (value_get(target->config, "namespaces"))
        value_copy(value_put(out, "namespaces"), value_get(target->config, "namespaces"));
    if (!value_get(out, "subscription"))
        value_put_string(out, "subscription", variable(client->service->subscription));
    if (!value_get(out, "experiment"))
        value_put_string(out, "experiment", variable(client->service->experiment));
}

void rest_client_give(struct call *call, struct rest_client *client,
                      const struct service_target *target, struct value *out)
{
    value_set_map(out);
    describe(call, client, target, out);
    call_handle_new(call, "service", client, rest_client_free, value_put(out, "client"));
}

/*
 * <service>.connect(endpoint?, auth?, token?) -> { client, url, origin, profile, embedded,
 * namespace, ... }
 *
 *   endpoint  string        base URL; a host that is not the operator's needs the permission net
 * and own credentials auth      map           { type = "none" | "bearer" | "basic" | "azure_ad" |
 * "header", ... } token     secret        short for auth = { type = "bearer", token = ... } returns
 * map           client: the handle that the service's other primitives take errors    not_found
 * (not configured), invalid (the configuration), denied
 */
int prim_service_connect(struct call *call, const struct value *args, struct value *out,
                         struct error *err)
{
    const struct service *service = service_find(call->row->data);
    struct service_target target = {0};
    cleanup_free char *own_url = NULL;

    call_service(call, service->name, &target);
    struct rest_client *client = rest_client_new(service, target.profile);
    if (set_address(call, client, args, &target, &own_url, err) != 0 ||
        set_auth(call, client, args, &target, err) != 0 ||
        set_transport(call, client, &target, err) != 0) {
        rest_client_free(client);
        error_wrap(err, "%s.connect", service->name);
        if (err)
            snprintf(err->service, sizeof(err->service), "%s", service->name);
        return -1;
    }
    rest_client_give(call, client, &target, out);
    return 0;
}

/* service.configured(service) -> bool: would <service>.connect() without arguments find
 * an address? */
int prim_service_configured(struct call *call, const struct value *args, struct value *out,
                            struct error *err)
{
    const char *name = value_get_string(args, "service", "");
    const struct service *service = service_find(name);
    struct service_target target = {0};

    if (!service)
        return error_set(
            err, ERR_USAGE,
            "unknown service '%s': mlflow, kubeflow, azdo, azureml, databricks, k8s or seldon",
            name);
    call_service(call, name, &target);
    value_set_bool(
        out,
        variable(service->url) ||
            value_get_string(target.config, service->url_key ? service->url_key : "url", NULL) ||
            (service->default_url && (target.config || variable(service->client_secret))) ||
            (service->embedded && target.unix_socket));
    return 0;
}

/*
 * <service>.token(client, scope?) -> { token = secret }: the bearer token that requests carry, for
 * another program.
 *
 *   scope  string  with auth of type azure_ad: a token for another resource, by the same
 * credentials
 */
int prim_service_token(struct call *call, const struct value *args, struct value *out,
                       struct error *err)
{
    struct rest_client *client = rest_client_arg(call, args, err);

    if (!client)
        return -1;
    cleanup_free char *token =
        auth_token(call, client, value_get_string(args, "scope", NULL), false, err);
    if (!token)
        return error_wrap(err, "%s", call->row->sign.name);
    value_set_map(out);
    call_secret_new(call, token, strlen(token), value_put(out, "token"));
    return 0;
}
