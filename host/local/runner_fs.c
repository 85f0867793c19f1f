/*
 * Files for the runner's Lua. Whatever a task may have written is only looked at by the functions
 * that end in _inside: they never leave the folder and follow no link, for a task could have made
 * one to any file of this machine.
 */
#include "local/runner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

static int push_failure(lua_State *L, const char *path)
{
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", path, strerror(errno));
    return 2;
}

/* Opens root/rel without leaving root and without following any link on the way. */
static int open_inside(const char *root, const char *rel, int flags)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
                           .resolve =
                               RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    cleanup_close int folder = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (folder < 0)
        return -1;
    return (int)syscall(SYS_openat2, folder, rel, &how, sizeof how);
}

static int push_all(lua_State *L, int fd, const char *path, size_t limit)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        lua_pushnil(L);
        lua_pushfstring(L, "%s: not a file", path);
        return 2;
    }
    if ((uint64_t)st.st_size > limit) {
        close(fd);
        lua_pushnil(L);
        lua_pushfstring(L, "%s: larger than %d bytes", path, (int)limit);
        return 2;
    }
    struct buf text = BUF_INIT;
    for (;;) {
        char *to = buf_reserve(&text, 65536);
        ssize_t n = read(fd, to, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || text.len + (size_t)n > limit)
            break;
        text.len += (size_t)n;
    }
    close(fd);
    lua_pushlstring(L, text.data, text.len);
    buf_free(&text);
    return 1;
}

static int fs_read(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    return fd < 0 ? push_failure(L, path) : push_all(L, fd, path, (size_t)luaL_checkinteger(L, 2));
}

static int fs_read_inside(lua_State *L)
{
    const char *rel = luaL_checkstring(L, 2);
    int fd = open_inside(luaL_checkstring(L, 1), rel, O_RDONLY | O_NONBLOCK);

    return fd < 0 ? push_failure(L, rel) : push_all(L, fd, rel, (size_t)luaL_checkinteger(L, 3));
}

static int fs_write(lua_State *L)
{
    size_t len;
    const char *path = luaL_checkstring(L, 1), *text = luaL_checklstring(L, 2, &len);
    struct error err = {0};

    if (file_write(AT_FDCWD, path, text, len, false, &err) < 0)
        return luaL_error(L, "%s", err.message);
    return 0;
}

static int fs_append(lua_State *L)
{
    size_t len;
    const char *path = luaL_checkstring(L, 1), *text = luaL_checklstring(L, 2, &len);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

    if (fd >= 0) {
        (void)fd_write_all(fd, text, len, NULL); /* notes in a log: losing one must not end a run */
        close(fd);
    }
    return 0;
}

static int make(lua_State *L, bool shared)
{
    const char *path = luaL_checkstring(L, 1);
    struct error err = {0};

    if (dir_make(path, &err) < 0)
        return luaL_error(L, "%s", err.message);
    if (shared && chmod(path, 01777) < 0)
        return luaL_error(L, "%s: %s", path, strerror(errno));
    return 0;
}

static int fs_mkdir(lua_State *L)
{
    return make(L, false);
}

/* A folder in which tasks of any user may write. */
static int fs_mkdir_shared(lua_State *L)
{
    return make(L, true);
}

static int fs_remove(lua_State *L)
{
    struct error err = {0};

    if (dir_remove(luaL_checkstring(L, 1), &err) < 0)
        return luaL_error(L, "%s", err.message);
    return 0;
}

static int fs_rename(lua_State *L)
{
    const char *from = luaL_checkstring(L, 1);

    if (rename(from, luaL_checkstring(L, 2)) < 0)
        return luaL_error(L, "%s: %s", from, strerror(errno));
    return 0;
}

static int push_kind(lua_State *L, mode_t mode)
{
    lua_pushstring(L, S_ISREG(mode)   ? "file"
                      : S_ISDIR(mode) ? "directory"
                      : S_ISLNK(mode) ? "link"
                                      : "special");
    return 1;
}

static int fs_kind(lua_State *L)
{
    struct stat st;

    return lstat(luaL_checkstring(L, 1), &st) < 0 ? 0 : push_kind(L, st.st_mode);
}

/* nil too when a link is on the way. */
static int fs_kind_inside(lua_State *L)
{
    struct stat st;
    cleanup_close int fd = open_inside(luaL_checkstring(L, 1), luaL_checkstring(L, 2), O_PATH);

    if (fd < 0 || fstat(fd, &st) < 0)
        return 0;
    return push_kind(L, st.st_mode);
}

static int fs_real(lua_State *L)
{
    char real[PATH_MAX];

    if (!realpath(luaL_checkstring(L, 1), real))
        return 0;
    lua_pushstring(L, real);
    return 1;
}

void runner_push_fs(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"read", fs_read},     {"read_inside", fs_read_inside},
        {"write", fs_write},   {"append", fs_append},
        {"mkdir", fs_mkdir},   {"mkdir_shared", fs_mkdir_shared},
        {"remove", fs_remove}, {"rename", fs_rename},
        {"kind", fs_kind},     {"kind_inside", fs_kind_inside},
        {"real", fs_real},     {NULL, NULL},
    };
    luaL_newlib(L, functions);
}
