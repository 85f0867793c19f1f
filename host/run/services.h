/*
 * The embedded services during a run, by socket activation: the supervisor listens, the first
 * client that connects makes it fork the serve process, which takes the listening socket over. A
 * run that needs no service starts none.
 */
#ifndef MLHOST_RUN_SERVICES_H
#define MLHOST_RUN_SERVICES_H

#include "base/config.h"
#include "loop/loop.h"

struct services;
/* A folder for sockets: short, and nobody else's; `lasting`: not one that goes when the user's last
 * session ends. Allocated. */
char *services_folder(const struct config *config, bool lasting);
/* say(ctx, level, text): notices for the user. */
typedef void services_say(void *ctx, const char *level, const char *text);
struct services *services_open(struct loop *loop, const struct config *config, services_say *say,
                               void *ctx, struct error *err);
const char *services_socket(const struct services *services);
/* Was the serve process ever started? */
bool services_started(const struct services *services);
/* SIGTERM, and SIGKILL to the tree when it has not ended in 5 s; removes the socket. NULL is
 * allowed. */
void services_close(struct services *services);

#endif
