/* sandbox_posix.h: the transport of sandbox.h for Linux, macOS and the BSDs: TCP by plain sockets.

   In one file of the program:

       #define SANDBOX_IMPLEMENTATION
       #include "sandbox.h"
       #include "sandbox_posix.h"

   then set sbx_config.transport to sbx_posix(). It has no TLS of its own, so it reaches http
   endpoints only; put a transport with a secure hook on top for https.

   It needs POSIX.1-2008, sockets and threads. By the compilers' default (-std=gnu17 and the like)
   and in C++ the system's headers offer all that. With a strict -std=c99 or -std=c11 they hide it:
   put "#define _POSIX_C_SOURCE 200809L" before the first #include of the file with the
   implementation. C libraries that keep threads apart (glibc before 2.34, BSDs) want -pthread when
   linking. On 32-bit systems, files beyond 2 GiB want "#define _FILE_OFFSET_BITS 64" in that place.

   What it promises:
   - Nothing blocks but wait and the two calls for local files. Names are looked up in a thread that
     lives for one look-up; "localhost" (RFC 6761) and numeric addresses need none.
   - The addresses of a host are raced as RFC 8305 says: families take turns, IPv6 first, one more
     attempt every 250 ms or as soon as one has failed. A dead address costs a quarter of a second.
   - No signal handler, no SIGPIPE from a socket, no descriptor that a child process inherits, no
     global: all state belongs to a client or a stream. Its memory comes from malloc.

   In sbx_error, native_code is errno, or the EAI_ code of getaddrinfo after SBX_E_RESOLVE.

   This file uses nothing of sandbox.h but its declarations. Licence: that of sandbox.h. */
#include "sandbox.h"

#ifndef SBX_POSIX_H
#define SBX_POSIX_H

#ifdef __cplusplus
extern "C" {
#endif

/* The transport. Constant and never NULL: any number of clients and threads may share it. All hooks
   are there but secure. Opening a client takes two descriptors, for wake-ups, which sbx_close gives
   back; SBX_E_CONNECTION from sbx_open means that there were none left. */
SBX_API const sbx_transport *sbx_posix(void);

#ifndef SBX_NO_FILES
/* Uploads the local file to path in the sandbox, in constant memory. Blocks. Of a regular file, as
   many bytes are sent as it has at the start, and it fails if there turn out to be fewer; anything
   else (a FIFO, "/dev/stdin") is sent up to its end, chunked. options may be NULL; its user goes to
   progress. Errors: those of sbx_write_from, and SBX_E_FILE with errno in native_code when local
   cannot be read. */
SBX_API sbx_status sbx_posix_upload(const sbx_sandbox *sandbox, const char *path, const char *local,
                                    const sbx_file_options *options, sbx_error *err);

/* Downloads path from the sandbox to the local file, in constant memory. Blocks. A file named local
   is either what it was or complete: the bytes go to a new file in the same directory (its name
   starts with ".sbx-"), which is renamed at the end, and removed if anything fails. It gets the
   permissions of the file that it replaces, or else those of any new file. Symbolic links are
   followed. Anything but a regular file (a FIFO, "/dev/stdout") is written directly instead, with
   what came before a failure; a pipe that nobody reads raises SIGPIPE there, as it always does.
   options may be NULL; its user goes to progress. Errors: those of sbx_read_to, and SBX_E_FILE with
   errno in native_code when local cannot be written. */
SBX_API sbx_status sbx_posix_download(const sbx_sandbox *sandbox, const char *path,
                                      const char *local, const sbx_file_options *options,
                                      sbx_error *err);
#endif

#ifdef __cplusplus
}
#endif

#endif /* SBX_POSIX_H */

#ifdef SANDBOX_IMPLEMENTATION
#ifndef SBX_POSIX_IMPLEMENTATION_DONE
#define SBX_POSIX_IMPLEMENTATION_DONE

#include <sys/types.h>

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
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if !defined(CLOCK_MONOTONIC) || !defined(AI_NUMERICHOST) || !defined(O_CLOEXEC)
#error "POSIX is hidden here: put #define _POSIX_C_SOURCE 200809L before the first #include"
#elif !defined(MSG_NOSIGNAL) && !defined(SO_NOSIGPIPE)
#error "SO_NOSIGPIPE is hidden here: put #define _DARWIN_C_SOURCE before the first #include"
#else

/* Where random bytes come from, best first; without either, from /dev/urandom. */
#if defined(__linux__) && !defined(__ANDROID__) && defined(__has_include)
#if __has_include(<sys/random.h>)
#include <sys/random.h>
#define SBXI_POSIX_GETRANDOM
#endif
#elif defined(__APPLE__) && (!defined(_POSIX_C_SOURCE) || defined(_DARWIN_C_SOURCE))
#define SBXI_POSIX_ARC4RANDOM
#elif defined(__NetBSD__) && defined(_NETBSD_SOURCE)
#define SBXI_POSIX_ARC4RANDOM
#elif defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__DragonFly__)
#if defined(__BSD_VISIBLE) && __BSD_VISIBLE
#define SBXI_POSIX_ARC4RANDOM
#endif
#endif

#define SBXI_POSIX_STAGGER_MS 250           /* between two attempts to connect */
#define SBXI_POSIX_ADDRESSES 16             /* of one host; further ones are ignored */
#define SBXI_POSIX_ATTEMPTS (SBX_ITEMS - 1) /* at the same time */
#define SBXI_POSIX_STACK (512u << 10) /* of a look-up: the system's resolver modules run on it */
#define SBXI_POSIX_IO_MAX ((size_t)1 << 30) /* some systems refuse more in one call */
#define SBXI_POSIX_PATH 4096                /* a local path with its final 0 */

/* ---- descriptors ---- */

/* The system's words for an errno. strerror_r comes in two kinds that return different things. */
static const char *sbxi_posix_words(int error, char *out, size_t cap)
{
#if defined(_GNU_SOURCE) && (defined(__GLIBC__) || defined(__BIONIC__) || defined(__NEWLIB__))
    return strerror_r(error, out, cap);
#else
    if (strerror_r(error, out, cap) != 0)
        snprintf(out, cap, "error %d", error);
    return out;
#endif
}

static void sbxi_posix_option(int fd, int level, int name, int value)
{
    (void)setsockopt(fd, level, name, &value, sizeof(value));
}

#if defined(SOCK_CLOEXEC) && defined(SOCK_NONBLOCK)
#define SBXI_POSIX_SOCKET (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
#else
#define SBXI_POSIX_SOCKET SOCK_STREAM
#endif

/* Makes a new socket non-blocking, silent and not inheritable. Returns 0 or an errno. */
static int sbxi_posix_prepare(int fd)
{
#if !defined(SOCK_CLOEXEC) || !defined(SOCK_NONBLOCK)
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return errno;
#endif
#ifdef SO_NOSIGPIPE
    sbxi_posix_option(fd, SOL_SOCKET, SO_NOSIGPIPE, 1);
#else
    (void)fd;
#endif
    return 0;
}

/* Two sockets that are connected to each other. They serve as a pipe does; but send, unlike write,
   can be kept from raising a signal. Returns 0 or an errno. */
static int sbxi_posix_pair(int fd[2])
{
    int error;
    if (socketpair(AF_UNIX, SBXI_POSIX_SOCKET, 0, fd) != 0)
        return errno;
    error = sbxi_posix_prepare(fd[0]);
    if (!error)
        error = sbxi_posix_prepare(fd[1]);
    if (error) {
        close(fd[0]);
        close(fd[1]);
    }
    return error;
}

static ssize_t sbxi_posix_send(int fd, const void *data, size_t len)
{
#ifdef MSG_NOSIGNAL
    return send(fd, data, len, MSG_NOSIGNAL);
#else
    return send(fd, data, len, 0);
#endif
}

static int64_t sbxi_posix_clock(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t) != 0)
        return 0;
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- addresses ---- */

typedef union sbxi_posix_address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
} sbxi_posix_address;

/* What is known of a host. Holds no pointer: a look-up sends it as bytes. */
typedef struct sbxi_posix_found {
    int failure; /* an EAI_ code; 0: none */
    int native;  /* errno, when failure is EAI_SYSTEM */
    int count;
    socklen_t len[SBXI_POSIX_ADDRESSES];
    sbxi_posix_address address[SBXI_POSIX_ADDRESSES];
} sbxi_posix_found;

/* The first address of a family from at on, or NULL. */
static const struct addrinfo *sbxi_posix_next(const struct addrinfo *at, int family)
{
    while (at && (at->ai_family != family || at->ai_addrlen > sizeof(sbxi_posix_address)))
        at = at->ai_next;
    return at;
}

/* Adds the first address of the family in *at, if there is one, and moves *at behind it. */
static void sbxi_posix_add(sbxi_posix_found *found, const struct addrinfo **at, int family,
                           uint16_t port)
{
    const struct addrinfo *info = sbxi_posix_next(*at, family);
    *at = info ? info->ai_next : NULL;
    if (info && found->count < SBXI_POSIX_ADDRESSES) {
        sbxi_posix_address *address = &found->address[found->count];
        memcpy(address, info->ai_addr, info->ai_addrlen);
        if (family == AF_INET6)
            address->six.sin6_port = htons(port);
        else
            address->four.sin_port = htons(port);
        found->len[found->count++] = (socklen_t)info->ai_addrlen;
    }
}

/* Adds the addresses of host in the order in which they are to be tried: the system's, but that the
   families take turns, IPv6 first. */
static void sbxi_posix_find(sbxi_posix_found *found, const char *host, uint16_t port, int flags)
{
    struct addrinfo hints, *list = NULL;
    const struct addrinfo *six, *four;
    memset(&hints, 0, sizeof(hints));
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags;
    found->failure = getaddrinfo(host, NULL, &hints, &list);
    if (found->failure) {
        found->native = found->failure == EAI_SYSTEM ? errno : 0;
        return;
    }
    six = four = list;
    while (six || four) {
        sbxi_posix_add(found, &six, AF_INET6, port);
        sbxi_posix_add(found, &four, AF_INET, port);
    }
    freeaddrinfo(list);
}

/* 1 for "localhost" and the names below it, whatever the case, with or without a final dot. */
static int sbxi_posix_is_localhost(const char *host)
{
    static const char name[] = "localhost";
    size_t len = strlen(host), n = sizeof(name) - 1, i;
    if (len > 0 && host[len - 1] == '.')
        len--;
    if (len < n || (len > n && host[len - n - 1] != '.'))
        return 0;
    for (i = 0; i < n; i++)
        if ((host[len - n + i] | 0x20) != name[i])
            return 0;
    return 1;
}

/* Finds what needs no look-up. 0: host is a name that has to be asked for. */
static int sbxi_posix_find_at_once(sbxi_posix_found *found, const char *host, uint16_t port)
{
    if (!sbxi_posix_is_localhost(host)) {
        sbxi_posix_find(found, host, port, AI_NUMERICHOST);
        return found->count > 0;
    }
    sbxi_posix_find(found, "::1", port, AI_NUMERICHOST);
    sbxi_posix_find(found, "127.0.0.1", port, AI_NUMERICHOST);
    return 1;
}

/* ---- looking up a name ---- */

/* What a look-up's thread owns. It shares no memory with the stream, only a pair of sockets: it
   sends what it found and is gone, whether or not there is still somebody who reads. */
typedef struct sbxi_posix_lookup {
    int fd;
    uint16_t port;
    char *host;
} sbxi_posix_lookup;

static void *sbxi_posix_look_up(void *argument)
{
    sbxi_posix_lookup *lookup = (sbxi_posix_lookup *)argument;
    sbxi_posix_found found;
    memset(&found, 0, sizeof(found));
    sbxi_posix_find(&found, lookup->host, lookup->port, 0);
    (void)sbxi_posix_send(lookup->fd, &found, sizeof(found));
    close(lookup->fd);
    free(lookup);
    return NULL;
}

/* Starts a detached thread in which no signal of the program is handled. Returns 0 or an errno. */
static int sbxi_posix_thread(void *(*run)(void *), void *argument)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    size_t stack = SBXI_POSIX_STACK;
    int error = pthread_attr_init(&attributes);
    if (error)
        return error;
#ifdef PTHREAD_STACK_MIN
    if (stack < (size_t)PTHREAD_STACK_MIN * 2)
        stack = (size_t)PTHREAD_STACK_MIN * 2;
#endif
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attributes, stack);
    sigfillset(&all);
    error = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!error) {
        error = pthread_create(&thread, &attributes, run, argument);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attributes);
    return error;
}

/* Begins to look up host. Returns 0 and the descriptor that the answer comes from, or an errno. */
static int sbxi_posix_ask(const char *host, uint16_t port, int *answer)
{
    size_t size = strlen(host) + 1;
    sbxi_posix_lookup *lookup = (sbxi_posix_lookup *)malloc(sizeof(*lookup) + size);
    int fd[2], error;
    if (!lookup)
        return ENOMEM;
    error = sbxi_posix_pair(fd);
    if (!error) {
        lookup->fd = fd[1];
        lookup->port = port;
        lookup->host = (char *)(lookup + 1);
        memcpy(lookup->host, host, size);
        error = sbxi_posix_thread(sbxi_posix_look_up, lookup);
        if (!error) {
            *answer = fd[0];
            return 0;
        }
        close(fd[0]);
        close(fd[1]);
    }
    free(lookup);
    return error;
}

/* ---- streams: connecting ---- */

typedef enum sbxi_posix_phase {
    SBXI_POSIX_RESOLVING = 1, /* fd is where the answer comes from */
    SBXI_POSIX_CONNECTING,    /* the attempts have descriptors; fd is -1 until one has won */
    SBXI_POSIX_OPEN           /* fd is the connection */
} sbxi_posix_phase;

typedef struct sbxi_posix_stream {
    sbx_stream stream;
    sbx_status failed; /* SBX_OK, or the error that every later call repeats */
    sbxi_posix_phase phase;
    int fd;
    uint16_t port;
    size_t received; /* bytes of found, while resolving */
    sbxi_posix_found found;
    int attempt[SBXI_POSIX_ADDRESSES]; /* to each address: a descriptor, or -1 */
    int why[SBXI_POSIX_ADDRESSES];     /* the errno with which it failed */
    int next;                          /* the first address that was not tried */
    int pending;                       /* attempts that are going on */
    int64_t next_at;                   /* when to try it, if others are pending */
    char text[2048];                   /* stream.detail */
} sbxi_posix_stream;

/* Final. The words are put after what doing says, if anything. */
static sbx_status sbxi_posix_fail(sbxi_posix_stream *s, sbx_status status, int native,
                                  const char *doing, const char *words)
{
    snprintf(s->text, sizeof(s->text), "%s%s", doing, words);
    s->stream.detail = s->text;
    s->stream.native_code = native;
    s->failed = status;
    return status;
}

static sbx_status sbxi_posix_fail_io(sbxi_posix_stream *s, int error)
{
    char words[128];
    return sbxi_posix_fail(s, SBX_E_CONNECTION, error, "",
                           sbxi_posix_words(error, words, sizeof(words)));
}

/* No address is left: names each with the reason. */
static sbx_status sbxi_posix_fail_connect(sbxi_posix_stream *s)
{
    char address[80], words[128];
    size_t at = 0;
    int i;
    for (i = 0; i < s->found.count && at < sizeof(s->text); i++) {
        if (getnameinfo(&s->found.address[i].any, s->found.len[i], address, sizeof(address), NULL,
                        0, NI_NUMERICHOST) != 0)
            snprintf(address, sizeof(address), "an address");
        at += (size_t)snprintf(s->text + at, sizeof(s->text) - at, "%s%s port %u: %s",
                               i ? "; " : "", address, (unsigned)s->port,
                               sbxi_posix_words(s->why[i], words, sizeof(words)));
    }
    s->stream.detail = s->text;
    s->stream.native_code = s->why[s->found.count - 1];
    s->failed = SBX_E_CONNECT;
    return s->failed;
}

static sbx_status sbxi_posix_fail_resolve(sbxi_posix_stream *s)
{
    static const char doing[] = "looking up the name: ";
    const sbxi_posix_found *found = &s->found;
    char words[128];
    if (found->failure == EAI_SYSTEM)
        return sbxi_posix_fail(s, SBX_E_RESOLVE, found->native, doing,
                               sbxi_posix_words(found->native, words, sizeof(words)));
    if (found->failure)
        return sbxi_posix_fail(s, SBX_E_RESOLVE, found->failure, doing,
                               gai_strerror(found->failure));
    return sbxi_posix_fail(s, SBX_E_RESOLVE, 0, doing, "there is no IPv4 or IPv6 address");
}

static sbx_status sbxi_posix_fail_start(sbxi_posix_stream *s, int error)
{
    char words[128];
    return sbxi_posix_fail(s, SBX_E_RESOLVE, error, "looking up the name could not be started: ",
                           sbxi_posix_words(error, words, sizeof(words)));
}

/* Takes the answer of the look-up. SBX_OK: it is complete. */
static sbx_status sbxi_posix_resolve(sbxi_posix_stream *s)
{
    while (s->received < sizeof(s->found)) {
        char *at = (char *)&s->found + s->received;
        ssize_t n = recv(s->fd, at, sizeof(s->found) - s->received, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return SBX_AGAIN;
        if (n <= 0)
            return sbxi_posix_fail(s, SBX_E_RESOLVE, n < 0 ? errno : 0, "",
                                   "looking up the name ended without an answer");
        s->received += (size_t)n;
    }
    close(s->fd);
    s->fd = -1;
    s->phase = SBXI_POSIX_CONNECTING;
    return SBX_OK;
}

/* Nagle's algorithm would hold back small messages. A peer that vanished without a word is noticed
   after about two minutes, where the system lets us say so. */
static void sbxi_posix_options(int fd)
{
    sbxi_posix_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    sbxi_posix_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
#if defined(TCP_KEEPIDLE)
    sbxi_posix_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
#elif defined(TCP_KEEPALIVE)
    sbxi_posix_option(fd, IPPROTO_TCP, TCP_KEEPALIVE, 60);
#endif
#ifdef TCP_KEEPINTVL
    sbxi_posix_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15);
#endif
#ifdef TCP_KEEPCNT
    sbxi_posix_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
#endif
}

/* Tries the next address: it wins, or is pending, or has failed and the one after it is due. */
static void sbxi_posix_try(sbxi_posix_stream *s)
{
    int i = s->next++, error = 0;
    const struct sockaddr *address = &s->found.address[i].any;
    int fd = socket(address->sa_family, SBXI_POSIX_SOCKET, 0);
    if (fd < 0)
        error = errno;
    else
        error = sbxi_posix_prepare(fd);
    if (!error) {
        sbxi_posix_options(fd);
        if (connect(fd, address, s->found.len[i]) == 0) {
            s->fd = fd;
            return;
        }
        error = errno;
    }
    if (error == EINPROGRESS || error == EINTR) {
        s->attempt[i] = fd;
        s->pending++;
        s->next_at = sbxi_posix_clock(CLOCK_MONOTONIC) + SBXI_POSIX_STAGGER_MS;
        return;
    }
    if (fd >= 0)
        close(fd);
    s->why[i] = error;
}

/* Looks at the attempts that are pending: the first that is connected wins. */
static void sbxi_posix_look(sbxi_posix_stream *s)
{
    struct pollfd item[SBXI_POSIX_ADDRESSES];
    int i;
    /* A negative descriptor makes poll skip the item. */
    for (i = 0; i < s->next; i++) {
        item[i].fd = s->attempt[i];
        item[i].events = POLLOUT;
        item[i].revents = 0;
    }
    if (poll(item, (nfds_t)s->next, 0) <= 0)
        return;
    for (i = 0; i < s->next && s->fd < 0; i++) {
        int error = 0;
        socklen_t len = sizeof(error);
        if (s->attempt[i] < 0 || !item[i].revents)
            continue;
        if (getsockopt(s->attempt[i], SOL_SOCKET, SO_ERROR, &error, &len) != 0)
            error = errno;
        if (error) {
            close(s->attempt[i]);
            s->why[i] = error;
            s->next_at = 0;
        } else {
            s->fd = s->attempt[i];
        }
        s->attempt[i] = -1;
        s->pending--;
    }
}

static void sbxi_posix_close_attempts(sbxi_posix_stream *s)
{
    int i;
    for (i = 0; i < SBXI_POSIX_ADDRESSES; i++) {
        if (s->attempt[i] >= 0)
            close(s->attempt[i]);
        s->attempt[i] = -1;
    }
    s->pending = 0;
}

static sbx_status sbxi_posix_connect(sbx_stream *stream)
{
    sbxi_posix_stream *s = (sbxi_posix_stream *)stream;
    if (s->failed != SBX_OK || s->phase == SBXI_POSIX_OPEN)
        return s->failed;
    if (s->phase == SBXI_POSIX_RESOLVING) {
        sbx_status st = sbxi_posix_resolve(s);
        if (st != SBX_OK)
            return st;
    }
    if (s->found.count == 0)
        return sbxi_posix_fail_resolve(s);
    if (s->pending > 0)
        sbxi_posix_look(s);
    while (s->fd < 0 && s->next < s->found.count && s->pending < SBXI_POSIX_ATTEMPTS &&
           (s->pending == 0 || sbxi_posix_clock(CLOCK_MONOTONIC) >= s->next_at))
        sbxi_posix_try(s);
    if (s->fd >= 0) {
        sbxi_posix_close_attempts(s);
        s->phase = SBXI_POSIX_OPEN;
        return SBX_OK;
    }
    return s->pending > 0 ? SBX_AGAIN : sbxi_posix_fail_connect(s);
}

/* ---- streams: connected ---- */

static sbx_status sbxi_posix_read(sbx_stream *stream, void *buf, size_t cap, size_t *n)
{
    sbxi_posix_stream *s = (sbxi_posix_stream *)stream;
    ssize_t got;
    *n = 0;
    if (s->failed != SBX_OK)
        return s->failed;
    if (s->phase != SBXI_POSIX_OPEN || cap == 0)
        return SBX_AGAIN;
    do
        got = recv(s->fd, buf, cap < SBXI_POSIX_IO_MAX ? cap : SBXI_POSIX_IO_MAX, 0);
    while (got < 0 && errno == EINTR);
    if (got == 0)
        return SBX_END;
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? SBX_AGAIN : sbxi_posix_fail_io(s, errno);
    *n = (size_t)got;
    return SBX_OK;
}

static sbx_status sbxi_posix_write(sbx_stream *stream, const void *buf, size_t len, size_t *n)
{
    sbxi_posix_stream *s = (sbxi_posix_stream *)stream;
    ssize_t put;
    *n = 0;
    if (s->failed != SBX_OK)
        return s->failed;
    if (s->phase != SBXI_POSIX_OPEN || len == 0)
        return SBX_AGAIN;
    do
        put = sbxi_posix_send(s->fd, buf, len < SBXI_POSIX_IO_MAX ? len : SBXI_POSIX_IO_MAX);
    while (put < 0 && errno == EINTR);
    if (put < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? SBX_AGAIN : sbxi_posix_fail_io(s, errno);
    *n = (size_t)put;
    return SBX_OK;
}

static void sbxi_posix_lower(int64_t *timeout_ms, int64_t to)
{
    if (*timeout_ms < 0 || *timeout_ms > to)
        *timeout_ms = to < 0 ? 0 : to;
}

static int sbxi_posix_wants(sbx_stream *stream, unsigned want, sbx_item *items, int cap,
                            int64_t *timeout_ms)
{
    sbxi_posix_stream *s = (sbxi_posix_stream *)stream;
    int n = 0, i;
    if (s->failed != SBX_OK) {
        *timeout_ms = 0;
    } else if (s->phase == SBXI_POSIX_CONNECTING) {
        for (i = 0; i < s->next && n < cap; i++) {
            if (s->attempt[i] >= 0) {
                items[n].handle = s->attempt[i];
                items[n++].want = SBX_WRITE;
            }
        }
        if (s->next < s->found.count && s->pending < SBXI_POSIX_ATTEMPTS)
            sbxi_posix_lower(timeout_ms, s->next_at - sbxi_posix_clock(CLOCK_MONOTONIC));
    } else if (cap > 0 && (s->phase == SBXI_POSIX_RESOLVING || want)) {
        items[0].handle = s->fd;
        items[0].want = s->phase == SBXI_POSIX_RESOLVING ? (unsigned)SBX_READ : want;
        n = 1;
    }
    return n;
}

static void sbxi_posix_close_stream(sbx_stream *stream)
{
    sbxi_posix_stream *s = (sbxi_posix_stream *)stream;
    sbxi_posix_close_attempts(s);
    if (s->fd >= 0)
        close(s->fd);
    free(s);
}

/* ---- the transport ---- */

/* What one client has. */
typedef struct sbxi_posix_state {
    int wake[2]; /* a byte in [1] ends the wait at [0] */
    pthread_mutex_t mutex;
    struct pollfd *items;
    int items_cap;
} sbxi_posix_state;

static sbx_status sbxi_posix_open(void *user, void **state)
{
    sbxi_posix_state *p = (sbxi_posix_state *)malloc(sizeof(*p));
    (void)user;
    if (!p)
        return SBX_E_MEMORY;
    memset(p, 0, sizeof(*p));
    if (sbxi_posix_pair(p->wake) != 0) {
        free(p);
        return SBX_E_CONNECTION;
    }
    if (pthread_mutex_init(&p->mutex, NULL) != 0) {
        close(p->wake[0]);
        close(p->wake[1]);
        free(p);
        return SBX_E_MEMORY;
    }
    *state = p;
    return SBX_OK;
}

static void sbxi_posix_close(void *state)
{
    sbxi_posix_state *p = (sbxi_posix_state *)state;
    close(p->wake[0]);
    close(p->wake[1]);
    (void)pthread_mutex_destroy(&p->mutex);
    free(p->items);
    free(p);
}

static void sbxi_posix_lock(void *state)
{
    (void)pthread_mutex_lock(&((sbxi_posix_state *)state)->mutex);
}

static void sbxi_posix_unlock(void *state)
{
    (void)pthread_mutex_unlock(&((sbxi_posix_state *)state)->mutex);
}

static sbx_status sbxi_posix_dial(void *state, const char *host, uint16_t port, sbx_stream **out)
{
    static const sbx_stream_methods methods = {
        sbxi_posix_connect, sbxi_posix_read,         sbxi_posix_write, NULL,
        sbxi_posix_wants,   sbxi_posix_close_stream,
    };
    sbxi_posix_stream *s;
    int i, error;
    (void)state;
    *out = NULL;
    if (!host || !*host)
        return SBX_E_ARGUMENT;
    s = (sbxi_posix_stream *)malloc(sizeof(*s));
    if (!s)
        return SBX_E_MEMORY;
    memset(s, 0, sizeof(*s));
    s->stream.methods = &methods;
    s->port = port;
    s->fd = -1;
    for (i = 0; i < SBXI_POSIX_ADDRESSES; i++)
        s->attempt[i] = -1;
    s->phase = SBXI_POSIX_CONNECTING;
    *out = &s->stream;
    if (sbxi_posix_find_at_once(&s->found, host, port))
        return SBX_OK;
    memset(&s->found, 0, sizeof(s->found));
    s->phase = SBXI_POSIX_RESOLVING;
    error = sbxi_posix_ask(host, port, &s->fd);
    if (error)
        (void)sbxi_posix_fail_start(s, error); /* which connect will tell */
    return SBX_OK;
}

/* Makes room for n items and the wake-up. 0: there is no memory. */
static int sbxi_posix_reserve(sbxi_posix_state *p, int n)
{
    struct pollfd *items;
    if (n < p->items_cap)
        return 1;
    items = (struct pollfd *)realloc(p->items, ((size_t)n + 1) * sizeof(*items));
    if (!items)
        return 0;
    p->items = items;
    p->items_cap = n + 1;
    return 1;
}

static sbx_status sbxi_posix_wait(void *state, const sbx_item *items, int n, int64_t timeout_ms)
{
    sbxi_posix_state *p = (sbxi_posix_state *)state;
    char bytes[256];
    int i, ready;
    if (!sbxi_posix_reserve(p, n))
        return SBX_E_MEMORY;
    p->items[0].fd = p->wake[0];
    p->items[0].events = POLLIN;
    p->items[0].revents = 0;
    for (i = 0; i < n; i++) {
        struct pollfd *item = &p->items[i + 1];
        item->fd = (int)items[i].handle;
        item->events = (short)((items[i].want & SBX_READ ? POLLIN : 0) |
                               (items[i].want & SBX_WRITE ? POLLOUT : 0));
        item->revents = 0;
    }
    if (timeout_ms > INT_MAX)
        timeout_ms = INT_MAX; /* and return early */
    else if (timeout_ms < 0)
        timeout_ms = timeout_ms == SBX_NONE ? -1 : 0;
    ready = poll(p->items, (nfds_t)n + 1, (int)timeout_ms);
    if (ready < 0)
        return errno == EINTR ? SBX_OK : SBX_E_MEMORY; /* all that the kernel can lack here */
    if (p->items[0].revents)
        while (recv(p->wake[0], bytes, sizeof(bytes), 0) == (ssize_t)sizeof(bytes))
            continue;
    return SBX_OK;
}

static void sbxi_posix_wakeup(void *state)
{
    const sbxi_posix_state *p = (const sbxi_posix_state *)state;
    int error = errno;
    /* When there is no room for one more byte, there is one already. */
    (void)sbxi_posix_send(p->wake[1], "", 1);
    errno = error;
}

static int64_t sbxi_posix_now_ms(void *state)
{
    (void)state;
    return sbxi_posix_clock(CLOCK_MONOTONIC);
}

static int64_t sbxi_posix_wall_ms(void *state)
{
    (void)state;
    return sbxi_posix_clock(CLOCK_REALTIME);
}

#ifndef SBXI_POSIX_ARC4RANDOM
static sbx_status sbxi_posix_urandom(unsigned char *at, size_t len)
{
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return SBX_E_ENTROPY;
    while (len > 0) {
        ssize_t n = read(fd, at, len < SBXI_POSIX_IO_MAX ? len : SBXI_POSIX_IO_MAX);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        at += n;
        len -= (size_t)n;
    }
    close(fd);
    return len ? SBX_E_ENTROPY : SBX_OK;
}
#endif

static sbx_status sbxi_posix_entropy(void *state, void *buf, size_t len)
{
    unsigned char *at = (unsigned char *)buf;
    (void)state;
#ifdef SBXI_POSIX_ARC4RANDOM
    arc4random_buf(at, len);
    return SBX_OK;
#else
#ifdef SBXI_POSIX_GETRANDOM
    while (len > 0) {
        ssize_t n = getrandom(at, len < 256 ? len : 256, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* a kernel from before 2014, or a filter that forbids the call */
        at += n;
        len -= (size_t)n;
    }
#endif
    return len ? sbxi_posix_urandom(at, len) : SBX_OK;
#endif
}

SBX_API const sbx_transport *sbx_posix(void)
{
    static const sbx_transport transport = {
        NULL,
        sbxi_posix_open,
        sbxi_posix_close,
        sbxi_posix_dial,
        NULL,
        sbxi_posix_wait,
        sbxi_posix_wakeup,
        sbxi_posix_now_ms,
        sbxi_posix_wall_ms,
        sbxi_posix_entropy,
        sbxi_posix_lock,
        sbxi_posix_unlock,
    };
    return &transport;
}

#ifndef SBX_NO_FILES
/* ---- local files ---- */

/* One transfer: the user pointer of our callbacks. */
typedef struct sbxi_posix_file {
    int fd;
    int64_t left;        /* bytes to be read and sent; SBX_NONE: all up to the end */
    int error;           /* errno of a local failure; 0: none */
    const char *problem; /* a local failure without an errno; NULL: none */
    const sbx_file_options *options;
} sbxi_posix_file;

static void sbxi_posix_clear(sbx_error *err, sbx_status status)
{
    memset(err, 0, sizeof(*err));
    err->resource_type = err->operation = err->quota_type = "";
    err->status = status;
}

/* Fills err after a local failure. Of a long name, the end tells more than the beginning. */
static sbx_status sbxi_posix_fail_file(sbx_error *err, const char *doing, const char *local,
                                       int error, const char *problem)
{
    char words[128];
    size_t len = strlen(local), cut = len > 256 ? len - 256 : 0;
    char *at;
    if (!err)
        return SBX_E_FILE;
    while (cut && ((unsigned char)local[cut] & 0xc0) == 0x80)
        cut++;
    sbxi_posix_clear(err, SBX_E_FILE);
    err->native_code = error;
    snprintf(err->message, sizeof(err->message), "cannot %s the local file %s%s: %s", doing,
             cut ? ".." : "", local + cut,
             problem ? problem : sbxi_posix_words(error, words, sizeof(words)));
    for (at = err->message; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = ' ';
    return SBX_E_FILE;
}

static sbx_status sbxi_posix_fail_local(sbx_error *err)
{
    if (err) {
        sbxi_posix_clear(err, SBX_E_ARGUMENT);
        snprintf(err->field, sizeof(err->field), "local");
        snprintf(err->message, sizeof(err->message), "local must name a file");
    }
    return SBX_E_ARGUMENT;
}

static int sbxi_posix_progress(void *user, int64_t done, int64_t total)
{
    const sbx_file_options *options = ((const sbxi_posix_file *)user)->options;
    return options->progress(options->user, done, total);
}

/* The options for a transfer by our callbacks. */
static sbx_file_options sbxi_posix_file_options(sbxi_posix_file *file)
{
    sbx_file_options options;
    memset(&options, 0, sizeof(options));
    if (file->options) {
        options = *file->options;
        options.progress = options.progress ? sbxi_posix_progress : NULL;
    }
    options.user = file;
    return options;
}

/* After a call on a file failed: 1 if it is worth trying again, for it was interrupted, or somebody
   made the descriptor non-blocking; then this has waited. */
static int sbxi_posix_retry(int fd, short events)
{
    struct pollfd item;
    if (errno == EINTR)
        return 1;
    if (errno != EAGAIN && errno != EWOULDBLOCK)
        return 0;
    item.fd = fd;
    item.events = events;
    item.revents = 0;
    return poll(&item, 1, -1) >= 0 || errno == EINTR;
}

static int sbxi_posix_source(void *user, void *buf, size_t cap, size_t *n)
{
    sbxi_posix_file *file = (sbxi_posix_file *)user;
    ssize_t got;
    *n = 0;
    if (cap > SBXI_POSIX_IO_MAX)
        cap = SBXI_POSIX_IO_MAX;
    if (file->left >= 0 && (uint64_t)file->left < cap)
        cap = (size_t)file->left;
    if (cap == 0)
        return 0;
    do
        got = read(file->fd, buf, cap);
    while (got < 0 && sbxi_posix_retry(file->fd, POLLIN));
    if (got < 0)
        file->error = errno;
    else if (got == 0 && file->left > 0)
        file->problem = "it became shorter while it was sent";
    if (file->error || file->problem)
        return 1;
    if (file->left > 0)
        file->left -= got;
    *n = (size_t)got;
    return 0;
}

static int sbxi_posix_sink(void *user, const void *data, size_t len)
{
    sbxi_posix_file *file = (sbxi_posix_file *)user;
    const char *at = (const char *)data;
    while (len > 0) {
        ssize_t put = write(file->fd, at, len < SBXI_POSIX_IO_MAX ? len : SBXI_POSIX_IO_MAX);
        if (put < 0 && sbxi_posix_retry(file->fd, POLLOUT))
            continue;
        if (put < 0) {
            file->error = errno;
            return 1;
        }
        at += put;
        len -= (size_t)put;
    }
    return 0;
}

/* The descriptor that a name such as /dev/stdout stands for, else -1. Linux would open the file
   behind it anew, and at its start, where other systems duplicate the descriptor. */
static int sbxi_posix_named(const char *local)
{
    static const char *const names[] = {"/dev/stdin", "/dev/stdout", "/dev/stderr"};
    static const char directory[] = "/dev/fd/";
    const char *number = local + sizeof(directory) - 1;
    int i, fd = 0;
    for (i = 0; i < 3; i++)
        if (strcmp(local, names[i]) == 0)
            return i;
    if (strncmp(local, directory, sizeof(directory) - 1) != 0 || !*number)
        return -1;
    for (; *number; number++) {
        if (*number < '0' || *number > '9' || fd > 99999)
            return -1;
        fd = fd * 10 + (*number - '0');
    }
    return fd;
}

/* Opens what is not to be replaced. */
static int sbxi_posix_open_file(const char *local, int flags)
{
    int fd = sbxi_posix_named(local);
    if (fd >= 0)
        return fcntl(fd, F_DUPFD_CLOEXEC, 0);
    do
        fd = open(local, flags | O_CLOEXEC | O_NOCTTY);
    while (fd < 0 && errno == EINTR);
    return fd;
}

/* Finds out how many bytes there are to be read. Returns 0 or an errno. */
static int sbxi_posix_measure(sbxi_posix_file *file)
{
    struct stat st;
    off_t at;
    char byte;
    file->left = SBX_NONE;
    if (fstat(file->fd, &st) != 0)
        return errno;
    if (S_ISDIR(st.st_mode))
        return EISDIR;
    if (!S_ISREG(st.st_mode))
        return 0;
    at = lseek(file->fd, 0, SEEK_CUR);
    if (at < 0)
        return errno;
    file->left = st.st_size > at ? (int64_t)(st.st_size - at) : 0;
    /* Files in /proc say that they are empty when they are not. */
    if (file->left == 0 && pread(file->fd, &byte, 1, at) == 1)
        file->left = SBX_NONE;
    return 0;
}

SBX_API sbx_status sbx_posix_upload(const sbx_sandbox *sandbox, const char *path, const char *local,
                                    const sbx_file_options *options, sbx_error *err)
{
    sbxi_posix_file file;
    sbx_file_options inner;
    sbx_status st;
    memset(&file, 0, sizeof(file));
    file.options = options;
    if (!local || !*local)
        return sbxi_posix_fail_local(err);
    file.fd = sbxi_posix_open_file(local, O_RDONLY);
    if (file.fd < 0)
        return sbxi_posix_fail_file(err, "read", local, errno, NULL);
    file.error = sbxi_posix_measure(&file);
    st = SBX_E_FILE;
    if (!file.error) {
        inner = sbxi_posix_file_options(&file);
        st = sbx_write_from(sandbox, path, sbxi_posix_source, file.left, &inner, err);
    }
    if (st != SBX_OK && (file.error || file.problem))
        st = sbxi_posix_fail_file(err, "read", local, file.error, file.problem);
    close(file.fd);
    return st;
}

/* Where a download goes. */
typedef struct sbxi_posix_target {
    int fd;
    int direct;                 /* 1: fd is the target, and there are no names */
    char name[SBXI_POSIX_PATH]; /* the file to be replaced or made */
    char part[SBXI_POSIX_PATH]; /* the new file beside it, which is to become name */
} sbxi_posix_target;

/* The length of a path up to its last slash. */
static size_t sbxi_posix_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* Sets target->name to what local is, or points to by symbolic links, be there such a file or not.
   Returns 0 or an errno. */
static int sbxi_posix_follow(sbxi_posix_target *target, const char *local)
{
    char link[SBXI_POSIX_PATH];
    size_t len = strlen(local), directory;
    int links;
    if (len >= sizeof(target->name))
        return ENAMETOOLONG;
    memcpy(target->name, local, len + 1);
    for (links = 0; links < 40; links++) {
        ssize_t n = readlink(target->name, link, sizeof(link));
        if (n < 0) /* EINVAL: not a link; ENOENT: nothing there yet */
            return errno == EINVAL || errno == ENOENT ? 0 : errno;
        directory = n > 0 && link[0] == '/' ? 0 : sbxi_posix_directory(target->name);
        if ((size_t)n >= sizeof(target->name) - directory)
            return ENAMETOOLONG;
        memcpy(target->name + directory, link, (size_t)n);
        target->name[directory + (size_t)n] = 0;
    }
    return ELOOP;
}

/* Makes a file beside target->name that nobody else has. Returns 0 or an errno. */
static int sbxi_posix_make_part(sbxi_posix_target *target, mode_t mode)
{
    size_t directory = sbxi_posix_directory(target->name), room, i;
    unsigned char random[8];
    char hex[2 * sizeof(random) + 1];
    int tries, error = EEXIST;
    if (target->name[directory] == 0)
        return EISDIR;
    memcpy(target->part, target->name, directory);
    room = sizeof(target->part) - directory;
    for (tries = 0; tries < 8 && error == EEXIST; tries++) {
        if (sbxi_posix_entropy(NULL, random, sizeof(random)) != SBX_OK)
            return EIO;
        for (i = 0; i < sizeof(random); i++)
            snprintf(hex + 2 * i, 3, "%02x", (unsigned)random[i]);
        if ((size_t)snprintf(target->part + directory, room, ".sbx-%s", hex) >= room)
            return ENAMETOOLONG;
        target->fd = open(target->part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        error = target->fd < 0 ? errno : 0;
    }
    return error;
}

/* Opens the target for a download. Returns 0, or an errno and there is nothing to be undone. */
static int sbxi_posix_open_target(sbxi_posix_target *target, const char *local)
{
    struct stat st;
    int exists = stat(local, &st) == 0, error;
    if (!exists && errno != ENOENT)
        return errno;
    if (exists && S_ISDIR(st.st_mode))
        return EISDIR;
    target->direct = exists && (!S_ISREG(st.st_mode) || sbxi_posix_named(local) >= 0);
    if (target->direct) {
        target->fd = sbxi_posix_open_file(local, O_WRONLY);
        return target->fd < 0 ? errno : 0;
    }
    /* Renaming would get round the write protection. */
    if (exists && access(local, W_OK) != 0)
        return errno;
    error = sbxi_posix_follow(target, local);
    if (!error)
        error = sbxi_posix_make_part(target, exists ? 0600 : 0666);
    if (!error && exists && fchmod(target->fd, st.st_mode & 0777) != 0) {
        error = errno;
        close(target->fd);
        unlink(target->part);
    }
    return error;
}

/* Closes the target; a new file gets its name if keep is 1, else it goes. Returns 0 or an errno. */
static int sbxi_posix_finish_target(sbxi_posix_target *target, int keep)
{
    int error = close(target->fd) != 0 && errno != EINTR ? errno : 0;
    if (target->direct)
        return error;
    if (keep && !error && rename(target->part, target->name) != 0)
        error = errno;
    if (error || !keep)
        unlink(target->part);
    return error;
}

SBX_API sbx_status sbx_posix_download(const sbx_sandbox *sandbox, const char *path,
                                      const char *local, const sbx_file_options *options,
                                      sbx_error *err)
{
    sbxi_posix_target target;
    sbxi_posix_file file;
    sbx_file_options inner;
    sbx_status st;
    int error;
    memset(&file, 0, sizeof(file));
    file.options = options;
    if (!local || !*local)
        return sbxi_posix_fail_local(err);
    error = sbxi_posix_open_target(&target, local);
    if (error)
        return sbxi_posix_fail_file(err, "write", local, error, NULL);
    file.fd = target.fd;
    inner = sbxi_posix_file_options(&file);
    st = sbx_read_to(sandbox, path, sbxi_posix_sink, &inner, err);
    error = sbxi_posix_finish_target(&target, st == SBX_OK);
    if (st == SBX_OK ? error : file.error)
        st = sbxi_posix_fail_file(err, "write", local, st == SBX_OK ? error : file.error, NULL);
    return st;
}
#endif

#endif
#endif /* SBX_POSIX_IMPLEMENTATION_DONE */
#endif /* SANDBOX_IMPLEMENTATION */
