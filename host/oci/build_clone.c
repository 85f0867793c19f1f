/* ADD of a git repository: git itself gets it, with the script's rights, into a folder of the
 * stage. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "loop/exec.h"
#include "oci/build_fetch.h"

#define CLONE_MS (30 * 60 * 1000)

struct clone {
    struct call *call;
    const char *folder;
};

/* git with these arguments, ended by NULL, in the folder; what it printed goes to *out. */
static int git(struct clone *clone, const char *const *words, struct buf *out, struct error *err)
{
    cleanup_value struct value args = {0};
    struct sandbox_policy limits = SANDBOX_POLICY_INIT;
    struct exec_result ran = {0};

    limits.processes = COMMAND_PROCESSES;
    value_set_map(&args);
    struct value *argv = value_put(&args, "argv");
    value_set_array(argv);
    value_push_string(argv, "git");
    for (; *words; words++)
        value_push_string(argv, *words);
    struct value *env = value_put(&args, "env");
    value_set_map(env);
    value_put_string(env, "GIT_TERMINAL_PROMPT", "0");
    value_put_string(env, "GIT_CONFIG_NOSYSTEM", "1");
    value_put_string(&args, "cwd", clone->folder);
    value_put_bool(&args, "quiet", true);
    int64_t deadline = deadline_min(clone->call->deadline ? clone->call->deadline : DEADLINE_NONE,
                                    deadline_in(CLONE_MS * INT64_C(1000000)));
    int status = call_command(clone->call, &args, &limits, deadline, 0, &ran, err);
    if (status != 0 && err && err->code == ERR_NOT_FOUND)
        error_hint(err, "ADD of a repository needs git on this machine; or clone it elsewhere and "
                        "COPY it");
    if (status == 0 && ran.cancelled)
        status = error_set(err, ERR_CANCELLED, "the build was cancelled");
    else if (status == 0 && ran.timed_out)
        status = error_set(err, ERR_TIMEOUT, "git took too long");
    else if (status == 0 && ran.status != 0)
        status = error_set(err, ERR_FAILED, "git: %.600s",
                           ran.err.len ? ran.err.data : "it failed and said nothing");
    if (status == 0 && out && ran.out.len)
        buf_append(out, ran.out.data, ran.out.len);
    exec_result_free(&ran);
    return status;
}

/* Shallow where the server can do that. */
static int fetch_commit(struct clone *clone, const char *url, const char *ref, struct error *err)
{
    const char *const begin[] = {"init", "-q", NULL};
    const char *const shallow[] = {"fetch", "-q", "--depth", "1", "--", url, ref, NULL};
    const char *const one[] = {"fetch", "-q", "--", url, ref, NULL};
    const char *const all[] = {
        "fetch", "-q", "--", url, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*",
        NULL};
    const char *const head[] = {"checkout", "-q", "--detach", "FETCH_HEAD", NULL};
    const char *const commit[] = {"checkout", "-q", "--detach", ref, NULL};
    struct error first = {0};

    if (git(clone, begin, NULL, err) != 0)
        return -1;
    if (git(clone, shallow, NULL, &first) == 0 || git(clone, one, NULL, NULL) == 0)
        return git(clone, head, NULL, err);
    /* A commit that no branch's end is. */
    if (strspn(ref, "0123456789abcdef") == strlen(ref) && strlen(ref) >= 7 &&
        git(clone, all, NULL, NULL) == 0)
        return git(clone, commit, NULL, err);
    if (err)
        *err = first;
    return -1;
}

static int fetch_submodules(struct clone *clone, struct error *err)
{
    const char *const words[] = {"submodule", "update", "-q",       "--init", "--recursive",
                                 "--depth",   "1",      "--jobs=2", NULL};
    cleanup_free char *list = path_join(clone->folder, ".gitmodules");

    return access(list, F_OK) == 0 ? git(clone, words, NULL, err) : 0;
}

/* The host of git@host:path and scheme://[user@]host[:port]/path; its port, or the scheme's. */
static char *host_of(const char *url, int *port)
{
    const char *scheme = strstr(url, "://"), *start = scheme ? scheme + 3 : url;
    size_t len = strcspn(start, scheme ? "/?#" : ":");
    const char *user = memchr(start, '@', len);

    if (user) {
        len -= (size_t)(user + 1 - start);
        start = user + 1;
    }
    *port = strncmp(url, "https:", 6) == 0  ? 443
            : strncmp(url, "http:", 5) == 0 ? 80
            : strncmp(url, "git:", 4) == 0  ? 9418
                                            : 22;
    const char *colon = memchr(start, ':', len);
    if (colon) {
        *port = (int)strtol(colon + 1, NULL, 10);
        len = (size_t)(colon - start);
    }
    return mem_strndup(start, len);
}

int build_clone(struct call *call, const char *url, const char *ref, char **folder, char **commit,
                struct error *err)
{
    const char *const which[] = {"rev-parse", "HEAD", NULL};
    cleanup_buf struct buf head = BUF_INIT;
    const char *out_dir = call_out_dir(call);
    int port;
    cleanup_free char *host = host_of(url, &port);
    cleanup_free char *path = out_dir ? mem_printf("%s/.tmp/git-XXXXXX", out_dir) : NULL;
    cleanup_free char *above = out_dir ? mem_printf("%s/.tmp", out_dir) : NULL;
    struct clone clone = {call, path};

    if (*ref == '-' || call_allow_net(call, host, port, err) != 0)
        return *ref == '-' ? error_set(err, ERR_INVALID, "'%.100s' is no name of a commit", ref)
                           : -1;
    if (!path)
        return error_set(err, ERR_UNSUPPORTED, "there is no folder for a repository here");
    if (dir_make(above, err) != 0)
        return -1;
    if (!mkdtemp(path))
        return error_errno(err, errno, "cannot make a folder in %s", above);
    if (fetch_commit(&clone, url, ref, err) != 0 || fetch_submodules(&clone, err) != 0 ||
        git(&clone, which, &head, err) != 0) {
        dir_remove(path, NULL);
        return -1;
    }
    *commit = mem_strndup(head.data ? head.data : "", head.data ? strcspn(head.data, "\r\n") : 0);
    *folder = steal_ptr(&path);
    return 0;
}
