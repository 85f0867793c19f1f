/*
 * mlhost component FILE.lua: runs a component written in Lua, as a step of a Kubeflow pipeline does
 * or by hand.
 *
 * Two short VMs: the first gives the declaration, which says what the words of the command line
 * are; the second runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/mem.h"
#include "cmd/cmd.h"
#include "run/text.h"
#include "run/worker.h"

static const char help[] = "usage: mlhost component FILE.lua [--NAME VALUE]...\n"
                           "       mlhost component FILE.lua --executor_input JSON\n"
                           "\n"
                           "Runs the component that FILE.lua declares. --NAME gives an input its "
                           "value, and an output the path to write to;\n"
                           "NAME as in the component's inputs and outputs. With --executor_input "
                           "all of them come from Kubeflow's JSON.\n"
                           "\n"
                           "  --memory BYTES         of the script's heap (default 2 GiB)\n"
                           "  --describe             print the declaration as JSON\n"
                           "\n"
                           "example: mlhost component pipelines/components/training/main.lua "
                           "--train train.csv --validation val.csv \\\n"
                           "           --run_id demo --model model.json --metrics metrics.json\n"
                           "\n"
                           "exit status: 0 done, 1 failed, 2 usage, 4 permission denied\n";

#define FILE_INPUT_MAX (64u << 20)

struct component {
    struct config config;
    struct loop *loop;
    char *script;
    struct value declaration;
    struct value inputs;    /* name -> typed value */
    struct value outputs;   /* name -> path */
    struct value artifacts; /* name -> { name, uri, metadata } of the executor input */
    char *output_file;      /* of the executor input, or NULL */
    uint64_t memory;
};

/* ---- what the words mean ---- */

static int unknown(const struct component *c, const char *name, struct error *err)
{
    const struct value *maps[] = {value_get(&c->declaration, "inputs"),
                                  value_get(&c->declaration, "outputs")};
    const char *known[128];
    size_t count = 0;

    for (int m = 0; m < 2; m++) {
        for (size_t i = 0; i < value_count(maps[m]) && count < 128; i++)
            known[count++] = maps[m]->as.map.pairs[i].key;
    }
    const char *near = near_miss(name, known, count);
    error_set(err, ERR_USAGE, "component '%s' has no input or output '%s'%s%s%s",
              value_get_string(&c->declaration, "name", "?"), name, near ? " (did you mean '" : "",
              near ? near : "", near ? "'?)" : "");
    return error_hint(err, "mlhost component %s --describe lists them", c->script);
}

static int typed(const char *name, const char *type, const char *text, struct value *out,
                 struct error *err)
{
    char *end;

    errno = 0;
    if (strcmp(type, "int") == 0) {
        long long n = strtoll(text, &end, 10);
        if (*text && !*end && errno == 0) {
            value_set_int(out, n);
            return 0;
        }
        /* Kubeflow's numbers are doubles: 5 may come as 5.0. */
        double d = strtod(text, &end);
        if (*text && !*end && d >= -9007199254740992.0 && d <= 9007199254740992.0 &&
            d == (double)(long long)d) {
            value_set_int(out, (long long)d);
            return 0;
        }
        return error_set(err, ERR_USAGE, "--%s: '%s' is not a whole number", name, text);
    }
    if (strcmp(type, "float") == 0) {
        double d = strtod(text, &end);
        if (!*text || *end)
            return error_set(err, ERR_USAGE, "--%s: '%s' is not a number", name, text);
        value_set_real(out, d);
        return 0;
    }
    if (strcmp(type, "bool") == 0) {
        bool yes = strcasecmp(text, "true") == 0 || strcmp(text, "1") == 0;
        if (!yes && strcasecmp(text, "false") != 0 && strcmp(text, "0") != 0)
            return error_set(err, ERR_USAGE, "--%s: '%s' is neither true nor false", name, text);
        value_set_bool(out, yes);
        return 0;
    }
    if (strcmp(type, "json") == 0) {
        cleanup_free char *source = mem_printf("--%s", name);
        return value_from_json(text, strlen(text), source, NULL, out, err);
    }
    value_set_string(out, text);
    return 0;
}

static int give(struct component *c, const char *name, const char *text, struct error *err)
{
    const struct value *input = value_path(&c->declaration, "inputs");
    const struct value *spec = value_get(input, name);

    if (spec) {
        if (value_get(&c->inputs, name))
            return error_set(err, ERR_USAGE, "--%s is given twice", name);
        struct value v = {0};
        if (typed(name, value_get_string(spec, "type", "string"), text, &v, err) < 0) {
            value_free(&v);
            return -1;
        }
        value_move(value_put(&c->inputs, name), &v);
        return 0;
    }
    if (!value_get(value_get(&c->declaration, "outputs"), name))
        return unknown(c, name, err);
    value_put_string(&c->outputs, name, text);
    return 0;
}

/* ---- Kubeflow's executor input ---- */

/* Where the platform mounts a bucket: gs://bucket/key -> /gcs/bucket/key. */
static char *path_of_uri(const char *uri)
{
    static const struct {
        const char *scheme, *folder;
    } mounts[] = {{"gs://", "/gcs/"}, {"s3://", "/s3/"}, {"minio://", "/minio/"}, {"file://", ""}};

    for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
        size_t len = strlen(mounts[i].scheme);
        if (strncmp(uri, mounts[i].scheme, len) == 0)
            return mem_printf("%s%s", mounts[i].folder, uri + len);
    }
    return mem_strdup(uri);
}

static const struct value *first_artifact(const struct value *entry)
{
    return value_at(value_get(entry, "artifacts"), 0);
}

static int take_inputs(struct component *c, const struct value *from, struct error *err)
{
    const struct value *given[] = {value_get(from, "parameterValues"),
                                   value_get(from, "parameters"), value_get(from, "artifacts")};
    const struct value *declared = value_get(&c->declaration, "inputs");

    for (size_t i = 0; i < value_count(declared); i++) {
        const char *name = declared->as.map.pairs[i].key;
        const char *type = value_get_string(&declared->as.map.pairs[i].value, "type", "string");
        const struct value *v =
            value_get(given[0], name) ? value_get(given[0], name) : value_get(given[1], name);
        const struct value *artifact = first_artifact(value_get(given[2], name));
        if (artifact) {
            char *path = path_of_uri(value_get_string(artifact, "uri", ""));
            value_take_string(value_put(&c->inputs, name), path);
        } else if (v && v->kind == VALUE_STRING) {
            if (give(c, name, v->as.string.data, err) < 0)
                return -1;
        } else if (v && v->kind == VALUE_REAL && strcmp(type, "int") == 0) {
            value_put_int(&c->inputs, name, (int64_t)v->as.real);
        } else if (v) {
            value_copy(value_put(&c->inputs, name), v);
        }
    }
    return 0;
}

static int executor_input(struct component *c, const char *text, struct error *err)
{
    cleanup_value struct value doc = {0};

    if (value_from_json(text, strlen(text), "--executor_input", NULL, &doc, err) < 0)
        return -1;
    if (doc.kind != VALUE_MAP)
        return error_set(err, ERR_USAGE, "--executor_input is not a JSON object");
    if (take_inputs(c, value_get(&doc, "inputs"), err) < 0)
        return -1;
    const struct value *to = value_get(&doc, "outputs"),
                       *declared = value_get(&c->declaration, "outputs");
    for (size_t i = 0; i < value_count(declared); i++) {
        const char *name = declared->as.map.pairs[i].key;
        const char *file =
            value_get_string(value_get(value_get(to, "parameters"), name), "outputFile", NULL);
        const struct value *artifact = first_artifact(value_get(value_get(to, "artifacts"), name));
        if (file) {
            value_put_string(&c->outputs, name, file);
        } else if (artifact) {
            value_take_string(value_put(&c->outputs, name),
                              path_of_uri(value_get_string(artifact, "uri", "")));
            value_copy(value_put(&c->artifacts, name), artifact);
        }
    }
    const char *output_file = value_get_string(to, "outputFile", NULL);
    c->output_file = mem_strdup(output_file);
    return 0;
}

/* ---- running ---- */

static void put_line(FILE *to, const char *text, size_t len)
{
    cleanup_buf struct buf line = BUF_INIT;

    text_harmless_lines(text, len, &line);
    fprintf(to, "%s\n", line.data ? line.data : "");
}

static void on_event(void *ctx, struct value *event)
{
    const char *t = value_get_string(event, "t", ""),
               *level = value_get_string(event, "level", "info");

    (void)ctx;
    if (strcmp(t, "output") == 0) {
        const struct value *text = value_get(event, "text");
        FILE *to = value_get_int(event, "stream", 1) == 2 ? stderr : stdout;
        if (text && text->kind == VALUE_STRING)
            put_line(to, text->as.string.data, text->as.string.len);
        fflush(to);
    } else if (strcmp(t, "log") == 0) {
        bool bad = strcmp(level, "warning") == 0 || strcmp(level, "error") == 0;
        FILE *to = bad ? stderr : stdout;
        if (strcmp(level, "debug") == 0)
            return;
        cleanup_free char *line = mem_printf("%s%s%s", bad ? level : "", bad ? ": " : "",
                                             value_get_string(event, "text", ""));
        put_line(to, line, strlen(line));
        fflush(to);
    }
}

static void permit(struct value *permissions, const char *kind, const char *path)
{
    struct value *list = value_get(permissions, kind);

    if (!list) {
        list = value_put(permissions, kind);
        value_set_array(list);
    }
    value_push_string(list, path);
}

/* The paths that the caller gave are granted: reading inputs, writing outputs. */
static void permit_paths(const struct component *c, struct value *permissions)
{
    const struct value *declared[] = {value_get(&c->declaration, "inputs"),
                                      value_get(&c->declaration, "outputs")};
    const struct value *given[] = {&c->inputs, &c->outputs};

    for (int m = 0; m < 2; m++) {
        for (size_t i = 0; i < value_count(declared[m]); i++) {
            const struct value_pair *pair = &declared[m]->as.map.pairs[i];
            const char *path = value_get_string(given[m], pair->key, NULL);
            if (!path || strcmp(value_get_string(&pair->value, "type", ""), "path") != 0)
                continue;
            char *real = realpath(path, NULL);
            permit(permissions, m == 0 ? "read" : "write", real ? real : path);
            free(real);
        }
    }
}

static int ask(struct component *c, const char *phase, struct value *result, struct error *err)
{
    struct broker_spec spec = {.config = &c->config,
                               .mode = "component",
                               .script = c->script,
                               .run_id = "component",
                               .memory_limit = c->memory};
    bool declare = strcmp(phase, "declare") == 0;

    value_set_map(&spec.context);
    value_put_string(&spec.context, "phase", phase);
    value_copy(value_put(&spec.context, "inputs"), &c->inputs);
    value_copy(value_put(&spec.context, "outputs"), &c->outputs);
    const struct value *asked = value_get(&c->declaration, "permissions");
    if (asked && asked->kind == VALUE_MAP)
        value_copy(&spec.permissions, asked);
    else
        value_set_map(&spec.permissions);
    if (declare)
        spec.timeout_ns = 30 * NS_PER_S;
    else
        permit_paths(c, &spec.permissions);
    int rc = worker_ask(c->loop, &spec, on_event, NULL, result, err);
    value_free(&spec.context);
    value_free(&spec.permissions);
    return rc;
}

static int check_inputs(const struct component *c, struct error *err)
{
    const struct value *declared = value_get(&c->declaration, "inputs");

    for (size_t i = 0; i < value_count(declared); i++) {
        const struct value_pair *pair = &declared->as.map.pairs[i];
        if (!value_get(&c->inputs, pair->key) && !value_get_bool(&pair->value, "optional", false)) {
            error_set(err, ERR_USAGE, "component '%s' needs --%s (%s)",
                      value_get_string(&c->declaration, "name", "?"), pair->key,
                      value_get_string(&pair->value, "type", "string"));
            return error_hint(err, "mlhost component %s --describe lists its inputs", c->script);
        }
    }
    return 0;
}

static int write_text(const char *path, const struct buf *text, struct error *err)
{
    const char *slash = strrchr(path, '/');

    if (slash && slash != path) {
        cleanup_free char *folder = mem_strndup(path, (size_t)(slash - path));
        if (dir_make(folder, err) < 0)
            return -1;
    }
    return file_write(AT_FDCWD, path, text->data ? text->data : "", text->len, false, err);
}

/* Texts as they are, everything else as JSON: what Kubeflow reads from an output
 * parameter's file. */
static int write_outputs(const struct component *c, const struct value *result, struct error *err)
{
    const struct value *values = value_get(result, "outputs");

    for (size_t i = 0; i < value_count(values); i++) {
        const struct value_pair *pair = &values->as.map.pairs[i];
        const char *path = value_get_string(&c->outputs, pair->key, NULL);
        cleanup_buf struct buf text = BUF_INIT;
        if (pair->value.kind == VALUE_STRING)
            buf_append(&text, pair->value.as.string.data, pair->value.as.string.len);
        else
            value_to_json(&pair->value, TEXT_SORTED, &text);
        if (!path)
            printf("%s = ", pair->key), put_line(stdout, text.data, text.len);
        else if (write_text(path, &text, err) < 0)
            return error_wrap(err, "output '%s'", pair->key);
    }
    if (!c->output_file)
        return 0;
    cleanup_value struct value doc = {0};
    cleanup_buf struct buf text = BUF_INIT;
    value_set_map(&doc);
    struct value *artifacts = value_put(&doc, "artifacts");
    value_set_map(artifacts);
    const struct value *metadata = value_get(result, "metadata");
    for (size_t i = 0; i < value_count(&c->artifacts); i++) {
        const struct value_pair *pair = &c->artifacts.as.map.pairs[i];
        struct value *entry = value_put(artifacts, pair->key);
        value_set_map(entry);
        struct value *list = value_put(entry, "artifacts");
        value_set_array(list);
        struct value *artifact = value_push(list);
        value_copy(artifact, &pair->value);
        if (value_get(metadata, pair->key))
            value_copy(value_put(artifact, "metadata"), value_get(metadata, pair->key));
    }
    value_to_json(&doc, TEXT_SORTED, &text);
    return write_text(c->output_file, &text, err);
}

static int words(struct component *c, int argc, char **argv, bool *describe, struct error *err)
{
    for (int i = 2; i < argc; i++) {
        const char *word = argv[i];
        if (strncmp(word, "--", 2) != 0)
            return error_set(err, ERR_USAGE,
                             "unexpected word '%s'; inputs and outputs are given as --NAME VALUE",
                             word);
        if (strcmp(word, "--describe") == 0) {
            *describe = true;
            continue;
        }
        const char *equals = strchr(word, '=');
        cleanup_free char *name =
            equals ? mem_strndup(word + 2, (size_t)(equals - word - 2)) : mem_strdup(word + 2);
        if (!equals && i + 1 >= argc)
            return error_set(err, ERR_USAGE, "--%s needs a value", name);
        const char *text = equals ? equals + 1 : argv[++i];
        if (strcmp(name, "executor_input") == 0 || strcmp(name, "executor-input") == 0) {
            if (executor_input(c, text, err) < 0)
                return -1;
        } else if (strcmp(name, "memory") == 0 &&
                   !value_get(value_get(&c->declaration, "inputs"), "memory")) {
            c->memory = strtoull(text, NULL, 10);
        } else if (give(c, name, text, err) < 0) {
            return -1;
        }
    }
    return 0;
}

static int run(struct component *c, int argc, char **argv, struct error *err)
{
    cleanup_value struct value result = {0};
    bool describe = false;

    if (config_load(NULL, NULL, &c->config, err) < 0)
        return -1;
    c->script = realpath(argv[1], NULL);
    if (!c->script)
        return error_set(err, ERR_USAGE, "%s: %s", argv[1], strerror(errno));
    c->loop = loop_new(err);
    if (!c->loop || ask(c, "declare", &c->declaration, err) < 0)
        return -1;
    if (words(c, argc, argv, &describe, err) < 0)
        return -1;
    if (describe) {
        cleanup_buf struct buf text = BUF_INIT;
        text_json(&c->declaration, TEXT_PRETTY | TEXT_SORTED, &text);
        puts(text.data);
        return 0;
    }
    if (check_inputs(c, err) < 0 || ask(c, "run", &result, err) < 0)
        return -1;
    return write_outputs(c, &result, err);
}

static int component_run(int argc, char **argv)
{
    struct component c = {.memory = UINT64_C(2) << 30};
    struct error err = {0};

    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(help, stdout);
        return 0;
    }
    if (argc < 2) {
        fputs(help, stderr);
        return 2;
    }
    value_set_map(&c.inputs);
    value_set_map(&c.outputs);
    value_set_map(&c.artifacts);
    int rc = run(&c, argc, argv, &err);
    value_free(&c.declaration);
    value_free(&c.inputs);
    value_free(&c.outputs);
    value_free(&c.artifacts);
    free(c.output_file);
    free(c.script);
    if (c.loop)
        loop_free(c.loop);
    config_free(&c.config);
    return rc < 0 ? command_fail(&err) : 0;
}

const struct command cmd_component = {
    .name = "component",
    .summary = "run a pipeline component that is written in Lua",
    .help = help,
    .run = component_run,
};
