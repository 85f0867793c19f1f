#include "oci/build_run_job.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/strings.h"
#include "oci/build_changes.h"
#include "oci/build_run_cache.h"
#include "oci/layer_dirs.h"
#include "oci/scratch_dir.h"
#include "oci/unpack_internal.h"
#include "sandbox/sandbox.h"

#define OUTPUT_KEPT 4096
#define LINES_SHOWN 12
#define SHOWN_MAX   560 /* bytes */

/* What packages do when they are installed: chroot, file capabilities, notes for the auditor. */
#define MORE_CAPABILITIES (1u << CAP_SYS_CHROOT | 1u << CAP_SETFCAP | 1u << CAP_AUDIT_WRITE)

/* What stands behind one mount of the sandbox, and outlives it. */
struct part {
    struct strings lowers;
    char *upper, *work;
    struct run_cache cache;
};

struct job {
    const struct run_setting *setting;
    const struct value *spec;
    char *root; /* of the layers' folders */
    struct scratch_dir scratch;
    char *tree; /* where no overlay can be had: a copy of all layers, the command's root */
    struct before *before; /* what was in it */
    struct strings argv, env;
    gid_t *groups;
    struct part *parts; /* the root's, then one for each mount of the spec */
    size_t part_count;
    struct sandbox_mount *mounts;
    size_t mount_count;
};

static void job_end(struct job *job)
{
    for (size_t i = 0; i < job->part_count; i++) {
        strings_free(&job->parts[i].lowers);
        free(job->parts[i].upper);
        free(job->parts[i].work);
        run_cache_end(&job->parts[i].cache);
    }
    free(job->parts);
    free(job->mounts);
    free(job->groups);
    strings_free(&job->argv);
    strings_free(&job->env);
    scratch_dir_end(&job->scratch);
    before_free(job->before);
    free(job->tree);
    free(job->root);
}

static void take_strings(const struct value *list, struct strings *out)
{
    for (size_t i = 0; i < value_count(list); i++)
        strings_add(out, mem_strdup(value_text(value_at(list, i), "")));
}

/* ---- the root file system ---- */

static int take_lowers(struct job *job, const struct value *layers, struct strings *out,
                       struct error *err)
{
    const struct unpack_options options = {.deadline = job->setting->deadline,
                                           .cancel = job->setting->cancel};

    return layer_dirs_make(job->setting->store, job->root, layers, &options, out, err);
}

static int make_dir(const char *path, mode_t mode, struct error *err)
{
    return mkdir(path, mode) < 0 || chmod(path, mode) < 0
               ? error_errno(err, errno, "cannot make the folder %s", path)
               : 0;
}

/* An overlay's upper folder cannot be in another overlay, as most containers' files are. */
static bool overlays_fit(const char *folder)
{
    struct statfs fs;

    return statfs(folder, &fs) != 0 || fs.f_type != OVERLAYFS_SUPER_MAGIC;
}

static int copy_root(struct job *job, struct error *err)
{
    const struct value *layers = value_get(job->spec, "layers");
    const struct unpack_options options = {
        .deadline = job->setting->deadline, .cancel = job->setting->cancel, .attributes = true};

    job->tree = path_join(job->scratch.path, "root");
    if (make_dir(job->tree, 0755, err) != 0)
        return -1;
    cleanup_close int to = open(job->tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < value_count(layers); i++) {
        const char *digest = value_get_string(value_at(layers, i), "digest", ""),
                   *diff_id = value_get_string(value_at(layers, i), "diff_id", "");
        cleanup_close int blob = store_blob_open(job->setting->store, digest, NULL, err);
        if (to < 0 || blob < 0 ||
            oci_unpack_layer(blob, to, digest, diff_id, true, &options, err) != 0)
            return error_wrap(err, "layer %s", digest);
    }
    return 0;
}

/* Folders of an overlay whose changes go with the scratch folder. */
static int take_upper(struct job *job, struct part *part, struct error *err)
{
    size_t number = (size_t)(part - job->parts);

    part->upper = mem_printf("%s/upper%zu", job->scratch.path, number);
    part->work = mem_printf("%s/work%zu", job->scratch.path, number);
    return make_dir(part->upper, 0755, err) == 0 && make_dir(part->work, 0700, err) == 0 ? 0 : -1;
}

static struct sandbox_mount *add_mount(struct job *job, enum mount_kind kind, const char *target)
{
    struct sandbox_mount *mount = &job->mounts[job->mount_count++];

    *mount = (struct sandbox_mount){.kind = kind, .target = target};
    return mount;
}

static void set_overlay(const struct job *job, struct sandbox_mount *mount, const struct part *part)
{
    mount->kind = MOUNT_OVERLAY;
    mount->source = job->root;
    mount->lowers = (const char *const *)part->lowers.items;
    mount->upper = part->upper;
    mount->work = part->work;
}

static int mount_overlay(struct job *job, const struct value *spec, struct part *part,
                         struct error *err)
{
    const char *folder = value_get_string(spec, "folder", NULL);

    if (folder)
        strings_add(&part->lowers, mem_strdup(folder));
    else if (take_lowers(job, value_get(spec, "layers"), &part->lowers, err) != 0)
        return -1;
    if (take_upper(job, part, err) != 0)
        return -1;
    struct sandbox_mount *mount =
        add_mount(job, MOUNT_OVERLAY, value_get_string(spec, "target", ""));
    set_overlay(job, mount, part);
    mount->sub = value_get_string(spec, "sub", NULL);
    mount->read_only = value_get_bool(spec, "read_only", false);
    return 0;
}

/* What a cache begins with is an overlay's lower folder for ever; the cache itself is its upper. */
static int mount_cache(struct job *job, const struct value *spec, struct part *part,
                       struct error *err)
{
    const struct value *layers = value_get(spec, "layers");
    bool read_only = value_get_bool(spec, "read_only", false);

    if (run_cache_open(job->root, spec, job->setting->deadline, job->setting->cancel, &part->cache,
                       err) != 0)
        return -1;
    struct sandbox_mount *mount = add_mount(job, read_only ? MOUNT_BIND_RO : MOUNT_BIND_RW,
                                            value_get_string(spec, "target", ""));
    mount->source = part->cache.folder;
    if (!value_count(layers))
        return 0;
    if (take_lowers(job, layers, &part->lowers, err) != 0)
        return -1;
    part->upper = mem_strdup(part->cache.folder);
    part->work = mem_strdup(part->cache.work);
    set_overlay(job, mount, part);
    mount->sub = value_get_string(spec, "sub", NULL);
    mount->read_only = read_only;
    return 0;
}

static void mount_file(struct job *job, const struct value *spec, const char *target,
                       const struct value *data, mode_t mode)
{
    struct sandbox_mount *mount = add_mount(job, MOUNT_FILE, target);

    mount->data = data && data->kind == VALUE_STRING ? data->as.string.data : "";
    mount->len = data && data->kind == VALUE_STRING ? data->as.string.len : 0;
    mount->mode = mode;
    mount->uid = (uid_t)value_get_int(spec, "uid", 0);
    mount->gid = (gid_t)value_get_int(spec, "gid", 0);
}

static int take_mount(struct job *job, const struct value *spec, struct part *part,
                      struct error *err)
{
    const char *kind = value_get_string(spec, "kind", ""),
               *target = value_get_string(spec, "target", "");

    if (strcmp(kind, "overlay") == 0)
        return mount_overlay(job, spec, part, err);
    if (strcmp(kind, "cache") == 0)
        return mount_cache(job, spec, part, err);
    if (strcmp(kind, "bind") == 0) {
        add_mount(job, value_get_bool(spec, "read_only", false) ? MOUNT_BIND_RO : MOUNT_BIND_RW,
                  target)
            ->source = value_get_string(spec, "source", "");
        return 0;
    }
    if (strcmp(kind, "tmpfs") == 0) {
        add_mount(job, MOUNT_TMPFS, target)->size = (uint64_t)value_get_int(spec, "size", 0);
        return 0;
    }
    if (strcmp(kind, "file") == 0) {
        mount_file(job, spec, target, value_get(spec, "data"),
                   (mode_t)value_get_int(spec, "mode", 0400));
        return 0;
    }
    return error_set(err, ERR_INTERNAL, "unknown kind of mount '%s'", kind);
}

static int take_mounts(struct job *job, struct error *err)
{
    const struct value *list = value_get(job->spec, "mounts"),
                       *places = value_get(job->spec, "places"),
                       *resolv = value_get(job->spec, "resolv");
    size_t count = value_count(list);

    job->part_count = count + 1;
    job->parts = mem_alloc(job->part_count * sizeof *job->parts);
    for (size_t i = 0; i < job->part_count; i++)
        job->parts[i].cache.lock = -1;
    job->mounts = mem_array(NULL, count + 5, sizeof *job->mounts);
    if (!overlays_fit(job->root)) {
        if (copy_root(job, err) != 0)
            return -1;
    } else {
        if (take_lowers(job, value_get(job->spec, "layers"), &job->parts[0].lowers, err) != 0 ||
            take_upper(job, &job->parts[0], err) != 0)
            return -1;
        set_overlay(job, add_mount(job, MOUNT_OVERLAY, "/"), &job->parts[0]);
    }
    add_mount(job, MOUNT_PROC, value_get_string(places, "proc", "/proc"));
    add_mount(job, MOUNT_DEV, "/dev");
    mount_file(job, NULL, value_get_string(places, "hosts", "/etc/hosts"),
               value_get(job->spec, "hosts"), 0644);
    if (resolv)
        mount_file(job, NULL, value_get_string(places, "resolv", "/etc/resolv.conf"), resolv, 0644);
    for (size_t i = 0; i < count; i++) {
        const struct value *one = value_at(list, i);
        if (take_mount(job, one, &job->parts[i + 1], err) != 0)
            return error_wrap(err, "--mount at %s", value_get_string(one, "target", ""));
    }
    return 0;
}

/* In a copy the places of mounts are there before the command, so that they are no change of its.
 */
static int make_places(struct job *job, struct error *err)
{
    cleanup_close int root = open(job->tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct unpack_place place = {.root = root};

    for (size_t i = 0; i < job->mount_count; i++) {
        const struct sandbox_mount *mount = &job->mounts[i];
        const char *leaf;
        struct stat st;
        bool file = mount->kind == MOUNT_FILE ||
                    ((mount->kind == MOUNT_BIND_RO || mount->kind == MOUNT_BIND_RW) &&
                     stat(mount->source, &st) == 0 && !S_ISDIR(st.st_mode));
        cleanup_close int parent = unpack_parent(&place, mount->target + 1, true, &leaf);
        cleanup_close int made =
            parent >= 0 && file
                ? openat(parent, leaf, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644)
                : -1;
        if (parent < 0 || ((file ? made : mkdirat(parent, leaf, 0755)) < 0 && errno != EEXIST))
            return error_errno(err, errno, "cannot make a place for the mount %s", mount->target);
    }
    return 0;
}

/* ---- running it ---- */

/* The last lines of what it said, as many as a hint has room for: errors mostly go to the second
 * stream. */
static void last_lines(const struct exec_result *result, struct buf *out)
{
    const struct buf *said = result->err.len ? &result->err : &result->out;
    size_t end = said->len, lines = 0, start;

    while (end && (said->data[end - 1] == '\n' || said->data[end - 1] == '\r'))
        end--;
    size_t first = start = end > SHOWN_MAX ? end - SHOWN_MAX : 0;
    for (size_t at = end; at > first && lines < LINES_SHOWN; at--)
        if (said->data[at - 1] == '\n') {
            start = at;
            lines++;
        }
    if (first == 0 && lines < LINES_SHOWN)
        start = 0;
    buf_append(out, said->data ? said->data + start : "", end - start);
}

static int judge(const struct exec_result *result, struct error *err)
{
    cleanup_buf struct buf said = BUF_INIT;

    if (result->cancelled)
        return error_set(err, ERR_CANCELLED, "the build was cancelled");
    if (result->timed_out)
        return error_set(err, ERR_TIMEOUT, "the build took too long");
    if (result->status == 0)
        return 0;
    last_lines(result, &said);
    if (result->status > 128)
        error_set(err, ERR_FAILED, "ended by signal %d", result->status - 128);
    else
        error_set(err, ERR_FAILED, "exit status %d", result->status);
    if (result->out_of_memory)
        return error_hint(err, "it ran out of memory");
    if (result->out_of_processes)
        return error_hint(err, "it met the limit of processes");
    if (result->status == 127 && !said.len)
        return error_hint(err, "the shell or the command is not in the image");
    return said.len ? error_hint(err, RUN_SAID "%s", said.data) : -1;
}

static int execute(struct job *job, struct error *err)
{
    const struct value *spec = job->spec, *groups = value_get(spec, "groups");
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    struct exec_result result = {0};
    bool network = value_get_bool(spec, "network", false);

    take_strings(value_get(spec, "argv"), &job->argv);
    take_strings(value_get(spec, "env"), &job->env);
    job->groups = mem_array(NULL, value_count(groups) + 1, sizeof *job->groups);
    for (size_t i = 0; i < value_count(groups); i++)
        job->groups[i] = (gid_t)value_at(groups, i)->as.integer;
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.namespaces = SANDBOX_NS_PID | SANDBOX_NS_MOUNT | SANDBOX_NS_IPC | SANDBOX_NS_UTS |
                        (network ? 0u : SANDBOX_NS_NET);
    policy.required = SANDBOX_REQUIRED | SANDBOX_LAYER_NAMESPACES;
    policy.root = job->tree ? job->tree : job->root;
    policy.mounts = job->mounts;
    policy.mount_count = job->mount_count;
    policy.hostname = "build";
    policy.net_allowed = network;
    policy.memory = (uint64_t)value_get_int(spec, "memory", 0);
    policy.processes = (uint64_t)value_get_int(spec, "processes", 0);
    policy.uid = (uid_t)value_get_int(spec, "uid", 0);
    policy.gid = (gid_t)value_get_int(spec, "gid", 0);
    policy.set_user = true;
    policy.groups = value_count(groups) ? job->groups : NULL;
    policy.group_count = value_count(groups);
    policy.more_capabilities = MORE_CAPABILITIES;
    policy.gain_privileges = true; /* su and sudo of the image; root inside is the most they get */
    policy.argv = job->argv.items;
    policy.env = job->env.items;
    policy.cwd = value_get_string(spec, "cwd", "/");
    struct exec_spec exec = {.policy = &policy,
                             .output = job->setting->output,
                             .output_ctx = job->setting->ctx,
                             .keep = OUTPUT_KEPT,
                             .deadline =
                                 job->setting->deadline ? job->setting->deadline : DEADLINE_NONE,
                             .cancel = job->setting->cancel};
    int status = exec_run(&exec, &result, err);
    if (status == 0)
        status = judge(&result, err);
    exec_result_free(&result);
    return status;
}

/* ---- the layer ---- */

/* What a path of the root was before the command: the topmost layer that has it says. */
static bool stat_below(const struct job *job, const char *path, struct stat *st)
{
    const struct strings *lowers = &job->parts[0].lowers;

    for (size_t i = 0; i < lowers->count; i++) {
        cleanup_free char *at = mem_printf("%s/%s/%s", job->root, lowers->items[i], path);
        if (lstat(at, st) == 0)
            return true;
    }
    return false;
}

/* Folders above a stub that are in the upper folder for its sake alone are no change either. */
static void remove_parents(const struct job *job, char *path)
{
    for (char *slash = strrchr(path, '/'); slash; slash = strrchr(path, '/')) {
        struct stat now, before;
        *slash = '\0';
        cleanup_free char *at = path_join(job->parts[0].upper, path);
        if (lstat(at, &now) < 0 || !stat_below(job, path, &before) ||
            now.st_mode != before.st_mode || now.st_uid != before.st_uid ||
            now.st_gid != before.st_gid || rmdir(at) < 0)
            return;
    }
}

/* Stubs that the command put nothing into. The folder that one was in keeps its time. */
static void remove_stubs(struct job *job)
{
    const struct value *stubs = value_get(job->spec, "stubs");

    for (size_t i = value_count(stubs); i-- > 0;) {
        cleanup_free char *stub = mem_strdup(value_text(value_at(stubs, i), ""));
        cleanup_free char *path = path_join(job->parts[0].upper, stub);
        cleanup_free char *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
        struct stat st, above;
        if (lstat(path, &st) < 0 || lstat(folder, &above) < 0)
            continue;
        if (S_ISDIR(st.st_mode))
            rmdir(path);
        else if (S_ISREG(st.st_mode) && st.st_size == 0)
            unlink(path);
        const struct timespec times[2] = {above.st_atim, above.st_mtim};
        utimensat(AT_FDCWD, folder, times, AT_SYMLINK_NOFOLLOW);
        remove_parents(job, stub);
    }
}

static int keep_changes(struct job *job, struct layer_result *out, struct error *err)
{
    const struct changes_spec changes = {.store = job->setting->store,
                                         .watcher = job->setting->watcher,
                                         .upper = job->tree ? job->tree : job->parts[0].upper,
                                         .before = job->before,
                                         .deadline = job->setting->deadline,
                                         .cancel = job->setting->cancel,
                                         .epoch = value_get_int(job->spec, "epoch", 0),
                                         .clamp = value_get_int(job->spec, "clamp", -1)};

    if (!job->tree)
        remove_stubs(job);
    if (build_changes(&changes, out, err) != 0)
        return -1;
    if (out->entries && changes.clamp < 0 &&
        !job->tree) /* else the folder's times are not the layer's */
        layer_dir_adopt(job->root, out->diff_id.text, job->parts[0].upper);
    return 0;
}

static int take_before(struct job *job, struct error *err)
{
    if (!job->tree)
        return 0;
    job->before = make_places(job, err) == 0 ? before_take(job->tree, err) : NULL;
    return job->before ? 0 : -1;
}

int run_job(const struct run_setting *setting, const struct value *spec, struct layer_result *out,
            struct error *err)
{
    struct job job = {.setting = setting, .spec = spec, .scratch = SCRATCH_DIR_NONE};
    int status = -1;

    *out = (struct layer_result){0};
    job.root = layer_dirs_root(setting->store, err);
    if (job.root && scratch_dir_make(job.root, &job.scratch, err) == 0 &&
        take_mounts(&job, err) == 0 && take_before(&job, err) == 0 && execute(&job, err) == 0)
        status = keep_changes(&job, out, err);
    job_end(&job);
    return status;
}
