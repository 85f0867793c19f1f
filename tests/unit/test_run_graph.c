/* Plans as graphs: cells, needs, cycles, durations; parameters. */
#include "check.h"

#include <string.h>

#include "base/clock.h"
#include "run/graph.h"
#include "run/params.h"

static void plan_of(const char *json, struct value *plan)
{
    struct error err = {0};
    assert_int_equal(value_from_json(json, strlen(json), "plan", NULL, plan, &err), 0);
}

static void wrong(const char *json, const char *message, const char *hint)
{
    struct value plan = {0};
    struct graph graph;
    struct error err = {0};

    plan_of(json, &plan);
    assert_int_equal(graph_build(&plan, "ci.lua", &graph, NULL, &err), -1);
    if (!strstr(err.message, message) || !strstr(err.hint, hint))
        fail_msg("got '%s' (%s), wanted '%s' (%s)", err.message, err.hint, message, hint);
    assert_int_equal(err.code, ERR_INVALID);
    value_free(&plan);
}

static void cells_are_the_product_of_the_axes(void **state)
{
    (void)state;
    struct value plan = {0};
    struct graph graph;
    struct error err = {0};

    plan_of(
        "{\"pipeline\":{\"name\":\"p\",\"timeout\":\"1h\"},\"stages\":["
        "{\"name\":\"a\",\"line\":1,\"timeout\":\"90s\",\"retry\":{\"max\":2,\"backoff\":\"30s\"}},"
        "{\"name\":\"b\",\"line\":2,\"needs\":[\"a\",\"a\"],\"matrix\":{\"py\":[\"3.10\",3],\"os\":"
        "[\"x\",\"y\"]}}]}",
        &plan);
    assert_int_equal(graph_build(&plan, "ci.lua", &graph, NULL, &err), 0);
    assert_int_equal(graph.timeout_ns, 3600 * NS_PER_S);
    assert_int_equal(graph.stages[0].timeout_ns, 90 * NS_PER_S);
    assert_int_equal(graph.stages[0].retries, 2);
    assert_int_equal(graph.stages[0].backoff_ns, 30 * NS_PER_S);
    assert_int_equal(graph.stages[1].need_count, 1);
    assert_int_equal(graph.cell_count, 5);
    assert_string_equal(graph.cells[0].name, "a");
    assert_string_equal(graph.cells[1].name, "b[os=x,py=3.10]");
    assert_string_equal(graph.cells[2].name, "b[os=x,py=3]");
    assert_string_equal(graph.cells[4].name, "b[os=y,py=3]");
    assert_ptr_equal(graph_cell(&graph, "b[os=y,py=3]"), &graph.cells[4]);
    assert_null(graph_stage(&graph, "c"));
    graph_free(&graph);
    value_free(&plan);
}

static void mistakes_are_named_with_their_line(void **state)
{
    (void)state;
    wrong("{\"stages\":[]}", "ci.lua:1: the script defines no stage", "stage \"hello\"");
    wrong("{\"stages\":[{\"name\":\"build\",\"line\":3},{\"name\":\"t\",\"line\":7,\"needs\":["
          "\"biuld\"]}]}",
          "ci.lua:7: stage 't' needs 'biuld', which no stage is called", "did you mean 'build'?");
    wrong("{\"stages\":[{\"name\":\"a\",\"line\":3},{\"name\":\"a\",\"line\":9}]}",
          "ci.lua:9: stage 'a' is defined twice, first at ci.lua:3", "another name");
    wrong("{\"stages\":[{\"name\":\"a\",\"line\":1,\"needs\":[\"c\"]},{\"name\":\"b\",\"line\":2,"
          "\"needs\":[\"a\"]},"
          "{\"name\":\"c\",\"line\":3,\"needs\":[\"b\"]}]}",
          "a -> c -> b -> a", "take one");
    wrong("{\"stages\":[{\"name\":\"a\",\"line\":4,\"needs\":[\"a\"]}]}",
          "ci.lua:4: stages need each other in a circle: a -> a", "");
    wrong("{\"stages\":[{\"name\":\"a\",\"line\":5,\"timeout\":\"5 fortnights\"}]}",
          "ci.lua:5: stage 'a': timeout: ", "30s");
    wrong("{\"stages\":[{\"name\":\"a\",\"line\":5,\"retry\":{\"max\":-1}}]}", "retry.max",
          "max = 2");
    wrong("{\"stages\":[{\"name\":\"a\",\"line\":5,\"matrix\":{\"x\":[]}}]}", "matrix axis 'x'",
          "");
    wrong("{\"stages\":[{\"name\":\"a/b\",\"line\":5}]}", "'a/b' cannot be a stage's name", "");
    wrong("{\"pipeline\":{\"timeout\":\"soon\"},\"stages\":[{\"name\":\"a\"}]}",
          "pipeline: timeout", "");
}

static void every_mistake_becomes_a_finding(void **state)
{
    (void)state;
    struct value plan = {0}, findings = {0};
    struct graph graph;

    plan_of(
        "{\"stages\":[{\"name\":\"a\",\"line\":1,\"needs\":[\"x\",\"y\"],\"timeout\":\"never\"}]}",
        &plan);
    value_set_array(&findings);
    assert_int_equal(graph_build(&plan, "ci.lua", &graph, &findings, NULL), -1);
    assert_int_equal(value_count(&findings), 3);
    value_free(&findings);
    value_free(&plan);
}

static void a_huge_matrix_is_refused(void **state)
{
    (void)state;
    cleanup_buf struct buf json = BUF_INIT;

    buf_puts(&json, "{\"stages\":[{\"name\":\"a\",\"matrix\":{");
    for (int axis = 0; axis < 4; axis++) {
        buf_printf(&json, "%s\"a%d\":[0", axis ? "," : "", axis);
        for (int i = 1; i < 50; i++)
            buf_printf(&json, ",%d", i);
        buf_putc(&json, ']');
    }
    buf_puts(&json, "}}]}");
    wrong(json.data, "more than 20000 cells", "");
}

static const char declared_json[] =
    "{\"upload\":{\"default\":\"new\",\"choices\":[\"new\",\"version\"]},\"epochs\":5,\"rate\":{"
    "\"type\":\"number\"},"
    "\"dry\":false,\"names\":[\"a\"],\"data\":{\"type\":\"string\",\"required\":true}}";

static int resolve(const char *const *texts, size_t count, const char *file_json, struct value *out,
                   struct error *err)
{
    struct value declared = {0}, file = {0};

    plan_of(declared_json, &declared);
    if (file_json)
        plan_of(file_json, &file);
    int rc = params_resolve(&declared, texts, count, file_json ? &file : NULL, out, err);
    value_free(&declared);
    value_free(&file);
    return rc;
}

static void parameters_get_their_types(void **state)
{
    (void)state;
    const char *const texts[] = {"upload=version", "rate=0.5", "dry=true", "names=x,y", "data=a=b"};
    struct value out = {0};
    struct error err = {0};
    cleanup_buf struct buf json = BUF_INIT;

    assert_int_equal(resolve(texts, 5, "{\"epochs\":7,\"data\":\"file\"}", &out, &err), 0);
    value_to_json(&out, TEXT_SORTED, &json);
    assert_string_equal(
        json.data,
        "{\"data\":\"a=b\",\"dry\":true,\"epochs\":7,\"names\":[\"x\",\"y\"],\"rate\":0.5,"
        "\"upload\":\"version\"}");
    value_free(&out);
}

static void bad_parameter(const char *text, const char *file, const char *message, const char *hint)
{
    const char *const texts[] = {"data=x", text};
    struct value out = {0};
    struct error err = {0};

    assert_int_equal(resolve(texts, text ? 2 : 0, file, &out, &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
    if (!strstr(err.message, message) || !strstr(err.hint, hint))
        fail_msg("got '%s' (%s)", err.message, err.hint);
}

static void wrong_parameters_say_what_is_allowed(void **state)
{
    (void)state;
    bad_parameter("upload=versoin", NULL,
                  "parameter 'upload' is \"versoin\"; allowed: \"new\", \"version\"", "'version'");
    bad_parameter("epochs=many", NULL, "'epochs' must be of type int, not 'many'",
                  "a whole number");
    bad_parameter("dry=maybe", NULL, "type bool", "true or false");
    bad_parameter("uplaod=new", NULL, "no parameter 'uplaod'", "did you mean 'upload'?");
    bad_parameter("zzzzzzzzzz=1", NULL, "no parameter", "it has: ");
    bad_parameter("epochs", NULL, "written name=value", "");
    bad_parameter(NULL, NULL, "parameter 'data' (string) is required", "--param data=");
    bad_parameter("epochs=1", "{\"rate\":\"fast\"}", "'rate' must be of type number", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_are_the_product_of_the_axes),
        cmocka_unit_test(mistakes_are_named_with_their_line),
        cmocka_unit_test(every_mistake_becomes_a_finding),
        cmocka_unit_test(a_huge_matrix_is_refused),
        cmocka_unit_test(parameters_get_their_types),
        cmocka_unit_test(wrong_parameters_say_what_is_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
