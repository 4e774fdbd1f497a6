/* progress: how far a transfer is, as one line that is drawn over and over.

       model.bin   45 % [#########...........]  12.3 MiB of 27.1 MiB   4.5 MiB/s  0:03

   It needs no more of the terminal than that a carriage return goes back to the start of a line. */
#include "sbx.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { REDRAW_MS = 100, LINE_MAX_BYTES = 1024, BAR = 20 };

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void progress_begin(progress *p, const char *label, int quiet)
{
    struct winsize size;
    memset(p, 0, sizeof(*p));
    p->on = !quiet && isatty(STDERR_FILENO);
    p->columns = 80;
    if (p->on && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        p->columns = size.ws_col;
    if (p->columns > 200)
        p->columns = 200;
    p->label_len = printable(label, p->label, sizeof(p->label));
    p->started_ms = now_ms();
    p->drawn_ms = p->started_ms - REDRAW_MS;
}

static void format_size(char out[24], double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t unit = 0;
    while (bytes >= 1000 && unit + 1 < sizeof(units) / sizeof(*units)) {
        bytes /= 1024;
        unit++;
    }
    snprintf(out, 24, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
}

/* The right part of the line, in ASCII: as much of it as fits into columns. */
static int format_figures(char *out, size_t cap, const progress *p, int64_t done, int64_t total,
                          int columns)
{
    char size[24], whole[24], rate[24], bar[BAR + 1], left[32] = "";
    double seconds = (double)(now_ms() - p->started_ms) / 1000;
    double speed = seconds > 0.05 ? (double)done / seconds : 0;
    int n, filled, percent;

    format_size(size, (double)done);
    format_size(rate, speed);
    if (total <= 0) {
        n = snprintf(out, cap, "%10s  %10s/s", size, rate);
        return n <= columns ? n : snprintf(out, cap, "%s", size);
    }
    format_size(whole, (double)total);
    percent = (int)((double)done * 100 / (double)total);
    filled = (int)((double)done * BAR / (double)total);
    memset(bar, '.', BAR);
    memset(bar, '#', (size_t)(filled < BAR ? filled : BAR));
    bar[BAR] = 0;
    if (speed > 0 && (double)(total - done) / speed < 360000) {
        int s = (int)((double)(total - done) / speed + 0.5);
        snprintf(left, sizeof(left), "%d:%02d", s / 60, s % 60);
    }
    n = snprintf(out, cap, "%3d %% [%s] %10s of %s  %10s/s  %s", percent, bar, size, whole, rate,
                 left);
    if (n > columns)
        n = snprintf(out, cap, "%3d %% [%s] %10s of %s", percent, bar, size, whole);
    if (n > columns)
        n = snprintf(out, cap, "%3d %% %10s", percent, size);
    return n <= columns ? n : snprintf(out, cap, "%3d %%", percent);
}

/* Copies at most columns characters of label and fills up with spaces. Returns the bytes. */
static size_t fit_label(char *out, const progress *p, size_t columns)
{
    size_t at = 0, characters = 0;
    while (p->label[at]) {
        if (((unsigned char)p->label[at] & 0xc0) != 0x80 && characters++ == columns)
            break;
        out[at] = p->label[at];
        at++;
    }
    for (characters = p->label_len; characters < columns; characters++)
        out[at++] = ' ';
    return at;
}

static void draw(progress *p, int64_t done, int64_t total)
{
    char line[LINE_MAX_BYTES], figures[256];
    /* One column stays free: some terminals wrap when the last one is written. */
    int width = p->columns > 10 ? p->columns - 1 : 10;
    int n = format_figures(figures, sizeof(figures), p, done, total, width);
    size_t at = 0;

    line[at++] = '\r';
    if (width - n > 4)
        at += fit_label(line + at, p, (size_t)(width - n - 2));
    if (at > 1) {
        line[at++] = ' ';
        line[at++] = ' ';
    }
    memcpy(line + at, figures, (size_t)n);
    fwrite(line, 1, at + (size_t)n, stderr);
    fflush(stderr);
    p->open = 1;
}

int progress_update(void *user, int64_t done, int64_t total)
{
    progress *p = (progress *)user;
    int64_t now = now_ms();
    if (p->on && (now - p->drawn_ms >= REDRAW_MS || done == total)) {
        draw(p, done, total);
        p->drawn_ms = now;
    }
    return 0;
}

void progress_end(progress *p, int failed)
{
    if (!p->open)
        return;
    if (failed)
        fprintf(stderr, "\r%*s\r", p->columns - 1, "");
    else
        fputc('\n', stderr);
    p->open = 0;
}
