#include "run/debug_prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/terminal.h"
#include "run/text.h"

static int other(void *ctx, struct value *frame)
{
    const struct terminal *t = ctx;

    if (strcmp(value_get_string(frame, "t", ""), "closed") == 0)
        return -1;
    terminal_event(t, frame);
    return 0;
}

static void put_line(const struct terminal *t, const struct value *text)
{
    if (!text || text->kind != VALUE_STRING || !text->as.string.len)
        return;
    terminal_show(t, text->as.string.data, text->as.string.len);
    putchar('\n');
    fflush(stdout);
}

/* What the script answers: 1 goes on, 0 the session is over, as terminal_wait when that fails. */
static int evaluate(struct terminal *t, const char *text, bool *incomplete)
{
    struct value reply = {0};

    terminal_interrupts = 0;
    terminal_send(t, "eval", text);
    int rc = terminal_wait(t, "evaled", &reply);
    if (rc == TERMINAL_STUCK) {
        puts("\na library function is running, which only the end of the stage can end");
        fflush(stdout);
        terminal_send(t, "kill", NULL);
        rc = terminal_wait(t, "evaled", &reply);
    }
    if (rc < 0)
        return rc;
    *incomplete = strcmp(value_get_string(&reply, "status", ""), "incomplete") == 0;
    put_line(t, value_get(&reply, "output"));
    rc = value_get(&reply, "leave") == NULL;
    value_free(&reply);
    return rc;
}

/* Is the line a step, which an empty line repeats? */
static bool is_step(const char *line)
{
    static const char *const steps[] = {":s", ":step", ":n", ":next", ":f", ":finish"};

    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (strcmp(line, steps[i]) == 0)
            return true;
    }
    return false;
}

static void session(struct terminal *t, const struct value *stop, char **last)
{
    cleanup_buf struct buf text = BUF_INIT, name = BUF_INIT;
    const char *stage = value_get_string(stop, "stage", "");
    bool incomplete = false;

    text_harmless(stage, strlen(stage), &name);
    cleanup_free char *prompt = mem_printf("debug %s> ", name.data ? name.data : "");
    printf("%s ", name.data ? name.data : "");
    put_line(t, value_get(stop, "text"));
    for (;;) {
        if (terminal_poll(t) < 0)
            return;
        cleanup_free char *line = terminal_line(t, text.len ? "... " : prompt);
        if (!line) {
            if (t->tty)
                putchar('\n');
            terminal_send(t, "off", NULL);
            return;
        }
        if (line[0] == '\003') {
            buf_clear(&text);
            continue;
        }
        if (!text.len && line[strspn(line, " \t")] == '\0') {
            if (!t->tty || !*last)
                continue;
            buf_puts(&text, *last);
        } else {
            buf_printf(&text, "%s%s", text.len ? "\n" : "", line);
        }
        int rc = evaluate(t, text.data, &incomplete);
        if (rc > 0 && incomplete)
            continue;
        free(*last);
        *last = is_step(text.data) ? mem_strdup(text.data) : NULL;
        terminal_remember(t, text.data);
        buf_clear(&text);
        if (rc <= 0)
            return;
    }
}

void debug_prompt(int fd, const char *state)
{
    struct terminal t = {.fd = 3, .other = other, .ctx = &t};
    struct sigaction plain = {.sa_handler = SIG_DFL};
    struct value stop = {0};
    sigset_t none;
    char *last = NULL;

    /* It looks up, finds its socket closed, and leaves the terminal as it was. */
    prctl(PR_SET_PDEATHSIG, SIGINT);
    prctl(PR_SET_NAME, "mlhost-debug");
    for (int signo = 1; signo < 32; signo++)
        sigaction(signo, &plain, NULL);
    terminal_init(&t);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (fd != 3)
        dup2(fd, 3);
    syscall(SYS_close_range, 4, ~0u, 0);
    terminal_open(&t, state);
    for (;;) {
        int rc = terminal_wait(&t, "break", &stop);
        if (rc == TERMINAL_GONE)
            break;
        if (rc == 0)
            session(&t, &stop, &last);
        terminal_interrupts = 0;
        value_free(&stop);
    }
    terminal_close(&t);
    fflush(stdout);
    _exit(0);
}
