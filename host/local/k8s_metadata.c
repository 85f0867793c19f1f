#include "local/k8s_metadata.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/random.h>

#include "base/clock.h"
#include "local/k8s_store.h"

static struct value *metadata_of(struct value *object)
{
    struct value *metadata = value_get(object, "metadata");

    if (!metadata || metadata->kind != VALUE_MAP) {
        metadata = value_put(object, "metadata");
        value_set_map(metadata);
    }
    return metadata;
}

uint64_t k8s_version_of(const struct value *object)
{
    return strtoull(value_text(value_path(object, "metadata.resourceVersion"), "0"), NULL, 10);
}

static int put_uid(struct value *metadata, struct error *err)
{
    unsigned char b[16];

    if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
        return error_errno(err, errno, "no random numbers");
    b[6] = (unsigned char)(0x40 | (b[6] & 0x0f));
    b[8] = (unsigned char)(0x80 | (b[8] & 0x3f));
    struct value *uid = value_put(metadata, "uid");
    value_set_printf(uid, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                     b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11],
                     b[12], b[13], b[14], b[15]);
    return 0;
}

void k8s_time(int64_t unix_seconds, char *to, size_t size)
{
    time_t time = (time_t)unix_seconds;
    struct tm tm;

    gmtime_r(&time, &tm);
    strftime(to, size, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

void k8s_time_now(char *to, size_t size)
{
    k8s_time(clock_wall_ms() / 1000, to, size);
}

static void put_now(struct value *metadata, const char *key)
{
    char text[32];

    k8s_time_now(text, sizeof text);
    value_put_string(metadata, key, text);
}

/* Whether anything but metadata and status differs. */
static bool spec_differs(const struct value *a, const struct value *b)
{
    size_t same = 0, others = 0;

    for (size_t i = 0; i < a->as.map.count; i++) {
        const struct value_pair *pair = &a->as.map.pairs[i];
        if (strcmp(pair->key, "metadata") == 0 || strcmp(pair->key, "status") == 0)
            continue;
        const struct value *other = value_get(b, pair->key);
        if (!other || !value_equal(&pair->value, other))
            return true;
        same++;
    }
    for (size_t i = 0; i < b->as.map.count; i++) {
        const char *key = b->as.map.pairs[i].key;
        others += strcmp(key, "metadata") != 0 && strcmp(key, "status") != 0;
    }
    return same != others;
}

static void put_generation(const char *resource, struct value *next, const struct value *before)
{
    struct value *metadata = metadata_of(next);
    const struct value *old = before ? value_get(before, "metadata") : NULL;
    int64_t generation = value_get_int(old, "generation", 0);

    value_remove(metadata, "generation");
    if (!strchr(resource, '.'))
        return;
    if (!before || spec_differs(next, before) ||
        (value_get(metadata, "deletionTimestamp") && !value_get(old, "deletionTimestamp")))
        generation++;
    value_put_int(metadata, "generation", generation);
}

int k8s_fill(const char *resource, struct value *next, const struct value *before,
             struct error *err)
{
    static const char *const kept[] = {"uid", "creationTimestamp", "resourceVersion"};
    struct value *metadata = metadata_of(next);
    const struct value *old = before ? value_get(before, "metadata") : NULL;

    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        const struct value *was = value_get(old, kept[i]);
        value_remove(metadata, kept[i]);
        if (was)
            value_copy(value_put(metadata, kept[i]), was);
    }
    if (!before) {
        put_now(metadata, "creationTimestamp");
        if (put_uid(metadata, err) < 0)
            return -1;
    }
    put_generation(resource, next, before);
    return 0;
}

void k8s_put_version(struct value *object, uint64_t version)
{
    value_set_printf(value_put(metadata_of(object), "resourceVersion"), "%" PRIu64, version);
}

static bool usable_name(const char *text)
{
    return *text && *text != '.' && strlen(text) <= 253 && !strchr(text, '/');
}

int k8s_check_names(const char *resource, const char *namespace, const char *name,
                    struct error *err)
{
    if (!usable_name(name))
        return error_set(err, ERR_INVALID, "'%.80s' is no name for an object of %s", name,
                         resource);
    if (*namespace && (!usable_name(namespace) || strcmp(namespace, "_") == 0))
        return error_set(err, ERR_INVALID, "'%.80s' is no name for a namespace", namespace);
    return 0;
}
