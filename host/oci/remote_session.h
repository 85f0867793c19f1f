/*
 * What is known about a registry beyond one primitive call: tokens, the refresh token, which
 * challenge it makes, warnings that were shown. One per registry, repository-wide credentials and
 * process; the calls of a run share it, so a token is asked for once per scope and lifetime.
 */
#ifndef MLHOST_OCI_REMOTE_SESSION_H
#define MLHOST_OCI_REMOTE_SESSION_H

#include <pthread.h>

#include "base/error.h"
#include "loop/cancel.h"
#include "oci/remote_header.h"

struct remote_session;

/* The session of a key (a digest over address and credentials), made when there is none. */
struct remote_session *remote_session_get(const char *key);
void remote_session_put(struct remote_session *session); /* NULL is allowed */

/* The token of a scope that has not expired, allocated, or NULL. */
char *remote_session_token(struct remote_session *session, const char *scope);
void remote_session_keep(struct remote_session *session, const char *scope, const char *token,
                         int64_t until);
void remote_session_drop(struct remote_session *session, const char *token);

/* The refresh token that the registry gave, allocated, or NULL; set NULL forgets it. */
char *remote_session_refresh(struct remote_session *session);
void remote_session_set_refresh(struct remote_session *session, const char *token);

/* The last bearer challenge, so that a new scope costs no refused request. */
bool remote_session_challenge(struct remote_session *session, struct challenge *out);
void remote_session_set_challenge(struct remote_session *session,
                                  const struct challenge *challenge);
bool remote_session_basic(struct remote_session *session);
void remote_session_set_basic(struct remote_session *session);
/* Was the registry seen on a private address? */
bool remote_session_near(struct remote_session *session);
void remote_session_set_near(struct remote_session *session);

/* Is this warning new? It is remembered (a bounded number of them). */
bool remote_session_warning(struct remote_session *session, const char *text);

/* One at a time asks for tokens; the others wait, hear their cancel and keep their deadline. */
int remote_session_begin(struct remote_session *session, int64_t deadline,
                         const struct cancel *cancel, struct error *err);
void remote_session_end(struct remote_session *session);

#endif
