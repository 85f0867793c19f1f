/*
 * Images in files. The first byte chooses: a layout in a folder, a tar archive of one, an archive
 * of `docker save`, or (odd in the second half) the bytes of such an archive as they are. Files are
 * blocks, a line with the name ("name -> where" is a link) before the content; "%%%%" alone on a
 * line ends one. @s stands for the digest of the block before; @n for its size.
 *
 * What is taken has a digest and everything that it leads to; written in another form and read
 * again it is the same; its files, exported, have clean names, and a hard link's file comes first.
 */
#include "fuzz.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <sys/mman.h>

#include "folder.h"
#include "local/router.h"
#include "oci/image_export.h"
#include "oci/layout.h"
#include "oci/manifest.h"
#include "oci/tree.h"

#define LONGEST_LIFE 200 /* inputs that one store lasts */

static struct store *store;
static unsigned runs;

static const char *at(const char *name)
{
    static char path[4096];

    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    return path;
}

static int memory(void)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    check(fd >= 0);
    return fd;
}

/* ---- making files ---- */

static void to_folder(int folder, const char *name, const char *link, const struct buf *content)
{
    cleanup_free char *path = tree_clean(name);

    if (!path_is_plain(path) || (link && strlen(link) > 1000))
        return;
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdirat(folder, path, 0700);
        *slash = '/';
    }
    /* It fails where something has that name, or the folder is none. */
    if (link && (symlinkat(link, folder, path) == 0 || errno))
        return;
    cleanup_close int fd =
        openat(folder, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0)
        check(fd_write_all(fd, content->data ? content->data : "", content->len, NULL) == 0);
}

static void to_archive(struct archive *archive, const char *name, const char *link,
                       const struct buf *content)
{
    struct archive_entry *entry = archive_entry_new();

    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, link ? AE_IFLNK : AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    if (link)
        archive_entry_set_symlink(entry, link);
    else
        archive_entry_set_size(entry, (int64_t)content->len);
    if (*name && archive_write_header(archive, entry) == ARCHIVE_OK && !link && content->len)
        archive_write_data(archive, content->data, content->len);
    archive_entry_free(entry);
}

static void fill_in(const char *text, size_t len, const struct digest *digest, size_t size,
                    struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        char which = text[i] == '@' && i + 1 < len ? text[i + 1] : '\0';
        if (which == 's')
            buf_printf(out, "%s", digest->text);
        else if (which == 'h')
            buf_printf(out, "%s", digest->text + strlen("sha256:"));
        else if (which == 'n')
            buf_printf(out, "%zu", size);
        else
            buf_append(out, text + i, 1);
        i += which == 's' || which == 'h' || which == 'n';
    }
}

/* Blocks of text -> files of the folder, or the archive. In a name @h is the content's own. */
static void make(const char *text, size_t len, int folder, struct archive *archive)
{
    static const char between[] = "\n%%%%\n";
    const char *end = text + len;
    struct digest digest, own;
    size_t size = 0;

    digest_bytes("", 0, &digest);
    for (int i = 0; i < 32 && text < end; i++) {
        const char *next = memmem(text, (size_t)(end - text), between, strlen(between));
        const char *stop = next ? next : end, *line = memchr(text, '\n', (size_t)(stop - text));
        cleanup_buf struct buf content = BUF_INIT, name = BUF_INIT;
        if (line)
            fill_in(line + 1, (size_t)(stop - line - 1), &digest, size, &content);
        digest_bytes(content.data ? content.data : "", content.len, &own);
        fill_in(text, (size_t)((line ? line : stop) - text), &own, content.len, &name);
        buf_append(&name, "", 1);
        char *link = strstr(name.data, " -> ");
        if (link) {
            *link = '\0';
            link += strlen(" -> ");
        }
        if (archive)
            to_archive(archive, name.data, link, &content);
        else
            to_folder(folder, name.data, link, &content);
        digest = own;
        size = content.len;
        text = next ? next + strlen(between) : end;
    }
}

static int make_archive(const char *text, size_t len)
{
    int fd = memory();
    struct archive *archive = archive_write_new();

    check(archive && archive_write_set_format_pax_restricted(archive) == ARCHIVE_OK &&
          archive_write_open_fd(archive, fd) == ARCHIVE_OK);
    make(text, len, -1, archive);
    archive_write_close(archive);
    archive_write_free(archive);
    return fd;
}

/* ---- looking at what was taken ---- */

static void look_at_export(int fd)
{
    struct archive *archive = archive_read_new();
    struct archive_entry *entry;
    cleanup_value struct value seen = {0};
    int status;

    value_set_map(&seen);
    archive_read_support_format_tar(archive);
    archive_read_support_format_empty(archive);
    check(lseek(fd, 0, SEEK_SET) == 0);
    check(archive_read_open_fd(archive, fd, 65536) == ARCHIVE_OK);
    while ((status = archive_read_next_header(archive, &entry)) == ARCHIVE_OK ||
           status == ARCHIVE_WARN) {
        const char *name = archive_entry_pathname(entry), *link = archive_entry_hardlink(entry);
        if (!name) /* no characters of this locale */
            name = archive_entry_pathname_utf8(entry);
        if (!name)
            continue;
        cleanup_free char *clean = tree_clean(name);
        size_t len = strlen(name);
        check(strncmp(clean, name, strlen(clean)) == 0 &&
              (len == strlen(clean) || (len == strlen(clean) + 1 && name[len - 1] == '/')));
        check(!value_get(&seen, clean));
        value_put_bool(&seen, clean, true);
        if (link) {
            cleanup_free char *target = tree_clean(link);
            check(strcmp(target, link) == 0);
        }
    }
    check(status == ARCHIVE_EOF);
    archive_read_free(archive);
}

static void export(const char *digest)
{
    cleanup_value struct value manifest = {0}, config = {0};
    cleanup_close int fd = memory();
    struct error err = {0};

    int status = oci_manifest_load(store, digest, &manifest, NULL, &err);
    check_result(status, &err);
    if (status != 0)
        return;
    status = oci_config_load(store, &manifest, &config, &err);
    check_result(status, &err);
    err = (struct error){0};
    const struct image_export spec = {.store = store, .layers = value_get(&manifest, "layers")};
    status = image_export(&spec, fd, &err);
    check_result(status, &err);
    if (status == 0)
        look_at_export(fd);
}

/* Through a layout of another kind and back. */
static void there_and_back(const char *digest, enum layout_kind kind)
{
    cleanup_close int fd = memory();
    struct layout layout = {.store = store, .kind = kind, .fd = fd, .name = "again", .tag = "t"};
    struct digest again;
    struct error err = {0};

    int status = layout_write(&layout, digest, &err);
    check_result(status, &err);
    if (status != 0) { /* docker's archives want a config and layers that are what they say */
        check(kind == LAYOUT_DOCKER);
        return;
    }
    status = layout_read(&layout, &again, &err);
    check_result(status, &err);
    check(status == 0 || kind == LAYOUT_DOCKER);
    if (kind != LAYOUT_DOCKER)
        check(strcmp(again.text, digest) == 0);
}

static void read_it(const struct layout *layout)
{
    cleanup_value struct value all = {0};
    struct digest digest = {{0}};
    struct error err = {0};

    int status = layout_read(layout, &digest, &err);
    check_result(status, &err);
    if (status != 0)
        return;
    check(digest_valid(digest.text));
    check(layout_closure(store, digest.text, &all, &err) == 0);
    there_and_back(digest.text, LAYOUT_ARCHIVE);
    there_and_back(digest.text, LAYOUT_DOCKER);
    export(digest.text);
}

static void restart(void)
{
    struct error err = {0};

    if (store)
        store_close(store);
    dir_remove(at("store"), NULL);
    store = store_open_at(at("store"), false, &err);
    check(store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const tags[] = {NULL, "t", "app:1"};
    struct error err = {0};

    if (size < 1)
        return 0;
    if (!store || ++runs % LONGEST_LIFE == 0)
        restart();
    const char *text = (const char *)data + 1;
    enum layout_kind kind = (enum layout_kind)(data[0] % 3);
    struct layout layout = {
        .store = store, .kind = kind, .name = "layout", .tag = tags[(data[0] / 3) % 3], .fd = -1};
    if (kind == LAYOUT_FOLDER) {
        dir_remove(at("layout"), NULL);
        check(dir_make(at("layout"), &err) == 0);
        layout.fd = open(at("layout"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        check(layout.fd >= 0);
        make(text, size - 1, layout.fd, NULL);
    } else if (data[0] >= 128 && data[0] % 2) {
        layout.fd = memory();
        check(fd_write_all(layout.fd, text, size - 1, NULL) == 0);
    } else {
        layout.fd = make_archive(text, size - 1);
    }
    read_it(&layout);
    close(layout.fd);
    return 0;
}
