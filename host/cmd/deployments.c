#include "cmd/deployments.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define OBJECT_LIMIT (4u << 20)
#define FOLDER       "local/kubernetes/seldondeployments.machinelearning.seldon.io"

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void read_one(const char *path, struct value *list)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value object = {0};
    struct error ignored = {0};

    if (file_read(AT_FDCWD, path, OBJECT_LIMIT, &text, &ignored) < 0 || !text.len ||
        value_from_json(text.data, text.len, path, NULL, &object, &ignored) < 0)
        return;
    const struct value *meta = value_get(&object, "metadata");
    const struct value *predictors = value_get(value_get(&object, "spec"), "predictors");
    struct value *entry = value_push(list);
    value_set_map(entry);
    value_put_string(entry, "namespace", value_get_string(meta, "namespace", ""));
    value_put_string(entry, "name", value_get_string(meta, "name", ""));
    value_put_string(entry, "state",
                     value_get_string(value_get(&object, "status"), "state", "Creating"));
    struct value *names = value_put(entry, "predictors");
    value_set_array(names);
    for (size_t i = 0; i < value_count(predictors); i++)
        value_push_string(names, value_get_string(value_at(predictors, i), "name", ""));
}

static void read_folder(const char *folder, struct value *list)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, visible, alphasort);

    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        size_t len = strlen(name);
        if (len > 5 && strcmp(name + len - 5, ".json") == 0) {
            cleanup_free char *path = path_join(folder, name);
            read_one(path, list);
        }
        free(entries[i]);
    }
    free(entries);
}

void deployments_read(const struct config *config, struct value *out)
{
    cleanup_free char *root = path_join(config->state, FOLDER);
    struct dirent **entries = NULL;
    int count = scandir(root, &entries, visible, alphasort);

    value_set_array(out);
    for (int i = 0; i < count; i++) {
        cleanup_free char *folder = path_join(root, entries[i]->d_name);
        read_folder(folder, out);
        free(entries[i]);
    }
    free(entries);
}

void deployments_print(const struct value *list, const char *url, struct buf *out)
{
    for (size_t i = 0; i < value_count(list); i++) {
        const struct value *one = value_at(list, i);
        const char *namespace = value_get_string(one, "namespace", "");
        const char *name = value_get_string(one, "name", "");
        buf_printf(out, "  %-10s %s/seldon/%s/%s/\n", value_get_string(one, "state", ""),
                   url ? url : "", namespace, name);
    }
}
