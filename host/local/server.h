/* HTTP/1.1 over libmicrohttpd on a unix socket and a loopback port, a thread per connection. */
#ifndef MLHOST_LOCAL_SERVER_H
#define MLHOST_LOCAL_SERVER_H

#include "local/router.h"

struct server;

/* A loopback TCP socket that listens: *port 0 means any free one and is set. -1 on failure. */
int server_listen(int *port, struct error *err);
/* The port of a socket that listens. */
int server_port(int fd);
#define SERVER_VERBOSE 1u /* a line per request on stderr */
/* For a pod's network: whatever name it is called by; no paths of its own. */
#define SERVER_ANY_HOST 2u
/* For many small requests: less memory for a connection's headers. */
#define SERVER_LEAN 4u
/* One thread for all connections; handlers must not block, and call request_suspend instead. */
#define SERVER_SUSPENDS 8u

/* Serves on fds (each -1 or listening; taken). Services live until server_stop, which closes them.
 */
struct server *server_start(const int *fds, size_t fd_count, struct service *const *services,
                            size_t service_count, unsigned options, struct error *err);
/* Takes no more connections, waits up to drain_ms for requests in hand, closes the rest, closes the
 * services. */
void server_stop(struct server *server, int drain_ms);

#endif
