/* sbx: what the files of the tool share. Each subcommand is a function of argc and argv that
   returns the exit code; session.c has what they all need. */
#ifndef SBX_TOOL_H
#define SBX_TOOL_H

#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE 1
#endif

#include "sandbox.h"
#include "sandbox_posix.h"

#include <getopt.h>

/* The exit code for the tool's own failures, and the options that every subcommand takes. */
enum { FAILURE = 255 };
enum { OPTION_ENDPOINT = 1000, OPTION_OTHERS };
#define SHORT_COMMON "hv"
/* clang-format off */
#define LONG_COMMON \
    {"endpoint", required_argument, NULL, OPTION_ENDPOINT}, \
    {"verbose", no_argument, NULL, 'v'}, \
    {"help", no_argument, NULL, 'h'}, \
    {NULL, 0, NULL, 0}
/* clang-format on */

typedef struct subcommand {
    const char *name;
    const char *summary;
    const char *help;
    int (*main)(int argc, char **argv);
} subcommand;

int run_main(int argc, char **argv);
int copy_main(int argc, char **argv);
int list_main(int argc, char **argv);
int create_main(int argc, char **argv);
int remove_main(int argc, char **argv);
int templates_main(int argc, char **argv);
int shell_main(int argc, char **argv);
int attach_main(int argc, char **argv);
int kill_main(int argc, char **argv);
extern const char run_help[], copy_help[], list_help[], create_help[], remove_help[],
    templates_help[], shell_help[], attach_help[], kill_help[];

/* ---- session.c ---- */

/* Which subcommand this is, for messages and --help. */
void session_begin(const subcommand *current);

/* Makes the client and starts to listen to signals: 0, or FAILURE after saying why. */
int session_open(void);

/* Closes the client. Returns the exit code of the process: code, or what a signal or a closed pipe
   makes of it. */
int session_close(int code);

sbx_client *session_client(void);

/* For calls that a first Ctrl-C ends; and for those that clean up, which a later one ends. */
sbx_call session_call(void);
sbx_call session_cleanup_call(void);

/* The signal that asked for the end; 0: none yet. The descriptor is readable once there is one. */
int session_interrupted(void);
int session_signal_fd(void);

/* Does what an option that every subcommand has asks for. Returns the exit code, or -1 to go on. */
int common_option(int option);

/* The compiler checks the arguments of what takes a format like printf's. */
#ifdef __GNUC__
#define FORMAT __attribute__((format(printf, 1, 2)))
#else
#define FORMAT
#endif

/* One line on stderr, after the names of the tool and the subcommand. */
FORMAT void complain(const char *format, ...);

/* Says what is wrong with the command line and where the help is. Returns FAILURE. */
FORMAT int usage_error(const char *format, ...);

/* Says why a call failed; what is its object, or NULL. Silent if it ended by Ctrl-C, or because of
   output whose failure was reported already. Returns FAILURE. */
int call_failed(const char *what, const sbx_error *err);

/* Writes all of it, however slow the reader is. Non-zero: a signal came, or the output failed,
   which is then reported. */
int write_fully(int fd, const void *data, size_t len);

/* Reads some bytes as an sbx_source_fn does. Not SBX_OK: there is nothing yet (SBX_AGAIN), a signal
   came, or the input failed, which is then reported. */
sbx_status read_some(int fd, void *buf, size_t cap, size_t *n);

/* Flushes stdout. Returns 0, or FAILURE after saying why. */
int flush_stdout(void);

/* A name that nothing else has. */
void unique_name(char out[64]);

/* Deletes a sandbox or a template that the tool made for itself. Complains if that fails. */
void delete_temporary_sandbox(const char *name);
void delete_temporary_template(const char *name);

/* 1 if something may exist on the service after this outcome of its creation. */
int may_exist(const sbx_error *err);

/* Text for a terminal or a log: control characters become question marks. Returns the number of
   characters; at most cap bytes with the final 0 are written. */
size_t printable(const char *text, char *out, size_t cap);

/* A number of seconds, fractions allowed, in milliseconds; 0 becomes SBX_NONE. Non-zero: it is not
   one. */
int parse_seconds(const char *text, int64_t *ms);

/* ---- terminal.c ---- */

/* If stdin is a terminal, gives all its keys to whoever reads them, until terminal_restore or the
   end of this process. */
void terminal_take(void);
void terminal_restore(void);
int terminal_is_taken(void);

/* The window's size, and its being known: 0, or -1 if there is none. The descriptor is readable when
   it has changed; -1 while the terminal is not taken. */
int terminal_size(int *columns, int *rows);
int terminal_resized_fd(void);

/* ---- follow.c ---- */

typedef struct follow_options {
    int input; /* stdin goes to the command */
    int pty;   /* the command has a terminal: this one, if it is one */
    int leave; /* a signal leaves the command running instead of killing it */
} follow_options;

/* Connects a command with this process's standard streams until its end. Returns its exit code, or
   FAILURE after saying why. */
int follow(sbx_command *command, const follow_options *options);

/* ---- progress.c ---- */

/* A line on stderr that shows how far a transfer is. */
typedef struct progress {
    int on;
    int open; /* a line was drawn and not ended */
    int columns;
    int64_t started_ms, drawn_ms;
    char label[256];
    size_t label_len; /* in characters */
} progress;

/* Draws only if stderr is a terminal and quiet is 0. */
void progress_begin(progress *p, const char *label, int quiet);
int progress_update(void *p, int64_t done, int64_t total); /* an sbx_progress_fn */

/* Ends the line, or removes it after a failure, so that a message can follow. */
void progress_end(progress *p, int failed);

#endif
