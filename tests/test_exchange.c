/* HTTP as the library's calls do it: connections that are kept and lost, repetitions, time limits,
   cancelling, and servers that answer badly. Templates stand for all calls of the control plane. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "world.h"

#define TEMPLATE "{\"name\":\"t\",\"image\":\"python:3.12-slim\",\"id\":\"77\"}"
#define PATH "/v2/sandboxes/templates/t"
#define COLLECTION "/v2/sandboxes/templates"
#define OK_REPLY                                                                                   \
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 49\r\n\r\n" TEMPLATE

static sbx_status get_with(world *w, const sbx_call *call, sbx_error *err)
{
    sbx_template *got = NULL;
    sbx_status st = sbx_template_get(w->client, "t", call, &got, err);
    check_error(w, st, err);
    if (st == SBX_OK) {
        assert_string_equal(got->name, "t");
        assert_string_equal(got->image, "python:3.12-slim");
        assert_string_equal(got->id, "77");
    } else {
        assert_null(got);
    }
    sbx_free(got);
    return st;
}

static sbx_status get(world *w, sbx_error *err)
{
    return get_with(w, NULL, err);
}

static sbx_status create(world *w, sbx_error *err)
{
    sbx_template_options options;
    sbx_template *got = NULL;
    sbx_status st;
    memset(&options, 0, sizeof(options));
    options.name = "t";
    options.image = "python:3.12-slim";
    st = sbx_template_create(w->client, &options, &got, err);
    check_error(w, st, err);
    assert_int_equal(got != NULL, st == SBX_OK);
    sbx_free(got);
    return st;
}

static sbx_status update(world *w, sbx_error *err)
{
    sbx_template_update_options options;
    sbx_template *got = NULL;
    sbx_status st;
    memset(&options, 0, sizeof(options));
    options.new_name = "new";
    st = sbx_template_update(w->client, "t", &options, &got, err);
    check_error(w, st, err);
    assert_int_equal(got != NULL, st == SBX_OK);
    sbx_free(got);
    return st;
}

/* The calls that may not be repeated without care, and one that may. */
static const struct {
    const char *method, *path;
    sbx_status (*make)(world *w, sbx_error *err);
} ways[] = {{"POST", COLLECTION, create}, {"PATCH", PATH, update}, {"GET", PATH, get}};
enum { CHANGES = 2, WAYS = 3 };

/* A peer that answers n requests for the template. */
static peer *good_peer(world *w, int n)
{
    peer *p = world_peer(w);
    while (n--) {
        peer_request(p, "GET", PATH);
        peer_puts(p, OK_REPLY);
    }
    return p;
}

/* A peer that answers one request with these bytes and, if closes, ends the connection. */
static peer *raw_peer(world *w, const char *reply, int closes)
{
    peer *p = world_peer(w);
    peer_request(p, "GET", PATH);
    peer_puts(p, reply);
    if (closes)
        peer_close(p);
    return p;
}

/* Answers to the requests of a world in turn, on whichever connections they come. */
typedef struct sequence {
    const char *replies[8];
    int count, at;
    int64_t delay, times[8];
} sequence;

static void sequence_serve(peer *p, void *user)
{
    sequence *s = (sequence *)user;
    if (s->at == s->count)
        world_fail(p->w, "request number %d, more than expected", s->at + 1);
    s->times[s->at] = p->w->now;
    peer_take_request(p);
    if (s->delay)
        peer_delay(p, s->delay);
    peer_puts(p, s->replies[s->at++]);
}

/* n times this reply, then a good one if ends_well. */
static void sequence_init(sequence *s, world *w, const char *reply, int n, int ends_well)
{
    memset(s, 0, sizeof(*s));
    while (s->count < n)
        s->replies[s->count++] = reply;
    if (ends_well)
        s->replies[s->count++] = OK_REPLY;
    w->serve = sequence_serve;
    w->serve_user = s;
}

static void sequence_done(sequence *s, world *w)
{
    if (s->at != s->count)
        world_fail(w, "%d requests instead of %d", s->at, s->count);
    world_done(w);
}

/* Refuses every request. */
typedef struct refusals {
    int status, requests;
} refusals;

static void serve_refusals(peer *p, void *user)
{
    refusals *r = (refusals *)user;
    r->requests++;
    peer_take_request(p);
    peer_reply(p, r->status, "{}");
}

#define BUSY "Content-Length: 17\r\n\r\n{\"detail\":\"busy\"}"

/* ---- connections ---- */

static void one_connection_serves_many_calls(void **state)
{
    world w;
    sbx_error err;
    int i;
    (void)state;
    world_init(&w);
    good_peer(&w, 5);
    world_open(&w);
    for (i = 0; i < 5; i++)
        assert_status(&w, SBX_OK, get(&w, &err), &err);
    assert_int_equal(w.dials, 1);
    assert_int_equal(w.live, 1);
    world_done(&w);
}

static void a_kept_connection_that_the_server_closed_is_replaced(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 2; how++) {
        world w;
        sbx_error err;
        peer *p;
        int64_t start;
        world_init(&w);
        p = good_peer(&w, 1);
        if (how)
            peer_reset(p);
        else
            peer_close(p);
        good_peer(&w, 1);
        world_open(&w);
        assert_status(&w, SBX_OK, get(&w, &err), &err);
        start = w.now;
        assert_status(&w, SBX_OK, get(&w, &err), &err);
        assert_int_equal(w.dials, 2);
        assert_int_equal(w.now, start);
        world_done(&w);
    }
}

static void a_change_too_gets_a_fresh_connection_for_a_stale_one(void **state)
{
    int k;
    (void)state;
    for (k = 0; k < CHANGES; k++) {
        world w;
        sbx_error err;
        peer *p;
        int64_t start;
        world_init(&w);
        peer_close(good_peer(&w, 1));
        p = world_peer(&w);
        peer_request(p, ways[k].method, ways[k].path);
        peer_reply(p, 200, TEMPLATE);
        world_open(&w);
        assert_status(&w, SBX_OK, get(&w, &err), &err);
        start = w.now;
        assert_status(&w, SBX_OK, ways[k].make(&w, &err), &err);
        assert_int_equal(w.dials, 2);
        assert_int_equal(w.now, start);
        world_done(&w);
    }
}

static void a_fresh_connection_for_a_stale_one_is_made_once(void **state)
{
    int k;
    (void)state;
    for (k = 0; k < CHANGES; k++) {
        world w;
        sbx_error err;
        peer *p;
        world_init(&w);
        peer_close(good_peer(&w, 1));
        p = world_peer(&w);
        peer_request(p, ways[k].method, ways[k].path);
        peer_close(p);
        world_open(&w);
        assert_status(&w, SBX_OK, get(&w, &err), &err);
        assert_status(&w, SBX_E_CONNECTION, ways[k].make(&w, &err), &err);
        assert_int_equal(err.attempts, 1);
        assert_int_equal(w.dials, 2);
        assert_int_equal(w.slept, 0);
        world_done(&w);
    }
}

static void a_change_that_may_have_arrived_is_not_repeated(void **state)
{
    int how, k;
    (void)state;
    for (how = 0; how < 3; how++) {
        for (k = 0; k < CHANGES; k++) {
            world w;
            sbx_error err;
            peer *p;
            world_init(&w);
            p = world_peer(&w);
            peer_request(p, ways[k].method, ways[k].path);
            if (how == 2)
                peer_puts(p, "HTTP/1.1 201 Cre");
            if (how == 1)
                peer_reset(p);
            else
                peer_close(p);
            world_open(&w);
            assert_true(sbx_status_is(ways[k].make(&w, &err), SBX_E_CONNECTION));
            assert_int_equal(err.attempts, 1);
            assert_int_equal(w.dials, 1);
            assert_int_equal(w.slept, 0);
            world_done(&w);
        }
    }
}

static void a_change_that_arrived_on_a_kept_connection_is_not_repeated(void **state)
{
    int how, k;
    (void)state;
    for (how = 0; how < 2; how++) {
        for (k = 0; k < CHANGES; k++) {
            world w;
            sbx_error err;
            peer *p;
            world_init(&w);
            p = good_peer(&w, 1);
            peer_request(p, ways[k].method, ways[k].path);
            if (how)
                peer_reset(p);
            else
                peer_close(p);
            world_open(&w);
            assert_status(&w, SBX_OK, get(&w, &err), &err);
            assert_true(sbx_status_is(ways[k].make(&w, &err), SBX_E_CONNECTION));
            assert_int_equal(w.dials, 1);
            world_done(&w);
        }
    }
}

static void a_change_of_which_a_part_was_written_is_not_repeated(void **state)
{
    int k;
    (void)state;
    for (k = 0; k < CHANGES; k++) {
        world w;
        sbx_error err;
        world_init(&w);
        world_peer(&w)->take_at_most = 60;
        world_open(&w);
        w.peers[0]->optional = 1;
        assert_true(sbx_status_is(ways[k].make(&w, &err), SBX_E_CONNECTION));
        assert_int_equal(w.dials, 1);
        assert_int_equal(err.native_code, 104);
        world_done(&w);
    }
}

static void a_get_is_repeated_when_its_connection_breaks(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 3; how++) {
        world w;
        sbx_error err;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", PATH);
        if (how == 2)
            peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Length: 49\r\n\r\n{\"name");
        if (how == 1)
            peer_reset(p);
        else
            peer_close(p);
        good_peer(&w, 1);
        world_open(&w);
        assert_status(&w, SBX_OK, get(&w, &err), &err);
        assert_int_equal(w.dials, 2);
        world_done(&w);
    }
}

static void a_get_gives_up_after_three_repetitions(void **state)
{
    world w;
    sbx_error err;
    int i;
    (void)state;
    world_init(&w);
    for (i = 0; i < 4; i++) {
        peer *p = world_peer(&w);
        peer_request(p, "GET", PATH);
        peer_close(p);
    }
    world_open(&w);
    assert_true(sbx_status_is(get(&w, &err), SBX_E_CONNECTION));
    assert_int_equal(w.dials, 4);
    assert_int_equal(err.attempts, 4);
    world_done(&w);
}

static void connection_close_and_http_1_0_end_the_connection(void **state)
{
    static const char *const replies[] = {
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 49\r\n\r\n" TEMPLATE,
        "HTTP/1.1 200 OK\r\nconnection: foo, CLOSE\r\nContent-Length: 49\r\n\r\n" TEMPLATE,
        "HTTP/1.0 200 OK\r\nContent-Length: 49\r\n\r\n" TEMPLATE,
    };
    size_t i;
    (void)state;
    for (i = 0; i < 3; i++) {
        world w;
        sbx_error err;
        world_init(&w);
        peer_end(raw_peer(&w, replies[i], 0));
        good_peer(&w, 1);
        world_open(&w);
        assert_status(&w, SBX_OK, get(&w, &err), &err);
        assert_int_equal(w.live, 0);
        assert_status(&w, SBX_OK, get(&w, &err), &err);
        assert_int_equal(w.dials, 2);
        world_done(&w);
    }
}

static void good_replies_of_every_form_are_understood(void **state)
{
    static const char *const replies[] = {
        OK_REPLY,
        "HTTP/1.1 200\r\ncontent-length:49\r\n\r\n" TEMPLATE,
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" OK_REPLY,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        "14;ext=\"a;b\"\r\n{\"name\":\"t\",\"image\":\r\n20\r\n\"python:3.12-slim\",\"id\":\"77\"}"
        "  \n\r\n00\r\nX-Trailer: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 58\r\n\r\n \n\t" TEMPLATE " \r\n   ",
        "HTTP/1.1 200 OK\r\nX-Empty:\r\nX-Long:  a \t b  \r\nContent-Length: 49\r\n\r\n" TEMPLATE,
    };
    size_t i, piece;
    (void)state;
    for (i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        for (piece = 0; piece < 4; piece++) {
            world w;
            sbx_error err;
            peer *p;
            world_init(&w);
            p = raw_peer(&w, replies[i], 0);
            p->piece = piece;
            peer_request(p, "GET", PATH);
            peer_puts(p, OK_REPLY);
            world_open(&w);
            assert_status(&w, SBX_OK, get(&w, &err), &err);
            assert_status(&w, SBX_OK, get(&w, &err), &err);
            assert_int_equal(w.dials, 1);
            world_done(&w);
        }
    }
}

static void a_body_may_end_with_the_connection(void **state)
{
    world w;
    sbx_error err;
    (void)state;
    world_init(&w);
    raw_peer(&w, "HTTP/1.1 200 OK\r\n\r\n" TEMPLATE, 1);
    world_open(&w);
    assert_status(&w, SBX_OK, get(&w, &err), &err);
    assert_int_equal(w.live, 0);
    world_done(&w);
}

static void bytes_after_a_reply_never_answer_the_next_request(void **state)
{
    world w;
    sbx_error err;
    peer *p;
    (void)state;
    world_init(&w);
    p = raw_peer(&w, OK_REPLY "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"name\":\"x\"}", 0);
    p->optional = 1;
    good_peer(&w, 1);
    world_open(&w);
    assert_status(&w, SBX_OK, get(&w, &err), &err);
    assert_status(&w, SBX_OK, get(&w, &err), &err);
    world_done(&w);
}

static void every_kind_of_stream_will_do(void **state)
{
    int i;
    (void)state;
    for (i = 0; i < 64; i++) {
        world w;
        sbx_error err;
        peer *p;
        world_init(&w);
        if (i & 32)
            w.config.endpoint = "https://127.0.0.1:8080/v2/sandboxes";
        w.buffering = (i & 16) != 0;
        w.two_items = (i & 8) != 0;
        p = world_peer(&w);
        p->every_other = (i & 4) != 0;
        p->write_max = i & 2 ? 1 : 0;
        p->piece = i & 1 ? 1 : 0;
        p->connect_ms = i;
        peer_request(p, "POST", COLLECTION);
        peer_json(p, "{\"name\":\"t\",\"image\":\"python:3.12-slim\","
                     "\"resources\":{\"cpu\":\"500m\",\"memory\":\"512Mi\"}}");
        peer_delay(p, 20);
        peer_reply(p, 201, TEMPLATE);
        peer_request(p, "GET", PATH);
        peer_puts(p, OK_REPLY);
        world_open(&w);
        assert_status(&w, SBX_OK, create(&w, &err), &err);
        assert_status(&w, SBX_OK, get(&w, &err), &err);
        assert_int_equal(p->secured, (i & 32) != 0);
        world_done(&w);
    }
}

/* ---- repetitions ---- */

static void server_errors_are_repeated_with_growing_pauses(void **state)
{
    static const char *const replies[] = {"HTTP/1.1 502 x\r\n" BUSY, "HTTP/1.1 503 x\r\n" BUSY,
                                          "HTTP/1.1 504 x\r\n" BUSY};
    int k, seed;
    (void)state;
    for (k = 0; k < 6; k++) {
        for (seed = 1; seed < 6; seed++) {
            world w;
            sbx_error err;
            sequence s;
            int64_t start;
            world_init(&w);
            w.seed *= (uint64_t)seed;
            sequence_init(&s, &w, replies[k % 3], 4, 0);
            world_open(&w);
            start = w.now;
            assert_true(sbx_status_is(k < 3 ? get(&w, &err) : create(&w, &err), SBX_E_SERVICE));
            assert_int_equal(err.http_status, 502 + k % 3);
            assert_int_equal(err.attempts, 4);
            assert_says(&w, &err, "busy");
            assert_between(w.now - start, 1000 + 2000 + 4000, 2000 + 3000 + 5000);
            assert_between(w.longest_sleep, 4000, 5000);
            sequence_done(&s, &w);
        }
    }
}

static void pauses_double_and_stay_below_ten_seconds(void **state)
{
    world w;
    sbx_error err;
    sequence s;
    (void)state;
    world_init(&w);
    w.config.max_retries = 6;
    sequence_init(&s, &w, "HTTP/1.1 503 x\r\n" BUSY, 6, 1);
    world_open(&w);
    assert_status(&w, SBX_OK, get(&w, &err), &err);
    assert_between(s.times[1] - s.times[0], 1000, 2000);
    assert_between(s.times[2] - s.times[1], 2000, 3000);
    assert_between(s.times[3] - s.times[2], 4000, 5000);
    assert_between(s.times[4] - s.times[3], 8000, 9000);
    assert_int_equal(s.times[5] - s.times[4], 10000);
    assert_int_equal(s.times[6] - s.times[5], 10000);
    sequence_done(&s, &w);
}

static void pauses_are_not_always_the_same(void **state)
{
    int64_t seen[8];
    int i, same = 0;
    (void)state;
    for (i = 0; i < 8; i++) {
        world w;
        sbx_error err;
        sequence s;
        world_init(&w);
        w.seed *= (uint64_t)(2 * i + 1);
        sequence_init(&s, &w, "HTTP/1.1 503 x\r\n" BUSY, 1, 1);
        world_open(&w);
        assert_status(&w, SBX_OK, get(&w, &err), &err);
        seen[i] = w.slept;
        same += seen[i] == seen[0];
        sequence_done(&s, &w);
    }
    assert_true(same < 5);
}

/* Two answers of 429 with this Retry-After, then a good one; the pauses come out. */
static void retry_after(const char *value, int64_t pauses[2])
{
    char reply[200];
    world w;
    sbx_error err;
    sequence s;
    world_init(&w);
    /* So that the dates below lie 7 seconds ahead. */
    w.wall = INT64_C(784111770000) - w.now;
    snprintf(reply, sizeof(reply), "HTTP/1.1 429 x\r\n%s%s%s" BUSY, value ? "Retry-After: " : "",
             value ? value : "", value ? "\r\n" : "");
    sequence_init(&s, &w, reply, 2, 1);
    world_open(&w);
    assert_status(&w, SBX_OK, get(&w, &err), &err);
    pauses[0] = s.times[1] - s.times[0];
    pauses[1] = s.times[2] - s.times[1];
    sequence_done(&s, &w);
}

static void too_many_requests_wait_as_the_service_says(void **state)
{
    int64_t pauses[2];
    (void)state;
    retry_after(NULL, pauses);
    assert_between(pauses[0], 1000, 2000);
    assert_between(pauses[1], 2000, 3000);
    retry_after("5", pauses);
    assert_between(pauses[0], 5000, 6000);
    assert_between(pauses[1], 10000, 11000);
    retry_after("0", pauses);
    assert_between(pauses[0], 0, 1000);
    assert_between(pauses[1], 0, 1000);
    retry_after("soon", pauses);
    assert_between(pauses[0], 1000, 2000);
    retry_after("-5", pauses);
    assert_between(pauses[0], 0, 2000);
    /* 1994-11-06 08:49:37 UTC, in the three forms of RFC 9110. */
    retry_after("Sun, 06 Nov 1994 08:49:37 GMT", pauses);
    assert_between(pauses[0], 7000, 8000);
    assert_between(pauses[1], 0, 1000);
    retry_after("Sunday, 06-Nov-94 08:49:37 GMT", pauses);
    assert_between(pauses[0], 7000, 8000);
    retry_after("Sun Nov  6 08:49:37 1994", pauses);
    assert_between(pauses[0], 7000, 8000);
    retry_after("Sat, 05 Nov 1994 08:49:37 GMT", pauses);
    assert_between(pauses[0], 0, 1000);
    retry_after("Sun, 66 Foo 1994 08:49:37 GMT", pauses);
    assert_between(pauses[0], 0, 2000);
}

/* Randomness that is always the same two bytes: what they make of a pause's random second. */
static sbx_status entropy_of(void *state, void *buf, size_t len, unsigned char a, unsigned char b)
{
    unsigned char *out = (unsigned char *)buf;
    size_t i;
    (void)state;
    for (i = 0; i < len; i++)
        out[i] = i % 2 ? b : a;
    return SBX_OK;
}

static sbx_status least_entropy(void *state, void *buf, size_t len)
{
    return entropy_of(state, buf, len, 0, 0);
}

static sbx_status most_entropy(void *state, void *buf, size_t len)
{
    return entropy_of(state, buf, len, 1000 >> 8, 1000 & 255);
}

static sbx_status no_entropy(void *state, void *buf, size_t len)
{
    (void)state;
    (void)buf;
    (void)len;
    return SBX_E_ENTROPY;
}

static void pauses_are_what_the_protocol_says_and_a_random_second(void **state)
{
    static const struct {
        const char *reply;
        int64_t pauses[7]; /* in seconds, without the random one */
        int64_t limit;
    } cases[] = {
        {"HTTP/1.1 502 x\r\n" BUSY, {1, 2, 4, 8, 10, 10, 10}, 10000},
        {"HTTP/1.1 503 x\r\n" BUSY, {1, 2, 4, 8, 10, 10, 10}, 10000},
        {"HTTP/1.1 504 x\r\nRetry-After: 7\r\n" BUSY, {1, 2, 4, 8, 10, 10, 10}, 10000},
        {"HTTP/1.1 429 x\r\n" BUSY, {1, 2, 4, 8, 16, 32, 60}, 60000},
        {"HTTP/1.1 429 x\r\nRetry-After: 5\r\n" BUSY, {5, 10, 20, 40, 60, 60, 60}, 60000},
        {"HTTP/1.1 429 x\r\nRetry-After: 0\r\n" BUSY, {0, 0, 0, 0, 0, 0, 0}, 60000},
    };
    static sbx_status (*const entropies[])(void *, void *, size_t) = {least_entropy, most_entropy,
                                                                      no_entropy};
    size_t i;
    int e, k, way;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (e = 0; e < 3; e++) {
            for (way = 0; way < WAYS; way++) {
                world w;
                sbx_error err;
                sequence s;
                world_init(&w);
                w.transport.entropy = entropies[e];
                w.config.max_retries = 7;
                sequence_init(&s, &w, cases[i].reply, 7, 1);
                world_open(&w);
                assert_status(&w, SBX_OK, ways[way].make(&w, &err), &err);
                for (k = 0; k < 7; k++) {
                    int64_t ms = cases[i].pauses[k] * 1000 + (e == 1 ? 1000 : 0);
                    assert_int_equal(s.times[k + 1] - s.times[k],
                                     ms < cases[i].limit ? ms : cases[i].limit);
                }
                sequence_done(&s, &w);
            }
        }
    }
}

static void a_connection_that_is_refused_is_tried_again_with_the_same_pauses(void **state)
{
    int way, k;
    (void)state;
    for (way = 0; way < WAYS; way++) {
        world w;
        sbx_error err;
        peer *p;
        world_init(&w);
        w.transport.entropy = least_entropy;
        w.config.max_retries = 6;
        for (k = 0; k < 6; k++)
            world_peer(&w)->refuse = k % 2 ? SBX_E_RESOLVE : SBX_E_CONNECT;
        p = world_peer(&w);
        peer_request(p, ways[way].method, ways[way].path);
        peer_reply(p, 200, TEMPLATE);
        world_open(&w);
        assert_status(&w, SBX_OK, ways[way].make(&w, &err), &err);
        for (k = 0; k < 6; k++)
            assert_int_equal(w.peers[k + 1]->dialled_at - w.peers[k]->dialled_at,
                             k < 4 ? 1000 << k : 10000);
        world_done(&w);
    }
}

static void any_number_of_repetitions_can_be_had(void **state)
{
    static const int numbers[] = {50, 1000, INT_MAX};
    int i;
    (void)state;
    for (i = 0; i < 3; i++) {
        sbx_call call = {3600000, NULL, NULL};
        refusals r = {429 + 74 * (i % 2), 0};
        world w;
        sbx_error err;
        sbx_status st;
        world_init(&w);
        w.transport.entropy = least_entropy;
        w.config.max_retries = numbers[i];
        w.serve = serve_refusals;
        w.serve_user = &r;
        world_open(&w);
        st = get_with(&w, &call, &err);
        if (i == 0) {
            assert_int_equal(st, SBX_E_QUOTA);
            assert_int_equal(err.attempts, 51);
            assert_int_equal(w.slept, (1 + 2 + 4 + 8 + 16 + 32 + 44 * 60) * 1000);
        } else {
            assert_int_equal(st, SBX_E_TIMEOUT);
            assert_int_equal(w.slept, 3600000);
        }
        assert_int_equal(r.requests, err.attempts);
        world_done(&w);
    }
}

static void a_quota_error_remains_after_the_last_attempt(void **state)
{
    world w;
    sbx_error err;
    sequence s;
    (void)state;
    world_init(&w);
    sequence_init(&s, &w, "HTTP/1.1 429 x\r\n" BUSY, 4, 0);
    world_open(&w);
    assert_status(&w, SBX_E_QUOTA, get(&w, &err), &err);
    assert_int_equal(err.attempts, 4);
    assert_between(w.slept, 7000, 10000);
    sequence_done(&s, &w);
}

static void a_monstrous_retry_after_cannot_outlast_the_deadline(void **state)
{
    static const char *const values[] = {"86400", "9223372036854775807",
                                         "99999999999999999999999999",
                                         "Fri, 31 Dec 9999 23:59:59 GMT"};
    size_t i;
    (void)state;
    for (i = 0; i < 4; i++) {
        sbx_call call = {5000, NULL, NULL};
        char reply[200];
        world w;
        sbx_error err;
        sbx_status st;
        sequence s;
        int64_t start;
        world_init(&w);
        snprintf(reply, sizeof(reply), "HTTP/1.1 429 x\r\nRetry-After: %s\r\n" BUSY, values[i]);
        sequence_init(&s, &w, reply, 1, 0);
        world_open(&w);
        start = w.now;
        st = get_with(&w, &call, &err);
        assert_true(st == SBX_E_TIMEOUT || st == SBX_E_QUOTA);
        assert_between(w.now - start, 0, 5000);
        sequence_done(&s, &w);
    }
}

static void a_pause_for_too_many_requests_never_takes_more_than_a_minute(void **state)
{
    static const char *const values[] = {"40", "59", "60"};
    int64_t pauses[2];
    int i;
    (void)state;
    for (i = 0; i < 3; i++) {
        retry_after(values[i], pauses);
        assert_between(pauses[0], strtol(values[i], NULL, 10) * 1000, 60000);
        assert_between(pauses[1], strtol(values[i], NULL, 10) * 1000, 60000);
    }
}

static void other_errors_are_not_repeated(void **state)
{
    static const int statuses[] = {400, 401, 403, 404, 408, 409, 418, 422, 425, 500, 501, 505};
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        world w;
        sbx_error err;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", PATH);
        peer_reply(p, statuses[i], "{\"detail\":\"no\"}");
        world_open(&w);
        assert_true(sbx_status_is(get(&w, &err), SBX_E_SERVICE));
        assert_int_equal(err.http_status, statuses[i]);
        assert_int_equal(err.attempts, 1);
        assert_int_equal(w.slept, 0);
        world_done(&w);
    }
}

static void statuses_without_a_meaning_here_are_errors(void **state)
{
    static const int statuses[] = {101, 301, 302, 304, 307, 308};
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        char head[200];
        world w;
        sbx_error err;
        world_init(&w);
        snprintf(head, sizeof(head),
                 "HTTP/1.1 %d x\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n",
                 statuses[i]);
        raw_peer(&w, head, 0);
        world_open(&w);
        assert_true(get(&w, &err) < 0);
        assert_int_equal(err.http_status, statuses[i]);
        assert_int_equal(w.dials, 1);
        world_done(&w);
    }
}

static void a_refused_connection_is_tried_four_times(void **state)
{
    int posts;
    (void)state;
    for (posts = 0; posts < 2; posts++) {
        world w;
        sbx_error err;
        int i;
        world_init(&w);
        for (i = 0; i < 4; i++)
            world_peer(&w)->refuse = SBX_E_CONNECT;
        world_open(&w);
        assert_int_equal(posts ? create(&w, &err) : get(&w, &err), SBX_E_CONNECT);
        assert_int_equal(err.attempts, 4);
        assert_int_equal(err.native_code, 111);
        assert_says(&w, &err, "4");
        assert_says(&w, &err, "127.0.0.1");
        assert_int_equal(w.dials, 4);
        assert_between(w.slept, 1, 30000);
        world_done(&w);
    }
}

static void a_creation_survives_two_refused_connections(void **state)
{
    world w;
    sbx_error err;
    peer *p;
    (void)state;
    world_init(&w);
    world_peer(&w)->refuse = SBX_E_CONNECT;
    world_peer(&w)->refuse_dial = SBX_E_CONNECT;
    p = world_peer(&w);
    peer_request(p, "POST", COLLECTION);
    peer_reply(p, 201, TEMPLATE);
    world_open(&w);
    assert_status(&w, SBX_OK, create(&w, &err), &err);
    assert_int_equal(w.dials, 3);
    world_done(&w);
}

static void max_retries_is_obeyed(void **state)
{
    static const int cases[][2] = {{SBX_NONE, 1}, {1, 2}, {2, 3}};
    size_t i;
    int k;
    (void)state;
    for (i = 0; i < 3; i++) {
        world w;
        sbx_error err;
        sequence s;
        world_init(&w);
        w.config.max_retries = cases[i][0];
        sequence_init(&s, &w, "HTTP/1.1 503 x\r\n" BUSY, cases[i][1], 0);
        world_open(&w);
        assert_true(sbx_status_is(get(&w, &err), SBX_E_SERVICE));
        assert_int_equal(err.attempts, cases[i][1]);
        sequence_done(&s, &w);

        world_init(&w);
        w.config.max_retries = cases[i][0];
        for (k = 0; k < cases[i][1]; k++)
            world_peer(&w)->refuse = SBX_E_CONNECT;
        world_open(&w);
        assert_status(&w, SBX_E_CONNECT, get(&w, &err), &err);
        world_done(&w);
    }
}

static void an_unknown_host_says_so(void **state)
{
    world w;
    sbx_error err;
    int i;
    (void)state;
    world_init(&w);
    w.config.endpoint = "http://no-such-host.example/v2";
    for (i = 0; i < 4; i++) {
        peer *p = world_peer(&w);
        p->refuse = SBX_E_RESOLVE;
        p->optional = 1;
    }
    world_open(&w);
    assert_status(&w, SBX_E_RESOLVE, get(&w, &err), &err);
    assert_says(&w, &err, "no-such-host.example");
    world_done(&w);
}

static void a_certificate_that_fails_is_not_tried_again(void **state)
{
    world w;
    sbx_error err;
    (void)state;
    world_init(&w);
    w.config.endpoint = "https://127.0.0.1:8080/v2/sandboxes";
    world_peer(&w)->tls_refuse = SBX_E_TLS;
    world_open(&w);
    assert_status(&w, SBX_E_TLS, get(&w, &err), &err);
    assert_int_equal(err.native_code, 54);
    assert_says(&w, &err, "expired");
    assert_int_equal(w.to_peers, 0);
    world_done(&w);
}

/* ---- time limits and cancelling ---- */

static void a_silent_server_costs_ten_seconds(void **state)
{
    int posts;
    (void)state;
    for (posts = 0; posts < 2; posts++) {
        world w;
        sbx_error err;
        sbx_status st;
        int64_t start;
        world_init(&w);
        peer_request(world_peer(&w), posts ? "POST" : "GET", posts ? COLLECTION : PATH);
        world_open(&w);
        start = w.now;
        st = posts ? create(&w, &err) : get(&w, &err);
        assert_true(st == SBX_E_TIMEOUT || sbx_status_is(st, SBX_E_CONNECTION));
        assert_int_equal(w.now - start, 10000);
        assert_int_equal(w.dials, 1);
        world_done(&w);
    }
}

static void a_trickle_does_not_stretch_the_time_limit(void **state)
{
    world w;
    sbx_error err;
    peer *p;
    int64_t start;
    int i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    p->optional = 1;
    peer_request(p, "GET", PATH);
    peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    for (i = 0; i < 100; i++) {
        peer_delay(p, 900);
        peer_puts(p, " ");
    }
    world_open(&w);
    start = w.now;
    assert_true(get(&w, &err) < 0);
    assert_int_equal(w.now - start, 10000);
    world_done(&w);
}

static void the_time_limit_of_a_request_can_be_set(void **state)
{
    world w;
    sbx_error err;
    int64_t start;
    sbx_call call = {60000, NULL, NULL};
    (void)state;
    world_init(&w);
    w.config.timeout_ms = 2500;
    peer_request(world_peer(&w), "GET", PATH);
    world_open(&w);
    start = w.now;
    assert_true(get(&w, &err) < 0);
    assert_int_equal(w.now - start, 2500);
    world_done(&w);

    world_init(&w);
    w.config.timeout_ms = SBX_NONE;
    peer_request(world_peer(&w), "GET", PATH);
    world_open(&w);
    start = w.now;
    assert_status(&w, SBX_E_TIMEOUT, get_with(&w, &call, &err), &err);
    assert_int_equal(w.now - start, 60000);
    world_done(&w);
}

static void a_server_that_takes_nothing_is_given_up(void **state)
{
    world w;
    sbx_error err;
    peer *p;
    int64_t start;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    p->stuck_after = 10;
    p->optional = 1;
    world_open(&w);
    start = w.now;
    assert_true(create(&w, &err) < 0);
    assert_int_equal(w.now - start, 10000);
    world_done(&w);
}

static void connecting_has_a_time_limit_too(void **state)
{
    world w;
    sbx_error err;
    sbx_status st;
    int64_t start;
    (void)state;
    world_init(&w);
    w.config.max_retries = SBX_NONE;
    world_peer(&w)->connect_ms = WORLD_NEVER;
    world_open(&w);
    start = w.now;
    st = get(&w, &err);
    assert_true(st == SBX_E_TIMEOUT || sbx_status_is(st, SBX_E_CONNECTION));
    assert_int_equal(w.now - start, 10000);
    world_done(&w);
}

static void connecting_in_vain_is_tried_again(void **state)
{
    world w;
    sbx_error err;
    (void)state;
    world_init(&w);
    world_peer(&w)->connect_ms = WORLD_NEVER;
    good_peer(&w, 1);
    world_open(&w);
    assert_status(&w, SBX_OK, get(&w, &err), &err);
    assert_int_equal(w.dials, 2);
    world_done(&w);
}

static void the_deadline_of_a_call_ends_it_anywhere(void **state)
{
    int64_t ms;
    int how;
    (void)state;
    for (how = 0; how < 4; how++) {
        for (ms = 1; ms < 9000; ms += how == 3 ? 211 : 997) {
            sbx_call call = {0, NULL, NULL};
            world w;
            sbx_error err;
            sequence s;
            int64_t start;
            world_init(&w);
            call.timeout_ms = ms;
            /* Four answers of 503 take between 7 + 4 * 0.5 and 10 + 4 * 0.5 seconds. */
            sequence_init(&s, &w, "HTTP/1.1 503 x\r\n" BUSY, 4, 0);
            s.delay = 500;
            if (how < 3) {
                peer *p = world_peer(&w);
                p->optional = 1;
                if (how == 0)
                    p->connect_ms = WORLD_NEVER;
                else if (how == 1)
                    p->stuck_after = 10;
                else
                    peer_request(p, "GET", PATH);
            }
            world_open(&w);
            start = w.now;
            assert_status(&w, SBX_E_TIMEOUT, get_with(&w, &call, &err), &err);
            assert_int_equal(w.now - start, ms);
            world_done(&w);
        }
    }
}

/* What a clock may show at the start of a world, as the difference from its time of 5000. */
static const int64_t clocks[] = {-5000, -5001, -6000, -1000000, INT64_MIN, INT64_MAX - 1000000000};

static void a_clock_may_start_anywhere(void **state)
{
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(clocks) / sizeof(clocks[0]); i++) {
        sbx_call call = {4321, NULL, NULL};
        world w;
        sbx_error err;
        sequence s;
        int64_t start;
        world_init(&w);
        w.clock = clocks[i];
        good_peer(&w, 1)->connect_ms = 100;
        peer_close(w.peers[0]);
        sequence_init(&s, &w, "HTTP/1.1 503 x\r\n" BUSY, 3, 1);
        world_open(&w);
        start = w.now;
        assert_status(&w, SBX_OK, get(&w, &err), &err);
        assert_int_equal(w.now - start, 100);
        start = w.now;
        assert_status(&w, SBX_OK, get(&w, &err), &err);
        assert_between(w.now - start, 7000, 10000);
        assert_between(s.times[1] - s.times[0], 1000, 2000);
        assert_between(s.times[2] - s.times[1], 2000, 3000);
        assert_between(s.times[3] - s.times[2], 4000, 5000);
        /* The time limit of one request, and that of the call. */
        w.serve = NULL;
        peer_request(w.peers[w.dials - 1], "GET", PATH);
        start = w.now;
        assert_status(&w, SBX_E_TIMEOUT, get(&w, &err), &err);
        assert_int_equal(w.now - start, 10000);
        peer_request(world_peer(&w), "GET", PATH);
        start = w.now;
        assert_status(&w, SBX_E_TIMEOUT, get_with(&w, &call, &err), &err);
        assert_int_equal(w.now - start, 4321);
        sequence_done(&s, &w);
    }
}

static void set_clock_back(world *w, void *user)
{
    w->clock -= *(const int64_t *)user;
}

static void a_clock_that_jumps_backwards_does_not_stop_a_call(void **state)
{
    static const int64_t hour = 3600000;
    int how;
    (void)state;
    for (how = 0; how < 3; how++) {
        sbx_call call = {0, NULL, NULL};
        world w;
        sbx_error err;
        sequence s;
        int64_t start;
        world_init(&w);
        memset(&s, 0, sizeof(s));
        if (how == 2) {
            /* In the pause between two attempts. */
            sequence_init(&s, &w, "HTTP/1.1 503 x\r\n" BUSY, 1, 1);
        } else {
            peer_request(world_peer(&w), "GET", PATH);
            call.timeout_ms = how ? 8000 : 0;
        }
        world_open(&w);
        start = w.now;
        world_at(&w, how == 2 ? 500 : 5000, set_clock_back, (void *)(uintptr_t)&hour);
        assert_status(&w, how == 2 ? SBX_OK : SBX_E_TIMEOUT, get_with(&w, &call, &err), &err);
        /* At most the time before the jump is not counted. */
        if (how == 2)
            assert_between(w.now - start, 1000, 2500);
        else
            assert_between(w.now - start, how ? 8000 : 10000, how ? 13000 : 15000);
        sequence_done(&s, &w);
    }
}

static void a_deadline_that_is_wrong_is_refused(void **state)
{
    world w;
    sbx_error err;
    sbx_call call = {-2, NULL, NULL};
    (void)state;
    world_init(&w);
    world_open(&w);
    assert_status(&w, SBX_E_ARGUMENT, get_with(&w, &call, &err), &err);
    assert_says(&w, &err, "timeout_ms");
    world_done(&w);
}

static void set_cancel(world *w, void *user)
{
    sbx_cancel_set(w->client, (sbx_cancel *)user);
}

static void a_call_is_cancelled_wherever_it_is(void **state)
{
    int how, wakeup, when;
    (void)state;
    for (how = 0; how < 5; how++) {
        for (wakeup = 0; wakeup < 2; wakeup++) {
            for (when = 0; when < 3; when++) {
                sbx_cancel cancel = {0};
                sbx_call call = {0, NULL, NULL};
                world w;
                sbx_error err;
                peer *p;
                int64_t start;
                world_init(&w);
                if (!wakeup)
                    w.transport.wakeup = NULL;
                call.cancel = &cancel;
                p = world_peer(&w);
                p->optional = 1;
                if (how == 0)
                    p->connect_ms = WORLD_NEVER;
                if (how == 1)
                    p->stuck_after = 10;
                peer_request(p, "GET", PATH);
                if (how == 3)
                    peer_reply_with(p, 503, NULL, "");
                if (how == 4)
                    peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{");
                world_open(&w);
                start = w.now;
                world_at(&w, 1 + 333 * when, set_cancel, &cancel);
                assert_status(&w, SBX_E_CANCELLED, get_with(&w, &call, &err), &err);
                assert_between(w.now - start, 1 + 333 * when, 1 + 333 * when + (wakeup ? 0 : 250));
                if (!wakeup)
                    assert_true(w.longest_request <= 100);
                world_done(&w);
            }
        }
    }
}

static void a_cancel_that_is_set_stops_calls_before_they_begin(void **state)
{
    sbx_cancel cancel = {0};
    sbx_call call = {0, NULL, NULL};
    world w;
    sbx_error err;
    (void)state;
    world_init(&w);
    call.cancel = &cancel;
    good_peer(&w, 2);
    world_open(&w);
    assert_status(&w, SBX_OK, get_with(&w, &call, &err), &err);
    sbx_cancel_set(w.client, &cancel);
    assert_status(&w, SBX_E_CANCELLED, get_with(&w, &call, &err), &err);
    assert_status(&w, SBX_E_CANCELLED, get_with(&w, &call, &err), &err);
    cancel.set = 0;
    assert_status(&w, SBX_OK, get_with(&w, &call, &err), &err);
    world_done(&w);
}

static void the_wait_hook_can_end_a_call(void **state)
{
    world w;
    sbx_error err;
    (void)state;
    world_init(&w);
    peer_request(world_peer(&w), "GET", PATH);
    world_open(&w);
    w.fail_kinds = WORLD_WAIT;
    w.fail_call = 1;
    assert_status(&w, SBX_E_CANCELLED, get(&w, &err), &err);
    w.peers[0]->optional = 1;
    world_done(&w);
}

/* ---- operations ---- */

static void an_operation_runs_in_the_loop_of_the_program(void **state)
{
    world w;
    sbx_error err;
    sbx_template *got = NULL;
    sbx_op *op = NULL;
    sbx_item items[SBX_ITEMS];
    int64_t ms;
    sbx_status st;
    peer *p;
    int n, i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    p->connect_ms = 30;
    p->piece = 7;
    peer_request(p, "GET", PATH);
    peer_delay(p, 100);
    peer_puts(p, OK_REPLY);
    w.transport.wait = NULL;
    world_open(&w);
    assert_status(&w, SBX_OK, sbx_template_get_start(w.client, "t", NULL, &got, &op, &err), &err);
    while ((st = sbx_op_step(op, &err)) == SBX_AGAIN) {
        assert_null(got);
        for (i = 0; i < 3; i++)
            if ((st = sbx_op_step(op, &err)) != SBX_AGAIN)
                break;
        if (st != SBX_AGAIN)
            break;
        n = sbx_op_wants(op, items, SBX_ITEMS, &ms);
        assert_true(n >= 0 && n <= SBX_ITEMS);
        assert_true(ms >= 0 || ms == SBX_NONE);
        assert_int_equal(world_wait_hook(&w, items, n, ms), SBX_OK);
    }
    assert_int_equal(st, SBX_OK);
    assert_int_equal(sbx_op_step(op, &err), SBX_OK);
    assert_non_null(got);
    assert_string_equal(got->id, "77");
    sbx_op_free(op);
    sbx_free(got);
    assert_between(w.slept, 130, 130);
    world_done(&w);
}

static void without_a_wait_hook_blocking_calls_say_so(void **state)
{
    world w;
    sbx_error err;
    (void)state;
    world_init(&w);
    w.transport.wait = NULL;
    peer_request(world_peer(&w), "GET", PATH);
    w.peers[0]->optional = 1;
    world_open(&w);
    assert_status(&w, SBX_E_UNSUPPORTED, get(&w, &err), &err);
    world_done(&w);
}

static void waiting_for_an_operation_can_be_interrupted_and_resumed(void **state)
{
    world w;
    sbx_error err;
    sbx_template *got = NULL;
    sbx_op *op = NULL;
    peer *p;
    int64_t start;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "GET", PATH);
    peer_delay(p, 5000);
    peer_puts(p, OK_REPLY);
    world_open(&w);
    assert_status(&w, SBX_OK, sbx_template_get_start(w.client, "t", NULL, &got, &op, &err), &err);
    start = w.now;
    assert_int_equal(sbx_op_wait(op, 0, &err), SBX_AGAIN);
    assert_int_equal(w.now, start);
    assert_int_equal(sbx_op_wait(op, 1500, &err), SBX_AGAIN);
    assert_int_equal(w.now, start + 1500);
    assert_null(got);
    assert_status(&w, SBX_OK, sbx_op_wait(op, SBX_NONE, &err), &err);
    assert_int_equal(w.now, start + 5000);
    assert_non_null(got);
    sbx_op_free(op);
    sbx_free(got);
    world_done(&w);
}

static void a_failed_operation_says_the_same_for_ever(void **state)
{
    world w;
    sbx_error err, again;
    sbx_template *got = NULL;
    sbx_op *op = NULL;
    peer *p;
    int i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "GET", PATH);
    peer_reply(p, 404, "{\"detail\":{\"error\":\"NotFound\",\"message\":\"there is no t\"}}");
    world_open(&w);
    assert_status(&w, SBX_OK, sbx_template_get_start(w.client, "t", NULL, &got, &op, &err), &err);
    assert_status(&w, SBX_E_NOT_FOUND, sbx_op_wait(op, SBX_NONE, &err), &err);
    for (i = 0; i < 3; i++) {
        assert_status(&w, SBX_E_NOT_FOUND, sbx_op_step(op, &again), &again);
        assert_memory_equal(&again, &err, sizeof(err));
        assert_status(&w, SBX_E_NOT_FOUND, sbx_op_wait(op, 5, &again), &again);
        assert_memory_equal(&again, &err, sizeof(err));
    }
    assert_null(got);
    sbx_op_free(op);
    world_done(&w);
}

static void an_operation_can_be_cancelled(void **state)
{
    world w;
    sbx_error err;
    sbx_template *got = NULL;
    sbx_op *op = NULL;
    int waits;
    (void)state;
    for (waits = 0; waits < 2; waits++) {
        world_init(&w);
        peer_request(world_peer(&w), "GET", PATH);
        w.peers[0]->optional = 1;
        world_open(&w);
        assert_status(&w, SBX_OK, sbx_template_get_start(w.client, "t", NULL, &got, &op, &err),
                      &err);
        if (waits)
            assert_int_equal(sbx_op_wait(op, 100, &err), SBX_AGAIN);
        sbx_op_cancel(op);
        assert_status(&w, SBX_E_CANCELLED, sbx_op_step(op, &err), &err);
        assert_status(&w, SBX_E_CANCELLED, sbx_op_step(op, &err), &err);
        sbx_op_free(op);
        assert_int_equal(w.live, 0);
        world_done(&w);
    }
}

static void an_operation_can_be_freed_after_any_number_of_steps(void **state)
{
    int steps, done = 0;
    (void)state;
    for (steps = 0; !done && steps < 500; steps++) {
        world w;
        sbx_error err;
        sbx_template *got = NULL;
        sbx_op *op = NULL;
        sbx_item items[SBX_ITEMS];
        sbx_status st = SBX_AGAIN;
        int64_t ms;
        peer *p;
        int i, n;
        world_init(&w);
        w.config.endpoint = "https://127.0.0.1:8080/v2/sandboxes";
        p = world_peer(&w);
        p->piece = 10;
        p->write_max = 30;
        p->every_other = 1;
        p->optional = 1;
        peer_request(p, "GET", PATH);
        peer_puts(p, OK_REPLY);
        good_peer(&w, 1)->optional = 1;
        world_open(&w);
        assert_status(&w, SBX_OK, sbx_template_get_start(w.client, "t", NULL, &got, &op, &err),
                      &err);
        for (i = 0; i < steps && (st = sbx_op_step(op, &err)) == SBX_AGAIN; i++) {
            n = sbx_op_wants(op, items, SBX_ITEMS, &ms);
            assert_int_equal(world_wait_hook(&w, items, n, ms), SBX_OK);
        }
        done = st == SBX_OK;
        sbx_op_free(op);
        assert_int_equal(got != NULL, done);
        sbx_free(got);
        /* What was left in the middle is not used again. */
        if (!done)
            assert_int_equal(w.live, 0);
        world_done(&w);
    }
    assert_true(done);
}

static void several_operations_run_at_once(void **state)
{
    world w;
    sbx_error err;
    sbx_template *got[3] = {NULL, NULL, NULL};
    sbx_op *ops[3];
    int64_t start;
    int i, left = 3, rounds = 0;
    (void)state;
    world_init(&w);
    for (i = 0; i < 3; i++) {
        peer *p = world_peer(&w);
        peer_request(p, "GET", PATH);
        peer_delay(p, 1000 * (3 - i));
        peer_puts(p, OK_REPLY);
    }
    world_open(&w);
    start = w.now;
    for (i = 0; i < 3; i++)
        assert_status(&w, SBX_OK,
                      sbx_template_get_start(w.client, "t", NULL, &got[i], &ops[i], &err), &err);
    assert_int_equal(sbx_wait(ops, 3, 100, &err), SBX_AGAIN);
    assert_int_equal(w.now, start + 100);
    while (left && rounds++ < 10) {
        assert_status(&w, SBX_OK, sbx_wait(ops, left, SBX_NONE, &err), &err);
        for (i = 0; i < left; i++)
            if (sbx_op_step(ops[i], &err) != SBX_AGAIN) {
                sbx_op_free(ops[i]);
                ops[i--] = ops[--left];
            }
    }
    assert_int_equal(left, 0);
    assert_int_equal(w.now, start + 3000);
    assert_int_equal(w.dials, 3);
    for (i = 0; i < 3; i++) {
        assert_non_null(got[i]);
        sbx_free(got[i]);
    }
    world_done(&w);
}

/* One that is always done, or always has something, does not starve the others. */
static void a_wait_steps_all_operations(void **state)
{
    world w;
    sbx_error err;
    sbx_template *got[2] = {NULL, NULL};
    sbx_op *ops[2];
    peer *p;
    int i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    for (i = 0; i < 2; i++) {
        peer_request(p, "GET", PATH);
        peer_puts(p, OK_REPLY);
    }
    world_open(&w);
    for (i = 0; i < 2; i++)
        assert_status(&w, SBX_OK,
                      sbx_template_get_start(w.client, "t", NULL, &got[i], &ops[i], &err), &err);
    assert_status(&w, SBX_OK, sbx_op_wait(ops[0], SBX_NONE, &err), &err);
    for (i = 0; i < 10; i++) {
        assert_status(&w, SBX_OK, sbx_wait(ops, 2, SBX_NONE, &err), &err);
        assert_int_equal(err.status, SBX_OK);
    }
    for (i = 0; i < 2; i++) {
        assert_non_null(got[i]);
        sbx_free(got[i]);
        sbx_op_free(ops[i]);
    }
    world_done(&w);
}

static void waiting_for_operations_checks_its_arguments(void **state)
{
    world w;
    sbx_error err;
    sbx_template *got = NULL;
    sbx_op *op = NULL, *many[1025];
    int i;
    (void)state;
    world_init(&w);
    world_open(&w);
    assert_status(&w, SBX_OK, sbx_template_get_start(w.client, "t", NULL, &got, &op, &err), &err);
    for (i = 0; i < 1025; i++)
        many[i] = op;
    assert_status(&w, SBX_E_ARGUMENT, sbx_wait(many, 0, 0, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_wait(many, -1, 0, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_wait(many, 1025, 0, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_wait(NULL, 1, 0, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_op_wait(NULL, 0, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_op_step(NULL, &err), &err);
    assert_int_equal(w.dials, 0);
    sbx_op_free(op);
    world_done(&w);
}

/* ---- bad servers ---- */

/* One answer, without repetitions; the status must be of the family, in good time, and without
   much memory. */
static void bad_answer(const char *bytes, size_t len, int closes, sbx_status family, size_t piece)
{
    world w;
    sbx_error err;
    sbx_status st;
    peer *p;
    int64_t start;
    world_init(&w);
    w.config.max_retries = SBX_NONE;
    p = world_peer(&w);
    p->piece = piece;
    p->optional = 1;
    peer_request(p, "GET", PATH);
    peer_send(p, bytes, len);
    if (closes)
        peer_close(p);
    world_open(&w);
    start = w.now;
    st = get(&w, &err);
    if (!sbx_status_is(st, family) && !(st == SBX_E_TIMEOUT && !closes))
        world_fail(&w, "%s instead of %s for: %.200s", sbx_status_name(st), sbx_status_name(family),
                   bytes);
    assert_between(w.now - start, 0, 10000);
    assert_true(w.most_bytes < (1u << 20));
    world_done(&w);
}

static void bad_heads_are_protocol_errors(void **state)
{
    static const char *const bad[] = {
        "garbage\r\n\r\n",
        "\r\n\r\n\r\n\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 \r\n\r\n",
        "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 49\r\nContent-Length: 52\r\n\r\n" TEMPLATE,
        "HTTP/1.1 200 OK\r\nContent-Length: 49\r\nTransfer-Encoding: chunked\r\n\r\n" TEMPLATE,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}  \r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        "HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 49\r\n\r\n" TEMPLATE,
        "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 49\r\n\r\n" TEMPLATE,
    };
    size_t i, piece;
    (void)state;
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        for (piece = 0; piece < 3; piece++) {
            bad_answer(bad[i], strlen(bad[i]), 1, SBX_E_CONNECTION, piece);
            bad_answer(bad[i], strlen(bad[i]), 0, SBX_E_CONNECTION, piece);
        }
}

static void bad_json_is_a_protocol_error(void **state)
{
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "nonsense",
        "<html>It works!</html>",
        "null",
        "[]",
        "\"t\"",
        "5",
        "{\"name\":\"t\"",
        "{\"name\":\"t\",}",
        "{\"name\":\"t\"} {}",
        "{\"name\":\"\\ud800\"}",
        "{\"name\":\"\xff\"}",
        "{\"name\":5}",
        "{\"name\":{}}",
        "{\"name\":[\"t\"]}",
        "{\"name\":true}",
        "{\"image\":5}",
        "{\"resources\":[]}",
        "{\"resources\":{\"cpu\":1}}",
        "{\"resources\":\"cpu\"}",
        "{\"volume_mounts\":{}}",
        "{\"volume_mounts\":[1]}",
        "{\"volume_mounts\":[{\"volume_name\":1}]}",
        "\xef\xbb\xbf{\"name\":\"t\"}",
    };
    size_t i;
    char head[400];
    (void)state;
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int n = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s",
                         (int)strlen(bad[i]), bad[i]);
        bad_answer(head, (size_t)n, 0, SBX_E_PROTOCOL, 0);
        bad_answer(head, (size_t)n, 0, SBX_E_PROTOCOL, 1);
    }
}

static void deep_json_is_refused(void **state)
{
    wtext text = {NULL, 0, 0};
    int i;
    (void)state;
    wtext_puts(&text, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"x\":");
    for (i = 0; i < 100000; i++)
        wtext_puts(&text, "[");
    bad_answer(text.data, text.len, 1, SBX_E_TOO_BIG, 0);
    wtext_free(&text);
}

static void nothing_at_all_is_a_connection_error(void **state)
{
    (void)state;
    bad_answer("", 0, 1, SBX_E_CONNECTION, 0);
    bad_answer("", 0, 0, SBX_E_CONNECTION, 0);
}

static void a_huge_head_is_refused(void **state)
{
    wtext text = {NULL, 0, 0};
    int i;
    (void)state;
    wtext_puts(&text, "HTTP/1.1 200 OK\r\n");
    for (i = 0; i < 20000; i++)
        wtext_printf(&text, "X-Header-%d: some value that goes on for a while\r\n", i);
    bad_answer(text.data, text.len, 0, SBX_E_TOO_BIG, 0);
    bad_answer(text.data, text.len, 0, SBX_E_TOO_BIG, 1000);
    text.len = 0;
    wtext_puts(&text, "HTTP/1.1 200 OK\r\nX: ");
    for (i = 0; i < 200000; i++)
        wtext_puts(&text, "line ");
    bad_answer(text.data, text.len, 0, SBX_E_TOO_BIG, 0);
    wtext_free(&text);
}

static void a_body_beyond_the_limit_is_refused(void **state)
{
    static const char *const heads[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 5000000000000\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000\r\n",
    };
    size_t i;
    int k;
    (void)state;
    for (i = 0; i < 4; i++) {
        world w;
        sbx_error err;
        peer *p;
        world_init(&w);
        w.config.max_retries = SBX_NONE;
        w.config.max_body = 100000;
        p = world_peer(&w);
        peer_request(p, "GET", PATH);
        peer_puts(p, heads[i]);
        for (k = 0; k < 2000; k++)
            peer_puts(p, "                                                                      "
                         "                              ");
        p->optional = 1;
        world_open(&w);
        assert_status(&w, SBX_E_TOO_BIG, get(&w, &err), &err);
        assert_true(w.most_bytes < 600000);
        world_done(&w);
    }
}

static void memory_does_not_grow_with_announced_lengths(void **state)
{
    world w;
    sbx_error err;
    peer *p;
    (void)state;
    world_init(&w);
    w.config.max_retries = SBX_NONE;
    p = world_peer(&w);
    peer_request(p, "GET", PATH);
    peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Length: 16000000\r\n\r\n{\"name\":");
    peer_close(p);
    world_open(&w);
    assert_true(sbx_status_is(get(&w, &err), SBX_E_CONNECTION));
    assert_true(w.most_bytes < 300000);
    world_done(&w);
}

static void an_endless_error_body_still_gives_the_error(void **state)
{
    static const char *const heads[] = {
        "HTTP/1.1 500 Oops\r\n\r\n",
        "HTTP/1.1 500 Oops\r\nContent-Length: 9000000000\r\n\r\n",
        "HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n10000000\r\n",
    };
    size_t i;
    int k;
    (void)state;
    for (i = 0; i < 3; i++) {
        world w;
        sbx_error err;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        p->optional = 1;
        peer_request(p, "GET", PATH);
        peer_puts(p, heads[i]);
        for (k = 0; k < 4000; k++)
            peer_puts(p, "                                                                      "
                         "                              ");
        world_open(&w);
        assert_status(&w, SBX_E_API, get(&w, &err), &err);
        assert_int_equal(err.http_status, 500);
        assert_true(w.most_bytes < 400000);
        assert_int_equal(w.live, 0);
        world_done(&w);
    }
}

static void an_error_body_beyond_max_body_still_gives_the_error(void **state)
{
    static const char *const forms[] = {"Content-Length: %lu\r\n\r\n%s",
                                        "Transfer-Encoding: chunked\r\n\r\n%lx\r\n%s\r\n0\r\n\r\n",
                                        "Transfer-Encoding: chunked\r\n\r\n%lx\r\n%s"};
    wtext body = {NULL, 0, 0};
    int how;
    (void)state;
    wtext_puts(&body, "{\"detail\":\"there is no template t\",\"more\":\"");
    while (body.len < 3000)
        wtext_puts(&body, "x");
    wtext_puts(&body, "\"}");
    for (how = 0; how < 3; how++) {
        wtext reply = {NULL, 0, 0};
        world w;
        sbx_error err;
        world_init(&w);
        w.config.max_body = 1000;
        wtext_puts(&reply, "HTTP/1.1 404 Not Found\r\n");
        wtext_printf(&reply, forms[how], (unsigned long)body.len, body.data);
        raw_peer(&w, reply.data, how == 2)->optional = 1;
        world_open(&w);
        assert_status(&w, SBX_E_NOT_FOUND, get(&w, &err), &err);
        assert_int_equal(err.http_status, 404);
        assert_says(&w, &err, "there is no template t");
        assert_string_equal(err.resource_type, "template");
        assert_int_equal(w.dials, 1);
        wtext_free(&reply);
        world_done(&w);
    }
    wtext_free(&body);
}

/* The good reply, cut after every byte: without repetitions an error, with them a second try. */
static void a_reply_cut_anywhere_is_an_error_or_repeated(void **state)
{
    size_t cut, len = strlen(OK_REPLY);
    int how;
    (void)state;
    for (cut = 0; cut <= len; cut++) {
        for (how = 0; how < 4; how++) {
            world w;
            sbx_error err;
            sbx_status st;
            peer *p;
            world_init(&w);
            if (how & 1)
                w.config.max_retries = SBX_NONE;
            p = good_peer(&w, 1);
            p->cut_at = (int64_t)cut;
            p->cut_how = how & 2 ? SBX_END : SBX_E_CONNECTION;
            if (!(how & 1) && cut < len)
                good_peer(&w, 1);
            world_open(&w);
            st = get(&w, &err);
            if (how & 1 && cut < len)
                assert_true(sbx_status_is(st, SBX_E_CONNECTION));
            else
                assert_int_equal(st, SBX_OK);
            world_done(&w);
        }
    }
}

static void a_request_cut_anywhere_is_an_error_or_repeated(void **state)
{
    int64_t cut;
    int how, done = 0;
    (void)state;
    for (cut = 0; !done; cut++) {
        for (how = 0; how < 2; how++) {
            world w;
            sbx_error err;
            sbx_status st;
            peer *p;
            world_init(&w);
            if (how)
                w.config.max_retries = SBX_NONE;
            p = good_peer(&w, 1);
            p->take_at_most = cut;
            p->optional = 1;
            good_peer(&w, 1)->optional = 1;
            world_open(&w);
            st = get(&w, &err);
            done = p->at == p->count;
            if (how && !done)
                assert_true(sbx_status_is(st, SBX_E_CONNECTION));
            else
                assert_int_equal(st, SBX_OK);
            world_done(&w);
        }
        assert_true(cut < 2000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_connection_serves_many_calls),
        cmocka_unit_test(a_kept_connection_that_the_server_closed_is_replaced),
        cmocka_unit_test(a_change_too_gets_a_fresh_connection_for_a_stale_one),
        cmocka_unit_test(a_fresh_connection_for_a_stale_one_is_made_once),
        cmocka_unit_test(a_change_that_may_have_arrived_is_not_repeated),
        cmocka_unit_test(a_change_that_arrived_on_a_kept_connection_is_not_repeated),
        cmocka_unit_test(a_change_of_which_a_part_was_written_is_not_repeated),
        cmocka_unit_test(a_get_is_repeated_when_its_connection_breaks),
        cmocka_unit_test(a_get_gives_up_after_three_repetitions),
        cmocka_unit_test(connection_close_and_http_1_0_end_the_connection),
        cmocka_unit_test(good_replies_of_every_form_are_understood),
        cmocka_unit_test(a_body_may_end_with_the_connection),
        cmocka_unit_test(bytes_after_a_reply_never_answer_the_next_request),
        cmocka_unit_test(every_kind_of_stream_will_do),
        cmocka_unit_test(server_errors_are_repeated_with_growing_pauses),
        cmocka_unit_test(pauses_double_and_stay_below_ten_seconds),
        cmocka_unit_test(pauses_are_not_always_the_same),
        cmocka_unit_test(too_many_requests_wait_as_the_service_says),
        cmocka_unit_test(pauses_are_what_the_protocol_says_and_a_random_second),
        cmocka_unit_test(a_connection_that_is_refused_is_tried_again_with_the_same_pauses),
        cmocka_unit_test(any_number_of_repetitions_can_be_had),
        cmocka_unit_test(a_quota_error_remains_after_the_last_attempt),
        cmocka_unit_test(a_monstrous_retry_after_cannot_outlast_the_deadline),
        cmocka_unit_test(a_pause_for_too_many_requests_never_takes_more_than_a_minute),
        cmocka_unit_test(other_errors_are_not_repeated),
        cmocka_unit_test(statuses_without_a_meaning_here_are_errors),
        cmocka_unit_test(a_refused_connection_is_tried_four_times),
        cmocka_unit_test(a_creation_survives_two_refused_connections),
        cmocka_unit_test(max_retries_is_obeyed),
        cmocka_unit_test(an_unknown_host_says_so),
        cmocka_unit_test(a_certificate_that_fails_is_not_tried_again),
        cmocka_unit_test(a_silent_server_costs_ten_seconds),
        cmocka_unit_test(a_trickle_does_not_stretch_the_time_limit),
        cmocka_unit_test(the_time_limit_of_a_request_can_be_set),
        cmocka_unit_test(a_server_that_takes_nothing_is_given_up),
        cmocka_unit_test(connecting_has_a_time_limit_too),
        cmocka_unit_test(connecting_in_vain_is_tried_again),
        cmocka_unit_test(the_deadline_of_a_call_ends_it_anywhere),
        cmocka_unit_test(a_clock_may_start_anywhere),
        cmocka_unit_test(a_clock_that_jumps_backwards_does_not_stop_a_call),
        cmocka_unit_test(a_deadline_that_is_wrong_is_refused),
        cmocka_unit_test(a_call_is_cancelled_wherever_it_is),
        cmocka_unit_test(a_cancel_that_is_set_stops_calls_before_they_begin),
        cmocka_unit_test(the_wait_hook_can_end_a_call),
        cmocka_unit_test(an_operation_runs_in_the_loop_of_the_program),
        cmocka_unit_test(without_a_wait_hook_blocking_calls_say_so),
        cmocka_unit_test(waiting_for_an_operation_can_be_interrupted_and_resumed),
        cmocka_unit_test(a_failed_operation_says_the_same_for_ever),
        cmocka_unit_test(an_operation_can_be_cancelled),
        cmocka_unit_test(an_operation_can_be_freed_after_any_number_of_steps),
        cmocka_unit_test(several_operations_run_at_once),
        cmocka_unit_test(a_wait_steps_all_operations),
        cmocka_unit_test(waiting_for_operations_checks_its_arguments),
        cmocka_unit_test(bad_heads_are_protocol_errors),
        cmocka_unit_test(bad_json_is_a_protocol_error),
        cmocka_unit_test(deep_json_is_refused),
        cmocka_unit_test(nothing_at_all_is_a_connection_error),
        cmocka_unit_test(a_huge_head_is_refused),
        cmocka_unit_test(a_body_beyond_the_limit_is_refused),
        cmocka_unit_test(memory_does_not_grow_with_announced_lengths),
        cmocka_unit_test(an_endless_error_body_still_gives_the_error),
        cmocka_unit_test(an_error_body_beyond_max_body_still_gives_the_error),
        cmocka_unit_test(a_reply_cut_anywhere_is_an_error_or_repeated),
        cmocka_unit_test(a_request_cut_anywhere_is_an_error_or_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
