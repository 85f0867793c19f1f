/* What registries send: manifests and indexes, references in them, and compressed layers. The first
 * byte chooses. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/inflate.h"
#include "oci/manifest.h"
#include "oci/reference.h"
#include "oci/tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void manifest(const char *text, size_t len)
{
    cleanup_value struct value document = {0};
    struct error err = {0};

    if (oci_manifest_parse(text, len, "fuzz", &document, &err) != 0) {
        if (!err.code)
            abort();
        return;
    }
    if (oci_is_index(&document)) {
        const struct value *picked = oci_index_pick(&document, "fuzz", &err);
        if (picked && !digest_valid(value_get_string(picked, "digest", NULL)))
            abort();
    } else if (!digest_valid(value_get_string(value_get(&document, "config"), "digest", NULL))) {
        abort();
    }
}

static void reference(const char *text)
{
    cleanup_image_reference struct image_reference one = {0};
    cleanup_image_reference struct image_reference two = {0};
    struct error err = {0};

    if (image_reference_parse(text, NULL, &one, &err) != 0)
        return;
    cleanup_free char *whole = image_reference_text(&one);
    cleanup_free char *cache_name = image_reference_cache_name(&one);
    if (!store_name_valid(one.name) || !store_name_valid(cache_name))
        abort();
    /* What we print means the same. */
    if (image_reference_parse(whole, NULL, &two, &err) == 0 && strcmp(one.name, two.name) != 0)
        abort();
}

static void layer(const uint8_t *data, size_t size)
{
    struct tree tree = {0};
    struct digest file, stream;
    struct error err = {0};
    cleanup_close int fd = memfd_create("layer", MFD_CLOEXEC);

    if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET) < 0)
        return;
    struct inflater *inflater = inflater_new(fd);
    inflater_finish(inflater, &file, &stream, &err);
    inflater_free(inflater);
    lseek(fd, 0, SEEK_SET);
    if (tree_add_layer(&tree, fd, &err) == 0) {
        size_t count;
        const struct tree_node **nodes = tree_sorted(&tree, &count);
        for (size_t i = 0; i < count; i++) {
            cleanup_free char *path = tree_resolve(&tree, nodes[i]->path, true, &err);
            if (path && (*path == '/' || strcmp(path, "..") == 0 || strncmp(path, "../", 3) == 0))
                abort();
        }
        free(nodes);
    }
    tree_free(&tree);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 65536)
        return 0;
    cleanup_free char *text = mem_strndup((const char *)data + 1, size - 1);
    switch (data[0] % 3) {
    case 0:
        manifest(text, size - 1);
        break;
    case 1:
        reference(text);
        break;
    default:
        layer(data + 1, size - 1);
    }
    return 0;
}
