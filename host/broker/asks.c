/* Questions that only the supervisor can answer: it knows the other runs, and who sits at the
 * terminal. A call waits on a descriptor of its own, so that a cancel and its deadline end the
 * wait. */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "base/mem.h"
#include "broker/internal.h"

struct ask {
    struct ask *next;
    uint64_t id;
    int fd; /* readable once the answer is there */
    struct value answer;
};

static struct {
    pthread_mutex_t lock;
    struct ask *open;
    uint64_t next_id;
} asks = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void add(struct ask *ask)
{
    pthread_mutex_lock(&asks.lock);
    ask->id = ++asks.next_id;
    ask->next = asks.open;
    asks.open = ask;
    pthread_mutex_unlock(&asks.lock);
}

static void take_away(struct ask *ask)
{
    pthread_mutex_lock(&asks.lock);
    for (struct ask **at = &asks.open; *at; at = &(*at)->next) {
        if (*at == ask) {
            *at = ask->next;
            break;
        }
    }
    pthread_mutex_unlock(&asks.lock);
}

static int wait_for(const struct ask *ask, const struct call *call, struct error *err)
{
    struct pollfd fds[] = {{.fd = ask->fd, .events = POLLIN},
                           {.fd = call->cancel->fd, .events = POLLIN}};

    for (;;) {
        int n = poll(fds, 2, deadline_poll_ms(call->deadline));
        if (n < 0 && errno != EINTR)
            return error_errno(err, errno, "waiting for an answer");
        if (n > 0 && fds[0].revents)
            return 0;
        if (cancelled(call->cancel))
            return error_set(err, ERR_CANCELLED, "cancelled before there was an answer");
        if (deadline_passed(call->deadline))
            return error_set(err, ERR_TIMEOUT, "timed out before there was an answer");
    }
}

int broker_ask(struct call *call, struct value *question, struct value *answer, struct error *err)
{
    struct ask ask = {.fd = eventfd(0, EFD_CLOEXEC)};

    if (ask.fd < 0) {
        value_free(question);
        return error_errno(err, errno, "eventfd");
    }
    add(&ask);
    value_put_string(question, "t", "ask");
    value_put_int(question, "id", (int64_t)ask.id);
    broker_event(call->broker, question);
    int rc = wait_for(&ask, call, err);
    take_away(&ask);
    fd_cleanup(&ask.fd);
    if (rc == 0)
        value_move(answer, &ask.answer);
    value_free(&ask.answer);
    return rc;
}

void asks_answer(struct value *frame)
{
    uint64_t id = (uint64_t)value_get_int(frame, "id", 0);

    pthread_mutex_lock(&asks.lock);
    for (struct ask *ask = asks.open; ask; ask = ask->next) {
        if (ask->id != id)
            continue;
        value_move(&ask->answer, frame);
        (void)eventfd_write(ask->fd, 1);
        break;
    }
    pthread_mutex_unlock(&asks.lock);
}
