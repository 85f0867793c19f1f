#include "local/k8s_selector.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum term_kind { ONE_OF, NONE_OF, IS_THERE, IS_ABSENT };
struct term {
    enum term_kind kind;
    bool field; /* key is a dotted path, absent is "" */
    char *key;
    char **values;
    size_t count;
};
struct k8s_selector {
    struct term *terms;
    size_t count;
};

static struct term *add_term(struct k8s_selector *selector, enum term_kind kind, char *key)
{
    if ((selector->count & (selector->count - 1)) == 0)
        selector->terms = mem_array(selector->terms, selector->count ? 2 * selector->count : 1,
                                    sizeof *selector->terms);
    struct term *term = &selector->terms[selector->count++];
    *term = (struct term){.kind = kind, .key = key};
    return term;
}

static void add_value(struct term *term, char *value)
{
    term->values = mem_array(term->values, term->count + 1, sizeof *term->values);
    term->values[term->count++] = value;
}

/* ---- labels ---- */

static const char *skip(const char *at)
{
    while (isspace((unsigned char)*at))
        at++;
    return at;
}

static size_t word(const char *at)
{
    size_t len = 0;

    while (isalnum((unsigned char)at[len]) || (at[len] && strchr("-_./", at[len])))
        len++;
    return len;
}

static int bad(struct error *err, const char *text, const char *at)
{
    return error_set(err, ERR_INVALID,
                     "unable to parse requirement: '%.200s', at '%.40s': a label selector is "
                     "key=value, key!=value, key in (a,b), key notin (a,b), key, !key",
                     text, at);
}

/* "(a, b)". NULL when it is none. */
static const char *read_set(struct term *term, const char *at)
{
    if (*at != '(')
        return NULL;
    at = skip(at + 1);
    for (;;) {
        size_t len = word(at);
        add_value(term, mem_strndup(at, len));
        at = skip(at + len);
        if (*at == ')')
            return at + 1;
        if (*at != ',')
            return NULL;
        at = skip(at + 1);
    }
}

/* The requirement at `at`; returns where it ends, or NULL. */
static const char *read_label(struct k8s_selector *selector, const char *at)
{
    bool absent = *at == '!';

    at = skip(at + absent);
    size_t len = word(at);
    if (!len)
        return NULL;
    struct term *term = add_term(selector, absent ? IS_ABSENT : IS_THERE, mem_strndup(at, len));
    at = skip(at + len);
    if (absent || !*at || *at == ',')
        return at;
    if (*at == '=' || (*at == '!' && at[1] == '=')) {
        term->kind = *at == '=' ? ONE_OF : NONE_OF;
        at = skip(at + 1 + (at[1] == '='));
        len = word(at);
        add_value(term, mem_strndup(at, len));
        return skip(at + len);
    }
    len = word(at);
    if (len == 2 && strncmp(at, "in", 2) == 0)
        term->kind = ONE_OF;
    else if (len == 5 && strncmp(at, "notin", 5) == 0)
        term->kind = NONE_OF;
    else
        return NULL;
    at = read_set(term, skip(at + len));
    return at ? skip(at) : NULL;
}

static int read_labels(struct k8s_selector *selector, const char *text, struct error *err)
{
    const char *at = skip(text);

    while (*at) {
        const char *end = read_label(selector, at);
        if (!end || (*end && *end != ',') || (*end == ',' && !*skip(end + 1)))
            return bad(err, text, end ? end : at);
        at = *end ? skip(end + 1) : end;
    }
    return 0;
}

/* ---- fields ---- */

static bool field_known(const struct k8s_resource *resource, const char *key)
{
    static const char *const known[][2] = {
        {NULL, "metadata.name"},
        {NULL, "metadata.namespace"},
        {"pods", "status.phase"},
        {"pods", "status.podIP"},
        {"pods", "spec.nodeName"},
        {"pods", "spec.restartPolicy"},
        {"pods", "spec.schedulerName"},
        {"pods", "spec.serviceAccountName"},
        {"namespaces", "status.phase"},
        {"secrets", "type"},
        {"events", "involvedObject.kind"},
        {"events", "involvedObject.namespace"},
        {"events", "involvedObject.name"},
        {"events", "involvedObject.uid"},
        {"events", "involvedObject.apiVersion"},
        {"events", "involvedObject.resourceVersion"},
        {"events", "involvedObject.fieldPath"},
        {"events", "reason"},
        {"events", "reportingComponent"},
        {"events", "source"},
        {"events", "type"},
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if ((!known[i][0] || strcmp(known[i][0], resource->store) == 0) &&
            strcmp(known[i][1], key) == 0)
            return true;
    }
    return false;
}

/* "\," and "\=" stand for themselves. */
static size_t read_value(const char *at, struct buf *out)
{
    size_t len = 0;

    for (; at[len] && at[len] != ','; len++) {
        if (at[len] == '\\' && at[len + 1])
            len++;
        buf_putc(out, at[len]);
    }
    return len;
}

static int read_fields(struct k8s_selector *selector, const struct k8s_resource *resource,
                       const char *at, struct error *err)
{
    while (*at) {
        size_t len = strcspn(at, "=!,");
        cleanup_free char *key = mem_strndup(at, len);
        bool equal = at[len] == '=', differs = at[len] == '!' && at[len + 1] == '=';
        struct buf value = BUF_INIT;
        if (!equal && !differs)
            return error_set(
                err, ERR_INVALID,
                "invalid field selector '%.100s': it must be name=value or name!=value", at);
        if (!field_known(resource, key))
            return error_set(err, ERR_INVALID, "field label not supported: %.100s", key);
        at += len + 1;
        if (differs || *at == '=')
            at++;
        at += read_value(at, &value);
        struct term *term = add_term(selector, equal ? ONE_OF : NONE_OF, steal_ptr(&key));
        term->field = true;
        add_value(term, buf_steal(&value));
        at += *at == ',';
    }
    return 0;
}

/* ---- the whole ---- */

struct k8s_selector *k8s_selector_parse(const struct k8s_resource *resource, const char *labels,
                                        const char *fields, struct error *err)
{
    struct k8s_selector *selector = mem_alloc(sizeof *selector);

    if ((labels && read_labels(selector, labels, err) < 0) ||
        (fields && read_fields(selector, resource, fields, err) < 0)) {
        k8s_selector_free(selector);
        return NULL;
    }
    return selector;
}

static bool has(const struct term *term, const char *text)
{
    for (size_t i = 0; i < term->count; i++) {
        if (strcmp(term->values[i], text) == 0)
            return true;
    }
    return false;
}

bool k8s_selector_matches(const struct k8s_selector *selector, const struct value *object)
{
    const struct value *labels = value_path(object, "metadata.labels");

    for (size_t i = 0; i < selector->count; i++) {
        const struct term *term = &selector->terms[i];
        const char *text = term->field ? value_text(value_path(object, term->key), "")
                                       : value_get_string(labels, term->key, NULL);
        bool fits = term->kind == ONE_OF     ? text && has(term, text)
                    : term->kind == NONE_OF  ? !text || !has(term, text)
                    : term->kind == IS_THERE ? text != NULL
                                             : text == NULL;
        if (!fits)
            return false;
    }
    return true;
}

void k8s_selector_free(struct k8s_selector *selector)
{
    if (!selector)
        return;
    for (size_t i = 0; i < selector->count; i++) {
        for (size_t k = 0; k < selector->terms[i].count; k++)
            free(selector->terms[i].values[k]);
        free(selector->terms[i].values);
        free(selector->terms[i].key);
    }
    free(selector->terms);
    free(selector);
}
