/* What the cache of builds reads: tables out of a registry, entries, lists of layers and of files
 * on the disk. A table names nothing that its manifest does not have; an entry that is read is one
 * that can be written; a list that passes its digest and makes no sense is refused. */
#include "fuzz.h"

#include "folder.h"
#include "oci/build_cache.h"
#include "oci/build_cache_remote.h"
#include "oci/context.h"
#include "oci/tree.h"

#define DIGEST_LEN 71

static void table(const char *text, size_t size)
{
    const char *stop = memchr(text, '\n', size);
    size_t len = stop ? (size_t)(stop - text) : size;
    cleanup_value struct value layers = {0};
    cleanup_value struct value out = {0};
    struct error err = {0};

    if (value_from_json(text, len, "layers", NULL, &layers, NULL) != 0)
        return;
    int status = build_cache_table(text + len, size - len, &layers, &out, &err);
    check_result(status, &err);
    for (size_t i = 0; status == 0 && i < out.as.map.count; i++) {
        const struct value *entry = &out.as.map.pairs[i].value;
        bool found = false;
        check(digest_valid(out.as.map.pairs[i].key));
        if (value_get_bool(entry, "empty", false))
            continue;
        const char *digest = value_get_string(entry, "digest", "");
        check(digest_valid(digest) && digest_valid(value_get_string(entry, "diffId", "")));
        for (size_t k = 0; k < value_count(&layers); k++) {
            const struct value *layer = value_at(&layers, k);
            found = found || (strcmp(value_get_string(layer, "digest", ""), digest) == 0 &&
                              !value_get(layer, "urls"));
        }
        check(found && build_cache_layer_type(value_get_string(entry, "mediaType", "")));
    }
}

static void entry(struct store *store, const char *text, size_t size)
{
    static const char name[] =
        "build/44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    struct cached_layer first, second;
    struct digest key;

    fuzz_file(name, text, size);
    snprintf(key.text, sizeof key.text, "sha256:%s", name + 6);
    if (build_cache_get(store, &key, &first) != 1)
        return;
    check(build_cache_put(store, &key, &first, NULL) == 0);
    check(build_cache_get(store, &key, &second) == 1);
    check(first.kind == second.kind && first.size == second.size);
    check(strcmp(first.digest.text, second.digest.text) == 0);
}

/* Of a blob that is there and no layer: what is known of it can only come from the list. */
static void list(struct store *store, const char *text, size_t size)
{
    static struct digest blob;
    cleanup_buf struct buf file = BUF_INIT;
    struct tree tree = {0};
    struct error err = {0};
    struct digest sum;
    size_t count;

    if (!*blob.text) {
        cleanup_free char *zeros = mem_alloc(1 << 20);
        check(store_blob_put(store, zeros, 1 << 20, &blob, NULL) == 0);
    }
    buf_puts(&file, "mlhost-layer 1\n");
    buf_append(&file, text, size);
    digest_bytes(file.data, file.len, &sum);
    buf_append(&file, sum.text, DIGEST_LEN);
    cleanup_free char *name = mem_printf("build/trees/%s", blob.text + 7);
    fuzz_file(name, file.data, file.len);
    int status = tree_add_blob(&tree, store, blob.text, &err);
    check_result(status, &err);
    const struct tree_node **nodes = tree_sorted(&tree, &count);
    for (size_t i = 0; i < count; i++)
        check(nodes[i]->path && tree_get(&tree, nodes[i]->path) == nodes[i]);
    free(nodes);
    tree_free(&tree);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct store *store;
    const char *text = (const char *)data + 1;

    if (!store) {
        store = store_open_at(fuzz_folder(), false, NULL);
        cleanup_free char *trees = path_join(fuzz_folder(), "build/trees");
        check(store && dir_make(trees, NULL) == 0);
    }
    if (!size)
        return 0;
    if (*data % 3 == 0)
        table(text, size - 1);
    else if (*data % 3 == 1)
        entry(store, text, size - 1);
    else
        list(store, text, size - 1);
    return 0;
}
