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
