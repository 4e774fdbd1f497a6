/* Killing a running command, from another thread. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

#include <pthread.h>

static void *kill_after_a_second(void *handle)
{
    sleep(1);
    sbx_command_kill((sbx_command *)handle); /* a signal handler could do so too */
    return NULL;
}

static sbx_status in_sandbox(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_run_options options = {0};
    sbx_command *handle;
    sbx_result *result = NULL;
    sbx_status status;
    pthread_t thread;

    (void)user;
    options.timeout_ms = 7200 * 1000;
    options.call.cancel = &interrupted;
    status = sbx_command_start(sandbox, "echo started; sleep 3600", &options, &handle, err);
    if (status != SBX_OK)
        return status;
    if (pthread_create(&thread, NULL, kill_after_a_second, handle) == 0) {
        status = sbx_command_result(handle, &result, err); /* waits for the end */
        pthread_join(thread, NULL);                        /* before the handle goes */
    }
    if (status == SBX_OK && result)
        printf("%sExit code: %d\n", result->out, result->exit_code); /* not 0: it was killed */
    sbx_free(result);
    sbx_command_free(handle);
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
