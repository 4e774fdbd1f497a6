/* File operations: from and to memory, and streamed through callbacks in constant memory. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

#include <string.h>

static sbx_status text_file(const sbx_sandbox *sandbox, sbx_error *err)
{
    static const char script[] = "print('Hello from file!')";
    sbx_result *result;
    sbx_bytes *content;
    sbx_status status;

    status = sbx_write(sandbox, "/tmp/script.py", script, strlen(script), NULL, err);
    if (status != SBX_OK)
        return status;
    status = sbx_run(sandbox, "python3 /tmp/script.py", NULL, &result, err);
    if (status != SBX_OK)
        return status;
    printf("%s", result->out); /* Hello from file! */
    sbx_free(result);

    status = sbx_read(sandbox, "/tmp/script.py", NULL, &content, err);
    if (status != SBX_OK)
        return status;
    printf("%s\n", content->data); /* print('Hello from file!') */
    sbx_free(content);
    return SBX_OK;
}

static sbx_status binary_file(const sbx_sandbox *sandbox, sbx_error *err)
{
    static const unsigned char bytes[] = {0x00, 0x01, 0x02, 0xff};
    sbx_bytes *content;
    sbx_status status;
    size_t i;

    status = sbx_write(sandbox, "/tmp/data.bin", bytes, sizeof(bytes), NULL, err);
    if (status != SBX_OK)
        return status;
    status = sbx_read(sandbox, "/tmp/data.bin", NULL, &content, err);
    if (status != SBX_OK)
        return status;
    printf("data.bin:");
    for (i = 0; i < content->len; i++)
        printf(" %02x", (unsigned char)content->data[i]); /* 00 01 02 ff */
    printf("\n");
    sbx_free(content);
    return SBX_OK;
}

/* A file that exists nowhere on this side: its lines are made when they are asked for. */
enum { LINES = 100000, LINE_SIZE = 12, FILE_SIZE = LINES * LINE_SIZE };

typedef struct transfer {
    int64_t sent;      /* how many bytes source has given */
    int64_t shown;     /* the last progress that was printed, in percent */
    int64_t received;  /* how many bytes sink has seen, */
    unsigned long sum; /* and their sum */
} transfer;

static int source(void *user, void *buf, size_t cap, size_t *n)
{
    transfer *t = (transfer *)user;
    char line[32];
    while (t->sent < FILE_SIZE && cap - *n >= LINE_SIZE) {
        snprintf(line, sizeof(line), "line %06ld\n", (long)(t->sent / LINE_SIZE));
        memcpy((char *)buf + *n, line, LINE_SIZE);
        *n += LINE_SIZE;
        t->sent += LINE_SIZE;
    }
    return 0; /* with *n still 0 it was the end; SBX_AGAIN would mean "nothing yet" */
}

static int progress(void *user, int64_t done, int64_t total)
{
    transfer *t = (transfer *)user;
    int64_t percent = total > 0 ? done * 100 / total : 0;
    if (percent / 25 > t->shown / 25) {
        printf("%d %%\n", (int)(percent / 25) * 25);
        t->shown = percent;
    }
    return 0; /* anything else ends the transfer */
}

static int sink(void *user, const void *data, size_t len)
{
    transfer *t = (transfer *)user;
    const unsigned char *bytes = (const unsigned char *)data;
    size_t i;
    for (i = 0; i < len; i++)
        t->sum += bytes[i];
    t->received += (int64_t)len;
    return 0;
}

static sbx_status streamed_file(const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_file_options options = {0};
    transfer t = {0};
    sbx_result *result;
    sbx_status status;

    options.user = &t;
    options.progress = progress;
    options.call.cancel = &interrupted;
    status = sbx_write_from(sandbox, "/tmp/lines", source, FILE_SIZE, &options, err);
    if (status != SBX_OK)
        return status;
    status = sbx_run(sandbox, "tail -n 1 /tmp/lines", NULL, &result, err);
    if (status != SBX_OK)
        return status;
    printf("last %s", result->out); /* last line 099999 */
    sbx_free(result);

    options.progress = NULL;
    status = sbx_read_to(sandbox, "/tmp/lines", sink, &options, err);
    if (status == SBX_OK)
        printf("%ld bytes came back, sum %lu\n", (long)t.received, t.sum);
    return status;
}

static sbx_status in_sandbox(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_status status = text_file(sandbox, err);
    (void)user;
    if (status == SBX_OK)
        status = binary_file(sandbox, err);
    if (status == SBX_OK)
        status = streamed_file(sandbox, err);
    return status;
}

static sbx_status body(sbx_client *client, sbx_error *err)
{
    return with_sandbox(client, NULL, in_sandbox, err);
}

int main(void)
{
    return with_client(body);
}
