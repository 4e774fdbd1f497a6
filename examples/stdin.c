/* Standard input: answer what a command asks. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

static const char command[] = "python3 -c 'name = input(\"Name: \"); print(f\"Hello {name}\")'";

static sbx_status in_sandbox(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_run_options options = {0};
    sbx_command *handle;
    sbx_chunk chunk;
    sbx_status status;

    (void)user;
    options.timeout_ms = 30 * 1000;
    options.input = 1; /* without it, stdin is at its end from the start */
    options.call.cancel = &interrupted;
    status = sbx_command_start(sandbox, command, &options, &handle, err);
    while (status == SBX_OK &&
           (status = sbx_command_next(handle, &chunk, SBX_NONE, err)) == SBX_OK) {
        print_chunk(&chunk);
        if (chunk_has(&chunk, "Name:"))
            status = sbx_command_input(handle, "World\n", 6, err);
    }
    sbx_command_free(handle);
    return status == SBX_END ? SBX_OK : status;
}

static sbx_status body(sbx_client *client, sbx_error *err)
{
    return with_sandbox(client, NULL, in_sandbox, err);
}

int main(void)
{
    return with_client(body);
}
