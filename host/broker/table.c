/* All rows. A new area is one line here and one in `areas`. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "broker/primitive.h"

extern const struct primitive event_rows[], fs_rows[], exec_rows[], script_rows[], ask_rows[],
    k8s_rows[], secret_rows[];
extern const struct primitive http_rows[], hash_rows[], mlflow_rows[], kubeflow_rows[], azdo_rows[],
    azureml_rows[], databricks_rows[], registry_rows[], seldon_rows[];

static const struct primitive *const areas[] = {
    event_rows,  fs_rows,       exec_rows, script_rows,  http_rows,       hash_rows,
    mlflow_rows, kubeflow_rows, azdo_rows, azureml_rows, databricks_rows, registry_rows,
    seldon_rows, ask_rows,      k8s_rows,  secret_rows,
};

static const struct primitive **table;
static size_t table_count;
static bool filled;

static int by_name(const void *a, const void *b)
{
    const struct primitive *const *x = a, *const *y = b;
    return strcmp((*x)->sign.name, (*y)->sign.name);
}

static void add(const struct primitive *row)
{
    table = mem_array(table, table_count + 1, sizeof *table);
    table[table_count++] = row;
}

/* What primitive_add took before is in the table already. */
static void fill(void)
{
    for (size_t i = 0; i < sizeof areas / sizeof *areas; i++) {
        for (const struct primitive *row = areas[i]; row->sign.name; row++)
            add(row);
    }
    filled = true;
    qsort(table, table_count, sizeof *table, by_name);
}

int primitive_add(const struct primitive *row, struct error *err)
{
    bool taken = false;

    if (filled)
        return error_set(err, ERR_USAGE, "primitive '%s' comes too late: the table is in use",
                         row->sign.name);
    for (size_t i = 0; i < sizeof areas / sizeof *areas; i++) {
        for (const struct primitive *other = areas[i]; other->sign.name; other++)
            taken = taken || strcmp(other->sign.name, row->sign.name) == 0;
    }
    for (size_t i = 0; i < table_count; i++)
        taken = taken || strcmp(table[i]->sign.name, row->sign.name) == 0;
    if (taken)
        return error_set(err, ERR_EXISTS, "there is a primitive '%s' already", row->sign.name);
    add(row);
    return 0;
}

const struct primitive *const *primitive_table(size_t *count)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, fill);
    *count = table_count;
    return table;
}

const struct primitive *primitive_find(const char *name)
{
    size_t low = 0, high;
    const struct primitive *const *rows = primitive_table(&high);

    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(name, rows[middle]->sign.name);
        if (order == 0)
            return rows[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}
