/* What clients of this service learnt the hard way, each lesson as a test with its number. Those
   that are missing are about tunnels. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "conversation.h"

/* Answers whatever is executed with "awake". */
static void serve_any_execute(peer *p, void *user)
{
    wtext text = {NULL, 0, 0};
    (void)user;
    if (!peer_take_message(p, &text))
        world_fail(p->w, "no message, but a request");
    wtext_free(&text);
    peer_ws_text(p, OUT("0", "awake"));
    peer_exits(p, EXIT("0"));
}

/* Callbacks hung on one connection, and went silent with it. */
static void lesson_1_output_after_a_reconnect_reaches_the_callback(void **state)
{
    sbx_run_options options = run_options();
    heard h;
    world w;
    sbx_sandbox *sandbox;
    peer *p;
    (void)state;
    memset(&h, 0, sizeof(h));
    options.on_output = hear;
    options.user = &h;
    options.discard_output = 1;
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "head "));
    peer_reset(p);
    p = reattached_peer(&w, "5", "0");
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("5", "tail"));
    peer_ws_text(p, ERR("0", "error"));
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    run_well(&w, sandbox, &options, 0, "", "");
    assert_string_equal(h.out.data, "head tail");
    assert_string_equal(h.err.data, "error");
    heard_free(&h);
    end(&w, sandbox);
}

/* A command that printed nothing used up its attempts although each had attached. */
static void lesson_2_a_silent_command_lives_through_any_number_of_losses(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    peer *p;
    int64_t start;
    int k;
    (void)state;
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    peer_reset(p);
    for (k = 0; k < 30; k++) {
        p = reattached_peer(&w, "0", "0");
        peer_ws_text(p, STARTED);
        peer_reset(p);
    }
    p = reattached_peer(&w, "0", "0");
    peer_ws_text(p, STARTED);
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    start = w.now;
    run_well(&w, sandbox, NULL, 0, "", "");
    assert_int_equal(w.now - start, 31 * 500);
    end(&w, sandbox);
}

/* A connection that ended in good order was taken for the end of the command. */
static void lesson_3_only_exit_is_the_end(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 3; how++) {
        world w;
        sbx_sandbox *sandbox;
        peer *p;
        world_init(&w);
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        peer_ws_text(p, OUT("0", "half "));
        if (how < 2)
            peer_ws_close(p, how ? 1000 : 0);
        peer_close(p);
        p = reattached_peer(&w, "5", "0");
        peer_ws_text(p, OUT("5", "whole"));
        peer_exits(p, EXIT("3"));
        sandbox = begin(&w);
        run_well(&w, sandbox, NULL, 3, "half whole", "");
        end(&w, sandbox);
    }
}

/* The service runs an id once: to say the same again finds out what became of it. */
static void lesson_4_a_lost_started_is_neither_an_error_nor_another_execution(void **state)
{
    static const int codes[] = {1000, 1001, 1006, 1011, 1005, 1012};
    size_t i;
    int k;
    (void)state;
    for (i = 0; i < COUNT(codes); i++) {
        world w;
        sbx_sandbox *sandbox;
        peer *p;
        int64_t start;
        world_init(&w);
        for (k = 0; k < 2; k++) {
            p = executing_peer(&w);
            if (codes[i] == 1006)
                peer_reset(p);
            else
                peer_ws_close(p, codes[i] == 1005 ? 0 : codes[i]);
            if (k)
                peer_close(p);
        }
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        peer_ws_text(p, OUT("0", "once"));
        peer_exits(p, EXIT("0"));
        sandbox = begin(&w);
        start = w.now;
        run_well(&w, sandbox, NULL, 0, "once", "");
        assert_between(w.now - start, 0, 1500);
        if (codes[i] != 1001)
            assert_int_equal(w.now - start, 1500);
        end(&w, sandbox);
    }
}

/* Falling back to HTTP ran commands twice. */
static void lesson_5_once_execute_was_sent_nothing_falls_back_to_http(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_error err;
    peer *p;
    (void)state;
    world_init(&w);
    p = executing_peer(&w);
    peer_reset(p);
    p = world_peer(&w);
    peer_request(p, "GET", WS);
    peer_reply(p, 404, "{\"detail\":\"no such path\"}");
    sandbox = begin(&w);
    assert_true(sbx_status_is(run(sandbox, NULL, &result, &err), SBX_E_CONNECTION));
    assert_int_equal(err.http_status, 404);
    assert_int_equal(w.dials, 2);
    end(&w, sandbox);
}

/* To kill a command in a sandbox that is gone already hung. */
static void lesson_6_killing_ends_though_the_sandbox_is_gone(void **state)
{
    int how, i;
    (void)state;
    for (how = 0; how < 3; how++) {
        scene s;
        peer *p;
        world_init(&s.w);
        p = executing_peer(&s.w);
        peer_ws_text(p, STARTED);
        if (how < 2)
            peer_reset(p);
        for (i = 0; how < 2 && i < 12; i++) {
            p = world_peer(&s.w);
            p->optional = 1;
            if (how)
                p->connect_ms = WORLD_NEVER;
            else
                p->refuse = SBX_E_CONNECT;
        }
        scene_start(&s, NULL);
        assert_int_equal(next(&s, 100), SBX_AGAIN);
        if (how == 2) /* the machine is gone without a word */
            p->stuck_after = p->taken;
        sbx_command_kill(s.command);
        assert_status(&s.w, SBX_E_CANCELLED, next(&s, SBX_NONE), &s.err);
        assert_between(s.w.now - s.start, 100, 2100);
        scene_end(&s);
    }
}

/* Names went into paths as they were. */
static void lesson_7_names_are_one_segment_of_the_path(void **state)
{
    world w;
    sbx_sandbox *sandbox, *got = NULL;
    sbx_bytes *bytes;
    sbx_error err;
    peer *p;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "GET", "/v2/sandboxes/boxes/%2E%2E%2Fpools%3Fa%23b%20%25");
    peer_reply(p, 404, "");
    p = world_peer(&w);
    peer_request(p, "GET", "/sb-1/download?path=%2F%2E%2E%2Fa%26b%3D%2B%3F");
    peer_reply(p, 404, "");
    sandbox = begin(&w);
    assert_status(&w, SBX_E_NOT_FOUND,
                  sbx_sandbox_get(w.client, "../pools?a#b %", NULL, &got, &err), &err);
    assert_status(&w, SBX_E_NOT_FOUND, sbx_read(sandbox, "/../a&b=+?", NULL, &bytes, &err), &err);
    end(&w, sandbox);
}

/* A caller's header was sent beside the client's own of the same name in another case. */
static void lesson_8_a_header_is_sent_once_whatever_its_case(void **state)
{
    static const char *const headers[] = {"x-API-key: another", "USER-agent: mine", NULL};
    sbx_run_options options = run_options();
    world w;
    sbx_sandbox *sandbox;
    peer *p;
    (void)state;
    options.call.headers = headers;
    world_init(&w);
    w.key = "another"; /* and no header twice, as for every request in these tests */
    p = world_peer(&w);
    peer_upgrade(p, WS);
    peer_with(p, "User-Agent: mine");
    peer_ws_expect(p, EXECUTE("x"));
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    run_well(&w, sandbox, &options, 0, "", "");
    end(&w, sandbox);
}

/* To wait longer for a connection that hangs did not help, to try again did. When the budget is
   used up to the last millisecond, no attempt goes on without a limit. */
static void lesson_9_a_hanging_connect_is_tried_again_inside_two_minutes(void **state)
{
    sbx_run_options options = run_options();
    world w;
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_error err;
    sbx_status st;
    int64_t start;
    int k;
    (void)state;
    options.timeout_ms = SBX_NONE;
    world_init(&w);
    for (k = 0; k < 6; k++) {
        peer *p = world_peer(&w);
        p->optional = 1;
        if (k % 2)
            p->connect_ms = WORLD_NEVER;
        else
            peer_request(p, "GET", WS);
    }
    sandbox = begin(&w);
    start = w.now;
    st = run(sandbox, &options, &result, &err);
    check_error(&w, st, &err);
    assert_true(sbx_status_is(st, SBX_E_CONNECTION) || st == SBX_E_TIMEOUT);
    /* Attempts at 0, 30.5, 61.5 and 93.5 seconds; the budget of 120 ends the last one. */
    assert_int_equal(w.dials, 4);
    assert_int_equal(w.peers[1]->dialled_at - start, 30500);
    assert_int_equal(w.peers[2]->dialled_at - start, 61500);
    assert_int_equal(w.peers[3]->dialled_at - start, 93500);
    assert_int_equal(w.now - start, 120000);
    end(&w, sandbox);
}

/* A sandbox that was stopped meanwhile wakes up when it is used: that takes a while, no more. */
static void lesson_10_a_stopped_sandbox_is_used_without_ceremony(void **state)
{
    world w;
    sbx_sandbox *sandbox = NULL;
    sbx_error err;
    peer *p;
    int turn;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "GET", "/v2/sandboxes/boxes/b");
    peer_reply(p, 200, "{\"status\":\"stopped\",\"dataplane_url\":\"" WORLD_DATAPLANE "\"}");
    for (turn = 0; turn < 2; turn++) {
        world_peer(&w)->refuse = SBX_E_CONNECT;
        p = world_peer(&w);
        peer_request(p, "GET", WS);
        peer_reply(p, 503, "{\"detail\":{\"error\":\"NotReady\",\"message\":\"waking\"}}");
        p = world_peer(&w);
        peer_upgrade(p, WS);
        peer_step(p, STEP_WS_EXPECT);
        p->count--; /* the id differs from turn to turn: any message will do */
        p->optional = 1;
    }
    w.serve = serve_any_execute;
    world_open(&w);
    assert_status(&w, SBX_OK, sbx_sandbox_get(w.client, "b", NULL, &sandbox, &err), &err);
    run_well(&w, sandbox, NULL, 0, "awake", "");
    run_well(&w, sandbox, NULL, 0, "awake", "");
    end(&w, sandbox);
}

/* The caller's headers were missing when the connection was made again. */
static void lesson_14_extra_headers_go_with_every_upgrade(void **state)
{
    static const char *const of_client[] = {"X-Team: red", "X-Both: client", NULL};
    static const char *const of_call[] = {"x-both: call", NULL};
    sbx_run_options options = run_options();
    world w;
    sbx_sandbox *sandbox;
    peer *p;
    (void)state;
    options.call.headers = of_call;
    world_init(&w);
    w.config.headers = of_client;
    p = world_peer(&w);
    peer_upgrade(p, WS);
    peer_with(p, "X-Team: red");
    peer_with(p, "X-Both: call");
    peer_ws_expect(p, EXECUTE("x"));
    peer_ws_text(p, STARTED);
    peer_reset(p);
    p = world_peer(&w);
    peer_upgrade(p, WS);
    peer_with(p, "X-Team: red");
    peer_with(p, "X-Both: call");
    peer_ws_expect(p, RECONNECT("0", "0"));
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    run_well(&w, sandbox, &options, 0, "", "");
    end(&w, sandbox);
}

/* Who did not read for a while took the service's 1001 for a silent end, and paused. */
static void lesson_15_a_reload_is_seen_though_nobody_reads_for_a_while(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "a"));
    peer_ws_text(p, OUT("1", "b"));
    peer_ws_close(p, 1001);
    peer_close(p);
    p = reattached_peer(&s.w, "2", "0");
    peer_exits(p, EXIT("0"));
    scene_start(&s, NULL);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    s.w.now += 30000;
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    s.w.now += 30000;
    s.start = s.w.now;
    ends_well(&s, 0, "ab");
    assert_int_equal(p->dialled_at, s.start);
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lesson_1_output_after_a_reconnect_reaches_the_callback),
        cmocka_unit_test(lesson_2_a_silent_command_lives_through_any_number_of_losses),
        cmocka_unit_test(lesson_3_only_exit_is_the_end),
        cmocka_unit_test(lesson_4_a_lost_started_is_neither_an_error_nor_another_execution),
        cmocka_unit_test(lesson_5_once_execute_was_sent_nothing_falls_back_to_http),
        cmocka_unit_test(lesson_6_killing_ends_though_the_sandbox_is_gone),
        cmocka_unit_test(lesson_7_names_are_one_segment_of_the_path),
        cmocka_unit_test(lesson_8_a_header_is_sent_once_whatever_its_case),
        cmocka_unit_test(lesson_9_a_hanging_connect_is_tried_again_inside_two_minutes),
        cmocka_unit_test(lesson_10_a_stopped_sandbox_is_used_without_ceremony),
        cmocka_unit_test(lesson_14_extra_headers_go_with_every_upgrade),
        cmocka_unit_test(lesson_15_a_reload_is_seen_though_nobody_reads_for_a_while),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
