/*
 * mlhost model: a model that is written in Lua, behind Seldon's microservice API and the Open
 * Inference Protocol.
 *
 * This process serves nothing: it holds the listening sockets, starts the workers (a broker with
 * the HTTP side, and its sealed VM), replaces those that end, and drains them all at SIGTERM.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/size.h"
#include "base/module.h"
#include "cmd/cmd.h"
#include "model/model.h"
#include "run/text.h"
#include "run/worker.h"

#define WORKERS_MAX  64
#define WORKERS_AUTO 4
#define QUEUE        256
#define BACKOFF_MIN  (100 * NS_PER_MS)
#define BACKOFF_MAX  (30 * NS_PER_S)
#define STEADY       (60 * NS_PER_S)
#define LOAD_NS      (60 * NS_PER_S)
#define METADATA_MAX (1u << 20)

static const char help[] =
    "usage: mlhost model FILE.lua [options]\n"
    "\n"
    "Serves a model that is written in Lua: Seldon's microservice API (/predict, "
    "/api/v1.0/predictions,\n"
    "/transform-input, /route, /aggregate, /send-feedback, /metadata ...) and the Open Inference "
    "Protocol\n"
    "(/v2/models/NAME/infer ...), with Prometheus metrics. The script runs in the sandbox, in "
    "several workers;\n"
    "SIGTERM lets requests in hand end. `model` in docs/api.md says what the file holds.\n"
    "\n"
    "options:\n"
    "  --host ADDRESS         to listen on (default: 127.0.0.1; 0.0.0.0 in a Seldon pod; "
    "MLHOST_MODEL_HOST)\n"
    "  --port, -p N           0: any free one (default: PREDICTIVE_UNIT_HTTP_SERVICE_PORT, else "
    "9000)\n"
    "  --metrics-port N       another port for /metrics (default: "
    "PREDICTIVE_UNIT_METRICS_SERVICE_PORT, else none)\n"
    "  --workers, -w N        processes (default: the processors, at most 4)\n"
    "  --name NAME            of the model in /v2 paths (default: PREDICTIVE_UNIT_ID, else the "
    "file's)\n"
    "  --parameter NAME=VALUE of the model; may be repeated. Also PREDICTIVE_UNIT_PARAMETERS\n"
    "  --timeout DURATION     for one request; a worker that takes longer is replaced (default: "
    "30s)\n"
    "  --drain DURATION       for requests in hand at the end (default: 20s)\n"
    "  --body-limit SIZE      of a request: 512k, 16m (default: 16m)\n"
    "  --memory SIZE          of each worker's Lua heap (default: 1g)\n"
    "  --verbose, -v          a line per request on stderr\n"
    "\n"
    "exit codes: 0 ended by a signal, 1 the model cannot be loaded or served, 2 usage\n"
    "\n"
    "example:\n"
    "  mlhost model pipelines/serving/model.lua --port 9000\n"
    "  curl -s localhost:9000/api/v1.0/predictions -H 'Content-Type: application/json' \\\n"
    "       -d '{\"data\": {\"ndarray\": [[1, 2]]}}'\n";

static int run(int argc, char **argv);
const struct command cmd_model = {
    .name = "model",
    .summary = "serve a model that is written in Lua",
    .help = help,
    .run = run,
};

struct words {
    const char *host, *port, *metrics_port, *workers, *name, *timeout, *drain, *body_limit, *memory;
    struct option_list parameters;
    bool verbose;
};

struct server;
struct slot {
    struct server *server;
    struct worker *worker;
    struct loop_watch *backoff;
    int64_t started, delay;
    bool serving;
};

struct server {
    struct config config;
    struct loop *loop;
    char *script, *name, *address;
    struct value declaration, context;
    struct model_serving serving;
    struct slot slots[WORKERS_MAX];
    int workers, port;
    uint64_t memory;
    bool announced, ending;
    struct error failure; /* the model could not be loaded even once */
};

/* ---- what was asked for ---- */

static const char *variable(const char *name)
{
    const char *text = getenv(name);

    return text && *text ? text : NULL;
}

static int size_option(const char *option, const char *text, uint64_t *out, struct error *err)
{
    return size_parse(text, out, err) < 0 ? error_wrap(err, "%s", option) : 0;
}

static int number_parse(const char *option, const char *text, long least, long most, int *out,
                        struct error *err)
{
    char *end = NULL;
    long n = strtol(text, &end, 10);

    if (end == text || *end || n < least || n > most)
        return error_set(err, ERR_USAGE, "%s: a number from %ld to %ld is needed, not '%s'", option,
                         least, most, text);
    *out = (int)n;
    return 0;
}

/* A parameter's text by its type, as Seldon's: STRING INT FLOAT DOUBLE BOOL. */
static int put_parameter(struct value *map, const char *name, const char *type, const char *text,
                         struct error *err)
{
    char *end = NULL;

    errno = 0;
    if (strcmp(type, "STRING") == 0) {
        value_put_string(map, name, text);
        return 0;
    }
    if (strcmp(type, "INT") == 0) {
        int64_t n = strtoll(text, &end, 10);
        if (end != text && !*end && !errno) {
            value_put_int(map, name, n);
            return 0;
        }
    } else if (strcmp(type, "FLOAT") == 0 || strcmp(type, "DOUBLE") == 0) {
        double n = strtod(text, &end);
        if (end != text && !*end) {
            value_set_real(value_put(map, name), n);
            return 0;
        }
    } else if (strcmp(type, "BOOL") == 0) {
        bool yes = strcasecmp(text, "true") == 0 || strcmp(text, "1") == 0;
        if (yes || strcasecmp(text, "false") == 0 || strcmp(text, "0") == 0) {
            value_put_bool(map, name, yes);
            return 0;
        }
    } else {
        return error_set(err, ERR_USAGE,
                         "parameter '%s' has the unknown type '%s'; there are STRING INT FLOAT "
                         "DOUBLE BOOL",
                         name, type);
    }
    return error_set(err, ERR_USAGE, "parameter '%s': '%s' is no %s", name, text, type);
}

static int parameters(const struct words *words, struct value *out, struct error *err)
{
    const char *json = variable("PREDICTIVE_UNIT_PARAMETERS");
    cleanup_value struct value list = {0};

    value_set_map(out);
    if (json &&
        value_from_json(json, strlen(json), "PREDICTIVE_UNIT_PARAMETERS", NULL, &list, err) < 0)
        return -1;
    for (size_t i = 0; i < value_count(&list); i++) {
        const struct value *one = value_at(&list, i), *v = value_get(one, "value");
        cleanup_buf struct buf text = BUF_INIT;
        if (v && v->kind != VALUE_STRING)
            value_to_json(v, 0, &text);
        if (put_parameter(out, value_get_string(one, "name", ""),
                          value_get_string(one, "type", "STRING"),
                          text.len ? text.data : value_text(v, ""), err) < 0)
            return -1;
    }
    for (int i = 0; i < words->parameters.count; i++) {
        const char *word = words->parameters.items[i], *equals = strchr(word, '=');
        if (!equals || equals == word)
            return error_set(err, ERR_USAGE, "--parameter needs NAME=VALUE, not '%s'", word);
        cleanup_free char *name = mem_strndup(word, (size_t)(equals - word));
        value_put_string(out, name, equals + 1);
    }
    return 0;
}

/* MODEL_METADATA: what the operator says of the model, in YAML or JSON. */
static int metadata(struct value *out, struct error *err)
{
    const char *text = variable("MODEL_METADATA");

    if (!text)
        return 0;
    if (strlen(text) > METADATA_MAX)
        return error_set(err, ERR_TOO_LARGE, "MODEL_METADATA is larger than 1 MiB");
    return value_from_yaml(text, strlen(text), "MODEL_METADATA", NULL, false,
                           value_put(out, "metadata"), err);
}

static int processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;

    return n > WORKERS_AUTO ? WORKERS_AUTO : n;
}

static int settings(struct server *s, const struct words *words, struct error *err)
{
    const char *port = words->port ? words->port
                       : variable("PREDICTIVE_UNIT_HTTP_SERVICE_PORT")
                           ? variable("PREDICTIVE_UNIT_HTTP_SERVICE_PORT")
                       : variable("PREDICTIVE_UNIT_SERVICE_PORT")
                           ? variable("PREDICTIVE_UNIT_SERVICE_PORT")
                           : "9000";
    const char *name = words->name ? words->name : variable("PREDICTIVE_UNIT_ID");
    const char *host = words->host                      ? words->host
                       : variable("MLHOST_MODEL_HOST")  ? variable("MLHOST_MODEL_HOST")
                       : variable("PREDICTIVE_UNIT_ID") ? "0.0.0.0"
                                                        : "127.0.0.1";
    uint64_t body = 16u << 20;

    s->memory = 1u << 30;
    s->workers = processors();
    s->address = mem_strdup(host);
    s->serving = (struct model_serving){.listen_fd = -1,
                                        .metrics_fd = -1,
                                        .timeout_ns = 30 * NS_PER_S,
                                        .drain_ns = 20 * NS_PER_S,
                                        .queue = QUEUE,
                                        .verbose = words->verbose};
    value_set_map(&s->context);
    if (number_parse("--port", port, 0, 65535, &s->port, err) < 0 ||
        (words->workers &&
         number_parse("--workers", words->workers, 1, WORKERS_MAX, &s->workers, err) < 0) ||
        (words->timeout && duration_parse(words->timeout, &s->serving.timeout_ns, err) < 0) ||
        (words->drain && duration_parse(words->drain, &s->serving.drain_ns, err) < 0) ||
        (words->body_limit && size_option("--body-limit", words->body_limit, &body, err) < 0) ||
        (words->memory && size_option("--memory", words->memory, &s->memory, err) < 0) ||
        parameters(words, value_put(&s->context, "parameters"), err) < 0 ||
        metadata(&s->context, err) < 0)
        return -1;
    s->serving.body_limit = (size_t)body;
    s->name = mem_strdup(name);
    value_put_string(&s->context, "image", variable("PREDICTIVE_UNIT_IMAGE"));
    value_put_string(&s->context, "program", mlhost_version);
    return 0;
}

/* ---- sockets ---- */

/* High numbers: the brokers put them in places of their own. */
static int listen_at(const char *address, int *port, struct error *err)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
    cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof to;
    int one = 1;

    if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
        return error_set(err, ERR_USAGE, "--host: '%s' is not an IPv4 address", address);
    if (fd < 0)
        return error_errno(err, errno, "socket");
    if (*port)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&to, sizeof to) < 0 || listen(fd, SOMAXCONN) < 0) {
        int why = errno;
        error_errno(err, why, "cannot listen on %s:%d", address, *port);
        return why == EADDRINUSE ? error_hint(err, "--port 0 takes any free one") : -1;
    }
    if (getsockname(fd, (struct sockaddr *)&to, &len) < 0)
        return error_errno(err, errno, "getsockname");
    *port = ntohs(to.sin_port);
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 64);
    return high < 0 ? error_errno(err, errno, "a descriptor for the socket") : high;
}

static int open_sockets(struct server *s, const struct words *words, struct error *err)
{
    const char *metrics = words->metrics_port ? words->metrics_port
                                              : variable("PREDICTIVE_UNIT_METRICS_SERVICE_PORT");
    int port = 0;

    s->serving.listen_fd = listen_at(s->address, &s->port, err);
    if (s->serving.listen_fd < 0)
        return -1;
    if (!metrics)
        return 0;
    if (number_parse("--metrics-port", metrics, 0, 65535, &port, err) < 0)
        return -1;
    s->serving.metrics_fd = listen_at(s->address, &port, err);
    return s->serving.metrics_fd < 0 ? error_wrap(err, "the port for metrics") : 0;
}

/* Written by all workers, read by whichever is asked for it. */
static struct model_metrics *shared_metrics(struct error *err)
{
    void *page = mmap(NULL, sizeof(struct model_metrics), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED) {
        error_errno(err, errno, "memory for the metrics");
        return NULL;
    }
    return page;
}

/* ---- workers ---- */

static int start_worker(struct slot *slot, struct error *err);

static int alive(const struct server *s)
{
    int n = 0;

    for (int i = 0; i < s->workers; i++)
        n += s->slots[i].worker != NULL;
    return n;
}

static void announce(struct server *s)
{
    int serving = 0;

    for (int i = 0; i < s->workers; i++)
        serving += s->slots[i].serving;
    if (s->announced || serving < s->workers)
        return;
    s->announced = true;
    printf("mlhost: model %s ready on http://%s:%d (%d worker%s)\n", s->name,
           strcmp(s->address, "0.0.0.0") == 0 ? "127.0.0.1" : s->address, s->port, s->workers,
           s->workers == 1 ? "" : "s");
    fflush(stdout);
}

static void on_event(void *ctx, struct value *event)
{
    struct slot *slot = ctx;
    const char *t = value_get_string(event, "t", "");
    const char *level = value_get_string(event, "level", "info");

    if (strcmp(t, "serving") == 0) {
        slot->serving = true;
        announce(slot->server);
    } else if (strcmp(t, "output") == 0) {
        text_print(stdout, value_get_string(event, "text", ""));
        fputs("\n", stdout);
        fflush(stdout);
    } else if (strcmp(t, "log") == 0 && strcmp(level, "debug") != 0) {
        fprintf(stderr, "%s: ", level);
        text_print(stderr, value_get_string(event, "text", ""));
        fputs("\n", stderr);
    } else if (strcmp(t, "ask") == 0) {
        struct value frame = {0};
        worker_answer(&slot->server->config, event, &frame);
        worker_send(slot->worker, &frame);
        value_free(&frame);
    }
}

static void end_all(struct server *s)
{
    s->ending = true;
    for (int i = 0; i < s->workers; i++) {
        loop_end(s->slots[i].backoff);
        s->slots[i].backoff = NULL;
        if (s->slots[i].worker)
            worker_cancel(s->slots[i].worker, false);
    }
    if (!alive(s))
        loop_stop(s->loop);
}

static void on_backoff(void *ctx)
{
    struct slot *slot = ctx;
    struct error err = {0};

    loop_end(slot->backoff);
    slot->backoff = NULL;
    if (start_worker(slot, &err) < 0) {
        slot->server->failure = err;
        end_all(slot->server);
    }
}

static void on_end(void *ctx, struct worker_result *result)
{
    struct slot *slot = ctx;
    struct server *s = slot->server;
    struct error why = {0};

    slot->worker = NULL;
    if (s->ending) {
        if (!alive(s))
            loop_stop(s->loop);
        return;
    }
    if (result->ok)
        error_set(&why, ERR_CRASHED, "a worker ended");
    else
        error_from_value(&result->error, &why);
    if (!slot->serving && !s->announced) { /* what failed to load will fail again */
        s->failure = why;
        end_all(s);
        return;
    }
    fputs("warning: a worker is replaced: ", stderr);
    text_print(stderr, why.message);
    fputs("\n", stderr);
    atomic_fetch_add(&s->serving.metrics->restarts, 1);
    slot->delay = clock_now() - slot->started > STEADY || !slot->delay ? BACKOFF_MIN
                  : slot->delay * 2 > BACKOFF_MAX                      ? BACKOFF_MAX
                                                                       : slot->delay * 2;
    slot->serving = false;
    slot->backoff = loop_timer(s->loop, deadline_in(slot->delay), on_backoff, slot);
}

static int start_worker(struct slot *slot, struct error *err)
{
    struct server *s = slot->server;
    struct worker_handler handler = {.event = on_event, .end = on_end, .ctx = slot};
    struct broker_spec spec = {.config = &s->config,
                               .mode = "model",
                               .script = s->script,
                               .run_id = "model",
                               .memory_limit = s->memory,
                               .grace_ns = s->serving.drain_ns + NS_PER_S,
                               .model = &s->serving};
    const struct value *asked = value_get(&s->declaration, "permissions");

    value_copy(&spec.context, &s->context);
    if (asked && asked->kind == VALUE_MAP)
        value_copy(&spec.permissions, asked);
    else
        value_set_map(&spec.permissions);
    slot->started = clock_now();
    fflush(stdout);
    slot->worker = worker_start(s->loop, &spec, &handler, err);
    value_free(&spec.context);
    value_free(&spec.permissions);
    return slot->worker ? 0 : -1;
}

static int declare(struct server *s, struct error *err)
{
    struct broker_spec spec = {.config = &s->config,
                               .mode = "model",
                               .script = s->script,
                               .run_id = "model",
                               .memory_limit = s->memory,
                               .timeout_ns = LOAD_NS};

    value_set_map(&spec.context);
    value_put_string(&spec.context, "phase", "declare");
    value_set_map(&spec.permissions);
    int rc = worker_ask(s->loop, &spec, NULL, NULL, &s->declaration, err);
    value_free(&spec.context);
    value_free(&spec.permissions);
    if (rc == 0 && !s->name)
        s->name = mem_strdup(value_get_string(&s->declaration, "name", "model"));
    return rc;
}

static void on_signal(void *ctx)
{
    struct server *s = ctx;

    if (s->ending) { /* the second one does not wait */
        for (int i = 0; i < s->workers; i++) {
            if (s->slots[i].worker)
                worker_kill(s->slots[i].worker);
        }
        return;
    }
    end_all(s);
}

static int serve(struct server *s, const struct words *words, const char *file, struct error *err)
{
    if (config_load(NULL, NULL, &s->config, err) < 0 || settings(s, words, err) < 0)
        return -1;
    s->script = realpath(file, NULL);
    if (!s->script)
        return error_set(err, ERR_USAGE, "%s: %s", file, strerror(errno));
    s->loop = loop_new(err);
    if (!s->loop || declare(s, err) < 0 || open_sockets(s, words, err) < 0)
        return -1;
    value_put_string(&s->context, "name", s->name);
    s->serving.name = s->name;
    s->serving.metrics = shared_metrics(err);
    if (!s->serving.metrics)
        return -1;
    loop_signal(s->loop, SIGTERM, on_signal, s);
    loop_signal(s->loop, SIGINT, on_signal, s);
    for (int i = 0; i < s->workers; i++) {
        s->slots[i].server = s;
        if (start_worker(&s->slots[i], err) < 0)
            return -1;
    }
    if (loop_run(s->loop, err) < 0)
        return -1;
    if (s->failure.code != ERR_NONE) {
        *err = s->failure;
        return -1;
    }
    return 0;
}

static int run(int argc, char **argv)
{
    struct words w = {0};
    const struct option_spec options[] = {
        {"host", OPTION_TEXT, &w.host},
        {"port,p", OPTION_TEXT, &w.port},
        {"metrics-port", OPTION_TEXT, &w.metrics_port},
        {"workers,w", OPTION_TEXT, &w.workers},
        {"name", OPTION_TEXT, &w.name},
        {"parameter", OPTION_REPEAT, &w.parameters},
        {"timeout", OPTION_TEXT, &w.timeout},
        {"drain", OPTION_TEXT, &w.drain},
        {"body-limit", OPTION_TEXT, &w.body_limit},
        {"memory", OPTION_TEXT, &w.memory},
        {"verbose,v", OPTION_FLAG, &w.verbose},
        {NULL, OPTION_FLAG, NULL},
    };
    struct server s = {0};
    struct error err = {0};
    int count = options_parse(&cmd_model, options, argc, argv);

    if (count < 0)
        return count == -2 ? 0 : 2;
    if (count != 2) {
        fputs(help, stderr);
        return 2;
    }
    int rc = serve(&s, &w, argv[1], &err);
    value_free(&s.declaration);
    value_free(&s.context);
    if (s.loop) {
        worker_settle(s.loop);
        loop_free(s.loop);
    }
    config_free(&s.config);
    free(s.script);
    free(s.name);
    free(s.address);
    free((void *)w.parameters.items);
    if (rc == 0)
        return 0;
    int code = command_fail(&err);
    return code == 2 ? 2 : 1;
}
