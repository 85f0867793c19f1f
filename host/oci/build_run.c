/*
 * RUN, as the Dockerfile has it: command, variables, user, folder and mounts become a job
 * (build_run_job.h), and what that changes becomes a layer of the stage.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/build_internal.h"
#include "oci/build_run_internal.h"
#include "sandbox/sandbox.h"
#include "sandbox/subids.h"

#define PROCESSES_DEFAULT 32768

/* ---- the command ---- */

/* A heredoc alone is the text of a script: the shell's, or, with a first line #!..., a program. Any
 * other one is the shell's affair. Allocated. */
static char *script_of(struct run *run, const struct value *heredocs)
{
    const char *text = value_get_string(run->instruction, "text", "");
    const struct value *first = value_at(heredocs, 0);
    const char *script = value_get_string(first, "text", ""),
               *name = value_get_string(first, "name", "EOF");

    if (!first)
        return mem_strdup(text);
    if (strcmp(text, value_get_string(first, "word", "")) == 0) {
        if (strncmp(script, "#!", 2) != 0)
            return mem_strdup(script);
        char *path = mem_printf("/dev/pipes/%s", name);
        struct value *mount = run_add_mount(run, "file", path);
        value_put_string(mount, "data", script);
        value_put_int(mount, "mode", 0755);
        return path;
    }
    struct buf whole = BUF_INIT;
    buf_puts(&whole, text);
    for (size_t i = 0; i < value_count(heredocs); i++) {
        const struct value *one = value_at(heredocs, i);
        buf_printf(&whole, "\n%s%s", value_get_string(one, "text", ""),
                   value_get_string(one, "name", ""));
    }
    return buf_steal(&whole);
}

static int take_argv(struct run *run, struct error *err)
{
    static const char *const usual[] = {"/bin/sh", "-c"};
    const struct value *words = value_get(run->instruction, "words"),
                       *shell = value_get(&run->stage->config, "Shell");
    struct value *argv = value_put(&run->job, "argv");

    value_set_array(argv);
    if (value_get_bool(run->instruction, "json", false)) {
        value_free(argv);
        value_copy(argv, words);
        return value_count(argv) ? 0 : error_set(err, ERR_INVALID, "RUN []: there is no command");
    }
    for (size_t i = 0; i < value_count(shell); i++)
        value_push_string(argv, value_text(value_at(shell, i), ""));
    for (size_t i = 0; !value_count(shell) && i < sizeof usual / sizeof *usual; i++)
        value_push_string(argv, usual[i]);
    cleanup_free char *script = script_of(run, value_get(run->instruction, "heredocs"));
    value_push_string(value_get(&run->job, "argv"), script);
    return 0;
}

/* ---- the user ---- */

/* The home folder in a line of passwd: "name:x:uid:gid:gecos:home:shell". Allocated, or NULL. */
static char *home_of(const char *table, uint32_t uid, uint32_t *gid)
{
    for (const char *line = table; line && *line; line = table_next(line)) {
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

/* The groups of which /etc/group says that `user` is a member: "name:x:gid:user,user". */
static void take_groups(struct run *run, const char *table, const char *user)
{
    struct value *groups = value_put(&run->job, "groups");
    size_t len = strlen(user);

    value_set_array(groups);
    for (const char *line = table; len && line && *line; line = table_next(line)) {
        const char *field[4] = {line};
        size_t fields = 1;
        for (const char *at = line; *at && *at != '\n' && fields < 4; at++)
            if (*at == ':')
                field[fields++] = at + 1;
        const char *at = fields == 4 ? field[3] : "";
        while (*at && *at != '\n') {
            size_t word = strcspn(at, ",\n");
            if (word == len && strncmp(at, user, len) == 0) {
                value_set_int(value_push(groups), (int64_t)strtoul(field[2], NULL, 10));
                break;
            }
            at += word + (at[word] == ',');
        }
    }
}

static int take_user(struct run *run, char **home, struct error *err)
{
    cleanup_buf struct buf users = BUF_INIT;
    cleanup_buf struct buf groups = BUF_INIT;
    cleanup_free char *user = stage_expand(run->builder, run->stage,
                                           value_get_string(&run->stage->config, "User", ""), err);
    uint32_t uid, gid, own_group = 0;
    struct error problem = {0};

    if (!user)
        return -1;
    if (build_owner(run->builder, run->stage, user, &uid, &gid, &problem) != 0) {
        if (strcmp(user, "root") != 0) { /* who is root without a table, too */
            error_wrap(&problem, "USER %s", user);
            *err = problem;
            return -1;
        }
        uid = gid = 0;
    }
    if (stage_read_file(run->builder, run->stage, "etc/passwd", &users, NULL) == 0)
        *home = home_of(users.data ? users.data : "", uid, &own_group);
    /* Without a group, a user of the table has the table's, and is a member of others. */
    if (!strchr(user, ':')) {
        gid = *home ? own_group : 0;
        if (stage_read_file(run->builder, run->stage, "etc/group", &groups, NULL) == 0)
            take_groups(run, groups.data, user);
    }
    if (!*home || !**home) {
        free(*home);
        *home = mem_strdup(uid == 0 ? "/root" : "/");
    }
    value_put_int(&run->job, "uid", uid);
    value_put_int(&run->job, "gid", gid);
    return 0;
}

/* ---- variables ---- */

void run_put_env(struct run *run, const char *name, const char *text)
{
    struct value *slot = value_push(value_get(&run->job, "env"));

    value_take_string(slot, mem_printf("%s=%s", name, text));
}

static bool has_env(const struct run *run, const char *name)
{
    const struct value *env = value_get(&run->job, "env");
    size_t len = strlen(name);

    for (size_t i = 0; i < value_count(env); i++) {
        const char *pair = value_text(value_at(env, i), "");
        if (strncmp(pair, name, len) == 0 && pair[len] == '=')
            return true;
    }
    return false;
}

/* Without an ARG: what BuildKit lets through too, and keeps out of the history. */
static const char *const proxies[] = {"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy",
                                      "FTP_PROXY",  "ftp_proxy",  "NO_PROXY",    "no_proxy",
                                      "ALL_PROXY",  "all_proxy"};

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
    const struct value *env = value_get(&run->stage->config, "Env"), *args = &run->stage->args;

    for (size_t i = 0; i < value_count(env); i++)
        value_push_string(value_get(&run->job, "env"), value_text(value_at(env, i), ""));
    for (size_t i = 0; args->kind == VALUE_MAP && i < args->as.map.count; i++) {
        const struct value_pair *pair = &args->as.map.pairs[i];
        if (pair->value.kind == VALUE_STRING && !has_env(run, pair->key))
            run_put_env(run, pair->key, value_text(&pair->value, ""));
    }
    for (size_t i = 0; i < sizeof proxies / sizeof *proxies; i++) {
        const char *text = value_get_string(run->builder->spec->args, proxies[i], NULL);
        if (text && !has_env(run, proxies[i]))
            run_put_env(run, proxies[i], text);
    }
    if (!has_env(run, "PATH"))
        run_put_env(run, "PATH", PATH_DEFAULT);
    if (!has_env(run, "HOME"))
        run_put_env(run, "HOME", home);
}

/* ---- what is around it ---- */

static int take_network(struct run *run, bool *network, struct error *err)
{
    const char *text = value_get_string(value_get(run->instruction, "flags"), "network", "default");
    bool granted = run->builder->spec->network;

    *network = granted;
    if (strcmp(text, "none") == 0) {
        *network = false;
    } else if (strcmp(text, "host") == 0 && !granted) {
        error_set(err, ERR_DENIED, "--network=host: this build has no network");
        return error_hint(err, "grant the stage some: permissions = { net = { ... } }");
    } else if (strcmp(text, "host") != 0 && strcmp(text, "default") != 0) {
        return error_set(err, ERR_INVALID, "--network=%s: it is default, none or host", text);
    }
    value_put_bool(&run->job, "network", *network);
    return 0;
}

static int check_security(struct run *run, struct error *err)
{
    const char *text =
        value_get_string(value_get(run->instruction, "flags"), "security", "sandbox");

    if (strcmp(text, "sandbox") == 0)
        return 0;
    if (strcmp(text, "insecure") != 0)
        return error_set(err, ERR_INVALID, "--security=%s: it is sandbox", text);
    error_set(err, ERR_DENIED, "--security=insecure is not allowed");
    return error_hint(err, "commands of a build always run in the sandbox; do without what needs "
                           "more than root's usual capabilities");
}

static int take_layers(struct run *run, struct error *err)
{
    run_put_layers(&run->job, run->stage);
    if (value_count(&run->stage->layers))
        return 0;
    error_set(err, ERR_INVALID, "the stage has no files yet, so there is nothing to run");
    return error_hint(err, "begin FROM an image with a shell, or COPY one in first");
}

/* ---- running it ---- */

/* A secret of this command goes out as "***", whoever is listening. */
static void on_output(void *ctx, int stream, const char *data, size_t len)
{
    struct run *run = ctx;
    const struct build_spec *spec = run->builder->spec;
    cleanup_buf struct buf masked = BUF_INIT;

    if (!spec->output)
        return;
    if (!run->masker) {
        spec->output(spec->ctx, stream, data, len);
        return;
    }
    mask_stream(run->masker, &run->tails[stream == 2], data, len, &masked);
    if (masked.len)
        spec->output(spec->ctx, stream, masked.data, masked.len);
}

static void end_output(struct run *run)
{
    const struct build_spec *spec = run->builder->spec;

    for (int stream = 1; run->masker && spec->output && stream <= 2; stream++) {
        cleanup_buf struct buf masked = BUF_INIT;
        mask_stream_end(run->masker, &run->tails[stream == 2], &masked);
        if (masked.len)
            spec->output(spec->ctx, stream, masked.data, masked.len);
    }
}

/* The command's last words may hold a secret, and not from its beginning. */
static void mask_error(struct run *run, struct error *err)
{
    cleanup_buf struct buf said = BUF_INIT;
    size_t len = strlen(RUN_SAID);

    if (!run->masker || strncmp(err->hint, RUN_SAID, len) != 0)
        return;
    mask_tail(run->masker, err->hint + len, strlen(err->hint + len), &said);
    error_hint(err, RUN_SAID "%s", said.data ? said.data : "");
}

static int warn_one_id(struct run *run, struct error *err)
{
    cleanup_buf struct buf why = BUF_INIT;
    struct subids unused;
    struct builder *builder = run->builder;

    if (sandbox_privileged() || subids_find(&unused, &why))
        return 0;
    if (value_get_int(&run->job, "uid", 0) != 0) {
        error_set(err, ERR_UNSUPPORTED, "USER %s: this user has only one id here, which is root's",
                  value_get_string(&run->stage->config, "User", ""));
        return error_hint(err,
                          "%s; as root: usermod --add-subuids 100000-165535 --add-subgids "
                          "100000-165535 %s",
                          why.data, run_user_name());
    }
    if (!builder->one_id_said)
        builder_log(builder, "warning",
                    "RUN: all files belong to root, and chown fails, for this user has no other "
                    "ids: %s; as root: usermod --add-subuids 100000-165535 --add-subgids "
                    "100000-165535 %s",
                    why.data, run_user_name());
    builder->one_id_said = true;
    return 0;
}

static int execute(struct run *run, struct layer_result *result, struct error *err)
{
    const struct build_spec *spec = run->builder->spec;
    const struct run_setting setting = {.store = spec->store,
                                        .watcher = spec->watcher,
                                        .output = on_output,
                                        .ctx = run,
                                        .deadline = spec->deadline,
                                        .cancel = spec->cancel};
    struct error problem = {0};

    int status = sandbox_privileged() ? run_job(&setting, &run->job, result, &problem)
                                      : run_job_as_user(&setting, &run->job, result, &problem);
    end_output(run);
    if (status == 0)
        return 0;
    mask_error(run, &problem);
    if (problem.code == ERR_FAILED || problem.code == ERR_TIMEOUT)
        error_wrap(&problem, "%.200s", value_get_string(run->instruction, "text", ""));
    if (err)
        *err = problem;
    return -1;
}

static int prepare(struct run *run, struct error *err)
{
    const struct build_spec *spec = run->builder->spec;
    const char *cwd = value_get_string(&run->stage->config, "WorkingDir", "/");
    cleanup_free char *home = NULL;
    bool network;

    value_set_map(&run->job);
    value_set_array(value_put(&run->job, "mounts"));
    value_set_array(value_put(&run->job, "env"));
    value_set_array(value_put(&run->job, "stubs"));
    value_put_string(&run->job, "cwd", *cwd ? cwd : "/");
    value_put_int(&run->job, "memory", (int64_t)spec->memory);
    value_put_int(&run->job, "processes",
                  spec->processes ? (int64_t)spec->processes : PROCESSES_DEFAULT);
    value_put_int(&run->job, "epoch", spec->epoch);
    value_put_int(&run->job, "clamp", spec->clamp);
    if (stage_tree(run->builder, run->stage, err) != 0 || check_security(run, err) != 0 ||
        take_network(run, &network, err) != 0 || take_layers(run, err) != 0 ||
        take_argv(run, err) != 0 || take_user(run, &home, err) != 0 || warn_one_id(run, err) != 0 ||
        run_take_places(run, network, err) != 0)
        return -1;
    take_env(run, home);
    return run_take_mounts(run, err);
}

static int run_anew(struct run *run, const struct digest *key, struct error *err)
{
    struct layer_result result;

    if (prepare(run, err) != 0 || execute(run, &result, err) != 0)
        return -1;
    struct cached_layer layer = cached_layer_of(&result);
    if (stage_keep(run->builder, run->instruction, key, &layer, err) != 0)
        return -1;
    stage_add_layer(run->builder, run->stage, run->instruction, &layer, false);
    return 0;
}

static void run_end(struct run *run)
{
    run_mounts_free(&run->mounts);
    run_wipe(&run->job);
    scratch_dir_end(&run->context);
    masker_free(run->masker);
    buf_free(&run->tails[0]);
    buf_free(&run->tails[1]);
}

int build_run(struct builder *builder, struct stage *stage, const struct value *instruction,
              struct error *err)
{
    struct run run = {.builder = builder,
                      .stage = stage,
                      .instruction = instruction,
                      .context = SCRATCH_DIR_NONE};
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
