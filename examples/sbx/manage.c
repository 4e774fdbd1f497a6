/* sbx ls, create, rm, templates: what there is on the service. */
#include "sbx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- tables and JSON ---- */

enum { MAX_COLUMNS = 6 };

/* What ls and templates print: rows of strings, lent by the list that they come from. */
typedef struct table {
    int columns, shown; /* the first ones are shown as a table, all are in the JSON */
    const char *keys[12];
    const char *titles[MAX_COLUMNS];
    const char *(*cell)(const void *list, size_t row, int column); /* never NULL */
    const void *list;
    size_t rows;
} table;

static void print_names(const table *t)
{
    char name[4096];
    size_t row;
    for (row = 0; row < t->rows; row++) {
        printable(t->cell(t->list, row, 0), name, sizeof(name));
        printf("%s\n", name);
    }
}

static size_t cell_text(const table *t, size_t row, int column, char *out, size_t cap)
{
    const char *text = t->cell(t->list, row, column);
    return printable(*text ? text : "-", out, cap);
}

static void print_table(const table *t)
{
    size_t widths[MAX_COLUMNS], row, width;
    char text[512];
    int column;

    for (column = 0; column < t->shown; column++) {
        widths[column] = strlen(t->titles[column]);
        for (row = 0; row < t->rows; row++) {
            width = cell_text(t, row, column, text, sizeof(text));
            if (width > widths[column])
                widths[column] = width;
        }
    }
    for (column = 0; column < t->shown; column++)
        printf("%-*s%s", column + 1 < t->shown ? (int)widths[column] : 0, t->titles[column],
               column + 1 < t->shown ? "  " : "\n");
    for (row = 0; row < t->rows; row++) {
        for (column = 0; column < t->shown; column++) {
            width = cell_text(t, row, column, text, sizeof(text));
            if (column + 1 < t->shown)
                printf("%s%*s", text, (int)(widths[column] - width) + 2, "");
            else
                printf("%s\n", text);
        }
    }
}

static void write_json(sbx_json_writer *w, const table *t)
{
    size_t row;
    int column;
    sbx_json_begin_array(w);
    for (row = 0; row < t->rows; row++) {
        sbx_json_begin_object(w);
        for (column = 0; column < t->columns; column++) {
            const char *text = t->cell(t->list, row, column);
            sbx_json_key(w, t->keys[column]);
            if (*text)
                sbx_json_string(w, text, strlen(text));
            else
                sbx_json_null(w);
        }
        sbx_json_end_object(w);
    }
    sbx_json_end_array(w);
}

static int print_json(const table *t)
{
    sbx_json_writer w;
    size_t len = 0;
    char *text;

    sbx_json_writer_init(&w, NULL, 0);
    write_json(&w, t);
    if (sbx_json_writer_finish(&w, &len) != SBX_OK) {
        complain("the list cannot be written as JSON");
        return FAILURE;
    }
    text = (char *)malloc(len + 1);
    if (!text) {
        complain("out of memory");
        return FAILURE;
    }
    sbx_json_writer_init(&w, text, len);
    write_json(&w, t);
    fwrite(text, 1, len, stdout);
    putchar('\n');
    free(text);
    return 0;
}

enum { AS_TABLE, AS_NAMES, AS_JSON };

static int print_rows(const table *t, int as)
{
    int code = 0;
    if (as == AS_JSON)
        code = print_json(t);
    else if (as == AS_NAMES)
        print_names(t);
    else
        print_table(t);
    return code == 0 ? flush_stdout() : code;
}

/* The options that ls and templates have. Returns the exit code, or -1 to go on. */
static int parse_list(int argc, char **argv, int *as)
{
    enum { OPTION_JSON = OPTION_OTHERS };
    static const struct option options[] = {
        {"json", no_argument, NULL, OPTION_JSON},
        {"quiet", no_argument, NULL, 'q'},
        LONG_COMMON,
    };
    int option, code;
    *as = AS_TABLE;
    while ((option = getopt_long(argc, argv, "q" SHORT_COMMON, options, NULL)) != -1) {
        if (option == OPTION_JSON) {
            *as = AS_JSON;
        } else if (option == 'q') {
            *as = AS_NAMES;
        } else {
            code = common_option(option);
            if (code >= 0)
                return code;
        }
    }
    return optind == argc ? -1 : usage_error("it takes no names");
}

/* ---- ls ---- */

const char list_help[] = "Usage: sbx ls [OPTION]..\n"
                         "\n"
                         "Lists the sandboxes as a table.\n"
                         "\n"
                         "Options:\n"
                         "  -q, --quiet     only the names, one a line\n"
                         "  --json          everything, as an array of objects\n"
                         "  --endpoint URL  the service, instead of LANGSMITH_ENDPOINT\n"
                         "  -v, --verbose   say on stderr what happens\n"
                         "  -h, --help      this help\n"
                         "\n"
                         "Exit codes: 0, 255 on failure, 128 + N ended by signal N.\n"
                         "\n"
                         "Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY; see `sbx --help`.\n";

static const char *sandbox_cell(const void *list, size_t row, int column)
{
    const sbx_sandbox *sandbox = &((const sbx_sandboxes *)list)->items[row];
    switch (column) {
    case 0:
        return sandbox->name;
    case 1:
        return sandbox->status;
    case 2:
        return sandbox->template_name;
    case 3:
        return sandbox->snapshot_id;
    case 4:
        return sandbox->created_at;
    case 5:
        return sandbox->updated_at;
    case 6:
        return sandbox->status_message;
    case 7:
        return sandbox->dataplane_url;
    default:
        return sandbox->id;
    }
}

int list_main(int argc, char **argv)
{
    static const table format = {
        9,
        5,
        {"name", "status", "template_name", "snapshot_id", "created_at", "updated_at",
         "status_message", "dataplane_url", "id"},
        {"NAME", "STATUS", "TEMPLATE", "SNAPSHOT", "CREATED"},
        sandbox_cell,
        NULL,
        0,
    };
    table t = format;
    sbx_sandboxes *list;
    sbx_call call;
    sbx_error err;
    int as, code = parse_list(argc, argv, &as);
    if (code >= 0 || (code = session_open()) != 0)
        return code;
    call = session_call();
    if (sbx_sandbox_list(session_client(), &call, &list, &err) == SBX_OK) {
        t.list = list;
        t.rows = list->count;
        code = print_rows(&t, as);
    } else {
        code = call_failed(NULL, &err);
    }
    sbx_free(list);
    return session_close(code);
}

/* ---- templates ---- */

const char templates_help[] =
    "Usage: sbx templates [OPTION]..\n"
    "\n"
    "Lists the templates, from which sandboxes can be made, as a table.\n"
    "\n"
    "Options:\n"
    "  -q, --quiet     only the names, one a line\n"
    "  --json          everything, as an array of objects\n"
    "  --endpoint URL  the service, instead of LANGSMITH_ENDPOINT\n"
    "  -v, --verbose   say on stderr what happens\n"
    "  -h, --help      this help\n"
    "\n"
    "Exit codes: 0, 255 on failure, 128 + N ended by signal N.\n"
    "\n"
    "Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY; see `sbx --help`.\n";

static const char *template_cell(const void *list, size_t row, int column)
{
    const sbx_template *one = &((const sbx_templates *)list)->items[row];
    switch (column) {
    case 0:
        return one->name;
    case 1:
        return one->image;
    case 2:
        return one->cpu;
    case 3:
        return one->memory;
    case 4:
        return one->created_at;
    case 5:
        return one->updated_at;
    case 6:
        return one->storage;
    default:
        return one->id;
    }
}

int templates_main(int argc, char **argv)
{
    static const table format = {
        8,
        5,
        {"name", "image", "cpu", "memory", "created_at", "updated_at", "storage", "id"},
        {"NAME", "IMAGE", "CPU", "MEMORY", "CREATED"},
        template_cell,
        NULL,
        0,
    };
    table t = format;
    sbx_templates *list;
    sbx_call call;
    sbx_error err;
    int as, code = parse_list(argc, argv, &as);
    if (code >= 0 || (code = session_open()) != 0)
        return code;
    call = session_call();
    if (sbx_template_list(session_client(), &call, &list, &err) == SBX_OK) {
        t.list = list;
        t.rows = list->count;
        code = print_rows(&t, as);
    } else {
        code = call_failed(NULL, &err);
    }
    sbx_free(list);
    return session_close(code);
}

/* ---- create ---- */

const char create_help[] =
    "Usage: sbx create [OPTION]..\n"
    "\n"
    "Makes a sandbox, waits until it is ready, and prints its name. If it does not\n"
    "become ready, it is deleted again. Delete it with `sbx rm` when you are done.\n"
    "\n"
    "Options:\n"
    "  --template NAME    make it from this template\n"
    "  --snapshot NAME    make it from this snapshot: its name, or its id, a UUID\n"
    "  --name NAME        its name; a random one by default\n"
    "  --no-wait          print the name at once, and leave the waiting to others\n"
    "  --timeout SECONDS  how long it may take to become ready; 0: any time;\n"
    "                     default 120\n"
    "  --endpoint URL     the service, instead of LANGSMITH_ENDPOINT\n"
    "  -v, --verbose      say on stderr what happens\n"
    "  -h, --help         this help\n"
    "\n"
    "Exit codes: 0, 255 on failure, 128 + N ended by signal N.\n"
    "\n"
    "Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY; see `sbx --help`.\n";

enum {
    OPTION_TEMPLATE = OPTION_OTHERS,
    OPTION_SNAPSHOT,
    OPTION_NAME,
    OPTION_NO_WAIT,
    OPTION_TIMEOUT
};

typedef struct creation {
    sbx_sandbox_options options;
    int no_wait;
    int64_t timeout_ms;
} creation;

static int is_uuid(const char *text)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    size_t i;
    if (strlen(text) != sizeof(form) - 1)
        return 0;
    for (i = 0; form[i]; i++)
        if (form[i] == '-' ? text[i] != '-' : !strchr("0123456789abcdefABCDEF", text[i]))
            return 0;
    return 1;
}

/* Returns the exit code, or -1 to go on. */
static int parse_create(creation *c, int argc, char **argv)
{
    static const struct option options[] = {
        {"template", required_argument, NULL, OPTION_TEMPLATE},
        {"snapshot", required_argument, NULL, OPTION_SNAPSHOT},
        {"name", required_argument, NULL, OPTION_NAME},
        {"no-wait", no_argument, NULL, OPTION_NO_WAIT},
        {"timeout", required_argument, NULL, OPTION_TIMEOUT},
        LONG_COMMON,
    };
    const char *snapshot = NULL;
    int option, code;
    while ((option = getopt_long(argc, argv, SHORT_COMMON, options, NULL)) != -1) {
        if (option == OPTION_TEMPLATE) {
            c->options.template_name = optarg;
        } else if (option == OPTION_SNAPSHOT) {
            snapshot = optarg;
        } else if (option == OPTION_NAME) {
            c->options.name = optarg;
        } else if (option == OPTION_NO_WAIT) {
            c->no_wait = 1;
        } else if (option == OPTION_TIMEOUT) {
            if (parse_seconds(optarg, &c->timeout_ms) != 0)
                return usage_error("--timeout %s: it is not a number of seconds", optarg);
        } else {
            code = common_option(option);
            if (code >= 0)
                return code;
        }
    }
    if (optind < argc)
        return usage_error("it takes no names; did you mean --name %s?", argv[optind]);
    if (c->options.template_name && snapshot)
        return usage_error("--template and --snapshot exclude each other");
    if (snapshot && is_uuid(snapshot))
        c->options.snapshot_id = snapshot;
    else
        c->options.snapshot_name = snapshot;
    return -1;
}

static int wait_until_ready(const char *name, const creation *c)
{
    sbx_wait_options options;
    sbx_sandbox *ready;
    sbx_error err;
    memset(&options, 0, sizeof(options));
    options.ready_timeout_ms = c->timeout_ms;
    options.poll_interval_ms = 250;
    options.call = session_call();
    if (sbx_sandbox_wait(session_client(), name, &options, &ready, &err) != SBX_OK)
        return call_failed(name, &err);
    sbx_free(ready);
    return 0;
}

/* It always gives the name, so that the sandbox can be deleted even if the answer to its creation
   never comes, or is not waited for. */
static int create(creation *c)
{
    sbx_sandbox *sandbox;
    sbx_error err;
    char random_name[64];
    int named = c->options.name != NULL;
    int code = 0;

    unique_name(random_name);
    if (!named)
        c->options.name = random_name;
    c->options.no_wait = 1;
    c->options.call = session_call();
    if (sbx_sandbox_create(session_client(), &c->options, &sandbox, &err) != SBX_OK) {
        code = call_failed(c->options.name, &err);
        /* One of the given name may be somebody else's. */
        if (!named && may_exist(&err))
            delete_temporary_sandbox(random_name);
        else if (named && session_interrupted())
            complain("%s: it may have been made", c->options.name);
        return code;
    }
    if (!c->no_wait && sandbox->state != SBX_STATE_READY)
        code = wait_until_ready(sandbox->name, c);
    if (code == 0) {
        printf("%s\n", sandbox->name);
        code = flush_stdout();
    }
    if (code != 0)
        delete_temporary_sandbox(sandbox->name);
    sbx_free(sandbox);
    return code;
}

int create_main(int argc, char **argv)
{
    creation c;
    int code;
    memset(&c, 0, sizeof(c));
    code = parse_create(&c, argc, argv);
    if (code >= 0 || (code = session_open()) != 0)
        return code;
    return session_close(create(&c));
}

/* ---- rm ---- */

const char remove_help[] =
    "Usage: sbx rm [OPTION].. NAME..\n"
    "\n"
    "Deletes sandboxes and all that runs in them. One that cannot be deleted does not\n"
    "keep it from deleting the others.\n"
    "\n"
    "Options:\n"
    "  --endpoint URL  the service, instead of LANGSMITH_ENDPOINT\n"
    "  -v, --verbose   say on stderr what happens\n"
    "  -h, --help      this help\n"
    "\n"
    "Exit codes: 0 all are deleted, 255 if one was not, 128 + N ended by signal N.\n"
    "\n"
    "Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY; see `sbx --help`.\n";

int remove_main(int argc, char **argv)
{
    static const struct option options[] = {
        LONG_COMMON,
    };
    int option, code, result = 0;
    while ((option = getopt_long(argc, argv, SHORT_COMMON, options, NULL)) != -1) {
        code = common_option(option);
        if (code >= 0)
            return code;
    }
    if (optind == argc)
        return usage_error("which sandbox?");
    code = session_open();
    if (code != 0)
        return code;
    for (; optind < argc && !session_interrupted(); optind++) {
        sbx_call call = session_call();
        sbx_error err;
        if (sbx_sandbox_delete(session_client(), argv[optind], &call, &err) != SBX_OK)
            result = call_failed(argv[optind], &err);
    }
    return session_close(result);
}
