/* A folder of a target's own, for parsers that read files. Below TMPDIR, which tests/fuzz/run
 * removes with everything in it. */
#ifndef MLHOST_TESTS_FUZZ_FOLDER_H
#define MLHOST_TESTS_FUZZ_FOLDER_H

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

static char *fuzz_folder_path;

static inline void fuzz_folder_remove(void)
{
    dir_remove(fuzz_folder_path, NULL);
    free(fuzz_folder_path);
    fuzz_folder_path = NULL;
}

static inline const char *fuzz_folder(void)
{
    const char *base = getenv("TMPDIR");

    if (!fuzz_folder_path) {
        fuzz_folder_path = mem_printf("%s/fuzz-XXXXXX", base && *base ? base : "/tmp");
        if (!mkdtemp(fuzz_folder_path))
            abort();
        atexit(fuzz_folder_remove);
    }
    return fuzz_folder_path;
}

/* Writes folder/name anew. */
static inline void fuzz_file(const char *name, const void *data, size_t len)
{
    cleanup_free char *path = path_join(fuzz_folder(), name);
    cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || fd_write_all(fd, data, len, NULL) < 0)
        abort();
}

#endif
