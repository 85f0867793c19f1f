/*
 * libmlhost: the whole of mlhost in a program of your own, with primitives of your own.
 *
 *     static int greet(struct mlhost_call *call, void *data)
 *     {
 *         mlhost_set_string(mlhost_result(call), mlhost_arg_string(call, "name", "world"));
 *         return 0;
 *     }
 *
 *     int main(int argc, char **argv)
 *     {
 *         static const struct mlhost_primitive row = {"example.greet", "name:string?",
 * "text:string", "say hello", greet, NULL}; return mlhost_register(&row) < 0 ? 2 :
 * mlhost_main(argc, argv);
 *     }
 *
 *     cc program.c $(pkg-config --cflags --libs libmlhost) -o program
 *
 * A pipeline that `./program run` runs calls it as host.example.greet("you") or host.example.greet
 * { name = "you" }.
 *
 * Where it runs: a stage's script runs in a sandbox without files, network or commands. A primitive
 * runs outside of it, in the stage's broker, a fork of the process that called mlhost_main, with
 * everything that this process may do. So a primitive must ask (mlhost_allow_*) before it does on a
 * script's behalf what a permission is for: nothing asks in its stead. Several calls run at the
 * same time, on threads; what a primitive changes in memory is seen by later calls of the same
 * stage only. A primitive must end when mlhost_time_left_ms is 0 or mlhost_cancel_fd becomes
 * readable; one that does not is killed with its stage.
 *
 * The program starts itself again (/proc/self/exe with other arguments) for parts of its work: main
 * passes its arguments on to mlhost_main unchanged, before it starts threads. The archive has more
 * global names than these, which its loadable modules (mlhost-io.so and others, found beside the
 * program, in ../lib/mlhost or where libmlhost was installed) take from the program: link with
 * --export-dynamic, as the pkg-config file does, and prefix your own names.
 *
 * Names and behaviour in this file stay as they are while MLHOST_API is the same; things may be
 * added.
 */
#ifndef MLHOST_MLHOST_H
#define MLHOST_MLHOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MLHOST_PRINTF(at) __attribute__((format(printf, at, at + 1)))
#else
#define MLHOST_PRINTF(at)
#endif

#define MLHOST_API 1

/* "0.1.0+<commit>" of the library that is linked. */
const char *mlhost_version_text(void);

/* Everything that the program mlhost does; argv[0] is not looked at, argv[1] names a command.
 * Returns the exit status: 0 done, 1 a stage failed, 2 usage or invalid script, 3 timed out, 4
 * permission denied, 130 cancelled. */
int mlhost_main(int argc, char **argv);

/* mlhost_main of { "run", script, options... }: options are the words of `mlhost run`, ended by
 * NULL ("--jobs", "2", "-P", "epochs=3", NULL); NULL for none. Signals, children and output are the
 * run's until it returns the exit status. One run at a time; no other thread may run. */
int mlhost_run_file(const char *script, const char *const *options);

/* ---- primitives ---- */

struct mlhost_call;  /* one call under way; valid until the primitive returns */
struct mlhost_value; /* nil, bool, int, real, string, array or map */

/* 0, with the result set (nil when it was not), or -1 after mlhost_fail or another function that
 * failed. */
typedef int mlhost_fn(struct mlhost_call *call, void *data);

struct mlhost_primitive {
    const char *name; /* "area.name": host.area.name in Lua. Lower-case letters, digits and _ */
    const char
        *args; /* "name:type" words, "name:type?" for optional ones; "" for none. Types: string int
                * number bool map array path duration secret any. They are checked before fn is
                * called. An argument `timeout:duration?` bounds the call's time by itself. */
    const char *returns; /* "text:string", for help and documentation; "" for nothing */
    const char *doc;     /* one line, for help, documentation and completion */
    mlhost_fn *fn;
    void *data; /* passed to fn */
};

/* Adds a primitive; before mlhost_main. The texts are copied. 0, or -1 after having said on stderr
 * what is wrong: a name that is taken or no name, an argument of an unknown type, a missing doc
 * line or function, or too late. */
int mlhost_register(const struct mlhost_primitive *primitive);

/* ---- arguments: by name; `otherwise` when an optional one was not given ---- */

bool mlhost_arg_given(struct mlhost_call *call, const char *name);
const char *mlhost_arg_string(struct mlhost_call *call, const char *name, const char *otherwise);
int64_t mlhost_arg_int(struct mlhost_call *call, const char *name, int64_t otherwise);
double mlhost_arg_number(struct mlhost_call *call, const char *name, double otherwise);
bool mlhost_arg_bool(struct mlhost_call *call, const char *name, bool otherwise);
/* The bytes of a `secret` argument, given as a text or as a secret handle; *len may be NULL. NULL
 * (and the call has failed) when the handle is not one of this stage. They must not reach a result,
 * a log or a file that a script reads. */
const char *mlhost_arg_secret(struct mlhost_call *call, const char *name, size_t *len);
/* The value itself, for `map`, `array` and `any`; NULL when it was not given. */
const struct mlhost_value *mlhost_arg(struct mlhost_call *call, const char *name);

/* ---- values: reading ---- */

enum mlhost_kind {
    MLHOST_NIL,
    MLHOST_BOOL,
    MLHOST_INT,
    MLHOST_REAL,
    MLHOST_STRING,
    MLHOST_ARRAY,
    MLHOST_MAP,
    MLHOST_HANDLE, /* names an object of the broker, such as a secret */
};

enum mlhost_kind mlhost_kind(const struct mlhost_value *value); /* NULL is nil */
/* Wrong kinds, and NULL, give `otherwise`. */
const char *mlhost_string(const struct mlhost_value *value, size_t *len,
                          const char *otherwise); /* ends with NUL */
int64_t mlhost_int(const struct mlhost_value *value, int64_t otherwise);
double mlhost_number(const struct mlhost_value *value, double otherwise);
bool mlhost_bool(const struct mlhost_value *value, bool otherwise);
size_t mlhost_count(const struct mlhost_value *value); /* of an array or map; 0 for others */
/* The item of an array or the value of a map at a place, from 0; NULL when there is none. */
const struct mlhost_value *mlhost_at(const struct mlhost_value *value, size_t index);
const char *mlhost_key_at(const struct mlhost_value *map, size_t index);
const struct mlhost_value *mlhost_get(const struct mlhost_value *map, const char *key);

/* ---- values: building, from the result down ---- */

/* The call's result, nil at first. What is set replaces what was there. */
struct mlhost_value *mlhost_result(struct mlhost_call *call);
void mlhost_set_bool(struct mlhost_value *value, bool b);
void mlhost_set_int(struct mlhost_value *value, int64_t i);
void mlhost_set_number(struct mlhost_value *value, double d);
void mlhost_set_string(struct mlhost_value *value, const char *text);
void mlhost_set_bytes(struct mlhost_value *value, const void *data, size_t len);
void mlhost_set_array(struct mlhost_value *value);
void mlhost_set_map(struct mlhost_value *value);
/* A secret handle: the script can pass it on and never read it; the bytes are masked in all output
 * from now on. */
void mlhost_set_secret(struct mlhost_call *call, struct mlhost_value *value, const char *bytes,
                       size_t len);
/* A new nil: at the end of an array, or at a map's key. Valid until the next one in the same array
 * or map. */
struct mlhost_value *mlhost_push(struct mlhost_value *array);
struct mlhost_value *mlhost_put(struct mlhost_value *map, const char *key);

/* ---- failing ---- */

enum mlhost_code {
    MLHOST_USAGE = 1, /* the arguments make no sense */
    MLHOST_INVALID,   /* a file or reply is not what it must be */
    MLHOST_NOT_FOUND,
    MLHOST_EXISTS,
    MLHOST_DENIED,       /* a permission is missing; the run's exit status becomes 4 */
    MLHOST_UNAUTHORIZED, /* a service wants (other) credentials */
    MLHOST_FORBIDDEN,    /* a service knows us and says no */
    MLHOST_CONFLICT,
    MLHOST_TIMEOUT,
    MLHOST_CANCELLED,
    MLHOST_UNAVAILABLE, /* nobody answers */
    MLHOST_RATE_LIMITED,
    MLHOST_TOO_LARGE,
    MLHOST_IO,
    MLHOST_UNSUPPORTED,
    MLHOST_FAILED,
    MLHOST_INTERNAL,
};

/* The error that the script sees: { service = the name's area, code = "not_found", message, ... }.
 * Returns -1. */
int mlhost_fail(struct mlhost_call *call, enum mlhost_code code, const char *format, ...)
    MLHOST_PRINTF(3);
/* What to do next, after mlhost_fail. Returns -1. */
int mlhost_hint(struct mlhost_call *call, const char *format, ...) MLHOST_PRINTF(2);
/* The same call may succeed later. Returns -1. */
int mlhost_retryable(struct mlhost_call *call, int status);

/* ---- permissions: each fails the call with MLHOST_DENIED and the line that grants it ---- */

/* The absolute path behind a script's path (relative ones are below the workspace), to be freed
 * with free(); NULL when the permission `read` or `write` does not cover it. */
char *mlhost_allow_read(struct mlhost_call *call, const char *path);
char *mlhost_allow_write(struct mlhost_call *call, const char *path);
/* 0 or -1: `net` for a host and port, `env` for a variable, `exec` for a command. */
int mlhost_allow_net(struct mlhost_call *call, const char *host, int port);
int mlhost_allow_env(struct mlhost_call *call, const char *name);
int mlhost_allow_exec(struct mlhost_call *call, const char *command);

/* ---- the run ---- */

/* Until this call must have ended; 0 when its time is over. */
int64_t mlhost_time_left_ms(struct mlhost_call *call);
/* Becomes readable when the stage is cancelled or out of time: for poll(), beside what the
 * primitive waits for. */
int mlhost_cancel_fd(struct mlhost_call *call);
bool mlhost_cancelled(struct mlhost_call *call);
/* A line in the run's log; level: "debug", "info", "warning", "error". */
void mlhost_log(struct mlhost_call *call, const char *level, const char *format, ...)
    MLHOST_PRINTF(3);
/* How far the call is; total -1: unknown. */
void mlhost_progress(struct mlhost_call *call, const char *label, int64_t done, int64_t total,
                     const char *unit);
const char *mlhost_workspace(struct mlhost_call *call);
const char *mlhost_run_id(struct mlhost_call *call);
const char *mlhost_stage(struct mlhost_call *call);

#ifdef __cplusplus
}
#endif

#endif
