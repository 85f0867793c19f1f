/*
 * A registry over the OCI distribution API (v1.1): pings nothing, asks for what it needs, answers
 * challenges (basic, bearer tokens), checks every digest and size. One `struct remote` per
 * primitive call; its tokens are shared by the call's threads.
 *
 * Credentials, first that is there: the active profile's `registry.auth` (for that registry), then
 * Docker's config.json
 * ($DOCKER_CONFIG, ~/.docker): credHelpers, credsStore, auths.
 * Plain http: for loopback hosts, and where the profile's url says http:// and `insecure: true`.
 */
#ifndef MLHOST_OCI_REMOTE_H
#define MLHOST_OCI_REMOTE_H

#include <pthread.h>

#include "broker/primitive.h"
#include "loop/http.h"
#include "oci/reference.h"
#include "oci/store.h"

struct remote_token {
    struct remote_token *next;
    char *scope, *text;
    int64_t until; /* deadline */
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
    bool insecure, trusted; /* trusted: the operator configured this registry */
    bool near;              /* it is on a private address itself, so it may send us to others */
    pthread_mutex_t lock;   /* guards what follows */
    struct remote_token *tokens;
    char *user, *password, *identity, *bearer;
    bool credentials_known, basic;
    const char *credentials_from;
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

/* remote_auth.c */
/* After a 401: a new token, or basic. 1: try again, 0: nothing to try, -1. */
int remote_challenge(struct remote *remote, const char *scope, const struct http_headers *headers,
                     struct error *err);
int remote_authorize(struct remote *remote, const char *scope, struct http_headers *headers,
                     struct error *err);
/* docker_config.c: user and password, or an identity token, of a host. 1 found, 0 none, -1.
 * Allocated. */
int docker_credentials(const char *host, int64_t deadline, char **user, char **password,
                       char **identity, struct error *err);

/* ---- images ---- */

/* The digest of a tag (or digest): 1 there, 0 not, -1. media_type may be NULL. */
int remote_resolve(struct remote *remote, const char *name, const char *ref, struct digest *out,
                   struct error *err);
/* The manifest or index itself, checked. */
int remote_manifest(struct remote *remote, const char *name, const char *ref, struct buf *text,
                    char **media_type, struct digest *digest, struct error *err);
int remote_tags(struct remote *remote, const char *name, struct value *out, struct error *err);

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
/* One blob -> the store, unless it is there. Digest and size are checked. */
int remote_fetch(struct remote *remote, struct store *store, const char *name,
                 const struct value *descriptor, struct error *err);
/* Manifest, config and layers -> the store, under store_name (tagged when ref is a tag). *digest:
 * of the image for this machine. */
int remote_pull(struct remote *remote, struct store *store, const char *name, const char *ref,
                const char *store_name, struct digest *digest, struct error *err);

#endif
