/*
 * A node of a graph for tests of the embedded Seldon: speaks the microservice API of Seldon Core 1
 * with one number, data.ndarray [[x]], and says on stdout what it was asked.
 *
 *   VERSION   goes into meta.tags.version of each reply
 *   ADD, MUL  predict and the transforms answer x * MUL + ADD
 *   BRANCH    what route answers
 *   DELAY_MS  before each answer
 *   CRASH     ends with this exit status at once
 *   UNREADY   /health/ping answers 503
 *   DEAD      /alive answers 500
 *   REFUSE    predict answers with this status and an error of its own
 */
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOM (1 << 20)

static atomic_int busy;
static atomic_bool over;
static int listener;

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

/* The first number behind `key`, or otherwise. */
static double number_after(const char *text, const char *key, double otherwise)
{
    const char *at = strstr(text, key);
    if (!at)
        return otherwise;
    at += strlen(key);
    at += strcspn(at, "-0123456789]}");
    return *at && !strchr("]}", *at) ? strtod(at, NULL) : otherwise;
}

static double sum_of(const char *text)
{
    double sum = 0;
    for (const char *at = text; (at = strstr(at, "\"ndarray\"")); at++)
        sum += number_after(at, "\"ndarray\"", 0);
    return sum;
}

static int reply_to(const char *method, const char *path, const char *body, char *out, size_t room)
{
    double x = number_after(body, "\"ndarray\"", 0);
    const char *version = setting("VERSION", "1");

    if (strcmp(path, "/health/ping") == 0) {
        int unready = *setting("UNREADY", "") != 0;
        snprintf(out, room, "pong");
        return unready ? 503 : 200;
    }
    if (strcmp(path, "/v2/health/ready") == 0 || strcmp(path, "/alive") == 0) {
        snprintf(out, room, "{}");
        return strcmp(path, "/alive") == 0 && *setting("DEAD", "") ? 500 : 200;
    }
    printf("%s %s %s\n", method, path, body);
    fflush(stdout);
    if (strcmp(path, "/route") == 0) {
        snprintf(out, room, "{\"data\":{\"ndarray\":[[%s]]}}", setting("BRANCH", "-1"));
    } else if (strstr(path, "/infer")) {
        snprintf(out, room,
                 "{\"model_name\":\"%s\",\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP64\","
                 "\"shape\":[1],\"data\":[%g]}]}",
                 setting("PREDICTIVE_UNIT_ID", "node"),
                 number_after(body, "\"data\"", 0) * atof(setting("MUL", "1")) +
                     atof(setting("ADD", "0")));
    } else if (strcmp(path, "/metadata") == 0) {
        snprintf(out, room,
                 "{\"name\":\"%s\",\"versions\":[\"%s\"],\"platform\":\"test\",\"inputs\":[{"
                 "\"messagetype\":\"ndarray\"}],\"outputs\":[{\"messagetype\":\"tensor\"}]}",
                 setting("PREDICTIVE_UNIT_ID", "node"), version);
    } else if (strcmp(path, "/env") == 0) {
        snprintf(out, room, "{\"secret\":\"%s\",\"config\":\"%s\",\"all\":\"%s\",\"id\":\"%s\"}",
                 setting("FROM_SECRET", ""), setting("FROM_CONFIG", ""), setting("pre_key", ""),
                 setting("PREDICTIVE_UNIT_ID", ""));
    } else if (strcmp(path, "/send-feedback") == 0 || strcmp(path, "/health/status") == 0) {
        snprintf(out, room, "{\"data\":{\"ndarray\":[]},\"meta\":{}}");
    } else if (strcmp(path, "/predict") == 0 && *setting("REFUSE", "")) {
        snprintf(out, room, "{\"status\":{\"info\":\"no such input\",\"status\":1}}");
        return atoi(setting("REFUSE", "400"));
    } else {
        double value = strcmp(path, "/aggregate") == 0
                           ? sum_of(body)
                           : x * atof(setting("MUL", "1")) + atof(setting("ADD", "0"));
        snprintf(out, room,
                 "{\"data\":{\"names\":[\"t\"],\"ndarray\":[[%g]]},\"meta\":{\"tags\":{"
                 "\"version\":\"%s\",\"%s\":true}}}",
                 value, version, setting("PREDICTIVE_UNIT_ID", "node"));
    }
    return 200;
}

static int serve_one(int fd, char *text, size_t *have)
{
    char method[16], path[256], reply[4096], out[5000];
    char *end;

    while (!(end = strstr(text, "\r\n\r\n"))) {
        ssize_t n = read(fd, text + *have, ROOM - 1 - *have);
        if (n <= 0)
            return -1;
        *have += (size_t)n;
        text[*have] = 0;
    }
    atomic_fetch_add(&busy, 1);
    size_t header = (size_t)(end + 4 - text), length = 0;
    for (char *line = strstr(text, "\r\n"); line && line < end; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, "Content-Length:", 15) == 0)
            length = strtoul(line + 17, NULL, 10);
    }
    while (*have < header + length) {
        ssize_t n = read(fd, text + *have, ROOM - 1 - *have);
        if (n <= 0)
            break;
        *have += (size_t)n;
    }
    text[*have] = 0;
    sscanf(text, "%15s %255[^ ?]", method, path);
    int delay = atoi(setting("DELAY_MS", "0"));
    if (delay && strcmp(path, "/health/ping") != 0)
        usleep((unsigned)delay * 1000);
    int status = reply_to(method, path, text + header, reply, sizeof reply);
    int n = snprintf(out, sizeof out,
                     "HTTP/1.1 %d X\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\n\r\n%s",
                     status, strlen(reply), reply);
    int failed = write(fd, out, (size_t)n) < 0;
    atomic_fetch_sub(&busy, 1);
    memmove(text, text + header + length, *have - header - length);
    *have -= header + length;
    text[*have] = 0;
    return failed ? -1 : 0;
}

static void *serve(void *ctx)
{
    int fd = (int)(long)ctx;
    char *text = calloc(1, ROOM);
    size_t have = 0;

    while (!atomic_load(&over) && serve_one(fd, text, &have) == 0)
        continue;
    close(fd);
    free(text);
    return NULL;
}

static void end(int signo)
{
    (void)signo;
    atomic_store(&over, 1);
    shutdown(listener, SHUT_RDWR); /* whichever thread got the signal: accept ends */
}

int main(void)
{
    const char *crash = setting("CRASH", "");
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct sigaction action = {.sa_handler = end};
    int one = 1;

    if (*crash) {
        printf("cannot load the model\n");
        return atoi(crash);
    }
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    address.sin_port =
        htons((unsigned short)atoi(setting("PREDICTIVE_UNIT_HTTP_SERVICE_PORT", "9000")));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, 128) < 0) {
        perror("listen");
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    while (!atomic_load(&over)) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;
        if (fd >= 0 && pthread_create(&thread, NULL, serve, (void *)(long)fd) == 0)
            pthread_detach(thread);
    }
    close(listener);
    while (atomic_load(&busy))
        usleep(1000);
    return 0;
}
