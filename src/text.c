/* text: UTF-8, numbers, dates and the small encodings that the codecs need.

   Promises: no allocation, no locale; reads nothing beyond the length it is given. The UTF-8 check
   says no at the very byte that makes the text impossible. Calls nothing but libc's memory
   functions. */
#include "internal.h"

/* ---- 16 bytes at a time ---- */

#ifndef SBX_NO_SIMD
#if defined(__SSE2__) || defined(_M_X64) || (defined(_M_IX86_FP) && _M_IX86_FP >= 2)
#include <emmintrin.h>
#define SBXI_SIMD
typedef __m128i sbxi_v16;
#define SBXI_V_LOAD(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define SBXI_V_STORE(p, a) _mm_storeu_si128((__m128i *)(void *)(p), a)
#define SBXI_V_FILL(byte) _mm_set1_epi8((char)(byte))
#define SBXI_V_AND(a, b) _mm_and_si128(a, b)
#define SBXI_V_OR(a, b) _mm_or_si128(a, b)
#define SBXI_V_XOR(a, b) _mm_xor_si128(a, b)
#define SBXI_V_MAX(a, b) _mm_max_epu8(a, b)        /* unsigned */
#define SBXI_V_MINUS(a, b) _mm_subs_epu8(a, b)     /* unsigned, 0 instead of less */
#define SBXI_V_EQUAL(a, b) _mm_cmpeq_epi8(a, b)    /* 0xff where so */
#define SBXI_V_ABOVE(a, b) _mm_cmpgt_epi8(a, b)    /* signed; 0xff where so */
#define SBXI_V_HIGH(a) (_mm_movemask_epi8(a) != 0) /* whether a byte is 0x80 or more */
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#define SBXI_SIMD
typedef uint8x16_t sbxi_v16;
#define SBXI_V_LOAD(p) vld1q_u8((const unsigned char *)(p))
#define SBXI_V_STORE(p, a) vst1q_u8((unsigned char *)(p), a)
#define SBXI_V_FILL(byte) vdupq_n_u8((unsigned char)(byte))
#define SBXI_V_AND(a, b) vandq_u8(a, b)
#define SBXI_V_OR(a, b) vorrq_u8(a, b)
#define SBXI_V_XOR(a, b) veorq_u8(a, b)
#define SBXI_V_MAX(a, b) vmaxq_u8(a, b)
#define SBXI_V_MINUS(a, b) vqsubq_u8(a, b)
#define SBXI_V_EQUAL(a, b) vceqq_u8(a, b)
#define SBXI_V_ABOVE(a, b) vcgtq_s8(vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b))
#define SBXI_V_HIGH(a) (vmaxvq_u8(a) >= 0x80)
#endif
#endif

/* ---- UTF-8 ---- */

/* A state other than 0 is: how many bytes the character still needs, and the lowest and the highest
   value that the next of them may have. Only the byte after the first has bounds of its own: they
   keep out overlong forms, surrogates and what lies beyond U+10FFFF. */
#define SBXI_UTF8_STATE(need, low, high)                                                           \
    ((uint32_t)(need) << 16 | (uint32_t)(low) << 8 | (uint32_t)(high))
#define SBXI_UTF8_BAD SBXI_UTF8_STATE(1, 0xff, 0) /* no byte is in these bounds */

/* The state after the first byte of a character, which is not ASCII. */
static uint32_t sbxi_utf8_lead(unsigned char lead)
{
    if (lead < 0xc2)
        return SBXI_UTF8_BAD;
    if (lead < 0xe0)
        return SBXI_UTF8_STATE(1, 0x80, 0xbf);
    if (lead < 0xf0)
        return SBXI_UTF8_STATE(2, lead == 0xe0 ? 0xa0 : 0x80, lead == 0xed ? 0x9f : 0xbf);
    if (lead < 0xf5)
        return SBXI_UTF8_STATE(3, lead == 0xf0 ? 0x90 : 0x80, lead == 0xf4 ? 0x8f : 0xbf);
    return SBXI_UTF8_BAD;
}

/* One byte more. */
static uint32_t sbxi_utf8_step(uint32_t state, unsigned char byte)
{
    uint32_t need = state >> 16;
    if (state == 0)
        return byte < 0x80 ? 0 : sbxi_utf8_lead(byte);
    if (byte < (state >> 8 & 0xff) || byte > (state & 0xff))
        return SBXI_UTF8_BAD;
    return need > 1 ? SBXI_UTF8_STATE(need - 1, 0x80, 0xbf) : 0;
}

#ifdef SBXI_SIMD
#define SBXI_UTF8_RUN 16

/* Whether one of 16 bytes cannot stand where it stands. before1 to before3 are the bytes that lie
   one, two and three places before each of them. */
static int sbxi_utf8_is_bad(sbxi_v16 bytes, sbxi_v16 before1, sbxi_v16 before2, sbxi_v16 before3)
{
    /* Continuations stand exactly where a lead before them asks for one. */
    sbxi_v16 wanted = SBXI_V_OR(SBXI_V_OR(SBXI_V_MINUS(before1, SBXI_V_FILL(0xbf)),
                                          SBXI_V_MINUS(before2, SBXI_V_FILL(0xdf))),
                                SBXI_V_MINUS(before3, SBXI_V_FILL(0xef)));
    sbxi_v16 bad =
        SBXI_V_EQUAL(SBXI_V_EQUAL(wanted, SBXI_V_FILL(0)), SBXI_V_ABOVE(SBXI_V_FILL(0xc0), bytes));
    /* Leads that never occur: C0, C1, F5 to FF. */
    bad = SBXI_V_OR(bad, SBXI_V_EQUAL(SBXI_V_AND(bytes, SBXI_V_FILL(0xfe)), SBXI_V_FILL(0xc0)));
    bad = SBXI_V_OR(bad, SBXI_V_EQUAL(SBXI_V_MAX(bytes, SBXI_V_FILL(0xf5)), bytes));
    /* Overlong forms, surrogates, and what lies beyond U+10FFFF. */
    bad = SBXI_V_OR(bad, SBXI_V_AND(SBXI_V_EQUAL(before1, SBXI_V_FILL(0xe0)),
                                    SBXI_V_ABOVE(SBXI_V_FILL(0xa0), bytes)));
    bad = SBXI_V_OR(bad, SBXI_V_AND(SBXI_V_EQUAL(before1, SBXI_V_FILL(0xed)),
                                    SBXI_V_ABOVE(bytes, SBXI_V_FILL(0x9f))));
    bad = SBXI_V_OR(bad, SBXI_V_AND(SBXI_V_EQUAL(before1, SBXI_V_FILL(0xf0)),
                                    SBXI_V_ABOVE(SBXI_V_FILL(0x90), bytes)));
    bad = SBXI_V_OR(bad, SBXI_V_AND(SBXI_V_EQUAL(before1, SBXI_V_FILL(0xf4)),
                                    SBXI_V_ABOVE(bytes, SBXI_V_FILL(0x8f))));
    return SBXI_V_HIGH(bad);
}

/* The end of the ASCII text at p, as far as it goes in steps of 64 bytes. */
static const unsigned char *sbxi_ascii(const unsigned char *p, const unsigned char *end)
{
    for (; end - p >= 64; p += 64) {
        sbxi_v16 all = SBXI_V_OR(SBXI_V_OR(SBXI_V_LOAD(p), SBXI_V_LOAD(p + 16)),
                                 SBXI_V_OR(SBXI_V_LOAD(p + 32), SBXI_V_LOAD(p + 48)));
        if (SBXI_V_HIGH(all))
            break;
    }
    return p;
}

/* Checks text that starts between two characters and has at least SBXI_UTF8_RUN bytes, all or most
   of it. Returns where the first character starts that is not checked; 0 if there is a bad byte. */
static size_t sbxi_utf8_run(const unsigned char *text, size_t len)
{
    const unsigned char *end = text + (len < 19 ? 16 : len), *stop;
    const unsigned char *p = sbxi_ascii(text, end);
    sbxi_v16 bytes = SBXI_V_LOAD(text);
    if (p == text) {
        unsigned char first[19] = {0}; /* nothing lies before the first block */
        memcpy(first + 3, text, 16);
        if (SBXI_V_HIGH(bytes) && sbxi_utf8_is_bad(bytes, SBXI_V_LOAD(first + 2),
                                                   SBXI_V_LOAD(first + 1), SBXI_V_LOAD(first)))
            return 0;
        p += 16;
    }
    while (p < end) {
        if (p[-1] < 0x80)
            p = sbxi_ascii(p, end);
        if (end - p < 16)
            p = end - 16; /* at the end, some bytes are checked twice */
        stop = p + (end - p < 64 ? (end - p) & ~15 : 64);
        for (; p < stop; p += 16) {
            bytes = SBXI_V_LOAD(p);
            if ((SBXI_V_HIGH(bytes) || p[-1] >= 0x80) &&
                sbxi_utf8_is_bad(bytes, SBXI_V_LOAD(p - 1), SBXI_V_LOAD(p - 2), SBXI_V_LOAD(p - 3)))
                return 0;
        }
    }
    for (p = end; end - p < 3 && p[-1] >= 0x80; p--) {
        if (p[-1] >= 0xc0)
            return (size_t)(p - 1 - text);
    }
    return (size_t)(end - text);
}
#else
#define SBXI_UTF8_RUN 8

/* The end of the ASCII text at p. */
static const unsigned char *sbxi_ascii(const unsigned char *p, const unsigned char *end)
{
    const uint64_t high = UINT64_C(0x8080808080808080);
    uint64_t word[4];
    for (; end - p >= 32; p += 32) {
        memcpy(word, p, 32);
        if ((word[0] | word[1] | word[2] | word[3]) & high)
            break;
    }
    for (; end - p >= 8; p += 8) {
        memcpy(word, p, 8);
        if (word[0] & high)
            break;
    }
    while (p < end && *p < 0x80)
        p++;
    return p;
}

/* Checks text that starts between two characters and has at least SBXI_UTF8_RUN bytes, all or most
   of it. Returns where the first character starts that is not checked; 0 if there is a bad byte. */
static size_t sbxi_utf8_run(const unsigned char *text, size_t len)
{
    const unsigned char *p = text, *last = text + len - 4;
    uint32_t v; /* four bytes, the first one lowest */
    while (p <= last) {
        v = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        if ((v & 0x80) == 0) {
            p = v & 0x8000 ? p + 1 : sbxi_ascii(p, last + 4);
        } else if ((v & 0x20) == 0) {
            if ((v & 0xc0e0) != 0x80c0 || (v & 0x1e) == 0)
                return 0;
            p += 2;
        } else if ((v & 0x10) == 0) {
            if ((v & 0xc0c0f0) != 0x8080e0 || (v & 0x200f) == 0 || (v & 0x200f) == 0x200d)
                return 0;
            p += 3;
        } else {
            if ((v & 0xc0c0c0f8) != 0x808080f0 || (v & 0x3007) == 0 || ((v & 4) && (v & 0x3003)))
                return 0;
            p += 4;
        }
    }
    return (size_t)(p - text);
}
#endif

SBX_API int sbx_utf8_check(sbx_utf8 *u, const void *data, size_t len)
{
    const unsigned char *p = (const unsigned char *)data;
    uint32_t state = u->state;
    size_t at = 0, run;
    while (at < len && state != 0 && state != SBXI_UTF8_BAD)
        state = sbxi_utf8_step(state, p[at++]);
    if (state == 0 && len - at >= SBXI_UTF8_RUN) {
        run = sbxi_utf8_run(p + at, len - at);
        if (run == 0)
            state = SBXI_UTF8_BAD;
        at += run;
    }
    while (at < len && state != SBXI_UTF8_BAD) {
        if (state == 0 && p[at] < 0x80)
            at++;
        else
            state = sbxi_utf8_step(state, p[at++]);
    }
    u->state = state;
    return state != SBXI_UTF8_BAD;
}

/* ---- comparing and numbers ---- */

/* 1 if the a_len bytes of a are b, whatever the case of ASCII letters. */
static int sbxi_equal_nocase(const char *a, size_t a_len, const char *b)
{
    size_t i;
    if (strlen(b) != a_len)
        return 0;
    for (i = 0; i < a_len; i++) {
        unsigned x = (unsigned char)a[i], y = (unsigned char)b[i];
        if (x - 'A' < 26)
            x += 'a' - 'A';
        if (y - 'A' < 26)
            y += 'a' - 'A';
        if (x != y)
            return 0;
    }
    return 1;
}

/* Decimal digits and nothing else, at least one. 0 for anything else and for what does not fit. */
static int sbxi_parse_uint(const char *text, size_t len, uint64_t *out)
{
    uint64_t value = 0;
    size_t i;
    for (i = 0; i < len; i++) {
        unsigned digit = (unsigned char)text[i] - (unsigned)'0';
        if (digit > 9 || value > (UINT64_MAX - digit) / 10)
            return 0;
        value = value * 10 + digit;
    }
    *out = value;
    return len > 0;
}

/* ---- dates ---- */

/* Which of the `count` names of three letters that make up `names` stands at text; -1 if none. */
static int sbxi_find_name(const char *text, const char *names, int count)
{
    int i;
    for (i = 0; i < count; i++) {
        if (memcmp(text, names + 3 * i, 3) == 0)
            return i;
    }
    return -1;
}

/* The year's days that lie before the month's first day, January being 0. */
static int64_t sbxi_days_before(int month, int leap)
{
    static const short days[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
    return days[month] + (month >= 2 && leap);
}

/* Milliseconds since 1970 of a date whose parts are in range but for the day, which is checked. */
static int sbxi_date_to_ms(uint64_t year, int month, uint64_t day, uint64_t second, int64_t *out)
{
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    int64_t y = (int64_t)year + 399; /* the calendar repeats after 400 years: no negative numbers */
    int64_t days = ((int64_t)year - 1970) * 365 + y / 4 - y / 100 + y / 400 - 574;
    if (day < 1 || (int64_t)day > sbxi_days_before(month + 1, leap) - sbxi_days_before(month, leap))
        return 0;
    days += sbxi_days_before(month, leap) + (int64_t)day - 1;
    *out = (days * 86400 + (int64_t)second) * 1000;
    return 1;
}

enum { SBXI_DAY, SBXI_YEAR, SBXI_HOUR, SBXI_MINUTE, SBXI_SECOND, SBXI_MONTH, SBXI_DATE_FIELDS };

/* Reads text as the pattern says, in which MMM stands for a month's name, D Y h m s for a digit of
   the day, year, hour, minute, second, d for one that may be a space, and the rest for itself. */
static int sbxi_match_date(const char *text, size_t len, const char *pattern,
                           uint64_t field[SBXI_DATE_FIELDS])
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static const char digits[] = "DYhms";
    size_t i;
    memset(field, 0, SBXI_DATE_FIELDS * sizeof(*field));
    if (len != strlen(pattern))
        return 0;
    for (i = 0; i < len; i++) {
        char want = pattern[i] == 'd' ? 'D' : pattern[i];
        const char *kind = (const char *)memchr(digits, want, sizeof(digits) - 1);
        if (kind) {
            uint64_t *value = &field[kind - digits];
            char byte = pattern[i] == 'd' && text[i] == ' ' ? '0' : text[i];
            if (byte < '0' || byte > '9')
                return 0;
            *value = *value * 10 + (uint64_t)(byte - '0');
        } else if (want == 'M' && pattern[i + 1] == 'M') {
            int month = sbxi_find_name(text + i, months, 12);
            if (month < 0)
                return 0;
            field[SBXI_MONTH] = (uint64_t)month;
            i += 2;
        } else if (text[i] != want) {
            return 0;
        }
    }
    return 1;
}

/* The three forms of RFC 9110, 5.6.7. Years of two digits are 1970 to 2069: that needs no clock.
   The day of the week must be one, but need not be the right one. 1 if the date is valid. */
static int sbxi_parse_http_date(const char *text, size_t len, int64_t *out_ms)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char *const endings[] = {"day", "day", "sday", "nesday", "rsday", "day", "urday"};
    uint64_t field[SBXI_DATE_FIELDS];
    int weekday = len < 4 ? -1 : sbxi_find_name(text, days, 7);
    if (weekday < 0)
        return 0;
    if (text[3] == ',') {
        if (!sbxi_match_date(text + 3, len - 3, ", DD MMM YYYY hh:mm:ss GMT", field))
            return 0;
    } else if (text[3] == ' ') {
        if (!sbxi_match_date(text + 3, len - 3, " MMM dD hh:mm:ss YYYY", field))
            return 0;
    } else {
        size_t rest = strlen(endings[weekday]), at = 3 + rest;
        if (len < at || memcmp(text + 3, endings[weekday], rest) != 0 ||
            !sbxi_match_date(text + at, len - at, ", DD-MMM-YY hh:mm:ss GMT", field))
            return 0;
        field[SBXI_YEAR] += field[SBXI_YEAR] < 70 ? 2000 : 1900;
    }
    if (field[SBXI_HOUR] > 23 || field[SBXI_MINUTE] > 59 || field[SBXI_SECOND] > 60)
        return 0;
    return sbxi_date_to_ms(field[SBXI_YEAR], (int)field[SBXI_MONTH], field[SBXI_DAY],
                           field[SBXI_HOUR] * 3600 + field[SBXI_MINUTE] * 60 + field[SBXI_SECOND],
                           out_ms);
}

/* ---- hexadecimal, base64, UUID, SHA-1 ---- */

#if !defined(SBX_NO_CONTROL) || !defined(SBX_NO_FILES) || !defined(SBX_NO_WEBSOCKET)
/* Writes 2 * len digits in lower case and a final 0. */
static void sbxi_hex(char *out, const unsigned char *in, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    size_t i;
    for (i = 0; i < len; i++) {
        *out++ = digits[in[i] >> 4];
        *out++ = digits[in[i] & 15];
    }
    *out = 0;
}
#endif

#ifndef SBX_NO_WEBSOCKET
/* Writes (len + 2) / 3 * 4 characters, with padding, and a final 0; returns their number. */
static size_t sbxi_base64(const unsigned char *in, size_t len, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t at = 0, i;
    for (i = 0; i < len; i += 3) {
        size_t have = len - i;
        unsigned second = have > 1 ? in[i + 1] : 0, third = have > 2 ? in[i + 2] : 0;
        unsigned bits = (unsigned)in[i] << 16 | second << 8 | third;
        out[at++] = digits[bits >> 18];
        out[at++] = digits[bits >> 12 & 63];
        out[at++] = have > 1 ? digits[bits >> 6 & 63] : '=';
        out[at++] = have > 2 ? digits[bits & 63] : '=';
    }
    out[at] = 0;
    return at;
}

/* A UUID of version 7 (RFC 9562): the time, then random bits. */
static void sbxi_uuid7(char out[37], int64_t wall_ms, const unsigned char random[10])
{
    unsigned char id[16];
    char digits[33];
    int i;
    for (i = 0; i < 6; i++)
        id[i] = (unsigned char)((uint64_t)wall_ms >> (40 - 8 * i) & 0xff);
    memcpy(id + 6, random, 10);
    id[6] = (unsigned char)((id[6] & 0x0f) | 0x70); /* version */
    id[8] = (unsigned char)((id[8] & 0x3f) | 0x80); /* variant */
    sbxi_hex(digits, id, sizeof(id));
    for (i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20)
            *out++ = '-';
        *out++ = digits[i];
    }
    *out = 0;
}

static uint32_t sbxi_rotate(uint32_t value, int by)
{
    return value << by | value >> (32 - by);
}

/* Works one block of 64 bytes into the state (FIPS 180-4). */
static void sbxi_sha1_block(uint32_t state[5], const unsigned char *block)
{
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f, k, t;
    int i;
    for (i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (; i < 80; i++)
        w[i] = sbxi_rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (i = 0; i < 80; i++) {
        if (i < 20) {
            f = (b & c) | (~b & d);
            k = 0x5a827999;
        } else if (i < 40) {
            f = b ^ c ^ d;
            k = 0x6ed9eba1;
        } else if (i < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8f1bbcdc;
        } else {
            f = b ^ c ^ d;
            k = 0xca62c1d6;
        }
        t = sbxi_rotate(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = sbxi_rotate(b, 30);
        b = a;
        a = t;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

/* Only for the WebSocket handshake, which asks for SHA-1 and needs no strength of it. */
static void sbxi_sha1(const void *data, size_t len, unsigned char out[20])
{
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    const unsigned char *p = (const unsigned char *)data;
    unsigned char last[128];
    uint64_t bits = (uint64_t)len * 8;
    size_t left = len, padded, i;
    for (; left >= 64; left -= 64, p += 64)
        sbxi_sha1_block(state, p);
    padded = left < 56 ? 64 : 128;
    memset(last, 0, sizeof(last));
    if (left)
        memcpy(last, p, left);
    last[left] = 0x80;
    for (i = 0; i < 8; i++)
        last[padded - 1 - i] = (unsigned char)(bits >> (8 * i) & 0xff);
    for (i = 0; i < padded; i += 64)
        sbxi_sha1_block(state, last + i);
    for (i = 0; i < 20; i++)
        out[i] = (unsigned char)(state[i / 4] >> (24 - 8 * (i % 4)) & 0xff);
}
#endif
