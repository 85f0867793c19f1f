/* The embedded Seldon without processes: shares, tables of routes, documents, the walk. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "local/seldon_graph.h"
#include "local/seldon_metrics.h"
#include "local/server.h"

static struct value json(const char *text)
{
    struct value v = {0};
    struct error err = {0};

    ok(value_from_json(text, strlen(text), "test", NULL, &v, &err), err);
    return v;
}

static char *printed(const struct value *v)
{
    struct buf text = BUF_INIT;

    value_to_json(v, TEXT_SORTED, &text);
    return buf_steal(&text);
}

/* ---- shares ---- */

static void weights_are_exact(void **state)
{
    const struct split_item items[] = {{"main", 63}, {"canary", 37}, {"off", 0}};
    struct split *split = split_new(items, 3, NULL);
    int last = -1, longest = 0, run = 0;

    (void)state;
    for (int window = 0; window < 7; window++) {
        int counts[3] = {0};
        for (int i = 0; i < 100; i++) {
            int index = split_next(split);
            counts[index]++;
            run = index == last ? run + 1 : 1;
            last = index;
            longest = run > longest ? run : longest;
        }
        assert_int_equal(counts[0], 63);
        assert_int_equal(counts[1], 37);
        assert_int_equal(counts[2], 0);
    }
    assert_true(longest <= 2); /* spread, not in lumps */
    split_unref(split);
}

static void a_split_goes_on(void **state)
{
    const struct split_item items[] = {{"a", 90}, {"b", 10}}, others[] = {{"a", 50}, {"b", 50}},
                            none[] = {{"a", 0}};
    struct split *first = split_new(items, 2, NULL);
    int counts[2] = {0};

    (void)state;
    for (int i = 0; i < 50; i++)
        counts[split_next(first)]++;
    struct split *same = split_new(items, 2, first);
    assert_ptr_equal(same, first);
    split_unref(first);
    for (int i = 0; i < 50; i++)
        counts[split_next(same)]++;
    assert_int_equal(counts[1], 10);
    struct split *other = split_new(others, 2, same);
    assert_ptr_not_equal(other, same);
    struct split *empty = split_new(none, 1, other);
    assert_int_equal(split_next(empty), -1);
    split_unref(same);
    split_unref(other);
    split_unref(empty);
}

static void shadows_get_their_percent(void **state)
{
    const struct split_item items[] = {{"main", 100}, {"dark", 0}};
    struct split *split = split_new(items, 2, NULL);

    (void)state;
    for (int percent = 0; percent <= 100; percent += 25) {
        int copies = 0;
        for (int i = 0; i < 100; i++)
            copies += split_share(split, 1, percent);
        assert_int_equal(copies, percent);
    }
    split_unref(split);
}

/* ---- documents ---- */

static void branches(void **state)
{
    static const struct {
        const char *text;
        int branch;
    } good[] = {{"{\"data\":{\"ndarray\":[[1]]}}", 1},
                {"{\"data\":{\"ndarray\":[-1]}}", -1},
                {"{\"data\":{\"tensor\":{\"shape\":[1,1],\"values\":[2.0]}}}", 2},
                {"[[-2]]", -2},
                {"[0]", 0}};
    static const char *const bad[] = {"{}", "[]", "{\"data\":{\"ndarray\":[[\"x\"]]}}", "3",
                                      "{\"data\":{\"ndarray\":[1e99]}}"};
    struct error err = {0};
    int branch;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cleanup_value struct value v = json(good[i].text);
        ok(seldon_branch(&v, &branch, &err), err);
        assert_int_equal(branch, good[i].branch);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cleanup_value struct value v = json(bad[i]);
        fails(seldon_branch(&v, &branch, &err), err, ERR_INVALID, "names no branch");
    }
}

static void averages(void **state)
{
    cleanup_value struct value
        same = json("[{\"data\":{\"names\":[\"t\"],\"ndarray\":[[1,2],[3,4]]}},"
                    "{\"data\":{\"ndarray\":[[3,4],[5,8]]}}]"),
        odd = json("[{\"data\":{\"ndarray\":[[1,2]]}},{\"data\":{\"ndarray\":[[1]]}}]"),
        words = json("[{\"strData\":\"x\"},{\"strData\":\"y\"}]"), out = {0};
    struct error err = {0};

    (void)state;
    ok(seldon_average(&same, &out, &err), err);
    cleanup_free char *text = printed(&out);
    assert_string_equal(text, "{\"data\":{\"names\":[\"t\"],\"ndarray\":[[2.0,3.0],[4.0,6.0]]}}");
    value_free(&out);
    fails(seldon_average(&odd, &out, &err), err, ERR_INVALID, "same shape");
    value_free(&out);
    fails(seldon_average(&words, &out, &err), err, ERR_INVALID, "neither data.ndarray");
}

static void metas_are_merged(void **state)
{
    cleanup_value struct value
        reply = json("{\"meta\":{\"tags\":{\"v\":2}}}"),
        meta = json("{\"puid\":\"p\",\"tags\":{\"v\":1,\"w\":3},\"routing\":{\"r\":0},"
                    "\"requestPath\":{},\"metrics\":[1]}");

    (void)state;
    seldon_meta_merge(&reply, &meta);
    cleanup_free char *text = printed(&reply);
    assert_string_equal(
        text, "{\"meta\":{\"puid\":\"p\",\"routing\":{\"r\":0},\"tags\":{\"v\":2,\"w\":3}}}");
}

static void outputs_become_inputs(void **state)
{
    cleanup_value struct value v =
        json("{\"model_name\":\"m\",\"id\":\"7\",\"outputs\":[{\"name\":\"y\"}]}");

    (void)state;
    seldon_chain_v2(&v);
    cleanup_free char *text = printed(&v);
    assert_string_equal(text, "{\"id\":\"7\",\"inputs\":[{\"name\":\"y\"}]}");
}

/* ---- tables ---- */

static void set_routes(struct seldon_queue *queue, const char *text)
{
    cleanup_value struct value spec = json(text);
    struct error err = {0};

    ok(seldon_routes_set(queue, &spec, &err), err);
}

static bool is_drained(struct seldon_queue *queue, int64_t id)
{
    cleanup_value struct value event = {0};

    if (!seldon_queue_take(queue, clock_now(), &event))
        return false;
    assert_string_equal(value_get_string(&event, "t", ""), "drained");
    assert_int_equal(value_get_int(&event, "id", 0), id);
    return true;
}

#define ONE(endpoints)                                                                             \
    "{\"deployments\":[{\"namespace\":\"n\",\"name\":\"d\",\"predictors\":[{\"name\":\"main\","    \
    "\"traffic\":100,\"replicas\":[{\"name\":\"m\",\"type\":\"MODEL\",\"endpoints\":[" endpoints   \
    "]}]}]}]}"

static void a_process_is_drained_by_its_last_request(void **state)
{
    struct seldon_queue *queue = seldon_queue_new();

    (void)state;
    set_routes(queue, ONE("{\"id\":1,\"port\":1}"));
    struct seldon_routes *request = seldon_routes_get();
    set_routes(queue, ONE("{\"id\":1,\"port\":1},{\"id\":2,\"port\":2}"));
    assert_false(is_drained(queue, 1));
    struct seldon_routes *later = seldon_routes_get();
    set_routes(queue, ONE("{\"id\":2,\"port\":2}"));
    seldon_routes_unref(request);
    assert_false(is_drained(queue, 1)); /* the later one may still be at it */
    seldon_routes_unref(later);
    assert_true(is_drained(queue, 1));
    seldon_routes_clear();
    assert_true(is_drained(queue, 2));
    seldon_queue_free(queue);
}

static void an_unready_canary_gets_nothing(void **state)
{
    struct seldon_queue *queue = seldon_queue_new();
    struct seldon_routes *routes;

    (void)state;
    set_routes(queue, "{\"deployments\":[{\"namespace\":\"n\",\"name\":\"d\",\"predictors\":["
                      "{\"name\":\"main\",\"traffic\":0,\"replicas\":[{\"name\":\"m\"}]},"
                      "{\"name\":\"canary\",\"traffic\":100,\"replicas\":[]}]}]}");
    routes = seldon_routes_get();
    struct seldon_deployment *found = seldon_routes_find(routes, "n", "d");
    assert_non_null(found);
    assert_null(seldon_routes_find(routes, "other", "d"));
    for (int i = 0; i < 10; i++)
        assert_int_equal(split_next(found->split), 0);
    seldon_routes_unref(routes);
    seldon_routes_clear();
    seldon_queue_free(queue);
}

static void bad_tables_change_nothing(void **state)
{
    struct seldon_queue *queue = seldon_queue_new();
    struct buf deep = BUF_INIT;
    struct error err = {0};

    (void)state;
    set_routes(queue, ONE("{\"id\":1,\"port\":1}"));
    buf_puts(&deep, "{\"deployments\":[{\"predictors\":[{\"replicas\":[");
    for (int i = 0; i < SELDON_GRAPH_DEPTH + 2; i++)
        buf_puts(&deep, "{\"name\":\"x\",\"children\":[");
    for (int i = 0; i < SELDON_GRAPH_DEPTH + 2; i++)
        buf_puts(&deep, "]}");
    buf_puts(&deep, "]}]}]}");
    cleanup_value struct value spec = json(deep.data),
                               service = json("{\"services\":[{\"name\":\"s\",\"predictor\":0}]}");
    fails(seldon_routes_set(queue, &spec, &err), err, ERR_INVALID, "nodes deep");
    fails(seldon_routes_set(queue, &service, &err), err, ERR_INTERNAL, "of no predictor");
    struct seldon_routes *routes = seldon_routes_get();
    assert_non_null(seldon_routes_find(routes, "n", "d"));
    seldon_routes_unref(routes);
    seldon_routes_clear();
    buf_free(&deep);
    seldon_queue_free(queue);
}

/* ---- the walk: each node is a folder of one server ---- */

static atomic_int asked;

static void node(struct request *rq)
{
    cleanup_value struct value body = {0};
    struct error err = {0};
    double x = 0, sum = 0;

    asked++;
    if (value_from_json(rq->body.data ? rq->body.data : "", rq->body.len, "body", NULL, &body,
                        &err) == 0) {
        const struct value *row = value_at(value_path(&body, "data.ndarray"), 0);
        const struct value *one = value_at(row, 0);
        x = one ? (one->kind == VALUE_INT ? (double)one->as.integer : one->as.real) : 0;
        for (size_t i = 0; i < value_count(&body) && body.kind == VALUE_ARRAY; i++) {
            one = value_at(value_at(value_path(value_at(&body, i), "data.ndarray"), 0), 0);
            sum += one->kind == VALUE_INT ? (double)one->as.integer : one->as.real;
        }
    }
    cleanup_buf struct buf text = BUF_INIT;
    if (strcmp(rq->rest, "right/predict") == 0)
        buf_printf(&text, "{\"data\":{\"ndarray\":[[%g]]},\"meta\":{\"tags\":{\"right\":1}}}",
                   x + 100);
    else if (strcmp(rq->rest, "left/predict") == 0)
        buf_printf(&text, "{\"data\":{\"ndarray\":[[%g]]},\"meta\":{\"tags\":{\"left\":1}}}",
                   x + 1);
    else if (strcmp(rq->rest, "double/transform-input") == 0)
        buf_printf(&text, "{\"data\":{\"ndarray\":[[%g]]}}", x * 2);
    else if (strcmp(rq->rest, "sum/aggregate") == 0)
        buf_printf(&text, "{\"data\":{\"ndarray\":[[%g]]}}", sum);
    else if (strcmp(rq->rest, "pick/route") == 0)
        buf_printf(&text, "[[%d]]", x > 10 ? 1 : 0);
    else if (strcmp(rq->rest, "garbled/predict") == 0)
        buf_puts(&text, "<html>");
    else
        buf_puts(&text, "{\"status\":{\"info\":\"refused\"}}");
    answer(rq, text.data[2] == 's' ? 418 : 200, "application/json", text.data, text.len);
}

struct world {
    struct server *server;
    struct seldon_queue *queue;
    struct http *http;
    int port;
};

static int world_open(void **state)
{
    static const char *const prefixes[] = {"/", NULL};
    static struct service service = {.name = "node", .prefixes = prefixes, .handle = node};
    struct service *list[] = {&service};
    struct world *world = mem_alloc(sizeof *world);
    struct error err = {0};
    int fd = server_listen(&world->port, &err);

    world->server = server_start(&fd, 1, list, 1, false, &err);
    world->queue = seldon_queue_new();
    world->http = http_new(&err);
    *state = world;
    return world->server && world->http ? 0 : -1;
}

static int world_close(void **state)
{
    struct world *world = *state;

    seldon_routes_clear();
    http_free(world->http);
    server_stop(world->server, 1000);
    seldon_queue_free(world->queue);
    seldon_metrics_free();
    free(world);
    return 0;
}

/* The graph's text has PORT where the server's port goes. */
static char *walk(struct world *world, const char *graph, const char *body, int *status)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_message struct seldon_message message = {0};
    struct seldon_call call;

    buf_puts(&text, "{\"deployments\":[{\"namespace\":\"n\",\"name\":\"d\",\"timeout_ms\":5000,"
                    "\"predictors\":[{\"name\":\"main\",\"traffic\":100,\"replicas\":[");
    for (const char *at = graph; *at; at++) {
        if (strncmp(at, "PORT", 4) == 0) {
            buf_printf(&text, "%d", world->port);
            at += 3;
        } else {
            buf_putc(&text, *at == '\'' ? '"' : *at);
        }
    }
    buf_puts(&text, "]}]}]}");
    set_routes(world->queue, text.data);
    struct seldon_routes *routes = seldon_routes_get();
    struct seldon_deployment *deployment = seldon_routes_find(routes, "n", "d");
    seldon_call_init(&call, world->http, deployment, &deployment->predictors[0]);
    buf_puts(&message.body, body);
    *status = seldon_predict(&call, &message);
    seldon_call_end(&call);
    seldon_routes_unref(routes);
    struct buf out = BUF_INIT;
    if (message.tree.kind == VALUE_NIL)
        buf_append(&out, message.body.data, message.body.len);
    else
        value_to_json(&message.tree, TEXT_SORTED, &out);
    return buf_steal(&out);
}

#define NODE(name, type)                                                                           \
    "{'name':'" name "','type':'" type "','url':'http://127.0.0.1:PORT/" name "'"
#define BODY "{\"data\":{\"ndarray\":[[4]]},\"meta\":{\"puid\":\"p\"}}"

static void a_graph_is_walked(void **state)
{
    int status;
    cleanup_free char *reply = walk(
        *state,
        NODE("double", "TRANSFORMER") ",'children':[" NODE("sum", "COMBINER") ",'children':[" NODE(
            "left", "MODEL") "}," NODE("right", "MODEL") "}]}]}",
        BODY, &status);

    assert_int_equal(status, 0);
    holds(reply, "\"ndarray\":[[117]]"); /* (8 + 1) + (8 + 100) */
    holds(reply, "\"tags\":{\"left\":1,\"right\":1}");
    holds(reply, "\"routing\":{\"double\":-1,\"sum\":-1}");
    holds(reply, "\"puid\":\"p\"");
}

static void a_router_chooses(void **state)
{
    static const char graph[] = NODE("pick", "ROUTER") ",'children':[" NODE(
        "left", "MODEL") "}," NODE("right", "MODEL") "}]}";
    int status;
    cleanup_free char *small = walk(*state, graph, BODY, &status);
    cleanup_free char *large = walk(*state, graph, "{\"data\":{\"ndarray\":[[11]]}}", &status);

    holds(small, "\"ndarray\":[[5]]");
    holds(small, "\"routing\":{\"pick\":0}");
    holds(large, "\"ndarray\":[[111]]");
    holds(large, "\"requestPath\":{\"pick\":\"\",\"right\":\"\"}");
}

static void one_model_is_handed_through(void **state)
{
    int status;
    cleanup_free char *reply = walk(*state, NODE("left", "MODEL") "}", BODY, &status);

    assert_string_equal(reply, "{\"data\":{\"ndarray\":[[5]]},\"meta\":{\"tags\":{\"left\":1}}}");
}

static void failures_are_told(void **state)
{
    int status;
    cleanup_free char *refused = walk(*state, NODE("nobody", "MODEL") "}", BODY, &status);
    assert_int_equal(status, -1);
    assert_string_equal(refused, "{\"status\":{\"info\":\"refused\"}}");
    cleanup_free char *garbled =
        walk(*state, NODE("double", "TRANSFORMER") ",'children':[" NODE("garbled", "MODEL") "}]}",
             BODY, &status);
    assert_int_equal(status, -1);
    holds(garbled, "\"status\":\"FAILURE\"");
    holds(garbled, "garbled");
    cleanup_free char *none =
        walk(*state, "{'name':'gone','type':'MODEL','endpoints':[]}", BODY, &status);
    holds(none, "node gone: no process of it is ready");
    cleanup_free char *no_json =
        walk(*state, NODE("double", "TRANSFORMER") ",'children':[" NODE("left", "MODEL") "}]}",
             "hello", &status);
    assert_int_equal(status, -1);
    holds(no_json, "\"code\":400");
}

/* Port 1 is nobody's: the request goes to the next process. */
static void the_next_process_takes_over(void **state)
{
    int status, before = asked;

    for (int i = 0; i < 6; i++) {
        cleanup_free char *reply =
            walk(*state,
                 "{'name':'m','type':'MODEL','endpoints':[{'id':11,'port':1},{'id':12,'port':PORT},"
                 "{'id':13,'port':1}]}",
                 BODY, &status);
        assert_string_equal(reply, "{\"status\":{\"info\":\"refused\"}}"); /* somebody's answer */
    }
    assert_int_equal(asked, before + 6);
    cleanup_free char *reply =
        walk(*state, "{'name':'m','type':'MODEL','endpoints':[{'id':11,'port':1}]}", BODY, &status);
    assert_int_equal(status, -1);
    holds(reply, "\"code\":503");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_exact),
        cmocka_unit_test(a_split_goes_on),
        cmocka_unit_test(shadows_get_their_percent),
        cmocka_unit_test(branches),
        cmocka_unit_test(averages),
        cmocka_unit_test(metas_are_merged),
        cmocka_unit_test(outputs_become_inputs),
        cmocka_unit_test(a_process_is_drained_by_its_last_request),
        cmocka_unit_test(an_unready_canary_gets_nothing),
        cmocka_unit_test(bad_tables_change_nothing),
        cmocka_unit_test_setup_teardown(a_graph_is_walked, world_open, world_close),
        cmocka_unit_test_setup_teardown(a_router_chooses, world_open, world_close),
        cmocka_unit_test_setup_teardown(one_model_is_handed_through, world_open, world_close),
        cmocka_unit_test_setup_teardown(failures_are_told, world_open, world_close),
        cmocka_unit_test_setup_teardown(the_next_process_takes_over, world_open, world_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
