/* Templates: image and resources that sandboxes are made from. */
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

/* While a sandbox refers to it, a template cannot be deleted. */
static sbx_status try_to_delete(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    if (sbx_template_delete(sandbox->client, sandbox->template_name, NULL, err) == SBX_E_IN_USE)
        printf("in use: it cannot be deleted\n");
    (void)user;
    return SBX_OK;
}

static sbx_status list(sbx_client *client, const char *name, sbx_error *err)
{
    sbx_templates *all;
    sbx_status status = sbx_template_list(client, NULL, &all, err);
    size_t i;
    if (status != SBX_OK)
        return status;
    for (i = 0; i < all->count; i++)
        if (strcmp(all->items[i].name, name) == 0)
            printf("in the list\n");
    sbx_free(all);
    return SBX_OK;
}

static sbx_status show(sbx_client *client, const char *name, sbx_error *err)
{
    sbx_template *one;
    sbx_status status = sbx_template_get(client, name, NULL, &one, err);
    if (status == SBX_OK)
        printf("image %s, cpu %s, memory %s\n", one->image, one->cpu, one->memory);
    sbx_free(one);
    return status;
}

static sbx_status rename_it(sbx_client *client, const char *name, const char *new_name,
                            sbx_error *err)
{
    sbx_template_update_options options = {0};
    sbx_template *renamed;
    sbx_status status;

    options.new_name = new_name;
    status = sbx_template_update(client, name, &options, &renamed, err);
    sbx_free(renamed);
    return status;
}

static sbx_status body(sbx_client *client, sbx_error *err)
{
    sbx_template_options options = {0};
    sbx_template *made;
    sbx_status status, deleted;
    char name[64], new_name[64];
    const char *now = name;

    own_name(name, sizeof(name), "my-python-env");
    own_name(new_name, sizeof(new_name), "python-env-v2");
    options.name = name;
    options.image = "python:3.12-slim"; /* any Docker image; node:20-slim, ubuntu:24.04, .. */
    options.cpu = "1";                  /* the default is 500m, half a CPU */
    options.memory = "1Gi";             /* the default is 512Mi */
    status = sbx_template_create(client, &options, &made, err);
    sbx_free(made);
    if (status != SBX_OK)
        return status;
    status = with_sandbox(client, name, print_version, err);
    if (status == SBX_OK)
        status = list(client, name, err);
    if (status == SBX_OK)
        status = show(client, name, err);
    if (status == SBX_OK)
        status = rename_it(client, name, new_name, err);
    if (status == SBX_OK) {
        now = new_name;
        status = with_sandbox(client, now, try_to_delete, err);
    }
    deleted = sbx_template_delete(client, now, NULL, status == SBX_OK ? err : NULL);
    if (deleted == SBX_OK)
        printf("deleted\n");
    return status == SBX_OK ? deleted : status;
}

int main(void)
{
    return with_client(body);
}
