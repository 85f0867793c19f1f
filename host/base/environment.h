/* Variables of the process's environment, as build agents leave them. */
#ifndef MLHOST_BASE_ENVIRONMENT_H
#define MLHOST_BASE_ENVIRONMENT_H

#include <stdbool.h>

/*
 * The text of a variable, or NULL when it is not set. Azure DevOps leaves "$(NAME)" as it stands
 * where a pipeline maps a variable that nobody has defined: that counts as not set, and *unmapped
 * (may be NULL) says so.
 */
const char *environment_get(const char *name, bool *unmapped);

/* Wipes what is not of the machine (paths, language, proxies, the program's own settings): the
 * credentials of a job among it. For processes that serve and ask nobody for anything. */
void environment_forget(void);

#endif
