/* Requests and answers; the threads and sockets are in server.c. */
#include "local/router.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <microhttpd.h>

#include "base/mem.h"

const char *request_header(const struct request *rq, const char *name)
{
    return MHD_lookup_connection_value(rq->connection, MHD_HEADER_KIND, name);
}

const char *request_query_next(const struct request *rq, const char *name, size_t skip)
{
    for (size_t i = 0; i < rq->field_count; i++) {
        if (strcmp(rq->fields[i].name, name) == 0 && skip-- == 0)
            return rq->fields[i].value;
    }
    return NULL;
}

const char *request_query(const struct request *rq, const char *name)
{
    return request_query_next(rq, name, 0);
}

int64_t request_query_int(const struct request *rq, const char *name, int64_t otherwise,
                          int64_t max)
{
    const char *text = request_query(rq, name);
    int64_t n = 0;

    if (!text)
        return otherwise;
    if (!*text)
        return -1;
    for (; *text; text++) {
        if (!isdigit((unsigned char)*text) || n > (INT64_MAX - 9) / 10)
            return -1;
        n = n * 10 + (*text - '0');
    }
    return n <= max ? n : -1;
}

bool request_answered(const struct request *rq)
{
    return rq->response != NULL;
}

void answer_header(struct request *rq, const char *name, const char *value)
{
    if (rq->response) {
        MHD_add_response_header(rq->response, name, value);
        return;
    }
    rq->answers = mem_array(rq->answers, rq->answer_count + 1, sizeof *rq->answers);
    rq->answers[rq->answer_count++] =
        (struct request_field){.name = mem_strdup(name), .value = mem_strdup(value)};
}

void answer_headerf(struct request *rq, const char *name, const char *format, ...)
{
    cleanup_buf struct buf text = BUF_INIT;
    va_list args;

    va_start(args, format);
    buf_vprintf(&text, format, args);
    va_end(args);
    answer_header(rq, name, text.data ? text.data : "");
}

/* The first answer stays. MHD refuses header values with line breaks: such a header is left out. */
static void settle(struct request *rq, int status, const char *type, struct MHD_Response *response)
{
    if (!response)
        return;
    if (rq->response) {
        MHD_destroy_response(response);
        return;
    }
    for (size_t i = 0; i < rq->answer_count; i++)
        MHD_add_response_header(response, rq->answers[i].name, rq->answers[i].value);
    if (type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    rq->response = response;
    rq->status = status;
}

void answer(struct request *rq, int status, const char *type, const void *data, size_t len)
{
    settle(rq, status, type,
           MHD_create_response_from_buffer(len, (void *)data, MHD_RESPMEM_MUST_COPY));
}

void answer_take(struct request *rq, int status, const char *type, char *data, size_t len)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE);

    if (!response)
        free(data);
    settle(rq, status, type, response);
}

void answer_text(struct request *rq, int status, const char *text)
{
    answer(rq, status, "text/plain; charset=utf-8", text, strlen(text));
}

void answer_json(struct request *rq, int status, const struct value *v)
{
    struct buf text = BUF_INIT;

    value_to_json(v, 0, &text);
    size_t len = text.len;
    answer_take(rq, status, "application/json", buf_steal(&text), len);
}

void answer_file(struct request *rq, int status, const char *type, int fd, uint64_t offset,
                 uint64_t len)
{
    if (len == 0) { /* MHD takes no empty range of a file */
        close(fd);
        answer(rq, status, type, "", 0);
        return;
    }
    struct MHD_Response *response = MHD_create_response_from_fd_at_offset64(len, fd, offset);
    if (!response)
        close(fd);
    settle(rq, status, type, response);
}

struct stream {
    ssize_t (*read)(void *context, char *to, size_t max);
    void (*done)(void *context);
    void *context;
};

static ssize_t stream_read(void *cls, uint64_t position, char *to, size_t max)
{
    const struct stream *stream = cls;

    (void)position;
    ssize_t n = stream->read(stream->context, to, max);
    return n > 0    ? n
           : n == 0 ? MHD_CONTENT_READER_END_OF_STREAM
                    : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void stream_done(void *cls)
{
    struct stream *stream = cls;

    if (stream->done)
        stream->done(stream->context);
    free(stream);
}

void answer_stream(struct request *rq, int status, const char *type,
                   ssize_t (*read)(void *context, char *to, size_t max),
                   void (*done)(void *context), void *context)
{
    struct stream *stream = mem_alloc(sizeof *stream);
    *stream = (struct stream){read, done, context};
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, 64 * 1024, stream_read, stream, stream_done);

    if (!response)
        stream_done(stream);
    settle(rq, status, type, response);
}

int error_http_status(enum error_code code)
{
    switch (code) {
    case ERR_NONE:
        return 200;
    case ERR_USAGE:
    case ERR_INVALID:
    case ERR_DIGEST:
        return 400;
    case ERR_UNAUTHORIZED:
        return 401;
    case ERR_DENIED:
    case ERR_FORBIDDEN:
        return 403;
    case ERR_NOT_FOUND:
        return 404;
    case ERR_EXISTS:
    case ERR_CONFLICT:
        return 409;
    case ERR_TOO_LARGE:
        return 413;
    case ERR_RATE_LIMITED:
        return 429;
    case ERR_UNSUPPORTED:
        return 501;
    case ERR_UNAVAILABLE:
        return 503;
    case ERR_TIMEOUT:
        return 504;
    default:
        return 500;
    }
}

void answer_error(struct request *rq, int status, const struct error *err)
{
    cleanup_value struct value body = {0};

    value_set_map(&body);
    struct value *error = value_put(&body, "error");
    value_set_map(error);
    value_put_string(error, "code", error_code_name(err->code));
    value_put_string(error, "message", err->message);
    if (err->hint[0])
        value_put_string(error, "hint", err->hint);
    answer_json(rq, status, &body);
}

bool path_is_plain(const char *path)
{
    size_t len = strlen(path);

    if (len == 0 || len > 4096 || strchr(path, '\\'))
        return false;
    for (const char *part = path;; part++) {
        size_t n = strcspn(part, "/");
        if (n == 0 || n > 255 || (n == 1 && part[0] == '.') ||
            (n == 2 && part[0] == '.' && part[1] == '.'))
            return false;
        for (size_t i = 0; i < n; i++) {
            if ((unsigned char)part[i] < 0x20 || part[i] == 0x7f)
                return false;
        }
        part += n;
        if (!*part)
            return true;
    }
}
