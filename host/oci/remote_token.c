/* The token service of a registry: distribution's GET and its OAuth2 POST, and the exchange of an
 * Azure AD token at Azure's registries (https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/remote.h"
#include "service/client.h"

#define TOKEN_LIMIT     (64u * 1024)
#define TOKEN_DEFAULT_S 60
#define AZURE_SCOPE     "https://containerregistry.azure.net/.default"

/* Both lists of words, each once. */
static void join_scopes(const char *a, const char *b, struct value *out)
{
    const char *texts[] = {a, b};

    value_set_array(out);
    for (size_t t = 0; t < 2; t++)
        for (const char *at = texts[t] ? texts[t] : ""; *at; at += strspn(at, " ")) {
            size_t len = strcspn(at, " ");
            bool known = false;
            for (size_t i = 0; i < value_count(out) && !known; i++) {
                const char *have = value_text(value_at(out, i), "");
                known = strlen(have) == len && memcmp(have, at, len) == 0;
            }
            if (!known && len)
                value_set_bytes(value_push(out), at, len);
            at += len;
        }
}

static void query(struct buf *out, const char *key, const char *text)
{
    buf_printf(out, "%s%s=", out->len ? "&" : "", key);
    url_escape(text, strlen(text), out);
}

static int check_realm(struct remote *remote, const char *realm, struct error *err)
{
    bool secure = strncmp(realm, "https://", 8) == 0;

    if (secure || (strncmp(realm, "http://", 7) == 0 && strncmp(remote->base, "http://", 7) == 0))
        return 0;
    return error_set(err, ERR_DENIED,
                     "the registry %s wants credentials to be sent to %.200s, without encryption",
                     remote->host, realm);
}

/* One exchange with a token service. `form`: what to POST, or NULL: a GET, with `basic` as
 * Authorization (or NULL). */
static int ask(struct remote *remote, const char *url, const struct buf *form, const char *basic,
               struct http_response *response, struct error *err)
{
    struct http_request request = HTTP_REQUEST_INIT;

    request.url = url;
    if (form) {
        request.method = "POST";
        request.body = form->data;
        request.body_len = form->len;
        request.repeat = HTTP_REPEAT_ALWAYS;
        http_header_add(&request.headers, "Content-Type", "application/x-www-form-urlencoded");
    }
    if (basic)
        http_header_add(&request.headers, "Authorization", basic);
    request.reply_limit = TOKEN_LIMIT;
    request.ca_file = remote->ca;
    request.proxy = remote->proxy;
    request.insecure = remote->insecure;
    request.unix_socket = remote_own_url(remote, url) ? remote->unix_socket : NULL;
    request.deadline = remote->call->deadline;
    request.cancel = remote->call->cancel;
    request.allow = remote_allow;
    request.allow_ctx = remote;
    int status = http_perform(remote->http, &request, response, err);
    http_headers_free(&request.headers);
    return status;
}

static int token_refused(struct remote *remote, const char *url, bool form,
                         const struct http_response *response, struct error *err)
{
    cleanup_free char *what = mem_printf("token for %s", remote->host);
    struct http_request shown = HTTP_REQUEST_INIT;

    shown.method = form ? "POST" : "GET";
    shown.url = url;
    return remote_refused(remote, &shown, response, what, err);
}

static int parse(const struct http_response *response, const char *source, struct value *out,
                 struct error *err)
{
    return value_from_json(response->body.data ? response->body.data : "", response->body.len,
                           source, NULL, out, err);
}

/* Azure AD's token, then the registry's refresh token for it; the session keeps that one. */
static int exchange(struct remote *remote, const struct challenge *challenge, struct error *err)
{
    cleanup_value struct value map = {0};
    cleanup_value struct value document = {0};
    cleanup_response struct http_response response = {0};
    cleanup_buf struct buf form = BUF_INIT;
    cleanup_free char *url = mem_printf("%s/oauth2/exchange", remote->base);
    struct rest_client client = {0};
    int64_t until;

    value_copy(&map, &remote->azure);
    if (!value_get(&map, "scope"))
        value_put_string(&map, "scope", AZURE_SCOPE);
    if (auth_from_value(remote->call, &map, false, &client.auth, err) != 0)
        return -1;
    cleanup_free char *tenant = mem_strdup(client.auth.tenant);
    cleanup_free char *token = azure_token(remote->call, &client, client.auth.scope, &until, err);
    auth_free(&client.auth);
    if (!token)
        return -1;
    query(&form, "grant_type", "access_token");
    query(&form, "service", challenge->service ? challenge->service : remote->host);
    query(&form, "tenant", tenant ? tenant : "");
    query(&form, "access_token", token);
    if (ask(remote, url, &form, NULL, &response, err) != 0)
        return error_wrap(err, "token for %s", remote->host);
    if (response.status != 200)
        return token_refused(remote, url, true, &response, err);
    if (parse(&response, url, &document, err) != 0)
        return -1;
    const char *refresh = value_get_string(&document, "refresh_token", NULL);
    if (!refresh || !*refresh)
        return error_set(err, ERR_INVALID, "%s gave no refresh_token: is %s an Azure registry?",
                         url, remote->host);
    remote_mask(remote, refresh);
    remote_session_set_refresh(remote->session, refresh);
    return 0;
}

static void form_of(struct remote *remote, const struct challenge *challenge,
                    const struct value *scopes, const char *refresh, struct buf *out)
{
    cleanup_buf struct buf all = BUF_INIT;

    query(out, "grant_type", refresh ? "refresh_token" : "password");
    query(out, "client_id", "mlhost");
    if (challenge->service)
        query(out, "service", challenge->service);
    for (size_t i = 0; i < value_count(scopes); i++)
        buf_printf(&all, "%s%s", i ? " " : "", value_text(value_at(scopes, i), ""));
    if (all.len)
        query(out, "scope", all.data);
    if (refresh) {
        query(out, "refresh_token", refresh);
    } else {
        query(out, "username", remote->login.user);
        query(out, "password", remote->login.password);
    }
}

static char *get_url(const struct challenge *challenge, const struct value *scopes)
{
    cleanup_buf struct buf all = BUF_INIT;

    if (challenge->service)
        query(&all, "service", challenge->service);
    for (size_t i = 0; i < value_count(scopes); i++)
        query(&all, "scope", value_text(value_at(scopes, i), ""));
    if (!all.len)
        return mem_strdup(challenge->realm);
    return mem_printf("%s%c%s", challenge->realm, strchr(challenge->realm, '?') ? '&' : '?',
                      all.data);
}

/* One way of asking: with a refresh token or a password by POST, or (`get`) by GET. */
static int ask_as(struct remote *remote, const struct challenge *challenge,
                  const struct value *scopes, const char *refresh, bool get,
                  struct http_response *response, struct error *err)
{
    cleanup_buf struct buf form = BUF_INIT;
    cleanup_free char *url = get ? get_url(challenge, scopes) : NULL;
    cleanup_free char *basic =
        get && remote->login.user && remote->login.password ? remote_basic(remote) : NULL;

    http_response_free(response);
    *response = (struct http_response){0};
    if (!get)
        form_of(remote, challenge, scopes, refresh, &form);
    if (ask(remote, get ? url : challenge->realm, get ? NULL : &form, basic, response, err) != 0)
        return error_wrap(err, "token for %s", remote->host);
    return 0;
}

static bool refused(const struct http_response *response)
{
    return response->status == 400 || response->status == 401 || response->status == 403;
}

static bool no_such_way(const struct http_response *response)
{
    return response->status == 404 || response->status == 405;
}

/* The ways that there are, in turn; the reply of the last. *form: it was a POST. */
static int negotiate(struct remote *remote, const struct challenge *challenge,
                     const struct value *scopes, bool *form, struct http_response *response,
                     struct error *err)
{
    bool password = remote->login.user && remote->login.password;
    bool azure = remote->azure.kind == VALUE_MAP;
    cleanup_free char *given = remote_session_refresh(remote->session);

    *form = true;
    if (given) {
        if (ask_as(remote, challenge, scopes, given, false, response, err) != 0)
            return -1;
        if (!refused(response) && !no_such_way(response))
            return 0;
        remote_session_set_refresh(remote->session, NULL); /* it is over */
    }
    if (azure) {
        if (exchange(remote, challenge, err) != 0)
            return -1;
        cleanup_free char *fresh = remote_session_refresh(remote->session);
        return ask_as(remote, challenge, scopes, fresh, false, response, err);
    }
    if (remote->login.identity) {
        if (ask_as(remote, challenge, scopes, remote->login.identity, false, response, err) != 0)
            return -1;
        if (!no_such_way(response) || !password)
            return 0;
    }
    *form = false;
    if (ask_as(remote, challenge, scopes, NULL, true, response, err) != 0)
        return -1;
    if (!no_such_way(response) || !password)
        return 0;
    *form = true;
    return ask_as(remote, challenge, scopes, NULL, false, response, err);
}

int remote_fetch_token(struct remote *remote, const char *scope, const struct challenge *challenge,
                       bool missing_first, struct error *err)
{
    cleanup_response struct http_response response = {0};
    cleanup_value struct value scopes = {0};
    cleanup_value struct value document = {0};
    bool form;

    if (check_realm(remote, challenge->realm, err) != 0)
        return -1;
    /* Some services grant only the first of several scopes. */
    join_scopes(missing_first ? challenge->scope : scope, missing_first ? scope : challenge->scope,
                &scopes);
    if (negotiate(remote, challenge, &scopes, &form, &response, err) != 0)
        return -1;
    if (response.status != 200)
        return token_refused(remote, challenge->realm, form, &response, err);
    if (parse(&response, challenge->realm, &document, err) != 0)
        return error_wrap(err, "token for %s", remote->host);
    const char *text =
        value_get_string(&document, "token", value_get_string(&document, "access_token", NULL));
    if (!text || !*text || strpbrk(text, "\r\n"))
        return error_set(err, ERR_INVALID, "token for %s: the token service %s gave none",
                         remote->host, challenge->realm);
    remote_mask(remote, text);
    const char *refresh = value_get_string(&document, "refresh_token", NULL);
    if (refresh && *refresh) {
        remote_mask(remote, refresh);
        remote_session_set_refresh(remote->session, refresh);
    }
    int64_t seconds = value_get_int(&document, "expires_in", TOKEN_DEFAULT_S);
    if (seconds < 1 || seconds > 24 * 3600)
        seconds = TOKEN_DEFAULT_S;
    remote_session_keep(remote->session, scope ? scope : "", text,
                        deadline_in((seconds - seconds / 10) * NS_PER_S));
    return 0;
}
