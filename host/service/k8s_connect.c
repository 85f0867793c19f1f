/* k8s.connect: which cluster, and as whom. */
#include "service/k8s_config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

static int from_kubeconfig(struct call *call, const struct value *args, const char *paths,
                           const struct service_target *target, bool from_script, struct value *out,
                           struct error *err)
{
    struct rest_client *client = rest_client_new(service_find("k8s"), target->profile);
    cleanup_value struct value config = {0};
    cleanup_free char *namespace = NULL;
    const char *context =
        value_get_string(args, "context", value_get_string(target->config, "context", NULL));
    bool own_auth;

    client->trusted = !from_script;
    client->url_origin = mem_printf("the kubeconfig %s", paths);
    if (rest_client_own_auth(call, client, args, &own_auth, err) < 0 ||
        k8s_config_load(paths, from_script, &config, err) < 0 ||
        k8s_config_use(call, &config, context, from_script, own_auth, client, &namespace, err) <
            0) {
        rest_client_free(client);
        return -1;
    }
    rest_client_give(call, client, target, out);
    if (!value_get(out, "namespace"))
        value_put_string(out, "namespace", namespace);
    return 0;
}

static int from_pod(struct call *call, const struct value *args,
                    const struct service_target *target, struct value *out, struct error *err)
{
    struct rest_client *client = rest_client_new(service_find("k8s"), target->profile);
    cleanup_free char *namespace = NULL;
    struct auth account;
    bool own_auth;

    if (!k8s_in_cluster(client, &namespace)) {
        rest_client_free(client);
        error_set(err, ERR_NOT_FOUND, "no Kubernetes cluster is configured in the profile '%s'",
                  target->profile);
        return error_hint(err,
                          "set KUBECONFIG, or profiles.%s.k8s.{kubeconfig, context} or .url in "
                          "mlhost.yaml; the profile local has one in the program",
                          target->profile);
    }
    account = client->auth;
    client->auth = (struct auth){0};
    if (rest_client_own_auth(call, client, args, &own_auth, err) < 0) {
        auth_free(&account);
        rest_client_free(client);
        return -1;
    }
    if (own_auth)
        auth_free(&account);
    else
        client->auth = account;
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
 *   endpoint    string  base URL of the API
 *   kubeconfig  path    another kubeconfig (permission read); its host needs the permission net,
 *                       the files that it names read, and its credential plugin runs as exec.run
 *                       would run it
 *   auth, token         as for other services; in place of the kubeconfig's user
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
        rc = from_kubeconfig(call, args, path, &target, true, out, &problem);
    } else if (value_get_string(args, "endpoint", NULL) ||
               value_get_string(target.config, "url", NULL) || local) {
        return prim_service_connect(call, args, out, err);
    } else {
        bool stages;
        cleanup_free char *paths = call_kubeconfig(call, &stages);
        rc = paths ? from_kubeconfig(call, args, paths, &target, stages, out, &problem)
                   : from_pod(call, args, &target, out, &problem);
        if (rc < 0 && stages)
            error_wrap(&problem, "%s, which this stage may write, has only the stage's rights",
                       paths);
    }
    if (rc < 0) {
        error_wrap(&problem, "k8s.connect");
        memcpy(problem.service, "k8s", 4);
        *err = problem;
    }
    return rc;
}
