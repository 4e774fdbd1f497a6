/* Control plane: volumes, directories that outlive the sandboxes in which they are mounted.

   DATA/volumes/ID is the control process's own; "content" in it belongs to the user of the
   sandboxes. Deleting first moves it to ID.deleted, so that a removal that was cut short goes on at
   the next start, and nothing else there is ever removed. The size is what the owner promises to
   stay below: nothing enforces it. */
#include "sandboxd.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static sd_volume *volume_of(sd_named *item)
{
    return SD_OWNER(item, sd_volume, named);
}

/* ---- documents ---- */

static void write_volume(sbx_json_writer *w, const sd_named *item)
{
    sd_write_text(w, "size", SD_OWNER(item, const sd_volume, named)->size);
    sd_write_text(w, "storage_class", "local");
}

static const char *take_size(const sd_json *json, int required, double *amount,
                             sd_problems *problems)
{
    size_t before = problems->count;
    const char *size = sd_field_string(json, "size", problems);
    if (!size && required && problems->count == before)
        sd_problem_add(problems, "size", NULL, "is required");
    if (size && sd_quantity(size, SD_BYTES, amount) < 0)
        sd_problem_add(problems, "size", NULL, "must be an amount of bytes such as 512Mi or 1G");
    else if (size && *amount > SD_MAX_VOLUME_SIZE)
        sd_problem_add(problems, "size", NULL, "must be 1000T or less");
    return size;
}

static sd_named *read_volume(const sd_control *control, const sd_json *json, int stored,
                             sd_problems *problems)
{
    sd_volume *volume;
    double amount;
    const char *size = take_size(json, 1, &amount, problems);
    (void)control;
    if (!stored) { /* it is ready at once, so there is nothing to wait for */
        (void)sd_field_boolean(json, "wait_for_ready", 1, problems);
        (void)sd_field_number(json, "timeout", 60, 5, 300, problems);
    }
    if (problems->count > 0)
        return NULL;
    volume = (sd_volume *)sd_alloc(sizeof(*volume));
    volume->size = sd_copy(size, strlen(size));
    return &volume->named;
}

static void free_volume(sd_named *item)
{
    free(volume_of(item)->size);
    free(volume_of(item));
}

const sd_kind sd_volume_kind = {"/volumes",   "volumes", "volume",    "Volume",
                                write_volume, NULL,      read_volume, free_volume};

/* ---- directories ---- */

static char *directory_of(const sd_control *control, const char *id, const char *ending)
{
    return sd_text("%s/%.36s%s", control->lists[SD_VOLUMES].directory, id, ending);
}

char *sd_volume_content(const sd_control *control, const sd_volume *volume)
{
    return directory_of(control, volume->named.id, "/content");
}

/* Makes what is not there yet. 0, or -1 with errno. */
static int make_directories(const sd_control *control, const sd_volume *volume)
{
    uid_t user = control->isolation.user;
    char *directory = directory_of(control, volume->named.id, "");
    char *content = sd_volume_content(control, volume);
    int result = 0;
    if ((mkdir(directory, 0700) < 0 && errno != EEXIST) ||
        (mkdir(content, 0755) < 0 && errno != EEXIST) ||
        (user && lchown(content, user, (gid_t)user) < 0))
        result = -1;
    free(content);
    free(directory);
    return result;
}

/* Removes the directories of a volume that is none; only if they are empty. */
static void remove_empty(const sd_control *control, const char *id)
{
    char *directory = directory_of(control, id, "");
    char *content = directory_of(control, id, "/content");
    (void)rmdir(content);
    if (rmdir(directory) < 0 && errno != ENOENT)
        sd_log("%s is ignored: it is no volume's directory, and not empty", directory);
    free(content);
    free(directory);
}

/* What to do with a directory that was there at the start. */
static void recover(sd_control *control, const char *name)
{
    char *record = directory_of(control, name, ".json");
    char *directory = directory_of(control, name, "");
    char *deleted = directory_of(control, name, ".deleted");
    int known = access(record, F_OK) == 0;
    if (sd_is_id(name, "") && !known)
        remove_empty(control, name);
    if (sd_is_id(name, ".deleted") && known)
        (void)rename(deleted, directory); /* it was not deleted after all */
    else if (sd_is_id(name, ".deleted")) {
        sd_control_remove(control, deleted);
        deleted = NULL;
    }
    free(deleted);
    free(directory);
    free(record);
}

int sd_volumes_recover(sd_control *control)
{
    const sd_list *list = &control->lists[SD_VOLUMES];
    DIR *dir = opendir(list->directory);
    struct dirent *entry;
    sd_named *item;
    while (dir && (entry = readdir(dir)) != NULL)
        recover(control, entry->d_name);
    if (dir)
        closedir(dir);
    for (item = list->first; item; item = item->next)
        if (make_directories(control, volume_of(item)) < 0) {
            sd_log("the directory of volume '%s' (%s) cannot be used: %s", item->name, item->id,
                   strerror(errno));
            return -1;
        }
    return 0;
}

/* ---- requests ---- */

void sd_handle_volume_create(sd_conn *conn)
{
    sd_control *control = sd_conn_control(conn);
    sd_list *list = &control->lists[SD_VOLUMES];
    sd_named *item = sd_list_make(conn, list);
    if (!item)
        return;
    if (sd_list_accepts(conn, list, item->name) &&
        sd_list_has_room(conn, list->kind, list->count, control->max_volumes)) {
        if (make_directories(control, volume_of(item)) < 0) {
            sd_reply_unsaved(conn, list->kind, item->name, errno);
        } else if (sd_list_insert(conn, list, item)) {
            sd_reply_item(conn, 201, list->kind, item);
            return;
        }
        remove_empty(control, item->id);
    }
    sd_named_free(list->kind, item);
}

static void swap_size(sd_named *item, void *change)
{
    char **size = (char **)change, *before = volume_of(item)->size;
    volume_of(item)->size = *size;
    *size = before;
}

void sd_handle_volume_update(sd_conn *conn)
{
    sd_list *list = sd_conn_list(conn);
    sd_problems problems = {0};
    double amount = 0, before = 0;
    const char *name = sd_field_name(conn->json, "name", 0, &problems);
    const char *size = take_size(conn->json, 0, &amount, &problems);
    sd_named *item = sd_conn_item(conn);
    char *changed;
    if (!item || sd_reply_problems(conn, &problems))
        return;
    (void)sd_quantity(volume_of(item)->size, SD_BYTES, &before);
    if (size && amount < before) {
        sd_error(conn, 400, "VolumeResize", "Volume '%s' has %s and cannot shrink to %s",
                 item->name, volume_of(item)->size, size);
        return;
    }
    changed = size && amount > before ? sd_copy(size, strlen(size)) : NULL;
    if (sd_list_change(conn, list, item, name, changed ? swap_size : NULL, &changed))
        sd_reply_item(conn, 200, list->kind, item);
    free(changed);
}

void sd_handle_volume_delete(sd_conn *conn)
{
    sd_control *control = sd_conn_control(conn);
    sd_list *list = sd_conn_list(conn);
    sd_named *item = sd_conn_item(conn);
    char *directory, *deleted;
    size_t templates;
    if (!item)
        return;
    templates = sd_templates_of(control, volume_of(item));
    if (templates > 0 || volume_of(item)->mounted > 0) {
        sd_error(conn, 409, "ResourceInUse", "Volume '%s' is in use by %s", item->name,
                 templates > 0 ? "a template" : "a sandbox that still ends");
        return;
    }
    directory = directory_of(control, item->id, "");
    deleted = directory_of(control, item->id, ".deleted");
    if (rename(directory, deleted) < 0 && errno != ENOENT) {
        sd_reply_unsaved(conn, list->kind, item->name, errno);
    } else if (!sd_list_remove(conn, list, item)) {
        (void)rename(deleted, directory);
    } else {
        sd_control_remove(control, deleted);
        deleted = NULL;
        sd_named_free(list->kind, item);
        sd_reply(conn, 204, NULL, NULL, "", 0);
    }
    free(deleted);
    free(directory);
}
