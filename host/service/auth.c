/* Credentials: from a profile, from the usual variables, from a script; and the header that comes
 * of them. */
#include "service/client.h"
#include "service/k8s_config.h"

#include "base/environment.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_FILE_LIMIT (1u << 20)
/* Set by the workload identity webhook of AKS, and by the AzureCLI task of Azure DevOps. */
#define AZURE_FEDERATED_FILE "AZURE_FEDERATED_TOKEN_FILE"
#define AZURE_CONNECTION     "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID"

const char *variable(const char *name)
{
    char one[64];

    for (const char *at = name; at && *at;) {
        size_t len = strcspn(at, "|");
        snprintf(one, sizeof(one), "%.*s", (int)len, at);
        const char *text = environment_get(one, NULL);
        if (text && *text)
            return text;
        at += len + (at[len] == '|');
    }
    return NULL;
}

void auth_free(struct auth *auth)
{
    free(auth->token);
    free(auth->token_file);
    free(auth->user);
    free(auth->password);
    free(auth->tenant);
    free(auth->client_id);
    free(auth->client_secret);
    free(auth->service_connection);
    free(auth->scope);
    free(auth->authority);
    free(auth->name);
    free(auth->cached);
    if (auth->exec)
        value_free(auth->exec);
    free(auth->exec);
    *auth = (struct auth){0};
}

/* Makes bytes a secret that is masked from now on; the handle is of no use here. */
static void mask(struct call *call, const char *text)
{
    struct value handle = {0};

    call_secret_new(call, text, strlen(text), &handle);
    value_free(&handle);
}

char *secret_copy(struct call *call, const char *text)
{
    mask(call, text);
    return mem_strdup(text);
}

/* One field of an auth map. NULL with err->code untouched when absent. */
static int field(struct call *call, const struct value *map, const char *key, bool secret,
                 bool from_script, char **out, struct error *err)
{
    const struct value *v = value_get(map, key);
    struct error problem = {0};

    if (!v || v->kind == VALUE_NIL)
        return 0;
    if (!from_script) {
        *out = call_config_text(call, v, secret, &problem);
        if (!*out && problem.code) {
            if (err)
                *err = problem;
            return error_wrap(err, "auth.%s", key);
        }
        return 0;
    }
    if (secret || v->kind == VALUE_HANDLE) {
        size_t len;
        const char *bytes = call_secret(call, v, &len, err);
        if (!bytes)
            return error_wrap(err, "auth.%s", key);
        *out = mem_strndup(bytes, len);
        if (secret)
            mask(call, *out);
        return 0;
    }
    if (v->kind != VALUE_STRING) {
        error_set(err, ERR_USAGE, "auth.%s must be a string or a secret, not %s", key,
                  value_kind_name(v));
        return error_hint(err, "secret.get \"NAME\" makes a secret of an environment variable");
    }
    *out = mem_strdup(v->as.string.data);
    return 0;
}

static int need(const char *type, const char *key, const void *have, struct error *err)
{
    return have ? 0 : error_set(err, ERR_INVALID, "auth of type %s needs '%s'", type, key);
}

/*
 * Where a workload's assertion comes from: `token_file`, a service connection on an agent, or (AKS)
 * the file that the workload identity webhook mounts. Tenant and client id default to the variables
 * that the same webhook and the AzureCLI task set.
 */
static int workload_identity(struct call *call, const struct value *map, struct auth *out,
                             struct error *err)
{
    const char *path = value_get_string(map, "token_file", NULL);
    const char *federated = variable(AZURE_FEDERATED_FILE);

    out->kind = AUTH_WORKLOAD_IDENTITY;
    if (field(call, map, "service_connection", false, out->from_script, &out->service_connection,
              err) != 0)
        return -1;
    if (path && out->service_connection)
        return error_set(err, ERR_INVALID,
                         "auth of type workload_identity has 'token_file' and "
                         "'service_connection'; it takes one of them");
    if (out->from_script && !path) {
        error_set(err, ERR_DENIED, "a script's workload_identity needs 'token_file'");
        return error_hint(err, "the operator's identity is for mlhost.yaml: put the auth there");
    }
    if (path)
        out->token_file = out->from_script ? call_path(call, path, ACCESS_READ, err)
                                           : path_join(call_workspace(call), path);
    if (path && !out->token_file)
        return -1;
    if (!path && !out->service_connection && federated)
        out->token_file = mem_strdup(federated);
    else if (!path && !out->service_connection)
        out->service_connection = mem_strdup(variable(AZURE_CONNECTION));
    if (!out->token_file && !out->service_connection) {
        error_set(err, ERR_INVALID, "auth of type workload_identity has no source of assertions");
        return error_hint(err, "give 'service_connection' (the connection's id, on an Azure DevOps "
                               "agent) or 'token_file', or set " AZURE_FEDERATED_FILE);
    }
    if (!out->from_script && !out->tenant)
        out->tenant = mem_strdup(variable("AZURE_TENANT_ID|AZURESUBSCRIPTION_TENANT_ID"));
    if (!out->from_script && !out->client_id)
        out->client_id = mem_strdup(variable("AZURE_CLIENT_ID|AZURESUBSCRIPTION_CLIENT_ID"));
    if (!out->from_script && !out->authority)
        out->authority = mem_strdup(variable("AZURE_AUTHORITY_HOST"));
    if (need("workload_identity", "tenant", out->tenant, err) != 0 ||
        need("workload_identity", "client_id", out->client_id, err) != 0 ||
        need("workload_identity", "scope", out->scope, err) != 0)
        return -1;
    return 0;
}

int auth_from_value(struct call *call, const struct value *map, bool from_script, struct auth *out,
                    struct error *err)
{
    const char *type = value_get_string(map, "type", value_get(map, "token") ? "bearer" : NULL);

    *out = (struct auth){.from_script = from_script,
                         .origin = from_script ? "the script's auth" : "mlhost.yaml"};
    if (!type)
        return error_set(
            err, ERR_INVALID,
            "auth has no type: none, bearer, basic, azure_ad, workload_identity or header");
    if (field(call, map, "token", true, from_script, &out->token, err) != 0 ||
        field(call, map, "username", false, from_script, &out->user, err) != 0 ||
        field(call, map, "password", true, from_script, &out->password, err) != 0 ||
        field(call, map, "tenant", false, from_script, &out->tenant, err) != 0 ||
        field(call, map, "client_id", false, from_script, &out->client_id, err) != 0 ||
        field(call, map, "client_secret", true, from_script, &out->client_secret, err) != 0 ||
        field(call, map, "scope", false, from_script, &out->scope, err) != 0 ||
        field(call, map, "authority", false, from_script, &out->authority, err) != 0 ||
        field(call, map, "name", false, from_script, &out->name, err) != 0)
        goto fail;
    if (strcmp(type, "none") == 0) {
        out->kind = AUTH_NONE;
    } else if (strcmp(type, "bearer") == 0) {
        out->kind = AUTH_BEARER;
        const char *path = value_get_string(map, "token_file", NULL);
        if (!path && !from_script)
            path = value_get_string(value_get(map, "token"), "file", NULL);
        if (path) /* a file is read again for each request: kubelets and agents rotate what is
                   * in it */
            out->token_file = from_script ? call_path(call, path, ACCESS_READ, err)
                                          : path_join(call_workspace(call), path);
        if (path && !out->token_file)
            goto fail;
        if (!path && need(type, "token", out->token, err) != 0)
            goto fail;
    } else if (strcmp(type, "basic") == 0) {
        out->kind = AUTH_BASIC;
        if (need(type, "password", out->password, err) != 0)
            goto fail;
    } else if (strcmp(type, "azure_ad") == 0) {
        out->kind = AUTH_AZURE_AD;
        if (need(type, "tenant", out->tenant, err) != 0 ||
            need(type, "client_id", out->client_id, err) != 0 ||
            need(type, "client_secret", out->client_secret, err) != 0 ||
            need(type, "scope", out->scope, err) != 0)
            goto fail;
    } else if (strcmp(type, "workload_identity") == 0) {
        if (workload_identity(call, map, out, err) != 0)
            goto fail;
    } else if (strcmp(type, "header") == 0) {
        out->kind = AUTH_HEADER;
        if (field(call, map, "value", true, from_script, &out->token, err) != 0 ||
            need(type, "name", out->name, err) != 0 || need(type, "value", out->token, err) != 0)
            goto fail;
    } else {
        error_set(err, ERR_INVALID, "unknown auth type '%s'", type);
        error_hint(err, "allowed types: none, bearer, basic, azure_ad, workload_identity, header");
        goto fail;
    }
    return 0;
fail:
    auth_free(out);
    return -1;
}

int auth_from_variables(struct call *call, const struct service *service, struct auth *out,
                        struct error *err)
{
    const char *text;

    (void)err;
    *out = (struct auth){0};
    if ((text = variable(service->token))) {
        *out = (struct auth){
            .kind = AUTH_BEARER, .token = secret_copy(call, text), .origin = service->token};
    } else if (variable(service->user) && (text = variable(service->password))) {
        *out = (struct auth){.kind = AUTH_BASIC, .origin = service->user};
        out->user = mem_strdup(variable(service->user));
        out->password = secret_copy(call, text);
    } else if ((text = variable(service->pat))) {
        *out = (struct auth){.kind = AUTH_BASIC, .origin = service->pat};
        out->user = mem_strdup("");
        out->password = secret_copy(call, text);
    } else if ((text = variable(service->token_file))) {
        *out = (struct auth){
            .kind = AUTH_BEARER, .token_file = mem_strdup(text), .origin = service->token_file};
    } else if (variable(service->tenant) && variable(service->client_id) &&
               (text = variable(service->client_secret))) {
        *out = (struct auth){.kind = AUTH_AZURE_AD, .origin = service->client_secret};
        out->tenant = mem_strdup(variable(service->tenant));
        out->client_id = mem_strdup(variable(service->client_id));
        out->client_secret = secret_copy(call, text);
        out->scope = mem_strdup(service->scope);
        const char *authority = variable("AZURE_AUTHORITY_HOST");
        out->authority = mem_strdup(authority);
    } else if (service->scope && variable(service->tenant) && variable(service->client_id) &&
               (variable(AZURE_FEDERATED_FILE) || variable(AZURE_CONNECTION))) {
        *out = (struct auth){.kind = AUTH_WORKLOAD_IDENTITY};
        out->tenant = mem_strdup(variable(service->tenant));
        out->client_id = mem_strdup(variable(service->client_id));
        out->scope = mem_strdup(service->scope);
        out->authority = mem_strdup(variable("AZURE_AUTHORITY_HOST"));
        out->token_file = mem_strdup(variable(AZURE_FEDERATED_FILE));
        if (!out->token_file)
            out->service_connection = mem_strdup(variable(AZURE_CONNECTION));
        out->origin = out->token_file ? AZURE_FEDERATED_FILE : AZURE_CONNECTION;
    }
    return 0;
}

static bool auth_is_azure(const struct auth *auth)
{
    return auth->kind == AUTH_AZURE_AD || auth->kind == AUTH_WORKLOAD_IDENTITY;
}

bool auth_can_refresh(const struct auth *auth)
{
    return auth_is_azure(auth) || auth->kind == AUTH_EXEC ||
           (auth->kind == AUTH_BEARER && auth->token_file);
}

char *read_token_file(struct call *call, const struct auth *auth, struct error *err)
{
    const char *path = auth->token_file;
    cleanup_buf struct buf text = BUF_INIT;
    int rc = auth->from_script ? call_read(path, TOKEN_FILE_LIMIT, &text, err)
                               : file_read(AT_FDCWD, path, TOKEN_FILE_LIMIT, &text, err);

    if (rc != 0) {
        error_wrap(err, "the token file");
        return NULL;
    }
    while (text.len && strchr(" \t\r\n", text.data[text.len - 1]))
        text.data[--text.len] = '\0';
    if (!text.len) {
        error_set(err, ERR_INVALID, "the token file '%s' is empty", path);
        return NULL;
    }
    return secret_copy(call, text.data);
}

/* With client->lock held. */
static char *token_locked(struct call *call, struct rest_client *client, const char *scope,
                          bool fresh, struct error *err)
{
    struct auth *auth = &client->auth;
    int64_t until;

    if (auth->kind == AUTH_BEARER)
        return auth->token_file ? read_token_file(call, auth, err) : mem_strdup(auth->token);
    if (auth->kind == AUTH_EXEC) {
        if ((fresh || deadline_passed(auth->cached_until)) &&
            k8s_exec_credential(call, client, err) < 0)
            return NULL;
        return mem_strdup(auth->cached ? auth->cached : "");
    }
    if (auth_is_azure(auth) && scope)
        return azure_token(call, client, scope, &until, err);
    if (auth_is_azure(auth)) {
        if (fresh || !auth->cached || deadline_passed(auth->cached_until)) {
            char *token = azure_token(call, client, auth->scope, &until, err);
            if (!token)
                return NULL;
            free(auth->cached);
            auth->cached = token;
            auth->cached_until = until;
        }
        return mem_strdup(auth->cached);
    }
    error_set(err, ERR_UNSUPPORTED, "%s is not used with a bearer token here",
              client->service->name);
    error_hint(err, "use auth of type bearer, azure_ad or workload_identity");
    return NULL;
}

char *auth_token(struct call *call, struct rest_client *client, const char *scope, bool fresh,
                 struct error *err)
{
    pthread_mutex_lock(&client->lock);
    char *token = token_locked(call, client, scope, fresh, err);
    pthread_mutex_unlock(&client->lock);
    return token;
}

static void basic_header(struct call *call, const struct auth *auth, struct http_headers *headers)
{
    cleanup_free char *plain = mem_printf("%s:%s", auth->user ? auth->user : "", auth->password);
    size_t len = strlen(plain);
    cleanup_free char *encoded = mem_alloc(4 * ((len + 2) / 3) + 1);

    EVP_EncodeBlock((unsigned char *)encoded, (const unsigned char *)plain, (int)len);
    mask(call, encoded);
    cleanup_free char *line = mem_printf("Basic %s", encoded);
    http_header_add(headers, "Authorization", line);
}

int auth_apply(struct call *call, struct rest_client *client, bool fresh,
               struct http_headers *headers, struct error *err)
{
    switch (client->auth.kind) {
    case AUTH_NONE:
        return 0;
    case AUTH_BASIC:
        basic_header(call, &client->auth, headers);
        return 0;
    case AUTH_HEADER:
        http_header_add(headers, client->auth.name, client->auth.token);
        return 0;
    case AUTH_BEARER:
    case AUTH_AZURE_AD:
    case AUTH_WORKLOAD_IDENTITY:
    case AUTH_EXEC:
        break;
    }
    cleanup_free char *token = auth_token(call, client, NULL, fresh, err);
    if (!token)
        return -1;
    if (!*token) /* a plugin that gave a certificate */
        return 0;
    cleanup_free char *line = mem_printf("Bearer %s", token);
    http_header_add(headers, "Authorization", line);
    return 0;
}
