/* Streaming output by callback: the simplest way to see a command's output while it runs. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

/* Stands for something long, such as `make build`. */
static const char command[] = "for part in parser writer client; do\n"
                              "    echo \"compiling $part\"\n"
                              "    sleep 0.3\n"
                              "done\n"
                              "echo 'warning: client: unused variable' >&2\n";

/* The bytes come as the command wrote them: perhaps half a line, perhaps several. */
static int print_output(void *user, int stream, const char *data, size_t len)
{
    FILE *to = stream == SBX_STDOUT ? stdout : stderr;
    (void)user;
    fwrite(data, 1, len, to);
    fflush(to);
    return ferror(to); /* anything but 0 ends the call */
}

static sbx_status in_sandbox(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_run_options options = {0};
    sbx_result *result;
    sbx_status status;

    (void)user;
    options.timeout_ms = 600 * 1000;
    options.on_output = print_output;
    options.discard_output = 1; /* it is printed already: no need to collect it in the result too */
    options.call.cancel = &interrupted;
    status = sbx_run(sandbox, command, &options, &result, err); /* returns when the command ends */
    if (status != SBX_OK)
        return status;
    printf("Build %s\n", result->exit_code == 0 ? "succeeded" : "failed");
    sbx_free(result);
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
