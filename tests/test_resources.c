/* Volumes, pools, updates, and what holds of every call of the control plane: names, arguments,
   limits, what is sent and what is read. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "calls.h"

/* Expects a request with this body (NULL: none), and answers it. */
static void expect(peer *p, const char *method, const char *path, const char *json,
                   const char *reply)
{
    peer_request(p, method, path);
    if (json)
        peer_json(p, json);
    peer_reply(p, strcmp(method, "POST") == 0 ? 201 : 200, reply);
}

static sbx_volume_options volume_options(void)
{
    sbx_volume_options options;
    memset(&options, 0, sizeof(options));
    options.name = "data";
    options.size = "1Gi";
    return options;
}

static sbx_pool_options pool_options(void)
{
    sbx_pool_options options;
    memset(&options, 0, sizeof(options));
    options.name = "warm";
    options.template_name = "python";
    options.replicas = 3;
    return options;
}

/* ---- what is sent ---- */

static void volumes_are_created_and_updated_as_asked(void **state)
{
    static const int64_t times[] = {0, 5000, 5001, 299001, 300000};
    static const char *const created[] = {
        "{\"name\":\"data\",\"size\":\"1Gi\",\"wait_for_ready\":true,\"timeout\":60}",
        "{\"name\":\"data\",\"size\":\"1Gi\",\"wait_for_ready\":true,\"timeout\":5}",
        "{\"name\":\"data\",\"size\":\"1Gi\",\"wait_for_ready\":true,\"timeout\":6}",
        "{\"name\":\"data\",\"size\":\"1Gi\",\"wait_for_ready\":true,\"timeout\":300}",
        "{\"name\":\"data\",\"size\":\"1Gi\",\"wait_for_ready\":true,\"timeout\":300}"};
    static const char *const updates[][3] = {
        {"new", NULL, "{\"name\":\"new\"}"},
        {NULL, "2Gi", "{\"size\":\"2Gi\"}"},
        {"n\"\xc3\xbc/..", "10 Gi", "{\"name\":\"n\\\"\\u00fc/..\",\"size\":\"10 Gi\"}"}};
    sbx_volume_update_options update;
    sbx_volume *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    size_t i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    for (i = 0; i < COUNT(times); i++)
        expect(p, "POST", BASE "/volumes", created[i], "{\"name\":\"data\"}");
    for (i = 0; i < COUNT(updates); i++)
        expect(p, "PATCH", BASE "/volumes/data", updates[i][2], "{\"name\":\"data\"}");
    world_open(&w);
    for (i = 0; i < COUNT(times); i++) {
        sbx_volume_options options = volume_options();
        options.ready_timeout_ms = times[i];
        assert_status(&w, SBX_OK, sbx_volume_create(w.client, &options, &got, &err), &err);
        assert_string_equal(got->name, "data");
        sbx_free(got);
    }
    for (i = 0; i < COUNT(updates); i++) {
        memset(&update, 0, sizeof(update));
        update.new_name = updates[i][0];
        update.size = updates[i][1];
        assert_status(&w, SBX_OK, sbx_volume_update(w.client, "data", &update, &got, &err), &err);
        assert_string_equal(got->name, "data");
        sbx_free(got);
    }
    world_done(&w);
}

static void pools_are_created_and_updated_as_asked(void **state)
{
    static const struct {
        int replicas;
        int64_t ready_ms;
        const char *json;
    } created[] = {
        {3, 0, "\"replicas\":3,\"wait_for_ready\":true,\"timeout\":30}"},
        {1, 10000, "\"replicas\":1,\"wait_for_ready\":true,\"timeout\":10}"},
        {100, 10001, "\"replicas\":100,\"wait_for_ready\":true,\"timeout\":11}"},
        {2, 600000, "\"replicas\":2,\"wait_for_ready\":true,\"timeout\":600}"},
    };
    static const struct {
        const char *new_name;
        int replicas;
        const char *json;
    } updates[] = {
        {"new", 0, "{\"name\":\"new\"}"},
        {NULL, 1, "{\"replicas\":1}"},
        {NULL, 100, "{\"replicas\":100}"},
        {NULL, SBX_NONE, "{\"replicas\":0}"},
        {"new", SBX_NONE, "{\"name\":\"new\",\"replicas\":0}"},
        {"new", 7, "{\"name\":\"new\",\"replicas\":7}"},
    };
    sbx_pool_update_options update;
    sbx_pool *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    size_t i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    for (i = 0; i < COUNT(created); i++) {
        char json[200];
        snprintf(json, sizeof(json), "{\"name\":\"warm\",\"template_name\":\"python\",%s",
                 created[i].json);
        expect(p, "POST", BASE "/pools", json, "{\"name\":\"warm\"}");
    }
    for (i = 0; i < COUNT(updates); i++)
        expect(p, "PATCH", BASE "/pools/warm", updates[i].json, "{\"name\":\"warm\"}");
    world_open(&w);
    for (i = 0; i < COUNT(created); i++) {
        sbx_pool_options options = pool_options();
        options.replicas = created[i].replicas;
        options.ready_timeout_ms = created[i].ready_ms;
        assert_status(&w, SBX_OK, sbx_pool_create(w.client, &options, &got, &err), &err);
        assert_string_equal(got->name, "warm");
        sbx_free(got);
    }
    for (i = 0; i < COUNT(updates); i++) {
        memset(&update, 0, sizeof(update));
        update.new_name = updates[i].new_name;
        update.replicas = updates[i].replicas;
        assert_status(&w, SBX_OK, sbx_pool_update(w.client, "warm", &update, &got, &err), &err);
        assert_string_equal(got->name, "warm");
        sbx_free(got);
    }
    world_done(&w);
}

static void templates_are_renamed(void **state)
{
    sbx_template_update_options update;
    sbx_template *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    expect(p, "PATCH", BASE "/templates/old", "{\"name\":\"new\"}",
           "{\"name\":\"new\",\"image\":\"i\",\"volume_mounts\":[{\"volume_name\":\"v\"}]}");
    world_open(&w);
    memset(&update, 0, sizeof(update));
    update.new_name = "new";
    assert_status(&w, SBX_OK, sbx_template_update(w.client, "old", &update, &got, &err), &err);
    assert_string_equal(got->name, "new");
    assert_string_equal(got->image, "i");
    assert_int_equal(got->volume_mount_count, 1);
    assert_string_equal(got->volume_mounts[0].volume_name, "v");
    sbx_free(got);
    world_done(&w);
}

#define DAY INT64_C(86400000)

static void sandboxes_take_what_services_without_templates_want(void **state)
{
    static const struct {
        sbx_sandbox_options options;
        const char *json;
    } cases[] = {
        {{NULL, "s", NULL, "b", 1, 0, 60000, 0, 0, 0, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"snapshot_id\":\"s\",\"name\":\"b\",\"wait_for_ready\":false,\"idle_ttl_seconds\":60}"},
        {{NULL, NULL, NULL, NULL, 1, 0, 0, 120000, 0, 0, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"wait_for_ready\":false,\"delete_after_stop_seconds\":120}"},
        {{NULL, NULL, NULL, NULL, 1, 0, SBX_NONE, SBX_NONE, 0, 0, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"wait_for_ready\":false,\"idle_ttl_seconds\":0,\"delete_after_stop_seconds\":0}"},
        {{NULL, NULL, NULL, NULL, 1, 0, 0, 0, 1, 0, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"wait_for_ready\":false,\"vcpus\":1}"},
        {{NULL, NULL, NULL, NULL, 1, 0, 0, 0, 0, 1, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"wait_for_ready\":false,\"mem_bytes\":1}"},
        {{NULL, NULL, NULL, NULL, 1, 0, 0, 0, 0, 0, INT64_MAX, NULL, NULL, {0, NULL, NULL}},
         "{\"wait_for_ready\":false,\"fs_capacity_bytes\":9223372036854775807}"},
        {{NULL, NULL, NULL, NULL, 1, 0, 0, 0, 0, 0, 0, "{}", NULL, {0, NULL, NULL}},
         "{\"wait_for_ready\":false,\"mount_config\":{}}"},
        {{NULL,
          NULL,
          NULL,
          NULL,
          1,
          0,
          0,
          0,
          0,
          0,
          0,
          NULL,
          " {\"a\" : [1, {\"b\": null}, \"\\u00fc\", 1.5e3] }\n",
          {0, NULL, NULL}},
         "{\"wait_for_ready\":false,\"proxy_config\":{\"a\":[1,{\"b\":null},\"\xc3\xbc\",1500]}}"},
        {{"t",
          NULL,
          NULL,
          "all",
          0,
          61001,
          DAY,
          2 * DAY,
          4,
          1 << 30,
          INT64_C(1) << 40,
          "{\"m\":[{\"path\":\"/x\"}]}",
          "{\"p\":true}",
          {0, NULL, NULL}},
         "{\"template_name\":\"t\",\"name\":\"all\",\"wait_for_ready\":true,\"timeout\":62,"
         "\"idle_ttl_seconds\":86400,\"delete_after_stop_seconds\":172800,\"vcpus\":4,"
         "\"mem_bytes\":1073741824,\"fs_capacity_bytes\":1099511627776,"
         "\"mount_config\":{\"m\":[{\"path\":\"/x\"}]},\"proxy_config\":{\"p\":true}}"},
    };
    sbx_sandbox *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    size_t i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    for (i = 0; i < COUNT(cases); i++)
        expect(p, "POST", BASE "/boxes", cases[i].json, "{\"name\":\"b\"}");
    world_open(&w);
    for (i = 0; i < COUNT(cases); i++) {
        assert_status(&w, SBX_OK, sbx_sandbox_create(w.client, &cases[i].options, &got, &err),
                      &err);
        assert_string_equal(got->name, "b");
        sbx_free(got);
    }
    world_done(&w);
}

static void sandboxes_are_updated_as_asked(void **state)
{
    static const struct {
        const char *new_name;
        int64_t idle_ms, delete_ms;
        const char *json;
    } cases[] = {
        {"new", 0, 0, "{\"name\":\"new\"}"},
        {NULL, 60000, 0, "{\"idle_ttl_seconds\":60}"},
        {NULL, SBX_NONE, 0, "{\"idle_ttl_seconds\":0}"},
        {NULL, 0, 120000, "{\"delete_after_stop_seconds\":120}"},
        {NULL, 0, SBX_NONE, "{\"delete_after_stop_seconds\":0}"},
        {"new", 3600000, INT64_MAX / 60000 * 60000,
         "{\"name\":\"new\",\"idle_ttl_seconds\":3600,"
         "\"delete_after_stop_seconds\":9223372036854720}"},
    };
    sbx_sandbox *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    size_t i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    for (i = 0; i < COUNT(cases); i++)
        expect(p, "PATCH", BASE "/boxes/b", cases[i].json,
               "{\"name\":\"new\",\"dataplane_url\":\"http://127.0.0.1:9/x\"}");
    world_open(&w);
    for (i = 0; i < COUNT(cases); i++) {
        sbx_sandbox_update_options options;
        memset(&options, 0, sizeof(options));
        options.new_name = cases[i].new_name;
        options.idle_ttl_ms = cases[i].idle_ms;
        options.delete_after_stop_ms = cases[i].delete_ms;
        assert_status(&w, SBX_OK, sbx_sandbox_update(w.client, "b", &options, &got, &err), &err);
        assert_string_equal(got->name, "new");
        assert_ptr_equal(got->client, w.client);
        assert_int_equal(got->state, SBX_STATE_READY);
        sbx_free(got);
    }
    world_done(&w);
}

static void an_update_without_a_change_gets_what_there_is(void **state)
{
    static const int same[] = {TEMPLATE_SAME, VOLUME_SAME, POOL_SAME, SANDBOX_SAME};
    size_t i;
    int none;
    (void)state;
    for (i = 0; i < COUNT(same); i++)
        for (none = 0; none < 2; none++) {
            void *got = NULL;
            call_args a;
            sbx_error err;
            world w;
            peer *p;
            world_init(&w);
            p = world_peer(&w);
            peer_expect_call(p, same[i]);
            peer_without(p, "Content-Type");
            peer_reply(p, 200, "{\"name\":\"as it was\"}");
            world_open(&w);
            memset(&a, 0, sizeof(a));
            a.client = w.client;
            a.name = "n";
            a.no_options = none;
            a.out = &got;
            assert_status(&w, SBX_OK, calls[same[i]].make(&a, &err), &err);
            assert_string_equal(same[i] == SANDBOX_SAME  ? ((sbx_sandbox *)got)->name
                                : same[i] == POOL_SAME   ? ((sbx_pool *)got)->name
                                : same[i] == VOLUME_SAME ? ((sbx_volume *)got)->name
                                                         : ((sbx_template *)got)->name,
                                "as it was");
            sbx_free(got);
            assert_int_equal(w.peers[0]->requests, 1);
            world_done(&w);
        }
}

/* ---- what is read ---- */

static void every_member_of_a_volume_is_read(void **state)
{
    static const char *const whole =
        "{\"name\":\"a\",\"size\":\"b\",\"storage_class\":\"c\",\"id\":\"d\",\"created_at\":\"e\","
        "\"updated_at\":\"f\",\"other\":{\"name\":\"x\",\"size\":[1]},\"class\":\"y\"}";
    static const char *const empty[] = {
        "{}",
        "{\"name\":null,\"size\":null,\"storage_class\":null,\"id\":null,\"created_at\":null,"
        "\"updated_at\":null}",
        "{\"Name\":\"x\",\"storageClass\":\"x\",\"createdAt\":\"x\"}"};
    sbx_volume *got = NULL;
    sbx_volumes *list = NULL;
    sbx_error err;
    world w;
    peer *p;
    size_t i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    expect(p, "GET", BASE "/volumes/n", NULL, whole);
    for (i = 0; i < COUNT(empty); i++)
        expect(p, "GET", BASE "/volumes/n", NULL, empty[i]);
    expect(p, "GET", BASE "/volumes", NULL,
           "{\"total\":2,\"volumes\":[{\"name\":\"one\",\"size\":\"1Gi\",\"storage_class\":\"s\"},"
           "{},{\"updated_at\":\"u\",\"created_at\":\"c\",\"id\":\"i\"}],\"name\":\"x\"}");
    world_open(&w);
    assert_status(&w, SBX_OK, sbx_volume_get(w.client, "n", NULL, &got, &err), &err);
    assert_string_equal(got->name, "a");
    assert_string_equal(got->size, "b");
    assert_string_equal(got->storage_class, "c");
    assert_string_equal(got->id, "d");
    assert_string_equal(got->created_at, "e");
    assert_string_equal(got->updated_at, "f");
    sbx_free(got);
    for (i = 0; i < COUNT(empty); i++) {
        assert_status(&w, SBX_OK, sbx_volume_get(w.client, "n", NULL, &got, &err), &err);
        assert_string_equal(got->name, "");
        assert_string_equal(got->size, "");
        assert_string_equal(got->storage_class, "");
        assert_string_equal(got->id, "");
        assert_string_equal(got->created_at, "");
        assert_string_equal(got->updated_at, "");
        sbx_free(got);
    }
    assert_status(&w, SBX_OK, sbx_volume_list(w.client, NULL, &list, &err), &err);
    assert_int_equal(list->count, 3);
    assert_string_equal(list->items[0].name, "one");
    assert_string_equal(list->items[0].size, "1Gi");
    assert_string_equal(list->items[0].storage_class, "s");
    assert_string_equal(list->items[0].id, "");
    assert_string_equal(list->items[1].name, "");
    assert_string_equal(list->items[2].id, "i");
    assert_string_equal(list->items[2].created_at, "c");
    assert_string_equal(list->items[2].updated_at, "u");
    assert_string_equal(list->items[2].name, "");
    sbx_free(list);
    world_done(&w);
}

static void every_member_of_a_pool_is_read(void **state)
{
    static const struct {
        const char *json;
        int replicas;
    } cases[] = {
        {"{\"name\":\"a\",\"template_name\":\"b\",\"replicas\":5,\"id\":\"c\",\"created_at\":\"d\","
         "\"updated_at\":\"e\",\"ready_replicas\":3}",
         5},
        {"{}", SBX_NONE},
        {"{\"name\":null,\"template_name\":null,\"replicas\":null,\"id\":null,\"created_at\":null,"
         "\"updated_at\":null}",
         SBX_NONE},
        {"{\"replicas\":0}", 0},
        {"{\"replicas\":2147483647}", 2147483647},
        {"{\"spec\":{\"replicas\":9}}", SBX_NONE},
    };
    sbx_pool *got = NULL;
    sbx_pools *list = NULL;
    sbx_error err;
    world w;
    peer *p;
    size_t i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    for (i = 0; i < COUNT(cases); i++)
        expect(p, "GET", BASE "/pools/n", NULL, cases[i].json);
    expect(p, "GET", BASE "/pools", NULL,
           "{\"pools\":[{\"replicas\":1,\"name\":\"one\"},{},{\"template_name\":\"t\"}]}");
    world_open(&w);
    for (i = 0; i < COUNT(cases); i++) {
        assert_status(&w, SBX_OK, sbx_pool_get(w.client, "n", NULL, &got, &err), &err);
        assert_string_equal(got->name, i ? "" : "a");
        assert_string_equal(got->template_name, i ? "" : "b");
        assert_int_equal(got->replicas, cases[i].replicas);
        assert_string_equal(got->id, i ? "" : "c");
        assert_string_equal(got->created_at, i ? "" : "d");
        assert_string_equal(got->updated_at, i ? "" : "e");
        sbx_free(got);
    }
    assert_status(&w, SBX_OK, sbx_pool_list(w.client, NULL, &list, &err), &err);
    assert_int_equal(list->count, 3);
    assert_string_equal(list->items[0].name, "one");
    assert_int_equal(list->items[0].replicas, 1);
    assert_int_equal(list->items[1].replicas, SBX_NONE);
    assert_string_equal(list->items[2].template_name, "t");
    sbx_free(list);
    world_done(&w);
}

static void every_member_of_a_sandbox_is_read(void **state)
{
    static const char *const whole =
        "{\"name\":\"a\",\"id\":\"b\",\"dataplane_url\":\"c\",\"status\":\"stopped\","
        "\"status_message\":\"d\",\"template_name\":\"e\",\"snapshot_id\":\"f\",\"created_at\":"
        "\"g\",\"updated_at\":\"h\",\"stopped_at\":\"i\",\"idle_ttl_seconds\":60,"
        "\"delete_after_stop_seconds\":3600,\"vcpus\":4,\"mem_bytes\":1073741824,"
        "\"fs_capacity_bytes\":1099511627776,\"mount_config\":{\"name\":\"x\"},\"proxy_config\":{}"
        "}";
    static const char *const empty[] = {
        "{}", "{\"idle_ttl_seconds\":null,\"delete_after_stop_seconds\":null,\"vcpus\":null,"
              "\"mem_bytes\":null,\"fs_capacity_bytes\":null,\"stopped_at\":null}"};
    static const int which[] = {SANDBOX_GET, SANDBOX_CREATE, SANDBOX_UPDATE, SANDBOX_SAME,
                                SANDBOX_LIST};
    size_t i, k;
    (void)state;
    for (i = 0; i < COUNT(which); i++) {
        void *out[3] = {NULL, NULL, NULL};
        char body[700];
        call_args a;
        sbx_error err;
        world w;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        for (k = 0; k < 3; k++) {
            peer_expect_call(p, which[i]);
            snprintf(body, sizeof(body), which[i] == SANDBOX_LIST ? "{\"sandboxes\":[%s]}" : "%s",
                     k ? empty[k - 1] : whole);
            peer_reply(p, 200, body);
        }
        world_open(&w);
        memset(&a, 0, sizeof(a));
        a.client = w.client;
        a.name = "n";
        a.new_name = "m";
        for (k = 0; k < 3; k++) {
            const sbx_sandbox *got;
            a.out = &out[k];
            assert_status(&w, SBX_OK, calls[which[i]].make(&a, &err), &err);
            got = which[i] == SANDBOX_LIST ? ((sbx_sandboxes *)out[k])->items : out[k];
            assert_ptr_equal(got->client, w.client);
            assert_string_equal(got->name, k ? "" : "a");
            assert_string_equal(got->id, k ? "" : "b");
            assert_string_equal(got->dataplane_url, k ? "" : "c");
            assert_string_equal(got->status, k ? "ready" : "stopped");
            assert_int_equal(got->state, k ? SBX_STATE_READY : SBX_STATE_STOPPED);
            assert_string_equal(got->status_message, k ? "" : "d");
            assert_string_equal(got->template_name, k ? "" : "e");
            assert_string_equal(got->snapshot_id, k ? "" : "f");
            assert_string_equal(got->created_at, k ? "" : "g");
            assert_string_equal(got->updated_at, k ? "" : "h");
            assert_string_equal(got->stopped_at, k ? "" : "i");
            assert_int_equal(got->idle_ttl_ms, k ? 0 : 60000);
            assert_int_equal(got->delete_after_stop_ms, k ? 0 : 3600000);
            assert_int_equal(got->vcpus, k ? 0 : 4);
            assert_int_equal(got->mem_bytes, k ? 0 : 1 << 30);
            assert_int_equal(got->fs_capacity_bytes, k ? 0 : INT64_C(1) << 40);
            sbx_free(out[k]);
        }
        world_done(&w);
    }
}

static void numbers_at_their_edges_are_read(void **state)
{
    static const struct {
        const char *json;
        int64_t idle_ms, delete_ms, vcpus, mem, fs;
    } cases[] = {
        {"{\"idle_ttl_seconds\":0,\"delete_after_stop_seconds\":0}", SBX_NONE, SBX_NONE, 0, 0, 0},
        {"{\"idle_ttl_seconds\":-1,\"delete_after_stop_seconds\":-9223372036854775808}", SBX_NONE,
         SBX_NONE, 0, 0, 0},
        {"{\"idle_ttl_seconds\":9223372036854775807,\"delete_after_stop_seconds\":"
         "9223372036854775}",
         INT64_MAX, INT64_MAX, 0, 0, 0},
        {"{\"idle_ttl_seconds\":9223372036854774,\"delete_after_stop_seconds\":1}",
         INT64_C(9223372036854774000), 1000, 0, 0, 0},
        {"{\"vcpus\":0,\"mem_bytes\":0,\"fs_capacity_bytes\":0}", 0, 0, 0, 0, 0},
        {"{\"vcpus\":-1}", 0, 0, 0, 0, 0},
        {"{\"vcpus\":-2147483648}", 0, 0, 0, 0, 0},
        {"{\"vcpus\":2147483647,\"mem_bytes\":9223372036854775807,\"fs_capacity_bytes\":1}", 0, 0,
         2147483647, INT64_MAX, 1},
    };
    size_t i;
    world w;
    peer *p;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    for (i = 0; i < COUNT(cases); i++)
        expect(p, "GET", BASE "/boxes/n", NULL, cases[i].json);
    world_open(&w);
    for (i = 0; i < COUNT(cases); i++) {
        sbx_sandbox *got = NULL;
        sbx_error err;
        assert_status(&w, SBX_OK, sbx_sandbox_get(w.client, "n", NULL, &got, &err), &err);
        assert_int_equal(got->idle_ttl_ms, cases[i].idle_ms);
        assert_int_equal(got->delete_after_stop_ms, cases[i].delete_ms);
        assert_int_equal(got->vcpus, cases[i].vcpus);
        assert_int_equal(got->mem_bytes, cases[i].mem);
        assert_int_equal(got->fs_capacity_bytes, cases[i].fs);
        sbx_free(got);
    }
    world_done(&w);
}

/* A member, and what stands before and after its value. number: it is one, else a text. */
typedef struct member {
    int get, list, create, update; /* calls that read it; CALLS: there is none */
    const char *list_name;
    const char *before, *after, *path;
    int number;
} member;

#define MEMBER(kind, list, name, number)                                                           \
    {                                                                                              \
        kind##_GET, kind##_LIST, kind##_CREATE, kind##_UPDATE, list, "{\"" name "\":", "}", name,  \
            number                                                                                 \
    }
#define TEMPLATES(name) MEMBER(TEMPLATE, "templates", name, 0)
#define VOLUMES(name) MEMBER(VOLUME, "volumes", name, 0)
#define POOLS(name, number) MEMBER(POOL, "pools", name, number)
#define SANDBOXES(name, number) MEMBER(SANDBOX, "sandboxes", name, number)
#define INSIDE(before, after, path)                                                                \
    {                                                                                              \
        TEMPLATE_GET, TEMPLATE_LIST, TEMPLATE_CREATE, TEMPLATE_UPDATE, "templates", before, after, \
            path, 0                                                                                \
    }

static const member members[] = {
    TEMPLATES("name"),
    TEMPLATES("image"),
    TEMPLATES("id"),
    TEMPLATES("created_at"),
    TEMPLATES("updated_at"),
    INSIDE("{\"resources\":{\"cpu\":", "}}", "resources.cpu"),
    INSIDE("{\"resources\":{\"memory\":", "}}", "resources.memory"),
    INSIDE("{\"resources\":{\"storage\":", "}}", "resources.storage"),
    INSIDE("{\"volume_mounts\":[{\"volume_name\":", "}]}", "volume_mounts[].volume_name"),
    INSIDE("{\"volume_mounts\":[{\"mount_path\":", "}]}", "volume_mounts[].mount_path"),
    VOLUMES("name"),
    VOLUMES("size"),
    VOLUMES("storage_class"),
    VOLUMES("id"),
    VOLUMES("created_at"),
    VOLUMES("updated_at"),
    POOLS("name", 0),
    POOLS("template_name", 0),
    POOLS("replicas", 1),
    POOLS("id", 0),
    POOLS("created_at", 0),
    POOLS("updated_at", 0),
    SANDBOXES("name", 0),
    SANDBOXES("id", 0),
    SANDBOXES("dataplane_url", 0),
    SANDBOXES("status", 0),
    SANDBOXES("status_message", 0),
    SANDBOXES("template_name", 0),
    SANDBOXES("snapshot_id", 0),
    SANDBOXES("created_at", 0),
    SANDBOXES("updated_at", 0),
    SANDBOXES("stopped_at", 0),
    SANDBOXES("idle_ttl_seconds", 2),
    SANDBOXES("delete_after_stop_seconds", 2),
    SANDBOXES("vcpus", 1),
    SANDBOXES("mem_bytes", 2),
    SANDBOXES("fs_capacity_bytes", 2),
    {SANDBOX_STATUS, CALLS, SANDBOX_WAIT, CALLS, "", "{\"status\":", "}", "status", 0},
    {SANDBOX_STATUS, CALLS, SANDBOX_WAIT, CALLS, "", "{\"status_message\":", "}", "status_message",
     0},
};

static void check_wrong_type(const member *m, int which, const char *value)
{
    char body[300], path[100];
    int listed = which == m->list;
    sbx_error err;
    world w;
    peer *p;
    snprintf(body, sizeof(body), "%s%s%s%s%s%s%s", listed ? "{\"" : "", listed ? m->list_name : "",
             listed ? "\":[" : "", m->before, value, m->after, listed ? "]}" : "");
    snprintf(path, sizeof(path), "\"%s%s%s\" is not ", listed ? m->list_name : "",
             listed ? "[]." : "", m->path);
    world_init(&w);
    p = world_peer(&w);
    peer_expect_call(p, which);
    peer_reply(p, 200, body);
    world_open(&w);
    assert_status(&w, SBX_E_PROTOCOL, call_one(&w, which, &err), &err);
    assert_says(&w, &err, path);
    assert_int_equal(w.dials, 1);
    world_done(&w);
}

static void members_of_the_wrong_type_are_named(void **state)
{
    static const char *const not_texts[] = {"5",  "0",   "true",    "false",           "[]",
                                            "{}", "1.5", "[\"x\"]", "{\"name\":\"x\"}"};
    static const char *const not_numbers[] = {"\"5\"", "\"\"", "true", "[]",
                                              "{}",    "1.5",  "[5]",  "9223372036854775808"};
    static const char *const not_ints[] = {"2147483648", "-2147483649", "4294967297"};
    size_t i, k;
    (void)state;
    for (i = 0; i < COUNT(members); i++) {
        const member *m = &members[i];
        int which[4];
        int c;
        which[0] = m->get;
        which[1] = m->list;
        which[2] = m->create;
        which[3] = m->update;
        for (c = 0; c < 4; c++) {
            if (which[c] == CALLS)
                continue;
            for (k = 0; !m->number && k < COUNT(not_texts); k++)
                check_wrong_type(m, which[c], not_texts[k]);
            for (k = 0; m->number && k < COUNT(not_numbers); k++)
                check_wrong_type(m, which[c], not_numbers[k]);
            for (k = 0; m->number == 1 && k < COUNT(not_ints); k++)
                check_wrong_type(m, which[c], not_ints[k]);
        }
    }
}

static void lists_are_where_they_should_be(void **state)
{
    static const struct {
        int which;
        const char *name;
    } lists[] = {{TEMPLATE_LIST, "templates"},
                 {VOLUME_LIST, "volumes"},
                 {POOL_LIST, "pools"},
                 {SANDBOX_LIST, "sandboxes"}};
    static const struct {
        const char *before, *after; /* of the name */
        int count;                  /* -1: an error */
    } cases[] = {
        {"{\"", "\":[{},{\"id\":\"x\"},{}]}", 3},
        {"{\"", "\":[]}", 0},
        {"{\"", "\":null}", 0},
        {"{\"x", "\":[{}]}", 0},
        {"{\"a\":{\"", "\":[{}]}}", 0},
        {"{\"a\":[{}],\"", "\":[{}],\"b\":[{}]}", 1},
        {"{\"", "\":{}}", -1},
        {"{\"", "\":\"x\"}", -1},
        {"{\"", "\":7}", -1},
        {"{\"", "\":[7]}", -1},
        {"{\"", "\":[null]}", -1},
        {"{\"", "\":[[]]}", -1},
        {"[{\"", "\":[{}]}]", -1},
        {"\"", "\"", -1},
        {"{\"", "\":[{}", -1},
    };
    size_t i, k;
    (void)state;
    for (i = 0; i < COUNT(lists); i++)
        for (k = 0; k < COUNT(cases); k++) {
            void *got = NULL;
            char body[100];
            call_args a;
            sbx_error err;
            world w;
            peer *p;
            snprintf(body, sizeof(body), "%s%s%s", cases[k].before, lists[i].name, cases[k].after);
            world_init(&w);
            p = world_peer(&w);
            peer_expect_call(p, lists[i].which);
            peer_reply(p, 200, body);
            world_open(&w);
            memset(&a, 0, sizeof(a));
            a.client = w.client;
            a.out = &got;
            if (cases[k].count < 0) {
                assert_status(&w, SBX_E_PROTOCOL, calls[lists[i].which].make(&a, &err), &err);
                assert_null(got);
            } else {
                assert_status(&w, SBX_OK, calls[lists[i].which].make(&a, &err), &err);
                /* All lists look alike. */
                assert_int_equal(((sbx_volumes *)got)->count, cases[k].count);
            }
            sbx_free(got);
            world_done(&w);
        }
}

/* ---- time limits ---- */

static void check_silence(world *w, sbx_status st, const sbx_error *err, int64_t start,
                          int64_t limit)
{
    check_error(w, st, err);
    if (st != SBX_E_TIMEOUT || w->now - start != limit)
        world_fail(w, "%s after %ld ms, not %ld", sbx_status_name(st), (long)(w->now - start),
                   (long)limit);
    assert_int_equal(w->dials, 1);
}

static void every_call_has_a_time_limit(void **state)
{
    static const int64_t configured[] = {0, 2500, 500000};
    size_t i;
    int which;
    (void)state;
    for (which = 0; which < CALLS; which++)
        for (i = 0; i < COUNT(configured); i++) {
            int64_t limit = which == VOLUME_CREATE    ? 90000
                            : which == POOL_CREATE    ? 60000
                            : which == SANDBOX_CREATE ? 60000
                            : configured[i]           ? configured[i]
                                                      : 10000;
            sbx_error err;
            sbx_status st;
            world w;
            int64_t start;
            world_init(&w);
            w.config.timeout_ms = configured[i];
            peer_expect_call(world_peer(&w), which);
            world_open(&w);
            start = w.now;
            st = call_one(&w, which, &err);
            if (which == SANDBOX_WAIT && limit > 120000)
                limit = 500000; /* of one request: the limit of waiting is for its pauses */
            check_silence(&w, st, &err, start, limit);
            world_done(&w);
        }
}

static void creations_take_as_long_as_the_service_may_and_thirty_seconds(void **state)
{
    static const struct {
        int which;
        int64_t ready_ms;
        int no_wait;
        int64_t limit;
    } cases[] = {
        {VOLUME_CREATE, 5000, 0, 35000},       {VOLUME_CREATE, 300000, 0, 330000},
        {POOL_CREATE, 10000, 0, 40000},        {POOL_CREATE, 600000, 0, 630000},
        {SANDBOX_CREATE, 1, 0, 30001},         {SANDBOX_CREATE, 120000, 0, 150000},
        {SANDBOX_CREATE, 0, 1, 30000},         {SANDBOX_CREATE, 90000, 1, 30000},
        {SANDBOX_CREATE, DAY, 0, DAY + 30000},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_volume_options volume = volume_options();
        sbx_pool_options pool = pool_options();
        sbx_sandbox_options sandbox;
        sbx_volume *a_volume = NULL;
        sbx_pool *a_pool = NULL;
        sbx_sandbox *a_sandbox = NULL;
        sbx_error err;
        sbx_status st;
        world w;
        int64_t start;
        memset(&sandbox, 0, sizeof(sandbox));
        sandbox.no_wait = cases[i].no_wait;
        volume.ready_timeout_ms = pool.ready_timeout_ms = sandbox.ready_timeout_ms =
            cases[i].ready_ms;
        world_init(&w);
        peer_expect_call(world_peer(&w), cases[i].which);
        world_open(&w);
        start = w.now;
        st = cases[i].which == VOLUME_CREATE ? sbx_volume_create(w.client, &volume, &a_volume, &err)
             : cases[i].which == POOL_CREATE
                 ? sbx_pool_create(w.client, &pool, &a_pool, &err)
                 : sbx_sandbox_create(w.client, &sandbox, &a_sandbox, &err);
        check_silence(&w, st, &err, start, cases[i].limit);
        world_done(&w);
    }
}

static void a_limit_beyond_all_time_is_none(void **state)
{
    sbx_sandbox_options options;
    sbx_sandbox *got = NULL;
    sbx_error err;
    sbx_status st;
    world w;
    peer *p;
    int64_t start;
    (void)state;
    memset(&options, 0, sizeof(options));
    options.ready_timeout_ms = INT64_MAX;
    options.call.timeout_ms = 365 * DAY;
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "POST", BASE "/boxes");
    peer_json(p, "{\"wait_for_ready\":true,\"timeout\":9223372036854776}");
    world_open(&w);
    start = w.now;
    st = sbx_sandbox_create(w.client, &options, &got, &err);
    check_silence(&w, st, &err, start, 365 * DAY);
    world_done(&w);
}

static void cancel_now(world *w, void *user)
{
    sbx_cancel_set(w->client, (sbx_cancel *)user);
}

static void every_call_obeys_its_deadline_its_cancel_and_its_headers(void **state)
{
    static const char *const headers[] = {"X-Trace: 7", "x-api-key: another", NULL};
    int which;
    (void)state;
    for (which = 0; which < CALLS; which++) {
        sbx_cancel cancel = {0};
        sbx_call call = {1234, NULL, NULL};
        sbx_error err;
        world w;
        peer *p;
        int64_t start;
        world_init(&w);
        w.key = "another";
        call.headers = headers;
        p = world_peer(&w);
        peer_expect_call(p, which);
        peer_with(p, "X-Trace: 7");
        p = world_peer(&w);
        peer_expect_call(p, which);
        peer_with(p, "X-Api-Key: another");
        world_open(&w);
        start = w.now;
        assert_status(&w, SBX_E_TIMEOUT, call_with(&w, which, &call, &err), &err);
        assert_int_equal(w.now - start, 1234);
        call.timeout_ms = 0;
        call.cancel = &cancel;
        world_at(&w, 777, cancel_now, &cancel);
        start = w.now;
        assert_status(&w, SBX_E_CANCELLED, call_with(&w, which, &call, &err), &err);
        assert_int_equal(w.now - start, 777);
        assert_int_equal(w.dials, 2);
        world_done(&w);
    }
}

/* ---- operations ---- */

static void an_operation_of_every_call_keeps_what_it_needs(void **state)
{
    int which, steps;
    (void)state;
    for (which = 0; which < CALLS; which++)
        for (steps = 0; steps < 4; steps++) {
            char name[] = "n", new_name[] = "m", header[] = "X-Trace: 1";
            const char *headers[2] = {header, NULL};
            sbx_call call = {0, NULL, NULL};
            void *got = &which;
            sbx_op *op = NULL;
            call_args a;
            sbx_error err;
            world w;
            peer *p;
            int i;
            world_init(&w);
            p = world_peer(&w);
            p->optional = steps < 3; /* those are freed before their end */
            peer_expect_call(p, which);
            peer_with(p, "X-Trace: 1");
            if (strcmp(calls[which].method, "PATCH") == 0)
                peer_json(p, "{\"name\":\"m\"}");
            peer_delay(p, 100);
            peer_reply(p, 200, "{}");
            if (which == SANDBOX_WAIT) {
                peer_expect_call(p, SANDBOX_GET);
                peer_reply(p, 200, "{}");
            }
            world_open(&w);
            call.headers = headers;
            memset(&a, 0, sizeof(a));
            a.client = w.client;
            a.name = name;
            a.new_name = new_name;
            a.call = &call;
            a.start = 1;
            a.out = &got;
            a.op = &op;
            assert_status(&w, SBX_OK, calls[which].make(&a, &err), &err);
            assert_non_null(op);
            assert_int_equal(w.dials, 0);
            memset(name, 'x', 1);
            memset(new_name, 'x', 1);
            memset(header, 'x', 10);
            memset(&call, 0xff, sizeof(call));
            for (i = 0; i < steps && steps < 3; i++)
                assert_int_equal(sbx_op_wait(op, 30, &err), SBX_AGAIN);
            if (calls[which].flags & HAS_OUT)
                assert_null(got);
            if (steps == 3)
                assert_status(&w, SBX_OK, sbx_op_wait(op, SBX_NONE, &err), &err);
            sbx_op_free(op);
            if (calls[which].flags & HAS_OUT) {
                assert_int_equal(got != NULL, steps == 3);
                sbx_free(got);
            }
            world_done(&w);
        }
}

static void the_error_may_be_left_out(void **state)
{
    static const int answers[] = {200, 404, 500};
    size_t i;
    int which;
    (void)state;
    for (which = 0; which < CALLS; which++)
        for (i = 0; i < COUNT(answers); i++) {
            void *got = NULL;
            call_args a;
            sbx_status st;
            world w;
            peer *p;
            world_init(&w);
            p = world_peer(&w);
            peer_expect_call(p, which);
            peer_reply(p, answers[i], answers[i] == 200 ? "{}" : "{\"detail\":[{\"msg\":\"m\"}]}");
            if (which == SANDBOX_WAIT && answers[i] == 200) {
                peer_expect_call(p, SANDBOX_GET);
                peer_reply(p, 200, "{}");
            }
            world_open(&w);
            memset(&a, 0, sizeof(a));
            a.client = w.client;
            a.name = "n";
            a.new_name = "m";
            a.out = &got;
            st = calls[which].make(&a, NULL);
            assert_int_equal(st == SBX_OK, answers[i] == 200);
            assert_int_equal(sbx_status_is(st, SBX_E_SERVICE), answers[i] != 200);
            sbx_free(got);
            world_done(&w);
        }
}

/* ---- names ---- */

/* Keeps what was asked for, and answers so that every call is content. */
typedef struct record {
    char method[4][16];
    char *target[4];
    wtext body;
    int count;
} record;

static void serve_record(peer *p, void *user)
{
    record *r = (record *)user;
    assert_true(r->count < 4);
    snprintf(r->method[r->count], sizeof(r->method[0]), "%s", p->request.method);
    r->target[r->count++] = world_copy(p->request.target, strlen(p->request.target));
    wtext_add(&r->body, wtext_get(&p->request.body), p->request.body.len);
    peer_take_request(p);
    peer_reply(p, 200, "{}");
}

static void check_name(int which, const char *name, const char *encoded)
{
    const call_row *c = &calls[which];
    int requests = which == SANDBOX_WAIT ? 2 : 1, i;
    record r;
    void *got = NULL;
    char target[4000];
    call_args a;
    sbx_error err;
    world w;
    memset(&r, 0, sizeof(r));
    world_init(&w);
    w.serve = serve_record;
    w.serve_user = &r;
    world_open(&w);
    memset(&a, 0, sizeof(a));
    a.client = w.client;
    a.name = name;
    a.new_name = name;
    a.out = &got;
    assert_status(&w, SBX_OK, c->make(&a, &err), &err);
    if (c->flags & HAS_OUT)
        sbx_free(got);
    assert_int_equal(r.count, requests);
    for (i = 0; i < requests; i++) {
        call_target(i ? SANDBOX_GET : which, encoded, target, sizeof(target));
        assert_string_equal(r.method[i], c->method);
        if (strcmp(r.target[i], target) != 0)
            world_fail(&w, "%s of %s\n  expected %s\n       got %s", c->function, name, target,
                       r.target[i]);
        free(r.target[i]);
    }
    if (r.body.len) {
        char sent[4000];
        json_member(r.body.data, r.body.len, "name", sent, sizeof(sent));
        assert_string_equal(sent, name);
    }
    wtext_free(&r.body);
    world_done(&w);
}

static void names_arrive_as_one_segment(void **state)
{
    static const char *const names[][2] = {
        {"plain-name_1~", "plain-name_1~"},
        {"/", "%2F"},
        {"a/b", "a%2Fb"},
        {"//", "%2F%2F"},
        {".", "%2E"},
        {"..", "%2E%2E"},
        {"../x", "%2E%2E%2Fx"},
        {"a.b", "a%2Eb"},
        {"%", "%25"},
        {"%2F", "%252F"},
        {"%2e%2e", "%252e%252e"},
        {" ", "%20"},
        {"a b", "a%20b"},
        {"?", "%3F"},
        {"a?b#c", "a%3Fb%23c"},
        {"#", "%23"},
        {"m\xc3\xbcll", "m%C3%BCll"},
        {"\xf0\x9f\x98\x80", "%F0%9F%98%80"},
        {"'()*!", "%27%28%29%2A%21"},
        {"a+b&c=d;e,f", "a%2Bb%26c%3Dd%3Be%2Cf"},
        {"\\", "%5C"},
        {":@$[]", "%3A%40%24%5B%5D"},
        {"\"<>^`{|}", "%22%3C%3E%5E%60%7B%7C%7D"},
        {"status", "status"},
    };
    char name[1025], encoded[3073];
    size_t i;
    int which;
    (void)state;
    memset(name, '/', 1024);
    name[1024] = 0;
    for (i = 0; i < 1024; i++)
        memcpy(encoded + 3 * i, "%2F", 4);
    for (which = 0; which < CALLS; which++) {
        if (!(calls[which].flags & HAS_NAME))
            continue;
        for (i = 0; i < COUNT(names); i++)
            check_name(which, names[i][0], names[i][1]);
        check_name(which, name, encoded);
    }
}

/* ---- arguments ---- */

/* Makes the call, which must be refused for this field, and touch neither out nor op. */
static void refused(world *w, int which, const call_args *args, const char *field)
{
    int start;
    for (start = 0; start < 2; start++) {
        const call_row *c = &calls[which];
        void *got = w;
        sbx_op *op = (sbx_op *)w;
        call_args a = *args;
        sbx_error err;
        sbx_status st;
        a.start = start;
        a.out = &got;
        a.op = &op;
        st = c->make(&a, &err);
        check_error(w, st, &err);
        if (st != SBX_E_ARGUMENT || strcmp(err.field, field) != 0)
            world_fail(w, "%s for %s of %s: %s", sbx_status_name(st), field, c->function,
                       err.message);
        assert_says(w, &err, field);
        if ((c->flags & HAS_OUT) && got)
            world_fail(w, "%s leaves out as it was", c->function);
        if (start && op)
            world_fail(w, "%s leaves op as it was", c->function);
        assert_int_equal(err.attempts, 0);
        assert_int_equal(c->make(&a, NULL), SBX_E_ARGUMENT);
    }
}

static void names_that_are_none_are_refused(void **state)
{
    static const char *const names[] = {"",      "a\nb",     "\r",           "\x01",
                                        "a\x7f", "\t",       "\x1b[31m",     "\xff",
                                        "a\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80"};
    size_t i;
    int which;
    world w;
    (void)state;
    world_init(&w);
    world_open(&w);
    for (which = 0; which < CALLS; which++) {
        call_args a;
        memset(&a, 0, sizeof(a));
        a.client = w.client;
        if (!(calls[which].flags & HAS_NAME))
            continue;
        for (i = 0; i < COUNT(names); i++) {
            a.name = names[i];
            a.new_name = "m";
            refused(&w, which, &a, "name");
            a.name = "n";
            a.new_name = names[i];
            if (strcmp(calls[which].method, "PATCH") == 0)
                refused(&w, which, &a, "new_name");
        }
        a.name = NULL;
        a.new_name = "m";
        if (!(calls[which].flags & NAME_OPTIONAL))
            refused(&w, which, &a, "name");
    }
    assert_int_equal(w.dials, 0);
    world_done(&w);
}

static void what_a_call_cannot_do_without_is_named(void **state)
{
    static const char *const bad_headers[][2] = {
        {"no colon", NULL}, {"A: b\r\nC: d", NULL}, {"Host: x", NULL}, {": x", NULL}};
    size_t i;
    int which;
    world w;
    (void)state;
    world_init(&w);
    world_open(&w);
    for (which = 0; which < CALLS; which++) {
        const call_row *c = &calls[which];
        sbx_call call = {0, NULL, NULL};
        call_args a;
        sbx_error err;
        sbx_op *op = (sbx_op *)&w;
        void *got = &w;
        memset(&a, 0, sizeof(a));
        a.name = "n";
        a.new_name = "m";
        refused(&w, which, &a, "client");
        a.client = w.client;
        a.call = &call;
        call.timeout_ms = -2;
        refused(&w, which, &a, "timeout_ms");
        call.timeout_ms = INT64_MIN;
        refused(&w, which, &a, "timeout_ms");
        call.timeout_ms = 0;
        for (i = 0; i < COUNT(bad_headers); i++) {
            call.headers = bad_headers[i];
            refused(&w, which, &a, "headers");
        }
        call.headers = NULL;
        if (c->flags & NEEDS_OPTIONS) {
            a.no_options = 1;
            refused(&w, which, &a, "options");
            a.no_options = 0;
        }
        if (c->flags & HAS_OUT) {
            assert_status(&w, SBX_E_ARGUMENT, c->make(&a, &err), &err);
            assert_string_equal(err.field, "out");
            a.start = 1;
            a.op = &op;
            assert_status(&w, SBX_E_ARGUMENT, c->make(&a, &err), &err);
            assert_string_equal(err.field, "out");
            assert_null(op);
        }
        a.start = 1;
        a.op = NULL;
        a.out = &got;
        assert_status(&w, SBX_E_ARGUMENT, c->make(&a, &err), &err);
        assert_string_equal(err.field, "out");
        if (c->flags & HAS_OUT)
            assert_null(got);
    }
    assert_int_equal(w.dials, 0);
    world_done(&w);
}

static const char *const bad_texts[] = {"", "a\nb", "\x7f", "\xff", "\xe2\x82"};

static void wrong_volumes_are_refused(void **state)
{
    static const int64_t times[] = {-1, 1, 4999, 300001, INT64_MIN, INT64_MAX};
    sbx_volume_options options;
    sbx_volume_update_options update;
    sbx_volume *got;
    sbx_error err;
    world w;
    size_t i;
    (void)state;
    world_init(&w);
    world_open(&w);
    for (i = 0; i < COUNT(times); i++) {
        options = volume_options();
        options.ready_timeout_ms = times[i];
        got = (sbx_volume *)&w;
        assert_status(&w, SBX_E_ARGUMENT, sbx_volume_create(w.client, &options, &got, &err), &err);
        assert_string_equal(err.field, "ready_timeout_ms");
        assert_says(&w, &err, "ready_timeout_ms must be 0 (60000), or 5000 to 300000");
        assert_null(got);
        assert_int_equal(sbx_volume_create(w.client, &options, &got, NULL), SBX_E_ARGUMENT);
    }
    for (i = 0; i <= COUNT(bad_texts); i++) {
        options = volume_options();
        options.size = i < COUNT(bad_texts) ? bad_texts[i] : NULL;
        assert_status(&w, SBX_E_ARGUMENT, sbx_volume_create(w.client, &options, &got, &err), &err);
        assert_string_equal(err.field, "size");
        if (!options.size)
            continue;
        memset(&update, 0, sizeof(update));
        update.new_name = "m";
        update.size = bad_texts[i];
        assert_status(&w, SBX_E_ARGUMENT, sbx_volume_update(w.client, "n", &update, &got, &err),
                      &err);
        assert_string_equal(err.field, "size");
    }
    assert_int_equal(w.dials, 0);
    world_done(&w);
}

static void wrong_pools_are_refused(void **state)
{
    static const int64_t times[] = {-1, 1, 9999, 600001, INT64_MIN, INT64_MAX};
    static const int replicas[] = {0, -1, -2, 101, INT_MIN, INT_MAX};
    sbx_pool_options options;
    sbx_pool_update_options update;
    sbx_pool *got;
    sbx_error err;
    world w;
    size_t i;
    (void)state;
    world_init(&w);
    world_open(&w);
    for (i = 0; i < COUNT(times); i++) {
        options = pool_options();
        options.ready_timeout_ms = times[i];
        got = (sbx_pool *)&w;
        assert_status(&w, SBX_E_ARGUMENT, sbx_pool_create(w.client, &options, &got, &err), &err);
        assert_string_equal(err.field, "ready_timeout_ms");
        assert_says(&w, &err, "ready_timeout_ms must be 0 (30000), or 10000 to 600000");
        assert_null(got);
    }
    for (i = 0; i < COUNT(replicas); i++) {
        options = pool_options();
        options.replicas = replicas[i];
        assert_status(&w, SBX_E_ARGUMENT, sbx_pool_create(w.client, &options, &got, &err), &err);
        assert_string_equal(err.field, "replicas");
        if (replicas[i] == 0 || replicas[i] == SBX_NONE)
            continue;
        memset(&update, 0, sizeof(update));
        update.replicas = replicas[i];
        assert_status(&w, SBX_E_ARGUMENT, sbx_pool_update(w.client, "n", &update, &got, &err),
                      &err);
        assert_string_equal(err.field, "replicas");
    }
    for (i = 0; i <= COUNT(bad_texts); i++) {
        options = pool_options();
        options.template_name = i < COUNT(bad_texts) ? bad_texts[i] : NULL;
        assert_status(&w, SBX_E_ARGUMENT, sbx_pool_create(w.client, &options, &got, &err), &err);
        assert_string_equal(err.field, "template_name");
    }
    assert_int_equal(w.dials, 0);
    world_done(&w);
}

static void wrong_templates_are_refused(void **state)
{
    static const size_t places[] = {
        offsetof(sbx_template_options, image), offsetof(sbx_template_options, cpu),
        offsetof(sbx_template_options, memory), offsetof(sbx_template_options, storage)};
    static const char *const fields[] = {"image", "cpu", "memory", "storage"};
    sbx_template *got;
    sbx_error err;
    world w;
    size_t i, k;
    (void)state;
    world_init(&w);
    world_open(&w);
    for (k = 0; k < COUNT(places); k++)
        for (i = 0; i < COUNT(bad_texts); i++) {
            sbx_template_options options;
            memset(&options, 0, sizeof(options));
            options.name = "t";
            options.image = "i";
            memcpy((char *)&options + places[k], &bad_texts[i], sizeof(bad_texts[i]));
            got = (sbx_template *)&w;
            assert_status(&w, SBX_E_ARGUMENT, sbx_template_create(w.client, &options, &got, &err),
                          &err);
            assert_string_equal(err.field, fields[k]);
            assert_null(got);
        }
    assert_int_equal(w.dials, 0);
    world_done(&w);
}

static void wrong_sandbox_updates_are_refused(void **state)
{
    static const int64_t times[] = {-2, 1, 59999, 60001, 90000, INT64_MIN, INT64_MAX};
    sbx_sandbox_update_options update;
    sbx_sandbox_options options;
    sbx_sandbox *got;
    sbx_error err;
    world w;
    size_t i;
    int second;
    (void)state;
    world_init(&w);
    world_open(&w);
    for (i = 0; i < COUNT(times); i++)
        for (second = 0; second < 2; second++) {
            const char *field = second ? "delete_after_stop_ms" : "idle_ttl_ms";
            memset(&update, 0, sizeof(update));
            memset(&options, 0, sizeof(options));
            update.idle_ttl_ms = options.idle_ttl_ms = second ? 60000 : times[i];
            update.delete_after_stop_ms = options.delete_after_stop_ms = second ? times[i] : 0;
            got = (sbx_sandbox *)&w;
            assert_status(&w, SBX_E_ARGUMENT,
                          sbx_sandbox_update(w.client, "n", &update, &got, &err), &err);
            assert_string_equal(err.field, field);
            assert_null(got);
            assert_status(&w, SBX_E_ARGUMENT, sbx_sandbox_create(w.client, &options, &got, &err),
                          &err);
            assert_string_equal(err.field, field);
        }
    assert_int_equal(w.dials, 0);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(volumes_are_created_and_updated_as_asked),
        cmocka_unit_test(pools_are_created_and_updated_as_asked),
        cmocka_unit_test(templates_are_renamed),
        cmocka_unit_test(sandboxes_take_what_services_without_templates_want),
        cmocka_unit_test(sandboxes_are_updated_as_asked),
        cmocka_unit_test(an_update_without_a_change_gets_what_there_is),
        cmocka_unit_test(every_member_of_a_volume_is_read),
        cmocka_unit_test(every_member_of_a_pool_is_read),
        cmocka_unit_test(every_member_of_a_sandbox_is_read),
        cmocka_unit_test(numbers_at_their_edges_are_read),
        cmocka_unit_test(members_of_the_wrong_type_are_named),
        cmocka_unit_test(lists_are_where_they_should_be),
        cmocka_unit_test(every_call_has_a_time_limit),
        cmocka_unit_test(creations_take_as_long_as_the_service_may_and_thirty_seconds),
        cmocka_unit_test(a_limit_beyond_all_time_is_none),
        cmocka_unit_test(every_call_obeys_its_deadline_its_cancel_and_its_headers),
        cmocka_unit_test(an_operation_of_every_call_keeps_what_it_needs),
        cmocka_unit_test(the_error_may_be_left_out),
        cmocka_unit_test(names_arrive_as_one_segment),
        cmocka_unit_test(names_that_are_none_are_refused),
        cmocka_unit_test(what_a_call_cannot_do_without_is_named),
        cmocka_unit_test(wrong_volumes_are_refused),
        cmocka_unit_test(wrong_pools_are_refused),
        cmocka_unit_test(wrong_templates_are_refused),
        cmocka_unit_test(wrong_sandbox_updates_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
