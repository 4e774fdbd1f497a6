/* HTTP connections: requests in, answers out, one after the other on each connection.

   A connection has at most one request at work. What the client sends on before its answer is out
   is kept, up to one read, and then not read any more, so a client cannot make the server hold more
   than a few buffers. Every state has a time limit that the client cannot stretch. A refused
   request is answered, the rest of it is thrown away for a while, and then the connection is
   closed: closing at once would let the kernel destroy the answer on its way. */
#include "sandboxd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { IDLE_MS = 75000, HEAD_MS = 15000, BODY_MS = 30000, SEND_MS = 60000, LINGER_MS = 5000 };
enum { KEEPALIVE_S = 60 };
enum { BURST = 1 << 20 }; /* sent in one turn of the loop, so that nobody keeps others waiting */

enum { STATE_HEAD, STATE_BODY, STATE_BUSY, STATE_UPGRADED, STATE_LINGER };

static const char *const header_names[SD_HEADERS] = {
    "content-type",          "expect", "connection", "upgrade", "sec-websocket-key",
    "sec-websocket-version", "origin", "host",       "range",   "if-range",
    "if-none-match",
};

/* All reads of the process go here first. */
static char read_buffer[65536];

static void feed(sd_conn *c, char *data, size_t len);

/* ---- life of a connection ---- */

static void forget_request(sd_conn *c)
{
    size_t i;
    free(c->target);
    c->target = NULL;
    for (i = 0; i < c->segment_count; i++)
        free(c->segments[i]);
    for (i = 0; i < SD_HEADERS; i++)
        free(c->headers[i]);
    memset(c->headers, 0, sizeof(c->headers));
    c->segment_count = 0;
    sd_json_free(c->document);
    c->document = NULL;
    c->json = NULL;
    free(c->body);
    c->body = NULL;
    c->body_len = c->body_cap = 0;
    c->route = NULL;
    c->user = NULL;
    c->on_body = NULL;
    c->on_body_end = c->on_drain = c->on_eof = c->release = NULL;
    c->method[0] = 0;
    c->responded = c->no_body = c->body_done = c->authorized = c->head_begun = c->chunked = 0;
}

static void on_closed(uv_handle_t *handle)
{
    sd_conn *c = (sd_conn *)handle->data;
    if (--c->handles > 0)
        return;
    if (c->release)
        c->release(c);
    forget_request(c);
    if (c->previous)
        c->previous->next = c->next;
    else
        c->server->connections = c->next;
    if (c->next)
        c->next->previous = c->previous;
    c->server->count--;
    free(c->saved);
    free(c->queue);
    free(c);
}

/* 1 when all has been sent that is to be sent before the connection is cut. */
static int is_spent(const sd_conn *c)
{
    return c->faults.cut_after && c->sent >= c->faults.cut_after;
}

void sd_drop(sd_conn *c)
{
    if (c->closing)
        return;
    c->closing = 1;
    if (!is_spent(c) || !c->faults.reset || uv_tcp_close_reset(&c->tcp, on_closed) < 0)
        uv_close((uv_handle_t *)&c->tcp, on_closed);
    uv_close((uv_handle_t *)&c->timer, on_closed);
    uv_close((uv_handle_t *)&c->delay, on_closed);
}

/* Nothing can be sent any more. What an upgraded connection's client said before is still read: it
   may be the message that matters most. */
static void lose(sd_conn *c)
{
    if (c->state != STATE_UPGRADED) {
        sd_drop(c);
        return;
    }
    c->lost = 1;
    c->queue_len = 0;
    sd_pause(c, 0);
}

int sd_lost(const sd_conn *c)
{
    return c->closing || c->lost || is_spent(c);
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
    sd_conn *c = (sd_conn *)request->data;
    free(request);
    if (status < 0 || c->eof)
        sd_drop(c);
}

static void on_timer(uv_timer_t *timer)
{
    sd_conn *c = (sd_conn *)timer->data;
    int in_request =
        !is_spent(c) && (c->state == STATE_BODY || (c->state == STATE_HEAD && c->head_begun > 0));
    if (in_request && !c->responded) {
        c->close_after = 1;
        sd_error(c, 408, "RequestTimeout", "the request did not arrive in time");
    } else if (is_spent(c) && sd_unsent(c) > 0 && c->cut_waits++ < LINGER_MS) {
        uv_timer_start(timer, on_timer, 1, 0); /* a reset would destroy what is on its way */
    } else {
        sd_drop(c);
    }
}

static void set_timer(sd_conn *c, uint64_t ms)
{
    if (!c->closing)
        uv_timer_start(&c->timer, on_timer, is_spent(c) && sd_pending(c) == 0 ? 0 : ms, 0);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(read_buffer, sizeof(read_buffer));
}

static void on_end(sd_conn *c)
{
    c->eof = 1;
    sd_pause(c, 1);
    if (c->state == STATE_BUSY || c->state == STATE_UPGRADED) {
        if (c->on_eof)
            c->on_eof(c);
    } else if (sd_pending(c) == 0 || (c->state != STATE_LINGER && !c->responded)) {
        sd_drop(c);
    }
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    sd_conn *c = (sd_conn *)stream->data;
    if (c->closing || n == 0)
        return;
    if (n == UV_EOF)
        on_end(c);
    else if (n < 0)
        sd_drop(c);
    else
        feed(c, buffer->base, (size_t)n);
}

void sd_pause(sd_conn *c, int pause)
{
    if (c->closing || c->reading == !pause || (!pause && c->eof))
        return;
    c->reading = !pause;
    if (pause)
        uv_read_stop((uv_stream_t *)&c->tcp);
    else
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

static void on_connection(uv_stream_t *listener, int status)
{
    sd_server *server = (sd_server *)listener->data;
    sd_conn *c;
    if (status < 0) {
        sd_log("a connection could not be accepted: %s", uv_strerror(status));
        return;
    }
    c = (sd_conn *)sd_alloc(sizeof(*c));
    c->server = server;
    c->next = server->connections;
    if (c->next)
        c->next->previous = c;
    server->connections = c;
    server->count++;
    c->handles = 3;
    uv_tcp_init(server->loop, &c->tcp);
    uv_timer_init(server->loop, &c->timer);
    uv_timer_init(server->loop, &c->delay);
    c->tcp.data = c->timer.data = c->delay.data = c;
    if (server->faults)
        server->faults(server, &c->faults);
    sbx_http1_init(&c->http, SBX_HTTP1_REQUEST, c->scratch, sizeof(c->scratch));
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) < 0 || server->count > SD_MAX_CONNECTIONS) {
        sd_drop(c);
        return;
    }
    uv_tcp_nodelay(&c->tcp, 1);
    uv_tcp_keepalive(&c->tcp, 1, KEEPALIVE_S); /* tells, too, when nothing is read */
    sd_pause(c, 0);
    set_timer(c, IDLE_MS);
}

int sd_listen(int port, int *actual)
{
    struct sockaddr_in address;
    socklen_t len = sizeof(address);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)port);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&address, len) < 0 || listen(fd, 512) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) < 0) {
        int problem = errno;
        close(fd);
        errno = problem;
        return -1;
    }
    *actual = ntohs(address.sin_port);
    return fd;
}

int sd_serve(sd_server *server, int socket)
{
    int result;
    uv_tcp_init(server->loop, &server->listener);
    server->listener.data = server;
    result = uv_tcp_open(&server->listener, socket);
    if (result == 0)
        result = uv_listen((uv_stream_t *)&server->listener, 512, on_connection);
    return result;
}

void sd_server_close(sd_server *server)
{
    sd_conn *c;
    if (!uv_is_closing((uv_handle_t *)&server->listener))
        uv_close((uv_handle_t *)&server->listener, NULL);
    for (c = server->connections; c; c = c->next)
        sd_drop(c);
}

/* ---- sending ---- */

typedef struct writing {
    uv_write_t request;
    char *data;
} writing;

static void exchange_over(sd_conn *c);

static void start_write(sd_conn *c);

/* Nothing waits to be sent any more. */
static void drained(sd_conn *c)
{
    if (c->state == STATE_LINGER) {
        uv_shutdown_t *request = (uv_shutdown_t *)sd_alloc(sizeof(*request));
        request->data = c;
        set_timer(c, LINGER_MS);
        if (uv_shutdown(request, (uv_stream_t *)&c->tcp, on_shutdown) < 0) {
            free(request);
            sd_drop(c);
        }
        return;
    }
    if (c->state == STATE_BUSY || c->state == STATE_UPGRADED)
        uv_timer_stop(&c->timer);
    if (c->on_drain)
        c->on_drain(c);
    if (c->responded && sd_pending(c) == 0 && !c->feeding)
        exchange_over(c);
}

static void on_written(uv_write_t *request, int status)
{
    sd_conn *c = (sd_conn *)request->data;
    writing *w = SD_OWNER(request, writing, request);
    free(w->data);
    free(w);
    c->sending = 0;
    c->burst = 0;
    if (c->closing || c->lost)
        return;
    if (status < 0)
        lose(c);
    else if (c->queue_len > 0)
        start_write(c);
    else if (is_spent(c))
        set_timer(c, 0);
    else
        drained(c);
}

static void write_queue(sd_conn *c)
{
    writing *w = (writing *)sd_alloc(sizeof(*w));
    uv_buf_t buffer = uv_buf_init(c->queue, (unsigned)c->queue_len);
    w->data = c->queue;
    w->request.data = c;
    c->sending = c->queue_len;
    c->queue = NULL;
    c->queue_len = c->queue_cap = 0;
    /* An upgraded connection may rest as long as it likes: its client is on this machine. */
    if (c->state != STATE_UPGRADED)
        set_timer(c, SEND_MS);
    if (uv_write(&w->request, (uv_stream_t *)&c->tcp, &buffer, 1, on_written) < 0) {
        free(w->data);
        free(w);
        c->sending = 0;
        lose(c);
    }
}

static void on_delayed(uv_timer_t *timer)
{
    sd_conn *c = (sd_conn *)timer->data;
    if (!sd_lost(c) || is_spent(c))
        write_queue(c);
}

static void start_write(sd_conn *c)
{
    if (c->faults.delay_ms == 0)
        write_queue(c);
    else if (!uv_is_active((uv_handle_t *)&c->delay))
        uv_timer_start(&c->delay, on_delayed, c->faults.delay_ms, 0);
}

static void enqueue(sd_conn *c, const char *data, size_t len)
{
    if (c->queue_cap - c->queue_len < len) {
        size_t cap = c->queue_cap ? c->queue_cap : 4096;
        while (cap - c->queue_len < len)
            cap *= 2;
        c->queue = (char *)sd_grow(c->queue, cap);
        c->queue_cap = cap;
    }
    memcpy(c->queue + c->queue_len, data, len);
    c->queue_len += len;
}

/* How much of so many bytes may still be sent before the connection is cut. */
static size_t allowed(const sd_conn *c, size_t len)
{
    const uint64_t left = c->faults.cut_after - c->sent;
    return c->faults.cut_after && left < len ? (size_t)left : len;
}

void sd_send(sd_conn *c, const uv_buf_t *given, unsigned count)
{
    uv_buf_t parts[3];
    size_t sent = 0;
    unsigned i;
    if (sd_lost(c) || c->state == STATE_LINGER)
        return;
    for (i = 0; i < count; i++) {
        parts[i] = uv_buf_init(given[i].base, (unsigned)allowed(c, given[i].len));
        c->sent += parts[i].len;
    }
    if (sd_pending(c) == 0 && c->burst < BURST && c->faults.delay_ms == 0) {
        int n = uv_try_write((uv_stream_t *)&c->tcp, parts, count);
        if (n < 0 && n != UV_EAGAIN) {
            lose(c);
            return;
        }
        sent = n > 0 ? (size_t)n : 0;
        c->burst += sent;
    }
    for (i = 0; i < count; i++) {
        size_t skip = sent < parts[i].len ? sent : parts[i].len;
        sent -= skip;
        if (parts[i].len > skip)
            enqueue(c, parts[i].base + skip, parts[i].len - skip);
    }
    if (c->queue_len > 0 && c->sending == 0)
        start_write(c);
    if (is_spent(c) && sd_pending(c) == 0)
        set_timer(c, 0);
}

size_t sd_pending(const sd_conn *c)
{
    return c->sending + c->queue_len;
}

size_t sd_unsent(const sd_conn *c)
{
    size_t left = uv_stream_get_write_queue_size((const uv_stream_t *)&c->tcp) + c->queue_len;
    uv_os_fd_t fd;
    int queued;
    if (uv_fileno((const uv_handle_t *)&c->tcp, &fd) == 0 && ioctl(fd, SIOCOUTQ, &queued) == 0)
        left += (size_t)queued;
    return left;
}

int sd_peer_gone(const sd_conn *c)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);
    uv_os_fd_t fd;
    return uv_fileno((const uv_handle_t *)&c->tcp, &fd) == 0 &&
           getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
           info.tcpi_state != TCP_ESTABLISHED;
}

void sd_finish(sd_conn *c)
{
    if (c->closing || c->state == STATE_LINGER || is_spent(c))
        return;
    if (c->lost) {
        sd_drop(c);
        return;
    }
    c->state = STATE_LINGER;
    sd_pause(c, 0);
    if (sd_pending(c) == 0)
        drained(c);
    else
        set_timer(c, SEND_MS);
}

/* ---- answers ---- */

static const char *reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {200, "OK"},
        {201, "Created"},
        {204, "No Content"},
        {206, "Partial Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {507, "Insufficient Storage"},
    };
    size_t i;
    for (i = 0; i < SD_COUNT(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "";
}

void sd_reply_start(sd_conn *c, int status, const char *type, const char *headers, int64_t length)
{
    char date[64], framing[64] = "";
    const char *connection = "";
    time_t now = time(NULL);
    struct tm tm;
    char *head;
    uv_buf_t part;

    gmtime_r(&now, &tm);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (length >= 0 && status != 204 && status != 304)
        snprintf(framing, sizeof(framing), "Content-Length: %lld\r\n", (long long)length);
    else if (length < 0 && c->minor_version >= 1) {
        snprintf(framing, sizeof(framing), "Transfer-Encoding: chunked\r\n");
        c->chunked = 1;
    }
    if (!c->body_done || c->eof || !sbx_http1_keep_alive(&c->http) ||
        (length < 0 && c->minor_version == 0))
        c->close_after = 1;
    if (c->close_after)
        connection = "Connection: close\r\n";
    else if (c->minor_version == 0)
        connection = "Connection: keep-alive\r\n";
    head = sd_text("HTTP/1.1 %d %s\r\nDate: %s\r\n%s%s%s%s%s%s\r\n", status, reason(status), date,
                   type ? "Content-Type: " : "", type ? type : "", type ? "\r\n" : "",
                   headers ? headers : "", framing, connection);
    part = uv_buf_init(head, (unsigned)strlen(head));
    sd_send(c, &part, 1);
    free(head);
}

void sd_send_body(sd_conn *c, const char *data, size_t len)
{
    uv_buf_t parts[3];
    char size[SBX_HTTP1_CHUNK_MAX], end[] = "\r\n";
    if (c->no_body || len == 0)
        return;
    parts[1] = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
    if (!c->chunked) {
        sd_send(c, parts + 1, 1);
        return;
    }
    parts[0] = uv_buf_init(size, (unsigned)sbx_http1_chunk(size, len));
    parts[2] = uv_buf_init(end, 2);
    sd_send(c, parts, 3);
}

void sd_reply_end(sd_conn *c)
{
    char end[] = "0\r\n\r\n";
    uv_buf_t part = uv_buf_init(end, 5);
    if (c->chunked && !c->no_body)
        sd_send(c, &part, 1);
    c->responded = 1;
    if (sd_pending(c) == 0 && !c->feeding)
        exchange_over(c);
}

/* Goes on with what came behind the last request. */
static void resume(uv_timer_t *timer)
{
    sd_conn *c = (sd_conn *)timer->data;
    char *saved = c->saved;
    c->saved = NULL;
    set_timer(c, IDLE_MS);
    feed(c, saved, c->saved_len);
    free(saved);
    if (!c->saved)
        sd_pause(c, 0);
}

/* The answer is out. The next request waits for a turn of the loop of its own: whoever gave this
   answer may be about to change what that one is about. */
static void exchange_over(sd_conn *c)
{
    int more = !c->close_after && c->body_done && !c->eof;
    if (c->closing || is_spent(c))
        return;
    if (c->release)
        c->release(c);
    forget_request(c);
    if (!more) {
        sd_finish(c);
        return;
    }
    c->state = STATE_HEAD;
    set_timer(c, IDLE_MS);
    if (c->saved)
        uv_timer_start(&c->timer, resume, 0, 0);
    else if (!c->feeding)
        sd_pause(c, 0);
}

/* ---- requests ---- */

static void refuse(sd_conn *c, int status, const char *type, const char *message)
{
    c->close_after = 1;
    sd_error(c, status, type, "%s", message);
}

static void note_header(sd_conn *c, const sbx_http1_event *event)
{
    size_t i;
    if (event->name_len == 9 && strncasecmp(event->name, "x-api-key", 9) == 0 &&
        c->server->key->required)
        c->authorized |= sd_key_matches(c->server->key, event->value, event->value_len);
    for (i = 0; i < SD_HEADERS; i++)
        if (event->name_len == strlen(header_names[i]) &&
            strncasecmp(event->name, header_names[i], event->name_len) == 0) {
            free(c->headers[i]);
            c->headers[i] = sd_copy(event->value, event->value_len);
        }
}

/* The path behind the server's prefix; NULL: it has none of them. *end is where it ends. */
static const char *path_of(const sd_conn *c, const char **end)
{
    const char *path = c->target, *const * prefix;
    if (strncasecmp(path, "http://", 7) ==
        0) { /* the form for proxies, which servers must take too */
        path = strchr(path + 7, '/');
        if (!path)
            return NULL;
    }
    *end = path + strcspn(path, "?");
    for (prefix = c->server->prefixes; *prefix; prefix++) {
        size_t len = strlen(*prefix);
        if ((size_t)(*end - path) > len && strncmp(path, *prefix, len) == 0 && path[len] == '/')
            return path + len + 1;
    }
    return NULL;
}

/* Splits and decodes the path. 0, or the status to refuse it with. */
static int split_path(sd_conn *c)
{
    const char *end = NULL, *at = path_of(c, &end);
    if (!at)
        return 404;
    for (;;) {
        size_t len = 0, decoded;
        char *segment;
        while (at + len < end && at[len] != '/')
            len++;
        if (c->segment_count == SD_SEGMENTS)
            return 404;
        segment = sd_copy(at, len);
        decoded = sbx_url_decode(at, len, 0, segment);
        c->segments[c->segment_count++] = segment;
        if (decoded == SIZE_MAX || memchr(segment, 0, decoded))
            return 400;
        segment[decoded] = 0;
        at += len;
        if (at == end)
            return 0;
        at++;
    }
}

/* Whether the request's path is one of the route's. */
static int matches(const sd_conn *c, const sd_route *route)
{
    const char *at = route->path;
    size_t i;
    for (i = 0; i < c->segment_count; i++) {
        size_t len;
        if (*at != '/')
            return 0;
        len = strcspn(++at, "/");
        if (len == 2 && strncmp(at, "{}", 2) == 0) {
            if (!c->segments[i][0])
                return 0;
        } else if (strlen(c->segments[i]) != len || strncmp(at, c->segments[i], len) != 0) {
            return 0;
        }
        at += len;
    }
    return *at == 0;
}

const char *sd_segment(const sd_conn *c, size_t n)
{
    const char *at = c->route->path;
    size_t i;
    for (i = 0; i < c->segment_count; i++) {
        at++;
        if (strncmp(at, "{}", 2) == 0 && n-- == 0)
            return c->segments[i];
        at += strcspn(at, "/");
    }
    return "";
}

char *sd_query(const sd_conn *c, const char *name)
{
    const char *query = strchr(c->target, '?');
    size_t cap, len;
    char *value;
    if (!query)
        return NULL;
    query++;
    cap = strlen(query) + 1;
    value = (char *)sd_alloc(cap);
    if (sbx_url_query(query, cap - 1, name, value, cap, &len) != SBX_OK) {
        free(value);
        return NULL;
    }
    return value;
}

/* Finds the route. If there is none it answers. */
static void choose_route(sd_conn *c)
{
    const char *method = c->no_body ? "GET" : c->method;
    char *allow = sd_copy("", 0), *longer;
    size_t i;
    for (i = 0; i < c->server->route_count && !c->route; i++) {
        const sd_route *route = &c->server->routes[i];
        if (!matches(c, route))
            continue;
        if (strcmp(route->method, method) == 0)
            c->route = route;
        longer = sd_text("%s%s%s%s", allow, *allow ? ", " : "", route->method,
                         strcmp(route->method, "GET") == 0 ? ", HEAD" : "");
        free(allow);
        allow = longer;
    }
    if (!c->route && *allow) {
        char *header = sd_text("Allow: %s\r\n", allow);
        char body[] = "{\"detail\":\"Method Not Allowed\"}";
        sd_reply(c, 405, "application/json", header, body, sizeof(body) - 1);
        free(header);
    } else if (!c->route) {
        sd_error(c, 404, "NotFound", "there is nothing at this path");
    }
    free(allow);
}

/* 1 if a browser sent the request for a web page that does not come from this server itself. Any
   page could use a server without a key otherwise: its users' browsers can reach it. (The name
   matters because a page may have made its own name point to this machine.) */
static int is_foreign_page(const sd_conn *c)
{
    const char *origin = c->headers[SD_ORIGIN], *host = c->headers[SD_HOST];
    size_t name = host ? strcspn(host, ":") : 0;
    int ours = (name == 9 && strncmp(host, "127.0.0.1", name) == 0) ||
               (name == 9 && strncasecmp(host, "localhost", name) == 0);
    if (!origin)
        return 0;
    return !ours || strncmp(origin, "http://", 7) != 0 || strcmp(origin + 7, host) != 0;
}

/* Decides what becomes of the request: before its body comes, so that nobody sends one in vain, or
   when it is complete if it has none, so that the connection can be used again whatever the answer
   is. */
static void begin_request(sd_conn *c)
{
    static char proceed[] = "HTTP/1.1 100 Continue\r\n\r\n";
    uv_buf_t part = uv_buf_init(proceed, sizeof(proceed) - 1);
    const char *expect = c->headers[SD_EXPECT];
    int status;

    if (c->server->key->required && !c->authorized) {
        sd_error(c, 401, "Unauthorized", "the X-Api-Key header is missing or wrong");
        return;
    }
    if (!c->server->key->required && is_foreign_page(c)) {
        sd_error(c, 403, "Forbidden", "requests from web pages need a server with an API key");
        return;
    }
    status = split_path(c);
    if (status == 400) {
        sd_error(c, 400, "BadRequest", "the path has a bad escape");
        return;
    }
    if (status == 404)
        sd_error(c, 404, "NotFound", "there is nothing at this path");
    else
        choose_route(c);
    if (!c->route)
        return;
    if (c->route->body != SD_BODY_STREAM && c->content_length > (int64_t)SD_MAX_JSON_BODY) {
        sd_error(c, 413, "TooLarge", "the body is larger than %u bytes", SD_MAX_JSON_BODY);
        return;
    }
    if (expect && strcasecmp(expect, "100-continue") != 0) {
        sd_error(c, 417, "ExpectationFailed", "the only expectation known is 100-continue");
        return;
    }
    if (c->route->body == SD_BODY_STREAM)
        c->route->handle(c);
    if (!c->responded && !c->closing && expect && !c->body_done && c->minor_version >= 1)
        sd_send(c, &part, 1);
}

static void take_body(sd_conn *c, const char *data, size_t len)
{
    if (c->responded || !c->route)
        return;
    if (c->route->body == SD_BODY_STREAM) {
        set_timer(c, BODY_MS);
        if (c->on_body)
            c->on_body(c, data, len);
        return;
    }
    if (len > SD_MAX_JSON_BODY - c->body_len) {
        sd_error(c, 413, "TooLarge", "the body is larger than %u bytes", SD_MAX_JSON_BODY);
        return;
    }
    if (c->body_cap - c->body_len < len) {
        c->body_cap = c->body_len + len > 2 * c->body_cap ? c->body_len + len : 2 * c->body_cap;
        c->body = (char *)sd_grow(c->body, c->body_cap);
    }
    memcpy(c->body + c->body_len, data, len);
    c->body_len += len;
}

static void end_request(sd_conn *c)
{
    const char *problem = "";
    c->state = STATE_BUSY;
    c->body_done = 1;
    if (c->content_length == 0)
        begin_request(c);
    if (c->responded || !c->route)
        return;
    uv_timer_stop(&c->timer);
    if (c->route->body == SD_BODY_STREAM) {
        if (c->on_body_end)
            c->on_body_end(c);
        return;
    }
    if (c->route->body == SD_BODY_JSON && c->body_len > 0) {
        c->document = sd_json_parse(c->body, c->body_len, &problem);
        if (!c->document) {
            sd_error(c, 400, "InvalidJSON", "the body is not valid JSON: %s", problem);
            return;
        }
        c->json = sd_json_root(c->document);
    }
    free(c->body);
    c->body = NULL;
    c->body_len = c->body_cap = 0;
    c->route->handle(c);
}

static void handle_event(sd_conn *c, const sbx_http1_event *event)
{
    switch (event->type) {
    case SBX_HTTP1_START:
        c->minor_version = event->minor_version;
        if (event->name_len < sizeof(c->method))
            memcpy(c->method, event->name, event->name_len);
        c->method[event->name_len < sizeof(c->method) ? event->name_len : 0] = 0;
        c->no_body = strcmp(c->method, "HEAD") == 0;
        c->target = sd_copy(event->value, event->value_len);
        break;
    case SBX_HTTP1_HEADER:
        note_header(c, event);
        break;
    case SBX_HTTP1_HEAD_END:
        c->content_length = event->content_length;
        c->state = STATE_BODY;
        set_timer(c, BODY_MS);
        if (c->content_length != 0)
            begin_request(c);
        break;
    case SBX_HTTP1_BODY:
        take_body(c, event->data, event->len);
        break;
    case SBX_HTTP1_TRAILER:
        break;
    case SBX_HTTP1_MESSAGE_END:
        end_request(c);
        break;
    }
}

/* The client broke the protocol. */
static void handle_problem(sd_conn *c, sbx_status status)
{
    if (c->responded) {
        c->close_after = 1;
        return;
    }
    if (status == SBX_END) /* more after "Connection: close" */
        sd_drop(c);
    else if (status == SBX_E_TOO_BIG)
        refuse(c, 431, "TooLarge", c->http.problem ? c->http.problem : "the head is too large");
    else
        refuse(c, 400, "BadRequest", c->http.problem ? c->http.problem : "this is not HTTP/1.1");
}

/* Works on what the client sent until it is used up or an answer must come first. */
static void feed(sd_conn *c, char *data, size_t len)
{
    sbx_http1_event event;
    sbx_status status;
    size_t used;

    if (c->state == STATE_UPGRADED) {
        c->on_input(c, data, len);
        return;
    }
    c->feeding = 1;
    while (!c->closing && (c->state == STATE_HEAD || c->state == STATE_BODY)) {
        if (c->state == STATE_HEAD && len > 0 && c->head_begun == 0) {
            c->head_begun = 1;
            set_timer(c, HEAD_MS);
        }
        status = sbx_http1_read(&c->http, data, len, &used, &event);
        data += used;
        len -= used;
        if (status == SBX_AGAIN)
            break;
        if (status == SBX_OK)
            handle_event(c, &event);
        else
            handle_problem(c, status);
        if (!c->closing && c->responded && sd_pending(c) == 0)
            exchange_over(c);
        else if (status != SBX_OK)
            break;
    }
    c->feeding = 0;
    if (c->closing || c->state == STATE_LINGER || len == 0)
        return;
    if (c->state == STATE_UPGRADED) {
        c->on_input(c, data, len);
        return;
    }
    if (c->state == STATE_BUSY) { /* a request behind this one: for later */
        c->saved = sd_copy(data, len);
        c->saved_len = len;
        sd_pause(c, 1);
    }
}

void sd_upgrade(sd_conn *c, void (*on_input)(sd_conn *conn, char *data, size_t len))
{
    c->state = STATE_UPGRADED;
    c->on_input = on_input;
    uv_timer_stop(&c->timer);
}
