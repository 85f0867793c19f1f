#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {
    [ERR_NONE] = "none",
    [ERR_USAGE] = "usage",
    [ERR_INVALID] = "invalid",
    [ERR_NOT_FOUND] = "not_found",
    [ERR_EXISTS] = "exists",
    [ERR_DENIED] = "denied",
    [ERR_UNAUTHORIZED] = "unauthorized",
    [ERR_FORBIDDEN] = "forbidden",
    [ERR_CONFLICT] = "conflict",
    [ERR_TIMEOUT] = "timeout",
    [ERR_CANCELLED] = "cancelled",
    [ERR_UNAVAILABLE] = "unavailable",
    [ERR_RATE_LIMITED] = "rate_limited",
    [ERR_TOO_LARGE] = "too_large",
    [ERR_DIGEST] = "digest",
    [ERR_IO] = "io",
    [ERR_MEMORY] = "memory",
    [ERR_UNSUPPORTED] = "unsupported",
    [ERR_FAILED] = "failed",
    [ERR_CRASHED] = "crashed",
    [ERR_INTERNAL] = "internal",
};
#define NAME_COUNT (sizeof names / sizeof *names)

int error_setv(struct error *err, enum error_code code, const char *format, va_list args)
{
    if (!err)
        return -1;
    /* The arguments may point into *err itself, so the text is made aside. */
    char message[sizeof err->message];
    vsnprintf(message, sizeof message, format, args);
    memset(err, 0, sizeof *err);
    err->code = code;
    err->retryable = code == ERR_UNAVAILABLE || code == ERR_RATE_LIMITED;
    memcpy(err->message, message, sizeof message);
    return -1;
}

int error_set(struct error *err, enum error_code code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    error_setv(err, code, format, args);
    va_end(args);
    return -1;
}

static enum error_code code_of_errno(int errno_value)
{
    switch (errno_value) {
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case ENOMEM:
        return ERR_MEMORY;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return ERR_UNAVAILABLE;
    default:
        return ERR_IO;
    }
}

/* What to do about a file system that does not take what is written, whatever it was. */
static const char *storage_hint(int errno_value)
{
    switch (errno_value) {
    case ENOSPC:
    case EDQUOT:
        return "the disk or its quota is full: make room on it";
    case EROFS:
        return "the file system is read-only: mount it for writing, or work in another folder";
    case EACCES:
    case EPERM:
        return "look at the owner and the mode of the file and of its folders (namei -l PATH)";
    case EIO:
        return "the disk has a fault: look at the kernel's log (dmesg), and save what is on it";
    case EMFILE:
    case ENFILE:
        return "too many open files: raise the limit (ulimit -n)";
    default:
        return "";
    }
}

int error_errno(struct error *err, int errno_value, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    error_setv(err, code_of_errno(errno_value), format, args);
    va_end(args);
    if (err) {
        size_t len = strlen(err->message);
        snprintf(err->message + len, sizeof err->message - len, ": %s", strerror(errno_value));
        snprintf(err->hint, sizeof err->hint, "%s", storage_hint(errno_value));
    }
    return -1;
}

int error_wrap(struct error *err, const char *format, ...)
{
    if (!err)
        return -1;
    char message[sizeof err->message];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (len >= 0 && (size_t)len < sizeof message)
        snprintf(message + len, sizeof message - (size_t)len, ": %s", err->message);
    memcpy(err->message, message, sizeof message);
    return -1;
}

int error_hint(struct error *err, const char *format, ...)
{
    if (!err)
        return -1;
    char hint[sizeof err->hint];
    va_list args;
    va_start(args, format);
    vsnprintf(hint, sizeof hint, format, args);
    va_end(args);
    memcpy(err->hint, hint, sizeof hint);
    return -1;
}

const char *error_code_name(enum error_code code)
{
    return (size_t)code < NAME_COUNT ? names[code] : "internal";
}

enum error_code error_code_from_name(const char *name)
{
    for (size_t i = 0; name && i < NAME_COUNT; i++) {
        if (strcmp(names[i], name) == 0)
            return (enum error_code)i;
    }
    return ERR_INTERNAL;
}

int error_exit_code(enum error_code code)
{
    switch (code) {
    case ERR_NONE:
        return 0;
    case ERR_USAGE:
    case ERR_INVALID:
        return 2;
    case ERR_TIMEOUT:
        return 3;
    case ERR_DENIED:
        return 4;
    case ERR_CANCELLED:
        return 130;
    default:
        return 1;
    }
}
