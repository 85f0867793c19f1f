#include "oci/build_cache_remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/inflate.h"
#include "oci/manifest.h"
#include "oci/primitives.h"

#define TABLE_LIMIT STORE_MANIFEST_LIMIT
#define EMPTY_TYPE  "application/vnd.oci.empty.v1+json"

struct source {
    struct image_reference reference;
    char *text;
    bool tried;
    struct remote *remote; /* NULL: of no use */
    struct value table;
};

struct cache_sources {
    struct call *call;
    struct store *store;
    struct source *items;
    size_t count;
};

/* ---- the table ---- */

static const struct value *find_layer(const struct value *layers, const char *digest)
{
    for (size_t i = 0; i < value_count(layers); i++)
        if (strcmp(value_get_string(value_at(layers, i), "digest", ""), digest) == 0)
            return value_at(layers, i);
    return NULL;
}

static int take_entry(const struct value *entry, const struct value *layers, struct value *out,
                      struct error *err)
{
    const char *key = value_get_string(entry, "key", ""),
               *digest = value_get_string(entry, "layer", ""),
               *diff_id = value_get_string(entry, "diffId", "");

    if (!digest_valid(key))
        return error_set(err, ERR_INVALID, "'%.100s' is no key", key);
    struct value *slot = value_put(out, key);
    value_set_map(slot);
    if (value_get_bool(entry, "empty", false)) {
        value_put_bool(slot, "empty", true);
        return 0;
    }
    if (!digest_valid(digest) || !digest_valid(diff_id))
        return error_set(err, ERR_INVALID, "%s: layer and diffId must be digests", key);
    const struct value *layer = find_layer(layers, digest);
    if (!layer)
        return error_set(err, ERR_INVALID, "%s: the manifest has no layer %s", key, digest);
    const char *type = value_get_string(layer, "mediaType", "");
    if (value_get(layer, "urls"))
        return error_set(err, ERR_INVALID, "layer %s lies elsewhere", digest);
    if (!build_cache_layer_type(type))
        return error_set(err, ERR_INVALID, "layer %s is of the type %.100s", digest, type);
    value_put_string(slot, "digest", digest);
    value_put_int(slot, "size", value_get_int(layer, "size", 0));
    value_put_string(slot, "mediaType", type);
    value_put_string(slot, "diffId", diff_id);
    return 0;
}

int build_cache_table(const char *text, size_t len, const struct value *layers, struct value *out,
                      struct error *err)
{
    cleanup_value struct value table = {0};

    value_set_map(out);
    if (value_from_json(text, len, "table of layers", NULL, &table, err) != 0)
        return -1;
    const char *version = value_get_string(&table, "version", "");
    const struct value *entries = value_get(&table, "entries");
    if (strcmp(version, BUILD_CACHE_VERSION) != 0)
        return error_set(err, ERR_UNSUPPORTED, "its version is '%.100s', not '%s'", version,
                         BUILD_CACHE_VERSION);
    if (!entries || entries->kind != VALUE_ARRAY)
        return error_set(err, ERR_INVALID, "it has no entries");
    for (size_t i = 0; i < value_count(entries); i++)
        if (take_entry(value_at(entries, i), layers, out, err) != 0)
            return -1;
    return 0;
}

/* ---- reading ---- */

struct cache_sources *cache_sources_new(struct call *call, struct store *store,
                                        const struct value *references, struct error *err)
{
    struct cache_sources *sources = mem_alloc(sizeof *sources);

    sources->call = call;
    sources->store = store;
    for (size_t i = 0; i < value_count(references); i++) {
        const char *text = value_text(value_at(references, i), "");
        sources->items = mem_array(sources->items, sources->count + 1, sizeof *sources->items);
        struct source *source = &sources->items[sources->count++];
        *source = (struct source){.text = mem_strdup(text)};
        if (script_reference(call, text, &source->reference, err) != 0) {
            error_wrap(err, "cache_from");
            cache_sources_free(sources);
            return NULL;
        }
    }
    return sources;
}

void cache_sources_free(struct cache_sources *sources)
{
    if (!sources)
        return;
    for (size_t i = 0; i < sources->count; i++) {
        struct source *source = &sources->items[i];
        image_reference_free(&source->reference);
        free(source->text);
        remote_free(source->remote);
        value_free(&source->table);
    }
    free(sources->items);
    free(sources);
}

void cache_sources_cleanup(struct cache_sources **sources)
{
    cache_sources_free(*sources);
}

static int read_table(struct cache_sources *sources, struct source *source,
                      const struct value *manifest, struct error *err)
{
    const struct value *config = value_get(manifest, "config");
    const char *type = value_get_string(config, "mediaType", "");
    cleanup_buf struct buf text = BUF_INIT;

    if (strcmp(type, BUILD_CACHE_TABLE) != 0) {
        error_set(err, ERR_INVALID, "it is no build cache (its config is of the type %.100s)",
                  type);
        return error_hint(err, "cache_from names what cache_to wrote");
    }
    if (value_get_int(config, "size", 0) > TABLE_LIMIT)
        return error_set(err, ERR_TOO_LARGE, "its table of layers has over %u bytes", TABLE_LIMIT);
    if (remote_fetch(source->remote, sources->store, source->reference.name, config, err) != 0 ||
        store_blob_read(sources->store, value_get_string(config, "digest", ""), TABLE_LIMIT, &text,
                        err) != 0)
        return -1;
    return build_cache_table(text.data ? text.data : "", text.len, value_get(manifest, "layers"),
                             &source->table, err);
}

static void drop_source(struct cache_sources *sources, struct source *source,
                        const struct error *problem)
{
    const char *hint = problem->hint;

    call_log(sources->call, "warning", "cache_from %s is not used: %s%s%s", source->text,
             problem->message, *hint ? "; " : "", hint);
    remote_free(source->remote);
    source->remote = NULL;
}

static void load_source(struct cache_sources *sources, struct source *source)
{
    const struct image_reference *reference = &source->reference;
    const char *ref = reference->digest ? reference->digest : reference->tag;
    cleanup_value struct value manifest = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct error problem = {0};
    struct digest digest;

    source->tried = true;
    source->remote = remote_new(sources->call, reference->host, &problem);
    int there = source->remote
                    ? remote_resolve(source->remote, reference->name, ref, &digest, &problem)
                    : -1;
    if (there == 0) {
        call_log(sources->call, "info", "cache_from %s: there is none yet", source->text);
        remote_free(source->remote);
        source->remote = NULL;
        return;
    }
    if (there < 0 ||
        remote_manifest(source->remote, reference->name, ref, &text, NULL, NULL, &problem) != 0 ||
        oci_manifest_parse(text.data ? text.data : "", text.len, source->text, &manifest,
                           &problem) != 0 ||
        read_table(sources, source, &manifest, &problem) != 0)
        drop_source(sources, source, &problem);
}

/* What was sent is what the table says: its digest by remote_fetch, its diff id here. */
static int check_layer(struct store *store, const struct cached_layer *layer, struct error *err)
{
    struct digest file, stream;
    uint64_t size;

    cleanup_close int fd = store_blob_open(store, layer->digest.text, &size, err);
    if (fd < 0)
        return -1;
    if (size != layer->size)
        return error_set(err, ERR_DIGEST, "layer %s has %llu bytes, the manifest says %llu",
                         layer->digest.text, (unsigned long long)size,
                         (unsigned long long)layer->size);
    struct inflater *inflater = inflater_new(fd, true);
    int status = inflater_finish(inflater, &file, &stream, err);
    inflater_free(inflater);
    if (status != 0)
        return error_wrap(err, "layer %s", layer->digest.text);
    if (strcmp(file.text, layer->digest.text) != 0 || strcmp(stream.text, layer->diff_id.text) != 0)
        return error_set(err, ERR_DIGEST, "layer %s has the diff id %s, its table says %s",
                         layer->digest.text, stream.text, layer->diff_id.text);
    return 0;
}

static int take_layer(struct cache_sources *sources, struct source *source,
                      const struct value *entry, struct cached_layer *out, struct error *err)
{
    *out = (struct cached_layer){.kind = CACHED_EMPTY};
    if (value_get_bool(entry, "empty", false))
        return 0;
    out->kind = CACHED_LAYER;
    out->media_type = build_cache_layer_type(value_get_string(entry, "mediaType", ""));
    out->size = (uint64_t)value_get_int(entry, "size", 0);
    snprintf(out->digest.text, DIGEST_TEXT, "%s", value_get_string(entry, "digest", ""));
    snprintf(out->diff_id.text, DIGEST_TEXT, "%s", value_get_string(entry, "diffId", ""));
    if (remote_fetch(source->remote, sources->store, source->reference.name, entry, err) != 0)
        return -1;
    return check_layer(sources->store, out, err);
}

int cache_sources_find(struct cache_sources *sources, const struct digest *key,
                       struct cached_layer *out)
{
    for (size_t i = 0; i < sources->count; i++) {
        struct source *source = &sources->items[i];
        struct error problem = {0};
        if (!source->tried)
            load_source(sources, source);
        const struct value *entry = source->remote ? value_get(&source->table, key->text) : NULL;
        if (!entry)
            continue;
        if (take_layer(sources, source, entry, out, &problem) == 0)
            return 1;
        drop_source(sources, source, &problem);
    }
    return 0;
}

/* ---- writing ---- */

static void add_layer(struct value *layers, const char *type, const char *digest, int64_t size)
{
    if (find_layer(layers, digest))
        return;
    struct value *layer = value_push(layers);
    value_set_map(layer);
    value_put_string(layer, "mediaType", type);
    value_put_string(layer, "digest", digest);
    value_put_int(layer, "size", size);
}

/* An artifact without layers has the empty one, as the image spec wants it. */
static int add_empty(struct store *store, struct value *layers, struct error *err)
{
    struct digest digest;

    if (store_blob_put(store, "{}", 2, &digest, err) != 0)
        return -1;
    add_layer(layers, EMPTY_TYPE, digest.text, 2);
    return 0;
}

static int write_table(struct store *store, const struct value *entries, struct value *manifest,
                       struct error *err)
{
    cleanup_value struct value table = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct digest digest;

    value_set_map(&table);
    value_put_string(&table, "version", BUILD_CACHE_VERSION);
    struct value *list = value_put(&table, "entries");
    value_set_array(list);
    struct value *config = value_put(manifest, "config");
    value_set_map(config);
    struct value *layers = value_put(manifest, "layers");
    value_set_array(layers);
    for (size_t i = 0; i < value_count(entries); i++) {
        const struct value *from = value_at(entries, i);
        const char *layer = value_get_string(from, "layer", NULL);
        struct value *to = value_push(list);
        value_set_map(to);
        value_put_string(to, "key", value_get_string(from, "key", ""));
        if (!layer) {
            value_put_bool(to, "empty", true);
            continue;
        }
        value_put_string(to, "layer", layer);
        value_put_string(to, "diffId", value_get_string(from, "diffId", ""));
        add_layer(layers, value_get_string(from, "mediaType", OCI_LAYER_GZIP), layer,
                  value_get_int(from, "size", 0));
    }
    if (!value_count(layers) && add_empty(store, layers, err) != 0)
        return -1;
    value_to_json(&table, 0, &text);
    if (text.len > TABLE_LIMIT)
        return error_set(err, ERR_TOO_LARGE, "the table of layers has over %u bytes", TABLE_LIMIT);
    if (store_blob_put(store, text.data, text.len, &digest, err) != 0)
        return -1;
    config = value_get(manifest, "config");
    value_put_string(config, "mediaType", BUILD_CACHE_TABLE);
    value_put_string(config, "digest", digest.text);
    value_put_int(config, "size", (int64_t)text.len);
    return 0;
}

int build_cache_push(struct call *call, struct store *store, const struct value *entries,
                     const char *reference, struct push_result *out, struct error *err)
{
    cleanup_image_reference struct image_reference parsed = {0};
    cleanup_value struct value manifest = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct digest digest;

    if (script_reference(call, reference, &parsed, err) != 0)
        return error_wrap(err, "cache_to");
    if (!parsed.tag)
        return error_set(err, ERR_USAGE, "cache_to needs a tag, not a digest: %s", reference);
    cleanup_remote struct remote *remote = remote_new(call, parsed.host, err);
    if (!remote)
        return error_wrap(err, "cache_to");
    value_set_map(&manifest);
    value_put_int(&manifest, "schemaVersion", 2);
    value_put_string(&manifest, "mediaType", OCI_MANIFEST);
    value_put_string(&manifest, "artifactType", BUILD_CACHE_TYPE);
    if (write_table(store, entries, &manifest, err) != 0)
        return error_wrap(err, "cache_to");
    value_to_json(&manifest, 0, &text);
    if (store_blob_put(store, text.data, text.len, &digest, err) != 0 ||
        remote_push(remote, store, digest.text, parsed.name, parsed.tag, NULL, out, err) != 0) {
        error_wrap(err, "cache_to %s", reference);
        return err && !*err->hint ? error_hint(err, "the image itself is built: leave cache_to out "
                                                    "to do without")
                                  : -1;
    }
    return 0;
}
