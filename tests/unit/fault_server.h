/* Starts tests/integration/http_faults.py and tells its ports; it ends with this process. */
#ifndef MLHOST_TESTS_FAULT_SERVER_H
#define MLHOST_TESTS_FAULT_SERVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int fault_port, fault_other_port;
static pid_t fault_pid;
static int fault_stdin = -1;

static inline int fault_server_start(void)
{
    int in[2];
    int out[2];
    char line[64] = "";
    size_t len = 0;

    if (pipe(in) != 0 || pipe(out) != 0)
        return -1;
    fault_pid = fork();
    if (fault_pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        for (int fd = 3; fd < 64; fd++)
            close(fd);
        execlp("python3", "python3", SOURCE_DIR "/tests/integration/http_faults.py", (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    fault_stdin = in[1];
    while (len < sizeof(line) - 1 && read(out[0], line + len, 1) == 1 && line[len] != '\n')
        len++;
    close(out[0]);
    char *end;
    fault_port = (int)strtol(line, &end, 10);
    fault_other_port = (int)strtol(end, NULL, 10);
    return fault_port > 0 && fault_other_port > 0 ? 0 : -1;
}

static inline void fault_server_stop(void)
{
    close(fault_stdin);
    waitpid(fault_pid, NULL, 0);
}

#endif
