/* Options. */
#include "sandboxd.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
    "usage: sandboxd [options]\n"
    "\n"
    "A local server of the LangSmith Sandbox protocol. It runs commands in isolation, by Linux\n"
    "namespaces and bubblewrap, and listens on 127.0.0.1 only. The first line that it prints says\n"
    "where:\n"
    "\n"
    "    listening on http://127.0.0.1:PORT\n"
    "\n"
    "  --port PORT        listen there; 0, the default, is any free port\n"
    "  --data DIR         keep all state in DIR: templates, volumes with what is in them, and "
    "pools are\n"
    "                     there again after a restart, even after a crash; sandboxes are not. "
    "Without\n"
    "                     it, state is in a temporary directory that is removed at the end\n"
    "  --api-key KEY      refuse requests without this key in X-Api-Key. Other users of the "
    "machine\n"
    "                     may see the options of a program: SANDBOXD_API_KEY in the environment "
    "is\n"
    "                     better. Without a key, every one is accepted\n"
    "  --image NAME=DIR   templates with the image NAME get the directory DIR as their root; may "
    "be\n"
    "                     given several times. Without any, every image is the host's own system\n"
    "                     directories, read-only\n"
    "  --max-sandboxes N  refuse more than N sandboxes, with those that wait in pools (256)\n"
    "  --max-volumes N    refuse more than N volumes (256)\n"
    "  --no-isolation     run commands as plain processes of this user, who can do what you can "
    "do;\n"
    "                     there, volumes cannot be mounted\n"
    "  --limits HOW       how the CPU and memory of templates are enforced: cgroup (all commands\n"
    "                     of a sandbox together, by control groups), rlimit (memory per process,\n"
    "                     processors by affinity; weaker), none, or auto, the default: by control\n"
    "                     groups where these can be used\n"
    "  --ring-bytes N     keep the last N bytes of each stream of a command, for clients that "
    "come\n"
    "                     back: 4096 to 67108864, in whole pages; 1048576 without this option\n"
    "  --stall-seconds S  a command waits for its slowest client, but a client that takes nothing\n"
    "                     for S seconds, while its command waits, is disconnected: 300 without "
    "this\n"
    "                     option, 0 for never\n"
    "  --dialect D        speak as servers did in 2026-03: reconnect is not acknowledged by "
    "started,\n"
    "                     ids that clients choose and close_stdin are ignored; or as in 2026-08, "
    "the\n"
    "                     default\n"
    "  --chaos SPEC       things that go wrong, for tests of clients; see below\n"
    "  --help, --version\n"
    "\n"
    "It ends on SIGINT and SIGTERM, and everything that it started ends with it. On SIGHUP it "
    "closes\n"
    "the WebSockets of all sandboxes with code 1001, as if it were replaced by a newer version;\n"
    "commands run on, and wait up to 5 seconds for their clients to come back.\n";

enum {
    OPT_PORT = 256,
    OPT_DATA,
    OPT_KEY,
    OPT_IMAGE,
    OPT_MAX_SANDBOXES,
    OPT_MAX_VOLUMES,
    OPT_NO_ISOLATION,
    OPT_LIMITS,
    OPT_SETTING,
    OPT_HELP,
    OPT_VERSION
};

static const struct option options[] = {
    {"port", required_argument, NULL, OPT_PORT},
    {"data", required_argument, NULL, OPT_DATA},
    {"api-key", required_argument, NULL, OPT_KEY},
    {"image", required_argument, NULL, OPT_IMAGE},
    {"max-sandboxes", required_argument, NULL, OPT_MAX_SANDBOXES},
    {"max-volumes", required_argument, NULL, OPT_MAX_VOLUMES},
    {"no-isolation", no_argument, NULL, OPT_NO_ISOLATION},
    {"limits", required_argument, NULL, OPT_LIMITS},
    {"ring-bytes", required_argument, NULL, OPT_SETTING},
    {"stall-seconds", required_argument, NULL, OPT_SETTING},
    {"dialect", required_argument, NULL, OPT_SETTING},
    {"chaos", required_argument, NULL, OPT_SETTING},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

static int take_image(sd_control *control, const char *text)
{
    const char *equals = strchr(text, '=');
    char *directory = equals && equals > text ? realpath(equals + 1, NULL) : NULL;
    struct stat st;
    if (!directory || stat(directory, &st) < 0 || !S_ISDIR(st.st_mode)) {
        sd_log("--image is NAME=DIR with a directory, not %s", text);
        free(directory);
        return -1;
    }
    control->images =
        (sd_image *)sd_grow(control->images, (control->image_count + 1) * sizeof(sd_image));
    control->images[control->image_count].name = sd_copy(text, (size_t)(equals - text));
    control->images[control->image_count++].directory = directory;
    return 0;
}

static int take_key(sd_control *control, const char *text)
{
    if (!*text) {
        sd_log("the API key is empty");
        return -1;
    }
    sd_key_set(&control->key, text);
    return 0;
}

static int take_limits(sd_control *control, const char *text)
{
    static const char *const kinds[] = {"auto", "cgroup", "rlimit", "none"}; /* as sd_limits_kind */
    size_t i;
    for (i = 0; i < SD_COUNT(kinds); i++)
        if (strcmp(text, kinds[i]) == 0) {
            control->isolation.limits.kind = (sd_limits_kind)i;
            return 0;
        }
    sd_log("--limits is auto, cgroup, rlimit or none, not %s", text);
    return -1;
}

/* Checks what agents will be told. */
static int take_setting(sd_control *control, const char *name, const char *value)
{
    sd_settings checked = sd_default_settings;
    char *before = control->isolation.settings;
    if (sd_settings_take(&checked, name, value) < 0)
        return -1;
    control->isolation.settings = sd_text("%s%s %s\n", before ? before : "", name, value);
    free(before);
    return 0;
}

/* -1: go on; else the exit status. */
static int take_options(sd_control *control, int argc, char **argv)
{
    const char *key = getenv("SANDBOXD_API_KEY");
    long number = 0;
    int index, option, problem = key && *key ? take_key(control, key) : 0;
    unsetenv("SANDBOXD_API_KEY");
    while (problem == 0 && (option = getopt_long(argc, argv, "", options, &index)) != -1) {
        switch (option) {
        case OPT_PORT:
            problem = sd_number("port", optarg, 0, 65535, &number);
            control->port = (int)number;
            break;
        case OPT_DATA:
            control->data = optarg;
            break;
        case OPT_KEY:
            problem = take_key(control, optarg);
            memset(optarg, '*', strlen(optarg)); /* what ps shows from now on */
            break;
        case OPT_IMAGE:
            problem = take_image(control, optarg);
            break;
        case OPT_MAX_SANDBOXES:
            problem = sd_number("max-sandboxes", optarg, 1, SD_MAX_QUOTA, &number);
            control->max_sandboxes = (size_t)number;
            break;
        case OPT_MAX_VOLUMES:
            problem = sd_number("max-volumes", optarg, 1, SD_MAX_QUOTA, &number);
            control->max_volumes = (size_t)number;
            break;
        case OPT_NO_ISOLATION:
            control->isolation.none = 1;
            break;
        case OPT_LIMITS:
            problem = take_limits(control, optarg);
            break;
        case OPT_SETTING:
            problem = take_setting(control, options[index].name, optarg);
            break;
        case OPT_HELP:
            fputs(usage, stdout);
            sd_chaos_help(stdout);
            return 0;
        case OPT_VERSION:
            puts("sandboxd " SBX_VERSION);
            return 0;
        default:
            problem = -1;
        }
    }
    if (problem == 0 && optind < argc) {
        sd_log("%s is not an option", argv[optind]);
        problem = -1;
    }
    if (problem == 0 && control->data && !*control->data) {
        sd_log("--data is a directory");
        problem = -1;
    }
    if (problem < 0)
        fprintf(stderr, "sandboxd --help says more\n");
    return problem < 0 ? 2 : -1;
}

int main(int argc, char **argv)
{
    static sd_control control;
    size_t i;
    int status;
    control.max_sandboxes = SD_MAX_SANDBOXES;
    control.max_volumes = SD_MAX_VOLUMES;
    if (argc == 2 && strcmp(argv[1], "--agent") == 0)
        return sd_agent_main();
    status = take_options(&control, argc, argv);
    if (status < 0)
        status = sd_control_run(&control);
    for (i = 0; i < control.image_count; i++) {
        free(control.images[i].name);
        free(control.images[i].directory);
    }
    free(control.images);
    free(control.isolation.bwrap);
    free(control.isolation.self);
    free(control.isolation.settings);
    return status;
}
