/* Input for commands: what goes over the wire, what is acknowledged, and above all that no byte is
   ever given twice or out of order, wherever the connection breaks. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "conversation.h"

#define EURO "\xe2\x82\xac"
#define SMILE "\xf0\x9f\x98\x80"

static void put(scene *s, const char *text)
{
    assert_status(&s->w, SBX_OK, sbx_command_input(s->command, text, strlen(text), &s->err),
                  &s->err);
}

static void finish_input(scene *s)
{
    assert_status(&s->w, SBX_OK, sbx_command_close_input(s->command, &s->err), &s->err);
}

static sbx_run_options input_options(void)
{
    sbx_run_options options = run_options();
    options.input = 1;
    options.timeout_ms = SBX_NONE;
    return options;
}

/* Like EXECUTE_INPUT, without a time limit. */
#define EXECUTE_ENDLESS                                                                            \
    "{\"type\":\"execute\",\"command\":\"x\",\"timeout_seconds\":0,\"shell\":\"/bin/bash\","       \
    "\"idle_timeout_seconds\":300,\"kill_on_disconnect\":false,\"ttl_seconds\":600,"               \
    "\"command_id\":\"$id\"}"

/* A peer that starts a command which takes input; pings are only answered by the script. */
static peer *input_peer(world *w)
{
    peer *p = world_peer(w);
    p->mute = 1;
    peer_upgrade(p, WS);
    peer_ws_expect(p, EXECUTE_ENDLESS);
    peer_ws_text(p, STARTED);
    return p;
}

/* Acknowledges so many bytes, and the end of stdin if closed is 1. */
static void peer_pong(peer *p, uint64_t bytes, int closed)
{
    unsigned char payload[9];
    int i;
    for (i = 0; i < 8; i++)
        payload[i] = (unsigned char)(bytes >> (56 - 8 * i));
    payload[8] = (unsigned char)closed;
    peer_ws_frame(p, SBX_WS_PONG, 1, payload, sizeof(payload));
}

/* A world with `cat` as the service's command. */
static void scene_cat(scene *s, service *service_, const sbx_run_options *options)
{
    world_init(&s->w);
    service_init(service_, &s->w);
    service_->cat = options->pty ? 2 : 1;
    scene_start(s, options);
}

/* Lets so much time pass, whatever comes. */
static void idle(scene *s, int64_t ms)
{
    int64_t until = s->w.now + ms;
    sbx_status st;
    while ((st = next(s, until - s->w.now)) == SBX_OK)
        ;
    assert_int_equal(st, SBX_AGAIN);
}

/* Steps until there is nothing left to do now. */
static void settle(scene *s)
{
    idle(s, 1);
}

/* ---- on the wire ---- */

static void every_message_with_input_is_followed_by_a_ping_that_counts(void **state)
{
    sbx_run_options options = input_options();
    wtext frames = {NULL, 0, 0};
    service service_;
    scene s;
    const char *at;
    (void)state;
    scene_cat(&s, &service_, &options);
    settle(&s);
    put(&s, "hello\n");
    settle(&s);
    put(&s, "two ");
    put(&s, "\"parts\"\x01");
    finish_input(&s);
    ends_well(&s, 0, "hello\ntwo \"parts\"\x01");
    peer_frames(s.w.peers[0], &frames);
    at = strchr(frames.data, '\n') + 1;
    assert_string_equal(at, "text {\"type\":\"input\",\"data\":\"hello\\n\"}\n"
                            "ping 000000000000000600\n"
                            "text {\"type\":\"input\",\"data\":\"two \\\"parts\\\"\\u0001\"}\n"
                            "ping 000000000000001200\n"
                            "text {\"type\":\"close_stdin\"}\n"
                            "ping 000000000000001201\n");
    wtext_free(&frames);
    service_free(&service_);
    scene_end(&s);
}

static void input_without_a_byte_sends_nothing(void **state)
{
    sbx_run_options options = input_options();
    wtext frames = {NULL, 0, 0};
    service service_;
    scene s;
    (void)state;
    scene_cat(&s, &service_, &options);
    settle(&s);
    assert_status(&s.w, SBX_OK, sbx_command_input(s.command, NULL, 0, &s.err), &s.err);
    put(&s, "");
    settle(&s);
    peer_frames(s.w.peers[0], &frames);
    assert_ptr_equal(strchr(frames.data, '\n') + 1, frames.data + frames.len);
    finish_input(&s);
    ends_well(&s, 0, "");
    wtext_free(&frames);
    service_free(&service_);
    scene_end(&s);
}

static void a_command_without_input_says_so_and_one_with_input_does_not(void **state)
{
    static const char *const executes[] = {EXECUTE("x"), EXECUTE_INPUT, EXECUTE_PTY, EXECUTE_PTY};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(executes); i++) {
        sbx_run_options options = run_options();
        scene s;
        peer *p;
        options.input = i & 1;
        options.pty = i > 1;
        world_init(&s.w);
        p = world_peer(&s.w);
        peer_upgrade(p, WS);
        peer_ws_expect(p, executes[i]);
        peer_exits(p, EXIT("0"));
        scene_start(&s, &options);
        ends_well(&s, 0, "");
        scene_end(&s);
    }
}

/* Long input comes whole, in messages of at most 16 KiB that divide no character. */
static void long_input_is_split_between_characters(void **state)
{
    static const char *const characters[] = {"a",
                                             "\x01",
                                             "\"",
                                             EURO,
                                             SMILE,
                                             "a" EURO SMILE,
                                             "\x7f",
                                             "\xc3\xbc"
                                             "x"};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(characters); i++) {
        sbx_run_options options = input_options();
        wtext frames = {NULL, 0, 0}, all = {NULL, 0, 0};
        service service_;
        scene s;
        char *line, data[20000];
        int messages = 0;
        scene_cat(&s, &service_, &options);
        while (all.len + strlen(characters[i]) <= SBX_INPUT_MAX)
            wtext_puts(&all, characters[i]);
        put(&s, all.data);
        finish_input(&s);
        ends_well(&s, 0, all.data);
        peer_frames(s.w.peers[0], &frames);
        for (line = strtok(frames.data, "\n"); line; line = strtok(NULL, "\n")) {
            sbx_utf8 utf8 = {0};
            if (strncmp(line, "text {\"type\":\"input\"", 20) != 0)
                continue;
            json_member(line + 5, strlen(line) - 5, "data", data, sizeof(data));
            assert_between((int64_t)strlen(data), 1, 16384);
            assert_true(sbx_utf8_check(&utf8, data, strlen(data)));
            assert_int_equal(utf8.state, 0);
            messages++;
        }
        assert_between(messages, 4, 5);
        wtext_free(&frames);
        wtext_free(&all);
        service_free(&service_);
        scene_end(&s);
    }
}

/* ---- characters ---- */

static void a_character_may_be_divided_between_calls(void **state)
{
    static const char text[] = "a" EURO SMILE "\xc3\xbc" EURO "b" SMILE;
    size_t i, most;
    (void)state;
    for (most = 1; most < sizeof(text) - 1; most++) {
        sbx_run_options options = input_options();
        service service_;
        scene s;
        scene_cat(&s, &service_, &options);
        for (i = 0; i < sizeof(text) - 1; i += most) {
            size_t len = sizeof(text) - 1 - i < most ? sizeof(text) - 1 - i : most;
            sbx_utf8 utf8 = {0};
            assert_status(&s.w, SBX_OK, sbx_command_input(s.command, text + i, len, &s.err),
                          &s.err);
            settle(&s);
            /* All the whole characters have gone, and nothing else. */
            assert_true(sbx_utf8_check(&utf8, wtext_get(&service_.input), service_.input.len));
            assert_int_equal(utf8.state, 0);
            assert_true(i + len - service_.input.len < 4);
        }
        finish_input(&s);
        ends_well(&s, 0, text);
        service_free(&service_);
        scene_end(&s);
    }
}

static void what_is_no_utf8_is_refused_and_not_taken(void **state)
{
    static const char *const bad[] = {"\xff", "\xc0\x80",   "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "\x80", "a\xe2\x82z", EURO "\xfe"};
    sbx_run_options options = input_options();
    service service_;
    scene s;
    size_t i;
    (void)state;
    scene_cat(&s, &service_, &options);
    for (i = 0; i < COUNT(bad); i++) {
        assert_status(&s.w, SBX_E_ARGUMENT,
                      sbx_command_input(s.command, bad[i], strlen(bad[i]), &s.err), &s.err);
        assert_string_equal(s.err.field, "data");
        settle(&s);
    }
    /* In the middle of a character too: what was begun can still be finished. */
    put(&s, "\xe2\x82");
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_input(s.command, "x", 1, &s.err), &s.err);
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_close_input(s.command, &s.err), &s.err);
    assert_says(&s.w, &s.err, "UTF-8");
    put(&s, "\xac");
    finish_input(&s);
    ends_well(&s, 0, EURO);
    service_free(&service_);
    scene_end(&s);
}

/* ---- the queue ---- */

static void the_queue_holds_64_kib_and_takes_all_or_nothing(void **state)
{
    static char much[SBX_INPUT_MAX + 1];
    sbx_run_options options = input_options();
    service service_;
    scene s;
    (void)state;
    memset(much, 'x', sizeof(much));
    scene_cat(&s, &service_, &options);
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_input(s.command, much, sizeof(much), &s.err),
                  &s.err);
    assert_string_equal(s.err.field, "data");
    assert_int_equal(sbx_command_input(s.command, much, SBX_INPUT_MAX, &s.err), SBX_OK);
    assert_int_equal(sbx_command_input(s.command, "y", 1, &s.err), SBX_AGAIN);
    assert_int_equal(s.err.status, SBX_OK);
    assert_int_equal(sbx_command_input(s.command, "", 0, &s.err), SBX_OK);
    /* More than fits is told apart from what is wrong in any case. */
    assert_int_equal(sbx_command_input(s.command, "\xff", 1, &s.err), SBX_AGAIN);
    settle(&s);
    assert_int_equal(service_.input.len, SBX_INPUT_MAX);
    put(&s, "yz");
    assert_int_equal(sbx_command_input(s.command, much, SBX_INPUT_MAX - 1, &s.err), SBX_AGAIN);
    assert_int_equal(sbx_command_input(s.command, much, SBX_INPUT_MAX - 2, &s.err), SBX_OK);
    finish_input(&s);
    assert_status(&s.w, SBX_OK, sbx_command_result(s.command, &s.result, &s.err), &s.err);
    assert_int_equal(s.result->out_len, 2 * SBX_INPUT_MAX);
    assert_memory_equal(s.result->out + SBX_INPUT_MAX, "yzxx", 4);
    assert_int_equal(s.result->input_lost, 0);
    sbx_free(s.result);
    service_free(&service_);
    scene_end(&s);
}

static void no_more_than_64_kib_are_sent_without_an_answer(void **state)
{
    static char much[SBX_INPUT_MAX];
    sbx_run_options options = input_options();
    scene s;
    peer *p;
    int i;
    (void)state;
    memset(much, 'x', sizeof(much));
    world_init(&s.w);
    p = input_peer(&s.w);
    scene_start(&s, &options);
    settle(&s);
    p->deaf = 1; /* takes all, and answers nothing */
    for (i = 0; i < 4; i++) {
        int64_t before = p->taken;
        sbx_status st = sbx_command_input(s.command, much, sizeof(much), &s.err);
        assert_int_equal(st, i < 2 ? SBX_OK : SBX_AGAIN);
        settle(&s);
        if (i == 0)
            assert_between(p->taken - before, 65536, 65536 + 500);
        else
            assert_int_equal(p->taken, before);
    }
    /* The end of stdin does not overtake what waits. */
    finish_input(&s);
    i = (int)p->taken;
    settle(&s);
    assert_int_equal(p->taken, i);
    p->optional = 1;
    scene_end(&s);
    /* With characters that do not fill the messages it is less than one of them more. */
    world_init(&s.w);
    p = input_peer(&s.w);
    scene_start(&s, &options);
    settle(&s);
    p->deaf = 1;
    for (i = 0; i < 6; i++) {
        for (int k = 0; k + 3 <= 16384; k += 3)
            (void)sbx_command_input(s.command, EURO, 3, &s.err);
        settle(&s);
    }
    assert_between(p->taken, 65536, 65536 + 16384 + 1000);
    p->optional = 1;
    scene_end(&s);
}

static void the_window_opens_as_pongs_come(void **state)
{
    static char much[SBX_INPUT_MAX];
    sbx_run_options options = input_options();
    scene s;
    peer *p;
    int i;
    (void)state;
    memset(much, 'x', sizeof(much));
    world_init(&s.w);
    p = input_peer(&s.w);
    scene_start(&s, &options);
    settle(&s);
    p->deaf = 1;
    assert_int_equal(sbx_command_input(s.command, much, sizeof(much), &s.err), SBX_OK);
    settle(&s);
    for (i = 1; i < 4; i++) {
        int64_t before = p->taken;
        assert_int_equal(sbx_command_input(s.command, much, 100, &s.err), SBX_OK);
        settle(&s);
        assert_int_equal(p->taken, before);
        peer_pong(p, (uint64_t)(i * 100), 0);
        settle(&s);
        assert_between(p->taken - before, 101, 250);
    }
    p->optional = 1;
    p->in.len = 0;
    scene_end(&s);
}

/* ---- acknowledgements ---- */

/* Breaks the connection when the client has read all that the script sends; so many bytes must then
   be in doubt. */
static void doubt_is(scene *s, uint64_t bytes)
{
    char text[32];
    if (bytes == 0) {
        assert_int_equal(next(s, 600), SBX_AGAIN);
        return;
    }
    assert_status(&s->w, SBX_E_CONNECTION, next(s, SBX_NONE), &s->err);
    snprintf(text, sizeof(text), " %lu bytes", (unsigned long)bytes);
    assert_says(&s->w, &s->err, text);
    assert_int_equal(s->w.dials, 1);
}

static void pongs_acknowledge_what_they_name(void **state)
{
    /* Three messages of 2, 3 and 4 bytes are sent: what is in doubt after these pongs? */
    static const struct {
        uint64_t pongs[3];
        int count;
        uint64_t doubt;
    } cases[] = {
        {{2, 5, 9}, 3, 0},
        {{9}, 1, 0}, /* a service may answer the newest ping only (RFC 6455, 5.5.3) */
        {{5}, 1, 4},
        {{2}, 1, 7},
        {{0}, 0, 9},
        {{5, 2}, 2, 4},       /* never goes back */
        {{10}, 1, 9},         /* more than was sent */
        {{UINT64_MAX}, 1, 9}, /* absurd */
        {{2, (uint64_t)1 << 63, 1}, 3, 7},
        {{0}, 1, 9},
    };
    size_t i;
    int k;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_run_options options = input_options();
        scene s;
        peer *p;
        world_init(&s.w);
        p = input_peer(&s.w);
        peer_ws_expect(p, INPUT("ab"));
        peer_ws_expect(p, INPUT("cde"));
        peer_ws_expect(p, INPUT("fghi"));
        for (k = 0; k < cases[i].count; k++)
            peer_pong(p, cases[i].pongs[k], 0);
        peer_delay(p, 100);
        peer_reset(p);
        if (!cases[i].doubt)
            reattached_peer(&s.w, "0", "0");
        scene_start(&s, &options);
        put(&s, "ab");
        settle(&s);
        put(&s, "cde");
        settle(&s);
        put(&s, "fghi");
        doubt_is(&s, cases[i].doubt);
        scene_end(&s);
    }
}

static void pongs_that_name_nothing_of_ours_acknowledge_nothing(void **state)
{
    static const struct {
        const char *payload;
        size_t len;
    } cases[] = {
        {"", 0},
        {"\0\0\0\0\0\0\0\2", 8},
        {"\0\0\0\0\0\0\0\2\0\0", 10},
        {"\2\0\0\0\0\0\0\0\0", 9},
        {"\0\0\0\0\0\0\0\3\0", 9},
        {"hello", 5},
        {"123456789", 9},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff", 9},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_run_options options = input_options();
        scene s;
        peer *p;
        world_init(&s.w);
        p = input_peer(&s.w);
        peer_ws_expect(p, INPUT("ab"));
        peer_ws_frame(p, SBX_WS_PONG, 1, cases[i].payload, cases[i].len);
        peer_reset(p);
        scene_start(&s, &options);
        put(&s, "ab");
        doubt_is(&s, 2);
        scene_end(&s);
    }
}

/* ---- the end of stdin ---- */

static void an_end_of_stdin_that_was_not_acknowledged_is_said_again(void **state)
{
    int acknowledged;
    (void)state;
    for (acknowledged = 0; acknowledged < 2; acknowledged++) {
        sbx_run_options options = input_options();
        scene s;
        peer *p;
        world_init(&s.w);
        p = input_peer(&s.w);
        peer_ws_expect(p, INPUT("ab"));
        peer_pong(p, 2, 0);
        peer_ws_expect(p, CLOSE_STDIN);
        if (acknowledged)
            peer_pong(p, 2, 1);
        peer_delay(p, 50);
        peer_reset(p);
        p = reattached_peer(&s.w, "0", "0");
        if (!acknowledged)
            peer_ws_expect(p, CLOSE_STDIN);
        peer_delay(p, 50);
        peer_exits(p, EXIT("0"));
        scene_start(&s, &options);
        put(&s, "ab");
        finish_input(&s);
        ends_well(&s, 0, "");
        scene_end(&s);
    }
}

static void a_pong_for_an_end_that_was_not_said_yet_means_nothing(void **state)
{
    sbx_run_options options = input_options();
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = input_peer(&s.w);
    peer_ws_expect(p, INPUT("ab"));
    peer_pong(p, 2, 1);
    peer_ws_expect(p, CLOSE_STDIN);
    peer_pong(p, 1, 1);
    peer_pong(p, 3, 1);
    peer_delay(p, 50);
    peer_reset(p);
    p = reattached_peer(&s.w, "0", "0");
    peer_ws_expect(p, CLOSE_STDIN);
    peer_exits(p, EXIT("0"));
    scene_start(&s, &options);
    put(&s, "ab");
    settle(&s);
    finish_input(&s);
    ends_well(&s, 0, "");
    scene_end(&s);
}

static void stdin_that_is_closed_takes_nothing_more(void **state)
{
    sbx_run_options options = input_options();
    service service_;
    scene s;
    (void)state;
    scene_cat(&s, &service_, &options);
    put(&s, "x");
    finish_input(&s);
    assert_status(&s.w, SBX_E_OPERATION, sbx_command_input(s.command, "y", 1, &s.err), &s.err);
    assert_string_equal(s.err.operation, "command");
    assert_says(&s.w, &s.err, "closed");
    assert_status(&s.w, SBX_E_OPERATION, sbx_command_close_input(s.command, &s.err), &s.err);
    ends_well(&s, 0, "x");
    assert_status(&s.w, SBX_E_OPERATION, sbx_command_input(s.command, "y", 1, &s.err), &s.err);
    assert_says(&s.w, &s.err, "has ended");
    assert_status(&s.w, SBX_E_OPERATION, sbx_command_close_input(s.command, &s.err), &s.err);
    assert_int_equal(service_.closes, 1);
    service_free(&service_);
    scene_end(&s);
}

static void a_handle_that_has_failed_takes_no_input_until_it_reconnects(void **state)
{
    sbx_run_options options = input_options();
    service service_;
    scene s;
    (void)state;
    scene_cat(&s, &service_, &options);
    put(&s, "x");
    settle(&s);
    sbx_op_cancel(sbx_command_op(s.command));
    assert_status(&s.w, SBX_E_CANCELLED, next(&s, SBX_NONE), &s.err);
    assert_status(&s.w, SBX_E_OPERATION, sbx_command_input(s.command, "y", 1, &s.err), &s.err);
    assert_status(&s.w, SBX_OK, sbx_command_reconnect(s.command, &s.err), &s.err);
    put(&s, "z");
    finish_input(&s);
    ends_well(&s, 0, "xz");
    service_free(&service_);
    scene_end(&s);
}

static void wrong_calls_are_refused(void **state)
{
    sbx_run_options options = run_options();
    sbx_error err;
    scene s;
    (void)state;
    world_init(&s.w);
    scene_start(&s, NULL);
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_input(NULL, "x", 1, &err), &err);
    assert_string_equal(err.field, "command");
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_close_input(NULL, &err), &err);
    assert_string_equal(err.field, "command");
    assert_int_equal(sbx_command_input(NULL, "x", 1, NULL), SBX_E_ARGUMENT);
    assert_int_equal(sbx_command_close_input(NULL, NULL), SBX_E_ARGUMENT);
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_input(s.command, "x", 1, &err), &err);
    assert_string_equal(err.field, "input");
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_close_input(s.command, &err), &err);
    assert_string_equal(err.field, "input");
    sbx_command_free(s.command);
    options.input = 1;
    assert_status(&s.w, SBX_OK, sbx_command_start(s.sandbox, "x", &options, &s.command, &err),
                  &err);
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_input(s.command, NULL, 1, &err), &err);
    assert_string_equal(err.field, "data");
    assert_int_equal(sbx_command_input(s.command, NULL, 1, NULL), SBX_E_ARGUMENT);
    /* A call that waits has nobody who could feed it. */
    s.result = NULL;
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_run(s.sandbox, "x", &options, &s.result, &err), &err);
    assert_string_equal(err.field, "input");
    assert_int_equal(s.w.dials, 0);
    scene_end(&s);
}

/* ---- when it is sent ---- */

static void input_waits_until_the_command_is_started(void **state)
{
    sbx_run_options options = input_options();
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = world_peer(&s.w);
    peer_upgrade(p, WS);
    peer_ws_expect(p, EXECUTE_ENDLESS);
    peer_reset(p); /* lost before it was started */
    p = world_peer(&s.w);
    peer_upgrade(p, WS);
    peer_ws_expect(p, EXECUTE_ENDLESS);
    peer_delay(p, 300);
    peer_ws_text(p, STARTED);
    peer_ws_expect(p, INPUT("early"));
    peer_ws_expect(p, CLOSE_STDIN);
    peer_exits(p, EXIT("0"));
    scene_start(&s, &options);
    put(&s, "early");
    finish_input(&s);
    ends_well(&s, 0, "");
    assert_int_equal(s.w.now - s.start, 800);
    scene_end(&s);
}

typedef struct late {
    scene *s;
    const char *text;
} late;

static void put_late(world *w, void *user)
{
    (void)w;
    put(((late *)user)->s, ((late *)user)->text);
}

static void input_during_a_pause_and_while_connecting_follows_reconnect(void **state)
{
    sbx_run_options options = input_options();
    scene s;
    peer *p;
    late one = {&s, "one "}, two = {&s, "two "}, three = {&s, "three"};
    (void)state;
    world_init(&s.w);
    p = input_peer(&s.w);
    peer_reset(p);
    p = world_peer(&s.w);
    p->connect_ms = 200;
    peer_request(p, "GET", WS);
    peer_reply(p, 503, "");
    p = world_peer(&s.w);
    p->connect_ms = 200;
    peer_upgrade(p, WS);
    peer_ws_expect(p, RECONNECT("0", "0"));
    /* Older services do not acknowledge: nothing is waited for. */
    peer_ws_expect(p, INPUT("one two three"));
    peer_exits(p, EXIT("0"));
    scene_start(&s, &options);
    world_at(&s.w, 100, put_late, &one);
    world_at(&s.w, 600, put_late, &two);
    world_at(&s.w, 1000, put_late, &three);
    ends_well(&s, 0, "");
    scene_end(&s);
}

static void input_wakes_the_program_that_waits(void **state)
{
    sbx_run_options options = input_options();
    scene s;
    peer *p;
    late later = {&s, "later"};
    sbx_item items[SBX_ITEMS];
    int64_t timeout;
    (void)state;
    world_init(&s.w);
    p = input_peer(&s.w);
    peer_ws_expect(p, INPUT("later"));
    peer_exits(p, EXIT("0"));
    scene_start(&s, &options);
    settle(&s);
    sbx_op_wants(sbx_command_op(s.command), items, SBX_ITEMS, &timeout);
    assert_true(timeout > 0);
    world_at(&s.w, 70, put_late, &later);
    ends_well(&s, 0, "");
    assert_int_equal(s.w.now - s.start, 71);
    scene_end(&s);
    /* And without a wait of ours, wants says so. */
    world_init(&s.w);
    p = input_peer(&s.w);
    peer_ws_expect(p, INPUT("now"));
    scene_start(&s, &options);
    settle(&s);
    put(&s, "now");
    sbx_op_wants(sbx_command_op(s.command), items, SBX_ITEMS, &timeout);
    assert_int_equal(timeout, 0);
    settle(&s);
    scene_end(&s);
}

static void a_password_does_not_stay_in_freed_memory(void **state)
{
    sbx_run_options options = input_options();
    service service_;
    scene s;
    int i, before;
    (void)state;
    scene_cat(&s, &service_, &options);
    service_.cat = 3; /* prints nothing */
    settle(&s);
    before = s.w.key_left;
    for (i = 0; i < 3; i++) {
        put(&s, WORLD_KEY "\n");
        settle(&s);
    }
    put(&s, WORLD_KEY "\n"); /* and never sent */
    sbx_command_free(s.command);
    assert_int_equal(s.w.key_left, before);
    service_free(&service_);
    end(&s.w, s.sandbox);
}

/* ---- in doubt ---- */

static void input_in_doubt_ends_the_command_and_reconnecting_goes_on_behind_it(void **state)
{
    sbx_run_options options = input_options();
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = input_peer(&s.w);
    peer_ws_expect(p, INPUT("known "));
    peer_pong(p, 6, 0);
    peer_ws_expect(p, INPUT("doubtful "));
    peer_ws_text(p, OUT("0", "known "));
    peer_delay(p, 10);
    peer_reset(p);
    p = reattached_peer(&s.w, "6", "0");
    peer_ws_expect(p, INPUT("rest"));
    peer_ws_expect(p, CLOSE_STDIN);
    peer_exits(p, EXIT("0"));
    scene_start(&s, &options);
    put(&s, "known ");
    settle(&s);
    put(&s, "doubtful ");
    settle(&s);
    s.w.peers[0]->stuck_after = s.w.peers[0]->taken;
    put(&s, "rest"); /* does not leave */
    assert_status(&s.w, SBX_E_CONNECTION, next(&s, SBX_NONE), &s.err);
    assert_says(&s.w, &s.err, "9 bytes of its input");
    assert_string_equal(s.err.operation, "command");
    assert_status(&s.w, SBX_OK, sbx_command_reconnect(s.command, &s.err), &s.err);
    finish_input(&s);
    assert_status(&s.w, SBX_OK, sbx_command_result(s.command, &s.result, &s.err), &s.err);
    assert_int_equal(s.result->input_lost, 9);
    assert_string_equal(s.result->out, "known ");
    sbx_free(s.result);
    scene_end(&s);
}

static void with_a_terminal_input_in_doubt_is_counted(void **state)
{
    sbx_run_options options = run_options();
    scene s;
    peer *p;
    int i;
    (void)state;
    options.pty = 1;
    world_init(&s.w);
    for (i = 0; i < 3; i++) {
        p = i ? reattached_peer(&s.w, "0", "0") : world_peer(&s.w);
        p->mute = 1;
        if (!i) {
            peer_upgrade(p, WS);
            peer_ws_expect(p, EXECUTE_PTY);
        }
        peer_ws_text(p, STARTED);
        peer_ws_expect(p, i ? INPUT("bb") : INPUT("aaa"));
        if (i < 2)
            peer_reset(p);
    }
    peer_exits(p, EXIT("0"));
    scene_start(&s, &options);
    put(&s, "aaa");
    assert_int_equal(next(&s, 100), SBX_AGAIN);
    put(&s, "bb");
    assert_int_equal(next(&s, 600), SBX_AGAIN);
    put(&s, "bb");
    assert_status(&s.w, SBX_OK, sbx_command_result(s.command, &s.result, &s.err), &s.err);
    assert_int_equal(s.result->input_lost, 5);
    assert_non_null(strstr(wtext_get(&s.w.log), "3 bytes of input may be lost"));
    sbx_free(s.result);
    scene_end(&s);
}

/* ---- commands that do not read ---- */

static void reads_again(world *w, void *user)
{
    peer *p = (peer *)user;
    (void)w;
    p->stuck_after = -1;
    p->deaf = 0;
}

/* The service lets bytes wait in the network (how 0), or takes them and does not look (how 1). */
static void a_command_that_does_not_read_for_ten_minutes_keeps_its_connection(void **state)
{
    static char much[40000];
    int how;
    (void)state;
    memset(much, 'x', sizeof(much));
    for (how = 0; how < 2; how++) {
        sbx_run_options options = input_options();
        service service_;
        scene s;
        peer *p;
        scene_cat(&s, &service_, &options);
        settle(&s);
        p = s.w.peers[0];
        if (how)
            p->deaf = 1;
        else
            p->stuck_after = p->taken + 20000;
        assert_int_equal(sbx_command_input(s.command, much, sizeof(much), &s.err), SBX_OK);
        finish_input(&s);
        world_at(&s.w, 600000, reads_again, p);
        assert_status(&s.w, SBX_OK, sbx_command_result(s.command, &s.result, &s.err), &s.err);
        assert_int_equal(s.w.dials, 1);
        assert_int_equal(s.w.now - s.start, 600001);
        assert_int_equal(s.result->out_len, sizeof(much));
        assert_int_equal(s.result->input_lost, 0);
        sbx_free(s.result);
        service_free(&service_);
        scene_end(&s);
    }
}

static void once_all_input_was_read_silence_is_what_it_was(void **state)
{
    sbx_run_options options = input_options();
    service service_;
    scene s;
    (void)state;
    scene_cat(&s, &service_, &options);
    put(&s, "x");
    settle(&s);
    s.w.peers[0]->deaf = 1;
    idle(&s, 85000);
    assert_int_equal(s.w.dials, 1);
    idle(&s, 7000);
    assert_int_equal(s.w.dials, 2);
    finish_input(&s);
    ends_well(&s, 0, "x");
    service_free(&service_);
    scene_end(&s);
}

static void a_terminal_that_takes_no_input_is_left_after_a_minute(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 2; how++) {
        sbx_run_options options = input_options();
        service service_;
        scene s;
        peer *p;
        options.pty = 1;
        scene_cat(&s, &service_, &options);
        settle(&s);
        p = s.w.peers[0];
        if (how)
            p->deaf = 1;
        else
            p->stuck_after = p->taken;
        put(&s, "abc");
        idle(&s, 91000);
        assert_int_equal(s.w.dials, 2);
        assert_between(s.w.peers[1]->dialled_at - s.start, 60000, 90500);
        put(&s, "d\x04");
        assert_status(&s.w, SBX_OK, sbx_command_result(s.command, &s.result, &s.err), &s.err);
        assert_string_equal(s.result->out, how ? "d\x04" : "abcd\x04");
        assert_int_equal(s.result->input_lost, how ? 3 : 0);
        sbx_free(s.result);
        p->in.len = 0;
        service_free(&service_);
        scene_end(&s);
    }
}

/* ---- cut everywhere ---- */

enum { CUT_WRITES, CUT_ARRIVALS, CUT_BOTH, CUT_ANSWERS, CUTS };

#define PIECES 5
#define PIECE_TOKENS 3

/* What goes in: numbers, so that a hole, a repetition or a change of order is seen. */
static size_t piece(int i, char *out)
{
    size_t len = 0;
    int k;
    for (k = 0; k < PIECE_TOKENS; k++)
        len += (size_t)sprintf(out + len, "%02d" EURO, i * PIECE_TOKENS + k);
    return len;
}

typedef struct outcome {
    int failures;
    uint64_t lost;
    int holes; /* numbers that never arrived */
    int hard;  /* 1: connections break so often that the client may give up */
} outcome;

/* After an error it goes on where that is possible: each error must be one that may be. */
static void repair(scene *s, sbx_status st, outcome *o)
{
    check_error(&s->w, st, &s->err);
    if (st != SBX_E_CONNECTION ||
        (!strstr(s->err.message, "bytes of its input were on their way") &&
         !(o->hard && strstr(s->err.message, "attempts in a row failed"))))
        world_fail(&s->w, "%s: %s", sbx_status_name(st), s->err.message);
    o->failures++;
    assert_status(&s->w, SBX_OK, sbx_command_reconnect(s->command, &s->err), &s->err);
}

/* What arrived: each number at most once, in order. */
static int holes_in(scene *s, const char *got, size_t len)
{
    int seen = 0, last = -1;
    size_t i;
    for (i = 0; i + 5 <= len && got[i] != 4; i += 5) {
        int number = atoi(got + i);
        if (memcmp(got + i + 2, EURO, 3) != 0 || number <= last)
            world_fail(&s->w, "stdin got %s", got);
        last = number;
        seen++;
    }
    for (; i < len; i++)
        if (got[i] != 4)
            world_fail(&s->w, "stdin got %s", got);
    return PIECES * PIECE_TOKENS - seen;
}

/* A whole conversation: input bit by bit with steps in between, the end, the result. */
static outcome converse(scene *s, service *service_, int pty, int hard)
{
    outcome o = {0, 0, 0, hard};
    char text[64];
    sbx_status st;
    int i;
    for (i = 0; i <= PIECES; i++) {
        size_t len = i < PIECES ? piece(i, text) : (size_t)sprintf(text, "\x04");
        if (i < PIECES || pty) {
            st = sbx_command_input(s->command, text, len, &s->err);
            assert_int_equal(st, SBX_OK);
        } else {
            finish_input(s);
        }
        while ((st = next(s, 20)) == SBX_OK)
            ;
        if (st < 0)
            repair(s, st, &o);
    }
    while ((st = sbx_command_result(s->command, &s->result, &s->err)) != SBX_OK) {
        repair(s, st, &o);
        assert_true(o.failures < 50);
    }
    o.lost = s->result->input_lost;
    o.holes = holes_in(s, wtext_get(&service_->input), service_->input.len);
    assert_int_equal(s->result->out_len, service_->input.len);
    assert_memory_equal(s->result->out, wtext_get(&service_->input), service_->input.len);
    assert_int_equal(service_->executions, 1);
    /* Nothing is missing that was not told. */
    if ((uint64_t)o.holes * 5 > o.lost || (!pty && !hard && (o.failures > 0) != (o.lost > 0)))
        world_fail(&s->w, "%d numbers never arrived, %lu bytes are told as lost, %d errors",
                   o.holes, (unsigned long)o.lost, o.failures);
    sbx_free(s->result);
    return o;
}

static void cut_at(peer *p, int how, int64_t at)
{
    if (how == CUT_WRITES)
        p->take_at_most = at;
    else if (how == CUT_ANSWERS)
        p->cut_at = at;
    else
        p->lose_after = at;
    p->lose_answers = how == CUT_BOTH;
}

/* A terminal that lost its Ctrl-D would wait for ever: the end is said again and again. */
static void say_end(world *w, void *user)
{
    scene *s = (scene *)user;
    sbx_error err;
    (void)sbx_command_input(s->command, "\x04", 1, &err);
    world_at(w, 30000, say_end, s);
}

static void input_cut_at_any_byte_is_never_doubled_or_out_of_order(void **state)
{
    int how, pty, clean[2][CUTS], lossy[2][CUTS];
    (void)state;
    memset(clean, 0, sizeof(clean));
    memset(lossy, 0, sizeof(lossy));
    for (pty = 0; pty < 2; pty++) {
        for (how = 0; how < CUTS; how++) {
            int64_t at, whole = 1;
            for (at = -1; at < whole; at++) {
                sbx_run_options options = input_options();
                service service_;
                scene s;
                outcome o;
                peer *p;
                options.pty = pty;
                world_init(&s.w);
                service_init(&service_, &s.w);
                service_.cat = pty ? 2 : 1;
                p = world_peer(&s.w);
                p->optional = 1;
                cut_at(p, how, at);
                scene_start(&s, &options);
                if (pty)
                    world_at(&s.w, 30000, say_end, &s);
                o = converse(&s, &service_, pty, 0);
                if (at < 0) {
                    whole = how == CUT_ANSWERS ? p->delivered : p->taken;
                    assert_int_equal(o.lost, 0);
                    assert_int_equal(o.holes, 0);
                }
                *(o.lost ? &lossy[pty][how] : &clean[pty][how]) += 1;
                service_free(&service_);
                scene_end(&s);
            }
            assert_true(whole > 400);
        }
    }
    for (pty = 0; pty < 2; pty++) {
        for (how = 0; how < CUTS; how++) {
            print_message("pty %d, cut %d: %d without loss, %d with\n", pty, how, clean[pty][how],
                          lossy[pty][how]);
            assert_true(clean[pty][how] > 100);
            assert_true(how == CUT_WRITES || lossy[pty][how] > 20);
        }
    }
}

static uint64_t lot;

static uint64_t draw(uint64_t below)
{
    lot = lot * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (lot >> 33) % below;
}

static void cut_at_random(peer *p, void *user)
{
    (void)user;
    if (p->number < 30)
        cut_at(p, (int)draw(CUTS), 150 + (int64_t)draw(900));
    if (draw(3) == 0)
        p->write_max = 1 + (size_t)draw(9);
    if (draw(3) == 0)
        p->piece = 1 + (size_t)draw(9);
    p->every_other = draw(3) == 0;
}

static void input_cut_again_and_again_is_never_doubled_or_out_of_order(void **state)
{
    int i, pty;
    (void)state;
    lot = 1;
    for (i = 0; i < 600; i++) {
        sbx_run_options options = input_options();
        service service_;
        scene s;
        pty = i & 1;
        options.pty = pty;
        world_init(&s.w);
        service_init(&service_, &s.w);
        service_.cat = pty ? 2 : 1;
        service_.lose_started = (i & 2) != 0;
        s.w.on_dial = cut_at_random;
        s.w.buffering = i & 4;
        scene_start(&s, &options);
        if (pty)
            world_at(&s.w, 30000, say_end, &s);
        (void)converse(&s, &service_, pty, 1);
        service_free(&service_);
        scene_end(&s);
    }
}

/* ---- everything may fail ---- */

/* Input, an answer, resizing, another handle, kill: stops at the first error and cleans up. */
static sbx_status everything(scene *s)
{
    sbx_run_options options = input_options();
    sbx_attach_options attach;
    sbx_command *other = NULL;
    sbx_result *result = NULL;
    sbx_chunk chunk;
    sbx_status st;
    memset(&attach, 0, sizeof(attach));
    attach.input = 1;
    options.pty = 1;
    st = sbx_command_start(s->sandbox, "x", &options, &s->command, &s->err);
    if (st == SBX_OK)
        st = sbx_command_resize(s->command, 80, 25, &s->err);
    if (st == SBX_OK)
        st = sbx_command_input(s->command, "hello", 5, &s->err);
    if (st == SBX_OK)
        st = sbx_command_next(s->command, &chunk, SBX_NONE, &s->err);
    if (st == SBX_OK)
        st = sbx_command_attach(s->sandbox, sbx_command_id(s->command), &attach, &other, &s->err);
    if (st == SBX_OK)
        st = sbx_command_next(other, &chunk, SBX_NONE, &s->err);
    if (st == SBX_OK) {
        sbx_command_kill(other);
        st = sbx_command_result(other, &result, &s->err);
    }
    if (st == SBX_OK) {
        assert_int_equal(result->exit_code, 137);
        assert_string_equal(result->out, "hello");
    }
    check_error(&s->w, st, &s->err);
    sbx_free(result);
    sbx_command_free(other);
    sbx_command_free(s->command);
    s->command = NULL;
    return st;
}

static sbx_status everything_in(int fail_alloc, int fail_call, int *failed)
{
    service service_;
    scene s;
    sbx_status st;
    s.command = NULL;
    world_init(&s.w);
    service_init(&service_, &s.w);
    service_.cat = 2;
    s.sandbox = begin(&s.w);
    s.w.fail_alloc = fail_alloc ? s.w.allocs + fail_alloc : 0;
    s.w.fail_call = fail_call;
    s.w.fail_kinds = WORLD_ALL;
    s.w.calls = 0;
    st = everything(&s);
    *failed = s.w.failed_allocs + s.w.failed_calls;
    s.w.fail_alloc = s.w.fail_call = 0;
    service_free(&service_);
    end(&s.w, s.sandbox);
    return st;
}

static void every_allocation_may_fail(void **state)
{
    int n, failed = 1;
    (void)state;
    for (n = 1; failed; n++) {
        sbx_status st = everything_in(n, 0, &failed);
        assert_int_equal(st, failed ? SBX_E_MEMORY : SBX_OK);
    }
    assert_between(n, 15, 60);
}

static void every_call_of_the_transport_may_fail(void **state)
{
    int n, failed = 1, well = 0;
    (void)state;
    for (n = 1; failed; n++) {
        sbx_status st = everything_in(0, n, &failed);
        well += st == SBX_OK;
        if (st != SBX_OK && st != SBX_E_CANCELLED && st != SBX_E_ENTROPY &&
            !sbx_status_is(st, SBX_E_CONNECTION))
            fail_msg("call %d: %s", n, sbx_status_name(st));
    }
    assert_between(n, 20, 300);
    assert_true(well > n / 3);
}

/* One failure, and then the handle is taken up again: neither input nor output gets lost unsaid. */
static void after_any_failure_the_handle_can_go_on(void **state)
{
    int n, kind, failed;
    (void)state;
    for (kind = 0; kind < 2; kind++) {
        for (n = 1, failed = 1; failed; n++) {
            sbx_run_options options = input_options();
            service service_;
            scene s;
            sbx_status st;
            int tries = 0;
            scene_cat(&s, &service_, &options);
            s.w.fail_alloc = kind ? 0 : s.w.allocs + n;
            s.w.fail_call = kind ? n : 0;
            s.w.fail_kinds = WORLD_ALL;
            s.w.calls = 0;
            put(&s, "one ");
            while ((st = next(&s, 20)) == SBX_OK)
                ;
            if (st < 0)
                assert_int_equal(sbx_command_reconnect(s.command, &s.err), SBX_OK);
            put(&s, "two");
            finish_input(&s);
            while ((st = sbx_command_result(s.command, &s.result, &s.err)) != SBX_OK) {
                check_error(&s.w, st, &s.err);
                assert_true(++tries < 4);
                (void)sbx_command_reconnect(s.command, &s.err);
            }
            if (s.result->out_len + s.result->out_lost != service_.input.len ||
                service_.input.len + s.result->input_lost < 7)
                world_fail(&s.w, "%s %d: out '%s' (%lu lost), input '%s' (%lu lost)",
                           kind ? "call" : "allocation", n, s.result->out,
                           (unsigned long)s.result->out_lost, wtext_get(&service_.input),
                           (unsigned long)s.result->input_lost);
            sbx_free(s.result);
            failed = s.w.failed_allocs + s.w.failed_calls;
            s.w.fail_alloc = s.w.fail_call = 0;
            service_free(&service_);
            scene_end(&s);
        }
        assert_true(n > 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_with_input_is_followed_by_a_ping_that_counts),
        cmocka_unit_test(input_without_a_byte_sends_nothing),
        cmocka_unit_test(a_command_without_input_says_so_and_one_with_input_does_not),
        cmocka_unit_test(long_input_is_split_between_characters),
        cmocka_unit_test(a_character_may_be_divided_between_calls),
        cmocka_unit_test(what_is_no_utf8_is_refused_and_not_taken),
        cmocka_unit_test(the_queue_holds_64_kib_and_takes_all_or_nothing),
        cmocka_unit_test(no_more_than_64_kib_are_sent_without_an_answer),
        cmocka_unit_test(the_window_opens_as_pongs_come),
        cmocka_unit_test(pongs_acknowledge_what_they_name),
        cmocka_unit_test(pongs_that_name_nothing_of_ours_acknowledge_nothing),
        cmocka_unit_test(an_end_of_stdin_that_was_not_acknowledged_is_said_again),
        cmocka_unit_test(a_pong_for_an_end_that_was_not_said_yet_means_nothing),
        cmocka_unit_test(stdin_that_is_closed_takes_nothing_more),
        cmocka_unit_test(a_handle_that_has_failed_takes_no_input_until_it_reconnects),
        cmocka_unit_test(wrong_calls_are_refused),
        cmocka_unit_test(input_waits_until_the_command_is_started),
        cmocka_unit_test(input_during_a_pause_and_while_connecting_follows_reconnect),
        cmocka_unit_test(input_wakes_the_program_that_waits),
        cmocka_unit_test(a_password_does_not_stay_in_freed_memory),
        cmocka_unit_test(input_in_doubt_ends_the_command_and_reconnecting_goes_on_behind_it),
        cmocka_unit_test(with_a_terminal_input_in_doubt_is_counted),
        cmocka_unit_test(a_command_that_does_not_read_for_ten_minutes_keeps_its_connection),
        cmocka_unit_test(once_all_input_was_read_silence_is_what_it_was),
        cmocka_unit_test(a_terminal_that_takes_no_input_is_left_after_a_minute),
        cmocka_unit_test(input_cut_at_any_byte_is_never_doubled_or_out_of_order),
        cmocka_unit_test(input_cut_again_and_again_is_never_doubled_or_out_of_order),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(every_call_of_the_transport_may_fail),
        cmocka_unit_test(after_any_failure_the_handle_can_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
