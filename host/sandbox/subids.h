/*
 * The ids that a normal user may have in user namespaces besides its own: /etc/subuid and
 * /etc/subgid (subuid(5)), given out by newuidmap and newgidmap, which are setuid.
 */
#ifndef MLHOST_SANDBOX_SUBIDS_H
#define MLHOST_SANDBOX_SUBIDS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

struct subid_range {
    uint32_t first, count;
};
struct subids {
    struct subid_range uids, gids;
    char newuidmap[64], newgidmap[64]; /* paths */
};

/* Ranges of fewer ids than this are as none: nobody and nogroup are 65534. */
#define SUBIDS_FEWEST 65535u

/* The largest range of the caller in each file. False: *why (may be NULL) says what is missing and
 * how to get it. */
bool subids_find(struct subids *out, struct buf *why);
/* The text of one such file -> the largest range of this user, named or by number. False: none. */
bool subids_parse(const char *text, const char *user, uid_t uid, struct subid_range *out);
/* Maps the ids of pid, a child of the caller in a user namespace of its own that is not mapped yet
 * and whose /proc belongs to the caller: 0 is the caller, 1 and up are the ranges. */
int subids_map(const struct subids *subids, pid_t pid, struct error *err);

#endif
