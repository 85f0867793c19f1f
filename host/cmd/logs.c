/* mlhost logs: what the stages of a run printed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/mem.h"
#include "cmd/cmd.h"
#include "run/journal.h"
#include "run/tally.h"

static void feed(void *ctx, const struct value *event)
{
    tally_event(ctx, event);
}

/* Copies what is there from the descriptor's position on; logs were made harmless when they were
 * written. */
static int copy_rest(int fd, struct error *err)
{
    char piece[16384];
    ssize_t got;

    while ((got = read(fd, piece, sizeof piece)) > 0) {
        if (fd_write_all(STDOUT_FILENO, piece, (size_t)got, err) < 0)
            return -1;
    }
    return got < 0 ? error_errno(err, errno, "reading a log") : 0;
}

/* Waits for the log to grow, by inotify, until the run is over: then its lock is closed. */
static int follow(int fd, const char *dir, const char *log, struct error *err)
{
    cleanup_free char *lock = path_join(dir, "lock");
    cleanup_close int notify = inotify_init1(IN_CLOEXEC);
    char events[4096];

    if (notify < 0 || inotify_add_watch(notify, log, IN_MODIFY) < 0 ||
        (inotify_add_watch(notify, lock, IN_CLOSE_WRITE) < 0 && errno != ENOENT))
        return error_errno(err, errno, "watching %s", log);
    for (;;) {
        bool running = run_locked(dir);
        if (copy_rest(fd, err) < 0)
            return -1;
        if (!running)
            return 0;
        if (read(notify, events, sizeof events) < 0 && errno != EINTR)
            return error_errno(err, errno, "waiting for the log");
    }
}

static int one(const char *dir, const struct tally_cell *cell, bool header, bool following,
               struct error *err)
{
    cleanup_buf struct buf folder = BUF_INIT;

    cell_folder(cell->name, &folder);
    cleanup_free char *path = mem_printf("%s/stages/%s/log.txt", dir, folder.data);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (header) {
        printf("==> %s (%s)\n", cell->name, cell_status_name(cell->status));
        fflush(stdout);
    }
    if (fd < 0)
        return 0; /* it printed nothing */
    return following ? follow(fd, dir, path, err) : copy_rest(fd, err);
}

static int show(const struct config *config, const char *run, const char *stage, bool following,
                struct error *err)
{
    cleanup_tally struct tally tally;
    struct value runs = {0};
    int shown = 0;

    tally_init(&tally);
    run_list(config, &runs);
    const char *newest = value_text(value_at(&runs, 0), NULL);
    cleanup_free char *dir = run || newest ? run_find(config, run ? run : newest, NULL, err) : NULL;
    if (!run && !newest) {
        error_set(err, ERR_USAGE, "there is no run yet");
        error_hint(err, "mlhost run pipelines/ci.lua makes one");
    }
    value_free(&runs);
    if (!dir)
        return -1;
    if (journal_read(dir, feed, &tally, err) < 0) {
        if (err->code != ERR_INVALID)
            return -1;
        fprintf(stderr, "mlhost logs: %s\n", err->message); /* the logs are files of their own */
    }
    for (size_t i = 0; i < tally.count; i++) {
        const char *name = tally.cells[i].name;
        size_t len = stage ? strlen(stage) : 0;
        bool match = !stage || strcmp(stage, name) == 0 ||
                     (strncmp(stage, name, len) == 0 && name[len] == '[');
        if (!match)
            continue;
        shown++;
        if (one(dir, &tally.cells[i], !stage || strcmp(stage, name) != 0, following && stage, err) <
            0)
            return -1;
    }
    if (shown || !stage)
        return 0;
    cleanup_buf struct buf names = BUF_INIT;
    for (size_t i = 0; i < tally.count; i++)
        buf_printf(&names, "%s%s", i ? ", " : "", tally.cells[i].name);
    error_set(err, ERR_USAGE, "run %s has no stage '%s'", tally.run, stage);
    return error_hint(err, "it has: %s", names.data ? names.data : "none");
}

static int run(int argc, char **argv);

const struct command cmd_logs = {
    .name = "logs",
    .summary = "print what the stages of a run printed",
    .help = "usage: mlhost logs [RUN [STAGE]] [--follow]\n\n"
            "Prints the logs of a run's stages (of the newest run without RUN; the beginning of an "
            "id is enough).\n\n"
            "  --follow, -f           with STAGE: go on until the run is over\n\n"
            "example:\n  mlhost logs 20260131-120000-123f3a train --follow\n",
    .run = run,
};

static int run(int argc, char **argv)
{
    bool following = false;
    const struct option_spec options[] = {{"follow,f", OPTION_FLAG, &following}, {0}};
    struct error err = {0};
    struct config config = {0};

    int words = options_parse(&cmd_logs, options, argc, argv);
    if (words < 0)
        return words == -2 ? 0 : 2;
    if (words > 3) {
        error_set(&err, ERR_USAGE, "logs takes a run and a stage");
        return command_fail(&err);
    }
    int rc = config_load(NULL, NULL, &config, &err);
    if (rc == 0)
        rc = show(&config, words > 1 ? argv[1] : NULL, words > 2 ? argv[2] : NULL, following, &err);
    config_free(&config);
    return rc < 0 ? command_fail(&err) : 0;
}
