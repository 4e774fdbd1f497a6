/* service: a small service for worlds whose course is not known beforehand, because connections are
   cut, or calls of the library fail, at every point in turn. It answers what the quick start needs
   and keeps the promises of the real one: a command id runs once, whoever asks for it again is
   attached to it, and a reconnect goes on at the offsets that it names. The command either prints
   what the test says, or is `cat`: then its output is the input it got, and it ends with that. */
#ifndef TESTS_SERVICE_H
#define TESTS_SERVICE_H

#include "world.h"

typedef struct service_output {
    int stream;
    const char *text;
} service_output;

typedef struct service {
    const service_output *outputs;
    size_t output_count;
    int exit_code;
    int overlap;      /* a reconnect starts at the chunk that holds the offset, not at the offset */
    int lose_started; /* no acknowledgement of a reconnect, as older servers */
    int own_ids;      /* names commands itself, as older servers: each execute runs another one */
    int no_websocket; /* the upgrade is answered with 404 */
    uint64_t forgotten; /* bytes of stdout that a reconnect cannot get any more */
    int cat;            /* 1: ends when stdin does; 2: at Ctrl-D, as with a pty; 3: and is silent */

    wtext input; /* of cat: what stdin got */
    int closes, kills, resizes, columns, rows, exited;
    char id[160]; /* of the one command */
    int executions, attachments, http_runs;
    int templates, boxes; /* made and not deleted */
    wtext file;
} service;

static inline void service_send_exit(service *s, peer *p)
{
    char text[64];
    snprintf(text, sizeof(text), "{\"type\":\"exit\",\"exit_code\":%d}", s->exit_code);
    peer_ws_text(p, text);
    peer_ws_close(p, 1000);
    peer_close(p);
}

/* Sends what of the command's output lies behind the two offsets, then its exit. */
static inline void service_send_output(service *s, peer *p, uint64_t from_out, uint64_t from_err)
{
    uint64_t at[2] = {0, 0}, from[2];
    size_t i;
    from[0] = from_out;
    from[1] = from_err;
    for (i = 0; i < s->output_count; i++) {
        int k = s->outputs[i].stream == SBX_STDERR;
        const char *text = s->outputs[i].text;
        uint64_t len = strlen(text), start = at[k], skip = 0;
        wtext json = {NULL, 0, 0};
        at[k] += len;
        if (at[k] <= from[k])
            continue;
        if (start < from[k] && !s->overlap)
            skip = from[k] - start;
        while (skip && ((unsigned char)text[skip] & 0xc0) == 0x80)
            skip--;
        wtext_printf(&json, "{\"type\":\"%s\",\"data\":", k ? "stderr" : "stdout");
        canon_string(&json, text + skip, len - skip);
        wtext_printf(&json, ",\"offset\":%lld}", (long long)(start + skip));
        peer_ws_text(p, json.data);
        wtext_free(&json);
    }
    service_send_exit(s, p);
}

/* Sends what cat has printed from an offset on to one that is attached, and its exit. */
static inline void service_send_cat(service *s, peer *p, uint64_t from)
{
    if (from < s->input.len && s->cat < 3) {
        wtext json = {NULL, 0, 0};
        wtext_puts(&json, "{\"type\":\"stdout\",\"data\":");
        canon_string(&json, s->input.data + from, s->input.len - from);
        wtext_printf(&json, ",\"offset\":%lld}", (long long)from);
        peer_ws_text(p, json.data);
        wtext_free(&json);
    }
    if (s->exited)
        service_send_exit(s, p);
}

/* What cat, or its terminal, is told: input, close_stdin, kill, resize. All who are attached hear
   what came of it. */
static inline void service_control(service *s, world *w, const char *type, const wtext *message)
{
    uint64_t from = s->input.len;
    int i;
    char number[16];
    if (s->exited)
        return;
    if (strcmp(type, "input") == 0) {
        char *data = (char *)malloc(message->len);
        if (!data)
            abort();
        json_member(wtext_get(message), message->len, "data", data, message->len);
        if (s->closes)
            world_fail(w, "input behind the end of stdin: %.100s", data);
        wtext_puts(&s->input, data);
        s->exited = s->cat >= 2 && strchr(data, 4);
        free(data);
    } else if (strcmp(type, "close_stdin") == 0) {
        s->closes++;
        s->exited = s->cat == 1;
    } else if (strcmp(type, "kill") == 0) {
        s->kills++;
        s->exited = 1;
        s->exit_code = 137;
    } else {
        s->resizes++;
        json_member(wtext_get(message), message->len, "cols", number, sizeof(number));
        s->columns = atoi(number);
        json_member(wtext_get(message), message->len, "rows", number, sizeof(number));
        s->rows = atoi(number);
    }
    for (i = 0; i < w->peer_count; i++) {
        peer *p = w->peers[i];
        if (p->user == s && p->ending == SBX_OK)
            service_send_cat(s, p, from);
    }
}

static inline void service_message(service *s, peer *p)
{
    wtext text = {NULL, 0, 0};
    char type[32], id[160], out[32], err[32], started[256];
    peer_take_message(p, &text);
    json_member(wtext_get(&text), text.len, "type", type, sizeof(type));
    if (p->user && (strcmp(type, "input") == 0 || strcmp(type, "close_stdin") == 0 ||
                    strcmp(type, "kill") == 0 || strcmp(type, "resize") == 0)) {
        service_control(s, p->w, type, &text);
        wtext_free(&text);
        return;
    }
    json_member(wtext_get(&text), text.len, "command_id", id, sizeof(id));
    json_member(wtext_get(&text), text.len, "stdout_offset", out, sizeof(out));
    json_member(wtext_get(&text), text.len, "stderr_offset", err, sizeof(err));
    wtext_free(&text);
    if (strcmp(type, "execute") == 0 && s->own_ids)
        snprintf(id, sizeof(id), "c-%d", s->executions + 1);
    snprintf(started, sizeof(started), "{\"type\":\"started\",\"command_id\":\"%s\",\"pid\":41}",
             id);
    if (strcmp(type, "execute") == 0) {
        if (!id[0])
            world_fail(p->w, "execute without a command_id");
        if (strcmp(s->id, id) != 0)
            s->executions++;
        snprintf(s->id, sizeof(s->id), "%s", id);
        peer_ws_text(p, started);
        p->user = s;
        if (s->cat)
            service_send_cat(s, p, 0);
        else
            service_send_output(s, p, 0, 0);
    } else if (strcmp(type, "reconnect") == 0) {
        uint64_t from = strtoull(out, NULL, 10);
        if (strcmp(s->id, id) != 0)
            world_fail(p->w, "reconnect to %s, but the command is %s", id, s->id);
        s->attachments++;
        if (!s->lose_started)
            peer_ws_text(p, started);
        from = from < s->forgotten ? s->forgotten : from;
        p->user = s;
        if (s->cat)
            service_send_cat(s, p, from);
        else
            service_send_output(s, p, from, strtoull(err, NULL, 10));
    } else {
        world_fail(p->w, "a message of type %s", type);
    }
}

/* Keeps the one file of an upload. */
static inline void service_keep_file(service *s, peer *p)
{
    sbx_multipart m;
    sbx_multipart_event e;
    const char *type = request_header(&p->request, "Content-Type");
    const char *at = wtext_get(&p->request.body);
    size_t left = p->request.body.len, used;
    sbx_status st;
    s->file.len = 0;
    if (!type || sbx_multipart_init(&m, type, strlen(type)) != SBX_OK)
        world_fail(p->w, "an upload of the type %s", type ? type : "none");
    while ((st = sbx_multipart_read(&m, at, left, &used, &e)) == SBX_OK) {
        at += used;
        left -= used;
        if (e.type == SBX_MULTIPART_DATA)
            wtext_add(&s->file, e.data, e.len);
    }
    if (st != SBX_END)
        world_fail(p->w, "an upload that does not end");
}

static inline void service_request(service *s, peer *p)
{
    world_request *r = &p->request;
    char what[300];
    snprintf(what, sizeof(what), "%s %s", r->method, r->target);
    if (strcmp(what, "GET /sb-1/execute/ws") == 0 && !s->no_websocket) {
        peer_accept_upgrade(p);
    } else if (strcmp(what, "POST /sb-1/execute") == 0) {
        s->http_runs++;
        peer_reply(p, 200, "{\"stdout\":\"over http\",\"stderr\":\"\",\"exit_code\":0}");
    } else if (strcmp(what, "POST /v2/sandboxes/templates") == 0) {
        s->templates++;
        peer_reply(p, 201, "{\"name\":\"python\",\"image\":\"python:3.12-slim\",\"id\":\"t-1\"}");
    } else if (strcmp(what, "DELETE /v2/sandboxes/templates/python") == 0) {
        s->templates = 0;
        peer_reply(p, 204, "");
    } else if (strcmp(what, "POST /v2/sandboxes/boxes") == 0) {
        s->boxes++;
        peer_reply(p, 201,
                   "{\"name\":\"box-1\",\"template_name\":\"python\",\"status\":\"ready\","
                   "\"dataplane_url\":\"" WORLD_DATAPLANE "\",\"id\":\"b-1\"}");
    } else if (strcmp(what, "DELETE /v2/sandboxes/boxes/box-1") == 0) {
        s->boxes = 0;
        peer_reply(p, 204, "");
    } else if (strncmp(what, "POST /sb-1/upload?path=", 23) == 0) {
        service_keep_file(s, p);
        peer_reply(p, 200, "{}");
    } else if (strncmp(what, "GET /sb-1/download?path=", 24) == 0) {
        char head[128];
        int n = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %lu\r\n\r\n",
                         (unsigned long)s->file.len);
        peer_send(p, head, (size_t)n);
        peer_send(p, wtext_get(&s->file), s->file.len);
    } else {
        peer_reply(p, 404, "{\"detail\":\"no such path\"}");
    }
    peer_take_request(p);
}

static inline void service_serve(peer *p, void *user)
{
    service *s = (service *)user;
    if (p->message_count)
        service_message(s, p);
    else
        service_request(s, p);
}

/* Makes s the peer of all connections that have no script. */
static inline void service_init(service *s, world *w)
{
    memset(s, 0, sizeof(*s));
    w->serve = service_serve;
    w->serve_user = s;
}

static inline void service_free(service *s)
{
    wtext_free(&s->file);
    wtext_free(&s->input);
}

#endif
