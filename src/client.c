/* client: configuration, the environment, and the life of a client.

   Promises: one function resolves the defaults, one validates; the key is wiped at the end. */
#include "internal.h"

#define SBXI_DEFAULT_ENDPOINT "https://api.smith.langchain.com"
#define SBXI_ENDPOINT_PATH "/v2/sandboxes"

/* ---- the environment ---- */

#ifndef SBX_NO_ENV
/* The value of LANGSMITH_suffix, else of LANGCHAIN_suffix; NULL where both are blank. */
static const char *sbxi_env(const char *langsmith, const char *langchain)
{
    const char *value = getenv(langsmith);
    if (!value || !value[strspn(value, " \t\r\n\v\f")])
        value = getenv(langchain);
    return value && value[strspn(value, " \t\r\n\v\f")] ? value : NULL;
}
#endif

/* ---- checks and defaults ---- */

static sbx_status sbxi_config_check(const sbx_config *config, sbx_error *err)
{
    const sbx_transport *t = config->transport;
    if (!t)
        return sbxi_fail_argument(err, "transport",
                                  "is required: sbx_posix() of sandbox_posix.h is one");
    if (!t->dial || !t->now_ms || !t->entropy)
        return sbxi_fail_argument(err, "transport", "must have the hooks dial, now_ms and entropy");
    if (!config->allocator.resize && config->allocator.user)
        return sbxi_fail_argument(err, "allocator", "has a user pointer but no resize function");
#ifdef SBX_NO_STDLIB
    if (!config->allocator.resize)
        return sbxi_fail_argument(err, "allocator", "is required in a build with SBX_NO_STDLIB");
#endif
    if (config->max_retries < SBX_NONE)
        return sbxi_fail_argument(err, "max_retries", "must be 0, SBX_NONE or positive");
    return sbxi_check_time("timeout_ms", config->timeout_ms, err);
}

static void sbxi_config_defaults(sbx_client *c, const sbx_config *config)
{
    c->transport = config->transport;
    c->timeout_ms = config->timeout_ms ? config->timeout_ms : 10000;
    c->max_retries = config->max_retries == 0  ? 3
                     : config->max_retries < 0 ? 0
                                               : config->max_retries;
    c->max_body = config->max_body ? config->max_body : SBXI_MAX_BODY;
    if (c->max_body > SIZE_MAX / 2)
        c->max_body = SIZE_MAX / 2;
    c->max_message = config->max_message ? config->max_message : SBXI_MAX_MESSAGE;
    c->log = config->log;
    c->log_user = config->log_user;
}

/* Copies a, then b, without white space around the whole and without slashes at its end. */
static char *sbxi_join_trimmed(const sbx_allocator *memory, const char *a, const char *b)
{
    size_t a_len, b_len = strlen(b);
    char *text;
    a += strspn(a, " \t\r\n\v\f");
    a_len = strlen(a);
    while (a_len && strchr(" \t\r\n\v\f", a[a_len - 1]))
        a_len--;
    while (a_len && a[a_len - 1] == '/')
        a_len--;
    text = (char *)sbxi_alloc(memory, a_len + b_len + 1);
    if (text) {
        memcpy(text, a, a_len);
        memcpy(text + a_len, b, b_len + 1);
    }
    return text;
}

/* A URL that cannot be used; problem is a sentence of the URL codec. */
static sbx_status sbxi_fail_url(sbx_error *err, const char *field, const char *from,
                                const char *problem)
{
    (void)sbxi_fail(err, SBX_E_ARGUMENT, "%s%s: %s", field, from, problem);
    if (err)
        sbxi_copy(err->field, sizeof(err->field), field, strlen(field));
    return SBX_E_ARGUMENT;
}

static sbx_status sbxi_client_endpoint(sbx_client *c, const char *endpoint, sbx_error *err)
{
    const char *problem = NULL, *suffix = "", *from = "";
    sbx_url url;
    if (endpoint && sbx_url_parse(endpoint, strlen(endpoint), &url, &problem) != SBX_OK)
        return sbxi_fail_url(err, "endpoint", from, problem);
    if (!endpoint) {
        suffix = SBXI_ENDPOINT_PATH;
        endpoint = SBXI_DEFAULT_ENDPOINT;
#ifndef SBX_NO_ENV
        if (sbxi_env("LANGSMITH_ENDPOINT", "LANGCHAIN_ENDPOINT")) {
            endpoint = sbxi_env("LANGSMITH_ENDPOINT", "LANGCHAIN_ENDPOINT");
            from = " (from LANGSMITH_ENDPOINT or LANGCHAIN_ENDPOINT)";
        }
#endif
    }
    c->endpoint = sbxi_join_trimmed(&c->memory, endpoint, suffix);
    if (!c->endpoint)
        return sbxi_fail_memory(err);
    problem = NULL;
    if (sbx_url_parse(c->endpoint, strlen(c->endpoint), &url, &problem) == SBX_OK && url.query_len)
        problem = "the URL must not have a query";
    if (problem)
        return sbxi_fail_url(err, "endpoint", from, problem);
    c->endpoint_tls = url.tls;
    return SBX_OK;
}

static sbx_status sbxi_client_key(sbx_client *c, const char *key, sbx_error *err)
{
#ifndef SBX_NO_ENV
    if (!key)
        key = sbxi_env("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY");
#endif
    if (key && sbxi_has_control(key))
        return sbxi_fail_argument(err, "api_key",
                                  "(or LANGSMITH_API_KEY) must not hold control characters");
    if (key && *key) {
        size_t size = strlen(key) + 1;
        c->api_key = (char *)sbxi_alloc(&c->memory, size);
        if (!c->api_key)
            return sbxi_fail_memory(err);
        memcpy(c->api_key, key, size);
    }
    return SBX_OK;
}

/* ---- life ---- */

static void sbxi_client_free(sbx_client *c)
{
    sbx_allocator memory = c->memory;
    if (c->api_key) {
        size_t size = strlen(c->api_key) + 1;
        sbxi_wipe(c->api_key, size);
        sbxi_release(&memory, c->api_key, size);
    }
    if (c->headers) {
        sbxi_wipe(c->headers, c->headers_size);
        sbxi_release(&memory, c->headers, c->headers_size);
    }
    if (c->endpoint)
        sbxi_release(&memory, c->endpoint, strlen(c->endpoint) + 1);
    sbxi_release(&memory, c, sizeof(*c));
}

SBX_API sbx_status sbx_open(const sbx_config *config, sbx_client **out, sbx_error *err)
{
    sbx_allocator memory;
    sbx_client *c;
    sbx_status st;
    st = sbxi_check_out(config, out, err);
    if (st != SBX_OK)
        return st;
    st = sbxi_config_check(config, err);
    if (st != SBX_OK)
        return st;
    memory = config->allocator;
#ifndef SBX_NO_STDLIB
    if (!memory.resize)
        memory.resize = sbxi_default_resize;
#endif
    c = (sbx_client *)sbxi_alloc(&memory, sizeof(*c));
    if (!c)
        return sbxi_fail_memory(err);
    memset(c, 0, sizeof(*c));
    c->memory = memory;
    sbxi_config_defaults(c, config);
    st = sbxi_headers_make(&c->memory, config->headers, NULL, &c->headers, &c->headers_size, err);
    if (st == SBX_OK)
        st = sbxi_client_endpoint(c, config->endpoint, err);
    if (st == SBX_OK)
        st = sbxi_client_key(c, config->api_key, err);
    c->state = config->transport->user;
    if (st == SBX_OK && config->transport->open) {
        st = config->transport->open(config->transport->user, &c->state);
        if (st != SBX_OK)
            (void)sbxi_fail(err, st, "the transport could not be opened: %s", sbx_status_name(st));
    }
    if (st != SBX_OK) {
        sbxi_client_free(c);
        return st;
    }
    c->clock = 1;
    c->clock_raw = c->transport->now_ms(c->state);
    *out = c;
    return SBX_OK;
}

SBX_API void sbx_close(sbx_client *client)
{
    if (!client)
        return;
    sbxi_pool_clear(client);
    if (client->transport->close)
        client->transport->close(client->state);
    sbxi_client_free(client);
}

SBX_API sbx_status sbx_sandbox_at(sbx_client *client, const char *dataplane_url, sbx_sandbox **out,
                                  sbx_error *err)
{
    const char *problem = "";
    sbx_url url;
    sbx_sandbox *sandbox;
    size_t size;
    sbx_status st = sbxi_check_out(client, out, err);
    if (st != SBX_OK)
        return st;
    if (!dataplane_url)
        return sbxi_fail_argument(err, "dataplane_url", "is required");
    size = strlen(dataplane_url) + 1;
    if (sbx_url_parse(dataplane_url, size - 1, &url, &problem) != SBX_OK)
        return sbxi_fail_url(err, "dataplane_url", "", problem);
    if (url.query_len)
        return sbxi_fail_url(err, "dataplane_url", "", "the URL must not have a query");
    sandbox = (sbx_sandbox *)sbxi_object(&client->memory, sizeof(*sandbox) + size);
    if (!sandbox)
        return sbxi_fail_memory(err);
    memcpy(sandbox + 1, dataplane_url, size);
    sandbox->client = client;
    sandbox->dataplane_url = (const char *)(sandbox + 1);
    sandbox->state = SBX_STATE_READY;
    sandbox->status = "ready";
    sandbox->name = sandbox->id = sandbox->status_message = sandbox->template_name =
        sandbox->snapshot_id = sandbox->created_at = sandbox->updated_at = "";
    *out = sandbox;
    return SBX_OK;
}
