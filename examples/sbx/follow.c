/* A command and this process's standard streams: output goes out as it comes, input goes in as the
   command takes it, in one loop around poll().

   Whatever ends this process early, a signal or a closed pipe, kills the command, or leaves it where
   it was only attached to. In a terminal that belongs to the command, where Ctrl-C is a key like any
   other, "~." at the start of a line ends this process, and "~~" is a "~". */
#include "sbx.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct follower {
    sbx_command *command;
    const follow_options *options;
    int begun;         /* the command is known to run: it can have input, and the terminal */
    char input[16384]; /* was read, and not taken by the command yet */
    size_t len;
    char part[4]; /* of a character whose end has not come yet, from a terminal */
    size_t part_len;
    sbx_utf8 utf8;
    int line_open; /* the last of the input did not end a line */
    int eof;
    int stopping;   /* the command was killed: nothing is read or written any more */
    int leaving;    /* the command runs on without us */
    int line_start; /* for "~.": the last key was Enter, or there was none */
    int tilde;      /* and "~" came after it */
} follower;

static void stop(follower *f)
{
    if (f->options->leave) {
        f->leaving = 1;
    } else if (!f->stopping) {
        sbx_command_kill(f->command);
        f->stopping = 1;
    }
}

/* Takes the terminal, if the command is to have it: not before, so that until then Ctrl-C ends what
   takes too long. */
static void begin(follower *f)
{
    int columns, rows;
    f->begun = 1;
    if (!f->options->pty || !f->options->input)
        return;
    terminal_take();
    if (terminal_size(&columns, &rows) == 0)
        (void)sbx_command_resize(f->command, columns, rows, NULL);
}

/* ---- input ---- */

/* Leaves only text in the input. What else a terminal sends, the mouse of an old program perhaps, is
   no reason to end everything. The beginning of a character waits in part for its end. */
static void drop_no_text(follower *f)
{
    char bytes[sizeof(f->input)];
    size_t from, to = 0;
    memcpy(bytes, f->input, f->len);
    for (from = 0; from < f->len; from++) {
        if (!sbx_utf8_check(&f->utf8, bytes + from, 1)) {
            f->utf8.state = 0;
            from -= f->part_len > 0; /* that character ends here; this byte may begin another one */
            f->part_len = 0;
            continue;
        }
        f->part[f->part_len++] = bytes[from];
        if (f->utf8.state == 0) {
            memcpy(f->input + to, f->part, f->part_len);
            to += f->part_len;
            f->part_len = 0;
        }
    }
    f->len = to;
}

/* Takes the keys that are for this process out of the input. 1: it should end. */
static int take_escapes(follower *f)
{
    size_t from = 0, to = 0;
    char keys[sizeof(f->input)];
    memcpy(keys, f->input, f->len);
    for (; from < f->len; from++) {
        char key = keys[from];
        if (f->tilde && key == '.')
            return 1;
        if (f->tilde && key != '~' && to < sizeof(f->input))
            f->input[to++] = '~'; /* it was none of ours */
        if (f->line_start && key == '~' && !f->tilde) {
            f->tilde = 1;
            continue;
        }
        f->tilde = 0;
        f->line_start = key == '\r' || key == '\n';
        f->input[to++] = key;
    }
    f->len = to;
    return 0;
}

/* Reads what there is; less than there is room for, since what was held back may come too. */
static void read_input(follower *f)
{
    ssize_t n = read(STDIN_FILENO, f->input, sizeof(f->input) - sizeof(f->part) - 1);
    if (n > 0) {
        f->len = (size_t)n;
        f->line_open = !strchr("\r\n\004", f->input[n - 1]);
        if (terminal_is_taken()) {
            drop_no_text(f);
            if (take_escapes(f))
                stop(f);
        }
        return;
    }
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n < 0)
        complain("cannot read stdin: %s", strerror(errno));
    f->eof = 1;
    if (f->options->pty && f->line_open) /* Ctrl-D, which then only passes on what stands there */
        f->input[f->len++] = 4;
    if (f->options->pty)
        f->input[f->len++] = 4;
}

/* Gives the command what was read, as far as it has room. Not 0: it has to end. */
static int give_input(follower *f)
{
    sbx_error err;
    sbx_status status;
    if (f->len > 0) {
        status = sbx_command_input(f->command, f->input, f->len, &err);
        if (status == SBX_AGAIN)
            return 0;
        f->len = 0;
        if (status == SBX_E_ARGUMENT) {
            complain("the input is no UTF-8 text, and the service takes nothing else");
            return FAILURE;
        }
    }
    if (f->eof == 1 && !f->options->pty) {
        status = sbx_command_close_input(f->command, &err);
        if (status == SBX_E_ARGUMENT) {
            complain("the input ends within a character");
            return FAILURE;
        }
    }
    if (f->eof)
        f->eof = 2; /* told */
    return 0;
}

/* ---- the loop ---- */

static void wait_for_something(follower *f)
{
    struct pollfd fds[SBX_ITEMS + 3];
    sbx_item items[SBX_ITEMS];
    int64_t timeout_ms;
    nfds_t count = 0, input;
    int i, n = sbx_op_wants(sbx_command_op(f->command), items, SBX_ITEMS, &timeout_ms);
    int columns, rows;
    memset(fds, 0, sizeof(fds));
    for (i = 0; i < n; i++) {
        fds[count].fd = (int)items[i].handle;
        fds[count++].events = (short)((items[i].want & SBX_READ ? POLLIN : 0) |
                                      (items[i].want & SBX_WRITE ? POLLOUT : 0));
    }
    input = count;
    fds[count].fd =
        f->options->input && f->begun && !f->stopping && !f->eof && f->len == 0 ? STDIN_FILENO : -1;
    fds[count++].events = POLLIN;
    fds[count].fd = terminal_is_taken() ? terminal_resized_fd() : -1;
    fds[count++].events = POLLIN;
    fds[count].fd = f->stopping ? -1 : session_signal_fd();
    fds[count++].events = POLLIN;
    if (poll(fds, count, timeout_ms > 3600000 ? 3600000 : (int)timeout_ms) <= 0)
        return;
    if (fds[input].revents)
        read_input(f);
    if (fds[input + 1].revents && terminal_size(&columns, &rows) == 0)
        (void)sbx_command_resize(f->command, columns, rows, NULL);
}

static int exit_code(const follower *f, const sbx_result *result)
{
    int code = result->exit_code;
    if (result->out_lost > 0 || result->err_lost > 0) {
        complain("%llu bytes of the output are lost: the service no longer had them",
                 (unsigned long long)(result->out_lost + result->err_lost));
        if (!f->options->leave) /* who attaches gets what there is */
            return FAILURE;
    }
    if (result->input_lost > 0)
        complain("%llu bytes of the input may be lost", (unsigned long long)result->input_lost);
    if (code < 0) /* the negative number of a signal */
        code = code > -127 ? 128 - code : FAILURE;
    return code <= 255 ? code : FAILURE;
}

static int ended(follower *f)
{
    sbx_result *result;
    sbx_error err;
    int code;
    if (sbx_command_result(f->command, &result, &err) != SBX_OK)
        return call_failed(NULL, &err);
    code = exit_code(f, result);
    sbx_free(result);
    return code;
}

static int failed(const follower *f, const sbx_error *err)
{
    if (!f->stopping || err->status != SBX_E_CANCELLED)
        return call_failed(NULL, err);
    if (strcmp(err->operation, "kill") == 0) /* nobody saw it end */
        complain("%s", err->message);
    return FAILURE;
}

static int run_loop(follower *f)
{
    sbx_chunk chunk;
    sbx_error err;
    for (;;) {
        sbx_status status;
        if (session_interrupted() || (!f->stopping && give_input(f) != 0))
            stop(f);
        if (f->leaving)
            return FAILURE;
        status = sbx_command_next(f->command, &chunk, 0, &err);
        if (!f->begun && !f->stopping && (status == SBX_OK || sbx_command_pid(f->command) > 0))
            begin(f);
        if (status == SBX_OK && !f->stopping) {
            int to = chunk.stream == SBX_STDOUT ? STDOUT_FILENO : STDERR_FILENO;
            if (write_fully(to, chunk.data, chunk.len) != 0)
                stop(f);
        } else if (status == SBX_AGAIN) {
            wait_for_something(f);
        } else if (status == SBX_END) {
            return f->stopping ? FAILURE : ended(f);
        } else if (status != SBX_OK) {
            return failed(f, &err);
        }
    }
}

int follow(sbx_command *command, const follow_options *options)
{
    follower *f = (follower *)calloc(1, sizeof(*f));
    int code;
    if (!f) {
        complain("out of memory");
        return FAILURE;
    }
    f->command = command;
    f->options = options;
    f->line_start = 1;
    if (options->leave) /* not every service says that it has attached */
        begin(f);
    code = run_loop(f);
    terminal_restore();
    free(f);
    return code;
}
