#include "oci/reference.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/store.h"

void image_reference_free(struct image_reference *reference)
{
    free(reference->host);
    free(reference->name);
    free(reference->tag);
    free(reference->digest);
    *reference = (struct image_reference){0};
}

static int bad(const char *text, const char *why, struct error *err)
{
    error_set(err, ERR_INVALID, "'%.300s' is no image reference: %s", text, why);
    return error_hint(err, "[host[:port]/]name[:tag][@sha256:...], names in lower case: "
                           "training:v1, acme.azurecr.io/team/x:2");
}

static bool host_valid(const char *host)
{
    size_t len = strlen(host);

    return len > 0 && len < 256 && *host != '-' && *host != '.' &&
           strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]") ==
               len;
}

bool image_reference_has_host(const char *text)
{
    size_t first = strcspn(text, "/");

    return text[first] == '/' && (memchr(text, '.', first) || memchr(text, ':', first) ||
                                  (first == 9 && memcmp(text, "localhost", 9) == 0));
}

int image_reference_parse(const char *text, const char *default_host, struct image_reference *out,
                          struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_free char *rest = mem_strdup(text);

    char *at = strchr(rest, '@');
    if (at) {
        *at = '\0';
        if (!digest_valid(at + 1))
            return bad(text, "what follows @ must be sha256: and 64 hexadecimal digits", err);
        reference.digest = mem_strdup(at + 1);
    }
    char *slash = strchr(rest, '/'), *name = rest;
    size_t first = slash ? (size_t)(slash - rest) : 0;
    if (image_reference_has_host(rest)) {
        reference.host = mem_strndup(rest, first);
        name = slash + 1;
    } else {
        reference.host = mem_strdup(default_host ? default_host : DOCKER_HUB);
    }
    if (strcmp(reference.host, "index.docker.io") == 0 ||
        strcmp(reference.host, "registry-1.docker.io") == 0) {
        free(reference.host);
        reference.host = mem_strdup(DOCKER_HUB);
    }
    if (!host_valid(reference.host))
        return bad(text, "the host is malformed", err);
    char *colon = strrchr(name, ':');
    if (colon && !strchr(colon, '/')) {
        *colon = '\0';
        if (!store_tag_valid(colon + 1))
            return bad(text, "the tag is malformed", err);
        reference.tag = mem_strdup(colon + 1);
    }
    bool library = strcmp(reference.host, DOCKER_HUB) == 0 && !strchr(name, '/');
    reference.name = mem_printf("%s%s", library ? "library/" : "", name);
    if (!store_name_valid(name) || !store_name_valid(reference.name))
        return bad(text, "the name is malformed", err);
    if (!reference.tag && !reference.digest)
        reference.tag = mem_strdup("latest");
    *out = reference;
    reference = (struct image_reference){0};
    return 0;
}

char *image_reference_text(const struct image_reference *reference)
{
    if (reference->tag && !reference->digest)
        return mem_printf("%s/%s:%s", reference->host, reference->name, reference->tag);
    return mem_printf("%s/%s@%s", reference->host, reference->name, reference->digest);
}

char *image_reference_cache_name(const struct image_reference *reference)
{
    if (strcmp(reference->host, LOCAL_REGISTRY) == 0)
        return mem_strdup(reference->name);
    char *name = mem_printf("%s/%s", reference->host, reference->name);
    for (char *at = name; *at && *at != '/'; at++)
        *at = *at == ':' || *at == '[' || *at == ']' ? '-'
              : *at >= 'A' && *at <= 'Z'             ? (char)(*at + 32)
                                                     : *at;
    if (store_name_valid(name))
        return name;
    free(name); /* an IPv6 address */
    return mem_strdup(reference->name);
}

bool host_is_loopback(const char *host)
{
    size_t len = strcspn(host, ":");

    if (strncmp(host, "[::1]", 5) == 0)
        return true;
    return (len == 9 && strncmp(host, "localhost", 9) == 0) || strncmp(host, "127.", 4) == 0 ||
           (len > 10 && strncmp(host + len - 10, ".localhost", 10) == 0);
}
