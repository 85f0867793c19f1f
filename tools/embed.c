/*
 * embed ROOT OUT FILE...: writes one C file that holds each FILE (a path below ROOT) as Lua
 * bytecode with its line numbers and names, and the table that host/vm/embedded.h declares. Part of
 * the build: parsing the modules that `require "kubeflow"` needs took longer than compiling a
 * pipeline with them.
 *
 * The bytecode is the linked Lua's own; a syntax error in a module ends the build with its place.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#define COLUMNS 32

struct sink {
    FILE *out;
    size_t len;
};

static int write_piece(lua_State *L, const void *bytes, size_t len, void *ctx)
{
    struct sink *sink = ctx;
    const unsigned char *piece = bytes;

    (void)L;
    for (size_t i = 0; i < len; i++)
        fprintf(sink->out, "%u,%s", piece[i], ++sink->len % COLUMNS == 0 ? "\n" : "");
    return ferror(sink->out) ? 1 : 0;
}

static int embed(lua_State *L, FILE *out, const char *root, const char *name, int number)
{
    struct sink sink = {.out = out};
    const char *path = lua_pushfstring(L, "%s/%s", root, name);
    FILE *file = fopen(path, "rb");
    luaL_Buffer text;

    if (!file) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    luaL_buffinit(L, &text);
    for (size_t got = 1; got;) {
        got = fread(luaL_prepbuffer(&text), 1, LUAL_BUFFERSIZE, file);
        luaL_addsize(&text, got);
    }
    luaL_pushresult(&text);
    int failed = ferror(file);
    fclose(file);
    if (failed) {
        fprintf(stderr, "%s: cannot be read\n", path);
        return -1;
    }
    size_t len;
    const char *source = lua_tolstring(L, -1, &len);
    if (luaL_loadbufferx(L, source, len, lua_pushfstring(L, "@(mlhost)/%s", name), "t") != LUA_OK) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        return -1;
    }
    fprintf(out, "static const unsigned char file_%d[] = {\n", number);
    failed = lua_dump(L, write_piece, &sink, 0);
    fprintf(out, "};\n");
    lua_settop(L, 0);
    return failed ? -1 : 0;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: embed ROOT OUT FILE...\n");
        return 2;
    }
    lua_State *L = luaL_newstate();
    FILE *out = fopen(argv[2], "wb");
    int rc = L && out ? 0 : -1;

    if (rc == 0)
        fprintf(out, "#include \"vm/embedded.h\"\n\n");
    for (int i = 3; i < argc && rc == 0; i++)
        rc = embed(L, out, argv[1], argv[i], i);
    if (rc == 0) {
        fprintf(out, "\nconst struct embedded_file embedded_files[] = {\n");
        for (int i = 3; i < argc; i++)
            fprintf(out, "    {\"%s\", (const char *)file_%d, sizeof file_%d},\n", argv[i], i, i);
        fprintf(out, "    {0, 0, 0}};\nconst size_t embedded_file_count = %d;\n", argc - 3);
    }
    if (out && fclose(out) != 0)
        rc = -1;
    if (rc != 0)
        (void)remove(argv[2]);
    lua_close(L);
    return rc == 0 ? 0 : 1;
}
