/*
 * Images on disk: blobs by digest, repositories with tags. The embedded registry serves one over
 * HTTP
 * (<state>/local/registry); builds and pulls collect in another (<state>/cache/oci). Any number of
 * threads and processes may use one at the same time: everything appears by rename, complete or not
 * at all.
 *
 *   blobs/sha256/<hex>                     manifests too
 *   blobs/sha512/<hex>                     what came under such a digest
 *   uploads/<id>                           unfinished
 *   repositories/<name>/_tags/<tag>        "sha256:<hex>\n", or "sha512:<hex>\n"
 *   repositories/<name>/_manifests/<hex>   the media type
 *   repositories/<name>/_deleted/<hex>     a blob that this repository has no more, others do
 *
 * Names, tags and digests are checked against the grammar of the OCI distribution spec, which
 * leaves no room for paths: components begin with [a-z0-9], so "_tags" is none, and neither is
 * "..".
 */
#ifndef MLHOST_OCI_STORE_H
#define MLHOST_OCI_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/digest.h"
#include "base/value.h"

#define STORE_MANIFEST_LIMIT (4u << 20) /* bytes of a manifest, as registries have it */

struct store;

/* The store of the embedded registry: <state_dir>/local/registry. Folders are made. NULL with an
 * error. */
struct store *store_open(const char *state_dir, struct error *err);
/* Any folder; `durable`: blobs are on the disk before they get their name. */
struct store *store_open_at(const char *root, bool durable, struct error *err);
void store_close(struct store *store); /* NULL is allowed; parked uploads stay on disk */
void store_cleanup(struct store **store);
#define cleanup_store __attribute__((cleanup(store_cleanup)))

bool store_name_valid(
    const char *name); /* [a-z0-9]+((.|_|__|-+)[a-z0-9]+)*(/...)*, at most 255 bytes */
bool store_tag_valid(const char *tag); /* [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127} */

/* ---- blobs ---- */

/* What is seen here is used: garbage collection (store_gc.h) leaves it alone for its grace period.
 * size may be NULL. */
bool store_blob_exists(struct store *store, const char *digest, uint64_t *size);
/* A readable descriptor, or -1: ERR_NOT_FOUND, or ERR_INVALID for what is no digest. */
int store_blob_open(struct store *store, const char *digest, uint64_t *size, struct error *err);
int store_blob_read(struct store *store, const char *digest, size_t limit, struct buf *out,
                    struct error *err);
int store_blob_delete(struct store *store, const char *digest, struct error *err);
/* The blob as a repository sees it: there, and not taken out of this repository. */
bool store_blob_in(struct store *store, const char *name, const char *digest, uint64_t *size);
/* Takes a blob out of a repository; ERR_NOT_FOUND. Its bytes go, too, unless another repository has
 * a manifest that names it. */
int store_blob_forget(struct store *store, const char *name, const char *digest, struct error *err);
/* Undoes that: the blob came again, or was mounted. */
void store_blob_claim(struct store *store, const char *name, const char *digest);
/* Bytes at hand, e.g. a config. */
int store_blob_put(struct store *store, const void *data, size_t len, struct digest *out,
                   struct error *err);
char *store_blob_path(struct store *store,
                      const char *digest); /* allocated; NULL for what is no digest */

/* The same under a digest of another algorithm. */
int store_blob_put_as(struct store *store, enum digest_kind kind, const void *data, size_t len,
                      struct digest *out, struct error *err);

/* A nameless file on the store's disk, gone when closed: for what has to be collected before it can
 * be written. -1 fails. */
int store_scratch(struct store *store, struct error *err);

/* An upload: written piece by piece, perhaps over several requests, then committed under its
 * digest. */
struct upload;
struct upload *store_blob_begin(struct store *store, struct error *err);
/* With another algorithm from the start: its content needs no second reading at the commit. */
struct upload *store_blob_begin_as(struct store *store, enum digest_kind kind, struct error *err);
const char *store_upload_id(const struct upload *upload);
uint64_t store_upload_size(const struct upload *upload);
int store_upload_fd(const struct upload *upload); /* the store's; readable */
int store_blob_write(struct upload *upload, const void *data, size_t len, struct error *err);
/* Takes back what was written beyond `size`, as where the disk is full. */
void store_blob_rewind(struct upload *upload, uint64_t size);
/* Leaves the upload for later (another request, another process). Frees it. */
void store_blob_park(struct upload *upload);
/* Takes up a parked one; ERR_NOT_FOUND. One user at a time: ERR_CONFLICT. */
struct upload *store_blob_resume(struct store *store, const char *id, struct error *err);
/* Checks the digest (`expected` may be NULL), makes the blob appear. Frees the upload in any case;
 * on a mismatch (ERR_DIGEST, both digests in the message) nothing is kept. */
int store_blob_commit(struct upload *upload, const char *expected, struct digest *out,
                      struct error *err);
void store_blob_abort(struct upload *upload); /* frees, removes; NULL is allowed */

/* ---- manifests, tags, repositories ---- */

/* ref: a tag or a digest (which must then be the content's). The content must be JSON; what it
 * names (config, layers, manifests) must be in the repository unless `loose`: ERR_NOT_FOUND names
 * the first that is not. Of a type that is not known the known members are looked at. */
int store_manifest_put(struct store *store, const char *name, const char *ref,
                       const char *media_type, const void *data, size_t len, bool loose,
                       struct digest *out, struct error *err);
/* ref: a tag or a digest. Any out pointer may be NULL; *media_type is allocated. ERR_NOT_FOUND. */
int store_manifest_get(struct store *store, const char *name, const char *ref, struct buf *content,
                       char **media_type, struct digest *digest, struct error *err);
/* Forgets a manifest of the repository, and every tag that names it. */
int store_manifest_delete(struct store *store, const char *name, const char *digest,
                          struct error *err);

/* The repository must have the manifest: ERR_NOT_FOUND. */
int store_tag_set(struct store *store, const char *name, const char *tag, const char *digest,
                  struct error *err);
int store_tag_resolve(struct store *store, const char *name, const char *tag, struct digest *out,
                      struct error *err);
int store_tag_delete(struct store *store, const char *name, const char *tag, struct error *err);
/* Sorted arrays of strings. ERR_NOT_FOUND for an unknown repository. */
int store_tags(struct store *store, const char *name, struct value *out, struct error *err);
int store_repositories(struct store *store, struct value *out, struct error *err);
/* The digests of the repository's manifests; empty for an unknown one. */
int store_manifests(struct store *store, const char *name, struct value *out, struct error *err);
/* One of OCI's and Docker's four types, whose form is known. */
bool store_type_known(const char *media_type);
bool store_repository_exists(struct store *store, const char *name);

#endif
