#include "oci/remote_header.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/mem.h"

void challenge_free(struct challenge *challenge)
{
    free(challenge->realm);
    free(challenge->service);
    free(challenge->scope);
}

/* key="value", key=value, ... of a WWW-Authenticate header behind its scheme. */
static void parse_parameters(const char *at, struct challenge *out)
{
    while (*at) {
        at += strspn(at, " \t,");
        size_t key_len = strcspn(at, "=, ");
        if (at[key_len] != '=')
            return; /* the next scheme */
        const char *key = at;
        cleanup_buf struct buf text = BUF_INIT;
        at += key_len + 1;
        if (*at == '"') {
            for (at++; *at && *at != '"'; at++) {
                if (*at == '\\' && at[1])
                    at++;
                buf_putc(&text, *at);
            }
            at += *at == '"';
        } else {
            size_t len = strcspn(at, ", ");
            buf_append(&text, at, len);
            at += len;
        }
        char **slot = key_len == 5 && strncasecmp(key, "realm", 5) == 0     ? &out->realm
                      : key_len == 7 && strncasecmp(key, "service", 7) == 0 ? &out->service
                      : key_len == 5 && strncasecmp(key, "scope", 5) == 0   ? &out->scope
                                                                            : NULL;
        if (slot && !*slot)
            *slot = mem_strdup(text.data ? text.data : "");
    }
}

bool challenge_find(const struct http_headers *headers, const char *scheme, struct challenge *out)
{
    size_t len = strlen(scheme);

    for (size_t i = 0; i < headers->count; i++) {
        if (strcasecmp(headers->items[i].name, "WWW-Authenticate") != 0)
            continue;
        const char *text = headers->items[i].value;
        for (const char *at = text; *at; at++)
            if (strncasecmp(at, scheme, len) == 0 && (at[len] == ' ' || at[len] == '\0') &&
                (at == text || at[-1] == ' ' || at[-1] == ',')) {
                parse_parameters(at + len, out);
                return true;
            }
    }
    return false;
}

/* The value of a parameter at `at`, which may be quoted; returns what follows it. */
static const char *parameter(const char *at, struct buf *out)
{
    size_t len;

    buf_clear(out);
    if (*at != '"') {
        len = strcspn(at, ";, \t");
        buf_append(out, at, len);
        return at + len;
    }
    for (at++; *at && *at != '"'; at++) {
        if (*at == '\\' && at[1])
            at++;
        buf_putc(out, *at);
    }
    return at + (*at == '"');
}

/* Is `word` in the list of words? */
static bool has_word(const char *list, const char *word)
{
    size_t word_len = strlen(word), len;

    for (; *list; list += len) {
        list += strspn(list, " \t");
        len = strcspn(list, " \t");
        if (len == word_len && strncasecmp(list, word, len) == 0)
            return true;
    }
    return false;
}

/* One link at `at`: whether it is the next page's, and what follows it. */
static bool link_is_next(const char **at, size_t *url_len)
{
    cleanup_buf struct buf value = BUF_INIT;
    const char *end = strchr(*at, '>');
    bool next = false;

    *url_len = end ? (size_t)(end - *at) : 0;
    for (const char *p = end ? end + 1 : *at + strlen(*at);;) {
        p += strspn(p, "; \t");
        size_t key = strcspn(p, "=;, \t");
        if (key == 0) {
            *at = p;
            return next;
        }
        const char *name = p;
        p += key + strspn(p + key, " \t");
        if (*p != '=')
            continue;
        p = parameter(p + 1 + strspn(p + 1, " \t"), &value);
        if (key == 3 && strncasecmp(name, "rel", 3) == 0)
            next = next || has_word(value.data ? value.data : "", "next");
    }
}

char *link_next(const struct http_headers *headers)
{
    for (size_t i = 0; i < headers->count; i++) {
        if (strcasecmp(headers->items[i].name, "Link") != 0)
            continue;
        for (const char *at = strchr(headers->items[i].value, '<'); at; at = strchr(at, '<')) {
            const char *url = ++at;
            size_t len;
            if (link_is_next(&at, &len))
                return mem_strndup(url, len);
        }
    }
    return NULL;
}

bool warning_text(const char *header, char *out, size_t room)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (strncmp(header, "299 ", 4) != 0)
        return false;
    header += 4 + strspn(header + 4, " ");
    header += strcspn(header, " ");
    header += strspn(header, " ");
    if (*header != '"')
        return false;
    parameter(header, &text);
    if (!text.len)
        return false;
    for (char *at = text.data; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = ' ';
    snprintf(out, room, "%s", text.data);
    return true;
}

char *location_resolve(const char *base, const char *location)
{
    CURLU *url = curl_url();
    char *next = NULL, *copy = NULL;

    if (url && curl_url_set(url, CURLUPART_URL, base, 0) == CURLUE_OK &&
        curl_url_set(url, CURLUPART_URL, location, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_URL, &next, 0) == CURLUE_OK)
        copy = mem_strdup(next);
    curl_free(next);
    curl_url_cleanup(url);
    return copy;
}

bool range_end(const char *header, uint64_t *count)
{
    char *rest;

    if (!header)
        return false;
    if (strncasecmp(header, "bytes=", 6) == 0)
        header += 6;
    if (strncmp(header, "0-", 2) != 0 || header[2] < '0' || header[2] > '9')
        return false;
    unsigned long long last = strtoull(header + 2, &rest, 10);
    if (*rest || last >= INT64_MAX)
        return false;
    *count = last ? last + 1 : 0;
    return true;
}
