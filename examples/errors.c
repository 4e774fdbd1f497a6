/* Error handling: what a failed call says, and how to tell the kinds apart.

   Every call returns a status, and describes a failure in an sbx_error: a sentence for people, and
   fields for programs. A status belongs to a family, so that you can be as exact as you need. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

#include <string.h>

/* The counterpart of a list of `except` clauses: exact statuses first, then families. */
static void explain(const sbx_error *err)
{
    if (err->status == SBX_E_COMMAND_TIMEOUT)
        printf("Command timed out: %s\n", err->message);
    else if (err->status == SBX_E_CREATION)
        printf("%s creation failed (%s): %s\n", err->resource_type, err->error_type, err->message);
    else if (err->status == SBX_E_NOT_FOUND)
        printf("%s not found: %s\n", err->resource_type, err->message);
    else if (err->status == SBX_E_RESOURCE_TIMEOUT)
        printf("Timeout waiting for %s: %s\n", err->resource_type, err->message);
    else if (err->status == SBX_E_ARGUMENT)
        printf("Wrong argument %s: %s\n", err->field, err->message);
    else if (sbx_status_is(err->status, SBX_E_OPERATION))
        printf("Operation %s failed: %s\n", err->operation, err->message);
    else if (sbx_status_is(err->status, SBX_E_CONNECTION))
        printf("Connection error: %s\n", err->message);
    else if (sbx_status_is(err->status, SBX_E_SERVICE))
        printf("The service says (HTTP %d): %s\n", err->http_status, err->message);
    else
        printf("%s: %s\n", sbx_status_name(err->status), err->message);
}

/* The calls that follow are meant to fail, each in its way. The functions return 1 if they do. */

static int command_takes_too_long(const sbx_sandbox *sandbox)
{
    sbx_run_options options = {0};
    sbx_result *result; /* NULL after a failure, so freeing it is fine */
    sbx_error err;
    options.timeout_ms = 1000;
    sbx_run(sandbox, "sleep 999", &options, &result, &err);
    explain(&err);
    sbx_free(result);
    return err.status == SBX_E_COMMAND_TIMEOUT && sbx_status_is(err.status, SBX_E_OPERATION);
}

static int file_is_missing(const sbx_sandbox *sandbox)
{
    sbx_bytes *content;
    sbx_error err;
    sbx_read(sandbox, "/tmp/no-such-file", NULL, &content, &err);
    explain(&err);
    sbx_free(content);
    return err.status == SBX_E_NOT_FOUND && strcmp(err.resource_type, "file") == 0;
}

static int sandbox_is_missing(sbx_client *client)
{
    sbx_sandbox *sandbox;
    sbx_error err;
    sbx_sandbox_get(client, "no-such-sandbox", NULL, &sandbox, &err);
    explain(&err);
    sbx_free(sandbox);
    return err.status == SBX_E_NOT_FOUND && strcmp(err.resource_type, "sandbox") == 0;
}

static int argument_is_wrong(sbx_client *client)
{
    sbx_sandbox *sandbox;
    sbx_error err;
    sbx_sandbox_get(client, "", NULL, &sandbox, &err); /* found out before anything is sent */
    explain(&err);
    sbx_free(sandbox);
    return err.status == SBX_E_ARGUMENT && err.attempts == 0;
}

static int nobody_listens(void)
{
    sbx_config config = {0};
    sbx_client *client;
    sbx_sandboxes *list;
    sbx_error err;

    config.transport = sbx_posix();
    config.endpoint = "http://127.0.0.1:1/v2/sandboxes";
    config.max_retries = SBX_NONE; /* failures to connect are tried again otherwise */
    if (sbx_open(&config, &client, &err) != SBX_OK)
        return 0;
    sbx_sandbox_list(client, NULL, &list, &err);
    explain(&err);
    sbx_free(list);
    sbx_close(client);
    return sbx_status_is(err.status, SBX_E_CONNECTION);
}

static sbx_status in_sandbox(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    int expected = command_takes_too_long(sandbox);
    (void)user;
    expected &= file_is_missing(sandbox);
    expected &= sandbox_is_missing(sandbox->client);
    expected &= argument_is_wrong(sandbox->client);
    expected &= nobody_listens();
    if (!expected)
        printf("One of these is not the error that it should be.\n");
    (void)err;
    return SBX_OK;
}

static sbx_status body(sbx_client *client, sbx_error *err)
{
    return with_sandbox(client, NULL, in_sandbox, err);
}

int main(void)
{
    return with_client(body);
}
