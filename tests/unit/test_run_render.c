/* Text made harmless, the renderers, the reports. */
#include "check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/render.h"
#include "run/report.h"
#include "run/text.h"

static void harmless(const char *in, const char *want)
{
    cleanup_buf struct buf out = BUF_INIT;
    text_harmless(in, strlen(in), &out);
    assert_string_equal(out.data ? out.data : "", want);
}

static void lines_of_others_are_only_data(void **state)
{
    (void)state;
    harmless("plain \xc3\xa9 text\ttab", "plain \xc3\xa9 text\ttab");
    harmless("x ##vso[task.complete result=Failed;]", "x **vso[task.complete result=Failed;]");
    harmless("##VSO[task.setvariable]", "**VSO[task.setvariable]");
    harmless("###vso[a.b]", "#**vso[a.b]");
    harmless("##[group]x", "**[group]x");
    harmless("  ::error file=x::y", "  **error file=x::y");
    harmless("a::b", "a::b");
    harmless("\x1b[31mred\x1b[0m", "red");
    harmless("#\x1b[0m#vso[task.complete]", "**vso[task.complete]");
    harmless("\x1b]0;title\x07", "\\x1b]0;title\\x07");
    harmless("\x1b[2Jgone", "\\x1b[2Jgone");
    harmless("bad \xff\xc3 bytes", "bad \\xff\\xc3 bytes");
    harmless("\xc2\x9b"
             "31m",
             "\\u009b31m");
    harmless("a\xe2\x80\xaemth", "a\\u202emth");
    harmless("back\bspace\x7f", "back\\x08space\\x7f");
    harmless("##teamcity[testFailed]", "**teamcity[testFailed]");
    harmless("\xc2\xa0\xe3\x80\x80::warning::x", "\xc2\xa0\xe3\x80\x80**warning::x");
    harmless("\xef\xbb\xbf::error::x", "\\ufeff::error::x");
    harmless("\xe2\x80\x8b::error::x", "\\u200b::error::x");
    harmless("\xe2\x80\x8d::error::x", "\xe2\x80\x8d**error::x");
    harmless("#\xe2\x80\x8b#vso[x]", "#\\u200b#vso[x]");
    harmless("\xd8\x9c\xe2\x81\xa6\xf3\xa0\x80\xa1", "\\u061c\\u2066\\ue0021");
    harmless("overlong \xc0\xaf \xe0\x80\xaf \xf0\x80\x80\xaf",
             "overlong \\xc0\\xaf \\xe0\\x80\\xaf \\xf0\\x80\\x80\\xaf");
    harmless("surrogate \xed\xa0\x80, beyond \xf4\x90\x80\x80",
             "surrogate \\xed\\xa0\\x80, beyond \\xf4\\x90\\x80\\x80");
    harmless("\r##vso[a.b]x", "\\x0d**vso[a.b]x");
    harmless("\x1b[3", "\\x1b[3");
    harmless("\x1b]8;;http://x\x1b\\link", "\\x1b]8;;http://x\\x1b\\link");
    harmless("", "");
}

static void commands_pass_where_they_are_granted(void **state)
{
    (void)state;
    cleanup_buf struct buf out = BUF_INIT;

    text_commands("##vso[a.b]\x1b[1m\x07", 15, &out);
    assert_string_equal(out.data, "##vso[a.b]\\x07");
}

static void no_command_hides_in_json(void **state)
{
    (void)state;
    cleanup_buf struct buf out = BUF_INIT;
    struct value v = {0}, back = {0};

    value_put_string(&v, "###vso[x]", "##[a]##");
    text_json(&v, 0, &out);
    assert_null(strstr(out.data, "##"));
    assert_int_equal(value_from_json(out.data, out.len, "text", NULL, &back, NULL), 0);
    assert_string_equal(value_get_string(&back, "###vso[x]", ""), "##[a]##");
    value_free(&v);
    value_free(&back);
}

static void the_agents_escapes(void **state)
{
    (void)state;
    cleanup_buf struct buf out = BUF_INIT;

    text_azdo("50% a\r\nb;c]d", true, &out);
    assert_string_equal(out.data, "50%AZP25 a%0D%0Ab%3Bc%5Dd");
    buf_clear(&out);
    text_azdo("50% a\nb;c]d", false, &out);
    assert_string_equal(out.data, "50%AZP25 a%0Ab;c]d");
}

struct stream {
    struct tally tally;
    struct renderer *renderer;
    struct buf text;
};

static void feed(struct stream *s, const char *json)
{
    struct value event = {0};
    struct error err = {0};

    assert_int_equal(value_from_json(json, strlen(json), "event", NULL, &event, &err), 0);
    tally_event(&s->tally, &event);
    renderer_event(s->renderer, &event);
    value_free(&event);
}

/* One run in which two stages overlap and one fails, through one renderer. */
static void play(const char *kind, struct stream *s)
{
    struct error err = {0};
    int fds[2];

    tally_init(&s->tally);
    s->text = (struct buf)BUF_INIT;
    assert_int_equal(pipe(fds), 0);
    s->renderer = renderer_new(kind, &s->tally, false, false, &err);
    assert_non_null(s->renderer);
    s->renderer->fd = fds[1];
    feed(s, "{\"t\":\"run_start\",\"run\":\"r1\",\"pipeline\":\"p\",\"script\":\"ci.lua\","
            "\"profile\":\"local\","
            "\"params\":{\"n\":1},\"cells\":[\"a\",\"b\",\"c\"],\"time\":1000}");
    feed(s, "{\"t\":\"stage_start\",\"stage\":\"a\",\"attempt\":1,\"time\":1000}");
    feed(s, "{\"t\":\"stage_start\",\"stage\":\"b\",\"attempt\":1,\"time\":1000}");
    feed(s, "{\"t\":\"output\",\"stage\":\"b\",\"text\":\"from b "
            "##vso[task.complete]\",\"time\":1000}");
    feed(s, "{\"t\":\"output\",\"stage\":\"a\",\"text\":\"from a\",\"time\":1000}");
    feed(s, "{\"t\":\"progress\",\"stage\":\"a\",\"label\":\"layers\",\"done\":1,\"total\":2,"
            "\"time\":1000}");
    feed(s, "{\"t\":\"variable\",\"stage\":\"a\",\"name\":\"RUN;ID\",\"value\":\"x]y\\nz\","
            "\"output\":true,\"time\":1}");
    feed(s, "{\"t\":\"variable\",\"stage\":\"a\",\"name\":\"PW\",\"value\":\"hunter2\",\"secret\":"
            "true,\"time\":1}");
    feed(s, "{\"t\":\"issue\",\"stage\":\"a\",\"level\":\"warning\",\"message\":\"long | "
            "line\",\"file\":\"a;b.py\","
            "\"line\":3,\"column\":7,\"rule\":\"E501\",\"time\":1}");
    feed(s, "{\"t\":\"report\",\"stage\":\"a\",\"kind\":\"link\",\"title\":\"model\",\"url\":"
            "\"http://h/m\",\"time\":1}");
    feed(
        s,
        "{\"t\":\"stage_end\",\"stage\":\"a\",\"status\":\"ok\",\"duration_ms\":1500,\"attempt\":1,"
        "\"output\":{\"ref\":\"x\"},\"time\":1}");
    feed(s, "{\"t\":\"stage_end\",\"stage\":\"b\",\"status\":\"failed\",\"duration_ms\":20,"
            "\"attempt\":1,\"error\":"
            "{\"code\":\"failed\",\"message\":\"<bad> & 50%\",\"hint\":\"do "
            "it\",\"file\":\"ci.lua\",\"line\":9,"
            "\"traceback\":\"stack traceback:\\n\\tci.lua:9\"},\"time\":1}");
    feed(s, "{\"t\":\"stage_end\",\"stage\":\"c\",\"status\":\"blocked\",\"duration_ms\":0,"
            "\"reason\":\"needs b\",\"time\":1}");
    feed(s, "{\"t\":\"run_end\",\"status\":\"failed\",\"exit\":1,\"duration_ms\":1600,\"time\":1}");
    s->renderer->report = "/w/report.md";
    s->renderer->junit = "/w/junit.xml";
    s->renderer->kind->end(s->renderer);
    renderer_flush(s->renderer);
    close(fds[1]);
    for (;;) {
        ssize_t got = read(fds[0], buf_reserve(&s->text, 4096), 4096);
        if (got <= 0)
            break;
        s->text.len += (size_t)got;
    }
    buf_putc(&s->text, '\0');
    close(fds[0]);
}

static void stop(struct stream *s)
{
    renderer_free(s->renderer);
    tally_free(&s->tally);
    buf_free(&s->text);
}

static void has(const struct stream *s, const char *text)
{
    if (!strstr(s->text.data, text))
        fail_msg("'%s' is not in:\n%s", text, s->text.data);
}

static void lacks(const struct stream *s, const char *text)
{
    if (strstr(s->text.data, text))
        fail_msg("'%s' is in:\n%s", text, s->text.data);
}

static void azdo_speaks_the_agents_language(void **state)
{
    (void)state;
    struct stream s;

    play("azdo", &s);
    has(&s, "##[group]a\n");
    has(&s, "from a\n");
    has(&s, "##vso[task.setvariable variable=RUN%3BID;isOutput=true;]x]y%0Az\n");
    has(&s, "##vso[task.setvariable variable=PW;issecret=true;]hunter2\n");
    has(&s,
        "##vso[task.logissue "
        "type=warning;sourcepath=a%3Bb.py;linenumber=3;columnnumber=7;code=E501;]long | line\n");
    has(&s, "##vso[task.logissue type=error;sourcepath=ci.lua;linenumber=9;code=failed;]stage b "
            "failed: <bad> & "
            "50%AZP25%0Ahint: do it\n");
    has(&s, "##vso[task.setprogress value=33;]1 of 3 stages\n");
    has(&s, "##vso[results.publish type=JUnit;resultFiles=/w/junit.xml;mergeResults=true;"
            "failTaskOnFailedTests=false;runTitle=p;]\n");
    has(&s, "##vso[task.uploadsummary]/w/report.md\n");
    has(&s, "##vso[task.complete result=Failed;]failed\n");
    has(&s, "from b **vso[task.complete]\n");
    /* b ran beside a: its lines wait for a's group to close, and no group opens inside another */
    assert_true(strstr(s.text.data, "from b") > strstr(s.text.data, "##[endgroup]"));
    int depth = 0;
    for (const char *at = s.text.data; (at = strstr(at, "##[")); at++) {
        depth += strncmp(at, "##[group]", 9) == 0 ? 1 : -1;
        assert_in_range(depth, 0, 1);
    }
    assert_int_equal(depth, 0);
    stop(&s);
}

/* A stage that takes long has the log; a thousand others end beside it. */
static void a_long_stage_does_not_keep_the_others_back(void **state)
{
    (void)state;
    struct tally tally;
    struct error err = {0};

    tally_init(&tally);
    struct renderer *renderer = renderer_new("azdo", &tally, false, false, &err);
    assert_non_null(renderer);
    renderer->fd = -1;
    for (int i = 0; i <= 1000; i++) {
        static const char *const kinds[] = {"stage_start", "output", "stage_end"};
        cleanup_free char *name = mem_printf("s%d", i);
        for (size_t k = 0; k < (i ? 3 : 1); k++) {
            struct value event = {0};
            value_set_map(&event);
            value_put_string(&event, "t", kinds[k]);
            value_put_string(&event, "stage", name);
            value_put_string(&event, "text", "a line");
            value_put_string(&event, "status", "ok");
            tally_event(&tally, &event);
            renderer->kind->event(renderer, &event);
            value_free(&event);
        }
        if (i == 999) {
            assert_non_null(strstr(renderer->out.data, "##[group]s960\n"));
            assert_non_null(strstr(renderer->out.data, "##[endgroup]\n##[group]s0 (continued)\n"));
            assert_null(strstr(renderer->out.data, "##[group]s999\n"));
        }
    }
    renderer->kind->end(renderer);
    int groups = 0, depth = 0;
    for (const char *at = renderer->out.data; (at = strstr(at, "##[")); at++) {
        bool opens = strncmp(at, "##[group]", 9) == 0;
        groups += opens;
        depth += opens ? 1 : -1;
        assert_in_range(depth, 0, 1);
    }
    assert_int_equal(depth, 0);
    assert_int_equal(groups, 1001 + 1000 / 32);
    buf_clear(&renderer->out);
    renderer_free(renderer);
    tally_free(&tally);
}

static void people_get_what_failed_and_what_to_do(void **state)
{
    (void)state;
    static const char *const kinds[] = {"plain", "tty"};

    for (size_t i = 0; i < 2; i++) {
        struct stream s;
        play(kinds[i], &s);
        has(&s, "from b **vso[task.complete]");
        has(&s, "error: ci.lua:9: <bad> & 50%");
        has(&s, "hint: do it");
        has(&s, "  traceback:\n    ");
        has(&s, "report: /w/report.md");
        has(&s, "link:   model: http://h/m");
        has(&s, "resume: mlhost run ci.lua --resume r1");
        lacks(&s, "hunter2");
        lacks(&s, "##vso");
        stop(&s);
    }
}

static void json_is_one_object_a_line(void **state)
{
    (void)state;
    struct stream s;
    int lines = 0;

    play("json", &s);
    for (char *line = s.text.data; *line;) {
        size_t len = strcspn(line, "\n");
        struct value v = {0};
        struct error err = {0};
        assert_int_equal(value_from_json(line, len, "line", NULL, &v, &err), 0);
        assert_int_equal(v.kind, VALUE_MAP);
        value_free(&v);
        lines++;
        line += len + 1;
    }
    assert_int_equal(lines, 15);
    lacks(&s, "hunter2");
    stop(&s);
}

static void the_renderer_fits_the_place(void **state)
{
    (void)state;
    struct tally tally;
    struct error err = {0};

    tally_init(&tally);
    setenv("TF_BUILD", "True", 1);
    struct renderer *renderer = renderer_new(NULL, &tally, false, false, &err);
    assert_ptr_equal(renderer->kind, &render_azdo);
    renderer_free(renderer);
    unsetenv("TF_BUILD");
    assert_null(renderer_new("html", &tally, false, false, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.hint, "tty, plain, json, azdo"));
    tally_free(&tally);
}

static void reports_say_it_all(void **state)
{
    (void)state;
    struct stream s;
    struct value skipped = {0};
    cleanup_buf struct buf md = BUF_INIT, xml = BUF_INIT, again = BUF_INIT;
    struct error err = {0};

    play("plain", &s);
    value_set_array(&skipped);
    report_markdown(&s.tally, &md);
    assert_non_null(strstr(md.data, "| b | \xe2\x9d\x8c failed |"));
    assert_non_null(strstr(md.data, "long \\| line"));
    assert_non_null(strstr(md.data, "[model](http://h/m)"));
    report_junit(&s.tally, &skipped, &xml);
    assert_non_null(strstr(xml.data, "tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\""));
    assert_non_null(strstr(xml.data, "&lt;bad&gt; &amp; 50%"));
    assert_int_equal(value_count(&skipped), 0);
    /* what we write is what we accept */
    assert_int_equal(junit_suites(xml.data, xml.len, &again, &err), 0);
    assert_non_null(strstr(again.data, "<testsuite name=\"p\""));
    value_free(&skipped);
    stop(&s);
}

static void suites(const char *xml, const char *want)
{
    cleanup_buf struct buf out = BUF_INIT;
    struct error err = {0};

    int rc = junit_suites(xml, strlen(xml), &out, &err);
    if (!want) {
        assert_int_equal(rc, -1);
        assert_int_equal(out.len, 0);
        return;
    }
    if (rc < 0)
        fail_msg("%s: %s", xml, err.message);
    assert_string_equal(out.data, want);
}

static void junit_of_others_is_checked_before_it_is_merged(void **state)
{
    (void)state;
    suites("<?xml version=\"1.0\"?>\n<!-- x --><testsuite name='a'/>", "  <testsuite name='a'/>\n");
    suites("<testsuites><testsuite><testcase "
           "a=\"&lt;\">t<![CDATA[<x>]]></testcase></testsuite><testsuite/></testsuites>",
           "  <testsuite><testcase a=\"&lt;\">t<![CDATA[<x>]]></testcase></testsuite>\n  "
           "<testsuite/>\n");
    suites("<testsuite><testsuite/></testsuite>", "  <testsuite><testsuite/></testsuite>\n");
    suites("<testsuite></testsuites>", NULL);
    suites("<testsuite>", NULL);
    suites("<testsuite/><testsuite/>", NULL);
    suites("<html/>", NULL);
    suites("", NULL);
    suites("<!DOCTYPE x [<!ENTITY a \"b\">]><testsuite>&a;</testsuite>", NULL);
    suites("<testsuite>&a;</testsuite>", NULL);
    suites("<testsuite>&#0;</testsuite>", NULL);
    suites("<testsuite a=b/>", NULL);
    suites("<testsuite a=\"<\"/>", NULL);
    suites("<testsuite>\x01</testsuite>", NULL);
    suites("<testsuite>\xff</testsuite>", NULL);
    suites("<testsuite><![CDATA[\x1b[2J]]></testsuite>", NULL);
    suites("<testsuite><![CDATA[\xff]]></testsuite>", NULL);
    suites("<testsuite><!-- \x02 --></testsuite>", NULL);
    suites("<testsuite><!-- a -- b --></testsuite>", NULL);
    suites("<testsuite>\xef\xbf\xbf</testsuite>", NULL);
    suites("<testsuite a='1' a='2'/>", NULL);
    suites("<testsuite a='1'b='2'/>", NULL);
    suites("<testsuite>]]></testsuite>", NULL);
    suites("<testsuite -a='1'/>", NULL);
    suites("<testsuite x:a='1'/>", NULL);
    suites("<x:testsuite/>", NULL);
    suites("<testsuites xmlns:x='u'><testsuite x:a='1'/></testsuites>", NULL);
    suites("<testsuite><p xmlns:x='u'/><q x:a='1'/></testsuite>", NULL);
    suites("<testsuite xmlns:x='u' xmlns:y='u' x:a='1' y:a='2'/>", NULL);
    suites("<testsuite xmlns:x='u' x:a='1'><x:p y='' x:y=''/></testsuite>",
           "  <testsuite xmlns:x='u' x:a='1'><x:p y='' x:y=''/></testsuite>\n");
    suites("<testsuite><!-- & --><![CDATA[&]]></testsuite>",
           "  <testsuite><!-- & --><![CDATA[&]]></testsuite>\n");
    suites("<testsuite><![CDATA[</testsuite>", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_others_are_only_data),
        cmocka_unit_test(commands_pass_where_they_are_granted),
        cmocka_unit_test(no_command_hides_in_json),
        cmocka_unit_test(the_agents_escapes),
        cmocka_unit_test(azdo_speaks_the_agents_language),
        cmocka_unit_test(a_long_stage_does_not_keep_the_others_back),
        cmocka_unit_test(people_get_what_failed_and_what_to_do),
        cmocka_unit_test(json_is_one_object_a_line),
        cmocka_unit_test(the_renderer_fits_the_place),
        cmocka_unit_test(reports_say_it_all),
        cmocka_unit_test(junit_of_others_is_checked_before_it_is_merged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
