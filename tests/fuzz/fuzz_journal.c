/*
 * A run's journal, which another process may have torn or changed. Reading never takes a line that
 * is none of whole events; what the tally makes of any events can be shown; opening it again cuts
 * at most its last line, and what is written then is read as it was written.
 */
#include "fuzz.h"

#include <fcntl.h>

#include "folder.h"
#include "run/journal.h"
#include "run/tally.h"

struct seen {
    struct tally tally;
    struct value events;
    int64_t seq; /* of the last one */
};

static void take(void *ctx, const struct value *event)
{
    struct seen *seen = ctx;

    check(event->kind == VALUE_MAP);
    tally_event(&seen->tally, event);
    seen->seq = value_get_int(event, "seq", seen->seq + 1);
    value_copy(value_push(&seen->events), event);
}

static int read_all(struct seen *seen)
{
    struct error err = {0};

    *seen = (struct seen){0};
    value_set_array(&seen->events);
    tally_init(&seen->tally);
    int status = journal_read(fuzz_folder(), take, seen, &err);
    check_result(status, &err);
    return status;
}

static void seen_free(struct seen *seen)
{
    tally_free(&seen->tally);
    value_free(&seen->events);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_buf struct buf shown = BUF_INIT;
    struct seen before, after;
    struct journal journal = {.fd = -1};
    struct error err = {0};

    fuzz_file("journal.jsonl", data, size);
    int status = read_all(&before);
    tally_summary(&before.tally, "report.md", true, &shown);
    for (size_t i = 0; i < before.tally.count; i++)
        tally_tail(&before.tally.cells[i], &shown);

    check(journal_open(&journal, fuzz_folder(), &err) == 0);
    journal.seq = before.seq;
    cleanup_value struct value event = {0};
    value_set_map(&event);
    value_put_string(&event, "t", "log");
    value_set_bytes(value_put(&event, "text"), "a\nb", 3);
    struct value *strange = value_put(&event, "value"); /* of a script: any bytes */
    value_set_map(strange);
    value_set_bytes(value_put_n(strange, (const char *)data, size / 2), data, size);
    check(journal_write(&journal, &event, false, &err) == 0);
    journal_close(&journal);

    check(read_all(&after) == status);
    if (status == 0) { /* one more, the same before it */
        size_t count = value_count(&before.events);
        check(value_count(&after.events) == count + 1);
        check(strcmp(value_get_string(value_at(&after.events, count), "text", ""), "a\nb") == 0);
        after.events.as.array.count = count;
        check(same_value(&before.events, &after.events));
        after.events.as.array.count = count + 1;
    }
    seen_free(&before);
    seen_free(&after);
    return 0;
}
