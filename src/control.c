/* control: templates, volumes, pools and the life of sandboxes, on the control plane.

   Promises: every argument is checked before anything is sent; a result is one allocation. Each
   blocking call is its _start, the one wait loop, and the end of the operation. */
#include "internal.h"

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
