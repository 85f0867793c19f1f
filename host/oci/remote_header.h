/* The two reply headers of registries that have a grammar: WWW-Authenticate and Link. */
#ifndef MLHOST_OCI_REMOTE_HEADER_H
#define MLHOST_OCI_REMOTE_HEADER_H

#include <stdbool.h>

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

/* The text of `Warning: 299 - "text"` (RFC 7234, 5.5), control characters replaced; false for
 * another one. */
bool warning_text(const char *header, char *out, size_t room);

#endif
