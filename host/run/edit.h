/* Line editing, in the private module mlhost-edit.so (libedit). Found by symbol, so the program
 * does without. */
#ifndef MLHOST_RUN_EDIT_H
#define MLHOST_RUN_EDIT_H

#include <stddef.h>

struct edit;
/* What may follow the text before the cursor: calls add(list, word) for each candidate of the last
 * word. */
typedef void edit_complete_fn(void *ctx, const char *before,
                              void (*add)(void *list, const char *word), void *list);

/* history: a file (made with mode 0600), or NULL. NULL when the terminal cannot be used. */
struct edit *mlh_edit_open(const char *history, edit_complete_fn *complete, void *ctx);
/* One line without its newline, allocated. NULL at the end of input; "\003" when Ctrl-C was
 * pressed. */
char *mlh_edit_line(struct edit *edit, const char *prompt);
void mlh_edit_remember(struct edit *edit, const char *text);
void mlh_edit_close(struct edit *edit);

typedef struct edit *edit_open_fn(const char *, edit_complete_fn *, void *);
typedef char *edit_line_fn(struct edit *, const char *);
typedef void edit_remember_fn(struct edit *, const char *);
typedef void edit_close_fn(struct edit *);

#endif
