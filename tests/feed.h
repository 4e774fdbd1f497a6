/* feed: gives bytes to a codec in every way they can arrive, and compares what it made of them.

   A test describes its codec by a function that makes a codec, feeds it and writes down what comes:

       static void read_it(void *context, feed *f, trace *t)
       {
           char *piece;
           size_t len;
           while (feed_next(f, &piece, &len)) { ... trace_add(t, "event %d\n", ...); }
       }

   and feed_every_way runs it with the bytes whole, byte by byte, and cut in two at every byte, and
   demands the same text each time. Every piece is a writable copy that ends at an unreadable page
   and is overwritten by the next one. */
#ifndef SBX_TESTS_FEED_H
#define SBX_TESTS_FEED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "guard.h"

#if defined(__GNUC__)
#define FEED_UNUSED __attribute__((unused))
#define FEED_PRINTF(text, args) __attribute__((format(printf, text, args)))
#else
#define FEED_UNUSED
#define FEED_PRINTF(text, args)
#endif

/* ---- a text that grows ---- */

typedef struct trace {
    char *text; /* NULL while nothing was added */
    size_t len, cap;
} trace;

/* Adds bytes as they are; a 0 among them ends the text for those who compare strings. */
static void trace_bytes(trace *t, const void *bytes, size_t len)
{
    if (len + 1 > t->cap - t->len) {
        t->cap = (t->cap + len + 1) * 2;
        t->text = (char *)realloc(t->text, t->cap);
        if (!t->text)
            guard_fail("realloc");
    }
    if (len)
        memcpy(t->text + t->len, bytes, len);
    t->len += len;
    t->text[t->len] = 0;
}

static void trace_add(trace *t, const char *format, ...) FEED_PRINTF(2, 3) FEED_UNUSED;
static void trace_add(trace *t, const char *format, ...)
{
    char line[1024];
    va_list args;
    int len;
    va_start(args, format);
    len = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    assert_true(len >= 0 && (size_t)len < sizeof(line));
    trace_bytes(t, line, (size_t)len);
}

/* Adds bytes so that they can be read: what is not printable ASCII, and the backslash, as \xNN. */
static void trace_quoted(trace *t, const void *bytes, size_t len) FEED_UNUSED;
static void trace_quoted(trace *t, const void *bytes, size_t len)
{
    const unsigned char *p = (const unsigned char *)bytes;
    size_t i;
    for (i = 0; i < len; i++) {
        if (p[i] < 0x20 || p[i] > 0x7e || p[i] == '\\')
            trace_add(t, "\\x%02x", p[i]);
        else
            trace_bytes(t, p + i, 1);
    }
}

static const char *trace_text(const trace *t)
{
    return t->text ? t->text : "";
}

static void trace_free(trace *t)
{
    free(t->text);
    t->text = NULL;
    t->len = t->cap = 0;
}

/* ---- pieces ---- */

typedef struct feed {
    const char *bytes;
    size_t len, at;
    size_t cut;  /* the first piece ends here, if it lies between at and len */
    size_t most; /* bytes in one piece */
    guard memory;
} feed;

/* The next piece, never empty. 0: there are no more. */
static int feed_next(feed *f, char **piece, size_t *len)
{
    size_t n = f->len - f->at;
    if (n == 0)
        return 0;
    if (f->at < f->cut && f->cut < f->len)
        n = f->cut - f->at;
    if (n > f->most)
        n = f->most;
    *piece = (char *)guard_put(&f->memory, f->bytes + f->at, n);
    *len = n;
    f->at += n;
    return 1;
}

typedef void (*feed_fn)(void *context, feed *f, trace *t);

static void feed_once(feed *f, size_t cut, size_t most, feed_fn fn, void *context,
                      const char *expected, const char *name)
{
    trace t = {NULL, 0, 0};
    f->at = 0;
    f->cut = cut;
    f->most = most;
    fn(context, f, &t);
    if (strcmp(trace_text(&t), expected) != 0)
        fail_msg("%s, cut at %lu, pieces of at most %lu bytes:\n%s--- instead of ---\n%s", name,
                 (unsigned long)cut, (unsigned long)most, trace_text(&t), expected);
    trace_free(&t);
}

/* Runs fn over the bytes whole, byte by byte, and cut at every byte. name says in a failure which
   case it was. */
static void feed_every_way(const void *bytes, size_t len, feed_fn fn, void *context,
                           const char *expected, const char *name) FEED_UNUSED;
static void feed_every_way(const void *bytes, size_t len, feed_fn fn, void *context,
                           const char *expected, const char *name)
{
    feed f = {(const char *)bytes, len, 0, 0, 0, {NULL, 0}};
    size_t cut;
    for (cut = 0; cut == 0 || cut < len; cut++)
        feed_once(&f, cut, (size_t)-1, fn, context, expected, name);
    feed_once(&f, 0, 1, fn, context, expected, name);
    guard_free(&f.memory);
}

#endif
