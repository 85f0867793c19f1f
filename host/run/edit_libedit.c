#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/edit.h"

#define HISTORY_LINES 2000

struct edit {
    EditLine *line;
    History *history;
    char *file;
    const char *prompt;
    edit_complete_fn *complete;
    void *ctx;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signo)
{
    (void)signo;
    interrupted = 1;
}

static char *prompt_of(EditLine *line)
{
    struct edit *edit;

    el_get(line, EL_CLIENTDATA, &edit);
    return (char *)edit->prompt;
}

struct words {
    char **items;
    size_t count;
};

static void add_word(void *list, const char *word)
{
    struct words *words = list;

    words->items = mem_array(words->items, words->count + 1, sizeof *words->items);
    words->items[words->count++] = mem_strdup(word);
}

/* Bytes that all words begin with. */
static size_t common(const struct words *words)
{
    size_t len = strlen(words->items[0]);

    for (size_t i = 1; i < words->count; i++) {
        size_t same = 0;
        while (same < len && words->items[i][same] == words->items[0][same])
            same++;
        len = same;
    }
    return len;
}

static size_t word_length(const char *before)
{
    size_t len = strlen(before), start = len;

    if (before[0] == ':') { /* a command: its words are names of stages and the like */
        const char *blank = strrchr(before, ' ');
        return blank ? strlen(blank + 1) : len;
    }
    while (start && (strchr("_.:", before[start - 1]) ||
                     (before[start - 1] >= '0' && before[start - 1] <= '9') ||
                     (before[start - 1] >= 'a' && before[start - 1] <= 'z') ||
                     (before[start - 1] >= 'A' && before[start - 1] <= 'Z')))
        start--;
    return len - start;
}

static unsigned char on_tab(EditLine *line, int key)
{
    struct edit *edit;
    const LineInfo *info = el_line(line);
    struct words words = {0};
    unsigned char result = CC_ERROR;

    (void)key;
    el_get(line, EL_CLIENTDATA, &edit);
    cleanup_free char *before = mem_strndup(info->buffer, (size_t)(info->cursor - info->buffer));
    size_t typed = word_length(before);
    if (before[strspn(before, " \t")] == '\0') {
        el_insertstr(line, "  ");
        return CC_REFRESH;
    }
    edit->complete(edit->ctx, before, add_word, &words);
    if (words.count) {
        size_t len = common(&words);
        if (len > typed) {
            cleanup_free char *rest = mem_strndup(words.items[0] + typed, len - typed);
            el_insertstr(line, rest);
            result = CC_REFRESH;
        } else if (words.count > 1) {
            putchar('\n');
            for (size_t i = 0; i < words.count && i < 200; i++)
                printf("%s%s", words.items[i], i + 1 < words.count ? "  " : "\n");
            fflush(stdout);
            result = CC_REDISPLAY;
        }
    }
    for (size_t i = 0; i < words.count; i++)
        free(words.items[i]);
    free(words.items);
    return result;
}

/* Made with mode 0600 before libedit writes it: what is typed can be private. */
static bool usable(const char *path)
{
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;

    if (fd < 0)
        return false;
    fchmod(fd, 0600);
    close(fd);
    return true;
}

struct edit *mlh_edit_open(const char *history_file, edit_complete_fn *complete, void *ctx)
{
    struct edit *edit = mem_alloc(sizeof *edit);
    HistEvent event;

    setlocale(LC_CTYPE, "");
    edit->complete = complete;
    edit->ctx = ctx;
    edit->line = el_init("mlhost", stdin, stdout, stderr);
    edit->history = history_init();
    if (!edit->line || !edit->history) {
        mlh_edit_close(edit);
        return NULL;
    }
    history(edit->history, &event, H_SETSIZE, HISTORY_LINES);
    history(edit->history, &event, H_SETUNIQUE, 1);
    if (usable(history_file)) {
        edit->file = mem_strdup(history_file);
        history(edit->history, &event, H_LOAD, edit->file);
    }
    el_set(edit->line, EL_CLIENTDATA, edit);
    el_set(edit->line, EL_PROMPT, prompt_of);
    el_set(edit->line, EL_EDITOR, "emacs");
    el_set(edit->line, EL_HIST, history, edit->history);
    el_set(edit->line, EL_ADDFN, "complete", "complete the name before the cursor", on_tab);
    el_set(edit->line, EL_BIND, "^I", "complete", NULL);
    el_set(edit->line, EL_BIND, "^R", "em-inc-search-prev", NULL);
    return edit;
}

char *mlh_edit_line(struct edit *edit, const char *prompt)
{
    struct sigaction action = {.sa_handler = on_interrupt}, before;
    int count = 0;

    edit->prompt = prompt;
    interrupted = 0;
    sigaction(SIGINT, &action, &before); /* without SA_RESTART: the read ends */
    const char *text = el_gets(edit->line, &count);
    sigaction(SIGINT, &before, NULL);
    if (interrupted) {
        el_reset(edit->line);
        putchar('\n');
        fflush(stdout);
        return mem_strdup("\003");
    }
    if (!text || count <= 0)
        return NULL;
    return mem_strndup(text, strcspn(text, "\n"));
}

void mlh_edit_remember(struct edit *edit, const char *text)
{
    HistEvent event;

    history(edit->history, &event, H_ENTER, text);
    if (edit->file)
        history(edit->history, &event, H_SAVE, edit->file);
}

void mlh_edit_close(struct edit *edit)
{
    if (edit->history)
        history_end(edit->history);
    if (edit->line)
        el_end(edit->line);
    free(edit->file);
    free(edit);
}
