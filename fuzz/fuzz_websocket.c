/* WebSocket frames. The first bytes of the input choose the role, the limit and the cuts.

   Any bytes: read in pieces they give what they give in one. Messages made from the bytes: what
   sbx_ws_header and sbx_ws_mask write is read back in the other role. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

typedef struct bytes {
    unsigned char *data;
    size_t len, cap;
} bytes;

static void append(bytes *b, const void *data, size_t len)
{
    if (len > b->cap - b->len) {
        b->cap = (b->cap + len) * 2;
        b->data = (unsigned char *)realloc(b->data, b->cap);
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

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* What a reader has seen: complete messages and control frames with their opcode and length, and
   the beginning of a message that did not end. */
typedef struct seen {
    bytes events, open;
    sbx_status status;
    int close_code;
    const char *problem;
} seen;

static void add_event(bytes *events, int opcode, int close_code, const void *data, size_t len)
{
    append(events, &opcode, sizeof(opcode));
    append(events, &close_code, sizeof(close_code));
    append(events, &len, sizeof(len));
    append(events, data, len);
}

static void see(seen *s, const sbx_ws_event *event)
{
    if (event->opcode >= SBX_WS_CLOSE) {
        CHECK(event->len <= 125);
        add_event(&s->events, event->opcode, event->close_code, event->data, event->len);
        return;
    }
    CHECK(event->opcode == SBX_WS_TEXT || event->opcode == SBX_WS_BINARY);
    CHECK(event->first == (s->open.len == 0) && (event->len > 0 || event->last));
    append(&s->open, event->data, event->len);
    if (event->last) {
        add_event(&s->events, event->opcode, 0, s->open.data, s->open.len);
        s->open.len = 0;
    }
}

/* Reads wire in pieces of at most `most` bytes, each in a block of its own, so that a sanitizer
   sees what is read or written beside it. */
static void read_all(seen *s, int role, uint64_t limit, const bytes *wire, size_t most,
                     uint32_t seed)
{
    sbx_ws ws;
    sbx_ws_event event;
    size_t at = 0, n, used, piece_at;
    memset(s, 0, sizeof(*s));
    s->status = SBX_AGAIN;
    sbx_ws_init(&ws, role, limit);
    while (at < wire->len && s->status == SBX_AGAIN) {
        unsigned char *piece;
        n = most < wire->len ? 1 + next_random(&seed) % most : wire->len;
        n = n < wire->len - at ? n : wire->len - at;
        piece = (unsigned char *)malloc(n);
        CHECK(piece);
        memcpy(piece, wire->data + at, n);
        for (piece_at = 0;; piece_at += used) {
            s->status = sbx_ws_read(&ws, piece + piece_at, n - piece_at, &used, &event);
            CHECK(used <= n - piece_at);
            if (s->status != SBX_OK)
                break;
            see(s, &event);
        }
        CHECK(s->status != SBX_AGAIN || piece_at + used == n);
        free(piece);
        at += n;
    }
    s->close_code = ws.close_code;
    s->problem = ws.problem;
    CHECK((s->problem != NULL) == (s->status < 0));
    if (s->status < 0)
        CHECK(ws.close_code == 1002 || ws.close_code == 1007 || ws.close_code == 1009);
}

static void forget(seen *s)
{
    free(s->events.data);
    free(s->open.data);
}

static void check_any_bytes(int role, uint64_t limit, const bytes *wire, size_t most, uint32_t seed)
{
    seen whole, cut;
    size_t shorter;
    read_all(&whole, role, limit, wire, wire->len, 0);
    read_all(&cut, role, limit, wire, most, seed);
    CHECK(whole.status == cut.status && whole.close_code == cut.close_code);
    CHECK(whole.problem == cut.problem);
    CHECK(same(&whole.events, &cut.events));
    /* Of a message that turns out to be bad, more or less may have been given. */
    shorter = whole.open.len < cut.open.len ? whole.open.len : cut.open.len;
    CHECK(whole.status < 0 || whole.open.len == cut.open.len);
    CHECK(shorter == 0 || memcmp(whole.open.data, cut.open.data, shorter) == 0);
    forget(&whole);
    forget(&cut);
}

static void write_frame(bytes *wire, int role, int opcode, int fin, const unsigned char *payload,
                        size_t len, uint32_t *seed)
{
    unsigned char head[SBX_WS_HEADER_MAX], key[4], masked[256];
    size_t at, n, i;
    for (i = 0; i < 4; i++)
        key[i] = (unsigned char)(next_random(seed) & 0xff);
    append(wire, head, sbx_ws_header(head, opcode, fin, len, role == SBX_WS_SERVER ? key : NULL));
    for (at = 0; at < len; at += n) {
        n = 1 + next_random(seed) % sizeof(masked);
        n = n < len - at ? n : len - at;
        if (role == SBX_WS_SERVER)
            sbx_ws_mask(masked, payload + at, n, key, at);
        else
            memcpy(masked, payload + at, n);
        append(wire, masked, n);
    }
}

/* Writes one message in fragments with pings between them, and what must be read of it. */
static void write_message(bytes *wire, bytes *expected, int role, const unsigned char *payload,
                          size_t len, uint32_t *seed)
{
    sbx_utf8 utf8 = {0};
    int is_text = sbx_utf8_check(&utf8, payload, len) && utf8.state == 0, fin = 0, frames;
    int opcode = is_text ? SBX_WS_TEXT : SBX_WS_BINARY;
    size_t at = 0, n;
    for (frames = 0; !fin; frames++) {
        n = next_random(seed) % 3 && frames < 20 ? next_random(seed) % (len - at + 1) : len - at;
        fin = at + n == len && (next_random(seed) % 4 || frames > 20);
        write_frame(wire, role, frames == 0 ? opcode : SBX_WS_CONTINUATION, fin, payload + at, n,
                    seed);
        at += n;
        if (!fin && next_random(seed) % 3 == 0) {
            int control = next_random(seed) % 2 ? SBX_WS_PING : SBX_WS_PONG;
            n = len < 125 ? len : 125;
            write_frame(wire, role, control, 1, payload, n, seed);
            add_event(expected, control, 0, payload, n);
        }
    }
    add_event(expected, opcode, 0, payload, len);
}

static void write_close(bytes *wire, bytes *expected, int role, int code, const char *reason,
                        uint32_t *seed)
{
    unsigned char payload[125];
    size_t len = sbx_ws_close_payload(payload, code, reason);
    CHECK(len == 0 || (len >= 2 && len <= sizeof(payload)));
    write_frame(wire, role, SBX_WS_CLOSE, 1, payload, len, seed);
    add_event(expected, SBX_WS_CLOSE, len ? code : 1005, payload + 2, len ? len - 2 : 0);
}

static void check_written(int role, const bytes *source, size_t most, uint32_t seed)
{
    bytes wire = {NULL, 0, 0}, expected = {NULL, 0, 0};
    uint32_t random = seed;
    size_t at = 0, n;
    seen s;
    do {
        n = next_random(&random) % 2 ? source->len - at
                                     : next_random(&random) % (source->len - at + 1);
        write_message(&wire, &expected, role, source->data + at, n, &random);
        at += n;
    } while (at < source->len);
    /* The source ends in a 0: any end of it is a reason. */
    write_close(&wire, &expected, role, (int)(next_random(&random) % 5100),
                (const char *)source->data + next_random(&random) % source->len, &random);
    append(&wire, "more", 4); /* is not read any more */
    read_all(&s, role, source->len, &wire, most, seed);
    CHECK(s.status == SBX_END && s.open.len == 0);
    CHECK(same(&s.events, &expected));
    forget(&s);
    free(wire.data);
    free(expected.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bytes input = {NULL, 0, 0};
    uint64_t limit;
    size_t most;
    uint32_t seed;
    int role;
    if (size < 3)
        return 0;
    role = data[0] & 1 ? SBX_WS_SERVER : SBX_WS_CLIENT;
    limit = data[0] & 2 ? (uint64_t)data[0] >> 2 : UINT64_MAX;
    most = 1 + data[1] % 64;
    seed = data[1] + 256u * data[2];
    append(&input, data + 3, size - 3);
    check_any_bytes(role, limit, &input, most, seed);
    append(&input, "", 1);
    if (data[2] == 0xff) { /* also messages that need the longest form of a length */
        while (input.len < 70000)
            append(&input, data, size);
        input.data[input.len - 1] = 0;
        most *= 1000;
    }
    check_written(role, &input, most, seed);
    free(input.data);
    return 0;
}
