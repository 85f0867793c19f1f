/*
 * One kind of error for the whole program.
 *
 * A fallible function takes `struct error *err` last, returns -1 or NULL when it failed, and leaves
 * *err untouched when it did not. An error has no memory of its own, so it can live on a stack, be
 * copied by assignment, and never fails. It crosses to scripts as the table { service, code,
 * status, message, hint, retryable }.
 */
#ifndef MLHOST_BASE_ERROR_H
#define MLHOST_BASE_ERROR_H

#include <stdarg.h>
#include <stdbool.h>

enum error_code {
    ERR_NONE = 0,
    ERR_USAGE,   /* the command line or a primitive's arguments are wrong        */
    ERR_INVALID, /* a script, file, document or reply is not what it must be     */
    ERR_NOT_FOUND,
    ERR_EXISTS,
    ERR_DENIED,       /* our own policy says no; the hint names the line that grants  */
    ERR_UNAUTHORIZED, /* a service wants (other) credentials: 401                     */
    ERR_FORBIDDEN,    /* a service knows us and says no: 403                          */
    ERR_CONFLICT,
    ERR_TIMEOUT,
    ERR_CANCELLED,
    ERR_UNAVAILABLE,  /* nobody answers, or 5xx                                       */
    ERR_RATE_LIMITED, /* 429                                                          */
    ERR_TOO_LARGE,
    ERR_DIGEST,      /* content does not match its digest                            */
    ERR_IO,          /* a system call failed                                         */
    ERR_MEMORY,      /* a budget of memory is used up                                */
    ERR_UNSUPPORTED, /* known, and not (yet) done here                               */
    ERR_FAILED,      /* a script, command or task failed                             */
    ERR_CRASHED,     /* a process ended by a signal or without a result              */
    ERR_INTERNAL,
};

struct error {
    enum error_code code;
    int status;         /* HTTP status or exit status; 0 when there is none */
    bool retryable;     /* the same call may succeed later                  */
    char service[24];   /* "mlflow", "registry", ... or ""                  */
    char message[1600]; /* what happened, in one or a few lines             */
    char hint[600];     /* what to do next, or ""                           */
};

/* Fill *err (NULL is allowed). Each returns -1, so a caller can write `return error_set(...)`. */
int error_set(struct error *err, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int error_setv(struct error *err, enum error_code code, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));
/* As error_set, with ": <strerror(errno_value)>" appended; the code follows errno (ENOENT ->
 * ERR_NOT_FOUND ...). */
int error_errno(struct error *err, int errno_value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Put "context: " before the message, once per layer. Returns -1. */
int error_wrap(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Say what to do next. Returns -1. */
int error_hint(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "not_found" <-> ERR_NOT_FOUND: the names that scripts, journals and --json show. Unknown names
 * give ERR_INTERNAL. */
const char *error_code_name(enum error_code code);
enum error_code error_code_from_name(const char *name);
/* 0 done, 1 failed, 2 usage or invalid script, 3 timed out, 4 denied, 130 cancelled. */
int error_exit_code(enum error_code code);

#endif
