/*
 * How an image was made: an in-toto statement (v1) whose predicate is SLSA provenance v1
 * (slsa.dev/spec/v1.0/provenance). The builder notes what it used while it works; the statement is
 * written when the image is.
 *
 *   resolvedDependencies: base images by digest, the Dockerfile by SHA-256, the context by dirHash
 *     (golang.org/x/mod/sumdb/dirhash, Hash1, of the files that .dockerignore lets through, in
 *     hexadecimal, as in-toto has it)
 *   externalParameters: Dockerfile, context, target, build arguments, labels. An argument whose
 *     name says that it is a secret has "<withheld>" for a value, and proxies are left out.
 *
 * Times are those of the build, unless SOURCE_DATE_EPOCH was given: then there are none, so that
 * the same build has the same statement.
 */
#ifndef MLHOST_OCI_PROVENANCE_H
#define MLHOST_OCI_PROVENANCE_H

#include "oci/build.h"
#include "oci/context.h"

#define IN_TOTO_TYPE       "application/vnd.in-toto+json"
#define PROVENANCE_TYPE    "https://slsa.dev/provenance/v1"
#define PROVENANCE_BUILDER "urn:mlhost:builder"
#define PROVENANCE_BUILD   "urn:mlhost:dockerfile-build:v1"

struct provenance_spec {
    const struct build_spec *build;
    const struct digest *image;      /* of the manifest */
    const char *name;                /* of the image, or NULL */
    const char *context;             /* as the caller named it */
    const struct value *materials;   /* what build_spec.materials got */
    const char *builder;             /* URI of who builds, or NULL: PROVENANCE_BUILDER */
    const char *invocation;          /* URI or number of this run, or NULL */
    int64_t started_ms, finished_ms; /* Unix; 0: none in the statement */
};

void oci_provenance(const struct provenance_spec *spec, struct value *out);

/* The dirHash of a context, as 64 hexadecimal digits. */
int context_dir_hash(struct context *context, char out[65], struct error *err);

#endif
