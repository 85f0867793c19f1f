/* The serve process: sockets, services, the wait for a signal, the drain. */
#include "local/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "local/runner.h"
#include "local/server.h"
#include "local/services.h"

#define DRAIN_MS     10000
#define MAX_SERVICES 16

static struct service *mlflow_open(const struct local_host *host, struct error *err)
{
    return lua_service_open(host, "mlflow", NULL, err);
}

static struct service *kubeflow_open(const struct local_host *host, struct error *err)
{
    return lua_service_open(host, "kubeflow", kubeflow_libraries, err);
}

typedef struct service *(*service_open)(const struct local_host *host, struct error *err);
static const service_open services[] = {
    registry_open,
    artifacts_open,
    mlflow_open,
    kubeflow_open,
};

/* What outlives a run, in this order: Seldon stands on the objects of Kubernetes. */
static const service_open durable_services[] = {
    kubernetes_open,
    seldon_ingress_open,
};
#define COUNT(list) (sizeof list / sizeof *list)

static int open_list(const service_open *list, size_t list_count, const struct local_host *host,
                     struct service **open, size_t *count, struct error *err)
{
    for (size_t i = 0; i < list_count; i++) {
        struct service *service = list[i](host, err);
        if (!service)
            return -1;
        open[(*count)++] = service;
    }
    return 0;
}

static int open_services(const struct local_host *host, const struct serve_spec *spec,
                         struct service **open, size_t *count, struct error *err)
{
    if (open_list(services, COUNT(services), host, open, count, err) < 0)
        return -1;
    if (spec->durable)
        return open_list(durable_services, COUNT(durable_services), host, open, count, err);
    if (spec->elsewhere)
        open[(*count)++] = elsewhere_open(spec->elsewhere);
    return 0;
}

static int tell_ready(int fd, const char *url, struct error *err)
{
    cleanup_free char *line = mem_printf("%s\n", url);

    if (fd < 0)
        return 0;
    int status = fd_write_all(fd, line, strlen(line), err);
    close(fd);
    return status < 0 ? error_wrap(err, "cannot say that the server is ready") : 0;
}

static int wait_for_end(const sigset_t *ends)
{
    int which;

    while ((which = sigwaitinfo(ends, NULL)) < 0 && errno == EINTR)
        continue;
    return which;
}

int mlh_serve_main(const struct serve_spec *spec, struct error *err)
{
    cleanup_free char *state = path_join(spec->config->state, "local");
    cleanup_free char *url = mem_strdup("");
    struct service *open[MAX_SERVICES] = {NULL};
    size_t count = 0;
    int port = spec->port, fds[2] = {spec->unix_fd, spec->tcp_fd};
    sigset_t ends, before;

    if (dir_make(state, err) < 0)
        return -1;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    /* Before any thread is made: each of them inherits the mask, and the signals wait for
     * sigwaitinfo. */
    pthread_sigmask(SIG_BLOCK, &ends, &before);
    struct sigaction ignore = {.sa_handler = SIG_IGN}, pipe_before;
    sigaction(SIGPIPE, &ignore, &pipe_before);
    int status = -1;
    if (spec->tcp_fd >= 0) {
        port = server_port(spec->tcp_fd);
    } else if (spec->port >= 0) {
        fds[1] = server_listen(&port, err);
        if (fds[1] < 0)
            goto out;
    }
    if (fds[1] >= 0) {
        mem_cleanup(&url);
        url = mem_printf("http://127.0.0.1:%d", port);
    }
    struct local_host host = {.config = spec->config, .state = state, .url = url};
    struct server *server = NULL;
    if (open_services(&host, spec, open, &count, err) == 0)
        server = server_start(fds, 2, open, count, spec->quiet ? 0 : SERVER_VERBOSE, err);
    else
        while (count-- > 0)
            open[count]->close(open[count]);
    if (!server)
        goto out;
    status = tell_ready(spec->ready_fd, url, err);
    if (status == 0)
        wait_for_end(&ends);
    server_stop(server, DRAIN_MS);
out:
    sigaction(SIGPIPE, &pipe_before, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}
