/* Opening a client: what of a configuration is refused, what comes from the environment, which
   headers go out, and where the API key goes and where it never does. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "world.h"

#define TEMPLATE "{\"name\":\"t\",\"image\":\"i\"}"
#define TEMPLATE_PATH "/v2/sandboxes/templates/t"

static void clear_environment(void)
{
    unsetenv("LANGSMITH_ENDPOINT");
    unsetenv("LANGCHAIN_ENDPOINT");
    unsetenv("LANGSMITH_API_KEY");
    unsetenv("LANGCHAIN_API_KEY");
}

/* Gets the template "t" with the world's client. */
static void get_template(world *w, const sbx_call *call)
{
    sbx_template *got = NULL;
    sbx_error err;
    assert_status(w, SBX_OK, sbx_template_get(w->client, "t", call, &got, &err), &err);
    assert_string_equal(got->name, "t");
    sbx_free(got);
}

/* Opening must fail with SBX_E_ARGUMENT that names the member. */
static void refuse(world *w, const char *member)
{
    sbx_error err;
    sbx_client *client = (sbx_client *)w;
    assert_status(w, SBX_E_ARGUMENT, sbx_open(&w->config, &client, &err), &err);
    assert_null(client);
    if (strcmp(err.field, member) != 0)
        world_fail(w, "the field is '%s', not '%s': %s", err.field, member, err.message);
    assert_says(w, &err, member);
    assert_int_equal(w->open, 0);
    assert_int_equal(w->live_blocks, 0);
    assert_int_equal(sbx_open(&w->config, &client, NULL), SBX_E_ARGUMENT);
}

static void opens_and_closes_without_traffic(void **state)
{
    world w;
    (void)state;
    world_init(&w);
    world_open(&w);
    assert_int_equal(w.open, 1);
    assert_int_equal(w.dials, 0);
    assert_int_equal(w.waits, 0);
    world_done(&w);
}

static void freeing_null_is_fine(void **state)
{
    (void)state;
    sbx_close(NULL);
    sbx_free(NULL);
    sbx_op_free(NULL);
    sbx_command_free(NULL);
}

static void null_in_place_of_an_operation_or_a_cancel_is_harmless(void **state)
{
    world w;
    sbx_item items[SBX_ITEMS];
    int64_t ms = 7;
    (void)state;
    world_init(&w);
    world_open(&w);
    assert_int_equal(sbx_op_wants(NULL, items, SBX_ITEMS, &ms), 0);
    sbx_op_cancel(NULL);
    sbx_cancel_set(NULL, NULL);
    sbx_cancel_set(w.client, NULL);
    assert_string_equal(sbx_command_id(NULL), "");
    world_done(&w);
}

static void refuses_missing_arguments(void **state)
{
    world w;
    sbx_client *client = NULL;
    sbx_error err;
    (void)state;
    world_init(&w);
    assert_status(&w, SBX_E_ARGUMENT, sbx_open(NULL, &client, &err), &err);
    assert_null(client);
    assert_status(&w, SBX_E_ARGUMENT, sbx_open(&w.config, NULL, &err), &err);
    world_done(&w);
}

static void refuses_a_transport_without_the_required_hooks(void **state)
{
    world w;
    (void)state;
    world_init(&w);
    w.config.transport = NULL;
    refuse(&w, "transport");
    w.config.transport = &w.transport;
    w.transport.dial = NULL;
    refuse(&w, "transport");
    w.transport.dial = world_dial_hook;
    w.transport.now_ms = NULL;
    refuse(&w, "transport");
    w.transport.now_ms = world_now_hook;
    w.transport.entropy = NULL;
    refuse(&w, "transport");
    w.transport.entropy = world_entropy_hook;
    world_open(&w);
    world_done(&w);
}

static void refuses_bad_endpoints(void **state)
{
    static const char *const bad[] = {
        "ftp://127.0.0.1", "127.0.0.1:8080",     "http://",         "http://:80",
        "http://h:0",      "http://h:65536",     "http://h:8o",     "http://user@h",
        "http://h/#x",     "http://h/a b",       " http://h",       "http://h\n",
        "http://h/\x01",   "http://h\r\nX-A: b", "http://u:p@h/v2", "http//h",
        "http://h/x?q=1",  "https://",           "http://[::1",     "ws://127.0.0.1",
    };
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        world w;
        world_init(&w);
        w.config.endpoint = bad[i];
        if (sbx_open(&w.config, &w.client, NULL) == SBX_OK)
            world_fail(&w, "the endpoint '%s' is taken", bad[i]);
        refuse(&w, "endpoint");
        world_done(&w);
    }
}

static void refuses_keys_that_break_the_header(void **state)
{
    static const char *const bad[] = {"a" WORLD_KEY "\r\nX-Evil: 1", WORLD_KEY "\n", "\r" WORLD_KEY,
                                      WORLD_KEY "\x7f", WORLD_KEY "\x01"};
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        world w;
        world_init(&w);
        w.config.api_key = bad[i];
        refuse(&w, "api_key");
        world_done(&w);
    }
}

static const char *const bad_headers[] = {
    "no colon",
    ": no name",
    "",
    "Two Words: x",
    "X-A: b\r\nX-C: d",
    "X-A: b\nX-C: d",
    "X-A\r\nX-C: d",
    "X-A: b\r",
    "X-A : b",
    "X-A: \x01",
    "X-A: \x7f",
    "X\x80: a",
    "Host: other",
    "content-length: 3",
    "Transfer-Encoding: chunked",
    "CONNECTION: close",
    "upgrade: websocket",
    "Sec-WebSocket-Key: x",
    "sec-anything: x",
    "X(A): b",
};

static void refuses_bad_headers_of_a_client(void **state)
{
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(bad_headers) / sizeof(bad_headers[0]); i++) {
        const char *headers[3] = {"X-Good: 1", NULL, NULL};
        world w;
        world_init(&w);
        headers[1] = bad_headers[i];
        w.config.headers = headers;
        refuse(&w, "headers");
        world_done(&w);
    }
}

static void refuses_bad_headers_of_a_call_before_anything_is_sent(void **state)
{
    size_t i;
    world w;
    (void)state;
    world_init(&w);
    world_open(&w);
    for (i = 0; i < sizeof(bad_headers) / sizeof(bad_headers[0]); i++) {
        const char *headers[3] = {"X-Good: 1", NULL, NULL};
        sbx_call call = {0, NULL, NULL};
        sbx_template *got = NULL;
        sbx_op *op = NULL;
        sbx_error err;
        headers[1] = bad_headers[i];
        call.headers = headers;
        assert_status(&w, SBX_E_ARGUMENT, sbx_template_get(w.client, "t", &call, &got, &err), &err);
        assert_says(&w, &err, "headers");
        assert_null(got);
        assert_status(&w, SBX_E_ARGUMENT,
                      sbx_template_get_start(w.client, "t", &call, &got, &op, &err), &err);
        assert_null(op);
    }
    assert_int_equal(w.dials, 0);
    world_done(&w);
}

static void refuses_half_an_allocator_and_wrong_numbers(void **state)
{
    world w;
    (void)state;
    world_init(&w);
    w.config.allocator.resize = NULL;
    refuse(&w, "allocator");
    w.config.allocator = w.allocator;
    w.config.timeout_ms = -2;
    refuse(&w, "timeout_ms");
    w.config.timeout_ms = INT64_MIN;
    refuse(&w, "timeout_ms");
    w.config.timeout_ms = 0;
    w.config.max_retries = -2;
    refuse(&w, "max_retries");
    w.config.max_retries = 0;
    world_open(&w);
    world_done(&w);
}

static void works_without_an_allocator_of_the_user(void **state)
{
    world w;
    peer *p;
    (void)state;
    world_init(&w);
    memset(&w.config.allocator, 0, sizeof(w.config.allocator));
    p = world_peer(&w);
    peer_request(p, "GET", TEMPLATE_PATH);
    peer_reply(p, 200, TEMPLATE);
    world_open(&w);
    get_template(&w, NULL);
    assert_int_equal(w.allocs, 0);
    world_done(&w);
}

static sbx_status open_that_fails(void *user, void **state)
{
    (void)user;
    (void)state;
    return SBX_E_UNSUPPORTED;
}

static void reports_what_the_open_hook_says(void **state)
{
    world w;
    sbx_client *client = (sbx_client *)&w;
    sbx_error err;
    (void)state;
    world_init(&w);
    w.transport.open = open_that_fails;
    assert_status(&w, SBX_E_UNSUPPORTED, sbx_open(&w.config, &client, &err), &err);
    assert_null(client);
    assert_int_equal(w.live_blocks, 0);
    world_done(&w);
}

static void hooks_get_user_where_there_is_no_open_hook(void **state)
{
    world w;
    peer *p;
    (void)state;
    world_init(&w);
    w.transport.open = NULL;
    w.transport.close = NULL;
    p = world_peer(&w);
    peer_request(p, "GET", TEMPLATE_PATH);
    peer_reply(p, 200, TEMPLATE);
    world_open(&w);
    get_template(&w, NULL);
    world_done(&w);
}

static void config_may_go_after_open(void **state)
{
    char endpoint[] = WORLD_ENDPOINT, key[] = WORLD_KEY, line[] = "X-Mine: 1";
    const char *headers[2] = {NULL, NULL};
    world w;
    peer *p;
    (void)state;
    world_init(&w);
    headers[0] = line;
    w.config.endpoint = endpoint;
    w.config.api_key = key;
    w.config.headers = headers;
    p = world_peer(&w);
    peer_request(p, "GET", TEMPLATE_PATH);
    peer_with(p, "X-Mine: 1");
    peer_reply(p, 200, TEMPLATE);
    world_open(&w);
    memset(&w.config, 0, sizeof(w.config));
    memset(endpoint, 'x', sizeof(endpoint) - 1);
    memset(key, 'x', sizeof(key) - 1);
    memset(line, 'x', sizeof(line) - 1);
    headers[0] = NULL;
    get_template(&w, NULL);
    world_done(&w);
}

/* ---- the environment ---- */

typedef struct variable_case {
    const char *langsmith, *langchain; /* NULL: not set */
    const char *expected;
} variable_case;

static void set_variable(const char *name, const char *value)
{
    if (value)
        setenv(name, value, 1);
    else
        unsetenv(name);
}

static void the_endpoint_comes_from_the_environment(void **state)
{
    static const variable_case cases[] = {
        {"http://127.0.0.1:8080", NULL, "/v2/sandboxes"},
        {"http://127.0.0.1:8080/", NULL, "/v2/sandboxes"},
        {"http://127.0.0.1:8080///", NULL, "/v2/sandboxes"},
        {"http://127.0.0.1:8080/base/path/", NULL, "/base/path/v2/sandboxes"},
        {"http://127.0.0.1:8080", "http://127.0.0.1:1/other", "/v2/sandboxes"},
        {NULL, "http://127.0.0.1:8080/chain", "/chain/v2/sandboxes"},
        {"", "http://127.0.0.1:8080/chain", "/chain/v2/sandboxes"},
        {" \t\r\n ", "http://127.0.0.1:8080/chain", "/chain/v2/sandboxes"},
    };
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[200];
        world w;
        peer *p;
        world_init(&w);
        w.config.endpoint = NULL;
        set_variable("LANGSMITH_ENDPOINT", cases[i].langsmith);
        set_variable("LANGCHAIN_ENDPOINT", cases[i].langchain);
        p = world_peer(&w);
        snprintf(path, sizeof(path), "%s/templates/t", cases[i].expected);
        peer_request(p, "GET", path);
        peer_reply(p, 200, TEMPLATE);
        world_open(&w);
        get_template(&w, NULL);
        assert_int_equal(p->port, 8080);
        world_done(&w);
    }
    clear_environment();
}

static void without_an_endpoint_the_hosted_service_is_used(void **state)
{
    static const char *const blank[] = {NULL, "", "  \t"};
    size_t i;
    (void)state;
    for (i = 0; i < 3; i++) {
        world w;
        peer *p;
        world_init(&w);
        w.config.endpoint = NULL;
        set_variable("LANGSMITH_ENDPOINT", blank[i]);
        set_variable("LANGCHAIN_ENDPOINT", blank[2 - i]);
        p = world_peer(&w);
        peer_request(p, "GET", TEMPLATE_PATH);
        peer_with(p, "Host: api.smith.langchain.com");
        peer_reply(p, 200, TEMPLATE);
        world_open(&w);
        get_template(&w, NULL);
        assert_string_equal(p->host, "api.smith.langchain.com");
        assert_int_equal(p->port, 443);
        assert_int_equal(p->secured, 1);
        world_done(&w);
    }
    clear_environment();
}

static void an_explicit_endpoint_wins_and_is_taken_as_it_is(void **state)
{
    static const char *const endpoints[][2] = {
        {"http://127.0.0.1:8080/v2/sandboxes", "/v2/sandboxes"},
        {"http://127.0.0.1:8080/v2/sandboxes/", "/v2/sandboxes"},
        {"http://127.0.0.1:8080/api/v2/sandboxes", "/api/v2/sandboxes"},
        {"http://127.0.0.1:8080", ""},
        {"http://127.0.0.1:8080/", ""},
    };
    size_t i;
    (void)state;
    setenv("LANGSMITH_ENDPOINT", "http://127.0.0.1:1/wrong", 1);
    setenv("LANGSMITH_API_KEY", "wrong", 1);
    for (i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++) {
        char path[200];
        world w;
        peer *p;
        world_init(&w);
        w.config.endpoint = endpoints[i][0];
        p = world_peer(&w);
        snprintf(path, sizeof(path), "%s/templates/t", endpoints[i][1]);
        peer_request(p, "GET", path);
        peer_reply(p, 200, TEMPLATE);
        world_open(&w);
        get_template(&w, NULL);
        world_done(&w);
    }
    clear_environment();
}

static void a_bad_endpoint_in_the_environment_is_refused(void **state)
{
    world w;
    sbx_client *client = NULL;
    sbx_error err;
    (void)state;
    world_init(&w);
    w.config.endpoint = NULL;
    setenv("LANGSMITH_ENDPOINT", "not a url", 1);
    assert_status(&w, SBX_E_ARGUMENT, sbx_open(&w.config, &client, &err), &err);
    assert_says(&w, &err, "LANGSMITH_ENDPOINT");
    world_done(&w);
    clear_environment();
}

static void the_key_comes_from_the_environment(void **state)
{
    static const variable_case cases[] = {
        {WORLD_KEY, NULL, WORLD_KEY},
        {WORLD_KEY, "other", WORLD_KEY},
        {NULL, WORLD_KEY, WORLD_KEY},
        {"", WORLD_KEY, WORLD_KEY},
        {" \t ", WORLD_KEY, WORLD_KEY},
        {NULL, NULL, NULL},
        {"", "  ", NULL},
    };
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        world w;
        peer *p;
        world_init(&w);
        w.config.api_key = NULL;
        set_variable("LANGSMITH_API_KEY", cases[i].langsmith);
        set_variable("LANGCHAIN_API_KEY", cases[i].langchain);
        w.key = cases[i].expected;
        p = world_peer(&w);
        peer_request(p, "GET", TEMPLATE_PATH);
        peer_reply(p, 200, TEMPLATE);
        world_open(&w);
        clear_environment();
        get_template(&w, NULL);
        world_done(&w);
    }
}

/* ---- headers ---- */

static void extra_headers_replace_others_whatever_their_case(void **state)
{
    static const char *const of_client[] = {"User-Agent: mine/1", "X-Team: red", "accept: x/y",
                                            NULL};
    static const char *const of_call[] = {"x-TEAM: blue", "X-Call:spaced", NULL};
    sbx_call call = {0, of_call, NULL};
    world w;
    peer *p;
    (void)state;
    world_init(&w);
    w.config.headers = of_client;
    p = world_peer(&w);
    peer_request(p, "GET", TEMPLATE_PATH);
    peer_with(p, "User-Agent: mine/1");
    peer_with(p, "X-Team: red");
    peer_with(p, "Accept: x/y");
    peer_without(p, "X-Call");
    peer_reply(p, 200, TEMPLATE);
    peer_request(p, "GET", TEMPLATE_PATH);
    peer_with(p, "User-Agent: mine/1");
    peer_with(p, "X-Team: blue");
    peer_with(p, "X-Call: spaced");
    peer_reply(p, 200, TEMPLATE);
    world_open(&w);
    get_template(&w, NULL);
    get_template(&w, &call);
    world_done(&w);
}

static void an_extra_header_can_replace_the_key_header(void **state)
{
    static const char *const headers[] = {"x-api-key: from-the-header", NULL};
    world w;
    peer *p;
    (void)state;
    world_init(&w);
    w.config.headers = headers;
    w.key = "from-the-header";
    p = world_peer(&w);
    peer_request(p, "GET", TEMPLATE_PATH);
    peer_reply(p, 200, TEMPLATE);
    world_open(&w);
    get_template(&w, NULL);
    world_done(&w);
}

/* ---- where the key goes ---- */

static void the_key_never_crosses_a_network_in_clear_text(void **state)
{
    static const char *const remote[] = {
        "http://sandbox.example/x",
        "http://localhost.example:9090/x",
        "http://127.0.0.1.example/x",
        "http://128.0.0.1/x",
        "http://10.0.0.1:9090/x",
        "http://[2001:db8::1]:9090/x",
        "http://[::2]/x",
        "http://127.example/x",
        "http://0x7f000001.example/x",
        "http://notlocalhost/x",
    };
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(remote) / sizeof(remote[0]); i++) {
        world w;
        sbx_sandbox *sandbox = NULL;
        sbx_bytes *bytes = NULL;
        sbx_error err;
        peer *p;
        world_init(&w);
        w.config.endpoint = "https://api.example/v2/sandboxes";
        p = world_peer(&w);
        p->optional = 1;
        p->no_key = 1;
        peer_request(p, "GET", "/x/download?path=f");
        peer_reply(p, 200, "data");
        world_open(&w);
        if (sbx_sandbox_at(w.client, remote[i], &sandbox, &err) == SBX_OK)
            (void)sbx_read(sandbox, "f", NULL, &bytes, &err);
        if (w.peer_count && strstr(wtext_get(&p->raw), WORLD_KEY))
            world_fail(&w, "the key was sent to %s", remote[i]);
        sbx_free(bytes);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void the_key_goes_to_loopback_over_tls_and_where_the_endpoint_is_http(void **state)
{
    static const char *const cases[][3] = {
        {"https://api.example/v2", "http://127.0.0.1:9090/x", "127.0.0.1"},
        {"https://api.example/v2", "http://127.8.7.6:9090/x", "127.8.7.6"},
        {"https://api.example/v2", "http://localhost:9090/x", "localhost"},
        {"https://api.example/v2", "http://LocalHost:9090/x", "LocalHost"},
        {"https://api.example/v2", "http://[::1]:9090/x", "::1"},
        {"https://api.example/v2", "https://sandbox.example:9090/x", "sandbox.example"},
        {"http://api.example/v2", "http://sandbox.example:9090/x", "sandbox.example"},
        {"http://127.0.0.1/v2", "http://sandbox.example:9090/x", "sandbox.example"},
    };
    size_t i;
    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        world w;
        sbx_sandbox *sandbox = NULL;
        sbx_bytes *bytes = NULL;
        sbx_error err;
        peer *p;
        world_init(&w);
        w.config.endpoint = cases[i][0];
        p = world_peer(&w);
        peer_request(p, "GET", "/x/download?path=f");
        peer_with(p, "X-Api-Key: " WORLD_KEY);
        peer_reply(p, 200, "data");
        world_open(&w);
        assert_status(&w, SBX_OK, sbx_sandbox_at(w.client, cases[i][1], &sandbox, &err), &err);
        assert_status(&w, SBX_OK, sbx_read(sandbox, "f", NULL, &bytes, &err), &err);
        assert_string_equal(p->host, cases[i][2]);
        assert_int_equal(p->port, 9090);
        sbx_free(bytes);
        sbx_free(sandbox);
        world_done(&w);
    }
}

static void https_without_tls_fails_before_a_byte_is_sent(void **state)
{
    world w;
    sbx_template *got = NULL;
    sbx_error err;
    (void)state;
    world_init(&w);
    w.config.endpoint = "https://127.0.0.1:8080/v2/sandboxes";
    w.transport.secure = NULL;
    world_peer(&w)->optional = 1;
    world_open(&w);
    assert_status(&w, SBX_E_TLS, sbx_template_get(w.client, "t", NULL, &got, &err), &err);
    assert_null(got);
    assert_int_equal(w.to_peers, 0);
    world_done(&w);
}

static void errors_never_hold_the_key_even_when_the_service_echoes_it(void **state)
{
    static const char *const bodies[] = {
        "{\"detail\":{\"error\":\"" WORLD_KEY "\",\"message\":\"the key " WORLD_KEY " is bad\"}}",
        "{\"detail\":\"no such key: " WORLD_KEY "\"}",
        "{\"detail\":[{\"loc\":[\"" WORLD_KEY "\"],\"msg\":\"" WORLD_KEY "\",\"type\":\"" WORLD_KEY
        "\"}]}",
        "<html>" WORLD_KEY "</html>",
    };
    static const int statuses[] = {401, 422, 500};
    size_t i, k;
    (void)state;
    for (i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        for (k = 0; k < 3; k++) {
            world w;
            sbx_template *got = NULL;
            sbx_error err;
            peer *p;
            sbx_status st;
            size_t d;
            world_init(&w);
            p = world_peer(&w);
            peer_request(p, "GET", TEMPLATE_PATH);
            peer_reply_with(p, statuses[k], "X-Seen: " WORLD_KEY "\r\n", bodies[i]);
            world_open(&w);
            st = sbx_template_get(w.client, "t", NULL, &got, &err);
            assert_true(sbx_status_is(st, SBX_E_SERVICE));
            check_error(&w, st, &err);
            for (d = 0; d < SBX_ERROR_DETAILS; d++) {
                assert_null(strstr(err.details[d].message, WORLD_KEY));
                assert_null(strstr(err.details[d].field, WORLD_KEY));
                assert_null(strstr(err.details[d].type, WORLD_KEY));
            }
            world_done(&w);
        }
    }
}

static void no_freed_memory_holds_the_key(void **state)
{
    world w;
    peer *p;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "GET", TEMPLATE_PATH);
    peer_reply(p, 200, TEMPLATE);
    world_open(&w);
    get_template(&w, NULL);
    sbx_close(w.client);
    w.client = NULL;
    assert_int_equal(w.key_left, 0);
    world_done(&w);
}

static void sandbox_at_checks_its_url(void **state)
{
    static const char *const bad[] = {"",
                                      "x",
                                      "http://",
                                      "ftp://h/",
                                      "http://h/?q=1",
                                      "http://h/#f",
                                      "http://h/a b",
                                      "ws://h/",
                                      "http://h:0/",
                                      "http://h/\n"};
    world w;
    sbx_sandbox *sandbox = (sbx_sandbox *)&w;
    sbx_error err;
    size_t i;
    (void)state;
    world_init(&w);
    world_open(&w);
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_status(&w, SBX_E_ARGUMENT, sbx_sandbox_at(w.client, bad[i], &sandbox, &err), &err);
        assert_null(sandbox);
    }
    assert_status(&w, SBX_E_ARGUMENT, sbx_sandbox_at(w.client, NULL, &sandbox, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_sandbox_at(NULL, "http://h", &sandbox, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_sandbox_at(w.client, "http://h", NULL, &err), &err);
    assert_status(&w, SBX_OK, sbx_sandbox_at(w.client, "http://h:81/p/", &sandbox, &err), &err);
    assert_ptr_equal(sandbox->client, w.client);
    assert_string_equal(sandbox->name, "");
    assert_string_equal(sandbox->id, "");
    assert_string_equal(sandbox->template_name, "");
    assert_string_equal(sandbox->status_message, "");
    assert_non_null(sandbox->dataplane_url);
    sbx_free(sandbox);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_and_closes_without_traffic),
        cmocka_unit_test(freeing_null_is_fine),
        cmocka_unit_test(null_in_place_of_an_operation_or_a_cancel_is_harmless),
        cmocka_unit_test(refuses_missing_arguments),
        cmocka_unit_test(refuses_a_transport_without_the_required_hooks),
        cmocka_unit_test(refuses_bad_endpoints),
        cmocka_unit_test(refuses_keys_that_break_the_header),
        cmocka_unit_test(refuses_bad_headers_of_a_client),
        cmocka_unit_test(refuses_bad_headers_of_a_call_before_anything_is_sent),
        cmocka_unit_test(refuses_half_an_allocator_and_wrong_numbers),
        cmocka_unit_test(works_without_an_allocator_of_the_user),
        cmocka_unit_test(reports_what_the_open_hook_says),
        cmocka_unit_test(hooks_get_user_where_there_is_no_open_hook),
        cmocka_unit_test(config_may_go_after_open),
        cmocka_unit_test(the_endpoint_comes_from_the_environment),
        cmocka_unit_test(without_an_endpoint_the_hosted_service_is_used),
        cmocka_unit_test(an_explicit_endpoint_wins_and_is_taken_as_it_is),
        cmocka_unit_test(a_bad_endpoint_in_the_environment_is_refused),
        cmocka_unit_test(the_key_comes_from_the_environment),
        cmocka_unit_test(extra_headers_replace_others_whatever_their_case),
        cmocka_unit_test(an_extra_header_can_replace_the_key_header),
        cmocka_unit_test(the_key_never_crosses_a_network_in_clear_text),
        cmocka_unit_test(the_key_goes_to_loopback_over_tls_and_where_the_endpoint_is_http),
        cmocka_unit_test(https_without_tls_fails_before_a_byte_is_sent),
        cmocka_unit_test(errors_never_hold_the_key_even_when_the_service_echoes_it),
        cmocka_unit_test(no_freed_memory_holds_the_key),
        cmocka_unit_test(sandbox_at_checks_its_url),
    };
    clear_environment();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
