#include "oci/artifact.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/manifest.h"

#define PIECE     (256u << 10)
#define TITLE_MAX 1024

int artifact_add(struct store *store, int fd, const char *media_type, const char *title,
                 struct value *slot, struct error *err)
{
    cleanup_free char *piece = mem_alloc(PIECE);
    struct upload *upload = store_blob_begin(store, err);
    struct digest digest;

    if (!upload)
        return -1;
    for (;;) {
        ssize_t got = read(fd, piece, PIECE);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            error_errno(err, errno, "cannot read %s", title ? title : "the file");
        if (got < 0 || (got && store_blob_write(upload, piece, (size_t)got, err) != 0)) {
            store_blob_abort(upload);
            return -1;
        }
        if (!got)
            break;
    }
    uint64_t size = store_upload_size(upload);
    if (store_blob_commit(upload, NULL, &digest, err) != 0)
        return -1;
    value_set_map(slot);
    value_put_string(slot, "mediaType", media_type);
    value_put_string(slot, "digest", digest.text);
    value_put_int(slot, "size", (int64_t)size);
    if (title) {
        struct value *annotations = value_put(slot, "annotations");
        value_set_map(annotations);
        value_put_string(annotations, OCI_TITLE, title);
    }
    return 0;
}

static void empty_descriptor(struct value *slot, const struct digest *digest)
{
    value_set_map(slot);
    value_put_string(slot, "mediaType", OCI_EMPTY);
    value_put_string(slot, "digest", digest->text);
    value_put_int(slot, "size", 2);
    value_put_string(slot, "data", "e30=");
}

int artifact_write(struct store *store, const char *type, const struct value *layers,
                   const struct value *subject, const struct value *annotations, struct digest *out,
                   struct error *err)
{
    cleanup_value struct value manifest = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct digest empty;

    if (store_blob_put(store, "{}", 2, &empty, err) != 0)
        return -1;
    value_set_map(&manifest);
    value_put_int(&manifest, "schemaVersion", 2);
    value_put_string(&manifest, "mediaType", OCI_MANIFEST);
    value_put_string(&manifest, "artifactType", type);
    empty_descriptor(value_put(&manifest, "config"), &empty);
    if (value_count(layers)) {
        value_copy(value_put(&manifest, "layers"), layers);
    } else { /* at least one there should be */
        struct value *list = value_put(&manifest, "layers");
        value_set_array(list);
        empty_descriptor(value_push(list), &empty);
    }
    if (subject)
        value_copy(value_put(&manifest, "subject"), subject);
    if (value_count(annotations))
        value_copy(value_put(&manifest, "annotations"), annotations);
    value_to_json(&manifest, 0, &text);
    return store_blob_put(store, text.data, text.len, out, err);
}

bool artifact_title_valid(const char *title)
{
    if (!*title || *title == '/' || strlen(title) > TITLE_MAX)
        return false;
    for (const char *at = title; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f || *at == '\\')
            return false;
    for (const char *at = title;;) {
        size_t len = strcspn(at, "/");
        if (len == 0 || (len == 1 && *at == '.') || (len == 2 && at[0] == '.' && at[1] == '.'))
            return false;
        if (!at[len])
            return true;
        at += len + 1;
    }
}
