/* Images of the runner: from a reference to a manifest of a store on this machine, and from that to
 * a folder. */
#include "local/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "local/lua_service.h"
#include "oci/store.h"
#include "oci/unpack.h"

#define CONFIG_LIMIT (8u << 20)

struct reference {
    char *host; /* "" when the text names none */
    char *name;
    char *tag; /* or a digest */
};

static void reference_free(struct reference *ref)
{
    mem_cleanup(&ref->host);
    mem_cleanup(&ref->name);
    mem_cleanup(&ref->tag);
}
#define cleanup_reference __attribute__((cleanup(reference_free)))

/* [host/]name[:tag][@digest]; a first part is a host when it has a dot or a colon, or is
 * "localhost". */
static void reference_parse(const char *text, struct reference *out)
{
    const char *slash = strchr(text, '/');
    size_t first = slash ? (size_t)(slash - text) : 0;
    bool host = slash && (memchr(text, '.', first) || memchr(text, ':', first) ||
                          (first == 9 && memcmp(text, "localhost", 9) == 0));
    const char *name = host ? slash + 1 : text;
    const char *at = strchr(name, '@');
    const char *end = at ? at : name + strlen(name);
    const char *colon = memchr(name, ':', (size_t)(end - name));

    out->host = mem_strndup(text, host ? first : 0);
    out->name = mem_strndup(name, (size_t)((colon ? colon : end) - name));
    if (at)
        out->tag = mem_strdup(at + 1);
    else
        out->tag = colon ? mem_strdup(colon + 1) : mem_strdup("latest");
}

static bool is_local(const char *host)
{
    return strcmp(host, "mlhost.local") == 0 || strncmp(host, "127.0.0.1:", 10) == 0 ||
           strncmp(host, "localhost:", 10) == 0;
}

/* Our machine, as images name it. */
static const char *architecture(void)
{
    static struct utsname name;

    if (uname(&name) == 0 && strcmp(name.machine, "aarch64") == 0)
        return "arm64";
    return "amd64";
}

static int choose_platform(const struct value *index, struct digest *out, struct error *err)
{
    const struct value *manifests = value_get(index, "manifests");

    for (size_t i = 0; i < value_count(manifests); i++) {
        const struct value *one = value_at(manifests, i), *platform = value_get(one, "platform");
        if (strcmp(value_get_string(platform, "os", "linux"), "linux") == 0 &&
            strcmp(value_get_string(platform, "architecture", architecture()), architecture()) ==
                0) {
            snprintf(out->text, sizeof out->text, "%s", value_get_string(one, "digest", ""));
            return 0;
        }
    }
    return error_set(err, ERR_NOT_FOUND, "the image is not there for linux/%s", architecture());
}

static int read_json(struct store *store, const char *digest, size_t limit, struct value *out,
                     struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (store_blob_read(store, digest, limit, &text, err) < 0)
        return -1;
    return value_from_json(text.data ? text.data : "", text.len, digest, NULL, out, err);
}

/* The manifest under name:tag of this store, through an index, and the image's config. */
static int find(struct store *store, const char *name, const char *tag, struct digest *digest,
                struct value *config, struct error *err)
{
    cleanup_value struct value manifest = {0}, whole = {0};

    if (!store_name_valid(name))
        return error_set(err, ERR_NOT_FOUND, "no such name");
    if (store_manifest_get(store, name, tag, NULL, NULL, digest, err) < 0 ||
        read_json(store, digest->text, STORE_MANIFEST_LIMIT, &manifest, err) < 0)
        return -1;
    if (value_get(&manifest, "manifests")) {
        if (choose_platform(&manifest, digest, err) < 0)
            return -1;
        value_free(&manifest);
        if (read_json(store, digest->text, STORE_MANIFEST_LIMIT, &manifest, err) < 0)
            return -1;
    }
    if (read_json(store, value_get_string(value_get(&manifest, "config"), "digest", ""),
                  CONFIG_LIMIT, &whole, err) < 0)
        return -1;
    const struct value *inner = value_get(&whole, "config");
    if (inner)
        value_copy(config, inner);
    else
        value_set_map(config);
    return 0;
}

/* The names under which an image may be in a store: as it is called, with its host in front, or
 * without. */
static int find_named(struct store *store, const struct reference *ref, struct digest *digest,
                      struct value *config, struct error *err)
{
    cleanup_free char *with_host = NULL;

    if (ref->host[0] && !is_local(ref->host)) {
        with_host = mem_printf("%s/%s", ref->host, ref->name);
        if (find(store, with_host, ref->tag, digest, config, err) == 0)
            return 0;
    }
    return find(store, ref->name, ref->tag, digest, config, err);
}

static int not_here(const char *reference, const struct reference *ref, const char *url,
                    struct error *err)
{
    bool local = is_local(ref->host);

    error_set(err, ERR_NOT_FOUND, "it is not in the local registry");
    if (local)
        return error_hint(
            err,
            "build and push it (registry.build, then push), or copy one there: skopeo copy "
            "--dest-tls-verify=false SOURCE docker://%s/%s:%s",
            url, ref->name, ref->tag);
    return error_hint(
        err, "copy it there: skopeo copy --dest-tls-verify=false docker://%s docker://%s/%s%s%s:%s",
        reference, url, ref->host, ref->host[0] ? "/" : "", ref->name, ref->tag);
}

static int image(const char *state, const char *url, const char *reference, struct value *out,
                 struct error *err)
{
    cleanup_reference struct reference ref = {0};
    cleanup_value struct value config = {0};
    struct digest digest;

    reference_parse(reference, &ref);
    const char *const stores[] = {"local/registry", "cache/oci"};
    for (size_t i = 0; i < sizeof stores / sizeof *stores; i++) {
        cleanup_free char *root = mem_printf("%s/%s", state, stores[i]);
        struct error ignored = {0};
        if (access(root, R_OK) < 0)
            continue;
        cleanup_store struct store *store = store_open_at(root, false, err);
        if (!store)
            return -1;
        if (find_named(store, &ref, &digest, &config, &ignored) == 0) {
            value_set_map(out);
            value_put_string(out, "name", reference);
            value_put_string(out, "digest", digest.text);
            value_put_string(out, "store", root);
            value_move(value_put(out, "config"), &config);
            return 0;
        }
        if (ignored.code != ERR_NOT_FOUND) {
            *err = ignored;
            return -1;
        }
    }
    return not_here(reference, &ref, strncmp(url, "http://", 7) == 0 ? url + 7 : url, err);
}

int runner_image(lua_State *L)
{
    const char *reference = luaL_checkstring(L, 1);
    struct value found = {0};
    struct error err = {0};

    if (image(lua_tostring(L, lua_upvalueindex(1)), luaL_checkstring(L, 2), reference, &found,
              &err) < 0) {
        lua_pushnil(L);
        lua_pushfstring(L, err.hint[0] ? "%s; %s" : "%s", err.message, err.hint);
        return 2;
    }
    lua_push_value(L, &found);
    value_free(&found);
    return 1;
}

/* ---- unpacking: once per manifest, whoever comes first; the others wait ---- */

#define UNPACK_NS (10 * 60 * NS_PER_S)
#define LOOK_MS   20

/* The kernel tells nobody when a lock becomes free but those who block for it, for ever if need
 * be: so it is looked at. */
static int lock_in_time(int fd, const char *name, struct error *err)
{
    int64_t until = deadline_in(UNPACK_NS);

    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return error_errno(err, errno, "cannot lock %s", name);
        if (deadline_passed(until)) {
            error_set(err, ERR_TIMEOUT,
                      "another task has been unpacking this image for ten minutes");
            return error_hint(err, "end the process that holds %s", name);
        }
        poll(NULL, 0, LOOK_MS);
    }
    return 0;
}

static int unpack(const struct value *spec, const char *folder, struct error *err)
{
    const char *digest = value_get_string(spec, "digest", "");
    cleanup_free char *lock_name = mem_printf("%s.lock", folder),
                      *half = mem_printf("%s.part", folder);
    struct stat st;

    cleanup_close int lock = open(lock_name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock < 0)
        return error_errno(err, errno, "cannot open %s", lock_name);
    if (lock_in_time(lock, lock_name, err) < 0)
        return -1;
    futimens(lock, NULL); /* in use: store_gc_folders leaves it alone */
    if (stat(folder, &st) == 0)
        return 0;
    cleanup_store struct store *store =
        store_open_at(value_get_string(spec, "store", ""), false, err);
    if (!store || dir_remove(half, err) < 0 || oci_unpack(store, digest, half, NULL, err) < 0)
        return -1;
    return rename(half, folder) < 0 ? error_errno(err, errno, "cannot rename %s", half) : 0;
}

void runner_job_unpack(const struct value *spec, struct value *out)
{
    struct error err = {0};
    const char *digest = value_get_string(spec, "digest", "");

    value_set_map(out);
    if (!digest_valid(digest)) {
        value_put_string(out, "error", "the image's digest is none");
        return;
    }
    cleanup_free char *folder =
        mem_printf("%s/%s", value_get_string(spec, "folder", ""), digest + strlen("sha256:"));
    if (unpack(spec, folder, &err) < 0)
        value_put_string(out, "error", err.message);
    else
        value_put_string(out, "path", folder);
}
