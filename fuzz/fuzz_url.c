/* URLs. What the reader takes, put together again, gives the same parts; what is encoded is decoded to
   the same text; a parameter that was put into a query is found in it. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include <stdio.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static char *copy_of(const void *data, size_t len)
{
    char *copy = (char *)malloc(len ? len : 1);
    CHECK(copy);
    if (len)
        memcpy(copy, data, len);
    return copy;
}

static int same(const char *a, size_t a_len, const char *b, size_t b_len)
{
    return a_len == b_len && memcmp(a, b, a_len) == 0;
}

static int is_clean(const char *text, size_t len)
{
    size_t i;
    for (i = 0; i < len; i++) {
        if (text[i] <= 0x20 || text[i] > 0x7e || text[i] == '#')
            return 0;
    }
    return 1;
}

static void check_parse(const char *text, size_t len)
{
    sbx_url url, again;
    const char *problem;
    size_t cap = len + 32, n;
    char *out;
    if (sbx_url_parse(text, len, &url, &problem) != SBX_OK) {
        CHECK(problem);
        return;
    }
    CHECK(!problem && url.port > 0 && url.host_len > 0);
    CHECK(is_clean(text, len) && url.host > text && url.query + url.query_len == text + len);
    CHECK(url.path >= url.host + url.host_len && (url.path_len == 0 || url.path[0] == '/'));
    out = (char *)malloc(cap);
    CHECK(out);
    n = (size_t)snprintf(out, cap, "%s://%s%.*s%s:%d%.*s?%.*s", url.tls ? "https" : "http",
                         url.host[-1] == '[' ? "[" : "", (int)url.host_len, url.host,
                         url.host[-1] == '[' ? "]" : "", url.port, (int)url.path_len, url.path,
                         (int)url.query_len, url.query);
    CHECK(n < cap);
    CHECK(sbx_url_parse(out, n, &again, NULL) == SBX_OK);
    CHECK(again.tls == url.tls && again.port == url.port);
    CHECK(same(again.host, again.host_len, url.host, url.host_len));
    CHECK(same(again.path, again.path_len, url.path, url.path_len));
    CHECK(same(again.query, again.query_len, url.query, url.query_len));
    free(out);
}

static void check_encode(const char *text, size_t len)
{
    size_t n = sbx_url_encode(text, len, NULL, 0), cap = n + 1, cut;
    char *out = (char *)malloc(cap);
    CHECK(out && n >= len && n <= 3 * len);
    CHECK(sbx_url_encode(text, len, out, cap) == n && out[n] == 0 && strlen(out) == n);
    CHECK(strspn(out, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~%") == n);
    cut = n / 2;
    CHECK(sbx_url_encode(text, len, out, cut + 1) == n && out[cut] == 0);
    CHECK(sbx_url_encode(text, len, out, cap) == n);
    CHECK(sbx_url_decode(out, n, (int)(len & 1), out) == len);
    CHECK(len == 0 || memcmp(out, text, len) == 0);
    free(out);
}

/* The first byte says how long the name is; what follows it is the value. */
static void check_query(const char *text, size_t len)
{
    size_t name_len = len ? (unsigned char)text[0] % len : 0, value_len, at, out_len;
    char *name, *query, *out;
    const char *value;
    if (len == 0)
        return;
    name = (char *)malloc(name_len + 1);
    CHECK(name);
    memcpy(name, text + 1, name_len);
    name[name_len] = 0;
    value = text + 1 + name_len;
    value_len = len - 1 - name_len;
    query = (char *)malloc(3 * len + 16);
    out = (char *)malloc(value_len + 1);
    CHECK(query && out);
    if (!memchr(value, 0, value_len) && strlen(name) == name_len) {
        memcpy(query, "&x&", 3);
        at = 3 + sbx_url_encode(name, name_len, query + 3, 3 * len);
        query[at++] = '=';
        at += sbx_url_encode(value, value_len, query + at, 3 * len + 16 - at);
        if (strcmp(name, "x") != 0) {
            CHECK(sbx_url_query(query, at, name, out, value_len + 1, &out_len) == SBX_OK);
            CHECK(same(out, out_len, value, value_len) && out[out_len] == 0);
        }
    }
    /* The bytes as they are, with any result. */
    if (sbx_url_query(value, value_len, name, out, value_len + 1, &out_len) == SBX_OK)
        CHECK(strlen(out) == out_len && out_len <= value_len);
    free(name);
    free(query);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = copy_of(data, size), *out = copy_of(data, size);
    size_t n;
    check_parse(text, size);
    check_encode(text, size);
    check_query(text, size);
    n = sbx_url_decode(text, size, 1, out);
    CHECK(n == SIZE_MAX || n <= size);
    CHECK(sbx_url_decode(out, 0, 1, out) == 0);
    free(text);
    free(out);
    return 0;
}
