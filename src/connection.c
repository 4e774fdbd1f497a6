/* connection: one stream of the transport with a buffer for each direction, and the pool of idle
   ones.

   Promises: never blocks, never waits; an error names what was tried. May call the transport's
   hooks, buffer and text. Knows nothing of HTTP. */
#include "internal.h"

/* ---- the client's clock, log and randomness ---- */

/* Milliseconds that have passed for this client, always above 0. The transport's clock may have any
   epoch; where it goes backwards, that counts as no time. */
static int64_t sbxi_now(sbx_client *client)
{
    int64_t raw = client->transport->now_ms(client->state);
    uint64_t passed = (uint64_t)raw - (uint64_t)client->clock_raw;
    client->clock_raw = raw;
    if (passed < (uint64_t)INT64_MAX / 2 - (uint64_t)client->clock)
        client->clock += (int64_t)passed;
    return client->clock;
}

static int64_t sbxi_wall(const sbx_client *client)
{
    return client->transport->wall_ms ? client->transport->wall_ms(client->state) : 0;
}

/* now + delay, where SBX_NONE and everything too large mean never. */
static int64_t sbxi_after(int64_t now, int64_t delay_ms)
{
    return delay_ms < 0 || delay_ms > SBXI_FOREVER - now ? SBXI_FOREVER : now + delay_ms;
}

static sbx_status sbxi_random(const sbx_client *client, void *out, size_t len, sbx_error *err)
{
    if (client->transport->entropy(client->state, out, len) == SBX_OK)
        return SBX_OK;
    return sbxi_fail(err, SBX_E_ENTROPY, "the transport could not supply random bytes");
}

static void sbxi_log(const sbx_client *client, int level, const char *format, ...)
{
    char line[256];
    va_list args;
    if (!client->log)
        return;
    va_start(args, format);
    sbxi_vformat(line, sizeof(line), format, args);
    va_end(args);
    sbxi_redact(line, client->api_key);
    client->log(client->log_user, level, line);
}

/* ---- addresses ---- */

static void sbxi_address_free(sbxi_address *a, const sbx_allocator *memory)
{
    sbxi_release(memory, a->text, a->text_size);
    memset(a, 0, sizeof(*a));
}

#if !defined(SBX_NO_CONTROL) || !defined(SBX_NO_WEBSOCKET)
/* Takes suffix, with which the target ends, off it. */
static void sbxi_address_cut(sbxi_address *a, const char *suffix)
{
    a->text[strlen(a->host) + 1 + strlen(a->target) - strlen(suffix)] = 0;
}
#endif

static int sbxi_is_loopback(const char *host, size_t len)
{
    return sbxi_equal_nocase(host, len, "localhost") || sbxi_equal_nocase(host, len, "::1") ||
           (len > 4 && memcmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") >= len);
}

/* Resolves base (a valid URL), then before, then name percent-encoded (NULL: none), then after.
   Names come from the user: they may hold anything but control characters, and not nothing. */
static sbx_status sbxi_address_make(sbxi_address *a, const sbx_client *client, const char *base,
                                    const char *before, const char *name, const char *after,
                                    sbx_error *err)
{
    sbx_url url;
    const char *problem = "";
    size_t before_len = strlen(before), after_len = strlen(after);
    size_t name_len = name ? sbx_url_encode(name, strlen(name), NULL, 0) : 0;
    sbx_status st = SBX_OK;
    char *at;
    if (sbx_url_parse(base, strlen(base), &url, &problem) != SBX_OK)
        st = sbxi_fail(err, SBX_E_PROTOCOL, "the URL \"%s\" cannot be used: %s", base, problem);
    else if (url.query_len)
        st = sbxi_fail(err, SBX_E_PROTOCOL, "the URL \"%s\" cannot be used: it has a query", base);
    else if (!url.tls && client->endpoint_tls && !sbxi_is_loopback(url.host, url.host_len))
        st = sbxi_fail(err, SBX_E_TLS,
                       "refused to talk in clear text: the endpoint is https, but %s is not", base);
    if (st != SBX_OK) {
        if (err)
            sbxi_error_redact(err, client->api_key);
        return st;
    }
    a->text_size = url.host_len + 1 + url.path_len + before_len + name_len + after_len + 1;
    a->text = (char *)sbxi_alloc(&client->memory, a->text_size);
    if (!a->text)
        return sbxi_fail_memory(err);
    at = a->text;
    a->host = at;
    memcpy(at, url.host, url.host_len);
    at += url.host_len;
    *at++ = 0;
    a->target = at;
    while (url.path_len && url.path[url.path_len - 1] == '/')
        url.path_len--;
    memcpy(at, url.path, url.path_len);
    at += url.path_len;
    memcpy(at, before, before_len);
    at += before_len;
    if (name)
        at += sbx_url_encode(name, strlen(name), at, name_len + 1);
    memcpy(at, after, after_len + 1);
    a->port = url.port;
    a->tls = url.tls;
    return SBX_OK;
}

/* ---- connections ---- */

static void sbxi_connection_close(sbxi_connection *c)
{
    const sbx_allocator *memory;
    if (!c)
        return;
    memory = &c->client->memory;
    if (c->stream)
        c->stream->methods->close(c->stream);
    if (c->out.data)
        sbxi_wipe(c->out.data, c->out.cap);
    sbxi_buffer_free(&c->in);
    sbxi_buffer_free(&c->out);
    sbxi_release(memory, c->scratch, SBXI_MAX_LINE);
    sbxi_release(memory, c, sizeof(*c) + c->host_size);
}

/* An error of the stream, in the words of the transport where it has some. */
static sbx_status sbxi_connection_fail(sbxi_connection *c, sbx_status status, const char *doing,
                                       sbx_error *err)
{
    const sbx_stream *s = c->stream;
    const char *detail = s && s->detail ? s->detail : NULL;
    c->broken = 1;
    (void)sbxi_fail(err, status, "%s %s port %d failed%s%s", doing, c->host, (int)c->port,
                    detail ? ": " : "", detail);
    if (err) {
        err->native_code = s ? s->native_code : 0;
        err->port = c->port;
    }
    return status;
}

/* The same where the stream had no memory. */
static sbx_status sbxi_connection_out_of_memory(sbxi_connection *c, sbx_error *err)
{
    c->broken = 1;
    return sbxi_fail_memory(err);
}

/* Puts TLS on a fresh stream, which belongs to the connection or to nobody afterwards. */
static sbx_status sbxi_connection_secure(sbxi_connection *c, sbx_error *err)
{
    const sbx_transport *t = c->client->transport;
    sbx_stream *lower = c->stream;
    sbx_status st;
    c->stream = NULL;
    if (!t->secure) {
        lower->methods->close(lower);
        return sbxi_fail(err, SBX_E_TLS,
                         "%s needs https, and this transport has no TLS: use a transport whose "
                         "secure hook is set, or an http endpoint",
                         c->host);
    }
    st = t->secure(c->client->state, lower, c->host, &c->stream);
    if (st == SBX_E_MEMORY)
        return sbxi_fail_memory(err);
    if (st != SBX_OK)
        return sbxi_connection_fail(c, st, "TLS for", err);
    return SBX_OK;
}

/* Begins a fresh connection; no waiting. */
static sbx_status sbxi_connection_dial(sbx_client *client, const sbxi_address *to,
                                       sbxi_connection **out, sbx_error *err)
{
    size_t host_size = strlen(to->host) + 1;
    sbxi_connection *c = (sbxi_connection *)sbxi_alloc(&client->memory, sizeof(*c) + host_size);
    sbx_status st;
    *out = NULL;
    if (!c)
        return sbxi_fail_memory(err);
    memset(c, 0, sizeof(*c));
    c->client = client;
    c->host = (char *)(c + 1);
    c->host_size = host_size;
    memcpy(c->host, to->host, host_size);
    c->port = to->port;
    c->tls = to->tls;
    sbxi_buffer_init(&c->in, &client->memory, SBXI_READ_SIZE);
    sbxi_buffer_init(&c->out, &client->memory, SBXI_MAX_REQUEST);
    st = client->transport->dial(client->state, c->host, c->port, &c->stream);
    if (st == SBX_E_MEMORY)
        (void)sbxi_fail_memory(err);
    else if (st != SBX_OK)
        st = sbxi_connection_fail(c, st, "connecting to", err);
    else if (c->tls)
        st = sbxi_connection_secure(c, err);
    if (st != SBX_OK) {
        sbxi_connection_close(c);
        return st;
    }
    sbxi_log(client, SBX_LOG_DEBUG, "connecting to %s port %d", c->host, (int)c->port);
    *out = c;
    return SBX_OK;
}

/* SBX_OK once it can be read and written. */
static sbx_status sbxi_connection_step(sbxi_connection *c, sbx_error *err)
{
    sbx_status st;
    if (c->open)
        return SBX_OK;
    st = c->stream->methods->connect(c->stream);
    if (st == SBX_OK)
        c->open = 1;
    else if (st == SBX_E_MEMORY)
        (void)sbxi_fail_memory(err);
    else if (st != SBX_AGAIN)
        return sbxi_connection_fail(c, st, "connecting to", err);
    return st;
}

/* Reads once into the buffer. SBX_OK: there are new bytes. SBX_AGAIN; SBX_END; or an error. */
static sbx_status sbxi_connection_fill(sbxi_connection *c, sbx_error *err)
{
    size_t n = 0;
    sbx_status st;
    if (!c->scratch) {
        c->scratch = (char *)sbxi_alloc(&c->client->memory, SBXI_MAX_LINE);
        if (!c->scratch || sbxi_buffer_reserve(&c->in, SBXI_READ_SIZE) != SBX_OK)
            return sbxi_fail_memory(err);
    }
    if (c->in.end == c->in.cap)
        sbxi_buffer_compact(&c->in);
    st = c->stream->methods->read(c->stream, c->in.data + c->in.end, c->in.cap - c->in.end, &n);
    if (st == SBX_OK && n > 0 && n <= c->in.cap - c->in.end) {
        c->in.end += n;
        return SBX_OK;
    }
    if (st == SBX_END)
        c->ended = 1;
    else if (st == SBX_E_MEMORY)
        return sbxi_connection_out_of_memory(c, err);
    else if (st != SBX_AGAIN)
        return sbxi_connection_fail(c, st < 0 ? st : SBX_E_CONNECTION, "reading from", err);
    return st;
}

/* Writes some of len bytes past the buffer, which must be empty. */
static sbx_status sbxi_connection_write(sbxi_connection *c, const char *data, size_t len, size_t *n,
                                        sbx_error *err)
{
    sbx_status st;
    *n = 0;
    st = c->stream->methods->write(c->stream, data, len, n);
    if (st == SBX_E_MEMORY)
        return sbxi_connection_out_of_memory(c, err);
    if (st != SBX_OK && st != SBX_AGAIN)
        return sbxi_connection_fail(c, st < 0 ? st : SBX_E_CONNECTION, "writing to", err);
    return st;
}

/* SBX_OK: all that was in the buffer has left the stream's own layers too. */
static sbx_status sbxi_connection_flush(sbxi_connection *c, sbx_error *err)
{
    while (sbxi_buffer_len(&c->out) > 0) {
        size_t n;
        sbx_status st =
            sbxi_connection_write(c, sbxi_buffer_data(&c->out), sbxi_buffer_len(&c->out), &n, err);
        if (st != SBX_OK)
            return st;
        sbxi_buffer_consume(&c->out, n);
    }
    c->flushing = 0;
    if (c->stream->methods->flush) {
        sbx_status st = c->stream->methods->flush(c->stream);
        c->flushing = st == SBX_AGAIN;
        if (st != SBX_OK && st != SBX_AGAIN)
            return sbxi_connection_fail(c, st < 0 ? st : SBX_E_CONNECTION, "writing to", err);
        return st;
    }
    return SBX_OK;
}

static int sbxi_connection_wants(sbxi_connection *c, unsigned want, sbx_item *items, int cap,
                                 int64_t *timeout_ms)
{
    if (c->flushing)
        want |= SBX_WRITE;
    return c->stream->methods->wants(c->stream, c->open ? want : 0, items, cap, timeout_ms);
}

/* ---- the pool of idle connections ---- */

/* Takes an idle connection to the same place that the server has not closed meanwhile: one that has
   anything to read is of no use, be it the end or bytes that nobody asked for. */
static sbxi_connection *sbxi_pool_take(sbx_client *client, const sbxi_address *to)
{
    sbxi_connection **link = &client->idle;
    while (*link) {
        sbxi_connection *c = *link;
        if (c->port != to->port || c->tls != to->tls || strcmp(c->host, to->host) != 0) {
            link = &c->next;
            continue;
        }
        *link = c->next;
        c->next = NULL;
        if (sbxi_connection_fill(c, NULL) == SBX_AGAIN) {
            c->reused = 1;
            return c;
        }
        sbxi_connection_close(c);
    }
    return NULL;
}

/* Gives a connection back after a complete exchange. The oldest idle one goes when there are many.
   */
static void sbxi_pool_give(sbx_client *client, sbxi_connection *c)
{
    sbxi_connection **link = &client->idle;
    int count = 0;
    if (sbxi_buffer_len(&c->in) > 0 || sbxi_buffer_len(&c->out) > 0 || c->ended) {
        sbxi_connection_close(c);
        return;
    }
    if (c->out.data)
        sbxi_wipe(c->out.data, c->out.cap);
    sbxi_buffer_free(&c->out);
    c->next = client->idle;
    client->idle = c;
    while (*link) {
        if (++count > SBXI_MAX_IDLE) {
            sbxi_connection *last = *link;
            *link = last->next;
            sbxi_connection_close(last);
        } else {
            link = &(*link)->next;
        }
    }
}

static void sbxi_pool_clear(sbx_client *client)
{
    while (client->idle) {
        sbxi_connection *c = client->idle;
        client->idle = c->next;
        sbxi_connection_close(c);
    }
}
