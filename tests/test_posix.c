/* transports/sandbox_posix.h: every hook of the transport on loopback, and the helpers for files.

   Names never reach a name server: what the transport calls getaddrinfo is ours for the names that
   end in ".test", and the two tests of the real one run in a network namespace of their own. The
   helpers for files meet transfers that we make up; tests/integration has real ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/sched.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/syscall.h>
#endif

#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

/* ---- what the transport finds in place of the system and the library ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what look-ups share with the tests */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct {
    int running;             /* look-ups of "hang.test" */
    int release;             /* 1: they may end */
    const char *list[64];    /* the addresses of "list.test", ended by NULL */
    int asked_for_localhost; /* without AI_NUMERICHOST */
    int signals_open;        /* a look-up's thread would handle SIGTERM */
} shared;

static struct {
    int no_threads;
    int no_memory;
    int no_getrandom, getrandom_calls;
    int connect_error; /* what connect says although it has begun; SBX_NONE: it is done at once */
} fake;

#define FAKE_FLAGS 0x7e57

/* The list that the texts stand for; "unix" is an address of a family that nobody asked for. */
static int fake_list(const char *const *texts, struct addrinfo **out)
{
    struct addrinfo **end = out;
    for (; *texts; texts++) {
        struct addrinfo *info = (struct addrinfo *)calloc(1, sizeof(*info));
        struct sockaddr_in6 *six = (struct sockaddr_in6 *)calloc(1, sizeof(*six));
        struct sockaddr_in four;
        memset(&four, 0, sizeof(four));
        info->ai_flags = FAKE_FLAGS;
        info->ai_addr = (struct sockaddr *)six;
        if (inet_pton(AF_INET6, *texts, &six->sin6_addr) == 1) {
            info->ai_family = six->sin6_family = AF_INET6;
            info->ai_addrlen = sizeof(*six);
        } else if (inet_pton(AF_INET, *texts, &four.sin_addr) == 1) {
            info->ai_family = four.sin_family = AF_INET;
            info->ai_addrlen = sizeof(four);
            memcpy(info->ai_addr, &four, sizeof(four));
        } else {
            info->ai_family = AF_UNIX;
            info->ai_addrlen = sizeof(sa_family_t);
        }
        *end = info;
        end = &info->ai_next;
    }
    return 0;
}

static int fake_hang(void)
{
    shared.running++;
    pthread_cond_broadcast(&changed);
    while (!shared.release)
        pthread_cond_wait(&changed, &lock);
    shared.running--;
    return EAI_AGAIN;
}

/* For names that are ours; 1: for others. Called with the lock. */
static int fake_look_up(const char *host, struct addrinfo **out)
{
    static const char *const none[] = {"unix", NULL};
    sigset_t blocked;
    if (strstr(host, "localhost"))
        shared.asked_for_localhost = 1;
    if (strcmp(host, "list.test") == 0)
        return fake_list(shared.list, out);
    if (strcmp(host, "hang.test") == 0)
        return fake_hang();
    if (strcmp(host, "unix.test") == 0)
        return fake_list(none, out);
    if (strcmp(host, "broken.test") == 0) {
        errno = EMFILE;
        return EAI_SYSTEM;
    }
    if (strcmp(host, "missing.test") == 0) {
        pthread_sigmask(SIG_BLOCK, NULL, &blocked);
        shared.signals_open = !sigismember(&blocked, SIGTERM) || !sigismember(&blocked, SIGPROF);
        return EAI_NONAME;
    }
    return 1;
}

static int fake_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                            struct addrinfo **out)
{
    int error = 1;
    if (!(hints->ai_flags & AI_NUMERICHOST)) {
        pthread_mutex_lock(&lock);
        error = fake_look_up(host, out);
        pthread_mutex_unlock(&lock);
    }
    return error == 1 ? getaddrinfo(host, service, hints, out) : error;
}

static void fake_freeaddrinfo(struct addrinfo *list)
{
    if (list && list->ai_flags != FAKE_FLAGS)
        freeaddrinfo(list);
    else
        while (list) {
            struct addrinfo *next = list->ai_next;
            free(list->ai_addr);
            free(list);
            list = next;
        }
}

static int fake_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                               void *(*run)(void *), void *argument)
{
    return fake.no_threads ? EAGAIN : pthread_create(thread, attributes, run, argument);
}

static void *fake_malloc(size_t size)
{
    return fake.no_memory ? NULL : malloc(size);
}

static void *fake_realloc(void *p, size_t size)
{
    return fake.no_memory ? NULL : realloc(p, size);
}

static int fake_connect(int fd, const struct sockaddr *address, socklen_t len)
{
    int flags = fcntl(fd, F_GETFL), result;
    if (!fake.connect_error)
        return connect(fd, address, len);
    if (fake.connect_error == SBX_NONE)
        fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    result = connect(fd, address, len);
    fcntl(fd, F_SETFL, flags);
    if (fake.connect_error > 0) {
        errno = fake.connect_error;
        return -1;
    }
    return result;
}

#ifdef __linux__
/* Every other call is interrupted, and none gives all that was asked for. */
static ssize_t fake_getrandom(void *buf, size_t len, unsigned flags)
{
    if (fake.no_getrandom) {
        errno = ENOSYS;
        return -1;
    }
    if (fake.getrandom_calls++ % 2) {
        errno = EINTR;
        return -1;
    }
    return getrandom(buf, len > 100 ? 100 : len, flags);
}
#define getrandom fake_getrandom
#define HAS_GETRANDOM 1
#else
#define HAS_GETRANDOM 0
#endif

/* A transfer that the helpers for files take for sbx_read_to and sbx_write_from. */
static struct {
    sbx_status status;    /* how it ends, unless a callback ends it */
    const char *data;     /* what a download brings; an upload puts it there */
    size_t len, piece;    /* of data; in one callback */
    int64_t size;         /* that an upload announced */
    void (*during)(void); /* called after the first piece */
    int calls;
    char received[1 << 17];
} transfer;

static sbx_status transfer_end(sbx_status status, sbx_error *err)
{
    if (err) {
        memset(err, 0, sizeof(*err));
        err->status = status;
        snprintf(err->message, sizeof(err->message), "%s", status ? "the library's words" : "");
    }
    return status;
}

static int transfer_progress(const sbx_file_options *options, size_t done)
{
    void (*during)(void) = transfer.during;
    transfer.during = NULL;
    if (during)
        during();
    return options->progress ? options->progress(options->user, (int64_t)done, SBX_NONE) : 0;
}

static sbx_status fake_read_to(const sbx_sandbox *sandbox, const char *path, sbx_sink_fn sink,
                               const sbx_file_options *options, sbx_error *err)
{
    size_t done = 0;
    assert_null(sandbox);
    assert_string_equal(path, "/remote");
    transfer.calls++;
    while (done < transfer.len) {
        size_t n = transfer.len - done < transfer.piece ? transfer.len - done : transfer.piece;
        if (sink(options->user, transfer.data + done, n) != 0)
            return transfer_end(SBX_E_ABORTED, err);
        done += n;
        if (transfer_progress(options, done) != 0)
            return transfer_end(SBX_E_ABORTED, err);
    }
    return transfer_end(transfer.status, err);
}

static sbx_status fake_write_from(const sbx_sandbox *sandbox, const char *path,
                                  sbx_source_fn source, int64_t size,
                                  const sbx_file_options *options, sbx_error *err)
{
    size_t n = 1;
    assert_null(sandbox);
    assert_string_equal(path, "/remote");
    transfer.calls++;
    transfer.size = size;
    transfer.data = transfer.received;
    for (transfer.len = 0; n > 0; transfer.len += n) {
        size_t room = sizeof(transfer.received) - transfer.len;
        assert_true(room > 0);
        if (source(options->user, transfer.received + transfer.len,
                   room < transfer.piece ? room : transfer.piece, &n) != 0)
            return transfer_end(SBX_E_ABORTED, err);
        assert_true(n <= transfer.piece);
        if (n > 0 && transfer_progress(options, transfer.len + n) != 0)
            return transfer_end(SBX_E_ABORTED, err);
    }
    return transfer_end(transfer.status, err);
}

#define getaddrinfo fake_getaddrinfo
#define freeaddrinfo fake_freeaddrinfo
#define pthread_create fake_pthread_create
#define malloc fake_malloc
#define realloc fake_realloc
#define connect fake_connect
#define sbx_read_to fake_read_to
#define sbx_write_from fake_write_from
#ifdef TEST_POSIX_WITHOUT_FLAGS
#undef SOCK_CLOEXEC
#undef SOCK_NONBLOCK
#endif
#include "transports/sandbox_posix.h"
#undef getaddrinfo
#undef freeaddrinfo
#undef pthread_create
#undef malloc
#undef realloc
#undef connect
#undef getrandom
#undef sbx_read_to
#undef sbx_write_from

/* ---- tools ---- */

static const sbx_transport *posix;
static void *state;
static int descriptors_before;

static int count_descriptors(void)
{
    DIR *directory = opendir("/dev/fd");
    int n = 0;
    assert_non_null(directory);
    while (readdir(directory))
        n++;
    closedir(directory);
    return n;
}

static int64_t now(void)
{
    return posix->now_ms(state);
}

static void sleep_ms(int ms)
{
    poll(NULL, 0, ms);
}

/* Waits until no look-up's thread holds a descriptor any more. */
static int descriptors_return_to(int expected)
{
    int tries;
    for (tries = 0; tries < 500 && count_descriptors() != expected; tries++)
        sleep_ms(10);
    return count_descriptors() == expected;
}

static void release_look_ups(void)
{
    pthread_mutex_lock(&lock);
    shared.release = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* What "list.test" stands for from now on; NULL where there are fewer than four. */
static void set_list(const char *first, const char *second, const char *third, const char *fourth)
{
    pthread_mutex_lock(&lock);
    shared.list[0] = first;
    shared.list[1] = second;
    shared.list[2] = third;
    shared.list[3] = fourth;
    pthread_mutex_unlock(&lock);
}

static int begin(void **unused)
{
    (void)unused;
    memset(&transfer, 0, sizeof(transfer));
    transfer.piece = 1000;
    memset(&fake, 0, sizeof(fake));
    pthread_mutex_lock(&lock); /* no look-up is left, but the tools cannot know */
    memset(&shared, 0, sizeof(shared));
    pthread_mutex_unlock(&lock);
    descriptors_before = count_descriptors();
    posix = sbx_posix();
    return posix->open(posix->user, &state) == SBX_OK ? 0 : -1;
}

/* Every test must give back all descriptors, those of its look-ups too. */
static int end(void **unused)
{
    (void)unused;
    release_look_ups();
    posix->close(state);
    if (descriptors_return_to(descriptors_before))
        return 0;
    fprintf(stderr, "%d descriptors before, %d after\n", descriptors_before, count_descriptors());
    return -1;
}

/* An address of either family as bind and connect take it. */
typedef union address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
} address;

static socklen_t make_address(address *a, const char *text, uint16_t port)
{
    memset(a, 0, sizeof(*a));
    if (inet_pton(AF_INET6, text, &a->six.sin6_addr) == 1) {
        a->six.sin6_family = AF_INET6;
        a->six.sin6_port = htons(port);
        return sizeof(a->six);
    }
    assert_int_equal(inet_pton(AF_INET, text, &a->four.sin_addr), 1);
    a->four.sin_family = AF_INET;
    a->four.sin_port = htons(port);
    return sizeof(a->four);
}

/* A bound socket, -1 if that address cannot be had. *port 0: any, and it says which. */
static int bound(const char *text, uint16_t *port)
{
    address a;
    socklen_t len = make_address(&a, text, *port);
    int one = 1, fd = socket(a.any.sa_family, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (a.any.sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (bind(fd, &a.any, len) != 0) {
        close(fd);
        return -1;
    }
    assert_int_equal(getsockname(fd, &a.any, &len), 0);
    *port = ntohs(a.any.sa_family == AF_INET6 ? a.six.sin6_port : a.four.sin_port);
    return fd;
}

static int listening(const char *text, uint16_t *port)
{
    int fd = bound(text, port);
    if (fd >= 0)
        assert_int_equal(listen(fd, 16), 0);
    return fd;
}

/* A port of this address that refuses connections for as long as the descriptor is open. */
static int refusing(const char *text, uint16_t *port)
{
    return bound(text, port);
}

/* An address that does not answer: the queue of its listener is full, so connecting hangs. */
typedef struct black_hole {
    int fd[16];
    int count;
} black_hole;

static int black_hole_open(black_hole *hole, const char *text, uint16_t *port)
{
    address a;
    socklen_t len;
    hole->count = 1;
    hole->fd[0] = bound(text, port);
    if (hole->fd[0] < 0)
        return 0;
    assert_int_equal(listen(hole->fd[0], 0), 0);
    while (hole->count < 16) {
        struct pollfd item;
        len = make_address(&a, text, *port);
        item.fd = hole->fd[hole->count++] = socket(a.any.sa_family, SOCK_STREAM, 0);
        item.events = POLLOUT;
        assert_true(item.fd >= 0);
        assert_int_equal(fcntl(item.fd, F_SETFL, O_NONBLOCK), 0);
        if (connect(item.fd, &a.any, len) != 0 && poll(&item, 1, 100) == 0)
            return 1;
    }
    fail_msg("the queue does not get full");
    return 0;
}

static void black_hole_close(black_hole *hole)
{
    while (hole->count > 0)
        close(hole->fd[--hole->count]);
}

/* One listener and one black hole, or one of something else, at the same port. */
static int both_at_one_port(int (*other)(void *, const char *, uint16_t *), void *thing,
                            const char *other_address, const char *good_address, uint16_t *port)
{
    int tries, fd;
    for (tries = 0; tries < 20; tries++) {
        *port = 0;
        fd = listening(good_address, port);
        if (fd < 0)
            return -1;
        if (other(thing, other_address, port))
            return fd;
        close(fd);
    }
    return -1;
}

static int other_black_hole(void *hole, const char *text, uint16_t *port)
{
    return black_hole_open((black_hole *)hole, text, port);
}

static sbx_stream *dial(const char *host, uint16_t port)
{
    sbx_stream *s = NULL;
    assert_int_equal(posix->dial(state, host, port, &s), SBX_OK);
    assert_non_null(s);
    return s;
}

static sbxi_posix_stream *inside(sbx_stream *s)
{
    return (sbxi_posix_stream *)s;
}

static void drop(sbx_stream *s)
{
    s->methods->close(s);
}

/* Waits once for what the stream wants; returns how many items that were. */
static int wait_once(sbx_stream *s, unsigned want, int64_t limit_ms)
{
    sbx_item items[SBX_ITEMS];
    int64_t timeout_ms = limit_ms;
    int n = s->methods->wants(s, want, items, SBX_ITEMS, &timeout_ms);
    assert_in_range(n, 0, SBX_ITEMS - 1);
    assert_true(timeout_ms >= 0 && timeout_ms <= limit_ms);
    assert_int_equal(posix->wait(state, items, n, timeout_ms), SBX_OK);
    return n;
}

/* Connects, waiting as a client would; SBX_AGAIN after limit_ms. It must not spin meanwhile. */
static sbx_status finish(sbx_stream *s, int64_t limit_ms)
{
    int64_t until = now() + limit_ms, left;
    int rounds = 0;
    sbx_status st = s->methods->connect(s);
    while (st == SBX_AGAIN && (left = until - now()) > 0) {
        wait_once(s, 0, left);
        assert_true(++rounds < 200);
        st = s->methods->connect(s);
    }
    return st;
}

static sbx_stream *connected(const char *host, uint16_t port)
{
    sbx_stream *s = dial(host, port);
    assert_int_equal(finish(s, 5000), SBX_OK);
    return s;
}

/* A connection, and the other end of it in *peer. */
static sbx_stream *connected_pair(int *peer)
{
    uint16_t port = 0;
    int listener = listening("127.0.0.1", &port);
    sbx_stream *s = connected("127.0.0.1", port);
    *peer = accept(listener, NULL, NULL);
    assert_true(*peer >= 0);
    close(listener);
    return s;
}

/* Reads once, waiting up to five seconds for something to happen. */
static sbx_status read_some(sbx_stream *s, void *buf, size_t cap, size_t *n)
{
    int64_t until = now() + 5000;
    sbx_status st;
    while ((st = s->methods->read(s, buf, cap, n)) == SBX_AGAIN && now() < until)
        wait_once(s, SBX_READ, until - now() > 0 ? until - now() : 0);
    return st;
}

static int has_ipv6(void)
{
    uint16_t port = 0;
    int fd = bound("::1", &port);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void close_hard(int fd)
{
    struct linger hard;
    hard.l_onoff = 1;
    hard.l_linger = 0;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(fd);
}

/* A socket with a pending error. */
static int reset_socket(void)
{
    int peer, fd;
    sbx_stream *s = connected_pair(&peer);
    fd = dup(inside(s)->fd);
    drop(s);
    close_hard(peer);
    return fd;
}

/* Makes sure that the peer's closing has arrived. */
static void settle(void)
{
    sleep_ms(50);
}

/* Runs body in a process of its own, so that it may change what all of a process shares, and
   returns what it returns. That process is then killed from here: an orderly end would have its
   memory looked through for leaks, and the threads that were left behind by fork have some. */
static int in_child(char (*body)(void))
{
    int fd[2];
    char result = 1;
    pid_t child;
    fflush(NULL);
    assert_int_equal(pipe(fd), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        result = body();
        (void)!write(fd[1], &result, 1);
        for (;;)
            pause();
    }
    close(fd[1]);
    if (read(fd[0], &result, 1) != 1)
        result = 1; /* it crashed */
    close(fd[0]);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    return result;
}

/* In such a process: fails it, and says where. */
#define CHILD_CHECK(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)
#define CHILD_SKIPS 77

/* ---- connecting ---- */

/* Sends back all that comes, then ends its direction too. */
static void *echo_all(void *argument)
{
    static char buf[50000];
    int fd = *(const int *)argument;
    ssize_t got, put, done;
    while ((got = recv(fd, buf, sizeof(buf), 0)) > 0)
        for (done = 0; done < got; done += put)
            if ((put = send(fd, buf + done, (size_t)(got - done), 0)) < 0)
                return NULL;
    shutdown(fd, SHUT_WR);
    return NULL;
}

static void echo(const char *address_text)
{
    static char out[1 << 20], in[1 << 20];
    uint16_t port = 0;
    int listener = listening(address_text, &port), peer;
    size_t sent = 0, received = 0, n, i;
    pthread_t thread;
    sbx_stream *s = connected(address_text, port);
    peer = accept(listener, NULL, NULL);
    assert_true(peer >= 0);
    assert_int_equal(pthread_create(&thread, NULL, echo_all, &peer), 0);
    for (i = 0; i < sizeof(out); i++)
        out[i] = (char)(i * 7 + i / 1000);
    while (received < sizeof(in)) {
        sbx_status st = SBX_AGAIN;
        if (sent < sizeof(out)) {
            st = s->methods->write(s, out + sent, sizeof(out) - sent, &n);
            assert_true(st == SBX_OK ? n > 0 && n <= sizeof(out) - sent : n == 0);
            sent += n;
        }
        assert_true(st == SBX_OK || st == SBX_AGAIN);
        while ((st = s->methods->read(s, in + received, sizeof(in) - received, &n)) == SBX_OK &&
               n > 0)
            received += n;
        assert_true(st == SBX_AGAIN && n == 0);
        if (received < sizeof(in))
            wait_once(s, sent < sizeof(out) ? SBX_READ | SBX_WRITE : SBX_READ, 5000);
    }
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(shutdown(inside(s)->fd, SHUT_WR), 0);
    assert_int_equal(read_some(s, in, sizeof(in), &n), SBX_END);
    assert_int_equal(n, 0);
    drop(s);
    pthread_join(thread, NULL);
    close(peer);
    close(listener);
}

static void bytes_go_both_ways_over_ipv4(void **unused)
{
    (void)unused;
    echo("127.0.0.1");
}

static void bytes_go_both_ways_over_ipv6(void **unused)
{
    (void)unused;
    if (!has_ipv6())
        skip();
    echo("::1");
}

static void socket_has_the_options_that_are_promised(void **unused)
{
    int peer, on = 0;
    socklen_t len = sizeof(on);
    sbx_stream *s = connected_pair(&peer);
    int fd = inside(s)->fd;
    sbxi_posix_state *p = (sbxi_posix_state *)state;
    (void)unused;
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
    assert_true(on);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &len), 0);
    assert_true(on);
    assert_true(fcntl(p->wake[0], F_GETFD) & fcntl(p->wake[1], F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(p->wake[0], F_GETFL) & fcntl(p->wake[1], F_GETFL) & O_NONBLOCK);
    drop(s);
    close(peer);
}

static void refused_connection_is_told_in_words_and_for_good(void **unused)
{
    uint16_t port = 0;
    int fd = refusing("127.0.0.1", &port);
    sbx_stream *s = dial("127.0.0.1", port);
    char expected[128], buf[8];
    sbx_item items[SBX_ITEMS];
    int64_t timeout_ms = SBX_NONE;
    size_t n = 1;
    (void)unused;
    assert_int_equal(finish(s, 5000), SBX_E_CONNECT);
    assert_int_equal(s->native_code, ECONNREFUSED);
    snprintf(expected, sizeof(expected), "127.0.0.1 port %d: %s", port, strerror(ECONNREFUSED));
    assert_string_equal(s->detail, expected);
    assert_int_equal(s->methods->connect(s), SBX_E_CONNECT);
    assert_int_equal(s->methods->read(s, buf, sizeof(buf), &n), SBX_E_CONNECT);
    assert_int_equal(n, 0);
    assert_int_equal(s->methods->write(s, buf, sizeof(buf), &n), SBX_E_CONNECT);
    assert_int_equal(s->methods->wants(s, SBX_READ, items, SBX_ITEMS, &timeout_ms), 0);
    assert_int_equal(timeout_ms, 0);
    drop(s);
    close(fd);
}

static void every_address_that_failed_is_named(void **unused)
{
    uint16_t port = 0;
    int fd = refusing("0.0.0.0", &port);
    sbx_stream *s;
    char part[64];
    const char *at;
    int i;
    (void)unused;
    set_list("127.0.0.1", "127.0.0.2", "127.0.0.3", NULL);
    s = dial("list.test", port);
    assert_int_equal(finish(s, 5000), SBX_E_CONNECT);
    at = s->detail;
    for (i = 1; i <= 3; i++) {
        snprintf(part, sizeof(part), "127.0.0.%d port %d: %s", i, port, strerror(ECONNREFUSED));
        assert_memory_equal(at, part, strlen(part));
        at += strlen(part);
        if (i < 3)
            assert_memory_equal(at, "; ", 2);
        at += i < 3 ? 2 : 0;
    }
    assert_string_equal(at, "");
    drop(s);
    close(fd);
}

static void families_take_turns_and_ipv6_is_first(void **unused)
{
    static const char *const expected[] = {"::1", "127.0.0.1", "::2", "127.0.0.2", "127.0.0.3"};
    uint16_t port = 0;
    int fd = refusing("127.0.0.1", &port), i;
    sbx_stream *s;
    char text[80];
    (void)unused;
    set_list("127.0.0.1", "unix", "127.0.0.2", "127.0.0.3");
    shared.list[4] = "::1";
    shared.list[5] = "::2";
    s = dial("list.test", port);
    (void)finish(s, 1000);
    assert_int_equal(inside(s)->found.count, 5);
    for (i = 0; i < 5; i++) {
        const address *a = (const address *)&inside(s)->found.address[i];
        const void *bytes = a->any.sa_family == AF_INET6 ? (const void *)&a->six.sin6_addr
                                                         : (const void *)&a->four.sin_addr;
        assert_non_null(inet_ntop(a->any.sa_family, bytes, text, sizeof(text)));
        assert_string_equal(text, expected[i]);
    }
    drop(s);
    close(fd);
}

static void addresses_without_end_are_cut_short(void **unused)
{
    uint16_t port = 0;
    int fd = refusing("0.0.0.0", &port), i;
    sbx_stream *s;
    char part[64];
    (void)unused;
    for (i = 0; i < 60; i++)
        shared.list[i] = i < 20 ? "127.0.0.7" : "127.0.0.8";
    s = dial("list.test", port);
    assert_int_equal(finish(s, 5000), SBX_E_CONNECT);
    assert_int_equal(inside(s)->found.count, SBXI_POSIX_ADDRESSES);
    snprintf(part, sizeof(part), "127.0.0.8 port %d", port);
    assert_null(strstr(s->detail, part));
    drop(s);
    close(fd);
}

static void details_fit_however_long_they_are(void **unused)
{
    sbx_stream *s = dial("127.0.0.1", 1);
    sbxi_posix_found *found = &inside(s)->found;
    int i;
    (void)unused;
    for (i = 0; i < SBXI_POSIX_ADDRESSES; i++) {
        found->len[i] = make_address((address *)&found->address[i],
                                     "fe80:1234:1234:1234:1234:1234:1234:1234", 65535);
        found->address[i].six.sin6_scope_id = 4000000000u;
        inside(s)->why[i] = EADDRNOTAVAIL;
    }
    inside(s)->port = 65535;
    found->count = SBXI_POSIX_ADDRESSES;
    assert_int_equal(sbxi_posix_fail_connect(inside(s)), SBX_E_CONNECT);
    assert_true(strlen(s->detail) < sizeof(inside(s)->text));
    assert_memory_equal(s->detail,
                        "fe80:1234:1234:1234:1234:1234:1234:1234%4000000000 port 65535:", 62);
    /* An address that cannot be written is passed over. */
    found->address[0].any.sa_family = AF_UNSPEC;
    assert_int_equal(sbxi_posix_fail_connect(inside(s)), SBX_E_CONNECT);
    assert_memory_equal(s->detail, "an address port 65535", 21);
    drop(s);
}

static void dead_first_address(const char *dead, const char *good)
{
    black_hole hole;
    uint16_t port;
    int listener = both_at_one_port(other_black_hole, &hole, dead, good, &port);
    int before = count_descriptors();
    int64_t start;
    sbx_stream *s;
    assert_true(listener >= 0);
    set_list(dead, good, NULL, NULL);
    start = now();
    s = dial("list.test", port);
    assert_int_equal(finish(s, 5000), SBX_OK);
    assert_in_range(now() - start, SBXI_POSIX_STAGGER_MS, 999);
    /* The attempt that lost is over, and the look-up too. */
    assert_true(descriptors_return_to(before + 1));
    drop(s);
    black_hole_close(&hole);
    close(listener);
}

static void dead_first_address_costs_less_than_a_second(void **unused)
{
    (void)unused;
    dead_first_address("127.0.0.2", "127.0.0.1");
}

static void dead_ipv6_costs_less_than_a_second(void **unused)
{
    (void)unused;
    if (!has_ipv6())
        skip();
    dead_first_address("::1", "127.0.0.1");
}

static void address_that_answers_late_still_wins(void **unused)
{
    black_hole hole;
    uint16_t port;
    int listener = both_at_one_port(other_black_hole, &hole, "127.0.0.2", "127.0.0.1", &port);
    int64_t start;
    sbx_stream *s;
    char name[80];
    address a;
    socklen_t len = sizeof(a);
    int peer;
    (void)unused;
    assert_true(listener >= 0);
    close(listener); /* the second address refuses */
    set_list("127.0.0.2", "127.0.0.1", NULL, NULL);
    start = now();
    s = dial("list.test", port);
    assert_int_equal(finish(s, 600), SBX_AGAIN);
    assert_int_equal(inside(s)->why[1], ECONNREFUSED);
    assert_int_equal(wait_once(s, 0, 0), 1);
    /* Room in the hole, and nobody else who wants it: the system's next try is answered. */
    while (hole.count > 1)
        close(hole.fd[--hole.count]);
    assert_int_equal(fcntl(hole.fd[0], F_SETFL, O_NONBLOCK), 0);
    while ((peer = accept(hole.fd[0], NULL, NULL)) >= 0)
        close(peer);
    assert_int_equal(finish(s, 20000), SBX_OK);
    assert_true(now() - start >= 600);
    assert_int_equal(getpeername(inside(s)->fd, &a.any, &len), 0);
    assert_non_null(inet_ntop(AF_INET, &a.four.sin_addr, name, sizeof(name)));
    assert_string_equal(name, "127.0.0.2");
    drop(s);
    black_hole_close(&hole);
}

static void refused_addresses_cost_no_time(void **unused)
{
    uint16_t port = 0;
    int listener = listening("127.0.0.1", &port);
    int64_t start = now();
    sbx_stream *s;
    (void)unused;
    set_list("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1");
    s = dial("list.test", port);
    assert_int_equal(finish(s, 5000), SBX_OK);
    assert_true(now() - start < SBXI_POSIX_STAGGER_MS);
    drop(s);
    close(listener);
}

static void few_attempts_are_made_at_a_time(void **unused)
{
    black_hole hole;
    uint16_t port = 0;
    sbx_stream *s;
    sbx_item items[SBX_ITEMS];
    int64_t timeout_ms = SBX_NONE;
    int i, before;
    (void)unused;
    assert_true(black_hole_open(&hole, "0.0.0.0", &port));
    for (i = 0; i < 12; i++)
        shared.list[i] = "127.0.0.9";
    before = count_descriptors();
    s = dial("list.test", port);
    assert_int_equal(finish(s, SBX_ITEMS * SBXI_POSIX_STAGGER_MS + 200), SBX_AGAIN);
    assert_int_equal(s->methods->wants(s, 0, items, SBX_ITEMS, &timeout_ms), SBX_ITEMS - 1);
    assert_int_equal(timeout_ms, SBX_NONE);
    assert_int_equal(count_descriptors(), before + SBX_ITEMS - 1);
    /* A caller with less room gets what fits. */
    assert_int_equal(s->methods->wants(s, 0, items, 3, &timeout_ms), 3);
    drop(s);
    assert_int_equal(count_descriptors(), before);
    black_hole_close(&hole);
}

static void connection_that_is_there_at_once_is_used(void **unused)
{
    uint16_t port = 0;
    int listener = listening("127.0.0.1", &port);
    sbx_stream *s = dial("127.0.0.1", port);
    (void)unused;
    fake.connect_error = SBX_NONE;
    assert_int_equal(s->methods->connect(s), SBX_OK);
    assert_int_equal(s->methods->connect(s), SBX_OK);
    drop(s);
    close(listener);
}

static void interrupted_connection_goes_on(void **unused)
{
    uint16_t port = 0;
    int listener = listening("127.0.0.1", &port);
    (void)unused;
    fake.connect_error = EINTR;
    drop(connected("127.0.0.1", port));
    close(listener);
}

static void failed_attempt_brings_the_next_one_forward(void **unused)
{
    black_hole hole;
    uint16_t port;
    int listener = both_at_one_port(other_black_hole, &hole, "127.0.0.2", "127.0.0.1", &port);
    int reset = reset_socket();
    sbx_stream *s;
    (void)unused;
    assert_true(listener >= 0);
    set_list("127.0.0.2", "127.0.0.2", "127.0.0.1", NULL);
    s = dial("list.test", port);
    while (s->methods->connect(s) == SBX_AGAIN && inside(s)->pending < 2)
        wait_once(s, 0, 1000);
    assert_int_equal(inside(s)->pending, 2);
    /* As if an answer had come that the first one is not to go on. */
    assert_int_equal(dup2(reset, inside(s)->attempt[0]), inside(s)->attempt[0]);
    close(reset);
    assert_int_equal(finish(s, SBXI_POSIX_STAGGER_MS / 2), SBX_OK);
    assert_int_equal(inside(s)->why[0], ECONNRESET);
    drop(s);
    black_hole_close(&hole);
    close(listener);
}

static void stagger_is_counted_from_the_last_attempt(void **unused)
{
    black_hole hole;
    uint16_t port = 0;
    sbx_stream *s;
    sbx_item items[SBX_ITEMS];
    int64_t timeout_ms = SBX_NONE, start = now();
    (void)unused;
    assert_true(black_hole_open(&hole, "0.0.0.0", &port));
    set_list("127.0.0.9", "127.0.0.9", "127.0.0.9", NULL);
    s = dial("list.test", port);
    assert_int_equal(finish(s, 100), SBX_AGAIN);
    assert_int_equal(s->methods->wants(s, 0, items, SBX_ITEMS, &timeout_ms), 1);
    assert_in_range(timeout_ms, 1, SBXI_POSIX_STAGGER_MS);
    timeout_ms = 5; /* never more than what the caller asked for */
    assert_int_equal(s->methods->wants(s, 0, items, SBX_ITEMS, &timeout_ms), 1);
    assert_int_equal(timeout_ms, 5);
    assert_int_equal(finish(s, 2 * SBXI_POSIX_STAGGER_MS + 200), SBX_AGAIN);
    assert_true(now() - start >= 2 * SBXI_POSIX_STAGGER_MS);
    timeout_ms = SBX_NONE;
    assert_int_equal(s->methods->wants(s, 0, items, SBX_ITEMS, &timeout_ms), 3);
    assert_int_equal(timeout_ms, SBX_NONE);
    drop(s);
    black_hole_close(&hole);
}

static void arguments_that_mean_nothing_are_refused(void **unused)
{
    sbx_stream *s = (sbx_stream *)&posix;
    char byte;
    size_t n = 1;
    int peer;
    (void)unused;
    assert_int_equal(posix->dial(state, NULL, 80, &s), SBX_E_ARGUMENT);
    assert_null(s);
    s = (sbx_stream *)&posix;
    assert_int_equal(posix->dial(state, "", 80, &s), SBX_E_ARGUMENT);
    assert_null(s);
    s = connected_pair(&peer);
    /* Nothing to read into and nothing to write is neither an end nor an error. */
    assert_int_equal(s->methods->read(s, &byte, 0, &n), SBX_AGAIN);
    assert_int_equal(n, 0);
    assert_int_equal(s->methods->write(s, &byte, 0, &n), SBX_AGAIN);
    assert_int_equal(n, 0);
    drop(s);
    close(peer);
}

/* ---- names ---- */

static void localhost_is_recognized(void **unused)
{
    static const char *const yes[] = {"localhost", "LOCALHOST", "LocalHost.", "a.localhost",
                                      "a.b.localhost."};
    static const char *const no[] = {"",
                                     ".",
                                     "localhos",
                                     "ocalhost",
                                     "notlocalhost",
                                     "localhost..",
                                     "localhost.com",
                                     "LocAlhosT\x01",
                                     "local\x08ost"};
    size_t i;
    (void)unused;
    for (i = 0; i < sizeof(yes) / sizeof(*yes); i++)
        assert_int_equal(sbxi_posix_is_localhost(yes[i]), 1);
    for (i = 0; i < sizeof(no) / sizeof(*no); i++)
        assert_int_equal(sbxi_posix_is_localhost(no[i]), 0);
}

static void localhost_is_tried_in_both_families_and_never_asked_for(void **unused)
{
    static const char *const addresses[] = {"127.0.0.1", "::1"};
    int i;
    (void)unused;
    for (i = 0; i < (has_ipv6() ? 2 : 1); i++) {
        uint16_t port = 0;
        int listener = listening(addresses[i], &port);
        drop(connected("localhost", port));
        drop(connected("service.LocalHost.", port));
        close(listener);
    }
    assert_int_equal(shared.asked_for_localhost, 0);
}

static void name_that_does_not_exist_is_told_in_words(void **unused)
{
    sbx_stream *s = dial("missing.test", 80);
    (void)unused;
    assert_int_equal(finish(s, 5000), SBX_E_RESOLVE);
    assert_int_equal(s->native_code, EAI_NONAME);
    assert_non_null(strstr(s->detail, gai_strerror(EAI_NONAME)));
    assert_int_equal(s->methods->connect(s), SBX_E_RESOLVE);
    drop(s);
}

static void look_up_that_fails_for_the_system_is_told_in_words(void **unused)
{
    sbx_stream *s = dial("broken.test", 80);
    (void)unused;
    assert_int_equal(finish(s, 5000), SBX_E_RESOLVE);
    assert_int_equal(s->native_code, EMFILE);
    assert_non_null(strstr(s->detail, strerror(EMFILE)));
    drop(s);
}

static void name_without_an_internet_address_is_told_in_words(void **unused)
{
    sbx_stream *s = dial("unix.test", 80);
    (void)unused;
    assert_int_equal(finish(s, 5000), SBX_E_RESOLVE);
    assert_string_equal(s->detail, "looking up the name: there is no IPv4 or IPv6 address");
    drop(s);
}

static void look_up_that_says_nothing_is_an_error(void **unused)
{
    sbx_stream *s = dial("hang.test", 80);
    int pair[2];
    (void)unused;
    /* As if the thread had closed its end after half an answer. */
    assert_int_equal(sbxi_posix_pair(pair), 0);
    assert_int_equal(send(pair[1], "half", 4, 0), 4);
    assert_int_equal(dup2(pair[0], inside(s)->fd), inside(s)->fd);
    close(pair[0]);
    assert_int_equal(finish(s, 50), SBX_AGAIN);
    close(pair[1]);
    assert_int_equal(finish(s, 5000), SBX_E_RESOLVE);
    assert_string_equal(s->detail, "looking up the name ended without an answer");
    drop(s);
}

static void wait_until_running(int n)
{
    pthread_mutex_lock(&lock);
    while (shared.running != n)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

static void dead_name_server_stops_nobody(void **unused)
{
    int64_t start = now(), timeout_ms = SBX_NONE;
    sbx_item items[SBX_ITEMS];
    sbx_stream *s = dial("hang.test", 80), *other;
    int peer;
    char byte;
    size_t n;
    (void)unused;
    assert_int_equal(s->methods->connect(s), SBX_AGAIN);
    assert_int_equal(s->methods->read(s, &byte, 1, &n), SBX_AGAIN);
    assert_int_equal(s->methods->write(s, &byte, 1, &n), SBX_AGAIN);
    assert_true(now() - start < 200);
    wait_until_running(1);
    assert_int_equal(s->methods->wants(s, 0, items, SBX_ITEMS, &timeout_ms), 1);
    assert_int_equal(items[0].want, SBX_READ);
    assert_int_equal(timeout_ms, SBX_NONE);
    assert_int_equal(s->methods->wants(s, 0, items, 0, &timeout_ms), 0);
    other = connected_pair(&peer); /* life goes on */
    drop(other);
    close(peer);
    assert_int_equal(finish(s, 100), SBX_AGAIN);
    release_look_ups();
    assert_int_equal(finish(s, 5000), SBX_E_RESOLVE);
    assert_int_equal(s->native_code, EAI_AGAIN);
    drop(s);
}

static void stream_can_go_while_its_name_is_looked_up(void **unused)
{
    sbx_stream *s[20];
    int i;
    (void)unused;
    for (i = 0; i < 20; i++)
        s[i] = dial("hang.test", 80);
    for (i = 0; i < 20; i += 2)
        drop(s[i]);
    wait_until_running(20);
    for (i = 1; i < 20; i += 2)
        drop(s[i]);
    /* end() releases the threads, which find nobody, and waits until they are gone. */
}

static void stream_can_go_while_the_answer_comes(void **unused)
{
    int i;
    (void)unused;
    set_list("127.0.0.1", NULL, NULL, NULL);
    for (i = 0; i < 200; i++) {
        sbx_stream *s = dial(i % 2 ? "list.test" : "missing.test", 1);
        if (i % 3)
            (void)s->methods->connect(s);
        drop(s);
    }
}

static void no_signal_is_handled_by_a_look_up(void **unused)
{
    sigset_t before, after;
    sbx_stream *s;
    int number;
    (void)unused;
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    shared.signals_open = 1;
    s = dial("missing.test", 80);
    assert_int_equal(finish(s, 5000), SBX_E_RESOLVE);
    drop(s);
    pthread_mutex_lock(&lock);
    assert_int_equal(shared.signals_open, 0);
    pthread_mutex_unlock(&lock);
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    for (number = 1; number < 32; number++)
        assert_int_equal(sigismember(&before, number), sigismember(&after, number));
}

static void thread_that_cannot_be_made_is_an_error(void **unused)
{
    sbx_stream *s;
    (void)unused;
    fake.no_threads = 1;
    s = dial("missing.test", 80);
    assert_int_equal(finish(s, 5000), SBX_E_RESOLVE);
    assert_int_equal(s->native_code, EAGAIN);
    assert_non_null(strstr(s->detail, "could not be started"));
    drop(s);
}

#ifdef __linux__
/* Moves to a network of our own, where nobody answers. 0, CHILD_SKIPS, or 1: it failed. */
static char enter_empty_network(void)
{
    struct ifreq loopback;
    int fd;
    if (syscall(SYS_unshare, CLONE_NEWNET | CLONE_NEWNS) != 0)
        return CHILD_SKIPS;
    memset(&loopback, 0, sizeof(loopback));
    strcpy(loopback.ifr_name, "lo");
    loopback.ifr_flags = IFF_UP;
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHILD_CHECK(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &loopback) == 0);
    close(fd);
    return 0;
}

static char real_look_up_fails(void)
{
    sbx_stream *s;
    char entered = enter_empty_network();
    if (entered != 0)
        return entered;
    CHILD_CHECK(posix->dial(state, "no-such-name.invalid", 80, &s) == SBX_OK);
    CHILD_CHECK(finish(s, 60000) == SBX_E_RESOLVE);
    CHILD_CHECK(s->native_code != 0 && strlen(s->detail) > strlen("looking up the name: "));
    drop(s);
    return 0;
}

static void real_look_up_of_no_name_fails(void **unused)
{
    int status = in_child(real_look_up_fails);
    (void)unused;
    if (status == CHILD_SKIPS)
        skip();
    assert_int_equal(status, 0);
}

/* A name server that takes every question and answers none. */
static char silent_name_server(void)
{
    static const char text[] = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
    char path[] = "/tmp/test_posix_XXXXXX", question[512];
    address a;
    socklen_t len = make_address(&a, "127.0.0.1", 53);
    int64_t start;
    sbx_stream *s, *gone;
    int fd, server;
    char entered = enter_empty_network();
    if (entered != 0)
        return entered;
    fd = mkstemp(path);
    CHILD_CHECK(fd >= 0 && write(fd, text, sizeof(text) - 1) == (ssize_t)sizeof(text) - 1);
    if (mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount(path, "/etc/resolv.conf", "none", MS_BIND, NULL) != 0) {
        unlink(path);
        return CHILD_SKIPS;
    }
    unlink(path);
    server = socket(AF_INET, SOCK_DGRAM, 0);
    CHILD_CHECK(server >= 0 && bind(server, &a.any, len) == 0);
    start = now();
    CHILD_CHECK(posix->dial(state, "anything.invalid", 80, &s) == SBX_OK);
    CHILD_CHECK(posix->dial(state, "anything.invalid", 80, &gone) == SBX_OK);
    CHILD_CHECK(s->methods->connect(s) == SBX_AGAIN);
    CHILD_CHECK(now() - start < 500);
    CHILD_CHECK(recv(server, question, sizeof(question), 0) > 0);
    drop(gone);
    CHILD_CHECK(finish(s, 60000) == SBX_E_RESOLVE);
    CHILD_CHECK(now() - start >= 900);
    drop(s);
    return 0;
}

static void silent_name_server_stops_nobody(void **unused)
{
    int status = in_child(silent_name_server);
    (void)unused;
    if (status == CHILD_SKIPS)
        skip();
    assert_int_equal(status, 0);
}
#endif

/* ---- the end of connections ---- */

static void writing_to_a_closed_peer_raises_no_signal(void **unused)
{
    static char bytes[4096];
    struct sigaction before, standard;
    int peer, i;
    size_t n;
    sbx_status st = SBX_OK;
    sbx_stream *s = connected_pair(&peer);
    (void)unused;
    memset(&standard, 0, sizeof(standard));
    standard.sa_handler = SIG_DFL;
    sigaction(SIGPIPE, &standard, &before);
    close(peer);
    for (i = 0; i < 100 && st >= 0; i++) {
        st = s->methods->write(s, bytes, sizeof(bytes), &n);
        sleep_ms(5);
    }
    assert_int_equal(st, SBX_E_CONNECTION);
    assert_true(s->native_code == EPIPE || s->native_code == ECONNRESET);
    assert_string_equal(s->detail, strerror(s->native_code));
    assert_int_equal(s->methods->write(s, bytes, sizeof(bytes), &n), SBX_E_CONNECTION);
    sigaction(SIGPIPE, &before, NULL);
    drop(s);
}

static void reset_is_an_error_and_stays_one(void **unused)
{
    int peer;
    char buf[16];
    size_t n = 1;
    sbx_stream *s = connected_pair(&peer);
    (void)unused;
    close_hard(peer);
    assert_int_equal(read_some(s, buf, sizeof(buf), &n), SBX_E_CONNECTION);
    assert_int_equal(n, 0);
    assert_int_equal(s->native_code, ECONNRESET);
    assert_string_equal(s->detail, strerror(ECONNRESET));
    assert_int_equal(s->methods->read(s, buf, sizeof(buf), &n), SBX_E_CONNECTION);
    assert_int_equal(s->methods->write(s, buf, sizeof(buf), &n), SBX_E_CONNECTION);
    drop(s);
}

static void end_comes_after_the_last_byte_and_again(void **unused)
{
    int peer;
    char buf[16];
    size_t n;
    sbx_stream *s = connected_pair(&peer);
    (void)unused;
    assert_int_equal(send(peer, "last", 4, 0), 4);
    close(peer);
    settle();
    assert_int_equal(s->methods->read(s, buf, 3, &n), SBX_OK);
    assert_int_equal(n, 3);
    assert_int_equal(s->methods->read(s, buf, sizeof(buf), &n), SBX_OK);
    assert_int_equal(n, 1);
    assert_int_equal(s->methods->read(s, buf, sizeof(buf), &n), SBX_END);
    assert_int_equal(s->methods->read(s, buf, sizeof(buf), &n), SBX_END);
    assert_int_equal(n, 0);
    assert_int_equal(s->native_code, 0);
    assert_null(s->detail);
    drop(s);
}

static void full_stream_waits_until_the_peer_reads(void **unused)
{
    static char bytes[1 << 16];
    int peer;
    size_t n, total = 0, drained = 0;
    sbx_status st;
    int64_t start;
    sbx_stream *s = connected_pair(&peer);
    (void)unused;
    while ((st = s->methods->write(s, bytes, sizeof(bytes), &n)) == SBX_OK)
        total += n;
    assert_int_equal(st, SBX_AGAIN);
    assert_int_equal(n, 0);
    start = now();
    assert_int_equal(wait_once(s, SBX_WRITE, 100), 1);
    assert_true(now() - start >= 90);
    while (drained < total) {
        ssize_t got = recv(peer, bytes, sizeof(bytes), 0);
        assert_true(got > 0);
        drained += (size_t)got;
    }
    start = now();
    wait_once(s, SBX_WRITE, 5000);
    assert_true(now() - start < 4000);
    assert_int_equal(s->methods->write(s, bytes, sizeof(bytes), &n), SBX_OK);
    assert_int_equal(wait_once(s, SBX_READ | SBX_WRITE, 5000), 1);
    assert_int_equal(wait_once(s, 0, 1), 0); /* nothing is wanted */
    drop(s);
    close(peer);
}

static void stream_can_go_in_every_state(void **unused)
{
    black_hole hole;
    uint16_t port = 0, dead = 0;
    int listener = listening("127.0.0.1", &port), peer;
    char byte;
    size_t n;
    sbx_stream *s;
    (void)unused;
    drop(dial("127.0.0.1", port)); /* not begun */
    drop(dial("list.test", port));
    set_list("127.0.0.1", NULL, NULL, NULL);
    s = dial("list.test", port); /* the answer is there and was not read */
    assert_int_equal(wait_once(s, 0, 5000), 1);
    drop(s);
    assert_true(black_hole_open(&hole, "0.0.0.0", &dead));
    set_list("127.0.0.1", "127.0.0.2", NULL, NULL);
    s = dial("list.test", dead); /* two attempts are pending */
    assert_int_equal(finish(s, SBXI_POSIX_STAGGER_MS + 100), SBX_AGAIN);
    assert_int_equal(wait_once(s, 0, 0), 2);
    drop(s);
    black_hole_close(&hole);
    drop(connected("127.0.0.1", port)); /* open */
    s = connected_pair(&peer);
    close(peer);
    assert_int_equal(read_some(s, &byte, 1, &n), SBX_END); /* ended */
    drop(s);
    close(listener);
}

/* ---- waiting ---- */

static void wait_ends_when_the_time_is_up(void **unused)
{
    int64_t start = now();
    (void)unused;
    assert_int_equal(posix->wait(state, NULL, 0, 0), SBX_OK);
    assert_int_equal(posix->wait(state, NULL, 0, -5), SBX_OK); /* the past */
    assert_true(now() - start < 50);
    assert_int_equal(posix->wait(state, NULL, 0, 60), SBX_OK);
    assert_in_range(now() - start, 55, 2000);
}

static void *wake_later(void *argument)
{
    sleep_ms(100);
    posix->wakeup(argument);
    return NULL;
}

static void wait_for(int64_t timeout_ms)
{
    pthread_t thread;
    int64_t start = now();
    assert_int_equal(pthread_create(&thread, NULL, wake_later, state), 0);
    assert_int_equal(posix->wait(state, NULL, 0, timeout_ms), SBX_OK);
    assert_in_range(now() - start, 90, 5000);
    pthread_join(thread, NULL);
}

static void another_thread_ends_a_wait_of_any_length(void **unused)
{
    (void)unused;
    wait_for(SBX_NONE);
    wait_for(10000);
    wait_for((int64_t)1 << 32); /* cut to 32 bits this is nothing */
    wait_for(((int64_t)1 << 32) - 1);
    wait_for(INT64_MAX);
}

static void wakeup_before_the_wait_counts_once(void **unused)
{
    int64_t start = now();
    int i;
    (void)unused;
    for (i = 0; i < 5; i++)
        posix->wakeup(state);
    assert_int_equal(posix->wait(state, NULL, 0, SBX_NONE), SBX_OK);
    assert_true(now() - start < 1000);
    start = now();
    assert_int_equal(posix->wait(state, NULL, 0, 60), SBX_OK);
    assert_true(now() - start >= 55);
}

static void wakeups_without_end_fill_nothing_up(void **unused)
{
    int64_t start;
    int i;
    (void)unused;
    for (i = 0; i < 20000; i++) {
        errno = 1234;
        posix->wakeup(state);
        assert_int_equal(errno, 1234);
    }
    assert_int_equal(posix->wait(state, NULL, 0, SBX_NONE), SBX_OK);
    start = now();
    assert_int_equal(posix->wait(state, NULL, 0, 60), SBX_OK);
    assert_true(now() - start >= 55);
}

static volatile sig_atomic_t signals;

static void on_signal_wake(int number)
{
    (void)number;
    signals = signals + 1;
    posix->wakeup(state);
}

static void on_signal_count(int number)
{
    (void)number;
    signals = signals + 1;
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = handler;
    assert_int_equal(sigaction(number, &action, NULL), 0);
}

static void signal_handler_can_wake(void **unused)
{
    int64_t start = now();
    (void)unused;
    signals = 0;
    handle(SIGUSR1, on_signal_wake);
    errno = 4321;
    raise(SIGUSR1);
    assert_int_equal(errno, 4321);
    assert_int_equal(signals, 1);
    assert_int_equal(posix->wait(state, NULL, 0, SBX_NONE), SBX_OK);
    assert_true(now() - start < 1000);
    handle(SIGUSR1, SIG_DFL);
}

static void interrupted_wait_returns_early(void **unused)
{
    struct itimerval timer;
    int64_t start = now();
    (void)unused;
    signals = 0;
    handle(SIGALRM, on_signal_count);
    memset(&timer, 0, sizeof(timer));
    timer.it_value.tv_usec = 60000;
    setitimer(ITIMER_REAL, &timer, NULL);
    assert_int_equal(posix->wait(state, NULL, 0, 20000), SBX_OK);
    assert_int_equal(signals, 1);
    assert_true(now() - start < 10000);
    handle(SIGALRM, SIG_DFL);
}

static void wait_sees_each_of_many_items(void **unused)
{
    enum { PAIRS = 100 };
    int pair[PAIRS][2], i;
    sbx_item items[PAIRS];
    int64_t start;
    (void)unused;
    for (i = 0; i < PAIRS; i++) {
        assert_int_equal(sbxi_posix_pair(pair[i]), 0);
        items[i].handle = pair[i][0];
        items[i].want = SBX_READ;
    }
    for (i = 0; i < PAIRS; i += 33) {
        char byte;
        start = now();
        assert_int_equal(posix->wait(state, items, PAIRS, 40), SBX_OK);
        assert_true(now() - start >= 35);
        assert_int_equal(send(pair[i][1], "x", 1, 0), 1);
        start = now();
        assert_int_equal(posix->wait(state, items, PAIRS, 20000), SBX_OK);
        assert_true(now() - start < 5000);
        assert_int_equal(recv(pair[i][0], &byte, 1, 0), 1);
    }
    /* With writing it is ready at once. */
    items[7].want = SBX_READ | SBX_WRITE;
    assert_int_equal(posix->wait(state, items, PAIRS, SBX_NONE), SBX_OK);
    items[7].want = SBX_READ;
    for (i = 0; i < PAIRS; i++) {
        close(pair[i][0]);
        close(pair[i][1]);
    }
    /* A descriptor that is not open ends the wait instead of hanging it. */
    assert_int_equal(posix->wait(state, items, PAIRS, SBX_NONE), SBX_OK);
}

static void two_clients_do_not_wake_each_other(void **unused)
{
    void *other;
    int64_t start;
    (void)unused;
    assert_int_equal(posix->open(posix->user, &other), SBX_OK);
    posix->wakeup(other);
    start = now();
    assert_int_equal(posix->wait(state, NULL, 0, 60), SBX_OK);
    assert_true(now() - start >= 55);
    assert_int_equal(posix->wait(other, NULL, 0, SBX_NONE), SBX_OK);
    posix->close(other);
}

/* ---- clocks and randomness ---- */

static void clocks_tell_the_time(void **unused)
{
    int64_t monotonic = now(), wall = posix->wall_ms(state);
    (void)unused;
    assert_in_range(wall / 1000, time(NULL) - 5, time(NULL) + 5);
    sleep_ms(30);
    assert_in_range(now() - monotonic, 29, 5000);
    assert_true(posix->wall_ms(state) > wall);
}

static void random_bytes_differ(void **unused)
{
    unsigned char a[1000], b[1000], guarded[3] = {1, 2, 3};
    int seen[256], distinct = 0, i;
    (void)unused;
    memset(a, 0, sizeof(a));
    memset(b, 0, sizeof(b));
    memset(seen, 0, sizeof(seen));
    assert_int_equal(posix->entropy(state, a, sizeof(a)), SBX_OK);
    assert_int_equal(posix->entropy(state, b, sizeof(b)), SBX_OK);
    /* No interruption makes it look elsewhere. */
    assert_in_range(fake.getrandom_calls, fake.no_getrandom || !HAS_GETRANDOM ? 0 : 38, 100);
    /* No piece of either repeats, and none was left out. */
    for (i = 0; i + 20 <= 1000; i += 20) {
        assert_memory_not_equal(a + i, b + i, 20);
        if (i > 0)
            assert_memory_not_equal(a + i, a + i - 20, 20);
    }
    for (i = 0; i < 1000; i++)
        distinct += !seen[a[i]]++;
    assert_true(distinct > 200);
    assert_int_equal(posix->entropy(state, guarded + 1, 0), SBX_OK);
    assert_int_equal(guarded[1], 2);
}

static void random_bytes_come_without_getrandom_too(void **unused)
{
    fake.no_getrandom = 1;
    random_bytes_differ(unused);
}

/* ---- when nothing is left ---- */

static void descriptors_run_out_without_a_hang(void **unused)
{
    struct rlimit before, none;
    uint16_t port = 0;
    int listener = listening("127.0.0.1", &port), spare, pair[2];
    sbx_stream *name, *number;
    void *other = NULL;
    sbx_status opened, named, numbered;
    (void)unused;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    /* The lowest number that is free, so that the next descriptor is one too many. */
    spare = dup(0);
    none = before;
    none.rlim_cur = (rlim_t)spare;
    close(spare);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0) { /* valgrind has its own idea of limits */
        setrlimit(RLIMIT_NOFILE, &before);
        close(pair[0]);
        close(pair[1]);
        close(listener);
        skip();
    }
    opened = posix->open(posix->user, &other);
    name = dial("missing.test", port);
    named = finish(name, 5000);
    number = dial("127.0.0.1", port);
    numbered = finish(number, 5000);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(opened, SBX_E_CONNECTION);
    assert_int_equal(named, SBX_E_RESOLVE);
    assert_int_equal(name->native_code, EMFILE);
    assert_non_null(strstr(name->detail, strerror(EMFILE)));
    assert_int_equal(numbered, SBX_E_CONNECT);
    assert_int_equal(number->native_code, EMFILE);
    assert_non_null(strstr(number->detail, strerror(EMFILE)));
    drop(name);
    drop(number);
    close(listener);
}

static void memory_runs_out_without_harm(void **unused)
{
    void *other = NULL;
    sbx_item item;
    sbx_stream *s = (sbx_stream *)&posix;
    (void)unused;
    item.handle = 0;
    item.want = SBX_READ;
    fake.no_memory = 1;
    assert_int_equal(posix->open(posix->user, &other), SBX_E_MEMORY);
    assert_int_equal(posix->dial(state, "127.0.0.1", 80, &s), SBX_E_MEMORY);
    assert_null(s);
    assert_int_equal(posix->wait(state, &item, 1, 0), SBX_E_MEMORY);
    fake.no_memory = 0;
    assert_int_equal(posix->wait(state, &item, 1, 0), SBX_OK);
}

static void errors_without_a_name_have_a_number(void **unused)
{
    char words[64];
    (void)unused;
    assert_non_null(strstr(sbxi_posix_words(123456, words, sizeof(words)), "123456"));
}

/* ---- local files ---- */

static char directory[] = "/tmp/test_posix_XXXXXX";
static char path_buffers[4][sizeof(directory) + 256]; /* any name fits */

static int begin_files(void **unused)
{
    if (begin(unused) != 0)
        return -1;
    strcpy(directory + sizeof(directory) - 7, "XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

/* The path of a file in the directory of the test; four at a time. */
static char *in_directory(const char *name)
{
    static int next;
    char *path = path_buffers[next++ % 4];
    snprintf(path, sizeof(path_buffers[0]), "%s/%s", directory, name);
    return path;
}

static int count_files(void)
{
    DIR *d = opendir(directory);
    struct dirent *entry;
    int n = 0;
    assert_non_null(d);
    while ((entry = readdir(d)) != NULL)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(d);
    return n;
}

static int end_files(void **unused)
{
    DIR *d = opendir(directory);
    struct dirent *entry;
    while (d && (entry = readdir(d)) != NULL) {
        char *path = in_directory(entry->d_name);
        if (entry->d_name[0] != '.' || strlen(entry->d_name) > 2)
            if (unlink(path) != 0)
                rmdir(path);
    }
    if (d)
        closedir(d);
    if (rmdir(directory) != 0)
        return -1;
    return end(unused);
}

static void make_file(const char *path, const char *text, size_t len, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), (ssize_t)len);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void file_is(const char *path, const char *text, size_t len)
{
    static char buf[1 << 17];
    int fd = open(path, O_RDONLY);
    ssize_t n;
    assert_true(fd >= 0);
    n = read(fd, buf, sizeof(buf));
    close(fd);
    assert_int_equal(n, (ssize_t)len);
    assert_memory_equal(buf, text, len);
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    return st.st_mode & 07777;
}

static int exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static sbx_error failure;

static sbx_status download(const char *local)
{
    memset(&failure, 0x55, sizeof(failure));
    return sbx_posix_download(NULL, "/remote", local, NULL, &failure);
}

static sbx_status upload(const char *local)
{
    memset(&failure, 0x55, sizeof(failure));
    return sbx_posix_upload(NULL, "/remote", local, NULL, &failure);
}

/* The call failed for a local reason, which is told. */
static void failed_locally(sbx_status status, int native, const char *doing, const char *local)
{
    char expected[512];
    assert_int_equal(status, SBX_E_FILE);
    assert_int_equal(failure.status, SBX_E_FILE);
    assert_int_equal(failure.native_code, native);
    snprintf(expected, sizeof(expected), "cannot %s the local file %s: %s", doing, local,
             strerror(native));
    assert_string_equal(failure.message, expected);
    assert_string_equal(failure.operation, "");
    assert_string_equal(failure.resource_type, "");
    assert_string_equal(failure.quota_type, "");
}

static const char *big_text(void)
{
    static char text[100000];
    size_t i;
    for (i = 0; i < sizeof(text); i++)
        text[i] = (char)(i % 251);
    return text;
}

static void bring(const char *text, size_t len, sbx_status status)
{
    transfer.data = text;
    transfer.len = len;
    transfer.status = status;
}

static void download_makes_a_file_like_any_other(void **unused)
{
    char *path = in_directory("new");
    mode_t mask = umask(027);
    (void)unused;
    bring(big_text(), 100000, SBX_OK);
    assert_int_equal(download(path), SBX_OK);
    umask(mask);
    assert_int_equal(failure.status, SBX_OK);
    file_is(path, big_text(), 100000);
    assert_int_equal(mode_of(path), 0640);
    assert_int_equal(count_files(), 1);
}

static void download_of_nothing_makes_an_empty_file(void **unused)
{
    char *path = in_directory("empty");
    (void)unused;
    bring("", 0, SBX_OK);
    assert_int_equal(download(path), SBX_OK);
    file_is(path, "", 0);
}

static void download_to_a_name_without_a_directory(void **unused)
{
    char before[4096];
    (void)unused;
    assert_non_null(getcwd(before, sizeof(before)));
    assert_int_equal(chdir(directory), 0);
    bring("here", 4, SBX_OK);
    assert_int_equal(download("plain"), SBX_OK);
    assert_int_equal(chdir(before), 0);
    file_is(in_directory("plain"), "here", 4);
    assert_int_equal(count_files(), 1);
}

static void download_keeps_the_permissions_of_what_it_replaces(void **unused)
{
    static const mode_t modes[] = {0600, 0644, 0755, 0606};
    char *path = in_directory("old");
    size_t i;
    (void)unused;
    for (i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        make_file(path, "old and long", 12, modes[i]);
        bring("new", 3, SBX_OK);
        assert_int_equal(download(path), SBX_OK);
        file_is(path, "new", 3);
        assert_int_equal(mode_of(path), modes[i]);
    }
    /* But never a right to act as somebody else. */
    make_file(path, "old", 3, 04755);
    assert_int_equal(download(path), SBX_OK);
    assert_int_equal(mode_of(path), 0755);
    assert_int_equal(count_files(), 1);
}

static void target_is_untouched_while_the_bytes_come(void)
{
    file_is(in_directory("old"), "old", 3);
    assert_int_equal(count_files(), 2);
}

static void failed_download_leaves_the_target_as_it_was(void **unused)
{
    static const sbx_status ends[] = {SBX_E_CONNECTION, SBX_E_NOT_FOUND, SBX_E_CANCELLED};
    char *old = in_directory("old"), *fresh = in_directory("new");
    size_t i;
    (void)unused;
    make_file(old, "old", 3, 0600);
    for (i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
        transfer.during = target_is_untouched_while_the_bytes_come;
        bring("half of a fi", 12, ends[i]);
        assert_int_equal(download(old), ends[i]);
        assert_string_equal(failure.message, "the library's words");
        file_is(old, "old", 3);
        assert_int_equal(download(fresh), ends[i]);
        assert_false(exists(fresh));
        assert_int_equal(count_files(), 1);
    }
}

static void full_disk_is_a_local_error(void **unused)
{
    struct rlimit before, small;
    char *path = in_directory("big");
    sbx_status st;
    (void)unused;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 5000;
    handle(SIGXFSZ, SIG_IGN);
    bring(big_text(), 100000, SBX_OK);
    setrlimit(RLIMIT_FSIZE, &small);
    st = download(path);
    setrlimit(RLIMIT_FSIZE, &before);
    handle(SIGXFSZ, SIG_DFL);
    failed_locally(st, EFBIG, "write", path);
    assert_int_equal(count_files(), 0);
    if (access("/dev/full", W_OK) == 0)
        failed_locally(download("/dev/full"), ENOSPC, "write", "/dev/full");
    /* The outcome is the same for one who does not ask why. */
    assert_int_equal(sbx_posix_download(NULL, "/remote", "/no/such", NULL, NULL), SBX_E_FILE);
    assert_int_equal(sbx_posix_upload(NULL, "/remote", "/no/such", NULL, NULL), SBX_E_FILE);
}

static void make_directory_of_target(void)
{
    assert_int_equal(mkdir(in_directory("new"), 0700), 0);
}

static void target_that_cannot_be_replaced_is_a_local_error(void **unused)
{
    char *path = in_directory("new");
    (void)unused;
    bring("bytes", 5, SBX_OK);
    transfer.during = make_directory_of_target;
    failed_locally(download(path), EISDIR, "write", path);
    assert_int_equal(count_files(), 1);
}

static void bad_targets_are_refused_without_traffic(void **unused)
{
    char *path;
    (void)unused;
    bring("bytes", 5, SBX_OK);
    failed_locally(download(directory), EISDIR, "write", directory);
    path = in_directory("new/");
    failed_locally(download(path), EISDIR, "write", path);
    path = in_directory("missing/new");
    failed_locally(download(path), ENOENT, "write", path);
    path = in_directory("loop");
    assert_int_equal(symlink("loop", path), 0);
    failed_locally(download(path), ELOOP, "write", path);
    make_file(in_directory("file"), "", 0, 0600);
    path = in_directory("file/new");
    failed_locally(download(path), ENOTDIR, "write", path);
    assert_int_equal(download(""), SBX_E_ARGUMENT);
    assert_string_equal(failure.field, "local");
    assert_int_equal(download(NULL), SBX_E_ARGUMENT);
    assert_int_equal(upload(""), SBX_E_ARGUMENT);
    assert_int_equal(sbx_posix_upload(NULL, "/remote", NULL, NULL, NULL), SBX_E_ARGUMENT);
    assert_int_equal(transfer.calls, 0);
    assert_int_equal(count_files(), 2);
}

static void long_names_are_refused_and_told_by_their_end(void **unused)
{
    static char path[9000];
    size_t at;
    (void)unused;
    bring("bytes", 5, SBX_OK);
    /* Beyond what any system takes, in characters of two bytes so that they may be cut. */
    path[0] = '/';
    for (at = 1; at < 8000; at += 2)
        memcpy(path + at, "\xc3\xa4", 2);
    strcpy(path + at, "/\nend");
    assert_int_equal(download(path), SBX_E_FILE);
    assert_int_equal(failure.native_code, ENAMETOOLONG);
    assert_memory_equal(failure.message, "cannot write the local file ..\xc3\xa4", 32);
    assert_non_null(strstr(failure.message, "\xc3\xa4/ end: "));
    assert_non_null(strstr(failure.message, strerror(ENAMETOOLONG)));
    assert_int_equal(upload(path), SBX_E_FILE);
    assert_int_equal(failure.native_code, ENAMETOOLONG);
    /* A name that is short enough, but not with that of the new file beside it. */
    for (at = 0; at < SBXI_POSIX_PATH - 6; at += 2)
        memcpy(path + at, "./", 2);
    strcpy(path + at, "new");
    assert_int_equal(download(path), SBX_E_FILE);
    assert_int_equal(failure.native_code, ENAMETOOLONG);
    assert_int_equal(transfer.calls, 0);
}

static void links_are_followed(void **unused)
{
    char *file = in_directory("file"), *link = in_directory("link"), *far = in_directory("far");
    (void)unused;
    make_file(file, "old", 3, 0640);
    assert_int_equal(symlink("file", link), 0); /* relative to where the link lies */
    assert_int_equal(symlink(link, far), 0);
    bring("new", 3, SBX_OK);
    assert_int_equal(download(far), SBX_OK);
    file_is(file, "new", 3);
    assert_int_equal(mode_of(file), 0640);
    assert_int_equal(unlink(file), 0); /* now they point to nothing yet */
    bring("newer", 5, SBX_OK);
    assert_int_equal(download(far), SBX_OK);
    file_is(file, "newer", 5);
    assert_int_equal(count_files(), 3);
}

static void links_with_long_texts_are_refused(void **unused)
{
    char text[4090]; /* with the directory before it too long for a path */
    char *path = in_directory("link");
    size_t at;
    (void)unused;
    for (at = 0; at < sizeof(text); at++)
        text[at] = at % 2 ? '/' : 'a';
    text[sizeof(text) - 1] = 0;
    if (symlink(text, path) != 0)
        skip(); /* this file system refuses them itself */
    bring("bytes", 5, SBX_OK);
    assert_int_equal(download(path), SBX_E_FILE);
    assert_int_equal(failure.native_code, ENAMETOOLONG);
    assert_int_equal(count_files(), 1);
}

/* A file without the right to write, for a user who is bound by that. */
static char download_to_protected_file(void)
{
    char *path = in_directory("file");
    if (geteuid() == 0)
        CHILD_CHECK(chown(directory, 65534, 65534) == 0 && chown(path, 65534, 65534) == 0 &&
                    setgid(65534) == 0 && setuid(65534) == 0);
    CHILD_CHECK(download(path) == SBX_E_FILE);
    CHILD_CHECK(failure.native_code == EACCES);
    CHILD_CHECK(count_files() == 1);
    CHILD_CHECK(chmod(path, 0200) == 0);
    CHILD_CHECK(upload(path) == SBX_E_FILE);
    CHILD_CHECK(failure.native_code == EACCES);
    CHILD_CHECK(chmod(directory, 0500) == 0);
    CHILD_CHECK(download(path) == SBX_E_FILE);
    CHILD_CHECK(failure.native_code == EACCES);
    CHILD_CHECK(chmod(directory, 0700) == 0);
    return 0;
}

static void write_protection_is_respected(void **unused)
{
    (void)unused;
    make_file(in_directory("file"), "old", 3, 0400);
    bring("new", 3, SBX_OK);
    assert_int_equal(in_child(download_to_protected_file), 0);
    assert_int_equal(chmod(in_directory("file"), 0600), 0);
    file_is(in_directory("file"), "old", 3);
    assert_int_equal(transfer.calls, 0);
}

typedef struct reader {
    const char *path;
    int fd;
    char data[100000];
    size_t len;
} reader;

/* Reads a FIFO or pipe to its end, slowly at first. */
static void *read_all(void *argument)
{
    reader *r = (reader *)argument;
    ssize_t n;
    if (r->path)
        r->fd = open(r->path, O_RDONLY);
    sleep_ms(50);
    while ((n = read(r->fd, r->data + r->len, sizeof(r->data) - r->len)) > 0)
        r->len += (size_t)n;
    close(r->fd);
    return NULL;
}

static void fifo_is_written_directly(void **unused)
{
    static reader r;
    char *path = in_directory("fifo");
    pthread_t thread;
    (void)unused;
    memset(&r, 0, sizeof(r));
    r.path = path;
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(pthread_create(&thread, NULL, read_all, &r), 0);
    bring(big_text(), 100000, SBX_OK);
    assert_int_equal(download(path), SBX_OK);
    pthread_join(thread, NULL);
    assert_int_equal(r.len, 100000);
    assert_memory_equal(r.data, big_text(), r.len);
    assert_int_equal(count_files(), 1);
}

/* The name in /dev/fd of a descriptor. */
static const char *dev_fd(int fd)
{
    static char name[32];
    snprintf(name, sizeof(name), "/dev/fd/%d", fd);
    return name;
}

static void pipe_that_does_not_block_is_waited_for(void **unused)
{
    static reader r;
    int fd[2];
    pthread_t thread;
    (void)unused;
    memset(&r, 0, sizeof(r));
    assert_int_equal(pipe(fd), 0);
    r.fd = fd[0];
    assert_int_equal(fcntl(fd[1], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(pthread_create(&thread, NULL, read_all, &r), 0);
    bring(big_text(), 100000, SBX_OK); /* more than a pipe holds */
    assert_int_equal(download(dev_fd(fd[1])), SBX_OK);
    close(fd[1]);
    pthread_join(thread, NULL);
    assert_int_equal(r.len, 100000);
    assert_memory_equal(r.data, big_text(), r.len);
}

static void named_descriptors_are_written_where_they_stand(void **unused)
{
    char *path = in_directory("log");
    int fd = open(path, O_RDWR | O_CREAT, 0600), out;
    (void)unused;
    assert_int_equal(write(fd, "head ", 5), 5);
    bring("body", 4, SBX_OK);
    assert_int_equal(download(dev_fd(fd)), SBX_OK);
    fflush(stdout);
    out = dup(1);
    assert_int_equal(dup2(fd, 1), 1); /* as a shell redirects it */
    bring(" tail", 5, SBX_OK);
    assert_int_equal(download("/dev/stdout"), SBX_OK);
    assert_int_equal(dup2(out, 1), 1);
    close(out);
    close(fd);
    file_is(path, "head body tail", 14);
    assert_int_equal(count_files(), 1);
    assert_int_equal(download("/dev/fd/99999999999999999999"), SBX_E_FILE);
    assert_int_equal(sbxi_posix_named("/dev/fd/"), -1);
    assert_int_equal(sbxi_posix_named("/dev/fd/1x"), -1);
    assert_int_equal(sbxi_posix_named("/dev/fd/12"), 12);
    assert_int_equal(sbxi_posix_named("/dev/stderr"), 2);
}

static int progress_calls, progress_result;

static int on_progress(void *user, int64_t done, int64_t total)
{
    assert_ptr_equal(user, &progress_calls);
    assert_int_equal(done, (progress_calls + 1) * 1000);
    assert_int_equal(total, SBX_NONE);
    return ++progress_calls == 3 ? progress_result : 0;
}

static void progress_reaches_its_owner_and_can_end_the_call(void **unused)
{
    sbx_file_options options;
    char *path = in_directory("file");
    (void)unused;
    memset(&options, 0, sizeof(options));
    options.progress = on_progress;
    options.user = &progress_calls;
    bring(big_text(), 5000, SBX_OK);
    progress_calls = progress_result = 0;
    assert_int_equal(sbx_posix_download(NULL, "/remote", path, &options, &failure), SBX_OK);
    assert_int_equal(progress_calls, 5);
    progress_calls = 0;
    assert_int_equal(sbx_posix_upload(NULL, "/remote", path, &options, &failure), SBX_OK);
    assert_int_equal(progress_calls, 5);
    progress_result = 1;
    progress_calls = 0;
    assert_int_equal(sbx_posix_upload(NULL, "/remote", path, &options, &failure), SBX_E_ABORTED);
    assert_string_equal(failure.message, "the library's words");
    progress_calls = 0;
    bring(big_text(), 5000, SBX_OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(sbx_posix_download(NULL, "/remote", path, &options, &failure), SBX_E_ABORTED);
    assert_string_equal(failure.message, "the library's words");
    assert_int_equal(count_files(), 0);
    assert_ptr_equal(options.user, &progress_calls);
}

static void upload_announces_the_size_of_a_file(void **unused)
{
    char *path = in_directory("file");
    int fd;
    (void)unused;
    make_file(path, big_text(), 100000, 0400);
    assert_int_equal(upload(path), SBX_OK);
    assert_int_equal(failure.status, SBX_OK);
    assert_int_equal(transfer.size, 100000);
    assert_int_equal(transfer.len, 100000);
    assert_memory_equal(transfer.received, big_text(), 100000);
    /* From where a descriptor stands. */
    fd = open(path, O_RDONLY);
    assert_int_equal(lseek(fd, 99000, SEEK_SET), 99000);
    assert_int_equal(upload(dev_fd(fd)), SBX_OK);
    assert_int_equal(transfer.size, 1000);
    assert_memory_equal(transfer.received, big_text() + 99000, 1000);
    assert_int_equal(lseek(fd, 200000, SEEK_SET), 200000);
    assert_int_equal(upload(dev_fd(fd)), SBX_OK);
    assert_int_equal(transfer.size, 0);
    close(fd);
    make_file(in_directory("empty"), "", 0, 0600);
    assert_int_equal(upload(in_directory("empty")), SBX_OK);
    assert_int_equal(transfer.size, 0);
    assert_int_equal(transfer.len, 0);
}

static int file_to_change = -1;

static void grow(void)
{
    assert_int_equal(ftruncate(file_to_change, 10000), 0);
}

static void shrink(void)
{
    assert_int_equal(ftruncate(file_to_change, 1500), 0);
}

static void file_that_changes_while_it_is_sent(void **unused)
{
    char *path = in_directory("file");
    char expected[256];
    (void)unused;
    make_file(path, big_text(), 5000, 0600);
    file_to_change = open(path, O_WRONLY);
    transfer.during = grow;
    assert_int_equal(upload(path), SBX_OK);
    assert_int_equal(transfer.size, 5000);
    assert_int_equal(transfer.len, 5000);
    transfer.during = shrink;
    assert_int_equal(upload(path), SBX_E_FILE);
    assert_int_equal(failure.native_code, 0);
    snprintf(expected, sizeof(expected),
             "cannot read the local file %s: it became shorter while it was sent", path);
    assert_string_equal(failure.message, expected);
    close(file_to_change);
}

static void upload_of_what_has_no_size(void **unused)
{
    int fd[2];
    (void)unused;
    assert_int_equal(pipe(fd), 0);
    assert_int_equal(write(fd[1], big_text(), 3000), 3000);
    close(fd[1]);
    assert_int_equal(upload(dev_fd(fd[0])), SBX_OK);
    assert_int_equal(transfer.size, SBX_NONE);
    assert_int_equal(transfer.len, 3000);
    assert_memory_equal(transfer.received, big_text(), 3000);
    close(fd[0]);
#ifdef __linux__
    /* A file that says that it is empty and is not. */
    assert_int_equal(upload("/proc/self/status"), SBX_OK);
    assert_int_equal(transfer.size, SBX_NONE);
    assert_memory_equal(transfer.received, "Name:", 5);
#endif
}

static void *write_later(void *argument)
{
    const int *fd = (const int *)argument;
    sleep_ms(60);
    (void)!write(*fd, "late", 4);
    close(*fd);
    return NULL;
}

static void source_that_does_not_block_is_waited_for(void **unused)
{
    int fd[2];
    pthread_t thread;
    (void)unused;
    assert_int_equal(pipe(fd), 0);
    assert_int_equal(fcntl(fd[0], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(pthread_create(&thread, NULL, write_later, &fd[1]), 0);
    assert_int_equal(upload(dev_fd(fd[0])), SBX_OK);
    pthread_join(thread, NULL);
    assert_int_equal(transfer.len, 4);
    assert_memory_equal(transfer.received, "late", 4);
    close(fd[0]);
}

static void upload_of_what_cannot_be_read_is_a_local_error(void **unused)
{
    char *path = in_directory("missing");
    int fd[2];
    (void)unused;
    failed_locally(upload(path), ENOENT, "read", path);
    failed_locally(upload(directory), EISDIR, "read", directory);
    assert_int_equal(transfer.calls, 0);
    /* Found out only while reading: the writing end of a pipe. */
    assert_int_equal(pipe(fd), 0);
    failed_locally(upload(dev_fd(fd[1])), EBADF, "read", dev_fd(fd[1]));
    assert_int_equal(transfer.calls, 1);
    close(fd[0]);
    close(fd[1]);
    /* What the library says about its own failures is kept. */
    make_file(in_directory("file"), "x", 1, 0600);
    transfer.status = SBX_E_SERVICE;
    assert_int_equal(upload(in_directory("file")), SBX_E_SERVICE);
    assert_string_equal(failure.message, "the library's words");
}

#define NETWORK_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
#define FILE_TEST(name) cmocka_unit_test_setup_teardown(name, begin_files, end_files)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        NETWORK_TEST(bytes_go_both_ways_over_ipv4),
        NETWORK_TEST(bytes_go_both_ways_over_ipv6),
        NETWORK_TEST(socket_has_the_options_that_are_promised),
        NETWORK_TEST(refused_connection_is_told_in_words_and_for_good),
        NETWORK_TEST(every_address_that_failed_is_named),
        NETWORK_TEST(families_take_turns_and_ipv6_is_first),
        NETWORK_TEST(addresses_without_end_are_cut_short),
        NETWORK_TEST(details_fit_however_long_they_are),
        NETWORK_TEST(dead_first_address_costs_less_than_a_second),
        NETWORK_TEST(dead_ipv6_costs_less_than_a_second),
        NETWORK_TEST(address_that_answers_late_still_wins),
        NETWORK_TEST(refused_addresses_cost_no_time),
        NETWORK_TEST(few_attempts_are_made_at_a_time),
        NETWORK_TEST(connection_that_is_there_at_once_is_used),
        NETWORK_TEST(interrupted_connection_goes_on),
        NETWORK_TEST(failed_attempt_brings_the_next_one_forward),
        NETWORK_TEST(stagger_is_counted_from_the_last_attempt),
        NETWORK_TEST(arguments_that_mean_nothing_are_refused),
        NETWORK_TEST(localhost_is_recognized),
        NETWORK_TEST(localhost_is_tried_in_both_families_and_never_asked_for),
        NETWORK_TEST(name_that_does_not_exist_is_told_in_words),
        NETWORK_TEST(look_up_that_fails_for_the_system_is_told_in_words),
        NETWORK_TEST(name_without_an_internet_address_is_told_in_words),
        NETWORK_TEST(look_up_that_says_nothing_is_an_error),
        NETWORK_TEST(dead_name_server_stops_nobody),
        NETWORK_TEST(stream_can_go_while_its_name_is_looked_up),
        NETWORK_TEST(stream_can_go_while_the_answer_comes),
        NETWORK_TEST(no_signal_is_handled_by_a_look_up),
        NETWORK_TEST(thread_that_cannot_be_made_is_an_error),
#ifdef __linux__
        NETWORK_TEST(real_look_up_of_no_name_fails),
        NETWORK_TEST(silent_name_server_stops_nobody),
#endif
        NETWORK_TEST(writing_to_a_closed_peer_raises_no_signal),
        NETWORK_TEST(reset_is_an_error_and_stays_one),
        NETWORK_TEST(end_comes_after_the_last_byte_and_again),
        NETWORK_TEST(full_stream_waits_until_the_peer_reads),
        NETWORK_TEST(stream_can_go_in_every_state),
        NETWORK_TEST(wait_ends_when_the_time_is_up),
        NETWORK_TEST(another_thread_ends_a_wait_of_any_length),
        NETWORK_TEST(wakeup_before_the_wait_counts_once),
        NETWORK_TEST(wakeups_without_end_fill_nothing_up),
        NETWORK_TEST(signal_handler_can_wake),
        NETWORK_TEST(interrupted_wait_returns_early),
        NETWORK_TEST(wait_sees_each_of_many_items),
        NETWORK_TEST(two_clients_do_not_wake_each_other),
        NETWORK_TEST(clocks_tell_the_time),
        NETWORK_TEST(random_bytes_differ),
        NETWORK_TEST(random_bytes_come_without_getrandom_too),
        NETWORK_TEST(descriptors_run_out_without_a_hang),
        NETWORK_TEST(memory_runs_out_without_harm),
        NETWORK_TEST(errors_without_a_name_have_a_number),
        FILE_TEST(download_makes_a_file_like_any_other),
        FILE_TEST(download_of_nothing_makes_an_empty_file),
        FILE_TEST(download_to_a_name_without_a_directory),
        FILE_TEST(download_keeps_the_permissions_of_what_it_replaces),
        FILE_TEST(failed_download_leaves_the_target_as_it_was),
        FILE_TEST(full_disk_is_a_local_error),
        FILE_TEST(target_that_cannot_be_replaced_is_a_local_error),
        FILE_TEST(bad_targets_are_refused_without_traffic),
        FILE_TEST(long_names_are_refused_and_told_by_their_end),
        FILE_TEST(links_are_followed),
        FILE_TEST(links_with_long_texts_are_refused),
        FILE_TEST(write_protection_is_respected),
        FILE_TEST(fifo_is_written_directly),
        FILE_TEST(pipe_that_does_not_block_is_waited_for),
        FILE_TEST(named_descriptors_are_written_where_they_stand),
        FILE_TEST(progress_reaches_its_owner_and_can_end_the_call),
        FILE_TEST(upload_announces_the_size_of_a_file),
        FILE_TEST(file_that_changes_while_it_is_sent),
        FILE_TEST(upload_of_what_has_no_size),
        FILE_TEST(source_that_does_not_block_is_waited_for),
        FILE_TEST(upload_of_what_cannot_be_read_is_a_local_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
