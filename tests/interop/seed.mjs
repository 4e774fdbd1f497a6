// The JavaScript clients of March 2026: templates, volumes and pools.

import assert from "node:assert/strict";
import * as sdk from "langsmith/experimental/sandbox";
import { equal, fresh, raises, run } from "./shared.mjs";

const PLAIN = "plain";
const {
  LangSmithResourceAlreadyExistsError: AlreadyExists,
  LangSmithResourceInUseError: InUse,
  LangSmithResourceNameConflictError: NameConflict,
  LangSmithResourceNotFoundError: NotFound,
  LangSmithSandboxError: BaseError,
} = sdk;

const image = "any:image";

async function template(client, options = {}) {
  return client.createTemplate(fresh("template"), { image, ...options });
}

// A volume, and a template that mounts it.
async function mounted(client, mount_path) {
  const volume = await client.createVolume(fresh("volume"), { size: "10Mi" });
  const volumeMounts = [{ volume_name: volume.name, mount_path }];
  return [volume, await template(client, { volumeMounts })];
}

// Each of these calls says that the thing is not found.
async function lost(client, kind, name, changes) {
  const Kind = kind[0].toUpperCase() + kind.slice(1);
  const error = { message: name, resourceType: kind };
  await raises(client[`get${Kind}`](name), NotFound, error);
  await raises(client[`delete${Kind}`](name), NotFound, error);
  await raises(client[`update${Kind}`](name, changes), NotFound, error);
}

const scenarios = {
  "templates are made, found, listed, renamed and deleted": async (test) => {
    const { client } = test;
    const [name, other] = [fresh("template"), fresh("template")];
    const resources = { cpu: "250m", memory: "256Mi", storage: "1Gi" };
    const made = await client.createTemplate(name, { image, ...resources });
    equal([made.name, made.image, made.resources], [name, image, resources]);
    assert.ok(made.id && made.created_at && made.updated_at);
    equal(await client.getTemplate(name), made);
    assert.ok((await client.listTemplates()).some(({ id }) => id === made.id));
    const renamed = await client.updateTemplate(name, { newName: other });
    equal([renamed.name, renamed.id], [other, made.id]);
    equal(await client.updateTemplate(other, {}), renamed);
    const box = await client.createSandbox(other);
    equal(box.template_name, other);
    await raises(client.deleteTemplate(other), InUse, { message: other, resourceType: "template" });
    await box.delete();
    await client.deleteTemplate(other);
    await lost(client, "template", other, { newName: name });
    const again = await template(client);
    equal(again.resources, { cpu: "500m", memory: "512Mi", storage: null });
    equal(again.volume_mounts, []);
  },

  "names that are taken are errors": async ({ client }) => {
    const [first, second] = [await template(client), await template(client)];
    const { name } = first;
    await raises(client.createTemplate(name, { image }), BaseError, { message: name });
    await raises(client.updateTemplate(second.name, { newName: name }), NameConflict, {
      message: name,
      resourceType: "template",
    });
  },

  // This version reads the body of such an answer twice, which fetch does not allow.
  "bad values are refused": async (test) => {
    const twice = { message: "body" };
    await raises(template(test.client, { cpu: "plenty" }), TypeError, twice);
    await raises(test.sandbox({ timeout: -1 }), TypeError, twice);
    const apiEndpoint = `${process.env.INTEROP_IMAGES}/v2/sandboxes`;
    const client = test.connect({ apiEndpoint });
    const made = await client.createTemplate(fresh("template"), { image: "absent:1" });
    await raises(client.createSandbox(made.name), TypeError, twice);
  },

  "volumes are made, found, listed, renamed, enlarged and deleted": async ({ client }) => {
    const [name, other] = [fresh("volume"), fresh("volume")];
    const made = await client.createVolume(name, { size: "1Gi", timeout: 10 });
    equal([made.name, made.size], [name, "1Gi"]);
    assert.ok(made.id && made.created_at && made.updated_at);
    equal(await client.getVolume(name), made);
    assert.ok((await client.listVolumes()).some(({ id }) => id === made.id));
    const renamed = await client.updateVolume(name, { newName: other });
    equal([renamed.name, renamed.size, renamed.id], [other, "1Gi", made.id]);
    equal((await client.updateVolume(other, { size: "2Gi" })).size, "2Gi");
    const both = await client.updateVolume(other, { newName: name, size: "3Gi" });
    equal([both.name, both.size], [name, "3Gi"]);
    equal(await client.updateVolume(name, {}), both);
    await raises(client.updateVolume(name, { size: "2Gi" }), BaseError);
    await client.deleteVolume(name);
    await lost(client, "volume", name, { size: "4Gi" });
  },

  "what is written to a volume is there in the next sandbox": async ({ client }) => {
    const [volume, { name, volume_mounts }] = await mounted(client, "/data/deep");
    const mounts = volume_mounts.map((mount) => [mount.volume_name, mount.mount_path]);
    equal(mounts, [[volume.name, "/data/deep"]]);
    const inUse = { message: volume.name, resourceType: "volume" };
    await raises(client.deleteVolume(volume.name), InUse, inUse);
    const first = await client.createSandbox(name);
    await first.write("/data/deep/state", "kept");
    equal((await first.run("cat /data/deep/state")).stdout, "kept");
    await first.delete();
    const second = await client.createSandbox(name);
    equal(new TextDecoder().decode(await second.read("/data/deep/state")), "kept");
    await second.delete();
    await client.deleteTemplate(name);
    await client.deleteVolume(volume.name);
  },

  "volumes whose names are taken are errors": async ({ client }) => {
    const size = "10Mi";
    const first = await client.createVolume(fresh("volume"), { size });
    const second = await client.createVolume(fresh("volume"), { size });
    const { name } = first;
    await raises(client.createVolume(name, { size }), BaseError, { message: "409" });
    await raises(client.updateVolume(second.name, { newName: name }), NameConflict, {
      message: name,
      resourceType: "volume",
    });
  },

  "pools are made, found, listed, scaled, renamed and deleted": async ({ client }) => {
    const [name, other] = [fresh("pool"), fresh("pool")];
    const { name: templateName } = await template(client);
    const made = await client.createPool(name, { templateName, replicas: 2 });
    equal([made.name, made.template_name, made.replicas], [name, templateName, 2]);
    assert.ok(made.id && made.created_at && made.updated_at);
    equal((await client.getPool(name)).id, made.id);
    assert.ok((await client.listPools()).some(({ id }) => id === made.id));
    const box = await client.createSandbox(templateName, { name: fresh("box") });
    equal(box.template_name, templateName);
    equal((await box.run("echo pooled")).stdout, "pooled\n");
    await box.delete();
    equal((await client.updatePool(name, { replicas: 1 })).replicas, 1);
    const renamed = await client.updatePool(name, { newName: other });
    equal([renamed.name, renamed.replicas, renamed.id], [other, 1, made.id]);
    equal((await client.updatePool(other, {})).id, made.id);
    equal((await client.updatePool(other, { replicas: 0 })).replicas, 0);
    await raises(client.deleteTemplate(templateName), InUse, { resourceType: "template" });
    await client.deletePool(other);
    await lost(client, "pool", other, { replicas: 1 });
    await client.deleteTemplate(templateName);
  },

  "bad pools, and names that are taken, are errors": async ({ client }) => {
    const { name: templateName } = await template(client);
    const options = { templateName, replicas: 1 };
    const first = await client.createPool(fresh("pool"), options);
    const second = await client.createPool(fresh("pool"), options);
    const { name } = first;
    await raises(client.createPool(name, options), AlreadyExists, {
      message: name,
      resourceType: "pool",
    });
    await raises(client.updatePool(second.name, { newName: name }), NameConflict, {
      message: name,
      resourceType: "pool",
    });
    const absent = client.createPool(fresh("pool"), { templateName: "no-template", replicas: 1 });
    await raises(absent, NotFound, { message: "no-template", resourceType: "template" });
    const [, { name: mounting }] = await mounted(client, "/data");
    const bad = client.createPool(fresh("pool"), { templateName: mounting, replicas: 1 });
    await raises(bad, BaseError, { message: "400" });
    for (const pool of [first, second]) await client.deletePool(pool.name);
  },
};

const { LANGSMITH_ENDPOINT, INTEROP_FULL, INTEROP_RELOAD } = process.env;
for (const endpoint of [LANGSMITH_ENDPOINT, INTEROP_FULL, INTEROP_RELOAD]) {
  const client = new sdk.SandboxClient({ apiEndpoint: `${endpoint}/v2/sandboxes` });
  await client.createTemplate(PLAIN, { image });
}
await run(sdk, (client, options) => client.createSandbox(PLAIN, options), scenarios);
