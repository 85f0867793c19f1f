#include "base/config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

#define CONFIG_LIMIT (1u << 20)

static const char *const top_keys[] = {"profile", "profiles", "permissions", "jobs"};
static const char *const services[] = {"registry", "mlflow",     "kubeflow", "azdo",
                                       "azureml",  "databricks", "k8s",      "seldon"};
static const char *const service_keys[] = {
    "url",        "auth",         "namespace", "ca",           "client_cert",
    "client_key", "insecure",     "proxy",     "headers",      "timeout",
    "experiment", "organization", "project",   "subscription", "resource_group",
    "workspace",  "repository",   "mirrors",   "context",      "kubeconfig",
    "ingress",    "gateway",      "host",      "namespaces",   "hosts"};
static const char *const gateways[] = {"istio", "ambassador"};
static const char *const auth_keys[] = {
    "type",   "token",     "token_file",        "username", "password",
    "tenant", "client_id", "client_secret",     "scope",    "authority",
    "name",   "value",     "service_connection"};
static const char *const auth_types[] = {
    "none", "bearer", "basic", "azure_ad", "workload_identity", "header"};
static const char *const permission_keys[] = {"read", "write", "net", "exec", "env", "deny"};
#define COUNT(list) (sizeof list / sizeof *list)

static bool among(const char *word, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i], word) == 0)
            return true;
    }
    return false;
}

static void list_words(const char *const *list, size_t count, struct buf *out)
{
    for (size_t i = 0; i < count; i++)
        buf_printf(out, "%s%s", i ? ", " : "", list[i]);
}

/* The line on which `key` first stands as a key after line `from`: good enough to find it again in
 * an editor. */
static int line_of(const char *text, const char *key)
{
    int line = 1;
    size_t len = strlen(key);

    for (const char *at = text; *at; line++) {
        const char *word = at + strspn(at, " -{\"'");
        if (strncmp(word, key, len) == 0 && word[len + strspn(word + len, "\"' ")] == ':')
            return line;
        at += strcspn(at, "\n");
        at += *at == '\n';
    }
    return 1;
}

struct checker {
    const char *file, *text;
    struct error *err;
};

static int refuse(struct checker *c, const char *where, const char *key, const char *const *allowed,
                  size_t count)
{
    cleanup_buf struct buf words = BUF_INIT;
    const char *near = near_miss(key, allowed, count);

    list_words(allowed, count, &words);
    error_set(c->err, ERR_INVALID, "%s:%d: unknown key '%s' in %s%s%s%s", c->file,
              line_of(c->text, key), key, where, near ? " (did you mean '" : "", near ? near : "",
              near ? "'?)" : "");
    return error_hint(c->err, "allowed keys: %s", words.data);
}

static int wrong_kind(struct checker *c, const char *key, const char *wanted, const struct value *v)
{
    return error_set(c->err, ERR_INVALID, "%s:%d: '%s' must be %s, not %s", c->file,
                     line_of(c->text, key), key, wanted, value_kind_name(v));
}

static int check_keys(struct checker *c, const struct value *map, const char *where,
                      const char *const *allowed, size_t count)
{
    if (map->kind != VALUE_MAP)
        return wrong_kind(c, where, "a map", map);
    for (size_t i = 0; i < map->as.map.count; i++) {
        if (!among(map->as.map.pairs[i].key, allowed, count))
            return refuse(c, where, map->as.map.pairs[i].key, allowed, count);
    }
    return 0;
}

static int check_service(struct checker *c, const char *name, const struct value *service)
{
    if (check_keys(c, service, name, service_keys, COUNT(service_keys)) < 0)
        return -1;
    const struct value *url = value_get(service, "url");
    if (url && url->kind != VALUE_STRING)
        return wrong_kind(c, "url", "text", url);
    const struct value *gateway = value_get(service, "gateway");
    if (gateway && !among(value_text(gateway, ""), gateways, COUNT(gateways))) {
        error_set(c->err, ERR_INVALID, "%s:%d: gateway of '%s' is '%s'", c->file,
                  line_of(c->text, "gateway"), name, value_text(gateway, "no text"));
        return error_hint(c->err, "allowed: istio, ambassador");
    }
    const struct value *namespaces = value_get(service, "namespaces");
    if (namespaces && namespaces->kind != VALUE_MAP)
        return wrong_kind(c, "namespaces", "a map", namespaces);
    const struct value *auth = value_get(service, "auth");
    if (!auth)
        return 0;
    if (check_keys(c, auth, "auth", auth_keys, COUNT(auth_keys)) < 0)
        return -1;
    const char *type = value_get_string(auth, "type", NULL);
    if (!type || !among(type, auth_types, COUNT(auth_types))) {
        error_set(c->err, ERR_INVALID, "%s:%d: auth of '%s' has %s '%s'", c->file,
                  line_of(c->text, "auth"), name,
                  type ? "the unknown type" : "no type:", type ? type : "");
        return error_hint(c->err, "allowed types: none, bearer, basic, azure_ad, "
                                  "workload_identity, header");
    }
    return 0;
}

static int check_profiles(struct checker *c, const struct value *profiles)
{
    if (profiles->kind != VALUE_MAP)
        return wrong_kind(c, "profiles", "a map", profiles);
    for (size_t i = 0; i < profiles->as.map.count; i++) {
        const struct value_pair *profile = &profiles->as.map.pairs[i];
        if (profile->value.kind == VALUE_NIL)
            continue;
        if (check_keys(c, &profile->value, profile->key, services, COUNT(services)) < 0)
            return -1;
        for (size_t j = 0; j < profile->value.as.map.count; j++) {
            const struct value_pair *service = &profile->value.as.map.pairs[j];
            if (check_service(c, service->key, &service->value) < 0)
                return -1;
        }
    }
    return 0;
}

/* `deny` is such a map itself. */
static int check_permissions(struct checker *c, const struct value *permissions, bool inner)
{
    if (check_keys(c, permissions, inner ? "deny" : "permissions", permission_keys,
                   COUNT(permission_keys) - inner) < 0)
        return -1;
    for (size_t i = 0; i < permissions->as.map.count; i++) {
        const struct value_pair *pair = &permissions->as.map.pairs[i];
        if (strcmp(pair->key, "deny") == 0) {
            if (check_permissions(c, &pair->value, true) < 0)
                return -1;
            continue;
        }
        if (pair->value.kind != VALUE_ARRAY)
            return wrong_kind(c, pair->key, "a list of texts", &pair->value);
        for (size_t j = 0; j < value_count(&pair->value); j++) {
            if (value_at(&pair->value, j)->kind != VALUE_STRING)
                return wrong_kind(c, pair->key, "a list of texts", value_at(&pair->value, j));
        }
    }
    return 0;
}

static int check(struct checker *c, const struct value *root)
{
    if (root->kind == VALUE_NIL)
        return 0;
    if (check_keys(c, root, "mlhost.yaml", top_keys, COUNT(top_keys)) < 0)
        return -1;
    const struct value *profile = value_get(root, "profile");
    if (profile && profile->kind != VALUE_STRING)
        return wrong_kind(c, "profile", "text", profile);
    const struct value *jobs = value_get(root, "jobs");
    if (jobs && (jobs->kind != VALUE_INT || jobs->as.integer < 1))
        return wrong_kind(c, "jobs", "a positive whole number", jobs);
    const struct value *profiles = value_get(root, "profiles");
    if (profiles && profiles->kind != VALUE_NIL && check_profiles(c, profiles) < 0)
        return -1;
    const struct value *permissions = value_get(root, "permissions");
    if (permissions && permissions->kind != VALUE_NIL &&
        check_permissions(c, permissions, false) < 0)
        return -1;
    return 0;
}

static char *find_workspace(const char *given, struct error *err)
{
    char path[PATH_MAX];

    if (!realpath(given ? given : ".", path)) {
        error_errno(err, errno, "workspace %s", given ? given : ".");
        return NULL;
    }
    if (given)
        return mem_strdup(path);
    cleanup_free char *start = mem_strdup(path);
    for (;;) {
        cleanup_free char *config = path_join(path, "mlhost.yaml");
        cleanup_free char *git = path_join(path, ".git");
        if (access(config, F_OK) == 0 || access(git, F_OK) == 0)
            return mem_strdup(path);
        char *slash = strrchr(path, '/');
        if (slash == path)
            return steal_ptr(&start);
        *slash = '\0';
    }
}

static int choose_profile(struct config *config, const char *override, struct error *err)
{
    const char *from = "--profile";
    const char *name = override;

    if (!name) {
        from = "MLHOST_PROFILE";
        name = getenv("MLHOST_PROFILE");
        if (name && !*name)
            name = NULL;
    }
    if (!name) {
        from = config->file ? config->file : "mlhost.yaml";
        name = value_get_string(&config->root, "profile", "local");
    }
    const struct value *profiles = value_get(&config->root, "profiles");
    if (strcmp(name, "local") != 0 && !value_get(profiles, name)) {
        cleanup_buf struct buf known = BUF_INIT;
        buf_puts(&known, "local");
        for (size_t i = 0; profiles && profiles->kind == VALUE_MAP && i < profiles->as.map.count;
             i++) {
            if (strcmp(profiles->as.map.pairs[i].key, "local") != 0)
                buf_printf(&known, ", %s", profiles->as.map.pairs[i].key);
        }
        error_set(err, ERR_INVALID, "unknown profile '%s' (from %s)", name, from);
        return error_hint(err,
                          "profiles of this workspace: %s; add one under profiles: in mlhost.yaml",
                          known.data);
    }
    config->profile = mem_strdup(name);
    return 0;
}

int config_load(const char *workspace, const char *profile_override, struct config *out,
                struct error *err)
{
    struct config config = {0};
    cleanup_buf struct buf text = BUF_INIT;

    config.workspace = find_workspace(workspace, err);
    if (!config.workspace)
        return -1;
    const char *state = getenv("MLHOST_STATE");
    config.state = path_join(config.workspace, state && *state ? state : ".mlhost");
    cleanup_free char *file = path_join(config.workspace, "mlhost.yaml");
    if (access(file, F_OK) == 0) {
        config.file = steal_ptr(&file);
        struct checker checker = {.file = config.file, .err = err};
        if (file_read(AT_FDCWD, config.file, CONFIG_LIMIT, &text, err) < 0)
            goto failed;
        buf_reserve(&text, 0);
        checker.text = text.data;
        if (value_from_yaml(text.data, text.len, config.file, NULL, false, &config.root, err) < 0 ||
            check(&checker, &config.root) < 0)
            goto failed;
    }
    if (choose_profile(&config, profile_override, err) < 0)
        goto failed;
    *out = config;
    return 0;
failed:
    config_free(&config);
    return -1;
}

void config_free(struct config *config)
{
    free(config->workspace);
    free(config->file);
    free(config->state);
    free(config->profile);
    value_free(&config->root);
    *config = (struct config){0};
}

const struct value *config_service(const struct config *config, const char *service)
{
    const struct value *profile = value_get(value_get(&config->root, "profiles"), config->profile);

    return value_get(profile, service);
}

bool config_is_local(const struct config *config)
{
    return strcmp(config->profile, "local") == 0;
}
