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
#include "run/bench.h"
#include "run/services_apart.h"
#include "run/terminal.h"
#include "run/text.h"
#include "run/worker.h"

static const char help[] =
    "usage: mlhost repl [FILE.lua] [options]\n"
    "\n"
    "Evaluates Lua in the sandbox that stages run in. The modules (fs, "
    "kubeflow, mlflow, registry ...) are there without\n"
    "require. FILE.lua is run first, so that its functions can be tried. Of a "
    "pipeline, single stages can be run: what a\n"
    "stage needs comes from this session, else from the newest run.\n"
    "\n"
    "  --param, -P NAME=VALUE a parameter of the pipeline; may be repeated\n" OPERATOR_HELP "\n"
    "  :help  :quit  :globals  :doc NAME      Tab completes, Ctrl-C "
    "interrupts, twice restarts the sandbox\n"
    "  :stages  :run STAGE  :debug STAGE  :plan  :reload\n"
    "\n"
    "examples: mlhost repl --allow-exec git\n"
    "  > exec { \"git\", \"status\" }\n"
    "mlhost repl ci.lua\n"
    "  > :run train\n"
    "  > outputs.train\n";

extern const struct command cmd_repl;

struct repl {
    struct config config;
    struct operator_options operator_;
    struct broker_spec spec;
    struct sandbox_child child;
    struct services_apart services;
    struct option_list params;
    struct value bound;
    struct bench bench; /* of a script that declares stages */
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

/* ---- commands ---- */

static const char *const command_names[] = {":debug", ":doc",    ":globals", ":help",   ":plan",
                                            ":quit",  ":reload", ":run",     ":stages", NULL};

static const char command_help[] =
    ":stages         what the pipeline declares, and which outputs there are\n"
    ":run STAGE      run a stage, or one cell of it; its output is outputs.STAGE\n"
    ":debug STAGE    the same in the debugger\n"
    ":plan           what the pipeline would do, with the permissions that would hold\n"
    ":reload         load the script anew; variables are gone, outputs stay\n"
    ":doc NAME       what a primitive does; an area lists its primitives\n"
    ":globals        what is there\n"
    ":quit           or Ctrl-D\n";

/* Words after a command: names of stages and their cells. */
static void words(void *ctx, const char *name, const char *beginning,
                  void (*add)(void *list, const char *word), void *list)
{
    const struct repl *r = ctx;
    size_t len = strlen(beginning);

    if (strcmp(name, ":run") != 0 && strcmp(name, ":debug") != 0)
        return;
    for (size_t i = 0; i < r->bench.graph.stage_count; i++) {
        if (strncmp(r->bench.graph.stages[i].name, beginning, len) == 0)
            add(list, r->bench.graph.stages[i].name);
    }
    for (size_t i = 0; i < r->bench.graph.cell_count; i++) {
        const struct cell *cell = &r->bench.graph.cells[i];
        if (cell->matrix.kind == VALUE_MAP && strncmp(cell->name, beginning, len) == 0)
            add(list, cell->name);
    }
}

static void say_error(const struct error *err)
{
    text_print(stdout, err->message);
    fputs(err->hint[0] ? "\n  hint: " : "", stdout);
    text_print(stdout, err->hint);
    fputs("\n", stdout);
    fflush(stdout);
}

static void tell_outputs(struct repl *r)
{
    struct value frame = {0};

    value_set_map(&frame);
    value_put_string(&frame, "t", "set");
    value_put_string(&frame, "name", "outputs");
    bench_outputs(&r->bench, value_put(&frame, "value"));
    terminal_send_frame(&r->t, &frame);
    value_free(&frame);
}

static void show_buf(const struct buf *text)
{
    cleanup_buf struct buf out = BUF_INIT;

    if (text->len)
        text_harmless_lines(text->data, text->len, &out);
    fputs(out.data ? out.data : "", stdout);
    fflush(stdout);
}

static int reload(struct repl *r, struct error *err)
{
    stop(r);
    if (start(r, err) < 0)
        return -1;
    if (bench_load(&r->bench, err) == 0)
        tell_outputs(r);
    else
        say_error(err);
    return 0;
}

static int show_plan(const struct repl *r, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (plan_text(&r->bench.plan, &r->bench.graph, &r->config, r->bench.bound, &text, err) < 0)
        return -1;
    show_buf(&text);
    return 0;
}

/* Of a pipeline. True when it was one; *failed as for what is evaluated. */
static bool pipeline_command(struct repl *r, const char *name, const char *argument, bool *failed)
{
    struct error err = {0};
    cleanup_buf struct buf text = BUF_INIT;
    bool runs = strcmp(name, ":run") == 0, debugs = strcmp(name, ":debug") == 0;
    bool stages = strcmp(name, ":stages") == 0, reloads = strcmp(name, ":reload") == 0;
    int status = 0, rc = 0;

    if (!runs && !debugs && !stages && !reloads && strcmp(name, ":plan") != 0)
        return false;
    if (!r->bench.script)
        rc = error_set(&err, ERR_USAGE, "no pipeline is loaded: mlhost repl ci.lua loads one");
    else if (reloads)
        rc = reload(r, &err);
    else if (!r->bench.loaded && bench_load(&r->bench, &err) < 0)
        rc = error_wrap(&err, "%s has no pipeline that can be run", r->bench.script);
    else if ((runs || debugs) && !*argument)
        rc = error_set(&err, ERR_USAGE, "usage: %s STAGE; :stages lists them", name);
    else if (debugs && !r->t.tty)
        rc = error_set(&err, ERR_USAGE, ":debug needs a terminal; mlhost run --debug does not");
    else if (runs || debugs)
        rc = bench_run(&r->bench, argument, debugs, &status, &err);
    else if (bench_load(&r->bench, &err) < 0 || (!stages && show_plan(r, &err) < 0))
        rc = -1;
    if (rc == 0 && stages) {
        bench_stages(&r->bench, &text);
        show_buf(&text);
    }
    if (rc < 0)
        say_error(&err);
    else if (runs || debugs)
        tell_outputs(r);
    *failed = *failed || rc < 0 || status;
    return true;
}

/* True when the line was a command of the REPL's own. */
static bool command(struct repl *r, char *line, bool *quit, bool *failed)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (line[0] != ':' || strncmp(line, "::", 2) == 0)
        return false;
    size_t name_len = strcspn(line, " \t"), len = strlen(line);
    cleanup_free char *name = mem_strndup(line, name_len);
    char *argument = line + name_len + strspn(line + name_len, " \t");
    while (len && strchr(" \t\r", line[len - 1]))
        line[--len] = '\0';
    if (strcmp(name, ":globals") == 0)
        return false;
    if (strcmp(name, ":quit") == 0 || strcmp(name, ":q") == 0) {
        *quit = true;
    } else if (strcmp(name, ":doc") == 0) {
        if (doc_print(argument, &text))
            fputs(text.data, stdout);
        else
            printf("no primitive '%s'; :doc lists them all\n", argument);
    } else if (!pipeline_command(r, name, argument, failed)) {
        const char *near =
            near_miss(name, command_names, sizeof command_names / sizeof *command_names - 1);
        if (strcmp(name, ":help") != 0 && near)
            printf("no command '%s' (did you mean '%s'?)\n", name, near);
        fputs(command_help, stdout);
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
        if (!text.len &&
            (line[strspn(line, " \t")] == '\0' || command(r, line, &quit, &any_failed)))
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
            if (r->bench.loaded)
                tell_outputs(r);
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
    bool has_bound = false;
    cleanup_free char *script = NULL;

    if (config_load(NULL, r->operator_.profile, &r->config, err) < 0 ||
        operator_bound(&r->operator_, &r->config, &r->bound, &has_bound, err) < 0)
        return -1;
    if (file) {
        script = realpath(file, NULL);
        if (!script)
            return error_set(err, ERR_USAGE, "%s: %s", file, strerror(errno));
    }
    r->t.other = other;
    r->t.ctx = r;
    r->t.commands = command_names;
    r->t.words = words;
    terminal_init(&r->t);
    /* Who types is the operator: what the bound allows is what holds. */
    r->spec = (struct broker_spec){.config = &r->config,
                                   .mode = "repl",
                                   .script = script,
                                   .run_id = "repl",
                                   .bound = has_bound ? &r->bound : NULL,
                                   .allow_degraded = r->operator_.allow_degraded};
    value_set_map(&r->spec.context);
    value_put_bool(&r->spec.context, "colour", r->t.colour);
    if (has_bound)
        value_copy(&r->spec.permissions, &r->bound);
    else
        value_set_map(&r->spec.permissions);
    if (services_apart_open(&r->config, &r->services, err) < 0)
        return -1;
    r->spec.local_socket = r->services.socket;
    if (r->t.tty)
        puts("mlhost: Lua 5.4 in a sandbox; :help tells more, :quit or Ctrl-D ends");
    int rc = start(r, err);
    if (rc == 0 && file) {
        r->bench = (struct bench){.config = &r->config,
                                  .script = file,
                                  .bound = r->spec.bound,
                                  .params = r->params.items,
                                  .param_count = (size_t)r->params.count,
                                  .allow_degraded = r->operator_.allow_degraded};
        if (bench_load(&r->bench, err) == 0)
            tell_outputs(r);
        else
            say_error(err);
    }
    if (rc == 0) {
        terminal_open(&r->t, r->config.state);
        rc = loop(r, err);
        terminal_close(&r->t);
    }
    stop(r);
    services_apart_close(&r->services);
    value_free(&r->spec.context);
    value_free(&r->spec.permissions);
    value_free(&r->bound);
    bench_free(&r->bench);
    return rc;
}

static int repl_run(int argc, char **argv)
{
    struct repl r = {.t.fd = -1};
    struct error err = {0};
    const struct option_spec specs[] = {
        {"param,P", OPTION_REPEAT, &r.params}, OPERATOR_OPTIONS(r.operator_), {.name = NULL}};
    int words = options_parse(&cmd_repl, specs, argc, argv);

    if (words < 0)
        return words == -2 ? 0 : 2;
    int rc = run(&r, words > 1 ? argv[1] : NULL, &err);
    buf_free(&r.t.in);
    config_free(&r.config);
    free((void *)r.params.items);
    return rc < 0 ? command_fail(&err) : rc;
}

const struct command cmd_repl = {
    .name = "repl",
    .summary = "try Lua and the primitives, in the sandbox",
    .help = help,
    .run = repl_run,
};
