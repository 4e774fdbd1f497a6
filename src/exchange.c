/* exchange: one HTTP request and its response, repeated where a repetition is safe.

   Promises: memory does not grow with the body where a source or a sink is set; a response that
   comes before the request is complete is read, not lost; nothing is repeated that may have had an
   effect, but for what the flags allow. Says SBX_OK for any complete response: what its status
   means is for the caller. May call connection and the HTTP codec. */
#include "internal.h"

/* sbxi_exchange.flags */
enum {
    SBXI_IDEMPOTENT = 1, /* may be repeated after its bytes were sent */
    SBXI_FRESH = 2,      /* takes no connection from the pool and gives none: a command is too
                               precious for the doubt that a kept connection may be stale */
    SBXI_SINGLE = 4,     /* one attempt: a WebSocket's upgrade is repeated by its command */
    SBXI_UNSENT = 8      /* repeated only where it surely was not carried out */
};

#define SBXI_REFUSAL_MS 2000 /* for the body of a refused upgrade */

typedef enum sbxi_exchange_state {
    SBXI_EXCHANGE_BEGIN,
    SBXI_EXCHANGE_CONNECT,
    SBXI_EXCHANGE_TRANSFER,
    SBXI_EXCHANGE_BACKOFF,
    SBXI_EXCHANGE_DONE
} sbxi_exchange_state;

typedef enum sbxi_part {
    SBXI_PART_BEFORE,
    SBXI_PART_DATA,
    SBXI_PART_AFTER,
    SBXI_PART_END
} sbxi_part;

typedef struct sbxi_exchange {
    sbx_client *client;
    sbxi_address to;
    const char *method;
    const char *content_type; /* NULL: none */
    const char *headers;      /* lines of the caller, or NULL */
    const char *upgrade_key;  /* Sec-WebSocket-Key: asks for a WebSocket. NULL: does not */
    unsigned flags;
    int64_t limit_ms; /* one attempt; SBX_NONE: no limit */
    int64_t idle_ms;  /* without a byte moving; SBX_NONE */

    /* The body: before, then data or what source gives, then after. All lent. */
    int has_body;
    const char *before, *data, *after;
    size_t data_len;
    sbx_source_fn source;
    int64_t source_size; /* SBX_NONE: unknown, so chunked */
    sbx_sink_fn sink;    /* of a 2xx body; NULL: it goes to answer */
    sbx_progress_fn progress;
    void *user;
    size_t max_answer;

    /* The attempt. */
    sbxi_exchange_state state;
    sbxi_connection *connection;
    sbx_http1 http;
    sbxi_part part;
    size_t data_at;
    int64_t source_left, moved, moved_told;
    int source_used, sink_used, sent, received, head_read, busy;
    sbx_status write_failed; /* why nothing more can be written; SBX_OK: it can */
    int attempts, stale;
    int maybe_done; /* an attempt whose outcome is unknown may have had its effect */
    int64_t attempt_deadline, idle_deadline, wake;
    int64_t pause_end; /* pauses between attempts end here at the latest */
    int64_t dry_until; /* when to ask a source again that had nothing; 0: it has */

    /* The response. */
    int status;
    int64_t content_length, retry_after_ms;
    int upgrade_named, upgrade_connected, accept_ok; /* what a WebSocket's handshake must have */
    int upgrade_unasked; /* and must not: an extension or a protocol that nobody offered */
    sbxi_buffer answer;
} sbxi_exchange;

static void sbxi_exchange_init(sbxi_exchange *x, sbx_client *client, const char *method)
{
    memset(x, 0, sizeof(*x));
    x->client = client;
    x->method = method;
    x->limit_ms = client->timeout_ms;
    x->idle_ms = SBX_NONE;
    x->source_size = SBX_NONE;
    x->pause_end = SBXI_FOREVER;
    x->max_answer = client->max_body;
    sbxi_buffer_init(&x->answer, &client->memory, client->max_body + 1);
}

static void sbxi_exchange_free(sbxi_exchange *x)
{
    sbxi_connection_close(x->connection);
    x->connection = NULL;
    sbxi_buffer_free(&x->answer);
    sbxi_address_free(&x->to, &x->client->memory);
}

/* ---- header lines ---- */

/* The length of the line's name if the line is "Name: value" with legal characters, else 0. */
static size_t sbxi_header_name(const char *line)
{
    const char *colon = strchr(line, ':');
    size_t len = colon ? (size_t)(colon - line) : 0;
    return len && sbxi_http1_token(line, len) && sbxi_http1_value(colon + 1, strlen(colon + 1))
               ? len
               : 0;
}

static int sbxi_header_is_framing(const char *name, size_t len)
{
    static const char *const framing[] = {
        "Host",    "Content-Length", "Transfer-Encoding", "Connection",
        "Upgrade", "Expect",         "Trailer",           "TE"};
    int i;
    for (i = 0; i < SBXI_COUNT(framing); i++)
        if (sbxi_equal_nocase(name, len, framing[i]))
            return 1;
    return len >= 4 && sbxi_equal_nocase(name, 4, "Sec-");
}

static int sbxi_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

/* 1 if block, lines that each end with CR LF, has a header of this name. */
static int sbxi_headers_have(const char *block, const char *name, size_t len)
{
    size_t i;
    for (; block && *block; block = strstr(block, "\r\n") + 2) {
        for (i = 0; i < len && block[i] != ':' && sbxi_lower(block[i]) == sbxi_lower(name[i]);
             i++) {
        }
        if (i == len && block[i] == ':')
            return 1;
    }
    return 0;
}

/* Checks lines (NULL: none) and makes one block of them: lines first, then those of base with other
   names. Of lines with the same name the first counts. *out is NULL where there are none. */
static sbx_status sbxi_headers_make(const sbx_allocator *memory, const char *const *lines,
                                    const char *base, char **out, size_t *out_size, sbx_error *err)
{
    size_t size = base ? strlen(base) + 1 : 1, at = 0;
    const char *end;
    int count;
    *out = NULL;
    *out_size = 0;
    for (count = 0; lines && lines[count]; count++) {
        size_t name = sbxi_header_name(lines[count]);
        if (count == SBXI_MAX_HEADERS)
            return sbxi_fail_argument(err, "headers", "has more than 64 lines");
        if (!name)
            return sbxi_fail_argument(err, "headers",
                                      "must hold lines \"Name: value\" without control characters");
        if (sbxi_header_is_framing(lines[count], name))
            return sbxi_fail_argument(err, "headers",
                                      "must not set a header that frames the message, such as "
                                      "Host, Connection or Content-Length");
        size += strlen(lines[count]) + 2;
    }
    if (size == 1)
        return SBX_OK;
    if (size > SBXI_MAX_LINE)
        return sbxi_fail_argument(err, "headers", "is longer than 16 KiB in all");
    *out = (char *)sbxi_alloc(memory, size);
    if (!*out)
        return sbxi_fail_memory(err);
    *out_size = size;
    (*out)[0] = 0;
    for (count = 0; lines && lines[count]; count++)
        if (!sbxi_headers_have(*out, lines[count], sbxi_header_name(lines[count]))) {
            size_t len = strlen(lines[count]);
            memcpy(*out + at, lines[count], len);
            memcpy(*out + at + len, "\r\n", 3);
            at += len + 2;
        }
    for (; base && *base; base = end) {
        end = strstr(base, "\r\n") + 2;
        if (!sbxi_headers_have(*out, base, strcspn(base, ":"))) {
            memcpy(*out + at, base, (size_t)(end - base));
            at += (size_t)(end - base);
            (*out)[at] = 0;
        }
    }
    return SBX_OK;
}

/* ---- sending ---- */

static int sbxi_exchange_chunked(const sbxi_exchange *x)
{
    return x->source && x->source_size < 0;
}

static sbx_status sbxi_buffer_texts(sbxi_buffer *b, const char *first, ...)
{
    va_list args;
    sbx_status st = SBX_OK;
    const char *text;
    va_start(args, first);
    for (text = first; text && st == SBX_OK; text = va_arg(args, const char *))
        st = sbxi_buffer_text(b, text);
    va_end(args);
    return st;
}

/* "Name: value" unless the caller has set a header of that name. */
static sbx_status sbxi_exchange_header(const sbxi_exchange *x, const char *name, const char *value)
{
    if (!value || sbxi_headers_have(x->headers, name, strlen(name)))
        return SBX_OK;
    return sbxi_buffer_texts(&x->connection->out, name, ": ", value, "\r\n", NULL);
}

static sbx_status sbxi_exchange_head(sbxi_exchange *x)
{
    sbxi_buffer *out = &x->connection->out;
    int ipv6 = strchr(x->to.host, ':') != NULL;
    char number[21] = "";
    sbx_status st;
    /* In one piece from the start, so that growing leaves no copy of the key behind. */
    if (sbxi_buffer_reserve(out, SBXI_MAX_LINE) != SBX_OK)
        return SBX_E_MEMORY;
    if (x->to.port != (x->to.tls ? 443 : 80))
        (void)sbxi_format(number, sizeof(number), ":%d", (int)x->to.port);
    st =
        sbxi_buffer_texts(out, x->method, " ", x->to.target, " HTTP/1.1\r\nHost: ", ipv6 ? "[" : "",
                          x->to.host, ipv6 ? "]" : "", number, "\r\n", NULL);
    if (st == SBX_OK)
        st = sbxi_exchange_header(x, "X-Api-Key", x->client->api_key);
    if (st == SBX_OK)
        st = sbxi_exchange_header(x, "User-Agent", "sandbox.h/" SBX_VERSION);
    if (st == SBX_OK)
        st = sbxi_exchange_header(x, "Accept", "*/*");
    if (st == SBX_OK && x->has_body)
        st = sbxi_exchange_header(x, "Content-Type", x->content_type);
    if (st == SBX_OK && x->has_body) {
        (void)sbxi_decimal(number, (int64_t)(strlen(x->before) + strlen(x->after)) +
                                       (x->source ? x->source_size : (int64_t)x->data_len));
        st = sbxi_exchange_chunked(x)
                 ? sbxi_buffer_text(out, "Transfer-Encoding: chunked\r\n")
                 : sbxi_buffer_texts(out, "Content-Length: ", number, "\r\n", NULL);
    }
    if (st == SBX_OK && x->upgrade_key)
        st = sbxi_buffer_texts(out,
                               "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                               "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
                               x->upgrade_key, "\r\n", NULL);
    if (st == SBX_OK)
        st = sbxi_buffer_texts(out, x->headers ? x->headers : "", "\r\n", NULL);
    return st;
}

/* Appends a piece of the body, framed as a chunk where the body is chunked. */
static sbx_status sbxi_exchange_put(sbxi_exchange *x, const char *data, size_t len)
{
    sbxi_buffer *out = &x->connection->out;
    char head[SBX_HTTP1_CHUNK_MAX];
    sbx_status st = SBX_OK;
    int chunked = sbxi_exchange_chunked(x);
    if (len == 0)
        return SBX_OK;
    if (chunked)
        st = sbxi_buffer_append(out, head, sbx_http1_chunk(head, len));
    if (st == SBX_OK)
        st = sbxi_buffer_append(out, data, len);
    if (st == SBX_OK && chunked)
        st = sbxi_buffer_append(out, "\r\n", 2);
    return st;
}

/* Tells the caller how far the transfer is. */
static sbx_status sbxi_exchange_moved(sbxi_exchange *x, size_t len, int64_t total, int end,
                                      sbx_error *err)
{
    x->moved += (int64_t)len;
    if (!x->progress || (!end && x->moved - x->moved_told < 65536))
        return SBX_OK;
    x->moved_told = x->moved;
    if (x->progress(x->user, x->moved, total) != 0)
        return sbxi_fail(err, SBX_E_ABORTED, "the progress callback ended the transfer");
    return SBX_OK;
}

/* Asks the source for the next bytes; SBX_AGAIN: it has none now. They pass through a buffer on the
   stack, since their number is known only afterwards and the chunk's head stands before them. */
static sbx_status sbxi_exchange_pull(sbxi_exchange *x, sbx_error *err)
{
    char data[16384];
    size_t n = 0;
    int said;
    x->source_used = 1;
    said = x->source(x->user, data, sizeof(data), &n);
    x->idle_deadline = sbxi_after(sbxi_now(x->client), x->idle_ms);
    if (said == SBX_AGAIN)
        return SBX_AGAIN;
    if (said != SBX_OK)
        return sbxi_fail(err, SBX_E_ABORTED, "the source callback ended the transfer");
    if (n > sizeof(data))
        return sbxi_fail_argument(err, "source", "gave more bytes than it was asked for");
    if (x->source_size >= 0) {
        if (n > 0 && (int64_t)n > x->source_left)
            return sbxi_fail_argument(err, "source", "gave more bytes than size says");
        if (n == 0 && x->source_left > 0)
            return sbxi_fail_argument(err, "source", "gave fewer bytes than size says");
        x->source_left -= (int64_t)n;
    }
    if (n == 0) {
        x->part = SBXI_PART_AFTER;
        return sbxi_exchange_moved(x, 0, x->source_size, 1, err);
    }
    if (sbxi_exchange_put(x, data, n) != SBX_OK)
        return sbxi_fail_memory(err);
    return sbxi_exchange_moved(x, n, x->source_size, 0, err);
}

/* Fills the connection's buffer with the next parts of the body. */
static sbx_status sbxi_exchange_fill(sbxi_exchange *x, sbx_error *err)
{
    sbxi_buffer *out = &x->connection->out;
    sbx_status st = SBX_OK;
    while (st == SBX_OK && x->part != SBXI_PART_END && sbxi_buffer_len(out) < SBXI_WRITE_SIZE) {
        if (x->part == SBXI_PART_BEFORE) {
            st = sbxi_exchange_put(x, x->before, strlen(x->before));
            x->part = SBXI_PART_DATA;
        } else if (x->part == SBXI_PART_DATA && x->source) {
            st = sbxi_exchange_pull(x, err);
            if (st != SBX_OK)
                return st; /* also SBX_AGAIN */
        } else if (x->part == SBXI_PART_DATA) {
            size_t n = x->data_len - x->data_at;
            if (n > SBXI_WRITE_SIZE)
                n = SBXI_WRITE_SIZE;
            if (n > 0)
                st = sbxi_exchange_put(x, x->data + x->data_at, n);
            x->data_at += n;
            if (x->data_at == x->data_len)
                x->part = SBXI_PART_AFTER;
            if (st == SBX_OK) {
                st = sbxi_exchange_moved(x, n, (int64_t)x->data_len, x->part == SBXI_PART_AFTER,
                                         err);
                if (st != SBX_OK)
                    return st;
            }
        } else {
            st = sbxi_exchange_put(x, x->after, strlen(x->after));
            if (st == SBX_OK && sbxi_exchange_chunked(x))
                st = sbxi_buffer_text(out, "0\r\n\r\n");
            x->part = SBXI_PART_END;
        }
    }
    return st == SBX_OK ? SBX_OK : sbxi_fail_memory(err);
}

/* SBX_OK: the whole request has left. */
static sbx_status sbxi_exchange_send(sbxi_exchange *x, sbx_error *err)
{
    int64_t end = sbxi_after(sbxi_now(x->client), SBXI_STEP_MS);
    int rounds;
    for (rounds = 0; rounds < 16 && sbxi_now(x->client) < end; rounds++) {
        size_t before = sbxi_buffer_len(&x->connection->out);
        sbx_status st = sbxi_connection_flush(x->connection, err);
        x->dry_until = 0;
        if (sbxi_buffer_len(&x->connection->out) < before) {
            x->sent = 1;
            x->idle_deadline = sbxi_after(sbxi_now(x->client), x->idle_ms);
        }
        if (st != SBX_OK || x->part == SBXI_PART_END)
            return st;
        st = sbxi_exchange_fill(x, err);
        if (st == SBX_AGAIN && sbxi_buffer_len(&x->connection->out) == 0)
            x->dry_until = sbxi_after(sbxi_now(x->client), 50);
        if (x->dry_until || (st != SBX_OK && st != SBX_AGAIN))
            return st;
    }
    x->busy = 1;
    return SBX_AGAIN;
}

/* ---- receiving ---- */

static void sbxi_exchange_response_header(sbxi_exchange *x, const sbx_http1_event *e)
{
    if (sbxi_equal_nocase(e->name, e->name_len, "Retry-After")) {
        uint64_t seconds;
        int64_t date;
        size_t digits = 0;
        while (digits < e->value_len && e->value[digits] >= '0' && e->value[digits] <= '9')
            digits++;
        if (digits > 0 && digits == e->value_len)
            x->retry_after_ms = sbxi_parse_uint(e->value, digits, &seconds) && seconds < 86400
                                    ? (int64_t)seconds * 1000
                                    : 86400000;
        else if (sbxi_parse_http_date(e->value, e->value_len, &date) && sbxi_wall(x->client) > 0)
            x->retry_after_ms = date > sbxi_wall(x->client) ? date - sbxi_wall(x->client) : 0;
    }
#ifndef SBX_NO_WEBSOCKET
    if (x->upgrade_key) {
        char accept[29];
        if (sbxi_equal_nocase(e->name, e->name_len, "Sec-WebSocket-Accept")) {
            sbx_ws_accept(x->upgrade_key, strlen(x->upgrade_key), accept);
            x->accept_ok = e->value_len == 28 && memcmp(e->value, accept, 28) == 0;
        } else if (sbxi_equal_nocase(e->name, e->name_len, "Upgrade"))
            x->upgrade_named |= sbx_http1_has_token(e->value, e->value_len, "websocket");
        else if (sbxi_equal_nocase(e->name, e->name_len, "Connection"))
            x->upgrade_connected |= sbx_http1_has_token(e->value, e->value_len, "upgrade");
        else if (sbxi_equal_nocase(e->name, e->name_len, "Sec-WebSocket-Extensions") ||
                 sbxi_equal_nocase(e->name, e->name_len, "Sec-WebSocket-Protocol"))
            x->upgrade_unasked = 1;
    }
#endif
}

static sbx_status sbxi_exchange_body(sbxi_exchange *x, const sbx_http1_event *e, sbx_error *err)
{
    int success = x->status >= 200 && x->status < 300 && !x->upgrade_key;
    size_t enough = x->upgrade_key ? SBXI_MAX_UPGRADE_BODY : SBXI_MAX_ERROR_BODY;
    sbx_status st;
    if (success && x->sink) {
        x->sink_used = 1;
        if (x->sink(x->user, e->data, e->len) != 0)
            return sbxi_fail(err, SBX_E_ABORTED, "the sink callback ended the transfer");
        x->idle_deadline = sbxi_after(sbxi_now(x->client), x->idle_ms);
        return sbxi_exchange_moved(x, e->len, x->content_length, 0, err);
    }
    if (enough > x->max_answer)
        enough = x->max_answer;
    if (!success && e->len > enough - sbxi_buffer_len(&x->answer)) {
        /* Enough to know what is wrong; the rest is not waited for. */
        st = sbxi_buffer_append(&x->answer, e->data, enough - sbxi_buffer_len(&x->answer));
        return st == SBX_OK ? SBX_END : sbxi_fail_memory(err);
    }
    if (e->len > x->max_answer - sbxi_buffer_len(&x->answer))
        st = SBX_E_TOO_BIG;
    else
        st = sbxi_buffer_append(&x->answer, e->data, e->len);
    if (st == SBX_E_TOO_BIG)
        return sbxi_fail(err, st, "the response to %s %s is longer than %l bytes (max_body)",
                         x->method, x->to.target, (int64_t)x->max_answer);
    if (st != SBX_OK)
        return sbxi_fail_memory(err);
    return success && !x->has_body ? sbxi_exchange_moved(x, e->len, x->content_length, 0, err)
                                   : SBX_OK;
}

/* SBX_AGAIN: go on. SBX_OK: the response is complete. SBX_END: complete enough. */
static sbx_status sbxi_exchange_event(sbxi_exchange *x, const sbx_http1_event *e, sbx_error *err)
{
    sbx_status st;
    switch (e->type) {
    case SBX_HTTP1_START:
        x->status = e->status;
        x->retry_after_ms = SBX_NONE;
        return SBX_AGAIN;
    case SBX_HTTP1_HEADER:
        sbxi_exchange_response_header(x, e);
        return SBX_AGAIN;
    case SBX_HTTP1_HEAD_END:
        x->content_length = e->content_length;
        x->head_read = 1;
        if (x->upgrade_key && x->status != 101) {
            /* What is said besides must come soon, or go without. */
            int64_t soon = sbxi_after(sbxi_now(x->client), SBXI_REFUSAL_MS);
            x->attempt_deadline = soon < x->attempt_deadline ? soon : x->attempt_deadline;
        }
        return SBX_AGAIN;
    case SBX_HTTP1_BODY:
        st = sbxi_exchange_body(x, e, err);
        return st == SBX_OK ? SBX_AGAIN : st;
    case SBX_HTTP1_MESSAGE_END:
        if (!x->has_body && x->status >= 200 && x->status < 300)
            return sbxi_exchange_moved(x, 0, x->content_length, 1, err);
        return SBX_OK;
    default:
        return SBX_AGAIN;
    }
}

static sbx_status sbxi_exchange_ended(sbxi_exchange *x, sbx_error *err)
{
    sbx_http1_event e;
    sbx_status st = x->received ? sbx_http1_finish(&x->http, &e) : SBX_END;
    while (st == SBX_OK) {
        st = sbxi_exchange_event(x, &e, err);
        if (st != SBX_AGAIN)
            return st;
        st = sbx_http1_finish(&x->http, &e);
    }
    return sbxi_fail(err, SBX_E_CONNECTION, "%s closed the connection %s %s %s", x->to.host,
                     x->received ? "in the middle of the response to" : "without a response to",
                     x->method, x->to.target);
}

/* SBX_OK: the response is complete. */
static sbx_status sbxi_exchange_receive(sbxi_exchange *x, sbx_error *err)
{
    sbxi_buffer *in = &x->connection->in;
    int64_t end = sbxi_after(sbxi_now(x->client), SBXI_STEP_MS);
    int rounds;
    for (rounds = 0; rounds < 16 && sbxi_now(x->client) < end; rounds++) {
        sbx_status st = sbxi_connection_fill(x->connection, err);
        if (st == SBX_END)
            return sbxi_exchange_ended(x, err);
        if (st != SBX_OK)
            return st;
        x->idle_deadline = sbxi_after(sbxi_now(x->client), x->idle_ms);
        if (!x->received) {
            x->received = 1;
            sbx_http1_init(&x->http, SBX_HTTP1_RESPONSE, x->connection->scratch, SBXI_MAX_LINE);
        }
        for (;;) {
            sbx_http1_event e;
            size_t used = 0;
            st = sbx_http1_read(&x->http, sbxi_buffer_data(in), sbxi_buffer_len(in), &used, &e);
            sbxi_buffer_consume(in, used);
            if (st == SBX_AGAIN)
                break;
            if (st != SBX_OK)
                return sbxi_fail(err, st == SBX_E_TOO_BIG ? st : SBX_E_PROTOCOL,
                                 "%s port %d does not answer in HTTP as it should: %s", x->to.host,
                                 (int)x->to.port, x->http.problem ? x->http.problem : "");
            st = sbxi_exchange_event(x, &e, err);
            if (st != SBX_AGAIN)
                return st;
        }
    }
    x->busy = 1;
    return SBX_AGAIN;
}

/* ---- attempts ---- */

static void sbxi_exchange_drop(sbxi_exchange *x)
{
    sbxi_connection_close(x->connection);
    x->connection = NULL;
}

static sbx_status sbxi_exchange_begin(sbxi_exchange *x, int64_t now, sbx_error *err)
{
    sbx_status st = SBX_OK;
    sbxi_exchange_drop(x);
    sbxi_buffer_free(&x->answer);
    x->part = x->has_body ? SBXI_PART_BEFORE : SBXI_PART_END;
    x->data_at = 0;
    x->dry_until = 0;
    x->source_left = x->source_size;
    x->moved = x->moved_told = 0;
    x->sent = x->received = x->head_read = x->status = 0;
    x->write_failed = SBX_OK;
    x->upgrade_named = x->upgrade_connected = x->accept_ok = x->upgrade_unasked = 0;
    x->retry_after_ms = SBX_NONE;
    x->attempt_deadline = sbxi_after(now, x->limit_ms);
    x->idle_deadline = sbxi_after(now, x->idle_ms);
    x->attempts++;
    if (!(x->flags & SBXI_FRESH) && !x->stale)
        x->connection = sbxi_pool_take(x->client, &x->to);
    if (!x->connection)
        st = sbxi_connection_dial(x->client, &x->to, &x->connection, err);
    x->state = SBXI_EXCHANGE_CONNECT;
    return st;
}

/* Milliseconds between 0 and 1000. */
static int64_t sbxi_jitter(sbx_client *client)
{
    unsigned char random[2] = {0, 0};
    (void)sbxi_random(client, random, sizeof(random), NULL);
    return (random[0] * 256 + random[1]) % 1001;
}

static void sbxi_exchange_sleep(sbxi_exchange *x, int64_t now, int64_t delay_ms, const char *why)
{
    sbxi_log(x->client, SBX_LOG_INFO, "%s %s: %s, attempt %d, next one in %l ms", x->method,
             x->to.target, why, x->attempts, delay_ms);
    sbxi_exchange_drop(x);
    x->wake = sbxi_after(now, delay_ms);
    if (x->wake > x->pause_end)
        x->wake = x->pause_end;
    x->state = SBXI_EXCHANGE_BACKOFF;
}

static int64_t sbxi_exchange_backoff(const sbxi_exchange *x)
{
    int64_t delay =
        x->attempts > 4 ? 10000 : ((int64_t)1000 << (x->attempts - 1)) + sbxi_jitter(x->client);
    return delay < 10000 ? delay : 10000;
}

static int sbxi_exchange_may_repeat(const sbxi_exchange *x)
{
    return !(x->flags & SBXI_SINGLE) && !x->source_used && !x->sink_used;
}

/* After a failed attempt: 1 if there will be another one. */
static int sbxi_exchange_failed(sbxi_exchange *x, sbx_status st, int64_t now)
{
    int connecting = x->state != SBXI_EXCHANGE_TRANSFER;
    int idempotent = (x->flags & SBXI_IDEMPOTENT) != 0;
    if (!sbxi_exchange_may_repeat(x))
        return 0;
    if (x->connection && x->connection->reused && !x->received && st == SBX_E_CONNECTION &&
        (idempotent || !x->sent)) {
        /* The server had closed an idle connection just before it was used again. */
        sbxi_exchange_drop(x);
        x->maybe_done |= x->sent;
        x->stale = 1;
        x->attempts--;
        x->state = SBXI_EXCHANGE_BEGIN;
        return 1;
    }
    if (x->attempts > x->client->max_retries)
        return 0;
    x->maybe_done |= x->sent;
    if (connecting ? st != SBX_E_CONNECTION && st != SBX_E_CONNECT && st != SBX_E_RESOLVE
                   : st != SBX_E_CONNECTION || !idempotent)
        return 0;
    sbxi_exchange_sleep(x, now, sbxi_exchange_backoff(x), sbx_status_name(st));
    return 1;
}

/* After a complete response: 1 if there will be another attempt. */
static int sbxi_exchange_refused(sbxi_exchange *x, int64_t now)
{
    int64_t wait_ms;
    if (!sbxi_exchange_may_repeat(x) || x->attempts > x->client->max_retries)
        return 0;
    if ((x->flags & SBXI_UNSENT) && x->status != 429)
        return 0;
    if (x->status == 502 || x->status == 503 || x->status == 504) {
        x->maybe_done |= x->status != 503;
        sbxi_exchange_sleep(x, now, sbxi_exchange_backoff(x), "the service is not available");
        return 1;
    }
    if (x->status != 429)
        return 0;
    wait_ms = x->retry_after_ms < 0 ? 1000 : x->retry_after_ms;
    if (wait_ms > 60000)
        return 0; /* longer than anybody wants to wait without being told */
    wait_ms = (wait_ms << (x->attempts < 8 ? x->attempts - 1 : 7)) + sbxi_jitter(x->client);
    if (wait_ms > 60000)
        wait_ms = 60000;
    sbxi_exchange_sleep(x, now, wait_ms, "too many requests");
    return 1;
}

/* The response is complete: the connection goes to the pool, or stays here after an upgrade. */
static void sbxi_exchange_complete(sbxi_exchange *x, int whole)
{
    if (!(x->status == 101 && x->upgrade_key)) {
        if (whole && x->part == SBXI_PART_END && !x->write_failed && !(x->flags & SBXI_FRESH) &&
            sbxi_buffer_len(&x->connection->out) == 0 && sbx_http1_keep_alive(&x->http))
            sbxi_pool_give(x->client, x->connection);
        else
            sbxi_connection_close(x->connection);
        x->connection = NULL;
    }
    x->state = SBXI_EXCHANGE_DONE;
}

/* Sends and receives as far as it goes. */
static sbx_status sbxi_exchange_transfer(sbxi_exchange *x, sbx_error *err)
{
    sbx_status st;
    if (!x->write_failed) {
        st = sbxi_exchange_send(x, err);
        if (x->connection->broken)
            x->write_failed = st;
        else if (st != SBX_OK && st != SBX_AGAIN)
            return st; /* the caller's own callback, or memory */
    }
    st = sbxi_exchange_receive(x, x->write_failed ? NULL : err);
    if (x->write_failed && st != SBX_OK && st != SBX_END && !x->busy)
        return x->write_failed; /* there is no answer either; err says why writing failed */
    return st;
}

static sbx_status sbxi_exchange_timed_out(sbxi_exchange *x, sbx_error *err)
{
    int64_t limit = x->idle_ms >= 0 ? x->idle_ms : x->limit_ms;
    if (x->state == SBXI_EXCHANGE_CONNECT)
        return sbxi_fail(err, SBX_E_CONNECT, "%s port %d did not accept a connection within %l ms",
                         x->to.host, (int)x->to.port, limit);
    return sbxi_fail(err, SBX_E_TIMEOUT,
                     x->idle_ms >= 0 ? "%s %s: nothing moved for %l ms"
                                     : "%s %s took longer than %l ms",
                     x->method, x->to.target, limit);
}

/* One pass through the attempt. SBX_OK: a complete response; SBX_AGAIN: wait. */
static sbx_status sbxi_exchange_attempt(sbxi_exchange *x, int64_t now, sbx_error *err)
{
    sbx_status st = SBX_OK;
    if (x->state == SBXI_EXCHANGE_BEGIN)
        st = sbxi_exchange_begin(x, now, err);
    if (st == SBX_OK && x->state == SBXI_EXCHANGE_CONNECT) {
        st = sbxi_connection_step(x->connection, err);
        if (st == SBX_OK) {
            x->state = SBXI_EXCHANGE_TRANSFER;
            if (sbxi_exchange_head(x) != SBX_OK)
                return sbxi_fail_memory(err);
        }
    }
    if (st == SBX_OK)
        st = sbxi_exchange_transfer(x, err);
    now = sbxi_now(x->client); /* callbacks may have taken their time */
    if (st == SBX_AGAIN && (now >= x->attempt_deadline || now >= x->idle_deadline))
        st = sbxi_exchange_timed_out(x, err);
    return st;
}

/* SBX_OK: x->status and x->answer hold a complete response of any status. SBX_AGAIN: see wants. */
static sbx_status sbxi_exchange_step(sbxi_exchange *x, int64_t now, sbx_error *err)
{
    sbx_status st;
    x->busy = 0;
    if (x->state == SBXI_EXCHANGE_BACKOFF) {
        if (now < x->wake)
            return SBX_AGAIN;
        x->state = SBXI_EXCHANGE_BEGIN;
    }
    st = sbxi_exchange_attempt(x, now, err);
    if (st == SBX_AGAIN)
        return SBX_AGAIN;
    if (x->head_read && (x->status < 200 || x->status > 299 || x->upgrade_key) &&
        (st == SBX_E_TIMEOUT || sbx_status_is(st, SBX_E_CONNECTION)))
        st = SBX_END; /* the head of a refusal says enough, should its body break off */
    if (st == SBX_OK && x->status >= 200 && x->status < 300 &&
        (x->part != SBXI_PART_END || sbxi_buffer_len(&x->connection->out) || x->write_failed))
        st = sbxi_fail(err, SBX_E_PROTOCOL, "%s answered %s %s before it had all of the request",
                       x->to.host, x->method, x->to.target);
    if (st == SBX_OK || st == SBX_END) {
        sbxi_exchange_complete(x, st == SBX_OK);
        return sbxi_exchange_refused(x, now) ? SBX_AGAIN : SBX_OK;
    }
    if (sbxi_exchange_failed(x, st, now)) {
        x->busy = x->state == SBXI_EXCHANGE_BEGIN;
        return SBX_AGAIN;
    }
    sbxi_exchange_drop(x);
    if (err) {
        err->attempts = x->attempts;
        if (x->attempts > 1) {
            size_t at = strlen(err->message);
            (void)sbxi_format(err->message + at, sizeof(err->message) - at, " (tried %d times)",
                              x->attempts);
        }
    }
    return st;
}

#if !defined(SBX_NO_CONTROL) || !defined(SBX_NO_WEBSOCKET)
/* Makes the same request once more, at a later time, as if it were the first one. */
static void sbxi_exchange_again(sbxi_exchange *x, int64_t at)
{
    x->state = SBXI_EXCHANGE_BACKOFF;
    x->wake = at;
    x->attempts = x->stale = 0;
}
#endif

static int sbxi_exchange_wants(sbxi_exchange *x, sbx_item *items, int cap, int64_t *wake)
{
    unsigned want = SBX_READ;
    int64_t at = x->attempt_deadline < x->idle_deadline ? x->attempt_deadline : x->idle_deadline;
    int64_t sleep_ms = SBX_NONE;
    int n = 0;
    if (x->state == SBXI_EXCHANGE_BACKOFF)
        at = x->wake;
    if (x->busy)
        at = 0;
    if (x->connection && x->state != SBXI_EXCHANGE_BACKOFF) {
        if (x->dry_until)
            at = x->dry_until < at ? x->dry_until : at;
        else if (!x->write_failed &&
                 (x->part != SBXI_PART_END || sbxi_buffer_len(&x->connection->out)))
            want |= SBX_WRITE;
        n = sbxi_connection_wants(x->connection, want, items, cap, &sleep_ms);
        if (sleep_ms >= 0 && sbxi_after(sbxi_now(x->client), sleep_ms) < at)
            at = sbxi_after(sbxi_now(x->client), sleep_ms);
    }
    if (at < *wake)
        *wake = at;
    return n;
}
