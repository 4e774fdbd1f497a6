/* URLs: percent-encoding, the parts of an absolute URL (RFC 3986), parameters of a query. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "guard.h"

#define BYTES(text) text, sizeof(text) - 1

/* ---- percent-encoding ---- */

static void what_could_mean_something_is_encoded(void **state)
{
    static const struct {
        const char *text;
        size_t len;
        const char *expected;
    } cases[] = {
        {BYTES(""), ""},
        {BYTES("azAZ09-_~"), "azAZ09-_~"},
        {BYTES("."), "%2E"},
        {BYTES(".."), "%2E%2E"},
        {BYTES("a/b c"), "a%2Fb%20c"},
        {BYTES("100%"), "100%25"},
        {BYTES("\x00\x7f\xff"), "%00%7F%FF"},
        {BYTES("\xc3\xa4"), "%C3%A4"},
        {BYTES("!\"#$&'()*+,:;<=>?@[\\]^`{|}"),
         "%21%22%23%24%26%27%28%29%2A%2B%2C%3A%3B%3C%3D%3E%3F%40%5B%5C%5D%5E%60%7B%7C%7D"},
        {BYTES("\r\nX: y"), "%0D%0AX%3A%20y"},
    };
    guard g = {NULL, 0};
    char out[128];
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const char *text = (const char *)guard_put(&g, cases[i].text, cases[i].len);
        assert_int_equal(sbx_url_encode(text, cases[i].len, out, sizeof(out)),
                         strlen(cases[i].expected));
        assert_string_equal(out, cases[i].expected);
        assert_int_equal(sbx_url_decode(out, strlen(out), 1, out), cases[i].len);
        assert_memory_equal(out, cases[i].text, cases[i].len);
    }
    guard_free(&g);
}

static void what_does_not_fit_in_is_cut_and_counted(void **state)
{
    static const char expected[] = "a%2Fb";
    size_t cap;
    (void)state;
    assert_int_equal(sbx_url_encode("a/b", 3, NULL, 0), 5);
    for (cap = 1; cap < 8; cap++) {
        char out[9];
        size_t fits = cap - 1 < 5 ? cap - 1 : 5;
        memset(out, '#', sizeof(out));
        assert_int_equal(sbx_url_encode("a/b", 3, out, cap), 5);
        assert_memory_equal(out, expected, fits);
        assert_int_equal(out[fits], 0);
        assert_int_equal(out[fits + 1], '#');
    }
}

static void escapes_are_decoded_and_bad_ones_refused(void **state)
{
    static const struct {
        const char *text;
        int plus;
        const char *expected;
        size_t len; /* SIZE_MAX: refused */
    } cases[] = {
        {"", 0, BYTES("")},
        {"abc", 0, BYTES("abc")},
        {"%61%4a%4A", 0, BYTES("aJJ")},
        {"a+b%2Bc", 0, BYTES("a+b+c")},
        {"a+b%2Bc", 1, BYTES("a b+c")},
        {"%00%ff", 0, BYTES("\x00\xff")},
        {"%2525", 0, BYTES("%25")},
        {"%", 0, "", SIZE_MAX},
        {"a%1", 0, "", SIZE_MAX},
        {"%g1", 0, "", SIZE_MAX},
        {"%1g", 0, "", SIZE_MAX},
        {"% 1", 0, "", SIZE_MAX},
        {"%+1", 1, "", SIZE_MAX},
        {"%%41", 0, "", SIZE_MAX},
        {"%u0041", 0, "", SIZE_MAX},
    };
    guard g = {NULL, 0};
    char out[32];
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t len = strlen(cases[i].text);
        char *text = (char *)guard_put(&g, cases[i].text, len);
        assert_int_equal(sbx_url_decode(text, len, cases[i].plus, out), cases[i].len);
        if (cases[i].len == SIZE_MAX)
            continue;
        assert_memory_equal(out, cases[i].expected, cases[i].len);
        assert_int_equal(sbx_url_decode(text, len, cases[i].plus, text), cases[i].len);
        assert_memory_equal(text, cases[i].expected, cases[i].len);
    }
    guard_free(&g);
}

/* ---- absolute URLs ---- */

static void an_absolute_url_is_taken_apart(void **state)
{
    static const struct {
        const char *text;
        int tls;
        const char *host;
        int port;
        const char *path, *query;
    } cases[] = {
        {"http://localhost", 0, "localhost", 80, "", ""},
        {"https://localhost", 1, "localhost", 443, "", ""},
        {"https://a.b-c.example/", 1, "a.b-c.example", 443, "/", ""},
        {"HTTP://EXAMPLE:8080/A", 0, "EXAMPLE", 8080, "/A", ""},
        {"HttpS://x:1", 1, "x", 1, "", ""},
        {"http://x:65535/", 0, "x", 65535, "/", ""},
        {"http://x:00080/", 0, "x", 80, "/", ""},
        {"http://127.0.0.1:99", 0, "127.0.0.1", 99, "", ""},
        {"http://x/a/b/", 0, "x", 80, "/a/b/", ""},
        {"http://x//a", 0, "x", 80, "//a", ""},
        {"http://x/a?b=c&d", 0, "x", 80, "/a", "b=c&d"},
        {"http://x?b", 0, "x", 80, "", "b"},
        {"http://x:8?", 0, "x", 8, "", ""},
        {"http://x/?a?b/c:d@e", 0, "x", 80, "/", "a?b/c:d@e"},
        {"http://x/%41%2f-._~!$&'()*+,;=:@", 0, "x", 80, "/%41%2f-._~!$&'()*+,;=:@", ""},
        {"http://a_b~c!$&'()*+,;=d/", 0, "a_b~c!$&'()*+,;=d", 80, "/", ""},
        {"http://[::1]", 0, "::1", 80, "", ""},
        {"https://[::]:8443/a", 1, "::", 8443, "/a", ""},
        {"http://[1:2:3:4:5:6:7:8]/", 0, "1:2:3:4:5:6:7:8", 80, "/", ""},
        {"http://[2001:DB8::ffff:0]?q", 0, "2001:DB8::ffff:0", 80, "", "q"},
        {"http://[1::]", 0, "1::", 80, "", ""},
        {"http://[1:2:3:4:5:6:7::]", 0, "1:2:3:4:5:6:7::", 80, "", ""},
        {"http://[::2:3:4:5:6:7:8]", 0, "::2:3:4:5:6:7:8", 80, "", ""},
        {"http://[1::3:4:5:6:7:8]", 0, "1::3:4:5:6:7:8", 80, "", ""},
        {"http://[::ffff:192.0.2.255]:1/", 0, "::ffff:192.0.2.255", 1, "/", ""},
        {"http://[1:2:3:4:5:6:0.0.0.0]", 0, "1:2:3:4:5:6:0.0.0.0", 80, "", ""},
        {"http://[::1.2.3.4]", 0, "::1.2.3.4", 80, "", ""},
        {"http://[1:2:3:4:5::1.2.3.4]", 0, "1:2:3:4:5::1.2.3.4", 80, "", ""},
    };
    guard g = {NULL, 0};
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t len = strlen(cases[i].text);
        const char *text = (const char *)guard_put(&g, cases[i].text, len), *problem = "not set";
        sbx_url url;
        if (sbx_url_parse(text, len, &url, &problem) != SBX_OK)
            fail_msg("%s: %s", cases[i].text, problem);
        assert_null(problem);
        assert_int_equal(url.tls, cases[i].tls);
        assert_int_equal(url.port, cases[i].port);
        assert_int_equal(url.host_len, strlen(cases[i].host));
        assert_memory_equal(url.host, cases[i].host, url.host_len);
        assert_int_equal(url.path_len, strlen(cases[i].path));
        assert_memory_equal(url.path, cases[i].path, url.path_len);
        assert_int_equal(url.query_len, strlen(cases[i].query));
        assert_memory_equal(url.query, cases[i].query, url.query_len);
        /* They point into the text, also where they are empty. */
        assert_true(url.host >= text && url.host + url.host_len <= text + len);
        assert_true(url.path >= text && url.path + url.path_len <= text + len);
        assert_true(url.query >= text && url.query + url.query_len <= text + len);
        assert_int_equal(sbx_url_parse(text, len, &url, NULL), SBX_OK);
    }
    guard_free(&g);
}

static void what_is_no_such_url_is_refused(void **state)
{
#define NO_SCHEME "the URL does not start with http:// or https://"
#define NO_HOST "the URL has no host"
#define BAD_HOST "the host has a character that does not belong there"
#define BAD_IPV6 "what stands in brackets is not an IPv6 address"
#define BAD_PORT "the port is not a number from 1 to 65535"
#define BAD_PATH "the path has a character that must be percent-encoded, or a bad escape"
#define BAD_QUERY "the query has a character that must be percent-encoded, or a bad escape"
#define USER "a URL with a user name is not accepted"
#define FRAGMENT "a URL with a fragment is not accepted"
    static const struct {
        const char *text;
        size_t len;
        const char *problem;
    } cases[] = {
        {BYTES(""), NO_SCHEME},
        {BYTES("localhost"), NO_SCHEME},
        {BYTES("localhost:8080"), NO_SCHEME},
        {BYTES("//x/"), NO_SCHEME},
        {BYTES("http:"), NO_SCHEME},
        {BYTES("http:/x"), NO_SCHEME},
        {BYTES("http//x"), NO_SCHEME},
        {BYTES("https:/"), NO_SCHEME},
        {BYTES("ftp://x"), NO_SCHEME},
        {BYTES("ws://x"), NO_SCHEME},
        {BYTES("httpss://x"), NO_SCHEME},
        {BYTES(" http://x"), NO_SCHEME},
        {BYTES("http\x00://x"), NO_SCHEME},
        {BYTES("http://"), NO_HOST},
        {BYTES("https://"), NO_HOST},
        {BYTES("http:///a"), NO_HOST},
        {BYTES("http://:80"), NO_HOST},
        {BYTES("http://?a"), NO_HOST},
        {BYTES("http://x y"), BAD_HOST},
        {BYTES("http://x\x00"), BAD_HOST},
        {BYTES("http://x\r\nHost: y"), BAD_HOST},
        {BYTES("http://x%41"), BAD_HOST},
        {BYTES("http://\xc3\xa4"), BAD_HOST},
        {BYTES("http://x\\y"), BAD_HOST},
        {BYTES("http://x[::1]"), BAD_HOST},
        {BYTES("http://x]"), BAD_HOST},
        {BYTES("http://user@x"), USER},
        {BYTES("http://user:secret@x/"), USER},
        {BYTES("http://@x/"), USER},
        {BYTES("http://x#a"), FRAGMENT},
        {BYTES("http://x/a#"), FRAGMENT},
        {BYTES("http://x/?a#b"), FRAGMENT},
        {BYTES("http://x:"), BAD_PORT},
        {BYTES("http://x:/"), BAD_PORT},
        {BYTES("http://x:0"), BAD_PORT},
        {BYTES("http://x:65536"), BAD_PORT},
        {BYTES("http://x:18446744073709551617"), BAD_PORT},
        {BYTES("http://x:+80"), BAD_PORT},
        {BYTES("http://x:-80"), BAD_PORT},
        {BYTES("http://x:8a"), BAD_PORT},
        {BYTES("http://x: 80"), BAD_PORT},
        {BYTES("http://x:80:80"), BAD_PORT},
        {BYTES("http://::1"), NO_HOST},
        {BYTES("http://1::2"), BAD_PORT},
        {BYTES("http://x/a b"), BAD_PATH},
        {BYTES("http://x/\x00"), BAD_PATH},
        {BYTES("http://x/\r\n"), BAD_PATH},
        {BYTES("http://x/\x7f"), BAD_PATH},
        {BYTES("http://x/\xc3\xa4"), BAD_PATH},
        {BYTES("http://x/\\"), BAD_PATH},
        {BYTES("http://x/<>"), BAD_PATH},
        {BYTES("http://x/[]"), BAD_PATH},
        {BYTES("http://x/\""), BAD_PATH},
        {BYTES("http://x/{|}^`"), BAD_PATH},
        {BYTES("http://x/%"), BAD_PATH},
        {BYTES("http://x/%1"), BAD_PATH},
        {BYTES("http://x/%1?0"), BAD_PATH},
        {BYTES("http://x/%zz"), BAD_PATH},
        {BYTES("http://x/?a b"), BAD_QUERY},
        {BYTES("http://x/?\n"), BAD_QUERY},
        {BYTES("http://x/?%4"), BAD_QUERY},
        {BYTES("http://x?[]"), BAD_QUERY},
        {BYTES("http://[::1"), BAD_IPV6},
        {BYTES("http://[]"), BAD_IPV6},
        {BYTES("http://[:]"), BAD_IPV6},
        {BYTES("http://[:::]"), BAD_IPV6},
        {BYTES("http://[1]"), BAD_IPV6},
        {BYTES("http://[1:2:3:4:5:6:7]"), BAD_IPV6},
        {BYTES("http://[1:2:3:4:5:6:7:8:9]"), BAD_IPV6},
        {BYTES("http://[1:2:3:4:5:6:7:8::]"), BAD_IPV6},
        {BYTES("http://[::1:2:3:4:5:6:7:8]"), BAD_IPV6},
        {BYTES("http://[1:2:3:4::5:6:7:8]"), BAD_IPV6},
        {BYTES("http://[1::2::3]"), BAD_IPV6},
        {BYTES("http://[:1::]"), BAD_IPV6},
        {BYTES("http://[1:2:3:4:5:6:7:]"), BAD_IPV6},
        {BYTES("http://[12345::]"), BAD_IPV6},
        {BYTES("http://[g::]"), BAD_IPV6},
        {BYTES("http://[::1%25eth0]"), BAD_IPV6},
        {BYTES("http://[fe80::1%eth0]"), BAD_IPV6},
        {BYTES("http://[v1.a]"), BAD_IPV6},
        {BYTES("http://[1.2.3.4]"), BAD_IPV6},
        {BYTES("http://[::256.0.0.1]"), BAD_IPV6},
        {BYTES("http://[::01.0.0.1]"), BAD_IPV6},
        {BYTES("http://[::1.2.3]"), BAD_IPV6},
        {BYTES("http://[::1.2.3.4.5]"), BAD_IPV6},
        {BYTES("http://[::1.2.3.1234]"), BAD_IPV6},
        {BYTES("http://[::1.2.3.12345]"), BAD_IPV6},
        {BYTES("http://[::1.2.a.4]"), BAD_IPV6},
        {BYTES("http://[::1.2.3.]"), BAD_IPV6},
        {BYTES("http://[::1.2.3.4:5]"), BAD_IPV6},
        {BYTES("http://[1:2:3:4:5:6:7:1.2.3.4]"), BAD_IPV6},
        {BYTES("http://[::1]x"), "only a colon and a port may follow the host"},
        {BYTES("http://[::1]]"), "only a colon and a port may follow the host"},
        {BYTES("http://[::1]:"), BAD_PORT},
    };
    guard g = {NULL, 0};
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const char *text = (const char *)guard_put(&g, cases[i].text, cases[i].len), *problem;
        sbx_url url;
        if (sbx_url_parse(text, cases[i].len, &url, &problem) != SBX_E_ARGUMENT)
            fail_msg("accepted: %s", cases[i].text);
        if (strcmp(problem, cases[i].problem) != 0)
            fail_msg("%s: %s", cases[i].text, problem);
        assert_int_equal(sbx_url_parse(text, cases[i].len, &url, NULL), SBX_E_ARGUMENT);
    }
    guard_free(&g);
}

/* ---- queries ---- */

static void a_parameter_is_found_and_decoded(void **state)
{
    static const struct {
        const char *query, *name, *value; /* value NULL: there is none */
    } cases[] = {
        {"path=/tmp/x", "path", "/tmp/x"},
        {"path=%2Ftmp%2fa%20b+c%2B", "path", "/tmp/a b c+"},
        {"a=1&path=2&b=3", "path", "2"},
        {"path=1&path=2", "path", "1"},
        {"path", "path", ""},
        {"path=", "path", ""},
        {"path&a=b", "path", ""},
        {"path==a=b", "path", "=a=b"},
        {"&&path=1&&", "path", "1"},
        {"p%61th=1", "path", "1"},
        {"a+b=1", "a b", "1"},
        {"a%26b=%26%3d", "a&b", "&="},
        {"=1", "", "1"},
        {"path=\xc3\xa4", "path", "\xc3\xa4"},
        {"", "path", NULL},
        {"", "", NULL},
        {"&", "", NULL},
        {"paths=1&pat=2&Path=3&xpath=4", "path", NULL},
        {"a=path&b=path=1", "path", NULL},
        {"p%61th%00=1&path%0=2&pat%68%=3", "path", NULL},
    };
    guard g = {NULL, 0};
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t len = strlen(cases[i].query), out_len = 77, cap;
        const char *query = (const char *)guard_put(&g, cases[i].query, len);
        char out[32];
        sbx_status st = sbx_url_query(query, len, cases[i].name, out, sizeof(out), &out_len);
        if (!cases[i].value) {
            if (st != SBX_END || out_len != 0)
                fail_msg("found in %s", cases[i].query);
            continue;
        }
        if (st != SBX_OK || strcmp(out, cases[i].value) != 0)
            fail_msg("%d: %s in %s", st, cases[i].name, cases[i].query);
        assert_int_equal(out_len, strlen(cases[i].value));
        for (cap = 0; cap <= out_len; cap++) {
            size_t needed;
            memset(out, '#', sizeof(out));
            assert_int_equal(sbx_url_query(query, len, cases[i].name, out, cap, &needed),
                             SBX_E_TOO_BIG);
            assert_int_equal(needed, out_len);
            assert_int_equal(out[cap], '#');
        }
    }
    guard_free(&g);
}

static void a_value_that_is_no_text_is_refused(void **state)
{
    static const char *const cases[] = {"path=%", "path=a%2", "path=%zz&path=1", "path=a%00b"};
    size_t i, len;
    char out[8];
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(sbx_url_query(cases[i], strlen(cases[i]), "path", out, sizeof(out), &len),
                         SBX_E_PROTOCOL);
        assert_int_equal(len, 0);
    }
    assert_int_equal(sbx_url_query("path=a%20", 7, "path", out, sizeof(out), &len),
                     SBX_E_PROTOCOL); /* the escape is behind the end */
    assert_int_equal(sbx_url_query(NULL, 0, "path", out, sizeof(out), &len), SBX_END);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_could_mean_something_is_encoded),
        cmocka_unit_test(what_does_not_fit_in_is_cut_and_counted),
        cmocka_unit_test(escapes_are_decoded_and_bad_ones_refused),
        cmocka_unit_test(an_absolute_url_is_taken_apart),
        cmocka_unit_test(what_is_no_such_url_is_refused),
        cmocka_unit_test(a_parameter_is_found_and_decoded),
        cmocka_unit_test(a_value_that_is_no_text_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
