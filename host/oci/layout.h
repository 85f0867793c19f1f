/*
 * Images in files: OCI image layouts (image-spec, image-layout.md), as a folder and as a tar
 * archive of one, and the archives of `docker save`. In both directions; digests stay what they
 * are, but that docker's archives hold layers without compression, so coming from one a manifest
 * is made anew (config and diff ids are the archive's).
 *
 * What is read is hostile: sizes and digests are checked, no link is followed, and names only
 * compare.
 */
#ifndef MLHOST_OCI_LAYOUT_H
#define MLHOST_OCI_LAYOUT_H

#include "loop/cancel.h"
#include "oci/store.h"

enum layout_kind { LAYOUT_FOLDER, LAYOUT_ARCHIVE, LAYOUT_DOCKER };

struct layout {
    struct store *store;
    enum layout_kind kind;
    int fd;           /* of the folder, or of the archive: read from its start, written to */
    const char *name; /* for messages */
    const char *tag;  /* which image: org.opencontainers.image.ref.name, or a RepoTag; NULL: the
                         only one, and "latest" when writing */
    int64_t deadline;
    const struct cancel *cancel;
};

/* -> the store. *digest: of the manifest or index that the layout names. ERR_NOT_FOUND lists the
 * tags that there are. */
int layout_read(const struct layout *layout, struct digest *digest, struct error *err);
/* What `digest` leads to -> the layout: an index with all of its images, but in docker's archives,
 * which get the image for this machine. Other images of a folder stay. */
int layout_write(const struct layout *layout, const char *digest, struct error *err);

/* ---- what the files of layouts share ---- */

int layout_go_on(const struct layout *layout, struct error *err);
/* The descriptor for layout->tag in an index.json. */
const struct value *layout_pick(const struct layout *layout, const struct value *index,
                                struct error *err);
/* Every digest that a manifest or index leads to, itself included: as keys of *out. They must be in
 * the store. */
int layout_closure(struct store *store, const char *digest, struct value *out, struct error *err);
/* {"imageLayoutVersion":...} and an index.json with this one image. */
#define LAYOUT_MARK "{\"imageLayoutVersion\":\"1.0.0\"}"
int layout_entry(const struct layout *layout, const char *digest, struct value *out,
                 struct error *err);

/* The rest of `from`. */
int layout_copy(const struct layout *layout, int from, int to, struct error *err);

int layout_read_docker(const struct layout *layout, struct digest *digest, struct error *err);
int layout_write_docker(const struct layout *layout, const char *digest, struct error *err);
int layout_read_archive(const struct layout *layout, struct digest *digest, struct error *err);
int layout_write_archive(const struct layout *layout, const char *digest, struct error *err);

#endif
