/* The two reply headers of registries that have a grammar: WWW-Authenticate and Link. */
#ifndef MLHOST_OCI_REMOTE_HEADER_H
#define MLHOST_OCI_REMOTE_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "loop/http.h"

/* What a challenge asks for; a parameter that is not there is NULL. */
struct challenge {
    char *realm, *service, *scope;
};
void challenge_free(struct challenge *challenge);
#define cleanup_challenge __attribute__((cleanup(challenge_free)))

/* Is there a challenge of this scheme ("Bearer") among the WWW-Authenticate headers (RFC 9110,
 * 11.6.1)? Fills *out. */
bool challenge_find(const struct http_headers *headers, const char *scheme, struct challenge *out);

/* The URL of `Link: <url>; rel="next"` (RFC 8288), or NULL. Allocated. */
char *link_next(const struct http_headers *headers);

/* A Location that may be relative, against the URL that answered with it (RFC 3986, 5.2): a URL, or
 * a path "/v2/...". Allocated; NULL for what is none. */
char *location_resolve(const char *base, const char *location);
/* How many bytes `Range: 0-N` of an upload session says there are: N + 1. "0-0" is what registries
 * say of none, too, and *count is 0. False: no such range, or none given. */
bool range_end(const char *header, uint64_t *count);
/* The text of `Warning: 299 - "text"` (RFC 7234, 5.5), control characters replaced; false for
 * another one. */
bool warning_text(const char *header, char *out, size_t room);

#endif
