/* sbx run, shell: one command, in a sandbox that is there or in one made for it. Each function here
   undoes at its end what it did, and calls the next one in between. */
#include "sbx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char run_help[] =
    "Usage: sbx run [OPTION].. [--] COMMAND\n"
    "       sbx run [OPTION].. [--] COMMAND ARGUMENT..\n"
    "\n"
    "Runs a command in a sandbox. What it writes comes on stdout and stderr at once.\n"
    "\n"
    "One word is a line for the shell:      sbx run -- 'ls | wc -l'\n"
    "Several are a command and arguments,\n"
    "each taken as it is, without a shell:  sbx run -- python3 -c 'print(\"*\")'\n"
    "\n"
    "Without --sandbox the command has a new sandbox for itself, which is deleted\n"
    "afterwards, also after Ctrl-C; a second Ctrl-C gives that up. The input of the\n"
    "command is empty without -i.\n"
    "\n"
    "Options:\n"
    "  --sandbox NAME      run in this sandbox, and leave it as it is\n"
    "  -i, --input         pass this program's input to the command; it must be UTF-8\n"
    "  -t, --pty           with a terminal, which is this one if there is one; \"~.\"\n"
    "                      at the start of a line ends sbx; implies -i\n"
    "  -d, --detach        leave the command running, and print SANDBOX:ID for sbx\n"
    "                      attach and sbx kill. A new sandbox stays too, until sbx rm\n"
    "  --template NAME     make the new sandbox from this template\n"
    "  --image IMAGE       make it from a temporary template with this image\n"
    "  -e, --env NAME=VAL  set a variable; NAME alone takes its value from here\n"
    "  --cwd DIR           start in this directory\n"
    "  --timeout SECONDS   kill the command after that time; 0: never; default 60,\n"
    "                      never with --pty or --detach\n"
    "  --shell SHELL       default /bin/bash\n"
    "  --endpoint URL      the service, instead of LANGSMITH_ENDPOINT\n"
    "  -v, --verbose       say on stderr what happens\n"
    "  -h, --help          this help\n"
    "\n"
    "Exit codes:\n"
    "  that of the command; 128 + N if signal N killed it\n"
    "  255      sbx failed, or the time-out was over; a message says why\n"
    "  128 + N  signal N ended sbx: 130 after Ctrl-C; the command was killed\n"
    "\n"
    "Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY; see `sbx --help`.\n";

const char shell_help[] =
    "Usage: sbx shell [OPTION].. [SANDBOX]\n"
    "\n"
    "An interactive shell in a sandbox: in a new one, which is deleted afterwards,\n"
    "unless one is named. Every key goes to the shell, Ctrl-C too; \"~.\" at the start\n"
    "of a line ends sbx.\n"
    "\n"
    "Options:\n"
    "  --template NAME     make the new sandbox from this template\n"
    "  --image IMAGE       make it from a temporary template with this image\n"
    "  -e, --env NAME=VAL  set a variable; NAME alone takes its value from here\n"
    "  --cwd DIR           start in this directory\n"
    "  --shell SHELL       default /bin/bash\n"
    "  --endpoint URL      the service, instead of LANGSMITH_ENDPOINT\n"
    "  -v, --verbose       say on stderr what happens\n"
    "  -h, --help          this help\n"
    "\n"
    "Exit codes: that of the shell; 255 failure, 128 + N ended by signal N.\n"
    "\n"
    "Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY; see `sbx --help`.\n";

enum {
    OPTION_SANDBOX = OPTION_OTHERS,
    OPTION_TEMPLATE,
    OPTION_IMAGE,
    OPTION_CWD,
    OPTION_TIMEOUT,
    OPTION_SHELL
};

typedef struct arguments {
    const char *sandbox, *template_name, *image;
    const char *cwd, *shell;
    int input, pty, detach;
    char **env; /* ended by NULL; all owned */
    size_t env_count;
    int64_t timeout_ms;
    char *line; /* for the shell; owned */
} arguments;

/* ---- running it ---- */

/* Waits until the command has been started, and leaves it. */
static int leave(const sbx_sandbox *sandbox, sbx_command *command)
{
    sbx_chunk chunk;
    sbx_error err;
    sbx_status status = SBX_AGAIN;
    while (status == SBX_AGAIN && sbx_command_pid(command) == 0 && !session_interrupted())
        status = sbx_command_next(command, &chunk, 20, &err);
    if (status < 0)
        return call_failed(NULL, &err);
    if (!session_interrupted()) {
        printf("%s:%s\n", sandbox->name, sbx_command_id(command));
        if (flush_stdout() == 0)
            return 0;
    }
    sbx_command_kill(command); /* nobody knows its id */
    return FAILURE;
}

static int run_in(const sbx_sandbox *sandbox, const arguments *a)
{
    sbx_run_options options;
    follow_options how = {0, 0, 0};
    sbx_command *command;
    sbx_error err;
    int code;

    how.pty = a->pty;
    how.input = a->input || a->pty;
    memset(&options, 0, sizeof(options));
    options.env = (const char *const *)a->env;
    options.cwd = a->cwd;
    options.shell = a->shell;
    options.input = a->input;
    options.pty = a->pty;
    options.timeout_ms = a->timeout_ms ? a->timeout_ms : a->detach || a->pty ? SBX_NONE : 0;
    /* Enough for the longest series of reconnects, and short for a command that nobody killed. */
    options.idle_timeout_ms = a->detach ? SBX_NONE : 60 * 1000;
    options.ttl_ms = a->detach ? SBX_NONE : 0;
    options.discard_output = 1;
    options.call = session_cleanup_call(); /* a first Ctrl-C kills it */
    options.call.timeout_ms = SBX_NONE;    /* whoever reads our output may take any time */
    if (sbx_command_start(sandbox, a->line, &options, &command, &err) != SBX_OK)
        return call_failed(NULL, &err);
    code = a->detach ? leave(sandbox, command) : follow(command, &how);
    sbx_command_free(command);
    return code;
}

static int run_in_old_sandbox(const arguments *a)
{
    sbx_call call = session_call();
    sbx_sandbox *sandbox;
    sbx_error err;
    int code;
    if (sbx_sandbox_get(session_client(), a->sandbox, &call, &sandbox, &err) != SBX_OK)
        return call_failed(a->sandbox, &err);
    code = run_in(sandbox, a);
    sbx_free(sandbox);
    return code;
}

static int run_in_new_sandbox(const arguments *a, const char *template_name)
{
    sbx_sandbox_options options;
    sbx_sandbox *sandbox;
    sbx_error err;
    char name[64];
    int code;

    /* With a name of its own the sandbox can be deleted even if the answer to its creation never
       comes, or is not waited for. */
    unique_name(name);
    memset(&options, 0, sizeof(options));
    options.template_name = template_name;
    options.name = name;
    options.call = session_call();
    if (sbx_sandbox_create(session_client(), &options, &sandbox, &err) == SBX_OK)
        code = run_in(sandbox, a);
    else
        code = call_failed("no sandbox", &err);
    if (may_exist(&err) && !(a->detach && code == 0))
        delete_temporary_sandbox(name);
    sbx_free(sandbox);
    return code;
}

static int run_with_image(const arguments *a)
{
    sbx_template_options options;
    sbx_template *made;
    sbx_error err;
    char name[64];
    int code;

    unique_name(name);
    memset(&options, 0, sizeof(options));
    options.name = name;
    options.image = a->image;
    options.call = session_call();
    if (sbx_template_create(session_client(), &options, &made, &err) == SBX_OK)
        code = run_in_new_sandbox(a, name);
    else
        code = call_failed("no template", &err);
    if (may_exist(&err))
        delete_temporary_template(name);
    sbx_free(made);
    return code;
}

/* ---- the command line ---- */

/* Appends word to line, quoted so that the shell takes it as it is. */
static char *append_quoted(char *to, const char *word)
{
    *to++ = '\'';
    for (; *word; word++) {
        if (*word == '\'') {
            memcpy(to, "'\\''", 4);
            to += 4;
        } else {
            *to++ = *word;
        }
    }
    *to++ = '\'';
    return to;
}

static char *shell_line(int count, char **words)
{
    size_t size = 1;
    char *line, *end;
    int i;
    for (i = 0; i < count; i++)
        size += 4 * strlen(words[i]) + 3;
    line = (char *)malloc(size);
    if (!line)
        return NULL;
    if (count == 1) {
        memcpy(line, words[0], strlen(words[0]) + 1);
        return line;
    }
    end = line;
    for (i = 0; i < count; i++) {
        if (i > 0)
            *end++ = ' ';
        end = append_quoted(end, words[i]);
    }
    *end = 0;
    return line;
}

/* Adds a variable to a->env, which has room for it. Returns the exit code, or -1 to go on. */
static int add_variable(arguments *a, const char *text)
{
    const char *equals = strchr(text, '=');
    const char *value = equals ? equals + 1 : getenv(text);
    size_t name_len = equals ? (size_t)(equals - text) : strlen(text);
    size_t value_size = value ? strlen(value) + 1 : 0;
    char *pair;
    if (name_len == 0)
        return usage_error("--env %s: it has no name", text);
    if (!value)
        return -1; /* not set here, so not set there */
    pair = (char *)malloc(name_len + 1 + value_size);
    if (!pair) {
        complain("out of memory");
        return FAILURE;
    }
    memcpy(pair, text, name_len);
    pair[name_len] = '=';
    memcpy(pair + name_len + 1, value, value_size);
    a->env[a->env_count++] = pair;
    return -1;
}

/* Programs in a terminal want to know what kind it is. Returns the exit code, or -1 to go on. */
static int add_terminal(arguments *a)
{
    size_t i;
    for (i = 0; i < a->env_count; i++)
        if (strncmp(a->env[i], "TERM=", 5) == 0)
            return -1;
    return add_variable(a, "TERM");
}

/* Sets one option. Returns the exit code, or -1 to go on. */
static int set_option(arguments *a, int option)
{
    switch (option) {
    case OPTION_SANDBOX:
        a->sandbox = optarg;
        return -1;
    case OPTION_TEMPLATE:
        a->template_name = optarg;
        return -1;
    case OPTION_IMAGE:
        a->image = optarg;
        return -1;
    case OPTION_CWD:
        a->cwd = optarg;
        return -1;
    case OPTION_SHELL:
        a->shell = optarg;
        return -1;
    case OPTION_TIMEOUT:
        if (parse_seconds(optarg, &a->timeout_ms) == 0)
            return -1;
        return usage_error("--timeout %s: it is not a number of seconds", optarg);
    case 'i':
        a->input = 1;
        return -1;
    case 't':
        a->pty = 1;
        return -1;
    case 'd':
        a->detach = 1;
        return -1;
    case 'e':
        return add_variable(a, optarg);
    default:
        return common_option(option);
    }
}

/* Returns the exit code, or -1 to go on. What is left begins at argv[optind]. */
static int parse(arguments *a, int argc, char **argv, const char *letters,
                 const struct option *options)
{
    int option, code;
    a->env = (char **)calloc((size_t)argc + 1, sizeof(*a->env));
    if (!a->env) {
        complain("out of memory");
        return FAILURE;
    }
    while ((option = getopt_long(argc, argv, letters, options, NULL)) != -1) {
        code = set_option(a, option);
        if (code >= 0)
            return code;
    }
    return a->pty ? add_terminal(a) : -1;
}

static int run_in_some_sandbox(const arguments *a)
{
    int code = session_open();
    if (code != 0)
        return code;
    if (a->sandbox)
        code = run_in_old_sandbox(a);
    else if (a->image)
        code = run_with_image(a);
    else
        code = run_in_new_sandbox(a, a->template_name);
    return session_close(code);
}

static int finish(arguments *a, int code)
{
    while (a->env_count > 0)
        free(a->env[--a->env_count]);
    free(a->env);
    free(a->line);
    return code;
}

int run_main(int argc, char **argv)
{
    static const struct option options[] = {
        {"sandbox", required_argument, NULL, OPTION_SANDBOX},
        {"template", required_argument, NULL, OPTION_TEMPLATE},
        {"image", required_argument, NULL, OPTION_IMAGE},
        {"input", no_argument, NULL, 'i'},
        {"pty", no_argument, NULL, 't'},
        {"detach", no_argument, NULL, 'd'},
        {"env", required_argument, NULL, 'e'},
        {"cwd", required_argument, NULL, OPTION_CWD},
        {"timeout", required_argument, NULL, OPTION_TIMEOUT},
        {"shell", required_argument, NULL, OPTION_SHELL},
        LONG_COMMON,
    };
    arguments a;
    int code;

    memset(&a, 0, sizeof(a));
    /* "+": the first word that is no option begins the command. */
    code = parse(&a, argc, argv, "+itde:" SHORT_COMMON, options);
    if (code < 0 && optind == argc)
        code = usage_error("there is no command to run");
    if (code < 0 && !!a.sandbox + !!a.template_name + !!a.image > 1)
        code = usage_error("--sandbox, --template and --image exclude each other");
    if (code < 0 && a.detach && a.image)
        code = usage_error("--detach and --image exclude each other: the template is temporary");
    if (code >= 0)
        return finish(&a, code);
    a.line = shell_line(argc - optind, argv + optind);
    if (!a.line) {
        complain("out of memory");
        return finish(&a, FAILURE);
    }
    return finish(&a, run_in_some_sandbox(&a));
}

int shell_main(int argc, char **argv)
{
    static const struct option options[] = {
        {"template", required_argument, NULL, OPTION_TEMPLATE},
        {"image", required_argument, NULL, OPTION_IMAGE},
        {"env", required_argument, NULL, 'e'},
        {"cwd", required_argument, NULL, OPTION_CWD},
        {"shell", required_argument, NULL, OPTION_SHELL},
        LONG_COMMON,
    };
    static char line[] = "exec \"$0\" -i"; /* the shell that runs this is the one to talk to */
    arguments a;
    int code;

    memset(&a, 0, sizeof(a));
    a.pty = 1;
    a.timeout_ms = SBX_NONE;
    code = parse(&a, argc, argv, "e:" SHORT_COMMON, options);
    if (code < 0 && optind < argc)
        a.sandbox = argv[optind++];
    if (code < 0 && optind < argc)
        code = usage_error("one sandbox at most");
    if (code < 0 && !!a.sandbox + !!a.template_name + !!a.image > 1)
        code = usage_error("a sandbox, --template and --image exclude each other");
    if (code >= 0)
        return finish(&a, code);
    a.line = shell_line(1, (char *[]){line});
    if (!a.line) {
        complain("out of memory");
        return finish(&a, FAILURE);
    }
    return finish(&a, run_in_some_sandbox(&a));
}
