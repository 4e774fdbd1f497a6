// The newest JavaScript client: sandboxes without templates, standard input that is closed, commands
// with an id of the caller's.

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

  "a file's size is told without its bytes": async (test) => {
    const box = await test.sandbox();
    await box.write("/tmp/f", "12345");
    equal((await box.stat("/tmp/f")).size_bytes, 5);
    await raises(box.stat("/tmp/g"), sdk.LangSmithResourceNotFoundError, { resourceType: "file" });
  },
};

await run(sdk, (client, options) => client.createSandbox(options), scenarios, {
  keepsMessages: true,
});
