/* conversation: what the tests of commands have in common: the messages of the protocol as texts,
   peers that begin as every conversation does, and somebody who listens to the output. Include
   sandbox.h with its implementation first. */
#ifndef TESTS_CONVERSATION_H
#define TESTS_CONVERSATION_H

#include "service.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define WS "/sb-1/execute/ws"
#define EXECUTE(command)                                                                           \
    "{\"type\":\"execute\",\"command\":\"" command "\",\"timeout_seconds\":60,"                    \
    "\"shell\":\"/bin/bash\",\"idle_timeout_seconds\":300,\"kill_on_disconnect\":false,"           \
    "\"ttl_seconds\":600,\"close_stdin\":true,\"command_id\":\"$id\"}"
#define RECONNECT(out, err)                                                                        \
    "{\"type\":\"reconnect\",\"command_id\":\"$id\",\"stdout_offset\":" out                        \
    ",\"stderr_offset\":" err "}"
#define STARTED "{\"type\":\"started\",\"command_id\":\"$id\",\"pid\":41}"
#define OUT(offset, text) "{\"type\":\"stdout\",\"data\":\"" text "\",\"offset\":" offset "}"
#define ERR(offset, text) "{\"type\":\"stderr\",\"data\":\"" text "\",\"offset\":" offset "}"
#define EXIT(code) "{\"type\":\"exit\",\"exit_code\":" code "}"
#define FAILURE(type, text)                                                                        \
    "{\"type\":\"error\",\"error_type\":\"" type "\",\"error\":\"" text "\"}"
#define KILL "{\"type\":\"kill\"}"
#define INPUT(text) "{\"type\":\"input\",\"data\":\"" text "\"}"
#define CLOSE_STDIN "{\"type\":\"close_stdin\"}"
#define EXECUTE_PTY                                                                                \
    "{\"type\":\"execute\",\"command\":\"x\",\"timeout_seconds\":60,\"shell\":\"/bin/bash\","      \
    "\"idle_timeout_seconds\":300,\"kill_on_disconnect\":false,\"ttl_seconds\":600,"               \
    "\"pty\":true,\"command_id\":\"$id\"}"
#define EXECUTE_INPUT                                                                              \
    "{\"type\":\"execute\",\"command\":\"x\",\"timeout_seconds\":60,\"shell\":\"/bin/bash\","      \
    "\"idle_timeout_seconds\":300,\"kill_on_disconnect\":false,\"ttl_seconds\":600,"               \
    "\"command_id\":\"$id\"}"

static inline sbx_run_options run_options(void)
{
    sbx_run_options options;
    memset(&options, 0, sizeof(options));
    return options;
}

/* A world with a client, and the sandbox at WORLD_DATAPLANE. */
static inline sbx_sandbox *begin(world *w)
{
    world_open(w);
    return world_sandbox(w);
}

static inline void end(world *w, sbx_sandbox *sandbox)
{
    sbx_free(sandbox);
    world_done(w);
}

/* The usual end of a conversation. */
static inline void peer_exits(peer *p, const char *exit_message)
{
    peer_ws_text(p, exit_message);
    peer_ws_close(p, 1000);
    peer_close(p);
}

/* A peer that accepts the upgrade and gets `execute` for "x". */
static inline peer *executing_peer(world *w)
{
    peer *p = world_peer(w);
    peer_upgrade(p, WS);
    peer_ws_expect(p, EXECUTE("x"));
    return p;
}

/* A peer to which the client reattaches with these offsets. */
static inline peer *reattached_peer(world *w, const char *out, const char *err)
{
    char json[300];
    peer *p = world_peer(w);
    snprintf(json, sizeof(json),
             "{\"type\":\"reconnect\",\"command_id\":\"$id\",\"stdout_offset\":%s,"
             "\"stderr_offset\":%s}",
             out, err);
    peer_upgrade(p, WS);
    peer_ws_expect(p, json);
    return p;
}

static inline sbx_status run(sbx_sandbox *sandbox, const sbx_run_options *options,
                             sbx_result **result, sbx_error *err)
{
    sbx_status st;
    *result = NULL;
    st = sbx_run(sandbox, "x", options, result, err);
    if ((*result != NULL) != (st == SBX_OK))
        fail_msg("%s with the result %p", sbx_status_name(st), (void *)*result);
    return st;
}

/* Runs "x"; it must end well with this output. */
static inline void run_well(world *w, sbx_sandbox *sandbox, const sbx_run_options *options,
                            int exit_code, const char *out, const char *errors)
{
    sbx_result *result;
    sbx_error err;
    assert_status(w, SBX_OK, run(sandbox, options, &result, &err), &err);
    if (result->exit_code != exit_code || strcmp(result->out, out) != 0 ||
        strcmp(result->err, errors) != 0 || result->out_len != strlen(out) ||
        result->err_len != strlen(errors) || result->out_lost || result->err_lost)
        world_fail(w, "exit code %d, '%s' (%lu lost), '%s' (%lu lost)", result->exit_code,
                   result->out, (unsigned long)result->out_lost, result->err,
                   (unsigned long)result->err_lost);
    sbx_free(result);
}

typedef struct heard {
    wtext out, err;
    int calls, abort_at, wrong;
} heard;

static inline int hear(void *user, int stream, const char *data, size_t len)
{
    heard *h = (heard *)user;
    if (!len || (stream != SBX_STDOUT && stream != SBX_STDERR))
        h->wrong = 1;
    wtext_add(stream == SBX_STDERR ? &h->err : &h->out, data, len);
    return ++h->calls == h->abort_at;
}

static inline void heard_free(heard *h)
{
    wtext_free(&h->out);
    wtext_free(&h->err);
}

/* What a reader of the connection's other end sees: each frame a line, "text JSON", "ping 9 bytes
   in hex", or the number of its opcode. */
static inline void peer_frames(const peer *p, wtext *out)
{
    wtext raw = {NULL, 0, 0};
    sbx_ws ws;
    sbx_ws_event e;
    size_t at = (size_t)(strstr(wtext_get(&p->raw), "\r\n\r\n") + 4 - wtext_get(&p->raw)), used, i;
    wtext_add(&raw, p->raw.data, p->raw.len);
    sbx_ws_init(&ws, SBX_WS_SERVER, 1u << 20);
    while (sbx_ws_read(&ws, raw.data + at, raw.len - at, &used, &e) == SBX_OK) {
        at += used;
        if (e.opcode == SBX_WS_TEXT) {
            wtext_puts(out, "text ");
            wtext_add(out, e.data, e.len);
        } else if (e.opcode == SBX_WS_PING) {
            wtext_puts(out, "ping ");
            for (i = 0; i < e.len; i++)
                wtext_printf(out, "%02x", (unsigned char)e.data[i]);
        } else {
            wtext_printf(out, "%d", e.opcode);
        }
        wtext_puts(out, "\n");
    }
    wtext_free(&raw);
}

/* A world with one handle in it. */
typedef struct scene {
    world w;
    sbx_sandbox *sandbox;
    sbx_command *command;
    sbx_chunk chunk;
    sbx_result *result;
    sbx_error err;
    int64_t start;
} scene;

static inline void scene_start(scene *s, const sbx_run_options *options)
{
    s->sandbox = begin(&s->w);
    assert_status(&s->w, SBX_OK, sbx_command_start(s->sandbox, "x", options, &s->command, &s->err),
                  &s->err);
    s->start = s->w.now;
}

static inline sbx_status next(scene *s, int64_t timeout_ms)
{
    return sbx_command_next(s->command, &s->chunk, timeout_ms, &s->err);
}

static inline void scene_end(scene *s)
{
    sbx_command_free(s->command);
    end(&s->w, s->sandbox);
}

/* The handle ends well, with this exit code. */
static inline void ends_well(scene *s, int exit_code, const char *out)
{
    assert_status(&s->w, SBX_OK, sbx_command_result(s->command, &s->result, &s->err), &s->err);
    assert_int_equal(s->result->exit_code, exit_code);
    assert_string_equal(s->result->out, out);
    sbx_free(s->result);
}

#endif
