/* input: the bytes for a command's stdin, from the caller's call until the service has read them.

   Promises: keeps the order; sends nothing twice; knows at any time how many bytes were sent of
   which it is not known whether they have arrived. The service does not acknowledge input, but a
   WebSocket's messages are read in order: once it answers a ping, it has read what was sent before.
   So a ping goes with every piece, and holds the number of bytes up to there.

   What callers of other threads use is under the transport's lock: everything up to the step's own
   part below. May call op. */
#include "internal.h"

#ifndef SBX_NO_WEBSOCKET

#define SBXI_INPUT_PIECE 16384 /* in one message */

typedef enum sbxi_closing {
    SBXI_OPEN,
    SBXI_CLOSE_ASKED,
    SBXI_CLOSE_SENT,
    SBXI_CLOSE_READ /* by the service */
} sbxi_closing;

typedef struct sbxi_input {
    sbx_client *client;
    volatile int news; /* 1: the step should have a look */
    /* Under the lock. */
    char *queue; /* of SBX_INPUT_MAX bytes that were not sent; NULL: there is no input */
    size_t len;
    sbx_utf8 utf8; /* of all that was taken */
    sbxi_closing closing;
    int ended;               /* nothing will be sent any more */
    int columns, rows, size; /* size: 1 if it is to be sent */
    /* The step's own. */
    size_t framed;       /* so many bytes at the queue's start are in a message that has not left */
    uint64_t frame_end;  /* see sbxi_input_left */
    uint64_t sent, read; /* bytes that have left; that the service has read */
    uint64_t lost;
    int waiting; /* there was something to send that could not be sent yet */
} sbxi_input;

static void sbxi_input_lock(const sbxi_input *in)
{
    if (in->client->transport->lock)
        in->client->transport->lock(in->client->state);
}

static void sbxi_input_unlock(const sbxi_input *in)
{
    if (in->client->transport->unlock)
        in->client->transport->unlock(in->client->state);
}

/* ---- for callers ---- */

static sbx_status sbxi_input_init(sbxi_input *in, sbx_client *client, int wanted, sbx_error *err)
{
    in->client = client;
    if (!wanted)
        return SBX_OK;
    in->queue = (char *)sbxi_alloc(&client->memory, SBX_INPUT_MAX);
    return in->queue ? SBX_OK : sbxi_fail_memory(err);
}

static void sbxi_input_free(sbxi_input *in)
{
    if (in->queue) {
        sbxi_wipe(in->queue, SBX_INPUT_MAX); /* it may have been a password */
        sbxi_release(&in->client->memory, in->queue, SBX_INPUT_MAX);
    }
}

static void sbxi_input_tell(sbxi_input *in)
{
    sbxi_flag_set(&in->news);
    sbxi_wakeup(in->client);
}

/* Whether anything can be taken; the lock is held. */
static sbx_status sbxi_input_check(const sbxi_input *in, sbx_error *err)
{
    sbx_status st;
    if (in->closing == SBXI_OPEN && !in->ended)
        return SBX_OK;
    st = sbxi_fail(err, SBX_E_OPERATION,
                   in->ended ? "the command takes no input: it has ended, or this handle has failed"
                             : "the command's stdin was closed before");
    if (err)
        err->operation = "command";
    return st;
}

static sbx_status sbxi_input_put(sbxi_input *in, const char *data, size_t len, sbx_error *err)
{
    sbx_utf8 utf8;
    sbx_status st;
    sbxi_input_lock(in);
    st = sbxi_input_check(in, err);
    if (st == SBX_OK && len > SBX_INPUT_MAX - in->len)
        st = SBX_AGAIN;
    utf8 = in->utf8;
    if (st == SBX_OK && !sbx_utf8_check(&utf8, data, len))
        st = sbxi_fail_argument(err, "data", "must be UTF-8");
    if (st == SBX_OK && len) {
        memcpy(in->queue + in->len, data, len);
        in->len += len;
        in->utf8 = utf8;
    }
    sbxi_input_unlock(in);
    if (st == SBX_OK)
        sbxi_input_tell(in);
    return st;
}

static sbx_status sbxi_input_close(sbxi_input *in, sbx_error *err)
{
    sbx_status st;
    sbxi_input_lock(in);
    st = sbxi_input_check(in, err);
    if (st == SBX_OK && in->utf8.state != 0)
        st = sbxi_fail_argument(err, "data", "ended within a character: no UTF-8");
    if (st == SBX_OK)
        in->closing = SBXI_CLOSE_ASKED;
    sbxi_input_unlock(in);
    if (st == SBX_OK)
        sbxi_input_tell(in);
    return st;
}

static void sbxi_input_resize(sbxi_input *in, int columns, int rows)
{
    sbxi_input_lock(in);
    in->columns = columns;
    in->rows = rows;
    in->size = 1;
    sbxi_input_unlock(in);
    sbxi_input_tell(in);
}

/* The command has ended, or (0) goes on after all. */
static void sbxi_input_end(sbxi_input *in, int ended)
{
    sbxi_input_lock(in);
    in->ended = ended;
    sbxi_input_unlock(in);
}

/* ---- for the step ---- */

typedef enum sbxi_input_message {
    SBXI_INPUT_NONE,
    SBXI_INPUT_DATA,
    SBXI_INPUT_CLOSE,
    SBXI_INPUT_SIZE
} sbxi_input_message;

/* The bytes at the queue's start that make the next message: whole characters. */
static size_t sbxi_input_whole(const sbxi_input *in)
{
    size_t n = in->len;
    if (n > SBXI_INPUT_PIECE)
        return sbxi_cut(in->queue, SBXI_INPUT_PIECE);
    if (in->utf8.state != 0) /* the end of a character is to come */
        do
            n--;
        while (((unsigned char)in->queue[n] & 0xc0) == 0x80);
    return n;
}

/* Writes the next message to w, if there is one that can be sent now. */
static sbxi_input_message sbxi_input_next(sbxi_input *in, sbx_json_writer *w)
{
    sbxi_input_message kind = SBXI_INPUT_NONE;
    size_t n;
    sbxi_input_lock(in);
    n = in->queue ? sbxi_input_whole(in) : 0;
    sbx_json_begin_object(w);
    sbx_json_key(w, "type");
    if (in->size) {
        kind = SBXI_INPUT_SIZE;
        in->size = 0;
        sbx_json_string(w, "resize", 6);
        sbx_json_key(w, "cols");
        sbx_json_integer(w, in->columns);
        sbx_json_key(w, "rows");
        sbx_json_integer(w, in->rows);
    } else if (in->framed) {
        n = 0; /* first that message has to leave */
    } else if (n && in->sent - in->read < SBX_INPUT_MAX) {
        kind = SBXI_INPUT_DATA;
        in->framed = n;
        sbx_json_string(w, "input", 5);
        sbx_json_key(w, "data");
        sbx_json_string(w, in->queue, n);
    } else if (!in->len && in->closing == SBXI_CLOSE_ASKED) {
        kind = SBXI_INPUT_CLOSE;
        in->closing = SBXI_CLOSE_SENT;
        sbx_json_string(w, "close_stdin", 11);
    }
    in->waiting = (in->queue && sbxi_input_whole(in) > in->framed) || in->framed || in->size ||
                  in->closing == SBXI_CLOSE_ASKED;
    sbx_json_end_object(w);
    sbxi_input_unlock(in);
    return kind;
}

/* 1 if it is worth asking for the next message. */
static int sbxi_input_ready(sbxi_input *in)
{
    return sbxi_flag_get(&in->news) ||
           (in->waiting && !in->framed && in->sent - in->read < SBX_INPUT_MAX);
}

/* The largest message: each byte may take six ("\\u0001"). */
#define SBXI_INPUT_MESSAGE (6 * SBXI_INPUT_PIECE + 64)

/* What the ping behind the newest message holds: how many bytes went before, and if that was all. */
#define SBXI_INPUT_PING 9
static void sbxi_input_ping(const sbxi_input *in, unsigned char out[SBXI_INPUT_PING])
{
    uint64_t n = in->sent + in->framed;
    int i;
    for (i = 0; i < 8; i++)
        out[i] = (unsigned char)(n >> (56 - 8 * i) & 0xff);
    sbxi_input_lock(in);
    out[8] = in->closing == SBXI_CLOSE_SENT;
    sbxi_input_unlock(in);
}

/* A pong came: the service has read what its ping names. */
static void sbxi_input_pong(sbxi_input *in, const char *data, size_t len)
{
    uint64_t n = 0;
    size_t i;
    if (len != SBXI_INPUT_PING)
        return;
    for (i = 0; i < 8; i++)
        n = n << 8 | (unsigned char)data[i];
    if (n > in->read && n <= in->sent)
        in->read = n;
    sbxi_input_lock(in);
    if (data[8] && n == in->sent && in->closing == SBXI_CLOSE_SENT)
        in->closing = SBXI_CLOSE_READ;
    sbxi_input_unlock(in);
}

/* The connection has written so many bytes in all. When the message with input has left, its bytes
   are out of our hands. */
static void sbxi_input_left(sbxi_input *in, uint64_t written)
{
    if (!in->framed || written < in->frame_end)
        return;
    sbxi_input_lock(in);
    memmove(in->queue, in->queue + in->framed, in->len - in->framed);
    in->len -= in->framed;
    sbxi_input_unlock(in);
    in->sent += in->framed;
    in->framed = 0;
}

/* How many bytes were sent of which it is not known whether the service has read them. */
static uint64_t sbxi_input_doubt(const sbxi_input *in)
{
    return in->sent - in->read;
}

/* 1: the service has not read all that it could have read, as a command does that lets its input
   wait. */
static int sbxi_input_stuck(const sbxi_input *in)
{
    return in->framed || in->sent != in->read;
}

/* The connection is lost. What did not leave, and what may be said twice, is for the next one. */
static void sbxi_input_lost(sbxi_input *in)
{
    in->framed = 0;
    in->lost += in->sent - in->read;
    in->read = in->sent;
    sbxi_input_lock(in);
    if (in->closing == SBXI_CLOSE_SENT)
        in->closing = SBXI_CLOSE_ASKED;
    in->size = in->columns > 0;
    sbxi_input_unlock(in);
    sbxi_flag_set(&in->news);
}

#endif /* SBX_NO_WEBSOCKET */
