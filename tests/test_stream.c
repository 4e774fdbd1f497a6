/* A hundred MiB of output over a connection that breaks again and again: the same bytes arrive, in
   order, and the library holds no more than a few messages. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "conversation.h"

#define SIZE ((uint64_t)100 << 20)
#define MESSAGE 32768 /* bytes of output in one */

static uint64_t lot;

static uint64_t draw(uint64_t below)
{
    lot = lot * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (lot >> 33) % below;
}

/* What byte the output has at an offset: depends on all of the offset, and stays a plain letter. */
static unsigned char byte_at(uint64_t offset)
{
    uint64_t x = (offset >> 3) * UINT64_C(0x9e3779b97f4a7c15);
    x ^= x >> 29;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    return (unsigned char)('0' + ((x >> (8 * (offset & 7))) & 31));
}

/* Sends messages from an offset on, some more than the connection will carry. */
static void send_from(peer *p, uint64_t offset)
{
    static char data[MESSAGE];
    char head[64];
    uint64_t end = offset + 560000;
    while (offset < SIZE && offset < end) {
        wtext json = {NULL, 0, 0};
        size_t i, len = SIZE - offset < MESSAGE ? (size_t)(SIZE - offset) : MESSAGE;
        for (i = 0; i < len; i++)
            data[i] = (char)byte_at(offset + i);
        snprintf(head, sizeof(head), "\",\"offset\":%llu}", (unsigned long long)offset);
        wtext_puts(&json, "{\"type\":\"stdout\",\"data\":\"");
        wtext_add(&json, data, len);
        wtext_puts(&json, head);
        peer_emit_frame(p, SBX_WS_TEXT, 1, json.data, json.len);
        wtext_free(&json);
        offset += len;
    }
    if (offset == SIZE) {
        p->cut_at = -1;
        peer_exits(p, EXIT("0"));
    }
}

static void serve_stream(peer *p, void *user)
{
    wtext text = {NULL, 0, 0};
    char type[32], id[80], offset[32], started[200];
    (void)user;
    if (!peer_take_message(p, &text)) {
        peer_accept_upgrade(p);
        peer_take_request(p);
        return;
    }
    json_member(text.data, text.len, "type", type, sizeof(type));
    json_member(text.data, text.len, "command_id", id, sizeof(id));
    json_member(text.data, text.len, "stdout_offset", offset, sizeof(offset));
    wtext_free(&text);
    snprintf(started, sizeof(started), "{\"type\":\"started\",\"command_id\":\"%s\",\"pid\":1}",
             id);
    peer_emit_frame(p, SBX_WS_TEXT, 1, started, strlen(started));
    send_from(p, strtoull(offset, NULL, 10));
}

static void cut_somewhere(peer *p, void *user)
{
    int i;
    (void)user;
    p->cut_at = 51200 + (int64_t)draw(460800);
    p->cut_how = draw(2) ? SBX_END : SBX_E_CONNECTION;
    for (i = 0; i < p->number; i++) /* what the earlier ones held is not needed any more */
        if (!p->w->peers[i]->live)
            wtext_free(&p->w->peers[i]->out);
}

typedef struct check {
    world *w;
    uint64_t at;
} check;

static int compare(void *user, int stream, const char *data, size_t len)
{
    check *c = (check *)user;
    size_t i;
    if (stream != SBX_STDOUT)
        world_fail(c->w, "output on stream %d", stream);
    for (i = 0; i < len; i++)
        if ((unsigned char)data[i] != byte_at(c->at + i))
            world_fail(c->w, "another byte at %llu", (unsigned long long)(c->at + i));
    c->at += len;
    return 0;
}

static void a_hundred_mib_over_a_connection_that_keeps_breaking_arrive_whole(void **state)
{
    sbx_run_options options = run_options();
    sbx_result *result;
    sbx_sandbox *sandbox;
    sbx_error err;
    check c;
    world w;
    (void)state;
    lot = 7;
    world_init(&w);
    w.serve = serve_stream;
    w.on_dial = cut_somewhere;
    sandbox = begin(&w);
    c.w = &w;
    c.at = 0;
    options.on_output = compare;
    options.user = &c;
    options.discard_output = 1;
    options.call.timeout_ms = SBX_NONE;
    assert_status(&w, SBX_OK, run(sandbox, &options, &result, &err), &err);
    assert_true(c.at == SIZE);
    assert_int_equal(result->out_lost, 0);
    assert_int_equal(result->out_len, 0);
    print_message("%d connections, at most %lu KiB held\n", w.dials,
                  (unsigned long)(w.most_bytes >> 10));
    assert_between(w.dials, 200, 2000);
    assert_true(w.most_bytes < 1 << 20);
    sbx_free(result);
    end(&w, sandbox);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hundred_mib_over_a_connection_that_keeps_breaking_arrive_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
