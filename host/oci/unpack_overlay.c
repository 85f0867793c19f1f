/* What a layer becomes in a folder that an overlay is made of. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/unpack_internal.h"
#include "sandbox/sandbox.h"

/* A normal user's overlays (mount option userxattr) have their marks in user.* */
static const char *opaque_mark(void)
{
    return sandbox_ids() == SANDBOX_IDS_ALL && geteuid() == 0 ? "trusted.overlay.opaque"
                                                              : "user.overlay.opaque";
}

int unpack_overlay_whiteout(struct unpack_place *place, const char *folder, const char *leaf)
{
    cleanup_close int parent = unpack_open_dir(place, folder, true);

    return parent < 0 || unpack_remove(parent, leaf) != 0 ? -1 : mknodat(parent, leaf, S_IFCHR, 0);
}

int unpack_overlay_opaque(struct unpack_place *place, const char *path)
{
    cleanup_close int folder = unpack_open_dir(place, path, true);
    cleanup_close int fd =
        folder < 0 ? -1 : openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOTDIR ? 0 : -1;
    return fsetxattr(fd, opaque_mark(), "y", 1, 0);
}

bool unpack_overlay_is_opaque(const char *folder)
{
    char text[2];

    return lgetxattr(folder, opaque_mark(), text, sizeof text) == 1 && *text == 'y';
}

static bool belongs_to_image(const char *name)
{
    return (strncmp(name, "user.", 5) == 0 && strncmp(name, "user.overlay.", 13) != 0) ||
           strcmp(name, "security.capability") == 0;
}

int unpack_attributes(struct archive_entry *entry, int parent, const char *leaf)
{
    const char *name;
    const void *data;
    size_t len;
    char path[64];

    if (!archive_entry_xattr_reset(entry))
        return 0;
    cleanup_close int fd = openat(parent, leaf, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* the only way to one without opening */
    while (archive_entry_xattr_next(entry, &name, &data, &len) == ARCHIVE_OK)
        if (name && belongs_to_image(name) && setxattr(path, name, data, len, 0) < 0 &&
            errno != EPERM && errno != EOPNOTSUPP)
            return -1;
    return 0;
}
