/* Asynchronous creation: begin to make sandboxes, do something else, wait until they are ready. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

static sbx_status begin(sbx_client *client, const char *name, sbx_error *err)
{
    sbx_sandbox_options options = {0};
    sbx_sandbox *sandbox;
    sbx_status status;

    options.template_name = getenv("SANDBOX_TEMPLATE"); /* NULL: the service's default */
    options.name = name;
    options.no_wait = 1;
    status = sbx_sandbox_create(client, &options, &sandbox, err);
    if (status == SBX_OK)
        printf("%s\n", sandbox->status); /* provisioning: it cannot run anything yet */
    sbx_free(sandbox);
    return status;
}

static sbx_status hello(const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_result *result;
    sbx_status status = sbx_run(sandbox, "echo hello", NULL, &result, err);
    if (status == SBX_OK)
        printf("%s: %s", sandbox->status, result->out); /* ready: hello */
    sbx_free(result);
    return status;
}

/* The simple way. */
static sbx_status wait_for(sbx_client *client, const char *name, sbx_error *err)
{
    sbx_wait_options options = {0};
    sbx_sandbox *sandbox;
    sbx_status status;

    options.ready_timeout_ms = 120 * 1000;
    options.poll_interval_ms = 500;
    status = sbx_sandbox_wait(client, name, &options, &sandbox, err);
    if (status == SBX_OK)
        status = hello(sandbox, err);
    sbx_free(sandbox);
    return status;
}

/* Asking yourself, for more control. */
static sbx_status poll_for(sbx_client *client, const char *name, sbx_error *err)
{
    sbx_sandbox *sandbox;
    sbx_status status;
    sbx_state state = SBX_STATE_PROVISIONING;
    int tries;

    for (tries = 0; state != SBX_STATE_READY && tries < 120; tries++) {
        sbx_sandbox_status *now;
        if (tries > 0)
            sleep(1);
        status = sbx_sandbox_get_status(client, name, NULL, &now, err);
        if (status != SBX_OK)
            return status;
        state = now->state;
        if (state == SBX_STATE_FAILED)
            printf("failed: %s\n", now->status_message);
        sbx_free(now);
        if (state == SBX_STATE_FAILED)
            break;
    }
    /* If it is still not ready, the run will say so. */
    status = sbx_sandbox_get(client, name, NULL, &sandbox, err);
    if (status == SBX_OK)
        status = hello(sandbox, err);
    sbx_free(sandbox);
    return status;
}

static sbx_status body(sbx_client *client, sbx_error *err)
{
    sbx_status status;
    char first[64], second[64];

    own_name(first, sizeof(first), "first");
    own_name(second, sizeof(second), "second");
    status = begin(client, first, err);
    if (status == SBX_OK)
        status = begin(client, second, err);
    if (status == SBX_OK)
        status = wait_for(client, first, err);
    if (status == SBX_OK)
        status = poll_for(client, second, err);
    /* Whatever happened. A sandbox that was never made is no loss. */
    sbx_sandbox_delete(client, first, NULL, NULL);
    sbx_sandbox_delete(client, second, NULL, NULL);
    return status;
}

int main(void)
{
    return with_client(body);
}
