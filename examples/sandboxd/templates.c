/* Control plane: templates. */
#include "sandboxd.h"

#include <stdlib.h>
#include <string.h>

sd_template *sd_template_find(const sd_control *control, const char *name)
{
    sd_template *template = control->templates;
    while (template && strcmp(template->name, name) != 0)
        template = template->next;
    return template;
}

static sd_template *named(sd_conn *conn)
{
    sd_template *template = sd_template_find(sd_conn_control(conn), sd_segment(conn, 0));
    if (!template)
        sd_error(conn, 404, "TemplateNotFound", "Template '%s' not found", sd_segment(conn, 0));
    return template;
}

static void write_text(sbx_json_writer *w, const char *name, const char *text)
{
    sbx_json_key(w, name);
    if (text)
        sbx_json_string(w, text, strlen(text));
    else
        sbx_json_null(w);
}

static void write_template(sbx_json_writer *w, const void *arg)
{
    const sd_template *template = (const sd_template *)arg;
    sbx_json_begin_object(w);
    write_text(w, "id", template->id);
    write_text(w, "name", template->name);
    write_text(w, "image", template->image);
    sbx_json_key(w, "resources");
    sbx_json_begin_object(w);
    write_text(w, "cpu", template->cpu);
    write_text(w, "memory", template->memory);
    write_text(w, "storage", template->storage);
    sbx_json_end_object(w);
    sbx_json_key(w, "volume_mounts");
    sbx_json_begin_array(w);
    sbx_json_end_array(w);
    write_text(w, "created_at", template->created_at);
    write_text(w, "updated_at", template->updated_at);
    sbx_json_end_object(w);
}

static void write_list(sbx_json_writer *w, const void *arg)
{
    const sd_template *template;
    sbx_json_begin_object(w);
    sbx_json_key(w, "templates");
    sbx_json_begin_array(w);
    for (template = (const sd_template *)arg; template; template = template->next)
        write_template(w, template);
    sbx_json_end_array(w);
    sbx_json_end_object(w);
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

/* There are no volumes yet, so a mount cannot be of one. */
static void check_mounts(const sd_json *json, sd_problems *problems)
{
    const sd_json *mounts = sd_json_get(json, "volume_mounts");
    if (mounts && mounts->type != SBX_JSON_ARRAY)
        sd_problem_add(problems, "volume_mounts", NULL, "must be an array");
    else if (mounts && mounts->child)
        sd_problem_add(problems, "volume_mounts", "volume_name", "there is no such volume");
}

static char *copy(const char *text)
{
    return text ? sd_copy(text, strlen(text)) : NULL;
}

static void free_template(sd_template *template)
{
    free(template->name);
    free(template->image);
    free(template->cpu);
    free(template->memory);
    free(template->storage);
    free(template);
}

void sd_handle_template_create(sd_conn *conn)
{
    sd_control *control = sd_conn_control(conn);
    sd_problems problems = {0};
    const sd_json *json = conn->json, *resources = sd_json_get(json, "resources");
    const char *name = sd_field_name(json, "name", 1, &problems);
    const char *image = sd_field_name(json, "image", 1, &problems);
    const char *cpu = resource(resources, "cpu", SD_CPUS, "500m", &problems);
    const char *memory = resource(resources, "memory", SD_BYTES, "512Mi", &problems);
    const char *storage = resource(resources, "storage", SD_BYTES, NULL, &problems);
    sd_template *template, **link = &control->templates;

    if (resources && resources->type != SBX_JSON_OBJECT)
        sd_problem_add(&problems, "resources", NULL, "must be an object");
    check_mounts(json, &problems);
    if (sd_reply_problems(conn, &problems))
        return;
    if (sd_template_find(control, name)) {
        sd_error(conn, 409, "AlreadyExists", "Template '%s' already exists", name);
        return;
    }
    if (control->template_count >= SD_MAX_TEMPLATES) {
        sd_error(conn, 429, "QuotaExceeded", "there are already %d templates", SD_MAX_TEMPLATES);
        return;
    }
    template = (sd_template *)sd_alloc(sizeof(*template));
    template->name = copy(name);
    template->image = copy(image);
    template->cpu = copy(cpu);
    template->memory = copy(memory);
    template->storage = copy(storage);
    sd_uuid(template->id);
    sd_timestamp(template->created_at);
    sd_timestamp(template->updated_at);
    while (*link)
        link = &(*link)->next;
    *link = template;
    control->template_count++;
    sd_reply_json(conn, 201, write_template, template);
}

void sd_handle_template_list(sd_conn *conn)
{
    sd_reply_json(conn, 200, write_list, sd_conn_control(conn)->templates);
}

void sd_handle_template_get(sd_conn *conn)
{
    const sd_template *template = named(conn);
    if (template)
        sd_reply_json(conn, 200, write_template, template);
}

void sd_handle_template_rename(sd_conn *conn)
{
    sd_problems problems = {0};
    const char *name = sd_field_name(conn->json, "name", 0, &problems);
    sd_template *template = named(conn), *other;
    if (!template || sd_reply_problems(conn, &problems))
        return;
    other = name ? sd_template_find(sd_conn_control(conn), name) : NULL;
    if (other && other != template) {
        sd_error(conn, 409, "NameConflict", "Template '%s' already exists", name);
        return;
    }
    if (name && !other) {
        free(template->name);
        template->name = copy(name);
        sd_timestamp(template->updated_at);
    }
    sd_reply_json(conn, 200, write_template, template);
}

void sd_handle_template_delete(sd_conn *conn)
{
    sd_control *control = sd_conn_control(conn);
    sd_template *template = named(conn), **link = &control->templates;
    size_t users;
    if (!template)
        return;
    users = sd_boxes_of(control, template);
    if (users > 0) {
        sd_error(conn, 409, "ResourceInUse", "Template '%s' is in use by %zu sandbox%s",
                 template->name, users, users == 1 ? "" : "es");
        return;
    }
    while (*link != template)
        link = &(*link)->next;
    *link = template->next;
    control->template_count--;
    free_template(template);
    sd_reply(conn, 204, NULL, NULL, "", 0);
}

void sd_templates_free(sd_control *control)
{
    while (control->templates) {
        sd_template *template = control->templates;
        control->templates = template->next;
        free_template(template);
    }
}
