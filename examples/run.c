/* Running commands: what they print, how they end, where and with what they run. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

static sbx_status say_hello(const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_result *result;
    sbx_status status = sbx_run(sandbox, "echo 'Hello, World!'", NULL, &result, err);
    if (status != SBX_OK)
        return status;
    printf("stdout: %s", result->out);                                  /* Hello, World! */
    printf("stderr: \"%s\"\n", result->err);                            /* "" */
    printf("exit code: %d\n", result->exit_code);                       /* 0 */
    printf("success: %s\n", result->exit_code == 0 ? "true" : "false"); /* true */
    sbx_free(result);
    return SBX_OK;
}

/* A command that fails is no error of the call: the call did what it was asked to. */
static sbx_status fail(const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_result *result;
    sbx_status status = sbx_run(sandbox, "exit 1", NULL, &result, err);
    if (status != SBX_OK)
        return status;
    printf("success: %s\n", result->exit_code == 0 ? "true" : "false"); /* false */
    printf("exit code: %d\n", result->exit_code);                       /* 1 */
    sbx_free(result);
    return SBX_OK;
}

static sbx_status with_options(const sbx_sandbox *sandbox, sbx_error *err)
{
    static const char *const env[] = {"GREETING=Good morning", "PUNCTUATION=!", NULL};
    sbx_run_options options = {0};
    sbx_result *result;
    sbx_status status;

    options.env = env;
    options.cwd = "/tmp";
    options.shell = "/bin/sh";
    options.timeout_ms = 10 * 1000; /* then the command is killed: SBX_E_COMMAND_TIMEOUT */
    options.call.cancel = &interrupted;
    status = sbx_run(sandbox, "echo \"$GREETING from $(pwd)$PUNCTUATION\"", &options, &result, err);
    if (status != SBX_OK)
        return status;
    printf("stdout: %s", result->out); /* Good morning from /tmp! */
    sbx_free(result);
    return SBX_OK;
}

static sbx_status in_sandbox(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_status status = say_hello(sandbox, err);
    (void)user;
    if (status == SBX_OK)
        status = fail(sandbox, err);
    if (status == SBX_OK)
        status = with_options(sandbox, err);
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
