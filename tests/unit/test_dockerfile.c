/* Dockerfiles as data: lines, directives, heredocs, flags; variables; what is said of errors. */
#include "check.h"

#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "oci/dockerfile.h"

/* The document, or one thing of it by its path, as JSON; or the error's message. */
static char *parsed(const char *text, const char *part)
{
    cleanup_value struct value document = {0};
    cleanup_buf struct buf out = BUF_INIT;
    struct error err = {0};

    if (dockerfile_parse(text, strlen(text), "Dockerfile", &document, NULL, &err) != 0)
        return mem_printf("%s", err.message);
    const struct value *at = &document;
    if (strncmp(part, "last.", 5) == 0) {
        const struct value *list = value_get(&document, "instructions");
        at = value_at(list, value_count(list) - 1);
        part += 5;
    }
    at = *part ? value_path(at, part) : at;
    value_to_json(at ? at : &(struct value){0}, 0, &out);
    return buf_steal(&out);
}

static void lines_and_words(void **state)
{
    static const struct {
        const char *text, *part, *wanted;
    } cases[] = {
        {"\xef\xbb\xbf# syntax=docker/dockerfile:1\nFROM a\n", "syntax", "\"docker/dockerfile:1\""},
        {"# Escape = `\r\nFROM a\r\nCOPY b `\r\n  c\r\n", "last.words", "[\"b\",\"c\"]"},
        {"# check=skip=A,B ;error=true\nFROM a\n", "check",
         "{\"skip\":[\"A\",\"B\"],\"error\":true}"},
        {"# just a comment\n# escape=`\nFROM a\nRUN b \\\n c\n", "last.text", "\"b  c\""},
        {"FROM a\nRUN one \\\n# comment\n\n  two \\  \n\tthree   \n", "last.text",
         "\"one   two \\tthree\""},
        {"FROM a\nRUN one \\\n\n two\n", "last.empty_line", "3"},
        {"FROM a\nRUN dir\\\\\nRUN b\n", "last.line", "3"}, /* a doubled one is no continuation */
        {"FROM a\nRUN b \\", "last.text", "\"b\""},
        {"from a as B\n", "last.written", "\"from\""},
        {"FROM a\nCMD [\"x\", \"y z\"]\n", "last.words", "[\"x\",\"y z\"]"},
        {"FROM a\nCMD [\"x\", y]\n", "last.json", "false"},
        {"FROM a\nEXPOSE [\"80\"]\n", "last.json", "false"},
        {"FROM a\nCMD []\n", "last.words", "[]"},
        {"# one\nFROM a\n#three\nRUN b\n", "comments",
         "[{\"line\":1,\"text\":\"one\"},{\"line\":3,\"text\":\"three\"}]"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cleanup_free char *got = parsed(cases[i].text, cases[i].part);
        assert_string_equal(got, cases[i].wanted);
    }
}

static void heredocs(void **state)
{
    static const struct {
        const char *text, *part, *wanted;
    } cases[] = {
        {"FROM a\nRUN <<EOF\nb\n  EOF\nEOF\nRUN c\n", "last.text", "\"c\""},
        {"FROM a\nRUN <<EOF\nb $x\n# no comment\n\nEOF\n", "last.heredocs",
         "[{\"word\":\"<<EOF\",\"name\":\"EOF\",\"text\":\"b $x\\n# no comment\\n\\n\","
         "\"expand\":true,\"line\":3}]"},
        {"FROM a\nRUN cat <<A 3<<-'B c' > x\n1\nA\n\t\t2\n\tB c\n", "last.heredocs",
         "[{\"word\":\"<<A\",\"name\":\"A\",\"text\":\"1\\n\",\"expand\":true,\"line\":3},"
         "{\"word\":\"3<<-'B c'\",\"name\":\"B "
         "c\",\"text\":\"2\\n\",\"expand\":false,\"line\":5}]"},
        {"FROM a\nCOPY --chmod=7 <<a.txt <<\"b\" /x/\nA\na.txt\nB\nb\n", "last.words",
         "[\"<<a.txt\",\"<<\\\"b\\\"\",\"/x/\"]"},
        {"FROM a\nONBUILD COPY <<E /x\nt\nE\n", "last.trigger.heredocs",
         "[{\"word\":\"<<E\",\"name\":\"E\",\"text\":\"t\\n\",\"expand\":true,\"line\":3}]"},
        {"FROM a\nRUN echo $((1<<2)) \"<<X\" a<<b <<<c\n", "last.heredocs", "null"},
        {"FROM a\nRUN [\"cat\", \"<<E\"]\n", "last.heredocs", "null"},
        {"FROM a\nRUN <<E\nx\nE\n\nENV a=b\n", "last.line", "6"},
        {"FROM a\nENV a=<<E\n", "last.heredocs", "null"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cleanup_free char *got = parsed(cases[i].text, cases[i].part);
        assert_string_equal(got, cases[i].wanted);
    }
}

static void flags(void **state)
{
    static const struct {
        const char *text, *wanted;
    } cases[] = {
        {"RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --network=none "
         "--security=sandbox true",
         "{\"mount\":[\"type=cache,target=/c\",\"type=tmpfs,target=/t\"],\"network\":\"none\","
         "\"security\":\"sandbox\"}"},
        {"COPY --from=x --chown=a:b --chmod=u=rwX,go=rX --link --parents=false --exclude=*.a "
         "--exclude=\"b c\" d e",
         "{\"from\":\"x\",\"chown\":\"a:b\",\"chmod\":\"u=rwX,go=rX\",\"link\":true,"
         "\"parents\":false,\"exclude\":[\"*.a\",\"b c\"]}"},
        {"ADD --checksum=sha256:0 --keep-git-dir=true --unpack=FALSE --link a b",
         "{\"checksum\":\"sha256:0\",\"keep-git-dir\":true,\"unpack\":false,\"link\":true}"},
        {"HEALTHCHECK --interval=1s --timeout=2s --start-period=3s --start-interval=4s "
         "--retries=5 CMD x",
         "{\"interval\":\"1s\",\"timeout\":\"2s\",\"start-period\":\"3s\",\"start-interval\":"
         "\"4s\","
         "\"retries\":\"5\"}"},
        {"RUN -- --mount=x", "{}"},
        {"CMD --help", "{}"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cleanup_free char *text = mem_printf("FROM a\n%s\n", cases[i].text);
        cleanup_free char *got = parsed(text, "last.flags");
        assert_string_equal(got, cases[i].wanted);
    }
}

static void errors(void **state)
{
    static const struct {
        const char *text, *says, *hints;
    } cases[] = {
        {"FROM a\nCOPPY x y\n",
         "Dockerfile:2: unknown instruction 'COPPY'\n    2 | COPPY x y\n      | ^~~~~", "COPY?"},
        {"FROM a\nCOPY x \\\n  --y z \\\n  w\n",
         "Dockerfile:4: COPY of several sources needs a folder as destination, not 'w'\n"
         "    4 |   w\n      |   ^",
         "end it with /"},
        {"FROM a\nCOPY --chwon=b \\\n c d\n",
         "Dockerfile:2: COPY has no flag --chwon\n    2 | COPY --chwon=b \\\n      |      ^~~~~~~",
         "did you mean --chown? COPY has --from= --chown= --chmod= --link --parents --exclude="},
        {"FROM a\nCOPY --from=b --from=c d e\n", "--from stands here twice", "once"},
        {"FROM a\nCOPY --link=perhaps d e\n", "neither true nor false", "--flag=true"},
        {"FROM a\nCOPY --from d e\n", "--from needs a value", ""},
        {"FROM a\nRUN --network=bridge x\n", "--network=bridge is not known", "none"},
        {"FROM a\nRUN --security=root x\n", "--security=root is not known", "insecure"},
        {"FROM a\nSHELL /bin/sh\n", "SHELL needs the JSON form", "SHELL ["},
        {"FROM a\nCMD [1]\n", "JSON form holds texts", "\""},
        {"FROM a\nONBUILD FROM b\n", "ONBUILD cannot hold FROM", ""},
        {"FROM a\nONBUILD ONBUILD RUN b\n", "ONBUILD cannot hold ONBUILD", ""},
        {"FROM a\nONBUILD COPY b\n", "COPY needs a source and a destination", ""},
        {"FROM a\nONBUILD\n", "Dockerfile:2: ONBUILD needs an argument", ""},
        {"FROM a AS 1b\n", "'1b' is no name for a stage", "letter"},
        {"FROM a b\n", "Dockerfile:1: FROM needs one image", "AS name"},
        {"FROM a\nHEALTHCHECK true\n", "HEALTHCHECK needs CMD or NONE", ""},
        {"FROM a\nHEALTHCHECK NONE x\n", "takes nothing more", ""},
        {"FROM a\nHEALTHCHECK --retries=x CMD y\n", "--retries=x is no number", ""},
        {"FROM a\nENV a=b c\n", "'c' is not of the form name=value", "quotes"},
        {"FROM a\nLABEL x\n", "LABEL x has no value", "LABEL name=value"},
        {"FROM a\nARG 1a\n", "'1a' is no name of a variable", ""},
        {"FROM a\nENV x=\"y\n", "Dockerfile:2: a \" is not closed", ""},
        {"FROM a\nRUN <<-EOF\n  x\n", "Dockerfile:2: the heredoc EOF is not closed", "EOF"},
        {"# escape=\\\n# ESCAPE=`\nFROM a\n",
         "Dockerfile:2: the directive escape stands here twice", ""},
        {"# escape=x\nFROM a\n", "the directive escape must be", "`"},
        {"# check=skipp=a\nFROM a\n", "the directive check has no 'skipp'", "skip="},
        {"RUN x\nFROM a\n", "Dockerfile:1: RUN stands before the first FROM", "ARG"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = {0};
        cleanup_value struct value document = {0};
        fails(dockerfile_parse(cases[i].text, strlen(cases[i].text), "Dockerfile", &document, NULL,
                               &err),
              err, ERR_INVALID, cases[i].says);
        holds(err.hint, cases[i].hints);
    }
}

static void triggers(void **state)
{
    cleanup_value struct value item = {0};
    struct error err = {0};

    (void)state;
    ok(dockerfile_parse_trigger("COPY <<E /x\nhi\nE", "base", 7, &item, &err), err);
    assert_int_equal(value_get_int(&item, "line", 0), 7);
    assert_string_equal(value_get_string(value_at(value_get(&item, "heredocs"), 0), "text", ""),
                        "hi\n");
    fails(dockerfile_parse_trigger("RUN a\nRUN b", "base", 7, &item, &err), err, ERR_INVALID,
          "is not one instruction");
    fails(dockerfile_parse_trigger("", "base", 7, &item, &err), err, ERR_INVALID,
          "is not one instruction");
}

/* ---- variables ---- */

static const char *lookup(void *ctx, const char *name, size_t len)
{
    static const struct {
        const char *name, *text;
    } known[] = {{"A", "value"},       {"EMPTY", ""},    {"P", "/usr/lib/x.tar.gz"},
                 {"V", "1.2.3"},       {"S", "a*b?c"},   {"U", "gr\xc3\xbc\xc3\x9f"},
                 {"Q", "it's \"so\""}, {"SP", "one two"}};

    (void)ctx;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == len && memcmp(known[i].name, name, len) == 0)
            return known[i].text;
    return NULL;
}

static void expansion(void **state)
{
    static const struct {
        const char *word, *wanted; /* NULL: an error */
    } cases[] = {
        {"$A", "value"},
        {"x${A}y$A.z", "xvalueyvalue.z"},
        {"$NONE|${NONE}", "|"},
        {"\\$A \\${A}", "$A ${A}"},
        {"'$A' \"$A\" \"'$A'\"", "$A value 'value'"},
        {"\"\\$A \\\" \\x\"", "$A \" \\x"},
        {"a\\ b\\\\c\\", "a b\\c"},
        {"$", "$"},
        {"a$ b", "a$ b"},
        {"${NONE:-d}${NONE-d}${EMPTY:-d}${EMPTY-d}${A:-d}", "dddvalue"},
        {"${NONE:+d}${NONE+d}${EMPTY:+d}${EMPTY+d}${A:+d}", "dd"},
        {"${A?x}${EMPTY?x}", "value"},
        {"${NONE:-${EMPTY:-${A}}}", "value"},
        {"${NONE:-'a}b'}${NONE:-\"c d\"}${NONE:-e\\}}", "a}bc de}"},
        {"${P#*/}", "usr/lib/x.tar.gz"},
        {"${P##*/}", "x.tar.gz"},
        {"${P%.*}", "/usr/lib/x.tar"},
        {"${P%%.*}", "/usr/lib/x"},
        {"${P#/usr}${P#usr}", "/lib/x.tar.gz/usr/lib/x.tar.gz"},
        {"${V%.?}${V#?.}", "1.22.3"},
        {"${V/./-}|${V//./-}", "1-2.3|1-2-3"},
        {"${P//\\//_}", "_usr_lib_x.tar.gz"},
        {"${P/lib*/L}", "/usr/L"},
        {"${S/\\*/+}${S//\\?/-}", "a+b?ca*b-c"},
        {"${U#gr?}${U%?}", "\xc3\x9fgr\xc3\xbc"},
        {"${V//?/x}", "xxxxx"},
        {"${V//./}", "123"},
        {"${V/x/y}${NONE/x/y}", "1.2.3"},
        {"${A#$NONE}${A%${V}}", "valuevalue"},
        {"${A/v/$V}", "1.2.3alue"},
        {"${A:#v}", "alue"},
        {"$1$10$$A", "A"}, /* names that a shell has, and nobody here */
        {"${Q}", "it's \"so\""},
        {"${NONE:?}", NULL},
        {"${EMPTY:?no}", NULL},
        {"${A", NULL},
        {"${A:-x", NULL},
        {"${}", NULL},
        {"${{A}}", NULL},
        {"${A:}", NULL},
        {"${A^^}", NULL},
        {"${A/x}", NULL},
        {"${A#\\x}", NULL},
        {"'a", NULL},
        {"\"a", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = {0};
        cleanup_free char *got = dockerfile_expand(cases[i].word, '\\', 0, lookup, NULL, &err);
        if (!cases[i].wanted) {
            if (got)
                fail_msg("%s became %s", cases[i].word, got);
            assert_int_equal(err.code, ERR_INVALID);
            continue;
        }
        if (!got)
            fail_msg("%s: %s", cases[i].word, err.message);
        assert_string_equal(got, cases[i].wanted);
    }
}

static void expansion_forms(void **state)
{
    struct error err = {0};
    cleanup_buf struct buf text = BUF_INIT;

    (void)state;
    cleanup_free char *heredoc = dockerfile_expand("it's \"$A\" \\$A '${V%%.*}'\n", '\\',
                                                   DOCKERFILE_RAW_QUOTES, lookup, NULL, &err);
    assert_string_equal(heredoc, "it's \"value\" $A '1'\n");
    cleanup_free char *other = dockerfile_expand("c:\\dir `$A $A", '`', 0, lookup, NULL, &err);
    assert_string_equal(other, "c:\\dir $A value");
    /* Patterns with many stars take no exponential time, nested ones no stack. */
    cleanup_free char *stars = dockerfile_expand(
        "${NONE:-${P#*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*z}}", '\\', 0, lookup, NULL, &err);
    assert_string_equal(stars, "/usr/lib/x.tar.gz");
    for (int i = 0; i < 1000; i++)
        buf_puts(&text, "${NONE:-");
    fails(dockerfile_expand(text.data, '\\', 0, lookup, NULL, &err) ? 0 : -1, err, ERR_INVALID,
          "nested too deeply");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_and_words), cmocka_unit_test(heredocs), cmocka_unit_test(flags),
        cmocka_unit_test(errors),          cmocka_unit_test(triggers), cmocka_unit_test(expansion),
        cmocka_unit_test(expansion_forms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
