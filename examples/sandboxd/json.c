/* JSON documents in memory, for requests and what is stored: small, bounded, read whole before
   anything is done. */
#include "sandboxd.h"

#include <stdlib.h>
#include <string.h>

/* Blocks of memory that are freed together. */
typedef struct block {
    struct block *next;
    size_t used, size;
} block;

struct sd_document {
    block *blocks;
    sd_json *root;
};

typedef struct builder {
    sd_document *document;
    sd_json *open[SBX_JSON_DEPTH + 2]; /* the array or object of each depth */
    sd_json *last[SBX_JSON_DEPTH + 2]; /* its last child */
    char *text;                        /* the text that comes in pieces */
    size_t text_len, name_len;
    char *name;
    size_t values;
    const char *problem;
} builder;

static void *take(sd_document *document, size_t size)
{
    block *b = document->blocks;
    void *p;
    size = (size + 15) & ~(size_t)15;
    if (!b || b->size - b->used < size) {
        size_t room = size > 4096 ? size : 4096;
        b = (block *)sd_alloc(sizeof(*b) + 16 + room);
        b->size = room;
        b->next = document->blocks;
        document->blocks = b;
    }
    p = (char *)b + ((sizeof(*b) + 15) & ~(size_t)15) + b->used;
    b->used += size;
    return p;
}

static char *take_text(sd_document *document, const char *text, size_t len)
{
    char *copy = (char *)take(document, len + 1);
    memcpy(copy, text, len);
    copy[len] = 0;
    return copy;
}

/* Adds a value at the event's depth; its text is set by the caller. */
static sd_json *add(builder *b, const sbx_json_event *event)
{
    sd_json *value;
    if (++b->values > SD_MAX_JSON_VALUES) {
        b->problem = "the document has too many values";
        return NULL;
    }
    value = (sd_json *)take(b->document, sizeof(*value));
    memset(value, 0, sizeof(*value));
    value->type = event->type;
    value->name = b->name;
    value->name_len = b->name_len;
    value->integer = event->integer;
    value->number = event->number;
    b->name = NULL;
    b->name_len = 0;
    if (event->depth == 0)
        b->document->root = value;
    else if (b->last[event->depth])
        b->last[event->depth]->next = value;
    else
        b->open[event->depth]->child = value;
    b->last[event->depth] = value;
    return value;
}

static void add_text(builder *b, const sbx_json_event *event)
{
    char *text;
    size_t len = b->text_len + event->len;
    sd_json *value;
    if (event->partial || b->text_len > 0) {
        b->text = (char *)sd_grow(b->text, len + 1);
        memcpy(b->text + b->text_len, event->text, event->len);
        b->text_len = len;
        if (event->partial)
            return;
    }
    text = take_text(b->document, b->text_len ? b->text : event->len ? event->text : "", len);
    b->text_len = 0;
    if (event->type == SBX_JSON_KEY) {
        b->name = text;
        b->name_len = len;
    } else if ((value = add(b, event)) != NULL) {
        value->text = text;
        value->len = len;
    }
}

static void handle(builder *b, const sbx_json_event *event)
{
    sd_json *value;
    switch (event->type) {
    case SBX_JSON_KEY:
    case SBX_JSON_STRING:
        add_text(b, event);
        break;
    case SBX_JSON_OBJECT:
    case SBX_JSON_ARRAY:
        value = add(b, event);
        b->open[event->depth + 1] = value;
        b->last[event->depth + 1] = NULL;
        break;
    case SBX_JSON_OBJECT_END:
    case SBX_JSON_ARRAY_END:
        break;
    default:
        add(b, event);
    }
}

sd_document *sd_json_parse(const char *text, size_t len, const char **problem)
{
    builder b;
    sbx_json reader;
    sbx_json_event event;
    sbx_status status;
    char scratch[4096];
    size_t used;

    memset(&b, 0, sizeof(b));
    b.document = (sd_document *)sd_alloc(sizeof(*b.document));
    sbx_json_init(&reader, scratch, sizeof(scratch));
    do {
        status = sbx_json_read(&reader, text, len, &used, &event);
        text += used;
        len -= used;
        if (status == SBX_AGAIN || (status == SBX_END && len == 0))
            status = sbx_json_finish(&reader, &event);
        if (status == SBX_OK)
            handle(&b, &event);
    } while (status == SBX_OK && !b.problem);
    free(b.text);
    if (status != SBX_END) {
        *problem = b.problem ? b.problem : reader.problem ? reader.problem : "it is cut short";
        sd_json_free(b.document);
        return NULL;
    }
    return b.document;
}

void sd_json_free(sd_document *document)
{
    if (document) {
        block *b = document->blocks;
        while (b) {
            block *next = b->next;
            free(b);
            b = next;
        }
        free(document);
    }
}

const sd_json *sd_json_root(const sd_document *document)
{
    return document ? document->root : NULL;
}

const sd_json *sd_json_get(const sd_json *object, const char *name)
{
    const sd_json *found = NULL, *member;
    size_t len = strlen(name);
    if (!object || object->type != SBX_JSON_OBJECT)
        return NULL;
    for (member = object->child; member; member = member->next)
        if (member->name_len == len && memcmp(member->name, name, len) == 0)
            found = member;
    return found && found->type != SBX_JSON_NULL ? found : NULL;
}
