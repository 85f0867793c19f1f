/* The readers of outside data in base: the first byte chooses frame, JSON, YAML or a duration. What
 * is read must survive being written and read again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct text_limits small = {.bytes = 1 << 16, .depth = 64, .nodes = 20000};

static void again_as_frame(const struct value *v)
{
    cleanup_buf struct buf bytes = BUF_INIT;
    cleanup_value struct value back = {0};
    struct error err = {0};

    frame_append(v, &bytes);
    if (frame_take(&bytes, &back, &err) != 1)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_value struct value v = {0};
    cleanup_value struct value back = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct error err = {0};
    int64_t ns;

    if (size < 1)
        return 0;
    const char *body = (const char *)data + 1;
    switch (data[0] % 4) {
    case 0:
        if (value_decode(body, size - 1, &v, &err) == 0)
            again_as_frame(&v);
        break;
    case 1:
        if (value_from_json(body, size - 1, "fuzz", &small, &v, &err) == 0) {
            value_to_json(&v, TEXT_SORTED, &text);
            if (value_from_json(text.data, text.len, "again", NULL, &back, &err) < 0 ||
                !value_equal(&v, &back))
                abort();
        }
        break;
    case 2:
        if (value_from_yaml(body, size - 1, "fuzz", &small, true, &v, &err) == 0) {
            again_as_frame(&v);
            value_to_yaml(&v, &text);
        }
        break;
    default: {
        cleanup_free char *word = mem_strndup(body, size - 1);
        duration_parse(word, &ns, &err);
    }
    }
    return 0;
}
