/* The life of a command: started, its output kept in rings, read by any number of clients, ended by
   itself, by a client or by a time limit, remembered for a while.

   While a client is attached nothing is lost: the pipes are not read further than the slowest
   client allows, so the command has to wait. Without one the rings keep the last output. A command
   is over when its shell has ended and what was in the pipes then has been read; children that it
   left behind, which still hold the pipes, get GRACE_MS. What those write later is read and thrown
   away, because they would die of a closed pipe.

   When clients were sent away to come back, a command acts for RELOAD_MS as if they were there.

   With a pseudo-terminal there is one stream. Its other end is held open here until the shell has
   ended, so that the terminal does not end before, whatever the shell does with its streams. */
#include "sandboxd.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { GRACE_MS = 100, RELOAD_MS = 5000 };
enum { TERMINAL_BUFFER = 65536 }; /* at least what the kernel keeps of a terminal's output */

struct sd_stream {
    uv_poll_t poll;
    int fd;
    sd_command *command; /* NULL: nobody remembers it */
    int which, reading;
    size_t owed;        /* bytes that may have been in the pipe when the shell ended */
    char unfinished[4]; /* the beginning of a character */
    size_t unfinished_len;
};

static void check_done(sd_command *command);
static void check_flow(sd_command *command, int which);

/* ---- fields ---- */

static int64_t milliseconds(double seconds)
{
    return seconds < 0 ? SBX_NONE : (int64_t)(seconds * 1000.0);
}

/* An object of strings, called name. */
static const sd_json *environment_of(const sd_json *json, const char *name, sd_problems *problems)
{
    const sd_json *env = sd_json_get(json, name), *member;
    if (!env)
        return NULL;
    if (env->type != SBX_JSON_OBJECT) {
        sd_problem_add(problems, name, NULL, "must be an object");
        return NULL;
    }
    for (member = env->child; member; member = member->next) {
        if (member->name_len == 0 || memchr(member->name, '=', member->name_len) ||
            memchr(member->name, 0, member->name_len))
            sd_problem_add(problems, name, NULL, "has a name that is empty or holds '=' or NUL");
        else if (member->type != SBX_JSON_STRING || memchr(member->text, 0, member->len))
            sd_problem_add(problems, name, member->name, "must be a string without NUL");
    }
    return env;
}

/* What newer clients say instead of cwd and env. */
static void read_run_config(const sd_json *json, sd_command_options *options, sd_problems *problems)
{
    const sd_json *config = sd_json_get(json, "run_config");
    const char *user;
    if (!config)
        return;
    if (config->type != SBX_JSON_OBJECT) {
        sd_problem_add(problems, "run_config", NULL, "must be an object");
        return;
    }
    if (options->cwd || options->env)
        sd_problem_add(problems, "run_config", NULL, "excludes cwd and env");
    user = sd_field_string(config, "user", problems);
    if (user && *user && strcmp(user, "user") != 0)
        sd_problem_add(problems, "run_config", "user", "must be user: a sandbox has no other");
    options->cwd = sd_field_string(config, "work_dir", problems);
    options->env = environment_of(config, "env_vars", problems);
}

void sd_command_fields(const sd_json *json, sd_command_options *options, sd_problems *problems)
{
    const double most = 1e9; /* seconds */
    const char *timeout = sd_json_get(json, "timeout_seconds") ? "timeout_seconds" : "timeout";
    size_t before = problems->count;
    memset(options, 0, sizeof(*options));
    if (!json || json->type != SBX_JSON_OBJECT) {
        sd_problem_add(problems, NULL, NULL, "must be an object");
        return;
    }
    options->command = sd_field_string(json, "command", problems);
    if (!options->command && problems->count == before)
        sd_problem_add(problems, "command", NULL, "is required");
    options->shell = sd_field_string(json, "shell", problems);
    if (!options->shell || !*options->shell)
        options->shell = "/bin/bash";
    options->cwd = sd_field_string(json, "cwd", problems);
    options->env = environment_of(json, "env", problems);
    read_run_config(json, options, problems);
    options->timeout_ms = milliseconds(sd_field_number(json, timeout, 60, 0, most, problems));
    options->idle_ms =
        milliseconds(sd_field_number(json, "idle_timeout_seconds", 300, -1, most, problems));
    options->ttl_ms = milliseconds(sd_field_number(json, "ttl_seconds", 600, -1, most, problems));
    options->kill_on_disconnect = sd_field_boolean(json, "kill_on_disconnect", 0, problems);
}

/* ---- forgetting ---- */

static void free_stream(uv_handle_t *handle)
{
    free(SD_OWNER(handle, sd_stream, poll));
}

static void free_pipe(uv_handle_t *handle)
{
    free(handle);
}

static void on_timer_closed(uv_handle_t *handle)
{
    sd_command *command = (sd_command *)handle->data;
    int i;
    if (--command->handles > 0)
        return;
    for (i = 0; i < 2; i++)
        sd_ring_free(&command->rings[i]);
    free(command->id);
    free(command->error);
    free(command);
}

static void forget(sd_command *command)
{
    sd_agent *agent = command->agent;
    sd_command **link = &agent->commands;
    int i;
    while (*link != command)
        link = &(*link)->next;
    *link = command->next;
    agent->command_count--;
    free(agent->expired[agent->expired_next]);
    agent->expired[agent->expired_next] = sd_copy(command->id, strlen(command->id));
    agent->expired_next = (agent->expired_next + 1) % SD_COUNT(agent->expired);
    for (i = 0; i < 2; i++)
        if (command->streams[i])
            command->streams[i]->command = NULL;
    uv_close((uv_handle_t *)&command->limit, on_timer_closed);
    uv_close((uv_handle_t *)&command->idle, on_timer_closed);
    uv_close((uv_handle_t *)&command->hold, on_timer_closed);
}

static size_t remembered(const sd_command *command)
{
    size_t sum = 0;
    int i;
    for (i = 0; i < 2; i++) {
        const sd_ring *ring = &command->rings[i];
        sum += ring->end < ring->size ? (size_t)ring->end : ring->size;
    }
    return sum;
}

/* Forgets the oldest commands that are done and that nobody reads, until there is room. */
static void make_room(sd_agent *agent)
{
    for (;;) {
        sd_command *command, *oldest = NULL;
        size_t sum = 0;
        for (command = agent->commands; command; command = command->next)
            if (command->done && !command->readers && !command->expected) {
                oldest = command;
                sum += remembered(command);
            }
        if (!oldest || (agent->command_count < SD_MAX_COMMANDS && sum <= SD_MAX_REMEMBERED))
            return;
        forget(oldest);
    }
}

int sd_command_expired(const sd_agent *agent, const char *id)
{
    size_t i;
    for (i = 0; i < SD_COUNT(agent->expired); i++)
        if (agent->expired[i] && strcmp(agent->expired[i], id) == 0)
            return 1;
    return 0;
}

sd_command *sd_command_find(const sd_agent *agent, const char *id)
{
    sd_command *command = agent->commands;
    while (command && strcmp(command->id, id) != 0)
        command = command->next;
    return command;
}

/* ---- output ---- */

static char raw[4 + SD_CHUNK];         /* what was read, behind an unfinished character */
static char clean[3 * (4 + SD_CHUNK)]; /* the same as valid UTF-8 */

static void tell_readers(sd_command *command)
{
    sd_reader *reader, *next;
    for (reader = command->readers; reader; reader = next) {
        next = reader->next;
        reader->on_output(reader);
    }
}

/* Puts len bytes of raw into the ring. */
static void keep(sd_stream *stream, size_t len, int last)
{
    size_t left, n = sd_clean(clean, raw, len, last, &left);
    memcpy(stream->unfinished, raw + len - left, left);
    stream->unfinished_len = left;
    sd_ring_write(&stream->command->rings[stream->which], clean, n);
}

static void end_stream(sd_stream *stream)
{
    if (stream->command)
        stream->command->streams[stream->which] = NULL;
    uv_close((uv_handle_t *)&stream->poll, free_stream);
    close(stream->fd);
}

/* How much room the ring has when nothing from needed on may be overwritten. */
static size_t room(const sd_ring *ring, uint64_t needed)
{
    return ring->size - (size_t)(ring->end - needed);
}

/* So much there must be to read on: a whole chunk in the worst case, but no more than half. */
static size_t enough(const sd_ring *ring)
{
    return sizeof(clean) < ring->size / 2 ? sizeof(clean) : ring->size / 2;
}

/* The oldest byte of a stream that somebody still has to get. */
static uint64_t needed(const sd_command *command, int which)
{
    const sd_reader *reader;
    uint64_t offset = command->rings[which].end;
    if (command->done)
        return offset;
    for (reader = command->readers; reader; reader = reader->next)
        if (reader->at[which] < offset)
            offset = reader->at[which];
    if (command->expected && command->held[which] < offset)
        offset = command->held[which];
    return offset;
}

/* Reads once from a stream. 1: there may be more. */
static int take(sd_stream *stream)
{
    sd_command *command = stream->command;
    int listening = command && !command->done, which = stream->which;
    size_t max = SD_CHUNK, kept = stream->unfinished_len;
    ssize_t n;
    if (listening) { /* each byte may become three, those of an unfinished character too */
        max = room(&command->rings[which], needed(command, which)) / 3 - 4;
        max = max < SD_CHUNK ? max : SD_CHUNK;
    }
    memcpy(raw, stream->unfinished, kept);
    n = read(stream->fd, raw + kept, max);
    if (n < 0 && errno == EINTR)
        return 1;
    if (n > 0) {
        stream->owed -= (size_t)n < stream->owed ? (size_t)n : stream->owed;
        if (listening)
            keep(stream, kept + (size_t)n, 0);
    } else if (n < 0 && errno == EAGAIN) {
        stream->owed = 0;
    } else { /* a terminal ends with EIO */
        if (listening && kept > 0)
            keep(stream, kept, 1);
        end_stream(stream);
    }
    if (!listening)
        return 0;
    tell_readers(command);
    check_flow(command, which);
    return n > 0 && command->streams[which] && command->streams[which]->reading;
}

/* Reads from a stream. When only what was in it at the end of the shell is waited for, until that
   has come, or nothing does. */
static void on_readable(uv_poll_t *poll, int status, int events)
{
    sd_stream *stream = SD_OWNER(poll, sd_stream, poll);
    sd_command *command = stream->command;
    (void)status;
    (void)events;
    while (take(stream) && command->grace_over && stream->owed > 0)
        continue;
    if (command)
        check_done(command);
}

/* Reads the pipe only as far as no reader loses anything. */
static void check_flow(sd_command *command, int which)
{
    sd_stream *stream = command->streams[which];
    const sd_ring *ring = &command->rings[which];
    int go;
    if (!stream)
        return;
    go = room(ring, needed(command, which)) >= enough(ring);
    if (go == stream->reading)
        return;
    stream->reading = go;
    if (go)
        uv_poll_start(&stream->poll, UV_READABLE, on_readable);
    else
        uv_poll_stop(&stream->poll);
}

int sd_command_waits_for(const sd_reader *reader)
{
    const sd_command *command = reader->command;
    int i;
    for (i = 0; i < 2; i++)
        if (command->streams[i] && !command->done &&
            room(&command->rings[i], reader->at[i]) < enough(&command->rings[i]))
            return 1;
    return 0;
}

size_t sd_command_read(sd_reader *reader, int which, const char **text)
{
    return sd_ring_read(&reader->command->rings[which], &reader->at[which], SD_CHUNK, text);
}

void sd_command_took(sd_reader *reader, int which, size_t len)
{
    reader->at[which] += len;
    check_flow(reader->command, which);
}

int sd_command_over(const sd_reader *reader)
{
    const sd_command *command = reader->command;
    return command->done && reader->at[0] == command->rings[0].end &&
           reader->at[1] == command->rings[1].end;
}

/* ---- the end ---- */

static void on_idle(uv_timer_t *timer);

/* What happens when a command has no client, and none is about to come back. */
static void check_alone(sd_command *command)
{
    if (command->readers || command->expected)
        return;
    if (command->done) {
        if (command->forgotten)
            forget(command);
    } else if (command->kill_on_disconnect) {
        sd_command_kill(command);
    } else if (command->idle_ms >= 0) {
        uv_timer_start(&command->idle, on_idle, (uint64_t)command->idle_ms, 0);
    }
}

static void on_idle(uv_timer_t *timer)
{
    sd_command *command = (sd_command *)timer->data;
    if (!command->done) {
        sd_command_kill(command);
    } else {
        command->forgotten = 1;
        check_alone(command);
    }
}

static void stop_holding(sd_command *command)
{
    int i;
    command->expected = 0;
    uv_timer_stop(&command->hold);
    for (i = 0; i < 2; i++)
        check_flow(command, i);
}

static void on_hold(uv_timer_t *timer)
{
    sd_command *command = (sd_command *)timer->data;
    stop_holding(command);
    check_alone(command);
}

static void on_limit(uv_timer_t *timer)
{
    sd_command *command = (sd_command *)timer->data;
    int i;
    if (command->exited) {
        command->grace_over = 1;
        for (i = 0; i < 2; i++)
            if (command->streams[i] && command->streams[i]->reading)
                on_readable(&command->streams[i]->poll, 0, 0);
        check_done(command);
    } else {
        command->error_type = "CommandTimeout";
        command->error =
            sd_text("Command timed out after %.15g seconds", (double)command->timeout_ms / 1000.0);
        sd_command_kill(command);
    }
}

static void tell_room(sd_command *command)
{
    sd_reader *reader;
    for (reader = command->readers; reader; reader = reader->next)
        if (reader->on_room)
            reader->on_room(reader);
}

static void close_input(sd_command *command)
{
    if (command->input) {
        command->input->data = NULL;
        uv_close((uv_handle_t *)command->input, free_pipe);
        command->input = NULL;
        command->input_waiting = 0;
        tell_room(command);
    }
}

static void check_done(sd_command *command)
{
    int i;
    if (!command->exited || command->done)
        return;
    for (i = 0; i < 2; i++) {
        const sd_stream *stream = command->streams[i];
        if (stream && (!command->grace_over || stream->owed > 0))
            return;
    }
    command->done = 1;
    close_input(command);
    uv_timer_stop(&command->limit);
    if (command->ttl_ms >= 0)
        uv_timer_start(&command->idle, on_idle, (uint64_t)command->ttl_ms, 0);
    else
        uv_timer_stop(&command->idle);
    for (i = 0; i < 2; i++)
        check_flow(command, i);
    tell_readers(command);
    make_room(command->agent);
}

void sd_command_reaped(sd_agent *agent, pid_t pid, int wait_status)
{
    sd_command *command = agent->commands;
    int i, waiting;
    while (command && (command->exited || command->pid != pid))
        command = command->next;
    if (!command)
        return;
    command->exited = 1;
    command->exit_code =
        WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
    for (i = 0; i < 2; i++) {
        sd_stream *stream = command->streams[i];
        if (stream && command->terminal >= 0)
            stream->owed = TERMINAL_BUFFER;
        else if (stream && ioctl(stream->fd, FIONREAD, &waiting) == 0 && waiting > 0)
            stream->owed = (size_t)waiting;
    }
    if (command->terminal >= 0)
        close(command->terminal);
    command->terminal = -1;
    uv_timer_start(&command->limit, on_limit, GRACE_MS, 0);
    check_done(command);
}

/* The process group does not have all: job control gives each job a group of its own, but no
   session of its own. Who made one has asked to outlive this. A process may fork while the
   others are killed, so that takes rounds. */
void sd_command_kill(sd_command *command)
{
    int rounds = 0;
    if (command->exited)
        return;
    if (kill(-command->pid, SIGKILL) < 0)
        kill(command->pid, SIGKILL); /* it may not have come to lead its group yet */
    while (sd_kill_all(SD_SESSION, command->pid) > 0 && ++rounds < 10)
        continue;
}

/* ---- input ---- */

typedef struct input {
    uv_write_t request;
    sd_command *command;
    size_t cost;
    char data[];
} input;

static void on_input_written(uv_write_t *request, int status)
{
    input *in = SD_OWNER(request, input, request);
    /* The pipe's data is NULL once the command does not use it any more, and may be gone itself. */
    sd_command *command = request->handle->data ? in->command : NULL;
    if (command) {
        command->input_waiting -= in->cost;
        if (status < 0 || (command->input_ending && command->input_waiting == 0))
            close_input(command);
        else
            tell_room(command);
    }
    free(in);
}

size_t sd_command_input_waiting(const sd_command *command)
{
    return command->input_waiting;
}

size_t sd_command_input(sd_command *command, const char *data, size_t len)
{
    input *in;
    uv_buf_t buffer;
    if (!command->input || command->input_ending || len == 0)
        return command->input_waiting;
    in = (input *)sd_alloc(sizeof(*in) + len);
    in->command = command;
    in->cost = sizeof(*in) + len;
    memcpy(in->data, data, len);
    buffer = uv_buf_init(in->data, (unsigned)len);
    command->input_waiting += in->cost;
    command->typed = data[len - 1];
    if (uv_write(&in->request, (uv_stream_t *)command->input, &buffer, 1, on_input_written) < 0) {
        command->input_waiting -= in->cost;
        free(in);
    }
    return command->input_waiting;
}

/* A terminal cannot be closed by half: the end of input is typed there. That ends a line at
   once, or, where none was begun, what is read. */
static void type_end(sd_command *command)
{
    struct termios settings;
    const char last = command->typed;
    char end[2] = {4, 4}; /* ^D */
    if (tcgetattr(command->terminal, &settings) == 0 && settings.c_cc[VEOF] != _POSIX_VDISABLE)
        end[0] = end[1] = (char)settings.c_cc[VEOF];
    sd_command_input(command, end, last == '\n' || last == '\r' || last == end[0] ? 1 : 2);
}

void sd_command_close_input(sd_command *command)
{
    if (command->terminal >= 0 && !command->input_ending)
        type_end(command);
    command->input_ending = 1;
    if (command->input_waiting == 0)
        close_input(command);
}

void sd_command_resize(sd_command *command, int columns, int rows)
{
    struct winsize size;
    memset(&size, 0, sizeof(size));
    size.ws_col = (unsigned short)columns;
    size.ws_row = (unsigned short)rows;
    if (command->terminal >= 0)
        ioctl(command->terminal, TIOCSWINSZ, &size);
}

/* ---- the beginning ---- */

static void open_stream(sd_command *command, int which, int fd)
{
    sd_stream *stream = (sd_stream *)sd_alloc(sizeof(*stream));
    stream->command = command;
    stream->which = which;
    stream->fd = fd;
    uv_poll_init(command->agent->loop, &stream->poll, fd);
    command->streams[which] = stream;
    check_flow(command, which);
}

static void open_input(sd_command *command, int fd)
{
    command->input = (uv_pipe_t *)sd_alloc(sizeof(*command->input));
    uv_pipe_init(command->agent->loop, command->input, 0);
    uv_pipe_open(command->input, fd);
    command->input->data = command;
}

/* Starts the process. 0, or -1 with *error. */
static int run(sd_command *command, const sd_command_options *options, sd_spawn *spawn,
               char **error)
{
    const sd_agent *agent = command->agent;
    const size_t size = agent->settings.ring_bytes;
    const int absolute = options->cwd && *options->cwd == '/';
    char *cwd = sd_text("%s%s%s", absolute ? "" : agent->home, absolute ? "" : "/",
                        options->cwd ? options->cwd : "");
    memset(spawn, 0, sizeof(*spawn));
    spawn->command = options->command;
    spawn->shell = options->shell;
    spawn->cwd = cwd;
    spawn->home = agent->home;
    spawn->env = options->env;
    spawn->file_limit = agent->file_limit;
    spawn->limits = &agent->limits;
    spawn->input = !options->close_stdin;
    spawn->pty = options->pty;
    spawn->columns = options->columns;
    spawn->rows = options->rows;
    spawn->die_with_us = !agent->isolated;
    if (sd_ring_init(&command->rings[0], size) < 0 || sd_ring_init(&command->rings[1], size) < 0)
        *error = sd_text("there is no memory for the output: %s", strerror(errno));
    else
        *error = sd_spawn_run(spawn);
    free(cwd);
    return *error ? -1 : 0;
}

sd_command *sd_command_start(sd_agent *agent, const sd_command_options *options, char **error)
{
    sd_command *command;
    sd_spawn spawn;
    int i;

    make_room(agent);
    if (agent->command_count >= SD_MAX_COMMANDS) {
        *error = sd_text("there are already %d commands running", SD_MAX_COMMANDS);
        return NULL;
    }
    command = (sd_command *)sd_alloc(sizeof(*command));
    command->agent = agent;
    if (run(command, options, &spawn, error) < 0) {
        for (i = 0; i < 2; i++)
            sd_ring_free(&command->rings[i]);
        free(command);
        return NULL;
    }
    command->pid = spawn.pid;
    command->terminal = spawn.terminal;
    command->typed = '\n';
    command->id = options->id ? sd_copy(options->id, strlen(options->id)) : (char *)sd_alloc(37);
    if (!options->id)
        sd_uuid(command->id);
    command->timeout_ms = options->timeout_ms;
    command->idle_ms = options->idle_ms;
    command->ttl_ms = options->ttl_ms;
    command->kill_on_disconnect = options->kill_on_disconnect;
    command->handles = 3;
    uv_timer_init(agent->loop, &command->limit);
    uv_timer_init(agent->loop, &command->idle);
    uv_timer_init(agent->loop, &command->hold);
    command->limit.data = command->idle.data = command->hold.data = command;
    if (command->timeout_ms > 0)
        uv_timer_start(&command->limit, on_limit, (uint64_t)command->timeout_ms, 0);
    command->next = agent->commands;
    agent->commands = command;
    agent->command_count++;
    if (spawn.fds[0] >= 0)
        open_input(command, spawn.fds[0]);
    for (i = 0; i < 2; i++)
        if (spawn.fds[1 + i] >= 0)
            open_stream(command, i, spawn.fds[1 + i]);
    if (spawn.pty && options->close_stdin)
        sd_command_close_input(command);
    return command;
}

/* ---- readers ---- */

void sd_command_attach(sd_command *command, sd_reader *reader)
{
    const char *text;
    int i;
    reader->command = command;
    reader->next = command->readers;
    command->readers = reader;
    if (!command->done)
        uv_timer_stop(&command->idle);
    for (i = 0; i < 2; i++) {
        sd_command_read(reader, i, &text);
        check_flow(command, i);
    }
    if (command->expected > 0 && --command->expected == 0)
        stop_holding(command);
}

/* Keeps what the reader has not read until it is back, or does not come. */
static void expect_back(sd_command *command, const sd_reader *reader)
{
    int i;
    for (i = 0; i < 2; i++)
        if (command->expected == 0 || reader->at[i] < command->held[i])
            command->held[i] = reader->at[i];
    command->expected++;
    uv_timer_start(&command->hold, on_hold, RELOAD_MS, 0);
}

void sd_command_detach(sd_reader *reader)
{
    sd_command *command = reader->command;
    sd_reader **link;
    int i;
    if (!command)
        return;
    for (link = &command->readers; *link != reader; link = &(*link)->next)
        continue;
    *link = reader->next;
    reader->command = NULL;
    if (command->agent->reloading)
        expect_back(command, reader);
    for (i = 0; i < 2; i++)
        check_flow(command, i);
    check_alone(command);
}
