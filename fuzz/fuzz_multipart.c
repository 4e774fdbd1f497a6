/* multipart/form-data. The first bytes of the input choose the cuts.

   Any bytes: the first line is the Content-Type, the rest the body; read in pieces it gives what it
   gives in one. The same bytes as the content of an upload: what is written is read back. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

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

static void append_text(bytes *b, const char *text, size_t len)
{
    append(b, &len, sizeof(len));
    append(b, text, len);
}

static int same(const bytes *a, const bytes *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static size_t next_random(uint32_t *seed, size_t limit)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % limit;
}

/* What a reader has seen. The data of a part count as one event, wherever they were cut. */
typedef struct seen {
    bytes events, data;
    size_t rest;
    sbx_status status;
    const char *problem;
} seen;

static void see(seen *s, const sbx_multipart_event *e)
{
    switch (e->type) {
    case SBX_MULTIPART_PART:
        CHECK(e->name && s->data.len == 0);
        append_text(&s->events, e->name, e->name_len);
        append_text(&s->events, e->filename, e->filename ? e->filename_len : 0);
        break;
    case SBX_MULTIPART_DATA:
        CHECK(e->len > 0);
        append(&s->data, e->data, e->len);
        break;
    case SBX_MULTIPART_PART_END:
        append_text(&s->events, s->data.data, s->data.len);
        s->data.len = 0;
        break;
    default:
        abort();
    }
}

/* Reads wire in pieces of at most `most` bytes, each in a block of its own, so that a sanitizer sees
   what is read beside it. */
static void read_all(seen *s, const char *content_type, size_t content_type_len, const bytes *wire,
                     size_t most, uint32_t seed)
{
    sbx_multipart m;
    sbx_multipart_event event;
    size_t at = 0, used, piece_at;
    memset(s, 0, sizeof(*s));
    s->status = sbx_multipart_init(&m, content_type, content_type_len);
    if (s->status == SBX_OK)
        s->status = SBX_AGAIN;
    while (at < wire->len && s->status > 0) {
        size_t n = most < wire->len ? 1 + next_random(&seed, most) : wire->len;
        char *piece;
        n = n < wire->len - at ? n : wire->len - at;
        piece = (char *)malloc(n);
        CHECK(piece);
        memcpy(piece, wire->data + at, n);
        piece_at = 0;
        while ((s->status = sbx_multipart_read(&m, piece + piece_at, n - piece_at, &used,
                                               &event)) == SBX_OK) {
            CHECK(used <= n - piece_at);
            see(s, &event);
            piece_at += used;
        }
        CHECK(used <= n - piece_at);
        CHECK(s->status != SBX_AGAIN || piece_at + used == n);
        if (s->status == SBX_END)
            s->rest += n - piece_at - used;
        free(piece);
        at += n;
    }
    if (s->status == SBX_AGAIN)
        s->status = sbx_multipart_finish(&m);
    s->problem = m.problem;
    CHECK((s->problem != NULL) == (s->status < 0));
    CHECK(sbx_multipart_read(&m, "--b\r\n", 5, &used, &event) == s->status && used == 0);
    CHECK(sbx_multipart_finish(&m) == s->status);
}

static void check_same(const char *content_type, size_t len, const bytes *wire, size_t most,
                       uint32_t seed, seen *whole)
{
    seen cut;
    read_all(whole, content_type, len, wire, wire->len + 1, 0);
    read_all(&cut, content_type, len, wire, most, seed);
    CHECK(whole->status == cut.status && whole->problem == cut.problem);
    CHECK(whole->rest == cut.rest);
    CHECK(same(&whole->events, &cut.events) && same(&whole->data, &cut.data));
    free(cut.events.data);
    free(cut.data.data);
}

static int holds(const bytes *b, const char *text)
{
    size_t len = strlen(text), i;
    for (i = 0; i + len <= b->len; i++) {
        if (memcmp(b->data + i, text, len) == 0)
            return 1;
    }
    return 0;
}

static void check_upload(const bytes *content, size_t most, uint32_t seed)
{
    static const char type[] = "multipart/form-data; boundary=b0";
    char text[4 * 64], name[16];
    bytes wire = {NULL, 0, 0}, expected = {NULL, 0, 0};
    size_t len = content->len < 15 ? content->len : 15;
    seen whole;
    if (holds(content, "--b0"))
        return;
    if (len)
        memcpy(name, content->data, len);
    name[len] = 0;
    len = sbx_multipart_head(text, sizeof(text), "b0", name, seed & 1 ? name : NULL);
    CHECK(len > 0 && text[len] == 0);
    append(&wire, text, len);
    append(&wire, content->data, content->len);
    len = sbx_multipart_tail(text, sizeof(text), "b0");
    append(&wire, text, len);
    check_same(type, sizeof(type) - 1, &wire, most, seed, &whole);
    CHECK(whole.status == SBX_END && whole.rest == 2);
    append_text(&expected, content->data, content->len);
    CHECK(whole.events.len > expected.len);
    CHECK(memcmp(whole.events.data + whole.events.len - expected.len, expected.data,
                 expected.len) == 0);
    free(whole.events.data);
    free(whole.data.data);
    free(wire.data);
    free(expected.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bytes wire = {NULL, 0, 0};
    const uint8_t *line;
    char *type;
    size_t most, type_len;
    uint32_t seed;
    seen whole;
    if (size < 2)
        return 0;
    most = 1 + data[0] % 64;
    seed = data[1];
    data += 2;
    size -= 2;
    append(&wire, data, size);
    check_upload(&wire, most, seed);
    line = size ? (const uint8_t *)memchr(data, '\n', size) : NULL;
    type_len = line ? (size_t)(line - data) : size;
    type = (char *)malloc(type_len + 1);
    CHECK(type);
    memcpy(type, data, type_len);
    wire.len = 0;
    if (line)
        append(&wire, line + 1, size - type_len - 1);
    check_same(type, type_len, &wire, most, seed, &whole);
    free(whole.events.data);
    free(whole.data.data);
    check_same(type, type_len, &wire, 1, seed, &whole);
    free(whole.events.data);
    free(whole.data.data);
    free(type);
    free(wire.data);
    return 0;
}
