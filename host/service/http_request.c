/* http.request: any URL that the script's `net` permission allows. */
#include "service/rest.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int add_headers(struct call *call, const struct value *map, struct http_headers *headers,
                       struct error *err)
{
    for (size_t i = 0; map && map->kind == VALUE_MAP && i < value_count(map); i++) {
        const struct value_pair *pair = &map->as.map.pairs[i];
        size_t len;
        if (pair->value.kind == VALUE_INT) {
            cleanup_free char *text = mem_printf("%lld", (long long)pair->value.as.integer);
            http_header_add(headers, pair->key, text);
            continue;
        }
        const char *bytes = call_secret(call, &pair->value, &len, err);
        if (!bytes)
            return error_wrap(err, "the header '%s'", pair->key);
        cleanup_free char *text = mem_strndup(bytes, len);
        http_header_add(headers, pair->key, text);
    }
    return 0;
}

/* A bearer token as a header: the prefix goes before the secret, which the script cannot
 * do itself. */
static int add_bearer(struct call *call, const struct value *token, struct http_headers *headers,
                      struct error *err)
{
    size_t len;

    if (!token || token->kind == VALUE_NIL)
        return 0;
    const char *bytes = call_secret(call, token, &len, err);
    if (!bytes)
        return error_wrap(err, "bearer");
    cleanup_free char *text = mem_printf("Bearer %.*s", (int)len, bytes);
    http_header_add(headers, "Authorization", text);
    return 0;
}

static int open_body(struct call *call, const struct value *args, struct http_request *request,
                     int *fd, struct error *err)
{
    const char *from = value_get_string(args, "from", NULL);
    const struct value *body = value_get(args, "body");
    struct stat st;

    if (from) {
        cleanup_free char *path = call_path(call, from, ACCESS_READ, err);
        if (!path)
            return -1;
        *fd = call_open(path, O_RDONLY | O_NONBLOCK, 0, NULL);
        if (*fd < 0 || fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode))
            return error_errno(err, *fd < 0 ? errno : EINVAL, "cannot send '%s'", from);
        request->body_fd = *fd;
        request->body_size = (uint64_t)st.st_size;
    } else if (body && body->kind != VALUE_NIL) {
        size_t len;
        const char *bytes = call_secret(call, body, &len, err);
        if (!bytes)
            return error_wrap(err, "body");
        request->body = bytes;
        request->body_len = len;
    }
    return 0;
}

static void answer(const struct http_response *response, struct value *out)
{
    struct value *headers;

    value_set_map(out);
    value_put_int(out, "status", response->status);
    value_put_string(out, "url", response->url);
    value_set_bytes(value_put(out, "body"), response->body.len ? response->body.data : "",
                    response->body.len);
    headers = value_put(out, "headers");
    value_set_map(headers);
    for (size_t i = 0; i < response->headers.count; i++) {
        cleanup_free char *name = mem_strdup(response->headers.items[i].name);
        for (char *p = name; *p; p++)
            if (*p >= 'A' && *p <= 'Z')
                *p = (char)(*p + 'a' - 'A');
        value_put_string(headers, name, response->headers.items[i].value);
    }
}

/*
 * http.request(url, method?, headers?, bearer?, body?, from?, to?, timeout?, follow?, limit?,
 * retry?, check?)
 *   -> { status, headers (names in lower case), body, url }
 *
 *   url      string    http or https                                      [permission: net]
 *   headers  map       texts or secrets by name; `bearer` is a secret for "Authorization: Bearer"
 *   body     secret    bytes to send; or `from`, a file                   [permission: read]
 *   to       path      where a 2xx body goes instead of into the reply    [permission: write]
 *   limit    int       bytes of a reply that is kept in memory, default 16 MiB
 *   timeout  duration  for all attempts, default 60s (of file transfers: until the stage ends)
 *   retry    bool      true: repeat even a POST; false: repeat nothing; default: what is safe
 *   check    bool      false: any status is a reply; default: 400 and above is an error
 */
int prim_http_request(struct call *call, const struct value *args, struct value *out,
                      struct error *err)
{
    struct http *http = call_http(call, err);
    struct http_request request = HTTP_REQUEST_INIT;
    cleanup_response struct http_response response = {0};
    cleanup_close int body_fd = -1;
    cleanup_close int reply_fd = -1;
    cleanup_free char *to = NULL;
    cleanup_free char *part = NULL;
    const struct value *retry = value_get(args, "retry");
    const struct value *timeout = value_get(args, "timeout");
    int64_t limit = 60 * NS_PER_S;
    int result = -1;

    if (!http)
        return -1;
    request.url = value_get_string(args, "url", "");
    request.method = value_get_string(args, "method", "GET");
    if (add_headers(call, value_get(args, "headers"), &request.headers, err) != 0 ||
        add_bearer(call, value_get(args, "bearer"), &request.headers, err) != 0 ||
        open_body(call, args, &request, &body_fd, err) != 0)
        goto out;
    if (value_get_string(args, "to", NULL)) {
        to = call_path(call, value_get_string(args, "to", ""), ACCESS_WRITE, err);
        if (!to)
            goto out;
        cleanup_free char *folder = mem_strdup(to);
        *strrchr(folder, '/') = '\0';
        if (folder[0] && dir_make(folder, err) != 0)
            goto out;
        part = mem_printf("%s.part", to);
        reply_fd = call_open(part, O_RDWR | O_CREAT | O_TRUNC, 0666, err);
        if (reply_fd < 0) {
            error_wrap(err, "cannot write the reply");
            goto out;
        }
        request.reply_fd = reply_fd;
    }
    if (timeout && timeout->kind == VALUE_STRING &&
        duration_parse(timeout->as.string.data, &limit, err) != 0)
        goto out;
    if (timeout && (timeout->kind == VALUE_INT || timeout->kind == VALUE_REAL))
        limit = (int64_t)(value_get_real(args, "timeout", 60) * (double)NS_PER_S);
    request.deadline = !timeout && (body_fd >= 0 || reply_fd >= 0)
                           ? call->deadline
                           : deadline_min(call->deadline, deadline_in(limit));
    request.cancel = call->cancel;
    request.reply_limit =
        value_get_int(args, "limit", 0) > 0 ? (size_t)value_get_int(args, "limit", 0) : 0;
    request.follow = value_get_bool(args, "follow", true);
    request.allow = call_http_allow;
    request.allow_ctx = call;
    if (retry && retry->kind == VALUE_BOOL)
        request.repeat = retry->as.boolean ? HTTP_REPEAT_ALWAYS : HTTP_REPEAT_NEVER;
    result = http_perform(http, &request, &response, err);
    if (result == 0 && response.status >= 400 && value_get_bool(args, "check", true)) {
        cleanup_buf struct buf text = BUF_INIT;
        enum error_code code = ERR_NONE;
        rest_error_text(&response.body, &text, &code);
        result = http_status_error(&request, &response, text.data, err);
        if (response.status == 401)
            error_hint(err, "pass `bearer = secret.get \"NAME\"`, or a header with a secret");
    }
    if (result == 0 && part && response.status >= 200 && response.status < 300 &&
        rename(part, to) != 0)
        result = error_errno(err, errno, "cannot write '%s'", to);
    if (result == 0)
        answer(&response, out);
out:
    if (part)
        unlink(part);
    http_headers_free(&request.headers);
    return result;
}
