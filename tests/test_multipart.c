/* multipart/form-data: what RFC 7578 and RFC 2046 say, and what browsers and uploaders send, however
   the bytes are cut. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "feed.h"

#define BYTES(text) text, sizeof(text) - 1

/* ---- reading, and writing down what was read ---- */

static int is_in(const char *text, size_t len, const void *block, size_t size)
{
    uintptr_t start = (uintptr_t)text, from = (uintptr_t)block;
    return start >= from && start + len <= from + size;
}

static void add_event(trace *t, int *in_data, const sbx_multipart_event *event)
{
    if (*in_data && event->type != SBX_MULTIPART_DATA)
        trace_add(t, "\n");
    if (!*in_data && event->type == SBX_MULTIPART_DATA)
        trace_add(t, "> ");
    *in_data = event->type == SBX_MULTIPART_DATA;
    switch (event->type) {
    case SBX_MULTIPART_PART:
        assert_non_null(event->name);
        trace_add(t, "part '");
        trace_quoted(t, event->name, event->name_len);
        if (event->filename) {
            trace_add(t, "' file '");
            trace_quoted(t, event->filename, event->filename_len);
        }
        trace_add(t, "'\n");
        break;
    case SBX_MULTIPART_DATA:
        assert_true(event->len > 0);
        trace_quoted(t, event->data, event->len);
        break;
    case SBX_MULTIPART_PART_END:
        trace_add(t, "part end\n");
        break;
    default:
        fail_msg("an event of type %d", event->type);
    }
}

/* Bytes come from what was given; from the codec only, where bytes were held back at a cut. */
static void check_lent(const feed *f, const sbx_multipart *m, const sbx_multipart_event *event,
                       const char *piece, size_t len)
{
    int whole = f->cut == 0 && f->most == (size_t)-1;
    if (event->type == SBX_MULTIPART_DATA)
        assert_true(is_in(event->data, event->len, piece, len) ||
                    ((!whole || event->len <= m->delimiter_len + 1) &&
                     is_in(event->data, event->len, m, sizeof(*m))));
    if (event->name)
        assert_true(is_in(event->name, event->name_len, m, sizeof(*m)));
    if (event->filename)
        assert_true(is_in(event->filename, event->filename_len, m, sizeof(*m)));
}

static void read_parts(void *context, feed *f, trace *t)
{
    const char *content_type = (const char *)context;
    size_t len, rest = 0, used, i;
    char *piece;
    sbx_multipart m;
    sbx_multipart_event event;
    int in_data = 0;
    sbx_status st = sbx_multipart_init(&m, content_type, strlen(content_type));
    assert_int_equal(st, SBX_OK);
    for (st = SBX_AGAIN; (st == SBX_AGAIN || st == SBX_END) && feed_next(f, &piece, &len);) {
        i = 0;
        while ((st = sbx_multipart_read(&m, piece + i, len - i, &used, &event)) == SBX_OK) {
            check_lent(f, &m, &event, piece, len);
            add_event(t, &in_data, &event);
            i += used;
        }
        i += used;
        assert_true(i <= len && (st != SBX_AGAIN || i == len));
        rest += st == SBX_END ? len - i : 0;
    }
    if (st == SBX_AGAIN) {
        /* No bytes are fine at any time, and change nothing. */
        assert_int_equal(sbx_multipart_read(&m, NULL, 0, &used, &event), SBX_AGAIN);
        st = sbx_multipart_finish(&m);
    }
    if (in_data)
        trace_add(t, "\n");
    if (rest)
        trace_add(t, "rest %lu\n", (unsigned long)rest);
    assert_true((m.problem != NULL) == (st < 0));
    assert_true(st == SBX_END || st == SBX_E_PROTOCOL || st == SBX_E_TOO_BIG);
    if (st == SBX_END)
        trace_add(t, "end\n");
    else
        trace_add(t, "%s %s\n", st == SBX_E_TOO_BIG ? "BIG" : "BAD", m.problem);
    /* What ended it, ends it for good. */
    assert_int_equal(sbx_multipart_read(&m, "--b\r\n\r\n", 7, &used, &event), st);
    assert_int_equal(used, 0);
    assert_int_equal(sbx_multipart_finish(&m), st);
}

static void check(const char *content_type, const char *bytes, size_t len, const char *expected,
                  const char *name)
{
    char copy[256];
    strcpy(copy, content_type);
    feed_every_way(bytes, len, read_parts, copy, expected, name);
}

/* The same outcome for whole and byte by byte when the bytes end after each of them. */
static void check_ends(const char *content_type, const char *bytes, size_t len, const char *name)
{
    char copy[256];
    feed f = {bytes, 0, 0, 0, 0, {NULL, 0}};
    strcpy(copy, content_type);
    for (; f.len <= len; f.len++) {
        trace expected = {NULL, 0, 0};
        f.at = 0;
        f.most = (size_t)-1;
        read_parts(copy, &f, &expected);
        feed_once(&f, 0, 1, read_parts, copy, trace_text(&expected), name);
        trace_free(&expected);
    }
    guard_free(&f.memory);
}

typedef struct body_case {
    const char *name, *bytes;
    size_t len;
    const char *expected;
} body_case;

static void check_cases(const char *content_type, const body_case *cases, size_t count)
{
    size_t i;
    for (i = 0; i < count; i++) {
        check(content_type, cases[i].bytes, cases[i].len, cases[i].expected, cases[i].name);
        check_ends(content_type, cases[i].bytes, cases[i].len, cases[i].name);
    }
}

#define CHECK_CASES(cases)                                                                         \
    check_cases("multipart/form-data; boundary=b", cases, sizeof(cases) / sizeof(*cases))

#define PART "Content-Disposition: form-data; name=\"n\"\r\n\r\n"
#define CUT_SHORT "BAD the body ended before its closing boundary\n"

/* ---- parts ---- */

static void parts_are_read_one_after_the_other(void **state)
{
    static const body_case cases[] = {
        {"one file",
         BYTES("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n"
               "Content-Type: text/plain\r\n\r\nhello\r\n--b--\r\n"),
         "part 'file' file 'a.txt'\n> hello\npart end\nrest 2\nend\n"},
        {"two parts", BYTES("--b\r\n" PART "1\r\n--b\r\n" PART "2\r\n--b--"),
         "part 'n'\n> 1\npart end\npart 'n'\n> 2\npart end\nend\n"},
        {"an empty part", BYTES("--b\r\n" PART "\r\n--b--"), "part 'n'\npart end\nend\n"},
        {"an empty part whose empty line is its end", BYTES("--b\r\n" PART "--b--"),
         "part 'n'\npart end\nend\n"},
        {"an empty part between others",
         BYTES("--b\r\n" PART "1\r\n--b\r\n" PART "--b\r\n" PART "2\r\n--b--"),
         "part 'n'\n> 1\npart end\npart 'n'\npart end\npart 'n'\n> 2\npart end\nend\n"},
        {"no part", BYTES("--b--\r\n"), "rest 2\nend\n"},
        {"CR LF first", BYTES("\r\n--b\r\n" PART "1\r\n--b--"), "part 'n'\n> 1\npart end\nend\n"},
        {"a preamble", BYTES("to be skipped\r\n--x\r\n --b\r\n--b\r\n" PART "1\r\n--b--"),
         "part 'n'\n> 1\npart end\nend\n"},
        {"an epilogue", BYTES("--b\r\n" PART "1\r\n--b--\r\nto be skipped\r\n--b\r\n"),
         "part 'n'\n> 1\npart end\nrest 22\nend\n"},
        {"white space behind the boundaries",
         BYTES("--b \t\r\n" PART "1\r\n--b\t \r\n" PART "\r\n--b--  "),
         "part 'n'\n> 1\npart end\npart 'n'\npart end\nrest 2\nend\n"},
        {"any bytes", BYTES("--b\r\n" PART "\x00\xff\r\n\n\r\r--b\n--b\r\n--b--"),
         "part 'n'\n> \\x00\\xff\\x0d\\x0a\\x0a\\x0d\\x0d--b\\x0a--b\npart end\nend\n"},
    };
    (void)state;
    CHECK_CASES(cases);
}

static void what_only_looks_like_a_boundary_is_data(void **state)
{
    static const body_case cases[] = {
        {"CRs", BYTES("--b\r\n" PART "\r\r\r\r\n--b--"),
         "part 'n'\n> \\x0d\\x0d\\x0d\npart end\nend\n"},
        {"CR LFs", BYTES("--b\r\n" PART "\r\n\r\n\r\n--b--"),
         "part 'n'\n> \\x0d\\x0a\\x0d\\x0a\npart end\nend\n"},
        {"half a boundary", BYTES("--b\r\n" PART "\r\n-\r\n--\r\n--a\r\n--b--"),
         "part 'n'\n> \\x0d\\x0a-\\x0d\\x0a--\\x0d\\x0a--a\npart end\nend\n"},
        {"half a boundary first", BYTES("--b\r\n" PART "-\r\n--b--"),
         "part 'n'\n> -\npart end\nend\n"},
        {"a longer boundary first", BYTES("--b\r\n" PART "--bc\r\n--b--"),
         "part 'n'\n> --bc\npart end\nend\n"},
        {"a longer boundary", BYTES("--b\r\n" PART "1\r\n--bb\r\n--b2\r\n--b\x00\r\n--b--"),
         "part 'n'\n> 1\\x0d\\x0a--bb\\x0d\\x0a--b2\\x0d\\x0a--b\\x00\npart end\nend\n"},
        {"one dash behind it", BYTES("--b\r\n" PART "1\r\n--b-\r\n--b-x\r\n--b--"),
         "part 'n'\n> 1\\x0d\\x0a--b-\\x0d\\x0a--b-x\npart end\nend\n"},
        {"one dash behind it at once", BYTES("--b\r\n" PART "--b-\r\n--b--"),
         "part 'n'\n> --b-\npart end\nend\n"},
        {"a boundary in the middle of a line", BYTES("--b\r\n" PART "1--b\r\n 2--b--\r\n--b--"),
         "part 'n'\n> 1--b\\x0d\\x0a 2--b--\npart end\nend\n"},
        {"behind a bare LF", BYTES("--b\r\n" PART "1\n--b\n--b--\r\n--b--"),
         "part 'n'\n> 1\\x0a--b\\x0a--b--\npart end\nend\n"},
        {"behind a bare CR", BYTES("--b\r\n" PART "1\r--b\r--b--\r\n--b--"),
         "part 'n'\n> 1\\x0d--b\\x0d--b--\npart end\nend\n"},
        {"a longer boundary in the preamble", BYTES("--bc\r\n--b-\r\n--b\r\n" PART "1\r\n--b--"),
         "part 'n'\n> 1\npart end\nend\n"},
        {"in other letters", BYTES("--B\r\n--b\r\n" PART "\r\n--B--\r\n--b--"),
         "part 'n'\n> \\x0d\\x0a--B--\npart end\nend\n"},
    };
    (void)state;
    CHECK_CASES(cases);
}

static void the_name_stands_in_content_disposition(void **state)
{
#define HEADERS(text) BYTES("--b\r\n" text "\r\n\r\n\r\n--b--")
    static const body_case cases[] = {
        {"among others",
         HEADERS("A: b\r\ncontent-disposition:form-data;name=n\r\nContent-Type: x; name=\"y\""),
         "part 'n'\npart end\nend\n"},
        {"with other parameters",
         HEADERS("Content-Disposition: Form-Data; x=y ;NAME=\"n\"; size=1;filename*=utf-8''x"),
         "part 'n'\npart end\nend\n"},
        {"filename first", HEADERS("Content-Disposition: form-data; filename=a.b; name=n"),
         "part 'n' file 'a.b'\npart end\nend\n"},
        {"empty ones", HEADERS("Content-Disposition: form-data; name=\"\"; filename=\"\""),
         "part '' file ''\npart end\nend\n"},
        {"a semicolon at the end", HEADERS("Content-Disposition: form-data; name=n; "),
         "part 'n'\npart end\nend\n"},
        {"escapes are left",
         HEADERS("Content-Disposition: form-data; name=\"a\\\"b\\\\\"; "
                 "filename=\"%22 ;x=\xc3\xa4\""),
         "part 'a\\x5c\"b\\x5c\\x5c' file '%22 ;x=\\xc3\\xa4'\npart end\nend\n"},
        {"a tab", HEADERS("Content-Disposition:\tform-data;\tname=\"a\tb\"\t"),
         "part 'a\\x09b'\npart end\nend\n"},
    };
    (void)state;
    CHECK_CASES(cases);
}

static void parts_that_could_be_read_in_two_ways_are_refused(void **state)
{
#define NO_NAME "BAD a part has no name\n"
#define TWO_NAMES "BAD a part has two names\n"
#define BAD_DISPOSITION "BAD a part's Content-Disposition cannot be read\n"
#define NOT_FORM_DATA "BAD a part's Content-Disposition is not form-data\n"
#define BAD_HEADER "BAD a part has a header that cannot be read\n"
#define NO_CRLF "BAD a part's header does not end in CR LF\n"
#define GLUED "BAD a boundary is followed by something else on its line\n"
    static const body_case cases[] = {
        {"no header", BYTES("--b\r\n\r\n1\r\n--b--"), NO_NAME},
        {"no such header", HEADERS("A: b"), NO_NAME},
        {"no parameter", HEADERS("Content-Disposition: form-data"), NO_NAME},
        {"only a filename", HEADERS("Content-Disposition: form-data; filename=a"), NO_NAME},
        {"two names", HEADERS("Content-Disposition: form-data; name=a; name=a"), TWO_NAMES},
        {"two filenames", HEADERS("Content-Disposition: form-data; name=a; filename=a; FILENAME=a"),
         TWO_NAMES},
        {"two headers",
         HEADERS("Content-Disposition: form-data; name=a\r\n"
                 "content-disposition: form-data; name=b"),
         TWO_NAMES},
        {"another disposition", HEADERS("Content-Disposition: attachment; name=a"), NOT_FORM_DATA},
        {"a longer word", HEADERS("Content-Disposition: form-datas; name=a"), NOT_FORM_DATA},
        {"none", HEADERS("Content-Disposition: ; name=a"), NOT_FORM_DATA},
        {"no semicolon", HEADERS("Content-Disposition: form-data name=a"), BAD_DISPOSITION},
        {"a comma", HEADERS("Content-Disposition: form-data, name=a"), BAD_DISPOSITION},
        {"no value", HEADERS("Content-Disposition: form-data; name"), BAD_DISPOSITION},
        {"nothing for a value", HEADERS("Content-Disposition: form-data; name="), BAD_DISPOSITION},
        {"nothing for a name", HEADERS("Content-Disposition: form-data; =a"), BAD_DISPOSITION},
        {"a space before =", HEADERS("Content-Disposition: form-data; name =a"), BAD_DISPOSITION},
        {"a space behind =", HEADERS("Content-Disposition: form-data; name= a"), BAD_DISPOSITION},
        {"two words", HEADERS("Content-Disposition: form-data; name=a b"), BAD_DISPOSITION},
        {"an open quote", HEADERS("Content-Disposition: form-data; name=\"a"), BAD_DISPOSITION},
        {"an escaped quote", HEADERS("Content-Disposition: form-data; name=\"a\\\""),
         BAD_DISPOSITION},
        {"a quote inside", HEADERS("Content-Disposition: form-data; name=a\"b\""), BAD_DISPOSITION},
        {"text behind a quote", HEADERS("Content-Disposition: form-data; name=\"a\"b"),
         BAD_DISPOSITION},
        {"a folded header", HEADERS("A: b\r\n c\r\nContent-Disposition: form-data; name=a"),
         BAD_HEADER},
        {"a header without a colon", HEADERS("Content-Disposition"), BAD_HEADER},
        {"a header without a name", HEADERS(": form-data; name=a"), BAD_HEADER},
        {"a space before the colon", HEADERS("Content-Disposition : form-data; name=a"),
         BAD_HEADER},
        {"a NUL in a header", HEADERS("Content-Disposition: form-data; name=\"\x00\""), BAD_HEADER},
        {"a CR in a header", HEADERS("Content-Disposition: form-data; name=\"\r\""), BAD_HEADER},
        {"a bare LF", BYTES("--b\r\nContent-Disposition: form-data; name=a\n\r\n\r\n--b--"),
         NO_CRLF},
        {"a bare LF for the empty line",
         BYTES("--b\r\nContent-Disposition: form-data; name=a\r\n\n\r\n--b--"), NO_CRLF},
        {"a bare LF behind the boundary", BYTES("--b\n" PART "\r\n--b--"), GLUED},
        {"a bare LF behind white space", BYTES("--b \n" PART "\r\n--b--"), GLUED},
        {"text behind the boundary", BYTES("--b x\r\n" PART "\r\n--b--"), GLUED},
        {"dashes behind white space", BYTES("--b --\r\n"), GLUED},
        {"a CR behind the boundary", BYTES("--b\r\r\n"), GLUED},
        {"text behind a later boundary", BYTES("--b\r\n" PART "1\r\n--b x\r\n"),
         "part 'n'\n> 1\n" GLUED},
        {"nothing", BYTES(""), CUT_SHORT},
        {"no boundary", BYTES("hello"), CUT_SHORT},
        {"half a boundary", BYTES("--"), CUT_SHORT},
        {"no closing boundary", BYTES("--b\r\n" PART "1\r\n--b\r\n"),
         "part 'n'\n> 1\npart end\n" CUT_SHORT},
        {"half a closing boundary", BYTES("--b\r\n" PART "1\r\n--b-"), "part 'n'\n> 1\n" CUT_SHORT},
    };
    (void)state;
    CHECK_CASES(cases);
}

static void the_headers_of_a_part_have_a_limit(void **state)
{
    size_t over;
    (void)state;
    for (over = 0; over < 2; over++) {
        trace wire = {NULL, 0, 0};
        size_t fixed = sizeof(PART) - 1 + 5; /* X: and CR LF */
        trace_add(&wire, "--b\r\nX: ");
        while (wire.len < 5 + 3 + SBX_MULTIPART_HEAD_MAX - fixed + over)
            trace_add(&wire, "x");
        trace_add(&wire, "\r\n" PART "1\r\n--b--");
        check("multipart/form-data; boundary=b", wire.text, wire.len,
              over ? "BIG the headers of a part are too long\n" : "part 'n'\n> 1\npart end\nend\n",
              "long headers");
        trace_free(&wire);
    }
}

/* ---- boundaries ---- */

#define B70 "0123456789012345678901234567890123456789012345678901234567890123456789"

static void the_boundary_stands_in_the_content_type(void **state)
{
    static const struct {
        const char *content_type, *boundary;
    } cases[] = {
        {"multipart/form-data; boundary=b", "b"},
        {"Multipart/Form-Data;BOUNDARY=b", "b"},
        {"multipart/form-data ; charset=utf-8 ; boundary=\"b\" ", "b"},
        {"multipart/form-data; boundary=----WebKitFormBoundaryAbC1", "----WebKitFormBoundaryAbC1"},
        {"multipart/form-data; boundary=\"a b'()+_,-./:=?c\"", "a b'()+_,-./:=?c"},
        {"multipart/form-data; boundary=a/b=c:d", "a/b=c:d"},
        {"multipart/form-data; boundary=" B70, B70},
        {"multipart/form-data; boundary=--", "--"},
    };
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        trace wire = {NULL, 0, 0};
        trace_add(&wire, "--%s\r\n" PART "1\r\n--x\r\n--%s--", cases[i].boundary,
                  cases[i].boundary);
        check(cases[i].content_type, wire.text, wire.len,
              "part 'n'\n> 1\\x0d\\x0a--x\npart end\nend\n", cases[i].content_type);
        trace_free(&wire);
    }
}

static void a_content_type_without_a_boundary_is_refused(void **state)
{
#define NOT_MULTIPART "the Content-Type is not multipart/form-data"
#define UNREADABLE "the Content-Type cannot be read"
#define NO_BOUNDARY "the Content-Type has no boundary of 1 to 70 characters"
    static const struct {
        const char *content_type, *problem;
    } cases[] = {
        {"", NOT_MULTIPART},
        {"text/plain", NOT_MULTIPART},
        {"multipart/mixed; boundary=b", NOT_MULTIPART},
        {"multipart/form-dat", NOT_MULTIPART},
        {" multipart/form-data; boundary=b", NOT_MULTIPART},
        {"multipart/form-data", NO_BOUNDARY},
        {"multipart/form-data;", NO_BOUNDARY},
        {"multipart/form-data; charset=utf-8", NO_BOUNDARY},
        {"multipart/form-data; boundaries=b", NO_BOUNDARY},
        {"multipart/form-data; boundary=\"\"", NO_BOUNDARY},
        {"multipart/form-data; boundary=\"a \"", NO_BOUNDARY},
        {"multipart/form-data; boundary=\"a\\\"b\"", NO_BOUNDARY},
        {"multipart/form-data; boundary=a@b", NO_BOUNDARY},
        {"multipart/form-data; boundary=\xc3\xa4", NO_BOUNDARY},
        {"multipart/form-data; boundary=" B70 "0", NO_BOUNDARY},
        {"multipart/form-data; boundary=", UNREADABLE},
        {"multipart/form-data; boundary", UNREADABLE},
        {"multipart/form-data; boundary=\"b", UNREADABLE},
        {"multipart/form-data; boundary=b c", UNREADABLE},
        {"multipart/form-datax; boundary=b", UNREADABLE},
        {"multipart/form-data, boundary=b", UNREADABLE},
        {"multipart/form-data; boundary=b; boundary=b", "the Content-Type has two boundaries"},
    };
    guard g = {NULL, 0};
    size_t i, used;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t len = strlen(cases[i].content_type);
        sbx_multipart m;
        sbx_multipart_event event;
        assert_int_equal(
            sbx_multipart_init(&m, (const char *)guard_put(&g, cases[i].content_type, len), len),
            SBX_E_PROTOCOL);
        assert_string_equal(m.problem, cases[i].problem);
        assert_int_equal(sbx_multipart_read(&m, "--b\r\n", 5, &used, &event), SBX_E_PROTOCOL);
        assert_int_equal(used, 0);
        assert_int_equal(sbx_multipart_finish(&m), SBX_E_PROTOCOL);
    }
    guard_free(&g);
}

/* ---- writing ---- */

static void an_upload_is_written_and_read_back(void **state)
{
    static const struct {
        const char *name, *filename, *data, *expected;
    } cases[] = {
        {"file", "file", "hello", "part 'file' file 'file'\n> hello\npart end\nrest 2\nend\n"},
        {"n", NULL, "", "part 'n'\npart end\nrest 2\nend\n"},
        {"", "", "\r\n--boundar",
         "part '' file ''\n> \\x0d\\x0a--boundar\npart end\nrest 2\nend\n"},
        {"a\"b\\", "\r\n\t\x01\x7f\xc3\xa4%22", "1",
         "part 'a%22b%5C' file '%0D%0A%09%01%7F\\xc3\\xa4%22'\n> 1\npart end\nrest 2\nend\n"},
    };
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        trace wire = {NULL, 0, 0};
        char text[256];
        trace_bytes(
            &wire, text,
            sbx_multipart_head(text, sizeof(text), "boundary7", cases[i].name, cases[i].filename));
        assert_int_equal(text[wire.len], 0);
        trace_add(&wire, "%s", cases[i].data);
        trace_bytes(&wire, text, sbx_multipart_tail(text, sizeof(text), "boundary7"));
        check("multipart/form-data; boundary=boundary7", wire.text, wire.len, cases[i].expected,
              cases[i].name);
        trace_free(&wire);
    }
}

static void an_upload_is_written_as_others_write_it(void **state)
{
    char text[256];
    (void)state;
    assert_int_equal(sbx_multipart_head(text, sizeof(text), "AaB03x", "file", "x.bin"), 115);
    assert_string_equal(text,
                        "--AaB03x\r\n"
                        "Content-Disposition: form-data; name=\"file\"; filename=\"x.bin\"\r\n"
                        "Content-Type: application/octet-stream\r\n\r\n");
    assert_int_equal(sbx_multipart_head(text, sizeof(text), "AaB03x", "file", NULL), 57);
    assert_string_equal(text, "--AaB03x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n");
    assert_int_equal(sbx_multipart_tail(text, sizeof(text), "AaB03x"), 14);
    assert_string_equal(text, "\r\n--AaB03x--\r\n");
}

static void nothing_is_written_beyond_the_room_there_is(void **state)
{
    char text[256], *out;
    guard g = {NULL, 0};
    size_t cap, head, tail;
    (void)state;
    head = sbx_multipart_head(text, sizeof(text), B70, "a\"b", "c\\d");
    tail = sbx_multipart_tail(text, sizeof(text), B70);
    for (cap = 0; cap < sizeof(text); cap++) {
        out = (char *)guard_put(&g, text, cap);
        assert_int_equal(sbx_multipart_head(out, cap, B70, "a\"b", "c\\d"), cap > head ? head : 0);
        assert_int_equal(sbx_multipart_tail(out, cap, B70), cap > tail ? tail : 0);
    }
    guard_free(&g);
    assert_int_equal(sbx_multipart_head(NULL, 0, "b", "n", NULL), 0);
}

static void a_boundary_that_could_go_wrong_is_not_written(void **state)
{
    static const char *const cases[] = {"", "a b", "a-b", "a\"b", "a\r\n", "\xc3\xa4", B70 "0"};
    char text[256];
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(sbx_multipart_head(text, sizeof(text), cases[i], "n", NULL), 0);
        assert_int_equal(sbx_multipart_tail(text, sizeof(text), cases[i]), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_read_one_after_the_other),
        cmocka_unit_test(what_only_looks_like_a_boundary_is_data),
        cmocka_unit_test(the_name_stands_in_content_disposition),
        cmocka_unit_test(parts_that_could_be_read_in_two_ways_are_refused),
        cmocka_unit_test(the_headers_of_a_part_have_a_limit),
        cmocka_unit_test(the_boundary_stands_in_the_content_type),
        cmocka_unit_test(a_content_type_without_a_boundary_is_refused),
        cmocka_unit_test(an_upload_is_written_and_read_back),
        cmocka_unit_test(an_upload_is_written_as_others_write_it),
        cmocka_unit_test(nothing_is_written_beyond_the_room_there_is),
        cmocka_unit_test(a_boundary_that_could_go_wrong_is_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
