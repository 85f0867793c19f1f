#include "run/terminal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/config.h"
#include "base/mem.h"
#include "base/module.h"
#include "run/edit.h"
#include "run/text.h"

volatile sig_atomic_t terminal_interrupts;

static void on_interrupt(int signo)
{
    (void)signo;
    terminal_interrupts++;
}

void terminal_init(struct terminal *t)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    const char *no_colour = getenv("NO_COLOR");

    t->tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    t->colour = t->tty && !(no_colour && no_colour[0]);
    sigaction(SIGINT, &action, NULL);
}

/* ---- frames ---- */

void terminal_send_frame(struct terminal *t, const struct value *frame)
{
    cleanup_buf struct buf out = BUF_INIT;

    frame_append(frame, &out);
    for (size_t at = 0; at < out.len;) {
        ssize_t n = send(t->fd, out.data + at, out.len - at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* the end of the socket is seen by whoever waits for the answer */
        at += (size_t)n;
    }
}

void terminal_send(struct terminal *t, const char *type, const char *text)
{
    struct value frame = {0};

    value_set_map(&frame);
    value_put_string(&frame, "t", type);
    value_put_string(&frame, "text", text);
    terminal_send_frame(t, &frame);
    value_free(&frame);
}

/* 1: *out is one of type `wanted`. 0: nothing more is here. Negative: as terminal_wait. */
static int take(struct terminal *t, const char *wanted, struct value *out)
{
    int taken;

    while ((taken = frame_take(&t->in, out, NULL)) > 0) {
        if (wanted && strcmp(value_get_string(out, "t", ""), wanted) == 0)
            return 1;
        int over = t->other(t->ctx, out);
        value_free(out);
        if (over < 0)
            return TERMINAL_OVER;
    }
    return taken < 0 ? TERMINAL_GONE : 0;
}

/* False: the socket has ended. */
static bool receive(struct terminal *t)
{
    ssize_t got = read(t->fd, buf_reserve(&t->in, 65536), 65536);

    if (got < 0 && errno == EINTR)
        return true;
    if (got > 0)
        t->in.len += (size_t)got;
    return got > 0;
}

int terminal_wait(struct terminal *t, const char *wanted, struct value *out)
{
    int sent = 0;

    for (;;) {
        int rc = take(t, wanted, out);
        if (rc != 0)
            return rc > 0 ? 0 : rc;
        struct pollfd wait = {.fd = t->fd, .events = POLLIN};
        int ready = poll(&wait, 1, -1);
        if (terminal_interrupts > sent) {
            sent = terminal_interrupts;
            if (sent > 1)
                return TERMINAL_STUCK;
            terminal_send(t, "interrupt", NULL);
        }
        if (ready > 0 && !receive(t))
            return TERMINAL_GONE;
    }
}

int terminal_poll(struct terminal *t)
{
    struct value frame = {0};

    for (;;) {
        int rc = take(t, NULL, &frame);
        if (rc != 0)
            return rc;
        struct pollfd wait = {.fd = t->fd, .events = POLLIN};
        if (poll(&wait, 1, 0) <= 0)
            return 0;
        if (!receive(t))
            return TERMINAL_GONE;
    }
}

/* ---- showing ---- */

void terminal_show(const struct terminal *t, const char *text, size_t len)
{
    cleanup_buf struct buf out = BUF_INIT;
    const char *end = text + len;

    while (text < end) {
        const char *mark = memchr(text, 1, (size_t)(end - text));
        text_harmless_lines(text, (size_t)((mark ? mark : end) - text), &out);
        if (!mark || mark + 1 >= end)
            break;
        if (t->colour)
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

void terminal_event(const struct terminal *t, const struct value *event)
{
    const char *type = value_get_string(event, "t", "");
    const struct value *text = value_get(event, "text");

    if (strcmp(type, "output") == 0 && text && text->kind == VALUE_STRING) {
        terminal_show(t, text->as.string.data, text->as.string.len);
    } else if (strcmp(type, "log") == 0) {
        cleanup_free char *line =
            mem_printf("%s: %s\n", value_get_string(event, "level", ""), value_text(text, ""));
        terminal_show(t, line, strlen(line));
    } else if (strcmp(type, "issue") == 0) {
        cleanup_free char *line = mem_printf("%s:%lld: %s\n", value_get_string(event, "file", "?"),
                                             (long long)value_get_int(event, "line", 1),
                                             value_get_string(event, "message", ""));
        terminal_show(t, line, strlen(line));
    }
}

/* ---- lines ---- */

static void complete_command(struct terminal *t, const char *before,
                             void (*add)(void *list, const char *word), void *list)
{
    const char *blank = strchr(before, ' ');

    if (blank && t->words) {
        cleanup_free char *command = mem_strndup(before, (size_t)(blank - before));
        t->words(t->ctx, command, strrchr(before, ' ') + 1, add, list);
        return;
    }
    for (size_t i = 0; t->commands && t->commands[i]; i++) {
        if (strncmp(t->commands[i], before, strlen(before)) == 0)
            add(list, t->commands[i]);
    }
}

static void complete(void *ctx, const char *before, void (*add)(void *list, const char *word),
                     void *list)
{
    struct terminal *t = ctx;
    struct value reply = {0};

    if (before[0] == ':' && t->commands) {
        complete_command(t, before, add, list);
        return;
    }
    terminal_send(t, "complete", before);
    if (terminal_wait(t, "completions", &reply) == 0) {
        const struct value *items = value_get(&reply, "items");
        for (size_t i = 0; i < value_count(items); i++)
            add(list, value_text(value_at(items, i), ""));
    }
    value_free(&reply);
}

void terminal_open(struct terminal *t, const char *state)
{
    cleanup_free char *file = path_join(state, "repl_history");
    edit_open_fn *open_;
    void *symbol = t->tty ? module_symbol(MODULE_EDIT, "mlh_edit_open", NULL) : NULL;

    if (!symbol)
        return;
    memcpy(&open_, &symbol, sizeof open_);
    bool kept = dir_make(state, NULL) == 0;
    t->edit = open_(kept ? file : NULL, complete, t);
}

char *terminal_line(struct terminal *t, const char *prompt)
{
    char *line = NULL;
    size_t room = 0;

    terminal_interrupts = 0;
    if (t->edit) {
        edit_line_fn *fn;
        void *symbol = module_symbol(MODULE_EDIT, "mlh_edit_line", NULL);
        memcpy(&fn, &symbol, sizeof fn);
        return fn(t->edit, prompt);
    }
    if (t->tty) {
        fputs(prompt, stdout);
        fflush(stdout);
    }
    ssize_t got = getline(&line, &room, stdin);
    if (got < 0) {
        free(line);
        if (!terminal_interrupts)
            return NULL;
        clearerr(stdin);
        return mem_strdup("\003");
    }
    line[strcspn(line, "\n")] = '\0';
    return line;
}

void terminal_remember(struct terminal *t, const char *text)
{
    edit_remember_fn *fn;
    void *symbol = t->edit ? module_symbol(MODULE_EDIT, "mlh_edit_remember", NULL) : NULL;

    if (!symbol)
        return;
    memcpy(&fn, &symbol, sizeof fn);
    fn(t->edit, text);
}

void terminal_close(struct terminal *t)
{
    edit_close_fn *fn;
    void *symbol = t->edit ? module_symbol(MODULE_EDIT, "mlh_edit_close", NULL) : NULL;

    buf_free(&t->in);
    if (!symbol)
        return;
    memcpy(&fn, &symbol, sizeof fn);
    fn(t->edit);
    t->edit = NULL;
}
