#include "broker/pattern.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const permission_names[PERM_COUNT] = {"read", "write", "net", "exec", "env", "ci"};

/* ---- paths ---- */

static bool below(const char *folder, const char *path)
{
    size_t len = strlen(folder);

    if (strcmp(folder, "/") == 0)
        return true;
    return strncmp(folder, path, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

/* ---- addresses ---- */

/* Every address as 16 bytes; IPv4 as ::ffff:a.b.c.d. */
static bool parse_address(const char *text, size_t len, uint8_t out[16])
{
    char copy[INET6_ADDRSTRLEN];
    struct in_addr four;

    if (len >= sizeof copy)
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (inet_pton(AF_INET, copy, &four) == 1) {
        memset(out, 0, 10);
        memset(out + 10, 0xff, 2);
        memcpy(out + 12, &four, 4);
        return true;
    }
    return inet_pton(AF_INET6, copy, out) == 1;
}

struct network {
    uint8_t address[16];
    int bits; /* of 128 */
};

static bool parse_network(const char *text, size_t len, struct network *out)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const char *slash = memchr(text, '/', len);
    size_t host_len = slash ? (size_t)(slash - text) : len;
    char *end = NULL;

    if (!parse_address(text, host_len, out->address))
        return false;
    bool four = memchr(text, ':', host_len) == NULL && memcmp(out->address, mapped, 12) == 0;
    out->bits = 128;
    if (!slash)
        return true;
    long bits = strtol(slash + 1, &end, 10);
    if (end == slash + 1 || end != text + len || slash[1] < '0' || slash[1] > '9' || bits < 0 ||
        bits > (four ? 32 : 128))
        return false;
    out->bits = (int)bits + (four ? 96 : 0);
    return true;
}

static bool network_holds(const struct network *network, const uint8_t address[16])
{
    int whole = network->bits / 8, rest = network->bits % 8;

    if (memcmp(network->address, address, (size_t)whole) != 0)
        return false;
    return rest == 0 || (network->address[whole] ^ address[whole]) >> (8 - rest) == 0;
}

enum address_kind address_kind(const char *address)
{
    static const struct {
        const char *network;
        enum address_kind kind;
    } kinds[] = {
        {"127.0.0.0/8", ADDRESS_OWN},
        {"0.0.0.0/8", ADDRESS_OWN},
        {"::1", ADDRESS_OWN},
        {"::", ADDRESS_OWN},
        {"169.254.0.0/16", ADDRESS_LINK},
        {"fe80::/10", ADDRESS_LINK},
        {"100.100.100.200", ADDRESS_LINK}, /* the metadata service of Alibaba Cloud */
        {"fd00:ec2::254", ADDRESS_LINK},   /* and of AWS, by IPv6 */
        {"224.0.0.0/4", ADDRESS_LINK},
        {"240.0.0.0/4", ADDRESS_LINK},
        {"ff00::/8", ADDRESS_LINK},
    };
    uint8_t bytes[16];

    if (!parse_address(address, strlen(address), bytes))
        return ADDRESS_NONE;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct network network;
        if (parse_network(kinds[i].network, strlen(kinds[i].network), &network) &&
            network_holds(&network, bytes))
            return kinds[i].kind;
    }
    return ADDRESS_PLAIN;
}

/* ---- hosts and ports ---- */

struct endpoint {
    const char *host;
    size_t len;
    const char *port; /* NULL: every one */
};

/* "host", "host:port", "[v6]:port", "v6", and networks of these. */
static struct endpoint split(const char *text)
{
    struct endpoint out = {.host = text, .len = strlen(text)};
    const char *colon = strrchr(text, ':');

    if (text[0] == '[') {
        const char *end = strchr(text, ']');
        if (!end)
            return out;
        out.host = text + 1;
        out.len = (size_t)(end - text) - 1;
        if (end[1] == ':')
            out.port = end + 2;
    } else if (colon && strchr(text, ':') == colon) {
        out.len = (size_t)(colon - text);
        out.port = colon + 1;
    }
    if (out.port && strcmp(out.port, "*") == 0)
        out.port = NULL;
    while (out.len > 1 && out.host[out.len - 1] == '.')
        out.len--; /* "example.com." is example.com */
    return out;
}

static bool ports_fit(const char *pattern, const char *what)
{
    return !pattern || (what && strcmp(pattern, what) == 0);
}

static bool hosts_fit(const struct endpoint *pattern, const struct endpoint *what)
{
    uint8_t address[16];
    struct network network;

    if (pattern->len == 1 && pattern->host[0] == '*')
        return true;
    if (parse_network(pattern->host, pattern->len, &network)) {
        struct network narrow;
        if (parse_address(what->host, what->len, address))
            return network_holds(&network, address);
        return parse_network(what->host, what->len, &narrow) && narrow.bits >= network.bits &&
               network_holds(&network, narrow.address);
    }
    if (pattern->len > 2 && pattern->host[0] == '*' && pattern->host[1] == '.') {
        size_t tail = pattern->len - 1; /* with its dot */
        return what->len > tail &&
               strncasecmp(what->host + what->len - tail, pattern->host + 1, tail) == 0;
    }
    return pattern->len == what->len && strncasecmp(pattern->host, what->host, what->len) == 0;
}

static bool net_fits(const char *pattern, const char *what)
{
    struct endpoint a = split(pattern), b = split(what);

    return ports_fit(a.port, b.port) && hosts_fit(&a, &b);
}

bool pattern_holds_address(const char *pattern, const char *address, int port)
{
    struct endpoint a = split(pattern);
    struct network network;
    uint8_t bytes[16];
    char text[12];

    snprintf(text, sizeof text, "%d", port);
    return parse_address(address, strlen(address), bytes) && ports_fit(a.port, text) &&
           parse_network(a.host, a.len, &network) && network_holds(&network, bytes);
}

/* ---- commands ---- */

/* One word against a glob with "*" only. */
static bool glob(const char *pattern, size_t pattern_len, const char *text, size_t len)
{
    size_t p = 0, t = 0, star = SIZE_MAX, mark = 0;

    while (t < len) {
        if (p < pattern_len && pattern[p] == '*') {
            star = p++;
            mark = t;
        } else if (p < pattern_len && pattern[p] == text[t]) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern_len && pattern[p] == '*')
        p++;
    return p == pattern_len;
}

/* The words of a pattern stand between spaces, those of a command between PATTERN_WORD, since they
 * may hold spaces. `narrow`: what is itself a pattern. */
static bool exec_fits(const char *pattern, const char *what, bool narrow)
{
    const char gap[2] = {narrow ? ' ' : PATTERN_WORD, '\0'};
    bool first = true, one_word = strchr(pattern, ' ') == NULL;

    if (strcmp(pattern, "*") == 0)
        return true;
    for (;;) {
        size_t len = strcspn(pattern, " "), what_len = strcspn(what, gap);
        bool last = pattern[len] == '\0', what_last = what[what_len] == '\0';
        if (last && !first && len == 1 && pattern[0] == '*')
            return true;
        if (first ? len != what_len || memcmp(pattern, what, len) != 0
                  : !glob(pattern, len, what, what_len))
            return false;
        if (first && one_word)
            return true;
        if (last && what_last) /* without words of its own, what is narrow has any arguments */
            return !(narrow && first);
        if (what_last) /* only a last "*" may stand for nothing */
            return strcmp(pattern + len, " *") == 0;
        if (last)
            return false;
        pattern += len + 1;
        what += what_len + 1;
        first = false;
    }
}

/* ---- names ---- */

static bool name_fits(const char *pattern, const char *name)
{
    size_t len = strlen(pattern);

    if (len && pattern[len - 1] == '*')
        return strncmp(pattern, name, len - 1) == 0;
    return strcmp(pattern, name) == 0;
}

bool pattern_matches(enum permission kind, const char *pattern, const char *what)
{
    switch (kind) {
    case PERM_READ:
    case PERM_WRITE:
        return below(pattern, what);
    case PERM_NET:
        return net_fits(pattern, what);
    case PERM_EXEC:
        return exec_fits(pattern, what, false);
    default:
        return name_fits(pattern, what);
    }
}

bool pattern_covers(enum permission kind, const char *wide, const char *narrow)
{
    return strcmp(wide, narrow) == 0 || (kind == PERM_EXEC ? exec_fits(wide, narrow, true)
                                                           : pattern_matches(kind, wide, narrow));
}

/* ---- mistakes ---- */

static int check_net(const char *pattern, struct error *err)
{
    struct endpoint at = split(pattern);
    struct network network;
    const char *scheme = strstr(pattern, "://");

    if (scheme) {
        error_set(err, ERR_INVALID, "'%s' is an address of a page, not a host", pattern);
        return error_hint(err, "write \"%.*s\"", (int)strcspn(scheme + 3, "/?#"), scheme + 3);
    }
    if (strchr(pattern, '@'))
        return error_set(err, ERR_INVALID, "'%s': a host has no user in it", pattern);
    if (parse_network(at.host, at.len, &network) || (at.len == 1 && at.host[0] == '*')) {
        /* fine */
    } else if (memchr(at.host, '/', at.len)) {
        error_set(err, ERR_INVALID, "'%s' is no network", pattern);
        return error_hint(err, "write 10.0.0.0/8 or fd00::/8; a path cannot be granted");
    } else if (memchr(at.host, '*', at.len) &&
               !(at.len > 2 && at.host[0] == '*' && at.host[1] == '.' &&
                 !memchr(at.host + 1, '*', at.len - 1))) {
        error_set(err, ERR_INVALID, "'%s': '*' may stand only for the first part", pattern);
        return error_hint(err, "write *.example.com, or * for every host");
    } else if (at.len == 0 || memchr(at.host, ' ', at.len) || memchr(at.host, ':', at.len)) {
        error_set(err, ERR_INVALID, "'%s' is no host", pattern);
        return error_hint(err,
                          "write host, host:port, *.domain, an address or a network; IPv6 with "
                          "a port as [::1]:80");
    }
    if (at.port) {
        char *end = NULL;
        long port = strtol(at.port, &end, 10);
        if (end == at.port || *end || at.port[0] < '0' || at.port[0] > '9' || port < 1 ||
            port > 65535) {
            error_set(err, ERR_INVALID, "'%s': '%s' is no port", pattern, at.port);
            return error_hint(err, "ports are 1 to 65535, or * for all");
        }
    }
    return 0;
}

static int check_exec(const char *pattern, struct error *err)
{
    size_t len = strcspn(pattern, " ");

    if (strcmp(pattern, "*") == 0)
        return 0;
    if (memchr(pattern, '*', len)) {
        error_set(err, ERR_INVALID, "'%s': '*' in a command's name", pattern);
        return error_hint(err, "name the command; * alone is every command");
    }
    if (pattern[0] == ' ' || strstr(pattern, "  ") || pattern[strlen(pattern) - 1] == ' ')
        return error_set(err, ERR_INVALID, "'%s': words stand between single spaces", pattern);
    if (pattern[0] != '/' && memchr(pattern, '/', len) && strncmp(pattern, "./", 2) != 0) {
        error_set(err, ERR_INVALID, "'%s': a command is a name or a path", pattern);
        return error_hint(err, "write ./%s, or an absolute path", pattern);
    }
    return 0;
}

static int check_env(const char *pattern, struct error *err)
{
    const char *star = strchr(pattern, '*');

    if (strpbrk(pattern, "= "))
        return error_set(err, ERR_INVALID, "'%s' is no variable's name", pattern);
    if (star && star[1]) {
        error_set(err, ERR_INVALID, "'%s': '*' may stand only at the end", pattern);
        return error_hint(err, "write %.*s*", (int)(star - pattern), pattern);
    }
    return 0;
}

int pattern_check(enum permission kind, const char *pattern, struct error *err)
{
    if (!pattern[0])
        return error_set(err, ERR_INVALID, "an empty pattern");
    if (strchr(pattern, PATTERN_WORD) || strchr(pattern, '\n'))
        return error_set(err, ERR_INVALID, "a control character in a pattern");
    switch (kind) {
    case PERM_NET:
        return check_net(pattern, err);
    case PERM_EXEC:
        return check_exec(pattern, err);
    case PERM_ENV:
        return check_env(pattern, err);
    case PERM_CI:
        return strcmp(pattern, "commands") == 0
                   ? 0
                   : error_set(err, ERR_INVALID, "ci can be \"commands\", not '%s'", pattern);
    default:
        if (strchr(pattern, '*') && strcmp(pattern, "*") != 0) {
            error_set(err, ERR_INVALID, "'%s': a path covers all that is below it", pattern);
            return error_hint(err, "write the folder; * alone is every path");
        }
        return 0;
    }
}
