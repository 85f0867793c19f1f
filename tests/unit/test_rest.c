/* The service engine: addresses, credentials, endpoints, and what each kind of refusal tells the
 * user. */
#include <fcntl.h>

#include "fault_server.h"

#include "fake_call.h"

#include <cmocka.h>

#include "service/rest.h"

static struct broker broker;
static char base[64];

static int64_t far(void)
{
    return deadline_in(30 * NS_PER_S);
}

/* Connects `service` with the arguments given as JSON; *client becomes { client = handle, ... }. */
static int connect_to(const char *service, const char *json, struct value *client,
                      struct error *err)
{
    char name[64];
    struct value args = {0};

    snprintf(name, sizeof(name), "%s.connect", service);
    const struct primitive row = {.sign = {.name = name}, .data = service};
    struct call call = {.broker = &broker, .row = &row, .deadline = far()};
    assert_int_equal(value_from_json(json, strlen(json), "args", NULL, &args, err), 0);
    int result = prim_service_connect(&call, &args, client, err);
    value_free(&args);
    return result;
}

/* Calls an endpoint with `json` as its arguments besides the client. */
static int ask(const struct endpoint *endpoint, const struct value *client, const char *json,
               struct value *out, struct error *err)
{
    const struct primitive row = {.sign = {.name = "test.call"}, .data = endpoint};
    struct call call = {.broker = &broker, .row = &row, .deadline = far()};
    struct value args = {0};

    *err = (struct error){0};
    assert_int_equal(value_from_json(json, strlen(json), "args", NULL, &args, err), 0);
    value_copy(value_put(&args, "client"), value_get(client, "client"));
    int result = prim_rest(&call, &args, out, err);
    value_free(&args);
    return result;
}

static void test_request_shapes(void **state)
{
    static const struct endpoint get = {.method = "GET",
                                        .path = "/echo/{name}",
                                        .query = "list filter=f missing",
                                        .fixed_query = "api-version=7.1"};
    static const struct endpoint post = {
        .method = "POST", .path = "/echo", .body = "a b=wire missing"};
    static const struct endpoint whole = {.method = "PUT", .path = "/echo", .body = "*run"};
    static const struct endpoint raw = {.method = "POST", .path = "/echo", .body = "@text"};
    cleanup_value struct value client = {0};
    struct error err = {0};

    (void)state;
    setenv("MLFLOW_TRACKING_URI", base, 1);
    assert_int_equal(connect_to("mlflow", "{}", &client, &err), 0);
    assert_string_equal(value_get_string(&client, "origin", ""), "MLFLOW_TRACKING_URI");
    {
        cleanup_value struct value out = {0};
        assert_int_equal(ask(&get, &client,
                             "{\"name\":\"a b/c\",\"list\":[\"x\",\"y z\"],\"filter\":{\"k\":1}}",
                             &out, &err),
                         0);
        assert_string_equal(
            value_get_string(&out, "path", ""),
            "/echo/a%20b%2Fc?api-version=7.1&list=x&list=y%20z&f=%7B%22k%22%3A1%7D");
    }
    {
        cleanup_value struct value out = {0};
        assert_int_equal(ask(&post, &client, "{\"a\":1,\"b\":[true]}", &out, &err), 0);
        assert_string_equal(value_get_string(&out, "body", ""), "{\"a\":1,\"wire\":[true]}");
        assert_string_equal(value_get_string(value_get(&out, "headers"), "content-type", ""),
                            "application/json");
    }
    {
        cleanup_value struct value out = {0};
        assert_int_equal(ask(&whole, &client, "{\"run\":{\"name\":\"n\"}}", &out, &err), 0);
        assert_string_equal(value_get_string(&out, "body", ""), "{\"name\":\"n\"}");
    }
    {
        cleanup_value struct value out = {0};
        assert_int_equal(ask(&raw, &client, "{\"text\":\"line\\n\"}", &out, &err), 0);
        assert_string_equal(value_get_string(&out, "body", ""), "line\n");
    }
    { /* a path argument cannot climb, nor be left out */
        cleanup_value struct value out = {0};
        assert_int_equal(ask(&get, &client, "{\"name\":\"..\"}", &out, &err), -1);
        assert_int_equal(err.code, ERR_USAGE);
        assert_int_equal(ask(&get, &client, "{\"name\":\"\"}", &out, &err), -1);
        assert_non_null(strstr(err.message, "'name' is empty"));
    }
}

static void test_refusals(void **state)
{
    static const struct {
        const char *path;
        enum error_code code;
        int status;
        const char *message, *hint;
    } cases[] = {
        {"/status/404?style=mlflow", ERR_NOT_FOUND, 404,
         "answered 404 not found: RESOURCE_DOES_NOT_EXIST: no such run", ""},
        {"/status/404?style=kfp", ERR_NOT_FOUND, 404, "404 not found: Pipeline not found: x", ""},
        {"/status/401?style=azdo", ERR_UNAUTHORIZED, 401, "TF400813: not authorized",
         "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
         "profiles.local.mlflow.auth"},
        {"/status/404?style=html", ERR_NOT_FOUND, 404, "Sorry come back",
         "the base address of this service?"},
        {"/status/403?style=html", ERR_FORBIDDEN, 403, "403 forbidden",
         "--allowed-hosts 127.0.0.1:"},
        {"/status/400?style=mlflow", ERR_NOT_FOUND, 400, "RESOURCE_DOES_NOT_EXIST", ""},
        {"/flaky/rest429/99/429?retry_after=0", ERR_RATE_LIMITED, 429,
         "429 too many requests: try later", "tried 5 times"},
        {"/flaky/rest500/99/500?retry_after=0", ERR_UNAVAILABLE, 500, "500 internal server error",
         "service's own log"},
    };
    cleanup_value struct value client = {0};
    struct error err = {0};

    (void)state;
    setenv("MLFLOW_TRACKING_URI", base, 1);
    assert_int_equal(connect_to("mlflow", "{}", &client, &err), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cleanup_value struct value out = {0};
        struct endpoint endpoint = {.method = "GET", .path = cases[i].path};
        assert_int_equal(ask(&endpoint, &client, "{}", &out, &err), -1);
        assert_int_equal(err.code, cases[i].code);
        assert_int_equal(err.status, cases[i].status);
        assert_string_equal(err.service, "mlflow");
        assert_non_null(strstr(err.message, cases[i].message));
        assert_non_null(strstr(err.message, "test.call: GET http://127.0.0.1:"));
        assert_non_null(strstr(err.hint, cases[i].hint));
    }
    { /* 200 from something that is no such service */
        cleanup_value struct value out = {0};
        struct endpoint endpoint = {.method = "GET", .path = "/large/10"};
        assert_int_equal(ask(&endpoint, &client, "{}", &out, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.message, "not JSON"));
    }
}

static void test_nothing_answers(void **state)
{
    static const struct endpoint endpoint = {
        .method = "GET", .path = "/", .repeat = HTTP_REPEAT_NEVER};
    cleanup_value struct value client = {0};
    cleanup_value struct value out = {0};
    struct error err = {0};

    (void)state;
    setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1", 1);
    assert_int_equal(connect_to("mlflow", "{}", &client, &err), 0);
    assert_int_equal(ask(&endpoint, &client, "{}", &out, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(err.message, "nothing answers"));
    assert_non_null(strstr(err.hint, "http://127.0.0.1:1 came from MLFLOW_TRACKING_URI"));
    assert_non_null(strstr(err.hint, "mlhost serve"));
}

static void test_addresses(void **state)
{
    struct error err = {0};
    (void)state;
    unsetenv("MLFLOW_TRACKING_URI");
    { /* nothing is configured */
        cleanup_value struct value client = {0};
        assert_int_equal(connect_to("databricks", "{}", &client, &err), -1);
        assert_int_equal(err.code, ERR_NOT_FOUND);
        assert_non_null(
            strstr(err.message, "'databricks' is not configured in the profile 'local'"));
        assert_non_null(strstr(err.hint, "profiles.local.databricks.url"));
        assert_non_null(strstr(err.hint, "DATABRICKS_HOST"));
    }
    { /* the embedded service */
        cleanup_value struct value client = {0};
        broker.unix_socket = "/tmp/none.sock";
        assert_int_equal(connect_to("mlflow", "{}", &client, &err), 0);
        assert_true(value_get_bool(&client, "embedded", false));
        broker.unix_socket = NULL;
    }
    { /* a file store is not a server */
        cleanup_value struct value client = {0};
        setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db", 1);
        assert_int_equal(connect_to("mlflow", "{}", &client, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.message, "MLFLOW_TRACKING_URI"));
        assert_non_null(strstr(err.hint, "mlflow server --backend-store-uri sqlite:///mlflow.db"));
        unsetenv("MLFLOW_TRACKING_URI");
    }
}

static const char *authorization(const struct value *client, struct value *out)
{
    static const struct endpoint echo = {.method = "GET", .path = "/echo"};
    struct error err = {0};

    value_free(out);
    assert_int_equal(ask(&echo, client, "{}", out, &err), 0);
    return value_get_string(value_get(out, "headers"), "authorization", "");
}

static void test_credentials(void **state)
{
    cleanup_value struct value out = {0};
    struct error err = {0};
    char endpoint[160];

    (void)state;
    setenv("MLFLOW_TRACKING_URI", base, 1);
    setenv("MLFLOW_TRACKING_TOKEN", "tok-1", 1);
    {
        cleanup_value struct value client = {0};
        assert_int_equal(connect_to("mlflow", "{}", &client, &err), 0);
        assert_string_equal(authorization(&client, &out), "Bearer tok-1");
        assert_non_null(strstr(broker.masked.data, "tok-1\n"));
    }
    { /* the operator's token does not go to a host that the script names */
        cleanup_value struct value client = {0};
        snprintf(endpoint, sizeof(endpoint), "{\"endpoint\":\"http://127.0.0.1:%d\"}",
                 fault_other_port);
        assert_int_equal(connect_to("mlflow", endpoint, &client, &err), 0);
        broker.net_asked = 0;
        assert_string_equal(authorization(&client, &out), "");
        assert_true(broker.net_asked > 0);
        broker.deny_net = true;
        static const struct endpoint echo = {.method = "GET", .path = "/echo"};
        assert_int_equal(ask(&echo, &client, "{}", &out, &err), -1);
        assert_int_equal(err.code, ERR_DENIED);
        broker.deny_net = false;
    }
    { /* but to the operator's own, whoever names it */
        cleanup_value struct value client = {0};
        snprintf(endpoint, sizeof(endpoint), "{\"endpoint\":\"%s\"}", base);
        assert_int_equal(connect_to("mlflow", endpoint, &client, &err), 0);
        assert_string_equal(authorization(&client, &out), "Bearer tok-1");
    }
    unsetenv("MLFLOW_TRACKING_TOKEN");
    setenv("MLFLOW_TRACKING_USERNAME", "Aladdin", 1);
    setenv("MLFLOW_TRACKING_PASSWORD", "open sesame", 1);
    {
        cleanup_value struct value client = {0};
        assert_int_equal(connect_to("mlflow", "{}", &client, &err), 0);
        assert_string_equal(authorization(&client, &out),
                            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="); /* RFC 7617 */
    }
    unsetenv("MLFLOW_TRACKING_USERNAME");
    { /* an unreplaced Azure DevOps variable is no token */
        cleanup_value struct value client = {0};
        setenv("MLFLOW_TRACKING_TOKEN", "$(MLFLOW_TOKEN)", 1);
        assert_int_equal(connect_to("mlflow", "{}", &client, &err), 0);
        assert_string_equal(authorization(&client, &out), "");
        unsetenv("MLFLOW_TRACKING_TOKEN");
    }
    { /* a token file is read for each request */
        cleanup_value struct value client = {0};
        char path[] = "/tmp/mlhost-token-XXXXXX";
        int fd = mkstemp(path);
        assert_int_equal(write(fd, "first\n", 6), 6);
        setenv("KF_PIPELINES_ENDPOINT", base, 1);
        setenv("KF_PIPELINES_SA_TOKEN_PATH", path, 1);
        assert_int_equal(connect_to("kubeflow", "{}", &client, &err), 0);
        assert_string_equal(authorization(&client, &out), "Bearer first");
        assert_int_equal(pwrite(fd, "later\n", 6, 0), 6);
        assert_string_equal(authorization(&client, &out), "Bearer later");
        close(fd);
        unlink(path);
        unsetenv("KF_PIPELINES_ENDPOINT");
        unsetenv("KF_PIPELINES_SA_TOKEN_PATH");
    }
}

static void set_azure_config(struct value *config, const char *secret)
{
    struct value *auth;

    value_set_map(config);
    value_put_string(config, "url", base);
    auth = value_put(config, "auth");
    value_set_map(auth);
    value_put_string(auth, "type", "azure_ad");
    value_put_string(auth, "tenant", "t");
    value_put_string(auth, "client_id", "c");
    value_put_string(auth, "client_secret", secret);
    value_put_string(auth, "scope", "api://kf/.default");
    value_take_string(value_put(auth, "authority"), mem_printf("%s/token?expires=3600&x=", base));
}

static void test_azure_ad(void **state)
{
    static const struct endpoint bearer = {.method = "GET", .path = "/bearer"};
    struct error err = {0};

    (void)state;
    unsetenv("MLFLOW_TRACKING_URI");
    {
        cleanup_value struct value config = {0};
        cleanup_value struct value client = {0};
        cleanup_value struct value out = {0};
        set_azure_config(&config, "right");
        broker.config = &config;
        assert_int_equal(connect_to("kubeflow", "{}", &client, &err), 0);
        assert_int_equal(ask(&bearer, &client, "{}", &out, &err), 0);
        int64_t first = value_get_int(&out, "tokens", 0);
        value_free(&out);
        assert_int_equal(ask(&bearer, &client, "{}", &out, &err), 0);
        assert_int_equal(value_get_int(&out, "tokens", 0),
                         first); /* kept until it is near its end */
        value_free(&out);
        /* somebody fetches another: the server takes only the newest, so the 401 makes ours be
         * fetched anew */
        cleanup_value struct value second = {0};
        assert_int_equal(connect_to("kubeflow", "{}", &second, &err), 0);
        assert_int_equal(ask(&bearer, &second, "{}", &out, &err), 0);
        value_free(&out);
        assert_int_equal(ask(&bearer, &client, "{}", &out, &err), 0);
        assert_int_equal(value_get_int(&out, "tokens", 0), first + 2);
        broker.config = NULL;
    }
    {
        cleanup_value struct value config = {0};
        cleanup_value struct value client = {0};
        cleanup_value struct value out = {0};
        set_azure_config(&config, "wrong");
        broker.config = &config;
        assert_int_equal(connect_to("kubeflow", "{}", &client, &err), 0);
        assert_int_equal(ask(&bearer, &client, "{}", &out, &err), -1);
        assert_int_equal(err.code, ERR_UNAUTHORIZED);
        assert_non_null(strstr(err.message, "Azure AD refuses the client credentials"));
        assert_non_null(strstr(err.message, "AADSTS7000215"));
        assert_non_null(strstr(err.hint, "client_secret"));
        broker.config = NULL;
    }
}

/* Variables for one test: NULL-terminated names and texts. */
static void set_all(const char *const (*pairs)[2], bool set)
{
    for (; (*pairs)[0]; pairs++) {
        if (set)
            setenv((*pairs)[0], (*pairs)[1], 1);
        else
            unsetenv((*pairs)[0]);
    }
}

static void token_file(const char *path, const char *text)
{
    struct error err = {0};

    assert_int_equal(file_write(AT_FDCWD, path, text, strlen(text), false, &err), 0);
}

/* AKS: the webhook of workload identity sets these, and rotates what is in the file. */
static void test_federated_token_file(void **state)
{
    static const struct endpoint bearer = {.method = "GET", .path = "/bearer"};
    char path[] = "/tmp/mlhost-federated-XXXXXX";
    char authority[96];
    const char *const pairs[][2] = {{"SYSTEM_COLLECTIONURI", base},
                                    {"AZURE_TENANT_ID", "t"},
                                    {"AZURE_CLIENT_ID", "c"},
                                    {"AZURE_FEDERATED_TOKEN_FILE", path},
                                    {"AZURE_AUTHORITY_HOST", authority},
                                    {NULL, NULL}};
    struct error err = {0};

    (void)state;
    close(mkstemp(path));
    snprintf(authority, sizeof(authority), "%s/token?expires=0&x=", base);
    set_all(pairs, true);
    { /* by the variables alone */
        cleanup_value struct value client = {0};
        cleanup_value struct value out = {0};
        assert_int_equal(connect_to("azdo", "{}", &client, &err), 0);
        assert_int_equal(ask(&bearer, &client, "{}", &out, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.message, "is empty"));
        token_file(path, "old-jwt\n");
        assert_int_equal(ask(&bearer, &client, "{}", &out, &err), -1);
        assert_int_equal(err.code, ERR_UNAUTHORIZED);
        assert_non_null(strstr(err.message, "AADSTS7000215"));
        assert_non_null(strstr(err.hint, "the federated credential's subject"));
        assert_non_null(strstr(err.hint, "AZURE_FEDERATED_TOKEN_FILE"));
        /* the same client, after the file was rotated */
        token_file(path, "right-jwt\n");
        assert_int_equal(ask(&bearer, &client, "{}", &out, &err), 0);
        assert_non_null(strstr(broker.masked.data, "right-jwt\n"));
    }
    { /* tenant, client and file are the defaults of a profile's workload_identity */
        cleanup_value struct value config = {0};
        cleanup_value struct value client = {0};
        cleanup_value struct value out = {0};
        static const char json[] = "{\"auth\":{\"type\":\"workload_identity\",\"scope\":\"s\"}}";
        assert_int_equal(value_from_json(json, strlen(json), "config", NULL, &config, &err), 0);
        value_put_string(&config, "url", base);
        broker.config = &config;
        assert_int_equal(connect_to("kubeflow", "{}", &client, &err), 0);
        assert_int_equal(ask(&bearer, &client, "{}", &out, &err), 0);
        /* but a variable that the agent left as it was is none */
        cleanup_value struct value other = {0};
        setenv("AZURE_FEDERATED_TOKEN_FILE", "$(AZURE_FEDERATED_TOKEN_FILE)", 1);
        assert_int_equal(connect_to("kubeflow", "{}", &other, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.message, "no source of assertions"));
        broker.config = NULL;
    }
    set_all(pairs, false);
    unlink(path);
}

/* Azure DevOps shows its sign-in page, with 203 or a redirect, to who is not signed in. */
static void test_sign_in_page(void **state)
{
    static const struct endpoint pages[] = {{.method = "GET", .path = "/status/203?style=html"},
                                            {.method = "GET", .path = "/same"}};
    static const int statuses[] = {203, 302};
    const char *const pairs[][2] = {
        {"SYSTEM_COLLECTIONURI", base}, {"SYSTEM_ACCESSTOKEN", "job"}, {NULL, NULL}};
    struct error err = {0};

    (void)state;
    set_all(pairs, true);
    {
        cleanup_value struct value client = {0};
        assert_int_equal(connect_to("azdo", "{}", &client, &err), 0);
        for (size_t i = 0; i < 2; i++) {
            cleanup_value struct value out = {0};
            assert_int_equal(ask(&pages[i], &client, "{}", &out, &err), -1);
            assert_int_equal(err.code, ERR_UNAUTHORIZED);
            assert_int_equal(err.status, statuses[i]);
            assert_string_equal(err.service, "azdo");
            assert_non_null(strstr(err.hint, "SYSTEM_ACCESSTOKEN"));
        }
    }
    set_all(pairs, false);
    { /* to the others 203 is an answer, and a redirect is followed */
        cleanup_value struct value client = {0};
        cleanup_value struct value out = {0};
        setenv("MLFLOW_TRACKING_URI", base, 1);
        assert_int_equal(connect_to("mlflow", "{}", &client, &err), 0);
        static const struct endpoint json = {.method = "GET", .path = "/status/203?style=kfp"};
        assert_int_equal(ask(&json, &client, "{}", &out, &err), 0);
        value_free(&out);
        assert_int_equal(ask(&pages[1], &client, "{}", &out, &err), 0);
        assert_string_equal(value_get_string(&out, "path", ""), "/echo?from=same");
        unsetenv("MLFLOW_TRACKING_URI");
    }
}

/* "$(NAME)" is what an agent leaves of a variable that no pipeline and no group defines. */
static void test_unmapped_variables(void **state)
{
    static const char *const names[] = {"SYSTEM_ACCESSTOKEN", "AZURE_DEVOPS_EXT_PAT",
                                        "AZURE_TENANT_ID", "AZURE_CLIENT_ID",
                                        "AZURE_CLIENT_SECRET"};
    struct error err = {0};
    cleanup_value struct value out = {0};

    (void)state;
    setenv("SYSTEM_COLLECTIONURI", base, 1);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cleanup_free char *text = mem_printf("$(%s)", names[i]);
        setenv(names[i], text, 1);
    }
    {
        cleanup_value struct value client = {0};
        assert_int_equal(connect_to("azdo", "{}", &client, &err), 0);
        assert_string_equal(authorization(&client, &out), "");
    }
    { /* the next that has a value is taken */
        cleanup_value struct value client = {0};
        setenv("AZDO_PAT", "pat", 1);
        assert_int_equal(connect_to("azdo", "{}", &client, &err), 0);
        assert_string_equal(authorization(&client, &out), "Basic OnBhdA==");
        unsetenv("AZDO_PAT");
    }
    { /* an address, too; and only the whole text is such a name */
        cleanup_value struct value client = {0};
        setenv("SYSTEM_COLLECTIONURI", "$(System.CollectionUri)", 1);
        assert_int_equal(connect_to("azdo", "{}", &client, &err), -1);
        assert_int_equal(err.code, ERR_NOT_FOUND);
        setenv("SYSTEM_COLLECTIONURI", base, 1);
        setenv("SYSTEM_ACCESSTOKEN", "$(x", 1);
        assert_int_equal(connect_to("azdo", "{}", &client, &err), 0);
        assert_string_equal(authorization(&client, &out), "Bearer $(x");
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unsetenv(names[i]);
    unsetenv("SYSTEM_COLLECTIONURI");
}

/* Calls a primitive that is no plain endpoint, with `json` besides the client. */
static int run(primitive_fn *fn, const char *name, const struct value *client, const char *json,
               struct value *out, struct error *err)
{
    const struct primitive row = {.sign = {.name = name}};
    struct call call = {.broker = &broker, .row = &row, .deadline = far()};
    struct value args = {0};

    *err = (struct error){0};
    assert_int_equal(value_from_json(json, strlen(json), "args", NULL, &args, err), 0);
    if (client)
        value_copy(value_put(&args, "client"), value_get(client, "client"));
    int result = fn(&call, &args, out, err);
    value_free(&args);
    return result;
}

static void test_uploads(void **state)
{
    cleanup_value struct value client = {0};
    struct error err = {0};
    char endpoint[160];

    (void)state;
    snprintf(endpoint, sizeof(endpoint), "{\"endpoint\":\"%s/echo\"}", base);
    assert_int_equal(connect_to("kubeflow", endpoint, &client, &err), 0);
    { /* a package: one form field, the name in the query */
        cleanup_value struct value out = {0};
        assert_int_equal(run(prim_kubeflow_upload, "kubeflow.upload", &client,
                             "{\"content\":\"schemaVersion: 2.1.0\",\"name\":\"a "
                             "b\",\"filename\":\"x\\\"y.yaml\"}",
                             &out, &err),
                         0);
        const char *body = value_get_string(&out, "body", "");
        const char *type = value_get_string(value_get(&out, "headers"), "content-type", "");
        assert_string_equal(value_get_string(&out, "path", ""),
                            "/echo/apis/v2beta1/pipelines/upload?name=a%20b");
        assert_int_equal(strncmp(type, "multipart/form-data; boundary=mlhost-", 37), 0);
        assert_non_null(strstr(body, "name=\"uploadfile\"; filename=\"x_y.yaml\"\r\n"));
        assert_non_null(strstr(body, "\r\n\r\nschemaVersion: 2.1.0\r\n--mlhost-"));
    }
    { /* a version of it */
        cleanup_value struct value out = {0};
        assert_int_equal(run(prim_kubeflow_upload, "kubeflow.upload", &client,
                             "{\"content\":\"x\",\"pipeline_id\":\"p1\",\"name\":\"v\"}", &out,
                             &err),
                         0);
        assert_string_equal(value_get_string(&out, "path", ""),
                            "/echo/apis/v2beta1/pipelines/upload_version?pipelineid=p1&name=v");
    }
    { /* a notebook goes as base64 */
        cleanup_value struct value out = {0};
        cleanup_value struct value databricks = {0};
        assert_int_equal(connect_to("databricks", endpoint, &databricks, &err), 0);
        assert_int_equal(
            run(prim_databricks_import, "databricks.import", &databricks,
                "{\"content\":\"print(1)\",\"to\":\"/Shared/n\",\"language\":\"PYTHON\"}", &out,
                &err),
            0);
        assert_non_null(strstr(value_get_string(&out, "body", ""), "\"content\":\"cHJpbnQoMSk=\""));
    }
}

static void test_plain_http(void **state)
{
    struct error err = {0};
    char json[512];

    (void)state;
    {
        cleanup_value struct value out = {0};
        snprintf(json, sizeof(json),
                 "{\"url\":\"%s/echo\",\"method\":\"POST\",\"headers\":{\"X-One\":\"1\"},"
                 "\"bearer\":\"tok\",\"body\":\"hello\"}",
                 base);
        assert_int_equal(run(prim_http_request, "http.request", NULL, json, &out, &err), 0);
        assert_int_equal(value_get_int(&out, "status", 0), 200);
        const char *body = value_get_string(&out, "body", "");
        assert_non_null(strstr(body, "\"authorization\": \"Bearer tok\""));
        assert_non_null(strstr(body, "\"x-one\": \"1\""));
        assert_string_equal(value_get_string(value_get(&out, "headers"), "content-type", ""),
                            "application/json");
    }
    { /* a body that goes to a file appears whole or not at all */
        cleanup_value struct value out = {0};
        snprintf(json, sizeof(json),
                 "{\"url\":\"%s/truncated/http\",\"to\":\"/tmp/mlhost-test-http\",\"retry\":false}",
                 base);
        assert_int_equal(run(prim_http_request, "http.request", NULL, json, &out, &err), -1);
        assert_int_equal(access("/tmp/mlhost-test-http", F_OK), -1);
        assert_int_equal(access("/tmp/mlhost-test-http.part", F_OK), -1);
    }
    { /* statuses raise, unless the caller looks himself */
        cleanup_value struct value out = {0};
        snprintf(json, sizeof(json), "{\"url\":\"%s/status/404?style=kfp\"}", base);
        assert_int_equal(run(prim_http_request, "http.request", NULL, json, &out, &err), -1);
        assert_int_equal(err.code, ERR_NOT_FOUND);
        assert_non_null(strstr(err.message, "Pipeline not found: x"));
        snprintf(json, sizeof(json), "{\"url\":\"%s/status/404\",\"check\":false}", base);
        assert_int_equal(run(prim_http_request, "http.request", NULL, json, &out, &err), 0);
        assert_int_equal(value_get_int(&out, "status", 0), 404);
    }
    { /* the policy is asked first */
        cleanup_value struct value out = {0};
        broker.deny_net = true;
        snprintf(json, sizeof(json), "{\"url\":\"%s/ok\"}", base);
        assert_int_equal(run(prim_http_request, "http.request", NULL, json, &out, &err), -1);
        assert_int_equal(err.code, ERR_DENIED);
        broker.deny_net = false;
    }
}

static int setup(void **state)
{
    struct error err = {0};

    (void)state;
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    broker.profile = "local";
    broker.http = http_new(&err);
    if (!broker.http || fault_server_start() != 0)
        return -1;
    snprintf(base, sizeof(base), "http://127.0.0.1:%d", fault_port);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    broker_end(&broker);
    http_free(broker.http);
    fault_server_stop();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_shapes),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_nothing_answers),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_credentials),
        cmocka_unit_test(test_azure_ad),
        cmocka_unit_test(test_uploads),
        cmocka_unit_test(test_plain_http),
        cmocka_unit_test(test_federated_token_file),
        cmocka_unit_test(test_sign_in_page),
        cmocka_unit_test(test_unmapped_variables),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
