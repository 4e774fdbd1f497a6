/* Pools: sandboxes that are started before anybody asks for them.

   Each function undoes at its end what it did at its start. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

static sbx_status print_version(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_result *result;
    sbx_status status = sbx_run(sandbox, "python --version", NULL, &result, err);
    (void)user;
    if (status == SBX_OK)
        printf("%s", result->out); /* Python 3.12.4 */
    sbx_free(result);
    return status;
}

static sbx_status scale(sbx_client *client, const char *name, sbx_error *err)
{
    sbx_pool_update_options options = {0};
    sbx_pool *pool;
    sbx_status status;

    options.replicas = 3; /* SBX_NONE would pause it */
    status = sbx_pool_update(client, name, &options, &pool, err);
    if (status == SBX_OK)
        printf("%d replicas\n", pool->replicas);
    sbx_free(pool);
    return status;
}

static sbx_status use_pool(sbx_client *client, const char *template_name, sbx_error *err)
{
    sbx_pool_options options = {0};
    sbx_pool *pool;
    sbx_status status, deleted;
    char name[64];

    own_name(name, sizeof(name), "python-pool");
    options.name = name;
    options.template_name = template_name;
    options.replicas = 2;
    status = sbx_pool_create(client, &options, &pool, err); /* returns when they are started */
    if (status != SBX_OK)
        return status;
    printf("%d replicas\n", pool->replicas);
    sbx_free(pool);

    /* As ever; now it takes one from the pool. */
    status = with_sandbox(client, template_name, print_version, err);
    if (status == SBX_OK)
        status = scale(client, name, err);
    deleted = sbx_pool_delete(client, name, NULL, status == SBX_OK ? err : NULL);
    return status == SBX_OK ? deleted : status;
}

static sbx_status body(sbx_client *client, sbx_error *err)
{
    sbx_template_options options = {0};
    sbx_template *made;
    sbx_status status, deleted;
    char name[64];

    own_name(name, sizeof(name), "fast-python");
    options.name = name;
    options.image = "python:3.12-slim"; /* and no volumes: pools do not have them */
    status = sbx_template_create(client, &options, &made, err);
    sbx_free(made);
    if (status != SBX_OK)
        return status;
    status = use_pool(client, name, err);
    deleted = sbx_template_delete(client, name, NULL, status == SBX_OK ? err : NULL);
    return status == SBX_OK ? deleted : status;
}

int main(void)
{
    return with_client(body);
}
