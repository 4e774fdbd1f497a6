/* base: memory, errors by value, and the one formatter of messages.

   Promises: every allocation goes through the user's allocator and may fail; a message is always
   NUL-terminated, cut at a character's boundary. Calls nothing but libc's memory functions. */
#include "internal.h"

/* ---- memory ---- */

#ifndef SBX_NO_STDLIB
static void *sbxi_default_resize(void *user, void *p, size_t old_size, size_t new_size)
{
    (void)user;
    (void)old_size;
    if (new_size == 0) {
        free(p);
        return NULL;
    }
    return realloc(p, new_size);
}
#endif

static void *sbxi_alloc(const sbx_allocator *memory, size_t size)
{
    return memory->resize(memory->user, NULL, 0, size);
}

static void sbxi_release(const sbx_allocator *memory, void *p, size_t size)
{
    if (p)
        (void)memory->resize(memory->user, p, size, 0);
}

/* Zeroes memory that held a secret, in a way that the compiler does not leave out. */
static void sbxi_wipe(void *p, size_t size)
{
    volatile unsigned char *byte = (volatile unsigned char *)p;
    while (size--)
        *byte++ = 0;
}

/* What a call gives to the user is one block with this in front, so that sbx_free needs nothing but
   the pointer. Large output is not copied into the block: it is attached, and goes with it. The
   union aligns what follows for any type. */
typedef union sbxi_block {
    struct {
        sbx_allocator memory;
        size_t size;
        void *attached[2];
        size_t attached_size[2];
    } head;
    long double align_number;
    void *align_pointer;
    int64_t align_integer;
} sbxi_block;

/* A zeroed object of size bytes, to be freed by sbx_free; NULL if there is no memory. */
static void *sbxi_object(const sbx_allocator *memory, size_t size)
{
    sbxi_block *block;
    if (size > SIZE_MAX - sizeof(*block))
        return NULL;
    block = (sbxi_block *)sbxi_alloc(memory, sizeof(*block) + size);
    if (!block)
        return NULL;
    memset(block, 0, sizeof(*block) + size);
    block->head.memory = *memory;
    block->head.size = sizeof(*block) + size;
    return block + 1;
}

#if !defined(SBX_NO_FILES) || !defined(SBX_NO_WEBSOCKET)
/* Gives memory of the same allocator to an object; slot is 0 or 1. */
static void sbxi_object_attach(void *object, int slot, void *p, size_t size)
{
    sbxi_block *block = (sbxi_block *)object - 1;
    block->head.attached[slot] = p;
    block->head.attached_size[slot] = size;
}
#endif

SBX_API void sbx_free(void *object)
{
    if (object) {
        sbxi_block *block = (sbxi_block *)object - 1;
        sbx_allocator memory = block->head.memory;
        sbxi_release(&memory, block->head.attached[0], block->head.attached_size[0]);
        sbxi_release(&memory, block->head.attached[1], block->head.attached_size[1]);
        sbxi_release(&memory, block, block->head.size);
    }
}

/* ---- formatting ---- */

/* The end of the longest prefix of text that has at most len bytes and splits no character. */
static size_t sbxi_cut(const char *text, size_t len)
{
    size_t at = len;
    while (at > 0 && len - at < 3 && ((unsigned char)text[at] & 0xc0) == 0x80)
        at--;
    return ((unsigned char)text[at] & 0xc0) == 0x80 ? len : at;
}

/* Copies len bytes of text into out[cap] with a final 0. Control characters become spaces, so that
   foreign text stays on one line. */
static void sbxi_copy(char *out, size_t cap, const char *text, size_t len)
{
    size_t i;
    if (len >= cap)
        len = sbxi_cut(text, cap - 1);
    for (i = 0; i < len; i++)
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? ' ' : text[i];
    out[len] = 0;
}

static size_t sbxi_decimal(char out[21], int64_t value)
{
    char digits[20];
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    size_t n = 0, len = 0;
    do {
        digits[n++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (value < 0)
        out[len++] = '-';
    while (n)
        out[len++] = digits[--n];
    out[len] = 0;
    return len;
}

/* The library's printf: %s is a string (NULL: nothing), %d an int, %l an int64_t, %% a percent
   sign. Returns the length of what fitted into out[cap]. */
static size_t sbxi_vformat(char *out, size_t cap, const char *format, va_list args)
{
    size_t at = 0, len;
    char number[21];
    const char *piece;
    for (; *format && at + 1 < cap; format++) {
        piece = format;
        len = 1;
        if (*format == '%') {
            format++;
            if (*format == 's') {
                piece = va_arg(args, const char *);
                len = piece ? strlen(piece) : 0;
            } else if (*format == 'd' || *format == 'l') {
                int64_t value = *format == 'd' ? va_arg(args, int) : va_arg(args, int64_t);
                len = sbxi_decimal(number, value);
                piece = number;
            }
        }
        if (len == 0)
            continue;
        if (len >= cap - at)
            len = sbxi_cut(piece, cap - at - 1);
        sbxi_copy(out + at, cap - at, piece, len);
        at += len;
    }
    if (cap)
        out[at] = 0;
    return at;
}

static size_t sbxi_format(char *out, size_t cap, const char *format, ...)
{
    va_list args;
    size_t len;
    va_start(args, format);
    len = sbxi_vformat(out, cap, format, args);
    va_end(args);
    return len;
}

/* ---- errors ---- */

static void sbxi_error_clear(sbx_error *err)
{
    if (err) {
        memset(err, 0, sizeof(*err));
        err->resource_type = err->operation = err->quota_type = "";
    }
}

/* Fills err (may be NULL) and returns status. Details that are known besides are set afterwards. */
static sbx_status sbxi_fail(sbx_error *err, sbx_status status, const char *format, ...)
{
    va_list args;
    if (err) {
        sbxi_error_clear(err);
        err->status = status;
        va_start(args, format);
        sbxi_vformat(err->message, sizeof(err->message), format, args);
        va_end(args);
    }
    return status;
}

/* Anything shorter is no secret, and would be found in any text. */
#define SBXI_SECRET 8

/* Covers secret (NULL: none) wherever text holds it, also where its end was cut off: a service may
   quote the key that it refuses. */
static void sbxi_redact(char *text, const char *secret)
{
    size_t len = secret ? strlen(secret) : 0, i, n;
    for (i = 0; len >= SBXI_SECRET && text[i]; i++) {
        for (n = 0; n < len && text[i + n] == secret[n]; n++) {
        }
        if (n == len || (n >= SBXI_SECRET && text[i + n] == 0))
            memset(text + i, '*', n);
    }
}

static void sbxi_error_redact(sbx_error *err, const char *secret)
{
    int i;
    sbxi_redact(err->message, secret);
    sbxi_redact(err->error_type, secret);
    sbxi_redact(err->field, secret);
    sbxi_redact(err->last_status, secret);
    for (i = 0; i < SBX_ERROR_DETAILS; i++) {
        sbxi_redact(err->details[i].field, secret);
        sbxi_redact(err->details[i].type, secret);
        sbxi_redact(err->details[i].message, secret);
    }
}

static sbx_status sbxi_fail_memory(sbx_error *err)
{
    return sbxi_fail(err, SBX_E_MEMORY, "out of memory");
}

/* An argument error: problem completes the sentence that starts with the field's name. */
static sbx_status sbxi_fail_argument(sbx_error *err, const char *field, const char *problem)
{
    (void)sbxi_fail(err, SBX_E_ARGUMENT, "%s %s", field, problem);
    if (err)
        sbxi_copy(err->field, sizeof(err->field), field, strlen(field));
    return SBX_E_ARGUMENT;
}

SBX_API const char *sbx_status_name(sbx_status status)
{
    switch (status) {
#define SBXI_NAME(name)                                                                            \
    case name:                                                                                     \
        return #name
        SBXI_NAME(SBX_OK);
        SBXI_NAME(SBX_AGAIN);
        SBXI_NAME(SBX_END);
        SBXI_NAME(SBX_E_ARGUMENT);
        SBXI_NAME(SBX_E_MEMORY);
        SBXI_NAME(SBX_E_CANCELLED);
        SBXI_NAME(SBX_E_TIMEOUT);
        SBXI_NAME(SBX_E_TOO_BIG);
        SBXI_NAME(SBX_E_ABORTED);
        SBXI_NAME(SBX_E_ENTROPY);
        SBXI_NAME(SBX_E_UNSUPPORTED);
        SBXI_NAME(SBX_E_FILE);
        SBXI_NAME(SBX_E_CONNECTION);
        SBXI_NAME(SBX_E_RESOLVE);
        SBXI_NAME(SBX_E_CONNECT);
        SBXI_NAME(SBX_E_TLS);
        SBXI_NAME(SBX_E_PROTOCOL);
        SBXI_NAME(SBX_E_SERVER_RELOAD);
        SBXI_NAME(SBX_E_SERVICE);
        SBXI_NAME(SBX_E_API);
        SBXI_NAME(SBX_E_AUTHENTICATION);
        SBXI_NAME(SBX_E_NOT_FOUND);
        SBXI_NAME(SBX_E_VALIDATION);
        SBXI_NAME(SBX_E_QUOTA);
        SBXI_NAME(SBX_E_ALREADY_EXISTS);
        SBXI_NAME(SBX_E_NAME_CONFLICT);
        SBXI_NAME(SBX_E_IN_USE);
        SBXI_NAME(SBX_E_CREATION);
        SBXI_NAME(SBX_E_RESOURCE_TIMEOUT);
        SBXI_NAME(SBX_E_NOT_READY);
        SBXI_NAME(SBX_E_NO_DATAPLANE);
        SBXI_NAME(SBX_E_OPERATION);
        SBXI_NAME(SBX_E_COMMAND_TIMEOUT);
#undef SBXI_NAME
    }
    return "unknown status";
}

SBX_API int sbx_status_is(sbx_status status, sbx_status family)
{
    if (status == family)
        return 1;
    switch (family) {
    case SBX_E_CONNECTION:
        return status <= SBX_E_RESOLVE && status >= SBX_E_SERVER_RELOAD;
    case SBX_E_SERVICE:
        return status <= SBX_E_API && status >= SBX_E_COMMAND_TIMEOUT;
    case SBX_E_OPERATION:
        return status == SBX_E_COMMAND_TIMEOUT;
    default:
        return 0;
    }
}
