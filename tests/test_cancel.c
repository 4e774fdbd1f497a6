/* Deadlines and cancellation by the clock on the wall: real sockets, real threads. Each call ends
   within 250 ms of the moment it should, whatever it is doing. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define LATE_MS 250

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- servers ---- */

/* A listener on loopback; answer NULL: accepts and says nothing, or with full 1 does not even accept. */
typedef struct server {
    int listener;
    int filler[8]; /* fill the queue of a listener that does not accept */
    const char *answer;
    pthread_t thread;
    char endpoint[64];
} server;

static void *serve(void *user)
{
    server *s = (server *)user;
    char request[4096];
    int held[64], count = 0;
    while (count < 64 && (held[count] = accept(s->listener, NULL, NULL)) >= 0) {
        if (s->answer && read(held[count], request, sizeof(request)) > 0 &&
            write(held[count], s->answer, strlen(s->answer)) < 0)
            perror("write");
        count++;
    }
    while (count > 0)
        close(held[--count]);
    return NULL;
}

static void server_start(server *s, const char *answer, int full)
{
    struct sockaddr_in address;
    socklen_t len = sizeof(address);
    int i;
    memset(s, 0, sizeof(*s));
    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->answer = answer;
    s->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(s->listener >= 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(listen(s->listener, full ? 0 : 64), 0);
    snprintf(s->endpoint, sizeof(s->endpoint), "http://127.0.0.1:%d/v2/sandboxes",
             (int)ntohs(address.sin_port));
    for (i = 0; i < 8; i++) {
        s->filler[i] = -1;
        if (!full)
            continue;
        s->filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(s->filler[i], (struct sockaddr *)&address, sizeof(address));
    }
    if (!full)
        assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(server *s, int full)
{
    int i;
    shutdown(s->listener, SHUT_RDWR);
    if (!full)
        pthread_join(s->thread, NULL);
    for (i = 0; i < 8; i++)
        if (s->filler[i] >= 0)
            close(s->filler[i]);
    close(s->listener);
}

static const char unavailable[] = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";

/* ---- the ways to end a call ---- */

typedef struct canceller {
    sbx_client *client;
    sbx_cancel cancel;
    sbx_op *op;
    int64_t at; /* when it cancelled */
} canceller;

static void pause_ms(long ms)
{
    struct timespec t;
    t.tv_sec = ms / 1000;
    t.tv_nsec = ms % 1000 * 1000000;
    nanosleep(&t, NULL);
}

static void *cancel_soon(void *user)
{
    canceller *c = (canceller *)user;
    pause_ms(300);
    c->at = now_ms();
    if (c->op)
        sbx_op_cancel(c->op);
    else
        sbx_cancel_set(c->client, &c->cancel);
    return NULL;
}

static sbx_client *open_client(const server *s)
{
    sbx_config config;
    sbx_client *client;
    sbx_error err;
    memset(&config, 0, sizeof(config));
    config.transport = sbx_posix();
    config.endpoint = s->endpoint;
    assert_int_equal(sbx_open(&config, &client, &err), SBX_OK);
    return client;
}

/* The kinds of calls. */
enum { CALL_GET, CALL_RUN, CALL_READ, CALLS };

static sbx_status call_it(sbx_client *client, const char *endpoint, int kind, const sbx_call *call,
                          sbx_error *err)
{
    sbx_template *template_ = NULL;
    sbx_sandbox *sandbox = NULL;
    sbx_result *result = NULL;
    sbx_bytes *bytes = NULL;
    sbx_run_options run;
    sbx_file_options file;
    sbx_status status;
    memset(&run, 0, sizeof(run));
    memset(&file, 0, sizeof(file));
    run.call = file.call = *call;
    if (kind == CALL_GET)
        return sbx_template_get(client, "t", call, &template_, err);
    assert_int_equal(sbx_sandbox_at(client, endpoint, &sandbox, err), SBX_OK);
    status = kind == CALL_RUN ? sbx_run(sandbox, "true", &run, &result, err)
                              : sbx_read(sandbox, "/f", &file, &bytes, err);
    sbx_free(sandbox);
    return status;
}

static void cancel_everywhere(const char *answer, int full)
{
    int kind;
    for (kind = 0; kind < CALLS; kind++) {
        server s;
        canceller c;
        sbx_call call;
        sbx_error err;
        pthread_t thread;
        int64_t late;
        server_start(&s, answer, full);
        memset(&c, 0, sizeof(c));
        memset(&call, 0, sizeof(call));
        c.client = open_client(&s);
        call.cancel = &c.cancel;
        assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &c), 0);
        assert_int_equal(call_it(c.client, s.endpoint, kind, &call, &err), SBX_E_CANCELLED);
        late = now_ms();
        pthread_join(thread, NULL);
        assert_in_range(late - c.at, 0, LATE_MS);
        assert_int_equal(err.status, SBX_E_CANCELLED);
        sbx_close(c.client);
        server_stop(&s, full);
    }
}

static void another_thread_cancels_while_connecting(void **state)
{
    (void)state;
    cancel_everywhere(NULL, 1);
}

static void another_thread_cancels_a_silent_server(void **state)
{
    (void)state;
    cancel_everywhere(NULL, 0);
}

static void another_thread_cancels_in_a_pause_between_attempts(void **state)
{
    (void)state;
    cancel_everywhere(unavailable, 0);
}

static void another_thread_cancels_an_operation(void **state)
{
    server s;
    canceller c;
    sbx_templates *list;
    sbx_error err;
    pthread_t thread;
    (void)state;
    server_start(&s, NULL, 0);
    memset(&c, 0, sizeof(c));
    c.client = open_client(&s);
    assert_int_equal(sbx_template_list_start(c.client, NULL, &list, &c.op, &err), SBX_OK);
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &c), 0);
    assert_int_equal(sbx_op_wait(c.op, SBX_NONE, &err), SBX_E_CANCELLED);
    pthread_join(thread, NULL);
    assert_in_range(now_ms() - c.at, 0, LATE_MS);
    sbx_op_free(c.op);
    sbx_close(c.client);
    server_stop(&s, 0);
}

static sbx_client *signal_client;
static sbx_cancel signal_cancel;

static void on_alarm(int number)
{
    (void)number;
    sbx_cancel_set(signal_client, &signal_cancel);
}

static void a_signal_handler_cancels(void **state)
{
    server s;
    sbx_call call;
    sbx_error err;
    struct itimerval timer = {{0, 0}, {0, 300000}};
    int64_t start;
    (void)state;
    server_start(&s, NULL, 0);
    memset(&call, 0, sizeof(call));
    call.cancel = &signal_cancel;
    signal_client = open_client(&s);
    signal(SIGALRM, on_alarm);
    start = now_ms();
    setitimer(ITIMER_REAL, &timer, NULL);
    assert_int_equal(call_it(signal_client, s.endpoint, CALL_GET, &call, &err), SBX_E_CANCELLED);
    assert_in_range(now_ms() - start, 290, 300 + LATE_MS);
    signal(SIGALRM, SIG_DFL);
    sbx_close(signal_client);
    server_stop(&s, 0);
}

static void every_call_keeps_its_deadline(void **state)
{
    int kind, how;
    (void)state;
    for (how = 0; how < 3; how++) {
        for (kind = 0; kind < CALLS; kind++) {
            server s;
            sbx_client *client;
            sbx_call call;
            sbx_error err;
            int64_t start;
            server_start(&s, how == 2 ? unavailable : NULL, how == 1);
            memset(&call, 0, sizeof(call));
            call.timeout_ms = 400;
            client = open_client(&s);
            start = now_ms();
            assert_int_equal(call_it(client, s.endpoint, kind, &call, &err), SBX_E_TIMEOUT);
            assert_in_range(now_ms() - start, 400, 400 + LATE_MS);
            assert_true(err.message[0]);
            sbx_close(client);
            server_stop(&s, how == 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_thread_cancels_while_connecting),
        cmocka_unit_test(another_thread_cancels_a_silent_server),
        cmocka_unit_test(another_thread_cancels_in_a_pause_between_attempts),
        cmocka_unit_test(another_thread_cancels_an_operation),
        cmocka_unit_test(a_signal_handler_cancels),
        cmocka_unit_test(every_call_keeps_its_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
