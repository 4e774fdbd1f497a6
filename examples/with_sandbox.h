/* with_sandbox: the counterpart in C of Python's

       with client.sandbox(..) as sb:

   for the other examples, and for you to copy. It calls body with a sandbox that is ready, and
   deletes the sandbox afterwards: whatever body returned, also when the creation failed half-way,
   and after Ctrl-C if the calls in body have call.cancel = &interrupted.

   Include it after sandbox.h and a transport. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static sbx_cancel interrupted;
static sbx_client *interrupted_client;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    sbx_cancel_set(interrupted_client, &interrupted);
}

typedef sbx_status (*sandbox_body)(const sbx_sandbox *sandbox, sbx_error *err);

static sbx_status with_new_sandbox(sbx_client *client, sandbox_body body, sbx_error *err)
{
    sbx_sandbox_options options = {0};
    sbx_sandbox *sandbox = NULL;
    sbx_status status, deleted;
    char name[64];

    /* The template that the sandbox is made from; NULL is the service's default. */
    options.template_name = getenv("SANDBOX_TEMPLATE");
    /* A name of our own: it is known even if the answer to the creation gets lost. */
    snprintf(name, sizeof(name), "example-%ld-%ld", (long)time(NULL), (long)getpid());
    options.name = name;
    options.call.cancel = &interrupted;

    status = sbx_sandbox_create(client, &options, &sandbox, err);
    if (status == SBX_OK)
        status = body(sandbox, err);
    deleted = sbx_sandbox_delete(client, name, NULL, status == SBX_OK ? err : NULL);
    sbx_free(sandbox);
    return status == SBX_OK ? deleted : status;
}

/* All of a main function: returns its exit code. */
static int with_sandbox(sandbox_body body)
{
    sbx_config config = {0};
    sbx_client *client;
    sbx_error err;
    sbx_status status;

    config.transport = sbx_posix(); /* the endpoint and the key come from the environment */
    status = sbx_open(&config, &client, &err);
    if (status == SBX_OK) {
        interrupted_client = client;
        signal(SIGINT, on_interrupt);
        signal(SIGTERM, on_interrupt);
        status = with_new_sandbox(client, body, &err);
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        sbx_close(client);
    }
    if (status != SBX_OK)
        fprintf(stderr, "%s: %s\n", sbx_status_name(status), err.message);
    return status == SBX_OK ? 0 : 1;
}
