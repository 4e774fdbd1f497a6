/* url: percent-encoding, the parts of an absolute URL (RFC 3986), parameters of a query.

   Promises: no allocation; reads nothing beyond the length it is given. What sbx_url_parse lets
   through has no character that could end a request line or a header, so its parts can be written
   to the wire as they are. Calls text. */
#include "internal.h"

/* The value of a hexadecimal digit, -1 if it is none. */
static int sbxi_url_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int sbxi_url_alphanumeric(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static int sbxi_url_in(char c, const char *set)
{
    return c != 0 && strchr(set, c) != NULL;
}

/* ---- percent-encoding ---- */

SBX_API size_t sbx_url_encode(const char *text, size_t len, char *out, size_t cap)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t i, at = 0;
    for (i = 0; i < len; i++) {
        char piece[3];
        size_t n = 1, k;
        piece[0] = text[i];
        if (!sbxi_url_alphanumeric(text[i]) && !sbxi_url_in(text[i], "-_~")) {
            piece[0] = '%';
            piece[1] = digits[(unsigned char)text[i] >> 4];
            piece[2] = digits[(unsigned char)text[i] & 15];
            n = 3;
        }
        for (k = 0; k < n; k++, at++) {
            if (at + 1 < cap)
                out[at] = piece[k];
        }
    }
    if (cap > 0)
        out[at < cap ? at : cap - 1] = 0;
    return at;
}

/* Decodes what stands at text[*at] and moves on: a byte, or -1 for a bad escape. */
static int sbxi_url_decode_one(const char *text, size_t len, int plus, size_t *at)
{
    char c = text[(*at)++];
    int high, low;
    if (c == '+' && plus)
        return ' ';
    if (c != '%')
        return (unsigned char)c;
    if (len - *at < 2)
        return -1;
    high = sbxi_url_digit(text[*at]);
    low = sbxi_url_digit(text[*at + 1]);
    *at += 2;
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

SBX_API size_t sbx_url_decode(const char *text, size_t len, int plus, char *out)
{
    size_t at = 0, n = 0;
    while (at < len) {
        int byte = sbxi_url_decode_one(text, len, plus, &at);
        if (byte < 0)
            return SIZE_MAX;
        out[n++] = (char)byte;
    }
    return n;
}

/* 1 if the encoded text stands for name. */
static int sbxi_url_is_name(const char *text, size_t len, const char *name)
{
    size_t at = 0;
    while (at < len) {
        int byte = sbxi_url_decode_one(text, len, 1, &at);
        if (byte <= 0 || byte != (unsigned char)*name++)
            return 0;
    }
    return *name == 0;
}

SBX_API sbx_status sbx_url_query(const char *query, size_t len, const char *name, char *out,
                                 size_t cap, size_t *out_len)
{
    size_t start = 0, end, equals, at, n = 0;
    *out_len = 0;
    for (;; start = end + 1) {
        for (end = start; end < len && query[end] != '&';)
            end++;
        for (equals = start; equals < end && query[equals] != '=';)
            equals++;
        /* Between two "&" there may be nothing: that is no parameter. */
        if (end > start && sbxi_url_is_name(query + start, equals - start, name))
            break;
        if (end >= len)
            return SBX_END;
    }
    for (at = equals < end ? equals + 1 : end; at < end; n++) {
        int byte = sbxi_url_decode_one(query, end, 1, &at);
        if (byte <= 0)
            return SBX_E_PROTOCOL;
        if (n + 1 < cap)
            out[n] = (char)byte;
    }
    *out_len = n;
    if (n >= cap)
        return SBX_E_TOO_BIG;
    out[n] = 0;
    return SBX_OK;
}

/* ---- absolute URLs ---- */

/* unreserved and sub-delims of RFC 3986 */
static int sbxi_url_plain(char c)
{
    return sbxi_url_alphanumeric(c) || sbxi_url_in(c, "-._~!$&'()*+,;=");
}

/* Four numbers from 0 to 255 without leading zeros. */
static int sbxi_url_is_ipv4(const char *text, size_t len)
{
    size_t at = 0, digits;
    int number, part;
    for (part = 0; part < 4; part++) {
        if (part > 0 && (at == len || text[at++] != '.'))
            return 0;
        number = 0;
        for (digits = 0; at < len && digits < 4 && text[at] >= '0' && text[at] <= '9'; digits++)
            number = number * 10 + (text[at++] - '0');
        if (digits == 0 || digits > 3 || number > 255 || (digits > 1 && text[at - digits] == '0'))
            return 0;
    }
    return at == len;
}

/* Eight groups of up to four digits; "::" stands once for some that are 0; the last two may be
   written as an IPv4 address. */
static int sbxi_url_is_ipv6(const char *text, size_t len)
{
    size_t at = 0, start;
    int groups = 0, gap = 0;
    if (len >= 2 && text[0] == ':' && text[1] == ':') {
        gap = 1;
        at = 2;
    }
    while (at < len && groups < 8) {
        start = at;
        while (at < len && at - start < 4 && sbxi_url_digit(text[at]) >= 0)
            at++;
        if (at < len && text[at] == '.') {
            groups += 2;
            if (!sbxi_url_is_ipv4(text + start, len - start))
                return 0;
            at = len;
            break;
        }
        groups++;
        if (at == start)
            return 0;
        if (at == len)
            break;
        if (text[at] != ':' || ++at == len)
            return 0;
        if (text[at] == ':') {
            if (gap)
                return 0;
            gap = 1;
            at++;
        }
    }
    return at == len && (gap ? groups < 8 : groups == 8);
}

/* Takes [HOST] or HOST, and :PORT, which fill text. NULL, or what is wrong. */
static const char *sbxi_url_authority(sbx_url *url, const char *text, size_t len)
{
    size_t at = 0, end;
    uint64_t port;
    if (len && memchr(text, '@', len))
        return "a URL with a user name is not accepted";
    if (len && text[0] == '[') {
        const char *close = (const char *)memchr(text, ']', len);
        if (!close || !sbxi_url_is_ipv6(text + 1, (size_t)(close - text) - 1))
            return "what stands in brackets is not an IPv6 address";
        url->host = text + 1;
        url->host_len = (size_t)(close - text) - 1;
        at = url->host_len + 2;
    } else {
        for (end = 0; end < len && text[end] != ':'; end++) {
            if (!sbxi_url_plain(text[end]))
                return "the host has a character that does not belong there";
        }
        if (end == 0)
            return "the URL has no host";
        url->host = text;
        url->host_len = end;
        at = end;
    }
    if (at == len)
        return NULL;
    if (text[at++] != ':')
        return "only a colon and a port may follow the host";
    if (!sbxi_parse_uint(text + at, len - at, &port) || port == 0 || port > 65535)
        return "the port is not a number from 1 to 65535";
    url->port = (uint16_t)port;
    return NULL;
}

/* Checks a path or query: the characters of RFC 3986, and extra ones. */
static int sbxi_url_is_valid(const char *text, size_t len, const char *extra)
{
    size_t i;
    for (i = 0; i < len; i++) {
        if (text[i] == '%') {
            if (len - i < 3 || sbxi_url_digit(text[i + 1]) < 0 || sbxi_url_digit(text[i + 2]) < 0)
                return 0;
        } else if (!sbxi_url_plain(text[i]) && !sbxi_url_in(text[i], extra)) {
            return 0;
        }
    }
    return 1;
}

static const char *sbxi_url_split(const char *text, size_t len, sbx_url *url)
{
    size_t at, start;
    const char *problem;
    if (len >= 8 && sbxi_equal_nocase(text, 8, "https://")) {
        url->tls = 1;
        start = 8;
    } else if (len >= 7 && sbxi_equal_nocase(text, 7, "http://")) {
        start = 7;
    } else {
        return "the URL does not start with http:// or https://";
    }
    url->port = url->tls ? 443 : 80;
    if (memchr(text, '#', len))
        return "a URL with a fragment is not accepted";
    for (at = start; at < len && text[at] != '/' && text[at] != '?';)
        at++;
    problem = sbxi_url_authority(url, text + start, at - start);
    if (problem)
        return problem;
    url->path = text + at;
    while (at < len && text[at] != '?')
        at++;
    url->path_len = (size_t)(text + at - url->path);
    url->query = text + (at < len ? at + 1 : at);
    url->query_len = (size_t)(text + len - url->query);
    if (!sbxi_url_is_valid(url->path, url->path_len, "/:@"))
        return "the path has a character that must be percent-encoded, or a bad escape";
    if (!sbxi_url_is_valid(url->query, url->query_len, "/:@?"))
        return "the query has a character that must be percent-encoded, or a bad escape";
    return NULL;
}

SBX_API sbx_status sbx_url_parse(const char *text, size_t len, sbx_url *url, const char **problem)
{
    const char *what;
    memset(url, 0, sizeof(*url));
    what = sbxi_url_split(text, len, url);
    if (problem)
        *problem = what;
    return what ? SBX_E_ARGUMENT : SBX_OK;
}
