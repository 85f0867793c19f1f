/*
 * The artifact proxy of MLflow (mlflow-artifacts/artifacts/<path>): files under
 * <state>/mlflow/artifacts, streamed both ways. A path is walked part by part without following
 * links, so nothing outside that folder is ever reached. An upload is a file beside the tree until
 * it is whole.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "local/services.h"

struct artifacts {
    struct service service;
    int root;     /* <state>/mlflow/artifacts */
    int incoming; /* <state>/mlflow/incoming */
    char *root_path;
    atomic_ulong serial;
};

struct upload {
    int fd;
    uint64_t size;
    char name[48]; /* in incoming; "" when it has been moved */
};

static struct artifacts *self(const struct request *rq)
{
    return rq->service->state;
}

static void refuse(struct request *rq, int status, const char *code, const char *format,
                   const char *what)
{
    cleanup_value struct value body = {0};

    value_set_map(&body);
    value_put_string(&body, "error_code", code);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    value_set_printf(value_put(&body, "message"), format, what);
#pragma GCC diagnostic pop
    answer_json(rq, status, &body);
}

static void refuse_errno(struct request *rq, int why, const char *path)
{
    if (why == ENOENT || why == ENOTDIR)
        refuse(rq, 404, "RESOURCE_DOES_NOT_EXIST", "No such artifact: '%s'", path);
    else if (why == EISDIR || why == ELOOP || why == EEXIST || why == ENOTEMPTY)
        refuse(rq, 400, "INVALID_PARAMETER_VALUE", "'%s' is not an artifact file", path);
    else
        refuse(rq, 500, "INTERNAL_ERROR", "%s", strerror(why));
}

/* The part after artifacts/, or NULL after having answered. */
static const char *artifact_path(struct request *rq)
{
    const char *path = rq->rest + strlen("artifacts/");

    if (path_is_plain(path))
        return path;
    refuse(rq, 400, "INVALID_PARAMETER_VALUE", "Invalid path: '%s'", path);
    return NULL;
}

static int open_folder(int at, const char *name)
{
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The folder that holds the last part of path, and that part. -1 and errno. */
static int open_parent(int root, const char *path, bool make, const char **last)
{
    cleanup_close int at = fcntl(root, F_DUPFD_CLOEXEC, 0);

    for (;;) {
        size_t len = strcspn(path, "/");
        char part[256];
        if (at < 0)
            return -1;
        if (!path[len]) {
            *last = path;
            return steal_fd(&at);
        }
        memcpy(part, path, len);
        part[len] = '\0';
        if (make && mkdirat(at, part, 0777) < 0 && errno != EEXIST)
            return -1;
        int next = open_folder(at, part);
        close(at);
        at = next;
        path += len + 1;
    }
}

/* ---- GET ---- */

static void download(struct request *rq, const char *path)
{
    const char *last;
    struct stat st;
    cleanup_close int at = open_parent(self(rq)->root, path, false, &last);
    cleanup_close int fd =
        at < 0 ? -1 : openat(at, last, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0) {
        refuse_errno(rq, errno, path);
        return;
    }
    if (!S_ISREG(st.st_mode)) {
        refuse_errno(rq, EISDIR, path);
        return;
    }
    answer_header(rq, "X-Content-Type-Options", "nosniff");
    answer_header(rq, "Content-Disposition", "attachment");
    answer_file(rq, 200, "application/octet-stream", steal_fd(&fd), 0, (uint64_t)st.st_size);
}

static int visible(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

static void list(struct request *rq)
{
    const char *path = request_query(rq, "path"), *last;
    cleanup_value struct value body = {0};
    cleanup_close int at = -1, folder = -1;
    struct dirent **names = NULL;
    int count = -1;

    value_set_map(&body);
    struct value *files = value_put(&body, "files");
    value_set_array(files);
    if (path && *path && strcmp(path, ".") != 0) {
        size_t len = strlen(path);
        cleanup_free char *clean = mem_strndup(path, len - (path[len - 1] == '/'));
        if (!path_is_plain(clean)) {
            refuse(rq, 400, "INVALID_PARAMETER_VALUE", "Invalid path: '%s'", path);
            return;
        }
        at = open_parent(self(rq)->root, clean, false, &last);
        folder = at < 0 ? -1 : open_folder(at, last);
    } else {
        folder = open_folder(self(rq)->root, ".");
    }
    if (folder >= 0)
        count = scandirat(folder, ".", &names, visible, alphasort);
    for (int i = 0; i < count; i++) {
        struct stat st;
        if (fstatat(folder, names[i]->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
            struct value *file = value_push(files);
            value_set_map(file);
            value_put_string(file, "path", names[i]->d_name);
            value_put_bool(file, "is_dir", S_ISDIR(st.st_mode));
            if (S_ISREG(st.st_mode))
                value_put_int(file, "file_size", st.st_size);
        }
        free(names[i]);
    }
    free(names);
    answer_json(rq, 200, &body);
}

/* ---- PUT ---- */

static void upload_begin(struct request *rq)
{
    struct artifacts *artifacts = self(rq);

    if (!artifact_path(rq))
        return;
    struct upload *upload = mem_alloc(sizeof *upload);
    rq->local = upload;
    snprintf(upload->name, sizeof upload->name, "%ld.%lu", (long)getpid(),
             atomic_fetch_add(&artifacts->serial, 1));
    upload->fd = openat(artifacts->incoming, upload->name,
                        O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (upload->fd < 0)
        refuse_errno(rq, errno, "upload");
}

static void upload_finish(struct request *rq)
{
    struct artifacts *artifacts = self(rq);
    struct upload *upload = rq->local;
    const char *path = artifact_path(rq), *last;

    if (rq->length != LENGTH_UNKNOWN && upload->size != rq->length) {
        refuse(rq, 400, "BAD_REQUEST", "'%s' was sent in part only", path);
        return;
    }
    cleanup_close int at = open_parent(artifacts->root, path, true, &last);
    if (at < 0 || renameat(artifacts->incoming, upload->name, at, last) < 0) {
        refuse_errno(rq, errno == ENOTDIR ? EEXIST : errno, path);
        return;
    }
    upload->name[0] = '\0';
    answer(rq, 200, "application/json", "{}", 2);
}

/* ---- DELETE ---- */

static void delete (struct request *rq, const char *path)
{
    struct artifacts *artifacts = self(rq);
    const char *last;
    struct stat st;
    struct error err = {0};
    cleanup_close int at = open_parent(artifacts->root, path, false, &last);

    if (at < 0 || fstatat(at, last, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        refuse_errno(rq, errno, path);
        return;
    }
    cleanup_free char *full = path_join(artifacts->root_path, path);
    if (S_ISDIR(st.st_mode) ? dir_remove(full, &err) < 0 : unlinkat(at, last, 0) < 0) {
        refuse(rq, 500, "INTERNAL_ERROR", "'%s' cannot be removed", path);
        return;
    }
    answer(rq, 200, "application/json", "{}", 2);
}

/* ---- the service ---- */

static bool under_artifacts(const struct request *rq)
{
    return strncmp(rq->rest, "artifacts/", strlen("artifacts/")) == 0;
}

static void begin(struct request *rq)
{
    if (strcmp(rq->method, "PUT") == 0 && under_artifacts(rq))
        upload_begin(rq);
}

static void data(struct request *rq, const void *bytes, size_t len)
{
    struct upload *upload = rq->local;
    struct error err = {0};

    if (!upload)
        return; /* a body that no call here has: ignored */
    if (fd_write_all(upload->fd, bytes, len, &err) < 0)
        refuse(rq, 500, "INTERNAL_ERROR", "the upload cannot be stored: %s", err.message);
    upload->size += len;
}

static void handle(struct request *rq)
{
    const char *path;

    if (strncmp(rq->rest, "mpu/", 4) == 0)
        refuse(rq, 501, "NOT_IMPLEMENTED", "%s is not supported for local artifact storage",
               "Multipart upload");
    else if (rq->local)
        upload_finish(rq);
    else if (strcmp(rq->rest, "artifacts") == 0 || strcmp(rq->rest, "artifacts/") == 0) {
        if (strcmp(rq->method, "GET") == 0)
            list(rq);
        else
            refuse(rq, 405, "BAD_REQUEST", "Method %s is not allowed here", rq->method);
    } else if (!under_artifacts(rq))
        refuse(rq, 404, "ENDPOINT_NOT_FOUND", "Not Found: '%s'", rq->path);
    else if (!(path = artifact_path(rq)))
        return;
    else if (strcmp(rq->method, "GET") == 0 || strcmp(rq->method, "HEAD") == 0)
        download(rq, path);
    else if (strcmp(rq->method, "DELETE") == 0)
        delete (rq, path);
    else
        refuse(rq, 405, "BAD_REQUEST", "Method %s is not allowed here", rq->method);
}

static void end(struct request *rq)
{
    struct upload *upload = rq->local;

    if (!upload)
        return;
    if (upload->name[0])
        unlinkat(self(rq)->incoming, upload->name, 0);
    if (upload->fd >= 0)
        close(upload->fd);
    free(upload);
}

static void close_service(struct service *service)
{
    struct artifacts *artifacts = service->state;

    if (artifacts->root >= 0)
        close(artifacts->root);
    if (artifacts->incoming >= 0)
        close(artifacts->incoming);
    free(artifacts->root_path);
    free(artifacts);
}

struct service *artifacts_open(const struct local_host *host, struct error *err)
{
    static const char *const prefixes[] = {"/api/2.0/mlflow-artifacts/",
                                           "/ajax-api/2.0/mlflow-artifacts/", NULL};
    struct artifacts *artifacts = mem_alloc(sizeof *artifacts);
    cleanup_free char *incoming = mem_printf("%s/mlflow/incoming", host->state);

    artifacts->service = (struct service){.name = "mlflow-artifacts",
                                          .prefixes = prefixes,
                                          .begin = begin,
                                          .data = data,
                                          .handle = handle,
                                          .end = end,
                                          .close = close_service,
                                          .state = artifacts};
    artifacts->root = artifacts->incoming = -1;
    artifacts->root_path = mem_printf("%s/mlflow/artifacts", host->state);
    if (dir_make(artifacts->root_path, err) == 0 && dir_make(incoming, err) == 0) {
        artifacts->root = open(artifacts->root_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        artifacts->incoming = open(incoming, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (artifacts->root >= 0 && artifacts->incoming >= 0)
            return &artifacts->service;
        error_errno(err, errno, "cannot open %s", artifacts->root_path);
    }
    close_service(&artifacts->service);
    return NULL;
}
