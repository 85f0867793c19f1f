/* mlhost help NAME: of a command, or of a primitive. */
#include <stdio.h>
#include <string.h>

#include "base/config.h"
#include "base/mem.h"
#include "broker/primitive.h"
#include "cmd/cmd.h"
#include "cmd/doc.h"

extern const struct command cmd_help;

static void arguments(const char *args, struct buf *out)
{
    for (const char *at = args; *at;) {
        at += strspn(at, " ");
        size_t len = strcspn(at, " "), name = strcspn(at, ": ");
        if (len == 0)
            break;
        bool optional = at[len - 1] == '?';
        size_t type = len > name ? len - name - 1 - optional : 0;
        buf_printf(out, "  %-16.*s %.*s%s\n", (int)name, at, (int)type, at + name + (type != 0),
                   optional ? " (optional)" : "");
        at += len;
    }
}

static void one(const struct primitive *row, struct buf *out)
{
    const struct signature *s = &row->sign;

    buf_printf(out, "host.%s", s->name);
    buf_printf(out, "%s%s\n  %s\n", s->returns && s->returns[0] ? " -> " : "",
               s->returns ? s->returns : "", s->doc);
    if (s->args[0]) {
        buf_puts(out, "\narguments, in this order or as one table by name:\n");
        arguments(s->args, out);
    }
}

bool doc_print(const char *name, struct buf *out)
{
    size_t count, len, found = 0;
    const struct primitive *const *rows = primitive_table(&count);

    if (strncmp(name, "host.", 5) == 0)
        name += 5;
    const struct primitive *row = primitive_find(name);
    if (row) {
        one(row, out);
        return true;
    }
    len = strlen(name);
    for (size_t i = 0; i < count; i++) {
        bool inside = strncmp(rows[i]->sign.name, name, len) == 0 &&
                      (len == 0 || rows[i]->sign.name[len] == '.');
        if (inside && ++found)
            buf_printf(out, "  %-32s %s\n", rows[i]->sign.name, rows[i]->sign.doc);
    }
    return found > 0;
}

static int no_such(const char *name)
{
    size_t count, known_count = 0;
    const struct primitive *const *rows = primitive_table(&count);
    const char **known = mem_array(NULL, count + 64, sizeof *known);

    for (const struct command *const *c = commands; *c && known_count < 64; c++)
        known[known_count++] = (*c)->name;
    for (size_t i = 0; i < count; i++)
        known[known_count++] = rows[i]->sign.name;
    const char *near = near_miss(name, known, known_count);
    fprintf(stderr, "mlhost: no command or primitive '%s'", name);
    if (near)
        fprintf(stderr, " (did you mean '%s'?)", near);
    fputs("\n  hint: mlhost help lists the commands, mlhost help primitives the primitives\n",
          stderr);
    mem_cleanup(&known);
    return 2;
}

static int help_run(int argc, char **argv)
{
    const char *format = NULL;
    const struct option_spec options[] = {{"format", OPTION_TEXT, &format}, {0}};
    cleanup_buf struct buf text = BUF_INIT;
    int words = options_parse(&cmd_help, options, argc, argv);

    if (words < 0)
        return words == -2 ? 0 : 2;
    if (format) {
        if (!doc_format(format, &text)) {
            fprintf(
                stderr,
                "mlhost help: unknown format '%s'\n  hint: --format markdown or --format luals\n",
                format);
            return 2;
        }
        fputs(text.data, stdout);
        return 0;
    }
    const char *name = words > 1 ? argv[1] : "help";
    const struct command *command = command_find(name);
    if (command)
        fputs(command->help, stdout);
    else if (doc_print(strcmp(name, "primitives") == 0 ? "" : name, &text))
        fputs(text.data, stdout);
    else
        return no_such(name);
    return 0;
}

const struct command cmd_help = {
    .name = "help",
    .summary = "help on a command or a primitive",
    .help = "usage: mlhost help [COMMAND | PRIMITIVE | AREA | primitives]\n"
            "       mlhost help --format markdown|luals\n\n"
            "Without a word: the commands. An AREA such as registry lists its primitives.\n\n"
            "  --format KIND  all primitives: as Markdown, or as annotations for editors with a "
            "Lua language server\n\n"
            "examples:\n  mlhost help fs.read\n  mlhost help --format luals >types/host.lua\n",
    .run = help_run,
};
