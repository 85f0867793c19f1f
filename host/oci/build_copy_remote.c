/* ADD of a git repository, and of a URL: mode 0600, the time that the server tells, unpacked only
 * where that is asked for.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/mem.h"
#include "oci/build_copy.h"
#include "oci/tar_read.h"

static bool is_http(const char *word)
{
    return strncasecmp(word, "http://", 7) == 0 || strncasecmp(word, "https://", 8) == 0;
}

/* git@host:path, git:// and ssh://, and http(s) whose path ends in .git. */
static bool is_git(const char *word)
{
    size_t path = strcspn(word, "?#");

    return strncmp(word, "git@", 4) == 0 || strncmp(word, "git://", 6) == 0 ||
           strncmp(word, "ssh://", 6) == 0 ||
           (is_http(word) && path > 4 && strncmp(word + path - 4, ".git", 4) == 0);
}

bool copy_is_remote(const char *word)
{
    return is_http(word) || is_git(word);
}

static int hex(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* The last component of the URL's path, decoded; "" when there is none. */
static char *name_of(const char *url)
{
    const char *path = strstr(url, "://") + 3;
    cleanup_buf struct buf name = BUF_INIT;

    path += strcspn(path, "/?#");
    size_t len = strcspn(path, "?#");
    while (len && path[len - 1] == '/')
        len--;
    size_t start = len;
    while (start && path[start - 1] != '/')
        start--;
    for (size_t i = start; i < len; i++) {
        if (path[i] == '%' && i + 2 < len && isxdigit((unsigned char)path[i + 1]) &&
            isxdigit((unsigned char)path[i + 2])) {
            char c = (char)(hex(path[i + 1]) * 16 + hex(path[i + 2]));
            buf_putc(&name, c ? c : '/'); /* which no name has */
            i += 2;
        } else {
            buf_putc(&name, path[i]);
        }
    }
    return name.data ? buf_steal(&name) : mem_strdup("");
}

static int check_sum(const struct copy *copy, int fd, int64_t offset, struct error *err)
{
    struct hasher *hasher;
    struct digest got;
    char piece[65536];

    if (!copy->checksum)
        return 0;
    hasher = hasher_new();
    for (ssize_t n; (n = pread(fd, piece, sizeof piece, (off_t)offset)) > 0; offset += n)
        hasher_update(hasher, piece, (size_t)n);
    hasher_finish(hasher, &got);
    if (strcasecmp(got.text, copy->checksum) == 0)
        return 0;
    error_set(err, ERR_DIGEST, "what came has the digest %s, not %s", got.text, copy->checksum);
    return error_hint(err, "somebody changed it; look at it before you write its new digest down");
}

static int check_form(const struct copy *copy, struct error *err)
{
    const char *sum = copy->checksum;

    if (!sum || (strncmp(sum, "sha256:", 7) == 0 && strlen(sum) == 71 &&
                 strspn(sum + 7, "0123456789abcdefABCDEF") == 64))
        return 0;
    error_set(err, ERR_INVALID, "--checksum=%.80s is no digest", sum);
    return error_hint(err, "--checksum=sha256: and 64 hexadecimal digits");
}

static int add_url(struct copy *copy, const char *url, struct error *err)
{
    const struct build_spec *spec = copy->builder->spec;
    cleanup_free char *name = name_of(url);
    /* An archive is read back while its files go to the spool. */
    cleanup_close int apart = copy->unpack_given ? store_scratch(spec->store, err) : -1;
    int fd = copy->unpack_given ? apart : copy->spool;
    int64_t modified = -1, offset = fd < 0 ? -1 : lseek(fd, 0, SEEK_CUR);

    if (fd < 0)
        return -1;
    if (copy->to_folder && !*name && !copy->unpack_given) {
        error_set(err, ERR_INVALID, "the URL names no file");
        return error_hint(err, "give it a name: a destination that does not end with /");
    }
    if (spec->fetch(spec->ctx, url, fd, &modified, err) != 0 ||
        check_sum(copy, fd, offset, err) != 0 ||
        builder_note_url(copy->builder, url, fd, offset, err) != 0)
        return -1;
    if (copy->unpack_given && lseek(apart, 0, SEEK_SET) == 0 && tar_is_archive(apart))
        return copy_add_archive(copy, url, apart, err);
    if (copy->unpack_given) { /* no archive: a file after all */
        char piece[65536];
        offset = lseek(copy->spool, 0, SEEK_CUR);
        for (ssize_t n; (n = read(apart, piece, sizeof piece)) > 0;)
            if (fd_write_all(copy->spool, piece, (size_t)n, err) != 0)
                return -1;
    }
    if (copy_add_spooled(copy, name, 0600, offset, err) != 0)
        return -1;
    struct item *item = &copy->items[copy->count - 1];
    item->own_time = modified >= 0;
    item->mtime = spec->clamp >= 0 && modified > spec->clamp ? spec->clamp : modified;
    return 0;
}

/* ---- git ---- */

static bool of_git(const char *path)
{
    for (const char *at = path; at; at = strchr(at, '/'), at = at ? at + 1 : NULL)
        if (strncmp(at, ".git", 4) == 0 && (at[4] == '/' || !at[4]))
            return true;
    return false;
}

static int add_file(struct copy *copy, const struct context *files, const struct context_file *file,
                    struct error *err)
{
    cleanup_free char *path = mem_strdup(file->path);
    cleanup_free char *link = mem_strdup(file->link);
    cleanup_free char *to = mem_printf("%s%s%s", copy->to, *copy->to ? "/" : "", file->path);
    const struct tree_node node = {.path = path,
                                   .link = link,
                                   .mode = S_ISLNK(file->mode)   ? S_IFLNK | 0777
                                           : S_ISDIR(file->mode) ? S_IFDIR | 0755
                                           : (file->mode & 0111) ? S_IFREG | 0755
                                                                 : S_IFREG | 0644};
    char piece[65536];
    ssize_t n;

    if (copy_add_node(copy, &node, to, err) != 0)
        return -1;
    if (!S_ISREG(file->mode))
        return 0;
    struct item *item = &copy->items[copy->count - 1];
    cleanup_close int fd = context_open(files, file->path, err);
    free(item->from);
    item->from = NULL;
    item->offset = (uint64_t)lseek(copy->spool, 0, SEEK_CUR);
    while (fd >= 0 && (n = read(fd, piece, sizeof piece)) > 0) {
        if (fd_write_all(copy->spool, piece, (size_t)n, err) != 0)
            return -1;
        item->size += (uint64_t)n;
    }
    return fd >= 0 ? 0 : -1;
}

static int add_repository(struct copy *copy, const char *folder, const char *below,
                          struct error *err)
{
    cleanup_free char *path = *below ? path_join(folder, below) : mem_strdup(folder);
    struct context *files = context_list_all(path, err);
    int status = files ? copy_add_destination(copy, err) : -1;

    for (size_t i = 0; status == 0 && i < files->count; i++)
        if ((copy->keep_git || !of_git(files->files[i].path)) &&
            !ignore_match(copy->exclude, files->files[i].path))
            status = add_file(copy, files, &files->files[i], err);
    context_free(files);
    return status;
}

static int check_commit(const struct copy *copy, const char *commit, struct error *err)
{
    const char *wanted = copy->checksum;

    if (!wanted)
        return 0;
    if (strlen(wanted) < 7 || strspn(wanted, "0123456789abcdef") != strlen(wanted)) {
        error_set(err, ERR_INVALID, "--checksum=%.80s is no commit", wanted);
        return error_hint(err, "of a repository it is the commit's number");
    }
    return strncmp(commit, wanted, strlen(wanted)) == 0
               ? 0
               : error_set(err, ERR_DIGEST, "it is at %s, not at %s", commit, wanted);
}

/* "https://host/path.git#ref:folder" */
static int add_git(struct copy *copy, const char *word, struct error *err)
{
    const struct build_spec *spec = copy->builder->spec;
    size_t len = strcspn(word, "#");
    cleanup_free char *url = mem_strndup(word, len);
    const char *fragment = word[len] ? word + len + 1 : "";
    size_t ref_len = strcspn(fragment, ":");
    cleanup_free char *ref = ref_len ? mem_strndup(fragment, ref_len) : mem_strdup("HEAD");
    cleanup_free char *below = tree_clean(fragment[ref_len] ? fragment + ref_len + 1 : "");
    cleanup_free char *folder = NULL;
    cleanup_free char *commit = NULL;

    if (spec->clone(spec->ctx, url, ref, &folder, &commit, err) != 0)
        return -1;
    int status = check_commit(copy, commit, err);
    if (status == 0)
        status = add_repository(copy, folder, below, err);
    dir_remove(folder, NULL);
    return status;
}

int copy_add_remote(struct copy *copy, const char *word, struct error *err)
{
    if (!copy->add) {
        error_set(err, ERR_INVALID, "COPY takes nothing from elsewhere: %.200s", word);
        return error_hint(err, "ADD does");
    }
    if (is_git(word) ? !copy->builder->spec->clone : !copy->builder->spec->fetch)
        return error_set(err, ERR_UNSUPPORTED, "this builder fetches nothing: %.200s", word);
    if (is_git(word))
        return add_git(copy, word, err) == 0 ? 0 : error_wrap(err, "%.300s", word);
    if (check_form(copy, err) != 0 || add_url(copy, word, err) != 0)
        return error_wrap(err, "%.300s", word);
    return 0;
}
