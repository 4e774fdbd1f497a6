/* command: runs commands in a sandbox over a WebSocket that may break at any time, or over HTTP.

   Promises: each byte of output is given once and in order, or the number of lost ones is told;
   nothing is run twice; a command whose connection is lost for good ends with an error that says
   so. The life of a command is the table at sbxi_command_lost and the events that lead to it:

     state     event                                  then
     CONNECT   upgraded, not started yet              send execute            -> STREAM
               upgraded, started before               send reconnect, offsets -> STREAM
               404 before execute was ever sent       sbx_run without callbacks -> HTTP, else fails
               500, 502, 503, 504, no connection      lost
               any other answer                       fails
     STREAM    started with our id                    failures = 0; the id and pid are known
               stdout, stderr                         failures = 0; overlap dropped, gap counted;
                                                      shows, too, that the command was started
               exit                                   -> EXITED
               error                                  fails
               close 1001                             lost, without a pause
               any other close, end, reset, silence   lost
     any       lost, failures <= 5, within the budget -> PAUSE 0.5 s, doubling up to 8 s -> CONNECT
               lost otherwise                         fails
               lost, input in doubt, no pty           fails, unless a kill is to be sent
               kill, execute was not sent             fails
               kill, execute was sent                 at once -> CONNECT if it was in PAUSE; in
                                                      STREAM it is sent; exit is waited for;
                                                      pauses take 0.25 s, without a count
               0.5 s after kill, input waits          once: -> CONNECT, and kill is sent there
               lost after kill was sent               fails
               2 s after kill                         fails
               reconnect                              failures = 0 -> CONNECT

   Silence is no sign of a lost connection while input waits: a command that does not read makes the
   service stop reading too, pings among it. (A pty always takes input, so there it is.) */
#include "internal.h"

/* ---- options ---- */

#define SBXI_RUN_TIMEOUT 60000
#define SBXI_RUN_IDLE 300000
#define SBXI_RUN_TTL 600000

/* What the writers of requests take: the options with their defaults filled in. */
typedef struct sbxi_run {
    sbx_run_options o;
    const char *command;
    const char *id;
} sbxi_run;

static sbx_status sbxi_run_defaults(const char *command, const sbx_run_options *options,
                                    sbxi_run *run, sbx_error *err)
{
    sbx_status st;
    int i;
    memset(run, 0, sizeof(*run));
    if (options)
        run->o = *options;
    run->command = command;
    if (!command || !*command)
        return sbxi_fail_argument(err, "command", "is required and must not be empty");
    st = sbxi_check_utf8("command", command, err);
    if (st == SBX_OK)
        st = sbxi_check_time("timeout_ms", run->o.timeout_ms, err);
    if (st == SBX_OK)
        st = sbxi_check_time("idle_timeout_ms", run->o.idle_timeout_ms, err);
    if (st == SBX_OK)
        st = sbxi_check_time("ttl_ms", run->o.ttl_ms, err);
    if (st == SBX_OK && run->o.cwd)
        st = sbxi_check_name("cwd", run->o.cwd, err);
    if (st == SBX_OK && run->o.shell)
        st = sbxi_check_name("shell", run->o.shell, err);
    for (i = 0; st == SBX_OK && run->o.env && run->o.env[i]; i++) {
        if (strchr(run->o.env[i], '=') == NULL || run->o.env[i][0] == '=')
            st = sbxi_fail_argument(err, "env", "must hold \"NAME=value\" texts");
        else
            st = sbxi_check_utf8("env", run->o.env[i], err);
    }
    if (!run->o.timeout_ms)
        run->o.timeout_ms = SBXI_RUN_TIMEOUT;
    if (!run->o.idle_timeout_ms)
        run->o.idle_timeout_ms = SBXI_RUN_IDLE;
    if (!run->o.ttl_ms)
        run->o.ttl_ms = SBXI_RUN_TTL;
    if (!run->o.shell)
        run->o.shell = "/bin/bash";
    if (!run->o.max_output)
        run->o.max_output = SBXI_MAX_OUTPUT;
    return st;
}

/* The members that both ways of running share. */
static void sbxi_run_json(sbx_json_writer *w, const sbxi_run *run)
{
    const char *const *env = run->o.env;
    sbxi_json_text(w, "command", run->command);
    sbxi_json_text(w, "shell", run->o.shell);
    if (env && *env) {
        sbx_json_key(w, "env");
        sbx_json_begin_object(w);
        for (; *env; env++) {
            const char *value = strchr(*env, '=');
            sbx_json_key_len(w, *env, (size_t)(value - *env));
            sbx_json_string(w, value + 1, strlen(value + 1));
        }
        sbx_json_end_object(w);
    }
    sbxi_json_text(w, "cwd", run->o.cwd);
}

/* ---- over HTTP ---- */

static const sbxi_field sbxi_result_fields[] = {
    {"stdout", SBXI_BYTES, offsetof(sbx_result, out)},
    {"stderr", SBXI_BYTES, offsetof(sbx_result, err)},
    {"exit_code", SBXI_INT, offsetof(sbx_result, exit_code)}};

static const sbxi_record sbxi_result_record = {
    sizeof(sbx_result), sbxi_result_fields, SBXI_COUNT(sbxi_result_fields), NULL, 0, 0, 0, NULL, 0};

static void sbxi_run_http_json(sbx_json_writer *w, const void *from)
{
    const sbxi_run *run = (const sbxi_run *)from;
    sbx_json_begin_object(w);
    sbxi_run_json(w, run);
    sbxi_json_seconds(w, "timeout", run->o.timeout_ms, 0);
    sbx_json_end_object(w);
}

static sbx_status sbxi_fail_output(size_t max_output, sbx_error *err)
{
    return sbxi_fail(err, SBX_E_TOO_BIG,
                     "the command's output is longer than %l bytes (max_output): raise it, or take "
                     "the output by on_output with discard_output",
                     (int64_t)max_output);
}

static sbx_status sbxi_run_http_done(const sbx_client *client, const sbxi_exchange *x,
                                     size_t max_output, int discard, sbx_result **out,
                                     sbx_error *err)
{
    void *object;
    char *items;
    size_t count;
    sbx_result *result;
    sbx_status st =
        sbxi_decode(client, &x->answer, &sbxi_result_record, "", 0, &object, &items, &count, err);
    if (st != SBX_OK)
        return st;
    result = (sbx_result *)object;
    if (discard) {
        result->out = result->err = "";
        result->out_len = result->err_len = 0;
    }
    if (result->out_len > max_output || result->err_len > max_output - result->out_len) {
        sbx_free(result);
        return sbxi_fail_output(max_output, err);
    }
    *out = result;
    return SBX_OK;
}

#ifdef SBX_NO_WEBSOCKET

typedef struct sbxi_http_run {
    sbxi_request request;
    size_t max_output;
    int discard;
} sbxi_http_run;

static const sbxi_op_type sbxi_http_run_type = {
    sizeof(sbxi_http_run), sbxi_request_step, sbxi_request_wants, sbxi_request_dispose, NULL, NULL};

static sbx_status sbxi_run_done(sbxi_request *r, void *out)
{
    const sbxi_http_run *run = (const sbxi_http_run *)r;
    return sbxi_run_http_done(r->op.client, &r->exchange, run->max_output, run->discard,
                              (sbx_result **)out, &r->op.error);
}

SBX_API sbx_status sbx_run_start(const sbx_sandbox *sandbox, const char *command,
                                 const sbx_run_options *options, sbx_result **out, sbx_op **op,
                                 sbx_error *err)
{
    sbxi_run run;
    sbxi_request *r = NULL;
    sbx_status st = sbxi_check_start(sandbox, out, op, err);
    if (st != SBX_OK)
        return st;
    st = sbxi_check_sandbox(sandbox, err);
    if (st == SBX_OK)
        st = sbxi_run_defaults(command, options, &run, err);
    if (st == SBX_OK && (run.o.on_output || run.o.pty || run.o.input))
        st = sbxi_fail(err, SBX_E_UNSUPPORTED,
                       "on_output, input and pty need the WebSocket part: build without "
                       "SBX_NO_WEBSOCKET");
    if (st == SBX_OK)
        st = sbxi_request_new(sandbox->client, &sbxi_http_run_type, "POST", sandbox->dataplane_url,
                              "/execute", NULL, "", &run.o.call, &r, err);
    if (st != SBX_OK)
        return st;
    st = sbxi_request_json(r, sbxi_run_http_json, &run, err);
    if (st != SBX_OK) {
        sbx_op_free(&r->op);
        return st;
    }
    r->exchange.flags |= SBXI_FRESH | SBXI_UNSENT;
    r->exchange.limit_ms = run.o.timeout_ms < 0 ? SBX_NONE : sbxi_after(10000, run.o.timeout_ms);
    r->action = SBXI_INSIDE;
    r->resource_type = "";
    r->operation = "command";
    ((sbxi_http_run *)r)->max_output = run.o.max_output;
    ((sbxi_http_run *)r)->discard = run.o.discard_output;
    r->done = sbxi_run_done;
    r->out = out;
    *op = &r->op;
    return SBX_OK;
}

#else

/* ---- over a WebSocket ---- */

#define SBXI_FAILURES 5        /* attempts in a row that may fail */
#define SBXI_BUDGET_MS 120000  /* for all of these together */
#define SBXI_OPEN_MS 30000     /* for one attempt to connect */
#define SBXI_PING_MS 30000     /* between two pings */
#define SBXI_SILENCE_MS 60000  /* without an answer to a ping */
#define SBXI_GRACE_MS 30000    /* past the command's own time-out before the caller gives up */
#define SBXI_KILL_MS 2000      /* for the exit code of a command that was killed */
#define SBXI_KILL_PAUSE_MS 250 /* between two attempts to reach it meanwhile */
#define SBXI_BYPASS_MS 500     /* of these, until a kill goes around input that waits */
#define SBXI_PIECES 8          /* of input sent in one step */
#define SBXI_MESSAGES 256      /* handled in one step, so that other operations get their turn */

typedef enum sbxi_command_state {
    SBXI_COMMAND_START,
    SBXI_COMMAND_CONNECT,
    SBXI_COMMAND_STREAM,
    SBXI_COMMAND_PAUSE,
    SBXI_COMMAND_HTTP,
    SBXI_COMMAND_EXITED
} sbxi_command_state;

/* stdout or stderr. */
typedef struct sbxi_output {
    uint64_t next;         /* the offset that comes next */
    uint64_t lost, untold; /* untold: of these, so many that no chunk has told yet */
    sbxi_buffer collected;
} sbxi_output;

struct sbx_command {
    sbx_op op;
    sbxi_exchange exchange; /* the upgrade, and the connection as long as it lasts */
    sbxi_command_state state;
    char *headers;
    size_t headers_size;
    char *execute; /* the first message */
    size_t execute_size;
    char *http_body; /* the same for HTTP; NULL: no falling back */
    size_t http_body_size;
    char id[132], key[25];
    int64_t pid;
    int sent, started; /* execute was given to a connection; the service has answered it */
    int failures;
    int reattaching;    /* this connection began with reconnect */
    int busy;           /* there may be more to do without waiting */
    int64_t budget_end; /* when the attempts to connect must have succeeded; 0: one has */
    int64_t wake, reload_at;
    int64_t ping_at, heard_at; /* the next ping; when anything last arrived */
    int64_t pinged_at;         /* the first ping without an answer; 0: none */

    sbxi_input input;
    int pty;
    volatile int killed;
    int64_t kill_end; /* 0: not killed */
    uint64_t kill_at; /* the kill has left when so many bytes are written; 0: not queued */
    int bypassed;     /* it went around input that waits */
    uint64_t written; /* bytes of this connection, since the upgrade */
    int reconnect;    /* what sbx_command_reconnect asked for */

    sbx_ws ws;
    sbxi_buffer message; /* of which a part has arrived */
    sbxi_buffer text;    /* unescaped texts of the current message */
    unsigned char mask[32];
    size_t mask_left;

    sbxi_output output[2];
    size_t max_output;
    int discard;
    sbx_output_fn on_output;
    void *user;
    int64_t timeout_ms;
    int own_deadline; /* the caller named none for the call */
    int handle;       /* in the caller's hands: stops at each chunk */
    sbx_chunk chunk;  /* len 0: none */
    int given;        /* the caller has seen the chunk */
    int exit_code, taken;
    sbx_result **out; /* of sbx_run */
};

static void sbxi_execute_json(sbx_json_writer *w, const void *from)
{
    const sbxi_run *run = (const sbxi_run *)from;
    sbx_json_begin_object(w);
    sbxi_json_text(w, "type", "execute");
    sbxi_run_json(w, run);
    sbxi_json_seconds(w, "timeout_seconds", run->o.timeout_ms, 0);
    sbxi_json_seconds(w, "idle_timeout_seconds", run->o.idle_timeout_ms, -1);
    sbxi_json_seconds(w, "ttl_seconds", run->o.ttl_ms, -1);
    sbx_json_key(w, "kill_on_disconnect");
    sbx_json_boolean(w, run->o.kill_on_disconnect);
    /* A pty has an end of its own; everything else shall not wait for input that never comes. */
    if (run->o.pty || !run->o.input) {
        sbx_json_key(w, run->o.pty ? "pty" : "close_stdin");
        sbx_json_boolean(w, 1);
    }
    sbxi_json_text(w, "command_id", run->id);
    sbx_json_end_object(w);
}

static void sbxi_reconnect_json(sbx_json_writer *w, const void *from)
{
    const sbx_command *c = (const sbx_command *)from;
    sbx_json_begin_object(w);
    sbxi_json_text(w, "type", "reconnect");
    sbxi_json_text(w, "command_id", c->id);
    sbx_json_key(w, "stdout_offset");
    sbx_json_integer(w, (int64_t)c->output[0].next);
    sbx_json_key(w, "stderr_offset");
    sbx_json_integer(w, (int64_t)c->output[1].next);
    sbx_json_end_object(w);
}

/* ---- connecting and losing ---- */

static sbx_status sbxi_command_connect(sbx_command *c, int64_t now)
{
    unsigned char random[16];
    int64_t left = c->budget_end - now;
    sbx_status st = sbxi_random(c->op.client, random, sizeof(random), &c->op.error);
    if (st != SBX_OK)
        return st;
    (void)sbxi_base64(random, sizeof(random), c->key);
    c->exchange.upgrade_key = c->key;
    c->exchange.limit_ms = left < 1 ? 1 : left < SBXI_OPEN_MS ? left : SBXI_OPEN_MS;
    sbxi_exchange_again(&c->exchange, now);
    c->state = SBXI_COMMAND_CONNECT;
    c->op.attempts = c->failures + 1;
    return SBX_OK;
}

static sbx_status sbxi_fail_killed(sbx_command *c, const char *why)
{
    (void)sbxi_fail(&c->op.error, SBX_E_CANCELLED, "the command %s was killed%s", c->id, why);
    c->op.error.operation = "kill";
    return SBX_E_CANCELLED;
}

static int sbxi_command_kill_left(const sbx_command *c)
{
    return c->kill_at && c->written >= c->kill_at;
}

/* What was on its way when the connection was lost. SBX_OK: the command can go on without it. */
static sbx_status sbxi_command_lose(sbx_command *c)
{
    uint64_t doubt = sbxi_input_doubt(&c->input);
    int kill_left = sbxi_command_kill_left(c);
    sbxi_exchange_drop(&c->exchange);
    sbxi_input_lost(&c->input);
    c->kill_at = 0;
    if (kill_left)
        return sbxi_fail_killed(c, ", but the connection ended before its exit code came");
    if (!doubt)
        return SBX_OK;
    if (!c->pty && !sbxi_flag_get(&c->killed))
        return sbxi_fail(&c->op.error, SBX_E_CONNECTION,
                         "the connection to the command %s broke while %l bytes of its input were "
                         "on their way: nobody knows if they arrived, so none are sent again",
                         c->id, (int64_t)doubt);
    sbxi_log(c->op.client, SBX_LOG_WARNING, "command %s: %l bytes of input may be lost", c->id,
             (int64_t)doubt);
    return SBX_OK;
}

/* The connection, or the attempt to make one, is lost: op.error says why. SBX_OK: there will be
   another attempt, after a pause unless at_once is 1. */
static sbx_status sbxi_command_lost(sbx_command *c, int at_once)
{
    int64_t now = sbxi_now(c->op.client), delay;
    sbx_error *err = &c->op.error;
    sbx_status st = sbxi_command_lose(c);
    if (st != SBX_OK)
        return st;
    if (c->budget_end == 0)
        c->budget_end = sbxi_after(now, SBXI_BUDGET_MS);
    c->failures++;
    delay = (int64_t)500 << (c->failures < 5 ? c->failures - 1 : 4);
    if (at_once && now - c->reload_at >= 500) {
        c->reload_at = now; /* but not over and over */
        delay = 0;
    }
    if (c->kill_end && delay > SBXI_KILL_PAUSE_MS)
        delay = SBXI_KILL_PAUSE_MS; /* the 2 s that there are will end it */
    err->attempts = c->failures;
    err->operation = c->started ? "reconnect" : "command";
    if (!c->kill_end && (c->failures > SBXI_FAILURES || delay >= c->budget_end - now)) {
        char last[300];
        sbxi_copy(last, sizeof(last), err->message, strlen(err->message));
        if (err->status == SBX_E_TIMEOUT)
            err->status = SBX_E_CONNECTION;
        (void)sbxi_format(
            err->message, sizeof(err->message),
            c->sent ? "lost the connection to the command %s, which may still be running: "
                      "%d attempts in a row failed, the last one so: %s"
                    : "the command %s was not started: %d attempts to connect failed, "
                      "the last one so: %s",
            c->id, c->failures, last);
        return err->status;
    }
    sbxi_log(c->op.client, SBX_LOG_INFO, "command %s: %s; trying again in %l ms", c->id,
             err->message, delay);
    c->state = SBXI_COMMAND_PAUSE;
    c->wake = now + delay;
    return SBX_OK;
}

static sbx_status sbxi_command_broken(sbx_command *c, const char *why)
{
    (void)sbxi_fail(&c->op.error, SBX_E_CONNECTION, "%s port %d: %s", c->exchange.to.host,
                    (int)c->exchange.to.port, why);
    return sbxi_command_lost(c, 0);
}

/* ---- sending ---- */

/* Queues a frame. */
static sbx_status sbxi_command_frame(sbx_command *c, int opcode, const void *data, size_t len)
{
    sbxi_buffer *out = &c->exchange.connection->out;
    const unsigned char *key;
    sbx_status st;
    if (c->mask_left == 0) {
        st = sbxi_random(c->op.client, c->mask, sizeof(c->mask), &c->op.error);
        if (st != SBX_OK)
            return st;
        c->mask_left = sizeof(c->mask);
    }
    key = c->mask + sizeof(c->mask) - c->mask_left;
    c->mask_left -= 4;
    st = sbxi_buffer_reserve(out, SBX_WS_HEADER_MAX + len);
    if (st != SBX_OK)
        return sbxi_fail_memory(&c->op.error);
    out->end += sbx_ws_header((unsigned char *)out->data + out->end, opcode, 1, len, key);
    sbx_ws_mask(out->data + out->end, data, len, key, 0);
    out->end += len;
    return SBX_OK;
}

/* The first message of a connection: execute, until the service has answered one. */
static sbx_status sbxi_command_hello(sbx_command *c)
{
    char *json;
    size_t size;
    sbx_status st;
    c->reattaching = c->started;
    if (!c->started) {
        if (!c->sent && c->timeout_ms >= 0 && c->own_deadline) {
            c->op.limit_ms = sbxi_after(SBXI_GRACE_MS, c->timeout_ms);
            c->op.deadline = sbxi_after(sbxi_now(c->op.client), c->op.limit_ms);
        }
        c->sent = 1;
        return sbxi_command_frame(c, SBX_WS_TEXT, c->execute, c->execute_size - 1);
    }
    st = sbxi_json_make(&c->op.client->memory, sbxi_reconnect_json, c, &json, &size, &c->op.error);
    if (st != SBX_OK)
        return st;
    st = sbxi_command_frame(c, SBX_WS_TEXT, json, size - 1);
    sbxi_release(&c->op.client->memory, json, size);
    return st;
}

/* Writes what is queued, as far as it goes, and notes what has left. */
static sbx_status sbxi_command_push(sbx_command *c, sbx_error *err)
{
    sbxi_connection *connection = c->exchange.connection;
    size_t before = sbxi_buffer_len(&connection->out);
    sbx_status st = sbxi_connection_flush(connection, err);
    c->written += before - sbxi_buffer_len(&connection->out);
    sbxi_input_left(&c->input, c->written);
    return st;
}

static sbx_status sbxi_command_send_kill(sbx_command *c)
{
    static const char kill[] = "{\"type\":\"kill\"}";
    sbx_status st = sbxi_command_frame(c, SBX_WS_TEXT, kill, sizeof(kill) - 1);
    c->kill_at = c->written + sbxi_buffer_len(&c->exchange.connection->out);
    return st;
}

/* Queues what there is for the command. *more: there may be more when that has left. */
static sbx_status sbxi_command_send(sbx_command *c, int *more)
{
    sbxi_buffer *out = &c->exchange.connection->out;
    unsigned char ping[SBXI_INPUT_PING];
    sbx_json_writer w;
    sbxi_input_message kind = SBXI_INPUT_DATA;
    size_t len = 0;
    sbx_status st = SBX_OK;
    *more = 0;
    if (c->kill_end && !c->kill_at)
        st = sbxi_command_send_kill(c);
    if (st != SBX_OK || !c->started || !sbxi_input_ready(&c->input))
        return st;
    sbxi_flag_clear(&c->input.news);
    if (sbxi_buffer_reserve(&c->text, SBXI_INPUT_MESSAGE) != SBX_OK)
        return sbxi_fail_memory(&c->op.error);
    while (st == SBX_OK && kind != SBXI_INPUT_NONE) {
        sbx_json_writer_init(&w, c->text.data, SBXI_INPUT_MESSAGE);
        kind = sbxi_input_next(&c->input, &w);
        if (kind == SBXI_INPUT_NONE)
            break;
        *more = 1;
        (void)sbx_json_writer_finish(&w, &len);
        st = sbxi_command_frame(c, SBX_WS_TEXT, c->text.data, len);
        sbxi_wipe(c->text.data, len); /* it may have been a password */
        if (kind == SBXI_INPUT_DATA)
            c->input.frame_end = c->written + sbxi_buffer_len(out);
        if (st == SBX_OK && kind != SBXI_INPUT_SIZE) {
            sbxi_input_ping(&c->input, ping);
            st = sbxi_command_frame(c, SBX_WS_PING, ping, sizeof(ping));
        }
    }
    return st;
}

/* 1 if nothing is queued that must not count as sent when it leaves only now. */
static int sbxi_command_clear(const sbx_command *c)
{
    return !c->input.framed && (!c->kill_at || sbxi_command_kill_left(c));
}

/* Says goodbye as far as that goes without waiting, and lets go of the connection. */
static void sbxi_command_goodbye(sbx_command *c, int code)
{
    unsigned char payload[125];
    sbxi_connection *connection = c->exchange.connection;
    if (connection && c->state == SBXI_COMMAND_STREAM && !connection->ended &&
        !connection->broken) {
        if (sbxi_command_frame(c, SBX_WS_CLOSE, payload, sbx_ws_close_payload(payload, code, "")) ==
            SBX_OK)
            (void)sbxi_command_push(c, NULL);
    }
    sbxi_exchange_drop(&c->exchange);
}

/* The peer broke the protocol: to try again would change nothing. */
static sbx_status sbxi_command_violation(sbx_command *c, sbx_status st, int code,
                                         const char *problem)
{
    sbxi_command_goodbye(c, code);
    return sbxi_fail(&c->op.error, st, "%s port %d broke the protocol of command streams: %s",
                     c->exchange.to.host, (int)c->exchange.to.port, problem ? problem : "");
}

/* ---- the upgrade ---- */

static sbx_status sbxi_command_to_http(sbx_command *c)
{
    sbxi_exchange *x = &c->exchange;
    sbxi_address_cut(&x->to, "/ws"); /* what is left is the HTTP endpoint */
    x->method = "POST";
    x->upgrade_key = NULL;
    x->has_body = 1;
    x->content_type = "application/json";
    x->before = x->after = "";
    x->data = c->http_body;
    x->data_len = c->http_body_size - 1;
    x->flags = SBXI_FRESH | SBXI_UNSENT;
    x->limit_ms = c->timeout_ms < 0 ? SBX_NONE : sbxi_after(10000, c->timeout_ms);
    sbxi_exchange_again(x, 0);
    c->state = SBXI_COMMAND_HTTP;
    sbxi_log(c->op.client, SBX_LOG_WARNING, "the service has no WebSocket endpoint: using HTTP");
    return SBX_OK;
}

/* The upgrade was answered. */
static sbx_status sbxi_command_upgraded(sbx_command *c)
{
    sbxi_exchange *x = &c->exchange;
    int64_t now = sbxi_now(c->op.client);
    if (x->status == 404 && !c->sent && c->http_body)
        return sbxi_command_to_http(c);
    if (x->status != 101) {
        sbx_status st = sbxi_service_error(x, SBXI_UPGRADE, "",
                                           c->started ? "reconnect" : "command", &c->op.error);
        if (x->status == 500 || (x->status >= 502 && x->status <= 504))
            return sbxi_command_lost(c, 0);
        if (x->status == 404 && !c->sent)
            (void)sbxi_format(
                c->op.error.message, sizeof(c->op.error.message),
                "the service has no WebSocket endpoint at %s (HTTP 404), which output "
                "callbacks and command handles need",
                x->to.target);
        return st;
    }
    if (!x->upgrade_named || !x->upgrade_connected || !x->accept_ok || x->upgrade_unasked)
        return sbxi_command_violation(c, SBX_E_PROTOCOL, 1002,
                                      "the WebSocket handshake was not "
                                      "accepted as RFC 6455 says");
    sbx_ws_init(&c->ws, SBX_WS_CLIENT, c->op.client->max_message);
    sbxi_buffer_consume(&c->message, sbxi_buffer_len(&c->message));
    c->state = SBXI_COMMAND_STREAM;
    c->written = 0;
    c->budget_end = 0;
    c->heard_at = now;
    c->ping_at = now + SBXI_PING_MS;
    c->pinged_at = 0;
    return sbxi_command_hello(c);
}

/* ---- receiving ---- */

typedef enum sbxi_message_type {
    SBXI_MESSAGE_OTHER,
    SBXI_MESSAGE_STARTED,
    SBXI_MESSAGE_STDOUT,
    SBXI_MESSAGE_STDERR,
    SBXI_MESSAGE_EXIT,
    SBXI_MESSAGE_ERROR
} sbxi_message_type;

/* One message from the service. The texts are lent like those of the reader's events. */
typedef struct sbxi_message {
    sbxi_message_type type;
    const char *data, *id, *error_type, *error;
    size_t data_len, id_len, error_type_len, error_len;
    int64_t offset, pid, exit_code;
    int has_offset, wrong; /* wrong: a known member is not of its type */
} sbxi_message;

/* A word of the protocol. Lengths stand beside the text since each message is compared with
   several. */
typedef struct sbxi_word {
    size_t len;
    const char *text;
} sbxi_word;
#define SBXI_WORD(text)                                                                            \
    {                                                                                              \
        sizeof(text) - 1, text                                                                     \
    }

/* The index of text among the words; 0, which is none of them, if it is not there. */
static int sbxi_word_of(const sbxi_word *words, int count, const char *text, size_t len)
{
    int i;
    for (i = 1; i < count; i++)
        if (words[i].len == len && memcmp(words[i].text, text, len) == 0)
            return i;
    return 0;
}

/* In the order of sbxi_message_type. */
static const sbxi_word sbxi_message_types[] = {SBXI_WORD(""),       SBXI_WORD("started"),
                                               SBXI_WORD("stdout"), SBXI_WORD("stderr"),
                                               SBXI_WORD("exit"),   SBXI_WORD("error")};

typedef enum sbxi_message_key {
    SBXI_KEY_OTHER,
    SBXI_KEY_TYPE,
    SBXI_KEY_DATA,
    SBXI_KEY_OFFSET,
    SBXI_KEY_ID,
    SBXI_KEY_PID,
    SBXI_KEY_EXIT_CODE,
    SBXI_KEY_ERROR_TYPE,
    SBXI_KEY_ERROR
} sbxi_message_key;

/* In the order of sbxi_message_key. */
static const sbxi_word sbxi_message_keys[] = {
    SBXI_WORD(""),          SBXI_WORD("type"),       SBXI_WORD("data"),
    SBXI_WORD("offset"),    SBXI_WORD("command_id"), SBXI_WORD("pid"),
    SBXI_WORD("exit_code"), SBXI_WORD("error_type"), SBXI_WORD("error")};

/* A member's text. What lies in the scratch is kept there until the whole message is read. */
static void sbxi_message_text(sbxi_message *m, sbxi_message_key key, sbx_json *j,
                              const sbx_json_event *e)
{
    if (e->text == j->scratch) {
        j->scratch += e->len;
        j->cap -= e->len;
    }
    if (key == SBXI_KEY_TYPE) {
        m->type = (sbxi_message_type)sbxi_word_of(sbxi_message_types,
                                                  SBXI_COUNT(sbxi_message_types), e->text, e->len);
    } else if (key == SBXI_KEY_DATA) {
        m->data = e->text;
        m->data_len = e->len;
    } else if (key == SBXI_KEY_ID) {
        m->id = e->text;
        m->id_len = e->len;
    } else if (key == SBXI_KEY_ERROR_TYPE) {
        m->error_type = e->text;
        m->error_type_len = e->len;
    } else if (key == SBXI_KEY_ERROR) {
        m->error = e->text;
        m->error_len = e->len;
    }
}

static void sbxi_message_integer(sbxi_message *m, sbxi_message_key key, int64_t value)
{
    if (key == SBXI_KEY_OFFSET) {
        m->offset = value;
        m->has_offset = 1;
        m->wrong |= value < 0;
    } else if (key == SBXI_KEY_PID) {
        m->pid = value;
    } else if (key == SBXI_KEY_EXIT_CODE) {
        m->exit_code = value;
        m->wrong |= value < INT_MIN || value > INT_MAX;
    }
}

/* The value of a member of the message. null counts as absent. */
static void sbxi_message_member(sbxi_message *m, sbxi_message_key key, sbx_json *j,
                                const sbx_json_event *e)
{
    int integer = key == SBXI_KEY_OFFSET || key == SBXI_KEY_PID || key == SBXI_KEY_EXIT_CODE;
    if (e->type == SBX_JSON_STRING && !integer && !e->partial)
        sbxi_message_text(m, key, j, e);
    else if (e->type == SBX_JSON_INTEGER && integer)
        sbxi_message_integer(m, key, e->integer);
    else if (e->type != SBX_JSON_NULL && key != SBXI_KEY_OTHER)
        m->wrong = 1;
}

/* 1 if text goes on with word at *at, which is then behind it. */
static int sbxi_message_word(const char **at, const char *end, const char *word, size_t len)
{
    if ((size_t)(end - *at) < len || memcmp(*at, word, len) != 0)
        return 0;
    *at += len;
    return 1;
}
#define SBXI_MESSAGE_WORD(word) sbxi_message_word(&at, end, word, sizeof(word) - 1)

/* Reads a message of output as services write it: these members in this order, without white space.
   Text is UTF-8, and c->text has room for it. 0, whatever m holds then: it is something else, or
   needs a closer look, which the reader of JSON takes.

   This is what nearly all messages are. For one of 64 bytes the reader takes ten times as long. */
static int sbxi_message_quick(sbx_command *c, const char *data, size_t len, sbxi_message *m)
{
    const char *at = data, *end = data + len, *digits;
    char *to = c->text.data;
    int foreign = 0;
    if (SBXI_MESSAGE_WORD("{\"type\":\"stdout\",\"data\":\""))
        m->type = SBXI_MESSAGE_STDOUT;
    else if (SBXI_MESSAGE_WORD("{\"type\":\"stderr\",\"data\":\""))
        m->type = SBXI_MESSAGE_STDERR;
    else
        return 0;
    do
        sbxi_json_copy(&at, &to, end, &foreign);
    while (end - at >= 6 && *at == '\\' && sbxi_json_escape(&at, &to));
    m->data = c->text.data;
    m->data_len = (size_t)(to - c->text.data);
    if (!SBXI_MESSAGE_WORD("\",\"offset\":"))
        return 0;
    digits = at;
    for (m->offset = 0; at < end && *at >= '0' && *at <= '9' && at - digits < 18; at++)
        m->offset = m->offset * 10 + (*at - '0');
    m->has_offset = 1;
    /* A number has no zero in front, and JSON no digits behind these 18. */
    return at > digits && (*digits != '0' || at == digits + 1) && end - at == 1 && *at == '}';
}

/* Reads a whole message. utf8_checked says that the WebSocket codec has checked the text already.
   */
static sbx_status sbxi_message_read(sbx_command *c, const char *data, size_t len, int utf8_checked,
                                    sbxi_message *m)
{
    sbx_json j;
    sbx_json_event e;
    sbxi_message_key key = SBXI_KEY_OTHER;
    size_t at = 0;
    sbx_status st;
    memset(m, 0, sizeof(*m));
    c->text.start = c->text.end = 0;
    if (sbxi_buffer_reserve(&c->text, len + 16) != SBX_OK)
        return sbxi_fail_memory(&c->op.error);
    if (utf8_checked && sbxi_message_quick(c, data, len, m))
        return SBX_OK;
    memset(m, 0, sizeof(*m));
    m->exit_code = INT64_MIN;
    sbx_json_init(&j, c->text.data, c->text.cap);
    j.utf8_checked = utf8_checked;
    for (;;) {
        size_t used = 0;
        st = sbx_json_read(&j, data + at, len - at, &used, &e);
        at += used;
        if (st == SBX_AGAIN)
            st = sbx_json_finish(&j, &e);
        if (st != SBX_OK)
            break;
        if (e.type == SBX_JSON_KEY)
            key = e.depth != 1 || e.partial
                      ? SBXI_KEY_OTHER
                      : (sbxi_message_key)sbxi_word_of(
                            sbxi_message_keys, SBXI_COUNT(sbxi_message_keys), e.text, e.len);
        else if (e.depth == 1 && e.type != SBX_JSON_OBJECT_END && e.type != SBX_JSON_ARRAY_END)
            sbxi_message_member(m, key, &j, &e);
        else if (e.depth == 0 && e.type != SBX_JSON_OBJECT && e.type != SBX_JSON_OBJECT_END)
            return sbxi_command_violation(c, SBX_E_PROTOCOL, 1007, "a message is not an object");
    }
    if (st == SBX_END && m->wrong && m->type != SBXI_MESSAGE_OTHER)
        return sbxi_command_violation(c, SBX_E_PROTOCOL, 1007,
                                      "a member of a message has the wrong type");
    if (st == SBX_END)
        return SBX_OK;
    return sbxi_command_violation(c, st, 1007,
                                  j.problem ? j.problem : "a message is not complete JSON");
}

/* The service has shown that the command is attached: what failed before is forgotten. */
static void sbxi_command_alive(sbx_command *c)
{
    if (c->failures) {
        c->failures = 0;
        sbxi_error_clear(&c->op.error);
    }
}

/* Output has arrived: drops what is known already, counts what is missing, gives the rest. */
static sbx_status sbxi_command_output(sbx_command *c, const sbxi_message *m)
{
    int i = m->type == SBXI_MESSAGE_STDERR;
    sbxi_output *o = &c->output[i];
    uint64_t offset = m->has_offset ? (uint64_t)m->offset : o->next, lost = 0;
    const char *data = m->data;
    size_t len = m->data ? m->data_len : 0;
    if (len > (uint64_t)INT64_MAX - offset)
        return sbxi_command_violation(c, SBX_E_PROTOCOL, 1007, "an offset is beyond all output");
    c->started = 1; /* as the message that says so, should that be missing: it runs by our id */
    sbxi_command_alive(c);
    if (offset < o->next) {
        uint64_t known = o->next - offset;
        if (known >= len)
            return SBX_OK;
        data += known;
        len -= (size_t)known;
        offset = o->next;
    }
    lost = offset - o->next;
    if (len && !c->discard) {
        size_t all =
            sbxi_buffer_len(&c->output[0].collected) + sbxi_buffer_len(&c->output[1].collected);
        if (len > c->max_output - all)
            return sbxi_fail_output(c->max_output, &c->op.error);
        if (sbxi_buffer_append(&o->collected, data, len) != SBX_OK)
            return sbxi_fail_memory(&c->op.error);
    }
    /* Not before: what could not be kept comes again after sbx_command_reconnect. */
    o->lost += lost;
    o->untold += lost;
    o->next = offset + len;
    if (len == 0)
        return SBX_OK;
    if (c->on_output && c->on_output(c->user, i ? SBX_STDERR : SBX_STDOUT, data, len) != 0)
        return sbxi_fail(&c->op.error, SBX_E_ABORTED, "the output callback ended the call");
    if (c->handle) {
        c->chunk.stream = i ? SBX_STDERR : SBX_STDOUT;
        c->chunk.data = data;
        c->chunk.len = len;
        c->chunk.offset = offset;
        c->chunk.lost = o->untold;
        o->untold = 0;
        c->given = 0;
    }
    return SBX_OK;
}

static sbx_status sbxi_command_error(sbx_command *c, const sbxi_message *m)
{
    sbx_error *err = &c->op.error;
    char type[64] = "CommandError", text[400];
    int gone;
    if (m->error_type_len)
        sbxi_copy(type, sizeof(type), m->error_type, m->error_type_len);
    sbxi_copy(text, sizeof(text), m->error ? m->error : "", m->error_len);
    gone = strcmp(type, "CommandNotFound") == 0 || strcmp(type, "SessionExpired") == 0;
    if (strcmp(type, "CommandTimeout") == 0)
        (void)sbxi_fail(err, SBX_E_COMMAND_TIMEOUT, "the command was killed: %s",
                        *text ? text : "it ran longer than its timeout_ms");
    else
        (void)sbxi_fail(err, SBX_E_OPERATION, "%s%s%s", *text ? text : "the service reported ",
                        *text ? "" : type,
                        gone ? " (the service does not know the command any more)" : "");
    err->operation = gone && c->reattaching ? "reconnect" : "command";
    sbxi_copy(err->error_type, sizeof(err->error_type), type, strlen(type));
    return err->status;
}

static sbx_status sbxi_command_started(sbx_command *c, const sbxi_message *m)
{
    int ours = m->id_len == strlen(c->id) && memcmp(m->id, c->id, m->id_len) == 0;
    if (!c->started) {
        /* A service that does not know of our ids names the command itself. */
        if (m->id_len >= sizeof(c->id))
            return sbxi_command_violation(c, SBX_E_PROTOCOL, 1007, "the command's id is too long");
        if (m->id_len && !ours)
            sbxi_copy(c->id, sizeof(c->id), m->id, m->id_len);
    } else if (!ours) {
        return SBX_OK;
    }
    c->started = 1;
    sbxi_command_alive(c);
    if (m->pid > 0)
        c->pid = m->pid;
    return SBX_OK;
}

static sbx_status sbxi_command_message(sbx_command *c, const char *data, size_t len,
                                       int utf8_checked)
{
    sbxi_message m;
    sbx_status st = sbxi_message_read(c, data, len, utf8_checked, &m);
    if (st != SBX_OK)
        return st;
    switch (m.type) {
    case SBXI_MESSAGE_STARTED:
        return sbxi_command_started(c, &m);
    case SBXI_MESSAGE_STDOUT:
    case SBXI_MESSAGE_STDERR:
        return sbxi_command_output(c, &m);
    case SBXI_MESSAGE_EXIT:
        if (m.exit_code == INT64_MIN)
            return sbxi_command_violation(c, SBX_E_PROTOCOL, 1007, "exit has no exit_code");
        c->exit_code = (int)m.exit_code;
        sbxi_command_goodbye(c, 1000);
        c->state = SBXI_COMMAND_EXITED;
        return SBX_OK;
    case SBXI_MESSAGE_ERROR:
        return sbxi_command_error(c, &m);
    default:
        return SBX_OK;
    }
}

/* One event of the WebSocket. SBX_OK: go on, perhaps in another state. */
static sbx_status sbxi_command_event(sbx_command *c, const sbx_ws_event *e)
{
    sbx_status st;
    int code;
    switch (e->opcode) {
    case SBX_WS_PING:
        /* Not every ping of a flood needs an answer (RFC 6455, 5.5.3). */
        if (sbxi_buffer_len(&c->exchange.connection->out) > 4096)
            return SBX_OK;
        return sbxi_command_frame(c, SBX_WS_PONG, e->data, e->len);
    case SBX_WS_PONG:
        c->pinged_at = 0;
        sbxi_input_pong(&c->input, e->data, e->len);
        return SBX_OK;
    case SBX_WS_CLOSE:
        code = e->close_code;
        if (sbxi_command_clear(c)) /* the peer reads no messages any more */
            sbxi_command_goodbye(c, code == 1005 ? 1000 : code);
        (void)sbxi_fail(&c->op.error, code == 1001 ? SBX_E_SERVER_RELOAD : SBX_E_CONNECTION,
                        "%s port %d closed the connection before the command's end, with code %d",
                        c->exchange.to.host, (int)c->exchange.to.port, code);
        c->op.error.close_code = code;
        return sbxi_command_lost(c, code == 1001);
    default:
        if (e->first)
            c->message.start = c->message.end = 0;
        if (e->first && e->last)
            return sbxi_command_message(c, e->data, e->len, e->opcode == SBX_WS_TEXT);
        st = sbxi_buffer_append(&c->message, e->data, e->len);
        if (st != SBX_OK)
            return sbxi_fail_memory(&c->op.error);
        return e->last
                   ? sbxi_command_message(c, sbxi_buffer_data(&c->message),
                                          sbxi_buffer_len(&c->message), e->opcode == SBX_WS_TEXT)
                   : SBX_OK;
    }
}

/* The next event, read from the connection if need be. SBX_OK: handled, there may be more. */
static sbx_status sbxi_command_receive(sbx_command *c, int64_t now)
{
    sbxi_connection *connection = c->exchange.connection;
    sbx_ws_event e;
    size_t used = 0;
    sbx_status st = sbx_ws_read(&c->ws, sbxi_buffer_data(&connection->in),
                                sbxi_buffer_len(&connection->in), &used, &e);
    sbxi_buffer_consume(&connection->in, used);
    if (st == SBX_OK)
        return sbxi_command_event(c, &e);
    if (st == SBX_E_TOO_BIG) {
        sbxi_command_goodbye(c, c->ws.close_code);
        return sbxi_fail(&c->op.error, st,
                         "the service sent a message of more than %l bytes "
                         "(sbx_config.max_message)",
                         (int64_t)c->op.client->max_message);
    }
    if (st != SBX_AGAIN)
        return sbxi_command_violation(c, st < 0 ? st : SBX_E_PROTOCOL, c->ws.close_code,
                                      c->ws.problem);
    st = sbxi_connection_fill(connection, &c->op.error);
    if (st == SBX_END)
        return sbxi_command_broken(c, "the connection ended before the command did");
    if (st == SBX_OK)
        c->heard_at = now;
    else if (st != SBX_AGAIN)
        return st == SBX_E_MEMORY ? st : sbxi_command_lost(c, 0);
    return st;
}

/* Pings, and gives a silent connection up. SBX_OK: go on, perhaps in another state. */
static sbx_status sbxi_command_keepalive(sbx_command *c, int64_t now)
{
    int64_t since = c->pinged_at > c->heard_at ? c->pinged_at : c->heard_at;
    if (c->pinged_at && now - since >= SBXI_SILENCE_MS && (c->pty || !sbxi_input_stuck(&c->input)))
        return sbxi_command_broken(c, "no answer to a ping within 60 seconds");
    if (now < c->ping_at)
        return SBX_OK;
    c->ping_at = now + SBXI_PING_MS;
    if (!c->pinged_at)
        c->pinged_at = now;
    return sbxi_command_frame(c, SBX_WS_PING, "", 0);
}

/* Sends what is queued. SBX_OK: go on, perhaps in another state. */
static sbx_status sbxi_command_flush(sbx_command *c)
{
    sbx_status st = sbxi_command_push(c, &c->op.error);
    if (st == SBX_OK || st == SBX_AGAIN)
        return SBX_OK;
    return st == SBX_E_MEMORY ? st : sbxi_command_lost(c, 0);
}

/* Handles what has arrived. SBX_OK: there may be more, or the state is another; SBX_AGAIN: wait. */
static sbx_status sbxi_command_stream(sbx_command *c, int64_t now)
{
    /* First what is to be sent, since a step may end with each chunk that arrives. */
    sbx_status st;
    int i, more = 1;
    for (i = 0; i < SBXI_PIECES && more; i++) {
        st = sbxi_command_flush(c);
        if (st != SBX_OK || c->state != SBXI_COMMAND_STREAM)
            return st;
        st = sbxi_command_send(c, &more);
        if (st != SBX_OK)
            return st;
    }
    st = sbxi_command_flush(c);
    for (i = 0; i < SBXI_MESSAGES && st == SBX_OK; i++) {
        if (c->state != SBXI_COMMAND_STREAM || c->chunk.len)
            return st;
        if (c->on_output && sbxi_now(c->op.client) - now >= SBXI_STEP_MS)
            return st; /* a slow callback must not keep a deadline or a cancellation waiting */
        st = sbxi_command_receive(c, now);
    }
    if (st != SBX_AGAIN)
        return st;
    /* Only after reading, or an answer that was there all along would come too late. */
    st = sbxi_command_keepalive(c, now);
    if (st == SBX_OK && c->state == SBXI_COMMAND_STREAM)
        st = sbxi_command_flush(c);
    return st == SBX_OK && c->state == SBXI_COMMAND_STREAM ? SBX_AGAIN : st;
}

/* ---- the operation ---- */

/* The collected output becomes the result's, without a copy. */
static sbx_status sbxi_command_give(sbx_command *c, sbx_result **out)
{
    sbx_result *result = (sbx_result *)sbxi_object(&c->op.client->memory, sizeof(*result));
    int i;
    for (i = 0; result && i < 2; i++) {
        sbxi_buffer *b = &c->output[i].collected;
        if (sbxi_buffer_len(b) && sbxi_buffer_terminate(b) != SBX_OK) {
            sbx_free(result);
            result = NULL;
        }
    }
    if (!result)
        return sbxi_fail_memory(&c->op.error);
    result->exit_code = c->exit_code;
    result->out = result->err = "";
    result->out_lost = c->output[0].lost;
    result->err_lost = c->output[1].lost;
    result->input_lost = c->input.lost;
    for (i = 0; i < 2; i++) {
        sbxi_buffer *b = &c->output[i].collected;
        size_t len = sbxi_buffer_len(b);
        if (!len)
            continue;
        *(i ? &result->err : &result->out) = sbxi_buffer_data(b);
        *(i ? &result->err_len : &result->out_len) = len;
        sbxi_object_attach(result, i, b->data, b->cap);
        sbxi_buffer_init(b, b->memory, b->ceiling);
    }
    c->taken = 1;
    *out = result;
    return SBX_OK;
}

/* One pass through the current state. SBX_OK: go on; SBX_AGAIN: wait. */
static sbx_status sbxi_command_pass(sbx_command *c)
{
    int64_t now = sbxi_now(c->op.client);
    sbx_status st;
    switch (c->state) {
    case SBXI_COMMAND_START:
        c->budget_end = sbxi_after(now, SBXI_BUDGET_MS);
        return sbxi_command_connect(c, now);
    case SBXI_COMMAND_CONNECT:
        st = sbxi_exchange_step(&c->exchange, now, &c->op.error);
        if (st == SBX_OK)
            return sbxi_command_upgraded(c);
        if (st == SBX_E_CONNECTION || st == SBX_E_CONNECT || st == SBX_E_RESOLVE ||
            st == SBX_E_TIMEOUT)
            return sbxi_command_lost(c, 0);
        return st;
    case SBXI_COMMAND_PAUSE:
        return now < c->wake ? SBX_AGAIN : sbxi_command_connect(c, now);
    case SBXI_COMMAND_STREAM:
        return sbxi_command_stream(c, now);
    case SBXI_COMMAND_HTTP:
        st = sbxi_exchange_step(&c->exchange, now, &c->op.error);
        if (st != SBX_OK)
            return st;
        if (c->exchange.status < 200 || c->exchange.status > 299)
            return sbxi_service_error(&c->exchange, SBXI_INSIDE, "", "command", &c->op.error);
        c->state = SBXI_COMMAND_EXITED;
        c->taken = 1;
        return sbxi_run_http_done(c->op.client, &c->exchange, c->max_output, c->discard, c->out,
                                  &c->op.error);
    default:
        return SBX_OK;
    }
}

/* Attaches again, although the connection may be all right. */
static void sbxi_command_again(sbx_command *c, int64_t now)
{
    if (sbxi_command_clear(c))
        sbxi_command_goodbye(c, 1000);
    (void)sbxi_command_lose(c);
    sbxi_error_clear(&c->op.error);
    c->reconnect = c->failures = 0;
    c->budget_end = sbxi_after(now, SBXI_BUDGET_MS);
    c->wake = now;
    c->state = SBXI_COMMAND_PAUSE;
}

/* When a kill should go around input that waits: the service reads one message after the other, and
   none while the command does not take the input of the last one. */
static int64_t sbxi_command_bypass_time(const sbx_command *c)
{
    return c->state == SBXI_COMMAND_STREAM && c->kill_end && !c->bypassed &&
                   sbxi_input_stuck(&c->input)
               ? c->kill_end - SBXI_KILL_MS + SBXI_BYPASS_MS
               : SBXI_FOREVER;
}

/* The command was killed: SBX_OK as long as its end may still come. */
static sbx_status sbxi_command_killed(sbx_command *c, int64_t now)
{
    int left;
    if (!c->sent)
        return sbxi_fail_killed(c, " before it was started");
    if (!c->kill_end) {
        c->kill_end = sbxi_after(now, SBXI_KILL_MS);
        c->wake = now;
        c->bypassed = 0;
    }
    if (now < c->kill_end) {
        if (now >= sbxi_command_bypass_time(c)) {
            c->bypassed = 1;
            sbxi_command_again(c, now);
        }
        return SBX_OK;
    }
    left = sbxi_command_kill_left(c);
    sbxi_command_goodbye(c, 1000);
    return sbxi_fail_killed(c, left ? ", but the service did not tell its end within 2 s"
                                    : ", but the service could not be told so within 2 s: it may "
                                      "still be running");
}

static sbx_status sbxi_command_advance(sbx_command *c, int64_t now)
{
    sbx_status st = SBX_OK;
    if (c->reconnect)
        sbxi_command_again(c, now);
    if (sbxi_flag_get(&c->killed))
        st = sbxi_command_killed(c, now);
    return st == SBX_OK ? sbxi_command_pass(c) : st;
}

static sbx_status sbxi_command_step(sbx_op *op)
{
    sbx_command *c = (sbx_command *)op;
    int64_t end = sbxi_after(sbxi_now(op->client), SBXI_STEP_MS);
    int i;
    c->busy = 0;
    for (i = 0; i < 8 && sbxi_now(op->client) < end; i++) {
        sbx_status st;
        if (c->chunk.len && !c->given)
            return SBX_AGAIN; /* until the caller has taken it */
        c->chunk.len = 0;
        if (c->state == SBXI_COMMAND_EXITED)
            return c->out && !c->taken ? sbxi_command_give(c, c->out) : SBX_OK;
        st = sbxi_command_advance(c, sbxi_now(op->client));
        if (st != SBX_OK) {
            if (st != SBX_AGAIN && !*op->error.operation)
                op->error.operation = "command";
            return st;
        }
    }
    c->busy = 1;
    return SBX_AGAIN;
}

static int sbxi_command_wants(sbx_op *op, sbx_item *items, int cap, int64_t *wake)
{
    sbx_command *c = (sbx_command *)op;
    sbxi_connection *connection = c->exchange.connection;
    /* Behind a chunk that was given there may be more, in the connection's buffer. */
    int at_once = c->busy || c->chunk.len || c->state == SBXI_COMMAND_START || c->reconnect ||
                  (c->state == SBXI_COMMAND_STREAM && c->started && sbxi_input_ready(&c->input));
    int64_t at = at_once ? 0 : SBXI_FOREVER, sleep_ms = SBX_NONE;
    int n = 0;
    if (c->reconnect) {
        *wake = 0; /* there may be no connection to ask */
    } else if (c->state == SBXI_COMMAND_CONNECT || c->state == SBXI_COMMAND_HTTP) {
        n = sbxi_exchange_wants(&c->exchange, items, cap, wake);
    } else if (c->state == SBXI_COMMAND_PAUSE) {
        at = c->wake < at ? c->wake : at;
    } else if (c->state == SBXI_COMMAND_STREAM) {
        unsigned want = sbxi_buffer_len(&connection->out) ? SBX_READ | SBX_WRITE : SBX_READ;
        int64_t since = c->pinged_at > c->heard_at ? c->pinged_at : c->heard_at;
        n = sbxi_connection_wants(connection, want, items, cap, &sleep_ms);
        if (sleep_ms >= 0 && sbxi_after(sbxi_now(op->client), sleep_ms) < at)
            at = sbxi_after(sbxi_now(op->client), sleep_ms);
        if (c->ping_at < at)
            at = c->ping_at;
        if (c->pinged_at && since + SBXI_SILENCE_MS < at &&
            (c->pty || !sbxi_input_stuck(&c->input)))
            at = since + SBXI_SILENCE_MS;
    }
    if (sbxi_flag_get(&c->killed)) {
        int64_t bypass = sbxi_command_bypass_time(c);
        at = c->kill_end < at ? c->kill_end : at;
        at = bypass < at ? bypass : at;
    }
    if (at < *wake)
        *wake = at;
    return n;
}

static void sbxi_command_dispose(sbx_op *op)
{
    sbx_command *c = (sbx_command *)op;
    const sbx_allocator *memory = &op->client->memory;
    /* A handle that has failed may have no connection any more. */
    if (sbxi_flag_get(&c->killed) && c->state == SBXI_COMMAND_STREAM && c->exchange.connection &&
        !c->kill_at)
        (void)sbxi_command_send_kill(c);
    sbxi_command_goodbye(c, 1000);
    sbxi_exchange_free(&c->exchange);
    sbxi_input_free(&c->input);
    sbxi_buffer_free(&c->message);
    sbxi_buffer_free(&c->text);
    sbxi_buffer_free(&c->output[0].collected);
    sbxi_buffer_free(&c->output[1].collected);
    sbxi_release(memory, c->execute, c->execute_size);
    sbxi_release(memory, c->http_body, c->http_body_size);
    if (c->headers)
        sbxi_wipe(c->headers, c->headers_size);
    sbxi_release(memory, c->headers, c->headers_size);
}

static int sbxi_command_pending(const sbx_op *op)
{
    const sbx_command *c = (const sbx_command *)op;
    return c->chunk.len > 0 && !c->given;
}

static void sbxi_command_over(sbx_op *op)
{
    sbxi_input_end(&((sbx_command *)op)->input, 1);
}

static const sbxi_op_type sbxi_command_type = {sizeof(sbx_command),  sbxi_command_step,
                                               sbxi_command_wants,   sbxi_command_dispose,
                                               sbxi_command_pending, sbxi_command_over};

/* ---- starting ---- */

static void sbxi_command_set(sbx_command *c, const sbxi_run *run)
{
    const sbx_allocator *memory = &c->op.client->memory;
    size_t ceiling = run->o.max_output < SIZE_MAX ? run->o.max_output + 1 : SIZE_MAX;
    sbxi_buffer_init(&c->message, memory, c->op.client->max_message);
    sbxi_buffer_init(&c->text, memory, SIZE_MAX);
    sbxi_buffer_init(&c->output[0].collected, memory, ceiling);
    sbxi_buffer_init(&c->output[1].collected, memory, ceiling);
    c->max_output = run->o.max_output;
    c->discard = run->o.discard_output;
    c->on_output = run->o.on_output;
    c->user = run->o.user;
    c->timeout_ms = run->o.timeout_ms;
    c->own_deadline = run->o.call.timeout_ms == 0;
    c->reload_at = -500;
}

/* What a new command and one that is attached to have in common, and can fail. */
static sbx_status sbxi_command_connection(sbx_command *c, const sbx_sandbox *sandbox,
                                          const sbxi_run *run, sbx_error *err)
{
    sbx_client *client = c->op.client;
    sbx_status st = sbxi_headers_make(&client->memory, run->o.call.headers, client->headers,
                                      &c->headers, &c->headers_size, err);
    if (st == SBX_OK)
        st = sbxi_address_make(&c->exchange.to, client, sandbox->dataplane_url, "/execute/ws", NULL,
                               "", err);
    c->pty = run->o.pty;
    if (st == SBX_OK)
        st = sbxi_input_init(&c->input, client, c->handle && (run->o.pty || run->o.input), err);
    c->exchange.headers = c->headers;
    c->exchange.flags = SBXI_FRESH | SBXI_SINGLE;
    return st;
}

/* What only a new one has: its id, and the requests that start it. */
static sbx_status sbxi_command_prepare(sbx_command *c, sbxi_run *run, int may_use_http,
                                       sbx_error *err)
{
    sbx_client *client = c->op.client;
    unsigned char random[10];
    sbx_status st = sbxi_random(client, random, sizeof(random), err);
    if (st != SBX_OK)
        return st;
    sbxi_uuid7(c->id, sbxi_wall(client), random);
    run->id = c->id;
    st =
        sbxi_json_make(&client->memory, sbxi_execute_json, run, &c->execute, &c->execute_size, err);
    if (st == SBX_OK && may_use_http)
        st = sbxi_json_make(&client->memory, sbxi_run_http_json, run, &c->http_body,
                            &c->http_body_size, err);
    return st;
}

/* run is complete. Without a command the handle attaches to the one of run->id. */
static sbx_status sbxi_command_new(const sbx_sandbox *sandbox, sbxi_run *run, int handle,
                                   sbx_command **out, sbx_error *err)
{
    sbx_op *op = NULL;
    sbx_command *c;
    sbx_status st =
        sbxi_op_new(sandbox->client, &sbxi_command_type, &run->o.call, SBX_NONE, &op, err);
    *out = NULL;
    if (!op)
        return st;
    c = (sbx_command *)op;
    c->handle = handle;
    c->input.client = sandbox->client;
    sbxi_exchange_init(&c->exchange, sandbox->client, "GET");
    sbxi_command_set(c, run);
    st = sbxi_command_connection(c, sandbox, run, err);
    if (st == SBX_OK && run->command)
        st = sbxi_command_prepare(c, run, !handle && !run->o.on_output && !run->o.pty, err);
    if (st != SBX_OK) {
        sbx_op_free(op);
        return st;
    }
    *out = c;
    return SBX_OK;
}

SBX_API sbx_status sbx_run_start(const sbx_sandbox *sandbox, const char *command,
                                 const sbx_run_options *options, sbx_result **out, sbx_op **op,
                                 sbx_error *err)
{
    sbxi_run run;
    sbx_command *c;
    sbx_status st = sbxi_check_start(sandbox, out, op, err);
    if (st == SBX_OK)
        st = sbxi_check_sandbox(sandbox, err);
    if (st == SBX_OK)
        st = sbxi_run_defaults(command, options, &run, err);
    if (st == SBX_OK && run.o.input)
        st = sbxi_fail_argument(err, "input", "needs a handle: use sbx_command_start");
    if (st == SBX_OK)
        st = sbxi_command_new(sandbox, &run, 0, &c, err);
    if (st == SBX_OK) {
        c->out = out;
        *op = &c->op;
    }
    return st;
}

/* ---- handles ---- */

SBX_API sbx_status sbx_command_start(const sbx_sandbox *sandbox, const char *command,
                                     const sbx_run_options *options, sbx_command **out,
                                     sbx_error *err)
{
    sbxi_run run;
    sbx_status st = sbxi_check_out(sandbox, out, err);
    if (st == SBX_OK)
        st = sbxi_check_sandbox(sandbox, err);
    if (st == SBX_OK)
        st = sbxi_run_defaults(command, options, &run, err);
    return st == SBX_OK ? sbxi_command_new(sandbox, &run, 1, out, err) : st;
}

SBX_API sbx_status sbx_command_attach(const sbx_sandbox *sandbox, const char *id,
                                      const sbx_attach_options *options, sbx_command **out,
                                      sbx_error *err)
{
    sbxi_run run;
    sbx_attach_options o;
    sbx_command *c;
    sbx_status st = sbxi_check_out(sandbox, out, err);
    memset(&o, 0, sizeof(o));
    memset(&run, 0, sizeof(run));
    if (options)
        o = *options;
    if (st == SBX_OK)
        st = sbxi_check_sandbox(sandbox, err);
    if (st == SBX_OK)
        st = sbxi_check_name("id", id, err);
    if (st == SBX_OK && strlen(id) >= sizeof(c->id))
        st = sbxi_fail_argument(err, "id", "is longer than any command's id");
    if (st == SBX_OK && (o.out_offset > INT64_MAX || o.err_offset > INT64_MAX))
        st = sbxi_fail_argument(err, "out_offset", "(or err_offset) is larger than any offset");
    if (st != SBX_OK)
        return st;
    run.o.timeout_ms = SBX_NONE;
    run.o.input = o.input;
    run.o.pty = o.pty;
    run.o.on_output = o.on_output;
    run.o.user = o.user;
    run.o.discard_output = o.discard_output;
    run.o.max_output = o.max_output ? o.max_output : SBXI_MAX_OUTPUT;
    run.o.call = o.call;
    st = sbxi_command_new(sandbox, &run, 1, out, err);
    if (st != SBX_OK)
        return st;
    c = *out;
    memcpy(c->id, id, strlen(id) + 1);
    c->sent = c->started = 1;
    c->output[0].next = o.out_offset;
    c->output[1].next = o.err_offset;
    return SBX_OK;
}

SBX_API sbx_status sbx_command_next(sbx_command *command, sbx_chunk *chunk, int64_t timeout_ms,
                                    sbx_error *err)
{
    sbx_status st = sbxi_check_out(command, chunk, err);
    if (st != SBX_OK)
        return st;
    memset(chunk, 0, sizeof(*chunk));
    st = sbx_op_wait(&command->op, timeout_ms, err);
    if (st != SBX_OK)
        return st;
    if (!sbxi_command_pending(&command->op))
        return SBX_END;
    *chunk = command->chunk;
    command->given = 1;
    return SBX_OK;
}

SBX_API sbx_status sbx_command_result(sbx_command *command, sbx_result **out, sbx_error *err)
{
    sbx_chunk chunk;
    sbx_status st = sbxi_check_out(command, out, err);
    if (st != SBX_OK)
        return st;
    if (command->taken)
        return sbxi_fail(err, SBX_E_ARGUMENT, "the result of this command was taken before");
    do
        st = sbx_command_next(command, &chunk, SBX_NONE, err);
    while (st == SBX_OK);
    if (st != SBX_END)
        return st;
    st = sbxi_command_give(command, out);
    if (st != SBX_OK && err)
        *err = command->op.error;
    return st;
}

SBX_API void sbx_command_kill(sbx_command *command)
{
    if (!command)
        return;
    sbxi_flag_set(&command->killed);
    sbxi_wakeup(command->op.client);
}

/* What can be said of an argument without a look at the queue. */
static sbx_status sbxi_check_input(const sbx_command *command, sbx_error *err)
{
    sbxi_error_clear(err);
    if (!command)
        return sbxi_fail_argument(err, "command", "is NULL");
    if (!command->input.queue)
        return sbxi_fail_argument(err, "input",
                                  "of the options was not 1 when the handle was made");
    return SBX_OK;
}

SBX_API sbx_status sbx_command_input(sbx_command *command, const void *data, size_t len,
                                     sbx_error *err)
{
    sbx_status st = sbxi_check_input(command, err);
    if (st == SBX_OK && ((!data && len) || len > SBX_INPUT_MAX))
        st = sbxi_fail_argument(err, "data",
                                len > SBX_INPUT_MAX ? "is longer than SBX_INPUT_MAX" : "is NULL");
    return st == SBX_OK ? sbxi_input_put(&command->input, (const char *)data, len, err) : st;
}

SBX_API sbx_status sbx_command_close_input(sbx_command *command, sbx_error *err)
{
    sbx_status st = sbxi_check_input(command, err);
    return st == SBX_OK ? sbxi_input_close(&command->input, err) : st;
}

SBX_API sbx_status sbx_command_resize(sbx_command *command, int columns, int rows, sbx_error *err)
{
    sbxi_error_clear(err);
    if (!command)
        return sbxi_fail_argument(err, "command", "is NULL");
    if (!command->pty)
        return sbxi_fail_argument(err, "pty", "of the options was not 1: there is no terminal");
    if (columns < 1 || columns > 65535 || rows < 1 || rows > 65535)
        return sbxi_fail_argument(err, columns < 1 || columns > 65535 ? "columns" : "rows",
                                  "must be 1 to 65535");
    sbxi_input_resize(&command->input, columns, rows);
    return SBX_OK;
}

SBX_API sbx_status sbx_command_reconnect(sbx_command *command, sbx_error *err)
{
    sbx_op *op = (sbx_op *)command;
    sbxi_error_clear(err);
    if (!command)
        return sbxi_fail_argument(err, "command", "is NULL");
    if (command->state == SBXI_COMMAND_EXITED)
        return sbxi_fail_argument(err, "command", "has ended: there is nothing to attach to");
    command->reconnect = 1;
    command->kill_end = 0;
    sbxi_flag_clear(&command->killed);
    sbxi_flag_clear(&op->own_cancel.set);
    sbxi_input_end(&command->input, 0);
    sbxi_error_clear(&op->error);
    op->status = SBX_AGAIN;
    op->deadline = sbxi_after(sbxi_now(op->client), op->limit_ms);
    return SBX_OK;
}

SBX_API uint64_t sbx_command_offset(const sbx_command *command, int stream)
{
    if (!command || (stream != SBX_STDOUT && stream != SBX_STDERR))
        return 0;
    if (sbxi_command_pending(&command->op) && command->chunk.stream == stream)
        return command->chunk.offset; /* nobody has seen it yet */
    return command->output[stream == SBX_STDERR].next;
}

SBX_API const char *sbx_command_id(const sbx_command *command)
{
    return command ? command->id : "";
}

SBX_API int64_t sbx_command_pid(const sbx_command *command)
{
    return command ? command->pid : 0;
}

SBX_API sbx_op *sbx_command_op(sbx_command *command)
{
    return &command->op;
}

SBX_API void sbx_command_free(sbx_command *command)
{
    if (command)
        sbx_op_free(&command->op);
}

#endif /* SBX_NO_WEBSOCKET */

SBX_API sbx_status sbx_run(const sbx_sandbox *sandbox, const char *command,
                           const sbx_run_options *options, sbx_result **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_run_start(sandbox, command, options, out, &op, err), &op, err);
}
