/* Events: broker -> supervisor, masked. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "broker/internal.h"

void error_into_value(const struct error *err, struct value *out)
{
    value_free(out);
    value_set_map(out);
    if (err->service[0])
        value_put_string(out, "service", err->service);
    value_put_string(out, "code", error_code_name(err->code));
    if (err->status)
        value_put_int(out, "status", err->status);
    value_put_string(out, "message", err->message);
    if (err->hint[0])
        value_put_string(out, "hint", err->hint);
    if (err->retryable)
        value_put_bool(out, "retryable", true);
}

/* A supervisor that is gone is noticed by the loop; what is sent meanwhile goes nowhere. */
static void send_locked(struct broker *broker, const struct value *event)
{
    struct buf out = BUF_INIT;

    frame_append(event, &out);
    for (size_t at = 0; at < out.len;) {
        ssize_t n = send(broker->event_fd, out.data + at, out.len - at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    buf_free(&out);
}

static void send_output_locked(struct broker *broker, int stream, const struct buf *text)
{
    struct value event = {0};

    if (!text->len)
        return;
    value_set_map(&event);
    value_put_string(&event, "t", "output");
    value_put_int(&event, "stream", stream);
    value_set_bytes(value_put(&event, "text"), text->data, text->len);
    struct error unused = {0};
    if (policy_check(broker->policy, PERM_CI, "commands", &unused) == 0)
        value_put_bool(&event, "commands", true);
    send_locked(broker, &event);
    value_free(&event);
}

void broker_event(struct broker *broker, struct value *event)
{
    pthread_mutex_lock(&broker->event_lock);
    if (!broker->closed) {
        mask_value(broker->masker, event);
        send_locked(broker, event);
    }
    pthread_mutex_unlock(&broker->event_lock);
    value_free(event);
}

void broker_secret_variable(struct broker *broker, struct value *event, const char *text,
                            size_t len)
{
    pthread_mutex_lock(&broker->event_lock);
    if (!broker->closed) {
        mask_value(broker->masker, event);
        value_set_bytes(value_put(event, "value"), text, len);
        send_locked(broker, event);
    }
    pthread_mutex_unlock(&broker->event_lock);
    value_free(event);
}

#define PIECE (256u << 10) /* of output in one event */

void broker_output(struct broker *broker, int stream, const char *data, size_t len)
{
    struct buf text = BUF_INIT;

    stream = stream == 2 ? 2 : 1;
    pthread_mutex_lock(&broker->event_lock);
    while (len && !broker->closed) {
        size_t part = len < PIECE ? len : PIECE;
        buf_clear(&text);
        mask_stream(broker->masker, &broker->tails[stream - 1], data, part, &text);
        send_output_locked(broker, stream, &text);
        data += part;
        len -= part;
    }
    pthread_mutex_unlock(&broker->event_lock);
    buf_free(&text);
}

void broker_result(struct broker *broker, struct value *frame)
{
    pthread_mutex_lock(&broker->event_lock);
    if (!broker->closed) {
        for (int stream = 1; stream <= 2; stream++) {
            struct buf text = BUF_INIT;
            mask_stream_end(broker->masker, &broker->tails[stream - 1], &text);
            send_output_locked(broker, stream, &text);
            buf_free(&text);
        }
        mask_value(broker->masker, frame);
        send_locked(broker, frame);
        broker->closed = true;
    }
    pthread_mutex_unlock(&broker->event_lock);
    value_free(frame);
}
