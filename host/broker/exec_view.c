#include "broker/exec_view.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "broker/internal.h"

#define INPUTS_MAX  256 /* mounts of single stages' outputs; of more, all stages are shown */
#define EMPTY_SIZE  (64u << 10)
#define SOCKETS_MAX 256

static void add(struct exec_view *view, enum mount_kind kind, const char *source,
                const char *target)
{
    if ((view->count & (view->count - 1)) == 0)
        view->mounts =
            mem_array(view->mounts, view->count ? 2 * view->count : 1, sizeof *view->mounts);
    view->mounts[view->count++] = (struct sandbox_mount){
        .kind = kind, .source = source, .target = target, .size = EMPTY_SIZE};
}

static bool is_folder(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static void hide(struct exec_view *view, const char *path)
{
    if (is_folder(path))
        add(view, MOUNT_TMPFS, NULL, path);
    else if (access(path, F_OK) == 0)
        add(view, MOUNT_BIND_RO, "/dev/null", path);
}

static void fix(struct exec_view *view, const char *path)
{
    if (access(path, F_OK) == 0)
        add(view, MOUNT_BIND_RO, path, path);
}

/* Of another run, which may end meanwhile. */
static void hide_until_gone(struct exec_view *view, const char *path)
{
    size_t before = view->count;

    hide(view, path);
    if (view->count > before)
        view->mounts[before].may_go = true;
}

/* The sockets of embedded services and daemons, which a command with network could connect to. */
static void hide_sockets(const char *one, struct exec_view *view)
{
    if (!one)
        return;
    cleanup_free char *pattern =
        mem_printf("%.*s/mlhost-*.sock", (int)(strrchr(one, '/') - one), one);
    view->globbed = glob(pattern, GLOB_NOSORT, NULL, &view->sockets) == 0;
    for (size_t i = 0; view->globbed && i < view->sockets.gl_pathc && i < SOCKETS_MAX; i++)
        hide_until_gone(view, view->sockets.gl_pathv[i]);
}

static void show_outputs(struct call *call, struct exec_view *view)
{
    const struct broker_spec *spec = call->broker->spec;

    for (size_t i = 0; i < value_count(&spec->inputs) && i < INPUTS_MAX; i++)
        fix(view, value_text(value_at(&spec->inputs, i), ""));
    const char *own = call_out_dir(call);
    if (own && access(own, F_OK) == 0)
        add(view, MOUNT_BIND_RW, own, own);
}

void exec_view_make(struct call *call, struct exec_view *view)
{
    const struct policy *policy = call->broker->policy;
    const struct value *fixed[] = {policy_protected(policy), policy_denied(policy, PERM_WRITE)};
    const struct value *hidden = policy_denied(policy, PERM_READ);

    for (size_t list = 0; list < 2; list++) {
        for (size_t i = 0; i < value_count(fixed[list]); i++)
            fix(view, value_text(value_at(fixed[list], i), ""));
    }
    if (is_folder(call_state_dir(call))) {
        hide(view, call_state_dir(call));
        show_outputs(call, view);
    }
    hide_sockets(call->broker->spec->local_socket, view);
    for (size_t i = 0; i < value_count(hidden); i++)
        hide(view, value_text(value_at(hidden, i), ""));
}

void exec_view_free(struct exec_view *view)
{
    free(view->mounts);
    if (view->globbed)
        globfree(&view->sockets);
}
