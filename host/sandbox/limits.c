#include "sandbox/plan.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

int limit_set(int resource, uint64_t soft, uint64_t hard)
{
    struct rlimit limit;

    if (getrlimit((__rlimit_resource_t)resource, &limit) < 0)
        return -1;
    /* Never up: an inherited lower limit stays. */
    if (limit.rlim_max > hard)
        limit.rlim_max = hard;
    limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
    return setrlimit((__rlimit_resource_t)resource, &limit);
}

uint64_t user_threads(uid_t uid)
{
    DIR *proc = opendir("/proc");
    uint64_t count = 0;

    if (!proc)
        return 0;
    for (struct dirent *entry = readdir(proc); entry; entry = readdir(proc)) {
        char path[300];
        struct stat st;
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
            continue;
        snprintf(path, sizeof path, "/proc/%s/task", entry->d_name);
        if (stat(path, &st) == 0 && st.st_uid == uid && st.st_nlink > 2)
            count += st.st_nlink - 2; /* one folder per thread */
    }
    closedir(proc);
    return count;
}
