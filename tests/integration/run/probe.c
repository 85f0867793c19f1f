/* Inside of a RUN: what busybox has no command for. Ends with 0 when it went as asked. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static int failed(const char *what)
{
    perror(what);
    return 1;
}

/* cap_net_bind_service as a file capability. */
static struct vfs_cap_data bind_capability(void)
{
    struct vfs_cap_data data = {.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE};

    data.data[0].permitted = 1u << CAP_NET_BIND_SERVICE;
    return data;
}

static int has_capability(const char *path)
{
    struct vfs_cap_data wanted = bind_capability(), seen;

    if (getxattr(path, "security.capability", &seen, sizeof seen) != (ssize_t)sizeof seen)
        return failed(path);
    return memcmp(&wanted, &seen, sizeof seen) != 0;
}

static int has_attribute(const char *path, const char *name, const char *text)
{
    char seen[256];
    ssize_t len = getxattr(path, name, seen, sizeof seen);

    return len < 0 ? failed(path)
                   : len != (ssize_t)strlen(text) || memcmp(seen, text, strlen(text)) != 0;
}

/* folder/aaaa.../bbbb.../..., longer than tar's names. */
static int long_name(const char *folder)
{
    char name[201];

    if (chdir(folder) < 0)
        return failed(folder);
    for (char c = 'a'; c <= 'd'; c++) {
        memset(name, c, 200);
        name[200] = '\0';
        if (mkdir(name, 0755) < 0 || chdir(name) < 0)
            return failed(name);
    }
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "", *path = argc > 2 ? argv[2] : "";

    if (strcmp(what, "attribute") == 0 && argc > 4)
        return setxattr(path, argv[3], argv[4], strlen(argv[4]), 0) < 0 ? failed(path) : 0;
    if (strcmp(what, "has-attribute") == 0 && argc > 4)
        return has_attribute(path, argv[3], argv[4]);
    if (strcmp(what, "capability") == 0) {
        struct vfs_cap_data data = bind_capability();
        return setxattr(path, "security.capability", &data, sizeof data, 0) < 0 ? failed(path) : 0;
    }
    if (strcmp(what, "has-capability") == 0)
        return has_capability(path);
    if (strcmp(what, "long") == 0)
        return long_name(path);
    if (strcmp(what, "effective") == 0)
        return geteuid() == (uid_t)atoi(path) ? 0 : 1;
    fprintf(stderr, "probe: %s?\n", what);
    return 2;
}
