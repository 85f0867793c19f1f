/*
 * A stage that is stopped in the debugger: its time stands still, in the VM (vm/deadline.c), here
 * and in the supervisor (run/worker.c). Calls that were on their way when it stopped go on, so
 * they cannot know their deadline beforehand: with a debugger a timer ends them.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"
#include "broker/internal.h"

struct cancel *new_cancel(void)
{
    struct cancel *cancel = mem_alloc(sizeof *cancel);

    if (cancel_init(cancel) == 0)
        return cancel;
    free(cancel);
    return NULL;
}

void cancel_renew(struct cancel **cancel)
{
    struct cancel *fresh = new_cancel();

    cancel_raise(*cancel);
    if (fresh)
        *cancel = fresh;
}

static void on_end(void *ctx)
{
    struct broker *broker = ctx;

    broker->time_over = true;
    cancel_renew(&broker->cancel);
}

int broker_pause_init(struct broker *broker, struct error *err)
{
    broker->typed_cancel = new_cancel();
    broker->end_timer = loop_timer(broker->loop, broker->deadline, on_end, broker);
    if (!broker->typed_cancel || !broker->end_timer)
        return error_errno(err, errno, "eventfd");
    return 0;
}

void broker_pause(struct broker *broker, struct value *frame)
{
    if (!broker->paused_at && !broker->stopping) {
        broker->paused_at = clock_now();
        loop_timer_at(broker->timer, DEADLINE_NONE);
        loop_timer_at(broker->end_timer, DEADLINE_NONE);
    }
    broker_event(broker, frame);
    if (broker->stopping) /* the stop came first */
        broker_leave_debugger(broker);
}

void broker_resume(struct broker *broker, struct value *frame)
{
    if (broker->paused_at) {
        int64_t passed = clock_now() - broker->paused_at;
        broker->paused_at = 0;
        if (broker->deadline != DEADLINE_NONE) {
            broker->deadline += passed;
            broker->hard_deadline += passed;
            loop_timer_at(broker->timer, broker->hard_deadline + BROKER_SLACK_NS);
            if (!broker->time_over)
                loop_timer_at(broker->end_timer, broker->deadline);
        }
    }
    if (frame)
        broker_event(broker, frame);
}

void broker_to_vm(struct broker *broker, const struct value *frame)
{
    cleanup_buf struct buf out = BUF_INIT;

    frame_append(frame, &out);
    pthread_mutex_lock(&broker->vm_lock);
    fd_write_all(broker->vm_fd, out.data, out.len, NULL);
    pthread_mutex_unlock(&broker->vm_lock);
}

void broker_leave_debugger(struct broker *broker)
{
    struct value frame = {0};

    cancel_renew(&broker->typed_cancel);
    value_set_map(&frame);
    value_put_string(&frame, "t", "leave");
    broker_to_vm(broker, &frame);
    value_free(&frame);
}
