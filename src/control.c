/* control: templates and the life of sandboxes, on the control plane.

   Promises: every argument is checked before anything is sent; a result is one allocation. Each
   blocking call is its _start, the one wait loop, and the end of the operation. */
#include "internal.h"

#ifndef SBX_NO_CONTROL

/* Starts the request op that all calls here are, and hands it to the caller. */
static sbx_status sbxi_control_new(sbx_client *client, const char *method, const char *collection,
                                   const char *name, const char *after, const sbx_call *call,
                                   sbxi_request **r, sbx_error *err)
{
    sbx_status st;
    sbxi_error_clear(err);
    st = name ? sbxi_check_name("name", name, err) : SBX_OK;
    if (st != SBX_OK)
        return st;
    st = sbxi_request_new(client, &sbxi_request_type, method, client->endpoint, collection, name,
                          after, call, r, err);
    if (st == SBX_OK && (strcmp(method, "GET") == 0 || strcmp(method, "DELETE") == 0))
        (*r)->exchange.flags |= SBXI_IDEMPOTENT;
    return st;
}

/* What the service should do with the named resource, and how its answer is read. */
static void sbxi_control_set(sbxi_request *r, sbxi_action action, const char *resource_type,
                             sbx_status (*done)(sbxi_request *r, void *out), void *out)
{
    r->action = action;
    r->resource_type = resource_type;
    r->done = done;
    r->out = out;
}

/* GET or DELETE of one resource, or GET of all (name NULL). collection starts with a slash, and
   ends with one if there is a name. */
static sbx_status sbxi_control_start(sbx_client *client, sbxi_action action, const char *collection,
                                     const char *name, const char *after, const sbx_call *call,
                                     const char *resource_type,
                                     sbx_status (*done)(sbxi_request *r, void *out), void *out,
                                     sbx_op **op, sbx_error *err)
{
    sbxi_request *r;
    sbx_status st;
    *op = NULL;
    if (action != SBXI_LIST && !name)
        name = "";
    st = sbxi_control_new(client, action == SBXI_DELETE ? "DELETE" : "GET", collection, name, after,
                          call, &r, err);
    if (st != SBX_OK)
        return st;
    sbxi_control_set(r, action, resource_type, done, out);
    *op = &r->op;
    return SBX_OK;
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

#define SBXI_TEMPLATE_RECORD(list)                                                                 \
    {                                                                                              \
        list, sizeof(sbx_template), sbxi_template_fields, SBXI_COUNT(sbxi_template_fields),        \
            "volume_mounts[]", sizeof(sbx_volume_mount), offsetof(sbx_template, volume_mounts),    \
            offsetof(sbx_template, volume_mount_count), sbxi_mount_fields,                         \
            SBXI_COUNT(sbxi_mount_fields)                                                          \
    }
static const sbxi_record sbxi_template_record = SBXI_TEMPLATE_RECORD("");
static const sbxi_record sbxi_templates_record = SBXI_TEMPLATE_RECORD("templates[]");

static sbx_status sbxi_template_done(sbxi_request *r, void *out)
{
    void *object;
    char *items;
    size_t count;
    sbx_status st = sbxi_decode(r->op.client, &r->exchange.answer, &sbxi_template_record, 0,
                                &object, &items, &count, &r->op.error);
    if (st == SBX_OK)
        *(sbx_template **)out = (sbx_template *)object;
    return st;
}

static sbx_status sbxi_templates_done(sbxi_request *r, void *out)
{
    void *object;
    char *items;
    size_t count;
    sbx_status st = sbxi_decode(r->op.client, &r->exchange.answer, &sbxi_templates_record,
                                sizeof(sbx_templates), &object, &items, &count, &r->op.error);
    if (st == SBX_OK) {
        sbx_templates *list = (sbx_templates *)object;
        list->items = (const sbx_template *)(const void *)items;
        list->count = count;
        *(sbx_templates **)out = list;
    }
    return st;
}

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
    sbxi_request *r;
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st != SBX_OK)
        return st;
    st = sbxi_template_check(options, err);
    if (st == SBX_OK)
        st = sbxi_control_new(client, "POST", "/templates", NULL, "", &options->call, &r, err);
    if (st != SBX_OK)
        return st;
    st = sbxi_request_json(r, sbxi_template_json, options, err);
    if (st != SBX_OK) {
        sbx_op_free(&r->op);
        return st;
    }
    sbxi_control_set(r, SBXI_CREATE, "template", sbxi_template_done, out);
    *op = &r->op;
    return SBX_OK;
}

SBX_API sbx_status sbx_template_create(sbx_client *client, const sbx_template_options *options,
                                       sbx_template **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_template_create_start(client, options, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_template_get_start(sbx_client *client, const char *name,
                                          const sbx_call *call, sbx_template **out, sbx_op **op,
                                          sbx_error *err)
{
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_start(client, SBXI_GET, "/templates/", name, "", call, "template",
                              sbxi_template_done, out, op, err);
}

SBX_API sbx_status sbx_template_get(sbx_client *client, const char *name, const sbx_call *call,
                                    sbx_template **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_template_get_start(client, name, call, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_template_list_start(sbx_client *client, const sbx_call *call,
                                           sbx_templates **out, sbx_op **op, sbx_error *err)
{
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_start(client, SBXI_LIST, "/templates", NULL, "", call, "template",
                              sbxi_templates_done, out, op, err);
}

SBX_API sbx_status sbx_template_list(sbx_client *client, const sbx_call *call, sbx_templates **out,
                                     sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_template_list_start(client, call, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_template_delete_start(sbx_client *client, const char *name,
                                             const sbx_call *call, sbx_op **op, sbx_error *err)
{
    sbx_status st = sbxi_check_start(client, op, op, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_start(client, SBXI_DELETE, "/templates/", name, "", call, "template", NULL,
                              NULL, op, err);
}

SBX_API sbx_status sbx_template_delete(sbx_client *client, const char *name, const sbx_call *call,
                                       sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_template_delete_start(client, name, call, &op, err), &op, err);
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
    {"updated_at", SBXI_TEXT, offsetof(sbx_sandbox, updated_at)}};

#define SBXI_SANDBOX_RECORD(list)                                                                  \
    {                                                                                              \
        list, sizeof(sbx_sandbox), sbxi_sandbox_fields, SBXI_COUNT(sbxi_sandbox_fields), NULL, 0,  \
            0, 0, NULL, 0                                                                          \
    }
static const sbxi_record sbxi_sandbox_record = SBXI_SANDBOX_RECORD("");
static const sbxi_record sbxi_sandboxes_record = SBXI_SANDBOX_RECORD("sandboxes[]");

static const sbxi_field sbxi_status_fields[] = {
    {"status", SBXI_TEXT, offsetof(sbx_sandbox_status, status)},
    {"status_message", SBXI_TEXT, offsetof(sbx_sandbox_status, status_message)}};

static const sbxi_record sbxi_status_record = {"",
                                               sizeof(sbx_sandbox_status),
                                               sbxi_status_fields,
                                               SBXI_COUNT(sbxi_status_fields),
                                               NULL,
                                               0,
                                               0,
                                               0,
                                               NULL,
                                               0};

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

/* What the service did not say: a sandbox without a status is ready. */
static void sbxi_sandbox_complete(sbx_client *client, sbx_sandbox *items, size_t count)
{
    size_t i;
    for (i = 0; i < count; i++) {
        items[i].client = client;
        if (!*items[i].status)
            items[i].status = "ready";
        items[i].state = sbxi_state_of(items[i].status);
    }
}

static sbx_status sbxi_sandbox_done(sbxi_request *r, void *out)
{
    void *object;
    char *items;
    size_t count;
    sbx_status st = sbxi_decode(r->op.client, &r->exchange.answer, &sbxi_sandbox_record, 0, &object,
                                &items, &count, &r->op.error);
    if (st == SBX_OK) {
        sbxi_sandbox_complete(r->op.client, (sbx_sandbox *)object, count);
        *(sbx_sandbox **)out = (sbx_sandbox *)object;
    }
    return st;
}

static sbx_status sbxi_sandboxes_done(sbxi_request *r, void *out)
{
    void *object;
    char *items;
    size_t count;
    sbx_status st = sbxi_decode(r->op.client, &r->exchange.answer, &sbxi_sandboxes_record,
                                sizeof(sbx_sandboxes), &object, &items, &count, &r->op.error);
    if (st == SBX_OK) {
        sbx_sandboxes *list = (sbx_sandboxes *)object;
        sbxi_sandbox_complete(r->op.client, (sbx_sandbox *)(void *)items, count);
        list->items = (const sbx_sandbox *)(const void *)items;
        list->count = count;
        *(sbx_sandboxes **)out = list;
    }
    return st;
}

static sbx_status sbxi_status_done(sbxi_request *r, void *out)
{
    void *object;
    char *items;
    size_t count;
    sbx_status st = sbxi_decode(r->op.client, &r->exchange.answer, &sbxi_status_record, 0, &object,
                                &items, &count, &r->op.error);
    if (st == SBX_OK) {
        sbx_sandbox_status *status = (sbx_sandbox_status *)object;
        if (!*status->status)
            status->status = "ready";
        status->state = sbxi_state_of(status->status);
        *(sbx_sandbox_status **)out = status;
    }
    return st;
}

static void sbxi_sandbox_json(sbx_json_writer *w, const void *from)
{
    const sbx_sandbox_options *o = (const sbx_sandbox_options *)from;
    sbx_json_begin_object(w);
    sbxi_json_text(w, "template_name", o->template_name);
    sbxi_json_text(w, "snapshot_id", o->snapshot_id);
    sbxi_json_text(w, "snapshot_name", o->snapshot_name);
    sbxi_json_text(w, "name", o->name);
    sbx_json_key(w, "wait_for_ready");
    sbx_json_boolean(w, !o->no_wait);
    if (!o->no_wait)
        sbxi_json_seconds(w, "timeout", o->ready_timeout_ms, 30);
    sbx_json_end_object(w);
}

/* Copies the options and fills in the defaults. */
static sbx_status sbxi_sandbox_defaults(const sbx_sandbox_options *options, sbx_sandbox_options *o,
                                        sbx_error *err)
{
    const struct {
        const char *field, *text;
    } names[] = {{"template_name", options ? options->template_name : NULL},
                 {"snapshot_id", options ? options->snapshot_id : NULL},
                 {"snapshot_name", options ? options->snapshot_name : NULL},
                 {"name", options ? options->name : NULL}};
    sbx_status st = SBX_OK;
    int i;
    memset(o, 0, sizeof(*o));
    if (options)
        *o = *options;
    for (i = 0; i < SBXI_COUNT(names) && st == SBX_OK; i++)
        if (names[i].text)
            st = sbxi_check_name(names[i].field, names[i].text, err);
    if (st == SBX_OK &&
        (o->template_name != NULL) + (o->snapshot_id != NULL) + (o->snapshot_name != NULL) > 1)
        st = sbxi_fail_argument(err, "template_name",
                                "excludes snapshot_id and snapshot_name, and these exclude each "
                                "other: set one at most");
    if (st == SBX_OK && o->ready_timeout_ms < 0)
        st = sbxi_fail_argument(err, "ready_timeout_ms", "must be 0 or positive");
    if (o->ready_timeout_ms == 0)
        o->ready_timeout_ms = 30000;
    return st;
}

SBX_API sbx_status sbx_sandbox_create_start(sbx_client *client, const sbx_sandbox_options *options,
                                            sbx_sandbox **out, sbx_op **op, sbx_error *err)
{
    sbx_sandbox_options o;
    sbxi_request *r;
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st != SBX_OK)
        return st;
    st = sbxi_sandbox_defaults(options, &o, err);
    if (st == SBX_OK)
        st = sbxi_control_new(client, "POST", "/boxes", NULL, "", &o.call, &r, err);
    if (st != SBX_OK)
        return st;
    st = sbxi_request_json(r, sbxi_sandbox_json, &o, err);
    if (st != SBX_OK) {
        sbx_op_free(&r->op);
        return st;
    }
    r->exchange.limit_ms = o.no_wait ? 30000 : sbxi_after(30000, o.ready_timeout_ms);
    sbxi_control_set(r, SBXI_CREATE, "sandbox", sbxi_sandbox_done, out);
    *op = &r->op;
    return SBX_OK;
}

SBX_API sbx_status sbx_sandbox_create(sbx_client *client, const sbx_sandbox_options *options,
                                      sbx_sandbox **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_sandbox_create_start(client, options, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_sandbox_get_start(sbx_client *client, const char *name, const sbx_call *call,
                                         sbx_sandbox **out, sbx_op **op, sbx_error *err)
{
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_start(client, SBXI_GET, "/boxes/", name, "", call, "sandbox",
                              sbxi_sandbox_done, out, op, err);
}

SBX_API sbx_status sbx_sandbox_get(sbx_client *client, const char *name, const sbx_call *call,
                                   sbx_sandbox **out, sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_sandbox_get_start(client, name, call, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_sandbox_list_start(sbx_client *client, const sbx_call *call,
                                          sbx_sandboxes **out, sbx_op **op, sbx_error *err)
{
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_start(client, SBXI_LIST, "/boxes", NULL, "", call, "sandbox",
                              sbxi_sandboxes_done, out, op, err);
}

SBX_API sbx_status sbx_sandbox_list(sbx_client *client, const sbx_call *call, sbx_sandboxes **out,
                                    sbx_error *err)
{
    sbx_op *op;
    return sbxi_op_finish(sbx_sandbox_list_start(client, call, out, &op, err), &op, err);
}

SBX_API sbx_status sbx_sandbox_delete_start(sbx_client *client, const char *name,
                                            const sbx_call *call, sbx_op **op, sbx_error *err)
{
    sbx_status st = sbxi_check_start(client, op, op, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_start(client, SBXI_DELETE, "/boxes/", name, "", call, "sandbox", NULL, NULL,
                              op, err);
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
    sbx_status st = sbxi_check_start(client, out, op, err);
    if (st != SBX_OK)
        return st;
    return sbxi_control_start(client, SBXI_GET, "/boxes/", name, "/status", call, "sandbox",
                              sbxi_status_done, out, op, err);
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
    sbx_status st = sbxi_status_done(r, &status);
    (void)out; /* set by sbxi_sandbox_done */
    if (st != SBX_OK)
        return st;
    st = SBX_AGAIN;
    sbxi_copy(waiting->last_status, sizeof(waiting->last_status), status->status,
              strlen(status->status));
    if (status->state == SBX_STATE_READY) {
        sbxi_address_cut(&r->exchange.to, "/status"); /* what is left is the sandbox itself */
        r->done = sbxi_sandbox_done;
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

static const sbxi_op_type sbxi_waiting_type = {sizeof(sbxi_waiting), sbxi_waiting_step,
                                               sbxi_request_wants, sbxi_request_dispose, NULL};

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
    st = sbxi_check_name("name", name, err);
    memset(&o, 0, sizeof(o));
    if (options)
        o = *options;
    if (st == SBX_OK)
        st = sbxi_check_time("ready_timeout_ms", o.ready_timeout_ms, err);
    if (st == SBX_OK && o.poll_interval_ms < 0)
        st = sbxi_fail_argument(err, "poll_interval_ms", "must be 0 or positive");
    if (st == SBX_OK)
        st = sbxi_request_new(client, &sbxi_waiting_type, "GET", client->endpoint, "/boxes/", name,
                              "/status", &o.call, &r, err);
    if (st != SBX_OK)
        return st;
    waiting = (sbxi_waiting *)r;
    waiting->interval_ms = o.poll_interval_ms ? o.poll_interval_ms : 1000;
    waiting->timeout_ms = o.ready_timeout_ms ? o.ready_timeout_ms : 120000;
    waiting->end = sbxi_after(sbxi_now(client), waiting->timeout_ms);
    r->exchange.pause_end = waiting->end;
    r->exchange.flags |= SBXI_IDEMPOTENT;
    sbxi_control_set(r, SBXI_GET, "sandbox", sbxi_waiting_done, out);
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

#endif /* SBX_NO_CONTROL */
