/* websocket: the frames of RFC 6455, without extensions, for both ends of a connection.

   Promises: never allocates; payload is lent where it lies, unmasked in place, and only the payload
   of a control frame that comes in pieces is copied. Bad text is refused at the first byte that is
   wrong, a bad header too; the payload of a close frame when it is complete. May call: text. */
#include "internal.h"

#ifndef SBX_NO_WEBSOCKET

SBX_API void sbx_ws_init(sbx_ws *ws, int role, uint64_t limit)
{
    memset(ws, 0, sizeof(*ws));
    ws->role = role;
    ws->limit = limit;
}

static sbx_status sbxi_ws_fail(sbx_ws *ws, int close_code, const char *problem)
{
    ws->problem = problem;
    ws->close_code = close_code;
    ws->status = close_code == 1009 ? SBX_E_TOO_BIG : SBX_E_PROTOCOL;
    return ws->status;
}

/* Whether a close frame may carry this code: registered for that, or left to programs. */
static int sbxi_ws_is_code(int code)
{
    if (code >= 3000)
        return code <= 4999;
    return code >= 1000 && code <= 1014 && (code < 1004 || code > 1006);
}

/* Checks the first have > 0 bytes of a header as far as its second byte. NULL, or what is wrong. */
static const char *sbxi_ws_check(const sbx_ws *ws, const unsigned char *head, size_t have)
{
    unsigned opcode = head[0] & 15u, length;
    if (head[0] & 0x70)
        return "a reserved bit is set in a frame";
    if (opcode <= SBX_WS_BINARY) {
        if (ws->message ? opcode != SBX_WS_CONTINUATION : opcode == SBX_WS_CONTINUATION)
            return ws->message ? "a new message starts inside a fragmented one"
                               : "a continuation frame without a message to continue";
    } else if (opcode < SBX_WS_CLOSE || opcode > SBX_WS_PONG) {
        return "a frame has a reserved opcode";
    } else if (head[0] < 0x80) {
        return "a control frame is fragmented";
    }
    if (have < 2)
        return NULL;
    length = head[1] & 0x7fu;
    if (head[1] >> 7 != ws->role)
        return ws->role == SBX_WS_CLIENT ? "a frame from a server is masked"
                                         : "a frame from a client is not masked";
    if (opcode >= SBX_WS_CLOSE && length > 125)
        return "a control frame is longer than 125 bytes";
    if (opcode == SBX_WS_CLOSE && length == 1)
        return "a close frame has a payload of one byte";
    return NULL;
}

/* Reads a header from its have bytes. SBX_OK: a frame has begun, *size is the header's length;
   SBX_AGAIN: that is not all of it. */
static sbx_status sbxi_ws_begin(sbx_ws *ws, const unsigned char *head, size_t have, size_t *size)
{
    const char *problem = sbxi_ws_check(ws, head, have);
    uint64_t length;
    int i;
    if (problem)
        return sbxi_ws_fail(ws, 1002, problem);
    if (have < 2)
        return SBX_AGAIN;
    length = head[1] & 0x7fu;
    *size = (length < 126 ? 2u : length == 126 ? 4u : 10u) + (ws->role == SBX_WS_SERVER ? 4u : 0u);
    if (have < *size)
        return SBX_AGAIN;
    if (length == 126) {
        length = (uint64_t)head[2] << 8 | head[3];
        if (length < 126)
            return sbxi_ws_fail(ws, 1002, "a frame's length has more bytes than it needs");
    } else if (length == 127) {
        for (i = 2, length = 0; i < 10; i++)
            length = length << 8 | head[i];
        if (length >> 63)
            return sbxi_ws_fail(ws, 1002, "a frame's length has its highest bit set");
        if (length <= 0xffff)
            return sbxi_ws_fail(ws, 1002, "a frame's length has more bytes than it needs");
    }
    ws->opcode = head[0] & 15;
    ws->fin = head[0] >> 7;
    ws->left = length;
    if (ws->role == SBX_WS_SERVER) {
        memcpy(ws->key, head + *size - 4, 4);
        ws->key_at = 0;
    }
    if (ws->opcode < SBX_WS_CLOSE) {
        if (length > ws->limit - ws->size)
            return sbxi_ws_fail(ws, 1009, "a message is longer than the limit");
        if (ws->opcode != SBX_WS_CONTINUATION)
            ws->message = ws->opcode;
    }
    return SBX_OK;
}

/* Takes a header, from the bytes themselves if they hold all of it, else collected in ws->head.
   SBX_AGAIN: it is not complete yet. */
static sbx_status sbxi_ws_head(sbx_ws *ws, const unsigned char *p, size_t len, size_t *at)
{
    size_t have = len - *at, kept = ws->head_len, size = 0;
    const unsigned char *head = ws->head;
    sbx_status st;
    if (have == 0)
        return SBX_AGAIN;
    if (kept == 0) {
        head = p + *at;
    } else {
        have = have < sizeof(ws->head) - kept ? have : sizeof(ws->head) - kept;
        memcpy(ws->head + kept, p + *at, have);
        have += kept;
    }
    st = sbxi_ws_begin(ws, head, have, &size);
    if (st == SBX_OK) {
        *at += size - kept;
        ws->head_len = 0;
        ws->in_frame = 1;
    } else if (st == SBX_AGAIN) {
        if (kept == 0)
            memcpy(ws->head, head, have);
        *at = len;
        ws->head_len = (unsigned)have;
    }
    return st;
}

static void sbxi_ws_unmask(sbx_ws *ws, unsigned char *p, size_t len)
{
    if (ws->role == SBX_WS_SERVER) {
        sbx_ws_mask(p, p, len, ws->key, ws->key_at);
        ws->key_at = (unsigned)((ws->key_at + len) & 3);
    }
}

static sbx_status sbxi_ws_close(sbx_ws *ws, sbx_ws_event *event)
{
    const unsigned char *payload = (const unsigned char *)event->data;
    sbx_utf8 utf8;
    event->close_code = 1005;
    if (event->len > 0) { /* then at least 2: the header was checked */
        event->close_code = payload[0] << 8 | payload[1];
        event->data += 2;
        event->len -= 2;
        utf8.state = 0;
        if (!sbxi_ws_is_code(event->close_code))
            return sbxi_ws_fail(ws, 1002, "a close frame has a code that must not be sent");
        if (!sbx_utf8_check(&utf8, event->data, event->len) || utf8.state != 0)
            return sbxi_ws_fail(ws, 1007, "the reason in a close frame is not UTF-8");
    }
    ws->status = SBX_END;
    return SBX_OK;
}

/* Takes what is there of a control frame's payload, and gives the frame once it is complete: lent
   from the bytes at hand if they hold all of it, else from ws->control. */
static sbx_status sbxi_ws_control(sbx_ws *ws, unsigned char *p, size_t len, size_t *at,
                                  sbx_ws_event *event)
{
    size_t n = len - *at < ws->left ? len - *at : (size_t)ws->left;
    unsigned char *payload = ws->control;
    if (ws->control_len == 0 && n > 0 && n == ws->left)
        payload = p + *at;
    else if (n > 0)
        memcpy(ws->control + ws->control_len, p + *at, n);
    ws->control_len += (unsigned)n;
    ws->left -= n;
    *at += n;
    if (ws->left > 0)
        return SBX_AGAIN;
    sbxi_ws_unmask(ws, payload, ws->control_len);
    event->opcode = (sbx_ws_opcode)ws->opcode;
    event->data = (const char *)payload;
    event->len = ws->control_len;
    ws->control_len = 0;
    ws->in_frame = 0;
    return ws->opcode == SBX_WS_CLOSE ? sbxi_ws_close(ws, event) : SBX_OK;
}

/* Gives what is there of a data frame's payload. */
static sbx_status sbxi_ws_data(sbx_ws *ws, unsigned char *p, size_t len, size_t *at,
                               sbx_ws_event *event)
{
    size_t n = len - *at < ws->left ? len - *at : (size_t)ws->left;
    unsigned char *piece;
    if (n == 0 && ws->left > 0)
        return SBX_AGAIN;
    piece = p + *at;
    sbxi_ws_unmask(ws, piece, n);
    event->opcode = (sbx_ws_opcode)ws->message;
    event->first = ws->size == 0;
    event->data = (const char *)piece;
    event->len = n;
    *at += n;
    ws->size += n;
    ws->left -= n;
    if (ws->left == 0) {
        ws->in_frame = 0;
        event->last = ws->fin;
    }
    if (ws->message == SBX_WS_TEXT) {
        if (!sbx_utf8_check(&ws->utf8, piece, n))
            return sbxi_ws_fail(ws, 1007, "a text message is not UTF-8");
        if (event->last && ws->utf8.state != 0)
            return sbxi_ws_fail(ws, 1007, "a text message ends inside a character");
    }
    if (event->last) {
        ws->message = 0;
        ws->size = 0;
    }
    return SBX_OK;
}

SBX_API sbx_status sbx_ws_read(sbx_ws *ws, void *data, size_t len, size_t *used,
                               sbx_ws_event *event)
{
    unsigned char *p = (unsigned char *)data;
    sbx_status st = ws->status;
    size_t at = 0;
    memset(event, 0, sizeof(*event));
    while (st == SBX_OK && !ws->in_frame) {
        st = sbxi_ws_head(ws, p, len, &at);
        if (ws->left == 0 && !ws->fin)
            ws->in_frame = 0; /* an empty fragment gives no event, unless it ends the message */
    }
    if (st == SBX_OK) {
        if (ws->opcode >= SBX_WS_CLOSE)
            st = sbxi_ws_control(ws, p, len, &at, event);
        else
            st = sbxi_ws_data(ws, p, len, &at, event);
        if (st != SBX_OK)
            memset(event, 0, sizeof(*event));
    }
    *used = at;
    return st;
}

/* ---- writing ---- */

SBX_API size_t sbx_ws_header(unsigned char *out, int opcode, int fin, uint64_t len,
                             const unsigned char *key)
{
    unsigned mask = key ? 0x80 : 0;
    size_t at = 2;
    int shift;
    out[0] = (unsigned char)((fin ? 0x80 : 0) | (opcode & 15));
    if (len < 126) {
        out[1] = (unsigned char)(mask | (unsigned)len);
    } else {
        out[1] = (unsigned char)(mask | (len <= 0xffff ? 126u : 127u));
        for (shift = len <= 0xffff ? 8 : 56; shift >= 0; shift -= 8)
            out[at++] = (unsigned char)(len >> shift & 0xff);
    }
    if (key) {
        memcpy(out + at, key, 4);
        at += 4;
    }
    return at;
}

SBX_API void sbx_ws_mask(void *out, const void *in, size_t len, const unsigned char *key, size_t at)
{
    const unsigned char *from = (const unsigned char *)in;
    unsigned char *to = (unsigned char *)out, turned[8];
    uint64_t mask, word;
    size_t i;
    turned[0] = turned[4] = key[at & 3];
    turned[1] = turned[5] = key[(at + 1) & 3];
    turned[2] = turned[6] = key[(at + 2) & 3];
    turned[3] = turned[7] = key[(at + 3) & 3];
    memcpy(&mask, turned, 8);
#ifdef SBXI_SIMD
    if (len >= 16) {
        unsigned char twice[16];
        sbxi_v16 wide;
        memcpy(twice, turned, 8);
        memcpy(twice + 8, turned, 8);
        wide = SBXI_V_LOAD(twice);
        for (; len >= 64; len -= 64, from += 64, to += 64) {
            sbxi_v16 a = SBXI_V_XOR(SBXI_V_LOAD(from), wide);
            sbxi_v16 b = SBXI_V_XOR(SBXI_V_LOAD(from + 16), wide);
            sbxi_v16 c = SBXI_V_XOR(SBXI_V_LOAD(from + 32), wide);
            sbxi_v16 d = SBXI_V_XOR(SBXI_V_LOAD(from + 48), wide);
            SBXI_V_STORE(to, a);
            SBXI_V_STORE(to + 16, b);
            SBXI_V_STORE(to + 32, c);
            SBXI_V_STORE(to + 48, d);
        }
        for (; len >= 16; len -= 16, from += 16, to += 16)
            SBXI_V_STORE(to, SBXI_V_XOR(SBXI_V_LOAD(from), wide));
    }
#endif
    for (; len >= 8; len -= 8, from += 8, to += 8) {
        memcpy(&word, from, 8);
        word ^= mask;
        memcpy(to, &word, 8);
    }
    for (i = 0; i < len; i++)
        to[i] = (unsigned char)(from[i] ^ turned[i]);
}

SBX_API size_t sbx_ws_close_payload(unsigned char *out, int code, const char *reason)
{
    uint32_t state = 0;
    size_t i, len = 0;
    if (!sbxi_ws_is_code(code))
        return 0;
    out[0] = (unsigned char)(code >> 8);
    out[1] = (unsigned char)(code & 0xff);
    for (i = 0; reason && i < 123 && reason[i] && state != SBXI_UTF8_BAD; i++) {
        state = sbxi_utf8_step(state, (unsigned char)reason[i]);
        if (state == 0)
            len = i + 1;
    }
    if (len)
        memcpy(out + 2, reason, len);
    return 2 + len;
}

SBX_API void sbx_ws_accept(const char *key, size_t len, char out[29])
{
    static const char suffix[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char text[24 + sizeof(suffix)];
    unsigned char digest[20];
    out[0] = 0;
    if (len != 24)
        return;
    memcpy(text, key, 24);
    memcpy(text + 24, suffix, sizeof(suffix));
    sbxi_sha1(text, 24 + sizeof(suffix) - 1, digest);
    (void)sbxi_base64(digest, sizeof(digest), out);
}
#endif
