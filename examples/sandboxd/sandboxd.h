/* sandboxd: a local server of the LangSmith Sandbox protocol, with real isolation, for Linux.

   One program in two roles. The control process (main.c, control.c and what they name) answers the
   control plane. For each sandbox it starts itself once more as the agent (sandbox.c, agent.c),
   by bubblewrap in namespaces of its own; the agent answers the data plane there, on a socket that
   the control process opened before. The map, from the ground up:

     codecs.c      the codecs of sandbox.h, compiled once
     util.c        random names, times, text, messages to the operator
     key.c         the API key, known by its hash only
     quantity.c    amounts of CPU and memory, as templates give them
     tree.c        whole directories: making and removing
     json.c        JSON documents in memory
     ring.c        the output of a command that can still be read, as clean UTF-8
     server.c      HTTP connections
     reply.c       whole answers, errors and their shapes
     websocket.c   WebSocket connections
     files.c       data plane: upload and download
     processes.c   finding processes, to kill them
     spawn.c       data plane: starting a process
     command.c     data plane: the life of a command, its streams and time limits
     execute.c     data plane: one command over HTTP
     session.c     data plane: one client of a command over WebSocket
     chaos.c       what goes wrong on purpose
     settings.c    what the operator chooses about commands
     agent.c       the data plane of one sandbox
     root.c        what a sandbox sees: its root directory
     groups.c      control groups, which limit CPU and memory
     limits.c      what limits the commands of a sandbox
     sandbox.c     the process of one sandbox: started by bubblewrap, watched, ended
     store.c       what outlives the control process: small files
     named.c       control plane: what all kinds of resources have in common
     volumes.c     control plane: volumes
     templates.c   control plane: templates
     boxes.c       control plane: sandboxes
     pools.c       control plane: sandboxes that wait to be used
     control.c     control plane: its server, its end
     main.c        options

   Everything runs on one libuv loop per process. Times are milliseconds. */
#ifndef SANDBOXD_H
#define SANDBOXD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "sandbox.h"

#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <uv.h>

#define SD_COUNT(array) (sizeof(array) / sizeof(*(array)))
#define SD_OWNER(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* ---- limits ---- */

#define SD_MAX_CONNECTIONS 1024        /* of one process; more are closed at once */
#define SD_MAX_JSON_BODY (1u << 20)    /* of a request; more is 413 */
#define SD_MAX_JSON_VALUES 10000       /* in one document */
#define SD_MAX_MESSAGE (8u << 20)      /* of a WebSocket */
#define SD_MAX_STDIN (8u << 20)        /* waiting for a command to read it, of memory */
#define SD_MAX_HTTP_OUTPUT (8u << 20)  /* of each stream of a command over HTTP */
#define SD_MAX_COMMANDS 1024           /* of a sandbox, running or remembered */
#define SD_MAX_REMEMBERED (128u << 20) /* bytes of output of ended commands */
#define SD_MAX_PROCESSES 2048          /* of the commands of a sandbox, with their threads */
#define SD_MAX_SANDBOXES 256           /* unless told otherwise */
#define SD_MAX_VOLUMES 256             /* the same */
#define SD_MAX_QUOTA 10000             /* what these can be set to */
#define SD_MAX_TEMPLATES 1024
#define SD_MAX_POOLS 256
#define SD_MAX_REPLICAS 100 /* of a pool */
#define SD_MAX_MOUNTS 32    /* of a template */
#define SD_MAX_VOLUME_SIZE 1e15
#define SD_MAX_NAME 1024 /* bytes of a name */
#define SD_MAX_COMMAND_ID 128
#define SD_RING_SIZE (1u << 20) /* of output, for each stream of a command, unless told otherwise */
#define SD_RING_LEAST 4096
#define SD_RING_MOST (64 << 20)
#define SD_CHUNK 65536u       /* bytes of output in one message, and of one read */
#define SD_QUEUE (512u << 10) /* bytes that wait for a slow client */

/* ---- util.c ---- */

/* Prints a line to stderr. */
void sd_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* malloc that ends the process when there is no memory left, with a message. Sizes given to it are
   bounded by the limits above, so this is the machine's state, not a client's doing. Never NULL. */
void *sd_alloc(size_t size);
void *sd_grow(void *p, size_t size);
char *sd_copy(const char *text, size_t len); /* with a final 0 */
char *sd_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

void sd_random(void *out, size_t len);
void sd_hex(char *out, const unsigned char *bytes, size_t len); /* 2 * len characters and a 0 */
void sd_uuid(char out[37]);
void sd_timestamp(char out[32]); /* now, by ISO 8601 in UTC */

/* For a child before exec: every signal at its default, none blocked. Allocates nothing. */
void sd_clean_signals(void);

/* The number of an option: 0, or -1 when stderr has been told what it should be. */
int sd_number(const char *option, const char *text, long least, long most, long *number);

/* ---- key.c ---- */

/* Only the SHA-256 of the key is kept. */
typedef struct sd_key {
    int required;
    unsigned char hash[32];
} sd_key;

void sd_key_set(sd_key *key, const char *text);
/* Takes the same time whether or not text is the key. */
int sd_key_matches(const sd_key *key, const char *text, size_t len);

/* ---- quantity.c ---- */

/* The kinds of amounts: processors ("500m", "2", "0.5") and bytes ("512Mi", "1G", "100000"). */
typedef enum sd_unit { SD_CPUS, SD_BYTES } sd_unit;

/* Reads an amount of at least one thousandth, or one byte. 0, or -1 if text is none. */
int sd_quantity(const char *text, sd_unit unit, double *value);

/* ---- tree.c ---- */

/* Makes the directory and its parents. 0, or -1 with errno. */
int sd_make_directories(const char *path, mode_t mode);
/* Makes the parents of a file. */
int sd_make_parents(const char *path, mode_t mode);
/* Removes a directory with all that is in it, whatever its modes and depth are; follows no
   links. */
int sd_remove_tree(const char *path);
/* Writes a small file. */
int sd_write_file(const char *path, const char *text);

/* ---- json.c ---- */

typedef struct sd_json sd_json;
struct sd_json {
    sbx_json_type type; /* SBX_JSON_OBJECT, _ARRAY or that of a value */
    const char *name;   /* in an object; NULL elsewhere */
    const char *text;   /* of a string, with a final 0 */
    size_t name_len, len;
    int64_t integer;
    double number;
    sd_json *child, *next;
};
typedef struct sd_document sd_document;

/* NULL: the text is not one JSON document, or has too many values; *problem says why. */
sd_document *sd_json_parse(const char *text, size_t len, const char **problem);
void sd_json_free(sd_document *document); /* NULL is fine */
const sd_json *sd_json_root(const sd_document *document);

/* The last member of that name; NULL: there is none, it is null, or object is none. */
const sd_json *sd_json_get(const sd_json *object, const char *name);

/* ---- ring.c ---- */

/* The last bytes of a stream, as many as it has room for, by their offset in it. The same memory
   is mapped twice, one after the other, so that what is there always lies in one piece. */
typedef struct sd_ring {
    char *base;
    size_t size;
    uint64_t start, end;
} sd_ring;

/* size is rounded up to whole pages. 0, or -1 when there is no memory. */
int sd_ring_init(sd_ring *ring, size_t size);
void sd_ring_free(sd_ring *ring);
/* Appends text, len <= size; the oldest characters make room. */
void sd_ring_write(sd_ring *ring, const char *text, size_t len);
/* What is there from offset on, at most max (>= 4) bytes, whole characters. Moves *offset to where
   it really starts: the oldest byte, or the start of a character. */
size_t sd_ring_read(const sd_ring *ring, uint64_t *offset, size_t max, const char **text);

/* Turns len bytes into valid UTF-8: each maximal part that is wrong becomes U+FFFD. Writes at most
   3 * len bytes to out. Returns how many, and in *left how many bytes at the end, 0..3, may become
   a character when more bytes come; last is 1 if none do. */
size_t sd_clean(char *out, const char *in, size_t len, int last, size_t *left);
/* A copy of text as valid UTF-8, for messages that quote what came from outside. */
char *sd_quotable(const char *text);

/* ---- server.c ---- */

typedef struct sd_conn sd_conn;
typedef struct sd_server sd_server;

/* What is to go wrong with a connection, for tests. */
typedef struct sd_faults {
    uint64_t cut_after;   /* bytes sent; 0: never */
    int reset;            /* 1: cut by RST, 0: by FIN */
    uint64_t close_after; /* the same for a WebSocket's end by a close frame; 0: never */
    int close_code;
    uint64_t delay_ms; /* before anything that waits is sent */
} sd_faults;

/* How a route takes the request's body. */
typedef enum sd_body {
    SD_BODY_NONE,  /* ignored; handle is called when the request is complete */
    SD_BODY_JSON,  /* handle is called when it is complete, with conn->json */
    SD_BODY_STREAM /* handle is called before it, and then conn->on_body and on_body_end */
} sd_body;

typedef struct sd_route {
    const char *method; /* GET also answers HEAD */
    const char *path;   /* "/boxes/{}": {} stands for one segment, to be found by sd_segment */
    sd_body body;
    void (*handle)(sd_conn *conn);
} sd_route;

struct sd_server {
    uv_loop_t *loop;
    void *user;
    const char *const *prefixes; /* of all paths, ended by NULL */
    const sd_route *routes;
    size_t route_count;
    const sd_key *key;
    void (*faults)(sd_server *server, sd_faults *faults); /* NULL: connections have none */
    /* The rest is the server's own. */
    uv_tcp_t listener;
    sd_conn *connections;
    int count;
};

/* The headers that are kept. */
typedef enum sd_header {
    SD_CONTENT_TYPE,
    SD_EXPECT,
    SD_CONNECTION,
    SD_UPGRADE,
    SD_WS_KEY,
    SD_WS_VERSION,
    SD_ORIGIN,
    SD_HOST,
    SD_RANGE,
    SD_IF_RANGE,
    SD_IF_NONE_MATCH,
    SD_HEADERS
} sd_header;

#define SD_SEGMENTS 8

struct sd_conn {
    sd_server *server;
    /* The request. */
    char method[16];
    char *target;                /* path and query, as they came */
    char *segments[SD_SEGMENTS]; /* of the path behind the prefix, decoded */
    size_t segment_count;
    char *headers[SD_HEADERS]; /* NULL: not there */
    int64_t content_length;
    const sd_route *route;
    const sd_json *json; /* the body; NULL: empty */

    /* For the handler. All are NULL at first. release is called once, when the exchange is over or
       the connection lost, and not from within sd_send. */
    void *user;
    void (*on_body)(sd_conn *conn, const char *data, size_t len);
    void (*on_body_end)(sd_conn *conn);
    void (*on_drain)(sd_conn *conn); /* nothing waits to be sent any more */
    void (*on_eof)(sd_conn *conn);   /* the client will send nothing more */
    void (*release)(sd_conn *conn);

    /* The server's own. */
    sd_conn *next, *previous;
    uv_tcp_t tcp;
    uv_timer_t timer, delay;
    sd_faults faults;
    uint64_t sent; /* or waits to be */
    sbx_http1 http;
    int minor_version, state, close_after, responded, no_body, chunked, body_done, eof;
    int feeding, closing, lost, handles, reading, authorized, head_begun, cut_waits;
    char *body;
    size_t body_len, body_cap;
    sd_document *document;
    char *saved; /* came before the last exchange was over */
    size_t saved_len;
    char *queue; /* to be sent when what is being sent has gone */
    size_t queue_len, queue_cap, sending, burst;
    void (*on_input)(sd_conn *conn, char *data, size_t len); /* after an upgrade */
    char scratch[16384];
};

/* Opens 127.0.0.1:port (0: any free one); -1 with errno. Closed on exec. */
int sd_listen(int port, int *actual);
/* Serves on a listening socket, which it owns. 0 or a libuv error. */
int sd_serve(sd_server *server, int socket);
/* Closes the listener and all connections. */
void sd_server_close(sd_server *server);

/* The part of the path that stands for the n-th {} of the route. */
const char *sd_segment(const sd_conn *conn, size_t n);
/* A parameter of the query, to be freed; NULL: there is none, or it cannot be decoded. */
char *sd_query(const sd_conn *conn, const char *name);

/* Starts an answer. length is that of the body, SBX_NONE: not known, it is chunked. headers is NULL
   or whole lines. The body follows by sd_send_body, then comes sd_reply_end. */
void sd_reply_start(sd_conn *conn, int status, const char *type, const char *headers,
                    int64_t length);
void sd_send_body(sd_conn *conn, const char *data, size_t len);
void sd_reply_end(sd_conn *conn);

/* Sends up to three parts, what it can at once; the rest waits in memory. How much waits,
   sd_pending tells. */
void sd_send(sd_conn *conn, const uv_buf_t *parts, unsigned count);
size_t sd_pending(const sd_conn *conn);
/* How much the client's machine has not taken yet. */
size_t sd_unsent(const sd_conn *conn);
/* 1: the client will send nothing more, though what it sent may not have been read yet. */
int sd_peer_gone(const sd_conn *conn);
/* 1: nothing can be sent any more, and the connection will end by itself. */
int sd_lost(const sd_conn *conn);
/* Stops or goes on reading from the client. */
void sd_pause(sd_conn *conn, int pause);

/* Leaves HTTP after an answer of 101: what comes goes to on_input. The end of the client's
   direction is told by on_eof, that of the connection by release. */
void sd_upgrade(sd_conn *conn, void (*on_input)(sd_conn *conn, char *data, size_t len));
/* Closes in good order: sends what waits, then the end, then waits for the client to close too. */
void sd_finish(sd_conn *conn);
/* Closes at once. conn is freed later. */
void sd_drop(sd_conn *conn);

/* ---- reply.c ---- */

/* A whole answer with a body; NULL: none. */
void sd_reply(sd_conn *conn, int status, const char *type, const char *headers, const char *body,
              size_t len);
/* A JSON document that write writes, to be freed; NULL: it cannot be written. */
char *sd_json_text(void (*write)(sbx_json_writer *w, const void *arg), const void *arg,
                   size_t *len);
/* A member of an object; null where text is NULL. */
void sd_write_text(sbx_json_writer *w, const char *name, const char *text);
/* A whole answer with such a document. */
void sd_reply_json(sd_conn *conn, int status, void (*write)(sbx_json_writer *w, const void *arg),
                   const void *arg);
/* {"detail": {"error": type, "message": ..}} */
void sd_error(sd_conn *conn, int status, const char *type, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Who waits for an answer, to be given one now: from here on nobody waits. NULL: nobody did. */
sd_conn *sd_take_waiter(sd_conn **waiter);

/* What is wrong with a request's fields, for an answer of 422. */
typedef struct sd_problem {
    const char *field, *inner; /* below "body" or "query"; NULL: none */
    int index;                 /* between the two; -1: none */
    const char *message;
} sd_problem;
typedef struct sd_problems {
    const char *where; /* NULL: "body" */
    sd_problem items[8];
    size_t count;
} sd_problems;

/* Notes that a field is wrong; message is kept by reference. Beyond eight it does nothing. */
void sd_problem_add(sd_problems *problems, const char *field, const char *inner,
                    const char *message);
/* The same of an element of an array. */
void sd_problem_add_at(sd_problems *problems, const char *field, int index, const char *inner,
                       const char *message);
/* {"detail": [{"loc": [..], "msg": .., "type": "value_error"}, ..]}; 0 if there are none. */
int sd_reply_problems(sd_conn *conn, const sd_problems *problems);

/* Fields of a request; what is wrong is noted. The first gives NULL, the others fallback for a
   field that is not there or null. */
const char *sd_field_string(const sd_json *object, const char *name, sd_problems *problems);
const char *sd_field_name(const sd_json *object, const char *name, int required,
                          sd_problems *problems);
int sd_field_boolean(const sd_json *object, const char *name, int fallback, sd_problems *problems);
double sd_field_number(const sd_json *object, const char *name, double fallback, double least,
                       double most, sd_problems *problems);
/* A whole number. */
int sd_field_integer(const sd_json *object, const char *name, int fallback, int least, int most,
                     sd_problems *problems);

/* ---- websocket.c ---- */

typedef struct sd_ws {
    sd_conn *conn;
    void *user;
    void (*on_message)(struct sd_ws *ws, const char *data, size_t len);
    void (*on_drain)(struct sd_ws *ws); /* more can be sent */
    void (*on_gone)(
        struct sd_ws *ws); /* called once, from within sd_ws_close too; ws is then over */
    /* Its own. */
    sbx_ws codec;
    char *message;
    size_t len, cap;
    int closing, pong_due;
    size_t pong_len;
    char pong[125];
} sd_ws;

/* Answers an upgrade: NULL if it was refused, which the client has been told. */
sd_ws *sd_ws_accept(sd_conn *conn);
/* ws may be over afterwards. */
void sd_ws_send(sd_ws *ws, const char *text, size_t len);
/* Sends a close frame and ends the connection in good order. */
void sd_ws_close(sd_ws *ws, int code, const char *reason);
/* The same for all that a server has. */
void sd_ws_close_all(sd_server *server, int code, const char *reason);

/* ---- chaos.c ---- */

typedef struct sd_range {
    uint64_t least, most; /* 0: there is none */
} sd_range;

/* What is to go wrong, for tests. All zero: nothing. */
typedef struct sd_chaos {
    sd_range cut, fin, close; /* bytes sent on a connection until then */
    int close_code;
    uint64_t delay_ms;
    int refusal;                  /* the status of refused upgrades */
    uint64_t refused, refused_ms; /* how many are, or how long */
    uint64_t unstarted;           /* so many "started" messages are dropped */
    uint64_t random;              /* the state of the generator */
} sd_chaos;

/* Adds what a specification asks for. 0, or -1 when stderr has been told what is wrong. */
int sd_chaos_parse(sd_chaos *chaos, const char *specification);
/* Prints what a specification may hold. */
void sd_chaos_help(FILE *file);
/* What happens to a new connection. */
void sd_chaos_faults(sd_chaos *chaos, sd_faults *faults);
/* The status that an upgrade is refused with; 0: it is not. now is the time since the start. */
int sd_chaos_refusal(sd_chaos *chaos, uint64_t now);
/* Counts down: 1 until it is at 0. */
int sd_chaos_take(uint64_t *count);

/* ---- settings.c ---- */

/* What the operator chooses about commands. */
typedef struct sd_settings {
    size_t ring_bytes; /* of output that is kept, for each stream */
    int64_t stall_ms;  /* how long a command waits for a client that takes nothing; 0: for ever */
    int old_dialect;   /* 1: that of March 2026 */
    sd_chaos chaos;
} sd_settings;

extern const sd_settings sd_default_settings;
/* Takes one by the name of its option. 1, 0: there is none of that name, or -1 when stderr has been
   told what is wrong. */
int sd_settings_take(sd_settings *settings, const char *name, const char *value);

/* ---- groups.c ---- */

/* Controllers, as bits. */
enum { SD_GROUP_CPU = 1, SD_GROUP_MEMORY = 2, SD_GROUP_PIDS = 4 };
#define SD_MAX_GROUPS 3 /* that one sandbox has: in version 1 each controller may have its own */

/* The control groups that we may make groups in. */
typedef struct sd_groups {
    int version; /* 1 or 2; 0: there are none */
    unsigned controllers;
    size_t count;
    struct sd_hierarchy {
        char *base, *directory; /* the group that we found, and our own below it */
        unsigned controllers, enabled;
        int moved; /* this process was moved from base into a group below directory */
    } at[SD_MAX_GROUPS];
} sd_groups;

/* Finds out which work when commands run as user, 0: as we do, and removes the groups of every
   sandboxd that was killed. 0, or -1: none, and why says so. */
int sd_groups_find(sd_groups *groups, uid_t user, char why[256]);
/* Puts all back as it was. */
void sd_groups_release(sd_groups *groups);

/* Makes the groups of a sandbox, with its limits, 0: none. Who writes "0" to all of the descriptors
   joins; -1: one that is not there. NULL, or the problem, to be freed. */
char *sd_groups_make(const sd_groups *groups, const char *name, double cpus, double memory,
                     int fds[SD_MAX_GROUPS]);
void sd_groups_close(int fds[SD_MAX_GROUPS]);
/* Lifts the limit on CPU time, when the processes shall end. */
void sd_groups_lift(const sd_groups *groups, const char *name);
/* Removes them; 0: that has to be tried again soon, as there are still processes, which it kills. */
int sd_groups_remove(const sd_groups *groups, const char *name);

/* ---- limits.c ---- */

typedef enum sd_limits_kind {
    SD_LIMITS_AUTO, /* control groups as far as possible, resource limits for the rest */
    SD_LIMITS_CGROUP,
    SD_LIMITS_RLIMIT,
    SD_LIMITS_NONE
} sd_limits_kind;

/* How limits are enforced on this machine; found out once, at the start. */
typedef struct sd_limits {
    sd_limits_kind kind;
    sd_groups groups;
} sd_limits;

/* What the agent does to every command. */
typedef struct sd_command_limits {
    uint64_t groups;     /* so many to be joined, by the descriptors from SD_FD_GROUPS on */
    uint64_t memory;     /* RLIMIT_DATA; 0: none */
    uint64_t processes;  /* RLIMIT_NPROC; 0: none */
    uint64_t processors; /* so many to run on; 0: any */
    cpu_set_t chosen;    /* which */
} sd_command_limits;

/* Tells stderr what it found. 0, or -1 if that is not what was asked for. */
int sd_limits_find(sd_limits *limits, uid_t user);

/* What control groups do not do for a sandbox, as lines for its agent. To be freed. */
char *sd_limits_settings(const sd_limits *limits, double cpus, double memory, int isolated);
/* Takes such a line; 0 if it is another. */
int sd_limits_take(sd_command_limits *limits, const char *line);
/* Behind the last of them: chooses the processors. */
void sd_limits_choose(sd_command_limits *limits);
/* In the child that becomes a command. 0 or -1 with errno. */
int sd_limits_apply(const sd_command_limits *limits);

/* ---- agent.c ---- */

typedef struct sd_command sd_command;

typedef struct sd_agent {
    uv_loop_t *loop;
    const char *home; /* relative paths start here */
    int isolated;
    sd_server server;
    sd_key key;
    sd_settings settings;
    uint64_t born; /* the loop's time at the start */
    int reloading; /* 1 while all clients are sent away, to come back */
    sd_command *commands;
    size_t command_count;
    char *expired[256]; /* ids of commands that were forgotten, the last ones */
    size_t expired_next;
    uint64_t file_limit; /* RLIMIT_NOFILE for commands */
    sd_command_limits limits;
} sd_agent;

/* The file descriptors that the agent inherits; the last are up to SD_MAX_GROUPS. */
enum { SD_FD_LISTEN = 3, SD_FD_CHANNEL = 4, SD_FD_GROUPS = 5 };

/* What a sandbox's process runs; returns the exit status. */
int sd_agent_main(void);

static inline sd_agent *sd_conn_agent(const sd_conn *conn)
{
    return (sd_agent *)conn->server->user;
}

/* ---- files.c ---- */

void sd_handle_upload(sd_conn *conn);
void sd_handle_download(sd_conn *conn);

/* ---- processes.c ---- */

typedef enum sd_kinship { SD_CHILDREN, SD_SESSION } sd_kinship;

/* Kills the children of a process, or all that belong to its session. Returns how many it found
   alive. */
size_t sd_kill_all(sd_kinship kinship, pid_t pid);

/* ---- spawn.c ---- */

typedef struct sd_spawn {
    const char *command, *shell, *cwd, *home;
    const sd_json *env;  /* an object of strings, or NULL */
    uint64_t file_limit; /* RLIMIT_NOFILE */
    const sd_command_limits *limits;
    int input;       /* 1: a pipe for stdin, 0: /dev/null */
    int die_with_us; /* 1: killed when this process ends */
    int pty;         /* 1: a pseudo-terminal, of this size, instead of pipes */
    int columns, rows;
    /* The result; -1: none. */
    pid_t pid;    /* also the process group and the session */
    int fds[3];   /* our ends, non-blocking; with a pseudo-terminal only stdin and stdout */
    int terminal; /* its other end */
} sd_spawn;

/* Starts shell -c command. NULL, or why that failed, to be freed. */
char *sd_spawn_run(sd_spawn *spawn);

/* ---- command.c ---- */

enum { SD_STDOUT = 0, SD_STDERR = 1 };

typedef struct sd_command_options {
    const char *command, *shell, *cwd;
    const char *id;     /* NULL: one is made */
    const sd_json *env; /* an object of strings, or NULL */
    int64_t timeout_ms; /* 0: none */
    int64_t idle_ms;    /* SBX_NONE: never */
    int64_t ttl_ms;     /* SBX_NONE: for ever */
    int kill_on_disconnect, close_stdin;
    int pty, columns, rows; /* the size only with a pseudo-terminal */
} sd_command_options;

/* Something that reads a command's output. */
typedef struct sd_reader sd_reader;
struct sd_reader {
    void (*on_output)(sd_reader *reader); /* there is more, or the command is done */
    void (*on_room)(sd_reader *reader);   /* the command has read from its input; or NULL */
    sd_command *command;                  /* NULL: not attached */
    uint64_t at[2];                       /* how much of each stream it has read */
    sd_reader *next;
};

typedef struct sd_stream sd_stream;
struct sd_command {
    sd_agent *agent;
    char *id;
    pid_t pid;
    int exited;             /* the shell has ended */
    int done;               /* and all its output is in the rings */
    int exit_code;          /* valid once done */
    const char *error_type; /* valid once done; NULL: it ended by itself, with exit_code */
    char *error;
    /* Its own. */
    sd_ring rings[2];
    sd_stream *streams[2]; /* NULL: at its end */
    sd_reader *readers;
    uv_pipe_t *input;     /* NULL: closed */
    size_t input_waiting; /* memory that the input takes which was not read yet */
    int input_ending;
    int terminal; /* the pseudo-terminal that controls it; -1: none, or the shell has ended */
    char typed;   /* the last character of its input */
    int64_t timeout_ms, idle_ms, ttl_ms;
    int kill_on_disconnect, grace_over, forgotten;
    size_t expected;  /* how many readers are to come back after a reload */
    uint64_t held[2]; /* valid then: what the slowest of them had read */
    uv_timer_t limit; /* how long it may run; then how long its children may go on writing */
    uv_timer_t idle;  /* how long it may run without a client; then how long it is remembered */
    uv_timer_t hold;  /* how long readers are expected */
    int handles;
    sd_command *next; /* an older one */
};

/* Reads the fields that a command has over HTTP and WebSocket; what is wrong is noted. The time
   limit is called timeout_seconds by some clients, and by old ones timeout everywhere. */
void sd_command_fields(const sd_json *json, sd_command_options *options, sd_problems *problems);

/* Starts a command. NULL: *error says why, to be freed. */
sd_command *sd_command_start(sd_agent *agent, const sd_command_options *options, char **error);
sd_command *sd_command_find(const sd_agent *agent, const char *id);
/* 1 if there was such a command, and its time is over. */
int sd_command_expired(const sd_agent *agent, const char *id);
/* A child of the agent has ended. */
void sd_command_reaped(sd_agent *agent, pid_t pid, int wait_status);

/* From now on the reader is told when there is something to read from at on. */
void sd_command_attach(sd_command *command, sd_reader *reader);
/* Also when it is not attached. */
void sd_command_detach(sd_reader *reader);
/* What the reader has not read yet, at most SD_CHUNK bytes, whole characters; corrects reader->at
   to where that starts. */
size_t sd_command_read(sd_reader *reader, int stream, const char **text);
/* The reader has read so much. */
void sd_command_took(sd_reader *reader, int stream, size_t len);
/* 1 when the command is done and the reader has read all. */
int sd_command_over(const sd_reader *reader);

/* 1 if the command cannot write on before the reader has read more. */
int sd_command_waits_for(const sd_reader *reader);

/* Kills all processes of the command's session. */
void sd_command_kill(sd_command *command);
/* Returns how much memory is now taken by input that the command has not read yet. */
size_t sd_command_input(sd_command *command, const char *data, size_t len);
size_t sd_command_input_waiting(const sd_command *command);
/* The end of input; to a terminal it is typed. */
void sd_command_close_input(sd_command *command);
/* Does nothing without a terminal. */
void sd_command_resize(sd_command *command, int columns, int rows);

/* ---- execute.c, session.c ---- */

void sd_handle_execute(sd_conn *conn);
void sd_handle_session(sd_conn *conn);

/* ---- root.c ---- */

/* Words of a command line. */
typedef struct sd_words {
    char **items; /* ended by NULL */
    size_t count;
} sd_words;

void sd_words_add(sd_words *words, char *word); /* word is owned by words then */
void sd_words_free(sd_words *words);

/* A directory of ours that a sandbox has at a path of its own. Both are absolute, and path has no
   part that is empty, "." or "..", is no place that sd_root_make or bubblewrap needs, and lies in
   none of the other mounts: nothing here checks that. */
typedef struct sd_mount {
    char *directory, *path;
} sd_mount;

/* Makes what a sandbox has of its own below root, and adds to bwrap the options that mount the
   rest. image is the directory of an image, NULL: the host's system directories; seen is the name
   by which bubblewrap will find it. owner owns all that is made, -1: this process's user. 0 or -1
   with errno. */
int sd_root_make(const char *root, const char *image, const char *seen, uid_t owner,
                 sd_words *bwrap);
/* Behind sd_root_make: makes the mount points and adds to bwrap the options that mount the
   directories, which then belong to owner. seen are the names by which bubblewrap will find them,
   NULL: their own. NULL, or the problem, to be freed; *refused is 1 when that is a path that can be
   no mount point in this image. */
char *sd_root_mount(const char *root, const char *image, uid_t owner, const sd_mount *mounts,
                    size_t count, char *const *seen, sd_words *bwrap, int *refused);

/* ---- sandbox.c ---- */

/* How sandboxes are made on this machine; found out once, at the start. */
typedef struct sd_isolation {
    int none;           /* --no-isolation */
    char *bwrap;        /* its path */
    char *self;         /* this program's */
    uid_t user;         /* that sandboxes run as, outside; 0: as we do. Only root can choose */
    int disable_userns; /* 1: bubblewrap can forbid further user namespaces */
    const char *stage;  /* with user: where the child mounts what that user must see */
    sd_limits limits;
    char *settings;      /* that agents get: lines of "name value", or NULL */
    struct rlimit files; /* RLIMIT_NOFILE that sandboxes get */
} sd_isolation;

/* Finds out; directory is for a trial. 0, or -1 when stderr has been told what is missing. */
int sd_isolation_find(sd_isolation *isolation, const char *directory);

typedef struct sd_sandbox sd_sandbox;
struct sd_sandbox {
    uv_loop_t *loop;
    const sd_isolation *isolation;
    const sd_key *key;
    const char *image;     /* a root directory, or NULL: the host's system directories */
    const char *directory; /* its own; "root" in it becomes the sandbox's root */
    const sd_mount *mounts;
    size_t mount_count;
    double cpus;   /* how many processors it may use; 0: all */
    double memory; /* how many bytes; 0: any */
    int port;      /* of its data plane, once it was started */
    int refused;   /* 1: it was not started because it can never be as it was asked for */
    void *user;
    void (*on_ready)(sd_sandbox *sandbox);
    void (*on_exit)(sd_sandbox *sandbox); /* no process is left; the structure may be freed */
    char last_words[256];                 /* the last line that it wrote to stderr */
    /* Its own. */
    pid_t pid;
    int ready, stopping, handles, attempts;
    uv_pipe_t channel, errors;
    uv_timer_t timer;
    size_t line_len;
    char line[256];
    sd_sandbox *next;
};

/* Starts the process. on_ready or on_exit follows. NULL, or why nothing was started, to be
   freed. */
char *sd_sandbox_start(sd_sandbox *sandbox);
/* Ends it; on_exit follows. */
void sd_sandbox_stop(sd_sandbox *sandbox);
/* To be called after SIGCHLD. */
void sd_sandbox_reap(void);
/* All sandboxes send their WebSockets' clients away, to come back; nothing else changes. */
void sd_sandbox_reload_all(void);

/* ---- store.c ---- */

/* Each resource that is kept is a file DIRECTORY/ID.json. What these functions did when they return
   0 stays so, whatever happens to the process or the machine. Otherwise they return an errno, and
   the file is mostly as before, but may be as wanted: who goes on without the change, undoes it. */
int sd_store_put(const char *directory, const char *id, const char *text, size_t len);
int sd_store_remove(const char *directory, const char *id);

/* Hands all that is stored to take, which returns NULL, or what is wrong with a document, to be
   freed. stderr is told of files that are damaged or no resource's; they are left alone. */
int sd_store_load(const char *directory,
                  char *(*take)(void *user, const char *id, const sd_json *document), void *user);

/* 1 if name is an id followed by ending. */
int sd_is_id(const char *name, const char *ending);

/* ---- named.c ---- */

typedef struct sd_control sd_control;

/* The first member of every resource. */
typedef struct sd_named sd_named;
struct sd_named {
    char *name, id[37], created_at[32], updated_at[32];
    sd_named *next;
};

/* What kinds of resources differ in. */
typedef struct sd_kind {
    const char *path;         /* "/pools" */
    const char *plural;       /* "pools": the list in an answer, and the directory */
    const char *noun, *title; /* "pool", "Pool": in sentences */
    void (*write)(sbx_json_writer *w, const sd_named *item); /* the fields of its own */
    /* What changes by itself, and so is not stored; NULL: nothing does. */
    void (*write_state)(sbx_json_writer *w, const sd_named *item);
    /* Makes one of a request's document, or of one that was stored, without what sd_named_init and
       the store know. NULL: the problems say why. read is NULL if the kind is not stored. */
    sd_named *(*read)(const sd_control *control, const sd_json *json, int stored,
                      sd_problems *problems);
    void (*free)(sd_named *item); /* frees what is its own, and the item */
} sd_kind;

/* The resources of one kind, in the order in which they were made. */
typedef struct sd_list {
    const sd_kind *kind;
    char *directory; /* NULL: these are not stored */
    sd_named *first;
    size_t count;
} sd_list;

/* Gives a new item its name (a copy), id and times. */
void sd_named_init(sd_named *item, const char *name);
void sd_named_free(const sd_kind *kind, sd_named *item);

void sd_list_append(sd_list *list, sd_named *item);
void sd_list_take(sd_list *list, sd_named *item);
void sd_list_free(sd_list *list);
sd_named *sd_list_find(const sd_list *list, const char *name);
sd_named *sd_list_find_id(const sd_list *list, const char *id);
/* Restores what is stored. 0, or -1 when stderr has been told that nothing can be stored here. */
int sd_list_load(sd_control *control, sd_list *list);

/* The list that a request's path is about, and the item that it names: NULL if there is none, which
   was answered. */
sd_list *sd_conn_list(const sd_conn *conn);
sd_named *sd_conn_item(sd_conn *conn);
void sd_reply_item(sd_conn *conn, int status, const sd_kind *kind, const sd_named *item);
void sd_handle_list(sd_conn *conn);
void sd_handle_get(sd_conn *conn);
/* PATCH of what can change in nothing but its name. */
void sd_handle_rename(sd_conn *conn);

/* Answers that something could not be kept, and why. */
void sd_reply_unsaved(sd_conn *conn, const sd_kind *kind, const char *name, int error);

/* Each of these returns 1, or 0 when it was refused: that was answered, and nothing is changed. */

/* The name is free; NULL always is. */
int sd_list_accepts(sd_conn *conn, const sd_list *list, const char *name);
/* There are fewer than limit. */
int sd_list_has_room(sd_conn *conn, const sd_kind *kind, size_t count, size_t limit);
/* A new item, in no list yet; NULL instead of 0. */
sd_named *sd_list_make(sd_conn *conn, const sd_list *list);
/* Stores a new item and takes it into the list. */
int sd_list_insert(sd_conn *conn, sd_list *list, sd_named *item);
/* Gives an item a name (NULL: none), and calls swap (NULL: not), which exchanges fields of the item
   with those in change: once, or, when it could not be stored, twice. */
int sd_list_change(sd_conn *conn, sd_list *list, sd_named *item, const char *name,
                   void (*swap)(sd_named *item, void *change), void *change);
/* Takes an item out of the list and the store. */
int sd_list_remove(sd_conn *conn, sd_list *list, sd_named *item);
/* The same where nobody waits for an answer. 0 or an errno. */
int sd_list_drop(sd_list *list, sd_named *item);

/* ---- volumes.c, templates.c, boxes.c, pools.c, control.c ---- */

typedef struct sd_image {
    char *name, *directory;
} sd_image;

/* SD_VOLUMES to SD_POOLS are stored, and restored in this order: each refers to those before. */
enum { SD_VOLUMES, SD_TEMPLATES, SD_POOLS, SD_BOXES, SD_LISTS };

struct sd_control {
    uv_loop_t *loop;
    int port;
    const char *data; /* where all state is; NULL: a temporary directory */
    sd_key key;
    sd_image *images;
    size_t image_count;
    sd_isolation isolation;
    size_t max_sandboxes, max_volumes;
    /* Its own. */
    sd_server server;
    sd_list lists[SD_LISTS];
    size_t box_count; /* those in pools, too */
    uv_signal_t signals[4];
    int stopping;
    uint64_t stopped_at; /* when that began */
    size_t leaving;      /* what is not in a list any more, but not quite gone */
};

static inline sd_control *sd_conn_control(const sd_conn *conn)
{
    return (sd_control *)conn->server->user;
}

/* Serves until SIGINT or SIGTERM. Returns the exit status. */
int sd_control_run(sd_control *control);
/* Something that leaves is gone: ends the loop if that was the last thing to wait for. */
void sd_control_left(sd_control *control);
/* Removes a directory, in another thread. It owns path. */
void sd_control_remove(sd_control *control, char *path);

typedef struct sd_volume {
    sd_named named;
    char *size;
    size_t mounted; /* by so many sandboxes */
} sd_volume;

extern const sd_kind sd_volume_kind;
/* Prepares the directories of all volumes, and removes those of deleted ones. 0, or -1 when stderr
   has been told why. */
int sd_volumes_recover(sd_control *control);
/* What is mounted, to be freed. */
char *sd_volume_content(const sd_control *control, const sd_volume *volume);
void sd_handle_volume_create(sd_conn *conn);
void sd_handle_volume_update(sd_conn *conn);
void sd_handle_volume_delete(sd_conn *conn);

typedef struct sd_template_mount {
    sd_volume *volume;
    char *path;
} sd_template_mount;

typedef struct sd_template {
    sd_named named;
    char *image, *cpu, *memory, *storage; /* storage: NULL if there is no limit */
    sd_template_mount *mounts;
    size_t mount_count;
} sd_template;

extern const sd_kind sd_template_kind;
sd_template *sd_template_find(const sd_control *control, const char *name);
/* How many templates mount the volume. */
size_t sd_templates_of(const sd_control *control, const sd_volume *volume);
void sd_handle_template_create(sd_conn *conn);
void sd_handle_template_delete(sd_conn *conn);

typedef struct sd_pool sd_pool;

extern const sd_kind sd_box_kind;
/* How many sandboxes were made from the template, but for those in pools. */
size_t sd_boxes_of(const sd_control *control, const sd_template *template);
/* The directory of the image that sandboxes of the template (NULL: none) have. 0: there is no such
   image. */
int sd_image_find(const sd_control *control, const sd_template *template, const char **directory);
void sd_handle_box_create(sd_conn *conn);
void sd_handle_box_status(sd_conn *conn);
void sd_handle_box_delete(sd_conn *conn);
/* Starts one in a pool's list. sd_pool_ready or sd_pool_failed follows, the latter perhaps at
   once. */
void sd_box_warm(sd_control *control, sd_pool *pool, sd_list *list, sd_template *template);
int sd_box_is_ready(const sd_named *item);
/* 0 as soon as its process has ended, while sd_box_is_ready may need a moment to notice. */
int sd_box_is_alive(const sd_named *item);
/* Deletes all that are in a list. */
void sd_boxes_delete(sd_list *list);
void sd_box_delete(sd_named *item);

extern const sd_kind sd_pool_kind;
/* How many pools are of the template. */
size_t sd_pools_of(const sd_control *control, const sd_template *template);
/* A sandbox that is ready, and still in its pool's list; NULL: there is none. */
sd_named *sd_pools_offer(const sd_control *control, const sd_template *template);
/* There may be room for a sandbox, or one less than a pool should have. */
void sd_pools_refill(const sd_control *control);
/* What became of a sandbox in the pool, or of one that is not there any more. */
void sd_pool_ready(sd_pool *pool);
void sd_pool_failed(sd_pool *pool, const char *message);
/* Restored pools begin to work; all of them end to. */
void sd_pools_start(sd_control *control);
void sd_pools_stop(sd_control *control);
void sd_handle_pool_create(sd_conn *conn);
void sd_handle_pool_update(sd_conn *conn);
void sd_handle_pool_delete(sd_conn *conn);

#endif
