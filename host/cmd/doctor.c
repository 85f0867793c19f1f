/* mlhost doctor: what this machine can enforce, what is configured, which libraries are there. */
#include <lua.h>
#include <jansson.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "base/config.h"
#include "base/mem.h"
#include "base/module.h"
#include "base/value.h"
#include "cmd/cmd.h"
#include "run/daemon.h"
#include "sandbox/filter.h"
#include "sandbox/sandbox.h"

extern const struct command cmd_doctor;

/* Without these nothing of a script is run; the others make it stronger. As sandbox_probe names
 * them. */
static const char *const required[] = {"syscall filter", "landlock", "rlimits", "pidfd"};

static bool available(const struct value *layers, const char *name)
{
    return value_get_bool(value_get(layers, name), "available", false);
}

static bool is_required(const char *name)
{
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        if (strcmp(required[i], name) == 0)
            return true;
    }
    return false;
}

static bool required_hold(const struct value *layers)
{
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        if (!available(layers, required[i]))
            return false;
    }
    return true;
}

static void probe_layers(struct value *layers)
{
    sandbox_probe(layers);
    for (size_t i = 0; i < value_count(layers); i++) {
        struct value_pair *pair = &layers->as.map.pairs[i];
        value_put_bool(&pair->value, "required", is_required(pair->key));
    }
}

/* What scripts and commands get on this machine, strongest first. */
static void say_enforced(const struct value *layers, struct value *out)
{
    int script_calls = 0, command_calls = 0;

    for (const struct profile_call *call = profile_vm_allowed; call->name; call++)
        script_calls++;
    for (const char *const *name = profile_command_allowed; *name; name++)
        command_calls++;
    struct value scripts = {0}, programs = {0}, *vm = &scripts, *command = &programs;
    value_set_array(vm);
    value_set_array(command);
    if (available(layers, "syscall filter")) {
        value_set_printf(value_push(vm), "syscall filter (%d calls)", script_calls);
        value_set_printf(value_push(command), "syscall filter (%d calls)", command_calls);
    }
    if (available(layers, "landlock")) {
        value_push_string(vm, "landlock (no rights)");
        value_push_string(command, "landlock (granted paths)");
    }
    value_push_string(vm, "rlimits");
    value_push_string(command, "rlimits");
    static const char *const kinds[] = {"pid namespace", "mount namespace", "net namespace",
                                        "ipc namespace", "uts namespace"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (available(layers, kinds[i]))
            value_push_string(command, kinds[i]);
    }
    value_set_map(out);
    value_move(value_put(out, "scripts"), vm);
    value_move(value_put(out, "commands"), command);
}

/* ---- libraries ---- */

typedef const char *version_fn(void);

static void put_loaded(struct value *out, enum module module, const char *name, const char *symbol)
{
    struct error err = {0};
    version_fn *version = (version_fn *)module_symbol(module, symbol, &err);

    value_put_string(out, name, version ? version() : err.message);
}

static void put_openssl(struct value *out)
{
    typedef const char *openssl_fn(int);
    struct error err = {0};
    openssl_fn *version = (openssl_fn *)module_symbol(MODULE_IO, "OpenSSL_version", &err);

    value_put_string(out, "openssl", version ? version(0) : err.message);
}

static void put_module(struct value *out, enum module module, const char *name)
{
    struct error err = {0};
    cleanup_free char *file = module_file(module, &err);

    value_put_string(out, name, file ? file : err.message);
}

static void list_libraries(struct value *libraries, struct value *modules)
{
    const struct scmp_version *seccomp = seccomp_version();

    value_set_map(libraries);
    value_put_string(libraries, "lua", LUA_RELEASE);
    value_put_string(libraries, "jansson", jansson_version_str());
    value_put_string(libraries, "libyaml", yaml_get_version_string());
    value_set_printf(value_put(libraries, "libseccomp"), "%u.%u.%u", seccomp->major, seccomp->minor,
                     seccomp->micro);
    put_loaded(libraries, MODULE_IO, "libcurl", "curl_version");
    put_openssl(libraries);
    put_loaded(libraries, MODULE_IO, "libarchive", "archive_version_string");
    put_loaded(libraries, MODULE_IO, "zlib", "zlibVersion");
    put_loaded(libraries, MODULE_IO, "libzstd", "ZSTD_versionString");
    put_loaded(libraries, MODULE_SERVE, "sqlite", "sqlite3_libversion");
    put_loaded(libraries, MODULE_SERVE, "libmicrohttpd", "MHD_get_version");
    value_set_map(modules);
    put_module(modules, MODULE_IO, "io");
    put_module(modules, MODULE_SERVE, "serve");
    put_module(modules, MODULE_EDIT, "edit");
}

/* ---- the report ---- */

static int say_configuration(struct value *out, struct error *err)
{
    struct config config = {0};

    value_set_map(out);
    if (config_load(NULL, NULL, &config, err) < 0) {
        value_put_string(out, "error", err->message);
        return -1;
    }
    value_put_string(out, "workspace", config.workspace);
    value_put_string(out, "file", config.file ? config.file : "none (the embedded default)");
    value_put_string(out, "profile", config.profile);
    value_put_string(out, "state", config.state);
    cleanup_daemon struct daemon daemon;
    daemon_look(&config, &daemon);
    if (daemon.running && daemon.url)
        value_set_printf(value_put(out, "services"), "%s, process %d, mlhost %s", daemon.url,
                         (int)daemon.pid, daemon.version ? daemon.version : "?");
    else
        value_put_string(out, "services", "not served (mlhost serve --background)");
    config_free(&config);
    return 0;
}

static void print_map(const char *title, const struct value *map)
{
    printf("\n%s\n", title);
    for (size_t i = 0; i < value_count(map); i++) {
        const struct value_pair *pair = &map->as.map.pairs[i];
        printf("  %-16s %s\n", pair->key, value_text(&pair->value, ""));
    }
}

static void print_enforced(const char *who, const struct value *list)
{
    printf("  %-16s ", who);
    for (size_t i = 0; i < value_count(list); i++)
        printf("%s%s", i ? ", " : "", value_text(value_at(list, i), ""));
    putchar('\n');
}

static void print_report(const struct value *report)
{
    const struct value *layers = value_get(report, "layers");
    const struct value *enforced = value_get(report, "enforced");

    printf("mlhost %s\n\nlayers of the sandbox\n", mlhost_version);
    for (size_t i = 0; i < value_count(layers); i++) {
        const struct value_pair *pair = &layers->as.map.pairs[i];
        bool holds = value_get_bool(&pair->value, "available", false);
        bool needed = value_get_bool(&pair->value, "required", false);
        printf("  %-8s %-16s %s\n",
               holds    ? "ok"
               : needed ? "MISSING"
                        : "missing",
               pair->key, value_get_string(&pair->value, "detail", ""));
    }
    puts("\nwhat holds");
    print_enforced("scripts", value_get(enforced, "scripts"));
    print_enforced("commands", value_get(enforced, "commands"));
    print_map("configuration", value_get(report, "configuration"));
    print_map("libraries", value_get(report, "libraries"));
    print_map("modules", value_get(report, "modules"));
    if (!value_get_bool(report, "ok", false))
        puts("\nA layer that scripts must have is missing: mlhost run refuses here.\n"
             "  hint: in a container, allow seccomp(2) (the default profiles of Docker and Podman "
             "do)");
}

static int run(int argc, char **argv)
{
    bool json = false;
    const struct option_spec options[] = {{"json", OPTION_FLAG, &json}, {0}};
    struct error err = {0};
    cleanup_value struct value report = {0};

    int words = options_parse(&cmd_doctor, options, argc, argv);
    if (words < 0)
        return words == -2 ? 0 : 2;
    value_set_map(&report);
    value_put_string(&report, "version", mlhost_version);
    value_set_bool(value_put(&report, "ok"), false);
    /* Filled aside and moved in: a new key may move those before it. */
    struct value layers = {0}, enforced = {0}, configuration = {0}, libraries = {0}, modules = {0};
    probe_layers(&layers);
    say_enforced(&layers, &enforced);
    bool holds = required_hold(&layers);
    int configured = say_configuration(&configuration, &err);
    list_libraries(&libraries, &modules);
    value_set_bool(value_put(&report, "ok"), holds);
    value_move(value_put(&report, "layers"), &layers);
    value_move(value_put(&report, "enforced"), &enforced);
    value_move(value_put(&report, "configuration"), &configuration);
    value_move(value_put(&report, "libraries"), &libraries);
    value_move(value_put(&report, "modules"), &modules);
    if (json) {
        cleanup_buf struct buf text = BUF_INIT;
        value_to_json(&report, TEXT_PRETTY, &text);
        puts(text.data);
    } else {
        print_report(&report);
    }
    if (!holds)
        return 4;
    return configured < 0 ? command_fail(&err) : 0;
}

const struct command cmd_doctor = {
    .name = "doctor",
    .summary = "what this machine can enforce, and what is configured",
    .help = "usage: mlhost doctor [--json]\n\n"
            "Tries each layer of the sandbox as this user on this kernel, and prints what scripts "
            "and commands run\n"
            "below, the configuration in force, and the libraries.\n\n"
            "  --json   the same as JSON\n\n"
            "exit status: 0 the required layers hold, 2 the configuration is invalid, 4 a required "
            "layer is missing\n\n"
            "examples:\n  mlhost doctor\n  mlhost doctor --json | jq .layers.landlock\n",
    .run = run,
};
