/* The embedded services' Lua: its json, sqlite and sys modules, and how a chunk of it is found. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <lua.h>

#include "base/buf.h"
#include "base/mem.h"
#include "local/lua_service.h"

static lua_State *L;
static char folder[] = "/tmp/mlhost-lua-XXXXXX";

static int start(void **state)
{
    struct error err = {0};

    (void)state;
    memcpy(folder + sizeof folder - 7, "XXXXXX", 6);
    if (!mkdtemp(folder))
        return -1;
    L = lua_service_state(NULL, &err);
    if (!L)
        return -1;
    lua_pushstring(L, folder);
    lua_setglobal(L, "folder");
    return 0;
}

static int stop(void **state)
{
    struct error err = {0};

    (void)state;
    lua_close(L);
    return dir_remove(folder, &err);
}

static void run(const char *text)
{
    if (luaL_loadstring(L, text) != LUA_OK || lua_pcall(L, 0, 0, 0) != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
}

static void json_is_exact(void **state)
{
    (void)state;
    run("local json = require 'json'\n"
        "for _, text in ipairs { '9223372036854775807', '-9223372036854775808', '1', '0.1', '[]', "
        "'{}', 'null', 'true',\n"
        "  '[1,[],{}]', '{\"a\":[null,1.5],\"b\":{}}', '\"\\\\u0000x\"' } do\n"
        "  local v = json.decode(text)\n"
        "  assert(json.encode(v) == text, text .. ' became ' .. json.encode(v))\n"
        "end\n"
        "assert(math.type(json.decode '3') == 'integer' and math.type(json.decode '3.0') == "
        "'float')\n"
        "assert(json.decode(json.encode(0.1 + 0.2)) == 0.1 + 0.2)\n"
        "assert(json.encode(1/0) == '\"Infinity\"' and json.encode(0/0) == '\"NaN\"')\n"
        "assert(json.encode(json.array {}) == '[]' and json.encode {} == '{}')\n"
        "assert(json.is_array(json.decode '[]') and not json.is_array(json.decode '{}'))\n"
        "local v, why = json.decode('{\"a\":', 'x.json')\n"
        "assert(v == nil and why:find 'x.json', why)\n"
        "local loop = {}; loop.a = loop\n"
        "for _, bad in ipairs { loop, { f = print }, { [true] = 1 } } do assert(not "
        "pcall(json.encode, bad)) end\n");
    assert_int_equal(lua_gettop(L), 0);
}

static void sqlite_binds_and_reads(void **state)
{
    (void)state;
    run("local db = require 'sqlite'.open(folder .. '/x.db')\n"
        "local json = require 'json'\n"
        "db:exec 'CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c REAL)'\n"
        "assert(db:run('INSERT INTO t (b, c) VALUES (?, ?)', \"it's\\0here\", 0.1 + 0.2) == 1 and "
        "db:last_id() == 1)\n"
        "assert(db:run('INSERT INTO t (b, c) VALUES (?, ?)', nil, json.null) == 1)\n"
        "assert(db:run('INSERT INTO t (b, c) VALUES (?, ?)', { 'x', 2 }) == 1)\n"
        "local row = db:one('SELECT * FROM t WHERE a = ?', 1)\n"
        "assert(row.a == 1 and row.b == \"it's\\0here\" and row.c == 0.1 + 0.2)\n"
        "row = db:one('SELECT * FROM t WHERE a = ?', 2)\n"
        "assert(row.b == nil and row.c == nil and row.a == 2)\n"
        "assert(db:one('SELECT * FROM t WHERE a = ?', 9) == nil and db:value('SELECT max(a) FROM "
        "t') == 3)\n"
        "assert(#db:all 'SELECT a FROM t ORDER BY a' == 3)\n"
        "assert(db:value('SELECT b FROM t WHERE b = ?', \"x' OR '1'='1\") == nil)\n"
        "assert(db:value('SELECT ?', math.maxinteger) == math.maxinteger and db:value('SELECT ?', "
        "true) == 1)\n"
        "for _, bad in ipairs { { 'SELEC' }, { 'SELECT ?', 1, 2 }, { 'SELECT 1; SELECT 2' }, { '' "
        "}, { 'SELECT ?', print },\n"
        "  { 'INSERT INTO t (a) VALUES (1)' } } do\n"
        "  local done, why = pcall(db.run, db, table.unpack(bad))\n"
        "  assert(not done and tostring(why):find 'sqlite', bad[1])\n"
        "end\n"
        /* More statements than are kept, and one that is used while it is stepped through. */
        "for i = 1, 600 do assert(db:value('SELECT ' .. i) == i) end\n"
        "db:close()\n"
        "assert(not pcall(db.one, db, 'SELECT 1'))\n");
}

static void sqlite_transactions(void **state)
{
    (void)state;
    run("local db = require 'sqlite'.open(folder .. '/x.db')\n"
        "db:exec 'CREATE TABLE t (a)'\n"
        "local function count() return db:value 'SELECT count(*) FROM t' end\n"
        "local function put() db:run 'INSERT INTO t VALUES (1)' end\n"
        "local a, b = db:transaction(function() put() return 1, 'two' end)\n"
        "assert(a == 1 and b == 'two' and count() == 1)\n"
        "local done, why = pcall(db.transaction, db, function() put() error({ 7 }) end)\n"
        "assert(not done and why[1] == 7 and count() == 1)\n"
        "done = pcall(db.transaction, db, function() put() db:transaction(function() put() error "
        "'x' end) end)\n"
        "assert(not done and count() == 1)\n"
        "db:transaction(function() put() pcall(db.run, db, 'NONSENSE') end)\n"
        "assert(count() == 2)\n"
        /* Another handle sees the rows only when they are committed. */
        "local other = require 'sqlite'.open(folder .. '/x.db')\n"
        "db:exec 'PRAGMA journal_mode=WAL'\n"
        "db:transaction(function() put() assert(other:value 'SELECT count(*) FROM t' == 2) end)\n"
        "assert(other:value 'SELECT count(*) FROM t' == 3)\n");
}

static void sys_and_modules(void **state)
{
    (void)state;
    run("local sys = require 'sys'\n"
        "assert(#sys.random_hex(16) == 32 and sys.random_hex(16) ~= sys.random_hex(16))\n"
        "assert(sys.mkdir(folder .. '/a/b') and sys.write(folder .. '/a/f', 'x\\0y'))\n"
        "assert(sys.read(folder .. '/a/f') == 'x\\0y')\n"
        "local text, why = sys.read(folder .. '/a/f', 2)\n"
        "assert(text == nil and why:find 'larger', why)\n"
        "local list = sys.list(folder .. '/a')\n"
        "assert(#list == 2 and list[1].name == 'b' and list[1].dir and list[2].name == 'f' and "
        "list[2].size == 3)\n"
        "assert(sys.list(folder .. '/none') == nil and sys.stat(folder .. '/none') == nil)\n"
        "assert(sys.stat(folder .. '/a/f').size == 3 and sys.stat(folder .. '/a').dir)\n"
        "assert(sys.remove(folder .. '/a') and sys.stat(folder .. '/a') == nil)\n"
        "assert(sys.sha256 'abc' == "
        "'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')\n"
        "assert(sys.is_plain 'a/b' and not sys.is_plain '../a' and not sys.is_plain 'a\\0b')\n"
        "assert(os.exit == nil and os.execute == nil)\n"
        "assert(require 'local.mlflow.core' == require 'local.mlflow.core' and require 'cjson')\n"
        "local done, message = pcall(require, 'no.such.module')\n"
        "assert(not done and message:find 'no lua/no/such/module.lua', message)\n");
}

/* The search language alone: what becomes SQL, what is refused. */
static void mlflow_filters(void **state)
{
    (void)state;
    run("local filter = require 'local.mlflow.filter'\n"
        "local spec = { types = { attribute = true, tag = true, metric = true, parameter = true "
        "},\n"
        "  attributes = { name = { list = true }, start_time = { numeric = true } } }\n"
        "local function one(text) local c = filter.parse(text, spec) assert(#c == 1, text) return "
        "c[1] end\n"
        "local c = one \"tags.`a b` = 'it''s'\"\n"
        "assert(c.type == 'tag' and c.key == 'a b' and c.op == '=' and c.value == \"it's\")\n"
        "c = one 'metrics.loss<=-1.5e-3'\n"
        "assert(c.type == 'metric' and c.key == 'loss' and c.op == '<=' and c.value == -1.5e-3)\n"
        "c = one \"tags.mlflow.parentRunId != \\\"x\\\"\"\n"
        "assert(c.key == 'mlflow.parentRunId' and c.value == 'x')\n"
        "c = one \"name NOT IN ('a', 'b')\"\n"
        "assert(c.op == 'NOT IN' and c.value[2] == 'b')\n"
        "assert(one 'params.p is not null'.op == 'IS NOT NULL')\n"
        "assert(#filter.parse(\"name = 'a' and tags.x LIKE '%' AND start_time > 5\", spec) == 3 "
        "and #filter.parse('  ', spec) == 0)\n"
        "for _, bad in ipairs { 'name', 'name =', \"name = 'a\", \"name = 'a' OR name = 'b'\", "
        "\"name = 'a' and\", \"'a' = 'a'\",\n"
        "  'name = 3', \"start_time = '3'\", \"start_time LIKE 3\", \"nope = 'x'\", \"x.y = 'z'\", "
        "'name IN ()', \"name IN ('a'\",\n"
        "  'name IS NULL', \"tags.x IN ('a')\", \"name = 'a'; DROP TABLE runs\", \"(name = 'a')\", "
        "\"name == 'a'\", \"metrics.x > 1x\" } do\n"
        "  local done, e = pcall(filter.parse, bad, spec)\n"
        "  assert(not done and e.error_code == 'INVALID_PARAMETER_VALUE', bad .. ': ' .. "
        "tostring(e))\n"
        "end\n"
        "local o = filter.order('metrics.`a b` DESC', spec)\n"
        "assert(o.type == 'metric' and o.key == 'a b' and o.descending)\n"
        "for _, bad in ipairs { '', 'name up', 'name desc asc', 'nope' } do assert(not "
        "pcall(filter.order, bad, spec), bad) end\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(json_is_exact, start, stop),
        cmocka_unit_test_setup_teardown(sqlite_binds_and_reads, start, stop),
        cmocka_unit_test_setup_teardown(sqlite_transactions, start, stop),
        cmocka_unit_test_setup_teardown(sys_and_modules, start, stop),
        cmocka_unit_test_setup_teardown(mlflow_filters, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
