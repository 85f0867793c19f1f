/* Which kubeconfigs are the operator's: what stands there runs as the operator, so no stage may
 * have written it. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/environment.h"
#include "base/mem.h"
#include "broker/internal.h"
#include "sandbox/sandbox.h"

/* The profile's, KUBECONFIG, ~/.kube/config: "a:b", or NULL. Allocated. */
static char *operators_paths(const struct broker_spec *spec)
{
    const char *profile = value_get_string(config_service(spec->config, "k8s"), "kubeconfig", NULL);
    const char *variable = environment_get("KUBECONFIG", NULL), *home = getenv("HOME");

    if (profile)
        return path_join(spec->config->workspace, profile);
    if (variable && *variable)
        return mem_strdup(variable);
    cleanup_free char *usual = home ? path_join(home, ".kube/config") : NULL;
    return usual && access(usual, R_OK) == 0 ? steal_ptr(&usual) : NULL;
}

static char *next_path(const char **at)
{
    size_t len = strcspn(*at, ":");
    char *path = mem_strndup(*at, len);

    *at += len + ((*at)[len] == ':');
    return path;
}

void broker_protect_kubeconfigs(struct broker *broker)
{
    cleanup_free char *paths = operators_paths(broker->spec);
    char real[PATH_MAX];
    struct error unused;

    for (const char *at = paths; at && *at;) {
        cleanup_free char *path = next_path(&at);
        /* Commands are kept from it by a mount. Where there is none, it stays the stage's, and has
         * the stage's rights (call_kubeconfig). */
        if (*path && realpath(path, real) &&
            policy_check(broker->policy, PERM_WRITE, real, &unused) == 0 &&
            sandbox_available() & SANDBOX_LAYER_NAMESPACES)
            policy_protect(broker->policy, real);
    }
}

char *call_kubeconfig(struct call *call, bool *stages)
{
    cleanup_free char *paths = operators_paths(call->broker->spec);
    cleanup_buf struct buf safe = BUF_INIT;
    char *own = NULL;

    *stages = false;
    if (!paths)
        return NULL;
    for (const char *at = paths; *at;) {
        cleanup_free char *path = next_path(&at);
        struct error unused;
        if (!*path)
            continue;
        cleanup_free char *writable = call_path(call, path, ACCESS_WRITE, &unused);
        if (!writable)
            buf_printf(&safe, "%s%s", safe.len ? ":" : "", path);
        else if (!own)
            own = steal_ptr(&writable);
    }
    /* Beside a file that the stage cannot write, one that it can is left out: it could send the
     * other's credentials elsewhere. */
    if (safe.len) {
        free(own);
        return mem_strdup(safe.data);
    }
    *stages = own != NULL;
    return own;
}
