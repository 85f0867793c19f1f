/* What a build was made of, for its provenance. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/build_internal.h"
#include "oci/manifest.h"
#include "oci/provenance.h"
#include "oci/reference.h"

#define READ_ANYWAY (UINT64_C(64) << 20)

static bool noted(const struct value *materials, const char *uri, const char *digest)
{
    for (size_t i = 0; i < value_count(materials); i++) {
        const struct value *material = value_at(materials, i);
        if (strcmp(value_get_string(material, "uri", ""), uri) == 0 &&
            strcmp(value_get_string(material, "digest", ""), digest) == 0)
            return true;
    }
    return false;
}

void builder_note_file(struct builder *builder, const char *name, const char *uri,
                       const struct digest *digest)
{
    struct value *materials = builder->spec->materials;

    if (!materials || noted(materials, uri ? uri : "", digest->text))
        return;
    struct value *material = value_push(materials);
    value_set_map(material);
    value_put_string(material, "name", name);
    value_put_string(material, "uri", uri);
    value_put_string(material, "digest", digest->text);
}

/* A package URL, as BuildKit writes it. */
void builder_note_image(struct builder *builder, const char *reference, const struct digest *digest)
{
    cleanup_image_reference struct image_reference parsed = {0};

    if (!builder->spec->materials ||
        image_reference_parse(reference, "docker.io", &parsed, NULL) != 0)
        return;
    bool hub = strcmp(parsed.host, "docker.io") == 0;
    const char *name =
        hub && strncmp(parsed.name, "library/", 8) == 0 ? parsed.name + 8 : parsed.name;
    cleanup_free char *uri = mem_printf(
        "pkg:docker/%s%s%s%s%s?platform=linux%%2F%s", hub ? "" : parsed.host, hub ? "" : "/", name,
        parsed.tag ? "@" : "", parsed.tag ? parsed.tag : "", oci_architecture());
    builder_note_file(builder, NULL, uri, digest);
}

int builder_note_url(struct builder *builder, const char *url, int fd, int64_t offset,
                     struct error *err)
{
    const char *host = strstr(url, "://");
    struct digest digest;
    char piece[65536];
    ssize_t n;

    if (!builder->spec->materials || !host)
        return 0;
    struct hasher *hasher = hasher_new();
    while ((n = pread(fd, piece, sizeof piece, (off_t)offset)) > 0) {
        hasher_update(hasher, piece, (size_t)n);
        offset += n;
    }
    hasher_finish(hasher, &digest);
    if (n < 0)
        return error_errno(err, errno, "cannot read back what came from %s", url);
    host += 3;
    const char *user = memchr(host, '@', strcspn(host, "/?#"));
    const char *from = user ? user + 1 : host;
    cleanup_free char *shown =
        mem_printf("%.*s%.*s", (int)(host - url), url, (int)strcspn(from, "?#"), from);
    builder_note_file(builder, NULL, shown, &digest);
    return 0;
}

/* Files that were not read for the build are read only when somebody wants it, or when it is
 * little.
 */
int builder_note_context(struct builder *builder, struct error *err)
{
    struct value *materials = builder->spec->materials;
    struct context *context = builder->context;
    uint64_t unknown = 0;
    char hash[65];

    if (!materials || !context)
        return 0;
    for (size_t i = 0; i < context->count; i++)
        if (S_ISREG(context->files[i].mode) && !context_digest_known(context, &context->files[i]))
            unknown += context->files[i].size;
    struct value *material = value_push(materials);
    value_set_map(material);
    value_put_string(material, "name", "context");
    if (unknown > READ_ANYWAY && !builder->spec->hash_context)
        return 0;
    if (context_dir_hash(context, hash, err) != 0)
        return -1;
    value_put_string(material, "dirHash", hash);
    return 0;
}
