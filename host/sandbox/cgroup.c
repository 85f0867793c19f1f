#include "sandbox/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define MOUNTS_MAX  (1u << 20)
#define PREFIX      "mlhost-"
#define CPU_PERIOD  100000 /* microseconds; the kernel's default */
#define REMOVE_NS   (200 * NS_PER_MS)
#define REMOVE_STEP 2 /* ms */

static const char *const names[CGROUP_CONTROLLERS] = {"memory", "pids", "cpu"};

/* Our own group in each hierarchy; worked out once. */
static struct {
    pthread_once_t once;
    bool v2;
    char *folders[CGROUP_CONTROLLERS];
    const char *why;
} own = {.once = PTHREAD_ONCE_INIT};

/* ---- small files ---- */

static int put(const char *folder, const char *file, const char *text)
{
    cleanup_free char *path = path_join(folder, file);
    cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) ? -1 : 0;
}

static int put_number(const char *folder, const char *file, uint64_t number)
{
    char text[24];

    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    return put(folder, file, text);
}

static bool get(const char *folder, const char *file, char *out, size_t room)
{
    cleanup_free char *path = path_join(folder, file);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, out, room - 1);

    out[got > 0 ? got : 0] = '\0';
    return got >= 0;
}

/* "oom_kill 3" among the lines of a file. */
static uint64_t counter(const char *folder, const char *file, const char *key)
{
    char text[1024];
    size_t len = strlen(key);

    if (!get(folder, file, text, sizeof text))
        return 0;
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, len) == 0 && line[len] == ' ')
            return strtoull(line + len + 1, NULL, 10);
    }
    return 0;
}

static bool has_word(const char *list, const char *word, const char *separators)
{
    size_t len = strlen(word);

    for (const char *at = list; *at; at += strspn(at, separators)) {
        size_t n = strcspn(at, separators);
        if (n == len && strncmp(at, word, len) == 0)
            return true;
        at += n;
    }
    return false;
}

/* ---- where we are ---- */

/* The mount point of the hierarchy with this controller ("" for version 2). */
static char *mount_point(const char *mounts, const char *controller)
{
    for (const char *line = mounts; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        char where[512], type[64], options[512];
        if (sscanf(line, "%*s %511s %63s %511s", where, type, options) != 3)
            continue;
        if (controller[0] ? strcmp(type, "cgroup") == 0 && has_word(options, controller, ",")
                          : strcmp(type, "cgroup2") == 0)
            return mem_strdup(where);
    }
    return NULL;
}

/* "4:memory:/path", "0::/path" -> a folder below the mount, as far as it is in view. */
static char *own_folder(const char *groups, const char *mounts, const char *controller)
{
    cleanup_free char *mount = mount_point(mounts, controller);

    for (const char *line = groups; mount && *line;
         line += strcspn(line, "\n"), line += *line == '\n') {
        char list[256], path[2048];
        int n = sscanf(line, "%*u:%255[^:\n]:%2047[^\n]", list, path);
        if (n != 2) {
            list[0] = '\0';
            n = sscanf(line, "%*u::%2047[^\n]", path) == 1 ? 2 : 0;
        }
        if (n != 2 || (controller[0] ? !has_word(list, controller, ",") : list[0] != '\0'))
            continue;
        char *folder = mem_printf("%s%s", mount, strcmp(path, "/") == 0 ? "" : path);
        if (access(folder, F_OK) == 0)
            return folder;
        free(folder); /* of another namespace: what is mounted is the top of ours */
        return mem_strdup(mount);
    }
    return NULL;
}

/*
 * Version 2 has processes only in leaves. Where all that is in our group is this program, it moves
 * into a leaf of its own; a group that is shared with others is left alone.
 */
static bool make_room(const char *folder)
{
    static const char enable[] = "+memory +pids +cpu";
    char procs[4096];
    char self[64], other[64];

    if (put(folder, "cgroup.subtree_control", enable) == 0)
        return true;
    if (errno != EBUSY || !get(folder, "cgroup.procs", procs, sizeof procs))
        return false;
    ssize_t self_len = readlink("/proc/self/exe", self, sizeof self);
    cleanup_free char *leaf = path_join(folder, "mlhost-host");
    if (mkdir(leaf, 0755) < 0 && errno != EEXIST)
        return false;
    for (char *at = procs, *next; *at; at = next) {
        long pid = strtol(at, &next, 10);
        if (next == at)
            break;
        cleanup_free char *exe = mem_printf("/proc/%ld/exe", pid);
        if (readlink(exe, other, sizeof other) != self_len ||
            memcmp(self, other, (size_t)(self_len > 0 ? self_len : 0)) != 0)
            return false;
    }
    for (char *at = procs, *next; *at; at = next) {
        long pid = strtol(at, &next, 10);
        if (next == at)
            break;
        if (put_number(leaf, "cgroup.procs", (uint64_t)pid) < 0)
            return false;
    }
    return put(folder, "cgroup.subtree_control", enable) == 0;
}

/* Groups of hosts that died. */
static void sweep(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        char *end = NULL;
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) != 0)
            continue;
        long pid = strtol(entry->d_name + strlen(PREFIX), &end, 10);
        if (pid <= 0 || *end != '-' || kill((pid_t)pid, 0) == 0 || errno != ESRCH)
            continue;
        (void)unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR); /* refused while it is in use */
    }
    if (dir)
        closedir(dir);
}

static void find_v2(const char *groups, const char *mounts)
{
    cleanup_free char *folder = own_folder(groups, mounts, "");
    char controllers[512] = "";

    if (!folder || !get(folder, "cgroup.controllers", controllers, sizeof controllers) ||
        !has_word(controllers, "memory", " \n") || !has_word(controllers, "pids", " \n"))
        return;
    if (access(folder, W_OK) < 0)
        own.why = "the cgroup is not delegated to this user (systemd-run --user --scope -p "
                  "Delegate=yes mlhost ...)";
    else if (!make_room(folder))
        own.why = "other programs are in this cgroup (systemd-run --user --scope -p Delegate=yes "
                  "mlhost ... gives one of its own)";
    else
        own.v2 = true;
    if (own.v2)
        own.folders[0] = steal_ptr(&folder);
}

static void find_own(void)
{
    cleanup_buf struct buf groups = BUF_INIT;
    cleanup_buf struct buf mounts = BUF_INIT;

    own.why = "no writable control groups here";
    if (file_read(AT_FDCWD, "/proc/self/cgroup", MOUNTS_MAX, &groups, NULL) < 0 ||
        file_read(AT_FDCWD, "/proc/self/mounts", MOUNTS_MAX, &mounts, NULL) < 0 || !groups.len ||
        !mounts.len)
        return;
    find_v2(groups.data, mounts.data);
    for (int i = 0; !own.v2 && i < CGROUP_CONTROLLERS; i++) {
        own.folders[i] = own_folder(groups.data, mounts.data, names[i]);
        if (own.folders[i] && access(own.folders[i], W_OK) < 0)
            mem_cleanup(&own.folders[i]), own.folders[i] = NULL;
    }
    for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
        if (own.folders[i])
            sweep(own.folders[i]);
    }
}

unsigned cgroup_usable(struct buf *why)
{
    unsigned found = 0;

    pthread_once(&own.once, find_own);
    for (int i = 0; i < CGROUP_CONTROLLERS; i++)
        found |= own.v2 || own.folders[i] ? 1u << i : 0u;
    if (why && found)
        buf_printf(why, "version %d: of a command's whole tree%s%s%s", own.v2 ? 2 : 1,
                   found & CGROUP_MEMORY ? ", memory" : "",
                   found & CGROUP_PIDS ? ", processes" : "",
                   found & CGROUP_CPU ? ", processor time" : "");
    else if (why)
        buf_printf(why, "%s: limits hold per process", own.why);
    return found;
}

/* ---- one group ---- */

static int limit_memory(const char *folder, uint64_t bytes)
{
    if (own.v2) {
        (void)put(folder, "memory.swap.max", "0");
        (void)put(folder, "memory.oom.group", "1");
        return put_number(folder, "memory.max", bytes);
    }
    if (put_number(folder, "memory.limit_in_bytes", bytes) < 0)
        return -1;
    (void)put_number(folder, "memory.memsw.limit_in_bytes", bytes); /* where swap is counted */
    return 0;
}

static int limit_cpu(const char *folder, unsigned milli)
{
    uint64_t quota = (uint64_t)milli * CPU_PERIOD / 1000;
    char text[64];

    snprintf(text, sizeof text, "%llu %d", (unsigned long long)(quota > 1000 ? quota : 1000),
             CPU_PERIOD);
    return own.v2 ? put(folder, "cpu.max", text)
                  : put_number(folder, "cpu.cfs_quota_us", quota > 1000 ? quota : 1000);
}

static bool make_folder(struct cgroup *group, int at)
{
    static atomic_uint number;
    cleanup_free char *name =
        mem_printf(PREFIX "%d-%u", (int)getpid(), atomic_fetch_add(&number, 1));

    group->folders[at] = path_join(own.folders[at], name);
    if (mkdir(group->folders[at], 0755) == 0) {
        cleanup_free char *procs = path_join(group->folders[at], "cgroup.procs");
        group->procs[at] = open(procs, O_WRONLY | O_CLOEXEC);
        if (group->procs[at] >= 0)
            return true;
        rmdir(group->folders[at]);
    }
    free(group->folders[at]);
    group->folders[at] = NULL;
    return false;
}

bool cgroup_open(const struct cgroup_limits *limits, struct cgroup *out)
{
    const bool wanted[CGROUP_CONTROLLERS] = {limits->memory, limits->processes, limits->cpu_milli};
    bool *held[CGROUP_CONTROLLERS] = {&out->memory, &out->pids, &out->cpu};
    bool any = false;

    *out = (struct cgroup){.procs = {-1, -1, -1}};
    if (!cgroup_usable(NULL) || !(wanted[0] || wanted[1] || wanted[2]))
        return false;
    for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
        int at = own.v2 ? 0 : i;
        if (!wanted[i] || !own.folders[at] || (!out->folders[at] && !make_folder(out, at)))
            continue;
        const char *folder = out->folders[at];
        *held[i] = (i == 0   ? limit_memory(folder, limits->memory)
                    : i == 1 ? put_number(folder, "pids.max", limits->processes)
                             : limit_cpu(folder, limits->cpu_milli)) == 0;
        any = any || *held[i];
    }
    if (!any)
        cgroup_close(out, NULL);
    return any;
}

int cgroup_enter(const struct cgroup *group)
{
    for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
        if (group->procs[i] >= 0 && write(group->procs[i], "0", 1) != 1)
            return -1;
    }
    return 0;
}

void cgroup_entered(struct cgroup *group)
{
    for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
        fd_cleanup(&group->procs[i]);
        group->procs[i] = -1;
    }
}

/* Nothing tells of a version 1 group's last process but the end of the one above it, which has been
 * seen: what is left is on its way out. */
static void remove_folder(const char *folder)
{
    int64_t until = deadline_in(REMOVE_NS);
    bool killed = false;

    while (rmdir(folder) < 0 && errno == EBUSY && !deadline_passed(until)) {
        char procs[4096];
        if (!killed && own.v2)
            killed = put(folder, "cgroup.kill", "1") == 0;
        if (!own.v2 && get(folder, "cgroup.procs", procs, sizeof procs)) {
            for (char *at = procs, *next; *at; at = next) {
                long pid = strtol(at, &next, 10);
                if (next == at)
                    break;
                kill((pid_t)pid, SIGKILL);
            }
        }
        poll(NULL, 0, REMOVE_STEP);
    }
}

void cgroup_close(struct cgroup *group, struct cgroup_end *end)
{
    int pids = own.v2 ? 0 : 1;

    if (end && group->folders[0] && group->memory)
        end->out_of_memory =
            counter(group->folders[0], own.v2 ? "memory.events" : "memory.oom_control",
                    "oom_kill") > 0;
    if (end && group->folders[pids] && group->pids)
        end->out_of_processes = counter(group->folders[pids], "pids.events", "max") > 0;
    cgroup_entered(group);
    for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
        if (group->folders[i])
            remove_folder(group->folders[i]);
        free(group->folders[i]);
        group->folders[i] = NULL;
    }
}
