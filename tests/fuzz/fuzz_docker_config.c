/*
 * Docker's config.json: credentials of a host. What is found is whole, an entry of another host is
 * never given, and no helper runs from elsewhere than PATH (which is empty here).
 */
#include "fuzz.h"

#include "base/clock.h"
#include "folder.h"
#include "oci/remote.h"

static void ask(const char *host)
{
    struct error err = {0};
    cleanup_free char *user = NULL, *password = NULL, *identity = NULL;

    int found = docker_credentials(host, deadline_in(NS_PER_S), &user, &password, &identity, &err);
    check_result(found, &err);
    if (found > 0)
        check(identity ? *identity != '\0' : user && password);
    else
        check(!user && !password && !identity);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;

    if (!ready) {
        setenv("PATH", "/nonexistent", 1);
        setenv("DOCKER_CONFIG", fuzz_folder(), 1);
        ready = true;
    }
    fuzz_file("config.json", data, size);
    ask(DOCKER_HUB);
    ask("ghcr.io");
    ask("registry.example:5000");
    return 0;
}
