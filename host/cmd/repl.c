/* mlhost repl: the terminal's side. What is typed runs in a sealed VM behind a broker, as a stage
 * does. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/config.h"
#include "base/mem.h"
#include "broker/broker.h"
#include "cmd/doc.h"
#include "cmd/operator.h"
#include "run/services_apart.h"
#include "run/terminal.h"
#include "run/worker.h"

static const char help[] = "usage: mlhost repl [FILE.lua] [options]\n"
                           "\n"
                           "Evaluates Lua in the sandbox that stages run in. The modules (fs, "
                           "kubeflow, mlflow, registry ...) are there without\n"
                           "require. FILE.lua is run first, so that its functions can be tried.\n"
                           "\n" OPERATOR_HELP "\n"
                           "  :help  :quit  :globals  :doc NAME      Tab completes, Ctrl-C "
                           "interrupts, twice restarts the sandbox\n"
                           "\n"
                           "example: mlhost repl --allow-exec git\n"
                           "  > exec { \"git\", \"status\" }\n";

extern const struct command cmd_repl;

struct repl {
    struct config config;
    struct operator_options operator_;
    struct broker_spec spec;
    struct sandbox_child child;
    struct services_apart services;
    bool alive;
    struct terminal t;
};

/* ---- the sandbox ---- */

static void stop(struct repl *r)
{
    if (!r->alive)
        return;
    sandbox_kill(&r->child);
    waitpid(r->child.pid, NULL, 0);
    close(r->child.pidfd);
    close(r->t.fd);
    buf_clear(&r->t.in);
    r->alive = false;
}

static int other(void *ctx, struct value *frame)
{
    struct repl *r = ctx;
    const char *t = value_get_string(frame, "t", "");

    if (strcmp(t, "result") == 0) {
        printf("the sandbox ended: %s\n",
               value_get_string(value_get(frame, "error"), "message", "done"));
        return -1;
    }
    if (strcmp(t, "ask") == 0) {
        struct value reply = {0};
        worker_answer(&r->config, frame, &reply);
        terminal_send_frame(&r->t, &reply);
        value_free(&reply);
    } else {
        terminal_event(&r->t, frame);
    }
    return 0;
}

/* The answer of type `wanted`. -1: the sandbox has ended; why was printed. */
static int wait_for(struct repl *r, const char *wanted, struct value *out)
{
    int rc = terminal_wait(&r->t, wanted, out);

    if (rc == TERMINAL_STUCK)
        puts("\nrestarted: what was running did not stop; variables are gone");
    else if (rc == TERMINAL_GONE)
        puts("the sandbox ended");
    return rc < 0 ? -1 : 0;
}

static int start(struct repl *r, struct error *err)
{
    struct value ready = {0};

    if (broker_start(&r->spec, &r->child, &r->t.fd, err) < 0)
        return -1;
    r->alive = true;
    terminal_interrupts = 0;
    int rc = wait_for(r, "evaled", &ready);
    value_free(&ready);
    return rc < 0 ? error_set(err, ERR_CRASHED, "the sandbox did not start") : 0;
}

/* True when the line was a command of the REPL's own. */
static bool command(const char *line, bool *quit)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (line[0] != ':' || strncmp(line, "::", 2) == 0 || strcmp(line, ":globals") == 0)
        return false;
    if (strcmp(line, ":quit") == 0 || strcmp(line, ":q") == 0) {
        *quit = true;
    } else if (strncmp(line, ":doc", 4) == 0 && (line[4] == ' ' || !line[4])) {
        const char *name = line + 4 + strspn(line + 4, " ");
        if (doc_print(name, &text))
            fputs(text.data, stdout);
        else
            printf("no primitive '%s'; :doc lists them all\n", name);
    } else {
        fputs(":help           this\n:doc NAME       what a primitive does; an area lists its "
              "primitives\n"
              ":globals        what is there\n:quit           or Ctrl-D\n",
              stdout);
    }
    return true;
}

/* status: what became of it. -1: the sandbox is gone. */
static int evaluate(struct repl *r, const char *text, bool *incomplete, bool *failed)
{
    struct value reply = {0};

    terminal_interrupts = 0;
    terminal_send(&r->t, "eval", text);
    if (wait_for(r, "evaled", &reply) < 0)
        return -1;
    const char *status = value_get_string(&reply, "status", "");
    const struct value *output = value_get(&reply, "output");
    *incomplete = strcmp(status, "incomplete") == 0;
    *failed = strcmp(status, "error") == 0;
    if (output && output->kind == VALUE_STRING && output->as.string.len) {
        terminal_show(&r->t, output->as.string.data, output->as.string.len);
        putchar('\n');
    }
    fflush(stdout);
    value_free(&reply);
    return 0;
}

static int loop(struct repl *r, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    bool quit = false, incomplete = false, failed = false, any_failed = false;

    while (!quit) {
        cleanup_free char *line = terminal_line(&r->t, text.len ? ">> " : "> ");
        if (!line && incomplete && !r->t.tty) {
            fprintf(stderr, "repl: the input ends in the middle of a statement\n");
            return 1;
        }
        if (!line)
            break;
        if (line[0] == '\003') {
            buf_clear(&text);
            continue;
        }
        if (!text.len && (line[strspn(line, " \t")] == '\0' || command(line, &quit)))
            continue;
        if (text.len)
            buf_putc(&text, '\n');
        buf_puts(&text, line);
        if (evaluate(r, text.data, &incomplete, &failed) < 0) {
            buf_clear(&text);
            stop(r);
            if (!r->t.tty)
                return 1;
            if (start(r, err) < 0)
                return -1;
            continue;
        }
        if (incomplete)
            continue;
        any_failed = any_failed || failed;
        terminal_remember(&r->t, text.data);
        buf_clear(&text);
    }
    if (r->t.tty)
        putchar('\n');
    return any_failed && !r->t.tty;
}

static int run(struct repl *r, const char *file, struct error *err)
{
    struct value bound = {0};
    bool has_bound = false;
    cleanup_free char *script = NULL;

    if (config_load(NULL, r->operator_.profile, &r->config, err) < 0 ||
        operator_bound(&r->operator_, &r->config, &bound, &has_bound, err) < 0)
        return -1;
    if (file) {
        script = realpath(file, NULL);
        if (!script)
            return error_set(err, ERR_USAGE, "%s: %s", file, strerror(errno));
    }
    r->t.other = other;
    r->t.ctx = r;
    terminal_init(&r->t);
    /* Who types is the operator: what the bound allows is what holds. */
    r->spec = (struct broker_spec){.config = &r->config,
                                   .mode = "repl",
                                   .script = script,
                                   .run_id = "repl",
                                   .bound = has_bound ? &bound : NULL,
                                   .allow_degraded = r->operator_.allow_degraded};
    value_set_map(&r->spec.context);
    value_put_bool(&r->spec.context, "colour", r->t.colour);
    if (has_bound)
        value_copy(&r->spec.permissions, &bound);
    else
        value_set_map(&r->spec.permissions);
    if (services_apart_open(&r->config, &r->services, err) < 0)
        return -1;
    r->spec.local_socket = r->services.socket;
    if (r->t.tty)
        puts("mlhost: Lua 5.4 in a sandbox; :help tells more, :quit or Ctrl-D ends");
    int rc = start(r, err);
    if (rc == 0) {
        terminal_open(&r->t, r->config.state);
        rc = loop(r, err);
        terminal_close(&r->t);
    }
    stop(r);
    services_apart_close(&r->services);
    value_free(&r->spec.context);
    value_free(&r->spec.permissions);
    value_free(&bound);
    return rc;
}

static int repl_run(int argc, char **argv)
{
    struct repl r = {.t.fd = -1};
    struct error err = {0};
    const struct option_spec specs[] = {OPERATOR_OPTIONS(r.operator_), {.name = NULL}};
    int words = options_parse(&cmd_repl, specs, argc, argv);

    if (words < 0)
        return words == -2 ? 0 : 2;
    int rc = run(&r, words > 1 ? argv[1] : NULL, &err);
    buf_free(&r.t.in);
    config_free(&r.config);
    return rc < 0 ? command_fail(&err) : rc;
}

const struct command cmd_repl = {
    .name = "repl",
    .summary = "try Lua and the primitives, in the sandbox",
    .help = help,
    .run = repl_run,
};
