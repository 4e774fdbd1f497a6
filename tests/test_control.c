/* Templates and the life of sandboxes: what is sent and what is read. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"

#include "world.h"

#define BASE "/v2/sandboxes"
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static sbx_template_options template_options(void)
{
    sbx_template_options options;
    memset(&options, 0, sizeof(options));
    options.name = "python";
    options.image = "python:3.12-slim";
    return options;
}

static sbx_sandbox_options sandbox_options(const char *template_name)
{
    sbx_sandbox_options options;
    memset(&options, 0, sizeof(options));
    options.template_name = template_name;
    return options;
}

/* ---- templates ---- */

static void a_template_is_created_with_the_defaults(void **state)
{
    sbx_template_options options = template_options();
    sbx_template *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "POST", BASE "/templates");
    peer_json(p, "{\"name\":\"python\",\"image\":\"python:3.12-slim\","
                 "\"resources\":{\"cpu\":\"500m\",\"memory\":\"512Mi\"}}");
    peer_reply(
        p, 201,
        "{\"name\":\"python\",\"image\":\"python:3.12-slim\",\"resources\":{\"cpu\":\"500m\","
        "\"memory\":\"512Mi\",\"storage\":null},\"volume_mounts\":null,\"id\":\"t-1\","
        "\"created_at\":\"2026-03-01T00:00:00Z\",\"updated_at\":null}");
    world_open(&w);
    assert_status(&w, SBX_OK, sbx_template_create(w.client, &options, &got, &err), &err);
    assert_string_equal(got->name, "python");
    assert_string_equal(got->image, "python:3.12-slim");
    assert_string_equal(got->cpu, "500m");
    assert_string_equal(got->memory, "512Mi");
    assert_string_equal(got->storage, "");
    assert_int_equal(got->volume_mount_count, 0);
    assert_string_equal(got->id, "t-1");
    assert_string_equal(got->created_at, "2026-03-01T00:00:00Z");
    assert_string_equal(got->updated_at, "");
    sbx_free(got);
    world_done(&w);
}

static void a_template_is_created_with_everything(void **state)
{
    static const sbx_volume_mount mounts[] = {{"data", "/data"}, {"more \"q\"", "/m\xc3\xbc"}};
    sbx_template_options options = template_options();
    sbx_template *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    (void)state;
    options.cpu = "2";
    options.memory = "4Gi";
    options.storage = "10Gi";
    options.volume_mounts = mounts;
    options.volume_mount_count = 2;
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "POST", BASE "/templates");
    peer_json(p, "{\"name\":\"python\",\"image\":\"python:3.12-slim\","
                 "\"resources\":{\"cpu\":\"2\",\"memory\":\"4Gi\",\"storage\":\"10Gi\"},"
                 "\"volume_mounts\":[{\"volume_name\":\"data\",\"mount_path\":\"/data\"},"
                 "{\"volume_name\":\"more \\\"q\\\"\",\"mount_path\":\"/m\\u00fc\"}]}");
    peer_reply(
        p, 200,
        "{\"resources\":{\"storage\":\"10Gi\",\"gpu\":{\"count\":[1,2,{}]},\"memory\":\"4Gi\","
        "\"cpu\":\"2\"},\"volume_mounts\":[{\"volume_name\":\"data\",\"mount_path\":\"/data\","
        "\"extra\":[[]]},{\"mount_path\":\"/m\\u00fc\",\"volume_name\":\"more \\\"q\\\"\"},{}],"
        "\"unknown\":{\"name\":\"not this\",\"resources\":{\"cpu\":\"no\"}},\"name\":\"python\","
        "\"image\":\"x\"}");
    world_open(&w);
    assert_status(&w, SBX_OK, sbx_template_create(w.client, &options, &got, &err), &err);
    assert_string_equal(got->name, "python");
    assert_string_equal(got->cpu, "2");
    assert_string_equal(got->memory, "4Gi");
    assert_string_equal(got->storage, "10Gi");
    assert_int_equal(got->volume_mount_count, 3);
    assert_string_equal(got->volume_mounts[0].volume_name, "data");
    assert_string_equal(got->volume_mounts[0].mount_path, "/data");
    assert_string_equal(got->volume_mounts[1].volume_name, "more \"q\"");
    assert_string_equal(got->volume_mounts[1].mount_path, "/m\xc3\xbc");
    assert_string_equal(got->volume_mounts[2].volume_name, "");
    assert_string_equal(got->volume_mounts[2].mount_path, "");
    assert_string_equal(got->id, "");
    sbx_free(got);
    world_done(&w);
}

static void refuse_template(world *w, const sbx_template_options *options, const char *field)
{
    sbx_template *got = (sbx_template *)w;
    sbx_error err;
    assert_status(w, SBX_E_ARGUMENT, sbx_template_create(w->client, options, &got, &err), &err);
    assert_null(got);
    assert_says(w, &err, field);
}

static void wrong_template_options_are_refused(void **state)
{
    static const sbx_volume_mount no_name[] = {{NULL, "/data"}}, no_path[] = {{"data", ""}};
    sbx_template_options options;
    sbx_template *got = NULL;
    sbx_error err;
    world w;
    (void)state;
    world_init(&w);
    world_open(&w);
    options = template_options();
    options.name = NULL;
    refuse_template(&w, &options, "name");
    options.name = "";
    refuse_template(&w, &options, "name");
    options = template_options();
    options.image = NULL;
    refuse_template(&w, &options, "image");
    options.image = "";
    refuse_template(&w, &options, "image");
    options.image = "not utf-8: \xff";
    refuse_template(&w, &options, "image");
    options = template_options();
    options.volume_mounts = no_name;
    options.volume_mount_count = 1;
    refuse_template(&w, &options, "volume");
    options.volume_mounts = no_path;
    refuse_template(&w, &options, "mount_path");
    options.volume_mounts = NULL;
    refuse_template(&w, &options, "volume_mounts");
    options = template_options();
    assert_status(&w, SBX_E_ARGUMENT, sbx_template_create(w.client, NULL, &got, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_template_create(NULL, &options, &got, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_template_create(w.client, &options, NULL, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_template_list(w.client, NULL, NULL, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_template_get(NULL, "t", NULL, &got, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_template_get(w.client, "t", NULL, NULL, &err), &err);
    assert_int_equal(w.dials, 0);
    world_done(&w);
}

static void answers_take_defaults_for_what_is_absent_or_null(void **state)
{
    static const char *const bodies[] = {
        "{}",
        "{\"name\":null,\"image\":null,\"resources\":null,\"volume_mounts\":[],\"id\":null}",
        "{\"resources\":{}}",
        "{\"resources\":{\"cpu\":null,\"memory\":null,\"storage\":null}}",
        "{\"a\":{\"b\":[{\"c\":[1,2.5e300,true,null,\"x\"]}]},\"name2\":\"n\",\"Name\":\"n\"}",
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(bodies); i++) {
        sbx_template *got = NULL;
        sbx_error err;
        world w;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", BASE "/templates/x");
        peer_reply(p, 200, bodies[i]);
        world_open(&w);
        assert_status(&w, SBX_OK, sbx_template_get(w.client, "x", NULL, &got, &err), &err);
        assert_string_equal(got->name, "");
        assert_string_equal(got->image, "");
        assert_string_equal(got->cpu, "");
        assert_string_equal(got->memory, "");
        assert_string_equal(got->storage, "");
        assert_string_equal(got->id, "");
        assert_string_equal(got->created_at, "");
        assert_string_equal(got->updated_at, "");
        assert_int_equal(got->volume_mount_count, 0);
        sbx_free(got);
        world_done(&w);
    }
}

static void texts_are_unescaped_and_the_last_of_equal_members_wins(void **state)
{
    sbx_template *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    p->piece = 1;
    peer_request(p, "GET", BASE "/templates/x");
    peer_reply(p, 200,
               "{\"name\":\"first\",\"image\":\"\\u00fc\\ud83d\\ude00\\n\\t\\\"\\\\\\/\","
               "\"n\\u0061me\":\"second \xf0\x9f\x98\x80\",\"id\":\"\"}");
    world_open(&w);
    assert_status(&w, SBX_OK, sbx_template_get(w.client, "x", NULL, &got, &err), &err);
    assert_string_equal(got->name, "second \xf0\x9f\x98\x80");
    assert_string_equal(got->image, "\xc3\xbc\xf0\x9f\x98\x80\n\t\"\\/");
    sbx_free(got);
    world_done(&w);
}

static void keys_that_look_like_paths_are_unknown_members(void **state)
{
    static const struct {
        const char *body, *name, *cpu;
    } cases[] = {
        {"{\"\":{},\"name\":\"t\"}", "t", ""},
        {"{\"\":5,\"name\":\"t\"}", "t", ""},
        {"{\"\":[{}],\"name\":\"t\"}", "t", ""},
        {"{\"\":{\"name\":\"wrong\"},\"name\":\"t\"}", "t", ""},
        {"{\"name\":\"t\",\"\":{\"name\":\"wrong\"}}", "t", ""},
        {"{\"resources.cpu\":\"9\",\"name\":\"t\"}", "t", ""},
        {"{\"resources.cpu\":{},\"name\":\"t\"}", "t", ""},
        {"{\"resources\":{\"cpu\":\"2\"},\"resources.cpu\":\"9\",\"name\":\"t\"}", "t", "2"},
        {"{\"resources\":{\"\":{\"cpu\":\"9\"},\"cpu\":\"2\"},\"name\":\"t\"}", "t", "2"},
    };
    sbx_template *got = NULL;
    sbx_templates *list = NULL;
    sbx_error err;
    world w;
    peer *p;
    size_t i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    for (i = 0; i < COUNT(cases); i++) {
        peer_request(p, "GET", BASE "/templates/t");
        peer_reply(p, 200, cases[i].body);
    }
    peer_request(p, "GET", BASE "/templates");
    peer_reply(p, 200, "{\"templates\":[{\"name\":\"t\"}],\"templates[]\":{\"name\":\"wrong\"}}");
    world_open(&w);
    for (i = 0; i < COUNT(cases); i++) {
        assert_status(&w, SBX_OK, sbx_template_get(w.client, "t", NULL, &got, &err), &err);
        if (strcmp(got->name, cases[i].name) != 0 || strcmp(got->cpu, cases[i].cpu) != 0)
            world_fail(&w, "%s\n  gives the name '%s', cpu '%s'", cases[i].body, got->name,
                       got->cpu);
        sbx_free(got);
    }
    assert_status(&w, SBX_OK, sbx_template_list(w.client, NULL, &list, &err), &err);
    assert_int_equal(list->count, 1);
    assert_string_equal(list->items[0].name, "t");
    sbx_free(list);
    world_done(&w);
}

static void templates_are_listed(void **state)
{
    static const char *const empty[] = {"{\"templates\":[]}", "{\"templates\":null}", "{}"};
    sbx_templates *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    size_t i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    for (i = 0; i < 3; i++) {
        peer_request(p, "GET", BASE "/templates");
        peer_reply(p, 200, empty[i]);
    }
    peer_request(p, "GET", BASE "/templates");
    peer_reply(
        p, 200,
        "{\"next\":\"x\",\"templates\":[{\"name\":\"a\",\"image\":\"i\",\"volume_mounts\":"
        "[{\"volume_name\":\"v\",\"mount_path\":\"/v\"}]},{},{\"name\":\"c\",\"volume_mounts\":"
        "[{\"volume_name\":\"u\"},{\"volume_name\":\"w\"}]}],\"total\":3}");
    world_open(&w);
    for (i = 0; i < 3; i++) {
        assert_status(&w, SBX_OK, sbx_template_list(w.client, NULL, &got, &err), &err);
        assert_int_equal(got->count, 0);
        sbx_free(got);
    }
    assert_status(&w, SBX_OK, sbx_template_list(w.client, NULL, &got, &err), &err);
    assert_int_equal(got->count, 3);
    assert_string_equal(got->items[0].name, "a");
    assert_int_equal(got->items[0].volume_mount_count, 1);
    assert_string_equal(got->items[0].volume_mounts[0].mount_path, "/v");
    assert_string_equal(got->items[1].name, "");
    assert_string_equal(got->items[2].name, "c");
    assert_int_equal(got->items[2].volume_mount_count, 2);
    assert_string_equal(got->items[2].volume_mounts[0].volume_name, "u");
    assert_string_equal(got->items[2].volume_mounts[1].volume_name, "w");
    sbx_free(got);
    world_done(&w);
}

static void a_long_list_is_read(void **state)
{
    wtext body = {NULL, 0, 0};
    sbx_templates *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    int i;
    (void)state;
    wtext_puts(&body, "{\"templates\":[");
    for (i = 0; i < 5000; i++)
        wtext_printf(&body, "%s{\"name\":\"template-%d\",\"resources\":{\"cpu\":\"%dm\"}}",
                     i ? "," : "", i, i);
    wtext_puts(&body, "]}");
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "GET", BASE "/templates");
    peer_reply(p, 200, body.data);
    world_open(&w);
    assert_status(&w, SBX_OK, sbx_template_list(w.client, NULL, &got, &err), &err);
    assert_int_equal(got->count, 5000);
    assert_string_equal(got->items[4999].name, "template-4999");
    assert_string_equal(got->items[1234].cpu, "1234m");
    sbx_free(got);
    wtext_free(&body);
    world_done(&w);
}

static void things_are_deleted_whatever_the_answer_holds(void **state)
{
    static const int statuses[] = {204, 200, 202};
    static const char *const bodies[] = {"", "{\"ok\":true}", "not JSON"};
    sbx_error err;
    world w;
    peer *p;
    int i;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    for (i = 0; i < 3; i++) {
        peer_request(p, "DELETE", BASE "/templates/old");
        peer_without(p, "Content-Type");
        peer_reply(p, statuses[i], bodies[i]);
        peer_request(p, "DELETE", BASE "/boxes/old");
        peer_reply(p, statuses[i], bodies[i]);
    }
    world_open(&w);
    for (i = 0; i < 3; i++) {
        assert_status(&w, SBX_OK, sbx_template_delete(w.client, "old", NULL, &err), &err);
        assert_status(&w, SBX_OK, sbx_sandbox_delete(w.client, "old", NULL, &err), &err);
    }
    assert_int_equal(w.dials, 1);
    world_done(&w);
}

static sbx_status delete_old(world *w, int box, sbx_error *err)
{
    return box ? sbx_sandbox_delete(w->client, "old", NULL, err)
               : sbx_template_delete(w->client, "old", NULL, err);
}

static void a_deletion_that_was_only_refused_before_does_not_explain_a_404(void **state)
{
    int how, box;
    (void)state;
    for (how = 0; how < 3; how++) {
        for (box = 0; box < 2; box++) {
            const char *target = box ? BASE "/boxes/old" : BASE "/templates/old";
            sbx_error err;
            world w;
            peer *p;
            world_init(&w);
            p = world_peer(&w);
            if (how == 2) {
                p->refuse = SBX_E_CONNECT;
                p = world_peer(&w);
            } else {
                peer_request(p, "DELETE", target);
                peer_reply(p, how ? 429 : 503, "{\"detail\":\"busy\"}");
            }
            peer_request(p, "DELETE", target);
            peer_reply(p, 404, "{\"detail\":\"there is none\"}");
            world_open(&w);
            assert_status(&w, SBX_E_NOT_FOUND, delete_old(&w, box, &err), &err);
            assert_int_equal(err.attempts, 2);
            assert_string_equal(err.resource_type, box ? "sandbox" : "template");
            world_done(&w);
        }
    }
}

static void a_deletion_whose_answer_was_lost_explains_a_404(void **state)
{
    int how, kept, box;
    (void)state;
    for (how = 0; how < 2; how++) {
        for (kept = 0; kept < 2; kept++) {
            for (box = 0; box < 2; box++) {
                const char *target = box ? BASE "/boxes/old" : BASE "/templates/old";
                sbx_template *got = NULL;
                sbx_error err;
                world w;
                peer *p;
                world_init(&w);
                p = world_peer(&w);
                if (kept) {
                    peer_request(p, "GET", BASE "/templates/t");
                    peer_reply(p, 200, "{}");
                }
                peer_request(p, "DELETE", target);
                if (how)
                    peer_reset(p);
                else
                    peer_close(p);
                p = world_peer(&w);
                peer_request(p, "DELETE", target);
                peer_reply(p, 404, "{\"detail\":\"there is none\"}");
                world_open(&w);
                if (kept)
                    assert_status(&w, SBX_OK, sbx_template_get(w.client, "t", NULL, &got, &err),
                                  &err);
                sbx_free(got);
                assert_status(&w, SBX_OK, delete_old(&w, box, &err), &err);
                assert_int_equal(w.dials, 2);
                world_done(&w);
            }
        }
    }
}

/* ---- sandboxes ---- */

static void sandboxes_are_created_in_every_way(void **state)
{
    static const struct {
        sbx_sandbox_options options;
        const char *body;
    } cases[] = {
        {{"python", NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"template_name\":\"python\",\"wait_for_ready\":true,\"timeout\":30}"},
        {{NULL, "snap-1", NULL, NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"snapshot_id\":\"snap-1\",\"wait_for_ready\":true,\"timeout\":30}"},
        {{NULL, NULL, "nightly", NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"snapshot_name\":\"nightly\",\"wait_for_ready\":true,\"timeout\":30}"},
        {{NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"wait_for_ready\":true,\"timeout\":30}"},
        {{"python", NULL, NULL, "my \"box\"", 0, 90000, 0, 0, 0, 0, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"template_name\":\"python\",\"name\":\"my \\\"box\\\"\",\"wait_for_ready\":true,"
         "\"timeout\":90}"},
        {{"python", NULL, NULL, NULL, 0, 1, 0, 0, 0, 0, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"template_name\":\"python\",\"wait_for_ready\":true,\"timeout\":1}"},
        {{"python", NULL, NULL, NULL, 0, 1001, 0, 0, 0, 0, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"template_name\":\"python\",\"wait_for_ready\":true,\"timeout\":2}"},
        {{"python", NULL, NULL, NULL, 1, 0, 0, 0, 0, 0, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"template_name\":\"python\",\"wait_for_ready\":false}"},
        {{"python", NULL, NULL, NULL, 1, 5000, 0, 0, 0, 0, 0, NULL, NULL, {0, NULL, NULL}},
         "{\"template_name\":\"python\",\"wait_for_ready\":false}"},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_sandbox *got = NULL;
        sbx_error err;
        world w;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "POST", BASE "/boxes");
        peer_json(p, cases[i].body);
        peer_reply(
            p, 201,
            "{\"name\":\"box-1\",\"id\":\"b-1\",\"template_name\":\"python\","
            "\"dataplane_url\":\"" WORLD_DATAPLANE "\",\"status\":\"provisioning\","
            "\"status_message\":\"pulling\",\"created_at\":\"c\",\"updated_at\":\"u\","
            "\"snapshot_id\":\"s-9\",\"vcpus\":2,\"mem_bytes\":1073741824,\"stopped_at\":null}");
        world_open(&w);
        assert_status(&w, SBX_OK, sbx_sandbox_create(w.client, &cases[i].options, &got, &err),
                      &err);
        assert_ptr_equal(got->client, w.client);
        assert_string_equal(got->name, "box-1");
        assert_string_equal(got->id, "b-1");
        assert_string_equal(got->template_name, "python");
        assert_string_equal(got->dataplane_url, WORLD_DATAPLANE);
        assert_int_equal(got->state, SBX_STATE_PROVISIONING);
        assert_string_equal(got->status, "provisioning");
        assert_string_equal(got->status_message, "pulling");
        assert_string_equal(got->snapshot_id, "s-9");
        assert_string_equal(got->created_at, "c");
        assert_string_equal(got->updated_at, "u");
        sbx_free(got);
        world_done(&w);
    }
}

static void exclusive_and_wrong_sandbox_options_are_refused(void **state)
{
    static const struct {
        const char *field;
        const char *template_name, *snapshot_id, *snapshot_name, *name;
        int64_t ready_ms, call_ms, idle_ms, delete_ms, mem, fs;
        int vcpus;
        const char *mounts, *proxy;
    } bad[] = {
        {"template_name", "t", "s", NULL, NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL},
        {"template_name", "t", NULL, "n", NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL},
        {"template_name", NULL, "s", "n", NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL},
        {"template_name", "t", "s", "n", NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL},
        {"template_name", "", NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL},
        {"snapshot_id", NULL, "", NULL, NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL},
        {"snapshot_name", NULL, NULL, "", NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL},
        {"name", "t", NULL, NULL, "", 0, 0, 0, 0, 0, 0, 0, NULL, NULL},
        {"template_name", "\xff", NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL},
        {"ready_timeout_ms", "t", NULL, NULL, NULL, -7, 0, 0, 0, 0, 0, 0, NULL, NULL},
        {"timeout_ms", "t", NULL, NULL, NULL, 0, -7, 0, 0, 0, 0, 0, NULL, NULL},
        {"idle_ttl_ms", NULL, NULL, NULL, NULL, 0, 0, -2, 0, 0, 0, 0, NULL, NULL},
        {"idle_ttl_ms", NULL, NULL, NULL, NULL, 0, 0, 59999, 0, 0, 0, 0, NULL, NULL},
        {"idle_ttl_ms", NULL, NULL, NULL, NULL, 0, 0, 60001, 0, 0, 0, 0, NULL, NULL},
        {"delete_after_stop_ms", NULL, NULL, NULL, NULL, 0, 0, 0, 90000, 0, 0, 0, NULL, NULL},
        {"mem_bytes", NULL, NULL, NULL, NULL, 0, 0, 0, 0, -1, 0, 0, NULL, NULL},
        {"fs_capacity_bytes", NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, -1, 0, NULL, NULL},
        {"vcpus", NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, -1, NULL, NULL},
        {"mount_config", NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, "", NULL},
        {"mount_config", NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, "[]", NULL},
        {"mount_config", NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, "{\"a\":1", NULL},
        {"mount_config", NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, "{},\"x\":{}", NULL},
        {"proxy_config", NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, NULL, "null"},
        {"proxy_config", NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, NULL, "{\"a\":\"\xff\"}"},
    };
    sbx_sandbox *got;
    sbx_error err;
    world w;
    size_t i;
    (void)state;
    world_init(&w);
    world_open(&w);
    for (i = 0; i < COUNT(bad); i++) {
        sbx_sandbox_options o = sandbox_options(bad[i].template_name);
        o.snapshot_id = bad[i].snapshot_id;
        o.snapshot_name = bad[i].snapshot_name;
        o.name = bad[i].name;
        o.ready_timeout_ms = bad[i].ready_ms;
        o.call.timeout_ms = bad[i].call_ms;
        o.idle_ttl_ms = bad[i].idle_ms;
        o.delete_after_stop_ms = bad[i].delete_ms;
        o.mem_bytes = bad[i].mem;
        o.fs_capacity_bytes = bad[i].fs;
        o.vcpus = bad[i].vcpus;
        o.mount_config = bad[i].mounts;
        o.proxy_config = bad[i].proxy;
        got = (sbx_sandbox *)&w;
        assert_status(&w, SBX_E_ARGUMENT, sbx_sandbox_create(w.client, &o, &got, &err), &err);
        assert_null(got);
        assert_says(&w, &err, bad[i].field);
        assert_string_equal(err.field, bad[i].field);
    }
    assert_status(&w, SBX_E_ARGUMENT, sbx_sandbox_create(NULL, NULL, &got, &err), &err);
    assert_status(&w, SBX_E_ARGUMENT, sbx_sandbox_create(w.client, NULL, NULL, &err), &err);
    assert_int_equal(w.dials, 0);
    world_done(&w);
}

static void words_for_the_status_are_known(void **state)
{
    static const struct {
        const char *json, *status;
        sbx_state state;
    } cases[] = {
        {"{}", "ready", SBX_STATE_READY},
        {"{\"status\":null}", "ready", SBX_STATE_READY},
        {"{\"status\":\"ready\"}", "ready", SBX_STATE_READY},
        {"{\"status\":\"provisioning\"}", "provisioning", SBX_STATE_PROVISIONING},
        {"{\"status\":\"failed\"}", "failed", SBX_STATE_FAILED},
        {"{\"status\":\"stopped\"}", "stopped", SBX_STATE_STOPPED},
        {"{\"status\":\"hibernating\"}", "hibernating", SBX_STATE_UNKNOWN},
        {"{\"status\":\"READY\"}", "READY", SBX_STATE_UNKNOWN},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        sbx_sandbox *got = NULL;
        sbx_error err;
        world w;
        peer *p;
        world_init(&w);
        p = world_peer(&w);
        peer_request(p, "GET", BASE "/boxes/b");
        peer_reply(p, 200, cases[i].json);
        world_open(&w);
        assert_status(&w, SBX_OK, sbx_sandbox_get(w.client, "b", NULL, &got, &err), &err);
        assert_int_equal(got->state, cases[i].state);
        assert_string_equal(got->status, cases[i].status);
        assert_string_equal(got->name, "");
        assert_string_equal(got->dataplane_url, "");
        assert_string_equal(got->status_message, "");
        assert_string_equal(got->snapshot_id, "");
        sbx_free(got);
        world_done(&w);
    }
}

static void wrong_types_in_a_sandbox_are_protocol_errors(void **state)
{
    static const char *const bodies[] = {
        "{\"name\":1}",
        "{\"dataplane_url\":[]}",
        "{\"status\":{}}",
        "{\"id\":7}",
        "{\"status_message\":false}",
        "[]",
        "null",
        "\"ready\"",
        "{\"status\":\"ready\"",
    };
    size_t i;
    int k;
    (void)state;
    for (i = 0; i < COUNT(bodies); i++) {
        for (k = 0; k < 3; k++) {
            sbx_sandbox_options options = sandbox_options(NULL);
            sbx_sandbox *got = NULL;
            sbx_sandboxes *list = NULL;
            sbx_error err;
            sbx_status st;
            char body[200];
            world w;
            peer *p;
            world_init(&w);
            p = world_peer(&w);
            peer_request(p, k == 1 ? "POST" : "GET", k ? BASE "/boxes" : BASE "/boxes/b");
            snprintf(body, sizeof(body), k == 2 ? "{\"sandboxes\":[%s]}" : "%s", bodies[i]);
            peer_reply(p, 200, body);
            world_open(&w);
            st = k == 2   ? sbx_sandbox_list(w.client, NULL, &list, &err)
                 : k == 1 ? sbx_sandbox_create(w.client, &options, &got, &err)
                          : sbx_sandbox_get(w.client, "b", NULL, &got, &err);
            if (st != SBX_E_PROTOCOL)
                world_fail(&w, "%s for %s", sbx_status_name(st), body);
            check_error(&w, st, &err);
            assert_null(got);
            assert_null(list);
            world_done(&w);
        }
    }
}

static void listed_sandboxes_are_handles(void **state)
{
    sbx_sandboxes *got = NULL;
    sbx_bytes *bytes = NULL;
    sbx_error err;
    world w;
    peer *p;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "GET", BASE "/boxes");
    peer_reply(
        p, 200,
        "{\"sandboxes\":[{\"name\":\"a\"},{\"name\":\"b\",\"dataplane_url\":\"" WORLD_DATAPLANE
        "\",\"status\":\"stopped\"}]}");
    p = world_peer(&w);
    peer_request(p, "GET", "/sb-1/download?path=f");
    peer_reply(p, 200, "data");
    world_open(&w);
    assert_status(&w, SBX_OK, sbx_sandbox_list(w.client, NULL, &got, &err), &err);
    assert_int_equal(got->count, 2);
    assert_ptr_equal(got->items[1].client, w.client);
    assert_string_equal(got->items[0].name, "a");
    assert_int_equal(got->items[0].state, SBX_STATE_READY);
    assert_status(&w, SBX_OK, sbx_read(&got->items[1], "f", NULL, &bytes, &err), &err);
    assert_string_equal(bytes->data, "data");
    sbx_free(bytes);
    sbx_free(got);
    world_done(&w);
}

static void the_status_is_read(void **state)
{
    sbx_sandbox_status *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    peer_request(p, "GET", BASE "/boxes/b/status");
    peer_reply(p, 200, "{\"status\":\"failed\",\"status_message\":\"no such image\",\"x\":[]}");
    peer_request(p, "GET", BASE "/boxes/b/status");
    peer_reply(p, 200, "{\"status\":\"provisioning\",\"status_message\":null}");
    world_open(&w);
    assert_status(&w, SBX_OK, sbx_sandbox_get_status(w.client, "b", NULL, &got, &err), &err);
    assert_int_equal(got->state, SBX_STATE_FAILED);
    assert_string_equal(got->status, "failed");
    assert_string_equal(got->status_message, "no such image");
    sbx_free(got);
    assert_status(&w, SBX_OK, sbx_sandbox_get_status(w.client, "b", NULL, &got, &err), &err);
    assert_int_equal(got->state, SBX_STATE_PROVISIONING);
    assert_string_equal(got->status_message, "");
    sbx_free(got);
    world_done(&w);
}

static void a_sandbox_of_which_nothing_is_said_is_ready(void **state)
{
    static const char *const bodies[] = {"{}", "{\"status\":null,\"status_message\":null}",
                                         "{\"other\":1}"};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(bodies); i++) {
        sbx_sandbox_status *status = NULL;
        sbx_sandbox *got = NULL;
        sbx_error err;
        world w;
        peer *p;
        int64_t start;
        int k;
        world_init(&w);
        p = world_peer(&w);
        for (k = 0; k < 2; k++) {
            peer_request(p, "GET", BASE "/boxes/b/status");
            peer_reply(p, 200, bodies[i]);
        }
        peer_request(p, "GET", BASE "/boxes/b");
        peer_reply(p, 200, "{\"name\":\"b\"}");
        world_open(&w);
        assert_status(&w, SBX_OK, sbx_sandbox_get_status(w.client, "b", NULL, &status, &err), &err);
        assert_int_equal(status->state, SBX_STATE_READY);
        assert_string_equal(status->status, "ready");
        assert_string_equal(status->status_message, "");
        sbx_free(status);
        start = w.now;
        assert_status(&w, SBX_OK, sbx_sandbox_wait(w.client, "b", NULL, &got, &err), &err);
        assert_int_equal(w.now, start);
        assert_string_equal(got->name, "b");
        sbx_free(got);
        world_done(&w);
    }
}

/* ---- waiting ---- */

static void expect_polls(peer *p, int n, const char *status)
{
    char body[100];
    snprintf(body, sizeof(body), "{\"status\":\"%s\"}", status);
    while (n--) {
        peer_request(p, "GET", BASE "/boxes/b/status");
        peer_reply(p, 200, body);
    }
}

static void waiting_polls_until_it_is_ready_and_gets_the_sandbox(void **state)
{
    static const char *const words[] = {"provisioning", "stopped", "something-new"};
    size_t i;
    (void)state;
    for (i = 0; i < 3; i++) {
        sbx_wait_options options;
        sbx_sandbox *got = NULL;
        sbx_error err;
        world w;
        peer *p;
        int64_t start;
        memset(&options, 0, sizeof(options));
        options.poll_interval_ms = i == 2 ? 250 : 0;
        world_init(&w);
        p = world_peer(&w);
        expect_polls(p, 3, words[i]);
        expect_polls(p, 1, "ready");
        peer_request(p, "GET", BASE "/boxes/b");
        peer_reply(p, 200, "{\"name\":\"b\",\"dataplane_url\":\"http://127.0.0.1:9/x\"}");
        world_open(&w);
        start = w.now;
        assert_status(&w, SBX_OK, sbx_sandbox_wait(w.client, "b", i ? &options : NULL, &got, &err),
                      &err);
        assert_int_equal(w.now - start, i == 2 ? 750 : 3000);
        assert_string_equal(got->name, "b");
        assert_int_equal(got->state, SBX_STATE_READY);
        assert_int_equal(w.dials, 1);
        sbx_free(got);
        world_done(&w);
    }
}

static void waiting_ends_when_the_sandbox_failed(void **state)
{
    sbx_sandbox *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    (void)state;
    world_init(&w);
    p = world_peer(&w);
    expect_polls(p, 1, "provisioning");
    peer_request(p, "GET", BASE "/boxes/b/status");
    peer_reply(p, 200, "{\"status\":\"failed\",\"status_message\":\"the image cannot be pulled\"}");
    world_open(&w);
    assert_status(&w, SBX_E_CREATION, sbx_sandbox_wait(w.client, "b", NULL, &got, &err), &err);
    assert_null(got);
    assert_says(&w, &err, "the image cannot be pulled");
    assert_string_equal(err.resource_type, "sandbox");
    assert_string_equal(err.last_status, "failed");
    world_done(&w);
}

static void waiting_does_not_outlast_its_limit(void **state)
{
    static const int64_t limits[] = {1, 999, 1000, 1001, 2500, 0};
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(limits); i++) {
        sbx_wait_options options;
        sbx_sandbox *got = NULL;
        sbx_error err;
        world w;
        peer *p;
        int64_t start, limit = limits[i] ? limits[i] : 120000;
        memset(&options, 0, sizeof(options));
        options.ready_timeout_ms = limits[i];
        world_init(&w);
        p = world_peer(&w);
        expect_polls(p, 200, "provisioning");
        p->optional = 1;
        world_open(&w);
        start = w.now;
        assert_status(&w, SBX_E_RESOURCE_TIMEOUT,
                      sbx_sandbox_wait(w.client, "b", &options, &got, &err), &err);
        assert_null(got);
        assert_int_equal(w.now - start, limit);
        assert_string_equal(err.last_status, "provisioning");
        assert_string_equal(err.resource_type, "sandbox");
        assert_says(&w, &err, "provisioning");
        assert_true(p->requests >= 1);
        assert_between(p->requests, (limit + 999) / 1000, limit / 1000 + 2);
        world_done(&w);
    }
}

static void waiting_without_a_limit_goes_on(void **state)
{
    sbx_wait_options options;
    sbx_sandbox *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    int64_t start;
    (void)state;
    memset(&options, 0, sizeof(options));
    options.ready_timeout_ms = SBX_NONE;
    options.poll_interval_ms = 60000;
    world_init(&w);
    p = world_peer(&w);
    expect_polls(p, 500, "provisioning");
    expect_polls(p, 1, "ready");
    peer_request(p, "GET", BASE "/boxes/b");
    peer_reply(p, 200, "{\"name\":\"b\"}");
    world_open(&w);
    start = w.now;
    assert_status(&w, SBX_OK, sbx_sandbox_wait(w.client, "b", &options, &got, &err), &err);
    assert_int_equal(w.now - start, 500 * 60000);
    sbx_free(got);
    world_done(&w);
}

static void cancel_now(world *w, void *user)
{
    sbx_cancel_set(w->client, (sbx_cancel *)user);
}

static void waiting_obeys_the_deadline_and_the_cancel_of_the_call(void **state)
{
    sbx_wait_options options;
    sbx_cancel cancel = {0};
    sbx_sandbox *got = NULL;
    sbx_error err;
    world w;
    peer *p;
    int64_t start;
    (void)state;
    memset(&options, 0, sizeof(options));
    options.call.timeout_ms = 1500;
    world_init(&w);
    p = world_peer(&w);
    expect_polls(p, 20, "provisioning");
    p->optional = 1;
    world_open(&w);
    start = w.now;
    assert_status(&w, SBX_E_TIMEOUT, sbx_sandbox_wait(w.client, "b", &options, &got, &err), &err);
    assert_int_equal(w.now - start, 1500);
    options.call.timeout_ms = 0;
    options.call.cancel = &cancel;
    start = w.now;
    world_at(&w, 3300, cancel_now, &cancel);
    assert_status(&w, SBX_E_CANCELLED, sbx_sandbox_wait(w.client, "b", &options, &got, &err), &err);
    assert_int_equal(w.now - start, 3300);
    assert_null(got);
    world_done(&w);
}

/* Answers the polls of a sandbox: once 503, then ready, then not found. */
static void serve_troubled_polls(peer *p, void *user)
{
    int *polls = (int *)user;
    int status = strstr(p->request.target, "/status") != NULL;
    peer_take_request(p);
    if (!status)
        peer_reply(p, 200, "{\"name\":\"b\"}");
    else if (++*polls == 1)
        peer_reply(p, 503, "");
    else if (*polls == 2)
        peer_reply(p, 200, "{\"status\":\"ready\"}");
    else
        peer_reply(p, 404, "{\"detail\":\"gone\"}");
}

static void waiting_survives_errors_that_pass_and_reports_others(void **state)
{
    sbx_sandbox *got = NULL;
    sbx_error err;
    world w;
    int polls = 0;
    (void)state;
    world_init(&w);
    w.serve = serve_troubled_polls;
    w.serve_user = &polls;
    world_open(&w);
    assert_status(&w, SBX_OK, sbx_sandbox_wait(w.client, "b", NULL, &got, &err), &err);
    sbx_free(got);
    assert_int_equal(polls, 2);
    assert_status(&w, SBX_E_NOT_FOUND, sbx_sandbox_wait(w.client, "b", NULL, &got, &err), &err);
    assert_string_equal(err.resource_type, "sandbox");
    world_done(&w);
}

/* Answers the polls of a sandbox that never gets ready: first so many times that it is provisioned,
   then with refusals. */
typedef struct refusals {
    int polls, provisioning, status;
    const char *extra;
} refusals;

static void serve_refusals(peer *p, void *user)
{
    refusals *r = (refusals *)user;
    peer_take_request(p);
    if (r->polls++ < r->provisioning)
        peer_reply(p, 200, "{\"status\":\"provisioning\"}");
    else
        peer_reply_with(p, r->status, r->extra, "{\"detail\":\"busy\"}");
}

static void waiting_for_a_busy_service_does_not_outlast_its_limit(void **state)
{
    static const refusals cases[] = {
        {0, 0, 429, "Retry-After: 60\r\n"},
        {0, 1, 429, "Retry-After: 60\r\n"},
        {0, 0, 429, NULL},
        {0, 0, 503, NULL},
        {0, 1, 503, NULL},
        {0, 1, 502, NULL},
    };
    size_t i;
    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        refusals r = cases[i];
        sbx_wait_options options;
        sbx_sandbox *got = NULL;
        sbx_error err;
        world w;
        int64_t start;
        memset(&options, 0, sizeof(options));
        options.ready_timeout_ms = 2000;
        world_init(&w);
        w.serve = serve_refusals;
        w.serve_user = &r;
        world_open(&w);
        start = w.now;
        assert_status(&w, SBX_E_RESOURCE_TIMEOUT,
                      sbx_sandbox_wait(w.client, "b", &options, &got, &err), &err);
        assert_null(got);
        assert_int_equal(w.now - start, 2000);
        assert_string_equal(err.resource_type, "sandbox");
        assert_string_equal(err.last_status, r.provisioning ? "provisioning" : "");
        assert_between(r.polls, r.provisioning + 1, 5);
        world_done(&w);
    }
}

static void wrong_wait_options_are_refused(void **state)
{
    sbx_wait_options options;
    sbx_sandbox *got = NULL;
    sbx_error err;
    world w;
    (void)state;
    memset(&options, 0, sizeof(options));
    world_init(&w);
    world_open(&w);
    options.ready_timeout_ms = -2;
    assert_status(&w, SBX_E_ARGUMENT, sbx_sandbox_wait(w.client, "b", &options, &got, &err), &err);
    assert_says(&w, &err, "ready_timeout_ms");
    options.ready_timeout_ms = 0;
    options.poll_interval_ms = -1;
    assert_status(&w, SBX_E_ARGUMENT, sbx_sandbox_wait(w.client, "b", &options, &got, &err), &err);
    assert_says(&w, &err, "poll_interval_ms");
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_template_is_created_with_the_defaults),
        cmocka_unit_test(a_template_is_created_with_everything),
        cmocka_unit_test(wrong_template_options_are_refused),
        cmocka_unit_test(answers_take_defaults_for_what_is_absent_or_null),
        cmocka_unit_test(texts_are_unescaped_and_the_last_of_equal_members_wins),
        cmocka_unit_test(keys_that_look_like_paths_are_unknown_members),
        cmocka_unit_test(templates_are_listed),
        cmocka_unit_test(a_long_list_is_read),
        cmocka_unit_test(things_are_deleted_whatever_the_answer_holds),
        cmocka_unit_test(a_deletion_that_was_only_refused_before_does_not_explain_a_404),
        cmocka_unit_test(a_deletion_whose_answer_was_lost_explains_a_404),
        cmocka_unit_test(sandboxes_are_created_in_every_way),
        cmocka_unit_test(exclusive_and_wrong_sandbox_options_are_refused),
        cmocka_unit_test(words_for_the_status_are_known),
        cmocka_unit_test(wrong_types_in_a_sandbox_are_protocol_errors),
        cmocka_unit_test(listed_sandboxes_are_handles),
        cmocka_unit_test(the_status_is_read),
        cmocka_unit_test(a_sandbox_of_which_nothing_is_said_is_ready),
        cmocka_unit_test(waiting_polls_until_it_is_ready_and_gets_the_sandbox),
        cmocka_unit_test(waiting_ends_when_the_sandbox_failed),
        cmocka_unit_test(waiting_does_not_outlast_its_limit),
        cmocka_unit_test(waiting_without_a_limit_goes_on),
        cmocka_unit_test(waiting_obeys_the_deadline_and_the_cancel_of_the_call),
        cmocka_unit_test(waiting_survives_errors_that_pass_and_reports_others),
        cmocka_unit_test(waiting_for_a_busy_service_does_not_outlast_its_limit),
        cmocka_unit_test(wrong_wait_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
