/* The I/O thread: every attempt of every caller on one curl multi handle, so that connections are
 * shared. */
#include "loop/http.h"

#include "base/mem.h"
#include "loop/http_internal.h"

#include <stdlib.h>
#include <string.h>

struct http {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* an attempt is done */
    CURLM *multi;
    pthread_t thread;
    bool running, stopping;
    bool fed;                 /* sources that said "later" are to be asked again */
    struct attempt *incoming; /* handed over, not yet seen by the thread */
    struct attempt *active;   /* the thread's own */
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_started;

static void start_curl(void)
{
    curl_started = curl_global_init(CURL_GLOBAL_DEFAULT);
}

struct http *http_new(struct error *err)
{
    pthread_once(&curl_once, start_curl);
    if (curl_started != CURLE_OK) {
        error_set(err, ERR_INTERNAL, "libcurl does not start: %s",
                  curl_easy_strerror(curl_started));
        return NULL;
    }
    struct http *http = mem_alloc(sizeof(*http));
    http->multi = curl_multi_init();
    if (!http->multi) {
        free(http);
        error_set(err, ERR_INTERNAL, "libcurl does not start");
        return NULL;
    }
    curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, 32L);
    pthread_mutex_init(&http->lock, NULL);
    pthread_cond_init(&http->changed, NULL);
    return http;
}

/* Takes the attempt out of the multi handle and wakes whoever waits for it. */
static void finish(struct http *http, struct attempt *attempt, CURLcode code,
                   enum attempt_end ended)
{
    for (struct attempt **link = &http->active; *link; link = &(*link)->next) {
        if (*link == attempt) {
            *link = attempt->next;
            break;
        }
    }
    curl_multi_remove_handle(http->multi, attempt->easy);
    pthread_mutex_lock(&http->lock);
    attempt->code = code;
    attempt->ended = ended;
    attempt->done = true;
    pthread_cond_broadcast(&http->changed);
    pthread_mutex_unlock(&http->lock);
}

static void go_on(struct http *http)
{
    for (struct attempt *attempt = http->active; attempt; attempt = attempt->next) {
        if (!attempt->paused)
            continue;
        attempt->paused = false;
        attempt->last_activity = clock_now();
        curl_easy_pause(attempt->easy, CURLPAUSE_CONT);
    }
}

/* Moves handed-over attempts into the multi handle. True when the client is being shut down. */
static bool take_incoming(struct http *http)
{
    pthread_mutex_lock(&http->lock);
    struct attempt *list = http->incoming;
    http->incoming = NULL;
    bool stopping = http->stopping;
    bool fed = http->fed;
    http->fed = false;
    pthread_mutex_unlock(&http->lock);

    if (fed)
        go_on(http);

    while (list) {
        struct attempt *attempt = list;
        list = attempt->next;
        attempt->next = http->active;
        http->active = attempt;
        if (curl_multi_add_handle(http->multi, attempt->easy) != CURLM_OK)
            finish(http, attempt, CURLE_FAILED_INIT, END_NONE);
    }
    return stopping;
}

static int64_t stall_deadline(const struct attempt *attempt)
{
    int64_t ms = attempt->request->stall_ms ? attempt->request->stall_ms : 60000;

    return attempt->last_activity && !attempt->paused ? attempt->last_activity + ms * NS_PER_MS
                                                      : DEADLINE_NONE;
}

static void end_overdue(struct http *http)
{
    struct attempt *next;

    for (struct attempt *attempt = http->active; attempt; attempt = next) {
        next = attempt->next;
        if (cancelled(attempt->request->cancel))
            finish(http, attempt, CURLE_ABORTED_BY_CALLBACK, END_CANCEL);
        else if (deadline_passed(attempt->request->deadline))
            finish(http, attempt, CURLE_OPERATION_TIMEDOUT, END_DEADLINE);
        else if (deadline_passed(stall_deadline(attempt)))
            finish(http, attempt, CURLE_OPERATION_TIMEDOUT, END_STALL);
    }
}

/* Sleeps until curl, a cancel flag, a deadline or a caller wants something. */
static void wait_events(struct http *http)
{
    struct curl_waitfd fds[64];
    unsigned count = 0;
    int64_t until = DEADLINE_NONE;
    bool unwatched = false;

    for (struct attempt *attempt = http->active; attempt; attempt = attempt->next) {
        until =
            deadline_min(until, deadline_min(attempt->request->deadline, stall_deadline(attempt)));
        if (!attempt->request->cancel)
            continue;
        if (count < sizeof(fds) / sizeof(fds[0]))
            fds[count++] = (struct curl_waitfd){.fd = attempt->request->cancel->fd,
                                                .events = CURL_WAIT_POLLIN};
        else
            unwatched = true;
    }
    int64_t left = deadline_left_ms(until);
    int timeout = left > 60000 ? 60000 : (int)left;
    if (unwatched && timeout > 200)
        timeout = 200; /* more cancel flags than slots: look at the rest now and then */
    curl_multi_poll(http->multi, fds, count, timeout, NULL);
}

static void *io_thread(void *ctx)
{
    struct http *http = ctx;

    for (;;) {
        bool stopping = take_incoming(http);
        int running = 0;
        int left = 0;
        CURLMsg *message;

        curl_multi_perform(http->multi, &running);
        while ((message = curl_multi_info_read(http->multi, &left))) {
            struct attempt *attempt = NULL;
            if (message->msg != CURLMSG_DONE)
                continue;
            CURLcode code = message->data.result; /* the message goes away with the handle */
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &attempt);
            finish(http, attempt, code, END_NONE);
        }
        end_overdue(http);
        if (stopping) {
            while (http->active)
                finish(http, http->active, CURLE_ABORTED_BY_CALLBACK, END_CLOSED);
            return NULL;
        }
        wait_events(http);
    }
}

void http_feed(struct http *http)
{
    pthread_mutex_lock(&http->lock);
    http->fed = true;
    bool running = http->running;
    pthread_mutex_unlock(&http->lock);
    if (running)
        curl_multi_wakeup(http->multi);
}

void http_free(struct http *http)
{
    if (!http)
        return;
    pthread_mutex_lock(&http->lock);
    http->stopping = true;
    bool running = http->running;
    pthread_mutex_unlock(&http->lock);
    if (running) {
        curl_multi_wakeup(http->multi);
        pthread_join(http->thread, NULL);
    }
    curl_multi_cleanup(http->multi);
    pthread_cond_destroy(&http->changed);
    pthread_mutex_destroy(&http->lock);
    free(http);
}

int attempt_run(struct http *http, struct attempt *attempt, struct error *err)
{
    pthread_mutex_lock(&http->lock);
    if (!http->running) {
        int failed = pthread_create(&http->thread, NULL, io_thread, http);
        if (failed) {
            pthread_mutex_unlock(&http->lock);
            return error_errno(err, failed, "cannot start the HTTP thread");
        }
        http->running = true;
    }
    attempt->next = http->incoming;
    http->incoming = attempt;
    curl_multi_wakeup(http->multi);
    while (!attempt->done)
        pthread_cond_wait(&http->changed, &http->lock);
    pthread_mutex_unlock(&http->lock);
    return 0;
}
