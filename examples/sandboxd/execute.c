/* POST /execute: one command over plain HTTP, its output collected. The command has no input, is
   not remembered, and is killed when its client goes.

   A command that runs too long is answered with 408 and the type CommandError, because that is the
   type which all official clients take for a failed command over HTTP. */
#include "sandboxd.h"

#include <stdlib.h>
#include <string.h>

typedef struct execution {
    sd_conn *conn;
    sd_reader reader;
    char *output[2];
    size_t len[2], cap[2];
    int too_big;
} execution;

static void write_result(sbx_json_writer *w, const void *arg)
{
    const execution *x = (const execution *)arg;
    sbx_json_begin_object(w);
    sbx_json_key(w, "stdout");
    sbx_json_string(w, x->output[0] ? x->output[0] : "", x->len[0]);
    sbx_json_key(w, "stderr");
    sbx_json_string(w, x->output[1] ? x->output[1] : "", x->len[1]);
    sbx_json_key(w, "exit_code");
    sbx_json_integer(w, x->reader.command->exit_code);
    sbx_json_end_object(w);
}

static void collect(execution *x, int stream)
{
    const char *text;
    size_t len;
    while ((len = sd_command_read(&x->reader, stream, &text)) > 0) {
        if (x->len[stream] + len > SD_MAX_HTTP_OUTPUT) {
            x->too_big = 1;
            sd_command_kill(x->reader.command);
        } else {
            if (x->cap[stream] - x->len[stream] < len) {
                x->cap[stream] = 2 * x->cap[stream] + len;
                x->output[stream] = (char *)sd_grow(x->output[stream], x->cap[stream]);
            }
            memcpy(x->output[stream] + x->len[stream], text, len);
            x->len[stream] += len;
        }
        sd_command_took(&x->reader, stream, len);
    }
}

static void on_output(sd_reader *reader)
{
    execution *x = SD_OWNER(reader, execution, reader);
    const sd_command *command = reader->command;
    collect(x, SD_STDOUT);
    collect(x, SD_STDERR);
    if (!sd_command_over(reader))
        return;
    if (x->too_big)
        sd_error(x->conn, 400, "CommandError",
                 "the output is larger than %u bytes, which is too much for HTTP: use a WebSocket",
                 SD_MAX_HTTP_OUTPUT);
    else if (command->error_type)
        sd_error(x->conn, 408, "CommandError", "%s", command->error);
    else
        sd_reply_json(x->conn, 200, write_result, x);
}

static void on_release(sd_conn *conn)
{
    execution *x = (execution *)conn->user;
    if (x->reader.command) {
        sd_command_kill(x->reader.command);
        sd_command_detach(&x->reader);
    }
    free(x->output[0]);
    free(x->output[1]);
    free(x);
}

void sd_handle_execute(sd_conn *conn)
{
    sd_command_options options;
    sd_problems problems = {0};
    sd_command *command;
    execution *x;
    char *error;

    sd_command_fields(conn->json, &options, &problems);
    if (sd_reply_problems(conn, &problems))
        return;
    options.id = NULL;
    options.idle_ms = SBX_NONE;
    options.ttl_ms = 0;
    options.close_stdin = 1;
    command = sd_command_start(sd_conn_agent(conn), &options, &error);
    if (!command) {
        sd_error(conn, 400, "CommandError", "%s", error);
        free(error);
        return;
    }
    x = (execution *)sd_alloc(sizeof(*x));
    x->conn = conn;
    x->reader.on_output = on_output;
    conn->user = x;
    conn->on_eof = sd_drop;
    conn->release = on_release;
    sd_command_attach(command, &x->reader);
}
