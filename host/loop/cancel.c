#include "loop/cancel.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int cancel_init(struct cancel *cancel)
{
    atomic_init(&cancel->raised, false);
    cancel->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return cancel->fd < 0 ? -1 : 0;
}

void cancel_raise(struct cancel *cancel)
{
    const uint64_t one = 1;
    int saved = errno;

    atomic_store(&cancel->raised, true);
    /* Fails only when the counter is full, and then it is readable already. */
    ssize_t n = write(cancel->fd, &one, sizeof one);
    (void)n;
    errno = saved;
}

void cancel_end(struct cancel *cancel)
{
    if (cancel->fd >= 0)
        close(cancel->fd);
    cancel->fd = -1;
}
