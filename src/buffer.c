/* buffer: a queue of bytes with a ceiling.

   Promises: memory grows with the bytes that are there, doubling, and never past the ceiling; after
   a failure the queue is as it was. The bytes lie in one piece from sbxi_buffer_data. */
#include "internal.h"

static void sbxi_buffer_init(sbxi_buffer *b, const sbx_allocator *memory, size_t ceiling)
{
    memset(b, 0, sizeof(*b));
    b->memory = memory;
    b->ceiling = ceiling;
}

static void sbxi_buffer_free(sbxi_buffer *b)
{
    sbxi_release(b->memory, b->data, b->cap);
    b->data = NULL;
    b->start = b->end = b->cap = 0;
}

static char *sbxi_buffer_data(const sbxi_buffer *b)
{
    return b->data ? b->data + b->start : NULL;
}

static size_t sbxi_buffer_len(const sbxi_buffer *b)
{
    return b->end - b->start;
}

static void sbxi_buffer_consume(sbxi_buffer *b, size_t len)
{
    b->start += len;
    if (b->start == b->end)
        b->start = b->end = 0;
}

static void sbxi_buffer_compact(sbxi_buffer *b)
{
    if (b->start > 0) {
        memmove(b->data, b->data + b->start, b->end - b->start);
        b->end -= b->start;
        b->start = 0;
    }
}

/* Makes room for len more bytes at data + end; the caller writes and counts them. The bytes move to
   the front only when that frees at least half of the room, or the ceiling leaves no other way, so
   moving costs in proportion to what went through. */
static sbx_status sbxi_buffer_reserve(sbxi_buffer *b, size_t len)
{
    const size_t least = b->ceiling < 256 ? b->ceiling : 256;
    size_t cap = b->cap < least ? least : b->cap;
    char *data;
    if (len <= b->cap - b->end)
        return SBX_OK;
    if (len > b->ceiling - sbxi_buffer_len(b))
        return SBX_E_TOO_BIG;
    if (b->start >= b->cap / 2 || len > b->ceiling - b->end)
        sbxi_buffer_compact(b);
    if (len <= b->cap - b->end)
        return SBX_OK;
    while (cap < b->end + len)
        cap = cap > b->ceiling / 2 ? b->ceiling : cap * 2;
    data = (char *)b->memory->resize(b->memory->user, b->data, b->cap, cap);
    if (!data)
        return SBX_E_MEMORY;
    b->data = data;
    b->cap = cap;
    return SBX_OK;
}

static sbx_status sbxi_buffer_append(sbxi_buffer *b, const void *data, size_t len)
{
    sbx_status st = len ? sbxi_buffer_reserve(b, len) : SBX_OK;
    if (st == SBX_OK && len) {
        memcpy(b->data + b->end, data, len);
        b->end += len;
    }
    return st;
}

static sbx_status sbxi_buffer_text(sbxi_buffer *b, const char *text)
{
    return sbxi_buffer_append(b, text, strlen(text));
}

#if !defined(SBX_NO_FILES) || !defined(SBX_NO_WEBSOCKET)
/* Puts a 0 behind the bytes, which is not counted. */
static sbx_status sbxi_buffer_terminate(sbxi_buffer *b)
{
    sbx_status st = sbxi_buffer_reserve(b, 1);
    if (st == SBX_OK)
        b->data[b->end] = 0;
    return st;
}
#endif
