/* The files of a build context, in order, less what .dockerignore leaves out; and the tag that
 * names their content. */
#ifndef MLHOST_OCI_CONTEXT_H
#define MLHOST_OCI_CONTEXT_H

#include <sys/stat.h>

#include "base/digest.h"
#include "base/value.h"

struct store;
struct context_known;

struct context_file {
    char *path;  /* relative to the context */
    mode_t mode; /* type and permissions */
    uint64_t size;
    char *link; /* symbolic link: where to */
    uint64_t inode;
    int64_t modified_ns, changed_ns; /* mtime and ctime, Unix nanoseconds */
};

struct context {
    int dir;
    int64_t listed_ns;           /* Unix nanoseconds: when listing began */
    struct context_known *known; /* digests of files, or NULL */
    char *path;                  /* of the folder, for messages */
    struct context_file *files;  /* sorted by path, bytewise */
    size_t count, room;
    char *ignore_file; /* the one that counted, or NULL */
};

/* dockerfile: its path (a <Dockerfile>.dockerignore beside it beats the context's), or NULL.
 * Sockets, pipes and devices are left out, and so are folders named .mlhost. Links are listed,
 * never followed. NULL with an error: no such folder, over a million files. */
/* Opens what a script's path resolved to, on the same terms: no link has come into its way since.
 * With a folder's descriptor: below that folder, links within it included. */
int context_open_checked(int folder, const char *path, int flags, struct error *err);
int context_read(int folder, const char *path, size_t limit, struct buf *out, struct error *err);
struct context *context_list(const char *path, const char *dockerfile, struct error *err);
/* Everything in it, whatever a .dockerignore says. */
struct context *context_list_all(const char *path, struct error *err);
void context_free(struct context *context);
const struct context_file *context_find(const struct context *context, const char *path);
/* A regular file of the list; no component may be a link (somebody might swap one in). */
int context_open(const struct context *context, const char *path, struct error *err);
/* Kind, permissions, size, inode and times. */
void context_file_stat(struct context_file *file, const struct stat *st);

/*
 * Digests of files, remembered from build to build: <store>/build/files/<digest of the context's
 * path> has them with path, inode, mtime, ctime and size, and while these stay a file is not read
 * again. A file that changed the moment before it was listed may change once more within the same
 * tick of the clock, without any of them showing it: it is not settled, and its digest is not kept.
 */
bool context_settled(const struct context *context, const struct context_file *file);
/* Waits for the next ticks where files were written just now, and looks whether they still are what
 * they were: then they are settled. 35 ms then; not for the file systems that count in seconds. */
void context_settle(struct context *context);
/* Are all files what they were when it was listed? */
bool context_unchanged(const struct context *context);
/* Without it context_digest works, too, and nothing is remembered. */
void context_remember(struct context *context, struct store *store);
bool context_digest_known(const struct context *context, const struct context_file *file);
/* Reads what has to be read of these files (of the context), several at a time. */
int context_digest_all(struct context *context, const struct context_file *const *files,
                       size_t count, struct error *err);
/* Of a regular file's content. */
int context_digest(struct context *context, const struct context_file *file, struct digest *out,
                   struct error *err);
/* Writes down what became known. That it cannot be written only costs the next build time. */
void context_known_save(struct context *context);
void context_known_free(struct context_known *known); /* for context_free */

/*
 * 16 hexadecimal digits: the start of the SHA-256 over
 *   "mlhost-content 1" NL
 *   kind SP digest SP path NUL   for every listed path in order; kind is d (folder), l (link:
 * digest of where it leads), x (file with an executable bit), f (file) "dockerfile" SP digest NL of
 * the Dockerfile, wherever it is "arg" SP name "=" value NL   for every build argument, sorted by
 * name "salt" SP text NL            when given: the digest of a base image and the like So times,
 * owners and the other permissions do not count, and neither do they in the images that we build of
 * a context.
 */
int context_tag(struct context *context, const char *dockerfile, const struct value *args,
                const char *salt, char out[17], struct error *err);

#endif
