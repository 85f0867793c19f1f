/*
 * The tape of a stage, as `mlhost replay` and `--resume` read it from a run's folder: torn, of
 * another program, changed by somebody. What is read hangs together, and a reference names a file
 * among the blobs or is none.
 */
#include "fuzz.h"

#include "broker/tape.h"
#include "folder.h"

static void texts(const char *blobs, const struct value *v)
{
    cleanup_value struct value with = {0};
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_buf struct buf before = BUF_INIT;
    struct error err = {0};

    value_copy(&with, v);
    int status = tape_blobs_in(blobs, &with, &err);
    check_result(status, &err);
    value_encode(&with, &text);
    value_encode(v, &before);
    check(!has_bytes(&text, "outside of blobs", 16) || has_bytes(&before, "outside of blobs", 16));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    cleanup_free char *path = path_join(fuzz_folder(), "tape");
    cleanup_free char *blobs = path_join(fuzz_folder(), "blobs");
    struct tape tape;
    struct error err = {0};
    size_t calls = 0;

    if (!ready) {
        check(dir_make(blobs, &err) == 0);
        fuzz_file("secret", "outside of blobs", 16);
        fuzz_file("blobs/0000000000000000000000000000000000000000000000000000000000000000", "text",
                  4);
        ready = true;
    }
    fuzz_file("tape", data, size);
    int status = tape_load(path, blobs, &tape, &err);
    check_result(status, &err);
    if (status < 0)
        return 0;
    check(value_get_int(&tape.head, "version", 0) == TAPE_VERSION);
    for (size_t i = 0; i < tape.count; i++) {
        const struct tape_entry *entry = &tape.items[i];
        check(entry->frame.kind == VALUE_MAP);
        if (entry->kind == TAPE_CALL)
            check(entry->call == calls++);
        if (entry->kind == TAPE_REPLY)
            check(entry->call < calls);
        texts(blobs, &entry->frame);
    }
    check(calls == tape.calls);
    tape_free(&tape);
    return 0;
}
