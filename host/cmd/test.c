/* mlhost test: files of tests, each in a sandbox of its own. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/mem.h"
#include "cmd/operator.h"
#include "cmd/tapes.h"
#include "run/services.h"
#include "run/text.h"
#include "run/worker.h"

static const char help[] =
    "usage: mlhost test [options] PATH...\n"
    "       mlhost test [options] --tape RUN\n"
    "\n"
    "Runs tests written in Lua (local t = require \"test\"; t.case(\"name\", function() t.eq(1 + "
    "1, 2) end)). A folder stands\n"
    "for all its .lua files whose names begin with test_ or end in _test.lua. Each file runs in a "
    "sandbox of its own.\n"
    "\n"
    "  --tape RUN             each recorded stage of a run (or of a folder made by mlhost replay "
    "--save) is a case: the\n"
    "                         script must ask what it asked then, and come to the same; nothing "
    "happens outside\n"
    "  --filter TEXT          only cases whose name holds TEXT\n"
    "  --timeout DURATION     per file (default 60s)\n"
    "  --json                 results as JSON lines\n"
    "  --junit FILE           results as JUnit XML too\n" OPERATOR_HELP "\n"
    "A file reads its workspace and writes below .mlhost/test; --allow-* gives more.\n"
    "\n"
    "examples:\n  mlhost test tests/lua\n  mlhost replay latest --save tests/tapes/release && "
    "mlhost test --tape tests/tapes/release\n"
    "\n"
    "exit status: 0 all passed, 1 some failed, 2 usage\n";

extern const struct command cmd_test;

struct suite {
    struct config config;
    struct loop *loop;
    struct services *services; /* of the local profile */
    struct operator_options operator_;
    struct value allowed;
    const char *filter, *timeout, *junit;
    struct option_list tapes;
    int64_t timeout_ns;
    bool json;
    struct value files;  /* array of paths */
    struct value report; /* array of { file, name, ok, message, ... } */
    int passed, failed, skipped;
};

static bool is_test(const char *name)
{
    size_t len = strlen(name);

    return len > 4 && strcmp(name + len - 4, ".lua") == 0 &&
           (strncmp(name, "test_", 5) == 0 ||
            (len > 9 && strcmp(name + len - 9, "_test.lua") == 0));
}

static int collect(struct suite *s, const char *path, bool given, int depth, struct error *err)
{
    struct stat status;
    struct dirent **names = NULL;

    if (stat(path, &status) < 0)
        return error_set(err, ERR_USAGE, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(status.st_mode)) {
        const char *slash = strrchr(path, '/');
        if (given || is_test(slash ? slash + 1 : path))
            value_push_string(&s->files, path);
        return 0;
    }
    int count = depth < 32 ? scandir(path, &names, NULL, alphasort) : 0;
    int rc = 0;
    for (int i = 0; i < count; i++) {
        if (rc == 0 && names[i]->d_name[0] != '.') {
            cleanup_free char *child = path_join(path, names[i]->d_name);
            rc = collect(s, child, false, depth + 1, err);
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

struct told {
    const struct suite *suite;
    struct buf out; /* what the file printed: shown when something failed */
};

static void on_event(void *ctx, struct value *event)
{
    struct told *told = ctx;
    const char *t = value_get_string(event, "t", "");
    const struct value *text = value_get(event, "text");

    if ((strcmp(t, "output") == 0 || strcmp(t, "log") == 0) && text && text->kind == VALUE_STRING &&
        told->out.len < 1u << 20) {
        text_harmless_lines(text->as.string.data, text->as.string.len, &told->out);
        buf_putc(&told->out, '\n');
    }
}

static void show_json(const struct value *entry)
{
    cleanup_buf struct buf text = BUF_INIT;

    text_json(entry, TEXT_SORTED, &text);
    puts(text.data);
}

static void show_failure(const struct value *entry)
{
    const char *file = value_get_string(entry, "place", NULL);

    cleanup_buf struct buf text = BUF_INIT;

    buf_printf(&text, "FAILED %s: %s\n  ", value_get_string(entry, "file", ""),
               value_get_string(entry, "name", ""));
    if (file)
        buf_printf(&text, "%s:%lld: ", file, (long long)value_get_int(entry, "line", 0));
    buf_printf(&text, "%s\n", value_get_string(entry, "message", ""));
    if (value_get_string(entry, "hint", NULL))
        buf_printf(&text, "  hint: %s\n", value_get_string(entry, "hint", ""));
    text_print(stdout, text.data);
}

static void note(struct suite *s, const char *file, const struct value *result)
{
    struct value *entry = value_push(&s->report);
    bool ok = value_get_bool(result, "ok", false);
    const char *skipped = value_get_string(result, "skipped", NULL);

    value_set_map(entry);
    value_put_string(entry, "file", file);
    value_put_string(entry, "name", value_get_string(result, "name", "(file)"));
    value_put_bool(entry, "ok", ok || skipped);
    if (skipped) {
        s->skipped++;
        value_put_string(entry, "skipped", skipped);
        if (!s->json)
            printf("SKIPPED %s: %s: %s\n", file, value_get_string(result, "name", ""), skipped);
    } else if (ok) {
        s->passed++;
    } else {
        s->failed++;
        value_put_string(entry, "message", value_get_string(result, "message", ""));
        value_put_string(entry, "hint", value_get_string(result, "hint", NULL));
        value_put_string(entry, "place", value_get_string(result, "file", NULL));
        value_put_int(entry, "line", value_get_int(result, "line", 0));
        if (!s->json)
            show_failure(entry);
    }
    if (s->json)
        show_json(entry);
}

static void run_file(struct suite *s, const char *file)
{
    struct broker_spec spec = {.config = &s->config,
                               .mode = "test",
                               .run_id = "test",
                               .timeout_ns = s->timeout_ns,
                               .grace_ns = NS_PER_S,
                               .allow_degraded = s->operator_.allow_degraded};
    struct told told = {.suite = s};
    struct value result = {0};
    struct error err = {0};
    cleanup_free char *script = realpath(file, NULL);
    cleanup_free char *out_dir = mem_printf("%s/test/%d", s->config.state, (int)getpid());
    int before = s->failed;

    spec.script = script;
    spec.out_dir = out_dir;
    spec.local_socket = s->services ? services_socket(s->services) : NULL;
    value_set_map(&spec.context);
    value_put_string(&spec.context, "filter", s->filter);
    value_put_string(&spec.context, "workspace", s->config.workspace);
    value_copy(&spec.permissions, &s->allowed);
    if (worker_ask(s->loop, &spec, on_event, &told, &result, &err) < 0) {
        struct value failure = {0};
        value_set_map(&failure);
        value_put_string(&failure, "message", err.message);
        if (err.hint[0])
            value_put_string(&failure, "hint", err.hint);
        note(s, file, &failure);
        value_free(&failure);
    } else {
        const struct value *cases = value_get(&result, "cases");
        for (size_t i = 0; i < value_count(cases); i++)
            note(s, file, value_at(cases, i));
    }
    if (s->failed > before && told.out.len && !s->json)
        printf("---- what %s printed ----\n%s----\n", file, told.out.data);
    buf_free(&told.out);
    value_free(&result);
    value_free(&spec.context);
    value_free(&spec.permissions);
    dir_remove(out_dir, NULL);
}

/* A recorded run as a test of its pipeline. */
static int replay_tapes(struct suite *s, const char *run, struct error *err)
{
    struct tapes tapes = {0};
    int rc = tapes_open(run, false, &tapes, err);

    if (rc == 0 && value_count(&tapes.list) == 0)
        rc = error_set(err, ERR_USAGE, "%s holds no tapes", run);
    for (size_t i = 0; rc == 0 && i < value_count(&tapes.list); i++) {
        const struct value *tape = value_at(&tapes.list, i);
        bool always = strcmp(value_get_string(tape, "try", ""), "always") == 0;
        cleanup_free char *name =
            mem_printf("%s%s", value_get_string(tape, "stage", ""), always ? " (always)" : "");
        struct replay replay = {.config = &tapes.config,
                                .script = tapes.script,
                                .blobs = tapes.blobs,
                                .path = value_get_string(tape, "path", ""),
                                .timeout_ns = s->timeout_ns};
        struct replay_result result = {0};
        cleanup_value struct value entry = {0};
        cleanup_buf struct buf text = BUF_INIT;
        if (s->filter && !strstr(name, s->filter))
            continue;
        rc = replay_run(s->loop, &replay, &result, err);
        if (rc == 0) {
            tapes_explain(&result, &text);
            value_set_map(&entry);
            value_put_string(&entry, "name", name);
            value_put_bool(&entry, "ok", result.outcome <= REPLAY_CUT);
            value_put_string(&entry, "message", text.data);
            note(s, run, &entry);
        }
        replay_result_free(&result);
    }
    worker_settle(s->loop);
    tapes_close(&tapes);
    return rc;
}

static int write_junit(const struct suite *s, struct error *err)
{
    cleanup_buf struct buf out = BUF_INIT;

    buf_printf(
        &out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"%d\" failures=\"%d\">\n"
        "<testsuite name=\"mlhost test\" tests=\"%d\" failures=\"%d\" skipped=\"%d\">\n",
        s->passed + s->failed + s->skipped, s->failed, s->passed + s->failed + s->skipped,
        s->failed, s->skipped);
    for (size_t i = 0; i < value_count(&s->report); i++) {
        const struct value *entry = value_at(&s->report, i);
        buf_puts(&out, "<testcase classname=\"");
        text_xml(value_get_string(entry, "file", ""), &out);
        buf_puts(&out, "\" name=\"");
        text_xml(value_get_string(entry, "name", ""), &out);
        buf_puts(&out, "\">");
        if (value_get_string(entry, "skipped", NULL)) {
            buf_puts(&out, "<skipped/>");
        } else if (!value_get_bool(entry, "ok", false)) {
            buf_puts(&out, "<failure message=\"");
            text_xml(value_get_string(entry, "message", ""), &out);
            buf_puts(&out, "\"/>");
        }
        buf_puts(&out, "</testcase>\n");
    }
    buf_puts(&out, "</testsuite>\n</testsuites>\n");
    return file_write(AT_FDCWD, s->junit, out.data, out.len, false, err);
}

static void say(void *ctx, const char *level, const char *text)
{
    (void)ctx;
    if (strcmp(level, "error") == 0)
        fprintf(stderr, "mlhost: %s\n", text);
}

static int run(struct suite *s, int argc, char **argv, struct error *err)
{
    if (config_load(NULL, s->operator_.profile, &s->config, err) < 0)
        return -1;
    if (duration_parse(s->timeout, &s->timeout_ns, err) < 0)
        return error_wrap(err, "--timeout");
    value_set_map(&s->allowed);
    for (int kind = 0; kind < PERM_COUNT; kind++) {
        struct value *list = value_put(&s->allowed, permission_names[kind]);
        value_set_array(list);
        for (int i = 0; i < s->operator_.allow[kind].count; i++)
            value_push_string(list, s->operator_.allow[kind].items[i]);
    }
    s->loop = loop_new(err);
    if (!s->loop)
        return -1;
    for (int i = 1; i < argc; i++) {
        if (collect(s, argv[i], true, 0, err) < 0)
            return -1;
    }
    for (int i = 0; i < s->tapes.count; i++) {
        if (replay_tapes(s, s->tapes.items[i], err) < 0)
            return -1;
    }
    if (value_count(&s->files) == 0 && s->tapes.count == 0)
        return error_set(err, ERR_USAGE,
                         "no test files; their names begin with test_ or end in _test.lua");
    if (value_count(&s->files) && config_is_local(&s->config)) {
        s->services = services_open(s->loop, &s->config, say, NULL, err);
        if (!s->services)
            return -1;
    }
    for (size_t i = 0; i < value_count(&s->files); i++)
        run_file(s, value_text(value_at(&s->files, i), ""));
    return s->junit ? write_junit(s, err) : 0;
}

static int test_run(int argc, char **argv)
{
    struct suite s = {.timeout = "60s"};
    struct error err = {0};
    const struct option_spec specs[] = {{"filter", OPTION_TEXT, &s.filter},
                                        {"timeout", OPTION_TEXT, &s.timeout},
                                        {"json", OPTION_FLAG, &s.json},
                                        {"junit", OPTION_TEXT, &s.junit},
                                        {"tape", OPTION_REPEAT, &s.tapes},
                                        OPERATOR_OPTIONS(s.operator_),
                                        {.name = NULL}};
    int words = options_parse(&cmd_test, specs, argc, argv);

    if (words < 0)
        return words == -2 ? 0 : 2;
    if (words < 2 && s.tapes.count == 0) {
        fputs(help, stderr);
        return 2;
    }
    value_set_array(&s.files);
    value_set_array(&s.report);
    int rc = run(&s, words, argv, &err);
    services_close(s.services);
    int status = rc < 0 ? command_fail(&err) : s.failed > 0;
    if (rc == 0 && !s.json) {
        if (s.skipped)
            printf("%d skipped\n", s.skipped);
        printf("%d passed, %d failed\n", s.passed, s.failed);
    }
    value_free(&s.files);
    value_free(&s.report);
    value_free(&s.allowed);
    free((void *)s.tapes.items);
    if (s.loop)
        loop_free(s.loop);
    config_free(&s.config);
    return status;
}

const struct command cmd_test = {
    .name = "test",
    .summary = "run tests written in Lua",
    .help = help,
    .run = test_run,
};
