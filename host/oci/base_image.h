/*
 * The image that holds this program and what it needs, and nothing else: no shell, no package
 * manager.
 *
 *   /usr/local/bin/mlhost, /usr/local/lib/mlhost/mlhost-{io,model}.so   the program, and the
 * modules that talk to the world and serve models /usr/lib/<folder of libc>/... their shared
 * libraries, and the dynamic loader where the program wants it /etc/ssl/certs/ca-certificates.crt,
 * /etc/passwd, /etc/group, /etc/nsswitch.conf, /tmp (1777)
 *
 * Two layers: what is the system's (it changes with upgrades), and what is ours. The modules of
 * `mlhost serve` and `mlhost repl` are not in it: steps of a pipeline need neither.
 */
#ifndef MLHOST_OCI_BASE_IMAGE_H
#define MLHOST_OCI_BASE_IMAGE_H

#include "oci/build.h"

#define BASE_IMAGE_NAME "mlhost/base"

/* program: path of the executable; modules: those beside it, ended by NULL. tag: 16 hexadecimal
 * digits of the config's digest, so it names contents however they are compressed. The image is in
 * the store under mlhost/base:<tag>. */
int base_image_build(struct store *store, const char *program, const char *const *modules,
                     int64_t epoch, struct build_result *out, char tag[17], struct error *err);

#endif
