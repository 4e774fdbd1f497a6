/* A pseudo-terminal: an interactive program, and commands that want one. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

/* Reads on until the prompt of Python comes. SBX_END: the program has ended. */
static sbx_status until_prompt(sbx_command *handle, sbx_error *err)
{
    sbx_chunk chunk;
    sbx_status status;
    while ((status = sbx_command_next(handle, &chunk, SBX_NONE, err)) == SBX_OK) {
        print_chunk(&chunk);
        if (chunk_has(&chunk, ">>>"))
            break;
    }
    return status;
}

static sbx_status talk_to_python(const sbx_sandbox *sandbox, sbx_error *err)
{
    static const char *const lines[] = {"print('hello')\n", "exit()\n"};
    sbx_run_options options = {0};
    sbx_command *handle;
    sbx_status status;
    size_t i;

    options.pty = 1;
    options.call.cancel = &interrupted;
    status = sbx_command_start(sandbox, "python3 -q", &options, &handle, err);
    if (status == SBX_OK)
        status = sbx_command_resize(handle, 100, 30, err);
    for (i = 0; i < 2 && status == SBX_OK; i++) {
        status = until_prompt(handle, err);
        if (status == SBX_OK)
            status = sbx_command_input(handle, lines[i], strlen(lines[i]), err);
    }
    if (status == SBX_OK)
        status = until_prompt(handle, err);
    sbx_command_free(handle);
    return status == SBX_END ? SBX_OK : status;
}

static sbx_status in_sandbox(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_run_options options = {0};
    sbx_result *result;
    sbx_status status = talk_to_python(sandbox, err);

    (void)user;
    if (status != SBX_OK)
        return status;
    options.pty = 1;
    options.call.cancel = &interrupted;
    status = sbx_run(sandbox, "test -t 0 && test -t 1 && echo this is a terminal", &options,
                     &result, err);
    if (status == SBX_OK)
        printf("%s", result->out);
    sbx_free(result);
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
