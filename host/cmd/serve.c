/* mlhost serve: the embedded services on a loopback port. The serving itself is in the serve
 * module. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/module.h"
#include "cmd/cmd.h"
#include "local/serve.h"

static const char help[] =
    "usage: mlhost serve [options]\n"
    "\n"
    "Serves the embedded registry, MLflow and Kubeflow Pipelines on a loopback port, on the files "
    "of the workspace's\n"
    ".mlhost/local folder, until SIGTERM or Ctrl-C. Official clients work against it.\n"
    "\n"
    "options:\n"
    "  --port N         the port of 127.0.0.1 to listen on; 0: any free one (default: 5000)\n"
    "  --workspace DIR  whose services (default: the folder upwards that holds mlhost.yaml or "
    ".git)\n"
    "  --profile NAME   the profile of mlhost.yaml to be active\n"
    "  --verbose        one line per request on stderr\n"
    "\n"
    "exit codes: 0 stopped by a signal, 1 cannot serve, 2 usage or mlhost.yaml\n"
    "\n"
    "example:\n"
    "  mlhost serve --port 5000\n"
    "  MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python3 train.py\n"
    "  skopeo copy --dest-tls-verify=false oci:image docker://127.0.0.1:5000/name:tag\n";

static int run(int argc, char **argv);
const struct command cmd_serve = {
    .name = "serve",
    .summary = "offer the embedded services on a loopback port",
    .help = help,
    .run = run,
};

/* Waits for the server's line on the pipe, then tells the user. A child, so that the server starts
 * no thread early. */
static void announce(int ready, const char *state)
{
    char url[128];
    size_t len = 0;
    ssize_t n;

    while (len < sizeof url - 1 && (n = read(ready, url + len, sizeof url - 1 - len)) != 0) {
        if (n < 0 && errno != EINTR)
            break;
        len += n > 0 ? (size_t)n : 0;
    }
    url[len] = '\0';
    url[strcspn(url, "\n")] = '\0';
    if (!*url)
        return;
    printf("mlhost: serving %s\n"
           "  registry   %s/v2/\n"
           "  mlflow     MLFLOW_TRACKING_URI=%s\n"
           "  kubeflow   %s/apis/v2beta1/\n"
           "  files      %s/local\n",
           url, url, url, url, state);
    fflush(stdout);
}

static int serve(const struct config *config, int port, bool verbose, struct error *err)
{
    int (*serve_main)(const struct serve_spec *, struct error *);
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
        announce(ready[0], config->state);
        _exit(0);
    }
    close(ready[0]);
    struct serve_spec spec = {
        .config = config, .unix_fd = -1, .port = port, .ready_fd = ready[1], .quiet = !verbose};
    int status = serve_main(&spec, err);
    if (status < 0)
        close(ready[1]);
    waitpid(child, NULL, 0);
    return status;
}

static int run(int argc, char **argv)
{
    const char *port_text = "5000", *workspace = NULL, *profile = NULL;
    bool verbose = false;
    const struct option_spec options[] = {
        {"port,p", OPTION_TEXT, &port_text}, {"workspace,w", OPTION_TEXT, &workspace},
        {"profile", OPTION_TEXT, &profile},  {"verbose,v", OPTION_FLAG, &verbose},
        {NULL, OPTION_FLAG, NULL},
    };
    struct error err = {0};
    struct config config = {0};
    int words = options_parse(&cmd_serve, options, argc, argv);

    if (words < 0)
        return words == -2 ? 0 : 2;
    if (words > 1) {
        fprintf(stderr, "mlhost serve: unexpected '%s'\n  hint: mlhost serve --help\n", argv[1]);
        return 2;
    }
    char *end;
    long port = strtol(port_text, &end, 10);
    if (!*port_text || *end || port < 0 || port > 65535) {
        fprintf(stderr, "mlhost serve: --port %s: a number from 0 to 65535 is needed\n", port_text);
        return 2;
    }
    if (config_load(workspace, profile, &config, &err) < 0)
        return command_fail(&err);
    int status = serve(&config, (int)port, verbose, &err) < 0 ? command_fail(&err) : 0;
    config_free(&config);
    return status;
}
