/* The parser of Dockerfiles, the expansion of variables, and .dockerignore; the first byte chooses.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/dockerfile.h"
#include "oci/ignore.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *lookup(void *ctx, const char *name, size_t len)
{
    (void)ctx;
    return len && name[0] == 'a' ? "value" : len && name[0] == 'e' ? "" : NULL;
}

static void expand(const char *word)
{
    struct error err = {0}, problem = {0};
    cleanup_value struct value words = {0};
    cleanup_free char *text = dockerfile_expand(word, '\\', 0, lookup, NULL, &err);

    cleanup_free char *raw =
        dockerfile_expand(word, '\\', DOCKERFILE_RAW_QUOTES, lookup, NULL, &problem);

    if ((!text && !err.code) || (!raw && !problem.code))
        abort();
    value_set_array(&words);
    dockerfile_split(word, '\\', &words, &err);
}

static void parse(const char *text, size_t len)
{
    cleanup_value struct value strict = {0};
    cleanup_value struct value lenient = {0};
    cleanup_value struct value problems = {0};
    struct error err = {0};

    cleanup_value struct value trigger = {0};

    if (dockerfile_parse_trigger(text, "base", 1, &trigger, &err) != 0 && !err.code)
        abort();
    value_set_array(&problems);
    int good = dockerfile_parse(text, len, "Dockerfile", &strict, NULL, &err);
    if (good != 0 && !err.code)
        abort();
    /* What the builder takes has no problem for the linter, and the other way round. */
    if (dockerfile_parse(text, len, "Dockerfile", &lenient, &problems, &err) == 0 &&
        (good == 0) != (value_count(&problems) == 0))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};

    if (size < 1 || size > (1u << 20))
        return 0;
    cleanup_free char *text = mem_strndup((const char *)data + 1, size - 1);
    switch (data[0] % 3) {
    case 0:
        parse(text, size - 1);
        break;
    case 1:
        expand(text);
        break;
    default: {
        struct ignore *ignore = ignore_parse(text, size - 1, ".dockerignore", &err);
        if (!ignore && !err.code)
            abort();
        ignore_match(ignore, "a/b/c.txt");
        ignore_may_reenter(ignore, "a");
        ignore_free(ignore);
    }
    }
    return 0;
}
