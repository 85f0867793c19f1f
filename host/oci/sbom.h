/*
 * What is in an image, as package managers recorded it, and the document about it (SPDX 2.3, JSON).
 *
 * Read are dpkg (var/lib/dpkg/status, status.d), apk (lib/apk/db/installed), Python
 * (*.dist-info/METADATA, *.egg-info/PKG-INFO), npm (node_modules/.../package.json), os-release, and
 * the program itself (usr/local/bin/mlhost). What is there and not read (rpm) is named in the
 * document, and so is what could not be read.
 *
 * All of that is the image's: every text is cut to a size and made valid, and a file that is no
 * package is skipped, never an error.
 */
#ifndef MLHOST_OCI_SBOM_H
#define MLHOST_OCI_SBOM_H

#include "oci/store.h"

#define SPDX_TYPE "application/spdx+json"

/* ---- sbom_parse.c: texts -> packages ---- */

/* Each appends maps { type = "deb"|"apk"|"pypi"|"npm", name, version, arch?, maintainer?, license?,
 * homepage?, path } to the array `out`. */
void sbom_dpkg(const char *text, size_t len, const char *path, struct value *out);
void sbom_apk(const char *text, size_t len, const char *path, struct value *out);
void sbom_python(const char *text, size_t len, const char *path, struct value *out);
void sbom_npm(const char *text, size_t len, const char *path, struct value *out);
/* { ID, VERSION_ID, NAME, PRETTY_NAME, ... } */
void sbom_os_release(const char *text, size_t len, struct value *out);
/* Made only of identifiers that SPDX lists (the usual ones), AND, OR, WITH and parentheses? */
bool sbom_license_known(const char *text);
/* "pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64&distro=debian-12". Allocated. */
char *sbom_purl(const struct value *package, const struct value *os_release);

/* ---- sbom_packages.c: image -> packages ---- */

/* By type, name, version, path; what is there twice goes. */
void sbom_sort(struct value *packages);
/* *out: { packages = [...] sorted; os = { ... }; notes = [ texts about
 * what was not read ] }. The image's blobs are in the store. */
int sbom_packages(struct store *store, const struct value *manifest, struct value *out,
                  struct error *err);

/* ---- sbom.c ---- */

/* found: what sbom_packages gave; config: the image's; digest: of its manifest. */
void sbom_document(const struct value *found, const struct value *config, const char *name,
                   const char *digest, struct value *out);
/* The document about the image `digest` of the store. name: what people call it, or NULL. Same
 * image, same name, same document: its time is the image's. */
int oci_sbom(struct store *store, const char *digest, const char *name, struct value *out,
             struct error *err);

#endif
