/*
 * mlhost image VERB ...: images and registries by hand. The verbs are Lua (lua/image), which runs
 * in the VM as any script does, with the rights of the person who types.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "base/mem.h"
#include "cmd/cmd.h"
#include "run/services_apart.h"
#include "run/text.h"
#include "run/worker.h"

static const char help[] =
    "usage: mlhost image VERB [words and options]\n"
    "\n"
    "Images and registries by hand; `mlhost image help` lists the verbs, `mlhost image help VERB` "
    "tells about one.\n"
    "A reference is [host/]name[:tag][@digest]; without a host it means the registry of the "
    "profile.\n"
    "\n"
    "  --json                 the result for machines\n"
    "  --profile NAME         the profile of mlhost.yaml to use (default: local, or "
    "MLHOST_PROFILE)\n"
    "\n"
    "examples:\n"
    "  mlhost image build . --tag acme.azurecr.io/training:v1 --push\n"
    "  mlhost image copy docker.io/library/debian:12 localhost:5000/debian:12\n"
    "\n"
    "exit status: 0 done, 1 failed, 2 usage, 3 timed out, 4 permission denied, 130 cancelled\n";

struct image {
    bool live; /* a bar is on the terminal */
    bool terminal;
};

static void clear_bar(struct image *image)
{
    if (image->live)
        fputs("\r\x1b[K", stderr);
    image->live = false;
}

static void show_bar(struct image *image, const struct value *event)
{
    int64_t done = value_get_int(event, "done", 0), total = value_get_int(event, "total", -1);
    cleanup_buf struct buf label = BUF_INIT;

    if (!image->terminal)
        return;
    text_shown(value_get_string(event, "label", ""), &label);
    fputs("\r\x1b[K", stderr);
    if (total > 0)
        fprintf(stderr, "%3d%% ", (int)(100.0 * (double)done / (double)total));
    fprintf(stderr, "%.60s %.1f", label.data ? label.data : "", (double)done / 1e6);
    if (total > 0)
        fprintf(stderr, " of %.1f", (double)total / 1e6);
    fputs(" MB", stderr);
    fflush(stderr);
    image->live = true;
}

/* What a RUN prints, and warnings, go to the second stream: the first is for the result. */
static void on_event(void *ctx, struct value *event)
{
    struct image *image = ctx;
    const char *t = value_get_string(event, "t", ""),
               *level = value_get_string(event, "level", "info");
    cleanup_buf struct buf line = BUF_INIT;

    if (strcmp(t, "progress") == 0) {
        show_bar(image, event);
        return;
    }
    if ((strcmp(t, "output") != 0 && strcmp(t, "log") != 0) || strcmp(level, "debug") == 0)
        return;
    const struct value *text = value_get(event, "text");
    if (!text || text->kind != VALUE_STRING)
        return;
    clear_bar(image);
    bool bad = strcmp(level, "warning") == 0 || strcmp(level, "error") == 0;
    text_harmless_lines(text->as.string.data, text->as.string.len, &line);
    fprintf(stderr, "%s%s%s\n", bad ? level : "", bad ? ": " : "", line.data ? line.data : "");
}

/* Whoever types may read, write and reach what the system lets this user. */
static void permit(struct value *permissions)
{
    static const char *const kinds[][2] = {
        {"read", "/"}, {"write", "/"}, {"net", "*"}, {"env", "*"}};

    value_set_map(permissions);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct value *list = value_put(permissions, kinds[i][0]);
        value_set_array(list);
        value_push_string(list, kinds[i][1]);
    }
}

/* Manifests are printed as they are, but not to a terminal, which would obey them. */
static void print_result(const struct value *result)
{
    const struct value *text = value_get(result, "text");
    cleanup_buf struct buf harmless = BUF_INIT;

    if (!text || text->kind != VALUE_STRING)
        return;
    if (!isatty(STDOUT_FILENO)) {
        fwrite(text->as.string.data, 1, text->as.string.len, stdout);
        return;
    }
    text_harmless_lines(text->as.string.data, text->as.string.len, &harmless);
    puts(harmless.data ? harmless.data : "");
}

static int run_verb(const struct config *config, struct loop *loop, int argc, char **argv,
                    struct error *err)
{
    struct broker_spec spec = {.config = config, .mode = "image", .run_id = "image"};
    struct image image = {.terminal = isatty(STDERR_FILENO)};
    struct services_apart services = {0};
    cleanup_value struct value result = {0};

    if (services_apart_open(config, &services, err) < 0)
        return -1;
    spec.local_socket = services.socket;

    value_set_map(&spec.context);
    struct value *words = value_put(&spec.context, "words");
    value_set_array(words);
    for (int i = 1; i < argc; i++)
        value_push_string(words, argv[i]);
    permit(&spec.permissions);
    int rc = worker_ask(loop, &spec, on_event, &image, &result, err);
    clear_bar(&image);
    services_apart_close(&services);
    value_free(&spec.context);
    value_free(&spec.permissions);
    if (rc < 0)
        return -1;
    if (value_get_bool(&result, "overview", false))
        fputs("usage: mlhost image VERB [words and options]\n\n", stdout);
    print_result(&result);
    return (int)value_get_int(&result, "status", 0);
}

static const char *profile_of(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--profile") == 0 && i + 1 < argc)
            return argv[i + 1];
        if (strncmp(argv[i], "--profile=", 10) == 0)
            return argv[i] + 10;
    }
    return NULL;
}

static int image_run(int argc, char **argv)
{
    struct config config = {0};
    struct error err = {0};

    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(help, argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    int rc = config_load(NULL, profile_of(argc, argv), &config, &err);
    struct loop *loop = rc < 0 ? NULL : loop_new(&err);
    rc = loop ? run_verb(&config, loop, argc, argv, &err) : -1;
    if (loop)
        loop_free(loop);
    config_free(&config);
    return rc < 0 ? command_fail(&err) : rc;
}

const struct command cmd_image = {
    .name = "image",
    .summary = "build, copy, inspect and change images; the registry by hand",
    .help = help,
    .run = image_run,
};
