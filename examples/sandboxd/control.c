/* The control process: the server of the control plane, the signals, the end. */
#include "sandboxd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const sd_route routes[] = {
    {"POST", "/templates", SD_BODY_JSON, sd_handle_template_create},
    {"GET", "/templates", SD_BODY_NONE, sd_handle_template_list},
    {"GET", "/templates/{}", SD_BODY_NONE, sd_handle_template_get},
    {"PATCH", "/templates/{}", SD_BODY_JSON, sd_handle_template_rename},
    {"DELETE", "/templates/{}", SD_BODY_NONE, sd_handle_template_delete},
    {"POST", "/boxes", SD_BODY_JSON, sd_handle_box_create},
    {"GET", "/boxes", SD_BODY_NONE, sd_handle_box_list},
    {"GET", "/boxes/{}", SD_BODY_NONE, sd_handle_box_get},
    {"PATCH", "/boxes/{}", SD_BODY_JSON, sd_handle_box_rename},
    {"DELETE", "/boxes/{}", SD_BODY_NONE, sd_handle_box_delete},
    {"GET", "/boxes/{}/status", SD_BODY_NONE, sd_handle_box_status},
};

/* The newest official client uses the second. */
static const char *const prefixes[] = {"/v2/sandboxes", "/api/v2/sandboxes", NULL};

/* ---- the directory with all state ---- */

/* Makes it, or takes one that is there and that no other sandboxd uses. The descriptor of its lock,
   or -1 when stderr has been told why. */
static int take_data(sd_control *control, int *temporary)
{
    const char *parent = getenv("TMPDIR");
    char *path, *real, *lock_path, *sandboxes;
    int lock;
    *temporary = control->data == NULL;
    if (*temporary) {
        path = sd_text("%s/sandboxd-XXXXXX", parent && *parent ? parent : "/tmp");
        if (!mkdtemp(path)) {
            sd_log("cannot make %s: %s", path, strerror(errno));
            free(path);
            return -1;
        }
    } else {
        path = sd_copy(control->data, strlen(control->data));
        if (sd_make_directories(path, 0700) < 0) {
            sd_log("cannot make %s: %s", path, strerror(errno));
            free(path);
            return -1;
        }
    }
    real = realpath(path, NULL);
    free(path);
    control->data = real ? real : "";
    lock_path = sd_text("%s/lock", control->data);
    lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    free(lock_path);
    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            sd_log("%s is in use by another sandboxd", control->data);
        else
            sd_log("cannot lock %s: %s", control->data, strerror(errno));
        if (lock >= 0)
            close(lock);
        return -1;
    }
    /* Left behind by one that was killed. */
    sandboxes = sd_text("%s/sandboxes", control->data);
    (void)sd_remove_tree(sandboxes);
    if (mkdir(sandboxes, 0700) < 0) {
        sd_log("cannot make %s: %s", sandboxes, strerror(errno));
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

/* ---- signals ---- */

void sd_control_check(sd_control *control)
{
    if (control->stopping && control->leaving == 0)
        uv_stop(control->loop);
}

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
    if (control->stopping) {
        sd_log("ended by force: what is in %s is left behind", control->data);
        _exit(1); /* the kernel kills the sandboxes */
    }
    control->stopping = 1;
    sd_boxes_stop(control);
    sd_server_close(&control->server);
    sd_control_check(control);
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
    uv_signal_t child, interrupt, terminate, hang_up;
    int result, listener = sd_listen(control->port, &control->port);
    if (listener < 0) {
        sd_log("cannot listen on port %d: %s", control->port, strerror(errno));
        return 1;
    }
    control->server.loop = control->loop;
    control->server.user = control;
    control->server.prefixes = prefixes;
    control->server.routes = routes;
    control->server.route_count = SD_COUNT(routes);
    control->server.key = &control->key;
    listen_to(control, &child, on_child, SIGCHLD);
    listen_to(control, &interrupt, on_stop, SIGINT);
    listen_to(control, &terminate, on_stop, SIGTERM);
    listen_to(control, &hang_up, on_hang_up, SIGHUP);
    result = sd_serve(&control->server, listener);
    if (result < 0) {
        sd_log("cannot serve: %s", uv_strerror(result));
        return 1;
    }
    printf("listening on http://127.0.0.1:%d\n", control->port);
    fflush(stdout);
    uv_run(control->loop, UV_RUN_DEFAULT);
    uv_walk(control->loop, close_handle, NULL);
    uv_run(control->loop, UV_RUN_DEFAULT);
    return 0;
}

int sd_control_run(sd_control *control)
{
    uv_loop_t loop;
    int temporary, status = 1, lock;
    signal(SIGPIPE, SIG_IGN);
    umask(022);
    lock = take_data(control, &temporary);
    if (lock < 0)
        return 1;
    uv_loop_init(&loop);
    control->loop = &loop;
    if (sd_isolation_find(&control->isolation, control->data) == 0)
        status = serve(control);
    uv_loop_close(&loop);
    leave_data(control, temporary);
    sd_templates_free(control);
    close(lock);
    return status;
}
