/* The control process: the server of the control plane, the signals, the end. */
#include "sandboxd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const sd_route routes[] = {
    {"POST", "/volumes", SD_BODY_JSON, sd_handle_volume_create},
    {"GET", "/volumes", SD_BODY_NONE, sd_handle_list},
    {"GET", "/volumes/{}", SD_BODY_NONE, sd_handle_get},
    {"PATCH", "/volumes/{}", SD_BODY_JSON, sd_handle_volume_update},
    {"DELETE", "/volumes/{}", SD_BODY_NONE, sd_handle_volume_delete},
    {"POST", "/templates", SD_BODY_JSON, sd_handle_template_create},
    {"GET", "/templates", SD_BODY_NONE, sd_handle_list},
    {"GET", "/templates/{}", SD_BODY_NONE, sd_handle_get},
    {"PATCH", "/templates/{}", SD_BODY_JSON, sd_handle_rename},
    {"DELETE", "/templates/{}", SD_BODY_NONE, sd_handle_template_delete},
    {"POST", "/pools", SD_BODY_JSON, sd_handle_pool_create},
    {"GET", "/pools", SD_BODY_NONE, sd_handle_list},
    {"GET", "/pools/{}", SD_BODY_NONE, sd_handle_get},
    {"PATCH", "/pools/{}", SD_BODY_JSON, sd_handle_pool_update},
    {"DELETE", "/pools/{}", SD_BODY_NONE, sd_handle_pool_delete},
    {"POST", "/boxes", SD_BODY_JSON, sd_handle_box_create},
    {"GET", "/boxes", SD_BODY_NONE, sd_handle_list},
    {"GET", "/boxes/{}", SD_BODY_NONE, sd_handle_get},
    {"PATCH", "/boxes/{}", SD_BODY_JSON, sd_handle_rename},
    {"DELETE", "/boxes/{}", SD_BODY_NONE, sd_handle_box_delete},
    {"GET", "/boxes/{}/status", SD_BODY_NONE, sd_handle_box_status},
};

/* The newest official client uses the second. */
static const char *const prefixes[] = {"/v2/sandboxes", "/api/v2/sandboxes", NULL};

/* ---- the directory with all state ---- */

/* Makes the directory, NULL: a temporary one, unless it is there. Its path without links, to be
   freed, or NULL when stderr has been told why. */
static char *make_data(const char *wanted)
{
    const char *parent = getenv("TMPDIR");
    char *path = wanted ? sd_copy(wanted, strlen(wanted))
                        : sd_text("%s/sandboxd-XXXXXX", parent && *parent ? parent : "/tmp");
    char *real = NULL;
    if ((wanted ? sd_make_directories(path, 0700) : mkdtemp(path) ? 0 : -1) < 0)
        sd_log("cannot make %s: %s", path, strerror(errno));
    else if ((real = realpath(path, NULL)) == NULL)
        sd_log("cannot use %s: %s", path, strerror(errno));
    free(path);
    return real;
}

/* The descriptor of the directory's lock, or -1 when stderr has been told why. */
static int lock_data(const char *data)
{
    const struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char *path = sd_text("%s/lock", data);
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    free(path);
    /* Unlike a lock by flock, a child that had not quite started when we were killed does not hold
       it. */
    if (lock >= 0 && fcntl(lock, F_SETLK, &whole) == 0)
        return lock;
    if (lock >= 0 && (errno == EAGAIN || errno == EACCES))
        sd_log("%s is in use by another sandboxd", data);
    else
        sd_log("cannot lock %s: %s", data, strerror(errno));
    if (lock >= 0)
        close(lock);
    return -1;
}

/* Takes the directory, which no other sandboxd may use. The descriptor of its lock, or -1 when
   stderr has been told why. */
static int take_data(const char *data)
{
    char *sandboxes = sd_text("%s/sandboxes", data);
    int lock = lock_data(data);
    /* Left behind by one that was killed. */
    if (lock >= 0 &&
        ((sd_remove_tree(sandboxes) < 0 && errno != ENOENT) || mkdir(sandboxes, 0700) < 0)) {
        sd_log("cannot make %s anew: %s", sandboxes, strerror(errno));
        close(lock);
        lock = -1;
    }
    free(sandboxes);
    return lock;
}

static void leave_data(sd_control *control, int temporary)
{
    char *sandboxes = sd_text("%s/sandboxes", control->data);
    const char *path = temporary ? control->data : sandboxes;
    if (sd_remove_tree(path) < 0)
        sd_log("%s could not be removed: %s", path, strerror(errno));
    free(sandboxes);
}

/* Restores what was stored. 0, or -1 when stderr has been told why. */
static int restore(sd_control *control)
{
    static const sd_kind *const kinds[SD_LISTS] = {
        [SD_VOLUMES] = &sd_volume_kind,
        [SD_TEMPLATES] = &sd_template_kind,
        [SD_POOLS] = &sd_pool_kind,
        [SD_BOXES] = &sd_box_kind,
    };
    int i;
    for (i = 0; i < SD_LISTS; i++) {
        sd_list *list = &control->lists[i];
        list->kind = kinds[i];
        if (list->kind->read)
            list->directory = sd_text("%s/%s", control->data, list->kind->plural);
        if (sd_list_load(control, list) < 0)
            return -1;
    }
    return sd_volumes_recover(control);
}

/* ---- what takes its time to go ---- */

static void check_end(sd_control *control)
{
    if (control->stopping && control->leaving == 0)
        uv_stop(control->loop);
}

void sd_control_left(sd_control *control)
{
    control->leaving--;
    check_end(control);
}

typedef struct removal {
    uv_work_t work;
    sd_control *control;
    char *path;
} removal;

static void remove_directory(uv_work_t *work)
{
    const removal *r = SD_OWNER(work, const removal, work);
    if (sd_remove_tree(r->path) < 0 && errno != ENOENT)
        sd_log("%s could not be removed: %s", r->path, strerror(errno));
}

static void on_removed(uv_work_t *work, int status)
{
    removal *r = SD_OWNER(work, removal, work);
    sd_control *control = r->control;
    (void)status;
    free(r->path);
    free(r);
    sd_control_left(control);
}

void sd_control_remove(sd_control *control, char *path)
{
    removal *r = (removal *)sd_alloc(sizeof(*r));
    r->control = control;
    r->path = path;
    control->leaving++;
    uv_queue_work(control->loop, &r->work, remove_directory, on_removed);
}

/* ---- signals ---- */

/* A second signal that comes sooner is meant as the first: some parents send it to the process, and
   then to its group. */
enum { SAME_SIGNAL_MS = 500 };

static void on_child(uv_signal_t *handle, int number)
{
    (void)handle;
    (void)number;
    sd_sandbox_reap();
}

static void on_stop(uv_signal_t *handle, int number)
{
    sd_control *control = (sd_control *)handle->data;
    (void)number;
    if (control->stopping && uv_now(control->loop) - control->stopped_at < SAME_SIGNAL_MS)
        return;
    if (control->stopping) {
        sd_log("ended by force: what is in %s is left behind", control->data);
        _exit(1); /* the kernel kills the sandboxes */
    }
    control->stopping = 1;
    control->stopped_at = uv_now(control->loop);
    sd_pools_stop(control);
    sd_boxes_delete(&control->lists[SD_BOXES]);
    sd_server_close(&control->server);
    check_end(control);
}

static void on_hang_up(uv_signal_t *handle, int number)
{
    const sd_control *control = (const sd_control *)handle->data;
    (void)number;
    if (!control->stopping)
        sd_sandbox_reload_all();
}

static void listen_to(sd_control *control, uv_signal_t *handle, uv_signal_cb handler, int number)
{
    uv_signal_init(control->loop, handle);
    handle->data = control;
    uv_signal_start(handle, handler, number);
}

/* ---- the whole ---- */

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static int serve(sd_control *control)
{
    int result, listener = sd_listen(control->port, &control->port);
    if (listener < 0) {
        sd_log("cannot listen on port %d: %s", control->port, strerror(errno));
        return 1;
    }
    if (restore(control) < 0) {
        close(listener);
        return 1;
    }
    control->server.loop = control->loop;
    control->server.user = control;
    control->server.prefixes = prefixes;
    control->server.routes = routes;
    control->server.route_count = SD_COUNT(routes);
    control->server.key = &control->key;
    listen_to(control, &control->signals[0], on_child, SIGCHLD);
    listen_to(control, &control->signals[1], on_stop, SIGINT);
    listen_to(control, &control->signals[2], on_stop, SIGTERM);
    listen_to(control, &control->signals[3], on_hang_up, SIGHUP);
    result = sd_serve(&control->server, listener);
    if (result < 0) {
        sd_log("cannot serve: %s", uv_strerror(result));
        return 1;
    }
    sd_pools_start(control);
    printf("listening on http://127.0.0.1:%d\n", control->port);
    fflush(stdout);
    uv_run(control->loop, UV_RUN_DEFAULT);
    return 0;
}

/* Connections and sandboxes together need more files than a process usually may open. Sandboxes get
   the limit as it was. */
static void raise_file_limit(struct rlimit *before)
{
    struct rlimit raised;
    if (getrlimit(RLIMIT_NOFILE, before) < 0)
        before->rlim_cur = before->rlim_max = 1024;
    raised = *before;
    raised.rlim_cur = raised.rlim_max;
    setrlimit(RLIMIT_NOFILE, &raised);
}

int sd_control_run(sd_control *control)
{
    const int temporary = control->data == NULL;
    uv_loop_t loop;
    char *data;
    int status = 1, lock, i;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that cannot grow is an error of the write */
    umask(022);
    raise_file_limit(&control->isolation.files);
    data = make_data(control->data);
    lock = data ? take_data(data) : -1;
    if (lock < 0) {
        free(data);
        return 1;
    }
    control->data = data;
    uv_loop_init(&loop);
    control->loop = &loop;
    if (sd_isolation_find(&control->isolation, control->data) == 0 &&
        sd_limits_find(&control->isolation.limits, control->isolation.user) == 0)
        status = serve(control);
    uv_walk(&loop, close_handle, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    sd_groups_release(&control->isolation.limits.groups);
    leave_data(control, temporary);
    for (i = SD_LISTS; i-- > 0;)
        sd_list_free(&control->lists[i]);
    close(lock);
    control->data = NULL;
    free(data);
    return status;
}
