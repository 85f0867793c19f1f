/* Azure DevOps' files: they are at an address that a reply names, which may be of another host. */
#include "service/client.h"

#include "base/mem.h"
#include "loop/http_internal.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text);
    size_t end_len = strlen(end);

    return len > end_len && strcasecmp(text + len - end_len, end) == 0;
}

/* Where credentials may go besides the connected address: the hosts of the service that keep
 * artifacts, over TLS. */
static bool of_the_service(const char *url)
{
    CURLU *parts = curl_url();
    char *host = NULL;
    char *scheme = NULL;
    bool good = parts && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                strcasecmp(scheme, "https") == 0 &&
                (ends_with(host, ".visualstudio.com") || ends_with(host, ".dev.azure.com") ||
                 strcasecmp(host, "dev.azure.com") == 0);

    curl_free(host);
    curl_free(scheme);
    curl_url_cleanup(parts);
    return good;
}

static int fetch(struct call *call, struct rest_client *client, const char *url, int fd,
                 struct error *err)
{
    bool same = url_same_origin(client->url, url);
    struct http_request request = HTTP_REQUEST_INIT;
    cleanup_response struct http_response response = {0};
    struct http *http = call_http(call, err);
    int result = -1;

    if (!http)
        return -1;
    if (!same && !of_the_service(url)) {
        error_set(err, ERR_DENIED, "'%s' is not an address of Azure DevOps", url);
        return error_hint(err, "files come from %s, dev.azure.com and *.visualstudio.com",
                          client->url);
    }
    request.url = url;
    request.reply_fd = fd;
    request.ca_file = client->ca;
    request.client_cert = client->client_cert;
    request.client_key = client->client_key;
    request.proxy = client->proxy;
    request.insecure = client->insecure;
    request.deadline = call->deadline;
    request.cancel = call->cancel;
    if (!client->trusted) {
        request.allow = call_http_allow;
        request.allow_ctx = call;
    }
    http_header_add(&request.headers, "Accept", "application/zip, application/octet-stream");
    if (auth_apply(call, client, false, &request.headers, err) == 0)
        result = http_perform(http, &request, &response, err);
    http_headers_free(&request.headers);
    if (result != 0)
        return -1;
    if (response.status == 200)
        return 0;
    http_status_error(&request, &response, NULL, err);
    /* the sign-in page */
    if (err && (response.status == 203 || response.status == 302))
        err->code = ERR_UNAUTHORIZED;
    return -1;
}

/*
 * azdo.download(client, url, to) -> { bytes }
 *
 *   url  string  the address of a file from a reply: of the client's own host, or over TLS of
 *                dev.azure.com or *.visualstudio.com
 *   to   path    the file to write; it appears when it is complete
 * errors  denied (another host), unauthorized, not_found
 * [permission: write] */
int prim_azdo_download(struct call *call, const struct value *args, struct value *out,
                       struct error *err)
{
    struct rest_client *client = rest_client_arg(call, args, err);

    if (!client)
        return -1;
    cleanup_free char *to = call_path(call, value_get_string(args, "to", ""), ACCESS_WRITE, err);
    if (!to)
        return error_wrap(err, "azdo.download");
    cleanup_free char *folder = mem_strdup(to);
    if (dir_make(dirname(folder), err) != 0)
        return error_wrap(err, "azdo.download");
    cleanup_free char *part = mem_printf("%s.part", to);
    cleanup_close int fd = call_open(part, O_WRONLY | O_CREAT | O_TRUNC, 0644, err);
    if (fd < 0)
        return error_wrap(err, "azdo.download");
    int result = fetch(call, client, value_get_string(args, "url", ""), fd, err);
    off_t size = lseek(fd, 0, SEEK_END);
    if (result == 0 && rename(part, to) != 0)
        result = error_errno(err, errno, "cannot write '%s'", to);
    if (result != 0) {
        unlink(part);
        return error_wrap(err, "azdo.download");
    }
    value_set_map(out);
    value_put_int(out, "bytes", (int64_t)size);
    return 0;
}
