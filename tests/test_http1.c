/* HTTP/1.1 messages: the rules of RFC 9112 one by one, in both roles, however the bytes are cut. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "feed.h"

#define BYTES(text) text, sizeof(text) - 1

/* ---- reading, and writing down what was read ---- */

typedef struct reading {
    int role;
    int no_body; /* every response answers HEAD */
    size_t cap;
} reading;

static int is_in(const char *text, size_t len, const char *block, size_t size)
{
    uintptr_t start = (uintptr_t)text, from = (uintptr_t)block;
    return start >= from && start + len <= from + size;
}

/* One line for each event; the pieces of a body run on in one line. */
static void add_event(trace *t, int role, int *in_body, const sbx_http1_event *event)
{
    if (*in_body && event->type != SBX_HTTP1_BODY)
        trace_add(t, "\n");
    if (!*in_body && event->type == SBX_HTTP1_BODY)
        trace_add(t, "> ");
    *in_body = event->type == SBX_HTTP1_BODY;
    switch (event->type) {
    case SBX_HTTP1_START:
        if (role == SBX_HTTP1_REQUEST) {
            trace_quoted(t, event->name, event->name_len);
            trace_add(t, " ");
            trace_quoted(t, event->value, event->value_len);
            trace_add(t, " 1.%d\n", event->minor_version);
            return;
        }
        assert_null(event->name);
        trace_add(t, "1.%d %d ", event->minor_version, event->status);
        trace_quoted(t, event->value, event->value_len);
        break;
    case SBX_HTTP1_HEADER:
    case SBX_HTTP1_TRAILER:
        trace_add(t, event->type == SBX_HTTP1_HEADER ? "  " : "+ ");
        trace_quoted(t, event->name, event->name_len);
        trace_add(t, ": ");
        trace_quoted(t, event->value, event->value_len);
        break;
    case SBX_HTTP1_HEAD_END:
        if (event->content_length == SBX_NONE)
            trace_add(t, "length ?");
        else
            trace_add(t, "length %lld", (long long)event->content_length);
        break;
    case SBX_HTTP1_BODY:
        assert_true(event->len > 0);
        trace_quoted(t, event->data, event->len);
        return;
    case SBX_HTTP1_MESSAGE_END:
        return; /* the caller asks whether the connection stays open */
    default:
        fail_msg("an event of type %d", event->type);
    }
    trace_add(t, "\n");
}

/* Where the text of an event lies: a body always in what was given, a line too if nothing was cut.
   */
static void check_lent(const feed *f, const sbx_http1 *h, const sbx_http1_event *event,
                       const char *piece, size_t len)
{
    int whole = f->cut == 0 && f->most == (size_t)-1;
    if (event->type == SBX_HTTP1_BODY)
        assert_true(is_in(event->data, event->len, piece, len));
    if (event->name)
        assert_true(is_in(event->name, event->name_len, piece, len) ||
                    (!whole && is_in(event->name, event->name_len, h->scratch, h->cap)));
    if (event->value)
        assert_true(is_in(event->value, event->value_len, piece, len) ||
                    (!whole && is_in(event->value, event->value_len, h->scratch, h->cap)));
}

static void add_end(trace *t, const sbx_http1 *h, sbx_status st)
{
    assert_true((h->problem != NULL) == (st < 0));
    assert_true(st == SBX_END || st == SBX_E_PROTOCOL || st == SBX_E_TOO_BIG);
    if (st == SBX_END)
        trace_add(t, "end\n");
    else
        trace_add(t, "%s %s\n", st == SBX_E_TOO_BIG ? "BIG" : "BAD", h->problem);
}

/* Reads one piece; takes over what is not read once another protocol begins. */
static sbx_status read_piece(const reading *r, const feed *f, trace *t, sbx_http1 *h, int *in_body,
                             const char *piece, size_t len, size_t *rest)
{
    const char *from = piece;
    size_t all = len, used;
    sbx_http1_event event;
    sbx_status st;
    do {
        st = sbx_http1_read(h, piece, len, &used, &event);
        assert_true(used <= len);
        if (st == SBX_OK) {
            check_lent(f, h, &event, from, all);
            add_event(t, r->role, in_body, &event);
            if (event.type == SBX_HTTP1_MESSAGE_END) {
                trace_add(t, sbx_http1_keep_alive(h) ? "keep\n" : "close\n");
                sbx_http1_expect_no_body(h, r->no_body);
            } else {
                assert_false(sbx_http1_keep_alive(h));
            }
        }
        piece += used;
        len -= used;
    } while (st == SBX_OK);
    if (st == SBX_AGAIN)
        assert_int_equal(len, 0);
    if (st == SBX_END)
        *rest += len;
    return st;
}

static void read_messages(void *context, feed *f, trace *t)
{
    const reading *r = (const reading *)context;
    char *scratch = (char *)malloc(r->cap), *piece;
    size_t len, rest = 0, used;
    sbx_status st = SBX_AGAIN;
    sbx_http1 h;
    sbx_http1_event event;
    int in_body = 0;
    assert_non_null(scratch);
    sbx_http1_init(&h, r->role, scratch, r->cap);
    sbx_http1_expect_no_body(&h, r->no_body);
    assert_true(sbx_http1_keep_alive(&h));
    while ((st == SBX_AGAIN || st == SBX_END) && feed_next(f, &piece, &len))
        st = read_piece(r, f, t, &h, &in_body, piece, len, &rest);
    if (st == SBX_AGAIN) {
        /* No bytes are fine at any time, and change nothing. */
        assert_int_equal(sbx_http1_read(&h, NULL, 0, &used, &event), SBX_AGAIN);
        while ((st = sbx_http1_finish(&h, &event)) == SBX_OK) {
            add_event(t, r->role, &in_body, &event);
            assert_int_equal(event.type, SBX_HTTP1_MESSAGE_END);
            trace_add(t, "closed\n");
        }
    }
    if (in_body)
        trace_add(t, "\n");
    if (rest)
        trace_add(t, "rest %lu\n", (unsigned long)rest);
    add_end(t, &h, st);
    /* What ended it, ends it for good. */
    assert_int_equal(sbx_http1_read(&h, "HTTP/1.1 200 OK\r\n\r\n", 19, &used, &event), st);
    assert_int_equal(used, 0);
    assert_int_equal(sbx_http1_finish(&h, &event), st);
    assert_false(sbx_http1_keep_alive(&h));
    free(scratch);
}

static void check(const reading *r, const char *bytes, size_t len, const char *expected,
                  const char *name)
{
    reading copy = *r;
    feed_every_way(bytes, len, read_messages, &copy, expected, name);
}

/* The same outcome for whole and byte by byte when the bytes end after each of them. */
static void check_ends(const reading *r, const char *bytes, size_t len, const char *name)
{
    reading copy = *r;
    feed f = {bytes, 0, 0, 0, 0, {NULL, 0}};
    for (; f.len <= len; f.len++) {
        trace expected = {NULL, 0, 0};
        f.at = 0;
        f.most = (size_t)-1;
        read_messages(&copy, &f, &expected);
        feed_once(&f, 0, 1, read_messages, &copy, trace_text(&expected), name);
        trace_free(&expected);
    }
    guard_free(&f.memory);
}

typedef struct message_case {
    const char *name, *bytes;
    size_t len;
    const char *expected;
} message_case;

static void check_cases(const reading *r, const message_case *cases, size_t count)
{
    size_t i;
    for (i = 0; i < count; i++) {
        check(r, cases[i].bytes, cases[i].len, cases[i].expected, cases[i].name);
        check_ends(r, cases[i].bytes, cases[i].len, cases[i].name);
    }
}

static const reading response = {SBX_HTTP1_RESPONSE, 0, 4096};
static const reading to_head = {SBX_HTTP1_RESPONSE, 1, 4096};
static const reading request = {SBX_HTTP1_REQUEST, 0, 4096};

#define CHECK_CASES(r, cases) check_cases(&r, cases, sizeof(cases) / sizeof(*cases))

/* ---- responses ---- */

static void a_response_is_read_with_its_head_and_body(void **state)
{
    static const message_case cases[] = {
        {"a length",
         BYTES("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"),
         "1.1 200 OK\n  Content-Type: text/plain\n  Content-Length: 5\nlength 5\n> hello\nkeep\n"
         "end\n"},
        {"a length of 0", BYTES("HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n"),
         "1.1 200 OK\n  content-length: 0\nlength 0\nkeep\nend\n"},
        {"zeros before a length", BYTES("HTTP/1.1 200 OK\r\nCONTENT-LENGTH: \t003 \r\n\r\nabc"),
         "1.1 200 OK\n  CONTENT-LENGTH: 003\nlength 3\n> abc\nkeep\nend\n"},
        {"no reason", BYTES("HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n"),
         "1.1 404 \n  Content-Length: 0\nlength 0\nkeep\nend\n"},
        {"no reason and no space", BYTES("HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n"),
         "1.1 404 \n  Content-Length: 0\nlength 0\nkeep\nend\n"},
        {"a reason with anything",
         BYTES("HTTP/1.1 500 a\tb: \xc3\xa4\xff 1\r\nContent-Length: 0\r\n\r\n"),
         "1.1 500 a\\x09b: \\xc3\\xa4\\xff 1\n  Content-Length: 0\nlength 0\nkeep\nend\n"},
        {"an unknown status", BYTES("HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n"),
         "1.1 999 x\n  Content-Length: 0\nlength 0\nkeep\nend\n"},
        {"no header", BYTES("HTTP/1.1 200 OK\r\n\r\nall the rest"),
         "1.1 200 OK\nlength ?\n> all the rest\nclosed\nend\n"},
        {"until the end, and nothing comes", BYTES("HTTP/1.1 200 OK\r\n\r\n"),
         "1.1 200 OK\nlength ?\nclosed\nend\n"},
        {"two on one connection",
         BYTES("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nA"
               "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nBC"),
         "1.1 200 OK\n  Content-Length: 1\nlength 1\n> A\nkeep\n"
         "1.1 201 Created\n  Content-Length: 2\nlength 2\n> BC\nkeep\nend\n"},
        {"a body of any bytes",
         BYTES("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\r\n\r\n\x00\xff"),
         "1.1 200 OK\n  Content-Length: 6\nlength 6\n> "
         "\\x0d\\x0a\\x0d\\x0a\\x00\\xff\nkeep\nend\n"},
        {"the longest length there is",
         BYTES("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n."),
         "1.1 200 OK\n  Content-Length: 9223372036854775807\nlength 9223372036854775807\n> .\n"
         "BAD the connection was closed in the middle of a message\n"},
        {"cut short", BYTES("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"),
         "1.1 200 OK\n  Content-Length: 5\nlength 5\n> hell\n"
         "BAD the connection was closed in the middle of a message\n"},
        {"nothing", BYTES(""), "end\n"},
    };
    (void)state;
    CHECK_CASES(response, cases);
}

static void the_values_of_headers_are_trimmed_and_otherwise_left_alone(void **state)
{
    static const message_case cases[] = {
        {"white space", BYTES("HTTP/1.1 204 x\r\nA:\r\nB: \r\nC: \t \r\nD:x\r\nE:  x y\t \r\n\r\n"),
         "1.1 204 x\n  A: \n  B: \n  C: \n  D: x\n  E: x y\nlength 0\nkeep\nend\n"},
        {"colons, quotes and bytes beyond ASCII",
         BYTES("HTTP/1.1 204 x\r\nA: b:c: \"d\\\"\"\r\nB: \xe2\x82\xac \xff~\r\n\r\n"),
         "1.1 204 x\n  A: b:c: \"d\\x5c\"\"\n  B: \\xe2\\x82\\xac \\xff~\nlength 0\nkeep\nend\n"},
        {"all that a name can have",
         BYTES("HTTP/1.1 204 x\r\n!#$%&'*+-.^_`|~09azAZ: 1\r\nContent_Length: 7\r\n\r\n"),
         "1.1 204 x\n  !#$%&'*+-.^_`|~09azAZ: 1\n  Content_Length: 7\nlength 0\nkeep\nend\n"},
        {"names as long as those that mean something",
         BYTES("HTTP/1.1 204 x\r\nHosts: 1\r\nHose: 2\r\nKeep-Alive: 3\r\nContent-Lengti: 4\r\n"
               "Transfer-Encodinh: 5\r\nTransfer~Encoding: 6\r\n\r\n"),
         "1.1 204 x\n  Hosts: 1\n  Hose: 2\n  Keep-Alive: 3\n  Content-Lengti: 4\n"
         "  Transfer-Encodinh: 5\n  Transfer~Encoding: 6\nlength 0\nkeep\nend\n"},
        {"a value of many blocks",
         BYTES("HTTP/1.1 204 x\r\nA-Name-That-Is-Longer-Than-A-Block: "
               "0123456789abcdef0123456789abcdef0123456789 \t abcdef\x80\x81 0123456789\r\n\r\n"),
         "1.1 204 x\n  A-Name-That-Is-Longer-Than-A-Block: "
         "0123456789abcdef0123456789abcdef0123456789 \\x09 abcdef\\x80\\x81 0123456789\n"
         "length 0\nkeep\nend\n"},
    };
    (void)state;
    CHECK_CASES(response, cases);
}

static void some_responses_have_no_body_whatever_they_announce(void **state)
{
    static const message_case always[] = {
        {"204 with a length", BYTES("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n"),
         "1.1 204 No\n  Content-Length: 5\nlength 5\nkeep\nend\n"},
        {"204 with chunks", BYTES("HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n"),
         "1.1 204 No\n  Transfer-Encoding: chunked\nlength 0\nkeep\nend\n"},
        {"304 and the next response",
         BYTES("HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n"
               "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
         "1.1 304 Same\n  Content-Length: 5\nlength 5\nkeep\n"
         "1.1 200 OK\n  Content-Length: 1\nlength 1\n> x\nkeep\nend\n"},
        {"304 without anything", BYTES("HTTP/1.1 304 Same\r\n\r\n"),
         "1.1 304 Same\nlength 0\nkeep\nend\n"},
    };
    static const message_case for_head[] = {
        {"a length", BYTES("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
         "1.1 200 OK\n  Content-Length: 5\nlength 5\nkeep\nend\n"},
        {"chunks", BYTES("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
         "1.1 200 OK\n  Transfer-Encoding: chunked\nlength 0\nkeep\nend\n"},
        {"neither", BYTES("HTTP/1.1 200 OK\r\n\r\n"), "1.1 200 OK\nlength 0\nkeep\nend\n"},
        {"after a response of class 1xx",
         BYTES("HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
         "1.1 200 OK\n  Content-Length: 5\nlength 5\nkeep\nend\n"},
    };
    (void)state;
    CHECK_CASES(response, always);
    CHECK_CASES(to_head, for_head);
}

static void that_a_response_has_no_body_is_said_for_one_response_only(void **state)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
                               "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
    char scratch[64];
    sbx_http1 h;
    sbx_http1_event event;
    size_t at = 0, used, bodies = 0;
    (void)state;
    sbx_http1_init(&h, SBX_HTTP1_RESPONSE, scratch, sizeof(scratch));
    sbx_http1_expect_no_body(&h, 1);
    while (sbx_http1_read(&h, text + at, sizeof(text) - 1 - at, &used, &event) == SBX_OK) {
        at += used;
        bodies += event.type == SBX_HTTP1_BODY;
    }
    assert_int_equal(bodies, 1);
    assert_true(sbx_http1_keep_alive(&h));
}

static void a_connection_is_free_only_between_two_messages(void **state)
{
    static const char *const parts[] = {"HTTP/1.1 103 Early\r\n\r\n", "H",
                                        "TTP/1.1 204 No\r\n\r\n"};
    char scratch[64];
    sbx_http1 h;
    sbx_http1_event event;
    size_t used;
    (void)state;
    sbx_http1_init(&h, SBX_HTTP1_RESPONSE, scratch, sizeof(scratch));
    assert_true(sbx_http1_keep_alive(&h));
    assert_int_equal(sbx_http1_read(&h, parts[0], strlen(parts[0]), &used, &event), SBX_AGAIN);
    assert_false(sbx_http1_keep_alive(&h));
    assert_int_equal(sbx_http1_read(&h, parts[1], strlen(parts[1]), &used, &event), SBX_AGAIN);
    assert_false(sbx_http1_keep_alive(&h));
    assert_int_equal(sbx_http1_read(&h, parts[2], strlen(parts[2]), &used, &event), SBX_OK);
    assert_int_equal(event.type, SBX_HTTP1_START);
    assert_int_equal(sbx_http1_read(&h, parts[2] + used, strlen(parts[2]) - used, &used, &event),
                     SBX_OK);
    assert_int_equal(event.type, SBX_HTTP1_HEAD_END);
    assert_false(sbx_http1_keep_alive(&h));
    /* The message is complete, so its end may still be asked for when the peer has closed. */
    assert_int_equal(sbx_http1_finish(&h, &event), SBX_OK);
    assert_int_equal(event.type, SBX_HTTP1_MESSAGE_END);
    assert_false(sbx_http1_keep_alive(&h));
    assert_int_equal(sbx_http1_finish(&h, &event), SBX_END);
    /* The beginning of another one is not its end. */
    sbx_http1_init(&h, SBX_HTTP1_RESPONSE, scratch, sizeof(scratch));
    assert_int_equal(sbx_http1_read(&h, parts[1], 1, &used, &event), SBX_AGAIN);
    assert_false(sbx_http1_keep_alive(&h));
    assert_int_equal(sbx_http1_finish(&h, &event), SBX_E_PROTOCOL);
}

static void responses_of_class_1xx_are_skipped(void **state)
{
    static const message_case cases[] = {
        {"100", BYTES("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
         "1.1 200 OK\n  Content-Length: 1\nlength 1\n> x\nkeep\nend\n"},
        {"103 with headers that mean nothing here",
         BYTES("HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nConnection: close\r\n"
               "Content-Length: 7\r\nTransfer-Encoding: gzip\r\n\r\n"
               "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
         "1.1 200 OK\n  Content-Length: 1\nlength 1\n> x\nkeep\nend\n"},
        {"two of them",
         BYTES("HTTP/1.1 102 P\r\nA: b\r\n\r\nHTTP/1.1 199\r\n\r\nHTTP/1.1 204 No\r\n\r\n"),
         "1.1 204 No\nlength 0\nkeep\nend\n"},
        {"and then nothing", BYTES("HTTP/1.1 100 Continue\r\n\r\n"),
         "BAD the connection was closed in the middle of a message\n"},
        {"a bad header in one", BYTES("HTTP/1.1 100 Continue\r\nA : b\r\n\r\n"),
         "BAD a header's name has a character that does not belong there\n"},
    };
    trace many = {NULL, 0, 0};
    int i;
    (void)state;
    CHECK_CASES(response, cases);
    for (i = 0; i < 16; i++)
        trace_add(&many, "HTTP/1.1 100 Continue\r\n\r\n");
    trace_add(&many, "HTTP/1.1 204 No\r\n\r\n");
    check(&response, many.text, many.len, "1.1 204 No\nlength 0\nkeep\nend\n", "16");
    many.len -= 19;
    trace_add(&many, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n");
    check(&response, many.text, many.len, "BIG too many responses of class 1xx\n", "17");
    trace_free(&many);
}

static void a_101_ends_with_its_head_and_leaves_the_rest_alone(void **state)
{
    static const message_case cases[] = {
        {"with bytes of the other protocol",
         BYTES("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nContent-Length: "
               "3\r\n\r\n\x81\x01xyz"),
         "1.1 101 Switching\n  Upgrade: websocket\n  Content-Length: 3\nlength 3\nclose\nrest 5\n"
         "end\n"},
        {"with chunks that are none",
         BYTES("HTTP/1.1 101 Switching\r\nTransfer-Encoding: chunked\r\n\r\n\r\n"),
         "1.1 101 Switching\n  Transfer-Encoding: chunked\nlength 0\nclose\nrest 2\nend\n"},
        {"after a 100", BYTES("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching\r\n\r\nabc"),
         "1.1 101 Switching\nlength 0\nclose\nrest 3\nend\n"},
        {"without any", BYTES("HTTP/1.1 101 Switching\r\n\r\n"),
         "1.1 101 Switching\nlength 0\nclose\nend\n"},
    };
    (void)state;
    CHECK_CASES(response, cases);
}

static void a_connection_stays_open_as_version_and_headers_say(void **state)
{
    static const message_case cases[] = {
        {"1.1 close", BYTES("HTTP/1.1 204 x\r\nConnection: close\r\n\r\nHTTP"),
         "1.1 204 x\n  Connection: close\nlength 0\nclose\nrest 4\nend\n"},
        {"1.1 close in a list", BYTES("HTTP/1.1 204 x\r\nConnection: a ,\tCLOSE\t, b\r\n\r\n"),
         "1.1 204 x\n  Connection: a ,\\x09CLOSE\\x09, b\nlength 0\nclose\nend\n"},
        {"1.1 close in a second header",
         BYTES("HTTP/1.1 204 x\r\nconnection: x\r\nconnection: close\r\n\r\n"),
         "1.1 204 x\n  connection: x\n  connection: close\nlength 0\nclose\nend\n"},
        {"1.1 close beside keep-alive",
         BYTES("HTTP/1.1 204 x\r\nConnection: keep-alive, close\r\n\r\n"),
         "1.1 204 x\n  Connection: keep-alive, close\nlength 0\nclose\nend\n"},
        {"1.1 words that only look so",
         BYTES("HTTP/1.1 204 x\r\nConnection: closed, xclose, clos, clo se\r\n"
               "Proxy-Connection: close\r\n\r\n"),
         "1.1 204 x\n  Connection: closed, xclose, clos, clo se\n  Proxy-Connection: close\n"
         "length 0\nkeep\nend\n"},
        {"1.1 with a body",
         BYTES("HTTP/1.1 200 x\r\nConnection: close\r\nContent-Length: 1\r\n\r\na"),
         "1.1 200 x\n  Connection: close\n  Content-Length: 1\nlength 1\n> a\nclose\nend\n"},
        {"1.1 with chunks",
         BYTES(
             "HTTP/1.1 200 x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
         "1.1 200 x\n  Connection: close\n  Transfer-Encoding: chunked\nlength ?\nclose\nend\n"},
        {"1.0", BYTES("HTTP/1.0 200 x\r\nContent-Length: 1\r\n\r\nab"),
         "1.0 200 x\n  Content-Length: 1\nlength 1\n> a\nclose\nrest 1\nend\n"},
        {"1.0 keep-alive",
         BYTES("HTTP/1.0 200 x\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n\r\na"),
         "1.0 200 x\n  Content-Length: 1\n  Connection: Keep-Alive\nlength 1\n> a\nkeep\nend\n"},
        {"1.0 keep-alive and close",
         BYTES("HTTP/1.0 204 x\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"),
         "1.0 204 x\n  Connection: keep-alive\n  Connection: close\nlength 0\nclose\nend\n"},
        {"1.0 keep-alive without a length",
         BYTES("HTTP/1.0 200 x\r\nConnection: keep-alive\r\n\r\nabc"),
         "1.0 200 x\n  Connection: keep-alive\nlength ?\n> abc\nclosed\nend\n"},
    };
    (void)state;
    CHECK_CASES(response, cases);
}

/* ---- chunks ---- */

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#define CHUNKED_HEAD "1.1 200 OK\n  Transfer-Encoding: chunked\nlength ?\n"

static void chunks_are_put_together(void **state)
{
    static const message_case cases[] = {
        {"none", BYTES(CHUNKED "0\r\n\r\n"), CHUNKED_HEAD "keep\nend\n"},
        {"two", BYTES(CHUNKED "5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n"),
         CHUNKED_HEAD "> hello, world\nkeep\nend\n"},
        {"whatever the case",
         BYTES("HTTP/1.1 200 OK\r\ntransfer-encoding:\tCHUNKED\r\n\r\n"
               "0a\r\n0123456789\r\nB\r\n0123456789A\r\n000\r\n\r\n"),
         "1.1 200 OK\n  transfer-encoding: CHUNKED\nlength ?\n> "
         "01234567890123456789A\nkeep\nend\n"},
        {"zeros before a size",
         BYTES(CHUNKED "00000000000000000000000000000003\r\nabc\r\n0\r\n\r\n"),
         CHUNKED_HEAD "> abc\nkeep\nend\n"},
        {"content that looks like chunks", BYTES(CHUNKED "7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n"),
         CHUNKED_HEAD "> 0\\x0d\\x0a\\x0d\\x0a\\x0d\\x0a\nkeep\nend\n"},
        {"extensions",
         BYTES(CHUNKED "1;a\r\nA\r\n1;a=b;c=\"d ;\\\"\xc3\xa4\"\r\nB\r\n1 ; a = b\r\nC\r\n"
                       "1 \t\r\nD\r\n1;\r\nE\r\n0;last\r\n\r\n"),
         CHUNKED_HEAD "> ABCDE\nkeep\nend\n"},
        {"trailers", BYTES(CHUNKED "1\r\nA\r\n0\r\nX-Sum: 1\r\nx-sum:  2 \r\n\r\n"),
         CHUNKED_HEAD "> A\n+ X-Sum: 1\n+ x-sum: 2\nkeep\nend\n"},
        {"trailers that would frame a message",
         BYTES(CHUNKED "0\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nConnection: close\r\n\r\n"
                       "HTTP/1.1 204 No\r\n\r\n"),
         CHUNKED_HEAD "+ Content-Length: 5\n+ Transfer-Encoding: x\n+ Connection: close\nkeep\n"
                      "1.1 204 No\nlength 0\nkeep\nend\n"},
        {"the longest chunk there is", BYTES(CHUNKED "7fffffffffffffff\r\nA"),
         CHUNKED_HEAD "> A\nBAD the connection was closed in the middle of a message\n"},
    };
    (void)state;
    CHECK_CASES(response, cases);
}

static void chunks_that_are_not_as_they_should_be_are_refused(void **state)
{
#define NO_SIZE "BAD a chunk does not start with its size\n"
#define NO_NUMBER "BAD the size of a chunk is not a hexadecimal number\n"
#define TOO_LARGE "BAD the size of a chunk is too large\n"
#define NOT_SO_LONG "BAD a chunk is not as long as its size says\n"
#define BAD_EXTENSION "BAD a chunk's extension has a control character\n"
#define NO_CRLF "BAD a line does not end in CR LF\n"
#define CUT_SHORT "BAD the connection was closed in the middle of a message\n"
    static const message_case cases[] = {
        {"no size", BYTES(CHUNKED "\r\nA\r\n"), CHUNKED_HEAD NO_SIZE},
        {"a sign", BYTES(CHUNKED "+1\r\nA\r\n"), CHUNKED_HEAD NO_SIZE},
        {"a minus", BYTES(CHUNKED "-1\r\nA\r\n"), CHUNKED_HEAD NO_SIZE},
        {"a space before", BYTES(CHUNKED " 1\r\nA\r\n"), CHUNKED_HEAD NO_SIZE},
        {"an extension alone", BYTES(CHUNKED ";a\r\nA\r\n"), CHUNKED_HEAD NO_SIZE},
        {"a prefix", BYTES(CHUNKED "0x1\r\nA\r\n"), CHUNKED_HEAD NO_NUMBER},
        {"a letter", BYTES(CHUNKED "1g\r\nA\r\n"), CHUNKED_HEAD NO_NUMBER},
        {"two sizes", BYTES(CHUNKED "1 1\r\nA\r\n"), CHUNKED_HEAD NO_NUMBER},
        {"a comma", BYTES(CHUNKED "1,1\r\nA\r\n"), CHUNKED_HEAD NO_NUMBER},
        {"a NUL", BYTES(CHUNKED "1\x00\r\nA\r\n"), CHUNKED_HEAD NO_NUMBER},
        {"2 to the 63", BYTES(CHUNKED "8000000000000000\r\nA\r\n"), CHUNKED_HEAD TOO_LARGE},
        {"2 to the 64", BYTES(CHUNKED "10000000000000000\r\nA\r\n"), CHUNKED_HEAD TOO_LARGE},
        {"2 to the 64 and 1", BYTES(CHUNKED "10000000000000001\r\nA\r\n"), CHUNKED_HEAD TOO_LARGE},
        {"a control character", BYTES(CHUNKED "1;a=\x01\r\nA\r\n"), CHUNKED_HEAD BAD_EXTENSION},
        {"a CR in an extension", BYTES(CHUNKED "1;a\rb\r\nA\r\n"), CHUNKED_HEAD BAD_EXTENSION},
        {"a LF behind the size", BYTES(CHUNKED "1\nA\r\n0\r\n\r\n"), CHUNKED_HEAD NO_CRLF},
        {"a LF in an extension", BYTES(CHUNKED "1;\nA\r\n0\r\n\r\n"), CHUNKED_HEAD NO_CRLF},
        {"a LF behind the chunk", BYTES(CHUNKED "1\r\nA\n0\r\n\r\n"),
         CHUNKED_HEAD "> A\n" NOT_SO_LONG},
        {"a CR behind the chunk", BYTES(CHUNKED "1\r\nA\r0\r\n\r\n"),
         CHUNKED_HEAD "> A\n" NOT_SO_LONG},
        {"a chunk that is longer", BYTES(CHUNKED "1\r\nAB\r\n"), CHUNKED_HEAD "> A\n" NOT_SO_LONG},
        {"a chunk that is shorter", BYTES(CHUNKED "2\r\nA\r\n0\r\n\r\n"),
         CHUNKED_HEAD "> A\\x0d\n" NOT_SO_LONG},
        {"a LF for the last line", BYTES(CHUNKED "0\r\n\n"), CHUNKED_HEAD NO_CRLF},
        {"no last chunk", BYTES(CHUNKED "1\r\nA\r\n"), CHUNKED_HEAD "> A\n" CUT_SHORT},
        {"no last line", BYTES(CHUNKED "0\r\n"), CHUNKED_HEAD CUT_SHORT},
        {"a folded trailer", BYTES(CHUNKED "0\r\nA: b\r\n c\r\n\r\n"),
         CHUNKED_HEAD "+ A: b\nBAD a header goes on in the next line\n"},
        {"a bad trailer", BYTES(CHUNKED "0\r\nA b\r\n\r\n"),
         CHUNKED_HEAD "BAD a header's name has a character that does not belong there\n"},
    };
    (void)state;
    CHECK_CASES(response, cases);
}

static void chunks_may_be_single_bytes_but_not_mostly_overhead(void **state)
{
    trace wire = {NULL, 0, 0}, expected = {NULL, 0, 0};
    feed f = {NULL, 0, 0, 0, 0, {NULL, 0}};
    reading r = response;
    int i;
    (void)state;
    trace_add(&wire, CHUNKED);
    trace_add(&expected, CHUNKED_HEAD "> ");
    for (i = 0; i < 30000; i++) {
        trace_add(&wire, "1\r\n.\r\n");
        trace_add(&expected, ".");
    }
    trace_add(&wire, "0\r\n\r\n");
    trace_add(&expected, "\nkeep\nend\n");
    f.bytes = wire.text;
    f.len = wire.len;
    feed_once(&f, 0, 997, read_messages, &r, expected.text, "single bytes");
    /* Each is 98 bytes over, and after 668 of them 64 KiB are used up. */
    wire.len = expected.len = 0;
    trace_add(&wire, CHUNKED);
    trace_add(&expected, CHUNKED_HEAD "> ");
    for (i = 0; i < 1000; i++) {
        trace_add(&wire, "1;%0100d\r\n.\r\n", i);
        if (i < 668)
            trace_add(&expected, ".");
    }
    trace_add(&expected, "\nBIG the chunks have more overhead than content\n");
    f.bytes = wire.text;
    f.len = wire.len;
    feed_once(&f, 0, (size_t)-1, read_messages, &r, expected.text, "long extensions");
    feed_once(&f, 0, 1, read_messages, &r, expected.text, "long extensions");
    trace_free(&wire);
    trace_free(&expected);
    guard_free(&f.memory);
}

/* ---- what is refused in a head ---- */

#define OTHER "BAD the peer does not answer in HTTP/1.0 or HTTP/1.1\n"
#define BAD_NAME "BAD a header's name has a character that does not belong there\n"
#define BAD_VALUE "BAD a header's value has a control character\n"
#define OK_LINE "HTTP/1.1 200 OK\r\n"
#define OK_START "1.1 200 OK\n"

static void a_start_line_that_is_none_is_refused(void **state)
{
    static const message_case cases[] = {
        {"1.2", BYTES("HTTP/1.2 200 OK\r\n\r\n"), OTHER},
        {"2.0", BYTES("HTTP/2.0 200 OK\r\n\r\n"), OTHER},
        {"0.9", BYTES("HTTP/0.9 200 OK\r\n\r\n"), OTHER},
        {"1.10", BYTES("HTTP/1.10 200 OK\r\n\r\n"), OTHER},
        {"small letters", BYTES("http/1.1 200 OK\r\n\r\n"), OTHER},
        {"an empty line first", BYTES("\r\nHTTP/1.1 200 OK\r\n\r\n"), OTHER},
        {"a space first", BYTES(" HTTP/1.1 200 OK\r\n\r\n"), OTHER},
        {"two spaces", BYTES("HTTP/1.1  200 OK\r\n\r\n"), OTHER},
        {"a tab", BYTES("HTTP/1.1\t200 OK\r\n\r\n"), OTHER},
        {"a short status", BYTES("HTTP/1.1 20 OK\r\n\r\n"), OTHER},
        {"no status", BYTES("HTTP/1.1\r\n\r\n"), OTHER},
        {"a status below 100", BYTES("HTTP/1.1 099 OK\r\n\r\n"), OTHER},
        {"a signed status", BYTES("HTTP/1.1 +20 OK\r\n\r\n"), OTHER},
        {"a long status", BYTES("HTTP/1.1 2000 OK\r\n\r\n"),
         "BAD the status is not a number of three digits\n"},
        {"a status and a letter", BYTES("HTTP/1.1 200OK\r\n\r\n"),
         "BAD the status is not a number of three digits\n"},
        {"a NUL in the reason", BYTES("HTTP/1.1 200 O\x00K\r\n\r\n"),
         "BAD the reason phrase has a control character\n"},
        {"a CR in the reason", BYTES("HTTP/1.1 200 O\rK\r\n\r\n"),
         "BAD the reason phrase has a control character\n"},
        {"a bare LF", BYTES("HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"), NO_CRLF},
        {"a request", BYTES("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), OTHER},
        {"half a line", BYTES("HTTP/1.1 200 O"), CUT_SHORT},
    };
    (void)state;
    CHECK_CASES(response, cases);
}

static void headers_that_could_be_read_in_two_ways_are_refused(void **state)
{
    static const message_case cases[] = {
        {"folding", BYTES(OK_LINE "A: b\r\n c\r\n\r\n"),
         OK_START "  A: b\nBAD a header goes on in the next line\n"},
        {"folding by a tab", BYTES(OK_LINE "A: b\r\n\tc: d\r\n\r\n"),
         OK_START "  A: b\nBAD a header goes on in the next line\n"},
        {"folding of the start line", BYTES(OK_LINE " A: b\r\n\r\n"),
         OK_START "BAD a header goes on in the next line\n"},
        {"a space before the colon", BYTES(OK_LINE "Content-Length : 5\r\n\r\n"),
         OK_START BAD_NAME},
        {"a tab before the colon", BYTES(OK_LINE "A\t: b and much more text\r\n\r\n"),
         OK_START BAD_NAME},
        {"a space in a name", BYTES(OK_LINE "A B: c\r\n\r\n"), OK_START BAD_NAME},
        {"no name", BYTES(OK_LINE ": b and much more text\r\n\r\n"),
         OK_START "BAD a header has no name\n"},
        {"no colon", BYTES(OK_LINE "Content-Length\r\n\r\n"), OK_START BAD_NAME},
        {"a byte beyond ASCII in a name", BYTES(OK_LINE "A\xc3\xa4: b\r\n\r\n"), OK_START BAD_NAME},
        {"a NUL in a name", BYTES(OK_LINE "A\x00: b\r\n\r\n"), OK_START BAD_NAME},
        {"parentheses in a name", BYTES(OK_LINE "A(b): c\r\n\r\n"), OK_START BAD_NAME},
        {"a slash in a name", BYTES(OK_LINE "A/b: c\r\n\r\n"), OK_START BAD_NAME},
        {"an at sign in a name", BYTES(OK_LINE "Content-Length@: 5 and more text\r\n\r\n"),
         OK_START BAD_NAME},
        {"a bracket in a name", BYTES(OK_LINE "Content-Length[: 5 and more text\r\n\r\n"),
         OK_START BAD_NAME},
        {"a brace in a name", BYTES(OK_LINE "Content-Length{: 5 and more text\r\n\r\n"),
         OK_START BAD_NAME},
        {"a bare CR in a name", BYTES(OK_LINE "A\rB: c\r\n\r\n"), OK_START BAD_NAME},
        {"a bare CR in a value", BYTES(OK_LINE "A: b\rContent-Length: 5\r\n\r\n"),
         OK_START BAD_VALUE},
        {"two CRs at the end", BYTES(OK_LINE "A: b and much more text\r\r\n\r\n"),
         OK_START BAD_VALUE},
        {"a NUL in a value",
         BYTES(OK_LINE "A: b\x00"
                       "c and much more text\r\n\r\n"),
         OK_START BAD_VALUE},
        {"a DEL in a value",
         BYTES(OK_LINE "A: b\x7f"
                       "c and much more text\r\n\r\n"),
         OK_START BAD_VALUE},
        {"a vertical tab in a value",
         BYTES(OK_LINE "A: b\x0b"
                       "c\r\n\r\n"),
         OK_START BAD_VALUE},
        {"an escape in a value", BYTES(OK_LINE "A: \x1b[1m and much more text\r\n\r\n"),
         OK_START BAD_VALUE},
        {"a bare LF", BYTES(OK_LINE "A: b and much more text\nC: d\r\n\r\n"), OK_START NO_CRLF},
        {"a bare LF for the empty line", BYTES(OK_LINE "A: b\r\n\nxyz"),
         OK_START "  A: b\n" NO_CRLF},
        {"a bare CR for the empty line", BYTES(OK_LINE "A: b\r\n\rxyz\r\n"),
         OK_START "  A: b\n" BAD_NAME},
        {"LFs all over", BYTES("HTTP/1.1 200 OK\nA: b\n\nxyz"), NO_CRLF},
    };
    (void)state;
    CHECK_CASES(response, cases);
}

static void every_control_character_but_the_tab_is_refused_in_a_value(void **state)
{
    char text[] = OK_LINE "Name: 0123456789abcdef.0123456789abcdef\r\nContent-Length: 0\r\n\r\n";
    const size_t at = sizeof(OK_LINE) - 1 + 22;
    int byte;
    (void)state;
    for (byte = 0; byte < 256; byte++) {
        trace expected = {NULL, 0, 0};
        feed f = {text, sizeof(text) - 1, 0, 0, 0, {NULL, 0}};
        reading r = response;
        char c = (char)byte;
        text[at] = c;
        if ((byte < 0x20 && byte != '\t') || byte == 0x7f) {
            trace_add(&expected, OK_START "%s", byte == '\n' ? NO_CRLF : BAD_VALUE);
        } else {
            trace_add(&expected, OK_START "  Name: 0123456789abcdef");
            trace_quoted(&expected, &c, 1);
            trace_add(&expected, "0123456789abcdef\n  Content-Length: 0\nlength 0\nkeep\nend\n");
        }
        feed_once(&f, 0, (size_t)-1, read_messages, &r, expected.text, "a byte in a value");
        feed_once(&f, 0, 1, read_messages, &r, expected.text, "a byte in a value");
        trace_free(&expected);
        guard_free(&f.memory);
    }
}

static void only_the_characters_of_a_token_are_taken_in_a_name(void **state)
{
    char text[] = OK_LINE "X-Abc.Def-Ghi-Jkl-Mno-Pqr: 1\r\nContent-Length: 0\r\n\r\n";
    const size_t at = sizeof(OK_LINE) - 1 + 5;
    int byte;
    (void)state;
    for (byte = 0; byte < 256; byte++) {
        trace expected = {NULL, 0, 0};
        feed f = {text, sizeof(text) - 1, 0, 0, 0, {NULL, 0}};
        reading r = response;
        text[at] = (char)byte;
        if ((byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
            (byte >= 'a' && byte <= 'z') || (byte && strchr("!#$%&'*+-.^_`|~", byte)))
            trace_add(&expected,
                      OK_START "  X-Abc%cDef-Ghi-Jkl-Mno-Pqr: 1\n  Content-Length: 0\nlength 0\n"
                               "keep\nend\n",
                      byte);
        else if (byte == ':')
            trace_add(&expected, OK_START "  X-Abc: Def-Ghi-Jkl-Mno-Pqr: 1\n"
                                          "  Content-Length: 0\nlength 0\nkeep\nend\n");
        else
            trace_add(&expected, OK_START "%s", byte == '\n' ? NO_CRLF : BAD_NAME);
        feed_once(&f, 0, (size_t)-1, read_messages, &r, expected.text, "a byte in a name");
        feed_once(&f, 0, 1, read_messages, &r, expected.text, "a byte in a name");
        trace_free(&expected);
        guard_free(&f.memory);
    }
}

static void lengths_that_are_not_one_number_are_refused(void **state)
{
#define NOT_ONE "BAD there is more than one Content-Length\n"
#define NOT_A_NUMBER "BAD the Content-Length is not a number\n"
#define BESIDES "BAD there is a Content-Length besides chunks\n"
#define NOT_CHUNKED "BAD the Transfer-Encoding is not chunked\n"
#define LENGTH(value) BYTES(OK_LINE "Content-Length:" value "\r\n\r\n12345"), OK_START NOT_A_NUMBER
#define CODING(value)                                                                              \
    BYTES(OK_LINE "Transfer-Encoding:" value "\r\n\r\n0\r\n\r\n"), OK_START NOT_CHUNKED
    static const message_case cases[] = {
        {"two", BYTES(OK_LINE "Content-Length: 5\r\nContent-Length: 6\r\n\r\n"),
         OK_START "  Content-Length: 5\n" NOT_ONE},
        {"two that agree", BYTES(OK_LINE "Content-Length: 5\r\ncontent-length: 5\r\n\r\n"),
         OK_START "  Content-Length: 5\n" NOT_ONE},
        {"two of them 0", BYTES(OK_LINE "Content-Length: 0\r\ncontent-length: 0\r\n\r\n"),
         OK_START "  Content-Length: 0\n" NOT_ONE},
        {"a list", LENGTH(" 5, 5")},
        {"a list with different ones", LENGTH(" 5,6")},
        {"a list with nothing", LENGTH(" 5,")},
        {"empty", LENGTH("")},
        {"a sign", LENGTH(" +5")},
        {"negative", LENGTH(" -5")},
        {"hexadecimal", LENGTH(" 0x5")},
        {"a fraction", LENGTH(" 5.0")},
        {"an exponent", LENGTH(" 1e1")},
        {"quotes", LENGTH(" \"5\"")},
        {"a space inside", LENGTH(" 5 5")},
        {"a unit", LENGTH(" 5 bytes")},
        {"other digits", LENGTH(" \xd9\xa5")},
        {"2 to the 63", LENGTH(" 9223372036854775808")},
        {"2 to the 64 and 5", LENGTH(" 18446744073709551621")},
        {"very many digits", LENGTH(" 100000000000000000000000000000000000000000")},
        {"a length, then chunks",
         BYTES(OK_LINE "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
         OK_START "  Content-Length: 5\n" BESIDES},
        {"chunks, then a length",
         BYTES(OK_LINE "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"),
         OK_START "  Transfer-Encoding: chunked\n" BESIDES},
        {"chunks and a length of 0",
         BYTES(OK_LINE "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"),
         OK_START "  Transfer-Encoding: chunked\n" BESIDES},
        {"another coding", CODING(" gzip")},
        {"another coding first", CODING(" gzip, chunked")},
        {"chunked first", CODING(" chunked, gzip")},
        {"chunked twice", CODING(" chunked, chunked")},
        {"a list of one", CODING(" chunked,")},
        {"no coding", CODING("")},
        {"identity", CODING(" identity")},
        {"a parameter", CODING(" chunked;q=1")},
        {"quotes", CODING(" \"chunked\"")},
        {"a word that begins so", CODING(" chunkedx")},
        {"a word that ends so", CODING(" xchunked")},
        {"half the word", CODING(" chunke")},
        {"a vertical tab before",
         BYTES(OK_LINE "Transfer-Encoding: \x0b"
                       "chunked\r\n\r\n"),
         OK_START BAD_VALUE},
        {"two headers",
         BYTES(OK_LINE "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
         OK_START "  Transfer-Encoding: chunked\nBAD there is more than one Transfer-Encoding\n"},
        {"chunks in 1.0", BYTES("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
         "1.0 200 OK\nBAD there is a Transfer-Encoding in HTTP/1.0\n"},
    };
    static const message_case no_body[] = {
        {"both, for HEAD", BYTES(OK_LINE "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
         OK_START "  Content-Length: 5\n" BESIDES},
        {"two, for HEAD", BYTES(OK_LINE "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"),
         OK_START "  Content-Length: 5\n" NOT_ONE},
    };
    (void)state;
    CHECK_CASES(response, cases);
    CHECK_CASES(to_head, no_body);
}

static void a_peer_that_speaks_something_else_is_found_out_at_once(void **state)
{
    static const struct {
        int role;
        const char *bytes;
        size_t len, taken; /* as many bytes may come before it is found out */
    } cases[] = {
        {SBX_HTTP1_RESPONSE, BYTES("SSH-2.0-OpenSSH_9.2"), 0},
        {SBX_HTTP1_RESPONSE, BYTES("\x15\x03\x01\x00\x02\x02\x46"), 0},
        {SBX_HTTP1_RESPONSE, BYTES("<html>"), 0},
        {SBX_HTTP1_RESPONSE, BYTES("HELO"), 1},
        {SBX_HTTP1_RESPONSE, BYTES("HTTP/2 200"), 5},
        {SBX_HTTP1_RESPONSE, BYTES("HTTP/1.1 OK"), 9},
        {SBX_HTTP1_RESPONSE, BYTES("\0"), 0},
        {SBX_HTTP1_REQUEST, BYTES("\x16\x03\x01\x02\x00\x01\x00"), 0},
        {SBX_HTTP1_REQUEST, BYTES("\x80\x80"), 0},
        {SBX_HTTP1_REQUEST, BYTES("\n"), 0},
        {SBX_HTTP1_REQUEST, BYTES(" GET / HTTP/1.1"), 0},
        {SBX_HTTP1_REQUEST, BYTES("\rGET"), 1},
        {SBX_HTTP1_REQUEST, BYTES("GE:T / HTTP/1.1"), 2},
    };
    size_t i, at, used;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char scratch[64];
        sbx_http1 h;
        sbx_http1_event event;
        sbx_http1_init(&h, cases[i].role, scratch, sizeof(scratch));
        assert_int_equal(sbx_http1_read(&h, cases[i].bytes, cases[i].len, &used, &event),
                         SBX_E_PROTOCOL);
        sbx_http1_init(&h, cases[i].role, scratch, sizeof(scratch));
        for (at = 0; at < cases[i].taken; at++)
            assert_int_equal(sbx_http1_read(&h, cases[i].bytes + at, 1, &used, &event), SBX_AGAIN);
        assert_int_equal(sbx_http1_read(&h, cases[i].bytes + at, 1, &used, &event), SBX_E_PROTOCOL);
    }
}

/* ---- limits ---- */

static void lines_longer_than_scratch_are_refused(void **state)
{
    static const reading small = {SBX_HTTP1_RESPONSE, 0, 32};
    static const message_case cases[] = {
        {"lines that just fit in",
         BYTES(
             "HTTP/1.1 200 0123456789abcdef.\r\nName: 0123456789abcdef012345..\r\n"
             "Transfer-Encoding: chunked\r\n\r\n"
             "1;123456789abcdef0123456789abc\r\n.\r\n0\r\nName: 0123456789abcdef012345..\r\n\r\n"),
         "1.1 200 0123456789abcdef.\n  Name: 0123456789abcdef012345..\n"
         "  Transfer-Encoding: chunked\nlength ?\n> .\n+ Name: "
         "0123456789abcdef012345..\nkeep\nend\n"},
        {"a start line", BYTES("HTTP/1.1 200 0123456789abcdef.01\r\n\r\n"),
         "BIG a line of the head or of a chunk is too long\n"},
        {"a start line by its LF", BYTES("HTTP/1.1 200 0123456789abcdef.0\r\n\r\n"),
         "BIG a line of the head or of a chunk is too long\n"},
        {"a header", BYTES("HTTP/1.1 200\r\nName: 0123456789abcdef012345..0\r\n\r\n"),
         "1.1 200 \nBIG a line of the head or of a chunk is too long\n"},
        {"a header that is bad too",
         BYTES("HTTP/1.1 200\r\nNa me: 0123456789abcdef01234567\r\n\r\n"),
         "1.1 200 \nBIG a line of the head or of a chunk is too long\n"},
        {"a chunk's extension",
         BYTES("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n"
               "1;123456789abcdef0123456789abcd\r\n.\r\n"),
         "1.1 200 \n  Transfer-Encoding: chunked\nlength ?\n"
         "BIG a line of the head or of a chunk is too long\n"},
        {"a trailer",
         BYTES("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
               "Name: 0123456789abcdef012345..0\r\n\r\n"),
         "1.1 200 \n  Transfer-Encoding: chunked\nlength ?\n"
         "BIG a line of the head or of a chunk is too long\n"},
        {"no line's end at all", BYTES("HTTP/1.1 200 no end to be seen, nowhere"),
         "BIG a line of the head or of a chunk is too long\n"},
    };
    static const reading none = {SBX_HTTP1_RESPONSE, 0, 0};
    (void)state;
    CHECK_CASES(small, cases);
    check(&none, BYTES("H"), "BIG a line of the head or of a chunk is too long\n", "no scratch");
}

static void heads_and_trailers_have_limits(void **state)
{
    static const char *const starts[] = {OK_LINE, CHUNKED "0\r\n"};
    static const char *const starts_read[] = {OK_START, CHUNKED_HEAD};
    static const char marks[] = " +";
    reading r = response;
    int which, i, count;
    (void)state;
    for (which = 0; which < 2; which++) {
        for (count = 128; count <= 129; count++) {
            trace wire = {NULL, 0, 0}, expected = {NULL, 0, 0};
            feed f = {NULL, 0, 0, 0, 0, {NULL, 0}};
            trace_add(&wire, "%s", starts[which]);
            trace_add(&expected, "%s", starts_read[which]);
            for (i = 0; i < count; i++)
                trace_add(&wire, "A: b\r\n");
            for (i = 0; i < 128; i++)
                trace_add(&expected, "%c A: b\n", marks[which]);
            trace_add(&wire, "\r\n");
            if (count == 129)
                trace_add(&expected, "BIG there are too many headers\n");
            else
                trace_add(&expected, which == 0 ? "length ?\nclosed\nend\n" : "keep\nend\n");
            f.bytes = wire.text;
            f.len = wire.len;
            feed_once(&f, 0, (size_t)-1, read_messages, &r, expected.text, "many headers");
            feed_once(&f, 0, 1, read_messages, &r, expected.text, "many headers");
            trace_free(&wire);
            trace_free(&expected);
            guard_free(&f.memory);
        }
    }
}

static void a_head_is_64_kib_long_at_most(void **state)
{
    int over;
    (void)state;
    for (over = 0; over < 2; over++) {
        trace wire = {NULL, 0, 0}, expected = {NULL, 0, 0};
        feed f = {NULL, 0, 0, 0, 0, {NULL, 0}};
        reading r = response;
        size_t left = SBX_HTTP1_HEAD_MAX - (sizeof(OK_LINE) - 1);
        trace_add(&wire, OK_LINE);
        trace_add(&expected, OK_START);
        for (; left > 1023; left -= 1000) {
            trace_add(&wire, "A: %0995d\r\n", 7);
            trace_add(&expected, "  A: %0995d\n", 7);
        }
        trace_add(&wire, "A: %0*d\r\n", (int)left - 5 + over, 7);
        if (over)
            trace_add(&expected, "BIG the head of a message is too long\n");
        else
            trace_add(&expected, "  A: %0*d\nlength ?\nclosed\nend\n", (int)left - 5, 7);
        trace_add(&wire, "\r\n");
        f.bytes = wire.text;
        f.len = wire.len;
        feed_once(&f, 0, (size_t)-1, read_messages, &r, expected.text, "a long head");
        feed_once(&f, 0, 1, read_messages, &r, expected.text, "a long head");
        trace_free(&wire);
        trace_free(&expected);
        guard_free(&f.memory);
    }
}

/* ---- requests ---- */

static void a_request_is_read_with_its_head_and_body(void **state)
{
    static const message_case cases[] = {
        {"no body", BYTES("GET /a?b=c HTTP/1.1\r\nHost: localhost:8080\r\n\r\n"),
         "GET /a?b=c 1.1\n  Host: localhost:8080\nlength 0\nkeep\nend\n"},
        {"a length", BYTES("POST / HTTP/1.1\r\nhost: x\r\nContent-Length: 3\r\n\r\nabc"),
         "POST / 1.1\n  host: x\n  Content-Length: 3\nlength 3\n> abc\nkeep\nend\n"},
        {"a length of 0", BYTES("POST / HTTP/1.1\r\nHOST: x\r\nContent-Length: 0\r\n\r\n"),
         "POST / 1.1\n  HOST: x\n  Content-Length: 0\nlength 0\nkeep\nend\n"},
        {"chunks and a trailer",
         BYTES("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
               "3\r\nabc\r\n0\r\nA: b\r\n\r\n"),
         "PUT / 1.1\n  Host: x\n  Transfer-Encoding: chunked\nlength ?\n> abc\n+ A: "
         "b\nkeep\nend\n"},
        {"other targets",
         BYTES("GET http://x/%20!$&'()*+,;=:@~ HTTP/1.1\r\nHost: x\r\n\r\n"
               "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\nCONNECT [::1]:443 HTTP/1.1\r\nHost: "
               "[::1]\r\n\r\n"),
         "GET http://x/%20!$&'()*+,;=:@~ 1.1\n  Host: x\nlength 0\nkeep\n"
         "OPTIONS * 1.1\n  Host: x\nlength 0\nkeep\n"
         "CONNECT [::1]:443 1.1\n  Host: [::1]\nlength 0\nkeep\nend\n"},
        {"an unusual method", BYTES("A-very-long-method!#$ / HTTP/1.1\r\nHost:\r\n\r\n"),
         "A-very-long-method!#$ / 1.1\n  Host: \nlength 0\nkeep\nend\n"},
        {"1.0 without a Host", BYTES("GET / HTTP/1.0\r\n\r\n"),
         "GET / 1.0\nlength 0\nclose\nend\n"},
        {"1.0 keep-alive", BYTES("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
         "GET / 1.0\n  Connection: keep-alive\nlength 0\nkeep\nend\n"},
        {"the last one", BYTES("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /"),
         "GET / 1.1\n  Host: x\n  Connection: close\nlength 0\nclose\nrest 5\nend\n"},
        {"two empty lines before each",
         BYTES(
             "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: y\r\n\r\n"),
         "GET / 1.1\n  Host: x\nlength 0\nkeep\nGET / 1.1\n  Host: y\nlength 0\nkeep\nend\n"},
        {"an empty line and nothing", BYTES("\r\n"), "end\n"},
        {"an upgrade",
         BYTES("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
               "Upgrade: websocket\r\n\r\n"),
         "GET / 1.1\n  Host: x\n  Connection: Upgrade\n  Upgrade: websocket\nlength "
         "0\nkeep\nend\n"},
    };
    (void)state;
    CHECK_CASES(request, cases);
}

static void requests_that_could_be_read_in_two_ways_are_refused(void **state)
{
#define NO_REQUEST "BAD this is not an HTTP/1 request\n"
#define NO_VERSION "BAD a request line does not end in HTTP/1.0 or HTTP/1.1\n"
#define BAD_TARGET "BAD the target has a character that must be percent-encoded\n"
#define BAD_HOST "BAD the Host has a character that does not belong there\n"
    static const message_case cases[] = {
        {"three empty lines", BYTES("\r\n\r\n\r\nGET / HTTP/1.1\r\n"), NO_REQUEST},
        {"a bare LF first", BYTES("\nGET / HTTP/1.1\r\n"), NO_REQUEST},
        {"no method", BYTES(" / HTTP/1.1\r\n"), NO_REQUEST},
        {"a bad method", BYTES("G(T / HTTP/1.1\r\n"), NO_REQUEST},
        {"a bad method further on", BYTES("ABCDEFGHIJKLMNO@ / HTTP/1.1\r\n"),
         "BAD the method has a character that does not belong there\n"},
        {"a method alone", BYTES("GET\r\n"), NO_REQUEST},
        {"no target", BYTES("GET HTTP/1.1\r\n"), NO_VERSION},
        {"an empty target", BYTES("GET  HTTP/1.1\r\n"), NO_VERSION},
        {"two spaces before the target", BYTES("GET  / HTTP/1.1\r\n"), BAD_TARGET},
        {"two spaces behind the target", BYTES("GET /  HTTP/1.1\r\n"), BAD_TARGET},
        {"a space in the target", BYTES("GET /a b HTTP/1.1\r\n"), BAD_TARGET},
        {"a tab in the target", BYTES("GET /\ta HTTP/1.1\r\n"), BAD_TARGET},
        {"a NUL in the target", BYTES("GET /\x00 HTTP/1.1\r\n"), BAD_TARGET},
        {"a CR in the target", BYTES("GET /\r HTTP/1.1\r\n"), BAD_TARGET},
        {"a DEL in the target", BYTES("GET /\x7f HTTP/1.1\r\n"), BAD_TARGET},
        {"a byte beyond ASCII in the target", BYTES("GET /\xc3\xa4 HTTP/1.1\r\n"), BAD_TARGET},
        {"no version", BYTES("GET /\r\n"), NO_VERSION},
        {"1.2", BYTES("GET / HTTP/1.2\r\n"), NO_VERSION},
        {"2.0", BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), NO_VERSION},
        {"1.01", BYTES("GET / HTTP/1.01\r\n"), NO_VERSION},
        {"small letters", BYTES("GET / http/1.1\r\n"), NO_VERSION},
        {"a space at the end", BYTES("GET / HTTP/1.1 \r\n"), NO_VERSION},
        {"a tab between", BYTES("GET /\tHTTP/1.1\r\n"), NO_VERSION},
        {"a bare LF", BYTES("GET / HTTP/1.1\nHost: x\r\n\r\n"), NO_CRLF},
        {"no Host", BYTES("GET / HTTP/1.1\r\nA: b\r\n\r\n"),
         "GET / 1.1\n  A: b\nBAD there is no Host\n"},
        {"no header", BYTES("GET / HTTP/1.1\r\n\r\n"), "GET / 1.1\nBAD there is no Host\n"},
        {"two Hosts", BYTES("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"),
         "GET / 1.1\n  Host: x\nBAD there is more than one Host\n"},
        {"two Hosts in 1.0", BYTES("GET / HTTP/1.0\r\nHost: x\r\nhost: y\r\n\r\n"),
         "GET / 1.0\n  Host: x\nBAD there is more than one Host\n"},
        {"a Host with a path", BYTES("GET / HTTP/1.1\r\nHost: x/y\r\n\r\n"),
         "GET / 1.1\n" BAD_HOST},
        {"a Host with a user", BYTES("GET / HTTP/1.1\r\nHost: a@x\r\n\r\n"),
         "GET / 1.1\n" BAD_HOST},
        {"a list of Hosts", BYTES("GET / HTTP/1.1\r\nHost: x,y\r\n\r\n"), "GET / 1.1\n" BAD_HOST},
        {"a Host with a space", BYTES("GET / HTTP/1.1\r\nHost: x y\r\n\r\n"),
         "GET / 1.1\n" BAD_HOST},
        {"a Host beyond ASCII", BYTES("GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n"),
         "GET / 1.1\n" BAD_HOST},
        {"a length besides chunks",
         BYTES(
             "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
             "0\r\n\r\nG"),
         "POST / 1.1\n  Host: x\n  Content-Length: 6\n" BESIDES},
        {"chunks under a disguise",
         BYTES("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n"),
         "POST / 1.1\n  Host: x\n" BAD_NAME},
        {"another coding last",
         BYTES("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n"),
         "POST / 1.1\n  Host: x\n" NOT_CHUNKED},
        {"chunks in 1.0", BYTES("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
         "POST / 1.0\nBAD there is a Transfer-Encoding in HTTP/1.0\n"},
        {"half a request", BYTES("GET / HTTP/1.1\r\nHost: x\r\n"),
         "GET / 1.1\n  Host: x\n" CUT_SHORT},
        {"half an empty line", BYTES("\r"), CUT_SHORT},
    };
    (void)state;
    CHECK_CASES(request, cases);
}

/* ---- the rest ---- */

static void a_chunk_is_announced_with_its_size(void **state)
{
    char out[SBX_HTTP1_CHUNK_MAX];
    static const struct {
        size_t size;
        const char *text;
    } cases[] = {
        {1, "1\r\n"},
        {9, "9\r\n"},
        {10, "a\r\n"},
        {15, "f\r\n"},
        {16, "10\r\n"},
        {255, "ff\r\n"},
        {256, "100\r\n"},
        {65536, "10000\r\n"},
        {0x7fffffff, "7fffffff\r\n"},
        {SIZE_MAX, sizeof(size_t) == 8 ? "ffffffffffffffff\r\n" : "ffffffff\r\n"},
    };
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t len = sbx_http1_chunk(out, cases[i].size);
        assert_int_equal(len, strlen(cases[i].text));
        assert_memory_equal(out, cases[i].text, len);
    }
}

static void a_list_has_a_token_only_as_a_whole_element(void **state)
{
    static const struct {
        const char *value, *token;
        int has;
    } cases[] = {
        {"upgrade", "upgrade", 1},
        {"Upgrade", "uPGRADE", 1},
        {"keep-alive, Upgrade", "upgrade", 1},
        {"keep-alive,upgrade,x", "upgrade", 1},
        {" \tupgrade\t ", "upgrade", 1},
        {",,upgrade,", "upgrade", 1},
        {"", "upgrade", 0},
        {",", "upgrade", 0},
        {" , ", "", 0},
        {"upgrades", "upgrade", 0},
        {"upgrad", "upgrade", 0},
        {"xupgrade", "upgrade", 0},
        {"up grade", "upgrade", 0},
        {"upgrade;x", "upgrade", 0},
        {"upgrade upgrade", "upgrade", 0},
        {"upgrade/1, x", "upgrade", 0},
    };
    guard g = {NULL, 0};
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t len = strlen(cases[i].value);
        const char *value = (const char *)guard_put(&g, cases[i].value, len);
        if (sbx_http1_has_token(value, len, cases[i].token) != cases[i].has)
            fail_msg("\"%s\" in \"%s\"", cases[i].token, cases[i].value);
    }
    assert_int_equal(sbx_http1_has_token(NULL, 0, "x"), 0);
    guard_free(&g);
}

static void what_is_written_is_checked_by_the_same_rules(void **state)
{
    (void)state;
    assert_true(sbxi_http1_token("X-Api-Key", 9));
    assert_false(sbxi_http1_token("", 0));
    assert_false(sbxi_http1_token("a b", 3));
    assert_false(sbxi_http1_token("a:", 2));
    assert_false(sbxi_http1_token("a\r\n", 3));
    assert_false(sbxi_http1_token("\0", 1));
    assert_true(sbxi_http1_value("", 0));
    assert_true(sbxi_http1_value("a\tb \xc3\xa4", 6));
    assert_false(sbxi_http1_value("a\r\nb: c", 7));
    assert_false(sbxi_http1_value("a\nb", 3));
    assert_false(sbxi_http1_value("\0", 1));
    assert_false(sbxi_http1_value("0123456789abcdef\x7f", 17));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_response_is_read_with_its_head_and_body),
        cmocka_unit_test(the_values_of_headers_are_trimmed_and_otherwise_left_alone),
        cmocka_unit_test(some_responses_have_no_body_whatever_they_announce),
        cmocka_unit_test(that_a_response_has_no_body_is_said_for_one_response_only),
        cmocka_unit_test(a_connection_is_free_only_between_two_messages),
        cmocka_unit_test(responses_of_class_1xx_are_skipped),
        cmocka_unit_test(a_101_ends_with_its_head_and_leaves_the_rest_alone),
        cmocka_unit_test(a_connection_stays_open_as_version_and_headers_say),
        cmocka_unit_test(chunks_are_put_together),
        cmocka_unit_test(chunks_that_are_not_as_they_should_be_are_refused),
        cmocka_unit_test(chunks_may_be_single_bytes_but_not_mostly_overhead),
        cmocka_unit_test(a_start_line_that_is_none_is_refused),
        cmocka_unit_test(headers_that_could_be_read_in_two_ways_are_refused),
        cmocka_unit_test(every_control_character_but_the_tab_is_refused_in_a_value),
        cmocka_unit_test(only_the_characters_of_a_token_are_taken_in_a_name),
        cmocka_unit_test(lengths_that_are_not_one_number_are_refused),
        cmocka_unit_test(a_peer_that_speaks_something_else_is_found_out_at_once),
        cmocka_unit_test(lines_longer_than_scratch_are_refused),
        cmocka_unit_test(heads_and_trailers_have_limits),
        cmocka_unit_test(a_head_is_64_kib_long_at_most),
        cmocka_unit_test(a_request_is_read_with_its_head_and_body),
        cmocka_unit_test(requests_that_could_be_read_in_two_ways_are_refused),
        cmocka_unit_test(a_chunk_is_announced_with_its_size),
        cmocka_unit_test(a_list_has_a_token_only_as_a_whole_element),
        cmocka_unit_test(what_is_written_is_checked_by_the_same_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
