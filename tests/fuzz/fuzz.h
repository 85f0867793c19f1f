/* What the fuzz targets share. A broken promise ends the process as a crash does. */
#ifndef MLHOST_TESTS_FUZZ_H
#define MLHOST_TESTS_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define check(holds)                                                                               \
    do {                                                                                           \
        if (!(holds)) {                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #holds);             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* What every fallible function promises of its error. */
#define check_result(status, err) check(((status) < 0) == ((err)->code != ERR_NONE))

/* The same down to the kind of every number, the order of every map and the bits of every real. */
static inline bool same_value(const struct value *a, const struct value *b)
{
    cleanup_buf struct buf x = BUF_INIT;
    cleanup_buf struct buf y = BUF_INIT;

    value_encode(a, &x);
    value_encode(b, &y);
    return x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
}

/* Cuts text (which is changed) into `count` lines; the last one is the rest. */
static inline void cut_lines(char *text, char **lines, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        lines[i] = text;
        text += i + 1 < count ? strcspn(text, "\n") : strlen(text);
        if (*text)
            *text++ = '\0';
    }
}

static inline bool has_bytes(const struct buf *text, const void *what, size_t len)
{
    return text->len >= len && len && memmem(text->data, text->len, what, len);
}

#endif
