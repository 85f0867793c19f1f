/* What the files of the builder share: build.c (stages), build_variables.c, build_config.c
 * (instructions that only change the config), build_copy.c (COPY, ADD, WORKDIR: those that make
 * layers). */
#ifndef MLHOST_OCI_BUILD_INTERNAL_H
#define MLHOST_OCI_BUILD_INTERNAL_H

#include "oci/build.h"
#include "oci/context.h"
#include "oci/layer.h"
#include "oci/tree.h"

/* Of images that say nothing of PATH. */
#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct stage {
    char *name;        /* lower case, or NULL */
    size_t first, end; /* instructions: FROM, and one past the last */
    bool done, busy;
    struct value config; /* Env, Cmd, ... */
    char *author;        /* NULL: none is told */
    struct value layers; /* descriptors */
    struct value diff_ids;
    struct value history;
    size_t base_layers; /* of `layers`, from 0: those of the image that the stage builds on */
    struct value args;  /* ARGs in scope: texts; nil: declared without a value */
    bool cmd_set;       /* by this stage, not by its base */
    struct tree tree;   /* of the first `tree.layers` layers: loaded when somebody asks */
};

struct builder {
    const struct build_spec *spec;
    const char *label;
    struct buf text; /* of the Dockerfile */
    bool placed;     /* an error has its place in it */
    struct value dockerfile;
    const struct value *instructions;
    char escape;
    struct stage *stages;
    size_t count;
    struct value globals;    /* ARGs before the first FROM */
    struct value used_args;  /* names of build arguments that an ARG declared */
    struct context *context; /* listed when the first COPY needs it */
    char created[40];
    bool one_id_said; /* the warning that files can belong to root only */
};

/* build.c */
struct stage *builder_stage(struct builder *builder,
                            const char *name); /* by name or number; NULL */
int builder_build(struct builder *builder, struct stage *stage, struct error *err); /* once */
int builder_image(struct builder *builder, const char *reference, struct stage *out,
                  struct error *err);
void stage_free(struct stage *stage);
struct context *builder_context(struct builder *builder, struct error *err);
int stage_tree(struct builder *builder, struct stage *stage,
               struct error *err); /* tree is complete after it */
void stage_history(struct builder *builder, struct stage *stage, const struct value *instruction,
                   bool empty);
/* One word with variables expanded and quotes removed. Allocated. */
char *stage_expand(struct builder *builder, struct stage *stage, const char *word,
                   struct error *err);
/* The text of a heredoc: quotes are characters like others. */
char *stage_expand_text(struct builder *builder, struct stage *stage, const char *text,
                        struct error *err);
const char *stage_env(const struct stage *stage, const char *name, size_t len);
void builder_log(struct builder *builder, const char *level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* build_config.c: 1 done, 0 not one of these, -1 */
int build_config(struct builder *builder, struct stage *stage, const struct value *instruction,
                 struct error *err);
int build_arg(struct builder *builder, struct stage *stage, const struct value *instruction,
              struct error *err);

/* build_copy.c */
int build_copy(struct builder *builder, struct stage *stage, const struct value *instruction,
               struct error *err);
int build_workdir(struct builder *builder, struct stage *stage, const struct value *instruction,
                  struct error *err);

/* build_run.c */
/* The command runs in a sandbox whose root is the stage's files; what it changes becomes a layer.
 */
int build_run(struct builder *builder, struct stage *stage, const struct value *instruction,
              struct error *err);
/* Images that its mounts come from, as strings. */
void build_run_references(struct builder *builder, const struct value *instruction,
                          struct value *out);

/* build_cache_stage.c */
bool build_cache_reads(const struct build_spec *spec);
bool build_cache_writes(const struct build_spec *spec);
/* The instruction's layer (or that it has none) -> layers, diff ids and history; `cached` is said
 * in the log. stage->tree is the caller's affair. */
void stage_add_layer(struct builder *builder, struct stage *stage, const struct value *instruction,
                     const struct cached_layer *layer, bool cached);
/* The files that the stage has so far: base layers by digest, for their diff ids are only what the
 * base's config says, our own by diff id. */
void stage_mix(const struct stage *stage, struct cache_key *key);
/* What was made just now, for stage_add_layer and build_cache_put. */
struct cached_layer cached_layer_of(const struct layer_result *result);
/* For the provenance: an image by its reference and digest, a file by its digest. */
void builder_note_image(struct builder *builder, const char *reference,
                        const struct digest *digest);
void builder_note_file(struct builder *builder, const char *name, const char *uri,
                       const struct digest *digest);
/* What was fetched: in fd from offset on. Of the URL scheme, host and path, for the rest may be a
 * key. */
int builder_note_url(struct builder *builder, const char *url, int fd, int64_t offset,
                     struct error *err);
int builder_note_context(struct builder *builder, struct error *err);
/* A layer that was made before, here or elsewhere (spec->find). 1 found, 0 not. */
int stage_find(struct builder *builder, const struct digest *key, struct cached_layer *out);
/* Remembers what an instruction made, unless files of a context that it saw changed meanwhile. */
int stage_keep(struct builder *builder, const struct value *instruction, const struct digest *key,
               const struct cached_layer *layer, struct error *err);
/* Of RUN: the files below, the command, what it sees of variables, its user and folder. Proxies do
 * not count, and neither do secrets and the folders of --mount=type=cache. */
int build_run_key(struct builder *builder, struct stage *stage, const struct value *instruction,
                  struct digest *out, struct error *err);

/* build_owner.c */
/* "user", "user:group", "1000:1000" by the stage's /etc/passwd and /etc/group. Without a group it
 * is the user's own, or, of a number, the same one. */
int build_owner(struct builder *builder, struct stage *stage, const char *text, uint32_t *uid,
                uint32_t *gid, struct error *err);
/* The next line of /etc/passwd and the like, or NULL. */
const char *table_next(const char *line);
/* One file of a stage's tree, followed through links. ERR_NOT_FOUND. */
int stage_read_file(struct builder *builder, struct stage *stage, const char *path, struct buf *out,
                    struct error *err);

#endif
