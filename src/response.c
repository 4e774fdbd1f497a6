/* response: what the body of a response means: JSON objects become structs, error bodies an
   sbx_error.

   Promises: unknown members are ignored, absent and null ones take defaults, a known member of the
   wrong type is an error that names it; an error body of whatever kind gives a usable error. The
   body is read twice, once to count and once to fill one block. May call exchange and the JSON
   codec. */
#include "internal.h"

/* ---- walking through a document ---- */

/* The path of a value is made of the keys that lead to it, with a point between, and [] for the
   elements of an array: "sandboxes[].name". A key that is too long, empty, or looks like a path
   counts as "?". */
typedef struct sbxi_walk {
    sbx_json json;
    const char *body;
    size_t len, at;
    size_t
        base[SBX_JSON_DEPTH + 2]; /* the length of the path of the container, by depth of value */
    int entered;                  /* the last event was the beginning of an array */
    int in_key;                   /* and a key that came in pieces is not complete */
    char path[96];
} sbxi_walk;

static void sbxi_walk_init(sbxi_walk *w, const char *body, size_t len, char *scratch, size_t cap)
{
    w->body = body;
    w->len = len;
    w->at = 0;
    w->path[0] = 0;
    w->base[0] = 0;
    w->entered = w->in_key = 0;
    sbx_json_init(&w->json, scratch, cap);
}

static void sbxi_walk_key(sbxi_walk *w, const sbx_json_event *e)
{
    size_t at = w->base[e->depth], len = e->len, i;
    const char *text = e->text;
    int odd = len == 0 || len > 40 || e->partial || w->in_key;
    for (i = 0; !odd && i < len; i++)
        odd = !text[i] || text[i] == '.' || text[i] == '[';
    w->in_key = e->partial;
    if (odd) {
        text = "?";
        len = 1;
    }
    if (at + 1 + len + 3 > sizeof(w->path))
        return; /* deeper than anything we know of: never equal to a known path */
    if (at > 0)
        w->path[at++] = '.';
    memcpy(w->path + at, text, len);
    w->path[at + len] = 0;
}

/* SBX_OK: a scalar, or the beginning of an array or object, whose path is w->path. SBX_END: the
   document is complete. Texts longer than the scratch come in pieces, as the reader gives them. */
static sbx_status sbxi_walk_next(sbxi_walk *w, sbx_json_event *e)
{
    if (w->entered && strlen(w->path) + 3 <= sizeof(w->path))
        memcpy(w->path + strlen(w->path), "[]", 3);
    w->entered = 0;
    for (;;) {
        size_t used = 0;
        sbx_status st = sbx_json_read(&w->json, w->body + w->at, w->len - w->at, &used, e);
        w->at += used;
        if (st == SBX_AGAIN)
            st = sbx_json_finish(&w->json, e);
        if (st != SBX_OK)
            return st;
        switch (e->type) {
        case SBX_JSON_KEY:
            sbxi_walk_key(w, e);
            break;
        case SBX_JSON_ARRAY:
            w->entered = 1;
            w->base[e->depth + 1] =
                strlen(w->path) + (strlen(w->path) + 3 <= sizeof(w->path) ? 2 : 0);
            return SBX_OK;
        case SBX_JSON_OBJECT:
            w->base[e->depth + 1] = strlen(w->path);
            return SBX_OK;
        case SBX_JSON_ARRAY_END:
        case SBX_JSON_OBJECT_END:
            w->path[w->base[e->depth]] = 0;
            break;
        default:
            return SBX_OK;
        }
    }
}

/* ---- structs from objects ---- */

/* What a member becomes; what it is if it is absent. */
typedef enum sbxi_kind {
    SBXI_TEXT,   /* a const char *; "" */
    SBXI_BYTES,  /* a const char * with a size_t behind it; "" */
    SBXI_INT,    /* an int; -1 */
    SBXI_SIZE,   /* an int64_t; 0 */
    SBXI_SECONDS /* an int64_t in milliseconds, SBX_NONE where the service says 0; 0 */
} sbxi_kind;

/* A member of the document and where it goes. */
typedef struct sbxi_field {
    const char *path; /* below the item */
    sbxi_kind kind;
    size_t offset;
} sbxi_field;

/* A struct to be filled. inner are items inside it. */
typedef struct sbxi_record {
    size_t size;
    const sbxi_field *fields;
    int field_count;
    const char *inner; /* "volume_mounts[]", or NULL */
    size_t inner_size, inner_offset, inner_count_offset;
    const sbxi_field *inner_fields;
    int inner_field_count;
} sbxi_record;

/* Sets what absent members are; all of the item is zero before. */
static void sbxi_field_defaults(char *item, const sbxi_field *fields, int count)
{
    static const char *const empty = "";
    static const int none = -1;
    int i;
    for (i = 0; i < count; i++) {
        if (fields[i].kind == SBXI_INT)
            memcpy(item + fields[i].offset, &none, sizeof(none));
        else if (fields[i].kind == SBXI_TEXT || fields[i].kind == SBXI_BYTES)
            memcpy(item + fields[i].offset, &empty, sizeof(empty));
    }
}

/* What follows prefix in path, without the point between; NULL if path lies elsewhere. */
static const char *sbxi_below(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);
    if (strncmp(path, prefix, len) != 0)
        return NULL;
    return path[len] == '.' && len ? path + len + 1 : path + len;
}

static sbx_status sbxi_fail_type(sbx_error *err, const char *path, const char *expected)
{
    return sbxi_fail(err, SBX_E_PROTOCOL, "the service's response cannot be used: \"%s\" is not %s",
                     path, expected);
}

static sbx_status sbxi_store_number(const sbxi_walk *w, const sbx_json_event *e, char *item,
                                    const sbxi_field *field, sbx_error *err)
{
    int64_t value = e->integer;
    int small = (int)value;
    if (e->type != SBX_JSON_INTEGER)
        return sbxi_fail_type(err, w->path, "a whole number");
    if (field->kind == SBXI_INT) {
        if (small != value)
            return sbxi_fail_type(err, w->path, "a number that fits");
        memcpy(item + field->offset, &small, sizeof(small));
        return SBX_OK;
    }
    if (field->kind == SBXI_SECONDS)
        value = value <= 0 ? SBX_NONE : value < INT64_MAX / 1000 ? value * 1000 : INT64_MAX;
    memcpy(item + field->offset, &value, sizeof(value));
    return SBX_OK;
}

/* Stores a value; texts go to the block's end, which the reader uses as its scratch. */
static sbx_status sbxi_store(sbxi_walk *w, const sbx_json_event *e, char *item,
                             const sbxi_field *field, sbx_error *err)
{
    char *text = w->json.scratch;
    const char *known;
    if (e->type == SBX_JSON_NULL)
        return SBX_OK;
    if (field->kind != SBXI_TEXT && field->kind != SBXI_BYTES)
        return sbxi_store_number(w, e, item, field, err);
    if (e->type != SBX_JSON_STRING)
        return sbxi_fail_type(err, w->path, "a string");
    memmove(text, e->text, e->len);
    text[e->len] = 0;
    w->json.scratch += e->len + 1;
    w->json.cap -= e->len + 1;
    known = text;
    memcpy(item + field->offset, &known, sizeof(known));
    if (field->kind == SBXI_BYTES)
        memcpy(item + field->offset + sizeof(known), &e->len, sizeof(e->len));
    return SBX_OK;
}

static const sbxi_field *sbxi_field_find(const sbxi_field *fields, int count, const char *path)
{
    int i;
    for (i = 0; i < count; i++)
        if (strcmp(fields[i].path, path) == 0)
            return &fields[i];
    return NULL;
}

/* The block while it is filled; items is NULL in the pass that only counts. */
typedef struct sbxi_filling {
    const sbxi_record *record;
    const char *list; /* "sandboxes[]", or "" for a single object */
    char *items, *inner;
    size_t count, inner_count;
    size_t own; /* inner items of the last item */
} sbxi_filling;

static void sbxi_filling_begin(sbxi_filling *f, int inside)
{
    const sbxi_record *r = f->record;
    if (!inside) {
        f->own = 0;
        if (f->items)
            sbxi_field_defaults(f->items + f->count * r->size, r->fields, r->field_count);
        f->count++;
    } else if (f->count) {
        f->own++;
        f->inner_count++;
        if (f->items) {
            char *item = f->items + (f->count - 1) * r->size;
            const char *first = f->inner + (f->inner_count - f->own) * r->inner_size;
            sbxi_field_defaults(f->inner + (f->inner_count - 1) * r->inner_size, r->inner_fields,
                                r->inner_field_count);
            memcpy(item + r->inner_offset, &first, sizeof(first));
            memcpy(item + r->inner_count_offset, &f->own, sizeof(f->own));
        }
    }
}

static sbx_status sbxi_filling_store(sbxi_filling *f, sbxi_walk *w, const sbx_json_event *e,
                                     const char *path, int inside, sbx_error *err)
{
    const sbxi_record *r = f->record;
    const sbxi_field *field;
    char *item;
    if (!f->items || !f->count || (inside && !f->own))
        return SBX_OK;
    if (inside) {
        field = sbxi_field_find(r->inner_fields, r->inner_field_count, path);
        item = f->inner + (f->inner_count - 1) * r->inner_size;
    } else {
        field = sbxi_field_find(r->fields, r->field_count, path);
        item = f->items + (f->count - 1) * r->size;
    }
    return field ? sbxi_store(w, e, item, field, err) : SBX_OK;
}

/* What must stand at path so that known can be found there or below: an object '{', a list '[', or
   the value itself '"'; 0: known lies elsewhere. */
static char sbxi_expected(const char *known, const char *path)
{
    size_t len = strlen(path);
    if (strncmp(known, path, len) != 0)
        return 0;
    return known[len] == '.' ? '{' : known[len] == '[' ? '[' : known[len] ? 0 : '"';
}

/* The same for all that is to be filled; an item of a list is 'i', an object that cannot be null. */
static char sbxi_filling_expected(const sbxi_filling *f, const char *path)
{
    const sbxi_record *r = f->record;
    const char *below = sbxi_below(path, f->list), *deeper;
    char found = sbxi_expected(f->list, path);
    int i;
    if (!below || found)
        return found == '"' ? 'i' : found; /* an item of the list */
    deeper = r->inner ? sbxi_below(below, r->inner) : NULL;
    if (r->inner)
        found = sbxi_expected(r->inner, below);
    if (found)
        return found == '"' ? 'i' : found;
    for (i = 0; deeper && !found && i < r->inner_field_count; i++)
        found = sbxi_expected(r->inner_fields[i].path, deeper);
    for (i = 0; !deeper && !found && i < r->field_count; i++)
        found = sbxi_expected(r->fields[i].path, below);
    return found;
}

/* What should stand there instead of this event; NULL: it is all right, as far as can be said here.
   */
static const char *sbxi_filling_misfit(const sbxi_filling *f, const char *path,
                                       const sbx_json_event *e)
{
    char expected = sbxi_filling_expected(f, path);
    int container = e->type == SBX_JSON_OBJECT || e->type == SBX_JSON_ARRAY;
    if (e->depth == 0 || expected == 'i')
        return e->type == SBX_JSON_OBJECT ? NULL : "an object";
    if (e->type == SBX_JSON_NULL)
        return NULL;
    if (expected == '{')
        return e->type == SBX_JSON_OBJECT ? NULL : "an object";
    if (expected == '[')
        return e->type == SBX_JSON_ARRAY ? NULL : "a list";
    return expected == '"' && container ? "a plain value" : NULL;
}

/* One pass over the body. */
static sbx_status sbxi_filling_pass(sbxi_filling *f, sbxi_walk *w, sbx_error *err)
{
    sbx_json_event e;
    sbx_status st;
    f->count = f->inner_count = f->own = 0;
    while ((st = sbxi_walk_next(w, &e)) == SBX_OK) {
        const char *path = sbxi_below(w->path, f->list);
        const char *deeper = path && f->record->inner ? sbxi_below(path, f->record->inner) : NULL;
        const char *misfit = sbxi_filling_misfit(f, w->path, &e);
        if (misfit)
            return sbxi_fail_type(err, *w->path ? w->path : "the body", misfit);
        if (!path)
            continue;
        path = deeper ? deeper : path;
        if (e.type == SBX_JSON_OBJECT && !*path)
            sbxi_filling_begin(f, deeper != NULL);
        else if (e.type != SBX_JSON_OBJECT && e.type != SBX_JSON_ARRAY)
            st = sbxi_filling_store(f, w, &e, path, deeper != NULL, err);
        if (st != SBX_OK)
            return st;
    }
    if (st != SBX_END)
        return sbxi_fail(err, st, "the service's response is not JSON: %s at byte %l",
                         w->json.problem ? w->json.problem : "it was cut short",
                         (int64_t)w->json.offset);
    return SBX_OK;
}

/* Makes one object of head_size bytes, the items, their inner items and all their texts, and fills
   it from the body: from the objects at list ("sandboxes[]"), or from the body itself (list ""),
   which is then the one item. *items points behind the head. */
static sbx_status sbxi_decode(const sbx_client *client, const sbxi_buffer *body,
                              const sbxi_record *record, const char *list, size_t head_size,
                              void **out, char **items, size_t *count, sbx_error *err)
{
    const char *data = sbxi_buffer_len(body) ? sbxi_buffer_data(body) : "";
    size_t len = sbxi_buffer_len(body), size;
    char scratch[64];
    sbxi_walk walk;
    sbxi_filling filling;
    sbx_status st;
    char *block;
    memset(&filling, 0, sizeof(filling));
    filling.record = record;
    filling.list = list;
    *out = NULL;
    sbxi_walk_init(&walk, data, len, scratch, sizeof(scratch));
    st = sbxi_filling_pass(&filling, &walk, err);
    if (st != SBX_OK)
        return st;
    /* Each text is at least two bytes shorter than what it was read from, so len suffices, with
       the room that the reader asks for at least. */
    if (filling.count > SBXI_MAX_ITEMS || filling.inner_count > SBXI_MAX_ITEMS)
        return sbxi_fail(err, SBX_E_TOO_BIG, "the service's response has more than %d items",
                         SBXI_MAX_ITEMS);
    size = head_size + filling.count * record->size + filling.inner_count * record->inner_size;
    block = (char *)sbxi_object(&client->memory, size + len + 64);
    if (!block)
        return sbxi_fail_memory(err);
    filling.items = block + head_size;
    filling.inner = filling.items + filling.count * record->size;
    sbxi_walk_init(&walk, data, len, block + size, len + 64);
    st = sbxi_filling_pass(&filling, &walk, err);
    if (st != SBX_OK) {
        sbx_free(block);
        return st;
    }
    *out = block;
    *items = filling.items;
    *count = filling.count;
    return SBX_OK;
}

/* ---- errors of the service ---- */

typedef enum sbxi_action {
    SBXI_GET,
    SBXI_LIST,
    SBXI_CREATE,
    SBXI_UPDATE,
    SBXI_DELETE,
    SBXI_INSIDE, /* on the data plane */
    SBXI_UPGRADE
} sbxi_action;

/* Appends to the text in out[cap] what fits. */
static void sbxi_append(char *out, size_t cap, const char *text, size_t len)
{
    size_t at = strlen(out);
    if (at + 1 < cap)
        sbxi_copy(out + at, cap - at, text, len);
}

/* Where a member of an error body goes; NULL if nowhere. Sets *cap. */
static char *sbxi_error_member(sbx_error *err, const char *path, size_t *cap)
{
    int last = err->detail_count - 1;
    sbx_error_detail *d = last >= 0 && last < SBX_ERROR_DETAILS ? &err->details[last] : NULL;
    *cap = sizeof(err->message);
    if (strcmp(path, "detail") == 0 || strcmp(path, "detail.message") == 0)
        return err->message;
    *cap = sizeof(err->error_type);
    if (strcmp(path, "detail.error") == 0)
        return err->error_type;
    if (!d)
        return NULL;
    *cap = sizeof(d->field);
    if (strcmp(path, "detail[].loc[]") == 0)
        return d->field;
    *cap = sizeof(d->type);
    if (strcmp(path, "detail[].type") == 0)
        return d->type;
    *cap = sizeof(d->message);
    return strcmp(path, "detail[].msg") == 0 ? d->message : NULL;
}

/* Reads what it can of an error body into err, which is clear. Says whether any of the details,
   also of those that are not kept, has the type value_error. */
static int sbxi_error_body(const sbxi_buffer *body, sbx_error *err)
{
    char scratch[256], number[21];
    sbxi_walk walk;
    sbx_json_event e;
    int going_on = 0, value_error = 0;
    if (!sbxi_buffer_len(body))
        return 0;
    sbxi_walk_init(&walk, sbxi_buffer_data(body), sbxi_buffer_len(body), scratch, sizeof(scratch));
    while (sbxi_walk_next(&walk, &e) == SBX_OK) {
        size_t cap;
        char *to;
        if (e.type == SBX_JSON_OBJECT && strcmp(walk.path, "detail[]") == 0)
            err->detail_count++;
        to = sbxi_error_member(err, walk.path, &cap);
        if (e.type == SBX_JSON_INTEGER) {
            e.text = number;
            e.len = sbxi_decimal(number, e.integer);
        } else if (e.type != SBX_JSON_STRING) {
            continue;
        }
        if (!going_on && e.len == 11 && memcmp(e.text, "value_error", 11) == 0 &&
            strcmp(walk.path, "detail[].type") == 0)
            value_error = 1;
        if (to && !going_on)
            to[0] = 0;
        if (to)
            sbxi_append(to, cap, e.text, e.len);
        if (strcmp(walk.path, "detail[].msg") == 0) { /* of all of them, not only those kept */
            if (!going_on && *err->message)
                sbxi_append(err->message, sizeof(err->message), "; ", 2);
            sbxi_append(err->message, sizeof(err->message), e.text, e.len);
        }
        going_on = e.type == SBX_JSON_STRING && e.partial;
    }
    if (err->detail_count)
        sbxi_copy(err->field, sizeof(err->field), err->details[0].field,
                  strlen(err->details[0].field));
    return value_error;
}

/* 1 if text has word, which is in lower case, whatever the case of text. */
static int sbxi_mentions(const char *text, const char *word)
{
    size_t len = strlen(word);
    for (; strlen(text) >= len; text++)
        if (sbxi_equal_nocase(text, len, word))
            return 1;
    return 0;
}

static const char *sbxi_quota_type(const char *message)
{
    int counts = sbxi_mentions(message, "count") || sbxi_mentions(message, "limit");
    if (counts && sbxi_mentions(message, "sandbox"))
        return "sandbox_count";
    if (sbxi_mentions(message, "cpu"))
        return "cpu";
    if (sbxi_mentions(message, "memory"))
        return "memory";
    if (counts && sbxi_mentions(message, "volume"))
        return "volume_count";
    return sbxi_mentions(message, "storage") ? "storage" : "";
}

/* The class of an error that does not depend on the call. */
static sbx_status sbxi_classify_common(int http, const char *type)
{
    switch (http) {
    case 401:
    case 403:
        return SBX_E_AUTHENTICATION;
    case 404:
        return SBX_E_NOT_FOUND;
    case 422:
        return SBX_E_VALIDATION;
    case 429:
        return SBX_E_QUOTA;
    case 500:
        return SBX_E_API;
    case 502:
        return strcmp(type, "ConnectionError") == 0 ? SBX_E_CONNECTION : SBX_E_SERVICE;
    default:
        return SBX_E_SERVICE;
    }
}

static sbx_status sbxi_classify_inside(sbx_error *err)
{
    const char *type = err->error_type;
    int http = err->http_status;
    static const struct {
        const char *type, *operation;
    } failed[] = {{"WriteError", "write"}, {"ReadError", "read"}, {"CommandError", "command"}};
    int i;
    if ((http == 408 && strcmp(err->operation, "command") == 0) ||
        strcmp(type, "CommandTimeout") == 0)
        return SBX_E_COMMAND_TIMEOUT;
    for (i = 0; i < SBXI_COUNT(failed); i++) {
        if (strcmp(type, failed[i].type) == 0) {
            err->operation = failed[i].operation;
            return SBX_E_OPERATION;
        }
    }
    if (http == 403) {
        sbxi_copy(err->error_type, sizeof(err->error_type), "PermissionDenied", 16);
        return SBX_E_OPERATION;
    }
    if ((http == 400 && strcmp(type, "NotReady") == 0) ||
        (http == 503 && strcmp(type, "ServiceUnavailable") == 0))
        return SBX_E_NOT_READY;
    if (http == 404 || strcmp(type, "FileNotFound") == 0) {
        err->resource_type = "file";
        return SBX_E_NOT_FOUND;
    }
    return sbxi_classify_common(http, type);
}

/* What a status means for some calls only; the first row that fits counts. An empty resource or
   type fits any. */
typedef struct sbxi_meaning {
    int http;
    sbxi_action action;
    const char *resource, *type;
    sbx_status status;
    const char *about;    /* the resource type of the error, if it is another one */
    const char *fallback; /* the type of the error, if the service gave none */
} sbxi_meaning;

static const sbxi_meaning sbxi_meanings[] = {
    /* What should have been used does not exist. */
    {404, SBXI_CREATE, "sandbox", "TemplateNotFound", SBX_E_NOT_FOUND, "template", NULL},
    {404, SBXI_CREATE, "sandbox", "SnapshotNotFound", SBX_E_NOT_FOUND, "snapshot", NULL},
    {404, SBXI_CREATE, "template", "VolumeNotFound", SBX_E_NOT_FOUND, "volume", NULL},
    {404, SBXI_CREATE, "pool", "TemplateNotFound", SBX_E_NOT_FOUND, "template", NULL},
    {400, SBXI_CREATE, "pool", "TemplateNotFound", SBX_E_NOT_FOUND, "template", NULL},
    {400, SBXI_UPDATE, "pool", "TemplateNotFound", SBX_E_NOT_FOUND, "template", NULL},
    /* These paths always exist, so it is another service that answers. */
    {404, SBXI_CREATE, "", "", SBX_E_API, NULL, NULL},
    {404, SBXI_LIST, "", "", SBX_E_API, NULL, NULL},

    {400, SBXI_CREATE, "pool", "ValidationError", SBX_E_VALIDATION, NULL, NULL},
    {400, SBXI_UPDATE, "pool", "ValidationError", SBX_E_VALIDATION, NULL, NULL},
    {400, SBXI_UPDATE, "volume", "", SBX_E_VALIDATION, NULL, "VolumeResize"},

    {409, SBXI_CREATE, "", "", SBX_E_ALREADY_EXISTS, NULL, NULL},
    {409, SBXI_UPDATE, "", "", SBX_E_NAME_CONFLICT, NULL, NULL},
    {409, SBXI_DELETE, "", "", SBX_E_IN_USE, NULL, NULL},

    {408, SBXI_CREATE, "sandbox", "", SBX_E_RESOURCE_TIMEOUT, NULL, NULL},
    {504, SBXI_CREATE, "volume", "", SBX_E_RESOURCE_TIMEOUT, NULL, NULL},
    {504, SBXI_CREATE, "pool", "", SBX_E_RESOURCE_TIMEOUT, NULL, NULL},
    {504, SBXI_UPDATE, "pool", "", SBX_E_RESOURCE_TIMEOUT, NULL, NULL},

    {503, SBXI_CREATE, "sandbox", "", SBX_E_CREATION, NULL, "Unschedulable"},
    {503, SBXI_CREATE, "volume", "", SBX_E_CREATION, NULL, "VolumeProvisioning"},
};

static sbx_status sbxi_classify(sbx_error *err, sbxi_action action, int value_error)
{
    const sbxi_meaning *m = sbxi_meanings;
    if (action == SBXI_UPGRADE)
        return SBX_E_CONNECTION;
    if (action == SBXI_INSIDE)
        return sbxi_classify_inside(err);
    if (err->http_status == 422 && action == SBXI_CREATE && !value_error &&
        strcmp(err->resource_type, "sandbox") == 0)
        return SBX_E_CREATION;
    for (; m < sbxi_meanings + SBXI_COUNT(sbxi_meanings); m++) {
        if (m->http != err->http_status || m->action != action ||
            (*m->resource && strcmp(m->resource, err->resource_type) != 0) ||
            (*m->type && strcmp(m->type, err->error_type) != 0))
            continue;
        if (m->about)
            err->resource_type = m->about;
        if (m->fallback && !*err->error_type)
            sbxi_copy(err->error_type, sizeof(err->error_type), m->fallback, strlen(m->fallback));
        return m->status;
    }
    return sbxi_classify_common(err->http_status, err->error_type);
}

/* What to do about it, where there is something. */
static const char *sbxi_advice(sbx_status status, int http, sbxi_action action, int maybe_done)
{
    if (maybe_done && (status == SBX_E_ALREADY_EXISTS || status == SBX_E_NAME_CONFLICT ||
                       (http == 404 && action == SBXI_UPDATE)))
        return "; an earlier attempt of this call, whose answer was lost, may have succeeded";
    if (status == SBX_E_AUTHENTICATION)
        return "; check the API key (sbx_config.api_key or LANGSMITH_API_KEY)";
    if (status == SBX_E_API && http == 404)
        return "; check that the endpoint is the sandbox service's (sbx_config.endpoint or "
               "LANGSMITH_ENDPOINT)";
    if (status == SBX_E_NOT_READY)
        return "; wait for it with sbx_sandbox_wait";
    return "";
}

/* Fills err from a complete response that is not a success. operation may be "". */
static sbx_status sbxi_service_error(const sbxi_exchange *x, sbxi_action action,
                                     const char *resource_type, const char *operation,
                                     sbx_error *err)
{
    sbx_error local;
    char said[400];
    int value_error;
    sbx_status st;
    if (!err)
        err = &local;
    sbxi_error_clear(err);
    err->http_status = x->status;
    err->attempts = x->attempts;
    err->resource_type = resource_type;
    err->operation = operation;
    value_error = sbxi_error_body(&x->answer, err);
    st = sbxi_classify(err, action, value_error);
    if (st == SBX_E_QUOTA)
        err->quota_type = sbxi_quota_type(err->message);
    sbxi_copy(said, sizeof(said), err->message, strlen(err->message));
    (void)sbxi_format(err->message, sizeof(err->message), "%s%sHTTP %d for %s %s%s%s",
                      *said ? said : "", *said ? " (" : "the service answered ", x->status,
                      x->method, x->to.target, *said ? ")" : "",
                      sbxi_advice(st, x->status, action, x->maybe_done));
    err->status = st;
    return st;
}
