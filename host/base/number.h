/* Numbers as text, quicker than printf: what JSON is mostly made of where models answer. */
#ifndef MLHOST_BASE_NUMBER_H
#define MLHOST_BASE_NUMBER_H

#include <stddef.h>
#include <stdint.h>

#define NUMBER_ROOM 32

/*
 * A finite number, as printf's %.15g, %.16g or %.17g would write it: the first that strtod reads
 * back as the same number (with 16 or 17 digits any such digits, not always printf's). Ends with
 * NUL; returns the length.
 */
size_t real_print(double d, char out[NUMBER_ROOM]);
size_t int_print(int64_t i, char out[NUMBER_ROOM]);

#endif
