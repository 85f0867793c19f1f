/*
 * A registry over the OCI distribution API (v1.1): pings nothing, asks for what it needs, answers
 * challenges (basic, bearer tokens), checks every digest and size. One `struct remote` per
 * primitive call; tokens are shared by all calls of the process (remote_session.h).
 *
 * Credentials, first that is there: the active profile's `registry.auth` (for that registry, or in
 * `registry.hosts`), then Docker's config.json ($DOCKER_CONFIG, ~/.docker), $REGISTRY_AUTH_FILE and
 * containers/auth.json: those of the repository, then of the host; credHelpers, credsStore, auths.
 * Plain http: for loopback hosts, and where the profile's url says http:// and `insecure: true`.
 */
#ifndef MLHOST_OCI_REMOTE_H
#define MLHOST_OCI_REMOTE_H

#include <pthread.h>

#include "broker/primitive.h"
#include "loop/http.h"
#include "oci/reference.h"
#include "oci/remote_session.h"
#include "oci/store.h"

/* Who we are at a registry: user and password, an identity (refresh) token, or a bearer token. */
struct docker_login {
    char *user, *password, *identity, *bearer;
    char *origin; /* for messages: the file, or "mlhost.yaml" */
};

struct remote {
    struct call *call;
    struct http *http;
    char *host;      /* as in references */
    char *base;      /* "https://registry-1.docker.io" */
    char *base_host; /* of base, without port: where credentials may go */
    int base_port;
    char *unix_socket;
    char *ca, *client_cert, *client_key, *proxy;
    char *mirror_of;        /* the host whose images this one has copies of, or NULL */
    struct remote *mirrors; /* asked first while `reading`; the lock guards their making */
    struct remote *next_mirror;
    bool mirrors_known, reading; /* reading: a pull, which may come from a mirror */
    _Atomic bool dead;           /* a mirror that does not answer is not asked again */
    const struct value *config;  /* what the profile says of it, or NULL */
    bool insecure, trusted;      /* trusted: the operator configured this registry */
    bool near;            /* it is on a private address itself, so it may send us to others */
    pthread_mutex_t lock; /* guards what follows, until it is known; then it does not change */
    bool credentials_known;
    struct docker_login login;
    struct value azure; /* profile's auth that signs in at Azure AD, or nil */
    struct remote_session *session;
    char *masked; /* the token of the session that was masked last */
};

struct remote *remote_new(struct call *call, const char *host, struct error *err);
void remote_free(struct remote *remote);
void remote_cleanup(struct remote **remote);
#define cleanup_remote __attribute__((cleanup(remote_cleanup)))

/* The host that references without one mean: the profile's registry, or mlhost.local. Allocated. */
char *remote_default_host(struct call *call);
/* "team" of a profile's url https://acme.azurecr.io/team, or NULL: in front of names without a
 * host. Allocated. */
char *remote_default_prefix(struct call *call);

/*
 * One request. request->url is a path ("/v2/...") or what the registry gave as Location. scope:
 * words like "repository:x:pull,push", may be NULL. Address, TLS, credentials, deadline, cancel and
 * permission are filled in. A 401 is answered once. 0 with any status.
 */
int remote_send(struct remote *remote, const char *scope, const struct http_request *request,
                struct http_response *response, struct error *err);
/* An error of what the registry answered, with its own codes and messages. Returns -1. */
int remote_refused(struct remote *remote, const struct http_request *request,
                   const struct http_response *response, const char *what, struct error *err);

http_allow_fn remote_allow; /* ctx: the remote */

/* Does the URL, or path, belong to the registry itself? */
bool remote_own_url(const struct remote *remote, const char *url);

/* remote_auth.c */
/* After a 401 to a request that was sent with `used` (its Authorization header, or NULL), for the
 * `attempt`th time, from 0: a new token, or basic. 1: try again, 0: nothing to try, -1. */
int remote_challenge(struct remote *remote, const char *scope, const struct http_headers *headers,
                     const char *used, int attempt, struct error *err);
/* The Authorization header for a scope, allocated, or *out NULL: none. */
int remote_authorize(struct remote *remote, const char *scope, char **out, struct error *err);
/* "user:password" as a header's value. Allocated. */
char *remote_basic(const struct remote *remote);
/* Masks a secret for this call. */
void remote_mask(struct remote *remote, const char *text);
/* remote_token.c: asks the token service; the session's turn is ours. Keeps what it gives.
 * missing_first: the challenge's scopes stand in front of ours. */
int remote_fetch_token(struct remote *remote, const char *scope, const struct challenge *challenge,
                       bool missing_first, struct error *err);
/* docker_config.c: the login for a repository (name may be NULL) of a host. 1 found, 0 none, -1. */
int docker_credentials(const char *host, const char *name, int64_t deadline,
                       struct docker_login *login, struct error *err);
void docker_login_free(struct docker_login *login);

/* ---- images ---- */

/* The digest of a tag (or digest): 1 there, 0 not, -1. media_type may be NULL. */
int remote_resolve(struct remote *remote, const char *name, const char *ref, struct digest *out,
                   struct error *err);
/* The manifest or index itself, checked. */
int remote_manifest(struct remote *remote, const char *name, const char *ref, struct buf *text,
                    char **media_type, struct digest *digest, struct error *err);
/* Sorted. limit: no more than that many of them, 0: all; last: behind that one, or NULL. */
int remote_tags(struct remote *remote, const char *name, size_t limit, const char *last,
                struct value *out, struct error *err);

/* attest.c: a manifest with a subject that is in the registry, and one that is there no more. What
 * has the referrers API needs neither; else the index under the fallback tag is written. */
int remote_note_referrer(struct remote *remote, const char *name, const struct value *manifest,
                         const char *digest, size_t size, struct error *err);
int remote_forget_referrer(struct remote *remote, const char *name, const char *subject,
                           const char *digest, struct error *err);

struct push_result {
    bool skipped;
    size_t blobs, sent;
    uint64_t bytes;
    struct digest digest;
};
/* What `digest` names goes to name:tag. from: repositories of that registry that may have blobs of
 * it already (mounting), or NULL. */
int remote_push(struct remote *remote, struct store *store, const char *digest, const char *name,
                const char *tag, const struct value *from, struct push_result *out,
                struct error *err);
/* The same for everything that `digest`, a manifest or an index, leads to: all platforms, byte for
 * byte. */
int remote_push_whole(struct remote *remote, struct store *store, const char *digest,
                      const char *name, const char *tag, const struct value *from,
                      struct push_result *out, struct error *err);
/* Everything that a tag or digest leads to -> the store; *digest: of the manifest or index that it
 * names. */
int remote_pull_whole(struct remote *remote, struct store *store, const char *name, const char *ref,
                      const char *store_name, struct digest *digest, struct error *err);
/* One blob -> the store, unless it is there. Digest and size are checked. */
int remote_fetch(struct remote *remote, struct store *store, const char *name,
                 const struct value *descriptor, struct error *err);
/* Sees blobs come. `manifest` is called first, `begun` and `ended` (once for each blob, there or
 * not) by the threads that fetch, `grown` by the I/O thread: it must not block. */
struct pull_watcher {
    void (*manifest)(void *ctx, const struct value *manifest);
    /* fd: of the file that the blob is written to, the pull's. Returns what `grown` gets. */
    void *(*begun)(void *ctx, const char *digest, int fd);
    void (*grown)(void *watch, uint64_t size);
    void (*ended)(void *ctx, const char *digest, bool there);
    void *ctx;
};
/* Config and layers of a manifest -> the store. watcher may be NULL. */
int remote_fetch_all(struct remote *remote, struct store *store, const char *name,
                     const struct value *manifest, const struct pull_watcher *watcher,
                     struct error *err);
/* Manifest, config and layers -> the store, under store_name (tagged when ref is a tag). *digest:
 * of the image for this machine. watcher may be NULL. */
int remote_pull(struct remote *remote, struct store *store, const char *name, const char *ref,
                const char *store_name, const struct pull_watcher *watcher, struct digest *digest,
                struct error *err);

#endif
