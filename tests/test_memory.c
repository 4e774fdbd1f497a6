/* The quick start and each call of the control plane with each allocation, and the quick start with
   each call of the transport, failing in turn: a clear error, nothing left behind, no hang. And what
   it costs when nothing fails. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "calls.h"
#include "service.h"

static const service_output outputs[] = {{SBX_STDOUT, "4\n"}, {SBX_STDERR, "warning\n"}};

/* Both ends of the client's life included. Stops at the first error and cleans up. */
static sbx_status quick_start(world *w, sbx_error *err)
{
    sbx_template_options template;
    sbx_sandbox_options options;
    sbx_template *got_template = NULL;
    sbx_sandbox *sandbox = NULL;
    sbx_result *result = NULL;
    sbx_bytes *bytes = NULL;
    sbx_status st;
    memset(&template, 0, sizeof(template));
    memset(&options, 0, sizeof(options));
    template.name = options.template_name = "python";
    template.image = "python:3.12-slim";
    st = sbx_open(&w->config, &w->client, err);
    check_error(w, st, err);
    if (st != SBX_OK) {
        assert_null(w->client);
        return st;
    }
    st = sbx_template_create(w->client, &template, &got_template, err);
    if (st == SBX_OK)
        st = sbx_sandbox_create(w->client, &options, &sandbox, err);
    if (st == SBX_OK)
        st = sbx_run(sandbox, "python3 -c 'print(2 + 2)'", NULL, &result, err);
    if (st == SBX_OK) {
        assert_string_equal(result->out, "4\n");
        assert_string_equal(result->err, "warning\n");
        assert_int_equal(result->exit_code, 0);
        st = sbx_write(sandbox, "/tmp/a", "hello", 5, NULL, err);
    }
    if (st == SBX_OK)
        st = sbx_read(sandbox, "/tmp/a", NULL, &bytes, err);
    if (st == SBX_OK) {
        assert_string_equal(bytes->data, "hello");
        st = sbx_sandbox_delete(w->client, sandbox->name, NULL, err);
    }
    if (st == SBX_OK)
        st = sbx_template_delete(w->client, "python", NULL, err);
    check_error(w, st, err);
    sbx_free(bytes);
    sbx_free(result);
    sbx_free(sandbox);
    sbx_free(got_template);
    return st;
}

static void service_world(world *w, service *s)
{
    world_init(w);
    service_init(s, w);
    s->outputs = outputs;
    s->output_count = 2;
}

static void service_done(world *w, service *s)
{
    service_free(s);
    world_done(w);
}

static void the_quick_start_takes_one_connection_for_each_plane_and_one_for_the_command(
    void **state)
{
    world w;
    service s;
    sbx_error err;
    (void)state;
    service_world(&w, &s);
    assert_status(&w, SBX_OK, quick_start(&w, &err), &err);
    assert_int_equal(s.executions, 1);
    assert_int_equal(s.templates, 0);
    assert_int_equal(s.boxes, 0);
    /* Control plane, command, files. */
    assert_int_equal(w.dials, 3);
    assert_int_equal(w.peers[0]->requests, 4);
    assert_int_equal(w.peers[2]->requests, 2);
    assert_int_equal(w.slept, 0);
    service_done(&w, &s);
}

static void running_true_takes_few_allocations(void **state)
{
    static const service_output nothing[] = {{SBX_STDOUT, ""}};
    world w;
    service s;
    sbx_error err;
    sbx_sandbox *sandbox;
    sbx_result *result = NULL;
    int before;
    (void)state;
    service_world(&w, &s);
    s.outputs = nothing;
    s.output_count = 0;
    world_open(&w);
    sandbox = world_sandbox(&w);
    before = w.allocs;
    assert_status(&w, SBX_OK, sbx_run(sandbox, "true", NULL, &result, &err), &err);
    print_message("sbx_run of true: %d allocations, %lu bytes at most, %d reads, %d writes, "
                  "%d connection\n",
                  w.allocs - before, (unsigned long)w.most_bytes, w.reads, w.writes, w.dials);
    assert_int_equal(w.dials, 1);
    assert_between(w.allocs - before, 1, 24);
    assert_true(w.most_bytes < 256 * 1024);
    sbx_free(result);
    sbx_free(sandbox);
    service_done(&w, &s);
}

static void every_allocation_may_fail(void **state)
{
    int n, from, whole = -1;
    (void)state;
    for (from = 0; from < 2; from++) {
        for (n = 1, whole = -1;; n++) {
            world w;
            service s;
            sbx_error err;
            sbx_status st;
            service_world(&w, &s);
            w.fail_alloc = n;
            w.fail_from = from;
            st = quick_start(&w, &err);
            if (st == SBX_OK) {
                /* Nothing may have failed unseen, unless it was something one can do without. */
                if (!w.failed_allocs)
                    whole = n - 1;
                assert_int_equal(s.executions, 1);
            } else if (st != SBX_E_MEMORY) {
                world_fail(&w, "allocation %d: %s: %s", n, sbx_status_name(st), err.message);
            }
            service_done(&w, &s);
            if (whole == n - 1)
                break;
            if (n > 2000)
                fail_msg("more than 2000 allocations");
        }
        assert_true(whole > 10 || from);
    }
    print_message("quick start: %d allocations\n", whole);
}

/* An answer that every call of the control plane is content with, and one that none is. */
static void serve_anything(peer *p, void *user)
{
    peer_take_request(p);
    if (*(int *)user)
        peer_reply(
            p, 409,
            "{\"detail\":[{\"loc\":[\"a\"],\"msg\":\"b\"},{\"loc\":[\"c\"],\"msg\":\"d\"}]}");
    else
        peer_reply(
            p, 200,
            "{\"name\":\"n\",\"templates\":[{\"volume_mounts\":[{},{}]}],\"volumes\":[{},{}],"
            "\"pools\":[{\"replicas\":1}],\"sandboxes\":[{\"vcpus\":1}],"
            "\"volume_mounts\":[{\"mount_path\":\"p\"}]}");
}

static void every_allocation_of_every_call_may_fail(void **state)
{
    static const char *const headers[] = {"X-Trace: 1", NULL};
    sbx_call call = {0, headers, NULL};
    int which, from, refuses, n, least = 1000, most = 0;
    (void)state;
    for (which = 0; which < CALLS; which++)
        for (refuses = 0; refuses < 2; refuses++)
            for (from = 0; from < 2; from++) {
                int failed = 1;
                for (n = 1; failed; n++) {
                    sbx_error err;
                    sbx_status st;
                    world w;
                    world_init(&w);
                    w.serve = serve_anything;
                    w.serve_user = &refuses;
                    world_open(&w);
                    w.allocs = 0;
                    w.fail_alloc = n;
                    w.fail_from = from;
                    st = call_with(&w, which, &call, &err);
                    failed = w.failed_allocs;
                    if (failed ? st != SBX_E_MEMORY && st != SBX_OK && !err.http_status
                               : (st == SBX_OK) == refuses)
                        world_fail(&w, "%s, allocation %d: %s: %s", calls[which].function, n,
                                   sbx_status_name(st), err.message);
                    world_done(&w);
                }
                least = n - 2 < least ? n - 2 : least;
                most = n - 2 > most ? n - 2 : most;
            }
    print_message("a call of the control plane: %d to %d allocations\n", least, most);
    assert_between(least, 4, most);
    assert_true(most < 20);
}

/* The kinds of calls, with the families of errors that each may lead to. */
typedef struct failing_kind {
    unsigned kind;
    const char *name;
    sbx_status family;
} failing_kind;

static const failing_kind kinds[] = {
    {WORLD_DIAL, "dial", SBX_E_CONNECTION}, {WORLD_CONNECT, "connect", SBX_E_CONNECTION},
    {WORLD_IN, "read", SBX_E_CONNECTION},   {WORLD_OUT, "write", SBX_E_CONNECTION},
    {WORLD_WAIT, "wait", SBX_E_CANCELLED},  {WORLD_ENTROPY, "entropy", SBX_E_ENTROPY},
};

static void every_call_of_the_transport_may_fail(void **state)
{
    size_t k;
    int n, tls, failures;
    (void)state;
    for (k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        for (tls = 0; tls < 2; tls++) {
            failures = 0;
            for (n = 1;; n++) {
                world w;
                service s;
                sbx_error err;
                sbx_status st;
                int failed, i;
                service_world(&w, &s);
                if (tls)
                    w.config.endpoint = "https://127.0.0.1:8080/v2/sandboxes";
                for (i = 0; i < 3; i++) {
                    /* More calls, and so more places where one can fail. */
                    peer *p = world_peer(&w);
                    p->optional = 1;
                    p->every_other = tls;
                    p->write_max = 200;
                    p->connect_ms = 5; /* for something to wait for */
                }
                w.fail_kinds = kinds[k].kind;
                w.fail_call = n;
                st = quick_start(&w, &err);
                failed = w.failed_calls;
                failures += st < 0;
                if (st < 0 && !sbx_status_is(st, kinds[k].family))
                    world_fail(&w, "%s number %d: %s: %s", kinds[k].name, n, sbx_status_name(st),
                               err.message);
                if (st == SBX_OK && s.executions != 1)
                    world_fail(&w, "%s number %d: %d executions", kinds[k].name, n, s.executions);
                if (st == SBX_OK && !failed)
                    assert_int_equal(s.boxes, 0);
                service_done(&w, &s);
                if (!failed)
                    break;
                if (n > 5000)
                    fail_msg("more than 5000 calls of %s", kinds[k].name);
            }
            print_message("%s%s: %d calls, of which %d ended a call of the user\n", kinds[k].name,
                          tls ? " with TLS" : "", n - 1, failures);
            assert_true(n > 1);
        }
    }
}

static void a_command_in_hand_survives_failing_allocations(void **state)
{
    int n, done = 0;
    (void)state;
    for (n = 1; !done; n++) {
        world w;
        service s;
        sbx_error err;
        sbx_status st;
        sbx_sandbox *sandbox;
        sbx_command *command = NULL;
        sbx_result *result = NULL;
        sbx_chunk chunk;
        service_world(&w, &s);
        world_open(&w);
        sandbox = world_sandbox(&w);
        w.allocs = 0;
        w.fail_alloc = n;
        st = sbx_command_start(sandbox, "x", NULL, &command, &err);
        while (st == SBX_OK)
            st = sbx_command_next(command, &chunk, SBX_NONE, &err);
        if (st == SBX_END)
            st = sbx_command_result(command, &result, &err);
        check_error(&w, st, &err);
        if (st != SBX_OK && st != SBX_E_MEMORY)
            world_fail(&w, "allocation %d: %s: %s", n, sbx_status_name(st), err.message);
        done = !w.failed_allocs;
        assert_int_equal(result != NULL, st == SBX_OK);
        sbx_free(result);
        sbx_command_free(command);
        sbx_free(sandbox);
        service_done(&w, &s);
    }
    assert_true(n > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            the_quick_start_takes_one_connection_for_each_plane_and_one_for_the_command),
        cmocka_unit_test(running_true_takes_few_allocations),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(every_allocation_of_every_call_may_fail),
        cmocka_unit_test(every_call_of_the_transport_may_fail),
        cmocka_unit_test(a_command_in_hand_survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
