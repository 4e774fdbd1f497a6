/* Configuration: from the environment, or explicit. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include <stdio.h>
#include <stdlib.h>

/* Opens a client, asks it for the list of sandboxes and says whether that worked. */
static sbx_status try_config(const char *what, const sbx_config *config, sbx_error *err)
{
    sbx_client *client;
    sbx_sandboxes *list;
    sbx_call call = {0};
    sbx_status status = sbx_open(config, &client, err);
    if (status != SBX_OK)
        return status;
    call.timeout_ms = 60 * 1000; /* for this one call with all its attempts */
    status = sbx_sandbox_list(client, &call, &list, err);
    if (status == SBX_OK)
        printf("%s: the service answers\n", what);
    sbx_free(list);
    sbx_close(client);
    return status;
}

/* LANGSMITH_ENDPOINT, with /v2/sandboxes appended, and LANGSMITH_API_KEY. */
static sbx_status from_environment(sbx_error *err)
{
    sbx_config config = {0}; /* zero means default */
    config.transport = sbx_posix();
    return try_config("from the environment", &config, err);
}

static void print_log(void *user, int level, const char *line)
{
    if (level <= SBX_LOG_INFO)
        fprintf((FILE *)user, "log: %s\n", line);
}

static sbx_status all_explicit(const char *endpoint, const char *api_key, sbx_error *err)
{
    static const char *const headers[] = {"X-Example: configuration", NULL};
    sbx_config config = {0};
    config.transport = sbx_posix();
    config.endpoint =
        endpoint; /* "https://api.smith.langchain.com/v2/sandboxes": nothing is appended */
    config.api_key = api_key;
    config.headers = headers;      /* sent with every request */
    config.timeout_ms = 30 * 1000; /* for each request; commands have limits of their own */
    config.max_retries = 5;
    config.log = print_log;
    config.log_user = stderr;
    return try_config("explicit", &config, err);
}

int main(void)
{
    sbx_error err;
    sbx_status status = from_environment(&err);
    if (status == SBX_OK) {
        /* Your program has its own values; this one has to find a service wherever it runs. */
        const char *origin = getenv("LANGSMITH_ENDPOINT");
        char endpoint[1024];
        snprintf(endpoint, sizeof(endpoint), "%s/v2/sandboxes",
                 origin ? origin : "https://api.smith.langchain.com");
        status = all_explicit(endpoint, getenv("LANGSMITH_API_KEY"), &err);
    }
    if (status != SBX_OK)
        fprintf(stderr, "configuration: %s\n", err.message);
    return status == SBX_OK ? 0 : 1;
}
