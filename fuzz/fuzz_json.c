/* JSON. The first bytes of the input choose the length of scratch and the cuts.

   Any bytes: read in pieces they give what they give in one, a byte refused is one that cannot
   follow what stands before it, and a document that is taken is written to one that reads the
   same. The bytes as a text, and as a number, are read back as they were written; a number is what
   the C library says it is. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include <stdlib.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

typedef struct bytes {
    char *data;
    size_t len, cap;
} bytes;

static void append(bytes *b, const void *data, size_t len)
{
    if (len > b->cap - b->len) {
        b->cap = (b->cap + len) * 2;
        b->data = (char *)realloc(b->data, b->cap);
        CHECK(b->data);
    }
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
}

static int same(const bytes *a, const bytes *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

/* A copy in a block of its own, so that a sanitizer sees what is read beside it. */
static char *copy(const void *data, size_t len)
{
    char *p = (char *)malloc(len ? len : 1);
    CHECK(p);
    if (len)
        memcpy(p, data, len);
    return p;
}

static size_t next_random(uint32_t *seed, size_t limit)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % limit;
}

/* ---- reading ---- */

typedef struct choice {
    size_t cap, most; /* of scratch; of a piece */
    uint32_t seed;
    int utf8_checked;
} choice;

/* What a reader has seen. A text counts as one event, in however many parts it came. */
typedef struct seen {
    bytes events, text;
    uint64_t offset;
    sbx_status status;
    const char *problem;
    sbx_json_writer *writer; /* NULL, or writes the document anew */
    int infinite;            /* a number was not written, but a text in its place */
} seen;

static void rewrite(seen *s, const sbx_json_event *e)
{
    switch (e->type) {
    case SBX_JSON_OBJECT:
        sbx_json_begin_object(s->writer);
        break;
    case SBX_JSON_OBJECT_END:
        sbx_json_end_object(s->writer);
        break;
    case SBX_JSON_ARRAY:
        sbx_json_begin_array(s->writer);
        break;
    case SBX_JSON_ARRAY_END:
        sbx_json_end_array(s->writer);
        break;
    case SBX_JSON_KEY:
        sbx_json_key_len(s->writer, s->text.data, s->text.len);
        break;
    case SBX_JSON_STRING:
        sbx_json_string(s->writer, s->text.data, s->text.len);
        break;
    case SBX_JSON_TRUE:
        sbx_json_boolean(s->writer, 1);
        break;
    case SBX_JSON_FALSE:
        sbx_json_boolean(s->writer, 0);
        break;
    case SBX_JSON_NULL:
        sbx_json_null(s->writer);
        break;
    case SBX_JSON_INTEGER:
        if (e->integer) {
            sbx_json_integer(s->writer, e->integer);
            break;
        }
        /* fall through */
    case SBX_JSON_NUMBER:
        /* JSON has a number for an infinity only by being too large. */
        if (e->number - e->number == 0)
            sbx_json_number(s->writer, e->number);
        else
            sbx_json_string(s->writer, "", 0);
        s->infinite |= e->number - e->number != 0;
        break;
    }
}

static void see(seen *s, const choice *c, const sbx_json_event *e)
{
    int text = e->type == SBX_JSON_KEY || e->type == SBX_JSON_STRING;
    sbx_utf8 utf8 = {0};
    CHECK(e->type >= SBX_JSON_OBJECT && e->type <= SBX_JSON_NULL);
    CHECK(e->depth >= 0 && e->depth <= SBX_JSON_DEPTH);
    CHECK(text || (!e->text && !e->len && !e->partial));
    CHECK(e->type == SBX_JSON_INTEGER || !e->integer);
    if (text) {
        CHECK(c->utf8_checked || !e->partial || e->len > c->cap - 4);
        CHECK(c->utf8_checked || (sbx_utf8_check(&utf8, e->text, e->len) && utf8.state == 0));
        append(&s->text, e->text, e->len);
        if (e->partial)
            return;
    }
    append(&s->events, &e->type, sizeof(e->type));
    append(&s->events, &e->depth, sizeof(e->depth));
    append(&s->events, &s->text.len, sizeof(s->text.len));
    append(&s->events, s->text.data, s->text.len);
    append(&s->events, &e->integer, sizeof(e->integer));
    append(&s->events, &e->number, sizeof(e->number));
    if (s->writer)
        rewrite(s, e);
    s->text.len = 0;
}

static void read_piece(seen *s, const choice *c, sbx_json *j, const char *piece, size_t n)
{
    sbx_json_event event;
    size_t at = 0, used;
    while ((s->status = sbx_json_read(j, piece + at, n - at, &used, &event)) == SBX_OK) {
        CHECK(used <= n - at);
        at += used;
        see(s, c, &event);
    }
    CHECK(used <= n - at);
    CHECK(s->status < 0 || at + used == n);
}

static void read_all(seen *s, const choice *c, const char *data, size_t size)
{
    char *scratch = (char *)malloc(c->cap);
    uint32_t seed = c->seed;
    sbx_json j;
    sbx_json_event event;
    size_t at = 0, used;
    CHECK(scratch);
    s->status = SBX_AGAIN;
    sbx_json_init(&j, scratch, c->cap);
    j.utf8_checked = c->utf8_checked;
    while (at < size && s->status > 0) {
        size_t n = c->most < size ? 1 + next_random(&seed, c->most) : size;
        char *piece;
        if (n > size - at)
            n = size - at;
        piece = copy(data + at, n);
        read_piece(s, c, &j, piece, n);
        free(piece);
        at += n;
    }
    if (s->status > 0) {
        CHECK(j.offset == size);
        while ((s->status = sbx_json_finish(&j, &event)) == SBX_OK)
            see(s, c, &event);
    }
    s->offset = j.offset;
    s->problem = j.problem;
    CHECK(s->offset <= size);
    CHECK((s->problem != NULL) == (s->status < 0) && (s->status < 0 || s->status == SBX_END));
    CHECK(s->status == SBX_END || sbx_json_read(&j, " ", 1, &used, &event) == s->status);
    CHECK(sbx_json_finish(&j, &event) == s->status);
    free(scratch);
}

static void forget(seen *s)
{
    free(s->events.data);
    free(s->text.data);
}

/* ---- properties ---- */

/* The bytes before the one that was refused must have been taken without it. */
static void check_prefix(const choice *c, const char *data, size_t size)
{
    sbx_json_event event;
    sbx_json j;
    sbx_status status;
    char *scratch = (char *)malloc(c->cap), *piece = copy(data, size);
    size_t at = 0, used;
    CHECK(scratch);
    sbx_json_init(&j, scratch, c->cap);
    while ((status = sbx_json_read(&j, piece + at, size - at, &used, &event)) == SBX_OK)
        at += used;
    CHECK(status > 0);
    free(piece);
    free(scratch);
}

/* Written anew, a number that has an integer's value becomes an integer. */
static void compare_rewritten(const bytes *a, const bytes *b)
{
    size_t at = 0, len;
    CHECK(a->len == b->len);
    while (at < a->len) {
        sbx_json_type one, two;
        int64_t integer;
        double number;
        memcpy(&one, a->data + at, sizeof(one));
        memcpy(&two, b->data + at, sizeof(two));
        at += sizeof(one);
        memcpy(&len, a->data + at + sizeof(int), sizeof(len));
        CHECK(memcmp(a->data + at, b->data + at, sizeof(int) + sizeof(len) + len) == 0);
        at += sizeof(int) + sizeof(len) + len;
        memcpy(&integer, b->data + at, sizeof(integer));
        CHECK(memcmp(a->data + at + sizeof(integer), b->data + at + sizeof(integer),
                     sizeof(number)) == 0);
        memcpy(&number, b->data + at + sizeof(integer), sizeof(number));
        if (one == SBX_JSON_NUMBER && two == SBX_JSON_INTEGER)
            CHECK((double)integer == number && (int64_t)number == integer);
        else
            CHECK(one == two && memcmp(a->data + at, b->data + at, sizeof(integer)) == 0);
        at += sizeof(integer) + sizeof(number);
    }
}

/* Reads the document and writes what it reads into out[cap]; returns the length. */
static size_t rewrite_into(seen *s, const choice *c, const char *data, size_t size, char *out,
                           size_t cap)
{
    sbx_json_writer w;
    size_t len;
    memset(s, 0, sizeof(*s));
    sbx_json_writer_init(&w, out, cap);
    s->writer = &w;
    read_all(s, c, data, size);
    CHECK(s->status == SBX_END && sbx_json_writer_finish(&w, &len) == SBX_OK);
    return len;
}

static void check_rewritten(const choice *c, const char *data, size_t size)
{
    seen first, second, third;
    size_t len = rewrite_into(&first, c, data, size, NULL, 0), cut = len * c->cap / 100;
    char *whole = (char *)malloc(len), *part = (char *)malloc(cut + 1);
    CHECK(whole && part);
    forget(&first);
    CHECK(rewrite_into(&first, c, data, size, whole, len) == len);
    cut = cut < len ? cut : len;
    CHECK(rewrite_into(&second, c, data, size, part, cut) == len);
    CHECK(memcmp(whole, part, cut) == 0);
    forget(&second);
    memset(&third, 0, sizeof(third));
    read_all(&third, c, whole, len);
    CHECK(third.status == SBX_END);
    if (!first.infinite)
        compare_rewritten(&first.events, &third.events);
    forget(&first);
    forget(&third);
    free(whole);
    free(part);
}

static void check_any_bytes(choice *c, const char *data, size_t size)
{
    choice in_one = *c;
    seen whole, cut;
    memset(&whole, 0, sizeof(whole));
    memset(&cut, 0, sizeof(cut));
    in_one.most = size + 1;
    read_all(&whole, &in_one, data, size);
    read_all(&cut, c, data, size);
    CHECK(whole.status == cut.status && whole.offset == cut.offset);
    CHECK((!whole.problem && !cut.problem) || strcmp(whole.problem, cut.problem) == 0);
    CHECK(same(&whole.events, &cut.events));
    forget(&cut);
    /* With the UTF-8 taken for granted, what was good is the same. */
    memset(&cut, 0, sizeof(cut));
    c->utf8_checked = 1;
    read_all(&cut, c, data, size);
    c->utf8_checked = 0;
    CHECK(whole.status != SBX_END || same(&whole.events, &cut.events));
    forget(&cut);
    check_prefix(c, data, (size_t)whole.offset);
    if (whole.status == SBX_END)
        check_rewritten(c, data, size);
    forget(&whole);
}

static void check_text(const choice *c, const char *data, size_t size)
{
    bytes json = {NULL, 0, 0};
    sbx_utf8 utf8 = {0};
    int valid = sbx_utf8_check(&utf8, data, size) && utf8.state == 0;
    sbx_json_writer w;
    seen s;
    size_t len, before = sizeof(sbx_json_type) + sizeof(int) + sizeof(size_t);
    json.data = (char *)malloc(6 * size + 2);
    CHECK(json.data);
    sbx_json_writer_init(&w, json.data, 6 * size + 2);
    sbx_json_string(&w, data, size);
    CHECK(sbx_json_writer_finish(&w, &len) == (valid ? SBX_OK : SBX_E_ARGUMENT));
    if (valid) {
        CHECK(len <= 6 * size + 2);
        memset(&s, 0, sizeof(s));
        read_all(&s, c, json.data, len);
        CHECK(s.status == SBX_END);
        CHECK(s.events.len == before + size + sizeof(int64_t) + sizeof(double));
        CHECK(size == 0 || memcmp(s.events.data + before, data, size) == 0);
        forget(&s);
    }
    free(json.data);
}

static double read_number(const char *text, size_t len)
{
    char scratch[16];
    sbx_json j;
    sbx_json_event event;
    size_t used;
    sbx_json_init(&j, scratch, sizeof(scratch));
    CHECK(sbx_json_read(&j, text, len, &used, &event) == SBX_AGAIN && used == len);
    CHECK(sbx_json_finish(&j, &event) == SBX_OK);
    CHECK(event.type == SBX_JSON_NUMBER || event.type == SBX_JSON_INTEGER);
    return event.number;
}

static int equal_bits(double a, double b)
{
    return memcmp(&a, &b, sizeof(a)) == 0;
}

/* The bytes as a number's text, and the first eight as its bits. */
static void check_number(const char *data, size_t size)
{
    char text[SBX_JSON_NUMBER_MAX + 1];
    double number;
    sbx_json_writer w;
    size_t len;
    seen s;
    choice c = {16, SIZE_MAX, 0, 0};
    if (size >= 8) {
        memcpy(&number, data, 8);
        sbx_json_writer_init(&w, text, 64);
        sbx_json_number(&w, number);
        if (number - number == 0) {
            CHECK(sbx_json_writer_finish(&w, &len) == SBX_OK && len <= 24);
            text[len] = 0;
            CHECK(equal_bits(read_number(text, len), number));
            CHECK(equal_bits(strtod(text, NULL), number));
        } else {
            CHECK(sbx_json_writer_finish(&w, &len) == SBX_E_ARGUMENT && len == 0);
        }
    }
    if (size == 0 || size > SBX_JSON_NUMBER_MAX || !memchr("-0123456789", data[0], 11) ||
        !memchr("0123456789", data[size - 1], 10))
        return;
    memset(&s, 0, sizeof(s));
    read_all(&s, &c, data, size);
    if (s.status == SBX_END) {
        memcpy(text, data, size);
        text[size] = 0;
        CHECK(equal_bits(read_number(text, size), strtod(text, NULL)));
    }
    forget(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    choice c;
    const char *document;
    if (size < 2)
        return 0;
    c.cap = 16 + data[0] % 64;
    c.most = 1 + data[1] % 32;
    c.seed = (uint32_t)(data[0] + 256 * data[1]);
    c.utf8_checked = 0;
    document = (const char *)data + 2;
    size -= 2;
    check_any_bytes(&c, document, size);
    check_text(&c, document, size);
    check_number(document, size);
    return 0;
}
