/* The data plane of one sandbox. It runs inside the isolation, as process 1 of the sandbox, so that
   no command can kill it and all of them end with it. It inherits the listening socket, which was
   opened outside, and the channel, on which the control process says what to do (one "name value" per
   line, "start" at the end) and whose end means that the control process is gone; and what commands
   need to join their control groups. */
#include "sandboxd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const sd_route routes[] = {
    {"POST", "/execute", SD_BODY_JSON, sd_handle_execute},
    {"GET", "/execute/ws", SD_BODY_NONE, sd_handle_session},
    {"POST", "/upload", SD_BODY_STREAM, sd_handle_upload},
    {"GET", "/download", SD_BODY_NONE, sd_handle_download},
};

static const char *const prefixes[] = {"", NULL};

/* ---- what the control process says ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int take_key(sd_key *key, const char *hex)
{
    size_t i;
    for (i = 0; i < sizeof(key->hash); i++) {
        int high = hex_digit(hex[2 * i]), low = high < 0 ? -1 : hex_digit(hex[2 * i + 1]);
        if (low < 0)
            return -1;
        key->hash[i] = (unsigned char)(high << 4 | low);
    }
    key->required = 1;
    return 0;
}

/* A line of "name value". */
static int take_setting(sd_agent *agent, char *line)
{
    char *value = strchr(line, ' ');
    if (!value)
        return -1;
    *value++ = 0;
    return sd_settings_take(&agent->settings, line, value) > 0 ? 0 : -1;
}

/* 1 at the end, 0 to go on, -1 when the line is wrong. */
static int take_line(sd_agent *agent, char *line)
{
    if (strcmp(line, "start") == 0)
        return 1;
    if (strncmp(line, "home ", 5) == 0)
        agent->home = sd_copy(line + 5, strlen(line + 5));
    else if (strncmp(line, "key ", 4) == 0)
        return take_key(&agent->key, line + 4);
    else if (strcmp(line, "isolated") == 0)
        agent->isolated = 1;
    else if (!sd_limits_take(&agent->limits, line))
        return take_setting(agent, line);
    return 0;
}

/* Reads the settings, before anything else goes on. */
static int take_settings(sd_agent *agent)
{
    char line[8192];
    size_t len = 0;
    for (;;) {
        ssize_t n = read(SD_FD_CHANNEL, line + len, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || len + 1 == sizeof(line))
            return -1;
        if (line[len++] == '\n') {
            int result;
            line[len - 1] = 0;
            len = 0;
            result = take_line(agent, line);
            if (result != 0)
                return result > 0 && agent->home ? 0 : -1;
        }
    }
}

/* ---- the end ---- */

/* Ends all that this process has started. The orphans of those that it kills become its children,
   so after enough rounds there are none. Isolation makes this needless: there all end with process
   1. */
static void end_children(void)
{
    int rounds = 0;
    for (;;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if ((pid < 0 && errno == ECHILD) || rounds == 1000)
            return;
        if (pid > 0)
            continue;
        sd_kill_all(SD_CHILDREN, getpid());
        usleep(1000);
        rounds++;
    }
}

static void end_agent(const sd_agent *agent)
{
    if (!agent->isolated)
        end_children();
    _exit(0);
}

static void on_channel_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    static char data[64];
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(data, sizeof(data));
}

/* Each line is "reload": all clients have to go and come back. */
static void on_channel(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    sd_agent *agent = (sd_agent *)stream->data;
    if (n < 0)
        end_agent(agent);
    if (n > 0 && memchr(buffer->base, '\n', (size_t)n)) {
        agent->reloading = 1;
        sd_ws_close_all(&agent->server, 1001, "the server reloads");
        agent->reloading = 0;
    }
}

static void add_faults(sd_server *server, sd_faults *faults)
{
    sd_chaos_faults(&((sd_agent *)server->user)->settings.chaos, faults);
}

static void on_child(uv_signal_t *handle, int number)
{
    sd_agent *agent = (sd_agent *)handle->data;
    int status;
    pid_t pid;
    (void)number;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        sd_command_reaped(agent, pid, status);
}

/* ---- the beginning ---- */

/* What keeps the commands, which run as the same user, away from this process. */
static void protect(sd_agent *agent)
{
    struct rlimit limit;
    int i;
    prctl(PR_SET_DUMPABLE, 0);
    /* Orphans come to this process, without isolation too. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGPIPE, SIG_IGN);
    fcntl(SD_FD_LISTEN, F_SETFD, FD_CLOEXEC);
    fcntl(SD_FD_CHANNEL, F_SETFD, FD_CLOEXEC);
    for (i = 0; i < SD_MAX_GROUPS; i++)
        fcntl(SD_FD_GROUPS + i, F_SETFD, FD_CLOEXEC);
    umask(022);
    agent->file_limit = 1024;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        agent->file_limit = (uint64_t)limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int sd_agent_main(void)
{
    static sd_agent agent;
    uv_loop_t loop;
    uv_pipe_t channel;
    uv_signal_t children;
    int result;

    protect(&agent);
    agent.settings = sd_default_settings;
    if (take_settings(&agent) < 0) {
        sd_log("the agent was not told what to do: sandboxd --agent is not for your use");
        return 1;
    }
    sd_limits_choose(&agent.limits);
    if (agent.isolated)
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* when bubblewrap is killed */
    if (chdir(agent.home) < 0) {
        sd_log("cannot use the home directory %s: %s", agent.home, strerror(errno));
        return 1;
    }
    uv_loop_init(&loop);
    agent.loop = agent.server.loop = &loop;
    agent.born = uv_now(&loop);
    agent.server.user = &agent;
    agent.server.prefixes = prefixes;
    agent.server.routes = routes;
    agent.server.route_count = SD_COUNT(routes);
    agent.server.key = &agent.key;
    agent.server.faults = add_faults;
    uv_signal_init(&loop, &children);
    children.data = &agent;
    uv_signal_start(&children, on_child, SIGCHLD);
    uv_pipe_init(&loop, &channel, 0);
    channel.data = &agent;
    uv_pipe_open(&channel, SD_FD_CHANNEL);
    uv_read_start((uv_stream_t *)&channel, on_channel_alloc, on_channel);
    result = sd_serve(&agent.server, SD_FD_LISTEN);
    if (result < 0 || write(SD_FD_CHANNEL, "ready\n", 6) != 6) {
        if (result < 0 || errno != EPIPE) /* else nobody wants the sandbox any more */
            sd_log("the agent cannot serve: %s",
                   result < 0 ? uv_strerror(result) : strerror(errno));
        _exit(1);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    return 1;
}
