/*
 * A service whose logic is Lua: lua/local/<module>.lua, run in one Lua state per service behind a
 * mutex. This is the program's own code: it has the standard libraries (without os.exit and
 * os.execute) and needs no sandbox.
 *
 * The module returns a function that is called once, when the server starts:
 *
 *     return function(host)
 *         -- host.dir        "<state>/local/<module>", made
 *         -- host.state      "<state>/local"
 *         -- host.url        "http://127.0.0.1:PORT", or "" without a port
 *         -- host.workspace  absolute path
 *         return {
 *             prefixes = { "/apis/v2beta1/", ... },
 *             handle = function(request) return response end,
 *             failed = function(request, message) return response end, -- optional
 *             close = function() end,          -- optional, when the server stops
 *         }
 *     end
 *
 *     request   { method, path, rest, raw_path, raw_query, origin, body = "bytes",
 *                 query = { name = first value }, list = { name = { all values } },
 *                 headers = { lower-case name = value } }
 *     response  { status = 200, headers = { Name = "value" },
 *                 body = "bytes"               -- or
 *                 file = "/absolute/path" }    -- streamed; 404 when it is not there
 *
 * An error that escapes handle is printed with its traceback on stderr, and answered by `failed`,
 * or with a plain 500.
 *
 * Modules: `require "x.y"` finds lua/x/y.lua of the program (or of MLHOST_LUA_PATH), and these,
 * made in C:
 *
 *     cjson     lua-cjson
 *     json      exact numbers both ways: encode(v [, "pretty"]), decode(text [, source]) -> v |
 * nil, message; null; array(t) marks a table as a JSON array (decoded ones are marked); is_array(t)
 *     sqlite    open(path) -> db; db:exec(sql), db:run(sql, ...) -> rows changed, db:all(sql, ...)
 *               -> rows as maps, db:one(sql, ...) -> row | nil, db:value(sql, ...) -> first column,
 *               db:transaction(fn) -> what fn returns (BEGIN IMMEDIATE; rolled back when fn raises;
 *               nested calls join), db:last_id(), db:close(). `?` parameters in order, or as one
 *               table; nil and json.null are NULL; a column that is NULL is absent from its row.
 *               Errors are raised.
 *     sys       now_ms(), random_hex(bytes), read(path [, limit]) -> text | nil, message,
 *               write(path, text) (atomic), mkdir(path), remove(path) (a tree), list(path) ->
 *               { {name, dir, size} ... } sorted | nil, message, stat(path) -> {dir, size,
 * mtime_ms} | nil, sha256(text) -> hex, is_plain(path), log(text) (stderr)
 */
#ifndef MLHOST_LOCAL_LUA_SERVICE_H
#define MLHOST_LOCAL_LUA_SERVICE_H

#include <lauxlib.h>
#include <lua.h>

#include "base/config.h"
#include "local/router.h"

struct local_host {
    const struct config *config;
    const char *state; /* "<config->state>/local" */
    const char *url;   /* "http://127.0.0.1:PORT", or "" without a port */
};

/* libraries: more C modules for `require`, ended by a NULL name; may be NULL. */
struct service *lua_service_open(const struct local_host *host, const char *module,
                                 const luaL_Reg *libraries, struct error *err);
/* The same state without a server: for programs of the embedded services such as the task runner.
 * Modules as above; the caller closes it with lua_close. */
lua_State *lua_service_state(const luaL_Reg *libraries, struct error *err);

int luaopen_mlh_json(lua_State *L);
int luaopen_mlh_sqlite(lua_State *L);
int luaopen_mlh_sys(lua_State *L);
/* A Lua value <-> a value tree; -1 with an error for functions, cycles and the like. */
int lua_to_value(lua_State *L, int index, struct value *out, struct error *err);
void lua_push_value(lua_State *L, const struct value *v);

#endif
