/* Streaming with a command handle: start a command, take its output chunk by chunk at your own
   pace, then get the result. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

/* Stands for something long, such as `make build`. */
static const char command[] = "echo 'building'; sleep 0.3\n"
                              "echo 'no tests found' >&2; sleep 0.3\n"
                              "echo 'done'; exit 3\n";

static sbx_status follow(sbx_command *handle, sbx_error *err)
{
    sbx_chunk chunk;
    sbx_result *result;
    sbx_status status;

    printf("Command ID: %s\n", sbx_command_id(handle));
    for (;;) {
        status = sbx_command_next(handle, &chunk, 100, err); /* waits 100 ms at most */
        if (status == SBX_AGAIN)
            continue; /* nothing came: the place for whatever else your program does */
        if (status != SBX_OK)
            break;
        printf("[%s] %.*s", chunk.stream == SBX_STDOUT ? "OUT" : "ERR", (int)chunk.len, chunk.data);
        fflush(stdout);
    }
    if (status != SBX_END)
        return status;

    status = sbx_command_result(handle, &result, err);
    if (status != SBX_OK)
        return status;
    printf("Exit code: %d\n", result->exit_code);
    /* The result has all the output, also what was taken as chunks. */
    printf("Collected: %lu bytes of stdout, %lu of stderr\n", (unsigned long)result->out_len,
           (unsigned long)result->err_len);
    sbx_free(result);
    return SBX_OK;
}

static sbx_status in_sandbox(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_run_options options = {0};
    sbx_command *handle;
    sbx_status status;

    (void)user;
    options.timeout_ms = 600 * 1000;
    options.call.cancel = &interrupted;
    status = sbx_command_start(sandbox, command, &options, &handle, err); /* does not wait */
    if (status == SBX_OK) {
        status = follow(handle, err);
        sbx_command_free(handle);
    }
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
