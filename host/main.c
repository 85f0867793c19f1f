#include "mlhost/mlhost.h"

#ifdef MLHOST_SANITIZED
/* The leak check traces its own process, which the filter of a task in an image forbids. Whoever
 * wants it says so in ASAN_OPTIONS, as tests/asan does. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}
#endif

int main(int argc, char **argv)
{
    return mlhost_main(argc, argv);
}
