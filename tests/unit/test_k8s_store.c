/* The store of the embedded Kubernetes API: numbers, conflicts, files, the event log, waits, many
 * threads, and a writer that is killed. */
#include "check.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "local/k8s_store.h"

#define DEPLOYMENTS "deployments.apps"

static char folder[64];
static struct k8s_store *store;

static int start(void **state)
{
    struct error err = {0};

    (void)state;
    snprintf(folder, sizeof folder, "/tmp/mlhost-k8s-store-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    store = k8s_store_open(folder, &err);
    return store ? 0 : -1;
}

static int stop(void **state)
{
    struct error err = {0};

    (void)state;
    k8s_store_close(store);
    return dir_remove(folder, &err);
}

static void again(void)
{
    struct error err = {0};

    k8s_store_close(store);
    store = k8s_store_open(folder, &err);
    if (!store)
        fail_msg("%s", err.message);
}

/* An object {metadata: {name, namespace}, spec: {n}}. */
static void build(struct value *v, const char *namespace, const char *name, int64_t n)
{
    value_free(v);
    value_set_map(v);
    struct value *metadata = value_put(v, "metadata");
    value_set_map(metadata);
    value_put_string(metadata, "name", name);
    value_put_string(metadata, "namespace", namespace);
    struct value *spec = value_put(v, "spec");
    value_set_map(spec);
    value_put_int(spec, "n", n);
}

static uint64_t number(const struct value *v)
{
    return strtoull(value_text(value_path(v, "metadata.resourceVersion"), "0"), NULL, 10);
}

static void metadata_is_filled(void **state)
{
    cleanup_value struct value v = {0}, first = {0}, second = {0}, status = {0};
    struct error err = {0};

    (void)state;
    build(&v, "qa", "digits", 1);
    ok(k8s_store_put(store, DEPLOYMENTS, &v, K8S_ABSENT, &first, &err), err);
    const char *uid = value_text(value_path(&first, "metadata.uid"), "");
    assert_int_equal(strlen(uid), 36);
    assert_int_equal(strlen(value_text(value_path(&first, "metadata.creationTimestamp"), "")), 20);
    assert_int_equal(value_get_int(value_get(&first, "metadata"), "generation", 0), 1);

    uint64_t version = k8s_store_version(store);
    assert_int_equal(number(&first), version);
    ok(k8s_store_put(store, DEPLOYMENTS, &v, 0, &second, &err), err);
    assert_int_equal(k8s_store_version(store), version); /* nothing changed */
    assert_true(value_equal(&first, &second));

    value_set_map(&status);
    value_put_string(&status, "state", "Available");
    ok(k8s_store_put_status(store, DEPLOYMENTS, "qa", "digits", &status, &err), err);
    assert_int_equal(k8s_store_get(store, DEPLOYMENTS, "qa", "digits", &second), 1);
    assert_string_equal(value_text(value_path(&second, "status.state"), ""), "Available");
    assert_string_equal(value_text(value_path(&second, "metadata.uid"), ""), uid);
    assert_int_equal(value_get_int(value_get(&second, "metadata"), "generation", 0), 1);
    assert_true(number(&second) > number(&first));

    build(&v, "qa", "digits", 2);
    ok(k8s_store_put(store, DEPLOYMENTS, &v, number(&second), &second, &err), err);
    assert_int_equal(value_get_int(value_get(&second, "metadata"), "generation", 0), 2);
    build(&v, "qa", "web", 1);
    ok(k8s_store_put(store, "services", &v, 0, &second, &err), err);
    assert_null(value_path(&second, "metadata.generation"));
    fails(k8s_store_put_status(store, DEPLOYMENTS, "qa", "nobody", &status, &err), err,
          ERR_NOT_FOUND, "nobody");
}

static void expectations_are_kept(void **state)
{
    cleanup_value struct value v = {0}, out = {0};
    struct error err = {0};

    (void)state;
    build(&v, "qa", "digits", 1);
    fails(k8s_store_put(store, "pods", &v, 77, NULL, &err), err, ERR_CONFLICT, "digits");
    ok(k8s_store_put(store, "pods", &v, K8S_ABSENT, &out, &err), err);
    fails(k8s_store_put(store, "pods", &v, K8S_ABSENT, NULL, &err), err, ERR_EXISTS, "digits");
    build(&v, "qa", "digits", 2);
    fails(k8s_store_put(store, "pods", &v, number(&out) + 1, NULL, &err), err, ERR_CONFLICT,
          "modified");
    ok(k8s_store_put(store, "pods", &v, number(&out), NULL, &err), err);
    assert_int_equal(k8s_store_delete(store, "pods", "qa", "digits", &err), 1);
    assert_int_equal(k8s_store_delete(store, "pods", "qa", "digits", &err), 0);
    build(&v, "qa", "../escape", 1);
    fails(k8s_store_put(store, "pods", &v, 0, NULL, &err), err, ERR_INVALID, "escape");
    build(&v, "..", "x", 1);
    fails(k8s_store_put(store, "pods", &v, 0, NULL, &err), err, ERR_INVALID, "namespace");
}

static void lists_are_by_namespace_and_name(void **state)
{
    static const char *const names[][2] = {{"qa", "b"}, {"prod", "z"}, {"qa", "a"}, {"qb", "a"}};
    cleanup_value struct value v = {0}, list = {0};
    struct error err = {0};
    uint64_t version;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        build(&v, names[i][0], names[i][1], 1);
        ok(k8s_store_put(store, "pods", &v, 0, NULL, &err), err);
    }
    build(&v, "qa", "other", 1);
    ok(k8s_store_put(store, "podsecurity", &v, 0, NULL, &err), err);
    k8s_store_list(store, "pods", "qa", &list, &version);
    assert_int_equal(value_count(&list), 2);
    assert_string_equal(value_text(value_path(value_at(&list, 0), "metadata.name"), ""), "a");
    k8s_store_list(store, "pods", NULL, &list, &version);
    assert_int_equal(value_count(&list), 4);
    assert_string_equal(value_text(value_path(value_at(&list, 0), "metadata.namespace"), ""),
                        "prod");
    assert_int_equal(version, k8s_store_version(store));
    k8s_store_list(store, "nothing", NULL, &list, NULL);
    assert_int_equal(value_count(&list), 0);
}

static void files_come_back(void **state)
{
    cleanup_value struct value v = {0}, before = {0}, after = {0};
    char long_name[254] = {0};
    struct error err = {0};
    struct stat st;

    (void)state;
    memset(long_name, 'n', 253);
    build(&v, "qa", "token", 1);
    ok(k8s_store_put(store, "secrets", &v, 0, &before, &err), err);
    build(&v, "qa", long_name, 1);
    ok(k8s_store_put(store, "secrets", &v, 0, NULL, &err), err);
    value_free(&v);
    value_set_map(&v);
    value_set_map(value_put(&v, "metadata"));
    value_put_string(value_get(&v, "metadata"), "name", "qa");
    ok(k8s_store_put(store, "namespaces", &v, 0, NULL, &err), err);
    uint64_t version = k8s_store_version(store);

    cleanup_free char *file = mem_printf("%s/secrets/qa/token.json", folder);
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);

    again();
    assert_true(k8s_store_version(store) > version); /* numbers never come twice */
    assert_int_equal(k8s_store_get(store, "secrets", "qa", "token", &after), 1);
    assert_true(value_equal(&before, &after));
    assert_int_equal(k8s_store_get(store, "secrets", "qa", long_name, &after), 1);
    assert_int_equal(k8s_store_get(store, "namespaces", NULL, "qa", &after), 1);
    version = k8s_store_version(store);
    assert_int_equal(k8s_store_delete(store, "secrets", "qa", "token", &err), 1);
    again();
    assert_int_equal(k8s_store_get(store, "secrets", "qa", "token", &after), 0);
    assert_true(k8s_store_version(store) > version + 1);

    cleanup_free char *bad = mem_printf("%s/secrets/qa/bad.json", folder);
    ok(file_write(AT_FDCWD, bad, "{", 1, false, &err), err);
    k8s_store_close(store);
    store = k8s_store_open(folder, &err);
    assert_null(store);
    holds(err.message, "bad.json");
    assert_int_equal(unlink(bad), 0);
    store = k8s_store_open(folder, &err);
    assert_non_null(store);
}

static void events_tell_what_happened(void **state)
{
    cleanup_value struct value v = {0};
    struct k8s_event events[4];
    struct error err = {0};
    uint64_t from = k8s_store_version(store), next;

    (void)state;
    assert_int_equal(k8s_store_events(store, from, NULL, NULL, events, 4, &next), 0);
    assert_int_equal(next, from);
    build(&v, "qa", "a", 1);
    ok(k8s_store_put(store, "pods", &v, 0, NULL, &err), err);
    build(&v, "qa", "a", 2);
    ok(k8s_store_put(store, "pods", &v, 0, NULL, &err), err);
    build(&v, "prod", "b", 1);
    ok(k8s_store_put(store, "pods", &v, 0, NULL, &err), err);
    assert_int_equal(k8s_store_delete(store, "pods", "qa", "a", &err), 1);

    assert_int_equal(k8s_store_events(store, from, "pods", "qa", events, 2, &next), 2);
    assert_int_equal(events[0].change, K8S_ADDED);
    assert_int_equal(events[0].before.kind, VALUE_NIL);
    assert_int_equal(events[1].change, K8S_MODIFIED);
    assert_int_equal(value_get_int(value_get(&events[1].before, "spec"), "n", 0), 1);
    assert_int_equal(value_get_int(value_get(&events[1].object, "spec"), "n", 0), 2);
    assert_int_equal(next, events[1].version);
    k8s_event_free(&events[0]);
    k8s_event_free(&events[1]);
    assert_int_equal(k8s_store_events(store, next, "pods", "qa", events, 4, &next), 1);
    assert_int_equal(events[0].change, K8S_DELETED);
    assert_int_equal(number(&events[0].object), events[0].version);
    assert_int_equal(value_get_int(value_get(&events[0].object, "spec"), "n", 0), 2);
    k8s_event_free(&events[0]);
    assert_int_equal(next, k8s_store_version(store));
    assert_int_equal(k8s_store_events(store, from, "services", NULL, events, 4, &next), 0);
    /* a number that was never given, and those from before a restart */
    assert_int_equal(k8s_store_events(store, next + 1, NULL, NULL, events, 4, &next), -1);
    again();
    assert_int_equal(k8s_store_events(store, from, NULL, NULL, events, 4, &next), -1);
}

static void the_log_forgets(void **state)
{
    cleanup_value struct value v = {0};
    struct k8s_event events[1];
    struct error err = {0};
    uint64_t from = k8s_store_version(store), next;

    (void)state;
    for (int64_t i = 0; i < 4097; i++) {
        build(&v, "qa", "a", i);
        ok(k8s_store_put(store, "pods", &v, 0, NULL, &err), err);
    }
    assert_int_equal(k8s_store_events(store, from, "pods", NULL, events, 1, &next), -1);
    assert_int_equal(k8s_store_events(store, from + 1, "pods", NULL, events, 1, &next), 1);
    k8s_event_free(&events[0]);
}

static void *change_later(void *context)
{
    cleanup_value struct value v = {0};
    struct error err = {0};

    (void)context;
    build(&v, "qa", "a", 1);
    usleep(20 * 1000);
    k8s_store_put(store, "pods", &v, 0, NULL, &err);
    return NULL;
}

static void waits_end(void **state)
{
    uint64_t from = k8s_store_version(store), count;
    struct error err = {0};
    pthread_t thread;

    (void)state;
    int fd = k8s_store_listen(store, &err);
    assert_true(fd >= 0);
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&wanted, 1, 0), 0);
    assert_int_equal(k8s_store_wait(store, from, deadline_in(5 * NS_PER_MS)), from);
    pthread_create(&thread, NULL, change_later, NULL);
    assert_int_equal(k8s_store_wait(store, from, DEADLINE_NONE), from + 1);
    pthread_join(thread, NULL);
    assert_int_equal(poll(&wanted, 1, 0), 1);
    assert_int_equal(read(fd, &count, sizeof count), sizeof count);
    assert_int_equal(poll(&wanted, 1, 0), 0);
    assert_false(k8s_store_woken(store));
    k8s_store_wake(store);
    assert_true(k8s_store_woken(store));
    assert_int_equal(k8s_store_wait(store, from + 1, DEADLINE_NONE), from + 1);
    assert_int_equal(poll(&wanted, 1, 0), 1);
    k8s_store_unlisten(store, fd);
}

/* Each thread adds to one counter by get and put with an expected number, as clients do. */
#define WRITERS 4
#define ROUNDS  50

static atomic_int conflicts;

static void *add_one(void *context)
{
    (void)context;
    for (int i = 0; i < ROUNDS;) {
        cleanup_value struct value v = {0};
        struct error err = {0};
        k8s_store_get(store, "pods", "qa", "counter", &v);
        struct value *spec = value_get(&v, "spec");
        int64_t n = value_get_int(spec, "n", 0);
        value_set_int(value_put(spec, "n"), n + 1);
        if (k8s_store_put(store, "pods", &v, number(&v), NULL, &err) == 0)
            i++;
        else
            conflicts++;
    }
    return NULL;
}

static void *watch_all(void *context)
{
    uint64_t at = *(uint64_t *)context;
    int64_t *last = mem_alloc(sizeof *last);

    while (*last < WRITERS * ROUNDS) {
        struct k8s_event events[8];
        uint64_t next;
        k8s_store_wait(store, at, DEADLINE_NONE);
        int count = k8s_store_events(store, at, "pods", "qa", events, 8, &next);
        for (int i = 0; i < count; i++) {
            int64_t n = value_get_int(value_get(&events[i].object, "spec"), "n", -1);
            if (n != *last + 1)
                *last = INT64_MAX; /* one was missed: ends, and the test says so */
            else
                *last = n;
            k8s_event_free(&events[i]);
        }
        at = next;
    }
    return last;
}

static void many_threads(void **state)
{
    cleanup_value struct value v = {0};
    struct error err = {0};
    pthread_t writers[WRITERS], watcher;
    void *last;

    (void)state;
    build(&v, "qa", "counter", 0);
    ok(k8s_store_put(store, "pods", &v, 0, NULL, &err), err);
    uint64_t from = k8s_store_version(store);
    pthread_create(&watcher, NULL, watch_all, &from);
    for (size_t i = 0; i < WRITERS; i++)
        pthread_create(&writers[i], NULL, add_one, NULL);
    for (size_t i = 0; i < WRITERS; i++)
        pthread_join(writers[i], NULL);
    pthread_join(watcher, &last);
    assert_int_equal(*(int64_t *)last, WRITERS * ROUNDS);
    free(last);
    assert_int_equal(k8s_store_get(store, "pods", "qa", "counter", &v), 1);
    assert_int_equal(value_get_int(value_get(&v, "spec"), "n", 0), WRITERS * ROUNDS);
}

/* A process writes, and says each number after put has returned; it is killed in the middle. All
 * that it said is there, whole, and the numbers go on above. */
static void a_killed_writer(void **state)
{
    struct error err = {0};

    (void)state;
    k8s_store_close(store);
    for (int round = 0; round < 5; round++) {
        int said[2];
        assert_int_equal(pipe(said), 0);
        pid_t pid = fork();
        if (pid == 0) {
            struct k8s_store *own = k8s_store_open(folder, &err);
            for (int64_t i = 0; own; i++) {
                cleanup_value struct value v = {0};
                char name[32];
                snprintf(name, sizeof name, "p%d", (int)(i % 7));
                build(&v, "qa", name, i);
                if (k8s_store_put(own, "pods", &v, 0, &v, &err) < 0)
                    break;
                uint64_t version = number(&v);
                if (write(said[1], &version, sizeof version) < 0)
                    break;
            }
            _exit(1);
        }
        close(said[1]);
        uint64_t version = 0;
        for (int i = 0; i < 10 + 17 * round; i++)
            assert_int_equal(read(said[0], &version, sizeof version), sizeof version);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        uint64_t more;
        while (read(said[0], &more, sizeof more) == (ssize_t)sizeof more)
            version = more;
        close(said[0]);

        store = k8s_store_open(folder, &err);
        if (!store)
            fail_msg("%s", err.message);
        assert_true(k8s_store_version(store) > version);
        cleanup_value struct value list = {0};
        uint64_t newest = 0;
        k8s_store_list(store, "pods", "qa", &list, NULL);
        assert_int_equal(value_count(&list), 7);
        for (size_t i = 0; i < 7; i++) {
            uint64_t n = number(value_at(&list, i));
            newest = n > newest ? n : newest;
        }
        assert_true(newest >= version);
        k8s_store_close(store);
    }
    store = k8s_store_open(folder, &err);
    assert_non_null(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(metadata_is_filled, start, stop),
        cmocka_unit_test_setup_teardown(expectations_are_kept, start, stop),
        cmocka_unit_test_setup_teardown(lists_are_by_namespace_and_name, start, stop),
        cmocka_unit_test_setup_teardown(files_come_back, start, stop),
        cmocka_unit_test_setup_teardown(events_tell_what_happened, start, stop),
        cmocka_unit_test_setup_teardown(the_log_forgets, start, stop),
        cmocka_unit_test_setup_teardown(waits_end, start, stop),
        cmocka_unit_test_setup_teardown(many_threads, start, stop),
        cmocka_unit_test_setup_teardown(a_killed_writer, start, stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
