/*
 * Files that a stage reports: JUnit results, summaries. The supervisor merges copies of them, made
 * here: with the script's permissions, masked, and out of the reach of what the stage started, so
 * that what is read at the end of the run is what was checked.
 */
#include <fcntl.h>
#include <string.h>

#include "base/mem.h"
#include "broker/internal.h"

#define REPORT_MAX   (16u << 20)
#define REPORTS_MOST 1000

/* <stage>/reports/<a number of the path>: the same file reported twice is one copy. */
static char *copy_path(const struct broker *broker, const char *path)
{
    uint64_t number = 14695981039346656037u;
    const char *slash = strrchr(broker->spec->out_dir, '/');

    for (const char *c = path; *c; c++)
        number = (number ^ (unsigned char)*c) * 1099511628211u;
    return mem_printf("%.*s/reports/%016llx", (int)(slash - broker->spec->out_dir),
                      broker->spec->out_dir, (unsigned long long)number);
}

static int keep(struct broker *broker, const char *path, const char *copy, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT, masked = BUF_INIT;
    cleanup_free char *folder = mem_strndup(copy, (size_t)(strrchr(copy, '/') - copy));

    if (call_read(path, REPORT_MAX, &text, err) < 0 || dir_make(folder, err) < 0)
        return -1;
    mask_text(broker->masker, text.data ? text.data : "", text.len, &masked);
    return file_write(AT_FDCWD, copy, masked.data ? masked.data : "", masked.len, false, err);
}

void reports_add(struct broker *broker, struct value *event)
{
    const char *path = value_get_string(event, "path", NULL);
    struct error unused = {0};

    if (!path || !broker->spec->out_dir || value_count(&broker->reports) >= REPORTS_MOST)
        return;
    cleanup_free char *copy = copy_path(broker, path);
    if (broker->reports.kind != VALUE_MAP)
        value_set_map(&broker->reports);
    value_put_string(&broker->reports, path, copy);
    /* It may not be there yet; and when it is, the stage may be killed before its end. */
    (void)keep(broker, path, copy, &unused);
    value_put_string(event, "copy", copy);
}

void reports_keep(struct broker *broker)
{
    for (size_t i = 0; i < value_count(&broker->reports); i++) {
        const struct value_pair *pair = &broker->reports.as.map.pairs[i];
        struct call call = {.broker = broker};
        struct error err = {0};
        /* As it was allowed when it was reported: without links on the way. */
        if (keep(broker, pair->key, pair->value.as.string.data, &err) < 0)
            call_log(&call, "warning", "not in the run's report: %s", err.message);
    }
}
