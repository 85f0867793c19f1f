/* Runs a script's text through a real broker and a real, sealed VM, and keeps what came out. */
#ifndef MLHOST_TESTS_STAGE_H
#define MLHOST_TESTS_STAGE_H

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "broker/broker.h"
#include "check.h"

struct stage {
    char folder[64]; /* the workspace */
    struct config config;
    struct broker_spec spec;
    struct value events;     /* array */
    struct value result;     /* the last event */
    struct buf out;          /* of all output events */
    int64_t cancel_after_ms; /* 0: never */
    int64_t elapsed_ms;
};

static inline void stage_open(struct stage *s, const char *mode)
{
    memset(s, 0, sizeof *s);
    memcpy(s->folder, "/tmp/mlhost-stage-XXXXXX", sizeof "/tmp/mlhost-stage-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    s->config.workspace = s->folder;
    s->config.state = mem_printf("%s/.mlhost", s->folder);
    s->config.profile = mem_strdup("local");
    value_set_map(&s->config.root);
    s->spec.config = &s->config;
    s->spec.mode = mode;
    s->spec.out_dir = mem_printf("%s/out", s->folder);
    s->spec.run_id = "run-1";
    s->spec.timeout_ns = 20 * NS_PER_S;
    s->spec.grace_ns = 500 * NS_PER_MS;
    s->spec.allow_degraded = true;
    value_set_map(&s->spec.context);
    value_set_map(&s->spec.permissions);
}

static inline void stage_close(struct stage *s)
{
    dir_remove(s->folder, NULL);
    free(s->config.state);
    free(s->config.profile);
    free((char *)s->spec.out_dir);
    free((char *)s->spec.script);
    value_free(&s->config.root);
    value_free(&s->spec.context);
    value_free(&s->spec.permissions);
    value_free(&s->events);
    value_free(&s->result);
    buf_free(&s->out);
}

static inline void stage_file(struct stage *s, const char *name, const char *text)
{
    cleanup_free char *path = path_join(s->folder, name);
    struct error err = {0};
    ok(file_write(AT_FDCWD, path, text, strlen(text), false, &err), err);
}

static inline void stage_permit(struct stage *s, const char *kind, const char *pattern)
{
    struct value *list = value_get(&s->spec.permissions, kind);
    if (!list) {
        list = value_put(&s->spec.permissions, kind);
        value_set_array(list);
    }
    value_push_string(list, pattern);
}

/* text is the whole script, in main.lua. */
static inline void stage_run(struct stage *s, const char *text)
{
    struct sandbox_child child;
    struct error err = {0};
    struct buf in = BUF_INIT;
    int fd;
    int64_t start = clock_now();
    bool asked = false;

    stage_file(s, "main.lua", text);
    free((char *)s->spec.script);
    s->spec.script = path_join(s->folder, "main.lua");
    value_free(&s->events);
    value_set_array(&s->events);
    value_free(&s->result);
    buf_clear(&s->out);
    ok(broker_start(&s->spec, &child, &fd, &err), err);
    for (;;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int left = s->cancel_after_ms && !asked ? (int)s->cancel_after_ms : 30000;
        int ready = poll(&wait, 1, left);
        if (ready == 0 && s->cancel_after_ms && !asked) {
            struct value cancel = {0};
            struct buf out = BUF_INIT;
            value_set_map(&cancel);
            value_put_string(&cancel, "t", "cancel");
            frame_append(&cancel, &out);
            ok(fd_write_all(fd, out.data, out.len, &err), err);
            buf_free(&out);
            value_free(&cancel);
            asked = true;
            continue;
        }
        assert_int_equal(ready, 1);
        ssize_t got = read(fd, buf_reserve(&in, 65536), 65536);
        if (got <= 0)
            break;
        in.len += (size_t)got;
        for (;;) {
            struct value frame = {0};
            int taken = frame_take(&in, &frame, &err);
            if (taken <= 0)
                break;
            if (strcmp(value_get_string(&frame, "t", ""), "output") == 0) {
                const struct value *piece = value_get(&frame, "text");
                buf_append(&s->out, piece->as.string.data, piece->as.string.len);
            }
            if (strcmp(value_get_string(&frame, "t", ""), "result") == 0)
                value_copy(&s->result, &frame);
            value_move(value_push(&s->events), &frame);
        }
    }
    s->elapsed_ms = (clock_now() - start) / NS_PER_MS;
    assert_int_equal(waitpid(child.pid, NULL, 0), child.pid);
    close(child.pidfd);
    close(fd);
    buf_free(&in);
    if (s->result.kind != VALUE_MAP)
        fail_msg("no result");
    if (!s->out.data)
        buf_puts(&s->out, "");
}

/* As stage_run, of a script whose one stage "main" does `body`. */
static inline void stage_do(struct stage *s, const char *body)
{
    cleanup_free char *text = mem_printf("stage \"main\" { run = function(cx)\n%s\nend }\n", body);
    s->spec.stage = "main";
    stage_run(s, text);
}

/* The result's value as JSON, or the error's message. */
static inline const char *stage_said(struct stage *s)
{
    static struct buf text;
    const struct value *error = value_get(&s->result, "error");
    buf_clear(&text);
    if (error)
        buf_printf(&text, "%s: %s", value_get_string(error, "code", "?"),
                   value_get_string(error, "message", "?"));
    else
        value_to_json(value_get(&s->result, "ok"), TEXT_SORTED, &text);
    return text.data;
}

static inline const char *stage_error(struct stage *s, const char *field)
{
    return value_get_string(value_get(&s->result, "error"), field, "");
}

#endif
