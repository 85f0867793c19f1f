#include "sandbox/subids.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"

#define FILE_LIMIT  (1u << 20)
#define ENTRY_LIMIT (16u << 10) /* of the user database */

/* A decimal number that ends at `stop`. */
static bool number(const char **at, char stop, uint32_t *out)
{
    char *end;

    if (**at < '0' || **at > '9')
        return false;
    errno = 0;
    unsigned long long n = strtoull(*at, &end, 10);
    if (errno || n >= UINT32_MAX || (*end != stop && !(stop == '\n' && *end == '\0')))
        return false;
    *at = end;
    *out = (uint32_t)n;
    return true;
}

static bool parse_line(const char *line, const char *user, const char *id, struct subid_range *out)
{
    size_t len = strcspn(line, ":\n");
    bool own = (user && strlen(user) == len && strncmp(line, user, len) == 0) ||
               (strlen(id) == len && strncmp(line, id, len) == 0);

    if (!own || line[len] != ':')
        return false;
    line += len + 1;
    if (!number(&line, ':', &out->first))
        return false;
    line++;
    return number(&line, '\n', &out->count) && out->count && out->count <= UINT32_MAX - out->first;
}

bool subids_parse(const char *text, const char *user, uid_t uid, struct subid_range *out)
{
    char id[16];

    snprintf(id, sizeof id, "%u", uid);
    *out = (struct subid_range){0};
    while (*text) {
        struct subid_range one;
        if (parse_line(text, user, id, &one) && one.count > out->count)
            *out = one;
        text += strcspn(text, "\n");
        text += *text == '\n';
    }
    return out->count > 0;
}

static bool find_range(const char *path, const char *user, struct subid_range *out, struct buf *why)
{
    cleanup_buf struct buf text = BUF_INIT;
    bool found = file_read(AT_FDCWD, path, FILE_LIMIT, &text, NULL) == 0 && text.len &&
                 subids_parse(text.data, user, getuid(), out) && out->count >= SUBIDS_FEWEST;

    if (!found && why)
        buf_printf(why, "%s gives this user no range of %u ids or more", path, SUBIDS_FEWEST);
    return found;
}

/* Where distributions have it; PATH is whoever's. */
static bool find_tool(const char *name, char *path, size_t room, struct buf *why)
{
    static const char *const folders[] = {"/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"};

    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, room, "%s/%s", folders[i], name);
        if (access(path, X_OK) == 0)
            return true;
    }
    if (why)
        buf_printf(why, "there is no %s (Debian: apt-get install uidmap)", name);
    return false;
}

bool subids_find(struct subids *out, struct buf *why)
{
    char room[ENTRY_LIMIT];
    struct passwd entry, *found = NULL;

    if (getpwuid_r(getuid(), &entry, room, sizeof room, &found) != 0)
        found = NULL;
    const char *user = found ? found->pw_name : NULL;
    *out = (struct subids){0};
    return find_tool("newuidmap", out->newuidmap, sizeof out->newuidmap, why) &&
           find_tool("newgidmap", out->newgidmap, sizeof out->newgidmap, why) &&
           find_range("/etc/subuid", user, &out->uids, why) &&
           find_range("/etc/subgid", user, &out->gids, why);
}

/* The tools answer at once: they write one file. */
static int run_tool(const char *tool, pid_t pid, unsigned own, const struct subid_range *range,
                    struct error *err)
{
    char texts[4][16];
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    pid_t child;
    int status;

    snprintf(texts[0], sizeof texts[0], "%d", pid);
    snprintf(texts[1], sizeof texts[1], "%u", own);
    snprintf(texts[2], sizeof texts[2], "%u", range->first);
    snprintf(texts[3], sizeof texts[3], "%u", range->count);
    char *const argv[] = {(char *)tool, texts[0], (char *)"0", texts[1], (char *)"1",
                          (char *)"1",  texts[2], texts[3],    NULL};
    char *const env[] = {NULL};
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&files, 0, 1);
    posix_spawn_file_actions_adddup2(&files, 0, 2);
    posix_spawn_file_actions_addclosefrom_np(&files, 3);
    int failed = posix_spawn(&child, tool, &files, &attributes, argv, env);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    if (failed)
        return error_errno(err, failed, "cannot run %s", tool);
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            return error_errno(err, errno, "cannot wait for %s", tool);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    error_set(err, ERR_FAILED, "%s %s 0 %s 1 1 %s %s failed", tool, texts[0], texts[1], texts[2],
              texts[3]);
    return error_hint(err, "it must be setuid root or have file capabilities, and this process "
                           "must not run with no_new_privs");
}

int subids_map(const struct subids *subids, pid_t pid, struct error *err)
{
    return run_tool(subids->newuidmap, pid, geteuid(), &subids->uids, err) == 0 &&
                   run_tool(subids->newgidmap, pid, getegid(), &subids->gids, err) == 0
               ? 0
               : -1;
}
