/* JSON: every production of RFC 8259 and every way to break it, texts and numbers in full, the
   limits, and the writer. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "feed.h"

#include <locale.h>

/* ---- what a reader says, as text ---- */

typedef struct options {
    size_t cap; /* of scratch */
    int utf8_checked;
} options;

static const char *const names[] = {"",       "{",       "}",      "[",    "]",     "key",
                                    "string", "integer", "number", "true", "false", "null"};

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static double from_bits(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* A text that comes in parts is written down as one. */
static void write_down(trace *t, trace *text, const options *o, const sbx_json_event *e)
{
    int is_text = e->type == SBX_JSON_KEY || e->type == SBX_JSON_STRING;
    sbx_utf8 utf8 = {0};
    assert_in_range(e->type, SBX_JSON_OBJECT, SBX_JSON_NULL);
    if (is_text) {
        assert_true(o->utf8_checked || sbx_utf8_check(&utf8, e->text, e->len));
        assert_int_equal(utf8.state, 0);
        if (e->partial)
            assert_in_range(e->len, o->cap - 3, o->cap);
        else if (text->len > 0)
            assert_true(text->len + e->len > o->cap);
        trace_bytes(text, e->text, e->len);
        if (e->partial)
            return;
    } else {
        assert_null(e->text);
        assert_int_equal(e->len, 0);
        assert_int_equal(e->partial, 0);
    }
    trace_add(t, "%d %s", e->depth, names[e->type]);
    if (is_text) {
        trace_add(t, " ");
        trace_quoted(t, trace_text(text), text->len);
        text->len = 0;
    } else if (e->type == SBX_JSON_INTEGER) {
        if (bits_of(e->number) != bits_of(-0.0))
            assert_true(bits_of((double)e->integer) == bits_of(e->number));
        trace_add(t, " %s%lld", bits_of(e->number) == bits_of(-0.0) ? "-" : "",
                  (long long)e->integer);
    } else if (e->type == SBX_JSON_NUMBER) {
        assert_int_equal(e->integer, 0);
        trace_add(t, " %.17g", e->number);
    } else {
        assert_int_equal(e->integer, 0);
        assert_true(bits_of(e->number) == 0);
    }
    trace_add(t, "\n");
}

static void read_document(void *context, feed *f, trace *t)
{
    static guard memory;
    const options *o = (const options *)context;
    char *scratch = (char *)guard_put(&memory, NULL, 0) - o->cap, *piece;
    trace text = {NULL, 0, 0};
    size_t len, used;
    sbx_json j;
    sbx_json_event e;
    sbx_status status = SBX_AGAIN;
    sbx_json_init(&j, scratch, o->cap);
    j.utf8_checked = o->utf8_checked;
    while (status >= 0 && feed_next(f, &piece, &len)) {
        while ((status = sbx_json_read(&j, piece, len, &used, &e)) == SBX_OK) {
            assert_in_range(used, 0, len);
            write_down(t, &text, o, &e);
            piece += used;
            len -= used;
        }
        assert_true(status < 0 ? used <= len : used == len);
    }
    if (status >= 0) {
        assert_true(j.offset == f->len);
        assert_null(j.problem);
        assert_int_equal(sbx_json_read(&j, NULL, 0, &used, &e), status);
        while ((status = sbx_json_finish(&j, &e)) == SBX_OK)
            write_down(t, &text, o, &e);
    }
    if (status == SBX_END) {
        assert_int_equal(sbx_json_read(&j, " ", 1, &used, &e), SBX_END);
        trace_add(t, "end\n");
    } else {
        assert_int_equal(sbx_json_read(&j, " ", 1, &used, &e), status);
        assert_int_equal(used, 0);
        trace_add(t, "%s at %llu: %s\n", sbx_status_name(status), (unsigned long long)j.offset,
                  j.problem);
    }
    assert_int_equal(sbx_json_finish(&j, &e), status);
    trace_free(&text);
}

static void expect_events(const void *json, size_t len, const char *events)
{
    static const size_t caps[] = {16, 17, 31, 4000};
    char name[80];
    size_t i;
    for (i = 0; i < sizeof(caps) / sizeof(*caps); i++) {
        options o = {caps[i], 0};
        snprintf(name, sizeof(name), "%.40s with scratch of %d", (const char *)json, (int)caps[i]);
        feed_every_way(json, len, read_document, &o, events, name);
    }
}

/* What a document gives in one piece, for those that are too many to write down. */
static void read_whole(trace *t, const void *json, size_t len, size_t cap, int utf8_checked)
{
    options o = {cap, utf8_checked};
    feed f = {(const char *)json, len, 0, 0, SIZE_MAX, {NULL, 0}};
    t->len = 0;
    read_document(&o, &f, t);
    guard_free(&f.memory);
}

/* ---- the grammar ---- */

static const struct accepted {
    const char *json, *events;
} accepted[] = {
    {"{}", "0 {\n0 }\nend\n"},
    {"[]", "0 [\n0 ]\nend\n"},
    {"true", "0 true\nend\n"},
    {"false", "0 false\nend\n"},
    {"null", "0 null\nend\n"},
    {"\"\"", "0 string \nend\n"},
    {"\"a\"", "0 string a\nend\n"},
    {"7", "0 integer 7\nend\n"},
    {"-7", "0 integer -7\nend\n"},
    {"0", "0 integer 0\nend\n"},
    {"-0", "0 integer -0\nend\n"},
    {"1.5", "0 number 1.5\nend\n"},
    {" \t\n\r7 \t\n\r", "0 integer 7\nend\n"},
    {"\n{ \r} ", "0 {\n0 }\nend\n"},
    {"[ ]", "0 [\n0 ]\nend\n"},
    {"[1]", "0 [\n1 integer 1\n0 ]\nend\n"},
    {"[1,2]", "0 [\n1 integer 1\n1 integer 2\n0 ]\nend\n"},
    {"[ 1 , 2 ]", "0 [\n1 integer 1\n1 integer 2\n0 ]\nend\n"},
    {"[null,true,false]", "0 [\n1 null\n1 true\n1 false\n0 ]\nend\n"},
    {"[true ,false ]", "0 [\n1 true\n1 false\n0 ]\nend\n"},
    {"[\"\"]", "0 [\n1 string \n0 ]\nend\n"},
    {"[[]]", "0 [\n1 [\n1 ]\n0 ]\nend\n"},
    {"[[],[]]", "0 [\n1 [\n1 ]\n1 [\n1 ]\n0 ]\nend\n"},
    {"[{},[]]", "0 [\n1 {\n1 }\n1 [\n1 ]\n0 ]\nend\n"},
    {"[1,[2,[3]],4]",
     "0 [\n1 integer 1\n1 [\n2 integer 2\n2 [\n3 integer 3\n2 ]\n1 ]\n1 integer 4\n0 ]\nend\n"},
    {"{\"a\":1}", "0 {\n1 key a\n1 integer 1\n0 }\nend\n"},
    {" { \"a\" : 1 } ", "0 {\n1 key a\n1 integer 1\n0 }\nend\n"},
    {"{\"a\":\"b\",\"c\":[]}", "0 {\n1 key a\n1 string b\n1 key c\n1 [\n1 ]\n0 }\nend\n"},
    {"{\"a\" :1 ,\n\t\"b\":2}", "0 {\n1 key a\n1 integer 1\n1 key b\n1 integer 2\n0 }\nend\n"},
    {"{\"\":0}", "0 {\n1 key \n1 integer 0\n0 }\nend\n"},
    {"{\"a\":{\"b\":{}}}", "0 {\n1 key a\n1 {\n2 key b\n2 {\n2 }\n1 }\n0 }\nend\n"},
    {"{\"a\":[{\"b\":null}]}", "0 {\n1 key a\n1 [\n2 {\n3 key b\n3 null\n2 }\n1 ]\n0 }\nend\n"},
    /* Equal keys come as they stand there. */
    {"{\"a\":1,\"a\":1,\"a\":true}",
     "0 {\n1 key a\n1 integer 1\n1 key a\n1 integer 1\n1 key a\n1 true\n0 }\nend\n"},
    /* Keys of every length about that of a word and of a block. */
    {"{\"1234567\":0,\"12345678\":0,\"123456789\":0}",
     "0 {\n1 key 1234567\n1 integer 0\n1 key 12345678\n1 integer 0\n1 key 123456789\n1 integer 0\n"
     "0 }\nend\n"},
    {"{\"123456789012345\":0,\"1234567890123456\":0,\"12345678901234567\":0}",
     "0 {\n1 key 123456789012345\n1 integer 0\n1 key 1234567890123456\n1 integer 0\n"
     "1 key 12345678901234567\n1 integer 0\n0 }\nend\n"},
    /* A number just before a text that goes through scratch. */
    {"[0.5,\"\\n\",1e1,\"a\\tb\"]",
     "0 [\n1 number 0.5\n1 string \\x0a\n1 number 10\n1 string a\\x09b\n0 ]\nend\n"},
    {"{\"type\":\"stdout\",\"data\":\"\\u001b[32m\xe2\x9c\x93\\u001b[0m 1\\n\",\"offset\":4096}",
     "0 {\n1 key type\n1 string stdout\n1 key data\n"
     "1 string \\x1b[32m\\xe2\\x9c\\x93\\x1b[0m 1\\x0a\n1 key offset\n1 integer 4096\n0 }\nend\n"},
    {"{\"exit_code\":-1,\"signal\":null, \"timed_out\":false}",
     "0 {\n1 key exit_code\n1 integer -1\n1 key signal\n1 null\n1 key timed_out\n1 false\n"
     "0 }\nend\n"},
    /* Numbers: all that may stand there, behind each other. */
    {"[0,-0,10,-10,123456]",
     "0 [\n1 integer 0\n1 integer -0\n1 integer 10\n1 integer -10\n1 integer 123456\n0 ]\nend\n"},
    {"[0.0,-0.0,0.5,-0.25,10.75]",
     "0 [\n1 number 0\n1 number -0\n1 number 0.5\n1 number -0.25\n1 number 10.75\n0 ]\nend\n"},
    {"[1e2,1E2,1e+2,1E-2,0e0,0E+1,-0e-1]",
     "0 [\n1 number 100\n1 number 100\n1 number 100\n1 number 0.01\n1 number 0\n1 number 0\n"
     "1 number -0\n0 ]\nend\n"},
    {"[1.25e2,0.5E-1,20e0,1e007]", "0 [\n1 number 125\n1 number 0.050000000000000003\n1 number "
                                   "20\n1 number 10000000\n0 ]\nend\n"},
    {"[1\n,2\t]", "0 [\n1 integer 1\n1 integer 2\n0 ]\nend\n"},
    {"{\"a\":1\r}", "0 {\n1 key a\n1 integer 1\n0 }\nend\n"},
    {"0.1", "0 number 0.10000000000000001\nend\n"},
    {"-1e5", "0 number -100000\nend\n"},
    {"[1e400,-1e400]", "0 [\n1 number inf\n1 number -inf\n0 ]\nend\n"},
    {"[1e-400,-1e-400]", "0 [\n1 number 0\n1 number -0\n0 ]\nend\n"},
    {"[1e99999999999999999999,1e-99999999999999999999]",
     "0 [\n1 number inf\n1 number 0\n0 ]\nend\n"},
    {"[0e99999999999999999999]", "0 [\n1 number 0\n0 ]\nend\n"},
};

static void every_production_of_the_standard_is_read(void **state)
{
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(accepted) / sizeof(*accepted); i++)
        expect_events(accepted[i].json, strlen(accepted[i].json), accepted[i].events);
}

static const char VALUE[] = "a value must stand here";
static const char VALUE_OR_END[] = "a value or ] must stand here";
static const char KEY[] = "a key must stand here";
static const char KEY_OR_END[] = "a key or } must stand here";
static const char COLON[] = "a colon must follow the key";
static const char COMMA_ARRAY[] = "a comma or ] must stand here";
static const char COMMA_OBJECT[] = "a comma or } must stand here";
static const char SPACE[] = "only white space may follow the document";
static const char SHORT[] = "the document is cut short";
static const char WORD[] = "this is neither true nor false nor null";
static const char MARK[] = "a byte order mark must not stand here";
static const char CONTROL[] = "a control character must be escaped";
static const char ESCAPE[] = "there is no such escape";
static const char HEX[] = "four hexadecimal digits must follow \\u";
static const char HALF[] = "half a surrogate pair stands alone";
static const char UTF8[] = "the text is not valid UTF-8";
static const char MINUS[] = "a digit must follow the minus sign";
static const char ZERO[] = "a number must not begin with a zero that is not all of it";
static const char POINT[] = "a digit must follow the decimal point";
static const char EXPONENT[] = "a digit must follow the exponent's e";

static const struct refused {
    const char *json;
    int offset;
    const char *problem;
} refused[] = {
    /* Nothing, or the beginning of something. */
    {"", 0, SHORT},
    {" ", 1, SHORT},
    {"\n\r\t ", 4, SHORT},
    {"[", 1, SHORT},
    {"[1", 2, SHORT},
    {"[1,", 3, SHORT},
    {"[[]", 3, SHORT},
    {"[\"a", 3, SHORT},
    {"{", 1, SHORT},
    {"{\"a", 3, SHORT},
    {"{\"a\"", 4, SHORT},
    {"{\"a\":", 5, SHORT},
    {"{\"a\":1", 6, SHORT},
    {"{\"a\":1,", 7, SHORT},
    {"{\"a\":{}", 7, SHORT},
    {"\"", 1, SHORT},
    {"\"abc", 4, SHORT},
    {"\"abcdefghijklmnopqrstuvwxyz", 27, SHORT},
    {"\"\\", 2, SHORT},
    {"\"\\\"", 3, SHORT},
    {"\"\\u", 3, SHORT},
    {"\"\\u00e", 6, SHORT},
    {"\"\\ud83d", 7, SHORT},
    {"\"\\ud83d\\u", 9, SHORT},
    {"\"\xc3", 2, SHORT},
    {"t", 1, SHORT},
    {"tru", 3, SHORT},
    {"nul", 3, SHORT},
    {"-", 1, SHORT},
    {"1.", 2, SHORT},
    {"1e", 2, SHORT},
    {"1e+", 3, SHORT},
    /* What cannot begin a value. */
    {"x", 0, VALUE},
    {" x", 1, VALUE},
    {"]", 0, VALUE},
    {"}", 0, VALUE},
    {",", 0, VALUE},
    {":", 0, VALUE},
    {"'a'", 0, VALUE},
    {"`", 0, VALUE},
    {"*", 0, VALUE},
    {"(", 0, VALUE},
    {"<.>", 0, VALUE},
    {"<null>", 0, VALUE},
    {"\\n", 0, VALUE},
    {"/* */ 1", 0, VALUE},
    {"// a\n1", 0, VALUE},
    {"# a\n1", 0, VALUE},
    {"\x0c[]", 0, VALUE},
    {"\x0b[]", 0, VALUE},
    {"\x1f[]", 0, VALUE},
    {"\x7f", 0, VALUE},
    {"\xc2\xa0[]", 0, VALUE},
    {"\xe2\x81\xa0[]", 0, VALUE},
    {"\xff\xfe[\x01", 0, VALUE},
    {"\xfe\xff", 0, VALUE},
    {"\xef\xbb\xbf[]", 0, MARK},
    {"\xef\xbb\xbf", 0, MARK},
    {" \xef\xbb\xbf{}", 1, MARK},
    {"[\xef\xbb\xbf]", 1, VALUE_OR_END},
    {"[x", 1, VALUE_OR_END},
    {"[a]", 1, VALUE_OR_END},
    {"[\x61]", 1, VALUE_OR_END},
    {"[,1]", 1, VALUE_OR_END},
    {"[,]", 1, VALUE_OR_END},
    {"[:1]", 1, VALUE_OR_END},
    {"[}", 1, VALUE_OR_END},
    {"['a']", 1, VALUE_OR_END},
    {"[*]", 1, VALUE_OR_END},
    {"[\xc3\xa5]", 1, VALUE_OR_END},
    {"[\x0c]", 1, VALUE_OR_END},
    {"[1,,2]", 3, VALUE},
    {"[1,]", 3, VALUE},
    {"[1, ]", 4, VALUE},
    {"[\"\",]", 4, VALUE},
    {"[1,}", 3, VALUE},
    {"[1,\n1\n,", 7, SHORT},
    {"[[],x]", 4, VALUE},
    {"{\"a\":}", 5, VALUE},
    {"{\"a\":,", 5, VALUE},
    {"{\"a\"::1}", 5, VALUE},
    {"{\"a\":]}", 5, VALUE},
    {"{\"a\":x", 5, VALUE},
    {"{\"a\": b}", 6, VALUE},
    /* Between values. */
    {"[1 2]", 3, COMMA_ARRAY},
    {"[1:2]", 2, COMMA_ARRAY},
    {"[1;2]", 2, COMMA_ARRAY},
    {"[\"\":1]", 3, COMMA_ARRAY},
    {"[\"a\"\"b\"]", 4, COMMA_ARRAY},
    {"[1}", 2, COMMA_ARRAY},
    {"[3[4]]", 2, COMMA_ARRAY},
    {"[[]{}]", 3, COMMA_ARRAY},
    {"[1true]", 2, COMMA_ARRAY},
    {"[true1]", 5, COMMA_ARRAY},
    {"[nullx]", 5, COMMA_ARRAY},
    {"[\"a\"\\n]", 4, COMMA_ARRAY},
    {"{\"a\":1 \"b\"}", 7, COMMA_OBJECT},
    {"{\"a\":1:\"b\"}", 6, COMMA_OBJECT},
    {"{\"a\":\"b\"]", 8, COMMA_OBJECT},
    {"{\"a\":[]]", 7, COMMA_OBJECT},
    {"{\"a\":\"b\"/**/}", 8, COMMA_OBJECT},
    {"{\"a\":1 2}", 7, COMMA_OBJECT},
    {"{\"a\":truex}", 9, COMMA_OBJECT},
    {"{\"a\":{}x", 7, COMMA_OBJECT},
    {"{\"a\" 1}", 5, COLON},
    {"{\"a\"}", 4, COLON},
    {"{\"a\",1}", 4, COLON},
    {"{\"a\"\"b\"}", 4, COLON},
    {"{\"a\"]", 4, COLON},
    {"{\"a\" b}", 5, COLON},
    /* Keys. */
    {"{1:1}", 1, KEY_OR_END},
    {"{9999E9999:1}", 1, KEY_OR_END},
    {"{null:null}", 1, KEY_OR_END},
    {"{a:\"b\"}", 1, KEY_OR_END},
    {"{'a':0}", 1, KEY_OR_END},
    {"{[]:1}", 1, KEY_OR_END},
    {"{:1}", 1, KEY_OR_END},
    {"{,", 1, KEY_OR_END},
    {"{]", 1, KEY_OR_END},
    {"{{}}", 1, KEY_OR_END},
    {"{\xf0\x9f\x87\xa8}", 1, KEY_OR_END},
    {"{\"a\":0,}", 7, KEY},
    {"{\"a\":0, }", 8, KEY},
    {"{\"a\":0,,\"b\":1}", 7, KEY},
    {"{\"a\":0,1:2}", 7, KEY},
    {"{\"a\":\"b\",c:1}", 9, KEY},
    {"{\"a\":0,]", 7, KEY},
    /* Behind the document. */
    {"[] x", 3, SPACE},
    {"[]]", 2, SPACE},
    {"{}}", 2, SPACE},
    {"[],", 2, SPACE},
    {"[][]", 2, SPACE},
    {"{}{}", 2, SPACE},
    {"{}#", 2, SPACE},
    {"{}//", 2, SPACE},
    {"{}/**/", 2, SPACE},
    {"{\"a\":true} \"x\"", 11, SPACE},
    {"1]", 1, SPACE},
    {"1,2", 1, SPACE},
    {"2@", 1, SPACE},
    {"1 2", 2, SPACE},
    {"\"a\" \"b\"", 4, SPACE},
    {"\"a\":1", 3, SPACE},
    {"\"\"x", 2, SPACE},
    {"nullx", 4, SPACE},
    {"truetrue", 4, SPACE},
    {"[]\xef\xbb\xbf", 2, SPACE},
    {"[]\xe2\x80\xa8", 2, SPACE},
    {"[]\x0c", 2, SPACE},
    /* Words. */
    {"True", 0, VALUE},
    {"TRUE", 0, VALUE},
    {"[True]", 1, VALUE_OR_END},
    {"tRue", 1, WORD},
    {"trua", 3, WORD},
    {"tr\"", 2, WORD},
    {"falsE", 4, WORD},
    {"fals,", 4, WORD},
    {"nil", 1, WORD},
    {"nan", 1, WORD},
    {"[nul]", 4, WORD},
    {"[tru]", 4, WORD},
    {"[fals]", 5, WORD},
    {"n\xc3\xba", 1, WORD},
    {"NaN", 0, VALUE},
    {"Infinity", 0, VALUE},
    {"[NaN]", 1, VALUE_OR_END},
    {"[Inf]", 1, VALUE_OR_END},
    {"undefined", 0, VALUE},
    /* Numbers. */
    {"+1", 0, VALUE},
    {"[+1]", 1, VALUE_OR_END},
    {"[++1]", 1, VALUE_OR_END},
    {"[+Inf]", 1, VALUE_OR_END},
    {".5", 0, VALUE},
    {"[.123]", 1, VALUE_OR_END},
    {"[-.5]", 2, MINUS},
    {"-", 1, SHORT},
    {"[-]", 2, MINUS},
    {"[- 1]", 2, MINUS},
    {"[--1]", 2, MINUS},
    {"[-+1]", 2, MINUS},
    {"[-a]", 2, MINUS},
    {"[-Infinity]", 2, MINUS},
    {"[-NaN]", 2, MINUS},
    {"[-\"1\"]", 2, MINUS},
    {"01", 1, ZERO},
    {"00", 1, ZERO},
    {"[012]", 2, ZERO},
    {"[-01]", 3, ZERO},
    {"[-012]", 3, ZERO},
    {"[-00]", 3, ZERO},
    {"[000000000000000000000001]", 2, ZERO},
    {"[0.]", 3, POINT},
    {"[1.]", 3, POINT},
    {"[-2.]", 4, POINT},
    {"[2.e3]", 3, POINT},
    {"[2.e+3]", 3, POINT},
    {"[0.e1]", 3, POINT},
    {"[1..2]", 3, POINT},
    {"[1.-2]", 3, POINT},
    {"[1. 2]", 3, POINT},
    {"[1.2.3]", 4, COMMA_ARRAY},
    {"[0.1.2]", 4, COMMA_ARRAY},
    {"[1e]", 3, EXPONENT},
    {"[1E]", 3, EXPONENT},
    {"[0e]", 3, EXPONENT},
    {"[0e+]", 4, EXPONENT},
    {"[1.0e-]", 6, EXPONENT},
    {"[1.0e+]", 6, EXPONENT},
    {"[1eE2]", 3, EXPONENT},
    {"[1e+-2]", 4, EXPONENT},
    {"[1e.5]", 3, EXPONENT},
    {"[9.3e+]", 6, EXPONENT},
    {"[1e a]", 3, EXPONENT},
    {"[1e1.5]", 4, COMMA_ARRAY},
    {"[1e1e1]", 4, COMMA_ARRAY},
    {"[1-2]", 2, COMMA_ARRAY},
    {"[1+2]", 2, COMMA_ARRAY},
    {"[1 000.0]", 3, COMMA_ARRAY},
    {"[1_000]", 2, COMMA_ARRAY},
    {"[0x1]", 2, COMMA_ARRAY},
    {"[0x42]", 2, COMMA_ARRAY},
    {"[1a]", 2, COMMA_ARRAY},
    {"[1.5f]", 4, COMMA_ARRAY},
    {"[1.2a-3]", 4, COMMA_ARRAY},
    {"[123\xe5]", 4, COMMA_ARRAY},
    {"[1e1\xe5]", 4, COMMA_ARRAY},
    {"[0\xe5]", 2, COMMA_ARRAY},
    {"[\xef\xbc\x91]", 1, VALUE_OR_END},
    {"1a", 1, SPACE},
    {"1.5.", 3, SPACE},
    {"123456789012345678901234567890x", 30, SPACE},
    /* Texts. */
    {"\"a\nb\"", 2, CONTROL},
    {"\"\t\"", 1, CONTROL},
    {"\"\r\"", 1, CONTROL},
    {"\"\x01\"", 1, CONTROL},
    {"\"\x1f\"", 1, CONTROL},
    {"\"abcdefghijklmnopqrstuvwxyz\x10\"", 27, CONTROL},
    {"\"abcdefgh\\n\x1e\"", 11, CONTROL},
    {"{\"a\nb\":1}", 3, CONTROL},
    {"[\"a\x08\"]", 3, CONTROL},
    {"\"\\a\"", 2, ESCAPE},
    {"\"\\x00\"", 2, ESCAPE},
    {"\"\\v\"", 2, ESCAPE},
    {"\"\\0\"", 2, ESCAPE},
    {"\"\\'\"", 2, ESCAPE},
    {"\"\\N\"", 2, ESCAPE},
    {"\"\\U0041\"", 2, ESCAPE},
    {"\"\\ \"", 2, ESCAPE},
    {"\"\\\n\"", 2, ESCAPE},
    {"\"\\\t\"", 2, ESCAPE},
    {"\"\\\x1f\"", 2, ESCAPE},
    {"\"\\\xe5\"", 2, ESCAPE},
    {"\"\\\xf0\x9f\x8c\x80\"", 2, ESCAPE},
    {"\"\\\\\\x\"", 4, ESCAPE},
    {"\"abcdefghijklmnopqrstuvwxyz\\q\"", 28, ESCAPE},
    {"{\"\\x\":1}", 3, ESCAPE},
    {"\"\\u\"", 3, HEX},
    {"\"\\u1\"", 4, HEX},
    {"\"\\u12\"", 5, HEX},
    {"\"\\u123\"", 6, HEX},
    {"\"\\u00A\"", 6, HEX},
    {"\"\\u000g\"", 6, HEX},
    {"\"\\u001g          \"", 6, HEX},
    {"\"\\ug000           \"", 3, HEX},
    {"\"\\u0g00           \"", 4, HEX},
    {"\"\\u00g0           \"", 5, HEX},
    {"\"\\u00/0           \"", 5, HEX},
    {"\"\\u00:0           \"", 5, HEX},
    {"\"\\u00@0           \"", 5, HEX},
    {"\"\\u00`0           \"", 5, HEX},
    {"\"\\u+123\"", 3, HEX},
    {"\"\\u 123\"", 3, HEX},
    {"\"\\u{41}\"", 3, HEX},
    {"\"\\u00\xc3\xa5\"", 5, HEX},
    {"\"\\u00\\u41\"", 5, HEX},
    {"\"\\u\x11\x11\x11\x11          \"", 3, HEX},
    {"\"\\udc00\"", 4, HALF},
    {"\"\\uDFFF\"", 4, HALF},
    {"\"\\ude00\\ud83d\"", 4, HALF},
    {"\"a\\udc00abcdefghijklmnopq\"", 5, HALF},
    {"\"\\ud800\"", 7, HALF},
    {"\"\\uDBFF\"", 7, HALF},
    {"\"\\ud800a\"", 7, HALF},
    {"\"\\ud800 \\udc00\"", 7, HALF},
    {"\"\\ud800\\n\"", 8, HALF},
    {"\"\\ud800\\\"\"", 8, HALF},
    {"\"\\ud800\\u0041\"", 9, HALF},
    {"\"\\ud800\\ue000\"", 9, HALF},
    {"\"\\ud800\\ud800\\n\"", 10, HALF},
    {"\"\\ud800\\udbff\"", 10, HALF},
    {"\"\\ud800\\ud000\"", 10, HALF},
    {"\"\\ud800\\ux\"", 9, HEX},
    {"\"\\ud800\\udc\"", 11, HEX},
    {"\"\\ud800\\udc0\"", 12, HEX},
    {"\"\\ud800\\udc0g\"", 12, HEX},
    {"[\"\\uD83D\\uDE00\\uD83D\"]", 20, HALF},
    {"\"\x80\"", 1, UTF8},
    {"\"\xbf\"", 1, UTF8},
    {"\"\xc0\xaf\"", 1, UTF8},
    {"\"\xc1\xbf\"", 1, UTF8},
    {"\"\xc3\"", 2, UTF8},
    {"\"\xc3\\n\"", 2, UTF8},
    {"\"\xc3\x28\"", 2, UTF8},
    {"\"\xc3\xc3\xa9\"", 2, UTF8},
    {"\"\xe0\x80\xaf\"", 2, UTF8},
    {"\"\xe0\x9f\xbf\"", 2, UTF8},
    {"\"\xe2\x82\"", 3, UTF8},
    {"\"\xe2\x82\\u20ac\"", 3, UTF8},
    {"\"\xe2\x28\xa1\"", 2, UTF8},
    {"\"\xed\xa0\x80\"", 2, UTF8},
    {"\"\xed\xbf\xbf\"", 2, UTF8},
    {"\"\xf0\x80\x80\x80\"", 2, UTF8},
    {"\"\xf0\x9f\x98\"", 4, UTF8},
    {"\"\xf4\x90\x80\x80\"", 2, UTF8},
    {"\"\xf5\x80\x80\x80\"", 1, UTF8},
    {"\"\xf8\x88\x80\x80\x80\"", 1, UTF8},
    {"\"\xfe\"", 1, UTF8},
    {"\"\xff\"", 1, UTF8},
    {"\"abcdefghijklmnopqrstuvwxyz\xff\"", 27, UTF8},
    {"\"\xc3\xa9 \\n \xff \\q\"", 7, UTF8},
    {"\"\xff\x1f\"", 1, UTF8},
    {"\"\xff\\q\"", 1, UTF8},
    {"[\"\xff\",\"and more\"]", 2, UTF8},
    {"[\"a\xe9\",\"and more\"]", 4, UTF8},
    {"{\"\xe9\":1}", 3, UTF8},
    {"{\"k\xe9\":1}", 4, UTF8},
    {"[\"\xe9t\xe9\"]", 3, UTF8},
};

/* The events before the byte are the same in every way of feeding too. */
static void what_the_standard_refuses_is_refused_at_the_byte(void **state)
{
    char last[200];
    trace t = {NULL, 0, 0};
    size_t i, len;
    (void)state;
    for (i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
        const struct refused *r = &refused[i];
        snprintf(last, sizeof(last), "SBX_E_PROTOCOL at %d: %s\n", r->offset, r->problem);
        read_whole(&t, r->json, strlen(r->json), 64, 0);
        len = strlen(last);
        if (t.len < len || strcmp(t.text + t.len - len, last) != 0)
            fail_msg("%s:\n%s--- does not end with ---\n%s", r->json, t.text, last);
        expect_events(r->json, strlen(r->json), t.text);
    }
    trace_free(&t);
}

static void every_byte_is_judged_alone(void **state)
{
    static const char escapes[] = "\"\\/bfnrt";
    char json[8], problem[100];
    trace t = {NULL, 0, 0};
    int c;
    (void)state;
    for (c = 0; c < 256; c++) {
        int digit = c >= '0' && c <= '9', space = c && strchr(" \t\r\n", c) != NULL;
        memcpy(json, "[x]", 3);
        json[1] = (char)c;
        read_whole(&t, json, 3, 16, 0);
        assert_int_equal(strstr(t.text, "end\n") != NULL, digit || space);
        memcpy(json, "\"x\"", 3);
        read_whole(&t, json, 3, 16, 0);
        assert_true(strcmp(t.text, "0 string x\nend\n") == 0);
        json[1] = (char)c;
        read_whole(&t, json, 3, 16, 0);
        assert_int_equal(strstr(t.text, "end\n") != NULL,
                         c >= 0x20 && c < 0x80 && c != '"' && c != '\\');
        if (c < 0x20) {
            snprintf(problem, sizeof(problem), "SBX_E_PROTOCOL at 1: %s\n", CONTROL);
            assert_string_equal(t.text, problem);
        }
        memcpy(json, "\"\\x\"", 4);
        json[2] = (char)c;
        read_whole(&t, json, 4, 16, 0);
        assert_int_equal(strstr(t.text, "end\n") != NULL, c && strchr(escapes, c) != NULL);
    }
    trace_free(&t);
}

static void a_byte_is_judged_the_same_anywhere_in_a_text(void **state)
{
    static const char plain[] = "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklm";
    char json[80], expected[200];
    trace t = {NULL, 0, 0};
    size_t at, len = sizeof(plain) - 1;
    int c;
    (void)state;
    for (c = 0; c < 256; c++) {
        for (at = 0; at < len; at++) {
            snprintf(json, sizeof(json), "\"%s\"", plain);
            json[1 + at] = (char)c;
            read_whole(&t, json, len + 2, at % 2 ? 16 : 4000, 0);
            if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
                assert_int_equal(t.len, strlen("0 string \nend\n") + len);
                assert_int_equal(t.text[9 + at], c);
            } else if (c < 0x20 || c >= 0x80) {
                /* A lead byte is good until its successor comes. */
                snprintf(expected, sizeof(expected), "SBX_E_PROTOCOL at %d: %s\n",
                         (int)at + (c >= 0xc2 && c <= 0xf4 ? 2 : 1), c < 0x20 ? CONTROL : UTF8);
                assert_string_equal(t.text, expected);
            } else if (c != '\\') {
                assert_non_null(strstr(t.text, c == '"' ? SPACE : "end\n"));
            }
        }
    }
    trace_free(&t);
}

static void a_number_ends_with_the_data_only_at_the_top(void **state)
{
    (void)state;
    expect_events("[1", 2, "0 [\nSBX_E_PROTOCOL at 2: the document is cut short\n");
    expect_events("-12", 3, "0 integer -12\nend\n");
    expect_events("1e5", 3, "0 number 100000\nend\n");
}

static void a_nul_is_a_byte_like_others(void **state)
{
    char line[100];
    (void)state;
    snprintf(line, sizeof(line), "SBX_E_PROTOCOL at 0: %s\n", VALUE);
    expect_events("\0", 1, line);
    snprintf(line, sizeof(line), "0 [\n1 integer 1\nSBX_E_PROTOCOL at 2: %s\n", COMMA_ARRAY);
    expect_events("[1\0]", 4, line);
    snprintf(line, sizeof(line), "SBX_E_PROTOCOL at 2: %s\n", CONTROL);
    expect_events("\"a\0\"", 4, line);
    snprintf(line, sizeof(line), "0 [\n0 ]\nSBX_E_PROTOCOL at 2: %s\n", SPACE);
    expect_events("[]\0", 3, line);
    expect_events("\"\\u0000a\"", 9, "0 string \\x00a\nend\n");
}

/* ---- texts ---- */

static const struct text {
    const char *json, *bytes;
} texts[] = {
    {"\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t"},
    {"\\\\n", "\\n"},
    {"\\\\u0041", "\\u0041"},
    {"\\u0041\\u004a\\u004A", "AJJ"},
    {"\\u0022\\u005c\\u002F", "\"\\/"},
    {"\\u001b[31m\\u001B", "\x1b[31m\x1b"},
    {"\\u0010\\u0019\\u001a\\u001f\\u000f", "\x10\x19\x1a\x1f\x0f"},
    {"\\u007f\\u0080\\u00e9", "\x7f\xc2\x80\xc3\xa9"},
    {"\\u07ff\\u0800\\u20ac", "\xdf\xbf\xe0\xa0\x80\xe2\x82\xac"},
    {"\\ud7ff\\ue000\\ufffd\\uFFFE\\uffff",
     "\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd\xef\xbf\xbe\xef\xbf\xbf"},
    {"\\ud800\\udc00\\uDBFF\\uDFFF", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"},
    {"\\ud83d\\ude00", "\xf0\x9f\x98\x80"},
    {"x\\uD834\\udd1ey", "x\xf0\x9d\x84\x9ey"},
    {"\\u2028\\u2029\\ufeff", "\xe2\x80\xa8\xe2\x80\xa9\xef\xbb\xbf"},
    {"\x7f", "\x7f"},
    {"\xc2\x80\xdf\xbf", "\xc2\x80\xdf\xbf"},
    {"\xe0\xa0\x80\xef\xbf\xbf", "\xe0\xa0\x80\xef\xbf\xbf"},
    {"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"},
    {"\xef\xbb\xbf", "\xef\xbb\xbf"},
    {"{[,:]} /* */", "{[,:]} /* */"},
    {"a\\nb\xc3\xa9\\u00e9c\\td", "a\nb\xc3\xa9\xc3\xa9"
                                  "c\td"},
    {"0123456789abcdef\\n0123456789abcdefg\\n", "0123456789abcdef\n0123456789abcdefg\n"},
    {"0123456789abcde\\\\0123456789abcde\\\"", "0123456789abcde\\0123456789abcde\""},
    {"0123456789abcdefghijklmnopqrstuvwxyz", "0123456789abcdefghijklmnopqrstuvwxyz"},
};

static void escapes_and_characters_become_their_utf8(void **state)
{
    trace json = {NULL, 0, 0}, events = {NULL, 0, 0};
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        const struct text *x = &texts[i];
        json.len = events.len = 0;
        trace_add(&json, "{\"%s\":[\"%s\"]}", x->json, x->json);
        trace_add(&events, "0 {\n1 key ");
        trace_quoted(&events, x->bytes, strlen(x->bytes));
        trace_add(&events, "\n1 [\n2 string ");
        trace_quoted(&events, x->bytes, strlen(x->bytes));
        trace_add(&events, "\n1 ]\n0 }\nend\n");
        expect_events(json.text, json.len, events.text);
    }
    trace_free(&json);
    trace_free(&events);
}

/* A character as UTF-8; returns its length. */
static size_t encode(unsigned long code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 + code / 64);
        out[1] = (char)(0x80 + code % 64);
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 + code / 4096);
        out[1] = (char)(0x80 + code / 64 % 64);
        out[2] = (char)(0x80 + code % 64);
        return 3;
    }
    out[0] = (char)(0xf0 + code / 262144);
    out[1] = (char)(0x80 + code / 4096 % 64);
    out[2] = (char)(0x80 + code / 64 % 64);
    out[3] = (char)(0x80 + code % 64);
    return 4;
}

/* Reads a document that is one text of at most 16 bytes in pieces of at most `most`. */
static sbx_status read_text(const char *json, size_t len, size_t most, char *out, size_t *out_len,
                            uint64_t *offset)
{
    char scratch[16];
    sbx_json j;
    sbx_json_event e;
    sbx_status status = SBX_AGAIN;
    size_t at = 0, used, n;
    *out_len = 0;
    sbx_json_init(&j, scratch, sizeof(scratch));
    while (at < len && status >= 0) {
        n = len - at < most ? len - at : most;
        status = sbx_json_read(&j, json + at, n, &used, &e);
        at += used;
        if (status == SBX_OK) {
            memcpy(out, e.text, e.len);
            *out_len = e.len;
        }
    }
    *offset = j.offset;
    return status < 0 ? status : sbx_json_finish(&j, &e);
}

static void every_code_that_can_be_escaped_is_what_it_says(void **state)
{
    char json[40], want[4], got[16];
    unsigned long code;
    size_t len, want_len, most;
    uint64_t offset;
    (void)state;
    for (code = 0; code < 0x10000; code++) {
        int surrogate = code >= 0xd800 && code < 0xe000;
        snprintf(json, sizeof(json), code % 2 ? "\"\\u%04lx\"" : "\"\\u%04lX\"", code);
        want_len = encode(code, want);
        for (most = 1; most <= 8; most += 7) {
            sbx_status status = read_text(json, 8, most, got, &len, &offset);
            assert_int_equal(status, surrogate ? SBX_E_PROTOCOL : SBX_END);
            if (surrogate) {
                assert_int_equal(offset, code < 0xdc00 ? 7 : 4);
            } else {
                assert_int_equal(len, want_len);
                assert_memory_equal(got, want, len);
            }
        }
    }
}

static void every_second_half_is_judged(void **state)
{
    static const unsigned long high[] = {0xd800, 0xd83d, 0xdbff};
    char json[40], want[4], got[16];
    unsigned long low;
    size_t i, len, most;
    uint64_t offset;
    (void)state;
    for (i = 0; i < 3; i++) {
        for (low = 0; low < 0x10000; low += low >= 0xdb00 && low < 0xe100 ? 1 : 0x100) {
            int pair = low >= 0xdc00 && low < 0xe000;
            snprintf(json, sizeof(json), "\"\\u%04lx\\u%04lx\"", high[i], low);
            for (most = 1; most <= 14; most += 13) {
                sbx_status status = read_text(json, 14, most, got, &len, &offset);
                assert_int_equal(status, pair ? SBX_END : SBX_E_PROTOCOL);
                if (!pair) {
                    assert_int_equal(offset, low >> 12 == 0xd ? 10 : 9);
                    continue;
                }
                assert_int_equal(len,
                                 encode(0x10000 + (high[i] - 0xd800) * 0x400 + low - 0xdc00, want));
                assert_memory_equal(got, want, 4);
            }
        }
    }
}

/* All that starts with any two bytes that are not ASCII, by what the UTF-8 check says of it. */
static void texts_are_checked_for_utf8(void **state)
{
    static const char *const tails[] = {"\"", "\x80\"", "\xbf\xbf\"", "a\"", "\\n\""};
    char json[16], got[16];
    size_t i, len, text_len, bad, most;
    uint64_t offset;
    int a, b;
    (void)state;
    for (a = 0x80; a < 0x100; a++) {
        for (b = 0x80; b < 0x100; b++) {
            for (i = 0; i < sizeof(tails) / sizeof(*tails); i++) {
                sbx_utf8 utf8 = {0};
                len = (size_t)snprintf(json, sizeof(json), "\"%c%c%s", a, b, tails[i]);
                for (bad = 1; bad < len && sbx_utf8_check(&utf8, json + bad, 1);)
                    bad++;
                for (most = 1; most <= len; most += len - 1) {
                    sbx_status status = read_text(json, len, most, got, &text_len, &offset);
                    assert_int_equal(status, bad == len ? SBX_END : SBX_E_PROTOCOL);
                    if (bad < len)
                        assert_int_equal(offset, bad);
                }
            }
        }
    }
}

/* Characters of every length, escaped and not, at every place about the end of scratch. */
static void long_texts_come_in_parts_that_divide_no_character(void **state)
{
    static const char *const ends[] = {"b",        "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                                       "\\n",      "\\u00e9",  "\\u20ac",      "\\ud83d\\ude00",
                                       "\\u001b[", "\\\\"};
    trace json = {NULL, 0, 0}, whole = {NULL, 0, 0};
    options o = {16, 0};
    size_t i, n, k;
    (void)state;
    for (i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
        for (n = 8; n < 36; n++) {
            json.len = 0;
            trace_add(&json, "\"%.*s", (int)n, "0123456789abcdefghijklmnopqrstuvwxyz");
            for (k = 0; k < 12; k++)
                trace_add(&json, "%s", ends[i]);
            trace_add(&json, "\"");
            read_whole(&whole, json.text, json.len, 4000, 0);
            assert_non_null(strstr(whole.text, "end\n"));
            feed_every_way(json.text, json.len, read_document, &o, whole.text, ends[i]);
        }
    }
    trace_free(&json);
    trace_free(&whole);
}

static void a_text_as_long_as_scratch_comes_in_one_event(void **state)
{
    char scratch[20];
    sbx_json j;
    sbx_json_event e;
    size_t used;
    (void)state;
    sbx_json_init(&j, scratch, sizeof(scratch));
    assert_int_equal(sbx_json_read(&j, "[\"0123456789", 12, &used, &e), SBX_OK);
    assert_int_equal(sbx_json_read(&j, "\"0123456789", 11, &used, &e), SBX_AGAIN);
    assert_int_equal(used, 11);
    assert_int_equal(sbx_json_read(&j, "012345\\ud83d", 12, &used, &e), SBX_AGAIN);
    assert_int_equal(sbx_json_read(&j, "\\ude00", 6, &used, &e), SBX_AGAIN);
    assert_int_equal(sbx_json_read(&j, "\"]", 2, &used, &e), SBX_OK);
    assert_int_equal(e.len, 20);
    assert_int_equal(e.partial, 0);
    assert_ptr_equal(e.text, scratch);
    assert_memory_equal(e.text, "0123456789012345\xf0\x9f\x98\x80", 20);
}

static void a_text_without_escapes_is_lent_from_the_data(void **state)
{
    static const char json[] =
        "[\"\",\"short\",\"in scratch\",\"long enough to be longer than all scratch\",\"\\n\"]";
    char scratch[16];
    sbx_json j;
    sbx_json_event e;
    size_t used, at = 0, n = 0;
    (void)state;
    sbx_json_init(&j, scratch, sizeof(scratch));
    while (sbx_json_read(&j, json + at, sizeof(json) - 1 - at, &used, &e) == SBX_OK) {
        at += used;
        if (e.type != SBX_JSON_STRING)
            continue;
        assert_int_equal(e.partial, 0);
        if (n++ < 4)
            assert_in_range((uintptr_t)e.text, (uintptr_t)json, (uintptr_t)json + sizeof(json));
        else
            assert_ptr_equal(e.text, scratch);
    }
    assert_int_equal(n, 5);
}

static void texts_are_kept_by_moving_scratch_on(void **state)
{
    static const char json[] = "{\"a\":\"\\none\",\"b\\t\":\"\\\\two\"}";
    char scratch[40];
    sbx_json j;
    sbx_json_event e;
    size_t used, at = 0;
    (void)state;
    memset(scratch, 0, sizeof(scratch));
    sbx_json_init(&j, scratch, sizeof(scratch));
    while (sbx_json_read(&j, json + at, sizeof(json) - 1 - at, &used, &e) == SBX_OK) {
        at += used;
        if (e.text == j.scratch) {
            j.scratch += e.len;
            j.cap -= e.len;
        }
    }
    assert_memory_equal(scratch, "\noneb\t\\two", 10);
}

static void utf8_that_was_checked_before_is_not_checked_again(void **state)
{
    static const char mixed[] = "[\"\xc3\xa9\\n\",\"\xff\",\"\xc3\"]";
    static const char bad[] =
        "\"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\"";
    trace t = {NULL, 0, 0};
    char scratch[16];
    sbx_json j;
    sbx_json_event e;
    size_t used;
    (void)state;
    read_whole(&t, mixed, sizeof(mixed) - 1, 64, 1);
    assert_string_equal(t.text, "0 [\n1 string \\xc3\\xa9\\x0a\n1 string \\xff\n1 string \\xc3\n"
                                "0 ]\nend\n");
    read_whole(&t, "\"\x1f\"", 3, 64, 1);
    assert_non_null(strstr(t.text, CONTROL));
    trace_free(&t);
    /* Whatever the bytes are, the reader gets on. */
    sbx_json_init(&j, scratch, sizeof(scratch));
    j.utf8_checked = 1;
    assert_int_equal(sbx_json_read(&j, bad, 10, &used, &e), SBX_AGAIN);
    assert_int_equal(sbx_json_read(&j, bad + 10, sizeof(bad) - 11, &used, &e), SBX_OK);
    assert_true(e.partial && e.len > 0);
    assert_int_equal(sbx_json_read(&j, bad + 10 + used, sizeof(bad) - 11 - used, &used, &e),
                     SBX_OK);
    assert_int_equal(e.partial, 0);
}

/* ---- numbers ---- */

static const struct number {
    const char *text;
    uint64_t bits;
} numbers[] = {
    {"0", 0},
    {"-0", UINT64_C(0x8000000000000000)},
    {"0.0", 0},
    {"-0.0e5", UINT64_C(0x8000000000000000)},
    {"1", UINT64_C(0x3ff0000000000000)},
    {"1.0", UINT64_C(0x3ff0000000000000)},
    {"15e-1", UINT64_C(0x3ff8000000000000)},
    {"-1.5", UINT64_C(0xbff8000000000000)},
    {"0.1", UINT64_C(0x3fb999999999999a)},
    {"0.3", UINT64_C(0x3fd3333333333333)},
    {"123.456", UINT64_C(0x405edd2f1a9fbe77)},
    {"3.141592653589793", UINT64_C(0x400921fb54442d18)},
    {"1e22", UINT64_C(0x4480f0cf064dd592)},
    {"1e23", UINT64_C(0x44b52d02c7e14af6)},
    {"8.5e22", UINT64_C(0x44b1ffdbf6b2b2eb)},
    {"100000000000000000000000", UINT64_C(0x44b52d02c7e14af6)},
    {"123456789012345678901234567890", UINT64_C(0x45f8ee90ff6c373e)},
    {"9007199254740992", UINT64_C(0x4340000000000000)},
    {"9007199254740993", UINT64_C(0x4340000000000000)},
    {"9007199254740993.0", UINT64_C(0x4340000000000000)},
    {"9007199254740993.00000000000000000000000000001", UINT64_C(0x4340000000000001)},
    {"9007199254740992.99999999999999999999999999999", UINT64_C(0x4340000000000000)},
    {"9007199254740995", UINT64_C(0x4340000000000002)},
    {"9007199254740995.0", UINT64_C(0x4340000000000002)},
    {"9223372036854775807", UINT64_C(0x43e0000000000000)},
    {"9223372036854775808", UINT64_C(0x43e0000000000000)},
    {"-9223372036854775808", UINT64_C(0xc3e0000000000000)},
    {"18446744073709551615", UINT64_C(0x43f0000000000000)},
    {"0.500000000000000166533453693773481063544750213623046875", UINT64_C(0x3fe0000000000002)},
    {"3.518437208883201171875e13", UINT64_C(0x42c0000000000002)},
    {"62.5364939768271845828", UINT64_C(0x404f44abd5aa7ca4)},
    {"8.10109172351e-10", UINT64_C(0x3e0bd5cbaef0fd0c)},
    {"5e-324", 1},
    {"4.9406564584124654e-324", 1},
    {"2.4703282292062328e-324", 1},
    {"2.4703282292062327e-324", 0},
    {"7.4109846876186982e-324", 2},
    {"7.4109846876186981e-324", 1},
    {"1e-323", 2},
    {"2.2250738585072009e-308", UINT64_C(0x000fffffffffffff)},
    {"2.2250738585072011e-308", UINT64_C(0x000fffffffffffff)},
    {"2.2250738585072012e-308", UINT64_C(0x0010000000000000)},
    {"2.2250738585072014e-308", UINT64_C(0x0010000000000000)},
    {"1.7976931348623157e308", UINT64_C(0x7fefffffffffffff)},
    {"1.7976931348623158e308", UINT64_C(0x7fefffffffffffff)},
    {"1.7976931348623159e308", UINT64_C(0x7ff0000000000000)},
    {"-1.7976931348623159e308", UINT64_C(0xfff0000000000000)},
    {"1e308", UINT64_C(0x7fe1ccf385ebc8a0)},
    {"1e309", UINT64_C(0x7ff0000000000000)},
    {"0.1e310", UINT64_C(0x7ff0000000000000)},
    {"0.00001e313", UINT64_C(0x7fe1ccf385ebc8a0)},
    {"123456789e-330", UINT64_C(0x0000000000000019)},
    {"6.631236846766476e-316", UINT64_C(0x0000000008000000)},
    {"3.2378839133029012895883524125015321748630094e-319", UINT64_C(0x000000000000ffff)},
    {"1090544144181609348671888949248", UINT64_C(0x462b8779f2474dfa)},
    {"1448997445238699", UINT64_C(0x4314976c0803feac)},
    {"5708990770823839207320493820740630171355185152001e-3", UINT64_C(0x4970000000000000)},
};

static sbx_json_event read_number(const char *text, size_t len)
{
    char scratch[16];
    sbx_json j;
    sbx_json_event e;
    size_t used;
    sbx_json_init(&j, scratch, sizeof(scratch));
    assert_int_equal(sbx_json_read(&j, text, len, &used, &e), SBX_AGAIN);
    assert_int_equal(sbx_json_finish(&j, &e), SBX_OK);
    return e;
}

static void check_numbers(void)
{
    size_t i;
    for (i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        const struct number *n = &numbers[i];
        sbx_json_event e = read_number(n->text, strlen(n->text));
        if (bits_of(e.number) != n->bits)
            fail_msg("%s is read as %016llx", n->text, (unsigned long long)bits_of(e.number));
    }
}

static void numbers_become_the_nearest_double(void **state)
{
    (void)state;
    check_numbers();
}

static void integers_are_exact_up_to_64_bits(void **state)
{
    static const struct {
        const char *text;
        sbx_json_type type;
        int64_t integer;
    } cases[] = {
        {"9223372036854775806", SBX_JSON_INTEGER, INT64_MAX - 1},
        {"9223372036854775807", SBX_JSON_INTEGER, INT64_MAX},
        {"9223372036854775808", SBX_JSON_NUMBER, 0},
        {"-9223372036854775807", SBX_JSON_INTEGER, INT64_MIN + 1},
        {"-9223372036854775808", SBX_JSON_INTEGER, INT64_MIN},
        {"-9223372036854775809", SBX_JSON_NUMBER, 0},
        {"18446744073709551616", SBX_JSON_NUMBER, 0},
        {"99999999999999999", SBX_JSON_INTEGER, INT64_C(99999999999999999)},
        {"100000000000000000", SBX_JSON_INTEGER, INT64_C(100000000000000000)},
        {"-999999999999999999", SBX_JSON_INTEGER, INT64_C(-999999999999999999)},
        {"1000000000000000000", SBX_JSON_INTEGER, INT64_C(1000000000000000000)},
        {"99999999999999999999999999999999", SBX_JSON_NUMBER, 0},
        {"9007199254740993", SBX_JSON_INTEGER, INT64_C(9007199254740993)},
        {"0", SBX_JSON_INTEGER, 0},
        {"-0", SBX_JSON_INTEGER, 0},
        {"-1", SBX_JSON_INTEGER, -1},
        {"1.0", SBX_JSON_NUMBER, 0},
        {"1e0", SBX_JSON_NUMBER, 0},
        {"0.0", SBX_JSON_NUMBER, 0},
    };
    char scratch[16], json[64];
    sbx_json j;
    sbx_json_event e;
    size_t i, len, used;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        e = read_number(cases[i].text, strlen(cases[i].text));
        assert_int_equal(e.type, cases[i].type);
        assert_true(e.integer == cases[i].integer);
        /* Once more where the number ends in the data. */
        len = (size_t)snprintf(json, sizeof(json), "%s ", cases[i].text);
        sbx_json_init(&j, scratch, sizeof(scratch));
        assert_int_equal(sbx_json_read(&j, json, len, &used, &e), SBX_OK);
        assert_int_equal(e.type, cases[i].type);
        assert_true(e.integer == cases[i].integer);
        assert_int_equal(used, len - 1);
    }
}

static void a_number_may_be_256_bytes_long(void **state)
{
    char text[SBX_JSON_NUMBER_MAX + 4];
    trace t = {NULL, 0, 0};
    (void)state;
    memset(text, '3', sizeof(text));
    text[1] = '.';
    assert_true(bits_of(read_number(text, SBX_JSON_NUMBER_MAX).number) ==
                bits_of(3.3333333333333335));
    read_whole(&t, text, SBX_JSON_NUMBER_MAX + 1, 16, 0);
    expect_events(text, SBX_JSON_NUMBER_MAX + 1, "SBX_E_TOO_BIG at 256: the number is too long\n");
    text[1] = '3';
    memcpy(text + 252, "e-50", 4);
    text[256] = ' ';
    expect_events(text, 257, "0 number 3.3333333333333332e+201\nend\n");
    trace_free(&t);
}

/* The digits of the number half-way between two doubles, all 256 that fit, and the last one
   changed. */
static void the_last_of_256_digits_counts(void **state)
{
    /* 2^-1 + 2^-54, in 54 digits, and zeros behind. */
    static const char half[] = "0.500000000000000055511151231257827021181583404541015625";
    char text[SBX_JSON_NUMBER_MAX];
    (void)state;
    memset(text, '0', sizeof(text));
    memcpy(text, half, sizeof(half) - 1);
    assert_true(bits_of(read_number(text, sizeof(text)).number) == bits_of(0.5));
    text[sizeof(text) - 1] = '1';
    assert_true(bits_of(read_number(text, sizeof(text)).number) == bits_of(0.5) + 1);
}

/* ---- limits ---- */

static void nesting_ends_at_64_levels(void **state)
{
    char json[2 * SBX_JSON_DEPTH + 10];
    trace events = {NULL, 0, 0};
    int i;
    (void)state;
    for (i = 0; i < SBX_JSON_DEPTH; i++) {
        json[i] = '[';
        json[2 * SBX_JSON_DEPTH - 1 - i] = ']';
        trace_add(&events, "%d [\n", i);
    }
    read_whole(&events, json, 2 * SBX_JSON_DEPTH, 16, 0);
    assert_non_null(strstr(events.text, "63 [\n63 ]\n62 ]\n"));
    assert_non_null(strstr(events.text, "0 ]\nend\n"));
    json[SBX_JSON_DEPTH] = '7';
    read_whole(&events, json, SBX_JSON_DEPTH + 1, 16, 0);
    json[SBX_JSON_DEPTH] = ']';
    memmove(json + SBX_JSON_DEPTH + 1, json + SBX_JSON_DEPTH, SBX_JSON_DEPTH);
    json[SBX_JSON_DEPTH] = '7';
    read_whole(&events, json, 2 * SBX_JSON_DEPTH + 1, 16, 0);
    assert_non_null(strstr(events.text, "63 [\n64 integer 7\n63 ]\n"));
    json[SBX_JSON_DEPTH] = '{';
    read_whole(&events, json, 2 * SBX_JSON_DEPTH + 1, 16, 0);
    assert_non_null(strstr(events.text, "63 [\nSBX_E_TOO_BIG at 64: "));
    expect_events(json, 2 * SBX_JSON_DEPTH + 1, events.text);
    trace_free(&events);
}

static void a_bracket_without_end_costs_no_stack(void **state)
{
    size_t len = 1000000;
    char *json = (char *)malloc(len);
    trace t = {NULL, 0, 0};
    (void)state;
    assert_non_null(json);
    memset(json, '[', len);
    read_whole(&t, json, len, 16, 0);
    assert_non_null(
        strstr(t.text, "SBX_E_TOO_BIG at 64: arrays and objects are nested too deep\n"));
    memset(json, ' ', len);
    read_whole(&t, json, len, 16, 0);
    assert_string_equal(t.text, "SBX_E_PROTOCOL at 1000000: the document is cut short\n");
    free(json);
    trace_free(&t);
}

static void which_brackets_close_is_remembered_for_each_level(void **state)
{
    char json[200];
    trace t = {NULL, 0, 0};
    size_t at = 0;
    int i, wrong;
    (void)state;
    for (wrong = -1; wrong < 16; wrong++) {
        at = 0;
        for (i = 0; i < 16; i++)
            at += (size_t)snprintf(json + at, sizeof(json) - at, i % 3 ? "[" : "{\"k\":");
        at += (size_t)snprintf(json + at, sizeof(json) - at, "0");
        for (i = 15; i >= 0; i--)
            json[at++] = (i % 3 ? 1 : 0) ^ (i == wrong) ? ']' : '}';
        read_whole(&t, json, at, 16, 0);
        assert_int_equal(strstr(t.text, "end\n") != NULL, wrong < 0);
    }
    trace_free(&t);
}

static void without_scratch_nothing_is_read(void **state)
{
    char scratch[16];
    sbx_json j;
    sbx_json_event e;
    size_t used = 7;
    (void)state;
    sbx_json_init(&j, scratch, 15);
    assert_int_equal(sbx_json_read(&j, "1", 1, &used, &e), SBX_E_ARGUMENT);
    assert_int_equal(used, 0);
    assert_string_equal(j.problem, "scratch must have 16 bytes or more");
    sbx_json_init(&j, NULL, 4096);
    assert_int_equal(sbx_json_finish(&j, &e), SBX_E_ARGUMENT);
}

/* ---- the writer ---- */

/* Runs a writer once to measure, then with every room up to what it needs and beyond. */
typedef void (*write_fn)(sbx_json_writer *w);

static void expect_written(write_fn fn, const char *json)
{
    char out[512], beyond[512];
    size_t len = strlen(json), cap, n = 0;
    sbx_json_writer w;
    sbx_json_writer_init(&w, NULL, 0);
    fn(&w);
    assert_int_equal(sbx_json_writer_finish(&w, &n), SBX_OK);
    assert_int_equal(n, len);
    for (cap = 0; cap <= len + 2; cap++) {
        memset(out, 0x55, sizeof(out));
        memset(beyond, 0x55, sizeof(beyond));
        sbx_json_writer_init(&w, out, cap);
        fn(&w);
        assert_int_equal(sbx_json_writer_finish(&w, &n), SBX_OK);
        assert_int_equal(n, len);
        n = cap < len ? cap : len;
        assert_memory_equal(out, json, n);
        assert_memory_equal(out + n, beyond, sizeof(out) - n);
    }
    assert_int_equal(sbx_json_writer_finish(&w, NULL), SBX_OK);
}

static void write_members(sbx_json_writer *w)
{
    sbx_json_begin_object(w);
    sbx_json_key(w, "type");
    sbx_json_string(w, "execute", 7);
    sbx_json_key(w, "args");
    sbx_json_begin_array(w);
    sbx_json_string(w, NULL, 0);
    sbx_json_integer(w, -5);
    sbx_json_number(w, 0.25);
    sbx_json_boolean(w, 1);
    sbx_json_boolean(w, 0);
    sbx_json_null(w);
    sbx_json_begin_object(w);
    sbx_json_end_object(w);
    sbx_json_begin_array(w);
    sbx_json_end_array(w);
    sbx_json_end_array(w);
    sbx_json_key_len(w, "a\nbcd", 3);
    sbx_json_begin_object(w);
    sbx_json_key_len(w, NULL, 0);
    sbx_json_null(w);
    sbx_json_end_object(w);
    sbx_json_end_object(w);
}

static void write_escapes(sbx_json_writer *w)
{
    sbx_json_string(w, "\"\\/\b\f\n\r\t\0\x01\x1b\x1f\x7f \xc3\xa9\xe2\x80\xa8\xf0\x9f\x98\x80",
                    23);
}

static void write_integer(sbx_json_writer *w)
{
    sbx_json_integer(w, INT64_MIN);
}

static void write_boolean(sbx_json_writer *w)
{
    sbx_json_boolean(w, 0x100);
}

static void a_document_is_written_with_its_commas(void **state)
{
    (void)state;
    expect_written(write_members,
                   "{\"type\":\"execute\",\"args\":[\"\",-5,0.25,true,false,null,{},[]],"
                   "\"a\\nb\":{\"\":null}}");
    expect_written(write_integer, "-9223372036854775808");
    expect_written(write_boolean, "true");
}

static void what_must_be_escaped_is(void **state)
{
    (void)state;
    expect_written(write_escapes, "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u0001\\u001b\\u001f\x7f "
                                  "\xc3\xa9\xe2\x80\xa8\xf0\x9f\x98\x80\"");
}

/* Each letter is a call; the writer must say no at the last one, and stay with that. */
static void call(sbx_json_writer *w, char letter)
{
    switch (letter) {
    case '{':
        sbx_json_begin_object(w);
        break;
    case '}':
        sbx_json_end_object(w);
        break;
    case '[':
        sbx_json_begin_array(w);
        break;
    case ']':
        sbx_json_end_array(w);
        break;
    case 'k':
        sbx_json_key(w, "k");
        break;
    case 's':
        sbx_json_string(w, "s", 1);
        break;
    case 'i':
        sbx_json_integer(w, 1);
        break;
    case 'd':
        sbx_json_number(w, 1.5);
        break;
    case 'b':
        sbx_json_boolean(w, 1);
        break;
    case 'n':
        sbx_json_null(w);
        break;
    case 'K':
        sbx_json_key(w, NULL);
        break;
    case 'L':
        sbx_json_key_len(w, NULL, 1);
        break;
    case 'M':
        sbx_json_key(w, "\xff");
        break;
    case 'S':
        sbx_json_string(w, NULL, 1);
        break;
    case 'T':
        sbx_json_string(w, "\xc3", 1);
        break;
    case 'U':
        sbx_json_string(w, "a\xed\xa0\x80", 4);
        break;
    case 'N':
        sbx_json_number(w, from_bits(UINT64_C(0x7ff8000000000000)));
        break;
    case 'I':
        sbx_json_number(w, from_bits(UINT64_C(0xfff0000000000000)));
        break;
    default:
        fail();
    }
}

static void the_writer_refuses_what_is_not_json(void **state)
{
    static const char *const misuses[] = {
        "}",    "]",     "k",    "nn",   "{n",  "{s",   "{{",  "{[",  "{]",  "{kk", "{k}",
        "{k]",  "{kn}}", "{knn", "{kn]", "[k",  "[}",   "[n}", "[]]", "[]n", "[][", "{}k",
        "K",    "{K",    "{L",   "{M",   "S",   "T",    "U",   "N",   "I",   "[N",  "{kI",
        "{knK", "{kni",  "{kn{", "{kn[", "[nk", "{kd[", "[s}", "{}n", "i{",  "s[",
    };
    static const char others[] = "{}[]ksidbn";
    char out[64], before[64];
    size_t i, n, len, len_after;
    (void)state;
    for (i = 0; i < sizeof(misuses) / sizeof(*misuses); i++) {
        const char *calls = misuses[i];
        sbx_json_writer w;
        memset(out, 0, sizeof(out));
        sbx_json_writer_init(&w, out, sizeof(out));
        for (n = 0; calls[n + 1]; n++)
            call(&w, calls[n]);
        if (w.status != SBX_OK)
            fail_msg("%s: refused too early", calls);
        len = w.len;
        memcpy(before, out, sizeof(out));
        call(&w, calls[n]);
        if (w.status != SBX_E_ARGUMENT)
            fail_msg("%s: not refused", calls);
        for (n = 0; others[n]; n++)
            call(&w, others[n]);
        assert_int_equal(sbx_json_writer_finish(&w, &len_after), SBX_E_ARGUMENT);
        assert_int_equal(len_after, len);
        assert_memory_equal(out, before, sizeof(out));
    }
}

static void a_document_that_is_not_complete_is_refused(void **state)
{
    static const char *const beginnings[] = {"", "{", "[", "{k", "{kn", "[n", "[[]", "{k{}"};
    size_t i, n;
    (void)state;
    for (i = 0; i < sizeof(beginnings) / sizeof(*beginnings); i++) {
        sbx_json_writer w;
        sbx_json_writer_init(&w, NULL, 0);
        for (n = 0; beginnings[i][n]; n++)
            call(&w, beginnings[i][n]);
        assert_int_equal(w.status, SBX_OK);
        assert_int_equal(sbx_json_writer_finish(&w, NULL), SBX_E_ARGUMENT);
    }
}

static void the_writer_nests_64_levels_too(void **state)
{
    char out[200];
    sbx_json_writer w;
    trace t = {NULL, 0, 0};
    size_t len;
    int i;
    (void)state;
    sbx_json_writer_init(&w, out, sizeof(out));
    for (i = 0; i < SBX_JSON_DEPTH; i++)
        sbx_json_begin_array(&w);
    sbx_json_integer(&w, 1);
    for (i = 0; i < SBX_JSON_DEPTH; i++)
        sbx_json_end_array(&w);
    assert_int_equal(sbx_json_writer_finish(&w, &len), SBX_OK);
    assert_int_equal(len, 2 * SBX_JSON_DEPTH + 1);
    read_whole(&t, out, len, 16, 0);
    assert_non_null(strstr(t.text, "end\n"));
    trace_free(&t);
    sbx_json_writer_init(&w, out, sizeof(out));
    for (i = 0; i < SBX_JSON_DEPTH; i++)
        sbx_json_begin_array(&w);
    sbx_json_begin_object(&w);
    assert_int_equal(w.status, SBX_E_TOO_BIG);
    assert_int_equal(w.len, SBX_JSON_DEPTH);
    sbx_json_end_array(&w);
    assert_int_equal(sbx_json_writer_finish(&w, NULL), SBX_E_TOO_BIG);
}

static const struct written {
    uint64_t bits;
    const char *text;
} written[] = {
    {0, "0"},
    {UINT64_C(0x8000000000000000), "-0"},
    {UINT64_C(0x3ff0000000000000), "1"},
    {UINT64_C(0xbff0000000000000), "-1"},
    {UINT64_C(0x3ff8000000000000), "1.5"},
    {UINT64_C(0x3fb999999999999a), "0.1"},
    {UINT64_C(0x3fd3333333333334), "0.30000000000000004"},
    {UINT64_C(0x3f1a36e2eb1c432d), "0.0001"},
    {UINT64_C(0x3ee4f8b588e368f1), "1e-5"},
    {UINT64_C(0x3ef9d16af4c91dc9), "2.4622e-5"},
    {UINT64_C(0x4059000000000000), "100"},
    {UINT64_C(0x40c81c8000000000), "12345"},
    {UINT64_C(0x430c6bf526340000), "1000000000000000"},
    {UINT64_C(0x4341c37937e08000), "1e16"},
    {UINT64_C(0x4341c37937e07fff), "9999999999999998"},
    {UINT64_C(0x4340000000000000), "9007199254740992"},
    {UINT64_C(0x4340000000000001), "9007199254740994"},
    {UINT64_C(0x43e0000000000000), "9.223372036854776e18"},
    {UINT64_C(0x444b1ae4d6e2ef50), "1e21"},
    {UINT64_C(0x44b52d02c7e14af6), "1e23"},
    {UINT64_C(0x44b52d02c7e14af7), "1.0000000000000001e23"},
    {UINT64_C(0x45f8ee90ff6c373e), "1.2345678901234568e29"},
    {UINT64_C(0x7fefffffffffffff), "1.7976931348623157e308"},
    {UINT64_C(0xffefffffffffffff), "-1.7976931348623157e308"},
    {UINT64_C(0x0010000000000000), "2.2250738585072014e-308"},
    {UINT64_C(0x000fffffffffffff), "2.225073858507201e-308"},
    {1, "5e-324"},
    {2, "1e-323"},
    /* The gap below a power of two is half of that above. */
    {UINT64_C(0x3d30000000000000), "5.684341886080802e-14"},
    {UINT64_C(0x4330000000000000), "4503599627370496"},
    {UINT64_C(0x0060000000000000), "7.120236347223045e-307"},
    /* Two of the shortest texts are equally near: the even one. */
    {UINT64_C(0x3e60000000000000), "2.9802322387695312e-8"},
    {UINT64_C(0x43070e5841549932), "811212085039910.2"},
};

static size_t write_number(char *out, size_t cap, double number)
{
    sbx_json_writer w;
    size_t len;
    sbx_json_writer_init(&w, out, cap);
    sbx_json_number(&w, number);
    assert_int_equal(sbx_json_writer_finish(&w, &len), SBX_OK);
    assert_in_range(len, 1, 24);
    return len;
}

static void check_written(void)
{
    char out[32];
    size_t i;
    for (i = 0; i < sizeof(written) / sizeof(*written); i++) {
        memset(out, 0, sizeof(out));
        write_number(out, sizeof(out), from_bits(written[i].bits));
        assert_string_equal(out, written[i].text);
    }
}

static void numbers_are_written_with_the_fewest_digits(void **state)
{
    (void)state;
    check_written();
}

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Digits, as many as needed to name the double and no more, and the C library agrees. */
static void any_double_is_read_back(void **state)
{
    uint64_t seed = UINT64_C(88172645463325252);
    char out[32], shorter[32];
    int i, digits;
    (void)state;
    for (i = 0; i < 20000; i++) {
        uint64_t bits = next_random(&seed);
        double number = from_bits(i % 4 ? bits : bits >> 12 >> i / 4 % 40);
        size_t len, k;
        if (number - number != 0)
            continue;
        len = write_number(out, sizeof(out), number);
        assert_true(bits_of(read_number(out, len).number) == bits_of(number));
        out[len] = 0;
        assert_true(bits_of(strtod(out, NULL)) == bits_of(number));
        for (k = 0, digits = 0; k < len && out[k] != 'e'; k++)
            digits += out[k] >= '0' && out[k] <= '9' && (digits > 0 || out[k] != '0');
        while (k > 0 && (out[k - 1] == '0' || out[k - 1] == '.'))
            digits -= out[--k] == '0' && digits > 1;
        if (digits > 1) {
            snprintf(shorter, sizeof(shorter), "%.*e", digits - 2, number);
            assert_true(bits_of(strtod(shorter, NULL)) != bits_of(number));
        }
    }
}

static void numbers_do_not_depend_on_the_locale(void **state)
{
    static const char *const locales[] = {"de_DE.UTF-8", "de_DE.utf8", "de_DE",
                                          "fr_FR.UTF-8", "fr_FR.utf8", "fr_FR"};
    size_t i = 0;
    (void)state;
    while (i < sizeof(locales) / sizeof(*locales) && !setlocale(LC_ALL, locales[i]))
        i++;
    if (i == sizeof(locales) / sizeof(*locales))
        skip();
    assert_string_equal(localeconv()->decimal_point, ",");
    check_numbers();
    check_written();
    setlocale(LC_ALL, "C");
}

/* ---- both ---- */

static void random_text(uint64_t *seed, trace *text)
{
    static const char *const pieces[] = {"a",
                                         "bc",
                                         " ",
                                         "\"",
                                         "\\",
                                         "/",
                                         "\n",
                                         "\t",
                                         "\x1b",
                                         "\x7f",
                                         "\xc3\xa9",
                                         "\xe2\x82\xac",
                                         "\xf0\x9f\x98\x80",
                                         "0123456789abcdef"};
    size_t n = next_random(seed) % 24;
    text->len = 0;
    trace_bytes(text, "", 0);
    while (n-- > 0)
        trace_add(text, "%s", pieces[next_random(seed) % (sizeof(pieces) / sizeof(*pieces))]);
}

/* Writes a document of random values, and writes down what a reader should see of it. */
static void random_document(uint64_t *seed, sbx_json_writer *w, trace *events)
{
    trace text = {NULL, 0, 0};
    char open[8];
    int depth = 0, n = 0;
    do {
        if (depth > 0 && (n++ > 40 || next_random(seed) % 4 == 0)) {
            depth--;
            trace_add(events, "%d %c\n", depth, open[depth]);
            if (open[depth] == '}')
                sbx_json_end_object(w);
            else
                sbx_json_end_array(w);
            continue;
        }
        if (depth > 0 && open[depth - 1] == '}') {
            random_text(seed, &text);
            sbx_json_key_len(w, text.text, text.len);
            trace_add(events, "%d key ", depth);
            trace_quoted(events, text.text, text.len);
            trace_add(events, "\n");
        }
        switch (next_random(seed) % (depth < 8 ? 6 : 4)) {
        case 0:
            sbx_json_null(w);
            trace_add(events, "%d null\n", depth);
            break;
        case 1: {
            int64_t integer = (int64_t)(next_random(seed) >> next_random(seed) % 63) - 1;
            sbx_json_integer(w, integer);
            trace_add(events, "%d integer %lld\n", depth, (long long)integer);
            break;
        }
        case 2: {
            double number = (double)next_random(seed) / 3e20 + 0.03;
            sbx_json_number(w, number);
            trace_add(events, "%d number %.17g\n", depth, number);
            break;
        }
        case 3:
            random_text(seed, &text);
            sbx_json_string(w, text.text, text.len);
            trace_add(events, "%d string ", depth);
            trace_quoted(events, text.text, text.len);
            trace_add(events, "\n");
            break;
        case 4:
            sbx_json_begin_object(w);
            trace_add(events, "%d {\n", depth);
            open[depth++] = '}';
            break;
        default:
            sbx_json_begin_array(w);
            trace_add(events, "%d [\n", depth);
            open[depth++] = ']';
            break;
        }
    } while (depth > 0);
    trace_add(events, "end\n");
    trace_free(&text);
}

static void what_is_written_is_read_back(void **state)
{
    static char json[100000];
    uint64_t seed = 1;
    int i;
    (void)state;
    for (i = 0; i < 300; i++) {
        trace events = {NULL, 0, 0};
        feed f = {json, 0, 0, 0, 0, {NULL, 0}};
        sbx_json_writer w;
        options o = {16 + (size_t)i % 50, 0};
        sbx_json_writer_init(&w, json, sizeof(json));
        random_document(&seed, &w, &events);
        assert_int_equal(sbx_json_writer_finish(&w, &f.len), SBX_OK);
        assert_true(f.len <= sizeof(json));
        feed_once(&f, 0, SIZE_MAX, read_document, &o, events.text, "written document");
        feed_once(&f, 0, 1, read_document, &o, events.text, "written document");
        feed_once(&f, f.len / 2, 1 + (size_t)i % 40, read_document, &o, events.text,
                  "written document");
        guard_free(&f.memory);
        trace_free(&events);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_production_of_the_standard_is_read),
        cmocka_unit_test(what_the_standard_refuses_is_refused_at_the_byte),
        cmocka_unit_test(every_byte_is_judged_alone),
        cmocka_unit_test(a_byte_is_judged_the_same_anywhere_in_a_text),
        cmocka_unit_test(a_number_ends_with_the_data_only_at_the_top),
        cmocka_unit_test(a_nul_is_a_byte_like_others),
        cmocka_unit_test(escapes_and_characters_become_their_utf8),
        cmocka_unit_test(every_code_that_can_be_escaped_is_what_it_says),
        cmocka_unit_test(every_second_half_is_judged),
        cmocka_unit_test(texts_are_checked_for_utf8),
        cmocka_unit_test(long_texts_come_in_parts_that_divide_no_character),
        cmocka_unit_test(a_text_as_long_as_scratch_comes_in_one_event),
        cmocka_unit_test(a_text_without_escapes_is_lent_from_the_data),
        cmocka_unit_test(texts_are_kept_by_moving_scratch_on),
        cmocka_unit_test(utf8_that_was_checked_before_is_not_checked_again),
        cmocka_unit_test(numbers_become_the_nearest_double),
        cmocka_unit_test(integers_are_exact_up_to_64_bits),
        cmocka_unit_test(a_number_may_be_256_bytes_long),
        cmocka_unit_test(the_last_of_256_digits_counts),
        cmocka_unit_test(nesting_ends_at_64_levels),
        cmocka_unit_test(a_bracket_without_end_costs_no_stack),
        cmocka_unit_test(which_brackets_close_is_remembered_for_each_level),
        cmocka_unit_test(without_scratch_nothing_is_read),
        cmocka_unit_test(a_document_is_written_with_its_commas),
        cmocka_unit_test(what_must_be_escaped_is),
        cmocka_unit_test(the_writer_refuses_what_is_not_json),
        cmocka_unit_test(a_document_that_is_not_complete_is_refused),
        cmocka_unit_test(the_writer_nests_64_levels_too),
        cmocka_unit_test(numbers_are_written_with_the_fewest_digits),
        cmocka_unit_test(any_double_is_read_back),
        cmocka_unit_test(numbers_do_not_depend_on_the_locale),
        cmocka_unit_test(what_is_written_is_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
