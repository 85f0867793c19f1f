/*
 * mlhost.yaml, and parameters from a command line and a file. The first byte chooses. A
 * configuration that is taken has a profile that it names; a parameter that is taken has its type
 * and is one of its choices.
 */
#include "fuzz.h"

#include <fcntl.h>

#include "base/config.h"
#include "folder.h"
#include "run/params.h"

static void configuration(const char *text, size_t len)
{
    static const char *const services[] = {"registry", "mlflow", "kubeflow",   "azdo",
                                           "azureml",  "k8s",    "databricks", "seldon"};
    struct config config = {0};
    struct error err = {0};

    fuzz_file("mlhost.yaml", text, len);
    int status = config_load(fuzz_folder(), NULL, &config, &err);
    check_result(status, &err);
    if (status < 0) {
        check(err.code != ERR_INVALID || strstr(err.message, "mlhost.yaml"));
        return;
    }
    check(config.profile && (config_is_local(&config) ||
                             value_get(value_get(&config.root, "profiles"), config.profile)));
    for (size_t i = 0; i < sizeof services / sizeof *services; i++) {
        const struct value *service = config_service(&config, services[i]);
        check(!service || service->kind == VALUE_MAP);
    }
    config_free(&config);
}

static bool is(const struct value *v, const char *type)
{
    return strcmp(type, "string") == 0   ? v->kind == VALUE_STRING
           : strcmp(type, "int") == 0    ? v->kind == VALUE_INT
           : strcmp(type, "number") == 0 ? v->kind == VALUE_INT || v->kind == VALUE_REAL
           : strcmp(type, "bool") == 0   ? v->kind == VALUE_BOOL
           : strcmp(type, "list") == 0   ? v->kind == VALUE_ARRAY
                                         : false;
}

/* Lines: the declarations as JSON, a word of the command line, the file as YAML. */
static void parameters(char *lines[3])
{
    cleanup_value struct value declared = {0};
    cleanup_value struct value file = {0};
    cleanup_value struct value out = {0};
    const char *words[] = {lines[1]};
    struct error err = {0};

    if (value_from_json(lines[0], strlen(lines[0]), "x", NULL, &declared, &err) < 0 ||
        declared.kind != VALUE_MAP)
        return;
    err = (struct error){0};
    fuzz_file("params.yaml", lines[2], strlen(lines[2]));
    cleanup_free char *path = path_join(fuzz_folder(), "params.yaml");
    int status = params_file(path, &file, &err);
    check_result(status, &err);
    err = (struct error){0};
    status =
        params_resolve(&declared, words, *lines[1] ? 1 : 0, status == 0 ? &file : NULL, &out, &err);
    check_result(status, &err);
    if (status < 0)
        return;
    for (size_t i = 0; i < value_count(&out); i++) {
        const struct value_pair *pair = &out.as.map.pairs[i];
        const struct value *spec = value_get(&declared, pair->key);
        check(spec);
        const char *type = value_get_string(spec, "type", NULL);
        if (type)
            check(is(&pair->value, type));
        const struct value *choices = value_get(spec, "choices");
        bool found = !type || !choices || choices->kind != VALUE_ARRAY;
        for (size_t k = 0; !found && k < value_count(choices); k++)
            found = value_equal(value_at(choices, k), &pair->value);
        check(found);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *lines[3];

    if (size < 1)
        return 0;
    if (data[0] & 1) {
        cleanup_free char *text = mem_strndup((const char *)data + 1, size - 1);
        cut_lines(text, lines, 3);
        parameters(lines);
    } else {
        configuration((const char *)data + 1, size - 1);
    }
    return 0;
}
