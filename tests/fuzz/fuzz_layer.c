/*
 * A layer from a registry, unpacked over another one (the first byte chooses: a folder with links
 * that lead out of it, or an empty one). Whatever the archive holds, nothing outside of the target
 * changes, no file is larger than allowed, and what the reader that unpacks nothing makes of it
 * stays below the root as well.
 */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <sys/mman.h>

#include "folder.h"
#include "oci/inflate.h"
#include "oci/tar_read.h"
#include "oci/tree.h"
#include "oci/unpack.h"

#define MOST_BYTES   (1u << 20)
#define MOST_ENTRIES 200

/* What of a folder can be seen from outside: names, kinds, modes, sizes, owners, contents. */
static void describe(int parent, const char *name, struct buf *out)
{
    struct stat st;
    char bytes[64];

    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    buf_printf(out, "%s %o %lld %u %u %lld %lld\n", name, st.st_mode, (long long)st.st_size,
               st.st_uid, st.st_gid, (long long)st.st_mtim.tv_sec, (long long)st.st_nlink);
    if (S_ISREG(st.st_mode)) {
        cleanup_close int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
        if (n > 0)
            buf_append(out, bytes, (size_t)n);
    }
}

static void describe_outside(int base, struct buf *out)
{
    static const char *const names[] = {".", "outside", "outside/secret", "outside/folder",
                                        "outside/folder/file"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        describe(base, names[i], out);
    for (const char *folder = "."; folder; folder = strcmp(folder, ".") == 0 ? "outside" : NULL) {
        DIR *dir = fdopendir(openat(base, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        const struct dirent *entry;
        check(dir);
        size_t count = 0;
        while ((entry = readdir(dir)))
            count++;
        closedir(dir);
        buf_printf(out, "%zu entries in %s\n", count, folder);
    }
}

static uint64_t bytes_below(int parent, const char *name, int depth)
{
    struct stat st;
    uint64_t total = 0;

    check(fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0);
    check(!(st.st_mode & (S_ISUID | S_ISGID)) || S_ISDIR(st.st_mode) || depth == 0);
    if (S_ISREG(st.st_mode))
        return (uint64_t)st.st_size / (uint64_t)st.st_nlink;
    if (!S_ISDIR(st.st_mode) || depth > 200)
        return 0;
    cleanup_close int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(dup(fd));
    const struct dirent *entry;
    if (!dir)
        return 0;
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            total += bytes_below(fd, entry->d_name, depth + 1);
    closedir(dir);
    return total;
}

static void make_outside(int base)
{
    mkdirat(base, "outside", 0755);
    mkdirat(base, "outside/folder", 0755);
    fuzz_file("outside/secret", "secret", 6);
    fuzz_file("outside/folder/file", "content", 7);
}

/* What an earlier, hostile layer may have left. */
static const char *const links[][2] = {
    {"../outside", "up"},           {"/", "root"},          {"../outside/secret", "file"},
    {"../../../../../tmp", "far"},  {"loop", "loop"},       {"/proc/self/cwd", "magic"},
    {"nowhere/at/all", "dangling"}, {"etc/../../..", "in"}, {".", "here"}};

/* The same in layers of which this one knows, that lie elsewhere. */
static void make_below(struct tree *below)
{
    tree_put(below, "etc", S_IFDIR | 0755, 0, 0, NULL, NULL, 0);
    tree_put(below, "etc/deep", S_IFDIR | 0500, 5, 5, NULL, NULL, 0);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        tree_put(below, links[i][1], S_IFLNK | 0777, 0, 0, links[i][0], NULL, 0);
}

static void make_traps(int target)
{
    mkdirat(target, "etc", 0755);
    mkdirat(target, "etc/deep", 0500);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        check(symlinkat(links[i][0], target, links[i][1]) == 0);
    cleanup_close int fd = openat(target, "etc/passwd", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    check(fd >= 0);
}

enum way { PLAIN, TRAPS, OVERLAY, OVERLAY_ON_TRAPS };

static void unpack(int fd, enum way way)
{
    struct tree below = {0};
    bool implied;
    const struct unpack_options limits = {.max_bytes = MOST_BYTES,
                                          .max_entries = MOST_ENTRIES,
                                          .overlay = way >= OVERLAY,
                                          .below = way == OVERLAY_ON_TRAPS ? &below : NULL,
                                          .implied = &implied};
    cleanup_close int base = open(fuzz_folder(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup_free char *path = path_join(fuzz_folder(), "target");
    cleanup_buf struct buf before = BUF_INIT;
    cleanup_buf struct buf after = BUF_INIT;
    struct error err = {0};

    check(base >= 0);
    make_outside(base);
    check(mkdirat(base, "target", 0755) == 0);
    cleanup_close int target = openat(base, "target", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (way == TRAPS)
        make_traps(target);
    make_below(&below);
    describe_outside(base, &before);
    lseek(fd, 0, SEEK_SET);
    int status = oci_unpack_layer(fd, target, NULL, NULL, true, &limits, &err);
    check_result(status, &err);
    describe_outside(base, &after);
    check(before.len == after.len && memcmp(before.data, after.data, before.len) == 0);
    check(bytes_below(base, "target", 0) <= MOST_BYTES);
    check(dir_remove(path, &err) == 0);
    tree_free(&below);
}

static bool inside(const char *path)
{
    return *path != '/' && strcmp(path, "..") != 0 && strncmp(path, "../", 3) != 0 &&
           !strstr(path, "/../") &&
           (strlen(path) < 3 || strcmp(path + strlen(path) - 3, "/..") != 0);
}

static void as_tree(int fd)
{
    struct tree tree = {0};
    struct error err = {0};

    lseek(fd, 0, SEEK_SET);
    int status = tree_add_layer(&tree, fd, &err);
    check_result(status, &err);
    if (status == 0) {
        size_t count;
        const struct tree_node **nodes = tree_sorted(&tree, &count);
        for (size_t i = 0; i < count; i++) {
            struct error problem = {0};
            check(inside(nodes[i]->path) &&
                  (i == 0 || strcmp(nodes[i - 1]->path, nodes[i]->path) < 0));
            cleanup_free char *path = tree_resolve(&tree, nodes[i]->path, true, &problem);
            check(path ? inside(path) : problem.code == ERR_INVALID);
        }
        free(nodes);
    }
    tree_free(&tree);
}

static void as_archive(int fd)
{
    struct tar_entry entry;
    struct error err = {0};
    int more = 0;

    lseek(fd, 0, SEEK_SET);
    struct tar_reader *reader = tar_reader_new(fd, &err);
    for (int i = 0;
         reader && i < MOST_ENTRIES && (more = tar_reader_next(reader, &entry, &err)) == 1; i++)
        check(inside(entry.path) && (!entry.hardlink || inside(entry.hardlink)));
    check(reader ? (more < 0) == (err.code != ERR_NONE) : err.code != ERR_NONE);
    tar_reader_free(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct digest file, stream;
    struct error err = {0};

    if (size < 1 || size > 65536)
        return 0;
    cleanup_close int fd = memfd_create("layer", MFD_CLOEXEC);
    check(fd >= 0 && fd_write_all(fd, data + 1, size - 1, NULL) == 0);
    lseek(fd, 0, SEEK_SET);
    struct inflater *inflater = inflater_new(fd, true);
    inflater_finish(inflater, &file, &stream, &err);
    inflater_free(inflater);
    as_tree(fd);
    as_archive(fd);
    unpack(fd, data[0] % 4);
    return 0;
}
