/* Three commands at once in an event loop of your own: here around poll(), in your program wherever
   it waits anyway. Nothing in this file blocks but that one poll(); also the sandbox is made and
   deleted by it. Every blocking function NAME of the library has such a NAME_start. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { COMMANDS = 3 };

static sbx_client *client;
static sbx_cancel cancel; /* set by Ctrl-C */

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    sbx_cancel_set(client, &cancel); /* and poll() returns */
}

/* Adds what op waits for to the arguments of poll(). */
static void watch(sbx_op *op, struct pollfd *fds, nfds_t *count, int *timeout_ms)
{
    sbx_item items[SBX_ITEMS];
    int64_t op_timeout_ms;
    int i, n = sbx_op_wants(op, items, SBX_ITEMS, &op_timeout_ms);
    for (i = 0; i < n; i++, (*count)++) {
        fds[*count].fd = (int)items[i].handle;
        fds[*count].events = 0;
        if (items[i].want & SBX_READ)
            fds[*count].events |= POLLIN;
        if (items[i].want & SBX_WRITE)
            fds[*count].events |= POLLOUT;
    }
    if (op_timeout_ms != SBX_NONE && (*timeout_ms < 0 || op_timeout_ms < *timeout_ms))
        *timeout_ms = (int)op_timeout_ms;
}

/* The loop: steps n operations until all are done, and frees them. err is the first error. */
static sbx_status loop(sbx_op **ops, int n, sbx_error *err)
{
    struct pollfd fds[COMMANDS * SBX_ITEMS];
    sbx_status result = SBX_OK;
    int i, left = n;

    while (left > 0) {
        nfds_t count = 0;
        int timeout_ms = -1;
        for (i = 0; i < n; i++) {
            sbx_status status;
            if (!ops[i])
                continue;
            status = sbx_op_step(ops[i], result == SBX_OK ? err : NULL);
            if (status == SBX_AGAIN) {
                watch(ops[i], fds, &count, &timeout_ms);
                continue;
            }
            if (result == SBX_OK)
                result = status;
            sbx_op_free(ops[i]);
            ops[i] = NULL;
            left--;
        }
        if (left > 0)
            poll(fds, count, timeout_ms);
    }
    return result;
}

/* Called from sbx_op_step. */
static int print_output(void *user, int stream, const char *data, size_t len)
{
    (void)stream;
    printf("command %d: %.*s", *(const int *)user, (int)len, data);
    fflush(stdout);
    return 0;
}

static sbx_status run_three(const sbx_sandbox *sandbox, sbx_error *err)
{
    static const char *const commands[COMMANDS] = {
        "for i in 1 2 3; do echo tick; sleep 0.4; done",
        "sleep 0.6; echo once",
        "sleep 1; echo last; exit 7",
    };
    static int numbers[COMMANDS] = {1, 2, 3};
    sbx_op *ops[COMMANDS] = {NULL, NULL, NULL};
    sbx_result *results[COMMANDS] = {NULL, NULL, NULL};
    sbx_status status = SBX_OK;
    int i;

    for (i = 0; i < COMMANDS && status == SBX_OK; i++) {
        sbx_run_options options = {0};
        options.on_output = print_output;
        options.user = &numbers[i];
        options.discard_output = 1;
        options.call.cancel = &cancel;
        status = sbx_run_start(sandbox, commands[i], &options, &results[i], &ops[i], err);
    }
    if (status == SBX_OK)
        status = loop(ops, COMMANDS, err);
    for (i = 0; i < COMMANDS; i++) {
        if (status == SBX_OK)
            printf("command %d ended with exit code %d\n", i + 1, results[i]->exit_code);
        sbx_op_free(ops[i]);
        sbx_free(results[i]);
    }
    return status;
}

static sbx_status use_sandbox(sbx_error *err)
{
    sbx_sandbox_options options = {0};
    sbx_sandbox *sandbox = NULL;
    sbx_op *op = NULL;
    sbx_error delete_err;
    sbx_status status, deleted;
    char name[64];

    snprintf(name, sizeof(name), "event-loop-%ld-%ld", (long)time(NULL), (long)getpid());
    options.name = name;
    options.template_name = getenv("SANDBOX_TEMPLATE"); /* NULL: the service's default */
    options.call.cancel = &cancel;
    status = sbx_sandbox_create_start(client, &options, &sandbox, &op, err);
    if (status == SBX_OK)
        status = loop(&op, 1, err);
    if (status == SBX_OK)
        status = run_three(sandbox, err);

    deleted = sbx_sandbox_delete_start(client, name, NULL, &op, &delete_err);
    if (deleted == SBX_OK)
        deleted = loop(&op, 1, &delete_err);
    if (status == SBX_OK && deleted != SBX_OK)
        *err = delete_err;
    sbx_free(sandbox);
    return status == SBX_OK ? deleted : status;
}

int main(void)
{
    sbx_config config = {0};
    sbx_error err;
    sbx_status status;

    config.transport = sbx_posix();
    status = sbx_open(&config, &client, &err);
    if (status == SBX_OK) {
        signal(SIGINT, on_interrupt);
        signal(SIGTERM, on_interrupt);
        status = use_sandbox(&err);
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        sbx_close(client);
    }
    if (status != SBX_OK)
        fprintf(stderr, "event_loop: %s\n", err.message);
    return status == SBX_OK ? 0 : 1;
}
