/* k8s.connect: which cluster, and as whom. */
#include "service/k8s_config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

/* Where the operator's kubeconfig is: the profile's, KUBECONFIG, ~/.kube/config. Allocated. */
static char *operators_paths(struct call *call, const struct service_target *target)
{
    const char *profile = value_get_string(target->config, "kubeconfig", NULL);
    const char *home = getenv("HOME");

    if (profile)
        return path_join(call_workspace(call), profile);
    if (variable("KUBECONFIG"))
        return mem_strdup(variable("KUBECONFIG"));
    cleanup_free char *usual = home ? path_join(home, ".kube/config") : NULL;
    return usual && access(usual, R_OK) == 0 ? steal_ptr(&usual) : NULL;
}

static int from_kubeconfig(struct call *call, const struct value *args, const char *paths,
                           const struct service_target *target, bool from_script, struct value *out,
                           struct error *err)
{
    struct rest_client *client = rest_client_new(service_find("k8s"), target->profile);
    cleanup_value struct value config = {0};
    cleanup_free char *namespace = NULL;
    const char *context =
        value_get_string(args, "context", value_get_string(target->config, "context", NULL));

    client->trusted = !from_script;
    client->url_origin = mem_printf("the kubeconfig %s", paths);
    if (k8s_config_load(paths, from_script, &config, err) < 0 ||
        k8s_config_use(call, &config, context, from_script, client, &namespace, err) < 0) {
        rest_client_free(client);
        return -1;
    }
    rest_client_give(call, client, target, out);
    if (!value_get(out, "namespace"))
        value_put_string(out, "namespace", namespace);
    return 0;
}

static int from_pod(struct call *call, const struct service_target *target, struct value *out,
                    struct error *err)
{
    struct rest_client *client = rest_client_new(service_find("k8s"), target->profile);
    cleanup_free char *namespace = NULL;

    if (!k8s_in_cluster(client, &namespace)) {
        rest_client_free(client);
        error_set(err, ERR_NOT_FOUND, "no Kubernetes cluster is configured in the profile '%s'",
                  target->profile);
        return error_hint(err,
                          "set KUBECONFIG, or profiles.%s.k8s.{kubeconfig, context} or .url in "
                          "mlhost.yaml; the profile local has one in the program",
                          target->profile);
    }
    client->trusted = true;
    client->url_origin = mem_strdup("the pod's service account");
    rest_client_set_host(client);
    rest_client_give(call, client, target, out);
    if (!value_get(out, "namespace"))
        value_put_string(out, "namespace", namespace);
    return 0;
}

/*
 * k8s.connect(endpoint?, kubeconfig?, context?, auth?, token?) -> { client, url, namespace, ... }
 *
 *   endpoint    string  base URL of the API; with auth and token as for other services
 *   kubeconfig  path    another kubeconfig (permission read); its host needs the permission net,
 *                       the files that it names read, and it runs no credential plugin
 *   context     string  of the kubeconfig; default: the profile's, else its current-context
 * returns  map  see <service>.connect; namespace: the profile's, else the context's
 * errors   not_found (no such context ...), invalid, denied (a credential plugin without the
 *          permission exec), unauthorized (the plugin failed)
 *
 * Where, in this order: the arguments, the profile's url, the profile's kubeconfig; of another
 * profile than local KUBECONFIG, ~/.kube/config and the pod's service account; else the embedded
 * API.
 */
int prim_k8s_connect(struct call *call, const struct value *args, struct value *out,
                     struct error *err)
{
    struct service_target target = {0};
    struct error problem = {0};
    int rc;

    call_service(call, "k8s", &target);
    const char *given = value_get_string(args, "kubeconfig", NULL);
    bool local = target.unix_socket && !value_get_string(target.config, "kubeconfig", NULL);
    if (given) {
        cleanup_free char *path = call_path(call, given, ACCESS_READ, err);
        if (!path)
            return error_wrap(err, "k8s.connect");
        if (value_get(args, "auth") || value_get(args, "token"))
            rc = error_set(&problem, ERR_USAGE,
                           "auth and token go with endpoint; a kubeconfig says who it is for");
        else
            rc = from_kubeconfig(call, args, path, &target, true, out, &problem);
    } else if (value_get_string(args, "endpoint", NULL) ||
               value_get_string(target.config, "url", NULL) || local) {
        return prim_service_connect(call, args, out, err);
    } else {
        cleanup_free char *paths = operators_paths(call, &target);
        rc = paths ? from_kubeconfig(call, args, paths, &target, false, out, &problem)
                   : from_pod(call, &target, out, &problem);
    }
    if (rc < 0) {
        error_wrap(&problem, "k8s.connect");
        memcpy(problem.service, "k8s", 4);
        *err = problem;
    }
    return rc;
}
