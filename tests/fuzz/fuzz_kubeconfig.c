/*
 * Kubeconfig files: two of them, cut at a line "%%%", are merged as kubectl does. Names that both
 * have are the first one's; what a client is given is an http(s) address, and no command runs that
 * was not permitted.
 */
#include "fuzz.h"

#include "base/config.h"
#include "base/vault.h"
#include "broker/internal.h"
#include "broker/policy.h"
#include "folder.h"
#include "service/k8s_config.h"

static bool known(const struct value *list, const char *name)
{
    for (size_t i = 0; i < value_count(list); i++)
        if (strcmp(value_get_string(value_at(list, i), "name", ""), name) == 0)
            return true;
    return false;
}

static void merged(const struct value *config)
{
    static const char *const lists[] = {"clusters", "users", "contexts"};

    for (size_t i = 0; i < 3; i++) {
        const struct value *list = value_get(config, lists[i]);
        check(list && list->kind == VALUE_ARRAY);
        cleanup_value struct value seen = {0};
        value_set_map(&seen);
        for (size_t k = 0; k < value_count(list); k++) {
            const char *name = value_get_string(value_at(list, k), "name", "");
            check(!value_get(&seen, name));
            value_put_bool(&seen, name, true);
        }
    }
}

static void used(struct broker *broker, const struct value *config, const char *context,
                 bool from_script)
{
    struct call call = {.broker = broker, .deadline = DEADLINE_NONE};
    struct error err = {0};
    cleanup_free char *namespace = NULL;
    struct rest_client *client = rest_client_new(service_find("k8s"), "fuzz");

    int status =
        k8s_config_use(&call, config, context, from_script, false, client, &namespace, &err);
    check_result(status, &err);
    check(status < 0 || !from_script); /* it may go nowhere here */
    if (status == 0) {
        const char *name = context ? context : value_get_string(config, "current-context", "");
        check(known(value_get(config, "contexts"), name));
        check(strncmp(client->url, "http", 4) == 0 && strstr(client->url, "://"));
        check(client->auth.kind != AUTH_EXEC); /* it is not permitted here */
        if (client->auth.kind == AUTH_BEARER && client->auth.token &&
            strlen(client->auth.token) >= MASK_SHORTEST) {
            cleanup_buf struct buf shown = BUF_INIT;
            mask_text(broker->masker, client->auth.token, strlen(client->auth.token), &shown);
            check(shown.len < strlen(client->auth.token) ||
                  !strstr(shown.data, client->auth.token));
        }
    }
    rest_client_free(client);
}

/* Descriptors of nameless files belong to the process that connects; this one goes on. */
static void close_nameless(void)
{
    for (int fd = 3; fd < 64; fd++) {
        char path[64], target[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t len = readlink(path, target, sizeof target - 1);
        if (len > 0 && memmem(target, (size_t)len, "memfd:kubeconfig", 16))
            close(fd);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config config = {.workspace = (char[]){"/w/space"}, .state = (char[]){"/w"}};
    const struct broker_spec spec = {.config = &config};
    cleanup_value struct value merged_config = {0};
    struct error err = {0};
    const uint8_t *cut = size ? memmem(data, size, "%%%\n", 4) : NULL;
    size_t first = cut ? (size_t)(cut - data) : size;

    fuzz_file("one", data, first);
    fuzz_file("two", cut ? cut + 4 : data, cut ? size - first - 4 : 0);
    cleanup_free char *paths =
        mem_printf("%s/one:%s/two:%s/none", fuzz_folder(), fuzz_folder(), fuzz_folder());
    int status = k8s_config_load(paths, false, &merged_config, &err);
    check_result(status, &err);
    if (status < 0)
        return 0;
    merged(&merged_config);
    struct broker broker = {.spec = &spec, .masker = masker_new(), .event_fd = -1, .closed = true};
    pthread_mutex_init(&broker.handles.lock, NULL);
    broker.policy = policy_new(NULL, NULL, config.workspace, &err);
    used(&broker, &merged_config, NULL, false);
    used(&broker, &merged_config, "c", false);
    used(&broker, &merged_config, "c", true);
    close_nameless();
    vault_free(broker.handles.vault);
    free(broker.handles.items);
    policy_free(broker.policy);
    masker_free(broker.masker);
    return 0;
}
