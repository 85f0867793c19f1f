/* Logins: Docker's config.json
 * (https://docs.docker.com/reference/cli/docker/login/#credential-stores) and
 * containers-auth.json(5). */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/remote.h"

#define CONFIG_LIMIT      (1u << 20)
#define HELPER_LIMIT      (64u * 1024)
#define HELPER_TIMEOUT_NS (30 * NS_PER_S)

extern char **environ;

/* Where logins may be, first that is there first: Docker's own, then those of
 * containers-auth.json(5). Allocated. */
static size_t config_files(char *files[4])
{
    const char *docker = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
    const char *named = getenv("REGISTRY_AUTH_FILE"), *run = getenv("XDG_RUNTIME_DIR");
    const char *config = getenv("XDG_CONFIG_HOME");
    size_t count = 0;

    if (docker && *docker)
        files[count++] = path_join(docker, "config.json");
    else if (home && *home)
        files[count++] = path_join(home, ".docker/config.json");
    if (named && *named)
        files[count++] = mem_strdup(named);
    if (run && *run)
        files[count++] = path_join(run, "containers/auth.json");
    if (config && *config)
        files[count++] = path_join(config, "containers/auth.json");
    else if (home && *home)
        files[count++] = path_join(home, ".config/containers/auth.json");
    return count;
}

/* The keys of one repository, the longest prefix first: "host/a/b", "host/a". An array of texts. */
static void repository_keys(const char *host, const char *name, struct value *out)
{
    value_set_array(out);
    for (size_t len = name ? strlen(name) : 0; len;) {
        value_take_string(value_push(out), mem_printf("%s/%.*s", host, (int)len, name));
        while (len && name[len - 1] != '/')
            len--;
        while (len && name[len - 1] == '/')
            len--;
    }
}

/* The keys under which a host may be. */
static void host_keys(const char *host, struct value *out)
{
    static const char *const hub[] = {"https://index.docker.io/v1/", "index.docker.io",
                                      "registry-1.docker.io"};

    value_set_array(out);
    if (strcmp(host, DOCKER_HUB) == 0)
        for (size_t i = 0; i < sizeof hub / sizeof *hub; i++)
            value_push_string(out, hub[i]);
    value_push_string(out, host);
    value_take_string(value_push(out), mem_printf("https://%s", host));
    value_take_string(value_push(out), mem_printf("https://%s/", host));
    value_take_string(value_push(out), mem_printf("https://%s/v1/", host));
    value_take_string(value_push(out), mem_printf("https://%s/v2/", host));
    value_take_string(value_push(out), mem_printf("http://%s", host));
}

static int decode_pair(const char *encoded, struct docker_login *out, struct error *err)
{
    size_t len = strlen(encoded);
    cleanup_free char *plain = mem_alloc(len + 4);
    int got =
        len ? EVP_DecodeBlock((unsigned char *)plain, (const unsigned char *)encoded, (int)len)
            : -1;

    if (got < 0 || len % 4 != 0)
        return error_set(err, ERR_INVALID, "auth is no base64");
    for (size_t i = len; i > 0 && encoded[i - 1] == '='; i--)
        got--;
    plain[got < 0 ? 0 : got] = '\0';
    char *colon = strchr(plain, ':');
    if (!colon)
        return error_set(err, ERR_INVALID, "auth is not user:password");
    out->user = mem_strndup(plain, (size_t)(colon - plain));
    out->password = mem_strdup(colon + 1);
    return 0;
}

/* What a helper prints for a host; it must end in time. */
static int run_helper(const char *helper, const char *host, int64_t deadline, struct buf *out,
                      int *exit_status, struct error *err)
{
    cleanup_free char *program = mem_printf("docker-credential-%s", helper);
    char *argv[] = {program, (char[]){"get"}, NULL};
    posix_spawn_file_actions_t actions;
    int in[2] = {-1, -1}, back[2] = {-1, -1}, status = -1;
    pid_t pid;

    if (strchr(helper, '/'))
        return error_set(err, ERR_INVALID, "'%s' is no name of a credential helper", helper);
    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(back, O_CLOEXEC) < 0) {
        error_errno(err, errno, "cannot make a pipe");
        goto out;
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, back[1], STDOUT_FILENO);
    int problem = posix_spawnp(&pid, program, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (problem) {
        error_errno(err, problem, "cannot start %s", program);
        error_hint(err, "config.json names it as credential helper: install it, or use `docker "
                        "login` without one");
        goto out;
    }
    close(in[0]);
    close(back[1]);
    in[0] = back[1] = -1;
    status = fd_write_all(in[1], host, strlen(host),
                          NULL); /* one that does not read its input says why itself */
    close(in[1]);
    in[1] = -1;
    int64_t until = deadline_min(deadline, deadline_in(HELPER_TIMEOUT_NS));
    status = 0;
    for (;;) {
        struct pollfd wait = {.fd = back[0], .events = POLLIN};
        int ready = poll(&wait, 1, deadline_poll_ms(until));
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0 || out->len > HELPER_LIMIT) {
            kill(pid, SIGKILL);
            status = error_set(err, ERR_TIMEOUT, "%s did not answer in time", program);
            break;
        }
        ssize_t n = read(back[0], buf_reserve(out, 4096), 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        out->len += (size_t)n;
        out->data[out->len] = '\0';
    }
    while (waitpid(pid, exit_status, 0) < 0 && errno == EINTR) {
    }
out:
    for (int i = 0; i < 2; i++) {
        if (in[i] >= 0)
            close(in[i]);
        if (back[i] >= 0)
            close(back[i]);
    }
    return status;
}

static int from_helper(const char *helper, const char *key, int64_t deadline,
                       struct docker_login *login, struct error *err)
{
    cleanup_buf struct buf out = BUF_INIT;
    cleanup_value struct value reply = {0};
    int exit_status = 0;

    if (run_helper(helper, key, deadline, &out, &exit_status, err) != 0)
        return -1;
    if (!WIFEXITED(exit_status) || WEXITSTATUS(exit_status) != 0) {
        if (out.len && strstr(out.data, "not found"))
            return 0;
        return error_set(err, ERR_FAILED, "docker-credential-%s failed: %.200s", helper,
                         out.len ? out.data : "no output");
    }
    if (value_from_json(out.data ? out.data : "", out.len, helper, NULL, &reply, err) != 0)
        return error_wrap(err, "docker-credential-%s", helper);
    const char *name = value_get_string(&reply, "Username", ""),
               *secret = value_get_string(&reply, "Secret", "");
    if (!*secret)
        return 0;
    if (strcmp(name, "<token>") == 0) {
        login->identity = mem_strdup(secret);
    } else {
        login->user = mem_strdup(name);
        login->password = mem_strdup(secret);
    }
    return 1;
}

static int from_entry(const struct value *entry, struct docker_login *login, struct error *err)
{
    const char *identity = value_get_string(entry, "identitytoken", ""),
               *bearer = value_get_string(entry, "registrytoken", ""),
               *encoded = value_get_string(entry, "auth", "");
    const char *name = value_get_string(entry, "username", ""),
               *secret = value_get_string(entry, "password", "");

    if (*bearer) {
        login->bearer = mem_strdup(bearer);
        return 1;
    }
    if (*identity) {
        login->identity = mem_strdup(identity);
        return 1;
    }
    if (*encoded)
        return decode_pair(encoded, login, err) == 0 ? 1 : -1;
    if (!*name || !*secret)
        return 0;
    login->user = mem_strdup(name);
    login->password = mem_strdup(secret);
    return 1;
}

static int from_auths(const struct value *config, const struct value *keys,
                      struct docker_login *login, struct error *err)
{
    int found = 0;

    for (size_t i = 0; i < value_count(keys) && found == 0; i++)
        found = from_entry(value_get(value_get(config, "auths"), value_text(value_at(keys, i), "")),
                           login, err);
    return found;
}

static int from_helpers(const struct value *config, const struct value *keys, int64_t deadline,
                        struct docker_login *login, struct error *err)
{
    int found = 0;

    for (size_t i = 0; i < value_count(keys) && found == 0; i++) {
        const char *key = value_text(value_at(keys, i), "");
        const char *helper = value_get_string(value_get(config, "credHelpers"), key, NULL);
        if (helper)
            found = from_helper(helper, key, deadline, login, err);
    }
    return found;
}

static int from_file(const char *path, const char *host, const char *name, int64_t deadline,
                     struct docker_login *login, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value config = {0};
    cleanup_value struct value narrow = {0};
    cleanup_value struct value wide = {0};

    if (file_read(AT_FDCWD, path, CONFIG_LIMIT, &text, err) != 0 ||
        value_from_json(text.data ? text.data : "", text.len, path, NULL, &config, err) != 0)
        return -1;
    repository_keys(host, name, &narrow);
    host_keys(host, &wide);
    const char *store = value_get_string(&config, "credsStore", "");
    /* What is said of a repository counts more than what is said of its host. */
    int found = from_helpers(&config, &narrow, deadline, login, err);
    if (found == 0)
        found = from_auths(&config, &narrow, login, err);
    if (found == 0)
        found = from_helpers(&config, &wide, deadline, login, err);
    if (found == 0 && *store)
        found = from_helper(store, value_text(value_at(&wide, 0), host), deadline, login, err);
    if (found == 0)
        found = from_auths(&config, &wide, login, err);
    return found < 0 ? error_wrap(err, "%s: %s", path, host) : found;
}

void docker_login_free(struct docker_login *login)
{
    free(login->user);
    free(login->password);
    free(login->identity);
    free(login->bearer);
    free(login->origin);
    *login = (struct docker_login){0};
}

int docker_credentials(const char *host, const char *name, int64_t deadline,
                       struct docker_login *login, struct error *err)
{
    char *files[4];
    size_t count = config_files(files);
    int found = 0;

    for (size_t i = 0; i < count && found == 0; i++) {
        if (access(files[i], F_OK) == 0)
            found = from_file(files[i], host, name, deadline, login, err);
        if (found > 0)
            login->origin = mem_strdup(files[i]);
    }
    for (size_t i = 0; i < count; i++)
        free(files[i]);
    return found;
}
