/*
 * What registries send: manifests and indexes (their digests and sizes can be relied on once they
 * are read), and the references by which images are named: what we print means the same. The first
 * byte chooses.
 */
#include "fuzz.h"

#include "oci/manifest.h"
#include "oci/reference.h"

static void descriptor(const struct value *v)
{
    check(digest_valid(value_get_string(v, "digest", NULL)));
    check(value_get_int(v, "size", -1) >= 0);
}

static void manifest(const char *text, size_t len)
{
    cleanup_value struct value document = {0};
    struct error err = {0};

    int status = oci_manifest_parse(text, len, "fuzz", &document, &err);
    check_result(status, &err);
    if (status < 0)
        return;
    if (oci_is_index(&document)) {
        const struct value *picked = oci_index_pick(&document, "fuzz", &err);
        check(picked ? true : err.code != ERR_NONE);
        if (picked)
            descriptor(picked);
        return;
    }
    descriptor(value_get(&document, "config"));
    const struct value *layers = value_get(&document, "layers");
    for (size_t i = 0; i < value_count(layers); i++)
        descriptor(value_at(layers, i));
}

static void reference(const char *text)
{
    cleanup_image_reference struct image_reference one = {0};
    cleanup_image_reference struct image_reference two = {0};
    struct error err = {0};

    int status = image_reference_parse(text, NULL, &one, &err);
    check_result(status, &err);
    if (status < 0)
        return;
    cleanup_free char *whole = image_reference_text(&one);
    cleanup_free char *cache_name = image_reference_cache_name(&one);
    check(store_name_valid(one.name) && store_name_valid(cache_name));
    check(!one.tag || store_tag_valid(one.tag));
    check(!one.digest || digest_valid(one.digest));
    check(image_reference_parse(whole, NULL, &two, &err) == 0);
    check(strcmp(one.host, two.host) == 0 && strcmp(one.name, two.name) == 0);
    check(one.digest ? two.digest && strcmp(one.digest, two.digest) == 0
                     : two.tag && strcmp(one.tag, two.tag) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    cleanup_free char *text = mem_strndup((const char *)data + 1, size - 1);
    if (data[0] & 1)
        reference(text);
    else
        manifest(text, size - 1);
    return 0;
}
