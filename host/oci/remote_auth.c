/*
 * Who asks: basic credentials and bearer tokens (distribution's token and OAuth2 protocols).
 * https://distribution.github.io/distribution/spec/auth/token/ and .../oauth/
 */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "oci/remote.h"

void remote_mask(struct remote *remote, const char *text)
{
    cleanup_value struct value handle = {0};

    if (text && *text)
        call_secret_new(remote->call, text, strlen(text), &handle);
}

/* ---- credentials ---- */

static bool auth_of_azure(const char *type)
{
    return strcmp(type, "azure_ad") == 0 || strcmp(type, "workload_identity") == 0;
}

static int from_profile(struct remote *remote, struct error *err)
{
    struct docker_login *login = &remote->login;
    struct error problem = {0};
    const struct value *auth = value_get(remote->config, "auth");
    const char *type =
        value_get_string(auth, "type", value_get(auth, "token") ? "bearer" : "basic");

    if (!auth || strcmp(type, "none") == 0)
        return 0;
    if (strcmp(type, "basic") == 0) {
        login->user = call_config_text(remote->call, value_get(auth, "username"), false, &problem);
        login->password = problem.code ? NULL
                                       : call_config_text(remote->call, value_get(auth, "password"),
                                                          true, &problem);
        if (!problem.code && (!login->user || !login->password))
            error_set(&problem, ERR_INVALID, "basic needs username and password");
    } else if (strcmp(type, "bearer") == 0) {
        login->bearer = call_config_text(remote->call, value_get(auth, "token"), true, &problem);
        if (!problem.code && !login->bearer)
            error_set(&problem, ERR_INVALID, "bearer needs token");
    } else if (auth_of_azure(type)) {
        value_copy(&remote->azure, auth);
    } else {
        error_set(&problem, ERR_UNSUPPORTED, "auth of type %s is not for registries", type);
        error_hint(&problem, "use basic, bearer, azure_ad or workload_identity");
    }
    if (problem.code) {
        if (err)
            *err = problem;
        return error_wrap(err, "mlhost.yaml: auth of the registry %s", remote->host);
    }
    login->origin = mem_strdup("mlhost.yaml");
    return 1;
}

/* "repository:team/x:pull" -> "team/x". Allocated, or NULL. */
static char *scope_repository(const char *scope)
{
    static const char prefix[] = "repository:";

    if (!scope || strncmp(scope, prefix, sizeof prefix - 1) != 0)
        return NULL;
    scope += sizeof prefix - 1;
    return mem_strndup(scope, strcspn(scope, ": "));
}

/* What a session is known by: the registry, and who asks. */
static void session_key(const struct remote *remote, struct digest *out)
{
    const struct docker_login *login = &remote->login;
    const char *texts[] = {remote->base,    remote->unix_socket, login->user,
                           login->password, login->identity,     login->bearer};
    cleanup_buf struct buf all = BUF_INIT;

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        buf_printf(&all, "%zu:%s ", texts[i] ? strlen(texts[i]) : 0, texts[i] ? texts[i] : "");
    buf_puts(&all, value_get_string(&remote->azure, "tenant", ""));
    buf_printf(&all, " %s", value_get_string(&remote->azure, "client_id", ""));
    digest_bytes(all.data, all.len, out);
}

static int load_credentials(struct remote *remote, const char *scope, struct error *err)
{
    cleanup_free char *name = scope_repository(scope);
    struct digest key;
    int found = from_profile(remote, err);

    if (found == 0 && !remote->unix_socket)
        found = docker_credentials(remote->host, name, remote->call->deadline, &remote->login, err);
    if (found < 0)
        return -1;
    remote_mask(remote, remote->login.password);
    remote_mask(remote, remote->login.identity);
    remote_mask(remote, remote->login.bearer);
    session_key(remote, &key);
    remote->session = remote_session_get(key.text);
    remote->credentials_known = true;
    return 0;
}

char *remote_basic(const struct remote *remote)
{
    cleanup_free char *pair = mem_printf("%s:%s", remote->login.user, remote->login.password);
    size_t len = strlen(pair);
    cleanup_free char *encoded = mem_alloc(len * 4 / 3 + 8);

    EVP_EncodeBlock((unsigned char *)encoded, (const unsigned char *)pair, (int)len);
    return mem_printf("Basic %s", encoded);
}

/* A token that another call has asked for is a secret of this one, too. */
static char *bearer(struct remote *remote, const char *scope)
{
    cleanup_free char *token = remote_session_token(remote->session, scope ? scope : "");

    if (!token)
        return NULL;
    pthread_mutex_lock(&remote->lock);
    if (!remote->masked || strcmp(remote->masked, token) != 0) {
        remote_mask(remote, token);
        free(remote->masked);
        remote->masked = mem_strdup(token);
    }
    pthread_mutex_unlock(&remote->lock);
    return mem_printf("Bearer %s", token);
}

/* The token of a registry that is known to want one, before it says so. What goes wrong here is
 * said by the registry's answer to the request. */
static void fetch_early(struct remote *remote, const char *scope)
{
    cleanup_challenge struct challenge challenge = {0};

    if (!scope || !remote_session_challenge(remote->session, &challenge) ||
        remote_session_begin(remote->session, remote->call->deadline, remote->call->cancel, NULL) !=
            0)
        return;
    cleanup_free char *there = remote_session_token(remote->session, scope);
    if (!there)
        remote_fetch_token(remote, scope, &challenge, false, NULL);
    remote_session_end(remote->session);
}

int remote_authorize(struct remote *remote, const char *scope, char **out, struct error *err)
{
    int status = 0;

    *out = NULL;
    pthread_mutex_lock(&remote->lock);
    if (!remote->credentials_known)
        status = load_credentials(remote, scope, err);
    pthread_mutex_unlock(&remote->lock);
    if (status != 0)
        return -1;
    if (remote->login.bearer) {
        *out = mem_printf("Bearer %s", remote->login.bearer);
        return 0;
    }
    *out = bearer(remote, scope);
    if (!*out) {
        fetch_early(remote, scope);
        *out = bearer(remote, scope);
    }
    if (!*out && remote->login.password && remote_session_basic(remote->session))
        *out = remote_basic(remote);
    return 0;
}

/* ---- challenges ---- */

static int answer_bearer(struct remote *remote, const char *scope,
                         const struct challenge *challenge, const char *used, int attempt,
                         struct error *err)
{
    struct remote_session *session = remote->session;

    if (attempt > 1)
        return 0;
    if (remote_session_begin(session, remote->call->deadline, remote->call->cancel, err) != 0)
        return -1;
    const char *refused = used && strncmp(used, "Bearer ", 7) == 0 ? used + 7 : NULL;
    if (refused)
        remote_session_drop(session, refused);
    cleanup_free char *there = remote_session_token(session, scope ? scope : "");
    int result = 1; /* another thread has asked meanwhile */
    if (!there) {
        remote_session_set_challenge(session, challenge);
        result = remote_fetch_token(remote, scope, challenge, attempt > 0, err) == 0 ? 1 : -1;
    }
    remote_session_end(session);
    return result;
}

int remote_challenge(struct remote *remote, const char *scope, const struct http_headers *headers,
                     const char *used, int attempt, struct error *err)
{
    cleanup_challenge struct challenge token = {0};
    cleanup_challenge struct challenge basic = {0};

    if (remote->login.bearer)
        return 0; /* a token that was given: there is no other */
    if (challenge_find(headers, "Bearer", &token) && token.realm)
        return answer_bearer(remote, scope, &token, used, attempt, err);
    bool tried = used && strncmp(used, "Basic ", 6) == 0;
    if (tried || !challenge_find(headers, "Basic", &basic) || !remote->login.user ||
        !remote->login.password)
        return 0;
    remote_session_set_basic(remote->session);
    return 1;
}
