/* Control plane: sandboxes, which the protocol's paths call boxes.

   A box is in the list from its creation until its deletion. Its process has a life of its own: it
   may end before, which makes the box failed, and it takes a moment to end after. Only when both
   are over its directory is removed and the box freed. */
#include "sandboxd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef enum box_status { PROVISIONING, READY, FAILED } box_status;

struct sd_box {
    sd_control *control;
    char *name, id[37];
    sd_template *template; /* NULL: none */
    box_status status;
    const char *error_type; /* of FAILED */
    char *status_message;
    char created_at[32], updated_at[32];
    char *directory;
    sd_sandbox sandbox;
    int listed, running;
    sd_conn *creator, *deleter; /* who waits for it to be ready, or gone */
    uv_timer_t limit;           /* how long it may take to be ready */
    uv_work_t removal;
    sd_box *next;
};

/* ---- list ---- */

static sd_box *find(const sd_control *control, const char *name)
{
    sd_box *box = control->boxes;
    while (box && strcmp(box->name, name) != 0)
        box = box->next;
    return box;
}

/* The box that the path names, or NULL when that was answered. */
static sd_box *named(sd_conn *conn)
{
    sd_box *box = find(sd_conn_control(conn), sd_segment(conn, 0));
    if (!box)
        sd_error(conn, 404, "SandboxNotFound", "Sandbox '%s' not found", sd_segment(conn, 0));
    return box;
}

size_t sd_boxes_of(const sd_control *control, const sd_template *template)
{
    const sd_box *box;
    size_t count = 0;
    for (box = control->boxes; box; box = box->next)
        count += box->template == template;
    return count;
}

/* ---- answers ---- */

static void write_text(sbx_json_writer *w, const char *name, const char *text)
{
    sbx_json_key(w, name);
    if (text)
        sbx_json_string(w, text, strlen(text));
    else
        sbx_json_null(w);
}

static void write_state(sbx_json_writer *w, const sd_box *box)
{
    static const char *const words[] = {"provisioning", "ready", "failed"};
    write_text(w, "status", words[box->status]);
    write_text(w, "status_message", box->status_message);
}

static void write_box(sbx_json_writer *w, const void *arg)
{
    const sd_box *box = (const sd_box *)arg;
    char url[64];
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", box->sandbox.port);
    sbx_json_begin_object(w);
    write_text(w, "id", box->id);
    write_text(w, "name", box->name);
    write_text(w, "template_name", box->template ? box->template->name : NULL);
    write_text(w, "dataplane_url", box->status == FAILED || box->sandbox.port == 0 ? NULL : url);
    write_state(w, box);
    write_text(w, "created_at", box->created_at);
    write_text(w, "updated_at", box->updated_at);
    sbx_json_end_object(w);
}

static void write_status(sbx_json_writer *w, const void *arg)
{
    sbx_json_begin_object(w);
    write_state(w, (const sd_box *)arg);
    sbx_json_end_object(w);
}

static void write_list(sbx_json_writer *w, const void *arg)
{
    const sd_box *box;
    sbx_json_begin_object(w);
    sbx_json_key(w, "sandboxes");
    sbx_json_begin_array(w);
    for (box = (const sd_box *)arg; box; box = box->next)
        write_box(w, box);
    sbx_json_end_array(w);
    sbx_json_end_object(w);
}

/* ---- the end of a box ---- */

static void on_limit_closed(uv_handle_t *handle)
{
    sd_box *box = (sd_box *)handle->data;
    sd_control *control = box->control;
    control->leaving--;
    free(box->name);
    free(box->status_message);
    free(box->directory);
    free(box);
    sd_control_check(control);
}

static void remove_directory(uv_work_t *work)
{
    const sd_box *box = (const sd_box *)work->data;
    if (sd_remove_tree(box->directory) < 0)
        sd_log("%s could not be removed: %s", box->directory, strerror(errno));
}

static void on_removed(uv_work_t *work, int status)
{
    sd_box *box = (sd_box *)work->data;
    (void)status;
    uv_close((uv_handle_t *)&box->limit, on_limit_closed);
}

/* Who waits for the box, to be answered now: nobody does any more. */
static sd_conn *take_waiter(sd_conn **waiter)
{
    sd_conn *conn = *waiter;
    *waiter = NULL;
    if (conn)
        conn->release = NULL;
    return conn;
}

/* The process is over, or never was, and the box is not in the list: frees it. */
static void leave(sd_box *box)
{
    sd_conn *deleter = take_waiter(&box->deleter);
    if (deleter)
        sd_reply(deleter, 204, NULL, NULL, "", 0);
    box->removal.data = box;
    uv_queue_work(box->control->loop, &box->removal, remove_directory, on_removed);
}

/* Takes the box out of the list and ends its process. */
static void delete_box(sd_box *box)
{
    sd_control *control = box->control;
    sd_conn *creator = take_waiter(&box->creator);
    sd_box **link = &control->boxes;
    while (*link != box)
        link = &(*link)->next;
    *link = box->next;
    control->box_count--;
    control->leaving++;
    box->listed = 0;
    uv_timer_stop(&box->limit);
    if (creator)
        sd_error(creator, 422, "Deleted", "Sandbox '%s' was deleted before it was ready",
                 box->name);
    if (box->running)
        sd_sandbox_stop(&box->sandbox);
    else
        leave(box);
}

static void release_deleter(sd_conn *conn)
{
    ((sd_box *)conn->user)->deleter = NULL;
}

void sd_handle_box_delete(sd_conn *conn)
{
    sd_box *box = named(conn);
    if (!box)
        return;
    box->deleter = conn;
    conn->user = box;
    conn->release = release_deleter;
    delete_box(box);
}

void sd_boxes_stop(sd_control *control)
{
    while (control->boxes)
        delete_box(control->boxes);
}

/* ---- what becomes of a box ---- */

static void set_status(sd_box *box, box_status status, const char *message)
{
    box->status = status;
    sd_timestamp(box->updated_at);
    free(box->status_message);
    box->status_message = message ? sd_quotable(message) : NULL;
    uv_timer_stop(&box->limit);
}

/* Tells who waits for it and forgets the box; without anybody it stays in the list, as failed. */
static void fail(sd_box *box, int status, const char *type, const char *message)
{
    sd_conn *creator = take_waiter(&box->creator);
    set_status(box, FAILED, message);
    if (creator) {
        sd_error(creator, status, type, "%s", message);
        delete_box(box);
    } else if (box->running) {
        sd_sandbox_stop(&box->sandbox);
    }
}

static void on_ready(sd_sandbox *sandbox)
{
    sd_box *box = (sd_box *)sandbox->user;
    sd_conn *creator = take_waiter(&box->creator);
    set_status(box, READY, NULL);
    if (creator)
        sd_reply_json(creator, 201, write_box, box);
}

static void on_exit_of(sd_sandbox *sandbox)
{
    sd_box *box = (sd_box *)sandbox->user;
    char message[400];
    box->running = 0;
    if (!box->listed) {
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

static sd_box *make(sd_control *control, const char *name, sd_template *template)
{
    sd_box *box = (sd_box *)sd_alloc(sizeof(*box)), **link = &control->boxes;
    unsigned char random[6];
    char hex[13];
    box->control = control;
    box->template = template;
    sd_uuid(box->id);
    sd_timestamp(box->created_at);
    sd_timestamp(box->updated_at);
    sd_random(random, sizeof(random));
    sd_hex(hex, random, sizeof(random));
    box->name = name ? sd_copy(name, strlen(name)) : sd_text("sandbox-%s", hex);
    box->directory = sd_text("%s/sandboxes/%s", control->data, box->id);
    uv_timer_init(control->loop, &box->limit);
    box->limit.data = box;
    box->listed = 1;
    while (*link)
        link = &(*link)->next;
    *link = box;
    control->box_count++;
    return box;
}

/* The directory of the template's image. 0 if there is no such image. */
static int find_image(const sd_box *box, const char **directory)
{
    const sd_control *control = box->control;
    size_t i;
    *directory = NULL;
    if (!box->template || control->image_count == 0)
        return 1;
    for (i = 0; i < control->image_count; i++)
        if (strcmp(control->images[i].name, box->template->image) == 0)
            *directory = control->images[i].directory;
    return *directory != NULL;
}

/* Starts the process. NULL, or what went wrong, to be freed; then box->error_type says more. */
static char *start(sd_box *box)
{
    sd_sandbox *sandbox = &box->sandbox;
    char *problem;
    if (!find_image(box, &sandbox->image)) {
        box->error_type = "ImagePull";
        return sd_text("there is no image '%s': sandboxd was started without --image %s=DIR",
                       box->template->image, box->template->image);
    }
    box->error_type = "Unschedulable";
    if (mkdir(box->directory, 0700) < 0)
        return sd_text("its directory could not be made: %s", strerror(errno));
    sandbox->loop = box->control->loop;
    sandbox->isolation = &box->control->isolation;
    sandbox->key = &box->control->key;
    sandbox->directory = box->directory;
    if (box->template) { /* which has been checked */
        (void)sd_quantity(box->template->cpu, SD_CPUS, &sandbox->cpus);
        (void)sd_quantity(box->template->memory, SD_BYTES, &sandbox->memory);
    }
    sandbox->user = box;
    sandbox->on_ready = on_ready;
    sandbox->on_exit = on_exit_of;
    problem = sd_sandbox_start(sandbox);
    box->running = problem == NULL;
    return problem;
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
    sd_problems problems = {0};
    const sd_json *json = conn->json;
    const char *name = sd_field_name(json, "name", 0, &problems);
    const char *template_name = sd_field_name(json, "template_name", 0, &problems);
    const char *snapshot_id = sd_field_name(json, "snapshot_id", 0, &problems);
    const char *snapshot_name = sd_field_name(json, "snapshot_name", 0, &problems);
    int wait = sd_field_boolean(json, "wait_for_ready", 1, &problems);
    double timeout = sd_field_number(json, "timeout", 30, 0, 3600, &problems);
    sd_template *template;
    sd_box *box;
    char *problem;

    if (!json || json->type != SBX_JSON_OBJECT)
        sd_problem_add(&problems, NULL, NULL, "must be an object");
    if (!!template_name + !!snapshot_id + !!snapshot_name > 1)
        sd_problem_add(&problems, "template_name", NULL,
                       "excludes snapshot_id and snapshot_name, and these each other");
    if (sd_reply_problems(conn, &problems) ||
        !choose_template(conn, template_name, snapshot_id ? snapshot_id : snapshot_name, &template))
        return;
    if (control->box_count >= SD_MAX_SANDBOXES) {
        sd_error(conn, 429, "QuotaExceeded", "the sandbox count has reached its limit of %d",
                 SD_MAX_SANDBOXES);
        return;
    }
    if (name && find(control, name)) {
        sd_error(conn, 409, "AlreadyExists", "Sandbox '%s' already exists", name);
        return;
    }
    box = make(control, name, template);
    problem = start(box);
    if (wait) {
        box->creator = conn;
        conn->user = box;
        conn->release = release_creator;
    } else {
        sd_reply_json(conn, 201, write_box, box);
        timeout = 30;
    }
    if (!problem) {
        uv_timer_start(&box->limit, on_limit, (uint64_t)(timeout * 1000), 0);
        return;
    }
    fail(box, strcmp(box->error_type, "ImagePull") == 0 ? 422 : 503, box->error_type, problem);
    free(problem);
}

/* ---- the rest ---- */

void sd_handle_box_list(sd_conn *conn)
{
    sd_reply_json(conn, 200, write_list, sd_conn_control(conn)->boxes);
}

void sd_handle_box_get(sd_conn *conn)
{
    const sd_box *box = named(conn);
    if (box)
        sd_reply_json(conn, 200, write_box, box);
}

void sd_handle_box_status(sd_conn *conn)
{
    const sd_box *box = named(conn);
    if (box)
        sd_reply_json(conn, 200, write_status, box);
}

void sd_handle_box_rename(sd_conn *conn)
{
    sd_problems problems = {0};
    const char *name = sd_field_name(conn->json, "name", 0, &problems);
    sd_box *box = named(conn), *other;
    if (!box || sd_reply_problems(conn, &problems))
        return;
    other = name ? find(sd_conn_control(conn), name) : NULL;
    if (other && other != box) {
        sd_error(conn, 409, "NameConflict", "Sandbox '%s' already exists", name);
        return;
    }
    if (name && !other) {
        free(box->name);
        box->name = sd_copy(name, strlen(name));
        sd_timestamp(box->updated_at);
    }
    sd_reply_json(conn, 200, write_box, box);
}
