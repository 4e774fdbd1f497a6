/* Small things that everything uses: memory, random names, times, messages to the operator. */
#include "sandboxd.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void sd_log(const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    fprintf(stderr, "sandboxd: %s\n", line);
}

static void fail_memory(void)
{
    static const char text[] = "sandboxd: out of memory\n";
    ssize_t written = write(2, text, sizeof(text) - 1);
    (void)written;
    _exit(1);
}

void *sd_alloc(size_t size)
{
    void *p = calloc(1, size ? size : 1);
    if (!p)
        fail_memory();
    return p;
}

void *sd_grow(void *p, size_t size)
{
    p = realloc(p, size);
    if (!p)
        fail_memory();
    return p;
}

char *sd_copy(const char *text, size_t len)
{
    char *copy = (char *)sd_alloc(len + 1);
    memcpy(copy, text, len);
    return copy;
}

char *sd_text(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    int len;
    va_start(args, format);
    len = vasprintf(&text, format, args);
    va_end(args);
    if (len < 0)
        fail_memory();
    return text;
}

void sd_random(void *out, size_t len)
{
    unsigned char *at = (unsigned char *)out;
    while (len) {
        ssize_t n = getrandom(at, len, 0);
        if (n < 0 && errno != EINTR) {
            sd_log("the system has no random numbers: %s", strerror(errno));
            _exit(1);
        }
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
}

void sd_hex(char *out, const unsigned char *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    size_t i;
    for (i = 0; i < len; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * len] = 0;
}

void sd_uuid(char out[37])
{
    unsigned char bytes[16];
    char hex[33];
    sd_random(bytes, sizeof(bytes));
    bytes[6] = (unsigned char)(0x40 | (bytes[6] & 0x0f));
    bytes[8] = (unsigned char)(0x80 | (bytes[8] & 0x3f));
    sd_hex(hex, bytes, sizeof(bytes));
    snprintf(out, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

void sd_timestamp(char out[32])
{
    struct timespec now;
    struct tm tm;
    char seconds[20];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out, 32, "%s.%06uZ", seconds, (unsigned)now.tv_nsec / 1000 % 1000000);
}

/* By the system call itself: libc keeps two signals to itself, and whoever started sandboxd may have
   ignored those too. */
void sd_clean_signals(void)
{
    static const unsigned long by_default[8]; /* the kernel's struct sigaction, all zero: SIG_DFL */
    sigset_t none;
    int number;
    for (number = 1; number < NSIG; number++)
        syscall(SYS_rt_sigaction, number, by_default, NULL, (size_t)(NSIG - 1) / 8);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

int sd_number(const char *option, const char *text, long least, long most, long *number)
{
    char *end;
    errno = 0;
    *number = strtol(text, &end, 10);
    if (!errno && end != text && !*end && *number >= least && *number <= most)
        return 0;
    sd_log("--%s is a number from %ld to %ld, not %s", option, least, most, text);
    return -1;
}
