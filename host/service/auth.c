/* Credentials: from a profile, from the usual variables, from a script; and the header that comes
 * of them. */
#include "service/client.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_FILE_LIMIT (1u << 20)
/* An Azure AD token is renewed this long before it ends. */
#define TOKEN_MARGIN_NS (120 * NS_PER_S)

const char *variable(const char *name)
{
    char one[64];

    for (const char *at = name; at && *at;) {
        size_t len = strcspn(at, "|");
        snprintf(one, sizeof(one), "%.*s", (int)len, at);
        const char *text = getenv(one);
        /* Azure DevOps leaves "$(NAME)" in the environment when a pipeline maps a variable that
         * does not exist. */
        if (text && *text && strncmp(text, "$(", 2) != 0)
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
    free(auth->scope);
    free(auth->authority);
    free(auth->name);
    free(auth->cached);
    *auth = (struct auth){0};
}

/* Makes bytes a secret that is masked from now on; the handle is of no use here. */
static void mask(struct call *call, const char *text)
{
    struct value handle = {0};

    call_secret_new(call, text, strlen(text), &handle);
    value_free(&handle);
}

static char *secret_copy(struct call *call, const char *text)
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
        return error_hint(err, "secret.env \"NAME\" makes a secret of an environment variable");
    }
    *out = mem_strdup(v->as.string.data);
    return 0;
}

static int need(const char *type, const char *key, const void *have, struct error *err)
{
    return have ? 0 : error_set(err, ERR_INVALID, "auth of type %s needs '%s'", type, key);
}

int auth_from_value(struct call *call, const struct value *map, bool from_script, struct auth *out,
                    struct error *err)
{
    const char *type = value_get_string(map, "type", value_get(map, "token") ? "bearer" : NULL);

    *out = (struct auth){.from_script = from_script,
                         .origin = from_script ? "the script's auth" : "mlhost.yaml"};
    if (!type)
        return error_set(err, ERR_INVALID,
                         "auth has no type: none, bearer, basic, azure_ad or header");
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
    } else if (strcmp(type, "header") == 0) {
        out->kind = AUTH_HEADER;
        if (field(call, map, "value", true, from_script, &out->token, err) != 0 ||
            need(type, "name", out->name, err) != 0 || need(type, "value", out->token, err) != 0)
            goto fail;
    } else {
        error_set(err, ERR_INVALID, "unknown auth type '%s'", type);
        error_hint(err, "allowed types: none, bearer, basic, azure_ad, header");
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
    }
    return 0;
}

bool auth_can_refresh(const struct auth *auth)
{
    return auth->kind == AUTH_AZURE_AD || (auth->kind == AUTH_BEARER && auth->token_file);
}

static char *read_token_file(struct call *call, const char *path, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (file_read(AT_FDCWD, path, TOKEN_FILE_LIMIT, &text, err) != 0) {
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

static void form_field(struct buf *form, const char *name, const char *value)
{
    if (form->len)
        buf_putc(form, '&');
    buf_printf(form, "%s=", name);
    url_escape(value, strlen(value), form);
}

/*
 * OAuth 2.0 client credentials (RFC 6749 section 4.4) at Microsoft's v2.0 end point: tenant, client
 * id, secret and scope in, a bearer token with its lifetime out.
 */
static char *fetch_azure_token(struct call *call, struct rest_client *client, const char *scope,
                               int64_t *until, struct error *err)
{
    struct auth *auth = &client->auth;
    const char *authority = auth->authority ? auth->authority : "https://login.microsoftonline.com";
    cleanup_buf struct buf url = BUF_INIT;
    cleanup_buf struct buf form = BUF_INIT;
    cleanup_response struct http_response response = {0};
    cleanup_value struct value reply = {0};
    struct http_request request = HTTP_REQUEST_INIT;
    struct http *http = call_http(call, err);
    size_t authority_len = strlen(authority);

    if (!http)
        return NULL;
    while (authority_len && authority[authority_len - 1] == '/')
        authority_len--;
    buf_append(&url, authority, authority_len);
    buf_putc(&url, '/');
    url_escape(auth->tenant, strlen(auth->tenant), &url);
    buf_puts(&url, "/oauth2/v2.0/token");
    form_field(&form, "grant_type", "client_credentials");
    form_field(&form, "client_id", auth->client_id);
    form_field(&form, "client_secret", auth->client_secret);
    form_field(&form, "scope", scope);
    request.method = "POST";
    request.url = url.data;
    request.body = form.data;
    request.body_len = form.len;
    request.repeat = HTTP_REPEAT_ALWAYS;
    request.deadline = deadline_min(call->deadline, deadline_in(60 * NS_PER_S));
    request.cancel = call->cancel;
    if (auth->from_script) {
        request.allow = call_http_allow;
        request.allow_ctx = call;
    }
    http_header_add(&request.headers, "Content-Type", "application/x-www-form-urlencoded");
    int result = http_perform(http, &request, &response, err);
    http_headers_free(&request.headers);
    if (result != 0) {
        error_wrap(err, "Azure AD sign-in");
        return NULL;
    }
    if (response.status != 200) {
        cleanup_buf struct buf text = BUF_INIT;
        enum error_code code = ERR_NONE;
        rest_error_text(&response.body, &text, &code);
        http_status_error(&request, &response, text.data, err);
        error_wrap(err, "Azure AD refuses the client credentials");
        if (err && response.status < 500)
            err->code = ERR_UNAUTHORIZED;
        error_hint(err, "check tenant, client_id, client_secret and scope (from %s)", auth->origin);
        return NULL;
    }
    if (value_from_json(response.body.data, response.body.len, "the token reply", NULL, &reply,
                        err) != 0) {
        error_wrap(err, "Azure AD sign-in");
        return NULL;
    }
    const char *token = value_get_string(&reply, "access_token", NULL);
    if (!token) {
        error_set(err, ERR_INVALID, "Azure AD sign-in: the reply holds no access_token");
        return NULL;
    }
    /* the v1 end point gives numbers as strings */
    const struct value *expires = value_get(&reply, "expires_in");
    int64_t seconds = expires && expires->kind == VALUE_STRING
                          ? strtoll(expires->as.string.data, NULL, 10)
                          : value_get_int(&reply, "expires_in", 300);
    *until = deadline_in(seconds * NS_PER_S) - TOKEN_MARGIN_NS;
    return secret_copy(call, token);
}

/* With client->lock held. */
static char *token_locked(struct call *call, struct rest_client *client, const char *scope,
                          bool fresh, struct error *err)
{
    struct auth *auth = &client->auth;
    int64_t until;

    if (auth->kind == AUTH_BEARER)
        return auth->token_file ? read_token_file(call, auth->token_file, err)
                                : mem_strdup(auth->token);
    if (auth->kind == AUTH_AZURE_AD && scope)
        return fetch_azure_token(call, client, scope, &until, err);
    if (auth->kind == AUTH_AZURE_AD) {
        if (fresh || !auth->cached || deadline_passed(auth->cached_until)) {
            char *token = fetch_azure_token(call, client, auth->scope, &until, err);
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
    error_hint(err, "use auth of type bearer or azure_ad");
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
        break;
    }
    cleanup_free char *token = auth_token(call, client, NULL, fresh, err);
    if (!token)
        return -1;
    cleanup_free char *line = mem_printf("Bearer %s", token);
    http_header_add(headers, "Authorization", line);
    return 0;
}
