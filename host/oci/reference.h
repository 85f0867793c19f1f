/* Image references: [host[:port]/]name[:tag][@digest]. */
#ifndef MLHOST_OCI_REFERENCE_H
#define MLHOST_OCI_REFERENCE_H

#include <stdbool.h>

#include "base/error.h"

#define LOCAL_REGISTRY "mlhost.local" /* the embedded one, in references */
#define DOCKER_HUB     "docker.io"

struct image_reference {
    char *host;   /* "docker.io", "localhost:5000", "mlhost.local" */
    char *name;   /* "library/debian" */
    char *tag;    /* NULL when there is none, "latest" when there is no digest either */
    char *digest; /* or NULL */
};

/* As Docker reads them: the first component is a host when it has a "." or ":" or is "localhost";
 * otherwise default_host is meant, and on docker.io a name of one component is below "library/". */
int image_reference_parse(const char *text, const char *default_host, struct image_reference *out,
                          struct error *err);
/* Does the text name a host itself? */
bool image_reference_has_host(const char *text);
void image_reference_free(struct image_reference *reference);
#define cleanup_image_reference __attribute__((cleanup(image_reference_free)))
/* "host/name:tag" or "host/name@digest". Allocated. */
char *image_reference_text(const struct image_reference *reference);
/* The name of its repository in the build cache: "name" for the embedded registry, else "host/name"
 * (":" becomes "-"). Allocated. */
char *image_reference_cache_name(const struct image_reference *reference);
/* Loopback by name or number: plain http is the rule there. */
bool host_is_loopback(const char *host);

#endif
