/* Replies counted, and told. */
#include "service/load.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static void tally(struct load_tally *tally, const struct load_reply *reply)
{
    tally->count++;
    if (reply->good)
        histogram_add(&tally->latency, reply->latency);
    else
        tally->errors++;
}

static struct load_group *group_of(struct load_result *result, const char *value)
{
    bool full = result->group_count == LOAD_GROUPS - 1;

    for (size_t i = 0; i < result->group_count; i++)
        if (strcmp(result->groups[i]->value, value) == 0)
            return result->groups[i];
    if (result->group_count == LOAD_GROUPS)
        return result->groups[LOAD_GROUPS - 1];
    struct load_group *group = mem_alloc(sizeof(*group));
    group->value = mem_strdup(full ? "(others)" : value);
    return result->groups[result->group_count++] = group;
}

/* The text at result->group_by in a reply; "(none)" where there is none. */
static void add_to_group(struct load_result *result, const struct load_reply *reply)
{
    cleanup_value struct value body = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct error ignored = {0};
    const struct value *v = NULL;

    if (reply->body && reply->body->len &&
        value_from_json(reply->body->data, reply->body->len, "reply", NULL, &body, &ignored) == 0)
        v = value_path(&body, result->group_by);
    if (v && v->kind == VALUE_STRING)
        buf_append(&text, v->as.string.data, v->as.string.len < 128 ? v->as.string.len : 128);
    else if (v && (v->kind == VALUE_INT || v->kind == VALUE_REAL || v->kind == VALUE_BOOL))
        value_to_json(v, 0, &text);
    tally(&group_of(result, text.len ? text.data : "(none)")->tally, reply);
}

static void note_error(struct load_result *result, const struct load_reply *reply)
{
    if (result->error_count == LOAD_ERRORS)
        return;
    if (reply->problem) {
        result->first_errors[result->error_count++] = mem_strdup(reply->problem);
        return;
    }
    size_t len = reply->body->len < 300 ? reply->body->len : 300;
    result->first_errors[result->error_count++] = mem_printf(
        "HTTP %s: %.*s", reply->status, (int)len, reply->body->len ? reply->body->data : "");
}

void load_add(struct load_result *result, const struct load_reply *reply)
{
    tally(&result->all, reply);
    if (result->status.kind == VALUE_NIL)
        value_set_map(&result->status);
    value_put_int(&result->status, reply->status,
                  value_get_int(&result->status, reply->status, 0) + 1);
    if (result->group_by)
        add_to_group(result, reply);
    if (!reply->good)
        note_error(result, reply);
}

static void report_latency(const struct histogram *latency, struct value *out)
{
    static const struct {
        const char *name;
        double fraction;
    } points[] = {{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}};

    value_set_map(out);
    if (!latency->count)
        return;
    value_put_real(out, "min", (double)latency->min / 1e6);
    value_put_real(out, "mean", histogram_mean(latency) / 1e6);
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++)
        value_put_real(out, points[i].name,
                       (double)histogram_percentile(latency, points[i].fraction) / 1e6);
    value_put_real(out, "max", (double)latency->max / 1e6);
}

static void report_tally(const struct load_tally *tally, struct value *out)
{
    value_set_map(out);
    value_put_int(out, "count", (int64_t)tally->count);
    value_put_int(out, "errors", (int64_t)tally->errors);
    report_latency(&tally->latency, value_put(out, "latency"));
}

void load_report(const struct load_result *result, struct value *out)
{
    report_tally(&result->all, out);
    value_put_real(out, "seconds", result->seconds);
    value_put_real(out, "throughput",
                   result->seconds > 0 ? (double)result->all.count / result->seconds : 0);
    if (result->status.kind == VALUE_NIL)
        value_set_map(value_put(out, "status"));
    else
        value_copy(value_put(out, "status"), &result->status);
    struct value *groups = value_put(out, "groups");
    value_set_map(groups);
    for (size_t i = 0; i < result->group_count; i++)
        report_tally(&result->groups[i]->tally, value_put(groups, result->groups[i]->value));
    struct value *errors = value_put(out, "first_errors");
    value_set_array(errors);
    for (size_t i = 0; i < result->error_count; i++)
        value_push_string(errors, result->first_errors[i]);
}

void load_result_free(struct load_result *result)
{
    value_free(&result->status);
    for (size_t i = 0; i < result->group_count; i++) {
        free(result->groups[i]->value);
        free(result->groups[i]);
    }
    for (size_t i = 0; i < result->error_count; i++)
        free(result->first_errors[i]);
    *result = (struct load_result){0};
}
