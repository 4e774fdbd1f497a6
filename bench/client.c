/* What the whole client costs for a command's output:

       bench/client JOB SIZE COUNT

   runs a command by sbx_run against a transport in memory whose peer sends COUNT messages of SIZE
   bytes. Job run: a callback takes the output and none is collected; collect: the result holds it.
   The transport's own copy from its memory into the library's buffer is part of the cost.

       cc -O2 -DNDEBUG -I. bench/client.c                     add -DSBX_NO_SIMD for portable C */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sample.h"

#include <stdlib.h>

#define FIRST_OFFSET 1000000000 /* all offsets have ten digits, and so all frames are equally long */

static const char upgraded[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                               "Connection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n";

typedef struct peer {
    sbx_stream stream;
    char *frame; /* header and message; the digits of its offset are at frame + digits */
    size_t len, digits, at;
    uint64_t data_len, offset;
    long left;
    int phase; /* 0: the upgrade; 1: output; 2: the exit */
    size_t allocations;
} peer;

static void fail(const char *what)
{
    fprintf(stderr, "bench/client: %s\n", what);
    exit(1);
}

static sbx_status connect_stream(sbx_stream *s)
{
    (void)s;
    return SBX_OK;
}

static void next_frame(peer *p)
{
    uint64_t rest = p->offset;
    int i;
    for (i = 9; i >= 0; i--, rest /= 10)
        p->frame[p->digits + (size_t)i] = (char)('0' + rest % 10);
    p->offset += p->data_len;
    p->at = 0;
}

static sbx_status read_stream(sbx_stream *s, void *buf, size_t cap, size_t *n)
{
    static const char bye[] = "\x81\x1d{\"type\":\"exit\",\"exit_code\":0}";
    peer *p = (peer *)s;
    char *out = (char *)buf;
    *n = 0;
    if (p->phase == 0) {
        memcpy(out, upgraded, sizeof(upgraded) - 1);
        *n = sizeof(upgraded) - 1;
        p->phase = 1;
        next_frame(p);
        return SBX_OK;
    }
    while (p->phase == 1 && *n < cap) {
        size_t len = p->len - p->at < cap - *n ? p->len - p->at : cap - *n;
        memcpy(out + *n, p->frame + p->at, len);
        *n += len;
        p->at += len;
        if (p->at == p->len) {
            if (--p->left == 0)
                p->phase = 2;
            else
                next_frame(p);
        }
    }
    if (p->phase == 2 && cap - *n >= sizeof(bye) - 1) {
        memcpy(out + *n, bye, sizeof(bye) - 1);
        *n += sizeof(bye) - 1;
        p->phase = 3;
    }
    return *n ? SBX_OK : SBX_END;
}

static sbx_status write_stream(sbx_stream *s, const void *buf, size_t len, size_t *n)
{
    (void)s;
    (void)buf;
    *n = len;
    return SBX_OK;
}

static int wants_stream(sbx_stream *s, unsigned want, sbx_item *items, int cap, int64_t *timeout_ms)
{
    (void)s;
    (void)cap;
    items[0].handle = 0;
    items[0].want = want;
    *timeout_ms = 0;
    return 1;
}

static void close_stream(sbx_stream *s)
{
    (void)s;
}

static const sbx_stream_methods methods = {connect_stream, read_stream,  write_stream,
                                           NULL,           wants_stream, close_stream};

static sbx_status dial(void *state, const char *host, uint16_t port, sbx_stream **out)
{
    (void)host;
    (void)port;
    *out = &((peer *)state)->stream;
    return SBX_OK;
}

static sbx_status wait_for(void *state, const sbx_item *items, int n, int64_t timeout_ms)
{
    (void)state;
    (void)items;
    (void)n;
    (void)timeout_ms;
    return SBX_OK;
}

static int64_t now_ms(void *state)
{
    (void)state;
    return 0;
}

static sbx_status entropy(void *state, void *buf, size_t len)
{
    (void)state;
    memset(buf, 0, len);
    return SBX_OK;
}

static void *counted_resize(void *user, void *p, size_t old_size, size_t new_size)
{
    (void)old_size;
    if (new_size == 0) {
        free(p);
        return NULL;
    }
    ++*(size_t *)user;
    return realloc(p, new_size);
}

static int take(void *user, int stream, const char *data, size_t len)
{
    (void)stream;
    (void)data;
    *(uint64_t *)user += len;
    return 0;
}

static void make_frame(peer *p, size_t size)
{
    sbx_json j;
    sbx_json_event e;
    size_t head, used = 0, at = 0;
    char *scratch = (char *)malloc(size + 16);
    char *json;
    p->frame = (char *)malloc(size + SBX_WS_HEADER_MAX + 16);
    if (!p->frame || !scratch || size < BENCH_MESSAGE_MIN + 8)
        fail("size is at least 56");
    head = sbx_ws_header((unsigned char *)p->frame, SBX_WS_TEXT, 1, size, NULL);
    json = p->frame + head;
    /* The sample ends in six digits: four more go before them. */
    bench_fill_message(json, size - 4);
    memcpy(json + size - 11, "1000000000}", 11);
    p->len = head + size;
    p->digits = head + size - 11;
    sbx_json_init(&j, scratch, size + 16);
    while (sbx_json_read(&j, json + at, size - at, &used, &e) == SBX_OK) {
        at += used;
        if (e.type == SBX_JSON_STRING)
            p->data_len = e.len; /* of the last one, data */
    }
    free(scratch);
    if (p->data_len == 0)
        fail("the message is not JSON");
}

int main(int argc, char **argv)
{
    peer p;
    sbx_transport transport;
    sbx_config config;
    sbx_run_options options;
    sbx_client *client;
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_error err;
    uint64_t taken = 0;
    if (argc != 4)
        fail("usage: bench/client run|collect SIZE COUNT");
    memset(&p, 0, sizeof(p));
    memset(&transport, 0, sizeof(transport));
    memset(&config, 0, sizeof(config));
    memset(&options, 0, sizeof(options));
    p.stream.methods = &methods;
    p.offset = FIRST_OFFSET;
    p.left = atol(argv[3]);
    make_frame(&p, (size_t)atol(argv[2]));
    transport.user = &p;
    transport.dial = dial;
    transport.wait = wait_for;
    transport.now_ms = now_ms;
    transport.entropy = entropy;
    config.transport = &transport;
    config.endpoint = "http://localhost";
    config.allocator.resize = counted_resize;
    config.allocator.user = &p.allocations;
    options.max_output = (size_t)1 << 32;
    if (strcmp(argv[1], "run") == 0) {
        options.on_output = take;
        options.user = &taken;
        options.discard_output = 1;
    }
    if (sbx_open(&config, &client, &err) != SBX_OK ||
        sbx_sandbox_at(client, "http://localhost/box", &sandbox, &err) != SBX_OK ||
        sbx_run(sandbox, "make", &options, &result, &err) != SBX_OK)
        fail(err.message);
    printf("%llu bytes, %llu allocations\n", (unsigned long long)(taken + result->out_len),
           (unsigned long long)p.allocations);
    sbx_free(result);
    sbx_free(sandbox);
    sbx_close(client);
    free(p.frame);
    return 0;
}
