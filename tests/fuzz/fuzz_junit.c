/*
 * JUnit files of others, which are copied into the run's own. What is taken is well-formed: alone
 * in a root it is taken once more, as it is. The first byte chooses: the reader, or the report of a
 * run whose names and messages are the input.
 */
#include "fuzz.h"

#include "folder.h"
#include "run/report.h"

static void again(const struct buf *suites)
{
    cleanup_buf struct buf whole = BUF_INIT;
    cleanup_buf struct buf back = BUF_INIT;
    struct error err = {0};

    buf_puts(&whole, "<?xml version=\"1.0\"?><testsuites>");
    buf_append(&whole, suites->data, suites->len);
    buf_puts(&whole, "</testsuites>");
    check(junit_suites(whole.data, whole.len, &back, &err) == 0);
    check(back.len == suites->len && memcmp(back.data, suites->data, back.len) == 0);
}

static void reader(const char *text, size_t len)
{
    cleanup_buf struct buf suites = BUF_INIT;
    struct error err = {0};

    int status = junit_suites(text, len, &suites, &err);
    check_result(status, &err);
    if (status < 0)
        check(suites.len == 0 && strncmp(err.message, "line ", 5) == 0);
    else if (suites.len)
        again(&suites);
}

static void of_a_run(char *lines[4])
{
    cleanup_tally struct tally tally;
    cleanup_value struct value event = {0};
    cleanup_value struct value skipped = {0};
    cleanup_buf struct buf xml = BUF_INIT;
    cleanup_buf struct buf suites = BUF_INIT;
    struct error err = {0};

    tally_init(&tally);
    value_put_string(&event, "t", "run_start");
    value_put_string(&event, "pipeline", lines[0]);
    tally_event(&tally, &event);
    value_put_string(&event, "t", "stage_end");
    value_put_string(&event, "stage", lines[1]);
    value_put_string(&event, "status", lines[2]);
    value_put_string(&event, "reason", lines[3]);
    struct value *error = value_put(&event, "error");
    value_set_map(error);
    value_put_string(error, "message", lines[3]);
    value_put_string(error, "traceback", lines[2]);
    tally_event(&tally, &event);
    value_set_array(&skipped);
    report_junit(&tally, &skipped, &xml);
    check(junit_suites(xml.data, xml.len, &suites, &err) == 0 && suites.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *lines[4];

    if (size < 1)
        return 0;
    if (data[0] & 1) {
        cleanup_free char *text = mem_strndup((const char *)data + 1, size - 1);
        cut_lines(text, lines, 4);
        of_a_run(lines);
    } else {
        reader((const char *)data + 1, size - 1);
    }
    return 0;
}
