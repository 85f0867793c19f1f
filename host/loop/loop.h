/*
 * One event loop: file descriptors, timers, children by pidfd, work posted from other threads.
 * epoll underneath.
 *
 * A loop belongs to the thread that runs it; only loop_post may be called from elsewhere. Callbacks
 * may add and end any watch, themselves included. End a descriptor's watch before closing the
 * descriptor. In a forked child call nothing but loop_free on the parent's loop.
 */
#ifndef MLHOST_LOOP_LOOP_H
#define MLHOST_LOOP_LOOP_H

#include <stdint.h>
#include <sys/epoll.h>

#include "base/clock.h"
#include "base/error.h"

struct loop;
struct loop_watch; /* a watched fd, timer or child */

struct loop *loop_new(struct error *err);
void loop_free(struct loop *loop);

typedef void loop_fd_fn(void *ctx, int fd,
                        uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR */
typedef void loop_timer_fn(void *ctx);
typedef void loop_child_fn(void *ctx,
                           int wait_status); /* as waitpid(2) gives it; the child is reaped */
typedef void loop_post_fn(void *ctx);

/* NULL and errno when fd cannot be watched: EPERM for a regular file, EEXIST when it is watched
 * already. */
struct loop_watch *loop_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *ctx);
void loop_fd_events(struct loop_watch *watch, uint32_t events);
struct loop_watch *loop_timer(struct loop *loop, int64_t at, loop_timer_fn *fn,
                              void *ctx);                 /* once, at a deadline */
void loop_timer_at(struct loop_watch *watch, int64_t at); /* arm again; DEADLINE_NONE disarms */
/* Takes pidfd and closes it. Ends itself just before fn is called: forget the pointer there.
 * wait_status is -1 when somebody else has reaped the child. loop_end before that only closes
 * pidfd. */
struct loop_watch *loop_child(struct loop *loop, int pidfd, loop_child_fn *fn, void *ctx);
struct loop_watch *loop_signal(struct loop *loop, int signo, loop_timer_fn *fn,
                               void *ctx);                      /* by signalfd; blocks it */
void loop_end(struct loop_watch *watch);                        /* NULL is allowed */
void loop_post(struct loop *loop, loop_post_fn *fn, void *ctx); /* thread-safe */

int loop_run(struct loop *loop, struct error *err); /* until loop_stop */
int loop_step(struct loop *loop, int64_t until,
              struct error *err); /* waits for at most one round of events */
void loop_stop(struct loop *loop);

#endif
