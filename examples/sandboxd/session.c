/* GET /execute/ws: one client of one command over a WebSocket.

   The first message says which command: execute starts one, or attaches to the one that already has
   this id, so that a client that lost its connection before it was told may simply ask again;
   reconnect attaches from the given offsets. Then output goes out as the client takes it, until the
   end.

   The command waits for a client that is slow, but not for ever for one that takes nothing at all:
   that one is disconnected. A client that sends more input than its command reads has to wait, with
   all that it sends after it. That it is gone is seen all the same, and then what it said last is
   read: it may be kill.

   Servers that speak the dialect of March 2026 do not know close_stdin and ids that clients choose,
   and do not acknowledge reconnect. */
#include "sandboxd.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_MESSAGE_MS = 30000, WATCH_MS = 250 };

typedef struct session {
    sd_agent *agent;
    sd_ws *ws;
    sd_reader reader;
    uv_timer_t timer; /* how long the first message may take; then watches */
    int paused;       /* 1: nothing is read from the client */
    size_t left;      /* how much the client had not taken, */
    uint64_t since;   /* and since when */
} session;

/* Messages are written here. Every byte of text takes at most six ("\u0001"). */
static char message[6 * SD_CHUNK + SD_MAX_COMMAND_ID * 6 + 1024];

/* ---- to the client ---- */

static void begin(sbx_json_writer *w, const char *type)
{
    sbx_json_writer_init(w, message, sizeof(message));
    sbx_json_begin_object(w);
    sbx_json_key(w, "type");
    sbx_json_string(w, type, strlen(type));
}

static void put_text(sbx_json_writer *w, const char *name, const char *text)
{
    sbx_json_key(w, name);
    sbx_json_string(w, text, strlen(text));
}

static void put_number(sbx_json_writer *w, const char *name, int64_t number)
{
    sbx_json_key(w, name);
    sbx_json_integer(w, number);
}

static void end(session *s, sbx_json_writer *w)
{
    size_t len = 0;
    sbx_json_end_object(w);
    if (sbx_json_writer_finish(w, &len) == SBX_OK && len <= sizeof(message))
        sd_ws_send(s->ws, message, len);
}

/* The last message. The session may be gone afterwards. */
static void fail(session *s, const char *type, const char *text)
{
    sbx_json_writer w;
    char *quotable = sd_quotable(text);
    quotable[strlen(quotable) < SD_CHUNK ? strlen(quotable) : 0] = 0;
    begin(&w, "error");
    put_text(&w, "error_type", type);
    put_text(&w, "error", quotable);
    end(s, &w);
    free(quotable);
    sd_ws_close(s->ws, 1000, NULL);
}

/* ---- clients that do nothing ---- */

static void on_watch(uv_timer_t *timer)
{
    session *s = SD_OWNER(timer, session, timer);
    const int64_t limit = s->agent->settings.stall_ms;
    const uint64_t now = uv_now(s->agent->loop);
    const size_t left = sd_unsent(s->ws->conn);
    if (s->paused && sd_peer_gone(s->ws->conn))
        sd_pause(s->ws->conn, 0);
    if (left != s->left || !sd_command_waits_for(&s->reader)) {
        s->left = left;
        s->since = now;
    } else if (limit > 0 && now - s->since >= (uint64_t)limit) {
        sd_drop(s->ws->conn);
        return;
    }
    if (left == 0 && !s->paused)
        uv_timer_stop(timer);
}

static void watch(session *s)
{
    if (uv_is_active((uv_handle_t *)&s->timer))
        return;
    s->left = SIZE_MAX;
    uv_timer_start(&s->timer, on_watch, WATCH_MS, WATCH_MS);
}

/* ---- output ---- */

/* Sends what there is, as long as the client takes it, and the end when it has come. */
static void send_output(session *s)
{
    static const char *const names[2] = {"stdout", "stderr"};
    const sd_command *command = s->reader.command;
    sbx_json_writer w;
    const char *text;
    size_t len;
    int stream, more = 1;
    while (more && sd_pending(s->ws->conn) < SD_QUEUE) {
        more = 0;
        for (stream = 0; stream < 2; stream++) {
            len = sd_command_read(&s->reader, stream, &text);
            if (len == 0)
                continue;
            begin(&w, names[stream]);
            sbx_json_key(&w, "data");
            sbx_json_string(&w, text, len);
            put_number(&w, "offset", (int64_t)s->reader.at[stream]);
            end(s, &w);
            if (s->ws->closing)
                return;
            sd_command_took(&s->reader, stream, len);
            more = 1;
        }
        if (sd_lost(s->ws->conn))
            return;
    }
    if (sd_pending(s->ws->conn) > 0)
        watch(s);
    if (!sd_command_over(&s->reader))
        return;
    if (command->error_type) {
        fail(s, command->error_type, command->error);
    } else {
        begin(&w, "exit");
        put_number(&w, "exit_code", command->exit_code);
        end(s, &w);
        sd_ws_close(s->ws, 1000, NULL);
    }
}

static void on_output(sd_reader *reader)
{
    session *s = SD_OWNER(reader, session, reader);
    if (!sd_lost(s->ws->conn))
        send_output(s);
}

static void on_drain(sd_ws *ws)
{
    session *s = (session *)ws->user;
    if (s->reader.command)
        send_output(s);
}

static void on_room(sd_reader *reader)
{
    session *s = SD_OWNER(reader, session, reader);
    if (s->paused && sd_command_input_waiting(reader->command) < SD_MAX_STDIN) {
        s->paused = 0;
        sd_pause(s->ws->conn, 0);
    }
}

/* ---- from the client ---- */

static void attach(session *s, sd_command *command, int64_t out, int64_t err, int acknowledged)
{
    sbx_json_writer w;
    uv_timer_stop(&s->timer);
    s->reader.at[SD_STDOUT] = (uint64_t)out;
    s->reader.at[SD_STDERR] = (uint64_t)err;
    if (acknowledged && !sd_chaos_take(&s->agent->settings.chaos.unstarted)) {
        begin(&w, "started");
        put_text(&w, "command_id", command->id);
        put_number(&w, "pid", command->pid);
        end(s, &w);
    }
    if (s->ws->closing)
        return;
    sd_command_attach(command, &s->reader);
    send_output(s);
}

static void fail_fields(session *s, const sd_problems *problems)
{
    const char *field = problems->items[0].field;
    char *text = sd_text("%s %s", field ? field : "the message", problems->items[0].message);
    fail(s, "CommandError", text);
    free(text);
}

/* Reads the fields of a command that exist over WebSockets only. */
static void session_fields(const session *s, const sd_json *json, sd_command_options *options,
                           sd_problems *problems)
{
    const double most = 65535;
    options->pty = sd_field_boolean(json, "pty", 0, problems);
    options->columns = (int)sd_field_number(json, "cols", 80, 1, most, problems);
    options->rows = (int)sd_field_number(json, "rows", 24, 1, most, problems);
    if (s->agent->settings.old_dialect)
        return;
    options->id = sd_field_name(json, "command_id", 0, problems);
    if (options->id && strlen(options->id) > SD_MAX_COMMAND_ID)
        sd_problem_add(problems, "command_id", NULL, "is too long");
    options->close_stdin = sd_field_boolean(json, "close_stdin", 0, problems);
}

static void execute(session *s, const sd_json *json)
{
    sd_problems problems = {0};
    sd_command_options options;
    sd_command *command = NULL;
    char *error;
    sd_command_fields(json, &options, &problems);
    session_fields(s, json, &options, &problems);
    if (problems.count > 0) {
        fail_fields(s, &problems);
        return;
    }
    if (options.id && sd_command_expired(s->agent, options.id)) {
        fail(s, "SessionExpired", "the command of this id has ended and was forgotten");
        return;
    }
    if (options.id)
        command = sd_command_find(s->agent, options.id);
    if (!command)
        command = sd_command_start(s->agent, &options, &error);
    if (!command) {
        fail(s, "CommandError", error);
        free(error);
        return;
    }
    attach(s, command, 0, 0, 1);
}

static void reconnect(session *s, const sd_json *json)
{
    const double most = 9e15; /* beyond this doubles have gaps */
    sd_problems problems = {0};
    const char *id = sd_field_name(json, "command_id", 1, &problems);
    double out = sd_field_number(json, "stdout_offset", 0, 0, most, &problems);
    double err = sd_field_number(json, "stderr_offset", 0, 0, most, &problems);
    sd_command *command;
    if (problems.count > 0) {
        fail_fields(s, &problems);
        return;
    }
    command = sd_command_find(s->agent, id);
    if (command) {
        attach(s, command, (int64_t)out, (int64_t)err, !s->agent->settings.old_dialect);
        return;
    }
    if (sd_command_expired(s->agent, id))
        fail(s, "SessionExpired", "the command has ended and was forgotten");
    else
        fail(s, "CommandNotFound", "there is no command of this id");
}

static void take_input(session *s, const sd_json *data)
{
    sd_conn *conn = s->ws->conn;
    if (!data || data->type != SBX_JSON_STRING ||
        sd_command_input(s->reader.command, data->text, data->len) < SD_MAX_STDIN || s->paused)
        return;
    s->paused = 1;
    sd_pause(conn, 1);
    watch(s);
}

static void resize(session *s, const sd_json *json)
{
    const sd_json *columns = sd_json_get(json, "cols"), *rows = sd_json_get(json, "rows");
    if (columns && columns->type == SBX_JSON_INTEGER && columns->integer >= 1 &&
        columns->integer <= 65535 && rows && rows->type == SBX_JSON_INTEGER && rows->integer >= 1 &&
        rows->integer <= 65535)
        sd_command_resize(s->reader.command, (int)columns->integer, (int)rows->integer);
}

/* A message to the command that this connection is attached to. What is unknown or makes no
   sense is ignored. */
static void control(session *s, const sd_json *json, const char *type)
{
    if (strcmp(type, "kill") == 0)
        sd_command_kill(s->reader.command);
    else if (strcmp(type, "close_stdin") == 0 && !s->agent->settings.old_dialect)
        sd_command_close_input(s->reader.command);
    else if (strcmp(type, "input") == 0)
        take_input(s, sd_json_get(json, "data"));
    else if (strcmp(type, "resize") == 0)
        resize(s, json);
}

static void on_message(sd_ws *ws, const char *data, size_t len)
{
    session *s = (session *)ws->user;
    const char *problem = "";
    sd_document *document = sd_json_parse(data, len, &problem);
    const sd_json *json = sd_json_root(document), *type = sd_json_get(json, "type");
    if (!type || type->type != SBX_JSON_STRING) {
        char *text = sd_text("not a message: %.100s", document ? "it has no type" : problem);
        if (s->reader.command)
            sd_ws_close(ws, 1008, text); /* an error message would say that the command is over */
        else
            fail(s, "CommandError", text);
        free(text);
    } else if (s->reader.command) {
        control(s, json, type->text);
    } else if (strcmp(type->text, "execute") == 0) {
        execute(s, json);
    } else if (strcmp(type->text, "reconnect") == 0) {
        reconnect(s, json);
    } else {
        fail(s, "CommandError", "the first message must be execute or reconnect");
    }
    sd_json_free(document);
}

/* ---- life ---- */

static void on_timer(uv_timer_t *timer)
{
    session *s = SD_OWNER(timer, session, timer);
    sd_ws_close(s->ws, 1008, "no command came");
}

static void free_session(uv_handle_t *handle)
{
    free(SD_OWNER(handle, session, timer));
}

static void on_gone(sd_ws *ws)
{
    session *s = (session *)ws->user;
    sd_command_detach(&s->reader);
    uv_close((uv_handle_t *)&s->timer, free_session);
}

void sd_handle_session(sd_conn *conn)
{
    sd_agent *agent = sd_conn_agent(conn);
    const int refusal = sd_chaos_refusal(&agent->settings.chaos, uv_now(agent->loop) - agent->born);
    session *s;
    sd_ws *ws;
    if (refusal) {
        sd_error(conn, refusal, "Chaos", "refused as --chaos asks for");
        return;
    }
    ws = sd_ws_accept(conn);
    if (!ws)
        return;
    s = (session *)sd_alloc(sizeof(*s));
    s->agent = agent;
    s->ws = ws;
    s->reader.on_output = on_output;
    s->reader.on_room = on_room;
    ws->user = s;
    ws->on_message = on_message;
    ws->on_drain = on_drain;
    ws->on_gone = on_gone;
    uv_timer_init(s->agent->loop, &s->timer);
    uv_timer_start(&s->timer, on_timer, FIRST_MESSAGE_MS, 0);
}
