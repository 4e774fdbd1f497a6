/* world: a deterministic stand-in for everything outside the library.

   A test makes a world, scripts what the peers of the coming connections do, opens a client on the
   world's transport, and calls the library. Connections are streams in memory, numbered as they are
   dialled; time passes only inside the wait hook, which jumps to the next thing that is scheduled.
   Waiting without a time limit for something that will never happen fails the test, as does
   spinning without progress, a broken rule of the transport contract, a leak, or a block freed with
   the wrong size. Include sandbox.h with its implementation first.

       world w;
       peer *p;
       world_init(&w);
       p = world_peer(&w);                                   the first connection
       peer_request(p, "GET", "/v2/sandboxes/templates/t");
       peer_reply(p, 200, "{\"name\":\"t\"}");
       world_open(&w);
       assert_int_equal(sbx_template_get(w.client, "t", NULL, &template, &err), SBX_OK);
       world_done(&w);                                       closes, and checks that all was said */
#ifndef TESTS_WORLD_H
#define TESTS_WORLD_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

#define WORLD_KEY "k3y-that-must-not-leak"
#define WORLD_HOST "127.0.0.1:8080"
#define WORLD_ENDPOINT "http://127.0.0.1:8080/v2/sandboxes"
#define WORLD_DATA_HOST "127.0.0.1:9090"
#define WORLD_DATAPLANE "http://127.0.0.1:9090/sb-1"
#define WORLD_PEERS 1024
#define WORLD_EVENTS 16
#define WORLD_NEVER INT64_MAX

/* ---- texts that grow ---- */

typedef struct wtext {
    char *data; /* always followed by a 0 once something was added */
    size_t len, cap;
} wtext;

static inline void wtext_add(wtext *t, const void *data, size_t len)
{
    if (t->cap < t->len + len + 1) {
        t->cap = (t->len + len + 1) * 2;
        t->data = (char *)realloc(t->data, t->cap);
        if (!t->data)
            abort();
    }
    if (len)
        memcpy(t->data + t->len, data, len);
    t->len += len;
    t->data[t->len] = 0;
}

static inline void wtext_puts(wtext *t, const char *text)
{
    wtext_add(t, text, strlen(text));
}

static inline void wtext_vprintf(wtext *t, const char *format, va_list args)
{
    char line[8192];
    int n = vsnprintf(line, sizeof(line), format, args);
    if (n < 0 || (size_t)n >= sizeof(line))
        abort();
    wtext_add(t, line, (size_t)n);
}

static inline void wtext_printf(wtext *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    wtext_vprintf(t, format, args);
    va_end(args);
}

static inline const char *wtext_get(const wtext *t)
{
    return t->data ? t->data : "";
}

static inline void wtext_drop(wtext *t, size_t len)
{
    memmove(t->data, t->data + len, t->len - len + 1);
    t->len -= len;
}

static inline void wtext_free(wtext *t)
{
    free(t->data);
    memset(t, 0, sizeof(*t));
}

/* ---- the parts ---- */

typedef struct world world;
typedef struct peer peer;
typedef void (*world_fn)(world *w, void *user);

/* A request as it came. Names and values are as on the wire. */
typedef struct world_header {
    char *name, *value;
} world_header;
typedef struct world_request {
    char method[16];
    char *target;
    world_header headers[SBX_HTTP1_HEADERS];
    int header_count;
    wtext body;
    uint64_t body_len; /* counts also what was not kept */
    int chunked;
    int head_done, done;
} world_request;

typedef enum step_kind {
    STEP_HEAD,    /* the head of a request has come */
    STEP_REQUEST, /* a whole request has come */
    STEP_SEND,
    STEP_DELAY,
    STEP_CLOSE,
    STEP_RESET,
    STEP_CALL,
    STEP_UPGRADE,   /* the request is an upgrade: accept it */
    STEP_WS_EXPECT, /* a text message has come */
    STEP_WS_PONG,
    STEP_WS_CLOSED, /* the client's close frame has come */
    STEP_END        /* the client has closed the connection */
} step_kind;

typedef struct step {
    step_kind kind;
    wtext a, b;    /* method and target; what is sent; the expected message */
    wtext with;    /* headers that must be there, NUL after each */
    wtext without; /* names of headers that must not */
    wtext body;
    int body_kind; /* 0: must be empty for GET and DELETE, 1: JSON, 2: bytes, 3: anything */
    int64_t number;
    int substitute; /* $id stands for the command's id */
    world_fn fn;
    void *user;
} step;

/* One connection as the server sees it, with what it will do. */
struct peer {
    world *w;
    int number;
    char host[256];
    unsigned port;
    int dialled, live, secured, client_closed;
    int64_t dialled_at, closed_at;

    /* Behaviour, to be set before the library dials. */
    sbx_status refuse;      /* what connect says instead of SBX_OK */
    sbx_status refuse_dial; /* what dial itself says */
    sbx_status tls_refuse;  /* what the handshake says */
    int64_t connect_ms;     /* how long connecting takes; WORLD_NEVER */
    size_t piece;           /* bytes per read, with SBX_AGAIN after each; 0: all */
    size_t write_max;       /* bytes per write; 0: all */
    int every_other;        /* every other call says SBX_AGAIN first */
    int64_t cut_at;         /* the connection breaks after so many bytes to the client; -1: never */
    sbx_status cut_how;     /* SBX_END or SBX_E_CONNECTION */
    int64_t take_at_most;   /* writes beyond fail; -1: none do */
    int64_t stuck_after;    /* writes beyond say SBX_AGAIN for ever; -1: never */
    int64_t lose_after;     /* what is written beyond never arrives: the connection is reset; -1 */
    int lose_answers;       /* 1: then what the client has not read yet is lost, too */
    int deaf;               /* what has come is not looked at, as long as this is 1 */
    int mute;               /* pings are not answered */
    int optional;           /* the script need not be played to its end */
    int discard_body;       /* bodies are counted, not kept */
    int no_key;             /* requests must come without the API key */
    int any_headers;        /* the common header checks are left out */

    /* Bytes. */
    wtext in;  /* from the client, not parsed yet */
    wtext raw; /* from the client, all (not with discard_body) */
    wtext out; /* to the client */
    size_t out_at;
    int64_t delivered, taken, arrived;
    wtext held;        /* written but not flushed, in a world that buffers */
    sbx_status ending; /* SBX_OK, or what reads say after the last byte */
    int writes_after_end;

    /* Parsers. */
    sbx_http1 http;
    char scratch[16384];
    world_request request;
    int requests;
    int ws_mode, ws_closed, ws_close_code, pings;
    sbx_ws ws;
    wtext message, messages; /* the one that is coming; whole ones, as length + bytes */
    int message_count, message_at_len;
    wtext pongs;

    /* Script. */
    step *steps;
    size_t count, cap, at;
    int64_t until; /* of a delay that has begun; -1 */
    void *user;
};

typedef struct world_stream {
    sbx_stream base;
    world *w;
    peer *p;
    int connected, failed; /* 2: a write failed, and reads have not said the last yet */
    unsigned calls[4];     /* by kind: each has its own turn of SBX_AGAIN */
    unsigned pieces;
} world_stream;

enum {
    WORLD_DIAL = 1,
    WORLD_CONNECT = 2,
    WORLD_IN = 4,
    WORLD_OUT = 8,
    WORLD_WAIT = 16,
    WORLD_ENTROPY = 32,
    WORLD_ALL = 63
};

typedef struct world_event {
    int64_t at;
    world_fn fn;
    void *user;
} world_event;

struct world {
    sbx_transport transport;
    sbx_config config;
    sbx_client *client;
    int open; /* whether the open hook ran and close did not */

    int64_t now, wall, slept, longest_sleep, longest_request;
    int64_t clock; /* what the monotonic clock shows more than now */
    int waits, spins, woken;
    world_event events[WORLD_EVENTS];
    int event_count;

    peer *peers[WORLD_PEERS];
    int peer_count, dials, live, most_live, secures;
    int buffering; /* streams hold what is written until flush */
    int two_items; /* streams ask for two items */
    uint64_t seed, to_peers, to_client;
    int reads, writes;

    /* For peers without a script. Called when a request or a message has come; takes it with
       peer_take_request or peer_take_message and says more steps. */
    void (*serve)(peer *p, void *user);
    void (*on_dial)(peer *p, void *user);
    void *serve_user;

    /* The N-th call of the kinds in fail_kinds fails; 0: none. */
    int fail_call, calls;
    unsigned fail_kinds;
    int failed_calls;

    /* Allocator. */
    sbx_allocator allocator;
    int fail_alloc, fail_from, allocs, live_blocks,
        failed_allocs; /* fail_from: and all later ones */
    size_t live_bytes, most_bytes, biggest;
    int key_left; /* blocks that were freed with the key inside */

    char id[80]; /* of the command, as the client chose it */
    wtext log;
    int log_lines;
    const char *key; /* that requests must carry; NULL: none may */
};

/* Fails the test, after saying where the world stands. */
#define world_fail(w, ...) world_fail_at((w), __FILE__, __LINE__, __VA_ARGS__)
static inline void world_fail_at(world *w, const char *file, int line, const char *format, ...)
{
    wtext text = {NULL, 0, 0};
    va_list args;
    va_start(args, format);
    wtext_vprintf(&text, format, args);
    va_end(args);
    print_error("%s\n  (at %ld ms, connections %d, of which open %d)\n", wtext_get(&text),
                (long)w->now, w->dials, w->live);
    if (w->log.len)
        print_error("  log:\n%.4000s\n", wtext_get(&w->log));
    wtext_free(&text);
    _fail(file, line);
}

/* ---- JSON, to be compared whatever the order of members ---- */

typedef struct canon {
    sbx_json json;
    const char *at;
    size_t left;
    char *scratch;
    const char *problem;
} canon;

static inline int canon_next(canon *c, sbx_json_event *e)
{
    sbx_status st;
    size_t used = 0;
    st = sbx_json_read(&c->json, c->at, c->left, &used, e);
    c->at += used;
    c->left -= used;
    if (st == SBX_AGAIN)
        st = sbx_json_finish(&c->json, e);
    if (st < 0)
        c->problem = c->json.problem ? c->json.problem : "not JSON";
    return st == SBX_OK;
}

static inline void canon_string(wtext *out, const char *text, size_t len)
{
    size_t i;
    wtext_puts(out, "\"");
    for (i = 0; i < len; i++) {
        if (text[i] == '"' || text[i] == '\\')
            wtext_puts(out, "\\");
        if ((unsigned char)text[i] < 0x20)
            wtext_printf(out, "\\u%04x", (unsigned)text[i]);
        else
            wtext_add(out, text + i, 1);
    }
    wtext_puts(out, "\"");
}

static inline int canon_order(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static inline void canon_value(canon *c, const sbx_json_event *first, wtext *out)
{
    sbx_json_event e = *first;
    char *members[256];
    size_t i, n = 0;
    if (e.type == SBX_JSON_OBJECT) {
        while (canon_next(c, &e) && e.type == SBX_JSON_KEY && n < 256) {
            wtext member = {NULL, 0, 0};
            canon_string(&member, e.text, e.len);
            for (i = 0; i < n; i++)
                if (strncmp(members[i], member.data, member.len) == 0 &&
                    members[i][member.len] == ':')
                    c->problem = "a member is there twice";
            wtext_puts(&member, ":");
            if (canon_next(c, &e))
                canon_value(c, &e, &member);
            members[n++] = member.data;
        }
        qsort(members, n, sizeof(members[0]), canon_order);
        wtext_puts(out, "{");
        for (i = 0; i < n; i++) {
            wtext_puts(out, i ? "," : "");
            wtext_puts(out, members[i]);
            free(members[i]);
        }
        wtext_puts(out, "}");
    } else if (e.type == SBX_JSON_ARRAY) {
        wtext_puts(out, "[");
        while (canon_next(c, &e) && e.type != SBX_JSON_ARRAY_END) {
            wtext_puts(out, n++ ? "," : "");
            canon_value(c, &e, out);
        }
        wtext_puts(out, "]");
    } else if (e.type == SBX_JSON_STRING) {
        canon_string(out, e.text, e.len);
    } else if (e.type == SBX_JSON_INTEGER) {
        wtext_printf(out, "%lld", (long long)e.integer);
    } else if (e.type == SBX_JSON_NUMBER) {
        wtext_printf(out, "%.17g", e.number);
    } else {
        wtext_puts(out, e.type == SBX_JSON_TRUE    ? "true"
                        : e.type == SBX_JSON_FALSE ? "false"
                                                   : "null");
    }
}

/* The JSON with sorted members and no white space; NULL if all is well, else why it is not JSON. */
static inline const char *json_canon(const char *text, size_t len, wtext *out)
{
    canon c;
    sbx_json_event e;
    memset(&c, 0, sizeof(c));
    c.at = text;
    c.left = len;
    c.scratch = (char *)malloc(len + 16);
    if (!c.scratch)
        abort();
    sbx_json_init(&c.json, c.scratch, len + 16);
    if (canon_next(&c, &e))
        canon_value(&c, &e, out);
    else if (!c.problem)
        c.problem = "empty";
    if (!c.problem && canon_next(&c, &e))
        c.problem = "more than one value";
    free(c.scratch);
    return c.problem;
}

/* The text or number of a member of the outermost object, "" if it is not there. */
static inline void json_member(const char *text, size_t len, const char *name, char *out,
                               size_t cap)
{
    canon c;
    sbx_json_event e;
    int wanted = 0;
    memset(&c, 0, sizeof(c));
    c.at = text;
    c.left = len;
    c.scratch = (char *)malloc(len + 16);
    if (!c.scratch)
        abort();
    out[0] = 0;
    sbx_json_init(&c.json, c.scratch, len + 16);
    while (canon_next(&c, &e)) {
        if (wanted && e.type == SBX_JSON_STRING)
            snprintf(out, cap, "%.*s", (int)e.len, e.text);
        else if (wanted && e.type == SBX_JSON_INTEGER)
            snprintf(out, cap, "%lld", (long long)e.integer);
        else if (wanted && (e.type == SBX_JSON_TRUE || e.type == SBX_JSON_FALSE))
            snprintf(out, cap, "%s", e.type == SBX_JSON_TRUE ? "true" : "false");
        wanted = e.type == SBX_JSON_KEY && e.depth == 1 && e.len == strlen(name) &&
                 memcmp(e.text, name, e.len) == 0;
    }
    free(c.scratch);
}

/* ---- the allocator ---- */

typedef union world_block {
    struct {
        size_t size;
        unsigned magic;
    } head;
    long double align_number;
    void *align_pointer;
} world_block;
#define WORLD_MAGIC 0x51b10c4bu

static inline void *world_resize(void *user, void *p, size_t old_size, size_t new_size)
{
    world *w = (world *)user;
    world_block *old = p ? (world_block *)p - 1 : NULL, *block = NULL;
    size_t key_len = strlen(WORLD_KEY);
    if (old && old->head.magic != WORLD_MAGIC)
        world_fail(w, "a block that is not the allocator's, or was freed before");
    if ((old ? old->head.size : 0) != old_size)
        world_fail(w, "a block of %lu bytes was said to have %lu",
                   (unsigned long)(old ? old->head.size : 0), (unsigned long)old_size);
    if (!old && new_size == 0)
        return NULL;
    if (new_size) {
        w->allocs++;
        if (new_size > w->biggest)
            w->biggest = new_size;
        if (w->fail_alloc &&
            (w->fail_from ? w->allocs >= w->fail_alloc : w->allocs == w->fail_alloc)) {
            w->failed_allocs++;
            return NULL;
        }
        block = (world_block *)malloc(sizeof(*block) + new_size);
        if (!block)
            abort();
        block->head.size = new_size;
        block->head.magic = WORLD_MAGIC;
        memset(block + 1, 0xa5, new_size);
        if (old)
            memcpy(block + 1, old + 1, old_size < new_size ? old_size : new_size);
        w->live_blocks++;
        w->live_bytes += new_size;
        if (w->live_bytes - (old ? old_size : 0) > w->most_bytes)
            w->most_bytes = w->live_bytes - (old ? old_size : 0);
    }
    if (old) {
        const char *at = (const char *)(old + 1), *end = at + old_size;
        while (at && (size_t)(end - at) >= key_len && memcmp(at, WORLD_KEY, key_len) != 0)
            at = (const char *)memchr(at + 1, WORLD_KEY[0], (size_t)(end - at) - 1);
        if (at && (size_t)(end - at) >= key_len)
            w->key_left++;
        old->head.magic = 0;
        w->live_blocks--;
        w->live_bytes -= old_size;
        free(old);
    }
    return block ? block + 1 : NULL;
}

/* ---- peers: parsing what came ---- */

static inline void request_reset(world_request *r)
{
    int i;
    for (i = 0; i < r->header_count; i++) {
        free(r->headers[i].name);
        free(r->headers[i].value);
    }
    free(r->target);
    wtext_free(&r->body);
    memset(r, 0, sizeof(*r));
}

static inline char *world_copy(const char *text, size_t len)
{
    char *copy = (char *)malloc(len + 1);
    if (!copy)
        abort();
    if (len)
        memcpy(copy, text, len);
    copy[len] = 0;
    return copy;
}

static inline int world_same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if ((*a | 32) != (*b | 32))
            return 0;
    return *a == *b;
}

/* The value of a header of the request, NULL if there is none. */
static inline const char *request_header(const world_request *r, const char *name)
{
    int i;
    for (i = 0; i < r->header_count; i++)
        if (world_same_name(r->headers[i].name, name))
            return r->headers[i].value;
    return NULL;
}

/* What every request must keep to, whatever it is for. */
static inline void request_check(peer *p)
{
    world_request *r = &p->request;
    world *w = p->w;
    int i, j;
    char host[300];
    const char *value;
    for (i = 0; i < r->header_count; i++)
        for (j = 0; j < i; j++)
            if (world_same_name(r->headers[i].name, r->headers[j].name))
                world_fail(w, "%s %s has the header %s twice", r->method, r->target,
                           r->headers[i].name);
    if (p->any_headers)
        return;
    snprintf(host, sizeof(host), strchr(p->host, ':') ? "[%s]:%u" : "%s:%u", p->host, p->port);
    value = request_header(r, "Host");
    if (!value || strncmp(value, host, strlen(value)) != 0 ||
        (strlen(value) < strlen(host) && p->port != 80 && p->port != 443))
        world_fail(w, "Host is %s, not %s", value ? value : "missing", host);
    value = request_header(r, "X-Api-Key");
    if (w->key && !p->no_key && (!value || strcmp(value, w->key) != 0))
        world_fail(w, "%s %s has the wrong API key: %s", r->method, r->target,
                   value ? value : "none");
    if ((!w->key || p->no_key) && value)
        world_fail(w, "%s %s carries an API key", r->method, r->target);
    if (request_header(r, "Content-Length") && request_header(r, "Transfer-Encoding"))
        world_fail(w, "%s %s has two lengths", r->method, r->target);
}

static inline void peer_read_http(peer *p)
{
    sbx_http1_event e;
    size_t used = 0;
    sbx_status st = SBX_OK;
    world_request *r = &p->request;
    while (!r->done && p->in.len) {
        st = sbx_http1_read(&p->http, p->in.data, p->in.len, &used, &e);
        if (st < 0)
            world_fail(p->w, "connection %d: a bad request: %s\n%.2000s", p->number,
                       p->http.problem, wtext_get(&p->raw));
        if (st == SBX_OK && e.type == SBX_HTTP1_START) {
            snprintf(r->method, sizeof(r->method), "%.*s", (int)e.name_len, e.name);
            r->target = world_copy(e.value, e.value_len);
            if (e.minor_version != 1)
                world_fail(p->w, "a request in HTTP/1.%d", e.minor_version);
        } else if (st == SBX_OK && e.type == SBX_HTTP1_HEADER) {
            r->headers[r->header_count].name = world_copy(e.name, e.name_len);
            r->headers[r->header_count++].value = world_copy(e.value, e.value_len);
        } else if (st == SBX_OK && e.type == SBX_HTTP1_HEAD_END) {
            r->chunked = e.content_length == SBX_NONE;
            r->head_done = 1;
            request_check(p);
        } else if (st == SBX_OK && e.type == SBX_HTTP1_BODY) {
            r->body_len += e.len;
            if (!p->discard_body)
                wtext_add(&r->body, e.data, e.len);
        } else if (st == SBX_OK && e.type == SBX_HTTP1_MESSAGE_END) {
            r->done = 1;
            p->requests++;
        }
        wtext_drop(&p->in, used);
        if (st != SBX_OK)
            break;
    }
    /* The end of a head or body without further bytes. */
    while (r->head_done && !r->done && st == SBX_OK) {
        st = sbx_http1_read(&p->http, "", 0, &used, &e);
        if (st == SBX_OK && e.type == SBX_HTTP1_MESSAGE_END) {
            r->done = 1;
            p->requests++;
        }
    }
}

static inline void peer_emit(peer *p, const void *data, size_t len)
{
    wtext_add(&p->out, data, len);
}

static inline void peer_emit_frame(peer *p, int opcode, int fin, const void *data, size_t len)
{
    unsigned char head[SBX_WS_HEADER_MAX];
    peer_emit(p, head, sbx_ws_header(head, opcode, fin, len, NULL));
    peer_emit(p, data, len);
}

static inline void peer_read_ws(peer *p)
{
    sbx_ws_event e;
    size_t used = 0;
    sbx_status st;
    while (p->in.len) {
        st = sbx_ws_read(&p->ws, p->in.data, p->in.len, &used, &e);
        if (st < 0)
            world_fail(p->w, "connection %d: a bad frame: %s", p->number, p->ws.problem);
        if (st == SBX_END)
            world_fail(p->w, "connection %d: bytes after the close frame", p->number);
        if (st == SBX_OK && (e.opcode == SBX_WS_TEXT || e.opcode == SBX_WS_BINARY)) {
            wtext_add(&p->message, e.data, e.len);
            if (e.opcode == SBX_WS_BINARY)
                world_fail(p->w, "a binary message");
            if (e.last) {
                if (!p->w->id[0])
                    json_member(wtext_get(&p->message), p->message.len, "command_id", p->w->id,
                                sizeof(p->w->id));
                wtext_add(&p->messages, &p->message.len, sizeof(p->message.len));
                wtext_add(&p->messages, p->message.data, p->message.len);
                p->message_count++;
                p->message.len = 0;
            }
        } else if (st == SBX_OK && e.opcode == SBX_WS_PING) {
            p->pings++;
            if (!p->mute)
                peer_emit_frame(p, SBX_WS_PONG, 1, e.data, e.len);
        } else if (st == SBX_OK && e.opcode == SBX_WS_PONG) {
            wtext_add(&p->pongs, e.data, e.len);
            wtext_puts(&p->pongs, "\n");
        } else if (st == SBX_OK && e.opcode == SBX_WS_CLOSE) {
            p->ws_closed = 1;
            p->ws_close_code = e.close_code;
        }
        wtext_drop(&p->in, used);
        if (st == SBX_AGAIN)
            break;
    }
}

/* ---- peers: playing the script ---- */

static inline void world_substitute(const world *w, const wtext *in, wtext *out)
{
    const char *at = wtext_get(in), *next;
    while ((next = strstr(at, "$id")) != NULL) {
        wtext_add(out, at, (size_t)(next - at));
        wtext_puts(out, w->id);
        at = next + 3;
    }
    wtext_add(out, at, in->len - (size_t)(at - wtext_get(in)));
}

static inline void world_same_json(world *w, const wtext *expected, const char *got, size_t len,
                                   const char *what)
{
    wtext a = {NULL, 0, 0}, b = {NULL, 0, 0}, filled = {NULL, 0, 0};
    const char *problem;
    world_substitute(w, expected, &filled);
    problem = json_canon(wtext_get(&filled), filled.len, &a);
    if (problem)
        world_fail(w, "the test's own JSON: %s: %s", problem, wtext_get(&filled));
    problem = json_canon(got, len, &b);
    if (problem || strcmp(wtext_get(&a), wtext_get(&b)) != 0)
        world_fail(w, "%s%s%s\n  expected %s\n       got %s", what, problem ? ": " : "",
                   problem ? problem : "", wtext_get(&a), problem ? got : wtext_get(&b));
    wtext_free(&a);
    wtext_free(&b);
    wtext_free(&filled);
}

static inline void peer_check_request(peer *p, const step *s, int whole)
{
    world_request *r = &p->request;
    size_t at;
    const char *line, *colon, *value;
    char name[128];
    if (strcmp(r->method, wtext_get(&s->a)) != 0 || strcmp(r->target, wtext_get(&s->b)) != 0)
        world_fail(p->w, "connection %d\n  expected %s %s\n       got %s %s", p->number,
                   wtext_get(&s->a), wtext_get(&s->b), r->method, r->target);
    for (at = 0; at < s->with.len; at += strlen(line) + 1) {
        line = s->with.data + at;
        colon = strchr(line, ':');
        snprintf(name, sizeof(name), "%.*s", (int)(colon - line), line);
        value = request_header(r, name);
        if (!value || strcmp(value, colon + 2) != 0)
            world_fail(p->w, "%s %s\n  expected %s\n       got %s", r->method, r->target, line,
                       value ? value : "no such header");
    }
    for (at = 0; at < s->without.len; at += strlen(s->without.data + at) + 1)
        if (request_header(r, s->without.data + at))
            world_fail(p->w, "%s %s has the header %s", r->method, r->target, s->without.data + at);
    if (!whole)
        return;
    if (s->body_kind == 1) {
        value = request_header(r, "Content-Type");
        if (!value || strcmp(value, "application/json") != 0)
            world_fail(p->w, "%s %s: Content-Type is %s", r->method, r->target,
                       value ? value : "missing");
        world_same_json(p->w, &s->body, wtext_get(&r->body), r->body.len, "the request's body");
    } else if (s->body_kind == 2) {
        if (r->body.len != s->body.len ||
            memcmp(wtext_get(&r->body), wtext_get(&s->body), r->body.len))
            world_fail(p->w, "%s %s\n  expected %.1000s\n       got %.1000s", r->method, r->target,
                       wtext_get(&s->body), wtext_get(&r->body));
    } else if (s->body_kind == 0 && r->body_len && r->method[0] != 'P') {
        world_fail(p->w, "%s %s has a body", r->method, r->target);
    }
}

static inline void peer_accept_upgrade(peer *p)
{
    world_request *r = &p->request;
    const char *key = request_header(r, "Sec-WebSocket-Key");
    const char *connection = request_header(r, "Connection");
    const char *upgrade = request_header(r, "Upgrade");
    const char *version = request_header(r, "Sec-WebSocket-Version");
    char accept[29], head[256];
    int n;
    if (strcmp(r->method, "GET") != 0 || !key || strlen(key) != 24 || strcmp(key + 22, "==") != 0 ||
        !connection || !sbx_http1_has_token(connection, strlen(connection), "upgrade") ||
        !upgrade || !sbx_http1_has_token(upgrade, strlen(upgrade), "websocket") || !version ||
        strcmp(version, "13") != 0 || request_header(r, "Sec-WebSocket-Extensions"))
        world_fail(p->w, "not a WebSocket upgrade:\n%.2000s", wtext_get(&p->raw));
    sbx_ws_accept(key, strlen(key), accept);
    n = snprintf(head, sizeof(head),
                 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Accept: %s\r\n\r\n",
                 accept);
    peer_emit(p, head, (size_t)n);
    p->ws_mode = 1;
    sbx_ws_init(&p->ws, SBX_WS_SERVER, 64u << 20);
}

/* Takes the oldest message; 0 if there is none. */
static inline int peer_take_message(peer *p, wtext *out)
{
    size_t len;
    out->len = 0;
    if (!p->message_count)
        return 0;
    memcpy(&len, p->messages.data, sizeof(len));
    wtext_add(out, p->messages.data + sizeof(len), len);
    wtext_drop(&p->messages, sizeof(len) + len);
    p->message_count--;
    return 1;
}

static inline void peer_take_request(peer *p)
{
    request_reset(&p->request);
}

/* Plays one step; 0 if it has to wait. */
static inline int peer_play(peer *p, step *s)
{
    wtext text = {NULL, 0, 0};
    world *w = p->w;
    switch (s->kind) {
    case STEP_HEAD:
        if (!p->request.head_done)
            return 0;
        peer_check_request(p, s, 0);
        return 1;
    case STEP_REQUEST:
    case STEP_UPGRADE:
        if (!p->request.done)
            return 0;
        peer_check_request(p, s, 1);
        if (s->kind == STEP_UPGRADE)
            peer_accept_upgrade(p);
        peer_take_request(p);
        return 1;
    case STEP_SEND:
        if (s->substitute) {
            /* A text message: framed here, because its length depends on the id. */
            world_substitute(w, &s->a, &text);
            peer_emit_frame(p, SBX_WS_TEXT, 1, text.data, text.len);
            wtext_free(&text);
        } else {
            peer_emit(p, s->a.data, s->a.len);
        }
        return 1;
    case STEP_DELAY:
        if (p->until < 0)
            p->until = w->now + s->number;
        if (w->now < p->until)
            return 0;
        p->until = -1;
        return 1;
    case STEP_CLOSE:
        p->ending = SBX_END;
        return 1;
    case STEP_RESET:
        p->ending = SBX_E_CONNECTION;
        return 1;
    case STEP_CALL:
        s->fn(w, s->user);
        return 1;
    case STEP_WS_EXPECT:
        if (!peer_take_message(p, &text)) {
            wtext_free(&text);
            return 0;
        }
        world_same_json(w, &s->a, wtext_get(&text), text.len, "the message");
        wtext_free(&text);
        return 1;
    case STEP_WS_PONG:
        if (!p->pongs.len)
            return 0;
        if (p->pongs.len != s->a.len + 1 || memcmp(p->pongs.data, s->a.data, s->a.len) != 0)
            world_fail(w, "expected the pong %s\n     got %s", wtext_get(&s->a),
                       wtext_get(&p->pongs));
        p->pongs.len = 0;
        return 1;
    case STEP_WS_CLOSED:
        if (!p->ws_closed)
            return 0;
        if (s->number && p->ws_close_code != s->number)
            world_fail(w, "expected the close code %d, got %d", (int)s->number, p->ws_close_code);
        return 1;
    case STEP_END:
        return p->client_closed;
    }
    return 0;
}

static inline void peer_pump(peer *p)
{
    int again = 1;
    while (again) {
        again = 0;
        if (p->ws_mode && !p->deaf)
            peer_read_ws(p);
        else if (!p->deaf)
            peer_read_http(p);
        while (p->at < p->count && peer_play(p, &p->steps[p->at])) {
            p->at++;
            again = 1;
        }
        if (p->at == p->count && (p->request.done || p->message_count) && p->ending == SBX_OK) {
            if (!p->w->serve) {
                wtext text = {NULL, 0, 0};
                peer_take_message(p, &text);
                world_fail(p->w, "connection %d: the script has ended, but here comes %s %s %s",
                           p->number, p->request.method, p->request.target ? p->request.target : "",
                           wtext_get(&text));
            }
            p->w->serve(p, p->w->serve_user);
            again = 1;
        }
    }
}

/* ---- time ---- */

/* Calls fn when ms have passed. */
static inline void world_at(world *w, int64_t ms, world_fn fn, void *user)
{
    world_event *e = &w->events[w->event_count++];
    if (w->event_count > WORLD_EVENTS)
        abort();
    e->at = w->now + ms;
    e->fn = fn;
    e->user = user;
}

static inline void world_pump(world *w)
{
    int i;
    for (i = 0; i < w->event_count; i++) {
        world_event e = w->events[i];
        if (e.at <= w->now) {
            w->events[i--] = w->events[--w->event_count];
            e.fn(w, e.user);
        }
    }
    for (i = 0; i < w->peer_count; i++)
        if (w->peers[i]->dialled)
            peer_pump(w->peers[i]);
}

static inline int64_t world_next(const world *w)
{
    int64_t next = WORLD_NEVER;
    int i;
    for (i = 0; i < w->event_count; i++)
        if (w->events[i].at < next)
            next = w->events[i].at;
    for (i = 0; i < w->peer_count; i++) {
        const peer *p = w->peers[i];
        if (!p->dialled)
            continue;
        if (p->until >= 0 && p->until < next)
            next = p->until;
        if (p->live && p->connect_ms != WORLD_NEVER && p->dialled_at + p->connect_ms > w->now &&
            p->dialled_at + p->connect_ms < next)
            next = p->dialled_at + p->connect_ms;
    }
    return next;
}

/* How many bytes the client may read now. */
static inline size_t peer_readable(const peer *p)
{
    size_t n = p->out.len - p->out_at;
    if (p->cut_at >= 0 && (int64_t)n > p->cut_at - p->delivered)
        n = (size_t)(p->cut_at - p->delivered);
    return n;
}

static inline int peer_at_end(const peer *p)
{
    return peer_readable(p) == 0 &&
           (p->ending != SBX_OK || (p->cut_at >= 0 && p->delivered >= p->cut_at));
}

static inline int peer_connected(const peer *p)
{
    return p->connect_ms != WORLD_NEVER && p->w->now >= p->dialled_at + p->connect_ms;
}

static inline int peer_ready(const peer *p, unsigned want)
{
    if (!peer_connected(p))
        return 0;
    if ((want & SBX_READ) && (peer_readable(p) || peer_at_end(p)))
        return 1;
    return (want & SBX_WRITE) && (p->stuck_after < 0 || p->taken < p->stuck_after);
}

/* Counts a call that may be made to fail. */
static inline int world_fails(world *w, unsigned kind)
{
    if (w->fail_call && (w->fail_kinds & kind) && ++w->calls == w->fail_call) {
        w->failed_calls++;
        return 1;
    }
    if (!w->fail_call && (w->fail_kinds & kind))
        w->calls++;
    return 0;
}

static inline void world_spin(world *w)
{
    if (++w->spins > 2000)
        world_fail(w, "2000 waits without any progress: a busy loop");
}

static inline sbx_status world_wait_hook(void *state, const sbx_item *items, int n,
                                         int64_t timeout_ms)
{
    world *w = (world *)state;
    int64_t until, next;
    int i;
    w->waits++;
    if (n < 0 || (n > 0 && !items) || timeout_ms < SBX_NONE)
        world_fail(w, "wait was called with %d items and %ld ms", n, (long)timeout_ms);
    if (world_fails(w, WORLD_WAIT))
        return SBX_E_CANCELLED;
    world_pump(w);
    if (w->woken) {
        w->woken = 0;
        world_spin(w);
        return SBX_OK;
    }
    for (i = 0; i < n; i++) {
        int h = (int)items[i].handle;
        if (h < 0 || h >= w->peer_count || !w->peers[h]->live)
            world_fail(w, "wait for the handle %d, which is not open", h);
        if (items[i].want & ~(unsigned)(SBX_READ | SBX_WRITE))
            world_fail(w, "wait for an unknown want %u", items[i].want);
        if (peer_ready(w->peers[h], items[i].want)) {
            world_spin(w);
            return SBX_OK;
        }
    }
    if (timeout_ms == 0) {
        world_spin(w);
        return SBX_OK;
    }
    if (timeout_ms == SBX_NONE || timeout_ms > w->longest_request)
        w->longest_request = timeout_ms == SBX_NONE ? WORLD_NEVER : timeout_ms;
    next = world_next(w);
    if (timeout_ms == SBX_NONE && next == WORLD_NEVER)
        world_fail(w, "hangs: a wait without time limit for something that never happens");
    until = timeout_ms == SBX_NONE || next < w->now + timeout_ms ? next : w->now + timeout_ms;
    if (until - w->now > w->longest_sleep)
        w->longest_sleep = until - w->now;
    w->slept += until - w->now;
    w->now = until;
    w->spins = 0;
    world_pump(w);
    w->woken = 0;
    return SBX_OK;
}

static inline void world_wakeup_hook(void *state)
{
    ((world *)state)->woken = 1;
}

static inline int64_t world_now_hook(void *state)
{
    return ((world *)state)->now + ((world *)state)->clock;
}

static inline int64_t world_wall_hook(void *state)
{
    return ((world *)state)->wall + ((world *)state)->now;
}

static inline sbx_status world_entropy_hook(void *state, void *buf, size_t len)
{
    world *w = (world *)state;
    unsigned char *out = (unsigned char *)buf;
    if (world_fails(w, WORLD_ENTROPY))
        return SBX_E_ENTROPY;
    while (len--) {
        w->seed ^= w->seed << 13;
        w->seed ^= w->seed >> 7;
        w->seed ^= w->seed << 17;
        *out++ = (unsigned char)(w->seed >> 32);
    }
    return SBX_OK;
}

/* ---- streams ---- */

static inline sbx_status stream_fail(world_stream *s, sbx_status status, int code,
                                     const char *detail)
{
    s->failed = 1;
    s->base.native_code = code;
    s->base.detail = detail;
    return status;
}

/* Checks that a call is allowed, and says whether it is one that must say SBX_AGAIN. */
static inline int stream_begin(world_stream *s, int kind)
{
    if (s->failed && !(s->failed == 2 && kind == 1))
        world_fail(s->w, "connection %d is used after it failed", s->p->number);
    if (kind != 0 && !s->connected)
        world_fail(s->w, "connection %d is used before it is connected", s->p->number);
    return s->p->every_other && s->calls[kind]++ % 2 == 0;
}

static inline sbx_status stream_connect(sbx_stream *base)
{
    world_stream *s = (world_stream *)base;
    int again = stream_begin(s, 0);
    if (world_fails(s->w, WORLD_CONNECT))
        return stream_fail(s, SBX_E_CONNECT, 111, "connection refused");
    if (s->connected)
        return SBX_OK;
    if (again || !peer_connected(s->p))
        return SBX_AGAIN;
    if (s->p->refuse)
        return stream_fail(s, s->p->refuse, 111, "connection refused");
    s->connected = 1;
    s->w->spins = 0;
    peer_pump(s->p);
    return SBX_OK;
}

static inline sbx_status stream_read_now(world_stream *s, void *buf, size_t cap, size_t *n)
{
    peer *p = s->p;
    int again = stream_begin(s, 1);
    size_t len;
    *n = 0;
    s->w->reads++;
    if (!buf || !cap)
        world_fail(s->w, "read without room");
    if (world_fails(s->w, WORLD_IN))
        return stream_fail(s, SBX_E_CONNECTION, 104, "connection reset by peer");
    peer_pump(p);
    if (again)
        return SBX_AGAIN;
    len = peer_readable(p);
    if (len == 0 && peer_at_end(p)) {
        s->w->spins = 0;
        if (p->ending == SBX_E_CONNECTION ||
            (p->ending == SBX_OK && p->cut_how == SBX_E_CONNECTION))
            return stream_fail(s, SBX_E_CONNECTION, 104, "connection reset by peer");
        return SBX_END;
    }
    if (p->piece && !p->every_other && s->pieces++ % 2)
        return SBX_AGAIN;
    if (len == 0)
        return SBX_AGAIN;
    if (p->piece && len > p->piece)
        len = p->piece;
    if (len > cap)
        len = cap;
    memcpy(buf, p->out.data + p->out_at, len);
    p->out_at += len;
    p->delivered += (int64_t)len;
    s->w->to_client += len;
    s->w->spins = 0;
    if (p->out_at == p->out.len)
        p->out_at = p->out.len = 0;
    *n = len;
    return SBX_OK;
}

static inline sbx_status stream_read(sbx_stream *base, void *buf, size_t cap, size_t *n)
{
    world_stream *s = (world_stream *)base;
    sbx_status st = stream_read_now(s, buf, cap, n);
    if (s->failed && st != SBX_OK)
        s->failed = 1;
    return st;
}

static inline void peer_receive(peer *p, const void *data, size_t len)
{
    int lost = p->lose_after >= 0 && (int64_t)len > p->lose_after - p->arrived;
    if (lost)
        len = (size_t)(p->lose_after - p->arrived);
    p->arrived += (int64_t)len;
    if (p->ending == SBX_OK) {
        wtext_add(&p->in, data, len);
        if (!p->discard_body)
            wtext_add(&p->raw, data, len);
    }
    peer_pump(p);
    if (lost) {
        p->ending = SBX_E_CONNECTION;
        if (p->lose_answers)
            p->out.len = p->out_at;
    }
}

/* After this, what the peer said before may still be read. */
static inline sbx_status stream_fail_write(world_stream *s, int code, const char *detail)
{
    sbx_status status = stream_fail(s, SBX_E_CONNECTION, code, detail);
    s->failed = 2;
    return status;
}

static inline sbx_status stream_write(sbx_stream *base, const void *buf, size_t len, size_t *n)
{
    world_stream *s = (world_stream *)base;
    peer *p = s->p;
    int again = stream_begin(s, 2);
    *n = 0;
    s->w->writes++;
    if (!buf || !len)
        world_fail(s->w, "write of nothing");
    if (world_fails(s->w, WORLD_OUT))
        return stream_fail_write(s, 32, "broken pipe");
    if (again)
        return SBX_AGAIN;
    /* As with sockets: the first write to a peer that has gone seems to work. */
    if ((p->ending == SBX_E_CONNECTION || p->ending == SBX_END) && p->writes_after_end++)
        return stream_fail_write(s, 32, "broken pipe");
    if (p->cut_at >= 0 && p->delivered >= p->cut_at && p->writes_after_end++)
        return stream_fail_write(s, 32, "broken pipe");
    if (p->take_at_most >= 0 && p->taken >= p->take_at_most)
        return stream_fail_write(s, 104, "connection reset by peer");
    if (p->stuck_after >= 0 && p->taken >= p->stuck_after)
        return SBX_AGAIN;
    if (p->write_max && len > p->write_max)
        len = p->write_max;
    if (p->take_at_most >= 0 && (int64_t)len > p->take_at_most - p->taken)
        len = (size_t)(p->take_at_most - p->taken);
    if (p->stuck_after >= 0 && (int64_t)len > p->stuck_after - p->taken)
        len = (size_t)(p->stuck_after - p->taken);
    p->taken += (int64_t)len;
    s->w->to_peers += len;
    s->w->spins = 0;
    *n = len;
    if (s->w->buffering)
        wtext_add(&p->held, buf, len);
    else
        peer_receive(p, buf, len);
    return SBX_OK;
}

static inline sbx_status stream_flush(sbx_stream *base)
{
    world_stream *s = (world_stream *)base;
    if (stream_begin(s, 3))
        return SBX_AGAIN;
    if (s->p->held.len) {
        wtext held = s->p->held;
        memset(&s->p->held, 0, sizeof(s->p->held));
        peer_receive(s->p, held.data, held.len);
        wtext_free(&held);
        s->w->spins = 0;
    }
    return SBX_OK;
}

static inline int stream_wants(sbx_stream *base, unsigned want, sbx_item *items, int cap,
                               int64_t *timeout_ms)
{
    world_stream *s = (world_stream *)base;
    int n = 0;
    if (cap < SBX_ITEMS || !items || !timeout_ms || *timeout_ms < SBX_NONE)
        world_fail(s->w, "wants with room for %d items", cap);
    if (s->failed)
        world_fail(s->w, "wants of a stream that failed");
    if (!s->connected)
        want = SBX_WRITE;
    if (!want)
        return 0;
    items[n].handle = s->p->number;
    items[n++].want = want;
    if (s->w->two_items)
        items[n++] = items[0];
    return n;
}

static inline void stream_close(sbx_stream *base)
{
    world_stream *s = (world_stream *)base;
    s->w->live--;
    s->p->live = 0;
    s->p->client_closed = 1;
    s->p->closed_at = s->w->now;
    peer_pump(s->p);
    free(s);
}

static const sbx_stream_methods world_methods = {stream_connect, stream_read,  stream_write,
                                                 NULL,           stream_wants, stream_close};
static const sbx_stream_methods world_buffered_methods = {
    stream_connect, stream_read, stream_write, stream_flush, stream_wants, stream_close};

static inline peer *world_add_peer(world *w)
{
    peer *p = (peer *)calloc(1, sizeof(*p));
    if (!p)
        abort();
    if (w->peer_count == WORLD_PEERS)
        world_fail(w, "more than %d connections", WORLD_PEERS);
    p->w = w;
    p->number = w->peer_count;
    p->cut_at = p->take_at_most = p->stuck_after = p->lose_after = p->until = -1;
    p->cut_how = SBX_E_CONNECTION;
    sbx_http1_init(&p->http, SBX_HTTP1_REQUEST, p->scratch, sizeof(p->scratch));
    w->peers[w->peer_count++] = p;
    return p;
}

static inline sbx_status world_dial_hook(void *state, const char *host, uint16_t port,
                                         sbx_stream **out)
{
    world *w = (world *)state;
    peer *p;
    world_stream *s;
    *out = NULL;
    if (world_fails(w, WORLD_DIAL))
        return SBX_E_CONNECTION;
    if (w->dials == w->peer_count) {
        if (!w->serve)
            world_fail(w, "a connection to %s:%u that nobody expects", host, (unsigned)port);
        world_add_peer(w)->optional = 1;
    }
    p = w->peers[w->dials++];
    if (w->on_dial)
        w->on_dial(p, w->serve_user);
    snprintf(p->host, sizeof(p->host), "%s", host);
    p->port = port;
    p->dialled = 1;
    p->dialled_at = w->now;
    if (p->refuse_dial)
        return p->refuse_dial;
    s = (world_stream *)calloc(1, sizeof(*s));
    if (!s)
        abort();
    s->base.methods = w->buffering ? &world_buffered_methods : &world_methods;
    s->w = w;
    s->p = p;
    p->live = 1;
    if (++w->live > w->most_live)
        w->most_live = w->live;
    *out = &s->base;
    return SBX_OK;
}

/* TLS as the library sees it, without any cryptography: a handshake that takes one more round, and
   up to 1000 bytes that are held in the layer while the stream below has nothing left. */
typedef struct world_tls {
    sbx_stream base;
    world *w;
    sbx_stream *lower;
    sbx_status refuse;
    int rounds;
    char held[1000];
    size_t at, len;
} world_tls;

static inline sbx_status tls_below(world_tls *t, sbx_status status)
{
    if (status < 0) {
        t->base.native_code = t->lower->native_code;
        t->base.detail = t->lower->detail;
    }
    return status;
}

static inline sbx_status tls_connect(sbx_stream *base)
{
    world_tls *t = (world_tls *)base;
    sbx_status st = t->lower->methods->connect(t->lower);
    if (st != SBX_OK)
        return tls_below(t, st);
    if (t->rounds++ == 0)
        return SBX_AGAIN;
    if (t->refuse) {
        t->base.native_code = 54;
        t->base.detail = "the certificate has expired";
        return t->refuse;
    }
    return SBX_OK;
}

static inline sbx_status tls_read(sbx_stream *base, void *buf, size_t cap, size_t *n)
{
    world_tls *t = (world_tls *)base;
    *n = 0;
    if (t->at == t->len) {
        sbx_status st = t->lower->methods->read(t->lower, t->held, sizeof(t->held), &t->len);
        t->at = 0;
        if (st != SBX_OK)
            return tls_below(t, st);
    }
    *n = t->len - t->at < cap ? t->len - t->at : cap;
    /* Not all at once: the library has to read on until SBX_AGAIN. */
    if (*n > 7)
        *n = *n / 2 + 1;
    memcpy(buf, t->held + t->at, *n);
    t->at += *n;
    return SBX_OK;
}

static inline sbx_status tls_write(sbx_stream *base, const void *buf, size_t len, size_t *n)
{
    world_tls *t = (world_tls *)base;
    return tls_below(t, t->lower->methods->write(t->lower, buf, len, n));
}

static inline sbx_status tls_flush(sbx_stream *base)
{
    world_tls *t = (world_tls *)base;
    return t->lower->methods->flush ? tls_below(t, t->lower->methods->flush(t->lower)) : SBX_OK;
}

static inline int tls_wants(sbx_stream *base, unsigned want, sbx_item *items, int cap,
                            int64_t *timeout_ms)
{
    world_tls *t = (world_tls *)base;
    return t->lower->methods->wants(t->lower, want ? want : (unsigned)SBX_WRITE, items, cap,
                                    timeout_ms);
}

static inline void tls_close(sbx_stream *base)
{
    world_tls *t = (world_tls *)base;
    t->lower->methods->close(t->lower);
    free(t);
}

static const sbx_stream_methods world_tls_methods = {tls_connect, tls_read,  tls_write,
                                                     tls_flush,   tls_wants, tls_close};

static inline sbx_status world_secure_hook(void *state, sbx_stream *lower, const char *host,
                                           sbx_stream **out)
{
    world *w = (world *)state;
    peer *p = w->peers[w->dials - 1];
    world_tls *t = (world_tls *)calloc(1, sizeof(*t));
    if (!t)
        abort();
    if (strcmp(host, p->host) != 0)
        world_fail(w, "secure for %s on a connection to %s", host, p->host);
    t->base.methods = &world_tls_methods;
    t->w = w;
    t->lower = lower;
    t->refuse = p->tls_refuse;
    p->secured = 1;
    w->secures++;
    *out = &t->base;
    return SBX_OK;
}

/* ---- the world ---- */

static inline sbx_status world_open_hook(void *user, void **state)
{
    world *w = (world *)user;
    if (w->open)
        world_fail(w, "open is called twice");
    w->open = 1;
    *state = w;
    return SBX_OK;
}

static inline void world_close_hook(void *state)
{
    world *w = (world *)state;
    if (!w->open || w->live)
        world_fail(w, "close with %d open connections", w->live);
    w->open = 0;
}

static inline void world_log_hook(void *user, int level, const char *line)
{
    world *w = (world *)user;
    if (level < SBX_LOG_WARNING || level > SBX_LOG_DEBUG || !line || !line[0])
        world_fail(w, "a log line of level %d: %s", level, line ? line : "(null)");
    if (strstr(line, WORLD_KEY))
        world_fail(w, "the key stands in a log line: %s", line);
    if (strpbrk(line, "\r\n"))
        world_fail(w, "a log line that is not one line: %s", line);
    w->log_lines++;
    wtext_printf(&w->log, "    %6ld %d %.2000s\n", (long)w->now, level, line);
}

static inline void world_init(world *w)
{
    memset(w, 0, sizeof(*w));
    w->transport.user = w;
    w->transport.open = world_open_hook;
    w->transport.close = world_close_hook;
    w->transport.dial = world_dial_hook;
    w->transport.secure = world_secure_hook;
    w->transport.wait = world_wait_hook;
    w->transport.wakeup = world_wakeup_hook;
    w->transport.now_ms = world_now_hook;
    w->transport.wall_ms = world_wall_hook;
    w->transport.entropy = world_entropy_hook;
    w->now = 5000;
    w->wall = INT64_C(1790000000000);
    w->seed = UINT64_C(0x9e3779b97f4a7c15);
    w->allocator.resize = world_resize;
    w->allocator.user = w;
    w->key = WORLD_KEY;
    w->config.transport = &w->transport;
    w->config.endpoint = WORLD_ENDPOINT;
    w->config.api_key = WORLD_KEY;
    w->config.allocator = w->allocator;
    w->config.log = world_log_hook;
    w->config.log_user = w;
}

static inline void world_open(world *w)
{
    sbx_error err;
    if (sbx_open(&w->config, &w->client, &err) != SBX_OK)
        world_fail(w, "sbx_open: %s", err.message);
}

/* A handle to the sandbox at WORLD_DATAPLANE, without traffic. */
static inline sbx_sandbox *world_sandbox(world *w)
{
    sbx_sandbox *sandbox = NULL;
    sbx_error err;
    if (sbx_sandbox_at(w->client, WORLD_DATAPLANE, &sandbox, &err) != SBX_OK)
        world_fail(w, "sbx_sandbox_at: %s", err.message);
    return sandbox;
}

static inline void world_free(world *w)
{
    int i;
    size_t k;
    for (i = 0; i < w->peer_count; i++) {
        peer *p = w->peers[i];
        for (k = 0; k < p->count; k++) {
            wtext_free(&p->steps[k].a);
            wtext_free(&p->steps[k].b);
            wtext_free(&p->steps[k].with);
            wtext_free(&p->steps[k].without);
            wtext_free(&p->steps[k].body);
        }
        free(p->steps);
        request_reset(&p->request);
        wtext_free(&p->in);
        wtext_free(&p->raw);
        wtext_free(&p->out);
        wtext_free(&p->held);
        wtext_free(&p->message);
        wtext_free(&p->messages);
        wtext_free(&p->pongs);
        free(p);
    }
    wtext_free(&w->log);
    memset(w, 0, sizeof(*w));
}

/* Closes the client; all scripts must have been played, and nothing may be left behind. */
static inline void world_done(world *w)
{
    int i;
    sbx_close(w->client);
    w->client = NULL;
    if (w->live || w->open)
        world_fail(w, "%d connections are left open", w->live);
    if (w->live_blocks)
        world_fail(w, "%d blocks of %lu bytes are left", w->live_blocks,
                   (unsigned long)w->live_bytes);
    for (i = 0; i < w->peer_count; i++) {
        peer *p = w->peers[i];
        if (p->optional)
            continue;
        if (!p->dialled)
            world_fail(w, "connection %d was never made", i);
        peer_pump(p);
        if (p->at < p->count)
            world_fail(w, "connection %d: step %d of %d was not reached (kind %d: %s %s)", i,
                       (int)p->at + 1, (int)p->count, (int)p->steps[p->at].kind,
                       wtext_get(&p->steps[p->at].a), wtext_get(&p->steps[p->at].b));
        if (p->message_count || p->message.len || p->in.len || p->request.head_done)
            world_fail(w, "connection %d: something was sent that the script does not know", i);
    }
    world_free(w);
}

/* ---- scripts ---- */

/* The peer of the next connection that has none yet. */
static inline peer *world_peer(world *w)
{
    return world_add_peer(w);
}

static inline step *peer_step(peer *p, step_kind kind)
{
    if (p->count == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 16;
        p->steps = (step *)realloc(p->steps, p->cap * sizeof(step));
        if (!p->steps)
            abort();
    }
    memset(&p->steps[p->count], 0, sizeof(step));
    p->steps[p->count].kind = kind;
    return &p->steps[p->count++];
}

/* Expects a request. The checks that follow are for the last one. */
static inline void peer_request(peer *p, const char *method, const char *target)
{
    step *s = peer_step(p, STEP_REQUEST);
    wtext_puts(&s->a, method);
    wtext_puts(&s->b, target);
}

/* The same, as soon as its head has come; the rest of it is not awaited. */
static inline void peer_head(peer *p, const char *method, const char *target)
{
    peer_request(p, method, target);
    p->steps[p->count - 1].kind = STEP_HEAD;
}

static inline void peer_with(peer *p, const char *header)
{
    wtext_add(&p->steps[p->count - 1].with, header, strlen(header) + 1);
}

static inline void peer_without(peer *p, const char *name)
{
    wtext_add(&p->steps[p->count - 1].without, name, strlen(name) + 1);
}

static inline void peer_body(peer *p, const void *data, size_t len)
{
    p->steps[p->count - 1].body_kind = 2;
    wtext_add(&p->steps[p->count - 1].body, data, len);
}

static inline void peer_json(peer *p, const char *json)
{
    p->steps[p->count - 1].body_kind = 1;
    wtext_puts(&p->steps[p->count - 1].body, json);
}

static inline void peer_send(peer *p, const void *data, size_t len)
{
    wtext_add(&peer_step(p, STEP_SEND)->a, data, len);
}

static inline void peer_puts(peer *p, const char *text)
{
    peer_send(p, text, strlen(text));
}

/* A whole response, with more header lines ("Name: value\r\n" each) if extra is not NULL. */
static inline void peer_reply_with(peer *p, int status, const char *extra, const char *body)
{
    wtext text = {NULL, 0, 0};
    const char *reason = status == 200   ? "OK"
                         : status == 201 ? "Created"
                         : status == 204 ? "No Content"
                         : status == 404 ? "Not Found"
                                         : "Something";
    wtext_printf(&text, "HTTP/1.1 %d %s\r\n%s", status, reason, extra ? extra : "");
    if (status != 204)
        wtext_printf(&text, "Content-Type: application/json\r\nContent-Length: %lu\r\n",
                     (unsigned long)strlen(body));
    wtext_puts(&text, "\r\n");
    wtext_puts(&text, body);
    peer_send(p, text.data, text.len);
    wtext_free(&text);
}

static inline void peer_reply(peer *p, int status, const char *body)
{
    peer_reply_with(p, status, NULL, body);
}

static inline void peer_delay(peer *p, int64_t ms)
{
    peer_step(p, STEP_DELAY)->number = ms;
}

static inline void peer_close(peer *p)
{
    peer_step(p, STEP_CLOSE);
}

static inline void peer_reset(peer *p)
{
    peer_step(p, STEP_RESET);
}

static inline void peer_call(peer *p, world_fn fn, void *user)
{
    step *s = peer_step(p, STEP_CALL);
    s->fn = fn;
    s->user = user;
}

/* Expects that the client closes the connection. */
static inline void peer_end(peer *p)
{
    peer_step(p, STEP_END);
}

/* Expects a WebSocket upgrade and accepts it. */
static inline void peer_upgrade(peer *p, const char *target)
{
    peer_request(p, "GET", target);
    p->steps[p->count - 1].kind = STEP_UPGRADE;
}

/* Expects a text message with this JSON; $id stands for the command's id. */
static inline void peer_ws_expect(peer *p, const char *json)
{
    wtext_puts(&peer_step(p, STEP_WS_EXPECT)->a, json);
}

/* Sends a text message; $id stands for the command's id. */
static inline void peer_ws_text(peer *p, const char *text)
{
    step *s = peer_step(p, STEP_SEND);
    wtext_puts(&s->a, text);
    s->substitute = 1;
}

static inline void peer_ws_frame(peer *p, int opcode, int fin, const void *data, size_t len)
{
    unsigned char head[SBX_WS_HEADER_MAX];
    step *s = peer_step(p, STEP_SEND);
    wtext_add(&s->a, head, sbx_ws_header(head, opcode, fin, len, NULL));
    wtext_add(&s->a, data, len);
}

static inline void peer_ws_pong(peer *p, const char *payload)
{
    wtext_puts(&peer_step(p, STEP_WS_PONG)->a, payload);
}

/* Sends a close frame, without a code if code is 0. */
static inline void peer_ws_close(peer *p, int code)
{
    unsigned char payload[125];
    size_t len = code ? sbx_ws_close_payload(payload, code, "") : 0;
    peer_ws_frame(p, SBX_WS_CLOSE, 1, payload, len);
}

/* Expects the client's close frame, with this code if it is not 0. */
static inline void peer_ws_closed(peer *p, int code)
{
    peer_step(p, STEP_WS_CLOSED)->number = code;
}

/* ---- checks ---- */

/* What holds of every error that a call reported. */
static inline void check_error(world *w, sbx_status status, const sbx_error *err)
{
    if (err->status != status)
        world_fail(w, "the call returned %s, but err says %s: %s", sbx_status_name(status),
                   sbx_status_name(err->status), err->message);
    if ((status < 0) != (err->message[0] != 0))
        world_fail(w, "%s with the message '%s'", sbx_status_name(status), err->message);
    if (!err->resource_type || !err->operation || !err->quota_type)
        world_fail(w, "a text of the error is NULL");
    if (strstr(err->message, WORLD_KEY) || strstr(err->error_type, WORLD_KEY) ||
        strstr(err->field, WORLD_KEY))
        world_fail(w, "the key stands in the error: %s", err->message);
    if (status == SBX_OK && (err->http_status || err->error_type[0] || err->field[0]))
        world_fail(w, "err is not clear after success");
}

#define assert_status(w, expected, call, err)                                                      \
    do {                                                                                           \
        sbx_status status_ = (call);                                                               \
        if (status_ != (expected))                                                                 \
            world_fail((w), "expected %s, got %s: %s", sbx_status_name(expected),                  \
                       sbx_status_name(status_), (err)->message);                                  \
        check_error((w), status_, (err));                                                          \
    } while (0)

/* The error must mention something. */
#define assert_says(w, err, text)                                                                  \
    do {                                                                                           \
        if (!strstr((err)->message, (text)))                                                       \
            world_fail((w), "the message does not mention '%s': %s", (text), (err)->message);      \
    } while (0)

#define assert_between(value, low, high)                                                           \
    do {                                                                                           \
        int64_t value_ = (value);                                                                  \
        if (value_ < (low) || value_ > (high))                                                     \
            print_error("%s is %ld, not between %ld and %ld\n", #value, (long)value_, (long)(low), \
                        (long)(high));                                                             \
        assert_true(value_ >= (low) && value_ <= (high));                                          \
    } while (0)

#endif
