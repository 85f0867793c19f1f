/* ADD of a URL: mode 0600, the time that the server tells, unpacked only where that is asked for.
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

int copy_add_remote(struct copy *copy, const char *word, struct error *err)
{
    if (!copy->add) {
        error_set(err, ERR_INVALID, "COPY takes nothing from elsewhere: %.200s", word);
        return error_hint(err, "ADD does");
    }
    if (is_git(word)) {
        error_set(err, ERR_UNSUPPORTED, "ADD of a git repository is not done here: %.200s", word);
        return error_hint(err, "clone it in the pipeline and COPY it, or RUN git clone");
    }
    if (!copy->builder->spec->fetch)
        return error_set(err, ERR_UNSUPPORTED, "this builder fetches nothing: %.200s", word);
    if (check_form(copy, err) != 0 || add_url(copy, word, err) != 0)
        return error_wrap(err, "%.300s", word);
    return 0;
}
