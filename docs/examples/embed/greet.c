/*
 * A program that embeds mlhost and gives its scripts two primitives of its own.
 *
 *     cc greet.c $(pkg-config --cflags --libs libmlhost) -o greet
 *     ./greet run greet.lua
 *
 * It is mlhost in every other way: ./greet plan greet.lua, ./greet help example.greet, ./greet repl
 * ...
 */
#include <mlhost/mlhost.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* host.example.greet(name, times?) -> { text, length, stage } */
static int greet(struct mlhost_call *call, void *data)
{
    const char *greeting = data;
    const char *name = mlhost_arg_string(call, "name", "");
    int64_t times = mlhost_arg_int(call, "times", 1);
    struct mlhost_value *result = mlhost_result(call);
    char text[256];

    if (times < 1 || times > 10) {
        mlhost_fail(call, MLHOST_USAGE, "cannot greet %lld times", (long long)times);
        return mlhost_hint(call, "times is 1 to 10");
    }
    snprintf(text, sizeof text, "%s, %s!", greeting, name);
    mlhost_set_map(result);
    mlhost_set_string(mlhost_put(result, "text"), text);
    mlhost_set_int(mlhost_put(result, "length"), (int64_t)strlen(text));
    mlhost_set_string(mlhost_put(result, "stage"), mlhost_stage(call));

    struct mlhost_value *all = mlhost_put(result, "all");
    mlhost_set_array(all);
    for (int64_t i = 0; i < times; i++)
        mlhost_set_string(mlhost_push(all), text);
    mlhost_log(call, "info", "greeted %s", name);
    return 0;
}

/* host.example.count(path, letter, timeout?) -> how often a letter is in a file. Asks for the
 * permission `read` first. */
static int count(struct mlhost_call *call, void *data)
{
    const char *letter = mlhost_arg_string(call, "letter", "");
    char *path = mlhost_allow_read(call, mlhost_arg_string(call, "path", ""));
    struct pollfd cancel = {.fd = mlhost_cancel_fd(call), .events = POLLIN};
    int64_t found = 0;

    (void)data;
    if (!path)
        return -1;
    FILE *file = fopen(path, "rb");
    free(path);
    if (!file)
        return mlhost_fail(call, MLHOST_NOT_FOUND, "cannot open %s",
                           mlhost_arg_string(call, "path", ""));
    char part[65536];
    for (size_t n; (n = fread(part, 1, sizeof part, file)) > 0;) {
        for (size_t i = 0; i < n; i++)
            found += part[i] == letter[0];
        if (poll(&cancel, 1, 0) > 0 || mlhost_time_left_ms(call) == 0) {
            fclose(file);
            return mlhost_fail(call, MLHOST_CANCELLED, "ended while counting");
        }
    }
    fclose(file);
    mlhost_set_int(mlhost_result(call), found);
    return 0;
}

int main(int argc, char **argv)
{
    static char greeting[] = "Hello";
    static const struct mlhost_primitive primitives[] = {
        {"example.greet", "name:string times:int?", "greeting:map",
         "greet somebody, up to ten times", greet, greeting},
        {"example.count", "path:path letter:string timeout:duration?", "found:int",
         "count a letter in a file", count, NULL},
    };

    for (size_t i = 0; i < sizeof primitives / sizeof *primitives; i++) {
        if (mlhost_register(&primitives[i]) < 0)
            return 2;
    }
    return mlhost_main(argc, argv);
}
