/* Listing the sandboxes that there are, and using one of them by its name. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "with_sandbox.h"

#include <string.h>

/* Any sandbox would do that some other program left running; here it is the one from with_sandbox,
   of which this function knows no more than the name. */
static sbx_status reuse(sbx_client *client, const char *name, sbx_error *err)
{
    sbx_sandbox *sandbox;
    sbx_result *result;
    sbx_status status = sbx_sandbox_get(client, name, NULL, &sandbox, err);
    if (status != SBX_OK)
        return status;
    status = sbx_run(sandbox, "echo 'Still running!'", NULL, &result, err);
    if (status == SBX_OK) {
        printf("%s", result->out); /* Still running! */
        sbx_free(result);
    }
    sbx_free(sandbox); /* the handle; the sandbox itself stays until sbx_sandbox_delete */
    return status;
}

static sbx_status body(const sbx_sandbox *made, sbx_error *err)
{
    sbx_sandboxes *list;
    sbx_status status;
    size_t i;
    int found = 0;

    status = sbx_sandbox_list(made->client, NULL, &list, err);
    if (status != SBX_OK)
        return status;
    for (i = 0; i < list->count; i++) {
        const sbx_sandbox *sandbox = &list->items[i];
        printf("%s is %s\n", sandbox->name, sandbox->status);
        if (strcmp(sandbox->name, made->name) == 0 && sandbox->state == SBX_STATE_READY)
            found = 1;
    }
    sbx_free(list); /* with all its items */
    printf("ours is %sin the list\n", found ? "" : "not ");

    return reuse(made->client, made->name, err);
}

int main(void)
{
    return with_sandbox(body);
}
