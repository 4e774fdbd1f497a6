/* HTTP/1.1 messages. The first bytes of the input choose the role, the length of scratch and the cuts.

   Any bytes: read in pieces they give what they give in one, whatever the pieces. A body made from
   the bytes: the chunks that it is written in are read back. */
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

/* What a reader has seen. A body counts as one event, wherever it was cut. */
typedef struct seen {
    bytes events, body;
    size_t rest;
    sbx_status status;
    const char *problem;
} seen;

static void end_body(seen *s)
{
    if (s->body.len)
        append_text(&s->events, s->body.data, s->body.len);
    s->body.len = 0;
}

static void see(seen *s, const sbx_http1_event *e, int keep_alive)
{
    if (e->type == SBX_HTTP1_BODY) {
        CHECK(e->len > 0);
        append(&s->body, e->data, e->len);
        return;
    }
    CHECK(e->type >= SBX_HTTP1_START && e->type <= SBX_HTTP1_MESSAGE_END && e->len == 0);
    end_body(s);
    append(&s->events, &e->type, sizeof(e->type));
    append(&s->events, &e->status, sizeof(e->status));
    append(&s->events, &e->minor_version, sizeof(e->minor_version));
    append(&s->events, &e->content_length, sizeof(e->content_length));
    append(&s->events, &keep_alive, sizeof(keep_alive));
    append_text(&s->events, e->name, e->name_len);
    append_text(&s->events, e->value, e->value_len);
    if (e->type == SBX_HTTP1_HEADER || e->type == SBX_HTTP1_TRAILER) {
        CHECK(sbxi_http1_token(e->name, e->name_len));
        CHECK(sbxi_http1_value(e->value, e->value_len));
    }
    CHECK(e->type != SBX_HTTP1_START || e->status == 0 || (e->status > 100 && e->status < 1000));
}

typedef struct choice {
    int role, no_body;
    size_t cap;
} choice;

static void read_piece(seen *s, const choice *c, sbx_http1 *h, const char *piece, size_t n)
{
    sbx_http1_event event;
    size_t at = 0, used;
    while ((s->status = sbx_http1_read(h, piece + at, n - at, &used, &event)) == SBX_OK) {
        CHECK(used <= n - at);
        at += used;
        see(s, &event, sbx_http1_keep_alive(h));
        if (event.type == SBX_HTTP1_MESSAGE_END)
            sbx_http1_expect_no_body(h, c->no_body);
    }
    CHECK(used <= n - at);
    CHECK(s->status != SBX_AGAIN || at + used == n);
    if (s->status == SBX_END)
        s->rest += n - at - used;
}

/* Reads wire in pieces of at most `most` bytes, each in a block of its own, so that a sanitizer sees
   what is read beside it. */
static void read_all(seen *s, const choice *c, const bytes *wire, size_t most, uint32_t seed)
{
    char *scratch = (char *)malloc(c->cap ? c->cap : 1);
    sbx_http1 h;
    sbx_http1_event event;
    size_t at = 0, used;
    CHECK(scratch);
    memset(s, 0, sizeof(*s));
    s->status = SBX_AGAIN;
    sbx_http1_init(&h, c->role, scratch, c->cap);
    sbx_http1_expect_no_body(&h, c->no_body);
    while (at < wire->len && s->status > 0) {
        size_t n = most < wire->len ? 1 + next_random(&seed, most) : wire->len;
        char *piece;
        if (n > wire->len - at)
            n = wire->len - at;
        piece = (char *)malloc(n);
        CHECK(piece);
        memcpy(piece, wire->data + at, n);
        read_piece(s, c, &h, piece, n);
        free(piece);
        at += n;
    }
    if (s->status == SBX_AGAIN) {
        while ((s->status = sbx_http1_finish(&h, &event)) == SBX_OK)
            see(s, &event, sbx_http1_keep_alive(&h));
    }
    end_body(s);
    s->problem = h.problem;
    CHECK((s->problem != NULL) == (s->status < 0));
    CHECK(sbx_http1_read(&h, "HTTP/1.1 200 OK\r\n\r\n", 19, &used, &event) == s->status &&
          used == 0);
    CHECK(sbx_http1_finish(&h, &event) == s->status);
    free(scratch);
}

static void forget(seen *s)
{
    free(s->events.data);
    free(s->body.data);
}

static void check_any_bytes(const choice *c, const bytes *wire, size_t most, uint32_t seed)
{
    seen whole, cut;
    read_all(&whole, c, wire, wire->len + 1, 0);
    read_all(&cut, c, wire, most, seed);
    CHECK(whole.status == cut.status && whole.problem == cut.problem);
    CHECK(whole.rest == cut.rest);
    CHECK(same(&whole.events, &cut.events));
    forget(&whole);
    forget(&cut);
}

static void check_chunks(const bytes *body, size_t most, uint32_t seed)
{
    static const char start[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    choice c = {SBX_HTTP1_RESPONSE, 0, 256};
    bytes wire = {NULL, 0, 0};
    seen whole, cut;
    char line[SBX_HTTP1_CHUNK_MAX];
    size_t at = 0, n;
    append(&wire, start, sizeof(start) - 1);
    while (at < body->len) {
        n = 1 + next_random(&seed, most);
        n = n < body->len - at ? n : body->len - at;
        append(&wire, line, sbx_http1_chunk(line, n));
        append(&wire, body->data + at, n);
        append(&wire, "\r\n", 2);
        at += n;
    }
    append(&wire, "0\r\n\r\n", 5);
    read_all(&whole, &c, &wire, wire.len + 1, 0);
    read_all(&cut, &c, &wire, most, seed);
    CHECK(whole.status == SBX_END && cut.status == SBX_END && same(&whole.events, &cut.events));
    /* The body stands before the last event, which has 5 numbers and no texts. */
    n = sizeof(int) * 4 + sizeof(int64_t) + 2 * sizeof(size_t) + body->len;
    CHECK(whole.events.len > n);
    CHECK(body->len == 0 ||
          memcmp(whole.events.data + whole.events.len - n, body->data, body->len) == 0);
    forget(&whole);
    forget(&cut);
    free(wire.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bytes wire = {NULL, 0, 0};
    choice c;
    size_t most;
    uint32_t seed;
    if (size < 4)
        return 0;
    c.role = data[0] & 1 ? SBX_HTTP1_REQUEST : SBX_HTTP1_RESPONSE;
    c.no_body = data[0] >> 1 & 1;
    c.cap = data[0] & 4 ? 16u + data[1] : 4096;
    most = 1 + data[2] % 64;
    seed = data[3];
    append(&wire, data + 4, size - 4);
    check_any_bytes(&c, &wire, most, seed);
    check_any_bytes(&c, &wire, 1, seed);
    check_chunks(&wire, most, seed);
    free(wire.data);
    return 0;
}
