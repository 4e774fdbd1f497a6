/* UTF-8 against the grammar of RFC 3629, base64, hexadecimal, SHA-1, UUIDs, numbers, HTTP dates. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "feed.h"

/* ---- UTF-8 ---- */

/* What RFC 3629, 4, says a character is, production by production. */
static const struct production {
    int len;
    unsigned char low[4], high[4];
} grammar[] = {
    {1, {0x00}, {0x7f}},
    {2, {0xc2, 0x80}, {0xdf, 0xbf}},
    {3, {0xe0, 0xa0, 0x80}, {0xe0, 0xbf, 0xbf}},
    {3, {0xe1, 0x80, 0x80}, {0xec, 0xbf, 0xbf}},
    {3, {0xed, 0x80, 0x80}, {0xed, 0x9f, 0xbf}},
    {3, {0xee, 0x80, 0x80}, {0xef, 0xbf, 0xbf}},
    {4, {0xf0, 0x90, 0x80, 0x80}, {0xf0, 0xbf, 0xbf, 0xbf}},
    {4, {0xf1, 0x80, 0x80, 0x80}, {0xf3, 0xbf, 0xbf, 0xbf}},
    {4, {0xf4, 0x80, 0x80, 0x80}, {0xf4, 0x8f, 0xbf, 0xbf}},
};

/* How far text goes before the first byte that no text could have there; *whole is 1 if all of it
   is whole characters. */
static size_t valid_prefix(const unsigned char *text, size_t len, int *whole)
{
    size_t at = 0, i, n, best;
    *whole = 0;
    while (at < len) {
        for (i = 0, best = 0; i < sizeof(grammar) / sizeof(*grammar); i++) {
            const struct production *p = &grammar[i];
            for (n = 0; n < (size_t)p->len && at + n < len; n++) {
                if (text[at + n] < p->low[n] || text[at + n] > p->high[n])
                    break;
            }
            if (n == (size_t)p->len) {
                at += n;
                break;
            }
            best = n > best ? n : best;
        }
        if (i == sizeof(grammar) / sizeof(*grammar))
            return at + best;
    }
    *whole = 1;
    return len;
}

static void check_utf8(const unsigned char *text, size_t len)
{
    sbx_utf8 utf8 = {0};
    int whole, ok, expected;
    expected = valid_prefix(text, len, &whole) == len;
    ok = sbx_utf8_check(&utf8, text, len);
    if (ok != expected || (ok && (utf8.state == 0) != whole)) {
        trace t = {NULL, 0, 0};
        trace_quoted(&t, text, len);
        fail_msg("'%s': returned %d with state %lx, not %d, %s", trace_text(&t), ok,
                 (unsigned long)utf8.state, expected, whole ? "whole" : "cut");
    }
}

static void utf8_takes_every_character_and_no_other(void **unused)
{
    uint32_t code;
    (void)unused;
    for (code = 0; code < 0x120000; code++) {
        unsigned char text[24];
        int n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4, i;
        sbx_utf8 utf8 = {0};
        int valid = (code < 0xd800 || code > 0xdfff) && code < 0x110000;
        memset(text, 'x', sizeof(text));
        for (i = n - 1; i > 0; i--)
            text[i] = (unsigned char)(0x80 | (code >> (6 * (n - 1 - i)) & 0x3f));
        text[0] = (unsigned char)(code >> (6 * (n - 1)) | (n == 1 ? 0 : 0xf00u >> n & 0xff));
        if (sbx_utf8_check(&utf8, text, (size_t)n) != valid)
            fail_msg("U+%lX alone", (unsigned long)code);
        utf8.state = 0;
        if (sbx_utf8_check(&utf8, text, sizeof(text)) != valid)
            fail_msg("U+%lX before ASCII", (unsigned long)code);
    }
}

/* Every sequence of four bytes that are at the edge of some rule, at changing places of a text. */
static void utf8_agrees_with_the_grammar_at_every_place(void **unused)
{
    static const unsigned char edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                          0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed,
                                          0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
    const size_t count = sizeof(edges);
    unsigned char text[160];
    size_t i, at, before, after;
    guard g = {NULL, 0};
    (void)unused;
    for (i = 0; i < count * count * count * count; i++) {
        before = i % 71;
        after = i % 2 ? 0 : i % 79;
        memset(text, 'a', sizeof(text));
        text[before] = edges[i % count];
        text[before + 1] = edges[i / count % count];
        text[before + 2] = edges[i / count / count % count];
        text[before + 3] = edges[i / count / count / count];
        check_utf8(text, before + 4 + after);
        if (i % 61 == 0)
            check_utf8(guard_put(&g, text, before + 4 + after), before + 4 + after);
    }
    /* The same among characters that are not ASCII. */
    for (i = 0; i < count * count * count; i++) {
        for (at = 0; at + 2 <= sizeof(text); at += 2)
            memcpy(text + at, "\xc3\xa9", 2);
        before = i % 73;
        text[before] = edges[i % count];
        text[before + 1] = edges[i / count % count];
        text[before + 2] = edges[i / count / count];
        check_utf8(text, before + 3 + i % 67);
    }
    guard_free(&g);
}

/* Writes down where the check says no, or how the text ends. */
static void read_utf8(void *context, feed *f, trace *t)
{
    sbx_utf8 utf8 = {0};
    char *piece;
    size_t len, at = 0;
    (void)context;
    while (feed_next(f, &piece, &len)) {
        if (!sbx_utf8_check(&utf8, piece, len)) {
            /* no is final, also for more of the text and for none */
            assert_int_equal(sbx_utf8_check(&utf8, "a", 1), 0);
            assert_int_equal(sbx_utf8_check(&utf8, NULL, 0), 0);
            /* the piece before was not refused yet, so the bad byte is in this one */
            assert_true(f->most > 1 || at + len == *(size_t *)context + 1);
            trace_add(t, "bad");
            return;
        }
        at += len;
    }
    assert_int_equal(sbx_utf8_check(&utf8, NULL, 0), 1);
    trace_add(t, utf8.state == 0 ? "whole" : "cut");
}

static void utf8_is_checked_in_pieces_and_refused_at_the_first_bad_byte(void **unused)
{
    static const struct {
        const char *text;
        const char *outcome;
    } cases[] = {
        {"", "whole"},
        {"plain", "whole"},
        {"Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!", "whole"},
        {"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", "whole"},
        {"\xef\xbb\xbf", "whole"},                         /* a byte order mark is a character */
        {"\xef\xbf\xbe\xef\xbf\xbf\xef\xb7\x90", "whole"}, /* so are noncharacters */
        {"\xf4\x8f\xbf\xbf", "whole"},
        {"\xf0\x90\x80\x80\xed\x9f\xbf\xee\x80\x80", "whole"},
        {"a\xc3", "cut"},
        {"a\xe2\x82", "cut"},
        {"a\xf0\x9f\x98", "cut"},
        {"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65", "bad"},
        {"\xc0\xaf", "bad"},
        {"\xe0\x80\xaf", "bad"},
        {"\xe0\x9f\xbf", "bad"},
        {"\xf0\x80\x80\xaf", "bad"},
        {"\xf0\x8f\xbf\xbf", "bad"},
        {"\xf8\x80\x80\x80\xaf", "bad"},
        {"\xfc\x80\x80\x80\x80\xaf", "bad"},
        {"\xfe", "bad"},
        {"\xff", "bad"},
        {"\x80", "bad"},
        {"abc\xbf", "bad"},
        {"\xf4\x90\x80\x80", "bad"},
        {"\xf5\x80\x80\x80", "bad"},
        {"\xc3(", "bad"},
        {"\xe2\x82(", "bad"},
        {"\xf0\x9f\x98(", "bad"},
        {"\xc3\xa9\xa9", "bad"},
        {"The quick brown fox jumps over the lazy dog. \xe2\x9c\x93 The quick brown fox jumps over "
         "the lazy dog, and over the lazy cat.\xc3\xa9\xc3\xa9 and on and on and on",
         "whole"},
        {"The quick brown fox jumps over the lazy dog. \xe2\x9c\x93 The quick brown fox jumps over "
         "the lazy dog, and over the lazy cat.\xc3\xa9\xc3 and on and on and on",
         "bad"},
        {"\xe6\x9e\x84\xe5\xbb\xba\xe5\xae\x8c\xe6\x88\x90\xe6\x9e\x84\xe5\xbb\xba\xe5\xae\x8c\xe6"
         "\x88\x90\xe6\x9e\x84\xe5\xbb\xba\xe5\xae\x8c\xe6\x88\x90\xf0\x9f\x9a\x80\xf0\x9f\x91\x8d",
         "whole"},
    };
    size_t i;
    (void)unused;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        int whole;
        size_t len = strlen(cases[i].text);
        size_t bad = valid_prefix((const unsigned char *)cases[i].text, len, &whole);
        feed_every_way(cases[i].text, len, read_utf8, &bad, cases[i].outcome, cases[i].text);
    }
}

/* ---- encodings ---- */

static void base64_has_padding_and_a_final_zero(void **unused)
{
    static const char *const cases[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\xfb\xff\xfe", "+//+"},
    };
    char out[16];
    guard g = {NULL, 0};
    size_t i, len;
    (void)unused;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        len = strlen(cases[i][0]);
        memset(out, 'x', sizeof(out));
        len = sbxi_base64(guard_put(&g, cases[i][0], len), len, out);
        assert_int_equal(len, strlen(cases[i][1]));
        assert_string_equal(out, cases[i][1]);
    }
    guard_free(&g);
}

static void hex_is_lower_case(void **unused)
{
    char out[9] = "xxxxxxxx";
    (void)unused;
    sbxi_hex(out, (const unsigned char *)"\x00\x9a\xff\x10", 4);
    assert_string_equal(out, "009aff10");
    sbxi_hex(out, NULL, 0);
    assert_string_equal(out, "");
}

/* Samples of FIPS 180; lengths around a block's end, compared with sha1sum. */
static void sha1_agrees_with_the_standard(void **unused)
{
    static const struct {
        size_t len;
        const char *text; /* repeated up to len */
        const char *digest;
    } cases[] = {
        {0, "a", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {3, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {56, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
        {1000000, "a", "34aa973cd4c4daa4f61eeb2bdbad27316534016f"},
        {1, "0123456789abcdef", "b6589fc6ab0dc82cf12099d1c2d40ab994e8410c"},
        {54, "0123456789abcdef", "9029407e39e4fa70c00df99e572cb3b5b17be88e"},
        {55, "0123456789abcdef", "accfa188bccab15065e9feaf805d00217e958ec0"},
        {57, "0123456789abcdef", "37f3db52742f4bc93d912fe395438b7c836d05ba"},
        {63, "0123456789abcdef", "ef717286343f6da3f4e6f68c6de02a5148a801c4"},
        {64, "0123456789abcdef", "ce4303f6b22257d9c9cf314ef1dee4707c6e1c13"},
        {65, "0123456789abcdef", "98b35fe4c45011220f509ebb5546d3889b55a891"},
        {119, "0123456789abcdef", "49b442beb8c91d1d58cc90a52c5a58a16ef280c3"},
        {120, "0123456789abcdef", "a534577204e839be47c092aad08e78b57421e2ac"},
        {128, "0123456789abcdef", "7539151d4f12a92e310f26c847cd81279b451729"},
    };
    size_t i, at;
    (void)unused;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t len = cases[i].len, n = strlen(cases[i].text);
        unsigned char digest[20];
        char hex[41];
        char *text = (char *)malloc(len + 1);
        assert_non_null(text);
        for (at = 0; at < len; at++)
            text[at] = cases[i].text[at % n];
        sbxi_sha1(text, len, digest);
        free(text);
        sbxi_hex(hex, digest, sizeof(digest));
        assert_string_equal(hex, cases[i].digest);
    }
}

static void uuids_hold_the_time_the_version_and_the_variant(void **unused)
{
    char id[37];
    (void)unused;
    /* The example of RFC 9562, A.6. */
    sbxi_uuid7(id, INT64_C(0x017f22e279b0),
               (const unsigned char *)"\x0c\xc3\x18\xc4\xdc\x0c\x0c\x07"
                                      "\x39\x8f");
    assert_string_equal(id, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    sbxi_uuid7(id, 0, (const unsigned char *)"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    assert_string_equal(id, "00000000-0000-7fff-bfff-ffffffffffff");
    sbxi_uuid7(id, INT64_MAX, (const unsigned char *)"\0\0\0\0\0\0\0\0\0\0");
    assert_string_equal(id, "ffffffff-ffff-7000-8000-000000000000");
}

/* ---- comparing, numbers, dates ---- */

static void names_are_equal_whatever_the_case_of_ascii(void **unused)
{
    static const struct {
        const char *a, *b;
        int equal;
    } cases[] = {
        {"", "", 1},
        {"Connection", "connection", 1},
        {"CONTENT-LENGTH", "Content-Length", 1},
        {"a", "", 0},
        {"", "a", 0},
        {"close", "closed", 0},
        {"closed", "close", 0},
        {"[", "{", 0},
        {"@", "`", 0},
        {"\xc4", "\xe4", 0},
        {"k", "\xe2\x84\xaa", 0}, /* the Kelvin sign is no k */
    };
    guard g = {NULL, 0};
    size_t i;
    (void)unused;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t len = strlen(cases[i].a);
        const char *a = (const char *)guard_put(&g, cases[i].a, len);
        assert_int_equal(sbxi_equal_nocase(a, len, cases[i].b), cases[i].equal);
    }
    assert_int_equal(sbxi_equal_nocase("a\0b", 3, "a"), 0);
    guard_free(&g);
}

static void numbers_are_digits_and_fit(void **unused)
{
    static const struct {
        const char *text;
        int ok;
        uint64_t value;
    } cases[] = {
        {"0", 1, 0},
        {"7", 1, 7},
        {"00042", 1, 42},
        {"9223372036854775807", 1, INT64_MAX},
        {"18446744073709551615", 1, UINT64_MAX},
        {"000000000000000000000018446744073709551615", 1, UINT64_MAX},
        {"18446744073709551616", 0, 0},
        {"18446744073709551620", 0, 0},
        {"99999999999999999999999", 0, 0},
        {"", 0, 0},
        {"-1", 0, 0},
        {"+1", 0, 0},
        {" 1", 0, 0},
        {"1 ", 0, 0},
        {"0x10", 0, 0},
        {"1.0", 0, 0},
        {"1e3", 0, 0},
        {"\xd9\xa1", 0, 0}, /* ARABIC-INDIC DIGIT ONE */
        {"/", 0, 0},
        {":", 0, 0},
    };
    guard g = {NULL, 0};
    size_t i;
    (void)unused;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t len = strlen(cases[i].text);
        uint64_t value = 1;
        const char *text = (const char *)guard_put(&g, cases[i].text, len);
        if (sbxi_parse_uint(text, len, &value) != cases[i].ok)
            fail_msg("'%s' was %s", cases[i].text, cases[i].ok ? "refused" : "taken");
        if (cases[i].ok)
            assert_true(value == cases[i].value);
    }
    guard_free(&g);
}

#define BAD INT64_MIN

static void http_dates_have_three_forms(void **unused)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } cases[] = {
        {"Sun, 06 Nov 1994 08:49:37 GMT", 784111777},
        {"Sunday, 06-Nov-94 08:49:37 GMT", 784111777},
        {"Sun Nov  6 08:49:37 1994", 784111777},
        {"Sun Nov 06 08:49:37 1994", 784111777},
        {"Wed Nov 16 08:49:37 1994", 784975777},
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Wed, 31 Dec 1969 23:59:59 GMT", -1},
        {"Sat, 01 Jan 0000 00:00:00 GMT", INT64_C(-62167219200)},
        {"Fri, 31 Dec 9999 23:59:59 GMT", INT64_C(253402300799)},
        {"Tue, 29 Feb 2000 00:00:00 GMT", 951782400},
        {"Wed, 01 Mar 2000 00:00:00 GMT", 951868800},
        {"Thu, 29 Feb 2024 12:00:00 GMT", 1709208000},
        {"Thu, 01 Mar 1900 00:00:00 GMT", INT64_C(-2203891200)},
        {"Tue, 19 Jan 2038 03:14:08 GMT", INT64_C(2147483648)},
        {"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800}, /* a leap second */
        {"Monday, 01-Jan-70 00:00:00 GMT", 0},
        {"Tuesday, 31-Dec-69 00:00:00 GMT", INT64_C(3155673600)}, /* in 2069 */
        {"Wednesday, 01-Jan-20 00:00:00 GMT", 1577836800},
        {"Thursday, 01-Jan-20 00:00:00 GMT", 1577836800}, /* not the right day, but one */
        {"Friday, 01-Jan-20 00:00:00 GMT", 1577836800},
        {"Saturday, 01-Jan-20 00:00:00 GMT", 1577836800},
        {"", BAD},
        {"Sun", BAD},
        {"Sun,", BAD},
        {"Sunday", BAD},
        {"0", BAD},
        {"120", BAD},
        {"sun, 06 nov 1994 08:49:37 gmt", BAD},
        {"Son, 06 Nov 1994 08:49:37 GMT", BAD},
        {"Sunday, 06 Nov 1994 08:49:37 GMT", BAD},
        {"Sun, 06-Nov-94 08:49:37 GMT", BAD},
        {"Sunda, 06-Nov-94 08:49:37 GMT", BAD},
        {"Sundays, 06-Nov-94 08:49:37 GMT", BAD},
        {"Monday , 06-Nov-94 08:49:37 GMT", BAD},
        {"Sun, 06 Nov 1994 08:49:37 UTC", BAD},
        {"Sun, 06 Nov 1994 08:49:37", BAD},
        {"Sun, 06 Nov 1994 08:49:37 GMT ", BAD},
        {" Sun, 06 Nov 1994 08:49:37 GMT", BAD},
        {"Sun, 6 Nov 1994 08:49:37 GMT", BAD},
        {"Sun,  6 Nov 1994 08:49:37 GMT", BAD},
        {"Sun, 06 Nov 94 08:49:37 GMT", BAD},
        {"Sun, 06 Nov 19940 08:49:37 GMT", BAD},
        {"Sun, 06 Nov -994 08:49:37 GMT", BAD},
        {"Sun, 00 Nov 1994 08:49:37 GMT", BAD},
        {"Sun, 31 Nov 1994 08:49:37 GMT", BAD},
        {"Sun, 32 Jan 1994 08:49:37 GMT", BAD},
        {"Sun, 29 Feb 1994 08:49:37 GMT", BAD},
        {"Sun, 29 Feb 1900 08:49:37 GMT", BAD},
        {"Sun, 06 Foo 1994 08:49:37 GMT", BAD},
        {"Sun, 06 NOV 1994 08:49:37 GMT", BAD},
        {"Sun, 06 Nov 1994 24:00:00 GMT", BAD},
        {"Sun, 06 Nov 1994 08:60:00 GMT", BAD},
        {"Sun, 06 Nov 1994 08:49:61 GMT", BAD},
        {"Sun, 06 Nov 1994 8:49:37 GMT", BAD},
        {"Sun, 06 Nov 1994 08-49-37 GMT", BAD},
        {"Sun Nov   6 08:49:37 1994", BAD},
        {"Sun Nov 6 08:49:37 1994", BAD},
        {"Sun Nov  0 08:49:37 1994", BAD},
        {"Sun Nov 6  08:49:37 1994", BAD},
        {"Sun Nov  6 08:49:37 1994 GMT", BAD},
    };
    guard g = {NULL, 0};
    size_t i;
    (void)unused;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t len = strlen(cases[i].text), cut;
        int64_t ms = -7;
        int ok = sbxi_parse_http_date((const char *)guard_put(&g, cases[i].text, len), len, &ms);
        if (ok != (cases[i].seconds != BAD))
            fail_msg("'%s' was %s", cases[i].text, ok ? "taken" : "refused");
        if (ok && ms != cases[i].seconds * 1000)
            fail_msg("'%s' is %ld ms", cases[i].text, (long)ms);
        for (cut = 0; cut < len && ok; cut++) {
            const char *part = (const char *)guard_put(&g, cases[i].text, cut);
            if (sbxi_parse_http_date(part, cut, &ms))
                fail_msg("the first %lu bytes of '%s' were taken", (unsigned long)cut,
                         cases[i].text);
        }
    }
    guard_free(&g);
}

/* Each day of 800 years follows the one before by 86,400 seconds. */
static void http_dates_count_every_day(void **unused)
{
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    int64_t expected = INT64_C(-11676096000000), ms;
    int year, month, day, found;
    (void)unused;
    for (year = 1600; year < 2400; year++) {
        for (month = 0; month < 12; month++) {
            found = 0;
            for (day = 1; day <= 31; day++) {
                char text[64];
                int len = snprintf(text, sizeof(text), "Mon, %02d %s %04d 00:00:00 GMT", day,
                                   months[month], year);
                if (!sbxi_parse_http_date(text, (size_t)len, &ms))
                    continue;
                if (ms != expected)
                    fail_msg("%s", text);
                expected += 86400000;
                found = day;
            }
            assert_true(found >= 28);
        }
    }
    assert_true(expected == INT64_C(13569465600000)); /* the first of January 2400 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_takes_every_character_and_no_other),
        cmocka_unit_test(utf8_agrees_with_the_grammar_at_every_place),
        cmocka_unit_test(utf8_is_checked_in_pieces_and_refused_at_the_first_bad_byte),
        cmocka_unit_test(base64_has_padding_and_a_final_zero),
        cmocka_unit_test(hex_is_lower_case),
        cmocka_unit_test(sha1_agrees_with_the_standard),
        cmocka_unit_test(uuids_hold_the_time_the_version_and_the_variant),
        cmocka_unit_test(names_are_equal_whatever_the_case_of_ascii),
        cmocka_unit_test(numbers_are_digits_and_fit),
        cmocka_unit_test(http_dates_have_three_forms),
        cmocka_unit_test(http_dates_count_every_day),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
