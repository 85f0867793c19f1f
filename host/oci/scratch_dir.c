#include "oci/scratch_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

#define PREFIX "run."

/* The lock of a folder goes with its process. */
static void remove_if_left(const char *parent, const char *name)
{
    cleanup_free char *path = path_join(parent, name);
    cleanup_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        dir_remove(path, NULL);
}

static void sweep(const char *parent)
{
    DIR *folder = opendir(parent);
    struct dirent *entry;

    while (folder && (entry = readdir(folder)))
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) == 0)
            remove_if_left(parent, entry->d_name);
    if (folder)
        closedir(folder);
}

int scratch_dir_make(const char *parent, struct scratch_dir *out, struct error *err)
{
    cleanup_free char *path = mem_printf("%s/" PREFIX "XXXXXX", parent);
    cleanup_free char *gate_path = mem_printf("%s/scratch.lock", parent);
    cleanup_close int gate = open(gate_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    *out = (struct scratch_dir)SCRATCH_DIR_NONE;
    /* Between being made and being locked a folder looks like one that was left: one at a time. */
    if (gate < 0 || flock(gate, LOCK_EX) < 0)
        return error_errno(err, errno, "cannot lock %s", gate_path);
    sweep(parent);
    if (!mkdtemp(path))
        return error_errno(err, errno, "cannot make a folder in %s", parent);
    out->lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (out->lock < 0 || flock(out->lock, LOCK_EX | LOCK_NB) < 0) {
        error_errno(err, errno, "cannot lock %s", path);
        fd_cleanup(&out->lock);
        rmdir(path);
        out->lock = -1;
        return -1;
    }
    out->path = steal_ptr(&path);
    return 0;
}

void scratch_dir_end(struct scratch_dir *dir)
{
    if (dir->path)
        dir_remove(dir->path, NULL);
    if (dir->lock >= 0)
        close(dir->lock);
    free(dir->path);
    *dir = (struct scratch_dir)SCRATCH_DIR_NONE;
}
