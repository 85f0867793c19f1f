#include "oci/base_image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/elf.h"
#include "oci/layer.h"
#include "oci/manifest.h"

#define CERTIFICATES "/etc/ssl/certs/ca-certificates.crt"

struct file {
    char *path; /* in the image */
    char *from; /* on this machine, or NULL */
    const char *text;
    char *link;
    mode_t mode;
};

struct files {
    struct file *items;
    size_t count;
};

static struct file *add(struct files *files, char *path, mode_t mode)
{
    files->items = mem_array(files->items, files->count + 1, sizeof *files->items);
    struct file *file = &files->items[files->count++];
    *file = (struct file){.path = path, .mode = mode};
    return file;
}

/* Folders that lead to a path, once each. */
static void add_folders(struct files *files, const char *path)
{
    cleanup_free char *folder = mem_strdup(path);

    for (char *slash = strrchr(folder, '/'); slash; slash = strrchr(folder, '/')) {
        *slash = '\0';
        bool known = false;
        for (size_t i = 0; i < files->count && !known; i++)
            known = strcmp(files->items[i].path, folder) == 0;
        if (!known)
            add(files, mem_strdup(folder), S_IFDIR | 0755);
    }
}

static void add_file(struct files *files, char *path, const char *from, mode_t mode)
{
    add_folders(files, path);
    add(files, path, S_IFREG | mode)->from = mem_strdup(from);
}

static void add_text(struct files *files, const char *path, const char *text)
{
    add_folders(files, path);
    add(files, mem_strdup(path), S_IFREG | 0644)->text = text;
}

static void add_link(struct files *files, const char *path, const char *to)
{
    add(files, mem_strdup(path), S_IFLNK | 0777)->link = mem_strdup(to);
}

static void files_free(struct files *files)
{
    for (size_t i = 0; i < files->count; i++) {
        free(files->items[i].path);
        free(files->items[i].from);
        free(files->items[i].link);
    }
    free(files->items);
}

static int compare_files(const void *a, const void *b)
{
    return strcmp(((const struct file *)a)->path, ((const struct file *)b)->path);
}

static int write_file(struct layer *layer, const struct file *file, struct error *err)
{
    struct layer_entry entry = {
        .path = file->path, .mode = file->mode, .link = file->link, .fd = -1};
    cleanup_close int fd = -1;
    struct stat st;

    if (file->text) {
        entry.data = file->text;
        entry.size = strlen(file->text);
    } else if (file->from) {
        fd = open(file->from, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0)
            return error_errno(err, errno, "%s", file->from);
        entry.fd = fd;
        entry.size = (uint64_t)st.st_size;
    }
    return layer_add(layer, &entry, err);
}

static int write_layer(struct store *store, struct files *files, int64_t epoch,
                       struct value *layers, struct value *diff_ids, struct error *err)
{
    struct layer_result result;
    struct layer *layer = layer_new(store, epoch, NULL, err);

    if (!layer)
        return -1;
    qsort(files->items, files->count, sizeof *files->items, compare_files);
    for (size_t i = 0; i < files->count; i++)
        if (write_file(layer, &files->items[i], err) != 0) {
            layer_drop(layer);
            return -1;
        }
    if (layer_finish(layer, &result, err) != 0)
        return -1;
    struct value *descriptor = value_push(layers);
    value_set_map(descriptor);
    value_put_string(descriptor, "mediaType", OCI_LAYER_GZIP);
    value_put_string(descriptor, "digest", result.digest.text);
    value_put_int(descriptor, "size", (int64_t)result.size);
    value_push_string(diff_ids, result.diff_id.text);
    return 0;
}

/* Libraries all go where libc is: the loader looks there without being told. */
static int add_libraries(struct files *files, const struct value *libraries,
                         const char *interpreter, struct error *err)
{
    const char *libc = value_get_string(libraries, "libc.so.6", NULL);
    char real[PATH_MAX];

    if (!libc || !realpath(libc, real))
        return error_set(err, ERR_UNSUPPORTED,
                         "the program is not linked to glibc: no base image can be made of it");
    *strrchr(real, '/') = '\0';
    const char *folder = strncmp(real, "/usr/", 5) == 0 ? real + 1 : "usr/lib";
    const char *loader = strrchr(interpreter, '/') + 1;
    for (size_t i = 0; i < libraries->as.map.count; i++) {
        const char *name = libraries->as.map.pairs[i].key;
        if (strcmp(name, loader) != 0)
            add_file(
                files,
                mem_printf("%s/%s", folder, strrchr(name, '/') ? strrchr(name, '/') + 1 : name),
                value_text(&libraries->as.map.pairs[i].value, ""), 0755);
    }
    /* The loader is where the program's header says, below /usr: /lib and the like are links, as on
     * any system of today. */
    const char *path = interpreter + 1;
    add_file(files, strncmp(path, "usr/", 4) == 0 ? mem_strdup(path) : mem_printf("usr/%s", path),
             interpreter, 0755);
    static const char *const merged[] = {"lib", "lib64", "bin"};
    for (size_t i = 0; i < sizeof merged / sizeof *merged; i++) {
        cleanup_free char *to = mem_printf("usr/%s", merged[i]);
        cleanup_free char *inside = mem_printf("%s/x", to);
        add_folders(files, inside);
        add_link(files, merged[i], to);
    }
    return 0;
}

static int add_system(struct files *files, const struct value *libraries, const char *interpreter,
                      struct error *err)
{
    if (access(CERTIFICATES, R_OK) != 0) {
        error_set(err, ERR_NOT_FOUND, "there is no %s", CERTIFICATES);
        return error_hint(
            err, "install ca-certificates: without them the image could check no TLS certificate");
    }
    if (add_libraries(files, libraries, interpreter, err) != 0)
        return -1;
    add_file(files, mem_strdup(&CERTIFICATES[1]), CERTIFICATES, 0644);
    add_text(files, "etc/passwd",
             "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/"
             "nologin\n");
    add_text(files, "etc/group", "root:x:0:\nnogroup:x:65534:\n");
    add_text(files, "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
    add(files, mem_strdup("tmp"), S_IFDIR | 01777);
    add(files, mem_strdup("root"), S_IFDIR | 0700);
    return 0;
}

static void base_config(const struct value *diff_ids, int64_t epoch, struct value *config)
{
    cleanup_buf struct buf created = BUF_INIT;
    static const char *const steps[] = {"the system's libraries and certificates", "mlhost"};

    time_print(epoch * 1000, &created);
    value_set_map(config);
    value_put_string(config, "created", created.data);
    value_put_string(config, "architecture", oci_architecture());
    value_put_string(config, "os", "linux");
    struct value *inner = value_put(config, "config");
    value_set_map(inner);
    struct value *env = value_put(inner, "Env");
    value_set_array(env);
    value_push_string(env, "PATH=/usr/local/bin:/usr/bin:/bin");
    struct value *entry = value_put(inner, "Entrypoint");
    value_set_array(entry);
    value_push_string(entry, "mlhost");
    struct value *rootfs = value_put(config, "rootfs");
    value_set_map(rootfs);
    value_put_string(rootfs, "type", "layers");
    value_copy(value_put(rootfs, "diff_ids"), diff_ids);
    struct value *history = value_put(config, "history");
    value_set_array(history);
    for (size_t i = 0; i < 2; i++) {
        struct value *item = value_push(history);
        value_set_map(item);
        value_put_string(item, "created", created.data);
        value_put_string(item, "created_by", steps[i]);
    }
}

int base_image_build(struct store *store, const char *program, const char *const *modules,
                     int64_t epoch, struct build_result *out, char tag[17], struct error *err)
{
    cleanup_value struct value libraries = {0};
    cleanup_value struct value layers = {0};
    cleanup_value struct value diff_ids = {0};
    cleanup_value struct value config = {0};
    cleanup_free char *interpreter = NULL;
    cleanup_buf struct buf manifest = BUF_INIT;
    struct files system = {0}, own = {0};

    value_set_map(&libraries);
    value_set_array(&layers);
    value_set_array(&diff_ids);
    int status = elf_libraries(program, &libraries, &interpreter, err);
    for (size_t i = 0; status == 0 && modules[i]; i++)
        status = elf_libraries(modules[i], &libraries, NULL, err);
    if (status != 0)
        return error_wrap(err, "base image");
    if (!interpreter || *interpreter != '/')
        return error_set(err, ERR_UNSUPPORTED, "base image: %s has no dynamic loader", program);
    status = add_system(&system, &libraries, interpreter, err);
    add_file(&own, mem_strdup("usr/local/bin/mlhost"), program, 0755);
    for (size_t i = 0; modules[i]; i++)
        add_file(&own, mem_printf("usr/local/lib/mlhost/%s", strrchr(modules[i], '/') + 1),
                 modules[i], 0755);
    if (status == 0)
        status = write_layer(store, &system, epoch, &layers, &diff_ids, err);
    if (status == 0)
        status = write_layer(store, &own, epoch, &layers, &diff_ids, err);
    files_free(&system);
    files_free(&own);
    if (status != 0)
        return error_wrap(err, "base image");
    base_config(&diff_ids, epoch, &config);
    if (build_write_image(store, &config, &layers, NULL, out, err) != 0)
        return -1;
    memcpy(tag, out->config.text + 7, 16);
    tag[16] = '\0';
    if (store_blob_read(store, out->manifest.text, STORE_MANIFEST_LIMIT, &manifest, err) != 0)
        return -1;
    return store_manifest_put(store, BASE_IMAGE_NAME, tag, OCI_MANIFEST, manifest.data,
                              manifest.len, false, NULL, err);
}
