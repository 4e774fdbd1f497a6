/* Control plane: sandboxes, which the protocol's paths call boxes.

   A box is in a list from its creation until its deletion: that of all boxes, or, while nobody has
   asked for it yet, that of a pool. Its process has a life of its own: it may end before, which
   makes the box failed, and it takes a moment to end after. Only when both are over its directory
   is removed and the box freed. */
#include "sandboxd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { START_MS = 30000 }; /* how long one may take to be ready that nobody waits for */

typedef enum box_status { PROVISIONING, READY, FAILED } box_status;

typedef struct sd_box {
    sd_named named;
    sd_control *control;
    sd_list *list;         /* NULL: it is deleted */
    sd_pool *pool;         /* whose list it is in; NULL: none */
    sd_template *template; /* NULL: none */
    box_status status;
    int error_status; /* of FAILED */
    const char *error_type;
    char *status_message;
    char *directory;
    sd_sandbox sandbox;
    sd_mount *mounts;
    sd_volume **volumes; /* of the mounts */
    size_t mount_count;
    int running;
    sd_conn *creator, *deleter; /* who waits for it to be ready, or gone */
    uv_timer_t limit;           /* how long it may take to be ready */
} sd_box;

static sd_box *box_of(sd_named *item)
{
    return SD_OWNER(item, sd_box, named);
}

static const sd_box *const_box_of(const sd_named *item)
{
    return SD_OWNER(item, const sd_box, named);
}

size_t sd_boxes_of(const sd_control *control, const sd_template *template)
{
    const sd_named *item;
    size_t count = 0;
    for (item = control->lists[SD_BOXES].first; item; item = item->next)
        count += const_box_of(item)->template == template;
    return count;
}

int sd_box_is_ready(const sd_named *item)
{
    return const_box_of(item)->status == READY;
}

int sd_box_is_alive(const sd_named *item)
{
    const sd_box *box = const_box_of(item);
    uv_os_fd_t fd;
    char byte;
    return box->running && uv_fileno((const uv_handle_t *)&box->sandbox.channel, &fd) == 0 &&
           recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0;
}

/* ---- documents ---- */

static void write_status(sbx_json_writer *w, const sd_box *box)
{
    static const char *const words[] = {"provisioning", "ready", "failed"};
    sd_write_text(w, "status", words[box->status]);
    sd_write_text(w, "status_message", box->status_message);
}

static void write_box(sbx_json_writer *w, const sd_named *item)
{
    const sd_box *box = const_box_of(item);
    char url[64];
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", box->sandbox.port);
    sd_write_text(w, "template_name", box->template ? box->template->named.name : NULL);
    sd_write_text(w, "dataplane_url", box->status == FAILED || box->sandbox.port == 0 ? NULL : url);
    write_status(w, box);
}

static void write_status_alone(sbx_json_writer *w, const void *arg)
{
    sbx_json_begin_object(w);
    write_status(w, (const sd_box *)arg);
    sbx_json_end_object(w);
}

static void free_box(sd_named *item)
{
    sd_box *box = box_of(item);
    free(box->status_message);
    free(box->directory);
    free(box);
}

const sd_kind sd_box_kind = {"/boxes",  "sandboxes", "sandbox", "Sandbox",
                             write_box, NULL,        NULL,      free_box};

static void reply_box(sd_conn *conn, int status, const sd_box *box)
{
    sd_reply_item(conn, status, &sd_box_kind, &box->named);
}

/* ---- volumes ---- */

/* What the template mounts. */
static void take_volumes(sd_box *box)
{
    size_t i, count = box->template ? box->template->mount_count : 0;
    const sd_template_mount *mounts = count ? box->template->mounts : NULL;
    box->mounts = (sd_mount *)sd_alloc(count * sizeof(*box->mounts));
    box->volumes = (sd_volume **)sd_alloc(count * sizeof(sd_volume *));
    for (i = 0; i < count; i++) {
        box->volumes[i] = mounts[i].volume;
        box->volumes[i]->mounted++;
        box->mounts[i].directory = sd_volume_content(box->control, mounts[i].volume);
        box->mounts[i].path = sd_copy(mounts[i].path, strlen(mounts[i].path));
    }
    box->mount_count = count;
    box->sandbox.mounts = box->mounts;
    box->sandbox.mount_count = count;
}

/* The process is over, or never was. */
static void leave_volumes(sd_box *box)
{
    while (box->mount_count > 0) {
        size_t i = --box->mount_count;
        box->volumes[i]->mounted--;
        free(box->mounts[i].directory);
        free(box->mounts[i].path);
    }
    free(box->mounts);
    free(box->volumes);
    box->mounts = NULL;
    box->volumes = NULL;
    box->sandbox.mounts = NULL;
    box->sandbox.mount_count = 0;
}

/* ---- the end of a box ---- */

static void on_limit_closed(uv_handle_t *handle)
{
    sd_box *box = (sd_box *)handle->data;
    sd_control *control = box->control;
    sd_named_free(&sd_box_kind, &box->named);
    sd_control_left(control);
}

/* The process is over, or never was, and the box is in no list: frees it. */
static void leave(sd_box *box)
{
    sd_conn *deleter = sd_take_waiter(&box->deleter);
    if (deleter)
        sd_reply(deleter, 204, NULL, NULL, "", 0);
    sd_control_remove(box->control, box->directory);
    box->directory = NULL;
    uv_close((uv_handle_t *)&box->limit, on_limit_closed);
}

void sd_box_delete(sd_named *item)
{
    sd_box *box = box_of(item);
    sd_control *control = box->control;
    sd_conn *creator = sd_take_waiter(&box->creator);
    sd_list_take(box->list, &box->named);
    box->list = NULL;
    box->pool = NULL;
    control->box_count--;
    control->leaving++;
    uv_timer_stop(&box->limit);
    if (creator)
        sd_error(creator, 422, "Deleted", "Sandbox '%s' was deleted before it was ready",
                 box->named.name);
    if (box->running)
        sd_sandbox_stop(&box->sandbox);
    else
        leave(box);
    sd_pools_refill(control);
}

static void release_deleter(sd_conn *conn)
{
    ((sd_box *)conn->user)->deleter = NULL;
}

void sd_handle_box_delete(sd_conn *conn)
{
    sd_named *item = sd_conn_item(conn);
    if (!item)
        return;
    box_of(item)->deleter = conn;
    conn->user = box_of(item);
    conn->release = release_deleter;
    sd_box_delete(item);
}

void sd_boxes_delete(sd_list *list)
{
    while (list->first)
        sd_box_delete(list->first);
}

/* ---- what becomes of a box ---- */

static void set_status(sd_box *box, box_status status, const char *message)
{
    box->status = status;
    sd_timestamp(box->named.updated_at);
    free(box->status_message);
    box->status_message = message ? sd_quotable(message) : NULL;
    uv_timer_stop(&box->limit);
}

/* Tells who waits for it and forgets the box; without anybody it stays in the list, as failed. */
static void fail(sd_box *box, int status, const char *type, const char *message)
{
    sd_conn *creator = sd_take_waiter(&box->creator);
    sd_pool *pool = box->pool;
    set_status(box, FAILED, message);
    if (creator)
        sd_error(creator, status, type, "%s", message);
    if (creator || pool)
        sd_box_delete(&box->named);
    else if (box->running)
        sd_sandbox_stop(&box->sandbox);
    if (pool)
        sd_pool_failed(pool, message);
}

static void on_ready(sd_sandbox *sandbox)
{
    sd_box *box = (sd_box *)sandbox->user;
    sd_conn *creator = sd_take_waiter(&box->creator);
    set_status(box, READY, NULL);
    if (creator)
        reply_box(creator, 201, box);
    if (box->pool)
        sd_pool_ready(box->pool);
}

static void on_exit_of(sd_sandbox *sandbox)
{
    sd_box *box = (sd_box *)sandbox->user;
    char message[400];
    box->running = 0;
    leave_volumes(box);
    if (!box->list) {
        leave(box);
    } else if (box->status != FAILED) {
        snprintf(message, sizeof(message), "its process has ended%s%s",
                 sandbox->last_words[0] ? ": " : "", sandbox->last_words);
        fail(box, 422, "CrashLoop", message);
    }
}

static void on_limit(uv_timer_t *timer)
{
    sd_box *box = (sd_box *)timer->data;
    fail(box, 408, "Timeout", "the sandbox was not ready in time");
}

/* ---- the beginning ---- */

static void release_creator(sd_conn *conn)
{
    ((sd_box *)conn->user)->creator = NULL;
}

/* A copy of the name, or one that no other has. */
static char *choose_name(const char *name)
{
    unsigned char random[6];
    char hex[13];
    sd_random(random, sizeof(random));
    sd_hex(hex, random, sizeof(random));
    return name ? sd_copy(name, strlen(name)) : sd_text("sandbox-%s", hex);
}

static sd_box *make(sd_control *control, sd_list *list, const char *name, sd_template *template)
{
    sd_box *box = (sd_box *)sd_alloc(sizeof(*box));
    char *chosen = choose_name(name);
    sd_named_init(&box->named, chosen);
    free(chosen);
    box->control = control;
    box->template = template;
    box->directory = sd_text("%s/sandboxes/%s", control->data, box->named.id);
    uv_timer_init(control->loop, &box->limit);
    box->limit.data = box;
    box->list = list;
    sd_list_append(list, &box->named);
    control->box_count++;
    return box;
}

int sd_image_find(const sd_control *control, const sd_template *template, const char **directory)
{
    size_t i;
    *directory = NULL;
    if (!template || control->image_count == 0)
        return 1;
    for (i = 0; i < control->image_count; i++)
        if (strcmp(control->images[i].name, template->image) == 0)
            *directory = control->images[i].directory;
    return *directory != NULL;
}

/* Starts the process. NULL, or what went wrong, to be freed; then box->error_status and error_type
   say more. */
static char *start(sd_box *box)
{
    sd_sandbox *sandbox = &box->sandbox;
    const sd_template *template = box->template;
    char *problem;
    box->error_status = 422;
    if (!sd_image_find(box->control, template, &sandbox->image)) {
        box->error_type = "ImagePull";
        return sd_text("there is no image '%s': sandboxd was started without --image %s=DIR",
                       template->image, template->image);
    }
    box->error_status = 503;
    box->error_type = "Unschedulable";
    if (mkdir(box->directory, 0700) < 0)
        return sd_text("its directory could not be made: %s", strerror(errno));
    sandbox->loop = box->control->loop;
    sandbox->isolation = &box->control->isolation;
    sandbox->key = &box->control->key;
    sandbox->directory = box->directory;
    if (template) { /* which has been checked */
        (void)sd_quantity(template->cpu, SD_CPUS, &sandbox->cpus);
        (void)sd_quantity(template->memory, SD_BYTES, &sandbox->memory);
    }
    sandbox->user = box;
    sandbox->on_ready = on_ready;
    sandbox->on_exit = on_exit_of;
    take_volumes(box);
    problem = sd_sandbox_start(sandbox);
    box->running = problem == NULL;
    if (problem)
        leave_volumes(box);
    if (sandbox->refused) {
        box->error_status = 422;
        box->error_type = "SandboxConfig";
    }
    return problem;
}

/* Waits for what start has begun. problem is freed. */
static void await(sd_box *box, char *problem, uint64_t ms)
{
    if (problem)
        fail(box, box->error_status, box->error_type, problem);
    else
        uv_timer_start(&box->limit, on_limit, ms, 0);
    free(problem);
}

void sd_box_warm(sd_control *control, sd_pool *pool, sd_list *list, sd_template *template)
{
    sd_box *box = make(control, list, NULL, template);
    box->pool = pool;
    await(box, start(box), START_MS);
}

/* A sandbox of a pool becomes what was asked for. Nobody has seen its id yet. */
static void hand_over(sd_conn *conn, sd_box *box, const char *name)
{
    sd_list *list = sd_conn_list(conn);
    sd_list_take(box->list, &box->named);
    free(box->named.name);
    box->named.name = choose_name(name);
    sd_timestamp(box->named.created_at);
    memcpy(box->named.updated_at, box->named.created_at, sizeof(box->named.updated_at));
    box->pool = NULL;
    box->list = list;
    sd_list_append(list, &box->named);
    reply_box(conn, 201, box);
    sd_pools_refill(box->control);
}

/* The template that the request names: 0 if the request was answered. */
static int choose_template(sd_conn *conn, const char *name, const char *snapshot,
                           sd_template **template)
{
    *template = NULL;
    if (snapshot) {
        sd_error(conn, 404, "SnapshotNotFound", "Snapshot '%s' not found", snapshot);
        return 0;
    }
    if (name && (*template = sd_template_find(sd_conn_control(conn), name)) == NULL) {
        sd_error(conn, 404, "TemplateNotFound", "Template '%s' not found", name);
        return 0;
    }
    return 1;
}

void sd_handle_box_create(sd_conn *conn)
{
    sd_control *control = sd_conn_control(conn);
    sd_list *list = sd_conn_list(conn);
    sd_problems problems = {0};
    const sd_json *json = conn->json;
    const char *name = sd_field_name(json, "name", 0, &problems);
    const char *template_name = sd_field_name(json, "template_name", 0, &problems);
    const char *snapshot_id = sd_field_name(json, "snapshot_id", 0, &problems);
    const char *snapshot_name = sd_field_name(json, "snapshot_name", 0, &problems);
    int wait = sd_field_boolean(json, "wait_for_ready", 1, &problems);
    double timeout = sd_field_number(json, "timeout", 30, 0, 3600, &problems);
    sd_template *template;
    sd_named *warm;
    sd_box *box;
    char *problem;

    if (!json || json->type != SBX_JSON_OBJECT)
        sd_problem_add(&problems, NULL, NULL, "must be an object");
    if (!!template_name + !!snapshot_id + !!snapshot_name > 1)
        sd_problem_add(&problems, "template_name", NULL,
                       "excludes snapshot_id and snapshot_name, and these each other");
    if (sd_reply_problems(conn, &problems) ||
        !choose_template(conn, template_name, snapshot_id ? snapshot_id : snapshot_name,
                         &template) ||
        !sd_list_accepts(conn, list, name))
        return;
    warm = template ? sd_pools_offer(control, template) : NULL;
    if (warm) {
        hand_over(conn, box_of(warm), name);
        return;
    }
    if (!sd_list_has_room(conn, list->kind, control->box_count, control->max_sandboxes))
        return;
    box = make(control, list, name, template);
    problem = start(box);
    if (wait) {
        box->creator = conn;
        conn->user = box;
        conn->release = release_creator;
    } else {
        reply_box(conn, 201, box);
    }
    await(box, problem, wait ? (uint64_t)(timeout * 1000) : START_MS);
}

void sd_handle_box_status(sd_conn *conn)
{
    sd_named *item = sd_conn_item(conn);
    if (item)
        sd_reply_json(conn, 200, write_status_alone, box_of(item));
}
