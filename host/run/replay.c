#include "run/replay.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/debug.h"
#include "run/worker.h"

#define PLAN_FILE_MAX (64u << 20)

const char *replay_outcome_name(enum replay_outcome outcome)
{
    static const char *const names[] = {"same", "cut", "differs", "diverged", "stuck"};

    return names[outcome];
}

void replay_result_free(struct replay_result *result)
{
    value_free(&result->then);
    value_free(&result->now);
    value_free(&result->where);
}

/* ---- one stage ---- */

struct session {
    const struct replay *replay;
    struct replay_result *result;
    struct loop *loop;
    struct worker *worker;
    const char *stage;
    struct debugger *debugger;
};

static void on_event(void *ctx, struct value *event)
{
    struct session *session = ctx;

    const char *t = value_get_string(event, "t", "");

    if (strcmp(t, "replay_end") == 0)
        value_move(&session->result->where, event);
    else if (strcmp(t, "replay_told") == 0)
        session->result->told = (size_t)value_get_int(event, "calls", 0);
    else if (session->debugger &&
             debugger_event(session->debugger, session->worker, session->stage, event))
        return;
    else if (session->replay->event)
        session->replay->event(session->replay->ctx, event);
}

static void on_end(void *ctx, struct worker_result *end)
{
    struct session *session = ctx;
    struct value *now = &session->result->now;

    if (session->debugger)
        debugger_forget(session->debugger, session->worker);
    value_set_map(now);
    if (end->skipped)
        value_put_string(now, "skipped", end->reason);
    else
        value_move(value_put(now, end->ok ? "ok" : "error"), end->ok ? &end->output : &end->error);
    loop_stop(session->loop);
}

static void on_interrupt(void *ctx)
{
    struct session *session = ctx;

    if (!session->debugger || !debugger_busy(session->debugger))
        worker_kill(session->worker);
}

/* The same form for what the tape says. Nil when the stage died. */
static void recorded_end(const struct tape *tape, struct value *then, bool *by_host)
{
    const struct tape_entry *last = tape->count ? &tape->items[tape->count - 1] : NULL;

    *by_host = false;
    if (!last || last->kind != TAPE_DONE)
        return;
    const struct value *ok = value_get(&last->frame, "ok"),
                       *error = value_get(&last->frame, "error");
    *by_host = value_get_bool(&last->frame, "by_host", false);
    value_set_map(then);
    if (error) {
        value_copy(value_put(then, "error"), error);
    } else if (value_get_bool(ok, "skipped", false)) {
        value_put_string(then, "skipped", value_get_string(ok, "reason", ""));
    } else {
        const struct value *value = value_get(ok, "value");
        struct value *to = value_put(then, "ok");
        if (value)
            value_copy(to, value);
    }
}

static bool same_end(const struct value *a, const struct value *b)
{
    const struct value *one = value_get(a, "error"), *other = value_get(b, "error");

    if (!one || !other)
        return value_equal(a, b);
    return strcmp(value_get_string(one, "code", ""), value_get_string(other, "code", "")) == 0 &&
           strcmp(value_get_string(one, "message", ""), value_get_string(other, "message", "")) ==
               0;
}

static enum replay_outcome judge(const struct replay_result *result, bool by_host)
{
    const char *code = value_get_string(value_get(&result->now, "error"), "code", "");
    const char *then = value_get_string(value_get(&result->then, "error"), "code", "");
    bool died = result->then.kind == VALUE_NIL || by_host || strcmp(then, "timeout") == 0;
    bool out_of_tape = strcmp(code, "conflict") == 0;

    if (result->where.kind == VALUE_MAP && value_get(&result->where, "held"))
        return REPLAY_DIVERGED;
    if (died && (out_of_tape || strcmp(code, "timeout") == 0))
        return REPLAY_CUT;
    if (result->where.kind == VALUE_MAP)
        return REPLAY_DIVERGED; /* asks on where it had ended */
    if (strcmp(code, "timeout") == 0 && result->told < result->calls)
        return REPLAY_STUCK;
    return same_end(&result->then, &result->now) ? REPLAY_SAME : REPLAY_DIFFERS;
}

int replay_run(struct loop *loop, const struct replay *replay, struct replay_result *out,
               struct error *err)
{
    struct session session = {.replay = replay, .result = out, .loop = loop};
    struct worker_handler handler = {.event = on_event, .end = on_end, .ctx = &session};
    struct tape tape;
    bool by_host;

    *out = (struct replay_result){0};
    if (tape_load(replay->path, replay->blobs, &tape, err) < 0)
        return -1;
    const struct value *start = value_get(&tape.head, "start");
    struct broker_spec spec = {.config = replay->config,
                               .mode = value_get_string(start, "mode", "stage"),
                               .script = replay->script,
                               .stage = value_get_string(start, "stage", ""),
                               .run_id = value_get_string(&tape.head, "run", ""),
                               .timeout_ns =
                                   replay->timeout_ns ? replay->timeout_ns : REPLAY_TIMEOUT_NS,
                               .grace_ns = NS_PER_S,
                               .play = replay->path,
                               .blobs = replay->blobs,
                               .replay = true};
    if (replay->debug) {
        spec.debug = true;
        spec.until_file = replay->until_file;
        spec.until_line = replay->until_line;
        spec.until_call = replay->until_call;
        session.debugger = debugger_new(loop, replay->config, &(struct debugger_handler){0});
    }
    recorded_end(&tape, &out->then, &by_host);
    out->calls = tape.calls;
    session.stage = spec.stage;
    struct loop_watch *interrupt = loop_signal(loop, SIGINT, on_interrupt, &session);
    session.worker = worker_start(loop, &spec, &handler, err);
    int rc = session.worker ? loop_run(loop, err) : -1;
    loop_end(interrupt);
    debugger_free(session.debugger);
    tape_free(&tape);
    if (rc < 0)
        return -1;
    out->outcome = judge(out, by_host);
    return 0;
}

/* ---- the tapes of a run ---- */

static int note_tape(const char *folder, const char *name, bool all, struct value *out,
                     struct error *err)
{
    cleanup_free char *path = path_join(folder, name);
    cleanup_free char *no_blobs = mem_strdup("");
    struct tape tape;

    if (tape_load(path, no_blobs, &tape, err) < 0)
        return -1;
    const char *stage = value_get_string(value_get(&tape.head, "start"), "stage", "");
    struct value *entry = NULL;
    bool stage_again = strcmp(name, "tape-always") != 0;
    for (size_t i = 0; !all && stage_again && i < value_count(out); i++) {
        struct value *other = value_at(out, i);
        if (strcmp(value_get_string(other, "stage", ""), stage) != 0 ||
            strcmp(value_get_string(other, "try", ""), "always") == 0)
            continue;
        entry = other;
    }
    int64_t number = stage_again ? strtoll(name + strlen("tape-"), NULL, 10) : 0;
    if (entry && strtoll(value_get_string(entry, "try", "0"), NULL, 10) > number) {
        tape_free(&tape);
        return 0;
    }
    if (!entry)
        entry = value_push(out);
    value_free(entry);
    value_set_map(entry);
    value_put_string(entry, "stage", stage);
    value_put_string(entry, "try", name + strlen("tape-"));
    value_put_string(entry, "path", path);
    value_put_int(entry, "time", value_get_int(&tape.head, "time", 0));
    value_put_int(entry, "calls", (int64_t)tape.calls);
    tape_free(&tape);
    return 0;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = value_get_int(a, "time", 0), y = value_get_int(b, "time", 0);

    return x < y ? -1 : x > y;
}

int replay_list(const char *dir, bool all, struct value *out, struct error *err)
{
    cleanup_free char *stages = path_join(dir, "stages");
    DIR *folders = opendir(stages);
    const struct dirent *folder;
    int rc = 0;

    value_set_array(out);
    while (rc == 0 && folders && (folder = readdir(folders))) {
        if (folder->d_name[0] == '.')
            continue;
        cleanup_free char *path = path_join(stages, folder->d_name);
        DIR *files = opendir(path);
        const struct dirent *file;
        while (rc == 0 && files && (file = readdir(files))) {
            if (strncmp(file->d_name, "tape-", 5) == 0)
                rc = note_tape(path, file->d_name, all, out, err);
        }
        if (files)
            closedir(files);
    }
    if (folders)
        closedir(folders);
    if (rc == 0 && value_count(out) > 1)
        qsort(out->as.array.items, out->as.array.count, sizeof *out->as.array.items, by_time);
    return rc;
}

/* ---- keeping one ---- */

static void replace_path(struct value *v, const char *from)
{
    static const char to[] = "/workspace";
    size_t len = strlen(from);

    if (v->kind == VALUE_STRING && memmem(v->as.string.data, v->as.string.len, from, len)) {
        cleanup_buf struct buf text = BUF_INIT;
        const char *at = v->as.string.data, *end = at + v->as.string.len;
        const char *next;
        while ((next = memmem(at, (size_t)(end - at), from, len))) {
            buf_append(&text, at, (size_t)(next - at));
            buf_puts(&text, to);
            at = next + len;
        }
        buf_append(&text, at, (size_t)(end - at));
        value_free(v);
        value_set_bytes(v, text.data, text.len);
    }
    for (size_t i = 0; v->kind == VALUE_ARRAY && i < v->as.array.count; i++)
        replace_path(&v->as.array.items[i], from);
    for (size_t i = 0; v->kind == VALUE_MAP && i < v->as.map.count; i++)
        replace_path(&v->as.map.pairs[i].value, from);
}

static int save_tape(const struct value *entry, const char *workspace, const char *to,
                     struct error *err)
{
    const char *path = value_get_string(entry, "path", "");
    const char *name = strrchr(path, '/'), *folder = name;
    cleanup_buf struct buf bytes = BUF_INIT;
    struct tape tape;

    while (folder > path && folder[-1] != '/')
        folder--;
    cleanup_free char *out_dir = mem_printf("%s/stages/%.*s", to, (int)(name - folder), folder);
    cleanup_free char *out = path_join(out_dir, name + 1);
    if (tape_load(path, "", &tape, err) < 0)
        return -1;
    replace_path(&tape.head, workspace);
    frame_append(&tape.head, &bytes);
    for (size_t i = 0; i < tape.count; i++) {
        replace_path(&tape.items[i].frame, workspace);
        frame_append(&tape.items[i].frame, &bytes);
    }
    tape_free(&tape);
    return dir_make(out_dir, err) < 0
               ? -1
               : file_write(AT_FDCWD, out, bytes.data, bytes.len, false, err);
}

static int copy_file(const char *from, const char *to, const char *name, struct error *err)
{
    cleanup_buf struct buf bytes = BUF_INIT;
    cleanup_free char *source = path_join(from, name);
    cleanup_free char *target = path_join(to, name);

    return file_read(AT_FDCWD, source, FRAME_MAX, &bytes, err) < 0
               ? -1
               : file_write(AT_FDCWD, target, bytes.data ? bytes.data : "", bytes.len, false, err);
}

static int save_blobs(const char *dir, const char *to, struct error *err)
{
    cleanup_free char *from = path_join(dir, "blobs");
    cleanup_free char *into = path_join(to, "blobs");
    DIR *files = opendir(from);
    const struct dirent *file;
    int rc = files ? dir_make(into, err) : 0;

    while (rc == 0 && files && (file = readdir(files))) {
        if (file->d_name[0] != '.')
            rc = copy_file(from, into, file->d_name, err);
    }
    if (files)
        closedir(files);
    return rc;
}

static int save_plan(const char *dir, const char *workspace, const char *to, struct error *err)
{
    cleanup_free char *path = path_join(dir, "plan.json");
    cleanup_free char *out = path_join(to, "plan.json");
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value plan = {0};

    if (file_read(AT_FDCWD, path, PLAN_FILE_MAX, &text, err) < 0 ||
        value_from_json(text.data ? text.data : "", text.len, path, NULL, &plan, err) < 0)
        return -1;
    replace_path(&plan, workspace);
    buf_clear(&text);
    value_to_json(&plan, TEXT_PRETTY, &text);
    buf_putc(&text, '\n');
    return file_write(AT_FDCWD, out, text.data, text.len, false, err);
}

int replay_save(const char *dir, const char *workspace, const char *to, struct error *err)
{
    cleanup_value struct value tapes = {0};
    int rc;

    if (access(to, F_OK) == 0) {
        error_set(err, ERR_EXISTS, "%s is there already", to);
        return error_hint(err, "remove it first, or give another folder");
    }
    if (replay_list(dir, false, &tapes, err) < 0)
        return -1;
    if (value_count(&tapes) == 0)
        return error_set(err, ERR_NOT_FOUND, "%s holds no tapes", dir);
    rc = dir_make(to, err) < 0 || save_plan(dir, workspace, to, err) < 0 ||
                 save_blobs(dir, to, err) < 0
             ? -1
             : 0;
    for (size_t i = 0; rc == 0 && i < value_count(&tapes); i++)
        rc = save_tape(value_at(&tapes, i), workspace, to, err);
    return rc;
}
