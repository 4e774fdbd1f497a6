/* Running commands: the conversation over the WebSocket, its life across lost connections, the way
   back to plain HTTP, and the chunk by chunk interface. Where each row of the table in the part
   "command" is tested, here or in test_ATTACH, test_INPUT, test_KILL, test_LESSONS:

     CONNECT  upgraded, not started yet     a_command_runs_over_one_websocket
              upgraded, started before      a_lost_connection_is_made_again_where_it_was
              404 before execute            a_service_without_websockets_is_used_over_http,
                                            callbacks_and_handles_do_not_fall_back
              500 .. 504, no connection     an_upgrade_that_fails_for_now_is_tried_again
              any other answer              other_refusals_of_the_upgrade_are_connection_errors,
                                            refusals_while_reattaching_are_final,
                                            LESSONS: lesson_5
     STREAM   started with our id           LESSONS: lesson_2; six_failures_in_a_row_end_the_command
                                            (another id does not count)
              stdout, stderr                output_alone_renews_the_budget_as_with_older_servers,
                                            overlap_is_dropped_and_a_gap_is_reported
              exit                          the_end_of_the_connection_after_exit_does_not_matter
              error                         errors_of_the_service_end_the_command
              close 1001                    a_lost_connection_is_made_again_where_it_was,
                                            a_server_that_reloads_for_ever_is_not_hammered
              other close, end, reset       a_lost_connection_is_made_again_where_it_was
              silence                       a_peer_that_answers_no_ping_is_left
     any      lost, within the limits       an_upgrade_that_fails_for_now_is_tried_again
              lost otherwise                six_failures_in_a_row_end_the_command,
                                            LESSONS: lesson_9
              lost, input in doubt          INPUT: input_in_doubt_ends_the_command_..; KILL:
                                            input_in_doubt_does_not_keep_the_kill_..; with a pty
                                            INPUT: with_a_terminal_input_in_doubt_is_counted
              kill, execute was not sent    KILL: killed_before_the_first_step_.. and the next three
              kill, execute was sent        KILL: killed_before_started_.., killed_in_a_pause_..,
                                            a_killed_command_gives_what_output_..
              lost after kill was sent      KILL: lost_after_the_kill_has_left_it_is_not_repaired
              2 s after kill                KILL: a_service_that_does_not_tell_the_end_..
              reconnect                     ATTACH: reconnecting_.., six tests
     silence while input waits              INPUT: a_command_that_does_not_read_.., a_terminal_.. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "conversation.h"

/* A peer that accepts the upgrade and gets `execute` for "x" without a time limit. */
static peer *endless_peer(world *w)
{
    peer *p = world_peer(w);
    peer_upgrade(p, WS);
    peer_ws_expect(p, "{\"type\":\"execute\",\"command\":\"x\",\"timeout_seconds\":0,"
                      "\"shell\":\"/bin/bash\",\"idle_timeout_seconds\":300,"
                      "\"kill_on_disconnect\":false,\"ttl_seconds\":600,\"close_stdin\":true,"
                      "\"command_id\":\"$id\"}");
    return p;
}

/* ---- one conversation ---- */

static void a_command_runs_over_one_websocket(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_result *result = NULL;
    sbx_error err;
    peer *p;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    peer_upgrade(p, WS);
    peer_with(p, "X-Api-Key: " WORLD_KEY);
    peer_without(p, "Sec-WebSocket-Protocol");
    peer_without(p, "Origin");
    peer_ws_expect(p, EXECUTE("echo \\\"hi\\\" \\u00fc"));
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "h\\u00fc"));
    peer_ws_text(p, ERR("0", "warning\\n"));
    peer_ws_text(p, OUT("3", "\\u0000\xf0\x9f\x98\x80\\ud83d\\ude00"));
    peer_exits(p, EXIT("3"));
    sandbox = begin(&w);
    assert_status(&w, SBX_OK, sbx_run(sandbox, "echo \"hi\" \xc3\xbc", NULL, &result, &err), &err);
    assert_int_equal(result->exit_code, 3);
    assert_int_equal(result->out_len, 12);
    assert_memory_equal(result->out, "h\xc3\xbc\0\xf0\x9f\x98\x80\xf0\x9f\x98\x80", 13);
    assert_string_equal(result->err, "warning\n");
    assert_int_equal(result->err_len, 8);
    assert_int_equal(result->out_lost, 0);
    assert_int_equal(result->err_lost, 0);
    assert_int_equal(w.dials, 1);
    assert_int_equal(w.slept, 0);
    sbx_free(result);
    end(&w, sandbox);
}

static void options_are_sent_as_the_service_wants_them(void **state)
{
    static const char *const env[] = {"A=1", "EMPTY=", "EQ=a=b", "U=\xc3\xbc", NULL};
    static const char *const no_env[] = {NULL};
    static const struct {
        sbx_run_options options;
        const char *execute;
    } cases[] = {
        {{env, "/work", "/bin/sh", 90000, 60000, 1000, 1, 0, 0, NULL, NULL, 0, 0, {0, NULL, NULL}},
         "{\"type\":\"execute\",\"command\":\"x\",\"timeout_seconds\":90,\"shell\":\"/bin/sh\","
         "\"idle_timeout_seconds\":60,\"kill_on_disconnect\":true,\"ttl_seconds\":1,"
         "\"close_stdin\":true,\"command_id\":\"$id\",\"cwd\":\"/work\","
         "\"env\":{\"A\":\"1\",\"EMPTY\":\"\",\"EQ\":\"a=b\",\"U\":\"\\u00fc\"}}"},
        {{no_env,
          NULL,
          NULL,
          SBX_NONE,
          SBX_NONE,
          SBX_NONE,
          0,
          0,
          1,
          NULL,
          NULL,
          0,
          0,
          {0, NULL, NULL}},
         "{\"type\":\"execute\",\"command\":\"x\",\"timeout_seconds\":0,\"shell\":\"/bin/bash\","
         "\"idle_timeout_seconds\":-1,\"kill_on_disconnect\":false,\"ttl_seconds\":-1,"
         "\"pty\":true,\"command_id\":\"$id\"}"},
        {{NULL, NULL, NULL, 1, 1001, 1999, 0, 0, 0, NULL, NULL, 0, 0, {0, NULL, NULL}},
         "{\"type\":\"execute\",\"command\":\"x\",\"timeout_seconds\":1,\"shell\":\"/bin/bash\","
         "\"idle_timeout_seconds\":2,\"kill_on_disconnect\":false,\"ttl_seconds\":2,"
         "\"close_stdin\":true,\"command_id\":\"$id\"}"},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        world w;
        sbx_sandbox *sandbox;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_upgrade(p, WS);
        peer_ws_expect(p, cases[i].execute);
        peer_ws_text(p, STARTED);
        peer_exits(p, EXIT("0"));
        sandbox = begin(&w);
        run_well(&w, sandbox, &cases[i].options, 0, "", "");
        end(&w, sandbox);
    }
}

static void the_command_id_is_a_uuid_of_version_7(void **state)
{
    char first[80] = "";
    int i, k;
    (void)state;
    for (i = 0; i < 3; i++) {
        char expected[80];
        uint64_t ms;
        world w;
        sbx_sandbox *sandbox;
        peer *p;
        world_init(&w);
        w.seed += (uint64_t)i;
        if (i == 2)
            w.transport.wall_ms = NULL;
        ms = (uint64_t)(w.wall + w.now);
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        peer_exits(p, EXIT("0"));
        sandbox = begin(&w);
        run_well(&w, sandbox, NULL, 0, "", "");
        assert_int_equal(strlen(w.id), 36);
        for (k = 0; k < 36; k++)
            if (k == 8 || k == 13 || k == 18 || k == 23)
                assert_int_equal(w.id[k], '-');
            else
                assert_non_null(strchr("0123456789abcdef", w.id[k]));
        assert_int_equal(w.id[14], '7');
        assert_non_null(strchr("89ab", w.id[19]));
        if (i < 2) {
            snprintf(expected, sizeof(expected), "%08lx-%04lx", (unsigned long)(ms >> 16),
                     (unsigned long)(ms & 0xffff));
            assert_memory_equal(w.id, expected, 13);
        }
        assert_string_not_equal(w.id, first);
        memcpy(first, w.id, sizeof(first));
        end(&w, sandbox);
    }
}

static void refuse_run(world *w, sbx_sandbox *sandbox, const char *command,
                       const sbx_run_options *options, const char *field)
{
    sbx_result *result = (sbx_result *)w;
    sbx_command *handle = (sbx_command *)w;
    sbx_error err;
    assert_status(w, SBX_E_ARGUMENT, sbx_run(sandbox, command, options, &result, &err), &err);
    assert_null(result);
    assert_says(w, &err, field);
    assert_status(w, SBX_E_ARGUMENT, sbx_command_start(sandbox, command, options, &handle, &err),
                  &err);
    assert_null(handle);
}

static void wrong_arguments_are_refused_without_traffic(void **state)
{
    static const char *const no_equals[] = {"A=1", "B", NULL}, *const no_name[] = {"=x", NULL},
                             *const not_utf8[] = {"A=\xff", NULL};
    sbx_run_options options;
    world w;
    sbx_sandbox *sandbox;
    (void)state;
    world_init(&w);
    sandbox = begin(&w);
    refuse_run(&w, sandbox, NULL, NULL, "command");
    refuse_run(&w, sandbox, "echo \xff", NULL, "command");
    refuse_run(&w, NULL, "x", NULL, "sandbox");
    options = run_options();
    options.env = no_equals;
    refuse_run(&w, sandbox, "x", &options, "env");
    options.env = no_name;
    refuse_run(&w, sandbox, "x", &options, "env");
    options.env = not_utf8;
    refuse_run(&w, sandbox, "x", &options, "env");
    options = run_options();
    options.timeout_ms = -2;
    refuse_run(&w, sandbox, "x", &options, "timeout_ms");
    options = run_options();
    options.idle_timeout_ms = -2;
    refuse_run(&w, sandbox, "x", &options, "idle_timeout_ms");
    options = run_options();
    options.ttl_ms = INT64_MIN;
    refuse_run(&w, sandbox, "x", &options, "ttl_ms");
    options = run_options();
    options.call.timeout_ms = -2;
    refuse_run(&w, sandbox, "x", &options, "timeout_ms");
    options = run_options();
    options.cwd = "";
    refuse_run(&w, sandbox, "x", &options, "cwd");
    options = run_options();
    options.shell = "";
    refuse_run(&w, sandbox, "x", &options, "shell");
    assert_int_equal(w.dials, 0);
    end(&w, sandbox);
}

static void a_sandbox_that_is_not_ready_is_refused_without_traffic(void **state)
{
    static const struct {
        const char *json;
        sbx_status status;
    } cases[] = {
        {"{\"status\":\"provisioning\",\"dataplane_url\":\"" WORLD_DATAPLANE "\"}",
         SBX_E_NOT_READY},
        {"{\"status\":\"failed\",\"dataplane_url\":\"" WORLD_DATAPLANE "\"}", SBX_E_NOT_READY},
        {"{\"status\":\"ready\",\"dataplane_url\":null}", SBX_E_NO_DATAPLANE},
        {"{\"status\":\"stopped\",\"dataplane_url\":\"" WORLD_DATAPLANE "\"}", SBX_OK},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        world w;
        sbx_sandbox *sandbox = NULL;
        sbx_result *result = NULL;
        sbx_command *command = NULL;
        sbx_error err;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", "/v2/sandboxes/boxes/b");
        peer_reply(p, 200, cases[i].json);
        if (cases[i].status == SBX_OK) {
            p = executing_peer(&w);
            peer_ws_text(p, STARTED);
            peer_exits(p, EXIT("0"));
        }
        world_open(&w);
        assert_status(&w, SBX_OK, sbx_sandbox_get(w.client, "b", NULL, &sandbox, &err), &err);
        assert_status(&w, cases[i].status, run(sandbox, NULL, &result, &err), &err);
        sbx_free(result);
        if (cases[i].status != SBX_OK) {
            sbx_status st = sbx_command_start(sandbox, "x", NULL, &command, &err);
            assert_int_equal(st, cases[i].status);
            assert_null(command);
            assert_int_equal(w.dials, 1);
        }
        end(&w, sandbox);
    }
}

/* ---- output ---- */

static void output_goes_to_the_callback_as_it_comes(void **state)
{
    int discard;
    (void)state;
    for (discard = 0; discard < 2; discard++) {
        sbx_run_options options = run_options();
        heard h;
        world w;
        sbx_sandbox *sandbox;
        peer *p;
        memset(&h, 0, sizeof(h));
        options.on_output = hear;
        options.user = &h;
        options.discard_output = discard;
        options.max_output = discard ? 3 : 0;
        world_init(&w);
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        peer_ws_text(p, OUT("0", "one "));
        peer_delay(p, 1000);
        peer_ws_text(p, ERR("0", "two"));
        peer_ws_text(p, OUT("4", ""));
        peer_ws_text(p, OUT("4", "three"));
        peer_exits(p, EXIT("0"));
        sandbox = begin(&w);
        run_well(&w, sandbox, &options, 0, discard ? "" : "one three", discard ? "" : "two");
        assert_string_equal(h.out.data, "one three");
        assert_string_equal(h.err.data, "two");
        assert_int_equal(h.calls, 3);
        assert_int_equal(h.wrong, 0);
        heard_free(&h);
        end(&w, sandbox);
    }
}

static int take_ten_ms(void *user, int stream, const char *data, size_t len)
{
    (void)stream;
    (void)data;
    (void)len;
    ((world *)user)->now += 10;
    return 0;
}

static void a_slow_callback_does_not_hold_up_the_deadline(void **state)
{
    sbx_run_options options = run_options();
    world w;
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_error err;
    peer *p;
    int64_t start;
    int i;
    (void)state;
    world_init(&w);
    options.on_output = take_ten_ms;
    options.user = &w;
    options.call.timeout_ms = 3000;
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    for (i = 0; i < 2000; i++) {
        char text[100];
        snprintf(text, sizeof(text), "{\"type\":\"stdout\",\"data\":\"x\",\"offset\":%d}", i);
        peer_ws_text(p, text);
    }
    p->optional = 1;
    sandbox = begin(&w);
    start = w.now;
    assert_status(&w, SBX_E_TIMEOUT, run(sandbox, &options, &result, &err), &err);
    assert_between(w.now - start, 3000, 3250);
    end(&w, sandbox);
}

static void a_callback_can_end_the_call(void **state)
{
    int n;
    (void)state;
    for (n = 1; n < 4; n++) {
        sbx_run_options options = run_options();
        heard h;
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        peer *p;
        memset(&h, 0, sizeof(h));
        h.abort_at = n;
        options.on_output = hear;
        options.user = &h;
        world_init(&w);
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        peer_ws_text(p, OUT("0", "a"));
        peer_ws_text(p, OUT("1", "b"));
        peer_ws_text(p, ERR("0", "c"));
        peer_exits(p, EXIT("0"));
        p->optional = 1;
        sandbox = begin(&w);
        assert_status(&w, SBX_E_ABORTED, run(sandbox, &options, &result, &err), &err);
        assert_int_equal(h.calls, n);
        assert_int_equal(w.live, 0);
        heard_free(&h);
        end(&w, sandbox);
    }
}

static void output_beyond_the_limit_is_too_big(void **state)
{
    int fits;
    (void)state;
    for (fits = 0; fits < 2; fits++) {
        sbx_run_options options = run_options();
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        peer *p;
        options.max_output = fits ? 10 : 9;
        world_init(&w);
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        peer_ws_text(p, OUT("0", "12345"));
        peer_ws_text(p, ERR("0", "12345"));
        peer_exits(p, EXIT("0"));
        p->optional = !fits;
        sandbox = begin(&w);
        if (fits) {
            run_well(&w, sandbox, &options, 0, "12345", "12345");
        } else {
            assert_status(&w, SBX_E_TOO_BIG, run(sandbox, &options, &result, &err), &err);
            assert_says(&w, &err, "max_output");
        }
        end(&w, sandbox);
    }
}

/* A callback that tries what it must not: to free, step or wait for its own operation. */
typedef struct meddler {
    world *w;
    sbx_op *op;
    int calls;
} meddler;

static int meddle(void *user, int stream, const char *data, size_t len)
{
    meddler *m = (meddler *)user;
    sbx_template *got = NULL;
    sbx_error err;
    (void)stream;
    (void)data;
    (void)len;
    m->calls++;
    sbx_op_free(m->op);
    assert_int_not_equal(sbx_op_step(m->op, &err), SBX_OK);
    assert_int_not_equal(sbx_op_wait(m->op, 10, &err), SBX_OK);
    /* Everything else is allowed, a call of the same client too. */
    assert_int_equal(sbx_template_get(m->w->client, "t", NULL, &got, &err), SBX_OK);
    sbx_free(got);
    return 0;
}

static void a_callback_may_do_anything_but_free_its_own_operation(void **state)
{
    sbx_run_options options = run_options();
    meddler m;
    world w;
    sbx_sandbox *sandbox;
    sbx_result *result = NULL;
    sbx_error err;
    peer *p;
    (void)state;
    memset(&m, 0, sizeof(m));
    options.on_output = meddle;
    options.user = &m;
    world_init(&w);
    m.w = &w;
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "a"));
    peer_ws_text(p, OUT("1", "b"));
    peer_exits(p, EXIT("0"));
    p = world_peer(&w);
    peer_request(p, "GET", "/v2/sandboxes/templates/t");
    peer_reply(p, 200, "{}");
    peer_request(p, "GET", "/v2/sandboxes/templates/t");
    peer_reply(p, 200, "{}");
    sandbox = begin(&w);
    assert_status(&w, SBX_OK, sbx_run_start(sandbox, "x", &options, &result, &m.op, &err), &err);
    assert_status(&w, SBX_OK, sbx_op_wait(m.op, SBX_NONE, &err), &err);
    assert_int_equal(m.calls, 2);
    assert_string_equal(result->out, "ab");
    sbx_op_free(m.op);
    sbx_free(result);
    end(&w, sandbox);
}

static void a_long_command_goes_out_in_pieces(void **state)
{
    char *command = (char *)malloc(1000001);
    world w;
    service s;
    sbx_sandbox *sandbox;
    sbx_result *result = NULL;
    sbx_error err;
    peer *p;
    (void)state;
    assert_non_null(command);
    memset(command, 'x', 1000000);
    command[1000000] = 0;
    world_init(&w);
    service_init(&s, &w);
    p = world_peer(&w);
    p->optional = 1;
    p->write_max = 10007;
    sandbox = begin(&w);
    assert_status(&w, SBX_OK, sbx_run(sandbox, command, NULL, &result, &err), &err);
    assert_int_equal(s.executions, 1);
    assert_int_equal(w.dials, 1);
    sbx_free(result);
    free(command);
    service_free(&s);
    end(&w, sandbox);
}

static void big_output_of_many_messages_is_collected(void **state)
{
    wtext data = {NULL, 0, 0}, json = {NULL, 0, 0};
    world w;
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_error err;
    peer *p;
    size_t at;
    (void)state;
    for (at = 0; at < 300000; at++)
        wtext_printf(&data, "%c", (char)('a' + at % 26));
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    for (at = 0; at < data.len; at += 100000) {
        json.len = 0;
        wtext_puts(&json, "{\"type\":\"stdout\",\"data\":\"");
        wtext_add(&json, data.data + at, 100000);
        wtext_printf(&json, "\",\"offset\":%lu}", (unsigned long)at);
        peer_ws_text(p, json.data);
    }
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    assert_status(&w, SBX_OK, run(sandbox, NULL, &result, &err), &err);
    assert_int_equal(result->out_len, data.len);
    assert_memory_equal(result->out, data.data, data.len + 1);
    sbx_free(result);
    wtext_free(&data);
    wtext_free(&json);
    end(&w, sandbox);
}

static void messages_may_be_fragmented_around_pings(void **state)
{
    static const char started[] = "{\"type\":\"started\",\"pid\":41}";
    static const char out[] = "{\"type\":\"stdout\",\"data\":\"\xe2\x82\xac!\",\"offset\":0}";
    size_t at;
    (void)state;
    for (at = 0; at <= strlen(out); at++) {
        world w;
        sbx_sandbox *sandbox;
        peer *p;
        world_init(&w);
        p = executing_peer(&w);
        p->piece = at % 3;
        peer_ws_frame(p, SBX_WS_TEXT, 0, "", 0);
        peer_ws_frame(p, 0, 1, started, strlen(started));
        peer_ws_frame(p, SBX_WS_TEXT, 0, out, at);
        peer_ws_frame(p, SBX_WS_PING, 1, "are you there", 13);
        peer_ws_pong(p, "are you there");
        peer_ws_frame(p, 0, 0, out + at, strlen(out) - at);
        peer_ws_frame(p, SBX_WS_PONG, 1, "nobody asked", 12);
        peer_ws_frame(p, 0, 1, "", 0);
        peer_exits(p, EXIT("0"));
        sandbox = begin(&w);
        run_well(&w, sandbox, NULL, 0, "\xe2\x82\xac!", "");
        end(&w, sandbox);
    }
}

static void unknown_messages_and_members_are_ignored(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    peer *p;
    (void)state;
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, "{\"type\":\"hello\",\"version\":7}");
    peer_ws_text(p, "{\"type\":\"started\",\"x\":[{\"type\":\"exit\",\"exit_code\":9}],"
                    "\"command_id\":\"$id\",\"pid\":41,\"y\":null}");
    peer_ws_text(p, "{\"type\":\"heartbeat\"}");
    peer_ws_text(p, "{\"data\":\"a\",\"extra\":{\"data\":\"b\",\"offset\":5},\"offset\":0,"
                    "\"type\":\"stdout\"}");
    peer_ws_text(p, "{\"type\":\"stdin\",\"data\":\"z\",\"offset\":0}");
    peer_ws_text(p, "{\"offset\":1,\"type\":\"std\\u006fut\",\"da\\u0074a\":\"b\",\"when\":1.5e3}");
    peer_exits(p, "{\"signal\":null,\"exit_code\":-9,\"type\":\"exit\"}");
    sandbox = begin(&w);
    run_well(&w, sandbox, NULL, -9, "ab", "");
    end(&w, sandbox);
}

static void the_end_of_the_connection_after_exit_does_not_matter(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 6; how++) {
        world w;
        sbx_sandbox *sandbox;
        peer *p;
        int64_t start;
        world_init(&w);
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        peer_ws_text(p, OUT("0", "done"));
        peer_ws_text(p, EXIT("5"));
        if (how == 1)
            peer_close(p);
        if (how == 2)
            peer_reset(p);
        if (how == 3)
            peer_ws_close(p, 1011);
        if (how == 4)
            peer_ws_close(p, 0);
        if (how == 5)
            peer_puts(p, "garbage that is no frame");
        p->optional = 1;
        sandbox = begin(&w);
        start = w.now;
        run_well(&w, sandbox, NULL, 5, "done", "");
        /* A server that does not close costs no more than the closing handshake may take. */
        assert_between(w.now - start, 0, how == 0 ? 10000 : 0);
        assert_int_equal(w.dials, 1);
        end(&w, sandbox);
    }
}

static void the_client_answers_a_close_and_goes(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    peer *p;
    (void)state;
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, EXIT("0"));
    peer_end(p);
    sandbox = begin(&w);
    run_well(&w, sandbox, NULL, 0, "", "");
    assert_int_equal(w.live, 0);
    end(&w, sandbox);
}

static void every_kind_of_stream_will_do(void **state)
{
    static const service_output outputs[] = {
        {SBX_STDOUT, "first "}, {SBX_STDERR, "e1"}, {SBX_STDOUT, "\xf0\x9f\x98\x80 last"}};
    int i;
    (void)state;
    for (i = 0; i < 32; i++) {
        world w;
        sbx_sandbox *sandbox = NULL;
        sbx_error err;
        service s;
        peer *p;
        world_init(&w);
        service_init(&s, &w);
        s.outputs = outputs;
        s.output_count = COUNT(outputs);
        s.exit_code = 7;
        w.buffering = (i & 16) != 0;
        p = world_peer(&w);
        p->every_other = (i & 4) != 0;
        p->write_max = i & 2 ? 1 : 0;
        p->piece = i & 1 ? 1 : 0;
        p->connect_ms = i;
        world_open(&w);
        assert_status(&w, SBX_OK,
                      sbx_sandbox_at(w.client,
                                     i & 8 ? "https://127.0.0.1:9090/sb-1" : WORLD_DATAPLANE "/",
                                     &sandbox, &err),
                      &err);
        run_well(&w, sandbox, NULL, 7, "first \xf0\x9f\x98\x80 last", "e1");
        assert_int_equal(p->secured, (i & 8) != 0);
        assert_int_equal(s.executions, 1);
        assert_int_equal(w.dials, 1);
        service_free(&s);
        end(&w, sandbox);
    }
}

/* ---- the way back to HTTP ---- */

static void a_service_without_websockets_is_used_over_http(void **state)
{
    static const char *const env[] = {"A=1", NULL};
    static const struct {
        const char *reply;
        int exit_code;
        const char *out, *err;
    } cases[] = {
        {"{\"stdout\":\"a\\n\",\"stderr\":\"b\",\"exit_code\":4}", 4, "a\n", "b"},
        {"{\"exit_code\":0,\"stdout\":null,\"more\":[]}", 0, "", ""},
        {"{}", -1, "", ""},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_run_options options = run_options();
        world w;
        sbx_sandbox *sandbox;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", WS);
        peer_reply_with(p, 404, "Connection: close\r\n", "{\"detail\":\"no such path\"}");
        peer_close(p);
        p = world_peer(&w);
        peer_request(p, "POST", "/sb-1/execute");
        if (i == 0) {
            options.env = env;
            options.cwd = "/w";
            options.timeout_ms = 1500;
            peer_json(p, "{\"command\":\"x\",\"timeout\":2,\"shell\":\"/bin/bash\","
                         "\"env\":{\"A\":\"1\"},\"cwd\":\"/w\"}");
        } else {
            peer_json(p, "{\"command\":\"x\",\"timeout\":60,\"shell\":\"/bin/bash\"}");
        }
        peer_reply(p, 200, cases[i].reply);
        sandbox = begin(&w);
        run_well(&w, sandbox, &options, cases[i].exit_code, cases[i].out, cases[i].err);
        end(&w, sandbox);
    }
}

/* A peer that knows no WebSocket, and one that answers the command with this over HTTP. */
static void http_peers(world *w, const char *answer)
{
    peer *p = world_peer(w);
    peer_request(p, "GET", WS);
    peer_reply_with(p, 404, "Connection: close\r\n", "");
    peer_close(p);
    p = world_peer(w);
    peer_request(p, "POST", "/sb-1/execute");
    peer_reply(p, 200, answer);
}

static void over_http_too_the_limit_is_for_the_output_alone(void **state)
{
    static const struct {
        const char *answer;
        int fits;
    } cases[] = {
        {"{\"stdout\":\"12345\",\"stderr\":\"12345\",\"exit_code\":0}", 1},
        {"{ \"exit_code\" : 0 , \"other\" : \"much longer than ten bytes\" ,\n"
         "  \"stdout\" : \"\\u0031\\u0032\\u0033\\u0034\\u0035\" , \"stderr\" : \"12345\" }",
         1},
        {"{\"stdout\":\"123456\",\"stderr\":\"12345\",\"exit_code\":0}", 0},
        {"{\"stdout\":\"12345\",\"stderr\":\"123456\",\"exit_code\":0}", 0},
        {"{\"stdout\":\"12345678901\",\"exit_code\":0}", 0},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_run_options options = run_options();
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        options.max_output = 10;
        world_init(&w);
        http_peers(&w, cases[i].answer);
        sandbox = begin(&w);
        if (cases[i].fits) {
            run_well(&w, sandbox, &options, 0, "12345", "12345");
        } else {
            assert_status(&w, SBX_E_TOO_BIG, run(sandbox, &options, &result, &err), &err);
            assert_says(&w, &err, "max_output");
        }
        end(&w, sandbox);
    }
}

static void over_http_too_output_can_be_discarded(void **state)
{
    int limit;
    (void)state;
    for (limit = 0; limit < 2; limit++) {
        sbx_run_options options = run_options();
        world w;
        sbx_sandbox *sandbox;
        options.discard_output = 1;
        options.max_output = limit ? 3 : 0;
        world_init(&w);
        http_peers(&w, "{\"stdout\":\"a lot\",\"stderr\":\"and more\",\"exit_code\":4}");
        sandbox = begin(&w);
        run_well(&w, sandbox, &options, 4, "", "");
        end(&w, sandbox);
    }
}

static void callbacks_and_handles_do_not_fall_back(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 2; how++) {
        sbx_run_options options = run_options();
        heard h;
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result = NULL;
        sbx_command *command = NULL;
        sbx_error err;
        peer *p;
        memset(&h, 0, sizeof(h));
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", WS);
        peer_reply(p, 404, "{\"detail\":\"no such path\"}");
        sandbox = begin(&w);
        if (how) {
            assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &command, &err), &err);
            assert_status(&w, SBX_E_CONNECTION, sbx_command_result(command, &result, &err), &err);
        } else {
            options.on_output = hear;
            options.user = &h;
            assert_status(&w, SBX_E_CONNECTION, run(sandbox, &options, &result, &err), &err);
        }
        assert_int_equal(err.http_status, 404);
        assert_says(&w, &err, "WebSocket");
        assert_int_equal(w.dials, 1);
        sbx_command_free(command);
        end(&w, sandbox);
    }
}

static void other_refusals_of_the_upgrade_are_connection_errors(void **state)
{
    static const int statuses[] = {200, 204, 302, 400, 401, 403, 405, 409, 410, 426, 429, 501, 505};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(statuses); i++) {
        char number[8];
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        sbx_status st;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", WS);
        peer_reply(p, statuses[i],
                   statuses[i] == 204 ? ""
                                      : "{\"detail\":{\"error\":\"Odd\",\"message\":\"go away\"}}");
        sandbox = begin(&w);
        st = run(sandbox, NULL, &result, &err);
        check_error(&w, st, &err);
        if (!sbx_status_is(st, SBX_E_CONNECTION))
            world_fail(&w, "%s for an upgrade answered with %d", sbx_status_name(st), statuses[i]);
        assert_int_equal(err.http_status, statuses[i]);
        snprintf(number, sizeof(number), "%d", statuses[i]);
        assert_says(&w, &err, number);
        if (statuses[i] >= 400)
            assert_says(&w, &err, "go away");
        assert_int_equal(w.dials, 1);
        end(&w, sandbox);
    }
}

/* Answers of 200 to an upgrade: pages that end, and pages that do not. */
static void reply_page(peer *p, int how)
{
    int k;
    peer_request(p, "GET", WS);
    if (how == 0) {
        peer_reply(p, 200, "<p>Hello</p>\n");
    } else if (how == 1) {
        peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Length: 1300000\r\n\r\n");
        for (k = 0; k < 100000; k++)
            peer_puts(p, "<p>Hello</p>\n");
    } else if (how == 2) {
        peer_puts(p, "HTTP/1.1 200 OK\r\n\r\n");
        for (k = 0; k < 100000; k++)
            peer_puts(p, "<p>Hello</p>\n");
    } else if (how == 3) {
        peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n<p>Hel");
        peer_reset(p);
    } else {
        peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n");
    }
    p->optional = 1;
}

static void refuse_page(int how)
{
    int handle;
    for (handle = 0; handle < 2; handle++) {
        world w;
        sbx_sandbox *sandbox;
        sbx_command *command = NULL;
        sbx_result *result = NULL;
        sbx_error err;
        sbx_status st;
        int64_t start;
        world_init(&w);
        w.config.max_body = 100000;
        reply_page(world_peer(&w), how);
        sandbox = begin(&w);
        start = w.now;
        if (handle) {
            assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &command, &err), &err);
            st = sbx_command_result(command, &result, &err);
        } else {
            st = run(sandbox, NULL, &result, &err);
        }
        check_error(&w, st, &err);
        if (!sbx_status_is(st, SBX_E_CONNECTION) || err.http_status != 200 ||
            w.now - start > (how < 3 ? 0 : 2000))
            world_fail(&w, "page %d gave %s, HTTP %d, after %ld ms: %s", how, sbx_status_name(st),
                       err.http_status, (long)(w.now - start), err.message);
        assert_int_equal(err.attempts, 1);
        assert_int_equal(w.dials, 1);
        assert_null(result);
        sbx_command_free(command);
        assert_int_equal(w.live, 0);
        end(&w, sandbox);
    }
}

static void an_upgrade_answered_by_a_page_is_an_error_at_once(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 3; how++)
        refuse_page(how);
}

static void an_upgrade_answered_by_a_page_without_an_end_is_an_error_soon(void **state)
{
    int how;
    (void)state;
    for (how = 3; how < 5; how++)
        refuse_page(how);
}

static void the_body_of_a_refused_upgrade_is_read_only_so_far(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_error err;
    peer *p;
    int i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    p->optional = 1;
    peer_request(p, "GET", WS);
    peer_puts(p, "HTTP/1.1 403 No\r\n\r\n");
    for (i = 0; i < 3000; i++)
        peer_puts(p, "                                                                      "
                     "                              ");
    sandbox = begin(&w);
    assert_true(sbx_status_is(run(sandbox, NULL, &result, &err), SBX_E_CONNECTION));
    assert_int_equal(err.http_status, 403);
    assert_int_equal(w.live, 0);
    assert_between(p->delivered, 0, 16384 + 65536 + 100);
    end(&w, sandbox);
}

static void a_command_over_http_is_never_sent_twice(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_error err;
    peer *p;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "GET", WS);
    peer_reply_with(p, 404, "Connection: close\r\n", "");
    peer_close(p);
    p = world_peer(&w);
    peer_request(p, "POST", "/sb-1/execute");
    peer_close(p);
    sandbox = begin(&w);
    assert_true(sbx_status_is(run(sandbox, NULL, &result, &err), SBX_E_CONNECTION));
    assert_int_equal(w.dials, 2);
    end(&w, sandbox);
}

/* A service without WebSockets that does something else before it runs a command. */
typedef struct troubled {
    int refuse; /* how many connections for the command are refused */
    int status; /* what the first `times` requests get, 0: the connection breaks */
    int times, requests;
} troubled;

static void dial_troubled(peer *p, void *user)
{
    troubled *t = (troubled *)user;
    if (p->number > 0 && p->number <= t->refuse)
        p->refuse = SBX_E_CONNECT;
}

static void serve_troubled(peer *p, void *user)
{
    troubled *t = (troubled *)user;
    int upgrade = p->request.method[0] == 'G';
    peer_take_request(p);
    if (upgrade) {
        peer_reply_with(p, 404, "Connection: close\r\n", "");
        peer_close(p);
    } else if (t->requests++ >= t->times) {
        peer_reply(p, 200, "{\"stdout\":\"done\",\"exit_code\":0}");
    } else if (t->status) {
        peer_reply(p, t->status, "{\"detail\":\"busy\"}");
    } else {
        peer_reset(p);
    }
}

static void a_command_over_http_is_tried_again_only_if_it_did_not_run(void **state)
{
    static const struct {
        troubled t;
        int requests; /* 0: the call fails after one */
    } cases[] = {
        {{1, 0, 0, 0}, 1},   {{3, 0, 0, 0}, 1},   {{0, 429, 1, 0}, 2}, {{0, 429, 3, 0}, 4},
        {{1, 429, 1, 0}, 2}, {{0, 502, 1, 0}, 0}, {{0, 503, 1, 0}, 0}, {{0, 504, 1, 0}, 0},
        {{0, 500, 1, 0}, 0}, {{0, 0, 1, 0}, 0},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        troubled t = cases[i].t;
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        sbx_status st;
        world_init(&w);
        w.serve = serve_troubled;
        w.on_dial = dial_troubled;
        w.serve_user = &t;
        sandbox = begin(&w);
        st = run(sandbox, NULL, &result, &err);
        check_error(&w, st, &err);
        if ((st == SBX_OK) != (cases[i].requests > 0) ||
            t.requests != (cases[i].requests ? cases[i].requests : 1))
            world_fail(&w, "case %d: %d requests, %s: %s", (int)i, t.requests, sbx_status_name(st),
                       err.message);
        if (st == SBX_OK)
            assert_string_equal(result->out, "done");
        else
            assert_int_equal(err.http_status, t.status);
        sbx_free(result);
        end(&w, sandbox);
    }
}

static void a_command_over_http_may_take_its_time_and_ten_seconds(void **state)
{
    static const int64_t cases[][2] = {{0, 70000}, {5000, 15000}};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_run_options options = run_options();
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        sbx_status st;
        peer *p;
        int64_t start;
        options.timeout_ms = cases[i][0];
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", WS);
        peer_reply_with(p, 404, "Connection: close\r\n", "");
        peer_close(p);
        peer_request(world_peer(&w), "POST", "/sb-1/execute");
        sandbox = begin(&w);
        start = w.now;
        st = run(sandbox, &options, &result, &err);
        check_error(&w, st, &err);
        assert_true(st == SBX_E_TIMEOUT || sbx_status_is(st, SBX_E_CONNECTION));
        assert_int_equal(w.now - start, cases[i][1]);
        end(&w, sandbox);
    }
}

/* ---- before `started` ---- */

static void an_upgrade_that_fails_for_now_is_tried_again(void **state)
{
    static const int statuses[] = {500, 502, 503, 504, 0, 1, 2, 3};
    size_t i;
    int k;
    (void)state;
    for (i = 0; i < COUNT(statuses); i++) {
        world w;
        sbx_sandbox *sandbox;
        peer *p;
        int64_t start;
        world_init(&w);
        for (k = 0; k < 5; k++) {
            p = world_peer(&w);
            if (statuses[i] == 0) {
                p->refuse = SBX_E_CONNECT;
                continue;
            }
            peer_request(p, "GET", WS);
            if (statuses[i] == 1)
                peer_close(p);
            else if (statuses[i] == 2)
                peer_reset(p);
            else if (statuses[i] == 3)
                p->cut_at = 20 * k;
            if (statuses[i] >= 500 || statuses[i] == 3)
                peer_reply_with(p, statuses[i] == 3 ? 101 : statuses[i], "Connection: close\r\n",
                                "{\"detail\":\"busy\"}");
        }
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        peer_ws_text(p, OUT("0", "ok"));
        peer_exits(p, EXIT("0"));
        sandbox = begin(&w);
        start = w.now;
        run_well(&w, sandbox, NULL, 0, "ok", "");
        assert_int_equal(w.now - start, 500 + 1000 + 2000 + 4000 + 8000);
        end(&w, sandbox);
    }
}

static void an_upgrade_that_fails_six_times_is_given_up(void **state)
{
    int how, k;
    (void)state;
    for (how = 0; how < 2; how++) {
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        peer *p;
        int64_t start;
        world_init(&w);
        for (k = 0; k < 6; k++) {
            p = world_peer(&w);
            if (how) {
                p->refuse = SBX_E_CONNECT;
            } else {
                peer_request(p, "GET", WS);
                peer_reply(p, 503, "{\"detail\":\"busy\"}");
            }
        }
        sandbox = begin(&w);
        start = w.now;
        assert_true(sbx_status_is(run(sandbox, NULL, &result, &err), SBX_E_CONNECTION));
        assert_int_equal(w.now - start, 15500);
        assert_says(&w, &err, "6");
        if (!how) {
            assert_int_equal(err.http_status, 503);
            assert_says(&w, &err, "503");
        }
        end(&w, sandbox);
    }
}

static void closed_before_started_for_ever_is_given_up(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_error err;
    int k;
    (void)state;
    world_init(&w);
    for (k = 0; k < 6; k++) {
        peer *p = executing_peer(&w);
        peer_ws_close(p, 1011);
        peer_close(p);
    }
    sandbox = begin(&w);
    assert_true(sbx_status_is(run(sandbox, NULL, &result, &err), SBX_E_CONNECTION));
    assert_int_equal(w.slept, 15500);
    assert_int_equal(err.close_code, 1011);
    end(&w, sandbox);
}

/* Replays all output from its start, whatever is asked. */
static void serve_from_the_start(peer *p, void *user)
{
    wtext text = {NULL, 0, 0};
    (void)user;
    if (peer_take_message(p, &text)) {
        peer_ws_text(p, OUT("0", "abcdef"));
        peer_exits(p, EXIT("0"));
    } else {
        peer_accept_upgrade(p);
        peer_take_request(p);
    }
    wtext_free(&text);
}

static void output_before_started_is_not_given_twice(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    peer *p;
    (void)state;
    world_init(&w);
    w.serve = serve_from_the_start;
    p = executing_peer(&w);
    peer_ws_text(p, OUT("0", "abc"));
    peer_reset(p);
    sandbox = begin(&w);
    run_well(&w, sandbox, NULL, 0, "abcdef", "");
    end(&w, sandbox);
}

/* ---- after `started` ---- */

static void a_lost_connection_is_made_again_where_it_was(void **state)
{
    /* How the connection ends: reset, silent end, then close codes; 1001 reconnects at once. */
    static const int codes[] = {-1, -2, 0, 1000, 1001, 1002, 1006, 1008, 1011, 1012, 1013, 4000};
    size_t i;
    int acknowledged;
    (void)state;
    for (i = 0; i < COUNT(codes); i++) {
        for (acknowledged = 0; acknowledged < 2; acknowledged++) {
            sbx_run_options options = run_options();
            heard h;
            world w;
            sbx_sandbox *sandbox;
            peer *p;
            int64_t start;
            memset(&h, 0, sizeof(h));
            options.on_output = hear;
            options.user = &h;
            world_init(&w);
            p = executing_peer(&w);
            peer_ws_text(p, STARTED);
            peer_ws_text(p, OUT("0", "ab\\u00fc"));
            peer_ws_text(p, ERR("0", "E"));
            if (codes[i] == -1 || codes[i] == 1006)
                peer_reset(p);
            else if (codes[i] != -2)
                peer_ws_close(p, codes[i]);
            if (codes[i] == -2 || acknowledged)
                peer_close(p);
            p = reattached_peer(&w, "4", "1");
            if (acknowledged)
                peer_ws_text(p, STARTED);
            peer_ws_text(p, OUT("4", "cd"));
            peer_ws_text(p, ERR("1", "F"));
            peer_exits(p, EXIT("9"));
            sandbox = begin(&w);
            start = w.now;
            run_well(&w, sandbox, &options, 9,
                     "ab\xc3\xbc"
                     "cd",
                     "EF");
            assert_string_equal(h.out.data, "ab\xc3\xbc"
                                            "cd");
            assert_string_equal(h.err.data, "EF");
            if (w.now - start != (codes[i] == 1001 ? 0 : 500))
                world_fail(&w, "reconnected after %ld ms of close code %d", (long)(w.now - start),
                           codes[i]);
            heard_free(&h);
            end(&w, sandbox);
        }
    }
}

static void overlap_is_dropped_and_a_gap_is_reported(void **state)
{
    static const struct {
        const char *first, *second, *out;
        uint64_t lost;
    } cases[] = {
        {OUT("0", "abcdef"), OUT("4", "efgh"), "abcdefgh", 0},
        {OUT("0", "abcdef"), OUT("0", "abcdefgh"), "abcdefgh", 0},
        {OUT("0", "abcdef"), OUT("2", "cd"), "abcdef", 0},
        {OUT("0", "abcdef"), OUT("6", "gh"), "abcdefgh", 0},
        {OUT("0", "abcdef"), OUT("10", "kl"), "abcdefkl", 4},
        {OUT("0", "\\u20ac\\u20ac"), OUT("3", "\\u20acx"), "\xe2\x82\xac\xe2\x82\xacx", 0},
        {OUT("0", "\\u20ac"), OUT("9", "\\u20ac"), "\xe2\x82\xac\xe2\x82\xac", 6},
        {OUT("0", "a"), OUT("18446744073709551615", "b"), NULL, 0},
        {OUT("0", "a"), OUT("-1", "b"), NULL, 0},
        {OUT("0", "a"), OUT("\\\"x\\\"", "b"), NULL, 0},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_run_options options = run_options();
        heard h;
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        sbx_status st;
        peer *p;
        int k;
        char offset[24];
        memset(&h, 0, sizeof(h));
        options.on_output = hear;
        options.user = &h;
        world_init(&w);
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        peer_ws_text(p, cases[i].first);
        peer_reset(p);
        snprintf(offset, sizeof(offset), "%d", i < 5 ? 6 : i == 5 ? 6 : i == 6 ? 3 : 1);
        for (k = 0; k < (cases[i].out ? 1 : 7); k++) {
            p = reattached_peer(&w, offset, "0");
            peer_ws_text(p, STARTED);
            peer_ws_text(p, cases[i].second);
            peer_exits(p, EXIT("0"));
            p->optional = !cases[i].out;
        }
        sandbox = begin(&w);
        st = run(sandbox, &options, &result, &err);
        check_error(&w, st, &err);
        if (!cases[i].out) {
            /* An offset that cannot be: an error, or text that stays text; never a huge loss. */
            if (!sbx_status_is(st, SBX_E_CONNECTION))
                world_fail(&w, "%s then %s: %s, %ld lost", cases[i].first, cases[i].second,
                           sbx_status_name(st), (long)(result ? result->out_lost : 0));
        } else {
            if (st != SBX_OK || strcmp(result->out, cases[i].out) != 0 ||
                result->out_lost != cases[i].lost || strcmp(h.out.data, cases[i].out) != 0)
                world_fail(&w, "%s then %s: '%s', %ld lost: %s", cases[i].first, cases[i].second,
                           result ? result->out : "", (long)(result ? result->out_lost : 0),
                           err.message);
            assert_int_equal(result->err_lost, 0);
        }
        sbx_free(result);
        heard_free(&h);
        end(&w, sandbox);
    }
}

static void loss_is_counted_for_each_stream_apart(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_error err;
    peer *p;
    (void)state;
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "a"));
    peer_reset(p);
    p = reattached_peer(&w, "1", "0");
    peer_ws_text(p, STARTED);
    peer_ws_text(p, ERR("100", "x"));
    peer_ws_text(p, OUT("11", "b"));
    peer_reset(p);
    p = reattached_peer(&w, "12", "101");
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("15", "c"));
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    assert_status(&w, SBX_OK, run(sandbox, NULL, &result, &err), &err);
    assert_string_equal(result->out, "abc");
    assert_string_equal(result->err, "x");
    assert_int_equal(result->out_lost, 13);
    assert_int_equal(result->err_lost, 100);
    sbx_free(result);
    end(&w, sandbox);
}

static void a_reconnect_after_a_gap_in_the_same_connection_names_the_next_byte(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_error err;
    peer *p;
    (void)state;
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("5", "f"));
    peer_reset(p);
    p = reattached_peer(&w, "6", "0");
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    assert_status(&w, SBX_OK, run(sandbox, NULL, &result, &err), &err);
    assert_string_equal(result->out, "f");
    assert_int_equal(result->out_lost, 5);
    sbx_free(result);
    end(&w, sandbox);
}

static void six_failures_in_a_row_end_the_command(void **state)
{
    int how, k;
    (void)state;
    for (how = 0; how < 4; how++) {
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        sbx_status st;
        peer *p;
        int64_t start;
        world_init(&w);
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        peer_reset(p);
        for (k = 0; k < 5; k++) {
            if (how == 3) {
                p = reattached_peer(&w, "0", "0");
                peer_ws_text(p, "{\"type\":\"started\",\"command_id\":\"another\",\"pid\":1}");
                peer_reset(p);
                continue;
            }
            p = world_peer(&w);
            if (how == 0) {
                p->refuse = SBX_E_CONNECT;
                continue;
            }
            peer_request(p, "GET", WS);
            if (how == 1)
                peer_reply(p, 503, "");
            else
                peer_close(p);
        }
        sandbox = begin(&w);
        start = w.now;
        st = run(sandbox, NULL, &result, &err);
        check_error(&w, st, &err);
        assert_true(sbx_status_is(st, SBX_E_CONNECTION));
        assert_int_equal(w.now - start, 500 + 1000 + 2000 + 4000 + 8000);
        assert_int_equal(w.dials, 6);
        end(&w, sandbox);
    }
}

static void a_silent_command_lives_through_losses_that_nobody_acknowledges(void **state)
{
    sbx_run_options options = run_options();
    world w;
    sbx_sandbox *sandbox;
    peer *p;
    int64_t start;
    int k;
    (void)state;
    options.timeout_ms = SBX_NONE;
    world_init(&w);
    p = endless_peer(&w);
    peer_ws_text(p, STARTED);
    for (k = 0; k < 4; k++) {
        peer_delay(p, 60000);
        peer_reset(p);
        p = reattached_peer(&w, "0", "0");
    }
    peer_delay(p, 60000);
    peer_ws_text(p, OUT("0", "awake"));
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    start = w.now;
    run_well(&w, sandbox, &options, 0, "awake", "");
    assert_between(w.now - start, 5 * 60000 + 4 * 500, 5 * 60000 + 500 + 1000 + 2000 + 4000);
    end(&w, sandbox);
}

static void output_alone_renews_the_budget_as_with_older_servers(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    wtext expected = {NULL, 0, 0};
    char text[64];
    peer *p;
    int k;
    (void)state;
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    peer_reset(p);
    for (k = 0; k < 12; k++) {
        snprintf(text, sizeof(text), "%d", k);
        p = reattached_peer(&w, text, "0");
        snprintf(text, sizeof(text), "{\"type\":\"stdout\",\"data\":\"x\",\"offset\":%d}", k);
        peer_ws_text(p, text);
        peer_reset(p);
        wtext_puts(&expected, "x");
    }
    p = reattached_peer(&w, "12", "0");
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    run_well(&w, sandbox, NULL, 0, expected.data, "");
    wtext_free(&expected);
    end(&w, sandbox);
}

static void serve_ack_and_drop(peer *p, void *user)
{
    char started[160], id[80];
    (void)user;
    if (p->message_count) {
        wtext text = {NULL, 0, 0};
        peer_take_message(p, &text);
        json_member(wtext_get(&text), text.len, "command_id", id, sizeof(id));
        wtext_free(&text);
        snprintf(started, sizeof(started), "{\"type\":\"started\",\"command_id\":\"%s\",\"pid\":1}",
                 id);
        peer_ws_text(p, started);
        peer_reset(p);
        return;
    }
    peer_accept_upgrade(p);
    peer_take_request(p);
}

static void acknowledging_and_dropping_for_ever_ends_at_the_deadline(void **state)
{
    sbx_run_options options = run_options();
    world w;
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_error err;
    int64_t start;
    (void)state;
    options.call.timeout_ms = 20250;
    world_init(&w);
    w.serve = serve_ack_and_drop;
    sandbox = begin(&w);
    start = w.now;
    assert_status(&w, SBX_E_TIMEOUT, run(sandbox, &options, &result, &err), &err);
    assert_int_equal(w.now - start, 20250);
    assert_between(w.dials, 41, 42);
    end(&w, sandbox);
}

static void serve_ack_and_reload(peer *p, void *user)
{
    char started[160], id[80];
    (void)user;
    if (p->message_count) {
        wtext text = {NULL, 0, 0};
        peer_take_message(p, &text);
        json_member(wtext_get(&text), text.len, "command_id", id, sizeof(id));
        wtext_free(&text);
        snprintf(started, sizeof(started), "{\"type\":\"started\",\"command_id\":\"%s\",\"pid\":1}",
                 id);
        peer_ws_text(p, started);
        peer_ws_close(p, 1001);
        peer_close(p);
        return;
    }
    peer_accept_upgrade(p);
    peer_take_request(p);
}

static void a_server_that_reloads_for_ever_is_not_hammered(void **state)
{
    sbx_run_options options = run_options();
    world w;
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_error err;
    int64_t start;
    (void)state;
    options.call.timeout_ms = 20250;
    world_init(&w);
    w.serve = serve_ack_and_reload;
    sandbox = begin(&w);
    start = w.now;
    assert_status(&w, SBX_E_TIMEOUT, run(sandbox, &options, &result, &err), &err);
    assert_int_equal(w.now - start, 20250);
    assert_between(w.dials, 20, 90);
    end(&w, sandbox);
}

static void refusals_while_reattaching_are_final(void **state)
{
    static const int statuses[] = {401, 403, 404, 409};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(statuses); i++) {
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        sbx_status st;
        peer *p;
        world_init(&w);
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        peer_reset(p);
        p = world_peer(&w);
        peer_request(p, "GET", WS);
        peer_reply(p, statuses[i], "{\"detail\":{\"error\":\"X\",\"message\":\"not any more\"}}");
        sandbox = begin(&w);
        st = run(sandbox, NULL, &result, &err);
        check_error(&w, st, &err);
        assert_true(sbx_status_is(st, SBX_E_CONNECTION));
        assert_int_equal(err.http_status, statuses[i]);
        assert_int_equal(w.dials, 2);
        end(&w, sandbox);
    }
}

/* ---- errors of the command ---- */

static void errors_of_the_service_end_the_command(void **state)
{
    static const struct {
        const char *message;
        sbx_status status;
        const char *type, *text;
    } cases[] = {
        {FAILURE("CommandTimeout", "took 60 s"), SBX_E_COMMAND_TIMEOUT, "CommandTimeout",
         "took 60 s"},
        {FAILURE("CommandError", "no such shell"), SBX_E_OPERATION, "CommandError",
         "no such shell"},
        {FAILURE("CommandNotFound", "nothing there"), SBX_E_OPERATION, "CommandNotFound", ""},
        {FAILURE("SessionExpired", "too late"), SBX_E_OPERATION, "SessionExpired", ""},
        {FAILURE("Novelty", "who knows"), SBX_E_OPERATION, "Novelty", "who knows"},
        {"{\"type\":\"error\",\"error\":\"plain\"}", SBX_E_OPERATION, "CommandError", "plain"},
        {"{\"type\":\"error\"}", SBX_E_OPERATION, "CommandError", ""},
        {"{\"type\":\"error\",\"error_type\":null,\"error\":null}", SBX_E_OPERATION, "CommandError",
         ""},
    };
    size_t i;
    int when;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        for (when = 0; when < 3; when++) {
            world w;
            sbx_sandbox *sandbox;
            sbx_result *result;
            sbx_error err;
            peer *p;
            world_init(&w);
            p = executing_peer(&w);
            if (when > 0)
                peer_ws_text(p, STARTED);
            if (when == 2) {
                peer_ws_text(p, OUT("0", "partial"));
                peer_reset(p);
                p = reattached_peer(&w, "7", "0");
            }
            peer_ws_text(p, cases[i].message);
            peer_ws_close(p, 1000);
            peer_close(p);
            sandbox = begin(&w);
            assert_status(&w, cases[i].status, run(sandbox, NULL, &result, &err), &err);
            assert_string_equal(err.error_type, cases[i].type);
            assert_says(&w, &err, cases[i].text);
            if (when == 2 && (i == 2 || i == 3))
                assert_string_equal(err.operation, "reconnect");
            else if (strcmp(err.operation, "run") != 0 && strcmp(err.operation, "command") != 0)
                world_fail(&w, "%s: the operation is '%s'", cases[i].message, err.operation);
            assert_true(sbx_status_is(err.status, SBX_E_OPERATION));
            assert_int_equal(w.dials, when == 2 ? 2 : 1);
            end(&w, sandbox);
        }
    }
}

typedef struct bad_peer {
    const char *text; /* after `started`: a text message, or raw bytes if raw */
    size_t len;
    int raw;
} bad_peer;

static void serve_badly(peer *p, void *user)
{
    const bad_peer *bad = (const bad_peer *)user;
    if (p->message_count) {
        wtext text = {NULL, 0, 0};
        peer_take_message(p, &text);
        wtext_free(&text);
        if (bad->raw)
            peer_send(p, bad->text, bad->len);
        else
            peer_ws_text(p, bad->text);
        return;
    }
    peer_accept_upgrade(p);
    peer_take_request(p);
}

static void bad_messages_and_frames_are_errors_in_bounded_time(void **state)
{
    static const bad_peer cases[] = {
        {"", 0, 0},
        {"not JSON", 0, 0},
        {"[]", 0, 0},
        {"null", 0, 0},
        {"{}", 0, 0},
        {"{\"type\":5}", 0, 0},
        {"{\"type\":\"stdout\"}", 0, 0},
        {"{\"type\":\"stdout\",\"data\":5,\"offset\":0}", 0, 0},
        {"{\"type\":\"stdout\",\"data\":\"x\",\"offset\":\"0\"}", 0, 0},
        {"{\"type\":\"stdout\",\"data\":\"x\",\"offset\":1.5}", 0, 0},
        {"{\"type\":\"stdout\",\"data\":\"x\",\"offset\":-4}", 0, 0},
        {"{\"type\":\"exit\",\"exit_code\":\"0\"}", 0, 0},
        {"{\"type\":\"exit\",\"exit_code\":1e300}", 0, 0},
        {"{\"type\":\"exit\",\"exit_code\":99999999999}", 0, 0},
        {"{\"type\":\"started\",\"command_id\":7}", 0, 0},
        {"{\"type\":\"exit\"", 0, 0},
        {"{\"type\":\"stdout\",\"data\":\"\\ud800\",\"offset\":0}", 0, 0},
        {"\x81\x02\xff\xfe", 4, 1},                          /* not UTF-8 */
        {"\x81\x81\x00\x00\x00\x00x", 7, 1},                 /* a masked frame */
        {"\xf1\x01x", 3, 1},                                 /* reserved bits */
        {"\x83\x00", 2, 1},                                  /* an unknown opcode */
        {"\x80\x00", 2, 1},                                  /* a continuation of nothing */
        {"\x09\x00", 2, 1},                                  /* a fragmented ping */
        {"\x88\x01x", 3, 1},                                 /* a close frame with half a code */
        {"\x88\x02\x00\x01", 4, 1},                          /* a close code that cannot be */
        {"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 10, 1}, /* a length beyond all */
        {"\x81\x7e\x00\x05{}", 6, 1},                        /* a length in too many bytes */
        {"HTTP/1.1 400 Bad Request\r\n\r\n", 28, 1},
    };
    size_t i;
    int wrong = 0;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_run_options options = run_options();
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result = NULL;
        sbx_error err;
        sbx_status st;
        world_init(&w);
        w.serve = serve_badly;
        w.serve_user = (void *)(uintptr_t)&cases[i];
        sandbox = begin(&w);
        st = sbx_run(sandbox, "x", &options, &result, &err);
        check_error(&w, st, &err);
        /* A message without type or data may mean nothing; then the command's time runs out. */
        if (!sbx_status_is(st, SBX_E_CONNECTION) && st != SBX_E_TOO_BIG &&
            !(st == SBX_E_TIMEOUT && i >= 2 && i <= 6)) {
            print_error("case %d (%s): %s %s\n", (int)i, cases[i].text, sbx_status_name(st),
                        err.message);
            wrong++;
        }
        assert_true(w.dials < 12);
        sbx_free(result);
        end(&w, sandbox);
    }
    assert_int_equal(wrong, 0);
}

static void an_exit_without_a_code_is_a_protocol_error(void **state)
{
    static const char *const exits[] = {"{\"type\":\"exit\"}",
                                        "{\"type\":\"exit\",\"exit_code\":null}",
                                        "{\"type\":\"exit\",\"data\":\"0\",\"offset\":0}"};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(exits); i++) {
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        peer *p;
        world_init(&w);
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        peer_exits(p, exits[i]);
        sandbox = begin(&w);
        assert_status(&w, SBX_E_PROTOCOL, run(sandbox, NULL, &result, &err), &err);
        assert_int_equal(w.dials, 1);
        end(&w, sandbox);
    }
}

static void an_id_that_cannot_be_kept_whole_is_a_protocol_error(void **state)
{
    size_t len;
    (void)state;
    for (len = 130; len < 135; len++) {
        char id[140], started[280], reconnect[280];
        world w;
        sbx_sandbox *sandbox;
        sbx_command *command = NULL;
        sbx_result *result = NULL;
        sbx_error err;
        peer *p;
        memset(id, 'i', sizeof(id));
        id[len] = 0;
        snprintf(started, sizeof(started), "{\"type\":\"started\",\"command_id\":\"%s\",\"pid\":4}",
                 id);
        snprintf(reconnect, sizeof(reconnect),
                 "{\"type\":\"reconnect\",\"command_id\":\"%s\",\"stdout_offset\":0,"
                 "\"stderr_offset\":0}",
                 id);
        world_init(&w);
        p = executing_peer(&w);
        peer_ws_text(p, started);
        if (len < 132) {
            peer_reset(p);
            p = world_peer(&w);
            peer_upgrade(p, WS);
            peer_ws_expect(p, reconnect);
            peer_exits(p, EXIT("0"));
        }
        sandbox = begin(&w);
        assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &command, &err), &err);
        assert_status(&w, len < 132 ? SBX_OK : SBX_E_PROTOCOL,
                      sbx_command_result(command, &result, &err), &err);
        if (len < 132)
            assert_string_equal(sbx_command_id(command), id);
        sbx_free(result);
        sbx_command_free(command);
        end(&w, sandbox);
    }
}

static void a_message_beyond_the_limit_is_too_big(void **state)
{
    wtext json = {NULL, 0, 0};
    int how, i;
    (void)state;
    wtext_puts(&json, "{\"type\":\"stdout\",\"offset\":0,\"data\":\"");
    for (i = 0; i < 5000; i++)
        wtext_puts(&json, "x");
    wtext_puts(&json, "\"}");
    for (how = 0; how < 2; how++) {
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        peer *p;
        world_init(&w);
        w.config.max_message = how ? json.len : 1000;
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        peer_ws_frame(p, SBX_WS_TEXT, 0, json.data, 900);
        peer_ws_frame(p, 0, 1, json.data + 900, json.len - 900);
        if (how)
            peer_exits(p, EXIT("0"));
        sandbox = begin(&w);
        if (how) {
            assert_status(&w, SBX_OK, run(sandbox, NULL, &result, &err), &err);
            assert_int_equal(result->out_len, 5000);
            sbx_free(result);
        } else {
            assert_status(&w, SBX_E_TOO_BIG, run(sandbox, NULL, &result, &err), &err);
            assert_int_equal(p->ws_close_code, 1009);
            assert_says(&w, &err, "max_message");
        }
        end(&w, sandbox);
    }
    wtext_free(&json);
}

static void an_upgrade_with_a_wrong_answer_is_not_trusted(void **state)
{
    static const char *const replies[] = {
        ("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"),
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 x\r\n\r\n",
        "garbage\r\n\r\n",
    };
    size_t i;
    int k;
    (void)state;
    for (i = 0; i < COUNT(replies); i++) {
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        sbx_status st;
        world_init(&w);
        for (k = 0; k < 6; k++) {
            peer *p = world_peer(&w);
            p->optional = 1;
            peer_request(p, "GET", WS);
            peer_puts(p, replies[i]);
        }
        sandbox = begin(&w);
        st = run(sandbox, NULL, &result, &err);
        check_error(&w, st, &err);
        assert_true(sbx_status_is(st, SBX_E_CONNECTION));
        for (k = 0; k < 6; k++)
            assert_null(strstr(wtext_get(&w.peers[k]->raw), "execute\""));
        end(&w, sandbox);
    }
}

/* ---- time ---- */

static void pings_keep_a_silent_command_alive(void **state)
{
    sbx_run_options options = run_options();
    world w;
    sbx_sandbox *sandbox;
    peer *p;
    (void)state;
    options.timeout_ms = SBX_NONE;
    world_init(&w);
    p = endless_peer(&w);
    peer_ws_text(p, STARTED);
    peer_delay(p, 3600 * 1000);
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    run_well(&w, sandbox, &options, 0, "", "");
    assert_between(p->pings, 118, 121);
    assert_int_equal(w.dials, 1);
    end(&w, sandbox);
}

static void set_clock_back(world *w, void *user)
{
    w->clock -= *(const int64_t *)user;
}

static void a_command_needs_no_clock_that_starts_above_zero(void **state)
{
    /* What the clock shows more than the world's time, which starts at 5000. */
    static const int64_t clocks[] = {-5000, -5001,    -4999,     -5500,
                                     -6000, -1000000, INT64_MIN, INT64_MAX - 1000000000};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(clocks); i++) {
        sbx_run_options options = run_options();
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        peer *p;
        int64_t start;
        world_init(&w);
        w.clock = clocks[i];
        /* A connection refused, one lost, one closed for a reload, pings, and the output. */
        world_peer(&w)->refuse = SBX_E_CONNECT;
        p = endless_peer(&w);
        peer_ws_text(p, STARTED);
        peer_reset(p);
        p = reattached_peer(&w, "0", "0");
        peer_ws_text(p, STARTED);
        peer_ws_close(p, 1001);
        peer_close(p);
        p = reattached_peer(&w, "0", "0");
        peer_ws_text(p, STARTED);
        peer_delay(p, 300000);
        peer_exits(p, EXIT("0"));
        sandbox = begin(&w);
        start = w.now;
        options.timeout_ms = SBX_NONE;
        run_well(&w, sandbox, &options, 0, "", "");
        assert_int_equal(w.now - start, 500 + 500 + 0 + 300000);
        assert_between(p->pings, 9, 10);
        /* The same over HTTP, which starts without a pause. */
        p = world_peer(&w);
        peer_request(p, "GET", WS);
        peer_reply_with(p, 404, "Connection: close\r\n", "");
        peer_close(p);
        p = world_peer(&w);
        peer_request(p, "POST", "/sb-1/execute");
        peer_reply(p, 200, "{\"stdout\":\"http\",\"exit_code\":0}");
        start = w.now;
        run_well(&w, sandbox, &options, 0, "http", "");
        assert_int_equal(w.now, start);
        /* The deadline. */
        w.id[0] = 0;
        p = endless_peer(&w);
        peer_ws_text(p, STARTED);
        options.call.timeout_ms = 4321;
        start = w.now;
        assert_status(&w, SBX_E_TIMEOUT, run(sandbox, &options, &result, &err), &err);
        assert_int_equal(w.now - start, 4321);
        end(&w, sandbox);
    }
}

static void a_clock_that_jumps_backwards_does_not_stop_a_command(void **state)
{
    static const int64_t hour = 3600000;
    int how;
    (void)state;
    for (how = 0; how < 3; how++) {
        sbx_run_options options = run_options();
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        peer *p;
        int64_t start;
        world_init(&w);
        p = executing_peer(&w);
        peer_ws_text(p, STARTED);
        p->mute = how == 2;
        if (how == 0)
            options.call.timeout_ms = 20000;
        if (how == 2) {
            /* Nothing but the pings says that the connection is dead. */
            options.call.timeout_ms = SBX_NONE;
            p = reattached_peer(&w, "0", "0");
            peer_exits(p, EXIT("0"));
        }
        sandbox = begin(&w);
        start = w.now;
        world_at(&w, 5000, set_clock_back, (void *)(uintptr_t)&hour);
        if (how == 2)
            run_well(&w, sandbox, &options, 0, "", "");
        else
            assert_status(&w, SBX_E_TIMEOUT, run(sandbox, &options, &result, &err), &err);
        /* At most the time before the jump is not counted. */
        assert_between(w.now - start, how ? 60000 : 20000, how ? 95500 : 25000);
        end(&w, sandbox);
    }
}

static void a_peer_that_answers_no_ping_is_left(void **state)
{
    sbx_run_options options = run_options();
    world w;
    sbx_sandbox *sandbox;
    peer *p;
    int64_t start;
    (void)state;
    options.timeout_ms = SBX_NONE;
    world_init(&w);
    p = endless_peer(&w);
    p->mute = 1;
    peer_ws_text(p, STARTED);
    p = reattached_peer(&w, "0", "0");
    peer_ws_text(p, STARTED);
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    start = w.now;
    run_well(&w, sandbox, &options, 0, "", "");
    assert_between(w.now - start, 60000, 90500);
    assert_true(w.peers[0]->pings >= 1);
    end(&w, sandbox);
}

static void a_peer_that_takes_nothing_is_left(void **state)
{
    sbx_run_options options = run_options();
    world w;
    sbx_sandbox *sandbox;
    peer *p;
    int64_t start;
    (void)state;
    options.timeout_ms = SBX_NONE;
    world_init(&w);
    p = world_peer(&w);
    p->stuck_after = 400;
    p->optional = 1;
    peer_upgrade(p, WS);
    p = endless_peer(&w);
    peer_ws_text(p, STARTED);
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    start = w.now;
    run_well(&w, sandbox, &options, 0, "", "");
    assert_between(w.now - start, 1, 120000);
    end(&w, sandbox);
}

static void the_call_ends_thirty_seconds_after_the_command_should_have(void **state)
{
    static const int64_t cases[][2] = {{0, 90000}, {60000, 90000}};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_run_options options = run_options();
        world w;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        peer *p;
        int64_t start;
        options.timeout_ms = cases[i][0];
        world_init(&w);
        p = executing_peer(&w);
        peer_delay(p, 3000);
        peer_ws_text(p, STARTED);
        sandbox = begin(&w);
        start = w.now;
        assert_status(&w, SBX_E_TIMEOUT, run(sandbox, &options, &result, &err), &err);
        assert_int_equal(w.now - start, cases[i][1]);
        end(&w, sandbox);
    }
}

/* A peer that has always something more to say, and a clock that goes on while it is read. */
typedef struct flood {
    world *w;
    peer *p;
    uint64_t offset;
    int calls;
} flood;

static void flood_more(flood *f)
{
    char text[100];
    int n = snprintf(text, sizeof(text), "{\"type\":\"stdout\",\"data\":\"x\",\"offset\":%lu}",
                     (unsigned long)f->offset++);
    peer_emit_frame(f->p, SBX_WS_TEXT, 1, text, (size_t)n);
}

static int hear_flood(void *user, int stream, const char *data, size_t len)
{
    flood *f = (flood *)user;
    (void)stream;
    (void)data;
    (void)len;
    f->w->now += 10;
    flood_more(f);
    return ++f->calls == 5000;
}

/* Takes one chunk after the other, as long as there are any. */
static sbx_status take_flood(flood *f, sbx_command *command, int64_t timeout_ms, sbx_error *err)
{
    sbx_status st = SBX_OK;
    while (st == SBX_OK || (st == SBX_AGAIN && timeout_ms == 0)) {
        sbx_chunk chunk;
        st = sbx_command_next(command, &chunk, timeout_ms, err);
        if (st >= 0 && hear_flood(f, chunk.stream, chunk.data, chunk.len))
            break;
    }
    return st;
}

static void begin_flood(world *w, void *user)
{
    int i;
    (void)w;
    for (i = 0; i < 2000; i++)
        flood_more((flood *)user);
}

static void the_deadline_ends_a_command_whose_output_never_pauses(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 4; how++) {
        sbx_run_options options = run_options();
        flood f;
        world w;
        sbx_sandbox *sandbox;
        sbx_command *command = NULL;
        sbx_result *result = NULL;
        sbx_error err;
        sbx_status st;
        int64_t start;
        memset(&f, 0, sizeof(f));
        f.w = &w;
        options.call.timeout_ms = 3000;
        options.discard_output = 1;
        if (how >= 2) {
            options.on_output = hear_flood;
            options.user = &f;
        }
        world_init(&w);
        f.p = executing_peer(&w);
        peer_ws_text(f.p, STARTED);
        peer_call(f.p, begin_flood, &f);
        sandbox = begin(&w);
        start = w.now;
        if (how == 3) {
            st = sbx_run(sandbox, "x", &options, &result, &err);
        } else {
            assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", &options, &command, &err),
                          &err);
            if (how == 2)
                st = sbx_command_result(command, &result, &err);
            else
                st = take_flood(&f, command, how ? SBX_NONE : 0, &err);
        }
        assert_status(&w, SBX_E_TIMEOUT, st, &err);
        assert_null(result);
        /* A handle is asked at each chunk, an operation after each step, which has its limits. */
        assert_between(w.now - start, 3000, how < 3 ? 3010 : 3000 + 8 * 256 * 10);
        sbx_command_free(command);
        assert_int_equal(w.live, 0);
        end(&w, sandbox);
    }
}

static void cancel_command(world *w, void *user)
{
    sbx_cancel_set(w->client, (sbx_cancel *)user);
}

static void a_command_is_cancelled_wherever_it_is(void **state)
{
    int how, wakeup;
    (void)state;
    for (how = 0; how < 5; how++) {
        for (wakeup = 0; wakeup < 2; wakeup++) {
            sbx_run_options options = run_options();
            sbx_cancel cancel = {0};
            world w;
            sbx_sandbox *sandbox;
            sbx_result *result;
            sbx_error err;
            peer *p;
            int64_t start;
            options.call.cancel = &cancel;
            world_init(&w);
            if (!wakeup)
                w.transport.wakeup = NULL;
            p = world_peer(&w);
            p->optional = 1;
            if (how == 0)
                p->connect_ms = WORLD_NEVER;
            if (how == 1)
                peer_request(p, "GET", WS);
            if (how == 2)
                p->refuse = SBX_E_CONNECT;
            if (how >= 3) {
                peer_upgrade(p, WS);
                peer_ws_expect(p, EXECUTE("x"));
                peer_ws_text(p, STARTED);
                if (how == 4)
                    peer_reset(p);
            }
            sandbox = begin(&w);
            start = w.now;
            world_at(&w, 333, cancel_command, &cancel);
            assert_status(&w, SBX_E_CANCELLED, run(sandbox, &options, &result, &err), &err);
            assert_between(w.now - start, 333, wakeup ? 333 : 333 + 250);
            assert_int_equal(w.live, 0);
            end(&w, sandbox);
        }
    }
}

/* ---- chunk by chunk ---- */

static void chunks_come_in_the_order_of_arrival(void **state)
{
    static const struct {
        int stream;
        const char *data;
        uint64_t offset, lost;
    } expected[] = {
        {SBX_STDOUT, "one ", 0, 0},    {SBX_STDERR, "err", 0, 0}, {SBX_STDOUT, "two", 4, 0},
        {SBX_STDOUT, "three", 17, 10}, {SBX_STDERR, "!", 3, 0},
    };
    sbx_run_options options = run_options();
    heard h;
    world w;
    sbx_sandbox *sandbox;
    sbx_command *command = NULL;
    sbx_result *result = NULL;
    sbx_chunk chunk;
    sbx_error err;
    char id[80];
    peer *p;
    size_t i;
    (void)state;
    memset(&h, 0, sizeof(h));
    options.on_output = hear;
    options.user = &h;
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "one "));
    peer_ws_text(p, ERR("0", "err"));
    peer_ws_text(p, OUT("4", "two"));
    peer_reset(p);
    p = reattached_peer(&w, "7", "3");
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("17", "three"));
    peer_ws_text(p, OUT("17", "three"));
    peer_ws_text(p, ERR("3", "!"));
    peer_exits(p, EXIT("6"));
    sandbox = begin(&w);
    assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", &options, &command, &err), &err);
    assert_int_equal(w.dials, 0);
    assert_int_equal(sbx_command_pid(command), 0);
    assert_int_equal(strlen(sbx_command_id(command)), 36);
    memcpy(id, sbx_command_id(command), 37);
    for (i = 0; i < COUNT(expected); i++) {
        assert_status(&w, SBX_OK, sbx_command_next(command, &chunk, SBX_NONE, &err), &err);
        assert_int_equal(chunk.stream, expected[i].stream);
        assert_int_equal(chunk.len, strlen(expected[i].data));
        assert_memory_equal(chunk.data, expected[i].data, chunk.len);
        assert_int_equal(chunk.offset, expected[i].offset);
        assert_int_equal(chunk.lost, expected[i].lost);
        assert_int_equal(sbx_command_pid(command), 41);
    }
    for (i = 0; i < 3; i++) {
        assert_int_equal(sbx_command_next(command, &chunk, SBX_NONE, &err), SBX_END);
        assert_int_equal(chunk.stream, 0);
        assert_null(chunk.data);
        assert_int_equal(chunk.len, 0);
    }
    assert_string_equal(sbx_command_id(command), id);
    assert_string_equal(w.id, id);
    assert_status(&w, SBX_OK, sbx_command_result(command, &result, &err), &err);
    assert_int_equal(result->exit_code, 6);
    assert_string_equal(result->out, "one twothree");
    assert_string_equal(result->err, "err!");
    assert_int_equal(result->out_lost, 10);
    assert_string_equal(h.out.data, "one twothree");
    assert_string_equal(h.err.data, "err!");
    sbx_free(result);
    result = NULL;
    assert_status(&w, SBX_E_ARGUMENT, sbx_command_result(command, &result, &err), &err);
    assert_null(result);
    heard_free(&h);
    sbx_command_free(command);
    end(&w, sandbox);
}

static void what_is_to_be_sent_leaves_though_chunks_are_always_ready(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_command *command = NULL;
    sbx_chunk chunk;
    sbx_error err;
    char text[100];
    peer *p;
    int k;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    peer_upgrade(p, WS);
    peer_ws_text(p, "{\"type\":\"started\",\"pid\":41}");
    for (k = 0; k < 30; k++) {
        if (k == 10)
            peer_ws_frame(p, SBX_WS_PING, 1, "are you there", 13);
        snprintf(text, sizeof(text), "{\"type\":\"stdout\",\"data\":\"x\",\"offset\":%d}", k);
        peer_ws_text(p, text);
    }
    peer_ws_expect(p, EXECUTE("x"));
    peer_ws_pong(p, "are you there");
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &command, &err), &err);
    for (k = 0; k < 30; k++) {
        assert_status(&w, SBX_OK, sbx_command_next(command, &chunk, k % 2 ? 0 : SBX_NONE, &err),
                      &err);
        assert_int_equal(chunk.offset, k);
        if (k == 5 && strcmp(w.id, sbx_command_id(command)) != 0)
            world_fail(&w, "execute has not left");
        if (k == 20 && p->at < p->count && p->steps[p->at].kind != STEP_SEND)
            world_fail(&w, "the pong has not left");
    }
    assert_int_equal(sbx_command_next(command, &chunk, SBX_NONE, &err), SBX_END);
    sbx_command_free(command);
    end(&w, sandbox);
}

static void waiting_for_a_chunk_has_its_own_time_limit(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_command *command = NULL;
    sbx_chunk chunk;
    sbx_error err;
    peer *p;
    int64_t start;
    (void)state;
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    peer_delay(p, 2000);
    peer_ws_text(p, OUT("0", "late"));
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &command, &err), &err);
    start = w.now;
    assert_int_equal(sbx_command_next(command, &chunk, 0, &err), SBX_AGAIN);
    assert_null(chunk.data);
    assert_int_equal(w.waits, 0);
    assert_int_equal(sbx_command_next(command, &chunk, 700, &err), SBX_AGAIN);
    assert_int_equal(w.now - start, 700);
    assert_status(&w, SBX_OK, sbx_command_next(command, &chunk, 5000, &err), &err);
    assert_int_equal(w.now - start, 2000);
    assert_memory_equal(chunk.data, "late", 4);
    assert_int_equal(sbx_command_next(command, &chunk, 0, &err), SBX_END);
    sbx_command_free(command);
    end(&w, sandbox);
}

static void a_command_fits_into_the_loop_of_the_program(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_command *command = NULL;
    sbx_chunk chunk;
    sbx_error err;
    sbx_status st;
    sbx_item items[SBX_ITEMS];
    sbx_op *op;
    wtext got = {NULL, 0, 0};
    int64_t ms;
    peer *p;
    int n;
    (void)state;
    world_init(&w);
    w.transport.wait = NULL;
    p = executing_peer(&w);
    p->piece = 5;
    peer_ws_text(p, STARTED);
    peer_delay(p, 100);
    peer_ws_text(p, OUT("0", "a"));
    peer_delay(p, 100);
    peer_ws_text(p, OUT("1", "b"));
    peer_reset(p);
    p = reattached_peer(&w, "2", "0");
    peer_ws_text(p, OUT("2", "c"));
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &command, &err), &err);
    op = sbx_command_op(command);
    assert_non_null(op);
    while ((st = sbx_command_next(command, &chunk, 0, &err)) >= 0 && st != SBX_END) {
        if (st == SBX_OK) {
            wtext_add(&got, chunk.data, chunk.len);
            continue;
        }
        n = sbx_op_wants(op, items, SBX_ITEMS, &ms);
        assert_int_equal(world_wait_hook(&w, items, n, ms), SBX_OK);
    }
    assert_int_equal(st, SBX_END);
    assert_string_equal(got.data, "abc");
    assert_int_equal(w.slept, 700);
    wtext_free(&got);
    sbx_command_free(command);
    end(&w, sandbox);
}

static void a_loop_that_takes_one_chunk_at_a_time_does_not_sleep_on_the_next(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_command *command = NULL;
    sbx_chunk chunk;
    sbx_error err;
    sbx_item items[SBX_ITEMS];
    int64_t ms = -1, start;
    peer *p;
    int n;
    (void)state;
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "a"));
    peer_ws_text(p, OUT("1", "b"));
    peer_delay(p, 5000);
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    start = w.now;
    assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &command, &err), &err);
    assert_status(&w, SBX_OK, sbx_command_next(command, &chunk, SBX_NONE, &err), &err);
    assert_memory_equal(chunk.data, "a", 1);
    n = sbx_op_wants(sbx_command_op(command), items, SBX_ITEMS, &ms);
    assert_int_equal(ms, 0);
    assert_int_equal(world_wait_hook(&w, items, n, ms), SBX_OK);
    assert_int_equal(w.now, start);
    assert_status(&w, SBX_OK, sbx_command_next(command, &chunk, 0, &err), &err);
    assert_memory_equal(chunk.data, "b", 1);
    /* And when there is nothing left, it sleeps. */
    assert_int_equal(sbx_command_next(command, &chunk, 0, &err), SBX_AGAIN);
    n = sbx_op_wants(sbx_command_op(command), items, SBX_ITEMS, &ms);
    assert_int_equal(n, 1);
    assert_between(ms, 1000, 30000);
    assert_int_equal(sbx_command_next(command, &chunk, SBX_NONE, &err), SBX_END);
    assert_int_equal(w.now - start, 5000);
    sbx_command_free(command);
    end(&w, sandbox);
}

static void several_commands_are_watched_at_once(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_command *commands[2] = {NULL, NULL};
    sbx_op *ops[2];
    sbx_chunk chunk;
    sbx_error err;
    peer *p;
    int64_t start;
    int i;
    (void)state;
    world_init(&w);
    for (i = 0; i < 2; i++) {
        p = world_peer(&w);
        peer_upgrade(p, WS);
        p->optional = 1;
        p->w->id[0] = 0;
    }
    peer_delay(w.peers[0], 3000);
    peer_ws_text(w.peers[0], OUT("0", "slow"));
    peer_delay(w.peers[1], 1000);
    peer_ws_text(w.peers[1], OUT("0", "fast"));
    sandbox = begin(&w);
    start = w.now;
    for (i = 0; i < 2; i++) {
        assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &commands[i], &err), &err);
        ops[i] = sbx_command_op(commands[i]);
    }
    /* The peers are waiting for their delays and do not mind the execute messages. */
    for (i = 0; i < 2; i++)
        peer_delay(w.peers[i], 1000000);
    assert_status(&w, SBX_OK, sbx_wait(ops, 2, SBX_NONE, &err), &err);
    assert_int_equal(w.now - start, 1000);
    assert_int_equal(sbx_command_next(commands[0], &chunk, 0, &err), SBX_AGAIN);
    assert_int_equal(sbx_command_next(commands[1], &chunk, 0, &err), SBX_OK);
    assert_memory_equal(chunk.data, "fast", 4);
    /* Nothing was passed over: the command is not done any more until there is more. */
    assert_int_equal(sbx_wait(ops, 2, 500, &err), SBX_AGAIN);
    assert_status(&w, SBX_OK, sbx_wait(ops, 2, SBX_NONE, &err), &err);
    assert_int_equal(w.now - start, 3000);
    /* Waiting again does not lose the chunk that is there. */
    assert_status(&w, SBX_OK, sbx_wait(ops, 2, SBX_NONE, &err), &err);
    assert_status(&w, SBX_OK, sbx_op_wait(ops[0], SBX_NONE, &err), &err);
    assert_int_equal(sbx_command_next(commands[0], &chunk, 0, &err), SBX_OK);
    assert_memory_equal(chunk.data, "slow", 4);
    sbx_command_free(commands[0]);
    sbx_command_free(commands[1]);
    assert_int_equal(w.live, 0);
    end(&w, sandbox);
}

/* Else every attempt would begin at the first byte, and perhaps never come further. */
static void output_shows_too_that_the_command_was_started(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    peer *p;
    (void)state;
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, OUT("0", "abc"));
    peer_reset(p);
    p = world_peer(&w);
    peer_upgrade(p, WS);
    peer_ws_expect(p, "{\"type\":\"reconnect\",\"command_id\":\"$id\",\"stdout_offset\":3,"
                      "\"stderr_offset\":0}");
    peer_ws_text(p, OUT("3", "def"));
    peer_exits(p, EXIT("0"));
    sandbox = begin(&w);
    run_well(&w, sandbox, NULL, 0, "abcdef", "");
    end(&w, sandbox);
}

static void a_gap_before_an_empty_message_is_told_by_the_next_chunk(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("3", ""));
    peer_ws_text(p, ERR("2", "e"));
    peer_ws_text(p, OUT("4", "b"));
    peer_ws_text(p, OUT("5", "c"));
    peer_exits(p, EXIT("0"));
    scene_start(&s, NULL);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    assert_int_equal(s.chunk.lost, 2);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    assert_int_equal(s.chunk.offset, 4);
    assert_int_equal(s.chunk.lost, 4);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    assert_int_equal(s.chunk.lost, 0);
    assert_status(&s.w, SBX_OK, sbx_command_result(s.command, &s.result, &s.err), &s.err);
    assert_int_equal(s.result->out_lost, 4);
    sbx_free(s.result);
    scene_end(&s);
}

/* Each answers with its own id. */
static void serve_ids(peer *p, void *user)
{
    wtext text = {NULL, 0, 0};
    char id[80], json[300];
    (void)user;
    if (!peer_take_message(p, &text)) {
        peer_accept_upgrade(p);
        peer_take_request(p);
        return;
    }
    json_member(text.data, text.len, "command_id", id, sizeof(id));
    wtext_free(&text);
    snprintf(json, sizeof(json), "{\"type\":\"started\",\"command_id\":\"%s\",\"pid\":1}", id);
    peer_ws_text(p, json);
    peer_delay(p, 100 * (p->number % 7));
    snprintf(json, sizeof(json), "{\"type\":\"stdout\",\"data\":\"%s\",\"offset\":0}", id);
    peer_ws_text(p, json);
    peer_exits(p, EXIT("0"));
}

static void two_hundred_commands_are_watched_at_once(void **state)
{
    enum { MANY = 200 };
    sbx_command *commands[MANY];
    sbx_op *ops[MANY];
    sbx_result *result;
    sbx_chunk chunk;
    sbx_error err;
    sbx_sandbox *sandbox;
    world w;
    int i, done = 0;
    (void)state;
    world_init(&w);
    w.serve = serve_ids;
    sandbox = begin(&w);
    for (i = 0; i < MANY; i++) {
        assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &commands[i], &err), &err);
        ops[i] = sbx_command_op(commands[i]);
    }
    while (done < MANY) {
        int left = 0;
        for (i = 0; i < MANY; i++)
            if (commands[i] && sbx_command_next(commands[i], &chunk, 0, &err) != SBX_END)
                ops[left++] = sbx_command_op(commands[i]);
            else if (commands[i]) {
                assert_status(&w, SBX_OK, sbx_command_result(commands[i], &result, &err), &err);
                assert_string_equal(result->out, sbx_command_id(commands[i]));
                sbx_free(result);
                sbx_command_free(commands[i]);
                commands[i] = NULL;
                done++;
            }
        if (left)
            assert_status(&w, SBX_OK, sbx_wait(ops, left, SBX_NONE, &err), &err);
    }
    assert_int_equal(w.dials, MANY);
    assert_int_equal(w.most_live, MANY);
    assert_between(w.slept, 600, 600);
    end(&w, sandbox);
}

/* Whoever looks after the one that has something only, does not starve the others. */
static void a_wait_steps_all_operations(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_command *talker;
    sbx_op *ops[2];
    sbx_template *template;
    sbx_chunk chunk;
    sbx_error err;
    peer *p;
    int i;
    (void)state;
    world_init(&w);
    p = executing_peer(&w);
    p->optional = 1;
    for (i = 0; i < 20; i++)
        peer_ws_text(p, "{\"type\":\"stdout\",\"data\":\"y\"}");
    p = world_peer(&w);
    peer_request(p, "GET", "/v2/sandboxes/templates/t");
    peer_reply(p, 200, "{\"name\":\"t\"}");
    sandbox = begin(&w);
    assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &talker, &err), &err);
    assert_status(&w, SBX_OK, sbx_command_next(talker, &chunk, SBX_NONE, &err), &err);
    assert_status(&w, SBX_OK, sbx_template_get_start(w.client, "t", NULL, &template, &ops[1], &err),
                  &err);
    ops[0] = sbx_command_op(talker);
    for (i = 0; i < 15; i++) {
        assert_status(&w, SBX_OK, sbx_wait(ops, 2, SBX_NONE, &err), &err);
        assert_int_equal(err.status, SBX_OK);
        assert_status(&w, SBX_OK, sbx_command_next(talker, &chunk, 0, &err), &err);
    }
    assert_int_equal(w.dials, 2);
    assert_int_equal(ops[1]->status, SBX_OK);
    sbx_free(template);
    sbx_op_free(ops[1]);
    sbx_command_free(talker);
    end(&w, sandbox);
}

static void the_result_can_be_had_at_any_point(void **state)
{
    int taken, discard;
    (void)state;
    for (taken = 0; taken < 4; taken++) {
        for (discard = 0; discard < 2; discard++) {
            sbx_run_options options = run_options();
            world w;
            sbx_sandbox *sandbox;
            sbx_command *command = NULL;
            sbx_result *result = NULL;
            sbx_chunk chunk;
            sbx_error err;
            peer *p;
            int i;
            options.discard_output = discard;
            world_init(&w);
            p = executing_peer(&w);
            peer_ws_text(p, STARTED);
            peer_ws_text(p, OUT("0", "a"));
            peer_ws_text(p, ERR("0", "b"));
            peer_ws_text(p, OUT("1", "c"));
            peer_exits(p, EXIT("2"));
            sandbox = begin(&w);
            assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", &options, &command, &err),
                          &err);
            for (i = 0; i < taken; i++)
                assert_status(&w, SBX_OK, sbx_command_next(command, &chunk, SBX_NONE, &err), &err);
            assert_status(&w, SBX_OK, sbx_command_result(command, &result, &err), &err);
            assert_int_equal(result->exit_code, 2);
            assert_string_equal(result->out, discard ? "" : "ac");
            assert_string_equal(result->err, discard ? "" : "b");
            sbx_free(result);
            sbx_command_free(command);
            end(&w, sandbox);
        }
    }
}

static void a_result_that_found_no_memory_can_be_had_again(void **state)
{
    int lengths, n;
    (void)state;
    for (lengths = 0; lengths < 4; lengths++) {
        for (n = 1; n < 8; n++) {
            /* 256 bytes fill a buffer to the last one, so the final 0 needs memory. */
            size_t out_len = lengths & 1 ? 256 : 255, err_len = lengths & 2 ? 256 : 255;
            char json[400], data[300];
            world w;
            sbx_sandbox *sandbox;
            sbx_command *command = NULL;
            sbx_result *result = NULL;
            sbx_chunk chunk;
            sbx_error err;
            sbx_status st;
            peer *p;
            int again;
            memset(data, 'x', sizeof(data));
            world_init(&w);
            p = executing_peer(&w);
            peer_ws_text(p, STARTED);
            snprintf(json, sizeof(json), "{\"type\":\"stdout\",\"data\":\"%.*s\",\"offset\":0}",
                     (int)out_len, data);
            peer_ws_text(p, json);
            snprintf(json, sizeof(json), "{\"type\":\"stderr\",\"data\":\"%.*s\",\"offset\":0}",
                     (int)err_len, data);
            peer_ws_text(p, json);
            peer_exits(p, EXIT("7"));
            sandbox = begin(&w);
            assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &command, &err), &err);
            while ((st = sbx_command_next(command, &chunk, SBX_NONE, &err)) == SBX_OK) {
            }
            assert_int_equal(st, SBX_END);
            for (again = 0; again < 3 && !result; again++) {
                w.fail_alloc = again < 2 ? w.allocs + n : 0;
                st = sbx_command_result(command, &result, &err);
                assert_status(&w, result ? SBX_OK : SBX_E_MEMORY, st, &err);
            }
            assert_non_null(result);
            assert_int_equal(result->exit_code, 7);
            assert_int_equal(result->out_len, out_len);
            assert_int_equal(result->err_len, err_len);
            assert_memory_equal(result->out, data, out_len);
            assert_memory_equal(result->err, data, err_len);
            assert_int_equal(result->out[out_len], 0);
            assert_int_equal(result->err[err_len], 0);
            sbx_free(result);
            sbx_command_free(command);
            end(&w, sandbox);
        }
    }
}

static void a_failed_command_says_the_same_for_ever(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_command *command = NULL;
    sbx_result *result = NULL;
    sbx_chunk chunk;
    sbx_error err, again;
    peer *p;
    int i;
    (void)state;
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "first"));
    peer_ws_text(p, FAILURE("CommandTimeout", "over"));
    peer_ws_close(p, 1000);
    peer_close(p);
    sandbox = begin(&w);
    assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &command, &err), &err);
    assert_status(&w, SBX_OK, sbx_command_next(command, &chunk, SBX_NONE, &err), &err);
    assert_memory_equal(chunk.data, "first", 5);
    assert_status(&w, SBX_E_COMMAND_TIMEOUT, sbx_command_next(command, &chunk, SBX_NONE, &err),
                  &err);
    assert_null(chunk.data);
    for (i = 0; i < 2; i++) {
        assert_status(&w, SBX_E_COMMAND_TIMEOUT, sbx_command_next(command, &chunk, 0, &again),
                      &again);
        assert_memory_equal(&err, &again, sizeof(err));
        assert_status(&w, SBX_E_COMMAND_TIMEOUT, sbx_command_result(command, &result, &again),
                      &again);
        assert_memory_equal(&err, &again, sizeof(err));
        assert_null(result);
    }
    sbx_command_free(command);
    end(&w, sandbox);
}

static void letting_go_of_a_command_leaves_nothing_behind(void **state)
{
    int64_t ms;
    (void)state;
    for (ms = 0; ms < 1200; ms += 50) {
        world w;
        sbx_sandbox *sandbox;
        sbx_command *command = NULL;
        sbx_chunk chunk;
        sbx_error err;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        p->connect_ms = 100;
        p->optional = 1;
        peer_upgrade(p, WS);
        peer_delay(p, 200);
        peer_ws_text(p, "{\"type\":\"started\",\"pid\":3}");
        peer_delay(p, 200);
        peer_reset(p);
        w.serve = serve_ack_and_drop;
        sandbox = begin(&w);
        assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &command, &err), &err);
        assert_int_equal(sbx_command_next(command, &chunk, ms, &err), SBX_AGAIN);
        sbx_command_free(command);
        assert_int_equal(w.live, 0);
        end(&w, sandbox);
    }
}

static void a_command_is_cancelled_by_its_operation(void **state)
{
    world w;
    sbx_sandbox *sandbox;
    sbx_command *command = NULL;
    sbx_chunk chunk;
    sbx_error err;
    peer *p;
    (void)state;
    world_init(&w);
    p = executing_peer(&w);
    peer_ws_text(p, STARTED);
    sandbox = begin(&w);
    assert_status(&w, SBX_OK, sbx_command_start(sandbox, "x", NULL, &command, &err), &err);
    assert_int_equal(sbx_command_next(command, &chunk, 100, &err), SBX_AGAIN);
    sbx_op_cancel(sbx_command_op(command));
    assert_status(&w, SBX_E_CANCELLED, sbx_command_next(command, &chunk, SBX_NONE, &err), &err);
    sbx_command_free(command);
    end(&w, sandbox);
}

/* ---- cut everywhere ---- */

static const service_output recorded[] = {
    {SBX_STDOUT, "first line\n"},
    {SBX_STDERR, "warning: \xe2\x82\xac\n"},
    {SBX_STDOUT, "\xf0\x9f\x98\x80\xf0\x9f\x98\x80"},
    {SBX_STDOUT, "\n"},
    {SBX_STDERR, "quote \" backslash \\ tab \t\n"},
    {SBX_STDOUT, "the end"},
};
#define RECORDED_OUT "first line\n\xf0\x9f\x98\x80\xf0\x9f\x98\x80\nthe end"
#define RECORDED_ERR "warning: \xe2\x82\xac\nquote \" backslash \\ tab \t\n"

static void serve_recorded(service *s, world *w)
{
    service_init(s, w);
    s->outputs = recorded;
    s->output_count = COUNT(recorded);
    s->exit_code = 42;
}

static void run_recorded(world *w, service *s)
{
    sbx_run_options options = run_options();
    heard h;
    sbx_sandbox *sandbox = begin(w);
    memset(&h, 0, sizeof(h));
    options.on_output = hear;
    options.user = &h;
    run_well(w, sandbox, &options, 42, RECORDED_OUT, RECORDED_ERR);
    assert_string_equal(wtext_get(&h.out), RECORDED_OUT);
    assert_string_equal(wtext_get(&h.err), RECORDED_ERR);
    /* A service that does not know our ids runs a command once more for each lost `started`. */
    if (s->executions != 1 && (!s->own_ids || s->attachments))
        world_fail(w, "the command was executed %d times", s->executions);
    heard_free(&h);
    service_free(s);
    end(w, sandbox);
}

static void a_conversation_cut_after_any_byte_of_the_server_goes_on(void **state)
{
    int64_t cut, whole = 1;
    int how;
    (void)state;
    for (cut = 0; cut <= whole; cut++) {
        for (how = 0; how < 16; how++) {
            world w;
            service s;
            peer *p;
            world_init(&w);
            serve_recorded(&s, &w);
            s.own_ids = (how & 8) != 0;
            s.overlap = how & 1;
            s.lose_started = (how & 2) != 0;
            p = world_peer(&w);
            p->optional = 1;
            p->cut_at = cut;
            p->cut_how = how & 4 ? SBX_END : SBX_E_CONNECTION;
            if (cut == 0)
                p->cut_at = -1;
            if (cut == 0 && how == 0) {
                sbx_sandbox *sandbox = begin(&w);
                run_well(&w, sandbox, NULL, 42, RECORDED_OUT, RECORDED_ERR);
                whole = p->delivered;
                service_free(&s);
                end(&w, sandbox);
                continue;
            }
            run_recorded(&w, &s);
        }
    }
    assert_between(whole, 500, 2000);
}

static void a_conversation_cut_after_any_byte_of_the_client_goes_on(void **state)
{
    int64_t cut, whole = 1;
    int own_ids = 0;
    (void)state;
    for (cut = -1; cut < whole || !own_ids; cut++) {
        world w;
        service s;
        peer *p;
        if (cut == whole) {
            own_ids = 1;
            cut = 0;
        }
        world_init(&w);
        serve_recorded(&s, &w);
        s.own_ids = s.lose_started = own_ids;
        p = world_peer(&w);
        p->optional = 1;
        p->take_at_most = cut;
        if (cut < 0) {
            sbx_sandbox *sandbox = begin(&w);
            run_well(&w, sandbox, NULL, 42, RECORDED_OUT, RECORDED_ERR);
            whole = p->taken;
            service_free(&s);
            end(&w, sandbox);
            continue;
        }
        run_recorded(&w, &s);
    }
    assert_true(whole > 400);
}

static void cut_in_turn(peer *p, void *user)
{
    /* The service hangs on serve_user; the connection's number says where it breaks. */
    (void)user;
    p->cut_at = p->number < 40 ? 150 + p->number * 23 : -1;
}

static void a_conversation_cut_again_and_again_goes_on(void **state)
{
    sbx_run_options options = run_options();
    int overlap;
    (void)state;
    options.call.timeout_ms = SBX_NONE;
    for (overlap = 0; overlap < 2; overlap++) {
        world w;
        service s;
        sbx_sandbox *sandbox;
        world_init(&w);
        serve_recorded(&s, &w);
        s.overlap = overlap;
        w.on_dial = cut_in_turn;
        sandbox = begin(&w);
        run_well(&w, sandbox, &options, 42, RECORDED_OUT, RECORDED_ERR);
        assert_int_equal(s.executions, 1);
        assert_true(w.dials > 5);
        service_free(&s);
        end(&w, sandbox);
    }
}

/* A long conversation with chunks of 64 KiB, whose characters take one to four bytes and whose
   escapes are six times as long as what they stand for: cut at every byte near the ends of
   messages, and here and there between. */
static void large_chunks_cut_anywhere_arrive_whole(void **state)
{
    static char large[4][65600];
    static const char *const units[] = {"a", "\xe2\x82\xac", "\x01", "\xf0\x9f\x98\x80z\n\"\\"};
    service_output outputs[8];
    sbx_run_options options = run_options();
    int64_t cut, whole = 1;
    wtext all[2] = {{NULL, 0, 0}, {NULL, 0, 0}};
    int i, runs = 0;
    (void)state;
    options.call.timeout_ms = SBX_NONE;
    for (i = 0; i < 8; i++) {
        size_t len = 0;
        while (i < 4 && len < 65536) {
            strcpy(large[i] + len, units[i]);
            len += strlen(units[i]);
        }
        outputs[i].stream = i & 2 ? SBX_STDERR : SBX_STDOUT;
        outputs[i].text = i & 1 ? "between\n" : large[i / 2];
        wtext_puts(&all[i >> 1 & 1], outputs[i].text);
    }
    for (cut = 0; cut <= whole;
         cut = cut == 0 ? 200 : cut + (cut < 500 || whole - cut < 150 ? 1 : 3011 + cut % 97)) {
        world w;
        service s;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        peer *p;
        world_init(&w);
        service_init(&s, &w);
        s.outputs = outputs;
        s.output_count = 8;
        s.overlap = runs & 1;
        s.own_ids = s.lose_started = runs >> 1 & 1;
        p = world_peer(&w);
        p->optional = 1;
        p->cut_at = cut ? cut : -1;
        p->piece = runs % 5 ? 0 : 1000;
        sandbox = begin(&w);
        assert_status(&w, SBX_OK, run(sandbox, &options, &result, &err), &err);
        if (!cut)
            whole = p->delivered;
        if (result->out_len != all[0].len || memcmp(result->out, all[0].data, all[0].len) != 0 ||
            result->err_len != all[1].len || memcmp(result->err, all[1].data, all[1].len) != 0)
            world_fail(&w, "other bytes after a cut at %ld", (long)cut);
        assert_int_equal(result->out_lost + result->err_lost, 0);
        runs++;
        sbx_free(result);
        service_free(&s);
        end(&w, sandbox);
    }
    assert_true(runs > 500);
    wtext_free(&all[0]);
    wtext_free(&all[1]);
}

static void what_the_service_forgot_is_counted_wherever_the_cut_was(void **state)
{
    int64_t cut;
    (void)state;
    for (cut = 130; cut < 900; cut += 7) {
        world w;
        service s;
        peer *p;
        sbx_sandbox *sandbox;
        sbx_result *result;
        sbx_error err;
        world_init(&w);
        serve_recorded(&s, &w);
        s.forgotten = 20;
        p = world_peer(&w);
        p->optional = 1;
        p->cut_at = cut;
        sandbox = begin(&w);
        assert_status(&w, SBX_OK, run(sandbox, NULL, &result, &err), &err);
        assert_int_equal(result->out_len + result->out_lost, strlen(RECORDED_OUT));
        assert_string_equal(result->out + result->out_len - 7, "the end");
        assert_string_equal(result->err, RECORDED_ERR);
        assert_int_equal(result->err_lost, 0);
        sbx_free(result);
        service_free(&s);
        end(&w, sandbox);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_runs_over_one_websocket),
        cmocka_unit_test(options_are_sent_as_the_service_wants_them),
        cmocka_unit_test(the_command_id_is_a_uuid_of_version_7),
        cmocka_unit_test(wrong_arguments_are_refused_without_traffic),
        cmocka_unit_test(a_sandbox_that_is_not_ready_is_refused_without_traffic),
        cmocka_unit_test(output_goes_to_the_callback_as_it_comes),
        cmocka_unit_test(a_slow_callback_does_not_hold_up_the_deadline),
        cmocka_unit_test(a_callback_can_end_the_call),
        cmocka_unit_test(output_beyond_the_limit_is_too_big),
        cmocka_unit_test(a_callback_may_do_anything_but_free_its_own_operation),
        cmocka_unit_test(a_long_command_goes_out_in_pieces),
        cmocka_unit_test(big_output_of_many_messages_is_collected),
        cmocka_unit_test(messages_may_be_fragmented_around_pings),
        cmocka_unit_test(unknown_messages_and_members_are_ignored),
        cmocka_unit_test(the_end_of_the_connection_after_exit_does_not_matter),
        cmocka_unit_test(the_client_answers_a_close_and_goes),
        cmocka_unit_test(every_kind_of_stream_will_do),
        cmocka_unit_test(a_service_without_websockets_is_used_over_http),
        cmocka_unit_test(over_http_too_the_limit_is_for_the_output_alone),
        cmocka_unit_test(over_http_too_output_can_be_discarded),
        cmocka_unit_test(callbacks_and_handles_do_not_fall_back),
        cmocka_unit_test(other_refusals_of_the_upgrade_are_connection_errors),
        cmocka_unit_test(an_upgrade_answered_by_a_page_is_an_error_at_once),
        cmocka_unit_test(an_upgrade_answered_by_a_page_without_an_end_is_an_error_soon),
        cmocka_unit_test(the_body_of_a_refused_upgrade_is_read_only_so_far),
        cmocka_unit_test(a_command_over_http_is_never_sent_twice),
        cmocka_unit_test(a_command_over_http_is_tried_again_only_if_it_did_not_run),
        cmocka_unit_test(a_command_over_http_may_take_its_time_and_ten_seconds),
        cmocka_unit_test(an_upgrade_that_fails_for_now_is_tried_again),
        cmocka_unit_test(an_upgrade_that_fails_six_times_is_given_up),
        cmocka_unit_test(closed_before_started_for_ever_is_given_up),
        cmocka_unit_test(output_before_started_is_not_given_twice),
        cmocka_unit_test(a_lost_connection_is_made_again_where_it_was),
        cmocka_unit_test(overlap_is_dropped_and_a_gap_is_reported),
        cmocka_unit_test(loss_is_counted_for_each_stream_apart),
        cmocka_unit_test(a_reconnect_after_a_gap_in_the_same_connection_names_the_next_byte),
        cmocka_unit_test(six_failures_in_a_row_end_the_command),
        cmocka_unit_test(a_silent_command_lives_through_losses_that_nobody_acknowledges),
        cmocka_unit_test(output_alone_renews_the_budget_as_with_older_servers),
        cmocka_unit_test(acknowledging_and_dropping_for_ever_ends_at_the_deadline),
        cmocka_unit_test(a_server_that_reloads_for_ever_is_not_hammered),
        cmocka_unit_test(refusals_while_reattaching_are_final),
        cmocka_unit_test(errors_of_the_service_end_the_command),
        cmocka_unit_test(bad_messages_and_frames_are_errors_in_bounded_time),
        cmocka_unit_test(an_exit_without_a_code_is_a_protocol_error),
        cmocka_unit_test(an_id_that_cannot_be_kept_whole_is_a_protocol_error),
        cmocka_unit_test(a_message_beyond_the_limit_is_too_big),
        cmocka_unit_test(an_upgrade_with_a_wrong_answer_is_not_trusted),
        cmocka_unit_test(pings_keep_a_silent_command_alive),
        cmocka_unit_test(a_command_needs_no_clock_that_starts_above_zero),
        cmocka_unit_test(a_clock_that_jumps_backwards_does_not_stop_a_command),
        cmocka_unit_test(a_peer_that_answers_no_ping_is_left),
        cmocka_unit_test(a_peer_that_takes_nothing_is_left),
        cmocka_unit_test(the_call_ends_thirty_seconds_after_the_command_should_have),
        cmocka_unit_test(the_deadline_ends_a_command_whose_output_never_pauses),
        cmocka_unit_test(a_command_is_cancelled_wherever_it_is),
        cmocka_unit_test(chunks_come_in_the_order_of_arrival),
        cmocka_unit_test(what_is_to_be_sent_leaves_though_chunks_are_always_ready),
        cmocka_unit_test(waiting_for_a_chunk_has_its_own_time_limit),
        cmocka_unit_test(a_command_fits_into_the_loop_of_the_program),
        cmocka_unit_test(a_loop_that_takes_one_chunk_at_a_time_does_not_sleep_on_the_next),
        cmocka_unit_test(several_commands_are_watched_at_once),
        cmocka_unit_test(output_shows_too_that_the_command_was_started),
        cmocka_unit_test(a_gap_before_an_empty_message_is_told_by_the_next_chunk),
        cmocka_unit_test(two_hundred_commands_are_watched_at_once),
        cmocka_unit_test(a_wait_steps_all_operations),
        cmocka_unit_test(the_result_can_be_had_at_any_point),
        cmocka_unit_test(a_result_that_found_no_memory_can_be_had_again),
        cmocka_unit_test(a_failed_command_says_the_same_for_ever),
        cmocka_unit_test(letting_go_of_a_command_leaves_nothing_behind),
        cmocka_unit_test(a_command_is_cancelled_by_its_operation),
        cmocka_unit_test(a_conversation_cut_after_any_byte_of_the_server_goes_on),
        cmocka_unit_test(a_conversation_cut_after_any_byte_of_the_client_goes_on),
        cmocka_unit_test(a_conversation_cut_again_and_again_goes_on),
        cmocka_unit_test(large_chunks_cut_anywhere_arrive_whole),
        cmocka_unit_test(what_the_service_forgot_is_counted_wherever_the_cut_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
