// What the JavaScript clients of all versions have in common: sandboxes, commands, files, errors.
//
// A scenario is a pair of a name and an async function of a Case. LANGSMITH_ENDPOINT is a sandboxd
// with an API key. INTEROP_FULL is one with the same key and no room for another sandbox,
// INTEROP_IMAGES one with other images than absent:1, INTEROP_RELOAD one that may be told to reload,
// INTEROP_RELOAD_PID its process.

import assert from "node:assert/strict";
import { randomUUID, webcrypto } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

globalThis.crypto ??= webcrypto; // Node 18 does not have what the newest client needs

const ENDPOINT = process.env.LANGSMITH_ENDPOINT;
const KILLED = 137; // the exit code
const SECONDS = 60; // for one scenario

export const equal = assert.deepEqual;

export const fresh = (kind) => `${kind}-${randomUUID().slice(-12)}`;

// The promise is rejected with an exception of exactly this class, with these values in it. message
// is a part of its text.
export async function raises(promise, type, { message = "", ...values } = {}) {
  const error = await promise.then(
    () => assert.fail(`no ${type.name}`),
    (reason) => reason,
  );
  if (error?.constructor !== type) throw error;
  const text = error.message.toLowerCase();
  assert.ok(text.includes(message.toLowerCase()), `the message is ${error.message}`);
  for (const [name, value] of Object.entries(values)) equal(error[name], value, name);
}

// One client, and what it made. start makes a sandbox, as this version does.
class Case {
  constructor(sdk, start) {
    this.sdk = sdk;
    this.start = start;
    this.boxes = [];
    this.client = this.connect();
  }

  connect(config = {}) {
    return new this.sdk.SandboxClient({ maxRetries: 0, ...config });
  }

  // A sandbox that is deleted at the end, if the scenario has not done so.
  async sandbox(options) {
    const box = await this.start(this.client, options);
    this.boxes.push(box.name);
    return box;
  }

  async close() {
    for (const name of this.boxes) await this.client.deleteSandbox(name).catch(() => {});
  }
}

async function firstChunk(handle) {
  for await (const chunk of handle) if (chunk.stream === "stdout") return chunk;
  return assert.fail("the command printed nothing");
}

// Closes the connection below the client: gently, as when it is left, or not, as a network does.
const leave = (handle) => handle._control._ws.close();
const sever = (handle) => handle._control._ws.terminate();

const scenarios = {
  // ---- sandboxes ----

  "sandboxes are made, found, listed, renamed and deleted": async (test) => {
    const { client, sdk } = test;
    const [name, other] = [fresh("box"), fresh("box")];
    const made = await test.sandbox({ name });
    equal([made.name, made.status, made.status_message], [name, "ready", null]);
    assert.ok(made.id && made.created_at && made.updated_at);
    const found = await client.getSandbox(name);
    equal([found.id, found.dataplane_url], [made.id, made.dataplane_url]);
    assert.ok((await client.listSandboxes()).some((box) => box.id === made.id));
    const renamed = await client.updateSandbox(name, other);
    equal([renamed.name, renamed.id], [other, made.id]);
    const lost = { message: name, resourceType: "sandbox" };
    await raises(client.getSandbox(name), sdk.LangSmithResourceNotFoundError, lost);
    await renamed.delete();
    for (const call of ["getSandbox", "getSandboxStatus", "deleteSandbox"]) {
      await raises(client[call](other), sdk.LangSmithResourceNotFoundError, {
        message: other,
        resourceType: "sandbox",
      });
    }
    await raises(client.updateSandbox(name, other), sdk.LangSmithResourceNotFoundError, lost);
  },

  "a sandbox that is not waited for is provisioning at first, then ready": async (test) => {
    const made = await test.sandbox({ waitForReady: false });
    equal(made.status, "provisioning");
    const ready = await test.client.waitForSandbox(made.name, { timeout: 20, pollInterval: 0.05 });
    equal([ready.id, ready.status], [made.id, "ready"]);
    const status = await test.client.getSandboxStatus(made.name);
    equal([status.status, status.status_message], ["ready", null]);
    equal((await ready.run("echo up")).stdout, "up\n");
  },

  "names are taken as they are, and each only once": async (test) => {
    const { client, sdk } = test;
    const first = await test.sandbox({ name: fresh("ä b/c?d#e%25'") });
    const second = await test.sandbox();
    equal((await client.getSandbox(first.name)).id, first.id);
    await raises(test.sandbox({ name: first.name }), sdk.LangSmithSandboxError, {
      message: test.keepsMessages ? first.name : "409",
    });
    await raises(
      client.updateSandbox(second.name, first.name),
      sdk.LangSmithResourceNameConflictError,
      { message: first.name, resourceType: "sandbox" },
    );
    await client.deleteSandbox(first.name);
  },

  "both base paths are served": async (test) => {
    for (const path of ["/v2/sandboxes", "/api/v2/sandboxes", "/v2/sandboxes/"]) {
      const box = await test.start(test.connect({ apiEndpoint: ENDPOINT + path }));
      equal((await box.run("echo here")).stdout, "here\n");
      await box.delete();
    }
  },

  // ---- commands ----

  "run gives stdout, stderr and the exit code": async (test) => {
    const box = await test.sandbox();
    equal(await box.run("echo out; echo err >&2; exit 3"), {
      stdout: "out\n",
      stderr: "err\n",
      exit_code: 3,
    });
    equal((await box.run("kill -9 $$")).exit_code, KILLED);
  },

  "env, cwd and shell are heeded": async (test) => {
    const box = await test.sandbox();
    const options = { env: { A: "x=y z", B: "ä☃" }, cwd: "/tmp", shell: "/bin/sh" };
    equal((await box.run('echo "$A|$B|$PWD|$0"', options)).stdout, "x=y z|ä☃|/tmp|/bin/sh\n");
    equal((await box.run("echo $0; pwd")).stdout, "/bin/bash\n/home/user\n");
    const { LangSmithSandboxOperationError } = test.sdk;
    await raises(box.run("true", { cwd: "/nowhere" }), LangSmithSandboxOperationError, {
      message: "/nowhere",
      operation: "command",
    });
    await raises(box.run("true", { shell: "/no/shell" }), LangSmithSandboxOperationError, {
      message: "/no/shell",
      operation: "command",
    });
  },

  "what run falls back to without WebSockets gives the same result": async (test) => {
    const box = await test.sandbox();
    const options = { env: { A: "ä" }, cwd: "/tmp", shell: "/bin/sh", timeout: 10 };
    equal(await box._runHttp("echo $A; echo e >&2; pwd; exit 3", options), {
      stdout: "ä\n/tmp\n",
      stderr: "e\n",
      exit_code: 3,
    });
  },

  "much output arrives whole": async (test) => {
    const box = await test.sandbox();
    const result = await box.run('for i in $(seq 100000); do echo "ä☃𝄞 $i"; done');
    const wanted = Array.from({ length: 100000 }, (_, i) => `ä☃𝄞 ${i + 1}\n`).join("");
    assert.ok(result.stdout === wanted, "the output came otherwise");
  },

  "a command that takes too long is a command time-out, and 0 is no limit": async (test) => {
    const box = await test.sandbox();
    const { LangSmithCommandTimeoutError } = test.sdk;
    await raises(box.run("sleep 20", { timeout: 1 }), LangSmithCommandTimeoutError, {
      message: "timed out",
    });
    const handle = await box.run("sleep 0.3; echo unhurried", { timeout: 0, wait: false });
    equal((await handle.result).stdout, "unhurried\n");
  },

  "callbacks get the output as it comes": async (test) => {
    const box = await test.sandbox();
    const [out, err] = [[], []];
    const result = await box.run("echo 1; sleep 0.4; echo E >&2; sleep 0.4; echo 2", {
      onStdout: (text) => out.push(text),
      onStderr: (text) => err.push(text),
    });
    equal([out, err], [["1\n", "2\n"], ["E\n"]]);
    equal(result, { stdout: "1\n2\n", stderr: "E\n", exit_code: 0 });
  },

  "a handle yields chunks with offsets in bytes": async (test) => {
    const box = await test.sandbox();
    const command =
      "printf aä; sleep 0.4; printf ☃ >&2; printf b; sleep 0.4; printf X >&2; printf c; exit 4";
    const handle = await box.run(command, { wait: false });
    assert.ok(handle.commandId && handle.pid > 0);
    const seen = { stdout: [], stderr: [] };
    for await (const { stream, offset, data } of handle) seen[stream].push([offset, data]);
    equal(seen, { stdout: [[0, "aä"], [3, "b"], [4, "c"]], stderr: [[0, "☃"], [3, "X"]] });
    equal(await handle.result, { stdout: "aäbc", stderr: "☃X", exit_code: 4 });
    equal([handle.lastStdoutOffset, handle.lastStderrOffset], [5, 4]);
  },

  "input reaches the command": async (test) => {
    const box = await test.sandbox();
    // The first version knows nothing of closeInput, and ignores it.
    const options = { wait: false, closeInput: false };
    const handle = await box.run('echo ready; read -r a; read -r b; echo "<$a|$b>"', options);
    equal((await firstChunk(handle)).data, "ready\n");
    const again = await handle.reconnect(); // a loop over a handle that is left ends its stream
    const chunks = again[Symbol.asyncIterator]();
    const next = chunks.next();
    await sleep(200);
    again.sendInput("one ä\nt");
    again.sendInput("wo\n");
    equal((await next).value.data, "<one ä|two>\n");
    for await (const _ of chunks);
    equal((await again.result).exit_code, 0);
  },

  "kill ends the command and all that it started": async (test) => {
    const box = await test.sandbox();
    const handle = await box.run("sleep 1000 & echo $!; wait", { wait: false });
    const chunks = handle[Symbol.asyncIterator]();
    const child = (await chunks.next()).value.data.trim();
    handle.kill();
    for await (const _ of chunks);
    equal((await handle.result).exit_code, KILLED);
    const again = await box.reconnect(handle.commandId);
    equal((await again.result).exit_code, KILLED);
    assert.notEqual((await box.run(`cat /proc/${child}/status`)).exit_code, 0);
  },

  "a command is reattached by its id, from any offset, while it runs and when it is over": async (
    test,
  ) => {
    const box = await test.sandbox();
    const command = "echo e >&2; sleep 0.2; echo ä; sleep 0.5; echo two; exit 3";
    const first = await box.run(command, { wait: false });
    await firstChunk(first);
    const running = await box.reconnect(first.commandId, { stdoutOffset: 3, stderrOffset: 2 });
    equal(await running.result, { stdout: "two\n", stderr: "", exit_code: 3 });
    const over = await box.reconnect(first.commandId);
    equal(await over.result, { stdout: "ä\ntwo\n", stderr: "e\n", exit_code: 3 });
    equal((await (await running.reconnect()).result).stdout, "");
    const unknown = await box.reconnect("no-such-command");
    await raises(unknown.result, test.sdk.LangSmithSandboxOperationError, {
      message: "no-such-command",
      operation: "reconnect",
    });
  },

  "a broken connection is taken up again, without loss": async (test) => {
    const box = await test.sandbox();
    const command = "for i in 1 2 3 4 5 6 7 8; do echo ä$i; sleep 0.2; done; exit 5";
    const handle = await box.run(command, { wait: false });
    const chunks = handle[Symbol.asyncIterator]();
    let text = (await chunks.next()).value.data;
    sever(handle);
    for await (const { data } of chunks) text += data;
    equal(text, "ä1\nä2\nä3\nä4\nä5\nä6\nä7\nä8\n");
    equal((await handle.result).exit_code, 5);
  },

  "a reload of the server is survived": async (test) => {
    const client = test.connect({ apiEndpoint: `${process.env.INTEROP_RELOAD}/v2/sandboxes` });
    const box = await test.start(client);
    const command = "for i in 1 2 3 4 5 6 7 8; do echo ä$i; sleep 0.2; done; exit 5";
    const handle = await box.run(command, { wait: false });
    const chunks = handle[Symbol.asyncIterator]();
    let text = (await chunks.next()).value.data;
    process.kill(Number(process.env.INTEROP_RELOAD_PID), "SIGHUP");
    for await (const { data } of chunks) text += data;
    equal(text, "ä1\nä2\nä3\nä4\nä5\nä6\nä7\nä8\n");
    equal((await handle.result).exit_code, 5);
    await client.deleteSandbox(box.name);
  },

  "a command can have a terminal": async (test) => {
    const box = await test.sandbox();
    const ended = await box.run("test -t 0 && echo yes; echo also >&2", { pty: true });
    equal(ended, { stdout: "yes\r\nalso\r\n", stderr: "", exit_code: 0 });
    const handle = await box.run("python3 -q", { pty: true, wait: false });
    const chunks = handle[Symbol.asyncIterator]();
    let text = (await chunks.next()).value.data;
    handle.sendInput("print(6 * 7)\nexit(3)\n");
    for await (const { data } of chunks) text += data;
    assert.ok(text.includes("\n42\r\n"), text);
    equal((await handle.result).exit_code, 3);
  },

  "without clients a command lives as long as it was told": async (test) => {
    const box = await test.sandbox();
    const start = async (options) => {
      const handle = await box.run("echo up; sleep 2.5; echo late", { wait: false, ...options });
      leave(handle);
      return handle.commandId;
    };
    const idle = await start({ idleTimeout: 1 });
    const gone = await start({ killOnDisconnect: true });
    const free = await start({ idleTimeout: -1, ttlSeconds: -1 });
    const ended = async (id) => (await box.reconnect(id)).result;
    equal((await ended(gone)).exit_code, KILLED);
    equal(await ended(free), { stdout: "up\nlate\n", stderr: "", exit_code: 0 });
    equal(await ended(idle), { stdout: "up\n", stderr: "", exit_code: KILLED });
  },

  "a command that is over is remembered as long as it was told": async (test) => {
    const box = await test.sandbox();
    const handle = await box.run("true", { ttlSeconds: 1, wait: false });
    await handle.result;
    await sleep(1600);
    const again = await box.reconnect(handle.commandId);
    await raises(again.result, test.sdk.LangSmithSandboxOperationError, { message: "expired" });
  },

  // ---- files ----

  "files are written and read, text and bytes, wherever they are": async (test) => {
    const box = await test.sandbox();
    const encode = (text) => new TextEncoder().encode(text);
    const binary = Uint8Array.from({ length: 2 << 20 }, (_, i) => i & 255);
    for (const [path, content] of Object.entries({
      "/tmp/a/new/dir/text": "grüße ☃\n",
      "relative.bin": binary,
      "/tmp/a b+c&d=ä?#%41.txt": encode("odd"),
      "/tmp/empty": encode(""),
    })) {
      await box.write(path, content);
      const wanted = typeof content === "string" ? encode(content) : content;
      assert.ok(Buffer.compare(await box.read(path), wanted) === 0, `${path} came back otherwise`);
    }
    equal((await box.run("wc -c < /home/user/relative.bin")).stdout, `${2 << 20}\n`);
    await box.write("relative.bin", "shorter");
    equal(await box.read("/home/user/relative.bin"), encode("shorter"));
  },

  "files that cannot be read or written are errors of their kind": async (test) => {
    const box = await test.sandbox();
    const { LangSmithResourceNotFoundError, LangSmithSandboxOperationError } = test.sdk;
    await raises(box.read("/tmp/missing"), LangSmithResourceNotFoundError, {
      message: "/tmp/missing",
      resourceType: "file",
    });
    await raises(box.read("/tmp"), LangSmithSandboxOperationError, {
      message: "/tmp",
      operation: "read",
      errorType: "ReadError",
    });
    await raises(box.write("/proc/x", "no"), LangSmithSandboxOperationError, {
      message: "/proc/x",
      operation: "write",
      errorType: "WriteError",
    });
  },

  // ---- errors ----

  "a wrong key is an authentication error": async (test) => {
    const client = test.connect({ apiKey: "wrong" });
    const { LangSmithSandboxAuthenticationError } = test.sdk;
    await raises(client.listSandboxes(), LangSmithSandboxAuthenticationError);
    if (test.keepsMessages)
      await raises(test.start(client), LangSmithSandboxAuthenticationError);
  },

  "a wrong key is refused inside sandboxes, too": async (test) => {
    const good = await test.sandbox();
    const { name, dataplane_url } = good;
    const box = new test.sdk.Sandbox({ name, dataplane_url }, test.connect({ apiKey: "wrong" }));
    await raises(box.read("/etc/passwd"), test.sdk.LangSmithSandboxError);
    await raises(box.write("/tmp/x", "x"), test.sdk.LangSmithSandboxError);
    await assert.rejects(box.run("touch /tmp/ran"), test.sdk.LangSmithSandboxError);
    equal((await good.run("ls /tmp")).stdout, "");
  },

  "a base path that does not exist is an error that says so": async (test) => {
    const client = test.connect({ apiEndpoint: `${ENDPOINT}/v3/sandboxes` });
    await raises(client.listSandboxes(), test.sdk.LangSmithSandboxAPIError, {
      message: "/v3/sandboxes",
    });
  },

  "one sandbox too many is a quota error": async (test) => {
    const client = test.connect({ apiEndpoint: `${process.env.INTEROP_FULL}/v2/sandboxes` });
    await raises(test.start(client), test.sdk.LangSmithQuotaExceededError, {
      quotaType: "sandbox_count",
    });
  },
};

// Plays all scenarios, these and the version's own, and reports in TAP. traits are of the version,
// and become the case's.
export async function run(sdk, start, more, traits = {}) {
  const all = Object.entries({ ...scenarios, ...more });
  console.log(`1..${all.length}`);
  let failed = false;
  const play = async (scenario) => {
    const test = Object.assign(new Case(sdk, start), traits);
    const limit = sleep(SECONDS * 1000, null, { ref: false }).then(() => assert.fail("it hangs"));
    try {
      await Promise.race([scenario(test), limit]);
    } finally {
      await test.close();
    }
  };
  const report = (number, name, error) => {
    console.log(`${error ? "not ok" : "ok"} ${number} - ${name}`);
    if (error) {
      failed = true;
      console.log(String(error?.stack ?? error).replace(/^/gm, "# "));
    }
  };
  // Four at a time.
  let next = 0;
  const work = async () => {
    while (next < all.length) {
      const number = ++next;
      const [name, scenario] = all[number - 1];
      report(number, name, await play(scenario).then(() => null, (error) => error ?? "failed"));
    }
  };
  await Promise.all([work(), work(), work(), work()]);
  process.exit(failed ? 1 : 0);
}
