/*
 * What clients send to a model server: Seldon's microservice API and the Open Inference Protocol
 * with its binary tensors, through the very Lua that answers in a worker, over a model that gives
 * back what it gets. Input: lines method, path, content type, length of the JSON part (or
 * nothing), then the body.
 *
 * No request is the server's fault (status 500), every answer of type JSON is JSON, and tensors
 * that came back and are sent once more come back the same.
 */
#include "vm_state.h"

static const char script[] = "model 'echo' {\n"
                             "  predict = function(_, x, names) return x, names end,\n"
                             "  transform_input = function(_, x, names) return x, names end,\n"
                             "  route = function() return 0 end,\n"
                             "  aggregate = function(_, list) return list[1] end,\n"
                             "  feedback = function() end,\n"
                             "  explain = function(_, x) return x end,\n"
                             "  tags = { version = '7' },\n"
                             "}\n";
static const char tensor_script[] =
    "model 'echo' { predict_tensors = function(_, inputs) return inputs end }\n";

static struct value answer; /* of the last request */

/* vm.serve and vm.emit of a worker, without a socket. */
static int keep_handler(lua_State *L)
{
    lua_settop(L, 1);
    vm_of(L)->handler = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static int keep_answer(lua_State *L)
{
    struct value frame = {0};
    struct error err = {0};

    if (vm_to_value(L, 1, &frame, &err) < 0) {
        value_free(&frame);
        return vm_raise(L, &err);
    }
    value_move(&answer, &frame);
    return 0;
}

static void must(lua_State *L, int status)
{
    if (status == LUA_OK)
        return;
    fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
    abort();
}

static void open_server(struct vm *vm, const char *text)
{
    struct value start = {0};

    value_set_map(&start);
    value_put_string(&start, "t", "start");
    value_put_string(&start, "mode", "model");
    struct value *own = value_put(&start, "script");
    value_set_map(own);
    value_put_string(own, "name", "model.lua");
    value_put_string(own, "folder", "/w");
    value_put_string(own, "text", text);
    struct value *context = value_put(&start, "context");
    value_set_map(context);
    value_put_string(context, "name", "echo");
    value_put_string(context, "image", "echo:1");
    value_put_string(context, "program", "fuzz");
    lua_State *L = vm_state_open(vm, &start);
    lua_pushcfunction(L, keep_handler); /* among the internals, below start */
    lua_setfield(L, -3, "serve");
    lua_pushcfunction(L, keep_answer);
    lua_setfield(L, -3, "emit");
    must(L, lua_pcall(L, 2, 0, 0));
    lua_settop(L, 0);
}

static void request(lua_State *L, const char *method, const char *path, const char *type,
                    const char *json_len, const char *body, size_t len)
{
    struct value frame = {0};

    value_set_map(&frame);
    value_put_string(&frame, "t", "request");
    value_put_int(&frame, "id", 1);
    value_put_string(&frame, "method", method);
    value_put_string(&frame, "path", path);
    value_put_string(&frame, "type", *type ? type : NULL);
    value_put_string(&frame, "json_len", *json_len ? json_len : NULL);
    value_set_bytes(value_put(&frame, "body"), body, len);
    value_free(&answer);
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm_of(L)->handler);
    vm_push_value(L, &frame);
    value_free(&frame);
    must(L, lua_pcall(L, 1, 0, 0));
    lua_settop(L, 0);
}

/* *json: the JSON part of the answer; what follows it is binary. */
static size_t checked(struct value *json)
{
    struct error err = {0};
    const struct value *body = value_get(&answer, "body");
    const char *type = value_get_string(&answer, "type", "");
    const char *given =
        value_get_string(value_get(&answer, "headers"), "Inference-Header-Content-Length", NULL);
    int64_t status = value_get_int(&answer, "status", 0);

    check(body && body->kind == VALUE_STRING);
    if (status >= 500) {
        fprintf(stderr, "status %lld: %s\n", (long long)status, body->as.string.data);
        abort();
    }
    check(status == 200 || (status >= 400 && status <= 415));
    size_t len = given ? strtoull(given, NULL, 10) : body->as.string.len;
    check(len <= body->as.string.len);
    check(strcmp(type, given ? "application/octet-stream" : "application/json") == 0);
    check(value_from_json(body->as.string.data, len, "answer", NULL, json, &err) == 0);
    return len;
}

/* Outputs become inputs. */
static void once_more(lua_State *L, const struct value *json, size_t len)
{
    cleanup_value struct value first = {0};
    cleanup_value struct value second = {0};
    cleanup_value struct value again = {0};
    cleanup_buf struct buf body = BUF_INIT;
    const struct value *outputs = value_get(json, "outputs");
    char given[24];

    value_copy(&first, &answer);
    value_set_map(&again);
    value_copy(value_put(&again, "inputs"), outputs);
    struct value *wanted = value_put(&again, "outputs");
    value_set_array(wanted);
    for (size_t i = 0; i < value_count(outputs); i++) {
        struct value *one = value_push(wanted);
        const struct value *output = value_at(outputs, i);
        value_set_map(one);
        value_put_string(one, "name", value_get_string(output, "name", ""));
        struct value *parameters = value_put(one, "parameters");
        value_set_map(parameters);
        value_put_bool(parameters, "binary_data",
                       value_path(output, "parameters.binary_data_size") != NULL);
    }
    value_to_json(&again, 0, &body);
    snprintf(given, sizeof given, "%zu", body.len);
    const struct value *bytes = value_get(&first, "body");
    buf_append(&body, bytes->as.string.data + len, bytes->as.string.len - len);
    request(L, "POST", "/v2/models/echo/infer", "", given, body.data, body.len);
    if (value_get_int(&answer, "status", 0) != 200) {
        fprintf(stderr, "%s\n%s\n", body.data, value_get_string(&answer, "body", ""));
        abort();
    }
    size_t second_len = checked(&second);
    const struct value *back = value_get(&second, "outputs");
    if (!same_value(outputs, back)) {
        fprintf(stderr, "%s\n%s\n", bytes->as.string.data, value_get_string(&answer, "body", ""));
        abort();
    }
    const struct value *other = value_get(&answer, "body");
    check(other->as.string.len - second_len == bytes->as.string.len - len);
    check(memcmp(other->as.string.data + second_len, bytes->as.string.data + len,
                 bytes->as.string.len - len) == 0);
}

/* Names may come twice; then "outputs" names the last of them for all. */
static bool names_differ(const struct value *outputs)
{
    cleanup_value struct value seen = {0};

    value_set_map(&seen);
    for (size_t i = 0; i < value_count(outputs); i++) {
        const struct value *name = value_get(value_at(outputs, i), "name");
        if (!name || strlen(name->as.string.data) != name->as.string.len ||
            value_get(&seen, name->as.string.data))
            return false;
        value_put_bool(&seen, name->as.string.data, true);
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct vm vms[2];
    static unsigned runs[2];
    cleanup_value struct value json = {0};
    char *lines[5];

    if (size < 1)
        return 0;
    int mode = data[0] & 1;
    struct vm *vm = &vms[mode];
    if (vm->main && ++runs[mode] % 2000 == 0) /* no input leans on long ago */
        vm_state_close(vm);
    if (!vm->main)
        open_server(vm, mode ? tensor_script : script);
    lua_State *L = vm->main;
    cleanup_free char *text = mem_strndup((const char *)data + 1, size - 1);
    cut_lines(text, lines, 5);
    size_t len = size - 1 - (size_t)(lines[4] - text);
    request(L, lines[0], lines[1], lines[2], lines[3], lines[4], len);
    size_t json_len = checked(&json);
    const struct value *outputs = value_get(&json, "outputs");
    if (mode && outputs && strstr(lines[1], "/infer") && names_differ(outputs))
        once_more(L, &json, json_len);
    value_free(&answer);
    return 0;
}
