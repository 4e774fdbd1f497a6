/* Control plane: templates, from which sandboxes are made. */
#include "sandboxd.h"

#include <stdlib.h>
#include <string.h>

static const sd_template *template_of(const sd_named *item)
{
    return SD_OWNER(item, const sd_template, named);
}

sd_template *sd_template_find(const sd_control *control, const char *name)
{
    sd_named *item = sd_list_find(&control->lists[SD_TEMPLATES], name);
    return item ? SD_OWNER(item, sd_template, named) : NULL;
}

size_t sd_templates_of(const sd_control *control, const sd_volume *volume)
{
    const sd_named *item;
    size_t count = 0, i;
    for (item = control->lists[SD_TEMPLATES].first; item; item = item->next)
        for (i = 0; i < template_of(item)->mount_count; i++)
            if (template_of(item)->mounts[i].volume == volume) {
                count++;
                break;
            }
    return count;
}

/* ---- documents ---- */

static void write_template(sbx_json_writer *w, const sd_named *item)
{
    const sd_template *template = template_of(item);
    size_t i;
    sd_write_text(w, "image", template->image);
    sbx_json_key(w, "resources");
    sbx_json_begin_object(w);
    sd_write_text(w, "cpu", template->cpu);
    sd_write_text(w, "memory", template->memory);
    sd_write_text(w, "storage", template->storage);
    sbx_json_end_object(w);
    sbx_json_key(w, "volume_mounts");
    sbx_json_begin_array(w);
    for (i = 0; i < template->mount_count; i++) {
        sbx_json_begin_object(w);
        sd_write_text(w, "volume_name", template->mounts[i].volume->named.name);
        sd_write_text(w, "volume_id", template->mounts[i].volume->named.id);
        sd_write_text(w, "mount_path", template->mounts[i].path);
        sbx_json_end_object(w);
    }
    sbx_json_end_array(w);
}

/* A quantity of the request's resources; fallback where there is none. */
static const char *resource(const sd_json *resources, const char *name, sd_unit unit,
                            const char *fallback, sd_problems *problems)
{
    const sd_json *value = sd_json_get(resources, name);
    double amount;
    if (!value)
        return fallback;
    if (value->type != SBX_JSON_STRING || strlen(value->text) != value->len ||
        sd_quantity(value->text, unit, &amount) < 0) {
        sd_problem_add(problems, "resources", name, "must be a quantity such as 500m, 2 or 512Mi");
        return fallback;
    }
    return value->text;
}

/* 1 if path is outer, or lies below it. */
static int is_within(const char *path, const char *outer)
{
    size_t len = strlen(outer);
    return strncmp(path, outer, len) == 0 && (path[len] == '/' || !path[len]);
}

/* Writes the path without superfluous slashes to out, which has room for it. NULL, or what is wrong
   with it. */
static const char *normalize(const char *path, char *out)
{
    static const char *const taken[] = {"/proc",   "/dev",    "/sys",      "/usr",   "/bin",
                                        "/sbin",   "/lib",    "/etc",      "/lib32", "/lib64",
                                        "/libx32", "/libo32", "/.sandboxd"};
    char *end = out;
    size_t len, i;
    *out = 0;
    if (*path != '/')
        return "must be an absolute path";
    for (path += strspn(path, "/"); *path; path += len + strspn(path + len, "/")) {
        len = strcspn(path, "/");
        if (len > 255)
            return "has a part of more than 255 bytes";
        if ((len == 1 && path[0] == '.') || (len == 2 && path[0] == '.' && path[1] == '.'))
            return "must not have the parts . and ..";
        *end++ = '/';
        memcpy(end, path, len);
        end += len;
        *end = 0;
    }
    if (!*out)
        return "must not be the root";
    for (i = 0; i < SD_COUNT(taken); i++)
        if (is_within(out, taken[i]))
            return "must not be a directory of the system";
    if (strcmp(out, "/home") == 0)
        return "must not hide the home directory, /home/user";
    return NULL;
}

/* Why the path of the last mount cannot be, besides the others; NULL: it can. */
static const char *compare_paths(const sd_template_mount *mounts, size_t last)
{
    const char *path = mounts[last].path;
    size_t i;
    for (i = 0; i < last; i++)
        if (strcmp(mounts[i].path, path) == 0)
            return "is the path of two mounts";
        else if (mounts[i].path[0] &&
                 (is_within(mounts[i].path, path) || is_within(path, mounts[i].path)))
            return "must not lie inside that of another mount";
    return NULL;
}

/* Takes the n-th mount. An unknown volume is the field's fault: a 404 would tell clients that the
   server has no templates. */
static void take_mount(const sd_control *control, const sd_json *json, int stored,
                       sd_template *template, sd_problems *problems)
{
    sd_problems own = {0};
    const sd_list *volumes = &control->lists[SD_VOLUMES];
    const char *field = stored ? "volume_id" : "volume_name", *wrong;
    const char *volume = sd_field_name(json, field, 1, &own);
    const char *path = sd_field_name(json, "mount_path", 1, &own);
    size_t n = template->mount_count++, i;
    sd_template_mount *mount = &template->mounts[n];
    sd_named *item = !volume  ? NULL
                     : stored ? sd_list_find_id(volumes, volume)
                              : sd_list_find(volumes, volume);
    if (volume && !item)
        sd_problem_add(&own, field, NULL, "there is no such volume");
    if (item)
        mount->volume = SD_OWNER(item, sd_volume, named);
    mount->path = (char *)sd_alloc(path ? strlen(path) + 1 : 1);
    wrong = path ? normalize(path, mount->path) : NULL;
    if (path && !wrong)
        wrong = compare_paths(template->mounts, n);
    if (wrong) {
        sd_problem_add(&own, "mount_path", NULL, wrong);
        mount->path[0] = 0;
    }
    for (i = 0; i < own.count; i++)
        sd_problem_add_at(problems, "volume_mounts", (int)n, own.items[i].field,
                          own.items[i].message);
}

static void take_mounts(const sd_control *control, const sd_json *json, int stored,
                        sd_template *template, sd_problems *problems)
{
    const sd_json *mounts = sd_json_get(json, "volume_mounts"), *mount;
    size_t count = 0;
    if (mounts && mounts->type != SBX_JSON_ARRAY)
        sd_problem_add(problems, "volume_mounts", NULL, "must be an array");
    for (mount = mounts ? mounts->child : NULL; mount; mount = mount->next)
        count++;
    if (count > SD_MAX_MOUNTS) {
        sd_problem_add(problems, "volume_mounts", NULL, "must have at most 32 elements");
        return;
    }
    if (!mounts || mounts->type != SBX_JSON_ARRAY)
        return;
    template->mounts = (sd_template_mount *)sd_alloc(count * sizeof(*template->mounts));
    for (mount = mounts->child; mount; mount = mount->next)
        take_mount(control, mount, stored, template, problems);
}

static char *copy(const char *text)
{
    return text ? sd_copy(text, strlen(text)) : NULL;
}

static void free_template(sd_named *item)
{
    sd_template *template = SD_OWNER(item, sd_template, named);
    while (template->mount_count > 0)
        free(template->mounts[--template->mount_count].path);
    free(template->mounts);
    free(template->image);
    free(template->cpu);
    free(template->memory);
    free(template->storage);
    free(template);
}

static sd_named *read_template(const sd_control *control, const sd_json *json, int stored,
                               sd_problems *problems)
{
    const sd_json *resources = sd_json_get(json, "resources");
    sd_template *template = (sd_template *)sd_alloc(sizeof(*template));
    template->image = copy(sd_field_name(json, "image", 1, problems));
    template->cpu = copy(resource(resources, "cpu", SD_CPUS, "500m", problems));
    template->memory = copy(resource(resources, "memory", SD_BYTES, "512Mi", problems));
    template->storage = copy(resource(resources, "storage", SD_BYTES, NULL, problems));
    if (resources && resources->type != SBX_JSON_OBJECT)
        sd_problem_add(problems, "resources", NULL, "must be an object");
    take_mounts(control, json, stored, template, problems);
    if (problems->count > 0) {
        free_template(&template->named);
        return NULL;
    }
    return &template->named;
}

const sd_kind sd_template_kind = {"/templates",   "templates", "template",    "Template",
                                  write_template, NULL,        read_template, free_template};

/* ---- requests ---- */

void sd_handle_template_create(sd_conn *conn)
{
    sd_list *list = sd_conn_list(conn);
    sd_named *item = sd_list_make(conn, list);
    if (item && sd_list_accepts(conn, list, item->name) &&
        sd_list_has_room(conn, list->kind, list->count, SD_MAX_TEMPLATES) &&
        sd_list_insert(conn, list, item))
        sd_reply_item(conn, 201, list->kind, item);
    else if (item)
        sd_named_free(list->kind, item);
}

void sd_handle_template_delete(sd_conn *conn)
{
    sd_control *control = sd_conn_control(conn);
    sd_list *list = sd_conn_list(conn);
    sd_named *item = sd_conn_item(conn);
    size_t boxes, pools, users;
    if (!item)
        return;
    boxes = sd_boxes_of(control, template_of(item));
    pools = sd_pools_of(control, template_of(item));
    users = boxes ? boxes : pools;
    if (users > 0)
        sd_error(conn, 409, "ResourceInUse", "Template '%s' is in use by %zu %s%s", item->name,
                 users, boxes ? "sandbox" : "pool",
                 users == 1 ? ""
                 : boxes    ? "es"
                            : "s");
    else if (sd_list_remove(conn, list, item)) {
        sd_named_free(list->kind, item);
        sd_reply(conn, 204, NULL, NULL, "", 0);
    }
}
