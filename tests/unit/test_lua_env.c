/* The list of Lua's own functions (host/vm/env.c), the page for users and Lua itself agree. */
#include "check.h"

#include <fcntl.h>
#include <stdio.h>

#include "base/buf.h"
#include "vm/state.h"

#define PAGE      SOURCE_DIR "/docs/lua.md"
#define BEGINNING "<!-- The rest is made of host/vm/env.c -->\n"

static void print_names(const struct vm_function *f, struct buf *out)
{
    for (const char *at = f->names; *at; at += strspn(at, " ")) {
        int word = (int)strcspn(at, " ");
        buf_printf(out, "%s`%s%s%.*s`", at == f->names ? "" : " ", f->library,
                   f->library[0] ? "." : "", word, at);
        at += word;
    }
}

/* As the page has it. */
static void print_tables(struct buf *out)
{
    static const struct {
        enum vm_function_kind kind;
        const char *title, *head;
    } tables[] = {{VM_ABSENT, "What is not there", "| function | because | use |\n|---|---|---|\n"},
                  {VM_OTHER, "What differs", "| function | how | use |\n|---|---|---|\n"},
                  {VM_SAME, "What is the same", "| function | note |\n|---|---|\n"}};

    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        buf_printf(out, "%s## %s\n\n%s", t ? "\n" : "", tables[t].title, tables[t].head);
        for (size_t i = 0; i < vm_function_count; i++) {
            const struct vm_function *f = &vm_functions[i];
            if (f->kind != tables[t].kind)
                continue;
            buf_puts(out, "| ");
            print_names(f, out);
            buf_printf(out, " | %s |", f->why);
            if (f->kind != VM_SAME)
                buf_printf(out, " %s%s%s |", f->instead ? "`" : "", f->instead ? f->instead : "",
                           f->instead ? "`" : "");
            buf_putc(out, '\n');
        }
    }
}

static void test_the_page_has_the_list(void **state)
{
    cleanup_buf struct buf page = BUF_INIT, wanted = BUF_INIT;
    struct error err = {0};

    (void)state;
    ok(file_read(AT_FDCWD, PAGE, 1u << 20, &page, &err), err);
    print_tables(&wanted);
    const char *there = strstr(page.data, BEGINNING);
    assert_non_null(there);
    there += strlen(BEGINNING) + 1;
    if (strcmp(there, wanted.data) != 0) {
        printf("%s", wanted.data);
        fail_msg("docs/lua.md is to end with what stands above");
    }
}

static bool on_list(const char *library, const char *name)
{
    for (size_t i = 0; i < vm_function_count; i++) {
        const struct vm_function *f = &vm_functions[i];
        if (strcmp(f->library, library) != 0)
            continue;
        for (const char *at = f->names; *at; at += strspn(at, " ")) {
            size_t word = strcspn(at, " ");
            if (word == strlen(name) && memcmp(at, name, word) == 0)
                return true;
            at += word;
        }
    }
    return false;
}

/* The list knows each function of the Lua that is linked. */
static void test_the_list_has_all_of_lua(void **state)
{
    static const char *const libraries[] = {"",          "string", "table",   "math", "utf8",
                                            "coroutine", "os",     "package", "io",   "debug"};
    lua_State *L = luaL_newstate();

    (void)state;
    luaL_openlibs(L);
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        lua_getglobal(L, libraries[i][0] ? libraries[i] : "_G");
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
            const char *name = lua_tostring(L, -2);
            bool library = false;
            for (size_t k = 1; k < sizeof libraries / sizeof *libraries; k++)
                library = library || (i == 0 && strcmp(name, libraries[k]) == 0);
            if (!library && !on_list(libraries[i], name))
                fail_msg("'%s.%s' is not in host/vm/env.c", libraries[i], name);
        }
        lua_pop(L, 1);
    }
    for (size_t i = 0; i < vm_function_count; i++) {
        const struct vm_function *f = &vm_functions[i];
        for (const char *at = f->names; *at; at += strspn(at, " ")) {
            size_t word = strcspn(at, " ");
            lua_getglobal(L, f->library[0] ? f->library : "_G");
            lua_pushlstring(L, at, word);
            if (lua_gettable(L, -2) == LUA_TNIL)
                fail_msg("Lua has no '%s.%.*s'", f->library, (int)word, at);
            lua_pop(L, 2);
            at += word;
        }
    }
    lua_close(L);
}

static void hint(const char *message, const char *wanted)
{
    cleanup_buf struct buf out = BUF_INIT;

    bool found = vm_absent_hint(message, &out);
    assert_int_equal(found, wanted != NULL);
    if (wanted)
        holds(out.data, wanted);
}

static void test_errors_say_what_to_use(void **state)
{
    (void)state;
    hint("attempt to index a nil value (global 'io')", "scripts have no `io`");
    hint("attempt to index a nil value (global 'debug')", "docs/lua.md");
    hint("attempt to call a nil value (global 'dofile')", "require");
    hint("attempt to call a nil value (field 'getenv')", "`os.getenv`");
    hint("attempt to call a nil value (field 'dump')", "`string.dump`");
    hint("attempt to call a nil value (field 'traceback')", NULL);
    hint("attempt to call a nil value (field 'io')", NULL);
    hint("attempt to call a nil value (global 'getenv')", NULL);
    hint("attempt to call a nil value (global 'mine')", NULL);
    hint("attempt to call a nil value (", NULL);
    hint("attempt to call a nil value (global '", NULL);
    hint("attempt to call a table value (global 'io')", NULL);
    hint("", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_page_has_the_list),
        cmocka_unit_test(test_the_list_has_all_of_lua),
        cmocka_unit_test(test_errors_say_what_to_use),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
