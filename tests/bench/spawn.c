/* spawn N COMMAND...: starts a command N times, one after the other, and prints the median of the
 * times from start to end, in milliseconds. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
    int n = argc > 2 ? atoi(argv[1]) : 0;
    double *took = calloc((size_t)(n > 0 ? n : 1), sizeof *took);

    for (int i = 0; i < n; i++) {
        double start = now();
        pid_t pid;
        int status;
        if (posix_spawn(&pid, argv[2], NULL, NULL, argv + 2, environ) != 0 ||
            waitpid(pid, &status, 0) < 0 || status != 0) {
            fprintf(stderr, "spawn: %s failed\n", argv[2]);
            return 1;
        }
        took[i] = now() - start;
    }
    if (n < 1)
        return 2;
    qsort(took, (size_t)n, sizeof *took, ascending);
    printf("%.4f\n", took[n / 2]);
    return 0;
}
