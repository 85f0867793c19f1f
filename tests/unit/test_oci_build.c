/* Contexts, Dockerfiles, layers: what is built of what, and what is said when it cannot be. */
#include "check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "oci/base_image.h"
#include "oci/build.h"
#include "oci/context.h"
#include "oci/dockerfile.h"
#include "oci/ignore.h"
#include "oci/manifest.h"
#include "oci/unpack.h"

static char work[64];

static char *in(const char *name)
{
    static char paths[8][256];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", work, name);
    return path;
}

static void put(const char *name, const char *text)
{
    struct error err = {0};
    cleanup_free char *folder = mem_strdup(in(name));

    *strrchr(folder, '/') = '\0';
    ok(dir_make(folder, &err), err);
    ok(file_write(AT_FDCWD, in(name), text, strlen(text), false, &err), err);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(work, sizeof work, "/tmp/mlhost-oci-XXXXXX");
    return mkdtemp(work) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return dir_remove(work, NULL);
}

static char logged[1024];
static void on_log(void *ctx, const char *level, const char *text)
{
    (void)ctx;
    snprintf(logged, sizeof logged, "%s: %s", level, text);
}

/* Builds in("ctx") with a Dockerfile of that text. */
static int build_args(const char *dockerfile, const struct value *args, struct build_result *out,
                      struct error *err)
{
    cleanup_store struct store *store = store_open_at(in("store"), false, err);
    struct build_spec spec = {.store = store,
                              .context = in("ctx"),
                              .dockerfile = in("Dockerfile"),
                              .label = "Dockerfile",
                              .args = args,
                              .log = on_log};

    put("Dockerfile", dockerfile);
    put("ctx/.keep", "");
    return store ? oci_build(&spec, out, err) : -1;
}

static int build(const char *dockerfile, struct build_result *out, struct error *err)
{
    return build_args(dockerfile, NULL, out, err);
}

static void unpack(const struct build_result *built, const char *to)
{
    struct error err = {0};
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);

    ok(oci_unpack(store, built->manifest.text, in(to), NULL, &err), err);
}

static void config_of(const struct build_result *built, struct value *config)
{
    struct error err = {0};
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);
    cleanup_value struct value manifest = {0};

    ok(oci_manifest_load(store, built->manifest.text, &manifest, NULL, &err), err);
    ok(oci_config_load(store, &manifest, config, &err), err);
}

static void content(const char *name, const char *wanted)
{
    struct error err = {0};
    cleanup_buf struct buf text = BUF_INIT;

    ok(file_read(AT_FDCWD, in(name), 65536, &text, &err), err);
    assert_string_equal(text.data ? text.data : "", wanted);
}

/* ---- the same input, the same digest ---- */

static void same_digest(void **state)
{
    static const char dockerfile[] = "FROM scratch\nWORKDIR /app\nCOPY . /app\n";
    struct build_result first, second, third;
    struct error err = {0};
    struct timespec times[2] = {{123456789, 0}, {987654321, 0}};

    (void)state;
    put("ctx/b.txt", "b");
    put("ctx/a/one.lua", "return 1");
    ok(build(dockerfile, &first, &err), err);
    put("ctx/a/one.lua", "return 1"); /* a new inode */
    assert_int_equal(utimensat(AT_FDCWD, in("ctx/b.txt"), times, 0), 0);
    assert_int_equal(chmod(in("ctx/b.txt"), 0664), 0);
    ok(dir_remove(in("store"), &err), err);
    ok(build(dockerfile, &second, &err), err);
    assert_string_equal(first.manifest.text, second.manifest.text);
    put("ctx/b.txt", "c");
    ok(build(dockerfile, &third, &err), err);
    assert_string_not_equal(first.manifest.text, third.manifest.text);
    put("ctx/b.txt", "b");
    assert_int_equal(chmod(in("ctx/b.txt"), 0755), 0);
    ok(build(dockerfile, &third, &err), err);
    assert_string_not_equal(first.manifest.text, third.manifest.text);
}

static void tag(const char *salt, const struct value *args, char out[17])
{
    struct error err = {0};
    struct context *context = context_list(in("ctx"), in("ctx/Dockerfile"), &err);

    assert_non_null(context);
    ok(context_tag(context, in("ctx/Dockerfile"), args, salt, out, &err), err);
    context_free(context);
}

static void content_tag(void **state)
{
    char first[17], again[17];
    struct timespec times[2] = {{5, 0}, {6, 0}};
    cleanup_value struct value args = {0};

    (void)state;
    put("ctx/Dockerfile", "FROM scratch\n");
    put("ctx/.dockerignore", "*.log\n");
    put("ctx/a.lua", "1");
    tag(NULL, NULL, first);
    assert_int_equal(strlen(first), 16);
    assert_int_equal(strspn(first, "0123456789abcdef"), 16);
    assert_int_equal(utimensat(AT_FDCWD, in("ctx/a.lua"), times, 0), 0);
    put("ctx/noise.log", "ignored");
    tag(NULL, NULL, again);
    assert_string_equal(first, again);
    put("ctx/a.lua", "2");
    tag(NULL, NULL, again);
    assert_string_not_equal(first, again);
    put("ctx/a.lua", "1");
    assert_int_equal(chmod(in("ctx/a.lua"), 0700), 0);
    tag(NULL, NULL, again);
    assert_string_not_equal(first, again);
    assert_int_equal(chmod(in("ctx/a.lua"), 0644), 0);
    tag("sha256:other base", NULL, again);
    assert_string_not_equal(first, again);
    value_set_map(&args);
    value_put_string(&args, "BASE", "x:1");
    tag(NULL, &args, again);
    assert_string_not_equal(first, again);
    assert_int_equal(rename(in("ctx/a.lua"), in("ctx/b.lua")), 0);
    tag(NULL, NULL, again);
    assert_string_not_equal(first, again);
}

/* ---- instructions ---- */

static void everything(void **state)
{
    struct build_result built;
    struct error err = {0};
    cleanup_value struct value config = {0};
    cleanup_value struct value args = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct stat st;

    (void)state;
    put("ctx/run.sh", "#!/bin/sh\n");
    put("ctx/src/x.lua", "x");
    put("ctx/src/deep/y.lua", "y");
    put("ctx/passwd", "root:x:0:0::/:\nml:x:1234:1234::/:\n");
    assert_int_equal(symlink("deep/y.lua", in("ctx/src/link")), 0);
    value_set_map(&args);
    value_put_string(&args, "VERSION", "2.0");
    value_put_string(&args, "UNUSED", "x");
    ok(build_args("# escape=\\\n"
                  "ARG VERSION=1.0\n"
                  "FROM scratch AS Build\n"
                  "COPY passwd /etc/passwd\n"
                  "COPY --chown=ml --chmod=0750 run.sh /opt/\n"
                  "COPY src /opt/src\n"
                  "FROM scratch AS unneeded\n"
                  "RUN this is never reached\n"
                  "FROM build\n"
                  "ARG VERSION\n"
                  "ENV A=${VERSION} B=\"b $VERSION\" C='$VERSION' \\\n"
                  "    # in between\n"
                  "    D=${NONE:-none}${A:+set}\n"
                  "ENV OLD one two\n"
                  "WORKDIR /srv\n"
                  "WORKDIR $A\n"
                  "COPY --from=build /opt/src/deep ./deep\n"
                  "COPY --from=0 /opt/run.sh /usr/bin/\n"
                  "LABEL one=1 two=\"2 3\"\n"
                  "EXPOSE 80 90-91/udp\n"
                  "USER ml\n"
                  "ENTRYPOINT [\"run\", \"it\"]\n"
                  "CMD echo hi\n",
                  &args, &built, &err),
       err);
    holds(logged, "UNUSED");
    config_of(&built, &config);
    const struct value *inner = value_get(&config, "config");
    value_to_json(value_get(inner, "Env"), 0, &text);
    assert_string_equal(text.data,
                        "[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\","
                        "\"A=2.0\",\"B=b 2.0\",\"C=$VERSION\",\"D=none\",\"OLD=one two\"]");
    assert_string_equal(value_get_string(inner, "WorkingDir", ""), "/srv/2.0");
    assert_string_equal(value_get_string(inner, "User", ""), "ml");
    assert_string_equal(value_text(value_at(value_get(inner, "Cmd"), 2), ""), "echo hi");
    assert_non_null(value_get(value_get(inner, "ExposedPorts"), "91/udp"));
    assert_string_equal(value_get_string(value_get(inner, "Labels"), "two", ""), "2 3");
    unpack(&built, "out");
    content("out/srv/2.0/deep/y.lua", "y");
    content("out/opt/src/link", "y");
    assert_int_equal(stat(in("out/usr/bin/run.sh"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0750);
    if (geteuid() == 0)
        assert_int_equal(st.st_uid, 1234);
}

static void add_unpacks(void **state)
{
    struct build_result built;
    struct error err = {0};

    (void)state;
    put("tree/a/b.txt", "packed");
    put("ctx/plain.gz", "not an archive");
    pid_t pid = fork();
    if (pid == 0) {
        execlp("tar", "tar", "-C", in("tree"), "-cJf", in("ctx/t.tar.xz"), "a", (char *)NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    ok(build("FROM scratch\nADD t.tar.xz plain.gz /in/\n", &built, &err), err);
    unpack(&built, "out");
    content("out/in/a/b.txt", "packed");
    content("out/in/plain.gz", "not an archive");
}

static void links_stay_inside(void **state)
{
    struct build_result built;
    struct error err = {0};

    (void)state;
    put("secret", "outside");
    put("ctx/rootfs/usr/lib/x", "x");
    assert_int_equal(symlink("usr/lib", in("ctx/rootfs/lib")), 0);
    assert_int_equal(symlink("../../secret", in("ctx/out")), 0);
    ok(build("FROM scratch\nCOPY rootfs /\nCOPY rootfs/usr/lib/x /lib/y\n", &built, &err), err);
    unpack(&built, "image");
    content("image/usr/lib/y", "x"); /* through the link, which stayed one */
    fails(build("FROM scratch\nCOPY out /x\n", &built, &err), err, ERR_NOT_FOUND, "no such file");
    fails(build("FROM scratch\nCOPY ../secret /x\n", &built, &err), err, ERR_NOT_FOUND,
          "no such file");
}

/* ---- what is said ---- */

static void messages(void **state)
{
    static const struct {
        const char *text;
        enum error_code code;
        const char *says, *hints;
    } cases[] = {
        {"", ERR_INVALID, "there is no FROM", "FROM scratch"},
        {"FROM scratch\n\nRUN echo \\\n  hi\n", ERR_INVALID,
         "Dockerfile:3: RUN: the stage has no files yet", "begin FROM an image with a shell"},
        {"FROM scratch\nCOPPY a b\n", ERR_INVALID, "Dockerfile:2: unknown instruction 'COPPY'",
         "did you mean COPY?"},
        {"COPY a b\nFROM scratch\n", ERR_INVALID, "Dockerfile:1: COPY stands before the first FROM",
         "ARG"},
        {"FROM scratch\nCOPY a\n", ERR_INVALID,
         "Dockerfile:2: COPY needs a source and a destination", ""},
        {"FROM scratch\nCOPY a b c\n", ERR_INVALID, "Dockerfile:2: COPY of several sources",
         "end it with /"},
        {"FROM scratch\nCOPY --form=x a b\n", ERR_INVALID, "Dockerfile:2: COPY has no flag --form",
         "--from="},
        {"FROM scratch\nCOPY nothere /\n", ERR_NOT_FOUND, "Dockerfile:2: COPY: nothere",
         "build context"},
        {"FROM scratch\nCOPY --chown=me . /\n", ERR_NOT_FOUND, "'me' is not in /etc/passwd",
         "number"},
        {"FROM scratch\nCOPY --chmod=ux . /\n", ERR_INVALID, "--chmod=ux is no mode", "755"},
        {"FROM scratch\nADD https://example.org/x /\n", ERR_UNSUPPORTED,
         "Dockerfile:2: ADD: this builder fetches nothing: https://example.org/x", ""},
        {"FROM scratch\nENV A\n", ERR_INVALID, "Dockerfile:2: ENV A has no value", "name=value"},
        {"FROM scratch\nENV A='x\n", ERR_INVALID, "Dockerfile:2: a ' is not closed", ""},
        {"FROM scratch\nEXPOSE http\n", ERR_INVALID, "Dockerfile:2: EXPOSE: 'http' is no port",
         "65535"},
        {"FROM scratch\nUSER ${WHO:?must be given}\n", ERR_INVALID, "WHO: must be given", ""},
        {"ARG X\nFROM $X\n", ERR_INVALID, "Dockerfile:2: FROM $X: the image's name is empty",
         "default"},
        {"FROM --platform=windows/amd64 scratch\n", ERR_UNSUPPORTED, "windows/amd64",
         "this machine"},
        {"FROM scratch\nCOPY <<EOF /x\nhi\n", ERR_INVALID,
         "Dockerfile:2: the heredoc EOF is not closed", "a line that is EOF"},
        {"FROM scratch AS a\nCOPY --from=a x y\n", ERR_INVALID, "copy from itself", ""},
        {"FROM scratch\nCOPY --from=$A x y\n", ERR_INVALID, "--from=$A: variables have no meaning",
         "FROM $A AS other"},
        {"FROM scratch\nCOPY Dockerfile.not \\\n  /x\n", ERR_NOT_FOUND,
         "Dockerfile:2: COPY: Dockerfile.not: no such file or folder\n    2 | COPY Dockerfile.not "
         "\\",
         ""},
        {"FROM scratch AS a\nCOPY not /x\nFROM scratch\nCOPY --from=a /x /y\n", ERR_NOT_FOUND,
         "COPY: Dockerfile:2: COPY: not: no such file or folder\n    2 | COPY not /x", ""},
        {"ARG A=${B?no}\nFROM scratch\n", ERR_INVALID, "Dockerfile:1: B: no\n    1 | ARG A=${B?no}",
         ""},
        {"FROM nobody/knows:1\n", ERR_NOT_FOUND, "Dockerfile:1: the image nobody/knows:1", ""},
    };
    struct build_result built;
    struct error err;

    (void)state;
    put("ctx/a", "a");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fails(build(cases[i].text, &built, &err), err, cases[i].code, cases[i].says);
        holds(err.hint, cases[i].hints);
    }
}

static void ignore_rules(void **state)
{
    static const struct {
        const char *rules, *path;
        bool ignored;
    } cases[] = {
        {"*.md", "a.md", true},       {"*.md", "x/a.md", false},     {"**/*.md", "x/y/a.md", true},
        {"**/*.md", "a.md", true},    {"docs", "docs/a/b", true},    {"/docs/", "docs/a", true},
        {"*\n!keep", "keep", false},  {"*\n!keep", "keep/x", false}, {"*\n!keep", "other", true},
        {"a/**", "a/b/c", true},      {"a/**/z", "a/z", true},       {"a/**/z", "a/b/c/z", true},
        {"?.c", "x.c", true},         {"?.c", "xy.c", false},        {"[a-c].o", "b.o", true},
        {"[^a-c].o", "b.o", false},   {"# x\n#x", "#x", false},      {"\\#x", "#x", true},
        {" a ", "a", true},           {"!a\na", "a", true},          {"a\n!a/b", "a/b", false},
        {"a\n!a/b", "a/c", true},     {"./x/../y", "y", true},       {"**", "a/b", true},
        {"a**b", "ab", true},         {"a**b", "axb", false},        {"a**b", "ax/b", true},
        {"a**/[b]c", "abc/x", true},  {"**a", "xa", true},           {"**a?", "xab", false},
        {"../*", "x", false},         {"/../x", "x", true},          {"a/../../*", "x", false},
        {"**/*.b/", "a/x.b/c", true}, {"a/**", "a", false},          {"***", "a/b", true},
        {"**/**/a", "a", true},       {"a/**/**/b", "a/b", true},    {"x/*/..", "x/y", true},
    };
    struct error err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ignore *ignore = ignore_parse(cases[i].rules, strlen(cases[i].rules), "x", &err);
        assert_non_null(ignore);
        if (ignore_match(ignore, cases[i].path) != cases[i].ignored)
            fail_msg("'%s' and %s", cases[i].rules, cases[i].path);
        ignore_free(ignore);
    }
    assert_null(ignore_parse("ok\n[x\n", 6, ".dockerignore", &err));
    holds(err.message, ".dockerignore:2:");
}

/* ---- this program as an image ---- */

static void base_image(void **state)
{
    struct build_result first, second;
    struct error err = {0};
    char one[17], two[17];
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);

    (void)state;
    const char *const none[] = {NULL};
    ok(base_image_build(store, PROGRAM, none, 0, &first, one, &err), err);
    ok(base_image_build(store, PROGRAM, none, 0, &second, two, &err), err);
    assert_string_equal(one, two);
    assert_string_equal(first.manifest.text, second.manifest.text);
    ok(oci_unpack(store, first.manifest.text, in("base"), NULL, &err), err);
    assert_int_equal(access(in("base/usr/local/bin/mlhost"), X_OK), 0);
    assert_int_equal(access(in("base/etc/ssl/certs/ca-certificates.crt"), R_OK), 0);
#ifndef MLHOST_SANITIZED  /* the sanitizers want a /proc */
    if (geteuid() == 0) { /* it runs with nothing but itself */
        pid_t pid = fork();
        if (pid == 0) {
            if (chroot(in("base")) != 0 || chdir("/") != 0 || !freopen("/out", "w", stdout))
                _exit(126);
            execl("/usr/local/bin/mlhost", "mlhost", "version", (char *)NULL);
            _exit(127);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        cleanup_buf struct buf text = BUF_INIT;
        ok(file_read(AT_FDCWD, in("base/out"), 4096, &text, &err), err);
        holds(text.data, "mlhost ");
    }
#endif
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(same_digest),       TEST(content_tag), TEST(everything),   TEST(add_unpacks),
        TEST(links_stay_inside), TEST(messages),    TEST(ignore_rules), TEST(base_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
