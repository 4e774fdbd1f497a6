/* WebSocket connections, the server's end: the handshake, whole messages, pings answered, a close
   in good order. No extension is ever accepted. */
#include "sandboxd.h"

#include <stdlib.h>
#include <string.h>

static void send_frame(sd_ws *ws, int opcode, const char *data, size_t len)
{
    unsigned char header[SBX_WS_HEADER_MAX];
    uv_buf_t parts[2];
    size_t n = sbx_ws_header(header, opcode, 1, len, NULL);
    parts[0] = uv_buf_init((char *)header, (unsigned)n);
    parts[1] = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
    sd_send(ws->conn, parts, 2);
}

static void leave(sd_ws *ws)
{
    void (*on_gone)(sd_ws * ws_) = ws->on_gone;
    ws->closing = 1;
    ws->on_gone = NULL;
    if (on_gone)
        on_gone(ws);
}

void sd_ws_close(sd_ws *ws, int code, const char *reason)
{
    unsigned char payload[125];
    size_t len = sbx_ws_close_payload(payload, code, reason);
    if (ws->closing)
        return;
    send_frame(ws, SBX_WS_CLOSE, (const char *)payload, len);
    sd_finish(ws->conn);
    leave(ws);
}

void sd_ws_send(sd_ws *ws, const char *text, size_t len)
{
    if (ws->closing)
        return;
    send_frame(ws, SBX_WS_TEXT, text, len);
    if (ws->conn->faults.close_after && ws->conn->sent >= ws->conn->faults.close_after)
        sd_ws_close(ws, ws->conn->faults.close_code, "closed as --chaos asks for");
}

/* A client that only pings and never reads does not make pongs pile up: one is owed at most. */
static void pay_pong(sd_ws *ws)
{
    if (ws->pong_due && !ws->closing && sd_pending(ws->conn) < SD_QUEUE) {
        ws->pong_due = 0;
        send_frame(ws, SBX_WS_PONG, ws->pong, ws->pong_len);
    }
}

static void take_data(sd_ws *ws, const sbx_ws_event *event)
{
    if (event->first && event->last) {
        ws->on_message(ws, event->data, event->len);
        return;
    }
    if (event->first)
        ws->len = 0;
    if (ws->cap - ws->len < event->len) {
        ws->cap = ws->len + event->len > 2 * ws->cap ? ws->len + event->len : 2 * ws->cap;
        ws->message = (char *)sd_grow(ws->message, ws->cap);
    }
    if (event->len > 0)
        memcpy(ws->message + ws->len, event->data, event->len);
    ws->len += event->len;
    if (event->last) {
        ws->on_message(ws, ws->message ? ws->message : "", ws->len);
        free(ws->message);
        ws->message = NULL;
        ws->len = ws->cap = 0;
    }
}

static void on_input(sd_conn *conn, char *data, size_t len)
{
    sd_ws *ws = (sd_ws *)conn->user;
    sbx_ws_event event;
    sbx_status status;
    size_t used;
    for (;;) {
        if (ws->closing || conn->closing)
            return;
        status = sbx_ws_read(&ws->codec, data, len, &used, &event);
        data += used;
        len -= used;
        if (status == SBX_AGAIN)
            return;
        if (status != SBX_OK) {
            sd_ws_close(ws, ws->codec.close_code, ws->codec.problem);
            return;
        }
        switch (event.opcode) {
        case SBX_WS_TEXT:
        case SBX_WS_BINARY:
            take_data(ws, &event);
            break;
        case SBX_WS_PING:
            if (event.len > 0)
                memcpy(ws->pong, event.data, event.len);
            ws->pong_len = event.len;
            ws->pong_due = 1;
            pay_pong(ws);
            break;
        case SBX_WS_CLOSE:
            sd_ws_close(ws, event.close_code, NULL);
            break;
        default:
            break;
        }
    }
}

void sd_ws_close_all(sd_server *server, int code, const char *reason)
{
    sd_conn *conn;
    for (conn = server->connections; conn; conn = conn->next)
        if (conn->on_input == on_input && conn->user)
            sd_ws_close((sd_ws *)conn->user, code, reason);
}

static void on_drain(sd_conn *conn)
{
    sd_ws *ws = (sd_ws *)conn->user;
    pay_pong(ws);
    if (!ws->closing && ws->on_drain)
        ws->on_drain(ws);
}

static void on_eof(sd_conn *conn)
{
    sd_drop(conn);
}

static void on_release(sd_conn *conn)
{
    sd_ws *ws = (sd_ws *)conn->user;
    conn->user = NULL;
    leave(ws);
    free(ws->message);
    free(ws);
}

/* NULL if the request is a good handshake (RFC 6455, 4.2.1), else what is wrong. */
static const char *handshake_problem(const sd_conn *conn)
{
    const char *connection = conn->headers[SD_CONNECTION], *upgrade = conn->headers[SD_UPGRADE];
    const char *key = conn->headers[SD_WS_KEY];
    if (strcmp(conn->method, "GET") != 0 || conn->minor_version < 1)
        return "a WebSocket starts with GET by HTTP/1.1";
    if (!upgrade || !sbx_http1_has_token(upgrade, strlen(upgrade), "websocket") || !connection ||
        !sbx_http1_has_token(connection, strlen(connection), "upgrade"))
        return "this path is for WebSockets";
    if (!key || strlen(key) != 24 || strcmp(key + 22, "==") != 0 ||
        strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") != 22)
        return "Sec-WebSocket-Key is missing or wrong";
    return NULL;
}

sd_ws *sd_ws_accept(sd_conn *conn)
{
    const char *problem = handshake_problem(conn), *version = conn->headers[SD_WS_VERSION];
    char accept[29], *head;
    uv_buf_t part;
    sd_ws *ws;
    if (problem) {
        sd_error(conn, 400, "BadRequest", "%s", problem);
        return NULL;
    }
    if (!version || strcmp(version, "13") != 0) {
        static const char body[] = "{\"detail\":\"the version of WebSocket must be 13\"}";
        sd_reply(conn, 426, "application/json", "Sec-WebSocket-Version: 13\r\n", body,
                 sizeof(body) - 1);
        return NULL;
    }
    ws = (sd_ws *)sd_alloc(sizeof(*ws));
    ws->conn = conn;
    sbx_ws_init(&ws->codec, SBX_WS_SERVER, SD_MAX_MESSAGE);
    sbx_ws_accept(conn->headers[SD_WS_KEY], 24, accept);
    head = sd_text("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                   "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                   accept);
    part = uv_buf_init(head, (unsigned)strlen(head));
    conn->user = ws;
    conn->on_drain = on_drain;
    conn->on_eof = on_eof;
    conn->release = on_release;
    sd_upgrade(conn, on_input);
    sd_send(conn, &part, 1);
    free(head);
    return ws;
}
