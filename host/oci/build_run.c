/*
 * RUN. The stage's layers are folders (layer_dirs.h), an overlay of them is the root of a sandbox,
 * and what the command leaves in the upper folder is the layer. Nothing of this machine is in
 * view but what a program cannot do without: /proc and /dev of the sandbox, names of hosts.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/strings.h"
#include "loop/exec.h"
#include "oci/build_changes.h"
#include "oci/build_internal.h"
#include "oci/layer_dirs.h"
#include "sandbox/sandbox.h"

#define PROCESSES_MAX 32768
#define OUTPUT_KEPT   4096
#define LINES_SHOWN   12

/* What packages do when they are installed: su to their user, chroot, file capabilities. */
#define MORE_CAPABILITIES (1u << CAP_SYS_CHROOT | 1u << CAP_SETFCAP | 1u << CAP_AUDIT_WRITE)

struct run {
    struct builder *builder;
    struct stage *stage;
    const struct value *instruction;
    char *root;                 /* of the layers' folders */
    char *scratch;              /* upper, work and hosts of this command */
    char *upper, *work, *hosts; /* in scratch */
    struct strings lowers;      /* names below root, the topmost first */
    struct strings argv, env;
    struct strings stubs; /* places of mounts that the image does not have, outermost first */
    uint32_t uid, gid;
    struct sandbox_mount mounts[8];
    size_t mount_count;
    char *targets[8];
};

static void run_end(struct run *run)
{
    if (run->scratch)
        dir_remove(run->scratch, NULL);
    char *single[] = {run->root, run->scratch, run->upper, run->work, run->hosts};
    for (size_t i = 0; i < sizeof single / sizeof *single; i++)
        free(single[i]);
    for (size_t i = 0; i < run->mount_count; i++)
        free(run->targets[i]);
    struct strings *lists[] = {&run->lowers, &run->argv, &run->env, &run->stubs};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        strings_free(lists[i]);
}

/* ---- the command ---- */

static int take_argv(struct run *run, struct error *err)
{
    static const char *const usual[] = {"/bin/sh", "-c"};
    const struct value *words = value_get(run->instruction, "words"),
                       *shell = value_get(&run->stage->config, "Shell");

    if (value_get_bool(run->instruction, "json", false)) {
        for (size_t i = 0; i < value_count(words); i++)
            strings_add(&run->argv, mem_strdup(value_text(value_at(words, i), "")));
        return run->argv.count ? 0 : error_set(err, ERR_INVALID, "RUN []: there is no command");
    }
    for (size_t i = 0; i < value_count(shell); i++)
        strings_add(&run->argv, mem_strdup(value_text(value_at(shell, i), "")));
    for (size_t i = 0; !value_count(shell) && i < sizeof usual / sizeof *usual; i++)
        strings_add(&run->argv, mem_strdup(usual[i]));
    strings_add(&run->argv, mem_strdup(value_get_string(run->instruction, "text", "")));
    return 0;
}

/* The home folder in a line of passwd: "name:x:uid:gid:gecos:home:shell". Allocated, or NULL. */
static char *home_of(const char *table, uint32_t uid, uint32_t *gid)
{
    for (const char *line = table; line && *line; line = strchr(line, '\n'), line += line ? 1 : 0) {
        const char *field[7] = {line};
        size_t fields = 1;
        for (const char *at = line; *at && *at != '\n' && fields < 7; at++)
            if (*at == ':')
                field[fields++] = at + 1;
        if (fields < 6 || strtoul(field[2], NULL, 10) != uid)
            continue;
        *gid = (uint32_t)strtoul(field[3], NULL, 10);
        return mem_strndup(field[5], strcspn(field[5], ":\n"));
    }
    return NULL;
}

static int take_user(struct run *run, char **home, struct error *err)
{
    cleanup_buf struct buf table = BUF_INIT;
    cleanup_free char *user = stage_expand(run->builder, run->stage,
                                           value_get_string(&run->stage->config, "User", ""), err);
    uint32_t own_group = 0;

    if (!user || build_owner(run->builder, run->stage, user, &run->uid, &run->gid, err) != 0)
        return user ? error_wrap(err, "USER %s", user) : -1;
    *home = NULL;
    if (stage_read_file(run->builder, run->stage, "etc/passwd", &table, NULL) == 0)
        *home = home_of(table.data ? table.data : "", run->uid, &own_group);
    /* Without a group, a user of the table has the table's. */
    if (*home && !strchr(user, ':'))
        run->gid = own_group;
    else if (!strchr(user, ':'))
        run->gid = 0;
    if (!*home || !**home) {
        free(*home);
        *home = mem_strdup(run->uid == 0 ? "/root" : "/");
    }
    return 0;
}

static bool env_has(const struct strings *env, const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < env->count; i++)
        if (strncmp(env->items[i], name, len) == 0 && env->items[i][len] == '=')
            return true;
    return false;
}

/* Without an ARG: what BuildKit lets through too, and keeps out of the history. */
static const char *const proxies[] = {"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy",
                                      "FTP_PROXY",  "ftp_proxy",  "NO_PROXY",    "no_proxy",
                                      "ALL_PROXY",  "all_proxy"};

static void add_proxies(struct run *run)
{
    for (size_t i = 0; i < sizeof proxies / sizeof *proxies; i++) {
        const char *text = value_get_string(run->builder->spec->args, proxies[i], NULL);
        if (text && !env_has(&run->env, proxies[i]))
            strings_add(&run->env, mem_printf("%s=%s", proxies[i], text));
    }
}

/* Nobody is to be told that they are of no use, whether the command runs or not. */
static void note_proxies(struct builder *builder)
{
    for (size_t i = 0; i < sizeof proxies / sizeof *proxies; i++)
        if (value_get(builder->spec->args, proxies[i]))
            value_put_bool(&builder->used_args, proxies[i], true);
}

/* ENV beats ARG; PATH and HOME are always there. */
static void take_env(struct run *run, const char *home)
{
    const struct value *env = value_get(&run->stage->config, "Env");
    const struct value *args = &run->stage->args;

    for (size_t i = 0; i < value_count(env); i++)
        strings_add(&run->env, mem_strdup(value_text(value_at(env, i), "")));
    for (size_t i = 0; args->kind == VALUE_MAP && i < args->as.map.count; i++) {
        const struct value_pair *pair = &args->as.map.pairs[i];
        if (pair->value.kind == VALUE_STRING && !env_has(&run->env, pair->key))
            strings_add(&run->env, mem_printf("%s=%s", pair->key, value_text(&pair->value, "")));
    }
    add_proxies(run);
    if (!env_has(&run->env, "PATH"))
        strings_add(&run->env, mem_strdup("PATH=" PATH_DEFAULT));
    if (!env_has(&run->env, "HOME"))
        strings_add(&run->env, mem_printf("HOME=%s", home));
}

/* ---- the root file system ---- */

static int take_lowers(struct run *run, struct error *err)
{
    const struct build_spec *spec = run->builder->spec;
    const struct unpack_options options = {.deadline = spec->deadline, .cancel = spec->cancel};
    size_t count = value_count(&run->stage->layers);

    run->root = layer_dirs_root(spec->store, err);
    if (!run->root)
        return -1;
    for (size_t i = count; i-- > 0;) {
        char name[LAYER_DIR_NAME];
        const char *digest = value_get_string(value_at(&run->stage->layers, i), "digest", "");
        const char *diff_id = value_text(value_at(&run->stage->diff_ids, i), "");
        bool again = false; /* a layer that lies further up already hides itself below */
        if (layer_dir_make(spec->store, run->root, digest, diff_id, &options, name, err) != 0)
            return -1;
        for (size_t k = 0; k < run->lowers.count && !again; k++)
            again = strcmp(run->lowers.items[k], name) == 0;
        if (!again)
            strings_add(&run->lowers, mem_strdup(name));
    }
    if (count)
        return 0;
    error_set(err, ERR_INVALID, "the stage has no files yet, so there is nothing to run");
    return error_hint(err, "begin FROM an image with a shell, or COPY one in first");
}

static int take_scratch(struct run *run, struct error *err)
{
    cleanup_free char *path = mem_printf("%s/run.XXXXXX", run->root);

    if (!mkdtemp(path))
        return error_errno(err, errno, "cannot make a folder in %s", run->root);
    run->scratch = path;
    path = NULL;
    run->upper = path_join(run->scratch, "upper");
    run->work = path_join(run->scratch, "work");
    run->hosts = path_join(run->scratch, "hosts");
    if (mkdir(run->upper, 0755) < 0 || chmod(run->upper, 0755) < 0 || mkdir(run->work, 0700) < 0)
        return error_errno(err, errno, "cannot make a folder in %s", run->scratch);
    return 0;
}

/* Mounts need a place, which the kernel makes in the upper folder: what the image did not have is
 * taken away again afterwards. */
static void note_stubs(struct run *run, const char *target)
{
    cleanup_free char *path = mem_strdup(target);
    size_t first = run->stubs.count;

    for (;;) {
        if (tree_get(&run->stage->tree, path))
            break;
        strings_add(&run->stubs, mem_strdup(path));
        char *slash = strrchr(path, '/');
        if (!slash)
            break;
        *slash = '\0';
    }
    /* Found from the inside out. */
    for (size_t a = first, b = run->stubs.count; a + 1 < b; a++, b--) {
        char *swap = run->stubs.items[a];
        run->stubs.items[a] = run->stubs.items[b - 1];
        run->stubs.items[b - 1] = swap;
    }
}

static int add_mount(struct run *run, enum mount_kind kind, const char *source, const char *target,
                     struct error *err)
{
    cleanup_free char *real = tree_resolve(&run->stage->tree, target, true, err);

    if (!real)
        return -1;
    note_stubs(run, real);
    run->targets[run->mount_count] = mem_printf("/%s", real);
    run->mounts[run->mount_count] = (struct sandbox_mount){
        .kind = kind, .source = source, .target = run->targets[run->mount_count]};
    run->mount_count++;
    return 0;
}

static int take_mounts(struct run *run, struct error *err)
{
    static const char text[] = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n";

    run->targets[0] = mem_strdup("/");
    run->mounts[run->mount_count++] =
        (struct sandbox_mount){.kind = MOUNT_OVERLAY,
                               .source = run->root,
                               .target = run->targets[0],
                               .upper = run->upper,
                               .work = run->work,
                               .lowers = (const char *const *)run->lowers.items};
    if (file_write(AT_FDCWD, run->hosts, text, strlen(text), false, err) != 0 ||
        add_mount(run, MOUNT_PROC, NULL, "proc", err) != 0 ||
        add_mount(run, MOUNT_DEV, NULL, "dev", err) != 0 ||
        add_mount(run, MOUNT_BIND_RO, run->hosts, "etc/hosts", err) != 0)
        return -1;
    if (run->builder->spec->network && access("/etc/resolv.conf", R_OK) == 0 &&
        add_mount(run, MOUNT_BIND_RO, "/etc/resolv.conf", "etc/resolv.conf", err) != 0)
        return -1;
    return 0;
}

/* ---- running it ---- */

static void on_output(void *ctx, int stream, const char *data, size_t len)
{
    const struct build_spec *spec = ((struct run *)ctx)->builder->spec;

    spec->output(spec->ctx, stream, data, len);
}

/* The last lines of what it said: errors mostly go to the second stream. */
static void last_lines(const struct exec_result *result, struct buf *out)
{
    const struct buf *said = result->err.len ? &result->err : &result->out;
    size_t end = said->len, lines = 0, start;

    while (end && (said->data[end - 1] == '\n' || said->data[end - 1] == '\r'))
        end--;
    for (start = end; start; start--)
        if (said->data[start - 1] == '\n' && ++lines == LINES_SHOWN)
            break;
    buf_append(out, said->data ? said->data + start : "", end - start);
}

static int judge(struct run *run, const struct exec_result *result, struct error *err)
{
    const char *text = value_get_string(run->instruction, "text", "");
    cleanup_buf struct buf said = BUF_INIT;

    if (result->cancelled)
        return error_set(err, ERR_CANCELLED, "the build was cancelled");
    if (result->timed_out)
        return error_set(err, ERR_TIMEOUT, "the build took too long, in %.200s", text);
    if (result->status == 0)
        return 0;
    last_lines(result, &said);
    if (result->status > 128)
        error_set(err, ERR_FAILED, "%.200s: ended by signal %d", text, result->status - 128);
    else
        error_set(err, ERR_FAILED, "%.200s: exit status %d", text, result->status);
    if (result->out_of_memory)
        return error_hint(err, "it ran out of memory");
    if (result->status == 127 && !said.len)
        return error_hint(err, "the shell or the command is not in the image");
    return said.len ? error_hint(err, "it said: %s", said.data) : -1;
}

static int execute(struct run *run, struct error *err)
{
    const struct build_spec *spec = run->builder->spec;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    struct exec_result result = {0};
    const char *cwd = value_get_string(&run->stage->config, "WorkingDir", "/");

    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.namespaces = SANDBOX_NS_PID | SANDBOX_NS_MOUNT | SANDBOX_NS_IPC | SANDBOX_NS_UTS |
                        (spec->network ? 0u : SANDBOX_NS_NET);
    policy.required = SANDBOX_REQUIRED | SANDBOX_LAYER_NAMESPACES;
    policy.root = run->root;
    policy.mounts = run->mounts;
    policy.mount_count = run->mount_count;
    policy.hostname = "build";
    policy.net_allowed = spec->network;
    policy.processes = PROCESSES_MAX;
    policy.uid = run->uid;
    policy.gid = run->gid;
    policy.set_user = true;
    policy.more_capabilities = MORE_CAPABILITIES;
    policy.argv = run->argv.items;
    policy.env = run->env.items;
    policy.cwd = *cwd ? cwd : "/";
    struct exec_spec exec = {.policy = &policy,
                             .output = spec->output ? on_output : NULL,
                             .output_ctx = run,
                             .keep = OUTPUT_KEPT,
                             .deadline = spec->deadline ? spec->deadline : DEADLINE_NONE,
                             .cancel = spec->cancel};
    int status = exec_run(&exec, &result, err);
    if (status == 0)
        status = judge(run, &result, err);
    exec_result_free(&result);
    return status;
}

/* ---- the layer ---- */

/* Stubs that the command put nothing into. */
static void remove_stubs(struct run *run)
{
    for (size_t i = run->stubs.count; i-- > 0;) {
        cleanup_free char *path = path_join(run->upper, run->stubs.items[i]);
        struct stat st;
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
            rmdir(path);
        else if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
            unlink(path);
    }
}

static int keep_changes(struct run *run, const struct digest *key, struct error *err)
{
    const struct build_spec *spec = run->builder->spec;
    const struct changes_spec changes = {
        .store = spec->store, .upper = run->upper, .epoch = spec->epoch, .clamp = spec->clamp};
    struct layer_result result;

    remove_stubs(run);
    if (build_changes(&changes, &result, err) != 0)
        return -1;
    struct cached_layer layer = cached_layer_of(&result);
    if (stage_keep(run->builder, key, &layer, err) != 0)
        return -1;
    stage_add_layer(run->builder, run->stage, run->instruction, &layer, false);
    if (result.entries && spec->clamp < 0) /* else the folder's times are not the layer's */
        layer_dir_adopt(run->root, result.diff_id.text, run->upper);
    return 0;
}

static int run_anew(struct run *run, const struct digest *key, struct error *err)
{
    cleanup_free char *home = NULL;

    if (geteuid() != 0) {
        error_set(err, ERR_UNSUPPORTED, "RUN needs root on this machine");
        return error_hint(err, "run mlhost as root, or start FROM an image that has the result");
    }
    if (take_argv(run, err) != 0 || stage_tree(run->builder, run->stage, err) != 0 ||
        take_user(run, &home, err) != 0 || take_lowers(run, err) != 0 ||
        take_scratch(run, err) != 0 || take_mounts(run, err) != 0)
        return -1;
    take_env(run, home);
    return execute(run, err) == 0 ? keep_changes(run, key, err) : -1;
}

int build_run(struct builder *builder, struct stage *stage, const struct value *instruction,
              struct error *err)
{
    struct run run = {.builder = builder, .stage = stage, .instruction = instruction};
    struct cached_layer layer;
    struct digest key = {""};
    int status = 0;

    note_proxies(builder);
    if (builder->spec->caching != BUILD_CACHE_OFF)
        status = build_run_key(builder, stage, instruction, &key, err);
    if (status == 0 && stage_find(builder, &key, &layer))
        stage_add_layer(builder, stage, instruction, &layer, true);
    else if (status == 0)
        status = run_anew(&run, &key, err);
    run_end(&run);
    return status == 0 ? 0 : error_wrap(err, "RUN");
}
