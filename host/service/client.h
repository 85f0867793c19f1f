/* A configured service: where it is, how its TLS is checked, who we are there. */
#ifndef MLHOST_SERVICE_CLIENT_H
#define MLHOST_SERVICE_CLIENT_H

#include <pthread.h>

#include "service/rest.h"

/* What the program knows about a service before any configuration. Names of variables ("A|B": the
 * first that is set); NULL where there is none. */
struct service {
    const char *name;            /* key in a profile, `service` of errors */
    const char *url;             /* variable with the address */
    const char *default_url;     /* where the service is without one */
    bool embedded;               /* the local profile has it */
    bool durable;                /* and there it is the daemon's, which outlives runs */
    const char *url_key;         /* of the address in a profile; NULL: "url" */
    const char *token;           /* variable: bearer token */
    const char *pat;             /* variable: password of basic authentication with an empty user */
    const char *user, *password; /* variables: basic */
    const char
        *token_file; /* variable: path of a bearer token that is read again for each request */
    const char *tenant, *client_id, *client_secret,
        *scope;                              /* variables: Azure AD; scope is the value itself */
    const char *insecure, *ca, *client_cert; /* variables: TLS */
    const char *experiment, *subscription;   /* variables: told to the script */
    const char *header, *header_variable;    /* a header sent when the variable is set */
};
const struct service *service_find(const char *name);

/* For services that find their address by means of their own (k8s_connect.c). */
struct rest_client;
struct rest_client *rest_client_new(const struct service *service, const char *profile);
void rest_client_free(void *client);
/* Frees `text` (may be NULL) and closes `fd` (-1: none) with the client, not before: requests that
 * are under way may still use them. */
void rest_client_keep(struct rest_client *client, char *text, int fd);
/* The script's own `auth` or `token`, where the arguments have one: *given says so, and they stand
 * in client->auth. */
int rest_client_own_auth(struct call *call, struct rest_client *client, const struct value *args,
                         bool *given, struct error *err);
/* Host and port out of the client's URL; host stays NULL when there is none in it. */
void rest_client_set_host(struct rest_client *client);
/* What connect returns: names, never credentials, and the handle, which owns the client. */
void rest_client_give(struct call *call, struct rest_client *client,
                      const struct service_target *target, struct value *out);

enum auth_kind {
    AUTH_NONE,
    AUTH_BEARER,
    AUTH_BASIC,
    AUTH_AZURE_AD,
    AUTH_WORKLOAD_IDENTITY, /* Azure AD with an assertion instead of a secret */
    AUTH_EXEC,              /* a credential plugin of a kubeconfig */
    AUTH_HEADER
};

struct auth {
    enum auth_kind kind;
    char *token;      /* bearer; header's value */
    char *token_file; /* bearer from a file, read per request; workload identity: the assertion */
    char *user, *password;
    char *tenant, *client_id, *client_secret, *scope, *authority;
    char *service_connection; /* workload identity on an agent: whose assertion is asked for */
    char *name;               /* header */
    bool from_script;         /* its files and its Azure authority must be permitted like others */
    char *cached;             /* Azure AD token */
    int64_t cached_until;
    struct value *exec; /* `user.exec` of the kubeconfig */
    const char *origin; /* for messages: "MLFLOW_TRACKING_TOKEN", "mlhost.yaml" */
};

struct rest_client {
    const struct service *service;
    char *url;        /* without a trailing slash */
    char *url_origin; /* for messages: where the URL came from */
    char *unix_socket;
    char *shown_url; /* how people reach what is behind the socket, or NULL */
    char *profile;
    bool trusted; /* the operator named the URL, not the script */
    char *host;   /* of the URL, with port, for the permission check */
    int port;
    char *ca, *client_cert, *client_key, *proxy;
    char *proxy_host; /* of a proxy that a script named, whose address needs the permission net */
    int proxy_port;
    char *tls_name; /* of the server's certificate, when it is not the URL's host */
    bool insecure;
    int64_t timeout_ns;          /* of one call, bodies of files aside */
    struct http_headers headers; /* sent with each request */
    pthread_mutex_t lock;        /* guards auth, client_cert and client_key */
    struct auth auth;
    struct kept *kept; /* see rest_client_keep */
    size_t kept_count;
};

/* auth.c. `map` is { type = ..., ... } of a profile (texts, { env }, { file }) or of a script
 * (texts, secrets). */
int auth_from_value(struct call *call, const struct value *map, bool from_script, struct auth *out,
                    struct error *err);
/* From the service's variables; kind stays AUTH_NONE when none is set. */
int auth_from_variables(struct call *call, const struct service *service, struct auth *out,
                        struct error *err);
void auth_free(struct auth *auth);
/* Adds the header that says who asks; `fresh`: a cached token has been refused. */
int auth_apply(struct call *call, struct rest_client *client, bool fresh,
               struct http_headers *headers, struct error *err);
/* The bearer token itself (Azure AD: for another scope, when given); ERR_UNSUPPORTED for other
 * kinds. Allocated. */
char *auth_token(struct call *call, struct rest_client *client, const char *scope, bool fresh,
                 struct error *err);
bool auth_can_refresh(const struct auth *auth);

/* auth.c: a copy that is masked from now on; the bytes of a token file, masked. Allocated. */
char *secret_copy(struct call *call, const char *text);
char *read_token_file(struct call *call, const struct auth *auth, struct error *err);
/* auth_azure.c: signs in at Azure AD for `scope`; *until is when the token is to be renewed.
 * Allocated. */
char *azure_token(struct call *call, struct rest_client *client, const char *scope, int64_t *until,
                  struct error *err);

/* A variable's text, of the first of "A|B" that has one; NULL when unset, empty, or an Azure DevOps
 * "$(NAME)" that nobody replaced. */
const char *variable(const char *name);

#endif
