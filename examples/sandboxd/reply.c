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

void sd_reply_json(sd_conn *conn, int status, void (*write)(sbx_json_writer *w, const void *arg),
                   const void *arg)
{
    sbx_json_writer w;
    size_t len = 0;
    char *body;
    sbx_json_writer_init(&w, NULL, 0);
    write(&w, arg);
    if (sbx_json_writer_finish(&w, &len) != SBX_OK) {
        static const char broken[] = "{\"detail\":\"the answer could not be written\"}";
        sd_reply(conn, 500, "application/json", NULL, broken, sizeof(broken) - 1);
        return;
    }
    body = (char *)sd_alloc(len);
    sbx_json_writer_init(&w, body, len);
    write(&w, arg);
    sd_reply(conn, status, "application/json", NULL, body, len);
    free(body);
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
    sbx_json_key(w, "error");
    sbx_json_string(w, error->type, strlen(error->type));
    sbx_json_key(w, "message");
    sbx_json_string(w, error->message, strlen(error->message));
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

void sd_problem_add(sd_problems *problems, const char *field, const char *inner,
                    const char *message)
{
    sd_problem *problem;
    if (problems->count == SD_COUNT(problems->items))
        return;
    problem = &problems->items[problems->count++];
    problem->path[0] = field;
    problem->path[1] = field ? inner : NULL;
    problem->path[2] = NULL;
    problem->message = message;
}

static void write_problems(sbx_json_writer *w, const void *arg)
{
    const sd_problems *problems = (const sd_problems *)arg;
    const char *where = problems->where ? problems->where : "body", *const * part;
    const sd_problem *problem = problems->items;
    sbx_json_begin_object(w);
    sbx_json_key(w, "detail");
    sbx_json_begin_array(w);
    for (; problem < problems->items + problems->count; problem++) {
        sbx_json_begin_object(w);
        sbx_json_key(w, "loc");
        sbx_json_begin_array(w);
        sbx_json_string(w, where, strlen(where));
        for (part = problem->path; *part; part++)
            sbx_json_string(w, *part, strlen(*part));
        sbx_json_end_array(w);
        sbx_json_key(w, "msg");
        sbx_json_string(w, problem->message, strlen(problem->message));
        sbx_json_key(w, "type");
        sbx_json_string(w, "value_error", 11);
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
