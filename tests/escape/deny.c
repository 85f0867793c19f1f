/*
 * deny CALL[=ERRNO]... -- COMMAND...: runs a command below a filter in which system calls fail, as
 * on kernels and in containers that lack them. CALL: seccomp, landlock, unshare, mount, clone3, or
 * clone (with namespace flags only). ERRNO is EPERM unless given.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RULES_MAX 96
#define NAMESPACES                                                                                 \
    (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

static const struct {
    const char *name;
    unsigned number;
} calls[] = {
    {"seccomp", SYS_seccomp},  {"landlock", 444},        {"landlock", 445},
    {"landlock", 446},         {"unshare", SYS_unshare}, {"mount", SYS_mount},
    {"mount", SYS_fsopen},     {"mount", SYS_open_tree}, {"mount", SYS_move_mount},
    {"mount", SYS_pivot_root}, {"clone3", SYS_clone3},
};

static struct sock_filter rules[RULES_MAX];
static unsigned short count;

static void add(unsigned short code, unsigned char yes, unsigned char no, unsigned k)
{
    if (count == RULES_MAX)
        exit(2);
    rules[count++] = (struct sock_filter){code, yes, no, k};
}

static void deny(char *word)
{
    char *equals = strchr(word, '=');
    unsigned error = EPERM, found = 0;

    if (equals) {
        *equals = '\0';
        error = (unsigned)atoi(equals + 1);
    }
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (strcmp(calls[i].name, word) != 0)
            continue;
        found = 1;
        add(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, calls[i].number);
        add(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | error);
    }
    if (strcmp(word, "clone") == 0) {
        found = 1;
        add(BPF_JMP | BPF_JEQ | BPF_K, 0, 4, SYS_clone);
        add(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, args[0]));
        add(BPF_JMP | BPF_JSET | BPF_K, 0, 1, NAMESPACES);
        add(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | error);
        add(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
    }
    if (!found) {
        fprintf(stderr, "deny: unknown call '%s'\n", word);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct sock_fprog program = {.filter = rules};
    int at = 1;

    add(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
    for (; at < argc && strcmp(argv[at], "--") != 0; at++)
        deny(argv[at]);
    add(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
    program.len = count;
    if (at + 1 >= argc || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
        perror("deny");
        return 2;
    }
    execvp(argv[at + 1], argv + at + 1);
    perror(argv[at + 1]);
    return 127;
}
