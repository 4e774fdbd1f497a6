#!/usr/bin/env python3
"""Drives build/sandboxd over the wire: isolation, every endpoint, files, bad input, its end;
test_sessions.py does so with commands over WebSocket. Reports in TAP; the last line is "N passed, N failed"."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from urllib.parse import quote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import wire  # noqa: E402
from daemon import (SANDBOXD, SANITIZED, Sandbox, Server, WithOrphans,  # noqa: E402
                    WithServer, alive, descendants, main, memory, stat_of, wait_until)
from wire import Closed, Refused, WebSocket, joined  # noqa: E402

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


# ---- isolation ----

class Isolation(WithServer):
    def test_the_root_holds_nothing_of_the_host_but_its_system(self):
        box = self.server.create()
        names = set(box.output("ls -A /").split())
        self.assertLessEqual(names, {".sandboxd", "bin", "dev", "etc", "home", "lib", "lib32",
                                     "lib64", "libx32", "proc", "root", "run", "sbin", "tmp", "usr",
                                     "var"})
        self.assertEqual(box.output("ls -A /home /root /run /var/tmp"),
                         "/home:\nuser\n\n/root:\n\n/run:\n\n/var/tmp:\n")

    def test_files_of_the_host_cannot_be_seen(self):
        with tempfile.NamedTemporaryFile(dir="/tmp") as secret:
            secret.write(b"secret")
            secret.flush()
            os.chmod(secret.name, 0o644)
            for path in secret.name, self.server.temporary.name, str(Path(__file__)), \
                    "/etc/shadow", "/etc/sudoers", "/etc/machine-id", "/boot", "/sys/kernel":
                code, out, _ = self.box.run(f"cat {path} || ls {path}")
                self.assertNotEqual((code, out), (0, "secret"), path)
                self.assertEqual(out, "", path)
        self.assertNotIn("shadow", self.box.output("ls -A /etc"))

    def test_what_is_mounted_cannot_be_written(self):
        for path in "/usr/x", "/usr/bin/x", "/bin/sh", "/lib/x", "/.sandboxd", \
                "/usr/bin/env", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", \
                "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches":
            # Opened only: writing to these would change the host if it worked.
            code, _, err = self.box.run(f"exec 3>> {path}")
            self.assertNotEqual(code, 0, path)
            self.assertRegex(err, "Read-only file system|Permission denied|No such file", path)
        code, _, _ = self.box.run("mount -o remount,rw /usr || umount /usr || chmod 777 /usr")
        self.assertNotEqual(code, 0)

    def test_the_rest_of_the_root_can_be_written(self):
        self.assertEqual(self.box.run("mkdir -p /app /data && echo 1 > /app/x && cat /app/x && "
                                      "echo 2 > /etc/x && echo 3 > /tmp/x && "
                                      "echo 4 > /dev/shm/x && rm /etc/x /tmp/x /dev/shm/x"),
                         (0, "1\n", ""))

    def test_processes_of_the_host_cannot_be_seen_or_killed(self):
        sleeper = subprocess.Popen(["sleep", "100.0712"])
        try:
            out = self.box.output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
            self.assertNotIn("100.0712", out)
            self.assertIn("--agent", out)
            numbers = self.box.output("cd /proc && echo [0-9]*").split()
            self.assertLess(len(numbers), 5)
            self.assertNotEqual(self.box.run(f"kill -9 {sleeper.pid}")[0], 0)
            self.assertNotEqual(self.box.run(f"kill -9 {self.server.process.pid}")[0], 0)
            self.box.run("kill -9 -1")
            self.assertIsNone(sleeper.poll())
            self.assertIsNone(self.server.process.poll())
        finally:
            sleeper.kill()
            sleeper.wait()

    def test_the_network_of_the_host_cannot_be_reached(self):
        devices = re.findall(r"^ *(\w+):", self.box.output("cat /proc/net/dev"), re.M)
        self.assertEqual(devices, ["lo"])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for port in listener.getsockname()[1], urlsplit(self.server.url).port, \
                    urlsplit(self.box.url).port:
                code, _, err = self.box.run(f"exec 3<>/dev/tcp/127.0.0.1/{port}")
                self.assertNotEqual(code, 0)
                self.assertIn("Connection refused", err)
        code, _, err = self.box.run("exec 3<>/dev/tcp/192.0.2.1/80")
        self.assertIn("Network is unreachable", err)

    def test_the_sandbox_has_a_loopback_of_its_own(self):
        program = ("import socket; a = socket.create_server(('127.0.0.1', 7)) if 0 else "
                   "socket.create_server(('127.0.0.1', 8080)); "
                   "b = socket.create_connection(('127.0.0.1', 8080)); print('connected')")
        self.assertEqual(self.box.output(f'python3 -c "{program}"'), "connected\n")

    def test_abstract_sockets_of_the_host_cannot_be_reached(self):
        name = f"sandboxd-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("\0" + name)
            listener.listen()
            code, _, err = self.box.run(
                f"python3 -c \"import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')\"")
        self.assertNotEqual(code, 0)
        self.assertIn("Connection refused", err)

    def test_every_namespace_is_another(self):
        for name in "user", "mnt", "pid", "net", "ipc", "uts", "cgroup":
            inside = self.box.output(f"readlink /proc/self/ns/{name}").strip()
            self.assertRegex(inside, rf"{name}:\[\d+\]")
            self.assertNotEqual(inside, os.readlink(f"/proc/self/ns/{name}"))

    def test_there_are_no_capabilities_and_no_new_privileges(self):
        status = self.box.output("cat /proc/self/status")
        for name in "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb":
            self.assertIn(f"{name}:\t0000000000000000\n", status)
        self.assertIn("NoNewPrivs:\t1\n", status)
        self.assertEqual(self.box.output("id -u; id -g; id -un; hostname").split(),
                         ["1000", "1000", "user", "sandbox"])

    def test_root_is_not_the_user_of_a_sandbox_outside_either(self):
        if os.getuid() != 0:
            self.skipTest("sandboxes run as the user who runs sandboxd")
        status = Path(f"/proc/{self.box.agent()}/status").read_text()
        self.assertEqual(re.findall(r"^[UG]id:\t(\d+)\t(\d+)\t(\d+)\t(\d+)$", status, re.M),
                         [("1879048192",) * 4] * 2)
        self.assertRegex(status, r"\nGroups:\s*\n")

    def test_no_further_user_namespace_can_be_made(self):
        if "--disable-userns" not in subprocess.run(["bwrap", "--help"], capture_output=True,
                                                    text=True).stdout:
            self.skipTest("this bubblewrap cannot forbid it")
        self.assertNotEqual(self.box.run("unshare --user true")[0], 0)

    def test_a_sandbox_sees_nothing_of_another(self):
        with self.server.create() as other:
            other.output("echo other > /tmp/secret; mkdir /app; echo other > /app/secret")
            with other.started("sleep 100.0713") as (ws, started):
                self.assertEqual(
                    self.box.run("cat /tmp/secret /app/secret; "
                                 "grep -az [1]00.0713 /proc/*/cmdline")[1], "")
                self.assertNotEqual(
                    self.box.output("readlink /proc/self/ns/net"),
                    other.output("readlink /proc/self/ns/net"))
                self.box.run(f"kill -9 {started['pid']} -1")
                ws.send(type="kill")
                self.assertEqual(ws.rest(), ([{"type": "exit", "exit_code": 137}], 1000))

    def test_commands_cannot_look_into_the_agent_or_end_it(self):
        for command in "cat /proc/1/mem", "cat /proc/1/environ", "cat /proc/1/maps", \
                "ls /proc/1/fd", "cat /proc/1/fd/3", "cat /proc/1/exe", "ls /proc/1/root/", \
                "ls /proc/1/cwd/":
            code, out, _ = self.box.run(command)
            self.assertNotEqual(code, 0, command)
            self.assertEqual(out, "", command)
        program = ("import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); "
                   "r = libc.ptrace(16, 1, 0, 0); print(r, os.strerror(ctypes.get_errno()))")
        self.assertEqual(self.box.output(f'python3 -c "{program}"'), "-1 Operation not permitted\n")
        # Sanitizers handle faults, and so make process 1 take notice of SIGSEGV.
        self.box.run("kill -9 1; kill -STOP 1; kill -TERM 1; kill -9 -1" +
                     ("" if SANITIZED else "; kill -SEGV 1; kill -9 -1"))
        self.assertEqual(self.box.output("echo still there"), "still there\n")

    def test_commands_inherit_nothing(self):
        self.assertEqual(self.box.output("exec 2>/dev/null; ls -1 /proc/self/fd; cat "
                                         "/proc/self/environ | tr '\\0' '\\n' | sort"),
                         "0\n1\n2\n3\nHOME=/home/user\nLANG=C.UTF-8\n"
                         "PATH=/home/user/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:"
                         "/usr/bin:/sbin:/bin\nPWD=/home/user\nSHLVL=1\n_=/usr/bin/cat\n")
        signals = self.box.output("grep -E 'Sig(Blk|Ign)' /proc/self/status")
        self.assertEqual(signals.split()[1::2], ["0" * 16, "0" * 16])

    def test_the_api_key_cannot_be_found(self):
        with Server(env={"SANDBOXD_API_KEY": "the-secret-key"}, key="the-secret-key") as server, \
                server.create() as box:
            self.assertEqual(box.run("exec 2>/dev/null; grep -a the-secret[-]key /proc/*/environ "
                                     "/proc/*/cmdline /proc/1/mem; grep -r the-secret[-]key "
                                     "/.sandboxd /etc /run /tmp /home")[1], "")
            command = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
            self.assertNotIn(b"secret", command)

    def test_an_api_key_among_the_options_is_wiped_there(self):
        with Server("--api-key", "the-secret-key", key="the-secret-key") as server:
            command = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
            self.assertNotIn(b"secret", command)
            self.assertEqual(server.call("GET", "/boxes").status, 200)

    def test_shared_memory_of_the_host_cannot_be_seen(self):
        made = subprocess.run(["ipcmk", "-M", "4096"], capture_output=True, text=True)
        if made.returncode != 0:
            self.skipTest("ipcmk does not work here")
        number = made.stdout.split()[-1]
        try:
            self.assertEqual(self.box.output("tail -n +2 /proc/sysvipc/shm"), "")
        finally:
            subprocess.run(["ipcrm", "-m", number], check=True)


# ---- images ----

def copy_program(path, root):
    """Copies a program and the libraries that it needs."""
    for name in [path] + re.findall(r"(/\S+) \(", subprocess.run(
            ["ldd", path], capture_output=True, text=True).stdout):
        target = Path(str(root) + name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, target)


class Images(WithServer):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        os.chmod(cls.directory.name, 0o700)
        root = cls.root = Path(cls.directory.name) / "root"
        (root / "usr/bin").mkdir(parents=True)
        (root / "bin").symlink_to("usr/bin")
        for name in "bash", "cat", "ls", "touch":
            copy_program(shutil.which(name), root)
        copy_program(str(SANDBOXD), root)  # for its libraries, where it is not static
        shutil.copy(shutil.which("bash"), root / "usr/bin/sh")
        (root / "etc").mkdir()
        (root / "etc/release").write_text("a small image\n")
        (root / "etc/passwd").write_text("someone:x:5:5::/:/bin/sh\n")
        (root / "etc/link").symlink_to("/etc/machine-id")
        (root / "etc/host").symlink_to("/etc/shadow")
        (root / "opt").mkdir()
        (root / "opt/private").write_text("only for root")
        os.chmod(root / "opt/private", 0o600)
        (root / "outside").symlink_to(cls.directory.name)
        cls.server = Server("--image", f"small={root}", "--image", "other=/usr/share")
        cls.server.call("POST", "/templates", {"name": "t", "image": "small"})
        cls.server.call("POST", "/templates", {"name": "u", "image": "unknown:1"})
        cls.box = cls.server.create(template_name="t")

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.directory.cleanup()

    def test_an_image_is_the_root(self):
        self.assertEqual(self.box.output("cat /etc/release; ls /usr/bin; cat /etc/passwd"),
                         "a small image\nbash\ncat\nls\nsh\ntouch\n"
                         "user:x:1000:1000:user:/home/user:/bin/bash\nsomeone:x:5:5::/:/bin/sh\n")
        self.assertEqual(self.box.document["template_name"], "t")

    def test_an_image_is_read_only_and_the_rest_is_not(self):
        for path in "/usr/bin/x", "/opt/x", "/etc/release":
            self.assertNotEqual(self.box.run(f"echo x > {path}")[0], 0, path)
        self.assertEqual(self.box.run("touch /x /etc/x /tmp/x")[0], 0)
        self.assertFalse((self.root / "x").exists())
        self.assertEqual((self.root / "etc/release").read_text(), "a small image\n")

    def test_links_of_an_image_do_not_lead_to_the_host(self):
        self.assertEqual(self.box.run("cat /etc/link /etc/host; ls /outside/")[1], "")

    def test_files_of_root_cannot_be_read(self):
        if os.getuid() != 0:
            self.skipTest("only root can make such a file")
        self.assertEqual(self.box.run("cat /opt/private")[:2], (1, ""))

    def test_an_unknown_image_fails_a_creation_that_waits(self):
        reply = self.server.call("POST", "/boxes", {"template_name": "u", "wait_for_ready": True})
        self.expect_error(reply, 422, "ImagePull", "unknown:1")
        left = self.server.call("GET", "/boxes").json["sandboxes"]
        self.assertEqual([box["name"] for box in left], [self.box.name])

    def test_an_unknown_image_shows_as_failed_otherwise(self):
        reply = self.server.call("POST", "/boxes", {"template_name": "u", "name": "f",
                                                    "wait_for_ready": False})
        self.assertEqual((reply.status, reply.json["status"]), (201, "provisioning"))
        reply = self.server.call("GET", "/boxes/f/status")
        self.assertEqual(reply.json["status"], "failed")
        self.assertIn("unknown:1", reply.json["status_message"])
        self.assertIsNone(self.server.call("GET", "/boxes/f").json["dataplane_url"])
        self.assertEqual(self.server.call("DELETE", "/boxes/f").status, 204)


# ---- control plane ----

class ControlPlane(WithServer):
    def test_a_template_can_be_made_got_listed_renamed_and_deleted(self):
        reply = self.server.call("POST", "/templates", {"name": "a", "image": "python:3.12-slim",
                                                        "labels": {"unknown": 1}})
        self.assertEqual(reply.status, 201)
        made = reply.json
        self.assertRegex(made["id"], f"^{UUID}$")
        self.assertRegex(made["created_at"], f"^{TIME}$")
        self.assertRegex(made["updated_at"], f"^{TIME}$")
        self.assertEqual({**made, "id": 0, "created_at": 0, "updated_at": 0},
                         {"id": 0, "name": "a", "image": "python:3.12-slim", "created_at": 0,
                          "updated_at": 0, "volume_mounts": [],
                          "resources": {"cpu": "500m", "memory": "512Mi", "storage": None}})
        self.assertEqual(self.server.call("GET", "/templates/a").json, made)
        self.assertIn(made, self.server.call("GET", "/templates").json["templates"])
        renamed = self.server.call("PATCH", "/templates/a", {"name": "b"})
        self.assertEqual((renamed.status, renamed.json["name"]), (200, "b"))
        self.expect_error(self.server.call("GET", "/templates/a"), 404, "TemplateNotFound")
        self.assertEqual(self.server.call("DELETE", "/templates/b").status, 204)
        self.expect_error(self.server.call("DELETE", "/templates/b"), 404, "TemplateNotFound")
        self.expect_error(self.server.call("PATCH", "/templates/b", {"name": "c"}), 404,
                          "TemplateNotFound")

    def test_resources_are_kept(self):
        reply = self.server.call("POST", "/templates", {
            "name": "r", "image": "i",
            "resources": {"cpu": "1.5", "memory": "1Gi", "storage": "2G"}})
        self.assertEqual(reply.json["resources"], {"cpu": "1.5", "memory": "1Gi", "storage": "2G"})

    def test_a_template_is_checked(self):
        good = {"name": "bad", "image": "i"}
        for change, *loc in (
                ({"name": None}, "name"), ({"name": ""}, "name"), ({"name": 5}, "name"),
                ({"name": "a\nb"}, "name"), ({"name": "x" * 1025}, "name"),
                ({"image": None}, "image"), ({"image": ["i"]}, "image"),
                ({"resources": "much"}, "resources"),
                ({"resources": {"cpu": "much"}}, "resources", "cpu"),
                ({"resources": {"cpu": 1}}, "resources", "cpu"),
                ({"resources": {"memory": "512Mb"}}, "resources", "memory"),
                ({"resources": {"storage": "-1"}}, "resources", "storage"),
                ({"volume_mounts": 1}, "volume_mounts"),
                ({"volume_mounts": [{"volume_name": "v", "mount_path": "/v"}]},
                 "volume_mounts", 0, "volume_name")):
            with self.subTest(change=change):
                self.expect_problem(self.server.call("POST", "/templates", {**good, **change}),
                                    "body", *loc)
        both = self.server.call("POST", "/templates", {})
        self.assertEqual([problem["loc"] for problem in both.detail],
                         [["body", "name"], ["body", "image"]])
        self.assertEqual(self.server.call("GET", "/templates/bad").status, 404)

    def test_names_of_templates_are_unique(self):
        for name in "u1", "u2":
            self.assertEqual(self.server.call("POST", "/templates",
                                              {"name": name, "image": "i"}).status, 201)
        self.expect_error(self.server.call("POST", "/templates", {"name": "u1", "image": "i"}), 409,
                          "AlreadyExists")
        self.expect_error(self.server.call("PATCH", "/templates/u1", {"name": "u2"}), 409,
                          "NameConflict")
        self.assertEqual(self.server.call("PATCH", "/templates/u1", {"name": "u1"}).status, 200)

    def test_a_template_in_use_cannot_be_deleted(self):
        self.server.call("POST", "/templates", {"name": "used", "image": "i"})
        with self.server.create(template_name="used") as box:
            self.expect_error(self.server.call("DELETE", "/templates/used"), 409, "ResourceInUse")
            self.server.call("PATCH", "/templates/used", {"name": "used2"})
            self.assertEqual(self.server.call("GET", f"/boxes/{box.name}").json["template_name"],
                             "used2")
        self.assertEqual(self.server.call("DELETE", "/templates/used2").status, 204)

    def test_a_sandbox_can_be_made_got_listed_renamed_and_deleted(self):
        others = descendants(self.server.process.pid)
        with self.server.create(name="box 1/..%\u00e4") as box:
            processes = set(descendants(self.server.process.pid)) - set(others)
            made = box.document
            self.assertRegex(made["id"], f"^{UUID}$")
            self.assertRegex(made["created_at"], f"^{TIME}$")
            self.assertRegex(made["dataplane_url"], r"^http://127\.0\.0\.1:\d+$")
            self.assertEqual((made["name"], made["status"], made["status_message"],
                              made["template_name"]), ("box 1/..%\u00e4", "ready", None, None))
            path = "/boxes/" + quote(box.name, safe="")
            self.assertEqual(self.server.call("GET", path).json, made)
            self.assertIn(made, self.server.call("GET", "/boxes").json["sandboxes"])
            self.assertEqual(self.server.call("GET", path + "/status").json,
                             {"status": "ready", "status_message": None})
            renamed = self.server.call("PATCH", path, {"name": "box2", "idle_ttl_seconds": 60})
            self.assertEqual((renamed.status, renamed.json["name"], renamed.json["id"]),
                             (200, "box2", made["id"]))
            self.expect_error(self.server.call("GET", path), 404, "SandboxNotFound")
            self.expect_error(self.server.call("PATCH", "/boxes/box2", {"name": self.box.name}),
                              409, "NameConflict")
            self.assertEqual(self.server.call("PATCH", "/boxes/box2", {}).json["name"], "box2")
            self.assertEqual(box.output("echo works"), "works\n")
            self.assertGreaterEqual(len(alive(processes)), 2)
            self.assertEqual(self.server.call("DELETE", "/boxes/box2").status, 204)
            if SANITIZED:  # processes take longer to go
                wait_until(lambda: not alive(processes), 5)
            self.assertEqual(alive(processes), [])
            self.expect_error(self.server.call("DELETE", "/boxes/box2"), 404, "SandboxNotFound")
            self.expect_error(self.server.call("GET", "/boxes/box2/status"), 404, "SandboxNotFound")
            with self.assertRaises(ConnectionRefusedError):
                wire.dial(made["dataplane_url"])

    def test_names_are_made_where_none_is_given(self):
        with self.server.create() as a, self.server.create() as b:
            self.assertRegex(a.name, "^sandbox-[0-9a-f]{12}$")
            self.assertNotEqual(a.name, b.name)

    def test_a_creation_that_does_not_wait_shows_provisioning_first(self):
        reply = self.server.call("POST", "/boxes", {"wait_for_ready": False, "name": "later"})
        self.assertEqual((reply.status, reply.json["status"]), (201, "provisioning"))
        self.assertTrue(wait_until(lambda: self.server.call(
            "GET", "/boxes/later/status").json["status"] == "ready"))
        with Sandbox(self.server, self.server.call("GET", "/boxes/later").json) as box:
            self.assertEqual(box.output("echo works"), "works\n")

    def test_a_creation_that_is_not_done_in_time_leaves_nothing(self):
        reply = self.server.call("POST", "/boxes", {"wait_for_ready": True, "timeout": 0.001,
                                                    "name": "late"})
        self.expect_error(reply, 408, "Timeout")
        self.assertEqual(self.server.call("GET", "/boxes/late").status, 404)

    def test_a_deletion_behind_a_creation_that_fails_finds_nothing(self):
        deletion = b"DELETE /v2/sandboxes/boxes/late HTTP/1.1\r\nHost: x\r\n\r\n"
        body = b'{"name":"late","timeout":0}'
        with wire.dial(self.server.url) as connection:
            connection.sendall(b"POST /v2/sandboxes/boxes HTTP/1.1\r\nHost: x\r\nContent-Length: "
                               b"%d\r\n\r\n%s%s" % (len(body), body, deletion))
            replies = b""
            while replies.count(b"}}") < 2 and (data := connection.recv(65536)):
                replies += data
        self.assertEqual(re.findall(rb"HTTP/1.1 (\d+)", replies), [b"408", b"404"])
        self.assertEqual(self.server.call("GET", "/boxes/late").status, 404)

    def test_a_sandbox_is_checked(self):
        for document, *loc in (
                ({"name": 1}, "name"), ({"name": "\u0001"}, "name"),
                ({"timeout": "long"}, "timeout"),
                ({"timeout": -1}, "timeout"), ({"wait_for_ready": "yes"}, "wait_for_ready"),
                ({"template_name": []}, "template_name"),
                ({"template_name": "t", "snapshot_id": "s"}, "template_name")):
            with self.subTest(document=document):
                self.expect_problem(self.server.call("POST", "/boxes", document), "body", *loc)
        for body in b"[]", b"1", b"":
            reply = self.server.call("POST", "/boxes", body=body)
            self.expect_problem(reply, "body")
        self.expect_error(self.server.call("POST", "/boxes", {"name": self.box.name}), 409,
                          "AlreadyExists")
        self.expect_error(self.server.call("POST", "/boxes", {"template_name": "none"}), 404,
                          "TemplateNotFound")
        for field in "snapshot_id", "snapshot_name":
            self.expect_error(self.server.call("POST", "/boxes", {field: "none"}), 404,
                              "SnapshotNotFound")

    def test_a_sandbox_whose_process_ends_has_failed(self):
        with Server() as server, server.create(name="dies") as box:
            os.kill(box.agent(), signal.SIGKILL)
            self.assertTrue(wait_until(lambda: server.call(
                "GET", "/boxes/dies/status").json["status"] == "failed"))
            document = server.call("GET", "/boxes/dies").json
            self.assertIn("ended", document["status_message"])
            self.assertIsNone(document["dataplane_url"])

    def test_both_base_paths_are_served_and_nothing_else(self):
        origin = self.server.origin
        for path in "/v2/sandboxes/boxes", "/api/v2/sandboxes/boxes", "/v2/sandboxes/boxes?x=1":
            self.assertEqual(wire.request(origin + path).status, 200, path)
        for path in "/", "/boxes", "/v2/sandboxes", "/v2/sandboxes/", "/v2/sandboxes/boxes/", \
                "/v2/sandboxes/snapshots", "/v2/sandboxesx/boxes", "/v1/sandboxes/boxes", \
                "/v2/sandboxes/boxes/a/b/c/d/e/f/g/h/i/j", "/v2/sandboxes/boxes/x%00y", \
                "/v2/sandboxes/boxes/x%zz", "/v2/sandboxes/../sandboxes/boxes", "*":
            reply = wire.request(f"{origin}/x", headers={}) if path == "*" else \
                wire.request(origin + path)
            self.assertIn(reply.status, (400, 404), path)
            self.assertIn("message", reply.detail, path)

    def test_wrong_methods_are_refused_with_the_right_ones(self):
        for method, path, allow in (
                ("PUT", "/boxes", "POST, GET, HEAD"), ("DELETE", "/templates", "POST, GET, HEAD"),
                ("POST", "/boxes/x", "GET, HEAD, PATCH, DELETE"), ("BREW", "/boxes/x/status",
                                                                   "GET, HEAD")):
            reply = self.server.call(method, path)
            self.assertEqual((reply.status, reply.headers["Allow"]), (405, allow))

    def test_head_is_get_without_the_body(self):
        get, head = self.server.call("GET", "/boxes"), self.server.call("HEAD", "/boxes")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.headers["Content-Length"], get.headers["Content-Length"])

    def test_many_sandboxes_can_be_made_at_once(self):
        made, errors = [], []

        def make():
            try:
                with self.server.create() as box:
                    made.append(box.output("echo $((6 * 7))"))
            except Exception as error:  # pylint: disable=broad-except
                errors.append(error)
        threads = [threading.Thread(target=make) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((made, errors), (["42\n"] * 12, []))


class Keys(WithServer):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--api-key", "right", key="right")
        cls.box = cls.server.create()

    def test_both_planes_refuse_requests_without_the_key(self):
        for headers in {}, {"X-Api-Key": ""}, {"X-Api-Key": "wrong"}, {"X-Api-Key": "right "[:4]}, \
                {"X-Api-Key": "rightx"}, {"Authorization": "right"}:
            for url, method in ((f"{self.server.url}/boxes", "GET"),
                                (f"{self.server.url}/boxes", "POST"),
                                (f"{self.server.url}/nothing", "GET"),
                                (f"{self.box.url}/execute", "POST"),
                                (f"{self.box.url}/download?path=/etc/passwd", "GET"),
                                (f"{self.box.url}/upload?path=/tmp/x", "POST")):
                reply = wire.request(url, method, headers=headers)
                self.expect_error(reply, 401, "Unauthorized")
                self.assertNotIn("passwd", str(reply))

    def test_a_websocket_without_the_key_is_refused(self):
        with self.assertRaises(Refused) as refused:
            WebSocket(f"{self.box.url}/execute/ws")
        self.assertEqual(refused.exception.status, 401)
        self.assertEqual(self.box.stream("echo hi")[0][0]["data"], "hi\n")

    def test_the_header_may_be_written_in_any_case_and_come_twice(self):
        for lines in b"X-API-KEY: right", b"x-api-key:right", \
                b"x-api-key: wrong\r\nX-Api-Key: right":
            reply = wire.raw(self.server.url, b"GET /v2/sandboxes/boxes HTTP/1.1\r\nHost: x\r\n" +
                             lines + b"\r\nConnection: close\r\n\r\n")
            self.assertTrue(reply.startswith(b"HTTP/1.1 200 "), reply)

    def test_a_large_body_without_the_key_is_answered_all_the_same(self):
        reply = wire.request(f"{self.box.url}/upload?path=/tmp/x", "POST", body=b"x" * (8 << 20))
        self.assertEqual(reply.status, 401)

    def test_every_key_is_right_where_none_is_set(self):
        with Server() as server:
            for headers in {}, {"X-Api-Key": "any"}:
                self.assertEqual(server.call("GET", "/boxes", headers=headers).status, 200)

    def test_web_pages_are_refused_where_no_key_is_set(self):
        with Server() as server, server.create() as box:
            for page in {"Origin": "http://evil.example"}, {"Origin": "null"}, \
                    {"Origin": server.origin + "0"}, {"Origin": "http://a:1", "Host": "a:1"}:
                self.assertEqual(server.call("POST", "/boxes", {}, headers=page).status, 403)
                self.assertEqual(wire.request(f"{box.url}/execute", "POST", {"command": "true"},
                                              headers=page).status, 403)
                with self.assertRaises(Refused) as refused:
                    WebSocket(f"{box.url}/execute/ws", page)
                self.assertEqual(refused.exception.status, 403)
            own = {"Origin": server.origin}
            self.assertEqual(server.call("GET", "/boxes", headers=own).status, 200)


# ---- commands over HTTP ----

class Execute(WithServer):
    def test_a_command_gives_its_output_and_exit_code(self):
        reply = self.box.execute("echo out; echo err >&2; exit 3")
        self.assertEqual((reply.status, reply.json),
                         (200, {"stdout": "out\n", "stderr": "err\n", "exit_code": 3}))

    def test_environment_directory_and_shell_are_the_callers(self):
        self.assertEqual(self.box.run("echo $A $HOME; pwd", env={"A": "1 2", "HOME": "/x"},
                                      cwd="/usr"), (0, "1 2 /x\n/usr\n", ""))
        self.assertEqual(self.box.output("mkdir -p ~/a; pwd"), "/home/user\n")
        self.assertEqual(self.box.output("pwd", cwd="a"), "/home/user/a\n")
        self.assertEqual(self.box.output("print(6 * 7)", shell="/usr/bin/python3"), "42\n")
        self.assertEqual(self.box.output("echo $0", shell="sh"), "sh\n")

    def test_run_config_stands_for_environment_and_directory(self):
        config = {"work_dir": "/usr", "env_vars": {"A": "1 2"}, "user": "user"}
        self.assertEqual(self.box.run("echo $A; pwd", run_config=config), (0, "1 2\n/usr\n", ""))
        self.assertEqual(self.box.run("pwd", cwd="/usr", run_config=None), (0, "/usr\n", ""))
        with self.box.started("echo $A; pwd", run_config=config) as (ws, _):
            self.assertEqual(joined(ws.rest()[0], "stdout"), "1 2\n/usr\n")

    def test_input_is_at_its_end(self):
        self.assertEqual(self.box.run("cat; echo done"), (0, "done\n", ""))

    def test_a_killed_command_has_128_and_the_signal_as_exit_code(self):
        self.assertEqual(self.box.run("kill -9 $$")[0], 137)
        self.assertEqual(self.box.run("kill -TERM $$")[0], 143)

    def test_a_command_that_runs_too_long_is_killed_with_its_children(self):
        start = time.monotonic()
        reply = self.box.execute("sleep 100.1 & sleep 100.2", timeout=0.3)
        self.expect_error(reply, 408, "CommandError", "timed out after 0.3 seconds")
        self.assertLess(time.monotonic() - start, 3)
        self.assertEqual(self.box.output("pgrep -f 'sleep [1]00'"), "")

    def test_a_command_that_cannot_start_is_an_error(self):
        for fields, message in (({"shell": "/bin/none"}, "cannot run /bin/none: No such file"),
                                ({"shell": "/etc"}, "cannot run /etc: Permission denied"),
                                ({"cwd": "/none"}, "directory /none: No such file"),
                                ({"cwd": "/etc/passwd"}, "Not a directory"),
                                ({"command": "x" * 200000}, "Argument list too long")):
            reply = self.box.execute(**{"command": "true", **fields})
            self.expect_error(reply, 400, "CommandError", message)

    def test_fields_are_checked(self):
        for fields, *loc in (({"command": None}, "command"), ({"command": 1}, "command"),
                             ({"command": "a\0b"}, "command"), ({"timeout": "1"}, "timeout"),
                             ({"timeout": -1}, "timeout"), ({"shell": {}}, "shell"),
                             ({"env": []}, "env"), ({"env": {"A": 1}}, "env", "A"),
                             ({"env": {"A=": "1"}}, "env"), ({"env": {"": "1"}}, "env"),
                             ({"cwd": 1}, "cwd"), ({"run_config": []}, "run_config"),
                             ({"cwd": "/", "run_config": {}}, "run_config"),
                             ({"env": {}, "run_config": {}}, "run_config"),
                             ({"run_config": {"user": "other"}}, "run_config", "user"),
                             ({"run_config": {"work_dir": 1}}, "work_dir"),
                             ({"run_config": {"env_vars": {"A": 1}}}, "env_vars", "A")):
            document = {"command": "true", **fields}
            reply = wire.request(f"{self.box.url}/execute", "POST", document)
            self.expect_problem(reply, "body", *loc)

    def test_invalid_utf8_becomes_replacement_characters(self):
        data = bytes(range(256)) + b"\xe2\x82" + b"\xf0\x9f\x98\x80" + b"\xed\xa0\x80\xf4\x90"
        wire.upload(self.box.url, "/tmp/bytes", data)
        self.assertEqual(self.box.output("cat /tmp/bytes"), data.decode("utf-8", "replace"))

    def test_output_that_is_too_large_for_http_is_an_error(self):
        reply = self.box.execute("head -c 20000000 /dev/zero | tr '\\0' x; sleep 10")
        self.expect_error(reply, 400, "CommandError", "larger than")
        self.assertEqual(len(self.box.output("head -c 8000000 /dev/zero | tr '\\0' x")), 8000000)

    def test_a_command_is_killed_when_its_client_goes(self):
        with wire.dial(self.box.url) as connection:
            body = b'{"command": "sleep 100.3", "timeout": 100}'
            connection.sendall(b"POST /execute HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                               % (len(body), body))
            self.assertTrue(wait_until(lambda: self.box.output("pgrep -f 'sleep [1]00.3'")))
        self.assertTrue(wait_until(lambda: not self.box.output("pgrep -f 'sleep [1]00.3'")))

    def test_children_that_keep_the_pipes_do_not_delay_the_answer(self):
        start = time.monotonic()
        self.assertEqual(self.box.run("sleep 5 & echo done"), (0, "done\n", ""))
        self.assertLess(time.monotonic() - start, 2)
        self.assertEqual(self.box.output("pgrep -c sleep; pkill sleep"), "1\n")

    def test_children_may_go_on_writing_when_the_command_is_over(self):
        self.assertEqual(self.box.run("(sleep 0.5; echo late || echo broken > /tmp/late; "
                                      "echo alive > /tmp/late) & echo done")[1], "done\n")
        self.assertTrue(wait_until(lambda: self.box.output("cat /tmp/late") == "alive\n"))

# ---- files ----

class Files(WithServer):
    def test_bytes_come_back_as_they_were(self):
        for data in b"", b"\x00\x01\x02\x03", bytes(range(256)) * 5000, \
                b"\r\n--boundary012\r\n" * 99:
            self.assertEqual(wire.upload(self.box.url, "/tmp/f", data).status, 200)
            reply = wire.download(self.box.url, "/tmp/f")
            self.assertEqual((reply.status, reply.body), (200, data))
            self.assertEqual(reply.headers["Content-Length"], str(len(data)))

    def test_relative_paths_start_at_home_and_directories_are_made(self):
        reply = wire.upload(self.box.url, "a b+c/d\u00e4/%x", b"1")
        self.assertEqual(reply.json, {"path": "/home/user/a b+c/d\u00e4/%x", "size": 1})
        self.assertEqual(self.box.output("cat '/home/user/a b+c/d\u00e4/%x'"), "1")
        self.assertEqual(wire.download(self.box.url, "a b+c/d\u00e4/%x").body, b"1")
        self.assertEqual(wire.upload(self.box.url, "/app/deep/er/a.py", b"print(1)").status, 200)
        self.assertEqual(self.box.output("python3 /app/deep/er/a.py"), "1\n")

    def test_both_ways_of_writing_a_space_are_understood(self):
        wire.upload(self.box.url, "/tmp/a b+c", b"1")
        for query in "/tmp/a+b%2Bc", "%2Ftmp%2Fa%20b%2Bc":
            self.assertEqual(wire.request(f"{self.box.url}/download?path={query}").body, b"1")

    def test_an_upload_keeps_the_mode_and_follows_links(self):
        self.box.output("cd /tmp; touch s plain; chmod 750 s; ln -sf s link")
        for path in "/tmp/link", "/tmp/s", "/tmp/plain":
            self.assertEqual(wire.upload(self.box.url, path, b"new").status, 200)
        self.assertEqual(self.box.output("cd /tmp; stat -c %a:%F s plain link; cat s link"),
                         "750:regular file\n644:regular file\n777:symbolic link\nnewnew")

    def test_failures_of_an_upload_are_write_errors(self):
        self.box.output("mkdir -p /tmp/dir; echo x > /tmp/file; mkfifo /tmp/fifo; "
                        "mkdir /tmp/closed; chmod 500 /tmp/closed")
        for path, status, message in (
                ("/tmp/dir", 400, "Is a directory"), ("/tmp/dir/", 400, "Is a directory"),
                ("/tmp/file/x", 400, "Not a directory"), ("/usr/x", 403, "Read-only file system"),
                ("/usr/x/y", 403, "Read-only file system"), ("/usr/bin/env", 403, "Read-only"),
                ("/tmp/closed/x", 403, "Permission denied"),
                ("/tmp/fifo", 400, "not a regular file"),
                ("/dev/null", 400, "not a regular file"), ("/tmp/" + "x" * 300, 400, "too long"),
                ("/" + "x/" * 3000 + "x", 400, "too long")):
            with self.subTest(path=path[:50]):
                self.expect_error(wire.upload(self.box.url, path, b"x" * 100000), status,
                                  "WriteError", message)
        self.assertEqual(self.box.output("find / -name '.upload-*' 2>/dev/null"), "")

    def test_a_part_of_a_file_can_be_read(self):
        wire.upload(self.box.url, "/tmp/ten", b"0123456789")
        for asked, part, where in (("0-3", b"0123", "0-3"), ("4-", b"456789", "4-9"),
                                   ("9-9", b"9", "9-9"), ("8-99", b"89", "8-9"),
                                   ("-3", b"789", "7-9"), ("-99", b"0123456789", "0-9"),
                                   ("2-" + "9" * 30, b"23456789", "2-9")):
            reply = wire.download(self.box.url, "/tmp/ten", headers={"Range": f"bytes={asked}"})
            self.assertEqual((reply.status, reply.body, reply.headers["content-range"]),
                             (206, part, f"bytes {where}/10"), asked)
            self.assertEqual(reply.headers["content-length"], str(len(part)))
        for asked in "10-", "10-12", "-0", "9" * 30 + "-":
            reply = wire.download(self.box.url, "/tmp/ten", headers={"Range": f"bytes={asked}"})
            self.assertEqual((reply.status, reply.headers["content-range"]), (416, "bytes */10"))
        for asked in ("bytes=", "bytes=-", "bytes=3", "bytes=3-2", "bytes=1-2,4-5", "bytes=a-b",
                      "bytes=1-b", "bytes=-5x", "lines=1-2", "b"):
            reply = wire.download(self.box.url, "/tmp/ten", headers={"Range": asked})
            self.assertEqual((reply.status, reply.body), (200, b"0123456789"), asked)
        reply = wire.download(self.box.url, "/tmp/ten", "HEAD", {"Range": "bytes=1-2"})
        self.assertEqual((reply.status, reply.headers["content-length"]), (200, "10"))
        wire.upload(self.box.url, "/tmp/zero", b"")
        reply = wire.download(self.box.url, "/tmp/zero", headers={"Range": "bytes=0-"})
        self.assertEqual((reply.status, reply.headers["content-range"]), (416, "bytes */0"))
        reply = wire.download(self.box.url, "/proc/self/status", headers={"Range": "bytes=0-3"})
        self.assertEqual((reply.status, "etag" in reply.headers), (200, False))

    def test_a_file_that_has_not_changed_is_not_sent_again(self):
        def reply(**headers):
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            return wire.download(self.box.url, "/tmp/tagged", headers=names)
        wire.upload(self.box.url, "/tmp/tagged", b"one")
        tag = reply().headers["etag"]
        self.assertRegex(tag, r'^"[0-9a-f.-]+"$')
        self.assertRegex(reply().headers["last-modified"], r"^\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT$")
        self.assertEqual(reply().headers["etag"], tag)
        for known in tag, "*", f'"x", W/{tag}':
            again = reply(If_None_Match=known, Range="bytes=1-")
            self.assertEqual((again.status, again.body, again.headers["etag"]), (304, b"", tag))
            self.assertNotIn("content-range", again.headers)
            self.assertNotIn("content-length", again.headers)
        self.assertEqual(reply(If_Range=tag, Range="bytes=1-").body, b"ne")
        wire.upload(self.box.url, "/tmp/tagged", b"two")
        self.assertEqual(reply(If_None_Match=tag).body, b"two")
        changed = reply(If_Range=tag, Range="bytes=1-")
        self.assertEqual((changed.status, changed.body), (200, b"two"))
        self.assertNotEqual(changed.headers["etag"], tag)

    def test_failures_of_a_download_say_what_they_are(self):
        for path in "/tmp/none", "none", "/etc/passwd/x", "/tmp/\u20ac":
            self.expect_error(wire.download(self.box.url, path), 404, "FileNotFound",
                              "File not found")
        for path in "/tmp", "/dev/null", "/proc/self/task":
            self.expect_error(wire.download(self.box.url, path), 400, "ReadError")
        self.expect_error(wire.download(self.box.url, "/proc/1/environ"), 403, "ReadError")
        start = time.monotonic()
        self.box.output("mkfifo /tmp/pipe")
        self.expect_error(wire.download(self.box.url, "/tmp/pipe"), 400, "ReadError")
        self.assertLess(time.monotonic() - start, 2)

    def test_a_path_is_required(self):
        body, kind = wire.multipart(b"x")
        for query in "", "?path=", "?x=1", "?path=a%00b", "?path=%zz":
            reply = wire.request(f"{self.box.url}/upload{query}", "POST", body=body,
                                 headers={"Content-Type": kind})
            self.expect_problem(reply, "query", "path")
            self.expect_problem(wire.request(f"{self.box.url}/download{query}"), "query", "path")

    def test_wrong_bodies_of_an_upload_are_refused(self):
        good, kind = wire.multipart(b"data")
        url = f"{self.box.url}/upload?path=/tmp/refused"
        for body, content_type in ((good, "text/plain"), (good, "multipart/form-data"),
                                   (good[:-10], kind), (b"", kind), (b"x" * 1000, kind),
                                   (good, kind + "x"), (b"--boundary0123\r\n\r\nx", kind)):
            reply = wire.request(url, "POST", body=body, headers={"Content-Type": content_type})
            self.assertEqual(reply.status, 400, (body[:50], content_type))
        other, _ = wire.multipart(b"data", name="other")
        self.expect_problem(wire.request(url, "POST", body=other, headers={"Content-Type": kind}),
                            "body", "file")
        twice = good[:-len("--boundary0123--\r\n")] + good
        self.expect_problem(wire.request(url, "POST", body=twice, headers={"Content-Type": kind}),
                            "body", "file")
        self.assertEqual(wire.download(self.box.url, "/tmp/refused").status, 404)
        self.assertEqual(self.box.output("ls -A /tmp | grep upload"), "")

    def test_an_upload_that_breaks_off_leaves_nothing(self):
        self.box.output("echo old > /tmp/kept")
        with wire.dial(self.box.url) as connection:
            connection.sendall(b"POST /upload?path=/tmp/kept HTTP/1.1\r\nHost: x\r\n"
                               b"Content-Type: multipart/form-data; boundary=b\r\n"
                               b"Content-Length: 100000\r\n\r\n--b\r\n"
                               b'Content-Disposition: form-data; name="file"\r\n\r\nhalf')
            self.assertTrue(wait_until(lambda: ".upload-" in self.box.output("ls -A /tmp")))
        self.assertTrue(wait_until(lambda: ".upload-" not in self.box.output("ls -A /tmp")))
        self.assertEqual(self.box.output("cat /tmp/kept"), "old\n")

    def test_chunked_uploads_and_expectations_are_understood(self):
        body, kind = wire.multipart(b"chunked data")
        reply = wire.request(f"{self.box.url}/upload?path=/tmp/c", "POST",
                             body=(body[i:i + 7] for i in range(0, len(body), 7)),
                             headers={"Content-Type": kind, "Transfer-Encoding": "chunked"})
        self.assertEqual(reply.status, 200)
        self.assertEqual(self.box.output("cat /tmp/c"), "chunked data")
        with wire.dial(self.box.url) as connection:
            connection.sendall(("POST /upload?path=/tmp/e HTTP/1.1\r\nHost: x\r\n"
                                f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                                "Expect: 100-continue\r\nConnection: close\r\n\r\n").encode())
            self.assertEqual(connection.recv(1000), b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.sendall(body)
            self.assertTrue(wire.everything(connection).startswith(b"HTTP/1.1 200 OK\r\n"))
        refused = wire.raw(self.box.url, b"POST /none HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                           b"Expect: 100-continue\r\n\r\n")
        self.assertTrue(refused.startswith(b"HTTP/1.1 404 "), refused)
        odd = wire.raw(self.box.url, b"POST /execute HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                       b"Expect: wonders\r\n\r\n")
        self.assertTrue(odd.startswith(b"HTTP/1.1 417 "), odd)

    def test_head_tells_the_size_without_the_bytes(self):
        wire.upload(self.box.url, "/tmp/h", b"x" * 1234)
        reply = wire.download(self.box.url, "/tmp/h", "HEAD")
        self.assertEqual((reply.status, reply.body, reply.headers["Content-Length"]),
                         (200, b"", "1234"))
        self.assertEqual(wire.download(self.box.url, "/tmp/none", "HEAD").status, 404)

    def test_files_that_say_they_are_empty_are_read_to_their_end(self):
        self.assertIn(b"NoNewPrivs", wire.download(self.box.url, "/proc/self/status").body)
        self.assertEqual(wire.download(self.box.url, "/proc/cmdline", "HEAD").body, b"")

    def test_large_files_need_no_memory(self):
        agent = self.box.agent()
        peak = memory(agent, "VmHWM")
        self.box.output("truncate -s 256M /tmp/big")
        parts = urlsplit(self.box.url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        connection.request("GET", "/download?path=/tmp/big")
        response = connection.getresponse()
        self.assertEqual(response.headers["Content-Length"], str(256 << 20))
        size, block = 0, bytearray(1 << 20)
        while n := response.readinto(block):
            size += n
        self.assertEqual(size, 256 << 20)
        head, kind = wire.multipart(b"\0" * 0)
        middle = head.index(b"\r\n\r\n") + 4
        zeros = b"\0" * (1 << 20)
        connection.putrequest("POST", "/upload?path=/tmp/big2")
        connection.putheader("Content-Type", kind)
        connection.putheader("Content-Length", str(len(head) + (256 << 20)))
        connection.endheaders()
        connection.send(head[:middle])
        for _ in range(256):
            connection.send(zeros)
        connection.send(head[middle:])
        self.assertEqual(connection.getresponse().status, 200)
        connection.close()
        self.assertEqual(self.box.output("cd /tmp; stat -c %s big2; cmp big big2; rm big big2"),
                         f"{256 << 20}\n")
        if not SANITIZED:
            self.assertLess(memory(agent, "VmHWM") - peak, 2 << 20)

    def test_a_client_that_does_not_read_its_download_costs_no_memory(self):
        agent = self.box.agent()
        self.box.output("truncate -s 200M /tmp/unread")
        before = memory(agent, "VmRSS")
        sockets = [wire.dial(self.box.url) for _ in range(10)]
        for connection in sockets:
            connection.sendall(b"GET /download?path=/tmp/unread HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.5)
        after = memory(agent, "VmRSS")
        for connection in sockets:
            connection.close()
        if not SANITIZED:
            self.assertLess(after - before, 10 << 20)


# ---- bad input ----

class BadInput(WithServer):
    def expect_status(self, data, status, url=None):
        answer = wire.raw(url or self.server.url, data)
        self.assertTrue(answer.startswith(b"HTTP/1.1 %d " % status), (data[:100], answer[:200]))
        self.assertNotIn(b"(reset)", answer)
        return answer

    def test_what_is_not_http_is_refused(self):
        for data in b"garbage\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", \
                b"GET /\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n", b"GET / HTTP/1.1\nHost: x\n\n", \
                b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", \
                b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n", \
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", \
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", \
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n" \
                b"Transfer-Encoding: chunked\r\n\r\n", \
                b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n":
            self.expect_status(data, 400)
            self.expect_status(data, 400, self.box.url)

    def test_a_broken_body_is_refused(self):
        for path, url in ("/v2/sandboxes/boxes", self.server.url), ("/execute", self.box.url):
            self.expect_status(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                               "\r\nzz\r\n".encode(), 400, url)
            for body in b"{", b"{}}", b'{"command": "\xff"}', b"\xef\xbb\xbf{}", b"{'a': 1}", \
                    b'{"a": 01}', b"[" * 100 + b"]" * 100, b"[" + b"1," * 20000 + b"1]":
                reply = wire.request(url.split("/v2")[0] + path, "POST", body=body)
                self.expect_error(reply, 400, "InvalidJSON")

    def test_large_heads_are_refused(self):
        for head in b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n", \
                b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 20000 + b"\r\n", \
                b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200, \
                b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"A: " + b"x" * 8000 + b"\r\n") * 9:
            self.expect_status(head, 431)

    def test_large_bodies_are_refused(self):
        for extra, body in ("Content-Length: 1048577", b""), \
                ("Transfer-Encoding: chunked",
                 b"100000\r\n" + b" " * 0x100000 + b"\r\n1\r\n1\r\n"), \
                ("Content-Length: 99999999999", b""):
            head = f"POST /execute HTTP/1.1\r\nHost: x\r\n{extra}\r\n\r\n".encode()
            self.expect_status(head + body, 413, self.box.url)
        self.expect_status(b"GET /v2/sandboxes/boxes HTTP/1.1\r\nHost: x\r\n"
                           b"Content-Length: 99999999999\r\n\r\n", 413)

    def test_half_a_request_is_forgotten_with_its_connection(self):
        before = len(os.listdir(f"/proc/{self.server.process.pid}/fd"))
        for data in b"", b"G", b"GET / HTTP/1.1\r\nHo", b"POST /v2/sandboxes/boxes HTTP/1.1\r\n" \
                b"Host: x\r\nContent-Length: 10\r\n\r\n{":
            with wire.dial(self.server.url) as connection:
                connection.sendall(data)
        self.assertTrue(wait_until(
            lambda: len(os.listdir(f"/proc/{self.server.process.pid}/fd")) <= before))

    def test_a_connection_serves_one_request_after_the_other(self):
        parts = urlsplit(self.server.url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
        sockets = set()
        for method, path, status in (("GET", "/boxes", 200), ("GET", "/nothing", 404),
                                     ("PUT", "/boxes", 405), ("HEAD", "/boxes", 200),
                                     ("POST", "/boxes", 422), ("DELETE", "/boxes/none", 404),
                                     ("GET", "/boxes", 200)):
            connection.request(method, parts.path + path)
            response = connection.getresponse()
            response.read()
            self.assertEqual(response.status, status, (method, path))
            sockets.add(connection.sock)
        self.assertEqual(len(sockets), 1)
        connection.close()

    def test_requests_may_come_all_at_once(self):
        ask = b"GET /v2/sandboxes/boxes/%d HTTP/1.1\r\nHost: x\r\n\r\n"
        data = b"".join(ask % i for i in range(3000)) + \
            b"GET /v2/sandboxes/boxes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + ask
        with wire.dial(self.server.url) as connection:
            sender = threading.Thread(target=connection.sendall, args=(data,))
            sender.start()
            answer = wire.everything(connection)
            sender.join()
        self.assertEqual(re.findall(rb"Sandbox '(\d+)'", answer), [b"%d" % i for i in range(3000)])
        self.assertEqual(answer.count(b"HTTP/1.1 200 OK"), 1)

    def test_a_request_waits_for_the_answer_to_the_one_before(self):
        body = b'{"command": "sleep 0.3; echo %d"}'
        data = b"".join(b"POST /execute HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                        % (len(body % i), body % i) for i in range(3))
        with wire.dial(self.box.url) as connection:
            connection.sendall(data)
            answer = b""
            while answer.count(b"HTTP/1.1 200") < 3 or not answer.endswith(b"}"):
                answer += connection.recv(65536)
        self.assertEqual(re.findall(rb'"stdout":"(\d)', answer), [b"0", b"1", b"2"])

    def test_old_clients_are_served(self):
        answer = self.expect_status(b"GET /v2/sandboxes/boxes HTTP/1.0\r\n\r\n", 200)
        self.assertIn(b"Connection: close", answer)
        answer = wire.raw(self.box.url, b"GET /download?path=/proc/version HTTP/1.0\r\n\r\n")
        self.assertIn(b"\r\n\r\nLinux version", answer)
        answer = self.expect_status(b"GET http://x/v2/sandboxes/boxes HTTP/1.1\r\nHost: x\r\n"
                                    b"Connection: close\r\n\r\n", 200)
        with wire.dial(self.server.url) as connection:  # one that closes its direction at once
            connection.sendall(b"GET /v2/sandboxes/boxes HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            self.assertTrue(wire.everything(connection).startswith(b"HTTP/1.1 200 "))

    def test_upgrades_that_are_none_are_refused(self):
        url = f"{self.box.url}/execute/ws"
        for headers, status in (({"Upgrade": "h2c"}, 400), ({"Connection": "close"}, 400),
                                ({"Sec-WebSocket-Key": "short"}, 400),
                                ({"Sec-WebSocket-Key": "!" * 22 + "=="}, 400),
                                ({"Sec-WebSocket-Version": "8"}, 426)):
            with self.assertRaises(Refused) as refused:
                WebSocket(url, headers)
            self.assertEqual(refused.exception.status, status, headers)
        self.assertIn("Sec-WebSocket-Version: 13", refused.exception.text)
        self.assertEqual(wire.request(url).status, 400)
        self.assertEqual(wire.request(url, "HEAD").status, 400)
        self.assertEqual(wire.request(url, "POST").status, 405)

    def test_frames_that_break_the_protocol_close_the_connection(self):
        execute = json.dumps({"type": "execute", "command": "sleep 1"}).encode()
        for send, code in (
                (lambda ws: ws.send_frame(wire.TEXT, b"{}", mask=b""), 1002),
                (lambda ws: ws.send_frame(wire.TEXT, b"{}", first=0xc1), 1002),
                (lambda ws: ws.send_frame(3, b"{}"), 1002),
                (lambda ws: ws.send_frame(0, b"{}"), 1002),
                (lambda ws: ws.send_frame(wire.PING, b"x" * 126), 1002),
                (lambda ws: ws.send_frame(wire.PING, b"", first=9), 1002),
                (lambda ws: ws.send_frame(wire.CLOSE, b"x"), 1002),
                (lambda ws: ws.send_frame(wire.CLOSE, b"\x03\xed"), 1002),
                (lambda ws: ws.send_frame(wire.TEXT, b'{"type": "\xff"}'), 1007),
                (lambda ws: ws.send_frame(wire.TEXT, b'\xed\xa0\x80', first=1), 1007),
                (lambda ws: ws.send_frame(wire.CLOSE, b"\x03\xe8\xff"), 1007),
                (lambda ws: ws.socket.sendall(b"\x81\xff" + b"\x00\x00\x00\x00\x7f\xff\xff\xff" +
                                              b"mask"), 1009),
                (lambda ws: ws.socket.sendall(b"\x81\xff" + b"\x00" * 4 + b"\x00\x80\x00\x01mask"),
                 1009)):
            for first in b"", execute:
                with self.box.socket() as ws:
                    if first:
                        ws.send_frame(wire.TEXT, first)
                        ws.receive()
                    send(ws)
                    with self.assertRaises(Closed) as closed:
                        ws.receive()
                    self.assertEqual(closed.exception.code, code)
                    self.assertEqual(wire.everything(ws.socket), b"")

    def test_messages_may_be_fragmented(self):
        data = '{"type": "execute", "command": "echo \u20ac"}'.encode()
        with self.box.socket() as ws:
            ws.send_frame(wire.TEXT, data[:1], first=1)
            for i in range(1, len(data)):
                ws.send_frame(wire.PING, b"%d" % i)
                ws.send_frame(0, data[i:i + 1], first=0)
            ws.send_frame(0, b"")
            messages = []
            while not messages or messages[-1]["type"] != "exit":
                messages.append(ws.receive())
        self.assertEqual(joined(messages, "stdout"), "\u20ac\n")

    def test_messages_that_are_none_are_errors(self):
        for data in b"", b"{", b"[]", b"1", b"{}", b'{"type": 1}', b'{"type": "none"}', \
                b"x" * 100000, b'{"type": "execute", "command": "true"', b'{"type": "kill"}':
            for opcode in wire.TEXT, wire.BINARY:
                with self.box.socket() as ws:
                    ws.send_frame(opcode, data)
                    messages, code = ws.rest()
                self.assertEqual(([m["type"] for m in messages], code), (["error"], 1000),
                                 data[:50])
                self.assertEqual(messages[0]["error_type"], "CommandError")
        with self.box.started("sleep 0.3; echo a") as (ws, started):
            ws.send_frame(wire.TEXT, b"{")
            with self.assertRaises(Closed) as closed:
                ws.receive()
            self.assertEqual(closed.exception.code, 1008)
        self.assertEqual(joined(self.box.reconnect(started["command_id"])[0], "stdout"), "a\n")

    def test_connections_beyond_the_limit_are_closed_and_others_go_on(self):
        with wire.dial(self.server.url) as first:
            sockets = []
            try:
                for _ in range(1100):
                    sockets.append(wire.dial(self.server.url))
                sockets[-1].settimeout(5)
                with contextlib.suppress(ConnectionError):
                    self.assertEqual(sockets[-1].recv(1), b"")
                first.sendall(b"GET /v2/sandboxes/boxes HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertTrue(first.recv(100).startswith(b"HTTP/1.1 200 "))
            finally:
                for connection in sockets:
                    connection.close()
        self.assertTrue(wait_until(lambda: self.answers()))

    def answers(self):
        try:
            return self.server.call("GET", "/boxes").status == 200
        except (OSError, http.client.HTTPException):
            return False


# ---- the end ----

class TheEnd(WithOrphans):
    def busy(self, server):
        """Makes sandboxes that are busy in every way; returns all processes."""
        boxes = [server.create() for _ in range(2)]
        sockets = []
        for box in boxes:
            box.output("mkdir -p a/b; chmod 000 a; mkdir -p $(printf 'd/%.0s' {1..300}); "
                       "setsid sleep 1000.1 > /dev/null 2>&1 & "
                       "nohup sleep 1000.2 > /dev/null 2>&1 &")
            ws = box.socket()
            ws.send(type="execute", command="trap '' TERM HUP INT; sleep 1000.3 & wait")
            ws.receive()
            sockets.append(ws)
        self.addCleanup(lambda: [ws.socket.close() for ws in sockets])
        server.call("POST", "/boxes", {"wait_for_ready": False})
        return descendants(server.process.pid)

    def test_signals_to_end_leave_no_process_and_no_file(self):
        for number in signal.SIGTERM, signal.SIGINT:
            with Server() as server:
                processes = self.busy(server)
                self.assertGreater(len(alive(processes)), 10)
                self.assertNotEqual(os.listdir(server.temporary.name), [])
                start = time.monotonic()
                self.assertEqual(server.stop(number), 0)
                self.assertLess(time.monotonic() - start, 5)
                self.expect_no_process(0)
                self.assertEqual(os.listdir(server.temporary.name), [])

    def test_sigkill_leaves_no_process(self):
        with Server() as server:
            self.busy(server)
            server.stop(signal.SIGKILL)
            self.expect_no_process()

    def test_an_end_amid_creations_leaves_no_process(self):
        for i in range(16):
            with Server() as server:
                for _ in range(3):
                    server.call("POST", "/boxes", {"wait_for_ready": False})
                time.sleep(0.003 * i)
                server.stop(signal.SIGKILL if i % 2 else signal.SIGTERM)
                self.expect_no_process()

    def test_bubblewrap_that_is_killed_amid_its_work_leaves_no_process(self):
        with Server() as server:
            children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
            for i in range(100):
                creation = threading.Thread(target=server.call,
                                            args=("POST", "/boxes", {"name": f"b{i}"}))
                creation.start()
                while not (pids := children.read_text().split()) and creation.is_alive():
                    pass
                time.sleep(0.0001 * i)
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                creation.join()
                server.call("DELETE", f"/boxes/b{i}")
            server.stop()
            self.expect_no_process()

    def test_bubblewrap_and_the_agent_end_together(self):
        with Server() as server:
            for i in range(2):
                box = server.create()
                agent = box.agent()
                os.kill(stat_of(agent)[0] if i else agent, signal.SIGKILL)
                self.assertTrue(wait_until(lambda: not alive(descendants(server.process.pid))))
                self.assertTrue(wait_until(lambda name=box.name: server.call(
                    "GET", f"/boxes/{name}/status").json["status"] == "failed"))

    def test_a_data_directory_stays_but_its_sandboxes_do_not(self):
        with tempfile.TemporaryDirectory() as directory:
            data = f"{directory}/a/b"
            with Server("--data", data) as server:
                box = server.create()
                self.assertEqual(os.listdir(f"{data}/sandboxes"), [box.document["id"]])
                second = subprocess.run([SANDBOXD, "--data", data], capture_output=True, text=True)
                self.assertEqual((second.returncode, second.stdout), (1, ""))
                self.assertIn("in use by another sandboxd", second.stderr)
                with box:
                    pass
                self.assertTrue(wait_until(lambda: os.listdir(f"{data}/sandboxes") == []))
                server.create()
                server.stop(signal.SIGKILL)
                self.expect_no_process()
                self.assertNotEqual(os.listdir(f"{data}/sandboxes"), [])
            with Server("--data", data):
                self.assertEqual(os.listdir(f"{data}/sandboxes"), [])
            self.assertTrue(os.path.isdir(data))

    def test_without_isolation_everything_ends_too(self):
        for number in signal.SIGTERM, signal.SIGKILL:
            with Server("--no-isolation") as server:
                self.assertIn("warning: --no-isolation", server.said())
                processes = self.busy(server)
                self.assertGreater(len(alive(processes)), 8)
                server.stop(number)
                self.expect_no_process()

    def test_without_isolation_commands_and_files_work(self):
        with Server("--no-isolation", key="k", env={"SANDBOXD_API_KEY": "k"}) as server, \
                server.create() as box:
            self.assertEqual(box.output("id -u"), f"{os.getuid()}\n")
            home = box.output("pwd").strip()
            self.assertTrue(home.startswith(server.temporary.name), home)
            self.assertEqual(wire.upload(box.url, "a/b", b"1", server.key).status, 200)
            self.assertEqual(Path(home, "a/b").read_bytes(), b"1")
            self.assertEqual(box.output("cat a/b; env | grep -c KEY; ls /proc/self/fd | wc -l"),
                             "10\n4\n")

    def test_without_bubblewrap_it_refuses_to_start(self):
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run([SANDBOXD], capture_output=True, text=True,
                                  env={"PATH": directory, "TMPDIR": directory})
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn("apt-get install bubblewrap", done.stderr)
            self.assertIn("--no-isolation", done.stderr)
            os.chmod(directory, 0o755)
            fake = Path(directory, "bwrap")
            fake.write_text("#!/bin/sh\necho no namespaces today >&2\nexit 1\n")
            os.chmod(fake, 0o755)
            done = subprocess.run([SANDBOXD], capture_output=True, text=True,
                                  env={"PATH": directory, "TMPDIR": directory})
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn("no namespaces today", done.stderr)
            self.assertEqual(os.listdir(directory), ["bwrap"])

    def test_options_are_checked(self):
        for options, text in ((["--port", "x"], "--port"), (["--port", "65536"], "--port"),
                              (["--image", "x"], "--image"), (["--image", "a=/none"], "--image"),
                              (["--max-sandboxes", "0"], "--max-sandboxes"),
                              (["--max-volumes", "1x"], "--max-volumes"),
                              (["--api-key", ""], "empty"), (["--none"], "--none"), (["x"], "x"),
                              (["--ring-bytes", "4095"], "--ring-bytes is"),
                              (["--ring-bytes", "67108865"], "--ring-bytes is"),
                              (["--ring-bytes", "1M"], "--ring-bytes is"),
                              (["--stall-seconds", "-1"], "--stall-seconds is"),
                              (["--stall-seconds", "nan"], "--stall-seconds is"),
                              (["--dialect", "2026-04"], "--dialect is"),
                              (["--chaos", ""], "--chaos does not know"),
                              (["--chaos", "cut=5,cutx=5"], "--chaos does not know cutx=5"),
                              (["--chaos", "cut=0"], "it is cut=N, cut=A-B"),
                              (["--chaos", "fin=9-8"], "fin=9-8 is wrong"),
                              (["--chaos", "fin=8-"], "fin=8- is wrong"),
                              (["--chaos", "cut=1\nstart"], "--chaos is a line"),
                              (["--chaos", "close=1001"], "close=1001 is wrong"),
                              (["--chaos", "close=999:5"], "close=999:5 is wrong"),
                              (["--chaos", "refuse=200:1"], "refuse=200:1 is wrong"),
                              (["--chaos", "refuse=503:2h"], "refuse=503:2h is wrong"),
                              (["--chaos", "delay=20"], "delay=20 is wrong"),
                              (["--chaos", "no-started=x"], "no-started=x is wrong"),
                              (["--chaos", "seed"], "seed is wrong")):
            done = subprocess.run([SANDBOXD, *options], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stdout), (2, ""), options)
            self.assertIn(text, done.stderr)
        done = subprocess.run([SANDBOXD, "--help"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for option in "--port", "--data", "--api-key", "--image", "--max-sandboxes", \
                "--max-volumes", "--no-isolation", "--limits", "--ring-bytes", "--stall-seconds", \
                "--dialect", "--chaos", "cut=A-B", "refuse=STATUS:K", "SANDBOXD_API_KEY":
            self.assertIn(option, done.stdout)
        done = subprocess.run([SANDBOXD, "--version"], capture_output=True, text=True)
        self.assertRegex(done.stdout, r"^sandboxd \d+\.\d+\.\d+\n$")

    def test_a_port_that_is_taken_is_an_error(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            done = subprocess.run([SANDBOXD, "--port", str(port)], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(f"cannot listen on port {port}", done.stderr)

    def test_it_listens_on_loopback_only(self):
        with Server() as server, server.create() as box:
            for url in server.url, box.url:
                port = f"{urlsplit(url).port:04X}"
                table = Path("/proc/net/tcp").read_text().splitlines()[1:]
                self.assertEqual([line[1] for line in map(str.split, table)
                                  if line[1].endswith(":" + port) and line[3] == "0A"],
                                 [f"0100007F:{port}"])


if __name__ == "__main__":
    main(__name__)
