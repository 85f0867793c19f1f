/* SPDX 2.3 (spdx.github.io/spdx-spec/v2.3), as JSON. */
#include "oci/sbom.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/module.h"
#include "oci/manifest.h"

#define IMAGE_ID    "SPDXRef-Image"
#define DOCUMENT_ID "SPDXRef-DOCUMENT"
#define NONE        "NOASSERTION"

static struct value *push_map(struct value *array)
{
    struct value *map = value_push(array);

    value_set_map(map);
    return map;
}

static struct value *put_array(struct value *map, const char *key)
{
    struct value *array = value_put(map, key);

    value_set_array(array);
    return array;
}

static void relate(struct value *relations, const char *from, const char *how, const char *to)
{
    struct value *relation = push_map(relations);

    value_put_string(relation, "spdxElementId", from);
    value_put_string(relation, "relationshipType", how);
    value_put_string(relation, "relatedSpdxElement", to);
}

static void add_purl(struct value *package, const char *purl)
{
    struct value *reference = push_map(put_array(package, "externalRefs"));

    value_put_string(reference, "referenceCategory", "PACKAGE-MANAGER");
    value_put_string(reference, "referenceType", "purl");
    value_put_string(reference, "referenceLocator", purl);
}

static void add_checksum(struct value *package, const char *digest)
{
    struct value *checksum = push_map(put_array(package, "checksums"));

    value_put_string(checksum, "algorithm", "SHA256");
    value_put_string(checksum, "checksumValue", digest + 7);
}

static void unknowns(struct value *package)
{
    value_put_string(package, "licenseConcluded", NONE);
    value_put_string(package, "copyrightText", NONE);
}

/* The image's time, to the second, as SPDX wants it. 1970 when it says none. */
static void put_time(struct value *info, const struct value *config)
{
    const char *created = value_get_string(config, "created", "");
    struct tm parts = {.tm_year = 70, .tm_mday = 1};
    char text[32];

    if (!strptime(created, "%Y-%m-%dT%H:%M:%S", &parts) || parts.tm_year < 0 ||
        parts.tm_year > 8099)
        parts = (struct tm){.tm_year = 70, .tm_mday = 1};
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    value_put_string(info, "created", text);
}

/* "Ada <ada@example.org>" -> "Person: Ada (ada@example.org)". NULL: it does not say. Allocated. */
static char *originator(const char *text)
{
    static const char *const groups[] = {"Team",    "Maintainers", "Developers", "Group",
                                         "Debian ", "Project",     "Packagers",  "Foundation",
                                         "Inc",     "Authors"};
    const char *mail = strchr(text, '<'), *kind = "Person";
    size_t len = mail ? (size_t)(mail - text) : strlen(text),
           mail_len = mail ? strcspn(mail, ">") : 0;

    while (len && text[len - 1] == ' ')
        len--;
    cleanup_free char *name = mem_strndup(text, len);
    for (char *at = name; *at; at++)
        if (strchr("()<>", *at))
            *at = ' ';
    if (!len || strspn(name, " ") == len || strchr(name, '@'))
        return NULL;
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        if (strstr(name, groups[i]))
            kind = "Organization";
    if (mail_len < 2)
        return mem_printf("%s: %s", kind, name);
    cleanup_free char *address = mem_strndup(mail + 1, mail_len - 1);
    if (!strchr(address, '@') || strpbrk(address, " ()<>,"))
        return mem_printf("%s: %s", kind, name);
    return mem_printf("%s: %s (%s)", kind, name, address);
}

/* Letters, digits, "." and "-", and unique: what made it so is a digest of all that it stands for.
 */
static char *spdx_id(const struct value *package)
{
    cleanup_buf struct buf all = BUF_INIT;
    cleanup_free char *name = mem_strdup(value_get_string(package, "name", ""));
    struct digest digest;

    value_to_json(package, TEXT_SORTED, &all);
    digest_bytes(all.data, all.len, &digest);
    for (char *at = name; *at; at++)
        if (!isalnum((unsigned char)*at) && *at != '.')
            *at = '-';
    return mem_printf("SPDXRef-Package-%s-%.64s-%.12s", value_get_string(package, "type", ""), name,
                      digest.text + 7);
}

static bool is_web(const char *text)
{
    const char *host = strncmp(text, "https://", 8) == 0  ? text + 8
                       : strncmp(text, "http://", 7) == 0 ? text + 7
                                                          : "";

    return isalnum((unsigned char)*host) && !strpbrk(text, " \"<>\\^`{|}");
}

static void add_package(struct value *packages, struct value *relations,
                        const struct value *package, const struct value *os)
{
    cleanup_free char *id = spdx_id(package);
    cleanup_free char *purl = sbom_purl(package, os);
    cleanup_free char *from = originator(value_get_string(package, "maintainer", ""));
    const char *license = value_get_string(package, "license", NULL),
               *homepage = value_get_string(package, "homepage", ""),
               *digest = value_get_string(package, "digest", NULL);
    struct value *out = push_map(packages);

    value_put_string(out, "name", value_get_string(package, "name", ""));
    value_put_string(out, "SPDXID", id);
    value_put_string(out, "versionInfo", value_get_string(package, "version", NULL));
    value_put_string(out, "supplier", NONE);
    value_put_string(out, "originator", from);
    value_put_string(out, "downloadLocation", NONE);
    value_put_bool(out, "filesAnalyzed", false);
    value_put_string(out, "homepage", is_web(homepage) ? homepage : NULL);
    value_set_printf(value_put(out, "sourceInfo"), "recorded in /%s",
                     value_get_string(package, "path", ""));
    unknowns(out);
    value_put_string(out, "licenseDeclared",
                     license && sbom_license_known(license) ? license : NONE);
    if (license && !sbom_license_known(license))
        value_set_printf(value_put(out, "licenseComments"), "declared as: %s", license);
    if (digest)
        add_checksum(out, digest);
    add_purl(out, purl);
    relate(relations, IMAGE_ID, "CONTAINS", id);
}

static void add_system(struct value *packages, struct value *relations, const struct value *os)
{
    struct value *out;

    if (!value_get(os, "ID"))
        return;
    out = push_map(packages);
    value_put_string(out, "name", value_get_string(os, "ID", ""));
    value_put_string(out, "SPDXID", "SPDXRef-OperatingSystem");
    value_put_string(out, "versionInfo", value_get_string(os, "VERSION_ID", NULL));
    value_put_string(out, "supplier", NONE);
    value_put_string(out, "downloadLocation", NONE);
    value_put_bool(out, "filesAnalyzed", false);
    value_put_string(out, "primaryPackagePurpose", "OPERATING-SYSTEM");
    value_put_string(out, "description", value_get_string(os, "PRETTY_NAME", NULL));
    unknowns(out);
    value_put_string(out, "licenseDeclared", NONE);
    relate(relations, IMAGE_ID, "CONTAINS", "SPDXRef-OperatingSystem");
}

static void add_image(struct value *packages, const char *name, const char *digest,
                      const struct value *config)
{
    struct value *out = push_map(packages);
    const char *last = strrchr(name, '/');
    cleanup_free char *purl =
        mem_printf("pkg:oci/%s@sha256%%3A%s?arch=%s", last ? last + 1 : name, digest + 7,
                   value_get_string(config, "architecture", oci_architecture()));

    value_put_string(out, "name", name);
    value_put_string(out, "SPDXID", IMAGE_ID);
    value_put_string(out, "versionInfo", digest);
    value_put_string(out, "supplier", NONE);
    value_put_string(out, "downloadLocation", NONE);
    value_put_bool(out, "filesAnalyzed", false);
    value_put_string(out, "primaryPackagePurpose", "CONTAINER");
    unknowns(out);
    value_put_string(out, "licenseDeclared", NONE);
    add_checksum(out, digest);
    add_purl(out, purl);
}

/* Of a reference what a purl's name may have. */
static char *plain_name(const char *name)
{
    cleanup_free char *copy = mem_strdup(name && *name ? name : "image");
    char *slash, *colon, *at = strchr(copy, '@');

    if (at)
        *at = '\0';
    slash = strrchr(copy, '/');
    colon = strrchr(copy, ':');
    if (colon && (!slash || colon > slash))
        *colon = '\0';
    for (char *c = copy; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("._-/:", *c))
            *c = '-';
    return *copy ? steal_ptr(&copy) : mem_strdup("image");
}

void sbom_document(const struct value *found, const struct value *config, const char *name,
                   const char *digest, struct value *out)
{
    cleanup_free char *shown = plain_name(name);
    cleanup_value struct value relations = {0};
    cleanup_buf struct buf comment = BUF_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    struct digest space;
    const struct value *os = value_get(found, "os"), *notes = value_get(found, "notes"),
                       *list = value_get(found, "packages");

    value_set_map(out);
    value_put_string(out, "spdxVersion", "SPDX-2.3");
    value_put_string(out, "dataLicense", "CC0-1.0");
    value_put_string(out, "SPDXID", DOCUMENT_ID);
    value_put_string(out, "name", shown);
    struct value *info = value_put(out, "creationInfo");
    value_set_map(info);
    put_time(info, config);
    value_set_printf(value_push(put_array(info, "creators")), "Tool: mlhost-%s", mlhost_version);
    for (size_t i = 0; i < value_count(notes); i++)
        buf_printf(&comment, "%s%s", i ? "; " : "not listed: ", value_text(value_at(notes, i), ""));
    if (comment.len)
        value_put_string(out, "comment", comment.data);
    struct value *packages = put_array(out, "packages");
    value_set_array(&relations);
    relate(&relations, DOCUMENT_ID, "DESCRIBES", IMAGE_ID);
    add_image(packages, shown, digest, config);
    add_system(packages, &relations, os);
    for (size_t i = 0; i < value_count(list); i++)
        add_package(packages, &relations, value_at(list, i), os);
    value_move(value_put(out, "relationships"), &relations);
    /* One name for one document: what is in it decides. */
    value_to_json(out, TEXT_SORTED, &text);
    digest_bytes(text.data, text.len, &space);
    value_set_printf(value_put(out, "documentNamespace"),
                     "https://spdx.org/spdxdocs/mlhost/%s-%.32s", digest + 7, space.text + 7);
}

int oci_sbom(struct store *store, const char *digest, const char *name, struct value *out,
             struct error *err)
{
    cleanup_value struct value manifest = {0};
    cleanup_value struct value config = {0};
    cleanup_value struct value found = {0};
    struct digest resolved;

    if (oci_manifest_load(store, digest, &manifest, &resolved, err) != 0 ||
        oci_config_load(store, &manifest, &config, err) != 0 ||
        sbom_packages(store, &manifest, &found, err) != 0)
        return error_wrap(err, "SBOM of %s", digest);
    sbom_document(&found, &config, name, resolved.text, out);
    return 0;
}
