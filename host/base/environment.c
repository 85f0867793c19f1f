#include "base/environment.h"

#include <stdlib.h>
#include <string.h>

const char *environment_get(const char *name, bool *unmapped)
{
    const char *text = getenv(name);
    size_t len = text ? strlen(text) : 0;
    bool left = len > 3 && text[0] == '$' && text[1] == '(' && strcspn(text, ")") == len - 1;

    if (unmapped)
        *unmapped = left;
    return left ? NULL : text;
}
