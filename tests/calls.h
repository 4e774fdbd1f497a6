/* calls: the calls of the control plane as rows of one table, for what has to hold of every one of
   them. A new call needs a number, a function that makes it, and a row. */
#ifndef TESTS_CALLS_H
#define TESTS_CALLS_H

#include "world.h"

#define BASE "/v2/sandboxes"
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* An update without a change is a call of its own: it is a GET. */
enum {
    TEMPLATE_CREATE,
    TEMPLATE_GET,
    TEMPLATE_LIST,
    TEMPLATE_UPDATE,
    TEMPLATE_SAME,
    TEMPLATE_DELETE,
    VOLUME_CREATE,
    VOLUME_GET,
    VOLUME_LIST,
    VOLUME_UPDATE,
    VOLUME_SAME,
    VOLUME_DELETE,
    POOL_CREATE,
    POOL_GET,
    POOL_LIST,
    POOL_UPDATE,
    POOL_SAME,
    POOL_DELETE,
    SANDBOX_CREATE,
    SANDBOX_GET,
    SANDBOX_LIST,
    SANDBOX_UPDATE,
    SANDBOX_SAME,
    SANDBOX_DELETE,
    SANDBOX_STATUS,
    SANDBOX_WAIT,
    CALLS
};

/* What a call is made with. */
typedef struct call_args {
    sbx_client *client;
    const char *name;     /* of what is got, updated, deleted or created */
    const char *new_name; /* of an update */
    const sbx_call *call;
    int no_options; /* NULL for the options, where there are any */
    int start;      /* only starts an operation */
    void **out;
    sbx_op **op;
} call_args;

#define MAKE_NAMED(what, type)                                                                     \
    static inline sbx_status make_##what(const call_args *a, sbx_error *err)                       \
    {                                                                                              \
        type **out = (type **)(void *)a->out;                                                      \
        return a->start ? sbx_##what##_start(a->client, a->name, a->call, out, a->op, err)         \
                        : sbx_##what(a->client, a->name, a->call, out, err);                       \
    }

#define MAKE_LIST(what, type)                                                                      \
    static inline sbx_status make_##what(const call_args *a, sbx_error *err)                       \
    {                                                                                              \
        type **out = (type **)(void *)a->out;                                                      \
        return a->start ? sbx_##what##_start(a->client, a->call, out, a->op, err)                  \
                        : sbx_##what(a->client, a->call, out, err);                                \
    }

#define MAKE_DELETE(what)                                                                          \
    static inline sbx_status make_##what(const call_args *a, sbx_error *err)                       \
    {                                                                                              \
        return a->start ? sbx_##what##_start(a->client, a->name, a->call, a->op, err)              \
                        : sbx_##what(a->client, a->name, a->call, err);                            \
    }

#define MAKE_CREATE(what, type, options_type, fill)                                                \
    static inline sbx_status make_##what(const call_args *a, sbx_error *err)                       \
    {                                                                                              \
        type **out = (type **)(void *)a->out;                                                      \
        options_type o;                                                                            \
        const options_type *options = a->no_options ? NULL : &o;                                   \
        memset(&o, 0, sizeof(o));                                                                  \
        o.name = a->name;                                                                          \
        if (a->call)                                                                               \
            o.call = *a->call;                                                                     \
        fill;                                                                                      \
        return a->start ? sbx_##what##_start(a->client, options, out, a->op, err)                  \
                        : sbx_##what(a->client, options, out, err);                                \
    }

/* With a new name, and without any change. */
#define MAKE_UPDATE(what, same, type)                                                              \
    static inline sbx_status make_##what(const call_args *a, sbx_error *err)                       \
    {                                                                                              \
        type **out = (type **)(void *)a->out;                                                      \
        sbx_##what##_options o;                                                                    \
        const sbx_##what##_options *options = a->no_options ? NULL : &o;                           \
        memset(&o, 0, sizeof(o));                                                                  \
        o.new_name = a->new_name;                                                                  \
        if (a->call)                                                                               \
            o.call = *a->call;                                                                     \
        return a->start ? sbx_##what##_start(a->client, a->name, options, out, a->op, err)         \
                        : sbx_##what(a->client, a->name, options, out, err);                       \
    }                                                                                              \
    static inline sbx_status make_##same(const call_args *a, sbx_error *err)                       \
    {                                                                                              \
        call_args b = *a;                                                                          \
        b.new_name = NULL;                                                                         \
        return make_##what(&b, err);                                                               \
    }

MAKE_CREATE(template_create, sbx_template, sbx_template_options, o.image = "i")
MAKE_NAMED(template_get, sbx_template)
MAKE_LIST(template_list, sbx_templates)
MAKE_UPDATE(template_update, template_same, sbx_template)
MAKE_DELETE(template_delete)
MAKE_CREATE(volume_create, sbx_volume, sbx_volume_options, o.size = "1Gi")
MAKE_NAMED(volume_get, sbx_volume)
MAKE_LIST(volume_list, sbx_volumes)
MAKE_UPDATE(volume_update, volume_same, sbx_volume)
MAKE_DELETE(volume_delete)
MAKE_CREATE(pool_create, sbx_pool, sbx_pool_options, (o.template_name = "t", o.replicas = 1))
MAKE_NAMED(pool_get, sbx_pool)
MAKE_LIST(pool_list, sbx_pools)
MAKE_UPDATE(pool_update, pool_same, sbx_pool)
MAKE_DELETE(pool_delete)
MAKE_CREATE(sandbox_create, sbx_sandbox, sbx_sandbox_options, o.template_name = "t")
MAKE_NAMED(sandbox_get, sbx_sandbox)
MAKE_LIST(sandbox_list, sbx_sandboxes)
MAKE_UPDATE(sandbox_update, sandbox_same, sbx_sandbox)
MAKE_DELETE(sandbox_delete)
MAKE_NAMED(sandbox_get_status, sbx_sandbox_status)

static inline sbx_status make_sandbox_wait(const call_args *a, sbx_error *err)
{
    sbx_sandbox **out = (sbx_sandbox **)(void *)a->out;
    sbx_wait_options o;
    const sbx_wait_options *options = a->no_options ? NULL : &o;
    memset(&o, 0, sizeof(o));
    if (a->call)
        o.call = *a->call;
    return a->start ? sbx_sandbox_wait_start(a->client, a->name, options, out, a->op, err)
                    : sbx_sandbox_wait(a->client, a->name, options, out, err);
}

enum { HAS_NAME = 1, HAS_OUT = 2, NEEDS_OPTIONS = 4, NAME_OPTIONAL = 8 };

typedef struct call_row {
    const char *function;
    sbx_status (*make)(const call_args *a, sbx_error *err);
    const char *method, *collection;
    const char *after; /* behind the name; NULL: there is no name in the path */
    const char *resource;
    unsigned flags;
} call_row;

#define CALLS_OF(kind, path)                                                                       \
    {"sbx_" #kind "_create",                                                                       \
     make_##kind##_create,                                                                         \
     "POST",                                                                                       \
     path,                                                                                         \
     NULL,                                                                                         \
     #kind,                                                                                        \
     HAS_NAME | HAS_OUT | NEEDS_OPTIONS},                                                          \
        {"sbx_" #kind "_get", make_##kind##_get, "GET", path, "", #kind, HAS_NAME | HAS_OUT},      \
        {"sbx_" #kind "_list", make_##kind##_list, "GET", path, NULL, #kind, HAS_OUT},             \
        {"sbx_" #kind "_update", make_##kind##_update, "PATCH", path, "", #kind,                   \
         HAS_NAME | HAS_OUT},                                                                      \
        {"sbx_" #kind "_update, unchanged,",                                                       \
         make_##kind##_same,                                                                       \
         "GET",                                                                                    \
         path,                                                                                     \
         "",                                                                                       \
         #kind,                                                                                    \
         HAS_NAME | HAS_OUT},                                                                      \
    {                                                                                              \
        "sbx_" #kind "_delete", make_##kind##_delete, "DELETE", path, "", #kind, HAS_NAME          \
    }

static const call_row calls[CALLS] = {
    CALLS_OF(template, BASE "/templates"),
    CALLS_OF(volume, BASE "/volumes"),
    CALLS_OF(pool, BASE "/pools"),
    {"sbx_sandbox_create", make_sandbox_create, "POST", BASE "/boxes", NULL, "sandbox",
     HAS_NAME | HAS_OUT | NAME_OPTIONAL},
    {"sbx_sandbox_get", make_sandbox_get, "GET", BASE "/boxes", "", "sandbox", HAS_NAME | HAS_OUT},
    {"sbx_sandbox_list", make_sandbox_list, "GET", BASE "/boxes", NULL, "sandbox", HAS_OUT},
    {"sbx_sandbox_update", make_sandbox_update, "PATCH", BASE "/boxes", "", "sandbox",
     HAS_NAME | HAS_OUT},
    {"sbx_sandbox_update, unchanged,", make_sandbox_same, "GET", BASE "/boxes", "", "sandbox",
     HAS_NAME | HAS_OUT},
    {"sbx_sandbox_delete", make_sandbox_delete, "DELETE", BASE "/boxes", "", "sandbox", HAS_NAME},
    {"sbx_sandbox_get_status", make_sandbox_get_status, "GET", BASE "/boxes", "/status", "sandbox",
     HAS_NAME | HAS_OUT},
    {"sbx_sandbox_wait", make_sandbox_wait, "GET", BASE "/boxes", "/status", "sandbox",
     HAS_NAME | HAS_OUT},
};

/* The path of the call's (first) request about a thing whose name is encoded so. */
static inline void call_target(int which, const char *encoded, char *out, size_t cap)
{
    const call_row *c = &calls[which];
    snprintf(out, cap, "%s%s%s%s", c->collection, c->after ? "/" : "", c->after ? encoded : "",
             c->after ? c->after : "");
}

/* Makes the call about "n", to be renamed "m"; what it gave is freed. */
static inline sbx_status call_with(world *w, int which, const sbx_call *call, sbx_error *err)
{
    void *got = w;
    call_args a;
    sbx_status st;
    memset(&a, 0, sizeof(a));
    a.client = w->client;
    a.name = "n";
    a.new_name = "m";
    a.call = call;
    a.out = &got;
    st = calls[which].make(&a, err);
    check_error(w, st, err);
    if ((calls[which].flags & HAS_OUT) && (got != NULL) != (st == SBX_OK))
        world_fail(w, "%s gives %s with %s", calls[which].function, got ? "something" : "nothing",
                   sbx_status_name(st));
    if (calls[which].flags & HAS_OUT)
        sbx_free(got);
    return st;
}

static inline sbx_status call_one(world *w, int which, sbx_error *err)
{
    return call_with(w, which, NULL, err);
}

/* Expects the call's request about "n". */
static inline void peer_expect_call(peer *p, int which)
{
    char target[100];
    call_target(which, "n", target, sizeof(target));
    peer_request(p, calls[which].method, target);
}

#endif
