/* How long commands and what is known of them live. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

/* Starts a command, waits for its first output, and lets go of it. Gives its id. */
static sbx_status start(const sbx_sandbox *sandbox, const char *command, sbx_run_options options,
                        char id[132], sbx_error *err)
{
    sbx_command *handle;
    sbx_chunk chunk;
    sbx_status status;

    options.call.cancel = &interrupted;
    status = sbx_command_start(sandbox, command, &options, &handle, err);
    if (status == SBX_OK)
        status = sbx_command_next(handle, &chunk, SBX_NONE, err);
    if (handle)
        snprintf(id, 132, "%s", sbx_command_id(handle));
    sbx_command_free(handle);
    return status;
}

/* Attaches to it again and says what became of it. */
static sbx_status ask(const sbx_sandbox *sandbox, const char *id, const char *what, sbx_error *err)
{
    sbx_command *handle;
    sbx_result *result = NULL;
    sbx_status status = sbx_command_attach(sandbox, id, NULL, &handle, err);
    if (status == SBX_OK)
        status = sbx_command_result(handle, &result, err);
    if (status == SBX_OK)
        printf("%s: exit code %d\n", what, result->exit_code);
    else if (status == SBX_E_OPERATION && strcmp(err->error_type, "SessionExpired") == 0)
        printf("%s: it is forgotten\n", what);
    sbx_free(result);
    sbx_command_free(handle);
    return status == SBX_E_OPERATION ? SBX_OK : status;
}

static sbx_status in_sandbox(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_run_options kept = {0}, soon = {0}, unattended = {0}, tied = {0}, forever = {0};
    char id[5][132];
    sbx_status status;

    (void)user;
    /* After its end a command is remembered for ttl_ms, 10 minutes unless you say otherwise. */
    soon.ttl_ms = 1000;
    /* A running command that nobody is connected to is killed after idle_timeout_ms, 5 minutes. */
    unattended.timeout_ms = SBX_NONE;
    unattended.idle_timeout_ms = 1000;
    /* Or as soon as the last client goes. */
    tied.kill_on_disconnect = 1;
    /* All can be combined: this one would run, and be known, until the sandbox is deleted. */
    forever.timeout_ms = SBX_NONE;
    forever.idle_timeout_ms = SBX_NONE;
    forever.ttl_ms = SBX_NONE;

    status = start(sandbox, "echo made; exit 3", kept, id[0], err);
    if (status == SBX_OK)
        status = start(sandbox, "echo made", soon, id[1], err);
    if (status == SBX_OK)
        status = start(sandbox, "echo up; sleep 1000", unattended, id[2], err);
    if (status == SBX_OK)
        status = start(sandbox, "echo up; sleep 1000", tied, id[3], err);
    if (status == SBX_OK)
        status = start(sandbox, "echo up; sleep 4; exit 5", forever, id[4], err);
    sleep(3); /* some program that does other things */
    if (status == SBX_OK)
        status = ask(sandbox, id[0], "within its TTL", err);
    if (status == SBX_OK)
        status = ask(sandbox, id[1], "after its TTL", err);
    if (status == SBX_OK)
        status = ask(sandbox, id[2], "idle for too long", err);
    if (status == SBX_OK)
        status = ask(sandbox, id[3], "killed on disconnect", err);
    if (status == SBX_OK)
        status = ask(sandbox, id[4], "never idle", err);
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
