#include "oci/context.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/ignore.h"

#define STATE_FOLDER ".mlhost" /* our own journals and blobs: they change with every build */
#define FILES_MAX    1000000u
#define DEPTH_MAX    200
#define IGNORE_LIMIT (1u << 20)
#define LINK_LIMIT   4096

void context_free(struct context *context)
{
    if (!context)
        return;
    for (size_t i = 0; i < context->count; i++) {
        free(context->files[i].path);
        free(context->files[i].link);
    }
    free(context->files);
    free(context->path);
    free(context->ignore_file);
    context_known_free(context->known);
    if (context->dir >= 0)
        close(context->dir);
    free(context);
}

static int64_t ns_of(const struct timespec *time)
{
    return (int64_t)((uint64_t)time->tv_sec * (uint64_t)NS_PER_S + (uint64_t)time->tv_nsec);
}

void context_file_stat(struct context_file *file, const struct stat *st)
{
    file->mode = st->st_mode;
    file->size = (uint64_t)st->st_size;
    file->inode = st->st_ino;
    file->modified_ns = ns_of(&st->st_mtim);
    file->changed_ns = ns_of(&st->st_ctim);
}

static void keep(struct context *context, const char *path, const struct stat *st, const char *link)
{
    if (context->count == context->room) {
        context->room = context->room ? context->room * 2 : 64;
        context->files = mem_array(context->files, context->room, sizeof *context->files);
    }
    struct context_file *file = &context->files[context->count++];
    *file = (struct context_file){.path = mem_strdup(path), .link = mem_strdup(link)};
    context_file_stat(file, st);
}

static int walk(struct context *context, int parent, const char *name, const char *path,
                const struct ignore *ignore, int depth, struct error *err);

static int visit(struct context *context, int folder, const char *name, const char *path,
                 const struct ignore *ignore, int depth, struct error *err)
{
    char link[LINK_LIMIT];
    struct stat st;

    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "%s/%s", context->path, path);
    bool ignored = ignore_match(ignore, path);
    if (context->count >= FILES_MAX) {
        error_set(err, ERR_TOO_LARGE, "%s has more than %u files", context->path, FILES_MAX);
        return error_hint(err, "leave what the image does not need out with a .dockerignore");
    }
    if (S_ISDIR(st.st_mode)) {
        if (strcmp(name, STATE_FOLDER) == 0)
            return 0;
        if (!ignored)
            keep(context, path, &st, NULL);
        if (ignored && !ignore_may_reenter(ignore, path))
            return 0;
        return walk(context, folder, name, path, ignore, depth + 1, err);
    }
    if (ignored)
        return 0;
    if (S_ISLNK(st.st_mode)) {
        ssize_t len = readlinkat(folder, name, link, sizeof link - 1);
        if (len < 0)
            return error_errno(err, errno, "%s/%s", context->path, path);
        link[len] = '\0';
        keep(context, path, &st, link);
    } else if (S_ISREG(st.st_mode)) {
        keep(context, path, &st, NULL);
    }
    return 0;
}

static int walk(struct context *context, int parent, const char *name, const char *path,
                const struct ignore *ignore, int depth, struct error *err)
{
    struct dirent *entry;
    int status = 0;

    if (depth > DEPTH_MAX)
        return error_set(err, ERR_TOO_LARGE, "%s/%s is nested more than %d folders deep",
                         context->path, path, DEPTH_MAX);
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder) {
        int problem = errno;
        if (fd >= 0)
            close(fd);
        return error_errno(err, problem, "%s/%s", context->path, path);
    }
    while (status == 0 && (entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        cleanup_free char *below =
            *path ? mem_printf("%s/%s", path, entry->d_name) : mem_strdup(entry->d_name);
        status = visit(context, fd, entry->d_name, below, ignore, depth, err);
    }
    closedir(folder);
    return status;
}

static int compare_files(const void *a, const void *b)
{
    return strcmp(((const struct context_file *)a)->path, ((const struct context_file *)b)->path);
}

int context_open_checked(int folder, const char *path, int flags, struct error *err)
{
    struct open_how how = {.flags =
                               (uint64_t)(flags | O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK),
                           .resolve = RESOLVE_NO_MAGICLINKS |
                                      (folder == AT_FDCWD ? RESOLVE_NO_SYMLINKS : RESOLVE_BENEATH)};
    int fd = (int)syscall(SYS_openat2, folder, path, &how, sizeof how);

    if (fd < 0 && (errno == ELOOP || errno == EXDEV)) {
        error_set(err, ERR_DENIED, "%s: a link leads away from it", path);
        return error_hint(err, "put the file itself there");
    }
    return fd < 0 ? error_errno(err, errno, "cannot open %s", path) : fd;
}

int context_read(int folder, const char *path, size_t limit, struct buf *out, struct error *err)
{
    cleanup_close int fd = context_open_checked(folder, path, 0, err);
    char again[32];

    if (fd < 0)
        return -1;
    snprintf(again, sizeof again, "/proc/self/fd/%d", fd);
    return file_read(AT_FDCWD, again, limit, out, err) < 0 ? error_wrap(err, "%s", path) : 0;
}

static struct ignore *load_ignore(struct context *context, const char *dockerfile,
                                  struct error *err, bool *failed)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct error problem = {0};
    cleanup_free char *own = dockerfile ? mem_printf("%s.dockerignore", dockerfile) : NULL;

    if (own && context_read(AT_FDCWD, own, IGNORE_LIMIT, &text, &problem) == 0)
        context->ignore_file = steal_ptr(&own);
    else if ((!own || problem.code == ERR_NOT_FOUND) &&
             context_read(context->dir, ".dockerignore", IGNORE_LIMIT, &text, &problem) == 0)
        context->ignore_file = path_join(context->path, ".dockerignore");
    if (!context->ignore_file) {
        *failed = problem.code != ERR_NOT_FOUND;
        if (*failed && err)
            *err = problem;
        return NULL;
    }
    struct ignore *ignore =
        ignore_parse(text.data ? text.data : "", text.len, context->ignore_file, err);
    *failed = !ignore;
    return ignore;
}

static struct context *open_folder(const char *path, struct error *err)
{
    struct context *context = mem_alloc(sizeof *context);

    context->path = mem_strdup(path);
    context->listed_ns = clock_wall_ms() * NS_PER_MS;
    context->dir = context_open_checked(AT_FDCWD, path, O_DIRECTORY, err);
    if (context->dir >= 0)
        return context;
    context_free(context);
    return NULL;
}

/* The context, or NULL: then it is freed. */
static struct context *list(struct context *context, const struct ignore *ignore, struct error *err)
{
    if (walk(context, context->dir, ".", "", ignore, 0, err) != 0) {
        context_free(context);
        return NULL;
    }
    if (context->count)
        qsort(context->files, context->count, sizeof *context->files, compare_files);
    return context;
}

struct context *context_list(const char *path, const char *dockerfile, struct error *err)
{
    struct context *context = open_folder(path, err);
    bool failed;

    if (!context) {
        error_wrap(err, "build context");
        error_hint(err, "context is a folder, relative to the workspace");
        return NULL;
    }
    struct ignore *ignore = load_ignore(context, dockerfile, err, &failed);
    if (failed) {
        context_free(context);
        return NULL;
    }
    context = list(context, ignore, err);
    ignore_free(ignore);
    return context;
}

struct context *context_list_all(const char *path, struct error *err)
{
    struct context *context = open_folder(path, err);

    return context ? list(context, NULL, err) : NULL;
}

const struct context_file *context_find(const struct context *context, const char *path)
{
    struct context_file key = {.path = (char *)(uintptr_t)path};

    return context->count ? bsearch(&key, context->files, context->count, sizeof key, compare_files)
                          : NULL;
}

int context_open(const struct context *context, const char *path, struct error *err)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    int fd = (int)syscall(SYS_openat2, context->dir, path, &how, sizeof how);

    return fd >= 0 ? fd : error_errno(err, errno, "%s/%s", context->path, path);
}

/* ---- the tag ---- */

static int compare_pairs(const void *a, const void *b)
{
    return strcmp((*(const struct value_pair *const *)a)->key,
                  (*(const struct value_pair *const *)b)->key);
}

static void mix(struct hasher *hasher, const char *format, const char *a, const char *b)
{
    hasher_update(hasher, format, strlen(format));
    hasher_update(hasher, " ", 1);
    hasher_update(hasher, a, strlen(a));
    if (b) {
        hasher_update(hasher, "=", 1);
        hasher_update(hasher, b, strlen(b));
    }
    hasher_update(hasher, "\n", 1);
}

static void mix_args(struct hasher *hasher, const struct value *args)
{
    size_t count = args && args->kind == VALUE_MAP ? args->as.map.count : 0;
    cleanup_free const struct value_pair **sorted = mem_alloc((count + 1) * sizeof *sorted);

    for (size_t i = 0; i < count; i++)
        sorted[i] = &args->as.map.pairs[i];
    qsort(sorted, count, sizeof *sorted, compare_pairs);
    for (size_t i = 0; i < count; i++) {
        cleanup_buf struct buf text = BUF_INIT;
        if (sorted[i]->value.kind == VALUE_STRING)
            buf_append(&text, sorted[i]->value.as.string.data, sorted[i]->value.as.string.len);
        else
            value_to_json(&sorted[i]->value, TEXT_SORTED, &text);
        mix(hasher, "arg", sorted[i]->key, text.data ? text.data : "");
    }
}

static int mix_file(struct hasher *hasher, struct context *context, const struct context_file *file,
                    struct error *err)
{
    struct digest sum = {""};
    char kind = 'd';

    if (S_ISLNK(file->mode)) {
        kind = 'l';
        digest_bytes(file->link, strlen(file->link), &sum);
    } else if (S_ISREG(file->mode)) {
        kind = file->mode & 0111 ? 'x' : 'f';
        if (context_digest(context, file, &sum, err) != 0)
            return -1;
    }
    cleanup_free char *line = mem_printf("%c %s %s", kind, sum.text, file->path);
    hasher_update(hasher, line, strlen(line) + 1);
    return 0;
}

static int digest_files(struct context *context, struct error *err)
{
    cleanup_free const struct context_file **files =
        mem_alloc((context->count + 1) * sizeof(struct context_file *));
    size_t count = 0;

    for (size_t i = 0; i < context->count; i++)
        if (S_ISREG(context->files[i].mode))
            files[count++] = &context->files[i];
    return context_digest_all(context, files, count, err);
}

int context_tag(struct context *context, const char *dockerfile, const struct value *args,
                const char *salt, char out[17], struct error *err)
{
    static const char version[] = "mlhost-content 1\n";
    struct digest sum;

    cleanup_close int fd = context_open_checked(AT_FDCWD, dockerfile, 0, err);
    if (fd < 0 || digest_file(fd, &sum, NULL, err) != 0) {
        error_wrap(err, "Dockerfile");
        return error_hint(
            err,
            "dockerfile names it, relative to the workspace, when it is not <context>/Dockerfile");
    }
    if (digest_files(context, err) != 0)
        return -1;
    struct hasher *hasher = hasher_new();
    hasher_update(hasher, version, sizeof version - 1);
    for (size_t i = 0; i < context->count; i++)
        if (mix_file(hasher, context, &context->files[i], err) != 0) {
            hasher_drop(hasher);
            return -1;
        }
    mix(hasher, "dockerfile", sum.text, NULL);
    mix_args(hasher, args);
    if (salt)
        mix(hasher, "salt", salt, NULL);
    hasher_finish(hasher, &sum);
    memcpy(out, sum.text + 7, 16);
    out[16] = '\0';
    return 0;
}
