/* Reads one response head of 394 bytes and 10 headers COUNT times, with every event looked at.

       bench/http1 ours COUNT

   Prints how many bytes of names and values were seen, so that the work cannot be left out. For the
   cost of COUNT heads without what starts a program, count the instructions of COUNT and of twice as
   many: the difference. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char head[] = "HTTP/1.1 200 OK\r\n"
                           "Date: Mon, 23 Nov 2026 12:34:56 GMT\r\n"
                           "Content-Type: application/json; charset=utf-8\r\n"
                           "Content-Length: 0\r\n"
                           "Connection: keep-alive\r\n"
                           "Server: nginx/1.27\r\n"
                           "X-Request-Id: 0193586f-2b7e-7c4a-9f1d-5e8a60c3b714\r\n"
                           "X-RateLimit-Remaining: 1999\r\n"
                           "Cache-Control: no-cache, no-store, must-revalidate\r\n"
                           "Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n"
                           "Vary: Accept-Encoding, Origin\r\n"
                           "\r\n";

static size_t read_heads(long count)
{
    static char scratch[8192];
    sbx_http1 reader;
    sbx_http1_event event;
    size_t seen = 0, at, used;
    sbx_http1_init(&reader, SBX_HTTP1_RESPONSE, scratch, sizeof(scratch));
    while (count-- > 0) {
        at = 0;
        do {
            if (sbx_http1_read(&reader, head + at, sizeof(head) - 1 - at, &used, &event) !=
                SBX_OK) {
                fprintf(stderr, "bench/http1: %s\n", reader.problem);
                exit(1);
            }
            at += used;
            seen += event.name_len + event.value_len;
        } while (event.type != SBX_HTTP1_MESSAGE_END);
    }
    return seen;
}

int main(int argc, char **argv)
{
    if (argc != 3 || strcmp(argv[1], "ours") != 0) {
        fprintf(stderr, "usage: bench/http1 ours COUNT\n");
        return 2;
    }
    printf("%lu\n", (unsigned long)read_heads(atol(argv[2])));
    return 0;
}
