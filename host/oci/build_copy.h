/*
 * COPY, ADD and WORKDIR: what their files share.
 *
 *   build_copy.c         the instructions and their flags
 *   build_copy_source.c  which files of a source go where
 *   build_copy_remote.c  ADD of what lies elsewhere
 *   build_copy_layer.c   the entries -> a layer
 *   build_copy_cache.c   layers that were made before
 */
#ifndef MLHOST_OCI_BUILD_COPY_H
#define MLHOST_OCI_BUILD_COPY_H

#include "oci/build_internal.h"
#include "oci/ignore.h"

/* One entry of the layer to be. */
struct item {
    char *to;
    mode_t mode;
    uint32_t uid, gid;
    char *link;
    char *hard;   /* another name of this entry of the layer; NULL: none */
    size_t group; /* those with one number are names of one file; 0: of none but itself */
    char *from;   /* a file of the context, or of a stage's layer; NULL: in the spool */
    int layer;
    uint64_t offset, size;
    bool own_time; /* mtime counts, not the build's */
    int64_t mtime;
    struct layer_attribute *attributes;
    size_t attribute_count;
    size_t word;  /* the source that it is of */
    size_t order; /* of two for the same path the later one counts */
};

struct copy {
    struct builder *builder;
    struct stage *stage;
    const char *keyword;
    bool add;
    struct stage *from_stage; /* NULL: the context */
    struct stage image;       /* of COPY --from=image */
    struct tree context_tree;
    const struct tree *source;
    const struct tree_node **nodes;
    size_t node_count;
    bool owned;             /* --chown */
    char *chmod;            /* --chmod, checked; or NULL */
    bool link;              /* --link: what the image has does not matter */
    bool parents;           /* --parents */
    bool unpack;            /* archives of the context are unpacked */
    bool unpack_given;      /* --unpack: those from elsewhere too */
    bool keep_git;          /* --keep-git-dir */
    char *checksum;         /* --checksum, or NULL */
    struct ignore *exclude; /* NULL: nothing */
    uint32_t uid, gid;
    const struct tree *target; /* where destinations are looked up: the stage's, or an empty one */
    struct tree empty;
    char *to; /* destination, links followed; "" is the root */
    bool to_folder;
    int spool;
    struct item *items;
    size_t count, room;
    size_t groups, word;
    bool unsettled; /* a file changed while it was read, or may have */
};

struct copy_keys {
    struct digest exact, shape, content;
    bool has_exact, has_content;
    bool known; /* found under `exact`: nothing to remember */
};

/* build_copy_source.c */
/* The entries of one source, variables expanded. */
int copy_add_word(struct copy *copy, const char *word, struct error *err);
int copy_add_heredoc(struct copy *copy, const struct value *heredoc, struct error *err);
/* How many files a wildcard names must be known before the first is given its place. */
size_t copy_count_matches(const struct copy *copy, const char *word);
/* An archive, whose entries go below copy->to. */
int copy_add_archive(struct copy *copy, const char *path, int fd, struct error *err);

/* A file or folder as it is in the source -> `to`, links in the image followed. A folder that is
 * there already makes no entry; else the new one is the last. */
int copy_add_node(struct copy *copy, const struct tree_node *node, const char *to,
                  struct error *err);
/* The folder that a folder's content goes to: never the source's owner and mode. New ones have
 * those of --chown, not of --chmod; one that is there stays as it is. */
int copy_add_destination(struct copy *copy, struct error *err);
/* What was written to the spool from `offset` on, as a file of that name. */
int copy_add_spooled(struct copy *copy, const char *name, mode_t mode, int64_t offset,
                     struct error *err);

/* build_copy_remote.c */
bool copy_is_remote(const char *word);
int copy_add_remote(struct copy *copy, const char *word, struct error *err);

/* build_copy_layer.c */
/* `to` is freed by the copy. Returns the new item, until the next one. */
struct item *copy_item(struct copy *copy, char *to, mode_t mode, uint32_t uid, uint32_t gid);
/* A folder that is made on the way: 0755, and not what --chmod says. */
void copy_folder(struct copy *copy, char *to);
int copy_write(struct copy *copy, const struct value *instruction, struct error *err);
void copy_free_items(struct copy *copy);

/* build_copy_cache.c, for sorted items */
/* 1: a layer of the same entries is there; 0: none; -1. *keys is for copy_keep. */
int copy_cached(struct copy *copy, struct copy_keys *keys, struct cached_layer *layer,
                struct error *err);
/* Remembers the layer, unless copy->unsettled: then what was read is in the layer and not in the
 * keys. */
int copy_keep(struct copy *copy, const struct copy_keys *keys, const struct cached_layer *layer,
              struct error *err);

/* build_chmod.c */
/* "755", "u=rwX,go=rX": ERR_INVALID when it is neither. */
int chmod_check(const char *text, struct error *err);
/* The mode, its type kept, after a text that was checked. */
mode_t chmod_apply(const char *text, mode_t mode);

#endif
