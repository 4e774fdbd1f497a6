/* sbx cp: one file to a sandbox or from it, as a stream. */
#include "sbx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char copy_help[] =
    "Usage: sbx cp [OPTION].. LOCAL NAME:PATH\n"
    "       sbx cp [OPTION].. NAME:PATH LOCAL\n"
    "\n"
    "Copies a file to the sandbox NAME, or from it. Files may be of any size. A local\n"
    "file appears only when all of it has arrived; a failed copy leaves nothing.\n"
    "\n"
    "LOCAL may be \"-\": stdin or stdout. If the target is a directory, or ends with\n"
    "\"/\", the copy keeps its name there. A PATH that does not begin with \"/\" starts\n"
    "at the sandbox's home. Write ./A:B for a local file whose name has a colon.\n"
    "\n"
    "Options:\n"
    "  -q, --quiet     no progress, which is shown only on a terminal anyway\n"
    "  --endpoint URL  the service, instead of LANGSMITH_ENDPOINT\n"
    "  -v, --verbose   say on stderr what happens\n"
    "  -h, --help      this help\n"
    "\n"
    "Exit codes: 0 the file was copied, 255 it was not, 128 + N ended by signal N.\n"
    "\n"
    "Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY; see `sbx --help`.\n";

typedef struct copy {
    const char *local;
    char *name; /* of the sandbox; owned */
    const char *path;
    int quiet;
    progress bar;
} copy;

static int source(void *user, void *buf, size_t cap, size_t *n)
{
    (void)user;
    return read_some(STDIN_FILENO, buf, cap, n);
}

static int sink(void *user, const void *data, size_t len)
{
    (void)user;
    return write_fully(STDOUT_FILENO, data, len);
}

/* ---- names ---- */

/* The part of path after its last "/"; NULL if that is no name of a file. */
static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    return *name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 ? name : NULL;
}

/* directory + "/" + name, or a copy of directory if name is NULL; to be freed. */
static char *join(const char *directory, const char *name)
{
    size_t len = strlen(directory), name_len = name ? strlen(name) : 0;
    char *path = (char *)malloc(len + name_len + 2);
    if (!path)
        return NULL;
    memcpy(path, directory, len);
    if (name) {
        if (len > 0 && path[len - 1] != '/')
            path[len++] = '/';
        memcpy(path + len, name, name_len);
    }
    path[len + name_len] = 0;
    return path;
}

static int ends_with_slash(const char *path)
{
    return *path && path[strlen(path) - 1] == '/';
}

/* 1 if the sandbox says that path is a directory. When it cannot say so, the copy itself will say
   what is wrong. */
static int is_remote_directory(const sbx_sandbox *sandbox, const char *path)
{
    static const char name[] = "SBX_PATH=";
    sbx_run_options options;
    sbx_result *result;
    const char *env[2];
    char *variable = (char *)malloc(sizeof(name) + strlen(path));
    int yes = 0;

    if (!variable)
        return 0;
    memcpy(variable, name, sizeof(name) - 1);
    memcpy(variable + sizeof(name) - 1, path, strlen(path) + 1);
    env[0] = variable;
    env[1] = NULL;
    memset(&options, 0, sizeof(options));
    options.env = env;
    options.shell = "/bin/sh";
    options.timeout_ms = 10 * 1000;
    options.discard_output = 1;
    options.call = session_call();
    if (sbx_run(sandbox, "cd && test -d \"$SBX_PATH\"", &options, &result, NULL) == SBX_OK)
        yes = result->exit_code == 0;
    sbx_free(result);
    free(variable);
    return yes;
}

/* The path of the copy in the sandbox, to be freed; NULL after saying why. */
static char *remote_target(const sbx_sandbox *sandbox, const copy *c)
{
    const char *name = strcmp(c->local, "-") == 0 ? NULL : base_name(c->local);
    int directory = !*c->path || ends_with_slash(c->path);
    char *path;
    if (!directory && name)
        directory = is_remote_directory(sandbox, c->path);
    if (directory && !name) {
        complain("%s:%s: a directory, and the copy has no name", c->name, c->path);
        return NULL;
    }
    path = join(c->path, directory ? name : NULL);
    if (!path)
        complain("out of memory");
    return path;
}

/* The path of the local copy, likewise. */
static char *local_target(const copy *c)
{
    struct stat st;
    const char *name = base_name(c->path);
    int directory = ends_with_slash(c->local) || (stat(c->local, &st) == 0 && S_ISDIR(st.st_mode));
    char *path;
    if (directory && !name) {
        complain("%s:%s: it has no name to keep in %s", c->name, c->path, c->local);
        return NULL;
    }
    path = join(c->local, directory ? name : NULL);
    if (!path)
        complain("out of memory");
    return path;
}

/* ---- copying ---- */

static sbx_file_options file_options(copy *c)
{
    sbx_file_options options;
    memset(&options, 0, sizeof(options));
    options.progress = progress_update;
    options.user = &c->bar;
    options.call = session_call();
    return options;
}

static int upload(const sbx_sandbox *sandbox, copy *c)
{
    sbx_file_options options = file_options(c);
    sbx_status status;
    sbx_error err;
    char *path = remote_target(sandbox, c);
    if (!path)
        return FAILURE;
    if (strcmp(c->local, "-") == 0) {
        progress_begin(&c->bar, "stdin", c->quiet);
        status = sbx_write_from(sandbox, path, source, SBX_NONE, &options, &err);
    } else {
        progress_begin(&c->bar, base_name(c->local), c->quiet);
        status = sbx_posix_upload(sandbox, path, c->local, &options, &err);
    }
    progress_end(&c->bar, status != SBX_OK);
    free(path);
    return status == SBX_OK ? 0 : call_failed(c->local, &err);
}

static int download(const sbx_sandbox *sandbox, copy *c)
{
    sbx_file_options options = file_options(c);
    int to_stdout = strcmp(c->local, "-") == 0;
    const char *label = base_name(c->path);
    sbx_status status;
    sbx_error err;
    char *path = to_stdout ? NULL : local_target(c);
    if (!to_stdout && !path)
        return FAILURE;
    /* On one terminal the progress would be among the output. */
    progress_begin(&c->bar, label ? label : c->path,
                   c->quiet || (to_stdout && isatty(STDOUT_FILENO)));
    if (to_stdout)
        status = sbx_read_to(sandbox, c->path, sink, &options, &err);
    else
        status = sbx_posix_download(sandbox, c->path, path, &options, &err);
    progress_end(&c->bar, status != SBX_OK);
    free(path);
    return status == SBX_OK ? 0 : call_failed(c->path, &err);
}

static int copy_with(copy *c, int (*transfer)(const sbx_sandbox *, copy *))
{
    sbx_call call;
    sbx_sandbox *sandbox;
    sbx_error err;
    int code = session_open();
    if (code != 0)
        return code;
    call = session_call();
    if (sbx_sandbox_get(session_client(), c->name, &call, &sandbox, &err) == SBX_OK)
        code = transfer(sandbox, c);
    else
        code = call_failed(c->name, &err);
    sbx_free(sandbox);
    return session_close(code);
}

/* ---- the command line ---- */

/* The colon of NAME:PATH, or NULL if text is a local path: as scp has it, a colon counts that comes
   before any slash. */
static const char *colon(const char *text)
{
    const char *at = strpbrk(text, ":/");
    return at && *at == ':' && at > text ? at : NULL;
}

/* Checks what can be checked before anything is sent. */
static int check_local_source(const char *local)
{
    struct stat st;
    if (strcmp(local, "-") == 0)
        return 0;
    if (stat(local, &st) != 0 || access(local, R_OK) != 0)
        complain("%s: %s", local, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        complain("%s: it is a directory; only files can be copied", local);
    else
        return 0;
    return FAILURE;
}

static int copy_between(copy *c, const char *from, const char *to)
{
    const char *from_colon = colon(from), *to_colon = colon(to);
    const char *remote = from_colon ? from : to;
    const char *at = from_colon ? from_colon : to_colon;
    int code;

    if (!from_colon == !to_colon)
        return usage_error("exactly one of %s and %s must be NAME:PATH", from, to);
    c->local = from_colon ? to : from;
    c->path = at + 1;
    if (!*c->local)
        return usage_error("the name of the local file is empty");
    if (from_colon && !*c->path)
        return usage_error("%s: there is no path after the colon", from);
    if (to_colon && check_local_source(c->local) != 0)
        return FAILURE;
    c->name = (char *)malloc((size_t)(at - remote) + 1);
    if (!c->name) {
        complain("out of memory");
        return FAILURE;
    }
    memcpy(c->name, remote, (size_t)(at - remote));
    c->name[at - remote] = 0;
    code = copy_with(c, from_colon ? download : upload);
    free(c->name);
    return code;
}

int copy_main(int argc, char **argv)
{
    static const struct option options[] = {
        {"quiet", no_argument, NULL, 'q'},
        LONG_COMMON,
    };
    copy c;
    int option, code;

    memset(&c, 0, sizeof(c));
    while ((option = getopt_long(argc, argv, "q" SHORT_COMMON, options, NULL)) != -1) {
        if (option == 'q') {
            c.quiet = 1;
        } else {
            code = common_option(option);
            if (code >= 0)
                return code;
        }
    }
    if (argc - optind != 2)
        return usage_error("it takes two names: from where, and to where");
    return copy_between(&c, argv[optind], argv[optind + 1]);
}
