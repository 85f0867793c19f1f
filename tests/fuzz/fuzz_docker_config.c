/*
 * Docker's config.json: credentials of a host. What is found is whole, an entry of another host is
 * never given, and no helper runs from elsewhere than PATH (which is empty here).
 */
#include "fuzz.h"

#include "base/clock.h"
#include "folder.h"
#include "oci/remote.h"

static void ask(const char *host, const char *name)
{
    struct error err = {0};
    struct docker_login login = {0};

    int found = docker_credentials(host, name, deadline_in(NS_PER_S), &login, &err);
    check_result(found, &err);
    if (found > 0)
        check(login.bearer     ? *login.bearer != '\0'
              : login.identity ? *login.identity != '\0'
                               : login.user && login.password);
    else
        check(!login.user && !login.password && !login.identity && !login.bearer);
    docker_login_free(&login);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;

    if (!ready) {
        setenv("PATH", "/nonexistent", 1);
        setenv("DOCKER_CONFIG", fuzz_folder(), 1);
        setenv("HOME", "/nonexistent", 1);
        ready = true;
    }
    fuzz_file("config.json", data, size);
    ask(DOCKER_HUB, "library/debian");
    ask("ghcr.io", "team/a/b");
    ask("registry.example:5000", NULL);
    return 0;
}
