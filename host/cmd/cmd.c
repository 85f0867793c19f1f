#include "cmd/cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/mem.h"
#include "run/text.h"

extern const struct command cmd_run, cmd_plan, cmd_check, cmd_runs, cmd_logs, cmd_replay;
extern const struct command cmd_doctor;
extern const struct command cmd_serve, cmd_task_runner, cmd_build_step;
extern const struct command cmd_model, cmd_image, cmd_component, cmd_test, cmd_repl, cmd_help;
extern const struct command cmd_version;

/* In the order in which `mlhost help` lists them. */
const struct command *const commands[] = {
    &cmd_run,    &cmd_plan,  &cmd_check,       &cmd_runs,       &cmd_logs,      &cmd_replay,
    &cmd_doctor, &cmd_serve, &cmd_task_runner, &cmd_build_step, &cmd_component, &cmd_image,
    &cmd_model,  &cmd_repl,  &cmd_test,        &cmd_help,       &cmd_version,   NULL,
};

const struct command *command_find(const char *name)
{
    for (const struct command *const *c = commands; *c; c++) {
        if (strcmp((*c)->name, name) == 0)
            return *c;
    }
    return NULL;
}

int command_fail(const struct error *err)
{
    fputs("mlhost: ", stderr);
    text_print(stderr, err->message);
    fputs(err->hint[0] ? "\n  hint: " : "\n", stderr);
    if (err->hint[0]) {
        text_print(stderr, err->hint);
        fputs("\n", stderr);
    }
    return error_exit_code(err->code);
}

/* Does `word` (without dashes, up to `=`) name this option? */
static bool names(const struct option_spec *spec, const char *word, size_t len)
{
    const char *comma = strchr(spec->name, ',');
    size_t long_len = comma ? (size_t)(comma - spec->name) : strlen(spec->name);

    if (len == long_len && memcmp(spec->name, word, len) == 0)
        return true;
    return comma && len == 1 && comma[1] == word[0];
}

static int unknown(const struct command *command, const struct option_spec *specs, const char *word)
{
    const char *known[64] = {NULL};
    size_t count = 0;

    for (const struct option_spec *s = specs; s->name && count < 64; s++)
        known[count++] = mem_strndup(s->name, strcspn(s->name, ","));
    const char *near = near_miss(word + strspn(word, "-"), known, count);
    fprintf(stderr, "mlhost %s: unknown option %s", command->name, word);
    if (near)
        fprintf(stderr, " (did you mean --%s?)", near);
    fprintf(stderr, "\n  hint: mlhost %s --help lists the options\n", command->name);
    for (size_t i = 0; i < count; i++)
        free((void *)known[i]);
    return -1;
}

static void set(const struct option_spec *spec, const char *text)
{
    if (spec->kind == OPTION_TEXT) {
        *(const char **)spec->to = text;
        return;
    }
    struct option_list *list = spec->to;
    list->items = mem_array(list->items, (size_t)list->count + 1, sizeof *list->items);
    list->items[list->count++] = text;
}

int options_parse(const struct command *command, const struct option_spec *specs, int argc,
                  char **argv)
{
    int words = 1;
    bool only_words = false;

    for (int i = 1; i < argc; i++) {
        char *word = argv[i];
        if (only_words || word[0] != '-' || word[1] == '\0') {
            argv[words++] = word;
            continue;
        }
        if (strcmp(word, "--") == 0) {
            only_words = true;
            continue;
        }
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            fputs(command->help, stdout);
            return -2;
        }
        const char *name = word + (word[1] == '-' ? 2 : 1);
        const char *equals = strchr(name, '=');
        size_t len = equals ? (size_t)(equals - name) : strlen(name);
        const struct option_spec *spec = specs;
        while (spec->name && !names(spec, name, len))
            spec++;
        if (!spec->name)
            return unknown(command, specs, word);
        if (spec->kind == OPTION_FLAG) {
            if (equals) {
                fprintf(stderr, "mlhost %s: --%.*s takes no value\n", command->name, (int)len,
                        name);
                return -1;
            }
            *(bool *)spec->to = true;
        } else if (equals) {
            set(spec, equals + 1);
        } else if (i + 1 < argc) {
            set(spec, argv[++i]);
        } else {
            fprintf(stderr, "mlhost %s: --%.*s needs a value\n", command->name, (int)len, name);
            return -1;
        }
    }
    return words;
}
