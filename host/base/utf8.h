#ifndef MLHOST_BASE_UTF8_H
#define MLHOST_BASE_UTF8_H

#include <stddef.h>

/* Bytes of the UTF-8 sequence at text (1..4), or 0 when it is not valid. */
size_t utf8_length(const char *text, size_t len);

#endif
