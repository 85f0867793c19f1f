/* Azure AD (Entra): tokens for a client secret, or for the assertion of a federated workload. */
#include "service/client.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* A token is renewed this long before it ends. */
#define TOKEN_MARGIN_NS (120 * NS_PER_S)

static void form_field(struct buf *form, const char *name, const char *value)
{
    if (form->len)
        buf_putc(form, '&');
    buf_printf(form, "%s=", name);
    url_escape(value, strlen(value), form);
}

/*
 * The agent's own assertion for a service connection: what SYSTEM_OIDCREQUESTURI answers to the
 * job's token. https://learn.microsoft.com/rest/api/azure/devops/distributedtask/oidctoken/create
 */
static char *agent_assertion(struct call *call, struct http *http, const char *connection,
                             struct error *err)
{
    const char *uri = variable("SYSTEM_OIDCREQUESTURI");
    const char *job = variable("SYSTEM_ACCESSTOKEN");
    cleanup_buf struct buf url = BUF_INIT;
    cleanup_response struct http_response response = {0};
    cleanup_value struct value reply = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    if (!uri || !job) {
        error_set(err, ERR_UNAUTHORIZED, "%s is not set: no assertion for the service connection",
                  uri ? "SYSTEM_ACCESSTOKEN" : "SYSTEM_OIDCREQUESTURI");
        error_hint(err,
                   uri ? "map it in the pipeline: env: SYSTEM_ACCESSTOKEN: "
                         "$(System.AccessToken)"
                       : "a service connection is for a job on an Azure DevOps agent; elsewhere "
                         "use 'token_file'");
        return NULL;
    }
    buf_printf(&url, "%s%capi-version=7.1&serviceConnectionId=", uri, strchr(uri, '?') ? '&' : '?');
    url_escape(connection, strlen(connection), &url);
    cleanup_free char *bearer = mem_printf("Bearer %s", job);
    request.method = "POST";
    request.url = url.data;
    request.body = "";
    request.repeat = HTTP_REPEAT_ALWAYS;
    request.deadline = deadline_min(call->deadline, deadline_in(60 * NS_PER_S));
    request.cancel = call->cancel;
    http_header_add(&request.headers, "Authorization", bearer);
    http_header_add(&request.headers, "Content-Type", "application/json");
    int result = http_perform(http, &request, &response, err);
    http_headers_free(&request.headers);
    if (result != 0) {
        error_wrap(err, "the agent's OIDC token");
        return NULL;
    }
    if (response.status != 200) {
        http_status_error(&request, &response, NULL, err);
        error_wrap(err, "the agent's OIDC token");
        if (err && response.status < 500)
            err->code = ERR_UNAUTHORIZED;
        error_hint(err, "may this pipeline use the service connection %s?", connection);
        return NULL;
    }
    if (value_from_json(response.body.data, response.body.len, "the OIDC reply", NULL, &reply,
                        err) != 0)
        return NULL;
    const char *token = value_get_string(&reply, "oidcToken", NULL);
    if (!token) {
        error_set(err, ERR_INVALID, "the agent's OIDC reply holds no oidcToken");
        return NULL;
    }
    return secret_copy(call, token);
}

/*
 * OAuth 2.0 client credentials (RFC 6749 section 4.4) at Microsoft's v2.0 end point: tenant, client
 * id, scope and a secret or an assertion (RFC 7523) in, a bearer token with its lifetime out. An
 * assertion lives for minutes and is used once.
 */
char *azure_token(struct call *call, struct rest_client *client, const char *scope, int64_t *until,
                  struct error *err)
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
    if (auth->kind == AUTH_WORKLOAD_IDENTITY) {
        cleanup_free char *jwt = auth->token_file
                                     ? read_token_file(call, auth, err)
                                     : agent_assertion(call, http, auth->service_connection, err);
        if (!jwt)
            return NULL;
        form_field(&form, "client_assertion_type",
                   "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        form_field(&form, "client_assertion", jwt);
    } else {
        form_field(&form, "client_secret", auth->client_secret);
    }
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
        error_hint(err, "check tenant, client_id, %s and scope (from %s)",
                   auth->kind == AUTH_WORKLOAD_IDENTITY ? "the federated credential's subject"
                                                        : "client_secret",
                   auth->origin);
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
