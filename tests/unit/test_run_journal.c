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
        WITH_FOLDER(two_hosts_cannot_have_one_run),
        WITH_FOLDER(what_a_killed_host_left_is_waited_for),
        WITH_FOLDER(ids_sort_by_time_and_are_found_by_their_beginning),
        cmocka_unit_test(folders_of_cells_stay_below_their_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
