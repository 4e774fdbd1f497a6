/*
sandbox.h - run code in a remote sandbox, from C. Version 0.1.0. Public domain or MIT, at the end.

LangSmith Sandbox runs untrusted code in isolated containers. This header speaks its whole protocol:
HTTP, WebSocket, JSON and reconnecting are inside; sockets come from a transport, a small table of
functions. sandbox_posix.h is the one for Linux, macOS and the BSDs.

TO USE IT, copy sandbox.h and sandbox_posix.h into your project. In one C or C++ file write

    #define SANDBOX_IMPLEMENTATION
    #include "sandbox.h"
    #include "sandbox_posix.h"

and include sandbox.h without the #define wherever you need the declarations. A whole program:

    // example: complete
    #define SANDBOX_IMPLEMENTATION
    #include "sandbox.h"
    #include "sandbox_posix.h"
    #include <stdio.h>

    static sbx_status body(void *user, const sbx_sandbox *sandbox, sbx_error *err)
    {
        sbx_result *result;
        sbx_status status = sbx_run(sandbox, "uname -a", NULL, &result, err);
        (void)user;
        if (status == SBX_OK)
            printf("%sexit code %d\n", result->out, result->exit_code);
        sbx_free(result);
        return status;
    }

    int main(void)
    {
        sbx_config config = {0};
        sbx_client *client;
        sbx_error err;

        config.transport = sbx_posix(); // LANGSMITH_ENDPOINT, LANGSMITH_API_KEY
        if (sbx_open(&config, &client, &err) == SBX_OK)
            sbx_with_sandbox(client, NULL, body, NULL, &err);
        if (err.status != SBX_OK)
            fprintf(stderr, "%s\n", err.message);
        sbx_close(client);
        return err.status != SBX_OK;
    }

sbx_with_sandbox makes a sandbox, calls body with it and deletes it, whatever happens. What should
stay is made by sbx_sandbox_create and deleted by sbx_sandbox_delete.

CONTENTS

    build options           below this manual, with the version
    status, sbx_error       what calls return and what went wrong
    sbx_transport           what the library needs of the world, and how to write your own
    sbx_client              configuration
    operations              deadlines, cancelling, event loops
    templates, volumes,     the control plane: images and resources, files that persist,
    pools, sandboxes        sandboxes kept ready, sandboxes
    commands                running them, reading their output as it comes, input, terminals,
                            killing, attaching from elsewhere
    files                   reading and writing them, also in constant memory
    codecs                  URL, JSON, HTTP/1.1, multipart, WebSocket, each usable alone
    the implementation      part by part; internal.h has the map

CONVENTIONS

  Zero means default. Zero an options struct, then set what you need: 0 and NULL are always the
  documented default. SBX_NONE (-1) switches a limit off.

  Times are int64_t milliseconds and end in _ms. Sizes are size_t bytes. Strings are UTF-8; what you
  pass in ends with a 0 and is copied before the call returns, unless its comment says "lent".

  A call returns an sbx_status: SBX_OK is 0, errors are negative. Results go through pointers, which
  are NULL after a failure. The last argument says what went wrong, in a sentence; it may be NULL.

  What a call gives you is one allocation: sbx_free frees it with all that it points at. What is lent
  to you says until when.

  A client, and all that it made, belongs to one thread at a time. sbx_cancel_set, sbx_op_cancel
  and sbx_command_kill may be called from any thread and from signal handlers; sbx_command_input,
  _close_input and _resize from any thread. There are no globals; different clients never meet.

  Your callbacks must return: no longjmp and no C++ exception may pass through the library.

  Undefined, as everywhere in C: pointers that do not point to what the declaration says, and objects
  used after they were freed. All else is an error with a name.

ERRORS. Look at the status, or at its family:

    // example: errors
    sbx_result *result;
    sbx_run_options options = {0};
    options.timeout_ms = 10000;
    if (sbx_run(sandbox, "sleep 999", &options, &result, &err) != SBX_OK) {
        if (err.status == SBX_E_COMMAND_TIMEOUT)
            puts("too slow");
        else if (sbx_status_is(err.status, SBX_E_CONNECTION))
            printf("network: %s\n", err.message);
        else
            printf("%s %s\n", sbx_status_name(err.status), err.message);
    }
    sbx_free(result);

OUTPUT AS IT COMES, by a handle whose chunks you fetch, or by options.on_output:

    // example: chunks
    sbx_command *command;
    sbx_chunk chunk;
    if (sbx_command_start(sandbox, "make build", NULL, &command, &err) == SBX_OK) {
        while (sbx_command_next(command, &chunk, SBX_NONE, &err) == SBX_OK)
            fwrite(chunk.data, 1, chunk.len, chunk.stream == SBX_STDERR ? stderr : stdout);
        sbx_command_free(command);
    }

A lost connection is repaired inside these calls, and no byte is lost or seen twice. Where the service
itself has forgotten output meanwhile, chunk.lost and result->out_lost say how much.

TALKING TO A COMMAND, with options.input for its stdin or options.pty for a terminal, and ending it:

    // example: input
    sbx_run_options options = {0};
    sbx_command *command;
    sbx_result *result;
    options.input = 1;
    if (sbx_command_start(sandbox, "sort", &options, &command, &err) == SBX_OK) {
        sbx_command_input(command, "pear\napple\n", 11, &err);
        sbx_command_close_input(command, &err);
        if (sbx_command_result(command, &result, &err) == SBX_OK) {
            printf("%s", result->out);
            sbx_free(result);
        }
        sbx_command_kill(command); // from any thread, any signal handler; no harm when it has ended
        sbx_command_free(command);
    }

A command that is left running is found again, also by another process, with sbx_command_attach.

WITHOUT BLOCKING. Every call has a _start form that makes an operation for your own event loop:

    // example: operations
    sbx_result *result;
    sbx_op *op;
    if (sbx_run_start(sandbox, "make test", NULL, &result, &op, &err) == SBX_OK) {
        sbx_item items[SBX_ITEMS];
        int64_t timeout_ms;
        int n;
        while (sbx_op_step(op, &err) == SBX_AGAIN) {
            n = sbx_op_wants(op, items, SBX_ITEMS, &timeout_ms);
            printf("wait for %d handles, %d ms at most\n", n, (int)timeout_ms); // poll() here
        }
        sbx_op_free(op);
        sbx_free(result);
    }

The blocking calls are these, with the transport's own wait in the middle, and nothing more.
*/

/* Made by amalgamate.py from the files that the headings name. Change those. */

/* ==== src/public.h ============================================================================ */

#ifndef SBX_PUBLIC_H
#define SBX_PUBLIC_H

#include <stddef.h>
#include <stdint.h>

#define SBX_VERSION_MAJOR 0
#define SBX_VERSION_MINOR 1
#define SBX_VERSION_PATCH 0
#define SBX_VERSION "0.1.0"

/* BUILD OPTIONS. Define them the same way in every file that includes this header.

   SBX_STATIC         every function is static: the library is private to the one file that has it
   SBX_API            your own decoration of the public functions, for example a DLL export
   SBX_NO_CONTROL     leaves out templates, volumes, pools and the life of sandboxes;
                      sbx_sandbox_at stays
   SBX_NO_FILES       leaves out reading and writing files in a sandbox
   SBX_NO_WEBSOCKET   leaves out the WebSocket codec and command handles; sbx_run uses HTTP
   SBX_NO_ENV         never reads environment variables
   SBX_NO_STDLIB      no realloc and free: sbx_config.allocator is then required
   SBX_NO_SIMD        portable C only, no SSE2 or NEON */
#ifndef SBX_API
#ifdef SBX_STATIC
#if defined(__GNUC__)
#define SBX_API static __attribute__((unused))
#else
#define SBX_API static
#endif
#else
#define SBX_API extern
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* No limit, never, or none: for every member and argument that documents it. */
#define SBX_NONE (-1)

/* ------------------------------------------------------------------------------------- status */

/* What a call returned. Values are frozen: new ones are only ever added. Zero and positive values
   are not errors. An error may belong to a family, see sbx_status_is. */
typedef enum sbx_status {
    SBX_OK = 0,
    SBX_AGAIN = 1, /* no progress is possible now: wait as sbx_op_wants says, or feed more bytes */
    SBX_END = 2,   /* the stream, document or command ended in good order */

    /* This program: the call, its arguments, its limits. */
    SBX_E_ARGUMENT = -1,  /* an argument is wrong; nothing was sent. The message names it */
    SBX_E_MEMORY = -2,    /* the allocator returned NULL */
    SBX_E_CANCELLED = -3, /* sbx_cancel_set, sbx_op_cancel, or the transport's wait said so */
    SBX_E_TIMEOUT = -4,   /* the call's own time limit (sbx_call.timeout_ms) passed */
    SBX_E_TOO_BIG = -5,   /* a limit of this library or of the configuration was exceeded */
    SBX_E_ABORTED = -6,   /* one of your callbacks returned non-zero */
    SBX_E_ENTROPY = -7,   /* the transport could not supply random bytes */
    SBX_E_UNSUPPORTED = -8, /* the transport lacks a hook, or this build lacks the part */
    SBX_E_FILE = -9,        /* a local file could not be read or written */

    /* The way to the service. Family: SBX_E_CONNECTION. */
    SBX_E_CONNECTION = -20,    /* the connection broke, or could not be used; also the family */
    SBX_E_RESOLVE = -21,       /* the host's name has no address */
    SBX_E_CONNECT = -22,       /* no address of the host accepted a connection */
    SBX_E_TLS = -23,           /* the peer could not be verified, or TLS is not available */
    SBX_E_PROTOCOL = -24,      /* the peer broke HTTP, WebSocket or JSON */
    SBX_E_SERVER_RELOAD = -25, /* the server closed to restart (WebSocket close code 1001) */

    /* The service's own answer. Family: SBX_E_SERVICE. */
    SBX_E_SERVICE = -40,        /* an error without a class of its own; also the family */
    SBX_E_API = -41,            /* the endpoint failed (500), or is not the service's */
    SBX_E_AUTHENTICATION = -42, /* the API key is missing or refused */
    SBX_E_NOT_FOUND = -43,      /* the resource does not exist: see resource_type */
    SBX_E_VALIDATION = -44,     /* a field was refused: see field and details */
    SBX_E_QUOTA = -45,          /* a quota is used up: see quota_type */
    SBX_E_ALREADY_EXISTS = -46, /* a resource of that name exists */
    SBX_E_NAME_CONFLICT = -47,  /* the new name is taken */
    SBX_E_IN_USE = -48,         /* something else still refers to the resource */
    SBX_E_CREATION = -49,       /* provisioning failed: see resource_type and error_type */
    SBX_E_RESOURCE_TIMEOUT = -50, /* not ready in time: see resource_type and last_status */
    SBX_E_NOT_READY = -51,        /* the sandbox is not ready for operations yet */
    SBX_E_NO_DATAPLANE = -52,     /* the sandbox has no data-plane URL */

    /* What ran inside the sandbox. Family: SBX_E_OPERATION, itself in SBX_E_SERVICE. */
    SBX_E_OPERATION = -60,      /* the operation failed inside the sandbox: see operation */
    SBX_E_COMMAND_TIMEOUT = -61 /* the command ran longer than its timeout_ms and was killed */
} sbx_status;

/* 1 if status is family or belongs to it, else 0. Every status is its own family. */
SBX_API int sbx_status_is(sbx_status status, sbx_status family);

/* The name of a status as it stands above, for example "SBX_E_NOT_FOUND"; never NULL. */
SBX_API const char *sbx_status_name(sbx_status status);

/* One refused field of a validation error. All strings are NUL-terminated and may be cut. */
typedef struct sbx_error_detail {
    char field[48];
    char type[32];
    char message[112];
} sbx_error_detail;

/* How many details an sbx_error keeps. */
#define SBX_ERROR_DETAILS 4

/* Why a call failed. Yours, by value: it points at nothing but static text and there is nothing to
   free. Every call that takes an sbx_error * accepts NULL, and sets all of it whatever it returns:
   after success status is SBX_OK and message is "". No string is ever NULL, and none holds the API
   key. Texts from the service are cut to fit, at a character's boundary. */
typedef struct sbx_error {
    sbx_status status;         /* what the call returned */
    int http_status;           /* of the failing response; 0: there was none */
    int close_code;            /* of the WebSocket close frame; 0: there was none */
    int native_code;           /* errno or TLS code as the transport gave it; 0: none */
    int port;                  /* that the error is about; 0: none */
    int attempts;              /* how often it was tried; 0: nothing was sent */
    const char *resource_type; /* static: "sandbox", "template", "file", .. or "" */
    const char *operation;     /* static: "command", "read", "write", "reconnect", "kill" or "" */
    const char *quota_type;    /* static: "sandbox_count", "cpu", "memory", .. or "" */
    char error_type[64];       /* the service's own name of the error, or "" */
    char field[64];            /* the argument or field that was refused, or "" */
    char last_status[32];      /* the resource's last known status, or "" */
    char message[512];         /* one sentence, with what to do about it where we know */
    int detail_count;          /* how many details the service sent; the first ones are kept */
    sbx_error_detail details[SBX_ERROR_DETAILS];
} sbx_error;

/* ---------------------------------------------------------------------------------- transport */

/* THE TRANSPORT is all that the library knows of the world outside: byte streams, time, randomness.
   transports/sandbox_posix.h is one; writing your own takes about a hundred lines. Nothing here may
   block but wait. */

/* What to wait for: a handle that your wait hook understands (a file descriptor, mostly). */
enum { SBX_READ = 1, SBX_WRITE = 2 };
typedef struct sbx_item {
    intptr_t handle;
    unsigned want; /* SBX_READ | SBX_WRITE */
} sbx_item;

/* The most items that one operation ever waits for. */
#define SBX_ITEMS 8

/* A byte stream: a socket, or TLS over a stream. Implementations start with an sbx_stream.
   An error status is final for the stream: afterwards only close is called. After a failed write
   also read, until it says anything but SBX_OK: the peer may have said why it stopped listening. */
typedef struct sbx_stream sbx_stream;
typedef struct sbx_stream_methods {
    /* Goes on connecting. SBX_AGAIN: call again when something of wants happened. SBX_OK: usable;
       for TLS: the peer is verified. Errors: SBX_E_RESOLVE, _CONNECT, _TLS, _CONNECTION. */
    sbx_status (*connect)(sbx_stream *s);

    /* SBX_OK: 1 <= *n <= cap bytes are in buf. SBX_AGAIN: none now. SBX_END: the peer has ended
       its direction in good order. The library reads until SBX_AGAIN before it waits, so bytes
       held inside a TLS layer are never missed. *n is 0 unless SBX_OK. */
    sbx_status (*read)(sbx_stream *s, void *buf, size_t cap, size_t *n);

    /* SBX_OK: the first 1 <= *n <= len bytes are taken. SBX_AGAIN: none now. Never raises a
       signal. *n is 0 unless SBX_OK. */
    sbx_status (*write)(sbx_stream *s, const void *buf, size_t len, size_t *n);

    /* SBX_OK: nothing that write has taken is left in this layer. NULL: write never buffers. */
    sbx_status (*flush)(sbx_stream *s);

    /* What the stream waits for: writes at most cap (>= SBX_ITEMS) items and returns how many.
       want is what the layers above need, SBX_READ | SBX_WRITE, 0 while connecting; a layer may
       wait for something else (a TLS write may have to read). *timeout_ms comes in as the longest
       sleep that the caller wants, SBX_NONE for any, and may be lowered. */
    int (*wants)(sbx_stream *s, unsigned want, sbx_item *items, int cap, int64_t *timeout_ms);

    /* Frees s and the stream below it. Never blocks, never fails. */
    void (*close)(sbx_stream *s);
} sbx_stream_methods;

struct sbx_stream {
    const sbx_stream_methods *methods;
    int native_code;    /* why the last error: errno, TLS alert; 0: none */
    const char *detail; /* the same in words, or NULL; valid until close */
};

/* Kept by reference: must outlive its clients. Hooks marked "optional" may be NULL. `state` is what
   open gave, or user where open is NULL. A client calls its hooks from its own thread, except
   wakeup, which any thread and any signal handler may call, and lock and unlock, for any thread. */
typedef struct sbx_transport {
    void *user;

    /* Optional: what one client needs of its own (a wake-up pipe, say). Called by sbx_open and
       sbx_close. On failure *state is not used. */
    sbx_status (*open)(void *user, void **state);
    void (*close)(void *state);

    /* Begins a connection to host (a name or a numeric address, IPv6 without brackets) and port.
       Must not block: names are resolved inside the stream's connect. On failure *out is NULL. */
    sbx_status (*dial)(void *state, const char *host, uint16_t port, sbx_stream **out);

    /* Optional: wraps lower in TLS and owns it, on failure too. MUST verify the certificate chain
       and that it names host. Without this hook https fails with SBX_E_TLS: there is no fall-back
       to clear text. */
    sbx_status (*secure)(void *state, sbx_stream *lower, const char *host, sbx_stream **out);

    /* Sleeps until one of the items is ready, wakeup was called, or the time is up (SBX_NONE: no
       limit). Returning SBX_OK early is fine; SBX_E_CANCELLED ends the blocking call. n may be 0.
       Optional: without it only sbx_op_step can be used. */
    sbx_status (*wait)(void *state, const sbx_item *items, int n, int64_t timeout_ms);

    /* Optional: makes the current wait, or the next one, return at once. Callable from any thread
       and from a signal handler. Without it sbx_op_wait never sleeps longer than 100 ms. */
    void (*wakeup)(void *state);

    /* Milliseconds of a monotonic clock with any epoch. */
    int64_t (*now_ms)(void *state);

    /* Optional: milliseconds since 1970 in UTC, for Retry-After dates and time-ordered ids. */
    int64_t (*wall_ms)(void *state);

    /* Fills buf from a cryptographically secure source, or fails with SBX_E_ENTROPY. */
    sbx_status (*entropy)(void *state, void *buf, size_t len);

    /* Optional, both or none: a mutex, held for moments only. Without it, what takes input for a
       command must be called by the client's own thread. */
    void (*lock)(void *state);
    void (*unlock)(void *state);
} sbx_transport;

/* Memory from where you want it. resize(user, NULL, 0, n) allocates, resize(user, p, old, n) moves
   or grows, resize(user, p, old, 0) frees and returns NULL. NULL for n > 0 is a failure and leaves
   p as it was. */
typedef struct sbx_allocator {
    void *(*resize)(void *user, void *p, size_t old_size, size_t new_size);
    void *user;
} sbx_allocator;

/* ------------------------------------------------------------------------------------- client */

/* A configuration and a pool of idle connections. A client and all that it made belong to one
   thread at a time; only the functions that say so may be called from others. */
typedef struct sbx_client sbx_client;

enum { SBX_LOG_WARNING = 1, SBX_LOG_INFO = 2, SBX_LOG_DEBUG = 3 };

typedef struct sbx_config {
    const sbx_transport *transport; /* required; kept by reference */

    /* The control plane's base URL, http or https. NULL: LANGSMITH_ENDPOINT, else
       LANGCHAIN_ENDPOINT, else "https://api.smith.langchain.com", with "/v2/sandboxes" appended.
       Environment values that are empty or white space count as unset. */
    const char *endpoint;

    /* Sent as X-Api-Key to the endpoint and to the data planes that it names, never over clear
       text to another machine unless the endpoint itself is http. NULL: LANGSMITH_API_KEY, else
       LANGCHAIN_API_KEY; without one, no header is sent. Copied, and wiped by sbx_close. */
    const char *api_key;

    /* "Name: value" lines sent with every request and WebSocket upgrade, ended by NULL. One of
       these replaces a header of the library's own with the same name, except those that frame
       the message (Host, Content-Length, Transfer-Encoding, Connection, Upgrade, Sec-*), which
       are refused. NULL: none. */
    const char *const *headers;

    int64_t timeout_ms;  /* 0: 10,000 for each control-plane request; SBX_NONE: no limit */
    int max_retries;     /* 0: 3 more attempts where a repetition is safe, after pauses of seconds;
                            SBX_NONE: none. A Retry-After of more than a minute is not waited for */
    size_t max_body;     /* 0: 16 MiB held in memory of one response; more is SBX_E_TOO_BIG */
    size_t max_message;  /* 0: 16 MiB of one WebSocket message */
    sbx_allocator allocator; /* {0}: realloc and free */

    /* What happens, one line at a time, without secrets. level is one of SBX_LOG_*. NULL: silent.
       May be called by every function that takes the client or something it made. */
    void (*log)(void *user, int level, const char *line);
    void *log_user;
} sbx_config;

/* Checks config and makes a client, without any traffic. Fails with SBX_E_ARGUMENT, SBX_E_MEMORY or
   what the transport's open says; *out is NULL then. config and what it points at, except the
   transport, may go afterwards. */
SBX_API sbx_status sbx_open(const sbx_config *config, sbx_client **out, sbx_error *err);

/* Closes the idle connections, wipes the key, frees the client. Free first the operations, command
   handles and sandboxes made by it. NULL is fine. */
SBX_API void sbx_close(sbx_client *client);

/* Frees what a call gave you: a sandbox, a template, a list, a result, the bytes of a file. One
   call frees the object and all that it points at. NULL is fine. */
SBX_API void sbx_free(void *object);

/* --------------------------------------------------------------------------------- operations */

/* Ends calls from outside: set all of it to 0, put its address into the sbx_call of any number of
   calls of one client, and call sbx_cancel_set. It stays set until you set it to 0 again. */
typedef struct sbx_cancel {
    volatile int set;
} sbx_cancel;

/* Makes every call that was given cancel end with SBX_E_CANCELLED within 250 ms, wherever it is:
   resolving, connecting, waiting between two attempts. For any thread and any signal handler.
   client may be NULL: then nothing is woken, and calls see it at their next step, as they do in a
   loop of your own. */
SBX_API void sbx_cancel_set(sbx_client *client, sbx_cancel *cancel);

/* What every call can be told. A NULL sbx_call * and a zero struct mean the defaults. */
typedef struct sbx_call {
    int64_t timeout_ms;         /* for the whole call with all attempts; 0: none but the limits that
                                   each call documents; SBX_NONE: none at all */
    const char *const *headers; /* more "Name: value" lines, ended by NULL; they replace those of
    the client with the same name, whatever the case */
    sbx_cancel *cancel;         /* or NULL; must outlive the call */
} sbx_call;

/* Every call is an operation: a state machine that never blocks. The blocking function NAME is
   NAME_start, sbx_op_wait and sbx_op_free. An operation keeps its own copy of all that it needs of
   the arguments, except callbacks, their user pointers, and buffers that are said to be lent. */
typedef struct sbx_op sbx_op;

/* Does all that can be done without waiting. SBX_AGAIN: wait, then call again; calling too often is
   harmless. SBX_OK: done, the results that the start named are set. Errors are final and sticky:
   every later call says the same. Callbacks are called from here only. */
SBX_API sbx_status sbx_op_step(sbx_op *op, sbx_error *err);

/* What to wait for after a step that returned SBX_AGAIN. Writes at most cap (use SBX_ITEMS) items
   and returns how many; *timeout_ms is how long to wait at most, SBX_NONE for any time. Both go
   straight into poll(). Ask again after every step. What another thread or a signal handler wants
   (sbx_op_cancel, sbx_command_kill, sbx_command_input, ..) does not end your poll(): have it wake
   your loop up too, and step then. */
SBX_API int sbx_op_wants(sbx_op *op, sbx_item *items, int cap, int64_t *timeout_ms);

/* The one blocking loop: step, then the transport's wait, until it is done (SBX_OK or an error) or
   timeout_ms have passed (SBX_AGAIN: the operation goes on when you call again). */
SBX_API sbx_status sbx_op_wait(sbx_op *op, int64_t timeout_ms, sbx_error *err);

/* The same for n (at most 1,024) operations of one client: waits until at least one of them is done.
   Finished ones count, so take them out of the array. SBX_OK: at least one is done; SBX_AGAIN: the
   time is up; SBX_E_ARGUMENT or what the transport's wait says. */
SBX_API sbx_status sbx_wait(sbx_op *const *ops, int n, int64_t timeout_ms, sbx_error *err);

/* Asks the operation to end with SBX_E_CANCELLED. For any thread and any signal handler, as long as
   the operation is not freed meanwhile. */
SBX_API void sbx_op_cancel(sbx_op *op);

/* At any time but from a callback of this operation: cancels it if it is still going and frees it.
   Its connection goes back to the pool if the exchange was complete. NULL is fine. */
SBX_API void sbx_op_free(sbx_op *op);

#ifndef SBX_NO_CONTROL
/* ---------------------------------------------------------------------------------- templates */

/* A template names an image and the resources of the sandboxes made from it. Free with sbx_free.
   Strings are never NULL; what the service did not send is "". */
typedef struct sbx_volume_mount {
    const char *volume_name;
    const char *mount_path;
} sbx_volume_mount;

typedef struct sbx_template {
    const char *name;
    const char *image;
    const char *cpu;     /* "500m" */
    const char *memory;  /* "512Mi" */
    const char *storage; /* "" when not limited */
    const sbx_volume_mount *volume_mounts;
    size_t volume_mount_count;
    const char *id;
    const char *created_at;
    const char *updated_at;
} sbx_template;

typedef struct sbx_templates {
    const sbx_template *items;
    size_t count;
} sbx_templates;

typedef struct sbx_template_options {
    const char *name;    /* required */
    const char *image;   /* required: "python:3.12-slim" */
    const char *cpu;     /* NULL: "500m" */
    const char *memory;  /* NULL: "512Mi" */
    const char *storage; /* NULL: not sent */
    const sbx_volume_mount *volume_mounts;
    size_t volume_mount_count;
    sbx_call call;
} sbx_template_options;

/* Creates a template. Each attempt is limited by sbx_config.timeout_ms. Errors: SBX_E_ARGUMENT, the
   families SBX_E_CONNECTION and SBX_E_SERVICE (SBX_E_VALIDATION, SBX_E_AUTHENTICATION, ..). *out is
   NULL unless SBX_OK. The same holds for the calls below. */
SBX_API sbx_status sbx_template_create(sbx_client *client, const sbx_template_options *options,
                                       sbx_template **out, sbx_error *err);
SBX_API sbx_status sbx_template_create_start(sbx_client *client,
                                             const sbx_template_options *options,
                                             sbx_template **out, sbx_op **op, sbx_error *err);

/* Gets one template by its name. SBX_E_NOT_FOUND with resource_type "template" if there is none. */
SBX_API sbx_status sbx_template_get(sbx_client *client, const char *name, const sbx_call *call,
                                    sbx_template **out, sbx_error *err);
SBX_API sbx_status sbx_template_get_start(sbx_client *client, const char *name,
                                          const sbx_call *call, sbx_template **out, sbx_op **op,
                                          sbx_error *err);

/* All templates in one allocation. */
SBX_API sbx_status sbx_template_list(sbx_client *client, const sbx_call *call, sbx_templates **out,
                                     sbx_error *err);
SBX_API sbx_status sbx_template_list_start(sbx_client *client, const sbx_call *call,
                                           sbx_templates **out, sbx_op **op, sbx_error *err);

typedef struct sbx_template_update_options {
    const char *new_name; /* NULL: stays */
    sbx_call call;
} sbx_template_update_options;

/* Renames a template and gives it as it is now; without a change, it is only got. options may be
   NULL. SBX_E_NAME_CONFLICT if the new name is taken, SBX_E_NOT_FOUND. */
SBX_API sbx_status sbx_template_update(sbx_client *client, const char *name,
                                       const sbx_template_update_options *options,
                                       sbx_template **out, sbx_error *err);
SBX_API sbx_status sbx_template_update_start(sbx_client *client, const char *name,
                                             const sbx_template_update_options *options,
                                             sbx_template **out, sbx_op **op, sbx_error *err);

/* Deletes a template. SBX_E_IN_USE while sandboxes or pools refer to it, SBX_E_NOT_FOUND. */
SBX_API sbx_status sbx_template_delete(sbx_client *client, const char *name, const sbx_call *call,
                                       sbx_error *err);
SBX_API sbx_status sbx_template_delete_start(sbx_client *client, const char *name,
                                             const sbx_call *call, sbx_op **op, sbx_error *err);

/* ------------------------------------------------------------------------------------ volumes */

/* A volume keeps files beyond the life of a sandbox: those made from a template that mounts it see
   what others have left there. Free with sbx_free. */
typedef struct sbx_volume {
    const char *name;
    const char *size; /* "1Gi" */
    const char *storage_class;
    const char *id;
    const char *created_at;
    const char *updated_at;
} sbx_volume;

typedef struct sbx_volumes {
    const sbx_volume *items;
    size_t count;
} sbx_volumes;

typedef struct sbx_volume_options {
    const char *name;         /* required */
    const char *size;         /* required: "1Gi" */
    int64_t ready_timeout_ms; /* 0: 60,000; 5,000..300,000: how long provisioning may take */
    sbx_call call;
} sbx_volume_options;

/* Creates a volume and waits until it can be used. Each attempt is limited by ready_timeout_ms + 30
   s. Errors besides the common ones: SBX_E_CREATION with error_type "VolumeProvisioning",
   SBX_E_RESOURCE_TIMEOUT, SBX_E_QUOTA. *out is NULL unless SBX_OK, here and below. */
SBX_API sbx_status sbx_volume_create(sbx_client *client, const sbx_volume_options *options,
                                     sbx_volume **out, sbx_error *err);
SBX_API sbx_status sbx_volume_create_start(sbx_client *client, const sbx_volume_options *options,
                                           sbx_volume **out, sbx_op **op, sbx_error *err);

/* Gets one volume by its name. SBX_E_NOT_FOUND with resource_type "volume". */
SBX_API sbx_status sbx_volume_get(sbx_client *client, const char *name, const sbx_call *call,
                                  sbx_volume **out, sbx_error *err);
SBX_API sbx_status sbx_volume_get_start(sbx_client *client, const char *name, const sbx_call *call,
                                        sbx_volume **out, sbx_op **op, sbx_error *err);

/* All volumes in one allocation. */
SBX_API sbx_status sbx_volume_list(sbx_client *client, const sbx_call *call, sbx_volumes **out,
                                   sbx_error *err);
SBX_API sbx_status sbx_volume_list_start(sbx_client *client, const sbx_call *call,
                                         sbx_volumes **out, sbx_op **op, sbx_error *err);

typedef struct sbx_volume_update_options {
    const char *new_name; /* NULL: stays */
    const char *size;     /* NULL: stays. Volumes only grow */
    sbx_call call;
} sbx_volume_update_options;

/* Renames or resizes a volume and gives it as it is now; without a change, it is only got. options
   may be NULL. SBX_E_NAME_CONFLICT; SBX_E_VALIDATION with error_type "VolumeResize" for a size that
   the service does not accept. */
SBX_API sbx_status sbx_volume_update(sbx_client *client, const char *name,
                                     const sbx_volume_update_options *options, sbx_volume **out,
                                     sbx_error *err);
SBX_API sbx_status sbx_volume_update_start(sbx_client *client, const char *name,
                                           const sbx_volume_update_options *options,
                                           sbx_volume **out, sbx_op **op, sbx_error *err);

/* Deletes a volume and all that it holds. SBX_E_IN_USE while a template names it. */
SBX_API sbx_status sbx_volume_delete(sbx_client *client, const char *name, const sbx_call *call,
                                     sbx_error *err);
SBX_API sbx_status sbx_volume_delete_start(sbx_client *client, const char *name,
                                           const sbx_call *call, sbx_op **op, sbx_error *err);

/* -------------------------------------------------------------------------------------- pools */

/* A pool keeps sandboxes of one template started, so that sbx_sandbox_create with this template
   returns sooner. Templates with volume mounts cannot have pools. Free with sbx_free. */
typedef struct sbx_pool {
    const char *name;
    const char *template_name;
    int replicas; /* 0: paused; SBX_NONE: the service did not say */
    const char *id;
    const char *created_at;
    const char *updated_at;
} sbx_pool;

typedef struct sbx_pools {
    const sbx_pool *items;
    size_t count;
} sbx_pools;

typedef struct sbx_pool_options {
    const char *name;          /* required */
    const char *template_name; /* required */
    int replicas;              /* required: 1..100 */
    int64_t ready_timeout_ms;  /* 0: 30,000; 10,000..600,000: how long the sandboxes may take */
    sbx_call call;
} sbx_pool_options;

/* Creates a pool and waits until its sandboxes are ready. Each attempt is limited by
   ready_timeout_ms + 30 s. Errors besides the common ones: SBX_E_NOT_FOUND with resource_type
   "template", SBX_E_VALIDATION for a template with volumes, SBX_E_ALREADY_EXISTS,
   SBX_E_RESOURCE_TIMEOUT, SBX_E_QUOTA. */
SBX_API sbx_status sbx_pool_create(sbx_client *client, const sbx_pool_options *options,
                                   sbx_pool **out, sbx_error *err);
SBX_API sbx_status sbx_pool_create_start(sbx_client *client, const sbx_pool_options *options,
                                         sbx_pool **out, sbx_op **op, sbx_error *err);

/* Gets one pool by its name. SBX_E_NOT_FOUND with resource_type "pool". */
SBX_API sbx_status sbx_pool_get(sbx_client *client, const char *name, const sbx_call *call,
                                sbx_pool **out, sbx_error *err);
SBX_API sbx_status sbx_pool_get_start(sbx_client *client, const char *name, const sbx_call *call,
                                      sbx_pool **out, sbx_op **op, sbx_error *err);

/* All pools in one allocation. */
SBX_API sbx_status sbx_pool_list(sbx_client *client, const sbx_call *call, sbx_pools **out,
                                 sbx_error *err);
SBX_API sbx_status sbx_pool_list_start(sbx_client *client, const sbx_call *call, sbx_pools **out,
                                       sbx_op **op, sbx_error *err);

typedef struct sbx_pool_update_options {
    const char *new_name; /* NULL: stays */
    int replicas;         /* 0: stays; 1..100; SBX_NONE: none, which pauses the pool */
    sbx_call call;
} sbx_pool_update_options;

/* Renames or scales a pool and gives it as it is now; without a change, it is only got. options may
   be NULL. SBX_E_NAME_CONFLICT, and what sbx_pool_create says of templates and time. */
SBX_API sbx_status sbx_pool_update(sbx_client *client, const char *name,
                                   const sbx_pool_update_options *options, sbx_pool **out,
                                   sbx_error *err);
SBX_API sbx_status sbx_pool_update_start(sbx_client *client, const char *name,
                                         const sbx_pool_update_options *options, sbx_pool **out,
                                         sbx_op **op, sbx_error *err);

/* Deletes a pool and the sandboxes that wait in it; those that were taken out of it stay. */
SBX_API sbx_status sbx_pool_delete(sbx_client *client, const char *name, const sbx_call *call,
                                   sbx_error *err);
SBX_API sbx_status sbx_pool_delete_start(sbx_client *client, const char *name,
                                         const sbx_call *call, sbx_op **op, sbx_error *err);
#endif

/* ---------------------------------------------------------------------------------- sandboxes */

typedef enum sbx_state {
    SBX_STATE_UNKNOWN = 0, /* a word that this version does not know: see sbx_sandbox.status */
    SBX_STATE_PROVISIONING = 1,
    SBX_STATE_READY = 2,
    SBX_STATE_FAILED = 3,
    SBX_STATE_STOPPED = 4 /* the service starts it again on the next use */
} sbx_state;

/* A sandbox as the service described it at the time of the call, and the handle for what happens
   inside. Read it freely; free with sbx_free, which does not delete the sandbox itself. Strings are
   never NULL; what the service did not send is "" or 0. Must not outlive its client. */
typedef struct sbx_sandbox {
    sbx_client *client;
    const char *name;
    const char *id;
    const char *dataplane_url;
    sbx_state state;
    const char *status;         /* the service's word: "provisioning", "ready", "failed", .. */
    const char *status_message; /* why it failed */
    const char *template_name;
    const char *snapshot_id;
    const char *created_at;
    const char *updated_at;
    const char *stopped_at;
    int64_t idle_ttl_ms;          /* unused for so long, it is stopped; SBX_NONE: never */
    int64_t delete_after_stop_ms; /* stopped for so long, it is deleted; SBX_NONE: never */
    int vcpus;
    int64_t mem_bytes;
    int64_t fs_capacity_bytes;
} sbx_sandbox;

/* A sandbox whose data-plane URL is already known, without asking the service. The URL must be http
   or https without query or fragment. The API key is sent there only under the rule that
   sbx_config.api_key states. No traffic; free with sbx_free. */
SBX_API sbx_status sbx_sandbox_at(sbx_client *client, const char *dataplane_url, sbx_sandbox **out,
                                  sbx_error *err);

#ifndef SBX_NO_CONTROL
typedef struct sbx_sandboxes {
    const sbx_sandbox *items;
    size_t count;
} sbx_sandboxes;

/* At most one of template_name, snapshot_id and snapshot_name; none: the service's default. */
typedef struct sbx_sandbox_options {
    const char *template_name;
    const char *snapshot_id;
    const char *snapshot_name;
    const char *name;         /* NULL: the service chooses one */
    int no_wait;              /* 1: return at once, with state SBX_STATE_PROVISIONING */
    int64_t ready_timeout_ms; /* 0: 30,000: how long the service may take until it is ready */

    /* For services without templates; 0 and NULL are not sent. */
    int64_t idle_ttl_ms;          /* whole minutes; SBX_NONE: never stopped for being unused */
    int64_t delete_after_stop_ms; /* whole minutes; SBX_NONE: never deleted for being stopped */
    int vcpus;
    int64_t mem_bytes;
    int64_t fs_capacity_bytes;
    const char *mount_config; /* a JSON object, passed on as it is */
    const char *proxy_config; /* the same */
    sbx_call call;
} sbx_sandbox_options;

/* Creates a sandbox, and waits until it is ready unless no_wait is 1. Each attempt is limited by
   ready_timeout_ms + 30 s (with no_wait: 30 s). options may be NULL. Errors besides the common
   ones: SBX_E_CREATION (error_type says ImagePull, CrashLoop, Unschedulable, ..),
   SBX_E_RESOURCE_TIMEOUT, SBX_E_QUOTA. After a cancellation, a time-out or a broken connection the
   sandbox may exist all the same: with a name of your own you can get or delete it. */
SBX_API sbx_status sbx_sandbox_create(sbx_client *client, const sbx_sandbox_options *options,
                                      sbx_sandbox **out, sbx_error *err);
SBX_API sbx_status sbx_sandbox_create_start(sbx_client *client, const sbx_sandbox_options *options,
                                            sbx_sandbox **out, sbx_op **op, sbx_error *err);

/* What sbx_with_sandbox does with the sandbox. Its status is that of the call; it may leave the
   reason in err, which is never NULL. */
typedef sbx_status (*sbx_sandbox_fn)(void *user, const sbx_sandbox *sandbox, sbx_error *err);

/* Creates a sandbox, calls body with it, and deletes it, whatever body returned: the counterpart of
   "with client.sandbox(..)" in other languages, and the way that cannot forget the deletion. Unless
   options names the sandbox, it gets a random name, so that it is found and deleted also when the
   answer to its creation was lost or not waited for.

   Returns the error of the creation (body was not called then), else what body returned, else the
   error of the deletion; a sandbox that is gone already is none. Where there is another error, one
   of the deletion is added to its message. Deleting takes at most 30 s and is not cancelled by
   options->call.cancel, so a cancelled call still cleans up; it has the headers of options->call.
   The sandbox must not be renamed meanwhile, and the object is freed at the end. Blocks: the
   transport must have a wait hook. options may be NULL. */
SBX_API sbx_status sbx_with_sandbox(sbx_client *client, const sbx_sandbox_options *options,
                                    sbx_sandbox_fn body, void *user, sbx_error *err);

/* Gets one sandbox by its name. */
SBX_API sbx_status sbx_sandbox_get(sbx_client *client, const char *name, const sbx_call *call,
                                   sbx_sandbox **out, sbx_error *err);
SBX_API sbx_status sbx_sandbox_get_start(sbx_client *client, const char *name,
                                         const sbx_call *call, sbx_sandbox **out, sbx_op **op,
                                         sbx_error *err);

/* All sandboxes in one allocation. The items are handles as good as any; sbx_free the list only. */
SBX_API sbx_status sbx_sandbox_list(sbx_client *client, const sbx_call *call, sbx_sandboxes **out,
                                    sbx_error *err);
SBX_API sbx_status sbx_sandbox_list_start(sbx_client *client, const sbx_call *call,
                                          sbx_sandboxes **out, sbx_op **op, sbx_error *err);

typedef struct sbx_sandbox_update_options {
    const char *new_name;         /* NULL: stays */
    int64_t idle_ttl_ms;          /* 0: stays; whole minutes; SBX_NONE: never */
    int64_t delete_after_stop_ms; /* the same */
    sbx_call call;
} sbx_sandbox_update_options;

/* Renames a sandbox, or changes how long it is kept, and gives it as it is now; without a change it
   is only got. options may be NULL. SBX_E_NAME_CONFLICT if the new name is taken. */
SBX_API sbx_status sbx_sandbox_update(sbx_client *client, const char *name,
                                      const sbx_sandbox_update_options *options, sbx_sandbox **out,
                                      sbx_error *err);
SBX_API sbx_status sbx_sandbox_update_start(sbx_client *client, const char *name,
                                            const sbx_sandbox_update_options *options,
                                            sbx_sandbox **out, sbx_op **op, sbx_error *err);

/* Deletes a sandbox and all that runs in it. */
SBX_API sbx_status sbx_sandbox_delete(sbx_client *client, const char *name, const sbx_call *call,
                                      sbx_error *err);
SBX_API sbx_status sbx_sandbox_delete_start(sbx_client *client, const char *name,
                                            const sbx_call *call, sbx_op **op, sbx_error *err);

/* The status alone, a light request. Free with sbx_free. */
typedef struct sbx_sandbox_status {
    sbx_state state;
    const char *status;
    const char *status_message;
} sbx_sandbox_status;

SBX_API sbx_status sbx_sandbox_get_status(sbx_client *client, const char *name,
                                          const sbx_call *call, sbx_sandbox_status **out,
                                          sbx_error *err);
SBX_API sbx_status sbx_sandbox_get_status_start(sbx_client *client, const char *name,
                                                const sbx_call *call, sbx_sandbox_status **out,
                                                sbx_op **op, sbx_error *err);

typedef struct sbx_wait_options {
    int64_t ready_timeout_ms; /* 0: 120,000; SBX_NONE: no limit */
    int64_t poll_interval_ms; /* 0: 1,000 */
    sbx_call call;
} sbx_wait_options;

/* Asks for the status until it is ready, then gets the sandbox. Asks at least once, and does not
   sleep past the limit; a request that is under way then is waited for. SBX_E_CREATION with the
   service's reason if it failed; SBX_E_RESOURCE_TIMEOUT with last_status when ready_timeout_ms is
   over. options may be NULL. */
SBX_API sbx_status sbx_sandbox_wait(sbx_client *client, const char *name,
                                    const sbx_wait_options *options, sbx_sandbox **out,
                                    sbx_error *err);
SBX_API sbx_status sbx_sandbox_wait_start(sbx_client *client, const char *name,
                                          const sbx_wait_options *options, sbx_sandbox **out,
                                          sbx_op **op, sbx_error *err);
#endif

/* ----------------------------------------------------------------------------------- commands */

enum { SBX_STDOUT = 1, SBX_STDERR = 2 };

/* Called with output as it comes, in order, each byte once, also after a reconnect. stream is
   SBX_STDOUT or SBX_STDERR; data is lent until you return. Non-zero ends the call with
   SBX_E_ABORTED; the command in the sandbox runs on until its idle time-out. */
typedef int (*sbx_output_fn)(void *user, int stream, const char *data, size_t len);

typedef struct sbx_run_options {
    const char *const *env; /* "NAME=value", ended by NULL; NULL: none */
    const char *cwd;        /* NULL: the sandbox's own */
    const char *shell;      /* NULL: "/bin/bash" */
    int64_t timeout_ms;     /* 0: 60,000: the service kills the command then; SBX_NONE: no limit.
                               Sent in seconds, rounded up */
    int64_t idle_timeout_ms; /* 0: 300,000: killed when no client is connected for so long;
                                SBX_NONE: never */
    int64_t ttl_ms;          /* 0: 600,000: kept after its end, to be reattached; SBX_NONE: always */
    int kill_on_disconnect;  /* 1: kill it as soon as the last client is gone */
    int input;               /* 1: stdin is open for sbx_command_input; 0: at its end at once */
    int pty;                 /* 1: a pseudo-terminal, with input; all output is then SBX_STDOUT */
    sbx_output_fn on_output; /* NULL: none */
    void *user;              /* first argument of on_output */
    int discard_output;      /* 1: the result holds no output, only on_output sees it */
    size_t max_output;       /* 0: 64 MiB collected in a result; more is SBX_E_TOO_BIG */
    sbx_call call;           /* timeout_ms 0: connecting may take 120 s in all, and after it a
                                command with a time limit that limit + 30 s, the time until you
                                take its output included */
} sbx_run_options;

/* Free with sbx_free. out and err are NUL-terminated and may hold NULs before; they are never NULL.
   What a reconnect could not bring back, because the service had already forgotten it, is counted
   in the first two lost members; input_lost says of how many bytes of input it is unknown whether
   they arrived. exit_code is the service's: a command killed by a signal has mostly 128 plus its
   number, or the number as a negative one. */
typedef struct sbx_result {
    int exit_code;
    const char *out;
    size_t out_len;
    const char *err;
    size_t err_len;
    uint64_t out_lost;
    uint64_t err_lost;
    uint64_t input_lost;
} sbx_result;

/* Runs command by the shell and waits for its end. A non-zero exit code is SBX_OK: look at
   exit_code. options may be NULL. Runs over a WebSocket, reconnecting when the connection drops;
   falls back to plain HTTP only when the service has no WebSocket endpoint and output callbacks are
   not wanted, so that nothing ever runs twice. Errors besides the common ones:
   SBX_E_COMMAND_TIMEOUT, SBX_E_OPERATION, SBX_E_NOT_READY, SBX_E_NO_DATAPLANE (both without
   traffic). */
SBX_API sbx_status sbx_run(const sbx_sandbox *sandbox, const char *command,
                           const sbx_run_options *options, sbx_result **out, sbx_error *err);
SBX_API sbx_status sbx_run_start(const sbx_sandbox *sandbox, const char *command,
                                 const sbx_run_options *options, sbx_result **out, sbx_op **op,
                                 sbx_error *err);

#ifndef SBX_NO_WEBSOCKET
/* A started command in your hands. Free with sbx_command_free. */
typedef struct sbx_command sbx_command;

/* A piece of output: len > 0 bytes of one stream, the first of which is number offset. lost is how
   many bytes before it the service had forgotten when the connection came back; 0 mostly. */
typedef struct sbx_chunk {
    int stream; /* SBX_STDOUT or SBX_STDERR */
    const char *data;
    size_t len;
    uint64_t offset;
    uint64_t lost;
} sbx_chunk;

/* Makes a handle; never blocks and sends nothing yet: connecting, starting and reconnecting go on
   inside the calls below. on_output and discard_output of options work here too. */
SBX_API sbx_status sbx_command_start(const sbx_sandbox *sandbox, const char *command,
                                     const sbx_run_options *options, sbx_command **out,
                                     sbx_error *err);

/* The next output, in the order of arrival. SBX_OK: *chunk is set, its data lent until the next
   call on command. SBX_AGAIN: nothing in timeout_ms (0 never blocks, SBX_NONE waits for ever).
   SBX_END: the command has exited and all output was given. *chunk is zero unless SBX_OK. */
SBX_API sbx_status sbx_command_next(sbx_command *command, sbx_chunk *chunk, int64_t timeout_ms,
                                    sbx_error *err);

/* Reads on to the end and gives the exit code with all output since the start, also what next has
   given before, unless discard_output is 1. Once only: a second call is SBX_E_ARGUMENT. */
SBX_API sbx_status sbx_command_result(sbx_command *command, sbx_result **out, sbx_error *err);

/* Has the service kill the command's processes (SIGKILL). Returns at once; for any thread and any
   signal handler, as long as the command is not freed meanwhile. It is sent by the next step, or
   call of sbx_command_next or _result, which then give what output and exit code still come; if
   the service does not tell the end within 2 s, they end with SBX_E_CANCELLED. A lost connection is
   not repaired any more, unless the kill has still to be sent. sbx_command_free sends a kill that
   was not sent yet as far as that goes without waiting. */
SBX_API void sbx_command_kill(sbx_command *command);

/* Takes len bytes of UTF-8 for the command's stdin, which are sent in order by later steps; a
   character may be divided between two calls. SBX_OK: all are taken, and copied. SBX_AGAIN: there
   is no room, nothing is taken; call again when some were sent. SBX_E_ARGUMENT: no UTF-8, more than
   SBX_INPUT_MAX bytes, or options.input was not 1; SBX_E_OPERATION: stdin is closed, or the command
   has ended, or the handle has failed. Never blocks. If the transport has lock, for any thread,
   also while the owner is inside another call, as long as the command is not freed meanwhile.

   Input is never sent twice. If the connection breaks, the command goes on and so does what was not
   sent yet; if it is unknown whether some bytes have arrived, the command fails with
   SBX_E_CONNECTION, since nobody could say how its input continues. With a pty, where somebody sees
   what arrived, they are counted in sbx_result.input_lost instead, as they are when you take the
   handle up again by sbx_command_reconnect, or had it killed. */
#define SBX_INPUT_MAX 65536
SBX_API sbx_status sbx_command_input(sbx_command *command, const void *data, size_t len,
                                     sbx_error *err);

/* Ends stdin behind the input so far. For a pty that means nothing: send "\x04", as Ctrl-D does.
   Statuses and threads as for sbx_command_input. */
SBX_API sbx_status sbx_command_close_input(sbx_command *command, sbx_error *err);

/* Sets the size of the pseudo-terminal, 1..65535 each; the last call counts, also after a
   reconnect. SBX_E_ARGUMENT without pty. Threads as for sbx_command_input. */
SBX_API sbx_status sbx_command_resize(sbx_command *command, int columns, int rows, sbx_error *err);

typedef struct sbx_attach_options {
    uint64_t out_offset, err_offset; /* where to go on; 0: from the first byte that is kept */
    int input;                       /* 1: for sbx_command_input; the command must have it open */
    int pty;                         /* 1: it was started with a pty */
    sbx_output_fn on_output;         /* these as in sbx_run_options */
    void *user;
    int discard_output;
    size_t max_output;
    sbx_call call; /* timeout_ms 0: connecting may take 120 s in all, after it there is no limit */
} sbx_attach_options;

/* A handle for a command that was started before, here or elsewhere, by its id. Never blocks, as
   sbx_command_start. options may be NULL. Where the service does not know the command any more, the
   calls on the handle fail with SBX_E_OPERATION, operation "reconnect" and error_type
   "CommandNotFound" or "SessionExpired". */
SBX_API sbx_status sbx_command_attach(const sbx_sandbox *sandbox, const char *id,
                                      const sbx_attach_options *options, sbx_command **out,
                                      sbx_error *err);

/* Gives the connection up, if there is one, and attaches again where the output stopped, with new
   time limits: also after the handle has failed. Not needed after a lost connection, which is
   repaired by itself. A kill or a cancellation from before is taken back. Never blocks.
   SBX_E_ARGUMENT: the command has ended. */
SBX_API sbx_status sbx_command_reconnect(sbx_command *command, sbx_error *err);

/* How many bytes of a stream (SBX_STDOUT or SBX_STDERR) there were up to now, without a chunk that
   still waits to be taken: for attaching at that place later. 0 for another stream. */
SBX_API uint64_t sbx_command_offset(const sbx_command *command, int stream);

/* The id by which the service knows the command, from the start on; but a service that chooses ids
   itself changes it when the command starts, which is when sbx_command_pid stops being 0. Never
   NULL, valid until the handle is freed. */
SBX_API const char *sbx_command_id(const sbx_command *command);

/* The process id inside the sandbox; 0 before the service has told it, or for NULL. */
SBX_API int64_t sbx_command_pid(const sbx_command *command);

/* For sbx_op_wants, sbx_op_wait, sbx_wait and sbx_op_cancel, where a command counts as done while a
   chunk waits to be taken by sbx_command_next, or none will come any more. No chunk is ever passed
   over. Never free it by sbx_op_free. */
SBX_API sbx_op *sbx_command_op(sbx_command *command);

/* Lets go of the command, which runs on in the sandbox for its idle time-out. NULL is fine. */
SBX_API void sbx_command_free(sbx_command *command);
#endif

/* -------------------------------------------------------------------------------------- files */

/* Supplies the bytes of a file: writes 1..cap bytes to buf and sets *n, or leaves *n at 0 at the
   end. cap is always 16,384. Returns SBX_OK (0); or SBX_AGAIN (1) if there is nothing now, and is
   then asked again at the next step, after 50 ms at the latest, for as long as it says so; anything
   else, such as -1, ends the call with SBX_E_ABORTED. Time spent inside counts as progress. */
typedef int (*sbx_source_fn)(void *user, void *buf, size_t cap, size_t *n);

/* Takes the next bytes of a file, in order; data is lent until you return. Non-zero ends the call
   with SBX_E_ABORTED. */
typedef int (*sbx_sink_fn)(void *user, const void *data, size_t len);

/* Tells how far a transfer is, at most once for every 64 KiB and once at its end. total is SBX_NONE
   while unknown. Non-zero ends the call with SBX_E_ABORTED. */
typedef int (*sbx_progress_fn)(void *user, int64_t done, int64_t total);

#ifndef SBX_NO_FILES
typedef struct sbx_file_options {
    sbx_progress_fn progress; /* NULL: none */
    void *user;               /* first argument of source, sink and progress */
    sbx_call call;            /* timeout_ms 0: no total limit, but 60 s without a byte moving */
} sbx_file_options;

/* Writes len bytes to the file at path, which is made or replaced. Relative paths start at the
   sandbox's home. data is lent until the operation is over. options may be NULL. Errors besides the
   common ones: SBX_E_OPERATION with operation "write". */
SBX_API sbx_status sbx_write(const sbx_sandbox *sandbox, const char *path, const void *data,
                             size_t len, const sbx_file_options *options, sbx_error *err);
SBX_API sbx_status sbx_write_start(const sbx_sandbox *sandbox, const char *path, const void *data,
                                   size_t len, const sbx_file_options *options, sbx_op **op,
                                   sbx_error *err);

/* The same from a callback, in constant memory. size is the number of bytes that source will give,
   SBX_NONE if unknown (the request is then chunked). Fewer or more bytes than size fail the call
   with SBX_E_ARGUMENT, and the server sees a broken request. Never repeated once source was asked.
   */
SBX_API sbx_status sbx_write_from(const sbx_sandbox *sandbox, const char *path,
                                  sbx_source_fn source, int64_t size,
                                  const sbx_file_options *options, sbx_error *err);
SBX_API sbx_status sbx_write_from_start(const sbx_sandbox *sandbox, const char *path,
                                        sbx_source_fn source, int64_t size,
                                        const sbx_file_options *options, sbx_op **op,
                                        sbx_error *err);

/* The bytes of a file. data is followed by a 0 that is not counted. Free with sbx_free. */
typedef struct sbx_bytes {
    const char *data;
    size_t len;
} sbx_bytes;

/* Reads a whole file into memory, at most sbx_config.max_body. SBX_E_NOT_FOUND with resource_type
   "file" if there is none; SBX_E_OPERATION with operation "read". */
SBX_API sbx_status sbx_read(const sbx_sandbox *sandbox, const char *path,
                            const sbx_file_options *options, sbx_bytes **out, sbx_error *err);
SBX_API sbx_status sbx_read_start(const sbx_sandbox *sandbox, const char *path,
                                  const sbx_file_options *options, sbx_bytes **out, sbx_op **op,
                                  sbx_error *err);

/* The same into a callback, in constant memory and of any size. sink never sees the body of an
   error. SBX_OK means that sink has seen the whole file (where the service says neither how long it
   is nor sends chunks, all that came before the connection's end); after an error, perhaps a part.
   Never repeated once sink was called. */
SBX_API sbx_status sbx_read_to(const sbx_sandbox *sandbox, const char *path, sbx_sink_fn sink,
                               const sbx_file_options *options, sbx_error *err);
SBX_API sbx_status sbx_read_to_start(const sbx_sandbox *sandbox, const char *path,
                                     sbx_sink_fn sink, const sbx_file_options *options,
                                     sbx_op **op, sbx_error *err);
#endif

/* ------------------------------------------------------------------------------------- codecs */

/* THE CODECS turn bytes into events and back, without I/O, clock, callbacks or allocation. Each is
   usable alone. All the readers work alike:

       sbx_status NAME_read(NAME *codec, data, len, &used, &event)

   takes some of the bytes, says how many in used, and returns SBX_OK with one event, SBX_AGAIN
   (all len bytes are taken and there is no event: come back with more), SBX_END where the codec has
   an end, or an error, which is sticky. Call it again with the rest, also when the rest is empty:
   events may be left. The bytes may be cut anywhere, always with the same outcome, but for where
   one long text is divided into several events. What an event points at is lent: it lies in data
   or in the codec, and is valid until the next call or until data changes. After an error, problem
   is a static sentence that says what is wrong. The members of the codec structs are private. */

/* TEXT */

/* Checks UTF-8 (RFC 3629) that comes in pieces. Zero the state before the first one. Returns 0 as
   soon as the text cannot become valid any more, else 1. */
typedef struct sbx_utf8 {
    uint32_t state; /* 0: between two characters */
} sbx_utf8;
SBX_API int sbx_utf8_check(sbx_utf8 *u, const void *data, size_t len);

/* Percent-encodes len bytes so that they stand for themselves in one path segment or query value:
   all but letters, digits, "-", "_" and "~" (also ".", so that no segment can be "." or "..").
   Writes at most cap bytes with the final 0 and returns the full length without it. */
SBX_API size_t sbx_url_encode(const char *text, size_t len, char *out, size_t cap);

/* Decodes %XX, and "+" to a space if plus is 1, in place or to out, which may be text. Returns the
   length, or SIZE_MAX for a bad escape. Writes no final 0. */
SBX_API size_t sbx_url_decode(const char *text, size_t len, int plus, char *out);

/* Finds the first parameter called name in a query such as "a=1&path=%2Ftmp+x" (without "?") and
   writes its value, decoded ("+" and "%20" both are a space), to out with a final 0. SBX_OK:
   *out_len is the length without that 0; a parameter without "=" has the value "". SBX_END: there
   is no such parameter. SBX_E_TOO_BIG: it does not fit in cap bytes, of which *out_len + 1 are
   needed. SBX_E_PROTOCOL: the value has a bad escape, or a NUL. *out_len is 0 unless it says
   otherwise here; what out holds then is undefined. */
SBX_API sbx_status sbx_url_query(const char *query, size_t len, const char *name, char *out,
                                 size_t cap, size_t *out_len);

/* The parts of an absolute http or https URL (RFC 3986). They point into the text that was parsed.
   host is without brackets; path is "" or starts with "/"; port is the scheme's own by default. */
typedef struct sbx_url {
    int tls;
    const char *host;
    size_t host_len;
    uint16_t port;
    const char *path;
    size_t path_len;
    const char *query; /* without "?" */
    size_t query_len;
} sbx_url;

/* SBX_OK, or SBX_E_ARGUMENT with a static sentence in *problem (may be NULL, is set to NULL
   otherwise). Refuses all characters that the standard does not allow, bad escapes, escapes in the
   host, IPv6 addresses that are none or have a zone, user information, fragments, empty hosts, and
   ports that are empty or not 1..65535. */
SBX_API sbx_status sbx_url_parse(const char *text, size_t len, sbx_url *url, const char **problem);

/* JSON (RFC 8259), strict. */

typedef enum sbx_json_type {
    SBX_JSON_OBJECT = 1, /* { */
    SBX_JSON_OBJECT_END, /* } */
    SBX_JSON_ARRAY,      /* [ */
    SBX_JSON_ARRAY_END,  /* ] */
    SBX_JSON_KEY,        /* text, len */
    SBX_JSON_STRING,     /* text, len */
    SBX_JSON_INTEGER,    /* integer, exactly, and number, the nearest double; -0 is 0 and -0.0 */
    SBX_JSON_NUMBER,     /* number: with a fraction or an exponent, or beyond int64; the nearest
                            double, which is an infinity beyond the largest one */
    SBX_JSON_TRUE,
    SBX_JSON_FALSE,
    SBX_JSON_NULL
} sbx_json_type;

/* How deep arrays and objects may nest, and how long a number may be. */
#define SBX_JSON_DEPTH 64
#define SBX_JSON_NUMBER_MAX 256

/* What a type does not name is 0. */
typedef struct sbx_json_event {
    sbx_json_type type;
    int depth;        /* of the value: 0 is the document; a key has the depth of its value */
    const char *text; /* unescaped UTF-8; not NUL-terminated, may hold NULs */
    size_t len;
    int partial; /* 1: the text goes on in the next event, of the same type */
    int64_t integer;
    double number;
} sbx_json_event;

/* The reader. It refuses all that the standard refuses, invalid UTF-8, lone surrogates and a byte
   order mark among it, at the first byte that no document could have there. Equal keys are reported
   as they come: the last one should win. */
typedef struct sbx_json {
    const char *problem;
    uint64_t offset; /* of the byte that was refused, or the number of bytes taken */
    char *scratch;
    size_t cap, used, given;
    uint64_t arrays; /* one bit per level, the innermost lowest: 1 for an array */
    uint32_t code, high;
    int utf8_checked; /* yours, after init: 1 skips the check of bytes that are known to be UTF-8 */
    int depth, state, step;
    sbx_status status;
    sbx_utf8 utf8;
    size_t number_len;
    char number[SBX_JSON_NUMBER_MAX];
} sbx_json;

/* scratch holds unescaped text, must not overlap the data and must outlive the reader; cap is at
   least 16 (with less, reading fails with SBX_E_ARGUMENT). A text that lies whole and without
   escapes in the data is lent from there, any other one comes in scratch. A text of up to cap bytes
   is always given in one event; a longer one may come in several, all but the last marked partial,
   that divide no character. To keep a text that lies in scratch, move the members scratch and cap
   on behind it: scratch as long as the document has room for all. */
SBX_API void sbx_json_init(sbx_json *j, char *scratch, size_t cap);

/* SBX_END: the document is complete and only white space followed. Errors: SBX_E_PROTOCOL;
   SBX_E_TOO_BIG for depth and numbers. */
SBX_API sbx_status sbx_json_read(sbx_json *j, const void *data, size_t len, size_t *used,
                                 sbx_json_event *event);

/* Says that no more bytes come. SBX_OK: one last event (a number at the top ends only here); call
   it again. SBX_END: complete. SBX_E_PROTOCOL: cut short. */
SBX_API sbx_status sbx_json_finish(sbx_json *j, sbx_json_event *event);

/* The writer writes to out as far as cap goes and counts all, as snprintf does: run it with cap 0
   to measure, then for good. Errors (a value without a key, invalid UTF-8, too deep) are sticky. */
typedef struct sbx_json_writer {
    char *out;
    size_t cap, len;
    uint64_t arrays;
    int depth, state;
    sbx_status status;
} sbx_json_writer;

/* A key or text is UTF-8; sbx_json_key takes a NUL-terminated one. A number is written with the
   fewest digits that read back as the same double, whatever the locale; NaN and infinities are
   refused. */
SBX_API void sbx_json_writer_init(sbx_json_writer *w, char *out, size_t cap);
SBX_API void sbx_json_begin_object(sbx_json_writer *w);
SBX_API void sbx_json_end_object(sbx_json_writer *w);
SBX_API void sbx_json_begin_array(sbx_json_writer *w);
SBX_API void sbx_json_end_array(sbx_json_writer *w);
SBX_API void sbx_json_key(sbx_json_writer *w, const char *name);
SBX_API void sbx_json_key_len(sbx_json_writer *w, const char *name, size_t len);
SBX_API void sbx_json_string(sbx_json_writer *w, const char *text, size_t len);
SBX_API void sbx_json_integer(sbx_json_writer *w, int64_t value);
SBX_API void sbx_json_number(sbx_json_writer *w, double value);
SBX_API void sbx_json_boolean(sbx_json_writer *w, int value);
SBX_API void sbx_json_null(sbx_json_writer *w);

/* SBX_OK: the document is complete and *len (may be NULL) bytes long; only min(len, cap) of them
   were written, and no final 0. SBX_E_ARGUMENT: misuse, invalid UTF-8, or a number that JSON does
   not have; SBX_E_TOO_BIG: too deep. */
SBX_API sbx_status sbx_json_writer_finish(sbx_json_writer *w, size_t *len);

/* HTTP/1.1 MESSAGES (RFC 9112), one after the other on a connection. */

enum { SBX_HTTP1_RESPONSE = 0, SBX_HTTP1_REQUEST = 1 }; /* what is read */

typedef enum sbx_http1_type {
    SBX_HTTP1_START = 1, /* status and reason, or method and target; version */
    SBX_HTTP1_HEADER,    /* name, value */
    SBX_HTTP1_HEAD_END,  /* content_length */
    SBX_HTTP1_BODY,      /* data: len > 0 bytes of the body, chunking removed */
    SBX_HTTP1_TRAILER,   /* name, value */
    SBX_HTTP1_MESSAGE_END
} sbx_http1_type;

/* Limits of one head, refused with SBX_E_TOO_BIG beyond. A line must fit in scratch. */
#define SBX_HTTP1_HEADERS 128
#define SBX_HTTP1_HEAD_MAX 65536

typedef struct sbx_http1_event {
    sbx_http1_type type;
    int status;        /* 100..999 */
    int minor_version; /* of HTTP/1.x */
    const char *name;  /* of a header; the method of a request; NULL in a response's start */
    size_t name_len;
    const char *value; /* of a header, trimmed; the target; the reason phrase */
    size_t value_len;
    const char *data;
    size_t len;
    int64_t content_length; /* SBX_NONE: chunked, or until the connection is closed; without a body:
                               what was announced, else 0 */
} sbx_http1_event;

typedef struct sbx_http1 {
    const char *problem;
    sbx_status status;
    int role, state;
    char *scratch;
    size_t cap, used;       /* of scratch; used: by the part of a line that came */
    size_t head_size;       /* of the head or the trailers so far */
    int headers, hosts;     /* how many there were */
    int empty_lines;        /* before a request */
    int informational;      /* how many responses of class 1xx were skipped */
    int status_code, minor_version;
    int no_body;            /* what sbx_http1_expect_no_body said */
    int chunked, close, keep_alive; /* what the headers said */
    int persistent;         /* another message may follow */
    int64_t content_length; /* SBX_NONE: no such header */
    uint64_t left;          /* bytes of the body, of the chunk, or of the line's end behind it */
    uint64_t overhead;      /* of the chunks, beyond what their content pays for */
} sbx_http1;

/* scratch keeps a line that comes in pieces, and must outlive the reader. Lines longer than cap are
   refused: take 8 KiB or more. */
SBX_API void sbx_http1_init(sbx_http1 *h, int role, char *scratch, size_t cap);

/* For responses: 1 says that the next one answers HEAD and has no body. Holds for one response. */
SBX_API void sbx_http1_expect_no_body(sbx_http1 *h, int no_body);

/* A message is START, its HEADERs, HEAD_END, BODY as it comes, TRAILERs and MESSAGE_END, also where
   it has no body. After MESSAGE_END the next message may follow; if it may not, read takes no more
   bytes and says SBX_END. Up to 16 responses of class 1xx are skipped, but for 101: its message
   ends with its head, and the bytes behind it, which read does not touch, belong to another
   protocol. (The same would hold for a 2xx to CONNECT, which is not supported.)

   Errors: SBX_E_PROTOCOL, SBX_E_TOO_BIG. Refused are versions other than 1.0 and 1.1, lines that do
   not end in CR LF, obsolete folding, white space before a colon, control characters in values,
   Content-Length twice or as a list, Content-Length beside Transfer-Encoding, codings other than
   chunked, Transfer-Encoding in HTTP/1.0, and chunk lines that take up more than 8 times their
   content and 64 KiB. Extensions of chunks are ignored. Bytes that cannot be the start of a message
   are refused at once, without waiting for the line's end. In the role SBX_HTTP1_REQUEST, 1.1 needs
   exactly one Host, and up to two empty lines may stand before the request. */
SBX_API sbx_status sbx_http1_read(sbx_http1 *h, const void *data, size_t len, size_t *used,
                                  sbx_http1_event *event);

/* Says that the peer closed. SBX_OK: an event, the end of a body that ends so; SBX_END: between two
   messages; SBX_E_PROTOCOL: in the middle of one. */
SBX_API sbx_status sbx_http1_finish(sbx_http1 *h, sbx_http1_event *event);

/* After a message: 1 if the connection can be used for another one. */
SBX_API int sbx_http1_keep_alive(const sbx_http1 *h);

/* Writes what stands before len > 0 bytes of a chunk, at most SBX_HTTP1_CHUNK_MAX bytes, and
   returns how many. After the bytes comes CR LF, after the last chunk "0" CR LF CR LF. */
#define SBX_HTTP1_CHUNK_MAX 18
SBX_API size_t sbx_http1_chunk(char *out, size_t len);

/* 1 if value, a comma-separated list, has this token, whatever the case. */
SBX_API int sbx_http1_has_token(const char *value, size_t len, const char *token);

/* MULTIPART/FORM-DATA (RFC 7578) with one file, as an upload needs it; the reader takes any number
   of parts. */

typedef enum sbx_multipart_type {
    SBX_MULTIPART_PART = 1, /* name and filename of a new part */
    SBX_MULTIPART_DATA,     /* data: len > 0 bytes of it */
    SBX_MULTIPART_PART_END
} sbx_multipart_type;

typedef struct sbx_multipart_event {
    sbx_multipart_type type;
    const char *name;
    size_t name_len;
    const char *filename; /* NULL: none */
    size_t filename_len;
    const char *data;
    size_t len;
} sbx_multipart_event;

#define SBX_MULTIPART_BOUNDARY_MAX 70
#define SBX_MULTIPART_HEAD_MAX 4096

typedef struct sbx_multipart {
    const char *problem;
    sbx_status status;
    int state, in_part;
    size_t delimiter_len;
    size_t matched; /* bytes of the delimiter that the input went along with */
    size_t assumed; /* of those, how many were not there: the first line needs no CR LF before it */
    size_t head_len, line; /* of the part's head so far; where its last line starts */
    char delimiter[SBX_MULTIPART_BOUNDARY_MAX + 6]; /* CR LF "--" boundary "--" */
    char head[SBX_MULTIPART_HEAD_MAX];
} sbx_multipart;

/* content_type is the value of the header: multipart/form-data; boundary=.. SBX_E_PROTOCOL, also
   from the calls that follow, if it is not that. */
SBX_API sbx_status sbx_multipart_init(sbx_multipart *m, const char *content_type, size_t len);

/* SBX_END: the closing boundary was read; the rest of data is the epilogue, to be ignored. What
   stands before the first boundary is skipped. A part is PART, its DATA, which may be empty, and
   PART_END. Names are what stands between the quotes: escapes by backslash or percent sign are left
   as they are. Errors: SBX_E_PROTOCOL, for a part without a name too; SBX_E_TOO_BIG: the headers of
   a part are longer than SBX_MULTIPART_HEAD_MAX. */
SBX_API sbx_status sbx_multipart_read(sbx_multipart *m, const void *data, size_t len, size_t *used,
                                      sbx_multipart_event *event);

/* Says that the body ended. SBX_END, or SBX_E_PROTOCOL: it was cut short. */
SBX_API sbx_status sbx_multipart_finish(sbx_multipart *m);

/* What stands before and after the bytes of the one part of an upload, NUL-terminated. boundary is
   1..SBX_MULTIPART_BOUNDARY_MAX letters and digits that do not occur in the bytes: use random ones.
   In name and filename (NULL: none), quotes, backslashes and control characters are
   percent-encoded. Both return the length without the final 0, or 0 when cap is too small (256
   suffices for short names) or boundary is not as it should be. */
SBX_API size_t sbx_multipart_head(char *out, size_t cap, const char *boundary, const char *name,
                                  const char *filename);
SBX_API size_t sbx_multipart_tail(char *out, size_t cap, const char *boundary);

#ifndef SBX_NO_WEBSOCKET
/* WEBSOCKET FRAMES (RFC 6455), without extensions. */

enum { SBX_WS_CLIENT = 0, SBX_WS_SERVER = 1 }; /* who reads: a client refuses masked frames, a
server unmasked ones */

typedef enum sbx_ws_opcode {
    SBX_WS_CONTINUATION = 0, /* for sbx_ws_header only: goes on with a message */
    SBX_WS_TEXT = 1,
    SBX_WS_BINARY = 2,
    SBX_WS_CLOSE = 8,
    SBX_WS_PING = 9,
    SBX_WS_PONG = 10
} sbx_ws_opcode;

typedef struct sbx_ws_event {
    sbx_ws_opcode opcode;
    int first;        /* text, binary: 1 if data starts a message */
    int last;         /* text, binary: 1 if data ends it; len may be 0 then */
    const char *data; /* a piece of the message, or all of a ping's, pong's or close's payload */
    size_t len;
    int close_code; /* close: as the peer sent it, 1005 if it sent none; data is the reason then */
} sbx_ws_event;

typedef struct sbx_ws {
    const char *problem;
    int close_code; /* to be sent in the close frame after an error: 1002, 1007 or 1009 */
    int role;
    sbx_status status;
    uint64_t limit, size, left; /* of a message, so far, of the frame */
    int opcode, message, fin, in_frame;
    unsigned head_len, control_len, key_at;
    sbx_utf8 utf8;
    unsigned char head[14], key[4], control[125];
} sbx_ws;

/* limit is the longest message that is accepted, in bytes. */
SBX_API void sbx_ws_init(sbx_ws *ws, int role, uint64_t limit);

/* data is unmasked in place where the frames are masked. A frame that is complete in data comes as
   one event; of a longer one comes what is there; a control frame always comes whole. SBX_END: a
   close frame was read before; no more bytes are taken. Errors: SBX_E_PROTOCOL, SBX_E_TOO_BIG
   (limit, known from the header). Text is checked for UTF-8 across frames and refused at the first
   byte that is wrong; whether the bytes before it in data were still given depends on how the bytes
   were cut. */
SBX_API sbx_status sbx_ws_read(sbx_ws *ws, void *data, size_t len, size_t *used,
                               sbx_ws_event *event);

/* Writes a frame's header to out (at most SBX_WS_HEADER_MAX bytes) and returns its length. key is
   the 4 random bytes of a client's mask, new for each frame, NULL for a server. The payload
   follows, masked by sbx_ws_mask; that of a close, ping or pong has at most 125 bytes and fin 1. */
#define SBX_WS_HEADER_MAX 14
SBX_API size_t sbx_ws_header(unsigned char *out, int opcode, int fin, uint64_t len,
                             const unsigned char *key);

/* Masks or unmasks len bytes in place or from in to out (no other overlap). at is how many bytes of
   the frame were masked before. */
SBX_API void sbx_ws_mask(void *out, const void *in, size_t len, const unsigned char *key, size_t at);

/* The payload of a close frame, at most 125 bytes: the code, and of reason (may be NULL) what fits
   and is whole characters of valid UTF-8. Returns the length; 0, for an empty payload, if code is
   one that must not be sent, such as the 1005 of a received close without a code. */
SBX_API size_t sbx_ws_close_payload(unsigned char *out, int code, const char *reason);

/* The value of Sec-WebSocket-Accept for a Sec-WebSocket-Key: 28 characters and a final 0; "" if len
   is not the 24 that every valid key has. */
SBX_API void sbx_ws_accept(const char *key, size_t len, char out[29]);
#endif

#ifdef __cplusplus
}
#endif

#endif /* SBX_PUBLIC_H */

#ifdef SANDBOX_IMPLEMENTATION
#ifndef SBX_IMPLEMENTATION_DONE
#define SBX_IMPLEMENTATION_DONE

/* ==== src/internal.h ========================================================================== */

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

/* ==== src/base.c ============================================================================== */

/* base: memory, errors by value, and the one formatter of messages.

   Promises: every allocation goes through the user's allocator and may fail; a message is always
   NUL-terminated, cut at a character's boundary. Calls nothing but libc's memory functions. */

/* ---- memory ---- */

#ifndef SBX_NO_STDLIB
static void *sbxi_default_resize(void *user, void *p, size_t old_size, size_t new_size)
{
    (void)user;
    (void)old_size;
    if (new_size == 0) {
        free(p);
        return NULL;
    }
    return realloc(p, new_size);
}
#endif

static void *sbxi_alloc(const sbx_allocator *memory, size_t size)
{
    return memory->resize(memory->user, NULL, 0, size);
}

static void sbxi_release(const sbx_allocator *memory, void *p, size_t size)
{
    if (p)
        (void)memory->resize(memory->user, p, size, 0);
}

/* Zeroes memory that held a secret, in a way that the compiler does not leave out. */
static void sbxi_wipe(void *p, size_t size)
{
    volatile unsigned char *byte = (volatile unsigned char *)p;
    while (size--)
        *byte++ = 0;
}

/* What a call gives to the user is one block with this in front, so that sbx_free needs nothing but
   the pointer. Large output is not copied into the block: it is attached, and goes with it. The
   union aligns what follows for any type. */
typedef union sbxi_block {
    struct {
        sbx_allocator memory;
        size_t size;
        void *attached[2];
        size_t attached_size[2];
    } head;
    long double align_number;
    void *align_pointer;
    int64_t align_integer;
} sbxi_block;

/* A zeroed object of size bytes, to be freed by sbx_free; NULL if there is no memory. */
static void *sbxi_object(const sbx_allocator *memory, size_t size)
{
    sbxi_block *block;
    if (size > SIZE_MAX - sizeof(*block))
        return NULL;
    block = (sbxi_block *)sbxi_alloc(memory, sizeof(*block) + size);
    if (!block)
        return NULL;
    memset(block, 0, sizeof(*block) + size);
    block->head.memory = *memory;
    block->head.size = sizeof(*block) + size;
    return block + 1;
}

#if !defined(SBX_NO_FILES) || !defined(SBX_NO_WEBSOCKET)
/* Gives memory of the same allocator to an object; slot is 0 or 1. */
static void sbxi_object_attach(void *object, int slot, void *p, size_t size)
{
    sbxi_block *block = (sbxi_block *)object - 1;
    block->head.attached[slot] = p;
    block->head.attached_size[slot] = size;
}
#endif

SBX_API void sbx_free(void *object)
{
    if (object) {
        sbxi_block *block = (sbxi_block *)object - 1;
        sbx_allocator memory = block->head.memory;
        sbxi_release(&memory, block->head.attached[0], block->head.attached_size[0]);
        sbxi_release(&memory, block->head.attached[1], block->head.attached_size[1]);
        sbxi_release(&memory, block, block->head.size);
    }
}

/* ---- formatting ---- */

/* The end of the longest prefix of text that has at most len bytes and splits no character. */
static size_t sbxi_cut(const char *text, size_t len)
{
    size_t at = len;
    while (at > 0 && len - at < 3 && ((unsigned char)text[at] & 0xc0) == 0x80)
        at--;
    return ((unsigned char)text[at] & 0xc0) == 0x80 ? len : at;
}

/* Copies len bytes of text into out[cap] with a final 0. Control characters become spaces, so that
   foreign text stays on one line. */
static void sbxi_copy(char *out, size_t cap, const char *text, size_t len)
{
    size_t i;
    if (len >= cap)
        len = sbxi_cut(text, cap - 1);
    for (i = 0; i < len; i++)
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? ' ' : text[i];
    out[len] = 0;
}

static size_t sbxi_decimal(char out[21], int64_t value)
{
    char digits[20];
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    size_t n = 0, len = 0;
    do {
        digits[n++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (value < 0)
        out[len++] = '-';
    while (n)
        out[len++] = digits[--n];
    out[len] = 0;
    return len;
}

/* The library's printf: %s is a string (NULL: nothing), %d an int, %l an int64_t, %% a percent
   sign. Returns the length of what fitted into out[cap]. */
static size_t sbxi_vformat(char *out, size_t cap, const char *format, va_list args)
{
    size_t at = 0, len;
    char number[21];
    const char *piece;
    for (; *format && at + 1 < cap; format++) {
        piece = format;
        len = 1;
        if (*format == '%') {
            format++;
            if (*format == 's') {
                piece = va_arg(args, const char *);
                len = piece ? strlen(piece) : 0;
            } else if (*format == 'd' || *format == 'l') {
                int64_t value = *format == 'd' ? va_arg(args, int) : va_arg(args, int64_t);
                len = sbxi_decimal(number, value);
                piece = number;
            }
        }
        if (len == 0)
            continue;
        if (len >= cap - at)
            len = sbxi_cut(piece, cap - at - 1);
        sbxi_copy(out + at, cap - at, piece, len);
        at += len;
    }
    if (cap)
        out[at] = 0;
    return at;
}

static size_t sbxi_format(char *out, size_t cap, const char *format, ...)
{
    va_list args;
    size_t len;
    va_start(args, format);
    len = sbxi_vformat(out, cap, format, args);
    va_end(args);
    return len;
}

/* ---- errors ---- */

static void sbxi_error_clear(sbx_error *err)
{
    if (err) {
        memset(err, 0, sizeof(*err));
        err->resource_type = err->operation = err->quota_type = "";
    }
}

/* Fills err (may be NULL) and returns status. Details that are known besides are set afterwards. */
static sbx_status sbxi_fail(sbx_error *err, sbx_status status, const char *format, ...)
{
    va_list args;
    if (err) {
        sbxi_error_clear(err);
        err->status = status;
        va_start(args, format);
        sbxi_vformat(err->message, sizeof(err->message), format, args);
        va_end(args);
    }
    return status;
}

/* Anything shorter is no secret, and would be found in any text. */
#define SBXI_SECRET 8

/* Covers secret (NULL: none) wherever text holds it, also where its end was cut off: a service may
   quote the key that it refuses. */
static void sbxi_redact(char *text, const char *secret)
{
    size_t len = secret ? strlen(secret) : 0, i, n;
    for (i = 0; len >= SBXI_SECRET && text[i]; i++) {
        for (n = 0; n < len && text[i + n] == secret[n]; n++) {
        }
        if (n == len || (n >= SBXI_SECRET && text[i + n] == 0))
            memset(text + i, '*', n);
    }
}

static void sbxi_error_redact(sbx_error *err, const char *secret)
{
    int i;
    sbxi_redact(err->message, secret);
    sbxi_redact(err->error_type, secret);
    sbxi_redact(err->field, secret);
    sbxi_redact(err->last_status, secret);
    for (i = 0; i < SBX_ERROR_DETAILS; i++) {
        sbxi_redact(err->details[i].field, secret);
        sbxi_redact(err->details[i].type, secret);
        sbxi_redact(err->details[i].message, secret);
    }
}

static sbx_status sbxi_fail_memory(sbx_error *err)
{
    return sbxi_fail(err, SBX_E_MEMORY, "out of memory");
}

/* An argument error: problem completes the sentence that starts with the field's name. */
static sbx_status sbxi_fail_argument(sbx_error *err, const char *field, const char *problem)
{
    (void)sbxi_fail(err, SBX_E_ARGUMENT, "%s %s", field, problem);
    if (err)
        sbxi_copy(err->field, sizeof(err->field), field, strlen(field));
    return SBX_E_ARGUMENT;
}

SBX_API const char *sbx_status_name(sbx_status status)
{
    switch (status) {
#define SBXI_NAME(name)                                                                            \
    case name:                                                                                     \
        return #name
        SBXI_NAME(SBX_OK);
        SBXI_NAME(SBX_AGAIN);
        SBXI_NAME(SBX_END);
        SBXI_NAME(SBX_E_ARGUMENT);
        SBXI_NAME(SBX_E_MEMORY);
        SBXI_NAME(SBX_E_CANCELLED);
        SBXI_NAME(SBX_E_TIMEOUT);
        SBXI_NAME(SBX_E_TOO_BIG);
        SBXI_NAME(SBX_E_ABORTED);
        SBXI_NAME(SBX_E_ENTROPY);
        SBXI_NAME(SBX_E_UNSUPPORTED);
        SBXI_NAME(SBX_E_FILE);
        SBXI_NAME(SBX_E_CONNECTION);
        SBXI_NAME(SBX_E_RESOLVE);
        SBXI_NAME(SBX_E_CONNECT);
        SBXI_NAME(SBX_E_TLS);
        SBXI_NAME(SBX_E_PROTOCOL);
        SBXI_NAME(SBX_E_SERVER_RELOAD);
        SBXI_NAME(SBX_E_SERVICE);
        SBXI_NAME(SBX_E_API);
        SBXI_NAME(SBX_E_AUTHENTICATION);
        SBXI_NAME(SBX_E_NOT_FOUND);
        SBXI_NAME(SBX_E_VALIDATION);
        SBXI_NAME(SBX_E_QUOTA);
        SBXI_NAME(SBX_E_ALREADY_EXISTS);
        SBXI_NAME(SBX_E_NAME_CONFLICT);
        SBXI_NAME(SBX_E_IN_USE);
        SBXI_NAME(SBX_E_CREATION);
        SBXI_NAME(SBX_E_RESOURCE_TIMEOUT);
        SBXI_NAME(SBX_E_NOT_READY);
        SBXI_NAME(SBX_E_NO_DATAPLANE);
        SBXI_NAME(SBX_E_OPERATION);
        SBXI_NAME(SBX_E_COMMAND_TIMEOUT);
#undef SBXI_NAME
    }
    return "unknown status";
}

SBX_API int sbx_status_is(sbx_status status, sbx_status family)
{
    if (status == family)
        return 1;
    switch (family) {
    case SBX_E_CONNECTION:
        return status <= SBX_E_RESOLVE && status >= SBX_E_SERVER_RELOAD;
    case SBX_E_SERVICE:
        return status <= SBX_E_API && status >= SBX_E_COMMAND_TIMEOUT;
    case SBX_E_OPERATION:
        return status == SBX_E_COMMAND_TIMEOUT;
    default:
        return 0;
    }
}

/* ==== src/buffer.c ============================================================================ */

/* buffer: a queue of bytes with a ceiling.

   Promises: memory grows with the bytes that are there, doubling, and never past the ceiling; after
   a failure the queue is as it was. The bytes lie in one piece from sbxi_buffer_data. */

static void sbxi_buffer_init(sbxi_buffer *b, const sbx_allocator *memory, size_t ceiling)
{
    memset(b, 0, sizeof(*b));
    b->memory = memory;
    b->ceiling = ceiling;
}

static void sbxi_buffer_free(sbxi_buffer *b)
{
    sbxi_release(b->memory, b->data, b->cap);
    b->data = NULL;
    b->start = b->end = b->cap = 0;
}

static char *sbxi_buffer_data(const sbxi_buffer *b)
{
    return b->data ? b->data + b->start : NULL;
}

static size_t sbxi_buffer_len(const sbxi_buffer *b)
{
    return b->end - b->start;
}

static void sbxi_buffer_consume(sbxi_buffer *b, size_t len)
{
    b->start += len;
    if (b->start == b->end)
        b->start = b->end = 0;
}

static void sbxi_buffer_compact(sbxi_buffer *b)
{
    if (b->start > 0) {
        memmove(b->data, b->data + b->start, b->end - b->start);
        b->end -= b->start;
        b->start = 0;
    }
}

/* Makes room for len more bytes at data + end; the caller writes and counts them. The bytes move to
   the front only when that frees at least half of the room, or the ceiling leaves no other way, so
   moving costs in proportion to what went through. */
static sbx_status sbxi_buffer_reserve(sbxi_buffer *b, size_t len)
{
    const size_t least = b->ceiling < 256 ? b->ceiling : 256;
    size_t cap = b->cap < least ? least : b->cap;
    char *data;
    if (len <= b->cap - b->end)
        return SBX_OK;
    if (len > b->ceiling - sbxi_buffer_len(b))
        return SBX_E_TOO_BIG;
    if (b->start >= b->cap / 2 || len > b->ceiling - b->end)
        sbxi_buffer_compact(b);
    if (len <= b->cap - b->end)
        return SBX_OK;
    while (cap < b->end + len)
        cap = cap > b->ceiling / 2 ? b->ceiling : cap * 2;
    data = (char *)b->memory->resize(b->memory->user, b->data, b->cap, cap);
    if (!data)
        return SBX_E_MEMORY;
    b->data = data;
    b->cap = cap;
    return SBX_OK;
}

static sbx_status sbxi_buffer_append(sbxi_buffer *b, const void *data, size_t len)
{
    sbx_status st = len ? sbxi_buffer_reserve(b, len) : SBX_OK;
    if (st == SBX_OK && len) {
        memcpy(b->data + b->end, data, len);
        b->end += len;
    }
    return st;
}

static sbx_status sbxi_buffer_text(sbxi_buffer *b, const char *text)
{
    return sbxi_buffer_append(b, text, strlen(text));
}

#if !defined(SBX_NO_FILES) || !defined(SBX_NO_WEBSOCKET)
/* Puts a 0 behind the bytes, which is not counted. */
static sbx_status sbxi_buffer_terminate(sbxi_buffer *b)
{
    sbx_status st = sbxi_buffer_reserve(b, 1);
    if (st == SBX_OK)
        b->data[b->end] = 0;
    return st;
}
#endif

/* ==== src/text.c ============================================================================== */

/* text: UTF-8, numbers, dates and the small encodings that the codecs need.

   Promises: no allocation, no locale; reads nothing beyond the length it is given. The UTF-8 check
   says no at the very byte that makes the text impossible. Calls nothing but libc's memory
   functions. */

/* ---- 16 bytes at a time ---- */

#ifndef SBX_NO_SIMD
#if defined(__SSE2__) || defined(_M_X64) || (defined(_M_IX86_FP) && _M_IX86_FP >= 2)
#include <emmintrin.h>
#define SBXI_SIMD
typedef __m128i sbxi_v16;
#define SBXI_V_LOAD(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define SBXI_V_STORE(p, a) _mm_storeu_si128((__m128i *)(void *)(p), a)
#define SBXI_V_FILL(byte) _mm_set1_epi8((char)(byte))
#define SBXI_V_AND(a, b) _mm_and_si128(a, b)
#define SBXI_V_OR(a, b) _mm_or_si128(a, b)
#define SBXI_V_XOR(a, b) _mm_xor_si128(a, b)
#define SBXI_V_MAX(a, b) _mm_max_epu8(a, b)        /* unsigned */
#define SBXI_V_MINUS(a, b) _mm_subs_epu8(a, b)     /* unsigned, 0 instead of less */
#define SBXI_V_EQUAL(a, b) _mm_cmpeq_epi8(a, b)    /* 0xff where so */
#define SBXI_V_ABOVE(a, b) _mm_cmpgt_epi8(a, b)    /* signed; 0xff where so */
#define SBXI_V_HIGH(a) (_mm_movemask_epi8(a) != 0) /* whether a byte is 0x80 or more */
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#define SBXI_SIMD
typedef uint8x16_t sbxi_v16;
#define SBXI_V_LOAD(p) vld1q_u8((const unsigned char *)(p))
#define SBXI_V_STORE(p, a) vst1q_u8((unsigned char *)(p), a)
#define SBXI_V_FILL(byte) vdupq_n_u8((unsigned char)(byte))
#define SBXI_V_AND(a, b) vandq_u8(a, b)
#define SBXI_V_OR(a, b) vorrq_u8(a, b)
#define SBXI_V_XOR(a, b) veorq_u8(a, b)
#define SBXI_V_MAX(a, b) vmaxq_u8(a, b)
#define SBXI_V_MINUS(a, b) vqsubq_u8(a, b)
#define SBXI_V_EQUAL(a, b) vceqq_u8(a, b)
#define SBXI_V_ABOVE(a, b) vcgtq_s8(vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b))
#define SBXI_V_HIGH(a) (vmaxvq_u8(a) >= 0x80)
#endif
#endif

/* ---- UTF-8 ---- */

/* A state other than 0 is: how many bytes the character still needs, and the lowest and the highest
   value that the next of them may have. Only the byte after the first has bounds of its own: they
   keep out overlong forms, surrogates and what lies beyond U+10FFFF. */
#define SBXI_UTF8_STATE(need, low, high)                                                           \
    ((uint32_t)(need) << 16 | (uint32_t)(low) << 8 | (uint32_t)(high))
#define SBXI_UTF8_BAD SBXI_UTF8_STATE(1, 0xff, 0) /* no byte is in these bounds */

/* The state after the first byte of a character, which is not ASCII. */
static uint32_t sbxi_utf8_lead(unsigned char lead)
{
    if (lead < 0xc2)
        return SBXI_UTF8_BAD;
    if (lead < 0xe0)
        return SBXI_UTF8_STATE(1, 0x80, 0xbf);
    if (lead < 0xf0)
        return SBXI_UTF8_STATE(2, lead == 0xe0 ? 0xa0 : 0x80, lead == 0xed ? 0x9f : 0xbf);
    if (lead < 0xf5)
        return SBXI_UTF8_STATE(3, lead == 0xf0 ? 0x90 : 0x80, lead == 0xf4 ? 0x8f : 0xbf);
    return SBXI_UTF8_BAD;
}

/* One byte more. */
static uint32_t sbxi_utf8_step(uint32_t state, unsigned char byte)
{
    uint32_t need = state >> 16;
    if (state == 0)
        return byte < 0x80 ? 0 : sbxi_utf8_lead(byte);
    if (byte < (state >> 8 & 0xff) || byte > (state & 0xff))
        return SBXI_UTF8_BAD;
    return need > 1 ? SBXI_UTF8_STATE(need - 1, 0x80, 0xbf) : 0;
}

#ifdef SBXI_SIMD
#define SBXI_UTF8_RUN 16

/* Whether one of 16 bytes cannot stand where it stands. before1 to before3 are the bytes that lie
   one, two and three places before each of them. */
static int sbxi_utf8_is_bad(sbxi_v16 bytes, sbxi_v16 before1, sbxi_v16 before2, sbxi_v16 before3)
{
    /* Continuations stand exactly where a lead before them asks for one. */
    sbxi_v16 wanted = SBXI_V_OR(SBXI_V_OR(SBXI_V_MINUS(before1, SBXI_V_FILL(0xbf)),
                                          SBXI_V_MINUS(before2, SBXI_V_FILL(0xdf))),
                                SBXI_V_MINUS(before3, SBXI_V_FILL(0xef)));
    sbxi_v16 bad =
        SBXI_V_EQUAL(SBXI_V_EQUAL(wanted, SBXI_V_FILL(0)), SBXI_V_ABOVE(SBXI_V_FILL(0xc0), bytes));
    /* Leads that never occur: C0, C1, F5 to FF. */
    bad = SBXI_V_OR(bad, SBXI_V_EQUAL(SBXI_V_AND(bytes, SBXI_V_FILL(0xfe)), SBXI_V_FILL(0xc0)));
    bad = SBXI_V_OR(bad, SBXI_V_EQUAL(SBXI_V_MAX(bytes, SBXI_V_FILL(0xf5)), bytes));
    /* Overlong forms, surrogates, and what lies beyond U+10FFFF. */
    bad = SBXI_V_OR(bad, SBXI_V_AND(SBXI_V_EQUAL(before1, SBXI_V_FILL(0xe0)),
                                    SBXI_V_ABOVE(SBXI_V_FILL(0xa0), bytes)));
    bad = SBXI_V_OR(bad, SBXI_V_AND(SBXI_V_EQUAL(before1, SBXI_V_FILL(0xed)),
                                    SBXI_V_ABOVE(bytes, SBXI_V_FILL(0x9f))));
    bad = SBXI_V_OR(bad, SBXI_V_AND(SBXI_V_EQUAL(before1, SBXI_V_FILL(0xf0)),
                                    SBXI_V_ABOVE(SBXI_V_FILL(0x90), bytes)));
    bad = SBXI_V_OR(bad, SBXI_V_AND(SBXI_V_EQUAL(before1, SBXI_V_FILL(0xf4)),
                                    SBXI_V_ABOVE(bytes, SBXI_V_FILL(0x8f))));
    return SBXI_V_HIGH(bad);
}

/* The end of the ASCII text at p, as far as it goes in steps of 64 bytes. */
static const unsigned char *sbxi_ascii(const unsigned char *p, const unsigned char *end)
{
    for (; end - p >= 64; p += 64) {
        sbxi_v16 all = SBXI_V_OR(SBXI_V_OR(SBXI_V_LOAD(p), SBXI_V_LOAD(p + 16)),
                                 SBXI_V_OR(SBXI_V_LOAD(p + 32), SBXI_V_LOAD(p + 48)));
        if (SBXI_V_HIGH(all))
            break;
    }
    return p;
}

/* Checks text that starts between two characters and has at least SBXI_UTF8_RUN bytes, all or most
   of it. Returns where the first character starts that is not checked; 0 if there is a bad byte. */
static size_t sbxi_utf8_run(const unsigned char *text, size_t len)
{
    const unsigned char *end = text + (len < 19 ? 16 : len), *stop;
    const unsigned char *p = sbxi_ascii(text, end);
    sbxi_v16 bytes = SBXI_V_LOAD(text);
    if (p == text) {
        unsigned char first[19] = {0}; /* nothing lies before the first block */
        memcpy(first + 3, text, 16);
        if (SBXI_V_HIGH(bytes) && sbxi_utf8_is_bad(bytes, SBXI_V_LOAD(first + 2),
                                                   SBXI_V_LOAD(first + 1), SBXI_V_LOAD(first)))
            return 0;
        p += 16;
    }
    while (p < end) {
        if (p[-1] < 0x80)
            p = sbxi_ascii(p, end);
        if (end - p < 16)
            p = end - 16; /* at the end, some bytes are checked twice */
        stop = p + (end - p < 64 ? (end - p) & ~15 : 64);
        for (; p < stop; p += 16) {
            bytes = SBXI_V_LOAD(p);
            if ((SBXI_V_HIGH(bytes) || p[-1] >= 0x80) &&
                sbxi_utf8_is_bad(bytes, SBXI_V_LOAD(p - 1), SBXI_V_LOAD(p - 2), SBXI_V_LOAD(p - 3)))
                return 0;
        }
    }
    for (p = end; end - p < 3 && p[-1] >= 0x80; p--) {
        if (p[-1] >= 0xc0)
            return (size_t)(p - 1 - text);
    }
    return (size_t)(end - text);
}
#else
#define SBXI_UTF8_RUN 8

/* The end of the ASCII text at p. */
static const unsigned char *sbxi_ascii(const unsigned char *p, const unsigned char *end)
{
    const uint64_t high = UINT64_C(0x8080808080808080);
    uint64_t word[4];
    for (; end - p >= 32; p += 32) {
        memcpy(word, p, 32);
        if ((word[0] | word[1] | word[2] | word[3]) & high)
            break;
    }
    for (; end - p >= 8; p += 8) {
        memcpy(word, p, 8);
        if (word[0] & high)
            break;
    }
    while (p < end && *p < 0x80)
        p++;
    return p;
}

/* Checks text that starts between two characters and has at least SBXI_UTF8_RUN bytes, all or most
   of it. Returns where the first character starts that is not checked; 0 if there is a bad byte. */
static size_t sbxi_utf8_run(const unsigned char *text, size_t len)
{
    const unsigned char *p = text, *last = text + len - 4;
    uint32_t v; /* four bytes, the first one lowest */
    while (p <= last) {
        v = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        if ((v & 0x80) == 0) {
            p = v & 0x8000 ? p + 1 : sbxi_ascii(p, last + 4);
        } else if ((v & 0x20) == 0) {
            if ((v & 0xc0e0) != 0x80c0 || (v & 0x1e) == 0)
                return 0;
            p += 2;
        } else if ((v & 0x10) == 0) {
            if ((v & 0xc0c0f0) != 0x8080e0 || (v & 0x200f) == 0 || (v & 0x200f) == 0x200d)
                return 0;
            p += 3;
        } else {
            if ((v & 0xc0c0c0f8) != 0x808080f0 || (v & 0x3007) == 0 || ((v & 4) && (v & 0x3003)))
                return 0;
            p += 4;
        }
    }
    return (size_t)(p - text);
}
#endif

SBX_API int sbx_utf8_check(sbx_utf8 *u, const void *data, size_t len)
{
    const unsigned char *p = (const unsigned char *)data;
    uint32_t state = u->state;
    size_t at = 0, run;
    while (at < len && state != 0 && state != SBXI_UTF8_BAD)
        state = sbxi_utf8_step(state, p[at++]);
    if (state == 0 && len - at >= SBXI_UTF8_RUN) {
        run = sbxi_utf8_run(p + at, len - at);
        if (run == 0)
            state = SBXI_UTF8_BAD;
        at += run;
    }
    while (at < len && state != SBXI_UTF8_BAD) {
        if (state == 0 && p[at] < 0x80)
            at++;
        else
            state = sbxi_utf8_step(state, p[at++]);
    }
    u->state = state;
    return state != SBXI_UTF8_BAD;
}

/* ---- comparing and numbers ---- */

/* 1 if the a_len bytes of a are b, whatever the case of ASCII letters. */
static int sbxi_equal_nocase(const char *a, size_t a_len, const char *b)
{
    size_t i;
    if (strlen(b) != a_len)
        return 0;
    for (i = 0; i < a_len; i++) {
        unsigned x = (unsigned char)a[i], y = (unsigned char)b[i];
        if (x - 'A' < 26)
            x += 'a' - 'A';
        if (y - 'A' < 26)
            y += 'a' - 'A';
        if (x != y)
            return 0;
    }
    return 1;
}

/* Decimal digits and nothing else, at least one. 0 for anything else and for what does not fit. */
static int sbxi_parse_uint(const char *text, size_t len, uint64_t *out)
{
    uint64_t value = 0;
    size_t i;
    for (i = 0; i < len; i++) {
        unsigned digit = (unsigned char)text[i] - (unsigned)'0';
        if (digit > 9 || value > (UINT64_MAX - digit) / 10)
            return 0;
        value = value * 10 + digit;
    }
    *out = value;
    return len > 0;
}

/* ---- dates ---- */

/* Which of the `count` names of three letters that make up `names` stands at text; -1 if none. */
static int sbxi_find_name(const char *text, const char *names, int count)
{
    int i;
    for (i = 0; i < count; i++) {
        if (memcmp(text, names + 3 * i, 3) == 0)
            return i;
    }
    return -1;
}

/* The year's days that lie before the month's first day, January being 0. */
static int64_t sbxi_days_before(int month, int leap)
{
    static const short days[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
    return days[month] + (month >= 2 && leap);
}

/* Milliseconds since 1970 of a date whose parts are in range but for the day, which is checked. */
static int sbxi_date_to_ms(uint64_t year, int month, uint64_t day, uint64_t second, int64_t *out)
{
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    int64_t y = (int64_t)year + 399; /* the calendar repeats after 400 years: no negative numbers */
    int64_t days = ((int64_t)year - 1970) * 365 + y / 4 - y / 100 + y / 400 - 574;
    if (day < 1 || (int64_t)day > sbxi_days_before(month + 1, leap) - sbxi_days_before(month, leap))
        return 0;
    days += sbxi_days_before(month, leap) + (int64_t)day - 1;
    *out = (days * 86400 + (int64_t)second) * 1000;
    return 1;
}

enum { SBXI_DAY, SBXI_YEAR, SBXI_HOUR, SBXI_MINUTE, SBXI_SECOND, SBXI_MONTH, SBXI_DATE_FIELDS };

/* Reads text as the pattern says, in which MMM stands for a month's name, D Y h m s for a digit of
   the day, year, hour, minute, second, d for one that may be a space, and the rest for itself. */
static int sbxi_match_date(const char *text, size_t len, const char *pattern,
                           uint64_t field[SBXI_DATE_FIELDS])
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static const char digits[] = "DYhms";
    size_t i;
    memset(field, 0, SBXI_DATE_FIELDS * sizeof(*field));
    if (len != strlen(pattern))
        return 0;
    for (i = 0; i < len; i++) {
        char want = pattern[i] == 'd' ? 'D' : pattern[i];
        const char *kind = (const char *)memchr(digits, want, sizeof(digits) - 1);
        if (kind) {
            uint64_t *value = &field[kind - digits];
            char byte = pattern[i] == 'd' && text[i] == ' ' ? '0' : text[i];
            if (byte < '0' || byte > '9')
                return 0;
            *value = *value * 10 + (uint64_t)(byte - '0');
        } else if (want == 'M' && pattern[i + 1] == 'M') {
            int month = sbxi_find_name(text + i, months, 12);
            if (month < 0)
                return 0;
            field[SBXI_MONTH] = (uint64_t)month;
            i += 2;
        } else if (text[i] != want) {
            return 0;
        }
    }
    return 1;
}

/* The three forms of RFC 9110, 5.6.7. Years of two digits are 1970 to 2069: that needs no clock.
   The day of the week must be one, but need not be the right one. 1 if the date is valid. */
static int sbxi_parse_http_date(const char *text, size_t len, int64_t *out_ms)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char *const endings[] = {"day", "day", "sday", "nesday", "rsday", "day", "urday"};
    uint64_t field[SBXI_DATE_FIELDS];
    int weekday = len < 4 ? -1 : sbxi_find_name(text, days, 7);
    if (weekday < 0)
        return 0;
    if (text[3] == ',') {
        if (!sbxi_match_date(text + 3, len - 3, ", DD MMM YYYY hh:mm:ss GMT", field))
            return 0;
    } else if (text[3] == ' ') {
        if (!sbxi_match_date(text + 3, len - 3, " MMM dD hh:mm:ss YYYY", field))
            return 0;
    } else {
        size_t rest = strlen(endings[weekday]), at = 3 + rest;
        if (len < at || memcmp(text + 3, endings[weekday], rest) != 0 ||
            !sbxi_match_date(text + at, len - at, ", DD-MMM-YY hh:mm:ss GMT", field))
            return 0;
        field[SBXI_YEAR] += field[SBXI_YEAR] < 70 ? 2000 : 1900;
    }
    if (field[SBXI_HOUR] > 23 || field[SBXI_MINUTE] > 59 || field[SBXI_SECOND] > 60)
        return 0;
    return sbxi_date_to_ms(field[SBXI_YEAR], (int)field[SBXI_MONTH], field[SBXI_DAY],
                           field[SBXI_HOUR] * 3600 + field[SBXI_MINUTE] * 60 + field[SBXI_SECOND],
                           out_ms);
}

/* ---- hexadecimal, base64, UUID, SHA-1 ---- */

#if !defined(SBX_NO_CONTROL) || !defined(SBX_NO_FILES) || !defined(SBX_NO_WEBSOCKET)
/* Writes 2 * len digits in lower case and a final 0. */
static void sbxi_hex(char *out, const unsigned char *in, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    size_t i;
    for (i = 0; i < len; i++) {
        *out++ = digits[in[i] >> 4];
        *out++ = digits[in[i] & 15];
    }
    *out = 0;
}
#endif

#ifndef SBX_NO_WEBSOCKET
/* Writes (len + 2) / 3 * 4 characters, with padding, and a final 0; returns their number. */
static size_t sbxi_base64(const unsigned char *in, size_t len, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t at = 0, i;
    for (i = 0; i < len; i += 3) {
        size_t have = len - i;
        unsigned second = have > 1 ? in[i + 1] : 0, third = have > 2 ? in[i + 2] : 0;
        unsigned bits = (unsigned)in[i] << 16 | second << 8 | third;
        out[at++] = digits[bits >> 18];
        out[at++] = digits[bits >> 12 & 63];
        out[at++] = have > 1 ? digits[bits >> 6 & 63] : '=';
        out[at++] = have > 2 ? digits[bits & 63] : '=';
    }
    out[at] = 0;
    return at;
}

/* A UUID of version 7 (RFC 9562): the time, then random bits. */
static void sbxi_uuid7(char out[37], int64_t wall_ms, const unsigned char random[10])
{
    unsigned char id[16];
    char digits[33];
    int i;
    for (i = 0; i < 6; i++)
        id[i] = (unsigned char)((uint64_t)wall_ms >> (40 - 8 * i) & 0xff);
    memcpy(id + 6, random, 10);
    id[6] = (unsigned char)((id[6] & 0x0f) | 0x70); /* version */
    id[8] = (unsigned char)((id[8] & 0x3f) | 0x80); /* variant */
    sbxi_hex(digits, id, sizeof(id));
    for (i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20)
            *out++ = '-';
        *out++ = digits[i];
    }
    *out = 0;
}

static uint32_t sbxi_rotate(uint32_t value, int by)
{
    return value << by | value >> (32 - by);
}

/* Works one block of 64 bytes into the state (FIPS 180-4). */
static void sbxi_sha1_block(uint32_t state[5], const unsigned char *block)
{
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f, k, t;
    int i;
    for (i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (; i < 80; i++)
        w[i] = sbxi_rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (i = 0; i < 80; i++) {
        if (i < 20) {
            f = (b & c) | (~b & d);
            k = 0x5a827999;
        } else if (i < 40) {
            f = b ^ c ^ d;
            k = 0x6ed9eba1;
        } else if (i < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8f1bbcdc;
        } else {
            f = b ^ c ^ d;
            k = 0xca62c1d6;
        }
        t = sbxi_rotate(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = sbxi_rotate(b, 30);
        b = a;
        a = t;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

/* Only for the WebSocket handshake, which asks for SHA-1 and needs no strength of it. */
static void sbxi_sha1(const void *data, size_t len, unsigned char out[20])
{
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    const unsigned char *p = (const unsigned char *)data;
    unsigned char last[128];
    uint64_t bits = (uint64_t)len * 8;
    size_t left = len, padded, i;
    for (; left >= 64; left -= 64, p += 64)
        sbxi_sha1_block(state, p);
    padded = left < 56 ? 64 : 128;
    memset(last, 0, sizeof(last));
    if (left)
        memcpy(last, p, left);
    last[left] = 0x80;
    for (i = 0; i < 8; i++)
        last[padded - 1 - i] = (unsigned char)(bits >> (8 * i) & 0xff);
    for (i = 0; i < padded; i += 64)
        sbxi_sha1_block(state, last + i);
    for (i = 0; i < 20; i++)
        out[i] = (unsigned char)(state[i / 4] >> (24 - 8 * (i % 4)) & 0xff);
}
#endif

/* ==== src/number.c ============================================================================ */

/* number: doubles from decimal text and back.

   Promises: exact in both directions, the nearest double and the fewest digits, in any locale and
   without libc's help. May call base. */

#include <float.h>

/* ---- bits and natural numbers ---- */

/* Doubles are put together from their bits. */
typedef char sbxi_number_double_is_ieee754
    [sizeof(double) == 8 && DBL_MANT_DIG == 53 && DBL_MAX_EXP == 1024 ? 1 : -1];

#define SBXI_NUMBER_HIDDEN (UINT64_C(1) << 52) /* what a normal double's mantissa has besides */
#define SBXI_NUMBER_INFINITY (UINT64_C(0x7ff) << 52) /* the bits of infinity */
#define SBXI_NUMBER_SIGN (UINT64_C(1) << 63)

static double sbxi_number_from_bits(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint64_t sbxi_number_to_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* A natural number, lowest limb first. The largest that occur are below 2^1450: a number's 256
   digits, or half of the smallest double, brought to a common denominator. */
#define SBXI_BIG_LIMBS 48
typedef struct sbxi_big {
    int len;
    uint32_t limb[SBXI_BIG_LIMBS];
} sbxi_big;

static void sbxi_big_set(sbxi_big *b, uint64_t value)
{
    b->limb[0] = (uint32_t)(value & 0xffffffff);
    b->limb[1] = (uint32_t)(value >> 32);
    b->len = b->limb[1] ? 2 : b->limb[0] ? 1 : 0;
}

static void sbxi_big_multiply(sbxi_big *b, uint32_t by, uint32_t add)
{
    uint64_t carry = add;
    int i;
    for (i = 0; i < b->len; i++) {
        carry += (uint64_t)b->limb[i] * by;
        b->limb[i] = (uint32_t)(carry & 0xffffffff);
        carry >>= 32;
    }
    if (carry)
        b->limb[b->len++] = (uint32_t)carry;
}

static void sbxi_big_multiply_pow5(sbxi_big *b, int n)
{
    for (; n >= 13; n -= 13)
        sbxi_big_multiply(b, 1220703125, 0); /* 5^13 */
    for (; n > 0; n--)
        sbxi_big_multiply(b, 5, 0);
}

static void sbxi_big_shift(sbxi_big *b, int bits)
{
    int limbs = bits / 32, i;
    sbxi_big_multiply(b, (uint32_t)1 << (bits % 32), 0);
    if (b->len == 0)
        return;
    for (i = b->len - 1; i >= 0; i--)
        b->limb[i + limbs] = b->limb[i];
    for (i = 0; i < limbs; i++)
        b->limb[i] = 0;
    b->len += limbs;
}

static void sbxi_big_multiply_pow10(sbxi_big *b, int n)
{
    sbxi_big_multiply_pow5(b, n);
    sbxi_big_shift(b, n);
}

/* Below, at or above 0 as a is less than, equal to or greater than b. */
static int sbxi_big_compare(const sbxi_big *a, const sbxi_big *b)
{
    int i;
    if (a->len != b->len)
        return a->len - b->len;
    for (i = a->len - 1; i >= 0; i--) {
        if (a->limb[i] != b->limb[i])
            return a->limb[i] < b->limb[i] ? -1 : 1;
    }
    return 0;
}

static void sbxi_big_add(sbxi_big *a, const sbxi_big *b)
{
    uint64_t carry = 0;
    int i;
    for (i = 0; i < a->len || i < b->len || carry; i++) {
        carry += (i < a->len ? a->limb[i] : 0);
        carry += (i < b->len ? b->limb[i] : 0);
        a->limb[i] = (uint32_t)(carry & 0xffffffff);
        carry >>= 32;
    }
    if (a->len < i)
        a->len = i;
}

/* b must not be greater than a. */
static void sbxi_big_subtract(sbxi_big *a, const sbxi_big *b)
{
    uint64_t borrow = 0;
    int i;
    for (i = 0; i < a->len; i++) {
        uint64_t rest = (uint64_t)a->limb[i] - (i < b->len ? b->limb[i] : 0) - borrow;
        a->limb[i] = (uint32_t)(rest & 0xffffffff);
        borrow = rest >> 63;
    }
    while (a->len > 0 && a->limb[a->len - 1] == 0)
        a->len--;
}

/* ---- from text ---- */

/* digits * 10^exponent, without zeros at either end of the digits. */
typedef struct sbxi_number_decimal {
    int count, exponent;
    unsigned char digit[SBX_JSON_NUMBER_MAX];
} sbxi_number_decimal;

/* Takes a valid number without its sign apart. */
static void sbxi_number_parse_decimal(sbxi_number_decimal *d, const char *text, size_t len)
{
    int point = 0, minus = 0, exponent = 0;
    size_t i;
    d->count = d->exponent = 0;
    for (i = 0; i < len && text[i] != 'e' && text[i] != 'E'; i++) {
        if (text[i] == '.') {
            point = 1;
            continue;
        }
        d->exponent -= point;
        if (d->count > 0 || text[i] != '0')
            d->digit[d->count++] = (unsigned char)(text[i] - '0');
    }
    while (d->count > 0 && d->digit[d->count - 1] == 0) {
        d->count--;
        d->exponent++;
    }
    for (i++; i < len; i++) {
        if (text[i] == '-')
            minus = 1;
        else if (text[i] != '+' && exponent < 100000)
            exponent = exponent * 10 + (text[i] - '0');
    }
    d->exponent += minus ? -exponent : exponent;
}

/* The upper half of a * b. */
static uint64_t sbxi_number_multiply_high(uint64_t a, uint64_t b)
{
    uint64_t a0 = a & 0xffffffff, a1 = a >> 32, b0 = b & 0xffffffff, b1 = b >> 32;
    uint64_t low = a0 * b0, middle = a1 * b0 + (low >> 32), other = a0 * b1 + (middle & 0xffffffff);
    return a1 * b1 + (middle >> 32) + (other >> 32);
}

/* Returns m >= 2^63 so that m * 2^*binary is value * 10^decimal, |decimal| < 512, with an error of
   less than SBXI_NUMBER_ERROR in m. Each factor adds at most 5 (its own rounding, the lost lower
   half, both doubled by the shift); there are at most 8 up to 10^345; and value may be the first
   19 digits of a longer number, which adds 19. */
#define SBXI_NUMBER_ERROR 64
static uint64_t sbxi_number_scale(uint64_t value, int decimal, int *binary)
{
    /* 10^(2^i) and 10^-(2^i), the highest bit of which stands for 2^top and 2^-(top + 1). */
    static const uint64_t up[] = {
        UINT64_C(0xa000000000000000), UINT64_C(0xc800000000000000), UINT64_C(0x9c40000000000000),
        UINT64_C(0xbebc200000000000), UINT64_C(0x8e1bc9bf04000000), UINT64_C(0x9dc5ada82b70b59e),
        UINT64_C(0xc2781f49ffcfa6d5), UINT64_C(0x93ba47c980e98ce0), UINT64_C(0xaa7eebfb9df9de8e)};
    static const uint64_t down[] = {
        UINT64_C(0xcccccccccccccccd), UINT64_C(0xa3d70a3d70a3d70a), UINT64_C(0xd1b71758e219652c),
        UINT64_C(0xabcc77118461cefd), UINT64_C(0xe69594bec44de15b), UINT64_C(0xcfb11ead453994ba),
        UINT64_C(0xa87fea27a539e9a5), UINT64_C(0xddd0467c64bce4a1), UINT64_C(0xc0314325637a193a)};
    static const short top[] = {3, 6, 13, 26, 53, 106, 212, 425, 850};
    int left = decimal < 0 ? -decimal : decimal, i;
    *binary = 0;
    for (i = -1; i < SBXI_COUNT(top); i++) {
        if (i >= 0) {
            if (!(left >> i & 1))
                continue;
            value = sbxi_number_multiply_high(value, decimal < 0 ? down[i] : up[i]);
            *binary += (decimal < 0 ? -top[i] - 1 : top[i]) + 1;
        }
        for (; !(value >> 63); value <<= 1)
            --*binary;
    }
    return value;
}

/* Compares the decimal with (2 * mantissa + 1) * 2^(unit - 1), exactly. */
static int sbxi_number_compare_half(const sbxi_number_decimal *d, uint64_t mantissa, int unit)
{
    sbxi_big exact, half;
    int i, shift = d->exponent - (unit - 1);
    sbxi_big_set(&exact, 0);
    for (i = 0; i < d->count; i++)
        sbxi_big_multiply(&exact, 10, d->digit[i]);
    sbxi_big_set(&half, 2 * mantissa + 1);
    sbxi_big_multiply_pow5(d->exponent < 0 ? &half : &exact,
                           d->exponent < 0 ? -d->exponent : d->exponent);
    sbxi_big_shift(shift < 0 ? &half : &exact, shift < 0 ? -shift : shift);
    return sbxi_big_compare(&exact, &half);
}

/* The double that is nearest to a valid number without its sign, the even one of two. An estimate
   of 64 bits nearly always tells which one that is. */
static uint64_t sbxi_number_nearest(const char *text, size_t len)
{
    sbxi_number_decimal d;
    uint64_t value = 0, mantissa, bits;
    int64_t rest; /* beyond the half of a unit */
    int i, used, unit, shift, compared;
    sbxi_number_parse_decimal(&d, text, len);
    if (d.count == 0 || d.count + d.exponent < -330)
        return 0;
    if (d.count + d.exponent > 310)
        return SBXI_NUMBER_INFINITY;
    used = d.count < 19 ? d.count : 19;
    for (i = 0; i < used; i++)
        value = value * 10 + d.digit[i];
    value = sbxi_number_scale(value, d.exponent + d.count - used, &unit);
    /* The highest bit of value stands for 2^(unit + 63). A double keeps 53 bits from there on, but
       none below 2^-1074. */
    shift = unit + 11 < -1074 ? -1074 - unit : 11;
    if (shift > 65)
        return 0;
    mantissa = shift < 64 ? value >> shift : 0;
    rest = shift < 64 ? (int64_t)(value - (mantissa << shift)) - (INT64_C(1) << (shift - 1)) : 0;
    unit += shift;
    if (rest > SBXI_NUMBER_ERROR || rest < -SBXI_NUMBER_ERROR)
        compared = rest > 0 ? 1 : -1;
    else
        compared = sbxi_number_compare_half(&d, mantissa, unit);
    if (compared > 0 || (compared == 0 && (mantissa & 1)))
        mantissa++;
    /* A normal number's highest bit adds one to the exponent, and so does a carry into it. */
    bits = ((uint64_t)(unit + 1074) << 52) + mantissa;
    return bits < SBXI_NUMBER_INFINITY ? bits : SBXI_NUMBER_INFINITY;
}

/* ---- to text ---- */

/* How the digits of a double are found (Steele and White; Burger and Dybvig): value / scale is what
   is left to be written, and any text between value - below and value + above reads back as it. */
typedef struct sbxi_number_shortest {
    sbxi_big value, scale, above, below;
    int even; /* a text right at the limits reads back too */
} sbxi_number_shortest;

static int sbxi_number_reaches_top(const sbxi_number_shortest *s)
{
    sbxi_big sum = s->value;
    int compared;
    sbxi_big_add(&sum, &s->above);
    compared = sbxi_big_compare(&sum, &s->scale);
    return compared > 0 || (compared == 0 && s->even);
}

static int sbxi_number_reaches_bottom(const sbxi_number_shortest *s)
{
    int compared = sbxi_big_compare(&s->value, &s->below);
    return compared < 0 || (compared == 0 && s->even);
}

/* Sets up a positive double and returns the power of ten behind which its digits start: it is
   0.DIGITS * 10^that. */
static int sbxi_number_shortest_init(sbxi_number_shortest *s, uint64_t bits)
{
    uint64_t mantissa = bits & (SBXI_NUMBER_HIDDEN - 1);
    int unit = (int)(bits >> 52), top, power, twice;
    twice = mantissa == 0 && unit > 1; /* the gap below is half of that above */
    if (unit > 0) {
        mantissa |= SBXI_NUMBER_HIDDEN;
        unit--;
    }
    unit -= 1074;
    s->even = !(mantissa & 1);
    for (top = unit; mantissa >> (top - unit) > 1;)
        top++;
    /* 2^top * log10(2), rounded down so that the value is at least a tenth and less than 100. */
    power = (top < 0 ? -(-top * 78914 / 262144) - 1 : top * 78913 / 262144) + 1;
    sbxi_big_set(&s->value, mantissa);
    sbxi_big_set(&s->scale, 1);
    sbxi_big_set(&s->above, 1);
    sbxi_big_set(&s->below, 1);
    /* All doubled, since the limits are half a gap away, and once more if the lower gap is
       smaller. */
    sbxi_big_shift(&s->value, (unit > 0 ? unit : 0) + 1 + twice);
    sbxi_big_shift(&s->scale, (unit < 0 ? -unit : 0) + 1 + twice);
    sbxi_big_shift(&s->above, (unit > 0 ? unit : 0) + twice);
    sbxi_big_shift(&s->below, unit > 0 ? unit : 0);
    if (power >= 0) {
        sbxi_big_multiply_pow10(&s->scale, power);
    } else {
        sbxi_big_multiply_pow10(&s->value, -power);
        sbxi_big_multiply_pow10(&s->above, -power);
        sbxi_big_multiply_pow10(&s->below, -power);
    }
    if (sbxi_number_reaches_top(s)) {
        sbxi_big_multiply(&s->scale, 10, 0);
        power++;
    }
    return power;
}

/* The fewest digits that read back as the double, the nearest ones of these; 17 at most. Returns
   how many, and sets *power as above. */
static int sbxi_number_shortest_digits(uint64_t bits, char digits[17], int *power)
{
    sbxi_number_shortest s;
    int count = 0, bottom, top;
    *power = sbxi_number_shortest_init(&s, bits);
    do {
        char digit = '0';
        sbxi_big_multiply(&s.value, 10, 0);
        sbxi_big_multiply(&s.above, 10, 0);
        sbxi_big_multiply(&s.below, 10, 0);
        for (; sbxi_big_compare(&s.value, &s.scale) >= 0; digit++)
            sbxi_big_subtract(&s.value, &s.scale);
        bottom = sbxi_number_reaches_bottom(&s);
        top = sbxi_number_reaches_top(&s);
        if (bottom && top) {
            int compared;
            sbxi_big_shift(&s.value, 1);
            compared = sbxi_big_compare(&s.value, &s.scale);
            top = compared > 0 || (compared == 0 && (digit & 1)); /* '0' is even */
        }
        digits[count++] = (char)(digit + (top ? 1 : 0));
    } while (!bottom && !top);
    return count;
}

#define SBXI_NUMBER_FORMAT_MAX 32

/* Writes a finite double, plain from 1e-4 to below 1e16, so that an integer reads back as just that
   integer, else like 1.5e300. Returns the length, at most 24. */
static size_t sbxi_number_format(char out[SBXI_NUMBER_FORMAT_MAX], double value)
{
    uint64_t bits = sbxi_number_to_bits(value);
    char digits[17];
    size_t len = 0;
    int count, power, i, whole;
    if (bits & SBXI_NUMBER_SIGN)
        out[len++] = '-';
    bits &= ~SBXI_NUMBER_SIGN;
    if (bits == 0) {
        out[len++] = '0';
        return len;
    }
    count = sbxi_number_shortest_digits(bits, digits, &power);
    whole = power > 16 || power < -3 ? 1 : power; /* digits before the point */
    if (whole <= 0) {
        out[len++] = '0';
        out[len++] = '.';
        for (i = whole; i < 0; i++)
            out[len++] = '0';
    }
    for (i = 0; i < count || i < whole; i++) {
        if (i == whole && i > 0)
            out[len++] = '.';
        out[len++] = i < count ? digits[i] : '0';
    }
    if (whole != power) {
        out[len++] = 'e';
        len += sbxi_decimal(out + len, power - 1);
    }
    return len;
}

/* ==== src/json.c ============================================================================== */

/* json: reads and writes JSON (RFC 8259).

   Promises: takes what the standard takes and nothing else, and says at which byte a document stops
   being one; numbers are read and written exactly, in any locale and without libc's help; no
   recursion, no allocation. May call text and number. */

/* The few functions that each event goes through: compilers find them too large to inline. */
#if defined(__GNUC__) && !defined(__OPTIMIZE_SIZE__)
#define SBXI_INLINE static inline __attribute__((always_inline))
#define SBXI_NOINLINE static __attribute__((noinline))
#else
#define SBXI_INLINE static
#define SBXI_NOINLINE static
#endif

/* ---- plain text ---- */

/* Most bytes of a text stand for themselves, and are passed over many at a time. The special ones
   are the quote, the backslash and the control characters; foreign ones are not ASCII. */

#define SBXI_JSON_EACH UINT64_C(0x0101010101010101)

/* Eight bytes, the first one lowest whatever the machine's order. */
SBXI_INLINE uint64_t sbxi_json_load(const char *from)
{
    const unsigned char *p = (const unsigned char *)from;
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 |
           (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 |
           (uint64_t)p[7] << 56;
}

/* The highest bit of each byte that is special. A borrow can only reach bytes behind a special one,
   so that the first is always right. */
SBXI_INLINE uint64_t sbxi_json_special(uint64_t word)
{
    uint64_t quote = (word ^ SBXI_JSON_EACH * '"') - SBXI_JSON_EACH;
    uint64_t backslash = (word ^ SBXI_JSON_EACH * '\\') - SBXI_JSON_EACH;
    uint64_t control = word - SBXI_JSON_EACH * 0x20;
    return (quote | backslash | control) & ~word & SBXI_JSON_EACH * 0x80;
}

/* How many bytes stand before the first special one. */
SBXI_INLINE size_t sbxi_json_before(uint64_t special)
{
#if defined(__GNUC__)
    return (size_t)(unsigned)__builtin_ctzll(special) / 8;
#else
    /* One bit for each byte up to the special one, added up by the product. */
    return (size_t)((((special - 1) & ~special & SBXI_JSON_EACH) * SBXI_JSON_EACH) >> 56) - 1;
#endif
}

/* A block is 16 bytes or, without SIMD, such a word. */
#ifdef SBXI_SIMD
typedef sbxi_v16 sbxi_json_block;
#define SBXI_JSON_NONE SBXI_V_FILL(0)
#define SBXI_JSON_LOAD(p) SBXI_V_LOAD(p)
#define SBXI_JSON_STORE(p, block) SBXI_V_STORE(p, block)
#define SBXI_JSON_OR(a, b) SBXI_V_OR(a, b)
#define SBXI_JSON_FOREIGN(block) SBXI_V_HIGH(block)
#define SBXI_JSON_SPECIAL(block) SBXI_JSON_MASK(sbxi_json_special16(block))
#if defined(__aarch64__)
typedef uint64_t sbxi_json_mask; /* four bits for each byte */
#define SBXI_JSON_MASK(where)                                                                      \
    vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(where), 4)), 0)
#define SBXI_JSON_BEFORE(mask) ((size_t)(unsigned)__builtin_ctzll(mask) / 4)
#else
typedef unsigned sbxi_json_mask;
#define SBXI_JSON_MASK(where) ((unsigned)_mm_movemask_epi8(where))
#if defined(__GNUC__)
#define SBXI_JSON_BEFORE(mask) ((size_t)(unsigned)__builtin_ctz(mask))
#else
#define SBXI_JSON_BEFORE(mask) sbxi_json_lowest(mask)
static size_t sbxi_json_lowest(sbxi_json_mask mask)
{
    size_t at = 0;
    while (!(mask >> at & 1))
        at++;
    return at;
}
#endif
#endif

SBXI_INLINE sbxi_v16 sbxi_json_special16(sbxi_v16 block)
{
    sbxi_v16 control = SBXI_V_EQUAL(SBXI_V_MAX(block, SBXI_V_FILL(0x1f)), SBXI_V_FILL(0x1f));
    sbxi_v16 quote = SBXI_V_EQUAL(block, SBXI_V_FILL('"'));
    sbxi_v16 backslash = SBXI_V_EQUAL(block, SBXI_V_FILL('\\'));
    return SBXI_V_OR(control, SBXI_V_OR(quote, backslash));
}
#else
typedef uint64_t sbxi_json_block;
typedef uint64_t sbxi_json_mask;
#define SBXI_JSON_NONE 0
#define SBXI_JSON_LOAD(p) sbxi_json_load(p)
#define SBXI_JSON_STORE(p, block) sbxi_json_store(p, block)
#define SBXI_JSON_OR(a, b) ((a) | (b))
#define SBXI_JSON_FOREIGN(block) (((block)&SBXI_JSON_EACH * 0x80) != 0)
#define SBXI_JSON_SPECIAL(block) sbxi_json_special(block)
#define SBXI_JSON_BEFORE(mask) sbxi_json_before(mask)

SBXI_INLINE void sbxi_json_store(char *to, uint64_t word)
{
    unsigned char *p = (unsigned char *)to;
    p[0] = (unsigned char)(word & 0xff);
    p[1] = (unsigned char)(word >> 8 & 0xff);
    p[2] = (unsigned char)(word >> 16 & 0xff);
    p[3] = (unsigned char)(word >> 24 & 0xff);
    p[4] = (unsigned char)(word >> 32 & 0xff);
    p[5] = (unsigned char)(word >> 40 & 0xff);
    p[6] = (unsigned char)(word >> 48 & 0xff);
    p[7] = (unsigned char)(word >> 56);
}
#endif

static int sbxi_json_is_special(char c)
{
    return (unsigned char)c < 0x20 || c == '"' || c == '\\';
}

/* How many of the len bytes come before the first special one. *foreign is set to 1 if some of
   these may not be ASCII. */
static size_t sbxi_json_plain(const char *from, size_t len, int *foreign)
{
    sbxi_json_block seen = SBXI_JSON_NONE, block;
    sbxi_json_mask mask = 0;
    size_t at = 0;
    for (; !mask && len - at >= sizeof(block);
         at += mask ? SBXI_JSON_BEFORE(mask) : sizeof(block)) {
        block = SBXI_JSON_LOAD(from + at);
        mask = SBXI_JSON_SPECIAL(block);
        seen = SBXI_JSON_OR(seen, block);
    }
    *foreign |= SBXI_JSON_FOREIGN(seen);
    for (; at < len && !sbxi_json_is_special(from[at]); at++)
        *foreign |= (unsigned char)from[at] >= 0x80;
    return at;
}

/* ---- numbers ---- */

/* 1 and the value if a valid number is an integer that fits. */
static int sbxi_json_to_integer(const char *text, size_t len, int64_t *out)
{
    int minus = text[0] == '-';
    uint64_t value;
    if (!sbxi_parse_uint(text + minus, len - (size_t)minus, &value) ||
        value > (uint64_t)INT64_MAX + (uint64_t)minus)
        return 0;
    *out = !minus ? (int64_t)value : value == 0 ? 0 : -(int64_t)(value - 1) - 1;
    return 1;
}

static void sbxi_json_convert_number(const sbx_json *j, sbx_json_event *event)
{
    int minus = j->number[0] == '-';
    if (sbxi_json_to_integer(j->number, j->number_len, &event->integer)) {
        event->type = SBX_JSON_INTEGER;
        event->number = (double)event->integer;
        if (event->integer != 0 || !minus)
            return;
    }
    event->number =
        sbxi_number_from_bits(sbxi_number_nearest(j->number + minus, j->number_len - (size_t)minus) |
                            (minus ? SBXI_NUMBER_SIGN : 0));
}

/* ---- reader ---- */

/* What may come next. The writer uses some of them too. */
enum {
    SBXI_JSON_VALUE,
    SBXI_JSON_FIRST_VALUE, /* or the end of the array */
    SBXI_JSON_FIRST_KEY,   /* or the end of the object */
    SBXI_JSON_NEXT_KEY,    /* up to here, a quote begins a text */
    SBXI_JSON_COLON,
    SBXI_JSON_AFTER_VALUE, /* a comma, or the end of the array or object */
    SBXI_JSON_COMPLETE,
    /* The rest of what has begun. */
    SBXI_JSON_IN_KEY,
    SBXI_JSON_IN_STRING,
    SBXI_JSON_IN_NUMBER,
    SBXI_JSON_IN_WORD,
    SBXI_JSON_FAILED
};

/* Where in a text the reader is. */
enum {
    SBXI_JSON_PLAIN,
    SBXI_JSON_ESCAPE,                   /* behind a backslash */
    SBXI_JSON_HEX,                      /* this and the next three: before a digit of \uXXXX */
    SBXI_JSON_PAIR = SBXI_JSON_HEX + 4, /* before the backslash of a pair's second half */
    SBXI_JSON_PAIR_U,                   /* before its u */
    SBXI_JSON_CHARACTER                 /* an escape is complete: code is the character */
};

/* Where in a number the reader is: behind a minus sign, a zero in front, .. */
enum {
    SBXI_JSON_MINUS,
    SBXI_JSON_ZERO,
    SBXI_JSON_DIGITS,
    SBXI_JSON_POINT,
    SBXI_JSON_FRACTION,
    SBXI_JSON_E,
    SBXI_JSON_E_SIGN,
    SBXI_JSON_EXPONENT
};

typedef struct sbxi_json_input {
    const char *at, *end;
} sbxi_json_input;

static sbx_status sbxi_json_fail(sbx_json *j, sbx_status status, const char *problem)
{
    j->problem = problem;
    j->status = status;
    j->state = SBXI_JSON_FAILED;
    return status;
}

static sbx_status sbxi_json_refuse(sbx_json *j, const char *problem)
{
    return sbxi_json_fail(j, SBX_E_PROTOCOL, problem);
}

/* Member by member, here and below: compilers make a slow string instruction of memset. */
SBX_API void sbx_json_init(sbx_json *j, char *scratch, size_t cap)
{
    j->problem = NULL;
    j->offset = 0;
    j->scratch = scratch;
    j->cap = cap;
    j->used = j->given = 0;
    j->arrays = 0;
    j->code = j->high = 0;
    j->utf8_checked = 0;
    j->depth = j->step = 0;
    j->state = SBXI_JSON_VALUE;
    j->status = SBX_OK;
    j->utf8.state = 0;
    j->number_len = 0;
    if (!scratch || cap < 16)
        (void)sbxi_json_fail(j, SBX_E_ARGUMENT, "scratch must have 16 bytes or more");
}

SBXI_INLINE void sbxi_json_give(const sbx_json *j, sbx_json_type type, sbx_json_event *event)
{
    event->type = type;
    event->depth = j->depth;
    event->text = NULL;
    event->len = 0;
    event->partial = 0;
    event->integer = 0;
    event->number = 0;
}

/* The following take what stands at `at`, and return what is behind it. */

/* Behind a key stands a colon, mostly at once. */
SBXI_INLINE const char *sbxi_json_after_key(sbx_json *j, const char *at, const char *end)
{
    int colon = at < end && *at == ':';
    j->state = colon ? SBXI_JSON_VALUE : SBXI_JSON_COLON;
    return at + colon;
}

/* Behind a value stands a comma, mostly at once, or what it is in ends. */
SBXI_INLINE const char *sbxi_json_after_value(sbx_json *j, const char *at, const char *end)
{
    if (j->depth == 0) {
        j->state = SBXI_JSON_COMPLETE;
    } else if (at < end && *at == ',') {
        j->state = j->arrays & 1 ? SBXI_JSON_VALUE : SBXI_JSON_NEXT_KEY;
        at++;
    } else {
        j->state = SBXI_JSON_AFTER_VALUE;
    }
    return at;
}

SBXI_INLINE const char *sbxi_json_give_text(sbx_json *j, int key, const char *text, size_t len,
                                            const char *at, const char *end, sbx_json_event *event)
{
    sbxi_json_give(j, key ? SBX_JSON_KEY : SBX_JSON_STRING, event);
    event->text = text;
    event->len = len;
    return key ? sbxi_json_after_key(j, at, end) : sbxi_json_after_value(j, at, end);
}

/* ---- reader: what most documents consist of ---- */

/* These return NULL, with nothing done, if it is not as simple as they think. */

/* A text of up to 7 bytes, without escapes, where 9 can be read. */
SBXI_INLINE const char *sbxi_json_short_text(sbx_json *j, const char *at, const char *end,
                                             sbx_json_event *event)
{
    uint64_t word = sbxi_json_load(at + 1), special = sbxi_json_special(word);
    size_t n;
    if (!special || (!j->utf8_checked && (word & SBXI_JSON_EACH * 0x80)))
        return NULL;
    n = sbxi_json_before(special);
    if (at[n + 1] != '"')
        return NULL;
    return sbxi_json_give_text(j, j->state >= SBXI_JSON_FIRST_KEY, at + 1, n, at + n + 2, end,
                               event);
}

/* An integer of up to 17 digits that ends in the data. */
SBXI_INLINE const char *sbxi_json_short_integer(sbx_json *j, const char *at, const char *end,
                                                sbx_json_event *event)
{
    int minus = *at == '-';
    const char *first = at + minus, *stop = end - first < 18 ? end : first + 18;
    int64_t value = 0;
    unsigned digit = 0;
    for (at = first; at < stop && (digit = (unsigned char)*at - (unsigned)'0') <= 9; at++)
        value = value * 10 + (int64_t)digit;
    /* Neither digits only, nor none, nor a zero in front of others, nor a minus in front of it. */
    if (digit <= 9 || at == first || (*first == '0' && (minus || at - first > 1)))
        return NULL;
    if (*at == '.' || *at == 'e' || *at == 'E')
        return NULL;
    sbxi_json_give(j, SBX_JSON_INTEGER, event);
    event->integer = minus ? -value : value;
    event->number = (double)event->integer;
    return sbxi_json_after_value(j, at, end);
}

SBXI_INLINE const char *sbxi_json_open(sbx_json *j, int array, const char *at,
                                       sbx_json_event *event)
{
    if (j->depth == SBX_JSON_DEPTH)
        return NULL;
    sbxi_json_give(j, array ? SBX_JSON_ARRAY : SBX_JSON_OBJECT, event);
    j->depth++;
    j->arrays = j->arrays << 1 | (uint64_t)array;
    j->state = array ? SBXI_JSON_FIRST_VALUE : SBXI_JSON_FIRST_KEY;
    return at + 1;
}

SBXI_INLINE const char *sbxi_json_close(sbx_json *j, int array, const char *at, const char *end,
                                        sbx_json_event *event)
{
    int first = array ? SBXI_JSON_FIRST_VALUE : SBXI_JSON_FIRST_KEY;
    if (j->depth == 0 || (int)(j->arrays & 1) != array ||
        (j->state != SBXI_JSON_AFTER_VALUE && j->state != first))
        return NULL;
    j->depth--;
    j->arrays >>= 1;
    sbxi_json_give(j, array ? SBX_JSON_ARRAY_END : SBX_JSON_OBJECT_END, event);
    return sbxi_json_after_value(j, at + 1, end);
}

/* What is neither text nor word. */
SBXI_INLINE const char *sbxi_json_simple(sbx_json *j, const char *at, const char *end,
                                         sbx_json_event *event)
{
    if (*at == '}')
        return sbxi_json_close(j, 0, at, end, event);
    if (*at == ']')
        return sbxi_json_close(j, 1, at, end, event);
    if (j->state > SBXI_JSON_FIRST_VALUE)
        return NULL;
    if (*at == '{')
        return sbxi_json_open(j, 0, at, event);
    if (*at == '[')
        return sbxi_json_open(j, 1, at, event);
    return sbxi_json_short_integer(j, at, end, event);
}

/* ---- reader: texts ---- */

/* The value of a hexadecimal digit; 16 if c is none. */
SBXI_INLINE unsigned sbxi_json_hex(char c)
{
    unsigned digit = (unsigned char)c - (unsigned)'0';
    if (digit <= 9)
        return digit;
    digit = ((unsigned char)c | 0x20u) - (unsigned)'a';
    return digit < 6 ? digit + 10 : 16;
}

/* What the character behind a backslash stands for; 0: nothing, or u. Compilers make a jump of a
   switch, which is hard to predict. */
SBXI_INLINE char sbxi_json_unescape(char c)
{
    static const char from_quote_to_t[] = {
        '"', 0,    0, 0, 0, 0,    0, 0, 0, 0, 0, 0, 0, '/',  0, 0, 0,    0,    0, 0,   0,
        0,   0,    0, 0, 0, 0,    0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0,    0,    0, 0,   0,
        0,   0,    0, 0, 0, 0,    0, 0, 0, 0, 0, 0, 0, 0,    0, 0, '\\', 0,    0, 0,   0,
        0,   '\b', 0, 0, 0, '\f', 0, 0, 0, 0, 0, 0, 0, '\n', 0, 0, 0,    '\r', 0, '\t'};
    unsigned at = (unsigned char)c - (unsigned)'"';
    return at < sizeof(from_quote_to_t) ? from_quote_to_t[at] : 0;
}

static size_t sbxi_json_encode(char *out, uint32_t code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

/* Writes the character of \uXXXX, at most 3 bytes, and returns how many; 0 if it is bad or the
   half of a surrogate pair. */
static size_t sbxi_json_escape_code(const char *from, char *to)
{
    unsigned a = sbxi_json_hex(from[2]), b = sbxi_json_hex(from[3]), c = sbxi_json_hex(from[4]),
             d = sbxi_json_hex(from[5]), code = a << 12 | b << 8 | c << 4 | d;
    if (from[1] != 'u' || (a | b | c | d) > 15 || (code & 0xf800) == 0xd800)
        return 0;
    return sbxi_json_encode(to, code);
}

/* A usual escape, of which 6 bytes can be read: writes its character and goes behind both. 0, with
   nothing done, if it is not usual. */
SBXI_INLINE int sbxi_json_escape(const char **at, char **to)
{
    const char *from = *at;
    char c = sbxi_json_unescape(from[1]);
    size_t n;
    if (c) {
        *(*to)++ = c;
        *at += 2;
        return 1;
    }
    if (memcmp(from + 1, "u001", 4) == 0 && sbxi_json_hex(from[5]) < 16) {
        *(*to)++ = (char)(16 + sbxi_json_hex(from[5])); /* the colours of a terminal */
        *at += 6;
        return 1;
    }
    n = sbxi_json_escape_code(from, *to);
    *to += n;
    *at += n ? 6 : 0;
    return n > 0;
}

/* Copies text from at to `to`, escapes replaced, up to stop at most: until there is something else
   in it. An escape is longer than what it stands for, so that `to` needs no more room than there
   is up to stop. *foreign is set to 1 if some of it may not be ASCII. */
SBXI_INLINE void sbxi_json_copy(const char **from, char **into, const char *stop, int *foreign)
{
    const char *at = *from, *last;
    char *to = *into;
    if ((size_t)(stop - at) >= sizeof(sbxi_json_block) + 6) {
        sbxi_json_block seen = SBXI_JSON_NONE, block;
        sbxi_json_mask mask;
        size_t n;
        last = stop - sizeof(block) - 6; /* from here on, a block and an escape may be too long */
        do {
            block = SBXI_JSON_LOAD(at);
            mask = SBXI_JSON_SPECIAL(block);
            SBXI_JSON_STORE(to, block);
            seen = SBXI_JSON_OR(seen, block);
            n = mask ? SBXI_JSON_BEFORE(mask) : sizeof(block);
            at += n;
            to += n;
        } while ((!mask || (*at == '\\' && sbxi_json_escape(&at, &to))) && at <= last);
        *foreign |= SBXI_JSON_FOREIGN(seen);
    }
    for (; at < stop && !sbxi_json_is_special(*at); *to++ = *at++)
        *foreign |= (unsigned char)*at >= 0x80;
    *from = at;
    *into = to;
}

/* One hexadecimal digit of an escape. Surrogates come in pairs, high before low: what cannot become
   one is refused as early as it shows. Returns the problem, or NULL. */
static const char *sbxi_json_hex_step(sbx_json *j, char c)
{
    uint32_t digit = sbxi_json_hex(c);
    int place = j->step - SBXI_JSON_HEX;
    if (digit > 15)
        return "four hexadecimal digits must follow \\u";
    j->code = j->code << 4 | digit;
    if (j->high ? (place == 0 && j->code != 0xd) || (place == 1 && j->code < 0xdc)
                : place == 1 && j->code >= 0xdc && j->code <= 0xdf)
        return "half a surrogate pair stands alone";
    j->step++;
    if (place < 3)
        return NULL;
    j->step = SBXI_JSON_CHARACTER;
    if (j->high) {
        j->code = 0x10000 + ((j->high & 0x3ff) << 10) + (j->code & 0x3ff);
        j->high = 0;
    } else if (j->code >= 0xd800 && j->code <= 0xdbff) {
        j->high = j->code;
        j->step = SBXI_JSON_PAIR;
    }
    return NULL;
}

/* One byte of an escape. Returns the problem, or NULL. */
static const char *sbxi_json_escape_step(sbx_json *j, char c)
{
    switch (j->step) {
    case SBXI_JSON_ESCAPE:
        j->code = (unsigned char)sbxi_json_unescape(c);
        j->step = j->code ? SBXI_JSON_CHARACTER : SBXI_JSON_HEX;
        return j->code || c == 'u' ? NULL : "there is no such escape";
    case SBXI_JSON_PAIR:
    case SBXI_JSON_PAIR_U:
        if (c != (j->step == SBXI_JSON_PAIR ? '\\' : 'u'))
            return "half a surrogate pair stands alone";
        j->step = j->step == SBXI_JSON_PAIR ? SBXI_JSON_PAIR_U : SBXI_JSON_HEX;
        j->code = 0;
        return NULL;
    default:
        return sbxi_json_hex_step(j, c);
    }
}

/* Goes on with an escape, byte by byte. SBX_OK: it is in scratch. SBX_END: it has no room there. */
static sbx_status sbxi_json_read_escape(sbx_json *j, sbxi_json_input *in)
{
    char bytes[4];
    size_t n;
    for (; j->step != SBXI_JSON_CHARACTER; in->at++) {
        const char *problem;
        if (in->at == in->end)
            return SBX_AGAIN;
        problem = sbxi_json_escape_step(j, *in->at);
        if (problem)
            return sbxi_json_refuse(j, problem);
    }
    n = sbxi_json_encode(bytes, j->code);
    if (n > j->cap - j->used)
        return SBX_END;
    memcpy(j->scratch + j->used, bytes, n);
    j->used += n;
    j->step = SBXI_JSON_PLAIN;
    return SBX_OK;
}

/* Gives what is in scratch, but for the beginning of a character at its end. */
static sbx_status sbxi_json_give_part(sbx_json *j, sbx_json_event *event)
{
    size_t n;
    j->given = j->used;
    for (n = 1; n <= 3 && n <= j->used; n++) {
        unsigned char byte = (unsigned char)j->scratch[j->used - n];
        if (byte < 0xc0)
            continue;
        if (n < (byte < 0xe0 ? 2u : byte < 0xf0 ? 3u : 4u))
            j->given -= n;
        break;
    }
    sbxi_json_give(j, j->state == SBXI_JSON_IN_KEY ? SBX_JSON_KEY : SBX_JSON_STRING, event);
    event->text = j->scratch;
    event->len = j->given;
    event->partial = 1;
    return SBX_OK;
}

/* Copies text into scratch until there is something else in it, or the data ends, or the scratch
   may be full. */
static void sbxi_json_copy_more(sbx_json *j, sbxi_json_input *in, int *foreign)
{
    size_t room = j->cap - j->used, n = (size_t)(in->end - in->at);
    char *to = j->scratch + j->used;
    sbxi_json_copy(&in->at, &to, in->at + (n < room ? n : room), foreign);
    j->used = (size_t)(to - j->scratch);
}

/* Goes on with a text by way of scratch. If it began in this data, at `text`, and has no escapes,
   it is lent from there after all. */
static sbx_status sbxi_json_copy_text(sbx_json *j, sbxi_json_input *in, const char *text,
                                      int *foreign, sbx_json_event *event)
{
    for (;;) {
        size_t n;
        int lent;
        if (j->step != SBXI_JSON_PLAIN) {
            sbx_status status = sbxi_json_read_escape(j, in);
            if (status == SBX_END)
                return sbxi_json_give_part(j, event);
            if (status != SBX_OK)
                return status;
        }
        sbxi_json_copy_more(j, in, foreign);
        lent = text && j->used == (size_t)(in->at - text);
        if (lent && j->used == j->cap) {
            n = sbxi_json_plain(in->at, (size_t)(in->end - in->at), foreign);
            if (n < (size_t)(in->end - in->at) && in->at[n] == '"')
                in->at += n;
        }
        if (in->at == in->end)
            return SBX_AGAIN;
        if (!sbxi_json_is_special(*in->at)) {
            if (j->used == j->cap)
                return sbxi_json_give_part(j, event);
            continue;
        }
        if ((unsigned char)*in->at < 0x20)
            return sbxi_json_refuse(j, "a control character must be escaped");
        if (*in->at++ == '"') {
            n = lent ? (size_t)(in->at - 1 - text) : j->used;
            in->at = sbxi_json_give_text(j, j->state == SBXI_JSON_IN_KEY, lent ? text : j->scratch,
                                         n, in->at, in->end, event);
            return SBX_OK;
        }
        j->step = SBXI_JSON_ESCAPE;
    }
}

/* Goes on checking UTF-8, from `from` up to where the reader is. If it is bad, goes back to the
   byte that is. */
static int sbxi_json_check_utf8(sbx_json *j, sbxi_json_input *in, const char *from)
{
    uint32_t state = j->utf8.state;
    if (sbx_utf8_check(&j->utf8, from, (size_t)(in->at - from)))
        return 1;
    for (in->at = from;; in->at++) {
        state = sbxi_utf8_step(state, (unsigned char)*in->at);
        if (state == SBXI_UTF8_BAD)
            return 0;
    }
}

/* text is as above. */
static sbx_status sbxi_json_read_text(sbx_json *j, sbxi_json_input *in, const char *text,
                                      sbx_json_event *event)
{
    const char *from = in->at;
    int foreign = 0;
    sbx_status status = sbxi_json_copy_text(j, in, text, &foreign, event);
    if (!j->utf8_checked && (foreign || j->utf8.state) && !sbxi_json_check_utf8(j, in, from))
        return sbxi_json_refuse(j, "the text is not valid UTF-8");
    return status;
}

/* Begins a text, at its quote. */
static sbx_status sbxi_json_begin_text(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    in->at++;
    j->state = j->state <= SBXI_JSON_FIRST_VALUE ? SBXI_JSON_IN_STRING : SBXI_JSON_IN_KEY;
    j->step = SBXI_JSON_PLAIN;
    j->used = 0;
    return sbxi_json_read_text(j, in, in->at, event);
}

/* ---- reader: numbers and words ---- */

/* Where in a number the reader is behind c; -1: the number ended before c. *problem is set if it
   may not end there. */
static int sbxi_json_number_step(int step, char c, const char **problem)
{
    int digit = c >= '0' && c <= '9', e = c == 'e' || c == 'E';
    switch (step) {
    case SBXI_JSON_MINUS:
        if (!digit)
            *problem = "a digit must follow the minus sign";
        return c == '0' ? SBXI_JSON_ZERO : SBXI_JSON_DIGITS;
    case SBXI_JSON_ZERO:
        if (digit)
            *problem = "a number must not begin with a zero that is not all of it";
        return c == '.' ? SBXI_JSON_POINT : e ? SBXI_JSON_E : -1;
    case SBXI_JSON_DIGITS:
        return digit ? SBXI_JSON_DIGITS : c == '.' ? SBXI_JSON_POINT : e ? SBXI_JSON_E : -1;
    case SBXI_JSON_POINT:
        if (!digit)
            *problem = "a digit must follow the decimal point";
        return SBXI_JSON_FRACTION;
    case SBXI_JSON_FRACTION:
        return digit ? SBXI_JSON_FRACTION : e ? SBXI_JSON_E : -1;
    case SBXI_JSON_EXPONENT:
        return digit ? SBXI_JSON_EXPONENT : -1;
    default:
        if (step == SBXI_JSON_E && (c == '+' || c == '-'))
            return SBXI_JSON_E_SIGN;
        if (!digit)
            *problem = "a digit must follow the exponent's e";
        return SBXI_JSON_EXPONENT;
    }
}

static sbx_status sbxi_json_give_number(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    sbxi_json_give(j, SBX_JSON_NUMBER, event);
    sbxi_json_convert_number(j, event);
    in->at = sbxi_json_after_value(j, in->at, in->end);
    return SBX_OK;
}

/* A number ends before the first byte that cannot belong to it. */
static sbx_status sbxi_json_read_number(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    for (; in->at < in->end; in->at++) {
        const char *problem = NULL;
        int step = sbxi_json_number_step(j->step, *in->at, &problem);
        if (problem)
            return sbxi_json_refuse(j, problem);
        if (step < 0)
            return sbxi_json_give_number(j, in, event);
        if (j->number_len == SBX_JSON_NUMBER_MAX)
            return sbxi_json_fail(j, SBX_E_TOO_BIG, "the number is too long");
        j->number[j->number_len++] = *in->at;
        j->step = step;
    }
    return SBX_AGAIN;
}

static sbx_status sbxi_json_begin_number(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    char c = *in->at++;
    j->state = SBXI_JSON_IN_NUMBER;
    j->step = c == '-' ? SBXI_JSON_MINUS : c == '0' ? SBXI_JSON_ZERO : SBXI_JSON_DIGITS;
    j->number[0] = c;
    j->number_len = 1;
    return sbxi_json_read_number(j, in, event);
}

/* code says which word it is, step how much of it was read. */
static sbx_status sbxi_json_read_word(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    static const char *const words[] = {"true", "false", "null"};
    static const sbx_json_type types[] = {SBX_JSON_TRUE, SBX_JSON_FALSE, SBX_JSON_NULL};
    const char *word = words[j->code];
    for (; word[j->step]; j->step++, in->at++) {
        if (in->at == in->end)
            return SBX_AGAIN;
        if (*in->at != word[j->step])
            return sbxi_json_refuse(j, "this is neither true nor false nor null");
    }
    sbxi_json_give(j, types[j->code], event);
    in->at = sbxi_json_after_value(j, in->at, in->end);
    return SBX_OK;
}

/* ---- reader: structure ---- */

/* What is left where a value must come: words, and all that is wrong. */
static sbx_status sbxi_json_read_value(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    char c = *in->at;
    switch (c) {
    case '{':
    case '[':
        return sbxi_json_fail(j, SBX_E_TOO_BIG, "arrays and objects are nested too deep");
    case 't':
    case 'f':
    case 'n':
        j->state = SBXI_JSON_IN_WORD;
        j->code = c == 't' ? 0 : c == 'f' ? 1 : 2;
        j->step = 0;
        return sbxi_json_read_word(j, in, event);
    default:
        break;
    }
    if (c == '-' || (c >= '0' && c <= '9'))
        return sbxi_json_begin_number(j, in, event);
    return sbxi_json_refuse(j, j->state == SBXI_JSON_FIRST_VALUE ? "a value or ] must stand here"
                               : j->depth == 0 && (unsigned char)c == 0xef
                                   ? "a byte order mark must not stand here"
                                   : "a value must stand here");
}

/* Goes on with a text, of which a part may have been given. */
static sbx_status sbxi_json_resume_text(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    if (j->given) {
        j->used -= j->given;
        memmove(j->scratch, j->scratch + j->given, j->used);
        j->given = 0;
    }
    return sbxi_json_read_text(j, in, NULL, event);
}

/* Goes on where no simple event follows, nor a text begins. */
static sbx_status sbxi_json_read_other(sbx_json *j, sbxi_json_input *in, sbx_json_event *event)
{
    switch (j->state) {
    case SBXI_JSON_VALUE:
    case SBXI_JSON_FIRST_VALUE:
        return sbxi_json_read_value(j, in, event);
    case SBXI_JSON_FIRST_KEY:
        return sbxi_json_refuse(j, "a key or } must stand here");
    case SBXI_JSON_NEXT_KEY:
        return sbxi_json_refuse(j, "a key must stand here");
    case SBXI_JSON_COLON:
        return sbxi_json_refuse(j, "a colon must follow the key");
    case SBXI_JSON_AFTER_VALUE:
        return sbxi_json_refuse(j, j->arrays & 1 ? "a comma or ] must stand here"
                                                 : "a comma or } must stand here");
    case SBXI_JSON_COMPLETE:
        return sbxi_json_refuse(j, "only white space may follow the document");
    case SBXI_JSON_IN_KEY:
    case SBXI_JSON_IN_STRING:
        return sbxi_json_resume_text(j, in, event);
    case SBXI_JSON_IN_NUMBER:
        return sbxi_json_read_number(j, in, event);
    case SBXI_JSON_IN_WORD:
        return sbxi_json_read_word(j, in, event);
    default:
        return j->status;
    }
}

static int sbxi_json_is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Goes over white space, and the colon or comma that must stand there. */
static const char *sbxi_json_skip(sbx_json *j, const char *at, const char *end)
{
    for (; at < end; at++) {
        if (sbxi_json_is_space(*at))
            continue;
        if (j->state == SBXI_JSON_COLON && *at == ':')
            j->state = SBXI_JSON_VALUE;
        else if (j->state == SBXI_JSON_AFTER_VALUE && *at == ',')
            j->state = j->arrays & 1 ? SBXI_JSON_VALUE : SBXI_JSON_NEXT_KEY;
        else
            break;
    }
    return at;
}

SBXI_NOINLINE sbx_status sbxi_json_read_any(sbx_json *j, const char *start, size_t len,
                                            size_t *used, sbx_json_event *event)
{
    sbxi_json_input in;
    sbx_status status = SBX_OK;
    in.at = start;
    in.end = start + len;
    if (j->state <= SBXI_JSON_COMPLETE)
        in.at = sbxi_json_skip(j, start, in.end);
    if (in.at == in.end && j->state <= SBXI_JSON_COMPLETE) {
        status = j->state == SBXI_JSON_COMPLETE ? SBX_END : SBX_AGAIN;
    } else if (j->state <= SBXI_JSON_NEXT_KEY && *in.at == '"') {
        status = sbxi_json_begin_text(j, &in, event);
    } else {
        const char *at = in.at > start ? sbxi_json_simple(j, in.at, in.end, event) : NULL;
        if (at)
            in.at = at;
        else
            status = sbxi_json_read_other(j, &in, event);
    }
    *used = (size_t)(in.at - start);
    j->offset += *used;
    return status;
}

/* The rest tries what is usual at less cost, and leaves the other cases to sbxi_json_read_any, with
   nothing done. None is inlined into another, so that the simple ones need not save registers. */

/* A text that ends in the data and fits into scratch. */
SBXI_NOINLINE sbx_status sbxi_json_read_whole_text(sbx_json *j, const char *start, size_t len,
                                                   size_t *used, sbx_json_event *event)
{
    const char *at = start + 1;
    char *to = j->scratch;
    sbx_utf8 utf8 = {0};
    size_t n;
    int foreign = 0;
    sbxi_json_copy(&at, &to, start + (len <= j->cap ? len : j->cap), &foreign);
    n = (size_t)(to - j->scratch);
    if (at == start + len || *at != '"' ||
        (foreign && !j->utf8_checked && !sbx_utf8_check(&utf8, start, (size_t)(at - start) + 1)))
        return sbxi_json_read_any(j, start, len, used, event);
    at = sbxi_json_give_text(j, j->state >= SBXI_JSON_FIRST_KEY,
                             n == (size_t)(at - start) - 1 ? start + 1 : j->scratch, n, at + 1,
                             start + len, event);
    *used = (size_t)(at - start);
    j->offset += *used;
    return SBX_OK;
}

SBXI_NOINLINE sbx_status sbxi_json_read_simple(sbx_json *j, const char *start, size_t len,
                                               size_t *used, sbx_json_event *event)
{
    const char *at = sbxi_json_simple(j, start, start + len, event);
    if (!at)
        return sbxi_json_read_any(j, start, len, used, event);
    *used = (size_t)(at - start);
    j->offset += *used;
    return SBX_OK;
}

SBX_API sbx_status sbx_json_read(sbx_json *j, const void *data, size_t len, size_t *used,
                                 sbx_json_event *event)
{
    const char *start = (const char *)data, *at;
    if (len <= 8 || *start != '"' || j->state > SBXI_JSON_NEXT_KEY)
        return len ? sbxi_json_read_simple(j, start, len, used, event)
                   : sbxi_json_read_any(j, "", 0, used, event);
    at = sbxi_json_short_text(j, start, start + len, event);
    if (!at)
        return sbxi_json_read_whole_text(j, start, len, used, event);
    *used = (size_t)(at - start);
    j->offset += *used;
    return SBX_OK;
}

SBX_API sbx_status sbx_json_finish(sbx_json *j, sbx_json_event *event)
{
    sbxi_json_input none = {NULL, NULL};
    if (j->state == SBXI_JSON_FAILED)
        return j->status;
    if (j->state == SBXI_JSON_COMPLETE)
        return SBX_END;
    if (j->state == SBXI_JSON_IN_NUMBER && j->depth == 0 &&
        (j->step == SBXI_JSON_ZERO || j->step == SBXI_JSON_DIGITS ||
         j->step == SBXI_JSON_FRACTION || j->step == SBXI_JSON_EXPONENT))
        return sbxi_json_give_number(j, &none, event);
    return sbxi_json_refuse(j, "the document is cut short");
}

/* ---- writer ---- */

SBX_API void sbx_json_writer_init(sbx_json_writer *w, char *out, size_t cap)
{
    memset(w, 0, sizeof(*w));
    w->out = out;
    w->cap = cap;
}

static void sbxi_json_put(sbx_json_writer *w, const char *text, size_t len)
{
    size_t room = w->len < w->cap ? w->cap - w->len : 0;
    if (len > SIZE_MAX - w->len) {
        w->status = SBX_E_TOO_BIG;
        return;
    }
    if (room > 0)
        memcpy(w->out + w->len, text, len < room ? len : room);
    w->len += len;
}

static void sbxi_json_misused(sbx_json_writer *w)
{
    if (w->status == SBX_OK)
        w->status = SBX_E_ARGUMENT;
}

/* 1 if a value may come next; writes the comma before it. */
static int sbxi_json_before_value(sbx_json_writer *w)
{
    int next = w->state == SBXI_JSON_AFTER_VALUE && (w->arrays & 1);
    if (!next && w->state != SBXI_JSON_VALUE && w->state != SBXI_JSON_FIRST_VALUE)
        sbxi_json_misused(w);
    if (w->status != SBX_OK)
        return 0;
    if (next)
        sbxi_json_put(w, ",", 1);
    return 1;
}

static void sbxi_json_wrote_value(sbx_json_writer *w)
{
    w->state = w->depth ? SBXI_JSON_AFTER_VALUE : SBXI_JSON_COMPLETE;
}

static void sbxi_json_put_value(sbx_json_writer *w, const char *text, size_t len)
{
    if (sbxi_json_before_value(w)) {
        sbxi_json_put(w, text, len);
        sbxi_json_wrote_value(w);
    }
}

/* 1 if text can be written. */
static int sbxi_json_check_text(sbx_json_writer *w, const char *text, size_t len)
{
    sbx_utf8 utf8 = {0};
    if ((!text && len) || !sbx_utf8_check(&utf8, text, len) || utf8.state != 0)
        sbxi_json_misused(w);
    return w->status == SBX_OK;
}

static void sbxi_json_put_escape(sbx_json_writer *w, char c)
{
    static const char digits[] = "0123456789abcdef";
    char escape[6] = {'\\', 'u', '0', '0', 0, 0};
    switch (c) {
    case '\b':
        escape[1] = 'b';
        break;
    case '\f':
        escape[1] = 'f';
        break;
    case '\n':
        escape[1] = 'n';
        break;
    case '\r':
        escape[1] = 'r';
        break;
    case '\t':
        escape[1] = 't';
        break;
    case '"':
    case '\\':
        escape[1] = c;
        break;
    default:
        escape[4] = digits[c >> 4];
        escape[5] = digits[c & 15];
        break;
    }
    sbxi_json_put(w, escape, escape[1] == 'u' ? 6 : 2);
}

static void sbxi_json_put_text(sbx_json_writer *w, const char *text, size_t len)
{
    size_t at = 0, n;
    int foreign = 0;
    sbxi_json_put(w, "\"", 1);
    while (at < len) {
        n = sbxi_json_plain(text + at, len - at, &foreign);
        sbxi_json_put(w, text + at, n);
        at += n;
        if (at < len)
            sbxi_json_put_escape(w, text[at++]);
    }
    sbxi_json_put(w, "\"", 1);
}

static void sbxi_json_begin(sbx_json_writer *w, int array)
{
    if (w->depth == SBX_JSON_DEPTH && w->status == SBX_OK)
        w->status = SBX_E_TOO_BIG;
    if (sbxi_json_before_value(w)) {
        sbxi_json_put(w, array ? "[" : "{", 1);
        w->arrays = w->arrays << 1 | (uint64_t)array;
        w->depth++;
        w->state = array ? SBXI_JSON_FIRST_VALUE : SBXI_JSON_FIRST_KEY;
    }
}

static void sbxi_json_end(sbx_json_writer *w, int array)
{
    int first = array ? SBXI_JSON_FIRST_VALUE : SBXI_JSON_FIRST_KEY;
    if (w->depth == 0 || (int)(w->arrays & 1) != array ||
        (w->state != first && w->state != SBXI_JSON_AFTER_VALUE))
        sbxi_json_misused(w);
    if (w->status == SBX_OK) {
        sbxi_json_put(w, array ? "]" : "}", 1);
        w->arrays >>= 1;
        w->depth--;
        sbxi_json_wrote_value(w);
    }
}

SBX_API void sbx_json_begin_object(sbx_json_writer *w)
{
    sbxi_json_begin(w, 0);
}

SBX_API void sbx_json_end_object(sbx_json_writer *w)
{
    sbxi_json_end(w, 0);
}

SBX_API void sbx_json_begin_array(sbx_json_writer *w)
{
    sbxi_json_begin(w, 1);
}

SBX_API void sbx_json_end_array(sbx_json_writer *w)
{
    sbxi_json_end(w, 1);
}

SBX_API void sbx_json_key_len(sbx_json_writer *w, const char *name, size_t len)
{
    int next = w->state == SBXI_JSON_AFTER_VALUE && !(w->arrays & 1);
    if (!next && w->state != SBXI_JSON_FIRST_KEY)
        sbxi_json_misused(w);
    if (sbxi_json_check_text(w, name, len)) {
        if (next)
            sbxi_json_put(w, ",", 1);
        sbxi_json_put_text(w, name, len);
        sbxi_json_put(w, ":", 1);
        w->state = SBXI_JSON_VALUE;
    }
}

SBX_API void sbx_json_key(sbx_json_writer *w, const char *name)
{
    sbx_json_key_len(w, name, name ? strlen(name) : 1);
}

SBX_API void sbx_json_string(sbx_json_writer *w, const char *text, size_t len)
{
    if (sbxi_json_check_text(w, text, len) && sbxi_json_before_value(w)) {
        sbxi_json_put_text(w, text, len);
        sbxi_json_wrote_value(w);
    }
}

SBX_API void sbx_json_integer(sbx_json_writer *w, int64_t value)
{
    char text[21];
    sbxi_json_put_value(w, text, sbxi_decimal(text, value));
}

SBX_API void sbx_json_number(sbx_json_writer *w, double value)
{
    char text[SBXI_NUMBER_FORMAT_MAX];
    if ((sbxi_number_to_bits(value) & SBXI_NUMBER_INFINITY) == SBXI_NUMBER_INFINITY)
        sbxi_json_misused(w);
    else
        sbxi_json_put_value(w, text, sbxi_number_format(text, value));
}

SBX_API void sbx_json_boolean(sbx_json_writer *w, int value)
{
    sbxi_json_put_value(w, value ? "true" : "false", value ? 4 : 5);
}

SBX_API void sbx_json_null(sbx_json_writer *w)
{
    sbxi_json_put_value(w, "null", 4);
}

SBX_API sbx_status sbx_json_writer_finish(sbx_json_writer *w, size_t *len)
{
    if (w->state != SBXI_JSON_COMPLETE)
        sbxi_json_misused(w);
    if (len)
        *len = w->len;
    return w->status;
}

/* ==== src/url.c =============================================================================== */

/* url: percent-encoding, the parts of an absolute URL (RFC 3986), parameters of a query.

   Promises: no allocation; reads nothing beyond the length it is given. What sbx_url_parse lets
   through has no character that could end a request line or a header, so its parts can be written
   to the wire as they are. Calls text. */

/* The value of a hexadecimal digit, -1 if it is none. */
static int sbxi_url_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int sbxi_url_alphanumeric(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static int sbxi_url_in(char c, const char *set)
{
    return c != 0 && strchr(set, c) != NULL;
}

/* ---- percent-encoding ---- */

SBX_API size_t sbx_url_encode(const char *text, size_t len, char *out, size_t cap)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t i, at = 0;
    for (i = 0; i < len; i++) {
        char piece[3];
        size_t n = 1, k;
        piece[0] = text[i];
        if (!sbxi_url_alphanumeric(text[i]) && !sbxi_url_in(text[i], "-_~")) {
            piece[0] = '%';
            piece[1] = digits[(unsigned char)text[i] >> 4];
            piece[2] = digits[(unsigned char)text[i] & 15];
            n = 3;
        }
        for (k = 0; k < n; k++, at++) {
            if (at + 1 < cap)
                out[at] = piece[k];
        }
    }
    if (cap > 0)
        out[at < cap ? at : cap - 1] = 0;
    return at;
}

/* Decodes what stands at text[*at] and moves on: a byte, or -1 for a bad escape. */
static int sbxi_url_decode_one(const char *text, size_t len, int plus, size_t *at)
{
    char c = text[(*at)++];
    int high, low;
    if (c == '+' && plus)
        return ' ';
    if (c != '%')
        return (unsigned char)c;
    if (len - *at < 2)
        return -1;
    high = sbxi_url_digit(text[*at]);
    low = sbxi_url_digit(text[*at + 1]);
    *at += 2;
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

SBX_API size_t sbx_url_decode(const char *text, size_t len, int plus, char *out)
{
    size_t at = 0, n = 0;
    while (at < len) {
        int byte = sbxi_url_decode_one(text, len, plus, &at);
        if (byte < 0)
            return SIZE_MAX;
        out[n++] = (char)byte;
    }
    return n;
}

/* 1 if the encoded text stands for name. */
static int sbxi_url_is_name(const char *text, size_t len, const char *name)
{
    size_t at = 0;
    while (at < len) {
        int byte = sbxi_url_decode_one(text, len, 1, &at);
        if (byte <= 0 || byte != (unsigned char)*name++)
            return 0;
    }
    return *name == 0;
}

SBX_API sbx_status sbx_url_query(const char *query, size_t len, const char *name, char *out,
                                 size_t cap, size_t *out_len)
{
    size_t start = 0, end, equals, at, n = 0;
    *out_len = 0;
    for (;; start = end + 1) {
        for (end = start; end < len && query[end] != '&';)
            end++;
        for (equals = start; equals < end && query[equals] != '=';)
            equals++;
        /* Between two "&" there may be nothing: that is no parameter. */
        if (end > start && sbxi_url_is_name(query + start, equals - start, name))
            break;
        if (end >= len)
            return SBX_END;
    }
    for (at = equals < end ? equals + 1 : end; at < end; n++) {
        int byte = sbxi_url_decode_one(query, end, 1, &at);
        if (byte <= 0)
            return SBX_E_PROTOCOL;
        if (n + 1 < cap)
            out[n] = (char)byte;
    }
    *out_len = n;
    if (n >= cap)
        return SBX_E_TOO_BIG;
    out[n] = 0;
    return SBX_OK;
}

/* ---- absolute URLs ---- */

/* unreserved and sub-delims of RFC 3986 */
static int sbxi_url_plain(char c)
{
    return sbxi_url_alphanumeric(c) || sbxi_url_in(c, "-._~!$&'()*+,;=");
}

/* Four numbers from 0 to 255 without leading zeros. */
static int sbxi_url_is_ipv4(const char *text, size_t len)
{
    size_t at = 0, digits;
    int number, part;
    for (part = 0; part < 4; part++) {
        if (part > 0 && (at == len || text[at++] != '.'))
            return 0;
        number = 0;
        for (digits = 0; at < len && digits < 4 && text[at] >= '0' && text[at] <= '9'; digits++)
            number = number * 10 + (text[at++] - '0');
        if (digits == 0 || digits > 3 || number > 255 || (digits > 1 && text[at - digits] == '0'))
            return 0;
    }
    return at == len;
}

/* Eight groups of up to four digits; "::" stands once for some that are 0; the last two may be
   written as an IPv4 address. */
static int sbxi_url_is_ipv6(const char *text, size_t len)
{
    size_t at = 0, start;
    int groups = 0, gap = 0;
    if (len >= 2 && text[0] == ':' && text[1] == ':') {
        gap = 1;
        at = 2;
    }
    while (at < len && groups < 8) {
        start = at;
        while (at < len && at - start < 4 && sbxi_url_digit(text[at]) >= 0)
            at++;
        if (at < len && text[at] == '.') {
            groups += 2;
            if (!sbxi_url_is_ipv4(text + start, len - start))
                return 0;
            at = len;
            break;
        }
        groups++;
        if (at == start)
            return 0;
        if (at == len)
            break;
        if (text[at] != ':' || ++at == len)
            return 0;
        if (text[at] == ':') {
            if (gap)
                return 0;
            gap = 1;
            at++;
        }
    }
    return at == len && (gap ? groups < 8 : groups == 8);
}

/* Takes [HOST] or HOST, and :PORT, which fill text. NULL, or what is wrong. */
static const char *sbxi_url_authority(sbx_url *url, const char *text, size_t len)
{
    size_t at = 0, end;
    uint64_t port;
    if (len && memchr(text, '@', len))
        return "a URL with a user name is not accepted";
    if (len && text[0] == '[') {
        const char *close = (const char *)memchr(text, ']', len);
        if (!close || !sbxi_url_is_ipv6(text + 1, (size_t)(close - text) - 1))
            return "what stands in brackets is not an IPv6 address";
        url->host = text + 1;
        url->host_len = (size_t)(close - text) - 1;
        at = url->host_len + 2;
    } else {
        for (end = 0; end < len && text[end] != ':'; end++) {
            if (!sbxi_url_plain(text[end]))
                return "the host has a character that does not belong there";
        }
        if (end == 0)
            return "the URL has no host";
        url->host = text;
        url->host_len = end;
        at = end;
    }
    if (at == len)
        return NULL;
    if (text[at++] != ':')
        return "only a colon and a port may follow the host";
    if (!sbxi_parse_uint(text + at, len - at, &port) || port == 0 || port > 65535)
        return "the port is not a number from 1 to 65535";
    url->port = (uint16_t)port;
    return NULL;
}

/* Checks a path or query: the characters of RFC 3986, and extra ones. */
static int sbxi_url_is_valid(const char *text, size_t len, const char *extra)
{
    size_t i;
    for (i = 0; i < len; i++) {
        if (text[i] == '%') {
            if (len - i < 3 || sbxi_url_digit(text[i + 1]) < 0 || sbxi_url_digit(text[i + 2]) < 0)
                return 0;
        } else if (!sbxi_url_plain(text[i]) && !sbxi_url_in(text[i], extra)) {
            return 0;
        }
    }
    return 1;
}

static const char *sbxi_url_split(const char *text, size_t len, sbx_url *url)
{
    size_t at, start;
    const char *problem;
    if (len >= 8 && sbxi_equal_nocase(text, 8, "https://")) {
        url->tls = 1;
        start = 8;
    } else if (len >= 7 && sbxi_equal_nocase(text, 7, "http://")) {
        start = 7;
    } else {
        return "the URL does not start with http:// or https://";
    }
    url->port = url->tls ? 443 : 80;
    if (memchr(text, '#', len))
        return "a URL with a fragment is not accepted";
    for (at = start; at < len && text[at] != '/' && text[at] != '?';)
        at++;
    problem = sbxi_url_authority(url, text + start, at - start);
    if (problem)
        return problem;
    url->path = text + at;
    while (at < len && text[at] != '?')
        at++;
    url->path_len = (size_t)(text + at - url->path);
    url->query = text + (at < len ? at + 1 : at);
    url->query_len = (size_t)(text + len - url->query);
    if (!sbxi_url_is_valid(url->path, url->path_len, "/:@"))
        return "the path has a character that must be percent-encoded, or a bad escape";
    if (!sbxi_url_is_valid(url->query, url->query_len, "/:@?"))
        return "the query has a character that must be percent-encoded, or a bad escape";
    return NULL;
}

SBX_API sbx_status sbx_url_parse(const char *text, size_t len, sbx_url *url, const char **problem)
{
    const char *what;
    memset(url, 0, sizeof(*url));
    what = sbxi_url_split(text, len, url);
    if (problem)
        *problem = what;
    return what ? SBX_E_ARGUMENT : SBX_OK;
}

/* ==== src/http1.c ============================================================================= */

/* http1: reads HTTP/1.1 messages (RFC 9112), responses as a client and requests as a server.

   Promises: strict wherever two readers could disagree about where a message ends. Lines end in CR
   LF only: the RFC lets a reader take a bare LF, but nobody needs that who speaks HTTP/1.1. The
   outcome does not depend on how the bytes are cut. A line that lies whole in the input is read
   where it lies, other lines are put together in scratch, and a body is never copied. Calls text
   and url. */

/* Headers are the hot path. Without this they are read byte by byte, at about twice the cost. */
#if defined(SBXI_SIMD) && defined(__SSE2__) && defined(__GNUC__)
#define SBXI_HTTP1_QUICK
#endif

enum {
    /* Lines with a name and a value, or the empty line behind them. */
    SBXI_HTTP1_HEADER,
    SBXI_HTTP1_SKIPPED, /* headers of a response of class 1xx */
    SBXI_HTTP1_TRAILER,
    /* Other lines. */
    SBXI_HTTP1_START,
    SBXI_HTTP1_CHUNK_SIZE,
    /* Bytes. */
    SBXI_HTTP1_LENGTH,    /* `left` bytes of the body */
    SBXI_HTTP1_UNTIL_END, /* the body goes on until the peer closes */
    SBXI_HTTP1_CHUNK,     /* `left` bytes of the chunk */
    SBXI_HTTP1_CHUNK_END, /* `left` bytes of the CR LF behind it */
    /* None. */
    SBXI_HTTP1_COMPLETE, /* the message's end was read and is not reported yet */
    SBXI_HTTP1_CLOSED,   /* there is no further message */
    SBXI_HTTP1_FAILED
};

#define SBXI_HTTP1_EMPTY_LINES 2    /* before a request */
#define SBXI_HTTP1_INFORMATIONAL 16 /* responses of class 1xx before the one that counts */
#define SBXI_HTTP1_OVERHEAD 65536   /* of chunks, beyond 8 times what they hold */

static sbx_status sbxi_http1_fail(sbx_http1 *h, sbx_status status, const char *problem)
{
    h->problem = problem;
    h->state = SBXI_HTTP1_FAILED;
    h->status = status;
    return status;
}

static sbx_status sbxi_http1_refuse(sbx_http1 *h, const char *problem)
{
    return sbxi_http1_fail(h, SBX_E_PROTOCOL, problem);
}

/* ---- characters ---- */

/* 2: can stand in a header's name and in a method; 1: only in a header's value; 0: nowhere */
static const unsigned char sbxi_http1_class[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, /* control characters, but the tab */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* control characters */
    1, 2, 1, 2, 2, 2, 2, 2, 1, 1, 2, 2, 1, 2, 2, 1, /*  !"#$%&'()*+,-./ */
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, /* 0123456789:;<=>? */
    1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, /* @ABCDEFGHIJKLMNO */
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, /* PQRSTUVWXYZ[\]^_ */
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, /* `abcdefghijklmno */
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 2, 1, 2, 0, /* pqrstuvwxyz{|}~ */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not ASCII */
};

/* The length of the longest prefix that is a header's name or a method. */
static size_t sbxi_http1_token_len(const char *text, size_t len)
{
    size_t i = 0;
    while (i < len && sbxi_http1_class[(unsigned char)text[i]] == 2)
        i++;
    return i;
}

/* 1 if text can be a header's name or a method. */
static int sbxi_http1_token(const char *text, size_t len)
{
    return len > 0 && sbxi_http1_token_len(text, len) == len;
}

/* 1 if text can be a header's value: no control characters but the tab. */
static int sbxi_http1_value(const char *text, size_t len)
{
    size_t i = 0;
    while (i < len && sbxi_http1_class[(unsigned char)text[i]])
        i++;
    return i == len;
}

static int sbxi_http1_is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* Cuts white space off both ends. */
static void sbxi_http1_trim(const char **text, size_t *len)
{
    while (*len > 0 && sbxi_http1_is_space((*text)[*len - 1]))
        (*len)--;
    while (*len > 0 && sbxi_http1_is_space(**text)) {
        (*text)++;
        (*len)--;
    }
}

SBX_API int sbx_http1_has_token(const char *value, size_t len, const char *token)
{
    while (len > 0) {
        const char *comma = (const char *)memchr(value, ',', len), *element = value;
        size_t element_len = comma ? (size_t)(comma - value) : len;
        size_t n = comma ? element_len + 1 : len;
        value += n;
        len -= n;
        sbxi_http1_trim(&element, &element_len);
        if (element_len > 0 && sbxi_equal_nocase(element, element_len, token))
            return 1;
    }
    return 0;
}

/* 1 if name, a valid one of len >= 8 bytes, is lower, which is in small letters. Of what can stand
   in a name, setting this bit changes capital letters alone, and "^", which becomes "~". */
static int sbxi_http1_is(const char *name, const char *lower, size_t len)
{
    size_t at = 0;
    for (;;) {
        uint64_t a, b;
        memcpy(&a, name + at, 8);
        memcpy(&b, lower + at, 8);
        if ((a | UINT64_C(0x2020202020202020)) != b)
            return 0;
        if (at == len - 8)
            return 1;
        at = at + 8 < len - 8 ? at + 8 : len - 8;
    }
}

/* ---- lines ---- */

/* 1 if a message can start with these bytes, so that a peer that speaks something else is found out
   by its first bytes. Of a response these are all up to the status. */
static int sbxi_http1_may_start(const sbx_http1 *h, const char *line, size_t len)
{
    static const char low[] = "HTTP/1.0 100", high[] = "HTTP/1.1 999";
    size_t i = 0, n = len < 12 ? len : 12;
    if (h->role == SBX_HTTP1_REQUEST) {
        if (line[0] == '\r')
            return h->empty_lines < SBXI_HTTP1_EMPTY_LINES && (len < 2 || line[1] == '\n');
        i = sbxi_http1_token_len(line, n);
        return i == n || (i > 0 && line[i] == ' ');
    }
    if (n == 12 && memcmp(line, "HTTP/1.", 7) == 0)
        i = 7;
    for (; i < n; i++) {
        if (line[i] < low[i] || line[i] > high[i])
            return 0;
    }
    return 1;
}

/* Takes the next line from data. SBX_OK: *line has *n bytes, CR LF included, until the next call.
   SBX_AGAIN: data ended before it, what there is went to scratch. */
static sbx_status sbxi_http1_line(sbx_http1 *h, const char *data, size_t len, size_t *pos,
                                  const char **line, size_t *n)
{
    const char *from = data + *pos, *end;
    size_t room = h->cap - h->used, take = len - *pos;
    if (take > room)
        take = room;
    end = take ? (const char *)memchr(from, '\n', take) : NULL;
    if (end)
        take = (size_t)(end - from) + 1;
    *pos += take;
    *line = from;
    *n = take;
    if (h->used > 0 || !end) {
        if (take)
            memcpy(h->scratch + h->used, from, take);
        h->used += take;
        *line = h->scratch;
        *n = h->used;
    }
    if (h->state == SBXI_HTTP1_START && *n > 0 && !sbxi_http1_may_start(h, *line, *n))
        return sbxi_http1_refuse(h, h->role == SBX_HTTP1_REQUEST
                                        ? "this is not an HTTP/1 request"
                                        : "the peer does not answer in HTTP/1.0 or HTTP/1.1");
    if (!end && h->used == h->cap)
        return sbxi_http1_fail(h, SBX_E_TOO_BIG, "a line of the head or of a chunk is too long");
    if (!end)
        return SBX_AGAIN;
    h->used = 0;
    if (*n < 2 || (*line)[*n - 2] != '\r')
        return sbxi_http1_refuse(h, "a line does not end in CR LF");
    return SBX_OK;
}

/* ---- the head ---- */

/* "HTTP/1.1 200 OK", of which sbxi_http1_may_start has seen all before the space after the status.
   The reason may be missing, the space before it too. */
static sbx_status sbxi_http1_status_line(sbx_http1 *h, const char *line, size_t n,
                                         sbx_http1_event *event)
{
    if (n > 12 && line[12] != ' ')
        return sbxi_http1_refuse(h, "the status is not a number of three digits");
    if (!sbxi_http1_value(line + 12, n - 12))
        return sbxi_http1_refuse(h, "the reason phrase has a control character");
    h->minor_version = line[7] - '0';
    h->status_code = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
    event->status = h->status_code;
    event->value = line + (n > 12 ? 13 : 12);
    event->value_len = n > 12 ? n - 13 : 0;
    return SBX_OK;
}

/* "GET /path HTTP/1.1" */
static sbx_status sbxi_http1_request_line(sbx_http1 *h, const char *line, size_t n,
                                          sbx_http1_event *event)
{
    size_t method = sbxi_http1_token_len(line, n), i;
    if (line[method] != ' ')
        return sbxi_http1_refuse(h, "the method has a character that does not belong there");
    if (n < method + 11 || memcmp(line + n - 9, " HTTP/1.", 8) != 0 ||
        (line[n - 1] != '0' && line[n - 1] != '1'))
        return sbxi_http1_refuse(h, "a request line does not end in HTTP/1.0 or HTTP/1.1");
    for (i = method + 1; i < n - 9; i++) {
        if ((unsigned char)line[i] <= 0x20 || (unsigned char)line[i] >= 0x7f)
            return sbxi_http1_refuse(h, "the target has a character that must be percent-encoded");
    }
    h->minor_version = line[n - 1] - '0';
    h->status_code = 0;
    event->name = line;
    event->name_len = method;
    event->value = line + method + 1;
    event->value_len = n - 9 - (method + 1);
    return SBX_OK;
}

static sbx_status sbxi_http1_start(sbx_http1 *h, const char *line, size_t n, sbx_http1_event *event)
{
    sbx_status st;
    if (n == 2) { /* only before a request does this come so far */
        h->empty_lines++;
        return SBX_AGAIN;
    }
    st = h->role == SBX_HTTP1_REQUEST ? sbxi_http1_request_line(h, line, n - 2, event)
                                      : sbxi_http1_status_line(h, line, n - 2, event);
    if (st != SBX_OK)
        return st;
    h->state = SBXI_HTTP1_HEADER;
    h->empty_lines = 0;
    h->head_size = n;
    h->headers = h->hosts = h->chunked = h->close = h->keep_alive = 0;
    h->content_length = SBX_NONE;
    event->type = SBX_HTTP1_START;
    event->minor_version = h->minor_version;
    if (h->role == SBX_HTTP1_REQUEST || h->status_code >= 200 || h->status_code == 101)
        return SBX_OK;
    if (h->informational++ == SBXI_HTTP1_INFORMATIONAL)
        return sbxi_http1_fail(h, SBX_E_TOO_BIG, "too many responses of class 1xx");
    h->state = SBXI_HTTP1_SKIPPED;
    return SBX_AGAIN;
}

static sbx_status sbxi_http1_content_length(sbx_http1 *h, const sbx_http1_event *header)
{
    uint64_t length;
    if (h->content_length != SBX_NONE)
        return sbxi_http1_refuse(h, "there is more than one Content-Length");
    if (!sbxi_parse_uint(header->value, header->value_len, &length) || length > INT64_MAX)
        return sbxi_http1_refuse(h, "the Content-Length is not a number");
    h->content_length = (int64_t)length;
    return h->chunked ? sbxi_http1_refuse(h, "there is a Content-Length besides chunks") : SBX_OK;
}

static sbx_status sbxi_http1_transfer_encoding(sbx_http1 *h, const sbx_http1_event *header)
{
    if (h->minor_version == 0)
        return sbxi_http1_refuse(h, "there is a Transfer-Encoding in HTTP/1.0");
    if (h->chunked)
        return sbxi_http1_refuse(h, "there is more than one Transfer-Encoding");
    if (!sbxi_equal_nocase(header->value, header->value_len, "chunked"))
        return sbxi_http1_refuse(h, "the Transfer-Encoding is not chunked");
    h->chunked = 1;
    return h->content_length != SBX_NONE
               ? sbxi_http1_refuse(h, "there is a Content-Length besides chunks")
               : SBX_OK;
}

static sbx_status sbxi_http1_host(sbx_http1 *h, const sbx_http1_event *header)
{
    size_t i;
    if (h->hosts++ > 0)
        return sbxi_http1_refuse(h, "there is more than one Host");
    for (i = 0; i < header->value_len; i++) {
        char c = header->value[i];
        if (c <= 0x20 || c > 0x7e || strchr("\"#,/<>?@\\^`{|}", c))
            return sbxi_http1_refuse(h, "the Host has a character that does not belong there");
    }
    return SBX_OK;
}

static sbx_status sbxi_http1_connection(sbx_http1 *h, const sbx_http1_event *header)
{
    h->close |= sbx_http1_has_token(header->value, header->value_len, "close");
    if (h->minor_version == 0) /* in 1.1 it goes without saying */
        h->keep_alive |= sbx_http1_has_token(header->value, header->value_len, "keep-alive");
    return SBX_OK;
}

/* What a header says about the message itself. */
static sbx_status sbxi_http1_meaning(sbx_http1 *h, const sbx_http1_event *header)
{
    switch (header->name_len) {
    case 4:
        if (h->role == SBX_HTTP1_REQUEST && sbxi_equal_nocase(header->name, 4, "host"))
            return sbxi_http1_host(h, header);
        break;
    case 10:
        if (sbxi_http1_is(header->name, "connection", 10))
            return sbxi_http1_connection(h, header);
        break;
    case 14:
        if (sbxi_http1_is(header->name, "content-length", 14))
            return sbxi_http1_content_length(h, header);
        break;
    case 17:
        if (sbxi_http1_is(header->name, "transfer-encoding", 17))
            return sbxi_http1_transfer_encoding(h, header);
        break;
    default:
        break;
    }
    return SBX_OK;
}

/* Splits a header or trailer with its CR LF into name and value. */
static sbx_status sbxi_http1_field(sbx_http1 *h, const char *line, size_t n, sbx_http1_event *event)
{
    size_t name = sbxi_http1_token_len(line, n);
    if (sbxi_http1_is_space(line[0]))
        return sbxi_http1_refuse(h, "a header goes on in the next line");
    if (line[0] == ':')
        return sbxi_http1_refuse(h, "a header has no name");
    if (line[name] != ':')
        return sbxi_http1_refuse(h, "a header's name has a character that does not belong there");
    event->name = line;
    event->name_len = name;
    event->value = line + name + 1;
    event->value_len = n - 2 - (name + 1);
    if (!sbxi_http1_value(event->value, event->value_len))
        return sbxi_http1_refuse(h, "a header's value has a control character");
    sbxi_http1_trim(&event->value, &event->value_len);
    return SBX_OK;
}

/* Goes on from p over letters and "-", as nearly all names are made of; may stop early. */
static const char *sbxi_http1_quick_name(const char *p, const char *last)
{
#ifdef SBXI_HTTP1_QUICK
    for (; p < last; p += 16) {
        __m128i block = SBXI_V_LOAD(p);
        /* The small letters become the largest of all signed numbers. */
        __m128i moved = _mm_add_epi8(SBXI_V_OR(block, SBXI_V_FILL(0x20)), SBXI_V_FILL(0x7f - 'z'));
        __m128i letter = SBXI_V_ABOVE(moved, SBXI_V_FILL(0x7f - 'z' + 'a' - 1));
        __m128i good = SBXI_V_OR(letter, SBXI_V_EQUAL(block, SBXI_V_FILL('-')));
        unsigned bad = (unsigned)_mm_movemask_epi8(good) ^ 0xffff;
        if (bad)
            return p + (unsigned)__builtin_ctz(bad);
    }
#else
    (void)last;
#endif
    return p;
}

/* Goes on from p over printable ASCII, as nearly all values are made of; may stop early. */
static const char *sbxi_http1_quick_value(const char *p, const char *last)
{
#ifdef SBXI_HTTP1_QUICK
    for (; p < last; p += 16) {
        /* What can be printed becomes the largest of all signed numbers. */
        __m128i moved = _mm_add_epi8(SBXI_V_LOAD(p), SBXI_V_FILL(0x7f - '~'));
        __m128i good = SBXI_V_ABOVE(moved, SBXI_V_FILL(0x7f - '~' + ' ' - 1));
        unsigned bad = (unsigned)_mm_movemask_epi8(good) ^ 0xffff;
        if (bad)
            return p + (unsigned)__builtin_ctz(bad);
    }
#else
    (void)last;
#endif
    return p;
}

/* The same for a header that lies in data. Nearly all do: so this one does not look for the line's
   end first, and takes 16 bytes at a time where it can. len is at least 16. Returns the header's
   length; 0 if it is not complete or not valid. */
static size_t sbxi_http1_quick_field(const char *data, size_t len, sbx_http1_event *event)
{
    const char *stop = data + len, *last = stop - 16;
    const char *name = sbxi_http1_quick_name(data, last), *value, *end;
    size_t n;
    for (;; name++) {
        if (name == stop)
            return 0;
        if (*name == ':')
            break;
        if (sbxi_http1_class[(unsigned char)*name] != 2)
            return 0;
    }
    if (name == data)
        return 0;
    for (end = sbxi_http1_quick_value(name + 1, last);; end++) {
        if (stop - end < 2)
            return 0;
        if (*end == '\r')
            break;
        if (sbxi_http1_class[(unsigned char)*end] == 0)
            return 0;
    }
    if (end[1] != '\n')
        return 0;
    n = (size_t)(end - data) + 2;
    for (value = name + 1; sbxi_http1_is_space(*value);) /* the CR stops it */
        value++;
    while (end > value && sbxi_http1_is_space(end[-1]))
        end--;
    memset(event, 0, sizeof(*event));
    event->type = SBX_HTTP1_HEADER;
    event->name = data;
    event->name_len = (size_t)(name - data);
    event->value = value;
    event->value_len = (size_t)(end - value);
    return n;
}

/* The empty line: what kind of body follows? RFC 9112, 6.3. */
static sbx_status sbxi_http1_head_end(sbx_http1 *h, sbx_http1_event *event)
{
    int no_body = h->no_body;
    if (h->role == SBX_HTTP1_REQUEST) {
        if (h->minor_version == 1 && h->hosts == 0)
            return sbxi_http1_refuse(h, "there is no Host");
        no_body = !h->chunked && h->content_length == SBX_NONE;
    } else if (h->status_code == 101 || h->status_code == 204 || h->status_code == 304) {
        no_body = 1;
    }
    h->informational = h->no_body = 0;
    h->overhead = 0;
    h->persistent = h->status_code != 101 && !h->close && (h->minor_version == 1 || h->keep_alive);
    event->type = SBX_HTTP1_HEAD_END;
    event->content_length = h->content_length;
    if (no_body) {
        h->state = SBXI_HTTP1_COMPLETE;
        if (event->content_length == SBX_NONE)
            event->content_length = 0;
    } else if (h->chunked) {
        h->state = SBXI_HTTP1_CHUNK_SIZE;
    } else if (h->content_length != SBX_NONE) {
        h->left = (uint64_t)h->content_length;
        h->state = h->left ? SBXI_HTTP1_LENGTH : SBXI_HTTP1_COMPLETE;
    } else {
        h->state = SBXI_HTTP1_UNTIL_END;
        h->persistent = 0;
    }
    return SBX_OK;
}

/* ---- the body ---- */

/* Reports the end of a message, after which the next one may follow. */
static sbx_status sbxi_http1_end(sbx_http1 *h, sbx_http1_event *event)
{
    h->state = h->persistent ? SBXI_HTTP1_START : SBXI_HTTP1_CLOSED;
    event->type = SBX_HTTP1_MESSAGE_END;
    return SBX_OK;
}

/* Chunks may cost 8 times what they hold, so that single bytes can be sent as they come, and
   SBXI_HTTP1_OVERHEAD more: extensions do not go on for ever. */
static int sbxi_http1_is_wasteful(sbx_http1 *h, uint64_t size, size_t line)
{
    uint64_t cost = h->overhead + line + 4; /* CR LF here and behind the chunk */
    h->overhead = size >= cost / 8 ? 0 : cost - size * 8;
    return h->overhead > SBXI_HTTP1_OVERHEAD;
}

/* The size in hexadecimal, then perhaps extensions, which are ignored, then CR LF. */
static sbx_status sbxi_http1_chunk_size(sbx_http1 *h, const char *line, size_t n)
{
    uint64_t size = 0;
    size_t at;
    n -= 2;
    for (at = 0; at < n; at++) {
        int digit = sbxi_url_digit(line[at]);
        if (digit < 0)
            break;
        if (size > (uint64_t)INT64_MAX >> 4)
            return sbxi_http1_refuse(h, "the size of a chunk is too large");
        size = size << 4 | (uint64_t)digit;
    }
    if (at == 0)
        return sbxi_http1_refuse(h, "a chunk does not start with its size");
    while (at < n && sbxi_http1_is_space(line[at]))
        at++;
    if (at < n && line[at] != ';')
        return sbxi_http1_refuse(h, "the size of a chunk is not a hexadecimal number");
    if (!sbxi_http1_value(line + at, n - at))
        return sbxi_http1_refuse(h, "a chunk's extension has a control character");
    if (sbxi_http1_is_wasteful(h, size, n))
        return sbxi_http1_fail(h, SBX_E_TOO_BIG, "the chunks have more overhead than content");
    h->left = size;
    h->headers = 0;
    h->head_size = 0;
    h->state = size ? SBXI_HTTP1_CHUNK : SBXI_HTTP1_TRAILER;
    return SBX_AGAIN;
}

/* Lends what data has of the body. */
static sbx_status sbxi_http1_body(sbx_http1 *h, const char *data, size_t len, size_t *pos,
                                  sbx_http1_event *event)
{
    size_t n = len - *pos;
    if (n == 0)
        return SBX_AGAIN;
    if (h->state != SBXI_HTTP1_UNTIL_END) {
        if (n > h->left)
            n = (size_t)h->left;
        h->left -= n;
        if (h->left == 0 && h->state == SBXI_HTTP1_LENGTH) {
            h->state = SBXI_HTTP1_COMPLETE;
        } else if (h->left == 0) {
            h->state = SBXI_HTTP1_CHUNK_END;
            h->left = 2;
        }
    }
    event->type = SBX_HTTP1_BODY;
    event->data = data + *pos;
    event->len = n;
    *pos += n;
    return SBX_OK;
}

/* CR LF after a chunk. */
static sbx_status sbxi_http1_chunk_end(sbx_http1 *h, const char *data, size_t len, size_t *pos)
{
    for (; h->left > 0 && *pos < len; h->left--, (*pos)++) {
        if (data[*pos] != (h->left == 2 ? '\r' : '\n'))
            return sbxi_http1_refuse(h, "a chunk is not as long as its size says");
    }
    if (h->left == 0)
        h->state = SBXI_HTTP1_CHUNK_SIZE;
    return SBX_AGAIN;
}

/* ---- the reader ---- */

SBX_API void sbx_http1_init(sbx_http1 *h, int role, char *scratch, size_t cap)
{
    memset(h, 0, sizeof(*h));
    h->role = role;
    h->state = SBXI_HTTP1_START;
    h->scratch = scratch;
    h->cap = cap;
}

SBX_API void sbx_http1_expect_no_body(sbx_http1 *h, int no_body)
{
    h->no_body = no_body;
}

/* Counts a header or trailer that takes up n bytes. */
static sbx_status sbxi_http1_count(sbx_http1 *h, size_t n)
{
    h->head_size += n;
    if (h->head_size > SBX_HTTP1_HEAD_MAX)
        return sbxi_http1_fail(h, SBX_E_TOO_BIG, "the head of a message is too long");
    if (h->headers++ == SBX_HTTP1_HEADERS)
        return sbxi_http1_fail(h, SBX_E_TOO_BIG, "there are too many headers");
    return SBX_OK;
}

/* Any line of a head or of trailers, with its CR LF. */
static sbx_status sbxi_http1_head_line(sbx_http1 *h, const char *line, size_t n,
                                       sbx_http1_event *event)
{
    if (n > 2) {
        sbx_status st = sbxi_http1_field(h, line, n, event);
        if (st == SBX_OK)
            st = sbxi_http1_count(h, n);
        if (st != SBX_OK || h->state == SBXI_HTTP1_SKIPPED)
            return st == SBX_OK ? SBX_AGAIN : st;
        event->type = h->state == SBXI_HTTP1_HEADER ? SBX_HTTP1_HEADER : SBX_HTTP1_TRAILER;
        return h->state == SBXI_HTTP1_HEADER ? sbxi_http1_meaning(h, event) : SBX_OK;
    }
    if (h->state == SBXI_HTTP1_HEADER)
        return sbxi_http1_head_end(h, event);
    if (h->state == SBXI_HTTP1_TRAILER)
        return sbxi_http1_end(h, event);
    h->state = SBXI_HTTP1_START;
    return SBX_AGAIN;
}

/* SBX_OK: an event. SBX_AGAIN: none yet, and none without more bytes. */
static sbx_status sbxi_http1_step(sbx_http1 *h, const char *data, size_t len, size_t *pos,
                                  sbx_http1_event *event)
{
    const char *line;
    size_t n;
    sbx_status st;
    switch (h->state) {
    case SBXI_HTTP1_LENGTH:
    case SBXI_HTTP1_UNTIL_END:
    case SBXI_HTTP1_CHUNK:
        return sbxi_http1_body(h, data, len, pos, event);
    case SBXI_HTTP1_CHUNK_END:
        return sbxi_http1_chunk_end(h, data, len, pos);
    case SBXI_HTTP1_COMPLETE:
        return sbxi_http1_end(h, event);
    case SBXI_HTTP1_CLOSED:
        return SBX_END;
    case SBXI_HTTP1_FAILED:
        return h->status;
    default: /* a line */
        st = sbxi_http1_line(h, data, len, pos, &line, &n);
        if (st != SBX_OK)
            return st;
        if (h->state == SBXI_HTTP1_START)
            return sbxi_http1_start(h, line, n, event);
        if (h->state == SBXI_HTTP1_CHUNK_SIZE)
            return sbxi_http1_chunk_size(h, line, n);
        return sbxi_http1_head_line(h, line, n, event);
    }
}

static sbx_status sbxi_http1_read_any(sbx_http1 *h, const char *data, size_t len, size_t *used,
                                      sbx_http1_event *event)
{
    size_t pos = 0;
    sbx_status st;
    if (len == 0)
        data = ""; /* it may be NULL, to which nothing can be added */
    do {
        memset(event, 0, sizeof(*event));
        st = sbxi_http1_step(h, data, len, &pos, event);
    } while (st == SBX_AGAIN && pos < len);
    *used = pos;
    return st;
}

SBX_API sbx_status sbx_http1_read(sbx_http1 *h, const void *data, size_t len, size_t *used,
                                  sbx_http1_event *event)
{
    const char *from = (const char *)data;
    size_t n;
    if (h->state != SBXI_HTTP1_HEADER || h->used > 0 || len < 16)
        return sbxi_http1_read_any(h, from, len, used, event);
    n = sbxi_http1_quick_field(from, len, event);
    if (n == 0 || n > h->cap)
        return sbxi_http1_read_any(h, from, len, used, event);
    *used = n;
    if (sbxi_http1_count(h, n) != SBX_OK)
        return h->status;
    n = event->name_len;
    return n == 4 || n == 10 || n == 14 || n == 17 ? sbxi_http1_meaning(h, event) : SBX_OK;
}

SBX_API sbx_status sbx_http1_finish(sbx_http1 *h, sbx_http1_event *event)
{
    memset(event, 0, sizeof(*event));
    if (h->status != SBX_OK)
        return h->status;
    h->persistent = 0;
    if (h->state == SBXI_HTTP1_COMPLETE || h->state == SBXI_HTTP1_UNTIL_END)
        return sbxi_http1_end(h, event);
    if (h->state == SBXI_HTTP1_START && h->used == 0 && h->informational == 0)
        h->state = SBXI_HTTP1_CLOSED;
    if (h->state == SBXI_HTTP1_CLOSED)
        return SBX_END;
    return sbxi_http1_refuse(h, "the connection was closed in the middle of a message");
}

SBX_API int sbx_http1_keep_alive(const sbx_http1 *h)
{
    return h->status == SBX_OK && h->state == SBXI_HTTP1_START && h->used == 0 &&
           h->informational == 0;
}

SBX_API size_t sbx_http1_chunk(char *out, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 1, i;
    while (n < 2 * sizeof(len) && len >> (4 * n) != 0)
        n++;
    for (i = n; i > 0; i--, len >>= 4)
        out[i - 1] = digits[len & 15];
    out[n] = '\r';
    out[n + 1] = '\n';
    return n + 2;
}

/* ==== src/websocket.c ========================================================================= */

/* websocket: the frames of RFC 6455, without extensions, for both ends of a connection.

   Promises: never allocates; payload is lent where it lies, unmasked in place, and only the payload
   of a control frame that comes in pieces is copied. Bad text is refused at the first byte that is
   wrong, a bad header too; the payload of a close frame when it is complete. May call: text. */

#ifndef SBX_NO_WEBSOCKET

SBX_API void sbx_ws_init(sbx_ws *ws, int role, uint64_t limit)
{
    memset(ws, 0, sizeof(*ws));
    ws->role = role;
    ws->limit = limit;
}

static sbx_status sbxi_ws_fail(sbx_ws *ws, int close_code, const char *problem)
{
    ws->problem = problem;
    ws->close_code = close_code;
    ws->status = close_code == 1009 ? SBX_E_TOO_BIG : SBX_E_PROTOCOL;
    return ws->status;
}

/* Whether a close frame may carry this code: registered for that, or left to programs. */
static int sbxi_ws_is_code(int code)
{
    if (code >= 3000)
        return code <= 4999;
    return code >= 1000 && code <= 1014 && (code < 1004 || code > 1006);
}

/* Checks the first have > 0 bytes of a header as far as its second byte. NULL, or what is wrong. */
static const char *sbxi_ws_check(const sbx_ws *ws, const unsigned char *head, size_t have)
{
    unsigned opcode = head[0] & 15u, length;
    if (head[0] & 0x70)
        return "a reserved bit is set in a frame";
    if (opcode <= SBX_WS_BINARY) {
        if (ws->message ? opcode != SBX_WS_CONTINUATION : opcode == SBX_WS_CONTINUATION)
            return ws->message ? "a new message starts inside a fragmented one"
                               : "a continuation frame without a message to continue";
    } else if (opcode < SBX_WS_CLOSE || opcode > SBX_WS_PONG) {
        return "a frame has a reserved opcode";
    } else if (head[0] < 0x80) {
        return "a control frame is fragmented";
    }
    if (have < 2)
        return NULL;
    length = head[1] & 0x7fu;
    if (head[1] >> 7 != ws->role)
        return ws->role == SBX_WS_CLIENT ? "a frame from a server is masked"
                                         : "a frame from a client is not masked";
    if (opcode >= SBX_WS_CLOSE && length > 125)
        return "a control frame is longer than 125 bytes";
    if (opcode == SBX_WS_CLOSE && length == 1)
        return "a close frame has a payload of one byte";
    return NULL;
}

/* Reads a header from its have bytes. SBX_OK: a frame has begun, *size is the header's length;
   SBX_AGAIN: that is not all of it. */
static sbx_status sbxi_ws_begin(sbx_ws *ws, const unsigned char *head, size_t have, size_t *size)
{
    const char *problem = sbxi_ws_check(ws, head, have);
    uint64_t length;
    int i;
    if (problem)
        return sbxi_ws_fail(ws, 1002, problem);
    if (have < 2)
        return SBX_AGAIN;
    length = head[1] & 0x7fu;
    *size = (length < 126 ? 2u : length == 126 ? 4u : 10u) + (ws->role == SBX_WS_SERVER ? 4u : 0u);
    if (have < *size)
        return SBX_AGAIN;
    if (length == 126) {
        length = (uint64_t)head[2] << 8 | head[3];
        if (length < 126)
            return sbxi_ws_fail(ws, 1002, "a frame's length has more bytes than it needs");
    } else if (length == 127) {
        for (i = 2, length = 0; i < 10; i++)
            length = length << 8 | head[i];
        if (length >> 63)
            return sbxi_ws_fail(ws, 1002, "a frame's length has its highest bit set");
        if (length <= 0xffff)
            return sbxi_ws_fail(ws, 1002, "a frame's length has more bytes than it needs");
    }
    ws->opcode = head[0] & 15;
    ws->fin = head[0] >> 7;
    ws->left = length;
    if (ws->role == SBX_WS_SERVER) {
        memcpy(ws->key, head + *size - 4, 4);
        ws->key_at = 0;
    }
    if (ws->opcode < SBX_WS_CLOSE) {
        if (length > ws->limit - ws->size)
            return sbxi_ws_fail(ws, 1009, "a message is longer than the limit");
        if (ws->opcode != SBX_WS_CONTINUATION)
            ws->message = ws->opcode;
    }
    return SBX_OK;
}

/* Takes a header, from the bytes themselves if they hold all of it, else collected in ws->head.
   SBX_AGAIN: it is not complete yet. */
static sbx_status sbxi_ws_head(sbx_ws *ws, const unsigned char *p, size_t len, size_t *at)
{
    size_t have = len - *at, kept = ws->head_len, size = 0;
    const unsigned char *head = ws->head;
    sbx_status st;
    if (have == 0)
        return SBX_AGAIN;
    if (kept == 0) {
        head = p + *at;
    } else {
        have = have < sizeof(ws->head) - kept ? have : sizeof(ws->head) - kept;
        memcpy(ws->head + kept, p + *at, have);
        have += kept;
    }
    st = sbxi_ws_begin(ws, head, have, &size);
    if (st == SBX_OK) {
        *at += size - kept;
        ws->head_len = 0;
        ws->in_frame = 1;
    } else if (st == SBX_AGAIN) {
        if (kept == 0)
            memcpy(ws->head, head, have);
        *at = len;
        ws->head_len = (unsigned)have;
    }
    return st;
}

static void sbxi_ws_unmask(sbx_ws *ws, unsigned char *p, size_t len)
{
    if (ws->role == SBX_WS_SERVER) {
        sbx_ws_mask(p, p, len, ws->key, ws->key_at);
        ws->key_at = (unsigned)((ws->key_at + len) & 3);
    }
}

static sbx_status sbxi_ws_close(sbx_ws *ws, sbx_ws_event *event)
{
    const unsigned char *payload = (const unsigned char *)event->data;
    sbx_utf8 utf8;
    event->close_code = 1005;
    if (event->len > 0) { /* then at least 2: the header was checked */
        event->close_code = payload[0] << 8 | payload[1];
        event->data += 2;
        event->len -= 2;
        utf8.state = 0;
        if (!sbxi_ws_is_code(event->close_code))
            return sbxi_ws_fail(ws, 1002, "a close frame has a code that must not be sent");
        if (!sbx_utf8_check(&utf8, event->data, event->len) || utf8.state != 0)
            return sbxi_ws_fail(ws, 1007, "the reason in a close frame is not UTF-8");
    }
    ws->status = SBX_END;
    return SBX_OK;
}

/* Takes what is there of a control frame's payload, and gives the frame once it is complete: lent
   from the bytes at hand if they hold all of it, else from ws->control. */
static sbx_status sbxi_ws_control(sbx_ws *ws, unsigned char *p, size_t len, size_t *at,
                                  sbx_ws_event *event)
{
    size_t n = len - *at < ws->left ? len - *at : (size_t)ws->left;
    unsigned char *payload = ws->control;
    if (ws->control_len == 0 && n > 0 && n == ws->left)
        payload = p + *at;
    else if (n > 0)
        memcpy(ws->control + ws->control_len, p + *at, n);
    ws->control_len += (unsigned)n;
    ws->left -= n;
    *at += n;
    if (ws->left > 0)
        return SBX_AGAIN;
    sbxi_ws_unmask(ws, payload, ws->control_len);
    event->opcode = (sbx_ws_opcode)ws->opcode;
    event->data = (const char *)payload;
    event->len = ws->control_len;
    ws->control_len = 0;
    ws->in_frame = 0;
    return ws->opcode == SBX_WS_CLOSE ? sbxi_ws_close(ws, event) : SBX_OK;
}

/* Gives what is there of a data frame's payload. */
static sbx_status sbxi_ws_data(sbx_ws *ws, unsigned char *p, size_t len, size_t *at,
                               sbx_ws_event *event)
{
    size_t n = len - *at < ws->left ? len - *at : (size_t)ws->left;
    unsigned char *piece;
    if (n == 0 && ws->left > 0)
        return SBX_AGAIN;
    piece = p + *at;
    sbxi_ws_unmask(ws, piece, n);
    event->opcode = (sbx_ws_opcode)ws->message;
    event->first = ws->size == 0;
    event->data = (const char *)piece;
    event->len = n;
    *at += n;
    ws->size += n;
    ws->left -= n;
    if (ws->left == 0) {
        ws->in_frame = 0;
        event->last = ws->fin;
    }
    if (ws->message == SBX_WS_TEXT) {
        if (!sbx_utf8_check(&ws->utf8, piece, n))
            return sbxi_ws_fail(ws, 1007, "a text message is not UTF-8");
        if (event->last && ws->utf8.state != 0)
            return sbxi_ws_fail(ws, 1007, "a text message ends inside a character");
    }
    if (event->last) {
        ws->message = 0;
        ws->size = 0;
    }
    return SBX_OK;
}

SBX_API sbx_status sbx_ws_read(sbx_ws *ws, void *data, size_t len, size_t *used,
                               sbx_ws_event *event)
{
    unsigned char *p = (unsigned char *)data;
    sbx_status st = ws->status;
    size_t at = 0;
    memset(event, 0, sizeof(*event));
    while (st == SBX_OK && !ws->in_frame) {
        st = sbxi_ws_head(ws, p, len, &at);
        if (ws->left == 0 && !ws->fin)
            ws->in_frame = 0; /* an empty fragment gives no event, unless it ends the message */
    }
    if (st == SBX_OK) {
        if (ws->opcode >= SBX_WS_CLOSE)
            st = sbxi_ws_control(ws, p, len, &at, event);
        else
            st = sbxi_ws_data(ws, p, len, &at, event);
        if (st != SBX_OK)
            memset(event, 0, sizeof(*event));
    }
    *used = at;
    return st;
}

/* ---- writing ---- */

SBX_API size_t sbx_ws_header(unsigned char *out, int opcode, int fin, uint64_t len,
                             const unsigned char *key)
{
    unsigned mask = key ? 0x80 : 0;
    size_t at = 2;
    int shift;
    out[0] = (unsigned char)((fin ? 0x80 : 0) | (opcode & 15));
    if (len < 126) {
        out[1] = (unsigned char)(mask | (unsigned)len);
    } else {
        out[1] = (unsigned char)(mask | (len <= 0xffff ? 126u : 127u));
        for (shift = len <= 0xffff ? 8 : 56; shift >= 0; shift -= 8)
            out[at++] = (unsigned char)(len >> shift & 0xff);
    }
    if (key) {
        memcpy(out + at, key, 4);
        at += 4;
    }
    return at;
}

SBX_API void sbx_ws_mask(void *out, const void *in, size_t len, const unsigned char *key, size_t at)
{
    const unsigned char *from = (const unsigned char *)in;
    unsigned char *to = (unsigned char *)out, turned[8];
    uint64_t mask, word;
    size_t i;
    turned[0] = turned[4] = key[at & 3];
    turned[1] = turned[5] = key[(at + 1) & 3];
    turned[2] = turned[6] = key[(at + 2) & 3];
    turned[3] = turned[7] = key[(at + 3) & 3];
    memcpy(&mask, turned, 8);
#ifdef SBXI_SIMD
    if (len >= 16) {
        unsigned char twice[16];
        sbxi_v16 wide;
        memcpy(twice, turned, 8);
        memcpy(twice + 8, turned, 8);
        wide = SBXI_V_LOAD(twice);
        for (; len >= 64; len -= 64, from += 64, to += 64) {
            sbxi_v16 a = SBXI_V_XOR(SBXI_V_LOAD(from), wide);
            sbxi_v16 b = SBXI_V_XOR(SBXI_V_LOAD(from + 16), wide);
            sbxi_v16 c = SBXI_V_XOR(SBXI_V_LOAD(from + 32), wide);
            sbxi_v16 d = SBXI_V_XOR(SBXI_V_LOAD(from + 48), wide);
            SBXI_V_STORE(to, a);
            SBXI_V_STORE(to + 16, b);
            SBXI_V_STORE(to + 32, c);
            SBXI_V_STORE(to + 48, d);
        }
        for (; len >= 16; len -= 16, from += 16, to += 16)
            SBXI_V_STORE(to, SBXI_V_XOR(SBXI_V_LOAD(from), wide));
    }
#endif
    for (; len >= 8; len -= 8, from += 8, to += 8) {
        memcpy(&word, from, 8);
        word ^= mask;
        memcpy(to, &word, 8);
    }
    for (i = 0; i < len; i++)
        to[i] = (unsigned char)(from[i] ^ turned[i]);
}

SBX_API size_t sbx_ws_close_payload(unsigned char *out, int code, const char *reason)
{
    uint32_t state = 0;
    size_t i, len = 0;
    if (!sbxi_ws_is_code(code))
        return 0;
    out[0] = (unsigned char)(code >> 8);
    out[1] = (unsigned char)(code & 0xff);
    for (i = 0; reason && i < 123 && reason[i] && state != SBXI_UTF8_BAD; i++) {
        state = sbxi_utf8_step(state, (unsigned char)reason[i]);
        if (state == 0)
            len = i + 1;
    }
    if (len)
        memcpy(out + 2, reason, len);
    return 2 + len;
}

SBX_API void sbx_ws_accept(const char *key, size_t len, char out[29])
{
    static const char suffix[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char text[24 + sizeof(suffix)];
    unsigned char digest[20];
    out[0] = 0;
    if (len != 24)
        return;
    memcpy(text, key, 24);
    memcpy(text + 24, suffix, sizeof(suffix));
    sbxi_sha1(text, 24 + sizeof(suffix) - 1, digest);
    (void)sbxi_base64(digest, sizeof(digest), out);
}
#endif

/* ==== src/multipart.c ========================================================================= */

/* multipart: reads multipart/form-data (RFC 7578, RFC 2046) as it comes, writes a body of one part.

   Promises: what a part holds is lent from the input and never copied, but for bytes that looked
   like the start of a boundary at a cut: they are equal to the boundary's own, and lent from there.
   Only a part's headers are kept, up to a limit. The outcome does not depend on how the bytes are
   cut. Calls text, url and http1. */

enum {
    SBXI_MULTIPART_DATA,    /* of a part, or what comes before the first */
    SBXI_MULTIPART_AFTER,   /* right behind a delimiter */
    SBXI_MULTIPART_DASH,    /* behind that, one "-" */
    SBXI_MULTIPART_PADDING, /* behind that, white space */
    SBXI_MULTIPART_LF,      /* behind that, a CR */
    SBXI_MULTIPART_HEAD,    /* the headers of a part */
    SBXI_MULTIPART_CLOSED
};

typedef struct sbxi_multipart_parameter {
    const char *name, *value;
    size_t name_len, value_len;
} sbxi_multipart_parameter;

static sbx_status sbxi_multipart_refuse(sbx_multipart *m, const char *problem)
{
    m->problem = problem;
    m->status = SBX_E_PROTOCOL;
    return m->status;
}

/* ---- headers ---- */

/* Takes the next of the parameters "; name=value; name="value"" at text[*at]. 1: there is one, 0:
   there is none left, -1: this is something else. */
static int sbxi_multipart_next(const char *text, size_t len, size_t *at,
                               sbxi_multipart_parameter *parameter)
{
    size_t i = *at, start;
    while (i < len && sbxi_http1_is_space(text[i]))
        i++;
    if (i < len && text[i] != ';')
        return -1;
    while (i < len && (text[i] == ';' || sbxi_http1_is_space(text[i])))
        i++;
    if (i == len)
        return 0;
    parameter->name = text + i;
    parameter->name_len = sbxi_http1_token_len(text + i, len - i);
    i += parameter->name_len;
    if (parameter->name_len == 0 || i == len || text[i++] != '=')
        return -1;
    start = i;
    if (i < len && text[i] == '"') {
        start = ++i;
        while (i < len && text[i] != '"')
            i += text[i] == '\\' ? 2 : 1;
        if (i >= len)
            return -1;
        *at = i + 1;
    } else {
        while (i < len && text[i] != ';' && text[i] != '"' && !sbxi_http1_is_space(text[i]))
            i++;
        if (i == start)
            return -1;
        *at = i;
    }
    parameter->value = text + start;
    parameter->value_len = i - start;
    return 1;
}

/* "form-data; name="file"; filename="a.txt"" */
static sbx_status sbxi_multipart_disposition(sbx_multipart *m, const char *text, size_t len,
                                             sbx_multipart_event *event)
{
    sbxi_multipart_parameter p;
    size_t at = sbxi_http1_token_len(text, len);
    int more;
    if (!sbxi_equal_nocase(text, at, "form-data"))
        return sbxi_multipart_refuse(m, "a part's Content-Disposition is not form-data");
    while ((more = sbxi_multipart_next(text, len, &at, &p)) > 0) {
        int is_name = sbxi_equal_nocase(p.name, p.name_len, "name");
        if (!is_name && !sbxi_equal_nocase(p.name, p.name_len, "filename"))
            continue;
        if (is_name ? event->name != NULL : event->filename != NULL)
            return sbxi_multipart_refuse(m, "a part has two names");
        if (is_name) {
            event->name = p.value;
            event->name_len = p.value_len;
        } else {
            event->filename = p.value;
            event->filename_len = p.value_len;
        }
    }
    if (more < 0)
        return sbxi_multipart_refuse(m, "a part's Content-Disposition cannot be read");
    return event->name ? SBX_OK : sbxi_multipart_refuse(m, "a part has no name");
}

/* All lines of a part's head are there: what is the part called? */
static sbx_status sbxi_multipart_part(sbx_multipart *m, sbx_multipart_event *event)
{
    const char *line = m->head, *end = m->head + m->head_len - 2, *next;
    sbx_status st;
    for (; line < end; line = next) {
        size_t n, name;
        const char *value;
        next = (const char *)memchr(line, '\n', (size_t)(end - line)) + 1;
        n = (size_t)(next - line) - 2;
        name = sbxi_http1_token_len(line, n);
        if (name == 0 || name == n || line[name] != ':' || !sbxi_http1_value(line + name, n - name))
            return sbxi_multipart_refuse(m, "a part has a header that cannot be read");
        if (!sbxi_equal_nocase(line, name, "content-disposition"))
            continue;
        if (event->name)
            return sbxi_multipart_refuse(m, "a part has two names");
        value = line + name + 1;
        n -= name + 1;
        sbxi_http1_trim(&value, &n);
        st = sbxi_multipart_disposition(m, value, n, event);
        if (st != SBX_OK)
            return st;
    }
    if (!event->name)
        return sbxi_multipart_refuse(m, "a part has no name");
    event->type = SBX_MULTIPART_PART;
    m->state = SBXI_MULTIPART_DATA;
    m->in_part = 1;
    m->matched = m->assumed = 2; /* the head's last line end can begin the next delimiter */
    return SBX_OK;
}

static sbx_status sbxi_multipart_head(sbx_multipart *m, const char *data, size_t len, size_t *pos,
                                      sbx_multipart_event *event)
{
    while (*pos < len) {
        const char *lf = (const char *)memchr(data + *pos, '\n', len - *pos);
        size_t n = lf ? (size_t)(lf - data) + 1 - *pos : len - *pos, line = m->line;
        if (n > sizeof(m->head) - m->head_len) {
            m->problem = "the headers of a part are too long";
            m->status = SBX_E_TOO_BIG;
            return m->status;
        }
        memcpy(m->head + m->head_len, data + *pos, n);
        m->head_len += n;
        *pos += n;
        if (!lf)
            break;
        if (m->head_len - line < 2 || m->head[m->head_len - 2] != '\r')
            return sbxi_multipart_refuse(m, "a part's header does not end in CR LF");
        if (m->head_len - line == 2)
            return sbxi_multipart_part(m, event);
        m->line = m->head_len;
    }
    return SBX_AGAIN;
}

/* ---- data and delimiters ---- */

/* Where the first delimiter starts from pos on, or what may become one behind the end of data. */
static size_t sbxi_multipart_find(const sbx_multipart *m, const char *data, size_t len, size_t pos)
{
    for (;;) {
        const char *cr = (const char *)memchr(data + pos, '\r', len - pos);
        size_t left;
        if (!cr)
            return len;
        left = len - (size_t)(cr - data);
        if (memcmp(cr, m->delimiter, left < m->delimiter_len ? left : m->delimiter_len) == 0)
            return (size_t)(cr - data);
        pos = (size_t)(cr - data) + 1; /* not beyond the end: a CR that stands last is a match */
    }
}

/* The n bytes of the delimiter that were taken were data. What comes before the first part is
   skipped: SBX_AGAIN then. */
static sbx_status sbxi_multipart_replay(sbx_multipart *m, size_t n, sbx_multipart_event *event)
{
    const char *data = m->delimiter + m->assumed;
    size_t len = n - m->assumed;
    m->state = SBXI_MULTIPART_DATA;
    m->matched = m->assumed = 0;
    if (!m->in_part || len == 0)
        return SBX_AGAIN;
    event->type = SBX_MULTIPART_DATA;
    event->data = data;
    event->len = len;
    return SBX_OK;
}

/* SBX_OK: an event. SBX_AGAIN: there is none yet, and the state may have changed. */
static sbx_status sbxi_multipart_data(sbx_multipart *m, const char *data, size_t len, size_t *pos,
                                      sbx_multipart_event *event)
{
    size_t at;
    if (m->matched == 0) {
        at = sbxi_multipart_find(m, data, len, *pos);
        if (at > *pos && m->in_part) {
            event->type = SBX_MULTIPART_DATA;
            event->data = data + *pos;
            event->len = at - *pos;
            *pos = at;
            return SBX_OK;
        }
        *pos = at;
    }
    while (*pos < len && m->matched < m->delimiter_len) {
        if (data[*pos] != m->delimiter[m->matched])
            return sbxi_multipart_replay(m, m->matched, event);
        m->matched++;
        (*pos)++;
    }
    if (m->matched == m->delimiter_len)
        m->state = SBXI_MULTIPART_AFTER;
    return SBX_AGAIN;
}

/* A delimiter is complete: reports the end of the part before it, if there is one. */
static sbx_status sbxi_multipart_divide(sbx_multipart *m, int state, sbx_multipart_event *event)
{
    m->state = state;
    m->head_len = m->line = 0;
    if (!m->in_part)
        return SBX_AGAIN;
    event->type = SBX_MULTIPART_PART_END;
    return SBX_OK;
}

/* One byte behind a delimiter, which is followed by "--" or by white space and CR LF. Anything else
   that is glued to it makes it the data that it was. But what else follows white space, or a line
   that ends in LF, no reader should have to guess about. */
static sbx_status sbxi_multipart_after(sbx_multipart *m, const char *data, size_t *pos,
                                       sbx_multipart_event *event)
{
    char c = data[*pos];
    if (m->state == SBXI_MULTIPART_DASH && c != '-')
        return sbxi_multipart_replay(m, m->delimiter_len + 1, event);
    if (m->state == SBXI_MULTIPART_AFTER && c != '-' && c != '\r' && c != '\n' &&
        !sbxi_http1_is_space(c))
        return sbxi_multipart_replay(m, m->delimiter_len, event);
    (*pos)++;
    switch (m->state) {
    case SBXI_MULTIPART_DASH:
        return sbxi_multipart_divide(m, SBXI_MULTIPART_CLOSED, event);
    case SBXI_MULTIPART_LF:
        if (c == '\n')
            return sbxi_multipart_divide(m, SBXI_MULTIPART_HEAD, event);
        break;
    default:
        if (c == '-' && m->state == SBXI_MULTIPART_AFTER) {
            m->state = SBXI_MULTIPART_DASH;
            return SBX_AGAIN;
        }
        if (c == '\r' || sbxi_http1_is_space(c)) {
            m->state = c == '\r' ? SBXI_MULTIPART_LF : SBXI_MULTIPART_PADDING;
            return SBX_AGAIN;
        }
    }
    return sbxi_multipart_refuse(m, "a boundary is followed by something else on its line");
}

/* ---- the reader ---- */

static int sbxi_multipart_is_boundary(const char *text, size_t len)
{
    size_t i;
    if (len < 1 || len > SBX_MULTIPART_BOUNDARY_MAX || text[len - 1] == ' ')
        return 0;
    for (i = 0; i < len; i++) {
        if (!sbxi_url_alphanumeric(text[i]) && !sbxi_url_in(text[i], "'()+_,-./:=? "))
            return 0;
    }
    return 1;
}

SBX_API sbx_status sbx_multipart_init(sbx_multipart *m, const char *content_type, size_t len)
{
    static const char type[] = "multipart/form-data";
    sbxi_multipart_parameter p;
    const char *boundary = NULL;
    size_t at = sizeof(type) - 1, boundary_len = 0;
    int more;
    memset(m, 0, sizeof(*m));
    if (len < at || !sbxi_equal_nocase(content_type, at, type))
        return sbxi_multipart_refuse(m, "the Content-Type is not multipart/form-data");
    while ((more = sbxi_multipart_next(content_type, len, &at, &p)) > 0) {
        if (!sbxi_equal_nocase(p.name, p.name_len, "boundary"))
            continue;
        if (boundary)
            return sbxi_multipart_refuse(m, "the Content-Type has two boundaries");
        boundary = p.value;
        boundary_len = p.value_len;
    }
    if (more < 0)
        return sbxi_multipart_refuse(m, "the Content-Type cannot be read");
    if (!boundary || !sbxi_multipart_is_boundary(boundary, boundary_len))
        return sbxi_multipart_refuse(m, "the Content-Type has no boundary of 1 to 70 characters");
    memcpy(m->delimiter, "\r\n--", 4);
    memcpy(m->delimiter + 4, boundary, boundary_len);
    memcpy(m->delimiter + 4 + boundary_len, "--", 2);
    m->delimiter_len = 4 + boundary_len;
    m->matched = m->assumed = 2;
    return SBX_OK;
}

SBX_API sbx_status sbx_multipart_read(sbx_multipart *m, const void *data, size_t len, size_t *used,
                                      sbx_multipart_event *event)
{
    const char *from = len ? (const char *)data : "";
    sbx_status st = m->status == SBX_OK ? SBX_AGAIN : m->status;
    size_t pos = 0;
    memset(event, 0, sizeof(*event));
    while (st == SBX_AGAIN) {
        if (m->state == SBXI_MULTIPART_CLOSED)
            st = SBX_END;
        else if (pos == len)
            break;
        else if (m->state == SBXI_MULTIPART_DATA)
            st = sbxi_multipart_data(m, from, len, &pos, event);
        else if (m->state == SBXI_MULTIPART_HEAD)
            st = sbxi_multipart_head(m, from, len, &pos, event);
        else
            st = sbxi_multipart_after(m, from, &pos, event);
    }
    *used = pos;
    return st;
}

SBX_API sbx_status sbx_multipart_finish(sbx_multipart *m)
{
    if (m->status != SBX_OK)
        return m->status;
    if (m->state == SBXI_MULTIPART_CLOSED)
        return SBX_END;
    return sbxi_multipart_refuse(m, "the body ended before its closing boundary");
}

/* ---- the writer ---- */

/* Writes text at out[at]; returns where it ends, or cap if that leaves no room for a final 0. */
static size_t sbxi_multipart_put(char *out, size_t cap, size_t at, const char *text, size_t len)
{
    if (len >= cap - at)
        return cap;
    memcpy(out + at, text, len);
    return at + len;
}

static size_t sbxi_multipart_put_text(char *out, size_t cap, size_t at, const char *text)
{
    return sbxi_multipart_put(out, cap, at, text, strlen(text));
}

static size_t sbxi_multipart_put_name(char *out, size_t cap, size_t at, const char *name)
{
    static const char digits[] = "0123456789ABCDEF";
    for (; *name; name++) {
        unsigned char c = (unsigned char)*name;
        char escape[3];
        escape[0] = '%';
        escape[1] = digits[c >> 4];
        escape[2] = digits[c & 15];
        if (c < 0x20 || c == 0x7f || c == '"' || c == '\\')
            at = sbxi_multipart_put(out, cap, at, escape, 3);
        else
            at = sbxi_multipart_put(out, cap, at, name, 1);
    }
    return at;
}

static int sbxi_multipart_can_write(const char *boundary)
{
    size_t i;
    for (i = 0; boundary[i]; i++) {
        if (i == SBX_MULTIPART_BOUNDARY_MAX || !sbxi_url_alphanumeric(boundary[i]))
            return 0;
    }
    return i > 0;
}

SBX_API size_t sbx_multipart_head(char *out, size_t cap, const char *boundary, const char *name,
                                  const char *filename)
{
    size_t at = 0;
    if (!sbxi_multipart_can_write(boundary))
        return 0;
    at = sbxi_multipart_put_text(out, cap, at, "--");
    at = sbxi_multipart_put_text(out, cap, at, boundary);
    at = sbxi_multipart_put_text(out, cap, at, "\r\nContent-Disposition: form-data; name=\"");
    at = sbxi_multipart_put_name(out, cap, at, name);
    if (filename) {
        at = sbxi_multipart_put_text(out, cap, at, "\"; filename=\"");
        at = sbxi_multipart_put_name(out, cap, at, filename);
        at = sbxi_multipart_put_text(out, cap, at, "\"\r\nContent-Type: application/octet-stream");
    } else {
        at = sbxi_multipart_put_text(out, cap, at, "\"");
    }
    at = sbxi_multipart_put_text(out, cap, at, "\r\n\r\n");
    if (at >= cap)
        return 0;
    out[at] = 0;
    return at;
}

SBX_API size_t sbx_multipart_tail(char *out, size_t cap, const char *boundary)
{
    size_t at = 0;
    if (!sbxi_multipart_can_write(boundary))
        return 0;
    at = sbxi_multipart_put_text(out, cap, at, "\r\n--");
    at = sbxi_multipart_put_text(out, cap, at, boundary);
    at = sbxi_multipart_put_text(out, cap, at, "--\r\n");
    if (at >= cap)
        return 0;
    out[at] = 0;
    return at;
}

/* ==== src/connection.c ======================================================================== */

/* connection: one stream of the transport with a buffer for each direction, and the pool of idle
   ones.

   Promises: never blocks, never waits; an error names what was tried. May call the transport's
   hooks, buffer and text. Knows nothing of HTTP. */

/* ---- the client's clock, log and randomness ---- */

/* Milliseconds that have passed for this client, always above 0. The transport's clock may have any
   epoch; where it goes backwards, that counts as no time. */
static int64_t sbxi_now(sbx_client *client)
{
    int64_t raw = client->transport->now_ms(client->state);
    uint64_t passed = (uint64_t)raw - (uint64_t)client->clock_raw;
    client->clock_raw = raw;
    if (passed < (uint64_t)INT64_MAX / 2 - (uint64_t)client->clock)
        client->clock += (int64_t)passed;
    return client->clock;
}

static int64_t sbxi_wall(const sbx_client *client)
{
    return client->transport->wall_ms ? client->transport->wall_ms(client->state) : 0;
}

/* now + delay, where SBX_NONE and everything too large mean never. */
static int64_t sbxi_after(int64_t now, int64_t delay_ms)
{
    return delay_ms < 0 || delay_ms > SBXI_FOREVER - now ? SBXI_FOREVER : now + delay_ms;
}

static sbx_status sbxi_random(const sbx_client *client, void *out, size_t len, sbx_error *err)
{
    if (client->transport->entropy(client->state, out, len) == SBX_OK)
        return SBX_OK;
    return sbxi_fail(err, SBX_E_ENTROPY, "the transport could not supply random bytes");
}

static void sbxi_log(const sbx_client *client, int level, const char *format, ...)
{
    char line[256];
    va_list args;
    if (!client->log)
        return;
    va_start(args, format);
    sbxi_vformat(line, sizeof(line), format, args);
    va_end(args);
    sbxi_redact(line, client->api_key);
    client->log(client->log_user, level, line);
}

/* ---- addresses ---- */

static void sbxi_address_free(sbxi_address *a, const sbx_allocator *memory)
{
    sbxi_release(memory, a->text, a->text_size);
    memset(a, 0, sizeof(*a));
}

#if !defined(SBX_NO_CONTROL) || !defined(SBX_NO_WEBSOCKET)
/* Takes suffix, with which the target ends, off it. */
static void sbxi_address_cut(sbxi_address *a, const char *suffix)
{
    a->text[strlen(a->host) + 1 + strlen(a->target) - strlen(suffix)] = 0;
}
#endif

static int sbxi_is_loopback(const char *host, size_t len)
{
    return sbxi_equal_nocase(host, len, "localhost") || sbxi_equal_nocase(host, len, "::1") ||
           (len > 4 && memcmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") >= len);
}

/* Resolves base (a valid URL), then before, then name percent-encoded (NULL: none), then after.
   Names come from the user: they may hold anything but control characters, and not nothing. */
static sbx_status sbxi_address_make(sbxi_address *a, const sbx_client *client, const char *base,
                                    const char *before, const char *name, const char *after,
                                    sbx_error *err)
{
    sbx_url url;
    const char *problem = "";
    size_t before_len = strlen(before), after_len = strlen(after);
    size_t name_len = name ? sbx_url_encode(name, strlen(name), NULL, 0) : 0;
    sbx_status st = SBX_OK;
    char *at;
    if (sbx_url_parse(base, strlen(base), &url, &problem) != SBX_OK)
        st = sbxi_fail(err, SBX_E_PROTOCOL, "the URL \"%s\" cannot be used: %s", base, problem);
    else if (url.query_len)
        st = sbxi_fail(err, SBX_E_PROTOCOL, "the URL \"%s\" cannot be used: it has a query", base);
    else if (!url.tls && client->endpoint_tls && !sbxi_is_loopback(url.host, url.host_len))
        st = sbxi_fail(err, SBX_E_TLS,
                       "refused to talk in clear text: the endpoint is https, but %s is not", base);
    if (st != SBX_OK) {
        if (err)
            sbxi_error_redact(err, client->api_key);
        return st;
    }
    a->text_size = url.host_len + 1 + url.path_len + before_len + name_len + after_len + 1;
    a->text = (char *)sbxi_alloc(&client->memory, a->text_size);
    if (!a->text)
        return sbxi_fail_memory(err);
    at = a->text;
    a->host = at;
    memcpy(at, url.host, url.host_len);
    at += url.host_len;
    *at++ = 0;
    a->target = at;
    while (url.path_len && url.path[url.path_len - 1] == '/')
        url.path_len--;
    memcpy(at, url.path, url.path_len);
    at += url.path_len;
    memcpy(at, before, before_len);
    at += before_len;
    if (name)
        at += sbx_url_encode(name, strlen(name), at, name_len + 1);
    memcpy(at, after, after_len + 1);
    a->port = url.port;
    a->tls = url.tls;
    return SBX_OK;
}

/* ---- connections ---- */

static void sbxi_connection_close(sbxi_connection *c)
{
    const sbx_allocator *memory;
    if (!c)
        return;
    memory = &c->client->memory;
    if (c->stream)
        c->stream->methods->close(c->stream);
    if (c->out.data)
        sbxi_wipe(c->out.data, c->out.cap);
    sbxi_buffer_free(&c->in);
    sbxi_buffer_free(&c->out);
    sbxi_release(memory, c->scratch, SBXI_MAX_LINE);
    sbxi_release(memory, c, sizeof(*c) + c->host_size);
}

/* An error of the stream, in the words of the transport where it has some. */
static sbx_status sbxi_connection_fail(sbxi_connection *c, sbx_status status, const char *doing,
                                       sbx_error *err)
{
    const sbx_stream *s = c->stream;
    const char *detail = s && s->detail ? s->detail : NULL;
    c->broken = 1;
    (void)sbxi_fail(err, status, "%s %s port %d failed%s%s", doing, c->host, (int)c->port,
                    detail ? ": " : "", detail);
    if (err) {
        err->native_code = s ? s->native_code : 0;
        err->port = c->port;
    }
    return status;
}

/* The same where the stream had no memory. */
static sbx_status sbxi_connection_out_of_memory(sbxi_connection *c, sbx_error *err)
{
    c->broken = 1;
    return sbxi_fail_memory(err);
}

/* Puts TLS on a fresh stream, which belongs to the connection or to nobody afterwards. */
static sbx_status sbxi_connection_secure(sbxi_connection *c, sbx_error *err)
{
    const sbx_transport *t = c->client->transport;
    sbx_stream *lower = c->stream;
    sbx_status st;
    c->stream = NULL;
    if (!t->secure) {
        lower->methods->close(lower);
        return sbxi_fail(err, SBX_E_TLS,
                         "%s needs https, and this transport has no TLS: use a transport whose "
                         "secure hook is set, or an http endpoint",
                         c->host);
    }
    st = t->secure(c->client->state, lower, c->host, &c->stream);
    if (st == SBX_E_MEMORY)
        return sbxi_fail_memory(err);
    if (st != SBX_OK)
        return sbxi_connection_fail(c, st, "TLS for", err);
    return SBX_OK;
}

/* Begins a fresh connection; no waiting. */
static sbx_status sbxi_connection_dial(sbx_client *client, const sbxi_address *to,
                                       sbxi_connection **out, sbx_error *err)
{
    size_t host_size = strlen(to->host) + 1;
    sbxi_connection *c = (sbxi_connection *)sbxi_alloc(&client->memory, sizeof(*c) + host_size);
    sbx_status st;
    *out = NULL;
    if (!c)
        return sbxi_fail_memory(err);
    memset(c, 0, sizeof(*c));
    c->client = client;
    c->host = (char *)(c + 1);
    c->host_size = host_size;
    memcpy(c->host, to->host, host_size);
    c->port = to->port;
    c->tls = to->tls;
    sbxi_buffer_init(&c->in, &client->memory, SBXI_READ_SIZE);
    sbxi_buffer_init(&c->out, &client->memory, SBXI_MAX_REQUEST);
    st = client->transport->dial(client->state, c->host, c->port, &c->stream);
    if (st == SBX_E_MEMORY)
        (void)sbxi_fail_memory(err);
    else if (st != SBX_OK)
        st = sbxi_connection_fail(c, st, "connecting to", err);
    else if (c->tls)
        st = sbxi_connection_secure(c, err);
    if (st != SBX_OK) {
        sbxi_connection_close(c);
        return st;
    }
    sbxi_log(client, SBX_LOG_DEBUG, "connecting to %s port %d", c->host, (int)c->port);
    *out = c;
    return SBX_OK;
}

/* SBX_OK once it can be read and written. */
static sbx_status sbxi_connection_step(sbxi_connection *c, sbx_error *err)
{
    sbx_status st;
    if (c->open)
        return SBX_OK;
    st = c->stream->methods->connect(c->stream);
    if (st == SBX_OK)
        c->open = 1;
    else if (st == SBX_E_MEMORY)
        (void)sbxi_fail_memory(err);
    else if (st != SBX_AGAIN)
        return sbxi_connection_fail(c, st, "connecting to", err);
    return st;
}

/* Reads once into the buffer. SBX_OK: there are new bytes. SBX_AGAIN; SBX_END; or an error. */
static sbx_status sbxi_connection_fill(sbxi_connection *c, sbx_error *err)
{
    size_t n = 0;
    sbx_status st;
    if (!c->scratch) {
        c->scratch = (char *)sbxi_alloc(&c->client->memory, SBXI_MAX_LINE);
        if (!c->scratch || sbxi_buffer_reserve(&c->in, SBXI_READ_SIZE) != SBX_OK)
            return sbxi_fail_memory(err);
    }
    if (c->in.end == c->in.cap)
        sbxi_buffer_compact(&c->in);
    st = c->stream->methods->read(c->stream, c->in.data + c->in.end, c->in.cap - c->in.end, &n);
    if (st == SBX_OK && n > 0 && n <= c->in.cap - c->in.end) {
        c->in.end += n;
        return SBX_OK;
    }
    if (st == SBX_END)
        c->ended = 1;
    else if (st == SBX_E_MEMORY)
        return sbxi_connection_out_of_memory(c, err);
    else if (st != SBX_AGAIN)
        return sbxi_connection_fail(c, st < 0 ? st : SBX_E_CONNECTION, "reading from", err);
    return st;
}

/* Writes some of len bytes past the buffer, which must be empty. */
static sbx_status sbxi_connection_write(sbxi_connection *c, const char *data, size_t len, size_t *n,
                                        sbx_error *err)
{
    sbx_status st;
    *n = 0;
    st = c->stream->methods->write(c->stream, data, len, n);
    if (st == SBX_E_MEMORY)
        return sbxi_connection_out_of_memory(c, err);
    if (st != SBX_OK && st != SBX_AGAIN)
        return sbxi_connection_fail(c, st < 0 ? st : SBX_E_CONNECTION, "writing to", err);
    return st;
}

/* SBX_OK: all that was in the buffer has left the stream's own layers too. */
static sbx_status sbxi_connection_flush(sbxi_connection *c, sbx_error *err)
{
    while (sbxi_buffer_len(&c->out) > 0) {
        size_t n;
        sbx_status st =
            sbxi_connection_write(c, sbxi_buffer_data(&c->out), sbxi_buffer_len(&c->out), &n, err);
        if (st != SBX_OK)
            return st;
        sbxi_buffer_consume(&c->out, n);
    }
    c->flushing = 0;
    if (c->stream->methods->flush) {
        sbx_status st = c->stream->methods->flush(c->stream);
        c->flushing = st == SBX_AGAIN;
        if (st != SBX_OK && st != SBX_AGAIN)
            return sbxi_connection_fail(c, st < 0 ? st : SBX_E_CONNECTION, "writing to", err);
        return st;
    }
    return SBX_OK;
}

static int sbxi_connection_wants(sbxi_connection *c, unsigned want, sbx_item *items, int cap,
                                 int64_t *timeout_ms)
{
    if (c->flushing)
        want |= SBX_WRITE;
    return c->stream->methods->wants(c->stream, c->open ? want : 0, items, cap, timeout_ms);
}

/* ---- the pool of idle connections ---- */

/* Takes an idle connection to the same place that the server has not closed meanwhile: one that has
   anything to read is of no use, be it the end or bytes that nobody asked for. */
static sbxi_connection *sbxi_pool_take(sbx_client *client, const sbxi_address *to)
{
    sbxi_connection **link = &client->idle;
    while (*link) {
        sbxi_connection *c = *link;
        if (c->port != to->port || c->tls != to->tls || strcmp(c->host, to->host) != 0) {
            link = &c->next;
            continue;
        }
        *link = c->next;
        c->next = NULL;
        if (sbxi_connection_fill(c, NULL) == SBX_AGAIN) {
            c->reused = 1;
            return c;
        }
        sbxi_connection_close(c);
    }
    return NULL;
}

/* Gives a connection back after a complete exchange. The oldest idle one goes when there are many.
   */
static void sbxi_pool_give(sbx_client *client, sbxi_connection *c)
{
    sbxi_connection **link = &client->idle;
    int count = 0;
    if (sbxi_buffer_len(&c->in) > 0 || sbxi_buffer_len(&c->out) > 0 || c->ended) {
        sbxi_connection_close(c);
        return;
    }
    if (c->out.data)
        sbxi_wipe(c->out.data, c->out.cap);
    sbxi_buffer_free(&c->out);
    c->next = client->idle;
    client->idle = c;
    while (*link) {
        if (++count > SBXI_MAX_IDLE) {
            sbxi_connection *last = *link;
            *link = last->next;
            sbxi_connection_close(last);
        } else {
            link = &(*link)->next;
        }
    }
}

static void sbxi_pool_clear(sbx_client *client)
{
    while (client->idle) {
        sbxi_connection *c = client->idle;
        client->idle = c->next;
        sbxi_connection_close(c);
    }
}

/* ==== src/exchange.c ========================================================================== */

/* exchange: one HTTP request and its response, repeated where a repetition is safe.

   Promises: memory does not grow with the body where a source or a sink is set; a response that
   comes before the request is complete is read, not lost; nothing is repeated that may have had an
   effect, but for what the flags allow. Says SBX_OK for any complete response: what its status
   means is for the caller. May call connection and the HTTP codec. */

/* sbxi_exchange.flags */
enum {
    SBXI_IDEMPOTENT = 1, /* may be repeated after its bytes were sent */
    SBXI_FRESH = 2,      /* takes no connection from the pool and gives none: a command is too
                               precious for the doubt that a kept connection may be stale */
    SBXI_SINGLE = 4,     /* one attempt: a WebSocket's upgrade is repeated by its command */
    SBXI_UNSENT = 8      /* repeated only where it surely was not carried out */
};

#define SBXI_REFUSAL_MS 2000 /* for the body of a refused upgrade */

typedef enum sbxi_exchange_state {
    SBXI_EXCHANGE_BEGIN,
    SBXI_EXCHANGE_CONNECT,
    SBXI_EXCHANGE_TRANSFER,
    SBXI_EXCHANGE_BACKOFF,
    SBXI_EXCHANGE_DONE
} sbxi_exchange_state;

typedef enum sbxi_part {
    SBXI_PART_BEFORE,
    SBXI_PART_DATA,
    SBXI_PART_AFTER,
    SBXI_PART_END
} sbxi_part;

typedef struct sbxi_exchange {
    sbx_client *client;
    sbxi_address to;
    const char *method;
    const char *content_type; /* NULL: none */
    const char *headers;      /* lines of the caller, or NULL */
    const char *upgrade_key;  /* Sec-WebSocket-Key: asks for a WebSocket. NULL: does not */
    unsigned flags;
    int64_t limit_ms; /* one attempt; SBX_NONE: no limit */
    int64_t idle_ms;  /* without a byte moving; SBX_NONE */

    /* The body: before, then data or what source gives, then after. All lent. */
    int has_body;
    const char *before, *data, *after;
    size_t data_len;
    sbx_source_fn source;
    int64_t source_size; /* SBX_NONE: unknown, so chunked */
    sbx_sink_fn sink;    /* of a 2xx body; NULL: it goes to answer */
    sbx_progress_fn progress;
    void *user;
    size_t max_answer;

    /* The attempt. */
    sbxi_exchange_state state;
    sbxi_connection *connection;
    sbx_http1 http;
    sbxi_part part;
    size_t data_at;
    int64_t source_left, moved, moved_told;
    int source_used, sink_used, sent, received, head_read, busy;
    sbx_status write_failed; /* why nothing more can be written; SBX_OK: it can */
    int attempts, stale;
    int maybe_done; /* an attempt whose outcome is unknown may have had its effect */
    int64_t attempt_deadline, idle_deadline, wake;
    int64_t pause_end; /* pauses between attempts end here at the latest */
    int64_t dry_until; /* when to ask a source again that had nothing; 0: it has */

    /* The response. */
    int status;
    int64_t content_length, retry_after_ms;
    int upgrade_named, upgrade_connected, accept_ok; /* what a WebSocket's handshake must have */
    int upgrade_unasked; /* and must not: an extension or a protocol that nobody offered */
    sbxi_buffer answer;
} sbxi_exchange;

static void sbxi_exchange_init(sbxi_exchange *x, sbx_client *client, const char *method)
{
    memset(x, 0, sizeof(*x));
    x->client = client;
    x->method = method;
    x->limit_ms = client->timeout_ms;
    x->idle_ms = SBX_NONE;
    x->source_size = SBX_NONE;
    x->pause_end = SBXI_FOREVER;
    x->max_answer = client->max_body;
    sbxi_buffer_init(&x->answer, &client->memory, client->max_body + 1);
}

static void sbxi_exchange_free(sbxi_exchange *x)
{
    sbxi_connection_close(x->connection);
    x->connection = NULL;
    sbxi_buffer_free(&x->answer);
    sbxi_address_free(&x->to, &x->client->memory);
}

/* ---- header lines ---- */

/* The length of the line's name if the line is "Name: value" with legal characters, else 0. */
static size_t sbxi_header_name(const char *line)
{
    const char *colon = strchr(line, ':');
    size_t len = colon ? (size_t)(colon - line) : 0;
    return len && sbxi_http1_token(line, len) && sbxi_http1_value(colon + 1, strlen(colon + 1))
               ? len
               : 0;
}

static int sbxi_header_is_framing(const char *name, size_t len)
{
    static const char *const framing[] = {
        "Host",    "Content-Length", "Transfer-Encoding", "Connection",
        "Upgrade", "Expect",         "Trailer",           "TE"};
    int i;
    for (i = 0; i < SBXI_COUNT(framing); i++)
        if (sbxi_equal_nocase(name, len, framing[i]))
            return 1;
    return len >= 4 && sbxi_equal_nocase(name, 4, "Sec-");
}

static int sbxi_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

/* 1 if block, lines that each end with CR LF, has a header of this name. */
static int sbxi_headers_have(const char *block, const char *name, size_t len)
{
    size_t i;
    for (; block && *block; block = strstr(block, "\r\n") + 2) {
        for (i = 0; i < len && block[i] != ':' && sbxi_lower(block[i]) == sbxi_lower(name[i]);
             i++) {
        }
        if (i == len && block[i] == ':')
            return 1;
    }
    return 0;
}

/* Checks lines (NULL: none) and makes one block of them: lines first, then those of base with other
   names. Of lines with the same name the first counts. *out is NULL where there are none. */
static sbx_status sbxi_headers_make(const sbx_allocator *memory, const char *const *lines,
                                    const char *base, char **out, size_t *out_size, sbx_error *err)
{
    size_t size = base ? strlen(base) + 1 : 1, at = 0;
    const char *end;
    int count;
    *out = NULL;
    *out_size = 0;
    for (count = 0; lines && lines[count]; count++) {
        size_t name = sbxi_header_name(lines[count]);
        if (count == SBXI_MAX_HEADERS)
            return sbxi_fail_argument(err, "headers", "has more than 64 lines");
        if (!name)
            return sbxi_fail_argument(err, "headers",
                                      "must hold lines \"Name: value\" without control characters");
        if (sbxi_header_is_framing(lines[count], name))
            return sbxi_fail_argument(err, "headers",
                                      "must not set a header that frames the message, such as "
                                      "Host, Connection or Content-Length");
        size += strlen(lines[count]) + 2;
    }
    if (size == 1)
        return SBX_OK;
    if (size > SBXI_MAX_LINE)
        return sbxi_fail_argument(err, "headers", "is longer than 16 KiB in all");
    *out = (char *)sbxi_alloc(memory, size);
    if (!*out)
        return sbxi_fail_memory(err);
    *out_size = size;
    (*out)[0] = 0;
    for (count = 0; lines && lines[count]; count++)
        if (!sbxi_headers_have(*out, lines[count], sbxi_header_name(lines[count]))) {
            size_t len = strlen(lines[count]);
            memcpy(*out + at, lines[count], len);
            memcpy(*out + at + len, "\r\n", 3);
            at += len + 2;
        }
    for (; base && *base; base = end) {
        end = strstr(base, "\r\n") + 2;
        if (!sbxi_headers_have(*out, base, strcspn(base, ":"))) {
            memcpy(*out + at, base, (size_t)(end - base));
            at += (size_t)(end - base);
            (*out)[at] = 0;
        }
    }
    return SBX_OK;
}

/* ---- sending ---- */

static int sbxi_exchange_chunked(const sbxi_exchange *x)
{
    return x->source && x->source_size < 0;
}

static sbx_status sbxi_buffer_texts(sbxi_buffer *b, const char *first, ...)
{
    va_list args;
    sbx_status st = SBX_OK;
    const char *text;
    va_start(args, first);
    for (text = first; text && st == SBX_OK; text = va_arg(args, const char *))
        st = sbxi_buffer_text(b, text);
    va_end(args);
    return st;
}

/* "Name: value" unless the caller has set a header of that name. */
static sbx_status sbxi_exchange_header(const sbxi_exchange *x, const char *name, const char *value)
{
    if (!value || sbxi_headers_have(x->headers, name, strlen(name)))
        return SBX_OK;
    return sbxi_buffer_texts(&x->connection->out, name, ": ", value, "\r\n", NULL);
}

static sbx_status sbxi_exchange_head(sbxi_exchange *x)
{
    sbxi_buffer *out = &x->connection->out;
    int ipv6 = strchr(x->to.host, ':') != NULL;
    char number[21] = "";
    sbx_status st;
    /* In one piece from the start, so that growing leaves no copy of the key behind. */
    if (sbxi_buffer_reserve(out, SBXI_MAX_LINE) != SBX_OK)
        return SBX_E_MEMORY;
    if (x->to.port != (x->to.tls ? 443 : 80))
        (void)sbxi_format(number, sizeof(number), ":%d", (int)x->to.port);
    st =
        sbxi_buffer_texts(out, x->method, " ", x->to.target, " HTTP/1.1\r\nHost: ", ipv6 ? "[" : "",
                          x->to.host, ipv6 ? "]" : "", number, "\r\n", NULL);
    if (st == SBX_OK)
        st = sbxi_exchange_header(x, "X-Api-Key", x->client->api_key);
    if (st == SBX_OK)
        st = sbxi_exchange_header(x, "User-Agent", "sandbox.h/" SBX_VERSION);
    if (st == SBX_OK)
        st = sbxi_exchange_header(x, "Accept", "*/*");
    if (st == SBX_OK && x->has_body)
        st = sbxi_exchange_header(x, "Content-Type", x->content_type);
    if (st == SBX_OK && x->has_body) {
        (void)sbxi_decimal(number, (int64_t)(strlen(x->before) + strlen(x->after)) +
                                       (x->source ? x->source_size : (int64_t)x->data_len));
        st = sbxi_exchange_chunked(x)
                 ? sbxi_buffer_text(out, "Transfer-Encoding: chunked\r\n")
                 : sbxi_buffer_texts(out, "Content-Length: ", number, "\r\n", NULL);
    }
    if (st == SBX_OK && x->upgrade_key)
        st = sbxi_buffer_texts(out,
                               "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                               "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
                               x->upgrade_key, "\r\n", NULL);
    if (st == SBX_OK)
        st = sbxi_buffer_texts(out, x->headers ? x->headers : "", "\r\n", NULL);
    return st;
}

/* Appends a piece of the body, framed as a chunk where the body is chunked. */
static sbx_status sbxi_exchange_put(sbxi_exchange *x, const char *data, size_t len)
{
    sbxi_buffer *out = &x->connection->out;
    char head[SBX_HTTP1_CHUNK_MAX];
    sbx_status st = SBX_OK;
    int chunked = sbxi_exchange_chunked(x);
    if (len == 0)
        return SBX_OK;
    if (chunked)
        st = sbxi_buffer_append(out, head, sbx_http1_chunk(head, len));
    if (st == SBX_OK)
        st = sbxi_buffer_append(out, data, len);
    if (st == SBX_OK && chunked)
        st = sbxi_buffer_append(out, "\r\n", 2);
    return st;
}

/* Tells the caller how far the transfer is. */
static sbx_status sbxi_exchange_moved(sbxi_exchange *x, size_t len, int64_t total, int end,
                                      sbx_error *err)
{
    x->moved += (int64_t)len;
    if (!x->progress || (!end && x->moved - x->moved_told < 65536))
        return SBX_OK;
    x->moved_told = x->moved;
    if (x->progress(x->user, x->moved, total) != 0)
        return sbxi_fail(err, SBX_E_ABORTED, "the progress callback ended the transfer");
    return SBX_OK;
}

/* Asks the source for the next bytes; SBX_AGAIN: it has none now. They pass through a buffer on the
   stack, since their number is known only afterwards and the chunk's head stands before them. */
static sbx_status sbxi_exchange_pull(sbxi_exchange *x, sbx_error *err)
{
    char data[16384];
    size_t n = 0;
    int said;
    x->source_used = 1;
    said = x->source(x->user, data, sizeof(data), &n);
    x->idle_deadline = sbxi_after(sbxi_now(x->client), x->idle_ms);
    if (said == SBX_AGAIN)
        return SBX_AGAIN;
    if (said != SBX_OK)
        return sbxi_fail(err, SBX_E_ABORTED, "the source callback ended the transfer");
    if (n > sizeof(data))
        return sbxi_fail_argument(err, "source", "gave more bytes than it was asked for");
    if (x->source_size >= 0) {
        if (n > 0 && (int64_t)n > x->source_left)
            return sbxi_fail_argument(err, "source", "gave more bytes than size says");
        if (n == 0 && x->source_left > 0)
            return sbxi_fail_argument(err, "source", "gave fewer bytes than size says");
        x->source_left -= (int64_t)n;
    }
    if (n == 0) {
        x->part = SBXI_PART_AFTER;
        return sbxi_exchange_moved(x, 0, x->source_size, 1, err);
    }
    if (sbxi_exchange_put(x, data, n) != SBX_OK)
        return sbxi_fail_memory(err);
    return sbxi_exchange_moved(x, n, x->source_size, 0, err);
}

/* Fills the connection's buffer with the next parts of the body. */
static sbx_status sbxi_exchange_fill(sbxi_exchange *x, sbx_error *err)
{
    sbxi_buffer *out = &x->connection->out;
    sbx_status st = SBX_OK;
    while (st == SBX_OK && x->part != SBXI_PART_END && sbxi_buffer_len(out) < SBXI_WRITE_SIZE) {
        if (x->part == SBXI_PART_BEFORE) {
            st = sbxi_exchange_put(x, x->before, strlen(x->before));
            x->part = SBXI_PART_DATA;
        } else if (x->part == SBXI_PART_DATA && x->source) {
            st = sbxi_exchange_pull(x, err);
            if (st != SBX_OK)
                return st; /* also SBX_AGAIN */
        } else if (x->part == SBXI_PART_DATA) {
            size_t n = x->data_len - x->data_at;
            if (n > SBXI_WRITE_SIZE)
                n = SBXI_WRITE_SIZE;
            if (n > 0)
                st = sbxi_exchange_put(x, x->data + x->data_at, n);
            x->data_at += n;
            if (x->data_at == x->data_len)
                x->part = SBXI_PART_AFTER;
            if (st == SBX_OK) {
                st = sbxi_exchange_moved(x, n, (int64_t)x->data_len, x->part == SBXI_PART_AFTER,
                                         err);
                if (st != SBX_OK)
                    return st;
            }
        } else {
            st = sbxi_exchange_put(x, x->after, strlen(x->after));
            if (st == SBX_OK && sbxi_exchange_chunked(x))
                st = sbxi_buffer_text(out, "0\r\n\r\n");
            x->part = SBXI_PART_END;
        }
    }
    return st == SBX_OK ? SBX_OK : sbxi_fail_memory(err);
}

/* SBX_OK: the whole request has left. */
static sbx_status sbxi_exchange_send(sbxi_exchange *x, sbx_error *err)
{
    int64_t end = sbxi_after(sbxi_now(x->client), SBXI_STEP_MS);
    int rounds;
    for (rounds = 0; rounds < 16 && sbxi_now(x->client) < end; rounds++) {
        size_t before = sbxi_buffer_len(&x->connection->out);
        sbx_status st = sbxi_connection_flush(x->connection, err);
        x->dry_until = 0;
        if (sbxi_buffer_len(&x->connection->out) < before) {
            x->sent = 1;
            x->idle_deadline = sbxi_after(sbxi_now(x->client), x->idle_ms);
        }
        if (st != SBX_OK || x->part == SBXI_PART_END)
            return st;
        st = sbxi_exchange_fill(x, err);
        if (st == SBX_AGAIN && sbxi_buffer_len(&x->connection->out) == 0)
            x->dry_until = sbxi_after(sbxi_now(x->client), 50);
        if (x->dry_until || (st != SBX_OK && st != SBX_AGAIN))
            return st;
    }
    x->busy = 1;
    return SBX_AGAIN;
}

/* ---- receiving ---- */

static void sbxi_exchange_response_header(sbxi_exchange *x, const sbx_http1_event *e)
{
    if (sbxi_equal_nocase(e->name, e->name_len, "Retry-After")) {
        uint64_t seconds;
        int64_t date;
        size_t digits = 0;
        while (digits < e->value_len && e->value[digits] >= '0' && e->value[digits] <= '9')
            digits++;
        if (digits > 0 && digits == e->value_len)
            x->retry_after_ms = sbxi_parse_uint(e->value, digits, &seconds) && seconds < 86400
                                    ? (int64_t)seconds * 1000
                                    : 86400000;
        else if (sbxi_parse_http_date(e->value, e->value_len, &date) && sbxi_wall(x->client) > 0)
            x->retry_after_ms = date > sbxi_wall(x->client) ? date - sbxi_wall(x->client) : 0;
    }
#ifndef SBX_NO_WEBSOCKET
    if (x->upgrade_key) {
        char accept[29];
        if (sbxi_equal_nocase(e->name, e->name_len, "Sec-WebSocket-Accept")) {
            sbx_ws_accept(x->upgrade_key, strlen(x->upgrade_key), accept);
            x->accept_ok = e->value_len == 28 && memcmp(e->value, accept, 28) == 0;
        } else if (sbxi_equal_nocase(e->name, e->name_len, "Upgrade"))
            x->upgrade_named |= sbx_http1_has_token(e->value, e->value_len, "websocket");
        else if (sbxi_equal_nocase(e->name, e->name_len, "Connection"))
            x->upgrade_connected |= sbx_http1_has_token(e->value, e->value_len, "upgrade");
        else if (sbxi_equal_nocase(e->name, e->name_len, "Sec-WebSocket-Extensions") ||
                 sbxi_equal_nocase(e->name, e->name_len, "Sec-WebSocket-Protocol"))
            x->upgrade_unasked = 1;
    }
#endif
}

static sbx_status sbxi_exchange_body(sbxi_exchange *x, const sbx_http1_event *e, sbx_error *err)
{
    int success = x->status >= 200 && x->status < 300 && !x->upgrade_key;
    size_t enough = x->upgrade_key ? SBXI_MAX_UPGRADE_BODY : SBXI_MAX_ERROR_BODY;
    sbx_status st;
    if (success && x->sink) {
        x->sink_used = 1;
        if (x->sink(x->user, e->data, e->len) != 0)
            return sbxi_fail(err, SBX_E_ABORTED, "the sink callback ended the transfer");
        x->idle_deadline = sbxi_after(sbxi_now(x->client), x->idle_ms);
        return sbxi_exchange_moved(x, e->len, x->content_length, 0, err);
    }
    if (enough > x->max_answer)
        enough = x->max_answer;
    if (!success && e->len > enough - sbxi_buffer_len(&x->answer)) {
        /* Enough to know what is wrong; the rest is not waited for. */
        st = sbxi_buffer_append(&x->answer, e->data, enough - sbxi_buffer_len(&x->answer));
        return st == SBX_OK ? SBX_END : sbxi_fail_memory(err);
    }
    if (e->len > x->max_answer - sbxi_buffer_len(&x->answer))
        st = SBX_E_TOO_BIG;
    else
        st = sbxi_buffer_append(&x->answer, e->data, e->len);
    if (st == SBX_E_TOO_BIG)
        return sbxi_fail(err, st, "the response to %s %s is longer than %l bytes (max_body)",
                         x->method, x->to.target, (int64_t)x->max_answer);
    if (st != SBX_OK)
        return sbxi_fail_memory(err);
    return success && !x->has_body ? sbxi_exchange_moved(x, e->len, x->content_length, 0, err)
                                   : SBX_OK;
}

/* SBX_AGAIN: go on. SBX_OK: the response is complete. SBX_END: complete enough. */
static sbx_status sbxi_exchange_event(sbxi_exchange *x, const sbx_http1_event *e, sbx_error *err)
{
    sbx_status st;
    switch (e->type) {
    case SBX_HTTP1_START:
        x->status = e->status;
        x->retry_after_ms = SBX_NONE;
        return SBX_AGAIN;
    case SBX_HTTP1_HEADER:
        sbxi_exchange_response_header(x, e);
        return SBX_AGAIN;
    case SBX_HTTP1_HEAD_END:
        x->content_length = e->content_length;
        x->head_read = 1;
        if (x->upgrade_key && x->status != 101) {
            /* What is said besides must come soon, or go without. */
            int64_t soon = sbxi_after(sbxi_now(x->client), SBXI_REFUSAL_MS);
            x->attempt_deadline = soon < x->attempt_deadline ? soon : x->attempt_deadline;
        }
        return SBX_AGAIN;
    case SBX_HTTP1_BODY:
        st = sbxi_exchange_body(x, e, err);
        return st == SBX_OK ? SBX_AGAIN : st;
    case SBX_HTTP1_MESSAGE_END:
        if (!x->has_body && x->status >= 200 && x->status < 300)
            return sbxi_exchange_moved(x, 0, x->content_length, 1, err);
        return SBX_OK;
    default:
        return SBX_AGAIN;
    }
}

static sbx_status sbxi_exchange_ended(sbxi_exchange *x, sbx_error *err)
{
    sbx_http1_event e;
    sbx_status st = x->received ? sbx_http1_finish(&x->http, &e) : SBX_END;
    while (st == SBX_OK) {
        st = sbxi_exchange_event(x, &e, err);
        if (st != SBX_AGAIN)
            return st;
        st = sbx_http1_finish(&x->http, &e);
    }
    return sbxi_fail(err, SBX_E_CONNECTION, "%s closed the connection %s %s %s", x->to.host,
                     x->received ? "in the middle of the response to" : "without a response to",
                     x->method, x->to.target);
}

/* SBX_OK: the response is complete. */
static sbx_status sbxi_exchange_receive(sbxi_exchange *x, sbx_error *err)
{
    sbxi_buffer *in = &x->connection->in;
    int64_t end = sbxi_after(sbxi_now(x->client), SBXI_STEP_MS);
    int rounds;
    for (rounds = 0; rounds < 16 && sbxi_now(x->client) < end; rounds++) {
        sbx_status st = sbxi_connection_fill(x->connection, err);
        if (st == SBX_END)
            return sbxi_exchange_ended(x, err);
        if (st != SBX_OK)
            return st;
        x->idle_deadline = sbxi_after(sbxi_now(x->client), x->idle_ms);
        if (!x->received) {
            x->received = 1;
            sbx_http1_init(&x->http, SBX_HTTP1_RESPONSE, x->connection->scratch, SBXI_MAX_LINE);
        }
        for (;;) {
            sbx_http1_event e;
            size_t used = 0;
            st = sbx_http1_read(&x->http, sbxi_buffer_data(in), sbxi_buffer_len(in), &used, &e);
            sbxi_buffer_consume(in, used);
            if (st == SBX_AGAIN)
                break;
            if (st != SBX_OK)
                return sbxi_fail(err, st == SBX_E_TOO_BIG ? st : SBX_E_PROTOCOL,
                                 "%s port %d does not answer in HTTP as it should: %s", x->to.host,
                                 (int)x->to.port, x->http.problem ? x->http.problem : "");
            st = sbxi_exchange_event(x, &e, err);
            if (st != SBX_AGAIN)
                return st;
        }
    }
    x->busy = 1;
    return SBX_AGAIN;
}

/* ---- attempts ---- */

static void sbxi_exchange_drop(sbxi_exchange *x)
{
    sbxi_connection_close(x->connection);
    x->connection = NULL;
}

static sbx_status sbxi_exchange_begin(sbxi_exchange *x, int64_t now, sbx_error *err)
{
    sbx_status st = SBX_OK;
    sbxi_exchange_drop(x);
    sbxi_buffer_free(&x->answer);
    x->part = x->has_body ? SBXI_PART_BEFORE : SBXI_PART_END;
    x->data_at = 0;
    x->dry_until = 0;
    x->source_left = x->source_size;
    x->moved = x->moved_told = 0;
    x->sent = x->received = x->head_read = x->status = 0;
    x->write_failed = SBX_OK;
    x->upgrade_named = x->upgrade_connected = x->accept_ok = x->upgrade_unasked = 0;
    x->retry_after_ms = SBX_NONE;
    x->attempt_deadline = sbxi_after(now, x->limit_ms);
    x->idle_deadline = sbxi_after(now, x->idle_ms);
    x->attempts++;
    if (!(x->flags & SBXI_FRESH) && !x->stale)
        x->connection = sbxi_pool_take(x->client, &x->to);
    if (!x->connection)
        st = sbxi_connection_dial(x->client, &x->to, &x->connection, err);
    x->state = SBXI_EXCHANGE_CONNECT;
    return st;
}

/* Milliseconds between 0 and 1000. */
static int64_t sbxi_jitter(sbx_client *client)
{
    unsigned char random[2] = {0, 0};
    (void)sbxi_random(client, random, sizeof(random), NULL);
    return (random[0] * 256 + random[1]) % 1001;
}

static void sbxi_exchange_sleep(sbxi_exchange *x, int64_t now, int64_t delay_ms, const char *why)
{
    sbxi_log(x->client, SBX_LOG_INFO, "%s %s: %s, attempt %d, next one in %l ms", x->method,
             x->to.target, why, x->attempts, delay_ms);
    sbxi_exchange_drop(x);
    x->wake = sbxi_after(now, delay_ms);
    if (x->wake > x->pause_end)
        x->wake = x->pause_end;
    x->state = SBXI_EXCHANGE_BACKOFF;
}

static int64_t sbxi_exchange_backoff(const sbxi_exchange *x)
{
    int64_t delay =
        x->attempts > 4 ? 10000 : ((int64_t)1000 << (x->attempts - 1)) + sbxi_jitter(x->client);
    return delay < 10000 ? delay : 10000;
}

static int sbxi_exchange_may_repeat(const sbxi_exchange *x)
{
    return !(x->flags & SBXI_SINGLE) && !x->source_used && !x->sink_used;
}

/* After a failed attempt: 1 if there will be another one. */
static int sbxi_exchange_failed(sbxi_exchange *x, sbx_status st, int64_t now)
{
    int connecting = x->state != SBXI_EXCHANGE_TRANSFER;
    int idempotent = (x->flags & SBXI_IDEMPOTENT) != 0;
    if (!sbxi_exchange_may_repeat(x))
        return 0;
    if (x->connection && x->connection->reused && !x->received && st == SBX_E_CONNECTION &&
        (idempotent || !x->sent)) {
        /* The server had closed an idle connection just before it was used again. */
        sbxi_exchange_drop(x);
        x->maybe_done |= x->sent;
        x->stale = 1;
        x->attempts--;
        x->state = SBXI_EXCHANGE_BEGIN;
        return 1;
    }
    if (x->attempts > x->client->max_retries)
        return 0;
    x->maybe_done |= x->sent;
    if (connecting ? st != SBX_E_CONNECTION && st != SBX_E_CONNECT && st != SBX_E_RESOLVE
                   : st != SBX_E_CONNECTION || !idempotent)
        return 0;
    sbxi_exchange_sleep(x, now, sbxi_exchange_backoff(x), sbx_status_name(st));
    return 1;
}

/* After a complete response: 1 if there will be another attempt. */
static int sbxi_exchange_refused(sbxi_exchange *x, int64_t now)
{
    int64_t wait_ms;
    if (!sbxi_exchange_may_repeat(x) || x->attempts > x->client->max_retries)
        return 0;
    if ((x->flags & SBXI_UNSENT) && x->status != 429)
        return 0;
    if (x->status == 502 || x->status == 503 || x->status == 504) {
        x->maybe_done |= x->status != 503;
        sbxi_exchange_sleep(x, now, sbxi_exchange_backoff(x), "the service is not available");
        return 1;
    }
    if (x->status != 429)
        return 0;
    wait_ms = x->retry_after_ms < 0 ? 1000 : x->retry_after_ms;
    if (wait_ms > 60000)
        return 0; /* longer than anybody wants to wait without being told */
    wait_ms = (wait_ms << (x->attempts < 8 ? x->attempts - 1 : 7)) + sbxi_jitter(x->client);
    if (wait_ms > 60000)
        wait_ms = 60000;
    sbxi_exchange_sleep(x, now, wait_ms, "too many requests");
    return 1;
}

/* The response is complete: the connection goes to the pool, or stays here after an upgrade. */
static void sbxi_exchange_complete(sbxi_exchange *x, int whole)
{
    if (!(x->status == 101 && x->upgrade_key)) {
        if (whole && x->part == SBXI_PART_END && !x->write_failed && !(x->flags & SBXI_FRESH) &&
            sbxi_buffer_len(&x->connection->out) == 0 && sbx_http1_keep_alive(&x->http))
            sbxi_pool_give(x->client, x->connection);
        else
            sbxi_connection_close(x->connection);
        x->connection = NULL;
    }
    x->state = SBXI_EXCHANGE_DONE;
}

/* Sends and receives as far as it goes. */
static sbx_status sbxi_exchange_transfer(sbxi_exchange *x, sbx_error *err)
{
    sbx_status st;
    if (!x->write_failed) {
        st = sbxi_exchange_send(x, err);
        if (x->connection->broken)
            x->write_failed = st;
        else if (st != SBX_OK && st != SBX_AGAIN)
            return st; /* the caller's own callback, or memory */
    }
    st = sbxi_exchange_receive(x, x->write_failed ? NULL : err);
    if (x->write_failed && st != SBX_OK && st != SBX_END && !x->busy)
        return x->write_failed; /* there is no answer either; err says why writing failed */
    return st;
}

static sbx_status sbxi_exchange_timed_out(sbxi_exchange *x, sbx_error *err)
{
    int64_t limit = x->idle_ms >= 0 ? x->idle_ms : x->limit_ms;
    if (x->state == SBXI_EXCHANGE_CONNECT)
        return sbxi_fail(err, SBX_E_CONNECT, "%s port %d did not accept a connection within %l ms",
                         x->to.host, (int)x->to.port, limit);
    return sbxi_fail(err, SBX_E_TIMEOUT,
                     x->idle_ms >= 0 ? "%s %s: nothing moved for %l ms"
                                     : "%s %s took longer than %l ms",
                     x->method, x->to.target, limit);
}

/* One pass through the attempt. SBX_OK: a complete response; SBX_AGAIN: wait. */
static sbx_status sbxi_exchange_attempt(sbxi_exchange *x, int64_t now, sbx_error *err)
{
    sbx_status st = SBX_OK;
    if (x->state == SBXI_EXCHANGE_BEGIN)
        st = sbxi_exchange_begin(x, now, err);
    if (st == SBX_OK && x->state == SBXI_EXCHANGE_CONNECT) {
        st = sbxi_connection_step(x->connection, err);
        if (st == SBX_OK) {
            x->state = SBXI_EXCHANGE_TRANSFER;
            if (sbxi_exchange_head(x) != SBX_OK)
                return sbxi_fail_memory(err);
        }
    }
    if (st == SBX_OK)
        st = sbxi_exchange_transfer(x, err);
    now = sbxi_now(x->client); /* callbacks may have taken their time */
    if (st == SBX_AGAIN && (now >= x->attempt_deadline || now >= x->idle_deadline))
        st = sbxi_exchange_timed_out(x, err);
    return st;
}

/* SBX_OK: x->status and x->answer hold a complete response of any status. SBX_AGAIN: see wants. */
static sbx_status sbxi_exchange_step(sbxi_exchange *x, int64_t now, sbx_error *err)
{
    sbx_status st;
    x->busy = 0;
    if (x->state == SBXI_EXCHANGE_BACKOFF) {
        if (now < x->wake)
            return SBX_AGAIN;
        x->state = SBXI_EXCHANGE_BEGIN;
    }
    st = sbxi_exchange_attempt(x, now, err);
    if (st == SBX_AGAIN)
        return SBX_AGAIN;
    if (x->head_read && (x->status < 200 || x->status > 299 || x->upgrade_key) &&
        (st == SBX_E_TIMEOUT || sbx_status_is(st, SBX_E_CONNECTION)))
        st = SBX_END; /* the head of a refusal says enough, should its body break off */
    if (st == SBX_OK && x->status >= 200 && x->status < 300 &&
        (x->part != SBXI_PART_END || sbxi_buffer_len(&x->connection->out) || x->write_failed))
        st = sbxi_fail(err, SBX_E_PROTOCOL, "%s answered %s %s before it had all of the request",
                       x->to.host, x->method, x->to.target);
    if (st == SBX_OK || st == SBX_END) {
        sbxi_exchange_complete(x, st == SBX_OK);
        return sbxi_exchange_refused(x, now) ? SBX_AGAIN : SBX_OK;
    }
    if (sbxi_exchange_failed(x, st, now)) {
        x->busy = x->state == SBXI_EXCHANGE_BEGIN;
        return SBX_AGAIN;
    }
    sbxi_exchange_drop(x);
    if (err) {
        err->attempts = x->attempts;
        if (x->attempts > 1) {
            size_t at = strlen(err->message);
            (void)sbxi_format(err->message + at, sizeof(err->message) - at, " (tried %d times)",
                              x->attempts);
        }
    }
    return st;
}

#if !defined(SBX_NO_CONTROL) || !defined(SBX_NO_WEBSOCKET)
/* Makes the same request once more, at a later time, as if it were the first one. */
static void sbxi_exchange_again(sbxi_exchange *x, int64_t at)
{
    x->state = SBXI_EXCHANGE_BACKOFF;
    x->wake = at;
    x->attempts = x->stale = 0;
}
#endif

static int sbxi_exchange_wants(sbxi_exchange *x, sbx_item *items, int cap, int64_t *wake)
{
    unsigned want = SBX_READ;
    int64_t at = x->attempt_deadline < x->idle_deadline ? x->attempt_deadline : x->idle_deadline;
    int64_t sleep_ms = SBX_NONE;
    int n = 0;
    if (x->state == SBXI_EXCHANGE_BACKOFF)
        at = x->wake;
    if (x->busy)
        at = 0;
    if (x->connection && x->state != SBXI_EXCHANGE_BACKOFF) {
        if (x->dry_until)
            at = x->dry_until < at ? x->dry_until : at;
        else if (!x->write_failed &&
                 (x->part != SBXI_PART_END || sbxi_buffer_len(&x->connection->out)))
            want |= SBX_WRITE;
        n = sbxi_connection_wants(x->connection, want, items, cap, &sleep_ms);
        if (sleep_ms >= 0 && sbxi_after(sbxi_now(x->client), sleep_ms) < at)
            at = sbxi_after(sbxi_now(x->client), sleep_ms);
    }
    if (at < *wake)
        *wake = at;
    return n;
}

/* ==== src/op.c ================================================================================ */

/* op: the life that all operations share: start, step, wants, wait, cancel, free.

   Promises: an outcome is final; a deadline and a cancellation end any operation at the next step,
   whatever it waits for. The blocking loop here is the only one. */

/* Flags that other threads and signal handlers set. Where the compiler has atomics they are used;
   elsewhere a volatile int has to do, as for any signal handler. */
static void sbxi_flag_set(volatile int *flag)
{
#if defined(__GNUC__)
    __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
#else
    *flag = 1;
#endif
}

static int sbxi_flag_get(volatile int *flag)
{
#if defined(__GNUC__)
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
#else
    return *flag;
#endif
}

#ifndef SBX_NO_WEBSOCKET
static void sbxi_flag_clear(volatile int *flag)
{
#if defined(__GNUC__)
    __atomic_store_n(flag, 0, __ATOMIC_RELEASE);
#else
    *flag = 0;
#endif
}
#endif

static void sbxi_wakeup(const sbx_client *client)
{
    if (client->transport->wakeup)
        client->transport->wakeup(client->state);
}

SBX_API void sbx_cancel_set(sbx_client *client, sbx_cancel *cancel)
{
    if (cancel)
        sbxi_flag_set(&cancel->set);
    if (client)
        sbxi_wakeup(client);
}

SBX_API void sbx_op_cancel(sbx_op *op)
{
    if (!op)
        return;
    sbxi_flag_set(&op->own_cancel.set);
    sbxi_wakeup(op->client);
}

/* A new operation of the type, all zero but for the common part. default_ms is the limit where the
   call names none. */
static sbx_status sbxi_op_new(sbx_client *client, const sbxi_op_type *type, const sbx_call *call,
                              int64_t default_ms, sbx_op **out, sbx_error *err)
{
    int64_t limit = call ? call->timeout_ms : 0;
    sbx_op *op;
    *out = NULL;
    if (limit < SBX_NONE)
        return sbxi_fail_argument(err, "timeout_ms", "must be 0, SBX_NONE or positive");
    op = (sbx_op *)sbxi_alloc(&client->memory, type->size);
    if (!op)
        return sbxi_fail_memory(err);
    memset(op, 0, type->size);
    op->type = type;
    op->client = client;
    op->status = SBX_AGAIN;
    op->cancel = call ? call->cancel : NULL;
    op->limit_ms = limit ? limit : default_ms;
    op->deadline = sbxi_after(sbxi_now(client), op->limit_ms);
    sbxi_error_clear(&op->error);
    *out = op;
    return SBX_OK;
}

static sbx_status sbxi_op_timed_out(sbx_op *op)
{
    char last[256];
    int http_status = op->error.http_status;
    sbxi_copy(last, sizeof(last), op->error.message, strlen(op->error.message));
    (void)sbxi_fail(&op->error, SBX_E_TIMEOUT, "the call did not end within %l ms%s%s",
                    op->limit_ms, *last ? "; the last attempt failed: " : "", last);
    op->error.http_status = http_status;
    return SBX_E_TIMEOUT;
}

/* 1 if the caller has something to fetch. */
static int sbxi_op_pending(const sbx_op *op)
{
    return op->type->pending && op->type->pending(op);
}

static sbx_status sbxi_op_advance(sbx_op *op)
{
    sbx_status st;
    if (op->status != SBX_AGAIN)
        return op->status;
    if (sbxi_flag_get(&op->own_cancel.set) || (op->cancel && sbxi_flag_get(&op->cancel->set)))
        st = sbxi_fail(&op->error, SBX_E_CANCELLED, "the call was cancelled");
    else if (op->type->pending && !sbxi_op_pending(op) && sbxi_now(op->client) >= op->deadline)
        st = sbxi_op_timed_out(op); /* before the step, which may always have something to give */
    else
        st = op->type->step(op);
    if (st == SBX_AGAIN && !sbxi_op_pending(op) && sbxi_now(op->client) >= op->deadline)
        st = sbxi_op_timed_out(op);
    if (st < 0 && !op->error.attempts)
        op->error.attempts = op->attempts;
    if (st < 0)
        sbxi_error_redact(&op->error, op->client->api_key);
    op->status = st;
    if (st != SBX_AGAIN && op->type->over)
        op->type->over(op);
    return st;
}

SBX_API sbx_status sbx_op_step(sbx_op *op, sbx_error *err)
{
    sbx_status st;
    if (!op)
        return sbxi_fail_argument(err, "op", "is NULL");
    if (op->stepping)
        return sbxi_fail(err, SBX_E_ARGUMENT,
                         "an operation cannot be stepped from its own callback");
    op->stepping = 1;
    st = sbxi_op_advance(op);
    op->stepping = 0;
    if (err) {
        if (st < 0)
            *err = op->error;
        else
            sbxi_error_clear(err);
    }
    return st == SBX_AGAIN && sbxi_op_pending(op) ? SBX_OK : st;
}

SBX_API int sbx_op_wants(sbx_op *op, sbx_item *items, int cap, int64_t *timeout_ms)
{
    int64_t now, wake;
    int n = 0;
    *timeout_ms = 0;
    if (!op)
        return 0;
    now = sbxi_now(op->client);
    wake = op->deadline;
    if (op->status != SBX_AGAIN || sbxi_op_pending(op))
        wake = now;
    else
        n = op->type->wants(op, items, cap, &wake);
    *timeout_ms = wake == SBXI_FOREVER ? SBX_NONE : wake > now ? wake - now : 0;
    if (!op->client->transport->wakeup && (*timeout_ms < 0 || *timeout_ms > 100))
        *timeout_ms = 100; /* nothing else would make it see a cancellation */
    return n;
}

/* Steps all operations once. SBX_AGAIN, or what the first of those that are over says. */
static sbx_status sbxi_step_all(sbx_op *const *ops, int n, sbx_error *err)
{
    sbx_status first = SBX_AGAIN;
    int i;
    for (i = 0; i < n; i++) {
        sbx_status st = sbx_op_step(ops[i], first == SBX_AGAIN ? err : NULL);
        first = first == SBX_AGAIN ? st : first;
    }
    return first;
}

/* Steps n operations until one is over or the time is up. items has room for what all want. */
static sbx_status sbxi_wait_loop(sbx_op *const *ops, int n, sbx_item *items, int64_t timeout_ms,
                                 sbx_error *err)
{
    sbx_client *client = ops[0]->client;
    int64_t end = sbxi_after(sbxi_now(client), timeout_ms);
    for (;;) {
        int64_t sleep_ms, least;
        int i, count = 0;
        sbx_status st = sbxi_step_all(ops, n, err);
        if (st != SBX_AGAIN)
            return st;
        least = end == SBXI_FOREVER ? SBX_NONE : end - sbxi_now(client);
        if (end != SBXI_FOREVER && least <= 0)
            return SBX_AGAIN;
        for (i = 0; i < n; i++) {
            count += sbx_op_wants(ops[i], items + count, SBX_ITEMS, &sleep_ms);
            if (sleep_ms >= 0 && (least < 0 || sleep_ms < least))
                least = sleep_ms;
        }
        if (!client->transport->wait)
            return sbxi_fail(err, SBX_E_UNSUPPORTED,
                             "this transport cannot wait: drive the operation by sbx_op_step");
        st = client->transport->wait(client->state, items, count, least);
        if (st != SBX_OK && st != SBX_AGAIN)
            return sbxi_fail(err, st, "the transport ended the wait: %s", sbx_status_name(st));
    }
}

static sbx_status sbxi_wait_any(sbx_op *const *ops, int n, int64_t timeout_ms, sbx_error *err)
{
    const sbx_allocator *memory = &ops[0]->client->memory;
    sbx_item few[4 * SBX_ITEMS], *many;
    size_t size = (size_t)n * SBX_ITEMS * sizeof(*many);
    sbx_status st;
    if (size <= sizeof(few))
        return sbxi_wait_loop(ops, n, few, timeout_ms, err);
    many = (sbx_item *)sbxi_alloc(memory, size);
    if (!many)
        return sbxi_fail_memory(err);
    st = sbxi_wait_loop(ops, n, many, timeout_ms, err);
    sbxi_release(memory, many, size);
    return st;
}

SBX_API sbx_status sbx_op_wait(sbx_op *op, int64_t timeout_ms, sbx_error *err)
{
    if (!op)
        return sbxi_fail_argument(err, "op", "is NULL");
    if (timeout_ms < SBX_NONE)
        return sbxi_fail_argument(err, "timeout_ms", "must be SBX_NONE, 0 or positive");
    return sbxi_wait_any(&op, 1, timeout_ms, err);
}

SBX_API sbx_status sbx_wait(sbx_op *const *ops, int n, int64_t timeout_ms, sbx_error *err)
{
    sbx_status st;
    int i;
    if (!ops || n < 1 || n > SBXI_MAX_WAIT)
        return sbxi_fail_argument(err, "ops", "must be 1 to 1,024 operations");
    if (timeout_ms < SBX_NONE)
        return sbxi_fail_argument(err, "timeout_ms", "must be SBX_NONE, 0 or positive");
    for (i = 0; i < n; i++)
        if (!ops[i] || ops[i]->client != ops[0]->client)
            return sbxi_fail_argument(err, "ops", "must be operations of one client");
    st = sbxi_wait_any(ops, n, timeout_ms, err);
    for (i = 0; st != SBX_AGAIN && i < n; i++) {
        /* One of them is over, well or not: that is what was asked for. */
        if (ops[i]->status != SBX_AGAIN || sbxi_op_pending(ops[i])) {
            sbxi_error_clear(err);
            return SBX_OK;
        }
    }
    return st;
}

SBX_API void sbx_op_free(sbx_op *op)
{
    if (op && !op->stepping) {
        sbx_client *client = op->client;
        size_t size = op->type->size;
        op->type->dispose(op);
        sbxi_release(&client->memory, op, size);
    }
}

/* What a blocking call is: the outcome of starting *op, then waiting for it, then freeing it. */
static sbx_status sbxi_op_finish(sbx_status started, sbx_op **op, sbx_error *err)
{
    if (started != SBX_OK)
        return started;
    started = sbx_op_wait(*op, SBX_NONE, err);
    sbx_op_free(*op);
    return started;
}

/* ==== src/response.c ========================================================================== */

/* response: what the body of a response means: JSON objects become structs, error bodies an
   sbx_error.

   Promises: unknown members are ignored, absent and null ones take defaults, a known member of the
   wrong type is an error that names it; an error body of whatever kind gives a usable error. The
   body is read twice, once to count and once to fill one block. May call exchange and the JSON
   codec. */

/* ---- walking through a document ---- */

/* The path of a value is made of the keys that lead to it, with a point between, and [] for the
   elements of an array: "sandboxes[].name". A key that is too long, empty, or looks like a path
   counts as "?". */
typedef struct sbxi_walk {
    sbx_json json;
    const char *body;
    size_t len, at;
    size_t
        base[SBX_JSON_DEPTH + 2]; /* the length of the path of the container, by depth of value */
    int entered;                  /* the last event was the beginning of an array */
    int in_key;                   /* and a key that came in pieces is not complete */
    char path[96];
} sbxi_walk;

static void sbxi_walk_init(sbxi_walk *w, const char *body, size_t len, char *scratch, size_t cap)
{
    w->body = body;
    w->len = len;
    w->at = 0;
    w->path[0] = 0;
    w->base[0] = 0;
    w->entered = w->in_key = 0;
    sbx_json_init(&w->json, scratch, cap);
}

static void sbxi_walk_key(sbxi_walk *w, const sbx_json_event *e)
{
    size_t at = w->base[e->depth], len = e->len, i;
    const char *text = e->text;
    int odd = len == 0 || len > 40 || e->partial || w->in_key;
    for (i = 0; !odd && i < len; i++)
        odd = !text[i] || text[i] == '.' || text[i] == '[';
    w->in_key = e->partial;
    if (odd) {
        text = "?";
        len = 1;
    }
    if (at + 1 + len + 3 > sizeof(w->path))
        return; /* deeper than anything we know of: never equal to a known path */
    if (at > 0)
        w->path[at++] = '.';
    memcpy(w->path + at, text, len);
    w->path[at + len] = 0;
}

/* SBX_OK: a scalar, or the beginning of an array or object, whose path is w->path. SBX_END: the
   document is complete. Texts longer than the scratch come in pieces, as the reader gives them. */
static sbx_status sbxi_walk_next(sbxi_walk *w, sbx_json_event *e)
{
    if (w->entered && strlen(w->path) + 3 <= sizeof(w->path))
        memcpy(w->path + strlen(w->path), "[]", 3);
    w->entered = 0;
    for (;;) {
        size_t used = 0;
        sbx_status st = sbx_json_read(&w->json, w->body + w->at, w->len - w->at, &used, e);
        w->at += used;
        if (st == SBX_AGAIN)
            st = sbx_json_finish(&w->json, e);
        if (st != SBX_OK)
            return st;
        switch (e->type) {
        case SBX_JSON_KEY:
            sbxi_walk_key(w, e);
            break;
        case SBX_JSON_ARRAY:
            w->entered = 1;
            w->base[e->depth + 1] =
                strlen(w->path) + (strlen(w->path) + 3 <= sizeof(w->path) ? 2 : 0);
            return SBX_OK;
        case SBX_JSON_OBJECT:
            w->base[e->depth + 1] = strlen(w->path);
            return SBX_OK;
        case SBX_JSON_ARRAY_END:
        case SBX_JSON_OBJECT_END:
            w->path[w->base[e->depth]] = 0;
            break;
        default:
            return SBX_OK;
        }
    }
}

/* ---- structs from objects ---- */

/* What a member becomes; what it is if it is absent. */
typedef enum sbxi_kind {
    SBXI_TEXT,   /* a const char *; "" */
    SBXI_BYTES,  /* a const char * with a size_t behind it; "" */
    SBXI_INT,    /* an int; -1 */
    SBXI_SIZE,   /* an int64_t; 0 */
    SBXI_SECONDS /* an int64_t in milliseconds, SBX_NONE where the service says 0; 0 */
} sbxi_kind;

/* A member of the document and where it goes. */
typedef struct sbxi_field {
    const char *path; /* below the item */
    sbxi_kind kind;
    size_t offset;
} sbxi_field;

/* A struct to be filled. inner are items inside it. */
typedef struct sbxi_record {
    size_t size;
    const sbxi_field *fields;
    int field_count;
    const char *inner; /* "volume_mounts[]", or NULL */
    size_t inner_size, inner_offset, inner_count_offset;
    const sbxi_field *inner_fields;
    int inner_field_count;
} sbxi_record;

/* Sets what absent members are; all of the item is zero before. */
static void sbxi_field_defaults(char *item, const sbxi_field *fields, int count)
{
    static const char *const empty = "";
    static const int none = -1;
    int i;
    for (i = 0; i < count; i++) {
        if (fields[i].kind == SBXI_INT)
            memcpy(item + fields[i].offset, &none, sizeof(none));
        else if (fields[i].kind == SBXI_TEXT || fields[i].kind == SBXI_BYTES)
            memcpy(item + fields[i].offset, &empty, sizeof(empty));
    }
}

/* What follows prefix in path, without the point between; NULL if path lies elsewhere. */
static const char *sbxi_below(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);
    if (strncmp(path, prefix, len) != 0)
        return NULL;
    return path[len] == '.' && len ? path + len + 1 : path + len;
}

static sbx_status sbxi_fail_type(sbx_error *err, const char *path, const char *expected)
{
    return sbxi_fail(err, SBX_E_PROTOCOL, "the service's response cannot be used: \"%s\" is not %s",
                     path, expected);
}

static sbx_status sbxi_store_number(const sbxi_walk *w, const sbx_json_event *e, char *item,
                                    const sbxi_field *field, sbx_error *err)
{
    int64_t value = e->integer;
    int small = (int)value;
    if (e->type != SBX_JSON_INTEGER)
        return sbxi_fail_type(err, w->path, "a whole number");
    if (field->kind == SBXI_INT) {
        if (small != value)
            return sbxi_fail_type(err, w->path, "a number that fits");
        memcpy(item + field->offset, &small, sizeof(small));
        return SBX_OK;
    }
    if (field->kind == SBXI_SECONDS)
        value = value <= 0 ? SBX_NONE : value < INT64_MAX / 1000 ? value * 1000 : INT64_MAX;
    memcpy(item + field->offset, &value, sizeof(value));
    return SBX_OK;
}

/* Stores a value; texts go to the block's end, which the reader uses as its scratch. */
static sbx_status sbxi_store(sbxi_walk *w, const sbx_json_event *e, char *item,
                             const sbxi_field *field, sbx_error *err)
{
    char *text = w->json.scratch;
    const char *known;
    if (e->type == SBX_JSON_NULL)
        return SBX_OK;
    if (field->kind != SBXI_TEXT && field->kind != SBXI_BYTES)
        return sbxi_store_number(w, e, item, field, err);
    if (e->type != SBX_JSON_STRING)
        return sbxi_fail_type(err, w->path, "a string");
    memmove(text, e->text, e->len);
    text[e->len] = 0;
    w->json.scratch += e->len + 1;
    w->json.cap -= e->len + 1;
    known = text;
    memcpy(item + field->offset, &known, sizeof(known));
    if (field->kind == SBXI_BYTES)
        memcpy(item + field->offset + sizeof(known), &e->len, sizeof(e->len));
    return SBX_OK;
}

static const sbxi_field *sbxi_field_find(const sbxi_field *fields, int count, const char *path)
{
    int i;
    for (i = 0; i < count; i++)
        if (strcmp(fields[i].path, path) == 0)
            return &fields[i];
    return NULL;
}

/* The block while it is filled; items is NULL in the pass that only counts. */
typedef struct sbxi_filling {
    const sbxi_record *record;
    const char *list; /* "sandboxes[]", or "" for a single object */
    char *items, *inner;
    size_t count, inner_count;
    size_t own; /* inner items of the last item */
} sbxi_filling;

static void sbxi_filling_begin(sbxi_filling *f, int inside)
{
    const sbxi_record *r = f->record;
    if (!inside) {
        f->own = 0;
        if (f->items)
            sbxi_field_defaults(f->items + f->count * r->size, r->fields, r->field_count);
        f->count++;
    } else if (f->count) {
        f->own++;
        f->inner_count++;
        if (f->items) {
            char *item = f->items + (f->count - 1) * r->size;
            const char *first = f->inner + (f->inner_count - f->own) * r->inner_size;
            sbxi_field_defaults(f->inner + (f->inner_count - 1) * r->inner_size, r->inner_fields,
                                r->inner_field_count);
            memcpy(item + r->inner_offset, &first, sizeof(first));
            memcpy(item + r->inner_count_offset, &f->own, sizeof(f->own));
        }
    }
}

static sbx_status sbxi_filling_store(sbxi_filling *f, sbxi_walk *w, const sbx_json_event *e,
                                     const char *path, int inside, sbx_error *err)
{
    const sbxi_record *r = f->record;
    const sbxi_field *field;
    char *item;
    if (!f->items || !f->count || (inside && !f->own))
        return SBX_OK;
    if (inside) {
        field = sbxi_field_find(r->inner_fields, r->inner_field_count, path);
        item = f->inner + (f->inner_count - 1) * r->inner_size;
    } else {
        field = sbxi_field_find(r->fields, r->field_count, path);
        item = f->items + (f->count - 1) * r->size;
    }
    return field ? sbxi_store(w, e, item, field, err) : SBX_OK;
}

/* What must stand at path so that known can be found there or below: an object '{', a list '[', or
   the value itself '"'; 0: known lies elsewhere. */
static char sbxi_expected(const char *known, const char *path)
{
    size_t len = strlen(path);
    if (strncmp(known, path, len) != 0)
        return 0;
    return known[len] == '.' ? '{' : known[len] == '[' ? '[' : known[len] ? 0 : '"';
}

/* The same for all that is to be filled; an item of a list is 'i', an object that cannot be null. */
static char sbxi_filling_expected(const sbxi_filling *f, const char *path)
{
    const sbxi_record *r = f->record;
    const char *below = sbxi_below(path, f->list), *deeper;
    char found = sbxi_expected(f->list, path);
    int i;
    if (!below || found)
        return found == '"' ? 'i' : found; /* an item of the list */
    deeper = r->inner ? sbxi_below(below, r->inner) : NULL;
    if (r->inner)
        found = sbxi_expected(r->inner, below);
    if (found)
        return found == '"' ? 'i' : found;
    for (i = 0; deeper && !found && i < r->inner_field_count; i++)
        found = sbxi_expected(r->inner_fields[i].path, deeper);
    for (i = 0; !deeper && !found && i < r->field_count; i++)
        found = sbxi_expected(r->fields[i].path, below);
    return found;
}

/* What should stand there instead of this event; NULL: it is all right, as far as can be said here.
   */
static const char *sbxi_filling_misfit(const sbxi_filling *f, const char *path,
                                       const sbx_json_event *e)
{
    char expected = sbxi_filling_expected(f, path);
    int container = e->type == SBX_JSON_OBJECT || e->type == SBX_JSON_ARRAY;
    if (e->depth == 0 || expected == 'i')
        return e->type == SBX_JSON_OBJECT ? NULL : "an object";
    if (e->type == SBX_JSON_NULL)
        return NULL;
    if (expected == '{')
        return e->type == SBX_JSON_OBJECT ? NULL : "an object";
    if (expected == '[')
        return e->type == SBX_JSON_ARRAY ? NULL : "a list";
    return expected == '"' && container ? "a plain value" : NULL;
}

/* One pass over the body. */
static sbx_status sbxi_filling_pass(sbxi_filling *f, sbxi_walk *w, sbx_error *err)
{
    sbx_json_event e;
    sbx_status st;
    f->count = f->inner_count = f->own = 0;
    while ((st = sbxi_walk_next(w, &e)) == SBX_OK) {
        const char *path = sbxi_below(w->path, f->list);
        const char *deeper = path && f->record->inner ? sbxi_below(path, f->record->inner) : NULL;
        const char *misfit = sbxi_filling_misfit(f, w->path, &e);
        if (misfit)
            return sbxi_fail_type(err, *w->path ? w->path : "the body", misfit);
        if (!path)
            continue;
        path = deeper ? deeper : path;
        if (e.type == SBX_JSON_OBJECT && !*path)
            sbxi_filling_begin(f, deeper != NULL);
        else if (e.type != SBX_JSON_OBJECT && e.type != SBX_JSON_ARRAY)
            st = sbxi_filling_store(f, w, &e, path, deeper != NULL, err);
        if (st != SBX_OK)
            return st;
    }
    if (st != SBX_END)
        return sbxi_fail(err, st, "the service's response is not JSON: %s at byte %l",
                         w->json.problem ? w->json.problem : "it was cut short",
                         (int64_t)w->json.offset);
    return SBX_OK;
}

/* Makes one object of head_size bytes, the items, their inner items and all their texts, and fills
   it from the body: from the objects at list ("sandboxes[]"), or from the body itself (list ""),
   which is then the one item. *items points behind the head. */
static sbx_status sbxi_decode(const sbx_client *client, const sbxi_buffer *body,
                              const sbxi_record *record, const char *list, size_t head_size,
                              void **out, char **items, size_t *count, sbx_error *err)
{
    const char *data = sbxi_buffer_len(body) ? sbxi_buffer_data(body) : "";
    size_t len = sbxi_buffer_len(body), size;
    char scratch[64];
    sbxi_walk walk;
    sbxi_filling filling;
    sbx_status st;
    char *block;
    memset(&filling, 0, sizeof(filling));
    filling.record = record;
    filling.list = list;
    *out = NULL;
    sbxi_walk_init(&walk, data, len, scratch, sizeof(scratch));
    st = sbxi_filling_pass(&filling, &walk, err);
    if (st != SBX_OK)
        return st;
    /* Each text is at least two bytes shorter than what it was read from, so len suffices, with
       the room that the reader asks for at least. */
    if (filling.count > SBXI_MAX_ITEMS || filling.inner_count > SBXI_MAX_ITEMS)
        return sbxi_fail(err, SBX_E_TOO_BIG, "the service's response has more than %d items",
                         SBXI_MAX_ITEMS);
    size = head_size + filling.count * record->size + filling.inner_count * record->inner_size;
    block = (char *)sbxi_object(&client->memory, size + len + 64);
    if (!block)
        return sbxi_fail_memory(err);
    filling.items = block + head_size;
    filling.inner = filling.items + filling.count * record->size;
    sbxi_walk_init(&walk, data, len, block + size, len + 64);
    st = sbxi_filling_pass(&filling, &walk, err);
    if (st != SBX_OK) {
        sbx_free(block);
        return st;
    }
    *out = block;
    *items = filling.items;
    *count = filling.count;
    return SBX_OK;
}

/* ---- errors of the service ---- */

typedef enum sbxi_action {
    SBXI_GET,
    SBXI_LIST,
    SBXI_CREATE,
    SBXI_UPDATE,
    SBXI_DELETE,
    SBXI_INSIDE, /* on the data plane */
    SBXI_UPGRADE
} sbxi_action;

/* Appends to the text in out[cap] what fits. */
static void sbxi_append(char *out, size_t cap, const char *text, size_t len)
{
    size_t at = strlen(out);
    if (at + 1 < cap)
        sbxi_copy(out + at, cap - at, text, len);
}

/* Where a member of an error body goes; NULL if nowhere. Sets *cap. */
static char *sbxi_error_member(sbx_error *err, const char *path, size_t *cap)
{
    int last = err->detail_count - 1;
    sbx_error_detail *d = last >= 0 && last < SBX_ERROR_DETAILS ? &err->details[last] : NULL;
    *cap = sizeof(err->message);
    if (strcmp(path, "detail") == 0 || strcmp(path, "detail.message") == 0)
        return err->message;
    *cap = sizeof(err->error_type);
    if (strcmp(path, "detail.error") == 0)
        return err->error_type;
    if (!d)
        return NULL;
    *cap = sizeof(d->field);
    if (strcmp(path, "detail[].loc[]") == 0)
        return d->field;
    *cap = sizeof(d->type);
    if (strcmp(path, "detail[].type") == 0)
        return d->type;
    *cap = sizeof(d->message);
    return strcmp(path, "detail[].msg") == 0 ? d->message : NULL;
}

/* Reads what it can of an error body into err, which is clear. Says whether any of the details,
   also of those that are not kept, has the type value_error. */
static int sbxi_error_body(const sbxi_buffer *body, sbx_error *err)
{
    char scratch[256], number[21];
    sbxi_walk walk;
    sbx_json_event e;
    int going_on = 0, value_error = 0;
    if (!sbxi_buffer_len(body))
        return 0;
    sbxi_walk_init(&walk, sbxi_buffer_data(body), sbxi_buffer_len(body), scratch, sizeof(scratch));
    while (sbxi_walk_next(&walk, &e) == SBX_OK) {
        size_t cap;
        char *to;
        if (e.type == SBX_JSON_OBJECT && strcmp(walk.path, "detail[]") == 0)
            err->detail_count++;
        to = sbxi_error_member(err, walk.path, &cap);
        if (e.type == SBX_JSON_INTEGER) {
            e.text = number;
            e.len = sbxi_decimal(number, e.integer);
        } else if (e.type != SBX_JSON_STRING) {
            continue;
        }
        if (!going_on && e.len == 11 && memcmp(e.text, "value_error", 11) == 0 &&
            strcmp(walk.path, "detail[].type") == 0)
            value_error = 1;
        if (to && !going_on)
            to[0] = 0;
        if (to)
            sbxi_append(to, cap, e.text, e.len);
        if (strcmp(walk.path, "detail[].msg") == 0) { /* of all of them, not only those kept */
            if (!going_on && *err->message)
                sbxi_append(err->message, sizeof(err->message), "; ", 2);
            sbxi_append(err->message, sizeof(err->message), e.text, e.len);
        }
        going_on = e.type == SBX_JSON_STRING && e.partial;
    }
    if (err->detail_count)
        sbxi_copy(err->field, sizeof(err->field), err->details[0].field,
                  strlen(err->details[0].field));
    return value_error;
}

/* 1 if text has word, which is in lower case, whatever the case of text. */
static int sbxi_mentions(const char *text, const char *word)
{
    size_t len = strlen(word);
    for (; strlen(text) >= len; text++)
        if (sbxi_equal_nocase(text, len, word))
            return 1;
    return 0;
}

static const char *sbxi_quota_type(const char *message)
{
    int counts = sbxi_mentions(message, "count") || sbxi_mentions(message, "limit");
    if (counts && sbxi_mentions(message, "sandbox"))
        return "sandbox_count";
    if (sbxi_mentions(message, "cpu"))
        return "cpu";
    if (sbxi_mentions(message, "memory"))
        return "memory";
    if (counts && sbxi_mentions(message, "volume"))
        return "volume_count";
    return sbxi_mentions(message, "storage") ? "storage" : "";
}

/* The class of an error that does not depend on the call. */
static sbx_status sbxi_classify_common(int http, const char *type)
{
    switch (http) {
    case 401:
    case 403:
        return SBX_E_AUTHENTICATION;
    case 404:
        return SBX_E_NOT_FOUND;
    case 422:
        return SBX_E_VALIDATION;
    case 429:
        return SBX_E_QUOTA;
    case 500:
        return SBX_E_API;
    case 502:
        return strcmp(type, "ConnectionError") == 0 ? SBX_E_CONNECTION : SBX_E_SERVICE;
    default:
        return SBX_E_SERVICE;
    }
}

static sbx_status sbxi_classify_inside(sbx_error *err)
{
    const char *type = err->error_type;
    int http = err->http_status;
    static const struct {
        const char *type, *operation;
    } failed[] = {{"WriteError", "write"}, {"ReadError", "read"}, {"CommandError", "command"}};
    int i;
    if ((http == 408 && strcmp(err->operation, "command") == 0) ||
        strcmp(type, "CommandTimeout") == 0)
        return SBX_E_COMMAND_TIMEOUT;
    for (i = 0; i < SBXI_COUNT(failed); i++) {
        if (strcmp(type, failed[i].type) == 0) {
            err->operation = failed[i].operation;
            return SBX_E_OPERATION;
        }
    }
    if (http == 403) {
        sbxi_copy(err->error_type, sizeof(err->error_type), "PermissionDenied", 16);
        return SBX_E_OPERATION;
    }
    if ((http == 400 && strcmp(type, "NotReady") == 0) ||
        (http == 503 && strcmp(type, "ServiceUnavailable") == 0))
        return SBX_E_NOT_READY;
    if (http == 404 || strcmp(type, "FileNotFound") == 0) {
        err->resource_type = "file";
        return SBX_E_NOT_FOUND;
    }
    return sbxi_classify_common(http, type);
}

/* What a status means for some calls only; the first row that fits counts. An empty resource or
   type fits any. */
typedef struct sbxi_meaning {
    int http;
    sbxi_action action;
    const char *resource, *type;
    sbx_status status;
    const char *about;    /* the resource type of the error, if it is another one */
    const char *fallback; /* the type of the error, if the service gave none */
} sbxi_meaning;

static const sbxi_meaning sbxi_meanings[] = {
    /* What should have been used does not exist. */
    {404, SBXI_CREATE, "sandbox", "TemplateNotFound", SBX_E_NOT_FOUND, "template", NULL},
    {404, SBXI_CREATE, "sandbox", "SnapshotNotFound", SBX_E_NOT_FOUND, "snapshot", NULL},
    {404, SBXI_CREATE, "template", "VolumeNotFound", SBX_E_NOT_FOUND, "volume", NULL},
    {404, SBXI_CREATE, "pool", "TemplateNotFound", SBX_E_NOT_FOUND, "template", NULL},
    {400, SBXI_CREATE, "pool", "TemplateNotFound", SBX_E_NOT_FOUND, "template", NULL},
    {400, SBXI_UPDATE, "pool", "TemplateNotFound", SBX_E_NOT_FOUND, "template", NULL},
    /* These paths always exist, so it is another service that answers. */
    {404, SBXI_CREATE, "", "", SBX_E_API, NULL, NULL},
    {404, SBXI_LIST, "", "", SBX_E_API, NULL, NULL},

    {400, SBXI_CREATE, "pool", "ValidationError", SBX_E_VALIDATION, NULL, NULL},
    {400, SBXI_UPDATE, "pool", "ValidationError", SBX_E_VALIDATION, NULL, NULL},
    {400, SBXI_UPDATE, "volume", "", SBX_E_VALIDATION, NULL, "VolumeResize"},

    {409, SBXI_CREATE, "", "", SBX_E_ALREADY_EXISTS, NULL, NULL},
    {409, SBXI_UPDATE, "", "", SBX_E_NAME_CONFLICT, NULL, NULL},
    {409, SBXI_DELETE, "", "", SBX_E_IN_USE, NULL, NULL},

    {408, SBXI_CREATE, "sandbox", "", SBX_E_RESOURCE_TIMEOUT, NULL, NULL},
    {504, SBXI_CREATE, "volume", "", SBX_E_RESOURCE_TIMEOUT, NULL, NULL},
    {504, SBXI_CREATE, "pool", "", SBX_E_RESOURCE_TIMEOUT, NULL, NULL},
    {504, SBXI_UPDATE, "pool", "", SBX_E_RESOURCE_TIMEOUT, NULL, NULL},

    {503, SBXI_CREATE, "sandbox", "", SBX_E_CREATION, NULL, "Unschedulable"},
    {503, SBXI_CREATE, "volume", "", SBX_E_CREATION, NULL, "VolumeProvisioning"},
};

static sbx_status sbxi_classify(sbx_error *err, sbxi_action action, int value_error)
{
    const sbxi_meaning *m = sbxi_meanings;
    if (action == SBXI_UPGRADE)
        return SBX_E_CONNECTION;
    if (action == SBXI_INSIDE)
        return sbxi_classify_inside(err);
    if (err->http_status == 422 && action == SBXI_CREATE && !value_error &&
        strcmp(err->resource_type, "sandbox") == 0)
        return SBX_E_CREATION;
    for (; m < sbxi_meanings + SBXI_COUNT(sbxi_meanings); m++) {
        if (m->http != err->http_status || m->action != action ||
            (*m->resource && strcmp(m->resource, err->resource_type) != 0) ||
            (*m->type && strcmp(m->type, err->error_type) != 0))
            continue;
        if (m->about)
            err->resource_type = m->about;
        if (m->fallback && !*err->error_type)
            sbxi_copy(err->error_type, sizeof(err->error_type), m->fallback, strlen(m->fallback));
        return m->status;
    }
    return sbxi_classify_common(err->http_status, err->error_type);
}

/* What to do about it, where there is something. */
static const char *sbxi_advice(sbx_status status, int http, sbxi_action action, int maybe_done)
{
    if (maybe_done && (status == SBX_E_ALREADY_EXISTS || status == SBX_E_NAME_CONFLICT ||
                       (http == 404 && action == SBXI_UPDATE)))
        return "; an earlier attempt of this call, whose answer was lost, may have succeeded";
    if (status == SBX_E_AUTHENTICATION)
        return "; check the API key (sbx_config.api_key or LANGSMITH_API_KEY)";
    if (status == SBX_E_API && http == 404)
        return "; check that the endpoint is the sandbox service's (sbx_config.endpoint or "
               "LANGSMITH_ENDPOINT)";
    if (status == SBX_E_NOT_READY)
        return "; wait for it with sbx_sandbox_wait";
    return "";
}

/* Fills err from a complete response that is not a success. operation may be "". */
static sbx_status sbxi_service_error(const sbxi_exchange *x, sbxi_action action,
                                     const char *resource_type, const char *operation,
                                     sbx_error *err)
{
    sbx_error local;
    char said[400];
    int value_error;
    sbx_status st;
    if (!err)
        err = &local;
    sbxi_error_clear(err);
    err->http_status = x->status;
    err->attempts = x->attempts;
    err->resource_type = resource_type;
    err->operation = operation;
    value_error = sbxi_error_body(&x->answer, err);
    st = sbxi_classify(err, action, value_error);
    if (st == SBX_E_QUOTA)
        err->quota_type = sbxi_quota_type(err->message);
    sbxi_copy(said, sizeof(said), err->message, strlen(err->message));
    (void)sbxi_format(err->message, sizeof(err->message), "%s%sHTTP %d for %s %s%s%s",
                      *said ? said : "", *said ? " (" : "the service answered ", x->status,
                      x->method, x->to.target, *said ? ")" : "",
                      sbxi_advice(st, x->status, action, x->maybe_done));
    err->status = st;
    return st;
}

/* ==== src/request.c =========================================================================== */

/* request: the operation that is one exchange, and what control and files share to start one.

   Promises: arguments are checked before anything is sent; the outcome is set only on success. */

typedef struct sbxi_request sbxi_request;
typedef struct sbxi_resource sbxi_resource; /* see control */
struct sbxi_request {
    sbx_op op;
    sbxi_exchange exchange;
    char *headers; /* the caller's lines, of headers_size bytes; NULL: none */
    size_t headers_size;
    char *body; /* that exchange.data or exchange.before points at; NULL: none */
    size_t body_size;
    sbxi_action action;
    const sbxi_resource *resource; /* NULL: none of the control plane's */
    const char *resource_type, *operation;
    sbx_status (*done)(sbxi_request *r, void *out); /* reads a success; NULL: nothing to read */
    void *out;                                      /* where the caller wants the result */
};

/* ---- checks ---- */

static int sbxi_has_control(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return 1;
    return 0;
}

static sbx_status sbxi_check_utf8(const char *field, const char *text, sbx_error *err)
{
    sbx_utf8 utf8 = {0};
    if (!sbx_utf8_check(&utf8, text, strlen(text)) || utf8.state != 0)
        return sbxi_fail_argument(err, field, "must be UTF-8");
    return SBX_OK;
}

/* A required name or path: what a URL's segment or query may hold. */
static sbx_status sbxi_check_name(const char *field, const char *text, sbx_error *err)
{
    if (!text || !*text)
        return sbxi_fail_argument(err, field, "is required and must not be empty");
    if (sbxi_has_control(text))
        return sbxi_fail_argument(err, field, "must not hold control characters");
    return sbxi_check_utf8(field, text, err);
}

/* What a call cannot do without: a client (or what it made), and a pointer where its result goes,
   of whatever type, which is set to NULL. */
static sbx_status sbxi_check_out(const void *client, void *out, sbx_error *err)
{
    sbxi_error_clear(err);
    if (out)
        memset(out, 0, sizeof(void *));
    if (!client)
        return sbxi_fail_argument(err, "client",
                                  "(or the sandbox or command in its place) is NULL");
    if (!out)
        return sbxi_fail_argument(err, "out", "is NULL: there is no place for the result");
    return SBX_OK;
}

/* The same for a call that makes an operation. */
static sbx_status sbxi_check_start(const void *client, void *out, sbx_op **op, sbx_error *err)
{
    sbx_status st = sbxi_check_out(client, op, err);
    sbx_status other = sbxi_check_out(client, out, st == SBX_OK ? err : NULL);
    return st == SBX_OK ? other : st;
}

/* An optional time: 0 for the default, SBX_NONE, or milliseconds. */
static sbx_status sbxi_check_time(const char *field, int64_t ms, sbx_error *err)
{
    if (ms < SBX_NONE)
        return sbxi_fail_argument(err, field, "must be 0, SBX_NONE or positive");
    return SBX_OK;
}

/* A sandbox can be used unless it is known not to be: a stopped one is started by the service. */
static sbx_status sbxi_check_sandbox(const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_status st = SBX_OK;
    sbxi_error_clear(err);
    if (!sandbox || !sandbox->client)
        return sbxi_fail_argument(err, "sandbox", "is required");
    if (sandbox->state == SBX_STATE_PROVISIONING || sandbox->state == SBX_STATE_FAILED)
        st = sbxi_fail(
            err, SBX_E_NOT_READY, "the sandbox %s is %s: %s", sandbox->name, sandbox->status,
            sandbox->state == SBX_STATE_FAILED
                ? (*sandbox->status_message ? sandbox->status_message : "it cannot be used")
                : "wait for it with sbx_sandbox_wait");
    else if (!*sandbox->dataplane_url)
        st = sbxi_fail(
            err, SBX_E_NO_DATAPLANE,
            "the service has given no data-plane URL for the sandbox %s: get it again with "
            "sbx_sandbox_get",
            sandbox->name);
    if (st != SBX_OK && err) {
        err->resource_type = "sandbox";
        sbxi_copy(err->last_status, sizeof(err->last_status), sandbox->status,
                  strlen(sandbox->status));
        sbxi_error_redact(err, sandbox->client->api_key);
    }
    return st;
}

/* ---- JSON bodies ---- */

static void sbxi_json_text(sbx_json_writer *w, const char *name, const char *text)
{
    if (text) {
        sbx_json_key(w, name);
        sbx_json_string(w, text, strlen(text));
    }
}

/* A time in seconds, rounded up: nothing that was asked for is cut short. */
static void sbxi_json_seconds(sbx_json_writer *w, const char *name, int64_t ms, int64_t none)
{
    sbx_json_key(w, name);
    sbx_json_integer(w, ms < 0 ? none : ms / 1000 + (ms % 1000 != 0));
}

/* Runs write twice, to measure and to fill: *out has *size bytes, the document and a final 0. */
static sbx_status sbxi_json_make(const sbx_allocator *memory,
                                 void (*write)(sbx_json_writer *w, const void *from),
                                 const void *from, char **out, size_t *size, sbx_error *err)
{
    sbx_json_writer w;
    size_t len;
    *out = NULL;
    sbx_json_writer_init(&w, NULL, 0);
    write(&w, from);
    if (sbx_json_writer_finish(&w, &len) != SBX_OK)
        return sbxi_fail(err, SBX_E_ARGUMENT, "an argument is not UTF-8");
    if (len >= SBXI_MAX_REQUEST)
        return sbxi_fail(err, SBX_E_TOO_BIG, "the arguments are longer than 16 MiB");
    *out = (char *)sbxi_alloc(memory, len + 1);
    if (!*out)
        return sbxi_fail_memory(err);
    *size = len + 1;
    sbx_json_writer_init(&w, *out, len);
    write(&w, from);
    (*out)[len] = 0;
    return sbx_json_writer_finish(&w, NULL);
}

#if !defined(SBX_NO_CONTROL) || !defined(SBX_NO_FILES) || defined(SBX_NO_WEBSOCKET)
/* ---- the operation ---- */

static sbx_status sbxi_request_step(sbx_op *op)
{
    sbxi_request *r = (sbxi_request *)op;
    sbx_status st = sbxi_exchange_step(&r->exchange, sbxi_now(op->client), &op->error);
    int status = r->exchange.status;
    op->attempts = r->exchange.attempts;
    if (st != SBX_OK) {
        op->error.resource_type = r->resource_type;
        op->error.operation = r->operation;
        return st;
    }
    if (status == 404 && r->action == SBXI_DELETE && r->exchange.maybe_done)
        return SBX_OK; /* deleted by the attempt whose answer was lost */
    if (status < 200 || status > 299)
        return sbxi_service_error(&r->exchange, r->action, r->resource_type, r->operation,
                                  &op->error);
    return r->done ? r->done(r, r->out) : SBX_OK;
}

static int sbxi_request_wants(sbx_op *op, sbx_item *items, int cap, int64_t *wake)
{
    return sbxi_exchange_wants(&((sbxi_request *)op)->exchange, items, cap, wake);
}

static void sbxi_request_dispose(sbx_op *op)
{
    sbxi_request *r = (sbxi_request *)op;
    const sbx_allocator *memory = &op->client->memory;
    sbxi_exchange_free(&r->exchange);
    sbxi_release(memory, r->body, r->body_size);
    if (r->headers)
        sbxi_wipe(r->headers, r->headers_size);
    sbxi_release(memory, r->headers, r->headers_size);
}

static const sbxi_op_type sbxi_request_type = {
    sizeof(sbxi_request), sbxi_request_step, sbxi_request_wants, sbxi_request_dispose, NULL, NULL};

/* A request to base (a URL) with before, a slash and name (percent-encoded; NULL: none), and after
   appended.
   default_ms is the limit of the whole call where call names none. */
static sbx_status sbxi_request_new(sbx_client *client, const sbxi_op_type *type, const char *method,
                                   const char *base, const char *before, const char *name,
                                   const char *after, const sbx_call *call, sbxi_request **out,
                                   sbx_error *err)
{
    sbx_op *op = NULL;
    sbxi_request *r;
    sbx_status st = sbxi_op_new(client, type, call, SBX_NONE, &op, err);
    *out = NULL;
    if (!op)
        return st;
    r = (sbxi_request *)op;
    sbxi_exchange_init(&r->exchange, client, method);
    r->resource_type = r->operation = "";
    st = sbxi_headers_make(&client->memory, call ? call->headers : NULL, client->headers,
                           &r->headers, &r->headers_size, err);
    if (st == SBX_OK)
        st = sbxi_address_make(&r->exchange.to, client, base, before, name, after, err);
    if (st != SBX_OK) {
        sbx_op_free(op);
        return st;
    }
    r->exchange.headers = r->headers;
    *out = r;
    return SBX_OK;
}

#if !defined(SBX_NO_CONTROL) || defined(SBX_NO_WEBSOCKET)
/* Gives the request a JSON body. */
static sbx_status sbxi_request_json(sbxi_request *r,
                                    void (*write)(sbx_json_writer *w, const void *from),
                                    const void *from, sbx_error *err)
{
    sbx_status st =
        sbxi_json_make(&r->op.client->memory, write, from, &r->body, &r->body_size, err);
    if (st == SBX_OK) {
        r->exchange.has_body = 1;
        r->exchange.content_type = "application/json";
        r->exchange.before = r->exchange.after = "";
        r->exchange.data = r->body;
        r->exchange.data_len = r->body_size - 1;
    }
    return st;
}
#endif
#endif

/* ==== src/control.c =========================================================================== */

/* control: templates, volumes, pools and the life of sandboxes, on the control plane.

   Promises: every argument is checked before anything is sent; a result is one allocation. Each
   blocking call is its _start, the one wait loop, and the end of the operation. */

#ifndef SBX_NO_CONTROL

/* ---- what all resources have in common ---- */

/* One kind of thing that has a name on the control plane. */
struct sbxi_resource {
    const char *type;       /* as in sbx_error.resource_type */
    const char *collection; /* the path of all, with a slash at its end */
    const char *list;       /* where a list of them lies in a response */
    sbxi_record record;
    /* Fills in what the service did not say; NULL: nothing. */
    void (*complete)(sbx_client *client, void *items, size_t count);
};

/* What the lists of all kinds look like. */
typedef struct sbxi_list {
    const void *items;
    size_t count;
} sbxi_list;

static sbx_status sbxi_one_done(sbxi_request *r, void *out)
{
    const sbxi_resource *kind = r->resource;
    void *object;
    char *items;
    size_t count;
    sbx_status st = sbxi_decode(r->op.client, &r->exchange.answer, &kind->record, "", 0, &object,
                                &items, &count, &r->op.error);
    if (st != SBX_OK)
        return st;
    if (kind->complete)
        kind->complete(r->op.client, items, count);
    memcpy(out, &object, sizeof(object));
    return SBX_OK;
}

static sbx_status sbxi_list_done(sbxi_request *r, void *out)
{
    const sbxi_resource *kind = r->resource;
    void *object;
    char *items;
    sbxi_list list;
    sbx_status st = sbxi_decode(r->op.client, &r->exchange.answer, &kind->record, kind->list,
                                sizeof(list), &object, &items, &list.count, &r->op.error);
    if (st != SBX_OK)
        return st;
    if (kind->complete)
        kind->complete(r->op.client, items, list.count);
    list.items = items;
    memcpy(object, &list, sizeof(list));
    memcpy(out, &object, sizeof(object));
    return SBX_OK;
}

/* A request about a kind, or about one of its kind where there is a name. */
static sbx_status sbxi_control_new(sbx_client *client, const sbxi_resource *kind,
                                   const sbxi_op_type *type, sbxi_action action, const char *name,
                                   const char *after, const sbx_call *call, sbxi_request **r,
                                   sbx_error *err)
{
    static const char *const methods[] = {"GET", "GET", "POST", "PATCH", "DELETE"};
    int named = action != SBXI_CREATE && action != SBXI_LIST;
    sbx_status st = named ? sbxi_check_name("name", name, err) : SBX_OK;
    if (st == SBX_OK)
        st = sbxi_request_new(client, type, methods[action], client->endpoint, kind->collection,
                              named ? name : NULL, after, call, r, err);
    if (st != SBX_OK)
        return st;
    if (!named)
        sbxi_address_cut(&(*r)->exchange.to, "/");
    if (action != SBXI_CREATE && action != SBXI_UPDATE)
        (*r)->exchange.flags |= SBXI_IDEMPOTENT;
    (*r)->action = action;
    (*r)->resource = kind;
    (*r)->resource_type = kind->type;
    if (action != SBXI_DELETE)
        (*r)->done = action == SBXI_LIST ? sbxi_list_done : sbxi_one_done;
    return SBX_OK;
}

/* The same without a body. op takes the place of out where there is no result. */
static sbx_status sbxi_control_start(sbx_client *client, const sbxi_resource *kind,
                                     sbxi_action action, const char *name, const sbx_call *call,
                                     void *out, sbx_op **op, sbx_error *err)
{
    sbxi_request *r;
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st == SBX_OK)
        st = sbxi_control_new(client, kind, &sbxi_request_type, action, name, "", call, &r, err);
    if (st != SBX_OK)
        return st;
    r->out = out;
    *op = &r->op;
    return SBX_OK;
}

/* The same with the body that write makes. Client and out are checked already, and so is what write
   reads. limit_ms is how long an attempt may take, 0: as the configuration says. */
static sbx_status sbxi_control_send(sbx_client *client, const sbxi_resource *kind,
                                    sbxi_action action, const char *name,
                                    void (*write)(sbx_json_writer *w, const void *from),
                                    const void *from, int64_t limit_ms, const sbx_call *call,
                                    void *out, sbx_op **op, sbx_error *err)
{
    sbxi_request *r;
    sbx_status st =
        sbxi_control_new(client, kind, &sbxi_request_type, action, name, "", call, &r, err);
    if (st != SBX_OK)
        return st;
    st = sbxi_request_json(r, write, from, err);
    if (st != SBX_OK) {
        sbx_op_free(&r->op);
        return st;
    }
    if (limit_ms)
        r->exchange.limit_ms = limit_ms;
    r->out = out;
    *op = &r->op;
    return SBX_OK;
}

/* ---- arguments ---- */

/* How long the service may take to provision something: 0 is the default, else between the two. */
static sbx_status sbxi_check_ready(int64_t *ms, int64_t standard, int64_t least, int64_t most,
                                   sbx_error *err)
{
    if (*ms == 0)
        *ms = standard;
    if (*ms >= least && *ms <= most)
        return SBX_OK;
    (void)sbxi_fail(err, SBX_E_ARGUMENT,
                    "ready_timeout_ms must be 0 (%l), or %l to %l milliseconds", standard, least,
                    most);
    if (err)
        sbxi_copy(err->field, sizeof(err->field), "ready_timeout_ms", 16);
    return SBX_E_ARGUMENT;
}

static sbx_status sbxi_check_optional(const char *field, const char *text, sbx_error *err)
{
    return text ? sbxi_check_name(field, text, err) : SBX_OK;
}

static void sbxi_json_wait(sbx_json_writer *w, int wait, int64_t ready_timeout_ms)
{
    sbx_json_key(w, "wait_for_ready");
    sbx_json_boolean(w, wait);
    if (wait)
        sbxi_json_seconds(w, "timeout", ready_timeout_ms, 0);
}

/* ---- templates ---- */

static const sbxi_field sbxi_template_fields[] = {
    {"name", SBXI_TEXT, offsetof(sbx_template, name)},
    {"image", SBXI_TEXT, offsetof(sbx_template, image)},
    {"resources.cpu", SBXI_TEXT, offsetof(sbx_template, cpu)},
    {"resources.memory", SBXI_TEXT, offsetof(sbx_template, memory)},
    {"resources.storage", SBXI_TEXT, offsetof(sbx_template, storage)},
    {"id", SBXI_TEXT, offsetof(sbx_template, id)},
    {"created_at", SBXI_TEXT, offsetof(sbx_template, created_at)},
    {"updated_at", SBXI_TEXT, offsetof(sbx_template, updated_at)}};

static const sbxi_field sbxi_mount_fields[] = {
    {"volume_name", SBXI_TEXT, offsetof(sbx_volume_mount, volume_name)},
    {"mount_path", SBXI_TEXT, offsetof(sbx_volume_mount, mount_path)}};

static const sbxi_resource sbxi_template = {
    "template",
    "/templates/",
    "templates[]",
    {sizeof(sbx_template), sbxi_template_fields, SBXI_COUNT(sbxi_template_fields),
     "volume_mounts[]", sizeof(sbx_volume_mount), offsetof(sbx_template, volume_mounts),
     offsetof(sbx_template, volume_mount_count), sbxi_mount_fields, SBXI_COUNT(sbxi_mount_fields)},
    NULL};

static void sbxi_template_json(sbx_json_writer *w, const void *from)
{
    const sbx_template_options *o = (const sbx_template_options *)from;
    size_t i;
    sbx_json_begin_object(w);
    sbxi_json_text(w, "name", o->name);
    sbxi_json_text(w, "image", o->image);
    sbx_json_key(w, "resources");
    sbx_json_begin_object(w);
    sbxi_json_text(w, "cpu", o->cpu ? o->cpu : "500m");
    sbxi_json_text(w, "memory", o->memory ? o->memory : "512Mi");
    sbxi_json_text(w, "storage", o->storage);
    sbx_json_end_object(w);
    if (o->volume_mount_count) {
        sbx_json_key(w, "volume_mounts");
        sbx_json_begin_array(w);
        for (i = 0; i < o->volume_mount_count; i++) {
            sbx_json_begin_object(w);
            sbxi_json_text(w, "volume_name", o->volume_mounts[i].volume_name);
            sbxi_json_text(w, "mount_path", o->volume_mounts[i].mount_path);
            sbx_json_end_object(w);
        }
        sbx_json_end_array(w);
    }
    sbx_json_end_object(w);
}

static sbx_status sbxi_template_check(const sbx_template_options *o, sbx_error *err)
{
    size_t i;
    sbx_status st = o ? sbxi_check_name("name", o->name, err)
                      : sbxi_fail_argument(err, "options", "is required");
    if (st == SBX_OK)
        st = sbxi_check_name("image", o->image, err);
    if (st == SBX_OK)
        st = sbxi_check_optional("cpu", o->cpu, err);
    if (st == SBX_OK)
        st = sbxi_check_optional("memory", o->memory, err);
    if (st == SBX_OK)
        st = sbxi_check_optional("storage", o->storage, err);
    if (st == SBX_OK && o->volume_mount_count && !o->volume_mounts)
        st = sbxi_fail_argument(err, "volume_mounts", "is NULL, but volume_mount_count is not 0");
    for (i = 0; st == SBX_OK && i < o->volume_mount_count; i++) {
        st = sbxi_check_name("volume_name", o->volume_mounts[i].volume_name, err);
        if (st == SBX_OK)
            st = sbxi_check_name("mount_path", o->volume_mounts[i].mount_path, err);
    }
    return st;
}

SBX_API sbx_status sbx_template_create_start(sbx_client *client,
                                             const sbx_template_options *options,
                                             sbx_template **out, sbx_op **op, sbx_error *err)
{
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st == SBX_OK)
        st = sbxi_template_check(options, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_send(client, &sbxi_template, SBXI_CREATE, NULL, sbxi_template_json, options,
                             0, &options->call, out, op, err);
}

static void sbxi_template_update_json(sbx_json_writer *w, const void *from)
{
    sbx_json_begin_object(w);
    sbxi_json_text(w, "name", ((const sbx_template_update_options *)from)->new_name);
    sbx_json_end_object(w);
}

SBX_API sbx_status sbx_template_update_start(sbx_client *client, const char *name,
                                             const sbx_template_update_options *options,
                                             sbx_template **out, sbx_op **op, sbx_error *err)
{
    const sbx_call *call = options ? &options->call : NULL;
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st != SBX_OK)
        return st;
    if (!options || !options->new_name)
        return sbxi_control_start(client, &sbxi_template, SBXI_GET, name, call, out, op, err);
    st = sbxi_check_name("new_name", options->new_name, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_send(client, &sbxi_template, SBXI_UPDATE, name, sbxi_template_update_json,
                             options, 0, call, out, op, err);
}

SBX_API sbx_status sbx_template_get_start(sbx_client *client, const char *name,
                                          const sbx_call *call, sbx_template **out, sbx_op **op,
                                          sbx_error *err)
{
    return sbxi_control_start(client, &sbxi_template, SBXI_GET, name, call, out, op, err);
}

SBX_API sbx_status sbx_template_list_start(sbx_client *client, const sbx_call *call,
                                           sbx_templates **out, sbx_op **op, sbx_error *err)
{
    return sbxi_control_start(client, &sbxi_template, SBXI_LIST, NULL, call, out, op, err);
}

SBX_API sbx_status sbx_template_delete_start(sbx_client *client, const char *name,
                                             const sbx_call *call, sbx_op **op, sbx_error *err)
{
    return sbxi_control_start(client, &sbxi_template, SBXI_DELETE, name, call, op, op, err);
}

SBX_API sbx_status sbx_template_create(sbx_client *client, const sbx_template_options *options,
                                       sbx_template **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_template_create_start(client, options, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_template_get(sbx_client *client, const char *name, const sbx_call *call,
                                    sbx_template **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_template_get_start(client, name, call, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_template_list(sbx_client *client, const sbx_call *call, sbx_templates **out,
                                     sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_template_list_start(client, call, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_template_update(sbx_client *client, const char *name,
                                       const sbx_template_update_options *options,
                                       sbx_template **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_template_update_start(client, name, options, out, &op, err), &op,
                          err);
}

SBX_API sbx_status sbx_template_delete(sbx_client *client, const char *name, const sbx_call *call,
                                       sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_template_delete_start(client, name, call, &op, err), &op, err);
}

/* ---- volumes ---- */

static const sbxi_field sbxi_volume_fields[] = {
    {"name", SBXI_TEXT, offsetof(sbx_volume, name)},
    {"size", SBXI_TEXT, offsetof(sbx_volume, size)},
    {"storage_class", SBXI_TEXT, offsetof(sbx_volume, storage_class)},
    {"id", SBXI_TEXT, offsetof(sbx_volume, id)},
    {"created_at", SBXI_TEXT, offsetof(sbx_volume, created_at)},
    {"updated_at", SBXI_TEXT, offsetof(sbx_volume, updated_at)}};

static const sbxi_resource sbxi_volume = {"volume",
                                          "/volumes/",
                                          "volumes[]",
                                          {sizeof(sbx_volume), sbxi_volume_fields,
                                           SBXI_COUNT(sbxi_volume_fields), NULL, 0, 0, 0, NULL, 0},
                                          NULL};

static void sbxi_volume_json(sbx_json_writer *w, const void *from)
{
    const sbx_volume_options *o = (const sbx_volume_options *)from;
    sbx_json_begin_object(w);
    sbxi_json_text(w, "name", o->name);
    sbxi_json_text(w, "size", o->size);
    sbxi_json_wait(w, 1, o->ready_timeout_ms);
    sbx_json_end_object(w);
}

SBX_API sbx_status sbx_volume_create_start(sbx_client *client, const sbx_volume_options *options,
                                           sbx_volume **out, sbx_op **op, sbx_error *err)
{
    sbx_volume_options o;
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st == SBX_OK && !options)
        st = sbxi_fail_argument(err, "options", "is required");
    if (st != SBX_OK)
        return st;
    o = *options;
    st = sbxi_check_name("name", o.name, err);
    if (st == SBX_OK)
        st = sbxi_check_name("size", o.size, err);
    if (st == SBX_OK)
        st = sbxi_check_ready(&o.ready_timeout_ms, 60000, 5000, 300000, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_send(client, &sbxi_volume, SBXI_CREATE, NULL, sbxi_volume_json, &o,
                             o.ready_timeout_ms + 30000, &o.call, out, op, err);
}

static void sbxi_volume_update_json(sbx_json_writer *w, const void *from)
{
    const sbx_volume_update_options *o = (const sbx_volume_update_options *)from;
    sbx_json_begin_object(w);
    sbxi_json_text(w, "name", o->new_name);
    sbxi_json_text(w, "size", o->size);
    sbx_json_end_object(w);
}

SBX_API sbx_status sbx_volume_update_start(sbx_client *client, const char *name,
                                           const sbx_volume_update_options *options,
                                           sbx_volume **out, sbx_op **op, sbx_error *err)
{
    const sbx_call *call = options ? &options->call : NULL;
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st != SBX_OK)
        return st;
    if (!options || (!options->new_name && !options->size))
        return sbxi_control_start(client, &sbxi_volume, SBXI_GET, name, call, out, op, err);
    st = sbxi_check_optional("new_name", options->new_name, err);
    if (st == SBX_OK)
        st = sbxi_check_optional("size", options->size, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_send(client, &sbxi_volume, SBXI_UPDATE, name, sbxi_volume_update_json,
                             options, 0, call, out, op, err);
}

SBX_API sbx_status sbx_volume_get_start(sbx_client *client, const char *name, const sbx_call *call,
                                        sbx_volume **out, sbx_op **op, sbx_error *err)
{
    return sbxi_control_start(client, &sbxi_volume, SBXI_GET, name, call, out, op, err);
}

SBX_API sbx_status sbx_volume_list_start(sbx_client *client, const sbx_call *call,
                                         sbx_volumes **out, sbx_op **op, sbx_error *err)
{
    return sbxi_control_start(client, &sbxi_volume, SBXI_LIST, NULL, call, out, op, err);
}

SBX_API sbx_status sbx_volume_delete_start(sbx_client *client, const char *name,
                                           const sbx_call *call, sbx_op **op, sbx_error *err)
{
    return sbxi_control_start(client, &sbxi_volume, SBXI_DELETE, name, call, op, op, err);
}

SBX_API sbx_status sbx_volume_create(sbx_client *client, const sbx_volume_options *options,
                                     sbx_volume **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_volume_create_start(client, options, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_volume_get(sbx_client *client, const char *name, const sbx_call *call,
                                  sbx_volume **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_volume_get_start(client, name, call, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_volume_list(sbx_client *client, const sbx_call *call, sbx_volumes **out,
                                   sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_volume_list_start(client, call, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_volume_update(sbx_client *client, const char *name,
                                     const sbx_volume_update_options *options, sbx_volume **out,
                                     sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_volume_update_start(client, name, options, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_volume_delete(sbx_client *client, const char *name, const sbx_call *call,
                                     sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_volume_delete_start(client, name, call, &op, err), &op, err);
}

/* ---- pools ---- */

static const sbxi_field sbxi_pool_fields[] = {
    {"name", SBXI_TEXT, offsetof(sbx_pool, name)},
    {"template_name", SBXI_TEXT, offsetof(sbx_pool, template_name)},
    {"replicas", SBXI_INT, offsetof(sbx_pool, replicas)},
    {"id", SBXI_TEXT, offsetof(sbx_pool, id)},
    {"created_at", SBXI_TEXT, offsetof(sbx_pool, created_at)},
    {"updated_at", SBXI_TEXT, offsetof(sbx_pool, updated_at)}};

static const sbxi_resource sbxi_pool = {
    "pool",
    "/pools/",
    "pools[]",
    {sizeof(sbx_pool), sbxi_pool_fields, SBXI_COUNT(sbxi_pool_fields), NULL, 0, 0, 0, NULL, 0},
    NULL};

static void sbxi_pool_json(sbx_json_writer *w, const void *from)
{
    const sbx_pool_options *o = (const sbx_pool_options *)from;
    sbx_json_begin_object(w);
    sbxi_json_text(w, "name", o->name);
    sbxi_json_text(w, "template_name", o->template_name);
    sbx_json_key(w, "replicas");
    sbx_json_integer(w, o->replicas);
    sbxi_json_wait(w, 1, o->ready_timeout_ms);
    sbx_json_end_object(w);
}

SBX_API sbx_status sbx_pool_create_start(sbx_client *client, const sbx_pool_options *options,
                                         sbx_pool **out, sbx_op **op, sbx_error *err)
{
    sbx_pool_options o;
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st == SBX_OK && !options)
        st = sbxi_fail_argument(err, "options", "is required");
    if (st != SBX_OK)
        return st;
    o = *options;
    st = sbxi_check_name("name", o.name, err);
    if (st == SBX_OK)
        st = sbxi_check_name("template_name", o.template_name, err);
    if (st == SBX_OK && (o.replicas < 1 || o.replicas > SBXI_MAX_REPLICAS))
        st = sbxi_fail_argument(err, "replicas", "must be 1 to 100");
    if (st == SBX_OK)
        st = sbxi_check_ready(&o.ready_timeout_ms, 30000, 10000, 600000, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_send(client, &sbxi_pool, SBXI_CREATE, NULL, sbxi_pool_json, &o,
                             o.ready_timeout_ms + 30000, &o.call, out, op, err);
}

static void sbxi_pool_update_json(sbx_json_writer *w, const void *from)
{
    const sbx_pool_update_options *o = (const sbx_pool_update_options *)from;
    sbx_json_begin_object(w);
    sbxi_json_text(w, "name", o->new_name);
    if (o->replicas) {
        sbx_json_key(w, "replicas");
        sbx_json_integer(w, o->replicas == SBX_NONE ? 0 : o->replicas);
    }
    sbx_json_end_object(w);
}

SBX_API sbx_status sbx_pool_update_start(sbx_client *client, const char *name,
                                         const sbx_pool_update_options *options, sbx_pool **out,
                                         sbx_op **op, sbx_error *err)
{
    const sbx_call *call = options ? &options->call : NULL;
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st != SBX_OK)
        return st;
    if (!options || (!options->new_name && !options->replicas))
        return sbxi_control_start(client, &sbxi_pool, SBXI_GET, name, call, out, op, err);
    st = sbxi_check_optional("new_name", options->new_name, err);
    if (st == SBX_OK && (options->replicas < SBX_NONE || options->replicas > SBXI_MAX_REPLICAS))
        st = sbxi_fail_argument(err, "replicas", "must be 0, SBX_NONE or 1 to 100");
    if (st != SBX_OK)
        return st;
    return sbxi_control_send(client, &sbxi_pool, SBXI_UPDATE, name, sbxi_pool_update_json, options,
                             0, call, out, op, err);
}

SBX_API sbx_status sbx_pool_get_start(sbx_client *client, const char *name, const sbx_call *call,
                                      sbx_pool **out, sbx_op **op, sbx_error *err)
{
    return sbxi_control_start(client, &sbxi_pool, SBXI_GET, name, call, out, op, err);
}

SBX_API sbx_status sbx_pool_list_start(sbx_client *client, const sbx_call *call, sbx_pools **out,
                                       sbx_op **op, sbx_error *err)
{
    return sbxi_control_start(client, &sbxi_pool, SBXI_LIST, NULL, call, out, op, err);
}

SBX_API sbx_status sbx_pool_delete_start(sbx_client *client, const char *name, const sbx_call *call,
                                         sbx_op **op, sbx_error *err)
{
    return sbxi_control_start(client, &sbxi_pool, SBXI_DELETE, name, call, op, op, err);
}

SBX_API sbx_status sbx_pool_create(sbx_client *client, const sbx_pool_options *options,
                                   sbx_pool **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_pool_create_start(client, options, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_pool_get(sbx_client *client, const char *name, const sbx_call *call,
                                sbx_pool **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_pool_get_start(client, name, call, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_pool_list(sbx_client *client, const sbx_call *call, sbx_pools **out,
                                 sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_pool_list_start(client, call, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_pool_update(sbx_client *client, const char *name,
                                   const sbx_pool_update_options *options, sbx_pool **out,
                                   sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_pool_update_start(client, name, options, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_pool_delete(sbx_client *client, const char *name, const sbx_call *call,
                                   sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_pool_delete_start(client, name, call, &op, err), &op, err);
}

/* ---- sandboxes ---- */

static const sbxi_field sbxi_sandbox_fields[] = {
    {"name", SBXI_TEXT, offsetof(sbx_sandbox, name)},
    {"id", SBXI_TEXT, offsetof(sbx_sandbox, id)},
    {"dataplane_url", SBXI_TEXT, offsetof(sbx_sandbox, dataplane_url)},
    {"status", SBXI_TEXT, offsetof(sbx_sandbox, status)},
    {"status_message", SBXI_TEXT, offsetof(sbx_sandbox, status_message)},
    {"template_name", SBXI_TEXT, offsetof(sbx_sandbox, template_name)},
    {"snapshot_id", SBXI_TEXT, offsetof(sbx_sandbox, snapshot_id)},
    {"created_at", SBXI_TEXT, offsetof(sbx_sandbox, created_at)},
    {"updated_at", SBXI_TEXT, offsetof(sbx_sandbox, updated_at)},
    {"stopped_at", SBXI_TEXT, offsetof(sbx_sandbox, stopped_at)},
    {"idle_ttl_seconds", SBXI_SECONDS, offsetof(sbx_sandbox, idle_ttl_ms)},
    {"delete_after_stop_seconds", SBXI_SECONDS, offsetof(sbx_sandbox, delete_after_stop_ms)},
    {"vcpus", SBXI_INT, offsetof(sbx_sandbox, vcpus)},
    {"mem_bytes", SBXI_SIZE, offsetof(sbx_sandbox, mem_bytes)},
    {"fs_capacity_bytes", SBXI_SIZE, offsetof(sbx_sandbox, fs_capacity_bytes)}};

static const sbxi_field sbxi_status_fields[] = {
    {"status", SBXI_TEXT, offsetof(sbx_sandbox_status, status)},
    {"status_message", SBXI_TEXT, offsetof(sbx_sandbox_status, status_message)}};

static sbx_state sbxi_state_of(const char *word)
{
    static const struct {
        const char *word;
        sbx_state state;
    } states[] = {{"provisioning", SBX_STATE_PROVISIONING},
                  {"ready", SBX_STATE_READY},
                  {"failed", SBX_STATE_FAILED},
                  {"stopped", SBX_STATE_STOPPED}};
    int i;
    for (i = 0; i < SBXI_COUNT(states); i++)
        if (strcmp(states[i].word, word) == 0)
            return states[i].state;
    return SBX_STATE_UNKNOWN;
}

/* A sandbox of which the service says no status is ready. */
static void sbxi_sandbox_complete(sbx_client *client, void *items, size_t count)
{
    sbx_sandbox *sandbox = (sbx_sandbox *)items;
    for (; count > 0; count--, sandbox++) {
        sandbox->client = client;
        if (!*sandbox->status)
            sandbox->status = "ready";
        sandbox->state = sbxi_state_of(sandbox->status);
        if (sandbox->vcpus < 0)
            sandbox->vcpus = 0;
    }
}

static void sbxi_status_complete(sbx_client *client, void *items, size_t count)
{
    sbx_sandbox_status *status = (sbx_sandbox_status *)items;
    (void)client;
    (void)count;
    if (!*status->status)
        status->status = "ready";
    status->state = sbxi_state_of(status->status);
}

static const sbxi_resource sbxi_sandbox = {"sandbox",
                                           "/boxes/",
                                           "sandboxes[]",
                                           {sizeof(sbx_sandbox), sbxi_sandbox_fields,
                                            SBXI_COUNT(sbxi_sandbox_fields), NULL, 0, 0, 0, NULL,
                                            0},
                                           sbxi_sandbox_complete};

/* The status of one, which is there once for each. */
static const sbxi_resource sbxi_status = {"sandbox",
                                          "/boxes/",
                                          "",
                                          {sizeof(sbx_sandbox_status), sbxi_status_fields,
                                           SBXI_COUNT(sbxi_status_fields), NULL, 0, 0, 0, NULL, 0},
                                          sbxi_status_complete};

static void sbxi_json_size(sbx_json_writer *w, const char *name, int64_t value)
{
    if (value) {
        sbx_json_key(w, name);
        sbx_json_integer(w, value);
    }
}

/* How long to keep something: SBX_NONE is 0 on the wire. */
static void sbxi_json_retention(sbx_json_writer *w, const char *name, int64_t ms)
{
    if (ms)
        sbxi_json_seconds(w, name, ms, 0);
}

/* A document that was checked. */
static void sbxi_json_document(sbx_json_writer *w, const char *name, const char *text)
{
    if (text) {
        sbx_json_key(w, name);
        sbxi_json_put_value(w, text, strlen(text));
    }
}

static void sbxi_sandbox_json(sbx_json_writer *w, const void *from)
{
    const sbx_sandbox_options *o = (const sbx_sandbox_options *)from;
    sbx_json_begin_object(w);
    sbxi_json_text(w, "template_name", o->template_name);
    sbxi_json_text(w, "snapshot_id", o->snapshot_id);
    sbxi_json_text(w, "snapshot_name", o->snapshot_name);
    sbxi_json_text(w, "name", o->name);
    sbxi_json_wait(w, !o->no_wait, o->ready_timeout_ms);
    sbxi_json_retention(w, "idle_ttl_seconds", o->idle_ttl_ms);
    sbxi_json_retention(w, "delete_after_stop_seconds", o->delete_after_stop_ms);
    sbxi_json_size(w, "vcpus", o->vcpus);
    sbxi_json_size(w, "mem_bytes", o->mem_bytes);
    sbxi_json_size(w, "fs_capacity_bytes", o->fs_capacity_bytes);
    sbxi_json_document(w, "mount_config", o->mount_config);
    sbxi_json_document(w, "proxy_config", o->proxy_config);
    sbx_json_end_object(w);
}

static sbx_status sbxi_check_retention(const char *field, int64_t ms, sbx_error *err)
{
    if (ms < SBX_NONE || (ms > 0 && ms % 60000 != 0))
        return sbxi_fail_argument(err, field,
                                  "must be 0, SBX_NONE or whole minutes (multiples of 60,000)");
    return SBX_OK;
}

static sbx_status sbxi_check_size(const char *field, int64_t value, sbx_error *err)
{
    return value < 0 ? sbxi_fail_argument(err, field, "must be 0 or positive") : SBX_OK;
}

/* NULL, or one JSON object. */
static sbx_status sbxi_check_object(const char *field, const char *text, sbx_error *err)
{
    char scratch[64];
    size_t len = text ? strlen(text) : 0, at = 0, used;
    sbx_json json;
    sbx_json_event e;
    sbx_status st = SBX_OK;
    int first = 1;
    if (!text)
        return SBX_OK;
    sbx_json_init(&json, scratch, sizeof(scratch));
    while (st == SBX_OK) {
        st = sbx_json_read(&json, text + at, len - at, &used, &e);
        at += used;
        if (st == SBX_OK && first && e.type != SBX_JSON_OBJECT)
            st = SBX_E_PROTOCOL;
        first = 0;
    }
    if (st == SBX_END && sbx_json_finish(&json, &e) == SBX_END)
        return SBX_OK;
    return sbxi_fail_argument(err, field, "must be a JSON object");
}

/* Copies the options and fills in the defaults. */
static sbx_status sbxi_sandbox_defaults(const sbx_sandbox_options *options, sbx_sandbox_options *o,
                                        sbx_error *err)
{
    sbx_status st;
    memset(o, 0, sizeof(*o));
    if (options)
        *o = *options;
    st = sbxi_check_optional("template_name", o->template_name, err);
    if (st == SBX_OK)
        st = sbxi_check_optional("snapshot_id", o->snapshot_id, err);
    if (st == SBX_OK)
        st = sbxi_check_optional("snapshot_name", o->snapshot_name, err);
    if (st == SBX_OK)
        st = sbxi_check_optional("name", o->name, err);
    if (st == SBX_OK &&
        (o->template_name != NULL) + (o->snapshot_id != NULL) + (o->snapshot_name != NULL) > 1)
        st = sbxi_fail_argument(err, "template_name",
                                "excludes snapshot_id and snapshot_name, and these exclude each "
                                "other: set one at most");
    if (st == SBX_OK)
        st = sbxi_check_size("ready_timeout_ms", o->ready_timeout_ms, err);
    if (st == SBX_OK)
        st = sbxi_check_retention("idle_ttl_ms", o->idle_ttl_ms, err);
    if (st == SBX_OK)
        st = sbxi_check_retention("delete_after_stop_ms", o->delete_after_stop_ms, err);
    if (st == SBX_OK)
        st = sbxi_check_size("vcpus", o->vcpus, err);
    if (st == SBX_OK)
        st = sbxi_check_size("mem_bytes", o->mem_bytes, err);
    if (st == SBX_OK)
        st = sbxi_check_size("fs_capacity_bytes", o->fs_capacity_bytes, err);
    if (st == SBX_OK)
        st = sbxi_check_object("mount_config", o->mount_config, err);
    if (st == SBX_OK)
        st = sbxi_check_object("proxy_config", o->proxy_config, err);
    if (o->ready_timeout_ms == 0)
        o->ready_timeout_ms = 30000;
    return st;
}

SBX_API sbx_status sbx_sandbox_create_start(sbx_client *client, const sbx_sandbox_options *options,
                                            sbx_sandbox **out, sbx_op **op, sbx_error *err)
{
    sbx_sandbox_options o;
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st == SBX_OK)
        st = sbxi_sandbox_defaults(options, &o, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_send(client, &sbxi_sandbox, SBXI_CREATE, NULL, sbxi_sandbox_json, &o,
                             o.no_wait ? 30000 : sbxi_after(30000, o.ready_timeout_ms), &o.call,
                             out, op, err);
}

static void sbxi_sandbox_update_json(sbx_json_writer *w, const void *from)
{
    const sbx_sandbox_update_options *o = (const sbx_sandbox_update_options *)from;
    sbx_json_begin_object(w);
    sbxi_json_text(w, "name", o->new_name);
    sbxi_json_retention(w, "idle_ttl_seconds", o->idle_ttl_ms);
    sbxi_json_retention(w, "delete_after_stop_seconds", o->delete_after_stop_ms);
    sbx_json_end_object(w);
}

SBX_API sbx_status sbx_sandbox_update_start(sbx_client *client, const char *name,
                                            const sbx_sandbox_update_options *options,
                                            sbx_sandbox **out, sbx_op **op, sbx_error *err)
{
    const sbx_call *call = options ? &options->call : NULL;
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st != SBX_OK)
        return st;
    if (!options || (!options->new_name && !options->idle_ttl_ms && !options->delete_after_stop_ms))
        return sbxi_control_start(client, &sbxi_sandbox, SBXI_GET, name, call, out, op, err);
    st = sbxi_check_optional("new_name", options->new_name, err);
    if (st == SBX_OK)
        st = sbxi_check_retention("idle_ttl_ms", options->idle_ttl_ms, err);
    if (st == SBX_OK)
        st = sbxi_check_retention("delete_after_stop_ms", options->delete_after_stop_ms, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_send(client, &sbxi_sandbox, SBXI_UPDATE, name, sbxi_sandbox_update_json,
                             options, 0, call, out, op, err);
}

SBX_API sbx_status sbx_sandbox_get_start(sbx_client *client, const char *name, const sbx_call *call,
                                         sbx_sandbox **out, sbx_op **op, sbx_error *err)
{
    return sbxi_control_start(client, &sbxi_sandbox, SBXI_GET, name, call, out, op, err);
}

SBX_API sbx_status sbx_sandbox_list_start(sbx_client *client, const sbx_call *call,
                                          sbx_sandboxes **out, sbx_op **op, sbx_error *err)
{
    return sbxi_control_start(client, &sbxi_sandbox, SBXI_LIST, NULL, call, out, op, err);
}

SBX_API sbx_status sbx_sandbox_delete_start(sbx_client *client, const char *name,
                                            const sbx_call *call, sbx_op **op, sbx_error *err)
{
    return sbxi_control_start(client, &sbxi_sandbox, SBXI_DELETE, name, call, op, op, err);
}

SBX_API sbx_status sbx_sandbox_create(sbx_client *client, const sbx_sandbox_options *options,
                                      sbx_sandbox **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_sandbox_create_start(client, options, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_sandbox_get(sbx_client *client, const char *name, const sbx_call *call,
                                   sbx_sandbox **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_sandbox_get_start(client, name, call, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_sandbox_list(sbx_client *client, const sbx_call *call, sbx_sandboxes **out,
                                    sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_sandbox_list_start(client, call, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_sandbox_update(sbx_client *client, const char *name,
                                      const sbx_sandbox_update_options *options, sbx_sandbox **out,
                                      sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_sandbox_update_start(client, name, options, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_sandbox_delete(sbx_client *client, const char *name, const sbx_call *call,
                                      sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_sandbox_delete_start(client, name, call, &op, err), &op, err);
}

SBX_API sbx_status sbx_sandbox_get_status_start(sbx_client *client, const char *name,
                                                const sbx_call *call, sbx_sandbox_status **out,
                                                sbx_op **op, sbx_error *err)
{
    sbxi_request *r;
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st == SBX_OK)
        st = sbxi_control_new(client, &sbxi_status, &sbxi_request_type, SBXI_GET, name, "/status",
                              call, &r, err);
    if (st != SBX_OK)
        return st;
    r->out = out;
    *op = &r->op;
    return SBX_OK;
}

SBX_API sbx_status sbx_sandbox_get_status(sbx_client *client, const char *name,
                                          const sbx_call *call, sbx_sandbox_status **out,
                                          sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_sandbox_get_status_start(client, name, call, out, &op, err), &op,
                          err);
}

/* ---- waiting for a sandbox ---- */

/* The same request again and again: the status after each pause, and in the end the sandbox itself.
   */
typedef struct sbxi_waiting {
    sbxi_request request;
    int64_t interval_ms, timeout_ms;
    int64_t end; /* when it has to be ready */
    char last_status[32];
} sbxi_waiting;

static sbx_status sbxi_waiting_timed_out(sbxi_waiting *waiting)
{
    sbx_error *err = &waiting->request.op.error;
    const char *last = waiting->last_status;
    (void)sbxi_fail(err, SBX_E_RESOURCE_TIMEOUT, "the sandbox was not ready within %l ms: %s%s",
                    waiting->timeout_ms, *last ? "it is " : "the service did not say how it is",
                    last);
    err->resource_type = "sandbox";
    sbxi_copy(err->last_status, sizeof(err->last_status), last, strlen(last));
    return SBX_E_RESOURCE_TIMEOUT;
}

static sbx_status sbxi_waiting_done(sbxi_request *r, void *out)
{
    sbxi_waiting *waiting = (sbxi_waiting *)r;
    sbx_error *err = &r->op.error;
    int64_t now = sbxi_now(r->op.client);
    sbx_sandbox_status *status;
    sbx_status st = sbxi_one_done(r, &status);
    (void)out; /* set when the sandbox itself came */
    if (st != SBX_OK)
        return st;
    st = SBX_AGAIN;
    sbxi_copy(waiting->last_status, sizeof(waiting->last_status), status->status,
              strlen(status->status));
    if (status->state == SBX_STATE_READY) {
        sbxi_address_cut(&r->exchange.to, "/status"); /* what is left is the sandbox itself */
        r->resource = &sbxi_sandbox;
        r->done = sbxi_one_done;
        sbxi_exchange_again(&r->exchange, now);
    } else if (status->state == SBX_STATE_FAILED) {
        st = sbxi_fail(err, SBX_E_CREATION, "the sandbox failed: %s",
                       *status->status_message ? status->status_message
                                               : "the service gave no reason");
    } else if (now >= waiting->end) {
        st = sbxi_waiting_timed_out(waiting);
    } else {
        int64_t left = waiting->end - now;
        sbxi_exchange_again(&r->exchange,
                            now + (left < waiting->interval_ms ? left : waiting->interval_ms));
    }
    if (st == SBX_E_CREATION) {
        err->resource_type = "sandbox";
        sbxi_copy(err->last_status, sizeof(err->last_status), status->status,
                  strlen(status->status));
    }
    sbx_free(status);
    return st;
}

static sbx_status sbxi_waiting_step(sbx_op *op)
{
    sbxi_waiting *waiting = (sbxi_waiting *)op;
    sbx_status st = sbxi_request_step(op);
    /* A pause that would end too late: the service was not available for an answer in time. */
    if (st == SBX_AGAIN && waiting->request.exchange.state == SBXI_EXCHANGE_BACKOFF &&
        waiting->request.exchange.attempts > 0 && sbxi_now(op->client) >= waiting->end)
        return sbxi_waiting_timed_out(waiting);
    return st;
}

static const sbxi_op_type sbxi_waiting_type = {
    sizeof(sbxi_waiting), sbxi_waiting_step, sbxi_request_wants, sbxi_request_dispose, NULL, NULL};

SBX_API sbx_status sbx_sandbox_wait_start(sbx_client *client, const char *name,
                                          const sbx_wait_options *options, sbx_sandbox **out,
                                          sbx_op **op, sbx_error *err)
{
    sbxi_request *r;
    sbxi_waiting *waiting;
    sbx_wait_options o;
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st != SBX_OK)
        return st;
    memset(&o, 0, sizeof(o));
    if (options)
        o = *options;
    st = sbxi_check_time("ready_timeout_ms", o.ready_timeout_ms, err);
    if (st == SBX_OK)
        st = sbxi_check_size("poll_interval_ms", o.poll_interval_ms, err);
    if (st == SBX_OK)
        st = sbxi_control_new(client, &sbxi_status, &sbxi_waiting_type, SBXI_GET, name, "/status",
                              &o.call, &r, err);
    if (st != SBX_OK)
        return st;
    waiting = (sbxi_waiting *)r;
    waiting->interval_ms = o.poll_interval_ms ? o.poll_interval_ms : 1000;
    waiting->timeout_ms = o.ready_timeout_ms ? o.ready_timeout_ms : 120000;
    waiting->end = sbxi_after(sbxi_now(client), waiting->timeout_ms);
    r->exchange.pause_end = waiting->end;
    r->done = sbxi_waiting_done;
    r->out = out;
    *op = &r->op;
    return SBX_OK;
}

SBX_API sbx_status sbx_sandbox_wait(sbx_client *client, const char *name,
                                    const sbx_wait_options *options, sbx_sandbox **out,
                                    sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_sandbox_wait_start(client, name, options, out, &op, err), &op, err);
}

/* ---- a sandbox for the length of a function ---- */

/* 1 if a creation that failed may have made the sandbox all the same. */
static int sbxi_creation_unsure(const sbxi_request *r)
{
    const sbxi_exchange *x = &r->exchange;
    int refused = x->state == SBXI_EXCHANGE_DONE && x->status >= 400 && x->status <= 499 &&
                  x->status != 408 && r->op.status != SBX_E_CREATION;
    return x->maybe_done || (x->sent && !refused);
}

/* Deletes the sandbox, whatever became of the call so far. */
static sbx_status sbxi_with_end(sbx_client *client, const char *name, const sbx_call *call,
                                sbx_status st, sbx_error *err)
{
    sbx_call own;
    sbx_error why;
    sbx_status deleted;
    size_t at;
    memset(&own, 0, sizeof(own));
    own.headers = call->headers;
    own.timeout_ms = 30000;
    deleted = sbx_sandbox_delete(client, name, &own, &why);
    if (deleted == SBX_OK || deleted == SBX_E_NOT_FOUND)
        return st;
    if (st >= 0) {
        *err = why;
        err->message[0] = 0;
    }
    at = strlen(err->message);
    (void)sbxi_format(err->message + at, sizeof(err->message) - at,
                      "%sthe sandbox %s could not be deleted: %s", at ? "; and " : "", name,
                      why.message);
    sbxi_error_redact(err, client->api_key);
    return st < 0 ? st : deleted;
}

SBX_API sbx_status sbx_with_sandbox(sbx_client *client, const sbx_sandbox_options *options,
                                    sbx_sandbox_fn body, void *user, sbx_error *err)
{
    sbx_sandbox_options o;
    sbx_sandbox *sandbox = NULL;
    sbx_op *op;
    sbx_error local;
    unsigned char random[8] = {0};
    char name[32] = "sandbox-";
    int unsure;
    sbx_status st = sbxi_check_out(client, &sandbox, err);
    if (st == SBX_OK && !body)
        st = sbxi_fail_argument(err, "body", "is NULL");
    if (st == SBX_OK && !client->transport->wait)
        st = sbxi_fail(err, SBX_E_UNSUPPORTED,
                       "this transport cannot wait: create and delete the sandbox by operations");
    memset(&o, 0, sizeof(o));
    if (options)
        o = *options;
    if (st == SBX_OK && !o.name) {
        st = sbxi_random(client, random, sizeof(random), err);
        sbxi_hex(name + 8, random, sizeof(random));
        o.name = name;
    }
    if (st != SBX_OK)
        return st;
    err = err ? err : &local;
    st = sbx_sandbox_create_start(client, &o, &sandbox, &op, err);
    if (st != SBX_OK)
        return st;
    st = sbx_op_wait(op, SBX_NONE, err);
    unsure = o.name == name && sbxi_creation_unsure((const sbxi_request *)op);
    sbx_op_free(op);
    if (st != SBX_OK)
        return unsure ? sbxi_with_end(client, name, &o.call, st, err) : st;
    st = body(user, sandbox, err);
    if (st >= 0)
        sbxi_error_clear(err);
    else if (err->status != st || !*err->message)
        (void)sbxi_fail(err, st, "what ran with the sandbox ended with %s", sbx_status_name(st));
    st = sbxi_with_end(client, *sandbox->name ? sandbox->name : o.name, &o.call, st, err);
    sbx_free(sandbox);
    return st;
}

#endif /* SBX_NO_CONTROL */

/* ==== src/files.c ============================================================================= */

/* files: reading and writing files in a sandbox, from memory and through callbacks.

   Promises: constant memory where a source or a sink is used; a sink sees nothing but the file's
   own bytes, and all of them if the call succeeds. */

#ifndef SBX_NO_FILES

/* A request for path on the data plane; before ends with "?path=". */
static sbx_status sbxi_file_new(const sbx_sandbox *sandbox, const char *method, const char *before,
                                const char *path, const sbx_file_options *options,
                                const char *operation, sbxi_request **out, sbx_error *err)
{
    sbx_status st = sbxi_check_sandbox(sandbox, err);
    if (st == SBX_OK)
        st = sbxi_check_name("path", path, err);
    if (st == SBX_OK)
        st = sbxi_request_new(sandbox->client, &sbxi_request_type, method, sandbox->dataplane_url,
                              before, path, "", options ? &options->call : NULL, out, err);
    if (st != SBX_OK)
        return st;
    (*out)->action = SBXI_INSIDE;
    (*out)->resource_type = "file";
    (*out)->operation = operation;
    (*out)->exchange.limit_ms = SBX_NONE;
    (*out)->exchange.idle_ms = 60000;
    if (options) {
        (*out)->exchange.progress = options->progress;
        (*out)->exchange.user = options->user;
    }
    return SBX_OK;
}

/* ---- writing ---- */

/* The multipart frame around the bytes. One block: content type, head and tail. */
static sbx_status sbxi_file_frame(sbxi_request *r, sbx_error *err)
{
    unsigned char random[16];
    char boundary[33];
    const size_t room = 256;
    sbx_status st = sbxi_random(r->op.client, random, sizeof(random), err);
    if (st != SBX_OK)
        return st;
    sbxi_hex(boundary, random, sizeof(random));
    r->body = (char *)sbxi_alloc(&r->op.client->memory, 3 * room);
    if (!r->body)
        return sbxi_fail_memory(err);
    r->body_size = 3 * room;
    (void)sbxi_format(r->body, room, "multipart/form-data; boundary=%s", boundary);
    (void)sbx_multipart_head(r->body + room, room, boundary, "file", "file");
    (void)sbx_multipart_tail(r->body + 2 * room, room, boundary);
    r->exchange.has_body = 1;
    r->exchange.content_type = r->body;
    r->exchange.before = r->body + room;
    r->exchange.after = r->body + 2 * room;
    return SBX_OK;
}

static sbx_status sbxi_write_new(const sbx_sandbox *sandbox, const char *path,
                                 const sbx_file_options *options, sbxi_request **out,
                                 sbx_error *err)
{
    sbx_status st =
        sbxi_file_new(sandbox, "POST", "/upload?path=", path, options, "write", out, err);
    if (st != SBX_OK)
        return st;
    st = sbxi_file_frame(*out, err);
    if (st != SBX_OK)
        sbx_op_free(&(*out)->op);
    return st;
}

SBX_API sbx_status sbx_write_start(const sbx_sandbox *sandbox, const char *path, const void *data,
                                   size_t len, const sbx_file_options *options, sbx_op **op,
                                   sbx_error *err)
{
    sbxi_request *r;
    sbx_status st = sbxi_check_start(sandbox, op, op, err);
    if (st != SBX_OK)
        return st;
    if (!data && len)
        return sbxi_fail_argument(err, "data", "is NULL, but len is not 0");
    st = sbxi_write_new(sandbox, path, options, &r, err);
    if (st != SBX_OK)
        return st;
    r->exchange.data = (const char *)data;
    r->exchange.data_len = len;
    *op = &r->op;
    return SBX_OK;
}

SBX_API sbx_status sbx_write(const sbx_sandbox *sandbox, const char *path, const void *data,
                             size_t len, const sbx_file_options *options, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_write_start(sandbox, path, data, len, options, &op, err), &op, err);
}

SBX_API sbx_status sbx_write_from_start(const sbx_sandbox *sandbox, const char *path,
                                        sbx_source_fn source, int64_t size,
                                        const sbx_file_options *options, sbx_op **op,
                                        sbx_error *err)
{
    sbxi_request *r;
    sbx_status st = sbxi_check_start(sandbox, op, op, err);
    if (st != SBX_OK)
        return st;
    if (!source)
        return sbxi_fail_argument(err, "source", "is required");
    if (size < SBX_NONE || size > INT64_MAX / 2)
        return sbxi_fail_argument(err, "size", "must be SBX_NONE or a number of bytes");
    st = sbxi_write_new(sandbox, path, options, &r, err);
    if (st != SBX_OK)
        return st;
    r->exchange.source = source;
    r->exchange.source_size = size;
    *op = &r->op;
    return SBX_OK;
}

SBX_API sbx_status sbx_write_from(const sbx_sandbox *sandbox, const char *path,
                                  sbx_source_fn source, int64_t size,
                                  const sbx_file_options *options, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_write_from_start(sandbox, path, source, size, options, &op, err), &op,
                          err);
}

/* ---- reading ---- */

/* The bytes that were collected become the caller's, without a copy. */
static sbx_status sbxi_read_done(sbxi_request *r, void *out)
{
    sbxi_buffer *answer = &r->exchange.answer;
    sbx_bytes *bytes = (sbx_bytes *)sbxi_object(&r->op.client->memory, sizeof(*bytes));
    if (!bytes || sbxi_buffer_terminate(answer) != SBX_OK) {
        sbx_free(bytes);
        return sbxi_fail_memory(&r->op.error);
    }
    bytes->data = sbxi_buffer_data(answer);
    bytes->len = sbxi_buffer_len(answer);
    sbxi_object_attach(bytes, 0, answer->data, answer->cap);
    sbxi_buffer_init(answer, answer->memory, answer->ceiling);
    *(sbx_bytes **)out = bytes;
    return SBX_OK;
}

static sbx_status sbxi_read_new(const sbx_sandbox *sandbox, const char *path,
                                const sbx_file_options *options, sbxi_request **out, sbx_error *err)
{
    sbx_status st =
        sbxi_file_new(sandbox, "GET", "/download?path=", path, options, "read", out, err);
    if (st == SBX_OK)
        (*out)->exchange.flags |= SBXI_IDEMPOTENT;
    return st;
}

SBX_API sbx_status sbx_read_start(const sbx_sandbox *sandbox, const char *path,
                                  const sbx_file_options *options, sbx_bytes **out, sbx_op **op,
                                  sbx_error *err)
{
    sbxi_request *r;
    sbx_status st = sbxi_check_start(sandbox, out, op, err);
    if (st != SBX_OK)
        return st;
    st = sbxi_read_new(sandbox, path, options, &r, err);
    if (st != SBX_OK)
        return st;
    r->done = sbxi_read_done;
    r->out = out;
    *op = &r->op;
    return SBX_OK;
}

SBX_API sbx_status sbx_read(const sbx_sandbox *sandbox, const char *path,
                            const sbx_file_options *options, sbx_bytes **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_read_start(sandbox, path, options, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_read_to_start(const sbx_sandbox *sandbox, const char *path, sbx_sink_fn sink,
                                     const sbx_file_options *options, sbx_op **op, sbx_error *err)
{
    sbxi_request *r;
    sbx_status st = sbxi_check_start(sandbox, op, op, err);
    if (st != SBX_OK)
        return st;
    if (!sink)
        return sbxi_fail_argument(err, "sink", "is required");
    st = sbxi_read_new(sandbox, path, options, &r, err);
    if (st != SBX_OK)
        return st;
    r->exchange.sink = sink;
    *op = &r->op;
    return SBX_OK;
}

SBX_API sbx_status sbx_read_to(const sbx_sandbox *sandbox, const char *path, sbx_sink_fn sink,
                               const sbx_file_options *options, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_read_to_start(sandbox, path, sink, options, &op, err), &op, err);
}

#endif /* SBX_NO_FILES */

/* ==== src/input.c ============================================================================= */

/* input: the bytes for a command's stdin, from the caller's call until the service has read them.

   Promises: keeps the order; sends nothing twice; knows at any time how many bytes were sent of
   which it is not known whether they have arrived. The service does not acknowledge input, but a
   WebSocket's messages are read in order: once it answers a ping, it has read what was sent before.
   So a ping goes with every piece, and holds the number of bytes up to there.

   What callers of other threads use is under the transport's lock: everything up to the step's own
   part below. May call op. */

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

/* ==== src/command.c =========================================================================== */

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

/* ==== src/client.c ============================================================================ */

/* client: configuration, the environment, and the life of a client.

   Promises: one function resolves the defaults, one validates; the key is wiped at the end. */

#define SBXI_DEFAULT_ENDPOINT "https://api.smith.langchain.com"
#define SBXI_ENDPOINT_PATH "/v2/sandboxes"

/* ---- the environment ---- */

#ifndef SBX_NO_ENV
/* The value of LANGSMITH_suffix, else of LANGCHAIN_suffix; NULL where both are blank. */
static const char *sbxi_env(const char *langsmith, const char *langchain)
{
    const char *value = getenv(langsmith);
    if (!value || !value[strspn(value, " \t\r\n\v\f")])
        value = getenv(langchain);
    return value && value[strspn(value, " \t\r\n\v\f")] ? value : NULL;
}
#endif

/* ---- checks and defaults ---- */

static sbx_status sbxi_config_check(const sbx_config *config, sbx_error *err)
{
    const sbx_transport *t = config->transport;
    if (!t)
        return sbxi_fail_argument(err, "transport",
                                  "is required: sbx_posix() of sandbox_posix.h is one");
    if (!t->dial || !t->now_ms || !t->entropy)
        return sbxi_fail_argument(err, "transport", "must have the hooks dial, now_ms and entropy");
    if (!config->allocator.resize && config->allocator.user)
        return sbxi_fail_argument(err, "allocator", "has a user pointer but no resize function");
#ifdef SBX_NO_STDLIB
    if (!config->allocator.resize)
        return sbxi_fail_argument(err, "allocator", "is required in a build with SBX_NO_STDLIB");
#endif
    if (config->max_retries < SBX_NONE)
        return sbxi_fail_argument(err, "max_retries", "must be 0, SBX_NONE or positive");
    return sbxi_check_time("timeout_ms", config->timeout_ms, err);
}

static void sbxi_config_defaults(sbx_client *c, const sbx_config *config)
{
    c->transport = config->transport;
    c->timeout_ms = config->timeout_ms ? config->timeout_ms : 10000;
    c->max_retries = config->max_retries == 0  ? 3
                     : config->max_retries < 0 ? 0
                                               : config->max_retries;
    c->max_body = config->max_body ? config->max_body : SBXI_MAX_BODY;
    if (c->max_body > SIZE_MAX / 2)
        c->max_body = SIZE_MAX / 2;
    c->max_message = config->max_message ? config->max_message : SBXI_MAX_MESSAGE;
    c->log = config->log;
    c->log_user = config->log_user;
}

/* Copies a, then b, without white space around the whole and without slashes at its end. */
static char *sbxi_join_trimmed(const sbx_allocator *memory, const char *a, const char *b)
{
    size_t a_len, b_len = strlen(b);
    char *text;
    a += strspn(a, " \t\r\n\v\f");
    a_len = strlen(a);
    while (a_len && strchr(" \t\r\n\v\f", a[a_len - 1]))
        a_len--;
    while (a_len && a[a_len - 1] == '/')
        a_len--;
    text = (char *)sbxi_alloc(memory, a_len + b_len + 1);
    if (text) {
        memcpy(text, a, a_len);
        memcpy(text + a_len, b, b_len + 1);
    }
    return text;
}

/* A URL that cannot be used; problem is a sentence of the URL codec. */
static sbx_status sbxi_fail_url(sbx_error *err, const char *field, const char *from,
                                const char *problem)
{
    (void)sbxi_fail(err, SBX_E_ARGUMENT, "%s%s: %s", field, from, problem);
    if (err)
        sbxi_copy(err->field, sizeof(err->field), field, strlen(field));
    return SBX_E_ARGUMENT;
}

static sbx_status sbxi_client_endpoint(sbx_client *c, const char *endpoint, sbx_error *err)
{
    const char *problem = NULL, *suffix = "", *from = "";
    sbx_url url;
    if (endpoint && sbx_url_parse(endpoint, strlen(endpoint), &url, &problem) != SBX_OK)
        return sbxi_fail_url(err, "endpoint", from, problem);
    if (!endpoint) {
        suffix = SBXI_ENDPOINT_PATH;
        endpoint = SBXI_DEFAULT_ENDPOINT;
#ifndef SBX_NO_ENV
        if (sbxi_env("LANGSMITH_ENDPOINT", "LANGCHAIN_ENDPOINT")) {
            endpoint = sbxi_env("LANGSMITH_ENDPOINT", "LANGCHAIN_ENDPOINT");
            from = " (from LANGSMITH_ENDPOINT or LANGCHAIN_ENDPOINT)";
        }
#endif
    }
    c->endpoint = sbxi_join_trimmed(&c->memory, endpoint, suffix);
    if (!c->endpoint)
        return sbxi_fail_memory(err);
    problem = NULL;
    if (sbx_url_parse(c->endpoint, strlen(c->endpoint), &url, &problem) == SBX_OK && url.query_len)
        problem = "the URL must not have a query";
    if (problem)
        return sbxi_fail_url(err, "endpoint", from, problem);
    c->endpoint_tls = url.tls;
    return SBX_OK;
}

static sbx_status sbxi_client_key(sbx_client *c, const char *key, sbx_error *err)
{
#ifndef SBX_NO_ENV
    if (!key)
        key = sbxi_env("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY");
#endif
    if (key && sbxi_has_control(key))
        return sbxi_fail_argument(err, "api_key",
                                  "(or LANGSMITH_API_KEY) must not hold control characters");
    if (key && *key) {
        size_t size = strlen(key) + 1;
        c->api_key = (char *)sbxi_alloc(&c->memory, size);
        if (!c->api_key)
            return sbxi_fail_memory(err);
        memcpy(c->api_key, key, size);
    }
    return SBX_OK;
}

/* ---- life ---- */

static void sbxi_client_free(sbx_client *c)
{
    sbx_allocator memory = c->memory;
    if (c->api_key) {
        size_t size = strlen(c->api_key) + 1;
        sbxi_wipe(c->api_key, size);
        sbxi_release(&memory, c->api_key, size);
    }
    if (c->headers) {
        sbxi_wipe(c->headers, c->headers_size);
        sbxi_release(&memory, c->headers, c->headers_size);
    }
    if (c->endpoint)
        sbxi_release(&memory, c->endpoint, strlen(c->endpoint) + 1);
    sbxi_release(&memory, c, sizeof(*c));
}

SBX_API sbx_status sbx_open(const sbx_config *config, sbx_client **out, sbx_error *err)
{
    sbx_allocator memory;
    sbx_client *c;
    sbx_status st;
    st = sbxi_check_out(config, out, err);
    if (st != SBX_OK)
        return st;
    st = sbxi_config_check(config, err);
    if (st != SBX_OK)
        return st;
    memory = config->allocator;
#ifndef SBX_NO_STDLIB
    if (!memory.resize)
        memory.resize = sbxi_default_resize;
#endif
    c = (sbx_client *)sbxi_alloc(&memory, sizeof(*c));
    if (!c)
        return sbxi_fail_memory(err);
    memset(c, 0, sizeof(*c));
    c->memory = memory;
    sbxi_config_defaults(c, config);
    st = sbxi_headers_make(&c->memory, config->headers, NULL, &c->headers, &c->headers_size, err);
    if (st == SBX_OK)
        st = sbxi_client_endpoint(c, config->endpoint, err);
    if (st == SBX_OK)
        st = sbxi_client_key(c, config->api_key, err);
    c->state = config->transport->user;
    if (st == SBX_OK && config->transport->open) {
        st = config->transport->open(config->transport->user, &c->state);
        if (st != SBX_OK)
            (void)sbxi_fail(err, st, "the transport could not be opened: %s", sbx_status_name(st));
    }
    if (st != SBX_OK) {
        sbxi_client_free(c);
        return st;
    }
    c->clock = 1;
    c->clock_raw = c->transport->now_ms(c->state);
    *out = c;
    return SBX_OK;
}

SBX_API void sbx_close(sbx_client *client)
{
    if (!client)
        return;
    sbxi_pool_clear(client);
    if (client->transport->close)
        client->transport->close(client->state);
    sbxi_client_free(client);
}

SBX_API sbx_status sbx_sandbox_at(sbx_client *client, const char *dataplane_url, sbx_sandbox **out,
                                  sbx_error *err)
{
    const char *problem = "";
    sbx_url url;
    sbx_sandbox *sandbox;
    size_t size;
    sbx_status st = sbxi_check_out(client, out, err);
    if (st != SBX_OK)
        return st;
    if (!dataplane_url)
        return sbxi_fail_argument(err, "dataplane_url", "is required");
    size = strlen(dataplane_url) + 1;
    if (sbx_url_parse(dataplane_url, size - 1, &url, &problem) != SBX_OK)
        return sbxi_fail_url(err, "dataplane_url", "", problem);
    if (url.query_len)
        return sbxi_fail_url(err, "dataplane_url", "", "the URL must not have a query");
    sandbox = (sbx_sandbox *)sbxi_object(&client->memory, sizeof(*sandbox) + size);
    if (!sandbox)
        return sbxi_fail_memory(err);
    memcpy(sandbox + 1, dataplane_url, size);
    sandbox->client = client;
    sandbox->dataplane_url = (const char *)(sandbox + 1);
    sandbox->state = SBX_STATE_READY;
    sandbox->status = "ready";
    sandbox->name = sandbox->id = sandbox->status_message = sandbox->template_name =
        sandbox->snapshot_id = sandbox->created_at = sandbox->updated_at = "";
    *out = sandbox;
    return SBX_OK;
}

#endif /* SBX_IMPLEMENTATION_DONE */
#endif /* SANDBOX_IMPLEMENTATION */

/*
This software is available under two licenses: choose whichever you prefer.

------------------------------------------------------------------------------
ALTERNATIVE A - MIT License

Copyright (c) 2026 the sandbox.h authors

Permission is hereby granted, free of charge, to any person obtaining a copy of
this software and associated documentation files (the "Software"), to deal in
the Software without restriction, including without limitation the rights to
use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies
of the Software, and to permit persons to whom the Software is furnished to do
so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.

------------------------------------------------------------------------------
ALTERNATIVE B - Public Domain (www.unlicense.org)

This is free and unencumbered software released into the public domain.

Anyone is free to copy, modify, publish, use, compile, sell, or distribute this
software, either in source code form or as a compiled binary, for any purpose,
commercial or non-commercial, and by any means.

In jurisdictions that recognize copyright laws, the author or authors of this
software dedicate any and all copyright interest in the software to the public
domain. We make this dedication for the benefit of the public at large and to
the detriment of our heirs and successors. We intend this dedication to be an
overt act of relinquishment in perpetuity of all present and future rights to
this software under copyright law.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN
ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION
WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
*/
