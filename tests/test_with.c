/* sbx_with_sandbox: the sandbox is deleted whatever happened, also when nobody knows whether there
   is one, and the first error is the one that is reported. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "world.h"

#define BOXES "/v2/sandboxes/boxes"
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- a service of one sandbox ---- */

/* What may become of a request besides an answer. */
enum { CLOSED = -1, RESET = -2, SILENT = -3, CUT = -4 };

typedef struct host {
    int created, deleted; /* how a creation and a deletion are answered: a status, or as above */
    const char *created_body; /* NULL: as it should be */
    const char *name;         /* that the service gives it; NULL: the one that was asked for */
    int before;               /* how the first creation is answered, if not 0 */
    int64_t delete_delay;

    int posts, deletes, boxes;
    char asked[80], target[200], body[400];
    int trace[2]; /* whether the requests had the caller's header */
} host;

static void answer(peer *p, int how, const char *body)
{
    if (how > 0)
        peer_reply(p, how, body);
    else if (how == CLOSED)
        peer_close(p);
    else if (how == RESET)
        peer_reset(p);
    else if (how == CUT) {
        peer_puts(p, "HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{\"name\":");
        peer_close(p);
    }
}

static void serve_host(peer *p, void *user)
{
    host *h = (host *)user;
    world_request *r = &p->request;
    char body[400];
    int trace = request_header(r, "X-Trace") != NULL;
    if (strcmp(r->method, "POST") == 0 && strcmp(r->target, BOXES) == 0) {
        int how = h->posts++ == 0 && h->before ? h->before : h->created;
        h->trace[0] = trace;
        json_member(wtext_get(&r->body), r->body.len, "name", h->asked, sizeof(h->asked));
        snprintf(h->body, sizeof(h->body), "%s", wtext_get(&r->body));
        snprintf(body, sizeof(body),
                 "{\"name\":\"%s\",\"status\":\"ready\",\"dataplane_url\":\"" WORLD_DATAPLANE "\"}",
                 h->name ? h->name : h->asked);
        h->boxes = how == 401 ? 0 : 1;
        peer_take_request(p);
        answer(p, how, h->created_body ? h->created_body : body);
    } else if (strcmp(r->method, "DELETE") == 0) {
        h->deletes++;
        h->trace[1] = trace;
        snprintf(h->target, sizeof(h->target), "%s", r->target);
        if (h->deleted > 0 && h->deleted < 300)
            h->boxes = 0;
        peer_take_request(p);
        if (h->delete_delay)
            peer_delay(p, h->delete_delay);
        answer(p, h->deleted, h->deleted == 204 ? "" : "{\"detail\":\"the service is ill\"}");
    } else {
        world_fail(p->w, "%s %s", r->method, r->target);
    }
}

static void host_open(host *h, world *w)
{
    memset(h, 0, sizeof(*h));
    h->created = 201;
    h->deleted = 204;
    world_init(w);
    w->serve = serve_host;
    w->serve_user = h;
}

/* ---- the function that runs with it ---- */

enum { UNFILLED, FILLED, OTHERWISE };

typedef struct visit {
    world *w;
    host *h;
    sbx_status returns;
    int fills;          /* what it leaves in err */
    sbx_cancel *cancel; /* to be set */
    sbx_state state;    /* that it wants to see */
    int calls;
    char name[200];
} visit;

static sbx_status body(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    visit *v = (visit *)user;
    v->calls++;
    assert_non_null(err);
    assert_int_equal(err->status, SBX_OK);
    assert_string_equal(err->message, "");
    assert_string_equal(err->resource_type, "");
    assert_ptr_equal(sandbox->client, v->w->client);
    assert_int_equal(sandbox->state, v->state ? v->state : SBX_STATE_READY);
    assert_int_equal(v->h->posts, v->h->before ? 2 : 1);
    assert_int_equal(v->h->deletes, 0);
    snprintf(v->name, sizeof(v->name), "%s", sandbox->name);
    if (v->cancel)
        sbx_cancel_set(v->w->client, v->cancel);
    if (v->fills != UNFILLED) {
        err->status = v->fills == FILLED ? v->returns : SBX_E_FILE;
        err->http_status = 418;
        err->resource_type = "file";
        snprintf(err->message, sizeof(err->message), "my own reason");
        snprintf(err->error_type, sizeof(err->error_type), "Mine");
    }
    return v->returns;
}

static visit visit_of(world *w, host *h)
{
    visit v;
    memset(&v, 0, sizeof(v));
    v.w = w;
    v.h = h;
    return v;
}

static sbx_sandbox_options python(void)
{
    sbx_sandbox_options options;
    memset(&options, 0, sizeof(options));
    options.template_name = "python";
    return options;
}

/* Whether the name is of the kind that is made up, and the deletion was for it. */
static void check_generated(world *w, const host *h)
{
    char target[200];
    if (strlen(h->asked) != 24 || strncmp(h->asked, "sandbox-", 8) != 0 ||
        strspn(h->asked + 8, "0123456789abcdef") != 16)
        world_fail(w, "the name is '%s'", h->asked);
    snprintf(target, sizeof(target), BOXES "/%s", h->asked);
    if (h->deletes)
        assert_string_equal(h->target, target);
}

/* ---- the good course ---- */

static void the_body_runs_once_with_a_ready_sandbox_that_is_then_deleted(void **state)
{
    char first[80] = "";
    int i;
    (void)state;
    for (i = 0; i < 4; i++) {
        sbx_sandbox_options options = python();
        wtext expected = {NULL, 0, 0};
        sbx_error err;
        visit v;
        host h;
        world w;
        host_open(&h, &w);
        w.seed *= (uint64_t)(2 * i + 1);
        world_open(&w);
        v = visit_of(&w, &h);
        assert_status(&w, SBX_OK,
                      sbx_with_sandbox(w.client, i % 2 ? &options : NULL, body, &v, &err), &err);
        assert_int_equal(v.calls, 1);
        assert_int_equal(h.posts, 1);
        assert_int_equal(h.deletes, 1);
        assert_int_equal(h.boxes, 0);
        assert_int_equal(w.dials, 1);
        assert_int_equal(w.slept, 0);
        check_generated(&w, &h);
        assert_string_equal(v.name, h.asked);
        assert_string_not_equal(h.asked, first);
        snprintf(first, sizeof(first), "%s", h.asked);
        wtext_printf(&expected, "{%s\"name\":\"%s\",\"wait_for_ready\":true,\"timeout\":30}",
                     i % 2 ? "\"template_name\":\"python\"," : "", h.asked);
        world_same_json(&w, &expected, h.body, strlen(h.body), "the creation");
        wtext_free(&expected);
        world_done(&w);
    }
}

static sbx_status no_entropy(void *state, void *buf, size_t len)
{
    (void)state;
    (void)buf;
    (void)len;
    return SBX_E_ENTROPY;
}

static void a_given_name_is_used(void **state)
{
    sbx_sandbox_options options = python();
    sbx_error err;
    visit v;
    host h;
    world w;
    (void)state;
    host_open(&h, &w);
    w.transport.entropy = no_entropy; /* there is nothing to choose */
    world_open(&w);
    v = visit_of(&w, &h);
    options.name = "my/box";
    assert_status(&w, SBX_OK, sbx_with_sandbox(w.client, &options, body, &v, &err), &err);
    assert_string_equal(h.asked, "my/box");
    assert_string_equal(v.name, "my/box");
    assert_string_equal(h.target, BOXES "/my%2Fbox");
    assert_int_equal(h.deletes, 1);
    world_done(&w);
}

static void what_is_deleted_is_what_the_service_called_it(void **state)
{
    /* Where it gives no name, the one that was asked for has to do. */
    static const char *const names[] = {"renamed", ""};
    int i, given;
    (void)state;
    for (i = 0; i < 2; i++)
        for (given = 0; given < 2; given++) {
            sbx_sandbox_options options = python();
            char target[200];
            sbx_error err;
            visit v;
            host h;
            world w;
            host_open(&h, &w);
            h.name = names[i];
            world_open(&w);
            v = visit_of(&w, &h);
            if (given)
                options.name = "mine";
            assert_status(&w, SBX_OK, sbx_with_sandbox(w.client, &options, body, &v, &err), &err);
            snprintf(target, sizeof(target), BOXES "/%s", i ? h.asked : "renamed");
            assert_string_equal(h.target, target);
            assert_int_equal(h.deletes, 1);
            world_done(&w);
        }
}

static void a_sandbox_that_is_not_awaited_is_passed_on_as_it_is(void **state)
{
    sbx_sandbox_options options = python();
    sbx_error err;
    visit v;
    host h;
    world w;
    (void)state;
    host_open(&h, &w);
    h.created_body = "{\"name\":\"b\",\"status\":\"provisioning\"}";
    world_open(&w);
    v = visit_of(&w, &h);
    v.state = SBX_STATE_PROVISIONING;
    options.no_wait = 1;
    assert_status(&w, SBX_OK, sbx_with_sandbox(w.client, &options, body, &v, &err), &err);
    assert_non_null(strstr(h.body, "\"wait_for_ready\":false"));
    assert_string_equal(h.target, BOXES "/b");
    world_done(&w);
}

static void the_headers_of_the_call_go_with_both_requests(void **state)
{
    static const char *const headers[] = {"X-Trace: 1", NULL};
    sbx_sandbox_options options = python();
    sbx_error err;
    visit v;
    host h;
    world w;
    (void)state;
    host_open(&h, &w);
    world_open(&w);
    v = visit_of(&w, &h);
    options.call.headers = headers;
    assert_status(&w, SBX_OK, sbx_with_sandbox(w.client, &options, body, &v, &err), &err);
    assert_int_equal(h.trace[0], 1);
    assert_int_equal(h.trace[1], 1);
    world_done(&w);
}

/* ---- what the body and the deletion say ---- */

static void the_first_error_is_reported_and_the_second_added(void **state)
{
    static const sbx_status returns[] = {SBX_OK,          SBX_AGAIN,     SBX_END,
                                         (sbx_status)77,  SBX_E_ABORTED, SBX_E_SERVICE,
                                         SBX_E_NOT_FOUND, SBX_E_MEMORY};
    static const struct {
        int how;
        sbx_status status; /* SBX_OK: the sandbox is gone */
    } deletions[] = {{204, SBX_OK},          {200, SBX_OK},    {404, SBX_OK},
                     {409, SBX_E_IN_USE},    {500, SBX_E_API}, {401, SBX_E_AUTHENTICATION},
                     {SILENT, SBX_E_TIMEOUT}};
    size_t i, k;
    int fills, unseen;
    (void)state;
    for (i = 0; i < COUNT(returns); i++)
        for (k = 0; k < COUNT(deletions); k++)
            for (fills = UNFILLED; fills <= OTHERWISE; fills++)
                for (unseen = 0; unseen < 2; unseen++) {
                    char added[160], said[100];
                    sbx_status st, expected;
                    sbx_error err;
                    visit v;
                    host h;
                    world w;
                    host_open(&h, &w);
                    h.deleted = deletions[k].how;
                    world_open(&w);
                    v = visit_of(&w, &h);
                    v.returns = returns[i];
                    v.fills = fills;
                    expected = returns[i] < 0 || deletions[k].status == SBX_OK
                                   ? returns[i]
                                   : deletions[k].status;
                    st = sbx_with_sandbox(w.client, NULL, body, &v, unseen ? NULL : &err);
                    assert_int_equal(st, expected);
                    assert_int_equal(v.calls, 1);
                    assert_int_equal(h.deletes, 1);
                    check_generated(&w, &h);
                    snprintf(added, sizeof(added),
                             "the sandbox %s could not be deleted: ", h.asked);
                    if (unseen) {
                        world_done(&w);
                        continue;
                    }
                    check_error(&w, st < 0 ? st : SBX_OK, &err);
                    if (deletions[k].status == SBX_OK)
                        assert_null(strstr(err.message, "deleted"));
                    else
                        assert_says(&w, &err, added);
                    if (returns[i] < 0 && fills == FILLED) {
                        assert_true(strncmp(err.message, "my own reason", 13) == 0);
                        assert_string_equal(err.resource_type, "file");
                        assert_string_equal(err.error_type, "Mine");
                        assert_int_equal(err.http_status, 418);
                    } else if (returns[i] < 0) {
                        snprintf(said, sizeof(said), "what ran with the sandbox ended with %s",
                                 sbx_status_name(returns[i]));
                        assert_true(strncmp(err.message, said, strlen(said)) == 0);
                        assert_string_equal(err.resource_type, "");
                        assert_string_equal(err.error_type, "");
                        assert_int_equal(err.http_status, 0);
                    } else if (st < 0) {
                        assert_string_equal(err.resource_type, "sandbox");
                        assert_string_equal(err.error_type, "");
                        assert_int_equal(err.http_status, h.deleted > 0 ? h.deleted : 0);
                        assert_true(strncmp(err.message, added, strlen(added)) == 0);
                    }
                    world_done(&w);
                }
}

static void the_key_in_a_name_does_not_reach_the_message(void **state)
{
    static const sbx_status returns[] = {SBX_OK, SBX_E_ABORTED};
    int i;
    (void)state;
    for (i = 0; i < 2; i++) {
        sbx_error err;
        visit v;
        host h;
        world w;
        host_open(&h, &w);
        h.name = WORLD_KEY;
        h.deleted = 500;
        world_open(&w);
        v = visit_of(&w, &h);
        v.returns = returns[i];
        assert_status(&w, i ? SBX_E_ABORTED : SBX_E_API,
                      sbx_with_sandbox(w.client, NULL, body, &v, &err), &err);
        assert_says(&w, &err, "the sandbox ***");
        world_done(&w);
    }
}

/* ---- creations that fail ---- */

typedef struct failure {
    int how;          /* as host.created */
    const char *body; /* NULL: a plain text */
    sbx_status status;
    int deletes; /* whether there may be a sandbox */
    int before;  /* as host.before */
} failure;

static const failure failures[] = {
    /* The service refused: there is none. */
    {400, NULL, SBX_E_SERVICE, 0, 0},
    {401, NULL, SBX_E_AUTHENTICATION, 0, 0},
    {403, NULL, SBX_E_AUTHENTICATION, 0, 0},
    {404, NULL, SBX_E_API, 0, 0},
    {404, "{\"detail\":{\"error\":\"TemplateNotFound\",\"message\":\"m\"}}", SBX_E_NOT_FOUND, 0, 0},
    {409, NULL, SBX_E_ALREADY_EXISTS, 0, 0},
    {422, "{\"detail\":[{\"loc\":[\"x\"],\"msg\":\"m\",\"type\":\"value_error\"}]}",
     SBX_E_VALIDATION, 0, 0},
    {429, NULL, SBX_E_QUOTA, 0, 0},
    {499, NULL, SBX_E_SERVICE, 0, 0},
    {401, NULL, SBX_E_AUTHENTICATION, 0, 503},
    {401, NULL, SBX_E_AUTHENTICATION, 0, 429},
    /* It is there, but does not work, or nobody knows. */
    {422, "{\"detail\":{\"error\":\"ImagePull\",\"message\":\"m\"}}", SBX_E_CREATION, 1, 0},
    {408, NULL, SBX_E_RESOURCE_TIMEOUT, 1, 0},
    {500, NULL, SBX_E_API, 1, 0},
    {502, NULL, SBX_E_SERVICE, 1, 0},
    {502, "{\"detail\":{\"error\":\"ConnectionError\",\"message\":\"m\"}}", SBX_E_CONNECTION, 1, 0},
    {503, NULL, SBX_E_CREATION, 1, 0},
    {504, NULL, SBX_E_SERVICE, 1, 0},
    {599, NULL, SBX_E_SERVICE, 1, 0},
    {302, NULL, SBX_E_SERVICE, 1, 0},
    {399, NULL, SBX_E_SERVICE, 1, 0},
    {401, NULL, SBX_E_AUTHENTICATION, 1, 502},
    {409, NULL, SBX_E_ALREADY_EXISTS, 1, 504},
    {201, "not JSON", SBX_E_PROTOCOL, 1, 0},
    {201, "{\"name\":[]}", SBX_E_PROTOCOL, 1, 0},
    {CLOSED, NULL, SBX_E_CONNECTION, 1, 0},
    {RESET, NULL, SBX_E_CONNECTION, 1, 0},
    {CUT, NULL, SBX_E_CONNECTION, 1, 0},
    {SILENT, NULL, SBX_E_TIMEOUT, 1, 0},
};

static void fail_to_create(const failure *f, int given, int deleted, int unseen)
{
    sbx_sandbox_options options = python();
    int deletes = f->deletes && !given, gone = deleted == 204 || deleted == 404;
    sbx_status st;
    sbx_error err;
    visit v;
    host h;
    world w;
    host_open(&h, &w);
    h.created = f->how;
    h.created_body = f->body ? f->body : "{\"detail\":\"the creation failed\"}";
    h.before = f->before;
    h.deleted = deleted;
    w.config.max_retries = f->before ? 1 : SBX_NONE;
    if (given)
        options.name = "mine";
    world_open(&w);
    v = visit_of(&w, &h);
    st = sbx_with_sandbox(w.client, &options, body, &v, unseen ? NULL : &err);
    if (st != f->status || v.calls || h.deletes != deletes)
        world_fail(&w, "creation %d after %d: %s, %d calls, %d deletions", f->how, f->before,
                   sbx_status_name(st), v.calls, h.deletes);
    if (given)
        assert_string_equal(h.asked, "mine");
    else
        check_generated(&w, &h);
    if (!unseen) {
        char added[160];
        check_error(&w, st, &err);
        assert_int_equal(err.http_status, f->how > 0 && f->how != 201 ? f->how : 0);
        if (!f->body && f->how > 0)
            assert_true(strncmp(err.message, "the creation failed (HTTP ", 26) == 0);
        snprintf(added, sizeof(added), "; and the sandbox %s could not be deleted: ", h.asked);
        assert_int_equal(strstr(err.message, added) != NULL, deletes && !gone);
        if (deletes && !gone)
            assert_says(&w, &err, "the service is ill");
    }
    world_done(&w);
}

static void a_failed_creation_is_cleaned_up_where_it_may_have_worked(void **state)
{
    static const int deleted[] = {204, 404, 500};
    size_t i, k;
    int unseen;
    (void)state;
    for (i = 0; i < COUNT(failures); i++)
        for (k = 0; k < COUNT(deleted); k++)
            for (unseen = 0; unseen < 2; unseen++)
                fail_to_create(&failures[i], 0, deleted[k], unseen);
}

static void a_name_of_the_callers_own_is_not_deleted_when_the_creation_failed(void **state)
{
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(failures); i++)
        fail_to_create(&failures[i], 1, 204, 0);
}

static void nothing_is_deleted_where_nothing_was_sent(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 3; how++) {
        sbx_error err;
        visit v;
        host h;
        world w;
        int i;
        host_open(&h, &w);
        for (i = 0; i < 4; i++) {
            peer *p = world_peer(&w);
            if (how == 0)
                p->refuse = SBX_E_CONNECT;
            else if (how == 1)
                p->refuse_dial = SBX_E_CONNECT;
            else
                p->take_at_most = 0;
            p->optional = how == 2;
        }
        world_open(&w);
        v = visit_of(&w, &h);
        assert_true(
            sbx_status_is(sbx_with_sandbox(w.client, NULL, body, &v, &err), SBX_E_CONNECTION));
        assert_int_equal(v.calls, 0);
        assert_int_equal(h.deletes, 0);
        world_done(&w);
    }
}

static void what_was_sent_in_part_may_have_arrived(void **state)
{
    sbx_error err;
    visit v;
    host h;
    world w;
    peer *p;
    (void)state;
    host_open(&h, &w);
    p = world_peer(&w);
    p->take_at_most = 60;
    p->optional = 1;
    world_open(&w);
    v = visit_of(&w, &h);
    h.deleted = 404;
    assert_status(&w, SBX_E_CONNECTION, sbx_with_sandbox(w.client, NULL, body, &v, &err), &err);
    assert_int_equal(v.calls, 0);
    assert_int_equal(h.deletes, 1);
    assert_true(strncmp(h.target, BOXES "/sandbox-", strlen(BOXES "/sandbox-")) == 0);
    assert_null(strstr(err.message, "deleted"));
    world_done(&w);
}

static void a_lost_answer_before_a_refused_connection_is_remembered(void **state)
{
    sbx_error err;
    visit v;
    host h;
    world w;
    peer *p;
    (void)state;
    host_open(&h, &w);
    w.config.max_retries = 1;
    p = world_peer(&w);
    peer_request(p, "POST", BOXES);
    peer_reply_with(p, 504, "Connection: close\r\n", "{}");
    peer_close(p);
    world_peer(&w)->refuse = SBX_E_CONNECT;
    world_open(&w);
    v = visit_of(&w, &h);
    assert_status(&w, SBX_E_CONNECT, sbx_with_sandbox(w.client, NULL, body, &v, &err), &err);
    assert_int_equal(h.deletes, 1);
    world_done(&w);
}

/* ---- cancelling and time limits ---- */

static void cancel_now(world *w, void *user)
{
    sbx_cancel_set(w->client, (sbx_cancel *)user);
}

static void a_cancelled_creation_is_cleaned_up(void **state)
{
    static const int hows[] = {SILENT, 503, 429};
    size_t i;
    int given;
    (void)state;
    for (i = 0; i < COUNT(hows); i++)
        for (given = 0; given < 2; given++) {
            sbx_sandbox_options options = python();
            sbx_cancel cancel = {0};
            sbx_error err;
            visit v;
            host h;
            world w;
            int64_t start;
            host_open(&h, &w);
            h.created = hows[i];
            h.created_body = "{}";
            h.delete_delay = 2000;
            world_open(&w);
            v = visit_of(&w, &h);
            options.call.cancel = &cancel;
            options.name = given ? "mine" : NULL;
            start = w.now;
            world_at(&w, 500, cancel_now, &cancel);
            assert_status(&w, SBX_E_CANCELLED, sbx_with_sandbox(w.client, &options, body, &v, &err),
                          &err);
            assert_int_equal(w.now - start, given ? 500 : 2500);
            assert_int_equal(v.calls, 0);
            assert_int_equal(h.posts, 1);
            assert_int_equal(h.deletes, given ? 0 : 1);
            assert_null(strstr(err.message, "deleted"));
            if (!given)
                check_generated(&w, &h);
            world_done(&w);
        }
}

static void a_cancel_that_is_set_before_sends_nothing(void **state)
{
    sbx_sandbox_options options = python();
    sbx_cancel cancel = {1};
    sbx_error err;
    visit v;
    host h;
    world w;
    (void)state;
    host_open(&h, &w);
    world_open(&w);
    v = visit_of(&w, &h);
    options.call.cancel = &cancel;
    assert_status(&w, SBX_E_CANCELLED, sbx_with_sandbox(w.client, &options, body, &v, &err), &err);
    assert_int_equal(v.calls, 0);
    assert_int_equal(w.dials, 0);
    world_done(&w);
}

static void a_cancel_in_the_body_does_not_stop_the_deletion(void **state)
{
    sbx_sandbox_options options = python();
    sbx_cancel cancel = {0};
    sbx_error err;
    visit v;
    host h;
    world w;
    (void)state;
    host_open(&h, &w);
    h.delete_delay = 3000;
    world_open(&w);
    v = visit_of(&w, &h);
    v.cancel = options.call.cancel = &cancel;
    v.returns = SBX_E_CANCELLED;
    assert_status(&w, SBX_E_CANCELLED, sbx_with_sandbox(w.client, &options, body, &v, &err), &err);
    assert_int_equal(v.calls, 1);
    assert_int_equal(h.boxes, 0);
    assert_int_equal(w.slept, 3000);
    world_done(&w);
}

/* The wait hook says that it is enough, at each wait in turn. */
static void a_wait_that_ends_the_call_does_not_lose_the_sandbox(void **state)
{
    int n, calls = 1;
    (void)state;
    for (n = 1; calls; n++) {
        sbx_status st;
        sbx_error err;
        visit v;
        host h;
        world w;
        host_open(&h, &w);
        h.delete_delay = 100;
        world_peer(&w)->connect_ms = 10;
        w.peers[0]->optional = 1;
        w.fail_kinds = WORLD_WAIT;
        w.fail_call = n;
        world_open(&w);
        v = visit_of(&w, &h);
        st = sbx_with_sandbox(w.client, NULL, body, &v, &err);
        calls = w.failed_calls;
        check_error(&w, st, &err);
        assert_int_equal(st, calls ? SBX_E_CANCELLED : SBX_OK);
        assert_int_equal(h.deletes, h.posts);
        if (h.boxes)
            assert_says(&w, &err, "could not be deleted");
        world_done(&w);
    }
    assert_true(n > 2);
}

static void the_time_limit_of_the_call_is_for_the_creation(void **state)
{
    int silent;
    (void)state;
    for (silent = 0; silent < 2; silent++) {
        sbx_sandbox_options options = python();
        sbx_error err;
        visit v;
        host h;
        world w;
        int64_t start;
        host_open(&h, &w);
        h.created = silent ? SILENT : 201;
        h.delete_delay = 7000;
        world_open(&w);
        v = visit_of(&w, &h);
        options.call.timeout_ms = 500;
        start = w.now;
        assert_status(&w, silent ? SBX_E_TIMEOUT : SBX_OK,
                      sbx_with_sandbox(w.client, &options, body, &v, &err), &err);
        assert_int_equal(w.now - start, silent ? 7500 : 7000);
        assert_int_equal(h.deletes, 1);
        assert_int_equal(h.boxes, 0);
        world_done(&w);
    }
}

static void deleting_takes_thirty_seconds_at_most(void **state)
{
    static const struct {
        int64_t timeout_ms;
        int how, max_retries;
        int64_t takes;
    } cases[] = {
        {0, SILENT, 0, 10000},
        {SBX_NONE, SILENT, 0, 30000},
        {60000, SILENT, 0, 30000},
        {0, 503, 100, 30000},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_error err;
        visit v;
        host h;
        world w;
        int64_t start;
        host_open(&h, &w);
        h.deleted = cases[i].how;
        w.config.timeout_ms = cases[i].timeout_ms;
        w.config.max_retries = cases[i].max_retries;
        world_open(&w);
        v = visit_of(&w, &h);
        start = w.now;
        assert_status(&w, SBX_E_TIMEOUT, sbx_with_sandbox(w.client, NULL, body, &v, &err), &err);
        assert_int_equal(w.now - start, cases[i].takes);
        assert_says(&w, &err, h.asked);
        world_done(&w);
    }
}

static void a_deletion_is_repeated_like_any_other(void **state)
{
    int how;
    (void)state;
    for (how = 0; how < 3; how++) {
        sbx_error err;
        world w;
        peer *p;
        visit v;
        host h;
        host_open(&h, &w);
        h.posts = 1;
        p = world_peer(&w);
        peer_request(p, "POST", BOXES);
        peer_reply(p, 201, "{\"name\":\"b\"}");
        peer_request(p, "DELETE", BOXES "/b");
        if (how == 0)
            peer_reply(p, 503, "{}");
        else if (how == 1)
            peer_close(p);
        else
            peer_reset(p);
        if (how)
            p = world_peer(&w);
        peer_request(p, "DELETE", BOXES "/b");
        peer_reply(p, how == 1 ? 404 : 204, how == 1 ? "{}" : "");
        w.serve = NULL;
        world_open(&w);
        v = visit_of(&w, &h);
        assert_status(&w, SBX_OK, sbx_with_sandbox(w.client, NULL, body, &v, &err), &err);
        assert_int_equal(v.calls, 1);
        world_done(&w);
    }
}

/* ---- arguments ---- */

static void what_is_wrong_is_said_before_anything_is_sent(void **state)
{
    static const char *const names[] = {"", "a\nb", "\xff"};
    sbx_sandbox_options options = python();
    sbx_error err;
    visit v;
    host h;
    world w;
    size_t i;
    (void)state;
    host_open(&h, &w);
    world_open(&w);
    v = visit_of(&w, &h);
    assert_status(&w, SBX_E_ARGUMENT, sbx_with_sandbox(NULL, &options, body, &v, &err), &err);
    assert_string_equal(err.field, "client");
    assert_status(&w, SBX_E_ARGUMENT, sbx_with_sandbox(w.client, &options, NULL, &v, &err), &err);
    assert_string_equal(err.field, "body");
    assert_int_equal(sbx_with_sandbox(NULL, NULL, body, &v, NULL), SBX_E_ARGUMENT);
    assert_int_equal(sbx_with_sandbox(w.client, NULL, NULL, &v, NULL), SBX_E_ARGUMENT);
    for (i = 0; i < COUNT(names); i++) {
        options.name = names[i];
        assert_status(&w, SBX_E_ARGUMENT, sbx_with_sandbox(w.client, &options, body, &v, &err),
                      &err);
        assert_string_equal(err.field, "name");
        assert_int_equal(sbx_with_sandbox(w.client, &options, body, &v, NULL), SBX_E_ARGUMENT);
    }
    options.name = NULL;
    options.snapshot_id = "s";
    assert_status(&w, SBX_E_ARGUMENT, sbx_with_sandbox(w.client, &options, body, &v, &err), &err);
    assert_string_equal(err.field, "template_name");
    options = python();
    options.call.timeout_ms = -2;
    assert_status(&w, SBX_E_ARGUMENT, sbx_with_sandbox(w.client, &options, body, &v, &err), &err);
    assert_string_equal(err.field, "timeout_ms");
    assert_int_equal(v.calls, 0);
    assert_int_equal(w.dials, 0);
    world_done(&w);
}

static void a_transport_that_cannot_wait_is_refused(void **state)
{
    sbx_error err;
    visit v;
    host h;
    world w;
    (void)state;
    host_open(&h, &w);
    w.transport.wait = NULL;
    world_open(&w);
    v = visit_of(&w, &h);
    assert_status(&w, SBX_E_UNSUPPORTED, sbx_with_sandbox(w.client, NULL, body, &v, &err), &err);
    assert_int_equal(sbx_with_sandbox(w.client, NULL, body, &v, NULL), SBX_E_UNSUPPORTED);
    assert_int_equal(v.calls, 0);
    assert_int_equal(w.dials, 0);
    world_done(&w);
}

static void a_name_that_cannot_be_made_up_ends_the_call(void **state)
{
    sbx_error err;
    visit v;
    host h;
    world w;
    (void)state;
    host_open(&h, &w);
    world_open(&w);
    v = visit_of(&w, &h);
    w.fail_kinds = WORLD_ENTROPY;
    w.fail_call = 1;
    assert_status(&w, SBX_E_ENTROPY, sbx_with_sandbox(w.client, NULL, body, &v, &err), &err);
    assert_int_equal(v.calls, 0);
    assert_int_equal(w.dials, 0);
    world_done(&w);
}

/* ---- memory ---- */

static void every_allocation_may_fail(void **state)
{
    static const struct {
        int created;
        sbx_status returns, status;
    } cases[] = {{201, SBX_OK, SBX_OK},
                 {201, SBX_E_ABORTED, SBX_E_ABORTED},
                 {500, SBX_OK, SBX_E_API},
                 {CLOSED, SBX_OK, SBX_E_CONNECTION}};
    size_t i;
    int from, n, done;
    (void)state;
    for (i = 0; i < COUNT(cases); i++)
        for (from = 0; from < 2; from++) {
            for (n = 1, done = 0; !done; n++) {
                sbx_status st;
                sbx_error err;
                visit v;
                host h;
                world w;
                host_open(&h, &w);
                h.created = cases[i].created;
                world_open(&w);
                v = visit_of(&w, &h);
                v.returns = cases[i].returns;
                v.fills = FILLED;
                w.allocs = 0;
                w.fail_alloc = n;
                w.fail_from = from;
                st = sbx_with_sandbox(w.client, NULL, body, &v, &err);
                done = !w.failed_allocs;
                check_error(&w, st, &err);
                if (st != cases[i].status && st != SBX_E_MEMORY)
                    world_fail(&w, "allocation %d: %s: %s", n, sbx_status_name(st), err.message);
                if (done)
                    assert_int_equal(st, cases[i].status);
                /* Either it was deleted, or that is what went wrong, and it is said. */
                assert_in_range(h.deletes, 0, 1);
                if (h.posts && !h.deletes) {
                    char added[160];
                    snprintf(added, sizeof(added), "the sandbox %s could not be deleted: out of",
                             h.asked);
                    assert_says(&w, &err, added);
                }
                if (h.posts)
                    check_generated(&w, &h);
                else
                    assert_int_equal(h.deletes, 0);
                /* world_done sees to it that no block is left. */
                world_done(&w);
            }
            assert_true(n > 8);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_body_runs_once_with_a_ready_sandbox_that_is_then_deleted),
        cmocka_unit_test(a_given_name_is_used),
        cmocka_unit_test(what_is_deleted_is_what_the_service_called_it),
        cmocka_unit_test(a_sandbox_that_is_not_awaited_is_passed_on_as_it_is),
        cmocka_unit_test(the_headers_of_the_call_go_with_both_requests),
        cmocka_unit_test(the_first_error_is_reported_and_the_second_added),
        cmocka_unit_test(the_key_in_a_name_does_not_reach_the_message),
        cmocka_unit_test(a_failed_creation_is_cleaned_up_where_it_may_have_worked),
        cmocka_unit_test(a_name_of_the_callers_own_is_not_deleted_when_the_creation_failed),
        cmocka_unit_test(nothing_is_deleted_where_nothing_was_sent),
        cmocka_unit_test(what_was_sent_in_part_may_have_arrived),
        cmocka_unit_test(a_lost_answer_before_a_refused_connection_is_remembered),
        cmocka_unit_test(a_cancelled_creation_is_cleaned_up),
        cmocka_unit_test(a_cancel_that_is_set_before_sends_nothing),
        cmocka_unit_test(a_cancel_in_the_body_does_not_stop_the_deletion),
        cmocka_unit_test(a_wait_that_ends_the_call_does_not_lose_the_sandbox),
        cmocka_unit_test(the_time_limit_of_the_call_is_for_the_creation),
        cmocka_unit_test(deleting_takes_thirty_seconds_at_most),
        cmocka_unit_test(a_deletion_is_repeated_like_any_other),
        cmocka_unit_test(what_is_wrong_is_said_before_anything_is_sent),
        cmocka_unit_test(a_transport_that_cannot_wait_is_refused),
        cmocka_unit_test(a_name_that_cannot_be_made_up_ends_the_call),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
