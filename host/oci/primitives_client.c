/* registry.*: what a registry has, beyond images: lists, artifacts, and taking things away. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/artifact.h"
#include "oci/attest.h"
#include "oci/manifest.h"
#include "oci/primitives.h"
#include "oci/remote_list.h"

#define FILES_MAX 1000

static struct remote *remote_at(struct call *call, const struct value *args, const char *key,
                                struct image_reference *reference, struct error *err)
{
    if (script_reference(call, value_get_string(args, key, ""), reference, err) != 0)
        return NULL;
    return remote_new(call, reference->host, err);
}

static int page_arguments(const struct value *args, size_t *limit, const char **last,
                          struct error *err)
{
    int64_t wanted = value_get_int(args, "limit", 0);

    if (wanted < 0)
        return error_set(err, ERR_USAGE, "limit must not be negative");
    *limit = (size_t)wanted;
    *last = value_get_string(args, "last", NULL);
    return 0;
}

/* registry.tags(repository, limit?, last?) -> array of tags, sorted. limit: no more than that many
 * of them (0: all); last: those behind that one. */
int prim_registry_tags(struct call *call, const struct value *args, struct value *out,
                       struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    const char *last = NULL;
    size_t limit = 0;

    if (page_arguments(args, &limit, &last, err) != 0)
        return -1;
    cleanup_remote struct remote *remote = remote_at(call, args, "repository", &reference, err);
    return remote ? remote_tags(remote, reference.name, limit, last, out, err) : -1;
}

/* registry.catalog(host?, limit?, last?) -> array of repositories, sorted. host: default the active
 * profile's registry. */
int prim_registry_catalog(struct call *call, const struct value *args, struct value *out,
                          struct error *err)
{
    const char *given = value_get_string(args, "host", NULL), *last = NULL;
    cleanup_free char *host = given ? mem_strdup(given) : remote_default_host(call);
    cleanup_image_reference struct image_reference reference = {0};
    size_t limit = 0;

    /* a host is what could stand in front of a name */
    cleanup_free char *sample = mem_printf("%s/x", host);
    if (given && (!image_reference_has_host(sample) || strchr(given, '/')))
        return error_set(err, ERR_USAGE, "'%.200s' is no registry: a host such as localhost:5000",
                         given);
    if (page_arguments(args, &limit, &last, err) != 0 ||
        image_reference_parse(sample, host, &reference, err) != 0)
        return -1;
    cleanup_remote struct remote *remote = remote_new(call, reference.host, err);
    return remote ? remote_catalog(remote, limit, last, out, err) : -1;
}

/* The digest that a reference names in its registry. */
static int resolve(struct remote *remote, const struct image_reference *reference,
                   struct digest *out, struct error *err)
{
    if (reference->digest) {
        memcpy(out->text, reference->digest, strlen(reference->digest) + 1);
        return 0;
    }
    int there = remote_resolve(remote, reference->name, reference->tag, out, err);
    if (there == 0)
        return error_set(err, ERR_NOT_FOUND, "%s/%s:%s is not there", reference->host,
                         reference->name, reference->tag);
    return there < 0 ? -1 : 0;
}

/* registry.referrers(ref, type?) -> array of descriptors: the artifacts that refer to an image, by
 * the referrers API or the fallback tag. type: only of that artifactType. */
int prim_registry_referrers(struct call *call, const struct value *args, struct value *out,
                            struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_remote struct remote *remote = remote_at(call, args, "ref", &reference, err);
    struct digest digest;

    if (!remote || resolve(remote, &reference, &digest, err) != 0)
        return -1;
    return remote_attached(remote, reference.name, digest.text,
                           value_get_string(args, "type", NULL), out, err);
}

/* registry.delete(ref) -> digest: the manifest that ref names is deleted, and every tag of it. */
int prim_registry_delete(struct call *call, const struct value *args, struct value *out,
                         struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_remote struct remote *remote = remote_at(call, args, "ref", &reference, err);
    struct digest digest;

    if (!remote || resolve(remote, &reference, &digest, err) != 0 ||
        remote_delete(remote, reference.name, digest.text, err) != 0)
        return -1;
    value_set_string(out, digest.text);
    return 0;
}

/* registry.untag(ref): the tag is taken away, its manifest stays. */
int prim_registry_untag(struct call *call, const struct value *args, struct value *out,
                        struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_remote struct remote *remote = remote_at(call, args, "ref", &reference, err);

    (void)out;
    if (!remote)
        return -1;
    if (!reference.tag || reference.digest)
        return error_set(err, ERR_USAGE, "registry.untag needs a tag: %s",
                         value_get_string(args, "ref", ""));
    return remote_untag(remote, reference.name, reference.tag, err);
}

/* registry.delete_blob(ref): the blob that ref names by its digest is taken from the repository. */
int prim_registry_delete_blob(struct call *call, const struct value *args, struct value *out,
                              struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_remote struct remote *remote = remote_at(call, args, "ref", &reference, err);

    (void)out;
    if (!remote)
        return -1;
    if (!reference.digest)
        return error_set(err, ERR_USAGE, "registry.delete_blob needs a digest: %s",
                         value_get_string(args, "ref", ""));
    return remote_delete_blob(remote, reference.name, reference.digest, err);
}

/* ---- artifacts ---- */

static bool media_type_valid(const char *type)
{
    return strchr(type, '/') && !strpbrk(type, " \t\r\n;,");
}

/* Files of a call -> the store; their descriptors. */
static int take_files(struct call *call, struct store *store, const struct value *files,
                      struct value *layers, struct error *err)
{
    value_set_array(layers);
    if (value_count(files) > FILES_MAX)
        return error_set(err, ERR_TOO_LARGE, "%zu files, the limit is %d", value_count(files),
                         FILES_MAX);
    for (size_t i = 0; i < value_count(files); i++) {
        const struct value *file = value_at(files, i);
        const char *path = value_get_string(file, "path", ""), *slash = strrchr(path, '/');
        const char *title = value_get_string(file, "name", slash ? slash + 1 : path);
        const char *type = value_get_string(file, "type", "application/vnd.oci.image.layer.v1.tar");
        if (!artifact_title_valid(title) || !media_type_valid(type))
            return error_set(err, ERR_USAGE, "files[%zu]: '%.100s' is no %s", i + 1,
                             media_type_valid(type) ? title : type,
                             media_type_valid(type) ? "name of a file" : "media type");
        cleanup_free char *resolved = call_path(call, path, ACCESS_READ, err);
        if (!resolved)
            return -1;
        cleanup_close int fd = call_open(resolved, O_RDONLY, 0, err);
        if (fd < 0 || artifact_add(store, fd, type, title, value_push(layers), err) != 0)
            return -1;
    }
    return 0;
}

/*
 * registry.artifact(ref, type, files, annotations?, subject?) -> { digest, skipped, blobs, sent }
 *
 * Files become an artifact of artifactType `type` under ref (a tag; "" : only by its digest, in the
 * subject's repository). files: array of { path, name?, type? }. subject: an image of the same
 * repository that it refers to.
 */
int prim_registry_artifact(struct call *call, const struct value *args, struct value *out,
                           struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_image_reference struct image_reference about = {0};
    const char *ref = value_get_string(args, "ref", NULL),
               *subject = value_get_string(args, "subject", NULL),
               *type = value_get_string(args, "type", "");
    cleanup_value struct value layers = {0};
    cleanup_value struct value descriptor = {0};
    cleanup_store struct store *store = cache_store(call, err);
    struct push_result result;
    struct digest digest;

    if (!store)
        return -1;
    if (!media_type_valid(type))
        return error_set(err, ERR_USAGE,
                         "'%.100s' is no media type, such as application/vnd.acme.model", type);
    if (!ref && !subject)
        return error_set(err, ERR_USAGE, "registry.artifact needs ref or subject");
    if ((ref && script_reference(call, ref, &reference, err) != 0) ||
        (subject && script_reference(call, subject, &about, err) != 0))
        return -1;
    const struct image_reference *where = ref ? &reference : &about;
    if (ref && (!reference.tag || reference.digest))
        return error_set(err, ERR_USAGE, "registry.artifact needs a tag: %s", ref);
    if (ref && subject &&
        (strcmp(reference.host, about.host) != 0 || strcmp(reference.name, about.name) != 0))
        return error_set(err, ERR_USAGE,
                         "an artifact and its subject are in one repository: %s/%s is not %s/%s",
                         reference.host, reference.name, about.host, about.name);
    cleanup_remote struct remote *remote = remote_new(call, where->host, err);
    if (!remote || take_files(call, store, value_get(args, "files"), &layers, err) != 0)
        return -1;
    if (subject) {
        cleanup_buf struct buf text = BUF_INIT;
        cleanup_free char *media_type = NULL;
        if (remote_manifest(remote, about.name, about.digest ? about.digest : about.tag, &text,
                            &media_type, &digest, err) != 0)
            return -1;
        value_set_map(&descriptor);
        value_put_string(&descriptor, "mediaType", media_type);
        value_put_string(&descriptor, "digest", digest.text);
        value_put_int(&descriptor, "size", (int64_t)text.len);
    }
    if (artifact_write(store, type, &layers, subject ? &descriptor : NULL,
                       value_get(args, "annotations"), &digest, err) != 0 ||
        remote_push(remote, store, digest.text, where->name, ref ? reference.tag : digest.text,
                    NULL, &result, err) != 0)
        return -1;
    value_set_map(out);
    value_put_string(out, "digest", digest.text);
    value_put_bool(out, "skipped", result.skipped);
    value_put_int(out, "blobs", (int64_t)result.blobs);
    value_put_int(out, "sent", (int64_t)result.sent);
    return 0;
}

static int copy_out(struct call *call, struct store *store, const char *digest, const char *path,
                    struct error *err)
{
    cleanup_free char *resolved = call_path(call, path, ACCESS_WRITE, err);
    cleanup_free char *piece = mem_alloc(256u << 10);
    uint64_t size;

    if (!resolved)
        return -1;
    cleanup_free char *folder = mem_strndup(resolved, (size_t)(strrchr(resolved, '/') - resolved));
    if (dir_make(folder, err) < 0)
        return -1;
    cleanup_close int in = store_blob_open(store, digest, &size, err);
    if (in < 0)
        return -1;
    cleanup_close int fd = call_open(resolved, O_WRONLY | O_CREAT | O_TRUNC, 0666, err);
    if (fd < 0)
        return -1;
    for (;;) {
        ssize_t got = read(in, piece, 256u << 10);
        if (got < 0)
            return error_set(err, ERR_IO, "cannot read %s in the build cache", digest);
        if (!got)
            return 0;
        if (fd_write_all(fd, piece, (size_t)got, err) != 0)
            return -1;
    }
}

/* registry.files(ref, to) -> array of { path, type, digest, size }: the files of an artifact come
 * into a folder, each under its title; every digest is checked. */
int prim_registry_files(struct call *call, const struct value *args, struct value *out,
                        struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_remote struct remote *remote =
        store ? remote_at(call, args, "ref", &reference, err) : NULL;
    const char *to = value_get_string(args, "to", "");
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value manifest = {0};
    struct digest digest;

    if (!remote ||
        remote_manifest(remote, reference.name, reference.digest ? reference.digest : reference.tag,
                        &text, NULL, &digest, err) != 0 ||
        oci_manifest_parse(text.data ? text.data : "", text.len, reference.name, &manifest, err) !=
            0)
        return -1;
    if (oci_is_index(&manifest))
        return error_set(err, ERR_INVALID, "%s is an index: an artifact has files",
                         value_get_string(args, "ref", ""));
    const struct value *layers = value_get(&manifest, "layers");
    for (size_t i = 0; i < value_count(layers); i++) {
        const char *title =
            value_get_string(value_get(value_at(layers, i), "annotations"), OCI_TITLE, NULL);
        if (title && !artifact_title_valid(title))
            return error_set(err, ERR_INVALID, "a file of the artifact is called '%.200s'", title);
    }
    value_set_array(out);
    for (size_t i = 0; i < value_count(layers); i++) {
        const struct value *layer = value_at(layers, i);
        const char *title = value_get_string(value_get(layer, "annotations"), OCI_TITLE, NULL);
        if (!title)
            continue;
        cleanup_free char *path = path_join(to, title);
        const char *blob = value_get_string(layer, "digest", "");
        if (remote_fetch(remote, store, reference.name, layer, err) != 0 ||
            copy_out(call, store, blob, path, err) != 0)
            return -1;
        struct value *item = value_push(out);
        value_set_map(item);
        value_put_string(item, "path", path);
        value_put_string(item, "type", value_get_string(layer, "mediaType", ""));
        value_put_string(item, "digest", blob);
        value_put_int(item, "size", value_get_int(layer, "size", 0));
    }
    return 0;
}
