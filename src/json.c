/* json: reads and writes JSON (RFC 8259).

   Promises: takes what the standard takes and nothing else, and says at which byte a document stops
   being one; numbers are read and written exactly, in any locale and without libc's help; no
   recursion, no allocation. May call text and number. */
#include "internal.h"

/* The few functions that each event goes through: compilers find them too large to inline. */
#if defined(__GNUC__) && !defined(__OPTIMIZE_SIZE__)
#define SBXI_INLINE static inline __attribute__((always_inline))
#define SBXI_NOINLINE static __attribute__((noinline))
#else
#define SBXI_INLINE static
#define SBXI_NOINLINE static
#endif

/* ---- plain text ---- */

/* Most bytes of a text stand for themselves, and are passed over many at a time. The special ones
   are the quote, the backslash and the control characters; foreign ones are not ASCII. */

#define SBXI_JSON_EACH UINT64_C(0x0101010101010101)

/* Eight bytes, the first one lowest whatever the machine's order. */
SBXI_INLINE uint64_t sbxi_json_load(const char *from)
{
    const unsigned char *p = (const unsigned char *)from;
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 |
           (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 |
           (uint64_t)p[7] << 56;
}

/* The highest bit of each byte that is special. A borrow can only reach bytes behind a special one,
   so that the first is always right. */
SBXI_INLINE uint64_t sbxi_json_special(uint64_t word)
{
    uint64_t quote = (word ^ SBXI_JSON_EACH * '"') - SBXI_JSON_EACH;
    uint64_t backslash = (word ^ SBXI_JSON_EACH * '\\') - SBXI_JSON_EACH;
    uint64_t control = word - SBXI_JSON_EACH * 0x20;
    return (quote | backslash | control) & ~word & SBXI_JSON_EACH * 0x80;
}

/* How many bytes stand before the first special one. */
SBXI_INLINE size_t sbxi_json_before(uint64_t special)
{
#if defined(__GNUC__)
    return (size_t)(unsigned)__builtin_ctzll(special) / 8;
#else
    /* One bit for each byte up to the special one, added up by the product. */
    return (size_t)((((special - 1) & ~special & SBXI_JSON_EACH) * SBXI_JSON_EACH) >> 56) - 1;
#endif
}

/* A block is 16 bytes or, without SIMD, such a word. */
#ifdef SBXI_SIMD
typedef sbxi_v16 sbxi_json_block;
#define SBXI_JSON_NONE SBXI_V_FILL(0)
#define SBXI_JSON_LOAD(p) SBXI_V_LOAD(p)
#define SBXI_JSON_STORE(p, block) SBXI_V_STORE(p, block)
#define SBXI_JSON_OR(a, b) SBXI_V_OR(a, b)
#define SBXI_JSON_FOREIGN(block) SBXI_V_HIGH(block)
#define SBXI_JSON_SPECIAL(block) SBXI_JSON_MASK(sbxi_json_special16(block))
#if defined(__aarch64__)
typedef uint64_t sbxi_json_mask; /* four bits for each byte */
#define SBXI_JSON_MASK(where)                                                                      \
    vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(where), 4)), 0)
#define SBXI_JSON_BEFORE(mask) ((size_t)(unsigned)__builtin_ctzll(mask) / 4)
#else
typedef unsigned sbxi_json_mask;
#define SBXI_JSON_MASK(where) ((unsigned)_mm_movemask_epi8(where))
#if defined(__GNUC__)
#define SBXI_JSON_BEFORE(mask) ((size_t)(unsigned)__builtin_ctz(mask))
#else
#define SBXI_JSON_BEFORE(mask) sbxi_json_lowest(mask)
static size_t sbxi_json_lowest(sbxi_json_mask mask)
{
    size_t at = 0;
    while (!(mask >> at & 1))
        at++;
    return at;
}
#endif
#endif

SBXI_INLINE sbxi_v16 sbxi_json_special16(sbxi_v16 block)
{
    sbxi_v16 control = SBXI_V_EQUAL(SBXI_V_MAX(block, SBXI_V_FILL(0x1f)), SBXI_V_FILL(0x1f));
    sbxi_v16 quote = SBXI_V_EQUAL(block, SBXI_V_FILL('"'));
    sbxi_v16 backslash = SBXI_V_EQUAL(block, SBXI_V_FILL('\\'));
    return SBXI_V_OR(control, SBXI_V_OR(quote, backslash));
}
#else
typedef uint64_t sbxi_json_block;
typedef uint64_t sbxi_json_mask;
#define SBXI_JSON_NONE 0
#define SBXI_JSON_LOAD(p) sbxi_json_load(p)
#define SBXI_JSON_STORE(p, block) sbxi_json_store(p, block)
#define SBXI_JSON_OR(a, b) ((a) | (b))
#define SBXI_JSON_FOREIGN(block) (((block)&SBXI_JSON_EACH * 0x80) != 0)
#define SBXI_JSON_SPECIAL(block) sbxi_json_special(block)
#define SBXI_JSON_BEFORE(mask) sbxi_json_before(mask)

SBXI_INLINE void sbxi_json_store(char *to, uint64_t word)
{
    unsigned char *p = (unsigned char *)to;
    p[0] = (unsigned char)(word & 0xff);
    p[1] = (unsigned char)(word >> 8 & 0xff);
    p[2] = (unsigned char)(word >> 16 & 0xff);
    p[3] = (unsigned char)(word >> 24 & 0xff);
    p[4] = (unsigned char)(word >> 32 & 0xff);
    p[5] = (unsigned char)(word >> 40 & 0xff);
    p[6] = (unsigned char)(word >> 48 & 0xff);
    p[7] = (unsigned char)(word >> 56);
}
#endif

static int sbxi_json_is_special(char c)
{
    return (unsigned char)c < 0x20 || c == '"' || c == '\\';
}

/* How many of the len bytes come before the first special one. *foreign is set to 1 if some of
   these may not be ASCII. */
static size_t sbxi_json_plain(const char *from, size_t len, int *foreign)
{
    sbxi_json_block seen = SBXI_JSON_NONE, block;
    sbxi_json_mask mask = 0;
    size_t at = 0;
    for (; !mask && len - at >= sizeof(block);
         at += mask ? SBXI_JSON_BEFORE(mask) : sizeof(block)) {
        block = SBXI_JSON_LOAD(from + at);
        mask = SBXI_JSON_SPECIAL(block);
        seen = SBXI_JSON_OR(seen, block);
    }
    *foreign |= SBXI_JSON_FOREIGN(seen);
    for (; at < len && !sbxi_json_is_special(from[at]); at++)
        *foreign |= (unsigned char)from[at] >= 0x80;
    return at;
}

/* ---- numbers ---- */

/* 1 and the value if a valid number is an integer that fits. */
static int sbxi_json_to_integer(const char *text, size_t len, int64_t *out)
{
    int minus = text[0] == '-';
    uint64_t value;
    if (!sbxi_parse_uint(text + minus, len - (size_t)minus, &value) ||
        value > (uint64_t)INT64_MAX + (uint64_t)minus)
        return 0;
    *out = !minus ? (int64_t)value : value == 0 ? 0 : -(int64_t)(value - 1) - 1;
    return 1;
}

static void sbxi_json_convert_number(const sbx_json *j, sbx_json_event *event)
{
    int minus = j->number[0] == '-';
    if (sbxi_json_to_integer(j->number, j->number_len, &event->integer)) {
        event->type = SBX_JSON_INTEGER;
        event->number = (double)event->integer;
        if (event->integer != 0 || !minus)
            return;
    }
    event->number =
        sbxi_number_from_bits(sbxi_number_nearest(j->number + minus, j->number_len - (size_t)minus) |
                            (minus ? SBXI_NUMBER_SIGN : 0));
}

/* ---- reader ---- */

/* What may come next. The writer uses some of them too. */
enum {
    SBXI_JSON_VALUE,
    SBXI_JSON_FIRST_VALUE, /* or the end of the array */
    SBXI_JSON_FIRST_KEY,   /* or the end of the object */
    SBXI_JSON_NEXT_KEY,    /* up to here, a quote begins a text */
    SBXI_JSON_COLON,
    SBXI_JSON_AFTER_VALUE, /* a comma, or the end of the array or object */
    SBXI_JSON_COMPLETE,
    /* The rest of what has begun. */
    SBXI_JSON_IN_KEY,
    SBXI_JSON_IN_STRING,
    SBXI_JSON_IN_NUMBER,
    SBXI_JSON_IN_WORD,
    SBXI_JSON_FAILED
};

/* Where in a text the reader is. */
enum {
    SBXI_JSON_PLAIN,
    SBXI_JSON_ESCAPE,                   /* behind a backslash */
    SBXI_JSON_HEX,                      /* this and the next three: before a digit of \uXXXX */
    SBXI_JSON_PAIR = SBXI_JSON_HEX + 4, /* before the backslash of a pair's second half */
    SBXI_JSON_PAIR_U,                   /* before its u */
    SBXI_JSON_CHARACTER                 /* an escape is complete: code is the character */
};

/* Where in a number the reader is: behind a minus sign, a zero in front, .. */
enum {
    SBXI_JSON_MINUS,
    SBXI_JSON_ZERO,
    SBXI_JSON_DIGITS,
    SBXI_JSON_POINT,
    SBXI_JSON_FRACTION,
    SBXI_JSON_E,
    SBXI_JSON_E_SIGN,
    SBXI_JSON_EXPONENT
};

typedef struct sbxi_json_input {
    const char *at, *end;
} sbxi_json_input;

static sbx_status sbxi_json_fail(sbx_json *j, sbx_status status, const char *problem)
{
    j->problem = problem;
    j->status = status;
    j->state = SBXI_JSON_FAILED;
    return status;
}

static sbx_status sbxi_json_refuse(sbx_json *j, const char *problem)
{
    return sbxi_json_fail(j, SBX_E_PROTOCOL, problem);
}

/* Member by member, here and below: compilers make a slow string instruction of memset. */
SBX_API void sbx_json_init(sbx_json *j, char *scratch, size_t cap)
{
    j->problem = NULL;
    j->offset = 0;
    j->scratch = scratch;
    j->cap = cap;
    j->used = j->given = 0;
    j->arrays = 0;
    j->code = j->high = 0;
    j->utf8_checked = 0;
    j->depth = j->step = 0;
    j->state = SBXI_JSON_VALUE;
    j->status = SBX_OK;
    j->utf8.state = 0;
    j->number_len = 0;
    if (!scratch || cap < 16)
        (void)sbxi_json_fail(j, SBX_E_ARGUMENT, "scratch must have 16 bytes or more");
}

SBXI_INLINE void sbxi_json_give(const sbx_json *j, sbx_json_type type, sbx_json_event *event)
{
    event->type = type;
    event->depth = j->depth;
    event->text = NULL;
    event->len = 0;
    event->partial = 0;
    event->integer = 0;
    event->number = 0;
}

/* The following take what stands at `at`, and return what is behind it. */

/* Behind a key stands a colon, mostly at once. */
SBXI_INLINE const char *sbxi_json_after_key(sbx_json *j, const char *at, const char *end)
{
    int colon = at < end && *at == ':';
    j->state = colon ? SBXI_JSON_VALUE : SBXI_JSON_COLON;
    return at + colon;
}

/* Behind a value stands a comma, mostly at once, or what it is in ends. */
SBXI_INLINE const char *sbxi_json_after_value(sbx_json *j, const char *at, const char *end)
{
    if (j->depth == 0) {
        j->state = SBXI_JSON_COMPLETE;
    } else if (at < end && *at == ',') {
        j->state = j->arrays & 1 ? SBXI_JSON_VALUE : SBXI_JSON_NEXT_KEY;
        at++;
    } else {
        j->state = SBXI_JSON_AFTER_VALUE;
    }
    return at;
}

SBXI_INLINE const char *sbxi_json_give_text(sbx_json *j, int key, const char *text, size_t len,
                                            const char *at, const char *end, sbx_json_event *event)
{
    sbxi_json_give(j, key ? SBX_JSON_KEY : SBX_JSON_STRING, event);
    event->text = text;
    event->len = len;
    return key ? sbxi_json_after_key(j, at, end) : sbxi_json_after_value(j, at, end);
}

/* ---- reader: what most documents consist of ---- */

/* These return NULL, with nothing done, if it is not as simple as they think. */

/* A text of up to 7 bytes, without escapes, where 9 can be read. */
SBXI_INLINE const char *sbxi_json_short_text(sbx_json *j, const char *at, const char *end,
                                             sbx_json_event *event)
{
    uint64_t word = sbxi_json_load(at + 1), special = sbxi_json_special(word);
    size_t n;
    if (!special || (!j->utf8_checked && (word & SBXI_JSON_EACH * 0x80)))
        return NULL;
    n = sbxi_json_before(special);
    if (at[n + 1] != '"')
        return NULL;
    return sbxi_json_give_text(j, j->state >= SBXI_JSON_FIRST_KEY, at + 1, n, at + n + 2, end,
                               event);
}

/* An integer of up to 17 digits that ends in the data. */
SBXI_INLINE const char *sbxi_json_short_integer(sbx_json *j, const char *at, const char *end,
                                                sbx_json_event *event)
{
    int minus = *at == '-';
    const char *first = at + minus, *stop = end - first < 18 ? end : first + 18;
    int64_t value = 0;
    unsigned digit = 0;
    for (at = first; at < stop && (digit = (unsigned char)*at - (unsigned)'0') <= 9; at++)
        value = value * 10 + (int64_t)digit;
    /* Neither digits only, nor none, nor a zero in front of others, nor a minus in front of it. */
    if (digit <= 9 || at == first || (*first == '0' && (minus || at - first > 1)))
        return NULL;
    if (*at == '.' || *at == 'e' || *at == 'E')
        return NULL;
    sbxi_json_give(j, SBX_JSON_INTEGER, event);
    event->integer = minus ? -value : value;
    event->number = (double)event->integer;
    return sbxi_json_after_value(j, at, end);
}

SBXI_INLINE const char *sbxi_json_open(sbx_json *j, int array, const char *at,
                                       sbx_json_event *event)
{
    if (j->depth == SBX_JSON_DEPTH)
        return NULL;
    sbxi_json_give(j, array ? SBX_JSON_ARRAY : SBX_JSON_OBJECT, event);
    j->depth++;
    j->arrays = j->arrays << 1 | (uint64_t)array;
    j->state = array ? SBXI_JSON_FIRST_VALUE : SBXI_JSON_FIRST_KEY;
    return at + 1;
}

SBXI_INLINE const char *sbxi_json_close(sbx_json *j, int array, const char *at, const char *end,
                                        sbx_json_event *event)
{
    int first = array ? SBXI_JSON_FIRST_VALUE : SBXI_JSON_FIRST_KEY;
    if (j->depth == 0 || (int)(j->arrays & 1) != array ||
        (j->state != SBXI_JSON_AFTER_VALUE && j->state != first))
        return NULL;
    j->depth--;
    j->arrays >>= 1;
    sbxi_json_give(j, array ? SBX_JSON_ARRAY_END : SBX_JSON_OBJECT_END, event);
    return sbxi_json_after_value(j, at + 1, end);
}

/* What is neither text nor word. */
SBXI_INLINE const char *sbxi_json_simple(sbx_json *j, const char *at, const char *end,
                                         sbx_json_event *event)
{
    if (*at == '}')
        return sbxi_json_close(j, 0, at, end, event);
    if (*at == ']')
        return sbxi_json_close(j, 1, at, end, event);
    if (j->state > SBXI_JSON_FIRST_VALUE)
        return NULL;
    if (*at == '{')
        return sbxi_json_open(j, 0, at, event);
    if (*at == '[')
        return sbxi_json_open(j, 1, at, event);
    return sbxi_json_short_integer(j, at, end, event);
}

/* ---- reader: texts ---- */

/* The value of a hexadecimal digit; 16 if c is none. */
SBXI_INLINE unsigned sbxi_json_hex(char c)
{
    unsigned digit = (unsigned char)c - (unsigned)'0';
    if (digit <= 9)
        return digit;
    digit = ((unsigned char)c | 0x20u) - (unsigned)'a';
    return digit < 6 ? digit + 10 : 16;
}

/* What the character behind a backslash stands for; 0: nothing, or u. Compilers make a jump of a
   switch, which is hard to predict. */
SBXI_INLINE char sbxi_json_unescape(char c)
{
    static const char from_quote_to_t[] = {
        '"', 0,    0, 0, 0, 0,    0, 0, 0, 0, 0, 0, 0, '/',  0, 0, 0,    0,    0, 0,   0,
        0,   0,    0, 0, 0, 0,    0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0,    0,    0, 0,   0,
        0,   0,    0, 0, 0, 0,    0, 0, 0, 0, 0, 0, 0, 0,    0, 0, '\\', 0,    0, 0,   0,
        0,   '\b', 0, 0, 0, '\f', 0, 0, 0, 0, 0, 0, 0, '\n', 0, 0, 0,    '\r', 0, '\t'};
    unsigned at = (unsigned char)c - (unsigned)'"';
    return at < sizeof(from_quote_to_t) ? from_quote_to_t[at] : 0;
}

static size_t sbxi_json_encode(char *out, uint32_t code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

/* Writes the character of \uXXXX, at most 3 bytes, and returns how many; 0 if it is bad or the
   half of a surrogate pair. */
static size_t sbxi_json_escape_code(const char *from, char *to)
{
    unsigned a = sbxi_json_hex(from[2]), b = sbxi_json_hex(from[3]), c = sbxi_json_hex(from[4]),
             d = sbxi_json_hex(from[5]), code = a << 12 | b << 8 | c << 4 | d;
    if (from[1] != 'u' || (a | b | c | d) > 15 || (code & 0xf800) == 0xd800)
        return 0;
    return sbxi_json_encode(to, code);
}

/* A usual escape, of which 6 bytes can be read: writes its character and goes behind both. 0, with
   nothing done, if it is not usual. */
SBXI_INLINE int sbxi_json_escape(const char **at, char **to)
{
    const char *from = *at;
    char c = sbxi_json_unescape(from[1]);
    size_t n;
    if (c) {
        *(*to)++ = c;
        *at += 2;
        return 1;
    }
    if (memcmp(from + 1, "u001", 4) == 0 && sbxi_json_hex(from[5]) < 16) {
        *(*to)++ = (char)(16 + sbxi_json_hex(from[5])); /* the colours of a terminal */
        *at += 6;
        return 1;
    }
    n = sbxi_json_escape_code(from, *to);
    *to += n;
    *at += n ? 6 : 0;
    return n > 0;
}

/* Copies text from at to `to`, escapes replaced, up to stop at most: until there is something else
   in it. An escape is longer than what it stands for, so that `to` needs no more room than there
   is up to stop. *foreign is set to 1 if some of it may not be ASCII. */
SBXI_INLINE void sbxi_json_copy(const char **from, char **into, const char *stop, int *foreign)
{
    const char *at = *from, *last;
    char *to = *into;
    if ((size_t)(stop - at) >= sizeof(sbxi_json_block) + 6) {
        sbxi_json_block seen = SBXI_JSON_NONE, block;
        sbxi_json_mask mask;
        size_t n;
        last = stop - sizeof(block) - 6; /* from here on, a block and an escape may be too long */
        do {
            block = SBXI_JSON_LOAD(at);
            mask = SBXI_JSON_SPECIAL(block);
            SBXI_JSON_STORE(to, block);
            seen = SBXI_JSON_OR(seen, block);
            n = mask ? SBXI_JSON_BEFORE(mask) : sizeof(block);
            at += n;
            to += n;
        } while ((!mask || (*at == '\\' && sbxi_json_escape(&at, &to))) && at <= last);
        *foreign |= SBXI_JSON_FOREIGN(seen);
    }
    for (; at < stop && !sbxi_json_is_special(*at); *to++ = *at++)
        *foreign |= (unsigned char)*at >= 0x80;
    *from = at;
    *into = to;
}

/* One hexadecimal digit of an escape. Surrogates come in pairs, high before low: what cannot become
   one is refused as early as it shows. Returns the problem, or NULL. */
static const char *sbxi_json_hex_step(sbx_json *j, char c)
{
    uint32_t digit = sbxi_json_hex(c);
    int place = j->step - SBXI_JSON_HEX;
    if (digit > 15)
        return "four hexadecimal digits must follow \\u";
    j->code = j->code << 4 | digit;
    if (j->high ? (place == 0 && j->code != 0xd) || (place == 1 && j->code < 0xdc)
                : place == 1 && j->code >= 0xdc && j->code <= 0xdf)
        return "half a surrogate pair stands alone";
    j->step++;
    if (place < 3)
        return NULL;
    j->step = SBXI_JSON_CHARACTER;
    if (j->high) {
        j->code = 0x10000 + ((j->high & 0x3ff) << 10) + (j->code & 0x3ff);
        j->high = 0;
    } else if (j->code >= 0xd800 && j->code <= 0xdbff) {
        j->high = j->code;
        j->step = SBXI_JSON_PAIR;
    }
    return NULL;
}

/* One byte of an escape. Returns the problem, or NULL. */
static const char *sbxi_json_escape_step(sbx_json *j, char c)
{
    switch (j->step) {
    case SBXI_JSON_ESCAPE:
        j->code = (unsigned char)sbxi_json_unescape(c);
        j->step = j->code ? SBXI_JSON_CHARACTER : SBXI_JSON_HEX;
        return j->code || c == 'u' ? NULL : "there is no such escape";
    case SBXI_JSON_PAIR:
    case SBXI_JSON_PAIR_U:
        if (c != (j->step == SBXI_JSON_PAIR ? '\\' : 'u'))
            return "half a surrogate pair stands alone";
        j->step = j->step == SBXI_JSON_PAIR ? SBXI_JSON_PAIR_U : SBXI_JSON_HEX;
        j->code = 0;
        return NULL;
    default:
        return sbxi_json_hex_step(j, c);
    }
}

/* Goes on with an escape, byte by byte. SBX_OK: it is in scratch. SBX_END: it has no room there. */
static sbx_status sbxi_json_read_escape(sbx_json *j, sbxi_json_input *in)
{
    char bytes[4];
    size_t n;
    for (; j->step != SBXI_JSON_CHARACTER; in->at++) {
        const char *problem;
        if (in->at == in->end)
            return SBX_AGAIN;
        problem = sbxi_json_escape_step(j, *in->at);
        if (problem)
            return sbxi_json_refuse(j, problem);
    }
    n = sbxi_json_encode(bytes, j->code);
    if (n > j->cap - j->used)
        return SBX_END;
    memcpy(j->scratch + j->used, bytes, n);
    j->used += n;
    j->step = SBXI_JSON_PLAIN;
    return SBX_OK;
}

/* Gives what is in scratch, but for the beginning of a character at its end. */
static sbx_status sbxi_json_give_part(sbx_json *j, sbx_json_event *event)
{
    size_t n;
    j->given = j->used;
    for (n = 1; n <= 3 && n <= j->used; n++) {
        unsigned char byte = (unsigned char)j->scratch[j->used - n];
        if (byte < 0xc0)
            continue;
        if (n < (byte < 0xe0 ? 2u : byte < 0xf0 ? 3u : 4u))
            j->given -= n;
        break;
    }
    sbxi_json_give(j, j->state == SBXI_JSON_IN_KEY ? SBX_JSON_KEY : SBX_JSON_STRING, event);
    event->text = j->scratch;
    event->len = j->given;
    event->partial = 1;
    return SBX_OK;
}

/* Copies text into scratch until there is something else in it, or the data ends, or the scratch
   may be full. */
static void sbxi_json_copy_more(sbx_json *j, sbxi_json_input *in, int *foreign)
{
    size_t room = j->cap - j->used, n = (size_t)(in->end - in->at);
    char *to = j->scratch + j->used;
    sbxi_json_copy(&in->at, &to, in->at + (n < room ? n : room), foreign);
    j->used = (size_t)(to - j->scratch);
}

/* Goes on with a text by way of scratch. If it began in this data, at `text`, and has no escapes,
   it is lent from there after all. */
static sbx_status sbxi_json_copy_text(sbx_json *j, sbxi_json_input *in, const char *text,
                                      int *foreign, sbx_json_event *event)
{
    for (;;) {
        size_t n;
        int lent;
        if (j->step != SBXI_JSON_PLAIN) {
            sbx_status status = sbxi_json_read_escape(j, in);
            if (status == SBX_END)
                return sbxi_json_give_part(j, event);
            if (status != SBX_OK)
                return status;
        }
        sbxi_json_copy_more(j, in, foreign);
        lent = text && j->used == (size_t)(in->at - text);
        if (lent && j->used == j->cap) {
            n = sbxi_json_plain(in->at, (size_t)(in->end - in->at), foreign);
            if (n < (size_t)(in->end - in->at) && in->at[n] == '"')
                in->at += n;
        }
        if (in->at == in->end)
            return SBX_AGAIN;
        if (!sbxi_json_is_special(*in->at)) {
            if (j->used == j->cap)
                return sbxi_json_give_part(j, event);
            continue;
        }
        if ((unsigned char)*in->at < 0x20)
            return sbxi_json_refuse(j, "a control character must be escaped");
        if (*in->at++ == '"') {
            n = lent ? (size_t)(in->at - 1 - text) : j->used;
            in->at = sbxi_json_give_text(j, j->state == SBXI_JSON_IN_KEY, lent ? text : j->scratch,
                                         n, in->at, in->end, event);
            return SBX_OK;
        }
        j->step = SBXI_JSON_ESCAPE;
    }
}

/* Goes on checking UTF-8, from `from` up to where the reader is. If it is bad, goes back to the
   byte that is. */
static int sbxi_json_check_utf8(sbx_json *j, sbxi_json_input *in, const char *from)
{
    uint32_t state = j->utf8.state;
    if (sbx_utf8_check(&j->utf8, from, (size_t)(in->at - from)))
        return 1;
    for (in->at = from;; in->at++) {
        state = sbxi_utf8_step(state, (unsigned char)*in->at);
        if (state == SBXI_UTF8_BAD)
            return 0;
    }
}

/* text is as above. */
static sbx_status sbxi_json_read_text(sbx_json *j, sbxi_json_input *in, const char *text,
                                      sbx_json_event *event)
{
    const char *from = in->at;
    int foreign = 0;
    sbx_status status = sbxi_json_copy_text(j, in, text, &foreign, event);
    if (!j->utf8_checked && (foreign || j->utf8.state) && !sbxi_json_check_utf8(j, in, from))
        return sbxi_json_refuse(j, "the text is not valid UTF-8");
    return status;
}

/* Begins a text, at its quote. */
static sbx_status sbxi_json_begin_text(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    in->at++;
    j->state = j->state <= SBXI_JSON_FIRST_VALUE ? SBXI_JSON_IN_STRING : SBXI_JSON_IN_KEY;
    j->step = SBXI_JSON_PLAIN;
    j->used = 0;
    return sbxi_json_read_text(j, in, in->at, event);
}

/* ---- reader: numbers and words ---- */

/* Where in a number the reader is behind c; -1: the number ended before c. *problem is set if it
   may not end there. */
static int sbxi_json_number_step(int step, char c, const char **problem)
{
    int digit = c >= '0' && c <= '9', e = c == 'e' || c == 'E';
    switch (step) {
    case SBXI_JSON_MINUS:
        if (!digit)
            *problem = "a digit must follow the minus sign";
        return c == '0' ? SBXI_JSON_ZERO : SBXI_JSON_DIGITS;
    case SBXI_JSON_ZERO:
        if (digit)
            *problem = "a number must not begin with a zero that is not all of it";
        return c == '.' ? SBXI_JSON_POINT : e ? SBXI_JSON_E : -1;
    case SBXI_JSON_DIGITS:
        return digit ? SBXI_JSON_DIGITS : c == '.' ? SBXI_JSON_POINT : e ? SBXI_JSON_E : -1;
    case SBXI_JSON_POINT:
        if (!digit)
            *problem = "a digit must follow the decimal point";
        return SBXI_JSON_FRACTION;
    case SBXI_JSON_FRACTION:
        return digit ? SBXI_JSON_FRACTION : e ? SBXI_JSON_E : -1;
    case SBXI_JSON_EXPONENT:
        return digit ? SBXI_JSON_EXPONENT : -1;
    default:
        if (step == SBXI_JSON_E && (c == '+' || c == '-'))
            return SBXI_JSON_E_SIGN;
        if (!digit)
            *problem = "a digit must follow the exponent's e";
        return SBXI_JSON_EXPONENT;
    }
}

static sbx_status sbxi_json_give_number(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    sbxi_json_give(j, SBX_JSON_NUMBER, event);
    sbxi_json_convert_number(j, event);
    in->at = sbxi_json_after_value(j, in->at, in->end);
    return SBX_OK;
}

/* A number ends before the first byte that cannot belong to it. */
static sbx_status sbxi_json_read_number(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    for (; in->at < in->end; in->at++) {
        const char *problem = NULL;
        int step = sbxi_json_number_step(j->step, *in->at, &problem);
        if (problem)
            return sbxi_json_refuse(j, problem);
        if (step < 0)
            return sbxi_json_give_number(j, in, event);
        if (j->number_len == SBX_JSON_NUMBER_MAX)
            return sbxi_json_fail(j, SBX_E_TOO_BIG, "the number is too long");
        j->number[j->number_len++] = *in->at;
        j->step = step;
    }
    return SBX_AGAIN;
}

static sbx_status sbxi_json_begin_number(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    char c = *in->at++;
    j->state = SBXI_JSON_IN_NUMBER;
    j->step = c == '-' ? SBXI_JSON_MINUS : c == '0' ? SBXI_JSON_ZERO : SBXI_JSON_DIGITS;
    j->number[0] = c;
    j->number_len = 1;
    return sbxi_json_read_number(j, in, event);
}

/* code says which word it is, step how much of it was read. */
static sbx_status sbxi_json_read_word(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    static const char *const words[] = {"true", "false", "null"};
    static const sbx_json_type types[] = {SBX_JSON_TRUE, SBX_JSON_FALSE, SBX_JSON_NULL};
    const char *word = words[j->code];
    for (; word[j->step]; j->step++, in->at++) {
        if (in->at == in->end)
            return SBX_AGAIN;
        if (*in->at != word[j->step])
            return sbxi_json_refuse(j, "this is neither true nor false nor null");
    }
    sbxi_json_give(j, types[j->code], event);
    in->at = sbxi_json_after_value(j, in->at, in->end);
    return SBX_OK;
}

/* ---- reader: structure ---- */

/* What is left where a value must come: words, and all that is wrong. */
static sbx_status sbxi_json_read_value(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    char c = *in->at;
    switch (c) {
    case '{':
    case '[':
        return sbxi_json_fail(j, SBX_E_TOO_BIG, "arrays and objects are nested too deep");
    case 't':
    case 'f':
    case 'n':
        j->state = SBXI_JSON_IN_WORD;
        j->code = c == 't' ? 0 : c == 'f' ? 1 : 2;
        j->step = 0;
        return sbxi_json_read_word(j, in, event);
    default:
        break;
    }
    if (c == '-' || (c >= '0' && c <= '9'))
        return sbxi_json_begin_number(j, in, event);
    return sbxi_json_refuse(j, j->state == SBXI_JSON_FIRST_VALUE ? "a value or ] must stand here"
                               : j->depth == 0 && (unsigned char)c == 0xef
                                   ? "a byte order mark must not stand here"
                                   : "a value must stand here");
}

/* Goes on with a text, of which a part may have been given. */
static sbx_status sbxi_json_resume_text(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    if (j->given) {
        j->used -= j->given;
        memmove(j->scratch, j->scratch + j->given, j->used);
        j->given = 0;
    }
    return sbxi_json_read_text(j, in, NULL, event);
}

/* Goes on where no simple event follows, nor a text begins. */
static sbx_status sbxi_json_read_other(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    switch (j->state) {
    case SBXI_JSON_VALUE:
    case SBXI_JSON_FIRST_VALUE:
        return sbxi_json_read_value(j, in, event);
    case SBXI_JSON_FIRST_KEY:
        return sbxi_json_refuse(j, "a key or } must stand here");
    case SBXI_JSON_NEXT_KEY:
        return sbxi_json_refuse(j, "a key must stand here");
    case SBXI_JSON_COLON:
        return sbxi_json_refuse(j, "a colon must follow the key");
    case SBXI_JSON_AFTER_VALUE:
        return sbxi_json_refuse(j, j->arrays & 1 ? "a comma or ] must stand here"
                                                 : "a comma or } must stand here");
    case SBXI_JSON_COMPLETE:
        return sbxi_json_refuse(j, "only white space may follow the document");
    case SBXI_JSON_IN_KEY:
    case SBXI_JSON_IN_STRING:
        return sbxi_json_resume_text(j, in, event);
    case SBXI_JSON_IN_NUMBER:
        return sbxi_json_read_number(j, in, event);
    case SBXI_JSON_IN_WORD:
        return sbxi_json_read_word(j, in, event);
    default:
        return j->status;
    }
}

static int sbxi_json_is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Goes over white space, and the colon or comma that must stand there. */
static const char *sbxi_json_skip(sbx_json *j, const char *at, const char *end)
{
    for (; at < end; at++) {
        if (sbxi_json_is_space(*at))
            continue;
        if (j->state == SBXI_JSON_COLON && *at == ':')
            j->state = SBXI_JSON_VALUE;
        else if (j->state == SBXI_JSON_AFTER_VALUE && *at == ',')
            j->state = j->arrays & 1 ? SBXI_JSON_VALUE : SBXI_JSON_NEXT_KEY;
        else
            break;
    }
    return at;
}

SBXI_NOINLINE sbx_status sbxi_json_read_any(sbx_json *j, const char *start, size_t len,
                                            size_t *used, sbx_json_event *event)
{
    sbxi_json_input in;
    sbx_status status = SBX_OK;
    in.at = start;
    in.end = start + len;
    if (j->state <= SBXI_JSON_COMPLETE)
        in.at = sbxi_json_skip(j, start, in.end);
    if (in.at == in.end && j->state <= SBXI_JSON_COMPLETE) {
        status = j->state == SBXI_JSON_COMPLETE ? SBX_END : SBX_AGAIN;
    } else if (j->state <= SBXI_JSON_NEXT_KEY && *in.at == '"') {
        status = sbxi_json_begin_text(j, &in, event);
    } else {
        const char *at = in.at > start ? sbxi_json_simple(j, in.at, in.end, event) : NULL;
        if (at)
            in.at = at;
        else
            status = sbxi_json_read_other(j, &in, event);
    }
    *used = (size_t)(in.at - start);
    j->offset += *used;
    return status;
}

/* The rest tries what is usual at less cost, and leaves the other cases to sbxi_json_read_any, with
   nothing done. None is inlined into another, so that the simple ones need not save registers. */

/* A text that ends in the data and fits into scratch. */
SBXI_NOINLINE sbx_status sbxi_json_read_whole_text(sbx_json *j, const char *start, size_t len,
                                                   size_t *used, sbx_json_event *event)
{
    const char *at = start + 1;
    char *to = j->scratch;
    sbx_utf8 utf8 = {0};
    size_t n;
    int foreign = 0;
    sbxi_json_copy(&at, &to, start + (len <= j->cap ? len : j->cap), &foreign);
    n = (size_t)(to - j->scratch);
    if (at == start + len || *at != '"' ||
        (foreign && !j->utf8_checked && !sbx_utf8_check(&utf8, start, (size_t)(at - start) + 1)))
        return sbxi_json_read_any(j, start, len, used, event);
    at = sbxi_json_give_text(j, j->state >= SBXI_JSON_FIRST_KEY,
                             n == (size_t)(at - start) - 1 ? start + 1 : j->scratch, n, at + 1,
                             start + len, event);
    *used = (size_t)(at - start);
    j->offset += *used;
    return SBX_OK;
}

SBXI_NOINLINE sbx_status sbxi_json_read_simple(sbx_json *j, const char *start, size_t len,
                                               size_t *used, sbx_json_event *event)
{
    const char *at = sbxi_json_simple(j, start, start + len, event);
    if (!at)
        return sbxi_json_read_any(j, start, len, used, event);
    *used = (size_t)(at - start);
    j->offset += *used;
    return SBX_OK;
}

SBX_API sbx_status sbx_json_read(sbx_json *j, const void *data, size_t len, size_t *used,
                                 sbx_json_event *event)
{
    const char *start = (const char *)data, *at;
    if (len <= 8 || *start != '"' || j->state > SBXI_JSON_NEXT_KEY)
        return len ? sbxi_json_read_simple(j, start, len, used, event)
                   : sbxi_json_read_any(j, "", 0, used, event);
    at = sbxi_json_short_text(j, start, start + len, event);
    if (!at)
        return sbxi_json_read_whole_text(j, start, len, used, event);
    *used = (size_t)(at - start);
    j->offset += *used;
    return SBX_OK;
}

SBX_API sbx_status sbx_json_finish(sbx_json *j, sbx_json_event *event)
{
    sbxi_json_input none = {NULL, NULL};
    if (j->state == SBXI_JSON_FAILED)
        return j->status;
    if (j->state == SBXI_JSON_COMPLETE)
        return SBX_END;
    if (j->state == SBXI_JSON_IN_NUMBER && j->depth == 0 &&
        (j->step == SBXI_JSON_ZERO || j->step == SBXI_JSON_DIGITS ||
         j->step == SBXI_JSON_FRACTION || j->step == SBXI_JSON_EXPONENT))
        return sbxi_json_give_number(j, &none, event);
    return sbxi_json_refuse(j, "the document is cut short");
}

/* ---- writer ---- */

SBX_API void sbx_json_writer_init(sbx_json_writer *w, char *out, size_t cap)
{
    memset(w, 0, sizeof(*w));
    w->out = out;
    w->cap = cap;
}

static void sbxi_json_put(sbx_json_writer *w, const char *text, size_t len)
{
    size_t room = w->len < w->cap ? w->cap - w->len : 0;
    if (len > SIZE_MAX - w->len) {
        w->status = SBX_E_TOO_BIG;
        return;
    }
    if (room > 0)
        memcpy(w->out + w->len, text, len < room ? len : room);
    w->len += len;
}

static void sbxi_json_misused(sbx_json_writer *w)
{
    if (w->status == SBX_OK)
        w->status = SBX_E_ARGUMENT;
}

/* 1 if a value may come next; writes the comma before it. */
static int sbxi_json_before_value(sbx_json_writer *w)
{
    int next = w->state == SBXI_JSON_AFTER_VALUE && (w->arrays & 1);
    if (!next && w->state != SBXI_JSON_VALUE && w->state != SBXI_JSON_FIRST_VALUE)
        sbxi_json_misused(w);
    if (w->status != SBX_OK)
        return 0;
    if (next)
        sbxi_json_put(w, ",", 1);
    return 1;
}

static void sbxi_json_wrote_value(sbx_json_writer *w)
{
    w->state = w->depth ? SBXI_JSON_AFTER_VALUE : SBXI_JSON_COMPLETE;
}

static void sbxi_json_put_value(sbx_json_writer *w, const char *text, size_t len)
{
    if (sbxi_json_before_value(w)) {
        sbxi_json_put(w, text, len);
        sbxi_json_wrote_value(w);
    }
}

/* 1 if text can be written. */
static int sbxi_json_check_text(sbx_json_writer *w, const char *text, size_t len)
{
    sbx_utf8 utf8 = {0};
    if ((!text && len) || !sbx_utf8_check(&utf8, text, len) || utf8.state != 0)
        sbxi_json_misused(w);
    return w->status == SBX_OK;
}

static void sbxi_json_put_escape(sbx_json_writer *w, char c)
{
    static const char digits[] = "0123456789abcdef";
    char escape[6] = {'\\', 'u', '0', '0', 0, 0};
    switch (c) {
    case '\b':
        escape[1] = 'b';
        break;
    case '\f':
        escape[1] = 'f';
        break;
    case '\n':
        escape[1] = 'n';
        break;
    case '\r':
        escape[1] = 'r';
        break;
    case '\t':
        escape[1] = 't';
        break;
    case '"':
    case '\\':
        escape[1] = c;
        break;
    default:
        escape[4] = digits[c >> 4];
        escape[5] = digits[c & 15];
        break;
    }
    sbxi_json_put(w, escape, escape[1] == 'u' ? 6 : 2);
}

static void sbxi_json_put_text(sbx_json_writer *w, const char *text, size_t len)
{
    size_t at = 0, n;
    int foreign = 0;
    sbxi_json_put(w, "\"", 1);
    while (at < len) {
        n = sbxi_json_plain(text + at, len - at, &foreign);
        sbxi_json_put(w, text + at, n);
        at += n;
        if (at < len)
            sbxi_json_put_escape(w, text[at++]);
    }
    sbxi_json_put(w, "\"", 1);
}

static void sbxi_json_begin(sbx_json_writer *w, int array)
{
    if (w->depth == SBX_JSON_DEPTH && w->status == SBX_OK)
        w->status = SBX_E_TOO_BIG;
    if (sbxi_json_before_value(w)) {
        sbxi_json_put(w, array ? "[" : "{", 1);
        w->arrays = w->arrays << 1 | (uint64_t)array;
        w->depth++;
        w->state = array ? SBXI_JSON_FIRST_VALUE : SBXI_JSON_FIRST_KEY;
    }
}

static void sbxi_json_end(sbx_json_writer *w, int array)
{
    int first = array ? SBXI_JSON_FIRST_VALUE : SBXI_JSON_FIRST_KEY;
    if (w->depth == 0 || (int)(w->arrays & 1) != array ||
        (w->state != first && w->state != SBXI_JSON_AFTER_VALUE))
        sbxi_json_misused(w);
    if (w->status == SBX_OK) {
        sbxi_json_put(w, array ? "]" : "}", 1);
        w->arrays >>= 1;
        w->depth--;
        sbxi_json_wrote_value(w);
    }
}

SBX_API void sbx_json_begin_object(sbx_json_writer *w)
{
    sbxi_json_begin(w, 0);
}

SBX_API void sbx_json_end_object(sbx_json_writer *w)
{
    sbxi_json_end(w, 0);
}

SBX_API void sbx_json_begin_array(sbx_json_writer *w)
{
    sbxi_json_begin(w, 1);
}

SBX_API void sbx_json_end_array(sbx_json_writer *w)
{
    sbxi_json_end(w, 1);
}

SBX_API void sbx_json_key_len(sbx_json_writer *w, const char *name, size_t len)
{
    int next = w->state == SBXI_JSON_AFTER_VALUE && !(w->arrays & 1);
    if (!next && w->state != SBXI_JSON_FIRST_KEY)
        sbxi_json_misused(w);
    if (sbxi_json_check_text(w, name, len)) {
        if (next)
            sbxi_json_put(w, ",", 1);
        sbxi_json_put_text(w, name, len);
        sbxi_json_put(w, ":", 1);
        w->state = SBXI_JSON_VALUE;
    }
}

SBX_API void sbx_json_key(sbx_json_writer *w, const char *name)
{
    sbx_json_key_len(w, name, name ? strlen(name) : 1);
}

SBX_API void sbx_json_string(sbx_json_writer *w, const char *text, size_t len)
{
    if (sbxi_json_check_text(w, text, len) && sbxi_json_before_value(w)) {
        sbxi_json_put_text(w, text, len);
        sbxi_json_wrote_value(w);
    }
}

SBX_API void sbx_json_integer(sbx_json_writer *w, int64_t value)
{
    char text[21];
    sbxi_json_put_value(w, text, sbxi_decimal(text, value));
}

SBX_API void sbx_json_number(sbx_json_writer *w, double value)
{
    char text[SBXI_NUMBER_FORMAT_MAX];
    if ((sbxi_number_to_bits(value) & SBXI_NUMBER_INFINITY) == SBXI_NUMBER_INFINITY)
        sbxi_json_misused(w);
    else
        sbxi_json_put_value(w, text, sbxi_number_format(text, value));
}

SBX_API void sbx_json_boolean(sbx_json_writer *w, int value)
{
    sbxi_json_put_value(w, value ? "true" : "false", value ? 4 : 5);
}

SBX_API void sbx_json_null(sbx_json_writer *w)
{
    sbxi_json_put_value(w, "null", 4);
}

SBX_API sbx_status sbx_json_writer_finish(sbx_json_writer *w, size_t *len)
{
    if (w->state != SBXI_JSON_COMPLETE)
        sbxi_json_misused(w);
    if (len)
        *len = w->len;
    return w->status;
}
