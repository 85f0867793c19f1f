/* Files. Paths are resolved and checked by call_path; what is opened then may not be a link. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "broker/internal.h"

#define READ_DEFAULT (16 << 20)
#define READ_MOST    (48 << 20) /* a frame holds 64 MiB */
#define ENTRIES_MAX  1000000

static const char *arg_path(const struct value *args, const char *name)
{
    return value_get_string(args, name, "");
}

/* errno -> an error that names the path as the script wrote it. */
static int failed(struct error *err, const char *path)
{
    return error_errno(err, errno, "%s", path);
}

static int fs_read(struct call *call, const struct value *args, struct value *out,
                   struct error *err)
{
    const char *path = arg_path(args, "path");
    int64_t limit = value_get_int(args, "limit", READ_DEFAULT);
    cleanup_free char *resolved = call_path(call, path, ACCESS_READ, err);
    cleanup_buf struct buf text = BUF_INIT;
    struct stat status;

    if (!resolved)
        return -1;
    if (limit < 0 || limit > READ_MOST)
        return error_set(err, ERR_USAGE, "fs.read: limit must be 0 to %d", READ_MOST);
    cleanup_close int fd = open_resolved(resolved, O_RDONLY | O_NONBLOCK, 0, NULL);
    if (fd < 0 || fstat(fd, &status) < 0)
        return failed(err, path);
    if (S_ISDIR(status.st_mode))
        return error_set(err, ERR_INVALID, "%s: is a folder", path);
    if (!S_ISREG(status.st_mode))
        return error_set(err, ERR_INVALID, "%s: is no ordinary file", path);
    while (text.len <= (size_t)limit) {
        char *room = buf_reserve(&text, 65536);
        ssize_t n = read(fd, room, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(err, path);
        if (n == 0)
            break;
        text.len += (size_t)n;
    }
    if (text.len > (size_t)limit) {
        error_set(err, ERR_TOO_LARGE, "%s: larger than %lld bytes", path, (long long)limit);
        return error_hint(
            err, "fs.read(path, limit) reads up to %d; larger files are for commands and artifacts",
            READ_MOST);
    }
    value_set_bytes(out, text.data ? text.data : "", text.len);
    return 0;
}

static int make_parents(const char *resolved, struct error *err)
{
    const char *slash = strrchr(resolved, '/');

    if (!slash || slash == resolved)
        return 0;
    cleanup_free char *folder = mem_strndup(resolved, (size_t)(slash - resolved));
    return dir_make(folder, err);
}

static int fs_write(struct call *call, const struct value *args, struct value *out,
                    struct error *err)
{
    const char *path = arg_path(args, "path");
    const struct value *text = value_get(args, "text");
    cleanup_free char *resolved = call_path(call, path, ACCESS_WRITE, err);

    (void)out;
    if (!resolved || make_parents(resolved, err) < 0)
        return -1;
    if (!value_get_bool(args, "append", false))
        return file_write(AT_FDCWD, resolved, text->as.string.data, text->as.string.len, false,
                          err);
    cleanup_close int fd =
        open_resolved(resolved, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK, 0666, NULL);
    if (fd < 0)
        return failed(err, path);
    return fd_write_all(fd, text->as.string.data, text->as.string.len, err);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(value_text(a, ""), value_text(b, ""));
}

static int list_names(const char *resolved, const char *path, struct value *out, struct error *err)
{
    int fd = open_resolved(resolved, O_RDONLY | O_DIRECTORY, 0, NULL);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (!dir) {
        failed(err, path);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    value_set_array(out);
    for (struct dirent *entry; (entry = readdir(dir)) && value_count(out) < ENTRIES_MAX;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            value_push_string(out, entry->d_name);
    }
    closedir(dir);
    if (value_count(out))
        qsort(out->as.array.items, out->as.array.count, sizeof *out->as.array.items, by_text);
    return 0;
}

static int fs_list(struct call *call, const struct value *args, struct value *out,
                   struct error *err)
{
    const char *path = arg_path(args, "path");
    cleanup_free char *resolved = call_path(call, path, ACCESS_READ, err);

    return resolved ? list_names(resolved, path, out, err) : -1;
}

/* One step of a glob: `rest` is matched below `folder`, `prefix` is what the script sees of it.
 * Links to folders are not followed by "**", so a tree is finite. */
static int glob_step(struct call *call, const char *folder, const char *prefix, const char *rest,
                     struct value *out, int depth, struct error *err)
{
    cleanup_value struct value names = {0};
    size_t len = strcspn(rest, "/");
    cleanup_free char *part = mem_strndup(rest, len);
    const char *next = rest[len] ? rest + len + 1 : NULL;
    bool deep = strcmp(part, "**") == 0;

    if (depth > 64 || cancelled(call->cancel) || deadline_passed(call->deadline))
        return 0;
    if (deep && next && glob_step(call, folder, prefix, next, out, depth + 1, err) < 0)
        return -1;
    if (list_names(folder, folder, &names, NULL) < 0)
        return 0;
    for (size_t i = 0; i < value_count(&names); i++) {
        const char *name = value_text(value_at(&names, i), "");
        cleanup_free char *child =
            mem_printf("%s/%s", strcmp(folder, "/") == 0 ? "" : folder, name);
        cleanup_free char *seen = mem_printf("%s%s", prefix, name);
        cleanup_free char *below = mem_printf("%s/", seen);
        struct stat status;
        if (!deep && fnmatch(part, name, FNM_PERIOD) != 0)
            continue;
        if (deep && name[0] == '.')
            continue;
        if (lstat(child, &status) < 0)
            continue;
        if ((deep && !next) || (!deep && !next)) {
            if (value_count(out) >= ENTRIES_MAX)
                return error_set(err, ERR_TOO_LARGE, "fs.glob: more than %d paths", ENTRIES_MAX);
            value_push_string(out, seen);
        }
        if (!S_ISDIR(status.st_mode))
            continue;
        if ((deep || next) &&
            glob_step(call, child, below, deep ? rest : next, out, depth + 1, err) < 0)
            return -1;
    }
    return 0;
}

static int fs_glob(struct call *call, const struct value *args, struct value *out,
                   struct error *err)
{
    const char *pattern = arg_path(args, "pattern");
    size_t fixed = 0; /* the part without wildcards, up to a slash */

    for (size_t i = 0; pattern[i] && !strchr("*?[", pattern[i]); i++) {
        if (pattern[i] == '/')
            fixed = i + 1;
    }
    cleanup_free char *start = fixed ? mem_strndup(pattern, fixed) : mem_strdup(".");
    cleanup_free char *prefix = fixed ? mem_strdup(start) : mem_strdup("");
    cleanup_free char *resolved = call_path(call, start, ACCESS_READ, err);

    if (!resolved)
        return -1;
    value_set_array(out);
    if (!pattern[fixed])
        return 0;
    if (glob_step(call, resolved, prefix, pattern + fixed, out, 0, err) < 0)
        return -1;
    if (value_count(out))
        qsort(out->as.array.items, out->as.array.count, sizeof *out->as.array.items, by_text);
    /* "a/" "**" can reach one path in two ways. */
    for (size_t i = 1; i < value_count(out);) {
        if (strcmp(value_text(value_at(out, i - 1), ""), value_text(value_at(out, i), "")) != 0) {
            i++;
            continue;
        }
        value_free(value_at(out, i));
        memmove(value_at(out, i), value_at(out, i) + 1,
                (value_count(out) - i - 1) * sizeof(struct value));
        out->as.array.count--;
    }
    return 0;
}

static int fs_exists(struct call *call, const struct value *args, struct value *out,
                     struct error *err)
{
    struct error inner = {0};
    cleanup_free char *resolved = call_path(call, arg_path(args, "path"), ACCESS_READ, &inner);
    struct stat status;

    if (!resolved && inner.code != ERR_NOT_FOUND) {
        *err = inner;
        return -1;
    }
    value_set_bool(out, resolved && lstat(resolved, &status) == 0);
    return 0;
}

static int fs_stat(struct call *call, const struct value *args, struct value *out,
                   struct error *err)
{
    const char *path = arg_path(args, "path");
    cleanup_free char *resolved = call_path(call, path, ACCESS_READ, err);
    struct stat status;

    if (!resolved)
        return -1;
    if (lstat(resolved, &status) < 0)
        return failed(err, path);
    value_set_map(out);
    value_put_string(out, "kind",
                     S_ISREG(status.st_mode)   ? "file"
                     : S_ISDIR(status.st_mode) ? "folder"
                     : S_ISLNK(status.st_mode) ? "link"
                                               : "other");
    value_put_int(out, "size", status.st_size);
    value_put_int(out, "modified", status.st_mtim.tv_sec * 1000 + status.st_mtim.tv_nsec / 1000000);
    value_put_int(out, "mode", status.st_mode & 07777);
    return 0;
}

static int fs_mkdir(struct call *call, const struct value *args, struct value *out,
                    struct error *err)
{
    cleanup_free char *resolved = call_path(call, arg_path(args, "path"), ACCESS_WRITE, err);

    (void)out;
    return resolved ? dir_make(resolved, err) : -1;
}

static int fs_remove(struct call *call, const struct value *args, struct value *out,
                     struct error *err)
{
    cleanup_free char *resolved = call_path(call, arg_path(args, "path"), ACCESS_WRITE, err);

    (void)out;
    if (!resolved)
        return -1;
    if (strcmp(resolved, call_workspace(call)) == 0 || strcmp(resolved, "/") == 0)
        return error_set(err, ERR_DENIED, "fs.remove: not the whole workspace");
    return dir_remove(resolved, err);
}

static int fs_copy(struct call *call, const struct value *args, struct value *out,
                   struct error *err)
{
    const char *from = arg_path(args, "from"), *to = arg_path(args, "to");
    cleanup_free char *source = call_path(call, from, ACCESS_READ, err);
    cleanup_free char *target = source ? call_path(call, to, ACCESS_WRITE, err) : NULL;
    struct stat status;

    (void)out;
    if (!target || make_parents(target, err) < 0)
        return -1;
    cleanup_close int in = open_resolved(source, O_RDONLY | O_NONBLOCK, 0, NULL);
    if (in < 0 || fstat(in, &status) < 0)
        return failed(err, from);
    if (!S_ISREG(status.st_mode))
        return error_set(err, ERR_INVALID, "%s: is no ordinary file", from);
    cleanup_close int to_fd = open_resolved(target, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK,
                                            status.st_mode & 0777, NULL);
    if (to_fd < 0)
        return failed(err, to);
    for (;;) {
        if (cancelled(call->cancel))
            return error_set(err, ERR_CANCELLED, "%s: cancelled while copying", to);
        ssize_t n = sendfile(to_fd, in, NULL, 8 << 20);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(err, to);
        if (n == 0)
            return 0;
    }
}

const struct primitive fs_rows[] = {
    {.sign = {"fs.read", "path:path limit:int?", "text:string",
              "a file's content, at most limit bytes (16 MiB)"},
     .fn = fs_read},
    {.sign = {"fs.write", "path:path text:string append:bool?", "",
              "write a file, atomically unless it appends"},
     .fn = fs_write},
    {.sign = {"fs.list", "path:path", "names:array", "names in a folder, sorted"}, .fn = fs_list},
    {.sign = {"fs.glob", "pattern:string", "paths:array",
              "paths that match * ? [..] and ** over folders, sorted"},
     .fn = fs_glob},
    {.sign = {"fs.exists", "path:path", "yes:bool", "is there something at this path?"},
     .fn = fs_exists},
    {.sign = {"fs.stat", "path:path", "info:map", "kind, size, modified (Unix ms), mode"},
     .fn = fs_stat},
    {.sign = {"fs.mkdir", "path:path", "", "make a folder and those above it"}, .fn = fs_mkdir},
    {.sign = {"fs.remove", "path:path", "", "remove a file, or a folder with all that is in it"},
     .fn = fs_remove},
    {.sign = {"fs.copy", "from:path to:path", "", "copy a file"}, .fn = fs_copy},
    {.sign = {.name = NULL}},
};
