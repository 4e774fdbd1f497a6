/* http1: reads HTTP/1.1 messages (RFC 9112), responses as a client and requests as a server.

   Promises: strict wherever two readers could disagree about where a message ends. Lines end in CR
   LF only: the RFC lets a reader take a bare LF, but nobody needs that who speaks HTTP/1.1. The
   outcome does not depend on how the bytes are cut. A line that lies whole in the input is read
   where it lies, other lines are put together in scratch, and a body is never copied. Calls text
   and url. */
#include "internal.h"

/* Headers are the hot path. Without this they are read byte by byte, at about twice the cost. */
#if defined(SBXI_SIMD) && defined(__SSE2__) && defined(__GNUC__)
#define SBXI_HTTP1_QUICK
#endif

enum {
    /* Lines with a name and a value, or the empty line behind them. */
    SBXI_HTTP1_HEADER,
    SBXI_HTTP1_SKIPPED, /* headers of a response of class 1xx */
    SBXI_HTTP1_TRAILER,
    /* Other lines. */
    SBXI_HTTP1_START,
    SBXI_HTTP1_CHUNK_SIZE,
    /* Bytes. */
    SBXI_HTTP1_LENGTH,    /* `left` bytes of the body */
    SBXI_HTTP1_UNTIL_END, /* the body goes on until the peer closes */
    SBXI_HTTP1_CHUNK,     /* `left` bytes of the chunk */
    SBXI_HTTP1_CHUNK_END, /* `left` bytes of the CR LF behind it */
    /* None. */
    SBXI_HTTP1_COMPLETE, /* the message's end was read and is not reported yet */
    SBXI_HTTP1_CLOSED,   /* there is no further message */
    SBXI_HTTP1_FAILED
};

#define SBXI_HTTP1_EMPTY_LINES 2    /* before a request */
#define SBXI_HTTP1_INFORMATIONAL 16 /* responses of class 1xx before the one that counts */
#define SBXI_HTTP1_OVERHEAD 65536   /* of chunks, beyond 8 times what they hold */

static sbx_status sbxi_http1_fail(sbx_http1 *h, sbx_status status, const char *problem)
{
    h->problem = problem;
    h->state = SBXI_HTTP1_FAILED;
    h->status = status;
    return status;
}

static sbx_status sbxi_http1_refuse(sbx_http1 *h, const char *problem)
{
    return sbxi_http1_fail(h, SBX_E_PROTOCOL, problem);
}

/* ---- characters ---- */

/* 2: can stand in a header's name and in a method; 1: only in a header's value; 0: nowhere */
static const unsigned char sbxi_http1_class[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, /* control characters, but the tab */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* control characters */
    1, 2, 1, 2, 2, 2, 2, 2, 1, 1, 2, 2, 1, 2, 2, 1, /*  !"#$%&'()*+,-./ */
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, /* 0123456789:;<=>? */
    1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, /* @ABCDEFGHIJKLMNO */
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, /* PQRSTUVWXYZ[\]^_ */
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, /* `abcdefghijklmno */
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 2, 1, 2, 0, /* pqrstuvwxyz{|}~ */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
};

/* The length of the longest prefix that is a header's name or a method. */
static size_t sbxi_http1_token_len(const char *text, size_t len)
{
    size_t i = 0;
    while (i < len && sbxi_http1_class[(unsigned char)text[i]] == 2)
        i++;
    return i;
}

/* 1 if text can be a header's name or a method. */
static int sbxi_http1_token(const char *text, size_t len)
{
    return len > 0 && sbxi_http1_token_len(text, len) == len;
}

/* 1 if text can be a header's value: no control characters but the tab. */
static int sbxi_http1_value(const char *text, size_t len)
{
    size_t i = 0;
    while (i < len && sbxi_http1_class[(unsigned char)text[i]])
        i++;
    return i == len;
}

static int sbxi_http1_is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* Cuts white space off both ends. */
static void sbxi_http1_trim(const char **text, size_t *len)
{
    while (*len > 0 && sbxi_http1_is_space((*text)[*len - 1]))
        (*len)--;
    while (*len > 0 && sbxi_http1_is_space(**text)) {
        (*text)++;
        (*len)--;
    }
}

SBX_API int sbx_http1_has_token(const char *value, size_t len, const char *token)
{
    while (len > 0) {
        const char *comma = (const char *)memchr(value, ',', len), *element = value;
        size_t element_len = comma ? (size_t)(comma - value) : len;
        size_t n = comma ? element_len + 1 : len;
        value += n;
        len -= n;
        sbxi_http1_trim(&element, &element_len);
        if (element_len > 0 && sbxi_equal_nocase(element, element_len, token))
            return 1;
    }
    return 0;
}

/* 1 if name, a valid one of len >= 8 bytes, is lower, which is in small letters. Of what can stand
   in a name, setting this bit changes capital letters alone, and "^", which becomes "~". */
static int sbxi_http1_is(const char *name, const char *lower, size_t len)
{
    size_t at = 0;
    for (;;) {
        uint64_t a, b;
        memcpy(&a, name + at, 8);
        memcpy(&b, lower + at, 8);
        if ((a | UINT64_C(0x2020202020202020)) != b)
            return 0;
        if (at == len - 8)
            return 1;
        at = at + 8 < len - 8 ? at + 8 : len - 8;
    }
}

/* ---- lines ---- */

/* 1 if a message can start with these bytes, so that a peer that speaks something else is found out
   by its first bytes. Of a response these are all up to the status. */
static int sbxi_http1_may_start(const sbx_http1 *h, const char *line, size_t len)
{
    static const char low[] = "HTTP/1.0 100", high[] = "HTTP/1.1 999";
    size_t i = 0, n = len < 12 ? len : 12;
    if (h->role == SBX_HTTP1_REQUEST) {
        if (line[0] == '\r')
            return h->empty_lines < SBXI_HTTP1_EMPTY_LINES && (len < 2 || line[1] == '\n');
        i = sbxi_http1_token_len(line, n);
        return i == n || (i > 0 && line[i] == ' ');
    }
    if (n == 12 && memcmp(line, "HTTP/1.", 7) == 0)
        i = 7;
    for (; i < n; i++) {
        if (line[i] < low[i] || line[i] > high[i])
            return 0;
    }
    return 1;
}

/* Takes the next line from data. SBX_OK: *line has *n bytes, CR LF included, until the next call.
   SBX_AGAIN: data ended before it, what there is went to scratch. */
static sbx_status sbxi_http1_line(sbx_http1 *h, const char *data, size_t len, size_t *pos,
                                  const char **line, size_t *n)
{
    const char *from = data + *pos, *end;
    size_t room = h->cap - h->used, take = len - *pos;
    if (take > room)
        take = room;
    end = take ? (const char *)memchr(from, '\n', take) : NULL;
    if (end)
        take = (size_t)(end - from) + 1;
    *pos += take;
    *line = from;
    *n = take;
    if (h->used > 0 || !end) {
        if (take)
            memcpy(h->scratch + h->used, from, take);
        h->used += take;
        *line = h->scratch;
        *n = h->used;
    }
    if (h->state == SBXI_HTTP1_START && *n > 0 && !sbxi_http1_may_start(h, *line, *n))
        return sbxi_http1_refuse(h, h->role == SBX_HTTP1_REQUEST
                                        ? "this is not an HTTP/1 request"
                                        : "the peer does not answer in HTTP/1.0 or HTTP/1.1");
    if (!end && h->used == h->cap)
        return sbxi_http1_fail(h, SBX_E_TOO_BIG, "a line of the head or of a chunk is too long");
    if (!end)
        return SBX_AGAIN;
    h->used = 0;
    if (*n < 2 || (*line)[*n - 2] != '\r')
        return sbxi_http1_refuse(h, "a line does not end in CR LF");
    return SBX_OK;
}

/* ---- the head ---- */

/* "HTTP/1.1 200 OK", of which sbxi_http1_may_start has seen all before the space after the status.
   The reason may be missing, the space before it too. */
static sbx_status sbxi_http1_status_line(sbx_http1 *h, const char *line, size_t n,
                                         sbx_http1_event *event)
{
    if (n > 12 && line[12] != ' ')
        return sbxi_http1_refuse(h, "the status is not a number of three digits");
    if (!sbxi_http1_value(line + 12, n - 12))
        return sbxi_http1_refuse(h, "the reason phrase has a control character");
    h->minor_version = line[7] - '0';
    h->status_code = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
    event->status = h->status_code;
    event->value = line + (n > 12 ? 13 : 12);
    event->value_len = n > 12 ? n - 13 : 0;
    return SBX_OK;
}

/* "GET /path HTTP/1.1" */
static sbx_status sbxi_http1_request_line(sbx_http1 *h, const char *line, size_t n,
                                          sbx_http1_event *event)
{
    size_t method = sbxi_http1_token_len(line, n), i;
    if (line[method] != ' ')
        return sbxi_http1_refuse(h, "the method has a character that does not belong there");
    if (n < method + 11 || memcmp(line + n - 9, " HTTP/1.", 8) != 0 ||
        (line[n - 1] != '0' && line[n - 1] != '1'))
        return sbxi_http1_refuse(h, "a request line does not end in HTTP/1.0 or HTTP/1.1");
    for (i = method + 1; i < n - 9; i++) {
        if ((unsigned char)line[i] <= 0x20 || (unsigned char)line[i] >= 0x7f)
            return sbxi_http1_refuse(h, "the target has a character that must be percent-encoded");
    }
    h->minor_version = line[n - 1] - '0';
    h->status_code = 0;
    event->name = line;
    event->name_len = method;
    event->value = line + method + 1;
    event->value_len = n - 9 - (method + 1);
    return SBX_OK;
}

static sbx_status sbxi_http1_start(sbx_http1 *h, const char *line, size_t n, sbx_http1_event *event)
{
    sbx_status st;
    if (n == 2) { /* only before a request does this come so far */
        h->empty_lines++;
        return SBX_AGAIN;
    }
    st = h->role == SBX_HTTP1_REQUEST ? sbxi_http1_request_line(h, line, n - 2, event)
                                      : sbxi_http1_status_line(h, line, n - 2, event);
    if (st != SBX_OK)
        return st;
    h->state = SBXI_HTTP1_HEADER;
    h->empty_lines = 0;
    h->head_size = n;
    h->headers = h->hosts = h->chunked = h->close = h->keep_alive = 0;
    h->content_length = SBX_NONE;
    event->type = SBX_HTTP1_START;
    event->minor_version = h->minor_version;
    if (h->role == SBX_HTTP1_REQUEST || h->status_code >= 200 || h->status_code == 101)
        return SBX_OK;
    if (h->informational++ == SBXI_HTTP1_INFORMATIONAL)
        return sbxi_http1_fail(h, SBX_E_TOO_BIG, "too many responses of class 1xx");
    h->state = SBXI_HTTP1_SKIPPED;
    return SBX_AGAIN;
}

static sbx_status sbxi_http1_content_length(sbx_http1 *h, const sbx_http1_event *header)
{
    uint64_t length;
    if (h->content_length != SBX_NONE)
        return sbxi_http1_refuse(h, "there is more than one Content-Length");
    if (!sbxi_parse_uint(header->value, header->value_len, &length) || length > INT64_MAX)
        return sbxi_http1_refuse(h, "the Content-Length is not a number");
    h->content_length = (int64_t)length;
    return h->chunked ? sbxi_http1_refuse(h, "there is a Content-Length besides chunks") : SBX_OK;
}

static sbx_status sbxi_http1_transfer_encoding(sbx_http1 *h, const sbx_http1_event *header)
{
    if (h->minor_version == 0)
        return sbxi_http1_refuse(h, "there is a Transfer-Encoding in HTTP/1.0");
    if (h->chunked)
        return sbxi_http1_refuse(h, "there is more than one Transfer-Encoding");
    if (!sbxi_equal_nocase(header->value, header->value_len, "chunked"))
        return sbxi_http1_refuse(h, "the Transfer-Encoding is not chunked");
    h->chunked = 1;
    return h->content_length != SBX_NONE
               ? sbxi_http1_refuse(h, "there is a Content-Length besides chunks")
               : SBX_OK;
}

static sbx_status sbxi_http1_host(sbx_http1 *h, const sbx_http1_event *header)
{
    size_t i;
    if (h->hosts++ > 0)
        return sbxi_http1_refuse(h, "there is more than one Host");
    for (i = 0; i < header->value_len; i++) {
        char c = header->value[i];
        if (c <= 0x20 || c > 0x7e || strchr("\"#,/<>?@\\^`{|}", c))
            return sbxi_http1_refuse(h, "the Host has a character that does not belong there");
    }
    return SBX_OK;
}

static sbx_status sbxi_http1_connection(sbx_http1 *h, const sbx_http1_event *header)
{
    h->close |= sbx_http1_has_token(header->value, header->value_len, "close");
    if (h->minor_version == 0) /* in 1.1 it goes without saying */
        h->keep_alive |= sbx_http1_has_token(header->value, header->value_len, "keep-alive");
    return SBX_OK;
}

/* What a header says about the message itself. */
static sbx_status sbxi_http1_meaning(sbx_http1 *h, const sbx_http1_event *header)
{
    switch (header->name_len) {
    case 4:
        if (h->role == SBX_HTTP1_REQUEST && sbxi_equal_nocase(header->name, 4, "host"))
            return sbxi_http1_host(h, header);
        break;
    case 10:
        if (sbxi_http1_is(header->name, "connection", 10))
            return sbxi_http1_connection(h, header);
        break;
    case 14:
        if (sbxi_http1_is(header->name, "content-length", 14))
            return sbxi_http1_content_length(h, header);
        break;
    case 17:
        if (sbxi_http1_is(header->name, "transfer-encoding", 17))
            return sbxi_http1_transfer_encoding(h, header);
        break;
    default:
        break;
    }
    return SBX_OK;
}

/* Splits a header or trailer with its CR LF into name and value. */
static sbx_status sbxi_http1_field(sbx_http1 *h, const char *line, size_t n, sbx_http1_event *event)
{
    size_t name = sbxi_http1_token_len(line, n);
    if (sbxi_http1_is_space(line[0]))
        return sbxi_http1_refuse(h, "a header goes on in the next line");
    if (line[0] == ':')
        return sbxi_http1_refuse(h, "a header has no name");
    if (line[name] != ':')
        return sbxi_http1_refuse(h, "a header's name has a character that does not belong there");
    event->name = line;
    event->name_len = name;
    event->value = line + name + 1;
    event->value_len = n - 2 - (name + 1);
    if (!sbxi_http1_value(event->value, event->value_len))
        return sbxi_http1_refuse(h, "a header's value has a control character");
    sbxi_http1_trim(&event->value, &event->value_len);
    return SBX_OK;
}

/* Goes on from p over letters and "-", as nearly all names are made of; may stop early. */
static const char *sbxi_http1_quick_name(const char *p, const char *last)
{
#ifdef SBXI_HTTP1_QUICK
    for (; p < last; p += 16) {
        __m128i block = SBXI_V_LOAD(p);
        /* The small letters become the largest of all signed numbers. */
        __m128i moved = _mm_add_epi8(SBXI_V_OR(block, SBXI_V_FILL(0x20)), SBXI_V_FILL(0x7f - 'z'));
        __m128i letter = SBXI_V_ABOVE(moved, SBXI_V_FILL(0x7f - 'z' + 'a' - 1));
        __m128i good = SBXI_V_OR(letter, SBXI_V_EQUAL(block, SBXI_V_FILL('-')));
        unsigned bad = (unsigned)_mm_movemask_epi8(good) ^ 0xffff;
        if (bad)
            return p + (unsigned)__builtin_ctz(bad);
    }
#else
    (void)last;
#endif
    return p;
}

/* Goes on from p over printable ASCII, as nearly all values are made of; may stop early. */
static const char *sbxi_http1_quick_value(const char *p, const char *last)
{
#ifdef SBXI_HTTP1_QUICK
    for (; p < last; p += 16) {
        /* What can be printed becomes the largest of all signed numbers. */
        __m128i moved = _mm_add_epi8(SBXI_V_LOAD(p), SBXI_V_FILL(0x7f - '~'));
        __m128i good = SBXI_V_ABOVE(moved, SBXI_V_FILL(0x7f - '~' + ' ' - 1));
        unsigned bad = (unsigned)_mm_movemask_epi8(good) ^ 0xffff;
        if (bad)
            return p + (unsigned)__builtin_ctz(bad);
    }
#else
    (void)last;
#endif
    return p;
}

/* The same for a header that lies in data. Nearly all do: so this one does not look for the line's
   end first, and takes 16 bytes at a time where it can. len is at least 16. Returns the header's
   length; 0 if it is not complete or not valid. */
static size_t sbxi_http1_quick_field(const char *data, size_t len, sbx_http1_event *event)
{
    const char *stop = data + len, *last = stop - 16;
    const char *name = sbxi_http1_quick_name(data, last), *value, *end;
    size_t n;
    for (;; name++) {
        if (name == stop)
            return 0;
        if (*name == ':')
            break;
        if (sbxi_http1_class[(unsigned char)*name] != 2)
            return 0;
    }
    if (name == data)
        return 0;
    for (end = sbxi_http1_quick_value(name + 1, last);; end++) {
        if (stop - end < 2)
            return 0;
        if (*end == '\r')
            break;
        if (sbxi_http1_class[(unsigned char)*end] == 0)
            return 0;
    }
    if (end[1] != '\n')
        return 0;
    n = (size_t)(end - data) + 2;
    for (value = name + 1; sbxi_http1_is_space(*value);) /* the CR stops it */
        value++;
    while (end > value && sbxi_http1_is_space(end[-1]))
        end--;
    memset(event, 0, sizeof(*event));
    event->type = SBX_HTTP1_HEADER;
    event->name = data;
    event->name_len = (size_t)(name - data);
    event->value = value;
    event->value_len = (size_t)(end - value);
    return n;
}

/* The empty line: what kind of body follows? RFC 9112, 6.3. */
static sbx_status sbxi_http1_head_end(sbx_http1 *h, sbx_http1_event *event)
{
    int no_body = h->no_body;
    if (h->role == SBX_HTTP1_REQUEST) {
        if (h->minor_version == 1 && h->hosts == 0)
            return sbxi_http1_refuse(h, "there is no Host");
        no_body = !h->chunked && h->content_length == SBX_NONE;
    } else if (h->status_code == 101 || h->status_code == 204 || h->status_code == 304) {
        no_body = 1;
    }
    h->informational = h->no_body = 0;
    h->overhead = 0;
    h->persistent = h->status_code != 101 && !h->close && (h->minor_version == 1 || h->keep_alive);
    event->type = SBX_HTTP1_HEAD_END;
    event->content_length = h->content_length;
    if (no_body) {
        h->state = SBXI_HTTP1_COMPLETE;
        if (event->content_length == SBX_NONE)
            event->content_length = 0;
    } else if (h->chunked) {
        h->state = SBXI_HTTP1_CHUNK_SIZE;
    } else if (h->content_length != SBX_NONE) {
        h->left = (uint64_t)h->content_length;
        h->state = h->left ? SBXI_HTTP1_LENGTH : SBXI_HTTP1_COMPLETE;
    } else {
        h->state = SBXI_HTTP1_UNTIL_END;
        h->persistent = 0;
    }
    return SBX_OK;
}

/* ---- the body ---- */

/* Reports the end of a message, after which the next one may follow. */
static sbx_status sbxi_http1_end(sbx_http1 *h, sbx_http1_event *event)
{
    h->state = h->persistent ? SBXI_HTTP1_START : SBXI_HTTP1_CLOSED;
    event->type = SBX_HTTP1_MESSAGE_END;
    return SBX_OK;
}

/* Chunks may cost 8 times what they hold, so that single bytes can be sent as they come, and
   SBXI_HTTP1_OVERHEAD more: extensions do not go on for ever. */
static int sbxi_http1_is_wasteful(sbx_http1 *h, uint64_t size, size_t line)
{
    uint64_t cost = h->overhead + line + 4; /* CR LF here and behind the chunk */
    h->overhead = size >= cost / 8 ? 0 : cost - size * 8;
    return h->overhead > SBXI_HTTP1_OVERHEAD;
}

/* The size in hexadecimal, then perhaps extensions, which are ignored, then CR LF. */
static sbx_status sbxi_http1_chunk_size(sbx_http1 *h, const char *line, size_t n)
{
    uint64_t size = 0;
    size_t at;
    n -= 2;
    for (at = 0; at < n; at++) {
        int digit = sbxi_url_digit(line[at]);
        if (digit < 0)
            break;
        if (size > (uint64_t)INT64_MAX >> 4)
            return sbxi_http1_refuse(h, "the size of a chunk is too large");
        size = size << 4 | (uint64_t)digit;
    }
    if (at == 0)
        return sbxi_http1_refuse(h, "a chunk does not start with its size");
    while (at < n && sbxi_http1_is_space(line[at]))
        at++;
    if (at < n && line[at] != ';')
        return sbxi_http1_refuse(h, "the size of a chunk is not a hexadecimal number");
    if (!sbxi_http1_value(line + at, n - at))
        return sbxi_http1_refuse(h, "a chunk's extension has a control character");
    if (sbxi_http1_is_wasteful(h, size, n))
        return sbxi_http1_fail(h, SBX_E_TOO_BIG, "the chunks have more overhead than content");
    h->left = size;
    h->headers = 0;
    h->head_size = 0;
    h->state = size ? SBXI_HTTP1_CHUNK : SBXI_HTTP1_TRAILER;
    return SBX_AGAIN;
}

/* Lends what data has of the body. */
static sbx_status sbxi_http1_body(sbx_http1 *h, const char *data, size_t len, size_t *pos,
                                  sbx_http1_event *event)
{
    size_t n = len - *pos;
    if (n == 0)
        return SBX_AGAIN;
    if (h->state != SBXI_HTTP1_UNTIL_END) {
        if (n > h->left)
            n = (size_t)h->left;
        h->left -= n;
        if (h->left == 0 && h->state == SBXI_HTTP1_LENGTH) {
            h->state = SBXI_HTTP1_COMPLETE;
        } else if (h->left == 0) {
            h->state = SBXI_HTTP1_CHUNK_END;
            h->left = 2;
        }
    }
    event->type = SBX_HTTP1_BODY;
    event->data = data + *pos;
    event->len = n;
    *pos += n;
    return SBX_OK;
}

/* CR LF after a chunk. */
static sbx_status sbxi_http1_chunk_end(sbx_http1 *h, const char *data, size_t len, size_t *pos)
{
    for (; h->left > 0 && *pos < len; h->left--, (*pos)++) {
        if (data[*pos] != (h->left == 2 ? '\r' : '\n'))
            return sbxi_http1_refuse(h, "a chunk is not as long as its size says");
    }
    if (h->left == 0)
        h->state = SBXI_HTTP1_CHUNK_SIZE;
    return SBX_AGAIN;
}

/* ---- the reader ---- */

SBX_API void sbx_http1_init(sbx_http1 *h, int role, char *scratch, size_t cap)
{
    memset(h, 0, sizeof(*h));
    h->role = role;
    h->state = SBXI_HTTP1_START;
    h->scratch = scratch;
    h->cap = cap;
}

SBX_API void sbx_http1_expect_no_body(sbx_http1 *h, int no_body)
{
    h->no_body = no_body;
}

/* Counts a header or trailer that takes up n bytes. */
static sbx_status sbxi_http1_count(sbx_http1 *h, size_t n)
{
    h->head_size += n;
    if (h->head_size > SBX_HTTP1_HEAD_MAX)
        return sbxi_http1_fail(h, SBX_E_TOO_BIG, "the head of a message is too long");
    if (h->headers++ == SBX_HTTP1_HEADERS)
        return sbxi_http1_fail(h, SBX_E_TOO_BIG, "there are too many headers");
    return SBX_OK;
}

/* Any line of a head or of trailers, with its CR LF. */
static sbx_status sbxi_http1_head_line(sbx_http1 *h, const char *line, size_t n,
                                       sbx_http1_event *event)
{
    if (n > 2) {
        sbx_status st = sbxi_http1_field(h, line, n, event);
        if (st == SBX_OK)
            st = sbxi_http1_count(h, n);
        if (st != SBX_OK || h->state == SBXI_HTTP1_SKIPPED)
            return st == SBX_OK ? SBX_AGAIN : st;
        event->type = h->state == SBXI_HTTP1_HEADER ? SBX_HTTP1_HEADER : SBX_HTTP1_TRAILER;
        return h->state == SBXI_HTTP1_HEADER ? sbxi_http1_meaning(h, event) : SBX_OK;
    }
    if (h->state == SBXI_HTTP1_HEADER)
        return sbxi_http1_head_end(h, event);
    if (h->state == SBXI_HTTP1_TRAILER)
        return sbxi_http1_end(h, event);
    h->state = SBXI_HTTP1_START;
    return SBX_AGAIN;
}

/* SBX_OK: an event. SBX_AGAIN: none yet, and none without more bytes. */
static sbx_status sbxi_http1_step(sbx_http1 *h, const char *data, size_t len, size_t *pos,
                                  sbx_http1_event *event)
{
    const char *line;
    size_t n;
    sbx_status st;
    switch (h->state) {
    case SBXI_HTTP1_LENGTH:
    case SBXI_HTTP1_UNTIL_END:
    case SBXI_HTTP1_CHUNK:
        return sbxi_http1_body(h, data, len, pos, event);
    case SBXI_HTTP1_CHUNK_END:
        return sbxi_http1_chunk_end(h, data, len, pos);
    case SBXI_HTTP1_COMPLETE:
        return sbxi_http1_end(h, event);
    case SBXI_HTTP1_CLOSED:
        return SBX_END;
    case SBXI_HTTP1_FAILED:
        return h->status;
    default: /* a line */
        st = sbxi_http1_line(h, data, len, pos, &line, &n);
        if (st != SBX_OK)
            return st;
        if (h->state == SBXI_HTTP1_START)
            return sbxi_http1_start(h, line, n, event);
        if (h->state == SBXI_HTTP1_CHUNK_SIZE)
            return sbxi_http1_chunk_size(h, line, n);
        return sbxi_http1_head_line(h, line, n, event);
    }
}

static sbx_status sbxi_http1_read_any(sbx_http1 *h, const char *data, size_t len, size_t *used,
                                      sbx_http1_event *event)
{
    size_t pos = 0;
    sbx_status st;
    if (len == 0)
        data = ""; /* it may be NULL, to which nothing can be added */
    do {
        memset(event, 0, sizeof(*event));
        st = sbxi_http1_step(h, data, len, &pos, event);
    } while (st == SBX_AGAIN && pos < len);
    *used = pos;
    return st;
}

SBX_API sbx_status sbx_http1_read(sbx_http1 *h, const void *data, size_t len, size_t *used,
                                  sbx_http1_event *event)
{
    const char *from = (const char *)data;
    size_t n;
    if (h->state != SBXI_HTTP1_HEADER || h->used > 0 || len < 16)
        return sbxi_http1_read_any(h, from, len, used, event);
    n = sbxi_http1_quick_field(from, len, event);
    if (n == 0 || n > h->cap)
        return sbxi_http1_read_any(h, from, len, used, event);
    *used = n;
    if (sbxi_http1_count(h, n) != SBX_OK)
        return h->status;
    n = event->name_len;
    return n == 4 || n == 10 || n == 14 || n == 17 ? sbxi_http1_meaning(h, event) : SBX_OK;
}

SBX_API sbx_status sbx_http1_finish(sbx_http1 *h, sbx_http1_event *event)
{
    memset(event, 0, sizeof(*event));
    if (h->status != SBX_OK)
        return h->status;
    h->persistent = 0;
    if (h->state == SBXI_HTTP1_COMPLETE || h->state == SBXI_HTTP1_UNTIL_END)
        return sbxi_http1_end(h, event);
    if (h->state == SBXI_HTTP1_START && h->used == 0 && h->informational == 0)
        h->state = SBXI_HTTP1_CLOSED;
    if (h->state == SBXI_HTTP1_CLOSED)
        return SBX_END;
    return sbxi_http1_refuse(h, "the connection was closed in the middle of a message");
}

SBX_API int sbx_http1_keep_alive(const sbx_http1 *h)
{
    return h->status == SBX_OK && h->state == SBXI_HTTP1_START && h->used == 0 &&
           h->informational == 0;
}

SBX_API size_t sbx_http1_chunk(char *out, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 1, i;
    while (n < 2 * sizeof(len) && len >> (4 * n) != 0)
        n++;
    for (i = n; i > 0; i--, len >>= 4)
        out[i - 1] = digits[len & 15];
    out[n] = '\r';
    out[n + 1] = '\n';
    return n + 2;
}
