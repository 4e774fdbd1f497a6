#!/usr/bin/env python3
"""The Python clients of March 2026: templates, volumes and pools."""

import os

import shared
from shared import done, equal, expect, fresh, raises, sdk

PLAIN = "plain"


# ---- templates ----

async def template(case, **options):
    """A template with a name of its own."""
    return await done(case.client.create_template(fresh("template"), "any:image", **options))


async def templates(case):
    """templates are made, found, listed, renamed and deleted"""
    name, other = fresh("template"), fresh("template")
    made = await done(case.client.create_template(name, "python:3.12-slim", cpu="250m",
                                                  memory="256Mi", storage="1Gi"))
    equal((made.name, made.image), (name, "python:3.12-slim"), "what was made")
    equal((made.resources.cpu, made.resources.memory, made.resources.storage),
          ("250m", "256Mi", "1Gi"), "its resources")
    expect(made.id and made.created_at and made.updated_at, f"something is missing: {made}")
    equal((await done(case.client.get_template(name))).id, made.id, "what was found")
    expect(made.id in [one.id for one in await done(case.client.list_templates())],
           "it is not in the list")
    renamed = await done(case.client.update_template(name, new_name=other))
    equal((renamed.name, renamed.id), (other, made.id), "what was renamed")
    box = await done(case.client.create_sandbox(template_name=other))
    equal(box.template_name, other, "the sandbox's template")
    with raises(sdk.ResourceInUseError, other, resource_type="template"):
        await done(case.client.delete_template(other))
    await done(case.client.delete_sandbox(box.name))
    await done(case.client.delete_template(other))
    for lost in (case.client.get_template, case.client.delete_template):
        with raises(sdk.ResourceNotFoundError, other, resource_type="template"):
            await done(lost(other))
    with raises(sdk.ResourceNotFoundError, other, resource_type="template"):
        await done(case.client.update_template(other, new_name=name))
    with raises(sdk.ResourceNotFoundError, other):
        await done(case.client.create_sandbox(template_name=other))


async def template_defaults(case):
    """a template has resources even if none are asked for"""
    made = await template(case)
    equal((made.resources.cpu, made.resources.memory, made.resources.storage, made.volume_mounts),
          ("500m", "512Mi", None, []), "the defaults")


async def template_errors(case):
    """bad templates, and names that are taken, are errors"""
    first, second = await template(case), await template(case)
    with raises(sdk.SandboxClientError, first.name):
        await done(case.client.create_template(first.name, "any:image"))
    with raises(sdk.ResourceNameConflictError, first.name, resource_type="template"):
        await done(case.client.update_template(second.name, new_name=first.name))
    with raises(sdk.ValidationError, field="cpu"):
        await template(case, cpu="plenty")
    with raises(sdk.ValidationError, field="memory"):
        await template(case, memory="1 elephant")


async def no_image(case):
    """an image that does not exist is an error of creation"""
    client = case.connect(api_endpoint=os.environ["INTEROP_IMAGES"] + "/v2/sandboxes")
    made = await done(client.create_template(fresh("template"), "absent:1"))
    with raises(sdk.ResourceCreationError, "absent:1", resource_type="sandbox",
                error_type="ImagePull"):
        await done(client.create_sandbox(template_name=made.name))


async def over_http(case):
    """what run falls back to without WebSockets gives the same result"""
    box = await case.sandbox()
    ended = await done(box._run_http("echo $A; echo e >&2; pwd; exit 3", timeout=10,
                                     env={"A": "ä"}, cwd="/tmp", shell="/bin/sh"))
    equal((ended.stdout, ended.stderr, ended.exit_code), ("ä\n/tmp\n", "e\n", 3), "the result")


# ---- volumes ----

async def volumes(case):
    """volumes are made, found, listed, renamed, enlarged and deleted"""
    name, other = fresh("volume"), fresh("volume")
    made = await done(case.client.create_volume(name, "1Gi", timeout=10))
    equal((made.name, made.size), (name, "1Gi"), "what was made")
    expect(made.id and made.created_at and made.updated_at, f"something is missing: {made}")
    equal((await done(case.client.get_volume(name))).id, made.id, "what was found")
    expect(made.id in [one.id for one in await done(case.client.list_volumes())],
           "it is not in the list")
    changed = await done(case.client.update_volume(name, new_name=other))
    equal((changed.name, changed.size, changed.id), (other, "1Gi", made.id), "what was renamed")
    changed = await done(case.client.update_volume(other, size="2Gi"))
    equal((changed.name, changed.size), (other, "2Gi"), "what was enlarged")
    changed = await done(case.client.update_volume(other, new_name=name, size="3Gi"))
    equal((changed.name, changed.size), (name, "3Gi"), "what was changed twice")
    equal((await done(case.client.update_volume(name))).size, "3Gi", "what was not changed")
    with raises(sdk.ValidationError, error_type="VolumeResize"):
        await done(case.client.update_volume(name, size="2Gi"))
    await done(case.client.delete_volume(name))
    for lost in (case.client.get_volume, case.client.delete_volume):
        with raises(sdk.ResourceNotFoundError, name, resource_type="volume"):
            await done(lost(name))
    with raises(sdk.ResourceNotFoundError, name, resource_type="volume"):
        await done(case.client.update_volume(name, size="4Gi"))


async def volume_errors(case):
    """bad volumes, and names that are taken, are errors"""
    first = await done(case.client.create_volume(fresh("volume"), "10Mi"))
    second = await done(case.client.create_volume(fresh("volume"), "10Mi"))
    with raises(sdk.SandboxClientError, first.name):
        await done(case.client.create_volume(first.name, "10Mi"))
    with raises(sdk.ResourceNameConflictError, first.name, resource_type="volume"):
        await done(case.client.update_volume(second.name, new_name=first.name))
    with raises(sdk.ValidationError, field="size"):
        await done(case.client.create_volume(fresh("volume"), "big"))


async def persistence(case):
    """what is written to a volume is there in the next sandbox"""
    volume = await done(case.client.create_volume(fresh("volume"), "10Mi"))
    mount = sdk.VolumeMountSpec(volume_name=volume.name, mount_path="/data/deep")
    made = await template(case, volume_mounts=[mount])
    equal([(one.volume_name, one.mount_path) for one in made.volume_mounts],
          [(volume.name, "/data/deep")], "the template's volumes")
    with raises(sdk.ResourceInUseError, volume.name, resource_type="volume"):
        await done(case.client.delete_volume(volume.name))
    case.origin = {"template_name": made.name}
    first = await case.sandbox()
    await done(first.write("/data/deep/state", "kept"))
    equal((await done(first.run("cat /data/deep/state; echo more >> /data/deep/state"))).stdout,
          "kept", "what the first sandbox reads")
    await done(case.client.delete_sandbox(first.name))
    second = await case.sandbox()
    equal(await done(second.read("/data/deep/state")), b"keptmore\n", "what the second reads")
    await done(case.client.delete_sandbox(second.name))
    await done(case.client.delete_template(made.name))
    await done(case.client.delete_volume(volume.name))


# ---- pools ----

async def pool(case, template_name, **options):
    """A pool that is deleted at the end, if the scenario has not done so."""
    made = await done(case.client.create_pool(fresh("pool"), template_name, **options))

    async def delete():
        for one in await done(case.client.list_pools()):
            if one.id == made.id:
                await done(case.client.delete_pool(one.name))

    case.stack.push_async_callback(delete)
    return made


async def pools(case):
    """pools are made, found, listed, scaled, renamed and deleted"""
    origin, other = await template(case), fresh("pool")
    made = await pool(case, origin.name, replicas=2, timeout=30)
    equal((made.template_name, made.replicas), (origin.name, 2), "what was made")
    expect(made.id and made.created_at and made.updated_at, f"something is missing: {made}")
    equal((await done(case.client.get_pool(made.name))).id, made.id, "what was found")
    expect(made.id in [one.id for one in await done(case.client.list_pools())],
           "it is not in the list")
    case.origin = {"template_name": origin.name}
    box = await case.sandbox(name=fresh("box"))
    equal((await done(box.run("echo pooled"))).stdout, "pooled\n", "stdout")
    equal(box.template_name, origin.name, "the template of a sandbox of the pool")
    scaled = await done(case.client.update_pool(made.name, replicas=1))
    equal((scaled.name, scaled.replicas), (made.name, 1), "what was scaled")
    renamed = await done(case.client.update_pool(made.name, new_name=other))
    equal((renamed.name, renamed.replicas, renamed.id), (other, 1, made.id), "what was renamed")
    equal((await done(case.client.update_pool(other))).replicas, 1, "what was not changed")
    equal((await done(case.client.update_pool(other, replicas=0))).replicas, 0, "what is paused")
    await done(case.client.delete_sandbox(box.name))
    with raises(sdk.ResourceInUseError, origin.name, resource_type="template"):
        await done(case.client.delete_template(origin.name))
    await done(case.client.delete_pool(other))
    for lost in (case.client.get_pool, case.client.delete_pool):
        with raises(sdk.ResourceNotFoundError, other, resource_type="pool"):
            await done(lost(other))
    with raises(sdk.ResourceNotFoundError, other, resource_type="pool"):
        await done(case.client.update_pool(other, replicas=1))
    await done(case.client.delete_template(origin.name))


async def pool_errors(case):
    """bad pools, and names that are taken, are errors"""
    origin = await template(case)
    first = await pool(case, origin.name, replicas=1)
    second = await pool(case, origin.name, replicas=1)
    with raises(sdk.ResourceAlreadyExistsError, first.name, resource_type="pool"):
        await done(case.client.create_pool(first.name, origin.name, replicas=1))
    with raises(sdk.ResourceNameConflictError, first.name, resource_type="pool"):
        await done(case.client.update_pool(second.name, new_name=first.name))
    with raises(sdk.ResourceNotFoundError, "no-template", resource_type="template"):
        await pool(case, "no-template", replicas=1)
    volume = await done(case.client.create_volume(fresh("volume"), "10Mi"))
    mount = sdk.VolumeMountSpec(volume_name=volume.name, mount_path="/data")
    mounted = await template(case, volume_mounts=[mount])
    with raises(sdk.ValidationError, "volume", error_type="ValidationError"):
        await pool(case, mounted.name, replicas=1)
    with raises(sdk.ValidationError, field="replicas"):
        await pool(case, origin.name, replicas=101)


def prepare():
    """Makes the templates that the shared scenarios use."""
    for endpoint in (None, shared.FULL + "/v2/sandboxes", shared.RELOADING + "/v2/sandboxes"):
        client = sdk.SandboxClient(api_endpoint=endpoint)
        client.create_template(PLAIN, "any:image")
        client.close()


if __name__ == "__main__":
    prepare()
    shared.run([templates, template_defaults, template_errors, no_image, over_http, volumes,
                volume_errors, persistence, pools, pool_errors], {"template_name": PLAIN}, "ä b")
