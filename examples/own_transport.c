/* A transport of one's own, by select(), and a program that runs one command over it:

       cc -I. examples/own_transport.c -o own_transport && ./own_transport 'uname -a'

   It talks to LANGSMITH_ENDPOINT, which must be http, for this transport has no TLS.

   Between the two lines of dashes stands all that sandbox.h needs to know about a system. To port
   it, replace what is called there: lwIP has the same calls, a modem has others.
   transports/README.md explains each hook. */
#define _POSIX_C_SOURCE 200809L
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---------------------------------------------------------------------------------------------- */

/* A connection. The library knows its first member only. */
typedef struct tcp {
    sbx_stream stream;
    int fd; /* -1: none yet */
    char host[256], port[8];
    struct addrinfo *list, *at; /* the host's addresses, and the one that is tried */
} tcp;

/* Begins to connect to the address that is due. Returns 0 or an errno. */
static int tcp_begin(tcp *t)
{
    t->fd = socket(t->at->ai_family, SOCK_STREAM, 0);
    if (t->fd < 0)
        return errno;
    if (t->fd >= FD_SETSIZE)
        return EMFILE;
    fcntl(t->fd, F_SETFL, O_NONBLOCK);
    return connect(t->fd, t->at->ai_addr, t->at->ai_addrlen) == 0 ? 0 : errno;
}

/* Once it is writable, it is connected or has failed. */
static int tcp_outcome(tcp *t)
{
    struct timeval at_once = {0, 0};
    int error = 0;
    socklen_t len = sizeof(error);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(t->fd, &set);
    if (select(t->fd + 1, NULL, &set, NULL, &at_once) <= 0)
        return EINPROGRESS;
    getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    return error;
}

static sbx_status tcp_connect(sbx_stream *s)
{
    tcp *t = (tcp *)s;
    struct addrinfo hints;
    int error;
    if (!t->list) {
        /* This stops the thread until a name server has answered. A program that has anything else
           to do asks in a way that does not, and says SBX_AGAIN meanwhile. */
        memset(&hints, 0, sizeof(hints));
        hints.ai_socktype = SOCK_STREAM;
        error = getaddrinfo(t->host, t->port, &hints, &t->list);
        if (error) {
            s->detail = gai_strerror(error);
            return SBX_E_RESOLVE;
        }
        t->at = t->list;
    }
    for (; t->at; t->at = t->at->ai_next) {
        error = t->fd < 0 ? tcp_begin(t) : tcp_outcome(t);
        if (error == 0)
            return SBX_OK;
        if (error == EINPROGRESS)
            return SBX_AGAIN;
        s->native_code = error;
        s->detail = strerror(error);
        if (t->fd >= 0)
            close(t->fd);
        t->fd = -1;
    }
    return SBX_E_CONNECT;
}

/* What recv and send have returned, as a status. */
static sbx_status tcp_status(sbx_stream *s, ssize_t result, size_t *n)
{
    *n = result > 0 ? (size_t)result : 0;
    if (result > 0)
        return SBX_OK;
    if (result == 0)
        return SBX_END;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
        return SBX_AGAIN;
    s->native_code = errno;
    s->detail = strerror(errno);
    return SBX_E_CONNECTION;
}

static sbx_status tcp_read(sbx_stream *s, void *buf, size_t cap, size_t *n)
{
    return tcp_status(s, recv(((tcp *)s)->fd, buf, cap, 0), n);
}

static sbx_status tcp_write(sbx_stream *s, const void *buf, size_t len, size_t *n)
{
    return tcp_status(s, send(((tcp *)s)->fd, buf, len, MSG_NOSIGNAL), n);
}

static int tcp_wants(sbx_stream *s, unsigned want, sbx_item *items, int cap, int64_t *timeout_ms)
{
    const tcp *t = (const tcp *)s;
    (void)cap;
    if (t->fd < 0) {
        *timeout_ms = 0; /* not begun: connect has something to do at once */
        return 0;
    }
    items[0].handle = t->fd;
    items[0].want = want ? want : (unsigned)SBX_WRITE; /* 0 while connecting */
    return 1;
}

static void tcp_close(sbx_stream *s)
{
    tcp *t = (tcp *)s;
    if (t->list)
        freeaddrinfo(t->list);
    if (t->fd >= 0)
        close(t->fd);
    free(t);
}

/* No flush: what write takes is on its way. */
static const sbx_stream_methods tcp_methods = {tcp_connect, tcp_read,  tcp_write,
                                               NULL,        tcp_wants, tcp_close};

static sbx_status tcp_dial(void *state, const char *host, uint16_t port, sbx_stream **out)
{
    tcp *t;
    (void)state;
    *out = NULL;
    if (strlen(host) >= sizeof(t->host))
        return SBX_E_RESOLVE;
    t = (tcp *)calloc(1, sizeof(*t));
    if (!t)
        return SBX_E_MEMORY;
    t->stream.methods = &tcp_methods;
    t->fd = -1;
    strcpy(t->host, host);
    snprintf(t->port, sizeof(t->port), "%d", port);
    *out = &t->stream;
    return SBX_OK;
}

static sbx_status own_wait(void *state, const sbx_item *items, int n, int64_t timeout_ms)
{
    struct timeval time;
    fd_set readable, writable;
    int i, highest = -1;
    (void)state;
    FD_ZERO(&readable);
    FD_ZERO(&writable);
    for (i = 0; i < n; i++) {
        int fd = (int)items[i].handle;
        if (items[i].want & SBX_READ)
            FD_SET(fd, &readable);
        if (items[i].want & SBX_WRITE)
            FD_SET(fd, &writable);
        highest = fd > highest ? fd : highest;
    }
    time.tv_sec = (time_t)(timeout_ms / 1000);
    time.tv_usec = (suseconds_t)(timeout_ms % 1000 * 1000);
    /* However it ends: the library looks what there is to be done, and waits again. */
    select(highest + 1, &readable, &writable, NULL, timeout_ms == SBX_NONE ? NULL : &time);
    return SBX_OK;
}

static int64_t own_now_ms(void *state)
{
    struct timespec time;
    (void)state;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static sbx_status own_entropy(void *state, void *buf, size_t len)
{
    int fd = open("/dev/urandom", O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, len);
    (void)state;
    if (fd >= 0)
        close(fd);
    return n >= 0 && (size_t)n == len ? SBX_OK : SBX_E_ENTROPY;
}

/* NULL are the optional hooks: open, close, secure, wakeup, wall_ms. */
static const sbx_transport own_transport = {NULL, NULL,       NULL, tcp_dial,    NULL, own_wait,
                                            NULL, own_now_ms, NULL, own_entropy, NULL, NULL};

/* ---------------------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    sbx_config config = {0};
    sbx_client *client = NULL;
    sbx_sandbox *sandbox = NULL;
    sbx_result *result = NULL;
    sbx_error err;

    config.transport = &own_transport;
    if (sbx_open(&config, &client, &err) == SBX_OK &&
        sbx_sandbox_create(client, NULL, &sandbox, &err) == SBX_OK &&
        sbx_run(sandbox, argc > 1 ? argv[1] : "echo hello", NULL, &result, &err) == SBX_OK)
        printf("%s", result->out);
    else
        fprintf(stderr, "own_transport: %s\n", err.message);

    if (sandbox)
        sbx_sandbox_delete(client, sandbox->name, NULL, NULL);
    sbx_free(result);
    sbx_free(sandbox);
    sbx_close(client);
    return err.status == SBX_OK ? 0 : 1;
}
