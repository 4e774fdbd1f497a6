/* Commands with real sockets and real threads: killed and fed from other threads and from signal
   handlers while their owner waits, and two hundred of them at once on one thread. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "world.h" /* for its texts and its JSON */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define LATE_MS 250
#define GUESTS 256

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void pause_ms(long ms)
{
    struct timespec t;
    t.tv_sec = ms / 1000;
    t.tv_nsec = ms % 1000 * 1000000;
    nanosleep(&t, NULL);
}

/* ---- a service ---- */

/* A connection with its command: "sleep" ends when it is killed; "stubborn" ignores that; "gone"
   drops the connection then; "cat" ends with its stdin; anything else prints its own text. */
typedef struct guest {
    int fd, upgraded;
    wtext in, message;
    sbx_ws ws;
    char command[64], id[64];
} guest;

typedef struct server {
    int listener, bell[2];
    pthread_t thread;
    char url[64];
    guest guests[GUESTS];
    wtext input; /* what all stdins got */
    int kills, resizes, closes, executions;
} server;

static void send_all(guest *g, const void *data, size_t len)
{
    const char *at = (const char *)data;
    while (len && g->fd >= 0) {
        ssize_t n = send(g->fd, at, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        at += n;
        len -= (size_t)n;
    }
}

static void say(guest *g, int opcode, const void *data, size_t len)
{
    unsigned char head[SBX_WS_HEADER_MAX];
    send_all(g, head, sbx_ws_header(head, opcode, 1, len, NULL));
    send_all(g, data, len);
}

static void say_text(guest *g, const char *format, ...)
{
    wtext text = {NULL, 0, 0};
    va_list args;
    va_start(args, format);
    wtext_vprintf(&text, format, args);
    va_end(args);
    say(g, SBX_WS_TEXT, text.data, text.len);
    wtext_free(&text);
}

static void drop(guest *g)
{
    close(g->fd);
    wtext_free(&g->in);
    wtext_free(&g->message);
    g->fd = -1;
}

static void exits(guest *g, int code)
{
    say_text(g, "{\"type\":\"exit\",\"exit_code\":%d}", code);
    say(g, SBX_WS_CLOSE, "\x03\xe8", 2);
}

static void handle(server *s, guest *g)
{
    const char *text = wtext_get(&g->message);
    size_t len = g->message.len;
    char type[32];
    json_member(text, len, "type", type, sizeof(type));
    if (strcmp(type, "execute") == 0) {
        s->executions++;
        json_member(text, len, "command", g->command, sizeof(g->command));
        json_member(text, len, "command_id", g->id, sizeof(g->id));
        say_text(g, "{\"type\":\"started\",\"command_id\":\"%s\",\"pid\":5}", g->id);
        if (!strstr("sleep stubborn gone cat", g->command)) {
            say_text(g, "{\"type\":\"stdout\",\"data\":\"%s\",\"offset\":0}", g->command);
            exits(g, 7);
        }
    } else if (strcmp(type, "input") == 0) {
        char *data = (char *)malloc(len);
        json_member(text, len, "data", data, len);
        wtext_puts(&s->input, data);
        free(data);
    } else if (strcmp(type, "kill") == 0) {
        s->kills++;
        if (strcmp(g->command, "gone") == 0)
            drop(g);
        else if (strcmp(g->command, "stubborn") != 0)
            exits(g, 137);
    } else if (strcmp(type, "close_stdin") == 0) {
        s->closes++;
        exits(g, 0);
    } else if (strcmp(type, "resize") == 0) {
        s->resizes++;
    }
}

static void upgrade(guest *g)
{
    char *end = strstr(g->in.data, "\r\n\r\n"), *key = strstr(g->in.data, "Sec-WebSocket-Key: ");
    char accept[29], head[256];
    if (!end || !key)
        return;
    sbx_ws_accept(key + 19, 24, accept);
    send_all(g, head,
             (size_t)snprintf(head, sizeof(head),
                              "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                              "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                              accept));
    wtext_drop(&g->in, (size_t)(end + 4 - g->in.data));
    sbx_ws_init(&g->ws, SBX_WS_SERVER, 1 << 20);
    g->upgraded = 1;
}

static void hear_frames(server *s, guest *g)
{
    sbx_ws_event e;
    size_t used;
    sbx_status st = SBX_OK;
    while (st == SBX_OK && g->fd >= 0 && g->in.len) {
        st = sbx_ws_read(&g->ws, g->in.data, g->in.len, &used, &e);
        if (st == SBX_OK && e.opcode == SBX_WS_PING) {
            say(g, SBX_WS_PONG, e.data, e.len);
        } else if (st == SBX_OK && e.opcode == SBX_WS_TEXT) {
            wtext_add(&g->message, e.data, e.len);
            if (e.last)
                handle(s, g);
            if (e.last)
                g->message.len = 0;
        }
        if (g->fd >= 0)
            wtext_drop(&g->in, used);
    }
}

static void hear_guest(server *s, guest *g)
{
    char bytes[65536];
    ssize_t n = recv(g->fd, bytes, sizeof(bytes), 0);
    if (n <= 0) {
        drop(g);
        return;
    }
    wtext_add(&g->in, bytes, (size_t)n);
    if (!g->upgraded)
        upgrade(g);
    if (g->upgraded)
        hear_frames(s, g);
}

static void welcome(server *s)
{
    int fd = accept(s->listener, NULL, NULL), i;
    for (i = 0; fd >= 0 && i < GUESTS; i++) {
        if (s->guests[i].fd >= 0)
            continue;
        memset(&s->guests[i], 0, sizeof(guest));
        s->guests[i].fd = fd;
        return;
    }
    close(fd);
}

static void *serve(void *user)
{
    server *s = (server *)user;
    struct pollfd items[GUESTS + 2];
    int i;
    for (;;) {
        for (i = 0; i < GUESTS + 2; i++) {
            items[i].fd = i < GUESTS ? s->guests[i].fd : i == GUESTS ? s->listener : s->bell[0];
            items[i].events = POLLIN;
            items[i].revents = 0;
        }
        if (poll(items, GUESTS + 2, -1) < 0)
            continue;
        if (items[GUESTS + 1].revents)
            return NULL;
        for (i = 0; i < GUESTS; i++)
            if (items[i].fd >= 0 && items[i].revents)
                hear_guest(s, &s->guests[i]);
        if (items[GUESTS].revents)
            welcome(s);
    }
}

/* ---- a client at that service ---- */

typedef struct scene {
    server server;
    sbx_client *client;
    sbx_sandbox *sandbox;
    sbx_command *command;
    sbx_error err;
    int threads; /* of feeders that still run */
    int64_t acted;
} scene;

static void begin(scene *s)
{
    struct sockaddr_in address;
    socklen_t len = sizeof(address);
    sbx_config config;
    int i;
    memset(s, 0, sizeof(*s));
    memset(&address, 0, sizeof(address));
    memset(&config, 0, sizeof(config));
    for (i = 0; i < GUESTS; i++)
        s->server.guests[i].fd = -1;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->server.listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->server.listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(s->server.listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(listen(s->server.listener, 256), 0);
    assert_int_equal(pipe(s->server.bell), 0);
    snprintf(s->server.url, sizeof(s->server.url), "http://127.0.0.1:%d/sb",
             (int)ntohs(address.sin_port));
    assert_int_equal(pthread_create(&s->server.thread, NULL, serve, &s->server), 0);
    config.transport = sbx_posix();
    config.endpoint = s->server.url;
    assert_int_equal(sbx_open(&config, &s->client, &s->err), SBX_OK);
    assert_int_equal(sbx_sandbox_at(s->client, s->server.url, &s->sandbox, &s->err), SBX_OK);
}

static void start(scene *s, const char *text, int pty)
{
    sbx_run_options options;
    memset(&options, 0, sizeof(options));
    options.input = 1;
    options.pty = pty;
    assert_int_equal(sbx_command_start(s->sandbox, text, &options, &s->command, &s->err), SBX_OK);
}

/* Lets the service go, so that all that it has seen can be looked at. */
static void stop_server(scene *s)
{
    int i;
    assert_int_equal(write(s->server.bell[1], "", 1), 1);
    pthread_join(s->server.thread, NULL);
    for (i = 0; i < GUESTS; i++)
        if (s->server.guests[i].fd >= 0)
            drop(&s->server.guests[i]);
    close(s->server.listener);
    close(s->server.bell[0]);
    close(s->server.bell[1]);
}

static void end(scene *s)
{
    sbx_command_free(s->command);
    sbx_free(s->sandbox);
    sbx_close(s->client);
    wtext_free(&s->server.input);
}

/* ---- killing ---- */

static void *kill_soon(void *user)
{
    scene *s = (scene *)user;
    pause_ms(300);
    s->acted = now_ms();
    sbx_command_kill(s->command);
    return NULL;
}

static void another_thread_kills_while_the_owner_waits(void **state)
{
    static const struct {
        const char *command;
        sbx_status status;
        int after_ms;
    } cases[] = {
        {"sleep", SBX_END, 0}, {"gone", SBX_E_CANCELLED, 0}, {"stubborn", SBX_E_CANCELLED, 2000}};
    size_t i;
    (void)state;
    for (i = 0; i < 3; i++) {
        pthread_t thread;
        sbx_result *result;
        sbx_chunk chunk;
        scene s;
        int64_t late;
        begin(&s);
        start(&s, cases[i].command, 0);
        assert_int_equal(pthread_create(&thread, NULL, kill_soon, &s), 0);
        assert_int_equal(sbx_command_next(s.command, &chunk, SBX_NONE, &s.err), cases[i].status);
        late = now_ms();
        pthread_join(thread, NULL);
        assert_in_range(late - s.acted, cases[i].after_ms, cases[i].after_ms + LATE_MS);
        if (cases[i].status == SBX_END) {
            assert_int_equal(sbx_command_result(s.command, &result, &s.err), SBX_OK);
            assert_int_equal(result->exit_code, 137);
            sbx_free(result);
        }
        stop_server(&s);
        assert_int_equal(s.server.kills, 1);
        end(&s);
    }
}

static scene *alarmed;

static void on_alarm(int number)
{
    (void)number;
    sbx_command_kill(alarmed->command);
}

static void a_signal_handler_kills(void **state)
{
    struct itimerval timer = {{0, 0}, {0, 300000}};
    sbx_chunk chunk;
    scene s;
    int64_t begun;
    (void)state;
    begin(&s);
    start(&s, "sleep", 0);
    alarmed = &s;
    signal(SIGALRM, on_alarm);
    begun = now_ms();
    setitimer(ITIMER_REAL, &timer, NULL);
    assert_int_equal(sbx_command_next(s.command, &chunk, SBX_NONE, &s.err), SBX_END);
    assert_in_range(now_ms() - begun, 290, 300 + LATE_MS);
    /* And where nothing waits at all. */
    raise(SIGALRM);
    signal(SIGALRM, SIG_DFL);
    stop_server(&s);
    end(&s);
}

/* ---- input ---- */

#define FEEDERS 4
#define LINES 10000

typedef struct feeder {
    scene *s;
    int number;
    pthread_t thread;
} feeder;

static void *feed_lines(void *user)
{
    feeder *f = (feeder *)user;
    char line[32];
    int i;
    for (i = 0; i < LINES; i++) {
        size_t len = (size_t)snprintf(line, sizeof(line), "%d %05d\n", f->number, i);
        sbx_status st;
        while ((st = sbx_command_input(f->s->command, line, len, NULL)) == SBX_AGAIN)
            pause_ms(1);
        if (st != SBX_OK)
            return f; /* told below by what is missing */
    }
    if (__atomic_sub_fetch(&f->s->threads, 1, __ATOMIC_ACQ_REL) == 0)
        (void)sbx_command_close_input(f->s->command, NULL);
    return NULL;
}

static void many_threads_feed_while_the_owner_waits(void **state)
{
    feeder feeders[FEEDERS];
    int next[FEEDERS] = {0}, i;
    sbx_result *result;
    scene s;
    char *line;
    (void)state;
    begin(&s);
    start(&s, "cat", 0);
    s.threads = FEEDERS;
    for (i = 0; i < FEEDERS; i++) {
        feeders[i].s = &s;
        feeders[i].number = i;
        assert_int_equal(pthread_create(&feeders[i].thread, NULL, feed_lines, &feeders[i]), 0);
    }
    assert_int_equal(sbx_command_result(s.command, &result, &s.err), SBX_OK);
    assert_int_equal(result->input_lost, 0);
    sbx_free(result);
    for (i = 0; i < FEEDERS; i++)
        pthread_join(feeders[i].thread, NULL);
    stop_server(&s);
    assert_int_equal(s.server.closes, 1);
    assert_int_equal(s.server.input.len, FEEDERS * LINES * 8);
    for (line = s.server.input.data; *line; line += 8) {
        int number = line[0] - '0';
        assert_in_range(number, 0, FEEDERS - 1);
        assert_true(line[1] == ' ' && line[7] == '\n');
        assert_int_equal(atoi(line + 2), next[number]++);
    }
    end(&s);
}

static void *feed_soon(void *user)
{
    scene *s = (scene *)user;
    pause_ms(300);
    s->acted = now_ms();
    (void)sbx_command_input(s->command, "x", 1, NULL);
    pause_ms(200);
    (void)sbx_command_close_input(s->command, NULL);
    return NULL;
}

static void input_leaves_at_once_though_the_owner_sleeps(void **state)
{
    pthread_t thread;
    sbx_result *result;
    scene s;
    int64_t late;
    (void)state;
    begin(&s);
    start(&s, "cat", 0);
    assert_int_equal(pthread_create(&thread, NULL, feed_soon, &s), 0);
    assert_int_equal(sbx_command_result(s.command, &result, &s.err), SBX_OK);
    late = now_ms();
    pthread_join(thread, NULL);
    assert_in_range(late - s.acted, 190, 200 + LATE_MS);
    sbx_free(result);
    stop_server(&s);
    assert_string_equal(s.server.input.data, "x");
    end(&s);
}

static void *size_and_feed(void *user)
{
    scene *s = (scene *)user;
    int i;
    for (i = 1; i <= 500; i++) {
        (void)sbx_command_resize(s->command, i, 500, NULL);
        (void)sbx_command_input(s->command, "x", 1, NULL);
    }
    sbx_command_kill(s->command);
    return NULL;
}

static void another_thread_may_do_all_that_is_allowed(void **state)
{
    pthread_t thread;
    sbx_result *result;
    scene s;
    (void)state;
    begin(&s);
    start(&s, "sleep", 1);
    assert_int_equal(pthread_create(&thread, NULL, size_and_feed, &s), 0);
    if (sbx_command_result(s.command, &result, &s.err) == SBX_OK) {
        assert_int_equal(result->exit_code, 137);
        sbx_free(result);
    } else {
        /* It may have been killed before it was even started. */
        assert_int_equal(s.err.status, SBX_E_CANCELLED);
    }
    pthread_join(thread, NULL);
    stop_server(&s);
    end(&s);
}

/* ---- many at once ---- */

#define MANY 200

static void two_hundred_commands_run_at_once_on_one_thread(void **state)
{
    sbx_command *commands[MANY], *open[MANY]; /* open: in the order of ops */
    sbx_op *ops[MANY];
    int i, left = MANY;
    char text[32];
    scene s;
    (void)state;
    begin(&s);
    for (i = 0; i < MANY; i++) {
        snprintf(text, sizeof(text), "number %d", i);
        assert_int_equal(sbx_command_start(s.sandbox, text, NULL, &commands[i], &s.err), SBX_OK);
        open[i] = commands[i];
        ops[i] = sbx_command_op(commands[i]);
    }
    while (left) {
        assert_int_equal(sbx_wait(ops, left, 20000, &s.err), SBX_OK);
        for (i = left; i-- > 0;) {
            sbx_chunk chunk;
            sbx_status st;
            while ((st = sbx_command_next(open[i], &chunk, 0, &s.err)) == SBX_OK)
                ;
            if (st == SBX_AGAIN)
                continue;
            assert_int_equal(st, SBX_END);
            ops[i] = ops[--left];
            open[i] = open[left];
        }
    }
    for (i = 0; i < MANY; i++) {
        sbx_result *result;
        snprintf(text, sizeof(text), "number %d", i);
        assert_int_equal(sbx_command_result(commands[i], &result, &s.err), SBX_OK);
        assert_string_equal(result->out, text);
        assert_int_equal(result->exit_code, 7);
        sbx_free(result);
        sbx_command_free(commands[i]);
    }
    stop_server(&s);
    assert_int_equal(s.server.executions, MANY);
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_thread_kills_while_the_owner_waits),
        cmocka_unit_test(a_signal_handler_kills),
        cmocka_unit_test(many_threads_feed_while_the_owner_waits),
        cmocka_unit_test(input_leaves_at_once_though_the_owner_sleeps),
        cmocka_unit_test(another_thread_may_do_all_that_is_allowed),
        cmocka_unit_test(two_hundred_commands_run_at_once_on_one_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
