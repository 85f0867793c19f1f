/* Docker's config.json: https://docs.docker.com/reference/cli/docker/login/#credential-stores */
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

static char *config_file(void)
{
    const char *folder = getenv("DOCKER_CONFIG"), *home = getenv("HOME");

    if (folder && *folder)
        return path_join(folder, "config.json");
    return home && *home ? path_join(home, ".docker/config.json") : NULL;
}

/* The keys under which a host may be. */
static size_t keys_of(const char *host, char *keys[6])
{
    size_t count = 0;

    if (strcmp(host, DOCKER_HUB) == 0) {
        keys[count++] = mem_strdup("https://index.docker.io/v1/");
        keys[count++] = mem_strdup("index.docker.io");
    }
    keys[count++] = mem_strdup(host);
    keys[count++] = mem_printf("https://%s", host);
    keys[count++] = mem_printf("https://%s/v1/", host);
    keys[count++] = mem_printf("https://%s/v2/", host);
    return count;
}

static int decode_pair(const char *encoded, char **user, char **password, struct error *err)
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
    *user = mem_strndup(plain, (size_t)(colon - plain));
    *password = mem_strdup(colon + 1);
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

static int from_helper(const char *helper, const char *key, int64_t deadline, char **user,
                       char **password, char **identity, struct error *err)
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
        *identity = mem_strdup(secret);
    } else {
        *user = mem_strdup(name);
        *password = mem_strdup(secret);
    }
    return 1;
}

static int from_entry(const struct value *entry, char **user, char **password, char **identity,
                      struct error *err)
{
    const char *token = value_get_string(entry, "identitytoken", ""),
               *encoded = value_get_string(entry, "auth", "");
    const char *name = value_get_string(entry, "username", ""),
               *secret = value_get_string(entry, "password", "");

    if (*token) {
        *identity = mem_strdup(token);
        return 1;
    }
    if (*encoded)
        return decode_pair(encoded, user, password, err) == 0 ? 1 : -1;
    if (!*name || !*secret)
        return 0;
    *user = mem_strdup(name);
    *password = mem_strdup(secret);
    return 1;
}

int docker_credentials(const char *host, int64_t deadline, char **user, char **password,
                       char **identity, struct error *err)
{
    cleanup_free char *path = config_file();
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value config = {0};
    struct error problem = {0};
    char *keys[6];

    if (!path || access(path, F_OK) < 0)
        return 0;
    if (file_read(AT_FDCWD, path, CONFIG_LIMIT, &text, err) != 0 ||
        value_from_json(text.data ? text.data : "", text.len, path, NULL, &config, err) != 0)
        return -1;
    size_t count = keys_of(host, keys);
    int found = 0;
    for (size_t i = 0; i < count && found == 0; i++) {
        const char *helper = value_get_string(value_get(&config, "credHelpers"), keys[i], NULL);
        if (helper)
            found = from_helper(helper, keys[i], deadline, user, password, identity, &problem);
    }
    const char *store = value_get_string(&config, "credsStore", "");
    if (found == 0 && *store)
        found = from_helper(store, keys[0], deadline, user, password, identity, &problem);
    for (size_t i = 0; i < count && found == 0; i++)
        found = from_entry(value_get(value_get(&config, "auths"), keys[i]), user, password,
                           identity, &problem);
    for (size_t i = 0; i < count; i++)
        free(keys[i]);
    if (found < 0) {
        if (err)
            *err = problem;
        return error_wrap(err, "%s: %s", path, host);
    }
    return found;
}
