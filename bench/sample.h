/* The text that all the benches read and write: the same in every run. */
#ifndef BENCH_SAMPLE_H
#define BENCH_SAMPLE_H

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* What a build prints: paths and numbers, quotes, tabs, ANSI colours, now and then a character that
   is not ASCII. In 100 bytes of it about 4 need an escape in JSON and 3 are not ASCII. */
static const char *const bench_log[] = {
    "\x1b[32m\xe2\x9c\x93\x1b[0m test_parses_nested_lists (0.013s)\n",
    "[ 42%] Building C object src/CMakeFiles/core.dir/parser/tokenizer.c.o\n",
    "src/parser/tokenizer.c:218:17: warning: unused variable \"next\" [-Wunused-variable]\n",
    "npm WARN deprecated har-validator@5.1.5: this library is no longer supported\n",
    "\tat Object.<anonymous> (/app/node_modules/jest-runtime/build/index.js:1343:25)\n",
    "Downloading numpy-1.26.4-cp312-manylinux_2_17_x86_64.whl (18.0 MB)\n",
    "   \xe2\x94\x94\xe2\x94\x80\xe2\x94\x80 r\xc3\xa9sum\xc3\xa9.txt \xe2\x86\x92 "
    "/tmp/out/r\xc3\xa9sum\xc3\xa9.pdf\n",
    "{\"level\":\"info\",\"msg\":\"connected\",\"peer\":\"10.0.3.17:5432\"}\n",
    "2024-05-01T12:34:56.789Z INFO  worker[3] processed 1024 rows in 87 ms\n",
    "ok  \tgithub.com/example/project/internal/store\t0.412s\tcoverage: 81.4% of statements\n",
};

/* Text in which no character is ASCII but the spaces. */
static const char bench_dense[] =
    "\xe6\x9e\x84\xe5\xbb\xba\xe5\xae\x8c\xe6\x88\x90 "
    "\xd1\x81\xd0\xb1\xd0\xbe\xd1\x80\xd0\xba\xd0\xb0 "
    "\xe3\x83\x93\xe3\x83\xab\xe3\x83\x89 \xf0\x9f\x9a\x80\xf0\x9f\x91\x8d ";

/* Fills text[len] with the lines over and over. At the end, spaces stand for what is left of a
   character. */
static void bench_repeat(char *text, size_t len, const char *const *lines, size_t count)
{
    size_t at = 0, line, n, cut = len;
    for (line = 0; at < len; line = (line + 1) % count) {
        n = strlen(lines[line]);
        if (n > len - at) {
            n = len - at;
            while (cut > at && ((unsigned char)lines[line][cut - at] & 0xc0) == 0x80)
                cut--;
        }
        memcpy(text + at, lines[line], n);
        at += n;
    }
    memset(text + cut, ' ', len - cut);
}

/* Fills text[len] with a build's log. */
static void bench_fill_log(char *text, size_t len)
{
    bench_repeat(text, len, bench_log, sizeof(bench_log) / sizeof(*bench_log));
}

/* The same with other scripts. */
static void bench_fill_dense(char *text, size_t len)
{
    const char *line = bench_dense;
    bench_repeat(text, len, &line, 1);
}

/* The shortest message that bench_fill_message can make. */
#define BENCH_MESSAGE_MIN 48

/* Fills json[size] with a message as it comes from the service, in which the data is the log;
   spaces stand for what does not fit. */
static void bench_fill_message(char *json, size_t size)
{
    static const char head[] = "{\"type\":\"stdout\",\"data\":\"", tail[] = "\",\"offset\":123456}";
    size_t at = sizeof(head) - 1, end = size - (sizeof(tail) - 1), len, n;
    const char *p = bench_log[0];
    size_t line = 0;
    memset(json, ' ', size);
    memcpy(json, head, at);
    for (;; p += len) {
        char text[8];
        if (*p == 0) {
            line = (line + 1) % (sizeof(bench_log) / sizeof(*bench_log));
            p = bench_log[line];
        }
        for (len = 1; ((unsigned char)p[len] & 0xc0) == 0x80;)
            len++;
        if (*p == '\n' || *p == '\t' || *p == '"' || *p == '\\')
            n = (size_t)snprintf(text, sizeof(text), "\\%c",
                                 *p == '\n'   ? 'n'
                                 : *p == '\t' ? 't'
                                              : *p);
        else if ((unsigned char)*p < 0x20)
            n = (size_t)snprintf(text, sizeof(text), "\\u%04x", (unsigned)*p);
        else
            n = (size_t)snprintf(text, sizeof(text), "%.*s", (int)len, p);
        if (n > end - at)
            break;
        memcpy(json + at, text, n);
        at += n;
    }
    memcpy(json + end, tail, sizeof(tail) - 1);
}

/* The same as the log, with a full stop for each byte that is not ASCII. */
static void bench_fill_ascii(char *text, size_t len)
{
    size_t i;
    bench_fill_log(text, len);
    for (i = 0; i < len; i++) {
        if ((unsigned char)text[i] >= 0x80)
            text[i] = '.';
    }
}

#endif
