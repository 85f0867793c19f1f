/* The worker of a model server: the HTTP side (the model module) beside the VM that answers. */
#include "model/model.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "broker/internal.h"

enum { LISTEN_FD = 4, METRICS_FD = 5 };

static void put_at(int fd, int number)
{
    if (fd < 0)
        close(number);
    else if (fd != number)
        dup3(fd, number, O_CLOEXEC);
}

/* The supervisor gave both high numbers, so neither lands on the other. */
void broker_model_keep(const struct broker_spec *spec)
{
    put_at(spec->model ? spec->model->listen_fd : -1, LISTEN_FD);
    put_at(spec->model ? spec->model->metrics_fd : -1, METRICS_FD);
}

static void send_vm(void *ctx, const struct value *frame)
{
    struct broker *broker = ctx;
    cleanup_buf struct buf out = BUF_INIT;

    frame_append(frame, &out);
    pthread_mutex_lock(&broker->vm_lock);
    (void)fd_write_all(broker->vm_fd, out.data, out.len, NULL);
    pthread_mutex_unlock(&broker->vm_lock);
}

static void kill_stuck(void *ctx)
{
    struct broker *broker = ctx;

    broker->model_stuck = true;
    if (!broker->vm_ended)
        kill(broker->vm_pid, SIGKILL);
}

static void stuck(void *ctx)
{
    struct broker *broker = ctx;

    loop_post(broker->loop, kill_stuck, broker);
}

static int start(struct broker *broker, struct error *err)
{
    static struct model_serving serving;
    struct model_host host = {.serving = &serving, .ctx = broker, .send = send_vm, .stuck = stuck};
    struct model *(*model_start)(const struct model_host *, struct error *);
    void *symbol = module_symbol(MODULE_MODEL, "mlh_model_start", err);

    if (!symbol)
        return -1;
    memcpy(&model_start, &symbol, sizeof model_start);
    serving = *broker->spec->model;
    serving.listen_fd = LISTEN_FD;
    serving.metrics_fd = serving.metrics_fd < 0 ? -1 : METRICS_FD;
    broker->model = model_start(&host, err);
    return broker->model ? 0 : -1;
}

static void end(struct broker *broker, const struct error *failure)
{
    struct value done = {0};

    value_set_map(&done);
    value_put_string(&done, "t", "done");
    if (failure)
        error_into_value(failure, value_put(&done, "error"));
    value_move(&broker->done, &done);
    broker->has_done = true;
}

void broker_model_loaded(struct broker *broker)
{
    struct value event = {0};
    struct error err = {0};

    if (!broker->spec->model || broker->model)
        return;
    if (start(broker, &err) < 0) {
        end(broker, &err);
        return;
    }
    value_set_map(&event);
    value_put_string(&event, "t", "serving");
    broker_event(broker, &event);
}

void broker_model_reply(struct broker *broker, struct value *frame)
{
    void (*model_reply)(struct model *, struct value *);
    static void *symbol;

    if (!broker->model)
        return;
    if (!symbol)
        symbol = module_symbol(MODULE_MODEL, "mlh_model_reply", NULL);
    memcpy(&model_reply, &symbol, sizeof model_reply);
    model_reply(broker->model, frame);
}

static void stop(struct broker *broker, bool vm_gone)
{
    void (*model_stop)(struct model *, bool);
    void *symbol = module_symbol(MODULE_MODEL, "mlh_model_stop", NULL);

    memcpy(&model_stop, &symbol, sizeof model_stop);
    model_stop(broker->model, vm_gone);
}

/* The VM waits for requests, and has nothing to lose. */
static void drained(void *ctx)
{
    struct broker *broker = ctx;

    broker->model = NULL;
    end(broker, NULL);
    kill(broker->vm_pid, SIGKILL);
}

static void *drain(void *ctx)
{
    struct broker *broker = ctx;

    stop(broker, false);
    loop_post(broker->loop, drained, broker);
    return NULL;
}

/* On a thread of its own: replies come in on the loop meanwhile. */
void broker_model_drain(struct broker *broker)
{
    static bool draining;
    pthread_t thread;

    if (draining)
        return;
    draining = true;
    if (!broker->model || pthread_create(&thread, NULL, drain, broker) != 0)
        drained(broker);
    else
        pthread_detach(thread);
}

void broker_model_gone(struct broker *broker)
{
    if (broker->model)
        stop(broker, true);
    broker->model = NULL;
}
