/* What servers say in headers and bodies, and the URLs that end up in messages. The first byte
 * chooses. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "loop/http_internal.h"
#include "oci/remote_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void retry_after(const char *text)
{
    int64_t wait = retry_after_ms(text, INT64_C(1700000000000));

    check(wait >= -1 && wait <= RETRY_AFTER_CAP_MS);
}

static void registry_headers(const char *text)
{
    struct http_headers headers = {0};
    cleanup_challenge struct challenge challenge = {0};

    http_header_add(&headers, "www-authenticate", text);
    http_header_add(&headers, "link", text);
    if (!challenge_find(&headers, "Bearer", &challenge))
        check(!challenge.realm && !challenge.service && !challenge.scope);
    cleanup_free char *next = link_next(&headers);
    check(!next || (!strchr(next, '>') && strstr(text, next)));
    http_headers_free(&headers);
}

static void url(const char *text)
{
    static const char secret[] = "s3cr3t-of-7";
    cleanup_buf struct buf shown = BUF_INIT;
    cleanup_free char *with_user = mem_printf("https://robot:%s@%s", secret, text);
    cleanup_free char *with_query = mem_printf("%s?sig=%s", text, secret);

    if (strstr(text, secret))
        return;
    url_print_safe(with_user, &shown);
    url_print_safe(with_query, &shown);
    check(!shown.data || !strstr(shown.data, secret));
    if (url_same_origin(with_user, text))
        check(url_same_origin(text, with_user));
}

static void escape(const char *text, size_t len)
{
    cleanup_buf struct buf escaped = BUF_INIT;
    int back_len;

    url_escape(text, len, &escaped);
    char *back =
        curl_easy_unescape(NULL, escaped.data ? escaped.data : "", (int)escaped.len, &back_len);
    check(back && (size_t)back_len == len && memcmp(back, text, len) == 0);
    curl_free(back);
}

static void refusal(const char *text, size_t len)
{
    struct http_request request = HTTP_REQUEST_INIT;
    struct http_response response = {.status = 400 + (unsigned char)text[0], .attempts = 1};
    struct error err = {0};

    request.url = "https://example.com/x";
    http_header_add(&response.headers, "Retry-After", text);
    buf_append(&response.body, text, len);
    check(http_status_error(&request, &response, NULL, &err) == -1 && err.code);
    http_response_free(&response);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > (1u << 20))
        return 0;
    cleanup_free char *text = mem_strndup((const char *)data + 1, size - 1);
    switch (data[0] % 5) {
    case 0:
        retry_after(text);
        break;
    case 1:
        registry_headers(text);
        break;
    case 2:
        url(text);
        break;
    case 3:
        escape(text, size - 1);
        break;
    default:
        refusal(text, size - 1);
    }
    return 0;
}
