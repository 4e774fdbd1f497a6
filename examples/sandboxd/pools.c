/* Control plane: pools, sandboxes of a template that are started before anybody asks for them.

   A pool has its own list of boxes. Whatever may have changed what it lacks starts its timer, and
   only the timer starts boxes, one at a time: so requests are answered in between, and after a
   failure nothing is tried until a while has passed. */
#include "sandboxd.h"

#include <stdlib.h>
#include <string.h>

enum { STARTING = 4 }; /* boxes that start at the same time */
enum { FIRST_PAUSE_MS = 250, LONGEST_PAUSE_MS = 30000 };

struct sd_pool {
    sd_named named;
    sd_control *control;
    sd_template *template;
    int replicas;
    sd_list boxes;
    sd_conn *creator; /* waits for all of them to be ready */
    char *problem;    /* the last one; NULL: none yet */
    uint64_t pause;   /* after the next failure */
    uv_timer_t refill, limit;
    int started, handles;
};

static sd_pool *pool_of(sd_named *item)
{
    return SD_OWNER(item, sd_pool, named);
}

static const sd_pool *const_pool_of(const sd_named *item)
{
    return SD_OWNER(item, const sd_pool, named);
}

size_t sd_pools_of(const sd_control *control, const sd_template *template)
{
    const sd_named *item;
    size_t count = 0;
    for (item = control->lists[SD_POOLS].first; item; item = item->next)
        count += const_pool_of(item)->template == template;
    return count;
}

static size_t count_ready(const sd_pool *pool)
{
    const sd_named *item;
    size_t count = 0;
    for (item = pool->boxes.first; item; item = item->next)
        count += (size_t)sd_box_is_ready(item);
    return count;
}

/* ---- documents ---- */

static void write_pool(sbx_json_writer *w, const sd_named *item)
{
    const sd_pool *pool = const_pool_of(item);
    sd_write_text(w, "template_name", pool->template->named.name);
    sd_write_text(w, "template_id", pool->template->named.id);
    sbx_json_key(w, "replicas");
    sbx_json_integer(w, pool->replicas);
}

static void write_pool_state(sbx_json_writer *w, const sd_named *item)
{
    sbx_json_key(w, "ready_replicas");
    sbx_json_integer(w, (int64_t)count_ready(const_pool_of(item)));
}

/* The number of sandboxes; fallback where none is given, -1: that is wrong. */
static int take_replicas(const sd_json *json, int least, int fallback, sd_problems *problems)
{
    if (fallback < 0 && !sd_json_get(json, "replicas"))
        sd_problem_add(problems, "replicas", NULL, "is required");
    return sd_field_integer(json, "replicas", fallback, least, SD_MAX_REPLICAS, problems);
}

/* A request names the template, which a stored document knows by its id. Without such a template
   the pool has none: what to answer then, the caller knows. */
static sd_named *read_pool(const sd_control *control, const sd_json *json, int stored,
                           sd_problems *problems)
{
    const sd_list *templates = &control->lists[SD_TEMPLATES];
    const char *field = stored ? "template_id" : "template_name";
    const char *template = sd_field_name(json, field, 1, problems);
    int replicas = take_replicas(json, stored ? 0 : 1, -1, problems);
    sd_named *item = !template ? NULL
                     : stored  ? sd_list_find_id(templates, template)
                               : sd_list_find(templates, template);
    sd_pool *pool;
    if (!stored) {
        (void)sd_field_boolean(json, "wait_for_ready", 1, problems);
        (void)sd_field_number(json, "timeout", 30, 10, 600, problems);
    } else if (template && !item) {
        sd_problem_add(problems, field, NULL, "there is no such template");
    }
    if (problems->count > 0)
        return NULL;
    pool = (sd_pool *)sd_alloc(sizeof(*pool));
    pool->template = item ? SD_OWNER(item, sd_template, named) : NULL;
    pool->replicas = replicas;
    return &pool->named;
}

static void free_pool(sd_named *item)
{
    free(pool_of(item)->problem);
    free(pool_of(item));
}

const sd_kind sd_pool_kind = {"/pools",   "pools",          "pool",    "Pool",
                              write_pool, write_pool_state, read_pool, free_pool};

/* ---- keeping them full ---- */

static int lacks(const sd_pool *pool)
{
    return pool->started && pool->boxes.count < (size_t)pool->replicas &&
           pool->control->box_count < pool->control->max_sandboxes &&
           pool->boxes.count - count_ready(pool) < STARTING;
}

static void on_refill(uv_timer_t *timer);

static void refill(sd_pool *pool)
{
    if (lacks(pool) && !uv_is_active((uv_handle_t *)&pool->refill))
        uv_timer_start(&pool->refill, on_refill, 0, 0);
}

static void on_refill(uv_timer_t *timer)
{
    sd_pool *pool = (sd_pool *)timer->data;
    if (!lacks(pool))
        return;
    sd_box_warm(pool->control, pool, &pool->boxes, pool->template);
    refill(pool);
}

void sd_pools_refill(const sd_control *control)
{
    sd_named *item;
    for (item = control->lists[SD_POOLS].first; item; item = item->next)
        refill(pool_of(item));
}

sd_named *sd_pools_offer(const sd_control *control, const sd_template *template)
{
    sd_named *pool, *box;
    for (pool = control->lists[SD_POOLS].first; pool; pool = pool->next)
        for (box = pool_of(pool)->boxes.first; box; box = box->next)
            if (pool_of(pool)->template == template && sd_box_is_ready(box) && sd_box_is_alive(box))
                return box;
    return NULL;
}

/* Answers who created the pool if that is due. */
static void tell_creator(sd_pool *pool)
{
    if (pool->creator && count_ready(pool) >= (size_t)pool->replicas) {
        uv_timer_stop(&pool->limit);
        sd_reply_item(sd_take_waiter(&pool->creator), 201, &sd_pool_kind, &pool->named);
    }
}

void sd_pool_ready(sd_pool *pool)
{
    pool->pause = FIRST_PAUSE_MS;
    tell_creator(pool);
    refill(pool);
}

void sd_pool_failed(sd_pool *pool, const char *message)
{
    uint64_t pause = pool->pause;
    free(pool->problem);
    pool->problem = sd_copy(message, strlen(message));
    if (!pool->started ||
        (uv_is_active((uv_handle_t *)&pool->refill) && uv_timer_get_due_in(&pool->refill) > 0))
        return; /* it pauses because of another one already */
    sd_log("pool '%s': a sandbox failed: %s; the next is started in %g s", pool->named.name,
           message, (double)pause / 1000);
    uv_timer_start(&pool->refill, on_refill, pause, 0);
    pool->pause = pause * 2 < LONGEST_PAUSE_MS ? pause * 2 : LONGEST_PAUSE_MS;
}

/* ---- beginning and end ---- */

static void start(sd_control *control, sd_pool *pool)
{
    pool->control = control;
    pool->pause = FIRST_PAUSE_MS;
    pool->boxes.kind = &sd_box_kind;
    uv_timer_init(control->loop, &pool->refill);
    uv_timer_init(control->loop, &pool->limit);
    pool->refill.data = pool->limit.data = pool;
    pool->started = 1;
    refill(pool);
}

void sd_pools_start(sd_control *control)
{
    sd_named *item;
    for (item = control->lists[SD_POOLS].first; item; item = item->next)
        start(control, pool_of(item));
}

/* Nothing more is started, and what was, ends. */
static void stop(sd_pool *pool)
{
    if (pool->started) {
        pool->started = 0;
        uv_timer_stop(&pool->refill);
        uv_timer_stop(&pool->limit);
        sd_boxes_delete(&pool->boxes);
    }
}

void sd_pools_stop(sd_control *control)
{
    sd_named *item;
    for (item = control->lists[SD_POOLS].first; item; item = item->next)
        stop(pool_of(item));
}

static void on_closed(uv_handle_t *handle)
{
    sd_pool *pool = (sd_pool *)handle->data;
    sd_control *control = pool->control;
    if (--pool->handles > 0)
        return;
    sd_named_free(&sd_pool_kind, &pool->named);
    sd_control_left(control);
}

/* The pool is in no list any more: ends and frees it. */
static void leave(sd_pool *pool)
{
    sd_conn *creator = sd_take_waiter(&pool->creator);
    if (creator)
        sd_error(creator, 422, "Deleted", "Pool '%s' was deleted before it was ready",
                 pool->named.name);
    stop(pool);
    pool->control->leaving++;
    pool->handles = 2;
    uv_close((uv_handle_t *)&pool->refill, on_closed);
    uv_close((uv_handle_t *)&pool->limit, on_closed);
}

/* ---- requests ---- */

/* How many sandboxes there are when all pools are full. */
static size_t count_planned(const sd_control *control)
{
    size_t count = control->lists[SD_BOXES].count;
    const sd_named *item;
    for (item = control->lists[SD_POOLS].first; item; item = item->next)
        count += (size_t)const_pool_of(item)->replicas;
    return count;
}

/* There is room for so many sandboxes more: 1, or 0 when it was answered that there is not. */
static int has_room(sd_conn *conn, int more)
{
    const sd_control *control = sd_conn_control(conn);
    size_t planned = count_planned(control) + (size_t)(more > 0 ? more : 0);
    return more <= 0 || sd_list_has_room(conn, &sd_box_kind, planned - 1, control->max_sandboxes);
}

/* The pool can be of its template: 1, or 0 when it was answered that it cannot. */
static int check_template(sd_conn *conn, const sd_pool *pool)
{
    const sd_template *template = pool->template;
    const char *directory;
    if (!template)
        sd_error(conn, 400, "TemplateNotFound", "Template '%s' not found",
                 sd_json_get(conn->json, "template_name")->text);
    else if (template->mount_count > 0)
        sd_error(conn, 400, "ValidationError",
                 "Template '%s' mounts volumes, which sandboxes of a pool cannot have",
                 template->named.name);
    else if (!sd_image_find(sd_conn_control(conn), template, &directory))
        sd_error(conn, 422, "ImagePull", "there is no image '%s'", template->image);
    else
        return 1;
    return 0;
}

static void release_creator(sd_conn *conn)
{
    ((sd_pool *)conn->user)->creator = NULL;
}

/* Not all of its sandboxes were ready in time. */
static void on_limit(uv_timer_t *timer)
{
    sd_pool *pool = (sd_pool *)timer->data;
    sd_list *list = &pool->control->lists[SD_POOLS];
    sd_conn *creator = sd_take_waiter(&pool->creator);
    int error;
    if (!creator)
        return;
    sd_error(creator, 504, "Timeout", "only %zu of %d sandboxes were ready in time%s%s",
             count_ready(pool), pool->replicas, pool->problem ? ": " : "",
             pool->problem ? pool->problem : "");
    error = sd_list_drop(list, &pool->named);
    if (error)
        sd_log("pool '%s' could not be removed: %s", pool->named.name, strerror(error));
    else
        leave(pool);
}

void sd_handle_pool_create(sd_conn *conn)
{
    sd_problems none = {0}; /* these fields have been checked then */
    sd_list *list = sd_conn_list(conn);
    sd_named *item = sd_list_make(conn, list);
    sd_pool *pool = item ? pool_of(item) : NULL;
    if (!item)
        return;
    if (!sd_list_accepts(conn, list, item->name) || !check_template(conn, pool) ||
        !sd_list_has_room(conn, list->kind, list->count, SD_MAX_POOLS) ||
        !has_room(conn, pool->replicas) || !sd_list_insert(conn, list, item)) {
        sd_named_free(list->kind, item);
        return;
    }
    start(sd_conn_control(conn), pool);
    if (!sd_field_boolean(conn->json, "wait_for_ready", 1, &none)) {
        sd_reply_item(conn, 201, list->kind, item);
        return;
    }
    pool->creator = conn;
    conn->user = pool;
    conn->release = release_creator;
    uv_timer_start(&pool->limit, on_limit,
                   (uint64_t)(sd_field_number(conn->json, "timeout", 30, 10, 600, &none) * 1000),
                   0);
}

static void swap_replicas(sd_named *item, void *change)
{
    int *replicas = (int *)change, before = pool_of(item)->replicas;
    pool_of(item)->replicas = *replicas;
    *replicas = before;
}

/* Deletes what is too much, first those that are not ready yet. */
static void shrink(sd_pool *pool)
{
    while (pool->boxes.count > (size_t)pool->replicas) {
        sd_named *item = pool->boxes.first;
        while (item && sd_box_is_ready(item))
            item = item->next;
        sd_box_delete(item ? item : pool->boxes.first);
    }
}

void sd_handle_pool_update(sd_conn *conn)
{
    sd_list *list = sd_conn_list(conn);
    sd_problems problems = {0};
    const char *name = sd_field_name(conn->json, "name", 0, &problems);
    int replicas = take_replicas(conn->json, 0, 0, &problems), changed;
    sd_named *item = sd_conn_item(conn);
    sd_pool *pool = item ? pool_of(item) : NULL;
    if (!item || sd_reply_problems(conn, &problems))
        return;
    if (!sd_json_get(conn->json, "replicas"))
        replicas = pool->replicas;
    changed = replicas != pool->replicas;
    if (!has_room(conn, replicas - pool->replicas) ||
        !sd_list_change(conn, list, item, name, changed ? swap_replicas : NULL, &replicas))
        return;
    shrink(pool);
    refill(pool);
    tell_creator(pool);
    sd_reply_item(conn, 200, list->kind, item);
}

void sd_handle_pool_delete(sd_conn *conn)
{
    sd_list *list = sd_conn_list(conn);
    sd_named *item = sd_conn_item(conn);
    if (item && sd_list_remove(conn, list, item)) {
        leave(pool_of(item));
        sd_reply(conn, 204, NULL, NULL, "", 0);
    }
}
