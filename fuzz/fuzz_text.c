/* UTF-8, base64, hexadecimal, numbers and dates. The first two bytes of the input choose the cuts.

   UTF-8 in pieces is what it is in one, and what its definition says; what an encoding writes is
   decoded to the same bytes; a date that is accepted is what the C library calls that time. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include <stdio.h>
#include <time.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

/* A copy in a block of its own, so that a sanitizer sees what is read beside it. */
static unsigned char *copy(const void *bytes, size_t len)
{
    unsigned char *p = (unsigned char *)malloc(len ? len : 1);
    CHECK(p);
    if (len)
        memcpy(p, bytes, len);
    return p;
}

/* One character by the definition of UTF-8: its length, 1 to 4; 0 if it is cut, -1 if it is bad. */
static int decode(const unsigned char *p, size_t len)
{
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t code, first, last;
    int n = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? -1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4, i;
    if (n < 2)
        return n;
    if (p[0] >= 0xf8)
        return -1;
    code = p[0] & (0xffu >> (n + 1));
    for (i = 1; i < n && (size_t)i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return -1;
        code = code << 6 | (p[i] & 0x3fu);
    }
    /* The characters that a cut one can still become. */
    first = code << 6 * (n - i);
    last = first | ((UINT32_C(1) << 6 * (n - i)) - 1);
    if (last < lowest[n] || first > 0x10ffff || (first >= 0xd800 && last <= 0xdfff))
        return -1;
    return i < n ? 0 : n;
}

static void check_utf8(const uint8_t *data, size_t size, size_t most)
{
    sbx_utf8 whole = {0}, cut = {0};
    unsigned char *text = copy(data, size);
    int n = 1, ok = sbx_utf8_check(&whole, text, size);
    size_t at = 0, bad, len;
    while (at < size && n > 0) {
        n = decode(text + at, size - at);
        at += n > 0 ? (size_t)n : 0;
    }
    CHECK(ok == (n >= 0));
    CHECK(!ok || (whole.state == 0) == (n > 0));
    for (bad = at; n < 0 && decode(text + at, bad - at + 1) == 0; bad++)
        ;
    for (at = 0; at < size; at += len) {
        unsigned char *piece;
        len = most < size - at ? most : size - at;
        piece = copy(text + at, len);
        if (!sbx_utf8_check(&cut, piece, len)) {
            CHECK(n < 0 && bad >= at && bad < at + len);
            at = size;
        }
        free(piece);
    }
    CHECK(n < 0 || cut.state == whole.state);
    free(text);
}

static void check_base64(const uint8_t *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t need = (size + 2) / 3 * 4, i, at = 0;
    char *text = (char *)malloc(need + 1);
    unsigned char *in = copy(data, size);
    uint32_t bits = 0;
    CHECK(text && sbxi_base64(in, size, text) == need && text[need] == 0);
    for (i = 0; i < need; i++) {
        const char *digit = text[i] == '=' ? digits : strchr(digits, text[i]);
        CHECK(digit && text[i]);
        CHECK(text[i] != '=' || i + (3 - size % 3) % 3 >= need);
        bits = bits << 6 | (uint32_t)(digit - digits);
        if (i % 4 == 3) {
            int byte;
            for (byte = 16; byte >= 0 && at < size; byte -= 8)
                CHECK((bits >> byte & 0xff) == in[at++]);
        }
    }
    CHECK(at == size);
    free(text);
    free(in);
}

static void check_hex(const uint8_t *data, size_t size)
{
    char *text = (char *)malloc(2 * size + 1), pair[3];
    unsigned char *in = copy(data, size);
    size_t i;
    CHECK(text);
    sbxi_hex(text, in, size);
    CHECK(strlen(text) == 2 * size);
    for (i = 0; i < size; i++) {
        snprintf(pair, sizeof(pair), "%02x", in[i]);
        CHECK(memcmp(pair, text + 2 * i, 2) == 0);
    }
    free(text);
    free(in);
}

static void check_number(const uint8_t *data, size_t size)
{
    char *text = (char *)copy(data, size), again[24];
    uint64_t value;
    size_t skip = 0;
    if (sbxi_parse_uint(text, size, &value)) {
        while (skip + 1 < size && text[skip] == '0')
            skip++;
        CHECK(snprintf(again, sizeof(again), "%llu", (unsigned long long)value) ==
              (int)(size - skip));
        CHECK(memcmp(again, text + skip, size - skip) == 0);
    }
    free(text);
}

static void check_date(const uint8_t *data, size_t size)
{
    static const char *const forms[] = {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT",
                                        "%a %b %e %H:%M:%S %Y"};
    char *text = (char *)copy(data, size), again[80];
    int64_t ms, ms_again;
    size_t i, len;
    if (sbxi_parse_http_date(text, size, &ms)) {
        time_t seconds = (time_t)(ms / 1000);
        struct tm *t = gmtime(&seconds);
        CHECK(ms % 1000 == 0 && t && size < sizeof(again));
        /* Years below 1000 are not padded by strftime; two digits are for 1970 to 2069. */
        for (i = 0; i < 3 && t->tm_year >= -900 && t->tm_year <= 8099; i++) {
            if (i == 1 && (t->tm_year < 70 || t->tm_year > 169))
                continue;
            len = strftime(again, sizeof(again), forms[i], t);
            CHECK(len > 0 && sbxi_parse_http_date(again, len, &ms_again) && ms_again == ms);
        }
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t skip;
    if (size < 2)
        return 0;
    /* Where text starts in relation to its blocks matters: repeat some of it after ASCII. */
    check_utf8(data + 2, size - 2, 1 + data[0] % 70);
    for (skip = 0; skip < 40; skip += 1 + data[1] % 16) {
        unsigned char text[256];
        size_t len = size - 2 < sizeof(text) - skip ? size - 2 : sizeof(text) - skip;
        memset(text, 'a', sizeof(text));
        memcpy(text + skip, data + 2, len);
        check_utf8(text, data[0] & 1 ? sizeof(text) : skip + len, 1 + data[0] % 70);
    }
    check_base64(data + 2, size - 2);
    check_hex(data + 2, size - 2);
    check_number(data + 2, size - 2);
    check_date(data + 2, size - 2);
    return 0;
}
