/* mlhost repl: the terminal's side. What is typed runs in a sealed VM behind a broker, as a stage
 * does. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/mem.h"
#include "base/module.h"
#include "broker/broker.h"
#include "cmd/doc.h"
#include "cmd/edit.h"
#include "cmd/operator.h"
#include "run/services_apart.h"
#include "run/worker.h"
#include "run/text.h"

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
    int fd;
    bool alive, tty, colour;
    struct buf in;
    struct edit *edit;
    struct value items; /* of the last completion */
};

static volatile sig_atomic_t interrupts;

static void on_interrupt(int signo)
{
    (void)signo;
    interrupts++;
}

/* ---- the sandbox ---- */

static void stop(struct repl *r)
{
    if (!r->alive)
        return;
    sandbox_kill(&r->child);
    waitpid(r->child.pid, NULL, 0);
    close(r->child.pidfd);
    close(r->fd);
    buf_clear(&r->in);
    r->alive = false;
}

static void send_frame(struct repl *r, const char *t, const char *text)
{
    struct value frame = {0};
    cleanup_buf struct buf out = BUF_INIT;

    value_set_map(&frame);
    value_put_string(&frame, "t", t);
    value_put_string(&frame, "text", text);
    frame_append(&frame, &out);
    value_free(&frame);
    for (size_t at = 0; at < out.len;) {
        ssize_t n = send(r->fd, out.data + at, out.len - at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* the end of the socket is seen by whoever waits for the answer */
        at += (size_t)n;
    }
}

/* \1 and a letter mark kinds of tokens (lua/prelude/pretty.lua); all else is data. */
static void show(const struct repl *r, const char *text, size_t len)
{
    cleanup_buf struct buf out = BUF_INIT;
    const char *end = text + len;

    while (text < end) {
        const char *mark = memchr(text, 1, (size_t)(end - text));
        text_harmless_lines(text, (size_t)((mark ? mark : end) - text), &out);
        if (!mark || mark + 1 >= end)
            break;
        if (r->colour)
            buf_puts(&out, mark[1] == 'k'   ? "\033[36m"
                           : mark[1] == 's' ? "\033[32m"
                           : mark[1] == 'n' ? "\033[33m"
                           : mark[1] == 'w' ? "\033[35m"
                                            : "\033[0m");
        text = mark + 2;
    }
    if (out.len)
        fwrite(out.data, 1, out.len, stdout);
    fflush(stdout);
}

static void show_event(const struct repl *r, const struct value *event)
{
    const char *t = value_get_string(event, "t", "");
    const struct value *text = value_get(event, "text");

    if (strcmp(t, "output") == 0 && text && text->kind == VALUE_STRING) {
        show(r, text->as.string.data, text->as.string.len);
    } else if (strcmp(t, "log") == 0) {
        cleanup_free char *line =
            mem_printf("%s: %s\n", value_get_string(event, "level", ""), value_text(text, ""));
        show(r, line, strlen(line));
    } else if (strcmp(t, "issue") == 0) {
        cleanup_free char *line = mem_printf("%s:%lld: %s\n", value_get_string(event, "file", "?"),
                                             (long long)value_get_int(event, "line", 1),
                                             value_get_string(event, "message", ""));
        show(r, line, strlen(line));
    }
}

static void answer(struct repl *r, const struct value *question)
{
    struct value frame = {0};
    cleanup_buf struct buf out = BUF_INIT;

    worker_answer(&r->config, question, &frame);
    frame_append(&frame, &out);
    value_free(&frame);
    (void)fd_write_all(r->fd, out.data, out.len, NULL);
}

/* Events until one of type `wanted`, which goes to *out. -1: the sandbox ended; why was printed. */
static int wait_for(struct repl *r, const char *wanted, struct value *out)
{
    int sent = 0;

    for (;;) {
        int taken;
        while ((taken = frame_take(&r->in, out, NULL)) > 0) {
            const char *t = value_get_string(out, "t", "");
            if (strcmp(t, wanted) == 0)
                return 0;
            if (strcmp(t, "result") == 0) {
                printf("the sandbox ended: %s\n",
                       value_get_string(value_get(out, "error"), "message", "done"));
                value_free(out);
                return -1;
            }
            if (strcmp(t, "ask") == 0)
                answer(r, out);
            else
                show_event(r, out);
            value_free(out);
        }
        if (taken < 0)
            return -1;
        struct pollfd wait = {.fd = r->fd, .events = POLLIN};
        int ready = poll(&wait, 1, -1);
        if (interrupts > sent) {
            sent = interrupts;
            if (sent > 1) {
                puts("\nrestarted: what was running did not stop; variables are gone");
                return -1;
            }
            send_frame(r, "interrupt", NULL);
        }
        if (ready <= 0)
            continue;
        ssize_t got = read(r->fd, buf_reserve(&r->in, 65536), 65536);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            puts("the sandbox ended");
            return -1;
        }
        r->in.len += (size_t)got;
    }
}

static int start(struct repl *r, struct error *err)
{
    struct value ready = {0};

    if (broker_start(&r->spec, &r->child, &r->fd, err) < 0)
        return -1;
    r->alive = true;
    interrupts = 0;
    int rc = wait_for(r, "evaled", &ready);
    value_free(&ready);
    return rc < 0 ? error_set(err, ERR_CRASHED, "the sandbox did not start") : 0;
}

/* ---- lines ---- */

static void complete(void *ctx, const char *before, void (*add)(void *list, const char *word),
                     void *list)
{
    struct repl *r = ctx;
    struct value reply = {0};

    send_frame(r, "complete", before);
    if (wait_for(r, "completions", &reply) == 0) {
        const struct value *items = value_get(&reply, "items");
        for (size_t i = 0; i < value_count(items); i++)
            add(list, value_text(value_at(items, i), ""));
    }
    value_free(&reply);
}

static void open_editor(struct repl *r)
{
    cleanup_free char *file = path_join(r->config.state, "repl_history");
    edit_open_fn *open_;
    void *symbol = r->tty ? module_symbol(MODULE_EDIT, "mlh_edit_open", NULL) : NULL;

    if (!symbol)
        return;
    memcpy(&open_, &symbol, sizeof open_);
    bool kept = dir_make(r->config.state, NULL) == 0;
    r->edit = open_(kept ? file : NULL, complete, r);
}

/* NULL at the end of input, "\003" after Ctrl-C. */
static char *read_line(struct repl *r, const char *prompt)
{
    char *line = NULL;
    size_t room = 0;

    interrupts = 0;
    if (r->edit) {
        edit_line_fn *fn;
        void *symbol = module_symbol(MODULE_EDIT, "mlh_edit_line", NULL);
        memcpy(&fn, &symbol, sizeof fn);
        return fn(r->edit, prompt);
    }
    if (r->tty) {
        fputs(prompt, stdout);
        fflush(stdout);
    }
    ssize_t got = getline(&line, &room, stdin);
    if (got < 0) {
        free(line);
        if (!interrupts)
            return NULL;
        clearerr(stdin);
        return mem_strdup("\003");
    }
    line[strcspn(line, "\n")] = '\0';
    return line;
}

static void remember(struct repl *r, const char *text)
{
    edit_remember_fn *fn;
    void *symbol = r->edit ? module_symbol(MODULE_EDIT, "mlh_edit_remember", NULL) : NULL;

    if (!symbol)
        return;
    memcpy(&fn, &symbol, sizeof fn);
    fn(r->edit, text);
}

static void close_editor(struct repl *r)
{
    edit_close_fn *fn;
    void *symbol = r->edit ? module_symbol(MODULE_EDIT, "mlh_edit_close", NULL) : NULL;

    if (!symbol)
        return;
    memcpy(&fn, &symbol, sizeof fn);
    fn(r->edit);
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

    interrupts = 0;
    send_frame(r, "eval", text);
    if (wait_for(r, "evaled", &reply) < 0)
        return -1;
    const char *status = value_get_string(&reply, "status", "");
    const struct value *output = value_get(&reply, "output");
    *incomplete = strcmp(status, "incomplete") == 0;
    *failed = strcmp(status, "error") == 0;
    if (output && output->kind == VALUE_STRING && output->as.string.len) {
        show(r, output->as.string.data, output->as.string.len);
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
        cleanup_free char *line = read_line(r, text.len ? ">> " : "> ");
        if (!line && incomplete && !r->tty) {
            fprintf(stderr, "repl: the input ends in the middle of a statement\n");
            return 1;
        }
        if (!line)
            break;
        if (line[0] == '\003') {
            buf_clear(&text);
            interrupts = 0;
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
            if (!r->tty)
                return 1;
            if (start(r, err) < 0)
                return -1;
            continue;
        }
        if (incomplete)
            continue;
        any_failed = any_failed || failed;
        remember(r, text.data);
        buf_clear(&text);
    }
    if (r->tty)
        putchar('\n');
    return any_failed && !r->tty;
}

static int run(struct repl *r, const char *file, struct error *err)
{
    struct value bound = {0};
    bool has_bound = false;
    cleanup_free char *script = NULL;
    struct sigaction action = {.sa_handler = on_interrupt};

    if (config_load(NULL, r->operator_.profile, &r->config, err) < 0 ||
        operator_bound(&r->operator_, &r->config, &bound, &has_bound, err) < 0)
        return -1;
    if (file) {
        script = realpath(file, NULL);
        if (!script)
            return error_set(err, ERR_USAGE, "%s: %s", file, strerror(errno));
    }
    r->tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    r->colour = r->tty && !getenv("NO_COLOR");
    /* Who types is the operator: what the bound allows is what holds. */
    r->spec = (struct broker_spec){.config = &r->config,
                                   .mode = "repl",
                                   .script = script,
                                   .run_id = "repl",
                                   .bound = has_bound ? &bound : NULL,
                                   .allow_degraded = r->operator_.allow_degraded};
    value_set_map(&r->spec.context);
    value_put_bool(&r->spec.context, "colour", r->colour);
    if (has_bound)
        value_copy(&r->spec.permissions, &bound);
    else
        value_set_map(&r->spec.permissions);
    if (services_apart_open(&r->config, &r->services, err) < 0)
        return -1;
    r->spec.local_socket = r->services.socket;
    sigaction(SIGINT, &action, NULL);
    if (r->tty)
        puts("mlhost: Lua 5.4 in a sandbox; :help tells more, :quit or Ctrl-D ends");
    int rc = start(r, err);
    if (rc == 0) {
        open_editor(r);
        rc = loop(r, err);
        close_editor(r);
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
    struct repl r = {.fd = -1};
    struct error err = {0};
    const struct option_spec specs[] = {OPERATOR_OPTIONS(r.operator_), {.name = NULL}};
    int words = options_parse(&cmd_repl, specs, argc, argv);

    if (words < 0)
        return words == -2 ? 0 : 2;
    int rc = run(&r, words > 1 ? argv[1] : NULL, &err);
    buf_free(&r.in);
    config_free(&r.config);
    return rc < 0 ? command_fail(&err) : rc;
}

const struct command cmd_repl = {
    .name = "repl",
    .summary = "try Lua and the primitives, in the sandbox",
    .help = help,
    .run = repl_run,
};
