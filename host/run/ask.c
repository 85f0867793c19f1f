/*
 * An approval is answered by --approve, else at the terminal, one question at a time; where neither
 * is there, the answer is no, at once: a build agent must not wait for somebody who cannot come.
 */
#include "run/ask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/module.h"
#include "run/daemon.h"
#include "run/text.h"

#define LINE_MAX_BYTES 256

struct question {
    struct question *next;
    struct slot *slot;
    int64_t id;
    char *name, *text;
};

struct prompt {
    struct question *first; /* the one on the screen */
    struct loop_watch *watch;
    char line[LINE_MAX_BYTES];
    size_t len;
};

static void forget_daemon(struct slot *slot);

static void answer(const struct slot *slot, int64_t id, struct value *frame)
{
    value_put_string(frame, "t", "answer");
    value_put_int(frame, "id", id);
    if (slot->worker)
        worker_send(slot->worker, frame);
    value_free(frame);
}

/* What was asked and answered stands in the journal, before the stage hears of it. */
static void decide(struct slot *slot, int64_t id, const char *name, const char *text, bool yes,
                   const char *by)
{
    struct value event = {0}, frame = {0};
    cleanup_free char *line =
        mem_printf("%s: %s (%s)", yes ? "approved" : "not approved", text, by);

    event_new(&event, "approval", slot);
    value_put_string(&event, "name", name);
    value_put_string(&event, "question", text);
    value_put_bool(&event, "yes", yes);
    value_put_string(&event, "by", by);
    run_emit(slot->run, &event, true, true);
    event_new(&event, "log", slot);
    value_put_string(&event, "level", yes ? "info" : "warning");
    value_put_string(&event, "text", line);
    run_emit(slot->run, &event, false, false);
    value_set_map(&frame);
    value_put_bool(&frame, "yes", yes);
    value_put_string(&frame, "by", by);
    answer(slot, id, &frame);
}

static bool approved_before(const struct run *run, const char *name)
{
    for (int i = 0; i < run->opt->approve_count; i++) {
        if (strcmp(run->opt->approve[i], name) == 0 || strcmp(run->opt->approve[i], "all") == 0)
            return true;
    }
    return false;
}

/* Is there somebody at a terminal who sees the question and whose answer we may read? */
static bool can_ask(const struct run *run)
{
    return run->opt->renderer->kind->question && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) &&
           tcgetpgrp(STDIN_FILENO) == getpgrp();
}

/* ---- the terminal ---- */

static void free_question(struct question *question)
{
    free(question->name);
    free(question->text);
    free(question);
}

static void show(struct run *run)
{
    const struct question *first = run->prompt ? run->prompt->first : NULL;
    cleanup_buf struct buf text = BUF_INIT;

    if (first)
        text_harmless(first->text, strlen(first->text), &text);
    run->opt->renderer->kind->question(run->opt->renderer, first ? text.data : NULL);
    renderer_flush(run->opt->renderer);
}

/* "y", "yes": 1; "n", "no", nothing: 0; else -1. */
static int meaning(char *line)
{
    line[strcspn(line, "\r\n")] = '\0';
    line += strspn(line, " \t");
    line[strcspn(line, " \t")] = '\0';
    if (strcasecmp(line, "y") == 0 || strcasecmp(line, "yes") == 0)
        return 1;
    return *line == '\0' || strcasecmp(line, "n") == 0 || strcasecmp(line, "no") == 0 ? 0 : -1;
}

static void next_question(struct run *run)
{
    struct prompt *prompt = run->prompt;

    prompt->len = 0;
    show(run);
    if (!prompt->first && prompt->watch) {
        loop_end(prompt->watch);
        prompt->watch = NULL;
        if (run->debugger)
            debugger_hold(run->debugger, false);
    }
}

static void settle(struct run *run, bool yes, const char *by)
{
    struct question *question = run->prompt->first;

    run->prompt->first = question->next;
    next_question(run);
    decide(question->slot, question->id, question->name, question->text, yes, by);
    free_question(question);
}

static void on_key(void *ctx, int fd, uint32_t events)
{
    struct run *run = ctx;
    struct prompt *prompt = run->prompt;
    ssize_t got = read(fd, prompt->line + prompt->len, sizeof prompt->line - 1 - prompt->len);

    (void)events;
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got <= 0) {
        settle(run, false, "the terminal's input has ended");
        return;
    }
    prompt->len += (size_t)got;
    prompt->line[prompt->len] = '\0';
    if (!strchr(prompt->line, '\n') && prompt->len < sizeof prompt->line - 1)
        return;
    int yes = meaning(prompt->line);
    if (yes < 0) {
        prompt->len = 0;
        show(run);
    } else {
        settle(run, yes, yes ? "the terminal" : "refused at the terminal");
    }
}

static void ask_terminal(struct slot *slot, int64_t id, const char *name, const char *text)
{
    struct run *run = slot->run;

    if (!run->prompt)
        run->prompt = mem_alloc(sizeof *run->prompt);
    struct prompt *prompt = run->prompt;
    struct question *question = mem_alloc(sizeof *question), **end = &prompt->first;
    *question = (struct question){
        .slot = slot, .id = id, .name = mem_strdup(name), .text = mem_strdup(text)};
    while (*end)
        end = &(*end)->next;
    *end = question;
    if (prompt->first == question && !debugger_busy(run->debugger))
        run_ask_resume(run);
}

bool run_asks(const struct run *run)
{
    return run->prompt && run->prompt->watch;
}

void run_ask_resume(struct run *run)
{
    struct prompt *prompt = run->prompt;

    if (!prompt || !prompt->first)
        return;
    if (!prompt->watch)
        prompt->watch = loop_fd(run->opt->loop, STDIN_FILENO, EPOLLIN, on_key, run);
    if (!prompt->watch) {
        settle(run, false, "the terminal cannot be read");
        return;
    }
    if (run->debugger)
        debugger_hold(run->debugger, true);
    show(run);
}

void run_ask_forget(struct slot *slot)
{
    struct run *run = slot->run;
    struct prompt *prompt = run->prompt;
    struct question *shown = prompt ? prompt->first : NULL;

    forget_daemon(slot);
    if (!shown)
        return;
    for (struct question **at = &prompt->first; *at;) {
        struct question *question = *at;
        if (question->slot == slot) {
            *at = question->next;
            free_question(question);
        } else {
            at = &question->next;
        }
    }
    if (prompt->first != shown)
        next_question(run);
}

void run_ask_end(struct run *run)
{
    loop_end(run->daemon_watch);
    if (!run->prompt)
        return;
    loop_end(run->prompt->watch);
    while (run->prompt->first) {
        struct question *question = run->prompt->first;
        run->prompt->first = question->next;
        free_question(question);
    }
    free(run->prompt);
    run->prompt = NULL;
}

/* ---- the daemon: started at the first question, everybody gets the same answer ---- */

struct waiting {
    struct waiting *next;
    struct slot *slot;
    int64_t id;
};

static void answer_daemon(const struct slot *slot, int64_t id, const struct error *failure)
{
    struct value frame = {0};

    daemon_answer(slot->run->opt->config, failure, &frame);
    answer(slot, id, &frame);
}

static void on_daemon(void *ctx, int fd, uint32_t events)
{
    struct run *run = ctx;
    struct error err = {0};

    (void)events;
    loop_end(run->daemon_watch);
    run->daemon_watch = NULL;
    /* One short line, or the end: it does not wait any more. */
    int rc = daemon_started(fd, deadline_in(NS_PER_S), &err);
    if (rc == 0)
        run_say(run, "debug", "started the embedded services that outlive this run");
    while (run->daemon_asked) {
        struct waiting *first = run->daemon_asked;
        run->daemon_asked = first->next;
        answer_daemon(first->slot, first->id, rc < 0 ? &err : NULL);
        free(first);
    }
}

static void ask_daemon(struct slot *slot, int64_t id)
{
    struct run *run = slot->run;
    cleanup_daemon struct daemon daemon;
    struct error err = {0};
    int ready;

    daemon_look(run->opt->config, &daemon);
    if (daemon.running) {
        if (daemon.version && strcmp(daemon.version, mlhost_version) != 0) {
            cleanup_free char *text =
                mem_printf("the embedded services run as mlhost %s, this is %s: "
                           "`mlhost serve --stop` lets the next run start them anew",
                           daemon.version, mlhost_version);
            run_say(run, "warning", text);
        }
        answer_daemon(slot, id, NULL);
        return;
    }
    struct waiting *waiting = mem_alloc(sizeof *waiting);
    *waiting = (struct waiting){.next = run->daemon_asked, .slot = slot, .id = id};
    run->daemon_asked = waiting;
    if (run->daemon_watch)
        return;
    if (daemon_start(run->opt->config, 0, &ready, &err) == 0) {
        run->daemon_watch = loop_fd(run->opt->loop, ready, EPOLLIN, on_daemon, run);
        return;
    }
    run->daemon_asked = waiting->next;
    free(waiting);
    answer_daemon(slot, id, &err);
}

static void forget_daemon(struct slot *slot)
{
    for (struct waiting **at = &slot->run->daemon_asked; *at;) {
        struct waiting *one = *at;
        if (one->slot == slot) {
            *at = one->next;
            free(one);
        } else {
            at = &one->next;
        }
    }
}

/* ---- earlier runs ---- */

static void feed(void *ctx, const struct value *event)
{
    tally_event(ctx, event);
}

/* Fills *out when this run is of the pipeline and ended well. */
static bool run_fits(const struct config *config, const char *id, const char *pipeline,
                     struct value *out)
{
    cleanup_free char *dir = mem_printf("%s/runs/%s", config->state, id);
    cleanup_tally struct tally tally;
    struct error ignored = {0};

    tally_init(&tally);
    if (journal_read(dir, feed, &tally, &ignored) < 0 || !tally.pipeline || !tally.status ||
        strcmp(tally.pipeline, pipeline) != 0 || strcmp(tally.status, "ok") != 0)
        return false;
    value_set_map(out);
    value_put_string(out, "id", id);
    value_put_int(out, "started_ms", tally.started_ms);
    struct value *outputs = value_put(out, "outputs");
    value_set_map(outputs);
    for (size_t i = 0; i < tally.count; i++) {
        if (tally.cells[i].status == CELL_OK)
            value_move(value_put(outputs, tally.cells[i].name), &tally.cells[i].output);
    }
    return true;
}

static void latest_run(struct slot *slot, int64_t id, const char *pipeline)
{
    const struct config *config = slot->run->opt->config;
    struct value runs = {0}, frame = {0}, found = {0};

    value_set_map(&frame);
    run_list(config, &runs);
    for (size_t i = 0; i < value_count(&runs); i++) {
        if (!run_fits(config, value_text(value_at(&runs, i), ""), pipeline, &found))
            continue;
        value_move(value_put(&frame, "run"), &found);
        break;
    }
    value_free(&runs);
    answer(slot, id, &frame);
}

void run_ask(struct slot *slot, const struct value *event)
{
    const char *kind = value_get_string(event, "kind", "");
    const char *name = value_get_string(event, "name", "");
    const char *text = value_get_string(event, "question", "");
    int64_t id = value_get_int(event, "id", 0);

    if (strcmp(kind, "daemon") == 0)
        ask_daemon(slot, id);
    else if (strcmp(kind, "latest_run") == 0)
        latest_run(slot, id, value_get_string(event, "pipeline", ""));
    else if (approved_before(slot->run, name))
        decide(slot, id, name, text, true, "--approve");
    else if (can_ask(slot->run))
        ask_terminal(slot, id, name, text);
    else
        decide(slot, id, name, text, false, "there is no terminal where somebody could be asked");
}
