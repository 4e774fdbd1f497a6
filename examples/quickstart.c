/* Quick start: make a template, make a sandbox from it, run a command there, print what it said.

       cc -I. -Itransports examples/quickstart.c -o quickstart && ./quickstart

   It talks to LANGSMITH_ENDPOINT with LANGSMITH_API_KEY, both from the environment.

   Nothing that it made is left on the service, whatever fails: sbx_with_sandbox deletes the sandbox,
   use_template what it made itself. Ctrl-C is one more error. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static sbx_client *client;
static sbx_cancel cancel;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    sbx_cancel_set(client, &cancel);
}

static sbx_status run_command(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_run_options options = {0};
    sbx_result *result;
    sbx_status status;

    (void)user;
    options.call.cancel = &cancel;
    status = sbx_run(sandbox, "python3 -c 'print(2 + 2)'", &options, &result, err);
    if (status == SBX_OK) {
        printf("%s", result->out);                                          /* 4 */
        printf("success: %s\n", result->exit_code == 0 ? "true" : "false"); /* success: true */
        sbx_free(result);
    }
    return status;
}

/* template_name NULL is the service's default. */
static sbx_status use_sandbox(const char *template_name, sbx_error *err)
{
    sbx_sandbox_options options = {0};

    options.template_name = template_name;
    options.call.cancel = &cancel;
    return sbx_with_sandbox(client, &options, run_command, NULL, err);
}

static sbx_status use_template(const char *name, sbx_error *err)
{
    sbx_template_options options = {0};
    sbx_template *made = NULL;
    sbx_status status, deleted;

    options.name = name;
    options.image = "python:3.12-slim";
    options.call.cancel = &cancel;
    status = sbx_template_create(client, &options, &made, err);
    if (status != SBX_OK && err->http_status == 404) /* a service without templates */
        return use_sandbox(NULL, err);
    if (status == SBX_OK)
        status = use_sandbox(name, err);
    deleted = sbx_template_delete(client, name, NULL, status == SBX_OK ? err : NULL);
    sbx_free(made);
    return status == SBX_OK ? deleted : status;
}

int main(void)
{
    sbx_config config = {0};
    sbx_error err;
    sbx_status status;
    char name[64];

    config.transport = sbx_posix();
    status = sbx_open(&config, &client, &err);
    if (status == SBX_OK) {
        signal(SIGINT, on_interrupt);
        signal(SIGTERM, on_interrupt);
        /* A name of its own, so that this program can run twice at the same time. */
        snprintf(name, sizeof(name), "quickstart-%ld-%ld", (long)time(NULL), (long)getpid());
        status = use_template(name, &err);
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        sbx_close(client);
    }
    if (status != SBX_OK)
        fprintf(stderr, "quickstart: %s\n", err.message);
    return status == SBX_OK ? 0 : 1;
}
