#include "base/strings.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void strings_add(struct strings *list, char *owned)
{
    list->items = mem_array(list->items, list->count + 2, sizeof *list->items);
    list->items[list->count++] = owned;
    list->items[list->count] = NULL;
}

void strings_free(struct strings *list)
{
    for (size_t i = 0; i < list->count; i++) {
        explicit_bzero(list->items[i], strlen(list->items[i]));
        free(list->items[i]);
    }
    free(list->items);
    *list = (struct strings){0};
}
