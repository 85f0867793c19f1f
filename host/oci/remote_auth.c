/*
 * Who asks: basic credentials and bearer tokens (distribution's token and OAuth2 protocols).
 * https://distribution.github.io/distribution/spec/auth/token/ and .../oauth/
 */
#include <ctype.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "oci/remote.h"
#include "oci/remote_header.h"

#define TOKEN_LIMIT     (64u * 1024)
#define TOKEN_DEFAULT_S 60

static void mask(struct remote *remote, const char *text)
{
    cleanup_value struct value handle = {0};

    if (text && *text)
        call_secret_new(remote->call, text, strlen(text), &handle);
}

/* ---- credentials ---- */

static int from_profile(struct remote *remote, struct error *err)
{
    struct service_target target;
    struct error problem = {0};

    call_service(remote->call, "registry", &target);
    const struct value *auth =
        remote->trusted && !remote->unix_socket ? value_get(target.config, "auth") : NULL;
    const char *type =
        value_get_string(auth, "type", value_get(auth, "token") ? "bearer" : "basic");
    if (!auth || strcmp(type, "none") == 0)
        return 0;
    if (strcmp(type, "basic") == 0) {
        remote->user = call_config_text(remote->call, value_get(auth, "username"), false, &problem);
        remote->password =
            problem.code
                ? NULL
                : call_config_text(remote->call, value_get(auth, "password"), true, &problem);
        if (!problem.code && (!remote->user || !remote->password))
            error_set(&problem, ERR_INVALID, "basic needs username and password");
    } else if (strcmp(type, "bearer") == 0) {
        remote->bearer = call_config_text(remote->call, value_get(auth, "token"), true, &problem);
        if (!problem.code && !remote->bearer)
            error_set(&problem, ERR_INVALID, "bearer needs token");
    } else {
        error_set(&problem, ERR_UNSUPPORTED, "auth of type %s is not for registries", type);
        error_hint(&problem,
                   "use basic (for Azure: the service principal's id and secret) or bearer");
    }
    if (problem.code) {
        if (err)
            *err = problem;
        return error_wrap(err, "profiles.%s.registry.auth", target.profile ? target.profile : "");
    }
    remote->credentials_from = "mlhost.yaml";
    return 1;
}

static int load_credentials(struct remote *remote, struct error *err)
{
    int found = from_profile(remote, err);

    if (found == 0 && !remote->unix_socket)
        found = docker_credentials(remote->host, remote->call->deadline, &remote->user,
                                   &remote->password, &remote->identity, err);
    if (found > 0 && !remote->credentials_from)
        remote->credentials_from = "Docker's config.json";
    if (found > 0) {
        mask(remote, remote->password);
        mask(remote, remote->identity);
    }
    return found < 0 ? -1 : 0;
}

static int credentials(struct remote *remote, struct error *err)
{
    int status = 0;

    if (!remote->credentials_known)
        status = load_credentials(remote, err);
    remote->credentials_known |= status == 0;
    return status;
}

static void add_basic(const struct remote *remote, struct http_headers *headers)
{
    cleanup_free char *pair = mem_printf("%s:%s", remote->user, remote->password);
    size_t len = strlen(pair);
    cleanup_free char *encoded = mem_alloc(len * 4 / 3 + 8);

    EVP_EncodeBlock((unsigned char *)encoded, (const unsigned char *)pair, (int)len);
    cleanup_free char *header = mem_printf("Basic %s", encoded);
    http_header_add(headers, "Authorization", header);
}

int remote_authorize(struct remote *remote, const char *scope, struct http_headers *headers,
                     struct error *err)
{
    cleanup_free char *header = NULL;
    int status;

    pthread_mutex_lock(&remote->lock);
    status = credentials(remote, err);
    if (status == 0 && remote->bearer) {
        header = mem_printf("Bearer %s", remote->bearer);
    } else if (status == 0) {
        for (struct remote_token *token = remote->tokens; token && !header; token = token->next)
            if (strcmp(token->scope, scope ? scope : "") == 0 && !deadline_passed(token->until))
                header = mem_printf("Bearer %s", token->text);
        if (!header && remote->basic)
            add_basic(remote, headers);
    }
    pthread_mutex_unlock(&remote->lock);
    if (header)
        http_header_add(headers, "Authorization", header);
    return status;
}

/* ---- challenges ---- */

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
            if (!known)
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

/* One request to the token service; `form`: the OAuth2 POST instead of the GET. */
static int ask_token(struct remote *remote, const struct challenge *challenge,
                     const struct value *scopes, bool form, struct http_response *response,
                     struct http_request *request, char **url_out, struct error *err)
{
    struct buf body = BUF_INIT;
    struct http_headers headers = {0};

    *request = (struct http_request)HTTP_REQUEST_INIT;
    if (form) {
        query(&body, "grant_type", remote->identity ? "refresh_token" : "password");
        query(&body, "client_id", "mlhost");
    } else if (remote->user) {
        query(&body, "account", remote->user);
    }
    if (challenge->service)
        query(&body, "service", challenge->service);
    if (form) {
        cleanup_buf struct buf all = BUF_INIT;
        for (size_t i = 0; i < value_count(scopes); i++)
            buf_printf(&all, "%s%s", i ? " " : "", value_text(value_at(scopes, i), ""));
        query(&body, "scope", all.data ? all.data : "");
        if (remote->identity) {
            query(&body, "refresh_token", remote->identity);
        } else {
            query(&body, "username", remote->user);
            query(&body, "password", remote->password);
        }
        http_header_add(&headers, "Content-Type", "application/x-www-form-urlencoded");
    } else {
        for (size_t i = 0; i < value_count(scopes); i++)
            query(&body, "scope", value_text(value_at(scopes, i), ""));
        if (remote->user && remote->password)
            add_basic(remote, &headers);
    }
    *url_out = form || !body.len ? mem_strdup(challenge->realm)
                                 : mem_printf("%s%c%s", challenge->realm,
                                              strchr(challenge->realm, '?') ? '&' : '?', body.data);
    struct http_request sent = *request;
    sent.url = request->url = *url_out;
    sent.method = request->method = form ? "POST" : "GET";
    sent.headers = headers;
    if (form) {
        sent.body = body.data;
        sent.body_len = body.len;
        sent.repeat = HTTP_REPEAT_ALWAYS;
    }
    sent.reply_limit = TOKEN_LIMIT;
    sent.ca_file = remote->ca;
    sent.proxy = remote->proxy;
    sent.insecure = remote->insecure;
    sent.deadline = remote->call->deadline;
    sent.cancel = remote->call->cancel;
    sent.allow = remote_allow;
    sent.allow_ctx = remote;
    int status = http_perform(remote->http, &sent, response, err);
    http_headers_free(&headers);
    buf_free(&body);
    return status;
}

/* The lock is held: the blobs' threads share one request. */
static int fetch_token(struct remote *remote, const char *scope, const struct challenge *challenge,
                       struct error *err)
{
    cleanup_response struct http_response response = {0};
    cleanup_value struct value scopes = {0};
    cleanup_value struct value document = {0};
    cleanup_free char *url = NULL;
    struct http_request request;

    if (check_realm(remote, challenge->realm, err) != 0)
        return -1;
    join_scopes(scope, challenge->scope, &scopes);
    bool form = remote->identity != NULL;
    if (ask_token(remote, challenge, &scopes, form, &response, &request, &url, err) != 0)
        return error_wrap(err, "token for %s", remote->host);
    if (!form && (response.status == 404 || response.status == 405) && remote->user) {
        http_response_free(&response);
        response = (struct http_response){0};
        mem_cleanup(&url);
        if (ask_token(remote, challenge, &scopes, true, &response, &request, &url, err) != 0)
            return error_wrap(err, "token for %s", remote->host);
    }
    if (response.status != 200) {
        cleanup_free char *what = mem_printf("token for %s", remote->host);
        return remote_refused(remote, &request, &response, what, err);
    }
    if (value_from_json(response.body.data ? response.body.data : "", response.body.len,
                        challenge->realm, NULL, &document, err) != 0)
        return error_wrap(err, "token for %s", remote->host);
    const char *text =
        value_get_string(&document, "token", value_get_string(&document, "access_token", NULL));
    if (!text || !*text || strpbrk(text, "\r\n"))
        return error_set(err, ERR_INVALID, "token for %s: the token service %s gave none",
                         remote->host, challenge->realm);
    mask(remote, text);
    int64_t seconds = value_get_int(&document, "expires_in", TOKEN_DEFAULT_S);
    if (seconds < 1 || seconds > 24 * 3600)
        seconds = TOKEN_DEFAULT_S;
    struct remote_token *token = mem_alloc(sizeof *token);
    token->scope = mem_strdup(scope ? scope : "");
    token->text = mem_strdup(text);
    token->until = deadline_in((seconds - seconds / 10 - 1) * NS_PER_S);
    token->next = remote->tokens;
    remote->tokens = token;
    return 0;
}

/* Tokens that the registry has just refused are of no more use. */
static bool drop_tokens(struct remote *remote, const char *scope)
{
    for (struct remote_token **at = &remote->tokens; *at; at = &(*at)->next) {
        struct remote_token *token = *at;
        if (strcmp(token->scope, scope ? scope : "") != 0)
            continue;
        *at = token->next;
        free(token->scope);
        free(token->text);
        free(token);
        return true;
    }
    return false;
}

int remote_challenge(struct remote *remote, const char *scope, const struct http_headers *headers,
                     struct error *err)
{
    cleanup_challenge struct challenge bearer = {0};
    cleanup_challenge struct challenge basic = {0};
    int result = 0;

    pthread_mutex_lock(&remote->lock);
    if (remote->bearer) {
        result = 0; /* a token of the profile: there is no other */
    } else if (challenge_find(headers, "Bearer", &bearer) && bearer.realm) {
        drop_tokens(remote, scope);
        result = fetch_token(remote, scope, &bearer, err) == 0 ? 1 : -1;
    } else if (challenge_find(headers, "Basic", &basic) && remote->user && remote->password) {
        remote->basic = true;
        result = 1; /* also when it was: another thread may have learnt it meanwhile */
    }
    pthread_mutex_unlock(&remote->lock);
    return result;
}
