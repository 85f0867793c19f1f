/* What the tests of the sandbox share: children, folders, commands, and runs as both root and
 * nobody. */
#ifndef MLHOST_TESTS_SANDBOX_CHECK_H
#define MLHOST_TESTS_SANDBOX_CHECK_H

#include "check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "loop/exec.h"
#include "sandbox/sandbox.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-const-variable"

#define KILLED (-1) /* by SIGSYS */
#define FINE   0

static int describe(int wait_status)
{
    if (WIFSIGNALED(wait_status))
        return WTERMSIG(wait_status) == SIGSYS ? KILLED : -WTERMSIG(wait_status) - 1000;
    return WEXITSTATUS(wait_status) == 128 + SIGSYS ? KILLED : WEXITSTATUS(wait_status);
}

static int finish(struct sandbox_child *child)
{
    int status = 0;
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    close(child->pidfd);
    return status;
}

static int run_policy(struct sandbox_policy *policy)
{
    struct error err = {0};
    struct sandbox_child child;
    ok(sandbox_spawn(policy, &child, &err), err);
    return describe(finish(&child));
}

static char *new_folder(void)
{
    char *folder = mem_strdup("/tmp/mlhost-sandbox-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

static void remove_folder(char *folder)
{
    struct error err = {0};
    ok(dir_remove(folder, &err), err);
    free(folder);
}

#define ALL_NAMESPACES (SANDBOX_NS_PID | SANDBOX_NS_MOUNT | SANDBOX_NS_IPC | SANDBOX_NS_UTS)
static char *const environment[] = {"PATH=/usr/bin:/bin", "LC_ALL=C", NULL};

static bool have_namespaces(void)
{
    if (sandbox_available() & SANDBOX_LAYER_NAMESPACES)
        return true;
    print_message("SKIPPED: this user can make no namespaces here\n");
    return false;
}

static void shell(struct sandbox_policy *policy, const char *script, struct exec_result *result)
{
    struct error err = {0};
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)script, NULL};
    const struct exec_spec spec = {.policy = policy, .deadline = deadline_in(20 * NS_PER_S)};
    policy->fn = NULL;
    policy->argv = argv;
    policy->env = environment;
    ok(exec_run(&spec, result, &err), err);
    if (result->status != 0 && result->err.len)
        print_message("stderr: %s\n", result->err.data);
}

/* The tests as the caller; before that as nobody, when the caller is root. The number of failures.
 */
static int as_both_users(int (*run_all)(const char *user))
{
    int failed = 0, status = 0;

    if (getuid() == 0) {
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            if (setgid(65534) < 0 || setuid(65534) < 0)
                _exit(99);
            prctl(PR_SET_DUMPABLE, 1);
            status = run_all("nobody");
            fflush(NULL);
            _exit(status);
        }
        waitpid(pid, &status, 0);
        failed += WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    }
    return failed + run_all("caller");
}

#pragma GCC diagnostic pop

#endif
