/* Killing commands, in every state that they can be in: what is sent, what still comes, and that it
   never takes more than two seconds. tests/test_threads.c kills from other threads and signals. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "conversation.h"

/* The handle ends as killed, at that time, and says so for ever. */
static void ends_killed(scene *s, int64_t after_ms, const char *says)
{
    int i;
    for (i = 0; i < 3; i++) {
        assert_status(&s->w, SBX_E_CANCELLED, next(s, SBX_NONE), &s->err);
        assert_string_equal(s->err.operation, "kill");
        assert_says(&s->w, &s->err, says);
        assert_int_equal(s->w.now - s->start, after_ms);
        assert_null(s->chunk.data);
    }
    assert_status(&s->w, SBX_E_CANCELLED, sbx_command_result(s->command, &s->result, &s->err),
                  &s->err);
    assert_null(s->result);
}

/* For scripts and clocks: as another thread would. */
static void kill_now(world *w, void *user)
{
    (void)w;
    sbx_command_kill(((scene *)user)->command);
}

/* ---- before execute was sent ---- */

static void killed_before_the_first_step_nothing_is_sent(void **state)
{
    scene s;
    (void)state;
    world_init(&s.w);
    scene_start(&s, NULL);
    sbx_command_kill(s.command);
    ends_killed(&s, 0, "before it was started");
    assert_int_equal(s.w.dials, 0);
    scene_end(&s);
}

static void killed_while_connecting_nothing_is_sent(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = world_peer(&s.w);
    p->connect_ms = WORLD_NEVER;
    scene_start(&s, NULL);
    world_at(&s.w, 700, kill_now, &s);
    ends_killed(&s, 700, "before it was started");
    assert_int_equal(p->taken, 0);
    scene_end(&s);
}

static void killed_in_a_pause_before_execute_nothing_is_sent(void **state)
{
    scene s;
    (void)state;
    world_init(&s.w);
    world_peer(&s.w)->refuse = SBX_E_CONNECT;
    scene_start(&s, NULL);
    world_at(&s.w, 200, kill_now, &s);
    ends_killed(&s, 200, "before it was started");
    assert_int_equal(s.w.dials, 1);
    scene_end(&s);
}

static void killed_before_the_upgrade_was_answered_execute_is_not_sent(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = world_peer(&s.w);
    peer_request(p, "GET", WS);
    peer_delay(p, 300);
    peer_call(p, kill_now, &s);
    scene_start(&s, NULL);
    ends_killed(&s, 300, "before it was started");
    scene_end(&s);
}

/* ---- when it is sent ---- */

static void killed_before_started_the_kill_follows_execute(void **state)
{
    int started;
    (void)state;
    for (started = 0; started < 2; started++) {
        scene s;
        peer *p;
        world_init(&s.w);
        p = executing_peer(&s.w);
        peer_delay(p, 100);
        peer_call(p, kill_now, &s);
        peer_ws_expect(p, KILL);
        if (started)
            peer_ws_text(p, STARTED);
        peer_exits(p, EXIT("137"));
        scene_start(&s, NULL);
        ends_well(&s, 137, "");
        assert_int_equal(s.w.now - s.start, 100);
        scene_end(&s);
    }
}

static void a_killed_command_gives_what_output_and_exit_code_still_come(void **state)
{
    static const char *const codes[] = {"137", "-9", "0"};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(codes); i++) {
        scene s;
        peer *p;
        char text[64];
        world_init(&s.w);
        p = executing_peer(&s.w);
        peer_ws_text(p, STARTED);
        peer_ws_text(p, OUT("0", "one "));
        peer_ws_expect(p, KILL);
        peer_delay(p, 1000);
        peer_ws_text(p, OUT("4", "two "));
        peer_delay(p, 999);
        peer_ws_text(p, OUT("8", "three"));
        snprintf(text, sizeof(text), "{\"type\":\"exit\",\"exit_code\":%s}", codes[i]);
        peer_exits(p, text);
        scene_start(&s, NULL);
        assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
        sbx_command_kill(s.command);
        sbx_command_kill(s.command); /* once is enough */
        assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
        assert_memory_equal(s.chunk.data, "two ", s.chunk.len);
        sbx_command_kill(s.command);
        assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
        assert_memory_equal(s.chunk.data, "three", s.chunk.len);
        assert_int_equal(next(&s, SBX_NONE), SBX_END);
        sbx_command_kill(s.command); /* too late to matter */
        assert_int_equal(next(&s, SBX_NONE), SBX_END);
        ends_well(&s, atoi(codes[i]), "one two three");
        assert_int_equal(s.w.now - s.start, 1999);
        scene_end(&s);
    }
}

static void a_chunk_that_waits_is_given_before_the_kill(void **state)
{
    scene s;
    peer *p;
    sbx_op *op;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "first"));
    peer_ws_expect(p, KILL);
    peer_exits(p, EXIT("137"));
    scene_start(&s, NULL);
    op = sbx_command_op(s.command);
    assert_status(&s.w, SBX_OK, sbx_wait(&op, 1, SBX_NONE, &s.err), &s.err);
    sbx_command_kill(s.command);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    assert_memory_equal(s.chunk.data, "first", 5);
    assert_int_equal(next(&s, SBX_NONE), SBX_END);
    scene_end(&s);
}

static void an_error_instead_of_an_exit_is_the_outcome(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_call(p, kill_now, &s);
    peer_ws_expect(p, KILL);
    peer_exits(p, FAILURE("CommandError", "it was killed"));
    scene_start(&s, NULL);
    assert_status(&s.w, SBX_E_OPERATION, next(&s, SBX_NONE), &s.err);
    assert_string_equal(s.err.error_type, "CommandError");
    scene_end(&s);
}

static int kill_in_callback(void *user, int stream, const char *data, size_t len)
{
    (void)stream;
    (void)data;
    (void)len;
    sbx_command_kill(((scene *)user)->command);
    return 0;
}

static void a_callback_may_kill(void **state)
{
    sbx_run_options options = run_options();
    scene s;
    peer *p;
    (void)state;
    options.on_output = kill_in_callback;
    options.user = &s;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "a"));
    peer_ws_text(p, OUT("1", "b"));
    peer_ws_expect(p, KILL);
    peer_ws_text(p, OUT("2", "c"));
    peer_exits(p, EXIT("137"));
    scene_start(&s, &options);
    ends_well(&s, 137, "abc");
    scene_end(&s);
}

static void nobody_may_be_killed(void **state)
{
    (void)state;
    sbx_command_kill(NULL);
}

/* ---- what never takes more than two seconds ---- */

static void a_service_that_does_not_tell_the_end_is_left_after_two_seconds(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_delay(p, 5000);
    peer_call(p, kill_now, &s);
    peer_ws_expect(p, KILL);
    peer_ws_closed(p, 1000);
    scene_start(&s, NULL);
    ends_killed(&s, 7000, "did not tell its end within 2 s");
    scene_end(&s);
}

static void output_without_end_does_not_hold_up_the_two_seconds(void **state)
{
    scene s;
    peer *p;
    int i, chunks = 0;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_call(p, kill_now, &s);
    peer_ws_expect(p, KILL);
    for (i = 0; i < 30; i++) {
        peer_delay(p, 90);
        peer_ws_text(p, "{\"type\":\"stdout\",\"data\":\"y\"}");
    }
    p->optional = 1;
    scene_start(&s, NULL);
    while (next(&s, SBX_NONE) == SBX_OK)
        chunks++;
    assert_int_equal(chunks, 22);
    ends_killed(&s, 2000, "did not tell its end within 2 s");
    scene_end(&s);
}

static void a_peer_that_takes_nothing_is_left_after_two_seconds(void **state)
{
    scene s;
    peer *p;
    int64_t upgrade;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "x"));
    scene_start(&s, NULL);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    upgrade = p->taken;
    p->stuck_after = upgrade + 3; /* in the middle of the frame */
    sbx_command_kill(s.command);
    ends_killed(&s, 2000, "could not be told");
    assert_int_equal(p->taken, upgrade + 3);
    p->in.len = 0;
    scene_end(&s);
}

static void killed_while_reattaching_it_takes_two_seconds_at_most(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 3; how++) {
        scene s;
        peer *p;
        world_init(&s.w);
        p = executing_peer(&s.w);
        peer_ws_text(p, STARTED);
        peer_reset(p);
        p = world_peer(&s.w);
        if (how == 0) {
            p->connect_ms = WORLD_NEVER;
        } else if (how == 1) {
            peer_request(p, "GET", WS);
        } else {
            int i;
            p->refuse = SBX_E_CONNECT;
            for (i = 0; i < 7; i++) /* at 100 ms, and then every 250 ms: none of them is counted */
                world_peer(&s.w)->refuse = SBX_E_CONNECT;
        }
        scene_start(&s, NULL);
        world_at(&s.w, how == 2 ? 100 : 600, kill_now, &s);
        ends_killed(&s, how == 2 ? 2100 : 2600, "it may still be running");
        scene_end(&s);
    }
}

/* ---- lost connections ---- */

static void lost_after_the_kill_has_left_it_is_not_repaired(void **state)
{
    static const int codes[] = {-1, -2, 1000, 1001, 1011};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(codes); i++) {
        scene s;
        peer *p;
        world_init(&s.w);
        p = executing_peer(&s.w);
        peer_ws_text(p, STARTED);
        peer_delay(p, 50);
        peer_call(p, kill_now, &s);
        peer_ws_expect(p, KILL);
        peer_delay(p, 1200);
        if (codes[i] == -1)
            peer_reset(p);
        else if (codes[i] > 0)
            peer_ws_close(p, codes[i]);
        if (codes[i] != -1)
            peer_close(p);
        scene_start(&s, NULL);
        ends_killed(&s, 1250, "before its exit code came");
        assert_int_equal(s.w.dials, 1);
        scene_end(&s);
    }
}

static void lost_before_the_kill_has_left_it_is_sent_by_the_next_connection(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "ab"));
    peer_delay(p, 50);
    peer_call(p, kill_now, &s);
    peer_reset(p);
    p = reattached_peer(&s.w, "2", "0");
    peer_ws_expect(p, KILL);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("2", "c"));
    peer_exits(p, EXIT("137"));
    scene_start(&s, NULL);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    s.w.peers[0]->take_at_most = s.w.peers[0]->taken + 5; /* not all of the frame */
    ends_well(&s, 137, "abc");
    assert_between(s.w.now - s.start, 50, 550);
    scene_end(&s);
}

static void killed_in_a_pause_it_reattaches_at_once(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_reset(p);
    p = reattached_peer(&s.w, "0", "0");
    peer_ws_expect(p, KILL);
    peer_exits(p, EXIT("137"));
    scene_start(&s, NULL);
    world_at(&s.w, 100, kill_now, &s);
    ends_well(&s, 137, "");
    assert_int_equal(p->dialled_at - s.start, 100);
    scene_end(&s);
}

static void killed_while_reattaching_it_is_sent_behind_reconnect(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_reset(p);
    p = reattached_peer(&s.w, "0", "0");
    p->connect_ms = 300;
    peer_ws_expect(p, KILL);
    peer_delay(p, 1700);
    peer_exits(p, EXIT("137"));
    scene_start(&s, NULL);
    world_at(&s.w, 600, kill_now, &s);
    ends_well(&s, 137, "");
    assert_int_equal(s.w.now - s.start, 2500);
    scene_end(&s);
}

static void lost_before_started_the_kill_follows_the_next_execute(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_reset(p);
    p = executing_peer(&s.w);
    peer_ws_expect(p, KILL);
    peer_exits(p, EXIT("137"));
    scene_start(&s, NULL);
    world_at(&s.w, 100, kill_now, &s);
    ends_well(&s, 137, "");
    assert_int_equal(s.w.now - s.start, 100);
    scene_end(&s);
}

static void a_handle_that_attached_kills_from_its_first_step_on(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = world_peer(&s.w);
    peer_upgrade(p, WS);
    peer_ws_expect(p, "{\"type\":\"reconnect\",\"command_id\":\"c-7\",\"stdout_offset\":0,"
                      "\"stderr_offset\":0}");
    peer_ws_expect(p, KILL);
    peer_exits(p, EXIT("137"));
    s.sandbox = begin(&s.w);
    s.start = s.w.now;
    assert_status(&s.w, SBX_OK, sbx_command_attach(s.sandbox, "c-7", NULL, &s.command, &s.err),
                  &s.err);
    sbx_command_kill(s.command);
    ends_well(&s, 137, "");
    scene_end(&s);
}

/* Whoever kills a command wants it dead more than its input whole. */
static void input_in_doubt_does_not_keep_the_kill_from_being_sent(void **state)
{
    sbx_run_options options = run_options();
    scene s;
    peer *p;
    (void)state;
    options.input = 1;
    world_init(&s.w);
    p = world_peer(&s.w);
    p->mute = 1;
    peer_upgrade(p, WS);
    peer_ws_expect(p, EXECUTE_INPUT);
    peer_ws_text(p, STARTED);
    peer_ws_expect(p, "{\"type\":\"input\",\"data\":\"yes\\n\"}");
    peer_delay(p, 50);
    peer_call(p, kill_now, &s);
    peer_reset(p);
    p = reattached_peer(&s.w, "0", "0");
    peer_ws_expect(p, KILL);
    peer_exits(p, EXIT("137"));
    scene_start(&s, &options);
    assert_status(&s.w, SBX_OK, sbx_command_input(s.command, "yes\n", 4, &s.err), &s.err);
    assert_int_equal(next(&s, 10), SBX_AGAIN);
    s.w.peers[0]->take_at_most = s.w.peers[0]->taken;
    assert_status(&s.w, SBX_OK, sbx_command_result(s.command, &s.result, &s.err), &s.err);
    assert_int_equal(s.result->exit_code, 137);
    assert_int_equal(s.result->input_lost, 4);
    sbx_free(s.result);
    scene_end(&s);
}

static void make_deaf(world *w, void *user)
{
    (void)w;
    ((peer *)user)->deaf = 1;
}

/* The service reads nothing more, since the command does not read its input: the kill that waits
   behind it there goes by a connection of its own. */
static void input_that_waits_does_not_hold_up_the_kill(void **state)
{
    int whole;
    (void)state;
    for (whole = 0; whole < 2; whole++) {
        sbx_run_options options = run_options();
        scene s;
        peer *p;
        options.input = 1;
        world_init(&s.w);
        p = world_peer(&s.w);
        peer_upgrade(p, WS);
        peer_ws_expect(p, EXECUTE_INPUT);
        peer_call(p, make_deaf, p);
        peer_ws_text(p, STARTED);
        peer_delay(p, 300);
        peer_call(p, kill_now, &s);
        p->optional = 1;
        p = reattached_peer(&s.w, "0", "0");
        peer_ws_expect(p, KILL);
        peer_exits(p, EXIT("137"));
        scene_start(&s, &options);
        assert_status(&s.w, SBX_OK, sbx_command_input(s.command, "yes\n", 4, &s.err), &s.err);
        assert_int_equal(next(&s, 0), SBX_AGAIN);
        p = s.w.peers[0];
        if (!whole) /* the kill cannot even leave */
            p->stuck_after = p->taken + 100;
        assert_status(&s.w, SBX_OK, sbx_command_result(s.command, &s.result, &s.err), &s.err);
        assert_int_equal(s.result->exit_code, 137);
        assert_int_equal(s.w.now - s.start, 800);
        sbx_free(s.result);
        p->in.len = 0;
        scene_end(&s);
    }
}

/* Reads, and has the peer take bytes again as soon as there is something to read. */
static sbx_status (*plain_read)(sbx_stream *stream, void *buf, size_t cap, size_t *n);
static sbx_status read_and_open_up(sbx_stream *stream, void *buf, size_t cap, size_t *n)
{
    sbx_status st = plain_read(stream, buf, cap, n);
    if (st == SBX_OK)
        ((world_stream *)stream)->p->stuck_after = -1;
    return st;
}

/* Who has sent a close frame reads no further messages: neither a kill nor input counts as sent
   that could leave only behind it. */
static void what_is_left_behind_the_close_of_the_peer_was_not_sent(void **state)
{
    int input;
    (void)state;
    for (input = 0; input < 2; input++) {
        sbx_run_options options = run_options();
        sbx_stream_methods methods;
        sbx_stream *stream;
        scene s;
        peer *p;
        options.input = 1;
        world_init(&s.w);
        p = world_peer(&s.w);
        peer_upgrade(p, WS);
        peer_ws_expect(p, EXECUTE_INPUT);
        peer_ws_text(p, STARTED);
        peer_delay(p, 300);
        peer_ws_close(p, 1001);
        p->optional = 1;
        p = reattached_peer(&s.w, "0", "0");
        peer_ws_expect(p, input ? "{\"type\":\"input\",\"data\":\"yes\\n\"}" : KILL);
        peer_exits(p, EXIT("137"));
        scene_start(&s, &options);
        assert_int_equal(next(&s, 100), SBX_AGAIN);
        p = s.w.peers[0];
        p->stuck_after = p->taken;
        stream = s.command->exchange.connection->stream;
        methods = *stream->methods;
        plain_read = methods.read;
        methods.read = read_and_open_up;
        stream->methods = &methods;
        if (input)
            assert_status(&s.w, SBX_OK, sbx_command_input(s.command, "yes\n", 4, &s.err), &s.err);
        else
            sbx_command_kill(s.command);
        ends_well(&s, 137, "");
        p->in.len = 0;
        scene_end(&s);
    }
}

/* ---- letting go ---- */

static void a_kill_that_was_not_sent_yet_is_sent_by_free(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_ws_text(p, OUT("0", "x"));
    peer_ws_expect(p, KILL);
    peer_ws_closed(p, 1000);
    peer_end(p);
    scene_start(&s, NULL);
    assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
    sbx_command_kill(s.command);
    scene_end(&s);
}

static void a_kill_that_was_sent_is_not_repeated_by_free(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_ws_expect(p, KILL);
    peer_ws_closed(p, 1000);
    scene_start(&s, NULL);
    assert_int_equal(next(&s, 10), SBX_AGAIN);
    sbx_command_kill(s.command);
    assert_int_equal(next(&s, 10), SBX_AGAIN);
    scene_end(&s);
}

static void free_kills_without_a_connection_too(void **state)
{
    scene s;
    (void)state;
    world_init(&s.w);
    scene_start(&s, NULL);
    sbx_command_kill(s.command); /* not one step was made */
    scene_end(&s);
    world_init(&s.w);
    world_peer(&s.w)->connect_ms = WORLD_NEVER;
    scene_start(&s, NULL);
    assert_int_equal(next(&s, 10), SBX_AGAIN);
    sbx_command_kill(s.command);
    scene_end(&s);
}

/* How a handle can fail with the connection gone or still there. */
static void handles_that_failed_may_be_killed_and_freed(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 6; how++) {
        sbx_run_options options = run_options();
        scene s;
        peer *p;
        world_init(&s.w);
        options.input = 1;
        options.call.timeout_ms = 3000;
        p = world_peer(&s.w);
        p->optional = 1;
        p->mute = 1;
        peer_upgrade(p, WS);
        peer_ws_expect(p, EXECUTE_INPUT);
        peer_ws_text(p, STARTED);
        peer_delay(p, 100);
        if (how == 0) /* input in doubt */
            peer_ws_expect(p, "{\"type\":\"input\",\"data\":\"yes\\n\"}");
        if (how == 1)
            peer_ws_text(p, "no JSON");
        if (how == 2)
            peer_ws_text(p, FAILURE("CommandError", "no such shell"));
        if (how == 3) { /* killed before */
            peer_call(p, kill_now, &s);
            peer_ws_expect(p, KILL);
        }
        if (how < 4)
            peer_reset(p);
        scene_start(&s, &options);
        if (how == 0)
            assert_status(&s.w, SBX_OK, sbx_command_input(s.command, "yes\n", 4, &s.err), &s.err);
        if (how == 5)
            sbx_op_cancel(sbx_command_op(s.command));
        assert_true(next(&s, SBX_NONE) < 0);
        sbx_command_kill(s.command);
        assert_true(next(&s, SBX_NONE) < 0);
        if (how == 4)
            peer_ws_expect(p, KILL); /* the connection is still there */
        p->optional = how != 4;
        scene_end(&s);
    }
}

/* ---- and after all ---- */

static void reconnecting_takes_a_kill_back(void **state)
{
    int sent;
    (void)state;
    for (sent = 0; sent < 2; sent++) {
        scene s;
        peer *p;
        world_init(&s.w);
        p = executing_peer(&s.w);
        peer_ws_text(p, STARTED);
        peer_ws_text(p, OUT("0", "a"));
        if (sent)
            peer_ws_expect(p, KILL);
        peer_ws_closed(p, 1000);
        p = reattached_peer(&s.w, "1", "0");
        peer_ws_text(p, STARTED);
        peer_delay(p, 10000);
        peer_ws_text(p, OUT("1", "b"));
        peer_exits(p, EXIT("0"));
        scene_start(&s, NULL);
        assert_status(&s.w, SBX_OK, next(&s, SBX_NONE), &s.err);
        sbx_command_kill(s.command);
        if (sent)
            ends_killed(&s, 2000, "did not tell its end");
        assert_status(&s.w, SBX_OK, sbx_command_reconnect(s.command, &s.err), &s.err);
        ends_well(&s, 0, "ab");
        assert_int_equal(s.w.now - s.start, 10000 + 2000 * sent);
        scene_end(&s);
    }
}

static void an_error_after_a_kill_that_was_taken_back_does_not_speak_of_it(void **state)
{
    sbx_run_options options = run_options();
    scene s;
    peer *p;
    (void)state;
    options.call.timeout_ms = 5000;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_ws_expect(p, KILL);
    p = reattached_peer(&s.w, "0", "0");
    peer_ws_text(p, STARTED);
    scene_start(&s, &options);
    assert_int_equal(next(&s, 10), SBX_AGAIN);
    sbx_command_kill(s.command);
    assert_int_equal(next(&s, 10), SBX_AGAIN);
    assert_status(&s.w, SBX_OK, sbx_command_reconnect(s.command, &s.err), &s.err);
    assert_status(&s.w, SBX_E_TIMEOUT, next(&s, SBX_NONE), &s.err);
    assert_null(strstr(s.err.message, "kill"));
    assert_string_not_equal(s.err.operation, "kill");
    scene_end(&s);
}

static void killed_again_after_reconnecting_it_is_sent_again(void **state)
{
    scene s;
    peer *p;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_ws_expect(p, KILL);
    p = reattached_peer(&s.w, "0", "0");
    peer_ws_expect(p, KILL);
    peer_exits(p, EXIT("137"));
    scene_start(&s, NULL);
    assert_int_equal(next(&s, 10), SBX_AGAIN);
    sbx_command_kill(s.command);
    assert_status(&s.w, SBX_E_CANCELLED, next(&s, SBX_NONE), &s.err);
    assert_status(&s.w, SBX_OK, sbx_command_reconnect(s.command, &s.err), &s.err);
    sbx_command_kill(s.command);
    ends_well(&s, 137, "");
    scene_end(&s);
}

static void the_loop_of_the_program_is_told_at_once(void **state)
{
    scene s;
    peer *p;
    sbx_item items[SBX_ITEMS];
    int64_t timeout;
    (void)state;
    world_init(&s.w);
    p = executing_peer(&s.w);
    peer_ws_text(p, STARTED);
    peer_ws_expect(p, KILL);
    scene_start(&s, NULL);
    assert_int_equal(next(&s, 10), SBX_AGAIN);
    sbx_command_kill(s.command);
    sbx_op_wants(sbx_command_op(s.command), items, SBX_ITEMS, &timeout);
    assert_int_equal(timeout, 0);
    assert_int_equal(sbx_op_step(sbx_command_op(s.command), &s.err), SBX_AGAIN);
    sbx_op_wants(sbx_command_op(s.command), items, SBX_ITEMS, &timeout);
    assert_int_equal(timeout, 2000);
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_before_the_first_step_nothing_is_sent),
        cmocka_unit_test(killed_while_connecting_nothing_is_sent),
        cmocka_unit_test(killed_in_a_pause_before_execute_nothing_is_sent),
        cmocka_unit_test(killed_before_the_upgrade_was_answered_execute_is_not_sent),
        cmocka_unit_test(killed_before_started_the_kill_follows_execute),
        cmocka_unit_test(a_killed_command_gives_what_output_and_exit_code_still_come),
        cmocka_unit_test(a_chunk_that_waits_is_given_before_the_kill),
        cmocka_unit_test(an_error_instead_of_an_exit_is_the_outcome),
        cmocka_unit_test(a_callback_may_kill),
        cmocka_unit_test(nobody_may_be_killed),
        cmocka_unit_test(a_service_that_does_not_tell_the_end_is_left_after_two_seconds),
        cmocka_unit_test(output_without_end_does_not_hold_up_the_two_seconds),
        cmocka_unit_test(a_peer_that_takes_nothing_is_left_after_two_seconds),
        cmocka_unit_test(killed_while_reattaching_it_takes_two_seconds_at_most),
        cmocka_unit_test(lost_after_the_kill_has_left_it_is_not_repaired),
        cmocka_unit_test(lost_before_the_kill_has_left_it_is_sent_by_the_next_connection),
        cmocka_unit_test(killed_in_a_pause_it_reattaches_at_once),
        cmocka_unit_test(killed_while_reattaching_it_is_sent_behind_reconnect),
        cmocka_unit_test(lost_before_started_the_kill_follows_the_next_execute),
        cmocka_unit_test(a_handle_that_attached_kills_from_its_first_step_on),
        cmocka_unit_test(input_in_doubt_does_not_keep_the_kill_from_being_sent),
        cmocka_unit_test(input_that_waits_does_not_hold_up_the_kill),
        cmocka_unit_test(what_is_left_behind_the_close_of_the_peer_was_not_sent),
        cmocka_unit_test(a_kill_that_was_not_sent_yet_is_sent_by_free),
        cmocka_unit_test(a_kill_that_was_sent_is_not_repeated_by_free),
        cmocka_unit_test(free_kills_without_a_connection_too),
        cmocka_unit_test(handles_that_failed_may_be_killed_and_freed),
        cmocka_unit_test(reconnecting_takes_a_kill_back),
        cmocka_unit_test(an_error_after_a_kill_that_was_taken_back_does_not_speak_of_it),
        cmocka_unit_test(killed_again_after_reconnecting_it_is_sent_again),
        cmocka_unit_test(the_loop_of_the_program_is_told_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
