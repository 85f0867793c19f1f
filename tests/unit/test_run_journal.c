/* The journal: torn lines, locks, ids, folders; what a resumed run reads out of it. */
#include "check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/journal.h"
#include "run/tally.h"

static char folder[] = "/tmp/mlhost-journal-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    memcpy(folder + sizeof folder - 7, "XXXXXX",
           6); /* as mkdtemp wants it, whenever it is called again */
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    struct error err = {0};
    (void)state;
    return dir_remove(folder, &err);
}

static void put(struct journal *journal, const char *json, bool sync)
{
    struct value event = {0};
    struct error err = {0};

    assert_int_equal(value_from_json(json, strlen(json), "event", NULL, &event, &err), 0);
    assert_int_equal(journal_write(journal, &event, sync, &err), 0);
    value_free(&event);
}

static void feed(void *ctx, const struct value *event)
{
    tally_event(ctx, event);
}

static void append_raw(const char *text)
{
    cleanup_free char *path = path_join(folder, "journal.jsonl");
    FILE *file = fopen(path, "a");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void what_was_written_is_read_and_a_torn_line_is_cut(void **state)
{
    (void)state;
    struct journal journal = JOURNAL_INIT;
    struct error err = {0};
    struct tally tally;

    assert_int_equal(journal_open(&journal, folder, &err), 0);
    put(&journal, "{\"t\":\"run_start\",\"run\":\"r\",\"cells\":[\"a\",\"b\"]}", false);
    put(&journal, "{\"t\":\"stage_start\",\"stage\":\"a\",\"attempt\":1}", false);
    put(&journal, "{\"t\":\"effect\",\"stage\":\"b\",\"key\":\"upload\",\"value\":{\"id\":7}}",
        true);
    put(&journal, "{\"t\":\"stage_end\",\"stage\":\"a\",\"status\":\"ok\",\"output\":{\"n\":1}}",
        true);
    assert_int_equal(journal.seq, 4);
    journal_close(&journal);
    append_raw("{\"t\":\"stage_end\",\"stage\":\"b\",\"sta");

    for (int round = 0; round < 2; round++) {
        tally_init(&tally);
        assert_int_equal(journal_read(folder, feed, &tally, &err), 0);
        assert_int_equal(tally.count, 2);
        assert_int_equal(tally.cells[0].status, CELL_OK);
        assert_int_equal(value_get_int(&tally.cells[0].output, "n", 0), 1);
        assert_int_equal(tally.cells[1].status, CELL_WAITING);
        assert_int_equal(value_get_int(value_get(&tally.cells[1].effects, "upload"), "id", 0), 7);
        tally_free(&tally);
        /* opened again, the torn line is gone and the next one is whole */
        assert_int_equal(journal_open(&journal, folder, &err), 0);
        journal.seq = 4;
        if (round == 0)
            put(&journal, "{\"t\":\"stage_start\",\"stage\":\"a\"}", false);
        journal_close(&journal);
        if (round == 0) {
            tally_init(&tally);
            assert_int_equal(journal_read(folder, feed, &tally, &err), 0);
            assert_int_equal(tally.cells[0].status, CELL_RUNNING);
            tally_free(&tally);
            cleanup_free char *path = path_join(folder, "journal.jsonl");
            struct stat status;
            assert_int_equal(stat(path, &status), 0);
            assert_int_equal(truncate(path, status.st_size - 3), 0);
        }
    }
}

static void garbage_in_the_middle_is_named(void **state)
{
    (void)state;
    struct error err = {0};
    struct tally tally;

    append_raw("{\"t\":\"run_start\",\"cells\":[]}\nnot json\n{\"t\":\"run_end\"}\n");
    tally_init(&tally);
    assert_int_equal(journal_read(folder, feed, &tally, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.message, "journal.jsonl:2: not an event"));
    tally_free(&tally);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Whatever is cut, flipped, doubled or taken away: reading ends, what was read can be counted, and
 * what is written afterwards is read again where nothing before it was damaged. */
static void no_damage_is_too_much(void **state)
{
    (void)state;
    static const char *const events[] = {
        "{\"t\":\"run_start\",\"run\":\"r\",\"cells\":[\"a\",\"b[x=1]\"],\"params\":{\"n\":1}}",
        "{\"t\":\"stage_start\",\"stage\":\"a\",\"attempt\":1}",
        "{\"t\":\"effect\",\"stage\":\"a\",\"key\":\"k\",\"value\":[1,{\"x\":null}]}",
        "{\"t\":\"stage_retry\",\"stage\":\"a\",\"attempt\":1,\"delay_ms\":5,\"error\":{"
        "\"message\":\"m\"}}",
        "{\"t\":\"stage_result\",\"stage\":\"a\",\"status\":\"ok\",\"output\":{\"n\":7}}",
        "{\"t\":\"issue\",\"stage\":\"a\",\"level\":\"error\",\"message\":\"\\u00e9\"}",
        "{\"t\":\"report\",\"kind\":\"link\",\"url\":\"http://h/\",\"stage\":\"a\"}",
        "{\"t\":\"stage_end\",\"stage\":\"a\",\"status\":\"ok\",\"duration_ms\":3,\"output\":{"
        "\"n\":7}}",
        "{\"t\":\"stage_end\",\"stage\":\"b[x=1]\",\"status\":\"failed\",\"error\":{\"code\":"
        "\"failed\"}}",
        "{\"t\":\"run_end\",\"status\":\"failed\",\"exit\":1,\"duration_ms\":9}"};
    cleanup_free char *path = path_join(folder, "journal.jsonl");
    cleanup_buf struct buf whole = BUF_INIT;
    struct journal journal = JOURNAL_INIT;
    struct error err = {0};
    uint64_t random = 88172645463325252u;
    int damaged = 0;

    assert_int_equal(journal_open(&journal, folder, &err), 0);
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        put(&journal, events[i], false);
    journal_close(&journal);
    assert_int_equal(file_read(AT_FDCWD, path, 1 << 20, &whole, &err), 0);
    for (int round = 0; round < 3000; round++) {
        cleanup_buf struct buf text = BUF_INIT, out = BUF_INIT;
        buf_append(&text, whole.data, whole.len);
        for (uint64_t n = next_random(&random) % 3 + 1; n > 0 && text.len > 1; n--) {
            size_t at = next_random(&random) % text.len;
            size_t len = next_random(&random) % (text.len - at);
            switch (next_random(&random) % 4) {
            case 0:
                text.len = at;
                break;
            case 1:
                text.data[at] = (char)(text.data[at] ^ (char)(1 << next_random(&random) % 8));
                break;
            case 2: /* a piece twice */
                buf_append(&out, text.data + at, len);
                buf_append(&text, out.data ? out.data : "", out.len);
                buf_clear(&out);
                break;
            default: /* a piece is missing */
                memmove(text.data + at, text.data + at + len, text.len - at - len);
                text.len -= len;
            }
        }
        assert_int_equal(file_write(AT_FDCWD, path, text.data, text.len, false, &err), 0);
        struct tally tally;
        tally_init(&tally);
        int rc = journal_read(folder, feed, &tally, &err);
        damaged += rc < 0;
        if (rc < 0 && (err.code != ERR_INVALID || !strstr(err.message, "journal.jsonl:")))
            fail_msg("%s", err.message);
        tally_summary(&tally, "report.md", true, &out);
        tally_free(&tally);
        assert_int_equal(journal_open(&journal, folder, &err), 0);
        put(&journal, "{\"t\":\"log\",\"seq\":0}", false);
        journal_close(&journal);
    }
    assert_true(damaged > 1000 && damaged < 3000);
}

static void two_hosts_cannot_have_one_run(void **state)
{
    (void)state;
    int mine = -1, other = -1;
    struct error err = {0};
    cleanup_free char *process = mem_printf("process %ld on ", (long)getpid());
    cleanup_free char *hint = mem_printf("kill %ld", (long)getpid());

    assert_false(run_locked(folder));
    assert_int_equal(run_lock(folder, &mine, &err), 0);
    assert_true(mine >= 64 && fcntl(mine, F_GETFD) == FD_CLOEXEC);
    assert_true(run_locked(folder));
    assert_int_equal(run_lock(folder, &other, &err), -1);
    assert_int_equal(err.code, ERR_CONFLICT);
    assert_non_null(strstr(err.message, process));
    assert_non_null(strstr(err.hint, hint));
    close(mine);
    assert_false(run_locked(folder));
    assert_int_equal(run_lock(folder, &other, &err), 0);
    close(other);
}

/* A host that is gone, and a process of its run that is not, for a while. */
static void what_a_killed_host_left_is_waited_for(void **state)
{
    (void)state;
    int pipes[2], fd = -1;
    char byte = 0;
    struct error err = {0};

    assert_int_equal(pipe(pipes), 0);
    pid_t host = fork();
    if (host == 0) {
        int held = -1;
        struct timespec pause = {.tv_nsec = 300000000};
        if (run_lock(folder, &held, &err) < 0)
            _exit(1);
        if (fork() == 0) { /* a broker */
            (void)!write(pipes[1], "x", 1);
            nanosleep(&pause, NULL);
            close(pipes[1]);
            _exit(0);
        }
        _exit(0);
    }
    close(pipes[1]);
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    assert_int_equal(waitpid(host, NULL, 0), host);
    assert_true(run_locked(folder));
    assert_int_equal(run_lock(folder, &fd, &err), 0);
    assert_int_equal(read(pipes[0], &byte, 1), 0); /* the broker had ended */
    close(pipes[0]);
    close(fd);
}

static void ids_sort_by_time_and_are_found_by_their_beginning(void **state)
{
    (void)state;
    struct config config = {.state = folder};
    struct error err = {0};
    char *first = NULL, *second = NULL, *dir = NULL, *full = NULL;
    struct value list = {0};

    assert_int_equal(run_create(&config, &first, &dir, &err), 0);
    free(dir);
    usleep(2000);
    assert_int_equal(run_create(&config, &second, &dir, &err), 0);
    free(dir);
    assert_true(strcmp(first, second) < 0);
    run_list(&config, &list);
    assert_int_equal(value_count(&list), 2);
    assert_string_equal(value_text(value_at(&list, 0), ""), second);
    second[strlen(second) - 1] = '\0';
    dir = run_find(&config, second, &full, &err);
    assert_non_null(dir);
    assert_int_equal(strlen(full), strlen(second) + 1);
    assert_null(run_find(&config, "2", NULL, &err));
    assert_non_null(strstr(err.message, "several runs begin"));
    assert_null(run_find(&config, "1999", NULL, &err));
    assert_int_equal(err.code, ERR_USAGE);
    value_free(&list);
    free(first);
    free(second);
    free(full);
    free(dir);
}

/* The clock was set back since the newest run; what is no id is not looked at. */
static void ids_never_go_back(void **state)
{
    (void)state;
    struct config config = {.state = folder};
    struct error err = {0};
    char *id = NULL, *dir = NULL;
    static const char *const there[] = {"/runs", "/runs/29991231-235959-999abc",
                                        "/runs/99999999-999999-99999", "/runs/2-odd"};

    for (size_t i = 0; i < 4; i++) {
        cleanup_free char *path = mem_printf("%s%s", folder, there[i]);
        assert_int_equal(mkdir(path, 0777), 0);
    }
    for (int i = 0; i < 3; i++) {
        cleanup_free char *wanted = mem_printf("30000101-000000-00%d", i);
        assert_int_equal(run_create(&config, &id, &dir, &err), 0);
        assert_memory_equal(id, wanted, strlen(wanted));
        free(id);
        free(dir);
    }
}

static void folders_of_cells_stay_below_their_run(void **state)
{
    (void)state;
    static const char *const plain[] = {"train", "build_images[component=register-mlflow]",
                                        "t[os=x,py=3.10]"};
    static const char *const odd[] = {"..",     "a[dir=../../etc]", "a[x=/]",
                                      "a[x=?]", "a[x=\xc3\xa9]",    ".hidden"};
    struct buf seen[6] = {BUF_INIT};

    for (size_t i = 0; i < 3; i++) {
        cleanup_buf struct buf out = BUF_INIT;
        cell_folder(plain[i], &out);
        assert_string_equal(out.data, plain[i]);
    }
    for (size_t i = 0; i < 6; i++) {
        cell_folder(odd[i], &seen[i]);
        assert_null(strchr(seen[i].data, '/'));
        assert_true(seen[i].data[0] != '.');
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(seen[i].data, seen[k].data);
    }
    for (size_t i = 0; i < 6; i++)
        buf_free(&seen[i]);
}

int main(void)
{
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(what_was_written_is_read_and_a_torn_line_is_cut),
        WITH_FOLDER(garbage_in_the_middle_is_named),
        WITH_FOLDER(no_damage_is_too_much),
        WITH_FOLDER(two_hosts_cannot_have_one_run),
        WITH_FOLDER(what_a_killed_host_left_is_waited_for),
        WITH_FOLDER(ids_sort_by_time_and_are_found_by_their_beginning),
        WITH_FOLDER(ids_never_go_back),
        cmocka_unit_test(folders_of_cells_stay_below_their_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
