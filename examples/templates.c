/* Templates: image and resources that sandboxes are made from. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static sbx_status show(sbx_client *client, const char *name, sbx_error *err)
{
    sbx_template *one;
    sbx_templates *all;
    sbx_status status;
    size_t i;

    status = sbx_template_get(client, name, NULL, &one, err);
    if (status != SBX_OK)
        return status;
    printf("image %s, cpu %s, memory %s\n", one->image, one->cpu, one->memory);
    sbx_free(one);

    status = sbx_template_list(client, NULL, &all, err);
    if (status != SBX_OK)
        return status;
    for (i = 0; i < all->count; i++)
        if (strcmp(all->items[i].name, name) == 0)
            printf("it is in the list\n");
    sbx_free(all);
    return SBX_OK;
}

/* While a sandbox refers to it, a template cannot be deleted. */
static sbx_status use(sbx_client *client, const char *name, sbx_error *err)
{
    sbx_sandbox_options options = {0};
    sbx_sandbox *sandbox = NULL;
    sbx_status status, deleted;

    options.template_name = name;
    options.name = name;
    status = sbx_sandbox_create(client, &options, &sandbox, err);
    if (status == SBX_OK) {
        printf("a sandbox was made from it: %s\n",
               strcmp(sandbox->template_name, name) == 0 ? "true" : "false");
        if (sbx_template_delete(client, name, NULL, err) == SBX_E_IN_USE)
            printf("it cannot be deleted: it is in use\n");
    }
    deleted = sbx_sandbox_delete(client, name, NULL, status == SBX_OK ? err : NULL);
    sbx_free(sandbox);
    return status == SBX_OK ? deleted : status;
}

static sbx_status with_template(sbx_client *client, const char *name, sbx_error *err)
{
    sbx_template_options options = {0};
    sbx_template *made = NULL;
    sbx_status status, deleted;

    options.name = name;
    options.image = "python:3.12-slim"; /* any Docker image */
    options.cpu = "1";                  /* the default is 500m, half a CPU */
    options.memory = "1Gi";             /* the default is 512Mi */
    status = sbx_template_create(client, &options, &made, err);
    if (status == SBX_OK)
        status = show(client, name, err);
    if (status == SBX_OK)
        status = use(client, name, err);
    deleted = sbx_template_delete(client, name, NULL, status == SBX_OK ? err : NULL);
    if (deleted == SBX_OK)
        printf("deleted\n");
    sbx_free(made);
    return status == SBX_OK ? deleted : status;
}

int main(void)
{
    sbx_config config = {0};
    sbx_client *client;
    sbx_error err;
    sbx_status status;
    char name[64];

    config.transport = sbx_posix();
    status = sbx_open(&config, &client, &err);
    if (status == SBX_OK) {
        snprintf(name, sizeof(name), "templates-%ld-%ld", (long)time(NULL), (long)getpid());
        status = with_template(client, name, &err);
        sbx_close(client);
    }
    if (status != SBX_OK)
        fprintf(stderr, "templates: %s\n", err.message);
    return status == SBX_OK ? 0 : 1;
}
