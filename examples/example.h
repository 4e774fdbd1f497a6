/* example: what these programs have in common: a client, the end by Ctrl-C, names of their own. For
   you to copy too. Include it after sandbox.h and a transport. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Calls that should end on Ctrl-C have call.cancel = &interrupted. */
static sbx_cancel interrupted;
static sbx_client *interrupted_client;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    sbx_cancel_set(interrupted_client, &interrupted);
}

/* A name that nothing else has, so that a program can run twice at the same time. */
static inline void own_name(char *out, size_t cap, const char *name)
{
    snprintf(out, cap, "%s-%ld-%ld", name, (long)time(NULL), (long)getpid());
}

/* 1 if the text is in this piece of output. (It could also be divided between two.) */
static inline int chunk_has(const sbx_chunk *chunk, const char *text)
{
    size_t len = strlen(text), i;
    for (i = 0; i + len <= chunk->len; i++)
        if (memcmp(chunk->data + i, text, len) == 0)
            return 1;
    return 0;
}

static inline void print_chunk(const sbx_chunk *chunk)
{
    fwrite(chunk->data, 1, chunk->len, chunk->stream == SBX_STDERR ? stderr : stdout);
    fflush(stdout);
}

/* All of a main function: calls body with a client, and returns the exit code. */
static int with_client(sbx_status (*body)(sbx_client *client, sbx_error *err))
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
        status = body(client, &err);
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        sbx_close(client);
    }
    if (status != SBX_OK)
        fprintf(stderr, "%s: %s\n", sbx_status_name(status), err.message);
    return status == SBX_OK ? 0 : 1;
}

/* Calls body with a sandbox, which is deleted afterwards. template_name NULL: the one that
   SANDBOX_TEMPLATE names, else the service's default. */
static inline sbx_status with_sandbox(sbx_client *client, const char *template_name,
                                      sbx_sandbox_fn body, sbx_error *err)
{
    sbx_sandbox_options options = {0};

    options.template_name = template_name ? template_name : getenv("SANDBOX_TEMPLATE");
    options.call.cancel = &interrupted;
    return sbx_with_sandbox(client, &options, body, NULL, err);
}
