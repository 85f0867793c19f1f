#include "base/module.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

/* Each module says of which version it is, under a name of its own. */
static const char *const versions[] = {
    [MODULE_IO] = "mlhost_io_version",
    [MODULE_SERVE] = "mlhost_serve_version",
    [MODULE_MODEL] = "mlhost_model_version",
    [MODULE_EDIT] = "mlhost_edit_version",
};

static const char *const files[] = {
    [MODULE_IO] = "mlhost-io.so",
    [MODULE_SERVE] = "mlhost-serve.so",
    [MODULE_MODEL] = "mlhost-model.so",
    [MODULE_EDIT] = "mlhost-edit.so",
};

char *module_file(enum module module, struct error *err)
{
    char program[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);

    if (len < 0) {
        error_errno(err, errno, "cannot find the program's own file");
        return NULL;
    }
    program[len] = '\0';
    char *slash = strrchr(program, '/');
    *slash = '\0';
    /* A program that embeds libmlhost may be anywhere. */
    const char *named = getenv("MLHOST_MODULE_PATH");
    if (named && named[0]) {
        char *path = mem_printf("%s/%s", named, files[module]);
        if (access(path, R_OK) == 0)
            return path;
        mem_cleanup(&path);
    }
    /* Beside the program in a build folder; in the lib folder of the prefix, multiarch or not,
     * where it is installed. */
    static const char *const folders[] = {
        "%s/%s", "%s/../lib/mlhost/%s", "%s/../lib/x86_64-linux-gnu/mlhost/%s",
        "%s/../lib/aarch64-linux-gnu/mlhost/%s", "%s/../lib64/mlhost/%s"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        char *path = mem_printf(folders[i], program, files[module]);
#pragma GCC diagnostic pop
        if (access(path, R_OK) == 0)
            return path;
        mem_cleanup(&path);
    }
    char *installed = mem_printf("%s/%s", MLHOST_MODULE_DIR, files[module]);
    if (access(installed, R_OK) == 0)
        return installed;
    mem_cleanup(&installed);
    error_set(err, ERR_NOT_FOUND, "%s is neither beside the program (%s) nor in ../lib/mlhost",
              files[module], program);
    error_hint(err, "build again with ./dev build, install with cmake --install, or name its "
                    "folder in MLHOST_MODULE_PATH");
    return NULL;
}

static void *load(enum module module, struct error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static void *loaded[sizeof files / sizeof *files];
    void *handle;

    if (module == MODULE_SERVE && !load(MODULE_IO, err))
        return NULL;
    pthread_mutex_lock(&lock);
    if (!loaded[module]) {
        cleanup_free char *path = module_file(module, err);
        if (path) {
            loaded[module] = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
            if (!loaded[module]) {
                error_set(err, ERR_IO, "cannot load %s: %s", path, dlerror());
                error_hint(err, "are the libraries that it needs installed? ldd %s lists them",
                           path);
            } else {
                const char *version = dlsym(loaded[module], versions[module]);
                if (!version || strcmp(version, mlhost_version) != 0) {
                    error_set(err, ERR_INVALID, "%s is of version %s, the program of %s", path,
                              version ? version : "unknown", mlhost_version);
                    error_hint(err, "build or install both again");
                    loaded[module] = NULL;
                }
            }
        }
    }
    handle = loaded[module];
    pthread_mutex_unlock(&lock);
    return handle;
}

void *module_symbol(enum module module, const char *symbol, struct error *err)
{
    void *address = dlsym(RTLD_DEFAULT, symbol);

    if (address || module == MODULE_CORE) {
        if (!address)
            error_set(err, ERR_INTERNAL, "the program has no function '%s'", symbol);
        return address;
    }
    void *handle = load(module, err);
    if (!handle)
        return NULL;
    address = dlsym(handle, symbol);
    if (!address)
        error_set(err, ERR_INTERNAL, "%s has no function '%s'", files[module], symbol);
    return address;
}
