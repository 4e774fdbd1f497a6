/* GET /execute/ws: one client of one command over a WebSocket.

   The first message says which command: execute starts one, or attaches to the one that already has
   this id, so that a client that lost its connection before it was told may simply ask again;
   reconnect attaches from the given offsets. Then output goes out as the client takes it, until the
   end. */
#include "sandboxd.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_MESSAGE_MS = 30000 };

typedef struct session {
    sd_agent *agent;
    sd_ws *ws;
    sd_reader reader;
    uv_timer_t timer;
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
            sd_command_took(&s->reader, stream, len);
            more = 1;
        }
        if (sd_lost(s->ws->conn))
            return;
    }
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
    if (sd_command_input_waiting(reader->command) < SD_MAX_STDIN)
        sd_pause(s->ws->conn, 0);
}

/* ---- from the client ---- */

static void attach(session *s, sd_command *command, int64_t out, int64_t err)
{
    sbx_json_writer w;
    uv_timer_stop(&s->timer);
    s->reader.at[SD_STDOUT] = (uint64_t)out;
    s->reader.at[SD_STDERR] = (uint64_t)err;
    begin(&w, "started");
    put_text(&w, "command_id", command->id);
    put_number(&w, "pid", command->pid);
    end(s, &w);
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

static void execute(session *s, const sd_json *json)
{
    sd_problems problems = {0};
    sd_command_options options;
    sd_command *command = NULL;
    char *error;
    int pty;
    sd_command_fields(json, &options, &problems);
    pty = sd_field_boolean(json, "pty", 0, &problems);
    if (problems.count > 0) {
        fail_fields(s, &problems);
        return;
    }
    if (pty) {
        fail(s, "CommandError", "pseudo-terminals are not supported by this version of sandboxd");
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
    attach(s, command, 0, 0);
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
        attach(s, command, (int64_t)out, (int64_t)err);
        return;
    }
    if (sd_command_expired(s->agent, id))
        fail(s, "SessionExpired", "the command has ended and was forgotten");
    else
        fail(s, "CommandNotFound", "there is no command of this id");
}

/* A message to the command that this connection is attached to. */
static void control(session *s, const sd_json *json, const char *type)
{
    const sd_json *data = sd_json_get(json, "data");
    sd_command *command = s->reader.command;
    if (strcmp(type, "kill") == 0) {
        sd_command_kill(command);
    } else if (strcmp(type, "close_stdin") == 0) {
        sd_command_close_input(command);
    } else if (strcmp(type, "input") == 0 && data && data->type == SBX_JSON_STRING) {
        /* A client that sends more than the command reads has to wait, its other messages too. */
        if (sd_command_input(command, data->text, data->len) >= SD_MAX_STDIN)
            sd_pause(s->ws->conn, 1);
    }
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
    sd_ws *ws = sd_ws_accept(conn);
    session *s;
    if (!ws)
        return;
    s = (session *)sd_alloc(sizeof(*s));
    s->agent = sd_conn_agent(conn);
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
