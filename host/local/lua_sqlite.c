/*
 * SQLite for the embedded services' Lua. Statements are prepared once per database and text, and
 * kept; text that a client sent is only ever bound, never part of a statement.
 */
#include "local/lua_service.h"

#include <string.h>

#include <sqlite3.h>

#define DB             "mlhost.sqlite"
#define STATEMENT      "mlhost.sqlite.statement"
#define MAX_STATEMENTS 256
#define BUSY_MS        20000

struct db {
    sqlite3 *handle;
    int depth; /* of transactions */
    int statements;
};
struct statement {
    sqlite3_stmt *handle;
};

static int raise(lua_State *L, sqlite3 *handle, const char *what)
{
    return luaL_error(L, "sqlite: %s: %s", what, sqlite3_errmsg(handle));
}

static struct db *check_db(lua_State *L)
{
    struct db *db = luaL_checkudata(L, 1, DB);
    luaL_argcheck(L, db->handle, 1, "the database is closed");
    return db;
}

static int statement_gc(lua_State *L)
{
    struct statement *statement = luaL_checkudata(L, 1, STATEMENT);
    sqlite3_stmt *handle = statement->handle;

    statement->handle = NULL;
    sqlite3_finalize(handle);
    return 0;
}

static int db_close(lua_State *L)
{
    struct db *db = luaL_checkudata(L, 1, DB);
    sqlite3 *handle = db->handle;

    db->handle = NULL;
    lua_pushnil(L);
    lua_setiuservalue(L, 1, 1);
    sqlite3_close_v2(handle); /* statements that are still there close it later */
    return 0;
}

/* Leaves the statement's userdata on the stack, so that it lives as long as it is used. */
static sqlite3_stmt *prepare(lua_State *L, struct db *db, int sql_index)
{
    size_t len;
    const char *sql = luaL_checklstring(L, sql_index, &len), *tail;

    lua_getiuservalue(L, 1, 1);
    lua_pushvalue(L, sql_index);
    if (lua_rawget(L, -2) == LUA_TUSERDATA) {
        lua_remove(L, -2);
        sqlite3_stmt *kept = ((struct statement *)lua_touserdata(L, -1))->handle;
        if (!sqlite3_stmt_busy(kept))
            return kept;
        lua_pop(L, 1); /* in use further up: one of its own for this call */
        lua_pushnil(L);
    } else {
        lua_pop(L, 1);
        if (db->statements >= MAX_STATEMENTS) {
            lua_newtable(L);
            lua_copy(L, -1, -2);
            lua_setiuservalue(L, 1, 1);
            db->statements = 0;
        }
    }
    struct statement *statement = lua_newuserdatauv(L, sizeof *statement, 0);
    statement->handle = NULL;
    luaL_setmetatable(L, STATEMENT);
    if (sqlite3_prepare_v3(db->handle, sql, (int)len, SQLITE_PREPARE_PERSISTENT, &statement->handle,
                           &tail) != SQLITE_OK)
        raise(L, db->handle, sql);
    if (!statement->handle)
        luaL_error(L, "sqlite: no statement in '%s'", sql);
    if (tail[strspn(tail, " \t\r\n;")])
        luaL_error(L, "sqlite: one statement at a time; exec takes several: %s", sql);
    if (lua_istable(L, -2)) {
        lua_pushvalue(L, sql_index);
        lua_pushvalue(L, -2);
        lua_rawset(L, -4);
        db->statements++;
    }
    lua_remove(L, -2);
    return statement->handle;
}

static void bind_one(lua_State *L, struct db *db, sqlite3_stmt *statement, int position, int index)
{
    size_t len;
    const char *text;
    int status;

    switch (lua_type(L, index)) {
    case LUA_TBOOLEAN:
        status = sqlite3_bind_int(statement, position, lua_toboolean(L, index));
        break;
    case LUA_TNUMBER:
        status = lua_isinteger(L, index)
                     ? sqlite3_bind_int64(statement, position, lua_tointeger(L, index))
                     : sqlite3_bind_double(statement, position, lua_tonumber(L, index));
        break;
    case LUA_TSTRING:
        text = lua_tolstring(L, index, &len);
        status = sqlite3_bind_text64(statement, position, text, len, SQLITE_TRANSIENT, SQLITE_UTF8);
        break;
    case LUA_TNIL:
        status = sqlite3_bind_null(statement, position);
        break;
    case LUA_TLIGHTUSERDATA:
        if (!lua_touserdata(L, index)) {
            status = sqlite3_bind_null(statement, position);
            break;
        }
        /* fall through */
    default:
        luaL_error(L, "sqlite: parameter %d is a %s", position, luaL_typename(L, index));
        return;
    }
    if (status != SQLITE_OK)
        raise(L, db->handle, "bind");
}

/* Parameters are the arguments after the SQL text (index 2), or the items of one table there. */
static sqlite3_stmt *ready(lua_State *L, struct db *db)
{
    int last = lua_gettop(L);
    sqlite3_stmt *statement = prepare(L, db, 2);
    int wanted = sqlite3_bind_parameter_count(statement);

    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    if (last == 3 && lua_istable(L, 3)) {
        if ((int)lua_rawlen(L, 3) != wanted)
            luaL_error(L, "sqlite: %d parameters for %d places: %s", (int)lua_rawlen(L, 3), wanted,
                       lua_tostring(L, 2));
        for (int i = 1; i <= wanted; i++) {
            lua_rawgeti(L, 3, i);
            bind_one(L, db, statement, i, -1);
            lua_pop(L, 1);
        }
        return statement;
    }
    if (last - 2 > wanted)
        luaL_error(L, "sqlite: %d parameters for %d places: %s", last - 2, wanted,
                   lua_tostring(L, 2));
    for (int i = 1; i <= last - 2; i++)
        bind_one(L, db, statement, i, i + 2);
    return statement;
}

static bool step(lua_State *L, struct db *db, sqlite3_stmt *statement)
{
    int status = sqlite3_step(statement);

    if (status == SQLITE_ROW)
        return true;
    if (status == SQLITE_DONE)
        return false;
    lua_pushfstring(L, "%s: %s", sqlite3_errmsg(db->handle), lua_tostring(L, 2));
    sqlite3_reset(statement);
    luaL_error(L, "sqlite: %s", lua_tostring(L, -1));
    return false;
}

static void push_column(lua_State *L, sqlite3_stmt *statement, int column)
{
    switch (sqlite3_column_type(statement, column)) {
    case SQLITE_INTEGER:
        lua_pushinteger(L, sqlite3_column_int64(statement, column));
        break;
    case SQLITE_FLOAT:
        lua_pushnumber(L, sqlite3_column_double(statement, column));
        break;
    case SQLITE_NULL:
        lua_pushnil(L);
        break;
    default:
        lua_pushlstring(L, sqlite3_column_blob(statement, column),
                        (size_t)sqlite3_column_bytes(statement, column));
        break;
    }
}

static void push_row(lua_State *L, sqlite3_stmt *statement)
{
    int columns = sqlite3_column_count(statement);

    lua_createtable(L, 0, columns);
    for (int i = 0; i < columns; i++) {
        push_column(L, statement, i);
        lua_setfield(L, -2, sqlite3_column_name(statement, i));
    }
}

static int db_run(lua_State *L)
{
    struct db *db = check_db(L);
    sqlite3_stmt *statement = ready(L, db);

    while (step(L, db, statement))
        continue;
    sqlite3_reset(statement);
    lua_pushinteger(L, sqlite3_changes(db->handle));
    return 1;
}

static int db_all(lua_State *L)
{
    struct db *db = check_db(L);
    sqlite3_stmt *statement = ready(L, db);
    lua_Integer n = 0;

    lua_newtable(L);
    while (step(L, db, statement)) {
        push_row(L, statement);
        lua_rawseti(L, -2, ++n);
    }
    sqlite3_reset(statement);
    return 1;
}

static int db_one(lua_State *L)
{
    struct db *db = check_db(L);
    sqlite3_stmt *statement = ready(L, db);

    if (step(L, db, statement))
        push_row(L, statement);
    else
        lua_pushnil(L);
    sqlite3_reset(statement);
    return 1;
}

static int db_value(lua_State *L)
{
    struct db *db = check_db(L);
    sqlite3_stmt *statement = ready(L, db);

    if (step(L, db, statement))
        push_column(L, statement, 0);
    else
        lua_pushnil(L);
    sqlite3_reset(statement);
    return 1;
}

static void exec(lua_State *L, struct db *db, const char *sql)
{
    if (sqlite3_exec(db->handle, sql, NULL, NULL, NULL) != SQLITE_OK)
        raise(L, db->handle, sql);
}

static int db_exec(lua_State *L)
{
    struct db *db = check_db(L);

    exec(L, db, luaL_checkstring(L, 2));
    return 0;
}

static int db_last_id(lua_State *L)
{
    lua_pushinteger(L, sqlite3_last_insert_rowid(check_db(L)->handle));
    return 1;
}

static int db_transaction(lua_State *L)
{
    struct db *db = check_db(L);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);

    if (db->depth == 0)
        exec(L, db, "BEGIN IMMEDIATE");
    db->depth++;
    int status = lua_pcall(L, 0, LUA_MULTRET, 0);
    db->depth--;
    if (status != LUA_OK) {
        if (db->depth == 0 && db->handle)
            sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
        return lua_error(L);
    }
    if (db->depth == 0 && sqlite3_exec(db->handle, "COMMIT", NULL, NULL, NULL) != SQLITE_OK) {
        lua_pushfstring(L, "sqlite: COMMIT: %s", sqlite3_errmsg(db->handle));
        sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
        return lua_error(L);
    }
    return lua_gettop(L) - 1;
}

static int sqlite_open(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct db *db = lua_newuserdatauv(L, sizeof *db, 1);

    memset(db, 0, sizeof *db);
    luaL_setmetatable(L, DB);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 1);
    if (sqlite3_open_v2(path, &db->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
        SQLITE_OK) {
        lua_pushfstring(L, "sqlite: cannot open %s: %s", path,
                        db->handle ? sqlite3_errmsg(db->handle) : "no memory");
        return lua_error(L);
    }
    sqlite3_busy_timeout(db->handle, BUSY_MS);
    return 1;
}

int luaopen_mlh_sqlite(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"exec", db_exec},       {"run", db_run},     {"all", db_all},
        {"one", db_one},         {"value", db_value}, {"transaction", db_transaction},
        {"last_id", db_last_id}, {"close", db_close}, {NULL, NULL},
    };
    static const luaL_Reg functions[] = {{"open", sqlite_open}, {NULL, NULL}};

    luaL_newmetatable(L, STATEMENT);
    lua_pushcfunction(L, statement_gc);
    lua_setfield(L, -2, "__gc");
    luaL_newmetatable(L, DB);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, db_close);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 2);
    luaL_newlib(L, functions);
    return 1;
}
