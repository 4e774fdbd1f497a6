/* session: the client of this process, its signals, its messages, its input and output.

   A first SIGINT, SIGTERM or SIGHUP cancels the current call, and everything unwinds in good order:
   what was made is deleted. A second one cancels that too, unless it comes so soon that nobody can
   have meant that: some parents pass on a Ctrl-C that this process has had already.

   SIGPIPE is never raised: who writes sees EPIPE, and unwinds likewise. */
#define SANDBOX_IMPLEMENTATION
#include "sbx.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct {
    const subcommand *current;
    sbx_client *client;
    sbx_cancel cancel, cancel_cleanup;
    volatile sig_atomic_t signal_number;
    struct timespec signal_time;
    int signal_pipe[2]; /* readable for ever once a signal came */
    int verbose;
    int io_failed; /* an errno, already reported */
} session = {NULL, NULL, {0}, {0}, 0, {0, 0}, {-1, -1}, 0, 0};

/* ---- messages ---- */

static void print_message(const char *format, va_list args)
{
    /* One write for the whole line, so that it stays whole beside other programs' output. */
    char line[2048], clean[2048 + 64];
    vsnprintf(line, sizeof(line), format, args);
    printable(line, clean, sizeof(clean));
    if (session.current)
        snprintf(line, sizeof(line), "sbx: %s: ", session.current->name);
    else
        snprintf(line, sizeof(line), "sbx: ");
    /* In a terminal that was taken, a new line does not begin at the left by itself. */
    fprintf(stderr, "%s%s%s", line, clean, terminal_is_taken() ? "\r\n" : "\n");
}

void complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_message(format, args);
    va_end(args);
}

int usage_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_message(format, args);
    va_end(args);
    if (session.current)
        fprintf(stderr, "Try `sbx %s --help`.\n", session.current->name);
    else
        fprintf(stderr, "Try `sbx --help`.\n");
    return FAILURE;
}

int call_failed(const char *what, const sbx_error *err)
{
    int silent =
        (err->status == SBX_E_CANCELLED && session.signal_number != 0) ||
        (err->status == SBX_E_ABORTED && (session.signal_number != 0 || session.io_failed != 0));
    if (!silent)
        complain("%s%s%s", what ? what : "", what ? ": " : "", err->message);
    return FAILURE;
}

size_t printable(const char *text, char *out, size_t cap)
{
    const unsigned char *from = (const unsigned char *)text;
    size_t n = 0, characters = 0;
    for (; *from && n + 1 < cap; from++) {
        /* C0, DEL, and C1 in its two-byte form. */
        int control = *from < 0x20 || *from == 0x7f;
        if (from[0] == 0xc2 && from[1] >= 0x80 && from[1] < 0xa0) {
            control = 1;
            from++;
        }
        out[n++] = control ? '?' : (char)*from;
        characters += (*from & 0xc0) != 0x80 || control;
    }
    out[n] = 0;
    return characters;
}

static void print_log(void *user, int level, const char *line)
{
    (void)user;
    (void)level;
    complain("%s", line);
}

/* ---- the command line ---- */

void session_begin(const subcommand *current)
{
    session.current = current;
}

int common_option(int option)
{
    switch (option) {
    case 'h':
        fputs(session.current->help, stdout);
        return flush_stdout();
    case 'v':
        session.verbose = 1;
        return -1;
    case OPTION_ENDPOINT:
        if (setenv("LANGSMITH_ENDPOINT", optarg, 1) == 0)
            return -1;
        complain("--endpoint: %s", strerror(errno));
        return FAILURE;
    default: /* getopt_long has said what is wrong */
        fprintf(stderr, "Try `sbx %s --help`.\n", session.current->name);
        return FAILURE;
    }
}

int parse_seconds(const char *text, int64_t *ms)
{
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end || !(seconds >= 0 && seconds <= 1e9))
        return -1;
    *ms = (int64_t)(seconds * 1000);
    if (seconds > 0 && *ms == 0)
        *ms = 1;
    if (seconds <= 0)
        *ms = SBX_NONE;
    return 0;
}

/* ---- signals ---- */

enum { SAME_SIGNAL_MS = 500 };

static void on_signal(int number)
{
    int saved = errno;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (session.signal_number == 0) {
        session.signal_number = number;
        session.signal_time = now;
        sbx_cancel_set(session.client, &session.cancel);
        if (write(session.signal_pipe[1], "", 1) < 0)
            errno = 0; /* it is full: as good */
    } else if ((now.tv_sec - session.signal_time.tv_sec) * 1000 +
                   (now.tv_nsec - session.signal_time.tv_nsec) / 1000000 >=
               SAME_SIGNAL_MS) {
        sbx_cancel_set(session.client, &session.cancel_cleanup);
    }
    errno = saved;
}

static void listen_to_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action, old;
    size_t i;
    memset(&action, 0, sizeof(action));
    sigemptyset(&action.sa_mask);
    for (i = 0; i < sizeof(signals) / sizeof(*signals); i++)
        sigaddset(&action.sa_mask, signals[i]);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    /* Without SA_RESTART: a blocked read or write ends. */
    action.sa_handler = on_signal;
    for (i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
        /* What was ignored from the start, by nohup for example, stays so. */
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
}

static void block_signals(int block)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(block ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

int session_interrupted(void)
{
    return session.signal_number;
}

int session_signal_fd(void)
{
    return session.signal_pipe[0];
}

/* ---- the client ---- */

int session_open(void)
{
    sbx_config config;
    sbx_error err;
    int i;

    memset(&config, 0, sizeof(config));
    config.transport = sbx_posix();
    config.log = session.verbose ? print_log : NULL;
    if (sbx_open(&config, &session.client, &err) != SBX_OK)
        return call_failed(NULL, &err);
    if (pipe(session.signal_pipe) != 0) {
        complain("pipe: %s", strerror(errno));
        return session_close(FAILURE);
    }
    for (i = 0; i < 2; i++) {
        fcntl(session.signal_pipe[i], F_SETFD, FD_CLOEXEC);
        fcntl(session.signal_pipe[i], F_SETFL, O_NONBLOCK);
    }
    listen_to_signals();
    return 0;
}

int session_close(int code)
{
    /* From here on a signal has nothing left to cancel. */
    block_signals(1);
    sbx_close(session.client);
    session.client = NULL;
    if (session.io_failed == EPIPE)
        code = 128 + SIGPIPE;
    if (session.signal_number != 0)
        code = 128 + session.signal_number;
    return code;
}

sbx_client *session_client(void)
{
    return session.client;
}

sbx_call session_call(void)
{
    sbx_call call;
    memset(&call, 0, sizeof(call));
    call.cancel = &session.cancel;
    return call;
}

sbx_call session_cleanup_call(void)
{
    sbx_call call;
    memset(&call, 0, sizeof(call));
    call.cancel = &session.cancel_cleanup;
    call.timeout_ms = 20 * 1000;
    return call;
}

/* ---- input and output ---- */

/* Waits until fd is ready, at most timeout_ms, -1 for any time. 1: it is; 0: the time is up; -1: a
   signal came. */
static int wait_for(int fd, short events, int timeout_ms)
{
    struct pollfd fds[2];
    int n;
    fds[0].fd = fd;
    fds[0].events = events;
    fds[1].fd = session.signal_pipe[0];
    fds[1].events = POLLIN;
    while (session.signal_number == 0) {
        fds[0].revents = 0;
        fds[1].revents = 0;
        n = poll(fds, 2, timeout_ms);
        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return 1; /* then the read or write says what is wrong */
        if (n > 0 && fds[0].revents != 0)
            return 1;
    }
    return -1;
}

/* The longest write that does not block once poll says that fd is ready. */
static size_t write_unit(int fd)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return (size_t)1 << 20;
#ifdef PIPE_BUF
    return PIPE_BUF;
#else
    return 512;
#endif
}

static int output_failed(int fd, int code)
{
    session.io_failed = code;
    if (code != EPIPE)
        complain("cannot write to %s: %s", fd == STDERR_FILENO ? "stderr" : "stdout",
                 strerror(code));
    return -1;
}

int write_fully(int fd, const void *data, size_t len)
{
    static size_t unit[3];
    const char *from = (const char *)data;
    if (unit[fd] == 0)
        unit[fd] = write_unit(fd);
    while (len > 0) {
        ssize_t n;
        if (wait_for(fd, POLLOUT, -1) < 0)
            return -1;
        n = write(fd, from, len < unit[fd] ? len : unit[fd]);
        if (n < 0) {
            if (errno != EINTR && errno != EAGAIN)
                return output_failed(fd, errno);
            continue;
        }
        from += n;
        len -= (size_t)n;
    }
    return 0;
}

sbx_status read_some(int fd, void *buf, size_t cap, size_t *n)
{
    ssize_t got;
    int ready = wait_for(fd, POLLIN, 50);
    if (ready <= 0)
        return ready == 0 ? SBX_AGAIN : SBX_E_ABORTED;
    got = read(fd, buf, cap);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return SBX_AGAIN;
    if (got < 0) {
        session.io_failed = errno;
        complain("cannot read stdin: %s", strerror(errno));
        return SBX_E_ABORTED;
    }
    *n = (size_t)got;
    return SBX_OK;
}

int flush_stdout(void)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    output_failed(STDOUT_FILENO, errno);
    return FAILURE;
}

/* ---- temporary things ---- */

void unique_name(char out[64])
{
    unsigned char random[8];
    unsigned long long number = 0;
    size_t i;
    FILE *source = fopen("/dev/urandom", "rb");
    if (source) {
        if (fread(random, 1, sizeof(random), source) == sizeof(random))
            for (i = 0; i < sizeof(random); i++)
                number = number << 8 | random[i];
        fclose(source);
    }
    if (number == 0)
        number = (unsigned long long)time(NULL) << 24 ^ (unsigned long long)getpid();
    snprintf(out, 64, "sbx-%016llx", number);
}

int may_exist(const sbx_error *err)
{
    switch (err->status) {
    case SBX_OK:
    case SBX_E_CREATION: /* it may stay there as a failed one */
        return 1;
    case SBX_E_ARGUMENT: /* nothing was sent */
    case SBX_E_MEMORY:
    case SBX_E_RESOLVE:
    case SBX_E_CONNECT:
    case SBX_E_TLS:
        return 0;
    default: /* the service refused, unless it says that it took too long */
        return err->http_status < 400 || err->http_status >= 500 || err->http_status == 408;
    }
}

static void deletion_failed(const char *what, const char *name, const sbx_error *err)
{
    if (err->status != SBX_OK && err->status != SBX_E_NOT_FOUND)
        complain("the %s %s may be left behind: %s", what, name, err->message);
}

void delete_temporary_sandbox(const char *name)
{
    sbx_call call = session_cleanup_call();
    sbx_error err;
    sbx_sandbox_delete(session.client, name, &call, &err);
    deletion_failed("sandbox", name, &err);
}

void delete_temporary_template(const char *name)
{
    sbx_call call = session_cleanup_call();
    sbx_error err;
    sbx_template_delete(session.client, name, &call, &err);
    deletion_failed("template", name, &err);
}
