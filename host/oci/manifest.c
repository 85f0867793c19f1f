#include "oci/manifest.h"

#include <string.h>

#include "base/mem.h"

#define CONFIG_LIMIT (8u << 20)
#define LAYERS_MAX   1000

const char *oci_architecture(void)
{
#if defined(__x86_64__)
    return "amd64";
#elif defined(__aarch64__)
    return "arm64";
#elif defined(__riscv)
    return "riscv64";
#elif defined(__powerpc64__)
    return "ppc64le";
#elif defined(__s390x__)
    return "s390x";
#else
    return "unknown";
#endif
}

bool oci_is_index(const struct value *document)
{
    const char *type = value_get_string(document, "mediaType", "");

    return strcmp(type, OCI_INDEX) == 0 || strcmp(type, DOCKER_LIST) == 0 ||
           (!*type && value_get(document, "manifests") && !value_get(document, "layers"));
}

static int check_descriptor(const struct value *descriptor, const char *source, const char *what,
                            struct error *err)
{
    const struct value *size = value_get(descriptor, "size");

    if (!descriptor || descriptor->kind != VALUE_MAP)
        return error_set(err, ERR_INVALID, "%s: %s is missing or no object", source, what);
    if (!digest_valid(value_get_string(descriptor, "digest", NULL)))
        return error_set(err, ERR_INVALID,
                         "%s: %s has the digest '%.100s'; sha256:<64 hexadecimal digits> is needed",
                         source, what, value_get_string(descriptor, "digest", ""));
    if (!size || size->kind != VALUE_INT || size->as.integer < 0)
        return error_set(err, ERR_INVALID, "%s: %s has no size", source, what);
    return 0;
}

static int check_descriptors(const struct value *document, const char *key, const char *source,
                             struct error *err)
{
    const struct value *list = value_get(document, key);

    if (!list || list->kind != VALUE_ARRAY)
        return error_set(err, ERR_INVALID, "%s: '%s' is missing or no list", source, key);
    if (value_count(list) > LAYERS_MAX)
        return error_set(err, ERR_TOO_LARGE, "%s: %zu %s, the limit is %d", source,
                         value_count(list), key, LAYERS_MAX);
    for (size_t i = 0; i < value_count(list); i++) {
        cleanup_free char *what = mem_printf("%s[%zu]", key, i);
        if (check_descriptor(value_at(list, i), source, what, err) != 0)
            return -1;
    }
    return 0;
}

static const struct text_limits manifest_limits = {
    .bytes = STORE_MANIFEST_LIMIT, .depth = 32, .nodes = 200000};

int oci_manifest_parse(const char *text, size_t len, const char *source, struct value *out,
                       struct error *err)
{
    cleanup_value struct value document = {0};

    if (value_from_json(text, len, source, &manifest_limits, &document, err) != 0)
        return -1;
    if (document.kind != VALUE_MAP)
        return error_set(err, ERR_INVALID, "%s: a manifest must be an object, not %s", source,
                         value_kind_name(&document));
    int64_t version = value_get_int(&document, "schemaVersion", 0);
    if (version == 1) {
        error_set(err, ERR_UNSUPPORTED, "%s: an image of the old Docker schema 1", source);
        return error_hint(err, "push it again with a current tool");
    }
    if (version != 2)
        return error_set(err, ERR_INVALID, "%s: schemaVersion must be 2", source);
    if (value_get(&document, "manifests") && value_get(&document, "layers")) {
        error_set(err, ERR_INVALID, "%s: an image and an index at once", source);
        return error_hint(err, "a document has 'layers' or 'manifests': push the image again");
    }
    if (oci_is_index(&document)) {
        if (check_descriptors(&document, "manifests", source, err) != 0)
            return -1;
    } else if (check_descriptor(value_get(&document, "config"), source, "config", err) != 0 ||
               check_descriptors(&document, "layers", source, err) != 0) {
        return -1;
    }
    value_move(out, &document);
    return 0;
}

static bool is_known(const char *type)
{
    return strcmp(type, OCI_MANIFEST) == 0 || strcmp(type, OCI_INDEX) == 0 ||
           strcmp(type, DOCKER_MANIFEST) == 0 || strcmp(type, DOCKER_LIST) == 0;
}

int oci_same_type(const char *text, size_t len, const char *said, const char *source,
                  struct error *err)
{
    cleanup_value struct value document = {0};

    if (!is_known(said) ||
        value_from_json(text, len, source, &manifest_limits, &document, NULL) != 0)
        return 0;
    const char *own = value_get_string(&document, "mediaType", said);
    if (strcmp(own, said) == 0)
        return 0;
    error_set(err, ERR_INVALID, "%s: the registry says that it is %s, it says of itself %.200s",
              source, said, own);
    return error_hint(err, "push it again, with a tool that sends the right Content-Type");
}

const struct value *oci_index_pick(const struct value *index, const char *source, struct error *err)
{
    const struct value *list = value_get(index, "manifests");
    cleanup_buf struct buf have = BUF_INIT;

    for (size_t i = 0; i < value_count(list); i++) {
        const struct value *descriptor = value_at(list, i);
        const char *os = value_get_string(value_get(descriptor, "platform"), "os", "linux");
        const char *arch =
            value_get_string(value_get(descriptor, "platform"), "architecture", oci_architecture());
        if (strcmp(os, "linux") == 0 && strcmp(arch, oci_architecture()) == 0)
            return descriptor;
        if (strcmp(os, "unknown") != 0)
            buf_printf(&have, "%s%s/%s", have.len ? ", " : "", os, arch);
    }
    error_set(err, ERR_NOT_FOUND, "%s has no image for linux/%s", source, oci_architecture());
    error_hint(err, "it has: %s", have.len ? have.data : "nothing");
    return NULL;
}

int oci_manifest_load(struct store *store, const char *digest, struct value *manifest,
                      struct digest *resolved, struct error *err)
{
    cleanup_value struct value document = {0};
    cleanup_free char *wanted = mem_strdup(digest);

    /* An index may name an index; more than a few levels are nobody's image. */
    for (int level = 0; level < 4; level++) {
        cleanup_buf struct buf text = BUF_INIT;
        value_free(&document);
        if (store_blob_read(store, wanted, STORE_MANIFEST_LIMIT, &text, err) != 0)
            return error_wrap(err, "manifest");
        if (oci_manifest_parse(text.data ? text.data : "", text.len, wanted, &document, err) != 0)
            return -1;
        if (!oci_is_index(&document)) {
            if (resolved)
                memcpy(resolved->text, wanted, strlen(wanted) + 1);
            value_move(manifest, &document);
            return 0;
        }
        const struct value *descriptor = oci_index_pick(&document, wanted, err);
        if (!descriptor)
            return -1;
        char *next = mem_strdup(value_get_string(descriptor, "digest", ""));
        mem_cleanup(&wanted);
        wanted = next;
    }
    return error_set(err, ERR_INVALID, "%s: too many nested indexes", digest);
}

int oci_config_load(struct store *store, const struct value *manifest, struct value *config,
                    struct error *err)
{
    static const struct text_limits limits = {.bytes = CONFIG_LIMIT, .depth = 64, .nodes = 500000};
    const char *digest = value_get_string(value_get(manifest, "config"), "digest", "");
    cleanup_value struct value document = {0};
    cleanup_buf struct buf text = BUF_INIT;

    if (store_blob_read(store, digest, CONFIG_LIMIT, &text, err) != 0)
        return error_wrap(err, "image config");
    if (value_from_json(text.data ? text.data : "", text.len, digest, &limits, &document, err) != 0)
        return error_wrap(err, "image config");
    const struct value *ids = value_path(&document, "rootfs.diff_ids");
    if (value_count(ids) != value_count(value_get(manifest, "layers")))
        return error_set(err, ERR_INVALID, "image config %s: %zu diff_ids for %zu layers", digest,
                         value_count(ids), value_count(value_get(manifest, "layers")));
    for (size_t i = 0; i < value_count(ids); i++)
        if (!digest_valid(value_text(value_at(ids, i), NULL)))
            return error_set(err, ERR_INVALID, "image config %s: rootfs.diff_ids[%zu] is no digest",
                             digest, i);
    value_move(config, &document);
    return 0;
}
