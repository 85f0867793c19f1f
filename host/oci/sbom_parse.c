/* What package managers write about what they installed. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "oci/sbom.h"

#define TEXT_MAX 512u

/* ---- texts ---- */

/* Valid UTF-8 without control characters, without spaces around it; cut where it is too long.
 * Allocated; NULL for nothing. */
static char *clean(const char *text, size_t len)
{
    struct buf out = BUF_INIT;

    while (len && isspace((unsigned char)*text)) {
        text++;
        len--;
    }
    while (len && isspace((unsigned char)text[len - 1]))
        len--;
    for (size_t i = 0; i < len && out.len < TEXT_MAX;) {
        size_t n = utf8_length(text + i, len - i);
        if (n == 0 || iscntrl((unsigned char)text[i]))
            buf_puts(&out, n == 0 ? "?" : " ");
        else
            buf_append(&out, text + i, n);
        i += n ? n : 1;
    }
    if (!out.len) {
        buf_free(&out);
        return NULL;
    }
    return buf_steal(&out);
}

static void put(struct value *package, const char *key, const char *text, size_t len)
{
    char *kept = clean(text, len);

    if (kept)
        value_take_string(value_put(package, key), kept);
}

struct field {
    const char *key, *text;
    size_t key_len, len;
};

/* The next "Key: text" line; lines that continue it are skipped. 1 a field, 0 the end of the
 * stanza (an empty line), -1 the end of all. */
static int next_field(const char **at, const char *end, struct field *out)
{
    while (*at < end) {
        const char *line = *at, *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop)
            stop = end;
        *at = stop < end ? stop + 1 : end;
        if (stop == line || (stop == line + 1 && *line == '\r'))
            return 0;
        const char *colon = memchr(line, ':', (size_t)(stop - line));
        if (!colon || *line == ' ' || *line == '\t')
            continue;
        *out = (struct field){line, colon + 1, (size_t)(colon - line), (size_t)(stop - colon - 1)};
        return 1;
    }
    return -1;
}

static bool is_key(const struct field *field, const char *key)
{
    return strlen(key) == field->key_len && strncasecmp(field->key, key, field->key_len) == 0;
}

struct rule {
    const char *from, *to;
};

static void take(const struct field *field, const struct rule *rules, struct value *package)
{
    for (; rules->from; rules++)
        if (is_key(field, rules->from) && !value_get(package, rules->to))
            put(package, rules->to, field->text, field->len);
}

static bool named(const struct value *package)
{
    return value_get(package, "name") && value_get(package, "version");
}

static void begin(struct value *package, const char *type, const char *path)
{
    value_free(package);
    value_set_map(package);
    value_put_string(package, "type", type);
    put(package, "path", path, strlen(path));
}

static void keep(struct value *package, struct value *out)
{
    value_remove(package, "status");
    value_move(value_push(out), package);
}

/* ---- dpkg, apk ---- */

/* status.d of images without a package manager has no Status: what is there is installed. */
static bool is_installed(const struct value *package)
{
    const char *status = value_get_string(package, "status", "install ok installed");
    const char *last = strrchr(status, ' ');

    return strcmp(last ? last + 1 : status, "installed") == 0;
}

static void stanzas(const char *text, size_t len, const char *type, const char *path,
                    const struct rule *rules, struct value *out)
{
    const char *at = text, *end = text + len;
    cleanup_value struct value package = {0};
    int status = 0;

    begin(&package, type, path);
    while (status >= 0) {
        struct field field;
        status = next_field(&at, end, &field);
        if (status > 0) {
            take(&field, rules, &package);
            continue;
        }
        if (named(&package) && is_installed(&package))
            keep(&package, out);
        begin(&package, type, path);
    }
}

void sbom_dpkg(const char *text, size_t len, const char *path, struct value *out)
{
    static const struct rule rules[] = {
        {"Package", "name"},          {"Version", "version"}, {"Architecture", "arch"},
        {"Maintainer", "maintainer"}, {"Source", "source"},   {"Homepage", "homepage"},
        {"Status", "status"},         {NULL, NULL},
    };

    stanzas(text, len, "deb", path, rules, out);
}

void sbom_apk(const char *text, size_t len, const char *path, struct value *out)
{
    /* One letter each, and case counts: "p" is what it provides. */
    static const struct rule rules[] = {
        {"P", "name"},     {"V", "version"},    {"A", "arch"},   {"L", "license"},
        {"U", "homepage"}, {"m", "maintainer"}, {"o", "source"}, {NULL, NULL},
    };
    const char *at = text, *end = text + len;
    cleanup_value struct value package = {0};
    int status = 0;

    begin(&package, "apk", path);
    while (status >= 0) {
        struct field field;
        status = next_field(&at, end, &field);
        for (const struct rule *rule = rules; status > 0 && rule->from; rule++)
            if (field.key_len == 1 && *field.key == *rule->from && !value_get(&package, rule->to))
                put(&package, rule->to, field.text, field.len);
        if (status > 0)
            continue;
        if (named(&package))
            keep(&package, out);
        begin(&package, "apk", path);
    }
}

/* ---- Python, npm ---- */

/* The header of an RFC 822 message: what follows is the description. */
void sbom_python(const char *text, size_t len, const char *path, struct value *out)
{
    static const struct rule rules[] = {
        {"Name", "name"},
        {"Version", "version"},
        {"License-Expression", "license"},
        {"Home-page", "homepage"},
        {"Author-email", "maintainer"},
        {"Author", "maintainer"},
        {"License", "license_text"},
        {NULL, NULL},
    };
    const char *at = text, *end = text + len;
    cleanup_value struct value package = {0};
    struct field field;

    begin(&package, "pypi", path);
    while (next_field(&at, end, &field) > 0)
        take(&field, rules, &package);
    if (!named(&package))
        return;
    if (!value_get(&package, "license") && value_get(&package, "license_text"))
        value_copy(value_put(&package, "license"), value_get(&package, "license_text"));
    value_remove(&package, "license_text");
    keep(&package, out);
}

static void put_json(struct value *package, const char *key, const struct value *document,
                     const char *dotted)
{
    const char *text = value_text(value_path(document, dotted), NULL);

    if (text && !value_get(package, key))
        put(package, key, text, strlen(text));
}

void sbom_npm(const char *text, size_t len, const char *path, struct value *out)
{
    static const struct text_limits limits = {.bytes = 4u << 20, .depth = 32, .nodes = 100000};
    cleanup_value struct value document = {0};
    cleanup_value struct value package = {0};

    if (value_from_json(text, len, "package.json", &limits, &document, NULL) != 0 ||
        document.kind != VALUE_MAP)
        return;
    begin(&package, "npm", path);
    put_json(&package, "name", &document, "name");
    put_json(&package, "version", &document, "version");
    put_json(&package, "license", &document, "license");
    put_json(&package, "license", &document, "license.type");
    put_json(&package, "homepage", &document, "homepage");
    put_json(&package, "maintainer", &document, "author");
    put_json(&package, "maintainer", &document, "author.name");
    if (named(&package))
        keep(&package, out);
}

/* NAME="text" lines of a shell; escapes are left as they are. */
void sbom_os_release(const char *text, size_t len, struct value *out)
{
    const char *at = text, *end = text + len;

    value_set_map(out);
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop)
            stop = end;
        const char *equals = memchr(at, '=', (size_t)(stop - at));
        if (equals && equals > at && isupper((unsigned char)*at)) {
            cleanup_free char *key = clean(at, (size_t)(equals - at));
            const char *from = equals + 1;
            size_t size = (size_t)(stop - from);
            if (size >= 2 && (*from == '"' || *from == '\'') && from[size - 1] == *from) {
                from++;
                size -= 2;
            }
            if (key)
                put(out, key, from, size);
        }
        at = stop < end ? stop + 1 : end;
    }
}

/* ---- licenses ---- */

static bool is_license(const char *word, size_t len)
{
    /* The ones that packages name; a text that has others is quoted instead (licenseComments). */
    static const char *const known[] = {
        "0BSD",
        "AFL-2.1",
        "AGPL-3.0-only",
        "AGPL-3.0-or-later",
        "Apache-1.1",
        "Apache-2.0",
        "Artistic-1.0-Perl",
        "Artistic-2.0",
        "BlueOak-1.0.0",
        "BSD-1-Clause",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSD-4-Clause",
        "BSL-1.0",
        "bzip2-1.0.6",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-SA-4.0",
        "CC0-1.0",
        "curl",
        "EPL-1.0",
        "EPL-2.0",
        "GPL-1.0-or-later",
        "GPL-2.0-only",
        "GPL-2.0-or-later",
        "GPL-3.0-only",
        "GPL-3.0-or-later",
        "HPND",
        "ICU",
        "IJG",
        "ISC",
        "LGPL-2.0-only",
        "LGPL-2.0-or-later",
        "LGPL-2.1-only",
        "LGPL-2.1-or-later",
        "LGPL-3.0-only",
        "LGPL-3.0-or-later",
        "Libpng",
        "MIT",
        "MIT-0",
        "MPL-1.1",
        "MPL-2.0",
        "NCSA",
        "OFL-1.1",
        "OLDAP-2.8",
        "OpenSSL",
        "PHP-3.01",
        "PostgreSQL",
        "PSF-2.0",
        "Python-2.0",
        "Ruby",
        "TCL",
        "Unicode-3.0",
        "Unicode-DFS-2016",
        "Unlicense",
        "UPL-1.0",
        "Vim",
        "W3C",
        "WTFPL",
        "X11",
        "Zlib",
        "ZPL-2.1",
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == len && strncmp(known[i], word, len) == 0)
            return true;
    return false;
}

static bool word_is(const char *word, size_t len, const char *text)
{
    return strlen(text) == len && strncmp(word, text, len) == 0;
}

/* license := "(" expression ")" | ID [ "WITH" EXCEPTION ]; expression := license { AND|OR license
 * }.
 */
bool sbom_license_known(const char *text)
{
    int depth = 0;
    bool want = true, plain = false; /* an identifier may come; one has just been */

    for (const char *at = text; *at;) {
        size_t len = strcspn(at, " ()");
        if (*at == ' ') {
            at++;
        } else if (*at == '(') {
            if (!want)
                return false;
            depth++;
            at++;
        } else if (*at == ')') {
            if (want || depth-- == 0)
                return false;
            plain = false;
            at++;
        } else if (want) {
            if (!is_license(at, len))
                return false;
            want = false;
            plain = true;
            at += len;
        } else if (word_is(at, len, "AND") || word_is(at, len, "OR")) {
            want = true;
            at += len;
        } else if (word_is(at, len, "WITH") && plain) {
            at += len;
            at += strspn(at, " ");
            len = strcspn(at, " ()");
            if (!word_is(at, len, "Classpath-exception-2.0") &&
                !word_is(at, len, "GCC-exception-3.1") && !word_is(at, len, "LLVM-exception") &&
                !word_is(at, len, "OpenSSL-exception"))
                return false;
            plain = false;
            at += len;
        } else {
            return false;
        }
    }
    return !want && depth == 0;
}

/* ---- package URLs (github.com/package-url/purl-spec) ---- */

static void escape(struct buf *out, const char *text)
{
    for (; *text; text++)
        if (isalnum((unsigned char)*text) || strchr("-._~:", *text))
            buf_append(out, text, 1);
        else
            buf_printf(out, "%%%02X", (unsigned char)*text);
}

/* PEP 503: lower case, runs of - _ . are one -. npm and the others: as they are. */
static char *normal_name(const char *type, const char *name)
{
    struct buf out = BUF_INIT;

    buf_puts(&out, "");
    for (const char *at = name; *at; at++) {
        char c = *at;
        if (strcmp(type, "pypi") == 0) {
            c = (char)tolower((unsigned char)c);
            if (strchr("-_.", c)) {
                if (at > name && strchr("-_.", at[-1]))
                    continue;
                c = '-';
            }
        } else if (strcmp(type, "deb") == 0 || strcmp(type, "apk") == 0) {
            c = (char)tolower((unsigned char)c);
        }
        buf_append(&out, &c, 1);
    }
    return buf_steal(&out);
}

char *sbom_purl(const struct value *package, const struct value *os_release)
{
    const char *type = value_get_string(package, "type", "generic"),
               *version = value_get_string(package, "version", NULL),
               *arch = value_get_string(package, "arch", NULL);
    bool system = strcmp(type, "deb") == 0 || strcmp(type, "apk") == 0;
    const char *id = value_get_string(os_release, "ID",
                                      strcmp(type, "apk") == 0 ? "alpine" : "debian"),
               *release = value_get_string(os_release, "VERSION_ID", NULL);
    cleanup_free char *name = normal_name(type, value_get_string(package, "name", ""));
    struct buf out = BUF_INIT;

    buf_printf(&out, "pkg:%s/", type);
    if (system) {
        escape(&out, id);
        buf_puts(&out, "/");
    }
    const char *slash = strcmp(type, "npm") == 0 && *name == '@' ? strchr(name, '/') : NULL;
    if (slash) {
        cleanup_free char *scope = mem_strndup(name, (size_t)(slash - name));
        escape(&out, scope);
        buf_puts(&out, "/");
    }
    escape(&out, slash ? slash + 1 : name);
    if (version) {
        buf_puts(&out, "@");
        escape(&out, version);
    }
    if (system && arch) {
        buf_puts(&out, "?arch=");
        escape(&out, arch);
    }
    if (system && release) {
        buf_printf(&out, "%cdistro=", arch ? '&' : '?');
        escape(&out, id);
        buf_puts(&out, "-");
        escape(&out, release);
    }
    return buf_steal(&out);
}
