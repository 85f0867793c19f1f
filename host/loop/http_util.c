/* Headers, URLs, proxies, and the error for a reply that nobody wants. */
#include "loop/http.h"

#include "base/mem.h"
#include "loop/http_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

void http_header_add(struct http_headers *headers, const char *name, const char *value)
{
    if (headers->count == headers->room) {
        headers->room = headers->room ? headers->room * 2 : 8;
        headers->items = mem_array(headers->items, headers->room, sizeof(*headers->items));
    }
    headers->items[headers->count].name = mem_strdup(name);
    headers->items[headers->count].value = mem_strdup(value);
    headers->count++;
}

const char *http_header_get(const struct http_headers *headers, const char *name)
{
    for (size_t i = 0; i < headers->count; i++)
        if (strcasecmp(headers->items[i].name, name) == 0)
            return headers->items[i].value;
    return NULL;
}

void http_headers_free(struct http_headers *headers)
{
    for (size_t i = 0; i < headers->count; i++) {
        free(headers->items[i].name);
        free(headers->items[i].value);
    }
    free(headers->items);
    *headers = (struct http_headers){0};
}

void http_response_free(struct http_response *response)
{
    http_headers_free(&response->headers);
    buf_free(&response->body);
    free(response->url);
    *response = (struct http_response){0};
}

void url_escape(const char *text, size_t len, struct buf *out)
{
    static const char digits[] = "0123456789ABCDEF";

    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
            (c && strchr("-._~", c))) {
            buf_putc(out, (char)c);
        } else {
            buf_putc(out, '%');
            buf_putc(out, digits[c >> 4]);
            buf_putc(out, digits[c & 15]);
        }
    }
}

/* A part of a URL, or NULL. Freed with curl_free. */
static char *url_part(CURLU *url, CURLUPart part)
{
    char *text = NULL;

    if (curl_url_get(url, part, &text, CURLU_DEFAULT_PORT) != CURLUE_OK)
        return NULL;
    return text;
}

void url_print_safe(const char *text, struct buf *out)
{
    CURLU *url = curl_url();

    if (!url || curl_url_set(url, CURLUPART_URL, text, 0) != CURLUE_OK) {
        /* not a URL: show what stands before anything that could be a secret */
        const char *host = strstr(text, "://");
        host = host ? host + 3 : text;
        buf_append(out, text, strchr(host, '@') ? (size_t)(host - text) : strcspn(text, "?#"));
        if (strchr(host, '@'))
            buf_puts(out, "...");
        curl_url_cleanup(url);
        return;
    }
    char *query = url_part(url, CURLUPART_QUERY);
    char *clean = NULL;
    curl_url_set(url, CURLUPART_USER, NULL, 0);
    curl_url_set(url, CURLUPART_PASSWORD, NULL, 0);
    curl_url_set(url, CURLUPART_OPTIONS, NULL, 0);
    curl_url_set(url, CURLUPART_QUERY, NULL, 0);
    curl_url_set(url, CURLUPART_FRAGMENT, NULL, 0);
    if (curl_url_get(url, CURLUPART_URL, &clean, 0) == CURLUE_OK)
        buf_puts(out, clean);
    if (query)
        buf_puts(out, "?...");
    curl_free(query);
    curl_free(clean);
    curl_url_cleanup(url);
}

bool url_same_origin(const char *a, const char *b)
{
    static const CURLUPart parts[] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
    CURLU *left = curl_url();
    CURLU *right = curl_url();
    bool same = left && right && curl_url_set(left, CURLUPART_URL, a, 0) == CURLUE_OK &&
                curl_url_set(right, CURLUPART_URL, b, 0) == CURLUE_OK;

    for (size_t i = 0; same && i < sizeof(parts) / sizeof(parts[0]); i++) {
        char *x = url_part(left, parts[i]);
        char *y = url_part(right, parts[i]);
        same = x && y && strcasecmp(x, y) == 0;
        curl_free(x);
        curl_free(y);
    }
    curl_url_cleanup(left);
    curl_url_cleanup(right);
    return same;
}

/* host is covered by one entry of a no_proxy list: "*", "name", ".suffix", each also matching
 * subdomains. */
static bool host_listed(const char *list, const char *host)
{
    size_t host_len = strlen(host);

    for (const char *at = list; *at;) {
        at += strspn(at, ", \t");
        size_t len = strcspn(at, ", \t");
        const char *entry = at;
        at += len;
        if (len == 1 && *entry == '*')
            return true;
        if (len && *entry == '.') {
            entry++;
            len--;
        }
        if (!len || len > host_len || strncasecmp(host + host_len - len, entry, len) != 0)
            continue;
        if (len == host_len || host[host_len - len - 1] == '.')
            return true;
    }
    return false;
}

static const char *first_variable(const char *const *names)
{
    for (; *names; names++) {
        const char *text = getenv(*names);
        if (text && *text)
            return text;
    }
    return NULL;
}

char *proxy_from_environment(const char *scheme, const char *host)
{
    /* HTTP_PROXY in capitals is not read: a CGI-like parent sets it from a request header
     * (httpoxy). */
    static const char *const for_http[] = {"http_proxy", "all_proxy", "ALL_PROXY", NULL};
    static const char *const for_https[] = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY",
                                            NULL};
    static const char *const without[] = {"no_proxy", "NO_PROXY", NULL};
    const char *proxy = first_variable(strcmp(scheme, "https") == 0 ? for_https : for_http);
    const char *list = first_variable(without);

    if (!proxy || (list && host_listed(list, host)))
        return mem_strdup("");
    if (strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
        strcmp(host, "[::1]") == 0)
        return mem_strdup("");
    return mem_strdup(proxy);
}

int64_t retry_after_ms(const char *text, int64_t wall_ms)
{
    char *end;
    int64_t wait;

    if (!text || !*text)
        return -1;
    long long seconds = strtoll(text, &end, 10);
    if (end != text && *end == '\0') {
        if (seconds > RETRY_AFTER_CAP_MS / 1000)
            return RETRY_AFTER_CAP_MS;
        wait = seconds < 0 ? 0 : seconds * 1000;
    } else {
        time_t date = curl_getdate(text, NULL);
        if (date == (time_t)-1)
            return -1;
        wait = (int64_t)date * 1000 - wall_ms;
    }
    return wait < 0 ? 0 : wait > RETRY_AFTER_CAP_MS ? RETRY_AFTER_CAP_MS : wait;
}

static enum error_code status_code(int status)
{
    switch (status) {
    case 400:
    case 422:
        return ERR_INVALID;
    case 401:
        return ERR_UNAUTHORIZED;
    case 403:
        return ERR_FORBIDDEN;
    case 404:
    case 410:
        return ERR_NOT_FOUND;
    case 408:
    case 504:
        return ERR_TIMEOUT;
    case 409:
    case 412:
        return ERR_CONFLICT;
    case 413:
        return ERR_TOO_LARGE;
    case 429:
        return ERR_RATE_LIMITED;
    case 405:
    case 501:
        return ERR_UNSUPPORTED;
    default:
        return status >= 500 ? ERR_UNAVAILABLE : ERR_FAILED;
    }
}

static const char *status_words(int status)
{
    switch (status) {
    case 400:
        return "bad request";
    case 401:
        return "not authenticated";
    case 403:
        return "forbidden";
    case 404:
        return "not found";
    case 405:
        return "method not allowed";
    case 408:
        return "request timed out";
    case 409:
        return "conflict";
    case 413:
        return "too large";
    case 429:
        return "too many requests";
    case 500:
        return "internal server error";
    case 501:
        return "not implemented";
    case 502:
        return "bad gateway";
    case 503:
        return "service unavailable";
    case 504:
        return "gateway timed out";
    default:
        return "";
    }
}

/* The start of a body as one readable line: tags of an HTML page and control characters
 * left out. */
static void quote_body(const struct buf *body, struct buf *out)
{
    bool in_tag = false;
    bool space = true;
    bool html = body->len && *body->data == '<';

    for (size_t i = 0; i < body->len && out->len < 300; i++) {
        unsigned char c = (unsigned char)body->data[i];
        if (html && (c == '<' || c == '>')) {
            in_tag = c == '<';
            c = ' ';
        } else if (in_tag) {
            continue;
        }
        if (c <= ' ' || c == 0x7f) {
            if (!space)
                buf_putc(out, ' ');
            space = true;
        } else {
            buf_putc(out, (char)c);
            space = false;
        }
    }
}

int http_status_error(const struct http_request *request, const struct http_response *response,
                      const char *detail, struct error *err)
{
    cleanup_buf struct buf url = BUF_INIT;
    cleanup_buf struct buf quoted = BUF_INIT;
    int status = response->status;
    const char *words = status_words(status);

    if (!detail || !*detail) {
        quote_body(&response->body, &quoted);
        detail = quoted.len ? quoted.data : NULL;
    }
    url_print_safe(response->url ? response->url : request->url, &url);
    error_set(err, status_code(status), "%s %s answered %d%s%s%s%s",
              request->method ? request->method : "GET", url.len ? url.data : "", status,
              *words ? " " : "", words, detail ? ": " : "", detail ? detail : "");
    if (!err)
        return -1;
    err->status = status;
    err->retryable = status == 408 || status == 425 || status == 429 || status >= 500;
    if (status == 401)
        error_hint(err, "give this service credentials: `auth` in the active profile of "
                        "mlhost.yaml, or its variables");
    else if (status == 403)
        error_hint(err, "the credentials are known but not allowed to do this; ask for the role, "
                        "or use others");
    else if (status == 429) {
        const char *after = http_header_get(&response->headers, "Retry-After");
        error_hint(err, "tried %d times; the service asks to slow down%s%s", response->attempts,
                   after ? ", Retry-After: " : "", after ? after : "");
    } else if (status >= 500 && response->attempts > 1)
        error_hint(err, "tried %d times; look at the service's own log", response->attempts);
    else if (status >= 500)
        error_hint(err, "look at the service's own log");
    return -1;
}
