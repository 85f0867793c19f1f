/* Namespaces and root file systems, seen from inside; as the caller and as nobody. */
#include "sandbox_check.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "sandbox/landlock.h"

static void namespaces_hide_the_rest(void **state)
{
    (void)state;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    struct exec_result result;
    struct utsname before, after;
    if (!have_namespaces())
        return;
    uname(&before);
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.namespaces = ALL_NAMESPACES;
    policy.required = SANDBOX_LAYER_NAMESPACES | SANDBOX_LAYER_SECCOMP;
    policy.hostname = "inside";
    shell(
        &policy,
        "echo $$; uname -n; ls -d /proc/[0-9]* | wc -l; cat /proc/net/dev | grep -c eth; kill -0 1 "
        "&& echo k;"
        "cat /proc/1/environ >/dev/null 2>&1 || echo hidden; grep CapEff /proc/self/status; id -u",
        &result);
    char expected[200];
    /* sh, ls, wc and the keeper */
    snprintf(expected, sizeof expected, "2\ninside\n4\n0\n%shidden\nCapEff:\t%s\n%u\n",
             landlock_abi() >= 6 ? "" : "k\n",
             geteuid() == 0 ? "00000000000004fb" : "0000000000000000", geteuid());
    assert_string_equal(result.out.data, expected);
    exec_result_free(&result);
    uname(&after);
    assert_string_equal(before.nodename, after.nodename);
}

static void the_host_s_files_can_be_made_read_only(void **state)
{
    (void)state;
    char *folder = new_folder();
    const char *const writable[] = {folder};
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    struct exec_result result;
    char script[500];
    if (!have_namespaces())
        return;
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.namespaces = ALL_NAMESPACES;
    policy.root_read_only = true;
    policy.write_paths = writable;
    policy.write_count = 1;
    policy.cwd = folder;
    /* chmod is what Landlock does not see */
    snprintf(
        script, sizeof script,
        "echo in > file && chmod 600 file && echo yes; touch /tmp/mlhost-no 2>/dev/null || echo no;"
        "chmod 755 %s/.. 2>/dev/null || echo no; chmod 644 /etc/passwd 2>/dev/null || echo no; : > "
        "/dev/null && echo yes",
        folder);
    shell(&policy, script, &result);
    assert_string_equal(result.out.data, "yes\nno\nno\nno\nyes\n");
    exec_result_free(&result);
    snprintf(script, sizeof script, "%s/file", folder);
    assert_int_equal(access(script, F_OK), 0);
    remove_folder(folder);
}

/* A root with nothing in it, and a link that would lead a careless mount out. */
static char *new_root(void)
{
    char path[300], *root = new_folder();
    const char *const names[] = {"usr", "tmp", "proc", "dev"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", root, names[i]);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    const char *const links[][2] = {
        {"usr/bin", "bin"}, {"usr/lib", "lib"}, {"usr/lib64", "lib64"}, {"/etc", "trap"}};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        snprintf(path, sizeof path, "%s/%s", root, links[i][1]);
        assert_int_equal(symlink(links[i][0], path), 0);
    }
    return root;
}

static void a_root_of_its_own(void **state)
{
    (void)state;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    struct exec_result result;
    if (!have_namespaces())
        return;
    char *root = new_root(), *volume = new_folder();
    const struct sandbox_mount mounts[] = {
        {.kind = MOUNT_BIND_RO, .source = "/usr", .target = "/usr"},
        {.kind = MOUNT_PROC, .target = "/proc"},
        {.kind = MOUNT_DEV, .target = "/dev"},
        {.kind = MOUNT_TMPFS, .target = "/tmp", .size = 1 << 20},
        {.kind = MOUNT_BIND_RW, .source = volume, .target = "/new/place/volume"},
        {.kind = MOUNT_BIND_RO, .source = "/etc/passwd", .target = "/trap/planted"},
    };
    char etc[300];
    snprintf(etc, sizeof etc, "%s/etc", root); /* where the trap leads inside */
    assert_int_equal(mkdir(etc, 0755), 0);
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.namespaces = ALL_NAMESPACES;
    policy.root = root;
    policy.root_read_only = true;
    policy.mounts = mounts;
    policy.mount_count = sizeof mounts / sizeof *mounts;
    shell(
        &policy,
        "echo /*; id -u; pwd; touch /x 2>/dev/null || echo ro; touch /usr/x 2>/dev/null || echo ro;"
        "echo v > /new/place/volume/file; head -c 3m /dev/zero > /tmp/big 2>/dev/null || echo "
        "full; echo /dev/*;"
        "test -s /etc/planted && echo planted; echo x > /dev/shm/x && echo shm; cat /dev/fd/0 < "
        "/dev/null && echo fd;"
        "ls /proc/1 > /dev/null && echo proc; p=/proc/sys/kernel/core_pattern; (cat $p > $p) "
        "2>/dev/null || "
        "echo fixed; cat /proc/keys",
        &result);
    assert_string_equal(
        result.out.data,
        "/bin /dev /etc /lib /lib64 /new /proc /tmp /trap /usr\n0\n/\nro\nro\nfull\n"
        "/dev/fd /dev/full /dev/null /dev/ptmx /dev/pts /dev/random /dev/shm /dev/stderr "
        "/dev/stdin /dev/stdout "
        "/dev/urandom /dev/zero\nplanted\nshm\nfd\nproc\nfixed\n");
    exec_result_free(&result);
    assert_int_equal(access("/etc/planted", F_OK), -1);
    char path[300];
    snprintf(path, sizeof path, "%s/file", volume);
    assert_int_equal(access(path, F_OK), 0);
    remove_folder(volume);
    remove_folder(root);
}

static void an_overlay_leaves_the_image_alone(void **state)
{
    (void)state;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    struct exec_result result;
    if (!have_namespaces())
        return;
    char *root = new_root(), *space = new_folder(), upper[300], work[300], path[320];
    snprintf(upper, sizeof upper, "%s/up,per:1", space); /* both mean something in mount options */
    snprintf(work, sizeof work, "%s/work", space);
    assert_int_equal(mkdir(upper, 0755) | mkdir(work, 0755), 0);
    const struct sandbox_mount mounts[] = {
        {.kind = MOUNT_OVERLAY, .source = root, .target = "/", .upper = upper, .work = work},
        {.kind = MOUNT_BIND_RO, .source = "/usr", .target = "/usr"},
    };
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.namespaces = ALL_NAMESPACES;
    policy.root = root;
    policy.mounts = mounts;
    policy.mount_count = 2;
    shell(&policy, "echo new > /made && cat /made && rmdir /dev && echo removed", &result);
    assert_string_equal(result.out.data, "new\nremoved\n");
    exec_result_free(&result);
    snprintf(path, sizeof path, "%s/made", root);
    assert_int_equal(access(path, F_OK), -1);
    snprintf(path, sizeof path, "%s/dev", root);
    assert_int_equal(access(path, F_OK), 0);
    snprintf(path, sizeof path, "%s/made", upper);
    assert_int_equal(access(path, F_OK), 0);
    chmod(work, 0700);
    snprintf(path, sizeof path, "%s/work", work); /* overlayfs leaves it without rights */
    chmod(path, 0700);
    remove_folder(space);
    remove_folder(root);
}

static void without_overlays_there_are_copies(void **state)
{
    (void)state;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    struct exec_result result;
    if (!have_namespaces())
        return;
    char *root = new_root(), *work = new_folder(), upper[] = "/dev/shm/mlhost-upper-XXXXXX",
         path[320];
    assert_non_null(
        mkdtemp(upper)); /* on another file system than work: every kernel refuses that */
    const struct sandbox_mount mounts[] = {
        {.kind = MOUNT_OVERLAY, .source = root, .target = "/", .upper = upper, .work = work},
        {.kind = MOUNT_BIND_RO, .source = "/usr", .target = "/usr"},
    };
    snprintf(path, sizeof path, "%s/data", root);
    int fd = open(path, O_CREAT | O_WRONLY, 0640);
    assert_int_equal(write(fd, "original\n", 9), 9);
    close(fd);
    chmod(path, 04751);
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.namespaces = ALL_NAMESPACES;
    policy.root = root;
    policy.mounts = mounts;
    policy.mount_count = 2;
    shell(&policy, "cat /data; stat -c %a /data; readlink /trap; echo new > /data", &result);
    assert_string_equal(result.out.data, "original\n4751\n/etc\n");
    exec_result_free(&result);
    shell(&policy, "cat /data",
          &result); /* the copy is kept, as an overlay's upper folder would be */
    assert_string_equal(result.out.data, "new\n");
    exec_result_free(&result);
    char text[10] = "";
    fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, text, 9), 9);
    assert_string_equal(text, "original\n");
    close(fd);
    remove_folder(mem_strdup(upper));
    remove_folder(work);
    remove_folder(root);
}

static void users_inside(void **state)
{
    (void)state;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    struct exec_result result;
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.set_user = true;
    policy.uid = policy.gid = 1234;
    if (geteuid() != 0 && !have_namespaces())
        return;
    shell(&policy,
          "id -u; id -g; grep CapEff /proc/self/status; grep CapBnd /proc/self/status; grep NoNew "
          "/proc/self/status",
          &result);
    assert_string_equal(result.out.data,
                        "1234\n1234\nCapEff:\t0000000000000000\nCapBnd:\t00000000000004fb\n"
                        "NoNewPrivs:\t1\n");
    exec_result_free(&result);
}

static void files_from_memory(void **state)
{
    (void)state;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    struct exec_result result;
    if (!have_namespaces())
        return;
    char *root = new_root(), path[320];
    char *large = mem_alloc(300000);
    memset(large, 'x', 300000);
    const struct sandbox_mount mounts[] = {
        {.kind = MOUNT_BIND_RO, .source = "/usr", .target = "/usr"},
        {.kind = MOUNT_FILE,
         .target = "/run/secrets/key",
         .data = "hidden",
         .len = 6,
         .mode = 0400},
        {.kind = MOUNT_FILE, .target = "/large", .data = large, .len = 300000, .mode = 0444},
        {.kind = MOUNT_FILE, .target = "/empty", .data = "", .mode = 0},
    };
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.namespaces = ALL_NAMESPACES;
    policy.root = root;
    policy.mounts = mounts;
    policy.mount_count = sizeof mounts / sizeof *mounts;
    shell(&policy,
          "cat /run/secrets/key; echo; stat -c %a:%s /run/secrets/key /large /empty; (echo x > "
          "/large) 2>/dev/null || echo ro; rm -f /large 2>/dev/null || echo busy",
          &result);
    assert_string_equal(result.out.data, "hidden\n400:6\n444:300000\n0:0\nro\nbusy\n");
    exec_result_free(&result);
    snprintf(path, sizeof path, "%s/run/secrets/key", root);
    struct stat st;
    assert_int_equal(stat(path, &st), 0); /* the place, without what was in it */
    assert_int_equal(st.st_size, 0);
    char *argv[] = {(char *)"true", NULL};
    policy.root = NULL;
    policy.argv = argv;
    struct sandbox_child child;
    struct error err = {0};
    fails(sandbox_spawn(&policy, &child, &err), err, ERR_INVALID, "needs a root");
    free(large);
    remove_folder(root);
}

/* A copy of the host's id, owned by root and setuid: what it says about who it is. */
static void setuid_programs(void **state)
{
    (void)state;
    struct sandbox_policy policy = SANDBOX_POLICY_INIT;
    struct exec_result result;
    char *root, *space, upper[300], work[300], path[320], script[400];
    if (!have_namespaces() || geteuid() != 0)
        return;
    root = new_root();
    space = new_folder();
    snprintf(upper, sizeof upper, "%s/up", space);
    snprintf(work, sizeof work, "%s/work", space);
    assert_int_equal(mkdir(upper, 0755) | mkdir(work, 0755) | chmod(root, 0755), 0);
    snprintf(path, sizeof path, "%s/id", root);
    snprintf(script, sizeof script, "cp /usr/bin/id %s && chmod 4755 %s", path, path);
    struct sandbox_policy plain = SANDBOX_POLICY_INIT;
    shell(&plain, script, &result);
    assert_int_equal(result.status, 0);
    exec_result_free(&result);
    const struct sandbox_mount mounts[] = {
        {.kind = MOUNT_OVERLAY, .source = root, .target = "/", .upper = upper, .work = work},
        {.kind = MOUNT_BIND_RO, .source = "/usr", .target = "/usr"},
        {.kind = MOUNT_PROC, .target = "/proc"},
    };
    policy.syscalls = SANDBOX_SYSCALLS_COMMAND;
    policy.required = SANDBOX_LAYER_SECCOMP;
    policy.namespaces = ALL_NAMESPACES;
    policy.root = root;
    policy.mounts = mounts;
    policy.mount_count = 3;
    policy.set_user = true;
    policy.uid = policy.gid = 1234;
    shell(&policy, "/id -u; grep NoNew /proc/self/status", &result);
    assert_string_equal(result.out.data, "1234\nNoNewPrivs:\t1\n");
    exec_result_free(&result);
    policy.gain_privileges = true;
    shell(&policy,
          "/id -u; grep -E 'CapEff|CapBnd|NoNew|Seccomp:' /proc/self/status; mount -t tmpfs t /tmp "
          "2>/dev/null || echo no",
          &result);
    assert_string_equal(result.out.data, "0\nCapEff:\t0000000000000000\nCapBnd:\t00000000000004fb\n"
                                         "NoNewPrivs:\t0\nSeccomp:\t2\nno\n");
    exec_result_free(&result);
    remove_folder(space);
    remove_folder(root);
}

#define T(name) cmocka_unit_test(name)

static int run_all(const char *user)
{
    const struct CMUnitTest tests[] = {
        T(namespaces_hide_the_rest),
        T(the_host_s_files_can_be_made_read_only),
        T(a_root_of_its_own),
        T(an_overlay_leaves_the_image_alone),
        T(without_overlays_there_are_copies),
        T(users_inside),
        T(files_from_memory),
        T(setuid_programs),
    };
    return cmocka_run_group_tests_name(user, tests, NULL, NULL);
}

int main(void)
{
    return as_both_users(run_all);
}
