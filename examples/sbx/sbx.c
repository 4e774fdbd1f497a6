/* sbx, the command-line tool: finds the subcommand. */
#include "sbx.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static const subcommand commands[] = {
    {"run", "run a command, its output comes as it is written", run_help, run_main},
    {"shell", "an interactive terminal in a sandbox", shell_help, shell_main},
    {"attach", "show the output of a command that runs already", attach_help, attach_main},
    {"kill", "kill commands that run already", kill_help, kill_main},
    {"cp", "copy a file to or from a sandbox", copy_help, copy_main},
    {"ls", "list the sandboxes", list_help, list_main},
    {"create", "make a sandbox and print its name", create_help, create_main},
    {"rm", "delete sandboxes", remove_help, remove_main},
    {"templates", "list the templates", templates_help, templates_main},
};
enum { COMMANDS = sizeof(commands) / sizeof(*commands) };

static void print_help(FILE *to)
{
    int i;
    fputs("Usage: sbx [--endpoint URL] [--verbose] COMMAND ..\n"
          "\n"
          "Runs programs in LangSmith sandboxes.\n"
          "\n"
          "Commands:\n",
          to);
    for (i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-12s%s\n", commands[i].name, commands[i].summary);
    fputs("\n"
          "Options, also after the command:\n"
          "  --endpoint URL  the service, instead of LANGSMITH_ENDPOINT\n"
          "  -v, --verbose   say on stderr what happens\n"
          "  -h, --help      this help; after a command, that of the command\n"
          "  --version       print the version\n"
          "\n"
          "Environment:\n"
          "  LANGSMITH_ENDPOINT  the service, https://api.smith.langchain.com by default\n"
          "  LANGSMITH_API_KEY   the key for it; there is no option for the key, because\n"
          "                      everybody on this machine can see command lines\n"
          "\n"
          "Exit codes: 0 success, 255 failure, 128 + N ended by signal N.\n"
          "`sbx run` ends with the exit code of its command.\n",
          to);
}

static const subcommand *find(const char *name)
{
    int i;
    for (i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int run_command(int argc, char **argv)
{
    /* getopt_long begins its messages with argv[0]. */
    static char title[64];
    const subcommand *found = find(argv[0]);
    if (!found)
        return usage_error("there is no command \"%s\"", argv[0]);
    session_begin(found);
    snprintf(title, sizeof(title), "sbx: %s", found->name);
    argv[0] = title;
    return found->main(argc, argv);
}

/* If a standard stream is closed, the next file or socket would take its number, and output would
   go there. Reading from and writing to what is opened instead fails. */
static void fill_standard_streams(void)
{
    int fd;
    for (fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            fd = open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY); /* the lowest free number: fd */
}

int main(int argc, char **argv)
{
    int at = 1;
    fill_standard_streams();
    for (; at < argc && argv[at][0] == '-'; at++) {
        const char *option = argv[at];
        if (strcmp(option, "-h") == 0 || strcmp(option, "--help") == 0) {
            print_help(stdout);
            return flush_stdout();
        }
        if (strcmp(option, "--version") == 0) {
            printf("sbx %s\n", SBX_VERSION);
            return flush_stdout();
        }
        if (strcmp(option, "-v") == 0 || strcmp(option, "--verbose") == 0) {
            common_option('v');
        } else if (strcmp(option, "--endpoint") == 0 && at + 1 < argc) {
            optarg = argv[++at];
            common_option(OPTION_ENDPOINT);
        } else if (strncmp(option, "--endpoint=", 11) == 0) {
            optarg = argv[at] + 11;
            common_option(OPTION_ENDPOINT);
        } else {
            return usage_error("there is no option \"%s\"", option);
        }
    }
    if (at < argc && strcmp(argv[at], "help") == 0) {
        static char help[] = "--help";
        static char *arguments[] = {NULL, help, NULL};
        if (at + 1 < argc) {
            arguments[0] = argv[at + 1];
            return run_command(2, arguments);
        }
        print_help(stdout);
        return flush_stdout();
    }
    if (at == argc) {
        print_help(stderr);
        return FAILURE;
    }
    return run_command(argc - at, argv + at);
}
