#include "base/environment.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *environment_get(const char *name, bool *unmapped)
{
    const char *text = getenv(name);
    size_t len = text ? strlen(text) : 0;
    bool left = len > 3 && text[0] == '$' && text[1] == '(' && strcspn(text, ")") == len - 1;

    if (unmapped)
        *unmapped = left;
    return left ? NULL : text;
}

/* What programs and libraries need to know of where they are. */
static bool of_the_machine(const char *entry)
{
    static const char *const names[] = {"PATH",
                                        "HOME",
                                        "USER",
                                        "LOGNAME",
                                        "SHELL",
                                        "LANG",
                                        "LANGUAGE",
                                        "TZ",
                                        "TERM",
                                        "TMPDIR",
                                        "LD_LIBRARY_PATH",
                                        "SSL_CERT_FILE",
                                        "SSL_CERT_DIR",
                                        "DOCKER_CONFIG",
                                        "http_proxy",
                                        "https_proxy",
                                        "all_proxy",
                                        "no_proxy",
                                        "HTTP_PROXY",
                                        "HTTPS_PROXY",
                                        "ALL_PROXY",
                                        "NO_PROXY",
                                        "SOURCE_DATE_EPOCH"};
    static const char *const families[] = {"MLHOST_", "LC_", "XDG_", "ASAN_", "UBSAN_", "LSAN_"};
    size_t len = strcspn(entry, "=");

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strlen(names[i]) == len && memcmp(names[i], entry, len) == 0)
            return true;
    }
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (strncmp(entry, families[i], strlen(families[i])) == 0)
            return true;
    }
    return false;
}

void environment_forget(void)
{
    char **keep = environ;

    for (char **entry = environ; entry && *entry; entry++) {
        if (of_the_machine(*entry))
            *keep++ = *entry;
        else
            explicit_bzero(*entry, strlen(*entry));
    }
    if (keep)
        *keep = NULL;
}
