/*
 * The durable serve process of a workspace: the one that has the embedded Kubernetes API, the
 * Seldon operator and its models, and that outlives the runs which need it.
 *
 * There is at most one: it holds the lock <state>/local/daemon/lock for as long as it lives, which
 * is how others know that it does. daemon.json beside it says where it listens. Started in the
 * background it is two processes: a small supervising one, which starts the serving one anew when
 * that dies.
 */
#ifndef MLHOST_RUN_DAEMON_H
#define MLHOST_RUN_DAEMON_H

#include "base/config.h"

struct daemon {
    bool running;
    pid_t pid; /* of the process that holds the lock */
    int port;  /* the last one, also when it does not run; 0: never ran */
    int64_t started_ms;
    char *url, *socket, *version; /* NULL when it never ran */
};
void daemon_free(struct daemon *daemon);
#define cleanup_daemon __attribute__((cleanup(daemon_free)))

/* What is known of it; never fails: what cannot be read is not there. */
void daemon_look(const struct config *config, struct daemon *out);

/* The lock, for this process and the children that it forks; -1 with ERR_EXISTS when a daemon
 * runs. */
int daemon_lock(const struct config *config, struct error *err);
/* A listening unix socket at the daemon's own path (*path, allocated). With the lock held. */
int daemon_listen(const struct config *config, char **path, struct error *err);
/* Writes daemon.json, `pid` serves at url and socket; from now on the daemon counts as running. */
int daemon_record(const struct config *config, int lock_fd, pid_t pid, const char *url,
                  const char *socket, struct error *err);

/*
 * Starts it in the background, detached: it outlives this process and whatever kills this
 * process's tree. Returns at once; *ready becomes readable when it serves or has failed, for
 * daemon_started. port 0: the last one when it is free, else any.
 */
int daemon_start(const struct config *config, int port, int *ready, struct error *err);
/* Reads the outcome, waiting until the deadline at most; takes `ready`. Another process having
 * started it meanwhile is success. */
int daemon_started(int ready, int64_t deadline, struct error *err);

/* Where it is, for a broker that asked: `socket` and `url`, or `by`, which says why not. */
void daemon_answer(const struct config *config, const struct error *failure, struct value *out);
/* Looks, and starts it when it does not run; waits until it is ready. */
int daemon_ensure(const struct config *config, struct error *err);

/* SIGTERM, and SIGKILL to the tree when it has not ended by the deadline; returns when nobody holds
 * the lock any more. 1 stopped, 2 killed, 0 none ran. */
int daemon_stop(const struct config *config, int64_t deadline, struct error *err);

/* `mlhost serve --supervised`: serves until SIGTERM, in a child that is started anew when it dies.
 * Its descriptor 3 is the starter's. */
int daemon_supervise(const struct config *config, int port);

#endif
