/*
 * Dockerfile and context -> image in a store, without a daemon.
 *
 * Done here: FROM (scratch, an earlier stage, whatever `resolve` knows), several stages (those not
 * needed are skipped), ARG, ENV, LABEL, WORKDIR, COPY, ADD (archives, URLs, git repositories),
 * USER, ENTRYPOINT, CMD, EXPOSE, VOLUME, STOPSIGNAL, SHELL, HEALTHCHECK, MAINTAINER, ONBUILD (kept
 * in the config, done in what builds on it), RUN (build_run.h).
 *
 * The same input gives the same digest: entries are sorted, all times are `epoch`, what comes from
 * the context belongs to 0:0 and has mode 0755 (folders, executables) or 0644, unless --chown and
 * --chmod say else. COPY --from keeps owners and modes.
 */
#ifndef MLHOST_OCI_BUILD_H
#define MLHOST_OCI_BUILD_H

#include "loop/cancel.h"
#include "oci/build_cache.h"
#include "oci/layer.h"
#include "oci/store.h"

/* An image reference of FROM or COPY --from -> the digest of its manifest, config and layers being
 * in the store. */
typedef int build_resolve_fn(void *ctx, const char *reference, struct digest *manifest,
                             struct error *err);
typedef void build_log_fn(void *ctx, const char *level, const char *text);

typedef void build_output_fn(void *ctx, int stream, const char *data, size_t len);
/* Appends the bytes of the secret `id`. 1: here they are, 0: there is none of this id, -1. */
typedef int build_secret_fn(void *ctx, const char *id, struct buf *out, struct error *err);

/* 1 found, and the layer is in the store; 0 not. */
typedef int build_find_fn(void *ctx, const struct digest *key, struct cached_layer *out);

/* ADD: what a URL has is written to fd; *modified: its Last-Modified (Unix seconds), or < 0. */
typedef int build_fetch_fn(void *ctx, const char *url, int fd, int64_t *modified,
                           struct error *err);

/* ADD of a git repository: a commit's files into *folder, which the builder removes. */
typedef int build_clone_fn(void *ctx, const char *url, const char *ref, char **folder,
                           char **commit, struct error *err);

enum build_caching {
    BUILD_CACHE_USE,   /* layers that were made before are taken, new ones kept */
    BUILD_CACHE_RENEW, /* all layers are made, and kept */
    BUILD_CACHE_OFF,   /* neither taken nor kept */
};

struct build_spec {
    struct store *store;
    const char *context;        /* folder */
    const char *dockerfile;     /* path */
    const char *label;          /* what messages call the Dockerfile; NULL: its path */
    const struct value *args;   /* build arguments: map of texts, or NULL */
    const struct value *labels; /* map of texts, or NULL: added to the image's labels */
    const char *target;         /* stage to build; NULL: the last */
    int64_t epoch;              /* Unix seconds: of files, config and history */
    build_resolve_fn *resolve;
    build_fetch_fn *fetch; /* NULL: ADD of a URL is an error */
    build_clone_fn *clone; /* NULL: ADD of a repository is an error */
    build_log_fn *log;     /* may be NULL */
    void *ctx;
    int64_t deadline; /* 0: none */
    const struct cancel *cancel;
    /* RUN: may its commands use the network, and what they print (stream 1 or 2). May be NULL. */
    bool network;
    build_output_fn *output;
    build_secret_fn *secret; /* for --mount=type=secret; may be NULL */
    uint64_t memory;         /* RUN: bytes of all of its processes; 0: no limit */
    uint64_t processes;      /* RUN: at once; 0: 32768 */
    int64_t clamp;           /* RUN: files newer than this get this time; < 0: all keep theirs */
    enum build_caching caching;
    build_find_fn *find; /* layers of RUN that are not in the store's own cache; may be NULL */
    void *find_ctx;
    bool hash_context;       /* the context is a material even where its files were not all read */
    struct value *materials; /* NULL, or an array: gets { name, uri?, digest?, dirHash? } of the
                                Dockerfile, of each image, and of the context, where one was used;
                                without dirHash when that would have cost reading much */
    struct value *used; /* NULL, or an array: gets { key, layer?, diffId, size, mediaType } of each
                           RUN, for build_cache_push */
    const struct layer_watcher *watcher; /* of the layers that are made; may be NULL */
};

struct build_result {
    struct digest manifest, config;
    uint64_t size; /* of all layers, compressed */
    size_t layers;
};

int oci_build(const struct build_spec *spec, struct build_result *out, struct error *err);

/* The time of a build: the build argument SOURCE_DATE_EPOCH, else the environment's (it becomes a
 * build argument then), else 0, for an image is what is in it, not when it was made; *given: it was
 * set, so RUN's files get no later one. An empty argument unsets the environment's. ERR_INVALID
 * says what must be there. args: map of texts, or NULL. */
int build_epoch(struct value *args, int64_t *epoch, bool *given, struct error *err);
/* The references of images that a Dockerfile needs (FROM and COPY --from, variables expanded with
 * `args`), as strings. */
int build_references(const char *dockerfile, const char *label, const struct value *args,
                     struct value *out, struct error *err);
/* Manifest and config -> the store. `config` is the whole image config. layers: array of
 * descriptors. annotations: map of texts, or NULL. */
int build_write_image(struct store *store, const struct value *config, const struct value *layers,
                      const struct value *annotations, struct build_result *out, struct error *err);

#endif
