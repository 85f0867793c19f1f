#include "base/process.h"

#include <sys/prctl.h>
#include <sys/resource.h>

void process_hide(void)
{
    const struct rlimit none = {0, 0};

    (void)setrlimit(RLIMIT_CORE, &none);
#ifndef MLHOST_SANITIZED /* whose leak check traces the process */
    (void)prctl(PR_SET_DUMPABLE, 0);
#endif
}
