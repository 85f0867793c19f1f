/*
 * Names inside a folder that nothing in a layer can lead out of.
 *
 * An entry's parent is opened with openat2(RESOLVE_IN_ROOT): links in the way are followed as the
 * image itself would see them, with the target as "/". The last component is only ever used with
 * calls that do not follow links.
 */
#include "oci/unpack_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "oci/tree.h"

static int open_in_root(int root, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    long fd;

    do
        fd = syscall(SYS_openat2, root, path, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN);
    return (int)fd;
}

char *unpack_clean(const char *name, struct error *err)
{
    cleanup_free char *copy = mem_strdup(name);
    struct buf out = BUF_INIT;

    if (strlen(name) >= PATH_LIMIT) {
        error_set(err, ERR_INVALID, "the layer holds a name of %zu bytes", strlen(name));
        return NULL;
    }
    for (char *save = NULL, *part = strtok_r(copy, "/", &save); part;
         part = strtok_r(NULL, "/", &save)) {
        if (strcmp(part, ".") == 0)
            continue;
        if (strcmp(part, "..") == 0) {
            buf_free(&out);
            error_set(err, ERR_INVALID,
                      "the layer holds the name '%.200s', which leads out of the image", name);
            error_hint(err, "the image is broken or hostile: do not use it");
            return NULL;
        }
        if (out.len)
            buf_putc(&out, '/');
        buf_puts(&out, part);
    }
    return out.len ? buf_steal(&out) : mem_strdup(".");
}

#define DANGLING_MAX 8

static int open_dir(struct unpack_place *place, const char *path, bool make, int links);

/* Makes one folder whose parent is there. A link that leads nowhere gets what it names, as the
 * image would see it. */
static int make_dir(struct unpack_place *place, const char *path, int links)
{
    int root = place->root;
    const char *slash = strrchr(path, '/');
    const char *leaf = slash ? slash + 1 : path;
    cleanup_free char *above = slash ? mem_strndup(path, (size_t)(slash - path)) : mem_strdup(".");
    cleanup_close int parent = open_in_root(root, above, O_PATH | O_DIRECTORY);
    char link[PATH_LIMIT];

    if (parent < 0)
        return -1;
    if (mkdirat(parent, leaf, 0755) == 0) {
        place->implied = true;
        const struct tree_node *node = place->below ? tree_get(place->below, path) : NULL;
        if (node && S_ISDIR(node->mode)) {
            /* Who may not give it away keeps it, as with entries. */
            (void)!fchownat(parent, leaf, node->uid, node->gid, AT_SYMLINK_NOFOLLOW);
            (void)!fchmodat(parent, leaf, node->mode & 07777, 0);
        }
        return open_in_root(root, path, O_PATH | O_DIRECTORY);
    }
    ssize_t len = errno == EEXIST ? readlinkat(parent, leaf, link, sizeof link - 1) : -1;
    if (len < 0)
        return -1;
    link[len] = '\0';
    if (links == 0) {
        errno = ELOOP;
        return -1;
    }
    cleanup_free char *joined = *link == '/' ? mem_strdup(link) : mem_printf("%s/%s", above, link);
    cleanup_free char *target = tree_clean(joined);
    return open_dir(place, *target ? target : ".", true, links - 1);
}

static int open_dir(struct unpack_place *place, const char *path, bool make, int links)
{
    int root = place->root;
    cleanup_free char *copy = mem_strdup(path);
    int fd = open_in_root(root, path, O_PATH | O_DIRECTORY);

    if (fd >= 0 || errno != ENOENT || !make)
        return fd;
    for (char *at = copy;; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        char was = *at;
        *at = '\0';
        int here = open_in_root(root, copy, O_PATH | O_DIRECTORY);
        if (here < 0 && errno == ENOENT)
            here = make_dir(place, copy, links);
        if (here < 0 || !was)
            return here;
        close(here);
        *at = was;
    }
}

#define LINKS_MAX 40

/* The path with links followed that only the layers below have. Allocated; NULL and errno. */
static char *follow_below(const struct unpack_place *place, const char *path)
{
    char *whole = mem_strdup(path);
    int links = 0;

    for (size_t start = 0;;) {
        size_t at = start + strcspn(whole + start, "/");
        cleanup_free char *part = mem_strndup(whole, at);
        int here = open_in_root(place->root, part, O_PATH | O_NOFOLLOW);
        const struct tree_node *node = here < 0 ? tree_get(place->below, part) : NULL;
        if (here >= 0)
            close(here);
        if (node && S_ISLNK(node->mode)) {
            const char *slash = strrchr(part, '/');
            cleanup_free char *joined =
                node->link[0] == '/' ? mem_printf("%s%s", node->link, whole + at)
                                     : mem_printf("%.*s/%s%s", slash ? (int)(slash - part) : 0,
                                                  part, node->link, whole + at);
            free(whole);
            whole = tree_clean(joined);
            if (++links > LINKS_MAX || strlen(whole) >= PATH_LIMIT) {
                free(whole);
                errno = ELOOP;
                return NULL;
            }
            start = 0;
            continue;
        }
        if (!whole[at])
            return whole;
        start = at + 1;
    }
}

int unpack_open_dir(struct unpack_place *place, const char *path, bool make)
{
    if (!place->below || strcmp(path, ".") == 0)
        return open_dir(place, path, make, DANGLING_MAX);
    cleanup_free char *real = follow_below(place, path);
    return real ? open_dir(place, *real ? real : ".", make, DANGLING_MAX) : -1;
}

int unpack_parent(struct unpack_place *place, const char *path, bool make, const char **leaf)
{
    const char *slash = strrchr(path, '/');

    *leaf = slash ? slash + 1 : path;
    cleanup_free char *parent = slash ? mem_strndup(path, (size_t)(slash - path)) : mem_strdup(".");
    return unpack_open_dir(place, parent, make);
}

static int remove_at(int parent, const char *leaf, int depth)
{
    struct dirent *entry;

    if (unlinkat(parent, leaf, 0) == 0 || errno == ENOENT)
        return 0;
    if ((errno != EISDIR && errno != EPERM) || depth > 1000)
        return -1;
    int fd = openat(parent, leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == EACCES && fchmodat(parent, leaf, 0700, 0) == 0)
        fd = openat(parent, leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    fchmod(fd, 0700);
    DIR *folder = fdopendir(fd);
    if (!folder) {
        close(fd);
        return -1;
    }
    int status = 0;
    while ((entry = readdir(folder)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            remove_at(fd, entry->d_name, depth + 1) != 0)
            status = -1;
    closedir(folder);
    return status == 0 ? unlinkat(parent, leaf, AT_REMOVEDIR) : -1;
}

int unpack_remove(int parent, const char *leaf)
{
    return remove_at(parent, leaf, 0);
}

int unpack_clear(int root, const char *path, bool (*keep)(void *ctx, const char *path), void *ctx)
{
    struct dirent *entry;
    int fd = open_in_root(root, path, O_RDONLY | O_DIRECTORY);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    int status = 0;

    if (!folder) {
        if (fd >= 0)
            close(fd);
        return fd < 0 && errno == ENOENT ? 0 : -1;
    }
    while ((entry = readdir(folder))) {
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        cleanup_free char *below = strcmp(path, ".") == 0
                                       ? mem_strdup(entry->d_name)
                                       : mem_printf("%s/%s", path, entry->d_name);
        if (!keep || !keep(ctx, below))
            status |= remove_at(fd, entry->d_name, 0);
        else if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
            status |= unpack_clear(root, below, keep, ctx);
    }
    closedir(folder);
    return status;
}
