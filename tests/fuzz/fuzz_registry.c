/*
 * Requests in a row to the embedded registry, through its HTTP server over a unix socket. Blocks
 * with an empty line and the body after the first lines, which are the request's ("PUT /v2/...")
 * and those of headers; "%%%%" alone on a line ends a block. @u stands for the last Location, @s
 * and @t for the digests of the last body.
 *
 * No request is the server's fault; an answer of type JSON is JSON, a refusal says a code; what is
 * given out under a digest has it, and a range has its length; no file outside is sent or changed.
 */
#include "fuzz.h"

#include <errno.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "base/digest.h"
#include "folder.h"
#include "local/server.h"
#include "local/services.h"

#define LONGEST_LIFE 300 /* inputs that one store lasts */
#define REQUESTS_MAX 24
#define CANARY       "not of the registry"

static struct server *server;
static int connection = -1;
static unsigned runs;

struct reply {
    int status;
    struct buf head, body;
};

/* By hand and unseen: libFuzzer would learn the text from a comparison, put it into a request, and
 * meet it in the answer. */
__attribute__((no_sanitize("coverage"))) static bool has_canary(const struct buf *text)
{
    static const char canary[] = CANARY;
    size_t len = sizeof canary - 1;

    for (size_t i = 0; i + len <= text->len; i++) {
        size_t same = 0;
        while (same < len && text->data[i + same] == canary[same])
            same++;
        if (same == len)
            return true;
    }
    return false;
}

/* What a block may refer to. */
struct last {
    char location[1024];
    struct digest sha256, sha512;
};

static void start(void)
{
    cleanup_free char *state = path_join(fuzz_folder(), "state"),
                      *path = path_join(fuzz_folder(), "socket");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct local_host host = {.state = state};
    struct error err = {0};
    int fds[1] = {socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};

    check(dir_make(state, &err) == 0);
    fuzz_file("state/secret", CANARY, strlen(CANARY));
    struct service *service = registry_open(&host, &err);
    check(service && fds[0] >= 0 && strlen(path) < sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    check(bind(fds[0], (struct sockaddr *)&address, sizeof address) == 0);
    check(listen(fds[0], 8) == 0);
    server = server_start(fds, 1, &service, 1, 0, &err);
    check(server);
    runs = 0;
}

static void hang_up(void)
{
    if (connection >= 0)
        close(connection);
    connection = -1;
}

static void stop(void)
{
    cleanup_free char *state = path_join(fuzz_folder(), "state"),
                      *path = path_join(fuzz_folder(), "socket"),
                      *secret = path_join(state, "secret");
    cleanup_buf struct buf text = BUF_INIT;

    hang_up();
    server_stop(server, 1000);
    check(file_read(AT_FDCWD, secret, 100, &text, NULL) == 0);
    check(text.len == strlen(CANARY) && has_canary(&text));
    check(dir_remove(state, NULL) == 0 && unlink(path) == 0);
}

static void call(void)
{
    cleanup_free char *path = path_join(fuzz_folder(), "socket");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = 30};

    memcpy(address.sun_path, path, strlen(path) + 1);
    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(connection >= 0);
    check(connect(connection, (struct sockaddr *)&address, sizeof address) == 0);
    check(setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
}

/* The value of a header of the answer; "" when there is none. */
static const char *header(const struct reply *reply, const char *name, char *out, size_t room)
{
    size_t len = strlen(name);

    *out = '\0';
    for (const char *at = strstr(reply->head.data, "\r\n"); at && at[2];
         at = strstr(at + 2, "\r\n"))
        if (strncasecmp(at + 2, name, len) == 0 && at[2 + len] == ':') {
            const char *value = at + 3 + len + strspn(at + 3 + len, " ");
            size_t n = strcspn(value, "\r");
            check(n < room);
            memcpy(out, value, n);
            out[n] = '\0';
        }
    return out;
}

/* libFuzzer's clock is a signal, which ends a wait that has a limit. */
static ssize_t listen_for(char *piece, size_t room)
{
    ssize_t got;

    do
        got = recv(connection, piece, room, 0);
    while (got < 0 && errno == EINTR);
    return got;
}

/* One answer; false when the connection ended before it began. */
static bool receive(struct reply *reply, bool bodyless)
{
    char piece[65536], text[64];
    const char *end = NULL;

    while (!end) {
        ssize_t got = listen_for(piece, sizeof piece);
        check(got >= 0 || errno == ECONNRESET || errno == EPIPE); /* no answer is a finding */
        if (got <= 0)
            return false;
        buf_append(&reply->head, piece, (size_t)got);
        buf_append(&reply->head, "", 1);
        reply->head.len--;
        end = memmem(reply->head.data, reply->head.len, "\r\n\r\n", 4);
    }
    size_t head = (size_t)(end - reply->head.data) + 4;
    buf_append(&reply->body, reply->head.data + head, reply->head.len - head);
    reply->head.len = head - 2;
    reply->head.data[reply->head.len] = '\0';
    check(sscanf(reply->head.data, "HTTP/1.1 %d", &reply->status) == 1);
    size_t wanted = strtoull(header(reply, "Content-Length", text, sizeof text), NULL, 10);
    while (!bodyless && reply->status != 204 && reply->body.len < wanted) {
        ssize_t got = listen_for(piece, sizeof piece);
        check(got > 0);
        buf_append(&reply->body, piece, (size_t)got);
    }
    if (strcasecmp(header(reply, "Connection", text, sizeof text), "close") == 0)
        hang_up();
    return true;
}

static void look(const struct reply *reply, const char *method)
{
    char type[256], digest[256], range[256];
    struct digest sum;

    check(reply->status >= 200 && reply->status < 500);
    check(!has_canary(&reply->body));
    if (strcmp(method, "HEAD") == 0)
        return;
    header(reply, "Content-Type", type, sizeof type);
    header(reply, "Docker-Content-Digest", digest, sizeof digest);
    if (strcmp(type, "application/json") == 0) {
        cleanup_value struct value body = {0};
        check(value_from_json(reply->body.data ? reply->body.data : "", reply->body.len, "answer",
                              NULL, &body, NULL) == 0);
        const struct value *first = value_at(value_get(&body, "errors"), 0);
        check(reply->status < 400 || value_get_string(first, "code", NULL) ||
              value_get(&body, "error"));
    }
    if (strcmp(method, "GET") != 0)
        return;
    if (reply->status == 206) {
        unsigned long long from, to, size;
        check(sscanf(header(reply, "Content-Range", range, sizeof range), "bytes %llu-%llu/%llu",
                     &from, &to, &size) == 3);
        check(from <= to && to < size && reply->body.len == to - from + 1);
    } else if (reply->status == 200 && *digest) {
        check(digest_kind(digest));
        digest_bytes_of(digest_kind(digest), reply->body.data ? reply->body.data : "",
                        reply->body.len, &sum);
        check(strcmp(sum.text, digest) == 0);
    }
}

/* Text with what stands for something filled in. */
static void fill_in(const char *text, size_t len, const struct last *last, struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        char which = text[i] == '@' && i + 1 < len ? text[i + 1] : '\0';
        const char *with = which == 'u'   ? last->location
                           : which == 's' ? last->sha256.text
                           : which == 't' ? last->sha512.text
                                          : NULL;
        if (with)
            buf_append(out, with, strlen(with));
        else
            buf_append(out, text + i, 1);
        i += with != NULL;
    }
}

/* Those that cannot make the server wait for more, or go on in another way. */
static bool is_allowed(const char *line, size_t len)
{
    static const char *const names[] = {
        "Range:", "Content-Range:", "Content-Type:", "Accept:", "If-None-Match:"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (len >= strlen(names[i]) && strncasecmp(line, names[i], strlen(names[i])) == 0)
            return !memchr(line, '\0', len) && !memchr(line, '\r', len);
    return false;
}

static void request(const char *block, size_t len, struct last *last)
{
    static const char *const methods[] = {"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"};
    cleanup_buf struct buf body = BUF_INIT, line = BUF_INIT, out = BUF_INIT;
    struct reply reply = {.head = BUF_INIT, .body = BUF_INIT};
    const char *blank = memmem(block, len, "\n\n", 2), *method = NULL;
    size_t head = blank ? (size_t)(blank - block) : len;
    bool chunked = memmem(block, head, "\nchunked", 8) != NULL;
    size_t first = (const char *)memchr(block, '\n', head)
                       ? (size_t)((const char *)memchr(block, '\n', head) - block)
                       : head;

    if (blank)
        fill_in(blank + 2, len - head - 2, last, &body);
    if (body.len) {
        digest_bytes(body.data, body.len, &last->sha256);
        digest_bytes_of(DIGEST_SHA512, body.data, body.len, &last->sha512);
    }
    fill_in(block, first, last, &line);
    buf_append(&line, "", 1);
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strncmp(line.data, methods[i], strlen(methods[i])) == 0 &&
            line.data[strlen(methods[i])] == ' ')
            method = methods[i];
    /* Another line is none of HTTP: that is for the library to refuse. */
    if (!method || strlen(line.data) + 1 != line.len || line.len > 8000)
        return;
    const char *target = line.data + strlen(method) + 1;
    if (*target != '/' || strpbrk(target, " \t\r\v\f"))
        return;
    buf_printf(&out, "%s %s HTTP/1.1\r\nHost: localhost\r\n", method, target);
    for (size_t at = first; at < head;) {
        size_t from = at + 1;
        const char *next = from < head ? memchr(block + from, '\n', head - from) : NULL;
        at = next ? (size_t)(next - block) : head;
        if (at > from && at - from < 1000 && is_allowed(block + from, at - from)) {
            buf_append(&out, block + from, at - from);
            buf_append(&out, "\r\n", 2);
        }
    }
    if (chunked) {
        size_t half = body.len / 2;
        buf_printf(&out, "Transfer-Encoding: chunked\r\n\r\n");
        for (int i = 0; i < 2; i++)
            if (i ? body.len - half : half) {
                buf_printf(&out, "%zx\r\n", i ? body.len - half : half);
                buf_append(&out, body.data + (i ? half : 0), i ? body.len - half : half);
                buf_append(&out, "\r\n", 2);
            }
        buf_append(&out, "0\r\n\r\n", 5);
    } else {
        buf_printf(&out, "Content-Length: %zu\r\n\r\n", body.len);
        buf_append(&out, body.data ? body.data : "", body.len);
    }
    bool answered = false;
    for (int i = 0; i < 2 && !answered; i++) { /* the connection may have been left meanwhile */
        if (connection < 0)
            call();
        const char *at = out.data;
        for (size_t left = out.len; left;) {
            ssize_t sent = send(connection, at, left, MSG_NOSIGNAL);
            if (sent < 0 && errno == EINTR)
                continue;
            if (sent <= 0)
                break;
            at += sent;
            left -= (size_t)sent;
        }
        answered = receive(&reply, strcmp(method, "HEAD") == 0);
        if (!answered)
            hang_up();
    }
    check(answered);
    look(&reply, method);
    char location[2048];
    if (*header(&reply, "Location", location, sizeof location) &&
        strlen(location) < sizeof last->location)
        memcpy(last->location, location, strlen(location) + 1);
    buf_free(&reply.head);
    buf_free(&reply.body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char between[] = "\n%%%%\n";
    const char *at = (const char *)data, *end = at + size;
    struct last last = {.location = "/v2/a/blobs/uploads/none"};

    if (server && ++runs == LONGEST_LIFE) {
        stop();
        server = NULL;
    }
    if (!server)
        start();
    digest_bytes("", 0, &last.sha256);
    digest_bytes_of(DIGEST_SHA512, "", 0, &last.sha512);
    for (int i = 0; i < REQUESTS_MAX && at < end; i++) {
        const char *next = memmem(at, (size_t)(end - at), between, strlen(between));
        request(at, (size_t)((next ? next : end) - at), &last);
        at = next ? next + strlen(between) : end;
    }
    return 0;
}
