/*
 * One secret against a text, whatever the text did to it: a byte may stand there as it is or in the
 * escapes of URLs, JSON, C, shells, HTML and XML, also twice over, each byte in its own way; colour
 * sequences may stand between. Base64 digits may be of either alphabet, and both they and
 * hexadecimal ones may be broken into lines.
 */
#ifndef MLHOST_BROKER_MASK_MATCH_H
#define MLHOST_BROKER_MASK_MATCH_H

#include <stdbool.h>
#include <stddef.h>

enum mask_kind { MASK_TEXT, MASK_BASE64, MASK_HEX, MASK_KINDS };

/* Of a longer one, this much is recognized as well, with all that follows and still matches. */
#define MASK_LONG 256

/* What a place of a text may mean. */
struct mask_reading {
    unsigned char bytes[4];
    unsigned char count; /* of bytes; 0: nothing, to be skipped */
    unsigned char width; /* in the text */
};
#define MASK_READINGS 12

/* The readings of text[0..], len > 0; *cut when there may be one more if the text goes on. */
size_t mask_readings(enum mask_kind kind, const char *text, size_t len,
                     struct mask_reading readings[MASK_READINGS], bool *cut);
/* Has this byte, anywhere in a text, another reading than itself? */
bool mask_special(unsigned char c);
/* As patterns of this kind are written: lower case for hexadecimal digits, + and / for base64. */
unsigned char mask_fold(enum mask_kind kind, unsigned char c);

struct mask_match {
    size_t len;   /* of the text; 0: no match */
    size_t depth; /* bytes of the pattern that the text's end has cut */
    bool more;    /* it may match, or match longer, if the text goes on */
};
struct mask_match mask_try(enum mask_kind kind, const char *pattern, size_t pattern_len,
                           const char *text, size_t len);

#endif
