/* Reconnecting. A handle repairs a lost connection by itself: there is nothing to write for that.
   What this shows is going on with a command in another handle, as another process would that was
   told the id, and perhaps how far the output was read. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

/* All that has to be remembered, in a file perhaps. */
typedef struct position {
    char id[132];
    uint64_t out_offset, err_offset;
} position;

static sbx_status start_and_leave(const sbx_sandbox *sandbox, position *where, sbx_error *err)
{
    sbx_run_options options = {0};
    sbx_command *handle;
    sbx_chunk chunk;
    sbx_status status;

    options.timeout_ms = 600 * 1000;
    options.call.cancel = &interrupted;
    status = sbx_command_start(sandbox, "for i in 1 2 3 4; do echo line $i; sleep 0.3; done",
                               &options, &handle, err);
    if (status != SBX_OK)
        return status;
    status = sbx_command_next(handle, &chunk, SBX_NONE, err);
    if (status == SBX_OK)
        print_chunk(&chunk);
    snprintf(where->id, sizeof(where->id), "%s", sbx_command_id(handle));
    where->out_offset = sbx_command_offset(handle, SBX_STDOUT);
    where->err_offset = sbx_command_offset(handle, SBX_STDERR);
    sbx_command_free(handle); /* lets go: the command runs on */
    return status;
}

static sbx_status go_on(const sbx_sandbox *sandbox, const position *where, sbx_error *err)
{
    sbx_attach_options options = {0};
    sbx_command *handle;
    sbx_chunk chunk;
    sbx_status status;

    options.out_offset = where->out_offset; /* 0 would give all that the service still has */
    options.err_offset = where->err_offset;
    options.call.cancel = &interrupted;
    status = sbx_command_attach(sandbox, where->id, &options, &handle, err);
    while (status == SBX_OK && (status = sbx_command_next(handle, &chunk, SBX_NONE, err)) == SBX_OK)
        print_chunk(&chunk);
    sbx_command_free(handle);
    return status == SBX_END ? SBX_OK : status;
}

static sbx_status in_sandbox(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    position where;
    sbx_status status = start_and_leave(sandbox, &where, err);
    (void)user;
    if (status == SBX_OK) {
        printf("-- another handle --\n");
        status = go_on(sandbox, &where, err);
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
