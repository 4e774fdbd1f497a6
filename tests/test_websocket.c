/* WebSocket frames: the rules of RFC 6455 one by one, in both roles, however the bytes are cut. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "feed.h"

#define BYTES(text) text, sizeof(text) - 1

static const unsigned char mask_key[4] = {0x37, 0xfa, 0x21, 0x3d};

/* ---- reading, and writing down what was read ---- */

typedef struct reading {
    int role;
    uint64_t limit;
} reading;

/* Whether the bytes of an event lie in what was given or in the codec. */
static int is_lent(const sbx_ws *ws, const char *piece, size_t len, const sbx_ws_event *event)
{
    uintptr_t start = (uintptr_t)event->data, end = start + event->len;
    return (start >= (uintptr_t)piece && end <= (uintptr_t)piece + len) ||
           (start >= (uintptr_t)ws && end <= (uintptr_t)(ws + 1));
}

/* Collects pieces of one message; writes the message down when it is complete, so that it does not
   matter where it was cut. */
static void add_event(trace *t, trace *message, const sbx_ws_event *event)
{
    switch (event->opcode) {
    case SBX_WS_TEXT:
    case SBX_WS_BINARY:
        assert_int_equal(event->first, message->len == 0);
        assert_true(event->len > 0 || event->last);
        assert_int_equal(event->close_code, 0);
        trace_bytes(message, event->data, event->len);
        if (!event->last)
            return;
        trace_add(t, event->opcode == SBX_WS_TEXT ? "text '" : "binary '");
        trace_quoted(t, message->len ? message->text : "", message->len);
        message->len = 0;
        break;
    case SBX_WS_PING:
    case SBX_WS_PONG:
        trace_add(t, event->opcode == SBX_WS_PING ? "ping '" : "pong '");
        trace_quoted(t, event->data, event->len);
        break;
    case SBX_WS_CLOSE:
        trace_add(t, "close %d '", event->close_code);
        trace_quoted(t, event->data, event->len);
        break;
    default:
        fail_msg("an event with opcode %d", event->opcode);
    }
    trace_add(t, "'\n");
}

static void read_frames(void *context, feed *f, trace *t)
{
    const reading *r = (const reading *)context;
    trace message = {NULL, 0, 0};
    sbx_ws ws;
    sbx_ws_event event;
    sbx_status st = SBX_AGAIN;
    char *piece;
    size_t len, used;
    sbx_ws_init(&ws, r->role, r->limit);
    while (st == SBX_AGAIN && feed_next(f, &piece, &len)) {
        do {
            st = sbx_ws_read(&ws, piece, len, &used, &event);
            assert_true(used <= len);
            if (st == SBX_OK) {
                assert_true(is_lent(&ws, piece, len, &event));
                add_event(t, &message, &event);
            }
            piece += used;
            len -= used;
        } while (st == SBX_OK);
        assert_true(st != SBX_AGAIN || len == 0);
    }
    if (st == SBX_END) {
        trace_add(t, "end\n");
    } else if (st != SBX_AGAIN) {
        assert_int_equal(st, ws.close_code == 1009 ? SBX_E_TOO_BIG : SBX_E_PROTOCOL);
        trace_add(t, "%d: %s\n", ws.close_code, ws.problem);
    } else {
        /* no bytes are fine at any time, and change nothing */
        assert_int_equal(sbx_ws_read(&ws, NULL, 0, &used, &event), SBX_AGAIN);
    }
    if (st != SBX_AGAIN) {
        /* what ended it, ends it for good */
        char more[] = "\x81\x01x";
        assert_int_equal(sbx_ws_read(&ws, more, 3, &used, &event), st);
        assert_int_equal(used, 0);
        assert_int_equal(event.opcode, 0);
        assert_null(event.data);
    }
    trace_free(&message);
}

/* The same frames as a client sends them. Headers need not make sense, as far as they go. */
static void masked(const char *bytes, size_t len, trace *out)
{
    const unsigned char *p = (const unsigned char *)bytes;
    size_t at = 0, size, i;
    uint64_t payload;
    while (at < len) {
        size = at + 1 == len               ? 1
               : (p[at + 1] & 0x7f) < 126  ? 2
               : (p[at + 1] & 0x7f) == 126 ? 4
                                           : 10;
        size = size < len - at ? size : len - at;
        payload = size < 2 ? 0 : size == 2 ? p[at + 1] & 0x7f : 0;
        for (i = 2; i < size; i++)
            payload = payload << 8 | p[at + i];
        trace_bytes(out, p + at, size);
        if (size > 1)
            out->text[out->len - size + 1] = (char)(p[at + 1] | 0x80);
        at += size;
        payload = payload < len - at ? payload : len - at;
        if (size > 1)
            trace_bytes(out, mask_key, 4);
        for (i = 0; i < payload; i++) {
            char byte = (char)(p[at + i] ^ mask_key[i & 3]);
            trace_bytes(out, &byte, 1);
        }
        at += (size_t)payload;
    }
}

static void check(const char *name, const char *bytes, size_t len, uint64_t limit,
                  const char *expected)
{
    reading r = {SBX_WS_CLIENT, limit};
    trace from_client = {NULL, 0, 0};
    feed_every_way(bytes, len, read_frames, &r, expected, name);
    masked(bytes, len, &from_client);
    r.role = SBX_WS_SERVER;
    feed_every_way(from_client.text, from_client.len, read_frames, &r, expected, name);
    trace_free(&from_client);
}

typedef struct frames {
    const char *name;
    const char *bytes;
    size_t len;
    const char *expected;
} frames;

static void check_all(const frames *cases, size_t count)
{
    size_t i;
    for (i = 0; i < count; i++)
        check(cases[i].name, cases[i].bytes, cases[i].len, 1000, cases[i].expected);
}

#define CHECK_ALL(cases) check_all(cases, sizeof(cases) / sizeof(*(cases)))

/* ---- messages in one frame ---- */

static void reads_messages_of_one_frame(void **unused)
{
    static const frames cases[] = {
        {"text", BYTES("\x81\x05Hello"), "text 'Hello'\n"},
        {"empty text", BYTES("\x81\x00"), "text ''\n"},
        {"binary", BYTES("\x82\x04\x00\xff\x80\x0a"), "binary '\\x00\\xff\\x80\\x0a'\n"},
        {"empty binary", BYTES("\x82\x00"), "binary ''\n"},
        {"two",
         BYTES("\x81\x01"
               "a\x82\x01"
               "b"),
         "text 'a'\nbinary 'b'\n"},
        {"the first of two is not complete",
         BYTES("\x81\x02"
               "a"),
         ""},
    };
    (void)unused;
    CHECK_ALL(cases);
}

/* Lengths at which the header changes, cut only at its end and here and there. */
static void reads_every_form_of_length(void **unused)
{
    static const size_t lengths[] = {0, 1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537};
    size_t i, at, cut;
    int role;
    (void)unused;
    for (i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        for (role = SBX_WS_CLIENT; role <= SBX_WS_SERVER; role++) {
            size_t len = lengths[i];
            unsigned char *frame = (unsigned char *)malloc(len + SBX_WS_HEADER_MAX), *payload;
            feed f = {NULL, 0, 0, 0, 0, {NULL, 0}};
            reading r = {SBX_WS_CLIENT, 0};
            trace expected = {NULL, 0, 0};
            size_t head;
            assert_non_null(frame);
            r.role = role;
            r.limit = len;
            head = sbx_ws_header(frame, SBX_WS_BINARY, 1, len,
                                 role == SBX_WS_SERVER ? mask_key : NULL);
            assert_int_equal(head, (len < 126 ? 2 : len < 65536 ? 4 : 10) + 4 * role);
            payload = frame + head;
            for (at = 0; at < len; at++)
                payload[at] = (unsigned char)('a' + (at + at / 256) % 26);
            trace_add(&expected, "binary '");
            trace_quoted(&expected, payload, len);
            trace_add(&expected, "'\n");
            if (role == SBX_WS_SERVER)
                sbx_ws_mask(payload, payload, len, mask_key, 0);
            f.bytes = (const char *)frame;
            f.len = head + len;
            for (cut = 0; cut < 20; cut++)
                feed_once(&f, cut, (size_t)-1, read_frames, &r, trace_text(&expected), "length");
            feed_once(&f, head + len / 2, (size_t)-1, read_frames, &r, trace_text(&expected),
                      "half");
            feed_once(&f, head + len - 1, (size_t)-1, read_frames, &r, trace_text(&expected),
                      "last");
            feed_once(&f, 0, len < 1000 ? 1 : 61, read_frames, &r, trace_text(&expected),
                      "in small pieces");
            feed_once(&f, 0, 997, read_frames, &r, trace_text(&expected), "in pieces");
            guard_free(&f.memory);
            trace_free(&expected);
            free(frame);
        }
    }
}

static void refuses_lengths_that_are_not_minimal_or_too_long(void **unused)
{
    static const frames cases[] = {
        {"126 for 0", BYTES("\x82\x7e\x00\x00"),
         "1002: a frame's length has more bytes than it needs\n"},
        {"126 for 125", BYTES("\x82\x7e\x00\x7d"),
         "1002: a frame's length has more bytes than it needs\n"},
        {"127 for 1", BYTES("\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x01"),
         "1002: a frame's length has more bytes than it needs\n"},
        {"127 for 65535", BYTES("\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff"),
         "1002: a frame's length has more bytes than it needs\n"},
        {"2 to the 63rd", BYTES("\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00"),
         "1002: a frame's length has its highest bit set\n"},
        {"all bits", BYTES("\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"),
         "1002: a frame's length has its highest bit set\n"},
        {"the longest", BYTES("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"),
         "1009: a message is longer than the limit\n"},
    };
    (void)unused;
    CHECK_ALL(cases);
}

static void a_length_takes_no_room_before_its_bytes_come(void **unused)
{
    unsigned char head[] = "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff";
    char byte = 'x';
    sbx_ws ws;
    sbx_ws_event event;
    size_t used;
    (void)unused;
    sbx_ws_init(&ws, SBX_WS_CLIENT, UINT64_MAX);
    assert_int_equal(sbx_ws_read(&ws, head, 10, &used, &event), SBX_AGAIN);
    assert_int_equal(used, 10);
    assert_int_equal(sbx_ws_read(&ws, &byte, 1, &used, &event), SBX_OK);
    assert_int_equal(event.len, 1);
    assert_int_equal(event.last, 0);
}

static void the_limit_counts_the_whole_message_and_not_control_frames(void **unused)
{
    const char *too_long = "1009: a message is longer than the limit\n";
    (void)unused;
    check("as long as the limit", BYTES("\x81\x05Hello"), 5, "text 'Hello'\n");
    check("one byte more, known from the header", BYTES("\x81\x05"), 4, too_long);
    check("fragments up to the limit", BYTES("\x01\x03Hel\x80\x02lo"), 5, "text 'Hello'\n");
    check("fragments beyond", BYTES("\x02\x03Hel\x80\x02"), 4, too_long);
    check("beyond by a fragment of all the length there is",
          BYTES("\x02\x01H\x80\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"), UINT64_MAX / 2, too_long);
    check("each message anew", BYTES("\x81\x02He\x81\x02ll"), 2, "text 'He'\ntext 'll'\n");
    check("nothing is allowed but nothing", BYTES("\x81\x00\x82\x01"), 0,
          "text ''\n1009: a message is longer than the limit\n");
    check("a ping is no part of it", BYTES("\x01\x02He\x89\x05large\x80\x00"), 2,
          "ping 'large'\ntext 'He'\n");
}

/* ---- control frames ---- */

static void reads_control_frames(void **unused)
{
    static const frames cases[] = {
        {"empty ping", BYTES("\x89\x00"), "ping ''\n"},
        {"ping", BYTES("\x89\x05Hello"), "ping 'Hello'\n"},
        {"ping that is not text", BYTES("\x89\x04\x00\xff\xfe\xfd"),
         "ping '\\x00\\xff\\xfe\\xfd'\n"},
        {"unasked pong", BYTES("\x8a\x00\x8a\x03out"), "pong ''\npong 'out'\n"},
        {"many",
         BYTES("\x89\x01"
               "0\x89\x01"
               "1\x8a\x01"
               "2\x89\x00\x81\x01x"),
         "ping '0'\nping '1'\npong '2'\nping ''\ntext 'x'\n"},
        {"between fragments",
         BYTES("\x01\x02"
               "a\xc3\x89\x02\xff\x00\x00\x01\xa9\x8a\x00\x80\x01z"),
         "ping '\\xff\\x00'\npong ''\ntext 'a\\xc3\\xa9z'\n"},
        {"longest",
         BYTES("\x89\x7d"
               "0123456789012345678901234567890123456789012345678901234567890123456789"
               "0123456789012345678901234567890123456789012345678901234"),
         "ping '0123456789012345678901234567890123456789012345678901234567890123456789"
         "0123456789012345678901234567890123456789012345678901234'\n"},
        {"126 bytes", BYTES("\x89\x7e\x00\x7e"),
         "1002: a control frame is longer than 125 bytes\n"},
        {"pong with a long length", BYTES("\x8a\x7f"),
         "1002: a control frame is longer than 125 bytes\n"},
        {"long close", BYTES("\x88\x7e"), "1002: a control frame is longer than 125 bytes\n"},
        {"fragmented ping", BYTES("\x09\x00"), "1002: a control frame is fragmented\n"},
        {"fragmented pong", BYTES("\x0a"), "1002: a control frame is fragmented\n"},
        {"fragmented close", BYTES("\x08\x00"), "1002: a control frame is fragmented\n"},
        {"continued ping", BYTES("\x89\x00\x80\x00"),
         "ping ''\n1002: a continuation frame without a message to continue\n"},
    };
    (void)unused;
    CHECK_ALL(cases);
}

static void control_frames_come_whole_and_from_the_bytes_themselves_if_they_can(void **unused)
{
    char frame[] = "\x89\x05Hello";
    sbx_ws ws;
    sbx_ws_event event;
    size_t used;
    (void)unused;
    sbx_ws_init(&ws, SBX_WS_CLIENT, 10);
    assert_int_equal(sbx_ws_read(&ws, frame, 7, &used, &event), SBX_OK);
    assert_ptr_equal(event.data, frame + 2);
    assert_int_equal(used, 7);
    assert_int_equal(sbx_ws_read(&ws, frame, 4, &used, &event), SBX_AGAIN);
    assert_int_equal(used, 4);
    assert_int_equal(sbx_ws_read(&ws, frame + 4, 3, &used, &event), SBX_OK);
    assert_int_equal(event.len, 5);
    assert_memory_equal(event.data, "Hello", 5);
}

/* ---- headers ---- */

static void refuses_reserved_bits_and_opcodes(void **unused)
{
    static const int known[] = {SBX_WS_CONTINUATION, SBX_WS_TEXT, SBX_WS_BINARY,
                                SBX_WS_CLOSE,        SBX_WS_PING, SBX_WS_PONG};
    int byte, i, is_known;
    (void)unused;
    for (byte = 0; byte < 256; byte++) {
        char frame[] = "\x81\x01x?";
        const char *problem = NULL;
        char expected[200];
        frame[3] = (char)byte;
        for (i = 0, is_known = 0; i < (int)(sizeof(known) / sizeof(*known)); i++)
            is_known |= (byte & 15) == known[i];
        if (byte & 0x70)
            problem = "a reserved bit is set in a frame";
        else if (!is_known)
            problem = "a frame has a reserved opcode";
        else if ((byte & 15) == 0)
            problem = "a continuation frame without a message to continue";
        else if (byte < 0x80 && (byte & 15) >= 8)
            problem = "a control frame is fragmented";
        if (problem) /* the one byte suffices */
            snprintf(expected, sizeof(expected), "text 'x'\n1002: %s\n", problem);
        else
            snprintf(expected, sizeof(expected), "text 'x'\n");
        check("first byte", frame, 4, 10, expected);
    }
}

static void refuses_the_wrong_masking_for_the_role(void **unused)
{
    reading r = {SBX_WS_CLIENT, 10};
    (void)unused;
    feed_every_way(BYTES("\x81\x85\x37\xfa\x21\x3d"), read_frames, &r,
                   "1002: a frame from a server is masked\n", "masked for a client");
    feed_every_way(BYTES("\x89\x80"), read_frames, &r, "1002: a frame from a server is masked\n",
                   "masked ping for a client");
    r.role = SBX_WS_SERVER;
    feed_every_way(BYTES("\x81\x05"), read_frames, &r,
                   "1002: a frame from a client is not masked\n", "unmasked for a server");
    feed_every_way(BYTES("\x88\x00"), read_frames, &r,
                   "1002: a frame from a client is not masked\n", "unmasked close for a server");
    feed_every_way(BYTES("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), read_frames, &r,
                   "text 'Hello'\n", "the RFC's sample");
    feed_every_way(BYTES("\x81\x85\x00\x00\x00\x00Hello\x82\x80\x01\x02\x03\x04"), read_frames, &r,
                   "text 'Hello'\nbinary ''\n", "a key of zeroes");
}

/* ---- fragments ---- */

static void joins_fragments(void **unused)
{
    static const frames cases[] = {
        {"the RFC's sample", BYTES("\x01\x03Hel\x80\x02lo"), "text 'Hello'\n"},
        {"binary", BYTES("\x02\x01\x00\x00\x01\x01\x80\x01\x02"), "binary '\\x00\\x01\\x02'\n"},
        {"an empty end", BYTES("\x01\x03Hel\x80\x00"), "text 'Hel'\n"},
        {"an empty start", BYTES("\x01\x00\x80\x03Hel"), "text 'Hel'\n"},
        {"nothing but empty ones", BYTES("\x01\x00\x00\x00\x00\x00\x80\x00"), "text ''\n"},
        {"empty ones around", BYTES("\x02\x00\x00\x00\x00\x01x\x00\x00\x80\x00"), "binary 'x'\n"},
        {"empty ones around a ping", BYTES("\x02\x00\x89\x00\x80\x00"), "ping ''\nbinary ''\n"},
        {"not ended", BYTES("\x01\x03Hel\x00\x02lo"), ""},
        {"two messages",
         BYTES("\x01\x01"
               "a\x80\x01"
               "b\x02\x01"
               "c\x80\x01"
               "d\x81\x01"
               "e"),
         "text 'ab'\nbinary 'cd'\ntext 'e'\n"},
        {"close in the middle",
         BYTES("\x01\x01"
               "a\x88\x00\x80\x01"
               "b"),
         "close 1005 ''\nend\n"},
        {"text inside",
         BYTES("\x01\x01"
               "a\x81\x01"
               "b"),
         "1002: a new message starts inside a fragmented one\n"},
        {"binary inside an empty start", BYTES("\x01\x00\x02"),
         "1002: a new message starts inside a fragmented one\n"},
        {"text inside after a ping",
         BYTES("\x02\x01"
               "a\x89\x00\x01"),
         "ping ''\n1002: a new message starts inside a fragmented one\n"},
        {"continuation first", BYTES("\x80\x00"),
         "1002: a continuation frame without a message to continue\n"},
        {"continuation after a message",
         BYTES("\x81\x01"
               "a\x00"),
         "text 'a'\n1002: a continuation frame without a message to continue\n"},
        {"continuation after the end",
         BYTES("\x01\x01"
               "a\x80\x00\x80"),
         "text 'a'\n1002: a continuation frame without a message to continue\n"},
    };
    (void)unused;
    CHECK_ALL(cases);
}

/* What is there of a long frame is given at once, in place, and its last piece says so. */
static void gives_the_pieces_of_a_frame_as_they_come(void **unused)
{
    char bytes[] = "\x81\x06HelloW";
    sbx_ws ws;
    sbx_ws_event event;
    size_t used;
    (void)unused;
    sbx_ws_init(&ws, SBX_WS_CLIENT, 10);
    assert_int_equal(sbx_ws_read(&ws, bytes, 5, &used, &event), SBX_OK);
    assert_int_equal(used, 5);
    assert_ptr_equal(event.data, bytes + 2);
    assert_int_equal(event.len, 3);
    assert_true(event.first && !event.last);
    assert_int_equal(sbx_ws_read(&ws, bytes + 5, 0, &used, &event), SBX_AGAIN);
    assert_int_equal(sbx_ws_read(&ws, bytes + 5, 3, &used, &event), SBX_OK);
    assert_int_equal(used, 3);
    assert_ptr_equal(event.data, bytes + 5);
    assert_true(!event.first && event.last);
    assert_int_equal(sbx_ws_read(&ws, bytes + 8, 0, &used, &event), SBX_AGAIN);
}

/* ---- text ---- */

static void checks_text_across_frames(void **unused)
{
    static const char bad[] = "1007: a text message is not UTF-8\n";
    static const char cut[] = "1007: a text message ends inside a character\n";
    static const frames cases[] = {
        {"whole characters",
         BYTES("\x81\x0f\xce\xba\xe1\xbd\xb9\xf0\x9f\x9a\x80\xcf\x83\xf4\x8f\xbf\xbf"),
         "text '\\xce\\xba\\xe1\\xbd\\xb9\\xf0\\x9f\\x9a\\x80\\xcf\\x83\\xf4\\x8f\\xbf\\xbf'\n"},
        {"characters over fragments",
         BYTES("\x01\x01\xf0\x00\x01\x9f\x00\x00\x00\x01\x9a\x80\x01\x80"),
         "text '\\xf0\\x9f\\x9a\\x80'\n"},
        {"a ping in a character", BYTES("\x01\x02\xe2\x82\x89\x01\xff\x80\x01\xac"),
         "ping '\\xff'\ntext '\\xe2\\x82\\xac'\n"},
        {"noncharacters", BYTES("\x81\x0a\xef\xbf\xbe\xf0\x9f\xbf\xbf\xef\xbf\xbf"),
         "text '\\xef\\xbf\\xbe\\xf0\\x9f\\xbf\\xbf\\xef\\xbf\\xbf'\n"},
        {"zero",
         BYTES("\x81\x03"
               "a\x00"
               "b"),
         "text 'a\\x00b'\n"},
        {"overlong", BYTES("\x81\x02\xc0\xaf"), bad},
        {"overlong, seen at its second byte", BYTES("\x81\x7d\xe0\x80"), bad},
        {"a surrogate, seen at its second byte", BYTES("\x01\x01\xed\x80\x7d\xa0"), bad},
        {"beyond the last one, seen at its second byte", BYTES("\x01\x7d\xf4\x90"), bad},
        {"a byte that never is, first of many", BYTES("\x81\x7d\xff"), bad},
        {"a continuation alone", BYTES("\x81\x7d\x80"), bad},
        {"bad in the second fragment", BYTES("\x01\x02ok\x00\x7d\xce\xce"), bad},
        {"a character given up", BYTES("\x01\x02\xe2\x82\x80\x01x"), bad},
        {"cut at the end", BYTES("\x81\x01\xc3"), cut},
        {"cut at the end of a fragment without bytes", BYTES("\x01\x02\xe2\x82\x80\x00"), cut},
        {"cut, but not at the end yet", BYTES("\x01\x02\xe2\x82"), ""},
        {"the next message starts anew", BYTES("\x81\x02\xc3\xa9\x81\x01\xa9"),
         "text '\\xc3\\xa9'\n"
         "1007: a text message "
         "is not UTF-8\n"},
        {"binary is not checked", BYTES("\x02\x02\xff\xc0\x80\x01\x80"),
         "binary '\\xff\\xc0\\x80'\n"},
    };
    (void)unused;
    CHECK_ALL(cases);
}

/* ---- closing ---- */

static void reads_close_frames(void **unused)
{
    static const frames cases[] = {
        {"no code", BYTES("\x88\x00"), "close 1005 ''\nend\n"},
        {"a code", BYTES("\x88\x02\x03\xe8"), "close 1000 ''\nend\n"},
        {"a code and a reason",
         BYTES("\x88\x05\x03\xe9"
               "bye"),
         "close 1001 'bye'\nend\n"},
        {"what follows is not read", BYTES("\x88\x02\x0f\xa1\x81\x01x\xff\xff"),
         "close 4001 ''\nend\n"},
        {"after a message", BYTES("\x81\x01x\x88\x02\x03\xe8"), "text 'x'\nclose 1000 ''\nend\n"},
        {"a long reason",
         BYTES("\x88\x7d\x03\xe8"
               "01234567890123456789012345678901234567890123456789012345678901"
               "2345678901234567890123456789012345678901234567890123456789012"),
         "close 1000 '01234567890123456789012345678901234567890123456789012345678901"
         "2345678901234567890123456789012345678901234567890123456789012'\nend\n"},
        {"one byte", BYTES("\x88\x01"), "1002: a close frame has a payload of one byte\n"},
        {"a reason that is not text", BYTES("\x88\x04\x03\xe8\xc3\x28"),
         "1007: the reason in a close frame is not UTF-8\n"},
        {"a reason that is cut", BYTES("\x88\x04\x03\xe8\xe2\x82"),
         "1007: the reason in a close frame is not UTF-8\n"},
    };
    (void)unused;
    CHECK_ALL(cases);
}

/* Whether a close frame may carry the code: RFC 6455, 7.4, and IANA's registry. */
static int may_be_sent(int code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

static void refuses_close_codes_that_must_not_be_sent(void **unused)
{
    int code;
    (void)unused;
    for (code = 0; code <= 0xffff; code++) {
        unsigned char frame[] = "\x88\x02??", payload[125];
        sbx_ws ws;
        sbx_ws_event event;
        size_t used;
        sbx_status st;
        frame[2] = (unsigned char)(code >> 8);
        frame[3] = (unsigned char)(code & 255);
        sbx_ws_init(&ws, SBX_WS_CLIENT, 10);
        st = sbx_ws_read(&ws, frame, 4, &used, &event);
        assert_int_equal(st, may_be_sent(code) ? SBX_OK : SBX_E_PROTOCOL);
        if (st == SBX_OK) {
            assert_int_equal(event.close_code, code);
            assert_int_equal(sbx_ws_close_payload(payload, code, NULL), 2);
            assert_memory_equal(payload, frame + 2, 2);
        } else {
            assert_int_equal(ws.close_code, 1002);
            assert_int_equal(event.opcode, 0);
            assert_int_equal(sbx_ws_close_payload(payload, code, "why"), 0);
        }
    }
    assert_int_equal(sbx_ws_close_payload(NULL, -1, "why"), 0);
    assert_int_equal(sbx_ws_close_payload(NULL, 0x10000 + 1000, "why"), 0);
    check("refused in pieces too",
          BYTES("\x88\x05\x03\xed"
                "bye"),
          10, "1002: a close frame has a code that must not be sent\n");
}

static void cuts_the_reason_at_a_character(void **unused)
{
    unsigned char out[126];
    char reason[200];
    size_t before, len;
    (void)unused;
    assert_int_equal(sbx_ws_close_payload(out, 1000, ""), 2);
    assert_int_equal(sbx_ws_close_payload(out, 1000, "bye"), 5);
    assert_memory_equal(out,
                        "\x03\xe8"
                        "bye",
                        5);
    for (before = 115; before < 130; before++) {
        memset(reason, 'x', sizeof(reason));
        memcpy(reason + before, "\xf0\x9f\x9a\x80 and more", 14);
        memset(out, 0x5a, sizeof(out));
        len = sbx_ws_close_payload(out, 4000, reason);
        assert_int_equal(len, before > 119 && before < 123 ? before + 2 : 125);
        assert_memory_equal(out + 2, reason, len - 2);
        assert_int_equal(out[125], 0x5a);
    }
    /* what is not UTF-8 is not sent either */
    assert_int_equal(sbx_ws_close_payload(out, 1000,
                                          "ab\xff"
                                          "cd"),
                     4);
    assert_int_equal(sbx_ws_close_payload(out, 1000, "ab\xe2\x82"), 4);
    assert_int_equal(sbx_ws_close_payload(out, 1000, "\x80"), 2);
}

/* ---- writing ---- */

static void writes_the_headers_of_the_rfc(void **unused)
{
    unsigned char out[SBX_WS_HEADER_MAX + 1];
    size_t len;
    (void)unused;
    assert_int_equal(sbx_ws_header(out, SBX_WS_TEXT, 1, 5, NULL), 2);
    assert_memory_equal(out, "\x81\x05", 2);
    assert_int_equal(sbx_ws_header(out, SBX_WS_TEXT, 0, 3, mask_key), 6);
    assert_memory_equal(out, "\x01\x83\x37\xfa\x21\x3d", 6);
    assert_int_equal(sbx_ws_header(out, SBX_WS_CONTINUATION, 1, 256, NULL), 4);
    assert_memory_equal(out, "\x80\x7e\x01\x00", 4);
    assert_int_equal(sbx_ws_header(out, SBX_WS_BINARY, 1, 65536, NULL), 10);
    assert_memory_equal(out, "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10);
    memset(out, 0x5a, sizeof(out));
    len = sbx_ws_header(out, SBX_WS_BINARY, 1, UINT64_MAX / 2, mask_key);
    assert_int_equal(len, SBX_WS_HEADER_MAX);
    assert_memory_equal(out, "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x37\xfa\x21\x3d", 14);
    assert_int_equal(out[14], 0x5a);
}

/* Every alignment, length and start within the key, in place and not, against the naive loop. */
static void masks_every_length_at_every_alignment(void **unused)
{
    unsigned char in[256], out[256], expected[256];
    size_t align, len, at, i;
    (void)unused;
    for (i = 0; i < sizeof(in); i++)
        in[i] = (unsigned char)(i * 37 + 11);
    for (align = 0; align < 17; align++) {
        for (len = 0; len < 150; len++) {
            for (at = 0; at < 6; at++) {
                size_t from = (align * 5 + len) % 17;
                memset(expected, 0x5a, sizeof(expected));
                for (i = 0; i < len; i++)
                    expected[align + i] = (unsigned char)(in[from + i] ^ mask_key[(at + i) % 4]);
                memset(out, 0x5a, sizeof(out));
                sbx_ws_mask(out + align, in + from, len, mask_key, at);
                assert_memory_equal(out, expected, sizeof(out));
                memset(out, 0x5a, sizeof(out));
                memcpy(out + align, in + from, len);
                sbx_ws_mask(out + align, out + align, len, mask_key, at);
                assert_memory_equal(out, expected, sizeof(out));
            }
        }
    }
    sbx_ws_mask(out, in, 7, mask_key,
                SIZE_MAX - 2); /* the same as 1, for 2 to the 64th is 0 mod 4 */
    for (i = 0; i < 7; i++)
        assert_int_equal(out[i], in[i] ^ mask_key[(i + 1) % 4]);
}

static void answers_the_handshake_as_the_rfc_does(void **unused)
{
    char out[29];
    (void)unused;
    sbx_ws_accept("dGhlIHNhbXBsZSBub25jZQ==", 24, out);
    assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    sbx_ws_accept("dGhlIHNhbXBsZSBub25jZQ=", 23, out);
    assert_string_equal(out, "");
    sbx_ws_accept("dGhlIHNhbXBsZSBub25jZQ===", 25, out);
    assert_string_equal(out, "");
    sbx_ws_accept("", 0, out);
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_messages_of_one_frame),
        cmocka_unit_test(reads_every_form_of_length),
        cmocka_unit_test(refuses_lengths_that_are_not_minimal_or_too_long),
        cmocka_unit_test(a_length_takes_no_room_before_its_bytes_come),
        cmocka_unit_test(the_limit_counts_the_whole_message_and_not_control_frames),
        cmocka_unit_test(reads_control_frames),
        cmocka_unit_test(control_frames_come_whole_and_from_the_bytes_themselves_if_they_can),
        cmocka_unit_test(refuses_reserved_bits_and_opcodes),
        cmocka_unit_test(refuses_the_wrong_masking_for_the_role),
        cmocka_unit_test(joins_fragments),
        cmocka_unit_test(gives_the_pieces_of_a_frame_as_they_come),
        cmocka_unit_test(checks_text_across_frames),
        cmocka_unit_test(reads_close_frames),
        cmocka_unit_test(refuses_close_codes_that_must_not_be_sent),
        cmocka_unit_test(cuts_the_reason_at_a_character),
        cmocka_unit_test(writes_the_headers_of_the_rfc),
        cmocka_unit_test(masks_every_length_at_every_alignment),
        cmocka_unit_test(answers_the_handshake_as_the_rfc_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
