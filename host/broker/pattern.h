/*
 * One pattern of a permission, and what it covers.
 *
 *   read, write  a path; it covers itself and everything below. "*": every path
 *   net          host, host:port, *.domain, an address, a network (10.0.0.0/8, fd00::/8), each with
 *                ":port" or ":*" or without (every port); IPv6 in brackets where a port follows.
 *                "*": every host
 *   exec         a command's name, or an absolute path: with any arguments. Words after it bound
 *                the arguments: "git log" is exactly that; "*" in a word stands for any text; "*"
 *                as the last word for any further arguments, also none. "*": every command
 *   env          a name; "PREFIX_*": every name that begins so
 *   ci           "commands": what is printed may be commands to the build agent
 *
 * Bounds on arguments keep honest scripts from accidents. They are no border for programs that run
 * other programs when told to.
 */
#ifndef MLHOST_BROKER_PATTERN_H
#define MLHOST_BROKER_PATTERN_H

#include "base/error.h"

#include <stdbool.h>

enum permission { PERM_READ, PERM_WRITE, PERM_NET, PERM_EXEC, PERM_ENV, PERM_CI, PERM_COUNT };
extern const char *const permission_names[PERM_COUNT];

/* What somebody wants: a normalized path, "host:port", a variable's name; of a command its words
 * joined by PATTERN_WORD. */
#define PATTERN_WORD '\x1f'
bool pattern_matches(enum permission kind, const char *pattern, const char *what);
/* Does `wide` allow all that `narrow` asks for? Both patterns. */
bool pattern_covers(enum permission kind, const char *wide, const char *narrow);
/* ERR_INVALID with what is wrong with it, and what to write instead. */
int pattern_check(enum permission kind, const char *pattern, struct error *err);

/* What an address is, whichever way it is written (IPv4-mapped IPv6 is IPv4). */
enum address_kind {
    ADDRESS_NONE, /* a name */
    ADDRESS_PLAIN,
    ADDRESS_OWN, /* of this machine: 127/8, 0/8, ::1, :: */
    ADDRESS_LINK /* 169.254/16 and fe80::/10, the metadata services of clouds, multicast */
};
enum address_kind address_kind(const char *address);
/* Is this net pattern one of addresses, and does it hold this one? */
bool pattern_holds_address(const char *pattern, const char *address, int port);

#endif
