/* WebSocket frames and the UTF-8 check by themselves:

       bench/websocket JOB SIZE COUNT

   does a job, one of those at the end, COUNT times on SIZE bytes of payload.

       cc -O2 -DNDEBUG -I. bench/websocket.c                  add -DSBX_NO_SIMD for portable C
       -DBENCH_WSLAY -lwslay                                  the peer */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sample.h"
#include <stdlib.h>
#ifdef BENCH_WSLAY
#include <wslay/wslay.h>
#endif

typedef struct bench {
    char *text; /* size bytes of payload */
    size_t size;
    unsigned char *frame; /* the payload as a text frame, not masked */
    size_t frame_len;
    unsigned char *out; /* room for a frame */
    long count;
} bench;

static const unsigned char key[4] = {0x37, 0xfa, 0x21, 0x3d};

static void fail(const char *what)
{
    fprintf(stderr, "bench/websocket: %s\n", what);
    exit(1);
}

/* ---- ours ---- */

static void check_utf8(bench *b)
{
    for (; b->count > 0; b->count--) {
        sbx_utf8 utf8 = {0};
        if (!sbx_utf8_check(&utf8, b->text, b->size) || utf8.state != 0)
            fail("the sample is not UTF-8");
    }
}

static void read_frames(bench *b)
{
    sbx_ws ws;
    sbx_ws_event event;
    size_t used;
    sbx_ws_init(&ws, SBX_WS_CLIENT, b->size);
    for (; b->count > 0; b->count--) {
        if (sbx_ws_read(&ws, b->frame, b->frame_len, &used, &event) != SBX_OK || !event.last ||
            event.len != b->size)
            fail("the frame was not read");
    }
}

/* In the server's role. The bytes are copied each time, since reading unmasks them. */
static void read_masked_frames(bench *b)
{
    sbx_ws ws;
    sbx_ws_event event;
    size_t used, len = sbx_ws_header(b->frame, SBX_WS_TEXT, 1, b->size, key);
    sbx_ws_mask(b->frame + len, b->text, b->size, key, 0);
    len += b->size;
    sbx_ws_init(&ws, SBX_WS_SERVER, b->size);
    for (; b->count > 0; b->count--) {
        memcpy(b->out, b->frame, len);
        if (sbx_ws_read(&ws, b->out, len, &used, &event) != SBX_OK || event.len != b->size)
            fail("the frame was not read");
    }
}

static void write_masked_frames(bench *b)
{
    for (; b->count > 0; b->count--) {
        size_t len = sbx_ws_header(b->out, SBX_WS_TEXT, 1, b->size, key);
        sbx_ws_mask(b->out + len, b->text, b->size, key, 0);
    }
}

/* ---- wslay ---- */

#ifdef BENCH_WSLAY
typedef struct wslay_bench {
    bench *b;
    size_t at; /* in the frame */
    long messages;
} wslay_bench;

static ssize_t wslay_receive(wslay_event_context_ptr ctx, uint8_t *buf, size_t len, int flags,
                             void *user)
{
    wslay_bench *w = (wslay_bench *)user;
    size_t n = w->b->frame_len - w->at;
    (void)flags;
    if (w->b->count == 0) {
        wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    n = n < len ? n : len;
    memcpy(buf, w->b->frame + w->at, n);
    w->at += n;
    if (w->at == w->b->frame_len) {
        w->at = 0;
        w->b->count--;
    }
    return (ssize_t)n;
}

static ssize_t wslay_send(wslay_event_context_ptr ctx, const uint8_t *data, size_t len, int flags,
                          void *user)
{
    wslay_bench *w = (wslay_bench *)user;
    (void)ctx;
    (void)flags;
    memcpy(w->b->out, data, len < w->b->frame_len ? len : w->b->frame_len);
    return (ssize_t)len;
}

static int wslay_mask_key(wslay_event_context_ptr ctx, uint8_t *buf, size_t len, void *user)
{
    (void)ctx;
    (void)user;
    memcpy(buf, key, len);
    return 0;
}

static void wslay_message(wslay_event_context_ptr ctx,
                          const struct wslay_event_on_msg_recv_arg *arg, void *user)
{
    wslay_bench *w = (wslay_bench *)user;
    (void)ctx;
    if (arg->opcode == WSLAY_TEXT_FRAME && arg->msg_length == w->b->size)
        w->messages++;
}

static wslay_event_context_ptr wslay_open(wslay_bench *w)
{
    struct wslay_event_callbacks callbacks;
    wslay_event_context_ptr ctx;
    memset(&callbacks, 0, sizeof(callbacks));
    callbacks.recv_callback = wslay_receive;
    callbacks.send_callback = wslay_send;
    callbacks.genmask_callback = wslay_mask_key;
    callbacks.on_msg_recv_callback = wslay_message;
    if (wslay_event_context_client_init(&ctx, &callbacks, w) != 0)
        fail("wslay has no memory");
    return ctx;
}

static void wslay_read_frames(bench *b)
{
    wslay_bench w = {b, 0, 0};
    long count = b->count;
    wslay_event_context_ptr ctx = wslay_open(&w);
    if (wslay_event_recv(ctx) != 0 || w.messages != count)
        fail("wslay did not read the frames");
    wslay_event_context_free(ctx);
}

static void wslay_write_frames(bench *b)
{
    wslay_bench w = {b, 0, 0};
    wslay_event_context_ptr ctx = wslay_open(&w);
    struct wslay_event_msg message;
    message.opcode = WSLAY_TEXT_FRAME;
    message.msg = (const uint8_t *)b->text;
    message.msg_length = b->size;
    for (; b->count > 0; b->count--) {
        if (wslay_event_queue_msg(ctx, &message) != 0 || wslay_event_send(ctx) != 0)
            fail("wslay did not write the frame");
    }
    wslay_event_context_free(ctx);
}
#endif

static const struct {
    const char *name;
    void (*fill)(char *text, size_t len);
    void (*run)(bench *b);
} jobs[] = {
    {"utf8", bench_fill_log, check_utf8},
    {"utf8-ascii", bench_fill_ascii, check_utf8},
    {"utf8-dense", bench_fill_dense, check_utf8},
    {"read", bench_fill_log, read_frames},
    {"read-ascii", bench_fill_ascii, read_frames},
    {"read-masked", bench_fill_log, read_masked_frames},
    {"write", bench_fill_log, write_masked_frames},
#ifdef BENCH_WSLAY
    {"wslay-read", bench_fill_log, wslay_read_frames},
    {"wslay-read-ascii", bench_fill_ascii, wslay_read_frames},
    {"wslay-write", bench_fill_log, wslay_write_frames},
#endif
};

int main(int argc, char **argv)
{
    bench b;
    size_t i, header;
    if (argc != 4)
        fail("usage: bench/websocket JOB SIZE COUNT");
    b.size = (size_t)strtoul(argv[2], NULL, 10);
    b.count = strtol(argv[3], NULL, 10);
    b.text = (char *)malloc(b.size + 1);
    b.frame = (unsigned char *)malloc(b.size + SBX_WS_HEADER_MAX);
    b.out = (unsigned char *)malloc(b.size + SBX_WS_HEADER_MAX);
    if (!b.text || !b.frame || !b.out)
        fail("no memory");
    for (i = 0; i < sizeof(jobs) / sizeof(*jobs); i++) {
        if (strcmp(jobs[i].name, argv[1]) != 0)
            continue;
        jobs[i].fill(b.text, b.size);
        header = sbx_ws_header(b.frame, SBX_WS_TEXT, 1, b.size, NULL);
        memcpy(b.frame + header, b.text, b.size);
        b.frame_len = header + b.size;
        jobs[i].run(&b);
        free(b.text);
        free(b.frame);
        free(b.out);
        return 0;
    }
    fail("no such job");
    return 1;
}
