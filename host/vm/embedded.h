/* The files under lua/, compiled into the program as bytecode (tools/embed.c writes the table). */
#ifndef MLHOST_VM_EMBEDDED_H
#define MLHOST_VM_EMBEDDED_H

#include <stddef.h>

struct embedded_file {
    const char *path; /* below lua/, e.g. "kubeflow/init.lua" */
    const char *code;
    size_t len;
};
extern const struct embedded_file embedded_files[];
extern const size_t embedded_file_count;

#endif
