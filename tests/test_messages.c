/* Messages of a command's output: those that are read at a glance are understood just as by the
   reader of JSON, and what is not quite like them is left to it. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "world.h"

static int quick, slow; /* how many messages each way has read */

typedef struct reading {
    sbx_status status;
    sbxi_message m;
    char data[4096];
} reading;

static reading read_one(sbx_client *client, const char *text, size_t len, int utf8_checked)
{
    static sbx_command c;
    reading r;
    sbxi_message at_a_glance;
    memset(&r, 0, sizeof(r));
    memset(&c, 0, sizeof(c));
    c.op.client = client;
    c.exchange.client = client;
    c.exchange.to.host = "h";
    sbxi_buffer_init(&c.text, &client->memory, SIZE_MAX);
    r.status = sbxi_message_read(&c, text, len, utf8_checked, &r.m);
    if (r.status == SBX_OK) {
        assert_true(r.m.data_len < sizeof(r.data));
        if (r.m.data_len)
            memcpy(r.data, r.m.data, r.m.data_len);
    }
    if (utf8_checked) {
        memset(&at_a_glance, 0, sizeof(at_a_glance));
        *(sbxi_message_quick(&c, text, len, &at_a_glance) ? &quick : &slow) += 1;
    }
    sbxi_buffer_free(&c.text);
    return r;
}

/* Reads it from a buffer of just its size, so that reading beyond it shows. */
static void compare(sbx_client *client, const char *text, size_t len)
{
    char *copy = (char *)malloc(len ? len : 1);
    sbx_utf8 utf8 = {0};
    reading a, b;
    assert_non_null(copy);
    memcpy(copy, text, len);
    if (!sbx_utf8_check(&utf8, copy, len) || utf8.state != 0) {
        free(copy); /* the WebSocket codec has refused it before */
        return;
    }
    a = read_one(client, copy, len, 1);
    b = read_one(client, copy, len, 0);
    free(copy);
    if (a.status != b.status)
        print_error("%.*s\n", (int)len, text);
    assert_int_equal(a.status, b.status);
    if (a.status != SBX_OK)
        return;
    assert_int_equal(a.m.type, b.m.type);
    if (a.m.type == SBXI_MESSAGE_OTHER)
        return;
    assert_int_equal(a.m.data_len, b.m.data_len);
    assert_memory_equal(a.data, b.data, sizeof(a.data));
    assert_true(a.m.has_offset == b.m.has_offset && a.m.offset == b.m.offset);
    assert_true(a.m.exit_code == b.m.exit_code || a.m.type != SBXI_MESSAGE_EXIT);
}

static const char *const texts[] = {
    "",
    "x",
    "a line\\n",
    "exactly sixteen!",
    "ends in a quote \\\"",
    "ends in a backslash \\\\",
    "\\u001b[31mred\\u001b[0m and \\t more\\r\\n",
    "gr\xc3\xb6\xc3\x9f\x65 \xe2\x82\xac \xf0\x9f\x98\x80\\n",
    "\\u00fc \\u20ac \\ud83d\\ude00 \\u0000 \\/ \\b\\f",
    "half a pair \\ud83d",
    "no escape \\x",
    "cut \\u12",
    "a much longer line, which takes several blocks of whatever size they have, and then some\\n",
    "one with a control character \x01 in it",
    "\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n"
    "\\n",
};
static const char *const offsets[] = {
    "0",
    "7",
    "123456",
    "999999999999999999",
    "1000000000000000000",
    "9223372036854775807",
    "-0",
    "-1",
    "00",
    "01",
    "9223372036854775808",
    "1.0",
    "",
    "1e3",
    "\"4\"",
    "null",
    "1 ",
    "true",
};

static void every_form_is_read_the_same_both_ways(void **state)
{
    static const char *const forms[] = {
        "{\"type\":\"stdout\",\"data\":\"%s\",\"offset\":%s}",
        "{\"type\":\"stderr\",\"data\":\"%s\",\"offset\":%s}",
        "{\"type\": \"stdout\", \"data\": \"%s\", \"offset\": %s}",
        "{\"data\":\"%s\",\"type\":\"stdout\",\"offset\":%s}",
        "{\"type\":\"stdout\",\"data\":\"%s\",\"offset\":%s,\"more\":[{}]}",
        "{\"type\":\"stdout\",\"data\":\"%s\",\"offset\":%s,\"data\":\"last\"}",
        "{\"type\":\"stdout\",\"data\":\"%s\",\"offset\":%s} ",
        "{\"type\":\"stdout\",\"data\":\"%s\",\"offset\":%s}}",
        "{\"type\":\"stdin\",\"data\":\"%s\",\"offset\":%s}",
    };
    world w;
    size_t f, t, o, len;
    (void)state;
    world_init(&w);
    world_open(&w);
    for (f = 0; f < sizeof(forms) / sizeof(*forms); f++)
        for (t = 0; t < sizeof(texts) / sizeof(*texts); t++)
            for (o = 0; o < sizeof(offsets) / sizeof(*offsets); o++) {
                char text[512];
                len = (size_t)snprintf(text, sizeof(text), forms[f], texts[t], offsets[o]);
                compare(w.client, text, len);
                if (o < 3)
                    for (; len > 0; len--)
                        compare(w.client, text, len - 1);
            }
    world_done(&w);
}

static void changed_bytes_are_read_the_same_both_ways(void **state)
{
    static const char bytes[] = "\"\\{}[]:,0129 \nutfe-.\x7f";
    uint32_t lot = 1;
    world w;
    int i;
    (void)state;
    world_init(&w);
    world_open(&w);
    for (i = 0; i < 40000; i++) {
        char text[512];
        size_t len;
        lot = lot * 1664525 + 1013904223;
        len = (size_t)snprintf(
            text, sizeof(text), "{\"type\":\"%s\",\"data\":\"%s\",\"offset\":%s}",
            lot >> 31 ? "stdout" : "stderr", texts[(lot >> 20) % (sizeof(texts) / sizeof(*texts))],
            offsets[(lot >> 8) % 5]);
        lot = lot * 1664525 + 1013904223;
        text[(lot >> 8) % len] = bytes[(lot >> 24) % (sizeof(bytes) - 1)];
        compare(w.client, text, len);
    }
    world_done(&w);
}

/* So that the tests above compare something. */
static void usual_messages_are_read_at_a_glance(void **state)
{
    world w;
    size_t t;
    (void)state;
    world_init(&w);
    world_open(&w);
    quick = slow = 0;
    for (t = 0; t < 8; t++) {
        char text[512];
        int len = snprintf(text, sizeof(text), "{\"type\":\"stdout\",\"data\":\"%s\",\"offset\":9}",
                           texts[t]);
        compare(w.client, text, (size_t)len);
    }
    assert_int_equal(quick, 8);
    assert_int_equal(slow, 0);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_is_read_the_same_both_ways),
        cmocka_unit_test(changed_bytes_are_read_the_same_both_ways),
        cmocka_unit_test(usual_messages_are_read_at_a_glance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
