/* A request from its first attempt to its reply: repeats with backoff, redirects, deadlines. */
#include "loop/http.h"

#include "base/mem.h"
#include "loop/http_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define MAX_REDIRECTS   10
#define BACKOFF_BASE_MS 300
#define BACKOFF_CAP_MS  20000

/* Where a request stands: redirects change all of it, repeats none. */
struct hop {
    char *url;
    const char *method;
    const char *unix_socket;
    bool with_body;
    bool trusted_peer;
    int redirects;
};

static bool has_body(const struct http_request *request)
{
    return request->body || request->body_len || request->body_fd >= 0 || request->source;
}

/* May this request go out twice? `unsent`: the server cannot have seen it. */
static bool may_repeat(const struct http_request *request, const char *method, bool unsent,
                       int status)
{
    static const char *const safe[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"};

    if (request->repeat == HTTP_REPEAT_NEVER || request->source)
        return false;
    if (request->repeat == HTTP_REPEAT_ALWAYS || unsent)
        return true;
    /* "too many requests" is said instead of doing the work, so a POST may follow it, too */
    if (status == 429)
        return true;
    for (size_t i = 0; i < sizeof(safe) / sizeof(safe[0]); i++)
        if (strcmp(method, safe[i]) == 0)
            return true;
    return false;
}

static bool status_passes(int status)
{
    static const int passing[] = {408, 425, 429, 500, 502, 503, 504};

    for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++)
        if (status == passing[i])
            return true;
    return false;
}

/* Full jitter: anything between nothing and the exponential step, so that many clients do not come
 * back together. */
static int64_t backoff_ms(int attempt)
{
    uint32_t random = 0;
    int64_t step = BACKOFF_BASE_MS;

    for (int i = 1; i < attempt && step < BACKOFF_CAP_MS; i++)
        step *= 2;
    if (step > BACKOFF_CAP_MS)
        step = BACKOFF_CAP_MS;
    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
        random = (uint32_t)clock_now();
    return (int64_t)(random % (uint32_t)(step + 1));
}

/* Waits, unless the deadline comes first (then it does not wait at all and says false) or it is
 * cancelled. */
static bool pause_for(const struct http_request *request, int64_t ms)
{
    int64_t until = deadline_in(ms * NS_PER_MS);

    if (until >= request->deadline)
        return false;
    while (!deadline_passed(until) && !cancelled(request->cancel)) {
        struct pollfd fd = {.fd = request->cancel ? request->cancel->fd : -1, .events = POLLIN};
        if (poll(&fd, 1, deadline_poll_ms(until)) < 0 && errno != EINTR)
            break;
    }
    return !cancelled(request->cancel);
}

/* Puts the reply's file back to where it was, so that a repeat does not append to half a body. */
static bool rewind_reply(const struct http_request *request, off_t start)
{
    if (request->sink)
        return false;
    if (request->reply_fd < 0)
        return true;
    return start >= 0 && lseek(request->reply_fd, start, SEEK_SET) == start &&
           ftruncate(request->reply_fd, start) == 0;
}

/* The next hop of a redirect. 1 follow, 0 the reply is to be returned as it is, -1 error. */
static int redirect(const struct http_request *request, struct http_response *response,
                    struct hop *hop, struct error *err)
{
    int status = response->status;
    const char *location = http_header_get(&response->headers, "Location");
    CURLU *url;
    char *next = NULL;
    cleanup_buf struct buf from = BUF_INIT;
    cleanup_buf struct buf to = BUF_INIT;

    if (!request->follow || !location ||
        !(status == 301 || status == 302 || status == 303 || status == 307 || status == 308))
        return 0;
    url_print_safe(hop->url, &from);
    if (++hop->redirects > MAX_REDIRECTS)
        return error_set(err, ERR_INVALID, "%s %s: more than %d redirects", hop->method, from.data,
                         MAX_REDIRECTS);
    url = curl_url();
    if (!url || curl_url_set(url, CURLUPART_URL, hop->url, 0) != CURLUE_OK ||
        curl_url_set(url, CURLUPART_URL, location, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_URL, &next, 0) != CURLUE_OK) {
        curl_url_cleanup(url);
        return error_set(err, ERR_INVALID, "%s %s redirects to something that is no URL",
                         hop->method, from.data);
    }
    curl_url_cleanup(url);
    cleanup_free char *target = mem_strdup(next);
    curl_free(next);
    url_print_safe(target, &to);
    if (strncasecmp(hop->url, "https:", 6) == 0 && strncasecmp(target, "https:", 6) != 0)
        return error_set(err, ERR_DENIED, "%s %s redirects to %s: leaving https is refused",
                         hop->method, from.data, to.data);
    if (!url_same_origin(hop->url, target)) {
        hop->unix_socket = NULL;
        hop->trusted_peer = false;
    }
    bool to_get = status == 303
                      ? strcmp(hop->method, "HEAD") != 0
                      : (status == 301 || status == 302) && strcmp(hop->method, "POST") == 0;
    if (to_get) {
        hop->method = "GET";
        hop->with_body = false;
    } else if (hop->with_body && request->source) {
        return error_set(err, ERR_UNSUPPORTED,
                         "%s %s redirects to %s, but its body can be sent only once", hop->method,
                         from.data, to.data);
    }
    free(hop->url);
    hop->url = steal_ptr(&target);
    return 1;
}

static void response_reset(struct http_response *response)
{
    http_headers_free(&response->headers);
    buf_clear(&response->body);
    response->status = 0;
}

/* One exchange at the present hop. 0 with a reply, else -1; *again: a repeat may help and is
 * allowed. */
static int exchange(struct http *http, const struct http_request *request, const struct hop *hop,
                    off_t reply_start, struct http_response *response, bool *again,
                    struct error *err)
{
    struct attempt attempt = {.request = request,
                              .response = response,
                              .method = hop->method,
                              .url = hop->url,
                              .unix_socket = hop->unix_socket,
                              .trusted_peer = hop->trusted_peer,
                              .with_body = hop->with_body};
    long status = 0;
    int result = -1;

    *again = false;
    response_reset(response);
    if (attempt_prepare(&attempt, err) == 0 && attempt_run(http, &attempt, err) == 0) {
        bool repeatable;
        result = attempt_result(&attempt, &repeatable, err);
        curl_easy_getinfo(attempt.easy, CURLINFO_RESPONSE_CODE, &status);
        response->status = (int)status;
        if (result == 0)
            *again =
                status_passes((int)status) && may_repeat(request, hop->method, false, (int)status);
        else
            *again = repeatable && may_repeat(request, hop->method, !attempt.request_sent, 0) &&
                     (!attempt.body_started || rewind_reply(request, reply_start));
    }
    attempt_release(&attempt);
    return result;
}

int http_perform(struct http *http, const struct http_request *request,
                 struct http_response *response, struct error *err)
{
    struct hop hop = {.url = mem_strdup(request->url),
                      .method = request->method ? request->method : "GET",
                      .unix_socket = request->unix_socket,
                      .with_body = has_body(request),
                      .trusted_peer = true};
    int limit = request->attempts > 0 ? request->attempts : 5;
    off_t reply_start = request->reply_fd >= 0 ? lseek(request->reply_fd, 0, SEEK_CUR) : -1;
    int result = -1;

    *response = (struct http_response){0};
    for (int tries = 1;; tries++) {
        struct error problem = {0};
        bool again;

        if (cancelled(request->cancel)) {
            result = error_set(err, ERR_CANCELLED, "cancelled");
            break;
        }
        response->attempts = tries;
        result = exchange(http, request, &hop, reply_start, response, &again, &problem);
        if (result == 0) {
            int next = redirect(request, response, &hop, &problem);
            if (next > 0) {
                tries--; /* a redirect is progress, not a repeat */
                continue;
            }
            if (next < 0)
                result = -1;
        }
        if (again && tries < limit) {
            int64_t wait = backoff_ms(tries);
            const char *after = http_header_get(&response->headers, "Retry-After");
            int64_t asked = result == 0 ? retry_after_ms(after, clock_wall_ms()) : -1;
            if (asked >= 0)
                wait = asked + wait / 10;
            if (pause_for(request, wait))
                continue;
            if (cancelled(request->cancel))
                result = error_set(&problem, ERR_CANCELLED, "cancelled while waiting to try again");
        }
        if (result != 0) {
            if (tries > 1)
                error_wrap(&problem, "after %d attempts", tries);
            if (err)
                *err = problem;
        }
        break;
    }
    response->url = steal_ptr(&hop.url);
    if (result != 0)
        http_response_free(response);
    return result;
}
