/* Records of package managers. Whatever an image holds, the document about it is valid: identifiers
 * are unique and of SPDX's letters, texts are UTF-8 and bounded, package URLs need no more
 * escaping. */
#include "fuzz.h"

#include <ctype.h>

#include "base/utf8.h"
#include "oci/sbom.h"

#define LONGEST 4096

static bool only(const char *text, const char *others)
{
    for (; *text; text++)
        if (!isalnum((unsigned char)*text) && !strchr(others, *text))
            return false;
    return true;
}

static void check_texts(const struct value *v)
{
    if (v->kind == VALUE_STRING) {
        check(v->as.string.len == strlen(v->as.string.data));
        for (size_t i = 0; i < v->as.string.len;) {
            size_t n = utf8_length(v->as.string.data + i, v->as.string.len - i);
            check(n > 0 && !iscntrl((unsigned char)v->as.string.data[i]));
            i += n;
        }
        check(v->as.string.len < LONGEST);
    } else if (v->kind == VALUE_ARRAY) {
        for (size_t i = 0; i < value_count(v); i++)
            check_texts(value_at(v, i));
    } else if (v->kind == VALUE_MAP) {
        for (size_t i = 0; i < v->as.map.count; i++)
            check_texts(&v->as.map.pairs[i].value);
    }
}

static void check_document(const struct value *document)
{
    cleanup_value struct value seen = {0};
    const struct value *packages = value_get(document, "packages");

    value_set_map(&seen);
    check_texts(document);
    check(value_count(packages) > 0);
    for (size_t i = 0; i < value_count(packages); i++) {
        const struct value *package = value_at(packages, i);
        const char *id = value_get_string(package, "SPDXID", ""),
                   *license = value_get_string(package, "licenseDeclared", "");
        check(strncmp(id, "SPDXRef-", 8) == 0 && only(id, "-.") && !value_get(&seen, id));
        value_put_bool(&seen, id, true);
        check(*value_get_string(package, "name", ""));
        check(strcmp(license, "NOASSERTION") == 0 || sbom_license_known(license));
        const struct value *refs = value_get(package, "externalRefs");
        for (size_t k = 0; k < value_count(refs); k++) {
            const char *purl = value_get_string(value_at(refs, k), "referenceLocator", "");
            check(strncmp(purl, "pkg:", 4) == 0 && only(purl, "-._~:/%@?=&"));
        }
    }
    const struct value *relations = value_get(document, "relationships");
    for (size_t i = 1; i < value_count(relations); i++)
        check(value_get(&seen, value_get_string(value_at(relations, i), "relatedSpdxElement", "")));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char digest[] =
        "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    cleanup_value struct value found = {0};
    cleanup_value struct value config = {0};
    cleanup_value struct value document = {0};
    cleanup_value struct value again = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct value *packages;

    if (size < 1)
        return 0;
    cleanup_free char *rest = mem_strndup((const char *)data + 1, size - 1);
    value_set_map(&found);
    packages = value_put(&found, "packages");
    value_set_array(packages);
    if (*data & 1)
        sbom_dpkg(rest, size - 1, "var/lib/dpkg/status", packages);
    if (*data & 2)
        sbom_apk(rest, size - 1, "lib/apk/db/installed", packages);
    if (*data & 4)
        sbom_python(rest, size - 1, "x.dist-info/METADATA", packages);
    if (*data & 8)
        sbom_npm(rest, size - 1, "node_modules/x/package.json", packages);
    sbom_sort(packages);
    sbom_os_release(rest, size - 1, value_put(&found, "os"));
    value_set_map(&config);
    value_put_string(&config, "created", rest);
    sbom_document(&found, &config, rest, digest, &document);
    check_document(&document);
    value_to_json(&document, 0, &text);
    check(value_from_json(text.data, text.len, "document", NULL, &again, NULL) == 0);
    return 0;
}
