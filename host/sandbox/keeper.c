/*
 * The keeper: a process of ours above each command. In a pid namespace it is process 1, so that the
 * command is not (as process 1 it would ignore signals without a handler, and orphans would have
 * nobody to reap them). Without one it adopts the command's orphans. Either way nothing of the
 * command outlives it, and it does not outlive us.
 *
 * Its exit status is the command's, or 128 + signal.
 */
#include "sandbox/plan.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int exit_status(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void pass_on(pid_t command, int signo)
{
    static const int passed[] = {SIGTERM, SIGINT,  SIGHUP,  SIGQUIT,
                                 SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH};

    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) {
        if (passed[i] == signo && kill(-command, signo) < 0)
            kill(command, signo);
    }
}

/* True once the command itself has ended. */
static bool reap(pid_t command, int *status)
{
    bool ended = false;
    int one;
    pid_t pid;

    while ((pid = waitpid(-1, &one, WNOHANG)) > 0) {
        if (pid == command) {
            *status = exit_status(one);
            ended = true;
        }
    }
    return ended;
}

static _Noreturn void keep(pid_t command, bool namespaced)
{
    sigset_t all;
    int status = 128 + SIGKILL;

    close_range(0, ~0u, 0);
    prctl(PR_SET_NAME, "mlhost-keeper");
    sigfillset(&all);
    for (;;) {
        int signo = sigwaitinfo(&all, NULL);
        if (signo == KEEPER_PARENT_GONE)
            break;
        if (signo == SIGCHLD) {
            if (reap(command, &status))
                break;
        } else if (signo > 0) {
            pass_on(command, signo);
        }
    }
    if (!namespaced) {
        /* Each killed process leaves its children to us, so this ends when there is nobody left. */
        do
            sandbox_kill_descendants(getpid());
        while (waitpid(-1, NULL, 0) > 0 || errno == EINTR);
    }
    _exit(status);
}

int keeper_split(struct plan *plan)
{
    bool namespaced = plan->namespaces & SANDBOX_NS_PID;

    if (!plan->keeper)
        return 0;
    if (!namespaced && prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return -1;
    /* It is a copy of the caller, secrets included: nobody inside may look. */
    if (prctl(PR_SET_DUMPABLE, 0) < 0)
        return -1;
    if (plan->policy->new_terminal_session && setsid() < 0 && errno != EPERM)
        return -1;
    plan->keeper_pid = getpid();
    /* The C library's fork takes locks that another thread of the caller may have held: raw for
     * commands. */
    pid_t pid = plan->policy->fn ? fork() : (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid < 0)
        return -1;
    if (pid > 0)
        keep(pid, namespaced);
    return 0;
}
