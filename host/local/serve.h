/* The embedded services over HTTP (part of the serve module). See docs/architecture.md, "The
 * embedded default". */
#ifndef MLHOST_LOCAL_SERVE_H
#define MLHOST_LOCAL_SERVE_H

#include "base/config.h"

struct serve_spec {
    const struct config *config; /* state dir: <config->state>/local */
    int unix_fd;                 /* listening unix socket handed over (socket activation), or -1 */
    int tcp_fd;                  /* listening TCP socket handed over, or -1: then `port` counts */
    int port;                    /* loopback TCP port: 0 any free one, -1 none */
    int ready_fd; /* gets one line "http://127.0.0.1:PORT\n" when all is listening; -1 none */
    bool durable; /* with the Kubernetes API and Seldon; the workspace's daemon alone */
    const char *elsewhere; /* without `durable`: who has those services, or NULL; requests for them
                              get 503 with it */
    bool quiet;
};
/* Serves until SIGTERM or SIGINT, then drains and returns 0. Exported by the serve module as
 * "mlh_serve_main". */
int mlh_serve_main(const struct serve_spec *spec, struct error *err);

#endif
