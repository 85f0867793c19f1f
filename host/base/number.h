/* Numbers as text, quicker than printf: what JSON is mostly made of where models answer. */
#ifndef MLHOST_BASE_NUMBER_H
#define MLHOST_BASE_NUMBER_H

#include <stddef.h>
#include <stdint.h>

#define NUMBER_ROOM 32

/*
 * A finite number: as printf's %.15g would write it when strtod reads that back as the same number,
 * else in 16 or 17 digits that it does (any such digits, not always printf's); below DBL_MIN in as
 * few as it takes. Ends with NUL; returns the length.
 */
size_t real_print(double d, char out[NUMBER_ROOM]);
size_t int_print(int64_t i, char out[NUMBER_ROOM]);

#endif
