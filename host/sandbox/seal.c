#include "sandbox/sandbox.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/filter.h"
#include "sandbox/landlock.h"
#include "sandbox/plan.h"

#ifndef MLHOST_SANITIZED
/* Bytes of address space in use; 0 when unknown. */
static uint64_t address_space(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long pages = 0;

    if (!file)
        return 0;
    if (fscanf(file, "%lu", &pages) != 1)
        pages = 0;
    fclose(file);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

#define SLACK (UINT64_C(64) << 20) /* the C library, frames on their way in and out */

/* The heap budget is the allocator's business; this one bounds what goes past it. */
static int bound_memory(uint64_t script)
{
    uint64_t used = address_space();

    if (script == 0 || used == 0 || script > UINT64_MAX / 4)
        return 0;
    return limit_set(RLIMIT_AS, used + 2 * script + SLACK, used + 2 * script + SLACK);
}
#else
static int bound_memory(uint64_t script)
{
    (void)script; /* the sanitizers map terabytes */
    return 0;
}
#endif

static int set_limits(uint64_t memory)
{
    if (limit_set(RLIMIT_CORE, 0, 0) < 0 || limit_set(RLIMIT_FSIZE, 0, 0) < 0 ||
        limit_set(RLIMIT_NOFILE, 8, 8) < 0 || limit_set(RLIMIT_NPROC, 0, 0) < 0)
        return -1;
    return bound_memory(memory);
}

/* Of root too: what the filter lets through is nothing that needs one, but a run with
 * --allow-degraded may have no filter. */
static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};

    return (int)syscall(SYS_capset, &header, none);
}

static int refuse(int failed, struct error *err)
{
    error_hint(err, "scripts run only below a syscall filter, which this kernel or container "
                    "refuses: mlhost doctor tells more; --allow-degraded runs them without it");
    return failed;
}

int sandbox_seal(uint64_t memory_limit, bool degraded, struct error *err)
{
    const struct landlock_rules nothing = {.files = true, .net = true};
    const char *path;
    const struct sock_fprog *filter = filter_program(FILTER_VM, err);

    if (!filter && !degraded)
        return refuse(error_wrap(err, "sandbox: seal"), err);
    if (set_limits(memory_limit) < 0)
        return error_errno(err, errno, "sandbox: seal: step 'limits'");
    if (prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_errno(err, errno, "sandbox: seal: step 'no_new_privs'");
    if (drop_capabilities() < 0)
        return error_errno(err, errno, "sandbox: seal: step 'capabilities'");
    /* Second line behind the filter, which refuses every call that Landlock guards: its absence is
     * no error. */
    if (landlock_abi() > 0 && landlock_enter(&nothing, &path) < 0)
        return error_errno(err, errno, "sandbox: seal: step 'landlock'");
    if ((filter && filter_install(filter) == 0) || degraded)
        return 0; /* degraded: the operator's decision, which every report repeats */
    return refuse(error_errno(err, errno, "sandbox: seal: step 'seccomp'"), err);
}
