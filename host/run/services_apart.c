#include "run/services_apart.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/services.h"

static void say(void *ctx, const char *level, const char *text)
{
    (void)ctx;
    if (strcmp(level, "error") == 0)
        fprintf(stderr, "mlhost: %s\n", text);
}

static void on_terminate(void *ctx)
{
    loop_stop(ctx);
}

/* One line to the parent: "+" and the socket's path, or "-" and what went wrong. */
static _Noreturn void listen_apart(const struct config *config, pid_t parent, int to_parent)
{
    struct error err = {0};
    struct loop *loop;
    struct services *services = NULL;

    setsid(); /* Ctrl-C is for the one who types */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    prctl(PR_SET_NAME, "mlhost-listen");
    loop = loop_new(&err);
    if (loop && loop_signal(loop, SIGTERM, on_terminate, loop))
        services = services_open(loop, config, say, NULL, &err);
    if (!services) {
        dprintf(to_parent, "-%s", err.message);
        _exit(1);
    }
    dprintf(to_parent, "+%s", services_socket(services));
    close(to_parent);
    int rc = loop_run(loop, &err);
    services_close(services);
    _exit(rc < 0 ? 1 : 0);
}

int services_apart_open(const struct config *config, struct services_apart *out, struct error *err)
{
    cleanup_close int from = -1;
    cleanup_close int to = -1;
    char said[4096] = "";
    size_t len = 0;
    int pair[2];
    pid_t parent = getpid();

    *out = (struct services_apart){0};
    if (!config_is_local(config))
        return 0;
    if (pipe2(pair, O_CLOEXEC) < 0)
        return error_errno(err, errno, "a pipe for the embedded services");
    from = pair[0];
    to = pair[1];
    fflush(NULL);
    out->pid = fork();
    if (out->pid < 0) {
        out->pid = 0;
        return error_errno(err, errno, "starting the embedded services");
    }
    if (out->pid == 0)
        listen_apart(config, parent, to);
    close(steal_fd(&to));
    for (;;) {
        ssize_t n = read(from, said + len, sizeof said - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    if (said[0] == '+') {
        out->socket = mem_strdup(said + 1);
        return 0;
    }
    services_apart_close(out);
    return error_set(err, ERR_IO, "%s",
                     said[0] ? said + 1 : "the embedded services' process ended");
}

void services_apart_close(struct services_apart *apart)
{
    if (apart->pid > 0) {
        kill(apart->pid, SIGTERM);
        while (waitpid(apart->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    mem_cleanup(&apart->socket);
    *apart = (struct services_apart){0};
}
