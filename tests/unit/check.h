/* cmocka, and the few assertions that read well here. */
#ifndef MLHOST_TESTS_CHECK_H
#define MLHOST_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"

/* The call succeeded; else its message is shown. */
#define ok(call, err)                                                                              \
    do {                                                                                           \
        if ((call) != 0)                                                                           \
            fail_msg("%s: %s (%s)", #call, (err).message, (err).hint);                             \
    } while (0)
/* The call failed with this code, and its message holds this text. */
#define fails(call, err, wanted, text)                                                             \
    do {                                                                                           \
        memset(&(err), 0, sizeof(err));                                                            \
        assert_int_not_equal((call), 0);                                                           \
        assert_string_equal(error_code_name((err).code), error_code_name(wanted));                 \
        if (!strstr((err).message, (text)))                                                        \
            fail_msg("'%s' does not say '%s'", (err).message, (text));                             \
    } while (0)
#define holds(haystack, needle)                                                                    \
    do {                                                                                           \
        if (!strstr((haystack), (needle)))                                                         \
            fail_msg("'%s' does not hold '%s'", (haystack), (needle));                             \
    } while (0)

#endif
