/* Script memory: a hard budget, beyond which allocations fail and Lua raises "not
 * enough memory". */
#include <stdlib.h>

#include "vm/state.h"

void *budget_alloc(void *ctx, void *block, size_t old_size, size_t new_size)
{
    struct budget *budget = ctx;
    size_t held = block ? old_size : 0; /* without a block old_size is the kind of object */

    if (new_size == 0) {
        free(block);
        budget->used -= held;
        return NULL;
    }
    if (new_size > held &&
        new_size - held >
            budget->limit - (budget->used < budget->limit ? budget->used : budget->limit))
        return NULL;
    void *grown = realloc(block, new_size);
    if (!grown)
        return NULL;
    budget->used = budget->used - held + new_size;
    if (budget->used > budget->peak)
        budget->peak = budget->used;
    return grown;
}
