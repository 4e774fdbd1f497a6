/* Reading and writing files in a sandbox: the exact bytes of an upload, streams in constant memory,
   progress, callbacks that end a transfer, and errors, which never reach the reader's callback. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "world.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define UPLOAD "/sb-1/upload?path=%2Ftmp%2Fa%2Etxt"
#define DOWNLOAD "/sb-1/download?path=%2Ftmp%2Fa%2Etxt"
#define FILE_PATH "/tmp/a.txt"
#define MIB ((int64_t)1 << 20)

/* ---- callbacks ---- */

/* A source of size bytes (byte i is i * 7 modulo 251) that misbehaves as it is told, and a sink
   that checks that it gets the same bytes. */
typedef struct stream {
    int64_t size, at;
    size_t most;      /* bytes per call; 0: all that fit */
    int64_t abort_at; /* the callback fails when so many bytes went through; -1 */
    int64_t again_at; /* once, the source has nothing yet; -1 */
    int calls, lie;
    int64_t last_done, last_total;
    int progress_calls, progress_abort;
    int wrong;
} stream;

static stream stream_of(int64_t size)
{
    stream s;
    memset(&s, 0, sizeof(s));
    s.size = size;
    s.abort_at = s.again_at = -1;
    s.last_done = s.last_total = -1;
    return s;
}

static unsigned char byte_at(int64_t at)
{
    return (unsigned char)(at * 7 % 251);
}

static int read_source(void *user, void *buf, size_t cap, size_t *n)
{
    stream *s = (stream *)user;
    unsigned char *out = (unsigned char *)buf;
    size_t i, len = cap;
    s->calls++;
    if (cap != 16384 || *n != 0)
        s->wrong = 1;
    if (s->abort_at >= 0 && s->at >= s->abort_at)
        return -1;
    if (s->again_at >= 0 && s->at >= s->again_at) {
        s->again_at = -1;
        return SBX_AGAIN;
    }
    if (s->most && len > s->most)
        len = s->most;
    if ((int64_t)len > s->size - s->at)
        len = (size_t)(s->size - s->at);
    for (i = 0; i < len; i++)
        out[i] = byte_at(s->at + (int64_t)i);
    s->at += (int64_t)len;
    *n = s->lie ? cap + 1 : len;
    return 0;
}

static int write_sink(void *user, const void *data, size_t len)
{
    stream *s = (stream *)user;
    const unsigned char *in = (const unsigned char *)data;
    size_t i;
    s->calls++;
    if (!len)
        s->wrong = 1;
    for (i = 0; i < len; i++)
        if (in[i] != byte_at(s->at + (int64_t)i))
            s->wrong = 1;
    s->at += (int64_t)len;
    return s->abort_at >= 0 && s->at >= s->abort_at;
}

static int watch_progress(void *user, int64_t done, int64_t total)
{
    stream *s = (stream *)user;
    if (done < s->last_done || (total != SBX_NONE && done > total))
        s->wrong = 1;
    s->last_done = done;
    s->last_total = total;
    s->progress_calls++;
    return s->progress_abort && s->progress_calls == s->progress_abort;
}

static sbx_file_options options_for(stream *s, int progress)
{
    sbx_file_options options;
    memset(&options, 0, sizeof(options));
    options.user = s;
    options.progress = progress ? watch_progress : NULL;
    return options;
}

/* size bytes as the source gives them. */
static void pattern(wtext *t, int64_t size)
{
    char block[4096];
    int64_t at = 0;
    size_t i;
    while (at < size) {
        size_t len = size - at < (int64_t)sizeof(block) ? (size_t)(size - at) : sizeof(block);
        for (i = 0; i < len; i++)
            block[i] = (char)byte_at(at + (int64_t)i);
        wtext_add(t, block, len);
        at += (int64_t)len;
    }
}

/* ---- uploads ---- */

/* The value of a header in raw request text, up to its CR. */
static void raw_header(const char *raw, const char *name, char *out, size_t cap)
{
    const char *at = strstr(raw, name);
    assert_non_null(at);
    at += strlen(name);
    snprintf(out, cap, "%.*s", (int)strcspn(at, "\r"), at);
}

/* Checks that the request is a multipart upload of exactly these bytes, and nothing else. */
static void check_upload(peer *p, const void *data, size_t len)
{
    const char *raw = wtext_get(&p->raw), *body;
    char boundary[200], length[40], head[400], tail[300];
    size_t body_len;
    raw_header(raw, "Content-Type: multipart/form-data; boundary=", boundary, sizeof(boundary));
    assert_between((int64_t)strlen(boundary), 16, 70);
    body = strstr(raw, "\r\n\r\n") + 4;
    body_len = p->raw.len - (size_t)(body - raw);
    raw_header(raw, "Content-Length: ", length, sizeof(length));
    assert_int_equal(strtoull(length, NULL, 10), body_len);
    snprintf(head, sizeof(head),
             "--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n"
             "Content-Type: application/octet-stream\r\n\r\n",
             boundary);
    snprintf(tail, sizeof(tail), "\r\n--%s--\r\n", boundary);
    if (body_len != strlen(head) + len + strlen(tail) || memcmp(body, head, strlen(head)) != 0 ||
        (len && memcmp(body + strlen(head), data, len) != 0) ||
        memcmp(body + strlen(head) + len, tail, strlen(tail)) != 0)
        world_fail(p->w, "expected %s<%lu bytes>%s\n     got %.2000s", head, (unsigned long)len,
                   tail, body);
}

static void writing_sends_one_part_with_its_length(void **state)
{
    static const char data[] = "hello\0world\r\n--x\r\n\xff\xfe";
    static const size_t lengths[] = {sizeof(data), 5, 0};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(lengths); i++) {
        world w;
        sbx_error err;
        sbx_sandbox *sandbox;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "POST", UPLOAD);
        peer_body(p, "", 0);
        p->steps[p->count - 1].body_kind = 3;
        peer_reply(p, 200, "{}");
        world_open(&w);
        sandbox = world_sandbox(&w);
        assert_status(
            &w, SBX_OK,
            sbx_write(sandbox, FILE_PATH, lengths[i] ? data : NULL, lengths[i], NULL, &err), &err);
        check_upload(p, data, lengths[i]);
        assert_string_equal(p->host, "127.0.0.1");
        assert_int_equal(p->port, 9090);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void the_boundary_differs_from_call_to_call(void **state)
{
    char first[200], second[200];
    world w;
    sbx_error err;
    sbx_sandbox *sandbox;
    peer *p;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "POST", UPLOAD);
    peer_reply(p, 200, "{}");
    peer_request(p, "POST", UPLOAD);
    peer_reply(p, 201, "not JSON, and nobody cares");
    world_open(&w);
    sandbox = world_sandbox(&w);
    assert_status(&w, SBX_OK, sbx_write(sandbox, FILE_PATH, "a", 1, NULL, &err), &err);
    raw_header(wtext_get(&p->raw), "boundary=", first, sizeof(first));
    p->raw.len = 0;
    assert_status(&w, SBX_OK, sbx_write(sandbox, FILE_PATH, "a", 1, NULL, &err), &err);
    raw_header(wtext_get(&p->raw), "boundary=", second, sizeof(second));
    assert_string_not_equal(first, second);
    assert_int_equal(w.dials, 1);
    sbx_free(sandbox);
    world_done(&w);
}

static void paths_are_encoded(void **state)
{
    static const char *const paths[][2] = {
        {"a.txt", "a%2Etxt"},
        {"/tmp/a b+c&d=e%.txt", "%2Ftmp%2Fa%20b%2Bc%26d%3De%25%2Etxt"},
        {"/tmp/\xc3\xbc#?", "%2Ftmp%2F%C3%BC%23%3F"},
        {"../..", "%2E%2E%2F%2E%2E"},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(paths); i++) {
        char target[200];
        world w;
        sbx_error err;
        sbx_bytes *bytes = NULL;
        sbx_sandbox *sandbox;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        snprintf(target, sizeof(target), "/sb-1/upload?path=%s", paths[i][1]);
        peer_request(p, "POST", target);
        peer_reply(p, 200, "{}");
        snprintf(target, sizeof(target), "/sb-1/download?path=%s", paths[i][1]);
        peer_request(p, "GET", target);
        peer_reply(p, 200, "x");
        world_open(&w);
        sandbox = world_sandbox(&w);
        assert_status(&w, SBX_OK, sbx_write(sandbox, paths[i][0], "a", 1, NULL, &err), &err);
        assert_status(&w, SBX_OK, sbx_read(sandbox, paths[i][0], NULL, &bytes, &err), &err);
        sbx_free(bytes);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void wrong_arguments_are_refused_without_traffic(void **state)
{
    static const char *const paths[] = {NULL, "", "a\nb", "\x01"};
    stream s = stream_of(1);
    sbx_file_options options = options_for(&s, 0);
    world w;
    sbx_error err;
    sbx_bytes *bytes;
    sbx_sandbox *sandbox;
    sbx_op *op;
    size_t i;
    (void)state;
    world_init(&w);
    world_open(&w);
    sandbox = world_sandbox(&w);
    for (i = 0; i < COUNT(paths); i++) {
        bytes = (sbx_bytes *)&w;
        op = (sbx_op *)&w;
        assert_status(&w, SBX_E_ARGUMENT, sbx_write(sandbox, paths[i], "a", 1, NULL, &err), &err);
        assert_string_equal(err.field, "path");
        assert_status(&w, SBX_E_ARGUMENT, sbx_read(sandbox, paths[i], NULL, &bytes, &err), &err);
        assert_null(bytes);
        assert_status(&w, SBX_E_ARGUMENT,
                      sbx_read_to_start(sandbox, paths[i], write_sink, &options, &op, &err), &err);
        assert_null(op);
        assert_status(&w, SBX_E_ARGUMENT,
                      sbx_write_from(sandbox, paths[i], read_source, 1, &options, &err), &err);
    }
    assert_status(&w, SBX_E_ARGUMENT, sbx_write(sandbox, "f", NULL, 1, NULL, &err), &err);
    assert_string_equal(err.field, "data");
    assert_status(&w, SBX_E_ARGUMENT, sbx_write_from(sandbox, "f", NULL, 1, &options, &err), &err);
    assert_string_equal(err.field, "source");
    assert_status(&w, SBX_E_ARGUMENT, sbx_write_from(sandbox, "f", read_source, -2, &options, &err),
                  &err);
    assert_string_equal(err.field, "size");
    assert_status(&w, SBX_E_ARGUMENT, sbx_read_to(sandbox, "f", NULL, &options, &err), &err);
    assert_string_equal(err.field, "sink");
    assert_status(&w, SBX_E_ARGUMENT, sbx_read(NULL, "f", NULL, &bytes, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_write(NULL, "f", "a", 1, NULL, &err), &err);
    assert_int_equal(s.calls, 0);
    assert_int_equal(w.dials, 0);
    sbx_free(sandbox);
    world_done(&w);
}

static void a_source_is_sent_with_known_and_unknown_size(void **state)
{
    static const int64_t sizes[] = {0, 1, 16383, 16384, 16385, 200000};
    static const size_t mosts[] = {0, 1000};
    size_t i, k;
    int known;
    (void)state;
    for (i = 0; i < COUNT(sizes); i++) {
        for (k = 0; k < 2; k++) {
            for (known = 0; known < 2; known++) {
                stream s = stream_of(sizes[i]);
                sbx_file_options options = options_for(&s, 1);
                wtext expected = {NULL, 0, 0};
                world w;
                sbx_error err;
                sbx_sandbox *sandbox;
                peer *p;
                s.most = mosts[k];
                s.again_at = sizes[i] / 2;
                world_init(&w);
                p = world_peer(&w);
                peer_request(p, "POST", UPLOAD);
                if (known)
                    peer_without(p, "Transfer-Encoding");
                else
                    peer_with(p, "Transfer-Encoding: chunked");
                peer_reply(p, 200, "{}");
                world_open(&w);
                sandbox = world_sandbox(&w);
                assert_status(&w, SBX_OK,
                              sbx_write_from(sandbox, FILE_PATH, read_source,
                                             known ? sizes[i] : SBX_NONE, &options, &err),
                              &err);
                pattern(&expected, sizes[i]);
                if (known)
                    check_upload(p, wtext_get(&expected), (size_t)sizes[i]);
                assert_int_equal(s.wrong, 0);
                assert_int_equal(s.last_done, sizes[i]);
                assert_int_equal(s.last_total, known ? sizes[i] : SBX_NONE);
                assert_between(s.progress_calls, 1, sizes[i] / 65536 + 1);
                assert_between(w.slept, 0, 50);
                wtext_free(&expected);
                sbx_free(sandbox);
                world_done(&w);
            }
        }
    }
}

/* Keeps what came as the one part of a chunked upload. */
static void keep_upload(peer *p, void *user)
{
    sbx_multipart m;
    sbx_multipart_event e;
    const char *type = request_header(&p->request, "Content-Type");
    const char *at = wtext_get(&p->request.body);
    size_t left = p->request.body.len, used;
    sbx_status st;
    assert_int_equal(sbx_multipart_init(&m, type, strlen(type)), SBX_OK);
    while ((st = sbx_multipart_read(&m, at, left, &used, &e)) == SBX_OK) {
        at += used;
        left -= used;
        if (e.type == SBX_MULTIPART_DATA)
            wtext_add((wtext *)user, e.data, e.len);
    }
    assert_int_equal(st, SBX_END);
    peer_take_request(p);
    peer_reply(p, 200, "{}");
}

static void a_chunked_upload_holds_the_same_bytes(void **state)
{
    int i;
    (void)state;
    for (i = 0; i < 8; i++) {
        stream s = stream_of(50000);
        sbx_file_options options = options_for(&s, 0);
        wtext expected = {NULL, 0, 0}, got = {NULL, 0, 0};
        world w;
        sbx_error err;
        sbx_sandbox *sandbox;
        world_init(&w);
        w.serve = keep_upload;
        w.serve_user = &got;
        w.buffering = i & 1;
        s.most = i & 2 ? 333 : 0;
        world_open(&w);
        if (i & 4) {
            peer *p = world_peer(&w);
            p->write_max = 100;
            p->every_other = 1;
        }
        sandbox = world_sandbox(&w);
        if (sbx_write_from(sandbox, FILE_PATH, read_source, SBX_NONE, &options, &err) != SBX_OK)
            world_fail(&w, "case %d: %s", i, err.message);
        pattern(&expected, 50000);
        assert_int_equal(got.len, expected.len);
        assert_memory_equal(got.data, expected.data, got.len);
        wtext_free(&expected);
        wtext_free(&got);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void a_source_of_the_wrong_size_fails_the_call(void **state)
{
    static const int64_t cases[][2] = {{0, 1},      {1, 0},           {999, 1000},
                                       {1000, 999}, {100000, 100001}, {100001, 100000}};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        stream s = stream_of(cases[i][0]);
        sbx_file_options options = options_for(&s, 0);
        world w;
        sbx_error err;
        sbx_sandbox *sandbox;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        p->optional = 1;
        world_open(&w);
        sandbox = world_sandbox(&w);
        assert_status(&w, SBX_E_ARGUMENT,
                      sbx_write_from(sandbox, FILE_PATH, read_source, cases[i][1], &options, &err),
                      &err);
        /* The server must not be able to take it for a whole request. */
        assert_int_equal(p->request.done, 0);
        assert_int_equal(w.live, 0);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void a_source_that_claims_too_much_is_caught(void **state)
{
    stream s = stream_of(100);
    sbx_file_options options = options_for(&s, 0);
    world w;
    sbx_error err;
    sbx_sandbox *sandbox;
    sbx_status st;
    (void)state;
    s.lie = 1;
    world_init(&w);
    world_peer(&w)->optional = 1;
    world_open(&w);
    sandbox = world_sandbox(&w);
    st = sbx_write_from(sandbox, FILE_PATH, read_source, SBX_NONE, &options, &err);
    check_error(&w, st, &err);
    assert_true(st == SBX_E_ARGUMENT || st == SBX_E_ABORTED);
    sbx_free(sandbox);
    world_done(&w);
}

static void a_source_that_fails_ends_the_call(void **state)
{
    static const int64_t at[] = {0, 1, 20000, 99999};
    size_t i;
    int known;
    (void)state;
    for (i = 0; i < COUNT(at); i++) {
        for (known = 0; known < 2; known++) {
            stream s = stream_of(100000);
            sbx_file_options options = options_for(&s, 0);
            world w;
            sbx_error err;
            sbx_sandbox *sandbox;
            peer *p;
            world_init(&w);
            p = world_peer(&w);
            p->optional = 1;
            s.abort_at = at[i];
            s.most = 9999;
            world_open(&w);
            sandbox = world_sandbox(&w);
            assert_status(&w, SBX_E_ABORTED,
                          sbx_write_from(sandbox, FILE_PATH, read_source, known ? 100000 : SBX_NONE,
                                         &options, &err),
                          &err);
            assert_int_equal(p->request.done, 0);
            assert_int_equal(w.live, 0);
            sbx_free(sandbox);
            world_done(&w);
        }
    }
}

static void progress_can_end_an_upload(void **state)
{
    stream s = stream_of(1 * MIB);
    sbx_file_options options = options_for(&s, 1);
    world w;
    sbx_error err;
    sbx_sandbox *sandbox;
    peer *p;
    (void)state;
    s.progress_abort = 3;
    world_init(&w);
    p = world_peer(&w);
    p->optional = 1;
    world_open(&w);
    sandbox = world_sandbox(&w);
    assert_status(&w, SBX_E_ABORTED,
                  sbx_write_from(sandbox, FILE_PATH, read_source, 1 * MIB, &options, &err), &err);
    assert_int_equal(s.progress_calls, 3);
    assert_int_equal(p->request.done, 0);
    sbx_free(sandbox);
    world_done(&w);
}

static void progress_is_told_for_writes_from_memory_too(void **state)
{
    stream s = stream_of(0);
    sbx_file_options options = options_for(&s, 1);
    wtext data = {NULL, 0, 0};
    world w;
    sbx_error err;
    sbx_sandbox *sandbox;
    peer *p;
    (void)state;
    pattern(&data, 1 * MIB);
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "POST", UPLOAD);
    peer_reply(p, 200, "{}");
    world_open(&w);
    sandbox = world_sandbox(&w);
    assert_status(&w, SBX_OK, sbx_write(sandbox, FILE_PATH, data.data, data.len, &options, &err),
                  &err);
    check_upload(p, data.data, data.len);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(s.last_done, 1 * MIB);
    assert_int_equal(s.last_total, 1 * MIB);
    assert_between(s.progress_calls, 2, 17);
    wtext_free(&data);
    sbx_free(sandbox);
    world_done(&w);
}

static void an_upload_refused_early_says_why(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 3; how++) {
        stream s = stream_of(8 * MIB);
        sbx_file_options options = options_for(&s, 0);
        world w;
        sbx_error err;
        sbx_sandbox *sandbox;
        peer *p;
        int64_t start;
        world_init(&w);
        p = world_peer(&w);
        p->discard_body = 1;
        p->optional = 1;
        peer_head(p, "POST", UPLOAD);
        peer_reply(p, 403, "{\"detail\":{\"error\":\"WriteError\",\"message\":\"disk full\"}}");
        if (how == 1)
            p->stuck_after = 100000;
        if (how == 2)
            peer_close(p);
        world_open(&w);
        sandbox = world_sandbox(&w);
        start = w.now;
        assert_status(&w, SBX_E_OPERATION,
                      sbx_write_from(sandbox, FILE_PATH, read_source, 8 * MIB, &options, &err),
                      &err);
        assert_says(&w, &err, "disk full");
        assert_string_equal(err.operation, "write");
        assert_int_equal(w.now, start);
        assert_int_equal(w.live, 0);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void an_upload_that_was_not_read_to_its_end_did_not_succeed(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 8; how++) {
        stream s = stream_of(8 * MIB);
        sbx_file_options options = options_for(&s, 0);
        wtext data = {NULL, 0, 0};
        world w;
        sbx_error err;
        sbx_sandbox *sandbox;
        sbx_status st;
        peer *p;
        int64_t start;
        world_init(&w);
        p = world_peer(&w);
        p->discard_body = 1;
        p->optional = 1;
        peer_head(p, "POST", UPLOAD);
        if (how & 1)
            peer_reply(p, 200, "{}");
        else
            peer_reply(p, 204, "");
        if ((how & 6) == 2)
            p->stuck_after = 100000;
        if ((how & 6) == 4)
            peer_close(p);
        world_open(&w);
        sandbox = world_sandbox(&w);
        start = w.now;
        if ((how & 6) == 6) {
            pattern(&data, 8 * MIB);
            st = sbx_write(sandbox, FILE_PATH, data.data, data.len, &options, &err);
        } else {
            st = sbx_write_from(sandbox, FILE_PATH, read_source, how & 2 ? 8 * MIB : SBX_NONE,
                                &options, &err);
        }
        assert_status(&w, SBX_E_PROTOCOL, st, &err);
        assert_int_equal(w.now, start);
        assert_int_equal(w.dials, 1);
        assert_int_equal(w.live, 0);
        wtext_free(&data);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void an_upload_is_not_repeated_once_the_source_was_asked(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 3; how++) {
        stream s = stream_of(1000);
        sbx_file_options options = options_for(&s, 0);
        world w;
        sbx_error err;
        sbx_sandbox *sandbox;
        sbx_status st;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "POST", UPLOAD);
        if (how == 0)
            peer_reply(p, 503, "{\"detail\":\"busy\"}");
        else if (how == 1)
            peer_close(p);
        else
            peer_reply_with(p, 429, "Retry-After: 1\r\n", "{\"detail\":\"busy\"}");
        world_open(&w);
        sandbox = world_sandbox(&w);
        st = sbx_write_from(sandbox, FILE_PATH, read_source, 1000, &options, &err);
        check_error(&w, st, &err);
        assert_true(sbx_status_is(st, how == 1 ? SBX_E_CONNECTION : SBX_E_SERVICE));
        assert_int_equal(err.attempts, 1);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void serve_busy_then_good(peer *p, void *user)
{
    int *requests = (int *)user;
    peer_take_request(p);
    if (++*requests < 3)
        peer_reply(p, 503, "");
    else
        peer_reply(p, 200, "12345");
}

static void whole_files_are_repeated_when_the_service_is_busy(void **state)
{
    world w;
    sbx_error err;
    sbx_sandbox *sandbox;
    sbx_bytes *bytes = NULL;
    stream s = stream_of(0);
    sbx_file_options options = options_for(&s, 0);
    int requests = 0;
    (void)state;
    world_init(&w);
    w.serve = serve_busy_then_good;
    w.serve_user = &requests;
    world_open(&w);
    sandbox = world_sandbox(&w);
    assert_status(&w, SBX_OK, sbx_write(sandbox, FILE_PATH, "data", 4, NULL, &err), &err);
    assert_int_equal(requests, 3);
    requests = 0;
    assert_status(&w, SBX_OK, sbx_read(sandbox, FILE_PATH, NULL, &bytes, &err), &err);
    assert_int_equal(requests, 3);
    assert_string_equal(bytes->data, "12345");
    sbx_free(bytes);
    requests = 0;
    s.wrong = 0;
    /* The callback had not been called yet. */
    assert_status(&w, SBX_OK, sbx_read_to(sandbox, FILE_PATH, write_sink, &options, &err), &err);
    assert_int_equal(requests, 3);
    assert_int_equal(s.at, 5);
    sbx_free(sandbox);
    world_done(&w);
}

/* ---- downloads ---- */

typedef struct download_form {
    const char *before, *after;
    int chunk; /* 1: in chunks of 1000 */
    int closes;
} download_form;

static const download_form forms[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: %ld\r\n\r\n", "", 0, 0},
    {"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n",
     "0\r\n\r\n", 1, 0},
    {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", "", 0, 1},
    {"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
     "00\r\nX-Trailer: 1\r\n\r\n", 1, 1},
};

static void reply_file(peer *p, const download_form *form, int64_t size)
{
    wtext data = {NULL, 0, 0};
    char head[200];
    size_t at, len;
    pattern(&data, size);
    snprintf(head, sizeof(head), form->before, (long)size);
    peer_puts(p, head);
    for (at = 0; at < data.len; at += len) {
        len = form->chunk && data.len - at > 1000 ? 1000 : data.len - at;
        if (form->chunk) {
            snprintf(head, sizeof(head), "%lx\r\n", (unsigned long)len);
            peer_puts(p, head);
        }
        peer_send(p, data.data + at, len);
        if (form->chunk)
            peer_puts(p, "\r\n");
    }
    peer_puts(p, form->after);
    if (form->closes)
        peer_close(p);
    wtext_free(&data);
}

static void files_are_read_in_every_form(void **state)
{
    static const int64_t sizes[] = {0, 1, 999, 1000, 70000, 300000};
    size_t i, k, piece;
    (void)state;
    for (i = 0; i < COUNT(sizes); i++) {
        for (k = 0; k < COUNT(forms); k++) {
            for (piece = 0; piece < (sizes[i] < 1001 ? 3u : 1u); piece++) {
                wtext expected = {NULL, 0, 0};
                stream s = stream_of(0);
                sbx_file_options options = options_for(&s, 1);
                world w;
                sbx_error err;
                sbx_sandbox *sandbox;
                sbx_bytes *bytes = NULL;
                peer *p;
                int round;
                world_init(&w);
                for (round = 0; round < 2; round++) {
                    p = round && !forms[k].closes ? p : world_peer(&w);
                    p->piece = piece;
                    peer_request(p, "GET", DOWNLOAD);
                    reply_file(p, &forms[k], sizes[i]);
                }
                world_open(&w);
                sandbox = world_sandbox(&w);
                assert_status(&w, SBX_OK, sbx_read(sandbox, FILE_PATH, NULL, &bytes, &err), &err);
                pattern(&expected, sizes[i]);
                assert_int_equal(bytes->len, sizes[i]);
                assert_memory_equal(bytes->data, wtext_get(&expected), bytes->len);
                assert_int_equal(bytes->data[bytes->len], 0);
                sbx_free(bytes);
                assert_status(&w, SBX_OK,
                              sbx_read_to(sandbox, FILE_PATH, write_sink, &options, &err), &err);
                assert_int_equal(s.at, sizes[i]);
                assert_int_equal(s.wrong, 0);
                assert_int_equal(s.last_done, sizes[i]);
                assert_int_equal(s.last_total, k == 0 ? sizes[i] : SBX_NONE);
                assert_between(s.progress_calls, 1, sizes[i] / 65536 + 1);
                wtext_free(&expected);
                sbx_free(sandbox);
                world_done(&w);
            }
        }
    }
}

static void a_missing_file_says_so(void **state)
{
    static const char *const bodies[] = {
        "{\"detail\":{\"error\":\"FileNotFound\",\"message\":\"no /tmp/a.txt\"}}",
        "{\"detail\":\"not found\"}",
        "",
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(bodies); i++) {
        stream s = stream_of(0);
        sbx_file_options options = options_for(&s, 1);
        world w;
        sbx_error err;
        sbx_sandbox *sandbox;
        sbx_bytes *bytes = NULL;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", DOWNLOAD);
        peer_reply(p, 404, bodies[i]);
        peer_request(p, "GET", DOWNLOAD);
        peer_reply(p, 404, bodies[i]);
        world_open(&w);
        sandbox = world_sandbox(&w);
        assert_status(&w, SBX_E_NOT_FOUND, sbx_read(sandbox, FILE_PATH, NULL, &bytes, &err), &err);
        assert_null(bytes);
        assert_string_equal(err.resource_type, "file");
        assert_int_equal(err.http_status, 404);
        assert_status(&w, SBX_E_NOT_FOUND,
                      sbx_read_to(sandbox, FILE_PATH, write_sink, &options, &err), &err);
        assert_int_equal(s.calls, 0);
        assert_int_equal(s.progress_calls, 0);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void a_download_cut_anywhere_is_an_error(void **state)
{
    size_t k;
    int64_t cut, whole;
    int how;
    (void)state;
    for (k = 0; k < 2; k++) {
        for (cut = 0, whole = 1; cut < whole; cut++) {
            for (how = 0; how < 4; how++) {
                stream s = stream_of(0);
                sbx_file_options options = options_for(&s, 0);
                world w;
                sbx_error err;
                sbx_sandbox *sandbox;
                sbx_bytes *bytes = NULL;
                sbx_status st;
                peer *p;
                size_t i;
                world_init(&w);
                w.config.max_retries = SBX_NONE;
                p = world_peer(&w);
                peer_request(p, "GET", DOWNLOAD);
                reply_file(p, &forms[k], 150);
                for (i = 0, whole = 0; i < p->count; i++)
                    whole += p->steps[i].kind == STEP_SEND ? (int64_t)p->steps[i].a.len : 0;
                p->cut_at = cut;
                p->cut_how = how & 1 ? SBX_END : SBX_E_CONNECTION;
                world_open(&w);
                sandbox = world_sandbox(&w);
                st = how & 2 ? sbx_read(sandbox, FILE_PATH, NULL, &bytes, &err)
                             : sbx_read_to(sandbox, FILE_PATH, write_sink, &options, &err);
                check_error(&w, st, &err);
                assert_true(sbx_status_is(st, SBX_E_CONNECTION));
                assert_null(bytes);
                assert_int_equal(s.wrong, 0);
                sbx_free(sandbox);
                world_done(&w);
            }
        }
        assert_true(cut > 180);
    }
}

static void a_download_is_repeated_only_before_the_sink_was_called(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 2; how++) {
        stream s = stream_of(0);
        sbx_file_options options = options_for(&s, 0);
        world w;
        sbx_error err;
        sbx_sandbox *sandbox;
        sbx_status st;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", DOWNLOAD);
        peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
        if (how)
            peer_send(p, "\0\x07\x0e\x15", 4);
        peer_reset(p);
        if (!how) {
            p = world_peer(&w);
            peer_request(p, "GET", DOWNLOAD);
            reply_file(p, &forms[0], 5000);
        }
        world_open(&w);
        sandbox = world_sandbox(&w);
        st = sbx_read_to(sandbox, FILE_PATH, write_sink, &options, &err);
        check_error(&w, st, &err);
        if (how)
            assert_true(sbx_status_is(st, SBX_E_CONNECTION));
        else
            assert_int_equal(st, SBX_OK);
        assert_int_equal(s.at, how ? 4 : 5000);
        assert_int_equal(s.wrong, 0);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void a_sink_or_progress_that_fails_ends_the_download(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 2; how++) {
        stream s = stream_of(0);
        sbx_file_options options = options_for(&s, how);
        world w;
        sbx_error err;
        sbx_sandbox *sandbox;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", DOWNLOAD);
        reply_file(p, &forms[0], 1 * MIB);
        if (how)
            s.progress_abort = 2;
        else
            s.abort_at = 1;
        world_open(&w);
        sandbox = world_sandbox(&w);
        assert_status(&w, SBX_E_ABORTED,
                      sbx_read_to(sandbox, FILE_PATH, write_sink, &options, &err), &err);
        assert_true(s.at < 1 * MIB);
        if (!how)
            assert_int_equal(s.calls, 1);
        assert_int_equal(w.live, 0);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void a_file_beyond_max_body_is_too_big_for_memory_but_not_for_a_sink(void **state)
{
    size_t k;
    (void)state;
    for (k = 0; k < COUNT(forms); k++) {
        stream s = stream_of(0);
        sbx_file_options options = options_for(&s, 0);
        world w;
        sbx_error err;
        sbx_sandbox *sandbox;
        sbx_bytes *bytes = NULL;
        peer *p;
        int i;
        world_init(&w);
        w.config.max_body = 100000;
        for (i = 0; i < 3; i++) {
            p = world_peer(&w);
            peer_request(p, "GET", DOWNLOAD);
            reply_file(p, &forms[k], i == 0 ? 100000 : 100001);
            p->optional = 1;
            if (i == 0 && !forms[k].closes)
                peer_close(p);
        }
        world_open(&w);
        sandbox = world_sandbox(&w);
        assert_status(&w, SBX_OK, sbx_read(sandbox, FILE_PATH, NULL, &bytes, &err), &err);
        assert_int_equal(bytes->len, 100000);
        sbx_free(bytes);
        assert_status(&w, SBX_E_TOO_BIG, sbx_read(sandbox, FILE_PATH, NULL, &bytes, &err), &err);
        assert_null(bytes);
        assert_int_equal(w.live, 0);
        assert_status(&w, SBX_OK, sbx_read_to(sandbox, FILE_PATH, write_sink, &options, &err),
                      &err);
        assert_int_equal(s.at, 100001);
        sbx_free(sandbox);
        world_done(&w);
    }
}

/* ---- time ---- */

static void a_transfer_may_take_long_as_long_as_something_moves(void **state)
{
    stream s = stream_of(0);
    sbx_file_options options = options_for(&s, 0);
    wtext data = {NULL, 0, 0};
    world w;
    sbx_error err;
    sbx_sandbox *sandbox;
    peer *p;
    int64_t start;
    int i;
    (void)state;
    pattern(&data, 20);
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "GET", DOWNLOAD);
    peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n");
    for (i = 0; i < 20; i++) {
        peer_delay(p, 59000);
        peer_send(p, data.data + i, 1);
    }
    world_open(&w);
    sandbox = world_sandbox(&w);
    start = w.now;
    assert_status(&w, SBX_OK, sbx_read_to(sandbox, FILE_PATH, write_sink, &options, &err), &err);
    assert_int_equal(w.now - start, 20 * 59000);
    wtext_free(&data);
    sbx_free(sandbox);
    world_done(&w);
}

static void a_transfer_in_which_nothing_moves_ends_after_a_minute(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 4; how++) {
        stream s = stream_of(1 * MIB);
        sbx_file_options options = options_for(&s, 0);
        world w;
        sbx_error err;
        sbx_sandbox *sandbox;
        sbx_bytes *bytes = NULL;
        sbx_status st;
        peer *p;
        int64_t start;
        world_init(&w);
        p = world_peer(&w);
        p->optional = 1;
        p->discard_body = 1;
        if (how == 0) {
            peer_request(p, "GET", DOWNLOAD);
            peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nx");
        } else if (how == 1) {
            peer_request(p, "GET", DOWNLOAD);
        } else if (how == 2) {
            p->stuck_after = 100000;
        } else {
            peer_request(p, "POST", UPLOAD);
        }
        world_open(&w);
        sandbox = world_sandbox(&w);
        start = w.now;
        st = how < 2 ? sbx_read(sandbox, FILE_PATH, NULL, &bytes, &err)
                     : sbx_write_from(sandbox, FILE_PATH, read_source, 1 * MIB, &options, &err);
        check_error(&w, st, &err);
        assert_true(st == SBX_E_TIMEOUT || sbx_status_is(st, SBX_E_CONNECTION));
        assert_int_equal(w.now - start, 60000);
        assert_int_equal(w.dials, 1);
        sbx_free(sandbox);
        world_done(&w);
    }
}

/* Callbacks for which more than the minute passes that a transfer may stand still. */
typedef struct slow_stream {
    world *w;
    stream s;
} slow_stream;

static int read_slowly(void *user, void *buf, size_t cap, size_t *n)
{
    slow_stream *slow = (slow_stream *)user;
    slow->w->now += 70000;
    return read_source(&slow->s, buf, cap, n);
}

static int write_slowly(void *user, const void *data, size_t len)
{
    slow_stream *slow = (slow_stream *)user;
    slow->w->now += 70000;
    return write_sink(&slow->s, data, len);
}

static void time_that_a_callback_takes_does_not_count_as_standing_still(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 4; how++) {
        slow_stream slow;
        sbx_file_options options;
        wtext data = {NULL, 0, 0};
        world w;
        sbx_error err;
        sbx_sandbox *sandbox;
        sbx_status st;
        peer *p;
        int64_t start;
        int k;
        memset(&options, 0, sizeof(options));
        options.user = &slow;
        slow.w = &w;
        slow.s = stream_of(40000);
        pattern(&data, 40000);
        world_init(&w);
        p = world_peer(&w);
        p->piece = how & 1 ? 5000 : 0;
        p->write_max = how & 1 ? 5000 : 0;
        if (how < 2) {
            peer_request(p, "POST", UPLOAD);
            peer_delay(p, 1000);
            peer_reply(p, 200, "{}");
        } else {
            slow.s = stream_of(0);
            peer_request(p, "GET", DOWNLOAD);
            peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n");
            for (k = 0; k < 4; k++) {
                /* A little longer than the sink takes for the bytes before. */
                peer_delay(p, !k ? 1000 : how & 1 ? 145000 : 75000);
                peer_send(p, data.data + k * 10000, 10000);
            }
        }
        world_open(&w);
        sandbox = world_sandbox(&w);
        start = w.now;
        st = how < 2 ? sbx_write_from(sandbox, FILE_PATH, read_slowly, 40000, &options, &err)
                     : sbx_read_to(sandbox, FILE_PATH, write_slowly, &options, &err);
        assert_status(&w, SBX_OK, st, &err);
        assert_int_equal(slow.s.at, 40000);
        assert_int_equal(slow.s.wrong, 0);
        assert_true(slow.s.calls >= 3);
        assert_true(w.now - start > slow.s.calls * 70000);
        wtext_free(&data);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void the_deadline_of_the_call_ends_a_transfer(void **state)
{
    stream s = stream_of(0);
    sbx_file_options options = options_for(&s, 0);
    world w;
    sbx_error err;
    sbx_sandbox *sandbox;
    peer *p;
    int64_t start;
    int i;
    (void)state;
    options.call.timeout_ms = 4321;
    world_init(&w);
    p = world_peer(&w);
    p->optional = 1;
    peer_request(p, "GET", DOWNLOAD);
    peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n");
    for (i = 0; i < 2000; i++) {
        peer_delay(p, 10);
        peer_send(p, "\0", 1);
    }
    world_open(&w);
    sandbox = world_sandbox(&w);
    start = w.now;
    assert_status(&w, SBX_E_TIMEOUT, sbx_read_to(sandbox, FILE_PATH, write_sink, &options, &err),
                  &err);
    assert_int_equal(w.now - start, 4321);
    sbx_free(sandbox);
    world_done(&w);
}

/* ---- memory ---- */

static void reply_ok(peer *p, void *user)
{
    *(uint64_t *)user = p->request.body_len;
    peer_take_request(p);
    peer_reply(p, 200, "{}");
}

static void keep_nothing(peer *p, void *user)
{
    (void)user;
    p->discard_body = 1;
}

static void streaming_64_mib_takes_less_than_one(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 3; how++) {
        stream s = stream_of(64 * MIB);
        sbx_file_options options = options_for(&s, 1);
        world w;
        sbx_error err;
        sbx_sandbox *sandbox;
        uint64_t arrived = 0;
        int i;
        world_init(&w);
        if (how < 2) {
            w.serve = reply_ok;
            w.serve_user = &arrived;
            w.on_dial = keep_nothing;
        } else {
            wtext data = {NULL, 0, 0};
            peer *p = world_peer(&w);
            pattern(&data, 251 * 65536);
            peer_request(p, "GET", DOWNLOAD);
            peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Length: 65798144\r\n\r\n");
            for (i = 0; i < 4; i++)
                peer_send(p, data.data, data.len);
            wtext_free(&data);
        }
        world_open(&w);
        sandbox = world_sandbox(&w);
        if (how < 2) {
            assert_status(&w, SBX_OK,
                          sbx_write_from(sandbox, FILE_PATH, read_source, how ? 64 * MIB : SBX_NONE,
                                         &options, &err),
                          &err);
            assert_true(arrived > (uint64_t)(64 * MIB) && arrived < (uint64_t)(65 * MIB));
        } else {
            assert_status(&w, SBX_OK, sbx_read_to(sandbox, FILE_PATH, write_sink, &options, &err),
                          &err);
            assert_int_equal(s.at, 65798144);
        }
        assert_int_equal(s.wrong, 0);
        assert_between(s.progress_calls, 500, 1025);
        if (w.most_bytes >= (size_t)(1 * MIB))
            world_fail(&w, "%lu bytes at once", (unsigned long)w.most_bytes);
        sbx_free(sandbox);
        world_done(&w);
    }
}

/* ---- sandboxes that are not there ---- */

static void files_need_a_sandbox_that_is_ready(void **state)
{
    static const struct {
        const char *json;
        sbx_status status;
    } cases[] = {
        {"{\"name\":\"b\",\"status\":\"provisioning\",\"dataplane_url\":\"" WORLD_DATAPLANE "\"}",
         SBX_E_NOT_READY},
        {"{\"name\":\"b\",\"status\":\"failed\",\"dataplane_url\":\"" WORLD_DATAPLANE "\"}",
         SBX_E_NOT_READY},
        {"{\"name\":\"b\",\"status\":\"ready\"}", SBX_E_NO_DATAPLANE},
        {"{\"name\":\"b\",\"dataplane_url\":\"\"}", SBX_E_NO_DATAPLANE},
        {"{\"name\":\"b\",\"status\":\"stopped\",\"dataplane_url\":\"" WORLD_DATAPLANE "\"}",
         SBX_OK},
        {"{\"name\":\"b\",\"status\":\"odd\",\"dataplane_url\":\"" WORLD_DATAPLANE "/\"}", SBX_OK},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        stream s = stream_of(1);
        sbx_file_options options = options_for(&s, 0);
        world w;
        sbx_error err;
        sbx_sandbox *sandbox = NULL;
        sbx_bytes *bytes = NULL;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", "/v2/sandboxes/boxes/b");
        peer_reply(p, 200, cases[i].json);
        if (cases[i].status == SBX_OK) {
            p = world_peer(&w);
            peer_request(p, "GET", DOWNLOAD);
            peer_reply(p, 200, "x");
            peer_request(p, "POST", UPLOAD);
            peer_reply(p, 200, "x");
        }
        world_open(&w);
        assert_status(&w, SBX_OK, sbx_sandbox_get(w.client, "b", NULL, &sandbox, &err), &err);
        assert_status(&w, cases[i].status, sbx_read(sandbox, FILE_PATH, NULL, &bytes, &err), &err);
        assert_status(&w, cases[i].status,
                      sbx_write_from(sandbox, FILE_PATH, read_source, 1, &options, &err), &err);
        assert_int_equal(w.dials, cases[i].status == SBX_OK ? 2 : 1);
        sbx_free(bytes);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void a_bad_dataplane_url_of_the_service_is_an_error_without_traffic(void **state)
{
    static const char *const urls[] = {"ftp://127.0.0.1/",
                                       "127.0.0.1",
                                       "http://h\\r\\nX-Evil: 1/",
                                       "http://",
                                       "http://h:99999/",
                                       "http://h/a b",
                                       "http://h/?a",
                                       "http://h/?" WORLD_KEY,
                                       "ftp://" WORLD_KEY "/"};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(urls); i++) {
        char json[200];
        world w;
        sbx_error err;
        sbx_sandbox *sandbox = NULL;
        sbx_bytes *bytes = NULL;
        sbx_command *command = NULL;
        peer *p;
        sbx_status st;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", "/v2/sandboxes/boxes/b");
        snprintf(json, sizeof(json), "{\"dataplane_url\":\"%s\"}", urls[i]);
        peer_reply(p, 200, json);
        world_open(&w);
        assert_status(&w, SBX_OK, sbx_sandbox_get(w.client, "b", NULL, &sandbox, &err), &err);
        p = world_peer(&w);
        p->optional = 1;
        peer_head(p, "GET", "/nothing");
        st = sbx_read(sandbox, FILE_PATH, NULL, &bytes, &err);
        check_error(&w, st, &err);
        assert_null(bytes);
        if (st >= 0 || w.dials != 1)
            world_fail(&w, "the URL %s was used: %s", urls[i], wtext_get(&w.peers[1]->raw));
        assert_status(&w, st, sbx_command_start(sandbox, "true", NULL, &command, &err), &err);
        sbx_free(sandbox);
        world_done(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writing_sends_one_part_with_its_length),
        cmocka_unit_test(the_boundary_differs_from_call_to_call),
        cmocka_unit_test(paths_are_encoded),
        cmocka_unit_test(wrong_arguments_are_refused_without_traffic),
        cmocka_unit_test(a_source_is_sent_with_known_and_unknown_size),
        cmocka_unit_test(a_chunked_upload_holds_the_same_bytes),
        cmocka_unit_test(a_source_of_the_wrong_size_fails_the_call),
        cmocka_unit_test(a_source_that_claims_too_much_is_caught),
        cmocka_unit_test(a_source_that_fails_ends_the_call),
        cmocka_unit_test(progress_can_end_an_upload),
        cmocka_unit_test(progress_is_told_for_writes_from_memory_too),
        cmocka_unit_test(an_upload_refused_early_says_why),
        cmocka_unit_test(an_upload_that_was_not_read_to_its_end_did_not_succeed),
        cmocka_unit_test(an_upload_is_not_repeated_once_the_source_was_asked),
        cmocka_unit_test(whole_files_are_repeated_when_the_service_is_busy),
        cmocka_unit_test(files_are_read_in_every_form),
        cmocka_unit_test(a_missing_file_says_so),
        cmocka_unit_test(a_download_cut_anywhere_is_an_error),
        cmocka_unit_test(a_download_is_repeated_only_before_the_sink_was_called),
        cmocka_unit_test(a_sink_or_progress_that_fails_ends_the_download),
        cmocka_unit_test(a_file_beyond_max_body_is_too_big_for_memory_but_not_for_a_sink),
        cmocka_unit_test(a_transfer_may_take_long_as_long_as_something_moves),
        cmocka_unit_test(a_transfer_in_which_nothing_moves_ends_after_a_minute),
        cmocka_unit_test(time_that_a_callback_takes_does_not_count_as_standing_still),
        cmocka_unit_test(the_deadline_of_the_call_ends_a_transfer),
        cmocka_unit_test(streaming_64_mib_takes_less_than_one),
        cmocka_unit_test(files_need_a_sandbox_that_is_ready),
        cmocka_unit_test(a_bad_dataplane_url_of_the_service_is_an_error_without_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
