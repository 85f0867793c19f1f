/* One call of one endpoint: arguments into path, query and body; the reply, or the service's own
 * words, out. */
#include "service/rest.h"

#include "base/mem.h"
#include "loop/http_internal.h"
#include "service/client.h"

#include <stdlib.h>
#include <string.h>

#define JSON_REPLY_LIMIT (64u << 20)

/* ---- what services say when they refuse ---- */

/* MLflow's and Databricks' names where they say more than the status does. */
static enum error_code named_code(const char *name)
{
    static const struct {
        const char *name;
        enum error_code code;
    } names[] = {
        {"RESOURCE_ALREADY_EXISTS", ERR_EXISTS},
        {"ALREADY_EXISTS", ERR_EXISTS},
        {"RESOURCE_DOES_NOT_EXIST", ERR_NOT_FOUND},
        {"ENDPOINT_NOT_FOUND", ERR_NOT_FOUND},
        {"NOT_FOUND", ERR_NOT_FOUND},
        {"INVALID_PARAMETER_VALUE", ERR_INVALID},
        {"PERMISSION_DENIED", ERR_FORBIDDEN},
        {"UNAUTHENTICATED", ERR_UNAUTHORIZED},
        {"RESOURCE_CONFLICT", ERR_CONFLICT},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i].name, name) == 0)
            return names[i].code;
    return ERR_NONE;
}

/* google.rpc.Code, as the Kubeflow Pipelines gateway reports it. */
static enum error_code grpc_code(int64_t code)
{
    switch (code) {
    case 3:
        return ERR_INVALID;
    case 5:
        return ERR_NOT_FOUND;
    case 6:
        return ERR_EXISTS;
    case 7:
        return ERR_FORBIDDEN;
    case 16:
        return ERR_UNAUTHORIZED;
    default:
        return ERR_NONE;
    }
}

/* https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/ */
static void kubernetes_status(const struct value *status, struct buf *out, enum error_code *code)
{
    static const struct {
        const char *reason;
        enum error_code code;
    } reasons[] = {{"AlreadyExists", ERR_EXISTS},
                   {"Conflict", ERR_CONFLICT},
                   {"NotFound", ERR_NOT_FOUND},
                   {"Invalid", ERR_INVALID},
                   {"BadRequest", ERR_INVALID},
                   {"Unauthorized", ERR_UNAUTHORIZED},
                   {"Forbidden", ERR_FORBIDDEN},
                   {"TooManyRequests", ERR_RATE_LIMITED},
                   {"ServiceUnavailable", ERR_UNAVAILABLE},
                   {"Timeout", ERR_UNAVAILABLE},
                   {"RequestEntityTooLarge", ERR_TOO_LARGE}};
    const char *reason = value_get_string(status, "reason", "");
    const char *message = value_get_string(status, "message", reason);
    const struct value *causes = value_get(value_get(status, "details"), "causes");

    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (strcmp(reasons[i].reason, reason) == 0)
            *code = reasons[i].code;
    }
    buf_puts(out, message);
    for (size_t i = 0; i < value_count(causes); i++) {
        const char *field = value_get_string(value_at(causes, i), "field", "");
        const char *text = value_get_string(value_at(causes, i), "message", "");
        if (!strstr(message, text) || (*field && !strstr(message, field)))
            buf_printf(out, "%s%s%s%s", i ? "; " : ": ", field, *field ? ": " : "", text);
    }
    if (*code == ERR_CONFLICT && strstr(message, "Apply failed"))
        buf_puts(out, " (force = true takes these fields over)");
}

void rest_error_text(const struct buf *body, struct buf *out, enum error_code *code)
{
    cleanup_value struct value v = {0};
    struct error ignored = {0};
    const char *text;

    if (!body->len || value_from_json(body->data, body->len, "reply", NULL, &v, &ignored) != 0 ||
        v.kind != VALUE_MAP)
        return;
    const struct value *detail = value_at(value_get(&v, "details"), 0);
    const struct value *inner = value_get(&v, "error");
    if (strcmp(value_get_string(&v, "kind", ""), "Status") == 0) { /* Kubernetes */
        kubernetes_status(&v, out, code);
    } else if ((text = value_get_string(&v, "error_code", NULL))) { /* MLflow, Databricks */
        *code = named_code(text);
        const char *message = value_get_string(&v, "message", "");
        buf_printf(out, "%s%s%s", text, *message ? ": " : "", message);
    } else if ((text = value_get_string(detail, "message", NULL)) &&
               *text) { /* Kubeflow Pipelines */
        *code = grpc_code(value_get_int(&v, "code", 0));
        buf_puts(out, text);
    } else if ((text = value_get_string(&v, "error_message", NULL))) { /* its upload handlers */
        buf_puts(out, text);
        const char *more = value_get_string(&v, "error_details", NULL);
        if (more && strcmp(more, text) != 0)
            buf_printf(out, " (%s)", more);
    } else if ((text = value_get_string(&v, "error_description", NULL))) { /* OAuth 2.0 */
        buf_puts(out, text);
    } else if ((text = value_get_string(inner, "message", NULL))) { /* Azure Resource Manager */
        const char *name = value_get_string(inner, "code", NULL);
        buf_printf(out, "%s%s%s", name ? name : "", name ? ": " : "", text);
    } else if ((text = value_get_string(&v, "message", NULL))) { /* Azure DevOps, gRPC gateway */
        *code = grpc_code(value_get_int(&v, "code", 0));
        buf_puts(out, text);
    }
}

/* How credentials are given to this service, for a hint. */
static void credential_hint(const struct rest_client *client, struct error *err)
{
    const struct service *s = client->service;
    cleanup_buf struct buf text = BUF_INIT;

    if (client->auth.kind != AUTH_NONE)
        buf_printf(&text, "the credentials came from %s; check or renew them", client->auth.origin);
    else if (s->token && s->user)
        buf_printf(&text, "no credentials were sent; set %s, or %s and %s", s->token, s->user,
                   s->password);
    else if (s->token || s->token_file)
        buf_printf(&text, "no credentials were sent; set %s", s->token ? s->token : s->token_file);
    else if (s->tenant)
        buf_printf(&text, "no credentials were sent; set %s, %s and %s", s->tenant, s->client_id,
                   s->client_secret);
    else
        buf_printf(&text, "no credentials were sent; %s",
                   strcmp(s->name, "k8s") == 0 ? "set a user in the kubeconfig's context"
                                               : "give { auth = ... }");
    if (client->auth.kind == AUTH_NONE)
        buf_printf(&text, ", or profiles.%s.%s.auth in mlhost.yaml", client->profile, s->name);
    error_hint(err, "%s", text.data);
}

static bool is_json(const struct http_response *response)
{
    const char *type = http_header_get(&response->headers, "Content-Type");

    return type && strstr(type, "json");
}

static int refused(const struct rest_client *client, const struct http_request *request,
                   const struct http_response *response, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    enum error_code code = ERR_NONE;

    rest_error_text(&response->body, &text, &code);
    http_status_error(request, response, text.data, err);
    if (!err)
        return -1;
    if (code != ERR_NONE)
        err->code = code;
    if (response->status == 401 || response->status == 203 || response->status == 302) {
        err->code = ERR_UNAUTHORIZED;
        credential_hint(client, err);
    } else if (response->status == 404 && !is_json(response)) {
        error_hint(err, "is %s (from %s) the base address of this service?", client->url,
                   client->url_origin);
    } else if (response->status == 403 && !is_json(response) &&
               strcmp(client->service->name, "mlflow") == 0) {
        error_hint(err,
                   "since 3.5 an MLflow server refuses unknown Host headers; start it with "
                   "--allowed-hosts %s:%d",
                   client->host, client->port);
    }
    return -1;
}

/* Nothing came back: say where the address came from and what to do. */
static int unreachable(struct call *call, const struct rest_client *client, struct error *err)
{
    if (!err || err->code != ERR_UNAVAILABLE)
        return -1;
    if (client->unix_socket)
        return error_hint(err, "the embedded services do not answer; their log: %s/local/serve.log",
                          call_state_dir(call));
    if (client->service->embedded)
        return error_hint(
            err,
            "the address %s came from %s; start that server, or choose the profile local to use "
            "the embedded one (`mlhost serve` offers it on a port)",
            client->url, client->url_origin);
    return error_hint(err, "the address %s came from %s", client->url, client->url_origin);
}

/* ---- sending ---- */

/* The operator's own address is granted; redirects and script-given addresses are the policy's
 * business. */
static int allow(void *ctx, const char *host, int port, const char *address, struct error *err)
{
    struct rest_target *target = ctx;
    const struct rest_client *client = target->client;

    if (client->trusted && client->host && strcmp(client->host, host) == 0 && client->port == port)
        return 0;
    return call_http_allow(target->call, host, port, address, err);
}

int rest_target_open(struct call *call, struct rest_client *client, bool fresh,
                     struct http_request *request, struct rest_target *target, struct error *err)
{
    *target = (struct rest_target){.call = call, .client = client};
    for (size_t i = 0; i < request->headers.count; i++)
        http_header_add(&target->headers, request->headers.items[i].name,
                        request->headers.items[i].value);
    for (size_t i = 0; i < client->headers.count; i++)
        http_header_add(&target->headers, client->headers.items[i].name,
                        client->headers.items[i].value);
    if (auth_apply(call, client, fresh, &target->headers, err) != 0) {
        http_headers_free(&target->headers);
        return -1;
    }
    target->url = mem_printf("%s%s", client->url, request->url);
    request->url = target->url;
    request->headers = target->headers;
    request->unix_socket = client->unix_socket;
    request->ca_file = client->ca;
    pthread_mutex_lock(&client->lock); /* a credential plugin may be giving a new pair */
    request->client_cert = client->client_cert;
    request->client_key = client->client_key;
    pthread_mutex_unlock(&client->lock);
    request->tls_name = client->tls_name;
    request->proxy = client->proxy;
    request->proxy_host = client->proxy_host;
    request->proxy_port = client->proxy_port;
    request->insecure = client->insecure;
    request->cancel = call->cancel;
    request->allow = allow;
    request->allow_ctx = target;
    return 0;
}

void rest_target_close(struct rest_target *target)
{
    http_headers_free(&target->headers);
    free(target->url);
    *target = (struct rest_target){0};
}

static int send_once(struct call *call, struct rest_client *client, bool fresh,
                     const struct http_request *given, struct http_response *response,
                     struct error *err)
{
    struct http_request request = *given;
    struct http *http = call_http(call, err);
    struct rest_target target;
    int result;

    if (!http || rest_target_open(call, client, fresh, &request, &target, err) != 0)
        return -1;
    result = http_perform(http, &request, response, err);
    rest_target_close(&target);
    return result;
}

static int failed(const struct rest_client *client, const struct error *problem, struct error *err)
{
    if (err) {
        *err = *problem;
        snprintf(err->service, sizeof(err->service), "%s", client->service->name);
    }
    return -1;
}

int rest_exchange(struct call *call, struct rest_client *client, const struct http_request *given,
                  struct http_response *response, struct error *err)
{
    struct http_request request = *given;
    struct error problem = {0};
    int result;

    /* Azure DevOps redirects to its sign-in page instead of saying 401. */
    request.follow = strcmp(client->service->name, "azdo") != 0;
    /* Files take the time they take: their attempts end when bytes stop moving, and with
     * the stage. */
    bool file = request.body_fd >= 0 || request.reply_fd >= 0 || request.source || request.sink;
    if (!file && request.deadline == DEADLINE_NONE)
        request.deadline = deadline_in(client->timeout_ns);
    request.deadline = deadline_min(call->deadline, request.deadline);

    result = send_once(call, client, false, &request, response, &problem);
    if (result == 0 && response->status == 401 && auth_can_refresh(&client->auth) &&
        !request.source) {
        http_response_free(response);
        result = send_once(call, client, true, &request, response, &problem);
    }
    if (result == 0)
        return 0;
    unreachable(call, client, &problem);
    return failed(client, &problem, err);
}

int rest_send(struct call *call, struct rest_client *client, const struct http_request *request,
              struct http_response *response, struct error *err)
{
    bool azdo = strcmp(client->service->name, "azdo") == 0;
    struct error problem = {0};

    if (rest_exchange(call, client, request, response, err) != 0)
        return -1;
    if (response->status >= 200 && response->status <= 299 && !(azdo && response->status == 203))
        return 0;
    refused(client, request, response, &problem);
    return failed(client, &problem, err);
}

int rest_json(struct rest_client *client, const struct http_response *response, struct value *out,
              struct error *err)
{
    const char *type = http_header_get(&response->headers, "Content-Type");
    struct error problem = {0};

    if (!response->body.len) {
        value_set_map(out);
        return 0;
    }
    if (value_from_json(response->body.data, response->body.len, "the reply", NULL, out,
                        &problem) == 0)
        return 0;
    cleanup_buf struct buf url = BUF_INIT;
    url_print_safe(response->url, &url);
    error_set(err, ERR_INVALID, "%s answered %d with something that is not JSON (%s)", url.data,
              response->status, type ? type : "no content type");
    error_hint(err, "is %s (from %s) the base address of this service?", client->url,
               client->url_origin);
    if (err)
        snprintf(err->service, sizeof(err->service), "%s", client->service->name);
    return -1;
}

/* ---- arguments into a request ---- */

/* Takes the next word "argument" or "argument=wire"; false at the end. */
static bool next_word(const char **at, char argument[64], char wire[128])
{
    const char *p = *at ? *at + strspn(*at, " ") : "";
    size_t len = strcspn(p, " ");
    size_t name = strcspn(p, "= ");

    if (!len || name > 63 || len > 127)
        return false;
    memcpy(argument, p, name);
    argument[name] = '\0';
    const char *second = name < len ? p + name + 1 : p;
    size_t second_len = (size_t)(p + len - second);
    memcpy(wire, second, second_len);
    wire[second_len] = '\0';
    *at = p + len;
    return true;
}

/* A scalar as URL text; maps and arrays of maps as JSON. */
static void scalar_text(const struct value *v, struct buf *out)
{
    if (v->kind == VALUE_STRING)
        buf_append(out, v->as.string.data, v->as.string.len);
    else
        value_to_json(v, 0, out);
}

static int fill_path(const struct endpoint *endpoint, const struct value *args, struct buf *url,
                     struct error *err)
{
    for (const char *p = endpoint->path; *p;) {
        size_t plain = strcspn(p, "{");
        buf_append(url, p, plain);
        p += plain;
        if (!*p)
            break;
        bool slashes = p[1] == '+';
        const char *name = p + 1 + slashes;
        size_t len = strcspn(name, "}");
        cleanup_free char *key = mem_strndup(name, len);
        cleanup_buf struct buf text = BUF_INIT;
        const struct value *v = value_get(args, key);
        if (v && v->kind != VALUE_NIL)
            scalar_text(v, &text);
        if (!text.len)
            return error_set(err, ERR_USAGE, "the argument '%s' is empty", key);
        /* "." and ".." would climb in the path, whatever is escaped */
        if (strcmp(text.data, ".") == 0 || strcmp(text.data, "..") == 0 ||
            (slashes && strstr(text.data, "..")))
            return error_set(err, ERR_USAGE, "the argument '%s' may not be '%s'", key, text.data);
        for (const char *s = text.data, *end = s + text.len; s < end;) {
            size_t part = slashes ? strcspn(s, "/") : (size_t)(end - s);
            url_escape(s, part, url);
            s += part;
            if (s < end) {
                buf_putc(url, '/');
                s++;
            }
        }
        p = name + len + 1;
    }
    return 0;
}

static void add_query(struct buf *url, char *separator, const char *name, const struct value *v)
{
    cleanup_buf struct buf text = BUF_INIT;

    scalar_text(v, &text);
    buf_printf(url, "%c%s=", *separator, name);
    url_escape(text.len ? text.data : "", text.len, url);
    *separator = '&';
}

static void fill_query(const struct endpoint *endpoint, const struct value *args, struct buf *url)
{
    const char *at = endpoint->query;
    char argument[64];
    char wire[128];
    char separator = strchr(endpoint->path, '?') ? '&' : '?';

    if (endpoint->fixed_query) {
        buf_printf(url, "%c%s", separator, endpoint->fixed_query);
        separator = '&';
    }
    while (next_word(&at, argument, wire)) {
        const struct value *v = value_get(args, argument);
        if (!v || v->kind == VALUE_NIL)
            continue;
        if (v->kind == VALUE_ARRAY)
            for (size_t i = 0; i < value_count(v); i++)
                add_query(url, &separator, wire, value_at(v, i));
        else
            add_query(url, &separator, wire, v);
    }
}

/* The body, and what it is; false when there is none. */
static bool fill_body(const struct endpoint *endpoint, const struct value *args, struct buf *body,
                      const char **type)
{
    const char *at = endpoint->body;
    char argument[64];
    char wire[128];
    cleanup_value struct value map = {0};

    *type = "application/json";
    if (at && (*at == '@' || *at == '*')) {
        const struct value *v = value_get(args, at + 1);
        if (*at == '@') {
            *type = "application/octet-stream";
            if (v && v->kind == VALUE_STRING)
                buf_append(body, v->as.string.data, v->as.string.len);
            else
                buf_puts(body, "");
        } else if (v && v->kind != VALUE_NIL && value_count(v)) {
            value_to_json(v, 0, body);
        } else {
            buf_puts(body, "{}");
        }
        return true;
    }
    if (!at && (strcmp(endpoint->method, "GET") == 0 || strcmp(endpoint->method, "DELETE") == 0))
        return false;
    value_set_map(&map);
    while (next_word(&at, argument, wire)) {
        const struct value *v = value_get(args, argument);
        if (v && v->kind != VALUE_NIL)
            value_copy(value_put(&map, wire), v);
    }
    value_to_json(&map, 0, body);
    return true;
}

/* { <items> = [...], next_page_token = "..." } -> { items = [...], next = "..." } */
static void as_page(const char *items, struct value *reply)
{
    struct value page = {0};
    struct value *list = value_get(reply, items);
    const char *next = value_get_string(reply, "next_page_token", NULL);

    value_set_map(&page);
    if (list && list->kind == VALUE_ARRAY)
        value_move(value_put(&page, "items"), list);
    else
        value_set_array(value_put(&page, "items"));
    if (next && *next)
        value_put_string(&page, "next", next);
    value_free(reply);
    *reply = page;
}

int prim_rest(struct call *call, const struct value *args, struct value *out, struct error *err)
{
    const struct endpoint *endpoint = call->row->data;
    struct rest_client *client = rest_client_arg(call, args, err);
    cleanup_buf struct buf url = BUF_INIT;
    cleanup_buf struct buf body = BUF_INIT;
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;
    const char *type;
    struct error problem = {0};

    if (!client)
        return -1;
    if (fill_path(endpoint, args, &url, &problem) != 0)
        goto fail;
    fill_query(endpoint, args, &url);
    request.method = endpoint->method;
    request.url = url.data;
    request.repeat = endpoint->repeat;
    request.reply_limit = JSON_REPLY_LIMIT;
    if (fill_body(endpoint, args, &body, &type)) {
        request.body = body.data;
        request.body_len = body.len;
        http_header_add(&request.headers, "Content-Type", type);
    }
    http_header_add(&request.headers, "Accept",
                    endpoint->reply == REST_TEXT ? "*/*" : "application/json");
    int result = rest_send(call, client, &request, &response, &problem);
    http_headers_free(&request.headers);
    if (result != 0)
        goto fail;
    if (endpoint->reply == REST_TEXT) {
        value_set_bytes(out, response.body.len ? response.body.data : "", response.body.len);
        return 0;
    }
    if (rest_json(client, &response, out, &problem) != 0)
        goto fail;
    if (endpoint->items)
        as_page(endpoint->items, out);
    return 0;
fail:
    if (err)
        *err = problem;
    return error_wrap(err, "%s", call->row->sign.name);
}
