/* Volumes: files that outlive the sandbox that wrote them.

   Each function undoes at its end what it did at its start. */
#define SANDBOX_IMPLEMENTATION
#include "sandbox.h"
#include "sandbox_posix.h"

#include "example.h"

static sbx_status write_state(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    (void)user;
    return sbx_write(sandbox, "/data/state.txt", "persistent data", 15, NULL, err);
}

static sbx_status read_state(void *user, const sbx_sandbox *sandbox, sbx_error *err)
{
    sbx_bytes *content;
    sbx_status status = sbx_read(sandbox, "/data/state.txt", NULL, &content, err);
    (void)user;
    if (status == SBX_OK)
        printf("%s\n", content->data); /* persistent data */
    sbx_free(content);
    return status;
}

/* A template with the volume mounted, and two sandboxes, one after the other. */
static sbx_status use_template(sbx_client *client, const char *volume, sbx_error *err)
{
    sbx_volume_mount mount = {NULL, "/data"};
    sbx_template_options options = {0};
    sbx_template *made;
    sbx_status status, deleted;
    char name[64];

    own_name(name, sizeof(name), "stateful-sandbox");
    mount.volume_name = volume;
    options.name = name;
    options.image = "python:3.12-slim";
    options.volume_mounts = &mount;
    options.volume_mount_count = 1;
    status = sbx_template_create(client, &options, &made, err);
    sbx_free(made);
    if (status != SBX_OK)
        return status;
    status = with_sandbox(client, name, write_state, err);
    if (status == SBX_OK)
        status = with_sandbox(client, name, read_state, err);
    deleted = sbx_template_delete(client, name, NULL, status == SBX_OK ? err : NULL);
    return status == SBX_OK ? deleted : status;
}

static sbx_status grow(sbx_client *client, const char *name, sbx_error *err)
{
    sbx_volume_update_options options = {0};
    sbx_volume *volume;
    sbx_status status;

    options.size = "2Gi"; /* volumes do not shrink */
    status = sbx_volume_update(client, name, &options, &volume, err);
    if (status == SBX_OK)
        printf("it has %s now\n", volume->size);
    sbx_free(volume);
    return status;
}

static sbx_status body(sbx_client *client, sbx_error *err)
{
    sbx_volume_options options = {0};
    sbx_volume *made;
    sbx_status status, deleted;
    char name[64];

    own_name(name, sizeof(name), "my-data");
    options.name = name;
    options.size = "1Gi";
    status = sbx_volume_create(client, &options, &made, err);
    sbx_free(made);
    if (status != SBX_OK)
        return status;
    status = use_template(client, name, err);
    if (status == SBX_OK)
        status = grow(client, name, err);
    deleted = sbx_volume_delete(client, name, NULL, status == SBX_OK ? err : NULL);
    return status == SBX_OK ? deleted : status;
}

int main(void)
{
    return with_client(body);
}
