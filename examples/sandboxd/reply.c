/* Whole answers, the shapes of errors, and the fields of requests that lead to them. */
#include "sandboxd.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void sd_reply(sd_conn *conn, int status, const char *type, const char *headers, const char *body,
              size_t len)
{
    sd_reply_start(conn, status, type, headers, (int64_t)len);
    sd_send_body(conn, body, len);
    sd_reply_end(conn);
}

char *sd_json_text(void (*write)(sbx_json_writer *w, const void *arg), const void *arg, size_t *len)
{
    sbx_json_writer w;
    char *text;
    *len = 0;
    sbx_json_writer_init(&w, NULL, 0);
    write(&w, arg);
    if (sbx_json_writer_finish(&w, len) != SBX_OK)
        return NULL;
    text = (char *)sd_alloc(*len);
    sbx_json_writer_init(&w, text, *len);
    write(&w, arg);
    return text;
}

void sd_write_text(sbx_json_writer *w, const char *name, const char *text)
{
    sbx_json_key(w, name);
    if (text)
        sbx_json_string(w, text, strlen(text));
    else
        sbx_json_null(w);
}

void sd_reply_json(sd_conn *conn, int status, void (*write)(sbx_json_writer *w, const void *arg),
                   const void *arg)
{
    static const char broken[] = "{\"detail\":\"the answer could not be written\"}";
    size_t len;
    char *body = sd_json_text(write, arg, &len);
    if (body)
        sd_reply(conn, status, "application/json", NULL, body, len);
    else
        sd_reply(conn, 500, "application/json", NULL, broken, sizeof(broken) - 1);
    free(body);
}

sd_conn *sd_take_waiter(sd_conn **waiter)
{
    sd_conn *conn = *waiter;
    *waiter = NULL;
    if (conn)
        conn->release = NULL;
    return conn;
}

typedef struct error_text {
    const char *type, *message;
} error_text;

static void write_error(sbx_json_writer *w, const void *arg)
{
    const error_text *error = (const error_text *)arg;
    sbx_json_begin_object(w);
    sbx_json_key(w, "detail");
    sbx_json_begin_object(w);
    sd_write_text(w, "error", error->type);
    sd_write_text(w, "message", error->message);
    sbx_json_end_object(w);
    sbx_json_end_object(w);
}

void sd_error(sd_conn *conn, int status, const char *type, const char *format, ...)
{
    error_text error;
    char *text = NULL, *message;
    va_list args;
    int len;
    va_start(args, format);
    len = vasprintf(&text, format, args);
    va_end(args);
    message = sd_quotable(len < 0 ? "" : text);
    error.type = type;
    error.message = message;
    sd_reply_json(conn, status, write_error, &error);
    free(message);
    if (len >= 0)
        free(text);
}

/* ---- what is wrong with fields ---- */

void sd_problem_add_at(sd_problems *problems, const char *field, int index, const char *inner,
                       const char *message)
{
    sd_problem *problem;
    if (problems->count == SD_COUNT(problems->items))
        return;
    problem = &problems->items[problems->count++];
    problem->field = field;
    problem->index = index;
    problem->inner = inner;
    problem->message = message;
}

void sd_problem_add(sd_problems *problems, const char *field, const char *inner,
                    const char *message)
{
    sd_problem_add_at(problems, field, -1, inner, message);
}

static void write_problems(sbx_json_writer *w, const void *arg)
{
    const sd_problems *problems = (const sd_problems *)arg;
    const char *where = problems->where ? problems->where : "body";
    const sd_problem *problem = problems->items;
    sbx_json_begin_object(w);
    sbx_json_key(w, "detail");
    sbx_json_begin_array(w);
    for (; problem < problems->items + problems->count; problem++) {
        sbx_json_begin_object(w);
        sbx_json_key(w, "loc");
        sbx_json_begin_array(w);
        sbx_json_string(w, where, strlen(where));
        if (problem->field)
            sbx_json_string(w, problem->field, strlen(problem->field));
        if (problem->index >= 0)
            sbx_json_integer(w, problem->index);
        if (problem->inner)
            sbx_json_string(w, problem->inner, strlen(problem->inner));
        sbx_json_end_array(w);
        sd_write_text(w, "msg", problem->message);
        sd_write_text(w, "type", "value_error");
        sbx_json_end_object(w);
    }
    sbx_json_end_array(w);
    sbx_json_end_object(w);
}

int sd_reply_problems(sd_conn *conn, const sd_problems *problems)
{
    if (problems->count == 0)
        return 0;
    sd_reply_json(conn, 422, write_problems, problems);
    return 1;
}

const char *sd_field_string(const sd_json *object, const char *name, sd_problems *problems)
{
    const sd_json *value = sd_json_get(object, name);
    if (!value)
        return NULL;
    if (value->type != SBX_JSON_STRING) {
        sd_problem_add(problems, name, NULL, "must be a string");
        return NULL;
    }
    if (memchr(value->text, 0, value->len)) {
        sd_problem_add(problems, name, NULL, "must not hold a NUL");
        return NULL;
    }
    return value->text;
}

const char *sd_field_name(const sd_json *object, const char *name, int required,
                          sd_problems *problems)
{
    size_t before = problems->count;
    const char *text = sd_field_string(object, name, problems), *at;
    if (!text) {
        if (required && problems->count == before)
            sd_problem_add(problems, name, NULL, "is required");
        return NULL;
    }
    for (at = text; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f) {
            sd_problem_add(problems, name, NULL, "must not hold control characters");
            return NULL;
        }
    if (at == text || at - text > SD_MAX_NAME) {
        sd_problem_add(problems, name, NULL, "must be 1 to 1024 bytes long");
        return NULL;
    }
    return text;
}

int sd_field_boolean(const sd_json *object, const char *name, int fallback, sd_problems *problems)
{
    const sd_json *value = sd_json_get(object, name);
    if (!value)
        return fallback;
    if (value->type != SBX_JSON_TRUE && value->type != SBX_JSON_FALSE) {
        sd_problem_add(problems, name, NULL, "must be true or false");
        return fallback;
    }
    return value->type == SBX_JSON_TRUE;
}

double sd_field_number(const sd_json *object, const char *name, double fallback, double least,
                       double most, sd_problems *problems)
{
    const sd_json *value = sd_json_get(object, name);
    if (!value)
        return fallback;
    if (value->type != SBX_JSON_INTEGER && value->type != SBX_JSON_NUMBER) {
        sd_problem_add(problems, name, NULL, "must be a number");
        return fallback;
    }
    if (!(value->number >= least && value->number <= most)) {
        sd_problem_add(problems, name, NULL, "is out of range");
        return fallback;
    }
    return value->number;
}

int sd_field_integer(const sd_json *object, const char *name, int fallback, int least, int most,
                     sd_problems *problems)
{
    double value = sd_field_number(object, name, fallback, least, most, problems);
    if (value != (double)(int)value) {
        sd_problem_add(problems, name, NULL, "must be a whole number");
        return fallback;
    }
    return (int)value;
}
