/*
 * Who and where, of Kubernetes clients: kubeconfig files by kubectl's rules, the service account of
 * a pod, credential plugins.
 * https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
 */
#ifndef MLHOST_SERVICE_K8S_CONFIG_H
#define MLHOST_SERVICE_K8S_CONFIG_H

#include "service/client.h"

/* The files of "a:b:c" (or one path), merged: for each name, and for current-context, the first
 * file that has it counts. Paths in it are absolute afterwards. Files that are not there are left
 * out; ERR_NOT_FOUND when none is. from_script: one path, which call_path gave. */
int k8s_config_load(const char *paths, bool from_script, struct value *out, struct error *err);
/* Fills address, TLS, credentials and namespace of the context (NULL: the current one) into the
 * client; *namespace: allocated, or NULL. from_script: the script has named the kubeconfig, so its
 * hosts need the permission net, its files read, and its plugin is a command of the script's.
 * own_auth: the client's auth is in place of the context's user. */
int k8s_config_use(struct call *call, const struct value *config, const char *context,
                   bool from_script, bool own_auth, struct rest_client *client, char **namespace,
                   struct error *err);
/* The account that a pod has; false when this is no pod. */
bool k8s_in_cluster(struct rest_client *client, char **namespace);

/*
 * A credential plugin (client.authentication.k8s.io v1, v1beta1): what `user.exec` of a kubeconfig
 * names. The command needs the script's permission `exec`. That of a script's kubeconfig runs as
 * exec.run would run it; the operator's has the operator's environment, and no sandbox but the
 * syscall filter. Fills auth->cached, its end, and the client's certificate where the plugin gives
 * one.
 */
int k8s_exec_credential(struct call *call, struct rest_client *client, struct error *err);
/* Bytes as a file that is on no disk and lives as long as the client: a path that curl can read.
 * Allocated. */
char *k8s_text_file(struct rest_client *client, const void *bytes, size_t len, const char *what,
                    struct error *err);
/* Base64 with padding, in lines or not; NULL when it is none. Allocated. */
unsigned char *k8s_base64_decode(const char *text, size_t *out_len);
/* RFC 3339 ("2026-01-31T12:00:00.5+01:00") -> milliseconds since 1970; -1 when it is none. */
int64_t k8s_time_ms(const char *text);

/* Takes members that are null out of a reply (k8s_request.c). */
void k8s_drop_nulls(struct value *v);

#endif
