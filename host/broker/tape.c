/* Reading tapes, and the large texts beside them. */
#include "broker/tape.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/mem.h"
#include "base/module.h"

#define REFERENCE "$blob"

static const char *const kinds[] = {"call", "reply", "clock", "stop", "done"};

char *tape_path(const char *folder, const char *mode, int attempt)
{
    return strcmp(mode, "always") == 0 ? mem_printf("%s/tape-always", folder)
                                       : mem_printf("%s/tape-%d", folder, attempt);
}

/* ---- reading ---- */

static int take_head(struct tape *tape, struct value *frame, const char *path, struct error *err)
{
    if (strcmp(value_get_string(frame, "t", ""), "tape") != 0)
        return error_set(err, ERR_INVALID, "%s: not a tape", path);
    if (value_get_int(frame, "version", 0) != TAPE_VERSION) {
        error_set(err, ERR_INVALID, "%s: a tape of version %lld; this mlhost reads version %d",
                  path, (long long)value_get_int(frame, "version", 0), TAPE_VERSION);
        return error_hint(err, "replay it with the mlhost that recorded it (%s)",
                          value_get_string(frame, "program", "unknown"));
    }
    value_move(&tape->head, frame);
    return 0;
}

/* False: no entry of a tape; whoever wrote it, reading ends there. */
static bool take_entry(struct tape *tape, struct value *frame)
{
    struct tape_entry entry = {0};
    const char *t = value_get_string(frame, "t", "");
    size_t kind = 0;

    while (kind < sizeof kinds / sizeof *kinds && strcmp(kinds[kind], t) != 0)
        kind++;
    if (kind == sizeof kinds / sizeof *kinds)
        return false;
    entry.kind = (enum tape_kind)kind;
    if (entry.kind == TAPE_CALL)
        entry.call = tape->calls;
    if (entry.kind == TAPE_REPLY) {
        int64_t call = value_get_int(frame, "call", -1);
        if (call < 0 || (size_t)call >= tape->calls)
            return false;
        entry.call = (size_t)call;
    }
    value_move(&entry.frame, frame);
    if ((tape->count & (tape->count - 1)) == 0)
        tape->items =
            mem_array(tape->items, tape->count ? 2 * tape->count : 1, sizeof *tape->items);
    tape->items[tape->count++] = entry;
    tape->calls += entry.kind == TAPE_CALL;
    return true;
}

/* False at the end, or at what is torn. */
static bool next_frame(const struct buf *bytes, size_t *at, struct value *frame)
{
    size_t left = bytes->len - *at;

    if (left < 4)
        return false;
    const unsigned char *p = (const unsigned char *)bytes->data + *at;
    size_t len = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
    if (len > left - 4)
        return false;
    *at += 4 + len;
    return value_decode(p + 4, len, frame, NULL) == 0;
}

int tape_load(const char *path, const char *blobs, struct tape *out, struct error *err)
{
    cleanup_buf struct buf bytes = BUF_INIT;
    bool going = true;

    *out = (struct tape){0};
    if (file_read(AT_FDCWD, path, TAPE_MAX + FRAME_MAX, &bytes, err) < 0)
        return -1;
    out->blobs = mem_strdup(blobs);
    for (size_t at = 0; going;) {
        cleanup_value struct value frame = {0};
        going = next_frame(&bytes, &at, &frame);
        if (going && out->head.kind == VALUE_NIL) {
            if (take_head(out, &frame, path, err) < 0) {
                tape_free(out);
                return -1;
            }
        } else if (going) {
            going = take_entry(out, &frame);
        }
    }
    if (out->head.kind == VALUE_NIL) {
        tape_free(out);
        return error_set(err, ERR_INVALID, "%s: not a tape", path);
    }
    return 0;
}

void tape_free(struct tape *tape)
{
    value_free(&tape->head);
    for (size_t i = 0; i < tape->count; i++)
        value_free(&tape->items[i].frame);
    free(tape->items);
    free(tape->blobs);
    *tape = (struct tape){0};
}

/* ---- large texts ---- */

typedef void digest_fn(const void *data, size_t len, struct digest *out);

/* OpenSSL is in the io module, which a stage with such texts has mostly loaded already. */
static digest_fn *digester(struct error *err)
{
    void *symbol = module_symbol(MODULE_IO, "digest_bytes", err);
    digest_fn *fn = NULL;

    if (symbol)
        memcpy(&fn, &symbol, sizeof fn);
    return fn;
}

static int text_out(const char *blobs, struct value *v, struct error *err)
{
    digest_fn *digest = digester(err);
    struct digest name;

    if (!digest)
        return -1;
    digest(v->as.string.data, v->as.string.len, &name);
    cleanup_free char *path = path_join(blobs, name.text + strlen("sha256:"));
    if (access(path, F_OK) < 0 &&
        (dir_make(blobs, err) < 0 ||
         file_write(AT_FDCWD, path, v->as.string.data, v->as.string.len, false, err) < 0))
        return -1;
    int64_t size = (int64_t)v->as.string.len;
    value_free(v);
    value_set_map(v);
    value_put_string(v, REFERENCE, name.text);
    value_put_int(v, "size", size);
    return 0;
}

int tape_blobs_out(const char *blobs, struct value *v, struct error *err)
{
    int rc = 0;

    if (v->kind == VALUE_STRING && v->as.string.len >= TAPE_BLOB)
        return text_out(blobs, v, err);
    for (size_t i = 0; rc == 0 && v->kind == VALUE_ARRAY && i < v->as.array.count; i++)
        rc = tape_blobs_out(blobs, &v->as.array.items[i], err);
    for (size_t i = 0; rc == 0 && v->kind == VALUE_MAP && i < v->as.map.count; i++)
        rc = tape_blobs_out(blobs, &v->as.map.pairs[i].value, err);
    return rc;
}

/* A reference is a map that nothing else has the shape of; its name is checked before it becomes a
 * path. */
static const char *reference(const struct value *v)
{
    const char *name =
        v->kind == VALUE_MAP && value_count(v) == 2 ? value_get_string(v, REFERENCE, "") : "";

    if (strncmp(name, "sha256:", 7) != 0 || strlen(name) != 71 ||
        strspn(name + 7, "0123456789abcdef") != 64)
        return NULL;
    return name + 7;
}

int tape_blobs_in(const char *blobs, struct value *v, struct error *err)
{
    const char *name = reference(v);
    int rc = 0;

    if (name) {
        cleanup_buf struct buf text = BUF_INIT;
        cleanup_free char *path = path_join(blobs, name);
        if (file_read(AT_FDCWD, path, FRAME_MAX, &text, err) < 0)
            return error_wrap(err, "a text of the tape");
        value_free(v);
        value_set_bytes(v, text.data ? text.data : "", text.len);
        return 0;
    }
    for (size_t i = 0; rc == 0 && v->kind == VALUE_ARRAY && i < v->as.array.count; i++)
        rc = tape_blobs_in(blobs, &v->as.array.items[i], err);
    for (size_t i = 0; rc == 0 && v->kind == VALUE_MAP && i < v->as.map.count; i++)
        rc = tape_blobs_in(blobs, &v->as.map.pairs[i].value, err);
    return rc;
}
