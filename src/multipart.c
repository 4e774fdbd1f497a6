/* multipart: reads multipart/form-data (RFC 7578, RFC 2046) as it comes, writes a body of one part.

   Promises: what a part holds is lent from the input and never copied, but for bytes that looked
   like the start of a boundary at a cut: they are equal to the boundary's own, and lent from there.
   Only a part's headers are kept, up to a limit. The outcome does not depend on how the bytes are
   cut. Calls text, url and http1. */
#include "internal.h"

enum {
    SBXI_MULTIPART_DATA,    /* of a part, or what comes before the first */
    SBXI_MULTIPART_AFTER,   /* right behind a delimiter */
    SBXI_MULTIPART_DASH,    /* behind that, one "-" */
    SBXI_MULTIPART_PADDING, /* behind that, white space */
    SBXI_MULTIPART_LF,      /* behind that, a CR */
    SBXI_MULTIPART_HEAD,    /* the headers of a part */
    SBXI_MULTIPART_CLOSED
};

typedef struct sbxi_multipart_parameter {
    const char *name, *value;
    size_t name_len, value_len;
} sbxi_multipart_parameter;

static sbx_status sbxi_multipart_refuse(sbx_multipart *m, const char *problem)
{
    m->problem = problem;
    m->status = SBX_E_PROTOCOL;
    return m->status;
}

/* ---- headers ---- */

/* Takes the next of the parameters "; name=value; name="value"" at text[*at]. 1: there is one, 0:
   there is none left, -1: this is something else. */
static int sbxi_multipart_next(const char *text, size_t len, size_t *at,
                               sbxi_multipart_parameter *parameter)
{
    size_t i = *at, start;
    while (i < len && sbxi_http1_is_space(text[i]))
        i++;
    if (i < len && text[i] != ';')
        return -1;
    while (i < len && (text[i] == ';' || sbxi_http1_is_space(text[i])))
        i++;
    if (i == len)
        return 0;
    parameter->name = text + i;
    parameter->name_len = sbxi_http1_token_len(text + i, len - i);
    i += parameter->name_len;
    if (parameter->name_len == 0 || i == len || text[i++] != '=')
        return -1;
    start = i;
    if (i < len && text[i] == '"') {
        start = ++i;
        while (i < len && text[i] != '"')
            i += text[i] == '\\' ? 2 : 1;
        if (i >= len)
            return -1;
        *at = i + 1;
    } else {
        while (i < len && text[i] != ';' && text[i] != '"' && !sbxi_http1_is_space(text[i]))
            i++;
        if (i == start)
            return -1;
        *at = i;
    }
    parameter->value = text + start;
    parameter->value_len = i - start;
    return 1;
}

/* "form-data; name="file"; filename="a.txt"" */
static sbx_status sbxi_multipart_disposition(sbx_multipart *m, const char *text, size_t len,
                                             sbx_multipart_event *event)
{
    sbxi_multipart_parameter p;
    size_t at = sbxi_http1_token_len(text, len);
    int more;
    if (!sbxi_equal_nocase(text, at, "form-data"))
        return sbxi_multipart_refuse(m, "a part's Content-Disposition is not form-data");
    while ((more = sbxi_multipart_next(text, len, &at, &p)) > 0) {
        int is_name = sbxi_equal_nocase(p.name, p.name_len, "name");
        if (!is_name && !sbxi_equal_nocase(p.name, p.name_len, "filename"))
            continue;
        if (is_name ? event->name != NULL : event->filename != NULL)
            return sbxi_multipart_refuse(m, "a part has two names");
        if (is_name) {
            event->name = p.value;
            event->name_len = p.value_len;
        } else {
            event->filename = p.value;
            event->filename_len = p.value_len;
        }
    }
    if (more < 0)
        return sbxi_multipart_refuse(m, "a part's Content-Disposition cannot be read");
    return event->name ? SBX_OK : sbxi_multipart_refuse(m, "a part has no name");
}

/* All lines of a part's head are there: what is the part called? */
static sbx_status sbxi_multipart_part(sbx_multipart *m, sbx_multipart_event *event)
{
    const char *line = m->head, *end = m->head + m->head_len - 2, *next;
    sbx_status st;
    for (; line < end; line = next) {
        size_t n, name;
        const char *value;
        next = (const char *)memchr(line, '\n', (size_t)(end - line)) + 1;
        n = (size_t)(next - line) - 2;
        name = sbxi_http1_token_len(line, n);
        if (name == 0 || name == n || line[name] != ':' || !sbxi_http1_value(line + name, n - name))
            return sbxi_multipart_refuse(m, "a part has a header that cannot be read");
        if (!sbxi_equal_nocase(line, name, "content-disposition"))
            continue;
        if (event->name)
            return sbxi_multipart_refuse(m, "a part has two names");
        value = line + name + 1;
        n -= name + 1;
        sbxi_http1_trim(&value, &n);
        st = sbxi_multipart_disposition(m, value, n, event);
        if (st != SBX_OK)
            return st;
    }
    if (!event->name)
        return sbxi_multipart_refuse(m, "a part has no name");
    event->type = SBX_MULTIPART_PART;
    m->state = SBXI_MULTIPART_DATA;
    m->in_part = 1;
    m->matched = m->assumed = 2; /* the head's last line end can begin the next delimiter */
    return SBX_OK;
}

static sbx_status sbxi_multipart_head(sbx_multipart *m, const char *data, size_t len, size_t *pos,
                                      sbx_multipart_event *event)
{
    while (*pos < len) {
        const char *lf = (const char *)memchr(data + *pos, '\n', len - *pos);
        size_t n = lf ? (size_t)(lf - data) + 1 - *pos : len - *pos, line = m->line;
        if (n > sizeof(m->head) - m->head_len) {
            m->problem = "the headers of a part are too long";
            m->status = SBX_E_TOO_BIG;
            return m->status;
        }
        memcpy(m->head + m->head_len, data + *pos, n);
        m->head_len += n;
        *pos += n;
        if (!lf)
            break;
        if (m->head_len - line < 2 || m->head[m->head_len - 2] != '\r')
            return sbxi_multipart_refuse(m, "a part's header does not end in CR LF");
        if (m->head_len - line == 2)
            return sbxi_multipart_part(m, event);
        m->line = m->head_len;
    }
    return SBX_AGAIN;
}

/* ---- data and delimiters ---- */

/* Where the first delimiter starts from pos on, or what may become one behind the end of data. */
static size_t sbxi_multipart_find(const sbx_multipart *m, const char *data, size_t len, size_t pos)
{
    for (;;) {
        const char *cr = (const char *)memchr(data + pos, '\r', len - pos);
        size_t left;
        if (!cr)
            return len;
        left = len - (size_t)(cr - data);
        if (memcmp(cr, m->delimiter, left < m->delimiter_len ? left : m->delimiter_len) == 0)
            return (size_t)(cr - data);
        pos = (size_t)(cr - data) + 1; /* not beyond the end: a CR that stands last is a match */
    }
}

/* The n bytes of the delimiter that were taken were data. What comes before the first part is
   skipped: SBX_AGAIN then. */
static sbx_status sbxi_multipart_replay(sbx_multipart *m, size_t n, sbx_multipart_event *event)
{
    const char *data = m->delimiter + m->assumed;
    size_t len = n - m->assumed;
    m->state = SBXI_MULTIPART_DATA;
    m->matched = m->assumed = 0;
    if (!m->in_part || len == 0)
        return SBX_AGAIN;
    event->type = SBX_MULTIPART_DATA;
    event->data = data;
    event->len = len;
    return SBX_OK;
}

/* SBX_OK: an event. SBX_AGAIN: there is none yet, and the state may have changed. */
static sbx_status sbxi_multipart_data(sbx_multipart *m, const char *data, size_t len, size_t *pos,
                                      sbx_multipart_event *event)
{
    size_t at;
    if (m->matched == 0) {
        at = sbxi_multipart_find(m, data, len, *pos);
        if (at > *pos && m->in_part) {
            event->type = SBX_MULTIPART_DATA;
            event->data = data + *pos;
            event->len = at - *pos;
            *pos = at;
            return SBX_OK;
        }
        *pos = at;
    }
    while (*pos < len && m->matched < m->delimiter_len) {
        if (data[*pos] != m->delimiter[m->matched])
            return sbxi_multipart_replay(m, m->matched, event);
        m->matched++;
        (*pos)++;
    }
    if (m->matched == m->delimiter_len)
        m->state = SBXI_MULTIPART_AFTER;
    return SBX_AGAIN;
}

/* A delimiter is complete: reports the end of the part before it, if there is one. */
static sbx_status sbxi_multipart_divide(sbx_multipart *m, int state, sbx_multipart_event *event)
{
    m->state = state;
    m->head_len = m->line = 0;
    if (!m->in_part)
        return SBX_AGAIN;
    event->type = SBX_MULTIPART_PART_END;
    return SBX_OK;
}

/* One byte behind a delimiter, which is followed by "--" or by white space and CR LF. Anything else
   that is glued to it makes it the data that it was. But what else follows white space, or a line
   that ends in LF, no reader should have to guess about. */
static sbx_status sbxi_multipart_after(sbx_multipart *m, const char *data, size_t *pos,
                                       sbx_multipart_event *event)
{
    char c = data[*pos];
    if (m->state == SBXI_MULTIPART_DASH && c != '-')
        return sbxi_multipart_replay(m, m->delimiter_len + 1, event);
    if (m->state == SBXI_MULTIPART_AFTER && c != '-' && c != '\r' && c != '\n' &&
        !sbxi_http1_is_space(c))
        return sbxi_multipart_replay(m, m->delimiter_len, event);
    (*pos)++;
    switch (m->state) {
    case SBXI_MULTIPART_DASH:
        return sbxi_multipart_divide(m, SBXI_MULTIPART_CLOSED, event);
    case SBXI_MULTIPART_LF:
        if (c == '\n')
            return sbxi_multipart_divide(m, SBXI_MULTIPART_HEAD, event);
        break;
    default:
        if (c == '-' && m->state == SBXI_MULTIPART_AFTER) {
            m->state = SBXI_MULTIPART_DASH;
            return SBX_AGAIN;
        }
        if (c == '\r' || sbxi_http1_is_space(c)) {
            m->state = c == '\r' ? SBXI_MULTIPART_LF : SBXI_MULTIPART_PADDING;
            return SBX_AGAIN;
        }
    }
    return sbxi_multipart_refuse(m, "a boundary is followed by something else on its line");
}

/* ---- the reader ---- */

static int sbxi_multipart_is_boundary(const char *text, size_t len)
{
    size_t i;
    if (len < 1 || len > SBX_MULTIPART_BOUNDARY_MAX || text[len - 1] == ' ')
        return 0;
    for (i = 0; i < len; i++) {
        if (!sbxi_url_alphanumeric(text[i]) && !sbxi_url_in(text[i], "'()+_,-./:=? "))
            return 0;
    }
    return 1;
}

SBX_API sbx_status sbx_multipart_init(sbx_multipart *m, const char *content_type, size_t len)
{
    static const char type[] = "multipart/form-data";
    sbxi_multipart_parameter p;
    const char *boundary = NULL;
    size_t at = sizeof(type) - 1, boundary_len = 0;
    int more;
    memset(m, 0, sizeof(*m));
    if (len < at || !sbxi_equal_nocase(content_type, at, type))
        return sbxi_multipart_refuse(m, "the Content-Type is not multipart/form-data");
    while ((more = sbxi_multipart_next(content_type, len, &at, &p)) > 0) {
        if (!sbxi_equal_nocase(p.name, p.name_len, "boundary"))
            continue;
        if (boundary)
            return sbxi_multipart_refuse(m, "the Content-Type has two boundaries");
        boundary = p.value;
        boundary_len = p.value_len;
    }
    if (more < 0)
        return sbxi_multipart_refuse(m, "the Content-Type cannot be read");
    if (!boundary || !sbxi_multipart_is_boundary(boundary, boundary_len))
        return sbxi_multipart_refuse(m, "the Content-Type has no boundary of 1 to 70 characters");
    memcpy(m->delimiter, "\r\n--", 4);
    memcpy(m->delimiter + 4, boundary, boundary_len);
    memcpy(m->delimiter + 4 + boundary_len, "--", 2);
    m->delimiter_len = 4 + boundary_len;
    m->matched = m->assumed = 2;
    return SBX_OK;
}

SBX_API sbx_status sbx_multipart_read(sbx_multipart *m, const void *data, size_t len, size_t *used,
                                      sbx_multipart_event *event)
{
    const char *from = len ? (const char *)data : "";
    sbx_status st = m->status == SBX_OK ? SBX_AGAIN : m->status;
    size_t pos = 0;
    memset(event, 0, sizeof(*event));
    while (st == SBX_AGAIN) {
        if (m->state == SBXI_MULTIPART_CLOSED)
            st = SBX_END;
        else if (pos == len)
            break;
        else if (m->state == SBXI_MULTIPART_DATA)
            st = sbxi_multipart_data(m, from, len, &pos, event);
        else if (m->state == SBXI_MULTIPART_HEAD)
            st = sbxi_multipart_head(m, from, len, &pos, event);
        else
            st = sbxi_multipart_after(m, from, &pos, event);
    }
    *used = pos;
    return st;
}

SBX_API sbx_status sbx_multipart_finish(sbx_multipart *m)
{
    if (m->status != SBX_OK)
        return m->status;
    if (m->state == SBXI_MULTIPART_CLOSED)
        return SBX_END;
    return sbxi_multipart_refuse(m, "the body ended before its closing boundary");
}

/* ---- the writer ---- */

/* Writes text at out[at]; returns where it ends, or cap if that leaves no room for a final 0. */
static size_t sbxi_multipart_put(char *out, size_t cap, size_t at, const char *text, size_t len)
{
    if (len >= cap - at)
        return cap;
    memcpy(out + at, text, len);
    return at + len;
}

static size_t sbxi_multipart_put_text(char *out, size_t cap, size_t at, const char *text)
{
    return sbxi_multipart_put(out, cap, at, text, strlen(text));
}

static size_t sbxi_multipart_put_name(char *out, size_t cap, size_t at, const char *name)
{
    static const char digits[] = "0123456789ABCDEF";
    for (; *name; name++) {
        unsigned char c = (unsigned char)*name;
        char escape[3];
        escape[0] = '%';
        escape[1] = digits[c >> 4];
        escape[2] = digits[c & 15];
        if (c < 0x20 || c == 0x7f || c == '"' || c == '\\')
            at = sbxi_multipart_put(out, cap, at, escape, 3);
        else
            at = sbxi_multipart_put(out, cap, at, name, 1);
    }
    return at;
}

static int sbxi_multipart_can_write(const char *boundary)
{
    size_t i;
    for (i = 0; boundary[i]; i++) {
        if (i == SBX_MULTIPART_BOUNDARY_MAX || !sbxi_url_alphanumeric(boundary[i]))
            return 0;
    }
    return i > 0;
}

SBX_API size_t sbx_multipart_head(char *out, size_t cap, const char *boundary, const char *name,
                                  const char *filename)
{
    size_t at = 0;
    if (!sbxi_multipart_can_write(boundary))
        return 0;
    at = sbxi_multipart_put_text(out, cap, at, "--");
    at = sbxi_multipart_put_text(out, cap, at, boundary);
    at = sbxi_multipart_put_text(out, cap, at, "\r\nContent-Disposition: form-data; name=\"");
    at = sbxi_multipart_put_name(out, cap, at, name);
    if (filename) {
        at = sbxi_multipart_put_text(out, cap, at, "\"; filename=\"");
        at = sbxi_multipart_put_name(out, cap, at, filename);
        at = sbxi_multipart_put_text(out, cap, at, "\"\r\nContent-Type: application/octet-stream");
    } else {
        at = sbxi_multipart_put_text(out, cap, at, "\"");
    }
    at = sbxi_multipart_put_text(out, cap, at, "\r\n\r\n");
    if (at >= cap)
        return 0;
    out[at] = 0;
    return at;
}

SBX_API size_t sbx_multipart_tail(char *out, size_t cap, const char *boundary)
{
    size_t at = 0;
    if (!sbxi_multipart_can_write(boundary))
        return 0;
    at = sbxi_multipart_put_text(out, cap, at, "\r\n--");
    at = sbxi_multipart_put_text(out, cap, at, boundary);
    at = sbxi_multipart_put_text(out, cap, at, "--\r\n");
    if (at >= cap)
        return 0;
    out[at] = 0;
    return at;
}
