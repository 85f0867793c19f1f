/*
 * Ending whole trees of processes. In a pid namespace the kernel does it; without one we read
 * /proc/<pid>/task/<tid>/children again and again until nobody is alive. Used by the keeper too,
 * so: system calls only.
 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"

#define FOUND_MAX 4096 /* per pass; there is another pass */
#define PATIENCE  (2 * NS_PER_S)

struct found {
    pid_t pids[FOUND_MAX];
    int count;
};

static char *put_text(char *at, const char *text)
{
    size_t len = strlen(text);
    memcpy(at, text, len + 1);
    return at + len;
}

static char *put_number(char *at, unsigned number)
{
    char digits[12];
    int n = 0;

    do
        digits[n++] = (char)('0' + number % 10);
    while (number /= 10);
    while (n > 0)
        *at++ = digits[--n];
    *at = '\0';
    return at;
}

static void add_numbers(int fd, struct found *found)
{
    char text[4096];
    ssize_t n;
    unsigned number = 0;
    bool in_number = false;

    while ((n = read(fd, text, sizeof text)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (text[i] >= '0' && text[i] <= '9') {
                number = number * 10 + (unsigned)(text[i] - '0');
                in_number = true;
            } else if (in_number) {
                if (found->count < FOUND_MAX)
                    found->pids[found->count++] = (pid_t)number;
                in_number = false;
                number = 0;
            }
        }
    }
}

struct entry { /* as getdents64 gives it */
    uint64_t inode;
    int64_t next;
    unsigned short len;
    unsigned char type;
    char name[];
};

/* Adds the children of all threads of pid. */
static void add_children(pid_t pid, struct found *found)
{
    char path[64], entries[2048] __attribute__((aligned(8)));
    long n;

    put_text(put_number(put_text(path, "/proc/"), (unsigned)pid), "/task");
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return;
    while ((n = syscall(SYS_getdents64, folder, entries, sizeof entries)) > 0) {
        for (long at = 0; at < n;) {
            const struct entry *entry = (const struct entry *)(entries + at);
            at += entry->len;
            size_t len = strlen(entry->name);
            if (entry->name[0] == '.' || len > 16)
                continue;
            put_text(put_text(path, entry->name), "/children");
            int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
            if (fd < 0)
                continue;
            add_numbers(fd, found);
            close(fd);
        }
    }
    close(folder);
}

static bool alive(pid_t pid)
{
    char path[64], text[512];

    put_text(put_number(put_text(path, "/proc/"), (unsigned)pid), "/stat");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    const char *name_end = strrchr(text, ')'); /* the name before it may hold anything */
    return name_end && name_end[1] && name_end[2] != 'Z' && name_end[2] != 'X';
}

/* One pass over the tree, parents first, so that a parent makes no new child after its children
 * were looked at. Returns how many were alive, and one of them. */
static int kill_pass(pid_t root, pid_t *one)
{
    struct found found = {.count = 0};
    int count = 0;

    add_children(root, &found);
    for (int i = 0; i < found.count; i++) {
        if (alive(found.pids[i])) {
            kill(found.pids[i], SIGKILL);
            *one = found.pids[i];
            count++;
        }
        add_children(found.pids[i], &found);
    }
    return count;
}

void sandbox_kill_descendants(pid_t pid)
{
    int64_t end = deadline_in(PATIENCE); /* a process stuck in the kernel dies when it gets out */
    pid_t one = 0;

    while (kill_pass(pid, &one) > 0 && !deadline_passed(end)) {
        struct pollfd gone = {.fd = (int)syscall(SYS_pidfd_open, one, 0), .events = POLLIN};
        if (gone.fd < 0)
            continue;
        poll(&gone, 1, 20);
        close(gone.fd);
    }
}

static bool send(const struct sandbox_child *child, int signo)
{
    return child->pidfd >= 0 && syscall(SYS_pidfd_send_signal, child->pidfd, signo, NULL, 0) == 0;
}

void sandbox_kill(const struct sandbox_child *child)
{
    if (!send(child, 0)) /* reaped: its number may be somebody else's by now */
        return;
    if (!(child->namespaces & SANDBOX_NS_PID)) {
        send(child, SIGSTOP); /* starts nothing while we look */
        sandbox_kill_descendants(child->pid);
    }
    send(child, SIGKILL);
    send(child, SIGCONT);
}

void sandbox_signal(const struct sandbox_child *child, int signo)
{
    if (send(child, 0) && kill(-child->pid, signo) < 0)
        send(child, signo);
}
