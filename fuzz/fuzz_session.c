/* Fuzzes whole calls against a server that says what the input says.

   The first byte chooses the call by its place in the list, at the end of which new ones are added,
   so that all inputs keep their meaning. What follows is cut at each FF FE into what one connection
   after the other sends before it ends; where the pieces run out, connections are refused. The clock
   is faked and randomness is zero, so the same bytes must have the same outcome however they are
   cut: the call is made twice, with the bytes whole and in pieces. */
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
    int cut;      /* 1: in pieces */
    int pauses;   /* 1: and with pauses between them */
    uint32_t lot; /* decides how long each piece is */
    int streams, waits;
} world;

typedef struct stream {
    sbx_stream base;
    world *w;
    const uint8_t *data;
    size_t left;
} stream;

static void require(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
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
        return SBX_END;
    *n = s->left < cap ? s->left : cap;
    if (s->w->cut) {
        s->w->lot = s->w->lot * 1664525 + 1013904223;
        if (s->w->pauses && s->w->lot >> 30 == 0) {
            *n = 0;
            return SBX_AGAIN;
        }
        if (*n > 1 + (s->w->lot >> 24) % 13)
            *n = 1 + (s->w->lot >> 24) % 13;
    }
    memcpy(buf, s->data, *n);
    s->data += *n;
    s->left -= *n;
    return SBX_OK;
}

static sbx_status stream_write(sbx_stream *base, const void *buf, size_t len, size_t *n)
{
    (void)base;
    (void)buf;
    *n = len;
    return SBX_OK;
}

static int stream_wants(sbx_stream *base, unsigned want, sbx_item *items, int cap,
                        int64_t *timeout_ms)
{
    (void)base;
    require(cap >= 1, "no room for an item");
    items[0].handle = 1;
    items[0].want = want;
    *timeout_ms = 0; /* there is always something to read, or the end */
    return 1;
}

static void stream_close(sbx_stream *base)
{
    ((stream *)base)->w->streams--;
    free(base);
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
    require(++w->waits < 100000, "the call does not end");
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

/* What came of a call: its status and everything that it gave. */
typedef struct outcome {
    sbx_status status;
    int http_status, close_code;
    uint64_t sum, error_sum;
} outcome;

static void add(outcome *o, const void *data, size_t len)
{
    const unsigned char *byte = (const unsigned char *)data;
    while (len--)
        o->sum = (o->sum ^ *byte++) * 1099511628211u;
}

static void add_text(outcome *o, const char *text)
{
    require(text != NULL, "a text that is NULL");
    add(o, text, strlen(text) + 1);
}

static int sink(void *user, const void *data, size_t len)
{
    add((outcome *)user, data, len);
    return 0;
}

static sbx_status run_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                           sbx_error *err)
{
    sbx_result *result;
    sbx_status status = sbx_run(sandbox, "true", NULL, &result, err);
    require((status == SBX_OK) == (result != NULL), "a result without success");
    (void)client;
    if (result) {
        add(o, &result->exit_code, sizeof(result->exit_code));
        add(o, result->out, result->out_len + 1);
        add(o, result->err, result->err_len + 1);
        add(o, &result->out_lost, sizeof(result->out_lost));
    }
    sbx_free(result);
    return status;
}

static sbx_status chunks_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                              sbx_error *err)
{
    sbx_command *command;
    sbx_chunk chunk;
    uint64_t next[3] = {0, 0, 0};
    sbx_status status = sbx_command_start(sandbox, "true", NULL, &command, err);
    (void)client;
    require(status == SBX_OK, "a command that cannot be started");
    while ((status = sbx_command_next(command, &chunk, SBX_NONE, err)) == SBX_OK) {
        require(chunk.len > 0 && (chunk.stream == SBX_STDOUT || chunk.stream == SBX_STDERR),
                "an odd chunk");
        require(chunk.offset == next[chunk.stream] + chunk.lost,
                "a gap or an overlap that is not told");
        next[chunk.stream] = chunk.offset + chunk.len;
        add(o, chunk.data, chunk.len);
    }
    sbx_command_free(command);
    return status;
}

static sbx_status list_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                            sbx_error *err)
{
    sbx_sandboxes *list;
    size_t i;
    sbx_status status = sbx_sandbox_list(client, NULL, &list, err);
    (void)sandbox;
    for (i = 0; list && i < list->count; i++) {
        add(o, list->items[i].name, strlen(list->items[i].name) + 1);
        add(o, list->items[i].status_message, strlen(list->items[i].status_message) + 1);
    }
    sbx_free(list);
    return status;
}

static sbx_status template_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                                sbx_error *err)
{
    sbx_template *t;
    size_t i;
    sbx_status status = sbx_template_get(client, "name", NULL, &t, err);
    (void)sandbox;
    for (i = 0; t && i < t->volume_mount_count; i++)
        add(o, t->volume_mounts[i].mount_path, strlen(t->volume_mounts[i].mount_path) + 1);
    if (t)
        add(o, t->cpu, strlen(t->cpu) + 1);
    sbx_free(t);
    return status;
}

static sbx_status wait_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                            sbx_error *err)
{
    sbx_sandbox *ready;
    sbx_status status = sbx_sandbox_wait(client, "name", NULL, &ready, err);
    (void)sandbox;
    if (ready)
        add(o, ready->dataplane_url, strlen(ready->dataplane_url) + 1);
    sbx_free(ready);
    return status;
}

static sbx_status read_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                            sbx_error *err)
{
    sbx_file_options options;
    (void)client;
    memset(&options, 0, sizeof(options));
    options.user = o;
    return sbx_read_to(sandbox, "/f", sink, &options, err);
}

static void add_volume(outcome *o, const sbx_volume *v)
{
    add_text(o, v->name);
    add_text(o, v->size);
    add_text(o, v->storage_class);
    add_text(o, v->id);
    add_text(o, v->created_at);
    add_text(o, v->updated_at);
}

static void add_pool(outcome *o, const sbx_pool *p)
{
    add_text(o, p->name);
    add_text(o, p->template_name);
    add(o, &p->replicas, sizeof(p->replicas));
    add_text(o, p->id);
    add_text(o, p->updated_at);
}

static void add_sandbox(outcome *o, const sbx_sandbox *s)
{
    require(s->vcpus >= 0, "less than no processor");
    add_text(o, s->name);
    add_text(o, s->dataplane_url);
    add_text(o, s->status);
    add_text(o, s->stopped_at);
    add(o, &s->state, sizeof(s->state));
    add(o, &s->idle_ttl_ms, sizeof(s->idle_ttl_ms));
    add(o, &s->delete_after_stop_ms, sizeof(s->delete_after_stop_ms));
    add(o, &s->vcpus, sizeof(s->vcpus));
    add(o, &s->mem_bytes, sizeof(s->mem_bytes));
    add(o, &s->fs_capacity_bytes, sizeof(s->fs_capacity_bytes));
}

static sbx_status volumes_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                               sbx_error *err)
{
    sbx_volumes *list;
    size_t i;
    sbx_status status = sbx_volume_list(client, NULL, &list, err);
    (void)sandbox;
    for (i = 0; list && i < list->count; i++)
        add_volume(o, &list->items[i]);
    sbx_free(list);
    return status;
}

static sbx_status volume_create_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                                     sbx_error *err)
{
    sbx_volume_options options;
    sbx_volume *v;
    sbx_status status;
    (void)sandbox;
    memset(&options, 0, sizeof(options));
    options.name = "name";
    options.size = "1Gi";
    status = sbx_volume_create(client, &options, &v, err);
    if (v)
        add_volume(o, v);
    sbx_free(v);
    return status;
}

static sbx_status volume_update_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                                     sbx_error *err)
{
    sbx_volume_update_options options;
    sbx_volume *v;
    sbx_status status;
    (void)sandbox;
    memset(&options, 0, sizeof(options));
    options.size = "2Gi";
    status = sbx_volume_update(client, "name", &options, &v, err);
    if (v)
        add_volume(o, v);
    sbx_free(v);
    return status;
}

static sbx_status pools_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                             sbx_error *err)
{
    sbx_pools *list;
    size_t i;
    sbx_status status = sbx_pool_list(client, NULL, &list, err);
    (void)sandbox;
    for (i = 0; list && i < list->count; i++)
        add_pool(o, &list->items[i]);
    sbx_free(list);
    return status;
}

static sbx_status pool_create_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                                   sbx_error *err)
{
    sbx_pool_options options;
    sbx_pool *p;
    sbx_status status;
    (void)sandbox;
    memset(&options, 0, sizeof(options));
    options.name = "name";
    options.template_name = "t";
    options.replicas = 2;
    status = sbx_pool_create(client, &options, &p, err);
    if (p)
        add_pool(o, p);
    sbx_free(p);
    return status;
}

static sbx_status pool_update_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                                   sbx_error *err)
{
    sbx_pool_update_options options;
    sbx_pool *p;
    sbx_status status;
    (void)sandbox;
    memset(&options, 0, sizeof(options));
    options.replicas = SBX_NONE;
    status = sbx_pool_update(client, "name", &options, &p, err);
    if (p)
        add_pool(o, p);
    sbx_free(p);
    return status;
}

static sbx_status pool_delete_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                                   sbx_error *err)
{
    (void)sandbox;
    (void)o;
    return sbx_pool_delete(client, "name", NULL, err);
}

static sbx_status template_update_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                                       sbx_error *err)
{
    sbx_template_update_options options;
    sbx_template *t;
    sbx_status status;
    (void)sandbox;
    memset(&options, 0, sizeof(options));
    options.new_name = "new";
    status = sbx_template_update(client, "name", &options, &t, err);
    if (t)
        add_text(o, t->name);
    sbx_free(t);
    return status;
}

static sbx_status create_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                              sbx_error *err)
{
    sbx_sandbox *got;
    sbx_status status = sbx_sandbox_create(client, NULL, &got, err);
    (void)sandbox;
    if (got)
        add_sandbox(o, got);
    sbx_free(got);
    return status;
}

static sbx_status update_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                              sbx_error *err)
{
    sbx_sandbox_update_options options;
    sbx_sandbox *got;
    sbx_status status;
    (void)sandbox;
    memset(&options, 0, sizeof(options));
    options.idle_ttl_ms = 60000;
    status = sbx_sandbox_update(client, "name", &options, &got, err);
    if (got)
        add_sandbox(o, got);
    sbx_free(got);
    return status;
}

/* Fails if the sandbox has an odd number of processors. */
static sbx_status body(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    (void)err;
    add_sandbox((outcome *)user, sandbox);
    return sandbox->vcpus & 1 ? SBX_E_ABORTED : SBX_OK;
}

static sbx_status with_call(sbx_client *client, const sbx_sandbox *sandbox, outcome *o,
                            sbx_error *err)
{
    (void)sandbox;
    return sbx_with_sandbox(client, NULL, body, o, err);
}

static outcome play(const uint8_t *data, size_t size, int which, int cut)
{
    static sbx_status (*const calls[])(sbx_client *, const sbx_sandbox *, outcome *,
                                       sbx_error *) = {
        run_call,         chunks_call,      list_call,   template_call,      wait_call,
        read_call,        volumes_call,     pools_call,  volume_create_call, volume_update_call,
        pool_create_call, pool_update_call, create_call, update_call,        template_update_call,
        pool_delete_call, with_call};
    size_t call = (size_t)which % (sizeof(calls) / sizeof(*calls));
    world w;
    sbx_transport transport;
    sbx_config config;
    sbx_client *client;
    sbx_sandbox *sandbox;
    sbx_error err;
    outcome o = {SBX_OK, 0, 0, 0, 0}, said = {SBX_OK, 0, 0, 0, 0};
    int i;
    memset(&w, 0, sizeof(w));
    memset(&transport, 0, sizeof(transport));
    memset(&config, 0, sizeof(config));
    w.data = data;
    w.size = size;
    w.cut = cut;
    w.lot = (uint32_t)size;
    /* With a pause an idle connection could be used again before bytes come that nobody asked for;
       commands always take a fresh one. */
    w.pauses = call < 2;
    transport.user = &w;
    transport.dial = dial;
    transport.wait = wait_for;
    transport.now_ms = now_ms;
    transport.entropy = entropy;
    config.transport = &transport;
    config.endpoint = "http://localhost/v2/sandboxes";
    config.api_key = "a-secret-key";
    require(sbx_open(&config, &client, &err) == SBX_OK, "no client");
    require(sbx_sandbox_at(client, "http://localhost/box", &sandbox, &err) == SBX_OK && sandbox,
            "no sandbox");
    o.status = calls[call](client, sandbox, &o, &err);
    require(o.status == SBX_OK || o.status == SBX_END || (err.status == o.status && err.message[0]),
            "a failure without a message");
    require(!strstr(err.message, "a-secret-key"), "the key is in a message");
    o.http_status = err.http_status;
    o.close_code = err.close_code;
    if (err.http_status && sbx_status_is(o.status, SBX_E_SERVICE)) {
        /* All that an answer of the service said. */
        add_text(&said, err.message);
        add_text(&said, err.error_type);
        add_text(&said, err.field);
        add_text(&said, err.resource_type);
        add_text(&said, err.quota_type);
        add(&said, &err.detail_count, sizeof(err.detail_count));
        for (i = 0; i < SBX_ERROR_DETAILS; i++)
            add_text(&said, err.details[i].message);
        o.error_sum = said.sum;
    }
    sbx_free(sandbox);
    sbx_close(client);
    require(w.streams == 0, "a stream was left open");
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outcome whole, pieces;
    if (size < 1)
        return 0;
    whole = play(data + 1, size - 1, data[0], 0);
    pieces = play(data + 1, size - 1, data[0], 1);
    require(whole.status == pieces.status, "the status depends on how the bytes were cut");
    require(whole.http_status == pieces.http_status && whole.close_code == pieces.close_code,
            "the error depends on how the bytes were cut");
    require(whole.error_sum == pieces.error_sum,
            "the error's texts depend on how the bytes were cut");
    /* Where a transfer fails, how much of it was seen may differ. */
    require(whole.sum == pieces.sum || whole.status < 0,
            "the outcome depends on how the bytes were cut");
    return 0;
}
