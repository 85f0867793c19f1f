/* The registry service: requests taken apart (registry.c), blobs and uploads (registry_blobs.c),
 * manifests (registry_manifests.c). */
#ifndef MLHOST_LOCAL_REGISTRY_H
#define MLHOST_LOCAL_REGISTRY_H

#include "local/services.h"
#include "oci/store.h"

#define REGISTRY_DIGESTS "sha256:<64 lower-case hexadecimal digits> or sha512:<128 of them>"

enum registry_kind {
    REGISTRY_PING,
    REGISTRY_CATALOG,
    REGISTRY_TAGS,
    REGISTRY_MANIFEST,
    REGISTRY_REFERRERS,
    REGISTRY_BLOB,
    REGISTRY_UPLOADS, /* .../blobs/uploads/ */
    REGISTRY_UPLOAD,  /* .../blobs/uploads/<id> */
    REGISTRY_UNKNOWN,
};

struct registry {
    struct service service;
    struct store *store;
    char *root; /* the store's folder */
};

/* One request: rq->local. */
struct registry_request {
    enum registry_kind kind;
    char *name;            /* repository; NULL where there is none */
    const char *reference; /* tag, digest or upload id; within rq->path */
    struct upload *upload; /* bytes that come in go there */
    bool keep;             /* a broken-off upload can be taken up again */
    uint64_t size_before;  /* of the upload, when this request came */
    bool ranged;           /* the body must end the upload at range_end bytes */
    uint64_t range_end;
};

struct registry *registry_of(const struct request *rq);
struct registry_request *registry_request_of(const struct request *rq);

/* {"errors": [{code, message}]} */
void registry_refuse(struct request *rq, int status, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* What the store said, with the given code for "not found". */
void registry_refuse_error(struct request *rq, const char *not_found, const struct error *err);
/* Answers a page of a sorted list of strings under `key` (with "name" when there is one), by ?n=
 * and ?last=. */
void registry_page(struct request *rq, const char *key, const struct value *all);

void registry_blob(struct request *rq);
void registry_upload_begin(struct request *rq);  /* POST, PATCH, PUT */
void registry_upload_finish(struct request *rq); /* the same, body whole; and GET, DELETE */
void registry_manifest(struct request *rq);
void registry_referrers(struct request *rq);

#endif
