/* request: the operation that is one exchange, and what control and files share to start one.

   Promises: arguments are checked before anything is sent; the outcome is set only on success. */
#include "internal.h"

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
