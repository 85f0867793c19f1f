#include "run/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "broker/policy.h"
#include "run/worker.h"
#include "run/text.h"

uint64_t plan_fingerprint(const char *text, size_t len)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)text[i]) * UINT64_C(1099511628211);
    return hash;
}

static int find_script(const char *script, struct plan *out, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct stat status;

    if (stat(script, &status) < 0) {
        error_set(err, ERR_USAGE, "%s: %s", script, strerror(errno));
        return error_hint(err, "give the path of a pipeline script: mlhost run pipelines/ci.lua");
    }
    if (S_ISDIR(status.st_mode)) {
        error_set(err, ERR_USAGE, "%s is a folder", script);
        return error_hint(err, "give the path of a pipeline script: mlhost run %s/ci.lua", script);
    }
    if (file_read(AT_FDCWD, script, PLAN_SCRIPT_MAX, &text, err) < 0)
        return -1;
    out->fingerprint = plan_fingerprint(text.data ? text.data : "", text.len);
    out->script = realpath(script, NULL);
    if (!out->script)
        return error_errno(err, errno, "%s", script);
    out->shown = mem_strdup(script);
    return 0;
}

static void spec_init(struct broker_spec *spec, const struct config *config, const char *mode,
                      const char *script, bool allow_degraded)
{
    *spec = (struct broker_spec){.config = config,
                                 .mode = mode,
                                 .script = script,
                                 .timeout_ns = PLAN_TIMEOUT_NS,
                                 .grace_ns = NS_PER_S,
                                 .allow_degraded = allow_degraded};
    value_set_map(&spec->context);
    value_set_map(&spec->permissions);
    value_put_string(&spec->context, "workspace", config->workspace);
    value_put_string(&spec->context, "profile", config->profile);
}

int plan_load(struct loop *loop, const struct config *config, const char *script,
              bool allow_degraded, struct plan *out, struct error *err)
{
    struct broker_spec spec;

    *out = (struct plan){0};
    if (find_script(script, out, err) < 0)
        return -1;
    spec_init(&spec, config, "plan", out->script, allow_degraded);
    struct error asked = {0};
    int rc = worker_ask(loop, &spec, NULL, NULL, &out->doc, &asked);
    value_free(&spec.context);
    value_free(&spec.permissions);
    if (rc < 0) {
        /* Whatever the script did wrong while it was planned, it is the script that is invalid. */
        if (asked.code != ERR_TIMEOUT && asked.code != ERR_DENIED && asked.code != ERR_UNSUPPORTED)
            asked.code = ERR_INVALID;
        if (err)
            *err = asked;
        plan_free(out);
        return -1;
    }
    out->name = value_get_string(value_get(&out->doc, "pipeline"), "name", NULL);
    if (!out->name || !out->name[0]) {
        const char *slash = strrchr(out->script, '/');
        out->name = slash ? slash + 1 : out->script;
    }
    return 0;
}

void plan_slim(struct plan *plan)
{
    struct value *stages = value_get(&plan->doc, "stages");

    for (size_t i = 0; i < value_count(stages); i++) {
        struct value *stage = value_at(stages, i), *permissions = value_get(stage, "permissions");
        struct value rest = {0};
        if (permissions) {
            value_set_map(&rest);
            value_move(value_put(&rest, "permissions"), permissions);
        }
        value_move(stage, &rest);
    }
    malloc_trim(0); /* every child would get it */
}

void plan_free(struct plan *plan)
{
    free(plan->script);
    free(plan->shown);
    value_free(&plan->doc);
    *plan = (struct plan){0};
}

int plan_store(const struct plan *plan, const struct config *config, const struct value *params,
               const char *id, const char *dir, struct error *err)
{
    cleanup_value struct value doc = {0};
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_free char *path = path_join(dir, "plan.json");

    value_set_map(&doc);
    value_put_string(&doc, "run", id);
    value_put_string(&doc, "script", plan->script);
    value_put_string(&doc, "shown", plan->shown);
    value_set_printf(value_put(&doc, "fingerprint"), "%016llx",
                     (unsigned long long)plan->fingerprint);
    value_put_string(&doc, "profile", config->profile);
    value_copy(value_put(&doc, "params"), params);
    value_copy(value_put(&doc, "plan"), &plan->doc);
    text_json(&doc, 0, &text);
    return file_write(AT_FDCWD, path, text.data, text.len, false, err);
}

static void check_event(void *ctx, struct value *event)
{
    struct value *findings = ctx;

    if (strcmp(value_get_string(event, "t", ""), "issue") == 0)
        value_copy(value_push(findings), event);
}

int plan_check(struct loop *loop, const struct config *config, const char *script,
               bool allow_degraded, struct value *findings, struct error *err)
{
    struct plan plan = {0};
    struct broker_spec spec;
    struct value result = {0};

    if (find_script(script, &plan, err) < 0)
        return -1;
    spec_init(&spec, config, "check", plan.script, allow_degraded);
    int rc = worker_ask(loop, &spec, check_event, findings, &result, err);
    const struct value *list = result.kind == VALUE_ARRAY ? &result : value_get(&result, "issues");
    for (size_t i = 0; rc == 0 && i < value_count(list); i++) {
        if (value_at(list, i) && value_at(list, i)->kind == VALUE_MAP)
            value_copy(value_push(findings), value_at(list, i));
    }
    value_free(&result);
    value_free(&spec.context);
    value_free(&spec.permissions);
    plan_free(&plan);
    return rc;
}

static void merge(struct value *to, const struct value *from)
{
    for (int kind = 0; kind < PERM_COUNT; kind++) {
        const struct value *list = value_get(from, permission_names[kind]);
        if (value_count(list) == 0)
            continue;
        struct value *into = value_get(to, permission_names[kind]);
        if (!into) {
            into = value_put(to, permission_names[kind]);
            value_set_array(into);
        }
        for (size_t i = 0; i < value_count(list); i++) {
            bool there = false;
            for (size_t k = 0; k < value_count(into); k++)
                there = there || value_equal(value_at(into, k), value_at(list, i));
            if (!there)
                value_copy(value_push(into), value_at(list, i));
        }
    }
}

void plan_permissions(const struct plan *plan, const struct value *stage_spec, struct value *out)
{
    value_set_map(out);
    merge(out, value_path(&plan->doc, "pipeline.permissions"));
    if (stage_spec)
        merge(out, value_get(stage_spec, "permissions"));
}
