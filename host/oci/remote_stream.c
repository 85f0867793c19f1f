#include "oci/remote_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/remote_upload.h"

/* Smaller ones are sent afterwards: they may well be there, and cost a question only. */
#define WORTH_IT ((uint64_t)4 << 20)

struct stream {
    struct stream *next;
    struct remote_streams *streams;
    int fd; /* of the store's file */
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t ended_now;
    uint64_t size; /* bytes that may be sent */
    bool ended, given_up;
    struct digest digest;

    uint64_t sent; /* the I/O thread's */
    bool there;    /* the thread's word: the registry has the blob */
};

struct remote_streams {
    struct remote *remote;
    const char *name;
    struct layer_watcher watcher;
    pthread_mutex_t lock; /* guards list */
    struct stream *list;
};

static ssize_t source(void *ctx, char *data, size_t room)
{
    struct stream *stream = ctx;

    pthread_mutex_lock(&stream->lock);
    uint64_t left = stream->size - stream->sent;
    bool ended = stream->ended, given_up = stream->given_up;
    pthread_mutex_unlock(&stream->lock);
    if (given_up)
        return -1;
    if (!left)
        return ended ? 0 : HTTP_SOURCE_LATER;
    ssize_t got = pread(stream->fd, data, left < room ? (size_t)left : room, (off_t)stream->sent);
    if (got <= 0)
        return -1;
    stream->sent += (uint64_t)got;
    return got;
}

static void *send_thread(void *arg)
{
    struct stream *stream = arg;
    struct remote *remote = stream->streams->remote;
    const char *name = stream->streams->name;
    cleanup_upload struct remote_upload upload = {0};

    if (remote_upload_begin(remote, name, NULL, NULL, &upload, NULL) != 0)
        return NULL;
    int status = remote_upload_stream(remote, name, &upload, source, stream, NULL);
    /* The source ended because the layer did, or the transfer failed before. */
    pthread_mutex_lock(&stream->lock);
    while (!stream->ended && !stream->given_up && status == 0)
        pthread_cond_wait(&stream->ended_now, &stream->lock);
    bool whole = status == 0 && stream->ended && !stream->given_up;
    pthread_mutex_unlock(&stream->lock);
    if (whole)
        stream->there = remote_upload_close(remote, name, &upload, stream->digest.text, NULL) == 0;
    if (!stream->there)
        remote_upload_cancel(remote, name, &upload);
    return NULL;
}

/* ---- the watcher ---- */

static void *begin(void *ctx, int fd)
{
    struct remote_streams *streams = ctx;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (copy < 0)
        return NULL;
    struct stream *stream = mem_alloc(sizeof *stream);
    stream->streams = streams;
    stream->fd = copy;
    pthread_mutex_init(&stream->lock, NULL);
    pthread_cond_init(&stream->ended_now, NULL);
    pthread_mutex_lock(&streams->lock);
    stream->next = streams->list;
    streams->list = stream;
    pthread_mutex_unlock(&streams->lock);
    return stream;
}

static void grown(void *watch, uint64_t size)
{
    struct stream *stream = watch;

    if (!stream)
        return;
    pthread_mutex_lock(&stream->lock);
    stream->size = size;
    pthread_mutex_unlock(&stream->lock);
    if (!stream->started && size >= WORTH_IT)
        stream->started = pthread_create(&stream->thread, NULL, send_thread, stream) == 0;
    if (stream->started)
        http_feed(stream->streams->remote->http);
}

static void end(void *watch, const struct digest *digest)
{
    struct stream *stream = watch;

    if (!stream)
        return;
    pthread_mutex_lock(&stream->lock);
    stream->ended = digest != NULL;
    stream->given_up = digest == NULL;
    if (digest)
        stream->digest = *digest;
    pthread_cond_broadcast(&stream->ended_now);
    pthread_mutex_unlock(&stream->lock);
    if (stream->started)
        http_feed(stream->streams->remote->http);
}

struct remote_streams *remote_streams_new(struct remote *remote, const char *name)
{
    struct remote_streams *streams = mem_alloc(sizeof *streams);

    streams->remote = remote;
    streams->name = name;
    streams->watcher = (struct layer_watcher){begin, grown, end, streams};
    pthread_mutex_init(&streams->lock, NULL);
    return streams;
}

const struct layer_watcher *remote_streams_watcher(struct remote_streams *streams)
{
    return &streams->watcher;
}

void remote_streams_wait(struct remote_streams *streams, size_t *sent, uint64_t *bytes)
{
    *sent = 0;
    *bytes = 0;
    for (struct stream *stream = streams->list; stream; stream = stream->next) {
        if (stream->started)
            pthread_join(stream->thread, NULL);
        stream->started = false;
        *sent += stream->there;
        *bytes += stream->there ? stream->sent : 0;
    }
}

void remote_streams_free(struct remote_streams *streams)
{
    size_t sent;
    uint64_t bytes;

    if (!streams)
        return;
    remote_streams_wait(streams, &sent, &bytes);
    while (streams->list) {
        struct stream *stream = streams->list;
        streams->list = stream->next;
        close(stream->fd);
        pthread_cond_destroy(&stream->ended_now);
        pthread_mutex_destroy(&stream->lock);
        free(stream);
    }
    pthread_mutex_destroy(&streams->lock);
    free(streams);
}
