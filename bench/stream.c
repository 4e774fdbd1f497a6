/* The whole way of a command's output, from the wire to its bytes:

       bench/stream JOB SIZE COUNT

   reads COUNT WebSocket text frames with a message of SIZE bytes each,
   {"type":"stdout","data":"..","offset":N}, in reads of 64 KiB as from a socket, checks that they
   are UTF-8, and obtains type, data and offset. Jobs: sbx, and where they were compiled in
   wslay-cjson, wslay-jansson and wslay-yyjson. It prints the bytes of data it got and a sum over
   them, which are the same for every job.

       cc -O2 -DNDEBUG -I. bench/stream.c                     add -DSBX_NO_SIMD for portable C
       -DBENCH_WSLAY -lwslay and one of
       -DBENCH_CJSON -lcjson  -DBENCH_JANSSON -ljansson  -DBENCH_YYJSON -lyyjson       the peers */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sample.h"

#include <stdlib.h>

#ifdef BENCH_WSLAY
#include <wslay/wslay.h>
#ifdef BENCH_CJSON
#include <cjson/cJSON.h>
#endif
#ifdef BENCH_JANSSON
#include <jansson.h>
#endif
#ifdef BENCH_YYJSON
#include <yyjson.h>
#endif
#endif

#define READ_SIZE 65536

typedef struct stream {
    unsigned char *wire; /* whole frames, at least READ_SIZE bytes */
    size_t len, at;
    size_t size;   /* of a message */
    char *scratch; /* SCRATCH(size) bytes */
    char *joined;  /* size bytes: a message that came in pieces */
    long left;     /* messages still to be read */
    uint64_t bytes, sum;
} stream;

#define SCRATCH(size) (16 * (size) + 4096)

static void fail(const char *what)
{
    fprintf(stderr, "bench/stream: %s\n", what);
    exit(1);
}

/* The next bytes of the wire, at most max. The frames begin anew when they are used up. */
static unsigned char *next_read(stream *s, size_t max, size_t *len)
{
    unsigned char *p;
    if (s->at == s->len)
        s->at = 0;
    p = s->wire + s->at;
    *len = s->len - s->at < max ? s->len - s->at : max;
    s->at += *len;
    return p;
}

/* What every job does with what it found. */
static void take(stream *s, const char *type, const char *data, size_t len, int64_t offset)
{
    if (!type || strcmp(type, "stdout") != 0 || !data || len == 0)
        fail("the message was not understood");
    s->bytes += len;
    s->sum += (unsigned char)data[0] + (unsigned char)data[len / 2] * 3u +
              (unsigned char)data[len - 1] * 7u + (uint64_t)offset;
    s->left--;
}

/* ---- ours ---- */

static int is_key(const sbx_json_event *e, const char *name, size_t len)
{
    return e->len == len && memcmp(e->text, name, len) == 0;
}

static void read_message(stream *s, const char *message, size_t size)
{
    enum { NONE, TYPE, DATA, OFFSET } key = NONE;
    const char *type = NULL, *data = NULL;
    size_t at = 0, used, len = 0;
    int64_t offset = 0;
    sbx_json j;
    sbx_json_event e;
    sbx_status st;
    sbx_json_init(&j, s->scratch, SCRATCH(s->size));
    j.utf8_checked = 1; /* by the WebSocket reader */
    while ((st = sbx_json_read(&j, message + at, size - at, &used, &e)) == SBX_OK) {
        at += used;
        if (e.depth != 1)
            continue;
        if (e.type == SBX_JSON_KEY) {
            key = is_key(&e, "type", 4)     ? TYPE
                  : is_key(&e, "data", 4)   ? DATA
                  : is_key(&e, "offset", 6) ? OFFSET
                                            : NONE;
        } else if (e.type == SBX_JSON_STRING && key == TYPE) {
            type = is_key(&e, "stdout", 6) ? "stdout" : "";
        } else if (e.type == SBX_JSON_STRING && key == DATA) {
            data = e.text;
            len = e.len;
        } else if (e.type == SBX_JSON_INTEGER && key == OFFSET) {
            offset = e.integer;
        }
    }
    if (st != SBX_END)
        fail(j.problem ? j.problem : "a message is cut short");
    take(s, type, data, len, offset);
}

static void job_sbx(stream *s)
{
    sbx_ws ws;
    sbx_ws_event event;
    size_t joined = 0, len = 0, used;
    unsigned char *p = NULL;
    sbx_ws_init(&ws, SBX_WS_CLIENT, s->size);
    while (s->left > 0) {
        sbx_status st = sbx_ws_read(&ws, p, len, &used, &event);
        if (st < 0)
            fail(ws.problem);
        len -= used;
        if (st == SBX_AGAIN) {
            p = next_read(s, READ_SIZE, &len);
            continue;
        }
        p += used;
        if (event.first && event.last) {
            read_message(s, event.data, event.len);
            continue;
        }
        if (event.first)
            joined = 0;
        memcpy(s->joined + joined, event.data, event.len);
        joined += event.len;
        if (event.last)
            read_message(s, s->joined, joined);
    }
}

/* ---- wslay and a JSON library ---- */

#ifdef BENCH_WSLAY
typedef struct peer {
    stream *s;
    void (*message)(stream *s, const char *json, size_t len);
} peer;

static ssize_t wslay_receive(wslay_event_context_ptr ctx, uint8_t *buf, size_t len, int flags,
                             void *user)
{
    peer *p = (peer *)user;
    unsigned char *from;
    (void)flags;
    if (p->s->left == 0) {
        wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    from = next_read(p->s, len, &len);
    memcpy(buf, from, len);
    return (ssize_t)len;
}

static void wslay_message(wslay_event_context_ptr ctx,
                          const struct wslay_event_on_msg_recv_arg *arg, void *user)
{
    peer *p = (peer *)user;
    (void)ctx;
    if (p->s->left > 0)
        p->message(p->s, (const char *)arg->msg, arg->msg_length);
}

static void run_wslay(stream *s, void (*message)(stream *s, const char *json, size_t len))
{
    struct wslay_event_callbacks callbacks;
    wslay_event_context_ptr ctx;
    peer p;
    p.s = s;
    p.message = message;
    memset(&callbacks, 0, sizeof(callbacks));
    callbacks.recv_callback = wslay_receive;
    callbacks.on_msg_recv_callback = wslay_message;
    if (wslay_event_context_client_init(&ctx, &callbacks, &p) != 0)
        fail("wslay has no memory");
    if (wslay_event_recv(ctx) != 0 || s->left > 0)
        fail("wslay did not read the frames");
    wslay_event_context_free(ctx);
}

#ifdef BENCH_CJSON
static void read_cjson(stream *s, const char *json, size_t len)
{
    cJSON *root = cJSON_ParseWithLength(json, len);
    const char *data = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "data"));
    const cJSON *offset = cJSON_GetObjectItemCaseSensitive(root, "offset");
    take(s, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "type")), data,
         data ? strlen(data) : 0, offset ? (int64_t)offset->valuedouble : 0);
    cJSON_Delete(root);
}

static void job_wslay_cjson(stream *s)
{
    run_wslay(s, read_cjson);
}
#endif

#ifdef BENCH_JANSSON
static void read_jansson(stream *s, const char *json, size_t len)
{
    json_t *root = json_loadb(json, len, 0, NULL), *data = json_object_get(root, "data");
    take(s, json_string_value(json_object_get(root, "type")), json_string_value(data),
         json_string_length(data), json_integer_value(json_object_get(root, "offset")));
    json_decref(root);
}

static void job_wslay_jansson(stream *s)
{
    run_wslay(s, read_jansson);
}
#endif

#ifdef BENCH_YYJSON
/* In place, so that the message has to be copied first, and from a pool, its fastest way. */
static void read_yyjson(stream *s, const char *json, size_t len)
{
    char *copy = s->scratch, *pool = s->scratch + len + 16;
    yyjson_alc allocator;
    yyjson_doc *doc;
    yyjson_val *root, *data;
    memcpy(copy, json, len);
    yyjson_alc_pool_init(&allocator, pool, SCRATCH(len) - len - 16);
    doc = yyjson_read_opts(copy, len, YYJSON_READ_INSITU, &allocator, NULL);
    root = yyjson_doc_get_root(doc);
    data = yyjson_obj_get(root, "data");
    take(s, yyjson_get_str(yyjson_obj_get(root, "type")), yyjson_get_str(data),
         yyjson_get_len(data), yyjson_get_sint(yyjson_obj_get(root, "offset")));
    yyjson_doc_free(doc);
}

static void job_wslay_yyjson(stream *s)
{
    run_wslay(s, read_yyjson);
}
#endif
#endif

static const struct {
    const char *name;
    void (*run)(stream *s);
} jobs[] = {
    {"sbx", job_sbx},
#ifdef BENCH_WSLAY
#ifdef BENCH_CJSON
    {"wslay-cjson", job_wslay_cjson},
#endif
#ifdef BENCH_JANSSON
    {"wslay-jansson", job_wslay_jansson},
#endif
#ifdef BENCH_YYJSON
    {"wslay-yyjson", job_wslay_yyjson},
#endif
#endif
};

/* Frames of the same message until there are enough for a read. */
static void make_wire(stream *s, size_t size)
{
    unsigned char head[SBX_WS_HEADER_MAX];
    size_t head_len = sbx_ws_header(head, SBX_WS_TEXT, 1, size, NULL), frame = head_len + size, i;
    size_t count = (READ_SIZE + frame - 1) / frame;
    s->size = size;
    s->len = s->at = count * frame;
    s->wire = (unsigned char *)malloc(s->len);
    s->scratch = (char *)malloc(SCRATCH(size));
    s->joined = (char *)malloc(size);
    if (size < BENCH_MESSAGE_MIN || !s->wire || !s->scratch || !s->joined)
        fail("SIZE is too small, or there is no memory");
    for (i = 0; i < count; i++) {
        memcpy(s->wire + i * frame, head, head_len);
        bench_fill_message((char *)s->wire + i * frame + head_len, size);
    }
}

int main(int argc, char **argv)
{
    stream s;
    size_t i;
    if (argc != 4)
        fail("usage: bench/stream JOB SIZE COUNT");
    memset(&s, 0, sizeof(s));
    s.left = strtol(argv[3], NULL, 10);
    for (i = 0; i < sizeof(jobs) / sizeof(*jobs) && strcmp(jobs[i].name, argv[1]) != 0; i++)
        ;
    if (i == sizeof(jobs) / sizeof(*jobs))
        fail("there is no such JOB in this build");
    make_wire(&s, (size_t)strtoul(argv[2], NULL, 10));
    jobs[i].run(&s);
    printf("%llu %llu\n", (unsigned long long)s.bytes, (unsigned long long)s.sum);
    free(s.wire);
    free(s.scratch);
    free(s.joined);
    return 0;
}
