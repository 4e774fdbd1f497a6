/* Fuzzes a command handle: a caller who does whatever the input says, and a service that says what
   the input says.

   The first byte chooses the options, the second how many of the following bytes are the caller's
   actions. What follows is cut at each FF FE into what one connection after the other sends; a
   piece that ends in FF leaves its connection open and silent, any other one ends it. Where the
   pieces run out, connections are refused. Clock and randomness are faked. Whatever comes: no chunk is given
   twice or passed over unsaid, what is sent is well formed, and no input is sent twice. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct world {
    const uint8_t *data;
    size_t size, at; /* at: where the next connection's bytes begin */
    int64_t now;
    uint32_t lot; /* decides how much goes at once */
    int slow;     /* 1: in small pieces with pauses */
    int streams, waits;
    unsigned last_number; /* of those that were sent as input */
} world;

typedef struct stream {
    sbx_stream base;
    world *w;
    const uint8_t *data;
    size_t left;
    int stays;
    char *sent;
    size_t sent_len;
} stream;

static void require(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

/* ---- what the client sends ---- */

/* The numbers in an input message, eight digits each, only grow. */
static void check_input(world *w, const char *text, size_t len)
{
    size_t i;
    for (i = 0; i < len; i++) {
        /* One that is divided between two messages does not count. */
        if (text[i] == '#' && len - i > 8 && strspn(text + i + 1, "0123456789") >= 8) {
            unsigned number = (unsigned)strtoul(text + i + 1, NULL, 10);
            require(number > w->last_number, "input is sent twice, or out of order");
            w->last_number = number;
        }
    }
}

static void check_message(world *w, const char *text, size_t len)
{
    static const char input[] = "{\"type\":\"input\",";
    char scratch[64];
    sbx_json json;
    sbx_json_event event;
    sbx_status status;
    size_t used, at = 0;
    sbx_json_init(&json, scratch, sizeof(scratch));
    while ((status = sbx_json_read(&json, text + at, len - at, &used, &event)) == SBX_OK)
        at += used;
    require(status == SBX_END, "a message is no JSON");
    if (len > sizeof(input) && memcmp(text, input, sizeof(input) - 1) == 0)
        check_input(w, text, len);
}

/* All frames of a connection, and perhaps the beginning of one more. */
static void check_sent(stream *s)
{
    sbx_ws ws;
    sbx_ws_event event;
    size_t at = 0, used = 0;
    sbx_status status;
    while (at + 4 <= s->sent_len && memcmp(s->sent + at, "\r\n\r\n", 4) != 0)
        at++;
    if (at + 4 >= s->sent_len)
        return;
    at += 4;
    sbx_ws_init(&ws, SBX_WS_SERVER, 1 << 20);
    while ((status = sbx_ws_read(&ws, s->sent + at, s->sent_len - at, &used, &event)) == SBX_OK) {
        at += used;
        /* A message that was not sent whole does not count: nobody can read it. */
        if (event.opcode == SBX_WS_TEXT && event.first && event.last)
            check_message(s->w, event.data, event.len);
    }
    require(status == SBX_AGAIN || status == SBX_END, "a bad frame was sent");
}

/* ---- the transport ---- */

static uint32_t draw(world *w, uint32_t below)
{
    w->lot = w->lot * 1664525 + 1013904223;
    return (w->lot >> 16) % below;
}

static sbx_status stream_connect(sbx_stream *s)
{
    (void)s;
    return SBX_OK;
}

static sbx_status stream_read(sbx_stream *base, void *buf, size_t cap, size_t *n)
{
    stream *s = (stream *)base;
    *n = 0;
    if (s->left == 0)
        return s->stays ? SBX_AGAIN : SBX_END;
    if (s->w->slow && draw(s->w, 3) == 0)
        return SBX_AGAIN;
    *n = s->left < cap ? s->left : cap;
    if (s->w->slow && *n > 40)
        *n = 40;
    memcpy(buf, s->data, *n);
    s->data += *n;
    s->left -= *n;
    return SBX_OK;
}

static sbx_status stream_write(sbx_stream *base, const void *buf, size_t len, size_t *n)
{
    stream *s = (stream *)base;
    *n = 0;
    if (s->w->slow && draw(s->w, 3) == 0)
        return SBX_AGAIN;
    *n = s->w->slow && len > 100 ? 1 + draw(s->w, 100) : len;
    s->sent = (char *)realloc(s->sent, s->sent_len + *n);
    memcpy(s->sent + s->sent_len, buf, *n);
    s->sent_len += *n;
    return SBX_OK;
}

static int stream_wants(sbx_stream *base, unsigned want, sbx_item *items, int cap,
                        int64_t *timeout_ms)
{
    stream *s = (stream *)base;
    require(cap >= 1, "no room for an item");
    items[0].handle = 1;
    items[0].want = want;
    if (s->left || !s->stays || (want & SBX_WRITE))
        *timeout_ms = 0; /* there is something to do at once */
    return 1;
}

static void stream_close(sbx_stream *base)
{
    stream *s = (stream *)base;
    check_sent(s);
    s->w->streams--;
    free(s->sent);
    free(s);
}

static const sbx_stream_methods methods = {stream_connect, stream_read,  stream_write,
                                           NULL,           stream_wants, stream_close};

static sbx_status dial(void *state, const char *host, uint16_t port, sbx_stream **out)
{
    world *w = (world *)state;
    stream *s;
    size_t end;
    (void)host;
    (void)port;
    *out = NULL;
    if (w->at >= w->size)
        return SBX_E_CONNECT;
    for (end = w->at; end < w->size; end++)
        if (end + 1 < w->size && w->data[end] == 0xff && w->data[end + 1] == 0xfe)
            break;
    s = (stream *)calloc(1, sizeof(*s));
    s->base.methods = &methods;
    s->w = w;
    s->data = w->data + w->at;
    s->left = end - w->at;
    s->stays = s->left && s->data[s->left - 1] == 0xff;
    s->left -= (size_t)s->stays;
    w->at = end + 2;
    w->streams++;
    *out = &s->base;
    return SBX_OK;
}

static sbx_status wait_for(void *state, const sbx_item *items, int n, int64_t timeout_ms)
{
    world *w = (world *)state;
    (void)items;
    (void)n;
    require(timeout_ms >= 0, "a wait without an end");
    require(++w->waits < 2000000, "the call does not end");
    w->now += timeout_ms;
    return SBX_OK;
}

static int64_t now_ms(void *state)
{
    return ((world *)state)->now;
}

static sbx_status entropy(void *state, void *buf, size_t len)
{
    (void)state;
    memset(buf, 0, len);
    return SBX_OK;
}

/* ---- the caller ---- */

typedef struct caller {
    world *w;
    sbx_command *command;
    uint64_t next[3]; /* offsets, by stream */
    unsigned number;
    int killed;
    int64_t killed_at; /* when that was first seen; -1: not yet */
} caller;

static int callback(void *user, int number, const char *data, size_t len)
{
    caller *c = (caller *)user;
    require(data && len && (number == SBX_STDOUT || number == SBX_STDERR), "odd output");
    sbx_command_resize(c->command, 80, 24, NULL);
    return 0;
}

static sbx_status take(caller *c, int64_t timeout_ms)
{
    sbx_chunk chunk;
    sbx_error err;
    int64_t before = c->w->now;
    sbx_status status = sbx_command_next(c->command, &chunk, timeout_ms, &err);
    require((status < 0) == (err.message[0] != 0), "an error without a message");
    require(!strstr(err.message, "a-secret-key"), "the key is in a message");
    if (status == SBX_OK) {
        require(chunk.len > 0 && (chunk.stream == SBX_STDOUT || chunk.stream == SBX_STDERR),
                "an odd chunk");
        require(chunk.offset == c->next[chunk.stream] + chunk.lost,
                "a gap or an overlap that is not told");
        c->next[chunk.stream] = chunk.offset + chunk.len;
    } else {
        require(!chunk.data && !chunk.len, "a chunk without success");
    }
    require(c->w->now - before <= timeout_ms, "it took too long");
    if (c->killed && status == SBX_AGAIN) {
        if (c->killed_at < 0)
            c->killed_at = before; /* the two seconds begin with the first step */
        require(c->w->now - c->killed_at <= 2000, "a killed command goes on");
    }
    require(sbx_command_offset(c->command, SBX_STDOUT) == c->next[SBX_STDOUT] ||
                status == SBX_AGAIN || status < 0 || status == SBX_END,
            "the offset is not where the chunk ends");
    return status;
}

static void feed(caller *c, size_t len)
{
    static char text[SBX_INPUT_MAX + 16];
    size_t at = 0;
    sbx_status status;
    while (at + 9 <= len)
        at += (size_t)sprintf(text + at, "#%08u", ++c->number);
    status = sbx_command_input(c->command, text, at, NULL);
    require(status == SBX_OK || status == SBX_AGAIN || status < 0, "an odd answer");
}

static void act(caller *c, unsigned action)
{
    static const int64_t times[] = {1, 100, 1000, 31000, 61000, 130000, 700000, 0};
    sbx_item items[SBX_ITEMS];
    int64_t timeout;
    unsigned arg = action >> 4;
    switch (action & 15) {
    case 0:
    case 1:
        (void)take(c, times[arg & 7]);
        break;
    case 2:
        feed(c, 9 + 9 * arg);
        break;
    case 3:
        feed(c, SBX_INPUT_MAX >> (arg & 7));
        break;
    case 4:
        (void)sbx_command_input(c->command, &"\xf0\x9f\x98\x80"[arg & 3],
                                4 - (arg & 3) < 1 + (arg >> 2) ? 1 : 1 + (arg >> 2), NULL);
        break;
    case 5:
        (void)sbx_command_close_input(c->command, NULL);
        break;
    case 6:
        sbx_command_kill(c->command);
        c->killed = 1;
        break;
    case 7:
        (void)sbx_command_resize(c->command, (int)arg, 25, NULL);
        break;
    case 8:
        if (sbx_command_reconnect(c->command, NULL) == SBX_OK) {
            c->killed = 0;
            c->killed_at = -1;
        }
        break;
    case 9:
        sbx_op_cancel(sbx_command_op(c->command));
        break;
    case 10:
        (void)sbx_op_step(sbx_command_op(c->command), NULL);
        break;
    case 11:
        require(sbx_op_wants(sbx_command_op(c->command), items, SBX_ITEMS, &timeout) >= 0, "wants");
        break;
    default:
        c->w->now += times[arg & 7];
    }
}

static void finish(caller *c)
{
    sbx_result *result = NULL;
    sbx_error err;
    int i;
    sbx_status status = SBX_AGAIN;
    for (i = 0; i < 1000 && (status == SBX_AGAIN || status == SBX_OK); i++)
        status = take(c, 100000);
    if (status == SBX_AGAIN || status == SBX_OK)
        return;
    status = sbx_command_result(c->command, &result, &err);
    require((status == SBX_OK) == (result != NULL), "a result without success");
    sbx_free(result);
}

static sbx_status open_command(caller *c, const sbx_sandbox *sandbox, unsigned flags)
{
    sbx_run_options run;
    sbx_attach_options attach;
    sbx_error err;
    memset(&run, 0, sizeof(run));
    memset(&attach, 0, sizeof(attach));
    run.input = attach.input = flags & 1;
    run.pty = attach.pty = flags >> 1 & 1;
    run.on_output = attach.on_output = flags & 4 ? callback : NULL;
    run.user = attach.user = c;
    run.discard_output = attach.discard_output = flags >> 3 & 1;
    run.call.timeout_ms = attach.call.timeout_ms = flags & 16 ? 40000 : 0;
    if (flags & 32) {
        attach.out_offset = c->next[SBX_STDOUT] = 5;
        return sbx_command_attach(sandbox, "an-id", &attach, &c->command, &err);
    }
    return sbx_command_start(sandbox, "true", &run, &c->command, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    world w;
    caller c;
    sbx_transport transport;
    sbx_config config;
    sbx_client *client;
    sbx_sandbox *sandbox;
    sbx_error err;
    size_t i, actions;
    if (size < 2)
        return 0;
    actions = data[1] < size - 2 ? data[1] : size - 2;
    memset(&w, 0, sizeof(w));
    memset(&c, 0, sizeof(c));
    memset(&transport, 0, sizeof(transport));
    memset(&config, 0, sizeof(config));
    w.data = data + 2 + actions;
    w.size = size - 2 - actions;
    w.lot = (uint32_t)size;
    w.slow = data[0] >> 6 & 1;
    c.w = &w;
    c.killed_at = -1;
    transport.user = &w;
    transport.dial = dial;
    transport.wait = wait_for;
    transport.now_ms = now_ms;
    transport.entropy = entropy;
    config.transport = &transport;
    config.endpoint = "http://localhost/v2/sandboxes";
    config.api_key = "a-secret-key";
    require(sbx_open(&config, &client, &err) == SBX_OK, "no client");
    require(sbx_sandbox_at(client, "http://localhost/box", &sandbox, &err) == SBX_OK, "no sandbox");
    require(open_command(&c, sandbox, data[0]) == SBX_OK, "no command");
    for (i = 0; i < actions; i++)
        act(&c, data[2 + i]);
    if (!(data[0] & 128))
        finish(&c);
    sbx_command_free(c.command);
    sbx_free(sandbox);
    sbx_close(client);
    require(w.streams == 0, "a stream was left open");
    return 0;
}
