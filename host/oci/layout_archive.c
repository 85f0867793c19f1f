/* OCI layouts in a tar archive: what skopeo calls oci-archive. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/layout_tar.h"
#include "oci/manifest.h"

struct taking {
    const struct layout *layout;
    struct buf index;
};

static int to_buffer(void *ctx, const void *data, size_t len, struct error *err)
{
    (void)err;
    buf_append(ctx, data, len);
    return 0;
}

static int to_upload(void *ctx, const void *data, size_t len, struct error *err)
{
    return store_blob_write(ctx, data, len, err);
}

static int take_entry(void *ctx, struct archive *archive, const struct layout_entry_info *entry,
                      struct error *err)
{
    static const char blobs[] = "blobs/sha256/";
    struct taking *taking = ctx;
    const struct layout *layout = taking->layout;

    if (!entry->file)
        return 0;
    if (strcmp(entry->path, "index.json") == 0) {
        buf_clear(&taking->index);
        return layout_tar_data(layout, archive, STORE_MANIFEST_LIMIT, to_buffer, &taking->index,
                               err);
    }
    if (strncmp(entry->path, blobs, strlen(blobs)) != 0)
        return 0;
    cleanup_free char *digest = mem_printf("sha256:%s", entry->path + strlen(blobs));
    if (!digest_valid(digest) || store_blob_exists(layout->store, digest, NULL))
        return 0;
    struct upload *upload = store_blob_begin(layout->store, err);
    if (!upload)
        return -1;
    if (layout_tar_data(layout, archive, UINT64_MAX, to_upload, upload, err) != 0) {
        store_blob_abort(upload);
        return -1;
    }
    return store_blob_commit(upload, digest, NULL, err);
}

static int resolve(const struct taking *taking, struct digest *digest, struct error *err)
{
    cleanup_value struct value index = {0}, all = {0};

    if (!taking->index.len)
        return error_set(err, ERR_INVALID, "there is no index.json in it");
    if (value_from_json(taking->index.data, taking->index.len, "index.json", NULL, &index, err) !=
        0)
        return -1;
    const struct value *picked = layout_pick(taking->layout, &index, err);
    const char *named = picked ? value_get_string(picked, "digest", "") : "";
    if (!picked)
        return -1;
    if (!digest_valid(named))
        return error_set(err, ERR_INVALID, "index.json: '%.100s' is no digest", named);
    memcpy(digest->text, named, strlen(named) + 1);
    return layout_closure(taking->layout->store, named, &all, err);
}

int layout_read_archive(const struct layout *layout, struct digest *digest, struct error *err)
{
    struct taking taking = {.layout = layout, .index = BUF_INIT};
    int status = layout_tar_each(layout, take_entry, &taking, err);

    if (status == 0)
        status = resolve(&taking, digest, err);
    buf_free(&taking.index);
    return status;
}

static int give_blob(const struct layout *layout, struct archive *archive, const char *digest,
                     struct error *err)
{
    cleanup_free char *path = mem_printf("blobs/sha256/%s", digest + strlen("sha256:"));
    uint64_t size;

    cleanup_close int fd = store_blob_open(layout->store, digest, &size, err);
    return fd < 0 ? -1 : layout_tar_file(layout, archive, path, fd, size, err);
}

int layout_write_archive(const struct layout *layout, const char *digest, struct error *err)
{
    cleanup_value struct value all = {0}, index = {0};
    cleanup_buf struct buf text = BUF_INIT;

    value_set_map(&index);
    value_put_int(&index, "schemaVersion", 2);
    value_put_string(&index, "mediaType", OCI_INDEX);
    struct value *list = value_put(&index, "manifests");
    value_set_array(list);
    if (layout_closure(layout->store, digest, &all, err) != 0 ||
        layout_entry(layout, digest, value_push(list), err) != 0)
        return -1;
    value_to_json(&index, 0, &text);
    struct archive *archive = layout_tar_begin(layout, err);
    if (!archive)
        return -1;
    int status = layout_tar_text(archive, "oci-layout", LAYOUT_MARK, strlen(LAYOUT_MARK), err);
    if (status == 0)
        status = layout_tar_text(archive, "index.json", text.data, text.len, err);
    for (size_t i = 0; status == 0 && i < value_count(&all); i++)
        status = give_blob(layout, archive, all.as.map.pairs[i].key, err);
    return layout_tar_end(archive, status, err);
}
