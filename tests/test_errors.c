/* What an answer of the service that is not a success becomes: the table of the protocol row by
   row, for every call, and bodies of every kind. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "calls.h"

#define BIT(call) ((uint32_t)1 << (call))
#define ALL (BIT(CALLS) - 1)
#define CREATIONS                                                                                  \
    (BIT(TEMPLATE_CREATE) | BIT(VOLUME_CREATE) | BIT(POOL_CREATE) | BIT(SANDBOX_CREATE))
#define LISTS (BIT(TEMPLATE_LIST) | BIT(VOLUME_LIST) | BIT(POOL_LIST) | BIT(SANDBOX_LIST))
#define UPDATES (BIT(TEMPLATE_UPDATE) | BIT(VOLUME_UPDATE) | BIT(POOL_UPDATE) | BIT(SANDBOX_UPDATE))
#define DELETIONS                                                                                  \
    (BIT(TEMPLATE_DELETE) | BIT(VOLUME_DELETE) | BIT(POOL_DELETE) | BIT(SANDBOX_DELETE))
#define POOL_CHANGES (BIT(POOL_CREATE) | BIT(POOL_UPDATE))

#define CHECK_KEY "; check the API key (sbx_config.api_key or LANGSMITH_API_KEY)"
#define CHECK_ENDPOINT                                                                             \
    "; check that the endpoint is the sandbox service's (sbx_config.endpoint or "                  \
    "LANGSMITH_ENDPOINT)"
#define LOST "; an earlier attempt of this call, whose answer was lost, may have succeeded"

/* ---- the table ---- */

/* The first row that fits counts. */
typedef struct error_row {
    const char *name;
    uint32_t calls;
    int http;
    const char *type; /* that the service gives; NULL: any, or none */
    sbx_status status, family;
    const char *resource;   /* NULL: that of the call */
    const char *error_type; /* where the service gives none */
    const char *advice;
} error_row;

#define SERVICE(status) SBX_E_##status, SBX_E_SERVICE

static const error_row rows[] = {
    {"any 401", ALL, 401, NULL, SERVICE(AUTHENTICATION), NULL, "", CHECK_KEY},
    {"any 403", ALL, 403, NULL, SERVICE(AUTHENTICATION), NULL, "", CHECK_KEY},
    {"create sandbox 404 TemplateNotFound", BIT(SANDBOX_CREATE), 404, "TemplateNotFound",
     SERVICE(NOT_FOUND), "template", "", ""},
    {"create sandbox 404 SnapshotNotFound", BIT(SANDBOX_CREATE), 404, "SnapshotNotFound",
     SERVICE(NOT_FOUND), "snapshot", "", ""},
    {"create template 404 VolumeNotFound", BIT(TEMPLATE_CREATE), 404, "VolumeNotFound",
     SERVICE(NOT_FOUND), "volume", "", ""},
    {"create pool 404 TemplateNotFound", BIT(POOL_CREATE), 404, "TemplateNotFound",
     SERVICE(NOT_FOUND), "template", "", ""},
    {"list or create 404", LISTS | CREATIONS, 404, NULL, SERVICE(API), NULL, "", CHECK_ENDPOINT},
    {"any other 404", ALL & ~(LISTS | CREATIONS), 404, NULL, SERVICE(NOT_FOUND), NULL, "", ""},
    {"create sandbox 422 with value_error", BIT(SANDBOX_CREATE), 422, "[value_error]",
     SERVICE(VALIDATION), NULL, "", ""},
    {"create sandbox 422", BIT(SANDBOX_CREATE), 422, NULL, SERVICE(CREATION), NULL, "", ""},
    {"any other 422", ALL, 422, NULL, SERVICE(VALIDATION), NULL, "", ""},
    {"any 429", ALL, 429, NULL, SERVICE(QUOTA), NULL, "", ""},
    {"any 500", ALL, 500, NULL, SERVICE(API), NULL, "", ""},
    {"any 502 ConnectionError", ALL, 502, "ConnectionError", SBX_E_CONNECTION, SBX_E_CONNECTION,
     NULL, "", ""},
    {"create sandbox 408", BIT(SANDBOX_CREATE), 408, NULL, SERVICE(RESOURCE_TIMEOUT), NULL, "", ""},
    {"create sandbox 503", BIT(SANDBOX_CREATE), 503, NULL, SERVICE(CREATION), NULL, "Unschedulable",
     ""},
    {"create volume 503", BIT(VOLUME_CREATE), 503, NULL, SERVICE(CREATION), NULL,
     "VolumeProvisioning", ""},
    {"create volume 504", BIT(VOLUME_CREATE), 504, NULL, SERVICE(RESOURCE_TIMEOUT), NULL, "", ""},
    {"create or update pool 400 TemplateNotFound", POOL_CHANGES, 400, "TemplateNotFound",
     SERVICE(NOT_FOUND), "template", "", ""},
    {"create or update pool 400 ValidationError", POOL_CHANGES, 400, "ValidationError",
     SERVICE(VALIDATION), NULL, "", ""},
    {"create 409", CREATIONS, 409, NULL, SERVICE(ALREADY_EXISTS), NULL, "", ""},
    {"create or update pool 504", POOL_CHANGES, 504, NULL, SERVICE(RESOURCE_TIMEOUT), NULL, "", ""},
    {"update 409", UPDATES, 409, NULL, SERVICE(NAME_CONFLICT), NULL, "", ""},
    {"update volume 400", BIT(VOLUME_UPDATE), 400, NULL, SERVICE(VALIDATION), NULL, "VolumeResize",
     ""},
    {"delete 409", DELETIONS, 409, NULL, SERVICE(IN_USE), NULL, "", ""},
};

/* What holds of all that stands in no row. */
static const error_row otherwise = {"anything else", ALL, 0, NULL, SERVICE(SERVICE), NULL, "", ""};

static const int statuses[] = {400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 418, 422, 425,
                               429, 451, 499, 500, 501, 502, 503, 504, 505, 507, 599, 300, 302};
/* "": a text alone. "[..]": a list of details, of which the second has this type. */
static const char *const types[] = {
    "",
    "Odd",
    "[missing]",
    "[value_error]",
    "TemplateNotFound",
    "SnapshotNotFound",
    "VolumeNotFound",
    "ValidationError",
    "VolumeResize",
    "VolumeProvisioning",
    "ConnectionError",
    "Unschedulable",
    "ImagePull",
    "CrashLoop",
    "SandboxConfig",
    "value_error",
    "PermissionDenied",
    "NotReady",
    "FileNotFound",
};

static const error_row *row_of(int which, int http, const char *type)
{
    size_t i;
    for (i = 0; i < COUNT(rows); i++)
        if ((rows[i].calls & BIT(which)) && rows[i].http == http &&
            (!rows[i].type || strcmp(rows[i].type, type) == 0))
            return &rows[i];
    return &otherwise;
}

static void body_of(const char *type, char *out, size_t cap)
{
    if (!*type)
        snprintf(out, cap, "{\"detail\":\"the reason\"}");
    else if (*type == '[')
        snprintf(out, cap,
                 "{\"detail\":[{\"loc\":[\"body\",\"f1\"],\"msg\":\"m1\",\"type\":\"t1\"},"
                 "{\"loc\":[\"body\",7,\"f2\"],\"msg\":\"m2\",\"type\":\"%.*s\"}]}",
                 (int)strlen(type) - 2, type + 1);
    else
        snprintf(out, cap, "{\"detail\":{\"error\":\"%s\",\"message\":\"the reason\"}}", type);
}

/* Makes one call that is answered so; says what the call said. */
static sbx_status answered(int which, int http, const char *body, size_t len, sbx_error *err)
{
    char head[100];
    world w;
    peer *p;
    sbx_status st;
    world_init(&w);
    w.config.max_retries = SBX_NONE;
    p = world_peer(&w);
    peer_expect_call(p, which);
    snprintf(head, sizeof(head), "HTTP/1.1 %d x\r\nContent-Length: %lu\r\n\r\n", http,
             (unsigned long)len);
    peer_puts(p, head);
    peer_send(p, body, len);
    world_open(&w);
    st = call_one(&w, which, err);
    if (st >= 0 || err->http_status != http || err->attempts != 1 || w.dials != 1)
        world_fail(&w, "%s answered %d: %s, http_status %d, %d attempts", calls[which].function,
                   http, sbx_status_name(st), err->http_status, err->attempts);
    world_done(&w);
    return st;
}

/* Whether an error is what its row says, each member of it. */
static void check_row(const error_row *row, int which, int http, const char *type,
                      const sbx_error *err)
{
    const char *resource = row->resource ? row->resource : calls[which].resource;
    const char *error_type = *type && *type != '[' ? type : row->error_type;
    int listed = *type == '[';
    char target[100], message[400], second[32] = "";
    sbx_error none;
    memset(&none, 0, sizeof(none));
    call_target(which, "n", target, sizeof(target));
    snprintf(message, sizeof(message), "%s (HTTP %d for %s %s)%s", listed ? "m1; m2" : "the reason",
             http, calls[which].method, target, row->advice);
    if (listed)
        snprintf(second, sizeof(second), "%.*s", (int)strlen(type) - 2, type + 1);
    if (err->status != row->status || !sbx_status_is(err->status, row->family) ||
        sbx_status_is(err->status, SBX_E_OPERATION) ||
        (row->family == SBX_E_CONNECTION && sbx_status_is(err->status, SBX_E_SERVICE)) ||
        strcmp(err->resource_type, resource) != 0 || strcmp(err->error_type, error_type) != 0 ||
        strcmp(err->field, listed ? "f1" : "") != 0 || *err->quota_type || *err->operation ||
        *err->last_status || strcmp(err->message, message) != 0 || err->close_code ||
        err->native_code || err->port || err->detail_count != (listed ? 2 : 0) ||
        strcmp(err->details[0].field, listed ? "f1" : "") != 0 ||
        strcmp(err->details[0].type, listed ? "t1" : "") != 0 ||
        strcmp(err->details[0].message, listed ? "m1" : "") != 0 ||
        strcmp(err->details[1].field, listed ? "f2" : "") != 0 ||
        strcmp(err->details[1].type, second) != 0 ||
        strcmp(err->details[1].message, listed ? "m2" : "") != 0 ||
        memcmp(&err->details[2], &none.details[2], 2 * sizeof(none.details[2])) != 0) {
        print_error("%s answered %d '%s', row '%s'\n"
                    "  expected %s, resource '%s', type '%s': %s\n"
                    "       got %s, resource '%s', type '%s', field '%s', quota '%s', %d details: "
                    "%s\n",
                    calls[which].function, http, type, row->name, sbx_status_name(row->status),
                    resource, error_type, message, sbx_status_name(err->status), err->resource_type,
                    err->error_type, err->field, err->quota_type, err->detail_count, err->message);
        fail();
    }
}

/* Every call with every status and every type, so that no row means more than it says. */
static void errors_are_what_the_table_of_the_protocol_says(void **state)
{
    int used[COUNT(rows)] = {0};
    size_t i, k;
    int which;
    (void)state;
    for (which = 0; which < CALLS; which++)
        for (i = 0; i < COUNT(statuses); i++)
            for (k = 0; k < COUNT(types); k++) {
                const error_row *row = row_of(which, statuses[i], types[k]);
                char body[400];
                sbx_error err;
                body_of(types[k], body, sizeof(body));
                (void)answered(which, statuses[i], body, strlen(body), &err);
                check_row(row, which, statuses[i], types[k], &err);
                if (row != &otherwise)
                    used[row - rows]++;
            }
    for (i = 0; i < COUNT(rows); i++)
        if (!used[i])
            fail_msg("the row '%s' was never used", rows[i].name);
}

static void a_body_without_a_text_gives_the_status_and_the_request(void **state)
{
    static const char *const bodies[] = {"", "<html><h1>Bad Gateway</h1></html>", "{}",
                                         "{\"detail\":null}", "{\"detail\":\"\"}"};
    size_t i, k;
    int which;
    (void)state;
    for (which = 0; which < CALLS; which++)
        for (i = 0; i < COUNT(statuses); i++)
            for (k = 0; k < COUNT(bodies); k++) {
                const error_row *row = row_of(which, statuses[i], "");
                char target[100], message[400];
                sbx_error err;
                call_target(which, "n", target, sizeof(target));
                snprintf(message, sizeof(message), "the service answered HTTP %d for %s %s%s",
                         statuses[i], calls[which].method, target, row->advice);
                assert_int_equal(answered(which, statuses[i], bodies[k], strlen(bodies[k]), &err),
                                 row->status);
                assert_string_equal(err.message, message);
                assert_string_equal(err.error_type, row->error_type);
                assert_string_equal(err.resource_type,
                                    row->resource ? row->resource : calls[which].resource);
                assert_int_equal(err.detail_count, 0);
            }
}

/* Answers every request in the same way. */
typedef struct refusal {
    int http;
    const char *body;
    int requests;
} refusal;

static void serve_refusal(peer *p, void *user)
{
    refusal *r = (refusal *)user;
    r->requests++;
    peer_take_request(p);
    peer_reply(p, r->http, r->body);
}

static void after_the_last_attempt_the_answer_is_what_it_is(void **state)
{
    static const int repeated[] = {429, 502, 503, 504};
    size_t i, k;
    int which;
    (void)state;
    for (which = 0; which < CALLS; which++)
        for (i = 0; i < COUNT(repeated); i++)
            for (k = 0; k < 2; k++) {
                const char *type = k ? "ConnectionError" : "";
                refusal r = {0, NULL, 0};
                char body[400];
                sbx_error err;
                world w;
                body_of(type, body, sizeof(body));
                r.http = repeated[i];
                r.body = body;
                world_init(&w);
                w.serve = serve_refusal;
                w.serve_user = &r;
                world_open(&w);
                (void)call_one(&w, which, &err);
                check_row(row_of(which, r.http, type), which, r.http, type, &err);
                assert_int_equal(err.http_status, r.http);
                assert_int_equal(err.attempts, 4);
                assert_int_equal(r.requests, 4);
                assert_between(w.slept, 7000, 10000);
                world_done(&w);
            }
}

/* ---- quotas ---- */

static void the_quota_is_read_from_the_message(void **state)
{
    static const char *const cases[][2] = {
        {"too fast", ""},
        {"the sandbox count is exhausted", "sandbox_count"},
        {"Sandbox limit reached", "sandbox_count"},
        {"SANDBOX LIMIT", "sandbox_count"},
        {"limit of sandboxes", "sandbox_count"},
        {"the limit of cpu for each sandbox", "sandbox_count"},
        {"CPU quota used up", "cpu"},
        {"cpu and memory", "cpu"},
        {"the sandbox needs too much cpu", "cpu"},
        {"not enough Memory left", "memory"},
        {"memory limit", "memory"},
        {"memory for the volume limit", "memory"},
        {"the sandbox needs too much memory", "memory"},
        {"volume limit reached", "volume_count"},
        {"Volume Count", "volume_count"},
        {"count of volumes and storage", "volume_count"},
        {"storage is full", "storage"},
        {"the volume needs more storage", "storage"},
        {"the limit of storage", "storage"},
        {"limit", ""},
        {"count", ""},
        {"volume", ""},
        {"sandbox", ""},
        {"storag", ""},
        {"", ""},
    };
    static const char *const shapes[][2] = {
        {"{\"detail\":\"", "\"}"},
        {"{\"detail\":{\"error\":\"Quota\",\"message\":\"", "\"}}"},
        {"{\"detail\":[{\"loc\":[\"x\"],\"msg\":\"!\",\"type\":\"t\"},{\"msg\":\"", "\"}]}"}};
    char body[300];
    sbx_error err;
    size_t i, k;
    int which;
    (void)state;
    for (which = 0; which < CALLS; which++)
        for (i = 0; i < COUNT(cases); i++)
            for (k = 0; k < COUNT(shapes); k++) {
                snprintf(body, sizeof(body), "%s%s%s", shapes[k][0], cases[i][0], shapes[k][1]);
                assert_int_equal(answered(which, 429, body, strlen(body), &err), SBX_E_QUOTA);
                if (strcmp(err.quota_type, cases[i][1]) != 0)
                    fail_msg("'%s' is the quota '%s'", cases[i][0], err.quota_type);
                assert_string_equal(err.resource_type, calls[which].resource);
            }
    /* No other status is about a quota, whatever it says. */
    (void)answered(SANDBOX_CREATE, 503, "{\"detail\":\"sandbox limit\"}", 26, &err);
    assert_string_equal(err.quota_type, "");
}

/* ---- details ---- */

static void details_of_a_validation_error_are_kept(void **state)
{
    sbx_error err;
    int i, count, which;
    (void)state;
    for (which = 0; which < CALLS; which++)
        for (count = 1; count < 8; count++) {
            wtext body = {NULL, 0, 0}, said = {NULL, 0, 0};
            if (which == SANDBOX_CREATE)
                continue;
            wtext_puts(&body, "{\"detail\":[");
            for (i = 0; i < count; i++)
                wtext_printf(
                    &body,
                    "%s{\"type\":\"t%d\",\"loc\":[\"body\",%d,\"f%d\"],\"msg\":"
                    "\"m\\u00fc%d\",\"ctx\":{\"loc\":[1],\"msg\":\"no\"},\"input\":[\"no\"]}",
                    i ? "," : "", i, i, i, i);
            wtext_puts(&body, "]}");
            assert_int_equal(answered(which, 422, body.data, body.len, &err), SBX_E_VALIDATION);
            assert_int_equal(err.detail_count, count);
            for (i = 0; i < SBX_ERROR_DETAILS; i++) {
                char text[20];
                snprintf(text, sizeof(text), i < count ? "f%d" : "", i);
                assert_string_equal(err.details[i].field, text);
                snprintf(text, sizeof(text), i < count ? "t%d" : "", i);
                assert_string_equal(err.details[i].type, text);
                snprintf(text, sizeof(text), i < count ? "m\xc3\xbc%d" : "", i);
                assert_string_equal(err.details[i].message, text);
            }
            assert_string_equal(err.field, "f0");
            assert_string_equal(err.error_type, "");
            wtext_puts(&said, "m\xc3\xbc");
            for (i = 0; i < count; i++)
                wtext_printf(&said, i + 1 < count ? "%d; m\xc3\xbc" : "%d (", i);
            assert_memory_equal(err.message, said.data, said.len);
            wtext_free(&said);
            wtext_free(&body);
        }
}

static void any_detail_can_say_that_a_sandbox_was_not_valid(void **state)
{
    sbx_error err;
    int i, at, with;
    (void)state;
    for (at = 0; at < 8; at++)
        for (with = 0; with < 2; with++) {
            wtext body = {NULL, 0, 0};
            wtext_puts(&body, "{\"detail\":[");
            for (i = 0; i < 8; i++)
                wtext_printf(&body, "%s{\"loc\":[\"body\",\"f%d\"],\"msg\":\"m\",\"type\":\"%s\"}",
                             i ? "," : "", i,
                             i != at ? "missing"
                             : with  ? "value_error"
                                     : "value_errors");
            wtext_puts(&body, "]}");
            assert_int_equal(answered(SANDBOX_CREATE, 422, body.data, body.len, &err),
                             with ? SBX_E_VALIDATION : SBX_E_CREATION);
            assert_int_equal(err.detail_count, 8);
            assert_string_equal(err.field, "f0");
            wtext_free(&body);
        }
}

/* ---- odd bodies ---- */

static void check_text(const char *text, size_t cap)
{
    sbx_utf8 utf8;
    memset(&utf8, 0, sizeof(utf8));
    assert_true(strlen(text) < cap);
    assert_int_equal(sbx_utf8_check(&utf8, text, strlen(text)), 1);
    assert_int_equal(utf8.state, 0);
    assert_null(strpbrk(text, "\r\n\x1b\t\x7f\x01"));
}

static void check_texts(const sbx_error *err)
{
    int i;
    check_text(err->message, sizeof(err->message));
    check_text(err->error_type, sizeof(err->error_type));
    check_text(err->field, sizeof(err->field));
    check_text(err->last_status, sizeof(err->last_status));
    for (i = 0; i < SBX_ERROR_DETAILS; i++) {
        check_text(err->details[i].field, sizeof(err->details[i].field));
        check_text(err->details[i].type, sizeof(err->details[i].type));
        check_text(err->details[i].message, sizeof(err->details[i].message));
    }
}

/* The error says which status it was, and is of the status's class unless the body had a type. */
static void check_odd(int which, int http, const char *body, size_t len)
{
    char number[16];
    sbx_error err;
    sbx_status st = answered(which, http, body, len, &err);
    check_texts(&err);
    snprintf(number, sizeof(number), "HTTP %d", http);
    if (!strstr(err.message, number))
        fail_msg("'%s' for %.100s does not say %s", err.message, body, number);
    if (st != row_of(which, http, err.error_type)->status)
        fail_msg("%s for %d %.100s", sbx_status_name(st), http, body);
}

static void odd_bodies_never_hide_the_status(void **state)
{
    static const char *const bodies[] = {
        "null",
        "[]",
        "5",
        "\"text\"",
        "true",
        "{",
        "{\"",
        "[[[",
        "]",
        "{\"detail\"",
        "{\"detail\":",
        "{\"detail\":{}}",
        "{\"detail\":[]}",
        "{\"detail\":5}",
        "{\"detail\":-1.5e300}",
        "{\"detail\":true}",
        "{\"detail\":\"cut off",
        "{\"detail\":\"cut off\"",
        "{\"detail\":\"and more\"}}}",
        "{\"detail\":{\"error\":5,\"message\":[]}}",
        "{\"detail\":{\"error\":{\"error\":\"x\",\"message\":\"y\"},\"message\":null}}",
        "{\"detail\":{\"error\":[\"x\"],\"message\":{\"message\":\"y\"}}}",
        "{\"detail\":{\"error\":null,\"message\":true}}",
        "{\"detail\":{\"error\":\"",
        "{\"detail\":{\"error\":\"Odd\",\"message\":\"no en",
        "{\"detail\":[5,null,\"x\",[],{}]}",
        "{\"detail\":[[{\"msg\":\"x\"}]]}",
        "{\"detail\":[{\"loc\":5,\"msg\":5,\"type\":5}]}",
        "{\"detail\":[{\"loc\":\"name\",\"msg\":\"m\"}]}",
        "{\"detail\":[{\"loc\":{\"a\":\"b\"},\"msg\":\"m\"}]}",
        "{\"detail\":[{\"loc\":[[\"a\"],{\"b\":\"c\"},null],\"msg\":\"m\"}]}",
        "{\"detail\":[{\"loc\":[],\"msg\":\"\",\"type\":\"\"}]}",
        "{\"detail\":[{\"loc\":[5],\"msg\":null}]}",
        "{\"detail\":[{\"msg\":[\"a\"],\"type\":{\"b\":1}},{\"loc\":[\"x\"",
        "{\"detail\":\"\\ud800\"}",
        "{\"detail\":\"\xff\xfe\"}",
        "{\"detail\":\"a\xc3\"}",
        "{\"detail\":{\"error\":\"\xed\xa0\x80\",\"message\":\"\xf8\"}}",
        "{\"detail\":\"a\\u0000b\"}",
        "{\"detail\":{\"error\":\"\\u0000\",\"message\":\"\\u0000\"}}",
        "{\"detail\":\"a\\r\\nb\\u001b[31mc\\u007f\\t\"}",
        "{\"detail\":{\"error\":\"a\\nb\",\"message\":\"\\u0001\"}}",
        "{\"detail\":[{\"loc\":[\"a\\nb\"],\"msg\":\"\\u001b\",\"type\":\"\\r\"}]}",
        "{\"detail\":\"100%s %d %n\"}",
        "{\"error\":\"x\"}",
        "{\"detail\":\"one\",\"detail\":{\"message\":\"two\"},\"detail\":[{\"msg\":\"three\"}]}",
        "\xef\xbb\xbf{\"detail\":\"x\"}",
    };
    static const int some[] = {400, 401, 404, 408, 409, 422, 429, 500, 502, 503, 504, 599};
    size_t i, k;
    int which;
    (void)state;
    for (which = 0; which < CALLS; which++)
        for (i = 0; i < COUNT(bodies); i++)
            for (k = 0; k < COUNT(some); k++)
                check_odd(which, some[k], bodies[i], strlen(bodies[i]));
}

static void odd_bytes_never_hide_the_status(void **state)
{
    static const char *const before[] = {"",
                                         "{\"detail\":\"",
                                         "{\"detail\":",
                                         "{\"detail\":[",
                                         "{\"detail\":{\"error\":\"Odd\",\"message\":\"",
                                         "{\"detail\":[{\"loc\":[\"",
                                         "{\"a\":[{\"b\":"};
    static const char *const fill[] = {"\0\0\0\0",     "[[[[", "{\"a\":", "\xff\xff\xff\xff",
                                       "\xe2\x82\xac", "abcd", "{},",     "\\n"};
    static const size_t fill_len[] = {4, 4, 5, 4, 3, 4, 3, 2};
    static const int whole[] = {TEMPLATE_CREATE, SANDBOX_CREATE, POOL_UPDATE, VOLUME_DELETE};
    static const size_t sizes[] = {8, 200, 4000, 66000, 2u << 20};
    wtext body = {NULL, 0, 0};
    size_t i, k, n, c;
    (void)state;
    for (i = 0; i < COUNT(before); i++)
        for (k = 0; k < COUNT(fill); k++)
            for (n = 0; n < COUNT(sizes); n++) {
                body.len = 0;
                wtext_puts(&body, before[i]);
                while (body.len < sizes[n])
                    wtext_add(&body, fill[k], fill_len[k]);
                for (c = 0; c < (n > 3 ? 1 : COUNT(whole)); c++) {
                    check_odd(whole[c], 404, body.data, body.len);
                    check_odd(whole[c], 422, body.data, body.len);
                }
            }
    wtext_free(&body);
}

static void long_texts_of_the_service_are_cut_between_characters(void **state)
{
    sbx_error err;
    wtext body = {NULL, 0, 0};
    int i, shift;
    (void)state;
    for (shift = 0; shift < 3; shift++) {
        body.len = 0;
        wtext_printf(&body, "{\"detail\":{\"error\":\"%.*s", shift, "abc");
        for (i = 0; i < 100; i++)
            wtext_puts(&body, "\xe2\x82\xac");
        wtext_printf(&body, "\",\"message\":\"%.*s", shift, "abc");
        for (i = 0; i < 1000; i++)
            wtext_puts(&body, "\xe2\x82\xac");
        wtext_puts(&body, "\"}}");
        assert_int_equal(answered(SANDBOX_GET, 400, body.data, body.len, &err), SBX_E_SERVICE);
        check_texts(&err);
        assert_true(strlen(err.message) > 400);
        assert_true(strlen(err.error_type) > 55);

        body.len = 0;
        wtext_printf(&body, "{\"detail\":[{\"loc\":[\"%.*s", shift, "abc");
        for (i = 0; i < 100; i++)
            wtext_puts(&body, "\xe2\x82\xac");
        wtext_printf(&body, "\"],\"type\":\"%.*s", shift, "abc");
        for (i = 0; i < 100; i++)
            wtext_puts(&body, "\xe2\x82\xac");
        wtext_printf(&body, "\",\"msg\":\"%.*s", shift, "abc");
        for (i = 0; i < 1000; i++)
            wtext_puts(&body, "\xe2\x82\xac");
        wtext_puts(&body, "\"}]}");
        assert_int_equal(answered(SANDBOX_GET, 422, body.data, body.len, &err), SBX_E_VALIDATION);
        check_texts(&err);
        assert_true(strlen(err.details[0].field) > sizeof(err.details[0].field) - 5);
        assert_true(strlen(err.details[0].type) > sizeof(err.details[0].type) - 5);
        assert_true(strlen(err.details[0].message) > sizeof(err.details[0].message) - 5);
    }
    wtext_free(&body);
}

static void control_characters_do_not_reach_messages(void **state)
{
    sbx_error err;
    static const char body[] = "{\"detail\":\"a\\r\\nb\\u001b[31mc\"}";
    (void)state;
    assert_int_equal(answered(SANDBOX_GET, 400, body, sizeof(body) - 1, &err), SBX_E_SERVICE);
    assert_null(strpbrk(err.message, "\r\n\x1b"));
}

/* ---- answers that were lost ---- */

/* The statuses of the answers in turn; 0 cuts the connection, -1 refuses it. */
typedef struct lost_answer {
    int answers[3];
    int at;
} lost_answer;

static void serve_lost(peer *p, void *user)
{
    lost_answer *l = (lost_answer *)user;
    peer_take_request(p);
    peer_reply(p, l->answers[l->at++], "{\"detail\":\"the reason\"}");
}

static void a_lost_answer_explains_an_error_that_it_may_have_caused(void **state)
{
    static const int before[] = {502, 504, 503, 429, 0};
    static const int after[] = {404, 409, 400, 422, 401};
    size_t i, k;
    int which;
    (void)state;
    for (which = 0; which < CALLS; which++)
        for (i = 0; i < COUNT(before); i++)
            for (k = 0; k < COUNT(after); k++) {
                lost_answer l = {{before[i], after[k], 0}, 0};
                uint32_t explained = after[k] == 409   ? CREATIONS | UPDATES
                                     : after[k] == 404 ? UPDATES
                                                       : 0;
                int expected = (before[i] == 502 || before[i] == 504) && (explained & BIT(which));
                sbx_error err;
                sbx_status st;
                world w;
                world_init(&w);
                w.serve = serve_lost;
                w.serve_user = &l;
                if (!before[i]) {
                    /* Refused: nothing can have happened. */
                    world_peer(&w)->refuse = SBX_E_CONNECT;
                    l.at = 0;
                    l.answers[0] = after[k];
                }
                world_open(&w);
                st = call_one(&w, which, &err);
                if (after[k] == 404 && (before[i] == 502 || before[i] == 504) &&
                    (DELETIONS & BIT(which))) {
                    assert_int_equal(st, SBX_OK); /* deleted by the attempt before */
                } else if (!!strstr(err.message, LOST) != expected) {
                    world_fail(&w, "%s answered %d, then %d: %s", calls[which].function, before[i],
                               after[k], err.message);
                } else {
                    assert_int_equal(err.attempts, 2);
                    assert_int_equal(st, row_of(which, after[k], "")->status);
                }
                world_done(&w);
            }
}

/* ---- the last status ---- */

static void the_last_status_is_that_of_the_sandbox(void **state)
{
    static const struct {
        const char *answers[2];
        sbx_status status;
        const char *last;
    } cases[] = {
        {{"{\"status\":\"provisioning\"}", "{\"status\":\"failed\",\"status_message\":\"why\"}"},
         SBX_E_CREATION,
         "failed"},
        {{"{\"status\":\"failed\"}", NULL}, SBX_E_CREATION, "failed"},
        {{"{\"status\":\"provisioning\"}",
          "{\"status\":\"a-status-that-is-longer-than-its-room\"}"},
         SBX_E_RESOURCE_TIMEOUT,
         "a-status-that-is-longer-than-it"},
        {{"{\"status\":\"stopped\"}", "{\"status\":\"provisioning\"}"},
         SBX_E_RESOURCE_TIMEOUT,
         "provisioning"},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_wait_options options;
        sbx_sandbox *got = NULL;
        sbx_error err;
        world w;
        peer *p;
        int k;
        memset(&options, 0, sizeof(options));
        options.ready_timeout_ms = 1;
        world_init(&w);
        p = world_peer(&w);
        for (k = 0; k < 2 && cases[i].answers[k]; k++) {
            peer_request(p, "GET", BASE "/boxes/b/status");
            peer_reply(p, 200, cases[i].answers[k]);
        }
        world_open(&w);
        assert_status(&w, cases[i].status, sbx_sandbox_wait(w.client, "b", &options, &got, &err),
                      &err);
        assert_null(got);
        assert_string_equal(err.last_status, cases[i].last);
        assert_string_equal(err.resource_type, "sandbox");
        assert_int_equal(err.http_status, 0);
        if (cases[i].status == SBX_E_CREATION)
            assert_says(&w, &err, k == 2 ? "failed: why" : "gave no reason");
        world_done(&w);
    }
}

/* ---- the data plane ---- */

enum { READ, WRITE, RUN, INSIDE };

typedef struct inside_row {
    int http;
    const char *type; /* "": the body is a text alone */
    sbx_status status;
    const char *operation, *resource; /* NULL: the call's own */
    const char *error_type;           /* NULL: as the service says */
} inside_row;

static const inside_row inside_rows[] = {
    /* By the type first. */
    {400, "WriteError", SBX_E_OPERATION, "write", NULL, NULL},
    {403, "WriteError", SBX_E_OPERATION, "write", NULL, NULL},
    {404, "WriteError", SBX_E_OPERATION, "write", NULL, NULL},
    {500, "ReadError", SBX_E_OPERATION, "read", NULL, NULL},
    {403, "ReadError", SBX_E_OPERATION, "read", NULL, NULL},
    {404, "ReadError", SBX_E_OPERATION, "read", NULL, NULL},
    {400, "CommandError", SBX_E_OPERATION, "command", NULL, NULL},
    {502, "CommandError", SBX_E_OPERATION, "command", NULL, NULL},
    {503, "CommandError", SBX_E_OPERATION, "command", NULL, NULL},
    {400, "CommandTimeout", SBX_E_COMMAND_TIMEOUT, NULL, NULL, NULL},
    /* 403. */
    {403, "", SBX_E_OPERATION, NULL, NULL, "PermissionDenied"},
    {403, "Whatever", SBX_E_OPERATION, NULL, NULL, "PermissionDenied"},
    {403, "NotReady", SBX_E_OPERATION, NULL, NULL, "PermissionDenied"},
    {403, "FileNotFound", SBX_E_OPERATION, NULL, NULL, "PermissionDenied"},
    /* 502 ConnectionError. */
    {502, "ConnectionError", SBX_E_CONNECTION, NULL, NULL, NULL},
    {502, "", SBX_E_SERVICE, NULL, NULL, NULL},
    {500, "ConnectionError", SBX_E_API, NULL, NULL, NULL},
    {503, "ConnectionError", SBX_E_SERVICE, NULL, NULL, NULL},
    /* 400 NotReady, 503 ServiceUnavailable. */
    {400, "NotReady", SBX_E_NOT_READY, NULL, NULL, NULL},
    {503, "ServiceUnavailable", SBX_E_NOT_READY, NULL, NULL, NULL},
    {503, "NotReady", SBX_E_SERVICE, NULL, NULL, NULL},
    {400, "ServiceUnavailable", SBX_E_SERVICE, NULL, NULL, NULL},
    {503, "", SBX_E_SERVICE, NULL, NULL, NULL},
    /* 404, FileNotFound. */
    {404, "", SBX_E_NOT_FOUND, NULL, "file", NULL},
    {404, "Odd", SBX_E_NOT_FOUND, NULL, "file", NULL},
    {404, "FileNotFound", SBX_E_NOT_FOUND, NULL, "file", NULL},
    {400, "FileNotFound", SBX_E_NOT_FOUND, NULL, "file", NULL},
    {500, "FileNotFound", SBX_E_NOT_FOUND, NULL, "file", NULL},
    /* What does not depend on the call. */
    {400, "", SBX_E_SERVICE, NULL, NULL, NULL},
    {400, "Odd", SBX_E_SERVICE, NULL, NULL, NULL},
    {400, "TemplateNotFound", SBX_E_SERVICE, NULL, NULL, NULL},
    {401, "", SBX_E_AUTHENTICATION, NULL, NULL, NULL},
    {409, "", SBX_E_SERVICE, NULL, NULL, NULL},
    {413, "", SBX_E_SERVICE, NULL, NULL, NULL},
    {422, "", SBX_E_VALIDATION, NULL, NULL, NULL},
    {429, "", SBX_E_QUOTA, NULL, NULL, NULL},
    {500, "", SBX_E_API, NULL, NULL, NULL},
    {504, "", SBX_E_SERVICE, NULL, NULL, NULL},
};

static sbx_status call_inside(world *w, int which, sbx_error *err)
{
    sbx_sandbox *sandbox = world_sandbox(w);
    sbx_bytes *bytes = NULL;
    sbx_result *result = NULL;
    sbx_status st = which == READ    ? sbx_read(sandbox, "/f", NULL, &bytes, err)
                    : which == WRITE ? sbx_write(sandbox, "/f", "a", 1, NULL, err)
                                     : sbx_run(sandbox, "true", NULL, &result, err);
    check_error(w, st, err);
    assert_true(!bytes && !result);
    sbx_free(sandbox);
    return st;
}

static sbx_status answered_inside(int which, int http, const char *body, sbx_error *err)
{
    static const char *const requests[INSIDE][2] = {{"GET", "/sb-1/download?path=%2Ff"},
                                                    {"POST", "/sb-1/upload?path=%2Ff"},
                                                    {"POST", "/sb-1/execute"}};
    world w;
    peer *p;
    sbx_status st;
    world_init(&w);
    w.config.max_retries = SBX_NONE;
    p = world_peer(&w);
    if (which == RUN) {
        /* A service without WebSockets. */
        peer_request(p, "GET", "/sb-1/execute/ws");
        peer_reply_with(p, 404, "Connection: close\r\n", "");
        peer_close(p);
        p = world_peer(&w);
    }
    peer_request(p, requests[which][0], requests[which][1]);
    peer_reply(p, http, body);
    world_open(&w);
    st = call_inside(&w, which, err);
    assert_int_equal(err->http_status, http);
    world_done(&w);
    return st;
}

static void errors_of_the_data_plane_are_what_the_protocol_says(void **state)
{
    static const char *const operations[INSIDE] = {"read", "write", "command"};
    static const char *const resources[INSIDE] = {"file", "file", ""};
    size_t i;
    int which;
    (void)state;
    for (i = 0; i < COUNT(inside_rows); i++)
        for (which = 0; which < INSIDE; which++) {
            const inside_row *row = &inside_rows[i];
            const char *operation = row->operation ? row->operation : operations[which];
            const char *resource = row->resource ? row->resource : resources[which];
            const char *error_type = row->error_type ? row->error_type : row->type;
            char body[300];
            sbx_error err;
            sbx_status st;
            body_of(row->type, body, sizeof(body));
            st = answered_inside(which, row->http, body, &err);
            if (st != row->status || strcmp(err.operation, operation) != 0 ||
                strcmp(err.resource_type, resource) != 0 ||
                strcmp(err.error_type, error_type) != 0 || *err.quota_type || err.detail_count ||
                strncmp(err.message, "the reason (HTTP ", 17) != 0 ||
                !!strstr(err.message, "sbx_sandbox_wait") != (st == SBX_E_NOT_READY) ||
                sbx_status_is(st, SBX_E_SERVICE) == (st == SBX_E_CONNECTION))
                fail_msg("%s: %d %s: %s, operation '%s', resource '%s', type '%s': %s",
                         operations[which], row->http, body, sbx_status_name(st), err.operation,
                         err.resource_type, err.error_type, err.message);
        }
}

static void a_request_that_timed_out_is_a_command_only_where_there_is_one(void **state)
{
    sbx_error err;
    (void)state;
    assert_int_equal(answered_inside(RUN, 408, "", &err), SBX_E_COMMAND_TIMEOUT);
    assert_int_equal(answered_inside(READ, 408, "", &err), SBX_E_SERVICE);
    assert_int_equal(answered_inside(WRITE, 408, "", &err), SBX_E_SERVICE);
}

static void quotas_and_details_of_the_data_plane_are_read_too(void **state)
{
    sbx_error err;
    int which;
    (void)state;
    for (which = 0; which < INSIDE; which++) {
        assert_int_equal(answered_inside(which, 429, "{\"detail\":\"storage\"}", &err),
                         SBX_E_QUOTA);
        assert_string_equal(err.quota_type, "storage");
        assert_int_equal(
            answered_inside(which, 422,
                            "{\"detail\":[{\"loc\":[\"query\",\"path\"],\"msg\":\"bad\","
                            "\"type\":\"value_error\"}]}",
                            &err),
            SBX_E_VALIDATION);
        assert_string_equal(err.field, "path");
        assert_int_equal(err.detail_count, 1);
    }
}

static void a_sandbox_that_cannot_be_used_says_how_it_is(void **state)
{
    static const struct {
        const char *json;
        sbx_status status;
        const char *last, *says;
    } cases[] = {
        {"{\"name\":\"b\",\"status\":\"provisioning\",\"dataplane_url\":\"" WORLD_DATAPLANE "\"}",
         SBX_E_NOT_READY, "provisioning", "sbx_sandbox_wait"},
        {"{\"name\":\"b\",\"status\":\"failed\",\"status_message\":\"no image\"}", SBX_E_NOT_READY,
         "failed", "no image"},
        {"{\"name\":\"b\",\"status\":\"failed\",\"status_message\":\"" WORLD_KEY " is wrong\"}",
         SBX_E_NOT_READY, "failed", "* is wrong"},
        {"{\"name\":\"b\",\"status\":\"failed\"}", SBX_E_NOT_READY, "failed", "cannot be used"},
        {"{\"name\":\"b\",\"status\":\"ready\"}", SBX_E_NO_DATAPLANE, "ready", "sbx_sandbox_get"},
        {"{\"name\":\"b\",\"status\":\"stopped\"}", SBX_E_NO_DATAPLANE, "stopped",
         "sbx_sandbox_get"},
    };
    size_t i;
    int which;
    (void)state;
    for (i = 0; i < COUNT(cases); i++)
        for (which = 0; which < INSIDE; which++) {
            sbx_sandbox *sandbox = NULL;
            sbx_bytes *bytes = NULL;
            sbx_result *result = NULL;
            sbx_error err;
            sbx_status st;
            world w;
            peer *p;
            world_init(&w);
            p = world_peer(&w);
            peer_request(p, "GET", BASE "/boxes/b");
            peer_reply(p, 200, cases[i].json);
            world_open(&w);
            assert_status(&w, SBX_OK, sbx_sandbox_get(w.client, "b", NULL, &sandbox, &err), &err);
            st = which == READ    ? sbx_read(sandbox, "/f", NULL, &bytes, &err)
                 : which == WRITE ? sbx_write(sandbox, "/f", "a", 1, NULL, &err)
                                  : sbx_run(sandbox, "true", NULL, &result, &err);
            assert_status(&w, cases[i].status, st, &err);
            assert_string_equal(err.last_status, cases[i].last);
            assert_string_equal(err.resource_type, "sandbox");
            assert_says(&w, &err, cases[i].says);
            assert_says(&w, &err, "the sandbox b");
            assert_int_equal(err.http_status, 0);
            assert_int_equal(err.attempts, 0);
            assert_int_equal(w.dials, 1);
            sbx_free(sandbox);
            world_done(&w);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_what_the_table_of_the_protocol_says),
        cmocka_unit_test(a_body_without_a_text_gives_the_status_and_the_request),
        cmocka_unit_test(after_the_last_attempt_the_answer_is_what_it_is),
        cmocka_unit_test(the_quota_is_read_from_the_message),
        cmocka_unit_test(details_of_a_validation_error_are_kept),
        cmocka_unit_test(any_detail_can_say_that_a_sandbox_was_not_valid),
        cmocka_unit_test(odd_bodies_never_hide_the_status),
        cmocka_unit_test(odd_bytes_never_hide_the_status),
        cmocka_unit_test(long_texts_of_the_service_are_cut_between_characters),
        cmocka_unit_test(control_characters_do_not_reach_messages),
        cmocka_unit_test(a_lost_answer_explains_an_error_that_it_may_have_caused),
        cmocka_unit_test(the_last_status_is_that_of_the_sandbox),
        cmocka_unit_test(errors_of_the_data_plane_are_what_the_protocol_says),
        cmocka_unit_test(a_request_that_timed_out_is_a_command_only_where_there_is_one),
        cmocka_unit_test(quotas_and_details_of_the_data_plane_are_read_too),
        cmocka_unit_test(a_sandbox_that_cannot_be_used_says_how_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
