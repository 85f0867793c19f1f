/* seldon.request: one exchange with an ingress or a model server. What a status means is the
 * protocol's business, which is Lua. */
#include "service/rest.h"

#include "base/mem.h"

#include <stdlib.h>

int rest_add_headers(const struct value *map, struct http_headers *headers, struct error *err)
{
    for (size_t i = 0; map && map->kind == VALUE_MAP && i < value_count(map); i++) {
        const struct value_pair *pair = &map->as.map.pairs[i];
        if (pair->value.kind == VALUE_INT) {
            cleanup_free char *text = mem_printf("%lld", (long long)pair->value.as.integer);
            http_header_add(headers, pair->key, text);
        } else if (pair->value.kind == VALUE_STRING) {
            http_header_add(headers, pair->key, pair->value.as.string.data);
        } else {
            return error_set(err, ERR_USAGE, "the header '%s' must be a string, not a %s",
                             pair->key, value_kind_name(&pair->value));
        }
    }
    return 0;
}

static void answer(struct http_response *response, struct value *out)
{
    value_set_map(out);
    value_put_int(out, "status", response->status);
    value_set_bytes(value_put(out, "body"), response->body.len ? response->body.data : "",
                    response->body.len);
    struct value *headers = value_put(out, "headers");
    value_set_map(headers);
    for (size_t i = 0; i < response->headers.count; i++) {
        char *name = response->headers.items[i].name;
        for (char *p = name; *p; p++)
            if (*p >= 'A' && *p <= 'Z')
                *p = (char)(*p + 'a' - 'A');
        value_put_string(headers, name, response->headers.items[i].value);
    }
}

/*
 * seldon.request(client, method, path, headers?, body?, content_type?, timeout?, limit?)
 *   -> { status, headers (names in lower case), body (bytes) }
 *
 *   path          string    below the client's address
 *   headers       map       texts by name; credentials are the client's own
 *   body          any       a string is sent as it is, byte for byte; anything else as JSON
 *   content_type  string    of the body, default application/json
 *   timeout       duration  default: the profile's, else 120s
 *   limit         int       bytes of a reply, default 16 MiB
 *   errors        unavailable, timeout, cancelled, denied: no reply came. It is sent once: who asks
 *                 whether a model is ready wants to hear that it is not.
 */
int prim_seldon_request(struct call *call, const struct value *args, struct value *out,
                        struct error *err)
{
    struct rest_client *client = rest_client_arg(call, args, err);
    const struct value *body = value_get(args, "body");
    const struct value *timeout = value_get(args, "timeout");
    int64_t limit = value_get_int(args, "limit", 0);
    struct http_request request = HTTP_REQUEST_INIT;
    cleanup_response struct http_response response = {0};
    cleanup_buf struct buf text = BUF_INIT;
    int result = -1;

    if (!client)
        return -1;
    request.method = value_get_string(args, "method", "GET");
    request.url = value_get_string(args, "path", "");
    request.repeat = HTTP_REPEAT_NEVER;
    request.reply_limit = limit > 0 ? (size_t)limit : 0;
    if (timeout && timeout->kind != VALUE_NIL)
        request.deadline = call->deadline; /* the broker has applied it */
    if (request.url[0] != '/')
        return error_set(err, ERR_USAGE, "seldon.request: the path '%s' must begin with '/'",
                         request.url);
    if (rest_add_headers(value_get(args, "headers"), &request.headers, err) != 0)
        goto out;
    if (body && body->kind == VALUE_STRING) {
        request.body = body->as.string.data;
        request.body_len = body->as.string.len;
    } else if (body && body->kind != VALUE_NIL) {
        value_to_json(body, 0, &text);
        request.body = text.data;
        request.body_len = text.len;
    }
    if (request.body && !http_header_get(&request.headers, "Content-Type"))
        http_header_add(&request.headers, "Content-Type",
                        value_get_string(args, "content_type", "application/json"));
    if (rest_exchange(call, client, &request, &response, err) != 0)
        goto out;
    answer(&response, out);
    result = 0;
out:
    http_headers_free(&request.headers);
    return result == 0 ? 0 : error_wrap(err, "seldon.request");
}
