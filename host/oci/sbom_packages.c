/* The files of an image that say what was installed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/module.h"
#include "oci/sbom.h"
#include "oci/tree.h"

#define FILES_MAX    100000u
#define DPKG_LIMIT   (32u << 20)
#define RECORD_LIMIT (1u << 20)
#define OWN_LIMIT    (256u << 20)
#define OWN_PROGRAM  "usr/local/bin/mlhost"

typedef void parse_fn(const char *text, size_t len, const char *path, struct value *out);

struct source {
    const struct tree_node *node;
    parse_fn *parse; /* NULL: os-release, or the program itself */
    uint64_t offset, size;
};

struct collector {
    struct store *store;
    const struct value *layers;
    struct tree tree;
    struct source *sources;
    size_t count, room;
    int spool;
    struct value *notes, *packages, *os;
};

static void note(struct collector *collector, const char *path, const char *why)
{
    cleanup_free char *text = mem_printf("/%s: %s", path, why);

    value_push_string(collector->notes, text);
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), tail = strlen(end);

    return len > tail && strcmp(text + len - tail, end) == 0;
}

/* node_modules/name/package.json, node_modules/@scope/name/package.json: a package, not a part of
 * one. */
static bool is_npm(const char *path)
{
    const char *last = NULL;

    if (!ends_with(path, "/package.json"))
        return false;
    for (const char *at = path; (at = strstr(at, "node_modules/")); at++)
        if (at == path || at[-1] == '/')
            last = at + strlen("node_modules/");
    if (!last)
        return false;
    const char *rest = strchr(last, '/');
    if (*last == '@' && rest)
        rest = strchr(rest + 1, '/');
    return rest && strcmp(rest, "/package.json") == 0;
}

static parse_fn *parser_of(const char *path, uint64_t *limit)
{
    *limit = RECORD_LIMIT;
    if (strcmp(path, "var/lib/dpkg/status") == 0) {
        *limit = DPKG_LIMIT;
        return sbom_dpkg;
    }
    if (strcmp(path, "lib/apk/db/installed") == 0 ||
        strcmp(path, "usr/lib/apk/db/installed") == 0) {
        *limit = DPKG_LIMIT;
        return sbom_apk;
    }
    if (strncmp(path, "var/lib/dpkg/status.d/", 22) == 0 && !ends_with(path, ".md5sums"))
        return sbom_dpkg;
    if (ends_with(path, ".dist-info/METADATA") || ends_with(path, ".egg-info/PKG-INFO"))
        return sbom_python;
    return is_npm(path) ? sbom_npm : NULL;
}

static bool is_rpm(const char *path)
{
    return strncmp(path, "var/lib/rpm/", 12) == 0 || strncmp(path, "usr/lib/sysimage/rpm/", 21) == 0
               ? ends_with(path, "/rpmdb.sqlite") || ends_with(path, "/Packages") ||
                     ends_with(path, "/Packages.db")
               : false;
}

static void choose(struct collector *collector, const struct tree_node *node)
{
    uint64_t limit;
    parse_fn *parse = parser_of(node->path, &limit);
    bool release = strcmp(node->path, "etc/os-release") == 0 ||
                   strcmp(node->path, "usr/lib/os-release") == 0,
         own = strcmp(node->path, OWN_PROGRAM) == 0;

    if (is_rpm(node->path))
        note(collector, node->path, "packages of rpm are not read");
    if (!S_ISREG(node->mode) || (!parse && !release && !own))
        return;
    if (node->size > (own ? OWN_LIMIT : limit)) {
        note(collector, node->path, "too large to be read");
        return;
    }
    if (collector->count == FILES_MAX) {
        note(collector, node->path, "not read, nor the ones after it: there are too many");
        return;
    }
    if (collector->count > FILES_MAX)
        return;
    if (collector->count == collector->room) {
        collector->room = collector->room ? collector->room * 2 : 64;
        collector->sources =
            mem_array(collector->sources, collector->room, sizeof *collector->sources);
    }
    collector->sources[collector->count++] = (struct source){.node = node, .parse = parse};
}

static const char *origin_of(const struct tree_node *node)
{
    return node->origin ? node->origin : node->path;
}

/* Each layer is read once. */
static int spool_layer(struct collector *collector, int layer, struct error *err)
{
    cleanup_value struct value wanted = {0};
    const char *digest = value_get_string(value_at(collector->layers, (size_t)layer), "digest", "");

    value_set_map(&wanted);
    for (size_t i = 0; i < collector->count; i++)
        if (collector->sources[i].node->layer == layer)
            value_put(&wanted, origin_of(collector->sources[i].node));
    if (!value_count(&wanted))
        return 0;
    cleanup_close int fd = store_blob_open(collector->store, digest, NULL, err);
    if (fd < 0 || tree_spool(fd, &wanted, collector->spool, err) != 0)
        return error_wrap(err, "layer %s", digest);
    for (size_t i = 0; i < collector->count; i++) {
        struct source *source = &collector->sources[i];
        const struct value *slot =
            source->node->layer == layer ? value_get(&wanted, origin_of(source->node)) : NULL;
        if (!slot || slot->kind != VALUE_MAP)
            continue;
        source->offset = (uint64_t)value_get_int(slot, "offset", 0);
        source->size = (uint64_t)value_get_int(slot, "size", 0);
    }
    return 0;
}

static int read_source(struct collector *collector, const struct source *source, struct buf *out,
                       struct error *err)
{
    uint64_t at = 0;

    buf_clear(out);
    buf_reserve(out, (size_t)source->size + 1);
    while (at < source->size) {
        ssize_t n = pread(collector->spool, out->data + at, (size_t)(source->size - at),
                          (off_t)(source->offset + at));
        if (n <= 0)
            return error_errno(err, n < 0 ? errno : EIO, "cannot read %s back", source->node->path);
        at += (uint64_t)n;
    }
    out->len = (size_t)source->size;
    out->data[out->len] = '\0';
    return 0;
}

static int digest_source(struct collector *collector, const struct source *source,
                         struct digest *out, struct error *err)
{
    struct hasher *hasher = hasher_new();
    char piece[65536];
    uint64_t at = 0;

    while (at < source->size) {
        size_t want = source->size - at < sizeof piece ? (size_t)(source->size - at) : sizeof piece;
        ssize_t n = pread(collector->spool, piece, want, (off_t)(source->offset + at));
        if (n <= 0) {
            hasher_drop(hasher);
            return error_errno(err, n < 0 ? errno : EIO, "cannot read %s back", source->node->path);
        }
        hasher_update(hasher, piece, (size_t)n);
        at += (uint64_t)n;
    }
    hasher_finish(hasher, out);
    return 0;
}

/* Which version it is only its own program can tell: when this one is it, it is known. */
static int add_own(struct collector *collector, const struct source *source, struct error *err)
{
    cleanup_close int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct digest digest, own;

    if (digest_source(collector, source, &digest, err) != 0)
        return -1;
    struct value *package = value_push(collector->packages);
    value_set_map(package);
    value_put_string(package, "type", "generic");
    value_put_string(package, "name", "mlhost");
    value_put_string(package, "path", OWN_PROGRAM);
    value_put_string(package, "digest", digest.text);
    if (self >= 0 && digest_file(self, &own, NULL, NULL) == 0 && strcmp(own.text, digest.text) == 0)
        value_put_string(package, "version", mlhost_version);
    return 0;
}

static int parse_sources(struct collector *collector, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;

    for (size_t i = 0; i < collector->count; i++) {
        const struct source *source = &collector->sources[i];
        const char *path = source->node->path;
        if (strcmp(path, OWN_PROGRAM) == 0) {
            if (add_own(collector, source, err) != 0)
                return -1;
            continue;
        }
        if (read_source(collector, source, &text, err) != 0)
            return -1;
        if (source->parse)
            source->parse(text.data, text.len, path, collector->packages);
        else if (!value_count(collector->os) || strcmp(path, "etc/os-release") == 0)
            sbom_os_release(text.data, text.len, collector->os);
    }
    return 0;
}

static int compare_packages(const void *a, const void *b)
{
    static const char *const keys[] = {"type", "name", "version", "path", "arch"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int order = strcmp(value_get_string(a, keys[i], ""), value_get_string(b, keys[i], ""));
        if (order)
            return order;
    }
    return 0;
}

void sbom_sort(struct value *packages)
{
    struct value *items = packages->as.array.items;
    size_t count = value_count(packages), kept = 0;

    if (!count)
        return;
    qsort(items, count, sizeof *items, compare_packages);
    for (size_t i = 1; i < count; i++)
        if (compare_packages(&items[kept], &items[i]) == 0)
            value_free(&items[i]);
        else if (++kept != i)
            value_move(&items[kept], &items[i]);
    packages->as.array.count = kept + 1;
}

static int collect(struct collector *collector, struct error *err)
{
    size_t count = 0;

    for (size_t i = 0; i < value_count(collector->layers); i++) {
        const char *digest = value_get_string(value_at(collector->layers, i), "digest", "");
        if (tree_add_blob(&collector->tree, collector->store, digest, err) != 0)
            return -1;
    }
    collector->spool = store_scratch(collector->store, err);
    if (collector->spool < 0)
        return -1;
    cleanup_free const struct tree_node **nodes = tree_sorted(&collector->tree, &count);
    for (size_t i = 0; i < count; i++)
        choose(collector, nodes[i]);
    for (int layer = 0; layer < collector->tree.layers; layer++)
        if (spool_layer(collector, layer, err) != 0)
            return -1;
    return parse_sources(collector, err);
}

int sbom_packages(struct store *store, const struct value *manifest, struct value *out,
                  struct error *err)
{
    struct collector collector = {
        .store = store, .layers = value_get(manifest, "layers"), .spool = -1};
    cleanup_value struct value packages = {0};
    cleanup_value struct value notes = {0};
    cleanup_value struct value os = {0};

    value_set_array(&packages);
    value_set_array(&notes);
    value_set_map(&os);
    collector.packages = &packages;
    collector.notes = &notes;
    collector.os = &os;
    int status = collect(&collector, err);
    free(collector.sources);
    tree_free(&collector.tree);
    if (collector.spool >= 0)
        close(collector.spool);
    if (status != 0)
        return -1;
    sbom_sort(&packages);
    value_set_map(out);
    value_move(value_put(out, "packages"), &packages);
    value_move(value_put(out, "os"), &os);
    value_move(value_put(out, "notes"), &notes);
    return 0;
}
