/* sbx attach, kill: commands that run already, which `sbx run --detach` has left. */
#include "sbx.h"

#include <stdlib.h>
#include <string.h>

const char attach_help[] =
    "Usage: sbx attach [OPTION].. SANDBOX:ID\n"
    "\n"
    "Shows the output of a command that `sbx run --detach` has left, from the start\n"
    "as far as the service still has it, and ends with its exit code. Ctrl-C leaves\n"
    "the command again, with --pty \"~.\" at the start of a line.\n"
    "\n"
    "Options:\n"
    "  -i, --input     pass this program's input to the command, which must have been\n"
    "                  started with --input or --pty\n"
    "  -t, --pty       it was started with --pty: its terminal is this one\n"
    "  --endpoint URL  the service, instead of LANGSMITH_ENDPOINT\n"
    "  -v, --verbose   say on stderr what happens\n"
    "  -h, --help      this help\n"
    "\n"
    "Exit codes: that of the command; 255 failure, 128 + N ended by signal N.\n"
    "\n"
    "Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY; see `sbx --help`.\n";

const char kill_help[] = "Usage: sbx kill [OPTION].. SANDBOX:ID..\n"
                         "\n"
                         "Kills commands that `sbx run --detach` has left. One that has ended\n"
                         "already is none the worse.\n"
                         "\n"
                         "Options:\n"
                         "  --endpoint URL  the service, instead of LANGSMITH_ENDPOINT\n"
                         "  -v, --verbose   say on stderr what happens\n"
                         "  -h, --help      this help\n"
                         "\n"
                         "Exit codes: 0 success, 255 failure, 128 + N ended by signal N.\n"
                         "\n"
                         "Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY; see `sbx --help`.\n";

/* Gets the sandbox and attaches to the command that text names; *command is NULL after a failure,
   which has been told. */
static sbx_sandbox *attach_to(const char *text, const sbx_attach_options *options,
                              sbx_command **command)
{
    sbx_call call = session_call();
    const char *colon = strrchr(text, ':');
    sbx_sandbox *sandbox = NULL;
    sbx_error err;
    char *name;
    *command = NULL;
    if (!colon || colon == text || !colon[1]) {
        usage_error("%s: it is not SANDBOX:ID", text);
        return NULL;
    }
    name = (char *)malloc((size_t)(colon - text) + 1);
    if (!name) {
        complain("out of memory");
        return NULL;
    }
    memcpy(name, text, (size_t)(colon - text));
    name[colon - text] = 0;
    if (sbx_sandbox_get(session_client(), name, &call, &sandbox, &err) != SBX_OK ||
        sbx_command_attach(sandbox, colon + 1, options, command, &err) != SBX_OK)
        call_failed(name, &err);
    free(name);
    return sandbox;
}

int attach_main(int argc, char **argv)
{
    static const struct option options[] = {
        {"input", no_argument, NULL, 'i'},
        {"pty", no_argument, NULL, 't'},
        LONG_COMMON,
    };
    sbx_attach_options attach;
    follow_options how = {0, 0, 1};
    sbx_sandbox *sandbox;
    sbx_command *command;
    int option, code;

    while ((option = getopt_long(argc, argv, "it" SHORT_COMMON, options, NULL)) != -1) {
        if (option == 'i')
            how.input = 1;
        else if (option == 't')
            how.pty = how.input = 1;
        else if ((code = common_option(option)) >= 0)
            return code;
    }
    if (optind + 1 != argc)
        return usage_error("one SANDBOX:ID is needed");
    code = session_open();
    if (code != 0)
        return code;
    memset(&attach, 0, sizeof(attach));
    attach.input = how.input;
    attach.pty = how.pty;
    attach.discard_output = 1;
    attach.call = session_cleanup_call();
    attach.call.timeout_ms = SBX_NONE;
    sandbox = attach_to(argv[optind], &attach, &command);
    code = command ? follow(command, &how) : FAILURE;
    sbx_command_free(command);
    sbx_free(sandbox);
    return session_close(code);
}

/* Waits until the service has attached us, which may take longer than it has for the kill itself.
   Not every service says so, and then there may be nothing to be heard. */
static void wait_until_attached(sbx_command *command)
{
    sbx_status status = SBX_AGAIN;
    sbx_chunk chunk;
    int rounds;
    for (rounds = 0; rounds < 250 && status == SBX_AGAIN && sbx_command_pid(command) == 0; rounds++)
        status = sbx_command_next(command, &chunk, 20, NULL);
}

static int kill_one(const char *text)
{
    sbx_attach_options attach;
    sbx_sandbox *sandbox;
    sbx_command *command;
    sbx_result *result = NULL;
    sbx_error err;
    int code = FAILURE;
    memset(&attach, 0, sizeof(attach));
    attach.discard_output = 1;
    attach.call = session_call();
    sandbox = attach_to(text, &attach, &command);
    if (command) {
        wait_until_attached(command);
        sbx_command_kill(command);
        code = sbx_command_result(command, &result, &err) == SBX_OK ? 0 : call_failed(text, &err);
    }
    sbx_free(result);
    sbx_command_free(command);
    sbx_free(sandbox);
    return code;
}

int kill_main(int argc, char **argv)
{
    static const struct option options[] = {LONG_COMMON};
    int option, code, failed = 0;
    while ((option = getopt_long(argc, argv, SHORT_COMMON, options, NULL)) != -1)
        if ((code = common_option(option)) >= 0)
            return code;
    if (optind == argc)
        return usage_error("a SANDBOX:ID is needed");
    code = session_open();
    if (code != 0)
        return code;
    for (; optind < argc && !session_interrupted(); optind++)
        failed |= kill_one(argv[optind]) != 0;
    return session_close(failed ? FAILURE : 0);
}
