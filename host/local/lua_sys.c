/* The few things of the system that the embedded services' Lua needs beyond the standard libraries.
 */
#include "local/lua_service.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/mem.h"

#define READ_LIMIT (64u << 20)

static int failed(lua_State *L, const struct error *err)
{
    lua_pushnil(L);
    lua_pushstring(L, err->message);
    return 2;
}

static int sys_now_ms(lua_State *L)
{
    lua_pushinteger(L, clock_wall_ms());
    return 1;
}

static int sys_random_hex(lua_State *L)
{
    lua_Integer count = luaL_checkinteger(L, 1);
    unsigned char bytes[64];
    char text[2 * sizeof bytes + 1];

    if (count < 1 || count > (lua_Integer)sizeof bytes)
        return luaL_argerror(L, 1, "1 to 64");
    if (getrandom(bytes, (size_t)count, 0) != count)
        return luaL_error(L, "no random numbers: %s", strerror(errno));
    for (lua_Integer i = 0; i < count; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    lua_pushlstring(L, text, (size_t)count * 2);
    return 1;
}

static int sys_read(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    lua_Integer limit = luaL_optinteger(L, 2, READ_LIMIT);
    struct buf text = BUF_INIT;
    struct error err = {0};

    if (file_read(AT_FDCWD, path, (size_t)limit, &text, &err) < 0) {
        buf_free(&text);
        return failed(L, &err);
    }
    lua_pushlstring(L, text.data ? text.data : "", text.len);
    buf_free(&text);
    return 1;
}

static int sys_write(lua_State *L)
{
    size_t len;
    const char *path = luaL_checkstring(L, 1), *text = luaL_checklstring(L, 2, &len);
    struct error err = {0};

    if (file_write(AT_FDCWD, path, text, len, false, &err) < 0)
        return failed(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int sys_mkdir(lua_State *L)
{
    struct error err = {0};

    if (dir_make(luaL_checkstring(L, 1), &err) < 0)
        return failed(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int sys_remove(lua_State *L)
{
    struct error err = {0};

    if (dir_remove(luaL_checkstring(L, 1), &err) < 0)
        return failed(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int sys_list(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct dirent **names = NULL;
    lua_Integer n = 0;
    int count = scandir(path, &names, NULL, alphasort);

    if (count < 0) {
        struct error err = {0};
        error_errno(&err, errno, "cannot list %s", path);
        return failed(L, &err);
    }
    lua_newtable(L);
    for (int i = 0; i < count; i++) {
        cleanup_free char *file = path_join(path, names[i]->d_name);
        struct stat st;
        if (strcmp(names[i]->d_name, ".") != 0 && strcmp(names[i]->d_name, "..") != 0 &&
            lstat(file, &st) == 0) {
            lua_createtable(L, 0, 3);
            lua_pushstring(L, names[i]->d_name);
            lua_setfield(L, -2, "name");
            lua_pushboolean(L, S_ISDIR(st.st_mode));
            lua_setfield(L, -2, "dir");
            lua_pushinteger(L, st.st_size);
            lua_setfield(L, -2, "size");
            lua_rawseti(L, -2, ++n);
        }
        free(names[i]);
    }
    free(names);
    return 1;
}

static int sys_stat(lua_State *L)
{
    struct stat st;

    if (stat(luaL_checkstring(L, 1), &st) < 0) {
        lua_pushnil(L);
        return 1;
    }
    lua_createtable(L, 0, 3);
    lua_pushboolean(L, S_ISDIR(st.st_mode));
    lua_setfield(L, -2, "dir");
    lua_pushinteger(L, st.st_size);
    lua_setfield(L, -2, "size");
    lua_pushinteger(L, (lua_Integer)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000);
    lua_setfield(L, -2, "mtime_ms");
    return 1;
}

static int sys_sha256(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    struct digest digest;

    digest_bytes(text, len, &digest);
    lua_pushstring(L, digest.text + strlen("sha256:"));
    return 1;
}

static int sys_is_plain(lua_State *L)
{
    size_t len;
    const char *path = luaL_checklstring(L, 1, &len);

    lua_pushboolean(L, strlen(path) == len && path_is_plain(path));
    return 1;
}

static int sys_log(lua_State *L)
{
    fprintf(stderr, "%s\n", luaL_checkstring(L, 1));
    return 0;
}

int luaopen_mlh_sys(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"now_ms", sys_now_ms}, {"random_hex", sys_random_hex},
        {"read", sys_read},     {"write", sys_write},
        {"mkdir", sys_mkdir},   {"remove", sys_remove},
        {"list", sys_list},     {"stat", sys_stat},
        {"sha256", sys_sha256}, {"is_plain", sys_is_plain},
        {"log", sys_log},       {NULL, NULL},
    };

    luaL_newlib(L, functions);
    return 1;
}
