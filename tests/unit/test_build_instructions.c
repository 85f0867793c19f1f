/* What each instruction of a Dockerfile makes: config and files. */
#include "check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(config_instructions), TEST(onbuild), TEST(platforms)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
