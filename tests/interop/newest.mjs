// The newest JavaScript client: sandboxes without templates, standard input that is closed, commands
// with an id of the caller's.

import { ok } from "node:assert/strict";
import * as sdk from "langsmith/sandbox";
import { equal, fresh, raises, run } from "./shared.mjs";

const scenarios = {
  "standard input is at its end unless it is wanted": async (test) => {
    const box = await test.sandbox();
    equal((await box.run("cat; echo over", { timeout: 5 })).stdout, "over\n");
    const handle = await box.run("cat; echo over", { timeout: 10, wait: false, closeInput: false });
    handle.sendInput("line\n");
    handle.closeInput();
    equal((await handle.result).stdout, "line\nover\n");
  },

  "a command of an id that is there already does not run again": async (test) => {
    const box = await test.sandbox();
    const options = { commandId: fresh("command"), wait: false };
    const first = await box.run("echo x >> /tmp/runs; sleep 0.3; cat /tmp/runs", options);
    equal(first.commandId, options.commandId);
    const second = await box.run("echo x >> /tmp/runs; sleep 0.3; cat /tmp/runs", options);
    equal([second.commandId, second.pid], [first.commandId, first.pid]);
    equal((await first.result).stdout, "x\n");
    equal((await second.result).stdout, "x\n");
  },

  "bad values are validation errors that name the field": async (test) => {
    await raises(test.sandbox({ timeout: -1 }), sdk.LangSmithValidationError, { field: "timeout" });
    await raises(test.sandbox({ name: "a\nb" }), sdk.LangSmithValidationError, { field: "name" });
  },

  "a snapshot that does not exist is not found": async (test) => {
    const made = test.sandbox({ snapshotName: "nothing" });
    await raises(made, sdk.LangSmithResourceNotFoundError, { message: "nothing" });
  },

  "runConfig has the directory and the environment of a command": async (test) => {
    const box = await test.sandbox();
    const runConfig = { user: "user", work_dir: "/tmp", env_vars: { A: "ä b" } };
    equal((await box.run("echo $A; pwd", { runConfig })).stdout, "ä b\n/tmp\n");
    equal((await box._runHttp("echo $A; pwd", { runConfig })).stdout, "ä b\n/tmp\n");
    const somebody = box.run("true", { runConfig: { user: "somebody" } });
    await raises(somebody, sdk.LangSmithSandboxOperationError, { message: "user" });
  },

  "a file's size is told without its bytes, and parts of it are read": async (test) => {
    const box = await test.sandbox();
    await box.write("/tmp/f", "0123456789");
    const { etag, size_bytes } = await box.stat("/tmp/f");
    equal(size_bytes, 10);
    for (const [wanted, text, start] of [
      [{ start: 2, end: 4 }, "234", 2],
      [{ start: 8, ifRange: etag }, "89", 8],
      [{ suffixBytes: 3 }, "789", 7],
    ]) {
      const chunk = await box.readRange("/tmp/f", wanted);
      equal(new TextDecoder().decode(chunk.content), text);
      equal([chunk.start, chunk.total_bytes, chunk.partial, chunk.etag], [start, 10, true, etag]);
    }
    ok((await box.readRange("/tmp/f", { start: 0, ifNoneMatch: etag })).unchanged);
    const past = box.readRange("/tmp/f", { start: 10 });
    await raises(past, sdk.LangSmithSandboxOperationError, { message: "past the end" });
    await box.write("/tmp/f", "changed");
    ok(!(await box.readRange("/tmp/f", { start: 2, ifRange: etag })).partial);
    const lost = [sdk.LangSmithResourceNotFoundError, { message: "/tmp/g", resourceType: "file" }];
    await raises(box.stat("/tmp/g"), ...lost);
    await raises(box.readRange("/tmp/g", { start: 0 }), ...lost);
  },
};

await run(sdk, (client, options) => client.createSandbox(options), scenarios, {
  keepsMessages: true,
});
