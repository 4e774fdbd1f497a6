/* Control plane: what templates, volumes, pools and sandboxes have in common. Each has a name that
   no other of its kind has, and an id for ever; they are listed, looked up and renamed alike, and
   those that are stored are changed in memory and in the store together, or not at all. */
#include "sandboxd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- lists ---- */

void sd_named_init(sd_named *item, const char *name)
{
    item->name = sd_copy(name, strlen(name));
    sd_uuid(item->id);
    sd_timestamp(item->created_at);
    memcpy(item->updated_at, item->created_at, sizeof(item->updated_at));
}

void sd_named_free(const sd_kind *kind, sd_named *item)
{
    free(item->name);
    kind->free(item);
}

void sd_list_append(sd_list *list, sd_named *item)
{
    sd_named **link = &list->first;
    while (*link)
        link = &(*link)->next;
    item->next = NULL;
    *link = item;
    list->count++;
}

void sd_list_take(sd_list *list, sd_named *item)
{
    sd_named **link = &list->first;
    while (*link != item)
        link = &(*link)->next;
    *link = item->next;
    list->count--;
}

void sd_list_free(sd_list *list)
{
    while (list->first) {
        sd_named *item = list->first;
        sd_list_take(list, item);
        sd_named_free(list->kind, item);
    }
    free(list->directory);
}

sd_named *sd_list_find(const sd_list *list, const char *name)
{
    sd_named *item = list->first;
    while (item && strcmp(item->name, name) != 0)
        item = item->next;
    return item;
}

sd_named *sd_list_find_id(const sd_list *list, const char *id)
{
    sd_named *item = list->first;
    while (item && strcmp(item->id, id) != 0)
        item = item->next;
    return item;
}

/* ---- documents ---- */

typedef struct document {
    const sd_kind *kind;
    const sd_named *item;
    int stored;
} document;

static void write_item(sbx_json_writer *w, const void *arg)
{
    const document *d = (const document *)arg;
    sbx_json_begin_object(w);
    sd_write_text(w, "id", d->item->id);
    sd_write_text(w, "name", d->item->name);
    d->kind->write(w, d->item);
    if (d->kind->write_state && !d->stored)
        d->kind->write_state(w, d->item);
    sd_write_text(w, "created_at", d->item->created_at);
    sd_write_text(w, "updated_at", d->item->updated_at);
    sbx_json_end_object(w);
}

static void write_list(sbx_json_writer *w, const void *arg)
{
    const sd_list *list = (const sd_list *)arg;
    document d = {list->kind, list->first, 0};
    sbx_json_begin_object(w);
    sbx_json_key(w, list->kind->plural);
    sbx_json_begin_array(w);
    for (; d.item; d.item = d.item->next)
        write_item(w, &d);
    sbx_json_end_array(w);
    sbx_json_end_object(w);
}

void sd_reply_item(sd_conn *conn, int status, const sd_kind *kind, const sd_named *item)
{
    document d = {kind, item, 0};
    sd_reply_json(conn, status, write_item, &d);
}

/* ---- the store ---- */

/* 0 or an errno. */
static int save(const sd_list *list, const sd_named *item)
{
    document d = {list->kind, item, 1};
    size_t len;
    char *text;
    int error;
    if (!list->directory)
        return 0;
    text = sd_json_text(write_item, &d, &len);
    error = text ? sd_store_put(list->directory, item->id, text, len) : EILSEQ;
    free(text);
    return error;
}

void sd_reply_unsaved(sd_conn *conn, const sd_kind *kind, const char *name, int error)
{
    int full = error == ENOSPC || error == EDQUOT || error == EFBIG;
    sd_error(conn, full ? 507 : 500, full ? "InsufficientStorage" : "StorageError",
             "%s '%s' could not be stored: %s; nothing was changed", kind->title, name,
             strerror(error));
}

typedef struct restoring {
    sd_control *control;
    sd_list *list;
} restoring;

/* Adds the item where it was: they come in any order. */
static void insert_by_time(sd_list *list, sd_named *item)
{
    sd_named **link = &list->first;
    while (*link && strcmp((*link)->created_at, item->created_at) <= 0)
        link = &(*link)->next;
    item->next = *link;
    *link = item;
    list->count++;
}

static const char *time_of(const sd_json *json, const char *name, sd_problems *problems)
{
    const char *text = sd_field_string(json, name, problems);
    if (text && *text && strlen(text) < sizeof(((sd_named *)0)->created_at))
        return text;
    sd_problem_add(problems, name, NULL, "is no time");
    return "";
}

static char *restore(void *user, const char *id, const sd_json *json)
{
    const restoring *r = (const restoring *)user;
    sd_problems problems = {0};
    const char *name = sd_field_name(json, "name", 1, &problems);
    const char *own = sd_field_string(json, "id", &problems);
    const char *created = time_of(json, "created_at", &problems);
    const char *updated = time_of(json, "updated_at", &problems);
    const sd_problem *problem = problems.items;
    sd_named *item;
    if (!own || strcmp(own, id) != 0)
        sd_problem_add(&problems, "id", NULL, "is not that of the file's name");
    if (name && sd_list_find(r->list, name))
        sd_problem_add(&problems, "name", NULL, "is that of another");
    item = r->list->kind->read(r->control, json, 1, &problems);
    if (!item)
        return sd_text("%s%s%s: %s", problem->field ? problem->field : "the document",
                       problem->inner ? "." : "", problem->inner ? problem->inner : "",
                       problem->message);
    sd_named_init(item, name);
    snprintf(item->id, sizeof(item->id), "%s", id);
    snprintf(item->created_at, sizeof(item->created_at), "%s", created);
    snprintf(item->updated_at, sizeof(item->updated_at), "%s", updated);
    insert_by_time(r->list, item);
    return NULL;
}

int sd_list_load(sd_control *control, sd_list *list)
{
    restoring r = {control, list};
    int error;
    if (!list->directory)
        return 0;
    error = sd_make_directories(list->directory, 0700) < 0
                ? errno
                : sd_store_load(list->directory, restore, &r);
    if (error)
        sd_log("cannot use %s: %s", list->directory, strerror(error));
    return error ? -1 : 0;
}

/* ---- requests ---- */

sd_list *sd_conn_list(const sd_conn *conn)
{
    sd_list *list = sd_conn_control(conn)->lists;
    while (strncmp(conn->route->path, list->kind->path, strlen(list->kind->path)) != 0)
        list++; /* every route is about one of them */
    return list;
}

sd_named *sd_conn_item(sd_conn *conn)
{
    const sd_list *list = sd_conn_list(conn);
    const char *name = sd_segment(conn, 0);
    sd_named *item = sd_list_find(list, name);
    char *type;
    if (!item) {
        type = sd_text("%sNotFound", list->kind->title);
        sd_error(conn, 404, type, "%s '%s' not found", list->kind->title, name);
        free(type);
    }
    return item;
}

void sd_handle_list(sd_conn *conn)
{
    sd_reply_json(conn, 200, write_list, sd_conn_list(conn));
}

void sd_handle_get(sd_conn *conn)
{
    const sd_named *item = sd_conn_item(conn);
    if (item)
        sd_reply_item(conn, 200, sd_conn_list(conn)->kind, item);
}

void sd_handle_rename(sd_conn *conn)
{
    sd_problems problems = {0};
    const char *name = sd_field_name(conn->json, "name", 0, &problems);
    sd_list *list = sd_conn_list(conn);
    sd_named *item = sd_conn_item(conn);
    if (item && !sd_reply_problems(conn, &problems) &&
        sd_list_change(conn, list, item, name, NULL, NULL))
        sd_reply_item(conn, 200, list->kind, item);
}

sd_named *sd_list_make(sd_conn *conn, const sd_list *list)
{
    sd_problems problems = {0};
    const char *name = sd_field_name(conn->json, "name", 1, &problems);
    sd_named *item = list->kind->read(sd_conn_control(conn), conn->json, 0, &problems);
    if (item)
        sd_named_init(item, name);
    else
        (void)sd_reply_problems(conn, &problems);
    return item;
}

int sd_list_accepts(sd_conn *conn, const sd_list *list, const char *name)
{
    if (!name || !sd_list_find(list, name))
        return 1;
    sd_error(conn, 409, "AlreadyExists", "%s '%s' already exists", list->kind->title, name);
    return 0;
}

int sd_list_has_room(sd_conn *conn, const sd_kind *kind, size_t count, size_t limit)
{
    if (count < limit)
        return 1;
    /* Clients read in the message which limit it was. */
    sd_error(conn, 429, "QuotaExceeded", "the %s count has reached its limit of %zu", kind->noun,
             limit);
    return 0;
}

int sd_list_insert(sd_conn *conn, sd_list *list, sd_named *item)
{
    int error = save(list, item);
    if (error) {
        (void)sd_store_remove(list->directory, item->id);
        sd_reply_unsaved(conn, list->kind, item->name, error);
        return 0;
    }
    sd_list_append(list, item);
    return 1;
}

typedef struct change {
    char *name; /* NULL: it stays */
    char updated_at[32];
    void (*swap)(sd_named *item, void *own);
    void *own;
} change;

/* Exchanges what is in the item with the change: done twice, it has done nothing. */
static void exchange(sd_named *item, change *c)
{
    char *name = item->name, time[32];
    memcpy(time, item->updated_at, sizeof(time));
    memcpy(item->updated_at, c->updated_at, sizeof(time));
    memcpy(c->updated_at, time, sizeof(time));
    if (c->name) {
        item->name = c->name;
        c->name = name;
    }
    if (c->swap)
        c->swap(item, c->own);
}

int sd_list_change(sd_conn *conn, sd_list *list, sd_named *item, const char *name,
                   void (*swap)(sd_named *item, void *change), void *own)
{
    const sd_named *other = name ? sd_list_find(list, name) : NULL;
    change c = {NULL, "", swap, own};
    int error;
    if (other && other != item) {
        sd_error(conn, 409, "NameConflict", "%s '%s' already exists", list->kind->title, name);
        return 0;
    }
    if ((!name || other) && !swap)
        return 1;
    if (name && !other)
        c.name = sd_copy(name, strlen(name));
    sd_timestamp(c.updated_at);
    exchange(item, &c);
    error = save(list, item);
    if (error) {
        exchange(item, &c);
        (void)save(list, item); /* if the new file was there already */
        sd_reply_unsaved(conn, list->kind, item->name, error);
    }
    free(c.name);
    return !error;
}

int sd_list_drop(sd_list *list, sd_named *item)
{
    int error = list->directory ? sd_store_remove(list->directory, item->id) : 0;
    if (error)
        (void)save(list, item); /* if the file was gone already */
    else
        sd_list_take(list, item);
    return error;
}

int sd_list_remove(sd_conn *conn, sd_list *list, sd_named *item)
{
    int error = sd_list_drop(list, item);
    if (error)
        sd_reply_unsaved(conn, list->kind, item->name, error);
    return !error;
}
