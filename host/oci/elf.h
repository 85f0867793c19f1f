/* The shared libraries of a program, found as the dynamic loader would, without running anything.
 */
#ifndef MLHOST_OCI_ELF_H
#define MLHOST_OCI_ELF_H

#include "base/value.h"

/*
 * Adds to *libraries (a map: name as the loader looks for it -> path) what the ELF file needs, and
 * what that needs. *interpreter (may be NULL) becomes the path of its dynamic loader, allocated, if
 * it has one. Searched: DT_RUNPATH/DT_RPATH ($ORIGIN), the loader's cache
 * (/etc/ld.so.cache), the default folders. ERR_NOT_FOUND names a library that is nowhere,
 * ERR_INVALID a file that is no ELF of this machine.
 */
int elf_libraries(const char *path, struct value *libraries, char **interpreter, struct error *err);

#endif
