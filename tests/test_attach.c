/* Handles for commands that were started before: attaching by id and offsets, reconnecting by hand,
   several handles on one command, and the size of terminals. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "conversation.h"

#define RECONNECT_TO(id, out, err)                                                                 \
    "{\"type\":\"reconnect\",\"command_id\":\"" id "\",\"stdout_offset\":" out                     \
    ",\"stderr_offset\":" err "}"

static void attach(scene *s, const char *id, const sbx_attach_options *options)
{
    s->sandbox = begin(&s->w);
    s->start = s->w.now;
    assert_status(&s->w, SBX_OK, sbx_command_attach(s->sandbox, id, options, &s->command, &s->err),
                  &s->err);
}

static sbx_attach_options attach_options(void)
{
    sbx_attach_options options;
    memset(&options, 0, sizeof(options));
    return options;
}

static void reconnect(scene *s)
{
    assert_status(&s->w, SBX_OK, sbx_command_reconnect(s->command, &s->err), &s->err);
}

/* A peer to which a handle for "c-1" attaches. */
static peer *attaching_peer(world *w, const char *message)
{
    peer *p = world_peer(w);
    peer_upgrade(p, WS);
    peer_ws_expect(p, message);
    return p;
}

/* ---- attaching ---- */

static void attaching_says_where_to_go_on(void **state)
{
    static const struct {
        uint64_t out, err;
        const char *message;
    } cases[] = {
        {0, 0, RECONNECT_TO("c-1", "0", "0")},
        {7, 3, RECONNECT_TO("c-1", "7", "3")},
        {0, 4294967296, RECONNECT_TO("c-1", "0", "4294967296")},
        {INT64_MAX, INT64_MAX, RECONNECT_TO("c-1", "9223372036854775807", "9223372036854775807")},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_attach_options options = attach_options();
        scene s;
        peer *p;
        options.out_offset = cases[i].out;
        options.err_offset = cases[i].err;
        world_init(&s.w);
        p = attaching_peer(&s.w, cases[i].message);
        peer_ws_text(p, "{\"type\":\"started\",\"command_id\":\"c-1\",\"pid\":9}");
        peer_exits(p, EXIT("5"));
        attach(&s, "c-1", &options);
        assert_int_equal(s.w.dials, 0);
        assert_string_equal(sbx_command_id(s.command), "c-1");
        assert_int_equal(sbx_command_offset(s.command, SBX_STDOUT), cases[i].out);
        assert_int_equal(sbx_command_offset(s.command, SBX_STDERR), cases[i].err);
        ends_well(&s, 5, "");
        assert_int_equal(sbx_command_pid(s.command), 9);
        scene_end(&s);
    }
}

static void the_result_is_what_came_from_the_offset_on(void **state)
{
    /* The service goes on at the offset, before it, or behind it, where it has forgotten some. */
    static const struct {
        const char *chunk, *out;
        uint64_t offset, lost;
    } cases[] = {
        {OUT("4", "efgh"), "efgh", 4, 0},
        {OUT("2", "cdefgh"), "efgh", 4, 0},
        {OUT("6", "gh"), "gh", 6, 2},
        {OUT("0", "abc"), "", 4, 0},
        {"{\"type\":\"stdout\",\"data\":\"efgh\"}", "efgh", 4, 0},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_attach_options options = attach_options();
        scene s;
        peer *p;
        options.out_offset = 4;
        world_init(&s.w);
        p = attaching_peer(&s.w, RECONNECT_TO("c-1", "4", "0"));
        peer_ws_text(p, cases[i].chunk);
        peer_ws_text(p, ERR("0", "all"));
        peer_exits(p, EXIT("0"));
        attach(&s, "c-1", &options);
        if (*cases[i].out) {
            assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
            assert_int_equal(s.chunk.offset, cases[i].offset);
            assert_int_equal(s.chunk.lost, cases[i].lost);
        }
        assert_status(&s.w, SBX_OK, sbx_command_result(s.command, &s.result, &s.err), &s.err);
        assert_string_equal(s.result->out, cases[i].out);
        assert_string_equal(s.result->err, "all");
        assert_int_equal(s.result->out_lost, cases[i].lost);
        sbx_free(s.result);
        scene_end(&s);
    }
}

static void an_offset_never_becomes_negative(void **state)
{
    sbx_attach_options options = attach_options();
    scene s;
    peer *p;
    (void)state;
    options.out_offset = INT64_MAX;
    world_init(&s.w);
    p = attaching_peer(&s.w, RECONNECT_TO("c-1", "9223372036854775807", "0"));
    peer_ws_text(p, "{\"type\":\"stdout\",\"data\":\"abc\"}");
    peer_reset(p);
    attach(&s, "c-1", &options);
    assert_int_equal(next(&s, SBX_NONE), SBX_E_PROTOCOL);
    scene_end(&s);
    /* The same where the service names the offset. */
    world_init(&s.w);
    p = attaching_peer(&s.w, RECONNECT_TO("c-1", "0", "0"));
    peer_ws_text(p, OUT("9223372036854775807", "abc"));
    attach(&s, "c-1", NULL);
    assert_int_equal(next(&s, SBX_NONE), SBX_E_PROTOCOL);
    scene_end(&s);
}

static void ids_of_all_kinds_are_sent_as_they_are(void **state)
{
    static const char *const ids[] = {
        "x", "c-1/../..", "a b", "q\"\\", "\xc3\xbc\xf0\x9f\x98\x80", "%41", "{}", "$"};
    char longest[132];
    size_t i;
    (void)state;
    memset(longest, 'i', 131);
    longest[131] = 0;
    for (i = 0; i <= COUNT(ids); i++) {
        const char *id = i < COUNT(ids) ? ids[i] : longest;
        wtext message = {NULL, 0, 0}, started = {NULL, 0, 0};
        scene s;
        peer *p;
        wtext_puts(&message, "{\"type\":\"reconnect\",\"command_id\":");
        canon_string(&message, id, strlen(id));
        wtext_puts(&message, ",\"stdout_offset\":0,\"stderr_offset\":0}");
        wtext_puts(&started, "{\"type\":\"started\",\"pid\":3,\"command_id\":");
        canon_string(&started, id, strlen(id));
        wtext_puts(&started, "}");
        world_init(&s.w);
        p = attaching_peer(&s.w, message.data);
        peer_ws_text(p, started.data);
        peer_exits(p, EXIT("0"));
        attach(&s, id, NULL);
        ends_well(&s, 0, "");
        assert_int_equal(sbx_command_pid(s.command), 3);
        assert_string_equal(sbx_command_id(s.command), id);
        wtext_free(&message);
        wtext_free(&started);
        scene_end(&s);
    }
}

static void wrong_arguments_are_refused_without_traffic(void **state)
{
    char too_long[133];
    const char *const ids[] = {NULL, "", "\xff", too_long};
    sbx_attach_options options = attach_options();
    sbx_command *command;
    sbx_error err;
    scene s;
    size_t i;
    (void)state;
    memset(too_long, 'i', 132);
    too_long[132] = 0;
    world_init(&s.w);
    s.sandbox = begin(&s.w);
    for (i = 0; i < COUNT(ids); i++) {
        command = (sbx_command *)&s;
        assert_status(&s.w, SBX_E_ARGUMENT,
                      sbx_command_attach(s.sandbox, ids[i], NULL, &command, &err), &err);
        assert_string_equal(err.field, "id");
        assert_null(command);
    }
    options.out_offset = (uint64_t)INT64_MAX + 1;
    assert_status(&s.w, SBX_E_ARGUMENT,
                  sbx_command_attach(s.sandbox, "c", &options, &command, &err), &err);
    options.out_offset = 0;
    options.err_offset = UINT64_MAX;
    assert_status(&s.w, SBX_E_ARGUMENT,
                  sbx_command_attach(s.sandbox, "c", &options, &command, &err), &err);
    options.err_offset = 0;
    options.call.timeout_ms = -2;
    assert_status(&s.w, SBX_E_ARGUMENT,
                  sbx_command_attach(s.sandbox, "c", &options, &command, &err), &err);
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_attach(NULL, "c", NULL, &command, &err), &err);
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_attach(s.sandbox, "c", NULL, NULL, &err), &err);
    assert_int_equal(sbx_command_attach(s.sandbox, NULL, NULL, &command, NULL), SBX_E_ARGUMENT);
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_reconnect(NULL, &err), &err);
    assert_int_equal(sbx_command_reconnect(NULL, NULL), SBX_E_ARGUMENT);
    assert_int_equal(sbx_command_offset(NULL, SBX_STDOUT), 0);
    assert_string_equal(sbx_command_id(NULL), "");
    assert_int_equal(s.w.dials, 0);
    end(&s.w, s.sandbox);
}

static void a_command_that_the_service_does_not_know_any_more_is_told_as_such(void **state)
{
    static const char *const types[] = {"CommandNotFound", "SessionExpired"};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(types); i++) {
        scene s;
        peer *p;
        char text[128];
        world_init(&s.w);
        p = attaching_peer(&s.w, RECONNECT_TO("gone", "0", "0"));
        snprintf(text, sizeof(text), "{\"type\":\"error\",\"error_type\":\"%s\"}", types[i]);
        peer_exits(p, text);
        attach(&s, "gone", NULL);
        assert_status(&s.w, SBX_E_OPERATION, next(&s, SBX_NONE), &s.err);
        assert_string_equal(s.err.operation, "reconnect");
        assert_string_equal(s.err.error_type, types[i]);
        assert_int_equal(s.w.dials, 1);
        scene_end(&s);
    }
}

static void attaching_to_a_service_without_websockets_is_an_error(void **state)
{
    scene s;
    peer *p;
    sbx_status st;
    (void)state;
    world_init(&s.w);
    p = world_peer(&s.w);
    peer_request(p, "GET", WS);
    peer_reply(p, 404, "");
    attach(&s, "c-1", NULL);
    st = next(&s, SBX_NONE);
    check_error(&s.w, st, &s.err);
    assert_true(sbx_status_is(st, SBX_E_CONNECTION));
    assert_int_equal(s.err.http_status, 404);
    scene_end(&s);
}

static void a_handle_that_attached_has_no_deadline_of_its_own(void **state)
{
    scene s;
    peer *p;
    int i;
    (void)state;
    world_init(&s.w);
    p = attaching_peer(&s.w, RECONNECT_TO("c-1", "0", "0"));
    for (i = 0; i < 500; i++) {
        peer_delay(p, 50000);
        peer_ws_text(p, "{\"type\":\"novelty\"}");
    }
    peer_exits(p, EXIT("0"));
    attach(&s, "c-1", NULL);
    ends_well(&s, 0, "");
    assert_int_equal(s.w.now - s.start, 500 * 50000);
    assert_int_equal(s.w.dials, 1);
    scene_end(&s);
}

static void callbacks_and_limits_hold_for_attached_handles_too(void **state)
{
    sbx_attach_options options = attach_options();
    heard h;
    scene s;
    peer *p;
    (void)state;
    memset(&h, 0, sizeof(h));
    options.on_output = hear;
    options.user = &h;
    options.discard_output = 1;
    world_init(&s.w);
    p = attaching_peer(&s.w, RECONNECT_TO("c-1", "0", "0"));
    peer_ws_text(p, OUT("0", "abc"));
    peer_reset(p);
    p = attaching_peer(&s.w, RECONNECT_TO("c-1", "3", "0"));
    peer_ws_text(p, OUT("3", "def"));
    peer_exits(p, EXIT("0"));
    attach(&s, "c-1", &options);
    ends_well(&s, 0, "");
    assert_string_equal(h.out.data, "abcdef");
    heard_free(&h);
    scene_end(&s);
    options = attach_options();
    options.max_output = 4;
    world_init(&s.w);
    p = attaching_peer(&s.w, RECONNECT_TO("c-1", "0", "0"));
    peer_ws_text(p, OUT("0", "abcd"));
    peer_ws_text(p, OUT("4", "e"));
    attach(&s, "c-1", &options);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    assert_status(&s.w, SBX_E_TOO_BIG, next(&s, SBX_NONE), &s.err);
    scene_end(&s);
}

static void two_handles_see_the_same_command(void **state)
{
    static const service_output outputs[] = {{SBX_STDOUT, "one "}, {SBX_STDOUT, "two"}};
    sbx_command *other;
    sbx_result *result;
    service service_;
    scene s;
    (void)state;
    world_init(&s.w);
    service_init(&service_, &s.w);
    service_.outputs = outputs;
    service_.output_count = 2;
    scene_start(&s, NULL);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    assert_status(&s.w, SBX_OK,
                  sbx_command_attach(s.sandbox, sbx_command_id(s.command), NULL, &other, &s.err),
                  &s.err);
    assert_status(&s.w, SBX_OK, sbx_command_result(other, &result, &s.err), &s.err);
    assert_string_equal(result->out, "one two");
    sbx_free(result);
    sbx_command_free(other);
    ends_well(&s, 0, "one two");
    assert_int_equal(service_.executions, 1);
    service_free(&service_);
    scene_end(&s);
}

static void two_handles_feed_one_command(void **state)
{
    sbx_run_options options = run_options();
    sbx_attach_options attaching = attach_options();
    sbx_command *other;
    sbx_result *result;
    service service_;
    scene s;
    int i;
    (void)state;
    options.input = attaching.input = 1;
    world_init(&s.w);
    service_init(&service_, &s.w);
    service_.cat = 1;
    scene_start(&s, &options);
    assert_int_equal(next(&s, 1), SBX_AGAIN);
    assert_status(
        &s.w, SBX_OK,
        sbx_command_attach(s.sandbox, sbx_command_id(s.command), &attaching, &other, &s.err),
        &s.err);
    for (i = 0; i < 4; i++) {
        sbx_command *command = i % 2 ? other : s.command;
        assert_int_equal(sbx_command_input(command, "abcd" + i, 1, &s.err), SBX_OK);
        assert_status(&s.w, SBX_OK, sbx_command_next(command, &s.chunk, SBX_NONE, &s.err), &s.err);
    }
    assert_int_equal(sbx_command_close_input(other, &s.err), SBX_OK);
    assert_status(&s.w, SBX_OK, sbx_command_result(other, &result, &s.err), &s.err);
    ends_well(&s, 0, "abcd");
    assert_string_equal(result->out, "abcd");
    sbx_free(result);
    sbx_command_free(other);
    service_free(&service_);
    scene_end(&s);
}

/* ---- offsets ---- */

static void an_offset_is_where_another_handle_goes_on(void **state)
{
    sbx_op *op;
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "abc"));
    peer_ws_text(p, ERR("10", "x"));
    peer_ws_text(p, OUT("3", "def"));
    scene_start(&s, NULL);
    assert_int_equal(sbx_command_offset(s.command, SBX_STDOUT), 0);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    assert_int_equal(sbx_command_offset(s.command, SBX_STDOUT), 3);
    assert_int_equal(sbx_command_offset(s.command, SBX_STDERR), 0);
    op = sbx_command_op(s.command);
    assert_status(&s.w, SBX_OK, sbx_wait(&op, 1, SBX_NONE, &s.err), &s.err);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    assert_int_equal(sbx_command_offset(s.command, SBX_STDERR), 11);
    /* A chunk that waits, which nobody has seen yet, does not count. */
    assert_status(&s.w, SBX_OK, sbx_wait(&op, 1, SBX_NONE, &s.err), &s.err);
    assert_int_equal(sbx_command_offset(s.command, SBX_STDOUT), 3);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    assert_int_equal(sbx_command_offset(s.command, SBX_STDOUT), 6);
    assert_int_equal(sbx_command_offset(s.command, 0), 0);
    assert_int_equal(sbx_command_offset(s.command, 3), 0);
    scene_end(&s);
}

/* ---- reconnecting ---- */

static void reconnecting_gives_the_connection_up_and_goes_on_where_it_was(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "abc"));
    peer_ws_closed(p, 1000);
    peer_end(p);
    p = reattached_peer(&s.w, "3", "0");
    peer_ws_text(p, OUT("3", "def"));
    peer_exits(p, EXIT("0"));
    scene_start(&s, NULL);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    reconnect(&s);
    reconnect(&s); /* once is as good as twice */
    ends_well(&s, 0, "abcdef");
    assert_int_equal(s.w.now, s.start);
    scene_end(&s);
}

/* Whatever a handle failed of, it can be taken up again, with new limits. */
static void reconnecting_revives_a_handle_that_failed(void **state)
{
    int how, i;
    (void)state;
    for (how = 0; how < 7; how++) {
        sbx_run_options options = run_options();
        sbx_item items[SBX_ITEMS];
        int64_t timeout;
        scene s;
        peer *p;
        options.call.timeout_ms = how == 0 ? 2000 : 100000;
        world_init(&s.w);
        p = executing_peer(&s.w);
        peer_ws_text(p, STARTED);
        peer_ws_text(p, OUT("0", "abc"));
        if (how == 2)
            peer_ws_text(p, "no JSON");
        if (how == 3)
            peer_ws_text(p, FAILURE("CommandError", "odd"));
        for (i = 0; how == 4 && i < 5; i++)
            world_peer(&s.w)->refuse = SBX_E_CONNECT;
        if (how == 4)
            peer_reset(p);
        if (how == 5) {
            peer_reset(p);
            p = reattached_peer(&s.w, "3", "0");
            peer_ws_text(p, FAILURE("SessionExpired", "for now"));
        }
        p = reattached_peer(&s.w, "3", "0");
        peer_ws_text(p, STARTED);
        peer_delay(p, 1900);
        peer_ws_text(p, OUT("3", "def"));
        peer_exits(p, EXIT("0"));
        scene_start(&s, &options);
        assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
        if (how == 1)
            sbx_op_cancel(sbx_command_op(s.command));
        if (how == 6)
            sbx_command_kill(s.command);
        assert_true(how == 6 || next(&s, SBX_NONE) < 0);
        assert_true(how == 6 || next(&s, SBX_NONE) < 0);
        reconnect(&s);
        sbx_op_wants(sbx_command_op(s.command), items, SBX_ITEMS, &timeout);
        assert_int_equal(timeout, 0);
        ends_well(&s, 0, "abcdef");
        scene_end(&s);
    }
}

static void reconnecting_before_the_first_step_changes_nothing(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_exits(p, EXIT("0"));
    scene_start(&s, NULL);
    reconnect(&s);
    ends_well(&s, 0, "");
    scene_end(&s);
}

static void reconnecting_before_started_sends_the_same_execute(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    executing_peer(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_exits(p, EXIT("0"));
    scene_start(&s, NULL);
    assert_int_equal(next(&s, 100), SBX_AGAIN);
    reconnect(&s);
    ends_well(&s, 0, "");
    scene_end(&s);
}

static void reconnecting_in_a_pause_ends_the_pause_and_forgets_the_failures(void **state)
{
    scene s;
    peer *p;
    int i;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_reset(p);
    for (i = 0; i < 9; i++)
        world_peer(&s.w)->refuse = SBX_E_CONNECT;
    p = reattached_peer(&s.w, "0", "0");
    peer_exits(p, EXIT("0"));
    scene_start(&s, NULL);
    while (s.w.dials < 5)
        assert_int_equal(next(&s, 100), SBX_AGAIN);
    s.start = s.w.now;
    reconnect(&s);
    assert_int_equal(next(&s, 0), SBX_AGAIN);
    assert_int_equal(s.w.dials, 6);
    ends_well(&s, 0, "");
    /* 0 at once, then 0.5, 1, 2, 4 and 8 seconds: five more failures were allowed. */
    assert_int_equal(s.w.now - s.start, 15500);
    scene_end(&s);
}

static void reconnecting_has_as_long_as_the_first_time(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    p = reattached_peer(&s.w, "0", "0");
    p->connect_ms = 29000;
    peer_exits(p, EXIT("0"));
    scene_start(&s, NULL);
    assert_int_equal(next(&s, 10), SBX_AGAIN);
    reconnect(&s);
    ends_well(&s, 0, "");
    assert_int_equal(s.w.now - s.start, 29010);
    scene_end(&s);
}

static void a_chunk_that_waits_survives_reconnecting(void **state)
{
    static const char *const texts[] = {"plain", "esc\\u0061ped"};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(texts); i++) {
        char text[100];
        sbx_op *op;
        scene s;
        peer *p;
        world_init(&s.w);
        p = executing_peer(&s.w);
        peer_ws_text(p, STARTED);
        snprintf(text, sizeof(text), "{\"type\":\"stdout\",\"data\":\"%s\",\"offset\":0}",
                 texts[i]);
        peer_ws_text(p, text);
        p = reattached_peer(&s.w, i ? "7" : "5", "0");
        peer_exits(p, EXIT("0"));
        scene_start(&s, NULL);
        op = sbx_command_op(s.command);
        assert_status(&s.w, SBX_OK, sbx_wait(&op, 1, SBX_NONE, &s.err), &s.err);
        reconnect(&s);
        assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
        assert_memory_equal(s.chunk.data, i ? "escaped" : "plain", s.chunk.len);
        ends_well(&s, 0, i ? "escaped" : "plain");
        scene_end(&s);
    }
}

static void a_command_that_has_ended_cannot_be_reconnected(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_exits(p, EXIT("0"));
    scene_start(&s, NULL);
    assert_int_equal(next(&s, SBX_NONE), SBX_END);
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_reconnect(s.command, &s.err), &s.err);
    assert_says(&s.w, &s.err, "ended");
    ends_well(&s, 0, "");
    scene_end(&s);
}

static void a_call_that_stays_cancelled_stays_so(void **state)
{
    sbx_run_options options = run_options();
    sbx_cancel cancel = {0};
    scene s;
    peer *p;
    (void)state;
    options.call.cancel = &cancel;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    p = reattached_peer(&s.w, "0", "0");
    peer_exits(p, EXIT("0"));
    scene_start(&s, &options);
    assert_int_equal(next(&s, 100), SBX_AGAIN);
    sbx_cancel_set(s.w.client, &cancel);
    assert_status(&s.w, SBX_E_CANCELLED, next(&s, SBX_NONE), &s.err);
    reconnect(&s);
    assert_status(&s.w, SBX_E_CANCELLED, next(&s, SBX_NONE), &s.err);
    cancel.set = 0;
    reconnect(&s);
    ends_well(&s, 0, "");
    scene_end(&s);
}

/* ---- terminals ---- */

#define RESIZE(columns, rows) "{\"type\":\"resize\",\"cols\":" columns ",\"rows\":" rows "}"

static void the_last_size_is_said_again_after_each_reconnect(void **state)
{
    sbx_run_options options = run_options();
    scene s;
    peer *p;
    int i;
    (void)state;
    options.pty = 1;
    world_init(&s.w);
    p = attaching_peer(&s.w, EXECUTE_PTY);
    peer_ws_text(p, STARTED);
    peer_ws_expect(p, RESIZE("65535", "1"));
    peer_ws_expect(p, RESIZE("132", "43"));
    peer_delay(p, 10);
    peer_reset(p);
    for (i = 0; i < 3; i++) {
        p = reattached_peer(&s.w, "0", "0");
        peer_ws_expect(p, RESIZE("132", "43"));
        peer_ws_text(p, STARTED);
        peer_delay(p, 10);
        if (i < 2)
            peer_reset(p);
    }
    peer_exits(p, EXIT("0"));
    scene_start(&s, &options);
    assert_int_equal(sbx_command_resize(s.command, 1, 1, &s.err), SBX_OK);
    assert_int_equal(sbx_command_resize(s.command, 65535, 1, &s.err), SBX_OK);
    assert_int_equal(next(&s, 1), SBX_AGAIN);
    assert_status(&s.w, SBX_OK, sbx_command_resize(s.command, 132, 43, &s.err), &s.err);
    ends_well(&s, 0, "");
    scene_end(&s);
}

static void a_terminal_without_a_size_is_told_none(void **state)
{
    sbx_attach_options options = attach_options();
    scene s;
    peer *p;
    (void)state;
    options.pty = 1;
    world_init(&s.w);
    p = attaching_peer(&s.w, RECONNECT_TO("c-1", "0", "0"));
    peer_reset(p);
    p = attaching_peer(&s.w, RECONNECT_TO("c-1", "0", "0"));
    peer_ws_expect(p, INPUT("x"));
    peer_exits(p, EXIT("0"));
    attach(&s, "c-1", &options);
    assert_int_equal(next(&s, 600), SBX_AGAIN);
    assert_int_equal(sbx_command_input(s.command, "x", 1, &s.err), SBX_OK);
    ends_well(&s, 0, "");
    scene_end(&s);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    static const int sizes[][2] = {{0, 1}, {1, 0}, {-1, 5}, {65536, 1}, {1, 65536}};
    sbx_run_options options = run_options();
    scene s;
    size_t i;
    (void)state;
    options.pty = 1;
    world_init(&s.w);
    scene_start(&s, &options);
    for (i = 0; i < COUNT(sizes); i++) {
        assert_status(&s.w, SBX_E_ARGUMENT,
                      sbx_command_resize(s.command, sizes[i][0], sizes[i][1], &s.err), &s.err);
        assert_string_equal(s.err.field,
                            sizes[i][0] < 1 || sizes[i][0] > 65535 ? "columns" : "rows");
    }
    sbx_command_free(s.command);
    assert_int_equal(sbx_command_start(s.sandbox, "x", NULL, &s.command, &s.err), SBX_OK);
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_resize(s.command, 80, 25, &s.err), &s.err);
    assert_string_equal(s.err.field, "pty");
    assert_status(&s.w, SBX_E_ARGUMENT, sbx_command_resize(NULL, 80, 25, &s.err), &s.err);
    assert_int_equal(sbx_command_resize(NULL, 80, 25, NULL), SBX_E_ARGUMENT);
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attaching_says_where_to_go_on),
        cmocka_unit_test(the_result_is_what_came_from_the_offset_on),
        cmocka_unit_test(an_offset_never_becomes_negative),
        cmocka_unit_test(ids_of_all_kinds_are_sent_as_they_are),
        cmocka_unit_test(wrong_arguments_are_refused_without_traffic),
        cmocka_unit_test(a_command_that_the_service_does_not_know_any_more_is_told_as_such),
        cmocka_unit_test(attaching_to_a_service_without_websockets_is_an_error),
        cmocka_unit_test(a_handle_that_attached_has_no_deadline_of_its_own),
        cmocka_unit_test(callbacks_and_limits_hold_for_attached_handles_too),
        cmocka_unit_test(two_handles_see_the_same_command),
        cmocka_unit_test(two_handles_feed_one_command),
        cmocka_unit_test(an_offset_is_where_another_handle_goes_on),
        cmocka_unit_test(reconnecting_gives_the_connection_up_and_goes_on_where_it_was),
        cmocka_unit_test(reconnecting_revives_a_handle_that_failed),
        cmocka_unit_test(reconnecting_before_the_first_step_changes_nothing),
        cmocka_unit_test(reconnecting_before_started_sends_the_same_execute),
        cmocka_unit_test(reconnecting_in_a_pause_ends_the_pause_and_forgets_the_failures),
        cmocka_unit_test(reconnecting_has_as_long_as_the_first_time),
        cmocka_unit_test(a_chunk_that_waits_survives_reconnecting),
        cmocka_unit_test(a_command_that_has_ended_cannot_be_reconnected),
        cmocka_unit_test(a_call_that_stays_cancelled_stays_so),
        cmocka_unit_test(the_last_size_is_said_again_after_each_reconnect),
        cmocka_unit_test(a_terminal_without_a_size_is_told_none),
        cmocka_unit_test(sizes_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
