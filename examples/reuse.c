/* Reusing a sandbox: one that stays until it is deleted, found again by its name. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

/* Knows no more than the name, as another program would. */
static sbx_status say_hello(sbx_client *client, const char *name, sbx_error *err)
{
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_status status = sbx_sandbox_get(client, name, NULL, &sandbox, err);
    if (status != SBX_OK)
        return status;
    status = sbx_run(sandbox, "echo 'Still running!'", NULL, &result, err);
    if (status == SBX_OK)
        printf("%s", result->out); /* Still running! */
    sbx_free(result);
    sbx_free(sandbox); /* the handle; the sandbox itself stays */
    return status;
}

static sbx_status look_for(sbx_client *client, const char *name, sbx_error *err)
{
    sbx_sandboxes *list;
    sbx_status status = sbx_sandbox_list(client, NULL, &list, err);
    size_t i;
    if (status != SBX_OK)
        return status;
    for (i = 0; i < list->count; i++)
        if (strcmp(list->items[i].name, name) == 0)
            printf("in the list: %s\n", list->items[i].status); /* ready */
    sbx_free(list);                                             /* with all its items */
    return SBX_OK;
}

static sbx_status rename_it(sbx_client *client, const char *name, const char *new_name,
                            sbx_error *err)
{
    sbx_sandbox_update_options options = {0};
    sbx_sandbox *renamed;
    sbx_status status;

    options.new_name = new_name;
    status = sbx_sandbox_update(client, name, &options, &renamed, err);
    if (status == SBX_OK)
        printf("renamed: %s\n", strcmp(renamed->name, new_name) == 0 ? "true" : "false");
    sbx_free(renamed);
    return status;
}

static sbx_status body(sbx_client *client, sbx_error *err)
{
    sbx_sandbox_options options = {0};
    sbx_sandbox *sandbox;
    sbx_status status, deleted;
    char name[64], new_name[64];

    own_name(new_name, sizeof(new_name), "renamed");
    options.template_name = getenv("SANDBOX_TEMPLATE"); /* NULL: the service's default */
    status = sbx_sandbox_create(client, &options, &sandbox, err);
    if (status != SBX_OK)
        return status;
    snprintf(name, sizeof(name), "%s", sandbox->name);
    printf("%s\n", name); /* such as sandbox-abc123 */
    sbx_free(sandbox);

    status = look_for(client, name, err);
    if (status == SBX_OK)
        status = say_hello(client, name, err);
    if (status == SBX_OK)
        status = rename_it(client, name, new_name, err);
    /* It costs money until somebody deletes it. */
    deleted = sbx_sandbox_delete(client, status == SBX_OK ? new_name : name, NULL,
                                 status == SBX_OK ? err : NULL);
    return status == SBX_OK ? deleted : status;
}

int main(void)
{
    return with_client(body);
}
