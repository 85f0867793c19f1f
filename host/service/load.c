/*
 * seldon.load: many requests at once, measured. One thread, which is the call's own, and a curl
 * multi handle of its own; each slot is one request under way and keeps its easy handle, so that
 * connections stay open. Memory is `concurrency` replies and the histograms.
 */
#include "service/load.h"

#include "base/mem.h"
#include "loop/http_internal.h"
#include "service/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MAX_CONCURRENCY    1024
#define MAX_BODIES         100000
#define REST_AFTER_FAILURE (10 * NS_PER_MS) /* a slot that got no reply does not spin */

struct slot {
    struct attempt attempt;
    struct http_response response;
    int64_t due;     /* when its request was to be sent: latency counts from there */
    int64_t rest_to; /* no new request before */
    bool busy;
};

struct load {
    struct call *call;
    struct http_request request; /* what all have in common */
    struct rest_target target;
    const struct value *bodies;
    CURLM *multi;
    int timer; /* timerfd: finer than curl_multi_poll's milliseconds */

    struct slot *slots;
    size_t concurrency;
    int64_t count; /* of requests to send; 0: until `end` */
    int64_t begin, end;
    int64_t gap; /* ns between requests; 0: as fast as replies come */
    int64_t request_timeout;
    int64_t max_errors; /* 0: any number */

    int64_t sent;
    size_t busy;
    struct load_result result;
};

/* ---- arguments ---- */

static int duration_arg(const struct value *args, const char *name, int64_t *ns, struct error *err)
{
    const struct value *v = value_get(args, name);

    if (!v || v->kind == VALUE_NIL)
        return 0;
    if (v->kind == VALUE_STRING) {
        if (duration_parse(v->as.string.data, ns, err) != 0)
            return error_wrap(err, "%s", name);
    } else {
        *ns = (int64_t)(value_get_real(args, name, 0) * (double)NS_PER_S);
    }
    if (*ns <= 0)
        return error_set(err, ERR_USAGE, "%s must be more than nothing", name);
    return 0;
}

static int int_arg(const struct value *args, const char *name, int64_t otherwise, int64_t most,
                   int64_t *out, struct error *err)
{
    const struct value *v = value_get(args, name);

    *out = otherwise;
    if (!v || v->kind == VALUE_NIL)
        return 0;
    *out = value_get_int(args, name, 0);
    if (*out < 1 || *out > most)
        return error_set(err, ERR_USAGE, "%s is %lld; it must be between 1 and %lld", name,
                         (long long)*out, (long long)most);
    return 0;
}

static int read_args(struct load *load, const struct value *args, struct error *err)
{
    int64_t concurrency, max_reply;
    int64_t duration = 0;
    double rate = value_get_real(args, "rate", 0);

    load->request_timeout = 5 * NS_PER_S;
    if (int_arg(args, "concurrency", 4, MAX_CONCURRENCY, &concurrency, err) != 0 ||
        int_arg(args, "count", 0, INT64_MAX, &load->count, err) != 0 ||
        int_arg(args, "max_reply", 1 << 20, 64 << 20, &max_reply, err) != 0 ||
        int_arg(args, "max_errors", 0, INT64_MAX, &load->max_errors, err) != 0 ||
        duration_arg(args, "duration", &duration, err) != 0 ||
        duration_arg(args, "request_timeout", &load->request_timeout, err) != 0)
        return -1;
    if (!load->count && !duration)
        return error_set(err, ERR_USAGE, "give a `duration` or a `count`");
    if (value_get(args, "rate") && value_get(args, "rate")->kind != VALUE_NIL &&
        !(rate > 0 && rate <= 1e6))
        return error_set(err, ERR_USAGE, "rate is in requests per second, up to 1000000");
    load->bodies = value_get(args, "bodies");
    if (value_count(load->bodies) > MAX_BODIES)
        return error_set(err, ERR_USAGE, "there are %zu bodies; at most %d are sent in turn",
                         value_count(load->bodies), MAX_BODIES);
    for (size_t i = 0; i < value_count(load->bodies); i++)
        if (value_at(load->bodies, i)->kind != VALUE_STRING)
            return error_set(err, ERR_USAGE, "bodies[%zu] must be a string, not a %s", i + 1,
                             value_kind_name(value_at(load->bodies, i)));
    load->concurrency = (size_t)concurrency;
    if (load->count && load->count < concurrency)
        load->concurrency = (size_t)load->count;
    load->gap = rate > 0 ? (int64_t)((double)NS_PER_S / rate) : 0;
    load->end = duration ? deadline_in(duration) : DEADLINE_NONE;
    load->result.group_by = value_get_string(args, "group_by", NULL);

    struct http_request *request = &load->request;
    *request = (struct http_request)HTTP_REQUEST_INIT;
    request->method = value_get_string(args, "method", value_count(load->bodies) ? "POST" : "GET");
    request->url = value_get_string(args, "path", "");
    request->reply_limit = (size_t)max_reply;
    request->repeat = HTTP_REPEAT_NEVER;
    if (request->url[0] != '/')
        return error_set(err, ERR_USAGE, "the path '%s' must begin with '/'", request->url);
    return 0;
}

/* ---- slots ---- */

static int open_slots(struct load *load, struct error *err)
{
    load->multi = curl_multi_init();
    load->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (!load->multi || load->timer < 0)
        return error_errno(err, errno, "cannot prepare the load");
    curl_multi_setopt(load->multi, CURLMOPT_MAXCONNECTS, (long)load->concurrency + 1);
    load->slots = mem_alloc(load->concurrency * sizeof(*load->slots));
    load->request.deadline = deadline_in(load->request_timeout);
    for (size_t i = 0; i < load->concurrency; i++) {
        struct slot *slot = &load->slots[i];
        slot->attempt = (struct attempt){.request = &load->request,
                                         .response = &slot->response,
                                         .method = load->request.method,
                                         .url = load->request.url,
                                         .unix_socket = load->request.unix_socket,
                                         .trusted_peer = true,
                                         .with_body = value_count(load->bodies) > 0};
        if (attempt_prepare(&slot->attempt, err) != 0)
            return -1;
        curl_easy_setopt(slot->attempt.easy, CURLOPT_PRIVATE, slot);
        curl_easy_setopt(slot->attempt.easy, CURLOPT_TIMEOUT_MS,
                         (long)(load->request_timeout / NS_PER_MS + 1));
    }
    load->request.deadline = 0; /* a timeout of curl's is that of the request */
    return 0;
}

static void close_slots(struct load *load)
{
    for (size_t i = 0; load->slots && i < load->concurrency; i++) {
        struct slot *slot = &load->slots[i];
        if (slot->busy)
            curl_multi_remove_handle(load->multi, slot->attempt.easy);
        attempt_release(&slot->attempt);
        http_response_free(&slot->response);
    }
    free(load->slots);
    curl_multi_cleanup(load->multi);
    if (load->timer >= 0)
        close(load->timer);
}

static void start(struct load *load, struct slot *slot, int64_t due)
{
    CURL *easy = slot->attempt.easy;

    http_headers_free(&slot->response.headers);
    buf_clear(&slot->response.body);
    slot->attempt.failure = (struct error){0};
    slot->attempt.error_text[0] = '\0';
    slot->attempt.cut = false;
    slot->attempt.drained = 0;
    if (slot->attempt.with_body) {
        size_t index = (size_t)load->sent % value_count(load->bodies);
        const struct value *body = value_at(load->bodies, index);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body->as.string.data);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->as.string.len);
    }
    slot->due = due;
    slot->busy = curl_multi_add_handle(load->multi, easy) == CURLM_OK;
    load->busy += slot->busy;
    load->sent++;
}

static bool over(const struct load *load)
{
    return (load->count && load->sent >= load->count) || deadline_passed(load->end) ||
           (load->max_errors && load->result.all.errors >= (uint64_t)load->max_errors);
}

/* Starts what is due; says when to look again. */
static int64_t start_due(struct load *load)
{
    int64_t next = load->end;

    for (size_t i = 0; i < load->concurrency && !over(load); i++) {
        struct slot *slot = &load->slots[i];
        int64_t now = clock_now();
        int64_t due = load->gap ? load->begin + load->sent * load->gap : now;
        if (slot->busy)
            continue;
        if (slot->rest_to > now || due > now) {
            next = deadline_min(next, slot->rest_to > due ? slot->rest_to : due);
            continue;
        }
        start(load, slot, due);
    }
    return next;
}

/* ---- replies ---- */

/* What the count of a request without a reply is called. */
static const char *failure_name(const struct attempt *attempt)
{
    if (attempt->failure.code)
        return error_code_name(attempt->failure.code);
    switch (attempt->code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
        return "connect";
    case CURLE_OPERATION_TIMEDOUT:
        return "timeout";
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
        return "tls";
    default:
        return "broken";
    }
}

/* 0, or -1 when there is no point in going on: the address is not permitted. */
static int finish(struct load *load, struct slot *slot, CURLcode code, struct error *err)
{
    struct attempt *attempt = &slot->attempt;
    struct error problem = {0};
    bool repeatable;
    long status = 0;
    char text[16];

    attempt->code = code;
    curl_multi_remove_handle(load->multi, attempt->easy);
    slot->busy = false;
    load->busy--;
    if (attempt_result(attempt, &repeatable, &problem) != 0) {
        if (attempt->failure.code == ERR_DENIED) {
            *err = problem;
            return -1;
        }
        slot->rest_to = deadline_in(REST_AFTER_FAILURE);
        load_add(&load->result,
                 &(struct load_reply){.status = failure_name(attempt), .problem = problem.message});
        return 0;
    }
    curl_easy_getinfo(attempt->easy, CURLINFO_RESPONSE_CODE, &status);
    snprintf(text, sizeof(text), "%ld", status);
    load_add(&load->result, &(struct load_reply){.status = text,
                                                 .good = status >= 200 && status <= 299,
                                                 .latency = clock_now() - slot->due,
                                                 .body = &slot->response.body});
    return 0;
}

/* ---- the loop ---- */

/* Until something can be read or written, `until`, or a cancel. */
static int await(struct load *load, int64_t until, struct error *err)
{
    const struct cancel *cancel = load->call->cancel;
    struct curl_waitfd extra[2] = {{.fd = load->timer, .events = CURL_WAIT_POLLIN},
                                   {.fd = cancel ? cancel->fd : -1, .events = CURL_WAIT_POLLIN}};
    struct itimerspec at = {.it_value = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S}};

    if (timerfd_settime(load->timer, TFD_TIMER_ABSTIME, &at, NULL) != 0)
        return error_errno(err, errno, "cannot set a timer");
    CURLMcode code = curl_multi_poll(load->multi, extra, cancel ? 2 : 1, 1000, NULL);
    if (code != CURLM_OK)
        return error_set(err, ERR_INTERNAL, "curl: %s", curl_multi_strerror(code));
    return 0;
}

static int run(struct load *load, struct error *err)
{
    int64_t report = deadline_in(NS_PER_S);
    int left;

    load->begin = clock_now();
    for (;;) {
        int64_t next = start_due(load);
        CURLMcode code = curl_multi_perform(load->multi, &left);
        if (code != CURLM_OK)
            return error_set(err, ERR_INTERNAL, "curl: %s", curl_multi_strerror(code));
        bool finished = false;
        for (CURLMsg *message; (message = curl_multi_info_read(load->multi, &left));) {
            struct slot *slot = NULL;
            CURLcode result = message->data.result;
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&slot);
            if (finish(load, slot, result, err) != 0)
                return -1;
            finished = true;
        }
        if (cancelled(load->call->cancel))
            return error_set(err, ERR_CANCELLED, "cancelled after %lld requests",
                             (long long)load->sent);
        if (deadline_passed(load->call->deadline)) {
            error_set(err, ERR_TIMEOUT, "the time was up after %lld requests",
                      (long long)load->sent);
            return error_hint(err, "give the stage a longer `timeout` than the load's duration");
        }
        if (deadline_passed(report)) {
            report = deadline_in(NS_PER_S);
            call_progress(load->call, "load", load->sent, load->count ? load->count : -1,
                          "requests");
        }
        if (over(load) && !load->busy)
            break;
        if (finished)
            continue;
        /* past the end only the replies that are under way count */
        if (over(load))
            next = DEADLINE_NONE;
        next = deadline_min(deadline_min(next, report), load->call->deadline);
        if (await(load, next, err) != 0)
            return -1;
    }
    load->result.seconds = (double)(clock_now() - load->begin) / (double)NS_PER_S;
    return 0;
}

/*
 * seldon.load(client, path, method?, headers?, bodies?, content_type?, count? or duration?, ...)
 *   -> { count, errors, seconds, throughput, status, latency, groups, first_errors }
 *
 *   bodies           array     texts, sent in turn; without any the method is GET
 *   count, duration            how many requests, or for how long; both: what ends first
 *   concurrency      int       requests under way at once, each on a kept connection; default 4
 *   rate             number    requests per second; default: the next as soon as a reply is there.
 *                              With a rate, latency counts from when a request was due, so a server
 *                              that stalls cannot hide it
 *   request_timeout  duration  of each request, default 5s
 *   group_by         string    "meta.tags.model_version": where in a JSON reply the group stands
 *   max_reply        int       bytes of a reply, default 1 MiB
 *   max_errors       int       ends the load early; default: none does
 *   returns          map       status: counts by "200", "503", "connect", "timeout", "tls",
 *                              "too_large", "broken"; latency of the 2xx replies in ms: min, mean,
 *                              p50, p90, p95, p99, max; groups: { count, errors, latency } by
 * value; first_errors: up to five texts errors           usage, denied, cancelled, timeout (the
 * stage's)
 */
int prim_seldon_load(struct call *call, const struct value *args, struct value *out,
                     struct error *err)
{
    struct load load = {.call = call, .timer = -1};
    struct rest_client *client = rest_client_arg(call, args, err);
    struct http_headers given = {0};
    struct error problem = {0};
    int result = -1;

    if (!client || !call_http(call, err))
        return -1;
    if (read_args(&load, args, &problem) != 0 ||
        rest_add_headers(value_get(args, "headers"), &given, &problem) != 0)
        goto out;
    if (value_count(load.bodies) && !http_header_get(&given, "Content-Type"))
        http_header_add(&given, "Content-Type",
                        value_get_string(args, "content_type", "application/json"));
    load.request.headers = given;
    if (rest_target_open(call, client, false, &load.request, &load.target, &problem) != 0)
        goto out;
    if (open_slots(&load, &problem) == 0 && run(&load, &problem) == 0) {
        load_report(&load.result, out);
        result = 0;
    }
    close_slots(&load);
    rest_target_close(&load.target);
out:
    http_headers_free(&given);
    load_result_free(&load.result);
    if (result == 0)
        return 0;
    snprintf(problem.service, sizeof(problem.service), "seldon");
    if (err)
        *err = problem;
    return error_wrap(err, "seldon.load");
}
