/*
 * MLflow artifacts, streamed between a file and the server.
 *
 * A run's artifact_uri says where they are. "mlflow-artifacts:/<path>" means the tracking server's
 * proxy (PUT and GET under /api/2.0/mlflow-artifacts/artifacts/<path>); a folder of this machine
 * ("file:///...", "/...") is used directly, within the script's permissions; anything else is
 * readable through the server's /get-artifact.
 */
#include "service/rest.h"

#include "base/mem.h"
#include "service/client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROXY     "/api/2.0/mlflow-artifacts/artifacts/"
#define MAX_DEPTH 32
#define MAX_FILES 100000

struct transfer {
    struct call *call;
    struct rest_client *client;
    const char *root;  /* artifact_uri */
    const char *label; /* for progress */
    int64_t base;      /* bytes of the files before this one */
    int64_t bytes;
    int64_t files;
};

static void escape_path(const char *path, struct buf *out)
{
    for (const char *p = path; *p;) {
        size_t len = strcspn(p, "/");
        url_escape(p, len, out);
        p += len;
        if (*p == '/') {
            buf_putc(out, '/');
            p++;
        }
    }
}

/* An artifact path is relative and stays below its root. */
static int check_artifact_path(const char *path, struct error *err)
{
    if (*path == '/')
        return error_set(err, ERR_USAGE, "the artifact path '%s' must be relative", path);
    for (const char *p = path; *p;) {
        size_t len = strcspn(p, "/");
        if ((len == 2 && strncmp(p, "..", 2) == 0) || (len == 1 && *p == '.') || len == 0)
            return error_set(err, ERR_USAGE,
                             "the artifact path '%s' may not hold '.', '..' or '//'", path);
        p += len + (p[len] == '/');
    }
    return 0;
}

/* The URL path of an artifact behind the proxy. 1: proxied, 0: not. */
static int proxy_path(const struct transfer *t, const char *path, struct buf *out,
                      struct error *err)
{
    const char *root = t->root;

    if (strncmp(root, "mlflow-artifacts:", 17) != 0)
        return 0;
    root += 17;
    if (strncmp(root, "//", 2) ==
        0) { /* mlflow-artifacts://host:port/path names a host; ours or none */
        const char *slash = strchr(root + 2, '/');
        size_t len = slash ? (size_t)(slash - root - 2) : strlen(root + 2);
        size_t host = strlen(t->client->host ? t->client->host : "");
        if (len && (len < host || strncmp(root + 2, t->client->host, host) != 0)) {
            error_set(err, ERR_UNSUPPORTED, "the artifacts are behind another server: %s", t->root);
            return error_hint(err, "connect with that server's address as endpoint");
        }
        root = slash ? slash : "";
    }
    root += strspn(root, "/");
    buf_puts(out, PROXY);
    escape_path(root, out);
    if (*path) {
        buf_putc(out, '/');
        escape_path(path, out);
    }
    return 1;
}

/* The folder of this machine that the root is; NULL when it is none. */
static const char *local_root(const char *root)
{
    if (strncmp(root, "file://", 7) == 0)
        return root + 7;
    if (strncmp(root, "file:/", 6) == 0)
        return root + 5;
    return *root == '/' ? root : NULL;
}

static void on_progress(void *ctx, int64_t sent, int64_t send_total, int64_t got, int64_t get_total)
{
    struct transfer *t = ctx;
    int64_t total = send_total > 0 ? send_total : get_total;

    call_progress(t->call, t->label, t->base + (send_total > 0 ? sent : got),
                  total < 0 ? -1 : t->base + total, "bytes");
}

static int copy_file(int from, int to, int64_t *bytes, struct error *err)
{
    for (;;) {
        ssize_t n = copy_file_range(from, NULL, to, NULL, 1 << 20, 0);
        if (n == 0)
            return 0;
        if (n < 0) {
            cleanup_free char *block = mem_alloc(1 << 16);
            while ((n = read(from, block, 1 << 16)) > 0) {
                if (fd_write_all(to, block, (size_t)n, err) != 0)
                    return -1;
                *bytes += n;
            }
            return n < 0 ? error_errno(err, errno, "cannot copy the artifact") : 0;
        }
        *bytes += n;
    }
}

/* Opens PATH.part for writing, folders made on the way; *part is its name. */
static int open_part(const char *path, char **part, struct error *err)
{
    cleanup_free char *copy = mem_strdup(path);

    if (dir_make(dirname(copy), err) != 0)
        return -1;
    *part = mem_printf("%s.part", path);
    int fd = call_open(*part, O_RDWR | O_CREAT | O_TRUNC, 0666, err);
    return fd < 0 ? error_wrap(err, "cannot write the artifact") : fd;
}

static int place_part(const char *part, const char *path, int result, struct error *err)
{
    if (result == 0 && rename(part, path) != 0)
        result = error_errno(err, errno, "cannot write '%s'", path);
    if (result != 0)
        unlink(part);
    return result;
}

static int upload_file(struct transfer *t, int fd, uint64_t size, const char *path,
                       struct error *err)
{
    cleanup_buf struct buf url = BUF_INIT;
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;
    const char *folder = local_root(t->root);
    int proxied = proxy_path(t, path, &url, err);

    if (proxied < 0)
        return -1;
    if (!proxied && folder) {
        cleanup_free char *wanted = path_join(folder, path);
        cleanup_free char *target = call_path(t->call, wanted, ACCESS_WRITE, err);
        cleanup_free char *part = NULL;
        if (!target)
            return -1;
        cleanup_close int out = open_part(target, &part, err);
        if (out < 0)
            return -1;
        return place_part(part, target, copy_file(fd, out, &t->bytes, err), err);
    }
    if (!proxied) {
        error_set(err, ERR_UNSUPPORTED, "artifacts under %s cannot be written from here", t->root);
        return error_hint(
            err, "start the server with --artifacts-destination and --default-artifact-root "
                 "mlflow-artifacts:/, so that it stores them itself");
    }
    request.method = "PUT";
    request.url = url.data;
    request.body_fd = fd;
    request.body_size = size;
    request.progress = on_progress;
    request.progress_ctx = t;
    http_header_add(&request.headers, "Content-Type", "application/octet-stream");
    int result = rest_send(t->call, t->client, &request, &response, err);
    http_headers_free(&request.headers);
    t->bytes += (int64_t)size;
    return result;
}

static int upload_tree(struct transfer *t, int dirfd, const char *name, const char *path, int depth,
                       struct error *err)
{
    cleanup_close int fd = depth
                               ? openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
                               : call_open(name, O_RDONLY | O_NONBLOCK, 0, NULL);
    struct stat st;

    if (fd < 0 && errno == ELOOP && depth > 0)
        return 0; /* links inside a folder are not followed: they may lead out of what
                   * was permitted */
    if (fd < 0 || fstat(fd, &st) != 0)
        return error_errno(err, errno, "cannot read '%s'", name);
    if (S_ISREG(st.st_mode)) {
        if (++t->files > MAX_FILES)
            return error_set(err, ERR_TOO_LARGE, "more than %d files in one upload", MAX_FILES);
        t->base = t->bytes;
        return upload_file(t, fd, (uint64_t)st.st_size, path, err);
    }
    if (!S_ISDIR(st.st_mode))
        return depth ? 0 : error_set(err, ERR_INVALID, "'%s' is neither a file nor a folder", name);
    if (depth > MAX_DEPTH)
        return error_set(err, ERR_TOO_LARGE, "'%s': folders deeper than %d", name, MAX_DEPTH);
    DIR *dir = fdopendir(dup(fd));
    if (!dir)
        return error_errno(err, errno, "cannot list '%s'", name);
    int result = 0;
    struct dirent *entry;
    while (result == 0 && (entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        cleanup_free char *below =
            *path ? mem_printf("%s/%s", path, entry->d_name) : mem_strdup(entry->d_name);
        result = upload_tree(t, fd, entry->d_name, below, depth + 1, err);
    }
    closedir(dir);
    return result;
}

/*
 * mlflow.upload_artifact(client, artifact_uri, from, path?) -> { files, bytes }
 *
 *   artifact_uri  string  of the run: run.info.artifact_uri
 *   from          path    a file, or a folder with everything below it       [permission: read]
 *   path          string  where below the root: the file's name there, or the folder that the tree
 * goes to errors        not_found, denied, unsupported (the root is a store that only the server
 * reaches)
 */
int prim_mlflow_upload(struct call *call, const struct value *args, struct value *out,
                       struct error *err)
{
    struct rest_client *client = rest_client_arg(call, args, err);
    const char *path = value_get_string(args, "path", "");

    if (!client)
        return -1;
    cleanup_free char *from = call_path(call, value_get_string(args, "from", ""), ACCESS_READ, err);
    if (!from || check_artifact_path(path, err) != 0)
        return error_wrap(err, "mlflow.upload_artifact");
    const char *slash = strrchr(from, '/');
    struct transfer t = {.call = call,
                         .client = client,
                         .root = value_get_string(args, "artifact_uri", ""),
                         .label = slash ? slash + 1 : from};
    if (upload_tree(&t, AT_FDCWD, from, path, 0, err) != 0)
        return error_wrap(err, "mlflow.upload_artifact");
    value_set_map(out);
    value_put_int(out, "files", t.files);
    value_put_int(out, "bytes", t.bytes);
    return 0;
}

/*
 * mlflow.download_artifact(client, run_id, artifact_uri, path, to) -> { path, bytes }
 *
 *   path     string  the artifact, relative to the run's root
 *   to       path    the file to write; it appears when it is complete
 * [permission: write] */
int prim_mlflow_download(struct call *call, const struct value *args, struct value *out,
                         struct error *err)
{
    struct rest_client *client = rest_client_arg(call, args, err);
    const char *path = value_get_string(args, "path", "");
    cleanup_buf struct buf url = BUF_INIT;
    cleanup_free char *part = NULL;

    if (!client)
        return -1;
    cleanup_free char *to = call_path(call, value_get_string(args, "to", ""), ACCESS_WRITE, err);
    if (!to || check_artifact_path(path, err) != 0)
        return error_wrap(err, "mlflow.download_artifact");
    const char *slash = strrchr(path, '/');
    struct transfer t = {.call = call,
                         .client = client,
                         .root = value_get_string(args, "artifact_uri", ""),
                         .label = slash ? slash + 1 : path};
    int proxied = proxy_path(&t, path, &url, err);
    if (proxied < 0)
        return -1;
    if (!proxied) { /* the server can read what it wrote, wherever that is */
        const char *run_id = value_get_string(args, "run_id", "");
        buf_puts(&url, "/get-artifact?path=");
        url_escape(path, strlen(path), &url);
        buf_puts(&url, "&run_uuid=");
        url_escape(run_id, strlen(run_id), &url);
    }
    cleanup_close int fd = open_part(to, &part, err);
    if (fd < 0)
        return error_wrap(err, "mlflow.download_artifact");
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;
    request.url = url.data;
    request.reply_fd = fd;
    request.progress = on_progress;
    request.progress_ctx = &t;
    int result = rest_send(call, client, &request, &response, err);
    off_t size = lseek(fd, 0, SEEK_END);
    if (place_part(part, to, result, err) != 0)
        return error_wrap(err, "mlflow.download_artifact");
    value_set_map(out);
    value_put_string(out, "path", to);
    value_put_int(out, "bytes", (int64_t)size);
    return 0;
}
