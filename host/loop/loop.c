#include "loop/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"

enum watch_kind { WATCH_FD, WATCH_TIMER, WATCH_CHILD, WATCH_SIGNAL };

#define NOT_ARMED SIZE_MAX

struct loop_watch {
    struct loop *loop;
    enum watch_kind kind;
    bool
        ended; /* memory stays until the round is over: events of this round may still point here */
    void *ctx;
    union {
        loop_fd_fn *fd;
        loop_timer_fn *plain;
        loop_child_fn *child;
    } fn;
    int fd;
    struct loop_watch *previous, *next;
    /* timers */
    int64_t at;
    size_t place;   /* in the heap */
    uint64_t fired; /* the round in which it last fired */
    /* signals */
    int signo;
    bool blocked_before;
};

struct posted {
    struct posted *next;
    loop_post_fn *fn;
    void *ctx;
};

struct loop {
    int epoll;
    int wake; /* eventfd of the posts */
    bool stopped;
    unsigned depth; /* of nested dispatch: ended watches are freed at 0 */
    uint64_t round;
    struct loop_watch *watches, *ended;
    struct loop_watch **heap;
    size_t heap_count, heap_room;
    pthread_mutex_t lock; /* guards the posts */
    struct posted *posts, **posts_end;
};

struct loop *loop_new(struct error *err)
{
    struct loop *loop = mem_alloc(sizeof *loop);
    struct epoll_event wake = {.events = EPOLLIN, .data.ptr = NULL};

    loop->posts_end = &loop->posts;
    pthread_mutex_init(&loop->lock, NULL);
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll < 0 || loop->wake < 0 ||
        epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wake, &wake) < 0) {
        error_errno(err, errno, "cannot make an event loop");
        error_hint(err, "the limit of open files may be reached: ulimit -n");
        loop_free(loop);
        return NULL;
    }
    return loop;
}

/* ---- the timer heap: smallest time first, each watch knows its place ---- */

static void heap_set(struct loop *loop, size_t place, struct loop_watch *watch)
{
    loop->heap[place] = watch;
    watch->place = place;
}

static void heap_sift(struct loop *loop, size_t place)
{
    struct loop_watch *watch = loop->heap[place];

    while (place > 0 && loop->heap[(place - 1) / 2]->at > watch->at) {
        heap_set(loop, place, loop->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * place + 1;
        if (child >= loop->heap_count)
            break;
        if (child + 1 < loop->heap_count && loop->heap[child + 1]->at < loop->heap[child]->at)
            child++;
        if (loop->heap[child]->at >= watch->at)
            break;
        heap_set(loop, place, loop->heap[child]);
        place = child;
    }
    heap_set(loop, place, watch);
}

static void heap_remove(struct loop *loop, struct loop_watch *watch)
{
    size_t place = watch->place;

    if (place == NOT_ARMED)
        return;
    watch->place = NOT_ARMED;
    struct loop_watch *last = loop->heap[--loop->heap_count];
    if (last == watch)
        return;
    heap_set(loop, place, last);
    heap_sift(loop, place);
}

/* ---- watches ---- */

static struct loop_watch *watch_new(struct loop *loop, enum watch_kind kind, int fd, void *ctx)
{
    struct loop_watch *watch = mem_alloc(sizeof *watch);

    *watch =
        (struct loop_watch){.loop = loop, .kind = kind, .fd = fd, .ctx = ctx, .place = NOT_ARMED};
    watch->next = loop->watches;
    if (watch->next)
        watch->next->previous = watch;
    loop->watches = watch;
    return watch;
}

static void watch_unlink(struct loop_watch *watch)
{
    if (watch->previous)
        watch->previous->next = watch->next;
    else
        watch->loop->watches = watch->next;
    if (watch->next)
        watch->next->previous = watch->previous;
    watch->previous = watch->next = NULL;
}

static int watch_add(struct loop_watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(watch->loop->epoll, EPOLL_CTL_ADD, watch->fd, &event);
}

/* Gives up what the watch itself holds: descriptors of its own and the signal mask. */
static void watch_release(struct loop_watch *watch)
{
    if (watch->kind == WATCH_CHILD || watch->kind == WATCH_SIGNAL)
        close(watch->fd);
    if (watch->kind == WATCH_SIGNAL && !watch->blocked_before) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, watch->signo);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    }
}

static struct loop_watch *watch_refused(struct loop_watch *watch)
{
    int saved = errno;

    watch_unlink(watch);
    free(watch);
    errno = saved;
    return NULL;
}

struct loop_watch *loop_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *ctx)
{
    struct loop_watch *watch = watch_new(loop, WATCH_FD, fd, ctx);

    watch->fn.fd = fn;
    return watch_add(watch, events) < 0 ? watch_refused(watch) : watch;
}

void loop_fd_events(struct loop_watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};

    if (!watch->ended)
        epoll_ctl(watch->loop->epoll, EPOLL_CTL_MOD, watch->fd, &event);
}

struct loop_watch *loop_timer(struct loop *loop, int64_t at, loop_timer_fn *fn, void *ctx)
{
    struct loop_watch *watch = watch_new(loop, WATCH_TIMER, -1, ctx);

    watch->fn.plain = fn;
    loop_timer_at(watch, at);
    return watch;
}

void loop_timer_at(struct loop_watch *watch, int64_t at)
{
    struct loop *loop = watch->loop;

    if (watch->ended)
        return;
    heap_remove(loop, watch);
    watch->at = at;
    if (at == DEADLINE_NONE)
        return;
    if (loop->heap_count == loop->heap_room) {
        loop->heap_room = loop->heap_room ? 2 * loop->heap_room : 16;
        loop->heap = mem_array(loop->heap, loop->heap_room, sizeof(struct loop_watch *));
    }
    heap_set(loop, loop->heap_count++, watch);
    heap_sift(loop, watch->place);
}

struct loop_watch *loop_child(struct loop *loop, int pidfd, loop_child_fn *fn, void *ctx)
{
    struct loop_watch *watch = watch_new(loop, WATCH_CHILD, pidfd, ctx);

    watch->fn.child = fn;
    return watch_add(watch, EPOLLIN) < 0 ? watch_refused(watch) : watch;
}

struct loop_watch *loop_signal(struct loop *loop, int signo, loop_timer_fn *fn, void *ctx)
{
    sigset_t set, before;

    sigemptyset(&set);
    sigaddset(&set, signo);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return NULL;
    pthread_sigmask(SIG_BLOCK, &set, &before);
    struct loop_watch *watch = watch_new(loop, WATCH_SIGNAL, fd, ctx);
    watch->fn.plain = fn;
    watch->signo = signo;
    watch->blocked_before = sigismember(&before, signo) == 1;
    if (watch_add(watch, EPOLLIN) < 0) {
        watch_release(watch);
        return watch_refused(watch);
    }
    return watch;
}

void loop_end(struct loop_watch *watch)
{
    if (!watch || watch->ended)
        return;
    struct loop *loop = watch->loop;
    if (watch->kind == WATCH_TIMER)
        heap_remove(loop, watch);
    else
        epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
    watch_release(watch);
    watch_unlink(watch);
    if (loop->depth == 0) {
        free(watch);
        return;
    }
    watch->ended = true;
    watch->next = loop->ended;
    loop->ended = watch;
}

static void free_list(struct loop_watch *watch)
{
    while (watch) {
        struct loop_watch *next = watch->next;
        free(watch);
        watch = next;
    }
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    /* Closed first and without EPOLL_CTL_DEL: in a forked child the epoll instance is still shared
     * with the parent. */
    if (loop->epoll >= 0)
        close(loop->epoll);
    if (loop->wake >= 0)
        close(loop->wake);
    for (struct loop_watch *watch = loop->watches; watch; watch = watch->next)
        watch_release(watch);
    free_list(loop->watches);
    free_list(loop->ended);
    while (loop->posts) {
        struct posted *next = loop->posts->next;
        free(loop->posts);
        loop->posts = next;
    }
    pthread_mutex_destroy(&loop->lock);
    free(loop->heap);
    free(loop);
}

/* ---- posts ---- */

void loop_post(struct loop *loop, loop_post_fn *fn, void *ctx)
{
    const uint64_t one = 1;
    struct posted *post = mem_alloc(sizeof *post);

    *post = (struct posted){.fn = fn, .ctx = ctx};
    pthread_mutex_lock(&loop->lock);
    *loop->posts_end = post;
    loop->posts_end = &post->next;
    /* Under the lock, so that whoever frees the loop after seeing this post's effect frees no
     * descriptor in use. */
    ssize_t n = write(loop->wake, &one, sizeof one);
    (void)n;
    pthread_mutex_unlock(&loop->lock);
}

static void run_posts(struct loop *loop)
{
    uint64_t count;

    pthread_mutex_lock(&loop->lock);
    ssize_t n = read(loop->wake, &count, sizeof count);
    (void)n;
    struct posted *post = loop->posts;
    loop->posts = NULL;
    loop->posts_end = &loop->posts;
    pthread_mutex_unlock(&loop->lock);
    while (post) {
        struct posted *next = post->next;
        loop_post_fn *fn = post->fn;
        void *ctx = post->ctx;
        free(post);
        fn(ctx);
        post = next;
    }
}

/* ---- running ---- */

static int wait_status(const siginfo_t *info)
{
    switch (info->si_code) {
    case CLD_EXITED:
        return (info->si_status & 0xff) << 8;
    case CLD_DUMPED:
        return info->si_status | 0x80;
    default:
        return info->si_status;
    }
}

static void child_ready(struct loop_watch *watch)
{
    siginfo_t info = {0};
    int status = -1; /* somebody else reaped it */

    if (waitid(P_PIDFD, (id_t)watch->fd, &info, WEXITED | WNOHANG) == 0) {
        if (info.si_pid == 0)
            return;
        status = wait_status(&info);
    }
    loop_child_fn *fn = watch->fn.child;
    void *ctx = watch->ctx;
    loop_end(watch);
    fn(ctx, status);
}

static void signal_ready(struct loop_watch *watch)
{
    struct signalfd_siginfo info;

    while (!watch->ended && read(watch->fd, &info, sizeof info) == sizeof info)
        watch->fn.plain(watch->ctx);
}

static void run_timers(struct loop *loop)
{
    int64_t now = clock_now();

    while (loop->heap_count > 0 && loop->heap[0]->at <= now) {
        struct loop_watch *watch = loop->heap[0];
        if (watch->fired == loop->round)
            break; /* armed again for the past: the next round's turn, so that descriptors get
                      theirs */
        watch->fired = loop->round;
        heap_remove(loop, watch);
        watch->fn.plain(watch->ctx);
    }
}

static int wait_ms(const struct loop *loop, int64_t until)
{
    if (loop->heap_count > 0)
        until = deadline_min(until, loop->heap[0]->at);
    return deadline_poll_ms(until);
}

int loop_step(struct loop *loop, int64_t until, struct error *err)
{
    struct epoll_event events[64];
    bool posted = false;
    int count = epoll_wait(loop->epoll, events, 64, wait_ms(loop, until));

    if (count < 0 && errno != EINTR)
        return error_errno(err, errno, "cannot wait for events");
    loop->round++;
    loop->depth++;
    for (int i = 0; i < count; i++) {
        struct loop_watch *watch = events[i].data.ptr;
        if (!watch)
            posted = true;
        else if (watch->ended)
            continue;
        else if (watch->kind == WATCH_FD)
            watch->fn.fd(watch->ctx, watch->fd, events[i].events);
        else if (watch->kind == WATCH_CHILD)
            child_ready(watch);
        else
            signal_ready(watch);
    }
    if (posted)
        run_posts(loop);
    run_timers(loop);
    if (--loop->depth == 0) {
        free_list(loop->ended);
        loop->ended = NULL;
    }
    return 0;
}

int loop_run(struct loop *loop, struct error *err)
{
    while (!loop->stopped) {
        if (loop_step(loop, DEADLINE_NONE, err) < 0)
            return -1;
    }
    loop->stopped = false;
    return 0;
}

void loop_stop(struct loop *loop)
{
    loop->stopped = true;
}
