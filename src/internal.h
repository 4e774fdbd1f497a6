/* PRIVATE: what the parts share. A part may call parts that stand before it, never the other way:

   base        memory, errors, formatting          may call: libc's memory and string functions
   buffer      byte queues with a ceiling          base
   text        UTF-8, dates, encodings             base
   number      doubles from decimal text and back  base
   json url http1 websocket multipart              the above; codecs: bytes in, bytes out
   connection  one transport stream with buffers   the above
   exchange    one HTTP request, with retries      connection
   op          step, wants, wait, cancel           connection
   response    what bodies and errors mean         exchange
   request     the operation of one exchange       op, response
   control     templates, sandboxes, ..            request
   files       reading and writing files           request
   input       bytes for a command's stdin         op
   command     running commands                    request, input
   client      configuration, life of a client     all

   Private names start with sbxi_ or SBXI_. Times are int64_t milliseconds. */
#include "public.h"

#include <limits.h>
#include <stdarg.h>
#include <string.h>
#if !defined(SBX_NO_STDLIB) || !defined(SBX_NO_ENV)
#include <stdlib.h>
#endif

/* CEILINGS: nothing in this library grows beyond these, unless the configuration says more. */
#define SBXI_MAX_LINE 16384u              /* of an HTTP head, and the reader's scratch */
#define SBXI_READ_SIZE 65536u             /* a connection's read buffer */
#define SBXI_WRITE_SIZE 65536u            /* a connection's write buffer while a body streams */
#define SBXI_MAX_REQUEST (16u << 20)      /* a request held in memory */
#define SBXI_MAX_BODY ((size_t)16 << 20)  /* default of sbx_config.max_body */
#define SBXI_MAX_MESSAGE ((size_t)16 << 20) /* default of sbx_config.max_message */
#define SBXI_MAX_OUTPUT ((size_t)64 << 20)  /* default of sbx_run_options.max_output */
#define SBXI_MAX_ERROR_BODY 65536u          /* of an error response; the rest is ignored */
#define SBXI_MAX_UPGRADE_BODY 16384u        /* of a refused WebSocket upgrade */
#define SBXI_MAX_ITEMS 100000               /* in one list that the service gives */
#define SBXI_MAX_REPLICAS 100               /* of a pool */
#define SBXI_MAX_HEADERS 64                 /* that a caller may add */
#define SBXI_MAX_IDLE 4                     /* idle connections in a client's pool */
#define SBXI_STEP_MS 50                     /* in one step, however slow callbacks are */
#define SBXI_MAX_WAIT 1024                  /* operations in one sbx_wait */

#define SBXI_FOREVER INT64_MAX /* a point in time that never comes */
#define SBXI_COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))

/* A queue of bytes: append at the end, consume at the front. */
typedef struct sbxi_buffer {
    const sbx_allocator *memory;
    char *data; /* NULL while cap is 0 */
    size_t start, end, cap;
    size_t ceiling; /* of end - start; appending beyond it is SBX_E_TOO_BIG */
} sbxi_buffer;

/* Where to connect to, and the path there. Everything lies in one block, text. */
typedef struct sbxi_address {
    char *text;
    size_t text_size;
    const char *host;
    const char *target; /* path and query, as they stand in the request line */
    uint16_t port;
    int tls;
} sbxi_address;

/* One connection: a stream of the transport, and what was read and not yet used. */
typedef struct sbxi_connection {
    sbx_client *client;
    struct sbxi_connection *next; /* in the client's pool of idle ones */
    sbx_stream *stream;
    int open;   /* connect has said SBX_OK */
    int reused; /* came out of the pool */
    int ended;  /* the peer has ended its direction */
    int broken; /* the stream has said an error */
    int flushing; /* the stream holds bytes that were written and have not left */
    uint16_t port;
    int tls;
    sbxi_buffer in, out;
    char *scratch; /* SBXI_MAX_LINE bytes for the HTTP reader; NULL before the first read */
    size_t host_size;
    char *host;
} sbxi_connection;

struct sbx_client {
    sbx_allocator memory;
    const sbx_transport *transport;
    void *state;
    char *endpoint; /* base URL without a final slash */
    int endpoint_tls;
    char *api_key; /* NULL: none */
    char *headers; /* "Name: value" lines, each with CR LF; NULL: none */
    size_t headers_size;
    int64_t timeout_ms;
    int max_retries;
    size_t max_body, max_message;
    void (*log)(void *user, int level, const char *line);
    void *log_user;
    int64_t clock, clock_raw; /* see sbxi_now */
    sbxi_connection *idle;
};

/* What an operation of one kind does. step returns SBX_AGAIN or the outcome, with op->error filled
   if it is an error. wants writes what it waits for, returns how many, and lowers *wake to the time
   when it wants to be stepped without that. dispose frees what the operation holds, but not op
   itself. */
typedef struct sbxi_op_type {
    size_t size;
    sbx_status (*step)(sbx_op *op);
    int (*wants)(sbx_op *op, sbx_item *items, int cap, int64_t *wake);
    void (*dispose)(sbx_op *op);
    int (*pending)(const sbx_op *op); /* 1: the caller has something to fetch. NULL: never */
    void (*over)(sbx_op *op);         /* it has ended, in whatever way. NULL: does not matter */
} sbxi_op_type;

struct sbx_op {
    const sbxi_op_type *type;
    sbx_client *client;
    sbx_status status; /* SBX_AGAIN until it is over, and then for good */
    sbx_error error;
    int64_t deadline; /* of the whole call */
    int64_t limit_ms; /* the length of that, for the message */
    sbx_cancel *cancel;
    sbx_cancel own_cancel; /* sbx_op_cancel */
    int attempts; /* to reach the service, so far */
    int stepping;
};
