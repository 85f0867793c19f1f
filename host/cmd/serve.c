/* mlhost serve: the embedded services on a loopback port, in the foreground or as the workspace's
 * daemon. The serving itself is in the serve module, the daemon's life in host/run/daemon.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/module.h"
#include "cmd/cmd.h"
#include "cmd/deployments.h"
#include "local/serve.h"
#include "run/daemon.h"

#define START_NS   (30 * NS_PER_S)
#define STOP_NS    (45 * NS_PER_S) /* models drain */
#define NOT_SERVED 3               /* exit status of --status */

static const char help[] =
    "usage: mlhost serve [options]\n"
    "       mlhost serve --background | --status [--json] | --stop\n"
    "\n"
    "Serves the embedded registry, MLflow, Kubeflow Pipelines and Seldon (a Kubernetes API with an "
    "ingress) on a\n"
    "loopback port, on the files of the workspace's .mlhost/local folder, until SIGTERM or Ctrl-C. "
    "Official clients\n"
    "work against it. Models are deployed for as long as it serves, and deployed again when it "
    "starts again.\n"
    "\n"
    "A workspace has one such process at most. A run that deploys something starts it in the "
    "background.\n"
    "\n"
    "options:\n"
    "  --port N         the port of 127.0.0.1 to listen on; 0: any free one (default: 5000; in "
    "the background the\n"
    "                   last one, so that addresses stay)\n"
    "  --background     start it detached, and return once it serves; a process that dies is "
    "started anew\n"
    "  --status         where it serves, since when, and what is deployed; --json for programs\n"
    "  --stop           end it, with all models\n"
    "  --workspace DIR  whose services (default: the folder upwards that holds mlhost.yaml or "
    ".git)\n"
    "  --profile NAME   the profile of mlhost.yaml to be active\n"
    "  --verbose        one line per request on stderr\n"
    "\n"
    "exit codes: 0 done, 1 cannot serve, 2 usage or mlhost.yaml, 3 (--status) not running\n"
    "\n"
    "example:\n"
    "  mlhost serve --port 5000\n"
    "  MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python3 train.py\n"
    "  skopeo copy --dest-tls-verify=false oci:image docker://127.0.0.1:5000/name:tag\n"
    "  kubectl --server http://127.0.0.1:5000 get seldondeployments --all-namespaces\n";

static int run(int argc, char **argv);
const struct command cmd_serve = {
    .name = "serve",
    .summary = "offer the embedded services on a loopback port",
    .help = help,
    .run = run,
};

struct words {
    const char *port, *workspace, *profile;
    bool verbose, background, status, stop, json, supervised;
};

static void print_places(const char *url, const char *state, bool durable)
{
    printf("mlhost: serving %s\n"
           "  registry   %s/v2/\n"
           "  mlflow     MLFLOW_TRACKING_URI=%s\n"
           "  kubeflow   %s/apis/v2beta1/\n",
           url, url, url, url);
    if (durable)
        printf("  seldon     %s/seldon/NAMESPACE/NAME/, kubectl --server %s\n", url, url);
    printf("  files      %s/local\n", state);
    fflush(stdout);
}

/* Waits for the server's line on the pipe, then tells the user, and others where the daemon is. A
 * child, so that the server starts no thread early. */
static void announce(int ready, const struct config *config, int lock, const char *socket)
{
    char url[128];
    size_t len = 0;
    ssize_t n;
    struct error err = {0};

    while (len < sizeof url - 1 && (n = read(ready, url + len, sizeof url - 1 - len)) != 0) {
        if (n < 0 && errno != EINTR)
            break;
        len += n > 0 ? (size_t)n : 0;
    }
    url[len] = '\0';
    url[strcspn(url, "\n")] = '\0';
    if (!*url)
        return;
    if (lock >= 0 && daemon_record(config, lock, getppid(), url, socket, &err) < 0)
        (void)command_fail(&err);
    print_places(url, config->state, lock >= 0);
}

/* ---- in the foreground ---- */

static int serve_here(const struct serve_spec *spec, int lock, const char *socket,
                      struct error *err)
{
    int (*serve_main)(const struct serve_spec *, struct error *);
    struct serve_spec own = *spec;
    int ready[2];
    /* A function and an object pointer have one form wherever dlsym exists. */
    void *symbol = module_symbol(MODULE_SERVE, "mlh_serve_main", err);

    if (!symbol)
        return -1;
    memcpy(&serve_main, &symbol, sizeof serve_main);
    if (pipe2(ready, O_CLOEXEC) < 0)
        return error_errno(err, errno, "cannot make a pipe");
    fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        return error_errno(err, errno, "cannot make a process");
    if (child == 0) {
        close(ready[1]);
        announce(ready[0], spec->config, lock, socket);
        _exit(0);
    }
    close(ready[0]);
    own.ready_fd = ready[1];
    int status = serve_main(&own, err);
    if (status < 0)
        close(ready[1]);
    waitpid(child, NULL, 0);
    return status;
}

static int serve_or_rest(const struct config *config, struct serve_spec *spec, struct error *err)
{
    struct error busy = {0};
    cleanup_free char *socket = NULL;
    cleanup_close int lock = daemon_lock(config, &busy);
    int status;

    if (lock < 0 && busy.code != ERR_EXISTS) {
        *err = busy;
        return -1;
    }
    if (lock >= 0) {
        spec->durable = true;
        spec->unix_fd = daemon_listen(config, &socket, err);
        if (spec->unix_fd < 0)
            return -1;
        status = serve_here(spec, lock, socket, err);
        (void)unlink(socket);
        return status;
    }
    cleanup_daemon struct daemon daemon;
    daemon_look(config, &daemon);
    spec->elsewhere = daemon.url ? daemon.url : "another address";
    fprintf(stderr,
            "mlhost serve: Seldon and its Kubernetes API are served at %s already (process %d); "
            "this serves the rest\n",
            spec->elsewhere, (int)daemon.pid);
    return serve_here(spec, -1, NULL, err);
}

/* SIGTERM and Ctrl-C wait until the server hears them, so that no socket stays behind. */
static int foreground(const struct config *config, int port, bool verbose, struct error *err)
{
    struct serve_spec spec = {
        .config = config, .unix_fd = -1, .tcp_fd = -1, .port = port, .quiet = !verbose};
    sigset_t ends, before;

    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, &before);
    int status = serve_or_rest(config, &spec, err);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return status;
}

/* ---- in the background ---- */

static int background(const struct config *config, int port, struct error *err)
{
    cleanup_daemon struct daemon daemon;
    int ready;

    daemon_look(config, &daemon);
    if (daemon.running) {
        printf("mlhost: it runs already (process %d)\n", (int)daemon.pid);
        if (daemon.version && strcmp(daemon.version, mlhost_version) != 0)
            fprintf(stderr,
                    "mlhost serve: it is mlhost %s, this is %s\n"
                    "  hint: mlhost serve --stop, then start it anew\n",
                    daemon.version, mlhost_version);
    } else {
        if (daemon_start(config, port, &ready, err) < 0 ||
            daemon_started(ready, deadline_in(START_NS), err) < 0)
            return -1;
        daemon_free(&daemon);
        daemon_look(config, &daemon);
    }
    print_places(daemon.url ? daemon.url : "?", config->state, true);
    return 0;
}

static int status(const struct config *config, bool json)
{
    cleanup_daemon struct daemon daemon;
    cleanup_value struct value doc = {0};
    cleanup_buf struct buf text = BUF_INIT;

    daemon_look(config, &daemon);
    value_set_map(&doc);
    value_put_bool(&doc, "running", daemon.running);
    if (daemon.running) {
        value_put_int(&doc, "pid", daemon.pid);
        value_put_string(&doc, "url", daemon.url);
        value_put_string(&doc, "socket", daemon.socket);
        value_put_string(&doc, "version", daemon.version);
        value_put_int(&doc, "started_ms", daemon.started_ms);
        value_put_int(&doc, "uptime_ms", clock_wall_ms() - daemon.started_ms);
    }
    deployments_read(config, value_put(&doc, "deployments"));
    if (json) {
        value_to_json(&doc, TEXT_PRETTY, &text);
        puts(text.data);
    } else if (daemon.running) {
        cleanup_buf struct buf uptime = BUF_INIT;
        duration_print(value_get_int(&doc, "uptime_ms", 0) / 1000 * NS_PER_S, &uptime);
        printf("process %d, up %s, mlhost %s\n", (int)daemon.pid, uptime.data,
               daemon.version ? daemon.version : "?");
        print_places(daemon.url ? daemon.url : "?", config->state, true);
        deployments_print(value_get(&doc, "deployments"), daemon.url, &text);
        fputs(text.len ? text.data : "", stdout);
    } else {
        printf("not running%s\n", value_count(value_get(&doc, "deployments"))
                                      ? "; mlhost serve --background brings what was deployed back"
                                      : "");
    }
    return daemon.running ? 0 : NOT_SERVED;
}

static int stop(const struct config *config, struct error *err)
{
    cleanup_daemon struct daemon daemon;

    daemon_look(config, &daemon);
    int stopped = daemon_stop(config, deadline_in(STOP_NS), err);
    if (stopped > 0)
        printf("%s process %d; what is deployed comes back with the next start\n",
               stopped == 2 ? "killed, since it did not end," : "stopped", (int)daemon.pid);
    else if (stopped == 0)
        puts("not running");
    return stopped < 0 ? -1 : 0;
}

static int usage(const char *text)
{
    fprintf(stderr, "mlhost serve: %s\n  hint: mlhost serve --help\n", text);
    return 2;
}

static int act(const struct config *config, const struct words *words, int port)
{
    struct error err = {0};
    int rc;

    if (words->supervised)
        return daemon_supervise(config, port > 0 ? port : 0);
    if (words->status)
        return status(config, words->json);
    if (words->stop)
        rc = stop(config, &err);
    else if (words->background)
        rc = background(config, port > 0 ? port : 0, &err);
    else
        rc = foreground(config, port < 0 ? 5000 : port, words->verbose, &err);
    return rc < 0 ? command_fail(&err) : 0;
}

static int run(int argc, char **argv)
{
    struct words words = {0};
    const struct option_spec options[] = {
        {"port,p", OPTION_TEXT, &words.port},
        {"workspace,w", OPTION_TEXT, &words.workspace},
        {"profile", OPTION_TEXT, &words.profile},
        {"verbose,v", OPTION_FLAG, &words.verbose},
        {"background", OPTION_FLAG, &words.background},
        {"status", OPTION_FLAG, &words.status},
        {"stop", OPTION_FLAG, &words.stop},
        {"json", OPTION_FLAG, &words.json},
        {"supervised", OPTION_FLAG, &words.supervised}, /* internal: host/run/daemon.c starts it */
        {NULL, OPTION_FLAG, NULL},
    };
    struct error err = {0};
    struct config config = {0};
    int count = options_parse(&cmd_serve, options, argc, argv);
    char *end = NULL;
    long port = -1;

    if (count < 0)
        return count == -2 ? 0 : 2;
    if (count > 1)
        return usage("it takes no words");
    if (words.background + words.status + words.stop > 1)
        return usage("--background, --status and --stop exclude each other");
    if (words.json && !words.status)
        return usage("--json goes with --status");
    if (words.port) {
        port = strtol(words.port, &end, 10);
        if (!*words.port || *end || port < 0 || port > 65535)
            return usage("--port: a number from 0 to 65535 is needed");
    }
    if (config_load(words.workspace, words.profile, &config, &err) < 0)
        return command_fail(&err);
    int rc = act(&config, &words, (int)port);
    config_free(&config);
    return rc;
}
