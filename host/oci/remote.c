/* Requests to a registry: where to, with whose credentials, and what its errors mean. */
#include "oci/remote.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/remote_header.h"

#define WARNINGS_LIMIT 4096

void remote_free(struct remote *remote)
{
    if (!remote)
        return;
    char *texts[] = {remote->host,      remote->base,  remote->base_host,   remote->unix_socket,
                     remote->ca,        remote->proxy, remote->client_cert, remote->client_key,
                     remote->mirror_of, remote->masked};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    while (remote->mirrors) {
        struct remote *next = remote->mirrors->next_mirror;
        remote_free(remote->mirrors);
        remote->mirrors = next;
    }
    docker_login_free(&remote->login);
    value_free(&remote->azure);
    remote_session_put(remote->session);
    pthread_mutex_destroy(&remote->lock);
    free(remote);
}

void remote_cleanup(struct remote **remote)
{
    remote_free(*remote);
}

/* "https://Acme.azurecr.io/team/" -> "Acme.azurecr.io" and "team". */
static char *url_host(const char *url, char **prefix)
{
    const char *start = strstr(url, "://") ? strstr(url, "://") + 3 : url;
    size_t len = strcspn(start, "/");

    if (prefix) {
        const char *path = start + len + strspn(start + len, "/");
        size_t path_len = strlen(path);
        while (path_len && path[path_len - 1] == '/')
            path_len--;
        *prefix = path_len ? mem_strndup(path, path_len) : NULL;
    }
    return mem_strndup(start, len);
}

char *remote_default_host(struct call *call)
{
    struct service_target target;

    call_service(call, "registry", &target);
    const char *url = value_get_string(target.config, "url", NULL);
    return url ? url_host(url, NULL) : mem_strdup(LOCAL_REGISTRY);
}

char *remote_default_prefix(struct call *call)
{
    struct service_target target;
    char *prefix = NULL;

    call_service(call, "registry", &target);
    const char *repository = value_get_string(target.config, "repository", NULL);
    const char *url = value_get_string(target.config, "url", NULL);
    if (repository)
        return mem_strdup(repository);
    if (url)
        free(url_host(url, &prefix));
    return prefix;
}

static char *config_path(struct call *call, const struct value *config, const char *key)
{
    const char *path = value_get_string(config, key, NULL);

    return path ? path_join(call_workspace(call), path) : NULL;
}

static int use_config(struct remote *remote, const struct value *config, struct error *err)
{
    const char *url = value_get_string(config, "url", "");
    bool plain = strncmp(url, "http://", 7) == 0;

    remote->config = config;
    remote->insecure = value_get_bool(config, "insecure", false);
    remote->ca = config_path(remote->call, config, "ca");
    remote->client_cert = config_path(remote->call, config, "client_cert");
    remote->client_key = config_path(remote->call, config, "client_key");
    remote->proxy = mem_strdup(value_get_string(config, "proxy", NULL));
    if (plain && !remote->insecure && !host_is_loopback(remote->host)) {
        error_set(err, ERR_INVALID, "the registry %s is configured with plain http", remote->host);
        return error_hint(err,
                          "use https://, or say `insecure: true` beside the url in mlhost.yaml");
    }
    if (plain || strncmp(url, "https://", 8) == 0) {
        cleanup_free char *host = url_host(url, NULL);
        free(remote->base);
        remote->base = mem_printf("http%s://%s", plain ? "" : "s", host);
    }
    return 0;
}

/* Certificates where Docker and containers-certs.d(5) have them; a host that has some is one of
 * https. */
static void use_certificates(struct remote *remote)
{
    static const char *const folders[] = {".config/containers/certs.d", ".config/docker/certs.d",
                                          "/etc/containers/certs.d", "/etc/docker/certs.d"};
    const char *home = getenv("HOME");

    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        if (*folders[i] != '/' && (!home || !*home))
            continue;
        cleanup_free char *folder =
            *folders[i] == '/' ? mem_strdup(folders[i]) : path_join(home, folders[i]);
        cleanup_free char *ca = mem_printf("%s/%s/ca.crt", folder, remote->host);
        cleanup_free char *cert = mem_printf("%s/%s/client.cert", folder, remote->host);
        cleanup_free char *key = mem_printf("%s/%s/client.key", folder, remote->host);
        bool has_ca = access(ca, R_OK) == 0;
        bool has_key = access(cert, R_OK) == 0 && access(key, R_OK) == 0;
        if (!has_ca && !has_key)
            continue;
        if (has_ca)
            remote->ca = steal_ptr(&ca);
        if (has_key) {
            remote->client_cert = steal_ptr(&cert);
            remote->client_key = steal_ptr(&key);
        }
        free(remote->base);
        remote->base = mem_printf("https://%s", remote->host);
        return;
    }
}

/* "https://[::1]:5000" -> host and port, for the permission check. */
static void split_base(struct remote *remote)
{
    const char *name = strstr(remote->base, "://") + 3;

    if (*name == '[') {
        size_t len = strcspn(name, "]");
        remote->base_host = mem_strndup(name + 1, len - 1);
        name += len;
    } else {
        remote->base_host = mem_strndup(name, strcspn(name, ":"));
    }
    const char *port = strchr(name, ':');
    remote->base_port = port ? atoi(port + 1) : strncmp(remote->base, "https", 5) == 0 ? 443 : 80;
}

static int find_registry(struct remote *remote, struct error *err)
{
    const char *host = remote->host;
    struct service_target target;

    call_service(remote->call, "registry", &target);
    const char *url = value_get_string(target.config, "url", NULL);
    cleanup_free char *configured = url ? url_host(url, NULL) : NULL;
    if (strcmp(host, LOCAL_REGISTRY) == 0) {
        if (!target.unix_socket) {
            error_set(err, ERR_NOT_FOUND,
                      "%s is the registry of the profile local; the active one is %s", host,
                      target.profile ? target.profile : "another");
            return error_hint(
                err, "use --profile local, or the name of a registry that this profile can reach");
        }
        remote->unix_socket = mem_strdup(target.unix_socket);
        remote->trusted = true;
    }
    remote->base =
        mem_printf("http%s://%s", remote->unix_socket || host_is_loopback(host) ? "" : "s",
                   strcmp(host, DOCKER_HUB) == 0 ? "registry-1.docker.io" : host);
    const struct value *other = value_get(value_get(target.config, "hosts"), host);
    if (configured && strcasecmp(configured, host) == 0) {
        remote->trusted = true;
        return use_config(remote, target.config, err);
    }
    if (other)
        return use_config(remote, other, err);
    if (!remote->unix_socket)
        use_certificates(remote);
    return 0;
}

struct remote *remote_new(struct call *call, const char *host, struct error *err)
{
    struct http *http = call_http(call, err);

    if (!http)
        return NULL;
    struct remote *remote = mem_alloc(sizeof *remote);
    remote->call = call;
    remote->http = http;
    remote->host = mem_strdup(host);
    pthread_mutex_init(&remote->lock, NULL);
    if (find_registry(remote, err) != 0) {
        remote_free(remote);
        return NULL;
    }
    split_base(remote);
    remote->near = remote->unix_socket != NULL;
    return remote;
}

/* A registry that has copies of another one's images. It is the operator's word, so no permission
 * but that for the other one is needed. */
static struct remote *mirror_new(struct remote *origin, const char *url, struct error *err)
{
    cleanup_free char *name = url_host(url, NULL);
    cleanup_remote struct remote *mirror = remote_new(origin->call, name, err);
    bool plain = strncmp(url, "http://", 7) == 0;

    if (!mirror)
        return NULL;
    if (plain && !mirror->insecure && !host_is_loopback(name)) {
        error_set(err, ERR_INVALID, "the mirror %s of %s is configured with plain http", name,
                  origin->host);
        error_hint(err, "use https://, or say hosts: { \"%s\": { insecure: true } }", name);
        return NULL;
    }
    if (strstr(url, "://")) {
        free(mirror->base);
        mirror->base = mem_printf("http%s://%s", plain ? "" : "s", name);
        free(mirror->base_host);
        split_base(mirror);
    }
    mirror->trusted = true;
    mirror->mirror_of = mem_strdup(origin->host);
    return steal_ptr(&mirror);
}

/* The profile's `registry.mirrors` of this host, in their order. With the lock held. */
static int find_mirrors(struct remote *remote, struct error *err)
{
    struct service_target target;

    call_service(remote->call, "registry", &target);
    const struct value *list = value_get(value_get(target.config, "mirrors"), remote->host);
    bool one = list && list->kind == VALUE_STRING;
    size_t count = one ? 1 : value_count(list);
    if (count && !remote->trusted &&
        call_allow_net(remote->call, remote->base_host, remote->base_port, err) != 0)
        return -1;
    struct remote **last = &remote->mirrors;
    for (size_t i = 0; i < count; i++) {
        const char *url = value_text(one ? list : value_at(list, i), NULL);
        if (!url)
            return error_set(err, ERR_INVALID, "mlhost.yaml: mirrors of %s: texts are needed",
                             remote->host);
        *last = mirror_new(remote, url, err);
        if (!*last)
            return -1;
        last = &(*last)->next_mirror;
    }
    remote->mirrors_known = true;
    return 0;
}

/* Loopback, private, link-local: where nobody from outside may send us (the metadata service of a
 * cloud is there). */
static bool address_private(const char *address)
{
    struct in6_addr six;
    struct in_addr four;

    if (inet_pton(AF_INET6, address, &six) == 1) {
        if (IN6_IS_ADDR_V4MAPPED(&six))
            memcpy(&four, &six.s6_addr[12], sizeof four);
        else
            return IN6_IS_ADDR_LOOPBACK(&six) || IN6_IS_ADDR_LINKLOCAL(&six) ||
                   IN6_IS_ADDR_UNSPECIFIED(&six) || (six.s6_addr[0] & 0xfe) == 0xfc;
    } else if (inet_pton(AF_INET, address, &four) != 1) {
        return false;
    }
    uint32_t ip = ntohl(four.s_addr);
    return ip >> 24 == 127 || ip >> 24 == 10 || ip >> 24 == 0 || ip >> 20 == 0xac1 ||
           ip >> 16 == 0xc0a8 || ip >> 16 == 0xa9fe || ip >> 22 == 0x191;
}

/* The registry itself is what policy has to grant; where it sends us (storage, token service) is
 * granted with it, but only the public net, unless it is on a private one itself. */
int remote_allow(void *ctx, const char *host, int port, const char *address, struct error *err)
{
    struct remote *remote = ctx;

    if (strcasecmp(host, remote->base_host) == 0 && port == remote->base_port) {
        if (address && address_private(address)) {
            remote->near = true;
            if (remote->session)
                remote_session_set_near(remote->session);
        }
        return remote->trusted ? 0 : call_http_allow(remote->call, host, port, address, err);
    }
    /* An earlier call may have seen where the registry is: this one has asked for a token first. */
    bool near = remote->near || (remote->session && remote_session_near(remote->session));
    if (!near && address_private(address ? address : host)) {
        error_set(err, ERR_DENIED, "the registry %s sends us to %s:%d (%s), a private address",
                  remote->host, host, port, address ? address : host);
        return error_hint(
            err, "if that is meant to be, grant it as a registry of its own: net = { \"%s:%d\" }",
            host, port);
    }
    return 0;
}

bool remote_own_url(const struct remote *remote, const char *url)
{
    size_t len = strlen(remote->base);

    return *url == '/' || (strncasecmp(url, remote->base, len) == 0 &&
                           (url[len] == '/' || url[len] == '?' || url[len] == '\0'));
}

/* A path becomes a URL; a mirror is told whose image is meant. Allocated. */
static char *whole_url(const struct remote *remote, const char *url)
{
    bool tell = remote->mirror_of && strncmp(url, "/v2/", 4) == 0;

    return mem_printf("%s%s%s%s", *url == '/' ? remote->base : "", url,
                      !tell              ? ""
                      : strchr(url, '?') ? "&ns="
                                         : "?ns=",
                      tell ? remote->mirror_of : "");
}

/* *used: the Authorization header that went out, allocated, or NULL. */
static int send_once(struct remote *remote, const char *scope, const struct http_request *given,
                     struct http_response *response, char **used, struct error *err)
{
    struct http_request request = *given;
    struct http_headers headers = {0};
    bool own = remote_own_url(remote, given->url);
    cleanup_free char *url = whole_url(remote, given->url);
    int status = 0;

    for (size_t i = 0; i < given->headers.count; i++)
        http_header_add(&headers, given->headers.items[i].name, given->headers.items[i].value);
    if (own)
        status = remote_authorize(remote, scope, used, err);
    if (*used)
        http_header_add(&headers, "Authorization", *used);
    request.url = url;
    request.headers = headers;
    request.unix_socket = own ? remote->unix_socket : NULL;
    request.ca_file = remote->ca;
    request.client_cert = own ? remote->client_cert : NULL;
    request.client_key = own ? remote->client_key : NULL;
    request.proxy = remote->proxy;
    request.insecure = remote->insecure;
    request.deadline = deadline_min(remote->call->deadline, given->deadline);
    request.cancel = remote->call->cancel;
    request.allow = remote_allow;
    request.allow_ctx = remote;
    if (status == 0)
        status = http_perform(remote->http, &request, response, err);
    http_headers_free(&headers);
    if (status != 0 && err) {
        snprintf(err->service, sizeof err->service, "registry");
        if (err->code == ERR_UNAVAILABLE && remote->unix_socket)
            error_hint(err, "the embedded services do not answer; their log: %s/local/serve.log",
                       call_state_dir(remote->call));
    }
    return status;
}

/* What the registry wants people to read (distribution-spec, Warnings): each text once. */
static void show_warnings(struct remote *remote, const struct http_headers *headers)
{
    size_t total = 0;

    for (size_t i = 0; i < headers->count; i++) {
        char text[512];
        if (strcasecmp(headers->items[i].name, "Warning") != 0 || !remote->session)
            continue;
        total += strlen(headers->items[i].value);
        if (total > WARNINGS_LIMIT || !warning_text(headers->items[i].value, text, sizeof text) ||
            !remote_session_warning(remote->session, text))
            continue;
        call_log(remote->call, "warning", "%s: %s", remote->host, text);
    }
}

static int send_here(struct remote *remote, const char *scope, const struct http_request *request,
                     struct http_response *response, struct error *err)
{
    for (int attempt = 0;; attempt++) {
        cleanup_free char *used = NULL;
        if (send_once(remote, scope, request, response, &used, err) != 0)
            return -1;
        show_warnings(remote, &response->headers);
        /* Whom the registry sends us to is told nothing of us, so its challenge has no answer. */
        if (response->status != 401 || request->source || !remote_own_url(remote, response->url))
            return 0;
        int again = remote_challenge(remote, scope, &response->headers, used, attempt, err);
        if (again <= 0) {
            if (again < 0)
                http_response_free(response);
            return again;
        }
        http_response_free(response);
        *response = (struct http_response){0};
    }
}

/* 1: a mirror has answered, 0: the registry itself is to be asked, -1. */
static int send_to_mirrors(struct remote *remote, const char *scope,
                           const struct http_request *request, struct http_response *response,
                           struct error *err)
{
    int status = 0;

    pthread_mutex_lock(&remote->lock);
    if (!remote->mirrors_known)
        status = find_mirrors(remote, err);
    pthread_mutex_unlock(&remote->lock);
    for (struct remote *mirror = remote->mirrors; mirror && status == 0;
         mirror = mirror->next_mirror) {
        struct http_request once = *request;
        struct error problem = {0};
        once.attempts = 1;
        if (mirror->dead)
            continue;
        if (send_here(mirror, scope, &once, response, &problem) == 0) {
            if (response->status >= 200 && response->status < 300)
                return 1;
            http_response_free(response);
            *response = (struct http_response){0};
            continue;
        }
        /* A part of the body may be at its sink: who has asked begins again, without this one. */
        mirror->dead = true;
        call_log(remote->call, "warning", "the mirror %s of %s fails: %s", mirror->host,
                 remote->host, problem.message);
        if (request->sink || cancelled(remote->call->cancel)) {
            if (err)
                *err = problem;
            return -1;
        }
    }
    return status;
}

int remote_send(struct remote *remote, const char *scope, const struct http_request *request,
                struct http_response *response, struct error *err)
{
    bool get = !request->method || strcmp(request->method, "GET") == 0 ||
               strcmp(request->method, "HEAD") == 0;

    if (remote->reading && get && strncmp(request->url, "/v2/", 4) == 0) {
        int answered = send_to_mirrors(remote, scope, request, response, err);
        if (answered != 0)
            return answered < 0 ? -1 : 0;
    }
    return send_here(remote, scope, request, response, err);
}

/* "CODE: message (detail); ..." of {"errors": [...]}. */
static void error_list(const struct buf *body, struct buf *out)
{
    static const struct text_limits limits = {.bytes = 64 * 1024, .depth = 16, .nodes = 2000};
    cleanup_value struct value document = {0};

    if (!body->len ||
        value_from_json(body->data, body->len, "reply", &limits, &document, NULL) != 0)
        return;
    const struct value *list = value_get(&document, "errors");
    for (size_t i = 0; i < value_count(list) && i < 5; i++) {
        const struct value *item = value_at(list, i);
        const struct value *detail = value_get(item, "detail");
        cleanup_buf struct buf more = BUF_INIT;
        buf_printf(out, "%s%s: %s", out->len ? "; " : "", value_get_string(item, "code", "UNKNOWN"),
                   value_get_string(item, "message", "no message"));
        if (detail && detail->kind == VALUE_STRING)
            buf_puts(&more, detail->as.string.data);
        else if (value_count(detail))
            value_to_json(detail, 0, &more);
        if (more.len)
            buf_printf(out, " (%.200s)", more.data);
    }
}

int remote_refused(struct remote *remote, const struct http_request *request,
                   const struct http_response *response, const char *what, struct error *err)
{
    cleanup_buf struct buf detail = BUF_INIT;
    struct http_request shown = *request;
    cleanup_free char *url = *request->url == '/' ? mem_printf("%s%s", remote->base, request->url)
                                                  : mem_strdup(request->url);

    shown.url = url;
    error_list(&response->body, &detail);
    http_status_error(&shown, response, detail.data, err);
    if (!err)
        return -1;
    snprintf(err->service, sizeof err->service, "registry");
    error_wrap(err, "%s", what);
    if (response->status == 401 || response->status == 403)
        error_hint(err,
                   "%s%s for %s: set `auth` of the registry in mlhost.yaml, or `docker login %s`",
                   remote->login.origin ? "the registry does not accept the credentials of "
                                        : "there are no credentials",
                   remote->login.origin ? remote->login.origin : "", remote->host, remote->host);
    else if (response->status == 404)
        error_hint(err,
                   "is the name right? registry.tags \"%s/NAME\" lists the tags of a repository",
                   remote->host);
    return -1;
}
