/* A command without a time limit: run a server, do other work, stop it. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

static const char server[] = "echo 'Ready on port 8000'; exec sleep 1000000";

static sbx_status in_sandbox(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_run_options options = {0};
    sbx_command *handle;
    sbx_result *result = NULL;
    sbx_chunk chunk;
    sbx_status status;

    (void)user;
    options.timeout_ms = SBX_NONE;
    options.call.cancel = &interrupted;
    status = sbx_command_start(sandbox, server, &options, &handle, err);
    while (status == SBX_OK &&
           (status = sbx_command_next(handle, &chunk, SBX_NONE, err)) == SBX_OK) {
        print_chunk(&chunk);
        if (chunk_has(&chunk, "Ready"))
            break; /* it is up: do other work */
    }
    if (status == SBX_OK)
        status = sbx_run(sandbox, "echo other work", NULL, &result, err);
    if (status == SBX_OK)
        printf("%s", result->out);
    sbx_free(result);
    result = NULL;

    sbx_command_kill(handle); /* stop when done */
    if (status == SBX_OK)
        status = sbx_command_result(handle, &result, err);
    if (status == SBX_OK)
        printf("stopped: %s\n", result->exit_code != 0 ? "true" : "false");
    sbx_free(result);
    sbx_command_free(handle);
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
