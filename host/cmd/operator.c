#include "cmd/operator.h"

#include <stdlib.h>

int operator_bound(struct operator_options *o, const struct config *config, struct value *bound,
                   bool *has, struct error *err)
{
    struct bound_options options = {.policy_file = o->policy};

    for (int kind = 0; kind < PERM_COUNT; kind++) {
        options.allow[kind] = o->allow[kind].items;
        options.allow_count[kind] = o->allow[kind].count;
        options.deny[kind] = o->deny[kind].items;
        options.deny_count[kind] = o->deny[kind].count;
    }
    int rc = bound_build(config, &options, bound, has, err);
    for (int kind = 0; kind < PERM_COUNT; kind++) {
        free((void *)o->allow[kind].items);
        free((void *)o->deny[kind].items);
        o->allow[kind] = o->deny[kind] = (struct option_list){0};
    }
    return rc;
}
