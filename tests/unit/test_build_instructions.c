/* What each instruction of a Dockerfile makes: config and files. */
#include "check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "oci/build.h"
#include "oci/manifest.h"
#include "oci/tree.h"

static char work[64];
static char logged[4096];

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
    snprintf(work, sizeof work, "/tmp/mlhost-build-XXXXXX");
    if (!mkdtemp(work))
        return -1;
    put("ctx/.keep", "");
    logged[0] = '\0';
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return dir_remove(work, NULL);
}

static void on_log(void *ctx, const char *level, const char *text)
{
    size_t len = strlen(logged);

    (void)ctx;
    snprintf(logged + len, sizeof logged - len, "%s: %s\n", level, text);
}

static int build(const char *dockerfile, const struct value *args, struct build_result *out,
                 struct error *err)
{
    cleanup_store struct store *store = store_open_at(in("store"), false, err);
    struct build_spec spec = {.store = store,
                              .context = in("ctx"),
                              .dockerfile = in("Dockerfile"),
                              .label = "Dockerfile",
                              .args = args,
                              .clamp = -1,
                              .log = on_log};

    put("Dockerfile", dockerfile);
    return store ? oci_build(&spec, out, err) : -1;
}

/* Something of the config, as JSON. */
static char *config(const char *dockerfile, const char *path)
{
    struct error err = {0};
    struct build_result built;
    cleanup_value struct value manifest = {0};
    cleanup_value struct value whole = {0};
    cleanup_buf struct buf text = BUF_INIT;

    if (build(dockerfile, NULL, &built, &err) != 0)
        return mem_strdup(err.message);
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);
    ok(oci_manifest_load(store, built.manifest.text, &manifest, NULL, &err), err);
    ok(oci_config_load(store, &manifest, &whole, &err), err);
    const struct value *at = value_path(&whole, path);
    value_to_json(at ? at : &(struct value){0}, 0, &text);
    return buf_steal(&text);
}

/* The files of the image: "mode uid:gid path -> link (= first name)", one a line. */
static char *files(const char *dockerfile)
{
    struct error err = {0};
    struct build_result built;
    struct tree tree = {0};
    cleanup_value struct value manifest = {0};
    cleanup_buf struct buf text = BUF_INIT;
    size_t count;

    if (build(dockerfile, NULL, &built, &err) != 0)
        return mem_strdup(err.message);
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);
    ok(oci_manifest_load(store, built.manifest.text, &manifest, NULL, &err), err);
    const struct value *layers = value_get(&manifest, "layers");
    for (size_t i = 0; i < value_count(layers); i++) {
        cleanup_close int fd =
            store_blob_open(store, value_get_string(value_at(layers, i), "digest", ""), NULL, &err);
        assert_true(fd >= 0);
        ok(tree_add_layer(&tree, fd, &err), err);
    }
    const struct tree_node **nodes = tree_sorted(&tree, &count);
    for (size_t i = 0; i < count; i++) {
        const struct tree_node *node = nodes[i];
        buf_printf(&text, "%c%o %u:%u %s%s%s%s%s\n",
                   S_ISDIR(node->mode)   ? 'd'
                   : S_ISLNK(node->mode) ? 'l'
                                         : '-',
                   node->mode & 07777, node->uid, node->gid, node->path, node->link ? " -> " : "",
                   node->link ? node->link : "", node->origin ? " = " : "",
                   node->origin ? node->origin : "");
    }
    free(nodes);
    tree_free(&tree);
    return text.data ? buf_steal(&text) : mem_strdup("");
}

/* A file of the last layer. */
static void content(const char *dockerfile, const char *name, const char *wanted)
{
    struct error err = {0};
    struct build_result built;
    cleanup_value struct value manifest = {0};
    cleanup_value struct value slots = {0};
    char text[4096] = "";

    ok(build(dockerfile, NULL, &built, &err), err);
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);
    ok(oci_manifest_load(store, built.manifest.text, &manifest, NULL, &err), err);
    const struct value *layers = value_get(&manifest, "layers");
    const struct value *last = value_at(layers, value_count(layers) - 1);
    cleanup_close int fd = store_blob_open(store, value_get_string(last, "digest", ""), NULL, &err);
    cleanup_close int to = store_scratch(store, &err);
    value_set_map(&slots);
    value_put(&slots, name);
    ok(tree_spool(fd, &slots, to, &err), err);
    ssize_t n = pread(to, text, sizeof text - 1, 0);
    assert_true(n >= 0);
    assert_string_equal(text, wanted);
}

static void gives(char *got, const char *wanted)
{
    cleanup_free char *owned = got;

    if (!strstr(owned, wanted) || (*wanted == '\0' && *owned))
        fail_msg("'%s' is not '%s'", owned, wanted);
}

/* ---- config ---- */

static void config_instructions(void **state)
{
    static const struct {
        const char *text, *path, *wanted;
    } cases[] = {
        {"HEALTHCHECK --interval=30s --timeout=1500ms --start-period=1m --start-interval=2s "
         "--retries=4 CMD curl -f http://x",
         "config.Healthcheck",
         "{\"Test\":[\"CMD-SHELL\",\"curl -f http://x\"],\"Interval\":30000000000,"
         "\"Timeout\":1500000000,\"StartPeriod\":60000000000,\"StartInterval\":2000000000,"
         "\"Retries\":4}"},
        {"HEALTHCHECK CMD [\"a\", \"b\"]", "config.Healthcheck",
         "{\"Test\":[\"CMD\",\"a\",\"b\"]}"},
        {"HEALTHCHECK CMD a\nHEALTHCHECK NONE", "config.Healthcheck", "{\"Test\":[\"NONE\"]}"},
        {"HEALTHCHECK --interval=1us CMD a", "", "duration"},
        {"HEALTHCHECK --retries=0 --interval=0s CMD a", "config.Healthcheck",
         "{\"Test\":[\"CMD-SHELL\",\"a\"]}"},
        {"SHELL [\"/bin/bash\", \"-c\"]\nCMD a b\nENTRYPOINT c", "config.Entrypoint",
         "[\"/bin/bash\",\"-c\",\"c\"]"},
        {"CMD [\"a\"]\nENTRYPOINT [\"b\"]", "config.Cmd", "[\"a\"]"},
        {"ENV P=\"80 81/UDP\"\nEXPOSE $P 9000-9002/tcp", "config.ExposedPorts",
         "{\"80/tcp\":{},\"81/udp\":{},\"9000/tcp\":{},\"9001/tcp\":{},\"9002/tcp\":{}}"},
        {"EXPOSE 10-9", "", "'10-9' is no port"},
        {"VOLUME [\"/a b\", \"/c\"]\nVOLUME /d /e", "config.Volumes",
         "{\"/a b\":{},\"/c\":{},\"/d\":{},\"/e\":{}}"},
        {"STOPSIGNAL RTMIN+3", "config.StopSignal", "\"RTMIN+3\""},
        {"STOPSIGNAL 9", "config.StopSignal", "\"9\""},
        {"STOPSIGNAL sigterm", "config.StopSignal", "\"sigterm\""},
        {"STOPSIGNAL SIGNOPE", "", "'SIGNOPE' is no signal"},
        {"STOPSIGNAL RTMIN+99", "", "is no signal"},
        {"ENV A=1\nENV A=2 B=$A", "config.Env", "\"A=2\",\"B=1\""},
        {"ENV A one  two # three", "config.Env", "\"A=one  two # three\""},
        {"ENV V=1.2.3\nLABEL major=${V%%.*} \"a b\"='$V' file=${V//./_}", "config.Labels",
         "{\"major\":\"1\",\"a b\":\"$V\",\"file\":\"1_2_3\"}"},
        {"ARG A=x\nARG B=${A}y\nUSER $B", "config.User", "\"xy\""},
        {"ARG TARGETOS\nARG TARGETSTAGE\nLABEL a=$TARGETOS-$TARGETSTAGE", "config.Labels",
         "{\"a\":\"linux-default\"}"},
        {"LABEL a=$TARGETOS", "config.Labels", "{\"a\":\"\"}"}, /* no ARG, no value */
        {"ENV A=env\nARG A=arg\nLABEL a=$A", "config.Labels", "{\"a\":\"env\"}"},
        {"ONBUILD RUN --mount=type=cache,target=/c a\\\n  b", "config.OnBuild",
         "[\"RUN --mount=type=cache,target=/c a  b\"]"},
        {"ONBUILD COPY <<A <<-B /x/\n1\nA\n\t2\n\tB", "config.OnBuild",
         "[\"COPY <<A <<-B /x/\\n1\\nA\\n2\\nB\"]"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cleanup_free char *text = mem_printf("FROM scratch\n%s\n", cases[i].text);
        gives(config(text, cases[i].path), cases[i].wanted);
    }
}

static void onbuild(void **state)
{
    static const char base[] = "FROM scratch AS base\n"
                               "ARG FROM_BASE=yes\n"
                               "ENTRYPOINT [\"old\"]\n"
                               "ONBUILD ARG WHO=nobody\n"
                               "ONBUILD ENV GREET=\"hello $WHO\"\n"
                               "ONBUILD COPY <<EOF /greeting\nto $WHO\nEOF\n"
                               "ONBUILD WORKDIR /srv\n";
    cleanup_value struct value args = {0};
    struct build_result built;
    struct error err = {0};

    (void)state;
    cleanup_free char *text =
        mem_printf("%sFROM base AS two\nFROM two\nLABEL a=$FROM_BASE\n", base);
    gives(config(text, "config.Env"), "\"GREET=hello nobody\"");
    gives(config(text, "config.OnBuild"), "null");
    gives(config(text, "config.Labels"), "{\"a\":\"yes\"}");
    gives(config(text, "config.WorkingDir"), "\"/srv\"");
    gives(files(text), "-644 0:0 greeting\nd755 0:0 srv\n");
    holds(logged, "ONBUILD of base: COPY <<EOF /greeting");
    /* A base of its own keeps them. */
    gives(config(base, "config.OnBuild"), "[\"ARG WHO=nobody\"");
    value_set_map(&args);
    value_put_string(&args, "WHO", "you");
    value_put_string(&args, "HTTPS_PROXY", "http://p");
    value_put_string(&args, "BUILDKIT_INLINE_CACHE", "1");
    logged[0] = '\0';
    ok(build(text, &args, &built, &err), err);
    if (strstr(logged, "is used by no ARG"))
        fail_msg("%s", logged);
    fails(build("FROM scratch AS a\nONBUILD COPY nothere /\nFROM a\n", NULL, &built, &err), err,
          ERR_NOT_FOUND, "Dockerfile:3: ONBUILD of a: COPY: nothere");
}

static void platforms(void **state)
{
    struct build_result built;
    struct error err = {0};

    (void)state;
    gives(config("FROM --platform=$BUILDPLATFORM scratch\n", "os"), "\"linux\"");
    gives(config("FROM --platform=linux scratch\n", "os"), "\"linux\"");
    fails(build("FROM --platform=linux/s390x scratch\n", NULL, &built, &err), err, ERR_UNSUPPORTED,
          "--platform=linux/s390x cannot be built here");
}

/* ---- COPY and ADD ---- */

static void some_files(void)
{
    put("ctx/a.txt", "a");
    put("ctx/b.md", "b");
    put("ctx/src/one.txt", "1");
    put("ctx/src/two.md", "2");
    put("ctx/src/deep/three.txt", "3");
    put("ctx/src/deep/er/four.txt", "4");
    put("ctx/run.sh", "#!");
    assert_int_equal(chmod(in("ctx/run.sh"), 0755), 0);
    assert_int_equal(symlink("one.txt", in("ctx/src/link")), 0);
    assert_int_equal(symlink("src", in("ctx/way")), 0);
}

static void copies(void **state)
{
    static const struct {
        const char *text, *wanted;
    } cases[] = {
        {"COPY --exclude=*.md --exclude=src/deep/** . /x/",
         "d755 0:0 x\n-644 0:0 x/.keep\n-644 0:0 x/a.txt\n-755 0:0 x/run.sh\nd755 0:0 x/src\n"
         "d755 0:0 x/src/deep\nl777 0:0 x/src/link -> one.txt\n-644 0:0 x/src/one.txt\n"
         "-644 0:0 x/src/two.md\nl777 0:0 x/way -> src\n"},
        {"COPY --exclude=**/*.txt --exclude=link src /x/",
         "d755 0:0 x\nd755 0:0 x/deep\nd755 0:0 x/deep/er\n-644 0:0 x/two.md\n"},
        {"COPY --exclude=*.txt --exclude=!one.txt --exclude=deep --exclude=link src /x/",
         "d755 0:0 x\n-644 0:0 x/one.txt\n-644 0:0 x/two.md\n"},
        {"COPY --exclude=*.md a.txt b.md /x/", "d755 0:0 x\n-644 0:0 x/a.txt\n"},
        {"COPY --parents src/deep/three.txt a.txt /x/",
         "d755 0:0 x\n-644 0:0 x/a.txt\nd755 0:0 x/src\nd755 0:0 x/src/deep\n"
         "-644 0:0 x/src/deep/three.txt\n"},
        {"COPY --parents src/./deep/**/*.txt /x",
         "d755 0:0 x\nd755 0:0 x/deep\nd755 0:0 x/deep/er\n-644 0:0 x/deep/er/four.txt\n"
         "-644 0:0 x/deep/three.txt\n"},
        {"COPY --parents --exclude=**/er **/*.txt /x/",
         "d755 0:0 x\n-644 0:0 x/a.txt\nd755 0:0 x/src\nd755 0:0 x/src/deep\n"
         "-644 0:0 x/src/deep/three.txt\n-644 0:0 x/src/one.txt\n"},
        {"COPY --parents src/deep /x/",
         "d755 0:0 x\nd755 0:0 x/src\nd755 0:0 x/src/deep\nd755 0:0 x/src/deep/er\n"
         "-644 0:0 x/src/deep/er/four.txt\n-644 0:0 x/src/deep/three.txt\n"},
        {"COPY --parents */./deep/three.txt /x/",
         "d755 0:0 x\nd755 0:0 x/deep\n-644 0:0 x/deep/three.txt\n"},
        {"COPY --parents nothere/a /x/", "COPY: nothere/a: no such file or folder"},
        {"COPY --chmod=u=rwX,go=rX --chown=7:8 src run.sh /x/",
         "d755 7:8 x\nd755 7:8 x/deep\nd755 7:8 x/deep/er\n-644 7:8 x/deep/er/four.txt\n"
         "-644 7:8 x/deep/three.txt\nl777 7:8 x/link -> one.txt\n-644 7:8 x/one.txt\n"
         "-755 7:8 x/run.sh\n-644 7:8 x/two.md\n"},
        {"COPY --chmod=a-rwx,u+rw,g=u,o+t a.txt /x", "-1660 0:0 x\n"},
        {"COPY --chmod=u+s run.sh /x", "-4755 0:0 x\n"},
        {"COPY --chmod=rwx a.txt /x", "--chmod=rwx is no mode"},
        {"COPY --chmod=u+q a.txt /x", "is no mode"},
        {"COPY --chmod=778 a.txt /x", "is no mode"},
        /* Go's wildcards: two stars are one, a link is what it leads to. */
        {"COPY **.txt /x/", "d755 0:0 x\n-644 0:0 x/a.txt\n"},
        {"COPY s**/*.txt /x/", "d755 0:0 x\n-644 0:0 x/one.txt\n"},
        {"COPY [!s]rc/a* nothere* a.txt /x/", "d755 0:0 x\n-644 0:0 x/a.txt\n"},
        {"COPY way/l?nk /x", "-644 0:0 x\n"},
        {"COPY way/d* /x/", "d755 0:0 x\nd755 0:0 x/er\n-644 0:0 x/er/four.txt\n"
                            "-644 0:0 x/three.txt\n"},
        {"COPY [a /x", "is malformed"},
        {"COPY a.txt /x\nCOPY src/deep/er /x", "/x is in the image, and no folder"},
        {"COPY a.txt /x\nCOPY b.md /x/y", "/x is in the image, and no folder"},
        {"COPY a.txt /x\nCOPY --link b.md /x/y", "d755 0:0 x\n-644 0:0 x/y\n"},
        {"COPY <<a.txt <<\"b\" /x/\nA\na.txt\n$B\nb", "d755 0:0 x\n-644 0:0 x/a.txt\n"},
        {"COPY --chmod=700 --chown=1:2 <<E /x\nE", "-700 1:2 x\n"},
        {"COPY <<../e /x/\n../e", "Dockerfile:2: COPY: <<../e: '../e' is no name of a file"},
        {"COPY <<y.txt a.txt /x/\n1\ny.txt", "d755 0:0 x\n-644 0:0 x/a.txt\n-644 0:0 x/y.txt\n"},
    };

    (void)state;
    some_files();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cleanup_free char *text = mem_printf("FROM scratch\n%s\n", cases[i].text);
        cleanup_free char *got = files(text);
        if (!strstr(got, cases[i].wanted) ||
            (!strstr(got, "Dockerfile:") && !strstr(cases[i].text, "<<\"") &&
             strcmp(got, cases[i].wanted) != 0))
            fail_msg("%s\ngave\n%s\nand not\n%s", cases[i].text, got, cases[i].wanted);
    }
    holds(logged, "nothing matches nothere*");
    content("FROM scratch\nENV A=v\nCOPY <<E /x\nit's \"$A\" \\$A\n${A#v}\nE\n", "x",
            "it's \"v\" $A\n\n");
    content("FROM scratch\nENV A=v\nCOPY <<-'E' /x\n\t$A\n\tE\n", "x", "$A\n");
}

static void links_of_destination(void **state)
{
    static const char base[] = "FROM scratch\nCOPY tree /\n";

    (void)state;
    some_files();
    put("ctx/tree/usr/lib/z", "z");
    assert_int_equal(symlink("usr/lib", in("ctx/tree/lib")), 0);
    cleanup_free char *through = mem_printf("%sCOPY a.txt /lib/\n", base);
    gives(files(through), "l777 0:0 lib -> usr/lib\nd755 0:0 usr\nd755 0:0 usr/lib\n"
                          "-644 0:0 usr/lib/a.txt\n");
    cleanup_free char *apart = mem_printf("%sCOPY --link a.txt /lib/\n", base);
    gives(files(apart), "d755 0:0 lib\n-644 0:0 lib/a.txt\nd755 0:0 usr\n");
}

static void owners(void **state)
{
    (void)state;
    some_files();
    put("ctx/etc/passwd", "root:x:0:0::/:\nme:x:5:6::/:\nbad:x:7\n");
    put("ctx/etc/group", "root:x:0:\nours:x:8:me\n");
    gives(files("FROM scratch\nCOPY etc /etc\nARG WHO=me\n"
                "COPY --chown=$WHO a.txt /name\nCOPY --chown=5 a.txt /number\n"
                "COPY --chown=me:ours a.txt /both\nCOPY --chown=me:9 a.txt /mixed\n"
                "COPY --chown=:ours a.txt /group\nUSER me\nWORKDIR /home/me\n"),
          "-644 5:8 both\nd755 0:0 etc\n-644 0:0 etc/group\n-644 0:0 etc/passwd\n"
          "-644 0:8 group\nd755 5:6 home\nd755 5:6 home/me\n-644 5:9 mixed\n-644 5:6 name\n"
          "-644 5:5 number\n");
    gives(files("FROM scratch\nCOPY etc /etc\nCOPY --chown=bad a.txt /x\n"),
          "'bad' is not in /etc/passwd of the image");
    gives(files("FROM scratch\nCOPY etc /etc\nCOPY --chown=me:none a.txt /x\n"),
          "'none' is not in /etc/group of the image");
    gives(files("FROM scratch\nCOPY --chown=root:root a.txt /x\n"), "-644 0:0 x\n");
    gives(files("FROM scratch\nCOPY --chown=5x a.txt /x\n"), "'5x' is neither a name nor a number");
}

/* Hard links, owners and attributes of a stage's files come along. */
static void out_of_stages(void **state)
{
    (void)state;
    put("ctx/etc/passwd", "me:x:5:6::/:\n");
    put("tree/a/one", "same");
    assert_int_equal(link(in("tree/a/one"), in("tree/a/two")), 0);
    assert_int_equal(link(in("tree/a/one"), in("tree/zzz")), 0);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("tar", "tar", "-C", in("tree"), "--owner=3", "--group=4", "--sort=name",
               "--pax-option=SCHILY.xattr.user.note:=kept", "-cf", in("ctx/t.tar"), "a", "zzz",
               (char *)NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    gives(files("FROM scratch\nADD t.tar /in/\n"),
          "d755 3:4 in/a\n-644 3:4 in/a/one\n-644 3:4 in/a/two = in/a/one\n"
          "-644 3:4 in/zzz = in/a/one\n");
    gives(files("FROM scratch\nADD --unpack=false t.tar /in/\n"),
          "d755 0:0 in\n-644 0:0 in/t.tar\n");
    static const char both[] = "FROM scratch AS s\nCOPY etc /etc\nADD t.tar /in/\n"
                               "FROM scratch\nCOPY --from=s --exclude=a/one /in /out\n";
    gives(files(both), "d755 0:0 out\nd755 3:4 out/a\n-644 3:4 out/a/two\n"
                       "-644 3:4 out/zzz = out/a/two\n");
    content(both, "out/a/two", "same");
    struct error err = {0};
    struct build_result built;
    cleanup_value struct value manifest = {0};
    cleanup_value struct value slots = {0};
    ok(build(both, NULL, &built, &err), err);
    cleanup_store struct store *store = store_open_at(in("store"), false, &err);
    ok(oci_manifest_load(store, built.manifest.text, &manifest, NULL, &err), err);
    const struct value *layer = value_at(value_get(&manifest, "layers"), 0);
    cleanup_close int fd =
        store_blob_open(store, value_get_string(layer, "digest", ""), NULL, &err);
    cleanup_close int to = store_scratch(store, &err);
    value_set_map(&slots);
    value_put(&slots, "out/a/two");
    ok(tree_spool(fd, &slots, to, &err), err);
    const struct value *attributes = value_get(value_get(&slots, "out/a/two"), "attributes");
    assert_string_equal(value_get_string(attributes, "user.note", "none"), "kept");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(config_instructions),  TEST(onbuild),       TEST(platforms), TEST(copies),
        TEST(links_of_destination), TEST(out_of_stages), TEST(owners)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
